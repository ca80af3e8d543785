/* head - whether a request's head is one that this port takes, before libmicrohttpd reads it.
 *
 * libmicrohttpd 0.9.75 answers what it does not like itself: in HTML, for some of it in two heads,
 * for some not at all, in a loop; and it ends a path at %00. What passes here it takes, and means
 * the same by it (RFC 9112): GET or HEAD, a path or http://HOST/path, HTTP/1.0 or 1.x, lines of
 * "name: value", none of them continued, one Host, no body. A line may end with LF alone. Pure.
 */
#ifndef WEB_HEAD_H
#define WEB_HEAD_H

#include <stdbool.h>
#include <stddef.h>

#define HEAD_BYTES 16384u /* what is longer is refused */
#define HEAD_PATH_BYTES 8192u
/* Fields, arguments and cookies together: for each, libmicrohttpd keeps a record. */
#define HEAD_RECORDS 256u

struct head_error {
    unsigned status;
    const char *text;
};

/* Bytes up to and with its last empty line; 0: more must come. *seen: 0 to begin with, then what
 * was looked through before. */
size_t head_length(const char *data, size_t len, size_t *seen);
/* Of a whole head, as long as head_length says. False: *out_error. loopback: the Host must be a
 * name of this machine. */
bool head_take(const char *head, size_t len, bool loopback, struct head_error *out_error);
/* Of one that is not whole: true once it can be none that is taken, whatever comes. ended: nothing
 * will. */
bool head_hopeless(const char *data, size_t len, bool ended, struct head_error *out_error);
/* Whether the request, good or bad, is a HEAD: its answer has no body. */
bool head_is_head(const char *head, size_t len);

#endif
