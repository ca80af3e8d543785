/* client - reads the first words, waits for a backend, then leaves the connection to a relay; or
 * says why not, and parts.
 *
 *   READING ─▶ CARRYING ─▶ JOINED ─▶ gone
 *        └─────────┴──────▶ PARTING ─▶ gone
 *
 * Before its first byte a client costs its own struct and a leg, and again once it is joined; the
 * words and their parser live from the first byte until then.
 */
#include "forward/client.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include "forward/carry.h"
#include "forward/doubt.h"
#include "forward/ingress.h"
#include "forward/passage.h"
#include "forward/proxy_header.h"
#include "forward/relay.h"
#include "forward/reply.h"
#include "forward/source.h"
#include "forward/words.h"

#define READ_BYTES 16384u
#define GUARD_MS 1000u /* past the deadline, for a carry that has not ended by itself */
#define PART_MS 2000u
#define PART_BYTES 65536u

enum stage {
    READING,
    CARRYING,
    JOINED,
    PARTING, /* the reason was said; what still arrives is read, or the reason would be lost */
};

struct client {
    struct ring ring; /* worker->clients */
    struct worker *worker;
    struct leg *leg; /* NULL: the relay has it */
    const struct ingress *port;
    struct words *words;     /* NULL: no byte yet, or not needed any more */
    struct carry *carry;     /* CARRYING */
    struct passage *passage; /* JOINED */
    struct alarm alarm;      /* what it waits for takes too long */
    uint64_t begun_us;
    uint32_t drained; /* PARTING: bytes read for nobody */
    struct tuple tuple;
    enum stage stage;
    enum first_kind kind;
    bool owes_header; /* a PROXY header comes first */
    bool routed;      /* it has said where to */
};
_Static_assert(sizeof(struct client) < 200, "a hundred thousand of them are to be waited for");

/* ---- coming and going ---- */

/* Its leg is gone already, or the relay's. */
static void forget(struct client *client)
{
    struct worker *worker = client->worker;

    /* Whoever sees the gauge fall sees the rest fallen. */
    atomic_fetch_sub(&worker->forward->clients, 1);
    source_leave(worker->forward->sources, &client->tuple.client.ip, client->routed);
    if (!client->routed)
        COUNT(worker, unrouted, -1);
    COUNT(worker, clients, -1);
    alarm_clear(worker, &client->alarm);
    ring_drop(&client->ring);
    passage_end(worker, client->passage);
    words_free(client->words);
    free(client);
}

static void close_silently(struct client *client)
{
    leg_close(client->leg);
    forget(client);
}

static void reset(struct client *client)
{
    leg_reset(client->leg);
    forget(client);
}

static const struct way unrouted; /* nowhere yet */

static void count_end(struct client *client, const struct way *way, const struct record_end *end)
{
    struct worker *worker = client->worker;

    COUNT(worker, ends[end->end], 1);
    if (record_wanted(worker->forward, end->end))
        record_tell(worker->forward, &client->tuple, client->begun_us, false, way, end);
}

/* Before it was routed. */
static void count_lost(struct client *client, enum forward_end end)
{
    count_end(client, &unrouted, &(struct record_end){.end = end});
}

/* While it is on its way, which is given up. */
static void count_given_up(struct client *client, enum forward_end end)
{
    struct way way;

    carry_way(client->carry, &way);
    count_end(client, &way, &(struct record_end){.end = end});
    carry_cancel(TAKE(&client->carry));
}

/* What is counted has been. */
static void say_why(struct client *client, enum forward_end end, const char *text)
{
    struct worker *worker = client->worker;
    uint8_t reply[REPLY_MAX];
    bool bodiless = client->words && client->words->first.bodiless;
    size_t n = reply_pack(client->kind, bodiless, end, text, worker->forward->peer_id, reply);

    words_free(TAKE(&client->words));
    /* An empty send buffer has room for all of it. */
    if (n == 0 || send(client->leg->fd, reply, n, MSG_NOSIGNAL) != (ssize_t)n) {
        reset(client);
        return;
    }
    shutdown(client->leg->fd, SHUT_WR);
    client->stage = PARTING;
    alarm_set(worker, &client->alarm, PART_MS);
    leg_want(client->leg, UV_READABLE);
}

static void refuse(struct client *client, const struct way *way, enum forward_end end,
                   const char *text)
{
    count_end(client, way, &(struct record_end){.end = end, .text = text});
    say_why(client, end, text);
}

static void part(struct client *client)
{
    ssize_t n = recv(client->leg->fd, client->worker->scratch, PART_BYTES - client->drained, 0);

    if (n < 0 && (errno == EAGAIN || errno == EINTR)) {
        leg_want(client->leg, UV_READABLE);
        return;
    }
    if (n <= 0) {
        close_silently(client);
        return;
    }
    client->drained += (uint32_t)n;
    /* One that goes on sending is not read any more, and has the rest of the time to listen. */
    leg_want(client->leg, client->drained < PART_BYTES ? UV_READABLE : UV_DISCONNECT);
}

