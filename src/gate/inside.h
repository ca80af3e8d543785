/* inside - what the files of the gate share; nobody else includes it.
 *
 *   buffer.c   bytes waiting, accounted     conn.c     the table, one connection's life, its timer
 *   stream.c   a descriptor under the loop  sniff.c    accepting, first bytes, refusals
 *   client.c   a connection of REQ          lanes.c    to and from the REP socket
 *   session.c  joined with PAIR1 or REQ     dial.c     one attempt to reach a peer
 *   watcher.c  a connection of kind watch   news.c     the log, pictures, whom news concerns
 *   tcp.c      options and connects         secure.c   TLS: handshakes, who is there, once more
 *   gate.c     threads, mailbox, start, stop
 *
 * Everything here belongs to the gate's thread, but what stands under a lock or is said to be
 * atomic. Nothing is written from inside an event: a stream with bytes to write is put on the dirty
 * ring, and all of them are flushed once before the loop waits, so that what one wake-up brought
 * leaves in one write per descriptor.
 */
#ifndef GATE_INSIDE_H
#define GATE_INSIDE_H

#include <stddef.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <uv.h>
#include "base/backoff.h"
#include "base/cleanup.h"
#include "base/lock.h"
#include "base/ring.h"
#include "gate/gate.h"
#include "wire/sp.h"

#define LANES_MAX 8u
#define LISTENERS_MAX 16u
#define SCRATCH_BYTES 131072u /* one read takes at most this much */
#define SNIFF_BYTES 4096u     /* and this much before we know who it is */
#define HIGH_WATER 131072u    /* a stream with more than this to write is fed no further */
#define LINK_ANSWER_MS 6000u  /* link_asked answered within 5 s, and a little */
#define LINGER_MS 2000u       /* a refusal must not be destroyed by a reset */
#define PATH_MAX_UNIX sizeof(((struct sockaddr_un *)0)->sun_path)

/* The payload of an SP message: what is called a message, plus backtrace or hop word. nng takes 64
 * bytes more than a message, of which the lanes need 8. */
#define SP_ROOM 32u
#define NNG_ROOM 64u

/* Only the gate's thread writes counters, so no read-modify-write is needed. */
#define COUNT(gate, field, n)                                                                      \
    __atomic_store_n(&(gate)->count.field, (gate)->count.field + (n), __ATOMIC_RELAXED)

/* --- buffer.c --- what is accounted is what was decrypted, or is yet to be encrypted. A TLS
 * session has its own state beside that, and up to a record (16 KiB and a little) in each direction
 * while one has not come, or not gone, completely. */
struct conn;
struct buffer {
    uint8_t *data;
    size_t head, tail, cap; /* data[head..tail) waits */
};
static inline size_t buffer_used(const struct buffer *b) { return b->tail - b->head; }
/* Room for len more bytes, of which the caller has the content: sizes follow what arrived. owner's
 * limits are kept (NULL: towards or from nng, where the high-water mark and one message are the
 * bound). 0 or -ENOBUFS. */
int buffer_reserve(struct gate *gate, struct conn *owner, struct buffer *b, size_t len);
/* After a reserve. */
static inline void buffer_add(struct buffer *b, const void *data, size_t len)
{
    if (len > 0)
        __builtin_memcpy(b->data + b->tail, data, len);
    b->tail += len;
}
/* Frees the memory of a buffer that becomes empty; a lane (owner NULL) keeps a moderate one. */
void buffer_consume(struct gate *gate, struct conn *owner, struct buffer *b, size_t len);
void buffer_clear(struct gate *gate, struct buffer *b);

