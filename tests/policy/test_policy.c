/* Rules: who may do what; and their globs. */
#include <criterion/criterion.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include "policy/policy.h"

static struct policy_keeper *keeper;
static char rule[POLICY_RULE_TEXT];

static void teardown(void) { policy_keeper_free(keeper); }

static void use(const struct policy_rule *rules, size_t n)
{
    cr_assert_eq(policy_keeper_new(rules, n, &keeper), 0);
}

static bool may(enum policy_action action, const char *subject, const char *name)
{
    rule[0] = '\0';
    return policy_allows(keeper, action, subject, name, rule);
}

static const char *const edges[] = {"edge-*"}, *const edge_names[] = {"web", "*.example"},
                         *const all[] = {"*"}, *const one[] = {"edge-1"},
                         *const local[] = {"@local"}, *const batch[] = {"batch-*"};

TestSuite(policy, .fini = teardown);

Test(policy, without_rules_whoever_is_in_may_do_all_but_offer_over_the_network)
{
    use(NULL, 0);
    for (int i = 0; i < N_POLICY_ACTIONS; i++) {
        bool offer = i == POLICY_OFFER;

        cr_expect_eq(may((enum policy_action)i, "n7", "web"), !offer);
        cr_expect_eq(may((enum policy_action)i, POLICY_ANONYMOUS, "web"), !offer);
        cr_expect(may((enum policy_action)i, POLICY_LOCAL, "web"));
    }
    cr_expect_not(may(POLICY_OFFER, "n7", "web"));
    cr_expect_str_eq(rule, "default");
}

Test(policy, no_keeper_is_no_rule)
{
    keeper = NULL;
    cr_expect(may(POLICY_LINK, "n7", ""));
    cr_expect_not(may(POLICY_OFFER, "n7", "web"));
}

Test(policy, the_first_rule_that_matches_decides)
{
    const struct policy_rule rules[] = {
        {.name = "one", .peers = one, .n_peers = 1, .lookup = true},
        {.name = "edge", .peers = edges, .n_peers = 1, .link = true, .introspect = true},
    };

    use(rules, 2);
    cr_expect(may(POLICY_LOOKUP, "edge-1", ""));
    cr_expect_not(may(POLICY_LINK, "edge-1", ""));
    cr_expect_str_eq(rule, "one");
    cr_expect(may(POLICY_LINK, "edge-2", ""));
    cr_expect(may(POLICY_INTROSPECT, "edge-2", ""));
    cr_expect_not(may(POLICY_LOOKUP, "edge-2", ""));
    cr_expect_str_eq(rule, "edge");
}

Test(policy, whom_no_rule_matches_may_do_nothing)
{
    const struct policy_rule rules[] = {
        {.name = "edge", .peers = edges, .n_peers = 1, .link = true}};

    use(rules, 1);
    for (int i = 0; i < N_POLICY_ACTIONS; i++) {
        cr_expect_not(may((enum policy_action)i, "n7", "web"));
        cr_expect_str_eq(rule, "default");
        cr_expect_not(may((enum policy_action)i, POLICY_ANONYMOUS, "web"));
    }
}

Test(policy, names_are_told_by_their_own_globs)
{
    const struct policy_rule rules[] = {{.name = "edge",
                                         .peers = edges,
                                         .n_peers = 1,
                                         .register_names = edge_names,
                                         .n_register = 2,
                                         .forward_names = all,
                                         .n_forward = 1,
                                         .offer_names = batch,
                                         .n_offer = 1}};

    use(rules, 1);
    cr_expect(may(POLICY_REGISTER, "edge-1", "web"));
    cr_expect(may(POLICY_REGISTER, "edge-1", "a.b.example"));
    cr_expect(may(POLICY_REGISTER, "edge-1", "*.x.example"), "a wildcard is a name of its own");
    cr_expect_not(may(POLICY_REGISTER, "edge-1", "example"));
    cr_expect_not(may(POLICY_REGISTER, "edge-1", "web2"));
    cr_expect(may(POLICY_FORWARD, "edge-1", "anything"));
    cr_expect(may(POLICY_OFFER, "edge-1", "batch-7"));
    cr_expect_not(may(POLICY_OFFER, "edge-1", "web"));
}

Test(policy, programs_on_the_unix_socket_may_do_all_unless_a_rule_names_them)
{
    const struct policy_rule rules[] = {
        {.name = "all", .peers = all, .n_peers = 1, .link = true},
        {.name = "local",
         .peers = local,
         .n_peers = 1,
         .lookup = true,
         .offer_names = batch,
         .n_offer = 1},
    };

    use(rules, 1);
    cr_expect(may(POLICY_OFFER, POLICY_LOCAL, "web"), "'*' is about peers");
    cr_expect(may(POLICY_INTROSPECT, POLICY_LOCAL, ""));
    cr_assert_eq(policy_keeper_set(keeper, rules, 2), 0);
    cr_expect(may(POLICY_LOOKUP, POLICY_LOCAL, ""));
    cr_expect(may(POLICY_OFFER, POLICY_LOCAL, "batch-1"));
    cr_expect_not(may(POLICY_OFFER, POLICY_LOCAL, "web"));
    cr_expect_str_eq(rule, "local");
    cr_expect_not(may(POLICY_INTROSPECT, POLICY_LOCAL, ""));
}

