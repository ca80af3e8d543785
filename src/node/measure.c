/* measure - as NTP does it (RFC 5905 8): what was held at the other side is taken off by its own
 * clock, and what is left was on the way.
 */
#include "node/measure.h"

#include "node/inside.h"

#define LONGEST_US UINT64_C(60000000)

uint64_t measure_now_us(const struct node *n)
{
    return n->port->now_us ? n->port->now_us(n->port->ctx) : 0;
}

/* What peers see: it began with this node, and is never 0. */
static uint64_t shown(const struct node *n, uint64_t us) { return us - n->began_us + 1; }

void measure_beat_out(const struct node *n, const struct link *l, Meshd__V1__Heartbeat *beat)
{
    uint64_t now_us = measure_now_us(n);

    if (!now_us)
        return;
    beat->clock_us = shown(n, now_us);
    if (!l->measure.peer_clock)
        return;
    beat->echo_clock_us = l->measure.peer_clock;
    beat->echo_held_us = now_us - l->measure.peer_came_us;
}

void measure_beat_in(const struct node *n, struct link *l, const Meshd__V1__Heartbeat *beat)
{
    struct measure *m = &l->measure;
    uint64_t now = shown(n, n->now_us), gone, rtt;

    m->peer_clock = n->now_us ? beat->clock_us : 0;
    m->peer_came_us = n->now_us;
    if (!n->now_us || !beat->echo_clock_us || beat->echo_clock_us > now)
        return;
    gone = now - beat->echo_clock_us;
    if (beat->echo_held_us > gone || gone - beat->echo_held_us > LONGEST_US)
        return;
    rtt = gone - beat->echo_held_us;
    /* An eighth of each, as RFC 6298 2.3 smooths it; 0 is for what is not known. */
    rtt = m->rtt_us ? m->rtt_us - m->rtt_us / 8 + rtt / 8 : rtt;
    m->rtt_us = rtt ? rtt : 1;
}

void measure_change(const struct node *n, struct sync_out *o)
{
    if (o->noted_version == n->local.version)
        return;
    o->noted_version = n->local.version;
    if (!o->changed_us)
        o->changed_us = n->now_us;
}

uint64_t measure_age_us(const struct node *n, const struct sync_out *o)
{
    uint64_t now_us = measure_now_us(n);

    if (o->full || !o->made_us || now_us < o->made_us)
        return 0;
    return now_us > o->made_us ? now_us - o->made_us : 1; /* 0 is for what is not known */
}

void measure_visible(struct node *n, const struct link *l, const Meshd__V1__Sync *sync)
{
    uint64_t now_us = measure_now_us(n), age_us = sync->age_us;

    if (!age_us || !now_us || !l->measure.rtt_us)
        return;
    if (age_us > LONGEST_US)
        age_us = LONGEST_US;
    histogram_add(&n->counters.visible, age_us + l->measure.rtt_us / 2 + (now_us - n->now_us));
}