/* --- stream.c: a descriptor with what waits in both directions --- */
struct watch;
struct stream {
    struct gate *gate;
    struct conn *owner; /* NULL: a lane's */
    int fd;             /* -1: closed */
    enum sp_framing framing;
    bool reading;       /* wanted by the owner */
    bool blocked;       /* the kernel takes no more for now */
    bool connecting;    /* the next event is the connect's */
    bool watch_end;     /* a reset is told, through `broken`, also while nothing is read */
    bool ending, ended; /* towards the other side: wanted, said */
    int events;         /* under the loop */
    int in_on, out_on;  /* the event that reading waits for, and writing */
    struct watch *watch;
    struct buffer in, out;
    struct ring dirty;
    struct tls *tls;   /* NULL: plaintext */
    bool handshaking;  /* nothing is read or written but by the handshake */
    bool dry;          /* it gives nothing more before the next event */
    bool over;         /* after what was read there is only `last` */
    ssize_t last;      /* the end, or -errno */
    struct ring again; /* of gate->handshakes, or gate->pending */
    void (*readable)(struct stream *stream);
    void (*broken)(struct stream *stream, int error);
    void (*flushed)(struct stream *stream, int error); /* after each attempt: 0 or -errno */
    void (*wrote)(struct stream *stream, const uint8_t *data, size_t len); /* may be NULL */
};
struct view { /* bytes that arrived and wait: in the scratch buffer, or in stream->in */
    const uint8_t *data;
    size_t len;
    bool scratch;
};

void stream_init(struct stream *s, struct gate *gate, struct conn *owner);
/* Nothing is told of it before stream_watch; till then it is looked at by whoever has taken it. */
void stream_take(struct stream *s, int fd, enum sp_framing framing);
int stream_watch(struct stream *s); /* idempotent; nothing if it was closed or lifted since */
/* Both at once. Takes fd, also when it fails. */
int stream_open(struct stream *s, int fd, enum sp_framing framing);
void stream_close(struct stream *s);
/* The loop lets go of the descriptor, which is returned, and of its session; what waits in the
 * buffers stays. */
int stream_lift(struct stream *s, struct tls **out_tls);
/* The descriptor stays open for good, watched by nobody. */
void stream_park(struct stream *s);
void stream_read(struct stream *s, bool wanted);
void stream_dirty(struct stream *s);
/* All was written: the other side is told that no more comes. */
void stream_end(struct stream *s);
/* Takes tls: from now on there is only its handshake, until stream_secured. */
void stream_secure(struct stream *s, struct tls *tls);
void stream_secured(struct stream *s);
void stream_waits(struct stream *s); /* for what its handshake says */
void stream_plain(struct stream *s); /* the session is gone, the descriptor is read as it is */
void stream_again(struct stream *s); /* it was on the pending ring */
const char *stream_why(const struct stream *s); /* after an error: a clause for people */
int stream_flush(struct stream *s);             /* 0, also when not all of it left; or -errno */
/* Reads once. n > 0: bytes, all that wait are in *out; 0: end; -EAGAIN, -ENOBUFS, -errno. */
ssize_t stream_fill(struct stream *s, size_t max, struct view *out);
/* What of the view was not consumed waits in stream->in. 0 or -ENOBUFS. */
int stream_keep(struct stream *s, const struct view *view, size_t consumed);
/* Appends one message in the stream's framing, in up to three parts. 0 or -ENOBUFS. */
int stream_message(struct stream *s, const struct iovec *parts, int n_parts);
int stream_bytes(struct stream *s, const void *data, size_t len);
/* A connection to a listening Unix socket: a descriptor, or -errno. */
int unix_connect(const char *path);

/* --- conn.c --- */
enum role {
    ROLE_SNIFF,   /* accepted; nobody yet */
    ROLE_CLIENT,  /* REQ: its requests go to the lanes */
    ROLE_ASKED,   /* a link was asked for; the answer is awaited */
    ROLE_DIAL,    /* connecting, or waiting for the preamble's answer */
    ROLE_SESSION, /* joined, about to be, or ending */
    ROLE_WATCH,   /* is told pictures and news */
    ROLE_LINGER,  /* says its last bytes */
};

struct source; /* an address, and how many connections it has */

struct conn {
    struct gate *gate;
    uint32_t number;
    enum role role;
    bool dead;             /* closed; its memory goes when the loop is done with the timer */
    bool owes_ended;       /* dialled, or handed to link_asked */
    bool said_eof;         /* the other side sends no more */
    struct gate_peer peer; /* written with table_lock held */
    struct source *source; /* NULL: Unix socket, dialled */
    struct stream net;
    uint64_t received; /* atomic */
    uv_timer_t timer;
    struct ring all, half; /* half: of gate->half while it is half open */
    struct ring check;     /* of gate->checks */
    bool check_first;      /* the material has changed since its handshake began */
    struct gate_end why;

