/* config_list - the settings that are lists: peers to dial, services offered, ports where clients
 * connect (config_ingress.c).
 *
 * One source's entries are gathered whole, then looked at for duplicates by sorting, so that a long
 * list costs no more than n log n. */
#include <inttypes.h>
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

static void peer_field_text(unsigned field, const void *item, char out[CONFIG_TEXT_MAX])
{
    const struct config_peer *peer = item;

    if (field == 0)
        peer_label(item, out);
    else
        snprintf(out, CONFIG_TEXT_MAX, "%s", peer->peer_id);
}

static const char *const proxy_words[] = {
    [PROXY_OFF] = "off", [PROXY_V1] = "v1", [PROXY_V2] = "v2", NULL};

static const char *service_from_text(const char *text, void *item)
{
    struct config_service *service = item;
    const char *why = NULL;

    service_addr_parse(text, strlen(text), service->name, service->backend, &why);
    return why;
}

enum service_field {
    SERVICE_NAME,
    SERVICE_BACKEND,
    SERVICE_PROXY,
    SERVICE_CHECK,
    SERVICE_CHECK_INTERVAL,
    SERVICE_CHECK_TIMEOUT,
    SERVICE_CHECK_RISE,
    SERVICE_CHECK_FALL,
};

static const char *service_name(const char *text, struct config_service *service)
{
    enum name_error error;

    /* name_canon takes a port away, as a Host line wants it. Here it would hide a mistake. */
    if (strchr(text, ':'))
        return "has a colon: the port belongs to the backend";
    error = name_canon(text, strlen(text), service->name);
    return error == NAME_OK ? NULL : name_error_text(error);
}

static const char *service_proxy(const char *text, struct config_service *service)
{
    for (unsigned i = 0; proxy_words[i]; i++) {
        if (strcmp(proxy_words[i], text) == 0) {
            service->proxy = (enum proxy_version)i;
            return NULL;
        }
    }
    return "is none of the words meant";
}

static const char *service_check(const char *text, struct node_check *check)
{
    const char *path, *why;

    if (check_parse(text, &path, &why) < 0)
        return why;
    check->kind =
        path ? MESHD__V1__CHECK_KIND__CHECK_KIND_HTTP : MESHD__V1__CHECK_KIND__CHECK_KIND_TCP;
    if (path)
        memcpy(check->path, path, strlen(path) + 1);
    return NULL;
}

static const char *service_from_field(unsigned field, const char *text, void *item)
{
    struct config_service *service = item;
    struct node_check *check = &service->check;

    switch ((enum service_field)field) {
    case SERVICE_NAME:
        return service_name(text, service);
    case SERVICE_BACKEND:
        return backend_canon(text, strlen(text), service->backend) < 0 ? "is no host and port"
                                                                       : NULL;
    case SERVICE_PROXY:
        return service_proxy(text, service);
    case SERVICE_CHECK:
        return service_check(text, check);
    case SERVICE_CHECK_INTERVAL:
        return config_duration(text, 100, 3600000, &check->interval_ms);
    case SERVICE_CHECK_TIMEOUT:
        return config_duration(text, 50, 60000, &check->timeout_ms);
    case SERVICE_CHECK_RISE:
        return config_number(text, 1, 100, &check->rise);
    case SERVICE_CHECK_FALL:
        return config_number(text, 1, 100, &check->fall);
    }
    return NULL;
}

