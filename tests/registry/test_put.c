/* Lists, peers and their states going into the maps and out of them. */
#include <criterion/criterion.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "forward/must.h"
#include "registry/help.h"

static struct registry *reg;
static struct limits limits;

static void setup(void)
{
    limits_default(&limits);
    reg = registry_for("n1", NULL);
}

static void teardown(void)
{
    MUST(registry_check(reg) == 0);
    registry_free(reg);
}

TestSuite(put, .init = setup, .fini = teardown);

static char *shown(const char *peer_id)
{
    struct snapshot *snap = NULL;
    char *text = NULL;

    cr_assert_eq(registry_snapshot(reg, &snap), 0);
    if (!peer_id)
        text = text_of(snap->local);
    for (size_t i = 0; peer_id && i < snap->n_peers; i++)
        if (strcmp(snap->peers[i].peer_id, peer_id) == 0)
            text = text_of(snap->peers[i].list);
    snapshot_unref(snap);
    return text;
}

static void expect_shown(const char *peer_id, const char *text)
{
    char *got = shown(peer_id);

    cr_assert_not_null(got);
    cr_expect_str_eq(got, text);
    free(got);
}

static const char *label_of(const char *peer_id)
{
    static struct registry_peer_info info;

    return registry_peer_get(reg, peer_id, &info) == 0 ? info.label : NULL;
}

static struct registry_counters counters(void)
{
    struct registry_counters c;

    registry_counters(reg, &c);
    return c;
}

Test(put, another_part_of_a_list_moves_rows_and_nothing_else)
{
    struct registry_peer_info before, after;
    struct registry_change change = {0};
    struct registry_tombstone *stones;
    struct list *whole = list_of("192.0.2.10", "db=h:2 mail=h:3 web=h:1"), *part;
    const char *const gone[] = {"db"};

    cr_assert_eq(put_text(reg, "n2", "192.0.2.10", 1, ""), 0);
    cr_assert_eq(registry_put_list(reg, "n2", 1, 2, whole, 100, NULL, NULL), 0);
    cr_assert_eq(list_apply(whole, NULL, 0, gone, 1, &part), 0);
    cr_assert_eq(registry_peer_get(reg, "n2", &before), 0);
    cr_assert_eq(registry_put_part(reg, "n2", part, "not allowed", 200, NULL, &change), 0);
    cr_expect_eq(change.removed, 1);
    expect_shown("n2", "mail=h:3 web=h:1");
    cr_assert_eq(registry_tombstones(reg, 9, &stones), 1);
    cr_expect_str_eq(stones[0].why, "not allowed");
    cr_expect_eq(stones[0].when_s, 200);
    free(stones);
    cr_assert_eq(registry_put_part(reg, "n2", part, "not allowed", 300, NULL, &change), 0);
    cr_expect_not(change.any);
    /* The very rows that went come back. */
    cr_assert_eq(registry_put_part(reg, "n2", whole, "not allowed", 400, NULL, &change), 0);
    cr_expect_eq(change.added, 1);
    expect_shown("n2", "db=h:2 mail=h:3 web=h:1");
    cr_assert_eq(registry_peer_get(reg, "n2", &after), 0);
    cr_expect_eq(after.version, before.version);
    cr_expect_eq(after.incarnation, before.incarnation);
    cr_expect_eq(after.state.last_seen_ms, before.state.last_seen_ms);
    cr_expect_eq(after.digest, list_digest(whole));
    cr_expect_eq(registry_put_part(reg, "n3", whole, "not allowed", 400, NULL, NULL),
                 REGISTRY_E_UNKNOWN);
    list_unref(whole);
    list_unref(part);
}

Test(put, a_list_is_in_both_maps)
{
    struct row *row;

    cr_assert_eq(put_text(reg, "n2", "192.0.2.10", 1, "web=h:1 db=h:2"), 0);
    expect_shown("n2", "db=h:2 web=h:1");
    row = registry_find(reg, "web@192.0.2.10");
    cr_assert_not_null(row);
    cr_expect_str_eq(row->backend, "h:1");
    row_unref(row);
    cr_expect_null(registry_find(reg, "web@192.0.2.11"));
    cr_expect_null(registry_find(reg, ""));
}

