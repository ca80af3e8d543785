/* hello - ClientHellos built part by part, so that each part can be wrong. */
#ifndef TESTS_FORWARD_HELLO_H
#define TESTS_FORWARD_HELLO_H

#include <stddef.h>
#include <stdint.h>

#define HELLO_MAX 400000u

struct hello_bytes {
    size_t len;
    uint8_t data[HELLO_MAX];
};

void hello_u8(struct hello_bytes *bytes, unsigned value);
void hello_u16(struct hello_bytes *bytes, unsigned value);
void hello_put(struct hello_bytes *bytes, const void *data, size_t len);
void hello_fill(struct hello_bytes *bytes, uint8_t with, size_t len);

/* One extension, whole. */
void hello_extension(struct hello_bytes *bytes, unsigned type, const void *data, size_t len);
/* server_name with one host_name. */
void hello_server_name(struct hello_bytes *bytes, const void *name, size_t len);

/* A message whose parts have these lengths, with extensions (NULL: it ends before them), and with
 * bytes behind them that are still the message's. */
void hello_message_of(struct hello_bytes *out, size_t session, size_t ciphers, size_t compressions,
                      const struct hello_bytes *extensions, size_t behind);
/* A message of TLS 1.3's form around extensions (NULL: it ends before them). */
void hello_message(struct hello_bytes *out, const struct hello_bytes *extensions);
/* Cut into records of at most `fragment` bytes. */
void hello_records(struct hello_bytes *out, const struct hello_bytes *message, size_t fragment);
/* All of it: a hello as a browser sends it, with an ML-KEM key share of 1216 bytes, and name last;
 * in records of at most `fragment` bytes. */
void hello_browser(struct hello_bytes *out, const char *name, size_t fragment);

/* From hex. */
void hello_hex(struct hello_bytes *out, const char *hex);

#endif
