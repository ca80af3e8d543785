/* reply - words for clients that were turned away. */
#include "forward/reply.h"

#include <stdio.h>
#include <string.h>

#define BODY_MAX 600u
#define RETRY_AFTER_S 1

const char reply_connected[] = "HTTP/1.1 200 Connection established\r\n\r\n";

static const char *reason_phrase(int status) /* RFC 9110 15, RFC 6585 5 */
{
    switch (status) {
    case 400:
        return "Bad Request";
    case 403:
        return "Forbidden";
    case 404:
        return "Not Found";
    case 408:
        return "Request Timeout";
    case 431:
        return "Request Header Fields Too Large";
    case 502:
        return "Bad Gateway";
    case 503:
        return "Service Unavailable";
    default:
        return "Gateway Timeout";
    }
}

/* "n1: text", fit for a line; returns its length. */
static int pack_words(const char *text, const char *peer_id, char *out, size_t size)
{
    int len = snprintf(out, size, "%.*s%s%.*s", (int)LIMIT_PEER_ID, peer_id, *text ? ": " : "",
                       (int)LIMIT_STATUS_TEXT, text);

    for (char *c = out; *c; c++) {
        if ((unsigned char)*c < ' ' || *c == 0x7f)
            *c = '?';
    }
    return len;
}

static size_t pack_http(enum forward_end end, bool bodiless, const char *words, char *out)
{
    const struct forward_end_row *row = &forward_ends[end];
    const char *phrase = reason_phrase(row->status);
    char body[BODY_MAX], retry[24] = "";
    int body_len =
        snprintf(body, sizeof(body), "%d %s: %s\n%s\n", row->status, phrase, row->text, words);

    if (row->status == 503)
        snprintf(retry, sizeof(retry), "Retry-After: %d\r\n", RETRY_AFTER_S);
    return (size_t)snprintf(out, REPLY_MAX,
                            "HTTP/1.1 %d %s\r\n"
                            "Content-Type: text/plain; charset=utf-8\r\n"
                            "Content-Length: %d\r\n"
                            "%s"
                            "Connection: close\r\n"
                            "\r\n"
                            "%s",
                            row->status, phrase, body_len, retry, bodiless ? "" : body);
}

static size_t pack_tls(enum forward_end end, uint8_t *out)
{
    enum tls_alert alert = TLS_INTERNAL_ERROR;

    if (end == FORWARD_NO_NAME || end == FORWARD_NO_SUCH_NAME)
        alert = TLS_UNRECOGNIZED_NAME;
    else if (end == FORWARD_BAD_REQUEST)
        alert = TLS_DECODE_ERROR;
    tls_alert_pack(alert, out);
    return TLS_ALERT_LEN;
}

/* RFC 9113 7. No stream was processed: a client may try again elsewhere, or later. */
static uint8_t http2_error(enum forward_end end)
{
    switch (end) {
    case FORWARD_NO_NAME:
    case FORWARD_NO_SUCH_NAME:
        return 0xd; /* HTTP_1_1_REQUIRED: there a name can be seen */
    case FORWARD_DRAINING:
        return 0x0; /* NO_ERROR: an end in order */
    case FORWARD_OVER_LIMIT:
        return 0xb; /* ENHANCE_YOUR_CALM */
    default:
        return 0x2; /* INTERNAL_ERROR */
    }
}

static size_t pack_http2(enum forward_end end, const char *words, size_t words_len, uint8_t *out)
{
    /* Length (24 bits), type, flags, stream (32 bits). */
    const uint8_t settings[] = {0, 0, 0, 0x4, 0, 0, 0, 0, 0};
    size_t payload = 8 + words_len;
    const uint8_t goaway[] = {0, (uint8_t)(payload >> 8), (uint8_t)payload, 0x7, 0, 0, 0, 0, 0,
                              /* the last stream, the error */
                              0, 0, 0, 0, 0, 0, 0, http2_error(end)};

    memcpy(out, settings, sizeof(settings));
    memcpy(out + sizeof(settings), goaway, sizeof(goaway));
    memcpy(out + sizeof(settings) + sizeof(goaway), words, words_len);
    return sizeof(settings) + sizeof(goaway) + words_len;
}

size_t reply_pack(enum first_kind kind, bool bodiless, enum forward_end end, const char *text,
                  const char *peer_id, uint8_t out[REPLY_MAX])
{
    char words[LIMIT_PEER_ID + LIMIT_STATUS_TEXT + 3];
    int words_len;

    if (forward_ends[end].status == 0)
        return 0;
    words_len = pack_words(text, peer_id, words, sizeof(words));
    switch (kind) {
    case FIRST_HTTP:
    case FIRST_CONNECT:
        return pack_http(end, bodiless, words, (char *)out);
    case FIRST_TLS:
        return pack_tls(end, out);
    case FIRST_HTTP2:
        return pack_http2(end, words, (size_t)words_len, out);
    default:
        return 0;
    }
}
