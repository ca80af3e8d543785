/* proxy_header - a header is short, so each call reads it anew; a byte that cannot fit ends it. */
#include "forward/proxy_header.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <string.h>

#define V2_HEAD 16u
#define V2_LOCAL 0x20u
#define V2_PROXY 0x21u
#define V2_TCP4 0x11u
#define V2_TCP6 0x21u
#define V2_UNIX 3u  /* the last family there is, in the upper four bits */
#define V2_DGRAM 2u /* the last transport there is, in the lower four */

static const uint8_t v2_signature[12] = "\r\n\r\n\0\r\nQUIT\n";

/* ---- version 1: a line ---- */

struct line {
    const char *data;
    size_t len, at;
};

/* The line goes on with text. Not DONE: the parser's result. */
static enum proxy_header_result expect(struct line *line, const char *text)
{
    for (; *text; text++, line->at++) {
        if (line->at == line->len)
            return PROXY_HEADER_MORE;
        if (line->data[line->at] != *text)
            return PROXY_HEADER_BAD;
    }
    return PROXY_HEADER_DONE;
}

/* A word of at most size - 1 of the bytes `of`, up to any other byte. */
static enum proxy_header_result word(struct line *line, const char *of, char *out, size_t size)
{
    size_t n = 0;

    for (; line->at < line->len; line->at++) {
        char c = line->data[line->at];

        if (c == '\0' || !strchr(of, c)) {
            out[n] = '\0';
            return n > 0 ? PROXY_HEADER_DONE : PROXY_HEADER_BAD;
        }
        if (n + 1 == size)
            return PROXY_HEADER_BAD;
        out[n++] = c;
    }
    return PROXY_HEADER_MORE;
}

static enum proxy_header_result address(struct line *line, int family, struct endpoint *out)
{
    char text[INET6_ADDRSTRLEN];
    bool v4 = family == AF_INET;
    uint8_t ip[16];
    enum proxy_header_result result = word(line, v4 ? "0123456789." : "0123456789abcdefABCDEF:.",
                                           text, v4 ? INET_ADDRSTRLEN : sizeof(text));

    if (result != PROXY_HEADER_DONE)
        return result;
    if (inet_pton(family, text, ip) != 1) /* refuses heading zeroes, as the protocol does */
        return PROXY_HEADER_BAD;
    endpoint_of_bytes(ip, v4 ? 4 : 16, 0, out);
    return expect(line, " ");
}

static enum proxy_header_result port(struct line *line, const char *then, struct endpoint *out)
{
    char text[6];
    enum proxy_header_result result = word(line, "0123456789", text, sizeof(text));
    unsigned value = 0;

    if (result != PROXY_HEADER_DONE)
        return result;
    for (const char *c = text; *c; c++)
        value = value * 10 + (unsigned)(*c - '0');
    if (value > UINT16_MAX || (text[0] == '0' && text[1] != '\0'))
        return PROXY_HEADER_BAD;
    out->port = (uint16_t)value;
    return expect(line, then);
}

static enum proxy_header_result addresses(struct line *line, int family, struct tuple *out)
{
    enum proxy_header_result result = address(line, family, &out->client);

    if (result == PROXY_HEADER_DONE)
        result = address(line, family, &out->server);
    if (result == PROXY_HEADER_DONE)
        result = port(line, " ", &out->client);
    if (result == PROXY_HEADER_DONE)
        result = port(line, "\r\n", &out->server);
    return result;
}

/* What follows is to be ignored, up to the end of the line. */
static enum proxy_header_result unknown(struct line *line)
{
    const char *end;

    if (line->at == line->len)
        return PROXY_HEADER_MORE;
    if (line->data[line->at] != ' ' && line->data[line->at] != '\r')
        return PROXY_HEADER_BAD;
    end = memmem(line->data + line->at, line->len - line->at, "\r\n", 2);
    if (!end)
        return PROXY_HEADER_MORE;
    line->at = (size_t)(end - line->data) + 2;
    return PROXY_HEADER_DONE;
}

static enum proxy_header_result parse_v1(const uint8_t *data, size_t len, struct proxy_header *out)
{
    struct line line = {(const char *)data, len < PROXY_V1_MAX ? len : PROXY_V1_MAX, 0};
    struct proxy_header header = {.has_addresses = true};
    enum proxy_header_result result = expect(&line, "PROXY ");

    if (result == PROXY_HEADER_DONE && line.at < line.len && line.data[line.at] == 'U') {
        result = expect(&line, "UNKNOWN");
        if (result == PROXY_HEADER_DONE)
            result = unknown(&line);
        header.has_addresses = false;
    } else if (result == PROXY_HEADER_DONE) {
        result = expect(&line, "TCP");
        if (result == PROXY_HEADER_DONE && line.at == line.len)
            return PROXY_HEADER_MORE;
        if (result == PROXY_HEADER_DONE) {
            bool v4 = line.data[line.at] == '4';

            result = expect(&line, v4 ? "4 " : "6 ");
            if (result == PROXY_HEADER_DONE)
                result = addresses(&line, v4 ? AF_INET : AF_INET6, &header.tuple);
        }
    }
    if (result == PROXY_HEADER_MORE && len >= PROXY_V1_MAX)
        return PROXY_HEADER_BAD;
    if (result == PROXY_HEADER_DONE) {
        header.len = line.at;
        *out = header;
    }
    return result;
}

