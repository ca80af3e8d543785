/* Followers: whatever happens to the maps and however slowly one reads, what it has been told is
 * what there is. The copy here does what the page does. */
#include <criterion/criterion.h>
#include <jansson.h>
#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "registry/help.h"
#include "web/events.h"

/* ---- a client ---- */

struct client {
    struct follower *follower;
    char *bytes; /* what has come and is no whole event yet */
    size_t len, cap;
    json_t *rows;     /* by key, since hello */
    json_t *last_log; /* texts */
    uint64_t revision;
    unsigned hellos, parts, changes, nodes, peers, beats;
    size_t most_event; /* bytes */
    bool synced;
    char node[256];
};

static struct registry *reg;
static struct events *events;
static struct client c;
static uint64_t now_ms;

static void apply_rows(struct client *to, json_t *rows)
{
    size_t i;
    json_t *row;

    to->parts++;
    json_array_foreach(rows, i, row)
        json_object_set(to->rows, json_string_value(json_object_get(row, "key")), row);
}

static void apply_changes(struct client *to, json_t *data)
{
    size_t i;
    json_t *event;

    to->changes++;
    to->revision = (uint64_t)json_integer_value(json_object_get(data, "revision"));
    json_array_foreach(json_object_get(data, "events"), i, event)
    {
        json_t *row = json_object_get(event, "row");
        const char *key = json_string_value(json_object_get(row, "key"));
        const char *kind = json_string_value(json_object_get(event, "kind"));
        bool known = json_object_get(to->rows, key) != NULL;

        cr_assert_eq(known, strcmp(kind, "up") != 0, "%s of %s", kind, key);
        if (strcmp(kind, "down") == 0)
            json_object_del(to->rows, key);
        else
            json_object_set(to->rows, key, row);
    }
}

static void apply(struct client *to, const char *name, const char *text, size_t len)
{
    json_t *data = json_loadb(text, len, 0, NULL);

    cr_assert_not_null(data, "%s is JSON: %.*s", name, (int)len, text);
    if (strcmp(name, "hello") == 0) {
        to->hellos++;
        to->synced = false;
        json_object_clear(to->rows);
        cr_assert_str_eq(json_string_value(json_object_get(data, "peer_id")), "me");
    } else if (strcmp(name, "rows") == 0) {
        apply_rows(to, data);
    } else if (strcmp(name, "synced") == 0) {
        to->synced = true;
        to->revision = (uint64_t)json_integer_value(json_object_get(data, "revision"));
    } else if (strcmp(name, "changes") == 0) {
        apply_changes(to, data);
    } else if (strcmp(name, "node") == 0) {
        to->nodes++;
        snprintf(to->node, sizeof(to->node), "%.*s", (int)len, text);
    } else if (strcmp(name, "peers") == 0) {
        to->peers++;
    } else if (strcmp(name, "log") == 0) {
        json_array_append(to->last_log, json_object_get(data, "text"));
    } else {
        cr_assert_str_eq(name, "beat");
        to->beats++;
    }
    json_decref(data);
}

/* Lines "field: value" up to an empty one, as the HTML Standard has it. */
static void take_event(struct client *to, char *event, size_t len)
{
    char name[32] = "", *data = calloc(1, len + 1);
    size_t n = 0;

    if (len > to->most_event)
        to->most_event = len;
    for (char *line = event, *end; line < event + len; line = end + 1) {
        end = memchr(line, '\n', (size_t)(event + len - line));
        *end = '\0';
        if (strncmp(line, "event: ", 7) == 0)
            snprintf(name, sizeof(name), "%s", line + 7);
        else if (strncmp(line, "data: ", 6) == 0)
            n += (size_t)sprintf(data + n, "%s%s", n ? "\n" : "", line + 6);
        else
            cr_assert_str_eq(line, "retry: 1000");
    }
    if (*name)
        apply(to, name, data, n);
    free(data);
}

/* Up to `most` bytes, so many at a time; how many there were. */
static size_t take(struct client *to, size_t most, size_t at_once)
{
    size_t taken = 0;
    char *end;

    while (taken < most) {
        ssize_t n;

        if (to->cap < to->len + at_once)
            to->bytes = realloc(to->bytes, to->cap = 2 * to->len + at_once);
        n = follower_read(to->follower, to->bytes + to->len, at_once, now_ms);
        cr_assert_geq(n, 0);
        if (n == 0)
            break;
        to->len += (size_t)n;
        taken += (size_t)n;
        while ((end = memmem(to->bytes, to->len, "\n\n", 2)) != NULL) {
            size_t len = (size_t)(end - to->bytes) + 1;

            take_event(to, to->bytes, len);
            to->len -= len + 1;
            memmove(to->bytes, to->bytes + len + 1, to->len);
        }
    }
    return taken;
}

