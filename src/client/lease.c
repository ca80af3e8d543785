/* lease - one offer, renewed by a thread of its own on a connection of its own.
 *
 * The thread sleeps until it is time to renew, until the node closes the connection, or until the
 * lease is closed. When the node was away it connects again and makes the same offer anew, under
 * the same lease id: that renews what is still there and makes what is not. An attempt takes less
 * than a second, so that closing can wait for one and still say goodbye.
 *
 * A change of the offer is the thread's to make too: made beside it, a renewal under way could undo
 * it. What the node turns down is not offered again, but what stood before; what it does not answer
 * is, until it does.
 */
#include <assert.h>
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>
#include "base/backoff.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/lock.h"
#include "base/random.h"
#include "client/call.h"
#include "client/inside.h"
#include "client/offered.h"

#define TTL_MS 15000u
#define RENEW_MS 5000u  /* two renewals may fail before the offer ends */
#define ATTEMPT_MS 900u /* for one renewal, with its connect */
#define CLOSE_MS 1000u  /* for the withdrawal, with an attempt that may be under way */
#define BACKOFF_MIN_MS 100
#define BACKOFF_MAX_MS 2000
#define LEASE_ID_MAX 40u /* "lib:" and 32 hex digits */

struct mesh_lease {
    char *url;
    struct trust *trust; /* of tls://; else NULL */
    char id[LEASE_ID_MAX];
    struct call_conn *conn; /* the thread's once it runs; NULL: to be made */
    struct backoff backoff;
    pthread_t thread;
    int wake_fd;     /* closing and changes wake the thread */
    int answered_fd; /* readable: a change was answered */
    /* The thread's, as conn. */
    struct offered now, before; /* before: what stood, while a change of it is not answered */
    unsigned change;            /* the last one that was taken up */
    bool changing;              /* it is not answered yet */
    char why[TLS_WHY];          /* of the last attempt to connect */
    struct mutex lock;
    struct { /* only with lock held */
        bool closed;
        uint64_t close_by_ms;
        enum mesh_status state;
        unsigned service; /* MESH_HEALTHY | ..., as the node answered last */
        char ill[LIMIT_STATUS_TEXT + 1];
        struct offered wanted;     /* by the program */
        unsigned change, answered; /* how often it was another one, and which was answered last */
        enum mesh_status answer;
        char answer_text[ERROR_TEXT];
    } held;
};

/* An answer; or a negative errno, and there is no connection any more. */
static int ask(struct mesh_lease *lease, const char *method, const ProtobufCMessage *request,
               uint64_t deadline_ms, struct call_reply **out_reply)
{
    int r = 0;

    if (!lease->conn)
        r = call_open(lease->url, lease->trust, deadline_ms, lease->why, &lease->conn);
    if (r == 0)
        r = call_invoke(lease->conn, method, request, deadline_ms, out_reply);
    if (r < 0)
        call_close(TAKE(&lease->conn));
    return r;
}

static enum mesh_status status_of(const struct call_reply *reply)
{
    struct error_answer answer = {
        .status = reply->status,
        .reason = (unsigned)reply->reason,
        .text = reply->text,
        .text_len = strlen(reply->text),
        .wire_version_min = reply->wire_version_min,
        .wire_version_max = reply->wire_version_max,
    };

    return reply->status ? error_answer(&answer) : MESH_OK;
}

static void note_service(struct mesh_lease *lease, const Meshd__V1__OfferReply *reply)
{
    mutex_lock(&lease->lock);
    lease->held.service =
        (reply->unhealthy ? 0u : MESH_HEALTHY) | (reply->draining ? MESH_DRAINING : 0u);
    snprintf(lease->held.ill, sizeof(lease->held.ill), "%s", reply->why);
    mutex_unlock(&lease->lock);
}

