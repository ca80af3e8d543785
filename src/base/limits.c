/* limits - the table of limits.h, row by row, for who sets and who shows them. */
#include "base/limits.h"

const struct limit_row limit_rows[] = {
#define X(field, def, least, most, unit, what)                                                     \
    {#field, unit, what, offsetof(struct limits, field), def, least, most},
    LIMITS(X)
#undef X
        {0},
};

void limits_default(struct limits *out_limits)
{
#define X(field, def, least, most, unit, what) out_limits->field = def;
    LIMITS(X)
#undef X
}
