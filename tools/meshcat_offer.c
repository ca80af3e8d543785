/* meshcat_offer - what changes a node, through its own socket: offer, withdraw, drain, enable. */
#include <inttypes.h>
#include <string.h>
#include "base/cleanup.h"
#include "base/hash.h"
#include "base/limits.h"
#include "client/offered.h"
#include "meshcat.h"
#include "meshcat_ask.h"
#include "meshcat_format.h"
#include "wire/name.h"

/* "meshcat:" and the name; of a name too long for it the beginning and its hash, so that the same
 * name has the same lease next time. */
static void default_lease(const char *name, char out[LIMIT_PEER_ID + 1])
{
    int n = snprintf(out, LIMIT_PEER_ID + 1, "meshcat:%s", name);

    if (n > (int)LIMIT_PEER_ID)
        snprintf(out, LIMIT_PEER_ID + 1, "meshcat:%.39s~%016" PRIx64, name,
                 hash_entry(name, strlen(name), "", 0, 0));
}

/* The first word as a canonical name; 0, or the exit code of an error that was told. */
static int name_arg(const struct meshcat_opts *opts, char out_name[LIMIT_NAME + 1])
{
    enum name_error e = name_canon(opts->args[0], strlen(opts->args[0]), out_name);

    if (e == NAME_OK)
        return 0;
    return show_error(opts, EXIT_USAGE, -1,
                      "'%s' %s; a name has letters, digits, - _ and dots, at most 253 bytes",
                      opts->args[0], name_error_text(e));
}

int run_offer(const struct meshcat_opts *opts)
{
    CLEANUP(session_fini) struct session s = {.conn = NULL};
    CLEANUP(call_reply_freep) struct call_reply *reply = NULL;
    Meshd__V1__OfferRequest request;
    const Meshd__V1__OfferReply *answer;
    struct offered offered;
    char name[LIMIT_NAME + 1], lease[LIMIT_PEER_ID + 1];
    int code = name_arg(opts, name);

    if (code)
        return code;
    /* Of the rest the options are known to be sound. */
    if (offered_read(name, opts->args[1], &opts->offer, &offered) != MESH_OK)
        return show_error(opts, EXIT_USAGE, -1,
                          "'%s' is no address of a service; write host:port or [v6]:port",
                          opts->args[1]);
    default_lease(name, lease);
    offered_request(&offered, &request);
    request.lease_id = opts->lease ? (char *)opts->lease : lease;
    request.ttl_ms = opts->ttl_ms;
    code = session_begin(&s, opts, true);
    if (code == 0)
        code = ask(&s, "Offer", &request.base, &reply);
    if (code)
        return code;
    answer = (const Meshd__V1__OfferReply *)reply->message;
    if (format_is_message(opts))
        format_message(opts, reply->message, reply->packed, reply->packed_len);
    else
        show_offer(opts, answer, request.lease_id, offered.backend);
    if (answer->draining && !offered.draining)
        show_note(opts, "%s: it was drained by hand, and is still; meshcat enable %s ends that",
                  name, name);
    if (answer->unhealthy)
        show_note(opts, "%s: its backend does not answer, as far as is known: %s", name,
                  answer->why[0] ? answer->why : "the reason is not known");
    if (opts->verbose)
        show_note(opts, "%s offers %s at %s now", s.url, name, offered.backend);
    return EXIT_FOUND;
}

int run_withdraw(const struct meshcat_opts *opts)
{
    CLEANUP(session_fini) struct session s = {.conn = NULL};
    CLEANUP(call_reply_freep) struct call_reply *reply = NULL;
    Meshd__V1__WithdrawRequest request = MESHD__V1__WITHDRAW_REQUEST__INIT;
    char name[LIMIT_NAME + 1];
    uint32_t removed = 0;
    int code = name_arg(opts, name);

    if (code)
        return code;
    request.name = name;
    if (opts->lease)
        request.lease_id = (char *)opts->lease;
    code = session_begin(&s, opts, true);
    if (code == 0)
        code = ask_any(&s, "Withdraw", &request.base, &reply);
    /* That there is nothing to withdraw is an answer like any other here. */
    if (code == 0 && reply->status != STATUS_OK && reply->status != STATUS_NOT_FOUND)
        code = tell_status(&s, reply);
    if (code)
        return code;
    if (reply->status == STATUS_OK)
        removed = ((const Meshd__V1__WithdrawReply *)reply->message)->removed;
    if (!format_is_message(opts))
        show_withdraw(opts, name, removed);
    else if (reply->message)
        format_message(opts, reply->message, reply->packed, reply->packed_len);
    if (removed > 0)
        return EXIT_FOUND;
    show_note(opts,
              "%s: no lease holds it; meshcat services --peer local lists what is offered here",
              name);
    return EXIT_NOTHING;
}

int run_drain(const struct meshcat_opts *opts)
{
    CLEANUP(session_fini) struct session s = {.conn = NULL};
    CLEANUP(call_reply_freep) struct call_reply *reply = NULL;
    Meshd__V1__DrainRequest request = MESHD__V1__DRAIN_REQUEST__INIT;
    const Meshd__V1__DrainReply *answer;
    char name[LIMIT_NAME + 1];
    int code = name_arg(opts, name);

    if (code)
        return code;
    request.name = name;
    request.enable = opts->cmd->bit == CMD_ENABLE;
    code = session_begin(&s, opts, true);
    if (code == 0)
        code = ask_any(&s, "Drain", &request.base, &reply);
    if (code == 0 && reply->status == STATUS_NOT_FOUND)
        return show_error(opts, EXIT_NOTHING, (int)reply->status,
                          "%s: this node does not offer it; meshcat services --peer local lists "
                          "what it does",
                          name);
    if (code == 0 && reply->status != STATUS_OK)
        code = tell_status(&s, reply);
    if (code)
        return code;
    answer = (const Meshd__V1__DrainReply *)reply->message;
    if (format_is_message(opts))
        format_message(opts, reply->message, reply->packed, reply->packed_len);
    else
        show_drain(opts, name, answer);
    if (request.enable && answer->draining)
        show_note(opts,
                  "%s: its offer has it drain still; that ends when it is offered again without",
                  name);
    if (opts->verbose && !answer->changed)
        show_note(opts, "%s: it was so already", name);
    return EXIT_FOUND;
}
