/* error - what went wrong, as a status for programs and a clause for people (mesh_error_text).
 *
 * Threads:   the text is the calling thread's own.
 * Failure:   every function here returns the status that it was given or has found, so that it can
 *            stand in a return.
 */
#ifndef CLIENT_ERROR_H
#define CLIENT_ERROR_H

#include <stddef.h>
#include <meshd/client.h>

#define ERROR_TEXT 512u /* bytes of a text, with its NUL */

/* Whose text it is: format is ours, what it is given may be a stranger's; control bytes become
 * \xNN. */
enum mesh_status error_set(enum mesh_status status, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/* The status of a negative errno of the rooms below, without a text. */
enum mesh_status error_status(int r);
/* The same with the text "what: why". */
enum mesh_status error_errno(int r, const char *what);
/* The same with a clause that knows more, unless it is "". */
enum mesh_status error_why(int r, const char *what, const char *why);

/* A status other than OK that a node answered with, its reason and its text of len bytes; the wire
 * versions are those spoken there. */
struct error_answer {
    unsigned status, reason;
    const char *text;
    size_t text_len;
    unsigned wire_version_min, wire_version_max;
};
enum mesh_status error_answer(const struct error_answer *answer);

#endif
