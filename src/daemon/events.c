/* events - one line per event; what strangers sent is escaped by base/log. Peers cause most of
 * them, and a peer may come and go as fast as it can: each kind is limited. */
#include "daemon/events.h"

#include <stdio.h>
#include "base/clock.h"
#include "base/log.h"

static const struct {
    enum log_level level;
    const char *room;           /* as the line says it */
    const char *before, *after; /* around whom it is about; the text follows */
} lines[] = {
    [NODE_MAPS_CHANGED] = {LOG_DEBUG, "registry", "maps changed", ""},
    [NODE_LINK_LIVE] = {LOG_INFO, "link", "link to ", " is live"},
    [NODE_LINK_SUSPECT] = {LOG_WARN, "link", "link to ", " is silent"},
    [NODE_LINK_LOST] = {LOG_WARN, "link", "link to ", " is lost"},
    [NODE_LINK_REFUSED] = {LOG_ERROR, "link", "link to ", " was refused"},
    [NODE_LINK_PARKED] = {LOG_INFO, "link", "link to ", " waits"},
    [NODE_PEER_GONE] = {LOG_INFO, "link", "peer ", " is gone"},
    [NODE_DIAL_FAILED] = {LOG_WARN, "link", "cannot reach ", ", trying on"},
    [NODE_INCARNATION] = {LOG_INFO, "link", "going on under a higher incarnation", ""},
    [NODE_ENTRIES_REFUSED] = {LOG_WARN, "link", "entries of ", " were refused"},
    [NODE_LEASE_EXPIRED] = {LOG_INFO, "offer", "lease expired", ""},
    [NODE_BACKEND_DOWN] = {LOG_WARN, "health", "backend is unhealthy", ""},
    [NODE_BACKEND_UP] = {LOG_INFO, "health", "backend is healthy again", ""},
    [NODE_SERVICE_DRAINED] = {LOG_INFO, "offer", "service drains", ""},
    [NODE_SERVICE_ENABLED] = {LOG_INFO, "offer", "service takes clients again", ""},
};

#define N_LINES (sizeof lines / sizeof *lines)

static struct log_limit limits[N_LINES]; /* the main loop's */

static void kind_text(size_t kind, char *out, size_t size)
{
    snprintf(out, size, "%s%s%s", lines[kind].before, *lines[kind].after ? "..." : "",
             lines[kind].after);
}

void events_left_out(uint64_t now_ms)
{
    char kind[64];

    for (size_t i = 0; i < N_LINES; i++) {
        kind_text(i, kind, sizeof kind);
        log_limited_rest(&limits[i], now_ms, lines[i].level, lines[i].room, kind);
    }
}

void events_log(const struct node_event *event)
{
    const char *id = event->peer_id ? event->peer_id : "";
    const char *address = event->address ? event->address : "";
    const char *text = event->text ? event->text : "";
    char who[LIMIT_PEER_ID + LIMIT_NAME + 16], kind[64];

    if ((size_t)event->kind >= N_LINES)
        return;
    kind_text(event->kind, kind, sizeof kind);
    if (*id && *address)
        snprintf(who, sizeof who, "%s (%s)", id, address);
    else
        snprintf(who, sizeof who, "%s%s", id, address);
    log_limited(&limits[event->kind], clock_ms(), lines[event->kind].level, lines[event->kind].room,
                kind, "%s%s%s%s%s", lines[event->kind].before, who, lines[event->kind].after,
                *text ? ": " : "", text);
}
