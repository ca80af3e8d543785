/* fuzz_tls - what the other side of a session may send. The first byte chooses our role (bit 0) and
 * what the rest is (bit 1): the other side's bytes as they are, or changes to those of a real one
 * on their way to us, each an offset (2 bytes) and a mask. Nobody gets in who does not hold a key,
 * whoever ends says why, and no byte is read that was not sent. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include "tls/support.h"

#define INPUT_MAX 16384u /* less than a socket buffer takes at once */
#define STEPS 64

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct tls_keeper *keeper;

static void check(int condition)
{
    if (!condition)
        abort();
}

static void start(void)
{
    struct issued *ca = issue_ca(NULL, "ca");
    struct tls_settings settings = node_settings("n1", ca, issue_node(ca, "n1"));

    keeper = keep(&settings);
}

static void pair(int fds[2])
{
    check(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds) == 0);
}

/* A session that ended has a reason, keeps it, and does nothing more. */
static void ended(struct tls *tls, int r)
{
    char byte;

    check(r < 0 && r != -EAGAIN);
    check(tls_failure(tls) != TLS_OK && tls_failure(tls) < N_TLS_FAILURES);
    check(tls_why(tls)[0] != '\0' && strlen(tls_why(tls)) < TLS_WHY);
    check(tls_handshake(tls) == r && tls_read(tls, &byte, 1) == r);
    check(tls_write(tls, "x", 1) == r && tls_end(tls) == r);
}

static void feed(enum tls_role role, const uint8_t *data, size_t size)
{
    struct tls *tls;
    int fds[2], r;

    pair(fds);
    check(tls_new(keeper, role, fds[0], "", false, &tls) == 0);
    if (role == TLS_CONNECT) /* it speaks first */
        check(tls_handshake(tls) == -EAGAIN && tls_wants(tls) == TLS_READABLE);
    check(send(fds[1], data, size, 0) == (ssize_t)size);
    shutdown(fds[1], SHUT_WR);
    r = tls_handshake(tls);
    check(r != 0);
    ended(tls, r);
    tls_free(tls);
    close(fds[0]);
    close(fds[1]);
}

/* ---- a real other side, and somebody between ---- */

struct between {
    int ours, theirs;
    const uint8_t *changes;
    size_t n_changes, passed; /* bytes towards us so far */
};

static void pass(struct between *between)
{
    static uint8_t bytes[65536];
    ssize_t n = recv(between->theirs, bytes, sizeof(bytes), 0);

    for (size_t i = 0; n > 0 && i < between->n_changes; i++) {
        const uint8_t *change = between->changes + 3 * i;
        size_t at = (size_t)(change[0] << 8 | change[1]);

        if (at >= between->passed && at < between->passed + (size_t)n)
            bytes[at - between->passed] ^= change[2];
    }
    if (n > 0) {
        check(send(between->ours, bytes, (size_t)n, 0) == n);
        between->passed += (size_t)n;
    } else if (n == 0) {
        shutdown(between->ours, SHUT_WR);
    }
    n = recv(between->ours, bytes, sizeof(bytes), 0);
    if (n > 0)
        check(send(between->theirs, bytes, (size_t)n, 0) == n);
    else if (n == 0)
        shutdown(between->theirs, SHUT_WR);
}

/* Both as far as they get. */
static void meet(struct tls *ours, struct tls *theirs, int their_fd, struct between *between)
{
    int of_ours = -EAGAIN, of_theirs = -EAGAIN;
    char got[16];
    ssize_t n;

    for (int i = 0; i < STEPS && of_ours == -EAGAIN; i++) {
        if (of_theirs == -EAGAIN)
            of_theirs = tls_handshake(theirs);
        if (of_theirs == 0 && tls_write(theirs, "hello", 5) == 5)
            of_theirs = 1;
        if (of_theirs < 0 && of_theirs != -EAGAIN)
            shutdown(their_fd, SHUT_WR);
        pass(between);
        of_ours = tls_handshake(ours);
    }
    if (of_ours != 0) {
        if (of_ours != -EAGAIN) /* else a length was changed, and more is waited for */
            ended(ours, of_ours);
        return;
    }
    check(tls_names(tls_peer(ours), "n1"));
    for (int i = 0; i < 4; i++) {
        if (of_theirs == -EAGAIN)
            of_theirs = tls_handshake(theirs);
        if (of_theirs == 0 && tls_write(theirs, "hello", 5) == 5)
            of_theirs = 1;
        pass(between);
    }
    n = tls_read(ours, got, sizeof(got));
    check(n < 0 || (n == 5 && memcmp(got, "hello", 5) == 0));
    check(between->n_changes > 0 || n == 5);
}

static void change(enum tls_role role, const uint8_t *data, size_t size)
{
    struct tls *ours, *theirs;
    int left[2], right[2];
    struct between between = {.changes = data, .n_changes = size / 3};

    pair(left);
    pair(right);
    between.ours = left[1];
    between.theirs = right[1];
    check(tls_new(keeper, role, left[0], "", false, &ours) == 0);
    check(tls_new(keeper, role == TLS_ACCEPT ? TLS_CONNECT : TLS_ACCEPT, right[0], "", false,
                  &theirs) == 0);
    meet(ours, theirs, right[0], &between);
    tls_free(ours);
    tls_free(theirs);
    for (int i = 0; i < 2; i++) {
        close(left[i]);
        close(right[i]);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    enum tls_role role;

    if (size < 1 || size > INPUT_MAX)
        return 0;
    if (!keeper)
        start();
    role = data[0] & 1 ? TLS_CONNECT : TLS_ACCEPT;
    if (data[0] & 2)
        change(role, data + 1, size - 1);
    else
        feed(role, data + 1, size - 1);
    return 0;
}