/* ---- joined ---- */

static void on_ended(void *ctx, enum forward_end end, uint64_t up, uint64_t down)
{
    struct client *client = ctx;
    struct record_end how = {.end = end, .bytes_up = up, .bytes_down = down};
    struct way way;

    passage_way(client->passage, &way);
    if (!way.peer_id ||
        !doubt_begin(client->worker, &client->tuple, client->begun_us, client->passage, &how))
        count_end(client, &way, &how);
    forget(client);
}

static bool may_go_on(void *ctx)
{
    const struct client *client = ctx;

    return passage_may(client->passage);
}

static void join(struct client *client, struct carry_result *result)
{
    struct relay_settings settings = {
        .client = TAKE(&client->leg),
        .backend = result->leg,
        .up = words_take_rest(&client->words, result->delivered),
        .delivered = result->delivered,
        .down = result->early,
        .ctx = client,
        .may = may_go_on,
        .ended = on_ended,
    };

    client->stage = JOINED;
    client->passage = result->passage;
    alarm_clear(client->worker, &client->alarm);
    if (client->kind == FIRST_CONNECT && !bytes_put_in_front(&settings.down, reply_connected)) {
        leg_reset(settings.client);
        leg_reset(settings.backend);
        bytes_free(&settings.up);
        bytes_free(&settings.down);
    } else if (relay_begin(client->worker, &settings)) {
        return;
    }
    on_ended(client, FORWARD_NO_MEMORY, 0, 0);
}

/* ---- on its way ---- */

static void on_carried(void *ctx, struct carry_result *result)
{
    struct client *client = ctx;

    client->carry = NULL;
    if (result->end == FORWARD_DONE)
        join(client, result);
    else
        refuse(client, &result->way, result->end, result->text);
}

static void carry(struct client *client, const char *name)
{
    struct worker *worker = client->worker;
    struct words *words = client->words;
    uint64_t now = worker_now(worker), deadline_ms = client->alarm.at_ms;
    struct carry_ask ask = {
        .name = name,
        .name_len = strlen(name),
        .tuple = client->tuple,
        .first = words ? words->data + words->first.skip : NULL,
        .first_len = words ? words->len - words->first.skip : 0,
        .deadline_ms = deadline_ms,
        .ctx = client,
        .done = on_carried,
    };
    char text[LIMIT_STATUS_TEXT + 1] = "";
    enum forward_end end;

    client->routed = true;
    COUNT(worker, unrouted, -1);
    source_routed(worker->forward->sources, &client->tuple.client.ip);
    end = carry_begin(worker, &ask, &client->carry, text);
    if (end != FORWARD_DONE) {
        refuse(client, &(struct way){.name = name}, end, text);
        return;
    }
    client->stage = CARRYING;
    alarm_set(worker, &client->alarm,
              (deadline_ms > now ? deadline_ms - now : 0) + (uint64_t)GUARD_MS);
    /* What it says now is left to the kernel. */
    leg_want(client->leg, UV_DISCONNECT);
}

/* It ended its side, which is no giving up, or broke off. */
static void look_after(struct client *client, int events)
{
    if (leg_error(client->leg) < 0) {
        count_given_up(client, FORWARD_CLIENT_GONE);
        reset(client);
        return;
    }
    /* An end would be told for ever; an RST behind it is told whatever is wanted, so it is what
     * hardly ever comes: urgent data. */
    leg_want(client->leg, (events & UV_PRIORITIZED) ? 0 : UV_PRIORITIZED);
}

/* ---- reading ---- */

static size_t words_len(const struct client *client)
{
    return client->words ? client->words->len : 0;
}

/* After an error nothing is wanted any more, though there may have been bytes before it. */
static void read_on(struct client *client) { leg_want(client->leg, UV_READABLE); }

/* The reading is over: what it was. */
static void note_kind(struct client *client)
{
    struct worker *worker = client->worker;
    size_t head = words_len(client);

    if (client->port->name[0] != '\0')
        return;
    switch (client->kind) {
    case FIRST_UNKNOWN:
        return;
    case FIRST_HTTP:
        COUNT(worker, accepted_http, 1);
        break;
    case FIRST_CONNECT:
        COUNT(worker, accepted_connect, 1);
        break;
    case FIRST_TLS:
        COUNT(worker, accepted_tls, 1);
        break;
    case FIRST_HTTP2:
        COUNT(worker, accepted_h2, 1);
        return;
    case FIRST_OTHER:
        COUNT(worker, accepted_other, 1);
        return;
    }
    if (client->kind != FIRST_TLS && client->words->first.parser.http.len > 0)
        head = client->words->first.parser.http.len;
    if (head > worker->count.largest_head)
        COUNT(worker, largest_head, head - worker->count.largest_head);
}

