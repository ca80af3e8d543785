/* forward_backend - what is behind the proxies in bench_forward.py: a small HTTP server that costs
 * as little as the kernel lets it. Files of one folder, keep-alive, one thread, sendfile(2).
 *
 * usage: forward_backend FOLDER IP   prints its port, serves until it is killed
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>
#include "bench_util.h"

#define HEAD_ROOM 2048u
#define EVENTS 64

static const char *const names[] = {"small", "big"};
#define N_FILES (sizeof names / sizeof names[0])

static struct file {
    int fd;
    off_t size;
    char head[128];
    size_t head_len;
} files[N_FILES];

struct conn {
    int fd;
    bool close, writing;     /* writing: the loop was asked to say when there is room */
    const struct file *file; /* being sent, from `sent` on; NULL: a request is awaited */
    off_t sent;
    char head[HEAD_ROOM];
    size_t have;
};

static int loop;

static void open_files(const char *folder)
{
    struct stat st;
    char path[512];

    for (size_t i = 0; i < N_FILES; i++) {
        struct file *f = &files[i];

        snprintf(path, sizeof path, "%s/%s", folder, names[i]);
        f->fd = open(path, O_RDONLY | O_CLOEXEC);
        if (f->fd < 0 || fstat(f->fd, &st) < 0)
            die("%s: %s", path, strerror(errno));
        f->size = st.st_size;
        f->head_len =
            (size_t)snprintf(f->head, sizeof f->head,
                             "HTTP/1.1 200 OK\r\nContent-Length: %lld\r\n\r\n", (long long)f->size);
    }
}

static void watch(struct conn *c, int op, bool writing)
{
    struct epoll_event event = {.events = writing ? EPOLLOUT : EPOLLIN, .data.ptr = c};

    c->writing = writing;
    if (epoll_ctl(loop, op, c->fd, &event) < 0)
        die("epoll_ctl: %s", strerror(errno));
}

/* False: the connection is over. */
static bool begin_answer(struct conn *c, size_t head_len)
{
    char *path = c->head + strlen("GET /");

    c->head[head_len - 1] = '\0';
    if (memcmp(c->head, "GET /", strlen("GET /")) != 0)
        return false;
    for (size_t i = 0; i < N_FILES && !c->file; i++) {
        if (strncmp(path, names[i], strlen(names[i])) == 0 && path[strlen(names[i])] == ' ')
            c->file = &files[i];
    }
    if (!c->file)
        return false;
    c->close = strcasestr(c->head, "\r\nConnection: close") != NULL;
    c->sent = 0;
    memmove(c->head, c->head + head_len, c->have - head_len);
    c->have -= head_len;
    return send(c->fd, c->file->head, c->file->head_len, MSG_NOSIGNAL | MSG_MORE) ==
           (ssize_t)c->file->head_len;
}

static bool send_body(struct conn *c)
{
    while (c->sent < c->file->size) {
        ssize_t n = sendfile(c->fd, c->file->fd, &c->sent, (size_t)(c->file->size - c->sent));

        if (n < 0 && errno == EAGAIN) {
            if (!c->writing)
                watch(c, EPOLL_CTL_MOD, true);
            return true;
        }
        if (n <= 0)
            return false;
    }
    c->file = NULL;
    if (c->writing)
        watch(c, EPOLL_CTL_MOD, false);
    return !c->close;
}

static bool go_on(struct conn *c)
{
    char *end;
    ssize_t n;

    if (c->file)
        return send_body(c);
    n = recv(c->fd, c->head + c->have, HEAD_ROOM - c->have, 0);
    if (n < 0 && errno == EAGAIN)
        return true;
    if (n <= 0)
        return false;
    c->have += (size_t)n;
    end = memmem(c->head, c->have, "\r\n\r\n", 4);
    if (!end)
        return c->have < HEAD_ROOM;
    return begin_answer(c, (size_t)(end + 4 - c->head)) && send_body(c);
}

static void accept_all(int listener)
{
    int fd, on = 1;

    while ((fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0) {
        struct conn *c = calloc(1, sizeof *c);

        if (!c)
            die("no memory");
        c->fd = fd;
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
        watch(c, EPOLL_CTL_ADD, false);
    }
}

static int listen_at(const char *ip)
{
    struct sockaddr_in addr = {.sin_family = AF_INET};
    socklen_t len = sizeof addr;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

    if (inet_pton(AF_INET, ip, &addr.sin_addr) != 1 || fd < 0 ||
        bind(fd, (struct sockaddr *)&addr, sizeof addr) < 0 || listen(fd, 4096) < 0 ||
        getsockname(fd, (struct sockaddr *)&addr, &len) < 0)
        die("%s: %s", ip, strerror(errno));
    printf("%u\n", ntohs(addr.sin_port));
    fflush(stdout);
    return fd;
}

int main(int argc, char **argv)
{
    struct epoll_event events[EVENTS] = {{.events = EPOLLIN, .data.ptr = NULL}};
    int listener, n;

    if (argc != 3)
        die("usage: forward_backend FOLDER IP");
    open_files(argv[1]);
    loop = epoll_create1(EPOLL_CLOEXEC);
    listener = listen_at(argv[2]);
    if (loop < 0 || epoll_ctl(loop, EPOLL_CTL_ADD, listener, &events[0]) < 0)
        die("epoll: %s", strerror(errno));
    for (;;) {
        n = epoll_wait(loop, events, EVENTS, -1);
        for (int i = 0; i < n; i++) {
            struct conn *c = events[i].data.ptr;

            if (!c) {
                accept_all(listener);
            } else if (!go_on(c)) {
                close(c->fd);
                free(c);
            }
        }
    }
}
