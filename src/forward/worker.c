/* worker - the loop's thread, its mail, its alarms, its turns. */
#include "forward/worker.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#define LEGS_AT_ONCE 256 /* events; then mail and alarms have their turn */

/* ---- mail ---- */

void worker_post(struct worker *worker, struct mail *mail)
{
    bool asleep;

    mail->next = NULL;
    mutex_lock(&worker->mail_lock);
    asleep = worker->mailbox.asleep;
    worker->mailbox.asleep = false;
    *worker->mailbox.last = mail;
    worker->mailbox.last = &mail->next;
    mutex_unlock(&worker->mail_lock);
    if (asleep)
        eventfd_write(worker->bell, 1);
}

/* False: there is mail. Else whoever posts some wakes the worker. */
static bool fall_asleep(struct worker *worker)
{
    bool asleep;

    mutex_lock(&worker->mail_lock);
    asleep = worker->mailbox.asleep = worker->mailbox.first == NULL;
    mutex_unlock(&worker->mail_lock);
    return asleep;
}

static void read_mail(struct worker *worker)
{
    struct mail *mail;

    mutex_lock(&worker->mail_lock);
    mail = worker->mailbox.first;
    worker->mailbox.asleep = false;
    worker->mailbox.first = NULL;
    worker->mailbox.last = &worker->mailbox.first;
    mutex_unlock(&worker->mail_lock);
    while (mail) {
        struct mail *next = mail->next;

        mail->read(worker, mail);
        mail = next;
    }
}

/* ---- alarms: a wheel, whose slots hold what is due in this turn or a later one ---- */

void alarm_init(struct alarm *alarm, void (*fire)(struct alarm *alarm))
{
    ring_init(&alarm->ring);
    alarm->fire = fire;
}

static void on_tick(uv_timer_t *tick)
{
    struct worker *worker = CONTAINER_OF(tick, struct worker, tick);
    uint64_t now = worker_now(worker), step = now / ALARM_STEP_MS;
    uint64_t from = worker->alarms.step + 1;

    if (step - worker->alarms.step > ALARM_SLOTS)
        from = step - ALARM_SLOTS + 1;
    for (uint64_t at = from; at <= step; at++) {
        struct ring due, *slot = &worker->alarms.slots[at % ALARM_SLOTS];

        /* One that is set again meanwhile may land in this very slot: not this time. */
        ring_init(&due);
        for (struct ring *r = slot->next, *next; r != slot; r = next) {
            next = r->next;
            if (CONTAINER_OF(r, struct alarm, ring)->at_ms > now)
                continue;
            ring_drop(r);
            ring_push(&due, r);
        }
        while (!ring_empty(&due)) {
            struct alarm *alarm = CONTAINER_OF(due.next, struct alarm, ring);

            alarm_clear(worker, alarm);
            alarm->fire(alarm);
        }
    }
    worker->alarms.step = step;
    if (worker->alarms.n == 0)
        uv_timer_stop(tick);
}

void alarm_set(struct worker *worker, struct alarm *alarm, uint64_t ms)
{
    uint64_t now = worker_now(worker);

    alarm_clear(worker, alarm);
    if (worker->alarms.n++ == 0 && !uv_is_active((uv_handle_t *)&worker->tick)) {
        worker->alarms.step = now / ALARM_STEP_MS;
        uv_timer_start(&worker->tick, on_tick, ALARM_STEP_MS, ALARM_STEP_MS);
    }
    alarm->at_ms = now + ms;
    /* The slot that is looked at first once the time has come. */
    ring_push(&worker->alarms.slots[(alarm->at_ms / ALARM_STEP_MS + 1) % ALARM_SLOTS],
              &alarm->ring);
}

void alarm_clear(struct worker *worker, struct alarm *alarm)
{
    if (!alarm_is_set(alarm))
        return;
    ring_drop(&alarm->ring);
    worker->alarms.n--;
}

/* ---- turns ---- */

/* Until the loop has something to do; -1: nothing. */
static int loop_ms(const struct worker *worker)
{
    return uv_loop_alive(&worker->loop) ? uv_backend_timeout(&worker->loop) : -1;
}

/* How long nothing is to be done but what events bring; -1: for ever. */
static int sleep_ms(struct worker *worker)
{
    int ms = loop_ms(worker);

    if (ms == 0 || worker->legs.listed || !fall_asleep(worker))
        return 0;
    return worker->soon ? 1 : ms;
}

