/* health - one record for each backend that is looked at, or that clients did not reach. */
#include "node/health.h"

#include <errno.h>
#include <stdlib.h>
#include <utlist.h>
#include "node/inside.h"
#include "wire/name.h"

#define INTERVAL_MS 5000u
#define TIMEOUT_MS 2000u
#define RISE 2u
#define FALL 3u
#define FIRST_MS 500u /* the first looks at what is offered together are spread over so long */
#define PER_MS 100u   /* so many records are gone through in a millisecond of time that passes */

#define CHECK(kind) MESHD__V1__CHECK_KIND__CHECK_KIND_##kind

/* ---- checks ---- */

static bool within(uint32_t value, uint32_t least, uint32_t most)
{
    return value == 0 || (value >= least && value <= most);
}

const char *health_check_error(const struct node_check *check)
{
    bool http = check->kind == CHECK(HTTP);

    if (check->kind != CHECK(NONE) && check->kind != CHECK(TCP) && !http)
        return "the check is of a kind that is not known here";
    if (http && check->path[0] != '/')
        return "the check's path does not begin with /";
    if (!http && check->path[0])
        return "the check has a path, which only one by HTTP may have";
    if (http && !check_path_valid(check->path))
        return "the check's path has bytes that are not printable ASCII, or a space";
    if (!within(check->interval_ms, 100, 3600000))
        return "the check's interval_ms is not 0, or 100 to 3600000";
    if (!within(check->timeout_ms, 50, 60000))
        return "the check's timeout_ms is not 0, or 50 to 60000";
    if (!within(check->rise, 1, 100) || !within(check->fall, 1, 100))
        return "the check's rise or fall is more than 100";
    return NULL;
}

/* As it is in force. */
static struct node_check whole(const struct node_check *check)
{
    struct node_check out = *check;

    if (out.interval_ms == 0)
        out.interval_ms = INTERVAL_MS;
    if (out.timeout_ms == 0)
        out.timeout_ms = TIMEOUT_MS;
    if (out.rise == 0)
        out.rise = RISE;
    if (out.fall == 0)
        out.fall = FALL;
    return out;
}

bool health_check_equal(const struct node_check *a, const struct node_check *b)
{
    struct node_check x = whole(a), y = whole(b);

    return x.kind == y.kind && strcmp(x.path, y.path) == 0 && x.interval_ms == y.interval_ms &&
           x.timeout_ms == y.timeout_ms && x.rise == y.rise && x.fall == y.fall;
}

/* ---- records ---- */

static bool is_looked_at(const struct health *health)
{
    return health->check.kind != CHECK(NONE) || !health->healthy;
}

static void due(struct node *n, struct health *health, uint64_t at_ms)
{
    struct healths *all = &n->local.healths;

    health->due_ms = at_ms;
    if (at_ms < all->next_ms)
        all->next_ms = at_ms;
    node_due(n, at_ms);
}

/* Looks at what was offered together drift apart: a tenth of the interval sooner or later. */
static uint64_t interval_ms(const struct node *n, const struct health *health)
{
    uint64_t tenth = health->check.interval_ms / 10;

    return health->check.interval_ms - tenth + node_random(n) % (2 * tenth + 1);
}

static uint64_t first_ms(const struct node *n, const struct health *health)
{
    uint32_t most = health->check.interval_ms < FIRST_MS ? health->check.interval_ms : FIRST_MS;

    return node_random(n) % most;
}

struct health *health_new(const char *name, const char *backend, const struct node_check *check)
{
    struct health *health = calloc(1, sizeof(*health));

    if (!health)
        return NULL;
    health->check = whole(check);
    health->healthy = true;
    health->due_ms = UINT64_MAX;
    text_copy(health->name, sizeof(health->name), name);
    text_copy(health->backend, sizeof(health->backend), backend);
    return health;
}

void health_begin(struct node *n, struct health *health)
{
    if (n->local.healths.n++ == 0)
        n->local.healths.next_ms = UINT64_MAX;
    DL_APPEND(n->local.healths.first, health);
    if (is_looked_at(health))
        due(n, health, n->now_ms + first_ms(n, health));
}

/* The number stays taken until its answer comes. */
static void stop_listening(struct node *n, struct health *health)
{
    struct healths *all = &n->local.healths;

    for (size_t i = 0; i < all->n_looks; i++)
        if (all->looks[i].of == health)
            all->looks[i].of = NULL;
    health->look = 0;
}

void health_change(struct node *n, struct health *health, const struct node_check *check)
{
    stop_listening(n, health);
    health->check = whole(check);
    health->streak = health->met = 0;
    if (is_looked_at(health))
        due(n, health, n->now_ms + first_ms(n, health));
    else
        health->due_ms = UINT64_MAX;
}

void health_end(struct node *n, struct health *health)
{
    if (!health)
        return;
    stop_listening(n, health);
    if (health->prev) {
        DL_DELETE(n->local.healths.first, health);
        n->local.healths.n--;
    }
    free(health);
}

/* ---- looks ---- */

/* NULL: it went while it was looked at; the answer may be as long in coming. */
static bool is_doubtful(const struct health *health)
{
    return !health || !health->healthy || !health->proven || health->streak;
}

static size_t doubtful_looks(const struct healths *all)
{
    size_t found = 0;

    for (size_t i = 0; i < all->n_looks; i++)
        found += is_doubtful(all->looks[i].of);
    return found;
}