    struct {               /* ROLE_CLIENT */
        bool stalled;      /* a whole request waits in net.in */
        struct ring ready; /* ... for a lane, and nothing else */
        uint32_t in_flight;
        uint16_t by_lane[LANES_MAX];
        uint64_t active_ms;
        uint64_t begun_ms; /* when the request began that is not whole; 0: none */
    } client;
    struct session *session; /* ROLE_DIAL, ROLE_SESSION; ROLE_ASKED once accepted */
    struct watcher *watcher; /* ROLE_WATCH */
};

/* A number, a slot and the memory; on any thread. NULL: full, or no memory. */
struct conn *conn_new(struct gate *gate);
struct conn *conn_find(struct gate *gate, uint32_t number); /* the gate's thread */
void conn_adopt(struct conn *conn); /* begins its life on the gate's thread */
void conn_name(struct conn *conn, const struct sockaddr_storage *addr);
void conn_name_peer(struct conn *conn, const char *peer_id);
void conn_discard(struct conn *conn); /* one that was never adopted; any thread */
/* Closes what is open, says `ended` if it is owed. The conn may still be read in this event. */
void conn_close(struct conn *conn);
void conn_fail(struct conn *conn, int error, const char *text); /* sets why, unless set; closes */
bool conn_why(struct conn *conn, int error, const char *text);  /* false: it was set */
void conn_timer(struct conn *conn, uint64_t ms);                /* 0: off */
/* The last bytes are in net.out: flush, shut, drain, close. */
void conn_linger(struct conn *conn, uint32_t ms);
void conn_become(struct conn *conn, enum role role); /* it was accepted, and has said what it is */

int source_take(struct gate *gate, struct conn *conn, const struct sockaddr_storage *addr);
/* It is a link, whose token was good: its address may have many connections from now on, until it
 * is dropped. */
void source_linked(struct conn *conn);
void source_drop(struct conn *conn);
/* It stays nobody for now. -EUSERS: over half_open_per_source. Over half_open the oldest is closed.
 * Ends with conn_become or conn_close. */
int half_open(struct conn *conn);

/* --- sniff.c --- */
struct listener {
    struct gate *gate;
    int fd;
    bool local, polled;
    char path[PATH_MAX_UNIX];
    dev_t dev;
    ino_t ino; /* of path: another's file is not removed */
    uv_poll_t poll;
};
int listener_start(struct listener *listener);
void listener_stop(struct listener *listener);
void sniff_readable(struct conn *conn);
void sniff_answer(struct conn *conn, uint8_t status, uint8_t reason, const char *text);
void sniff_refuse(struct conn *conn, uint8_t status, uint8_t reason, const char *text);

/* --- secure.c --- */
/* Accepted, and nothing is known yet: its first byte is looked at, which must be TLS's. */
void secure_first(struct conn *conn);
void secure_dial(struct conn *conn);
/* The session has failed: counts it, says why, ends the connection. */
void secure_fail(struct conn *conn, int error);
/* Whether who is there may speak for peer_id; if not it was refused. */
bool secure_proves(struct conn *conn, const char *peer_id);
void secure_check(struct gate *gate); /* each connection, soon */
/* A few handshakes and checks, and each stream once that has bytes pending. */
void secure_run(struct gate *gate);
bool secure_waits(const struct gate *gate); /* there is more of that to do */

/* --- client.c --- */
int client_begin(struct conn *conn, const struct view *rest, size_t consumed);
void client_readable(struct conn *conn);
void client_flushed(struct conn *conn);
void client_timeout(struct conn *conn);
/* The reply's payload without the connection numbers: backtrace first. */
void client_reply(struct conn *conn, unsigned lane, const struct iovec *parts, int n_parts);
void client_lane_lost(struct conn *conn, unsigned lane);
void client_step(struct conn *conn);  /* one request of one that was ready; a lane takes it */
void client_drain(struct conn *conn); /* gate_stop: answers what was admitted, then closes */

