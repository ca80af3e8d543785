/* inside - the whole that the files of the room share; nobody else includes it.
 *
 *   web.c      made, started, stopped; post from other threads
 *   progress.c how far a connection has come
 *   arrival.c  whom to accept, and whose request to take
 *   head.c     which head is one that is taken: pure
 *   server.c   connections and their deadlines; libmicrohttpd under the loop; the listener
 *   spares.c   descriptors for when there are no others
 *   exchange.c one request: its route, what is asked of the daemon, its answer
 *   reply.c    answers as JSON, errors, headers, streams
 *   query.c    what strangers put into a request: pure
 *   maps.c     /v1/services and /v1/peers, row by row
 *   picture.c  one row as JSON
 *
 * All of it runs on web's thread, but where web.h says otherwise.
 */
#ifndef WEB_INSIDE_H
#define WEB_INSIDE_H

#include <microhttpd.h>
#include <netinet/in.h>
#include <stdatomic.h>
#include <stddef.h>
#include <uv.h>
#include "base/cleanup.h"
#include "base/lock.h"
#include "base/ring.h"
#include "web/query.h"
#include "web/spares.h"
#include "web/web.h"

struct exchange;
struct readers;
struct source;
struct stream;
struct web;

/* ---- post: from other threads ---- */

struct post {
    struct post *next;
    void (*read)(struct web *web, struct post *post); /* on web's thread; owns the post */
};
void web_post(struct web *web, struct post *post); /* any thread */

/* ---- server.c ---- */

enum conn_state {
    CONN_HEAD,   /* its request is awaited, or coming */
    CONN_ASKED,  /* it is here */
    CONN_ANSWER, /* what it is answered goes out */
    CONN_LEAVING /* it has been answered; what it still sends is thrown away */
};

struct conn {
    struct ring ring; /* of web->conns */
    struct web *web;
    int fd;
    uv_poll_t poll;             /* before and after libmicrohttpd has it */
    struct MHD_Connection *mhd; /* meanwhile */
    int theirs;                 /* its descriptor; -1: it has been given none */
    struct source *source;      /* NULL: it does not count any more */
    enum conn_state state;
    bool whole;   /* its head is here, and good; theirs is to be handed over */
    bool cut;     /* has been ended */
    bool spare;   /* has descriptors that were held back: for probes, and not for long */
    bool follows; /* is one of its source's followers */
    uint64_t arrived_ms;
    uint64_t since_ms;         /* in its state */
    size_t peeked, seen;       /* bytes of its head that are there; that were looked through */
    uint64_t taken;            /* bytes that the other side has acknowledged ... */
    uint64_t taken_ms;         /* ... and when that was last another number */
    struct exchange *exchange; /* or NULL */
};

struct web {
    char *peer_id, *software;
    struct limits limits;
    struct web_times times;
    struct web_ops ops;
    int listener; /* -1: none */
    struct spares spares;
    bool loopback; /* bound to it, and to nothing else */
    struct MHD_Daemon *mhd;
    uv_loop_t loop;
    uv_poll_t accepting, serving;
    uv_idle_t busy;   /* libmicrohttpd has something to do at once ... */
    uv_timer_t again; /* ... or later */
    uv_timer_t tick;  /* deadlines */
    uv_timer_t pause; /* of accepting, when there are no descriptors */
    uv_async_t bell;
    uv_thread_t thread;
    bool made, started, stopping;
    struct conn *adding; /* being handed to libmicrohttpd */
    struct ring conns;
    size_t n_conns;         /* those cut are not counted */
    struct source *sources; /* by address */
    struct ring asked;      /* what waits for the daemon */
    uint64_t next_number;
    size_t n_pictures; /* answers under way that keep a picture */
    struct readers *readers;
    struct mutex lock;
    struct { /* only with lock held */
        struct post *first, **last;
    } held;
    struct {
        atomic_ulong connections, followers, largest_source, requests, refused;
        atomic_ulong closed_over_limit, closed_followers, closed_no_descriptor;
        atomic_ulong closed_late, closed_unread;
    } counters;
};

int server_init(struct web *web);   /* on the owner's thread; the loop is there */
void server_close(struct web *web); /* every connection, then libmicrohttpd; closes the handles */
void server_turn(struct web *web);  /* libmicrohttpd does what there is to do */
/* A suspended one goes on at libmicrohttpd's next turn, which comes at once; without a thread of
 * its own it does not tell itself. */
void conn_resume(struct conn *conn);
/* It goes, whatever it is doing. */
void conn_cut(struct conn *conn);
void conn_state(struct conn *conn, enum conn_state state);
void conn_free(struct conn *conn); /* nobody has it; closes its descriptor */

/* ---- arrival.c ---- */

