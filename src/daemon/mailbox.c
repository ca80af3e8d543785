/* mailbox - a locked list and a bell (uv_async). The bell is rung only when the list was empty. */
#include "daemon/mailbox.h"

#include <stdlib.h>
#include "base/log.h"

void *must_alloc(size_t size)
{
    void *p = calloc(1, size);

    if (!p) {
        log_error("daemon",
                  "out of memory for %zu bytes: ending; give the node more memory or "
                  "lower its limits",
                  size);
        abort();
    }
    return p;
}

static struct letter *take(struct mailbox *box)
{
    struct letter *all;

    mutex_lock(&box->lock);
    all = box->first;
    box->first = NULL;
    box->last = &box->first;
    mutex_unlock(&box->lock);
    return all;
}

/* What a full batch leaves goes back in front, so that the order stays. */
static void put_back(struct mailbox *box, struct letter *rest)
{
    struct letter *end = rest;

    while (end->next)
        end = end->next;
    mutex_lock(&box->lock);
    end->next = box->first;
    if (!box->first)
        box->last = &end->next;
    box->first = rest;
    mutex_unlock(&box->lock);
    uv_async_send(&box->bell);
}

static void read_batch(struct mailbox *box, unsigned most)
{
    struct letter *letter = take(box);

    for (unsigned n = 0; letter && n < most; n++) {
        struct letter *next = letter->next;

        letter->read(letter);
        letter = next;
    }
    if (letter)
        put_back(box, letter);
    if (box->after)
        box->after(box->ctx);
}

static void on_bell(uv_async_t *bell) { read_batch(bell->data, MAILBOX_BATCH); }

int mailbox_init(struct mailbox *box, uv_loop_t *loop, void (*after)(void *ctx), void *ctx)
{
    int r;

    mutex_init(&box->lock);
    box->first = NULL;
    box->last = &box->first;
    box->after = after;
    box->ctx = ctx;
    r = uv_async_init(loop, &box->bell, on_bell);
    if (r < 0)
        return r;
    box->bell.data = box;
    return 0;
}

static bool is_empty(struct mailbox *box)
{
    bool empty;

    mutex_lock(&box->lock);
    empty = !box->first;
    mutex_unlock(&box->lock);
    return empty;
}

void mailbox_read(struct mailbox *box)
{
    box->after = NULL;
    while (!is_empty(box))
        read_batch(box, MAILBOX_BATCH);
}

void mailbox_close(struct mailbox *box)
{
    mailbox_read(box);
    uv_close((uv_handle_t *)&box->bell, NULL);
}

void mailbox_post(struct mailbox *box, struct letter *letter)
{
    bool ring;

    letter->next = NULL;
    mutex_lock(&box->lock);
    ring = !box->first;
    *box->last = letter;
    box->last = &letter->next;
    mutex_unlock(&box->lock);
    if (ring)
        uv_async_send(&box->bell);
}
