/* fuzz_forward - two peers and some clients in any order of what carries clients: Forwards,
 * answers, Cancels, DATA connections and their headers, bytes, ends, losses; to a node with a
 * backend that answers, one that is gone, and a name that only the peers offer.
 *
 * A backend is connected at most once for each Forward that names it and each client; after all
 * have gone nothing of them is left.
 *
 * The input is a row of steps of two bytes: op | which << 4, and a byte of what. OP_RAW is followed
 * by a length and that many bytes of a message's body.
 */
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "base/clock.h"
#include "forward/must.h"
#include "forward/peer.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define FDS 16u
#define IDS 4u
#define STEPS_MAX 48u
#define KIND(name) MESHD__V1__LINK_KIND__LINK_KIND_##name

enum op {
    OP_FORWARD,
    OP_REPLY,
    OP_CANCEL,
    OP_DATA,
    OP_DATA_ACCEPT,
    OP_HEADER,
    OP_BYTES,
    OP_CLOSE,
    OP_CLIENT,
    OP_SESSION,
    OP_BACKEND,
    OP_RAW,
    OP_SETTLE,
    OP_WISH,
};

static struct rig rig;
static struct peer peers[2]; /* the first dialled the node, the node dialled the second */
static int backend_fd, pair_fd;
static struct sockaddr_in pair_at;
static uint64_t salt, asked, connected;    /* connected: with the backend; asked: that it be */
static int fds[FDS];                       /* of DATA, clients and backends; -1: none */
static uint8_t heard[IDS][FORWARD_ID_LEN]; /* ids that the node chose */
static unsigned n_heard;

/* ---- sockets ---- */

static bool is_waiting(int fd)
{
    return poll(&(struct pollfd){.fd = fd, .events = POLLIN}, 1, 0) == 1;
}

static void keep(int fd)
{
    for (unsigned i = 0; i < FDS; i++) {
        if (fds[i] < 0) {
            fds[i] = fd;
            return;
        }
    }
    close(fd);
}

static void say(int fd, const void *data, size_t len)
{
    if (send(fd, data, len, MSG_NOSIGNAL | MSG_DONTWAIT) < 0)
        return; /* it has ended: that is for the node to know */
}

static int take(int listener)
{
    int fd = is_waiting(listener) ? net_accept(listener) : -1;

    if (fd >= 0 && listener == backend_fd)
        connected++;
    return fd;
}

static void take_all(int listener)
{
    for (int fd = take(listener); fd >= 0; fd = take(listener))
        close(fd);
}

/* ---- words ---- */

/* Of four ids of this input, or of those that the node said last. */
static const uint8_t *id_of(unsigned which)
{
    static uint8_t id[FORWARD_ID_LEN];

    if (which & IDS)
        return heard[which % IDS];
    memset(id, 0, sizeof id);
    memcpy(id, &salt, sizeof salt);
    id[FORWARD_ID_LEN - 1] = (uint8_t)(which % IDS);
    return id;
}

static void learn(const struct peer_message *message)
{
    Meshd__V1__Forwards *forwards;

    if (message->kind != KIND(FORWARDS))
        return;
    forwards = meshd__v1__forwards__unpack(NULL, message->len, message->bytes);
    MUST(forwards);
    for (size_t i = 0; i < forwards->n_forwards; i++)
        memcpy(heard[n_heard++ % IDS], forwards->forwards[i]->forward_id.data, FORWARD_ID_LEN);
    meshd__v1__forwards__free_unpacked(forwards, NULL);
}

static void hear(struct peer *peer)
{
    struct peer_message *at, *next;

    pthread_mutex_lock(&peer->lock);
    at = peer->first;
    peer->first = NULL;
    peer->last = &peer->first;
    pthread_mutex_unlock(&peer->lock);
    for (; at; at = next) {
        next = at->next;
        learn(at);
        free(at);
    }
}

