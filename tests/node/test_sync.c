/* What is told to a peer, and what is believed of it. */
#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>
#include "node/stage.h"

TestSuite(node_sync, .init = stage_begin, .fini = stage_end);

static const char *const two[] = {"db", "127.0.0.1:5432", "web", "127.0.0.1:80"};
static struct stage_peer n2 = {.id = "n2", .ip = "10.0.0.2", .incarnation = 500, .version = 1};

static struct node_counters counters(void)
{
    struct node_counters c;

    node_counters(st.node, &c);
    return c;
}

static void offer_at(const char *name, const char *backend)
{
    const struct node_caller caller = {.peer_id = "", .ip = "", .local = true};
    Meshd__V1__OfferRequest request = MESHD__V1__OFFER_REQUEST__INIT;

    request.lease_id = (char *)"lease";
    request.name = (char *)name;
    request.backend_addr = (char *)backend;
    node_offer(st.node, 1, &caller, &request);
    cr_assert_eq(st.reply.status, STATUS_OK, "%s", st.reply.text);
}

static void offer(const char *name) { offer_at(name, "127.0.0.1:80"); }

static void offer_many(int count)
{
    char name[300];

    for (int i = 0; i < count; i++) {
        snprintf(name, sizeof(name), "%060d.%060d.%060d.s%d", 0, 0, 0, i);
        offer(name);
    }
}

static const Meshd__V1__SyncWanted *wanted(void) { return stage_heard(n2.link, KIND(SYNC_WANTED)); }

/* ---- telling ---- */

Test(node_sync, a_change_is_told_as_a_difference)
{
    const Meshd__V1__Sync *sync;

    stage_live(&n2);
    stage_hush();
    offer("web");
    sync = stage_heard(n2.link, KIND(SYNC));
    cr_assert_not_null(sync);
    cr_expect_eq(sync->base_version, 1);
    cr_expect_eq(sync->version, 2);
    cr_assert_eq(sync->n_entries, 1);
    cr_expect_str_eq(sync->entries[0]->name, "web");
    cr_expect_eq(sync->count, 2);
    cr_expect(sync->last);
}

Test(node_sync, one_sync_at_a_time_is_under_way_and_the_next_brings_the_rest)
{
    const Meshd__V1__Sync *sync;

    stage_live(&n2);
    stage_hush();
    offer("a");
    offer("b");
    offer("c");
    cr_expect_eq(stage_count(n2.link, KIND(SYNC)), 1);
    stage_ack(&n2, true);
    cr_expect_eq(stage_count(n2.link, KIND(SYNC)), 2);
    sync = stage_heard(n2.link, KIND(SYNC));
    cr_expect_eq(sync->base_version, 2);
    cr_expect_eq(sync->version, 4);
    cr_expect_eq(sync->n_entries, 2);
}

Test(node_sync, parts_are_64_KiB_at_most_and_two_are_unacknowledged)
{
    size_t parts = 0, largest = 0;

    offer_many(1000);
    stage_open(&n2);
    cr_expect_eq(stage_count(n2.link, KIND(SYNC)), 2);
    cr_expect_leq(st.said[st.n_said - 1].body_len, 4096u);
    while (true) {
        const Meshd__V1__Sync *sync;
        Meshd__V1__SyncAck ack = MESHD__V1__SYNC_ACK__INIT;

        sync = NULL;
        for (size_t i = 0; i < st.n_said; i++) {
            if (st.said[i].header->kind != KIND(SYNC))
                continue;
            cr_assert_leq(st.said[i].body_len, LIMIT_SYNC_PART);
            largest = st.said[i].body_len > largest ? st.said[i].body_len : largest;
            if (((const Meshd__V1__Sync *)st.said[i].body)->part == parts)
                sync = st.said[i].body;
        }
        cr_assert_not_null(sync);
        cr_expect_eq(sync->base_version, 0);
        parts++;
        ack.incarnation = sync->incarnation;
        ack.version = sync->version;
        ack.part = sync->part;
        ack.applied = sync->last;
        stage_say(&n2, KIND(SYNC_ACK), &ack.base);
        cr_expect_leq(stage_count(n2.link, KIND(SYNC)), parts + 2);
        if (sync->last)
            break;
    }
    cr_expect_geq(parts, 4);
    cr_expect_geq(largest, LIMIT_SYNC_PART / 2, "a fast wire gets large parts");
}

