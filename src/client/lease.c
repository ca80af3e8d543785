/* lease - one offer, renewed by a thread of its own on a connection of its own.
 *
 * The thread sleeps until it is time to renew, until the node closes the connection, or until the
 * lease is closed. When the node was away it connects again and makes the same offer anew, under
 * the same lease id: that renews what is still there and makes what is not. An attempt takes less
 * than a second, so that closing can wait for one and still say goodbye.
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
#include "wire/name.h"

#define TTL_MS 15000u
#define RENEW_MS 5000u  /* two renewals may fail before the offer ends */
#define ATTEMPT_MS 900u /* for one renewal, with its connect */
#define CLOSE_MS 1000u  /* for the withdrawal, with an attempt that may be under way */
#define BACKOFF_MIN_MS 100
#define BACKOFF_MAX_MS 2000
#define LEASE_ID_MAX 40u /* "lib:" and 32 hex digits */

struct mesh_lease {
    char *url, *name, *address;
    struct trust *trust; /* of tls://; else NULL */
    char id[LEASE_ID_MAX];
    struct call_conn *conn; /* the thread's once it runs; NULL: to be made */
    struct backoff backoff;
    pthread_t thread;
    int wake_fd; /* closing wakes the thread */
    struct mutex lock;
    struct { /* only with lock held */
        bool closed;
        uint64_t close_by_ms;
        enum mesh_status state;
    } held;
    char why[TLS_WHY]; /* of the last attempt to connect; the thread's, as conn */
};

/* The answer in *out_status; or a negative errno, with no connection any more unless the answer
 * just did not come in time. */
static int ask(struct mesh_lease *lease, const char *method, const ProtobufCMessage *request,
               uint64_t deadline_ms, enum mesh_status *out_status)
{
    CLEANUP(call_reply_freep) struct call_reply *reply = NULL;
    int r = 0;

    if (!lease->conn)
        r = call_open(lease->url, lease->trust, deadline_ms, lease->why, &lease->conn);
    if (r == 0)
        r = call_invoke(lease->conn, method, request, deadline_ms, &reply);
    if (r < 0) {
        call_close(TAKE(&lease->conn));
        return r;
    }
    *out_status = MESH_OK;
    if (reply->status) {
        struct error_answer answer = {
            .status = reply->status,
            .reason = (unsigned)reply->reason,
            .text = reply->text,
            .text_len = strlen(reply->text),
            .wire_version_min = reply->wire_version_min,
            .wire_version_max = reply->wire_version_max,
        };

        *out_status = error_answer(&answer);
    }
    return 0;
}

