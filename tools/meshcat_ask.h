/* meshcat_ask - one node that is being asked, within one deadline. What fails is told on stderr
 * with what to do next; the functions then return the exit code for it. */
#ifndef MESHCAT_ASK_H
#define MESHCAT_ASK_H

#include "client/call.h"
#include "meshcat.h"

struct session {
    const struct meshcat_opts *opts;
    char *url;
    struct trust *trust;    /* of tls://, once it is connected to; else NULL */
    struct call_conn *conn; /* or NULL */
    char why[TLS_WHY];      /* more of a failure to connect than its errno says, or "" */
    uint64_t deadline_ms;
};

/* Chooses the node and connects; the deadline begins now. *s needs session_fini in any case. */
int session_begin(struct session *s, const struct meshcat_opts *opts, bool local_only);
/* Not connected yet; the deadline begins now, and session_connect may follow. */
void session_at(struct session *s, const struct meshcat_opts *opts, const char *url);
int session_connect(struct session *s); /* to s->url, by s->deadline_ms */
/* Reads what the options name for tls://, for who connects by other means. */
int session_trust(struct session *s);
void session_fini(struct session *s);

/* 0 and an answer (call_reply_free), whatever its status. */
int ask_any(struct session *s, const char *method, const ProtobufCMessage *request,
            struct call_reply **out_reply);
/* 0 and an answer whose status is OK. */
int ask(struct session *s, const char *method, const ProtobufCMessage *request,
        struct call_reply **out_reply);
/* Tells of a failure below the calls, a negative errno. connecting: before anything was asked. */
int tell_failure(const struct session *s, int error, bool connecting);
/* Tells of an answer whose status is not OK. */
int tell_status(const struct session *s, const struct call_reply *reply);

#endif
