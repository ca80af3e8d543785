/* meshcat_table - aligned columns of safe text, and memory that is there or ends the program. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include "meshcat.h"

#define GAP 2 /* blanks between columns */

struct table {
    size_t columns;
    char **cells; /* the header first, row after row */
    size_t n, cap;
};

void *must_realloc(void *old, size_t size)
{
    void *p = realloc(old, size ? size : 1);

    if (!p) {
        fputs("meshcat: out of memory; ask for less at once (--limit, --name)\n", stderr);
        exit(EXIT_LOCAL);
    }
    return p;
}

void *must_alloc(size_t size)
{
    void *p = must_realloc(NULL, size);

    memset(p, 0, size);
    return p;
}

char *must_dup(const char *text)
{
    size_t len = strlen(text) + 1;

    return memcpy(must_realloc(NULL, len), text, len);
}

static bool plain(unsigned char c) { return c >= 0x20 && c < 0x7f && c != '\\'; }

char *safe_text(const char *text)
{
    static const char hex[] = "0123456789abcdef";
    char *out = must_alloc(4 * strlen(text) + 1), *at = out;

    for (; *text; text++) {
        unsigned char c = (unsigned char)*text;

        if (plain(c)) {
            *at++ = *text;
            continue;
        }
        *at++ = '\\';
        *at++ = 'x';
        *at++ = hex[c >> 4];
        *at++ = hex[c & 15];
    }
    *at = '\0';
    return out;
}

struct table *table_new(size_t columns, const char *const *headers)
{
    struct table *table = must_alloc(sizeof(*table));

    table->columns = columns;
    for (size_t i = 0; i < columns; i++)
        table_cell(table, headers[i]);
    return table;
}

void table_cell(struct table *table, const char *text)
{
    if (table->n == table->cap) {
        table->cap = table->cap ? 2 * table->cap : 64;
        table->cells = must_realloc(table->cells, table->cap * sizeof(*table->cells));
    }
    table->cells[table->n++] = safe_text(text[0] ? text : "-");
}

void table_number(struct table *table, uint64_t number)
{
    char text[24];

    snprintf(text, sizeof(text), "%" PRIu64, number);
    table_cell(table, text);
}

void table_time(struct table *table, uint64_t unix_s)
{
    time_t t = (time_t)unix_s;
    struct tm tm;
    char text[40];

    if (unix_s == 0)
        table_cell(table, "");
    else if (!gmtime_r(&t, &tm) || strftime(text, sizeof(text), "%Y-%m-%dT%H:%M:%SZ", &tm) == 0)
        table_number(table, unix_s); /* a year that no calendar has */
    else
        table_cell(table, text);
}

void table_print(const struct table *table, FILE *out)
{
    size_t *width = must_alloc(table->columns * sizeof(*width));

    for (size_t i = 0; i < table->n; i++) {
        size_t len = strlen(table->cells[i]);

        if (len > width[i % table->columns])
            width[i % table->columns] = len;
    }
    for (size_t i = 0; i < table->n; i++) {
        size_t column = i % table->columns;

        if (column + 1 < table->columns)
            fprintf(out, "%-*s", (int)width[column] + GAP, table->cells[i]);
        else
            fprintf(out, "%s\n", table->cells[i]);
    }
    free(width);
}

void table_free(struct table *table)
{
    for (size_t i = 0; i < table->n; i++)
        free(table->cells[i]);
    free(table->cells);
    free(table);
}
