/* backend - one dial: the addresses, one socket for each that is tried, whichever connects first.
 *
 * Nothing is told from within backend_dial: what is known at once comes as mail, too. A try whose
 * mail is on its way when it ends stays until that is read.
 */
#include "forward/backend.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <string.h>
#include "forward/inside.h"
#include "forward/names.h"
#include "forward/tuple.h"
#include "wire/name.h"

#define STAGGER_MS 250u /* RFC 8305 5 */

struct backend_try {
    struct worker *worker;
    void *ctx;
    void (*done)(void *ctx, int error, struct leg *leg);
    struct alarm deadline, next_turn;
    struct names_wait wait; /* and the addresses */
    bool awaits;            /* the mail of wait */
    bool over;              /* that is all it awaits */
    uint16_t port;
    int error;     /* to tell if all fail; 0: none has yet */
    unsigned next; /* address */
    unsigned n_running;
    struct leg *legs[NAMES_ADDRESSES]; /* by address; NULL: not tried yet, or failed */
};

/* ---- ends ---- */

/* A refusal says most: there is a host, and nothing listens. A time-out says more than that there
 * is no way to another address. */
static int weight(int error)
{
    return error == -ECONNREFUSED ? 3 : error == -ETIMEDOUT ? 2 : error < 0 ? 1 : 0;
}

static void failed(struct backend_try *attempt, int error)
{
    if (weight(error) > weight(attempt->error))
        attempt->error = error;
}

/* Frees it, now or when its mail is read. */
static void release(struct backend_try *attempt)
{
    alarm_clear(attempt->worker, &attempt->deadline);
    alarm_clear(attempt->worker, &attempt->next_turn);
    for (unsigned i = 0; i < attempt->next; i++)
        leg_close(attempt->legs[i]);
    attempt->over = true;
    if (!attempt->awaits || names_leave(attempt->worker->forward->names, &attempt->wait))
        free(attempt);
}

/* The last that happens to it. */
static void tell(struct backend_try *attempt, int error, struct leg *leg)
{
    void (*done)(void *ctx, int error, struct leg *leg) = attempt->done;
    void *ctx = attempt->ctx;

    release(attempt);
    done(ctx, error, leg);
}

/* ---- one address ---- */

static socklen_t sockaddr_of(const struct in6_addr *ip, uint16_t port, struct sockaddr_storage *out)
{
    endpoint_to(&(struct endpoint){*ip, port}, out);
    return out->ss_family == AF_INET ? sizeof(struct sockaddr_in) : sizeof(struct sockaddr_in6);
}

static bool end_of(int (*ask)(int fd, struct sockaddr *addr, socklen_t *len), int fd,
                   struct endpoint *out)
{
    struct sockaddr_storage addr;
    socklen_t len = sizeof(addr);

    return ask(fd, (struct sockaddr *)&addr, &len) == 0 && endpoint_from(&addr, out);
}

/* Only where the kernel chose the very port that was dialled. */
static bool meets_itself(int fd, uint16_t port)
{
    struct endpoint here, there;

    return end_of(getsockname, fd, &here) && here.port == port && end_of(getpeername, fd, &there) &&
           there.port == port && memcmp(&here.ip, &there.ip, sizeof(here.ip)) == 0;
}

static void try_next(struct backend_try *attempt);

