/* name - the one function that makes a service name canonical, and the grammar of addresses.
 *
 * Used at registration, look-up and configuration alike, so that equal names are equal bytes.
 * Pure. Sources: RFC 1035 2.3.4 (sizes), RFC 4343 (ASCII case), RFC 5952 (text of an address).
 */
#ifndef WIRE_NAME_H
#define WIRE_NAME_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "base/limits.h"

enum name_error {
    NAME_OK,
    NAME_E_EMPTY = 1, /* nothing left */
    NAME_E_LONG,      /* more than 253 bytes, or a label of more than 63 */
    NAME_E_CHAR,      /* a byte that no canonical name has */
    NAME_E_LABEL,     /* an empty label */
    NAME_E_LITERAL,   /* an IPv4 or IPv6 address */
};

/* What is wrong, as half a sentence: "has an empty label". */
const char *name_error_text(enum name_error error);

/* Writes the canonical form of in[0..len): lower case, one trailing dot and a :port removed. A
 * leading "*." stays. Returns NAME_OK, and only then writes out_name, NUL-terminated. */
enum name_error name_canon(const char *in, size_t len, char out_name[LIMIT_NAME + 1]);
/* True when in is its own canonical form: what peers must send. */
bool name_is_canon(const char *in, size_t len);

/* Whether text is of the form of pattern: "*" is any run of bytes, "?" one. Linear in practice:
 * only the last "*" is ever tried again. */
bool name_glob(const char *pattern, const char *text);

bool peer_id_valid(const char *in, size_t len);

/* "host:port" or "[v6]:port". out_host is without brackets, lower case; a trailing dot stays, and a
 * wildcard is no host. Returns 0 or -EINVAL. */
int addr_split(const char *in, size_t len, char out_host[LIMIT_NAME + 1], uint16_t *out_port);
/* A backend address in canonical spelling: host lower case, v6 literals bracketed and in RFC 5952
 * text, port without leading zeros. 0 or -EINVAL. */
int backend_canon(const char *in, size_t len, char out_backend[LIMIT_BACKEND + 1]);

/* "name:host:port", "name:[v6]:port" or "domain:port" (name and host alike): one entry of
 * SERVICE_ADDR. Returns 0, or -EINVAL with *out_why pointing at a constant half sentence. */
int service_addr_parse(const char *in, size_t len, char out_name[LIMIT_NAME + 1],
                       char out_backend[LIMIT_BACKEND + 1], const char **out_why);

/* What one may ask a backend for by HTTP: it begins with "/", and every byte is printable ASCII and
 * no space. At most LIMIT_CHECK_PATH. */
bool check_path_valid(const char *path);
/* "tcp" or "http:/path": how to find out whether a backend answers. *out_path: NULL for tcp, else
 * within text. Returns 0, or -EINVAL with *out_why pointing at a constant half sentence. */
int check_parse(const char *text, const char **out_path, const char **out_why);

#endif
