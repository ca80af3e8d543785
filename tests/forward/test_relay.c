/* relay: every byte, in order, both ways; who is slow; what it costs. */
#include <criterion/criterion.h>
#include <errno.h>
#include <malloc.h>
#include <poll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>
#include "relay_rig.h"
#include "segments.h"

#define MIB 1048576u

static struct rig rig;

static void setup(void) { rig_start(&rig, 600000, 300000); }
static void teardown(void) { rig_stop(&rig); }

TestSuite(forward_relay, .init = setup, .fini = teardown, .timeout = 100);

static uint64_t counted(const uint64_t *counter)
{
    return __atomic_load_n(counter, __ATOMIC_RELAXED);
}

/* Bulk to those sides passes without a copy. */
static void expect_spliced_to(bool backend, bool client)
{
    cr_expect_eq(counted(&rig.worker.count.spliced) > 0,
                 (backend && trust_splices_to("backend")) ||
                     (client && trust_splices_to("client")));
}

/* To the end of both, which is in order. */
static void finish(struct joined *joined, struct talk talks[2])
{
    cr_assert(pump(talks, 2, 0));
    cr_expect_eq(talks[0].received, talks[1].send);
    cr_expect_eq(talks[1].received, talks[0].send, "%zu of %zu", talks[1].received, talks[0].send);
    cr_expect(talks[0].eof && talks[1].eof);
    cr_assert(joined_ended(joined));
    cr_expect_eq(joined->end, FORWARD_DONE);
    cr_expect_eq(joined->up_bytes, talks[0].send);
    cr_expect_eq(joined->down_bytes, talks[1].send);
    joined_fini(joined);
}

static void exchange(struct joined *joined, size_t up, size_t down)
{
    struct talk talks[2];

    joined_talks(joined, up, down, talks);
    finish(joined, talks);
}

Test(forward_relay, much_both_ways_at_once_arrives_whole_without_copies)
{
    struct joined joined;

    joined_start(&joined, &rig, 0);
    cr_expect_eq(counted(&rig.worker.count.relayed), 1);
    exchange(&joined, 5 * MIB, 5 * MIB);
    cr_expect_eq(counted(&rig.worker.count.bytes_up), 5 * MIB);
    cr_expect_eq(counted(&rig.worker.count.bytes_down), 5 * MIB);
    expect_spliced_to(true, true);
    cr_expect_eq(counted(&rig.worker.count.relayed), 0);
}

Test(forward_relay, without_a_descriptor_for_a_pipe_bytes_are_copied)
{
    struct joined joined;
    struct rlimit limit;

    if (trust_wanted())
        cr_skip_test("there are no pipes then");
    joined_start(&joined, &rig, 0);
    getrlimit(RLIMIT_NOFILE, &limit);
    limit.rlim_cur = (rlim_t)joined.backend_leg + 1; /* the last one that was opened */
    setrlimit(RLIMIT_NOFILE, &limit);
    exchange(&joined, 5 * MIB, 5 * MIB);
    cr_expect_eq(counted(&rig.worker.count.spliced), 0);
    cr_expect_eq(counted(&rig.worker.count.pipes), 0);
}

Test(forward_relay, one_byte_at_a_time_passes_as_it_comes)
{
    struct joined joined;

    joined_start(&joined, &rig, 0);
    for (size_t i = 0; i < 2000; i++) {
        const int from = i % 2 ? joined.backend : joined.client;
        const int to = i % 2 ? joined.client : joined.backend;
        struct pollfd p = {.fd = to, .events = POLLIN};
        uint8_t byte = byte_at(7, i), got = (uint8_t)~byte;

        cr_assert_eq(send(from, &byte, 1, 0), 1);
        cr_assert_eq(poll(&p, 1, WAIT_MS), 1);
        cr_assert_eq(recv(to, &got, 1, 0), 1);
        cr_assert_eq(got, byte);
    }
    joined_fini(&joined);
    cr_expect_eq(counted(&rig.worker.count.bytes_up), 1000);
    cr_expect_eq(counted(&rig.worker.count.bytes_down), 1000);
}

