/* config: how the backends of services are looked at. */
#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>
#include "daemon/config_parts.h"
#include "daemon/config_support.h"

#define TCP MESHD__V1__CHECK_KIND__CHECK_KIND_TCP
#define HTTP MESHD__V1__CHECK_KIND__CHECK_KIND_HTTP
#define A "services: [{name: a, backend: 'b:1', "

Test(config_services, there_is_no_check_unless_one_is_asked_for)
{
    struct config *c = load_good(LOAD(.env = {"SERVICE_ADDR=web:127.0.0.1:80"}));

    cr_assert_eq(c->n_services, 1u);
    cr_expect_eq(c->services[0].check.kind, 0);
    config_free(c);
}

Test(config_services, a_check_is_tcp_or_a_path_of_http_and_what_is_not_said_has_its_default)
{
    struct config *c = load_good(LOAD(.yaml = "services:\n"
                                              "  - {name: a, backend: 'b:1', check: tcp}\n"
                                              "  - name: c\n"
                                              "    backend: d:1\n"
                                              "    check: http:/up?full\n"
                                              "    check_interval: 500ms\n"
                                              "    check_timeout: 1m\n"
                                              "    check_rise: 1\n"
                                              "    check_fall: 100\n"));

    cr_assert_eq(c->n_services, 2u);
    cr_expect_eq(c->services[0].check.kind, TCP);
    cr_expect_eq(c->services[0].check.interval_ms, 0, "the default is the node's");
    cr_expect_eq(c->services[1].check.kind, HTTP);
    cr_expect_str_eq(c->services[1].check.path, "/up?full");
    cr_expect_eq(c->services[1].check.interval_ms, 500);
    cr_expect_eq(c->services[1].check.timeout_ms, 60000);
    cr_expect_eq(c->services[1].check.rise, 1);
    cr_expect_eq(c->services[1].check.fall, 100);
    config_free(c);
}

Test(config_services, what_is_wrong_with_a_check_is_told_with_its_line_and_key)
{
    static const struct {
        const char *yaml, *err;
    } cases[] = {
        {A "check: icmp}]", "meshd.yaml:1:45: services: check: 'icmp' is neither tcp nor "
                            "http:/path; allowed: tcp, or http:/path\n"},
        {A "check: 'http:up'}]", "meshd.yaml:1:45: services: check: 'http:up' has no path that "
                                 "begins with / behind http:; allowed: tcp, or http:/path\n"},
        {A "check: 'http:/a b'}]",
         "meshd.yaml:1:45: services: check: 'http:/a b' has a path of more than 256 bytes, or with "
         "bytes that are not printable ASCII; allowed: tcp, or http:/path\n"},
        {A "check: tcp, check_interval: 99ms}]",
         "meshd.yaml:1:66: services: check_interval: '99ms' is too small; allowed: 100ms to 1h, as "
         "a whole number of ms, s, m or h\n"},
        {A "check: tcp, check_timeout: 61s}]",
         "meshd.yaml:1:65: services: check_timeout: '61s' is too large; allowed: 50ms to 1m, as a "
         "whole number of ms, s, m or h\n"},
        {A "check: tcp, check_timeout: 5}]",
         "meshd.yaml:1:65: services: check_timeout: '5' is no duration; allowed: 50ms to 1m, as a "
         "whole number of ms, s, m or h\n"},
        {A "check: tcp, check_rise: 0}]",
         "meshd.yaml:1:62: services: check_rise: '0' is too small; allowed: 1 to 100\n"},
        {A "check: tcp, check_fall: 2.5}]",
         "meshd.yaml:1:62: services: check_fall: '2.5' is no whole number; allowed: 1 to 100\n"},
        {A "check_fall: 2}]",
         "meshd.yaml:1:12: services: has check_interval, check_timeout, check_rise or check_fall, "
         "but no check\n"},
    };

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
        load_bad(LOAD(.yaml = cases[i].yaml), cases[i].err);
}

Test(config_services, what_is_printed_reads_back_the_same)
{
    struct config *c = load_good(LOAD(.yaml = "services:\n"
                                              "  - {name: a, backend: 'b:1', check: tcp}\n"
                                              "  - name: c\n"
                                              "    backend: d:1\n"
                                              "    check: 'http:/\"up\\'\n"
                                              "    check_interval: 1500ms\n"
                                              "    check_timeout: 60s\n"
                                              "    check_rise: 1\n"
                                              "    check_fall: 9\n")),
                  *again;
    char *text = config_printed(c);

    cr_expect(strstr(text, "  - name: \"a\"\n"
                           "    backend: \"b:1\"\n"
                           "    check: \"tcp\"\n"
                           "  - name: \"c\"\n"
                           "    backend: \"d:1\"\n"
                           "    check: \"http:/\\\"up\\\\\"\n"
                           "    check_interval: \"1500ms\"\n"
                           "    check_timeout: \"1m\"\n"
                           "    check_rise: \"1\"\n"
                           "    check_fall: \"9\"\n"),
              "%s", text);
    again = load_good(LOAD(.yaml = text));
    config_expect_same(c, again);
    cr_expect_str_eq(again->services[1].check.path, "/\"up\\");
    config_free(again);
    free(text);
    config_free(c);
}
