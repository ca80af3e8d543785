/* Dialling with TLS: who answers must be who is expected; what goes wrong is said in words. */
#include <criterion/criterion.h>
#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include <meshd/v1/mesh.pb-c.h>
#include "gate/bridge.h"
#include "gate/stock.h"
#include "gate/support.h"
#include "wire/status.h"

static struct rig rig;
static struct issued *ca;
static struct gate_target target;
static char path[128];
static int listener, nng;

static void setup(void)
{
    struct sockaddr_in any = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
    socklen_t len = sizeof(any);

    rig_init(&rig);
    ca = issue_ca(NULL, "mesh");
    rig.tls = keeper_of("rig", ca, "DNS:n1");
    rig.dial_ms = 3000;
    rig_start(&rig);
    listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    cr_assert_eq(bind(listener, (struct sockaddr *)&any, len), 0);
    cr_assert_eq(listen(listener, 8), 0);
    getsockname(listener, (struct sockaddr *)&any, &len);
    set_timeouts(listener);
    snprintf(path, sizeof(path), "%s/nng", rig.dir);
    nng = listen_unix(path);
    target = (struct gate_target){
        .preamble = {.version = PREAMBLE_VERSION, .kind = PREAMBLE_RPC, .peer_id = "n1"},
        .ipc_path = path,
        .expect = "n2",
    };
    memcpy(&target.to, &any, sizeof(any));
}

static void teardown(void)
{
    close(listener);
    close(nng);
    unlink(path);
    rig_stop(&rig);
}

TestSuite(tls_dial, .init = setup, .fini = teardown);

static uint32_t dial(void)
{
    int64_t conn = gate_dial(rig.gate, &target);

    cr_assert_gt(conn, 0);
    return (uint32_t)conn;
}

static struct gate_end ended(uint32_t conn)
{
    struct told_event event;

    cr_assert(rig_told(&rig, TOLD_ENDED, conn, &event));
    cr_assert_gt(strlen(event.why.text), 0);
    cr_assert_eq(rig_told_count(&rig, TOLD_UP), 0);
    return event.why;
}

/* A peer of our own making answers, as who. */
static void answer(struct stock *stock, const struct issued *who)
{
    int fd = accept_within(listener);

    cr_assert_geq(fd, 0);
    stock_open(stock, fd, TLS_ACCEPT, who);
}

static void expect_refused(const struct gate_end *why)
{
    cr_assert_eq(why->error, -EACCES, "%d: %s", why->error, why->text);
    cr_assert_eq(why->status, STATUS_PERMISSION_DENIED);
    cr_assert_eq(why->reason, MESHD__V1__REASON__REASON_IDENTITY);
}

Test(tls_dial, whom_it_expects_is_called_and_shown_by_name)
{
    static const uint8_t ok[PREAMBLE_HEAD] = {'M', 'S', 'H', 'D', PREAMBLE_VERSION};
    struct issued *n2 = issue(ca, &(struct wanted){.names = "DNS:other,DNS:n2"});
    uint8_t in[64], request[64];
    struct told_event up;
    struct stock stock;
    uint32_t conn = dial();
    size_t n = make_request(request, 1, 20);
    int req;

    answer(&stock, n2);
    cr_assert(stock_shake(&stock));
    cr_assert(stock_read(&stock, in, PREAMBLE_HEAD + 2));
    cr_assert_eq(memcmp(in + PREAMBLE_HEAD, "n1", 2), 0);
    cr_assert(stock_write(&stock, ok, sizeof(ok)));
    req = accept_within(nng);
    cr_assert(send_hello(req, SP_REQ0) && recv_hello(req, SP_REP0));
    cr_assert(rig_told(&rig, TOLD_UP, conn, &up));
    cr_assert(up.peer.secure);
    cr_assert_str_eq(up.peer.names[0], "other");
    cr_assert(gate_peer_proves(&up.peer, "n2") && !gate_peer_proves(&up.peer, "n3"));
    cr_assert(send_message(req, SP_IPC, request, n));
    cr_assert(stock_read(&stock, in, n + 8));
    cr_assert_eq(memcmp(in + 8, request, n), 0);
    gate_end(rig.gate, conn, 1);
    cr_assert_eq(stock_over(&stock), 0); /* said in order */
    cr_assert_eq(recv(req, in, 1, 0), 0);
    close(req);
    stock_close(&stock);
    cr_assert(rig_told(&rig, TOLD_ENDED, conn, NULL));
}

