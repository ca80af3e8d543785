/* error - one buffer per thread; nothing in it was trusted. */
#include "client/error.h"
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <meshd/v1/mesh.pb-c.h>
#include "wire/status.h"

static _Thread_local char last[ERROR_TEXT];

/* As much of it as fits, made safe for terminals and logs. UTF-8 stays. */
static void keep(const char *text)
{
    size_t used = 0;

    for (; *text && used + 5 < sizeof(last); text++) {
        unsigned char c = (unsigned char)*text;

        /* U+0080 to U+009F, in UTF-8, are control characters too. */
        if (c < 0x20 || c == 0x7f ||
            (c == 0xc2 && (unsigned char)text[1] >= 0x80 && (unsigned char)text[1] < 0xa0))
            used += (size_t)snprintf(last + used, sizeof(last) - used, "\\x%02x", c);
        else
            last[used++] = *text;
    }
    last[used] = '\0';
}

enum mesh_status error_set(enum mesh_status status, const char *format, ...)
{
    char text[ERROR_TEXT];
    va_list ap;

    va_start(ap, format);
    vsnprintf(text, sizeof(text), format, ap);
    va_end(ap);
    keep(text);
    return status;
}

enum mesh_status error_status(int r)
{
    switch (-r) {
    case 0:
        return MESH_OK;
    case ENOMEM:
        return MESH_NO_MEMORY;
    case EINVAL:
    case ENAMETOOLONG:
        return MESH_INVALID;
    case ETIMEDOUT:
        return MESH_TIMEOUT;
    case EKEYREJECTED:
        return MESH_REFUSED;
    case EPROTO:
    case EBADMSG:
    case EMSGSIZE:
    case E2BIG:
        return MESH_PROTOCOL;
    default:
        return MESH_GONE;
    }
}

/* Where strerror speaks of something else than what has happened here. */
static const char *text_of(int r)
{
    switch (-r) {
    case EINVAL:
        return "not a URL of the form tcp://host:port, tls://host:port or ipc:///path";
    case ENXIO:
        return "no address is known for that name";
    case ETIMEDOUT:
        return "no whole answer within the deadline";
    case EPROTO:
        return "what answers there is not a meshd";
    case EBADMSG:
        return "the answer makes no sense";
    case EMSGSIZE:
    case E2BIG:
        return "the answer is larger than any may be";
    case EKEYREJECTED:
        return "one side's certificate was refused by the other";
    case ECONNRESET:
        return "the connection was closed by the other side";
    default:
        return strerrordesc_np(-r) ? strerrordesc_np(-r) : "unknown error";
    }
}

enum mesh_status error_errno(int r, const char *what)
{
    return error_set(error_status(r), "%s: %s", what, text_of(r));
}

enum mesh_status error_why(int r, const char *what, const char *why)
{
    if (!why[0])
        return error_errno(r, what);
    return error_set(error_status(r), "%s: %s", what, why);
}

static enum mesh_status status_of(unsigned status)
{
    switch (status) {
    case STATUS_OK:
        return MESH_OK;
    case STATUS_INVALID_ARGUMENT:
        return MESH_INVALID;
    case STATUS_CANCELLED:
    case STATUS_DEADLINE_EXCEEDED:
        return MESH_TIMEOUT;
    case STATUS_NOT_FOUND:
        return MESH_NOT_FOUND;
    case STATUS_ALREADY_EXISTS:
    case STATUS_PERMISSION_DENIED:
    case STATUS_RESOURCE_EXHAUSTED:
    case STATUS_FAILED_PRECONDITION:
    case STATUS_ABORTED:
    case STATUS_OUT_OF_RANGE:
    case STATUS_UNAUTHENTICATED:
        return MESH_REFUSED;
    case STATUS_UNAVAILABLE:
        return MESH_GONE;
    default:
        return MESH_PROTOCOL; /* UNIMPLEMENTED and INTERNAL too: it is no meshd that we know */
    }
}

enum mesh_status error_answer(const struct error_answer *answer)
{
    if (answer->reason == MESHD__V1__REASON__REASON_WIRE_VERSION)
        return error_set(MESH_PROTOCOL, "the node speaks wire versions %u to %u, not 1: %.*s",
                         answer->wire_version_min, answer->wire_version_max, (int)answer->text_len,
                         answer->text);
    return error_set(status_of(answer->status), "%s: %.*s", status_name(answer->status),
                     (int)answer->text_len, answer->text);
}

const char *mesh_error_text(void) { return last; }

const char *mesh_status_text(enum mesh_status status)
{
    static const char *const texts[] = {
        [MESH_OK] = "ok",
        [MESH_NOT_FOUND] = "not found",
        [MESH_REFUSED] = "refused",
        [MESH_TIMEOUT] = "timeout",
        [MESH_GONE] = "gone",
        [MESH_NO_MEMORY] = "no memory",
        [MESH_INVALID] = "invalid argument",
        [MESH_PROTOCOL] = "protocol error",
    };

    if ((size_t)status >= sizeof(texts) / sizeof(*texts))
        return "unknown status";
    return texts[status];
}

const char *mesh_version(void) { return MESHD_VERSION; }