/* 1 KiB/s: each part of 4 KiB takes 4 s, and no silence is long enough to end the link. */
Test(node_sync, a_slow_wire_gets_small_parts_and_gets_on)
{
    Meshd__V1__SyncAck ack = MESHD__V1__SYNC_ACK__INIT;
    const Meshd__V1__Sync *sync = NULL;
    uint32_t part = 0;

    offer_many(150);
    stage_open(&n2);
    do {
        stage_wait(4000);
        sync = NULL;
        for (size_t i = 0; i < st.n_said && !sync; i++)
            if (st.said[i].header->kind == KIND(SYNC) &&
                ((const Meshd__V1__Sync *)st.said[i].body)->part == part)
                sync = st.said[i].body;
        cr_assert_not_null(sync, "part %u was not sent", part);
        cr_expect_leq(protobuf_c_message_get_packed_size(&sync->base), 4096u);
        ack.incarnation = sync->incarnation;
        ack.version = sync->version;
        ack.part = part++;
        ack.applied = sync->last;
        stage_say(&n2, KIND(SYNC_ACK), &ack.base);
    } while (!sync->last);
    cr_expect_geq(part, 6u);
    cr_expect_eq(st.ended, 0, "the link was given up");
}

/* The stage unpacks what the node says within the limits that every receiver has. */
Test(node_sync, very_short_entries_are_told_in_messages_that_a_receiver_can_unpack)
{
    char name[8];

    for (int i = 0; i < 6000; i++) {
        snprintf(name, sizeof(name), "%c%c%c", 'a' + i / 676 % 26, 'a' + i / 26 % 26, 'a' + i % 26);
        offer_at(name, "a:1");
    }
    stage_open(&n2);
    cr_expect_eq(stage_count(n2.link, KIND(SYNC)), 2);
    cr_expect_leq(((const Meshd__V1__Sync *)stage_heard(n2.link, KIND(SYNC)))->n_entries, 2400u);
}

Test(node_sync, a_wish_for_everything_is_met_at_once_then_with_back_off)
{
    Meshd__V1__SyncWanted wish = MESHD__V1__SYNC_WANTED__INIT;
    const Meshd__V1__Sync *sync;

    stage_live(&n2);
    stage_hush();
    stage_say(&n2, KIND(SYNC_WANTED), &wish.base);
    sync = stage_heard(n2.link, KIND(SYNC));
    cr_assert_not_null(sync);
    cr_expect_eq(sync->base_version, 0);
    for (int i = 0; i < 100; i++) {
        stage_say(&n2, KIND(SYNC_WANTED), &wish.base);
        stage_beat(&n2, 0, 0);
        stage_wait(100);
    }
    cr_expect_leq(stage_count(n2.link, KIND(SYNC)), 6, "with back-off in 10 s");
}

Test(node_sync, who_believes_the_same_version_and_wants_all_gets_a_newer_one)
{
    Meshd__V1__SyncWanted wish = MESHD__V1__SYNC_WANTED__INIT;

    stage_live(&n2);
    wish.incarnation = node_incarnation(st.node);
    wish.version = node_version(st.node);
    stage_say(&n2, KIND(SYNC_WANTED), &wish.base);
    cr_expect_eq(node_version(st.node), 2);
}

Test(node_sync, a_known_incarnation_above_the_own_one_is_gone_beyond_on_all_links)
{
    struct stage_peer n3 = {.id = "n3", .ip = "10.0.0.3", .incarnation = 5, .version = 1};
    Meshd__V1__SyncWanted wish = MESHD__V1__SYNC_WANTED__INIT;
    const Meshd__V1__Sync *sync;

    stage_live(&n2);
    stage_live(&n3);
    stage_hush();
    wish.incarnation = 5000;
    wish.version = 9;
    stage_say(&n2, KIND(SYNC_WANTED), &wish.base);
    cr_expect_eq(node_incarnation(st.node), 5001);
    cr_expect_eq(st.events[NODE_INCARNATION], 1);
    sync = stage_heard(n3.link, KIND(SYNC));
    cr_assert_not_null(sync);
    cr_expect_eq(sync->incarnation, 5001);
    cr_expect_eq(sync->base_version, 0);
    cr_assert_not_null(stage_heard(n2.link, KIND(SYNC)));
}

Test(node_sync, an_absurd_incarnation_is_not_followed)
{
    Meshd__V1__SyncWanted wish = MESHD__V1__SYNC_WANTED__INIT;

    stage_live(&n2);
    wish.incarnation = UINT64_MAX;
    stage_say(&n2, KIND(SYNC_WANTED), &wish.base);
    cr_expect_eq(node_incarnation(st.node), 1000);
}

