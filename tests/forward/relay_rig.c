/* relay_rig - see relay_rig.h. */
#include "relay_rig.h"
#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <malloc.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

uint64_t now_ms(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

unsigned test_seed(void)
{
    const char *text = getenv("MESHD_TEST_SEED");
    unsigned seed =
        text && *text ? (unsigned)strtoul(text, NULL, 10) : (unsigned)(now_ms() & 0xffffff);

    fprintf(stderr, "MESHD_TEST_SEED=%u\n", seed);
    return seed;
}

size_t heap_bytes(void)
{
    struct mallinfo2 info = mallinfo2();

    return info.uordblks + info.hblkhd;
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

/* ---- the worker ---- */

static void begin(struct worker *worker) {}

static void end(struct worker *worker)
{
    relay_cut_all(worker, FORWARD_DRAINED);
    relay_worker_fini(worker);
}

static void on_turn(struct worker *worker)
{
    atomic_fetch_add(&CONTAINER_OF(worker, struct rig, worker)->turns, 1);
}

void rig_start(struct rig *rig, uint32_t idle_ms, uint32_t half_close_ms)
{
    const struct worker_body body = {.begin = begin, .end = end, .turn = on_turn};

    signal(SIGPIPE, SIG_IGN); /* as the daemon does: splice would raise it */
    memset(rig, 0, sizeof(*rig));
    rig->forward.idle_ms = idle_ms;
    rig->forward.half_close_ms = half_close_ms;
    pthread_mutex_init(&rig->lock, NULL);
    pthread_cond_init(&rig->changed, NULL);
    if (worker_init(&rig->worker, &rig->forward, 0) < 0 || worker_start(&rig->worker, &body) < 0)
        abort();
}

void rig_stop(struct rig *rig)
{
    worker_stop(&rig->worker);
    worker_fini(&rig->worker);
    trust_unwrapped();
    pthread_cond_destroy(&rig->changed);
    pthread_mutex_destroy(&rig->lock);
}

struct job {
    struct mail mail;
    struct rig *rig;
    void (*what)(void *arg);
    void *arg;
    bool done;
};

static void read_job(struct worker *worker, struct mail *mail)
{
    struct job *job = CONTAINER_OF(mail, struct job, mail);

    (void)worker;
    job->what(job->arg);
    pthread_mutex_lock(&job->rig->lock);
    job->done = true;
    pthread_cond_broadcast(&job->rig->changed);
    pthread_mutex_unlock(&job->rig->lock);
}

static bool wait_for(struct rig *rig, const bool *flag)
{
    struct timespec at;
    bool set;

    clock_gettime(CLOCK_REALTIME, &at);
    at.tv_sec += WAIT_MS / 1000;
    pthread_mutex_lock(&rig->lock);
    while (!*flag && pthread_cond_timedwait(&rig->changed, &rig->lock, &at) == 0)
        ;
    set = *flag;
    pthread_mutex_unlock(&rig->lock);
    return set;
}

void rig_do(struct rig *rig, void (*what)(void *arg), void *arg)
{
    struct job job = {.mail.read = read_job, .rig = rig, .what = what, .arg = arg};

    worker_post(&rig->worker, &job.mail);
    if (!wait_for(rig, &job.done))
        abort();
}

/* ---- a relay ---- */

static void set_buffers(int fd, int bytes)
{
    setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &bytes, sizeof(bytes));
    setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &bytes, sizeof(bytes));
}

/* An address of the host for each pair: on one alone, connections that have ended would hold its
 * ports for a minute, until none is left. */
static in_addr_t next_address(void)
{
    static uint32_t n;

    if (n == 0)
        n = (uint32_t)getpid() * 1009u;
    return htonl(0x7f010000u + ++n % 0x00fe0000u);
}

