/* Two nodes with everything between them but main, and a forward room that is played here: what it
 * is told of sessions, which way messages go, and that none goes astray. */
#include <criterion/criterion.h>
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <meshd/v1/mesh.pb-c.h>
#include "base/clock.h"
#include "base/lock.h"
#include "daemon/line.h"
#include "daemon/ports.h"
#include "daemon/serve.h"
#include "forward/must.h"
#include "wire/status.h"

#define WAIT_MS 20000u
#define KIND(name) MESHD__V1__LINK_KIND__LINK_KIND_##name

/* ---- the forward room, played ---- */

struct forward {
    struct mutex lock;
    pthread_t main;
    struct forward_session_info session; /* the newest */
    unsigned begun, ended;
    uint64_t ended_link;
    unsigned refuse; /* so many messages find no session */
    unsigned messages, on_main;
    atomic_uint refused;
    uint32_t next; /* number of the id that is expected */
    bool astray;   /* a message of another link, session, kind or order */
    uint32_t wanted, wish;
    size_t pending;
    struct preamble data; /* of the last DATA connection */
    unsigned n_data;
};

int forward_session_begin(struct forward *forward, const struct forward_session_info *info)
{
    mutex_lock(&forward->lock);
    forward->session = *info;
    forward->begun++;
    mutex_unlock(&forward->lock);
    return 0;
}

void forward_session_end(struct forward *forward, uint64_t link)
{
    mutex_lock(&forward->lock);
    forward->ended++;
    forward->ended_link = link;
    mutex_unlock(&forward->lock);
}

int forward_check(struct forward *forward, uint64_t check, const char *backend,
                  enum proxy_version proxy, const char *http_path, uint32_t timeout_ms)
{
    return -ENOMEM; /* nothing is looked at */
}

size_t forward_session_pending(struct forward *forward, uint64_t link) { return forward->pending; }

uint32_t forward_data_wanted(struct forward *forward, uint64_t link) { return forward->wanted; }

void forward_data_wish(struct forward *forward, uint64_t link, uint32_t wanted)
{
    forward->wish = wanted;
}

/* Cancel is the only kind that the tests send: its ids are numbers that go on. */
static void read_ids(struct forward *forward, const uint8_t *body, size_t len)
{
    Meshd__V1__Cancel *cancel = meshd__v1__cancel__unpack(NULL, len, body);
    uint32_t number;

    if (!cancel) {
        forward->astray = true;
        return;
    }
    for (size_t i = 0; i < cancel->n_forward_ids; i++) {
        memcpy(&number, cancel->forward_ids[i].data, sizeof number);
        forward->astray |= number != forward->next++;
    }
    meshd__v1__cancel__free_unpacked(cancel, NULL);
}

bool forward_message(struct forward *forward, uint64_t link,
                     const uint8_t session_id[SESSION_ID_LEN], int kind, const uint8_t *body,
                     size_t len)
{
    bool taken;

    mutex_lock(&forward->lock);
    taken = forward->refuse == 0;
    if (taken) {
        forward->astray |= link != forward->session.link || kind != KIND(CANCEL) ||
                           memcmp(session_id, forward->session.session_id, SESSION_ID_LEN) != 0;
        forward->messages++;
        forward->on_main += pthread_equal(pthread_self(), forward->main) != 0;
        read_ids(forward, body, len);
    } else {
        forward->refuse--;
        forward->refused++;
    }
    mutex_unlock(&forward->lock);
    return taken;
}

int forward_data(void *ctx, int fd, struct tls *tls, const struct gate_peer *from,
                 const struct preamble *preamble, const uint8_t *rest, size_t rest_len,
                 const char **out_text)
{
    struct forward *forward = ctx;

    mutex_lock(&forward->lock);
    forward->data = *preamble;
    forward->n_data++;
    mutex_unlock(&forward->lock);
    *out_text = "played";
    return STATUS_UNAUTHENTICATED;
}

void forward_explain(struct forward *forward, const char *name, size_t name_len,
                     struct forward_explained *out)
{
}

void forward_counters(struct forward *forward, struct forward_counters *out_counters)
{
    memset(out_counters, 0, sizeof *out_counters);
}

uint64_t forward_phase_us(const struct forward_counters *counters, enum forward_phase phase,
                          double share)
{
    return 0;
}

/* ---- two nodes ---- */