/* ---- version 2: bytes ---- */

static uint16_t be16(const uint8_t *in) { return (uint16_t)(in[0] << 8 | in[1]); }

/* Bytes of both ends, by the family: none, IPv4, IPv6, Unix. */
static size_t ends_len(unsigned family)
{
    static const uint8_t lens[] = {0, 12, 36, 216};

    return lens[family >> 4];
}

static enum proxy_header_result parse_v2(const uint8_t *data, size_t len, struct proxy_header *out)
{
    struct proxy_header header = {0};
    bool proxy;

    if (memcmp(data, v2_signature, len < sizeof(v2_signature) ? len : sizeof(v2_signature)) != 0)
        return PROXY_HEADER_BAD;
    if (len > 12 && data[12] != V2_LOCAL && data[12] != V2_PROXY)
        return PROXY_HEADER_BAD;
    proxy = len > 12 && data[12] == V2_PROXY; /* of LOCAL everything else is to be ignored */
    if (len > 13 && proxy && (data[13] >> 4 > V2_UNIX || (data[13] & 15) > V2_DGRAM))
        return PROXY_HEADER_BAD;
    if (len < V2_HEAD)
        return PROXY_HEADER_MORE;
    header.len = V2_HEAD + be16(data + 14);
    if (header.len > PROXY_V2_MAX || (proxy && header.len < V2_HEAD + ends_len(data[13])))
        return PROXY_HEADER_BAD;
    if (len < header.len)
        return PROXY_HEADER_MORE;
    if (proxy && (data[13] == V2_TCP4 || data[13] == V2_TCP6)) {
        size_t n = data[13] == V2_TCP4 ? 4 : 16;
        const uint8_t *at = data + V2_HEAD, *ports = at + 2 * n;

        endpoint_of_bytes(at, n, be16(ports), &header.tuple.client);
        endpoint_of_bytes(at + n, n, be16(ports + 2), &header.tuple.server);
        header.has_addresses = true;
    }
    *out = header;
    return PROXY_HEADER_DONE;
}

enum proxy_header_result proxy_header_parse(const uint8_t *data, size_t len,
                                            struct proxy_header *out_header)
{
    if (len == 0)
        return PROXY_HEADER_MORE;
    return data[0] == 'P' ? parse_v1(data, len, out_header) : parse_v2(data, len, out_header);
}

/* ---- written ---- */

static size_t pack_v1(const uint8_t *client, const uint8_t *server, size_t n,
                      const struct tuple *tuple, char *out)
{
    char from[INET6_ADDRSTRLEN], to[INET6_ADDRSTRLEN];
    int family = n == 4 ? AF_INET : AF_INET6;

    if (n == 0)
        return (size_t)snprintf(out, PROXY_PACK_MAX, "PROXY UNKNOWN\r\n");
    inet_ntop(family, client, from, sizeof(from));
    inet_ntop(family, server, to, sizeof(to));
    return (size_t)snprintf(out, PROXY_PACK_MAX, "PROXY TCP%c %s %s %u %u\r\n", n == 4 ? '4' : '6',
                            from, to, tuple->client.port, tuple->server.port);
}

static size_t pack_v2(const uint8_t *client, const uint8_t *server, size_t n,
                      const struct tuple *tuple, uint8_t *out)
{
    size_t len = n == 0 ? 0 : 2 * n + 4;
    uint8_t *at = out + V2_HEAD;

    memcpy(out, v2_signature, sizeof(v2_signature));
    out[12] = V2_PROXY;
    out[13] = n == 0 ? 0 : n == 4 ? V2_TCP4 : V2_TCP6;
    out[14] = 0;
    out[15] = (uint8_t)len;
    if (n == 0)
        return V2_HEAD;
    memcpy(at, client, n);
    memcpy(at + n, server, n);
    at += 2 * n;
    *at++ = (uint8_t)(tuple->client.port >> 8);
    *at++ = (uint8_t)tuple->client.port;
    *at++ = (uint8_t)(tuple->server.port >> 8);
    *at = (uint8_t)tuple->server.port;
    return V2_HEAD + len;
}

size_t proxy_header_pack(unsigned version, const struct tuple *tuple, uint8_t out[PROXY_PACK_MAX])
{
    uint8_t client[16], server[16];
    size_t n = endpoint_bytes(&tuple->client, client);

    if (endpoint_bytes(&tuple->server, server) != n || !tuple->client.port || !tuple->server.port)
        n = 0;
    return version == 1 ? pack_v1(client, server, n, tuple, (char *)out)
                        : pack_v2(client, server, n, tuple, out);
}
