/* follow - one Watch of one node, kept up: it connects, connects again, and goes on where it was.
 *
 * What watch, replica and meshcat are made of. A connection of kind watch (wire/frame.h, 1) carries
 * one WatchRequest and then WatchReply messages. follow remembers the last (epoch, revision) that a
 * message gave and asks to go on from there after a loss. It waits between attempts with back-off
 * (0.1 s doubling to 5 s, with jitter) and takes a node that is silent for three heartbeats, plus
 * half a second, for lost.
 *
 * Threads:   one at a time. None of its own.
 * Time:      deadlines are on clock_ms(); one in the past looks once and does not wait.
 */
#ifndef CLIENT_FOLLOW_H
#define CLIENT_FOLLOW_H

#include <stddef.h>
#include <stdint.h>
#include <meshd/v1/mesh.pb-c.h>
#include "client/trust.h"
#include "wire/sp.h"
#include "wire/status.h"

struct follow;

struct follow_settings {
    const char *url;                    /* copied, as all strings here */
    struct trust *trust;                /* for tls://, else NULL; shared */
    const char *name_glob, *peer;       /* as in WatchRequest; NULL: all */
    uint32_t heartbeat_ms;              /* 0: the node's usual */
    uint64_t from_epoch, from_revision; /* 0: begin with a picture */
};

/* Nothing is dialled yet. 0, -ENOMEM, -EINVAL: no such URL. */
int follow_new(const struct follow_settings *settings, struct follow **out_follow);
void follow_free(struct follow *follow); /* accepts NULL */
void follow_freep(struct follow **follow);
/* Takes a connected stream socket in place of its next attempt to connect, for plaintext. 0 or
 * -errno, and then fd is closed. */
int follow_adopt(struct follow *follow, int fd, enum sp_framing framing);

enum follow_outcome {
    FOLLOW_LOST = 1, /* the connection is gone, or an attempt has failed; follow_error says why. The
                        next call tries on. Told for every loss and every failed attempt. */
    FOLLOW_ENDED,    /* the node refused for good; follow_status says how. So will the next call. */
};
/* The next message, which lives until the next call. -ETIMEDOUT, -ENOMEM, or a follow_outcome.
 * An attempt to connect goes on over any number of calls, however short their deadlines; it has 5 s
 * until the node has answered. */
int follow_next(struct follow *follow, uint64_t deadline_ms,
                const Meshd__V1__WatchReply **out_reply);
/* The packed WatchReply of the last message, as it came; likewise. */
void follow_raw(const struct follow *follow, const uint8_t **out_data, size_t *out_len);

struct follow_status {
    int error;       /* FOLLOW_LOST: why, a negative errno; -EBUSY: turned away for now; -EBADMSG,
                        -EMSGSIZE, -E2BIG: what answers there speaks something else;
                        -EKEYREJECTED: one side's certificate was refused */
    const char *why; /* more of that, as channel_why has it; never NULL */
    unsigned status; /* FOLLOW_ENDED, and FOLLOW_LOST with -EBUSY: enum status; else STATUS_OK */
    Meshd__V1__Reason reason;
    const char *text; /* never NULL; not to be trusted with control bytes */
    uint32_t wire_version_min, wire_version_max; /* spoken there; 0: unknown */
    int connected;                               /* a message has come on the present connection */
    uint64_t heard_ms;        /* when the last one came, on clock_ms(); 0: never */
    uint64_t epoch, revision; /* where it would go on */
    uint64_t connects;        /* so far, of those that answered */
};
void follow_status(const struct follow *follow, struct follow_status *out_status);

/* Readable (poll(2)) whenever follow_next has something to do: bytes, an end, or a time that has
 * come. One descriptor for the follow's life. */
int follow_fd(const struct follow *follow);
/* Makes it readable until follow_next has next found nothing: for who still holds a message. */
void follow_ring(struct follow *follow);

#endif
