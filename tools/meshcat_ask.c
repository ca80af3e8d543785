/* meshcat_ask - questions out, answers in, and what every failure means for who asked. */
#include "meshcat_ask.h"
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include "base/cleanup.h"
#include "base/clock.h"
#include "wire/frame.h"

void session_fini(struct session *s)
{
    call_close(s->conn);
    trust_unref(s->trust);
    free(s->url);
}

/* ---- what went wrong ---- */

int tell_failure(const struct session *s, int error, bool connecting)
{
    const struct meshcat_opts *o = s->opts;

    switch (error) {
    case -EINVAL:
        return show_error(o, EXIT_USAGE, -1,
                          "'%s' is no address to ask; write tcp://host:port, tls://host:port "
                          "or ipc:///path",
                          s->url);
    case -EKEYREJECTED:
        return show_error(o, EXIT_DENIED, -1,
                          "%s: %s; check --cacert, -E and --key, and --node if it is given", s->url,
                          s->why[0] ? s->why : "one side's certificate was refused by the other");
    case -ENAMETOOLONG:
        return show_error(o, EXIT_USAGE, -1,
                          "the path in %s is longer than a Unix socket's may be; use a shorter one",
                          s->url);
    case -ENOMEM:
        return show_error(o, EXIT_LOCAL, -1, "out of memory; ask for less at once");
    case -ETIMEDOUT:
        return show_error(o, EXIT_TIMEOUT, -1,
                          "%s gave no whole answer within %.3f s; check the address, or give more "
                          "time with --timeout",
                          s->url, o->timeout_ms / 1000.0);
    case -EACCES:
    case -EPERM:
        return show_error(o, EXIT_DENIED, -1,
                          "%s: %s; run meshcat as the user of meshd, or dial its tcp:// address",
                          s->url, strerror(-error));
    case -EPROTO:
    case -EBADMSG:
        if (s->why[0])
            return show_error(o, EXIT_PROTOCOL, -1, "%s: %s", s->url, s->why);
        return show_error(o, EXIT_PROTOCOL, -1,
                          "what answers at %s is not a meshd; check the address and the port",
                          s->url);
    case -EMSGSIZE:
    case -E2BIG:
        return show_error(o, EXIT_PROTOCOL, -1,
                          "the answer of %s is larger than an answer may be; check the address, or "
                          "ask for less with --name or --limit",
                          s->url);
    case -ENXIO:
        return show_error(o, EXIT_CONNECT, -1,
                          "cannot connect to %s: no address is known for that name; check its "
                          "spelling, or ask by number",
                          s->url);
    default:
        break;
    }
    if (connecting && s->why[0])
        return show_error(o, EXIT_CONNECT, -1, "cannot connect to %s: %s", s->url, s->why);
    if (connecting)
        return show_error(o, EXIT_CONNECT, -1,
                          "cannot connect to %s: %s; is meshd running there? another node is asked "
                          "with --dial URL or -x PATH",
                          s->url, strerror(-error));
    return show_error(o, EXIT_PROTOCOL, -1,
                      "%s ended the connection before its answer was whole (%s); look at its log, "
                      "or ask again",
                      s->url, strerror(-error));
}

static const char *what_next(unsigned status)
{
    switch (status) {
    case STATUS_INVALID_ARGUMENT:
    case STATUS_OUT_OF_RANGE:
        return "check the command's words and options";
    case STATUS_RESOURCE_EXHAUSTED:
        return "ask for less at once, or try again in a moment";
    case STATUS_UNAVAILABLE:
    case STATUS_NOT_FOUND: /* a page token that was too slow */
    case STATUS_ABORTED:
    case STATUS_DEADLINE_EXCEEDED:
        return "try again in a moment";
    case STATUS_PERMISSION_DENIED:
    case STATUS_UNAUTHENTICATED:
        return "ask through the node's own socket (-x PATH), or, where its policy decides, have it "
               "allowed there";
    case STATUS_UNIMPLEMENTED:
        return "use the meshcat of the node's version";
    case STATUS_ALREADY_EXISTS:
    case STATUS_FAILED_PRECONDITION:
        return "see what holds it with meshcat services";
    default:
        return "look at the node's log";
    }
}