/* --- lanes.c --- */
struct lane {
    struct gate *gate;
    unsigned index;
    bool up, hello, shut;
    struct stream stream;
    struct backoff backoff;
    uv_timer_t timer;
};
void lanes_start(struct gate *gate);
/* The lane that takes a request now, the one at `home` if it does; NULL: none. */
struct lane *lanes_pick(struct gate *gate, unsigned home);
int lanes_send(struct lane *lane, struct conn *conn, const uint8_t *payload, size_t len,
               size_t backtrace);   /* 0 or -ENOBUFS */
void lanes_feed(struct gate *gate); /* from the ready ring, a request of each in turn */
void lanes_shut(struct gate *gate); /* in order */
bool lanes_ended(struct gate *gate);
void lanes_close(struct gate *gate); /* at once: parks what is still open */

/* --- session.c --- */
struct session {
    struct conn *conn;
    char path[PATH_MAX_UNIX];
    enum sp_protocol speak, expect;
    struct gate_target target; /* ipc_path is not used: path */
    struct stream ipc;
    struct backoff backoff;
    uint64_t join_until_ms, hello_ms, end_ms, shut_ms, net_shut_ms;
    uint64_t seen;       /* whole messages read from nng */
    uint64_t sent;       /* handed to nng, as its owner says */
    uint64_t begun_left; /* bytes of the message begun towards nng that it has not taken */
    uint64_t begun;      /* messages of which nng took the first byte */
    bool dialled, hello, joined, up, ending_said, end_asked, net_gone, ipc_gone;
};
struct session *session_new(struct conn *conn, const char *path);
void session_free(struct session *session);
void session_join(struct conn *conn);
void session_net_readable(struct conn *conn);
void session_net_flushed(struct conn *conn);
void session_net_lost(struct conn *conn, int error, const char *text);
void session_timeout(struct conn *conn);
void session_end(struct conn *conn, uint64_t sent);
void session_stop(struct conn *conn);    /* gate_stop: its owner is asked for gate_end */
void session_abandon(struct conn *conn); /* the grace is over */

/* --- dial.c --- */
void dial_begin(struct conn *conn);
void dial_connected(struct conn *conn);
void dial_say(struct conn *conn); /* the preamble */
void dial_readable(struct conn *conn);

/* --- news.c --- */
struct picture { /* one that is being read, or the newest */
    struct gate *gate;
    void *maps;
    uint64_t revision, seq; /* seq: of the news behind it */
    unsigned refs;
    struct ring all, readers;
};
struct interest; /* a name, and who watches it */
struct news_log {
    struct gate_news **at; /* a ring of cap, a power of two */
    size_t cap, n, bytes;
    uint64_t first; /* the sequence number of the oldest; first + n: of the next to come */
    uint64_t head;  /* the revision reached */
    struct picture *newest;
    struct ring pictures;
    size_t n_pictures;
};
struct news {
    uint64_t epoch;
    struct gate_watch_ops ops;
    struct news_log log;
    struct interest *interests;    /* by name */
    uint64_t left_ms;              /* atomic: when the last watcher left, or 0 */
    struct ring idle, ready, wait; /* watchers of more than one name that were told all; who has
                                      something to be told; who waits for the first picture */
    uint8_t scratch[65536];
};
void news_init(struct news *news, uint64_t epoch, const struct gate_watch_ops *ops);
void news_fini(struct gate *gate);
void news_tell(struct gate *gate, struct gate_news *news);
/* NULL: not in the log (any more, or yet). */
const struct gate_news *news_at(const struct gate *gate, uint64_t seq);
/* The sequence number to go on with after revision; false: it is not remembered. */
bool news_resume(const struct gate *gate, uint64_t revision, uint64_t *out_seq);
/* A picture to begin with, for reader; picture_leave ends it. NULL: none was told yet. */
struct picture *picture_enter(struct gate *gate, struct ring *reader);
void picture_leave(struct picture *picture, struct ring *reader);
bool interest_join(struct gate *gate, struct watcher *watcher); /* false: no memory */
void interest_leave(struct gate *gate, struct watcher *watcher);

