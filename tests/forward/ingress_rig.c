#include "forward/ingress_rig.h"

#include <arpa/inet.h>
#include <criterion/criterion.h>
#include <dirent.h>
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include "forward/relay.h"
#include "forward/source.h"

/* --- the rig --- */

static void begin(struct worker *worker)
{
    if (ingress_worker_start(worker) < 0)
        abort();
}

static void end(struct worker *worker)
{
    ingress_worker_stop(worker);
    relay_cut_all(worker, FORWARD_DRAINED);
    relay_worker_fini(worker);
}

void rig_init(struct rig *rig)
{
    socklen_t len = sizeof(fake.backend);

    memset(rig, 0, sizeof(*rig));
    fake_carry_init();
    limits_default(&rig->forward.limits);
    rig->forward.route_ms = 60000;
    rig->forward.idle_ms = 60000;
    rig->forward.half_close_ms = 60000;
    snprintf(rig->forward.peer_id, sizeof(rig->forward.peer_id), "n1");
    fake.backend =
        (struct sockaddr_in){.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    rig->backend = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    cr_assert_eq(bind(rig->backend, (struct sockaddr *)&fake.backend, len), 0);
    cr_assert_eq(listen(rig->backend, 1024), 0);
    cr_assert_eq(getsockname(rig->backend, (struct sockaddr *)&fake.backend, &len), 0);
}

void rig_start(struct rig *rig, unsigned n_workers, const struct forward_ingress *ports, size_t n)
{
    static const struct worker_body body = {.begin = begin, .end = end};
    struct forward_ingress settings[RIG_PORTS];

    cr_assert_leq(n, RIG_PORTS);
    for (size_t i = 0; i < n; i++) {
        settings[i] = ports[i];
        settings[i].host = ports[i].host ? ports[i].host : "127.0.0.1";
        settings[i].name = ports[i].name ? ports[i].name : "";
        settings[i].fallback = ports[i].fallback ? ports[i].fallback : "";
    }
    cr_assert_eq(sources_new(&rig->forward.limits, &rig->forward.sources), 0);
    cr_assert_eq(ingress_new(&rig->forward, settings, n), 0);
    memset(settings, 0, sizeof(settings)); /* all was copied */
    for (size_t i = 0; i < n; i++) {
        const char *colon;

        cr_assert_eq(ingress_listen(&rig->forward, i, rig->text[i], sizeof(rig->text[i])), 0);
        colon = strrchr(rig->text[i], ':');
        cr_assert(colon);
        rig->ports[i] = (uint16_t)atoi(colon + 1);
    }
    rig->forward.workers = rig->workers = calloc(n_workers, sizeof(*rig->workers));
    rig->forward.n_workers = n_workers;
    cr_assert(rig->workers);
    for (unsigned i = 0; i < n_workers; i++)
        cr_assert_eq(worker_init(&rig->workers[i], &rig->forward, i), 0);
    for (unsigned i = 0; i < n_workers; i++)
        cr_assert_eq(worker_start(&rig->workers[i], &body), 0);
    rig->runs = true;
}

struct rig_mail {
    struct mail mail;
    struct rig *rig;
};

static void read_hold(struct worker *worker, struct mail *mail)
{
    struct rig *rig = CONTAINER_OF(mail, struct rig_mail, mail)->rig;

    free(mail);
    atomic_fetch_add(&rig->n_did, 1);
    while (atomic_load(&rig->held))
        nap();
}

static void read_drain(struct worker *worker, struct mail *mail)
{
    struct rig *rig = CONTAINER_OF(mail, struct rig_mail, mail)->rig;

    free(mail);
    ingress_worker_drain(worker);
    atomic_fetch_add(&rig->n_did, 1);
}

static void post_all(struct rig *rig, void (*read)(struct worker *worker, struct mail *mail))
{
    atomic_store(&rig->n_did, 0);
    for (unsigned i = 0; i < rig->forward.n_workers; i++) {
        struct rig_mail *m = calloc(1, sizeof(*m));

        cr_assert(m);
        *m = (struct rig_mail){.mail.read = read, .rig = rig};
        worker_post(&rig->workers[i], &m->mail);
    }
}

void rig_hold(struct rig *rig)
{
    atomic_store(&rig->held, true);
    post_all(rig, read_hold);
    WAIT_FOR(atomic_load(&rig->n_did) == rig->forward.n_workers);
}

void rig_drain(struct rig *rig)
{
    post_all(rig, read_drain);
    atomic_store(&rig->held, false);
    WAIT_FOR(atomic_load(&rig->n_did) == rig->forward.n_workers);
}

void rig_stop(struct rig *rig)
{
    if (rig->runs) {
        for (unsigned i = 0; i < rig->forward.n_workers; i++)
            worker_stop(&rig->workers[i]);
        for (unsigned i = 0; i < rig->forward.n_workers; i++)
            worker_fini(&rig->workers[i]);
        ingress_free(&rig->forward);
        sources_free(rig->forward.sources);
        free(rig->workers);
        close(rig->backend);
    }
    rig->runs = false;
}

struct forward_counters rig_count(struct rig *rig)
{
    struct forward_counters sum = {0};
    uint64_t *out = (uint64_t *)&sum;

    for (unsigned i = 0; i < rig->forward.n_workers; i++) {
        const uint64_t *in = (const uint64_t *)&rig->workers[i].count;

        for (size_t k = 0; k < sizeof(sum) / sizeof(*out); k++)
            out[k] += __atomic_load_n(&in[k], __ATOMIC_RELAXED);
    }
    return sum;
}

bool rig_adds_up(struct rig *rig)
{
    struct forward_counters c = rig_count(rig);
    uint64_t ends = c.closed_over_limit + c.closed_no_descriptor + c.closed_no_memory + c.clients;

    for (unsigned i = 0; i < N_FORWARD_ENDS; i++)
        ends += c.ends[i];
    return c.accepted == ends;
}

/* --- time and descriptors --- */

uint64_t now_ms(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (uint64_t)ts.tv_sec * 1000 + (uint64_t)ts.tv_nsec / 1000000;
}

void nap(void) { poll(NULL, 0, 1); }

size_t open_descriptors(void)
{
    DIR *dir = opendir("/proc/self/fd");
    size_t n = 0;

    cr_assert(dir);
    while (readdir(dir))
        n++;
    closedir(dir);
    return n;
}

/* --- sockets --- */

static int patient(int fd)
{
    const struct timeval wait = {.tv_sec = WAIT_MS / 1000};
    const int on = 1;

    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &wait, sizeof(wait));
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &wait, sizeof(wait));
    setsockopt(fd, IPPROTO_TCP, 1 /* TCP_NODELAY */, &on, sizeof(on));
    return fd;
}

