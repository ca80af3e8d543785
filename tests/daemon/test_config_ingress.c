/* config: ports where clients connect, and what backends are told first. */
#include <arpa/inet.h>
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "daemon/config_parts.h"
#include "daemon/config_support.h"

#define ALLOWED_TEXT                                                                               \
    "port, ip:port, [v6]:port or *:port, the port from 0 (any free one) to 65535; then perhaps "   \
    "=name"
#define ALLOWED_LISTEN "port, ip:port, [v6]:port or *:port, the port from 0 (any free one) to 65535"
#define ALLOWED_NETWORKS "1 to 22 of ip or ip/bits with commas between"
#define ALLOWED_NAME "labels of a-z 0-9 - _ with dots between, 253 bytes in all"
#define FIELDS "listen and perhaps name, default, proxy_from, bare_lf"

Test(config_ingress, an_entry_is_an_address_and_perhaps_a_service)
{
    static const struct {
        const char *text, *host, *name;
        uint16_t port;
    } cases[] = {
        {"80", "", "", 80},
        {"*:80", "", "", 80},
        {":80", "", "", 80},
        {"0", "", "", 0},
        {"127.0.0.1:65535", "127.0.0.1", "", 65535},
        {"[::]:443", "::", "", 443},
        {"[2001:DB8:0::1]:1", "2001:db8::1", "", 1},
        {"[::ffff:192.0.2.1]:1", "192.0.2.1", "", 1},
        {"5432=Orders-DB.", "", "orders-db", 5432},
        {"[::1]:0=*.example.com", "::1", "*.example.com", 0},
    };

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct config *c = load_good(LOAD(.flags = {"--ingress", cases[i].text}));

        cr_assert_eq(c->n_ingress, 1u);
        cr_expect_str_eq(c->ingress[0].host, cases[i].host, "%s", cases[i].text);
        cr_expect_eq(c->ingress[0].port, cases[i].port, "%s", cases[i].text);
        cr_expect_str_eq(c->ingress[0].name, cases[i].name, "%s", cases[i].text);
        cr_expect_str_empty(c->ingress[0].fallback);
        cr_expect_eq(c->ingress[0].n_proxy_from, 0u);
        cr_expect_not(c->ingress[0].bare_lf);
        config_free(c);
    }
}

Test(config_ingress, the_variable_wins_over_the_file_and_the_flag_over_the_variable)
{
    static const char yaml[] = "ingress: [{listen: '1', default: web}]";
    struct config *c = load_good(LOAD(.yaml = yaml));

    cr_assert_eq(c->n_ingress, 1u);
    cr_expect_str_eq(c->ingress[0].fallback, "web");
    config_free(c);
    c = load_good(LOAD(.yaml = yaml, .env = {"INGRESS_ADDR=127.0.0.1:2, 3=db"}));
    cr_assert_eq(c->n_ingress, 2u);
    cr_expect_str_eq(c->ingress[0].host, "127.0.0.1");
    cr_expect_eq(c->ingress[0].port, 2);
    cr_expect_str_empty(c->ingress[0].fallback);
    cr_expect_eq(c->ingress[1].port, 3);
    cr_expect_str_eq(c->ingress[1].name, "db");
    config_free(c);
    c = load_good(LOAD(.yaml = yaml, .env = {"INGRESS_ADDR=2"}, .flags = {"--ingress=4"}));
    cr_assert_eq(c->n_ingress, 1u);
    cr_expect_eq(c->ingress[0].port, 4);
    config_free(c);
}