struct end {
    char id[8], dir[64], rep[96];
    struct limits limits;
    struct forward forward;
    struct mailbox box;
    struct registry *registry;
    struct ports *ports;
    struct gate *gate;
    struct node *node;
    struct node_port port;
    struct rpc_server *rpc;
    struct serve serve;
    struct sockaddr_storage at;
};

static uv_loop_t loop;
static uv_timer_t beat;
static struct end a, b; /* a dials b */

static void on_event(void *ctx, const struct node_event *event) {}

static void tick(struct end *end)
{
    if (end->node && node_next_ms(end->node) <= clock_ms())
        node_tick(end->node);
}

static void on_beat(uv_timer_t *timer)
{
    tick(&a);
    tick(&b);
}

#define UNTIL(expr)                                                                                \
    do {                                                                                           \
        uint64_t until_ = clock_ms() + WAIT_MS;                                                    \
        while (!(expr) && clock_ms() < until_)                                                     \
            uv_run(&loop, UV_RUN_ONCE);                                                            \
        MUST(expr);                                                                                \
    } while (0)

static void make_gate(struct end *end)
{
    struct sockaddr_in any = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};

    cr_assert_eq(ports_new(&(struct ports_settings){.loop = &loop,
                                                    .box = &end->box,
                                                    .dir = end->dir,
                                                    .peer_id = end->id,
                                                    .limits = &end->limits,
                                                    .event = on_event},
                           &end->ports),
                 0);
    cr_assert_eq(gate_new(&(struct gate_settings){.limits = &end->limits,
                                                  .rep_path = end->rep,
                                                  .lanes = 1,
                                                  .first_bytes_ms = WAIT_MS,
                                                  .dial_ms = 5000,
                                                  .idle_ms = 600000,
                                                  .ops = ports_gate_ops(end->ports)},
                          &end->gate),
                 0);
    ports_attach(end->ports, end->gate);
    ports_set_forward(end->ports, &end->forward);
    cr_assert_eq(gate_listen_tcp(end->gate, (struct sockaddr *)&any, sizeof any, &end->at), 0);
    ports_set_from(end->ports, &(struct sockaddr_storage){.ss_family = AF_UNSPEC});
}

static void make_node(struct end *end, const struct end *dials)
{
    const struct node_dial dial = {
        .host = "127.0.0.1",
        .port = dials ? ntohs(((const struct sockaddr_in *)&dials->at)->sin_port) : 0};

    end->port = ports_node_port(end->ports);
    cr_assert_eq(node_new(&(struct node_settings){.peer_id = end->id,
                                                  .incarnation = clock_wall_us(),
                                                  .heartbeat_ms = 300,
                                                  .peer_timeout_ms = 30000,
                                                  .open_timeout_ms = 10000,
                                                  .call_timeout_ms = 5000,
                                                  .limits = &end->limits,
                                                  .dials = &dial,
                                                  .n_dials = dials != NULL},
                          end->registry, &end->port, &end->node),
                 0);
    ports_set_node(end->ports, end->node);
}

static void make_rpc(struct end *end)
{
    struct serve *serve = &end->serve;

    serve_init(serve);
    cr_assert_eq(pages_init(&serve->pages, 4), 0);
    serve->registry = end->registry;
    serve->node = end->node;
    serve->box = &end->box;
    serve->gate = end->gate;
    serve->ports = end->ports;
    serve->limits = end->limits;
    serve->peer_id = end->id;
    cr_assert_eq(
        rpc_server_open(&(struct rpc_server_settings){.path = end->rep,
                                                      .contexts = 4,
                                                      .message_bytes = end->limits.message_bytes,
                                                      .service = &serve->service,
                                                      .who = serve_who,
                                                      .ctx = serve},
                        &end->rpc),
        0);
    serve->rpc = end->rpc;
}

static void begin(struct end *end, const char *id, const struct end *dials)
{
    snprintf(end->id, sizeof end->id, "%s", id);
    snprintf(end->dir, sizeof end->dir, "/tmp/meshd-ports-XXXXXX");
    cr_assert(mkdtemp(end->dir));
    snprintf(end->rep, sizeof end->rep, "%s/rep", end->dir);
    limits_default(&end->limits);
    mutex_init(&end->forward.lock);
    end->forward.main = pthread_self();
    cr_assert_eq(mailbox_init(&end->box, &loop, NULL, NULL), 0);
    cr_assert_eq(
        registry_new(
            &(struct registry_settings){.peer_id = end->id, .epoch = 1, .limits = &end->limits},
            &end->registry),
        0);
    make_gate(end);
    make_node(end, dials);
    make_rpc(end);
    cr_assert_eq(gate_start(end->gate), 0);
    node_start(end->node);
}

