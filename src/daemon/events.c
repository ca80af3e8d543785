/* events - one line per event; what strangers sent is escaped by base/log. */
#include "daemon/events.h"

#include <stdio.h>
#include "base/log.h"

static const struct {
    enum log_level level;
    const char *before, *after; /* around whom it is about; the text follows */
} lines[] = {
    [NODE_MAPS_CHANGED] = {LOG_DEBUG, "maps changed", ""},
    [NODE_LINK_LIVE] = {LOG_INFO, "link to ", " is live"},
    [NODE_LINK_SUSPECT] = {LOG_WARN, "link to ", " is silent"},
    [NODE_LINK_LOST] = {LOG_WARN, "link to ", " is lost"},
    [NODE_LINK_REFUSED] = {LOG_ERROR, "link to ", " was refused"},
    [NODE_LINK_PARKED] = {LOG_INFO, "link to ", " waits"},
    [NODE_PEER_GONE] = {LOG_INFO, "peer ", " is gone"},
    [NODE_DIAL_FAILED] = {LOG_WARN, "cannot reach ", ", trying on"},
    [NODE_INCARNATION] = {LOG_INFO, "going on under a higher incarnation", ""},
    [NODE_ENTRIES_REFUSED] = {LOG_WARN, "entries of ", " were refused"},
    [NODE_LEASE_EXPIRED] = {LOG_INFO, "lease expired", ""},
};

void events_log(const struct node_event *event)
{
    const char *id = event->peer_id ? event->peer_id : "";
    const char *address = event->address ? event->address : "";
    const char *text = event->text ? event->text : "";
    char who[LIMIT_PEER_ID + LIMIT_NAME + 16];

    if ((size_t)event->kind >= sizeof lines / sizeof *lines)
        return;
    if (*id && *address)
        snprintf(who, sizeof who, "%s (%s)", id, address);
    else
        snprintf(who, sizeof who, "%s%s", id, address);
    log_write(lines[event->kind].level, "link", "%s%s%s%s%s", lines[event->kind].before, who,
              lines[event->kind].after, *text ? ": " : "", text);
}