Test(put, local_rows_are_under_local_and_a_peers_namesake_stays_beside_them)
{
    struct row *local, *remote;

    cr_assert_eq(put_local_text(reg, 1, "web=127.0.0.1:80"), 0);
    cr_assert_eq(put_text(reg, "n2", "192.0.2.10", 1, "web=h:1"), 0);
    local = registry_find(reg, "web@local");
    remote = registry_find(reg, "web@192.0.2.10");
    cr_expect_str_eq(local->backend, "127.0.0.1:80");
    cr_expect_str_eq(remote->backend, "h:1");
    row_unref(local);
    row_unref(remote);
    cr_expect_eq(counters().services, 2);
    cr_expect_eq(counters().services_local, 1);
}

Test(put, an_older_or_equal_pair_changes_nothing)
{
    struct list *list = list_of("192.0.2.10", "other=h:9");
    uint64_t revision;

    cr_assert_eq(put_text(reg, "n2", "192.0.2.10", 5, "web=h:1"), 0);
    revision = registry_revision(reg);
    cr_expect_eq(registry_put_list(reg, "n2", 1, 5, list, 9, NULL, NULL), REGISTRY_E_STALE);
    cr_expect_eq(registry_put_list(reg, "n2", 1, 4, list, 9, NULL, NULL), REGISTRY_E_STALE);
    cr_expect_eq(registry_put_list(reg, "n2", 0, 99, list, 9, NULL, NULL), REGISTRY_E_STALE);
    expect_shown("n2", "web=h:1");
    cr_expect_eq(registry_revision(reg), revision);
    cr_expect_eq(registry_put_list(reg, "n2", 2, 1, list, 9, NULL, NULL), 0);
    expect_shown("n2", "other=h:9");
    cr_expect_eq(counters().puts_stale, 3);
    list_unref(list);
}

Test(put, an_equal_list_moves_only_the_pair_and_keeps_the_rows)
{
    struct list *list = list_of("192.0.2.10", "web=h:1 db=h:2");
    struct registry_peer_info info;
    struct registry_change change;
    struct row *before, *after;
    uint64_t revision;

    cr_assert_eq(put_text(reg, "n2", "192.0.2.10", 1, "web=h:1 db=h:2"), 0);
    revision = registry_revision(reg);
    before = registry_find(reg, "web@192.0.2.10");
    cr_assert_eq(registry_put_list(reg, "n2", 3, 1, list, 5000, NULL, &change), 0);
    cr_expect_not(change.any);
    cr_expect_eq(change.revision, revision);
    cr_expect_eq(registry_revision(reg), revision);
    after = registry_find(reg, "web@192.0.2.10");
    cr_expect_eq(before, after);
    row_unref(before);
    row_unref(after);
    cr_assert_eq(registry_peer_get(reg, "n2", &info), 0);
    cr_expect_eq(info.incarnation, 3);
    cr_expect_eq(info.version, 1);
    cr_expect_eq(info.digest, list_digest(list));
    cr_expect_eq(counters().puts_repeated, 1);
    list_unref(list);
}

Test(put, a_change_says_what_came_changed_and_went)
{
    struct list *list = list_of("192.0.2.10", "a=h:1 b=h:9 d=h:1 e=h:1");
    struct registry_change change;
    struct row *before = NULL, *after = NULL;

    cr_assert_eq(put_text(reg, "n2", "192.0.2.10", 1, "a=h:1 b=h:1 c=h:1"), 0);
    before = registry_find(reg, "a@192.0.2.10");
    cr_assert_eq(registry_put_list(reg, "n2", 1, 2, list, 9, NULL, &change), 0);
    cr_expect_eq(change.added, 2);
    cr_expect_eq(change.changed, 1);
    cr_expect_eq(change.removed, 1);
    cr_expect(change.any);
    cr_expect_eq(change.revision, registry_revision(reg));
    after = registry_find(reg, "a@192.0.2.10");
    cr_expect_eq(before, after, "a row that did not change is the same object");
    row_unref(before);
    row_unref(after);
    list_unref(list);
    cr_expect_eq(counters().rows_added, 5);
    cr_expect_eq(counters().rows_changed, 1);
    cr_expect_eq(counters().rows_removed, 1);
}

