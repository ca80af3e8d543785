/* record_rig - a rig of two nodes whose records of forwards are kept, and what the suites about
 * them share: asking, a client that was joined, and what is expected to have been told.
 */
#ifndef TESTS_FORWARD_RECORD_RIG_H
#define TESTS_FORWARD_RECORD_RIG_H

#include "forward/rig.h"

#define RECORDS_KEPT 64u

struct kept {
    struct forward_record record;
    char name[LIMIT_NAME + 1], peer_id[LIMIT_PEER_ID + 1], backend[LIMIT_BACKEND + 1];
    char text[FORWARD_RECORD_TEXT];
};

extern struct rig rig;
extern char addr[32];                  /* of the backend of "web", */
extern int listener;                   /* ... which listens */
extern struct kept kept[RECORDS_KEPT]; /* to be read once records_are */
extern size_t n_kept;
extern const char record_request[]; /* for "web" */

void record_setup(void);
void record_want(enum forward_records records); /* of both sides */
void record_start(enum side owner);             /* all are wanted */
void record_finish(void);                       /* insists on nothing being left */
bool records_are(void *arg);                    /* so many (a size_t), for wait_until */
/* The record of one of n, which are all there are by then. */
struct kept *record_of(size_t n, bool owner);
int record_ask_with(enum side from, const char *words);
int record_ask(enum side from);
/* The one client, of whom no owner hears, or the other end of n. */
void record_ended(size_t n, enum forward_end how, const char *name, const char *text);
void record_times_fit(const struct forward_record *record);
/* Joined over two nodes, before a byte came back. */
void record_join(int *out_client, int *out_backend);
void record_both_ended(enum forward_end how, const char *text);

#endif