static size_t take_all(struct client *to) { return take(to, SIZE_MAX, 65536); }

static void client_init(struct client *to)
{
    memset(to, 0, sizeof(*to));
    to->rows = json_object();
    to->last_log = json_array();
    cr_assert_eq(follower_new(events, now_ms, &to->follower), 0);
}

static void client_fini(struct client *to)
{
    follower_free(to->follower);
    json_decref(to->rows);
    json_decref(to->last_log);
    free(to->bytes);
}

static void show(void)
{
    struct snapshot *snap;

    cr_assert_eq(registry_snapshot(reg, &snap), 0);
    events_show(events, snap, now_ms);
    snapshot_unref(snap);
}

static void pass(uint64_t ms)
{
    now_ms += ms;
    events_turn(events, now_ms);
}

static const char *field(const struct client *of, const char *key, const char *name)
{
    return json_string_value(json_object_get(json_object_get(of->rows, key), name));
}

static void expect_list(const struct client *of, const struct list *list,
                        const struct snapshot_peer *peer)
{
    struct list_iter it;
    const struct row *row;

    list_iter_init(&it, list);
    while ((row = list_iter_next(&it)) != NULL) {
        json_t *told = json_object_get(of->rows, row->key);

        cr_assert_not_null(told, "%s is missing", row->key);
        cr_assert_str_eq(field(of, row->key, "backend_addr"), row->backend);
        cr_assert_eq(json_is_true(json_object_get(told, "connected")),
                     !peer || peer->state.connected);
        cr_assert_eq(json_is_true(json_object_get(told, "stale")), peer && peer->state.stale);
        cr_assert_eq(json_is_true(json_object_get(told, "healthy")), !(row->flags & ROW_UNHEALTHY));
        cr_assert_eq(json_is_true(json_object_get(told, "draining")),
                     row->flags & ROW_DRAINING || (peer && peer->state.draining));
    }
}

static void expect_as_registry(const struct client *of)
{
    struct snapshot *snap;

    cr_assert_eq(registry_snapshot(reg, &snap), 0);
    cr_assert(of->synced);
    cr_assert_eq(of->revision, snap->revision);
    cr_assert_eq(json_object_size(of->rows), snap->services_total);
    expect_list(of, snap->local, NULL);
    for (size_t i = 0; i < snap->n_peers; i++)
        expect_list(of, snap->peers[i].list, &snap->peers[i]);
    snapshot_unref(snap);
}

static void setup(void)
{
    now_ms = 1000000;
    reg = registry_for("me", NULL);
    cr_assert_eq(events_new("me", "meshd 0", &events), 0);
    put_local_text(reg, 1, "a=h:1 b=h:1");
    put_text(reg, "p", "10.0.0.2", 1, "c=h:1");
    show();
    client_init(&c);
}

static void teardown(void)
{
    client_fini(&c);
    events_free(events);
    registry_free(reg);
}

static void put_many(unsigned n, uint64_t version, const char *backend)
{
    struct list *many = list_of_many("local", 0, n, backend);

    cr_assert_eq(registry_put_local(reg, version, many, 100, NULL, NULL), 0);
    list_unref(many);
}

TestSuite(events, .init = setup, .fini = teardown);

Test(events, a_follower_is_told_the_picture_first)
{
    cr_expect(follower_has_news(c.follower, now_ms));
    take_all(&c);
    cr_expect_eq(c.hellos, 1);
    cr_expect_eq(c.changes, 0);
    expect_as_registry(&c);
    cr_expect_str_eq(field(&c, "c@10.0.0.2", "peer_id"), "p");
    cr_expect_not(follower_has_news(c.follower, now_ms));
}

Test(events, a_change_is_told_as_a_difference_with_why)
{
    take_all(&c);
    pass(1000);
    put_local_text(reg, 2, "a=h:2 d=h:1");
    show();
    cr_expect(follower_has_news(c.follower, now_ms));
    take_all(&c);
    cr_expect_eq(c.changes, 1);
    cr_expect_eq(c.hellos, 1);
    expect_as_registry(&c);
}

Test(events, changes_come_at_most_four_times_a_second)
{
    take_all(&c);
    pass(1000);
    for (unsigned i = 0; i < 100; i++) {
        put_local_text(reg, i + 2, i % 2 ? "a=h:1" : "a=h:2");
        show();
        pass(10);
        take_all(&c);
    }
    cr_expect_leq(c.changes, 5);
    cr_expect_geq(c.changes, 3);
    pass(EVENTS_STEP_MS);
    take_all(&c);
    expect_as_registry(&c);
}

