/* fake_gate - see fake_gate.h. */
#include "rpc/fake_gate.h"
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>
#include "base/clock.h"
#include "base/random.h"

#define HELD_BACK (1u << 20)
#define MESSAGE_MAX (64u << 20)

static char paths[8][64];

static void fill_paths(void)
{
    const char *dir = getenv("TMPDIR");

    for (unsigned slot = 0; slot < 8; slot++)
        snprintf(paths[slot], sizeof(paths[slot]), "%.24s/meshd-test-%d-%u", dir ? dir : "/tmp",
                 (int)getpid(), slot);
}

const char *fake_path(unsigned slot)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;

    pthread_once(&once, fill_paths);
    return paths[slot];
}

/* ---- one connection ---- */

static bool wait_for(int fd, short events, uint64_t until)
{
    struct pollfd p = {.fd = fd, .events = events};
    uint64_t now = clock_ms();

    return now < until && poll(&p, 1, (int)(until - now)) > 0;
}

static bool read_all(int fd, void *out, size_t len, uint64_t until)
{
    uint8_t *at = out;

    while (len > 0) {
        ssize_t n;

        if (!wait_for(fd, POLLIN, until))
            return false;
        n = recv(fd, at, len, MSG_DONTWAIT);
        if (n < 0 && (errno == EAGAIN || errno == EINTR))
            continue;
        if (n <= 0)
            return false;
        at += n;
        len -= (size_t)n;
    }
    return true;
}

static bool write_all(int fd, const void *data, size_t len, uint64_t until)
{
    const uint8_t *at = data;

    while (len > 0) {
        ssize_t n;

        if (!wait_for(fd, POLLOUT, until))
            return false;
        n = send(fd, at, len, MSG_DONTWAIT | MSG_NOSIGNAL);
        if (n < 0 && (errno == EAGAIN || errno == EINTR))
            continue;
        if (n <= 0)
            return false;
        at += n;
        len -= (size_t)n;
    }
    return true;
}

int fake_join(const char *path, enum sp_protocol protocol)
{
    struct sockaddr_un addr = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    uint8_t hello[SP_HELLO_LEN];
    uint16_t theirs;

    snprintf(addr.sun_path, sizeof(addr.sun_path), "%s", path);
    sp_hello_pack(protocol, hello);
    if (connect(fd, (struct sockaddr *)&addr, sizeof(addr)) < 0 ||
        !write_all(fd, hello, sizeof(hello), clock_ms() + FAKE_MS) ||
        !read_all(fd, hello, sizeof(hello), clock_ms() + FAKE_MS) ||
        sp_hello_parse(hello, &theirs) < 0) {
        close(fd);
        return -1;
    }
    return fd;
}

bool fake_write(int fd, const void *payload, size_t len)
{
    uint64_t until = clock_ms() + FAKE_MS;
    uint8_t head[SP_HEAD_MAX];

    sp_head_pack(SP_IPC, len, head);
    return write_all(fd, head, sizeof(head), until) && write_all(fd, payload, len, until);
}

uint8_t *fake_read_within(int fd, int ms, size_t *out_len)
{
    uint64_t until = clock_ms() + (uint64_t)ms, len;
    uint8_t head[SP_HEAD_MAX], *payload;

    if (!read_all(fd, head, sizeof(head), until) ||
        sp_head_parse(SP_IPC, head, sizeof(head), MESSAGE_MAX, &len) < 0)
        return NULL;
    payload = malloc((size_t)len + 1);
    if (!read_all(fd, payload, (size_t)len, until)) {
        free(payload);
        return NULL;
    }
    *out_len = (size_t)len;
    return payload;
}

uint8_t *fake_read(int fd, size_t *out_len) { return fake_read_within(fd, FAKE_MS, out_len); }

static bool drain(int fd, uint64_t until)
{
    uint8_t buffer[65536];

    for (;;) {
        ssize_t n;

        if (!wait_for(fd, POLLIN, until))
            return false;
        n = recv(fd, buffer, sizeof(buffer), MSG_DONTWAIT);
        if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR))
            return true;
    }
}

