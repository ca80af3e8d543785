/* support - see support.h. */
#include "gate/support.h"
#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <malloc.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>
#include "gate/bridge.h"

uint64_t now_ms(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

void nap(void) { nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL); }

long env_number(const char *name, long usual)
{
    const char *text = getenv(name);

    return text && *text ? strtol(text, NULL, 10) : usual;
}

unsigned test_seed(void)
{
    unsigned seed = (unsigned)env_number("MESHD_TEST_SEED", (long)(now_ms() & 0xffffff));

    fprintf(stderr, "MESHD_TEST_SEED=%u\n", seed);
    return seed;
}

size_t open_descriptors(void)
{
    DIR *dir = opendir("/proc/self/fd");
    size_t n = 0;

    while (dir && readdir(dir))
        n++;
    closedir(dir);
    return n;
}

size_t heap_bytes(void)
{
    struct mallinfo2 info = mallinfo2();

    return info.uordblks + info.hblkhd;
}

size_t resident_bytes(void)
{
    FILE *file = fopen("/proc/self/statm", "r");
    size_t pages = 0, resident = 0;

    malloc_trim(0);
    if (file) {
        if (fscanf(file, "%zu %zu", &pages, &resident) != 2)
            resident = 0;
        fclose(file);
    }
    return resident * 4096;
}

/* --- sockets --- */

void set_timeouts(int fd)
{
    struct timeval wait = {.tv_sec = WAIT_MS / 1000};

    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &wait, sizeof(wait));
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &wait, sizeof(wait));
}

int dial_plain(struct rig *rig)
{
    const int on = 1;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    set_timeouts(fd);
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    if (connect(fd, (struct sockaddr *)&rig->at, sizeof(struct sockaddr_in)) < 0) {
        close(fd);
        return -1;
    }
    return fd;
}

int dial_gate(struct rig *rig)
{
    int fd = dial_plain(rig);

    if (fd < 0 || !rig->tls)
        return fd;
    fd = bridge(rig->tls, fd);
    set_timeouts(fd);
    return fd;
}

static struct sockaddr_un unix_address(const char *path)
{
    struct sockaddr_un addr = {.sun_family = AF_UNIX};

    snprintf(addr.sun_path, sizeof(addr.sun_path), "%s", path);
    return addr;
}

int dial_unix(const char *path)
{
    struct sockaddr_un addr = unix_address(path);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    set_timeouts(fd);
    if (connect(fd, (struct sockaddr *)&addr, sizeof(addr)) < 0) {
        close(fd);
        return -1;
    }
    return fd;
}

int listen_unix(const char *path)
{
    struct sockaddr_un addr = unix_address(path);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    unlink(path);
    if (bind(fd, (struct sockaddr *)&addr, sizeof(addr)) < 0 || listen(fd, 64) < 0)
        abort();
    set_timeouts(fd);
    return fd;
}

int accept_within(int listener)
{
    int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);

    if (fd >= 0)
        set_timeouts(fd);
    return fd;
}

bool send_all(int fd, const void *data, size_t len)
{
    const uint8_t *at = data;

    while (len > 0) {
        ssize_t n = send(fd, at, len, MSG_NOSIGNAL);

        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return false;
        at += n;
        len -= (size_t)n;
    }
    return true;
}

bool recv_all(int fd, void *data, size_t len)
{
    uint8_t *at = data;

    while (len > 0) {
        ssize_t n = recv(fd, at, len, 0);

        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return false;
        at += n;
        len -= (size_t)n;
    }
    return true;
}

bool closed_by_gate(int fd)
{
    char sink[4096];

    for (;;) {
        ssize_t n = recv(fd, sink, sizeof(sink), 0);

        if (n == 0 || (n < 0 && (errno == ECONNRESET || errno == EPIPE)))
            return true;
        if (n < 0 && errno != EINTR)
            return false;
    }
}

bool send_hello(int fd, enum sp_protocol protocol)
{
    uint8_t hello[SP_HELLO_LEN];

    sp_hello_pack(protocol, hello);
    return send_all(fd, hello, sizeof(hello));
}

bool recv_hello(int fd, enum sp_protocol protocol)
{
    uint8_t hello[SP_HELLO_LEN];
    uint16_t said;

    return recv_all(fd, hello, sizeof(hello)) && sp_hello_parse(hello, &said) == 0 &&
           said == protocol;
}

bool send_message(int fd, enum sp_framing framing, const void *payload, size_t len)
{
    uint8_t head[SP_HEAD_MAX];

    sp_head_pack(framing, len, head);
    return send_all(fd, head, sp_head_len(framing)) && send_all(fd, payload, len);
}

