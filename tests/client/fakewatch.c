/* fakewatch - see fakewatch.h. */
#include "client/fakewatch.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#define NEED(what)                                                                                 \
    do {                                                                                           \
        if (!(what)) {                                                                             \
            perror(#what);                                                                         \
            abort();                                                                               \
        }                                                                                          \
    } while (0)

static bool receive(int fd, void *data, size_t len)
{
    return recv(fd, data, len, MSG_WAITALL) == (ssize_t)len;
}

bool fakewatch_begin(struct fakewatch *watch, struct fake *fake, int fd)
{
    const uint8_t hops[4] = {0, 0, 0, 1};
    uint8_t bytes[4096];
    size_t head = sp_head_len(fake->framing);
    const Meshd__V1__CallHeader *header;
    const Meshd__V1__WatchRequest *request;
    ProtobufCMessage *message;
    struct preamble preamble;
    struct frame_parts parts;
    struct arena arena;
    uint64_t len;

    *watch = (struct fakewatch){.fake = fake, .fd = fd};
    if (!receive(fd, bytes, PREAMBLE_HEAD))
        return false;
    NEED(preamble_parse(bytes, PREAMBLE_HEAD, &preamble) == PREAMBLE_HEAD);
    NEED(preamble.kind == PREAMBLE_WATCH && preamble.peer_id[0] == '\0');
    if (!receive(fd, bytes, head))
        return false;
    NEED(sp_head_parse(fake->framing, bytes, head, sizeof(bytes), &len) == 0);
    if (!receive(fd, bytes, len))
        return false;
    NEED(memcmp(bytes, hops, 4) == 0);
    NEED(frame_split(bytes + 4, len - 4, &parts) == 0);
    arena_init(&arena);
    NEED(wire_unpack(&meshd__v1__call_header__descriptor, parts.header, parts.header_len, &arena,
                     &message) == 0);
    header = (const Meshd__V1__CallHeader *)message;
    NEED(strcmp(header->method, "/meshd.v1.Registry/Watch") == 0 && header->wire_version == 1);
    NEED(wire_unpack(&meshd__v1__watch_request__descriptor, parts.body, parts.body_len, &arena,
                     &message) == 0);
    request = (const Meshd__V1__WatchRequest *)message;
    watch->call_id = header->call_id;
    watch->from_epoch = request->from_epoch;
    watch->from_revision = request->from_revision;
    watch->heartbeat_ms = request->heartbeat_ms;
    snprintf(watch->name_glob, sizeof(watch->name_glob), "%s", request->name_glob);
    snprintf(watch->peer, sizeof(watch->peer), "%s", request->peer);
    arena_fini(&arena);
    return true;
}

void fakewatch_greet(const struct fakewatch *watch, unsigned status, Meshd__V1__Reason reason,
                     const char *text)
{
    struct preamble_reply reply = {
        .version = PREAMBLE_VERSION, .status = (uint8_t)status, .reason = (uint8_t)reason};
    uint8_t bytes[PREAMBLE_REPLY_MAX];

    snprintf(reply.text, sizeof(reply.text), "%s", text);
    fake_send(watch->fd, bytes, preamble_reply_pack(&reply, bytes));
}

static uint8_t *pack(const struct fakewatch *watch, Meshd__V1__ReplyHeader *header,
                     const ProtobufCMessage *body, size_t *out_len)
{
    const uint8_t hops[4] = {0, 0, 0, 1};
    size_t head = sp_head_len(watch->fake->framing), len;
    uint8_t *data;

    header->call_id = watch->call_id;
    header->wire_version_min = 1;
    header->wire_version_max = 1;
    len = 4 + frame_size(&header->base, body);
    NEED((data = malloc(head + len)));
    sp_head_pack(watch->fake->framing, len, data);
    memcpy(data + head, hops, 4);
    frame_pack(&header->base, body, data + head + 4);
    *out_len = head + len;
    return data;
}

uint8_t *fakewatch_pack(const struct fakewatch *watch, const struct fakewatch_message *message,
                        size_t *out_len)
{
    Meshd__V1__ReplyHeader header = MESHD__V1__REPLY_HEADER__INIT;
    Meshd__V1__WatchReply reply = MESHD__V1__WATCH_REPLY__INIT;
    Meshd__V1__WatchEvent *events = calloc(message->n + 1, sizeof(*events)), **at;
    Meshd__V1__ServiceRow *rows = calloc(message->n + 1, sizeof(*rows));
    char(*keys)[400] = calloc(message->n + 1, sizeof(*keys));
    uint8_t *data;

    NEED((at = calloc(message->n + 1, sizeof(*at))) && events && rows && keys);
    for (size_t i = 0; i < message->n; i++) {
        const struct fakewatch_event *from = &message->events[i];
        bool local = strcmp(from->source, "local") == 0;

        meshd__v1__watch_event__init(&events[i]);
        meshd__v1__service_row__init(&rows[i]);
        snprintf(keys[i], sizeof(keys[i]), "%s@%s", from->name, from->source);
        rows[i].key = keys[i];
        rows[i].name = (char *)from->name;
        rows[i].ip = (char *)from->source;
        rows[i].backend_addr = (char *)from->backend;
        rows[i].peer_id = (char *)(local ? "n0" : from->source);
        rows[i].connected = local || (from->state & FW_CONNECTED);
        rows[i].healthy = local || (from->state & FW_HEALTHY);
        rows[i].stale = (from->state & FW_STALE) != 0;
        rows[i].draining = (from->state & FW_DRAINING) != 0;
        events[i].kind = from->kind;
        events[i].row = &rows[i];
        at[i] = &events[i];
    }
    reply.epoch = message->epoch;
    reply.revision = message->revision;
    reply.resync = message->resync;
    reply.synced = message->synced;
    reply.events = at;
    reply.n_events = message->n;
    data = pack(watch, &header, &reply.base, out_len);
    free(at);
    free(keys);
    free(rows);
    free(events);
    return data;
}

bool fakewatch_tell(const struct fakewatch *watch, const struct fakewatch_message *message)
{
    size_t len, sent = 0;
    uint8_t *data = fakewatch_pack(watch, message, &len);

    while (sent < len) {
        ssize_t n = send(watch->fd, data + sent, len - sent, MSG_NOSIGNAL);

        if (n <= 0)
            break;
        sent += (size_t)n;
    }
    free(data);
    return sent == len;
}

void fakewatch_refuse(const struct fakewatch *watch, unsigned status, Meshd__V1__Reason reason,
                      const char *text)
{
    Meshd__V1__ReplyHeader header = MESHD__V1__REPLY_HEADER__INIT;
    size_t len;
    uint8_t *data;

    header.status = status;
    header.reason = reason;
    header.text = (char *)text;
    data = pack(watch, &header, NULL, &len);
    fake_send(watch->fd, data, len);
    free(data);
}
