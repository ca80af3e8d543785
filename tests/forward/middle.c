#include "forward/middle.h"

#include <netinet/tcp.h>
#include <sys/socket.h>
#include <unistd.h>
#include "forward/must.h"
#include "forward/net.h"

int middle_add(struct middle *middle, int fd)
{
    struct middle_pair pair = {.fds = {fd, -1}};
    struct sockaddr_in at;
    int listener = net_listen_at(&at), other;

    pair.fds[1] = net_connect(ntohs(at.sin_port));
    other = net_accept(listener);
    close(listener);
    if (middle->cut)
        for (int side = 0; side < 2; side++)
            setsockopt(pair.fds[side], IPPROTO_TCP, TCP_NODELAY, &(int){1}, sizeof(int));
    if (middle->n == middle->cap) {
        middle->cap = middle->cap ? middle->cap * 2 : 64;
        middle->pairs = realloc(middle->pairs, middle->cap * sizeof pair);
        MUST(middle->pairs);
    }
    middle->pairs[middle->n++] = pair;
    return other;
}

void middle_poll(const struct middle *middle, struct pollfd *polls)
{
    for (size_t i = 0; i < middle->n; i++)
        for (int side = 0; side < 2; side++) {
            const struct middle_pair *pair = &middle->pairs[i];
            bool deaf = pair->forgotten || pair->ended[side];

            polls[2 * i + (size_t)side] =
                (struct pollfd){.fd = deaf ? -1 : pair->fds[side], .events = POLLIN};
        }
}

static void close_pair(struct middle_pair *pair, bool broken)
{
    for (int side = 0; side < 2; side++) {
        if (broken)
            net_reset(pair->fds[side]);
        else
            close(pair->fds[side]);
        pair->fds[side] = -1;
    }
}

/* False: the pair is closed. */
static bool pass(struct middle_pair *pair, int side, size_t cut)
{
    char bytes[16384];
    ssize_t n = recv(pair->fds[side], bytes, cut ? cut : sizeof bytes, 0);

    if (n < 0 || (n > 0 && send(pair->fds[!side], bytes, (size_t)n, MSG_NOSIGNAL) != n)) {
        close_pair(pair, true);
        return false;
    }
    if (n > 0)
        return true;
    pair->ended[side] = true;
    shutdown(pair->fds[!side], SHUT_WR);
    if (!pair->ended[!side])
        return true;
    close_pair(pair, false);
    return false;
}

static void drop_closed(struct middle *middle)
{
    size_t n = 0;

    for (size_t i = 0; i < middle->n; i++)
        if (middle->pairs[i].fds[0] >= 0)
            middle->pairs[n++] = middle->pairs[i];
    middle->n = n;
}

void middle_pass(struct middle *middle, const struct pollfd *polls, size_t n_pairs)
{
    for (size_t i = 0; i < n_pairs; i++) {
        struct middle_pair *pair = &middle->pairs[i];

        if (polls[2 * i].revents && !pass(pair, 0, middle->cut))
            continue;
        if (polls[2 * i + 1].revents)
            pass(pair, 1, middle->cut);
    }
    drop_closed(middle);
}

void middle_forget(struct middle *middle)
{
    for (size_t i = 0; i < middle->n; i++)
        middle->pairs[i].forgotten = true;
}

void middle_break(struct middle *middle)
{
    for (size_t i = 0; i < middle->n; i++)
        if (!middle->pairs[i].forgotten)
            close_pair(&middle->pairs[i], true);
    drop_closed(middle);
}

void middle_end(struct middle *middle)
{
    for (size_t i = 0; i < middle->n; i++)
        for (int side = 0; side < 2; side++)
            shutdown(middle->pairs[i].fds[side], SHUT_WR);
    middle_forget(middle);
}

void middle_fini(struct middle *middle)
{
    for (size_t i = 0; i < middle->n; i++)
        close_pair(&middle->pairs[i], true);
    free(middle->pairs);
    *middle = (struct middle){0};
}