/* The answer in *out_status; or a negative errno as of ask. */
static int send_offer(struct mesh_lease *lease, uint64_t deadline_ms, enum mesh_status *out_status)
{
    CLEANUP(call_reply_freep) struct call_reply *reply = NULL;
    Meshd__V1__OfferRequest request;
    int r;

    offered_request(&lease->now, &request);
    request.lease_id = lease->id;
    request.ttl_ms = TTL_MS;
    r = ask(lease, "Offer", &request.base, deadline_ms, &reply);
    if (r < 0)
        return r;
    *out_status = status_of(reply);
    if (*out_status == MESH_OK)
        note_service(lease, (const Meshd__V1__OfferReply *)reply->message);
    return 0;
}

/* ---- changes ---- */

/* What the program wants is what is offered from now on. True: that is something new. */
static bool take_change(struct mesh_lease *lease)
{
    bool fresh;

    mutex_lock(&lease->lock);
    fresh = lease->held.change != lease->change;
    if (fresh && !lease->changing)
        lease->before = lease->now;
    if (fresh) {
        lease->now = lease->held.wanted;
        lease->change = lease->held.change;
        lease->changing = true;
    }
    mutex_unlock(&lease->lock);
    return fresh;
}

/* status: what the node answered to it; its text is this thread's mesh_error_text(). */
static void answer_change(struct mesh_lease *lease, enum mesh_status status)
{
    lease->changing = false;
    if (status != MESH_OK)
        lease->now = lease->before;
    mutex_lock(&lease->lock);
    if (lease->held.change == lease->change)
        lease->held.wanted = lease->now;
    lease->held.answered = lease->change;
    lease->held.answer = status;
    snprintf(lease->held.answer_text, sizeof(lease->held.answer_text), "%s", mesh_error_text());
    mutex_unlock(&lease->lock);
    if (eventfd_write(lease->answered_fd, 1) < 0)
        assert(false); /* it never comes near its limit */
}

/* ---- the thread ---- */

static bool is_closed(struct mesh_lease *lease, uint64_t *out_close_by_ms)
{
    bool closed;

    mutex_lock(&lease->lock);
    closed = lease->held.closed;
    *out_close_by_ms = lease->held.close_by_ms;
    mutex_unlock(&lease->lock);
    return closed;
}

/* Until then, or until the lease is closed or changed, or the node has gone: true. */
static bool sleep_until(struct mesh_lease *lease, uint64_t until_ms)
{
    struct pollfd fds[2] = {
        {.fd = lease->wake_fd, .events = POLLIN},
        {.fd = lease->conn ? call_fd(lease->conn) : -1, .events = POLLIN},
    };
    eventfd_t woken;

    for (;;) {
        uint64_t now = clock_ms();

        if (now < until_ms && poll(fds, 2, (int)(until_ms - now)) < 0)
            return false; /* woken too early renews too early, which does no harm */
        if (fds[0].revents)
            eventfd_read(lease->wake_fd, &woken);
        if (!fds[1].revents)
            return false;
        if (call_idle(lease->conn) < 0) {
            call_close(TAKE(&lease->conn));
            return true;
        }
        if (fds[0].revents || now >= until_ms)
            return false;
    }
}

/* One renewal; how long to wait before the next. */
static uint64_t renew(struct mesh_lease *lease)
{
    enum mesh_status state = MESH_GONE;
    int r = send_offer(lease, clock_ms() + ATTEMPT_MS, &state);

    if (r < 0)
        state = r == -EKEYREJECTED ? error_why(r, lease->url, lease->why) : MESH_GONE;
    if (lease->changing && state != MESH_GONE && state != MESH_TIMEOUT) {
        answer_change(lease, state);
        if (state != MESH_OK)
            return 0; /* that what stood before still stands, the node is to say itself */
    }
    if (state != MESH_OK && state != MESH_GONE)
        state = MESH_REFUSED;
    mutex_lock(&lease->lock);
    lease->held.state = state;
    mutex_unlock(&lease->lock);
    if (state != MESH_OK)
        return backoff_next(&lease->backoff, random_u64());
    backoff_reset(&lease->backoff);
    return RENEW_MS - random_u64() % (RENEW_MS / 10);
}

