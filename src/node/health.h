/* health - whether the backends of own services answer, by looks at them and by what clients met.
 *
 * A service with a check is looked at from the time it is offered. It is taken to be healthy until
 * a look or clients say otherwise: the first look of all decides at once when it fails, so that a
 * backend that is not there is not announced for long; later `fall` looks in a row must fail.
 * Clients that do not reach a backend count as looks that failed, with or without a check. What is
 * unhealthy without one is looked at as a TCP check does, until it is healthy again: `rise` good
 * looks in a row, or one client that gets through. To a check by HTTP such a client proves nothing:
 * a backend that answers 503 takes connections too. There it ends a row of clients that did not get
 * through, and the looks that failed go on counting.
 *
 * Looks at one backend do not overlap, and are spread; of all at most HEALTH_LOOKS are under way,
 * and who waited longest is next. Of them, at most HEALTH_LOOKS_DOUBTFUL are at backends of which
 * the last answer was not good: each may take its whole time-out, and many such would leave the
 * others without a look for minutes. All records are gone through to find what is due, but the more
 * there are, the more seldom.
 */
#ifndef NODE_HEALTH_H
#define NODE_HEALTH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "base/limits.h"
#include "node/node.h"

#define HEALTH_LOOKS 64u
#define HEALTH_LOOKS_DOUBTFUL 48u /* who answers does so in milliseconds: the rest is plenty */

struct node;

struct health { /* of one service and backend; embedded nowhere: local.c points to it */
    struct node_check check;         /* no field is 0 but kind: then clients alone tell */
    bool healthy, proven;            /* proven: a look has said something */
    uint32_t streak;                 /* looks in a row that speak against `healthy` ... */
    uint32_t met;                    /* ... and, while it is, clients that did not get through */
    uint64_t since_s;                /* when healthy was last another, unix time; 0: never */
    char why[LIMIT_STATUS_TEXT + 1]; /* of the last answer that was bad; "": none since healthy */
    char name[LIMIT_NAME + 1];       /* of the service */
    char backend[LIMIT_BACKEND + 1];
    uint64_t due_ms;            /* of the next look; UINT64_MAX: none */
    uint64_t look;              /* under way; 0: none */
    struct health *prev, *next; /* utlist; who was looked at last is last */
};

struct healths { /* zeroed to begin with */
    struct health *first;
    struct health_look {
        uint64_t number;
        struct health *of; /* NULL: it went meanwhile */
    } looks[HEALTH_LOOKS];
    size_t n, n_looks;
    bool passed_over;  /* one in doubt is due: as many as may are looked at */
    uint64_t next_ms;  /* no look is due before */
    uint64_t again_ms; /* they are not gone through before */
};

/* What is wrong with a check, as half a sentence ("the path does not begin with /"), or NULL. */
const char *health_check_error(const struct node_check *check);
/* The same, once defaults stand for what is 0. */
bool health_check_equal(const struct node_check *a, const struct node_check *b);

/* kind NONE: for what clients tell. NULL: no memory. Nobody looks before health_begin. */
struct health *health_new(const char *name, const char *backend, const struct node_check *check);
/* The first look comes within a moment. */
void health_begin(struct node *n, struct health *health);
/* The check is another; what is known of the backend stays. */
void health_change(struct node *n, struct health *health, const struct node_check *check);
/* A look that is under way is not listened to. Accepts NULL, and one that was not begun. */
void health_end(struct node *n, struct health *health);

/* Starts what is due. */
void health_tick(struct node *n);

enum health_turn { HEALTH_STAYS, HEALTH_FELL, HEALTH_ROSE };
/* The answer of a look, error as of node_checked. *out_health: whose; NULL: of one that went. */
enum health_turn health_looked(struct node *n, uint64_t number, int error, const char *text,
                               struct health **out_health);
/* Answers in a row that speak against `healthy`. */
uint32_t health_streak(const struct health *health);
/* What a client met. */
enum health_turn health_seen(struct node *n, struct health *health, bool ok, const char *text);

#endif
