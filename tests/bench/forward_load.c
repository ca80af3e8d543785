/* forward_load - the clients of bench_forward.py: HTTP/1.1 over plain sockets, one thread.
 *
 * usage: forward_load KIND IP PORT HOST PATH SECONDS N [FILE]
 *   ask   N connections, on each one request after the other
 *   dial  N at once, each a new connection for one request (Connection: close), until it is closed
 *   hold  N connections, one request on each; says so, and holds them until stdin ends
 * Requests that run when the time is over are finished, so all bytes that are counted are of whole
 * answers. With FILE, every body is compared with it; else bodies are thrown away inside the
 * kernel (MSG_TRUNC), to leave the CPU to those who are measured.
 *
 * Prints one JSON object: requests, bytes (of bodies), failed, seconds, p50_us, p99_us (of one
 * request, with its connect if it has one).
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>
#include "bench_util.h"

#define HEAD_ROOM 4096u
#define TAKE_BYTES (1u << 20)
#define EVENTS 64
#define SILENCE_MS 10000
#define FAILURES 100u
#define OPENED_AT_ONCE 64u /* of those that are held */

enum kind { ASK, DIAL, HOLD };
enum step { HEAD, BODY, WAIT_END }; /* what is read next */

struct conn {
    int fd;
    enum step step;
    double begun;
    size_t have, at, left; /* bytes of the head; of the body so far; still to come */
    char head[HEAD_ROOM + 1];
};

static struct {
    enum kind kind;
    struct sockaddr_in to;
    char request[1024];
    size_t request_len;
    int loop;
    const char *expect; /* NULL: bodies are not looked at */
    size_t expect_len;
    char *scratch;
    double until;
    struct conn *waiting; /* HOLD: not opened yet */
    size_t n_waiting, live;
    size_t requests, bytes, failed;
    double *took_s;
    size_t room;
} load;

static void expect_file(const char *path)
{
    struct stat st;
    int fd = open(path, O_RDONLY | O_CLOEXEC);

    if (fd < 0 || fstat(fd, &st) < 0)
        die("%s: %s", path, strerror(errno));
    load.expect_len = (size_t)st.st_size;
    load.expect = mmap(NULL, load.expect_len, PROT_READ, MAP_SHARED, fd, 0);
    if (load.expect == MAP_FAILED)
        die("%s: %s", path, strerror(errno));
    close(fd);
}

static void check(const struct conn *c, const char *data, size_t len)
{
    if (load.expect && (c->at + len > load.expect_len || memcmp(load.expect + c->at, data, len)))
        die("the body differs from the file, near byte %zu", c->at);
}

static void ask(struct conn *c)
{
    c->step = HEAD;
    c->have = c->at = 0;
    if (send(c->fd, load.request, load.request_len, MSG_NOSIGNAL) != (ssize_t)load.request_len)
        die("send: %s", strerror(errno));
}

/* Blocks for the connect, which on loopback takes no longer than the three segments. */
static void open_conn(struct conn *c)
{
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = c};
    int on = 1;

    c->begun = now_s();
    c->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (c->fd < 0 || connect(c->fd, (struct sockaddr *)&load.to, sizeof load.to) < 0)
        die("connect: %s", strerror(errno));
    setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    ask(c);
    if (epoll_ctl(load.loop, EPOLL_CTL_ADD, c->fd, &event) < 0)
        die("epoll_ctl: %s", strerror(errno));
}

static void answered(struct conn *c, double now)
{
    if (load.requests == load.room) {
        load.room = load.room ? load.room * 2 : 65536;
        load.took_s = realloc(load.took_s, load.room * sizeof *load.took_s);
        if (!load.took_s)
            die("no memory");
    }
    load.took_s[load.requests++] = now - c->begun;
    load.bytes += c->at;
}

static void next(struct conn *c, bool closed)
{
    double now = now_s();

    if (load.kind == HOLD) {
        load.live--;
        if (load.n_waiting > 0)
            open_conn(&load.waiting[--load.n_waiting]);
    } else if (now >= load.until) {
        close(c->fd);
        load.live--;
    } else if (closed) {
        close(c->fd);
        open_conn(c);
    } else {
        c->begun = now;
        ask(c);
    }
}

static void failed(struct conn *c, const char *why)
{
    if (++load.failed > FAILURES)
        die("too many failures; the last: %s", why);
    if (load.kind == HOLD)
        die("a connection failed before it could be held: %s", why);
    next(c, true);
}

static void body_ended(struct conn *c)
{
    answered(c, now_s());
    if (load.kind == DIAL)
        c->step = WAIT_END;
    else
        next(c, false);
}