Test(put, a_peer_that_was_not_opened_is_unknown)
{
    struct registry_state state = {.connected = true};
    struct registry_peer_info info;
    struct list *list = list_empty();

    cr_expect_eq(registry_put_list(reg, "n9", 1, 1, list, 1, NULL, NULL), REGISTRY_E_UNKNOWN);
    cr_expect_eq(registry_peer_state(reg, "n9", &state, NULL), REGISTRY_E_UNKNOWN);
    cr_expect_eq(registry_peer_gone(reg, "n9", "left", 1, NULL), REGISTRY_E_UNKNOWN);
    cr_expect_eq(registry_peer_get(reg, "n9", &info), REGISTRY_E_UNKNOWN);
    registry_peer_confirmed(reg, "n9", 1);
    list_unref(list);
}

Test(put, rows_with_another_label_are_not_taken)
{
    struct list *list = list_of("192.0.2.99", "web=h:1");

    cr_assert_eq(put_text(reg, "n2", "192.0.2.10", 1, "db=h:1"), 0);
    cr_expect_eq(registry_put_list(reg, "n2", 1, 2, list, 1, NULL, NULL), -EINVAL);
    expect_shown("n2", "db=h:1");
    list_unref(list);
}

Test(put, a_label_is_the_ip_or_ip_and_id_and_lives_as_long_as_the_record)
{
    const char *label;

    cr_assert_eq(registry_peer_open(reg, "a", "10.0.0.1", 1, &label, NULL), 0);
    cr_expect_str_eq(label, "10.0.0.1");
    cr_assert_eq(registry_peer_open(reg, "b", "10.0.0.1", 1, &label, NULL), 0);
    cr_expect_str_eq(label, "10.0.0.1#b");
    cr_assert_eq(registry_peer_gone(reg, "a", "left", 1, NULL), 0);
    cr_expect_str_eq(label_of("b"), "10.0.0.1#b", "nobody is relabelled when another leaves");
    cr_assert_eq(registry_peer_open(reg, "c", "10.0.0.1", 1, &label, NULL), 0);
    cr_expect_str_eq(label, "10.0.0.1");
    cr_assert_eq(registry_peer_open(reg, "a", "10.0.0.1", 1, &label, NULL), 0);
    cr_expect_str_eq(label, "10.0.0.1#a");
    cr_assert_eq(registry_peer_open(reg, "b", "10.0.0.2", 1, &label, NULL), 0);
    cr_expect_str_eq(label, "10.0.0.1#b", "a peer that comes from elsewhere keeps its label");
}

Test(put, two_peers_behind_one_address_never_overwrite_each_other)
{
    cr_assert_eq(put_text(reg, "a", "10.0.0.1", 1, "web=h:1"), 0);
    cr_assert_eq(put_text(reg, "b", "10.0.0.1", 1, "web=h:2"), 0);
    cr_assert_eq(put_text(reg, "a", "10.0.0.1", 2, "web=h:3"), 0);
    expect_shown("a", "web=h:3");
    expect_shown("b", "web=h:2");
    cr_assert_eq(registry_peer_gone(reg, "a", "left", 1, NULL), 0);
    expect_shown("b", "web=h:2");
    cr_expect_null(registry_find(reg, "web@10.0.0.1"));
}

