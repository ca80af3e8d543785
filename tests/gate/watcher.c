/* watcher - see watcher.h. */
#include "gate/watcher.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "wire/frame.h"
#include "wire/name.h"

#define MESSAGE_MAX 131072u

size_t watcher_request(enum sp_framing framing, const char *method, uint32_t wire_version,
                       const Meshd__V1__WatchRequest *request, uint8_t *out)
{
    static const uint8_t hop[4] = {0, 0, 0, 1};
    struct preamble preamble = {.version = PREAMBLE_VERSION, .kind = PREAMBLE_WATCH};
    Meshd__V1__CallHeader header = MESHD__V1__CALL_HEADER__INIT;
    size_t at = preamble_pack(&preamble, out), frame;

    header.method = (char *)method;
    header.call_id = 77;
    header.wire_version = wire_version;
    frame = frame_size(&header.base, &request->base);
    sp_head_pack(framing, sizeof(hop) + frame, out + at);
    at += sp_head_len(framing);
    memcpy(out + at, hop, sizeof(hop));
    at += sizeof(hop);
    frame_pack(&header.base, &request->base, out + at);
    return at + frame;
}

unsigned watcher_greeted(struct watcher *w)
{
    uint8_t head[PREAMBLE_HEAD];

    if (!recv_all(w->fd, head, sizeof(head)) || memcmp(head, "MSHD\x01", 5) != 0 ||
        !recv_all(w->fd, w->text, head[7]))
        return 99;
    w->text[head[7]] = '\0';
    return head[5];
}

unsigned watcher_open(struct watcher *w, struct rig *rig, enum sp_framing framing,
                      const Meshd__V1__WatchRequest *request)
{
    uint8_t bytes[1024];
    size_t len =
        watcher_request(framing, "/meshd.v1.Registry/Watch", WIRE_VERSION_MAX, request, bytes);

    memset(w, 0, sizeof(*w));
    w->framing = framing;
    w->fd = framing == SP_TCP ? dial_gate(rig) : dial_unix(rig->unix_path);
    if (w->fd < 0 || !send_all(w->fd, bytes, len))
        return 99;
    return watcher_greeted(w);
}

static void apply(struct watcher *w, const Meshd__V1__WatchReply *reply)
{
    w->messages++;
    w->epoch = reply->epoch;
    if (reply->resync) {
        w->resyncs++;
        w->in_picture = true;
        memset(w->seen, 0, sizeof(w->seen));
    }
    for (size_t i = 0; i < reply->n_events; i++) {
        const Meshd__V1__WatchEvent *event = reply->events[i];
        unsigned at = (unsigned)strtoul(event->row->name + 1, NULL, 10);
        unsigned value = (unsigned)strtoul(strchr(event->row->backend_addr, ':') + 1, NULL, 10);

        w->value[at] = event->kind == MESHD__V1__WATCH_KIND__WATCH_KIND_DOWN ? 0 : value;
        w->seen[at] = true;
        w->events++;
    }
    if (reply->synced) {
        w->synceds++;
        for (unsigned i = 0; w->in_picture && i < MAPS_NAMES; i++)
            if (!w->seen[i])
                w->value[i] = 0;
        w->in_picture = false;
    }
    w->signs += !reply->n_events && !reply->resync && !reply->synced;
    if (reply->revision)
        w->revision = reply->revision;
}

bool watcher_read(struct watcher *w)
{
    static __thread uint8_t data[MESSAGE_MAX];
    ssize_t len = recv_message(w->fd, w->framing, data, sizeof(data));
    Meshd__V1__ReplyHeader *header;
    Meshd__V1__WatchReply *reply;
    struct frame_parts parts;

    if (len < 5 || memcmp(data, "\0\0\0\1", 4) != 0 ||
        frame_split(data + 4, (size_t)len - 4, &parts) < 0)
        return false;
    header = meshd__v1__reply_header__unpack(NULL, parts.header_len, parts.header);
    if (!header)
        return false;
    w->status = header->status;
    snprintf(w->text, sizeof(w->text), "%s", header->text);
    meshd__v1__reply_header__free_unpacked(header, NULL);
    if (w->status)
        return true;
    reply = meshd__v1__watch_reply__unpack(NULL, parts.body_len, parts.body);
    if (!reply)
        return false;
    apply(w, reply);
    meshd__v1__watch_reply__free_unpacked(reply, NULL);
    return true;
}

bool watcher_reach(struct watcher *w, uint64_t revision)
{
    while (w->revision < revision || w->in_picture || w->synceds == 0)
        if (!watcher_read(w) || w->status)
            return false;
    return true;
}

bool watcher_agrees(const struct watcher *w, const struct maps *maps, const char *glob,
                    const char *peer)
{
    char name[16];

    for (unsigned i = 0; i < MAPS_NAMES; i++) {
        bool wanted = !peer || strcmp(peer, i % 2 ? "p1" : "p0") == 0;

        maps_name(i, name);
        wanted = wanted && (!glob || name_glob(glob, name));
        if (w->value[i] != (wanted ? maps->told[i] : 0))
            return false;
    }
    return true;
}

void watcher_close(struct watcher *w)
{
    if (w->fd >= 0)
        close(w->fd);
    w->fd = -1;
}
