/* threads - server, client and pair under as many threads as they meet, in a plain program.
 *
 * For ThreadSanitizer, under which Criterion does not run. nng is not compiled with it, but its
 * locks are seen, and our memory is: a race reported here is ours. It also proves, in every build,
 * that the scenarios end. Exit status 1: something did not come in time.
 */
#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "base/lock.h"
#include "rpc/canary.h"
#include "rpc/client.h"
#include "rpc/fake_gate.h"
#include "rpc/pair.h"
#include "rpc/server.h"
#include "wire/frame.h"

#define MUST(condition) must(condition, #condition, __LINE__)

static void must(bool ok, const char *what, int line)
{
    if (ok)
        return;
    fprintf(stderr, "threads.c:%d: %s\n", line, what);
    exit(1);
}

/* ---- server: methods that answer on another thread; counters read meanwhile ---- */

static struct {
    struct mutex lock;
    struct rpc_call *calls[64];
    unsigned n;
    struct tally arrived;
} desk = {.arrived = TALLY_INIT};

static void explain(Meshd__V1__Registry_Service *service, const Meshd__V1__ExplainRequest *in,
                    Meshd__V1__ExplainReply_Closure closure, void *closure_data)
{
    mutex_lock(&desk.lock);
    desk.calls[desk.n++] = closure_data;
    mutex_unlock(&desk.lock);
    tally_add(&desk.arrived, 1);
}

static void *answer_calls(void *arg)
{
    uint64_t total = *(uint64_t *)arg;

    for (uint64_t done = 0; done < total; done++) {
        Meshd__V1__ExplainReply reply = MESHD__V1__EXPLAIN_REPLY__INIT;
        struct rpc_call *call;

        MUST(tally_wait(&desk.arrived, done + 1));
        mutex_lock(&desk.lock);
        call = desk.calls[--desk.n];
        mutex_unlock(&desk.lock);
        reply.verdict = arena_strdup(rpc_call_arena(call), rpc_call_caller(call)->ip);
        rpc_call_reply(call, STATUS_OK, MESHD__V1__REASON__REASON_NONE, NULL, &reply.base);
    }
    return NULL;
}

static bool who(void *ctx, uint32_t conn, struct rpc_caller *out_caller)
{
    *out_caller = (struct rpc_caller){.ip = "192.0.2.1", .conn = conn};
    return true;
}

static void *ask_calls(void *arg)
{
    uint64_t total = *(uint64_t *)arg;
    Meshd__V1__CallHeader header = MESHD__V1__CALL_HEADER__INIT;
    int fd = fake_join(fake_path(0), SP_REQ0);
    uint8_t frame[100], *request;
    size_t len;

    header.method = (char *)"/meshd.v1.Registry/Explain";
    header.deadline_ms = 60000;
    header.wire_version = WIRE_VERSION_MAX;
    frame_pack(&header.base, NULL, frame);
    request = fake_request(1, 0, 1, frame, frame_size(&header.base, NULL), &len);
    MUST(fd >= 0);
    for (uint64_t asked = 0, read = 0; read < total; read++) {
        size_t reply_len;
        uint8_t *reply;

        while (asked < total && asked - read < 16) {
            MUST(fake_write(fd, request, len));
            asked++;
        }
        reply = fake_read(fd, &reply_len);
        MUST(reply != NULL);
        free(reply);
    }
    free(request);
    MUST(fake_end(fd, 0));
    return NULL;
}

static void serve(void)
{
    static Meshd__V1__Registry_Service service;
    uint64_t each = fake_sessions(300), all = 2 * each;
    const struct rpc_server_settings settings = {.path = fake_path(0),
                                                 .contexts = 64,
                                                 .message_bytes = 65536,
                                                 .service = &service,
                                                 .who = who};
    struct rpc_server_counters counters;
    struct rpc_server *server;
    pthread_t threads[3];

    mutex_init(&desk.lock);
    meshd__v1__registry__init(&service, NULL);
    service.explain = explain;
    MUST(rpc_server_open(&settings, &server) == 0);
    MUST(pthread_create(&threads[0], NULL, answer_calls, &all) == 0);
    MUST(pthread_create(&threads[1], NULL, ask_calls, &each) == 0);
    MUST(pthread_create(&threads[2], NULL, ask_calls, &each) == 0);
    do {
        rpc_server_counters(server, &counters);
    } while (!tally_wait_ms(&desk.arrived, all, 1));
    for (int i = 0; i < 3; i++)
        pthread_join(threads[i], NULL);
    rpc_server_close(server);
    mutex_fini(&desk.lock);
}

/* ---- client: calls and quiet against each other ---- */

static struct tally client_gone = TALLY_INIT, client_done = TALLY_INIT;

static void on_client_gone(void *ctx) { tally_add(&client_gone, 1); }

static void on_done(void *ctx, const struct rpc_result *result) { tally_add(&client_done, 1); }

struct caller {
    struct rpc_client *client;
    uint64_t begun;
    atomic_bool stop;
};

static void *call_often(void *arg)
{
    Meshd__V1__ExplainRequest request = MESHD__V1__EXPLAIN_REQUEST__INIT;
    struct caller *caller = arg;

    while (!atomic_load(&caller->stop)) {
        int r = rpc_client_call(caller->client, "/meshd.v1.Registry/Explain", &request.base, 5,
                                on_done, NULL);

        caller->begun += r == 0;
        tally_wait_ms(&client_done, caller->begun, 1);
    }
    return NULL;
}

