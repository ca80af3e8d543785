/* DATA in TLS: what a middle man can do, who is let in, and who is not any more. */
#include <criterion/criterion.h>
#include <fcntl.h>
#include <pthread.h>
#include <sys/socket.h>
#include <unistd.h>
#include "base/random.h"
#include "forward/must.h"
#include "forward/peer.h"
#include "forward/rig.h"
#include "tls/support.h"
#include "wire/status.h"

static struct rig rig;
static struct peer peers[2];
static int listener;
static char addr[32];

static void setup(void)
{
    rig_init(&rig);
    rig.tls = true;
    rig.through_middle = true;
    rig.limits.data_warm_per_link = 0;
    listener = net_listen(addr);
}

TestSuite(data_tls, .init = setup, .timeout = 60);

static void start(enum side owner)
{
    rig_start(&rig);
    rig_link_up(&rig);
    rig_offer(&rig, owner, "web", addr);
}

static void end(void)
{
    close(listener);
    rig_end(&rig);
}

static const char request[] = "GET / HTTP/1.1\r\nHost: web\r\n\r\n";

static int ask(enum side from)
{
    int fd = net_connect(rig.sides[from].port);

    net_send(fd, request, strlen(request));
    return fd;
}

static void carried(enum side from, size_t len)
{
    static char answer[65536], got[65537];
    int client = ask(from), backend = net_accept(listener);

    random_bytes(answer, len);
    net_expect(backend, request, strlen(request));
    net_send(backend, answer, len);
    shutdown(backend, SHUT_WR);
    cr_assert_eq(net_read_all(client, got, sizeof got), len);
    cr_assert_arr_eq(got, answer, len);
    shutdown(client, SHUT_WR);
    cr_assert_eq(net_read_all(backend, got, sizeof got), 0);
    close(client);
    close(backend);
}

static void is_refused(enum side from)
{
    char got[2048];
    int client = ask(from);

    net_read_all(client, got, sizeof got);
    cr_assert(strncmp(got, "HTTP/1.1 502", 12) == 0, "%s", got);
    close(client);
}

/* ---- the middle man ---- */

static void cut(size_t at_once)
{
    rig.middle.cut = at_once;
    start(LISTENER);
    rig_offer(&rig, DIALLER, "web2", addr);
    carried(DIALLER, 3000);
    carried(DIALLER, 40);
    end();
}

Test(data_tls, a_stream_that_comes_byte_by_byte_is_whole) { cut(1); }
Test(data_tls, a_stream_that_comes_by_two_bytes_is_whole) { cut(2); }
Test(data_tls, a_stream_that_comes_by_three_bytes_is_whole) { cut(3); }
Test(data_tls, a_stream_that_comes_by_seven_bytes_is_whole) { cut(7); }

/* Neither side takes the end that somebody in between makes up for one of the other. */
static void truncated(enum side from)
{
    int client, backend;

    start(!from);
    client = ask(from);
    backend = net_accept(listener);
    net_expect(backend, request, strlen(request));
    net_send(backend, "half of ", 8);
    net_expect(client, "half of ", 8);
    rig_end_data(&rig);
    cr_assert(net_is_reset(client));
    cr_assert(net_is_reset(backend));
    close(client);
    close(backend);
    RIG_WAIT(&rig, from, ends[FORWARD_BACKEND_RESET], 1);
    end();
}

Test(data_tls, an_end_that_the_middle_makes_up_is_a_reset_to_both) { truncated(DIALLER); }
Test(data_tls, an_end_that_the_middle_makes_up_is_a_reset_of_the_listeners) { truncated(LISTENER); }

/* ---- much ---- */

#define MUCH (64u << 20)
#define PERIOD 65521u

static uint8_t pattern[2 * PERIOD + 65536];

struct mover {
    pthread_t thread;
    int fd;
    size_t skew, n; /* of the pattern; bytes so far */
};

static void *send_much(void *arg)
{
    struct mover *m = arg;

    while (m->n < MUCH) {
        size_t len = MUCH - m->n < 65536 ? MUCH - m->n : 65536;
        ssize_t n = send(m->fd, pattern + (m->skew + m->n) % PERIOD, len, MSG_NOSIGNAL);

        MUST(n > 0);
        m->n += (size_t)n;
    }
    shutdown(m->fd, SHUT_WR);
    return NULL;
}

static void *read_much(void *arg)
{
    static _Thread_local uint8_t got[7000];
    struct mover *m = arg;
    ssize_t n;

    while ((n = recv(m->fd, got, sizeof got, 0)) > 0) {
        MUST(memcmp(got, pattern + (m->skew + m->n) % PERIOD, (size_t)n) == 0);
        m->n += (size_t)n;
    }
    MUST(n == 0);
    return NULL;
}

