/* meshd client - offer a service to the mesh, find one, follow it, ask how the mesh is.
 *
 *   cc $(pkg-config --cflags meshd) prog.c $(pkg-config --libs meshd)
 *
 * Threads:   any number of threads may use one mesh_client at the same time; their calls are under
 *            way side by side on its one connection. A lease, a call, a watch and a reader belong
 *            to one thread at a time; a list, once it is there, to all. Leases and replicas have
 *            one thread each of the library's own, with all signals blocked; nothing ever calls
 *            you back on it. After fork(2) the child may use none of them.
 * Ownership: what arrives through out_... is yours; end it with its _close, _cancel or _free,
 *            which accept NULL. A const pointer is borrowed from the object it came from. Strings
 *            that are handed in are copied.
 * Time:      deadline_ms counts from the call, 1 to 600000, and bounds all that a function does.
 * Failure:   unless MESH_OK comes back, no out_... was written and nothing has changed; only after
 *            MESH_TIMEOUT and MESH_GONE may a request still take effect. mesh_error_text() says
 *            why.
 * Loss:      a connection that breaks is made again, and what was asked is asked again, as long as
 *            there is time: every call here may safely be carried out twice. What opens something
 *            fails at once when nobody listens there.
 * Sources:   proto/meshd/v1/mesh.proto and the README's protocol section say what travels.
 */
#ifndef MESHD_CLIENT_H
#define MESHD_CLIENT_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

struct mesh_client;  /* one connection to one meshd */
struct mesh_lease;   /* one offer, kept alive until closed */
struct mesh_list;    /* one answer: it never changes after it arrives */
struct mesh_call;    /* one question under way */
struct mesh_maps;    /* both maps of a node, as of one moment */
struct mesh_watch;   /* what comes, changes and goes, oldest first */
struct mesh_replica; /* a copy of what a node knows, in this process, kept up to date */
struct mesh_reader;  /* one thread's access to a replica */

enum mesh_status {
    MESH_OK,
    MESH_NOT_FOUND, /* nobody offers it */
    MESH_REFUSED, /* turned down by the node: not allowed, over a limit, held by somebody else; or a
                     certificate was refused, by either side */
    MESH_TIMEOUT, /* no whole answer within the deadline */
    MESH_GONE,    /* no meshd can be reached there, or it went away */
    MESH_NO_MEMORY,
    MESH_INVALID,  /* an argument that cannot be: a name, an address, a URL, a deadline */
    MESH_PROTOCOL, /* what answers there is not a meshd, or speaks another wire version */
};
/* A constant: "not found", "refused" ... */
const char *mesh_status_text(enum mesh_status status);
/* Why the last function that failed on this thread did, one clause for people; "" if none has. What
 * a node sent is in it with its control bytes escaped. Borrowed until the next failure. */
const char *mesh_error_text(void);
/* "0.1.0" of the library that runs. */
const char *mesh_version(void);

/* What is known of one offer. */
enum {
    MESH_LOCAL = 1,     /* of the node that was asked */
    MESH_CONNECTED = 2, /* its owner's link is up */
    MESH_STALE = 4,     /* the link is lost, the offer kept for a while */
    MESH_HEALTHY = 8,   /* its backend answers, as far as is known */
    MESH_DRAINING = 16, /* it takes no new clients, or its owner is about to leave */
};
struct mesh_instance {
    const char *name;    /* canonical: "billing" */
    const char *node;    /* the owner's peer id: "n7" */
    const char *source;  /* "local", the owner's ip, or ip#peer_id if two peers share one */
    const char *address; /* of the backend, as its owner reaches it: "10.0.0.7:4100" */
    uint64_t last_seen;  /* last sign of life of the owner, unix seconds; 0 for MESH_LOCAL. In a
                            watch and a replica: as of when the instance was told */
    unsigned state;      /* MESH_LOCAL | ... */
};

/* ---- the connection ---- */

/* url: tcp://host:port, tls://host:port, tcp://[v6]:port, ipc:///path/meshd.sock. NULL: MESHD_ADDR,
 * else the node's local socket, else tcp://127.0.0.1:7400, as meshcat chooses. MESH_GONE at once
 * when nobody listens there. */