Test(policy, an_asterisk_is_not_about_who_has_no_name)
{
    const char *const both[] = {"*", POLICY_ANONYMOUS};
    const struct policy_rule rules[] = {
        {.name = "peers", .peers = all, .n_peers = 1, .lookup = true},
        {.name = "both", .peers = both, .n_peers = 2, .lookup = true},
    };

    use(rules, 1);
    cr_expect(may(POLICY_LOOKUP, "n7", ""));
    cr_expect_not(may(POLICY_LOOKUP, POLICY_ANONYMOUS, ""));
    cr_assert_eq(policy_keeper_set(keeper, rules, 2), 0);
    cr_expect(may(POLICY_LOOKUP, POLICY_ANONYMOUS, ""));
}

Test(policy, refusals_are_counted_and_looks_ahead_are_not)
{
    const struct policy_rule rules[] = {
        {.name = "edge", .peers = edges, .n_peers = 1, .link = true}};
    struct policy_counters counters;

    use(rules, 1);
    may(POLICY_LOOKUP, "n7", "");
    may(POLICY_LOOKUP, "edge-1", "");
    may(POLICY_REGISTER, "edge-1", "web");
    may(POLICY_LINK, "edge-1", "");
    cr_expect_not(policy_would(keeper, POLICY_LINK, "n7", "", rule));
    policy_counters(keeper, &counters);
    cr_expect_eq(counters.rules, 1);
    cr_expect_eq(counters.denied[POLICY_LOOKUP], 2);
    cr_expect_eq(counters.denied[POLICY_REGISTER], 1);
    cr_expect_eq(counters.denied[POLICY_LINK], 0);
}

static void note(void *ctx, enum policy_action action, const char *subject, const char *name,
                 const char *by)
{
    snprintf(ctx, 100, "%s %s %s by %s", policy_action_text(action), subject, name, by);
}

Test(policy, each_refusal_is_told)
{
    const struct policy_rule rules[] = {{.name = "edge", .peers = edges, .n_peers = 1}};
    char told[100] = "";

    use(rules, 1);
    policy_keeper_tell(keeper, note, told);
    cr_expect_not(policy_would(keeper, POLICY_FORWARD, "edge-1", "web", rule));
    cr_expect_str_empty(told);
    cr_expect_not(may(POLICY_FORWARD, "edge-1", "web"));
    cr_expect_str_eq(told, "forward edge-1 web by edge");
}

Test(policy, other_rules_take_the_place_of_all)
{
    const struct policy_rule rules[] = {
        {.name = "one", .peers = one, .n_peers = 1, .link = true},
        {.name = "edge", .peers = edges, .n_peers = 1, .link = true}};

    use(rules, 1);
    cr_expect_not(may(POLICY_LINK, "edge-2", ""));
    cr_assert_eq(policy_keeper_set(keeper, rules + 1, 1), 0);
    cr_expect(may(POLICY_LINK, "edge-2", ""));
    cr_assert_eq(policy_keeper_set(keeper, NULL, 0), 0);
    cr_expect(may(POLICY_LINK, "n7", ""));
}

Test(policy, what_was_passed_in_is_copied)
{
    char name[] = "mine", glob[] = "n*";
    const char *globs[] = {glob};
    const struct policy_rule rules[] = {{.name = name, .peers = globs, .n_peers = 1}};

    use(rules, 1);
    memset(name, 'x', 4);
    memset(glob, 'x', 2);
    globs[0] = NULL;
    cr_expect_not(may(POLICY_LINK, "n7", ""));
    cr_expect_str_eq(rule, "mine");
}

Test(policy, too_many_rules_or_globs_change_nothing)
{
    static const char *globs[LIMIT_POLICY_GLOBS + 1];
    static struct policy_rule rules[LIMIT_POLICY_RULES + 1];

    for (size_t i = 0; i <= LIMIT_POLICY_GLOBS; i++)
        globs[i] = "no";
    globs[LIMIT_POLICY_GLOBS - 1] = "yes";
    for (size_t i = 0; i <= LIMIT_POLICY_RULES; i++)
        rules[i] = (struct policy_rule){
            .name = "r", .peers = globs, .n_peers = LIMIT_POLICY_GLOBS, .link = true};
    use(rules, LIMIT_POLICY_RULES);
    cr_expect(may(POLICY_LINK, "yes", ""));
    cr_expect_eq(policy_keeper_set(keeper, rules, LIMIT_POLICY_RULES + 1), -E2BIG);
    rules[0].n_peers++;
    cr_expect_eq(policy_keeper_set(keeper, rules, 1), -E2BIG);
    rules[0].n_peers = 1;
    rules[0].forward_names = globs;
    rules[0].n_forward = LIMIT_POLICY_GLOBS + 1;
    cr_expect_eq(policy_keeper_set(keeper, rules, 1), -E2BIG);
    cr_expect(may(POLICY_LINK, "yes", ""));
}