static void read_head(struct conn *c)
{
    ssize_t n = recv(c->fd, c->head + c->have, HEAD_ROOM - c->have, MSG_DONTWAIT);
    char *end, *length;
    size_t extra;

    if (n < 0 && errno == EAGAIN)
        return;
    if (n <= 0) {
        failed(c, n ? strerror(errno) : "closed before an answer");
        return;
    }
    c->have += (size_t)n;
    c->head[c->have] = '\0';
    end = strstr(c->head, "\r\n\r\n");
    if (!end) {
        if (c->have == HEAD_ROOM)
            die("an answer's head is too long");
        return;
    }
    length = strcasestr(c->head, "\r\nContent-Length:");
    if (strncmp(c->head, "HTTP/1.1 200 ", strlen("HTTP/1.1 200 ")) != 0 || !length)
        die("answered: %.*s", (int)strcspn(c->head, "\r\n"), c->head);
    c->left = strtoull(length + strlen("\r\nContent-Length:"), NULL, 10);
    extra = c->have - (size_t)(end + 4 - c->head);
    if (extra > c->left)
        die("more bytes than the answer has");
    check(c, end + 4, extra);
    c->at = extra;
    c->left -= extra;
    c->step = BODY;
    if (c->left == 0)
        body_ended(c);
}

static void read_body(struct conn *c)
{
    size_t most = c->left < TAKE_BYTES ? c->left : TAKE_BYTES;
    ssize_t n = recv(c->fd, load.scratch, most, MSG_DONTWAIT | (load.expect ? 0 : MSG_TRUNC));

    if (n < 0 && errno == EAGAIN)
        return;
    if (n <= 0)
        die("an answer ended %zu bytes early: %s", c->left, n ? strerror(errno) : "closed");
    check(c, load.scratch, (size_t)n);
    c->at += (size_t)n;
    c->left -= (size_t)n;
    if (c->left == 0)
        body_ended(c);
}

static void read_end(struct conn *c)
{
    char byte;
    ssize_t n = recv(c->fd, &byte, 1, MSG_DONTWAIT);

    if (n < 0 && errno == EAGAIN)
        return;
    if (n > 0)
        die("more bytes than the answer has");
    if (n < 0)
        failed(c, strerror(errno));
    else
        next(c, true);
}

static void run(struct conn *conns, size_t n)
{
    static void (*const steps[])(struct conn *) = {
        [HEAD] = read_head, [BODY] = read_body, [WAIT_END] = read_end};
    struct epoll_event events[EVENTS];

    load.live = n;
    if (load.kind == HOLD && n > OPENED_AT_ONCE) {
        load.n_waiting = n - OPENED_AT_ONCE;
        load.waiting = conns + OPENED_AT_ONCE;
    }
    for (size_t i = 0; i < n - load.n_waiting; i++)
        open_conn(&conns[i]);
    while (load.live) {
        int ready = epoll_wait(load.loop, events, EVENTS, SILENCE_MS);

        if (ready < 0 && errno == EINTR)
            continue;
        if (ready <= 0)
            die("nothing came for %d s", SILENCE_MS / 1000);
        for (int i = 0; i < ready; i++) {
            struct conn *c = events[i].data.ptr;

            steps[c->step](c);
        }
    }
}

int main(int argc, char **argv)
{
    static const char *const kinds[] = {[ASK] = "ask", [DIAL] = "dial", [HOLD] = "hold"};
    struct conn *conns;
    double begun;
    size_t n;

    if (argc < 8)
        die("usage: forward_load ask|dial|hold IP PORT HOST PATH SECONDS N [FILE]");
    while (load.kind <= HOLD && strcmp(kinds[load.kind], argv[1]) != 0)
        load.kind++;
    load.to.sin_family = AF_INET;
    load.to.sin_port = htons((uint16_t)strtoul(argv[3], NULL, 10));
    if (load.kind > HOLD || inet_pton(AF_INET, argv[2], &load.to.sin_addr) != 1)
        die("not a kind, or not an address: %s %s", argv[1], argv[2]);
    load.request_len =
        (size_t)snprintf(load.request, sizeof load.request, "GET %s HTTP/1.1\r\nHost: %s\r\n%s\r\n",
                         argv[5], argv[4], load.kind == DIAL ? "Connection: close\r\n" : "");
    n = strtoul(argv[7], NULL, 10);
    if (argc > 8)
        expect_file(argv[8]);
    load.loop = epoll_create1(EPOLL_CLOEXEC);
    load.scratch = malloc(TAKE_BYTES);
    conns = calloc(n, sizeof *conns);
    if (load.loop < 0 || !load.scratch || !conns)
        die("no memory or descriptors");
    begun = now_s();
    load.until = begun + strtod(argv[6], NULL);
    run(conns, n);
    printf("{\"requests\": %zu, \"bytes\": %zu, \"failed\": %zu, \"seconds\": %.6f, ",
           load.requests, load.bytes, load.failed, now_s() - begun);
    printf("\"p50_us\": %.2f, \"p99_us\": %.2f}\n",
           percentile(load.took_s, load.requests, 0.5) * 1e6,
           percentile(load.took_s, load.requests, 0.99) * 1e6);
    fflush(stdout);
    if (load.kind == HOLD) {
        while (getchar() != EOF)
            ;
    }
    free(conns);
    return 0;
}
