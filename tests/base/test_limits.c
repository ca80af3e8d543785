/* The table of limits. */
#include <criterion/criterion.h>
#include <string.h>
#include "base/limits.h"

Test(limits, table_has_a_row_for_every_field)
{
    size_t n = 0;

    for (const struct limit_row *row = limit_rows; row->name; row++) {
        cr_expect_eq(row->offset, n * sizeof(uint64_t), "%s", row->name);
        cr_expect(row->unit && row->unit[0] && row->what && row->what[0], "%s", row->name);
        n++;
    }
    cr_expect_eq(n * sizeof(uint64_t), sizeof(struct limits));
}

Test(limits, defaults_are_within_their_range)
{
    for (const struct limit_row *row = limit_rows; row->name; row++) {
        cr_expect_leq(row->least, row->def, "%s", row->name);
        cr_expect_leq(row->def, row->most, "%s", row->name);
        /* Only of what is kept ahead of need can there be none. */
        cr_expect(row->least > 0 || strcmp(row->name, "data_warm_per_link") == 0, "%s", row->name);
    }
}

Test(limits, default_fills_every_field)
{
    struct limits limits;

    memset(&limits, 0xff, sizeof(limits));
    limits_default(&limits);
    for (const struct limit_row *row = limit_rows; row->name; row++) {
        uint64_t value;

        memcpy(&value, (const char *)&limits + row->offset, sizeof(value));
        cr_expect_eq(value, row->def, "%s", row->name);
    }
    cr_expect_eq(limits.message_bytes, 1048576);
}

Test(limits, names_are_unique)
{
    for (const struct limit_row *a = limit_rows; a->name; a++) {
        for (const struct limit_row *b = a + 1; b->name; b++)
            cr_expect_str_neq(a->name, b->name);
    }
}

Test(limits, others_are_put_in_their_place_but_for_those_of_the_start)
{
    struct limits limits, others;
    unsigned n = 0;

    limits_default(&limits);
    for (const struct limit_row *row = limit_rows; row->name; row++) {
        uint64_t value = row->def + 1;

        memcpy((char *)&others + row->offset, &value, sizeof(value));
    }
    limits_put(&limits, &others);
    for (const struct limit_row *row = limit_rows; row->name; row++) {
        n += limits_of_the_start(row);
        cr_expect_eq(limits_get(&limits, row), limits_of_the_start(row) ? row->def : row->def + 1,
                     "%s", row->name);
    }
    cr_expect_eq(n, 3);
}