static void withdraw(struct mesh_lease *lease, uint64_t close_by_ms)
{
    CLEANUP(call_reply_freep) struct call_reply *reply = NULL;
    Meshd__V1__WithdrawRequest request = MESHD__V1__WITHDRAW_REQUEST__INIT;

    request.lease_id = lease->id;
    /* If it does not get through, the offer ends by itself when its time is up. */
    (void)ask(lease, "Withdraw", &request.base, close_by_ms, &reply);
}

static void *run(void *arg)
{
    struct mesh_lease *lease = arg;
    uint64_t wait_ms = RENEW_MS, close_by_ms;

    for (;;) {
        bool gone = sleep_until(lease, clock_ms() + wait_ms);

        if (is_closed(lease, &close_by_ms))
            break;
        /* One that answers and goes each time must not be asked as fast as it can. */
        wait_ms = !take_change(lease) && gone ? backoff_next(&lease->backoff, random_u64())
                                              : renew(lease);
    }
    withdraw(lease, close_by_ms);
    return NULL;
}

/* All signals are for the program's own threads. */
static int start(struct mesh_lease *lease)
{
    sigset_t all, before;
    int r;

    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    r = pthread_create(&lease->thread, NULL, run, lease);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return -r;
}

/* ---- the lease ---- */

static void lease_free(struct mesh_lease *lease)
{
    call_close(lease->conn);
    if (lease->wake_fd >= 0)
        close(lease->wake_fd);
    if (lease->answered_fd >= 0)
        close(lease->answered_fd);
    mutex_fini(&lease->lock);
    trust_unref(lease->trust);
    free(lease->url);
    free(lease);
}

static void lease_freep(struct mesh_lease **lease)
{
    if (*lease)
        lease_free(*lease);
}

static struct mesh_lease *lease_new(const struct mesh_client *client, const struct offered *offered)
{
    struct mesh_lease *lease = calloc(1, sizeof(*lease));

    if (!lease)
        return NULL;
    mutex_init(&lease->lock);
    lease->wake_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    lease->answered_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    backoff_init(&lease->backoff, BACKOFF_MIN_MS, BACKOFF_MAX_MS);
    snprintf(lease->id, sizeof(lease->id), "lib:%016llx%016llx", (unsigned long long)random_u64(),
             (unsigned long long)random_u64());
    lease->url = strdup(mesh_client_url(client));
    lease->trust = trust_ref(client_trust(client));
    lease->now = lease->held.wanted = *offered;
    if (lease->wake_fd >= 0 && lease->answered_fd >= 0 && lease->url)
        return lease;
    lease_free(lease);
    return NULL;
}

enum mesh_status mesh_register_with(struct mesh_client *client, const char *name,
                                    const char *address, const struct mesh_offer *offer,
                                    int deadline_ms, struct mesh_lease **out_lease)
{
    CLEANUP(lease_freep) struct mesh_lease *lease = NULL;
    struct offered offered;
    uint64_t deadline;
    enum mesh_status status = deadline_of(deadline_ms, &deadline);
    int r;

    if (status == MESH_OK)
        status = offered_read(name, address, offer, &offered);
    if (status != MESH_OK)
        return status;
    if (strncmp(mesh_client_url(client), "ipc://", 6) != 0 && !client_trust(client))
        return error_set(MESH_INVALID,
                         "a service is offered on a node's local socket, ipc://, or over tls://, "
                         "not on %s",
                         mesh_client_url(client));
    lease = lease_new(client, &offered);
    if (!lease)
        return error_errno(-ENOMEM, "mesh_register");
    /* The same id again is the same offer, so it may be made twice. */
    while ((r = send_offer(lease, deadline, &status)) == -ECONNRESET && clock_ms() < deadline)
        poll(NULL, 0, BACKOFF_MIN_MS);
    if (r == 0 && status == MESH_OK && start(lease) < 0) {
        withdraw(lease, deadline);
        r = -ENOMEM; /* no more threads */
    }
    if (r < 0)
        return error_why(r, lease->url, lease->why);
    if (status == MESH_OK)
        *out_lease = TAKE(&lease);
    return status;
}

