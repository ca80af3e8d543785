/* pages - snapshots that readers come back to: a page token keeps its picture for 10 s after each
 * use.
 *
 * A token is 24 bytes: number (8), list (8), row (8), big-endian; list 0 is the node's own, then
 * the peers in the snapshot's order. Numbers are random, so that nobody can walk through another's.
 * Strangers can keep all pins in use as long as they like: who asks on the local socket then gets
 * that of the stranger who has not come back for longest.
 * Threads: any.
 */
#ifndef DAEMON_PAGES_H
#define DAEMON_PAGES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "base/lock.h"
#include "registry/snapshot.h"

#define PAGE_TOKEN_LEN 24u
#define PAGE_PIN_MS 10000u

enum page_part { PAGE_SERVICES, PAGE_PEERS };

struct page_place {
    enum page_part part;
    size_t list, row;
};

struct pin {
    uint64_t number, until_ms;
    struct snapshot *snap;
    uint64_t services_total, peers_total; /* that match, counted once */
    bool local;                           /* of a reader on the local socket */
};

struct pages {
    struct mutex lock;
    struct pin *pins; /* with lock held; n_pins of them, free where snap is NULL */
    size_t n_pins, most;
};

int pages_init(struct pages *pages, size_t most);
/* Fewer than are in use: those stay until their time is over. -ENOMEM: as it was. */
int pages_set_most(struct pages *pages, size_t most);
void pages_fini(struct pages *pages);

/* Pins snap (a reference of its own) and writes the token for place. False: all pins are in use. */
bool pages_pin(struct pages *pages, const struct pin *pin, const struct page_place *place,
               uint64_t now_ms, uint8_t out_token[PAGE_TOKEN_LEN]);
/* What a token stands for: a reference to its snapshot in *out_pin. Renews it. False: unknown or
 * expired. */
bool pages_find(struct pages *pages, const uint8_t *token, size_t len, uint64_t now_ms,
                struct pin *out_pin, struct page_place *out_place);
/* The reader has the last page. */
void pages_unpin(struct pages *pages, uint64_t number);
size_t pages_used(struct pages *pages, uint64_t now_ms);

#endif