enum mesh_status mesh_client_open(const char *url, int deadline_ms,
                                  struct mesh_client **out_client);

/* For tls://: TLS 1.3, where both sides show a certificate of the mesh's CA. All are PEM files.
 * What is NULL or "" is taken from the environment: PEER_TLS_CA, PEER_TLS_CERT, PEER_TLS_KEY; a key
 * that is given nowhere is in the certificate's file. */
struct mesh_tls {
    size_t size;      /* sizeof(struct mesh_tls): later versions may have more behind it */
    const char *ca;   /* who is trusted */
    const char *cert; /* this program's certificate, then those between it and the CA */
    const char *key;  /* of that certificate; not of PEER_TLS_KEY when cert is given */
    const char *node; /* the peer id that must answer; NULL or "": any node of the mesh. The host of
                         the URL is no name of anybody: it is not looked at */
    int insecure;     /* not 0: whoever answers is taken, without a CA; to try something out */
};
/* As mesh_client_open. tls, which is copied, is for tls:// alone, and may be NULL. Leases and
 * watches of the client use it too. The files are read now, and again before each later connection,
 * so that a renewed certificate is used. MESH_INVALID: a file is missing or will not do, or they do
 * not fit together. MESH_REFUSED: the node's certificate is not of the CA, is expired, or names
 * another; or the node refused ours. */
enum mesh_status mesh_client_open_tls(const char *url, const struct mesh_tls *tls, int deadline_ms,
                                      struct mesh_client **out_client);
/* Nothing of it may be in use. Leases, watches and replicas are independent of it. */
void mesh_client_close(struct mesh_client *client);
const char *mesh_client_url(const struct mesh_client *client); /* the one chosen */

/* ---- finding ---- */

/* Everyone offering name, best first: local, then connected, then draining, then unhealthy ones,
 * then those that are not connected yet, then stale ones. MESH_NOT_FOUND instead of an empty
 * list. */
enum mesh_status mesh_lookup(struct mesh_client *client, const char *name, int deadline_ms,
                             struct mesh_list **out_list);
/* 1 to 1000 names in one request. MESH_OK also when none is found: see mesh_list_of. MESH_INVALID
 * when one of them cannot be a name. */
enum mesh_status mesh_lookup_many(struct mesh_client *client, const char *const *names, size_t n,
                                  int deadline_ms, struct mesh_list **out_list);

size_t mesh_list_count(const struct mesh_list *list); /* instances */
const struct mesh_instance *mesh_list_at(const struct mesh_list *list, size_t index); /* or NULL */
/* The *out_n instances of names[which], side by side; NULL and 0: nobody offers it. */
const struct mesh_instance *mesh_list_of(const struct mesh_list *list, size_t which, size_t *out_n);
void mesh_list_free(struct mesh_list *list);

/* Many questions under way at once from one thread: begin hands a request over, wait gives its
 * answer, in any order. Requests leave together when the first of them is waited for, or by
 * mesh_client_flush. The call is ended by wait, whatever it returns, or by cancel; all of a
 * client's calls before the client. */
enum mesh_status mesh_lookup_begin(struct mesh_client *client, const char *const *names, size_t n,
                                   int deadline_ms, struct mesh_call **out_call);
enum mesh_status mesh_call_wait(struct mesh_call *call, struct mesh_list **out_list);
void mesh_call_cancel(struct mesh_call *call);
enum mesh_status mesh_client_flush(struct mesh_client *client);

/* How name would be routed now: visit gets each candidate, in the order of choice, borrowed for the
 * call; the first is the one chosen; why says why, or why another came before. A non-zero return of
 * visit stops early. MESH_NOT_FOUND: no candidate. */
enum mesh_status mesh_explain(struct mesh_client *client, const char *name, int deadline_ms,
                              int (*visit)(void *ctx, const struct mesh_instance *instance,
                                           int chosen, const char *why),
                              void *ctx);

/* ---- offering ---- */

