/* Tests of rpc/pair: order, urgency, limits, the ends of sessions, and many of them. */
#include "forward/must.h"
#include "rpc/pair.h"
#include <criterion/criterion.h>
#include <poll.h>
#include <errno.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <meshd/v1/mesh.pb-c.h>
#include "base/clock.h"
#include "rpc/canary.h"
#include "rpc/fake_gate.h"
#include "wire/frame.h"

#define MESSAGE_BYTES 1048576u
#define QUEUE_BYTES (4u << 20)

struct end { /* one pair and what it told */
    struct rpc_pair *pair;
    struct tally ups, messages, quiets, gones;
    uint64_t sent;          /* of the last quiet */
    uint64_t session, next; /* numbers expected of what arrives */
    bool disorder;
    pthread_mutex_t hold; /* `message` waits for it: a slow reader */
};

static void on_up(void *ctx)
{
    struct end *end = ctx;

    if (tally_value(&end->gones) != tally_value(&end->ups))
        end->disorder = true;
    tally_add(&end->ups, 1);
}

/* A test message's number is in its header's session id. */
static void on_message(void *ctx, struct rpc_msg *msg)
{
    struct end *end = ctx;
    struct frame_parts parts;
    Meshd__V1__LinkHeader *header;
    uint64_t id[2];

    pthread_mutex_lock(&end->hold);
    pthread_mutex_unlock(&end->hold);
    if (frame_split(rpc_msg_data(msg), rpc_msg_len(msg), &parts) < 0) {
        end->disorder = true;
    } else {
        header = meshd__v1__link_header__unpack(NULL, parts.header_len, parts.header);
        memcpy(id, header->session_id.data, sizeof(id));
        /* Urgent ones are numbered from 2^32 on, and are in no order with the others. */
        if (id[0] != end->session || (id[1] < UINT32_MAX && id[1] < end->next) ||
            tally_value(&end->ups) == tally_value(&end->gones))
            end->disorder = true;
        if (id[1] < UINT32_MAX)
            end->next = id[1] + 1;
        meshd__v1__link_header__free_unpacked(header, NULL);
    }
    rpc_msg_free(msg);
    tally_add(&end->messages, 1);
}

static void on_quiet(void *ctx, uint64_t sent)
{
    struct end *end = ctx;

    end->sent = sent;
    tally_add(&end->quiets, 1);
}

static void on_gone(void *ctx)
{
    struct end *end = ctx;

    tally_add(&end->gones, 1);
}

static void end_open(struct end *end, unsigned slot)
{
    const struct rpc_pair_settings settings = {.path = fake_path(slot),
                                               .message_bytes = MESSAGE_BYTES,
                                               .queue_bytes = QUEUE_BYTES,
                                               .ctx = end,
                                               .up = on_up,
                                               .message = on_message,
                                               .quiet = on_quiet,
                                               .gone = on_gone};

    *end = (struct end){.ups = TALLY_INIT, .messages = TALLY_INIT, .quiets = TALLY_INIT};
    end->gones = (struct tally)TALLY_INIT;
    pthread_mutex_init(&end->hold, NULL);
    cr_assert_eq(rpc_pair_open(&settings, &end->pair), 0);
}

static int send_numbered(struct end *end, enum rpc_urgency urgency, uint64_t session,
                         uint64_t number, size_t size)
{
    Meshd__V1__LinkHeader header = MESHD__V1__LINK_HEADER__INIT;
    Meshd__V1__Goodbye body = MESHD__V1__GOODBYE__INIT;
    uint64_t id[2] = {session, number};
    int r;

    header.kind = MESHD__V1__LINK_KIND__LINK_KIND_GOODBYE;
    header.session_id.len = sizeof(id);
    header.session_id.data = (uint8_t *)id;
    body.text = malloc(size + 1);
    memset(body.text, 'x', size);
    body.text[size] = '\0';
    r = rpc_pair_send(end->pair, urgency, &header.base, &body.base);
    free(body.text);
    return r;
}

/* What the other end of the wire reads: the number of the next message. */
static uint64_t read_number(int fd)
{
    size_t len;
    uint8_t *payload = fake_read(fd, &len);
    struct frame_parts parts;
    Meshd__V1__LinkHeader *header;
    uint64_t id[2];

    cr_assert(payload, "a message comes");
    cr_assert_eq(frame_split(payload + 4, len - 4, &parts), 0); /* after the hop word */
    header = meshd__v1__link_header__unpack(NULL, parts.header_len, parts.header);
    memcpy(id, header->session_id.data, sizeof(id));
    meshd__v1__link_header__free_unpacked(header, NULL);
    free(payload);
    return id[1];
}

static struct end a, b;

static void setup(void)
{
    alarm(100);
    end_open(&a, 0);
}

