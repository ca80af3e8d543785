/* support - a gate with its surroundings faked: a REP socket that echoes, and what the owner of
 * links is told, recorded in order. Everything waits for an event, with a deadline. */
#ifndef TESTS_GATE_SUPPORT_H
#define TESTS_GATE_SUPPORT_H

#include <stdatomic.h>
#include <netinet/in.h>
#include <pthread.h>
#include "gate/gate.h"
#include "wire/sp.h"

#define WAIT_MS 30000

/* The same suites are built once more with this set: the gate has TLS, and what they dial is
 * bridged (bridge.h). What is about plain connections only is left out there. */
#ifndef GATE_TLS
#define GATE_TLS false
#endif

/* --- plays nng's REP: any number of lanes, each on a thread of its own --- */
struct fake_rep {
    char path[108];
    int listener;
    pthread_t thread;
    atomic_bool hold; /* takes nothing while set */
    atomic_bool stop;
    atomic_int lanes, lanes_seen, unclean; /* unclean: ended inside a message */
    atomic_uint_fast64_t requests;
    atomic_int kick; /* so many lanes are closed at their next request */
};
void fake_rep_start(struct fake_rep *rep, const char *path);
void fake_rep_stop(struct fake_rep *rep);

/* --- plays the owner of links --- */
enum told { TOLD_ASKED, TOLD_UP, TOLD_ENDING, TOLD_ENDED };
struct told_event {
    enum told what;
    uint32_t conn;
    struct gate_peer peer;
    struct preamble preamble;
    struct gate_end why;
    bool taken;
};
struct rig {
    struct gate *gate;
    struct fake_rep rep;
    struct limits limits;
    uint32_t first_bytes_ms, dial_ms, idle_ms;
    unsigned lanes;
    uint64_t epoch;
    struct gate_watch_ops watch_ops;
    struct tls_keeper *tls; /* the gate's, and of what dial_gate dials; NULL: plaintext */
    bool end_at_once;       /* `ending` is answered with gate_end(0) */
    int (*data)(void *ctx, int fd, struct tls *tls, const struct gate_peer *from,
                const struct preamble *preamble, const uint8_t *rest, size_t rest_len,
                const char **out_text); /* ctx: the rig */
    char dir[64], unix_path[128];
    struct sockaddr_storage at;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    struct told_event *told;
    size_t n_told, cap_told;
};
void rig_init(struct rig *rig); /* settings to be changed before rig_start */
void rig_start(struct rig *rig);
void rig_stop(struct rig *rig);
void *rig_quit(void *rig); /* gate_stop alone, as the body of a thread */
/* The first event of that kind not yet taken; conn 0: of any connection. False: deadline. */
bool rig_told(struct rig *rig, enum told what, uint32_t conn, struct told_event *out);
size_t rig_told_count(struct rig *rig, enum told what);
struct gate_counters rig_count(struct rig *rig);
/* Waits until the expression over `c`, fresh counters, is true. */
#define RIG_WAIT(rig, expr)                                                                        \
    ({                                                                                             \
        __attribute__((unused)) struct gate_counters c;                                            \
        uint64_t until_ = now_ms() + WAIT_MS;                                                      \
        while (c = rig_count(rig), !(expr) && now_ms() < until_)                                   \
            nap();                                                                                 \
        cr_assert(expr, "after %d ms not: %s", WAIT_MS, #expr);                                    \
    })

uint64_t now_ms(void);
void nap(void); /* between two looks at something that cannot be waited for */
unsigned test_seed(void);
long env_number(const char *name, long usual);
size_t open_descriptors(void);
size_t resident_bytes(void); /* after giving back what is free */
size_t heap_bytes(void);     /* in use, of malloc */

/* --- sockets: blocking, with WAIT_MS as their time-out --- */
int dial_gate(struct rig *rig);
int dial_plain(struct rig *rig); /* no TLS, whatever the gate has */
void set_timeouts(int fd);
int dial_unix(const char *path);
int listen_unix(const char *path);
int accept_within(int listener); /* -1: nobody came */
bool send_all(int fd, const void *data, size_t len);
bool recv_all(int fd, void *data, size_t len);
/* The other side has ended the connection; what it still said is passed over. */
bool closed_by_gate(int fd);
bool send_hello(int fd, enum sp_protocol protocol);
bool recv_hello(int fd, enum sp_protocol protocol);
bool send_message(int fd, enum sp_framing framing, const void *payload, size_t len);
/* The length, or -1; at most cap bytes. */
ssize_t recv_message(int fd, enum sp_framing framing, void *payload, size_t cap);
/* A connection that has said hello as REQ. */
int req_client(struct rig *rig);
/* id word with the top bit, then len bytes that follow from id. */
size_t make_request(uint8_t *out, uint32_t id, size_t len);
void reset_and_close(int fd); /* RST */

#endif
