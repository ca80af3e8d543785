/* bench_nng - bare nng on both ends. */
#include "bench_nng.h"
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>
#include <meshd/v1/mesh.pb-c.h>
#include <nng/nng.h>
#include <nng/protocol/reqrep0/rep.h>
#include <nng/protocol/reqrep0/req.h>
#include "bench_util.h"
#include "wire/frame.h"

#define SAMPLES 400000u
#define CONTEXTS 128

static void check(int r, const char *what)
{
    if (r)
        die("%s: %s", what, nng_strerror(r));
}

/* ---- the bare server, in a process of its own ---- */

struct echo {
    nng_ctx ctx;
    nng_aio *aio;
    bool sending;
};

static uint8_t answer[65536];
static size_t answer_len;

static void on_echo(void *arg)
{
    struct echo *e = arg;

    if (nng_aio_result(e->aio))
        return;
    if (!e->sending) {
        nng_msg *msg = nng_aio_get_msg(e->aio);

        nng_msg_clear(msg);
        nng_msg_append(msg, answer, answer_len);
        nng_aio_set_msg(e->aio, msg);
        e->sending = true;
        nng_ctx_send(e->ctx, e->aio);
    } else {
        e->sending = false;
        nng_ctx_recv(e->ctx, e->aio);
    }
}

/* Writes the port that nng chose to fd. */
static void serve_bare(int fd)
{
    static struct echo echoes[CONTEXTS];
    nng_listener listener;
    nng_socket s;
    int port;

    prctl(PR_SET_PDEATHSIG, SIGKILL);
    check(nng_rep0_open(&s), "open");
    for (int i = 0; i < CONTEXTS; i++) {
        check(nng_ctx_open(&echoes[i].ctx, s), "context");
        check(nng_aio_alloc(&echoes[i].aio, on_echo, &echoes[i]), "aio");
        nng_ctx_recv(echoes[i].ctx, echoes[i].aio);
    }
    check(nng_listen(s, "tcp://127.0.0.1:0", &listener, 0), "listen");
    check(nng_listener_get_int(listener, NNG_OPT_TCP_BOUND_PORT, &port), "port");
    if (write(fd, &port, sizeof port) != sizeof port)
        _exit(1);
    for (;;)
        pause();
}

/* ---- the client ---- */

struct caller {
    struct load *load;
    nng_ctx ctx;
    nng_aio *aio;
    bool receiving;
    double since;
};

struct load {
    pthread_mutex_t lock;
    pthread_cond_t idle;
    double until, last;
    double *latency;
    size_t n;
    unsigned running;
    const uint8_t *request;
    size_t request_len;
};

static void ask(struct caller *c)
{
    nng_msg *msg;

    check(nng_msg_alloc(&msg, c->load->request_len), "message");
    memcpy(nng_msg_body(msg), c->load->request, c->load->request_len);
    c->receiving = false;
    c->since = now_s();
    nng_aio_set_msg(c->aio, msg);
    nng_ctx_send(c->ctx, c->aio);
}

static void on_call(void *arg)
{
    struct caller *c = arg;
    struct load *load = c->load;
    double now;
    bool more;

    check(nng_aio_result(c->aio), "call");
    if (!c->receiving) {
        c->receiving = true;
        nng_ctx_recv(c->ctx, c->aio);
        return;
    }
    nng_msg_free(nng_aio_get_msg(c->aio));
    now = now_s();
    pthread_mutex_lock(&load->lock);
    if (load->n < SAMPLES)
        load->latency[load->n] = now - c->since;
    load->n++;
    load->last = now;
    more = now < load->until;
    if (!more && --load->running == 0)
        pthread_cond_signal(&load->idle);
    pthread_mutex_unlock(&load->lock);
    if (more)
        ask(c);
}

struct result measure(const char *url, unsigned in_flight, unsigned n_sockets, double seconds,
                      const uint8_t *request, size_t request_len)
{
    struct load load = {.request = request, .request_len = request_len, .running = in_flight};
    nng_socket *sockets = calloc(n_sockets, sizeof *sockets);
    struct caller *callers = calloc(in_flight, sizeof *callers);
    struct result result;
    double begin;
    size_t n;

    pthread_mutex_init(&load.lock, NULL);
    pthread_cond_init(&load.idle, NULL);
    load.latency = malloc(SAMPLES * sizeof *load.latency);
    for (unsigned i = 0; i < n_sockets; i++) {
        check(nng_req0_open(&sockets[i]), "open");
        check(nng_socket_set_ms(sockets[i], NNG_OPT_REQ_RESENDTIME, NNG_DURATION_INFINITE),
              "option");
        check(nng_dial(sockets[i], url, NULL, 0), url);
    }
    begin = now_s();
    load.until = begin + seconds;
    for (unsigned i = 0; i < in_flight; i++) {
        callers[i].load = &load;
        check(nng_ctx_open(&callers[i].ctx, sockets[i % n_sockets]), "context");
        check(nng_aio_alloc(&callers[i].aio, on_call, &callers[i]), "aio");
        nng_aio_set_timeout(callers[i].aio, 5000);
        ask(&callers[i]);
    }
    pthread_mutex_lock(&load.lock);
    while (load.running)
        pthread_cond_wait(&load.idle, &load.lock);
    pthread_mutex_unlock(&load.lock);
    n = load.n < SAMPLES ? load.n : SAMPLES;
    result.rate = (double)load.n / (load.last - begin);
    result.p50 = percentile(load.latency, n, 0.5);
    result.p99 = percentile(load.latency, n, 0.99);
    for (unsigned i = 0; i < in_flight; i++) {
        nng_aio_wait(callers[i].aio);
        nng_aio_free(callers[i].aio);
        nng_ctx_close(callers[i].ctx);
    }
    for (unsigned i = 0; i < n_sockets; i++)
        nng_close(sockets[i]);
    free(sockets);
    free(callers);
    free(load.latency);
    return result;
}

pid_t bare_start(size_t len, char out_url[64])
{
    int fds[2], port;
    pid_t pid;

    if (len > sizeof answer)
        die("an answer of %zu bytes is too long", len);
    answer_len = len;
    memset(answer, 'x', len);
    if (pipe(fds) < 0)
        die("no pipe");
    pid = fork();
    if (pid == 0)
        serve_bare(fds[1]);
    if (read(fds[0], &port, sizeof port) != sizeof port)
        die("the bare server did not start");
    close(fds[0]);
    close(fds[1]);
    snprintf(out_url, 64, "tcp://127.0.0.1:%d", port);
    return pid;
}

uint8_t *lookup_request(const char *const *names, size_t n, size_t *out_len)
{
    Meshd__V1__CallHeader header = MESHD__V1__CALL_HEADER__INIT;
    Meshd__V1__LookupRequest request = MESHD__V1__LOOKUP_REQUEST__INIT;
    uint8_t *out;

    header.method = (char *)"/meshd.v1.Registry/Lookup";
    header.call_id = 1;
    header.deadline_ms = 5000;
    header.wire_version = 1;
    request.names = (char **)names;
    request.n_names = n;
    *out_len = frame_size(&header.base, &request.base);
    out = malloc(*out_len);
    if (!out)
        die("no memory");
    frame_pack(&header.base, &request.base, out);
    return out;
}
