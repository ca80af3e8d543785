/* Thousands of hostile connections, after which the gate is what it was and answers as before. */
#include <criterion/criterion.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "support.h"

#define AT_ONCE 100

static struct rig rig;

static void fill_random(uint8_t *out, size_t len, unsigned *seed)
{
    for (size_t i = 0; i < len; i++)
        out[i] = (uint8_t)(rand_r(seed) >> 7);
}

static size_t good_start(uint8_t *out, unsigned *seed)
{
    struct preamble preamble = {.version = PREAMBLE_VERSION, .kind = PREAMBLE_RPC, .peer_id = "x"};

    if (rand_r(seed) % 2)
        return preamble_pack(&preamble, out);
    sp_hello_pack(SP_REQ0, out);
    return SP_HELLO_LEN;
}

/* What one of them says. */
static size_t hostile_bytes(uint8_t *out, unsigned *seed)
{
    size_t len = 0;

    switch (rand_r(seed) % 6) {
    case 0: /* silence */
        return 0;
    case 1: /* anything */
        len = (size_t)rand_r(seed) % 300;
        fill_random(out, len, seed);
        return len;
    case 2: /* a cut handshake */
        len = good_start(out, seed);
        return (size_t)rand_r(seed) % len;
    case 3: /* a handshake with a byte turned */
        len = good_start(out, seed);
        out[(size_t)rand_r(seed) % len] ^= (uint8_t)(1 << rand_r(seed) % 8);
        return len;
    case 4: /* a huge length */
        len = good_start(out, seed);
        fill_random(out + len, 40, seed);
        return len + 40;
    default: /* messages, some of them bad, the last cut */
        len = good_start(out, seed);
        for (int i = 0; i < 3; i++) {
            size_t n = (size_t)rand_r(seed) % 60;

            sp_head_pack(SP_TCP, n, out + len);
            fill_random(out + len + 8, n, seed);
            if (rand_r(seed) % 2)
                out[len + 8] |= 0x80;
            len += 8 + n;
        }
        return len - (size_t)rand_r(seed) % 8;
    }
}

static void one_round(unsigned *seed)
{
    uint8_t bytes[1024];
    int fd[AT_ONCE];

    for (int i = 0; i < AT_ONCE; i++) {
        size_t len = hostile_bytes(bytes, seed);

        fd[i] = rand_r(seed) % 8 ? dial_gate(&rig) : dial_unix(rig.unix_path);
        cr_assert_geq(fd[i], 0);
        send(fd[i], bytes, len, MSG_NOSIGNAL);
    }
    for (int i = 0; i < AT_ONCE; i++) {
        if (rand_r(seed) % 2)
            reset_and_close(fd[i]);
        else
            close(fd[i]);
    }
}

static void still_answers(void)
{
    uint8_t out[64], in[64];
    size_t n = make_request(out, 9, 40);
    int fd = req_client(&rig);

    cr_assert_geq(fd, 0);
    cr_assert(send_message(fd, SP_TCP, out, n));
    cr_assert_eq(recv_message(fd, SP_TCP, in, sizeof(in)), (ssize_t)n);
    cr_assert_arr_eq(in, out, n);
    close(fd);
}

#if defined(__SANITIZE_ADDRESS__)
#define RSS_COUNTS 0 /* freed memory stays in quarantine */
#else
#define RSS_COUNTS 1
#endif

Test(hostile, connections_leave_memory_descriptors_and_lanes_as_they_were)
{
    long rounds = env_number("MESHD_TEST_HOSTILE", 3000) / AT_ONCE;
    unsigned seed = test_seed();
    size_t descriptors = 0, memory = 0;

    rig_init(&rig);
    rig.first_bytes_ms = 1000; /* in which whoever means well has said who it is */
    rig_start(&rig);
    for (long i = 0; i < rounds; i++) {
        one_round(&seed);
        if (i % 10 == 0)
            still_answers();
        if (i != rounds / 5)
            continue;
        RIG_WAIT(&rig, c.connections == 0);
        descriptors = open_descriptors();
        memory = resident_bytes();
    }
    RIG_WAIT(&rig, c.connections == 0 && c.sources == 0 && c.requests_waiting == 0);
    RIG_WAIT(&rig, c.requests == c.replies + c.replies_dropped);
    still_answers();
    RIG_WAIT(&rig, c.connections == 0);
    RIG_WAIT(&rig, open_descriptors() <= descriptors); /* nng closes its own a moment later */
    cr_expect_lt(rig_count(&rig).buffer_bytes, 1u << 20);
    cr_expect_eq(rig_count(&rig).lanes_lost, 0);
    cr_expect_eq(atomic_load(&rig.rep.lanes_seen), 2);
    if (RSS_COUNTS)
        cr_expect_leq(resident_bytes(), memory + (2u << 20));
    fprintf(
        stderr,
        "accepted=%lu bad=%lu late=%lu message=%lu big=%lu; RSS %zu -> %zu KiB; %zu descriptors\n",
        rig_count(&rig).accepted, rig_count(&rig).closed_bad_first_bytes,
        rig_count(&rig).closed_first_bytes_late, rig_count(&rig).closed_bad_message,
        rig_count(&rig).closed_too_big, memory / 1024, resident_bytes() / 1024, descriptors);
    rig_stop(&rig);
}