static void on_ready(struct leg *leg, int events)
{
    struct backend_try *attempt = leg->owner;
    int r = leg_error(leg);
    const int on = 1;
    unsigned at = 0;

    if (r == 0 && meets_itself(leg->fd, attempt->port))
        r = -ECONNREFUSED;
    /* It was accepted and thrown out before we looked. */
    if (r == -ECONNRESET)
        r = -ECONNREFUSED;
    while (attempt->legs[at] != leg)
        at++;
    attempt->legs[at] = NULL;
    attempt->n_running--;
    if (r == 0) {
        leg_want(leg, 0);
        leg->owner = NULL;
        leg->ready = NULL;
        setsockopt(leg->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
        /* A byte marked urgent keeps its place in the stream. */
        setsockopt(leg->fd, SOL_SOCKET, SO_OOBINLINE, &on, sizeof(on));
        tell(attempt, 0, leg);
        return;
    }
    leg_close(leg);
    failed(attempt, r);
    try_next(attempt);
    if (attempt->n_running == 0)
        tell(attempt, attempt->error, NULL);
}

static int try_one(struct backend_try *attempt, unsigned at)
{
    struct sockaddr_storage addr;
    socklen_t len = sockaddr_of(&attempt->wait.found.at[at], attempt->port, &addr);
    int fd = socket(addr.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    struct leg *leg;

    if (fd < 0)
        return -errno;
    if (connect(fd, (struct sockaddr *)&addr, len) < 0 && errno != EINPROGRESS) {
        int r = -errno;

        close(fd);
        return r;
    }
    leg = leg_new(attempt->worker, fd);
    if (!leg)
        return -ENOMEM;
    leg->owner = attempt;
    leg->ready = on_ready;
    leg_want(leg, UV_WRITABLE);
    attempt->legs[at] = leg;
    attempt->n_running++;
    return 0;
}

/* The next address that does not fail at once; the one after it gets its turn in a while. With
 * none running afterwards, all have failed. */
static void try_next(struct backend_try *attempt)
{
    alarm_clear(attempt->worker, &attempt->next_turn);
    while (attempt->next < attempt->wait.found.n) {
        int r = try_one(attempt, attempt->next++);

        if (r < 0) {
            failed(attempt, r);
            continue;
        }
        if (attempt->next < attempt->wait.found.n)
            alarm_set(attempt->worker, &attempt->next_turn, STAGGER_MS);
        return;
    }
}

static void on_next_turn(struct alarm *alarm)
{
    /* Another still runs, or the last that failed would have had the next one tried. */
    try_next(CONTAINER_OF(alarm, struct backend_try, next_turn));
}

static void on_deadline(struct alarm *alarm)
{
    struct backend_try *attempt = CONTAINER_OF(alarm, struct backend_try, deadline);

    failed(attempt, -ETIMEDOUT);
    tell(attempt, attempt->error, NULL);
}

/* ---- a dial ---- */

static void read_answer(struct worker *worker, struct mail *mail)
{
    struct backend_try *attempt = CONTAINER_OF(mail, struct backend_try, wait.mail);

    attempt->awaits = false;
    if (attempt->over) {
        free(attempt);
        return;
    }
    if (attempt->wait.error == 0)
        try_next(attempt);
    else
        failed(attempt, attempt->wait.error);
    if (attempt->n_running == 0)
        tell(attempt, attempt->error, NULL);
}

static bool literal(const char *host, struct addresses *out)
{
    struct in_addr v4;

    if (inet_pton(AF_INET, host, &v4) == 1) {
        out->at[0] = (struct in6_addr){.s6_addr = {[10] = 0xff, [11] = 0xff}};
        memcpy(out->at[0].s6_addr + 12, &v4, 4);
    } else if (inet_pton(AF_INET6, host, &out->at[0]) != 1) {
        return false;
    }
    out->n = 1;
    return true;
}

int backend_dial(struct worker *worker, const char *backend, uint32_t ms, void *ctx,
                 void (*done)(void *ctx, int error, struct leg *leg), struct backend_try **out_try)
{
    char host[LIMIT_NAME + 1];
    struct backend_try *attempt;
    uint16_t port;
    int r = addr_split(backend, strlen(backend), host, &port);

    if (r < 0)
        return r;
    attempt = calloc(1, sizeof(*attempt));
    if (!attempt)
        return -ENOMEM;
    attempt->worker = attempt->wait.worker = worker;
    attempt->wait.mail.read = read_answer;
    attempt->ctx = ctx;
    attempt->done = done;
    attempt->port = port;
    alarm_init(&attempt->deadline, on_deadline);
    alarm_init(&attempt->next_turn, on_next_turn);
    alarm_set(worker, &attempt->deadline, ms);
    *out_try = attempt;
    if (!literal(host, &attempt->wait.found))
        r = names_ask(worker->forward->names, host, &attempt->wait);
    if (r == 0)
        try_next(attempt);
    if (r <= 0 && attempt->n_running == 0) {
        attempt->wait.error = r < 0 ? r : attempt->error;
        attempt->wait.posted = true;
        worker_post(worker, &attempt->wait.mail);
    }
    attempt->awaits = attempt->n_running == 0;
    return 0;
}

void backend_cancel(struct backend_try *attempt) { release(attempt); }

const char *backend_error_text(int error)
{
    return error == -ENOENT ? "its name does not resolve" : strerrordesc_np(-error);
}
