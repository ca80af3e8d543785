/* web - the admin port: what a browser, a scraper and a script may see of this node.
 *
 *   /                 the live page, one document
 *   /events           what the page follows, as server-sent events (HTML Standard 9.2)
 *   /metrics          Prometheus text format 0.0.4
 *   /healthz /readyz  for who restarts, and for who sends clients
 *   /v1/services /v1/peers /v1/node /v1/explain?name=    JSON, with the names of mesh.proto
 *
 * GET and HEAD only, one request on a connection, nothing here changes the node. The maps are shown
 * from snapshots, streamed row by row; whatever else there is to know is asked of the daemon,
 * through web_ops, and rendered here once it has been answered.
 *
 * Threads:   one of its own, "admin", with a libuv loop under which libmicrohttpd runs with an
 *            epoll of its own; what ops holds is called on it and must not block. web_new,
 *            web_listen, web_start, web_stop, web_free: the owner's (main) thread. web_show,
 *            web_answer, web_tell: any.
 * Limits:    base/limits.h: admin_connections, admin_per_source, admin_followers; at most three
 *            quarters of the first, and of an address's, are followers. Out of descriptors,
 *            /healthz, /readyz and /metrics are answered from 8 that are held back, four requests
 *            at a time, each of 10 s at most. A request's head (web/head.h) is at most 16 KiB and
 *            must be whole in 10 s; who reads nothing for 30 s is cut off, and so is who has not
 *            taken a whole answer, or all news, in 10 minutes.
 */
#ifndef WEB_WEB_H
#define WEB_WEB_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "base/limits.h"
#include "registry/snapshot.h"

struct web;

enum web_question {
    WEB_HEALTH,  /* does the main loop still turn */
    WEB_READY,   /* 200, or 503 with why not */
    WEB_NODE,    /* IntrospectReply of the node: node, limits, tombstones; without the maps */
    WEB_LIVE,    /* the same without tombstones: once a second, while anybody follows */
    WEB_EXPLAIN, /* argument: the name */
    WEB_METRICS,
    N_WEB_QUESTIONS
};

/* Made on web's thread from what was answered. */
struct web_body {
    int status;       /* of HTTP */
    const char *type; /* a constant */
    char *data;       /* malloc'ed; taken */
    size_t len;
};

/* A line of JSON. Takes json; NULL, and false: no memory. */
bool web_json(struct web_body *out_body, int status, json_t *json);
/* {"error":{"status":404,"text":"..."}}: what every answer from 400 on is. text is UTF-8. False: no
 * memory. */
bool web_error(struct web_body *out_body, int status, const char *text);

/* What was found out, wherever that was; render makes a text of it on web's thread, where it may
 * take its time. drop is called once, whatever happens. */
struct web_answer {
    void *data;
    bool (*render)(void *data, struct web_body *out_body); /* false: no memory */
    void (*drop)(void *data);
};

struct web_ops {
    void *ctx;
    /* Answered by web_answer(web, number, ...) exactly once, at once or later; web itself waits 5 s
     * and says 503 then. argument is borrowed for the call; "": none. */
    void (*ask)(void *ctx, uint64_t number, enum web_question question, const char *argument);
    /* Both maps as they are now, with when each peer was last heard of, which moves without a
     * change. 0, or -ENOMEM. */
    int (*picture)(void *ctx, struct snapshot **out_snapshot);
};

struct web_times {   /* ms */
    uint32_t head;   /* from accept to the last byte of a head */
    uint32_t leave;  /* for who has its answer to close the connection */
    uint32_t unread; /* without taking a byte of what is there for it */
    uint32_t answer; /* a whole answer, or a follower's way to the newest: whoever reads slowly
                      * keeps a picture from going */
    uint32_t asked;  /* for the daemon to answer; less for WEB_HEALTH: */
    uint32_t health;
};
extern const struct web_times web_times; /* 10 s, 2 s, 30 s, 10 min; 5 s, 2 s */

struct web_settings { /* copied */
    const char *peer_id;
    const char *software;          /* "meshd 0.1.0" */
    const struct limits *limits;   /* copied */
    const struct web_times *times; /* NULL: web_times; tests have less of it */
    struct web_ops ops;
};

int web_new(const struct web_settings *settings, struct web **out_web);
/* Binds and listens; the bound address as text ("127.0.0.1:7480"). -EADDRINUSE ... Before
 * web_start, and before privileges are dropped. */
int web_listen(struct web *web, const char *host, uint16_t port, char *out_text, size_t size);
int web_start(struct web *web);                                    /* the thread */
void web_set_limits(struct web *web, const struct limits *limits); /* copied; any thread */
void web_stop(struct web *web); /* what is under way is cut off; accepts NULL */
void web_free(struct web *web); /* accepts NULL; after web_stop, or never started */

/* The picture after a change of the maps. Takes its own reference. In the order of revisions. */
void web_show(struct web *web, struct snapshot *snap);
void web_answer(struct web *web, uint64_t number, const struct web_answer *answer);
/* Something happened that whoever looks at the page wants to know: kind is a word (link_live,
 * peer_gone), the others as in struct node_event. The last 200 are kept for who comes. All copied.
 */
void web_tell(struct web *web, const char *kind, const char *peer_id, const char *text,
              uint64_t when_s);

struct web_counters {
    uint64_t connections, followers, largest_source;                           /* gauges */
    uint64_t requests, refused, closed_over_limit, closed_late, closed_unread; /* counters */
    uint64_t closed_followers; /* more wanted to follow than may */
    uint64_t closed_no_descriptor;
};
void web_counters(struct web *web, struct web_counters *out_counters); /* any thread */

#endif
