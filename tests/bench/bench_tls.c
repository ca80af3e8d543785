/* bench_tls - what TLS costs at the gate: calls through a gate with TLS against the same calls
 * through one without, in turn, in one run; full handshakes; memory of a connection that is idle.
 * Both gates are processes of their own with a real REP socket behind them, whose handler answers
 * as a Lookup of one name would.
 *
 * usage: bench_tls [ROUNDS=5] [SECONDS=1.0] [IDLE=1000]
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include "bench_nng.h"
#include "bench_util.h"
#include "gate/gate.h"
#include "rpc/server.h"
#include "tls/support.h"
#include "wire/sp.h"

#define ROUNDS_MAX 64
#define WINDOW_MAX 64
#define SAMPLES 400000u
#define TURN 65536u

/* ---- the two gates ---- */

struct served {
    pid_t pid;
    struct sockaddr_storage at;
    char path[64];
};

static void lookup(Meshd__V1__Registry_Service *service, const Meshd__V1__LookupRequest *in,
                   Meshd__V1__LookupReply_Closure closure, void *closure_data)
{
    Meshd__V1__Route route = MESHD__V1__ROUTE__INIT, *routes[] = {&route};
    Meshd__V1__LookupResult result = MESHD__V1__LOOKUP_RESULT__INIT, *results[] = {&result};
    Meshd__V1__LookupReply reply = MESHD__V1__LOOKUP_REPLY__INIT;

    route.ip = (char *)"local";
    route.peer_id = (char *)"bench";
    route.backend_addr = (char *)"127.0.0.1:80";
    route.connected = route.healthy = true;
    result.name = in->names[0];
    result.routes = routes;
    result.n_routes = 1;
    reply.results = results;
    reply.n_results = 1;
    closure(&reply, closure_data);
}

static bool who(void *ctx, uint32_t conn, struct rpc_caller *out_caller)
{
    struct gate_peer peer;

    if (!gate_who(*(struct gate **)ctx, conn, &peer))
        return false;
    memset(out_caller, 0, sizeof *out_caller);
    out_caller->conn = conn;
    return true;
}

static void ended(void *ctx, uint32_t conn, const struct gate_end *why) {}

static void serve(struct tls_keeper *keeper, const char *path, int fd)
{
    static Meshd__V1__Registry_Service service;
    static struct gate *gate;
    static struct limits limits;
    struct sockaddr_in any = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
    struct sockaddr_storage bound;
    struct rpc_server *server;
    struct gate_settings settings = {.limits = &limits,
                                     .rep_path = path,
                                     .lanes = 2,
                                     .first_bytes_ms = 10000,
                                     .dial_ms = 5000,
                                     .idle_ms = 600000,
                                     .ops = {.ended = ended},
                                     .tls = keeper};

    prctl(PR_SET_PDEATHSIG, SIGKILL);
    limits_default(&limits);
    limits.connections_per_source = limits.control_connections;
    limits.half_open_per_source = limits.half_open;
    meshd__v1__registry__init(&service, NULL);
    service.lookup = lookup;
    if (rpc_server_open(&(struct rpc_server_settings){.path = path,
                                                      .contexts = 128,
                                                      .message_bytes = limits.message_bytes,
                                                      .service = &service,
                                                      .who = who,
                                                      .ctx = &gate},
                        &server) < 0 ||
        gate_new(&settings, &gate) < 0 ||
        gate_listen_tcp(gate, (struct sockaddr *)&any, sizeof any, &bound) < 0 ||
        gate_start(gate) < 0 || write(fd, &bound, sizeof bound) != sizeof bound)
        _exit(1);
    for (;;)
        pause();
}

static void start(struct served *out, const char *dir, const char *name, struct tls_keeper *keeper)
{
    int fd[2];

    snprintf(out->path, sizeof out->path, "%s/%s", dir, name);
    if (pipe(fd) < 0)
        die("pipe: %s", strerror(errno));
    out->pid = fork();
    if (out->pid == 0)
        serve(keeper, out->path, fd[1]);
    close(fd[1]);
    if (read(fd[0], &out->at, sizeof out->at) != sizeof out->at)
        die("the gate did not start");
    close(fd[0]);
}

static double cpu_s(const struct served *served)
{
    struct timespec used;
    clockid_t clock;

    if (clock_getcpuclockid(served->pid, &clock) != 0 || clock_gettime(clock, &used) < 0)
        die("the gate is gone");
    return (double)used.tv_sec + (double)used.tv_nsec / 1e9;
}

/* ---- a client ---- */

struct client {
    int fd;
    struct tls *tls; /* NULL: plain */
    uint8_t in[TURN];
    size_t in_len;
};