Test(events, one_byte_at_a_time_is_the_same)
{
    put_many(100, 2, "h:1");
    pass(1000);
    show();
    take(&c, SIZE_MAX, 1);
    expect_as_registry(&c);
}

Test(events, parts_of_a_picture_are_bounded)
{
    put_many(5000, 2, "h:1");
    pass(1000);
    show();
    take_all(&c);
    expect_as_registry(&c);
    cr_expect_gt(c.parts, 10);
    cr_expect_lt(c.most_event, EVENTS_PART_BYTES + 2048);
}

Test(events, what_changes_while_the_picture_is_told_comes_behind_it)
{
    put_many(5000, 2, "h:1");
    pass(1000);
    show();
    take(&c, 100000, 1000);
    cr_expect_not(c.synced);
    put_many(4500, 3, "h:1");
    put_text(reg, "q", "10.0.0.3", 1, "z=h:1");
    pass(1000);
    show();
    take_all(&c);
    cr_expect_eq(c.hellos, 1);
    expect_as_registry(&c);
}

Test(events, a_change_that_is_too_big_is_told_as_a_picture)
{
    put_many(20000, 2, "h:1");
    pass(1000);
    show();
    take_all(&c);
    put_many(20000, 3, "h:2");
    pass(1000);
    show();
    take_all(&c);
    cr_expect_eq(c.hellos, 2);
    cr_expect_eq(c.changes, 0);
    cr_expect_lt(c.most_event, EVENTS_PART_BYTES + 2048);
    expect_as_registry(&c);
}

/* It would take everything that ever happened. */
Test(events, a_slow_follower_costs_no_more_memory)
{
    size_t before, after;

    put_many(2000, 2, "h:1");
    pass(1000);
    show();
    take(&c, 10000, 100);
    before = mallinfo2().uordblks;
    for (unsigned i = 0; i < 200; i++) {
        put_many(2000, i + 3, i % 2 ? "h:1" : "h:2");
        pass(1000);
        show();
        events_tell(events, "link_live", "p", "something", i);
        events_node(events, "{}", 2);
    }
    after = mallinfo2().uordblks;
    cr_expect_lt((long)(after - before), 4000000, "%ld more bytes", (long)(after - before));
    take_all(&c);
    expect_as_registry(&c);
    cr_expect_eq(c.nodes, 1, "of what is told once a second it gets the last");
}

Test(events, those_at_the_same_picture_share_a_step)
{
    struct client others[5];
    size_t before, after;

    put_many(1500, 2, "h:1");
    pass(1000);
    show();
    take_all(&c);
    for (int i = 0; i < 5; i++) {
        client_init(&others[i]);
        take_all(&others[i]);
    }
    put_many(1500, 3, "h:2");
    pass(1000);
    show();
    take(&c, 1, 1);
    before = mallinfo2().uordblks;
    for (int i = 0; i < 5; i++)
        take(&others[i], 1, 1);
    after = mallinfo2().uordblks;
    cr_expect_lt((long)(after - before), 20000, "%ld more bytes", (long)(after - before));
    for (int i = 0; i < 5; i++) {
        take_all(&others[i]);
        expect_as_registry(&others[i]);
        client_fini(&others[i]);
    }
}

Test(events, a_label_that_passes_to_another_peer_is_not_lost)
{
    put_text(reg, "q", "10.0.0.3", 1, "x=h:1");
    put_text(reg, "m", "10.0.0.3", 1, "x=h:1"); /* 10.0.0.3#m, and between b and q */
    pass(1000);
    show();
    take_all(&c);
    registry_peer_gone(reg, "q", "left", 100, NULL);
    put_text(reg, "b", "10.0.0.3", 1, "x=h:9");
    pass(1000);
    show();
    take_all(&c);
    cr_expect_eq(c.hellos, 1);
    cr_expect_str_eq(field(&c, "x@10.0.0.3", "backend_addr"), "h:9");
    expect_as_registry(&c);
}

Test(events, the_node_is_told_as_it_was_answered_line_by_line)
{
    const char answer[] = "{\n \"node\": {\"peer_id\": \"me\"}\n}\n";

    take_all(&c);
    events_node(events, answer, strlen(answer));
    cr_expect(follower_has_news(c.follower, now_ms));
    take_all(&c);
    cr_expect_str_eq(c.node, "{\n \"node\": {\"peer_id\": \"me\"}\n}");
}