Test(put, opening_is_a_change_once_and_is_refused_over_the_limit)
{
    struct registry_change change;
    const char *label;
    char id[100];

    limits.peers = 2;
    registry_set_limits(reg, &limits);
    cr_assert_eq(registry_peer_open(reg, "a", "10.0.0.1", 1, &label, &change), 0);
    cr_expect(change.any);
    cr_expect_eq(change.revision, 2);
    cr_assert_eq(registry_peer_open(reg, "a", "10.0.0.1", 2, &label, &change), 0);
    cr_expect_not(change.any);
    cr_expect_eq(change.revision, 2);
    cr_assert_eq(registry_peer_open(reg, "b", "10.0.0.1", 1, &label, NULL), 0);
    cr_expect_eq(registry_peer_open(reg, "c", "10.0.0.1", 1, &label, NULL), REGISTRY_E_FULL);
    cr_expect_eq(counters().peers, 2);
    cr_expect_eq(counters().peers_refused, 1);

    memset(id, 'x', sizeof(id));
    id[LIMIT_PEER_ID + 1] = '\0';
    cr_expect_eq(registry_peer_open(reg, id, "10.0.0.1", 1, &label, NULL), -EINVAL);
    cr_expect_eq(registry_peer_open(reg, "d", id, 1, &label, NULL), -EINVAL);
    cr_expect_eq(registry_peer_open(reg, "", "10.0.0.1", 1, &label, NULL), -EINVAL);
}

Test(put, last_seen_alone_is_no_change_and_a_state_is)
{
    struct registry_state state = {.connected = true, .last_seen_ms = 10, .link_id = 4};
    struct registry_peer_info info;
    struct registry_change change;

    cr_assert_eq(put_text(reg, "a", "10.0.0.1", 1, "web=h:1"), 0);
    cr_assert_eq(registry_peer_state(reg, "a", &state, &change), 0);
    cr_expect(change.any);
    state.last_seen_ms = 20;
    cr_assert_eq(registry_peer_state(reg, "a", &state, &change), 0);
    cr_expect_not(change.any);
    state.last_seen_ms = 0;
    state.stale = true;
    cr_assert_eq(registry_peer_state(reg, "a", &state, &change), 0);
    cr_expect(change.any);
    cr_assert_eq(registry_peer_get(reg, "a", &info), 0);
    cr_expect_eq(info.state.last_seen_ms, 20);
    cr_expect(info.state.stale && info.state.connected);
    cr_expect_eq(info.state.link_id, 4);
    cr_expect_eq(counters().peers_connected, 1);
    cr_expect_eq(counters().peers_stale, 1);
}

Test(put, a_confirmed_list_moves_last_sync_only)
{
    struct snapshot *snap = NULL;
    uint64_t revision;

    cr_assert_eq(put_text(reg, "a", "10.0.0.1", 1, "web=h:1"), 0);
    revision = registry_revision(reg);
    registry_peer_confirmed(reg, "a", 7777);
    cr_assert_eq(registry_snapshot(reg, &snap), 0);
    cr_expect_eq(snap->peers[0].last_sync_s, 7777);
    cr_expect_eq(snap->revision, revision);
    snapshot_unref(snap);
}

Test(put, a_peer_that_goes_takes_all_its_rows_and_leaves_tombstones)
{
    struct registry_tombstone *stones = NULL;
    struct registry_change change;

    cr_assert_eq(put_text(reg, "a", "10.0.0.1", 1, "db=h:1 web=h:1"), 0);
    cr_assert_eq(put_text(reg, "b", "10.0.0.2", 1, "web=h:2"), 0);
    cr_assert_eq(registry_peer_gone(reg, "a", "timed out", 55, &change), 0);
    cr_expect_eq(change.removed, 2);
    cr_expect(change.any);
    cr_expect_eq(counters().services, 1);
    cr_expect_eq(counters().peers, 1);
    cr_assert_eq(registry_tombstones(reg, 10, &stones), 2);
    cr_expect_str_eq(stones[0].key, "web@10.0.0.1");
    cr_expect_str_eq(stones[1].key, "db@10.0.0.1");
    cr_expect_str_eq(stones[0].peer_id, "a");
    cr_expect_str_eq(stones[0].why, "timed out");
    cr_expect_eq(stones[0].when_s, 55);
    free(stones);
    cr_assert_eq(registry_tombstones(reg, 1, &stones), 1);
    cr_expect_str_eq(stones[0].key, "web@10.0.0.1");
    free(stones);
}

