/* row - one service of one owner, in one allocation with its texts and its place. */
#include "registry/row.h"
#include <stdlib.h>
#include "base/limits.h"

struct row *row_new(const char *name, size_t name_len, const char *backend, size_t backend_len,
                    const char *label, unsigned flags)
{
    size_t label_len = strlen(label), key_len = name_len + 1 + label_len;
    struct entry *entry;
    char *text;

    if (name_len > LIMIT_NAME || backend_len > LIMIT_BACKEND || label_len >= LIMIT_LABEL_TEXT)
        return NULL;
    entry = malloc(sizeof(*entry) + key_len + 1 + name_len + 1 + backend_len + 1);
    if (!entry)
        return NULL;
    text = entry->text;
    memcpy(text, name, name_len);
    text[name_len] = '\0';
    entry->row.name = text;
    text += name_len + 1;
    memcpy(text, name, name_len);
    text[name_len] = '@';
    memcpy(text + name_len + 1, label, label_len + 1);
    entry->row.key = text;
    text += key_len + 1;
    memcpy(text, backend, backend_len);
    text[backend_len] = '\0';
    entry->row.backend = text;

    entry->row.name_len = (uint16_t)name_len;
    entry->row.key_len = (uint16_t)key_len;
    entry->row.backend_len = (uint16_t)backend_len;
    entry->row.flags = entry->flags = (uint8_t)flags;
    entry->row.hash = hash_entry(name, name_len, backend, backend_len, flags & ROW_TOLD);
    index_node_init(&entry->by_key, entry->row.key, key_len);
    index_node_init(&entry->by_name, entry->row.name, name_len);
    entry->next = entry->prev = NULL;
    entry->owner = NULL;
    entry->refs = 1;
    return &entry->row;
}

struct row *row_ref(struct row *row)
{
    __atomic_add_fetch(&entry_of(row)->refs, 1, __ATOMIC_RELAXED);
    return row;
}

void row_unref(struct row *row)
{
    if (row && __atomic_sub_fetch(&entry_of(row)->refs, 1, __ATOMIC_ACQ_REL) == 0)
        free(entry_of(row));
}