static void finish(struct end *end)
{
    char command[128];

    node_stop(end->node);
    UNTIL(ports_lines(end->ports) == 0);
    gate_stop(end->gate, 3000);
    mailbox_read(&end->box);
    rpc_server_close(end->rpc);
    mailbox_close(&end->box);
    ports_free(end->ports);
    node_free(end->node);
    end->node = NULL;
    gate_free(end->gate);
    serve_fini(&end->serve);
    registry_free(end->registry);
    MUST(!end->forward.astray);
    MUST(end->forward.begun == end->forward.ended);
    snprintf(command, sizeof command, "rm -r %s", end->dir);
    MUST(system(command) == 0);
}

static size_t links_live(const struct end *end)
{
    struct node_counters counters;

    node_counters(end->node, &counters);
    return counters.links_live;
}

static void setup(void)
{
    alarm(100);
    cr_assert_eq(uv_loop_init(&loop), 0);
    uv_timer_init(&loop, &beat);
    uv_timer_start(&beat, on_beat, 5, 5);
    begin(&b, "b", NULL);
    begin(&a, "a", &b);
    UNTIL(links_live(&a) == 1 && links_live(&b) == 1);
}

/* The end of each test: what fails in a .fini fails nothing. */
static void teardown(void)
{
    finish(&a);
    finish(&b);
    uv_close((uv_handle_t *)&beat, NULL);
    uv_run(&loop, UV_RUN_DEFAULT);
    MUST(uv_loop_close(&loop) == 0);
}

TestSuite(ports, .init = setup);

static int send_id(struct end *from, const uint8_t *session_id, uint32_t number)
{
    Meshd__V1__Cancel cancel = MESHD__V1__CANCEL__INIT;
    ProtobufCBinaryData id = {.len = sizeof number, .data = (uint8_t *)&number};

    cancel.n_forward_ids = 1;
    cancel.forward_ids = &id;
    return ports_forward_ops(from->ports)
        .send(from->ports, from->forward.session.line, KIND(CANCEL), session_id, &cancel.base);
}

struct sender {
    struct end *from;
    uint32_t n;
    bool failed;
};

static void *send_all(void *arg)
{
    struct sender *sender = arg;

    for (uint32_t i = 0; i < sender->n; i++)
        sender->failed |= send_id(sender->from, sender->from->forward.session.session_id, i) != 0;
    return NULL;
}

/* n messages each way, from threads of their own, while the main loop runs. */
static void exchange(uint32_t n)
{
    struct sender senders[2] = {{.from = &a, .n = n}, {.from = &b, .n = n}};
    pthread_t threads[2];

    for (int i = 0; i < 2; i++)
        cr_assert_eq(pthread_create(&threads[i], NULL, send_all, &senders[i]), 0);
    UNTIL(a.forward.next == n && b.forward.next == n);
    for (int i = 0; i < 2; i++) {
        pthread_join(threads[i], NULL);
        cr_expect_not(senders[i].failed);
    }
}

Test(ports, a_session_is_told_at_both_ends_with_what_it_takes_to_reach_the_other)
{
    const struct forward_session_info *of_a = &a.forward.session, *of_b = &b.forward.session;

    cr_assert_eq(a.forward.begun, 1);
    cr_assert_eq(b.forward.begun, 1);
    cr_expect_arr_eq(of_a->session_id, of_b->session_id, SESSION_ID_LEN);
    cr_expect_str_eq(of_a->peer_id, "b");
    cr_expect_str_eq(of_b->peer_id, "a");
    cr_expect(of_a->dialled);
    cr_expect_not(of_b->dialled);
    cr_expect_arr_eq(&of_a->to, &b.at, sizeof(struct sockaddr_in));
    cr_expect_eq(of_a->from.ss_family, AF_UNSPEC);
    teardown();
}

Test(ports, messages_go_straight_from_thread_to_thread_in_order)
{
    exchange(5000);
    cr_expect_leq(a.forward.messages, 5000);
    cr_expect_eq(a.forward.on_main, 0);
    cr_expect_eq(b.forward.on_main, 0);
    teardown();
}

