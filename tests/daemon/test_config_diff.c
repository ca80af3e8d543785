/* What is different between two configs, and whether a running node follows it. */
#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>
#include "daemon/config_support.h"

TestSuite(config_diff);

static char told[4096];

static void tell(void *ctx, const struct config_difference *one)
{
    size_t len = strlen(told);

    snprintf(told + len, sizeof(told) - len, "%s|%s%s\n", one->key, one->text,
             one->follows ? "" : "|restart");
}

static const char *diff(const struct load *before, const struct load *after)
{
    struct config *a = load_good(before), *b = load_good(after);

    told[0] = '\0';
    cr_assert_eq(config_diff(a, b, tell, NULL), 0);
    config_free(a);
    config_free(b);
    return told;
}

Test(config_diff, the_same_by_other_words_is_not_different)
{
    cr_expect_str_eq(diff(LOAD(.yaml = "limits: {gate_buffer_bytes: 64MiB}\nlog: {level: info}\n"
                                       "services: [{name: Web, backend: 'H:80'}]\n"),
                          LOAD(.yaml = "services: [{name: web, backend: 'h:80'}]\n",
                               .flags = {"--limit", "gate_buffer_bytes=67108864"})),
                     "");
}

Test(config_diff, a_value_is_told_with_the_one_before_in_the_order_of_the_help)
{
    cr_expect_str_eq(diff(LOAD(.yaml = "log: {level: debug}\n"),
                          LOAD(.yaml = "limits: {leases: 5, message_bytes: 2MiB}\n"
                                       "bind: '127.0.0.1:1'\n"
                                       "timing: {heartbeat: 1s}\n")),
                     "bind|bind is \"127.0.0.1:1\" (was \"127.0.0.1:7400\")|restart\n"
                     "log.level|log.level is info (was debug)\n"
                     "timing.heartbeat|timing.heartbeat is 1s (was 3s)|restart\n"
                     "limits.message_bytes|limits.message_bytes is 2097152 (was 1048576)|restart\n"
                     "limits.leases|limits.leases is 5 (was 10000)\n");
}

Test(config_diff, of_a_list_what_came_what_went_and_what_is_other)
{
    cr_expect_str_eq(
        diff(LOAD(.env = {"REMOTE_PEER_ADDR=a:1,b:1,c:1", "SERVICE_ADDR=x:h:1,y:h:1,z:h:1"}),
             LOAD(.env = {"REMOTE_PEER_ADDR=c:1,b:1,d:1", "SERVICE_ADDR=z:h:1,x:h:2,y:h:1"})),
        "peers|peers: 1 more (d:1), 1 less (a:1)\n"
        "services|services: 1 other (x)\n");
    cr_expect_str_eq(
        diff(LOAD(.env = {NULL}), LOAD(.env = {"SERVICE_ADDR=a:h:1,b:h:1,c:h:1,d:h:1,e:h:1"})),
        "services|services: 5 more (a, b, c, ...)\n");
    cr_expect_str_eq(diff(LOAD(.env = {"INGRESS_ADDR=80"}), LOAD(.env = {"INGRESS_ADDR=81"})),
                     "ingress|ingress: 1 more (*:81), 1 less (*:80)|restart\n");
}

Test(config_diff, rules_in_another_order_are_others)
{
    cr_expect_str_eq(diff(LOAD(.yaml = "policy: [{rule: a, peers: x}, {rule: b, peers: y}]\n"),
                          LOAD(.yaml = "policy: [{rule: b, peers: y}, {rule: a, peers: x}]\n")),
                     "policy|policy: in another order\n");
    cr_expect_str_eq(diff(LOAD(.yaml = "policy: [{rule: a, peers: [x, y]}]\n"),
                          LOAD(.yaml = "policy: [{rule: a, peers: [x, z]}]\n")),
                     "policy|policy: 1 other (a)\n");
}
