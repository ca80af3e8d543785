/* With real nng: sides die under load, in every manner, thousands of times, and nng stays healthy.
 *
 * Each worker has sockets of its own and uses them again for session after session. The peer is a
 * plain TCP socket that writes and reads what fits, stalls, and dies inside messages. */
#include <criterion/criterion.h>
#include <arpa/inet.h>
#include <errno.h>
#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "deaths.h"
#include "rpc/canary.h"
#include "rpc/server.h"

struct gate *gate;
struct sockaddr_storage gate_at;
static struct worker workers[3 * WORKERS];
pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
static atomic_int receivers_stall;
atomic_long replies_read;
static atomic_long received, calls_done, stuck;
static char *filler; /* a string of MESSAGE_BYTES */

unsigned pick(struct worker *w, unsigned below) { return (unsigned)rand_r(&w->rand) % below; }

/* 600 B to 900 KB, small ones oftener. */
size_t pick_size(struct worker *w) { return 600 + (pick(w, 4) ? pick(w, 9000) : pick(w, 900000)); }

static struct worker *worker_of(uint32_t conn)
{
    for (size_t i = 0; i < 3 * WORKERS; i++)
        if (workers[i].conn == conn)
            return &workers[i];
    return NULL;
}

/* --- what the gate says --- */

static void on_asked(void *ctx, uint32_t conn, const struct gate_peer *from,
                     const struct preamble *preamble)
{
    struct worker *w = &workers[preamble->token[0]];

    pthread_mutex_lock(&lock);
    w->conn = conn;
    pthread_mutex_unlock(&lock);
    gate_accept(gate, conn, w->path);
}

static void on_up(void *ctx, uint32_t conn, const struct gate_peer *peer)
{
    struct worker *w;

    pthread_mutex_lock(&lock);
    w = worker_of(conn);
    if (w)
        w->up = true;
    pthread_cond_broadcast(&changed);
    pthread_mutex_unlock(&lock);
}

void quiet_once(struct worker *w, bool flush)
{
    bool first;

    pthread_mutex_lock(&lock);
    first = !w->quiet;
    w->quiet = true;
    pthread_mutex_unlock(&lock);
    if (!first)
        return;
    if (w->kind == LINKS)
        rpc_pair_quiet(w->pair, flush);
    else
        gate_end(gate, w->conn, rpc_client_quiet(w->client));
}

static void on_ending(void *ctx, uint32_t conn, const struct gate_end *why)
{
    struct worker *w;

    pthread_mutex_lock(&lock);
    w = worker_of(conn);
    if (w)
        w->ending = true;
    pthread_cond_broadcast(&changed);
    pthread_mutex_unlock(&lock);
    if (w && w->kind == LINKS)
        quiet_once(w, false);
}

static void on_ended(void *ctx, uint32_t conn, const struct gate_end *why)
{
    struct worker *w;

    pthread_mutex_lock(&lock);
    w = worker_of(conn);
    if (w)
        w->ended = true;
    pthread_cond_broadcast(&changed);
    pthread_mutex_unlock(&lock);
}

/* --- what rpc says --- */

static void pair_up(void *ctx)
{
    struct worker *w = ctx;

    pthread_mutex_lock(&lock);
    w->pair_up = true;
    pthread_cond_broadcast(&changed);
    pthread_mutex_unlock(&lock);
}

static void pair_message(void *ctx, struct rpc_msg *msg)
{
    long n = atomic_fetch_add(&received, 1);

    rpc_msg_free(msg);
    if (atomic_load(&receivers_stall) && n % 20 == 0)
        usleep((useconds_t)(n % 7) * 3000);
}

static void pair_quiet(void *ctx, uint64_t sent)
{
    struct worker *w = ctx;

    gate_end(gate, w->conn, sent);
}

static void gone(void *ctx)
{
    struct worker *w = ctx;

    pthread_mutex_lock(&lock);
    w->gone = true;
    pthread_cond_broadcast(&changed);
    pthread_mutex_unlock(&lock);
}

