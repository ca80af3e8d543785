#include "support.h"

#include <arpa/inet.h>
#include <criterion/criterion.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <unistd.h>
#include "base/clock.h"

uint64_t rig_now_ms(void) { return clock_ms(); }

void rig_nap(void) { usleep(1000); }

/* ---- the daemon ---- */

struct fake {
    struct rig *rig;
    char text[300];
};

static bool render(void *data, struct web_body *out_body)
{
    struct fake *fake = data;

    if (strcmp(fake->text, "no memory") == 0)
        return false;
    out_body->type = "application/json";
    out_body->data = strdup(fake->text);
    out_body->len = strlen(fake->text);
    return true;
}

static void drop(void *data)
{
    struct fake *fake = data;

    atomic_fetch_add(&fake->rig->dropped, 1);
    free(fake);
}

static void answer(struct rig *rig, uint64_t number, enum web_question question,
                   const char *argument)
{
    static const char *const words[N_WEB_QUESTIONS] = {
        [WEB_HEALTH] = "health", [WEB_READY] = "ready",     [WEB_NODE] = "node",
        [WEB_LIVE] = "live",     [WEB_EXPLAIN] = "explain", [WEB_METRICS] = "metrics",
    };
    struct fake *fake = calloc(1, sizeof *fake);

    fake->rig = rig;
    if (strcmp(argument, "no.memory") == 0)
        snprintf(fake->text, sizeof fake->text, "no memory");
    else
        snprintf(fake->text, sizeof fake->text, "{\"%s\":\"%s\"}\n", words[question], argument);
    web_answer(rig->web, number,
               &(struct web_answer){.data = fake, .render = render, .drop = drop});
}

static void on_ask(void *ctx, uint64_t number, enum web_question question, const char *argument)
{
    struct rig *rig = ctx;

    if (atomic_load(&rig->hold)) {
        pthread_mutex_lock(&rig->lock);
        rig->held = number;
        pthread_mutex_unlock(&rig->lock);
    } else {
        answer(rig, number, question, argument);
    }
    atomic_fetch_add(&rig->asked, 1);
}

void rig_answer_held(struct rig *rig)
{
    pthread_mutex_lock(&rig->lock);
    answer(rig, rig->held, WEB_HEALTH, "");
    pthread_mutex_unlock(&rig->lock);
}

static int on_picture(void *ctx, struct snapshot **out)
{
    return registry_snapshot(((struct rig *)ctx)->reg, out);
}

/* ---- the rig ---- */

/* Long before the machine's clock began, so it wraps; in the middle of the second. */
static uint64_t seen_at(uint64_t unix_s)
{
    return unix_s * 1000 + 500 - (uint64_t)clock_offset_ms();
}

void rig_init(struct rig *rig)
{
    struct registry_state live = {
        .connected = true, .last_seen_ms = seen_at(1700000000), .link_id = 7};
    struct registry_state stale = {.stale = true, .last_seen_ms = seen_at(1600000000)};

    memset(rig, 0, sizeof *rig);
    memset(live.session_id, 0xab, sizeof live.session_id);
    limits_default(&rig->limits);
    rig->times = web_times;
    rig->host = "127.0.0.1";
    pthread_mutex_init(&rig->lock, NULL);
    rig->reg = registry_for("me", NULL);
    cr_assert_eq(put_local_text(rig->reg, 1, "db=127.0.0.1:5432 web=127.0.0.1:80!"), 0);
    cr_assert_eq(put_text(rig->reg, "p1", "192.0.2.1", 1, "api=h:1~ web=192.0.2.1:80"), 0);
    cr_assert_eq(put_text(rig->reg, "p2", "192.0.2.2", 1, "old=h:2"), 0);
    cr_assert_eq(registry_peer_state(rig->reg, "p1", &live, NULL), 0);
    cr_assert_eq(registry_peer_state(rig->reg, "p2", &stale, NULL), 0);
}

void rig_listen(struct rig *rig)
{
    struct web_settings settings = {
        .peer_id = "me",
        .software = "meshd test",
        .limits = &rig->limits,
        .times = &rig->times,
        .ops = {.ctx = rig, .ask = on_ask, .picture = on_picture},
    };

    cr_assert_eq(web_new(&settings, &rig->web), 0);
    cr_assert_eq(web_listen(rig->web, rig->host, 0, rig->at, sizeof rig->at), 0);
    rig->port = (uint16_t)atoi(strrchr(rig->at, ':') + 1);
}

void rig_start(struct rig *rig)
{
    if (!rig->web)
        rig_listen(rig);
    cr_assert_eq(web_start(rig->web), 0);
}

void rig_stop(struct rig *rig)
{
    web_stop(rig->web);
    web_free(rig->web);
    registry_free(rig->reg);
    pthread_mutex_destroy(&rig->lock);
}

