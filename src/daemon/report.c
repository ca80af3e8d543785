/* report - see report.h. */
#include "daemon/report.h"

#include <stdlib.h>
#include <string.h>
#include "daemon/mailbox.h"

void report_add(struct report_lines *lines, const char *text)
{
    char *copy = must_alloc(strlen(text) + 1);
    char **at = must_alloc((lines->n + 1) * sizeof *at);

    if (lines->n)
        memcpy(at, lines->at, lines->n * sizeof *at);
    free(lines->at);
    lines->at = at;
    lines->at[lines->n++] = strcpy(copy, text);
}

void report_clear(struct report_lines *lines)
{
    for (size_t i = 0; i < lines->n; i++)
        free(lines->at[i]);
    free(lines->at);
    *lines = (struct report_lines){0};
}

void report_fini(struct report *report)
{
    report_clear(&report->errors);
    report_clear(&report->changed);
    report_clear(&report->restart);
}