ssize_t recv_message(int fd, enum sp_framing framing, void *payload, size_t cap)
{
    uint8_t head[SP_HEAD_MAX];
    uint64_t len = 0;

    if (!recv_all(fd, head, sp_head_len(framing)) ||
        sp_head_parse(framing, head, sizeof(head), cap, &len) < 0 || !recv_all(fd, payload, len))
        return -1;
    return (ssize_t)len;
}

int req_client(struct rig *rig)
{
    int fd = dial_gate(rig);

    if (fd >= 0 && send_hello(fd, SP_REQ0) && recv_hello(fd, SP_REP0))
        return fd;
    if (fd >= 0)
        close(fd);
    return -1;
}

size_t make_request(uint8_t *out, uint32_t id, size_t len)
{
    uint32_t word = htonl(id | 0x80000000u);

    memcpy(out, &word, 4);
    for (size_t i = 0; i < len; i++)
        out[4 + i] = (uint8_t)(id * 31 + i * 7 + (i >> 8));
    return 4 + len;
}

void reset_and_close(int fd)
{
    struct linger linger = {.l_onoff = 1};

    setsockopt(fd, SOL_SOCKET, SO_LINGER, &linger, sizeof(linger));
    close(fd);
}

/* --- REP --- */

struct rep_lane {
    struct fake_rep *rep;
    int fd;
    uint8_t payload[4u << 20];
};

static void *rep_lane(void *arg)
{
    struct rep_lane *lane = arg;
    struct fake_rep *rep = lane->rep;
    uint8_t first;
    bool up = send_hello(lane->fd, SP_REP0) && recv_hello(lane->fd, SP_REQ0);

    while (up) {
        ssize_t n;

        n = recv(lane->fd, &first, 1, MSG_PEEK);
        if (n < 0 && errno == EAGAIN)
            continue;
        if (n <= 0)
            break;
        while (atomic_load(&rep->hold) && !atomic_load(&rep->stop))
            nap();
        n = recv_message(lane->fd, SP_IPC, lane->payload, sizeof(lane->payload));
        if (n < 0) {
            atomic_fetch_add(&rep->unclean, 1);
            break;
        }
        atomic_fetch_add(&rep->requests, 1);
        if (atomic_load(&rep->kick) > 0) {
            atomic_fetch_sub(&rep->kick, 1);
            break;
        }
        if (!send_message(lane->fd, SP_IPC, lane->payload, (size_t)n))
            break;
    }
    close(lane->fd);
    free(lane);
    atomic_fetch_sub(&rep->lanes, 1);
    return NULL;
}

static void *rep_accept(void *arg)
{
    struct fake_rep *rep = arg;

    while (!atomic_load(&rep->stop)) {
        int fd = accept_within(rep->listener);
        struct rep_lane *lane;
        pthread_t thread;

        if (fd < 0)
            continue;
        if (atomic_load(&rep->stop)) {
            close(fd);
            break;
        }
        lane = malloc(sizeof(*lane));
        lane->rep = rep;
        lane->fd = fd;
        atomic_fetch_add(&rep->lanes, 1);
        atomic_fetch_add(&rep->lanes_seen, 1);
        pthread_create(&thread, NULL, rep_lane, lane);
        pthread_detach(thread);
    }
    return NULL;
}

void fake_rep_start(struct fake_rep *rep, const char *path)
{
    memset(rep, 0, sizeof(*rep));
    snprintf(rep->path, sizeof(rep->path), "%s", path);
    rep->listener = listen_unix(path);
    pthread_create(&rep->thread, NULL, rep_accept, rep);
}

void fake_rep_stop(struct fake_rep *rep)
{
    uint64_t until = now_ms() + WAIT_MS;
    int fd;

    atomic_store(&rep->stop, true);
    fd = dial_unix(rep->path); /* wakes it */
    pthread_join(rep->thread, NULL);
    if (fd >= 0)
        close(fd);
    close(rep->listener);
    unlink(rep->path);
    while (atomic_load(&rep->lanes) > 0 && now_ms() < until)
        nap();
}

/* --- the rig --- */

static void tell(struct rig *rig, const struct told_event *event)
{
    pthread_mutex_lock(&rig->lock);
    if (rig->n_told == rig->cap_told) {
        rig->cap_told = rig->cap_told ? 2 * rig->cap_told : 64;
        rig->told = realloc(rig->told, rig->cap_told * sizeof(*rig->told));
    }
    rig->told[rig->n_told++] = *event;
    pthread_cond_broadcast(&rig->changed);
    pthread_mutex_unlock(&rig->lock);
}

