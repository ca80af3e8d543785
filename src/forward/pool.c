/* pool - the size follows the rate of openings: what is opened within WARM_FOR_MS waits ready. */
#include "forward/pool.h"

#include <errno.h>

#define TICK_MS 250u
#define WARM_FOR_MS 50u
#define BATCH 8u        /* dialled in one go */
#define RESUME_MS 1000u /* after a dial that failed */

struct pool {
    struct worker *worker;
    struct session *session; /* a reference while tick is set */
    struct ring mine, theirs;
    unsigned n_mine, n_theirs;
    unsigned opened, asked;    /* Forwards sent and received since the last tick */
    uint32_t rate, asked_rate; /* per second, smoothed */
    atomic_uint want;          /* of mine, when the peer dials them */
    uint64_t resume_ms;
    struct alarm tick;
};

static void on_tick(struct alarm *alarm);

int pools_new(struct session *session)
{
    struct forward *forward = session->forward;

    session->pools = calloc(forward->n_workers, sizeof(*session->pools));
    if (!session->pools)
        return -ENOMEM;
    for (unsigned i = 0; i < forward->n_workers; i++) {
        struct pool *pool = &session->pools[i];

        pool->worker = &forward->workers[i];
        pool->session = session;
        ring_init(&pool->mine);
        ring_init(&pool->theirs);
        alarm_init(&pool->tick, on_tick);
    }
    return 0;
}

void pools_free(struct session *session) { free(session->pools); }

static struct pool *pool_of(struct worker *worker, struct session *session)
{
    return &session->pools[worker->index];
}

static unsigned share(const struct forward *forward, unsigned whole, unsigned index)
{
    return whole / forward->n_workers + (index < whole % forward->n_workers);
}

/* Of one worker; at least one wherever any are allowed. */
static unsigned cap(const struct pool *pool)
{
    const struct forward *forward = pool->worker->forward;
    unsigned whole = (unsigned)forward->limits.data_warm_per_link;
    unsigned mine = whole / forward->n_workers;

    return mine || !whole ? mine : 1;
}

static unsigned target(const struct pool *pool, uint32_t rate)
{
    unsigned n = rate ? rate * WARM_FOR_MS / 1000 + 1 : 0;

    return n < cap(pool) ? n : cap(pool);
}

/* ---- filling ---- */

void pool_add(struct data *data)
{
    struct pool *pool = pool_of(data->worker, data->session);

    ring_push(data->ours ? &pool->mine : &pool->theirs, &data->pool);
    data->pooled = data->ours ? &pool->n_mine : &pool->n_theirs;
    ++*data->pooled;
    atomic_fetch_add(&data->session->warm[data->ours], 1);
    COUNT(data->worker, warm, 1);
}

/* Some at once, unless there are few anyway: who accepts them is woken once. */
static bool worth_it(unsigned have, unsigned want)
{
    unsigned some = want / 4 + 1;

    return have + (some < BATCH ? some : BATCH) <= want;
}

static void dial_some(struct pool *pool, enum data_first first, unsigned have, unsigned want)
{
    for (unsigned i = 0; have + i < want && i < BATCH; i++) {
        struct data *data = data_begin(pool->worker, pool->session, first, NULL);

        if (!data) {
            pool->resume_ms = worker_now(pool->worker) + RESUME_MS;
            return;
        }
        pool_add(data);
    }
}

static unsigned theirs_wanted(const struct pool *pool)
{
    unsigned wish =
        share(pool->worker->forward, atomic_load(&pool->session->wish), pool->worker->index);
    unsigned seen = target(pool, pool->asked_rate);

    return wish > seen ? wish : seen;
}

