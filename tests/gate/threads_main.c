/* A main() that uses a gate from several threads at once, for TSan: Criterion does not run there.
 * Built twice, plain and over TLS. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "gate/watcher.h"

#define MUST(expr)                                                                                 \
    do {                                                                                           \
        if (!(expr)) {                                                                             \
            fprintf(stderr, "line %d: not %s\n", __LINE__, #expr);                                 \
            exit(1);                                                                               \
        }                                                                                          \
    } while (0)

static struct rig rig;
static atomic_bool over;

/* Strangers that come, ask and go. */
static void *ask(void *arg)
{
    static __thread uint8_t out[70000], in[70000];

    for (int round = 0; round < 40; round++) {
        int fd = round % 2 ? req_client(&rig) : dial_unix(rig.unix_path);
        enum sp_framing framing = round % 2 ? SP_TCP : SP_IPC;

        MUST(fd >= 0);
        if (framing == SP_IPC)
            MUST(send_hello(fd, SP_REQ0) && recv_hello(fd, SP_REP0));
        for (uint32_t id = 1; id <= 10; id++) {
            size_t n = make_request(out, id, id * 5000);

            MUST(send_message(fd, framing, out, n));
            MUST(recv_message(fd, framing, in, sizeof(in)) == (ssize_t)n);
            MUST(memcmp(in, out, n) == 0);
        }
        close(fd);
    }
    return NULL;
}

/* Calls that we dial: to this very gate, answered through its lanes. */
static void *call(void *arg)
{
    struct gate_target target = {
        .to = rig.at,
        .preamble = {.version = PREAMBLE_VERSION, .kind = PREAMBLE_RPC, .peer_id = "n7"},
    };
    char path[128];
    int listener;

    snprintf(path, sizeof(path), "%s/call%d", rig.dir, *(int *)arg);
    listener = listen_unix(path);
    target.ipc_path = path;
    for (int round = 0; round < 20; round++) {
        uint8_t out[64], in[64];
        size_t n = make_request(out, (uint32_t)round, 32);
        int64_t conn = gate_dial(rig.gate, &target);
        int fd = accept_within(listener);

        MUST(conn > 0 && fd >= 0);
        MUST(send_hello(fd, SP_REQ0) && recv_hello(fd, SP_REP0));
        MUST(rig_told(&rig, TOLD_UP, (uint32_t)conn, NULL));
        MUST(send_message(fd, SP_IPC, out, n));
        MUST(recv_message(fd, SP_IPC, in, sizeof(in)) == (ssize_t)n);
        gate_end(rig.gate, (uint32_t)conn, 1);
        MUST(recv(fd, in, 1, 0) == 0);
        close(fd);
        MUST(rig_told(&rig, TOLD_ENDED, (uint32_t)conn, NULL));
    }
    close(listener);
    unlink(path);
    return NULL;
}

/* Watchers that come, hear, and go, while another thread changes everything. */
static struct maps maps;

static void *change(void *arg)
{
    for (unsigned i = 0; !atomic_load(&over); i++) {
        maps.value[i % 50] = i % 5;
        maps_tell(&maps, i % 97 == 0);
        if (i % 16 == 0)
            nap(); /* so that there is news to go on with, and not pictures only */
    }
    return NULL;
}

static void *watch(void *arg)
{
    Meshd__V1__WatchRequest request = MESHD__V1__WATCH_REQUEST__INIT;
    struct watcher *w = malloc(sizeof(*w));

    for (int round = 0; round < 60; round++) {
        request.name_glob = (char *)(round % 3 == 0 ? "s0007" : round % 3 == 1 ? "s00*" : "");
        MUST(watcher_open(w, &rig, round % 2 ? SP_TCP : SP_IPC, &request) == 0);
        for (int i = 0; i < round % 7; i++)
            MUST(watcher_read(w) && w->status == 0);
        watcher_close(w);
    }
    free(w);
    return NULL;
}

/* DATA connections: what the gate hands on is answered, and closed, on a thread of its own, while
 * descriptors' numbers are used again everywhere. */