static void wait_for(struct client *c, short events)
{
    struct pollfd pfd = {.fd = c->fd, .events = events};

    if (poll(&pfd, 1, 10000) != 1)
        die("the gate does not answer");
}

static void say(struct client *c, const uint8_t *data, size_t len)
{
    while (len > 0) {
        ssize_t n = c->tls ? tls_write(c->tls, data, len) : send(c->fd, data, len, MSG_NOSIGNAL);

        if (n == -EAGAIN || (n < 0 && !c->tls && errno == EAGAIN)) {
            wait_for(c, POLLOUT);
            continue;
        }
        if (n <= 0)
            die("the connection broke: %s", c->tls ? tls_why(c->tls) : strerror(errno));
        data += n;
        len -= (size_t)n;
    }
}

static void hear(struct client *c)
{
    for (;;) {
        size_t room = sizeof c->in - c->in_len;
        ssize_t n = c->tls ? tls_read(c->tls, c->in + c->in_len, room)
                           : recv(c->fd, c->in + c->in_len, room, 0);

        if (n > 0) {
            c->in_len += (size_t)n;
            return;
        }
        if (n != -EAGAIN && !(n < 0 && !c->tls && errno == EAGAIN))
            die("the connection broke: %s", c->tls ? tls_why(c->tls) : "closed");
        wait_for(c, POLLIN);
    }
}

static void dial(struct client *c, const struct served *to, struct tls_keeper *keeper)
{
    const int on = 1;
    int r;

    memset(c, 0, sizeof *c);
    c->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (connect(c->fd, (const struct sockaddr *)&to->at, sizeof(struct sockaddr_in)) < 0)
        die("connect: %s", strerror(errno));
    setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    fcntl(c->fd, F_SETFL, O_NONBLOCK);
    if (!keeper)
        return;
    if (tls_new(keeper, TLS_CONNECT, c->fd, "bench", false, &c->tls) < 0)
        die("no memory");
    while ((r = tls_handshake(c->tls)) == -EAGAIN)
        wait_for(c, tls_wants(c->tls) == TLS_WRITABLE ? POLLOUT : POLLIN);
    if (r < 0)
        die("no handshake: %s", tls_why(c->tls));
}

static void greet(struct client *c)
{
    uint8_t hello[SP_HELLO_LEN];

    sp_hello_pack(SP_REQ0, hello);
    say(c, hello, sizeof hello);
    while (c->in_len < SP_HELLO_LEN)
        hear(c);
    c->in_len = 0;
}

static void hang_up(struct client *c)
{
    tls_free(c->tls);
    close(c->fd);
}

/* ---- calls ---- */

/* How many whole answers came; what is left of one stays. */
static unsigned answers(struct client *c)
{
    size_t at = 0, head = sp_head_len(SP_TCP);
    unsigned n = 0;
    uint64_t len;

    while (sp_head_parse(SP_TCP, c->in + at, c->in_len - at, TURN, &len) == 0 &&
           c->in_len - at - head >= len) {
        at += head + len;
        n++;
    }
    memmove(c->in, c->in + at, c->in_len - at);
    c->in_len -= at;
    return n;
}

/* `window` calls in flight on one connection, each answered in the order in which it was asked, as
 * far as the clock is concerned. */
struct told {
    struct result result;
    double cpu_s; /* of the gate and what is behind it, for each call */
};
static struct told call(const struct served *to, struct tls_keeper *keeper, unsigned window,
                        double seconds, const uint8_t *request, size_t len)
{
    static struct client c;
    static double latency[SAMPLES];
    double since[WINDOW_MAX], begin, now;
    uint8_t *message = malloc(SP_HEAD_MAX + 4 + len);
    size_t head, n = 0;
    struct told told;
    double used;

    head = sp_head_len(SP_TCP);
    sp_head_pack(SP_TCP, 4 + len, message);
    memcpy(message + head, "\x80\0\0\1", 4);
    memcpy(message + head + 4, request, len);
    dial(&c, to, keeper);
    greet(&c);
    used = cpu_s(to);
    begin = now_s();
    for (unsigned i = 0; i < window; i++) {
        since[i] = now_s();
        say(&c, message, head + 4 + len);
    }
    do {
        unsigned came;

        hear(&c);
        now = now_s();
        came = answers(&c);
        for (unsigned i = 0; i < came; i++, n++) {
            if (n < SAMPLES)
                latency[n] = now - since[n % window];
            since[n % window] = now;
            say(&c, message, head + 4 + len);
        }
    } while (now < begin + seconds);
    told.cpu_s = (cpu_s(to) - used) / (double)n;
    hang_up(&c);
    free(message);
    told.result.rate = (double)n / (now - begin);
    n = n < SAMPLES ? n : SAMPLES;
    told.result.p50 = percentile(latency, n, 0.5);
    told.result.p99 = percentile(latency, n, 0.99);
    return told;
}

