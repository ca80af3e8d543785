/* printer - the thread that prints both maps after each change, off everybody's way.
 *
 * The main loop hands it a picture per change. It prints one after the other as long as the output
 * keeps up; when the oldest that waits is older than 100 ms, or too many wait, those between are
 * skipped and the newest is printed next. Standard output only.
 */
#ifndef DAEMON_PRINTER_H
#define DAEMON_PRINTER_H

#include <stdint.h>
#include "registry/print.h"

struct printer;

int printer_start(const char *peer_id, enum print_what what, int fd, struct printer **out_printer);
/* From the next picture on. */
void printer_set(struct printer *printer, enum print_what what);
/* Takes snap. Never waits for the output. */
void printer_show(struct printer *printer, struct snapshot *snap);
/* Gives what waits at most grace_ms, then forgets the thread if its output is stuck. */
void printer_stop(struct printer *printer, uint32_t grace_ms); /* accepts NULL */

struct printer_counters {
    uint64_t printed, skipped, failed;
};
void printer_counters(struct printer *printer, struct printer_counters *out_counters);

#endif
