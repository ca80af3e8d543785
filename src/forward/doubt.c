/* doubt - each has references of its own to what its record is made of. */
#include "forward/doubt.h"

#include <inttypes.h>
#include <stdio.h>
#include "base/clock.h"

#define DOUBT_MS 1000u /* within which both ends are seen, also by a machine that is busy */

struct doubt {
    struct ring ring; /* worker->doubts */
    struct alarm alarm;
    struct worker *worker;
    struct tuple tuple;
    struct record_end end;
    uint64_t begun_us, ended_ms; /* on uv_hrtime, and on clock_ms */
    struct passage passage;
};

static void say_why(const struct doubt *doubt, char out[LIMIT_STATUS_TEXT + 1])
{
    const struct session *session = doubt->passage.session;
    const char *peer = session->info.peer_id;
    uint64_t over_ms = atomic_load(&session->over_ms); /* if it is */

    if (!atomic_load(&session->over))
        snprintf(out, LIMIT_STATUS_TEXT + 1, "broken off by %s, which is there: its log says why",
                 peer);
    else if (over_ms + DOUBT_MS >= doubt->ended_ms)
        snprintf(out, LIMIT_STATUS_TEXT + 1,
                 "the way to %s broke, or %s is gone: its link ended, too", peer, peer);
    else
        snprintf(out, LIMIT_STATUS_TEXT + 1,
                 "broken off by %s, or lost on the way: its link had ended %" PRIu64 " s before",
                 peer, (doubt->ended_ms - over_ms) / 1000);
}

static void tell(struct doubt *doubt)
{
    char text[LIMIT_STATUS_TEXT + 1];
    struct way way;

    say_why(doubt, text);
    doubt->end.text = text;
    passage_way(&doubt->passage, &way);
    record_tell(doubt->worker->forward, &doubt->tuple, doubt->begun_us, false, &way, &doubt->end);
    alarm_clear(doubt->worker, &doubt->alarm);
    ring_drop(&doubt->ring);
    doubt->worker->n_doubts--;
    session_unref(doubt->passage.session);
    row_unref(doubt->passage.row);
    free(doubt);
}

static void on_alarm(struct alarm *alarm) { tell(CONTAINER_OF(alarm, struct doubt, alarm)); }

bool doubt_begin(struct worker *worker, const struct tuple *tuple, uint64_t begun_us,
                 const struct passage *passage, const struct record_end *end)
{
    struct doubt *doubt;

    if (end->end != FORWARD_BACKEND_RESET || !record_wanted(worker->forward, end->end) ||
        worker->n_doubts >= LIMIT_DOUBTS)
        return false;
    doubt = calloc(1, sizeof(*doubt));
    if (!doubt)
        return false;
    doubt->worker = worker;
    doubt->tuple = *tuple;
    doubt->end = *end;
    doubt->end.ended_us = uv_hrtime() / 1000;
    doubt->begun_us = begun_us;
    doubt->ended_ms = clock_ms();
    doubt->passage = *passage;
    session_ref(doubt->passage.session);
    row_ref(doubt->passage.row);
    ring_push(&worker->doubts, &doubt->ring);
    worker->n_doubts++;
    alarm_init(&doubt->alarm, on_alarm);
    alarm_set(worker, &doubt->alarm, DOUBT_MS);
    COUNT(worker, ends[end->end], 1);
    return true;
}

void doubts_worker_stop(struct worker *worker)
{
    while (!ring_empty(&worker->doubts))
        tell(CONTAINER_OF(worker->doubts.next, struct doubt, ring));
}