/* ---- believing ---- */

Test(node_sync, a_full_list_replaces_the_known_one)
{
    const Meshd__V1__SyncAck *ack;

    stage_live(&n2);
    n2.version = 2;
    stage_sync(&n2, 0, 2, two, 0, NULL);
    ack = stage_heard(n2.link, KIND(SYNC_ACK));
    cr_expect(ack->applied);
    cr_expect_eq(ack->accepted, 2);
    n2.version = 3;
    stage_sync(&n2, 0, 1, two, 0, NULL);
    cr_expect_eq(stage_peer_info("n2").count, 1);
    cr_expect_null(registry_find(st.registry, "web@10.0.0.2"));
}

Test(node_sync, a_difference_is_applied_to_its_base)
{
    static const char *const after[] = {"web", "127.0.0.1:81", "x", "127.0.0.1:1"};
    struct row *row;

    stage_live(&n2);
    n2.version = 2;
    stage_sync(&n2, 0, 2, two, 0, NULL);
    stage_change(&n2, 2, after, "db", stage_digest(2, after), 2);
    cr_expect_null(wanted());
    cr_expect_eq(stage_peer_info("n2").count, 2);
    row = registry_find(st.registry, "web@10.0.0.2");
    cr_assert_not_null(row);
    cr_expect_str_eq(row->backend, "127.0.0.1:81");
    row_unref(row);
}

Test(node_sync, a_difference_to_an_unknown_base_makes_the_receiver_want_everything)
{
    stage_live(&n2);
    n2.version = 9;
    stage_sync(&n2, 8, 2, two, 0, NULL);
    cr_assert_not_null(wanted());
    cr_expect_eq(wanted()->incarnation, 500);
    cr_expect_eq(wanted()->version, 1);
    cr_expect_eq(stage_peer_info("n2").count, 0);
}

Test(node_sync, a_digest_that_differs_applies_nothing)
{
    static const char *const after[] = {"x", "127.0.0.1:1"};

    stage_live(&n2);
    n2.version = 2;
    stage_sync(&n2, 0, 2, two, 0, NULL);
    stage_change(&n2, 1, after, NULL, 1234, 3);
    cr_assert_not_null(wanted());
    cr_expect_eq(stage_peer_info("n2").count, 2);
    cr_expect_eq(counters().digests_differed, 1);
}

static void part(uint32_t number, bool last, const char *name)
{
    Meshd__V1__Sync sync = MESHD__V1__SYNC__INIT;
    Meshd__V1__Service service = MESHD__V1__SERVICE__INIT, *pointer = &service;
    const char *const all[] = {"a", "h:1", "b", "h:1", "c", "h:1"};

    service.name = (char *)name;
    service.backend_addr = (char *)"h:1";
    sync.incarnation = 500;
    sync.version = 7;
    sync.part = number;
    sync.last = last;
    sync.n_entries = 1;
    sync.entries = &pointer;
    sync.digest = stage_digest(3, all);
    sync.count = 3;
    stage_say(&n2, KIND(SYNC), &sync.base);
}

Test(node_sync, parts_are_staged_and_applied_once_at_the_last)
{
    uint32_t printed;
    const Meshd__V1__SyncAck *ack;

    stage_live(&n2);
    printed = st.events[NODE_MAPS_CHANGED];
    part(0, false, "a");
    part(1, false, "b");
    cr_expect_eq(stage_peer_info("n2").count, 0);
    ack = stage_heard(n2.link, KIND(SYNC_ACK));
    cr_expect_eq(ack->part, 1);
    cr_expect_not(ack->applied);
    part(2, true, "c");
    cr_expect_eq(stage_peer_info("n2").count, 3);
    cr_expect_eq(st.events[NODE_MAPS_CHANGED], printed + 1,
                 "one per message that changed something");
}

Test(node_sync, a_missing_part_makes_the_receiver_want_everything_once)
{
    stage_live(&n2);
    part(0, false, "a");
    part(2, true, "c");
    part(3, true, "c");
    cr_expect_eq(stage_count(n2.link, KIND(SYNC_WANTED)), 1);
    cr_expect_eq(stage_peer_info("n2").count, 0);
    part(0, false, "a");
    part(1, false, "b");
    part(2, true, "c");
    cr_expect_eq(stage_peer_info("n2").count, 3);
}

