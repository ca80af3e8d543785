/* serve_checks - what the node says of its backends. */
#include "daemon/serve.h"

#define CHECKS_MAX 1024u /* rows in one answer */

static bool fill_check(struct arena *arena, const struct node_check_info *from,
                       Meshd__V1__CheckRow *out)
{
    meshd__v1__check_row__init(out);
    out->name = arena_strdup(arena, from->name);
    out->backend_addr = arena_strdup(arena, from->backend);
    out->why = arena_strdup(arena, from->why);
    out->healthy = from->healthy;
    out->draining = from->draining;
    out->since = from->since_s;
    out->streak = from->streak;
    if (!out->name || !out->backend_addr || !out->why || !from->check)
        return out->name && out->backend_addr && out->why;
    out->check = arena_alloc(arena, sizeof *out->check);
    if (!out->check)
        return false;
    meshd__v1__check__init(out->check);
    out->check->kind = (Meshd__V1__CheckKind)from->check->kind;
    out->check->path = arena_strdup(arena, from->check->path);
    out->check->interval_ms = from->check->interval_ms;
    out->check->timeout_ms = from->check->timeout_ms;
    out->check->rise = from->check->rise;
    out->check->fall = from->check->fall;
    return out->check->path;
}

bool serve_fill_checks(struct serve *serve, struct arena *arena, size_t *room,
                       Meshd__V1__NodeInfo *info)
{
    struct node_check_info *checks = arena_alloc(arena, CHECKS_MAX * sizeof *checks);
    Meshd__V1__CheckRow *rows;
    size_t n, size;

    if (!checks)
        return false;
    n = node_checks(serve->node, checks, CHECKS_MAX);
    info->checks_total = (uint32_t)n;
    if (n > CHECKS_MAX)
        n = CHECKS_MAX;
    rows = arena_alloc(arena, (n + 1) * sizeof *rows);
    info->checks = arena_alloc(arena, (n + 1) * sizeof *info->checks);
    if (!rows || !info->checks)
        return false;
    for (size_t i = 0; i < n; i++) {
        if (!fill_check(arena, &checks[i], &rows[i]))
            return false;
        size = protobuf_c_message_get_packed_size(&rows[i].base) + 5; /* tag, length */
        if (size > *room)
            break;
        *room -= size;
        info->checks[info->n_checks++] = &rows[i];
    }
    return true;
}