static int offer(struct mesh_lease *lease, uint64_t deadline_ms, enum mesh_status *out_status)
{
    Meshd__V1__OfferRequest request = MESHD__V1__OFFER_REQUEST__INIT;

    request.lease_id = lease->id;
    request.name = lease->name;
    request.backend_addr = lease->address;
    request.ttl_ms = TTL_MS;
    return ask(lease, "Offer", &request.base, deadline_ms, out_status);
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

/* Until then, or until the lease is closed or the node has gone: true. */
static bool sleep_until(struct mesh_lease *lease, uint64_t until_ms)
{
    struct pollfd fds[2] = {
        {.fd = lease->wake_fd, .events = POLLIN},
        {.fd = lease->conn ? call_fd(lease->conn) : -1, .events = POLLIN},
    };

    for (;;) {
        uint64_t now = clock_ms();

        if (now < until_ms && poll(fds, 2, (int)(until_ms - now)) < 0)
            return false; /* woken too early renews too early, which does no harm */
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
    int r = offer(lease, clock_ms() + ATTEMPT_MS, &state);

    if (r < 0)
        state = r == -EKEYREJECTED ? MESH_REFUSED : MESH_GONE;
    else if (state != MESH_OK && state != MESH_GONE)
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
    Meshd__V1__WithdrawRequest request = MESHD__V1__WITHDRAW_REQUEST__INIT;
    enum mesh_status status;

    request.lease_id = lease->id;
    /* If it does not get through, the offer ends by itself when its time is up. */
    (void)ask(lease, "Withdraw", &request.base, close_by_ms, &status);
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
        wait_ms = gone ? backoff_next(&lease->backoff, random_u64()) : renew(lease);
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
    mutex_fini(&lease->lock);
    trust_unref(lease->trust);
    free(lease->url);
    free(lease->name);
    free(lease->address);
    free(lease);
}

static void lease_freep(struct mesh_lease **lease)
{
    if (*lease)
        lease_free(*lease);
}

static struct mesh_lease *lease_new(const struct mesh_client *client, const char *name,
                                    const char *address)
{
    struct mesh_lease *lease = calloc(1, sizeof(*lease));

    if (!lease)
        return NULL;
    mutex_init(&lease->lock);
    lease->wake_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    backoff_init(&lease->backoff, BACKOFF_MIN_MS, BACKOFF_MAX_MS);
    snprintf(lease->id, sizeof(lease->id), "lib:%016llx%016llx", (unsigned long long)random_u64(),
             (unsigned long long)random_u64());
    lease->url = strdup(mesh_client_url(client));
    lease->trust = trust_ref(client_trust(client));
    lease->name = strdup(name);
    lease->address = strdup(address);
    if (lease->wake_fd >= 0 && lease->url && lease->name && lease->address)
        return lease;
    lease_free(lease);
    return NULL;
}

enum mesh_status mesh_register(struct mesh_client *client, const char *name, const char *address,
                               int deadline_ms, struct mesh_lease **out_lease)
{
    CLEANUP(lease_freep) struct mesh_lease *lease = NULL;
    char canonical[LIMIT_NAME + 1], backend[LIMIT_BACKEND + 1];
    uint64_t deadline;
    enum mesh_status status = deadline_of(deadline_ms, &deadline);
    int r;

    if (status != MESH_OK)
        return status;
    if (!name || name_canon(name, strlen(name), canonical) != NAME_OK)
        return error_set(MESH_INVALID, "that is no name of a service");
    if (!address || backend_canon(address, strlen(address), backend) < 0)
        return error_set(MESH_INVALID, "an address is host:port or [v6]:port");
    if (strncmp(mesh_client_url(client), "ipc://", 6) != 0 && !client_trust(client))
        return error_set(MESH_INVALID,
                         "a service is offered on a node's local socket, ipc://, or over tls://, "
                         "not on %s",
                         mesh_client_url(client));
    lease = lease_new(client, canonical, backend);
    if (!lease)
        return error_errno(-ENOMEM, "mesh_register");
    /* The same id again is the same offer, so it may be made twice. */
    while ((r = offer(lease, deadline, &status)) == -ECONNRESET && clock_ms() < deadline)
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

enum mesh_status mesh_lease_state(struct mesh_lease *lease)
{
    enum mesh_status state;

    mutex_lock(&lease->lock);
    state = lease->held.state;
    mutex_unlock(&lease->lock);
    if (state == MESH_GONE)
        return error_set(state, "%s: the node is away; it is tried on", lease->url);
    if (state == MESH_REFUSED)
        return error_set(state, "the node turned the renewal of %s down; it is tried on",
                         lease->name);
    return state;
}

void mesh_lease_close(struct mesh_lease *lease)
{
    uint64_t one = 1;

    if (!lease)
        return;
    mutex_lock(&lease->lock);
    lease->held.closed = true;
    lease->held.close_by_ms = clock_ms() + CLOSE_MS;
    mutex_unlock(&lease->lock);
    if (write(lease->wake_fd, &one, sizeof(one)) < 0)
        assert(false); /* the first and only write to it */
    pthread_join(lease->thread, NULL);
    lease_free(lease);
}
