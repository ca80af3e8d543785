/* Forwards that leave together. The worker stands still while the test does what it would. */
#include <criterion/criterion.h>
#include "base/random.h"
#include "forward/must.h"
#include "forward/outbox.h"
#include "forward/peer.h"

static struct rig rig;
static struct peer peer;
static struct forward *forward;
static struct session *session;

struct item {
    struct outbox_item out;
    uint8_t id[FORWARD_ID_LEN];
    atomic_int filled, failed;
    size_t n_first;
};
static struct item items[200];
static uint8_t first[LIMIT_FIRST_BYTES];

static void fill(struct outbox_item *out, Meshd__V1__Forward *message)
{
    struct item *item = CONTAINER_OF(out, struct item, out);

    atomic_fetch_add(&item->filled, 1);
    message->forward_id = (ProtobufCBinaryData){.len = FORWARD_ID_LEN, .data = item->id};
    message->name = (char *)"web";
    message->first_bytes = (ProtobufCBinaryData){.len = item->n_first, .data = first};
}

static void failed(struct outbox_item *out, int error)
{
    atomic_store(&CONTAINER_OF(out, struct item, out)->failed, error);
}

static void setup(void)
{
    rig_init(&rig);
    rig.settings.workers = 1;
    rig_start(&rig);
    forward = rig.sides[DIALLER].forward;
    peer_init(&peer, &rig, "a", 100, false);
    peer_up(&peer);
    session = session_by_link(forward, peer.link, peer.session_id);
    for (size_t i = 0; i < sizeof items / sizeof *items; i++) {
        items[i].out.fill = fill;
        items[i].out.failed = failed;
        ring_init(&items[i].out.ring);
    }
}

TestSuite(outbox, .init = setup, .timeout = 60);

static void end(void)
{
    peer_down(&peer);
    rig_settle(forward);
    session_unref(session);
    peer_fini(&peer);
    rig_end(&rig);
}

static void add(size_t n)
{
    for (size_t i = 0; i < n; i++)
        outbox_add(&forward->workers[0], session, &items[i].out);
}

static int sent_messages(void)
{
    return atomic_load(&rig.sent[MESHD__V1__LINK_KIND__LINK_KIND_FORWARDS]);
}

static void add_and_flush(size_t n)
{
    struct stall *stall = stall_begin(forward, 0);

    add(n);
    stall_end(stall);
    rig_settle(forward);
    stall_end(stall_begin(forward, 0)); /* the turn is over */
}

Test(outbox, what_one_turn_brings_leaves_in_one_message)
{
    add_and_flush(64);
    cr_assert_eq(sent_messages(), 1);
    cr_assert_eq(atomic_load(&rig.sent_forwards), 64);
    end();
}

Test(outbox, what_is_too_much_for_one_message_leaves_in_several)
{
    add_and_flush(200);
    cr_assert_eq(sent_messages(), 4);
    cr_assert_eq(atomic_load(&rig.sent_forwards), 200);
    for (size_t i = 0; i < 200; i++)
        cr_assert_eq(items[i].filled, 1);
    end();
}

Test(outbox, no_message_is_larger_than_it_may_be)
{
    for (size_t i = 0; i < 100; i++)
        items[i].n_first = sizeof first;
    add_and_flush(100);
    cr_assert_eq(atomic_load(&rig.sent_forwards), 100);
    cr_assert_leq(atomic_load(&rig.largest), LIMIT_FORWARDS);
    cr_assert_geq(atomic_load(&rig.largest), LIMIT_FORWARDS / 2);
    end();
}

Test(outbox, one_that_is_removed_makes_room_for_another)
{
    struct stall *stall = stall_begin(forward, 0);

    add(1);
    outbox_remove(&items[0].out);
    outbox_remove(&items[0].out);
    outbox_add(&forward->workers[0], session, &items[1].out);
    outbox_remove(&items[1].out);
    outbox_add(&forward->workers[0], session, &items[1].out);
    stall_end(stall);
    rig_settle(forward);
    stall_end(stall_begin(forward, 0));
    cr_assert_eq(items[0].filled, 0);
    cr_assert_eq(items[1].filled, 1);
    cr_assert_eq(sent_messages(), 1);
    end();
}

Test(outbox, nothing_is_sent_for_those_that_were_removed)
{
    struct stall *stall = stall_begin(forward, 0);

    add(2);
    outbox_remove(&items[0].out);
    outbox_remove(&items[1].out);
    stall_end(stall);
    rig_settle(forward);
    cr_assert_eq(sent_messages(), 0);
    end();
}

/* Two in a moment, of which the clock of the loop notices nothing: how many messages? */
static int sent_in_a_moment(size_t pending, uint64_t open_us)
{
    struct worker *worker = &forward->workers[0];
    struct stall *stall = stall_begin(forward, 0);
    int n;

    atomic_fetch_add(&session->pending, pending);
    for (int i = 0; i < 100; i++)
        outbox_opened(worker, session, open_us);
    for (size_t i = 0; i < 2; i++) {
        outbox_add(worker, session, &items[i].out);
        outboxes_flush(worker);
    }
    n = sent_messages();
    atomic_fetch_sub(&session->pending, pending);
    stall_end(stall);
    rig_settle(forward);
    stall_end(stall_begin(forward, 0));
    cr_assert_eq(atomic_load(&rig.sent_forwards), 2);
    return n;
}

Test(outbox, of_many_the_later_ones_wait_for_others)
{
    cr_assert_eq(sent_in_a_moment(5, 10000), 1);
    end();
}

Test(outbox, a_few_do_not_wait)
{
    cr_assert_eq(sent_in_a_moment(4, 10000), 2);
    end();
}

Test(outbox, many_that_are_quick_do_not_wait)
{
    cr_assert_eq(sent_in_a_moment(5, 500), 2);
    end();
}

static void fails_with(int error)
{
    atomic_store(&rig.refuse, error);
    add_and_flush(100);
    for (size_t i = 0; i < 100; i++)
        cr_assert_eq(items[i].failed, error);
    end();
}

Test(outbox, a_full_queue_is_told_to_each) { fails_with(-EAGAIN); }

Test(outbox, a_session_that_is_over_is_told_to_each) { fails_with(-EPIPE); }

Test(outbox, what_waits_fails_when_the_session_ends)
{
    struct stall *stall = stall_begin(forward, 0);

    peer_down(&peer);
    add(3);
    stall_end(stall);
    rig_settle(forward);
    for (size_t i = 0; i < 3; i++)
        cr_assert_eq(items[i].failed, -EPIPE);
    cr_assert_eq(sent_messages(), 0);
    end();
}