void arrival_uncount(struct conn *conn); /* once */
/* Whether it may follow; it is counted then, until arrival_unfollow or arrival_uncount. */
bool arrival_follow(struct conn *conn);
void arrival_unfollow(struct conn *conn); /* also of one that does not */
/* Of a limit of connections, those that may follow: some places are for who asks and goes. */
uint64_t arrival_may_follow(uint64_t limit);
uint64_t arrival_largest_source(struct web *web);
int arrival_begin(struct web *web);         /* accepting */
void arrival_look_again(struct conn *conn); /* if it is not libmicrohttpd's */
void arrival_leave(struct conn *conn);      /* libmicrohttpd has let go of it */
/* It goes to libmicrohttpd if its head is whole and it has not been cut, else it is closed; in a
 * moment. */
void arrival_end(struct conn *conn);

/* ---- asking the daemon (web.c) ---- */

struct asking {
    struct ring ring; /* of web->asked, or of none: ring_init it first */
    uint64_t number, deadline_ms;
    /* Once, unless it was given up; NULL: it is late. What is in answer is taken. */
    void (*answered)(struct asking *asking, const struct web_answer *answer);
};
void ask(struct web *web, struct asking *asking, enum web_question question, const char *argument);
void ask_give_up(struct asking *asking); /* also of one that was answered */
void ask_tick(struct web *web, uint64_t now_ms);

/* ---- exchange.c ---- */

enum exchange_state {
    EXCHANGE_NEW,
    EXCHANGE_WAITS,    /* suspended; asking is */
    EXCHANGE_ANSWERED, /* answer is there */
    EXCHANGE_LATE,     /* it has not come in time */
    EXCHANGE_REPLIED
};

struct exchange {
    struct asking asking;
    struct web *web;
    struct conn *conn;
    const struct route *route;
    enum exchange_state state;
    struct query query;
    enum web_question question;
    struct web_answer answer;
    struct stream *stream; /* or NULL */
    bool head_only;
};

struct route {
    const char *path;
    unsigned args; /* of enum query_arg, a bit each */
    bool probe;    /* answered also when there are no descriptors left */
    /* Does one of: exchange_ask, reply_body, reply_error, reply_stream. What that returned. */
    enum MHD_Result (*answer)(struct exchange *ex);
};
extern const struct route routes[]; /* ends with path == NULL */

/* For libmicrohttpd. */
enum MHD_Result exchange_handle(void *cls, struct MHD_Connection *mhd, const char *url,
                                const char *method, const char *version, const char *upload,
                                size_t *upload_size, void **con_cls);
void exchange_completed(void *cls, struct MHD_Connection *mhd, void **con_cls,
                        enum MHD_RequestTerminationCode why);
enum MHD_Result exchange_ask(struct exchange *ex, enum web_question question, const char *argument);
void exchange_cut(struct exchange *ex); /* it waits no longer, for the daemon or for news */

/* ---- reply.c ---- */

/* Takes body->data. policy: the Content-Security-Policy, NULL: of what is no document. */
enum MHD_Result reply_body(struct exchange *ex, const struct web_body *body, const char *policy);
enum MHD_Result reply_error(struct exchange *ex, unsigned status, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
/* To one that libmicrohttpd does not have. */
void reply_refusal(int fd, unsigned status, const char *text, bool head_only);
/* No body: the client has what there is under that tag. */
enum MHD_Result reply_unchanged(struct exchange *ex, const char *tag);

#define STREAM_END (-1)
#define STREAM_BROKEN (-2) /* the connection is closed, so that nobody takes it for whole */

/* An answer that is made while it goes out. Embedded in whatever makes it. */
struct stream {
    struct exchange *exchange; /* set by reply_stream; NULL once it is over */
    /* How many bytes were written to buf, at most max; 0: nothing now, stream_wake tells when; or
     * STREAM_END, STREAM_BROKEN. */
    ssize_t (*fill)(struct stream *stream, char *buf, size_t max);
    void (*drop)(struct stream *stream); /* once, at the end */
    bool asleep;       /* its reader has been told all there is, and may stay ... */
    uint64_t since_ms; /* ... or has times.answer for that, from here on */
};
/* Takes stream, also when it fails. tag: of ETag, or NULL. */
enum MHD_Result reply_stream(struct exchange *ex, struct stream *stream, const char *type,
                             const char *tag);
void stream_wake(struct stream *stream); /* there is something again */

/* ---- maps.c ---- */

enum MHD_Result maps_services(struct exchange *ex);
enum MHD_Result maps_peers(struct exchange *ex);

/* ---- page.c, readers.c ---- */

enum MHD_Result page_show(struct exchange *ex);
enum MHD_Result readers_answer(struct exchange *ex);

#endif
