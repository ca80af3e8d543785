/* config: rules of who may do what. */
#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>
#include "daemon/config_parts.h"
#include "daemon/config_support.h"

#define ALLOWED_NAMES                                                                              \
    "a list, or a text with commas between, of at most 256 globs of a-z 0-9 . _ - * ?"
#define ALLOWED_PEERS                                                                              \
    "a list, or a text with commas between, of 1 to 256 globs of A-Z a-z 0-9 . _ - * ?, @local, "  \
    "@anonymous"
#define FIELDS "rule and peers and perhaps link, register, forward, lookup, introspect, offer"

static void expect_globs(const struct config_globs *globs, const char *const *wanted)
{
    size_t n = 0;

    for (; wanted[n]; n++) {
        cr_assert_lt(n, globs->n);
        cr_expect_str_eq(globs->at[n], wanted[n]);
    }
    cr_expect_eq(globs->n, n);
}
#define GLOBS(...) ((const char *const[]){__VA_ARGS__, NULL})

Test(config_policy, rules_stand_in_the_order_of_the_file)
{
    struct config *c = load_good(LOAD(.yaml = "policy:\n"
                                              "  - rule: edge\n"
                                              "    peers: [edge-*, 'core-?']\n"
                                              "    link: true\n"
                                              "    register: web, *.example.org ,db\n"
                                              "    forward: '*'\n"
                                              "    lookup: true\n"
                                              "  - rule: B.local_1\n"
                                              "    peers: '@local, @anonymous'\n"
                                              "    introspect: true\n"
                                              "    link: false\n"
                                              "    offer:\n"
                                              "      - batch-*\n"
                                              "      - 'a, b'\n"));
    const struct config_rule *rule = c->rules;

    cr_assert_eq(c->n_rules, 2u);
    cr_expect_str_eq(rule[0].name, "edge");
    expect_globs(&rule[0].peers, GLOBS("edge-*", "core-?"));
    expect_globs(&rule[0].registers, GLOBS("web", "*.example.org", "db"));
    expect_globs(&rule[0].forwards, GLOBS("*"));
    expect_globs(&rule[0].offers, (const char *const[]){NULL});
    cr_expect(rule[0].link && rule[0].lookup && !rule[0].introspect);
    cr_expect_str_eq(rule[1].name, "B.local_1");
    expect_globs(&rule[1].peers, GLOBS("@local", "@anonymous"));
    expect_globs(&rule[1].offers, GLOBS("batch-*", "a", "b"));
    cr_expect(!rule[1].link && !rule[1].lookup && rule[1].introspect);
    config_free(c);
}

Test(config_policy, no_rule_is_the_default)
{
    struct config *c = load_good(LOAD(.yaml = "policy: []"));

    cr_expect_eq(c->n_rules, 0u);
    config_free(c);
}

Test(config_policy, what_is_wrong_is_told_where_it_stands)
{
    static const struct {
        const char *yaml, *err;
    } cases[] = {
        {"[{rule: a}]", "1:10: policy: has no peers; meant is an entry of " FIELDS},
        {"[{peers: a}]", "1:10: policy: has no rule; meant is an entry of " FIELDS},
        {"[{rule: a, peers: b, oops: c}]",
         "1:30: policy: unknown key 'oops'; allowed: rule, peers, link, register, forward, lookup, "
         "introspect, offer"},
        {"[{rule: a, peers: b, peers: c}]",
         "1:30: policy: 'peers' is there already; allowed: once"},
        {"[{rule: default, peers: b}]",
         "1:17: policy: rule: 'default' is what whom no rule is about is told; allowed: 1 to 64 "
         "characters of A-Z a-z 0-9 . _ -, not default"},
        {"[{rule: 'a b', peers: b}]", "1:17: policy: rule: 'a b' is no name of a rule; allowed: 1 "
                                      "to 64 characters of A-Z a-z 0-9 . _ -, not default"},
        {"[{rule: a, peers: b, link: yes}]",
         "1:36: policy: link: 'yes' is neither true nor false; allowed: true or false"},
        {"[{rule: a, peers: []}]", "1:10: policy: has no peers; allowed: at least one glob of peer "
                                   "ids, @local or @anonymous"},
        {"[{rule: a, peers: [b, c/d]}]",
         "1:31: policy: peers: 'c/d' has what no peer id has; allowed: " ALLOWED_PEERS},
        {"[{rule: a, peers: '@all'}]", "1:27: policy: peers: '@all' begins with @ and is neither "
                                       "@local nor @anonymous; allowed: " ALLOWED_PEERS},
        {"[{rule: a, peers: 'b,,c'}]",
         "1:27: policy: peers: 'b,,c' has an empty place; allowed: " ALLOWED_PEERS},
        {"[{rule: a, peers: b, register: [w, Web]}]",
         "1:44: policy: register: 'Web' has what no service's name has (names are lower case); "
         "allowed: " ALLOWED_NAMES},
        {"[{rule: a, peers: b, offer: ['[x]']}]",
         "1:38: policy: offer: '[x]' has what no service's name has (names are lower case); "
         "allowed: " ALLOWED_NAMES},
        {"[{rule: a, peers: b, forward: ''}]",
         "1:39: policy: forward: '' has an empty place; allowed: " ALLOWED_NAMES},
        {"[{rule: a, peers: b, forward: {x: y}}]",
         "1:39: policy: a mapping is there, where one value is meant (quote a text that begins "
         "with [ or {)"},
        {"[{rule: a, peers: [[b]]}]", "1:28: policy: a list is there, where one value is meant "
                                      "(quote a text that begins with [ or {)"},
        {"[{rule: a, peers: *b}]",
         "1:27: policy: an alias (*); allowed: plain values (quote what begins with & * or !)"},
        {"[{rule: [a], peers: b}]",
         "1:17: policy: a list is there, where one value is meant (quote "
         "a text that begins with [ or {)"},
        {"[{rule: a, peers: b}, {rule: c, peers: d}, {rule: a, peers: e}]",
         "1:52: policy: 'a' is there already (meshd.yaml:1:10); allowed: each rule once"},
    };
    char yaml[256], err[512];

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        snprintf(yaml, sizeof(yaml), "policy: %s", cases[i].yaml);
        snprintf(err, sizeof(err), "meshd.yaml:%s\n", cases[i].err);
        load_bad(LOAD(.yaml = yaml), err);
    }
}

