/* fakewire - connections between nodes, which behave like TCP on a bad net. */
#include "sim/fakenet_inside.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <meshd/v1/mesh.pb-c.h>

#define CONNECT_MS 5000u      /* SYNs without an answer */
#define USER_TIMEOUT_MS 9000u /* sent and not acknowledged */
#define RETRY_MS 250u         /* retransmission over a cut path */
#define QUEUE_MAX 8388608u

/* ---- connections ---- */

static struct conn *find_conn(struct fakenet *net, uint64_t id)
{
    struct conn *conn = net->conns;

    while (conn && conn->id != id)
        conn = conn->next;
    return conn && !conn->dead ? conn : NULL;
}

static void free_messages(struct message *message)
{
    struct message *next;

    for (; message; message = next) {
        next = message->next;
        free(message);
    }
}

static void conn_free(struct conn *conn)
{
    for (int i = 0; i < 2; i++) {
        free_messages(conn->side[i].queue);
        free_messages(conn->side[i].flight);
    }
    free(conn);
}

void fakewire_sweep(struct fakenet *net)
{
    struct conn **at = &net->conns, *conn;

    while ((conn = *at)) {
        if (conn->dead) {
            *at = conn->next;
            conn_free(conn);
        } else {
            at = &conn->next;
        }
    }
}

static bool side_open(const struct fakenet *net, const struct side *side)
{
    return side->number != 0 && net->hosts[side->host]->node &&
           net->hosts[side->host]->life == side->life;
}

static void on_down(struct fakenet *net, struct fakenet_event *event)
{
    node_link_down(net->hosts[event->host]->node, event->a, 0, 0,
                   event->b == ETIMEDOUT ? "timed out" : "closed by the other side");
}

/* The side's node hears that the connection is over. */
static void side_down(struct fakenet *net, struct conn *conn, int which, int error)
{
    struct side *side = &conn->side[which];

    if (side->number != 0)
        fakenet_post(net, 0, side->host, side->life, on_down, side->number, (uint64_t)error, NULL);
    side->number = 0;
    if (conn->side[!which].number == 0)
        conn->dead = true;
}

static void on_pump(struct fakenet *net, struct fakenet_event *event);

static void pump_soon(struct fakenet *net, struct conn *conn, int which, uint64_t delay_ms)
{
    struct side *side = &conn->side[which];

    if (side->pumping)
        return;
    side->pumping = true;
    fakenet_post(net, delay_ms, side->host, 0, on_pump, conn->id, (uint64_t)which, NULL);
}

static void launch(struct fakenet *net, struct conn *conn, int which)
{
    struct side *side = &conn->side[which];
    struct message *message;

    while ((message = side->queue)) {
        uint64_t ready_ms = net->now_ms + fakenet_delay(net);

        side->queue = message->next;
        if (!side->queue)
            side->queue_end = &side->queue;
        side->queued -= message->len;
        if (fakenet_random(net, 1000) < net->settings.loss_permille)
            ready_ms += 200 + fakenet_random(net, 3000);
        if (ready_ms < side->last_ready_ms)
            ready_ms = side->last_ready_ms;
        side->last_ready_ms = message->ready_ms = ready_ms;
        message->next = NULL;
        *side->flight_end = message;
        side->flight_end = &message->next;
    }
}

/* Half of the forwards of a session go past the node. */
static bool short_way(struct fakenet *net, struct side *side, const struct message *message)
{
    const uint8_t *session_id;
    struct frame_parts parts;
    int kind;

    if (!side->in_session || frame_split(message->data, message->len, &parts) != 0 ||
        !frame_peek_link(&parts, &kind, &session_id) ||
        kind != MESHD__V1__LINK_KIND__LINK_KIND_FORWARDS || fakenet_random(net, 2) == 0)
        return false;
    if (memcmp(session_id, side->session_id, SESSION_ID_LEN) != 0)
        return false;
    side->spoke = true;
    net->hosts[side->host]->forwards++;
    return true;
}

static void on_message(struct fakenet *net, struct fakenet_event *event)
{
    struct conn *conn = find_conn(net, event->a);
    struct message *message = event->owned;
    struct side *side = conn ? &conn->side[message->to] : NULL;

    if (side && side_open(net, side) && message->fin) {
        side_down(net, conn, message->to, ECONNRESET);
    } else if (side && side_open(net, side)) {
        side->received += message->len;
        if (!short_way(net, side, message))
            node_link_message(net->hosts[event->host]->node, side->number, message->data,
                              message->len);
    }
}

