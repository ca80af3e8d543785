#include "forward/rig.h"

#include <fcntl.h>
#include <poll.h>
#include <semaphore.h>
#include <unistd.h>
#include <meshd/v1/mesh.pb-c.h>
#include "base/random.h"
#include "forward/inside.h"
#include "forward/must.h"
#include "forward/peer.h"
#include "gate/tcp.h"
#include "wire/frame.h"

#define LINK 7u /* its number on both sides */

/* ---- the link ---- */

static void deliver(struct rig *rig, const struct rig_held *held)
{
    forward_message(rig->sides[held->to].forward, LINK, held->session_id, held->kind, held->bytes,
                    held->len);
}

static void count_message(struct rig *rig, int kind, const ProtobufCMessage *body, size_t len)
{
    atomic_fetch_add(&rig->sent[kind], 1);
    if (kind == MESHD__V1__LINK_KIND__LINK_KIND_FORWARDS)
        atomic_fetch_add(&rig->sent_forwards, (int)((const Meshd__V1__Forwards *)body)->n_forwards);
    if (len > atomic_load(&rig->largest))
        atomic_store(&rig->largest, len);
}

static int send_message(void *ctx, void *arg, int kind, const uint8_t session_id[SESSION_ID_LEN],
                        const ProtobufCMessage *body)
{
    const struct rig_line *line = arg;
    struct rig *rig = line->rig;
    size_t len = protobuf_c_message_get_packed_size(body);
    struct rig_held *held;

    if (atomic_load(&rig->refuse))
        return atomic_load(&rig->refuse);
    count_message(rig, kind, body, len);
    if (atomic_load(&rig->lose))
        return 0;
    held = malloc(sizeof *held + len);
    held->next = NULL;
    held->to = !line->from;
    held->kind = kind;
    held->len = len;
    memcpy(held->session_id, session_id, SESSION_ID_LEN);
    protobuf_c_message_pack(body, held->bytes);
    if (line->peer) {
        peer_hear(line->peer, kind, held->bytes, len);
    } else if (atomic_load(&rig->hold)) {
        pthread_mutex_lock(&rig->lock);
        *rig->last = held;
        rig->last = &held->next;
        pthread_mutex_unlock(&rig->lock);
        return 0;
    } else {
        deliver(rig, held);
    }
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
        deliver(rig, held);
        free(held);
    }
}

static void tell_state(struct rig *rig, bool up)
{
    struct registry_change change;

    for (int i = 0; i < 2; i++) {
        struct rig_side *side = &rig->sides[i];
        struct registry_state state = {
            .connected = up, .stale = !up, .link_id = up ? LINK : 0, .last_seen_ms = 1};

        memcpy(state.session_id, rig->session_id, SESSION_ID_LEN);
        MUST(registry_peer_state(side->registry, rig->sides[1 - i].peer_id, &state, &change) == 0);
    }
}

