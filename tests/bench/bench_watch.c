/* bench_watch - how long after a change a watcher is told: an Offer on the node's Unix socket until
 * the event of a Watch has arrived over TCP; beside it redis, in the same run: PUBLISH on its Unix
 * socket until the message of a SUBSCRIBE has arrived over TCP. One change at a time, from just
 * before the request is sent; both sides wait in the same recv(2). Redis keeps no map and writes
 * nothing to disk here; meshd changes its maps, but does not print them. Prints figures; asserts
 * nothing.
 *
 * usage: bench_watch [changes]   (default 20000; without redis-server its half is left out)
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>
#include <meshd/v1/mesh.pb-c.h>
#include "bench_util.h"
#include "wire/frame.h"
#include "wire/sp.h"

#define ROUNDS 10u /* of each in turn, so that what disturbs the machine disturbs both */
#define WARM_UP 500u
#define ROOM 65536u
#define WORD_LEN 4u /* request id or hop word */
#define READY_S 10.0

struct stream {
    int fd;
    uint8_t data[ROOM];
    size_t have;
};

static void send_all(int fd, const void *data, size_t len)
{
    if (send(fd, data, len, MSG_NOSIGNAL) != (ssize_t)len)
        die("send: %s", strerror(errno));
}

static void fill(struct stream *s)
{
    ssize_t n = recv(s->fd, s->data + s->have, ROOM - s->have, 0);

    if (n <= 0)
        die("receive: %s", n ? strerror(errno) : "closed");
    s->have += (size_t)n;
}

static void fill_up_to(struct stream *s, size_t len)
{
    while (s->have < len)
        fill(s);
}

static void drop(struct stream *s, size_t len)
{
    memmove(s->data, s->data + len, s->have - len);
    s->have -= len;
}

/* -1 when nobody listens there. */
static int tcp_to(const char *ip, uint16_t port)
{
    struct sockaddr_in addr = {.sin_family = AF_INET, .sin_port = htons(port)};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), on = 1;

    inet_pton(AF_INET, ip, &addr.sin_addr);
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    if (connect(fd, (struct sockaddr *)&addr, sizeof addr) == 0)
        return fd;
    close(fd);
    return -1;
}

static int unix_to(const char *path)
{
    struct sockaddr_un addr = {.sun_family = AF_UNIX};
    size_t len = strlen(path);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    if (len >= sizeof addr.sun_path)
        die("%s is too long for a socket", path);
    memcpy(addr.sun_path, path, len);
    if (connect(fd, (struct sockaddr *)&addr, sizeof addr) == 0)
        return fd;
    close(fd);
    return -1;
}

/* ---- meshd ---- */

static void send_request(int fd, enum sp_framing framing, uint32_t word, const char *method,
                         const ProtobufCMessage *request)
{
    Meshd__V1__CallHeader header = MESHD__V1__CALL_HEADER__INIT;
    uint8_t out[1024];
    size_t head = sp_head_len(framing), len;

    header.method = (char *)method;
    header.deadline_ms = 10000;
    header.wire_version = WIRE_VERSION_MAX;
    len = WORD_LEN + frame_size(&header.base, request);
    if (head + len > sizeof out)
        die("a request is too long");
    sp_head_pack(framing, len, out);
    word = htonl(word);
    memcpy(out + head, &word, WORD_LEN);
    frame_pack(&header.base, request, out + head + WORD_LEN);
    send_all(fd, out, head + len);
}

/* Waits for a whole message; its length with all that is in front. *out_parts point into s. */
static size_t next_message(struct stream *s, enum sp_framing framing, struct frame_parts *out_parts)
{
    size_t head = sp_head_len(framing);
    uint64_t len;

    fill_up_to(s, head);
    if (sp_head_parse(framing, s->data, s->have, ROOM - head, &len) < 0)
        die("not SP, or a message of more than 64 KiB");
    fill_up_to(s, head + len);
    if (len < WORD_LEN || frame_split(s->data + head + WORD_LEN, len - WORD_LEN, out_parts) < 0)
        die("not a message of meshd");
    return head + len;
}

static void check_status(const struct frame_parts *parts)
{
    Meshd__V1__ReplyHeader *header =
        meshd__v1__reply_header__unpack(NULL, parts->header_len, parts->header);

    if (!header || header->status)
        die("refused: %s", header ? header->text : "no header");
    meshd__v1__reply_header__free_unpacked(header, NULL);
}