static void do_forward(struct peer *peer, unsigned which, uint8_t what)
{
    static const char *const names[] = {"web", "gone", "db", "nowhere"};
    static uint8_t first[LIMIT_FIRST_BYTES + 1];
    Meshd__V1__Forward forward = peer_forward_of(id_of(which), names[what & 3]);

    if (what & 4)
        forward.first_bytes = (ProtobufCBinaryData){.len = what, .data = first};
    if ((what & 0xf8) == 0xf8) {
        forward.first_bytes.len = LIMIT_FIRST_BYTES + (which & 1);
        forward.first_bytes.data = first;
    }
    forward.dial_data = what & 8;
    forward.remaining_ms = what & 16 ? 1 : WAIT_MS;
    if (what & 32)
        forward.forward_id.len = which;
    asked += (what & 3) == 0;
    peer_forward(peer, &forward);
}

static void do_data(struct peer *peer, unsigned which, uint8_t what)
{
    struct preamble preamble = {.version = PREAMBLE_VERSION, .kind = PREAMBLE_DATA, .has_token = 1};
    struct data_header header = {.offset = what & 8 ? UINT64_MAX : what & 4};
    struct gate_peer from = {.ip = "127.0.0.1"};
    const struct peer *owner = what & 64 ? &peers[0] : peer;
    uint8_t rest[DATA_HEADER_LEN + 8] = {0};
    const char *text = "";
    int fd = net_connect(ntohs(pair_at.sin_port)), other = net_accept(pair_fd), status;
    size_t len = what & 1 ? DATA_HEADER_LEN : 0;

    preamble.first = what & 2 ? DATA_FIRST_OTHER : DATA_FIRST_DIALLER;
    snprintf(preamble.peer_id, sizeof preamble.peer_id, "%s", peer->id);
    memcpy(preamble.token, owner->session_id, TOKEN_LEN);
    memcpy(header.forward_id, id_of(which), FORWARD_ID_LEN);
    data_header_pack(&header, rest);
    if (what & 16)
        len += 8;
    if (what & 32)
        len = which;
    fcntl(other, F_SETFL, O_NONBLOCK);
    status =
        forward_data(rig.sides[DIALLER].forward, other, NULL, &from, &preamble, rest, len, &text);
    MUST(status == 0 || text[0] != '\0');
    if (status != 0)
        close(other);
    keep(fd);
}

/* The node dials: its preamble is passed over, and answered rightly or not. */
static void do_data_accept(struct peer *peer, uint8_t what)
{
    struct preamble_reply answer = {.version = PREAMBLE_VERSION, .status = what & 15};
    uint8_t bytes[PREAMBLE_REPLY_MAX];
    size_t len = preamble_reply_pack(&answer, bytes);
    int fd = take(peer->fd);

    if (fd < 0)
        return;
    say(fd, bytes, what & 16 ? len / 2 : len);
    keep(fd);
}

static void do_header(unsigned which, uint8_t what)
{
    struct data_header header = {.offset = what >> 6};
    uint8_t bytes[DATA_HEADER_LEN];
    int fd = fds[what % FDS];

    memcpy(header.forward_id, id_of(which), FORWARD_ID_LEN);
    data_header_pack(&header, bytes);
    if (fd >= 0)
        say(fd, bytes, what & 16 ? which : sizeof bytes);
}

static void do_close(uint8_t what)
{
    int *fd = &fds[what % FDS];

    if (*fd < 0)
        return;
    if (what & 32) {
        shutdown(*fd, SHUT_WR);
        return;
    }
    if (what & 16)
        net_reset(*fd);
    else
        close(*fd);
    *fd = -1;
}

static void do_client(uint8_t what)
{
    int fd = net_connect(what & 1 ? rig.sides[DIALLER].port : rig.sides[DIALLER].mapped);
    static const char *const heads[] = {"GET / HTTP/1.1\r\nHost: db\r\n\r\n",
                                        "GET / HTTP/1.1\r\nHost: web\r\n\r\n",
                                        "CONNECT web:80 HTTP/1.1\r\n\r\n"};

    if (what & 1)
        asked += what >> 1 & 3 ? 1 : 0;
    say(fd, heads[(what >> 1 & 3) % 3], strlen(heads[(what >> 1 & 3) % 3]));
    keep(fd);
}

