#include <criterion/criterion.h>
#include <string.h>
#include "web/query.h"

static bool take(struct query *query, unsigned allowed, const char *key, const char *value,
                 char *why)
{
    return query_take(query, allowed, key, strlen(key), value, strlen(value), why);
}

#define MAPS (QUERY_GLOB | QUERY_PEER | QUERY_STATE)

Test(query, a_name_is_made_canonical_and_a_glob_is_left_as_it_is)
{
    struct query query = {0};
    char why[QUERY_WHY];

    cr_assert(take(&query, QUERY_NAME, "name", "WEB.Example.org.", why));
    cr_expect_str_eq(query.name, "web.example.org");
    query = (struct query){0};
    cr_assert(take(&query, MAPS, "name", "web*?", why));
    cr_assert(take(&query, MAPS, "peer", "192.0.2.1#n1", why));
    cr_assert(take(&query, MAPS, "state", "unhealthy", why));
    cr_expect_str_eq(query.name, "web*?");
    cr_expect_str_eq(query.peer, "192.0.2.1#n1");
    cr_expect_eq(query.state, STATE_UNHEALTHY);
    cr_expect_eq(query.given, MAPS);
}

Test(query, what_is_refused_says_what_is_allowed)
{
    static const struct {
        unsigned allowed;
        const char *key, *value, *why;
    } cases[] = {
        {0, "name", "a", "an argument that is not known here; allowed: none"},
        {QUERY_NAME, "peer", "a", "an argument that is not known here; allowed: name"},
        {MAPS, "Name", "a",
         "an argument that is not known here; allowed: name (a glob), peer, state"},
        {QUERY_NAME, "name", "a..b",
         "the name has an empty label; allowed: labels of a-z 0-9 - _ with dots between, 253 bytes "
         "in all"},
        {MAPS, "name", "", "name: allowed: 1 to 253 bytes of UTF-8 without spaces"},
        {MAPS, "name", "a b", "name: allowed: 1 to 253 bytes of UTF-8 without spaces"},
        {MAPS, "peer", "\xff", "peer: allowed: 1 to 111 bytes of UTF-8 without spaces"},
        {MAPS, "state", "gone", "state: allowed: connected, stale, draining or unhealthy"},
    };

    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct query query = {0};
        char why[QUERY_WHY] = "";

        cr_expect_not(take(&query, cases[i].allowed, cases[i].key, cases[i].value, why));
        cr_expect_str_eq(why, cases[i].why);
    }
}

Test(query, an_argument_may_be_there_once)
{
    struct query query = {0};
    char why[QUERY_WHY];

    cr_assert(take(&query, MAPS, "peer", "a", why));
    cr_expect_not(take(&query, MAPS, "peer", "a", why));
    cr_expect_str_eq(why, "an argument is there twice; allowed: once");
}

Test(query, a_value_with_a_nul_is_refused)
{
    struct query query = {0};
    char why[QUERY_WHY];

    cr_expect_not(query_take(&query, MAPS, "name", 4, "a\0b", 3, why));
    query = (struct query){0};
    cr_expect_not(query_take(&query, QUERY_NAME, "name", 4, "a\0b", 3, why));
    query = (struct query){0};
    cr_expect_not(query_take(&query, MAPS, "state", 5, "stale\0", 6, why));
    cr_expect_not(query_take(&query, MAPS, "name\0", 5, "a", 1, why));
}

Test(query, only_names_of_this_machine_are_loopback)
{
    static const char *const ours[] = {"localhost",           "LOCALHOST:7480", "127.0.0.1",
                                       "127.1.2.3:80",        "[::1]",          "[::1]:7480",
                                       "[::ffff:127.0.0.1]:1"};
    static const char *const others[] = {"",
                                         "evil.example",
                                         "localhost.evil.example",
                                         "127.0.0.1.evil.example",
                                         "127.1",
                                         "192.0.2.1:7480",
                                         "[::2]:1",
                                         "[::1].evil.example",
                                         "[::1",
                                         "localhostx",
                                         "[1111111111111111111111111111111111111111111111111111]",
                                         "localhost:80@evil.example",
                                         "127.0.0.1:80,evil.example",
                                         "[::1]:x"};

    for (size_t i = 0; i < sizeof ours / sizeof *ours; i++)
        cr_expect(query_host_is_loopback(ours[i]), "%s", ours[i]);
    for (size_t i = 0; i < sizeof others / sizeof *others; i++)
        cr_expect_not(query_host_is_loopback(others[i]), "%s", others[i]);
}

Test(query, a_tag_matches_one_of_a_list_and_weak_ones_too)
{
    cr_expect(query_tag_matches("\"1-2\"", "\"1-2\""));
    cr_expect(query_tag_matches("W/\"1-2\"", "\"1-2\""));
    cr_expect(query_tag_matches(" \"a\" ,\t\"1-2\" ", "\"1-2\""));
    cr_expect(query_tag_matches("*", "\"1-2\""));
    cr_expect_not(query_tag_matches("", "\"1-2\""));
    cr_expect_not(query_tag_matches("\"1-3\"", "\"1-2\""));
    cr_expect_not(query_tag_matches("\"1-22\", 1-2", "\"1-2\""));
    cr_expect_not(query_tag_matches(" , ,", "\"1-2\""));
}