static char *rule_of_globs(size_t n, size_t bytes)
{
    char *text, *name = malloc(bytes + 1);
    size_t size;
    FILE *out = open_memstream(&text, &size);

    memset(name, 'a', bytes);
    name[bytes] = '\0';
    fprintf(out, "policy:\n  - rule: a\n    peers: b\n    register:\n");
    for (size_t i = 0; i < n; i++)
        fprintf(out, "      - \"%.*s\"\n", (int)(bytes - i % 3), name);
    fclose(out);
    free(name);
    return text;
}

Test(config_policy, a_list_may_be_longer_than_one_value_and_is_read_back_the_same)
{
    char *yaml = rule_of_globs(LIMIT_POLICY_GLOBS, LIMIT_NAME), *printed;
    struct config *c = load_good(LOAD(.yaml = yaml)), *again;

    cr_assert_eq(c->rules[0].registers.n, LIMIT_POLICY_GLOBS);
    printed = config_printed(c);
    again = load_good(LOAD(.yaml = printed));
    config_expect_same(c, again);
    config_free(c);
    config_free(again);
    free(printed);
    free(yaml);
}

Test(config_policy, one_glob_or_rule_too_many_is_told)
{
    char *yaml = rule_of_globs(LIMIT_POLICY_GLOBS + 1, 3), *text;
    struct loaded l;
    size_t size;
    FILE *out;

    load_bad(LOAD(.yaml = yaml), "meshd.yaml:261:9: policy: register: 'aa' is one too many; "
                                 "allowed: " ALLOWED_NAMES "\n");
    free(yaml);
    yaml = rule_of_globs(1, LIMIT_NAME + 3);
    l = load(LOAD(.yaml = yaml));
    cr_expect(strstr(l.err, "is longer than any name"), "%s", l.err);
    loaded_free(&l);
    free(yaml);
    out = open_memstream(&text, &size);
    fputs("policy:\n", out);
    for (int i = 0; i <= (int)LIMIT_POLICY_RULES; i++)
        fprintf(out, "- {rule: r%d, peers: x}\n", i);
    fclose(out);
    load_bad(LOAD(.yaml = text),
             "meshd.yaml:258:3: policy: 257 rules are configured; allowed: 256\n");
    free(text);
}

Test(config_policy, rules_are_printed_so)
{
    struct config *c = load_good(LOAD(.yaml = "policy: [{rule: e, peers: 'a,@local', link: true, "
                                              "offer: [x, '*'], lookup: false}]"));
    char *text = config_printed(c);

    cr_expect(strstr(text, "policy:\n"
                           "  - rule: \"e\"\n"
                           "    peers: [\"a\", \"@local\"]\n"
                           "    link: \"true\"\n"
                           "    offer: [\"x\", \"*\"]\n"),
              "%s", text);
    free(text);
    config_free(c);
}