/* The first message in flight is there. */
static void arrive(struct fakenet *net, struct conn *conn, int which)
{
    struct side *from = &conn->side[which], *to = &conn->side[!which];
    struct message *message = from->flight;

    from->flight = message->next;
    if (!from->flight)
        from->flight_end = &from->flight;
    if (!side_open(net, to)) {
        free(message);
        /* Nobody knows it there: reset, behind what had been said. */
        if (!to->flight && !to->queue)
            side_down(net, conn, which, ECONNRESET);
        return;
    }
    message->to = !which;
    fakenet_post(net, 0, to->host, to->life, on_message, conn->id, 0, message);
}

static void on_pump(struct fakenet *net, struct fakenet_event *event)
{
    struct conn *conn = find_conn(net, event->a);
    int which = (int)event->b;
    struct side *side;

    if (!conn)
        return;
    side = &conn->side[which];
    side->pumping = false;
    if (fakenet_between(net, conn->side[0].host, conn->side[1].host)) {
        if (side->stalled_ms == 0)
            side->stalled_ms = net->now_ms;
        if (net->now_ms - side->stalled_ms >= USER_TIMEOUT_MS) {
            side_down(net, conn, which, ETIMEDOUT);
            return;
        }
        if (side->flight || side->queue)
            pump_soon(net, conn, which, RETRY_MS);
        return;
    }
    side->stalled_ms = 0;
    if (net->settings.break_permille > 0 && side->flight &&
        fakenet_random(net, 1000) < net->settings.loss_permille &&
        fakenet_random(net, 1000) < net->settings.break_permille) {
        side_down(net, conn, which, ECONNRESET);
        if (!conn->dead)
            side_down(net, conn, !which, ECONNRESET);
        return;
    }
    launch(net, conn, which);
    while (!conn->dead && side->flight && side->flight->ready_ms <= net->now_ms)
        arrive(net, conn, which);
    if (!conn->dead && side->flight)
        pump_soon(net, conn, which, side->flight->ready_ms - net->now_ms);
}

static void put_message(struct fakenet *net, struct conn *conn, int which, struct message *message)
{
    struct side *side = &conn->side[which];
    struct message **at = &side->queue;

    if (message->urgent) {
        while (*at && (*at)->urgent)
            at = &(*at)->next;
    } else {
        at = side->queue_end;
    }
    message->next = *at;
    *at = message;
    if (!message->next)
        side->queue_end = &message->next;
    side->queued += message->len;
    pump_soon(net, conn, which, 0);
}

/* The side's node, or its death, ends the connection; what is unsent goes unless it is flushed. */
static void side_close(struct fakenet *net, struct conn *conn, int which, bool flush)
{
    struct side *side = &conn->side[which];
    struct message *fin = must(calloc(1, sizeof(*fin)));

    side->number = 0;
    if (!flush) {
        free_messages(side->queue);
        side->queue = NULL;
        side->queue_end = &side->queue;
        side->queued = 0;
    }
    fin->fin = true;
    put_message(net, conn, which, fin);
    if (conn->side[!which].number == 0)
        conn->dead = true;
}

/* ---- dialling ---- */

static void on_asked(struct fakenet *net, struct fakenet_event *event)
{
    struct conn *conn = find_conn(net, event->a);
    struct fakenet_host *from;
    struct node_addr addr;

    if (!conn)
        return;
    from = net->hosts[conn->side[0].host];
    addr = (struct node_addr){.port = (uint16_t)(40000 + conn->id % 20000)};
    memcpy(addr.ip, from->addr.ip, sizeof(addr.ip));
    node_link_asked(net->hosts[event->host]->node, conn->side[1].number, from->id, &addr,
                    conn->token);
}

static void on_syn(struct fakenet *net, struct fakenet_event *event)
{
    struct conn *conn = find_conn(net, event->a);
    struct side *to;
    struct fakenet_host *host;

    if (!conn)
        return;
    to = &conn->side[1];
    if (fakenet_between(net, conn->side[0].host, to->host)) {
        if (net->now_ms - conn->begun_ms >= CONNECT_MS)
            side_down(net, conn, 0, ETIMEDOUT);
        else
            fakenet_post(net, 1000, to->host, 0, on_syn, conn->id, 0, NULL);
        return;
    }
    host = net->hosts[to->host];
    if (!host->node || host->refuses) {
        side_down(net, conn, 0, ECONNREFUSED);
        return;
    }
    to->life = host->life;
    to->number = NODE_LINK_ACCEPTED | conn->id;
    fakenet_post(net, 0, to->host, to->life, on_asked, conn->id, 0, NULL);
}

