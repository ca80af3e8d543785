/* pages - a small table of pinned snapshots. */
#include "daemon/pages.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "base/cleanup.h"
#include "base/random.h"

int pages_init(struct pages *pages, size_t most)
{
    mutex_init(&pages->lock);
    pages->pins = calloc(most, sizeof *pages->pins);
    pages->n_pins = pages->most = pages->pins ? most : 0;
    return pages->pins ? 0 : -ENOMEM;
}

int pages_set_most(struct pages *pages, size_t most)
{
    struct pin *pins;
    int r = 0;

    mutex_lock(&pages->lock);
    if (most > pages->n_pins) {
        pins = realloc(pages->pins, most * sizeof *pins);
        if (pins) {
            memset(pins + pages->n_pins, 0, (most - pages->n_pins) * sizeof *pins);
            pages->pins = pins;
            pages->n_pins = most;
        } else {
            r = -ENOMEM;
        }
    }
    if (r == 0)
        pages->most = most;
    mutex_unlock(&pages->lock);
    return r;
}

void pages_fini(struct pages *pages)
{
    for (size_t i = 0; i < pages->n_pins; i++)
        snapshot_unref(pages->pins[i].snap);
    free(pages->pins);
    mutex_fini(&pages->lock);
}

static void put_u64(uint8_t *out, uint64_t v)
{
    for (int i = 7; i >= 0; i--, v >>= 8)
        out[i] = (uint8_t)v;
}

static uint64_t get_u64(const uint8_t *in)
{
    uint64_t v = 0;

    for (int i = 0; i < 8; i++)
        v = v << 8 | in[i];
    return v;
}

/* With the lock held. Snapshots whose time is over are dropped on the way. */
static struct pin *find(struct pages *pages, uint64_t number, uint64_t now_ms,
                        struct pin **out_free)
{
    struct pin *found = NULL;
    size_t used = 0;

    for (size_t i = 0; i < pages->n_pins; i++) {
        struct pin *pin = &pages->pins[i];

        if (pin->snap && pin->until_ms <= now_ms) {
            snapshot_unref(pin->snap);
            pin->snap = NULL;
        }
        if (pin->snap && pin->number == number)
            found = pin;
        if (!pin->snap && out_free)
            *out_free = pin;
        used += pin->snap != NULL;
    }
    if (out_free && used >= pages->most)
        *out_free = NULL;
    return found;
}

/* With the lock held, and no pin free. NULL: all are of local readers. */
static struct pin *take_strangers(struct pages *pages)
{
    struct pin *oldest = NULL;

    for (size_t i = 0; i < pages->n_pins; i++) {
        struct pin *pin = &pages->pins[i];

        if (!pin->local && (!oldest || pin->until_ms < oldest->until_ms))
            oldest = pin;
    }
    if (oldest)
        snapshot_unref(TAKE(&oldest->snap));
    return oldest;
}

bool pages_pin(struct pages *pages, const struct pin *pin, const struct page_place *place,
               uint64_t now_ms, uint8_t out_token[PAGE_TOKEN_LEN])
{
    struct pin *room = NULL, *at;
    uint64_t number = 0;

    mutex_lock(&pages->lock);
    at = find(pages, pin->number, now_ms, &room);
    if (!at && !room && pin->local)
        room = take_strangers(pages);
    if (!at && room) {
        at = room;
        *at = *pin;
        at->snap = snapshot_ref(pin->snap);
        at->number = random_u64();
    }
    if (at) {
        at->until_ms = now_ms + PAGE_PIN_MS;
        number = at->number;
    }
    mutex_unlock(&pages->lock);
    if (!at)
        return false;
    put_u64(out_token, number);
    put_u64(out_token + 8, (uint64_t)place->part << 63 | place->list);
    put_u64(out_token + 16, place->row);
    return true;
}

bool pages_find(struct pages *pages, const uint8_t *token, size_t len, uint64_t now_ms,
                struct pin *out_pin, struct page_place *out_place)
{
    struct pin *pin;

    if (len != PAGE_TOKEN_LEN)
        return false;
    mutex_lock(&pages->lock);
    pin = find(pages, get_u64(token), now_ms, NULL);
    if (pin) {
        pin->until_ms = now_ms + PAGE_PIN_MS;
        *out_pin = *pin;
        out_pin->snap = snapshot_ref(pin->snap);
    }
    mutex_unlock(&pages->lock);
    if (!pin)
        return false;
    out_place->part = get_u64(token + 8) >> 63 ? PAGE_PEERS : PAGE_SERVICES;
    out_place->list = get_u64(token + 8) & ~(UINT64_C(1) << 63);
    out_place->row = get_u64(token + 16);
    return true;
}

void pages_unpin(struct pages *pages, uint64_t number)
{
    mutex_lock(&pages->lock);
    for (size_t i = 0; i < pages->n_pins; i++)
        if (pages->pins[i].snap && pages->pins[i].number == number) {
            snapshot_unref(pages->pins[i].snap);
            pages->pins[i].snap = NULL;
        }
    mutex_unlock(&pages->lock);
}

size_t pages_used(struct pages *pages, uint64_t now_ms)
{
    size_t used = 0;

    mutex_lock(&pages->lock);
    find(pages, 0, now_ms, NULL);
    for (size_t i = 0; i < pages->n_pins; i++)
        used += pages->pins[i].snap != NULL;
    mutex_unlock(&pages->lock);
    return used;
}
