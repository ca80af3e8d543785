/* meshcat_table - aligned columns of safe text, in colours where they are wanted, and memory that
 * is there or ends the program. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include "meshcat.h"

#define GAP 2 /* blanks between columns */

struct cell {
    char *text;
    bool is_state;
};

struct table {
    size_t columns;
    struct cell *cells; /* the header first, row after row */
    size_t n, cap;
};

/* ---- memory and text ---- */

void out_of_memory(void)
{
    fputs("meshcat: out of memory; ask for less at once (--limit, --name)\n", stderr);
    exit(EXIT_LOCAL);
}

void *must_realloc(void *old, size_t size)
{
    void *p = realloc(old, size ? size : 1);

    if (!p)
        out_of_memory();
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

void free_textp(char **text) { free(*text); }

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

void time_text(uint64_t unix_s, char out[40])
{
    time_t t = (time_t)unix_s;
    struct tm tm;

    if (!gmtime_r(&t, &tm) || strftime(out, 40, "%Y-%m-%dT%H:%M:%SZ", &tm) == 0)
        snprintf(out, 40, "%" PRIu64, unix_s);
}

/* ---- colours ---- */

static bool colors; /* set once by table_colors */

void table_colors(const struct meshcat_opts *opts)
{
    const char *no = getenv("NO_COLOR"), *term = getenv("TERM");

    colors = opts->color == COLOR_ALWAYS;
    if (opts->color == COLOR_AUTO)
        colors = isatty(STDOUT_FILENO) && !(no && no[0]) && term && strcmp(term, "dumb") != 0;
}

/* Green: it works. Yellow: not now, or not for long. Red: it does not. */
static const struct {
    const char *state, *style;
} styles[] = {
    {"connected", "\033[32m"},
    {"live", "\033[32m"},
    {"up", "\033[32m"},
    {"changed", "\033[33m"},
    {"draining", "\033[33m"},
    {"stale", "\033[33m"},
    {"dialling", "\033[33m"},
    {"opening", "\033[33m"},
    {"syncing", "\033[33m"},
    {"suspect", "\033[33m"},
    {"down", "\033[31m"},
    {"parked", "\033[31m"},
    {"refused", "\033[31m"},
    {"valid", "\033[32m"},
    {"ending", "\033[33m"},
    {"expired", "\033[31m"},
    {"revoked", "\033[31m"},
    {"unhealthy", "\033[31m"},
    {"unhealthy, draining", "\033[31m"},
};

const char *table_style(const char *state)
{
    if (!colors)
        return "";
    for (size_t i = 0; state && i < sizeof(styles) / sizeof(*styles); i++) {
        if (strcmp(state, styles[i].state) == 0)
            return styles[i].style;
    }
    return state ? "" : "\033[1m";
}

const char *table_style_end(const char *state) { return table_style(state)[0] ? "\033[0m" : ""; }

/* ---- tables ---- */

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
    table->cells[table->n++] = (struct cell){.text = safe_text(text[0] ? text : "-")};
}

void table_state(struct table *table, const char *state)
{
    table_cell(table, state);
    table->cells[table->n - 1].is_state = true;
}

void table_number(struct table *table, uint64_t number)
{
    char text[24];

    snprintf(text, sizeof(text), "%" PRIu64, number);
    table_cell(table, text);
}

void table_time(struct table *table, uint64_t unix_s)
{
    char text[40] = "";

    if (unix_s > 0)
        time_text(unix_s, text);
    table_cell(table, text);
}

/* The cell, and blanks up to width. */
static void print_cell(const struct cell *cell, bool header, size_t width, FILE *out)
{
    const char *state = header ? NULL : cell->text;
    bool styled = header || cell->is_state;
    size_t len = strlen(cell->text);

    fprintf(out, "%s%s%s%*s", styled ? table_style(state) : "", cell->text,
            styled ? table_style_end(state) : "", (int)(width > len ? width - len : 0), "");
}

void table_print(const struct table *table, FILE *out)
{
    size_t *width = must_alloc(table->columns * sizeof(*width));

    for (size_t i = 0; i < table->n; i++) {
        size_t len = strlen(table->cells[i].text);

        if (len > width[i % table->columns])
            width[i % table->columns] = len;
    }
    for (size_t i = 0; i < table->n; i++) {
        size_t column = i % table->columns;
        bool last = column + 1 == table->columns;

        print_cell(&table->cells[i], i < table->columns, last ? 0 : width[column] + GAP, out);
        if (last)
            fputc('\n', out);
    }
    free(width);
}

void table_free(struct table *table)
{
    if (!table)
        return;
    for (size_t i = 0; i < table->n; i++)
        free(table->cells[i].text);
    free(table->cells);
    free(table);
}

void table_freep(struct table **table) { table_free(*table); }
