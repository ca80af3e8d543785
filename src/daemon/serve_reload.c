/* serve_reload - the settings are read again because a local program asks for it. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "base/log.h"
#include "daemon/report.h"
#include "daemon/serve.h"

/* So that the reply has room in the smallest message that may be set. */
#define LINES_MAX 60u
#define LINE_MAX_BYTES 500u

struct reload_letter {
    struct letter letter;
    struct serve *serve;
    struct rpc_call *call;
};

static size_t cut(struct report_lines *lines)
{
    for (size_t i = 0; i < lines->n; i++)
        if (strlen(lines->at[i]) > LINE_MAX_BYTES)
            lines->at[i][LINE_MAX_BYTES] = '\0';
    return lines->n < LINES_MAX ? lines->n : LINES_MAX;
}

static void read_reload(struct letter *letter)
{
    struct reload_letter *l = CONTAINER_OF(letter, struct reload_letter, letter);
    Meshd__V1__ReloadReply reply = MESHD__V1__RELOAD_REPLY__INIT;
    struct report report;
    int r;

    atomic_fetch_sub(&l->serve->posted, 1);
    log_info("daemon", "uid %u asks on the local socket: reading all settings again",
             (unsigned)rpc_call_caller(l->call)->uid);
    r = l->serve->reload_now(l->serve->reload, &report);
    reply.n_errors = cut(&report.errors);
    reply.errors = report.errors.at;
    reply.n_changed = cut(&report.changed);
    reply.changed = report.changed.at;
    reply.n_restart = cut(&report.restart);
    reply.restart = report.restart.at;
    if (r == -ESHUTDOWN)
        rpc_call_reply(
            l->call, STATUS_UNAVAILABLE, MESHD__V1__REASON__REASON_DRAINING,
            "the node starts, or drains and is about to end: the settings are not read again",
            NULL);
    else if (r < 0)
        rpc_call_reply(l->call, STATUS_INVALID_ARGUMENT, MESHD__V1__REASON__REASON_NONE,
                       "the settings will not do: all stays as it was", &reply.base);
    else
        rpc_call_reply(l->call, STATUS_OK, MESHD__V1__REASON__REASON_NONE, "", &reply.base);
    report_fini(&report);
    free(l);
}

void serve_reload(Meshd__V1__Registry_Service *service, const Meshd__V1__ReloadRequest *request,
                  Meshd__V1__ReloadReply_Closure closure, void *closure_data)
{
    struct rpc_call *call = closure_data;
    struct reload_letter *l;

    if (!rpc_call_caller(call)->local) {
        rpc_call_reply(call, STATUS_PERMISSION_DENIED, MESHD__V1__REASON__REASON_POLICY,
                       "settings are read again only for who asks on the node's own socket", NULL);
        return;
    }
    l = must_alloc(sizeof *l);
    *l = (struct reload_letter){
        .letter.read = read_reload, .serve = (struct serve *)service, .call = call};
    if (!serve_post(l->serve, call, &l->letter))
        free(l);
}
