#include "forward/rig.h"

#include <arpa/inet.h>
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "base/clock.h"
#include "base/random.h"
#include "wire/frame.h"

#define LINK 7u /* its number on both sides */

/* ---- sockets ---- */

static void set_timeouts(int fd)
{
    const struct timeval limit = {.tv_sec = WAIT_MS / 1000};

    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
}

static int listen_any(struct sockaddr_in *out)
{
    socklen_t len = sizeof *out;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    *out = (struct sockaddr_in){.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    cr_assert_geq(fd, 0);
    cr_assert_eq(bind(fd, (struct sockaddr *)out, sizeof *out), 0);
    cr_assert_eq(listen(fd, 1024), 0);
    getsockname(fd, (struct sockaddr *)out, &len);
    return fd;
}

int net_listen(char out_addr[32])
{
    struct sockaddr_in at;
    int fd = listen_any(&at);

    set_timeouts(fd);
    snprintf(out_addr, 32, "127.0.0.1:%u", ntohs(at.sin_port));
    return fd;
}

int net_accept(int listener)
{
    int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);

    cr_assert_geq(fd, 0, "nobody came: %s", strerror(errno));
    set_timeouts(fd);
    return fd;
}

int net_connect(uint16_t port)
{
    struct sockaddr_in to = {
        .sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    set_timeouts(fd);
    cr_assert_eq(connect(fd, (struct sockaddr *)&to, sizeof to), 0, "%s", strerror(errno));
    return fd;
}

void net_send(int fd, const void *data, size_t len)
{
    cr_assert_eq(send(fd, data, len, MSG_NOSIGNAL), (ssize_t)len, "%s", strerror(errno));
}

void net_expect(int fd, const void *data, size_t len)
{
    char *got = malloc(len);
    size_t n = 0;

    while (n < len) {
        ssize_t r = recv(fd, got + n, len - n, 0);

        cr_assert_gt(r, 0, "after %zu of %zu bytes: %s", n, len, r ? strerror(errno) : "the end");
        n += (size_t)r;
    }
    cr_assert_arr_eq(got, data, len);
    free(got);
}

size_t net_read_all(int fd, char *out, size_t size)
{
    size_t n = 0;
    ssize_t r;

    while ((r = recv(fd, out + n, size - 1 - n, 0)) > 0)
        n += (size_t)r;
    cr_assert_eq(r, 0, "%s", strerror(errno));
    out[n] = '\0';
    return n;
}

bool net_is_reset(int fd)
{
    char byte;
    ssize_t r;

    while ((r = recv(fd, &byte, 1, 0)) > 0)
        ;
    return r < 0 && errno == ECONNRESET;
}

void net_reset(int fd)
{
    const struct linger zero = {.l_onoff = 1};

    setsockopt(fd, SOL_SOCKET, SO_LINGER, &zero, sizeof zero);
    close(fd);
}

void wait_until(bool (*is)(void *ctx), void *ctx)
{
    uint64_t until = clock_ms() + WAIT_MS;

    while (!is(ctx)) {
        cr_assert_lt(clock_ms(), until, "it did not come");
        poll(NULL, 0, 2);
    }
}

/* ---- the link ---- */

static void deliver(struct rig *rig, enum side to, int kind, const uint8_t *bytes, size_t len)
{
    forward_message(rig->sides[to].forward, LINK, rig->session_id, kind, bytes, len);
}

static int send_message(void *ctx, void *line, int kind, const uint8_t session_id[SESSION_ID_LEN],
                        const ProtobufCMessage *body)
{
    struct rig_side *from = line;
    struct rig *rig = from->rig;
    size_t len = protobuf_c_message_get_packed_size(body);
    struct rig_held *held;

    atomic_fetch_add(&rig->sent[kind], 1);
    if (atomic_load(&rig->lose))
        return 0;
    held = malloc(sizeof *held + len);
    held->next = NULL;
    held->to = from->side == DIALLER ? LISTENER : DIALLER;
    held->kind = kind;
    held->len = len;
    protobuf_c_message_pack(body, held->bytes);
    if (atomic_load(&rig->hold)) {
        pthread_mutex_lock(&rig->lock);
        *rig->last = held;
        rig->last = &held->next;
        pthread_mutex_unlock(&rig->lock);
        return 0;
    }
    deliver(rig, held->to, kind, held->bytes, len);
    free(held);
    return 0;
}

static struct rig_held *take_held(struct rig *rig)
{
    struct rig_held *held;

    pthread_mutex_lock(&rig->lock);
    held = rig->held;
    rig->held = NULL;
    rig->last = &rig->held;
    pthread_mutex_unlock(&rig->lock);
    return held;
}

void rig_release(struct rig *rig)
{
    struct rig_held *held, *next;

    atomic_store(&rig->hold, false);
    for (held = take_held(rig); held; held = next) {
        next = held->next;
        deliver(rig, held->to, held->kind, held->bytes, held->len);
        free(held);
    }
}

static void tell_state(struct rig *rig, bool up)
{
    struct registry_change change;

    for (int i = 0; i < 2; i++) {
        struct rig_side *side = &rig->sides[i];
        struct registry_state state = {
            .connected = up, .stale = !up, .link_id = up ? LINK : 0, .last_seen_s = 1};

        memcpy(state.session_id, rig->session_id, SESSION_ID_LEN);
        cr_assert_eq(
            registry_peer_state(side->registry, rig->sides[1 - i].peer_id, &state, &change), 0);
    }
}

void rig_link_up(struct rig *rig)
{
    random_bytes(rig->session_id, sizeof rig->session_id);
    for (int i = 0; i < 2; i++) {
        struct forward_session_info info = {.link = LINK, .line = &rig->sides[i]};

        memcpy(info.session_id, rig->session_id, SESSION_ID_LEN);
        snprintf(info.peer_id, sizeof info.peer_id, "%s", rig->sides[1 - i].peer_id);
        snprintf(info.ip, sizeof info.ip, "127.0.0.1");
        info.dialled = i == DIALLER;
        info.to = rig->gate_at;
        cr_assert_eq(forward_session_begin(rig->sides[i].forward, &info), 0);
    }
    tell_state(rig, true);
}

void rig_link_down(struct rig *rig)
{
    tell_state(rig, false);
    for (int i = 0; i < 2; i++)
        forward_session_end(rig->sides[i].forward, LINK);
}

/* ---- the gate ---- */

static void hand_on(struct rig *rig, int fd)
{
    struct gate_peer from = {.ip = "127.0.0.1"};
    struct preamble preamble;
    const char *text = "";
    uint8_t data[256];
    size_t n = 0;
    int r = -EAGAIN;

    while (r == -EAGAIN) {
        ssize_t got = recv(fd, data + n, sizeof data - n, 0);

        if (got <= 0)
            break;
        n += (size_t)got;
        r = preamble_parse(data, n, &preamble);
    }
    if (r > 0) {
        fcntl(fd, F_SETFL, O_NONBLOCK);
        r = forward_data(rig->sides[LISTENER].forward, fd, &from, &preamble, data + r,
                         n - (size_t)r, &text);
        if (r > 0) {
            struct preamble_reply reply = {.version = PREAMBLE_VERSION, .status = (uint8_t)r};
            uint8_t bytes[PREAMBLE_REPLY_MAX];

            send(fd, bytes, preamble_reply_pack(&reply, bytes), MSG_NOSIGNAL);
        }
    }
    if (r != 0)
        close(fd);
}

static void *play_gate(void *arg)
{
    struct rig *rig = arg;
    struct pollfd fds[2] = {{.fd = rig->gate_fd, .events = POLLIN},
                            {.fd = rig->wake[0], .events = POLLIN}};

    while (poll(fds, 2, -1) > 0 && !fds[1].revents) {
        int fd = accept4(rig->gate_fd, NULL, NULL, SOCK_CLOEXEC);

        atomic_fetch_add(&rig->gate_accepted, 1);
        if (atomic_load(&rig->gate_deaf))
            net_reset(fd);
        else
            hand_on(rig, fd);
    }
    return NULL;
}

/* ---- the whole ---- */

void rig_init(struct rig *rig)
{
    memset(rig, 0, sizeof *rig);
    limits_default(&rig->limits);
    rig->settings = (struct forward_settings){.limits = &rig->limits,
                                              .workers = 2,
                                              .route_ms = 10000,
                                              .dial_ms = 5000,
                                              .open_ms = 10000,
                                              .idle_ms = 600000,
                                              .half_close_ms = 300000,
                                              .ops = {.send = send_message}};
    pthread_mutex_init(&rig->lock, NULL);
    rig->last = &rig->held;
}

static void start_side(struct rig *rig, enum side which)
{
    struct rig_side *side = &rig->sides[which];
    struct forward_ingress ingress = {.host = "127.0.0.1", .name = "", .fallback = ""};
    char text[64];

    side->rig = rig;
    side->side = which;
    side->local = list_empty();
    snprintf(side->peer_id, sizeof side->peer_id, "%s", which == DIALLER ? "d" : "l");
    cr_assert_eq(registry_new(&(struct registry_settings){.peer_id = side->peer_id,
                                                          .epoch = 1,
                                                          .limits = &rig->limits},
                              &side->registry),
                 0);
    rig->settings.peer_id = side->peer_id;
    rig->settings.registry = side->registry;
    rig->settings.ingress = &ingress;
    rig->settings.n_ingress = 1;
    cr_assert_eq(forward_new(&rig->settings, &side->forward), 0);
    cr_assert_eq(forward_listen(side->forward, 0, text, sizeof text), 0);
    side->port = (uint16_t)atoi(strrchr(text, ':') + 1);
    cr_assert_eq(forward_start(side->forward), 0);
}

void rig_start(struct rig *rig)
{
    struct registry_change change;
    const char *label;

    start_side(rig, DIALLER);
    start_side(rig, LISTENER);
    for (int i = 0; i < 2; i++)
        cr_assert_eq(registry_peer_open(rig->sides[i].registry, rig->sides[1 - i].peer_id,
                                        "127.0.0.1", 1, &label, &change),
                     0);
    rig->gate_fd = listen_any((struct sockaddr_in *)&rig->gate_at);
    cr_assert_eq(pipe2(rig->wake, O_CLOEXEC), 0);
    cr_assert_eq(pthread_create(&rig->gate, NULL, play_gate, rig), 0);
}

void rig_stop(struct rig *rig)
{
    struct rig_held *held, *next;

    cr_assert_eq(write(rig->wake[1], "", 1), 1);
    pthread_join(rig->gate, NULL);
    for (int i = 0; i < 2; i++)
        forward_stop(rig->sides[i].forward);
    for (int i = 0; i < 2; i++) {
        forward_free(rig->sides[i].forward);
        list_unref(rig->sides[i].local);
        registry_free(rig->sides[i].registry);
    }
    for (held = take_held(rig); held; held = next) {
        next = held->next;
        free(held);
    }
    close(rig->gate_fd);
    close(rig->wake[0]);
    close(rig->wake[1]);
}

static struct list *with(struct list *base, const char *name, const char *backend,
                         const char *label)
{
    struct row *row = row_new(name, strlen(name), backend, strlen(backend), label);
    struct list *list;

    cr_assert_eq(list_apply(base, &row, 1, NULL, 0, &list), 0);
    row_unref(row);
    return list;
}

void rig_offer(struct rig *rig, enum side which, const char *name, const char *backend)
{
    struct rig_side *side = &rig->sides[which], *other = &rig->sides[1 - which];
    struct registry_peer_info info;
    struct registry_refusals refusals = {0};
    struct registry_change change;
    struct list *list = with(side->local, name, backend, "local"), *theirs;
    struct list_iter it;
    struct row *row;

    cr_assert_eq(registry_put_local(side->registry, ++side->version, list, 1, &refusals, &change),
                 0);
    list_unref(side->local);
    side->local = list;
    cr_assert_eq(registry_peer_get(other->registry, side->peer_id, &info), 0);
    theirs = list_empty();
    list_iter_init(&it, list);
    while ((row = list_iter_next(&it))) {
        struct list *more = with(theirs, row->name, row->backend, info.label);

        list_unref(theirs);
        theirs = more;
    }
    cr_assert_eq(registry_put_list(other->registry, side->peer_id, 1, side->version, theirs, 1,
                                   &refusals, &change),
                 0);
    list_unref(theirs);
}
