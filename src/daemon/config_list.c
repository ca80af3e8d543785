/* config_list - the settings that are lists: peers to dial, services offered.
 *
 * One source's entries are gathered whole, then looked at for duplicates by sorting, so that a long
 * list costs no more than n log n. */
#include <stdlib.h>
#include <string.h>
#include "daemon/config_parts.h"
#include "wire/name.h"

static const char *peer_from_text(const char *text, void *item)
{
    struct config_peer *peer = item;

    if (addr_split(text, strlen(text), peer->host, &peer->port) < 0)
        return "is no host and port";
    return NULL;
}

static const char *peer_from_field(unsigned field, const char *text, void *item)
{
    struct config_peer *peer = item;

    if (field == 0)
        return peer_from_text(text, item);
    if (!peer_id_valid(text, strlen(text)))
        return "is no peer id";
    memcpy(peer->peer_id, text, strlen(text) + 1);
    return NULL;
}

static int peer_compare(const void *a, const void *b)
{
    const struct config_peer *left = a, *right = b;
    int r = strcmp(left->host, right->host);

    return r ? r : (left->port > right->port) - (left->port < right->port);
}

static void peer_label(const void *item, char out[CONFIG_TEXT_MAX])
{
    const struct config_peer *peer = item;

    snprintf(out, CONFIG_TEXT_MAX, strchr(peer->host, ':') ? "[%s]:%u" : "%s:%u", peer->host,
             peer->port);
}

static void peer_print_field(unsigned field, const void *item, FILE *out)
{
    const struct config_peer *peer = item;
    char address[CONFIG_TEXT_MAX];

    peer_label(item, address);
    fputs(field == 0 ? address : peer->peer_id, out);
}

static const char *service_from_text(const char *text, void *item)
{
    struct config_service *service = item;
    const char *why = NULL;

    service_addr_parse(text, strlen(text), service->name, service->backend, &why);
    return why;
}

static const char *service_from_field(unsigned field, const char *text, void *item)
{
    struct config_service *service = item;
    enum name_error error;

    if (field == 1)
        return backend_canon(text, strlen(text), service->backend) < 0 ? "is no host and port"
                                                                       : NULL;
    /* name_canon takes a port away, as a Host line wants it. Here it would hide a mistake. */
    if (strchr(text, ':'))
        return "has a colon: the port belongs to the backend";
    error = name_canon(text, strlen(text), service->name);
    return error == NAME_OK ? NULL : name_error_text(error);
}

static int service_compare(const void *a, const void *b)
{
    const struct config_service *left = a, *right = b;

    return strcmp(left->name, right->name);
}

static void service_label(const void *item, char out[CONFIG_TEXT_MAX])
{
    const struct config_service *service = item;

    snprintf(out, CONFIG_TEXT_MAX, "%s", service->name);
}

static void service_print_field(unsigned field, const void *item, FILE *out)
{
    const struct config_service *service = item;

    fputs(field == 0 ? service->name : service->backend, out);
}

#define HOST_PORT "host:port or [v6]:port, the port from 1 to 65535"

const struct list_type list_peers = {
    .item_size = sizeof(struct config_peer),
    .fields = {"address", "id"},
    .fields_allowed = {HOST_PORT, "1 to 64 characters of A-Z a-z 0-9 . _ -"},
    .from_text = peer_from_text,
    .from_field = peer_from_field,
    .compare = peer_compare,
    .label = peer_label,
    .print_field = peer_print_field,
};

const struct list_type list_services = {
    .item_size = sizeof(struct config_service),
    .fields = {"name", "backend"},
    .fields_allowed = {"labels of a-z 0-9 - _ with dots between, 253 bytes in all", HOST_PORT},
    .second_required = true,
    .from_text = service_from_text,
    .from_field = service_from_field,
    .compare = service_compare,
    .label = service_label,
    .print_field = service_print_field,
};