Test(forward_relay, a_byte_marked_urgent_keeps_its_place_in_the_stream)
{
    struct joined joined;
    struct talk talks[2];
    uint8_t byte;

    if (trust_wanted_of("client"))
        cr_skip_test("TLS knows no urgent data");
    joined_start(&joined, &rig, 0);
    joined_talks(&joined, 2 * MIB, 0, talks); /* bulk by then */
    talks[0].keep_open = talks[1].keep_open = true;
    cr_assert(pump(talks, 2, 2 * MIB));
    byte = byte_at(talks[0].seed, talks[0].sent++);
    cr_assert_eq(send(joined.client, &byte, 1, MSG_OOB), 1);
    talks[0].send += 100;
    talks[0].keep_open = talks[1].keep_open = false;
    finish(&joined, talks);
}

Test(forward_relay, the_last_bytes_leave_in_one_segment_with_the_end)
{
    struct joined joined;
    struct pollfd ended;
    uint32_t before;
    char answer[8];

    if (trust_wanted_of("client"))
        cr_skip_test("of plaintext: a session holds nothing back");
    joined_init(&joined, &rig, 0);
    before = segments_in(joined.client);
    cr_assert_eq(send(joined.backend, "last", 4, 0), 4);
    shutdown(joined.backend, SHUT_WR);
    ended = (struct pollfd){.fd = joined.backend_leg, .events = POLLRDHUP};
    cr_assert_eq(poll(&ended, 1, WAIT_MS), 1);
    joined_begin(&joined);
    cr_assert(readable(joined.client));
    cr_expect_eq(recv(joined.client, answer, sizeof(answer), 0), 4);
    cr_assert(readable(joined.client));
    cr_expect_eq(recv(joined.client, answer, sizeof(answer), 0), 0);
    cr_expect_eq(segments_in(joined.client) - before, 1);
    joined_fini(&joined);
}

Test(forward_relay, bytes_handed_in_go_before_all_others)
{
    struct joined joined;
    struct talk talks[2];
    uint8_t *data = malloc(MIB);

    joined_init(&joined, &rig, 16384); /* more than the sockets take at once */
    joined_talks(&joined, MIB + 70000, 100000, talks);
    fill(data, MIB, talks[0].seed, 0);
    cr_assert(bytes_copy(&joined.up, data, MIB));
    talks[0].sent = MIB;
    fill(data, 1000, talks[1].seed, 0);
    cr_assert(bytes_copy(&joined.down, data, 1000));
    talks[1].sent = 1000;
    free(data);
    joined_begin(&joined);
    finish(&joined, talks);
}

/* What it does not take is not taken from the sender, but for what the sockets hold and one
 * buffer; and nothing spins meanwhile. */
static void slow_reader(struct talk talks[2], struct joined *joined, size_t most_taken)
{
    size_t before = heap_bytes();

    joined_talks(joined, 64 * MIB, 0, talks);
    cr_expect_lt(send_until_blocked(&talks[0], 300), most_taken);
    cr_expect_lt(heap_bytes(), before + 2 * SCRATCH_BYTES);
    cr_expect_lt(turns_in(&rig, joined->client, 300), 30);
    talks[0].send = talks[0].sent + 1000;
    finish(joined, talks);
}

Test(forward_relay, a_slow_reader_of_small_pieces_holds_its_sender_back)
{
    struct joined joined;
    struct talk talks[2];

    joined_start(&joined, &rig, 8192);
    slow_reader(talks, &joined, MIB);
    cr_expect_eq(counted(&rig.worker.count.spliced), 0);
}

Test(forward_relay, a_slow_reader_of_bulk_holds_its_sender_back)
{
    struct joined joined;
    struct talk talks[2];

    joined_start(&joined, &rig, 0);
    slow_reader(talks, &joined, 63 * MIB);
    expect_spliced_to(true, false);
}

