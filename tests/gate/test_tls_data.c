/* DATA over TLS: the session is handed on with the descriptor, and what it has read already with
 * it.
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <meshd/v1/mesh.pb-c.h>
#include "gate/bridge.h"
#include "gate/stock.h"
#include "gate/support.h"
#include "wire/status.h"

#define UNKNOWN 0xff /* a session of which the taker does not know */

static struct rig rig;
static struct issued *ca, *n7;

static struct handed { /* written before n_handed says so */
    int fd;
    struct tls *tls;
    struct gate_peer from;
    uint8_t bytes[200000];
    size_t len;
} handed;
static atomic_uint n_handed;

static int take(void *ctx, int fd, struct tls *tls, const struct gate_peer *from,
                const struct preamble *preamble, const uint8_t *rest, size_t rest_len,
                const char **out_text)
{
    if (preamble->token[0] == UNKNOWN) {
        *out_text = "no such session";
        return STATUS_UNAUTHENTICATED;
    }
    handed = (struct handed){.fd = fd, .tls = tls, .from = *from, .len = rest_len};
    memcpy(handed.bytes, rest, rest_len);
    atomic_fetch_add(&n_handed, 1);
    return 0;
}

static void setup(void)
{
    rig_init(&rig);
    rig.data = take;
    ca = issue_ca(NULL, "mesh");
    n7 = issue_node(ca, "n7");
    rig.tls = keeper_of("rig", ca, "DNS:n1");
    rig_start(&rig);
}

static void teardown(void) { rig_stop(&rig); }

TestSuite(tls_data, .init = setup, .fini = teardown);

static size_t preamble_of(uint8_t session, uint8_t *out)
{
    struct preamble preamble = {.version = PREAMBLE_VERSION,
                                .kind = PREAMBLE_DATA,
                                .peer_id = "n7",
                                .has_token = 1,
                                .first = DATA_FIRST_DIALLER};

    memset(preamble.token, session, TOKEN_LEN);
    return preamble_pack(&preamble, out);
}

static void connect_stock(struct stock *stock)
{
    stock_open(stock, dial_plain(&rig), TLS_CONNECT, n7);
    cr_assert(stock_shake(stock));
}

/* The taker reads until there are so many bytes behind the preamble; what ended it before that. */
static ssize_t read_on(size_t len)
{
    while (handed.len < len) {
        struct pollfd pfd = {.fd = handed.fd, .events = POLLIN};
        ssize_t n =
            tls_read(handed.tls, handed.bytes + handed.len, sizeof(handed.bytes) - handed.len);

        if (n == -EAGAIN)
            cr_assert_eq(poll(&pfd, 1, WAIT_MS), 1, "nothing comes after %zu bytes", handed.len);
        else if (n <= 0)
            return n;
        else
            handed.len += (size_t)n;
    }
    return 1;
}

static void let_go(struct stock *stock)
{
    tls_free(handed.tls);
    close(handed.fd);
    stock_close(stock);
}

Test(tls_data, is_handed_on_with_its_session_however_many_bytes_come_at_once)
{
    static const size_t behind[] = {0, 1, 100, 4000, 4096, 16000, 16384, 60000, 150000};
    static uint8_t bytes[160000];
    size_t len = preamble_of(1, bytes);

    for (size_t i = len; i < sizeof(bytes); i++)
        bytes[i] = (uint8_t)(i * 7 + (i >> 8));
    for (size_t i = 0; i < sizeof(behind) / sizeof(*behind); i++) {
        struct stock stock;
        uint8_t in[4];

        connect_stock(&stock);
        cr_assert(stock_write(&stock, bytes, len + behind[i]));
        RIG_WAIT(&rig, atomic_load(&n_handed) == i + 1);
        cr_assert_not_null(handed.tls);
        cr_assert(handed.from.secure);
        cr_assert_str_eq(handed.from.peer_id, "n7");
        cr_assert_str_eq(handed.from.names[0], "n7");
        cr_assert_leq(handed.len, 4096); /* and no more was asked of the session */
        cr_assert_eq(read_on(behind[i]), 1);
        cr_assert_arr_eq(handed.bytes, bytes + len, behind[i]);
        cr_assert_eq(tls_write(handed.tls, "pong", 4), 4);
        cr_assert(stock_read(&stock, in, 4));
        cr_assert_arr_eq(in, "pong", 4);
        let_go(&stock);
    }
    RIG_WAIT(&rig, c.connections == 0 && c.sources == 0);
    cr_assert_eq(rig_count(&rig).data_handed, sizeof(behind) / sizeof(*behind));
}

/* All of it in one packet: first bytes, more of them, the end. */
Test(tls_data, an_end_that_comes_with_the_first_bytes_is_not_lost)
{
    uint8_t bytes[PREAMBLE_MAX + 9000] = {0}, packet[20000];
    size_t len = preamble_of(1, bytes);

    for (unsigned i = 0; i < 2; i++) {
        BIO *wire = BIO_new(BIO_s_mem());
        struct stock stock;
        int n;

        connect_stock(&stock);
        SSL_set0_wbio(stock.ssl, wire);
        cr_assert(stock_write(&stock, bytes, len + (i ? 9000 : 10)));
        SSL_shutdown(stock.ssl);
        n = BIO_read(wire, packet, sizeof(packet));
        cr_assert(send_all(stock.fd, packet, (size_t)n));
        RIG_WAIT(&rig, atomic_load(&n_handed) == i + 1);
        cr_assert_eq(read_on(sizeof(handed.bytes)), 0);
        cr_assert_eq(handed.len, i ? 9000 : 10);
        let_go(&stock);
    }
}

Test(tls_data, is_refused_inside_its_session)
{
    struct preamble_reply said = {0};
    uint8_t bytes[PREAMBLE_REPLY_MAX];
    size_t len = PREAMBLE_HEAD + strlen("no such session");
    struct stock stock;

    connect_stock(&stock);
    cr_assert(stock_write(&stock, bytes, preamble_of(UNKNOWN, bytes)));
    cr_assert(stock_write(&stock, "more that nobody wants", 22));
    cr_assert(stock_read(&stock, bytes, len));
    cr_assert_eq(preamble_reply_parse(bytes, len, &said), (int)len);
    cr_assert_eq(said.status, STATUS_UNAUTHENTICATED);
    cr_assert_str_eq(said.text, "no such session");
    cr_assert_eq(stock_over(&stock), 0);
    stock_close(&stock);
    RIG_WAIT(&rig, c.connections == 0 && c.data_refused == 1);
}