static void fill(struct pool *pool, bool whole)
{
    unsigned mine = target(pool, pool->rate), theirs = theirs_wanted(pool);

    if (!pool->session->info.dialled) {
        atomic_store(&pool->want, mine);
        return;
    }
    if (atomic_load(&pool->session->over) || atomic_load(&pool->worker->forward->draining) ||
        worker_now(pool->worker) < pool->resume_ms)
        return;
    if (whole || worth_it(pool->n_mine, mine))
        dial_some(pool, DATA_FIRST_DIALLER, pool->n_mine, mine);
    if (whole || worth_it(pool->n_theirs, theirs))
        dial_some(pool, DATA_FIRST_OTHER, pool->n_theirs, theirs);
}

void pool_fill(struct worker *worker, struct session *session)
{
    fill(pool_of(worker, session), false);
}

void pool_dial_failed(struct worker *worker, struct session *session)
{
    pool_of(worker, session)->resume_ms = worker_now(worker) + RESUME_MS;
}

/* ---- the rate ---- */

static void tick_on(struct pool *pool)
{
    if (alarm_is_set(&pool->tick) || atomic_load(&pool->session->over))
        return;
    session_ref(pool->session);
    alarm_set(pool->worker, &pool->tick, TICK_MS);
}

static void on_tick(struct alarm *alarm)
{
    struct pool *pool = CONTAINER_OF(alarm, struct pool, tick);

    pool->rate = (pool->rate + pool->opened * (1000 / TICK_MS)) / 2;
    pool->asked_rate = (pool->asked_rate + pool->asked * (1000 / TICK_MS)) / 2;
    pool->opened = pool->asked = 0;
    fill(pool, true);
    if (pool->rate || pool->asked_rate || theirs_wanted(pool))
        alarm_set(pool->worker, &pool->tick, TICK_MS);
    else
        session_unref(pool->session);
}

void pool_opened(struct worker *worker, struct session *session)
{
    struct pool *pool = pool_of(worker, session);

    pool->opened++;
    tick_on(pool);
    fill(pool, false);
}

void pool_asked(struct worker *worker, struct session *session)
{
    struct pool *pool = pool_of(worker, session);

    pool->asked++;
    tick_on(pool);
}

void pool_close(struct worker *worker, struct session *session)
{
    struct pool *pool = pool_of(worker, session);

    if (!alarm_is_set(&pool->tick))
        return;
    alarm_clear(worker, &pool->tick);
    session_unref(session); /* not the last one: the caller has one */
}

uint32_t pools_wanted(struct session *session)
{
    uint32_t n = 0;

    for (unsigned i = 0; i < session->forward->n_workers; i++)
        n += atomic_load(&session->pools[i].want);
    return n;
}

struct wish_mail {
    struct mail mail;
    struct session *session;
};

static void read_wish(struct worker *worker, struct mail *mail)
{
    struct wish_mail *m = CONTAINER_OF(mail, struct wish_mail, mail);

    if (!worker->stopping) {
        tick_on(pool_of(worker, m->session));
        pool_fill(worker, m->session);
    }
    session_unref(m->session);
    free(m);
}

void pools_wished(struct session *session)
{
    for (unsigned i = 0; i < session->forward->n_workers; i++) {
        struct wish_mail *m = calloc(1, sizeof(*m));

        if (!m)
            return; /* it is said again */
        m->mail.read = read_wish;
        m->session = session_ref(session);
        worker_post(&session->forward->workers[i], &m->mail);
    }
}

/* ---- claiming ---- */

/* The youngest whose connect is through; else one that is on its way. */
static struct data *choose(const struct pool *pool)
{
    struct data *connecting = NULL;

    for (struct ring *r = pool->mine.prev; r != &pool->mine; r = r->prev) {
        struct data *data = CONTAINER_OF(r, struct data, pool);

        if (!data->connecting)
            return data;
        connecting = data;
    }
    return connecting;
}

struct data *data_claim(struct worker *worker, struct session *session,
                        const struct data_header *header, void *ctx,
                        void (*event)(void *ctx, enum data_event event))
{
    struct data *data = choose(pool_of(worker, session));

    if (!data)
        return NULL;
    data_own(data, ctx, event);
    alarm_set(worker, &data->alarm, worker->forward->open_ms);
    data_say(data, header, false);
    return data;
}