/* Offer address ("host:port", "[v6]:port") under name until the lease is closed or this process
 * dies (then within 15 s). client must be connected to the node's local socket (ipc://), or by
 * tls:// to a node whose policy lets it. The lease has a connection and a thread of its own; when
 * the node was away, the offer is made again. */
enum mesh_status mesh_register(struct mesh_client *client, const char *name, const char *address,
                               int deadline_ms, struct mesh_lease **out_lease);

/* How a service is offered. A field that is 0 or NULL is as in brackets, and then the offer is that
 * of mesh_register. */
struct mesh_offer {
    size_t size; /* sizeof(struct mesh_offer): later versions may have more behind it, which must be
                    0 for a library that does not know it */
    /* How the node finds out whether the backend answers: "tcp": it accepts a connection;
     * "http:/path": it answers GET with a status of 200 to 399. [clients alone show it] */
    const char *check;
    unsigned check_interval_ms; /* from one look to the next, 100 to 3600000 [5000] */
    unsigned check_timeout_ms;  /* of one look, 50 to 60000 [2000] */
    unsigned check_rise;        /* so many good looks in a row make it healthy again [2] */
    unsigned check_fall;        /* so many bad ones make it unhealthy [3]; of all looks the first
                                   decides at once when it is bad */
    int proxy_protocol; /* 1 or 2: the backend is told of the client first, by a header of that
                           version of the PROXY protocol [none] */
    int draining;       /* not 0: it takes no new clients: not yet, or not any more. Those that it
                           has go on */
};
/* As mesh_register; offer is copied, and may be NULL. MESH_INVALID also: it has what cannot be. */
enum mesh_status mesh_register_with(struct mesh_client *client, const char *name,
                                    const char *address, const struct mesh_offer *offer,
                                    int deadline_ms, struct mesh_lease **out_lease);
/* Offers the same name under the same lease at another address or in another way, in one step; what
 * is NULL stays. What is known of a backend that stays is kept, and so are clients. With both NULL
 * it is renewed now. MESH_REFUSED, MESH_INVALID: it stands as it did. MESH_TIMEOUT, MESH_GONE: it
 * is tried on. */
enum mesh_status mesh_lease_change(struct mesh_lease *lease, const char *address,
                                   const struct mesh_offer *offer, int deadline_ms);
/* How it stands: MESH_OK; MESH_GONE: the node is away, it is tried on; MESH_REFUSED: it turned the
 * renewal down, it is tried on. */
enum mesh_status mesh_lease_state(struct mesh_lease *lease);
/* What the node said of the service when it was offered last, at most 5 s ago while the lease
 * stands: MESH_HEALTHY; MESH_DRAINING, by this offer or by hand (meshcat drain). Without
 * MESH_HEALTHY, mesh_error_text() is what the last look or client met: "answered 503". A watch of
 * the name tells it at once, of the instance that is MESH_LOCAL. */
unsigned mesh_lease_service(struct mesh_lease *lease);
/* Withdraws the offer; waits for that at most 1 s. */
void mesh_lease_close(struct mesh_lease *lease);

/* ---- following ---- */

enum mesh_change {
    MESH_UP,      /* an instance that is new here */
    MESH_CHANGED, /* its address or state is another now */
    MESH_DOWN,    /* it went; the instance as it was last */
    MESH_SYNCED,  /* all that is known now was told; instance NULL */
    MESH_AWAY,    /* the node is away: what was told may be out of date; instance NULL */
};
/* Begins with one MESH_UP per instance known now, then MESH_SYNCED, so nothing falls between lookup
 * and watch. name: one name, a pattern (* and ?), or NULL for all. A watch has a connection of its
 * own. When that breaks, MESH_AWAY is told; the watch connects again by itself and goes on where it
 * was: what changed meanwhile is told as UP, CHANGED and DOWN, then MESH_SYNCED. */
enum mesh_status mesh_watch_open(struct mesh_client *client, const char *name, int deadline_ms,
                                 struct mesh_watch **out_watch);
/* The instance is borrowed until the next call. MESH_TIMEOUT: nothing happened. MESH_REFUSED,
 * MESH_PROTOCOL: it is over. */