struct taken {
    int fd;
    struct tls *tls;
};
static int taken[2]; /* a pipe of them */

static int take(void *ctx, int fd, struct tls *tls, const struct gate_peer *from,
                const struct preamble *preamble, const uint8_t *rest, size_t rest_len,
                const char **out_text)
{
    if (preamble->first == DATA_FIRST_OTHER) {
        *out_text = "not that way";
        return 16;
    }
    MUST(write(taken[1], &(struct taken){fd, tls}, sizeof(struct taken)) == sizeof(struct taken));
    return 0;
}

static void *serve_data(void *arg)
{
    uint8_t bytes[PREAMBLE_REPLY_MAX];
    struct preamble_reply reply = {.version = PREAMBLE_VERSION};
    size_t len = preamble_reply_pack(&reply, bytes);
    struct taken data;

    while (read(taken[0], &data, sizeof(data)) == sizeof(data)) {
        if (data.tls)
            MUST(tls_write(data.tls, bytes, len) == (ssize_t)len && tls_end(data.tls) == 0);
        else
            MUST(send_all(data.fd, bytes, len));
        tls_free(data.tls);
        close(data.fd);
    }
    return NULL;
}

static void *dial_data(void *arg)
{
    struct preamble preamble = {
        .version = PREAMBLE_VERSION, .kind = PREAMBLE_DATA, .peer_id = "n7", .has_token = 1};
    uint8_t bytes[PREAMBLE_REPLY_MAX];

    for (int round = 0; round < 200; round++) {
        int fd = dial_gate(&rig);

        preamble.first = round % 4 ? DATA_FIRST_DIALLER : DATA_FIRST_OTHER;
        MUST(fd >= 0 && send_all(fd, bytes, preamble_pack(&preamble, bytes)));
        MUST(recv_all(fd, bytes, PREAMBLE_HEAD) && bytes[5] == (round % 4 ? 0 : 16));
        MUST(closed_by_gate(fd));
        close(fd);
    }
    return NULL;
}

/* Looks at everything all the time, as metrics and calls do. */
static void *look(void *arg)
{
    uint32_t number = 1;

    while (!atomic_load(&over)) {
        struct gate_counters count = rig_count(&rig);
        struct gate_peer peer;

        gate_who(rig.gate, number, &peer);
        if (rig.tls && number % 64 == 0)
            gate_check_again(rig.gate);
        gate_received(rig.gate, number);
        number = number * 33 + (uint32_t)count.accepted;
        number &= 0x7fffffff;
    }
    return NULL;
}

int main(void)
{
    pthread_t thread[9], looks, changes, serves;
    int index[2] = {0, 1};

    rig_init(&rig);
    rig.epoch = 42;
    rig.data = take;
    MUST(pipe(taken) == 0);
    rig.watch_ops = maps_ops();
    rig_start(&rig);
    maps.gate = rig.gate;
    pthread_create(&looks, NULL, look, NULL);
    pthread_create(&changes, NULL, change, NULL);
    pthread_create(&serves, NULL, serve_data, NULL);
    for (int i = 0; i < 3; i++)
        pthread_create(&thread[i], NULL, ask, NULL);
    for (int i = 0; i < 2; i++)
        pthread_create(&thread[3 + i], NULL, call, &index[i]);
    for (int i = 0; i < 3; i++)
        pthread_create(&thread[5 + i], NULL, watch, NULL);
    pthread_create(&thread[8], NULL, dial_data, NULL);
    for (int i = 0; i < 9; i++)
        pthread_join(thread[i], NULL);
    atomic_store(&over, true);
    close(taken[1]);
    pthread_join(serves, NULL);
    close(taken[0]);
    pthread_join(looks, NULL);
    pthread_join(changes, NULL);
    MUST(rig_count(&rig).requests == 3 * 400 + 40);
    MUST(rig_count(&rig).parked == 0);
    MUST(rig_count(&rig).watches == 3 * 60);
    MUST(rig_count(&rig).data_handed == 150 && rig_count(&rig).data_refused == 50);
    rig_stop(&rig);
    MUST(maps_pictures() == 0);
    return 0;
}