Test(forward_relay, ends_that_wait_behind_what_is_held_cost_nothing_and_come_last)
{
    struct joined joined, other;
    struct talk talks[2];

    /* The client has ended and reads nothing; the backend is held back, and has ended, too. */
    joined_start(&joined, &rig, 8192);
    joined_talks(&joined, 0, 64 * MIB, talks);
    shutdown(joined.client, SHUT_WR);
    talks[0].shut = true;
    send_until_blocked(&talks[1], 300);
    talks[1].send = talks[1].sent;
    shutdown(joined.backend, SHUT_WR);
    talks[1].shut = true;
    joined_start(&other, &rig, 0);
    cr_expect_lt(turns_in(&rig, other.client, 300), 30);
    joined_fini(&other);
    finish(&joined, talks);
}

#ifndef __SANITIZE_ADDRESS__ /* mallinfo says nothing then */
/* With a session it costs what that does, of which nothing is the relay's. */
Test(forward_relay, an_idle_relay_costs_less_than_a_kibibyte)
{
    enum { N = 200 };
    static struct joined joined[N];
    size_t before;

    if (trust_wanted())
        cr_skip_test("a session's costs are not the relay's");
    for (size_t i = 0; i < N; i++)
        joined_init(&joined[i], &rig, 0);
    before = heap_bytes();
    for (size_t i = 0; i < N; i++)
        joined_begin(&joined[i]);
    cr_expect_lt(heap_bytes(), before + N * 1024, "%zu, %zu before", heap_bytes(), before);
    for (size_t i = 0; i < N; i++)
        joined_fini(&joined[i]);
}
#endif

static void forget_pipes(void *arg) { relay_worker_fini(&rig.worker); }

Test(forward_relay, many_relays_leave_no_descriptor_and_no_memory)
{
    const size_t n = trust_wanted() ? 300 : 1000; /* a handshake costs more than all else here */
    size_t before = 0, heap = 0;

    for (size_t i = 0; i < n; i++) {
        struct joined joined;

        if (i == 100) { /* what is made once is there */
            trust_unwrapped();
            before = open_descriptors();
            heap = heap_bytes();
        }
        joined_start(&joined, &rig, 0);
        exchange(&joined, i % 100 == 0 ? 2 * MIB : 1000, i % 70 == 0 ? 2 * MIB : 1000);
    }
    rig_do(&rig, forget_pipes, NULL);
    trust_unwrapped();
    cr_expect_leq(open_descriptors(), before);
    /* The threads of wrappers leave a little to malloc(3); a session has 10 KiB. */
    cr_expect_lt(heap_bytes(), heap + (trust_wanted() ? 262144 : 65536));
}

Test(forward_relay, any_schedule_of_many_streams_is_delivered)
{
    enum { N = 5 };
    /* Where a record is larger than a socket's buffers each waits for TCP's timers. */
    const int least = trust_wanted() ? 32768 : 4096;

    srand(test_seed());
    for (int round = 0; round < 20; round++) {
        struct joined joined[N];
        struct talk talks[2 * N];

        for (size_t i = 0; i < N; i++) {
            joined_start(&joined[i], &rig, rand() % 2 ? 0 : least << rand() % 6);
            joined_talks(&joined[i], (size_t)rand() % (rand() % 3 ? 20000 : 3 * MIB),
                         (size_t)rand() % (rand() % 3 ? 20000 : 3 * MIB), &talks[2 * i]);
            for (size_t k = 2 * i; k < 2 * i + 2; k++) {
                talks[k].chunk = rand() % 2 ? 0 : 100 + (size_t)rand() % 100000;
                talks[k].seed += i + 1000 * (uint64_t)round;
                talks[k].peer_seed += i + 1000 * (uint64_t)round;
            }
        }
        cr_assert(pump(talks, 2 * N, 0));
        for (size_t i = 0; i < N; i++)
            finish(&joined[i], &talks[2 * i]);
    }
}