/* Takes messages until one is as wanted: with an event, or the end of the picture. */
static double wait_news(struct stream *s, bool synced)
{
    for (;;) {
        struct frame_parts parts;
        size_t len = next_message(s, SP_TCP, &parts);
        double at = now_s();
        Meshd__V1__WatchReply *news;
        bool found;

        check_status(&parts);
        news = meshd__v1__watch_reply__unpack(NULL, parts.body_len, parts.body);
        if (!news)
            die("not a WatchReply");
        found = synced ? news->synced : news->n_events > 0;
        meshd__v1__watch_reply__free_unpacked(news, NULL);
        drop(s, len);
        if (found)
            return at;
    }
}

struct mesh_side {
    struct stream offers, watch;
};

static void mesh_open(struct mesh_side *side, const struct meshd *node)
{
    static const uint8_t preamble[PREAMBLE_HEAD] = {'M', 'S', 'H', 'D', 1, PREAMBLE_WATCH};
    Meshd__V1__WatchRequest request = MESHD__V1__WATCH_REQUEST__INIT;
    uint8_t hello[SP_HELLO_LEN];

    side->offers.fd = unix_to(node->socket);
    side->watch.fd = tcp_to(node->ip, node->port);
    if (side->offers.fd < 0 || side->watch.fd < 0)
        die("cannot connect to meshd: %s", strerror(errno));
    sp_hello_pack(SP_REQ0, hello);
    send_all(side->offers.fd, hello, sizeof hello);
    fill_up_to(&side->offers, SP_HELLO_LEN);
    drop(&side->offers, SP_HELLO_LEN);
    send_all(side->watch.fd, preamble, sizeof preamble);
    fill_up_to(&side->watch, PREAMBLE_HEAD);
    if (side->watch.data[5])
        die("this meshd has no Watch");
    drop(&side->watch, PREAMBLE_HEAD);
    send_request(side->watch.fd, SP_TCP, 1, "/meshd.v1.Registry/Watch", &request.base);
    wait_news(&side->watch, true);
}

static double mesh_change(void *ctx, unsigned i)
{
    struct mesh_side *side = ctx;
    Meshd__V1__OfferRequest request = MESHD__V1__OFFER_REQUEST__INIT;
    struct frame_parts parts;
    char backend[32];
    double began, told;

    snprintf(backend, sizeof backend, "10.0.0.1:%u", i % 60000 + 1);
    request.lease_id = (char *)"bench";
    request.name = (char *)"billing";
    request.backend_addr = backend;
    began = now_s();
    send_request(side->offers.fd, SP_IPC, 0x80000001, "/meshd.v1.Registry/Offer", &request.base);
    told = wait_news(&side->watch, false) - began;
    drop(&side->offers, next_message(&side->offers, SP_IPC, &parts));
    return told;
}

/* ---- redis ---- */

struct redis {
    pid_t pid;
    char dir[96], socket[112];
    struct stream publish, subscribe;
};

static void run_redis(const struct redis *r, uint16_t port)
{
    char text[8];
    int null = open("/dev/null", O_RDWR);

    prctl(PR_SET_PDEATHSIG, SIGKILL);
    dup2(null, STDOUT_FILENO);
    dup2(null, STDERR_FILENO);
    snprintf(text, sizeof text, "%u", port);
    execlp("redis-server", "redis-server", "--bind", "127.0.0.1", "--port", text, "--unixsocket",
           r->socket, "--save", "", "--appendonly", "no", "--dir", r->dir, (char *)NULL);
    _exit(127);
}

/* False: there is none on this machine. */
static bool redis_start(struct redis *r)
{
    static const char subscribe[] = "*2\r\n$9\r\nSUBSCRIBE\r\n$7\r\nbilling\r\n";
    static const char answer[] = "*3\r\n$9\r\nsubscribe\r\n$7\r\nbilling\r\n:1\r\n";
    double until = now_s() + READY_S;
    uint16_t port = free_port("127.0.0.1");

    memset(r, 0, sizeof *r);
    snprintf(r->dir, sizeof r->dir, "%s/redis-bench-XXXXXX",
             getenv("TMPDIR") ? getenv("TMPDIR") : P_tmpdir);
    if (!mkdtemp(r->dir))
        die("no temporary directory: %s", strerror(errno));
    snprintf(r->socket, sizeof r->socket, "%s/redis.sock", r->dir);
    r->pid = fork();
    if (r->pid == 0)
        run_redis(r, port);
    while ((r->publish.fd = unix_to(r->socket)) < 0) {
        if (now_s() > until || waitpid(r->pid, NULL, WNOHANG) != 0) {
            rmdir(r->dir);
            return false;
        }
        poll(NULL, 0, 5);
    }
    r->subscribe.fd = tcp_to("127.0.0.1", port);
    if (r->subscribe.fd < 0)
        die("cannot connect to redis: %s", strerror(errno));
    send_all(r->subscribe.fd, subscribe, sizeof subscribe - 1);
    fill_up_to(&r->subscribe, sizeof answer - 1);
    if (memcmp(r->subscribe.data, answer, sizeof answer - 1) != 0)
        die("what answers there is not redis");
    drop(&r->subscribe, sizeof answer - 1);
    return true;
}

