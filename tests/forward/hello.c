/* hello - ClientHellos, put together (RFC 8446 4.1.2). */
#include "hello.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void hello_put(struct hello_bytes *bytes, const void *data, size_t len)
{
    if (len > HELLO_MAX - bytes->len)
        abort();
    memcpy(bytes->data + bytes->len, data, len);
    bytes->len += len;
}

void hello_u8(struct hello_bytes *bytes, unsigned value)
{
    const uint8_t byte = (uint8_t)value;

    hello_put(bytes, &byte, 1);
}

void hello_u16(struct hello_bytes *bytes, unsigned value)
{
    hello_u8(bytes, value >> 8);
    hello_u8(bytes, value & 255);
}

void hello_fill(struct hello_bytes *bytes, uint8_t with, size_t len)
{
    while (len--)
        hello_u8(bytes, with);
}

void hello_extension(struct hello_bytes *bytes, unsigned type, const void *data, size_t len)
{
    hello_u16(bytes, type);
    hello_u16(bytes, (unsigned)len);
    hello_put(bytes, data, len);
}

void hello_server_name(struct hello_bytes *bytes, const void *name, size_t len)
{
    hello_u16(bytes, 0);
    hello_u16(bytes, (unsigned)len + 5);
    hello_u16(bytes, (unsigned)len + 3);
    hello_u8(bytes, 0);
    hello_u16(bytes, (unsigned)len);
    hello_put(bytes, name, len);
}

void hello_message_of(struct hello_bytes *out, size_t session, size_t ciphers, size_t compressions,
                      const struct hello_bytes *extensions, size_t behind)
{
    size_t body;

    out->len = 0;
    hello_put(out, "\1\0\0\0", 4);
    hello_u16(out, 0x0303);
    hello_fill(out, 0xab, 32);
    hello_u8(out, (unsigned)session);
    hello_fill(out, 0xcd, session);
    hello_u16(out, (unsigned)ciphers);
    hello_fill(out, 0x13, ciphers);
    hello_u8(out, (unsigned)compressions);
    hello_fill(out, 0, compressions);
    if (extensions) {
        hello_u16(out, (unsigned)extensions->len);
        hello_put(out, extensions->data, extensions->len);
    }
    hello_fill(out, 0, behind);
    body = out->len - 4;
    out->data[1] = (uint8_t)(body >> 16);
    out->data[2] = (uint8_t)(body >> 8);
    out->data[3] = (uint8_t)body;
}

void hello_message(struct hello_bytes *out, const struct hello_bytes *extensions)
{
    hello_message_of(out, 32, 6, 1, extensions, 0);
}

void hello_records(struct hello_bytes *out, const struct hello_bytes *message, size_t fragment)
{
    out->len = 0;
    for (size_t at = 0, n; at < message->len; at += n) {
        n = message->len - at < fragment ? message->len - at : fragment;
        hello_u8(out, 22);
        hello_u16(out, at == 0 ? 0x0301 : 0x0303);
        hello_u16(out, (unsigned)n);
        hello_put(out, message->data + at, n);
    }
}

void hello_browser(struct hello_bytes *out, const char *name, size_t fragment)
{
    static struct hello_bytes share, extensions, message;

    share.len = extensions.len = 0;
    hello_u16(&share, 4 + 1216 + 4 + 32);
    hello_u16(&share, 0x11ec); /* X25519MLKEM768 */
    hello_u16(&share, 1216);
    hello_fill(&share, 0x5a, 1216);
    hello_u16(&share, 0x001d);
    hello_u16(&share, 32);
    hello_fill(&share, 0xa5, 32);
    hello_extension(&extensions, 0x4a4a, "", 0);                  /* GREASE */
    hello_extension(&extensions, 16, "\0\xc\2h2\x8http/1.1", 14); /* ALPN */
    hello_extension(&extensions, 43, "\2\3\4", 3);                /* supported_versions */
    hello_extension(&extensions, 51, share.data, share.len);      /* key_share */
    hello_extension(&extensions, 0xfe0d, share.data, 282);        /* encrypted_client_hello */
    hello_extension(&extensions, 21, share.data, 64);             /* padding */
    hello_server_name(&extensions, name, strlen(name));
    hello_message(&message, &extensions);
    hello_records(out, &message, fragment);
}

void hello_hex(struct hello_bytes *out, const char *hex)
{
    unsigned byte;

    for (out->len = 0; sscanf(hex, "%2x", &byte) == 1; hex += 2)
        hello_u8(out, byte);
}
