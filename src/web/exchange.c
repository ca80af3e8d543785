/* exchange - one request: its route, what is asked of the daemon, its end.
 *
 * libmicrohttpd calls twice for a request without a body: when its head is here, and when it is
 * whole; it is answered then. While the daemon is asked, the connection is suspended.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "web/inside.h"

static enum MHD_Result health(struct exchange *ex) { return exchange_ask(ex, WEB_HEALTH, ""); }
static enum MHD_Result ready(struct exchange *ex) { return exchange_ask(ex, WEB_READY, ""); }
static enum MHD_Result metrics(struct exchange *ex) { return exchange_ask(ex, WEB_METRICS, ""); }
static enum MHD_Result node(struct exchange *ex) { return exchange_ask(ex, WEB_NODE, ""); }

static enum MHD_Result explain(struct exchange *ex)
{
    if (!(ex->query.given & QUERY_NAME))
        return reply_error(ex, 400, "which name? ask for /v1/explain?name=NAME");
    return exchange_ask(ex, WEB_EXPLAIN, ex->query.name);
}

const struct route routes[] = {
    {"/", 0, false, page_show},
    {"/events", 0, false, readers_answer},
    {"/healthz", 0, true, health},
    {"/readyz", 0, true, ready},
    {"/metrics", 0, true, metrics},
    {"/v1/services", QUERY_GLOB | QUERY_PEER | QUERY_STATE, false, maps_services},
    {"/v1/peers", QUERY_GLOB | QUERY_PEER | QUERY_STATE, false, maps_peers},
    {"/v1/node", 0, false, node},
    {"/v1/explain", QUERY_NAME, false, explain},
    {0},
};

static const struct route *route_of(const char *path)
{
    for (const struct route *route = routes; route->path; route++)
        if (strcmp(route->path, path) == 0)
            return route;
    return NULL;
}

static enum MHD_Result no_route(struct exchange *ex)
{
    char list[512] = "";
    size_t len = 0;

    for (const struct route *route = routes; route->path && len < sizeof list; route++)
        len += (size_t)snprintf(list + len, sizeof list - len, " %s", route->path);
    return reply_error(ex, 404, "nothing is here; there are%s", list);
}

/* ---- arguments ---- */

struct taking {
    struct exchange *ex;
    bool bad;
    char why[QUERY_WHY];
};

static enum MHD_Result take(void *cls, enum MHD_ValueKind kind, const char *key, size_t key_len,
                            const char *value, size_t value_len)
{
    struct taking *t = cls;

    t->bad = !query_take(&t->ex->query, t->ex->route->args, key, key_len, value ? value : "",
                         value ? value_len : 0, t->why);
    return t->bad ? MHD_NO : MHD_YES;
}

static enum MHD_Result begin(struct exchange *ex, const char *url)
{
    struct taking t = {.ex = ex};

    conn_state(ex->conn, CONN_ASKED);
    if (*url != '/') /* http://HOST/path: the Host was looked at */
        url = strchr(url + strlen("http://"), '/');
    ex->route = route_of(url);
    if (!ex->route)
        return no_route(ex);
    if (ex->conn->spare && !ex->route->probe) {
        atomic_fetch_add(&ex->web->counters.closed_no_descriptor, 1);
        return reply_error(ex, 503,
                           "the node has no descriptors left, but for /healthz, /readyz and "
                           "/metrics; try again later");
    }
    MHD_get_connection_values_n(ex->conn->mhd, MHD_GET_ARGUMENT_KIND, take, &t);
    if (t.bad)
        return reply_error(ex, 400, "%s", t.why);
    return ex->route->answer(ex);
}

/* ---- asking ---- */

static void answered(struct asking *asking, const struct web_answer *answer)
{
    struct exchange *ex = CONTAINER_OF(asking, struct exchange, asking);

    if (answer)
        ex->answer = *answer;
    ex->state = answer ? EXCHANGE_ANSWERED : EXCHANGE_LATE;
    conn_resume(ex->conn);
}

enum MHD_Result exchange_ask(struct exchange *ex, enum web_question question, const char *argument)
{
    ex->state = EXCHANGE_WAITS;
    ex->question = question;
    ex->asking.answered = answered;
    MHD_suspend_connection(ex->conn->mhd);
    ask(ex->web, &ex->asking, question, argument);
    return MHD_YES;
}

void exchange_cut(struct exchange *ex)
{
    if (ex->state == EXCHANGE_WAITS) {
        ask_give_up(&ex->asking);
        answered(&ex->asking, NULL);
    } else if (ex->stream) {
        stream_wake(ex->stream);
    }
}

static enum MHD_Result render(struct exchange *ex)
{
    struct web_body body = {.status = 200};

    if (!ex->answer.render(ex->answer.data, &body))
        return reply_error(ex, 503, "no memory for the answer; try again later");
    return reply_body(ex, &body, NULL);
}

/* ---- for libmicrohttpd ---- */

static struct exchange *exchange_new(struct web *web, struct MHD_Connection *mhd)
{
    const union MHD_ConnectionInfo *info =
        MHD_get_connection_info(mhd, MHD_CONNECTION_INFO_SOCKET_CONTEXT);
    struct exchange *ex = calloc(1, sizeof *ex);

    if (!ex)
        return NULL;
    ring_init(&ex->asking.ring);
    ex->web = web;
    ex->conn = info->socket_context;
    ex->conn->exchange = ex;
    atomic_fetch_add(&web->counters.requests, 1);
    return ex;
}

enum MHD_Result exchange_handle(void *cls, struct MHD_Connection *mhd, const char *url,
                                const char *method, const char *version, const char *upload,
                                size_t *upload_size, void **con_cls)
{
    struct exchange *ex = *con_cls;
    struct web *web = cls;

    if (!ex) {
        ex = *con_cls = exchange_new(web, mhd);
        if (!ex)
            return MHD_NO;
        ex->head_only = strcmp(method, MHD_HTTP_METHOD_HEAD) == 0;
        return MHD_YES;
    }
    if (ex->conn->cut)
        return MHD_NO;
    switch (ex->state) {
    case EXCHANGE_NEW:
        return begin(ex, url);
    case EXCHANGE_ANSWERED:
        return render(ex);
    case EXCHANGE_LATE:
        return reply_error(ex, 503, "%s has not answered for %g s",
                           ex->question == WEB_HEALTH ? "the main loop" : "the node",
                           (ex->question == WEB_HEALTH ? web->times.health : web->times.asked) /
                               1e3);
    case EXCHANGE_WAITS:
    case EXCHANGE_REPLIED:
        break;
    }
    return MHD_YES;
}

void exchange_completed(void *cls, struct MHD_Connection *mhd, void **con_cls,
                        enum MHD_RequestTerminationCode why)
{
    struct exchange *ex = *con_cls;

    if (!ex)
        return;
    *con_cls = NULL;
    ask_give_up(&ex->asking);
    if (ex->answer.drop)
        ex->answer.drop(ex->answer.data);
    if (ex->stream) /* libmicrohttpd may let go of the answer a little later */
        ex->stream->exchange = NULL;
    ex->conn->exchange = NULL;
    arrival_unfollow(ex->conn);
    free(ex);
}
