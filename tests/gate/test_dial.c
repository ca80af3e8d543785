/* Dialling a peer: why it fails, what a refusal says, where it comes from. */
#include <criterion/criterion.h>
#include <arpa/inet.h>
#include <errno.h>
#include <string.h>
#include <unistd.h>
#include <meshd/v1/mesh.pb-c.h>
#include "support.h"
#include "wire/status.h"

static struct rig rig;

static void setup(void)
{
    rig_init(&rig);
    rig_start(&rig);
}

static void teardown(void) { rig_stop(&rig); }

/* A link with the gate itself; nothing is joined with it here. */
static struct gate_target to_link(void)
{
    return (struct gate_target){.to = rig.at,
                                .preamble = {.version = PREAMBLE_VERSION,
                                             .kind = PREAMBLE_LINK,
                                             .peer_id = "n7",
                                             .has_token = 1},
                                .ipc_path = "/nowhere"};
}

static struct gate_end dial_fails(const struct gate_target *target)
{
    struct told_event ended;
    int64_t conn = gate_dial(rig.gate, target);

    cr_assert_gt(conn, 0);
    cr_assert(rig_told(&rig, TOLD_ENDED, (uint32_t)conn, &ended));
    cr_assert_gt(strlen(ended.why.text), 0);
    return ended.why;
}

static int listen_tcp(struct sockaddr_storage *out_at)
{
    struct sockaddr_in any = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
    socklen_t len = sizeof(any);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    cr_assert_eq(bind(fd, (struct sockaddr *)&any, len), 0);
    cr_assert_eq(listen(fd, 8), 0);
    getsockname(fd, (struct sockaddr *)&any, &len);
    memset(out_at, 0, sizeof(*out_at));
    memcpy(out_at, &any, sizeof(any));
    return fd;
}

Test(dial, a_dial_that_fails_says_why, .init = setup, .fini = teardown)
{
    struct gate_target target = {
        .preamble = {.version = PREAMBLE_VERSION, .kind = PREAMBLE_RPC, .peer_id = "n7"},
        .ipc_path = "/nowhere"};
    int listener = listen_tcp(&target.to), fd;
    uint8_t in[PREAMBLE_HEAD + 2];
    const char *answers[] = {"", "HTTP/1.1 400\r\n", "MSHD\2\0\0\0"};
    int errors[] = {-ECONNRESET, -EPROTO, -EPROTO};

    for (int i = 0; i < 3; i++) {
        int64_t conn = gate_dial(rig.gate, &target);
        struct told_event ended;

        cr_assert_gt(conn, 0);
        fd = accept_within(listener);
        cr_assert(recv_all(fd, in, sizeof(in)));
        send_all(fd, answers[i], i == 2 ? 8 : strlen(answers[i]));
        shutdown(fd, SHUT_WR);
        cr_assert(rig_told(&rig, TOLD_ENDED, (uint32_t)conn, &ended));
        cr_assert_eq(ended.why.error, errors[i]);
        close(fd);
    }
    close(listener);
    cr_assert_eq(dial_fails(&target).error, -ECONNREFUSED);
    target.from = target.to;
    ((struct sockaddr_in *)&target.from)->sin_addr.s_addr = htonl(0xc0000201); /* not ours */
    cr_assert_eq(dial_fails(&target).error, -EADDRNOTAVAIL);
    target.to.ss_family = AF_UNIX;
    cr_assert_eq(gate_dial(rig.gate, &target), -EAFNOSUPPORT);
    cr_assert_eq(rig_count(&rig).dial_failed, 5);
}

Test(dial, a_dial_that_hangs_is_given_up)
{
    struct gate_target target = {
        .preamble = {.version = PREAMBLE_VERSION, .kind = PREAMBLE_RPC, .peer_id = "n7"},
        .ipc_path = "/nowhere"};
    int listener;

    rig_init(&rig);
    rig.dial_ms = 50;
    rig_start(&rig);
    listener = listen_tcp(&target.to);
    cr_assert_eq(dial_fails(&target).error, -ETIMEDOUT);
    close(listener);
    rig_stop(&rig);
}

Test(dial, a_refusal_reaches_the_dialler, .init = setup, .fini = teardown)
{
    struct gate_target target = to_link();
    struct told_event asked, ended;
    int64_t conn = gate_dial(rig.gate, &target);

    cr_assert_gt(conn, 0);
    cr_assert(rig_told(&rig, TOLD_ASKED, 0, &asked));
    gate_refuse(rig.gate, asked.conn, STATUS_UNAUTHENTICATED, MESHD__V1__REASON__REASON_TOKEN,
                "unknown token");
    cr_assert(rig_told(&rig, TOLD_ENDED, (uint32_t)conn, &ended));
    cr_assert_eq(ended.why.error, 0);
    cr_assert_eq(ended.why.status, STATUS_UNAUTHENTICATED);
    cr_assert_eq(ended.why.reason, MESHD__V1__REASON__REASON_TOKEN);
    cr_assert_str_eq(ended.why.text, "unknown token");
    cr_assert(rig_told(&rig, TOLD_ENDED, asked.conn, &ended));
    cr_assert_eq(ended.why.status, STATUS_UNAUTHENTICATED);
    cr_assert_eq(rig_told_count(&rig, TOLD_UP), 0);
}

Test(dial, a_dial_comes_from_the_address_it_was_told, .init = setup, .fini = teardown)
{
    struct gate_target target = to_link();
    struct sockaddr_in from = {.sin_family = AF_INET, .sin_addr = {htonl(0x7f000003)}};
    struct told_event asked;

    memcpy(&target.from, &from, sizeof(from));
    cr_assert_gt(gate_dial(rig.gate, &target), 0);
    cr_assert(rig_told(&rig, TOLD_ASKED, 0, &asked));
    cr_assert_str_eq(asked.peer.ip, "127.0.0.3");
    gate_refuse(rig.gate, asked.conn, STATUS_UNAVAILABLE, 0, "no");
}