bool fake_end(int fd, uint64_t left)
{
    bool ok = true;

    for (; ok && left > 0; left--) {
        size_t len;
        uint8_t *payload = fake_read(fd, &len);

        ok = payload != NULL;
        free(payload);
    }
    if (ok && shutdown(fd, SHUT_WR) == 0)
        ok = drain(fd, clock_ms() + FAKE_MS);
    else
        ok = false;
    close(fd);
    return ok;
}

static void put_u32(uint8_t *out, uint32_t value)
{
    for (int i = 0; i < 4; i++)
        out[i] = (uint8_t)(value >> (24 - 8 * i));
}

uint8_t *fake_request(uint32_t conn, unsigned hops, uint32_t id, const void *frame, size_t len,
                      size_t *out_len)
{
    size_t head = 4 * (3 + (size_t)hops);
    uint8_t *out = malloc(head + len);

    put_u32(out, conn);
    for (unsigned i = 0; i < hops; i++)
        put_u32(out + 4 * (1 + i), 0x1000 + i);
    put_u32(out + head - 8, id | 0x80000000u);
    put_u32(out + head - 4, conn);
    if (len > 0)
        memcpy(out + head, frame, len);
    *out_len = head + len;
    return out;
}

/* ---- two joined ---- */

bool fake_relay_join(struct fake_relay *relay, const char *a, const char *b,
                     enum sp_protocol as_to_a, enum sp_protocol as_to_b)
{
    memset(relay, 0, sizeof(*relay));
    relay->side[0].fd = fake_join(a, as_to_a);
    relay->side[1].fd = fake_join(b, as_to_b);
    for (int i = 0; i < 2; i++) {
        struct fake_side *side = &relay->side[i];

        if (side->fd < 0)
            return false;
        side->last = &side->first;
        fcntl(side->fd, F_SETFL, O_NONBLOCK);
    }
    return true;
}

static void read_closed(struct fake_side *side, ssize_t n)
{
    if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR))
        side->closed = true;
}

/* Reads one step: a head, or a part of a payload. False: nothing there. */
static bool read_step(struct fake_side *side)
{
    struct fake_message *m = side->reading;
    uint64_t len;
    ssize_t n;

    if (!m) {
        n = read(side->fd, side->head + side->head_len, sizeof(side->head) - side->head_len);
        read_closed(side, n);
        if (n <= 0)
            return false;
        side->head_len += (size_t)n;
        if (side->head_len < sizeof(side->head))
            return true;
        if (sp_head_parse(SP_IPC, side->head, sizeof(side->head), MESSAGE_MAX, &len) < 0)
            abort();
        m = side->reading = malloc(sizeof(*m) + sizeof(side->head) + (size_t)len);
        m->next = NULL;
        m->len = sizeof(side->head) + (size_t)len;
        m->done = sizeof(side->head);
        memcpy(m->data, side->head, sizeof(side->head));
        side->head_len = 0;
        return true;
    }
    n = read(side->fd, m->data + m->done, m->len - m->done);
    read_closed(side, n);
    if (n <= 0)
        return false;
    m->done += (size_t)n;
    if (m->done < m->len)
        return true;
    m->done = 0; /* written, from now on */
    *side->last = m;
    side->last = &m->next;
    side->queued += m->len;
    side->messages++;
    side->reading = NULL;
    return true;
}

/* Writes what was read on `from` to `to`; only_begun: but begins no message. */
static void write_some(struct fake_side *from, struct fake_side *to, bool only_begun)
{
    struct fake_message *m;

    while ((m = from->first) != NULL && !to->closed && (!only_begun || m->done > 0)) {
        ssize_t n = send(to->fd, m->data + m->done, m->len - m->done, MSG_NOSIGNAL);

        if (n <= 0)
            return;
        m->done += (size_t)n;
        if (m->done < m->len)
            return;
        from->first = m->next;
        if (!from->first)
            from->last = &from->first;
        from->queued -= m->len;
        free(m);
    }
}

