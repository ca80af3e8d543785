/* report - what came of reading the settings again, in lines; as ReloadReply has it. */
#ifndef DAEMON_REPORT_H
#define DAEMON_REPORT_H

#include <stddef.h>

struct report_lines {
    char **at;
    size_t n;
};
struct report {
    struct report_lines errors, changed, restart;
};

void report_add(struct report_lines *lines, const char *text); /* copied */
void report_clear(struct report_lines *lines);
void report_fini(struct report *report);

#endif
