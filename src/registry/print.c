/* print - the two maps as lines of text, in blocks of whole lines.
 *
 * A picture of 10,000 services has 20,000 lines, printed after every change: what begins the lines
 * of one list is put together once, and rows are copied behind it.
 */
#include "registry/print.h"
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#define BEGIN_MOST 256
#define LINE_MOST 1024 /* peer id, label, name and backend at their longest stay below */

struct block {
    int (*write)(void *ctx, const char *text, size_t len);
    void *ctx;
    const char *map, *peer_id; /* how each line begins */
    int r;                     /* of write: after it nothing more is printed */
    size_t len;
    char text[65536];
};

static void flush(struct block *block)
{
    if (block->r == 0 && block->len > 0)
        block->r = block->write(block->ctx, block->text, block->len);
    block->len = 0;
}

static void line(struct block *block, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

static void line(struct block *block, const char *format, ...)
{
    va_list args;
    char *at;

    if (block->r != 0)
        return;
    if (sizeof(block->text) - block->len < LINE_MOST)
        flush(block);
    at = block->text + block->len;
    at +=
        sprintf(at, "[registry] %s peer_id=%.*s ", block->map, (int)LIMIT_PEER_ID, block->peer_id);
    va_start(args, format);
    at += vsprintf(at, format, args);
    va_end(args);
    *at++ = '\n';
    block->len = (size_t)(at - block->text);
}

static char *copy(char *at, const char *text, size_t len)
{
    memcpy(at, text, len);
    return at + len;
}

/* Each row as "<begin>name | backend |". */
static void rows_of(struct block *block, const char *begin, const struct list *list)
{
    size_t begin_len = strlen(begin);
    struct list_iter it;
    const struct row *row;

    list_iter_init(&it, list);
    while (block->r == 0 && (row = list_iter_next(&it)) != NULL) {
        char *at;

        if (sizeof(block->text) - block->len < LINE_MOST)
            flush(block);
        at = copy(block->text + block->len, begin, begin_len);
        at = copy(at, row->name, row->name_len);
        at = copy(at, " | ", 3);
        at = copy(at, row->backend, row->backend_len);
        at = copy(at, " |\n", 3);
        block->len = (size_t)(at - block->text);
    }
}

static void services_of(struct block *block, const char *label, const struct list *list)
{
    char begin[BEGIN_MOST];

    snprintf(begin, sizeof(begin), "[registry] services peer_id=%.*s   | %s | ", (int)LIMIT_PEER_ID,
             block->peer_id, label);
    rows_of(block, begin, list);
}

static void print_services(struct block *block, const struct snapshot *snap, enum print_what what)
{
    block->map = "services";
    line(block, "svc_map={total=%zu}", snap->services_total);
    if (what == PRINT_SUMMARY || snap->services_total == 0)
        return;
    line(block, "  | peer | name | backend |");
    line(block, "  | ---- | ---- | ------- |");
    services_of(block, "local", snap->local);
    for (size_t i = 0; i < snap->n_peers; i++)
        services_of(block, snap->peers[i].label, snap->peers[i].list);
}

static void print_peer(struct block *block, const struct snapshot_peer *peer)
{
    char begin[BEGIN_MOST];

    line(block, "  peer=%s {services=%zu last_sync=%llu}", peer->label, list_count(peer->list),
         (unsigned long long)peer->last_sync_s);
    if (list_count(peer->list) == 0)
        return;
    line(block, "    | name | backend |");
    line(block, "    | ---- | ------- |");
    snprintf(begin, sizeof(begin), "[registry] peer_services_map peer_id=%.*s     | ",
             (int)LIMIT_PEER_ID, block->peer_id);
    rows_of(block, begin, peer->list);
}

static void print_peers(struct block *block, const struct snapshot *snap, enum print_what what)
{
    block->map = "peer_services_map";
    line(block, "{total_peers=%zu}", snap->n_peers);
    for (size_t i = 0; what == PRINT_FULL && i < snap->n_peers; i++)
        print_peer(block, &snap->peers[i]);
}

int print_maps(const struct snapshot *snap, const char *peer_id, enum print_what what,
               int (*write)(void *ctx, const char *text, size_t len), void *ctx)
{
    struct block block;

    block.write = write;
    block.ctx = ctx;
    block.peer_id = peer_id;
    block.r = 0;
    block.len = 0;
    if (what == PRINT_NOTHING)
        return 0;
    print_services(&block, snap, what);
    print_peers(&block, snap, what);
    flush(&block);
    return block.r;
}