Test(events, peers_are_told_less_often_when_there_are_many)
{
    struct snapshot *snap;

    cr_assert_eq(registry_snapshot(reg, &snap), 0);
    events_peers(events, snap, now_ms);
    cr_expect_not(events_peers_due(events, now_ms + 999));
    cr_expect(events_peers_due(events, now_ms + 1000));
    take_all(&c);
    cr_expect_eq(c.peers, 1);
    snapshot_unref(snap);
    for (unsigned i = 0; i < 1200; i++) {
        char id[16], ip[32];

        snprintf(id, sizeof(id), "n%u", i);
        snprintf(ip, sizeof(ip), "10.1.%u.%u", i / 200, i % 200 + 1);
        put_text(reg, id, ip, 1, "a=h:1");
    }
    cr_assert_eq(registry_snapshot(reg, &snap), 0);
    events_peers(events, snap, now_ms);
    cr_expect_not(events_peers_due(events, now_ms + 2999));
    cr_expect(events_peers_due(events, now_ms + 3000));
    snapshot_unref(snap);
}

Test(events, who_comes_is_told_the_last_of_what_happened)
{
    for (unsigned i = 1; i <= EVENTS_LOG + 50; i++) {
        char text[16];

        snprintf(text, sizeof(text), "%u", i);
        events_tell(events, "link_live", "p", text, i);
    }
    take_all(&c);
    cr_assert_eq(json_array_size(c.last_log), EVENTS_LOG);
    cr_expect_str_eq(json_string_value(json_array_get(c.last_log, 0)), "51");
    cr_expect_str_eq(json_string_value(json_array_get(c.last_log, EVENTS_LOG - 1)), "250");
}

Test(events, odd_texts_stay_inside_their_event)
{
    const char *odd[] = {"\n\ndata: {}\n\n", "\"}\n", "\xff\xfe", "</script>", "\x01\r"};
    char longest[2000];

    memset(longest, 'x', sizeof(longest));
    longest[sizeof(longest) - 1] = '\0';
    for (size_t i = 0; i < sizeof(odd) / sizeof(*odd); i++)
        events_tell(events, "link_refused", "p", odd[i], 1);
    events_tell(events, "link_refused", "p", longest, 1);
    take_all(&c);
    cr_assert_eq(json_array_size(c.last_log), 6);
    cr_expect_str_eq(json_string_value(json_array_get(c.last_log, 0)), odd[0]);
    cr_expect_str_eq(json_string_value(json_array_get(c.last_log, 2)), "??");
    cr_expect_eq(strlen(json_string_value(json_array_get(c.last_log, 5))), 512);
}

Test(events, silence_is_broken_by_a_beat)
{
    take_all(&c);
    pass(EVENTS_BEAT_MS - 1);
    cr_expect_not(follower_has_news(c.follower, now_ms));
    pass(1);
    cr_expect(follower_has_news(c.follower, now_ms));
    take_all(&c);
    cr_expect_eq(c.beats, 1);
    cr_expect_not(follower_has_news(c.follower, now_ms));
}

Test(events, whatever_happens_the_copies_end_up_as_the_maps)
{
    uint64_t seed = test_seed();
    struct client others[3];
    static const char *const texts[] = {"a=h:1", "a=h:2! b=h:1", "b=h:1~ c=h:1 d=h:1", ""};
    static const char *const ids[] = {"p", "q", "r", "s"};
    static const char *const ips[] = {"10.0.0.2", "10.0.0.3", "10.0.0.3", "fd00::1"};

    for (int i = 0; i < 3; i++)
        client_init(&others[i]);
    for (unsigned i = 2; i < 3000; i++) {
        unsigned peer = (unsigned)(test_random(&seed) % 4),
                 what = (unsigned)(test_random(&seed) % 8);
        struct registry_state state = {.connected = what & 1, .stale = what & 2};

        if (what < 4)
            registry_peer_state(reg, ids[peer], &state, NULL);
        else if (what == 4)
            registry_peer_gone(reg, ids[peer], "left", 100, NULL);
        else if (what == 5)
            put_local_text(reg, i, texts[test_random(&seed) % 4]);
        else
            put_text(reg, ids[peer], ips[peer], i, texts[test_random(&seed) % 4]);
        show();
        pass(test_random(&seed) % 200);
        take(&others[0], test_random(&seed) % 300, 7);
        take(&others[1], test_random(&seed) % 3000, 100);
        if (i % 50 == 0)
            take_all(&others[2]);
    }
    pass(EVENTS_STEP_MS);
    for (int i = 0; i < 3; i++) {
        take_all(&others[i]);
        expect_as_registry(&others[i]);
        client_fini(&others[i]);
    }
}