Test(tls_dial, another_than_was_expected_is_told_nothing)
{
    struct issued *other = issue_ca(NULL, "mesh");
    struct issued *wrong[] = {
        issue_node(ca, "n3"), issue_node(other, "n2"),
        issue(ca, &(struct wanted){.names = "DNS:n2", .from = -2 * DAY, .until = -DAY}),
        issue(ca, &(struct wanted){.names = "DNS:n2", .usage = "clientAuth"})};
    enum tls_failure why[] = {TLS_IDENTITY, TLS_UNTRUSTED, TLS_EXPIRED, TLS_UNTRUSTED};

    for (size_t i = 0; i < 4; i++) {
        uint64_t before = rig_count(&rig).tls_failed[why[i]];
        uint32_t conn = dial();
        struct gate_end end;
        struct stock stock;

        answer(&stock, wrong[i]);
        cr_assert_not(stock_shake(&stock)); /* so it has heard no preamble */
        end = ended(conn);
        expect_refused(&end);
        if (i == 0)
            cr_assert(strstr(end.text, "n3") && strstr(end.text, "n2"), "%s", end.text);
        cr_assert_eq(rig_count(&rig).tls_failed[why[i]], before + 1);
        stock_close(&stock);
    }
    cr_assert_eq(rig_count(&rig).dial_failed, 4);
    cr_assert_eq(rig_count(&rig).tls_handshakes, 0);
}

/* The dialler's side of the handshake is over by then: it has said its preamble, and hears of being
 * refused instead of an answer, whatever comes first. */
Test(tls_dial, being_refused_is_told_in_words)
{
    struct issued *other = issue_ca(NULL, "mesh");
    struct tls_settings settings = node_settings("n2", other, issue_node(ca, "n2"));
    struct rig refuses;

    rig_init(&refuses);
    refuses.tls = keep(&settings);
    rig_start(&refuses);
    target.to = refuses.at;
    for (uint64_t i = 1; i <= 50; i++) {
        struct gate_end end = ended(dial());

        expect_refused(&end);
        cr_assert(strstr(end.text, "refused"), "%s", end.text);
        cr_assert_eq(rig_count(&rig).tls_failed[TLS_REFUSED], i);
    }
    RIG_WAIT(&refuses, c.tls_failed[TLS_UNTRUSTED] == 50 && c.connections == 0);
    rig_stop(&refuses);
}

Test(tls_dial, what_speaks_no_tls_is_no_peer)
{
    static const char *said[] = {"HTTP/1.1 400 Bad Request\r\n\r\n", "MSHD\1\0\0\0", ""};
    static const int errors[] = {-EPROTO, -EPROTO, -ECONNRESET};
    uint8_t in[64];

    for (size_t i = 0; i < 3; i++) {
        uint32_t conn = dial();
        int fd = accept_within(listener);

        cr_assert(recv_all(fd, in, 3));
        cr_assert_eq(in[0], 0x16);
        cr_assert(send_all(fd, said[i], strlen(said[i])));
        shutdown(fd, SHUT_WR);
        cr_assert_eq(ended(conn).error, errors[i]);
        close(fd);
    }
    cr_assert_eq(rig_count(&rig).tls_failed[TLS_BROKEN], 3);
}

Test(tls_dial, an_answer_that_does_not_come_is_not_waited_for_longer_than_a_connect)
{
    uint64_t begun = now_ms();
    uint32_t conn[2] = {dial(), 0};
    struct gate_end end;
    struct stock stock;
    int fd = accept_within(listener);

    conn[1] = dial();
    answer(&stock, issue_node(ca, "n2"));
    cr_assert(stock_shake(&stock));
    end = ended(conn[0]);
    cr_assert_eq(end.error, -ETIMEDOUT);
    cr_assert_str_eq(end.text, "the TLS handshake took too long");
    end = ended(conn[1]);
    cr_assert_eq(end.error, -ETIMEDOUT);
    cr_assert_str_eq(end.text, "no answer to the preamble");
    cr_assert_lt(now_ms() - begun, 3 * rig.dial_ms);
    stock_close(&stock);
    close(fd);
}

/* Said in order or not: that is no failure of TLS. */
Test(tls_dial, a_peer_that_hangs_up_after_the_handshake_has_given_no_answer)
{
    uint8_t in[PREAMBLE_HEAD + 2];

    for (int in_order = 0; in_order < 2; in_order++) {
        uint32_t conn = dial();
        struct gate_end end;
        struct stock stock;

        answer(&stock, issue_node(ca, "n2"));
        cr_assert(stock_shake(&stock) && stock_read(&stock, in, sizeof(in)));
        if (in_order)
            SSL_shutdown(stock.ssl);
        stock_close(&stock);
        end = ended(conn);
        cr_assert_eq(end.error, -ECONNRESET);
        cr_assert_str_eq(end.text, "closed without an answer to the preamble");
    }
    cr_assert_eq(rig_count(&rig).tls_failed[TLS_BROKEN], 0);
}