Test(config_ingress, a_wrong_entry_of_the_variable_is_told_by_its_number)
{
    static const struct {
        const char *text, *why;
    } cases[] = {
        {"", "has no port"},
        {"*", "has no port"},
        {"=web", "has no port"},
        {"web", "has no port"},
        {"65536", "has no port from 0 to 65535"},
        {"80 =web", "has no port"},
        {"localhost:80", "has no IP address before its port"},
        {"*.example.com:80", "has no IP address before its port"},
        {"127.0.0.256:80", "has no IP address before its port"},
        {"::1:80", "has too many colons (an IPv6 address stands in brackets)"},
        {"[::1]", "has no port"},
        {"80=", "has no service's name behind its '='"},
        {"80=web:81", "has no service's name behind its '='"},
        {"80=a=b", "has no service's name behind its '='"},
        {"80=127.0.0.1", "has no service's name behind its '='"},
    };
    char env[128], err[512];

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        snprintf(env, sizeof(env), "INGRESS_ADDR=1,%s,2", cases[i].text);
        snprintf(err, sizeof(err),
                 "environment INGRESS_ADDR, entry 2: '%s' %s; allowed: " ALLOWED_TEXT "\n",
                 cases[i].text, cases[i].why);
        load_bad(LOAD(.env = {env}), err);
    }
}

Test(config_ingress, the_file_knows_more_of_a_port)
{
    struct config *c = load_good(LOAD(.yaml = "ingress:\n"
                                              "  - listen: \"*:80\"\n"
                                              "    default: Web\n"
                                              "    proxy_from: \"10.0.0.0/8, fd00::/8,192.0.2.1\"\n"
                                              "    bare_lf: true\n"
                                              "  - {listen: '5432', name: db}\n"));
    const struct config_ingress *port = c->ingress;
    uint8_t ip[16];

    cr_assert_eq(c->n_ingress, 2u);
    cr_expect_str_empty(port->name);
    cr_expect_str_eq(port->fallback, "web");
    cr_expect(port->bare_lf);
    cr_assert_eq(port->n_proxy_from, 3u);
    inet_pton(AF_INET6, "::ffff:10.0.0.0", ip);
    cr_expect_eq(memcmp(port->proxy_from[0].ip, ip, sizeof(ip)), 0, "v4 is mapped");
    cr_expect_eq(port->proxy_from[0].bits, 96 + 8);
    inet_pton(AF_INET6, "fd00::", ip);
    cr_expect_eq(memcmp(port->proxy_from[1].ip, ip, sizeof(ip)), 0);
    cr_expect_eq(port->proxy_from[1].bits, 8);
    inet_pton(AF_INET6, "::ffff:192.0.2.1", ip);
    cr_expect_eq(memcmp(port->proxy_from[2].ip, ip, sizeof(ip)), 0);
    cr_expect_eq(port->proxy_from[2].bits, 128, "an address alone is all of its bits");
    cr_expect_str_eq(port[1].name, "db");
    cr_expect_not(port[1].bare_lf);
    config_free(c);
}

Test(config_ingress, what_is_wrong_in_the_file_is_told_with_its_place)
{
    static const struct {
        const char *yaml, *err;
    } cases[] = {
        {"ingress: [80]", "meshd.yaml:1:11: ingress: an entry of " FIELDS " is meant here\n"},
        {"ingress:\n  - name: web\n",
         "meshd.yaml:2:5: ingress: has no listen; meant is an entry of " FIELDS "\n"},
        {"ingress: [{listen: '80', port: 1}]",
         "meshd.yaml:1:26: ingress: unknown key 'port'; allowed: listen, name, default, "
         "proxy_from, bare_lf\n"},
        {"ingress:\n  - listen: localhost:80\n",
         "meshd.yaml:2:13: ingress: listen: 'localhost:80' has no IP address before its port; "
         "allowed: " ALLOWED_LISTEN "\n"},
        {"ingress:\n  - listen: '80=web'\n",
         "meshd.yaml:2:13: ingress: listen: '80=web' has no port; allowed: " ALLOWED_LISTEN "\n"},
        {"ingress:\n  - listen: '80'\n    name: 'web:1'\n    default: a..b\n",
         "meshd.yaml:3:11: ingress: name: 'web:1' has a colon: a port belongs to listen; "
         "allowed: " ALLOWED_NAME "\n"
         "meshd.yaml:4:14: ingress: default: 'a..b' has an empty label; allowed: " ALLOWED_NAME
         "\n"},
        {"ingress:\n  - listen: '80'\n    name: web\n    default: web\n",
         "meshd.yaml:2:5: ingress: has a name and a default; allowed: a name, which gets every "
         "client, or a default, which gets those that name no service\n"},
        {"ingress:\n  - listen: '80'\n    bare_lf: yes\n",
         "meshd.yaml:3:14: ingress: bare_lf: 'yes' is neither true nor false; allowed: true or "
         "false\n"},
        {"services: [{name: a, backend: 'b:1', proxy_protocol: v3}]",
         "meshd.yaml:1:54: services: proxy_protocol: 'v3' is none of the words meant; allowed: "
         "off, v1 or v2\n"},
    };

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
        load_bad(LOAD(.yaml = cases[i].yaml), cases[i].err);
}