static void teardown(void)
{
    rpc_pair_close(a.pair);
    MUST(!a.disorder);
    MUST(canary_sing() == 0);
}

static int join(void)
{
    uint64_t ups = tally_value(&a.ups);
    int fd = fake_join(fake_path(0), SP_PAIR1);

    cr_assert(fd >= 0);
    cr_assert(tally_wait(&a.ups, ups + 1));
    return fd;
}

static void quiet_and_end(int fd, uint64_t already_read)
{
    uint64_t quiets = tally_value(&a.quiets), gones = tally_value(&a.gones);

    rpc_pair_quiet(a.pair, false);
    cr_assert(tally_wait(&a.quiets, quiets + 1));
    cr_assert(a.sent >= already_read);
    cr_assert(fake_end(fd, a.sent - already_read));
    cr_assert(tally_wait(&a.gones, gones + 1));
}

TestSuite(pair, .init = setup, .fini = teardown);

Test(pair, sends_in_order)
{
    int fd = join();

    for (uint64_t i = 0; i < 100; i++)
        cr_assert_eq(send_numbered(&a, RPC_BULK, 0, i, 1000), 0);
    for (uint64_t i = 0; i < 100; i++)
        cr_assert_eq(read_number(fd), i);
    quiet_and_end(fd, 100);
}

Test(pair, urgent_messages_overtake_the_others)
{
    int fd = join();
    uint64_t bulk = 0, urgent = 0, first_urgent = 0;

    /* More than socket buffers hold, so that most of it waits here. */
    for (uint64_t i = 0; i < 6; i++)
        cr_assert_eq(send_numbered(&a, RPC_BULK, 0, i, 600000), 0);
    for (uint64_t i = 0; i < 3; i++)
        cr_assert_eq(send_numbered(&a, RPC_URGENT, 0, 1000 + i, 10), 0);
    for (uint64_t i = 0; i < 9; i++) {
        uint64_t n = read_number(fd);

        if (n >= 1000) {
            first_urgent = urgent == 0 ? i : first_urgent;
            cr_assert_eq(n, 1000 + urgent++);
        } else {
            cr_assert_eq(n, bulk++);
        }
    }
    cr_assert(first_urgent <= 2, "one in the pipe, one handed to nng: then the urgent ones");
    quiet_and_end(fd, 9);
}

Test(pair, without_a_session_nothing_is_sent)
{
    cr_assert_eq(send_numbered(&a, RPC_BULK, 0, 0, 10), -EPIPE);
    rpc_pair_quiet(a.pair, true);
    cr_assert_eq(tally_value(&a.quiets), 1);
    cr_assert_eq(a.sent, 0);
}

Test(pair, message_too_big_is_refused)
{
    int fd = join();

    cr_assert_eq(send_numbered(&a, RPC_BULK, 0, 0, MESSAGE_BYTES), -EMSGSIZE);
    cr_assert_eq(send_numbered(&a, RPC_BULK, 0, 1, MESSAGE_BYTES - 100), 0);
    cr_assert_eq(read_number(fd), 1);
    quiet_and_end(fd, 1);
}

Test(pair, full_queue_refuses_and_empties_again)
{
    int fd = join(), r = 0;
    struct rpc_pair_counters counters;
    uint64_t n = 0;

    while ((r = send_numbered(&a, RPC_BULK, 0, n, 500000)) == 0)
        cr_assert_lt(++n, 20);
    cr_assert_eq(r, -EAGAIN);
    rpc_pair_counters(a.pair, &counters);
    cr_assert_leq(counters.queued_bytes, QUEUE_BYTES);
    cr_assert_geq(counters.queued, 7);
    cr_assert_eq(counters.dropped_full, 1);
    for (uint64_t i = 0; i < n; i++)
        cr_assert_eq(read_number(fd), i);
    cr_assert_eq(send_numbered(&a, RPC_BULK, 0, n, 500000), 0);
    cr_assert_eq(read_number(fd), n);
    rpc_pair_counters(a.pair, &counters);
    cr_assert_eq(counters.queued_bytes, 0);
    cr_assert_eq(counters.queued, 0);
    quiet_and_end(fd, n + 1);
}

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
    r = rpc_pair_send(a.pair, urgency, &header.base, &body.base);
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
    int fd = join();

    for (int i = 0; i < 3; i++)
        cr_assert_eq(send_numbered(&a, RPC_BULK, 0, 0, 600000), 0);
    for (int i = 0; rpc_pair_counters(a.pair, &counters), counters.queued > 1; i++) {
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

Test(pair, messages_that_may_be_merged_wait_as_one)
{
    struct rpc_pair_counters before, after;
    int fd = join_and_block();
    uint32_t next = 0;
    uint64_t read;

    rpc_pair_counters(a.pair, &before);
    for (uint32_t i = 0; i < 1000; i++)
        cr_assert_eq(send_ids(RPC_MERGE, 1, i, 1), 0);
    rpc_pair_counters(a.pair, &after);
    cr_expect_eq(after.queued, before.queued + 1);
    cr_expect_eq(after.merged, 999);
    cr_expect_eq(after.queued_bytes - before.queued_bytes, 1 + 12 + 1000 * 6);
    cr_expect_eq(unblock(fd, &read, 1, &next), 1000);
    while (rpc_pair_counters(a.pair, &after), after.queued > 0) {
        read_ids(fd, 0, &next);
        read++;
    }
    cr_expect_eq(after.queued_bytes, 0);
    quiet_and_end(fd, read);
}

Test(pair, only_neighbours_with_equal_headers_that_want_it_are_merged)
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
    rpc_pair_counters(a.pair, &counters);
    cr_expect_eq(counters.merged, 2);
    cr_expect_eq(unblock(fd, &read, 1, &next), 2);
    cr_expect_eq(read_ids(fd, 1, &next), 1);
    cr_expect_eq(read_ids(fd, 1, &next), 2);
    cr_expect_eq(read_ids(fd, 2, &next), 1);
    cr_expect_eq(read_ids(fd, 1, &next), 2);
    quiet_and_end(fd, read + 4);
}