static void call(void)
{
    static struct caller caller;
    const struct rpc_client_settings settings = {
        .path = fake_path(1), .message_bytes = 65536, .gone = on_client_gone};

    MUST(rpc_client_open(&settings, &caller.client) == 0);
    for (uint64_t i = 1; i <= fake_sessions(300) / 5; i++) {
        int fd = fake_join(fake_path(1), SP_REP0);
        pthread_t thread;

        MUST(fd >= 0);
        atomic_store(&caller.stop, false);
        MUST(pthread_create(&thread, NULL, call_often, &caller) == 0);
        for (uint64_t read = 0; read < i % 4; read++) {
            size_t len;
            uint8_t *payload = fake_read(fd, &len);

            MUST(payload != NULL); /* and is never answered */
            free(payload);
        }
        MUST(fake_end(fd, rpc_client_quiet(caller.client) - i % 4));
        atomic_store(&caller.stop, true);
        pthread_join(thread, NULL);
        rpc_client_quiet(caller.client);
        MUST(tally_wait(&client_gone, i));
    }
    MUST(tally_wait(&client_done, caller.begun));
    rpc_client_close(caller.client);
}

/* ---- pair: senders on both sides, quiet in the midst of them ---- */

struct end {
    struct rpc_pair *pair;
    struct tally ups, quiets, gones;
    uint64_t sent;
};

static void on_up(void *ctx) { tally_add(&((struct end *)ctx)->ups, 1); }

static void on_message(void *ctx, struct rpc_msg *msg)
{
    Meshd__V1__LinkHeader header = MESHD__V1__LINK_HEADER__INIT;

    if (rpc_msg_len(msg) > 1000) /* an answer from the very callback */
        rpc_pair_send(((struct end *)ctx)->pair, RPC_URGENT, &header.base, NULL);
    rpc_msg_free(msg);
}

static void on_quiet(void *ctx, uint64_t sent)
{
    ((struct end *)ctx)->sent = sent;
    tally_add(&((struct end *)ctx)->quiets, 1);
}

static void on_gone(void *ctx) { tally_add(&((struct end *)ctx)->gones, 1); }

static void *send_often(void *arg)
{
    struct end *end = arg;
    Meshd__V1__LinkHeader header = MESHD__V1__LINK_HEADER__INIT;
    Meshd__V1__Goodbye body = MESHD__V1__GOODBYE__INIT;
    Meshd__V1__Cancel small = MESHD__V1__CANCEL__INIT;
    ProtobufCBinaryData id = {.len = 4, .data = (uint8_t *)"1234"};
    struct rpc_pair_counters counters;
    char text[20001];
    int r = 0;

    small.n_forward_ids = 1;
    small.forward_ids = &id;

    memset(text, 'x', sizeof(text) - 1);
    text[sizeof(text) - 1] = '\0';
    body.text = text;
    while (r != -EPIPE) {
        r = rpc_pair_send(end->pair, RPC_BULK, &header.base, &body.base);
        for (int i = 0; i < 3; i++)
            rpc_pair_send(end->pair, RPC_MERGE, &header.base, &small.base);
        rpc_pair_counters(end->pair, &counters);
        if (r == -EAGAIN)
            tally_wait_ms(&end->gones, UINT64_MAX, 1);
    }
    return NULL;
}

static void link_up(void)
{
    static struct end ends[2];

    for (unsigned i = 0; i < 2; i++) {
        const struct rpc_pair_settings settings = {.path = fake_path(2 + i),
                                                   .message_bytes = 1 << 20,
                                                   .queue_bytes = 1 << 20,
                                                   .ctx = &ends[i],
                                                   .up = on_up,
                                                   .message = on_message,
                                                   .quiet = on_quiet,
                                                   .gone = on_gone};

        ends[i] = (struct end){.ups = TALLY_INIT, .quiets = TALLY_INIT, .gones = TALLY_INIT};
        MUST(rpc_pair_open(&settings, &ends[i].pair) == 0);
    }
    for (uint64_t n = 1; n <= fake_sessions(300) / 5; n++) {
        struct fake_relay relay;
        pthread_t threads[4];
        uint64_t sent[2];

        MUST(fake_relay_join(&relay, fake_path(2), fake_path(3), SP_PAIR1, SP_PAIR1));
        MUST(tally_wait(&ends[0].ups, n) && tally_wait(&ends[1].ups, n));
        for (int i = 0; i < 4; i++)
            MUST(pthread_create(&threads[i], NULL, send_often, &ends[i % 2]) == 0);
        fake_relay_run(&relay, 5);
        for (int i = 0; i < 2; i++)
            rpc_pair_quiet(ends[i].pair, n % 2);
        while (tally_value(&ends[0].quiets) < n || tally_value(&ends[1].quiets) < n)
            fake_relay_run(&relay, 1);
        for (int i = 0; i < 4; i++)
            pthread_join(threads[i], NULL);
        for (int i = 0; i < 2; i++)
            sent[i] = ends[i].sent;
        MUST(fake_relay_end(&relay, sent, n % 2));
        MUST(tally_wait(&ends[0].gones, n) && tally_wait(&ends[1].gones, n));
    }
    rpc_pair_close(ends[0].pair);
    rpc_pair_close(ends[1].pair);
}

static void on_sick(void *ctx) { MUST(!"the canary fell silent"); }

int main(void)
{
    struct canary *canary;

    MUST(canary_start(20, on_sick, NULL, &canary) == 0);
    serve();
    call();
    link_up();
    MUST(canary_healthy(canary));
    canary_stop(canary);
    return 0;
}
