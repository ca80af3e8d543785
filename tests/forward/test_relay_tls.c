/* relay: what only a leg in TLS can do, whose far end is a session of the test's own. */
#include <criterion/criterion.h>
#include <errno.h>
#include <linux/sockios.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>
#include "relay_rig.h"

static struct rig rig;
static struct joined joined;
static struct tls *far; /* the backend's end, on joined.backend */

static void setup(void) { rig_start(&rig, 600000, 300000); }
static void teardown(void)
{
    tls_free(far);
    joined_fini(&joined);
    rig_stop(&rig);
}

TestSuite(forward_relay_tls, .init = setup, .fini = teardown, .timeout = 60);

static void *shake_near(void *arg)
{
    joined.backend_tls = trust_shake("node", TLS_CONNECT, joined.backend_leg);
    return NULL;
}

/* The client's side is plaintext. Not begun yet. */
static void init(int buffer)
{
    pthread_t thread;

    joined_init(&joined, &rig, buffer);
    cr_assert_eq(pthread_create(&thread, NULL, shake_near, NULL), 0);
    far = trust_shake("bare", TLS_ACCEPT, joined.backend);
    pthread_join(thread, NULL);
    cr_assert(far && joined.backend_tls);
}

static void far_says(const void *data, size_t len)
{
    cr_assert_eq(tls_write(far, data, len), (ssize_t)len);
}

static ssize_t far_reads(void *data, size_t len)
{
    struct pollfd p = {.fd = joined.backend, .events = POLLIN};
    ssize_t n;

    while ((n = tls_read(far, data, len)) == -EAGAIN)
        if (poll(&p, 1, WAIT_MS) != 1)
            return -ETIMEDOUT;
    return n;
}

static void far_hears(const char *text)
{
    char got[64];
    size_t n = 0;

    while (n < strlen(text)) {
        ssize_t r = far_reads(got + n, strlen(text) - n);

        cr_assert_gt(r, 0);
        n += (size_t)r;
    }
    cr_assert_arr_eq(got, text, n);
}

/* As it is read: 0 or an errno. */
static int client_ends(size_t *out_n)
{
    static uint8_t data[65536];
    ssize_t n;

    *out_n = 0;
    do {
        struct pollfd p = {.fd = joined.client, .events = POLLIN};

        cr_assert_eq(poll(&p, 1, WAIT_MS), 1);
        n = recv(joined.client, data, sizeof(data), 0);
        if (n > 0)
            *out_n += (size_t)n;
    } while (n > 0);
    return n < 0 ? errno : 0;
}

static void expect_end(enum forward_end end)
{
    cr_assert(joined_ended(&joined));
    cr_expect_eq(joined.end, end, "%s", forward_ends[joined.end].word);
}

Test(forward_relay_tls, an_end_that_nobody_vouches_for_is_a_reset)
{
    size_t n;

    init(0);
    joined_begin(&joined);
    far_says("half of it", 10);
    shutdown(joined.backend, SHUT_WR); /* as an attacker could: no close_notify */
    cr_expect_eq(client_ends(&n), ECONNRESET);
    expect_end(FORWARD_BACKEND_RESET);
    cr_expect_eq(joined.down_bytes, 10);
}

Test(forward_relay_tls, an_end_that_nobody_vouches_for_is_one_also_when_only_the_other_way_was_left)
{
    size_t n;

    init(0);
    joined_begin(&joined);
    shutdown(joined.client, SHUT_WR);
    cr_assert_eq(far_reads(&(char){0}, 1), 0);
    shutdown(joined.backend, SHUT_WR);
    cr_expect_eq(client_ends(&n), ECONNRESET);
    expect_end(FORWARD_BACKEND_RESET);
}

Test(forward_relay_tls, garbage_between_records_is_a_reset_though_what_came_before_is_delivered)
{
    size_t n;

    init(0);
    joined_begin(&joined);
    far_says("whole", 5);
    cr_assert_eq(send(joined.backend, "garbage, not a record", 21, 0), 21);
    cr_expect_eq(client_ends(&n), ECONNRESET);
    cr_expect_eq(n, 5);
    expect_end(FORWARD_BACKEND_RESET);
}

Test(forward_relay_tls, an_end_is_passed_on_when_it_is_said_not_when_the_socket_ends)
{
    size_t n;

    init(0);
    joined_begin(&joined);
    far_says("all", 3);
    cr_assert_eq(tls_end(far), 0);
    cr_expect_eq(client_ends(&n), 0);
    cr_expect_eq(n, 3);
    cr_assert_eq(send(joined.client, "more", 4, 0), 4); /* the other way goes on */
    far_hears("more");
    shutdown(joined.client, SHUT_WR);
    cr_expect_eq(far_reads(&(char){0}, 1), 0);
    expect_end(FORWARD_DONE);
}

