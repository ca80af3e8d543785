/* rows: what is encoded by hand is what protobuf-c unpacks, and the room is never overrun. */
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "wire/rows.h"

static uint8_t room[1 << 16];

static void share_service(struct rows_shared *out)
{
    Meshd__V1__ServiceRow row = MESHD__V1__SERVICE_ROW__INIT;

    row.ip = (char *)"192.0.2.10";
    row.peer_id = (char *)"n2";
    row.connected = true;
    row.last_seen = 1234567890;
    row.link = (char *)"00112233445566778899aabbccddeeff";
    cr_assert(rows_share(out, &row.base));
}

static void share_peer(struct rows_shared *out)
{
    Meshd__V1__PeerServicesRow row = MESHD__V1__PEER_SERVICES_ROW__INIT;

    row.peer_ip = (char *)"192.0.2.10";
    row.peer_id = (char *)"n2";
    row.last_sync = 1234567890;
    row.connected = true;
    row.services_total = 300;
    cr_assert(rows_share(out, &row.base));
}

static struct rows_row row_of(const char *key, const char *backend, unsigned state)
{
    return (struct rows_row){.key = key,
                             .key_len = strlen(key),
                             .name_len = strcspn(key, "@"),
                             .backend = backend,
                             .backend_len = strlen(backend),
                             .healthy = state & 1,
                             .draining = state & 2};
}

static Meshd__V1__IntrospectReply *through(struct rows *rows)
{
    Meshd__V1__IntrospectReply reply = MESHD__V1__INTROSPECT_REPLY__INIT, *out;
    uint8_t *packed;
    size_t len;

    reply.peer_id = (char *)"n1";
    reply.revision = 7;
    rows_attach(rows, &reply);
    len = protobuf_c_message_get_packed_size(&reply.base);
    packed = malloc(len);
    cr_assert_eq(protobuf_c_message_pack(&reply.base, packed), len);
    out = meshd__v1__introspect_reply__unpack(NULL, len, packed);
    free(packed);
    cr_assert(out, "protobuf-c cannot read the reply");
    cr_expect_str_eq(out->peer_id, "n1");
    cr_expect_eq(out->revision, 7u);
    cr_expect_eq(out->base.n_unknown_fields, 0u);
    return out;
}

Test(rows, protobuf_reads_what_was_encoded_by_hand)
{
    struct rows rows = {.data = room, .cap = sizeof room};
    struct rows_shared service, peer;
    Meshd__V1__IntrospectReply *reply;
    struct rows_row row;
    char key[64], name[32], backend[32];
    size_t place;

    share_service(&service);
    share_peer(&peer);
    for (unsigned i = 0; i < 300; i++) {
        snprintf(key, sizeof key, "service-%u@192.0.2.10", i);
        snprintf(backend, sizeof backend, "10.0.0.1:%u", i + 1);
        row = row_of(key, backend, i % 4);
        cr_assert(rows_put_service(&rows, &service, &row));
    }
    cr_assert(rows_peer_begin(&rows, &peer, &place));
    for (unsigned i = 0; i < 300; i++) {
        snprintf(key, sizeof key, "service-%u@192.0.2.10", i);
        row = row_of(key, "b:1", i % 4);
        cr_assert(rows_put_info(&rows, &row));
    }
    rows_peer_end(&rows, &peer, place);
    reply = through(&rows);
    cr_assert_eq(reply->n_services, 300u);
    cr_assert_eq(reply->n_peer_services, 1u);
    cr_assert_eq(reply->peer_services[0]->n_services, 300u);
    for (unsigned i = 0; i < 300; i++) {
        snprintf(name, sizeof name, "service-%u", i);
        snprintf(key, sizeof key, "%s@192.0.2.10", name);
        snprintf(backend, sizeof backend, "10.0.0.1:%u", i + 1);
        cr_expect_str_eq(reply->services[i]->key, key);
        cr_expect_str_eq(reply->services[i]->name, name);
        cr_expect_str_eq(reply->services[i]->backend_addr, backend);
        cr_expect_str_eq(reply->services[i]->ip, "192.0.2.10");
        cr_expect_str_eq(reply->services[i]->peer_id, "n2");
        cr_expect_eq(reply->services[i]->last_seen, 1234567890u);
        cr_expect(reply->services[i]->connected && !reply->services[i]->stale);
        cr_expect_str_eq(reply->peer_services[0]->services[i]->name, name);
        cr_expect_str_eq(reply->peer_services[0]->services[i]->source_peer, "192.0.2.10");
        cr_expect_eq(reply->services[i]->healthy, i % 4 & 1);
        cr_expect_eq(reply->services[i]->draining, (i % 4 & 2) != 0);
        cr_expect_eq(reply->peer_services[0]->services[i]->healthy, i % 4 & 1);
        cr_expect_eq(reply->peer_services[0]->services[i]->draining, (i % 4 & 2) != 0);
    }
    cr_expect_eq(reply->peer_services[0]->services_total, 300u);
    cr_expect_str_eq(reply->peer_services[0]->peer_id, "n2");
    meshd__v1__introspect_reply__free_unpacked(reply, NULL);
}