static void step(enum op op, unsigned which, uint8_t what)
{
    struct peer *peer = &peers[which >> 3];
    const uint8_t bytes[16] = {what};

    hear(peer);
    switch (op) {
    case OP_FORWARD:
        do_forward(peer, which, what);
        break;
    case OP_REPLY:
        peer_reply(peer, id_of(which), (Meshd__V1__Refusal)(what & 15), what & 16 ? "\n\x1b" : "");
        break;
    case OP_CANCEL:
        peer_cancel(peer, id_of(which));
        break;
    case OP_DATA:
        do_data(peer, which, what);
        break;
    case OP_DATA_ACCEPT:
        do_data_accept(peer, what);
        break;
    case OP_HEADER:
        do_header(which, what);
        break;
    case OP_BYTES:
        if (fds[what % FDS] >= 0)
            say(fds[what % FDS], bytes, which + 1);
        break;
    case OP_CLOSE:
        do_close(what);
        break;
    case OP_CLIENT:
        do_client(what);
        break;
    case OP_SESSION:
        peer_down(peer);
        peer_up(peer);
        break;
    case OP_BACKEND: {
        int fd = take(backend_fd);

        if (fd >= 0)
            keep(fd);
        break;
    }
    case OP_WISH:
        forward_data_wish(rig.sides[DIALLER].forward, peer->link, what);
        MUST(forward_data_wanted(rig.sides[DIALLER].forward, peer->link) <=
             rig.limits.data_warm_per_link);
        break;
    default:
        rig_settle(rig.sides[DIALLER].forward);
    }
}

/* ---- the whole ---- */

static void start(void)
{
    char backend[32], gone[32];

    rig_init(&rig);
    rig.settings.workers = 1;
    rig.settings.open_ms = 500;
    rig.settings.route_ms = 500;
    rig_start(&rig);
    backend_fd = net_listen(backend);
    pair_fd = net_listen_at(&pair_at);
    net_refuse(gone);
    rig_offer(&rig, DIALLER, "web", backend);
    rig_offer(&rig, DIALLER, "gone", gone);
    for (int i = 0; i < 2; i++) {
        peer_init(&peers[i], &rig, i ? "q" : "p", 20 + (uint64_t)i, i);
        peer_offer(&peers[i], "db");
    }
    for (unsigned i = 0; i < FDS; i++)
        fds[i] = -1;
}

static bool nothing_is_left(void *arg)
{
    struct forward_counters c = rig_counters(&rig, DIALLER);

    take_all(backend_fd);
    for (int i = 0; i < 2; i++)
        take_all(peers[i].fd);
    return c.clients == 0 && c.served == 0 && c.pending == 0 && c.relayed == 0 && c.warm == 0 &&
           c.data_waiting == 0 && c.unrouted == 0;
}

static void end(void)
{
    for (int i = 0; i < 2; i++)
        peer_down(&peers[i]);
    for (unsigned i = 0; i < FDS; i++) {
        if (fds[i] >= 0)
            close(fds[i]);
        fds[i] = -1;
    }
    wait_until(nothing_is_left, NULL);
    MUST(connected <= asked);
    for (int i = 0; i < 2; i++)
        hear(&peers[i]);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (!rig.gate_fd)
        start();
    salt++;
    for (int i = 0; i < 2; i++)
        peer_up(&peers[i]);
    for (unsigned n = 0; size >= 2 && n < STEPS_MAX; n++) {
        enum op op = (enum op)(data[0] & 15);
        unsigned which = data[0] >> 4;
        uint8_t what = data[1];
        size_t used = 2, len = 0;

        if (op == OP_RAW) {
            struct peer *peer = &peers[which >> 3];

            len = size > 2 ? data[2] : 0;
            used += size > 2;
            len = len < size - used ? len : size - used;
            MUST(forward_message(rig.sides[DIALLER].forward, peer->link, peer->session_id,
                                 KIND(FORWARDS) + what % 4, data + used, len));
            asked += IDS; /* whatever it asks for */
        } else {
            step(op, which, what);
        }
        data += used + len;
        size -= used + len;
    }
    end();
    return 0;
}
