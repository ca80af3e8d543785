/* DATA connections: handed on with all that came, and forgotten, or refused. */
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <meshd/v1/mesh.pb-c.h>
#include "support.h"
#include "wire/status.h"

#define BEHIND "a header and the first bytes behind it"
#define UNKNOWN 0xff /* a session of which the taker does not know */
#define AT_ONCE 0xfe /* closed before the taker returns */

static struct rig rig;

static struct handed { /* written before n_handed says so */
    int fd;
    struct gate_peer from;
    struct preamble preamble;
    uint8_t rest[64];
    size_t rest_len;
} handed[64];
static atomic_uint n_handed;

static int take(void *ctx, int fd, struct tls *tls, const struct gate_peer *from,
                const struct preamble *preamble, const uint8_t *rest, size_t rest_len,
                const char **out_text)
{
    unsigned n = atomic_load(&n_handed);
    struct handed *to = &handed[n % 64];

    if (preamble->token[0] == UNKNOWN) {
        *out_text = "no such session";
        return STATUS_UNAUTHENTICATED;
    }
    if (preamble->token[0] == AT_ONCE) {
        close(fd);
    } else {
        *to = (struct handed){.fd = fd, .from = *from, .preamble = *preamble, .rest_len = rest_len};
        memcpy(to->rest, rest, rest_len);
    }
    atomic_store(&n_handed, n + 1);
    return 0;
}

static void setup(void)
{
    rig_init(&rig);
    rig.data = take;
}

static void teardown(void) { rig_stop(&rig); }

static size_t preamble_of(uint8_t session, enum data_first first, uint8_t *out)
{
    struct preamble preamble = {.version = PREAMBLE_VERSION,
                                .kind = PREAMBLE_DATA,
                                .peer_id = "n7",
                                .has_token = 1,
                                .first = first};

    memset(preamble.token, session, TOKEN_LEN);
    return preamble_pack(&preamble, out);
}

/* The n-th that was handed on, counted from 0. */
static const struct handed *wait_handed(unsigned n)
{
    RIG_WAIT(&rig, atomic_load(&n_handed) > n);
    return &handed[n % 64];
}

static int dial_data(uint8_t session)
{
    uint8_t first[PREAMBLE_MAX];
    int fd = dial_gate(&rig);

    cr_assert_geq(fd, 0);
    cr_assert(send_all(fd, first, preamble_of(session, DATA_FIRST_DIALLER, first)));
    return fd;
}

/* Both directions work, and the end is told. */
static void expect_alive(int ours, int theirs)
{
    uint8_t byte = 7;

    fcntl(ours, F_SETFL, fcntl(ours, F_GETFL) & ~O_NONBLOCK);
    cr_assert(send_all(ours, "ping", 4) && recv_all(theirs, (char[4]){0}, 4));
    cr_assert(send_all(theirs, "pong", 4) && recv_all(ours, (char[4]){0}, 4));
    close(theirs);
    cr_assert_eq(recv(ours, &byte, 1, 0), 0);
    close(ours);
}

Test(data, is_handed_on_with_the_bytes_behind_it_however_it_is_cut, .init = setup, .fini = teardown)
{
    uint8_t bytes[PREAMBLE_MAX + sizeof(BEHIND)], in[64];
    size_t len = preamble_of(1, DATA_FIRST_OTHER, bytes), all = len + sizeof(BEHIND);

    memcpy(bytes + len, BEHIND, sizeof(BEHIND));
    rig_start(&rig);
    for (size_t cut = 1; cut <= all; cut++) {
        const struct handed *to;
        int fd = dial_gate(&rig), on = 0;
        socklen_t on_len = sizeof(on);

        cr_assert(send_all(fd, bytes, cut));
        if (cut >= len) /* what is not there yet comes to the taker */
            wait_handed((unsigned)cut - 1);
        else
            nap();
        cr_assert(send_all(fd, bytes + cut, all - cut));
        to = wait_handed((unsigned)cut - 1);
        cr_assert_leq(to->rest_len, sizeof(BEHIND));
        cr_assert_eq(to->preamble.kind, PREAMBLE_DATA);
        cr_assert_eq(to->preamble.first, DATA_FIRST_OTHER);
        cr_assert_eq(to->preamble.token[TOKEN_LEN - 1], 1);
        cr_assert_str_eq(to->from.peer_id, "n7");
        cr_assert_str_eq(to->from.ip, "127.0.0.1");
        cr_assert_neq(fcntl(to->fd, F_GETFL) & O_NONBLOCK, 0);
        getsockopt(to->fd, IPPROTO_TCP, TCP_NODELAY, &on, &on_len);
        cr_assert_neq(on, 0);
        memcpy(in, to->rest, to->rest_len);
        fcntl(to->fd, F_SETFL, fcntl(to->fd, F_GETFL) & ~O_NONBLOCK);
        cr_assert(recv_all(to->fd, in + to->rest_len, sizeof(BEHIND) - to->rest_len));
        cr_assert_arr_eq(in, BEHIND, sizeof(BEHIND), "cut at %zu", cut);
        expect_alive(to->fd, fd);
    }
    RIG_WAIT(&rig, c.connections == 0 && c.sources == 0 && c.data_handed == all);
    cr_assert_eq(rig_count(&rig).closed_bad_first_bytes, 0);
    cr_assert_eq(rig_told_count(&rig, TOLD_ENDED), 0);
}