enum mesh_status mesh_watch_next(struct mesh_watch *watch, int deadline_ms,
                                 enum mesh_change *out_change,
                                 const struct mesh_instance **out_instance);
/* Readable when mesh_watch_next(watch, 1, ...) may have something to do, for poll(2) and loops:
 * call it until MESH_TIMEOUT. The same descriptor for the watch's life; it is the watch's. Take it
 * out of an epoll before the watch is closed: closing does not, while a child that was forked holds
 * a copy. */
int mesh_watch_fd(const struct mesh_watch *watch);
void mesh_watch_close(struct mesh_watch *watch);

/* ---- a copy at hand ---- */

/* Follows the node at url (as mesh_client_open); name as mesh_watch_open. Returns when the copy is
 * complete for the first time. It goes on answering while its node is away. */
enum mesh_status mesh_replica_open(const char *url, const char *name, int deadline_ms,
                                   struct mesh_replica **out_replica);
/* The same; tls as of mesh_client_open_tls. */
enum mesh_status mesh_replica_open_tls(const char *url, const struct mesh_tls *tls,
                                       const char *name, int deadline_ms,
                                       struct mesh_replica **out_replica);
void mesh_replica_close(struct mesh_replica *replica); /* after all its readers */

enum mesh_status mesh_reader_open(struct mesh_replica *replica, struct mesh_reader **out_reader);
void mesh_reader_close(struct mesh_reader *reader);
/* As mesh_lookup, without a call: no system call, no lock, no memory once the reader's is large
 * enough. The list is a copy, borrowed until the reader's next lookup. */
enum mesh_status mesh_replica_lookup(struct mesh_reader *reader, const char *name,
                                     const struct mesh_list **out_list);
/* 1: the copy followed its node when the list was made; 0: the node was away, or the copy not yet
 * complete again. Lists of mesh_lookup: 1. */
int mesh_list_current(const struct mesh_list *list);

struct mesh_replica_state {
    int current;              /* as mesh_list_current */
    uint64_t age_ms;          /* since the node was heard of last: at most 1000 while it is there */
    uint64_t epoch, revision; /* of the node, as far as it was followed */
    size_t instances;
    uint64_t changes, resyncs, reconnects; /* since it was opened */
};
void mesh_replica_state(struct mesh_replica *replica, struct mesh_replica_state *out_state);

/* ---- asking how the mesh is ---- */

struct mesh_peer {
    const char *source, *node;            /* as in mesh_instance */
    uint64_t last_sync, last_seen;        /* unix seconds */
    unsigned state;                       /* MESH_CONNECTED, MESH_STALE, MESH_DRAINING */
    const struct mesh_instance *services; /* by name */
    size_t n_services;
};
struct mesh_filter {  /* NULL in each field: all */
    const char *name; /* a pattern: * and ? */
    const char *peer; /* "local", a source, or a peer id */
};
/* The maps services and peer_services, from one revision however many pages they take. filter may
 * be NULL. */
enum mesh_status mesh_maps_fetch(struct mesh_client *client, const struct mesh_filter *filter,
                                 int deadline_ms, struct mesh_maps **out_maps);
uint64_t mesh_maps_epoch(const struct mesh_maps *maps);
uint64_t mesh_maps_revision(const struct mesh_maps *maps);
size_t mesh_maps_services(const struct mesh_maps *maps);
const struct mesh_instance *mesh_maps_service_at(const struct mesh_maps *maps, size_t index);
size_t mesh_maps_peers(const struct mesh_maps *maps);
const struct mesh_peer *mesh_maps_peer_at(const struct mesh_maps *maps, size_t index);
void mesh_maps_free(struct mesh_maps *maps);

/* What the daemon says of itself, as pairs: keys are paths of field names of IntrospectReply, such
 * as "node.links.0.state". topic: "node", "limits", "services" or "peers" (MESH_INVALID). visit
 * gets one borrowed pair at a time; a non-zero return stops early. */
enum mesh_status mesh_introspect(struct mesh_client *client, const char *topic, int deadline_ms,
                                 int (*visit)(void *ctx, const char *key, const char *value),
                                 void *ctx);

#ifdef __cplusplus
}
#endif
#endif
