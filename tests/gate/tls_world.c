/* tls_world - see tls_world.h. */
#include "gate/tls_world.h"
#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

struct rig rig;
struct issued *ca, *n7, *n8;
static char path[2][128];
static int nng[2];

void world_setup(void)
{
    struct tls_settings settings;

    rig_init(&rig);
    ca = issue_ca(NULL, "mesh");
    n7 = issue(ca, &(struct wanted){.names = "DNS:n7"});
    n8 = issue(ca, &(struct wanted){.names = "DNS:n8,DNS:n8.example"});
    settings = node_settings("n1", ca, issue_node(ca, "n1"));
    settings.crl = write_crl("crl.pem", false, ca, DAY, NULL);
    rig.tls = keep(&settings);
    rig.limits.control_connections = 4096;
    rig.limits.connections_per_source = 4096;
    rig.limits.half_open = 4096;
    rig.limits.half_open_per_source = 4096;
}

void world_run(void)
{
    rig_start(&rig);
    for (int i = 0; i < 2; i++) {
        snprintf(path[i], sizeof(path[i]), "%s/nng%d", rig.dir, i);
        nng[i] = listen_unix(path[i]);
    }
}

void world_start(void)
{
    world_setup();
    world_run();
}

void world_stop(void)
{
    for (int i = 0; i < 2; i++) {
        if (nng[i] > 0)
            close(nng[i]);
        unlink(path[i]);
    }
    rig_stop(&rig);
}

void revoke_and_check(const struct issued *one)
{
    char why[TLS_WHY] = "";

    write_crl("crl.pem", false, ca, DAY, one, NULL);
    cr_assert_eq(tls_keeper_reload(rig.tls, why), 0, "%s", why);
    gate_check_again(rig.gate);
}

void connect_as(struct stock *stock, const struct issued *who)
{
    stock_open(stock, dial_plain(&rig), TLS_CONNECT, who);
    cr_assert(stock_shake(stock));
}

static size_t preamble_of(enum preamble_kind kind, const char *peer_id, uint8_t *out)
{
    struct preamble preamble = {.version = PREAMBLE_VERSION, .kind = kind};

    preamble.has_token = kind == PREAMBLE_LINK || kind == PREAMBLE_DATA;
    preamble.first = DATA_FIRST_DIALLER;
    snprintf(preamble.peer_id, sizeof(preamble.peer_id), "%s", peer_id);
    return preamble_pack(&preamble, out);
}

void say_preamble(struct stock *stock, enum preamble_kind kind, const char *peer_id)
{
    uint8_t bytes[PREAMBLE_MAX];

    cr_assert(stock_write(stock, bytes, preamble_of(kind, peer_id, bytes)));
}

void as_client(struct stock *stock, const struct issued *who)
{
    uint8_t hello[SP_HELLO_LEN];

    connect_as(stock, who);
    sp_hello_pack(SP_REQ0, hello);
    cr_assert(stock_write(stock, hello, sizeof(hello)));
    cr_assert(stock_read(stock, hello, sizeof(hello)));
}

bool echo(struct stock *stock, uint32_t id, size_t len)
{
    static uint8_t out[2u << 20], in[2u << 20];
    size_t n = make_request(out + 8, id, len);

    sp_head_pack(SP_TCP, n, out);
    return stock_write(stock, out, n + 8) && stock_read(stock, in, n + 8) &&
           memcmp(in, out, n + 8) == 0;
}

uint32_t open_link(struct stock *stock, const struct issued *who, const char *peer_id, int index,
                   int *out_nng)
{
    struct told_event asked;
    uint8_t reply[PREAMBLE_HEAD];

    connect_as(stock, who);
    say_preamble(stock, PREAMBLE_LINK, peer_id);
    cr_assert(rig_told(&rig, TOLD_ASKED, 0, &asked));
    gate_accept(rig.gate, asked.conn, path[index]);
    *out_nng = accept_within(nng[index]);
    cr_assert(send_hello(*out_nng, SP_PAIR1) && recv_hello(*out_nng, SP_PAIR1));
    cr_assert(stock_read(stock, reply, sizeof(reply)));
    cr_assert_eq(reply[5], 0);
    cr_assert(rig_told(&rig, TOLD_UP, asked.conn, NULL));
    return asked.conn;
}

void expect_message(struct stock *stock, int local)
{
    static const uint8_t message[12] = {0, 0, 0, 0, 0, 0, 0, 4, 0, 0, 0, 1};
    uint8_t in[64];

    cr_assert(stock_write(stock, message, sizeof(message)));
    cr_assert_eq(recv_message(local, SP_IPC, in, sizeof(in)), 4);
    cr_assert(send_message(local, SP_IPC, message + 8, 4));
    cr_assert(stock_read(stock, in, sizeof(message)));
}
