/* end - the table of ends, and which end follows from what. */
#include "forward/end.h"

#include <errno.h>
#include <meshd/v1/mesh.pb-c.h>

const struct forward_end_row forward_ends[N_FORWARD_ENDS] = {
#define X(id, word, status, text) [FORWARD_##id] = {word, text, status},
    FORWARD_ENDS(X)
#undef X
};

enum forward_end forward_end_of_error(int error)
{
    switch (-error) {
    case ETIMEDOUT:
        return FORWARD_BACKEND_TIMED_OUT;
    case ENOMEM:
    case EMFILE:
    case ENFILE:
    case ENOBUFS:
    case EADDRNOTAVAIL: /* no port left */
        return FORWARD_NO_MEMORY;
    default:
        return FORWARD_BACKEND_REFUSED;
    }
}

enum forward_end forward_end_of_refusal(int refusal)
{
    switch (refusal) {
    case MESHD__V1__REFUSAL__REFUSAL_BACKEND_REFUSED:
        return FORWARD_BACKEND_REFUSED;
    case MESHD__V1__REFUSAL__REFUSAL_BACKEND_TIMED_OUT:
        return FORWARD_BACKEND_TIMED_OUT;
    case MESHD__V1__REFUSAL__REFUSAL_DRAINING:
        return FORWARD_DRAINING;
    case MESHD__V1__REFUSAL__REFUSAL_OVER_LIMIT:
        return FORWARD_OVER_LIMIT;
    case MESHD__V1__REFUSAL__REFUSAL_NOT_ALLOWED:
        return FORWARD_NOT_ALLOWED;
    default:
        return FORWARD_NO_OWNER; /* REFUSAL_NO_SUCH_NAME: known here, not there any more */
    }
}