static void refuse_words(struct client *client, enum forward_end end, const char *text)
{
    note_kind(client);
    refuse(client, &unrouted, end, text);
}

static void refuse_plainly(struct client *client, enum forward_end end)
{
    refuse_words(client, end, forward_ends[end].text);
}

/* All is known that can be: where to? A name that nobody has heard of is not replaced by the
 * default: that would be somebody else's backend. */
static void choose(struct client *client)
{
    const struct first *first = &client->words->first;
    const char *name = first->name;

    if ((!name || name[0] == '\0') && first->may_default)
        name = client->port->fallback;
    if (!name || name[0] == '\0') {
        refuse_plainly(client, FORWARD_NO_NAME);
        return;
    }
    note_kind(client);
    worker_phase(client->worker, FORWARD_PHASE_NAME, client->begun_us);
    carry(client, name);
}

/* Who the client is comes from a proxy that is believed, so it is the client who is counted from
 * now on. False: it cannot be read on. */
static bool take_header(struct client *client)
{
    struct sources *sources = client->worker->forward->sources;
    struct words *words = client->words;
    struct proxy_header header = {0};

    switch (proxy_header_parse(words->data, words->len, &header)) {
    case PROXY_HEADER_MORE:
        read_on(client);
        return false;
    case PROXY_HEADER_BAD:
        /* It may be anybody's words: nothing is said to them. */
        client->kind = FIRST_OTHER;
        refuse(client, &unrouted, FORWARD_BAD_REQUEST, "");
        return false;
    case PROXY_HEADER_DONE:
        break;
    }
    if (header.has_addresses) {
        if (!source_enter(sources, &header.tuple.client.ip)) {
            COUNT(client->worker, closed_over_limit, 1);
            reset(client);
            return false;
        }
        source_leave(sources, &client->tuple.client.ip, false);
        client->tuple = header.tuple;
    }
    client->owes_header = false;
    words_cut(words, header.len);
    return true;
}

static size_t words_limit(const struct client *client)
{
    /* The one that its words began with: another may be in force meanwhile. */
    size_t limit = client->words ? client->words->first.limit
                                 : client->worker->forward->limits.ingress_head_bytes;

    return client->owes_header ? limit + PROXY_V2_MAX : limit;
}

static void look(struct client *client)
{
    struct words *words = client->words;
    enum first_result result;

    if (client->owes_header && !take_header(client))
        return;
    if (client->port->name[0] != '\0') {
        carry(client, client->port->name);
        return;
    }
    if (words->len == 0) {
        read_on(client);
        return;
    }
    result = first_feed(&words->first, words->data, words->len);
    client->kind = words->first.kind;
    switch (result) {
    case FIRST_MORE:
        read_on(client);
        break;
    case FIRST_BIG:
        refuse_plainly(client, FORWARD_HEAD_TOO_BIG);
        break;
    case FIRST_BAD:
        refuse_words(client, FORWARD_BAD_REQUEST, words->first.why);
        break;
    case FIRST_DONE:
        choose(client);
        break;
    }
}

/* It has ended its side before all was said. */
static void read_end(struct client *client)
{
    if (words_len(client) == 0) {
        count_lost(client, FORWARD_CLIENT_SILENT);
        close_silently(client);
    } else if (client->owes_header) {
        client->kind = FIRST_OTHER;
        refuse(client, &unrouted, FORWARD_BAD_REQUEST, "");
    } else if (client->kind == FIRST_UNKNOWN) {
        /* Too few to be anything else. */
        client->kind = FIRST_OTHER;
        client->words->first.may_default = true;
        choose(client);
    } else {
        refuse_words(client, FORWARD_BAD_REQUEST, "the client ended it before it was complete");
    }
}

/* False: no memory. */
static bool keep_words(struct client *client, const uint8_t *data, size_t len)
{
    if (!client->words)
        client->words = words_new(client->worker->forward->limits.ingress_head_bytes,
                                  client->port->accept_bare_lf);
    return client->words && words_add(client->words, data, len);
}

static void read_words(struct client *client)
{
    uint8_t *scratch = client->worker->scratch;
    size_t room = words_limit(client) - words_len(client);
    ssize_t n = recv(client->leg->fd, scratch, room < READ_BYTES ? room : READ_BYTES, 0);

    if (n < 0 && (errno == EAGAIN || errno == EINTR)) {
        read_on(client);
    } else if (n < 0) {
        count_lost(client, words_len(client) == 0 ? FORWARD_CLIENT_SILENT : FORWARD_CLIENT_GONE);
        close_silently(client);
    } else if (n == 0) {
        read_end(client);
    } else if (!keep_words(client, scratch, (size_t)n)) {
        refuse_plainly(client, FORWARD_NO_MEMORY);
    } else {
        look(client);
    }
}

