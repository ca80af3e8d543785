/* Tests of rpc/pair: order, urgency, limits, and the ends of sessions. */
#include <criterion/criterion.h>
#include <errno.h>
#include <poll.h>
#include <string.h>
#include <unistd.h>
#include <meshd/v1/mesh.pb-c.h>
#include "base/clock.h"
#include "rpc/held_expiry.h"
#include "rpc/pair_ends.h"
#include "wire/frame.h"

TestSuite(pair, .init = ends_setup, .fini = ends_teardown);

Test(pair, sends_in_order)
{
    int fd = ends_join();

    for (uint64_t i = 0; i < 100; i++)
        cr_assert_eq(ends_send(&near_end, RPC_BULK, 0, i, 1000), 0);
    for (uint64_t i = 0; i < 100; i++)
        cr_assert_eq(ends_read(fd), i);
    ends_quiet(fd, 100);
}

Test(pair, urgent_messages_overtake_the_others)
{
    int fd = ends_join();
    uint64_t bulk = 0, urgent = 0, first_urgent = 0;

    /* More than socket buffers hold, so that most of it waits here. */
    for (uint64_t i = 0; i < 6; i++)
        cr_assert_eq(ends_send(&near_end, RPC_BULK, 0, i, 600000), 0);
    for (uint64_t i = 0; i < 3; i++)
        cr_assert_eq(ends_send(&near_end, RPC_URGENT, 0, 1000 + i, 10), 0);
    for (uint64_t i = 0; i < 9; i++) {
        uint64_t n = ends_read(fd);

        if (n >= 1000) {
            first_urgent = urgent == 0 ? i : first_urgent;
            cr_assert_eq(n, 1000 + urgent++);
        } else {
            cr_assert_eq(n, bulk++);
        }
    }
    cr_assert(first_urgent <= 2, "one in the pipe, one handed to nng: then the urgent ones");
    ends_quiet(fd, 9);
}

Test(pair, without_a_session_nothing_is_sent)
{
    cr_assert_eq(ends_send(&near_end, RPC_BULK, 0, 0, 10), -EPIPE);
    rpc_pair_quiet(near_end.pair, true);
    cr_assert_eq(tally_value(&near_end.quiets), 1);
    cr_assert_eq(near_end.sent, 0);
}

Test(pair, message_too_big_is_refused)
{
    int fd = ends_join();

    cr_assert_eq(ends_send(&near_end, RPC_BULK, 0, 0, MESSAGE_BYTES), -EMSGSIZE);
    cr_assert_eq(ends_send(&near_end, RPC_BULK, 0, 1, MESSAGE_BYTES - 100), 0);
    cr_assert_eq(ends_read(fd), 1);
    ends_quiet(fd, 1);
}

Test(pair, full_queue_refuses_and_empties_again)
{
    int fd = ends_join(), r = 0;
    struct rpc_pair_counters counters;
    uint64_t n = 0;

    while ((r = ends_send(&near_end, RPC_BULK, 0, n, 500000)) == 0)
        cr_assert_lt(++n, 20);
    cr_assert_eq(r, -EAGAIN);
    rpc_pair_counters(near_end.pair, &counters);
    cr_assert_leq(counters.queued_bytes, QUEUE_BYTES);
    cr_assert_geq(counters.queued, 7);
    cr_assert_eq(counters.dropped_full, 1);
    for (uint64_t i = 0; i < n; i++)
        cr_assert_eq(ends_read(fd), i);
    cr_assert_eq(ends_send(&near_end, RPC_BULK, 0, n, 500000), 0);
    cr_assert_eq(ends_read(fd), n);
    rpc_pair_counters(near_end.pair, &counters);
    cr_assert_eq(counters.queued_bytes, 0);
    cr_assert_eq(counters.queued, 0);
    ends_quiet(fd, n + 1);
}

Test(pair, receives_in_order)
{
    int fd = ends_join();
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
    cr_assert(tally_wait(&near_end.messages, 100));
    ends_quiet(fd, 0);
    cr_assert_eq(tally_value(&near_end.messages), 100);
}

Test(pair, quiet_without_flush_throws_the_queue_away)
{
    int fd = ends_join();

    for (uint64_t i = 0; i < 6; i++)
        cr_assert_eq(ends_send(&near_end, RPC_BULK, 0, i, 600000), 0);
    rpc_pair_quiet(near_end.pair, false);
    cr_assert_eq(ends_send(&near_end, RPC_BULK, 0, 9, 10), -EPIPE);
    /* The send under way waits for the pipe: it completes once this reads, or is given up. */
    cr_assert_eq(ends_read(fd), 0);
    cr_assert(tally_wait(&near_end.quiets, 1));
    cr_assert_leq(near_end.sent, 2);
    cr_assert(fake_end(fd, near_end.sent - 1));
    cr_assert(tally_wait(&near_end.gones, 1));
}

Test(pair, quiet_with_flush_sends_what_is_queued)
{
    int fd = ends_join();

    for (uint64_t i = 0; i < 6; i++)
        cr_assert_eq(ends_send(&near_end, RPC_BULK, 0, i, 600000), 0);
    rpc_pair_quiet(near_end.pair, true);
    cr_assert_eq(ends_send(&near_end, RPC_URGENT, 0, 9, 10), -EPIPE);
    for (uint64_t i = 0; i < 6; i++)
        cr_assert_eq(ends_read(fd), i);
    cr_assert(tally_wait(&near_end.quiets, 1));
    cr_assert_eq(near_end.sent, 6);
    cr_assert(fake_end(fd, 0));
    cr_assert(tally_wait(&near_end.gones, 1));
}