Test(config_ingress, a_network_is_an_address_and_its_bits)
{
    static const struct {
        const char *text, *why;
    } cases[] = {
        {"", "has what is no IP address"},
        {"10.0.0.0/8,", "has what is no IP address"},
        {"10.0.0/8", "has what is no IP address"},
        {"example.com", "has what is no IP address"},
        {"10.0.0.0/", "has a '/' without a number of bits"},
        {"10.0.0.0/33", "has a '/' without a number of bits"},
        {"10.0.0.0/+8", "has a '/' without a number of bits"},
        {"10.0.0.0/0008", "has a '/' without a number of bits"},
        {"10.0.0.0/8/8", "has a '/' without a number of bits"},
        {"10.0.0.0 /8", "has what is no IP address"},
        {"fd00::/129", "has a '/' without a number of bits"},
        {"10.0.0.1/8", "has an address with bits set behind those that count"},
        {"fd00::1/127", "has an address with bits set behind those that count"},
        {"::,::,::,::,::,::,::,::,::,::,::,::,::,::,::,::,::,::,::,::,::,::,::",
         "has too many networks"},
    };
    char yaml[256], err[512];

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        snprintf(yaml, sizeof(yaml), "ingress: [{listen: '80', proxy_from: '%s'}]", cases[i].text);
        snprintf(err, sizeof(err),
                 "meshd.yaml:1:38: ingress: proxy_from: '%s' %s; allowed: " ALLOWED_NETWORKS "\n",
                 cases[i].text, cases[i].why);
        load_bad(LOAD(.yaml = yaml), err);
    }
}

Test(config_ingress, two_ports_of_one_address_are_one_too_many)
{
    load_bad(LOAD(.env = {"INGRESS_ADDR=80=a,127.0.0.1:80,*:080=b,[0::1]:80,[::1]:80"}),
             "environment INGRESS_ADDR, entry 3: '*:80' is there already (environment "
             "INGRESS_ADDR, entry 1); allowed: each listen once\n"
             "environment INGRESS_ADDR, entry 5: '[::1]:80' is there already (environment "
             "INGRESS_ADDR, entry 4); allowed: each listen once\n");
    load_bad(LOAD(.yaml = "ingress:\n  - {listen: '80', name: a}\n  - {listen: ':80'}\n"),
             "meshd.yaml:3:5: ingress: '*:80' is there already (meshd.yaml:2:5); allowed: each "
             "listen once\n");
}

Test(config_ingress, any_free_port_may_be_wanted_again)
{
    struct config *c = load_good(LOAD(.env = {"INGRESS_ADDR=127.0.0.1:0,127.0.0.1:0=db,0,0"}));

    cr_expect_eq(c->n_ingress, 4u);
    config_free(c);
}

