/* limits - the table of limits.h, row by row, for who sets and who shows them. */
#include "base/limits.h"

const struct limit_row limit_rows[] = {
#define X(field, def, least, most, unit, what)                                                     \
    {#field, unit, what, offsetof(struct limits, field), def, least, most},
    LIMITS(X)
#undef X
        {0},
};

_Static_assert(sizeof(_Atomic uint64_t) == sizeof(uint64_t), "settings are read in place");

void limits_default(struct limits *out_limits)
{
#define X(field, def, least, most, unit, what) out_limits->field = def;
    LIMITS(X)
#undef X
}

uint64_t limits_get(const struct limits *limits, const struct limit_row *row)
{
    return *(const _Atomic uint64_t *)((const char *)limits + row->offset);
}

bool limits_of_the_start(const struct limit_row *row)
{
    static const size_t offsets[] = {
#define X(field) offsetof(struct limits, field),
        LIMITS_OF_THE_START(X)
#undef X
    };

    for (size_t i = 0; i < sizeof(offsets) / sizeof(*offsets); i++)
        if (row->offset == offsets[i])
            return true;
    return false;
}

void limits_put(struct limits *limits, const struct limits *from)
{
    for (const struct limit_row *row = limit_rows; row->name; row++)
        if (!limits_of_the_start(row))
            *(_Atomic uint64_t *)((char *)limits + row->offset) = limits_get(from, row);
}
