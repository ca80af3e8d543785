/* client_hello - finds the server name in a TLS ClientHello.
 *
 * Pure and incremental, across any split of segments and of records (RFC 8446 5.1): fed what has
 * arrived so far, from the first byte. Only the first hello counts. Sources: RFC 8446 4.1.2, 5.1;
 * RFC 6066 3 (server_name); RFC 5246 E.2 (SSLv2-style hello).
 */
#ifndef FORWARD_CLIENT_HELLO_H
#define FORWARD_CLIENT_HELLO_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "base/limits.h"

enum client_hello_result {
    CLIENT_HELLO_MORE,
    CLIENT_HELLO_DONE,  /* name is set, or "" if none was named (or an address, or SSLv2-style) */
    CLIENT_HELLO_OTHER, /* not TLS at all, by the first bytes */
    CLIENT_HELLO_BAD,   /* TLS, but malformed: answered by the alert decode_error */
    CLIENT_HELLO_BIG,   /* the hello says that it is longer than the limit */
};

struct client_hello {
    size_t limit; /* of the handshake message in bytes; set before the first call */
    char name[LIMIT_NAME + 1];
    const char *why; /* after BAD: a constant half sentence */
    /* Inside: where the parser is. All zero at first. */
    uint8_t result, part;
    uint8_t head_len, read; /* so many bytes were read of the record's header, of the part */
    bool has_server_name;
    uint16_t name_len, name_at;
    uint32_t record_left, left; /* bytes of the record, of the message */
    uint32_t skip;              /* bytes before the part that are not looked at */
    uint32_t value;             /* of the part, as far as it was read */
    uint32_t names_left;        /* bytes of the list of names */
    size_t at;
};

enum client_hello_result client_hello_feed(struct client_hello *hello, const uint8_t *data,
                                           size_t len);

#define TLS_ALERT_LEN 7u
enum tls_alert { /* RFC 8446 6 */
                 TLS_DECODE_ERROR = 50,
                 TLS_INTERNAL_ERROR = 80,
                 TLS_UNRECOGNIZED_NAME = 112,
};
/* A fatal alert in the clear, as a server sends it in place of its ServerHello. */
void tls_alert_pack(enum tls_alert alert, uint8_t out[TLS_ALERT_LEN]);

#endif
