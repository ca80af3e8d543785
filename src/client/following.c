/* following - see following.h. */
#include "client/following.h"
#include <errno.h>
#include <string.h>
#include "base/limits.h"
#include "client/error.h"
#include "wire/name.h"

/* The glob to ask for: a name in its canonical spelling, a pattern as it is. */
static enum mesh_status glob_of(const char *name, char out_glob[LIMIT_NAME + 1])
{
    size_t len = strlen(name);
    enum name_error wrong;

    if (!strpbrk(name, "*?")) {
        wrong = name_canon(name, len, out_glob);
        return wrong ? error_set(MESH_INVALID, "the name %s", name_error_text(wrong)) : MESH_OK;
    }
    if (len > LIMIT_NAME)
        return error_set(MESH_INVALID, "the pattern has more than %u bytes", LIMIT_NAME);
    memcpy(out_glob, name, len + 1);
    return MESH_OK;
}

enum mesh_status following_new(const char *url, struct trust *trust, const char *name,
                               uint32_t heartbeat_ms, struct follow **out_follow)
{
    struct follow_settings settings = {.url = url, .trust = trust, .heartbeat_ms = heartbeat_ms};
    char glob[LIMIT_NAME + 1];
    int r;

    if (name) {
        enum mesh_status status = glob_of(name, glob);

        if (status != MESH_OK)
            return status;
        settings.name_glob = glob;
    }
    r = follow_new(&settings, out_follow);
    return r < 0 ? error_errno(r, url) : MESH_OK;
}

enum mesh_status following_error(const struct follow *follow, int r)
{
    struct follow_status status;

    if (r == -ETIMEDOUT)
        return error_set(MESH_TIMEOUT, "nothing has come within the deadline");
    if (r < 0)
        return error_errno(r, "watch");
    follow_status(follow, &status);
    if (status.status != STATUS_OK) {
        enum mesh_status answer = error_answer(&(struct error_answer){
            .status = status.status,
            .reason = (unsigned)status.reason,
            .text = status.text,
            .text_len = strlen(status.text),
            .wire_version_min = status.wire_version_min,
            .wire_version_max = status.wire_version_max,
        });

        /* A node that ends a watch for good is there, and does not want it. */
        return r == FOLLOW_ENDED && answer != MESH_PROTOCOL ? MESH_REFUSED : answer;
    }
    return error_why(status.error, "watch", status.why);
}

enum mesh_status following_first(struct follow *follow, uint64_t deadline_ms,
                                 const Meshd__V1__WatchReply **out_reply)
{
    struct follow_status status;
    int r;

    do {
        r = follow_next(follow, deadline_ms, out_reply);
        follow_status(follow, &status);
    } while (r == FOLLOW_LOST && status.error == -ETIMEDOUT);
    return r == 0 ? MESH_OK : following_error(follow, r);
}
