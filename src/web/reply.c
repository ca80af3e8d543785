/* reply - answers: a body, an error, a stream; the headers that all have. */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/types.h>
#include <time.h>
#include "base/clock.h"
#include "web/inside.h"

#define JSON_TYPE "application/json"
#define POLICY "Content-Security-Policy"
#define NO_DOCUMENT "default-src 'none'; frame-ancestors 'none'"
#define STREAM_BLOCK 32768u
#define REFUSAL_BYTES                                                                              \
    2048u /* head and body of what is made here; the longest has a third of it                     \
           */

static const struct {
    const char *name, *value;
} of_all[] = {
    {MHD_HTTP_HEADER_CONNECTION, "close"}, /* arrival.c */
    {MHD_HTTP_HEADER_CACHE_CONTROL, "no-store"},
    {"X-Content-Type-Options", "nosniff"},
    {"Referrer-Policy", "no-referrer"},
};

#define N_OF_ALL (sizeof of_all / sizeof *of_all)

/* Takes response, which may be NULL: no memory. */
static enum MHD_Result queue(struct exchange *ex, unsigned status, struct MHD_Response *response,
                             const char *type, const char *policy)
{
    enum MHD_Result result;

    if (!response)
        return MHD_NO;
    if (type)
        MHD_add_response_header(response, MHD_HTTP_HEADER_CONTENT_TYPE, type);
    for (size_t i = 0; i < N_OF_ALL; i++)
        MHD_add_response_header(response, of_all[i].name, of_all[i].value);
    MHD_add_response_header(response, POLICY, policy ? policy : NO_DOCUMENT);
    if (status == MHD_HTTP_SERVICE_UNAVAILABLE)
        MHD_add_response_header(response, MHD_HTTP_HEADER_RETRY_AFTER, "1");
    ex->state = EXCHANGE_REPLIED;
    conn_state(ex->conn, CONN_ANSWER);
    result = MHD_queue_response(ex->conn->mhd, status, response);
    MHD_destroy_response(response);
    return result;
}

enum MHD_Result reply_body(struct exchange *ex, const struct web_body *body, const char *policy)
{
    struct MHD_Response *response =
        MHD_create_response_from_buffer(body->len, body->data, MHD_RESPMEM_MUST_FREE);

    if (!response)
        free(body->data);
    return queue(ex, (unsigned)body->status, response, body->type, policy);
}

bool web_json(struct web_body *out_body, int status, json_t *json)
{
    char *line = json ? json_dumps(json, JSON_COMPACT | JSON_ENSURE_ASCII) : NULL, *data;
    int len = line ? asprintf(&data, "%s\n", line) : -1;

    json_decref(json);
    free(line);
    if (len < 0)
        return false;
    *out_body =
        (struct web_body){.status = status, .type = JSON_TYPE, .data = data, .len = (size_t)len};
    return true;
}

bool web_error(struct web_body *out_body, int status, const char *text)
{
    return web_json(out_body, status,
                    json_pack("{s:{s:i,s:s}}", "error", "status", status, "text", text));
}

enum MHD_Result reply_error(struct exchange *ex, unsigned status, const char *format, ...)
{
    struct web_body body;
    char text[1024];
    va_list args;

    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    if (status != MHD_HTTP_SERVICE_UNAVAILABLE)
        atomic_fetch_add(&ex->web->counters.refused, 1);
    return web_error(&body, (int)status, text) ? reply_body(ex, &body, NULL) : MHD_NO;
}

static void http_date(char *out, size_t size)
{
    time_t now = (time_t)(clock_wall_us() / 1000000);
    struct tm tm;

    gmtime_r(&now, &tm);
    strftime(out, size, "%a, %d %b %Y %H:%M:%S GMT", &tm);
}

/* What has no room in the kernel, or no memory, is not said: nothing has been sent before. */
void reply_refusal(int fd, unsigned status, const char *text, bool head_only)
{
    char head[REFUSAL_BYTES], date[64];
    struct web_body body = {0};
    size_t len;

    if (!web_error(&body, (int)status, text))
        return;
    http_date(date, sizeof date);
    len = (size_t)snprintf(head, sizeof head,
                           "HTTP/1.1 %u %s\r\nDate: %s\r\nContent-Type: %s\r\n" POLICY
                           ": " NO_DOCUMENT "\r\n%sContent-Length: %zu\r\n",
                           status, MHD_get_reason_phrase_for(status), date, body.type,
                           status == MHD_HTTP_METHOD_NOT_ALLOWED ? "Allow: GET, HEAD\r\n" : "",
                           body.len);
    for (size_t i = 0; i < N_OF_ALL; i++)
        len += (size_t)snprintf(head + len, sizeof head - len, "%s: %s\r\n", of_all[i].name,
                                of_all[i].value);
    snprintf(head + len, sizeof head - len, "\r\n%s", head_only ? "" : body.data);
    send(fd, head, strlen(head), MSG_NOSIGNAL | MSG_DONTWAIT);
    free(body.data);
}

enum MHD_Result reply_unchanged(struct exchange *ex, const char *tag)
{
    struct MHD_Response *response =
        MHD_create_response_from_buffer(0, (void *)"", MHD_RESPMEM_PERSISTENT);

    if (response)
        MHD_add_response_header(response, MHD_HTTP_HEADER_ETAG, tag);
    return queue(ex, MHD_HTTP_NOT_MODIFIED, response, NULL, NULL);
}

/* ---- streams ---- */

static ssize_t read_stream(void *cls, uint64_t at, char *buf, size_t max)
{
    struct stream *stream = cls;
    struct exchange *ex = stream->exchange;
    ssize_t n = !ex || ex->conn->cut ? STREAM_BROKEN : stream->fill(stream, buf, max);

    if (n == STREAM_BROKEN)
        return MHD_CONTENT_READER_END_WITH_ERROR;
    if (n == STREAM_END)
        return MHD_CONTENT_READER_END_OF_STREAM;
    if (n == 0) {
        stream->asleep = true;
        MHD_suspend_connection(ex->conn->mhd);
    }
    return n;
}

static void drop_stream(void *cls)
{
    struct stream *stream = cls;

    if (stream->exchange)
        stream->exchange->stream = NULL;
    stream->drop(stream);
}

enum MHD_Result reply_stream(struct exchange *ex, struct stream *stream, const char *type,
                             const char *tag)
{
    struct MHD_Response *response = MHD_create_response_from_callback(
        MHD_SIZE_UNKNOWN, STREAM_BLOCK, read_stream, stream, drop_stream);

    if (!response) {
        stream->drop(stream);
        return MHD_NO;
    }
    stream->exchange = ex;
    stream->since_ms = clock_ms();
    ex->stream = stream;
    /* libmicrohttpd 0.9.75 ends the chunks that a HEAD is not told: there are to be none. */
    if (ex->head_only)
        MHD_set_response_options(response, MHD_RF_HTTP_1_0_COMPATIBLE_STRICT, MHD_RO_END);
    if (tag)
        MHD_add_response_header(response, MHD_HTTP_HEADER_ETAG, tag);
    return queue(ex, MHD_HTTP_OK, response, type, NULL);
}

void stream_wake(struct stream *stream)
{
    if (!stream->asleep || !stream->exchange)
        return;
    stream->asleep = false;
    stream->since_ms = clock_ms();
    conn_resume(stream->exchange->conn);
}