static void compare(const char *what, const struct served served[2], struct tls_keeper *keeper,
                    unsigned window, int rounds, double seconds)
{
    double rate[ROUNDS_MAX], latency[ROUNDS_MAX], cpu[ROUNDS_MAX];
    double each[2][ROUNDS_MAX], p50[2][ROUNDS_MAX], cpus[2][ROUNDS_MAX];
    const char *names[] = {"web"};
    uint8_t *request;
    size_t len;

    request = lookup_request(names, 1, &len);
    for (int i = 0; i < rounds; i++) {
        struct told told[2] = {call(&served[0], NULL, window, seconds, request, len),
                               call(&served[1], keeper, window, seconds, request, len)};

        for (int k = 0; k < 2; k++) {
            each[k][i] = told[k].result.rate;
            p50[k][i] = told[k].result.p50 * 1e6;
            cpus[k][i] = told[k].cpu_s * 1e6;
        }
        rate[i] = told[1].result.rate / told[0].result.rate;
        latency[i] = told[1].result.p50 / told[0].result.p50;
        cpu[i] = told[1].cpu_s / told[0].cpu_s;
    }
    free(request);
    printf("%-12s", what);
    for (int k = 0; k < 2; k++)
        printf(" | %s %7.0f/s p50 %5.0f us CPU %5.1f us", k ? "TLS" : "plain",
               median(each[k], (size_t)rounds), median(p50[k], (size_t)rounds),
               median(cpus[k], (size_t)rounds));
    printf(" | rate x %.2f, latency x %.2f, CPU x %.2f (%.2f to %.2f)\n",
           median(rate, (size_t)rounds), median(latency, (size_t)rounds),
           median(cpu, (size_t)rounds), cpu[0], cpu[rounds - 1]);
    fflush(stdout);
}

/* ---- handshakes, memory ---- */

static void shake(const struct served *to, struct tls_keeper *keeper, double seconds)
{
    static struct client c;
    double begin = now_s(), used = cpu_s(to), now;
    size_t n = 0;

    do {
        dial(&c, to, keeper);
        greet(&c);
        hang_up(&c);
        n++;
        now = now_s();
    } while (now < begin + seconds);
    printf("full handshakes, one after another: %.0f/s, %.0f us of CPU each at the gate\n",
           (double)n / (now - begin), (cpu_s(to) - used) * 1e6 / (double)n);
}

static void idle(const char *what, const struct served *to, struct tls_keeper *keeper, size_t n)
{
    struct meshd process = {.pid = to->pid};
    long before, after, rss;
    struct client *c = calloc(n, sizeof *c);

    if (!c)
        die("no memory");
    meshd_memory(&process, &before, &rss);
    for (size_t i = 0; i < n; i++) {
        dial(&c[i], to, keeper);
        greet(&c[i]);
    }
    meshd_memory(&process, &after, &rss);
    printf("%zu idle connections, %-5s %.1f KiB each at the gate\n", n, what,
           (double)(after - before) / (double)n);
    for (size_t i = 0; i < n; i++)
        hang_up(&c[i]);
    free(c);
}

int main(int argc, char **argv)
{
    int rounds = argc > 1 ? atoi(argv[1]) : 5;
    double seconds = argc > 2 ? strtod(argv[2], NULL) : 1.0;
    size_t n_idle = argc > 3 ? (size_t)atoi(argv[3]) : 1000;
    char dir[] = "/tmp/meshd-bench-XXXXXX";
    struct issued *ca = issue_ca(NULL, "bench");
    struct tls_settings settings = node_settings("bench", ca, issue_node(ca, "bench"));
    struct tls_keeper *keeper = keep(&settings);
    struct served served[2];

    if (rounds < 1 || rounds > ROUNDS_MAX || seconds <= 0 || n_idle < 1 || !mkdtemp(dir))
        die("usage: bench_tls [ROUNDS=5] [SECONDS=1.0] [IDLE=1000]");
    start(&served[0], dir, "plain", NULL);
    start(&served[1], dir, "tls", keeper);
    idle("plain", &served[0], NULL, n_idle);
    idle("TLS", &served[1], keeper, n_idle);
    compare("1 in flight", served, keeper, 1, rounds, seconds);
    compare("64 in flight", served, keeper, 64, rounds, seconds);
    shake(&served[1], keeper, seconds);
    for (int i = 0; i < 2; i++) {
        kill(served[i].pid, SIGKILL);
        waitpid(served[i].pid, NULL, 0);
        unlink(served[i].path);
    }
    rmdir(dir);
    tls_keeper_free(keeper);
    return 0;
}