Test(put, tombstones_are_bounded_and_the_newest_stay)
{
    struct registry_tombstone *stones = NULL;

    limits.tombstones = 16;
    registry_set_limits(reg, &limits);
    for (unsigned v = 1; v <= 5; v++) {
        struct list *list = list_of_many("local", v * 100, 10, "h:1");
        cr_assert_eq(registry_put_local(reg, v, list, v, NULL, NULL), 0);
        list_unref(list);
    }
    cr_assert_eq(registry_tombstones(reg, 100, &stones), 16);
    cr_expect_str_eq(stones[0].key, "svc-000409@local");
    cr_expect_str_eq(stones[0].why, "withdrawn");
    cr_expect_str_eq(stones[0].peer_id, "n1");
    cr_expect_str_eq(stones[15].key, "svc-000304@local");
    free(stones);

    for (unsigned n = 500; n > 0; n -= 250) { /* more at once than the ring has room for */
        struct list *list = list_of_many("10.0.0.1", 0, n, "h:1");
        const char *label;
        cr_assert_eq(registry_peer_open(reg, "a", "10.0.0.1", 1, &label, NULL), 0);
        cr_assert_eq(registry_put_list(reg, "a", 1, 1000 - n, list, 1, NULL, NULL), 0);
        list_unref(list);
    }
    cr_assert_eq(registry_tombstones(reg, 100, &stones), 16);
    cr_expect_str_eq(stones[0].key, "svc-000499@10.0.0.1");
    free(stones);
    cr_assert_eq(registry_peer_gone(reg, "a", "left", 9, NULL), 0);
    cr_assert_eq(registry_tombstones(reg, 100, &stones), 16);
    cr_expect_str_eq(stones[0].key, "svc-000249@10.0.0.1");
    cr_expect_str_eq(stones[15].key, "svc-000234@10.0.0.1");
    free(stones);

    limits.tombstones = 20;
    registry_set_limits(reg, &limits);
    cr_expect_eq(counters().tombstones, 16);
    limits.tombstones = 3;
    registry_set_limits(reg, &limits);
    cr_assert_eq(registry_tombstones(reg, 100, &stones), 3);
    cr_expect_str_eq(stones[2].key, "svc-000247@10.0.0.1");
    free(stones);
}

static void expect_refused(const struct registry_refusals *refused, const char *names,
                           const char *limit)
{
    char text[256] = "";

    for (size_t i = 0; i < refused->n; i++) {
        strcat(strcat(text, i ? " " : ""), refused->at[i].name);
        cr_expect_str_eq(refused->at[i].limit, limit);
    }
    cr_expect_str_eq(text, names);
}

Test(put, over_the_limit_of_a_peer_the_last_names_are_left_out_and_known_ones_stay)
{
    struct registry_refusals refused;
    struct list *list;

    limits.services_per_peer = 3;
    registry_set_limits(reg, &limits);
    cr_assert_eq(put_text(reg, "a", "10.0.0.1", 1, "x=h:1 y=h:1"), 0);
    list = list_of("10.0.0.1", "a=h:1 b=h:1 c=h:1 x=h:1 y=h:2");
    cr_assert_eq(registry_put_list(reg, "a", 1, 2, list, 1, &refused, NULL), 0);
    expect_shown("a", "a=h:1 x=h:1 y=h:2");
    expect_refused(&refused, "b c", "services_per_peer");
    registry_refusals_fini(&refused);
    cr_expect_eq(counters().rows_refused, 2);

    limits.services_per_peer = 2; /* fewer than are known */
    registry_set_limits(reg, &limits);
    cr_assert_eq(registry_put_list(reg, "a", 1, 3, list, 1, &refused, NULL), 0);
    expect_shown("a", "a=h:1 x=h:1 y=h:2");
    expect_refused(&refused, "b c", "services_per_peer");
    registry_refusals_fini(&refused);
    list_unref(list);
}