Test(pair, merging_ends_where_a_message_would_be_too_long_or_the_queue_is_full)
{
    struct rpc_pair_counters counters;
    int fd = join_and_block(), r;
    uint32_t sent = 0, next = 0;
    uint64_t read = 0, messages = 0;

    while ((r = send_ids(RPC_MERGE, 1, sent, 1000)) == 0)
        sent += 1000;
    cr_expect_eq(r, -EAGAIN);
    rpc_pair_counters(a.pair, &counters);
    cr_expect_leq(counters.queued_bytes, QUEUE_BYTES);
    cr_expect_gt(counters.queued_bytes, QUEUE_BYTES - 2 * 6000);
    cr_expect_lt(counters.queued, 20);
    while (next < sent) {
        messages += read_ids(fd, 1, &next) > 0;
        read++;
    }
    rpc_pair_counters(a.pair, &counters);
    cr_expect_eq(messages + counters.merged, sent / 1000);
    cr_expect_gt(messages, 10);
    quiet_and_end(fd, read);
}

Test(pair, receives_in_order)
{
    int fd = join();
    uint8_t payload[64];
    Meshd__V1__LinkHeader header = MESHD__V1__LINK_HEADER__INIT;

    for (uint64_t i = 0; i < 100; i++) {
        uint64_t id[2] = {0, i};

        header.session_id.len = sizeof(id);
        header.session_id.data = (uint8_t *)id;
        memset(payload, 0, 4);
        payload[3] = 1;
        frame_pack(&header.base, NULL, payload + 4);
        cr_assert(fake_write(fd, payload, 4 + frame_size(&header.base, NULL)));
    }
    cr_assert(tally_wait(&a.messages, 100));
    quiet_and_end(fd, 0);
    cr_assert_eq(tally_value(&a.messages), 100);
}

Test(pair, quiet_without_flush_throws_the_queue_away)
{
    int fd = join();

    for (uint64_t i = 0; i < 6; i++)
        cr_assert_eq(send_numbered(&a, RPC_BULK, 0, i, 600000), 0);
    rpc_pair_quiet(a.pair, false);
    cr_assert_eq(send_numbered(&a, RPC_BULK, 0, 9, 10), -EPIPE);
    /* The send under way waits for the pipe: it completes once this reads, or is given up. */
    cr_assert_eq(read_number(fd), 0);
    cr_assert(tally_wait(&a.quiets, 1));
    cr_assert_leq(a.sent, 2);
    cr_assert(fake_end(fd, a.sent - 1));
    cr_assert(tally_wait(&a.gones, 1));
}

Test(pair, quiet_with_flush_sends_what_is_queued)
{
    int fd = join();

    for (uint64_t i = 0; i < 6; i++)
        cr_assert_eq(send_numbered(&a, RPC_BULK, 0, i, 600000), 0);
    rpc_pair_quiet(a.pair, true);
    cr_assert_eq(send_numbered(&a, RPC_URGENT, 0, 9, 10), -EPIPE);
    for (uint64_t i = 0; i < 6; i++)
        cr_assert_eq(read_number(fd), i);
    cr_assert(tally_wait(&a.quiets, 1));
    cr_assert_eq(a.sent, 6);
    cr_assert(fake_end(fd, 0));
    cr_assert(tally_wait(&a.gones, 1));
}