void worker_turn(struct worker *worker, bool wait)
{
    struct epoll_event ready[LEGS_AT_ONCE];
    int n;

    worker->legs.telling = true;
    legs_tell_listed(worker);
    n = epoll_wait(worker->legs.epoll, ready, LEGS_AT_ONCE, wait ? sleep_ms(worker) : 0);
    worker->soon = false;
    uv_update_time(&worker->loop);
    legs_tell(worker, ready, n);
    worker->legs.telling = false;
    while (worker->legs.gone) {
        struct leg *leg = worker->legs.gone;

        worker->legs.gone = leg->next;
        free(leg);
    }
    read_mail(worker);
    if (loop_ms(worker) == 0)
        uv_run(&worker->loop, UV_RUN_NOWAIT);
    legs_let_go(worker);
    if (worker->body.turn)
        worker->body.turn(worker);
}

/* ---- the worker ---- */

uint64_t worker_phase(struct worker *worker, enum forward_phase phase, uint64_t begun_us)
{
    uint64_t now_us = uv_hrtime() / 1000;

    histogram_add(&worker->count.phases[phase], now_us - begun_us);
    return now_us;
}

/* Each ring is an event of its own, epoll(7), so that nobody has to read it. */
static int hang_bell(struct worker *worker)
{
    struct epoll_event event = {.events = EPOLLIN | EPOLLET};

    worker->bell = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (epoll_ctl(worker->legs.epoll, EPOLL_CTL_ADD, worker->bell, &event) < 0)
        return -errno;
    return 0;
}

int worker_init(struct worker *worker, struct forward *forward, unsigned index)
{
    int r = uv_loop_init(&worker->loop);

    if (r < 0)
        return r;
    worker->forward = forward;
    worker->index = index;
    mutex_init(&worker->mail_lock);
    worker->mailbox.last = &worker->mailbox.first;
    for (size_t i = 0; i < ALARM_SLOTS; i++)
        ring_init(&worker->alarms.slots[i]);
    ring_init(&worker->legs.held);
    ring_init(&worker->outboxes);
    ring_init(&worker->clients);
    ring_init(&worker->carries);
    ring_init(&worker->served);
    ring_init(&worker->relays);
    ring_init(&worker->data);
    ring_init(&worker->checks);
    ring_init(&worker->doubts);
    worker->legs.epoll = epoll_create1(EPOLL_CLOEXEC);
    r = hang_bell(worker);
    if (r == 0)
        r = uv_timer_init(&worker->loop, &worker->tick);
    if (r < 0) {
        worker_fini(worker);
        return r;
    }
    return 0;
}

static void run(void *arg)
{
    struct worker *worker = arg;
    char name[16];

    snprintf(name, sizeof(name), "worker-%u", worker->index % 1000);
    pthread_setname_np(pthread_self(), name);
    worker->body.begin(worker);
    while (!worker->stopping || uv_loop_alive(&worker->loop) || worker->legs.n > 0 ||
           worker->legs.listed)
        worker_turn(worker, true);
}

int worker_start(struct worker *worker, const struct worker_body *body)
{
    int r;

    worker->body = *body;
    r = uv_thread_create(&worker->thread, run, worker);
    worker->started = r == 0;
    return r;
}

struct stop_mail {
    struct mail mail;
};

static void read_stop(struct worker *worker, struct mail *mail)
{
    free(CONTAINER_OF(mail, struct stop_mail, mail));
    worker->stopping = true;
    worker->body.end(worker);
    uv_close((uv_handle_t *)&worker->tick, NULL);
}

void worker_stop(struct worker *worker)
{
    struct stop_mail *stop = calloc(1, sizeof(*stop));

    if (!stop)
        abort(); /* nothing could be promised any more */
    stop->mail.read = read_stop;
    worker_post(worker, &stop->mail);
    uv_thread_join(&worker->thread);
}

void worker_fini(struct worker *worker)
{
    if (!worker->stopping) { /* never ran */
        worker->stopping = true;
        if (worker->tick.loop)
            uv_close((uv_handle_t *)&worker->tick, NULL);
        uv_run(&worker->loop, UV_RUN_DEFAULT);
    }
    read_mail(worker);
    if (worker->bell >= 0)
        close(worker->bell);
    if (worker->legs.epoll >= 0)
        close(worker->legs.epoll);
    uv_loop_close(&worker->loop);
    mutex_fini(&worker->mail_lock);
}
