/* Each allocation in turn fails, OpenSSL's too: a clean error or, where only a ticket is lost,
 * nothing at all; and no leak, which a sanitizer would tell.
 *
 * Without Criterion, whose libraries have OpenSSL allocate before anybody can say how. */
#include <errno.h>
#include <openssl/crypto.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include "tls/support.h"

#define EACH 60 /* of the first so many allocations each fails, then every STEP-th */
#define STEP 41

void *__real_calloc(size_t n, size_t size);
void *__real_realloc(void *p, size_t size);
char *__real_strdup(const char *text);
void *__wrap_calloc(size_t n, size_t size);
void *__wrap_realloc(void *p, size_t size);
char *__wrap_strdup(const char *text);

static long until_failure = -1; /* negative: none fails */
static bool fails(void) { return until_failure >= 0 && until_failure-- == 0; }

void *__wrap_calloc(size_t n, size_t size) { return fails() ? NULL : __real_calloc(n, size); }
void *__wrap_realloc(void *p, size_t size) { return fails() ? NULL : __real_realloc(p, size); }
char *__wrap_strdup(const char *text) { return fails() ? NULL : __real_strdup(text); }

/* OpenSSL's own. */
static void *take(size_t size, const char *file, int line) { return fails() ? NULL : malloc(size); }
static void *take_again(void *p, size_t size, const char *file, int line)
{
    return fails() ? NULL : __real_realloc(p, size);
}
static void give(void *p, const char *file, int line) { free(p); }

static void must(bool ok, const char *what, long n)
{
    if (ok)
        return;
    fprintf(stderr, "not ok: %s, allocation %ld\n", what, n);
    abort();
}

static long next(long n) { return n + (n < EACH ? 1 : STEP); }

static long keepers(const struct tls_settings *settings)
{
    bool failed = true;
    long n = 0;

    for (; failed; n = next(n)) {
        struct tls_keeper *keeper = NULL;
        char why[TLS_WHY] = "";
        int r;

        until_failure = n;
        r = tls_keeper_new(settings, why, &keeper);
        failed = until_failure < 0;
        until_failure = -1;
        must(r == 0 || (why[0] && !keeper), "a keeper that failed says why", n);
        tls_keeper_free(keeper);
    }
    return n;
}

/* A keeper whose reload fails still has what it had. */
static void reloads(struct tls_keeper *keeper, const struct issued *ca)
{
    bool failed = true;

    for (long n = 0; failed; n = next(n)) {
        struct tls_material before, after;
        char why[TLS_WHY] = "";
        int r;

        node_settings("n1", ca, issue_node(ca, "n1"));
        tls_keeper_material(keeper, &before);
        until_failure = n;
        r = tls_keeper_reload(keeper, why);
        failed = until_failure < 0;
        until_failure = -1;
        tls_keeper_material(keeper, &after);
        must(r == 0 ? after.loads == before.loads + 1
                    : memcmp(&before, &after, sizeof(before)) == 0,
             "a reload changes all or nothing", n);
    }
}

static void session(struct tls_keeper *keeper, long n)
{
    struct tls *accept = NULL, *dial = NULL;
    enum tls_failure failure;
    int fds[2];

    must(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fds) == 0, "socketpair", n);
    until_failure = n;
    if (tls_new(keeper, TLS_ACCEPT, fds[0], "", true, &accept) == 0 &&
        tls_new(keeper, TLS_CONNECT, fds[1], "n1", true, &dial) == 0) {
        char byte;

        if (shake_both(accept, fds[0], dial, fds[1])) {
            tls_check_again(accept, &failure);
            tls_read(dial, &byte, 1); /* the ticket */
        } else {
            must(tls_why(accept)[0] || tls_why(dial)[0], "a session that failed says why", n);
        }
    }
    tls_free(accept);
    tls_free(dial);
    close(fds[0]);
    close(fds[1]);
}

int main(void)
{
    struct issued *ca, *between;
    struct tls_settings settings;
    struct tls_keeper *keeper;
    long n_keepers, n = 0;
    bool failed = true;

    must(CRYPTO_set_mem_functions(take, take_again, give) == 1, "OpenSSL has not allocated yet", 0);
    ca = issue_ca(NULL, "ca");
    between = issue_ca(ca, "between");
    settings = node_settings("n1", ca, issue_node(between, "n1"));
    settings.self = "n1";
    keeper = keep(&settings); /* what OpenSSL makes once is there now */
    session(keeper, -1);
    n_keepers = keepers(&settings);
    reloads(keeper, between);
    for (; failed; n = next(n)) {
        session(keeper, n);
        failed = until_failure < 0;
        until_failure = -1;
    }
    tls_keeper_free(keeper);
    printf("ok: %ld allocations of a keeper, %ld of a session\n", n_keepers, n);
    return 0;
}