static void call_done(void *ctx, const struct rpc_result *result)
{
    struct worker *w = ctx;

    atomic_fetch_add(&calls_done, 1);
    pthread_mutex_lock(&lock);
    w->done++;
    pthread_cond_broadcast(&changed);
    pthread_mutex_unlock(&lock);
}

/* --- messages --- */

/* A message of about that size. */
ProtobufCMessage *body_of(Meshd__V1__Sync *sync, char **names, size_t size)
{
    *sync = (Meshd__V1__Sync)MESHD__V1__SYNC__INIT;
    names[0] = filler + MESSAGE_BYTES - size;
    sync->removed = names;
    sync->n_removed = 1;
    return &sync->base;
}

void send_pair(struct worker *w)
{
    Meshd__V1__LinkHeader header = MESHD__V1__LINK_HEADER__INIT;
    Meshd__V1__Sync sync;
    char *names[1];
    uint8_t session[SESSION_ID_LEN] = {1};

    header.session_id = (ProtobufCBinaryData){SESSION_ID_LEN, session};
    rpc_pair_send(w->pair, pick(w, 3) ? RPC_BULK : RPC_URGENT, &header.base,
                  body_of(&sync, names, pick_size(w)));
}

static void introspect(Meshd__V1__Registry_Service *service,
                       const Meshd__V1__IntrospectRequest *request,
                       Meshd__V1__IntrospectReply_Closure closure, void *data)
{
    Meshd__V1__Sync sync;
    char *names[1];
    struct rpc_call *call = data;
    unsigned seed = rpc_call_caller(call)->conn * 7919u + (unsigned)now_ms();
    size_t size = rand_r(&seed) % 4 ? 600 : (size_t)(rand_r(&seed) % 900000);

    rpc_call_reply(call, STATUS_OK, MESHD__V1__REASON__REASON_NONE, "",
                   body_of(&sync, names, size + 600));
}

static bool who(void *ctx, uint32_t conn, struct rpc_caller *out)
{
    struct gate_peer peer;

    if (!gate_who(gate, conn, &peer))
        return false;
    *out = (struct rpc_caller){.local = peer.local, .uid = peer.uid, .conn = conn};
    memcpy(out->ip, peer.ip, sizeof(out->ip));
    memcpy(out->peer_id, peer.peer_id, sizeof(out->peer_id));
    return true;
}

static bool wait_for(struct worker *w, bool (*is)(const struct worker *w))
{
    struct timespec until;
    int r = 0;
    bool ok;

    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += SESSION_MS / 1000;
    pthread_mutex_lock(&lock);
    while (!(ok = is(w)) && r == 0)
        r = pthread_cond_timedwait(&changed, &lock, &until);
    pthread_mutex_unlock(&lock);
    return ok;
}

static bool is_up(const struct worker *w)
{
    return (w->up && (w->kind != LINKS || w->pair_up)) || w->ended;
}

static bool is_over(const struct worker *w)
{
    return w->ended && (w->gone || !w->up) && w->done == w->called;
}

static bool wants_end(const struct worker *w) { return w->ending || w->quiet || w->ended; }

/* --- one session --- */

static bool session(struct worker *w)
{
    static __thread uint8_t out[MESSAGE_BYTES + 4096];
    struct peer peer = {.out = out};
    enum death death = pick(w, 60) == 0 ? LOCAL_STALLED : (enum death)pick(w, LOCAL_STALLED);
    Meshd__V1__Sync sync;
    char *names[1];

    pthread_mutex_lock(&lock);
    w->conn = 0;
    w->up = w->pair_up = w->ending = w->ended = w->gone = w->quiet = false;
    pthread_mutex_unlock(&lock);
    if (w->kind == CLIENTS)
        peer.fd = client_of_gate();
    else
        peer.fd = w->kind == LINKS && pick(w, 2) ? peer_dials(w) : peer_is_dialled(w);
    if (peer.fd < 0 || (w->kind != CLIENTS && !wait_for(w, is_up)))
        return false;
    if (w->kind == CALLS && !w->ended) {
        pthread_mutex_lock(&lock);
        w->called++;
        pthread_mutex_unlock(&lock);
        if (rpc_client_call(w->client, "/meshd.v1.Registry/Introspect",
                            body_of(&sync, names, pick_size(w)), 500 + pick(w, 1000), call_done,
                            w) < 0) {
            pthread_mutex_lock(&lock);
            w->done++;
            pthread_mutex_unlock(&lock);
        }
    }
    traffic(w, &peer, pick(w, 25), pick(w, 4) > 0 && death != LOCAL_STALLED);
    die(w, &peer, death);
    if (w->kind == CLIENTS)
        return true;
    if (!wait_for(w, wants_end))
        return false;
    if (w->kind == CALLS)
        quiet_once(w, false);
    if (!wait_for(w, is_over))
        return false;
    if (death == LOCAL_STALLED)
        close(peer.fd);
    return true;
}

