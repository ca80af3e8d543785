/* end - the table of ends. */
#include "forward/end.h"

const struct forward_end_row forward_ends[N_FORWARD_ENDS] = {
#define X(id, word, status, text) [FORWARD_##id] = {word, text, status},
    FORWARD_ENDS(X)
#undef X
};