Test(pair, flush_towards_a_reader_that_stalls_ends_after_two_seconds)
{
    int fd = join();
    uint64_t begun = clock_ms();

    for (uint64_t i = 0; i < 6; i++)
        cr_assert_eq(send_numbered(&a, RPC_BULK, 0, i, 600000), 0);
    rpc_pair_quiet(a.pair, true);
    cr_assert(tally_wait_ms(&a.quiets, 1, 4500));
    cr_assert_geq(clock_ms() - begun, 1900);
    cr_assert_eq(a.sent, 1, "the message in the pipe");
    cr_assert(fake_end(fd, a.sent));
    cr_assert(tally_wait(&a.gones, 1));
}

Test(pair, a_send_that_waits_longer_than_its_time_is_not_lost)
{
    int fd = join();

    for (uint64_t i = 0; i < 4; i++)
        cr_assert_eq(send_numbered(&a, RPC_BULK, 0, i, 900000), 0);
    /* Nothing is read for longer than one send may take (2 s). */
    cr_assert_not(tally_wait_ms(&a.gones, 1, 2500));
    for (uint64_t i = 0; i < 4; i++)
        cr_assert_eq(read_number(fd), i);
    quiet_and_end(fd, 4);
}

Test(pair, network_lost_in_mid_session_ends_it_too)
{
    struct rpc_pair_counters counters;
    int fd = join();

    cr_assert(fake_end(fd, 0)); /* the gate alone: nothing is in flight */
    cr_assert(tally_wait(&a.gones, 1));
    cr_assert_eq(send_numbered(&a, RPC_BULK, 0, 0, 10), -EPIPE);
    rpc_pair_quiet(a.pair, false);
    cr_assert_eq(tally_value(&a.quiets), 1);
    rpc_pair_counters(a.pair, &counters);
    cr_assert_eq(counters.pipes_added, 1);
    cr_assert_eq(counters.pipes_removed, 1);
}

Test(pair, a_message_that_arrives_last_is_delivered_before_gone)
{
    uint8_t payload[64] = {0, 0, 0, 1};
    Meshd__V1__LinkHeader header = MESHD__V1__LINK_HEADER__INIT;

    for (uint64_t i = 0; i < fake_sessions(300); i++) {
        uint64_t id[2] = {0, i};
        int fd = join();

        header.session_id.len = sizeof(id);
        header.session_id.data = (uint8_t *)id;
        frame_pack(&header.base, NULL, payload + 4);
        cr_assert(fake_write(fd, payload, 4 + frame_size(&header.base, NULL)));
        cr_assert(fake_write(fd, payload, 4 + frame_size(&header.base, NULL)));
        cr_assert(fake_end(fd, 0));
        cr_assert(tally_wait(&a.gones, i + 1));
        cr_assert_eq(tally_value(&a.messages), 2 * (i + 1));
        a.next = 0;
        a.disorder = false; /* the same number twice */
    }
}

Test(pair, second_connection_is_refused_and_the_first_goes_on)
{
    int fd = join(), second = fake_join(fake_path(0), SP_PAIR1);
    size_t len;

    cr_assert(second >= 0, "the negotiation comes first");
    cr_assert_null(fake_read(second, &len));
    close(second);
    cr_assert_eq(send_numbered(&a, RPC_BULK, 0, 7, 10), 0);
    cr_assert_eq(read_number(fd), 7);
    quiet_and_end(fd, 1);
    cr_assert_eq(tally_value(&a.ups), 1);
    cr_assert_eq(tally_value(&a.gones), 1);
}

Test(pair, slow_reader_holds_gone_back)
{
    uint8_t payload[64] = {0, 0, 0, 1};
    Meshd__V1__LinkHeader header = MESHD__V1__LINK_HEADER__INIT;
    uint64_t id[2] = {0, 0};
    int fd = join();

    header.session_id.len = sizeof(id);
    header.session_id.data = (uint8_t *)id;
    frame_pack(&header.base, NULL, payload + 4);
    pthread_mutex_lock(&a.hold);
    cr_assert(fake_write(fd, payload, 4 + frame_size(&header.base, NULL)));
    cr_assert(fake_end(fd, 0));
    cr_assert_not(tally_wait_ms(&a.gones, 1, 100));
    pthread_mutex_unlock(&a.hold);
    cr_assert(tally_wait(&a.gones, 1));
    cr_assert_eq(tally_value(&a.messages), 1);
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
            r = send_numbered(s->end, RPC_URGENT, s->session, urgent++, 100);
        else
            r = send_numbered(s->end, RPC_BULK, s->session, number++, size);
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

Test(pair, storm_of_sessions_with_messages_in_flight_leaves_nng_healthy, .timeout = 0)
{
    uint64_t sessions = fake_sessions(300), seed = fake_seed();
    struct end *ends[2] = {&a, &b};
    struct rpc_pair_counters counters;

    alarm(0);
    end_open(&b, 1);
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
    rpc_pair_close(b.pair);
}
