/* pipes - see pipes.h. Pipes that nobody needed for a while are closed by an alarm. */
#include "forward/pipes.h"

#include <fcntl.h>
#include <unistd.h>

/* Two descriptors each, and pages of a budget that all pipes of a user share. */
#define PIPES_MAX 64u
#define PIPE_BYTES 1048576 /* asked for; the kernel may allow less (pipe-user-pages-soft) */
#define LEAST_BYTES 65536  /* with less, a copy is cheaper */
#define UNUSED_MS 10000u
#define REFUSED_MS 1000u /* not asked again for so long */

struct pipes {
    struct worker *worker;
    struct ring idle; /* the one used last is the last */
    struct alarm alarm;
    unsigned n;
    uint64_t refused_ms; /* until then */
};

static void pipe_close(struct pipes *pipes, struct pipe *pipe)
{
    ring_drop(&pipe->ring);
    close(pipe->in);
    close(pipe->out);
    free(pipe);
    pipes->n--;
    COUNT(pipes->worker, pipes, -1);
}

static void close_unused(struct alarm *alarm)
{
    struct pipes *pipes = CONTAINER_OF(alarm, struct pipes, alarm);
    uint64_t now = worker_now(pipes->worker);

    while (!ring_empty(&pipes->idle)) {
        struct pipe *pipe = CONTAINER_OF(pipes->idle.next, struct pipe, ring);

        if (pipe->given_ms + UNUSED_MS > now) {
            alarm_set(pipes->worker, alarm, pipe->given_ms + UNUSED_MS - now);
            return;
        }
        pipe_close(pipes, pipe);
    }
}

static struct pipes *pool(struct worker *worker)
{
    struct pipes *pipes = worker->pipes;

    if (pipes)
        return pipes;
    pipes = calloc(1, sizeof(*pipes));
    if (!pipes)
        return NULL;
    pipes->worker = worker;
    ring_init(&pipes->idle);
    alarm_init(&pipes->alarm, close_unused);
    worker->pipes = pipes;
    return pipes;
}

static struct pipe *pipe_open(struct pipes *pipes)
{
    struct pipe *pipe = calloc(1, sizeof(*pipe));
    int fds[2], size;

    if (!pipe || pipe2(fds, O_CLOEXEC | O_NONBLOCK) < 0) {
        free(pipe);
        return NULL;
    }
    /* Above the user's budget of pages it keeps its 64 KiB, or is born with a page or two. */
    size = fcntl(fds[1], F_SETPIPE_SZ, PIPE_BYTES);
    if (size < 0)
        size = fcntl(fds[1], F_GETPIPE_SZ);
    if (size < LEAST_BYTES) {
        close(fds[0]);
        close(fds[1]);
        free(pipe);
        return NULL;
    }
    ring_init(&pipe->ring);
    pipe->in = fds[1];
    pipe->out = fds[0];
    pipe->size = (size_t)size;
    pipes->n++;
    COUNT(pipes->worker, pipes, 1);
    return pipe;
}

struct pipe *pipes_take(struct worker *worker)
{
    struct pipes *pipes = pool(worker);
    struct pipe *pipe;

    if (!pipes)
        return NULL;
    if (!ring_empty(&pipes->idle)) {
        pipe = CONTAINER_OF(pipes->idle.prev, struct pipe, ring);
        ring_drop(&pipe->ring);
        return pipe;
    }
    if (pipes->n >= PIPES_MAX || worker_now(worker) < pipes->refused_ms)
        return NULL;
    pipe = pipe_open(pipes);
    if (!pipe)
        pipes->refused_ms = worker_now(worker) + REFUSED_MS;
    return pipe;
}

void pipes_give(struct worker *worker, struct pipe *pipe)
{
    struct pipes *pipes = worker->pipes;

    if (!pipe)
        return;
    if (pipe->n > 0) {
        pipe_close(pipes, pipe);
        return;
    }
    pipe->given_ms = worker_now(worker);
    ring_push(&pipes->idle, &pipe->ring);
    if (!alarm_is_set(&pipes->alarm))
        alarm_set(worker, &pipes->alarm, UNUSED_MS);
}

void pipes_fini(struct worker *worker)
{
    struct pipes *pipes = TAKE(&worker->pipes);

    if (!pipes)
        return;
    alarm_clear(worker, &pipes->alarm);
    while (!ring_empty(&pipes->idle))
        pipe_close(pipes, CONTAINER_OF(pipes->idle.next, struct pipe, ring));
    free(pipes);
}