Test(pair, flush_towards_a_reader_that_stalls_ends_after_two_seconds)
{
    int fd = ends_join();
    uint64_t begun = clock_ms();

    for (uint64_t i = 0; i < 6; i++)
        cr_assert_eq(ends_send(&near_end, RPC_BULK, 0, i, 600000), 0);
    rpc_pair_quiet(near_end.pair, true);
    cr_assert(tally_wait_ms(&near_end.quiets, 1, 4500));
    cr_assert_geq(clock_ms() - begun, 1900);
    cr_assert_eq(near_end.sent, 1, "the message in the pipe");
    cr_assert(fake_end(fd, near_end.sent));
    cr_assert(tally_wait(&near_end.gones, 1));
}

Test(pair, a_send_that_waits_longer_than_its_time_is_not_lost)
{
    int fd = ends_join();

    for (uint64_t i = 0; i < 4; i++)
        cr_assert_eq(ends_send(&near_end, RPC_BULK, 0, i, 900000), 0);
    /* Nothing is read for longer than one send may take (2 s). */
    cr_assert_not(tally_wait_ms(&near_end.gones, 1, 2500));
    for (uint64_t i = 0; i < 4; i++)
        cr_assert_eq(ends_read(fd), i);
    ends_quiet(fd, 4);
}

Test(pair, network_lost_in_mid_session_ends_it_too)
{
    struct rpc_pair_counters counters;
    int fd = ends_join();

    cr_assert(fake_end(fd, 0)); /* the gate alone: nothing is in flight */
    cr_assert(tally_wait(&near_end.gones, 1));
    cr_assert_eq(ends_send(&near_end, RPC_BULK, 0, 0, 10), -EPIPE);
    rpc_pair_quiet(near_end.pair, false);
    cr_assert_eq(tally_value(&near_end.quiets), 1);
    rpc_pair_counters(near_end.pair, &counters);
    cr_assert_eq(counters.pipes_added, 1);
    cr_assert_eq(counters.pipes_removed, 1);
}

Test(pair, a_message_that_arrives_last_is_delivered_before_gone)
{
    uint8_t payload[64] = {0, 0, 0, 1};
    Meshd__V1__LinkHeader header = MESHD__V1__LINK_HEADER__INIT;

    for (uint64_t i = 0; i < fake_sessions(300); i++) {
        uint64_t id[2] = {0, i};
        int fd = ends_join();

        header.session_id.len = sizeof(id);
        header.session_id.data = (uint8_t *)id;
        frame_pack(&header.base, NULL, payload + 4);
        cr_assert(fake_write(fd, payload, 4 + frame_size(&header.base, NULL)));
        cr_assert(fake_write(fd, payload, 4 + frame_size(&header.base, NULL)));
        cr_assert(fake_end(fd, 0));
        cr_assert(tally_wait(&near_end.gones, i + 1));
        cr_assert_eq(tally_value(&near_end.messages), 2 * (i + 1));
        near_end.next = 0;
        near_end.disorder = false; /* the same number twice */
    }
}

Test(pair, second_connection_is_refused_and_the_first_goes_on)
{
    int fd = ends_join(), second = fake_join(fake_path(0), SP_PAIR1);
    size_t len;

    cr_assert(second >= 0, "the negotiation comes first");
    cr_assert_null(fake_read(second, &len));
    close(second);
    cr_assert_eq(ends_send(&near_end, RPC_BULK, 0, 7, 10), 0);
    cr_assert_eq(ends_read(fd), 7);
    ends_quiet(fd, 1);
    cr_assert_eq(tally_value(&near_end.ups), 1);
    cr_assert_eq(tally_value(&near_end.gones), 1);
}

Test(pair, slow_reader_holds_gone_back)
{
    uint8_t payload[64] = {0, 0, 0, 1};
    Meshd__V1__LinkHeader header = MESHD__V1__LINK_HEADER__INIT;
    uint64_t id[2] = {0, 0};
    int fd = ends_join();

    header.session_id.len = sizeof(id);
    header.session_id.data = (uint8_t *)id;
    frame_pack(&header.base, NULL, payload + 4);
    pthread_mutex_lock(&near_end.hold);
    cr_assert(fake_write(fd, payload, 4 + frame_size(&header.base, NULL)));
    cr_assert(fake_end(fd, 0));
    cr_assert_not(tally_wait_ms(&near_end.gones, 1, 100));
    pthread_mutex_unlock(&near_end.hold);
    cr_assert(tally_wait(&near_end.gones, 1));
    cr_assert_eq(tally_value(&near_end.messages), 1);
}

/* A message is taken when it is about to time out, and nng's thread for that stands still: until
 * the next one waits to be taken. */
Test(pair, time_out_of_a_message_that_was_taken_in_its_last_moment_loses_no_other)
{
    struct rpc_pair_counters counters;
    int fd = ends_join();

    held_expiry_arm();
    for (uint64_t i = 1; i <= 3; i++)
        cr_assert_eq(ends_send(&near_end, RPC_BULK, 1, i, 600000), 0);
    held_expiry_wait();
    cr_assert_eq(ends_read(fd), 1);
    for (int i = 0; rpc_pair_counters(near_end.pair, &counters), counters.queued > 0; i++) {
        cr_assert_lt(i, 10000);
        poll(NULL, 0, 1);
    }
    held_expiry_release();
    for (uint64_t i = 2; i <= 3; i++)
        cr_assert_eq(ends_read(fd), i);
    ends_quiet(fd, 3);
}
