/* passage - of one client, from when it is joined until its connection is gone. */
#include "forward/passage.h"

#include "forward/service.h"

bool passage_may(const struct passage *passage)
{
    return !passage->session || session_may(passage->session);
}

void passage_end(struct worker *worker, struct passage *passage)
{
    if (!passage)
        return;
    if (passage->session)
        atomic_fetch_sub(&passage->session->carried->active, 1);
    session_unref(passage->session);
    row_unref(passage->row);
    service_leave(worker->forward->services, passage->service);
    free(passage);
}

void passage_way(const struct passage *passage, struct way *out)
{
    const struct session *session = passage->session;

    *out = (struct way){.name = passage->row->name,
                        .peer_id = session ? session->info.peer_id : NULL,
                        .backend = session ? NULL : passage->row->backend,
                        .id = session ? passage->id : NULL,
                        .tries = passage->tries,
                        .named_us = passage->named_us,
                        .joined_us = passage->joined_us};
}
