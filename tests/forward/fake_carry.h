/* fake_carry - plays carry.h for ingress: keeps what it was asked, and answers as it was told to.
 */
#ifndef TESTS_FORWARD_FAKE_CARRY_H
#define TESTS_FORWARD_FAKE_CARRY_H

#include <pthread.h>
#include "forward/carry.h"

struct fake_ask {
    char name[LIMIT_NAME + 1];
    struct tuple tuple;
    uint8_t first[70000];
    size_t first_len;
    uint64_t left_ms; /* until the deadline */
};
extern struct fake_carry {
    pthread_mutex_t lock; /* for all of it */
    /* How it answers; FAKE_SET. */
    enum forward_end begins;  /* of carry_begin */
    bool holds;               /* until fake_carry_answer */
    enum forward_end end;     /* DONE: joined with what listens at backend */
    const char *text, *early; /* of a refusal; of the backend */
    size_t delivered;         /* of the first bytes, by itself */
    bool in_passage;          /* passage_end is to be called */
    struct sockaddr_in backend;
    struct fake_ask last;
    unsigned begun, cancelled, left, held;
    struct carry *first_held;
} fake;
#define FAKE_SET(field, value)                                                                     \
    ({                                                                                             \
        pthread_mutex_lock(&fake.lock);                                                            \
        fake.field = (value);                                                                      \
        pthread_mutex_unlock(&fake.lock);                                                          \
    })

void fake_carry_init(void);
struct fake_ask fake_carry_last(void);
unsigned fake_carry_begun(void);
unsigned fake_carry_cancelled(void);
unsigned fake_carry_left(void);
unsigned fake_carry_held(void);
void fake_carry_answer(void); /* whatever is held; any thread */

#endif