static void be_too_slow(struct client *client)
{
    if (words_len(client) == 0) {
        count_lost(client, FORWARD_TOO_SLOW);
        close_silently(client);
        return;
    }
    note_kind(client);
    if (client->owes_header)
        client->kind = FIRST_OTHER;
    else if (client->kind == FIRST_UNKNOWN)
        client->kind = FIRST_HTTP; /* whose clients are the ones that understand an answer */
    refuse(client, &unrouted, FORWARD_TOO_SLOW, forward_ends[FORWARD_TOO_SLOW].text);
}

/* ---- events ---- */

static void on_ready(struct leg *leg, int events)
{
    struct client *client = leg->owner;

    if (client->stage == READING)
        read_words(client);
    else if (client->stage == CARRYING)
        look_after(client, events);
    else if (events & UV_READABLE)
        part(client);
    else
        close_silently(client);
}

static void on_alarm(struct alarm *alarm)
{
    struct client *client = CONTAINER_OF(alarm, struct client, alarm);

    if (client->stage == READING) {
        be_too_slow(client);
    } else if (client->stage == CARRYING) {
        count_given_up(client, FORWARD_BACKEND_TIMED_OUT);
        say_why(client, FORWARD_BACKEND_TIMED_OUT, forward_ends[FORWARD_BACKEND_TIMED_OUT].text);
    } else {
        close_silently(client);
    }
}

void client_turn_away(int fd)
{
    const struct linger none = {.l_onoff = 1};

    setsockopt(fd, SOL_SOCKET, SO_LINGER, &none, sizeof(none));
    close(fd);
}

/* NULL: over a limit, or no memory; fd is closed, which is counted. */
static struct client *client_new(struct worker *worker, int fd, const struct sockaddr_storage *from)
{
    struct client *client = calloc(1, sizeof(*client));
    struct sockaddr_storage to = {0};
    socklen_t len = sizeof(to);

    if (!client) {
        client_turn_away(fd);
        COUNT(worker, closed_no_memory, 1);
        return NULL;
    }
    getsockname(fd, (struct sockaddr *)&to, &len);
    if (!endpoint_from(from, &client->tuple.client) || !endpoint_from(&to, &client->tuple.server) ||
        !source_enter(worker->forward->sources, &client->tuple.client.ip)) {
        client_turn_away(fd);
        COUNT(worker, closed_over_limit, 1);
        free(client);
        return NULL;
    }
    client->leg = leg_new(worker, fd);
    if (client->leg)
        return client;
    source_leave(worker->forward->sources, &client->tuple.client.ip, false);
    COUNT(worker, closed_no_memory, 1);
    free(client);
    return NULL;
}

void client_accepted(struct worker *worker, const struct ingress *port, int fd,
                     const struct sockaddr_storage *from)
{
    struct forward *forward = worker->forward;
    struct client *client = NULL;

    COUNT(worker, accepted, 1);
    if (atomic_fetch_add(&forward->clients, 1) < forward->limits.ingress_connections) {
        client = client_new(worker, fd, from);
    } else {
        client_turn_away(fd);
        COUNT(worker, closed_over_limit, 1);
    }
    if (!client) {
        atomic_fetch_sub(&forward->clients, 1);
        return;
    }
    client->worker = worker;
    client->port = port;
    client->begun_us = uv_hrtime() / 1000;
    client->leg->owner = client;
    client->leg->ready = on_ready;
    ring_push(&worker->clients, &client->ring);
    COUNT(worker, clients, 1);
    COUNT(worker, unrouted, 1);
    alarm_init(&client->alarm, on_alarm);
    alarm_set(worker, &client->alarm, forward->route_ms);
    client->owes_header = ingress_wants_header(port, &client->tuple.client.ip);
    if (port->name[0] != '\0') {
        client->kind = FIRST_OTHER;
        COUNT(worker, accepted_mapped, 1);
        if (!client->owes_header) {
            carry(client, port->name);
            return;
        }
    }
    read_on(client);
}

void clients_reset(struct worker *worker)
{
    for (struct ring *at = worker->clients.next, *next; at != &worker->clients; at = next) {
        struct client *client = CONTAINER_OF(at, struct client, ring);

        next = at->next;
        if (!client->leg)
            continue;
        if (client->stage == CARRYING)
            count_given_up(client, FORWARD_DRAINED);
        else if (client->stage != PARTING)
            count_lost(client, FORWARD_DRAINED);
        reset(client);
    }
}