Test(ports, those_that_find_no_session_go_through_the_node_and_none_overtakes_them)
{
    struct slot *slot = b.forward.session.line;

    b.forward.refuse = 2; /* on nng's thread, and the same message on the main loop */
    cr_assert_eq(send_id(&a, a.forward.session.session_id, 77), 0);
    UNTIL(b.forward.refused == 2);
    b.forward.refuse = 1; /* on nng's thread only: begun by then, it finds the session */
    cr_assert_eq(send_id(&a, a.forward.session.session_id, 0), 0);
    while (b.forward.refused < 3) /* without the main loop */
        sched_yield();
    for (uint32_t i = 1; i < 500; i++)
        cr_assert_eq(send_id(&a, a.forward.session.session_id, i), 0);
    while (atomic_load(&slot->waiting_forwards) < 2 && b.forward.messages == 0)
        sched_yield();
    UNTIL(b.forward.next == 500);
    cr_expect_geq(b.forward.on_main, 1);
    b.forward.next = b.forward.on_main = 0;
    exchange(100);
    cr_expect_eq(b.forward.on_main, 0, "the short way is open again");
    teardown();
}

/* The connection from a to b breaks, as far as both gates can see. */
static void cut_network(void)
{
    struct sockaddr_in there;

    for (int fd = 3; fd < 1024; fd++) {
        socklen_t len = sizeof there;

        if (getpeername(fd, (struct sockaddr *)&there, &len) == 0 && len == sizeof there &&
            memcmp(&there, &b.at, len) == 0)
            shutdown(fd, SHUT_RDWR);
    }
}

Test(ports, a_session_ends_with_its_network_and_another_follows)
{
    uint64_t link = a.forward.session.link;
    uint8_t id[SESSION_ID_LEN];

    memcpy(id, a.forward.session.session_id, sizeof id);
    exchange(3);
    cut_network();
    UNTIL(a.forward.ended == 1 && b.forward.ended == 1);
    cr_expect_eq(a.forward.ended_link, link);
    UNTIL(a.forward.begun == 2 && b.forward.begun == 2);
    cr_expect_neq(a.forward.session.link, link);
    cr_expect_eq(send_id(&a, id, 3), -EPIPE, "of the session before");
    a.forward.next = b.forward.next = 0;
    exchange(3);
    teardown();
}

Test(ports, a_message_of_another_session_is_not_sent)
{
    uint8_t other[SESSION_ID_LEN] = {1};

    cr_expect_eq(send_id(&a, other, 0), -EPIPE);
    exchange(1);
    teardown();
}

Test(ports, the_end_is_told_at_once_and_nothing_is_sent_after_it)
{
    uint8_t id[SESSION_ID_LEN];
    uint64_t link = a.forward.session.link;

    memcpy(id, a.forward.session.session_id, sizeof id);
    exchange(10);
    node_stop(b.node);
    cr_expect_eq(b.forward.ended, 1, "before anything is heard of the network");
    cr_expect_eq(b.forward.ended_link, b.forward.session.link);
    cr_expect_eq(send_id(&b, id, 10), -EPIPE);
    UNTIL(a.forward.ended == 1);
    cr_expect_eq(a.forward.ended_link, link);
    cr_expect_eq(send_id(&a, id, 10), -EPIPE);
    teardown();
}

Test(ports, wishes_go_to_who_dials)
{
    a.forward.wanted = 5;
    b.forward.wanted = 9;
    UNTIL(a.forward.wish == 9);
    cr_expect_eq(b.forward.wish, 0);
    teardown();
}

Test(ports, data_connections_reach_who_carries_clients)
{
    struct preamble preamble = {.version = PREAMBLE_VERSION,
                                .kind = PREAMBLE_DATA,
                                .peer_id = "a",
                                .token = {1, 2, 3},
                                .has_token = 1,
                                .first = DATA_FIRST_OTHER};
    uint8_t bytes[PREAMBLE_MAX];
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    cr_assert_eq(connect(fd, (struct sockaddr *)&b.at, sizeof(struct sockaddr_in)), 0);
    cr_assert_eq(write(fd, bytes, preamble_pack(&preamble, bytes)), 8 + 1 + 17);
    UNTIL(b.forward.n_data == 1);
    cr_expect_arr_eq(b.forward.data.token, preamble.token, TOKEN_LEN);
    cr_expect_eq(b.forward.data.first, DATA_FIRST_OTHER);
    close(fd);
    teardown();
}
