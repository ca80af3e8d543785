/* Who offers a name, and in which order. */
#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>
#include "forward/must.h"
#include "registry/help.h"

static struct registry *reg;

static void setup(void) { reg = registry_for("n1", NULL); }

static void teardown(void)
{
    MUST(registry_check(reg) == 0);
    registry_free(reg);
}

TestSuite(lookup, .init = setup, .fini = teardown);

static void state_of(const char *peer_id, bool connected, bool draining, bool stale)
{
    struct registry_state state = {
        .connected = connected, .draining = draining, .stale = stale, .link_id = 9};

    cr_assert_eq(registry_peer_state(reg, peer_id, &state, NULL), 0);
}

Test(lookup, best_first_local_connected_draining_waiting_stale)
{
    struct registry_route at[8];
    struct registry_routes routes = {.at = at, .cap = 8};
    const char *order[] = {"local", "10.0.0.3", "10.0.0.2", "10.0.0.4", "10.0.0.1"};

    put_text(reg, "p1", "10.0.0.1", 1, "web=h:1");
    put_text(reg, "p2", "10.0.0.2", 1, "web=h:2");
    put_text(reg, "p3", "10.0.0.3", 1, "web=h:3 webber=h:9");
    put_text(reg, "p4", "10.0.0.4", 1, "web=h:4");
    put_local_text(reg, 1, "web=h:0");
    state_of("p1", false, false, true);
    state_of("p2", true, true, false);
    state_of("p3", true, false, false);
    registry_lookup(reg, "web", 3, &routes);
    cr_assert_eq(routes.n, 5);
    cr_expect_eq(routes.revision, registry_revision(reg));
    for (size_t i = 0; i < 5; i++)
        cr_expect_str_eq(at[i].label, order[i]);
    cr_expect(at[0].local && at[0].connected && at[0].healthy);
    cr_expect_str_eq(at[0].peer_id, "n1");
    cr_expect_str_eq(at[1].row->backend, "h:3");
    cr_expect_str_eq(at[1].peer_id, "p3");
    cr_expect_eq(at[1].link_id, 9);
    cr_expect_not(at[1].local);
    cr_expect(at[2].draining);
    cr_expect(at[4].stale);
    registry_routes_fini(&routes);
}

Test(lookup, unhealthy_and_draining_entries_come_behind_those_that_are_neither)
{
    struct registry_route at[16];
    struct registry_routes routes = {.at = at, .cap = 16};
    static const struct {
        const char *id, *ip, *list;
        bool connected, draining, stale;
    } peers[] = {
        /* in the order expected behind a local one, which changes its place below */
        {"p1", "10.0.0.1", "web=h:1", true, false, false},
        {"p2", "10.0.0.2", "web=h:1~", true, true, false},
        {"p3", "10.0.0.3", "web=h:1!", true, false, false},
        {"p4", "10.0.0.4", "web=h:1!~", true, false, false},
        {"p5", "10.0.0.5", "web=h:1", false, false, false},
        {"p6", "10.0.0.6", "web=h:1", true, false, true},
    };
    static const struct {
        const char *list;
        size_t place;
    } local[] = {{"web=h:0", 0}, {"web=h:0~", 1}, {"web=h:0!", 2}, {"web=h:0!~", 3}};

    for (size_t i = 6; i-- > 0;) {
        put_text(reg, peers[i].id, peers[i].ip, 1, peers[i].list);
        state_of(peers[i].id, peers[i].connected, peers[i].draining, peers[i].stale);
    }
    for (size_t l = 0; l < 4; l++) {
        cr_assert_eq(put_local_text(reg, l + 1, local[l].list), 0);
        registry_lookup(reg, "web", 3, &routes);
        cr_assert_eq(routes.n, 7);
        for (size_t i = 0, p = 0; i < 7; i++)
            cr_expect_str_eq(at[i].label, i == local[l].place ? "local" : peers[p++].ip, "%s: %zu",
                             local[l].list, i);
        cr_expect_eq(at[local[l].place].healthy, !strchr(local[l].list, '!'));
        cr_expect_eq(at[local[l].place].draining, strchr(local[l].list, '~') != NULL);
        registry_routes_fini(&routes);
    }
    state_of("p1", true, true, false);
    registry_lookup(reg, "web", 3, &routes);
    cr_expect(at[0].draining && at[1].draining, "the peer's own state counts as well");
    registry_routes_fini(&routes);
}

Test(lookup, a_name_nobody_offers_has_no_routes_and_is_counted)
{
    struct registry_route at[1];
    struct registry_routes routes = {.at = at, .cap = 1, .n = 7};
    struct registry_counters counters;

    registry_lookup(reg, "web", 3, &routes);
    cr_expect_eq(routes.n, 0);
    put_local_text(reg, 1, "web=h:0");
    registry_lookup(reg, "we", 2, &routes);
    cr_expect_eq(routes.n, 0);
    registry_lookup(reg, "", 0, &routes);
    cr_expect_eq(routes.n, 0);
    routes.cap = 0;
    registry_lookup(reg, "web", 3, &routes);
    cr_expect_eq(routes.n, 0);
    registry_counters(reg, &counters);
    cr_expect_eq(counters.lookups, 4);
    cr_expect_eq(counters.lookups_missed, 3);
}

Test(lookup, with_little_room_the_best_of_many_come_and_always_the_same)
{
    struct registry_route all[64], few[5];
    struct registry_routes routes = {.at = all, .cap = 64}, best = {.at = few, .cap = 5};
    char id[16], ip[32];

    for (int i = 0; i < 50; i++) {
        sprintf(id, "p%d", i);
        sprintf(ip, "10.0.0.%d", i);
        put_text(reg, id, ip, 1, "web=h:1");
        if (i % 10 < 2)
            state_of(id, true, i % 10 == 1, false);
    }
    registry_lookup(reg, "web", 3, &routes);
    registry_lookup(reg, "web", 3, &best);
    cr_assert_eq(routes.n, 50);
    cr_assert_eq(best.n, 5);
    for (size_t i = 0; i < 5; i++) {
        cr_expect_str_eq(few[i].label, all[i].label);
        cr_expect(few[i].connected && !few[i].draining);
        cr_expect(all[5 + i].connected && all[5 + i].draining);
    }
    registry_routes_fini(&routes);
    registry_routes_fini(&best);
}

Test(lookup, routes_outlive_the_rows_going)
{
    struct registry_route at[1];
    struct registry_routes routes = {.at = at, .cap = 1}, later = {.at = at, .cap = 0};

    put_text(reg, "p1", "10.0.0.1", 1, "web=h:1");
    registry_lookup(reg, "web", 3, &routes);
    cr_assert_eq(registry_peer_gone(reg, "p1", "left", 1, NULL), 0);
    cr_expect_str_eq(at[0].row->backend, "h:1");
    registry_routes_fini(&routes);
    registry_lookup(reg, "web", 3, &later);
    cr_expect_eq(later.n, 0);
}