Test(policy, a_refusal_names_rule_and_subject)
{
    char text[LIMIT_STATUS_TEXT + 1], name[LIMIT_NAME + 1];

    policy_refusal_text(POLICY_REGISTER, "n7", "", "edge", text, sizeof(text));
    cr_expect_str_eq(text, "policy rule 'edge' does not let n7 register this name");
    memset(name, 'a', LIMIT_NAME);
    name[LIMIT_NAME] = '\0';
    policy_refusal_text(POLICY_FORWARD, "n7", name, "edge", text, sizeof(text));
    cr_expect_eq(strlen(text), LIMIT_STATUS_TEXT);
}

/* ---- globs ---- */

Test(policy, globs_match_the_whole)
{
    static const struct {
        const char *glob, *text;
        bool matches;
    } cases[] = {
        {"", "", true},
        {"", "a", false},
        {"*", "", true},
        {"*", "anything", true},
        {"?", "", false},
        {"?", "a", true},
        {"?", "ab", false},
        {"web", "web", true},
        {"web", "web2", false},
        {"web", "we", false},
        {"web*", "web", true},
        {"web*", "web-2", true},
        {"*web", "my-web", true},
        {"*web", "web-", false},
        {"w*b", "wb", true},
        {"w*b", "web", true},
        {"w*b", "wbc", false},
        {"w*b*", "wxbxbc", true},
        {"*a*b", "aab", true},
        {"*a*b", "aba", false},
        {"a**b", "ab", true},
        {"*?", "", false},
        {"*?", "a", true},
        {"?*?", "a", false},
        {"?*?", "ab", true},
        {"*.example", "x.example", true},
        {"*ab*abc", "abc", false},
        {"*ab*abc", "ababcabc", true},
        {"**", "a", true},
        {"a*", "", false},
        {"*.", "a", false},
        {"*.*.example", "*.x.example", true},
    };

    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++)
        cr_expect_eq(policy_glob(cases[i].glob, cases[i].text), cases[i].matches, "'%s' and '%s'",
                     cases[i].glob, cases[i].text);
}

/* The obvious way, exponential and all. */
static bool glob_by_the_book(const char *glob, const char *text)
{
    if (*glob == '*')
        return glob_by_the_book(glob + 1, text) || (*text && glob_by_the_book(glob, text + 1));
    if (*glob == '\0' || *text == '\0')
        return *glob == *text;
    return (*glob == '?' || *glob == *text) && glob_by_the_book(glob + 1, text + 1);
}

Test(policy, globs_match_as_the_definition_says_whatever_they_are)
{
    static const char glob_bytes[] = "ab*?", text_bytes[] = "abc";
    char glob[8], text[8];

    srand(1);
    for (int n = 0; n < 200000; n++) {
        size_t glob_len = (size_t)rand() % 7, text_len = (size_t)rand() % 7;

        for (size_t i = 0; i < glob_len; i++)
            glob[i] = glob_bytes[rand() % 4];
        for (size_t i = 0; i < text_len; i++)
            text[i] = text_bytes[rand() % 3];
        glob[glob_len] = text[text_len] = '\0';
        cr_assert_eq(policy_glob(glob, text), glob_by_the_book(glob, text), "'%s' and '%s'", glob,
                     text);
    }
}

static uint64_t cpu_ns(void)
{
    struct timespec now;

    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

Test(policy, a_glob_of_nothing_but_stars_and_hopes_takes_no_time)
{
    char glob[LIMIT_NAME + 1], text[LIMIT_NAME + 1];
    uint64_t begun = cpu_ns();

    for (size_t i = 0; i < LIMIT_NAME; i++) {
        glob[i] = i % 2 ? 'a' : '*';
        text[i] = 'a';
    }
    glob[LIMIT_NAME - 1] = 'b';
    glob[LIMIT_NAME] = text[LIMIT_NAME] = '\0';
    for (int i = 0; i < 100; i++)
        cr_assert_not(policy_glob(glob, text));
    /* Products of the lengths: 6.4 million steps in all. The obvious way never ends. */
    cr_expect_lt(cpu_ns() - begun, 5000000000u);
}