Test(node_sync, a_repeated_list_changes_nothing_and_is_acknowledged)
{
    uint32_t printed;
    uint64_t revision;

    stage_live(&n2);
    n2.version = 2;
    stage_sync(&n2, 0, 2, two, 0, NULL);
    printed = st.events[NODE_MAPS_CHANGED];
    revision = registry_revision(st.registry);
    stage_hush();
    stage_sync(&n2, 0, 2, two, 0, NULL);
    cr_expect(((const Meshd__V1__SyncAck *)stage_heard(n2.link, KIND(SYNC_ACK)))->applied);
    cr_expect_eq(st.events[NODE_MAPS_CHANGED], printed);
    cr_expect_eq(registry_revision(st.registry), revision);
}

Test(node_sync, an_incarnation_below_the_known_one_is_told_so)
{
    struct stage_peer old = n2;

    stage_live(&n2);
    n2.incarnation = 900;
    n2.version = 2;
    stage_sync(&n2, 0, 2, two, 0, NULL); /* it was raised on a living session */
    cr_expect_eq(stage_peer_info("n2").incarnation, 900);
    node_link_down(st.node, n2.link, 0, 0, "closed");
    stage_register(&old, -1, NULL);
    cr_expect_eq(st.reply.reason, REASON(INCARNATION));
}

Test(node_sync, refused_entries_are_part_of_the_digest)
{
    static const char *const entries[] = {"BAD", "h:1", "good", "h:1"};
    static const char *const more[] = {"more", "h:1"};
    const char *const after[] = {"good", "h:1", "more", "h:1"};
    const Meshd__V1__SyncAck *ack;

    stage_live(&n2);
    n2.version = 2;
    stage_sync(&n2, 0, 2, entries, 0, NULL);
    ack = stage_heard(n2.link, KIND(SYNC_ACK));
    cr_expect(ack->applied);
    cr_expect_eq(ack->accepted, 1);
    cr_expect_eq(ack->refused_total, 1);
    cr_expect_str_eq(ack->refused[0]->name, "BAD");
    cr_expect_eq(ack->refused[0]->reason, REASON(BAD_NAME));
    stage_beat(&n2, stage_digest(2, entries), 2);
    cr_expect_null(wanted(), "what was offered is compared, not what was stored");
    stage_change(&n2, 1, more, "BAD", stage_digest(2, after), 2);
    cr_expect_null(wanted());
    cr_expect_eq(stage_peer_info("n2").count, 2);
    ack = stage_heard(n2.link, KIND(SYNC_ACK));
    cr_expect_eq(ack->refused_total, 0);
}

Test(node_sync, an_entry_that_becomes_unacceptable_is_not_offered_as_it_was)
{
    static const char *const worse[] = {"web", "nowhere"};
    const char *const after[] = {"db", "127.0.0.1:5432", "web", "nowhere"};

    stage_live(&n2);
    n2.version = 2;
    stage_sync(&n2, 0, 2, two, 0, NULL);
    stage_change(&n2, 1, worse, NULL, stage_digest(2, after), 2);
    cr_expect_null(wanted());
    cr_expect_eq(stage_peer_info("n2").count, 1);
    cr_expect_null(registry_find(st.registry, "web@10.0.0.2"));
}

Test(node_sync, refusals_of_our_own_entries_are_told_once)
{
    Meshd__V1__SyncAck ack = MESHD__V1__SYNC_ACK__INIT;
    Meshd__V1__Refused refused = MESHD__V1__REFUSED__INIT, *pointer = &refused;

    stage_open(&n2);
    refused.name = (char *)"own";
    refused.text = (char *)"over the limit of services";
    ack.incarnation = 1000;
    ack.version = 1;
    ack.applied = true;
    ack.n_refused = ack.refused_total = 1;
    ack.refused = &pointer;
    stage_say(&n2, KIND(SYNC_ACK), &ack.base);
    cr_expect_eq(st.events[NODE_ENTRIES_REFUSED], 1);
    offer("web");
    ack.version = 2;
    stage_say(&n2, KIND(SYNC_ACK), &ack.base);
    cr_expect_eq(st.events[NODE_ENTRIES_REFUSED], 1);
}

Test(node_sync, a_list_that_was_taken_and_not_applied_is_sent_again)
{
    stage_open(&n2);
    stage_ack(&n2, false);
    cr_expect_eq(stage_count(n2.link, KIND(SYNC)), 2);
}

