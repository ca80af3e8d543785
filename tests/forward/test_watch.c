/* The kernel watches no more sockets: those that it would not watch end, and nothing else does. */
#include <criterion/criterion.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>
#include "forward/must.h"
#include "forward/rig.h"

static struct rig rig;
static atomic_int fails_after = -1; /* so many more are watched; -1: all */
static atomic_int failed;
static atomic_int ports_fail; /* so many attempts to watch a listening socket */

int __real_epoll_ctl(int epoll, int op, int fd, struct epoll_event *event);
int __wrap_epoll_ctl(int epoll, int op, int fd, struct epoll_event *event);

static bool is_port(int fd)
{
    int listens = 0;
    socklen_t len = sizeof listens;

    return getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listens, &len) == 0 && listens;
}

int __wrap_epoll_ctl(int epoll, int op, int fd, struct epoll_event *event)
{
    if (op == EPOLL_CTL_ADD && atomic_load(&ports_fail) > 0 && is_port(fd)) {
        atomic_fetch_sub(&ports_fail, 1);
        errno = ENOSPC;
        return -1;
    }
    if (op != EPOLL_CTL_DEL && atomic_load(&fails_after) >= 0 &&
        atomic_fetch_sub(&fails_after, 1) == 0) {
        atomic_fetch_add(&failed, 1);
        errno = op == EPOLL_CTL_ADD ? ENOSPC : ENOMEM;
        return -1;
    }
    return __real_epoll_ctl(epoll, op, fd, event);
}

static void setup(void)
{
    rig_init(&rig);
    rig.settings.workers = 1;
    rig.settings.open_ms = 300;
    rig.settings.dial_ms = 300;
    rig.limits.data_warm_per_link = 0; /* else how many are watched depends on the moment */
    rig_start(&rig);
    rig_link_up(&rig);
}

TestSuite(watch, .init = setup, .timeout = 100);

static const char request[] = "GET / HTTP/1.1\r\nHost: web\r\n\r\n";

/* Answers each request with "hello" and the end. */
static void *serve(void *arg)
{
    int fd;

    while ((fd = accept4(*(int *)arg, NULL, NULL, SOCK_CLOEXEC)) >= 0) {
        char got[sizeof request - 1];

        if (recv(fd, got, sizeof got, MSG_WAITALL) == sizeof got)
            send(fd, "hello", 5, MSG_NOSIGNAL);
        close(fd);
    }
    return NULL;
}

/* What is read, and whether it ended in order. */
static bool read_answer(int fd, char *got, size_t size)
{
    size_t n = 0;
    ssize_t r;

    while ((r = recv(fd, got + n, size - 1 - n, 0)) > 0)
        n += (size_t)r;
    got[n] = '\0';
    MUST(r == 0 || errno == ECONNRESET);
    return r == 0;
}

static void each_fails(enum side from, enum side owner)
{
    int listener, n = 0, succeeded = 0;
    char addr[32], got[2048];
    pthread_t server;

    listener = net_listen(addr);
    MUST(pthread_create(&server, NULL, serve, &listener) == 0);
    rig_offer(&rig, owner, "web", addr);
    do {
        int client = net_connect(rig.sides[from].port);

        atomic_store(&failed, 0);
        atomic_store(&fails_after, n++);
        net_send(client, request, strlen(request));
        if (read_answer(client, got, sizeof got)) {
            cr_assert(strcmp(got, "hello") == 0 || strncmp(got, "HTTP/1.1 50", 11) == 0 ||
                          got[0] == '\0',
                      "%s", got);
            succeeded += strcmp(got, "hello") == 0;
        }
        close(client);
        for (int i = 0; i < 2; i++) {
            RIG_WAIT(&rig, i, clients, 0);
            RIG_WAIT(&rig, i, served, 0);
        }
        atomic_store(&fails_after, -1);
    } while ((atomic_load(&failed) || !succeeded) && n < 100); /* one may have been too slow */
    cr_assert_lt(n, 100);
    cr_assert_gt(n, 2);
    cr_assert_gt(succeeded, 0);
    shutdown(listener, SHUT_RDWR);
    pthread_join(server, NULL);
    close(listener);
    rig_end(&rig);
}

Test(watch, a_client_of_a_local_backend_whose_socket_is_not_watched_is_told)
{
    each_fails(DIALLER, DIALLER);
}

Test(watch, a_client_of_the_dialler_any_of_whose_sockets_is_not_watched_is_told)
{
    each_fails(DIALLER, LISTENER);
}

Test(watch, a_client_of_the_listener_any_of_whose_sockets_is_not_watched_is_told)
{
    each_fails(LISTENER, DIALLER);
}

static bool no_port_fails(void *arg) { return atomic_load(&ports_fail) == 0; }

static void setup_deaf_port(void)
{
    atomic_store(&ports_fail, 5);
    setup();
}

Test(port, that_is_not_watched_at_first_takes_clients_all_the_same, .init = setup_deaf_port,
     .timeout = 100)
{
    wait_until(no_port_fails, NULL);
    each_fails(DIALLER, DIALLER);
}