static void on_asked(void *ctx, uint32_t conn, const struct gate_peer *from,
                     const struct preamble *preamble)
{
    tell(ctx, &(struct told_event){TOLD_ASKED, .conn = conn, .peer = *from, .preamble = *preamble});
}

static void on_up(void *ctx, uint32_t conn, const struct gate_peer *peer)
{
    tell(ctx, &(struct told_event){TOLD_UP, .conn = conn, .peer = *peer});
}

static void on_ending(void *ctx, uint32_t conn, const struct gate_end *why)
{
    struct rig *rig = ctx;

    tell(rig, &(struct told_event){TOLD_ENDING, .conn = conn});
    if (rig->end_at_once)
        gate_end(rig->gate, conn, 0);
}

static void on_ended(void *ctx, uint32_t conn, const struct gate_end *why)
{
    tell(ctx, &(struct told_event){TOLD_ENDED, .conn = conn, .why = *why});
}

bool rig_told(struct rig *rig, enum told what, uint32_t conn, struct told_event *out)
{
    struct timespec until;
    bool found = false;
    int r = 0;

    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += WAIT_MS / 1000;
    pthread_mutex_lock(&rig->lock);
    while (!found && r == 0) {
        for (size_t i = 0; i < rig->n_told && !found; i++) {
            struct told_event *event = &rig->told[i];

            if (event->taken || event->what != what || (conn != 0 && event->conn != conn))
                continue;
            event->taken = found = true;
            if (out)
                *out = *event;
        }
        if (!found)
            r = pthread_cond_timedwait(&rig->changed, &rig->lock, &until);
    }
    pthread_mutex_unlock(&rig->lock);
    return found;
}

size_t rig_told_count(struct rig *rig, enum told what)
{
    size_t n = 0;

    pthread_mutex_lock(&rig->lock);
    for (size_t i = 0; i < rig->n_told; i++)
        n += rig->told[i].what == what;
    pthread_mutex_unlock(&rig->lock);
    return n;
}

struct gate_counters rig_count(struct rig *rig)
{
    struct gate_counters count;

    gate_counters(rig->gate, &count);
    return count;
}

void rig_init(struct rig *rig)
{
    memset(rig, 0, sizeof(*rig));
    limits_default(&rig->limits);
    rig->first_bytes_ms = WAIT_MS;
    rig->dial_ms = 5000;
    rig->idle_ms = 600000;
    rig->lanes = 2;
    pthread_mutex_init(&rig->lock, NULL);
    pthread_cond_init(&rig->changed, NULL);
    snprintf(rig->dir, sizeof(rig->dir), "/tmp/meshd-gate-XXXXXX");
    if (!mkdtemp(rig->dir))
        abort();
    if (GATE_TLS)
        rig->tls = keeper_of("rig", issue_ca(NULL, "mesh"), "DNS:n7,DNS:n8,DNS:n9,DNS:x");
}

void rig_start(struct rig *rig)
{
    struct sockaddr_in any = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
    char path[108];

    bridges_start();
    snprintf(path, sizeof(path), "%s/rep", rig->dir);
    fake_rep_start(&rig->rep, path);
    struct gate_settings settings = {
        .limits = &rig->limits,
        .rep_path = path,
        .lanes = rig->lanes,
        .first_bytes_ms = rig->first_bytes_ms,
        .dial_ms = rig->dial_ms,
        .idle_ms = rig->idle_ms,
        .ops = {rig, on_asked, on_up, on_ending, on_ended, rig->data},
        .epoch = rig->epoch,
        .tls = rig->tls,
        .watch_ops = rig->watch_ops,
    };
    snprintf(rig->unix_path, sizeof(rig->unix_path), "%s/sock", rig->dir);
    if (gate_new(&settings, &rig->gate) < 0 ||
        gate_listen_tcp(rig->gate, (struct sockaddr *)&any, sizeof(any), &rig->at) < 0 ||
        gate_listen_unix(rig->gate, rig->unix_path, 0600) < 0 || gate_start(rig->gate) < 0)
        abort();
}

void *rig_quit(void *arg)
{
    struct rig *rig = arg;

    gate_stop(rig->gate, 3000);
    return NULL;
}

void rig_stop(struct rig *rig)
{
    gate_stop(rig->gate, 3000);
    gate_free(rig->gate);
    fake_rep_stop(&rig->rep);
    bridges_stop();
    tls_keeper_free(rig->tls);
    free(rig->told);
    rmdir(rig->dir);
}