int dial_from(const char *ip, uint16_t port)
{
    struct sockaddr_in from = {.sin_family = AF_INET}, to = {.sin_family = AF_INET};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    if (fd < 0)
        return -1;
    inet_pton(AF_INET, ip, &from.sin_addr);
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    to.sin_port = htons(port);
    if (bind(fd, (struct sockaddr *)&from, sizeof(from)) < 0 ||
        connect(fd, (struct sockaddr *)&to, sizeof(to)) < 0) {
        int error = errno;

        close(fd);
        return -error;
    }
    return patient(fd);
}

int dial_port(uint16_t port) { return dial_from("127.0.0.1", port); }

int take_backend(struct rig *rig)
{
    struct pollfd wait = {.fd = rig->backend, .events = POLLIN};

    cr_assert_eq(poll(&wait, 1, WAIT_MS), 1, "nobody came");
    return patient(accept4(rig->backend, NULL, NULL, SOCK_CLOEXEC));
}

void say(int fd, const void *data, size_t len)
{
    const char *at = data;

    while (len > 0) {
        ssize_t n = send(fd, at, len, MSG_NOSIGNAL);

        cr_assert_gt(n, 0, "%s", strerror(errno));
        at += n;
        len -= (size_t)n;
    }
}

void say_text(int fd, const char *text) { say(fd, text, strlen(text)); }

bool hears(int fd, const void *data, size_t len)
{
    const char *at = data;
    char got[4096];

    while (len > 0) {
        ssize_t n = recv(fd, got, len < sizeof(got) ? len : sizeof(got), 0);

        if (n <= 0 || memcmp(got, at, (size_t)n) != 0)
            return false;
        at += n;
        len -= (size_t)n;
    }
    return true;
}

bool hears_text(int fd, const char *text) { return hears(fd, text, strlen(text)); }

bool hears_end(int fd)
{
    char byte;

    return recv(fd, &byte, 1, 0) == 0;
}

bool hears_reset(int fd)
{
    char byte;

    return fd == -ECONNRESET || (recv(fd, &byte, 1, 0) < 0 && errno == ECONNRESET);
}

ssize_t hear_all(int fd, char *text, size_t size)
{
    size_t have = 0;

    for (;;) {
        ssize_t n = recv(fd, text + have, size - 1 - have, 0);

        if (n < 0)
            return -1;
        if (n == 0)
            break;
        have += (size_t)n;
    }
    text[have] = '\0';
    return (ssize_t)have;
}

void break_off(int fd)
{
    const struct linger zero = {.l_onoff = 1};

    setsockopt(fd, SOL_SOCKET, SO_LINGER, &zero, sizeof(zero));
    close(fd);
}

/* --- TLS --- */

static uint8_t *put16(uint8_t *at, size_t n)
{
    *at++ = (uint8_t)(n >> 8);
    *at++ = (uint8_t)n;
    return at;
}

size_t make_hello(uint8_t out[512], const char *name)
{
    uint8_t *at = out + 9, *extensions;
    size_t len = name ? strlen(name) : 0;

    at = put16(at, 0x0303);
    memset(at, 7, 32); /* random */
    at += 32;
    *at++ = 0; /* session id */
    at = put16(at, 2);
    at = put16(at, 0x1301);
    *at++ = 1; /* compression: none */
    *at++ = 0;
    extensions = at;
    at += 2;
    if (name) {
        at = put16(at, 0); /* server_name */
        at = put16(at, len + 5);
        at = put16(at, len + 3);
        *at++ = 0; /* host_name */
        at = put16(at, len);
        memcpy(at, name, len);
        at += len;
    }
    at = put16(at, 43); /* supported_versions: 1.3 */
    at = put16(at, 3);
    *at++ = 2;
    at = put16(at, 0x0304);
    put16(extensions, (size_t)(at - extensions) - 2);
    out[0] = 0x16;
    put16(out + 1, 0x0301);
    put16(out + 3, (size_t)(at - out) - 5);
    out[5] = 1; /* client_hello */
    out[6] = 0;
    put16(out + 7, (size_t)(at - out) - 9);
    return (size_t)(at - out);
}