static void *work(void *arg)
{
    struct worker *w = arg;

    for (long i = 0; i < w->sessions && !atomic_load(&stuck); i++) {
        if (session(w))
            continue;
        fprintf(stderr,
                "kind %d worker %u stuck in session %ld: up=%d,%d ending=%d quiet=%d ended=%d "
                "gone=%d calls=%ld,%ld\n",
                w->kind, w->index, i, w->up, w->pair_up, w->ending, w->quiet, w->ended, w->gone,
                w->called, w->done);
        atomic_fetch_add(&stuck, 1);
    }
    return NULL;
}

static void run_all(long sessions, unsigned seed)
{
    for (unsigned i = 0; i < 3 * WORKERS; i++) {
        workers[i].sessions = sessions / (3 * WORKERS) + 1;
        workers[i].rand = seed + i;
        pthread_create(&workers[i].thread, NULL, work, &workers[i]);
    }
    for (unsigned i = 0; i < 3 * WORKERS; i++)
        pthread_join(workers[i].thread, NULL);
    cr_assert_eq(atomic_load(&stuck), 0);
    cr_assert_eq(canary_sing(), 0);
}

static void open_worker(struct worker *w, unsigned index, const char *dir)
{
    struct rpc_pair_settings pair = {w->path, MESSAGE_BYTES, 4u << 20,   w,
                                     pair_up, pair_message,  pair_quiet, gone};
    struct rpc_client_settings client = {w->path, MESSAGE_BYTES, w, gone};

    w->index = index;
    w->kind = (enum kind)(index % 3);
    snprintf(w->path, sizeof(w->path), "%s/w%u", dir, index);
    if (w->kind == LINKS)
        cr_assert_eq(rpc_pair_open(&pair, &w->pair), 0);
    else if (w->kind == CALLS)
        cr_assert_eq(rpc_client_open(&client, &w->client), 0);
}

#if defined(__SANITIZE_ADDRESS__)
#define RSS_COUNTS 0 /* freed memory stays in quarantine */
#else
#define RSS_COUNTS 1
#endif

static char dir[] = "/tmp/meshd-deaths-XXXXXX", rep[128];
static struct rpc_server *server;

static void open_all(void)
{
    static Meshd__V1__Registry_Service service = {
        .base = MESHD__V1__REGISTRY__BASE_INIT,
        .introspect = introspect,
    };
    struct sockaddr_in any = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
    struct limits limits;

    mallopt(M_ARENA_MAX, 1); /* or RSS says how threads were scheduled */
    cr_assert(mkdtemp(dir));
    filler = malloc(MESSAGE_BYTES + 1);
    memset(filler, 'a', MESSAGE_BYTES);
    filler[MESSAGE_BYTES] = '\0';
    limits_default(&limits);
    snprintf(rep, sizeof(rep), "%s/rep", dir);
    struct gate_settings settings = {
        .limits = &limits,
        .rep_path = rep,
        .lanes = 2,
        .first_bytes_ms = 5000,
        .dial_ms = 5000,
        .idle_ms = 600000,
        .ops = {.link_asked = on_asked, .up = on_up, .ending = on_ending, .ended = on_ended},
    };
    struct rpc_server_settings serve = {rep, 64, MESSAGE_BYTES, &service, who, NULL};
    cr_assert_eq(gate_new(&settings, &gate), 0);
    cr_assert_eq(gate_listen_tcp(gate, (struct sockaddr *)&any, sizeof(any), &gate_at), 0);
    cr_assert_eq(rpc_server_open(&serve, &server), 0);
    cr_assert_eq(gate_start(gate), 0);
    for (unsigned i = 0; i < 3 * WORKERS; i++)
        open_worker(&workers[i], i, dir);
}