Test(data_tls, much_both_ways_at_once_to_slow_readers_is_whole)
{
    const int room = 32768;
    struct mover movers[4];

    random_bytes(pattern, PERIOD);
    for (size_t i = PERIOD; i < sizeof pattern; i++)
        pattern[i] = pattern[i - PERIOD];
    rig.through_middle = false;
    start(LISTENER);
    movers[0] = (struct mover){.fd = ask(DIALLER), .skew = 1};
    movers[1] = (struct mover){.fd = net_accept(listener), .skew = 1};
    net_expect(movers[1].fd, request, strlen(request));
    setsockopt(movers[0].fd, SOL_SOCKET, SO_RCVBUF, &room, sizeof room);
    setsockopt(movers[1].fd, SOL_SOCKET, SO_RCVBUF, &room, sizeof room);
    movers[2] = (struct mover){.fd = movers[1].fd, .skew = 2};
    movers[3] = (struct mover){.fd = movers[0].fd, .skew = 2};
    for (size_t i = 0; i < 4; i++)
        MUST(pthread_create(&movers[i].thread, NULL, i % 2 ? read_much : send_much, &movers[i]) ==
             0);
    for (size_t i = 0; i < 4; i++)
        pthread_join(movers[i].thread, NULL);
    cr_assert_eq(movers[1].n, MUCH);
    cr_assert_eq(movers[3].n, MUCH);
    close(movers[0].fd);
    close(movers[1].fd);
    RIG_WAIT(&rig, DIALLER, ends[FORWARD_DONE], 1);
    cr_assert_eq(rig_counters(&rig, DIALLER).spliced > 0, kernel_has_tls());
    end();
}

/* ---- who is there ---- */

Test(data_tls, from_the_second_on_sessions_are_resumed)
{
    start(LISTENER);
    for (int i = 0; i < 10; i++)
        carried(DIALLER, 100);
    cr_assert_eq(rig_counters(&rig, DIALLER).data_dialled, 10);
    cr_assert_eq(rig_counters(&rig, DIALLER).data_tls_resumed, 9);
    cr_assert_eq(rig_counters(&rig, DIALLER).data_tls_failed, 0);
    end();
}

Test(data_tls, one_that_was_cut_off_spoils_no_later_one)
{
    start(LISTENER);
    carried(DIALLER, 100);
    for (int i = 0; i < 3; i++) {
        int client = ask(DIALLER), backend = net_accept(listener);

        net_expect(backend, request, strlen(request));
        net_send(backend, "half", 4);
        net_expect(client, "half", 4);
        net_reset(client);
        cr_assert(net_is_reset(backend));
        close(backend);
    }
    carried(DIALLER, 100);
    cr_assert_eq(rig_counters(&rig, DIALLER).data_tls_resumed, 4);
    end();
}

Test(data_tls, where_somebody_else_answers_no_client_is_carried)
{
    rig.gate_shows = "x"; /* of the same CA, but not the link's peer */
    start(LISTENER);
    is_refused(DIALLER);
    cr_assert_geq(rig_counters(&rig, DIALLER).data_tls_failed, 1);
    cr_assert(net_nobody_comes(listener) || close(net_accept(listener)) == 0);
    rig.gate_shows = NULL;
    carried(DIALLER, 100);
    end();
}

static void start_peers(void)
{
    rig_start(&rig);
    rig_offer(&rig, DIALLER, "web", addr);
    for (unsigned i = 0; i < 2; i++) {
        peer_init(&peers[i], &rig, i ? "b" : "a", 100 + i, false);
        peer_up(&peers[i]);
    }
}

static void end_peers(void)
{
    for (unsigned i = 0; i < 2; i++)
        peer_down(&peers[i]);
    rig_settle(rig.sides[DIALLER].forward);
    for (unsigned i = 0; i < 2; i++)
        peer_fini(&peers[i]);
    end();
}

/* With that certificate, or none, in the name of peers[0]; what forward_data says. */
static int status_of(const char *shows)
{
    struct preamble preamble = {.version = PREAMBLE_VERSION, .kind = PREAMBLE_DATA, .has_token = 1};
    struct gate_peer from = {.ip = "127.0.0.1"};
    int fd = net_connect(ntohs(peers[0].at.sin_port)), other = net_accept(peers[0].fd), status;
    struct tls *tls = NULL;
    const char *text = "";

    strcpy(preamble.peer_id, peers[0].id);
    memcpy(preamble.token, peers[0].session_id, TOKEN_LEN);
    if (shows) {
        fd = trust_wrap(shows, TLS_CONNECT, fd, 0);
        tls = trust_shake("d", TLS_ACCEPT, other);
    }
    fcntl(other, F_SETFL, O_NONBLOCK);
    status = forward_data(rig.sides[DIALLER].forward, other, tls, &from, &preamble, NULL, 0, &text);
    if (status != 0) {
        tls_free(tls);
        close(other);
    }
    close(fd);
    return status;
}

Test(data_tls, data_in_plaintext_or_with_anothers_certificate_is_refused)
{
    start_peers();
    cr_assert_eq(status_of(NULL), STATUS_UNAUTHENTICATED);
    cr_assert_eq(status_of("b"), STATUS_UNAUTHENTICATED);
    cr_assert_eq(rig_counters(&rig, DIALLER).data_unexpected, 2);
    cr_assert_eq(status_of("a"), 0);
    cr_assert_eq(rig_counters(&rig, DIALLER).data_unexpected, 2);
    end_peers();
}