static void poll_both(struct fake_relay *relay, bool reading, int ms)
{
    struct pollfd p[2];

    for (int i = 0; i < 2; i++) {
        struct fake_side *side = &relay->side[i], *other = &relay->side[!i];

        p[i].fd = side->closed ? -1 : side->fd;
        p[i].events = (short)((reading || side->queued < HELD_BACK ? POLLIN : 0) |
                              (other->first && !side->shut ? POLLOUT : 0));
    }
    poll(p, 2, ms);
}

void fake_relay_run(struct fake_relay *relay, int ms)
{
    uint64_t until = clock_ms() + (uint64_t)ms;

    while (clock_ms() < until) {
        poll_both(relay, false, 5);
        for (int i = 0; i < 2; i++) {
            struct fake_side *side = &relay->side[i];

            while (!side->closed && side->queued < HELD_BACK && read_step(side))
                ;
            write_some(side, &relay->side[!i], false);
        }
    }
}

static void free_side(struct fake_side *side)
{
    struct fake_message *next;

    for (struct fake_message *m = side->first; m; m = next) {
        next = m->next;
        free(m);
    }
    free(side->reading);
    close(side->fd);
}

bool fake_relay_end(struct fake_relay *relay, const uint64_t sent[2], bool deliver)
{
    uint64_t until = clock_ms() + FAKE_MS;
    bool all = false;

    while (!(relay->side[0].closed && relay->side[1].closed) && clock_ms() < until) {
        for (int i = 0; i < 2; i++) {
            struct fake_side *side = &relay->side[i];

            while (!side->closed && read_step(side))
                ;
            write_some(side, &relay->side[!i], !deliver);
        }
        all = relay->side[0].messages == sent[0] && relay->side[1].messages == sent[1];
        for (int i = 0; i < 2 && all; i++) {
            struct fake_side *side = &relay->side[i], *from = &relay->side[!i];
            bool begun = from->first && (deliver || from->first->done > 0);

            if (!side->shut && !begun) {
                shutdown(side->fd, SHUT_WR);
                side->shut = true;
            }
        }
        poll_both(relay, true, 5);
    }
    all = all && relay->side[0].closed && relay->side[1].closed;
    free_side(&relay->side[0]);
    free_side(&relay->side[1]);
    return all;
}

/* ---- numbers ---- */

void tally_add(struct tally *tally, uint64_t n)
{
    pthread_mutex_lock(&tally->lock);
    tally->value += n;
    pthread_cond_broadcast(&tally->changed);
    pthread_mutex_unlock(&tally->lock);
}

uint64_t tally_value(struct tally *tally)
{
    uint64_t value;

    pthread_mutex_lock(&tally->lock);
    value = tally->value;
    pthread_mutex_unlock(&tally->lock);
    return value;
}

bool tally_wait_ms(struct tally *tally, uint64_t at_least, int ms)
{
    uint64_t until = clock_ns() + (uint64_t)ms * 1000000;
    struct timespec t = {.tv_sec = (time_t)(until / 1000000000),
                         .tv_nsec = (long)(until % 1000000000)};
    bool there;
    int r = 0;

    pthread_mutex_lock(&tally->lock);
    while (tally->value < at_least && r == 0)
        r = pthread_cond_clockwait(&tally->changed, &tally->lock, CLOCK_MONOTONIC, &t);
    there = tally->value >= at_least;
    pthread_mutex_unlock(&tally->lock);
    return there;
}

bool tally_wait(struct tally *tally, uint64_t at_least)
{
    return tally_wait_ms(tally, at_least, FAKE_MS);
}

static uint64_t env_number(const char *name, uint64_t def)
{
    const char *text = getenv(name);

    return text && text[0] ? strtoull(text, NULL, 0) : def;
}

uint64_t fake_sessions(uint64_t def) { return env_number("MESHD_TEST_SESSIONS", def); }

uint64_t fake_seed(void)
{
    uint64_t seed = env_number("MESHD_TEST_SEED", random_u64());

    fprintf(stderr, "MESHD_TEST_SEED=%llu\n", (unsigned long long)seed);
    return seed;
}

uint32_t fake_random(uint64_t *state, uint32_t below)
{
    *state = *state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)((*state >> 33) % below);
}