static void connect_pair(int fds[2], int buffer)
{
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = next_address()};
    socklen_t len = sizeof(at);
    const int on = 1;
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    fds[0] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (buffer) {
        set_buffers(listener, buffer); /* inherited */
        set_buffers(fds[0], buffer);
    }
    if (bind(listener, (struct sockaddr *)&at, len) < 0 || listen(listener, 1) < 0 ||
        getsockname(listener, (struct sockaddr *)&at, &len) < 0 ||
        connect(fds[0], (struct sockaddr *)&at, len) < 0)
        abort();
    fds[1] = accept4(listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    if (fds[1] < 0)
        abort();
    close(listener);
    fcntl(fds[0], F_SETFL, O_NONBLOCK);
    for (int i = 0; i < 2; i++)
        setsockopt(fds[i], IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    setsockopt(fds[1], SOL_SOCKET, SO_OOBINLINE, &on, sizeof(on));
}

static struct tls *wrap(int *end, enum tls_role role, int fd, int buffer)
{
    struct tls *tls;

    *end = trust_wrap("far", role == TLS_ACCEPT ? TLS_CONNECT : TLS_ACCEPT, *end, buffer);
    fcntl(*end, F_SETFL, O_NONBLOCK);
    tls = trust_shake("node", role, fd);
    if (!tls)
        abort();
    return tls;
}

void joined_init(struct joined *joined, struct rig *rig, int buffer)
{
    int client[2], backend[2];

    memset(joined, 0, sizeof(*joined));
    connect_pair(client, buffer);
    connect_pair(backend, buffer);
    joined->rig = rig;
    joined->client = client[0];
    joined->client_leg = client[1];
    joined->backend = backend[0];
    joined->backend_leg = backend[1];
    if (trust_wanted_of("client"))
        joined->client_tls = wrap(&joined->client, TLS_ACCEPT, joined->client_leg, buffer);
    if (trust_wanted_of("backend"))
        joined->backend_tls = wrap(&joined->backend, TLS_CONNECT, joined->backend_leg, buffer);
}

static void on_ended(void *ctx, enum forward_end how, uint64_t up, uint64_t down)
{
    struct joined *joined = ctx;

    pthread_mutex_lock(&joined->rig->lock);
    joined->ended = true;
    joined->ended_inside = joined->inside;
    joined->end = how;
    joined->up_bytes = up;
    joined->down_bytes = down;
    pthread_cond_broadcast(&joined->rig->changed);
    pthread_mutex_unlock(&joined->rig->lock);
}

static void begin_relay(void *arg)
{
    struct joined *joined = arg;
    struct worker *worker = &joined->rig->worker;
    const struct relay_settings settings = {
        .client = leg_new(worker, joined->client_leg),
        .backend = leg_new(worker, joined->backend_leg),
        .up = joined->up,
        .down = joined->down,
        .ctx = joined,
        .ended = on_ended,
    };

    leg_secure(settings.client, joined->client_tls, true);
    leg_secure(settings.backend, joined->backend_tls, true);
    joined->inside = true;
    joined->relay = relay_begin(worker, &settings);
    joined->inside = false;
}

void joined_begin(struct joined *joined) { rig_do(joined->rig, begin_relay, joined); }

void joined_start(struct joined *joined, struct rig *rig, int buffer)
{
    joined_init(joined, rig, buffer);
    joined_begin(joined);
}

bool joined_ended(struct joined *joined) { return wait_for(joined->rig, &joined->ended); }

bool joined_runs(struct joined *joined)
{
    bool ended;

    pthread_mutex_lock(&joined->rig->lock);
    ended = joined->ended;
    pthread_mutex_unlock(&joined->rig->lock);
    return !ended;
}

void joined_fini(struct joined *joined)
{
    if (joined->client >= 0)
        close(joined->client);
    if (joined->backend >= 0)
        close(joined->backend);
    joined->client = joined->backend = -1;
    if (joined->relay && !joined_ended(joined))
        abort();
}

/* ---- the far ends ---- */

uint8_t byte_at(uint64_t seed, size_t at)
{
    uint64_t x = (seed + (at >> 3)) * 0x9e3779b97f4a7c15u;

    x ^= x >> 29;
    return (uint8_t)(x >> (8 * (at & 7)));
}

void fill(uint8_t *data, size_t len, uint64_t seed, size_t at)
{
    for (size_t i = 0; i < len; i++)
        data[i] = byte_at(seed, at + i);
}

static uint8_t buffer[131072];

static size_t say(struct talk *talk)
{
    size_t len = talk->send - talk->sent, most = talk->chunk ? talk->chunk : sizeof(buffer);
    ssize_t n;

    if (len > most)
        len = most;
    fill(buffer, len, talk->seed, talk->sent);
    n = send(talk->fd, buffer, len, MSG_NOSIGNAL);
    if (n <= 0) {
        if (errno != EAGAIN)
            talk->shut = true; /* nobody listens */
        return 0;
    }
    talk->sent += (size_t)n;
    return (size_t)n;
}

static void hear(struct talk *talk)
{
    ssize_t n = recv(talk->fd, buffer, talk->chunk ? talk->chunk : sizeof(buffer), 0);

    if (n == 0)
        talk->eof = true;
    else if (n < 0 && errno != EAGAIN)
        talk->error = errno;
    for (ssize_t i = 0; i < n; i++) {
        if (buffer[i] != byte_at(talk->peer_seed, talk->received))
            talk->wrong = true;
        talk->received++;
    }
}

static bool over(const struct talk *talk) { return talk->eof || talk->error; }

void joined_talks(const struct joined *joined, size_t up, size_t down, struct talk talks[2])
{
    talks[0] = (struct talk){.fd = joined->client, .seed = 1, .peer_seed = 2, .send = up};
    talks[1] = (struct talk){.fd = joined->backend, .seed = 2, .peer_seed = 1, .send = down};
}

bool pump(struct talk *talks, size_t n, size_t until)
{
    uint64_t deadline = now_ms() + WAIT_MS;
    struct pollfd polls[16];

    while (now_ms() < deadline) {
        bool done = true;

        for (size_t i = 0; i < n; i++) {
            struct talk *talk = &talks[i];

            if (talk->sent == talk->send && !talk->keep_open && !talk->shut) {
                shutdown(talk->fd, SHUT_WR);
                talk->shut = true;
            }
            polls[i] = (struct pollfd){.fd = talk->fd};
            if (!over(talk))
                polls[i].events |= POLLIN;
            if (talk->sent < talk->send && !talk->shut)
                polls[i].events |= POLLOUT;
            if (polls[i].events)
                done = false;
            else
                polls[i].fd = -1;
        }
        if (done || (until && talks[n - 1].received >= until))
            return true;
        if (poll(polls, n, WAIT_MS) <= 0)
            return false;
        for (size_t i = 0; i < n; i++) {
            if (polls[i].revents & POLLOUT)
                say(&talks[i]);
            if (polls[i].revents & (POLLIN | POLLERR | POLLHUP) && !over(&talks[i]))
                hear(&talks[i]);
            if (talks[i].wrong)
                return false;
        }
    }
    return false;
}

size_t send_until_blocked(struct talk *talk, int quiet_ms)
{
    struct pollfd p = {.fd = talk->fd, .events = POLLOUT};

    while (talk->sent < talk->send && !talk->shut && poll(&p, 1, quiet_ms) > 0)
        say(talk);
    return talk->sent;
}

bool drain(struct talk *talk)
{
    struct pollfd p = {.fd = talk->fd, .events = POLLIN};

    while (!over(talk) && !talk->wrong) {
        if (poll(&p, 1, WAIT_MS) <= 0)
            return false;
        hear(talk);
    }
    return !talk->wrong;
}

bool quiet(int fd, int ms)
{
    struct pollfd p = {.fd = fd, .events = POLLIN};

    return poll(&p, 1, ms) == 0;
}

bool readable(int fd) { return !quiet(fd, WAIT_MS); }

size_t turns_in(struct rig *rig, int fd, int ms)
{
    size_t before = atomic_load(&rig->turns);

    if (!quiet(fd, ms))
        abort();
    return atomic_load(&rig->turns) - before;
}

void reset(int *fd)
{
    const struct linger zero = {.l_onoff = 1};

    setsockopt(*fd, SOL_SOCKET, SO_LINGER, &zero, sizeof(zero));
    close(*fd);
    *fd = -1;
}
