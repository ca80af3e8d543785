/* Tests of rpc/pair: messages that are merged while they wait, and storms of sessions. */
#include <criterion/criterion.h>
#include <errno.h>
#include <poll.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <meshd/v1/mesh.pb-c.h>
#include "rpc/canary.h"
#include "rpc/pair_ends.h"
#include "wire/frame.h"

TestSuite(pair_queue, .init = ends_setup, .fini = ends_teardown);

/* ---- merging ---- */

static int send_ids(enum rpc_urgency urgency, uint64_t session, uint32_t first, size_t n)
{
    Meshd__V1__LinkHeader header = MESHD__V1__LINK_HEADER__INIT;
    Meshd__V1__Cancel body = MESHD__V1__CANCEL__INIT;
    ProtobufCBinaryData *ids = calloc(n, sizeof(*ids));
    uint32_t *numbers = calloc(n, sizeof(*numbers));
    int r;

    header.kind = MESHD__V1__LINK_KIND__LINK_KIND_CANCEL;
    header.session_id.len = sizeof(session);
    header.session_id.data = (uint8_t *)&session;
    for (size_t i = 0; i < n; i++) {
        numbers[i] = first + (uint32_t)i;
        ids[i] = (ProtobufCBinaryData){.len = sizeof(*numbers), .data = (uint8_t *)&numbers[i]};
    }
    body.forward_ids = ids;
    body.n_forward_ids = n;
    r = rpc_pair_send(near_end.pair, urgency, &header.base, &body.base);
    free(numbers);
    free(ids);
    return r;
}

/* Reads one message of ids, which go on from *next. Returns how many; 0: it was another message. */
static size_t read_ids(int fd, uint64_t session, uint32_t *next)
{
    size_t len, n = 0;
    uint8_t *payload = fake_read(fd, &len);
    struct frame_parts parts;
    Meshd__V1__LinkHeader *header;
    Meshd__V1__Cancel *body;

    cr_assert(payload, "a message comes");
    cr_assert_eq(frame_split(payload + 4, len - 4, &parts), 0);
    header = meshd__v1__link_header__unpack(NULL, parts.header_len, parts.header);
    if (header->kind == MESHD__V1__LINK_KIND__LINK_KIND_CANCEL) {
        cr_assert_leq(len - 4, LIMIT_FORWARDS);
        cr_assert_arr_eq(header->session_id.data, &session, sizeof(session));
        body = meshd__v1__cancel__unpack(NULL, parts.body_len, parts.body);
        cr_assert(body);
        for (n = 0; n < body->n_forward_ids; n++, (*next)++) {
            cr_assert_eq(body->forward_ids[n].len, sizeof(*next));
            cr_assert_arr_eq(body->forward_ids[n].data, next, sizeof(*next));
        }
        meshd__v1__cancel__free_unpacked(body, NULL);
    }
    meshd__v1__link_header__free_unpacked(header, NULL);
    free(payload);
    return n;
}

/* One message fills the pipe, one nng's hands: when the third alone is left in the queue, what is
 * sent now waits behind it. */
static int join_and_block(void)
{
    struct rpc_pair_counters counters;
    int fd = ends_join();

    for (int i = 0; i < 3; i++)
        cr_assert_eq(ends_send(&near_end, RPC_BULK, 0, 0, 600000), 0);
    for (int i = 0; rpc_pair_counters(near_end.pair, &counters), counters.queued > 1; i++) {
        cr_assert_lt(i, 10000);
        poll(NULL, 0, 1);
    }
    cr_assert_eq(counters.queued, 1);
    return fd;
}

/* Passes over what blocked the pipe, up to the first message of ids; returns how many are in it. */
static size_t unblock(int fd, uint64_t *read, uint64_t session, uint32_t *next)
{
    size_t n = 0;

    for (*read = 0; n == 0; ++*read)
        n = read_ids(fd, session, next);
    return n;
}

Test(pair_queue, messages_that_may_be_merged_wait_as_one)
{
    struct rpc_pair_counters before, after;
    int fd = join_and_block();
    uint32_t next = 0;
    uint64_t read;

    rpc_pair_counters(near_end.pair, &before);
    for (uint32_t i = 0; i < 1000; i++)
        cr_assert_eq(send_ids(RPC_MERGE, 1, i, 1), 0);
    rpc_pair_counters(near_end.pair, &after);
    cr_expect_eq(after.queued, before.queued + 1);
    cr_expect_eq(after.merged, 999);
    cr_expect_eq(after.queued_bytes - before.queued_bytes, 1 + 12 + 1000 * 6);
    cr_expect_eq(unblock(fd, &read, 1, &next), 1000);
    while (rpc_pair_counters(near_end.pair, &after), after.queued > 0) {
        read_ids(fd, 0, &next);
        read++;
    }
    cr_expect_eq(after.queued_bytes, 0);
    ends_quiet(fd, read);
}

Test(pair_queue, only_neighbours_with_equal_headers_that_want_it_are_merged)
{
    struct rpc_pair_counters counters;
    int fd = join_and_block();
    uint32_t next = 0;
    uint64_t read;

    cr_assert_eq(send_ids(RPC_MERGE, 1, 0, 2), 0);
    cr_assert_eq(send_ids(RPC_URGENT, 1, 2, 1), 0); /* not to be merged itself, */
    cr_assert_eq(send_ids(RPC_MERGE, 1, 3, 1), 0);  /* ... nor with what follows */
    cr_assert_eq(send_ids(RPC_MERGE, 1, 4, 1), 0);
    cr_assert_eq(send_ids(RPC_MERGE, 2, 5, 1), 0); /* of another session */
    cr_assert_eq(send_ids(RPC_MERGE, 1, 6, 1), 0);
    cr_assert_eq(send_ids(RPC_BULK, 1, 8, 1), 0); /* in another queue */
    cr_assert_eq(send_ids(RPC_MERGE, 1, 7, 1), 0);
    rpc_pair_counters(near_end.pair, &counters);
    cr_expect_eq(counters.merged, 2);
    cr_expect_eq(unblock(fd, &read, 1, &next), 2);
    cr_expect_eq(read_ids(fd, 1, &next), 1);
    cr_expect_eq(read_ids(fd, 1, &next), 2);
    cr_expect_eq(read_ids(fd, 2, &next), 1);
    cr_expect_eq(read_ids(fd, 1, &next), 2);
    ends_quiet(fd, read + 4);
}