/* How to look means nothing when nobody looks. */
static const char *service_whole(const void *item)
{
    const struct node_check *check = &((const struct config_service *)item)->check;

    if (check->kind == MESHD__V1__CHECK_KIND__CHECK_KIND_NONE &&
        (check->interval_ms || check->timeout_ms || check->rise || check->fall))
        return "has check_interval, check_timeout, check_rise or check_fall, but no check";
    return NULL;
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

static void check_text(const struct node_check *check, char out[CONFIG_TEXT_MAX])
{
    if (check->kind == MESHD__V1__CHECK_KIND__CHECK_KIND_TCP)
        snprintf(out, CONFIG_TEXT_MAX, "tcp");
    else if (check->kind == MESHD__V1__CHECK_KIND__CHECK_KIND_HTTP)
        snprintf(out, CONFIG_TEXT_MAX, "http:%s", check->path);
}

static void number_text(uint32_t number, char out[CONFIG_TEXT_MAX])
{
    if (number)
        snprintf(out, CONFIG_TEXT_MAX, "%" PRIu32, number);
}

static void service_field_text(unsigned field, const void *item, char out[CONFIG_TEXT_MAX])
{
    const struct config_service *service = item;
    const struct node_check *check = &service->check;

    out[0] = '\0';
    switch ((enum service_field)field) {
    case SERVICE_NAME:
        snprintf(out, CONFIG_TEXT_MAX, "%s", service->name);
        break;
    case SERVICE_BACKEND:
        snprintf(out, CONFIG_TEXT_MAX, "%s", service->backend);
        break;
    case SERVICE_PROXY:
        if (service->proxy)
            snprintf(out, CONFIG_TEXT_MAX, "%s", proxy_words[service->proxy]);
        break;
    case SERVICE_CHECK:
        check_text(check, out);
        break;
    case SERVICE_CHECK_INTERVAL:
        if (check->interval_ms)
            config_duration_text(check->interval_ms, out);
        break;
    case SERVICE_CHECK_TIMEOUT:
        if (check->timeout_ms)
            config_duration_text(check->timeout_ms, out);
        break;
    case SERVICE_CHECK_RISE:
        number_text(check->rise, out);
        break;
    case SERVICE_CHECK_FALL:
        number_text(check->fall, out);
        break;
    }
}

#define HOST_PORT "host:port or [v6]:port, the port from 1 to 65535"

const struct list_type list_peers = {
    .id = LIST_PEERS,
    .item_size = sizeof(struct config_peer),
    .items_at = offsetof(struct config, peers),
    .n_at = offsetof(struct config, n_peers),
    .n_required = 1,
    .fields = {{"address", HOST_PORT}, {"id", "1 to 64 characters of A-Z a-z 0-9 . _ -"}},
    .from_text = peer_from_text,
    .from_field = peer_from_field,
    .compare = peer_compare,
    .label = peer_label,
    .field_text = peer_field_text,
};

const struct list_type list_services = {
    .id = LIST_SERVICES,
    .item_size = sizeof(struct config_service),
    .items_at = offsetof(struct config, services),
    .n_at = offsetof(struct config, n_services),
    .n_required = 2,
    .fields = {{"name", LIST_NAME_ALLOWED},
               {"backend", HOST_PORT},
               {"proxy_protocol", "off, v1 or v2"},
               {"check", "tcp, or http:/path"},
               {"check_interval", "100ms to 1h, as a whole number of ms, s, m or h"},
               {"check_timeout", "50ms to 1m, as a whole number of ms, s, m or h"},
               {"check_rise", "1 to 100"},
               {"check_fall", "1 to 100"}},
    .from_text = service_from_text,
    .from_field = service_from_field,
    .check = service_whole,
    .compare = service_compare,
    .label = service_label,
    .field_text = service_field_text,
};

/* A field of many texts, none of which needs more than quotes. */
static void print_texts(const struct list_type *list, unsigned field, const void *item, FILE *out)
{
    const char *text;

    for (size_t i = 0; (text = list->field_at(field, item, i)) != NULL; i++) {
        if (i == 0)
            fprintf(out, "\n    %s: [", list->fields[field].name);
        fprintf(out, "%s\"%s\"", i ? ", " : "", text);
    }
    if (list->field_at(field, item, 0))
        fputc(']', out);
}

static void print_list(const struct setting *s, const struct config *config, FILE *out)
{
    const struct list_type *list = s->list;
    char text[CONFIG_TEXT_MAX];
    const char *item;
    size_t n;

    memcpy(&item, (const char *)config + list->items_at, sizeof(item));
    memcpy(&n, (const char *)config + list->n_at, sizeof(n));
    if (n == 0)
        fputs(" []", out);
    for (; n > 0; n--, item += list->item_size) {
        for (unsigned i = 0; list->fields[i].name; i++) {
            if (list->many & 1u << i) {
                print_texts(list, i, item, out);
                continue;
            }
            list->field_text(i, item, text);
            if (i > 0 && !*text)
                continue;
            fprintf(out, "\n  %s %s: ", i == 0 ? "-" : " ", list->fields[i].name);
            config_print_quoted(text, out);
        }
    }
}

/* A list's entries are parsed one by one, by config_add. */
const struct setting_type type_list = {.print = print_list};

static struct entries *entries_of(struct config_reading *r, const struct setting *s)
{
    return &r->lists[s->list->id];
}

static void entries_drop(const struct list_type *list, struct entries *e)
{
    for (size_t i = 0; list->fini && e->items && i < e->n; i++)
        list->fini((char *)e->items + i * list->item_size);
    e->n = 0;
}

void config_lists_fini(struct config_reading *r)
{
    for (const struct setting *s = settings; s < settings + N_SETTINGS; s++) {
        struct entries *e = s->list ? entries_of(r, s) : NULL;

        if (!e)
            continue;
        entries_drop(s->list, e);
        free(e->items);
        free(e->where);
    }
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
    entries_drop(s->list, entries_of(r, s));
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

const char config_no_memory[] = "finds no memory";

char *config_next_word(char **rest)
{
    static const char space[] = " \t\r\n";
    char *word = strsep(rest, ","), *end;

    if (!word)
        return NULL;
    word += strspn(word, space);
    end = word + strlen(word);
    while (end > word && strchr(space, end[-1]))
        *--end = '\0';
    return word;
}

void *config_entry_begin(struct config_reading *r, const struct setting *s)
{
    void *item = entries_room(entries_of(r, s), s->list->item_size);

    r->no_memory |= !item;
    return item;
}

bool config_entry_field(struct config_reading *r, const struct setting *s, void *item,
                        unsigned field, const char *text, const struct where *where)
{
    const char *why = s->list->from_field(field, text, item);

    if (why == config_no_memory)
        r->no_memory = true;
    else if (why)
        tell(r, s, where, s->list->fields[field].name, text, why, s->list->fields[field].allowed);
    return !why;
}

void config_entry_end(struct config_reading *r, const struct setting *s, void *item, bool good,
                      const struct where *at)
{
    struct entries *e = entries_of(r, s);
    const char *why = good && s->list->check ? s->list->check(item) : NULL;

    if (why)
        config_error(r, at, s, "%s", why);
    if (good && !why)
        e->where[e->n++] = *at;
    else if (s->list->fini)
        s->list->fini(item);
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
        if (s->list->compare(order[i - 1].item, order[i].item) != 0 ||
            (s->list->may_repeat && s->list->may_repeat(order[i].item)))
            continue;
        s->list->label(order[i].item, label);
        config_where(&e->where[order[i - 1].index], first);
        config_error(r, &e->where[order[i].index], s,
                     "%s is there already (%s); allowed: each %s once", config_quote(label, quoted),
                     first, s->list->fields[0].name);
    }
    free(order);
}