static void redis_stop(struct redis *r)
{
    kill(r->pid, SIGTERM);
    waitpid(r->pid, NULL, 0);
    unlink(r->socket);
    if (rmdir(r->dir) < 0)
        fprintf(stderr, "%s is left behind\n", r->dir);
}

static double redis_change(void *ctx, unsigned i)
{
    struct redis *r = ctx;
    char backend[32], out[128], answer[128];
    double began, told;
    int n = snprintf(backend, sizeof backend, "10.0.0.1:%u", i % 60000 + 1);
    int out_len = snprintf(out, sizeof out, "*3\r\n$7\r\nPUBLISH\r\n$7\r\nbilling\r\n$%d\r\n%s\r\n",
                           n, backend);
    int answer_len = snprintf(answer, sizeof answer,
                              "*3\r\n$7\r\nmessage\r\n$7\r\nbilling\r\n$%d\r\n%s\r\n", n, backend);

    began = now_s();
    send_all(r->publish.fd, out, (size_t)out_len);
    fill_up_to(&r->subscribe, (size_t)answer_len);
    told = now_s() - began;
    if (memcmp(r->subscribe.data, answer, (size_t)answer_len) != 0)
        die("redis told something else");
    drop(&r->subscribe, (size_t)answer_len);
    fill_up_to(&r->publish, 4); /* ":1\r\n" */
    drop(&r->publish, 4);
    return told;
}

/* ---- the run ---- */

struct side {
    const char *what;
    double (*change)(void *ctx, unsigned i);
    void *ctx;
    double *us;
    size_t n;
};

static void run(struct side *side, unsigned changes, bool counts)
{
    for (unsigned i = 0; i < changes; i++) {
        double told = side->change(side->ctx, (unsigned)(side->n + i));

        if (counts)
            side->us[side->n++] = told * 1e6;
    }
}

static void show(struct side *side, double out_us[2])
{
    out_us[0] = percentile(side->us, side->n, 0.5);
    out_us[1] = percentile(side->us, side->n, 0.99);
    printf("%-34s p50 %7.1f us   p99 %7.1f us\n", side->what, out_us[0], out_us[1]);
}

int main(int argc, char **argv)
{
    static const char *const quiet[] = {"LOG_MAPS=off", NULL};
    static struct mesh_side mesh;
    static struct redis redis;
    unsigned changes = argc > 1 ? (unsigned)strtoul(argv[1], NULL, 10) : 20000;
    unsigned per_round = changes / ROUNDS ? changes / ROUNDS : 1;
    struct side sides[2] = {{"meshd: Offer until Watch has told", mesh_change, &mesh, NULL, 0},
                            {"redis: PUBLISH until SUBSCRIBE has", redis_change, &redis, NULL, 0}};
    struct meshd node;
    size_t n_sides = 1;
    double us[2][2];

    setvbuf(stdout, NULL, _IOLBF, 0);
    meshd_start(&node, "bench-watch", "127.0.0.1", quiet);
    mesh_open(&mesh, &node);
    if (redis_start(&redis))
        n_sides = 2;
    for (size_t s = 0; s < n_sides; s++) {
        sides[s].us = calloc(ROUNDS * per_round, sizeof *sides[s].us);
        run(&sides[s], per_round < WARM_UP ? per_round : WARM_UP, false);
    }
    for (unsigned round = 0; round < ROUNDS; round++)
        for (size_t s = 0; s < n_sides; s++)
            run(&sides[s], per_round, true);
    printf("%u changes, one at a time, told over TCP\n", ROUNDS * per_round);
    for (size_t s = 0; s < n_sides; s++)
        show(&sides[s], us[s]);
    if (n_sides == 2)
        printf("meshd / redis                      p50 %7.2f x    p99 %7.2f x\n",
               us[0][0] / us[1][0], us[0][1] / us[1][1]);
    else
        puts("redis: left out, there is no redis-server on this machine");
    if (n_sides == 2)
        redis_stop(&redis);
    meshd_stop(&node);
    for (size_t s = 0; s < n_sides; s++)
        free(sides[s].us);
    return 0;
}