enum mesh_status mesh_register(struct mesh_client *client, const char *name, const char *address,
                               int deadline_ms, struct mesh_lease **out_lease)
{
    return mesh_register_with(client, name, address, NULL, deadline_ms, out_lease);
}

enum mesh_status mesh_lease_state(struct mesh_lease *lease)
{
    enum mesh_status state;

    mutex_lock(&lease->lock);
    state = lease->held.state;
    if (state == MESH_GONE)
        error_set(state, "%s: the node is away; it is tried on", lease->url);
    if (state == MESH_REFUSED)
        error_set(state, "the node turned the renewal of %s down; it is tried on",
                  lease->held.wanted.name);
    mutex_unlock(&lease->lock);
    return state;
}

unsigned mesh_lease_service(struct mesh_lease *lease)
{
    char ill[LIMIT_STATUS_TEXT + 1];
    unsigned service;

    mutex_lock(&lease->lock);
    service = lease->held.service;
    memcpy(ill, lease->held.ill, sizeof(ill));
    mutex_unlock(&lease->lock);
    if (!(service & MESH_HEALTHY))
        error_set(MESH_OK, "%s", ill);
    return service;
}

static void wake(struct mesh_lease *lease)
{
    if (eventfd_write(lease->wake_fd, 1) < 0)
        assert(false); /* it never comes near its limit */
}

/* False: by then it is not answered. */
static bool wait_for_answer(struct mesh_lease *lease, unsigned change, uint64_t deadline_ms,
                            enum mesh_status *out_status)
{
    struct pollfd fd = {.fd = lease->answered_fd, .events = POLLIN};
    char text[ERROR_TEXT];
    eventfd_t told;
    uint64_t now;
    bool answered;

    for (;;) {
        mutex_lock(&lease->lock);
        answered = lease->held.answered == change;
        *out_status = lease->held.answer;
        memcpy(text, lease->held.answer_text, sizeof(text));
        mutex_unlock(&lease->lock);
        now = clock_ms();
        if (answered || now >= deadline_ms)
            break;
        if (poll(&fd, 1, (int)(deadline_ms - now)) > 0)
            eventfd_read(lease->answered_fd, &told);
    }
    if (answered && *out_status != MESH_OK)
        error_set(*out_status, "%s", text);
    return answered;
}

enum mesh_status mesh_lease_change(struct mesh_lease *lease, const char *address,
                                   const struct mesh_offer *offer, int deadline_ms)
{
    uint64_t deadline;
    enum mesh_status status = deadline_of(deadline_ms, &deadline);
    unsigned change;

    if (status != MESH_OK)
        return status;
    mutex_lock(&lease->lock);
    status = offered_change(&lease->held.wanted, address, offer);
    if (status == MESH_OK)
        lease->held.change++;
    change = lease->held.change;
    mutex_unlock(&lease->lock);
    if (status != MESH_OK)
        return status;
    wake(lease);
    if (wait_for_answer(lease, change, deadline, &status))
        return status;
    status = mesh_lease_state(lease);
    return status == MESH_GONE ? status : error_errno(-ETIMEDOUT, lease->url);
}

void mesh_lease_close(struct mesh_lease *lease)
{
    if (!lease)
        return;
    mutex_lock(&lease->lock);
    lease->held.closed = true;
    lease->held.close_by_ms = clock_ms() + CLOSE_MS;
    mutex_unlock(&lease->lock);
    wake(lease);
    pthread_join(lease->thread, NULL);
    lease_free(lease);
}
