/* outbox - Forwards wait for the end of the turn, or for others. */
#include "forward/outbox.h"

#include <errno.h>

#define AT_ONCE 64u /* Forwards in one message */
#define FEW 4u      /* pending ones: they are not waited for */
#define PAUSE_MS 3u /* at most, between two messages */
#define ITEM_EXTRA 512u

struct outbox {
    struct session *session;
    struct ring items;
    struct ring due; /* worker->outboxes, since something was put in */
    uint64_t sent_ms;
    int64_t open_us; /* until one is joined, smoothed */
};

int outboxes_new(struct session *session)
{
    unsigned n = session->forward->n_workers;

    session->outboxes = calloc(n, sizeof(*session->outboxes));
    if (!session->outboxes)
        return -ENOMEM;
    for (unsigned i = 0; i < n; i++) {
        session->outboxes[i].session = session;
        ring_init(&session->outboxes[i].items);
        ring_init(&session->outboxes[i].due);
    }
    return 0;
}

void outboxes_free(struct session *session) { free(session->outboxes); }

void outbox_add(struct worker *worker, struct session *session, struct outbox_item *item)
{
    struct outbox *outbox = &session->outboxes[worker->index];

    if (ring_empty(&outbox->due)) /* it is due still if what was in it was removed */
        ring_push(&worker->outboxes, &outbox->due);
    ring_push(&outbox->items, &item->ring);
}

void outbox_remove(struct outbox_item *item) { ring_drop(&item->ring); }

static void fail_all(struct ring *items, int error)
{
    while (!ring_empty(items)) {
        struct outbox_item *item = CONTAINER_OF(items->next, struct outbox_item, ring);

        ring_drop(&item->ring);
        item->failed(item, error);
    }
}

/* One message; the rest stays. */
static void send_some(struct outbox *outbox)
{
    Meshd__V1__Forward room[AT_ONCE], *list[AT_ONCE];
    Meshd__V1__Forwards forwards = MESHD__V1__FORWARDS__INIT;
    struct ring sent;
    size_t bytes = 0;
    int r;

    ring_init(&sent);
    forwards.forwards = list;
    while (!ring_empty(&outbox->items) && forwards.n_forwards < AT_ONCE &&
           bytes + LIMIT_FIRST_BYTES + ITEM_EXTRA <= LIMIT_FORWARDS) {
        struct outbox_item *item = CONTAINER_OF(outbox->items.next, struct outbox_item, ring);
        Meshd__V1__Forward *forward = &room[forwards.n_forwards];

        ring_drop(&item->ring);
        ring_push(&sent, &item->ring);
        meshd__v1__forward__init(forward);
        item->fill(item, forward);
        bytes += forward->first_bytes.len + ITEM_EXTRA;
        list[forwards.n_forwards++] = forward;
    }
    r = session_send(outbox->session, MESHD__V1__LINK_KIND__LINK_KIND_FORWARDS, &forwards.base);
    if (r < 0) {
        fail_all(&sent, r);
        return;
    }
    while (!ring_empty(&sent))
        ring_drop(sent.next);
}

void outbox_session_over(struct worker *worker, struct session *session)
{
    struct outbox *outbox = &session->outboxes[worker->index];

    fail_all(&outbox->items, -EPIPE);
    ring_drop(&outbox->due);
}

void outbox_opened(struct worker *worker, struct session *session, uint64_t us)
{
    struct outbox *outbox = &session->outboxes[worker->index];

    outbox->open_us += ((int64_t)us - outbox->open_us) / 8;
}

/* One waits for half of it, so for a quarter on average. */
static uint64_t pause_ms(const struct outbox *outbox)
{
    uint64_t ms = ((uint64_t)outbox->open_us + 1000) / 2000;

    return ms < PAUSE_MS ? ms : PAUSE_MS;
}

static bool waits(const struct worker *worker, const struct outbox *outbox)
{
    return worker_now(worker) - outbox->sent_ms < pause_ms(outbox) &&
           atomic_load(&outbox->session->pending) > FEW && !atomic_load(&outbox->session->over);
}

void outboxes_flush(struct worker *worker)
{
    struct ring now;

    ring_init(&now);
    for (struct ring *r = worker->outboxes.next, *next; r != &worker->outboxes; r = next) {
        next = r->next;
        if (waits(worker, CONTAINER_OF(r, struct outbox, due)))
            continue;
        ring_drop(r);
        ring_push(&now, r);
    }
    while (!ring_empty(&now)) {
        struct outbox *outbox = CONTAINER_OF(now.next, struct outbox, due);

        ring_drop(&outbox->due);
        outbox->sent_ms = worker_now(worker);
        while (!ring_empty(&outbox->items))
            send_some(outbox);
    }
    if (!ring_empty(&worker->outboxes))
        worker_soon(worker);
}