Test(data, is_refused_with_what_its_taker_says, .init = setup, .fini = teardown)
{
    struct preamble_reply said = {0};
    uint8_t reply[PREAMBLE_REPLY_MAX];
    size_t have = 0;
    int fd;

    rig_start(&rig);
    fd = dial_data(UNKNOWN);
    cr_assert(send_all(fd, BEHIND, sizeof(BEHIND))); /* its sender did not wait for the answer */
    for (ssize_t n; (n = recv(fd, reply + have, sizeof(reply) - have, 0)) > 0;)
        have += (size_t)n;
    cr_assert_eq(preamble_reply_parse(reply, have, &said), (int)have);
    cr_assert_eq(said.status, STATUS_UNAUTHENTICATED);
    cr_assert_eq(said.reason, MESHD__V1__REASON__REASON_TOKEN);
    cr_assert_str_eq(said.text, "no such session");
    close(fd);
    RIG_WAIT(&rig, c.connections == 0 && c.sources == 0 && c.data_refused == 1);
    cr_assert_eq(rig_count(&rig).data_handed, 0);
}

Test(data, counts_for_nothing_at_the_gate_once_it_is_handed_on, .init = setup, .fini = teardown)
{
    int fd[20];

    rig.limits.connections_per_source = 2;
    rig.limits.control_connections = 8;
    rig_start(&rig);
    for (unsigned i = 0; i < 20; i++) {
        fd[i] = dial_data(1);
        wait_handed(i);
        RIG_WAIT(&rig, c.connections == 0 && c.sources == 0);
    }
    cr_assert_eq(rig_count(&rig).closed_over_source, 0);
    for (unsigned i = 0; i < 20; i++)
        expect_alive(handed[i].fd, fd[i]);
}

/* Its number may be another's by then. */
Test(data, may_be_closed_by_its_taker_at_once, .init = setup, .fini = teardown)
{
    size_t before;
    int fd[8];

    rig_start(&rig);
    RIG_WAIT(&rig, atomic_load(&rig.rep.lanes) == 2);
    before = open_descriptors();
    for (unsigned round = 0; round < 50; round++) {
        for (unsigned i = 0; i < 8; i++)
            fd[i] = dial_data(i % 2 ? AT_ONCE : UNKNOWN);
        for (unsigned i = 0; i < 8; i++) {
            cr_assert(closed_by_gate(fd[i]));
            close(fd[i]);
        }
    }
    RIG_WAIT(&rig, c.connections == 0 && c.data_handed == 200 && c.data_refused == 200);
    cr_expect_eq(open_descriptors(), before);
}

Test(data, lives_on_when_the_gate_stops, .init = setup)
{
    int fd[8], begun;

    rig_start(&rig);
    for (unsigned i = 0; i < 8; i++) {
        fd[i] = dial_data(1);
        wait_handed(i);
    }
    begun = dial_gate(&rig);
    cr_assert(send_all(begun, "MSHD\1\3", 6));
    rig_stop(&rig);
    cr_assert(closed_by_gate(begun));
    close(begun);
    for (unsigned i = 0; i < 8; i++)
        expect_alive(handed[i].fd, fd[i]);
    cr_assert_eq(atomic_load(&n_handed), 8);
}