void rig_link_up(struct rig *rig)
{
    random_bytes(rig->session_id, sizeof rig->session_id);
    for (int i = 0; i < 2; i++) {
        struct forward_session_info info = {.link = LINK, .line = &rig->sides[i].line};

        memcpy(info.session_id, rig->session_id, SESSION_ID_LEN);
        snprintf(info.peer_id, sizeof info.peer_id, "%s", rig->sides[1 - i].peer_id);
        info.dialled = i == DIALLER;
        info.to = rig->gate_at;
        MUST(forward_session_begin(rig->sides[i].forward, &info) == 0);
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

static void drop_coming(struct rig_coming *c)
{
    tls_free(c->tls);
    close(c->fd);
    c->fd = -1;
}

static void refuse_data(struct rig_coming *c, int status)
{
    struct preamble_reply reply = {.version = PREAMBLE_VERSION, .status = (uint8_t)status};
    uint8_t bytes[PREAMBLE_REPLY_MAX];
    size_t n = preamble_reply_pack(&reply, bytes);

    if (c->tls)
        tls_write(c->tls, bytes, n);
    else
        send(c->fd, bytes, n, MSG_NOSIGNAL);
    drop_coming(c);
}

static ssize_t read_some(struct rig_coming *c)
{
    int r = c->tls ? tls_handshake(c->tls) : 0;
    ssize_t n;

    if (r < 0)
        return r;
    if (c->tls)
        return tls_read(c->tls, c->data + c->n, sizeof c->data - c->n);
    n = recv(c->fd, c->data + c->n, sizeof c->data - c->n, 0);
    return n < 0 ? -errno : n;
}

/* False: it waits for more. */
static bool hand_on(struct rig *rig, struct rig_coming *c)
{
    struct gate_peer from = {.ip = "127.0.0.1", .secure = c->tls != NULL};
    struct preamble preamble;
    const char *text = "";
    int r = -EAGAIN, status;

    while (r == -EAGAIN) {
        ssize_t got = read_some(c);

        if (got == -EAGAIN)
            return false;
        if (got <= 0)
            break;
        c->n += (size_t)got;
        r = preamble_parse(c->data, c->n, &preamble);
    }
    if (r <= 0) {
        drop_coming(c);
        return true;
    }
    if (rig->through_middle && !c->tls)
        c->fd = middle_add(&rig->middle, c->fd);
    fcntl(c->fd, F_SETFL, O_NONBLOCK);
    status = forward_data(rig->sides[LISTENER].forward, c->fd, c->tls, &from, &preamble,
                          c->data + r, c->n - (size_t)r, &text);
    if (status != 0)
        refuse_data(c, status);
    return true;
}

/* TLS goes through the middle from the beginning; plaintext once its preamble was read. */
static void accept_data(struct rig *rig)
{
    const char *who = rig->gate_shows ? rig->gate_shows : rig->sides[LISTENER].peer_id;
    struct rig_coming c = {.fd = accept4(rig->gate_fd, NULL, NULL, SOCK_CLOEXEC)};

    MUST(c.fd >= 0);
    if (atomic_load(&rig->gate_deaf)) {
        net_reset(c.fd);
        return;
    }
    if (rig->tls) {
        if (rig->through_middle)
            c.fd = middle_add(&rig->middle, c.fd);
        fcntl(c.fd, F_SETFL, O_NONBLOCK);
        tcp_options(c.fd);
        MUST(tls_new(trust_keeper(who), TLS_ACCEPT, c.fd, "", false, &c.tls) == 0);
    }
    if (hand_on(rig, &c))
        return;
    rig->coming = realloc(rig->coming, (rig->n_coming + 1) * sizeof c);
    MUST(rig->coming);
    rig->coming[rig->n_coming++] = c;
}

static void poll_coming(const struct rig *rig, struct pollfd *polls)
{
    for (size_t i = 0; i < rig->n_coming; i++) {
        int wants = tls_wants(rig->coming[i].tls);

        polls[i] = (struct pollfd){.fd = rig->coming[i].fd,
                                   .events = wants & TLS_WRITABLE ? POLLOUT : POLLIN};
    }
}

static void pass_coming(struct rig *rig, const struct pollfd *polls, size_t n)
{
    size_t left = 0;

    for (size_t i = 0; i < n; i++)
        if (!polls[i].revents || !hand_on(rig, &rig->coming[i]))
            rig->coming[left++] = rig->coming[i];
    rig->n_coming = left;
}

/* What the test tells the gate's thread: a byte. False: to end. */
static bool obey(struct rig *rig)
{
    char what;

    MUST(read(rig->wake[0], &what, 1) == 1);
    if (what == 'f')
        middle_forget(&rig->middle);
    else if (what == 'b')
        middle_break(&rig->middle);
    else if (what == 'e')
        middle_end(&rig->middle);
    else if (what == 'r' || what == 'g')
        rig->gate_resting = what == 'r';
    atomic_fetch_add(&rig->gate_heard, 1);
    return what != 'q';
}

static void *play_gate(void *arg)
{
    struct rig *rig = arg;
    struct pollfd *fds = NULL;
    bool goes_on = true;

    while (goes_on) {
        size_t n = rig->middle.n, coming = rig->n_coming, all = 2 + 2 * n + coming;

        fds = realloc(fds, all * sizeof *fds);
        MUST(fds);
        fds[0] = (struct pollfd){.fd = rig->gate_resting ? -1 : rig->gate_fd, .events = POLLIN};
        fds[1] = (struct pollfd){.fd = rig->wake[0], .events = POLLIN};
        middle_poll(&rig->middle, fds + 2);
        poll_coming(rig, fds + 2 + 2 * n);
        MUST(poll(fds, all, -1) > 0 || errno == EINTR);
        middle_pass(&rig->middle, fds + 2, n);
        pass_coming(rig, fds + 2 + 2 * n, coming);
        if (fds[0].revents)
            accept_data(rig);
        if (fds[1].revents)
            goes_on = obey(rig);
    }
    free(fds);
    return NULL;
}

struct heard {
    atomic_int *count;
    int want;
};

static bool is_heard(void *arg)
{
    struct heard *heard = arg;

    return atomic_load(heard->count) >= heard->want;
}

static void tell_gate(struct rig *rig, char what)
{
    struct heard heard = {&rig->gate_heard, atomic_load(&rig->gate_heard) + 1};

    MUST(write(rig->wake[1], &what, 1) == 1);
    wait_until(is_heard, &heard);
}

void rig_forget_data(struct rig *rig) { tell_gate(rig, 'f'); }

void rig_gate_rests(struct rig *rig, bool rests) { tell_gate(rig, rests ? 'r' : 'g'); }

void rig_break_data(struct rig *rig) { tell_gate(rig, 'b'); }

void rig_end_data(struct rig *rig) { tell_gate(rig, 'e'); }

/* ---- the whole ---- */

void rig_init(struct rig *rig)
{
    uv_loop_t first;

    memset(rig, 0, sizeof *rig);
    limits_default(&rig->limits);
    rig->settings = (struct forward_settings){.limits = &rig->limits,
                                              .workers = 2,
                                              .route_ms = 60000,
                                              .dial_ms = 30000,
                                              .open_ms = 60000,
                                              .idle_ms = 600000,
                                              .half_close_ms = 300000,
                                              .ops = {.send = send_message}};
    rig->tls = trust_wanted();
    pthread_mutex_init(&rig->lock, NULL);
    rig->last = &rig->held;
    MUST(uv_loop_init(&first) == 0); /* libuv keeps some descriptors from the first loop on */
    MUST(uv_loop_close(&first) == 0);
    rig->descriptors = net_descriptors();
}

static void start_side(struct rig *rig, enum side which)
{
    struct rig_side *side = &rig->sides[which];
    struct forward_ingress ingress[] = {{.host = "127.0.0.1", .name = "", .fallback = ""},
                                        {.host = "127.0.0.1", .name = "db", .fallback = ""}};
    char text[64];

    side->line = (struct rig_line){.rig = rig, .from = which};
    side->local = list_empty();
    snprintf(side->peer_id, sizeof side->peer_id, "%s", which == DIALLER ? "d" : "l");
    MUST(registry_new(&(struct registry_settings){.peer_id = side->peer_id,
                                                  .epoch = 1,
                                                  .limits = &rig->limits},
                      &side->registry) == 0);
    rig->settings.peer_id = side->peer_id;
    rig->settings.registry = side->registry;
    rig->settings.ingress = ingress;
    rig->settings.n_ingress = 2;
    rig->settings.tls = rig->tls ? trust_keeper(side->peer_id) : NULL;
    MUST(forward_new(&rig->settings, &side->forward) == 0);
    MUST(forward_listen(side->forward, 0, text, sizeof text) == 0);
    side->port = (uint16_t)atoi(strrchr(text, ':') + 1);
    MUST(forward_listen(side->forward, 1, text, sizeof text) == 0);
    side->mapped = (uint16_t)atoi(strrchr(text, ':') + 1);
    MUST(forward_start(side->forward) == 0);
}

void rig_start(struct rig *rig)
{
    struct registry_change change;
    const char *label;

    start_side(rig, DIALLER);
    start_side(rig, LISTENER);
    for (int i = 0; i < 2; i++)
        MUST(registry_peer_open(rig->sides[i].registry, rig->sides[1 - i].peer_id, "127.0.0.1", 1,
                                &label, &change) == 0);
    rig->gate_fd = net_listen_at((struct sockaddr_in *)&rig->gate_at);
    MUST(pipe2(rig->wake, O_CLOEXEC) == 0);
    MUST(pthread_create(&rig->gate, NULL, play_gate, rig) == 0);
}

void rig_stop(struct rig *rig)
{
    struct rig_held *held, *next;

    tell_gate(rig, 'q');
    pthread_join(rig->gate, NULL);
    for (size_t i = 0; i < rig->n_coming; i++)
        drop_coming(&rig->coming[i]);
    free(rig->coming);
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
    middle_fini(&rig->middle);
    trust_unwrapped();
    close(rig->gate_fd);
    close(rig->wake[0]);
    close(rig->wake[1]);
}

void rig_check_descriptors(struct rig *rig) { MUST(net_descriptors() == rig->descriptors); }

static struct list *with(struct list *base, const char *name, const char *backend,
                         const char *label, unsigned flags)
{
    struct row *row = row_new(name, strlen(name), backend, strlen(backend), label, flags);
    struct list *list;

    MUST(list_apply(base, &row, 1, NULL, 0, &list) == 0);
    row_unref(row);
    return list;
}

void rig_change_here(struct rig *rig, enum side which, const char *name, const char *backend,
                     unsigned row_flags)
{
    struct rig_side *side = &rig->sides[which];
    struct registry_refusals refusals = {0};
    struct registry_change change;
    struct list *list = with(side->local, name, backend, "local", row_flags);

    MUST(registry_put_local(side->registry, ++side->version, list, 1, &refusals, &change) == 0);
    list_unref(side->local);
    side->local = list;
}

void rig_offer(struct rig *rig, enum side which, const char *name, const char *backend)
{
    rig_offer_as(rig, which, name, backend, 0);
}

void rig_offer_as(struct rig *rig, enum side which, const char *name, const char *backend,
                  unsigned row_flags)
{
    struct rig_side *side = &rig->sides[which], *other = &rig->sides[1 - which];
    struct registry_peer_info info;
    struct registry_refusals refusals = {0};
    struct registry_change change;
    struct list *theirs;
    struct list_iter it;
    struct row *row;

    rig_change_here(rig, which, name, backend, row_flags);
    MUST(registry_peer_get(other->registry, side->peer_id, &info) == 0);
    theirs = list_empty();
    list_iter_init(&it, side->local);
    while ((row = list_iter_next(&it))) {
        struct list *more =
            with(theirs, row->name, row->backend, info.label, row->flags & ROW_TOLD);

        list_unref(theirs);
        theirs = more;
    }
    MUST(registry_put_list(other->registry, side->peer_id, 1, side->version, theirs, 1, &refusals,
                           &change) == 0);
    list_unref(theirs);
}

void rig_withdraw(struct rig *rig, enum side which)
{
    struct rig_side *side = &rig->sides[which];
    struct registry_refusals refusals = {0};
    struct registry_change change;

    list_unref(side->local);
    side->local = list_empty();
    MUST(registry_put_local(side->registry, ++side->version, side->local, 1, &refusals, &change) ==
         0);
}

/* ---- what is left ---- */

struct forward_counters rig_counters(struct rig *rig, enum side side)
{
    struct forward_counters counters;

    forward_counters(rig->sides[side].forward, &counters);
    return counters;
}

struct awaited {
    struct rig *rig;
    enum side side;
    size_t offset;
    uint64_t value;
};

static bool is_so(void *arg)
{
    struct awaited *a = arg;
    struct forward_counters counters = rig_counters(a->rig, a->side);

    return *(uint64_t *)((char *)&counters + a->offset) == a->value;
}

void rig_wait_counter(struct rig *rig, enum side side, size_t offset, uint64_t value)
{
    struct awaited awaited = {rig, side, offset, value};

    wait_until(is_so, &awaited);
}

/* Of a sanitizer, if there is one: Criterion's processes do not end in a way that it looks at. */
int __lsan_do_recoverable_leak_check(void) __attribute__((weak));

static bool nothing_is_left(void *arg)
{
    struct rig *rig = arg;

    for (int i = 0; i < 2; i++) {
        struct forward_counters c = rig_counters(rig, i);

        if (c.clients || c.unrouted || c.pending || c.relayed || c.served || c.warm ||
            c.data_waiting || c.largest_service || c.largest_source || c.largest_source_unrouted)
            return false;
    }
    return true;
}

void rig_end(struct rig *rig)
{
    for (int i = 0; i < 2; i++) {
        RIG_WAIT(rig, i, clients, 0);
        RIG_WAIT(rig, i, served, 0);
        MUST(forward_active(rig->sides[i].forward) == 0);
        MUST(forward_session_pending(rig->sides[i].forward, LINK) == 0);
    }
    rig_link_down(rig);
    wait_until(nothing_is_left, rig);
    rig_stop(rig);
    rig_check_descriptors(rig);
    if (__lsan_do_recoverable_leak_check)
        MUST(__lsan_do_recoverable_leak_check() == 0);
}

/* ---- order ---- */

struct stall {
    struct mail mail;
    sem_t begun, over;
};

static void read_stall(struct worker *worker, struct mail *mail)
{
    struct stall *stall = CONTAINER_OF(mail, struct stall, mail);

    sem_post(&stall->begun);
    sem_wait(&stall->over);
    sem_destroy(&stall->begun);
    sem_destroy(&stall->over);
    free(stall);
}

struct stall *stall_post(struct forward *forward, unsigned worker)
{
    struct stall *stall = calloc(1, sizeof *stall);

    MUST(stall);
    stall->mail.read = read_stall;
    sem_init(&stall->begun, 0, 0);
    sem_init(&stall->over, 0, 0);
    worker_post(&forward->workers[worker], &stall->mail);
    return stall;
}

void stall_wait(struct stall *stall) { sem_wait(&stall->begun); }

struct stall *stall_begin(struct forward *forward, unsigned worker)
{
    struct stall *stall = stall_post(forward, worker);

    stall_wait(stall);
    return stall;
}

void stall_end(struct stall *stall) { sem_post(&stall->over); }

void rig_settle(struct forward *forward)
{
    for (unsigned i = 0; i < forward->n_workers; i++)
        stall_end(stall_begin(forward, i));
}