Test(pair_queue, merging_ends_where_a_message_would_be_too_long_or_the_queue_is_full)
{
    struct rpc_pair_counters counters;
    int fd = join_and_block(), r;
    uint32_t sent = 0, next = 0;
    uint64_t read = 0, messages = 0;

    while ((r = send_ids(RPC_MERGE, 1, sent, 1000)) == 0)
        sent += 1000;
    cr_expect_eq(r, -EAGAIN);
    rpc_pair_counters(near_end.pair, &counters);
    cr_expect_leq(counters.queued_bytes, QUEUE_BYTES);
    cr_expect_gt(counters.queued_bytes, QUEUE_BYTES - 2 * 6000);
    cr_expect_lt(counters.queued, 20);
    while (next < sent) {
        messages += read_ids(fd, 1, &next) > 0;
        read++;
    }
    rpc_pair_counters(near_end.pair, &counters);
    cr_expect_eq(messages + counters.merged, sent / 1000);
    cr_expect_gt(messages, 10);
    ends_quiet(fd, read);
}

/* ---- storms ---- */

struct source { /* a thread that sends as fast as it may, while a session is on */
    struct end *end;
    pthread_t thread;
    uint64_t session, seed;
    atomic_bool *stop;
};

static void *source_run(void *arg)
{
    static const uint32_t sizes[] = {600, 5000, 65536, 300000, 900000};
    struct source *s = arg;
    uint64_t number = 0, urgent = UINT64_C(1) << 32;

    while (!atomic_load(s->stop)) {
        uint32_t size = sizes[fake_random(&s->seed, 5)];
        int r;

        if (fake_random(&s->seed, 4) == 0)
            r = ends_send(s->end, RPC_URGENT, s->session, urgent++, 100);
        else
            r = ends_send(s->end, RPC_BULK, s->session, number++, size);
        if (r == -EPIPE)
            break;
        if (r == -EAGAIN)
            sched_yield();
    }
    return NULL;
}

static void storm_session(struct end *ends[2], uint64_t session, uint64_t *seed)
{
    atomic_bool stop = false;
    struct source sources[2];
    struct fake_relay relay;
    uint64_t sent[2];
    bool flush = fake_random(seed, 3) == 0;

    for (int i = 0; i < 2; i++) {
        ends[i]->session = session;
        ends[i]->next = 0;
    }
    cr_assert(fake_relay_join(&relay, fake_path(0), fake_path(1), SP_PAIR1, SP_PAIR1));
    for (int i = 0; i < 2; i++) {
        cr_assert(tally_wait(&ends[i]->ups, session));
        sources[i] = (struct source){.end = ends[i], .session = session, .stop = &stop};
        sources[i].seed = *seed + (uint64_t)i;
        cr_assert_eq(pthread_create(&sources[i].thread, NULL, source_run, &sources[i]), 0);
    }
    fake_relay_run(&relay, (int)fake_random(seed, 12));
    for (int i = 0; i < 2; i++)
        rpc_pair_quiet(ends[i]->pair, flush);
    if (flush)
        fake_relay_run(&relay, 3);
    /* The relay must go on for the sends under way to complete; here they wait up to 2 s without,
     * so it reads meanwhile. */
    while (tally_value(&ends[0]->quiets) < session || tally_value(&ends[1]->quiets) < session)
        fake_relay_run(&relay, 1);
    atomic_store(&stop, true);
    for (int i = 0; i < 2; i++) {
        cr_assert_eq(pthread_join(sources[i].thread, NULL), 0);
        sent[i] = ends[i]->sent;
    }
    cr_assert(fake_relay_end(&relay, sent, flush), "session %llu: nng did not close",
              (unsigned long long)session);
    for (int i = 0; i < 2; i++)
        cr_assert(tally_wait(&ends[i]->gones, session), "session %llu: pipe not removed",
                  (unsigned long long)session);
}

Test(pair_queue, storm_of_sessions_with_messages_in_flight_leaves_nng_healthy, .timeout = 0)
{
    uint64_t sessions = fake_sessions(300), seed = fake_seed();
    struct end *ends[2] = {&near_end, &far_end};
    struct rpc_pair_counters counters;

    alarm(0);
    ends_open(&far_end, 1);
    for (uint64_t i = 1; i <= sessions; i++) {
        storm_session(ends, i, &seed);
        if (i % 100 == 0)
            cr_assert_eq(canary_sing(), 0);
    }
    for (int i = 0; i < 2; i++) {
        rpc_pair_counters(ends[i]->pair, &counters);
        cr_assert_eq(counters.pipes_added, sessions);
        cr_assert_eq(counters.pipes_removed, sessions);
        cr_assert_eq(counters.queued, 0);
        cr_assert_eq(counters.queued_bytes, 0);
        cr_assert_not(ends[i]->disorder);
        fprintf(stderr, "sessions=%llu sent=%llu received=%llu dropped_old=%llu\n",
                (unsigned long long)sessions, (unsigned long long)counters.sent,
                (unsigned long long)counters.received, (unsigned long long)counters.dropped_old);
    }
    rpc_pair_close(far_end.pair);
}
