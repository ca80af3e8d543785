/* policy: from the settings into force, whom it is about, and what is logged of refusals. */
#include <criterion/criterion.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "base/log.h"
#include "daemon/config_support.h"
#include "daemon/policy.h"

static struct policy_keeper *keeper;
static char rule[POLICY_RULE_TEXT];

static void setup(void) { cr_assert_eq(policy_start(&keeper), 0); }

static void teardown(void) { policy_keeper_free(keeper); }

TestSuite(daemon_policy, .init = setup, .fini = teardown);

static void use(const char *yaml)
{
    struct config *config = load_good(LOAD(.yaml = yaml));

    cr_assert_eq(policy_from_config(config, keeper), 0);
    config_free(config); /* all is copied */
}

static bool may(enum policy_action action, const char *subject, const char *name)
{
    return policy_would(keeper, action, subject, name, rule);
}

Test(daemon_policy, each_field_of_a_rule_is_in_force)
{
    use("policy:\n"
        "  - {rule: one, peers: n1, link: true, register: [a, b*]}\n"
        "  - {rule: two, peers: [n2, n3], forward: c, lookup: true}\n"
        "  - {rule: three, peers: '@anonymous', introspect: true, offer: d}\n");
    cr_expect(may(POLICY_LINK, "n1", "") && !may(POLICY_LINK, "n2", ""));
    cr_expect(may(POLICY_REGISTER, "n1", "bb") && !may(POLICY_REGISTER, "n1", "c"));
    cr_expect(may(POLICY_FORWARD, "n3", "c") && !may(POLICY_FORWARD, "n1", "c"));
    cr_expect(may(POLICY_LOOKUP, "n2", "") && !may(POLICY_LOOKUP, "n1", ""));
    cr_expect(may(POLICY_INTROSPECT, "@anonymous", "") && !may(POLICY_INTROSPECT, "n2", ""));
    cr_expect(may(POLICY_OFFER, "@anonymous", "d") && !may(POLICY_OFFER, "n3", "d"));
    cr_expect_not(may(POLICY_LINK, "n4", ""));
    cr_expect_str_eq(rule, "default");
    use("");
    cr_expect(may(POLICY_LINK, "n4", ""));
}

Test(daemon_policy, who_asks_is_the_socket_the_preamble_the_certificate_or_nobody)
{
    struct gate_peer peer = {.local = true};

    cr_expect_str_eq(policy_subject(&peer), "@local");
    peer.local = false;
    cr_expect_str_eq(policy_subject(&peer), "@anonymous");
    strcpy(peer.names[0], "n7");
    cr_expect_str_eq(policy_subject(&peer), "@anonymous", "without TLS there is no certificate");
    peer.secure = true;
    cr_expect_str_eq(policy_subject(&peer), "n7");
    strcpy(peer.peer_id, "n8");
    cr_expect_str_eq(policy_subject(&peer), "n8");
}

Test(daemon_policy, a_flood_of_refusals_fills_no_log)
{
    static char told[1 << 17];
    int saved = dup(STDERR_FILENO), fd = open(".", O_TMPFILE | O_RDWR, 0600);
    size_t lines = 0;

    cr_assert(fd >= 0 && saved >= 0);
    use("policy: [{rule: edge, peers: n1}]");
    dup2(fd, STDERR_FILENO);
    for (int i = 0; i < 1000; i++)
        policy_allows(keeper, POLICY_REGISTER, "n1\n", i ? "web" : "first", rule);
    dup2(saved, STDERR_FILENO);
    cr_assert_gt(pread(fd, told, sizeof(told) - 1, 0), 0);
    for (const char *c = told; *c; c++)
        lines += *c == '\n';
    cr_expect_eq(lines, LOG_LIMITED_LINES, "%s", told);
    cr_expect(strstr(told,
                     "warn [policy] refused: policy rule 'default' does not let n1\\x0a register "
                     "this name: first\n"),
              "%s", told);
    close(fd);
    close(saved);
}