Test(put, over_the_total_the_last_names_are_left_out)
{
    struct registry_refusals refused;
    struct list *list = list_of("10.0.0.1", "a=h:1 b=h:1 c=h:1");
    const char *label;

    limits.services_total = 4;
    registry_set_limits(reg, &limits);
    cr_assert_eq(put_local_text(reg, 1, "l=h:1 m=h:1"), 0);
    cr_assert_eq(registry_peer_open(reg, "a", "10.0.0.1", 1, &label, NULL), 0);
    cr_assert_eq(registry_put_list(reg, "a", 1, 1, list, 1, &refused, NULL), 0);
    expect_shown("a", "a=h:1 b=h:1");
    expect_refused(&refused, "c", "services_total");
    registry_refusals_fini(&refused);
    limits.services_total = 1;
    registry_set_limits(reg, &limits);
    cr_assert_eq(registry_put_list(reg, "a", 1, 2, list, 1, &refused, NULL), 0);
    expect_shown("a", "a=h:1 b=h:1"); /* what is there stays */
    expect_refused(&refused, "c", "services_total");
    registry_refusals_fini(&refused);
    list_unref(list);
}

Test(put, a_change_of_many_rows_takes_several_holds_each_with_a_revision)
{
    struct list *list = list_of_many("local", 0, 50000, "h:1");
    struct registry_change change;
    struct snapshot *snap = NULL;

    cr_assert_eq(registry_put_local(reg, 1, list, 1, NULL, &change), 0);
    cr_expect_eq(change.added, 50000);
    cr_expect_eq(change.revision, 4);
    cr_expect_eq(registry_check(reg), 0);
    list_unref(list);
    list = list_of_many("local", 25000, 50000, "h:2");
    cr_assert_eq(registry_put_local(reg, 2, list, 1, NULL, &change), 0);
    cr_expect_eq(change.added, 25000);
    cr_expect_eq(change.changed, 25000);
    cr_expect_eq(change.removed, 25000);
    cr_expect_eq(change.revision, 4 + 5);
    cr_assert_eq(registry_snapshot(reg, &snap), 0);
    cr_expect_eq(snap->local, list, "the list itself is kept");
    cr_expect_eq(snap->services_total, 50000);
    cr_expect_eq(counters().changes, 2);
    cr_expect_eq(counters().largest_list, 50000);
    cr_expect_eq(counters().tombstones, 10000);
    snapshot_unref(snap);
    list_unref(list);
}

Test(put, a_snapshot_stays_as_it_was_and_outlives_the_registry)
{
    struct snapshot *snap = NULL;
    struct registry *own = registry_for("n1", NULL);
    char *text;

    cr_assert_eq(put_text(own, "a", "10.0.0.1", 1, "web=h:1"), 0);
    cr_assert_eq(registry_snapshot(own, &snap), 0);
    cr_assert_eq(put_text(own, "a", "10.0.0.1", 2, "web=h:2 db=h:1"), 0);
    cr_assert_eq(registry_peer_gone(own, "a", "left", 1, NULL), 0);
    registry_free(own);
    cr_expect_eq(snap->epoch, 77);
    cr_expect_eq(snap->revision, 3);
    cr_assert_eq(snap->n_peers, 1);
    cr_expect_str_eq(snap->peers[0].label, "10.0.0.1");
    text = text_of(snap->peers[0].list);
    cr_expect_str_eq(text, "web=h:1");
    free(text);
    snapshot_unref(snapshot_ref(snap));
    snapshot_unref(snap);
}