Test(forward_relay_tls, the_end_of_a_client_is_said_and_so_is_the_last_one)
{
    size_t n;

    init(0);
    joined_begin(&joined);
    cr_assert_eq(tls_end(far), 0);
    shutdown(joined.backend, SHUT_WR);
    cr_expect_eq(client_ends(&n), 0);
    cr_assert_eq(send(joined.client, "bye", 3, 0), 3);
    shutdown(joined.client, SHUT_WR);
    far_hears("bye");
    cr_expect_eq(far_reads(&(char){0}, 1), 0,
                 "close_notify comes although the close follows at once");
    expect_end(FORWARD_DONE);
}

Test(forward_relay_tls, a_reset_of_the_client_is_no_end_in_order)
{
    init(0);
    joined_begin(&joined);
    cr_assert_eq(send(joined.client, "half", 4, 0), 4);
    far_hears("half");
    reset(&joined.client);
    cr_expect_eq(far_reads(&(char){0}, 1), -ECONNRESET);
    expect_end(FORWARD_CLIENT_RESET);
}

/* What was decrypted already makes no event of the socket. */
Test(forward_relay_tls, bytes_inside_the_session_at_the_beginning_are_delivered)
{
    uint8_t first;
    char got[64];
    ssize_t n;
    struct pollfd p;

    init(0);
    far_says("0123456789", 10);
    p = (struct pollfd){.fd = joined.backend_leg, .events = POLLIN};
    cr_assert_eq(poll(&p, 1, WAIT_MS), 1);
    while ((n = tls_read(joined.backend_tls, &first, 1)) == -EAGAIN)
        cr_assert_eq(poll(&p, 1, WAIT_MS), 1);
    cr_assert_eq(n, 1);
    cr_assert(tls_pending(joined.backend_tls));
    joined_begin(&joined);
    cr_assert(readable(joined.client));
    cr_expect_eq(recv(joined.client, got, sizeof(got), 0), 9);
    cr_expect_arr_eq(got, "123456789", 9);
}

/* Many records, an end and a reset behind a client that does not read: all of it, then the end. */
Test(forward_relay_tls, an_end_that_came_before_a_reset_counts)
{
    static uint8_t data[50000];
    const int room = 1048576;
    size_t n, said = 0;
    int unsent;

    init(8192);
    setsockopt(joined.backend_leg, SOL_SOCKET, SO_RCVBUF, &room, sizeof(room));
    setsockopt(joined.backend, SOL_SOCKET, SO_SNDBUF, &room, sizeof(room));
    joined_begin(&joined);
    cr_assert_eq(send(joined.client, "not read", 8, 0), 8);
    cr_assert(readable(joined.backend));
    while (said < sizeof(data)) {
        ssize_t r = tls_write(far, data + said, sizeof(data) - said);

        if (r == -EAGAIN)
            cr_assert_eq(
                poll(&(struct pollfd){.fd = joined.backend, .events = POLLOUT}, 1, WAIT_MS), 1);
        else
            said += (size_t)r;
    }
    cr_assert_eq(tls_end(far), 0);
    shutdown(joined.backend, SHUT_WR);
    do
        cr_assert_eq(ioctl(joined.backend, SIOCOUTQ, &unsent), 0);
    while (unsent > 1);    /* the FIN counts as one, until it is acknowledged */
    close(joined.backend); /* with unread bytes: an RST, behind what loopback has delivered */
    joined.backend = -1;
    cr_expect_eq(client_ends(&n), 0);
    cr_expect_eq(n, sizeof(data));
    expect_end(FORWARD_BACKEND_RESET);
}

/* It holds what it must say, and its client, back; and costs nothing meanwhile. */
Test(forward_relay_tls, a_far_end_that_does_not_read_holds_the_client_back_and_gets_all_of_it)
{
    struct talk talk = {.seed = 1, .send = 64u << 20};
    static uint8_t got[65536];
    size_t n = 0;
    ssize_t r;

    init(8192);
    joined_begin(&joined);
    talk.fd = joined.client;
    cr_expect_lt(send_until_blocked(&talk, 300), 1u << 20);
    cr_expect_lt(turns_in(&rig, joined.client, 300), 30);
    shutdown(joined.client, SHUT_WR);
    while ((r = far_reads(got, sizeof(got))) > 0) {
        for (ssize_t i = 0; i < r; i++)
            cr_assert_eq(got[i], byte_at(1, n + (size_t)i));
        n += (size_t)r;
    }
    cr_expect_eq(r, 0);
    cr_expect_eq(n, talk.sent);
    cr_assert_eq(tls_end(far), 0);
    shutdown(joined.backend, SHUT_WR);
    expect_end(FORWARD_DONE);
}