static void look(struct node *n, struct health *health)
{
    struct healths *all = &n->local.healths;
    struct node_service service = {.name = health->name,
                                   .backend = health->backend,
                                   .proxy_protocol = local_proxy(n, health->name),
                                   .check = health->check};

    if (service.check.kind == CHECK(NONE))
        service.check.kind = CHECK(TCP);
    health->look = node_number(n);
    health->due_ms = n->now_ms + interval_ms(n, health);
    all->looks[all->n_looks++] = (struct health_look){health->look, health};
    n->counters.checks++;
    DL_DELETE(all->first, health);
    DL_APPEND(all->first, health);
    n->port->check(n->port->ctx, health->look, &service);
}

/* Starts what is due, in the order of the list; when the next is due, as far as that was seen. */
static uint64_t start_looks(struct node *n)
{
    struct healths *all = &n->local.healths;
    struct health *health, *next, *last = all->first->prev;
    size_t doubtful = doubtful_looks(all);
    uint64_t next_ms = UINT64_MAX;
    bool more = true;

    all->passed_over = false;
    /* Those looked at go behind the one that was last. */
    for (health = all->first; more; health = next) {
        more = health != last;
        next = health->next;
        if (health->look != 0)
            continue; /* its answer says when it goes on */
        if (health->due_ms > n->now_ms)
            next_ms = health->due_ms < next_ms ? health->due_ms : next_ms;
        else if (all->n_looks == HEALTH_LOOKS)
            return n->now_ms;
        else if (!is_doubtful(health))
            look(n, health);
        else if (doubtful++ < HEALTH_LOOKS_DOUBTFUL)
            look(n, health);
        else
            all->passed_over = true; /* an answer makes room */
    }
    return next_ms;
}

void health_tick(struct node *n)
{
    struct healths *all = &n->local.healths;
    uint64_t at_ms = all->next_ms > all->again_ms ? all->next_ms : all->again_ms;

    if (all->n == 0 || all->n_looks == HEALTH_LOOKS)
        return; /* an answer makes room */
    if (n->now_ms >= at_ms) {
        all->next_ms = start_looks(n);
        all->again_ms = n->now_ms;
        if (all->next_ms > n->now_ms) /* it went through all; else who is due stands first */
            all->again_ms += all->n / PER_MS;
        at_ms = all->next_ms > all->again_ms ? all->next_ms : all->again_ms;
    }
    node_due(n, at_ms);
}

/* ---- answers ---- */

uint32_t health_streak(const struct health *health) { return health->streak + health->met; }

static enum health_turn turn(struct node *n, struct health *health, bool healthy)
{
    health->healthy = healthy;
    health->streak = health->met = 0;
    health->since_s = node_wall_s(n);
    return healthy ? HEALTH_ROSE : HEALTH_FELL;
}

/* streak: the one that counts whoever says so. */
static enum health_turn bad(struct node *n, struct health *health, uint32_t *streak, bool decides,
                            const char *text)
{
    text_copy(health->why, sizeof(health->why), text);
    if (!health->healthy) {
        health->streak = 0;
        return HEALTH_STAYS;
    }
    ++*streak;
    return decides || health_streak(health) >= health->check.fall ? turn(n, health, false)
                                                                  : HEALTH_STAYS;
}

static enum health_turn good(struct node *n, struct health *health, bool decides)
{
    if (health->healthy) {
        health->streak = health->met = 0;
        health->why[0] = '\0';
        return HEALTH_STAYS;
    }
    health->streak++;
    if (!decides && health->streak < health->check.rise)
        return HEALTH_STAYS;
    health->why[0] = '\0';
    return turn(n, health, true);
}

/* What it has answered to looks stays as it is. */
static enum health_turn only_reached(struct health *health)
{
    health->met = 0;
    if (health->healthy && !health->streak)
        health->why[0] = '\0';
    return HEALTH_STAYS;
}

static struct health *take_look(struct node *n, uint64_t number)
{
    struct healths *all = &n->local.healths;
    struct health *health = NULL;

    for (size_t i = 0; i < all->n_looks; i++) {
        if (all->looks[i].number != number)
            continue;
        health = all->looks[i].of;
        all->looks[i] = all->looks[--all->n_looks];
        break;
    }
    return health;
}

/* A look that this node itself had not the means for shows nothing. */
static bool says_nothing(int error)
{
    return error == -EMFILE || error == -ENFILE || error == -ENOMEM || error == -ENOBUFS ||
           error == -EADDRNOTAVAIL;
}

enum health_turn health_looked(struct node *n, uint64_t number, int error, const char *text,
                               struct health **out_health)
{
    struct healths *all = &n->local.healths;
    bool was_full = all->n_looks == HEALTH_LOOKS, first;
    struct health *health = take_look(n, number);
    enum health_turn result;

    *out_health = health;
    if (all->passed_over)
        all->next_ms = n->now_ms;
    if (was_full || all->passed_over)
        node_due(n, n->now_ms); /* who waits for room is due */
    if (!health)
        return HEALTH_STAYS;
    if (error)
        n->counters.checks_failed++;
    health->look = 0;
    if (says_nothing(error)) {
        result = HEALTH_STAYS;
    } else {
        first = !health->proven;
        health->proven = true;
        result = error ? bad(n, health, &health->streak, first, text) : good(n, health, false);
    }
    if (is_looked_at(health))
        due(n, health, health->due_ms);
    else
        health->due_ms = UINT64_MAX;
    return result;
}

enum health_turn health_seen(struct node *n, struct health *health, bool ok, const char *text)
{
    enum health_turn result;

    if (ok && health->check.kind == CHECK(HTTP))
        return only_reached(health);
    result = ok ? good(n, health, true) : bad(n, health, &health->met, false, text);
    if (result == HEALTH_FELL && health->check.kind == CHECK(NONE))
        due(n, health, n->now_ms + interval_ms(n, health));
    if (result == HEALTH_ROSE && health->check.kind == CHECK(NONE)) {
        stop_listening(n, health);
        health->due_ms = UINT64_MAX;
    }
    return result;
}
