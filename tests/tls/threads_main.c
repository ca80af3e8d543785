/* Sessions of one keeper on several threads, resumed and not, while another reads its files anew
 * and looks at old sessions again. For ThreadSanitizer, which Criterion cannot run under. */
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>
#include "tls/support.h"

#define THREADS 4
#define RELOADS 15

static struct tls_keeper *keeper;
static atomic_uint n_resumed, n_sessions;
static atomic_bool over;

static void must(bool ok, const char *what)
{
    if (ok)
        return;
    fprintf(stderr, "not ok: %s\n", what);
    abort();
}

static void *sessions(void *arg)
{
    while (!over) {
        struct tls *accept, *dial;
        enum tls_failure failure;
        char byte;
        int fds[2];

        must(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fds) == 0, "socketpair");
        must(tls_new(keeper, TLS_ACCEPT, fds[0], "", true, &accept) == 0, "tls_new");
        must(tls_new(keeper, TLS_CONNECT, fds[1], "n1", true, &dial) == 0, "tls_new");
        must(shake_both(accept, fds[0], dial, fds[1]), "a handshake while files change");
        must(tls_write(accept, "x", 1) == 1 && tls_read(dial, &byte, 1) == 1, "a byte");
        must(tls_check_again(accept, &failure) == 0, "looked at again");
        n_resumed += tls_peer(dial)->resumed;
        n_sessions++;
        tls_free(accept);
        tls_free(dial);
        close(fds[0]);
        close(fds[1]);
    }
    return NULL;
}

int main(void)
{
    struct issued *ca = issue_ca(NULL, "ca"), *between = issue_ca(ca, "between");
    struct tls_settings settings = node_settings("n1", ca, issue_node(between, "n1"));
    pthread_t threads[THREADS];

    alarm(100); /* what never happens is not waited for */
    keeper = keep(&settings);
    for (int i = 0; i < THREADS; i++)
        must(pthread_create(&threads[i], NULL, sessions, NULL) == 0, "pthread_create");
    /* Between two reloads there are sessions, and after the last some are resumed. */
    for (int i = 0; i < RELOADS; i++) {
        char why[TLS_WHY];
        unsigned before = n_sessions;

        node_settings("n1", ca, issue_node(between, "n1"));
        must(tls_keeper_reload(keeper, why) == 0, why);
        while (n_sessions < before + 2 * THREADS)
            usleep(1000);
    }
    while (n_resumed == 0)
        usleep(1000);
    over = true;
    for (int i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    tls_keeper_free(keeper);
    printf("ok: %u sessions, %u resumed, %d reloads\n", n_sessions, n_resumed, RELOADS);
    return 0;
}
