/* tombstones - what is remembered of rows that went: a ring of bounded length.
 *
 * Adding allocates nothing and frees nothing: room is made before, in small holds, and what is
 * thrown out is freed outside.
 */
#include "registry/inside.h"
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

static struct tombstone *at_locked(struct registry *reg, size_t i)
    REQUIRES_SHARED(reg->services_lock)
{
    return &reg->services.tombstones[(reg->services.ring_first + i) % reg->services.ring_cap];
}

static void drop(struct tombstone *stone)
{
    row_unref(stone->row);
    peer_unref(stone->peer);
}

void tombstones_make_room(struct registry *reg, size_t n)
{
    struct tombstone out[64];
    size_t n_out;

    if (n > reg->services.ring_cap)
        n = reg->services.ring_cap;
    while (reg->services.ring_cap - reg->services.ring_n < n) {
        rwlock_write(&reg->services_lock);
        for (n_out = 0; n_out < 64 && reg->services.ring_cap - reg->services.ring_n < n; n_out++) {
            out[n_out] = *at_locked(reg, 0);
            reg->services.ring_first = (reg->services.ring_first + 1) % reg->services.ring_cap;
            reg->services.ring_n--;
        }
        rwlock_write_done(&reg->services_lock);
        while (n_out > 0)
            drop(&out[--n_out]);
    }
}

void tombstones_add(struct registry *reg, struct row *row, struct peer *peer, const char *why,
                    uint64_t when_s)
{
    assert(reg->services.ring_n < reg->services.ring_cap);
    peer->refs++;
    *at_locked(reg, reg->services.ring_n++) =
        (struct tombstone){.row = row_ref(row), .peer = peer, .why = why, .when_s = when_s};
}

int tombstones_resize(struct registry *reg, size_t cap)
{
    struct tombstone *ring, *old = reg->services.tombstones;

    if (cap == 0 || cap == reg->services.ring_cap)
        return 0;
    ring = calloc(cap, sizeof(*ring));
    if (!ring)
        return -ENOMEM;
    if (cap < reg->services.ring_cap)
        tombstones_make_room(reg, reg->services.ring_cap - cap);
    rwlock_write(&reg->services_lock);
    for (size_t i = 0; i < reg->services.ring_n; i++)
        ring[i] = *at_locked(reg, i);
    reg->services.tombstones = ring;
    reg->services.ring_cap = cap;
    reg->services.ring_first = 0;
    rwlock_write_done(&reg->services_lock);
    free(old);
    return 0;
}

void tombstones_fini(struct registry *reg)
{
    tombstones_make_room(reg, reg->services.ring_cap);
    free(reg->services.tombstones);
}

static size_t text_size(const struct tombstone *stone)
{
    return (size_t)stone->row->key_len + 1 + stone->peer->id_len + 1;
}

/* The newest n, and how many bytes they need. */
static size_t size_locked(struct registry *reg, size_t max, size_t *out_bytes)
    REQUIRES_SHARED(reg->services_lock)
{
    size_t n = reg->services.ring_n < max ? reg->services.ring_n : max;
    size_t bytes = n * sizeof(struct registry_tombstone);

    for (size_t i = 0; i < n; i++)
        bytes += text_size(at_locked(reg, reg->services.ring_n - 1 - i));
    *out_bytes = bytes;
    return n;
}

long registry_tombstones(struct registry *reg, size_t max,
                         struct registry_tombstone **out_tombstones)
{
    struct registry_tombstone *stones = NULL;
    size_t n, bytes, have = 0;
    char *text;

    /* Allocating is for outside the lock, where the size may change again: rarely more than once.
     */
    for (;;) {
        rwlock_read(&reg->services_lock);
        n = size_locked(reg, max, &bytes);
        if (stones && bytes <= have)
            break;
        rwlock_read_done(&reg->services_lock);
        free(stones);
        have = bytes + bytes / 8 + 1;
        stones = malloc(have);
        if (!stones)
            return -ENOMEM;
    }
    text = (char *)(stones + n);
    for (size_t i = 0; i < n; i++) {
        const struct tombstone *stone = at_locked(reg, reg->services.ring_n - 1 - i);
        memcpy(text, stone->row->key, stone->row->key_len + 1u);
        stones[i].key = text;
        text += stone->row->key_len + 1;
        memcpy(text, stone->peer->id, stone->peer->id_len + 1);
        stones[i].peer_id = text;
        text += stone->peer->id_len + 1;
        stones[i].why = stone->why;
        stones[i].when_s = stone->when_s;
    }
    rwlock_read_done(&reg->services_lock);
    *out_tombstones = stones;
    return (long)n;
}
