/* http_status - finds the status in the answer to an HTTP/1.x request.
 *
 * Pure and incremental: it is fed what arrives, piece by piece, and keeps none of it. Answers that
 * only announce another (1xx, but 101) are passed over with their fields.
 * Sources: RFC 9112 4 (status line), RFC 9110 15.2 (1xx).
 */
#ifndef FORWARD_HTTP_STATUS_H
#define FORWARD_HTTP_STATUS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define HTTP_STATUS_BYTES 16384u /* of an answer, until its status is known */

enum http_status_result {
    HTTP_STATUS_MORE,
    HTTP_STATUS_DONE,
    HTTP_STATUS_BAD, /* not HTTP/1.x, or too long */
};

struct http_status { /* all zero at first */
    unsigned status; /* after DONE: 101, or 200 to 999 */
    /* Inside: */
    uint8_t state, result;
    bool blank; /* of a line of fields: no byte so far */
    uint32_t n; /* bytes seen */
};
/* The next len bytes. What comes behind the status line is not looked at. */
enum http_status_result http_status_feed(struct http_status *status, const uint8_t *data,
                                         size_t len);

#endif
