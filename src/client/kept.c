/* kept - one hash table of rows, keyed by name and source, each of which remembers its picture. */
#include "client/kept.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "base/cleanup.h"
#include "base/limits.h"
#include "client/inside.h"

#define KEY_MAX (LIMIT_NAME + 1 + LIMIT_LABEL_TEXT)

/* Name, NUL, source: what a row's text begins with. */
struct key {
    char text[KEY_MAX];
    size_t name_len, len;
};

static bool key_of(const Meshd__V1__ServiceRow *row, struct key *out)
{
    size_t source_len = strlen(row->ip);

    out->name_len = strlen(row->name);
    if (out->name_len == 0 || out->name_len > LIMIT_NAME || source_len == 0 ||
        source_len >= LIMIT_LABEL_TEXT)
        return false;
    memcpy(out->text, row->name, out->name_len + 1);
    memcpy(out->text + out->name_len + 1, row->ip, source_len);
    out->len = out->name_len + 1 + source_len;
    return true;
}

static unsigned state_of(const Meshd__V1__ServiceRow *row)
{
    unsigned state = 0;

    if (strcmp(row->ip, "local") == 0)
        state |= MESH_LOCAL;
    if (row->connected)
        state |= MESH_CONNECTED;
    if (row->stale)
        state |= MESH_STALE;
    if (row->healthy)
        state |= MESH_HEALTHY;
    if (row->draining)
        state |= MESH_DRAINING;
    return state;
}

static struct kept_row *find(const struct kept *kept, const struct key *key)
{
    struct kept_row *found;

    HASH_FIND(hh, kept->rows, key->text, key->len, found);
    return found;
}

static struct kept_row *row_new(const Meshd__V1__ServiceRow *row, const struct key *key)
{
    size_t node_len = strlen(row->peer_id), address_len = strlen(row->backend_addr);
    struct kept_row *kept =
        calloc(1, sizeof(*kept) + key->len + 1 + node_len + 1 + address_len + 1);
    char *at;

    if (!kept)
        return NULL;
    at = memcpy(kept->text, key->text, key->len);
    kept->instance.name = at;
    kept->instance.source = at + key->name_len + 1;
    at += key->len + 1;
    kept->instance.node = memcpy(at, row->peer_id, node_len);
    at += node_len + 1;
    kept->instance.address = memcpy(at, row->backend_addr, address_len);
    kept->instance.state = state_of(row);
    kept->instance.last_seen = row->last_seen;
    return kept;
}

static bool same(const struct kept_row *kept, const Meshd__V1__ServiceRow *row)
{
    return kept->instance.state == state_of(row) &&
           strcmp(kept->instance.address, row->backend_addr) == 0 &&
           strcmp(kept->instance.node, row->peer_id) == 0;
}

static void drop(struct kept *kept, struct kept_row *row)
{
    if (kept->sweep == row)
        kept->sweep = row->hh.next;
    HASH_DEL(kept->rows, row);
    kept->n--;
}

int kept_put(struct kept *kept, const Meshd__V1__ServiceRow *row, struct kept_row **out_row,
             struct kept_row **out_old)
{
    struct kept_row *old, *fresh;
    struct key key;

    if (!key_of(row, &key) || strlen(row->peer_id) > LIMIT_PEER_ID ||
        strlen(row->backend_addr) > LIMIT_BACKEND)
        return -EINVAL;
    old = find(kept, &key);
    if (old && same(old, row)) {
        old->picture = kept->picture;
        old->instance.last_seen = row->last_seen;
        *out_row = old;
        return KEPT_SAME;
    }
    if (!old && kept->n >= ROWS_MAX)
        return -E2BIG;
    fresh = row_new(row, &key);
    if (!fresh)
        return -ENOMEM;
    fresh->picture = kept->picture;
    HASH_ADD_KEYPTR(hh, kept->rows, fresh->text, key.len, fresh);
    if (!fresh->hh.tbl) {
        free(fresh);
        return -ENOMEM;
    }
    kept->n++;
    *out_row = fresh;
    if (!old)
        return KEPT_NEW;
    drop(kept, old);
    *out_old = old;
    return KEPT_CHANGED;
}

struct kept_row *kept_take(struct kept *kept, const Meshd__V1__ServiceRow *row)
{
    struct kept_row *found;
    struct key key;

    if (!key_of(row, &key))
        return NULL;
    found = find(kept, &key);
    if (found)
        drop(kept, found);
    return found;
}

void kept_picture(struct kept *kept)
{
    kept->picture++;
    kept->in_picture = true;
    kept->sweeping = false;
    kept->sweep = NULL;
}

struct kept_row *kept_sweep(struct kept *kept)
{
    if (!kept->in_picture)
        return NULL;
    if (!kept->sweeping) {
        kept->sweeping = true;
        kept->sweep = kept->rows;
    }
    while (kept->sweep) {
        struct kept_row *row = kept->sweep;

        kept->sweep = row->hh.next;
        if (row->picture != kept->picture) {
            drop(kept, row);
            return row;
        }
    }
    kept->sweeping = kept->in_picture = false;
    return NULL;
}

void kept_fini(struct kept *kept)
{
    struct kept_row *row, *next;

    HASH_ITER(hh, kept->rows, row, next)
    {
        HASH_DEL(kept->rows, row);
        free(row);
    }
    kept->n = 0;
}