static void close_all(void)
{
    struct gate_counters count;

    gate_stop(gate, 3000);
    gate_counters(gate, &count);
    cr_expect_eq(count.parked, 0);
    for (unsigned i = 0; i < 3 * WORKERS; i++) {
        rpc_pair_close(workers[i].pair);
        rpc_client_close(workers[i].client);
        unlink(workers[i].path);
    }
    rpc_server_close(server);
    gate_free(gate);
    unlink(rep);
    rmdir(dir);
    free(filler);
}

/* A reply that rpc gave up on a slow machine leaves a client that seems half-closed; it has 30 s.
 */
#define SETTLE_MS 45000

/* Counters once every connection is gone. */
static struct gate_counters settled(void)
{
    struct gate_counters count;

    for (uint64_t until = now_ms() + SETTLE_MS; now_ms() < until; nap()) {
        gate_counters(gate, &count);
        if (count.connections == 0 && count.sessions == 0)
            break;
    }
    return count;
}

static void count_pipes(uint64_t *out_added, uint64_t *out_removed)
{
    *out_added = *out_removed = 0;
    for (unsigned i = 0; i < 3 * WORKERS; i++) {
        struct rpc_pair_counters pair;

        if (workers[i].kind != LINKS)
            continue;
        rpc_pair_counters(workers[i].pair, &pair);
        *out_added += pair.pipes_added;
        *out_removed += pair.pipes_removed;
    }
}

Test(deaths, of_either_side_under_load_leave_nng_healthy)
{
    long sessions = env_number("MESHD_TEST_SESSIONS", 300);
    unsigned seed = test_seed();
    struct gate_counters c;
    struct rpc_server_counters served;
    uint64_t added, removed, begun = now_ms();
    size_t rss, heap, descriptors;

    open_all();
    atomic_store(&receivers_stall, 1);
    run_all(sessions / 4, seed); /* so that pools have their size */
    settled();
    rss = resident_bytes();
    heap = heap_bytes();
    descriptors = open_descriptors();
    run_all(sessions - sessions / 4, seed + 1000);
    c = settled();
    count_pipes(&added, &removed);
    rpc_server_counters(server, &served);
    fprintf(stderr, "sessions %lu begun %lu ended, parked %lu, lanes lost %lu, pipes +%lu -%lu\n",
            c.sessions_begun, c.sessions_ended, c.parked, c.lanes_lost, added, removed);
    fprintf(stderr,
            "messages %ld, calls %ld, requests %lu, replies %lu, dropped %lu and %lu, %lu ms\n",
            atomic_load(&received), atomic_load(&calls_done), c.requests, c.replies,
            c.replies_dropped, served.dropped, now_ms() - begun);
    fprintf(stderr, "KiB: RSS %zu to %zu, heap %zu to %zu, buffers %lu; descriptors %zu to %zu\n",
            rss / 1024, resident_bytes() / 1024, heap / 1024, heap_bytes() / 1024,
            c.buffer_bytes / 1024, descriptors, open_descriptors());
    cr_expect_eq(c.connections, 0);
    cr_expect_eq(c.sessions_begun, c.sessions_ended);
    cr_expect_eq(c.parked, 0);
    cr_expect_eq(c.lanes_lost, 0);
    cr_expect_eq(added, removed);
    cr_expect_leq(open_descriptors(), descriptors);
    if (RSS_COUNTS) {
        cr_expect_leq(heap_bytes(), heap + (8u << 20));
        cr_expect_leq(resident_bytes(), rss + (24u << 20));
    }
    close_all();
}