struct web_counters rig_count(struct rig *rig)
{
    struct web_counters c;

    web_counters(rig->web, &c);
    return c;
}

/* ---- a client ---- */

int rig_connect(struct rig *rig, const char *from)
{
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons(rig->port)}, source = at;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    source.sin_port = 0;
    if (from) {
        inet_pton(AF_INET, from, &source.sin_addr);
        cr_assert_eq(bind(fd, (struct sockaddr *)&source, sizeof source), 0);
    }
    cr_assert_eq(connect(fd, (struct sockaddr *)&at, sizeof at), 0);
    return fd;
}

void send_text(int fd, const char *text)
{
    size_t len = strlen(text);

    cr_assert_eq(send(fd, text, len, MSG_NOSIGNAL), (ssize_t)len);
}

static ssize_t read_some(int fd, char *out, size_t size)
{
    struct pollfd poll_fd = {.fd = fd, .events = POLLIN};

    cr_assert_eq(poll(&poll_fd, 1, WAIT_MS), 1, "nothing came for %d ms", WAIT_MS);
    return recv(fd, out, size, 0);
}

bool is_closed(int fd)
{
    char bytes[4096];
    ssize_t n;

    while ((n = read_some(fd, bytes, sizeof bytes)) > 0)
        ;
    return true;
}

struct text {
    char *at;
    size_t len, cap;
};

/* One byte at a time would do; an answer that follows must not be read. */
static bool more(int fd, struct text *text, size_t n)
{
    while (n) {
        ssize_t got;

        if (text->len + n + 1 > text->cap) {
            text->cap = 2 * (text->len + n + 1);
            text->at = realloc(text->at, text->cap);
        }
        got = read_some(fd, text->at + text->len, n);
        if (got <= 0)
            return false;
        text->len += (size_t)got;
        text->at[text->len] = '\0';
        n -= (size_t)got;
    }
    return true;
}

static bool line(int fd, struct text *text)
{
    size_t from = text->len;

    do
        if (!more(fd, text, 1))
            return false;
    while (text->len - from < 2 || memcmp(text->at + text->len - 2, "\r\n", 2) != 0);
    return true;
}

static void read_chunks(int fd, struct text *body)
{
    for (;;) {
        struct text size = {0};
        size_t n;

        if (!line(fd, &size)) {
            free(size.at);
            body->len = 0; /* broken off */
            return;
        }
        n = strtoul(size.at, NULL, 16);
        free(size.at);
        if (!more(fd, body, n + 2))
            return;
        body->len -= 2;
        body->at[body->len] = '\0';
        if (!n)
            return;
    }
}

struct reply reply_read(int fd, bool head_only)
{
    struct text head = {0}, body = {0};
    const char *length;
    size_t from;

    do {
        from = head.len;
        if (!line(fd, &head)) {
            free(head.at);
            return (struct reply){0};
        }
    } while (head.len - from > 2);
    length = strcasestr(head.at, "\r\nContent-Length:");
    more(fd, &body, 0);
    body.at = calloc(1, 1);
    body.cap = 1;
    if (!head_only && length)
        more(fd, &body, strtoul(length + strlen("\r\nContent-Length:"), NULL, 10));
    else if (!head_only && strcasestr(head.at, "\r\nTransfer-Encoding: chunked"))
        read_chunks(fd, &body);
    return (struct reply){
        .status = atoi(head.at + strlen("HTTP/1.1 ")),
        .head = head.at,
        .body = body.at,
        .len = body.len,
    };
}

void reply_fini(struct reply *reply)
{
    free(reply->head);
    free(reply->body);
    *reply = (struct reply){0};
}

struct reply get(struct rig *rig, const char *path, const char *extra)
{
    int fd = rig_connect(rig, NULL);
    struct reply reply;
    char *text;

    cr_assert_gt(asprintf(&text, "GET %s HTTP/1.1\r\nHost: localhost\r\n%s\r\n", path, extra), 0);
    send_text(fd, text);
    free(text);
    reply = reply_read(fd, false);
    close(fd);
    return reply;
}

void expect_error(struct rig *rig, const char *path, const char *extra, int status,
                  const char *text)
{
    struct reply reply = get(rig, path, extra);
    char *wanted;

    cr_assert_gt(asprintf(&wanted, "{\"error\":{\"status\":%d,\"text\":\"%s\"}}\n", status, text),
                 0);
    cr_expect_eq(reply.status, status, "%s: %d", path, reply.status);
    cr_expect(strcmp(reply.body, wanted) == 0, "%.300s", reply.body);
    cr_expect(strstr(reply.head, "\r\nContent-Type: application/json\r\n"));
    free(wanted);
    reply_fini(&reply);
}
