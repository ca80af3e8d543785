/* meshcat_reload - has the node on this host read its settings again. */
#include "base/cleanup.h"
#include "meshcat.h"
#include "meshcat_ask.h"
#include "meshcat_format.h"

/* Each as an error of its own, so that none has to be picked out of a text. */
static int tell_errors(const struct meshcat_opts *opts, enum status status,
                       const Meshd__V1__ReloadReply *reply)
{
    int code = EXIT_STATUS + (int)status;

    for (size_t i = 0; i < reply->n_errors; i++)
        show_error(opts, code, (int)status, "%s", reply->errors[i]);
    return code;
}

int run_reload(const struct meshcat_opts *opts)
{
    CLEANUP(session_fini) struct session s = {.conn = NULL};
    CLEANUP(call_reply_freep) struct call_reply *reply = NULL;
    Meshd__V1__ReloadRequest request = MESHD__V1__RELOAD_REQUEST__INIT;
    const Meshd__V1__ReloadReply *answer = NULL;
    int code = session_begin(&s, opts, true);

    if (code == 0)
        code = ask_any(&s, "Reload", &request.base, &reply);
    if (code)
        return code;
    answer = (const Meshd__V1__ReloadReply *)reply->message;
    if (reply->status == STATUS_INVALID_ARGUMENT && answer && answer->n_errors)
        return tell_errors(opts, reply->status, answer);
    if (reply->status != STATUS_OK)
        return tell_status(&s, reply);
    if (format_is_message(opts))
        format_message(opts, reply->message, reply->packed, reply->packed_len);
    else
        show_reload(opts, answer);
    for (size_t i = 0; i < answer->n_restart; i++)
        show_note(opts, "%s changed: it takes effect when the node starts again",
                  answer->restart[i]);
    return EXIT_FOUND;
}