Test(rows, a_peer_without_services_and_no_rows_at_all_are_fine)
{
    struct rows rows = {.data = room, .cap = sizeof room}, none = {.data = room, .cap = 0};
    struct rows_shared peer;
    Meshd__V1__IntrospectReply *reply;
    size_t place;

    share_peer(&peer);
    cr_assert(rows_peer_begin(&rows, &peer, &place));
    rows_peer_end(&rows, &peer, place);
    reply = through(&rows);
    cr_expect_eq(reply->n_peer_services, 1u);
    cr_expect_eq(reply->peer_services[0]->n_services, 0u);
    meshd__v1__introspect_reply__free_unpacked(reply, NULL);
    reply = through(&none);
    cr_expect_eq(reply->n_services + reply->n_peer_services, 0u);
    meshd__v1__introspect_reply__free_unpacked(reply, NULL);
}

/* Every size of room: rows fit whole or not at all, and the byte after the room stays. */
Test(rows, the_room_is_never_overrun)
{
    const struct rows_row row = row_of("a@192.0.2.10", "b:1", 3);
    struct rows_shared service, peer;

    share_service(&service);
    share_peer(&peer);
    for (size_t cap = 0; cap < 600; cap++) {
        struct rows rows = {.data = room, .cap = cap};
        size_t place;

        memset(room, 0xee, 700);
        while (rows_put_service(&rows, &service, &row))
            ;
        if (rows_peer_begin(&rows, &peer, &place)) {
            while (rows_put_info(&rows, &row))
                ;
            rows_peer_end(&rows, &peer, place);
        }
        cr_assert_leq(rows.len, cap);
        cr_assert_eq(room[cap], 0xee, "room of %zu bytes was overrun", cap);
        meshd__v1__introspect_reply__free_unpacked(through(&rows), NULL);
    }
}

Test(rows, an_event_encoded_by_hand_is_one_of_a_watch_reply)
{
    static const Meshd__V1__WatchKind kinds[] = {MESHD__V1__WATCH_KIND__WATCH_KIND_UP,
                                                 MESHD__V1__WATCH_KIND__WATCH_KIND_DOWN};
    const struct rows_row row = row_of("web@192.0.2.10", "10.0.0.1:80", 2);
    struct rows rows = {.data = room, .cap = sizeof room};
    struct rows_shared owner;
    Meshd__V1__WatchReply *reply;
    size_t whole;

    share_service(&owner);
    for (int i = 0; i < 2; i++)
        cr_assert(rows_put_event(&rows, &owner, kinds[i], i ? "left" : "", &row));
    whole = rows.len;
    for (rows.cap = whole; rows.cap < whole + whole / 2; rows.cap++)
        cr_assert_not(rows_put_event(&rows, &owner, kinds[0], "", &row));
    cr_assert_eq(rows.len, whole);
    reply = meshd__v1__watch_reply__unpack(NULL, rows.len, rows.data);
    cr_assert(reply, "protobuf-c cannot read the events");
    cr_assert_eq(reply->n_events, 2u);
    for (int i = 0; i < 2; i++) {
        const Meshd__V1__WatchEvent *event = reply->events[i];

        cr_expect_eq(event->kind, kinds[i]);
        cr_expect_str_eq(event->why, i ? "left" : "");
        cr_expect_str_eq(event->row->key, "web@192.0.2.10");
        cr_expect_str_eq(event->row->name, "web");
        cr_expect_str_eq(event->row->backend_addr, "10.0.0.1:80");
        cr_expect_str_eq(event->row->peer_id, "n2");
        cr_expect(event->row->connected && !event->row->healthy && event->row->draining);
    }
    meshd__v1__watch_reply__free_unpacked(reply, NULL);
}