static void port_link_dial(void *ctx, uint64_t link, const struct node_addr *to, const char *expect,
                           const uint8_t token[TOKEN_LEN])
{
    struct fakenet_host *host = ctx, *other = fakenet_listener(host->net, to);
    struct fakenet *net = host->net;
    struct conn *conn = must(calloc(1, sizeof(*conn)));

    fakewire_sweep(net);
    conn->id = ++net->ids;
    conn->begun_ms = net->now_ms;
    memcpy(conn->token, token, TOKEN_LEN);
    for (int i = 0; i < 2; i++) {
        conn->side[i].queue_end = &conn->side[i].queue;
        conn->side[i].flight_end = &conn->side[i].flight;
    }
    conn->side[0].host = host->index;
    conn->side[0].life = host->life;
    conn->side[0].number = link;
    conn->next = net->conns;
    net->conns = conn;
    if (!other) {
        conn->side[1].host = host->index;
        side_down(net, conn, 0, ECONNREFUSED);
        return;
    }
    conn->side[1].host = other->index;
    fakenet_post(net, fakenet_delay(net), other->index, 0, on_syn, conn->id, 0, NULL);
}

static struct conn *conn_of(struct fakenet_host *host, uint64_t link, int *out_which)
{
    for (struct conn *conn = host->net->conns; conn; conn = conn->next)
        for (int i = 0; i < 2; i++)
            if (!conn->dead && conn->side[i].host == host->index &&
                conn->side[i].life == host->life && conn->side[i].number == link) {
                *out_which = i;
                return conn;
            }
    return NULL;
}

static void on_up(struct fakenet *net, struct fakenet_event *event)
{
    struct conn *conn = find_conn(net, event->a);
    struct side *side;

    if (!conn)
        return;
    side = &conn->side[event->b];
    if (!side_open(net, side))
        return;
    side->up = true;
    node_link_up(net->hosts[event->host]->node, side->number);
}

static void port_link_accept(void *ctx, uint64_t link)
{
    struct fakenet_host *host = ctx;
    struct fakenet *net = host->net;
    int which;
    struct conn *conn = conn_of(host, link, &which);

    if (!conn)
        return;
    fakenet_post(net, 0, host->index, host->life, on_up, conn->id, 1, NULL);
    /* A cut that begins now shows with the first message. */
    fakenet_post(net, fakenet_delay(net), conn->side[0].host, conn->side[0].life, on_up, conn->id,
                 0, NULL);
}

struct refusal {
    uint64_t number;
    uint32_t status, reason;
    char text[LIMIT_STATUS_TEXT + 1];
};

static void on_refused(struct fakenet *net, struct fakenet_event *event)
{
    struct refusal *refusal = event->owned;

    node_link_down(net->hosts[event->host]->node, refusal->number, refusal->status, refusal->reason,
                   refusal->text);
}

static void port_link_refuse(void *ctx, uint64_t link, enum status status, int reason,
                             const char *text)
{
    struct fakenet_host *host = ctx;
    int which;
    struct conn *conn = conn_of(host, link, &which);
    struct refusal *refusal;

    if (!conn)
        return;
    refusal = must(calloc(1, sizeof(*refusal)));
    refusal->number = conn->side[0].number;
    refusal->status = status;
    refusal->reason = (uint32_t)reason;
    snprintf(refusal->text, sizeof(refusal->text), "%s", text);
    fakenet_post(host->net, fakenet_delay(host->net), conn->side[0].host, conn->side[0].life,
                 on_refused, 0, 0, refusal);
    conn->dead = true;
}

static int port_link_send(void *ctx, uint64_t link, enum node_urgency urgency,
                          const ProtobufCMessage *header, const ProtobufCMessage *body)
{
    struct fakenet_host *host = ctx;
    size_t len = frame_size(header, body);
    struct message *message;
    int which;
    struct conn *conn = conn_of(host, link, &which);

    if (!conn || !conn->side[which].up)
        return -EPIPE;
    if (conn->side[which].queued + len > QUEUE_MAX)
        return -EAGAIN;
    message = must(calloc(1, sizeof(*message) + len));
    message->len = len;
    message->urgent = urgency == NODE_URGENT;
    frame_pack(header, body, message->data);
    host->bytes_sent += len;
    put_message(host->net, conn, which, message);
    return 0;
}

static uint64_t port_link_received(void *ctx, uint64_t link)
{
    int which;
    struct conn *conn = conn_of(ctx, link, &which);

    return conn ? conn->side[which].received : 0;
}

static bool port_link_spoke(void *ctx, uint64_t link)
{
    int which;
    struct conn *conn = conn_of(ctx, link, &which);
    bool spoke = conn && conn->side[which].spoke;

    if (conn)
        conn->side[which].spoke = false;
    return spoke;
}

/* ---- sessions, for who carries clients ---- */