Test(config_ingress, the_longest_networks_are_read_back)
{
    static const char net[] = "2001:db08:1111:2222:3333:4444:5555:6666/128";
    char yaml[2048] = "ingress: [{listen: '80', proxy_from: '", *text;
    struct config *c, *again;

    for (size_t i = 0; i < CONFIG_NETWORKS_MAX; i++)
        snprintf(yaml + strlen(yaml), sizeof(yaml) - strlen(yaml), "%s%s", i ? "," : "", net);
    strcat(yaml, "'}]");
    c = load_good(LOAD(.yaml = yaml));
    cr_expect_eq(c->ingress[0].n_proxy_from, CONFIG_NETWORKS_MAX);
    text = config_printed(c);
    again = load_good(LOAD(.yaml = text));
    config_expect_same(c, again);
    config_free(again);
    config_free(c);
    free(text);
}

Test(config_ingress, what_is_printed_names_only_what_is_set)
{
    struct config *c = load_good(
        LOAD(.yaml = "services:\n"
                     "  - {name: a, backend: 'b:1', proxy_protocol: v2}\n"
                     "  - {name: c, backend: 'd:1', proxy_protocol: off}\n"
                     "ingress:\n"
                     "  - {listen: ':80', proxy_from: '::ffff:10.0.0.0/104,::1', bare_lf: false}\n"
                     "  - {listen: '[::1]:0', name: a}\n"));
    char *text = config_printed(c), *from = strstr(text, "services:\n");
    char *to = strstr(text, "policy:");

    cr_assert(from && to);
    *to = '\0';
    cr_expect_str_eq(from, "services:\n"
                           "  - name: \"a\"\n"
                           "    backend: \"b:1\"\n"
                           "    proxy_protocol: \"v2\"\n"
                           "  - name: \"c\"\n"
                           "    backend: \"d:1\"\n"
                           "ingress:\n"
                           "  - listen: \"*:80\"\n"
                           "    proxy_from: \"10.0.0.0/8,::1/128\"\n"
                           "  - listen: \"[::1]:0\"\n"
                           "    name: \"a\"\n");
    free(text);
    config_free(c);
}

Test(config_ingress, workers_are_at_most_256)
{
    struct config *c = load_good(LOAD(.flags = {"--workers", "256"}));

    cr_expect_eq(c->workers, 256u);
    config_free(c);
    load_bad(LOAD(.flags = {"--workers", "257"}),
             "--workers: '257' is too large; allowed: 0 (one per core) to 256\n");
}

Test(config_ingress, what_listens_twice_could_never_be_bound)
{
    static const struct {
        const char *bind, *admin, *ingress, *told;
    } cases[] = {
        {"127.0.0.1:1", "127.0.0.1:1", "2", "--admin: port 1 is the mesh port"},
        {"127.0.0.1:1", "127.0.0.1:2", "1", "--ingress: port 1 is the mesh port"},
        {"127.0.0.1:1", "127.0.0.1:2", "0.0.0.0:2=db", "--ingress: port 2 is the admin port"},
        {"[::1]:1", ":2", "[::]:1", "--ingress: port 1 is the mesh port"},
        {"[::1]:1", ":1", "3", "--admin: port 1 is the mesh port"},
    };
    static const struct {
        const char *bind, *admin, *ingress;
    } good[] = {
        {"127.0.0.1:1", "127.0.0.2:1", "127.0.0.3:1"},
        {"127.0.0.1:1", "[::1]:1", "[::2]:1"},
        {"127.0.0.1:1", "off", "[::]:1"},
        {"127.0.0.1:0", "127.0.0.1:0", "0"},
    };
    char told[256];

    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        snprintf(told, sizeof(told), "%s there; allowed: another port, or another address\n",
                 cases[i].told);
        load_bad(LOAD(.flags = {"--bind", cases[i].bind, "--admin", cases[i].admin, "--ingress",
                                cases[i].ingress}),
                 told);
    }
    for (size_t i = 0; i < sizeof(good) / sizeof(*good); i++)
        config_free(load_good(LOAD(.flags = {"--bind", good[i].bind, "--admin", good[i].admin,
                                             "--ingress", good[i].ingress})));
}
