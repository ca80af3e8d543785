/* end - why a client's connection ended, in one list: what is counted, shown and answered.
 *
 * X(id, word, status, text): the word in counters; what an HTTP client is told when nothing of an
 * answer has reached it (0: never told), and the half sentence beside it. Sources: RFC 9110 15
 * (status codes), RFC 6585 5 (431), RFC 9112 3.2 (Host).
 */
#ifndef FORWARD_END_H
#define FORWARD_END_H

#define FORWARD_ENDS(X)                                                                            \
    /* joined, then: */                                                                            \
    X(DONE, "done", 0, "both sides ended in order")                                                \
    X(CLIENT_RESET, "client_reset", 0, "the client broke the connection off")                      \
    X(BACKEND_RESET, "backend_reset", 0, "the backend, or the way to it, broke off")               \
    X(IDLE, "idle", 0, "no byte for idle_timeout")                                                 \
    X(HALF_CLOSED, "half_closed", 0, "no byte for half_close_timeout after one side had ended")    \
    X(REVOKED, "revoked", 0, "cut off: the peer on the way would not be let in any more")          \
    X(DRAINED, "drained", 0, "cut off at the end of drain_timeout")                                \
    /* not joined: */                                                                              \
    X(CLIENT_SILENT, "client_silent", 0, "closed without a byte")                                  \
    X(CLIENT_GONE, "client_gone", 0, "the client gave up before it was joined")                    \
    X(BAD_REQUEST, "bad_request", 400, "what arrived is no request that can be routed")            \
    X(NO_NAME, "no_name", 400, "no service was named, and this port has no default")               \
    X(NO_SUCH_NAME, "no_such_name", 404, "no such service is known here")                          \
    X(TOO_SLOW, "too_slow", 408, "the request did not arrive within route_timeout")                \
    X(HEAD_TOO_BIG, "head_too_big", 431, "the request's head is above limits.ingress_head_bytes")  \
    X(BACKEND_REFUSED, "backend_refused", 502, "the backend refused the connection")               \
    X(OWNER_LOST, "owner_lost", 502, "the way to the owner broke while it was being used")         \
    X(NOT_ALLOWED, "not_allowed", 403, "the owner does not allow it")                              \
    X(NO_OWNER, "no_owner", 503, "no owner of the service is connected")                           \
    X(DRAINING, "draining", 503, "every owner is draining")                                        \
    X(OVER_LIMIT, "over_limit", 503, "over a limit")                                               \
    X(NO_MEMORY, "no_memory", 503, "out of memory or descriptors")                                 \
    X(BACKEND_TIMED_OUT, "backend_timed_out", 504, "the backend did not answer in time")           \
    X(OWNER_SILENT, "owner_silent", 504, "the owner did not answer in time")

enum forward_end {
#define X(id, word, status, text) FORWARD_##id,
    FORWARD_ENDS(X)
#undef X
        N_FORWARD_ENDS
};

struct forward_end_row {
    const char *word, *text;
    int status;
};
extern const struct forward_end_row forward_ends[N_FORWARD_ENDS];

/* Of a dial that failed, a negative errno; of an owner that refused, as in mesh.proto. */
enum forward_end forward_end_of_error(int error);
enum forward_end forward_end_of_refusal(int refusal);

#endif