static void print_list(const struct setting *s, const struct config *config, FILE *out)
{
    bool peers = s->list == &list_peers;
    const char *item = peers ? (const char *)config->peers : (const char *)config->services;
    size_t n = peers ? config->n_peers : config->n_services;

    if (n == 0)
        fputs(" []", out);
    for (; n > 0; n--, item += s->list->item_size) {
        fprintf(out, "\n  - %s: \"", s->list->fields[0]);
        s->list->print_field(0, item, out);
        if (s->list->second_required || ((const struct config_peer *)item)->peer_id[0]) {
            fprintf(out, "\"\n    %s: \"", s->list->fields[1]);
            s->list->print_field(1, item, out);
        }
        fputc('"', out);
    }
}

/* A list's entries are parsed one by one, by config_add. */
const struct setting_type type_list = {.print = print_list};

static struct entries *entries_of(struct config_reading *r, const struct setting *s)
{
    return s->list == &list_peers ? &r->peers : &r->services;
}

/* Room for one more, zeroed, not yet counted; NULL without memory. */
static void *entries_room(struct entries *e, size_t item_size)
{
    size_t cap = e->cap ? e->cap * 2 : 8;
    void *items, *where;

    if (e->n == e->cap) {
        items = reallocarray(e->items, cap, item_size);
        if (!items)
            return NULL;
        e->items = items;
        where = reallocarray(e->where, cap, sizeof(*e->where));
        if (!where)
            return NULL;
        e->where = where;
        e->cap = cap;
    }
    return memset((char *)e->items + e->n * item_size, 0, item_size);
}

static void tell(struct config_reading *r, const struct setting *s, const struct where *where,
                 const char *field, const char *text, const char *why, const char *allowed)
{
    char quoted[CONFIG_TEXT_MAX];

    config_error(r, where, s, "%s%s%s %s; allowed: %s", field, *field ? ": " : "",
                 config_quote(text, quoted), why, allowed);
}

void config_list_begin(struct config_reading *r, const struct setting *s)
{
    entries_of(r, s)->n = 0;
}

void config_add(struct config_reading *r, const struct setting *s, const char *text,
                const struct where *where)
{
    struct entries *e = entries_of(r, s);
    void *item = entries_room(e, s->list->item_size);
    const char *why;

    if (!item) {
        r->no_memory = true;
        return;
    }
    why = s->list->from_text(text, item);
    if (why)
        tell(r, s, where, "", text, why, s->allowed);
    else
        e->where[e->n++] = *where;
}

void config_add_fields(struct config_reading *r, const struct setting *s,
                       const char *const texts[2], const struct where where[2],
                       const struct where *at)
{
    struct entries *e = entries_of(r, s);
    void *item = entries_room(e, s->list->item_size);
    bool good = true;
    const char *why;

    if (!item) {
        r->no_memory = true;
        return;
    }
    for (unsigned i = 0; i < 2; i++) {
        why = texts[i] ? s->list->from_field(i, texts[i], item) : NULL;
        if (!why)
            continue;
        tell(r, s, &where[i], s->list->fields[i], texts[i], why, s->list->fields_allowed[i]);
        good = false;
    }
    if (good)
        e->where[e->n++] = *at;
}

struct order { /* of an entry while its list is sorted */
    const struct list_type *list;
    const char *item;
    size_t index;
};

static int order_compare(const void *a, const void *b)
{
    const struct order *left = a, *right = b;
    int r = left->list->compare(left->item, right->item);

    return r ? r : (left->index > right->index) - (left->index < right->index);
}

void config_list_end(struct config_reading *r, const struct setting *s)
{
    struct entries *e = entries_of(r, s);
    struct order *order = calloc(e->n ? e->n : 1, sizeof(*order));
    char label[CONFIG_TEXT_MAX], quoted[CONFIG_TEXT_MAX], first[CONFIG_TEXT_MAX];

    if (!order) {
        r->no_memory = true;
        return;
    }
    for (size_t i = 0; i < e->n; i++)
        order[i] = (struct order){s->list, (char *)e->items + i * s->list->item_size, i};
    qsort(order, e->n, sizeof(*order), order_compare);
    for (size_t i = 1; i < e->n; i++) {
        if (s->list->compare(order[i - 1].item, order[i].item) != 0)
            continue;
        s->list->label(order[i].item, label);
        config_where(&e->where[order[i - 1].index], first);
        config_error(r, &e->where[order[i].index], s,
                     "%s is there already (%s); allowed: each %s once", config_quote(label, quoted),
                     first, s->list->fields[0]);
    }
    free(order);
}
