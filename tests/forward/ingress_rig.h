/* ingress_rig - ingress ports on workers of their own, with a fake carry and a listening backend.
 *
 * Everything waits for an event, with a deadline.
 */
#ifndef TESTS_FORWARD_INGRESS_RIG_H
#define TESTS_FORWARD_INGRESS_RIG_H

#include <netinet/in.h>
#include "forward/fake_carry.h"
#include "forward/ingress.h"
#include "forward/inside.h"

#define WAIT_MS 30000
#define RIG_PORTS 4u

struct rig {
    struct forward forward;
    struct worker *workers;
    bool runs;
    uint16_t ports[RIG_PORTS];
    char text[RIG_PORTS][64]; /* of ports, as bound */
    int backend;              /* listens */
    atomic_bool held;
    atomic_uint n_did; /* workers */
};
/* Settings (forward.limits, route_ms ..) may be changed before rig_start. */
void rig_init(struct rig *rig);
/* host NULL is 127.0.0.1, name and fallback NULL are "". */
void rig_start(struct rig *rig, unsigned n_workers, const struct forward_ingress *ports, size_t n);
void rig_hold(struct rig *rig);  /* no worker does anything until rig_drain */
void rig_drain(struct rig *rig); /* every worker has stopped accepting, and the ports are closed */
void rig_stop(struct rig *rig);  /* idempotent */
struct forward_counters rig_count(struct rig *rig);
/* Every client that was accepted is there, or has an end of one kind. */
bool rig_adds_up(struct rig *rig);

#define WAIT_FOR(expr)                                                                             \
    ({                                                                                             \
        uint64_t until_ = now_ms() + WAIT_MS;                                                      \
        while (!(expr) && now_ms() < until_)                                                       \
            nap();                                                                                 \
        cr_assert(expr, "after %d ms not: %s", WAIT_MS, #expr);                                    \
    })
/* Likewise, of fresh counters `c`. */
#define RIG_WAIT(rig, expr)                                                                        \
    ({                                                                                             \
        struct forward_counters c;                                                                 \
        WAIT_FOR((c = rig_count(rig), (expr)));                                                    \
    })

uint64_t now_ms(void);
void nap(void); /* between two looks at something that cannot be waited for */
size_t open_descriptors(void);

/* --- sockets: blocking, with WAIT_MS as their time-out --- */
int dial_port(uint16_t port); /* 127.0.0.1; negative errno: refused, or reset already */
int dial_from(const char *ip, uint16_t port);
int take_backend(struct rig *rig); /* the other end of a client that was joined */
void say(int fd, const void *data, size_t len);
void say_text(int fd, const char *text);
/* Exactly that comes next. */
bool hears(int fd, const void *data, size_t len);
bool hears_text(int fd, const char *text);
bool hears_end(int fd);   /* FIN, and nothing before it */
bool hears_reset(int fd); /* RST, and nothing before it */
/* All until FIN, as text. -1: it was broken off, or time-out. */
ssize_t hear_all(int fd, char *text, size_t size);
void break_off(int fd); /* RST */

/* A ClientHello in one record; name NULL: none. Returns its length. */
size_t make_hello(uint8_t out[512], const char *name);

#endif