static void expect(struct fakenet *net, bool holds) { net->wrong += !holds; }

static void port_link_session(void *ctx, uint64_t link, const uint8_t session_id[SESSION_ID_LEN],
                              const char *peer_id, bool dialled)
{
    struct fakenet_host *host = ctx, *there;
    int which;
    struct conn *conn = conn_of(host, link, &which);

    host->sessions++;
    if (!conn)
        return;
    there = host->net->hosts[conn->side[!which].host];
    expect(host->net, !conn->side[which].in_session && dialled == (which == 0));
    expect(host->net, strcmp(peer_id, there->id) == 0);
    conn->side[which].in_session = true;
    memcpy(conn->side[which].session_id, session_id, SESSION_ID_LEN);
    if (conn->side[!which].in_session)
        expect(host->net, memcmp(session_id, conn->side[!which].session_id, SESSION_ID_LEN) == 0);
}

static void port_link_forward(void *ctx, uint64_t link, int kind, const uint8_t *body, size_t len)
{
    struct fakenet_host *host = ctx;
    int which;
    struct conn *conn = conn_of(host, link, &which);

    expect(host->net, conn && conn->side[which].in_session && len > 0);
    host->forwards++;
}

static uint32_t port_link_data_wanted(void *ctx, uint64_t link)
{
    struct fakenet_host *host = ctx;
    int which;
    struct conn *conn = conn_of(host, link, &which);

    expect(host->net, !conn || which == 1);
    return host->wanted;
}

static void port_link_data_wish(void *ctx, uint64_t link, uint32_t wanted)
{
    struct fakenet_host *host = ctx;
    int which;
    struct conn *conn = conn_of(host, link, &which);

    expect(host->net, conn && which == 0 && conn->side[which].in_session);
    host->wishes++;
    host->wished = wanted;
}

static bool port_link_busy(void *ctx, uint64_t link)
{
    const struct fakenet_host *host = ctx;

    return host->busy;
}

bool fakenet_forward(struct fakenet_host *a, struct fakenet_host *b)
{
    Meshd__V1__LinkHeader header = MESHD__V1__LINK_HEADER__INIT;
    Meshd__V1__Forward forward = MESHD__V1__FORWARD__INIT, *one = &forward;
    Meshd__V1__Forwards body = MESHD__V1__FORWARDS__INIT;

    forward.name = (char *)"web";
    body.n_forwards = 1;
    body.forwards = &one;
    header.kind = MESHD__V1__LINK_KIND__LINK_KIND_FORWARDS;
    for (struct conn *conn = a->net->conns; conn; conn = conn->next)
        for (int i = 0; i < 2; i++) {
            struct side *side = &conn->side[i];

            if (conn->dead || !side->in_session || side->number == 0 || side->host != a->index ||
                side->life != a->life || conn->side[!i].host != b->index)
                continue;
            header.session_id.len = SESSION_ID_LEN;
            header.session_id.data = side->session_id;
            return port_link_send(a, side->number, NODE_URGENT, &header.base, &body.base) == 0;
        }
    return false;
}

static void port_link_end(void *ctx, uint64_t link, bool flush)
{
    struct fakenet_host *host = ctx;
    int which;
    struct conn *conn = conn_of(host, link, &which);

    if (conn)
        side_close(host->net, conn, which, flush);
}

void fakewire_port(struct node_port *port)
{
    port->link_dial = port_link_dial;
    port->link_accept = port_link_accept;
    port->link_refuse = port_link_refuse;
    port->link_send = port_link_send;
    port->link_received = port_link_received;
    port->link_spoke = port_link_spoke;
    port->link_session = port_link_session;
    port->link_forward = port_link_forward;
    port->link_data_wanted = port_link_data_wanted;
    port->link_data_wish = port_link_data_wish;
    port->link_busy = port_link_busy;
    port->link_end = port_link_end;
}

void fakewire_ends(struct fakenet_host *host, bool flush)
{
    for (struct conn *conn = host->net->conns; conn; conn = conn->next)
        for (int i = 0; i < 2; i++)
            if (!conn->dead && conn->side[i].host == host->index &&
                conn->side[i].life == host->life && conn->side[i].number != 0)
                side_close(host->net, conn, i, flush);
}

void fakewire_break(struct fakenet_host *host)
{
    for (struct conn *conn = host->net->conns; conn; conn = conn->next) {
        if (conn->dead || (conn->side[0].host != host->index && conn->side[1].host != host->index))
            continue;
        side_down(host->net, conn, 0, ECONNRESET);
        if (!conn->dead)
            side_down(host->net, conn, 1, ECONNRESET);
    }
}