/* --- watcher.c --- */
enum watcher_phase {
    WATCHER_ASKS,    /* its request is not whole yet */
    WATCHER_WANTS,   /* ... a picture */
    WATCHER_PICTURE, /* is told one */
    WATCHER_LOG,     /* is told news */
};
struct watcher {
    struct conn *conn;
    enum watcher_phase phase;
    bool idle; /* WATCHER_LOG: was told all; seq is set when there is more */
    bool say_resync, say_synced, say_sign;
    struct gate_filter filter;
    uint32_t heartbeat_ms;
    uint64_t call_id;
    uint8_t header[48];      /* in front of each message: hop word, length, ReplyHeader */
    size_t header_len, left; /* left: unread by the other side when last looked at */
    uint64_t revision;       /* told up to; 0: nothing whole yet */
    uint64_t at_least;       /* what there was when it asked: not told before that is here */
    uint64_t seq;
    size_t event;
    uint64_t said_ms, moved_ms;
    struct picture *picture;
    struct gate_place place;
    struct interest *interest;     /* one name; else NULL */
    struct ring by_interest;       /* of its interest; else of news.idle while idle */
    struct ring by_picture, ready; /* ready: of news.ready or news.wait */
};
void watcher_begin(struct conn *conn, const struct view *rest, size_t consumed);
void watcher_readable(struct conn *conn);
void watcher_flushed(struct conn *conn);
void watcher_timeout(struct conn *conn);
void watcher_check(struct conn *conn); /* may it still? */
void watcher_stop(struct conn *conn);
void watcher_free(struct conn *conn);
void watcher_ready(struct watcher *watcher); /* there is something to tell */
/* Its place in the log, or its picture, is too old. */
void watcher_outdated(struct watcher *watcher);
/* Tells some of them what there is, for about a millisecond. */
void watchers_run(struct gate *gate);

/* --- gate.c --- */
struct slot {
    uint32_t number; /* atomic; 0: free */
    uint32_t generation;
    uint32_t next_free;
    struct conn *conn; /* valid for the gate's thread when the number is right */
};

/* How many sources have how many of something, so that the most that one has is always known. */
struct tally {
    uint32_t *sources; /* by that number, up to control_connections */
    uint64_t largest;
};

struct mail;
struct gate {
    struct limits limits;
    struct gate_ops ops;
    char rep_path[PATH_MAX_UNIX];
    unsigned n_lanes;
    uint32_t first_bytes_ms, dial_ms, idle_ms;

    uv_loop_t loop;
    uv_async_t async;
    uv_prepare_t prepare;
    uv_timer_t stop_timer;
    uv_idle_t busy; /* runs while somebody waits for its turn, so that the loop does not sleep */
    uv_thread_t thread;
    bool started;

    struct listener listeners[LISTENERS_MAX];
    unsigned n_listeners;
    struct lane lanes[LANES_MAX];
    struct ring dirty, ready, conns, half; /* half: the oldest first */
    struct tls_keeper *tls;
    struct ring handshakes, pending; /* of streams: a step can be made; bytes wait in the session */
    struct ring checks;              /* of connections */
    struct source *sources;
    struct tally by_connections, by_half_open;
    struct news news;
    int spare_fd; /* given up for a moment when descriptors run out */
    bool stopping;
    uint64_t stop_until_ms, grace_ms;
    struct gate_counters count; /* atomic */

    struct mutex table_lock;
    struct { /* only with table_lock held, but slot.number and slot.conn: see slot */
        struct slot *slots;
        uint32_t capacity, bits, fresh, n_free, first_free, last_free, used;
    } table;

    struct mutex mail_lock;
    struct { /* only with mail_lock held */
        struct mail *first, **last;
        bool shut;    /* nothing is read any more */
        bool no_dial; /* gate_stop was called */
    } mailbox;

    uint8_t scratch[SCRATCH_BYTES];
};

static inline uint64_t gate_now(const struct gate *gate) { return uv_now(&gate->loop); }

#endif
