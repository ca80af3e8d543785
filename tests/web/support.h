/* support - an admin port with its daemon faked, over maps of a real registry; and a client that
 * sends bytes as they are told. Everything waits for an event, with a deadline. */
#ifndef TESTS_WEB_SUPPORT_H
#define TESTS_WEB_SUPPORT_H

#include <pthread.h>
#include <stdatomic.h>
#include "registry/help.h"
#include "web/web.h"

#define WAIT_MS 30000
#define NOWHERE                                                                                    \
    "nothing is here; there are / /events /healthz /readyz /metrics /v1/services /v1/peers "       \
    "/v1/node /v1/explain"

struct rig {
    struct web *web;
    struct registry *reg;
    struct limits limits;   /* to be changed before rig_start */
    struct web_times times; /* likewise */
    const char *host;       /* likewise; "127.0.0.1" */
    char at[64];
    uint16_t port;
    atomic_bool hold; /* nothing is answered while set ... */
    atomic_int asked; /* ... and so often it was asked */
    atomic_int dropped;
    pthread_mutex_t lock;
    uint64_t held; /* the last that was not answered */
};
void rig_init(struct rig *rig);   /* with the maps: local web and db; p1 at 192.0.2.1; p2 stale */
void rig_listen(struct rig *rig); /* who connects waits for rig_start, which does it, too */
void rig_start(struct rig *rig);
void rig_stop(struct rig *rig);
/* Answers the one that is held. */
void rig_answer_held(struct rig *rig);
struct web_counters rig_count(struct rig *rig);
#define RIG_WAIT(rig, expr)                                                                        \
    ({                                                                                             \
        __attribute__((unused)) struct web_counters c;                                             \
        uint64_t until_ = rig_now_ms() + WAIT_MS;                                                  \
        while (c = rig_count(rig), !(expr) && rig_now_ms() < until_)                               \
            rig_nap();                                                                             \
        cr_assert(expr, "after %d ms not: %s", WAIT_MS, #expr);                                    \
    })
uint64_t rig_now_ms(void);
void rig_nap(void);

int rig_connect(struct rig *rig, const char *from); /* from: an address of loopback, or NULL */
void send_text(int fd, const char *text);
/* Until the other side closes. */
bool is_closed(int fd);

struct reply {
    int status;
    char *head, *body; /* with NULs behind; body without chunks */
    size_t len;
};
/* The next answer on fd; status 0: it was closed before. head_only: of a HEAD. */
struct reply reply_read(int fd, bool head_only);
void reply_fini(struct reply *reply);
/* "GET path" on a connection of its own. more: further lines of the head, or "". */
struct reply get(struct rig *rig, const char *path, const char *more);

/* An answer is what, exactly. */
void expect_error(struct rig *rig, const char *path, const char *more, int status,
                  const char *text);

#endif