Test(node_sync, a_part_from_before_the_incarnation_grew_is_passed_over)
{
    struct stage_peer older = n2;

    stage_live(&n2);
    n2.incarnation = 900;
    n2.version = 2;
    stage_sync(&n2, 0, 2, two, 0, NULL);
    stage_hush();
    older.version = 9;
    memcpy(older.session, n2.session, SESSION_ID_LEN);
    older.link = n2.link;
    stage_sync(&older, 0, 0, NULL, 0, NULL);
    cr_expect_not(((const Meshd__V1__SyncAck *)stage_heard(n2.link, KIND(SYNC_ACK)))->applied);
    cr_expect_eq(stage_peer_info("n2").count, 2);
}

Test(node_sync, more_refused_entries_than_are_remembered_are_counted_and_agreed_on)
{
    enum { MANY = 400 };
    static char names[MANY][32];
    static Meshd__V1__Service services[MANY], *pointers[MANY];
    static const char *entries[2 * MANY];
    Meshd__V1__Sync sync = MESHD__V1__SYNC__INIT;
    const Meshd__V1__SyncAck *ack;

    stage_live(&n2);
    for (int i = 0; i < MANY; i++) {
        snprintf(names[i], sizeof(names[i]), "BAD-%d", i);
        meshd__v1__service__init(&services[i]);
        services[i].name = names[i];
        services[i].backend_addr = (char *)"h:1";
        pointers[i] = &services[i];
        entries[2 * i] = names[i];
        entries[2 * i + 1] = "h:1";
    }
    n2.version = 2;
    sync.incarnation = 500;
    sync.version = 2;
    sync.last = true;
    sync.n_entries = sync.count = MANY;
    sync.entries = pointers;
    sync.digest = stage_digest(MANY, entries);
    stage_say(&n2, KIND(SYNC), &sync.base);
    ack = stage_heard(n2.link, KIND(SYNC_ACK));
    cr_expect(ack->applied);
    cr_expect_eq(ack->refused_total, MANY);
    cr_expect_eq(ack->n_refused, 100, "at most 100 are named");
    stage_hush();
    stage_beat(&n2, sync.digest, MANY);
    cr_expect_null(wanted());
}

Test(node_sync, a_heartbeat_whose_digest_differs_is_repaired_with_back_off)
{
    stage_live(&n2);
    stage_hush();
    stage_beat(&n2, 42, 1);
    cr_expect_eq(stage_count(n2.link, KIND(SYNC_WANTED)), 1);
    cr_expect_eq(wanted()->version, 1, "the owner goes above it");
    for (int i = 0; i < 300; i++) {
        stage_beat(&n2, 42, 1);
        stage_wait(100);
    }
    cr_expect_leq(stage_count(n2.link, KIND(SYNC_WANTED)), 8);
    n2.version = 2;
    stage_sync(&n2, 0, 2, two, 0, NULL);
    stage_hush();
    stage_beat(&n2, stage_digest(2, two), 2);
    cr_expect_eq(stage_count(n2.link, KIND(SYNC_WANTED)), 0);
}

Test(node_sync, a_version_that_never_came_is_asked_for_at_the_second_heartbeat)
{
    stage_live(&n2);
    stage_hush();
    n2.version = 8;
    stage_beat(&n2, 1, 1);
    cr_expect_null(wanted(), "heartbeats overtake lists");
    stage_beat(&n2, 1, 1);
    cr_expect_not_null(wanted());
}

Test(node_sync, removed_names_in_a_full_list_break_the_protocol)
{
    const char *const names[] = {"web"};

    stage_live(&n2);
    n2.version = 2;
    stage_sync(&n2, 0, 2, two, 1, names);
    cr_expect_not_null(stage_heard(n2.link, KIND(GOODBYE)));
}

Test(node_sync, a_session_names_rows_of_its_own_peer_only)
{
    struct stage_peer n3 = {.id = "n3", .ip = "10.0.0.3", .incarnation = 5, .version = 1};
    const char *const names[] = {"web"};

    stage_live(&n3);
    n3.version = 2;
    stage_sync(&n3, 0, 2, two, 0, NULL);
    stage_live(&n2);
    n2.version = 2;
    stage_sync(&n2, 1, 0, NULL, 1, names);
    cr_expect_eq(stage_peer_info("n3").count, 2);
    cr_expect_eq(stage_peer_info("n2").count, 0);
}