int tell_status(const struct session *s, const struct call_reply *reply)
{
    int code = EXIT_STATUS + (int)reply->status;

    if (reply->status == STATUS_FAILED_PRECONDITION &&
        reply->reason == MESHD__V1__REASON__REASON_WIRE_VERSION && reply->wire_version_max > 0)
        return show_error(s->opts, EXIT_PROTOCOL, (int)reply->status,
                          "%s speaks wire versions %u to %u and this meshcat %u to %u; use the "
                          "meshcat of the node's version",
                          s->url, reply->wire_version_min, reply->wire_version_max,
                          WIRE_VERSION_MIN, WIRE_VERSION_MAX);
    if (reply->status == STATUS_PERMISSION_DENIED || reply->status == STATUS_UNAUTHENTICATED)
        code = EXIT_DENIED;
    else if (reply->status == STATUS_DEADLINE_EXCEEDED)
        code = EXIT_TIMEOUT;
    else if (reply->status >= 128 - EXIT_STATUS ||
             reply->reason == MESHD__V1__REASON__REASON_WIRE_VERSION) /* no code is left below those
                                                                         of signals */
        code = EXIT_PROTOCOL;
    return show_error(s->opts, code, reply->status > INT32_MAX ? -1 : (int)reply->status,
                      "%s answers %s%s%s; %s", s->url, status_name(reply->status),
                      reply->text[0] ? ": " : "", reply->text, what_next(reply->status));
}

/* ---- asking ---- */

int session_trust(struct session *s)
{
    const struct meshcat_opts *o = s->opts;
    char why[TLS_WHY];
    int r;

    if (s->trust)
        return 0;
    if (!trust_wanted(s->url) && o->tls_given)
        return show_error(o, EXIT_USAGE, -1,
                          "certificates are for tls:// addresses, and %s is none; write "
                          "tls://host:port, or leave them out",
                          s->url);
    r = trust_for(s->url, &o->tls, why, &s->trust);
    if (r == -ENOMEM)
        return tell_failure(s, r, true);
    return r < 0 ? show_error(o, EXIT_USAGE, -1, "%s; see meshcat --help", why) : 0;
}

int session_connect(struct session *s)
{
    int code = session_trust(s), r;

    if (code)
        return code;
    r = call_open(s->url, s->trust, s->deadline_ms, s->why, &s->conn);
    return r < 0 ? tell_failure(s, r, true) : 0;
}

void session_at(struct session *s, const struct meshcat_opts *opts, const char *url)
{
    *s = (struct session){
        .opts = opts, .url = must_dup(url), .deadline_ms = clock_ms() + opts->timeout_ms};
}

int session_begin(struct session *s, const struct meshcat_opts *opts, bool local_only)
{
    int code;

    *s = (struct session){.opts = opts, .deadline_ms = clock_ms() + opts->timeout_ms};
    code = target_url(opts, local_only, &s->url);
    return code ? code : session_connect(s);
}

int ask_any(struct session *s, const char *method, const ProtobufCMessage *request,
            struct call_reply **out_reply)
{
    CLEANUP(call_reply_freep) struct call_reply *reply = NULL;
    int r = call_invoke(s->conn, method, request, s->deadline_ms, &reply);

    if (r < 0)
        return tell_failure(s, r, false);
    if (reply->packed_len > s->opts->recv_max)
        return show_error(s->opts, EXIT_PROTOCOL, -1,
                          "the answer of %s has %zu bytes and --recv-maxsz allows %" PRIu32
                          "; raise it, or ask for less with --name or --limit",
                          s->url, reply->packed_len, s->opts->recv_max);
    *out_reply = TAKE(&reply);
    return 0;
}

int ask(struct session *s, const char *method, const ProtobufCMessage *request,
        struct call_reply **out_reply)
{
    CLEANUP(call_reply_freep) struct call_reply *reply = NULL;
    int code = ask_any(s, method, request, &reply);

    if (code == 0 && reply->status != STATUS_OK)
        code = tell_status(s, reply);
    if (code)
        return code;
    *out_reply = TAKE(&reply);
    return 0;
}
