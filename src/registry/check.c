/* check - the proof that the maps agree: every row of a list is in the index, and nothing else is.
 */
#include <errno.h>
#include <string.h>
#include "registry/inside.h"

static struct entry *indexed(const struct registry *reg, const struct row *row)
{
    struct index_node *node =
        index_find(&reg->services.by_key, row->key, row->key_len, entry_of(row)->by_key.hh.hashv);

    return node ? CONTAINER_OF(node, struct entry, by_key) : NULL;
}

/* The chain from the first of its name up to row. */
static bool chained(const struct registry *reg, const struct row *row)
{
    struct index_node *node = index_find(&reg->services.by_name, row->name, row->name_len,
                                         entry_of(row)->by_name.hh.hashv);
    const struct entry *at = node ? CONTAINER_OF(node, struct entry, by_name) : NULL;
    const struct entry *before = NULL;

    for (; at && at->prev == before; before = at, at = at->next)
        if (&at->row == row)
            return true;
    return false;
}

/* Also counts the names that begin a chain, which are those in by_name. */
static int check_owner(const struct registry *reg, const struct peer *owner, size_t *first_of_name)
{
    struct list_iter it;
    const struct row *row;

    if (owner->detached || list_check(owner->list) != 0)
        return -EUCLEAN;
    list_iter_init(&it, owner->list);
    while ((row = list_iter_next(&it)) != NULL) {
        const struct entry *entry = indexed(reg, row);
        if (!entry || &entry->row != row || entry->owner != owner || !chained(reg, row))
            return -EUCLEAN;
        if (strlen(row->key) != row->key_len || strlen(row->name) != row->name_len ||
            strcmp(row->key + row->name_len + 1, owner->label) != 0)
            return -EUCLEAN;
        *first_of_name += entry->prev == NULL;
    }
    return 0;
}

static int check_locked(struct registry *reg)
    REQUIRES_SHARED(reg->services_lock, reg->peer_services_lock)
{
    size_t services = list_count(reg->peer_services.local->list), names = 0;
    size_t n = reg->peer_services.n;

    if (check_owner(reg, reg->peer_services.local, &names) != 0)
        return -EUCLEAN;
    for (size_t i = 0; i < n; i++) {
        const struct peer *peer = reg->peer_services.sorted[i];
        const struct peer *before = i > 0 ? reg->peer_services.sorted[i - 1] : NULL;
        const struct index_node *by_label = index_find(&reg->peer_services.by_label, peer->label,
                                                       peer->label_len, peer->by_label.hh.hashv);
        if (registry_find_peer(reg, peer->id) != peer || by_label != &peer->by_label ||
            check_owner(reg, peer, &names) != 0)
            return -EUCLEAN;
        if (before && memcmp(before->address, peer->address, ADDRESS_KEY) > 0)
            return -EUCLEAN;
        services += list_count(peer->list);
    }
    if (reg->peer_services.by_id.count != n || reg->peer_services.by_label.count != n ||
        reg->services.by_key.count != services + reg->services.leaving ||
        reg->both.services != services || reg->services.ring_n > reg->services.ring_cap)
        return -EUCLEAN;
    /* The first of a name may be one of the rows that are leaving. */
    return reg->services.leaving > 0 || reg->services.by_name.count == names ? 0 : -EUCLEAN;
}

int registry_check(struct registry *reg)
{
    int r;

    registry_read(reg);
    r = check_locked(reg);
    registry_read_done(reg);
    return r;
}
