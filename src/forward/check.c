/* check - dial, ask, read the status, reset: within one deadline.
 *
 *   posted ─▶ dialling ─▶ (TCP) told
 *                  └────▶ (HTTP) asking ─▶ reading ─▶ told ─▶ the rest is let pass
 *
 * The request fits any empty send buffer. A backend that is reset before all of its answer was read
 * complains of it in its log, each time: so a little more is read after the status, for a little
 * while. What is still open then is reset: nothing of a look stays.
 */
#include "forward/check.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include "forward/backend.h"
#include "forward/http_status.h"
#include "forward/inside.h"
#include "forward/proxy_header.h"
#include "wire/name.h"

#define READ_BYTES 4096u
#define REQUEST_MAX 1024u
#define REST_MS 500u
#define REST_BYTES 65536u
_Static_assert(REQUEST_MAX > PROXY_PACK_MAX + LIMIT_CHECK_PATH + LIMIT_BACKEND + 256, "it fits");

struct check {
    struct mail start;
    struct ring all; /* worker->checks */
    struct worker *worker;
    struct alarm deadline;
    uint64_t number;
    uint32_t timeout_ms;
    enum proxy_version proxy;
    struct backend_try *dial;
    struct leg *leg;
    struct http_status status;
    uint32_t rest; /* bytes behind the status that were read */
    bool told;
    char backend[LIMIT_BACKEND + 1];
    char path[LIMIT_CHECK_PATH + 1]; /* "": a connection is all that is asked for */
};

static void check_free(struct check *check)
{
    alarm_clear(check->worker, &check->deadline);
    if (check->dial)
        backend_cancel(check->dial);
    leg_reset(check->leg);
    ring_drop(&check->all);
    free(check);
}

static void tell(struct check *check, int error, const char *text)
{
    const struct forward_ops *ops = &check->worker->forward->ops;
    uint64_t number = check->number;

    check_free(check);
    ops->checked(ops->ctx, number, error, text);
}

/* ---- the answer ---- */

static void on_rest(struct leg *leg, int events)
{
    struct check *check = leg->owner;
    ssize_t n = leg_recv(leg, check->worker->scratch, READ_BYTES);

    if (n > 0)
        check->rest += (uint32_t)n;
    if (n == -EAGAIN || (n > 0 && check->rest < REST_BYTES))
        leg_want(leg, UV_READABLE);
    else
        check_free(check);
}

static void tell_status(struct check *check)
{
    const struct forward_ops *ops = &check->worker->forward->ops;
    bool good = check->status.status >= 200 && check->status.status <= 399;
    char text[32];

    snprintf(text, sizeof(text), "answered %u", check->status.status);
    check->told = true;
    check->leg->ready = on_rest;
    leg_want(check->leg, UV_READABLE);
    alarm_set(check->worker, &check->deadline, REST_MS);
    ops->checked(ops->ctx, check->number, good ? 0 : -EPROTO, text);
}

static void on_readable(struct leg *leg, int events)
{
    struct check *check = leg->owner;
    uint8_t *scratch = check->worker->scratch;
    ssize_t n = leg_recv(leg, scratch, READ_BYTES);

    if (n == -EAGAIN) {
        leg_want(leg, UV_READABLE);
        return;
    }
    if (n < 0) {
        tell(check, (int)n, "broke the connection off without an answer");
        return;
    }
    if (n == 0) {
        tell(check, -EPROTO, "ended the connection without an answer");
        return;
    }
    switch (http_status_feed(&check->status, scratch, (size_t)n)) {
    case HTTP_STATUS_MORE:
        leg_want(leg, UV_READABLE);
        break;
    case HTTP_STATUS_DONE:
        tell_status(check);
        break;
    case HTTP_STATUS_BAD:
        tell(check, -EPROTO, "answered what is no HTTP/1.x");
        break;
    }
}

/* A backend that wants to be told of its client is told that there is none. */
static size_t pack_request(const struct check *check, uint8_t out[REQUEST_MAX])
{
    static const struct tuple nobody;
    size_t n = check->proxy == PROXY_OFF ? 0 : proxy_header_pack(check->proxy, &nobody, out);

    n += (size_t)snprintf((char *)out + n, REQUEST_MAX - n,
                          "GET %s HTTP/1.1\r\nHost: %s\r\nUser-Agent: meshd/" MESHD_VERSION
                          "\r\nAccept: */*\r\nConnection: close\r\n\r\n",
                          check->path, check->backend);
    return n;
}

static void ask(struct check *check)
{
    uint8_t request[REQUEST_MAX];
    size_t len = pack_request(check, request);

    check->leg->owner = check;
    check->leg->ready = on_readable;
    if (leg_send(check->leg, request, len, false) == (ssize_t)len)
        leg_want(check->leg, UV_READABLE);
    else
        tell(check, -ECONNRESET, "broke the connection off");
}

/* ---- the dial ---- */

static void on_backend(void *ctx, int error, struct leg *leg)
{
    struct check *check = ctx;

    check->dial = NULL;
    check->leg = leg;
    if (error < 0)
        tell(check, error, backend_error_text(error));
    else if (check->path[0] == '\0')
        tell(check, 0, "connected");
    else
        ask(check);
}

static void on_deadline(struct alarm *alarm)
{
    struct check *check = CONTAINER_OF(alarm, struct check, deadline);

    if (check->told) {
        check_free(check);
        return;
    }
    tell(check, -ETIMEDOUT,
         check->leg ? "connected and did not answer in time" : "did not connect in time");
}

static void read_start(struct worker *worker, struct mail *mail)
{
    struct check *check = CONTAINER_OF(mail, struct check, start);
    int r;

    if (worker->stopping) {
        free(check);
        return;
    }
    check->worker = worker;
    ring_push(&worker->checks, &check->all);
    alarm_set(worker, &check->deadline, check->timeout_ms);
    /* The deadline is the check's own: it covers the answer, too. */
    r = backend_dial(worker, check->backend, check->timeout_ms + 2 * ALARM_STEP_MS, check,
                     on_backend, &check->dial);
    if (r < 0)
        tell(check, r, backend_error_text(r));
}

static bool may_be_asked_for(const char *path)
{
    if (path[0] != '/' || strlen(path) > LIMIT_CHECK_PATH)
        return false;
    for (; *path; path++)
        if (*path <= ' ' || *path > '~')
            return false;
    return true;
}

int forward_check(struct forward *forward, uint64_t number, const char *backend,
                  enum proxy_version proxy, const char *http_path, uint32_t timeout_ms)
{
    struct worker *worker = forward_next_worker(forward);
    char host[LIMIT_NAME + 1];
    struct check *check;
    uint16_t port;

    if (addr_split(backend, strlen(backend), host, &port) < 0 ||
        (http_path && !may_be_asked_for(http_path)))
        return -EINVAL;
    check = calloc(1, sizeof(*check));
    if (!check)
        return -ENOMEM;
    check->start.read = read_start;
    ring_init(&check->all);
    alarm_init(&check->deadline, on_deadline);
    check->number = number;
    check->timeout_ms = timeout_ms;
    check->proxy = proxy;
    snprintf(check->backend, sizeof(check->backend), "%s", backend);
    snprintf(check->path, sizeof(check->path), "%s", http_path ? http_path : "");
    worker_post(worker, &check->start);
    return 0;
}

void checks_worker_stop(struct worker *worker)
{
    while (!ring_empty(&worker->checks))
        check_free(CONTAINER_OF(worker->checks.next, struct check, all));
}
