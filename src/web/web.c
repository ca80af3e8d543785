/* web - made, started, stopped; what other threads hand over. */
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "base/clock.h"
#include "web/inside.h"
#include "web/readers.h"

const struct web_times web_times = {
    .head = 10000, .leave = 2000, .unread = 30000, .answer = 600000, .asked = 5000, .health = 2000};

/* ---- post ---- */

void web_post(struct web *web, struct post *post)
{
    post->next = NULL;
    mutex_lock(&web->lock);
    *web->held.last = post;
    web->held.last = &post->next;
    mutex_unlock(&web->lock);
    uv_async_send(&web->bell);
}

static void read_posts(struct web *web)
{
    struct post *post;

    mutex_lock(&web->lock);
    post = web->held.first;
    web->held.first = NULL;
    web->held.last = &web->held.first;
    mutex_unlock(&web->lock);
    for (struct post *next; post; post = next) {
        next = post->next;
        post->read(web, post);
    }
}

static void on_bell(uv_async_t *bell)
{
    struct web *web = bell->data;

    read_posts(web);
    if (!web->stopping)
        readers_bell(web->readers);
}

struct answer_post {
    struct post post;
    uint64_t number;
    struct web_answer answer;
};

static struct asking *asking_of(struct web *web, uint64_t number)
{
    for (struct ring *r = web->asked.next; r != &web->asked; r = r->next) {
        struct asking *asking = CONTAINER_OF(r, struct asking, ring);

        if (asking->number == number)
            return asking;
    }
    return NULL;
}

static void read_answer(struct web *web, struct post *post)
{
    struct answer_post *p = CONTAINER_OF(post, struct answer_post, post);
    struct asking *asking = asking_of(web, p->number);

    if (asking) {
        ring_drop(&asking->ring);
        asking->answered(asking, &p->answer);
    } else { /* it was late, or given up */
        p->answer.drop(p->answer.data);
    }
    free(p);
}

void web_answer(struct web *web, uint64_t number, const struct web_answer *answer)
{
    struct answer_post *p = malloc(sizeof *p);

    if (!p) { /* it will be late */
        answer->drop(answer->data);
        return;
    }
    *p = (struct answer_post){.post.read = read_answer, .number = number, .answer = *answer};
    web_post(web, &p->post);
}

/* ---- asking ---- */

void ask(struct web *web, struct asking *asking, enum web_question question, const char *argument)
{
    asking->number = ++web->next_number;
    asking->deadline_ms =
        clock_ms() + (question == WEB_HEALTH ? web->times.health : web->times.asked);
    ring_push(&web->asked, &asking->ring);
    web->ops.ask(web->ops.ctx, asking->number, question, argument);
}

void ask_give_up(struct asking *asking) { ring_drop(&asking->ring); }

void ask_tick(struct web *web, uint64_t now_ms)
{
    for (struct ring *r = web->asked.next, *next; r != &web->asked; r = next) {
        struct asking *asking = CONTAINER_OF(r, struct asking, ring);

        next = r->next;
        if (now_ms < asking->deadline_ms)
            continue;
        ring_drop(&asking->ring);
        asking->answered(asking, NULL);
    }
}

/* ---- the thread ---- */

static void run(void *arg)
{
    struct web *web = arg;

    pthread_setname_np(pthread_self(), "admin");
    uv_run(&web->loop, UV_RUN_DEFAULT);
}

static void read_stop(struct web *web, struct post *post)
{
    free(post);
    web->stopping = true;
    server_close(web);
    uv_close((uv_handle_t *)&web->bell, NULL);
}

int web_new(const struct web_settings *settings, struct web **out_web)
{
    struct web *web = calloc(1, sizeof *web);
    int r;

    if (!web)
        return -ENOMEM;
    web->peer_id = strdup(settings->peer_id);
    web->software = strdup(settings->software);
    limits_default(&web->limits);
    limits_put(&web->limits, settings->limits);
    web->times = settings->times ? *settings->times : web_times;
    web->ops = settings->ops;
    web->listener = web->spares.null_fd = -1;
    web->held.last = &web->held.first;
    ring_init(&web->conns);
    ring_init(&web->asked);
    mutex_init(&web->lock);
    r = web->peer_id && web->software ? uv_loop_init(&web->loop) : -ENOMEM;
    if (r == 0) {
        web->made = true;
        web->bell.data = web;
        r = uv_async_init(&web->loop, &web->bell, on_bell);
    }
    if (r == 0)
        r = readers_new(web, &web->readers);
    if (r < 0) {
        web_free(web);
        return r;
    }
    *out_web = web;
    return 0;
}

int web_start(struct web *web)
{
    int r = server_init(web);

    if (r == 0)
        r = readers_start(web->readers);
    if (r == 0)
        r = uv_thread_create(&web->thread, run, web);
    web->started = r == 0;
    return r;
}

void web_stop(struct web *web)
{
    struct post *post;

    if (!web || !web->started)
        return;
    post = calloc(1, sizeof *post);
    if (!post)
        abort(); /* nothing could be promised any more */
    post->read = read_stop;
    web_post(web, post);
    uv_thread_join(&web->thread);
    web->started = false;
}

/* What was answered after the end is dropped here. */
void web_free(struct web *web)
{
    if (!web)
        return;
    if (web->made && !web->stopping) { /* never ran */
        server_close(web);
        if (web->bell.loop)
            uv_close((uv_handle_t *)&web->bell, NULL);
        uv_run(&web->loop, UV_RUN_DEFAULT);
    }
    read_posts(web);
    if (web->made)
        uv_loop_close(&web->loop);
    if (web->listener >= 0)
        close(web->listener);
    spares_fini(&web->spares);
    readers_free(web->readers);
    mutex_fini(&web->lock);
    free(web->peer_id);
    free(web->software);
    free(web);
}

void web_set_limits(struct web *web, const struct limits *limits)
{
    limits_put(&web->limits, limits);
}

void web_counters(struct web *web, struct web_counters *out_counters)
{
#define LOAD(field) .field = atomic_load(&web->counters.field)
    *out_counters = (struct web_counters){LOAD(connections),      LOAD(followers),
                                          LOAD(largest_source),   LOAD(requests),
                                          LOAD(refused),          LOAD(closed_over_limit),
                                          LOAD(closed_followers), LOAD(closed_no_descriptor),
                                          LOAD(closed_late),      LOAD(closed_unread)};
#undef LOAD
}
