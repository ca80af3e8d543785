/* answers - see answers.h. */
#include "client/answers.h"
#include <stdlib.h>
#include <string.h>

#define NAMES_MAX 1000

void answer_lookup(struct fake *fake, int fd, const struct fake_call *call)
{
    const Meshd__V1__LookupRequest *request = (const Meshd__V1__LookupRequest *)call->request;
    Meshd__V1__LookupReply reply = MESHD__V1__LOOKUP_REPLY__INIT;
    Meshd__V1__Route route = MESHD__V1__ROUTE__INIT, *routes[] = {&route};
    Meshd__V1__LookupResult *results = calloc(NAMES_MAX, sizeof(*results)), *at[NAMES_MAX];

    if (!results || request->n_names > NAMES_MAX)
        abort();
    route.ip = (char *)"10.0.0.7";
    route.peer_id = (char *)"n7";
    route.backend_addr = (char *)"10.0.0.7:4100";
    route.connected = route.healthy = 1;
    route.last_seen = 1700000000;
    for (size_t i = 0; i < request->n_names; i++) {
        at[i] = &results[i];
        meshd__v1__lookup_result__init(at[i]);
        at[i]->name = request->names[i];
        if (strcmp(request->names[i], "bad..name") == 0) {
            at[i]->reason = MESHD__V1__REASON__REASON_BAD_NAME;
        } else if (strcmp(request->names[i], "nobody") != 0) {
            at[i]->routes = routes;
            at[i]->n_routes = 1;
        }
    }
    reply.results = at;
    reply.n_results = request->n_names;
    fake_reply(fake, fd, call, 0, 0, "", &reply.base);
    free(results);
}

void serve_answers(struct fake *fake, int fd)
{
    struct fake_call call;

    if (!fake_greet(fd))
        return;
    while (fake_read(fake, fd, &call)) {
        answer_lookup(fake, fd, &call);
        fake_call_fini(&call);
    }
}