Test(data_tls, data_in_tls_is_refused_where_the_mesh_is_plaintext)
{
    rig.tls = false;
    start_peers();
    cr_assert_eq(status_of("a"), STATUS_UNAUTHENTICATED);
    cr_assert_eq(status_of(NULL), 0);
    end_peers();
}

/* ---- who is let in no more ---- */

/* A client of that peer, joined with a backend here. */
static void join(struct peer *peer, int *out_data, int *out_backend)
{
    uint8_t id[FORWARD_ID_LEN];
    struct data_header header = {.offset = 0};
    Meshd__V1__Forward forward;
    int status;

    random_bytes(id, sizeof id);
    forward = peer_forward_of(id, "web");
    memcpy(header.forward_id, id, sizeof id);
    peer_forward(peer, &forward);
    *out_backend = net_accept(listener);
    *out_data = peer_dial_data(peer, DATA_FIRST_DIALLER, &header, &status);
    cr_assert_eq(status, 0);
    peer_expect_answer(*out_data);
    peer_expect_header(*out_data, id, 0);
    cr_assert_eq(peer_next_reply(peer, id, (char[LIMIT_STATUS_TEXT + 1]){""}),
                 MESHD__V1__REFUSAL__REFUSAL_NONE);
}

static void passes(int from, int to)
{
    net_send(from, "passes", 6);
    net_expect(to, "passes", 6);
}

Test(data_tls, what_is_of_a_revoked_peer_is_reset_and_nothing_else)
{
    int data[3], backends[2], status;
    struct data_header header = {.offset = 0};

    start_peers();
    join(&peers[0], &data[0], &backends[0]);
    join(&peers[1], &data[1], &backends[1]);
    random_bytes(header.forward_id, sizeof header.forward_id);
    data[2] = peer_dial_data(&peers[0], DATA_FIRST_DIALLER, &header, &status);
    RIG_WAIT(&rig, DIALLER, data_waiting, 1);
    forward_check_again(rig.sides[DIALLER].forward); /* nothing has changed */
    rig_settle(rig.sides[DIALLER].forward);
    passes(data[0], backends[0]);
    trust_revoke("a");
    passes(data[0], backends[0]); /* until somebody says so */
    forward_check_again(rig.sides[DIALLER].forward);
    cr_assert(net_is_reset(data[0]));
    cr_assert(net_is_reset(backends[0]));
    cr_assert(net_is_reset(data[2]));
    RIG_WAIT(&rig, DIALLER, data_waiting, 0);
    passes(data[1], backends[1]);
    passes(backends[1], data[1]);
    cr_assert_eq(rig_counters(&rig, DIALLER).data_revoked, 2);
    for (int i = 0; i < 3; i++)
        close(data[i]);
    for (int i = 0; i < 2; i++)
        close(backends[i]);
    RIG_WAIT(&rig, DIALLER, served, 0);
    end_peers();
}

/* Its handshake was over before the change; it is handed over after it. */
Test(data_tls, one_that_was_on_its_way_when_its_peer_was_revoked_is_reset_when_it_comes)
{
    struct preamble preamble = {.version = PREAMBLE_VERSION, .kind = PREAMBLE_DATA, .has_token = 1};
    struct gate_peer from = {.ip = "127.0.0.1"};
    const char *text = "";
    struct tls *tls;
    int fd, other;

    start_peers();
    fd = net_connect(ntohs(peers[0].at.sin_port));
    other = net_accept(peers[0].fd);
    fd = trust_wrap("a", TLS_CONNECT, fd, 0);
    tls = trust_shake("d", TLS_ACCEPT, other);
    MUST(tls);
    trust_revoke("a");
    forward_check_again(rig.sides[DIALLER].forward);
    rig_settle(rig.sides[DIALLER].forward);
    strcpy(preamble.peer_id, peers[0].id);
    memcpy(preamble.token, peers[0].session_id, TOKEN_LEN);
    cr_assert_eq(
        forward_data(rig.sides[DIALLER].forward, other, tls, &from, &preamble, NULL, 0, &text), 0);
    cr_assert(net_is_reset(fd));
    close(fd);
    RIG_WAIT(&rig, DIALLER, data_revoked, 1);
    end_peers();
}

Test(data_tls, a_client_that_a_revoked_owner_serves_is_reset_and_later_ones_are_refused)
{
    int client, backend;

    rig.through_middle = false;
    start(LISTENER);
    client = ask(DIALLER);
    backend = net_accept(listener);
    net_expect(backend, request, strlen(request));
    net_send(backend, "half", 4);
    net_expect(client, "half", 4);
    trust_revoke("l");
    forward_check_again(rig.sides[DIALLER].forward);
    cr_assert(net_is_reset(client));
    cr_assert(net_is_reset(backend));
    close(client);
    close(backend);
    RIG_WAIT(&rig, DIALLER, ends[FORWARD_REVOKED], 1);
    is_refused(DIALLER); /* nor does a ticket of before help */
    cr_assert_geq(rig_counters(&rig, DIALLER).data_tls_failed, 1);
    while (!net_nobody_comes(listener))
        close(net_accept(listener));
    end();
}
