/* log - format, escape, one write(2).
 *
 * A line is built on the stack: logging needs no memory. The JSON form of a message is its text
 * form as a JSON string, so both show the same characters. Lines are written one at a time, for
 * whether there is room for one is asked first (the `pen`). */
#include "base/log.h"
#include <assert.h>
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>
#include "base/clock.h"

#define MESSAGE_MAX 4096u /* bytes before escaping; what is longer is cut and ends in "..." */
#define STAMP_LEN 24u     /* 2001-02-03T04:05:06.789Z */
#define ESCAPED_MAX 5u    /* bytes that one byte can become: \\xNN in JSON */
#define HEAD_MAX 512u     /* time, level, room and what stands around them */

static const char *const level_names[] = {"error", "warn", "info", "debug"};
static const char *const priorities[] = {"<3>", "<4>", "<6>", "<7>"}; /* as syslog(3) has them */

static _Atomic int log_level = LOG_INFO;
static _Atomic int log_format = LOG_TEXT;
static atomic_bool log_timestamps, log_priorities;

static bool stderr_is_journal(void)
{
    const char *stream = getenv("JOURNAL_STREAM");
    unsigned long long device, inode;
    struct stat at;

    return stream && sscanf(stream, "%llu:%llu", &device, &inode) == 2 &&
           fstat(STDERR_FILENO, &at) == 0 && at.st_dev == device && at.st_ino == inode;
}

void log_setup(const struct log_settings *settings)
{
    atomic_store(&log_level, (int)settings->level);
    atomic_store(&log_format, (int)settings->format);
    atomic_store(&log_timestamps, settings->timestamps);
    atomic_store(&log_priorities, stderr_is_journal());
}

void log_set_level(enum log_level level) { atomic_store(&log_level, (int)level); }

bool log_on(enum log_level level)
{
    return (int)level <= atomic_load_explicit(&log_level, memory_order_relaxed);
}

/* What goes to fd, gathered. Without an fd (-1) buf has room for all of it. */
struct sink {
    char *buf;
    size_t used, size;
    int fd, error;
};

static int write_all(int fd, const char *data, size_t len)
{
    struct pollfd wait = {.fd = fd, .events = POLLOUT};
    ssize_t n;

    while (len > 0) {
        n = write(fd, data, len);
        if (n >= 0) {
            data += n;
            len -= (size_t)n;
        } else if (errno == EAGAIN) {
            poll(&wait, 1, -1); /* someone else made the descriptor non-blocking */
        } else if (errno != EINTR) {
            return -errno;
        }
    }
    return 0;
}

static void flush(struct sink *s)
{
    if (s->error == 0)
        s->error = write_all(s->fd, s->buf, s->used);
    s->used = 0;
}

static void put(struct sink *s, const char *data, size_t len)
{
    if (len > s->size - s->used)
        flush(s);
    assert(len <= s->size - s->used);
    memcpy(s->buf + s->used, data, len);
    s->used += len;
}

static void put_text(struct sink *s, const char *text) { put(s, text, strlen(text)); }

/* QUOTED is text between quotes. */
enum form { PLAIN, QUOTED, JSON };

static void put_escaped(struct sink *s, const char *data, size_t len, enum form form)
{
    static const char hex[] = "0123456789abcdef";

    for (size_t i = 0; i < len; i++) {
        uint8_t c = (uint8_t)data[i];

        if (c < 0x20 || c >= 0x7f || c == '\\' || (c == '"' && form == QUOTED)) {
            const char code[] = {'\\', '\\', 'x', hex[c >> 4], hex[c & 15]};

            put(s, form == JSON ? code : code + 1, form == JSON ? 5 : 4);
        } else if (c == '"' && form == JSON) {
            put(s, "\\\"", 2);
        } else {
            put(s, data + i, 1);
        }
    }
}

static void stamp(char out[STAMP_LEN + 1])
{
    uint64_t now_us = clock_wall_us();
    time_t seconds = (time_t)(now_us / 1000000u);
    char whole[STAMP_LEN];
    struct tm tm;

    gmtime_r(&seconds, &tm);
    strftime(whole, sizeof(whole), "%Y-%m-%dT%H:%M:%S", &tm);
    snprintf(out, STAMP_LEN + 1, "%.19s.%03uZ", whole, (unsigned)(now_us / 1000u % 1000u));
}

/* The members that every JSON line has, and the quote behind the last. */
static void put_json_head(struct sink *s, const char *time, enum log_level level, const char *room)
{
    put_text(s, "{\"time\":\"");
    put_text(s, time);
    put_text(s, "\",\"level\":\"");
    put_text(s, level_names[level]);
    put_text(s, "\",\"room\":\"");
    put_escaped(s, room, strnlen(room, 64), JSON);
    put_text(s, "\"");
}

static void put_text_head(struct sink *s, enum log_level level, const char *room)
{
    char time[STAMP_LEN + 1];

    if (atomic_load(&log_priorities))
        put_text(s, priorities[level]);
    if (atomic_load(&log_timestamps)) {
        stamp(time);
        put_text(s, time);
        put_text(s, " ");
    }
    put_text(s, level_names[level]);
    put_text(s, " [");
    put_escaped(s, room, strnlen(room, 64), PLAIN);
    put_text(s, "]");
}

static void put_line(struct sink *s, enum log_level level, const char *room, const char *message,
                     size_t len)
{
    bool json = atomic_load(&log_format) == LOG_JSON;
    char time[STAMP_LEN + 1];

    if (json) {
        stamp(time);
        put_json_head(s, time, level, room);
        put_text(s, ",\"message\":\"");
    } else {
        put_text_head(s, level, room);
        put_text(s, " ");
    }
    put_escaped(s, message, len, json ? JSON : PLAIN);
    put_text(s, json ? "\"}\n" : "\n");
}

/* ---- to standard error ---- */

#define PEN_MS 20    /* longer than any line takes that is taken at once, ... */
#define PEN_TURNS 50 /* ... unless its thread is kept off the processor meanwhile */

static pthread_mutex_t pen = PTHREAD_MUTEX_INITIALIZER;
static atomic_bool pen_stuck; /* who has it waits: somebody else filled the pipe in between */
static atomic_uint_fast64_t lost, lost_in_all; /* lost: since it was told */

uint64_t log_lost(void) { return atomic_load(&lost_in_all); }

static void lose_line(void)
{
    atomic_fetch_add(&lost, 1);
    atomic_fetch_add(&lost_in_all, 1);
}

static bool is_taken(void)
{
    return poll(&(struct pollfd){.fd = STDERR_FILENO, .events = POLLOUT}, 1, 0) != 0;
}

static bool take_pen_soon(void)
{
    struct timespec until;

    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_nsec += PEN_MS * 1000000L;
    until.tv_sec += until.tv_nsec / 1000000000L;
    until.tv_nsec %= 1000000000L;
    return pthread_mutex_timedlock(&pen, &until) == 0;
}

static bool take_pen(void)
{
    if (pthread_mutex_trylock(&pen) == 0)
        return true;
    for (int turn = 0; turn < PEN_TURNS && !atomic_load(&pen_stuck); turn++) {
        if (take_pen_soon())
            return true;
        if (!is_taken())
            break; /* who has it waits for the pipe, too */
    }
    atomic_store(&pen_stuck, true);
    return false;
}

static void put_pen_back(void)
{
    atomic_store(&pen_stuck, false);
    pthread_mutex_unlock(&pen);
}

static void tell_lost(void)
{
    uint64_t n = log_on(LOG_WARN) ? atomic_exchange(&lost, 0) : 0;
    char message[96], line[HEAD_MAX + sizeof(message)];
    struct sink s = {.buf = line, .size = sizeof(line), .fd = -1};
    int len;

    if (n == 0)
        return;
    len = snprintf(message, sizeof(message),
                   "%llu lines were lost: standard error did not take them", (unsigned long long)n);
    put_line(&s, LOG_WARN, "log", message, (size_t)len);
    if (write_all(STDERR_FILENO, line, s.used) < 0)
        atomic_fetch_add(&lost, n);
}

/* A pipe that nobody reads must not stop a loop: what does not fit it is lost, as is what a full
 * device refuses. */
static void write_line(const char *line, size_t len)
{
    if (!take_pen()) {
        lose_line();
        return;
    }
    if (atomic_load(&lost) > 0 && is_taken())
        tell_lost();
    if (!is_taken() || write_all(STDERR_FILENO, line, len) < 0)
        lose_line();
    put_pen_back();
}

static void write_args(enum log_level level, const char *room, const char *format, va_list args)
    __attribute__((format(printf, 3, 0)));

static void write_args(enum log_level level, const char *room, const char *format, va_list args)
{
    char message[MESSAGE_MAX], line[HEAD_MAX + MESSAGE_MAX * ESCAPED_MAX];
    struct sink s = {.buf = line, .size = sizeof(line), .fd = -1};
    int saved = errno; /* callers log first and return errno after */
    int n = vsnprintf(message, sizeof(message), format, args);

    if (n < 0)
        n = snprintf(message, sizeof(message), "(cannot be formatted)");
    if ((size_t)n >= sizeof(message)) {
        n = (int)sizeof(message) - 1;
        memcpy(message + n - 3, "...", 3);
    }
    put_line(&s, level, room, message, (size_t)n);
    write_line(line, s.used);
    errno = saved;
}

void log_write(enum log_level level, const char *room, const char *format, ...)
{
    va_list args;

    if (!log_on(level))
        return;
    va_start(args, format);
    write_args(level, room, format, args);
    va_end(args);
}

/* ---- fields ---- */

static void put_string(struct sink *s, const char *text, size_t len, bool json)
{
    bool quoted = json || len == 0 || strcspn(text, " \"=") < len;

    if (quoted)
        put_text(s, "\"");
    put_escaped(s, text, len, json ? JSON : quoted ? QUOTED : PLAIN);
    if (quoted)
        put_text(s, "\"");
}

static void put_number(struct sink *s, const struct log_field *field)
{
    char text[32];
    unsigned long long number = field->number;

    if (field->kind == LOG_US_AS_MS)
        snprintf(text, sizeof(text), "%llu.%03llu", number / 1000, number % 1000);
    else
        snprintf(text, sizeof(text), "%llu", number);
    put_text(s, text);
}

/* *left: bytes of strings that the line has room for. */
static void put_field(struct sink *s, const struct log_field *field, bool json, size_t *left)
{
    size_t len = field->kind == LOG_STRING ? strnlen(field->text, *left) : 0;

    if (field->kind == LOG_STRING && len == 0 && !json)
        return;
    put_text(s, json ? ",\"" : " ");
    put(s, field->name, strnlen(field->name, LOG_FIELD_NAME));
    put_text(s, json ? "\":" : "=");
    if (field->kind == LOG_STRING)
        put_string(s, field->text, len, json);
    else
        put_number(s, field);
    *left -= len;
}

void log_fields(enum log_level level, const char *room, const struct log_field *fields, size_t n)
{
    bool json = atomic_load(&log_format) == LOG_JSON;
    char time[STAMP_LEN + 1];
    char line[HEAD_MAX + LOG_FIELDS * (LOG_FIELD_NAME + 40) + LOG_FIELDS_TEXT * ESCAPED_MAX];
    struct sink s = {.buf = line, .size = sizeof(line), .fd = -1};
    size_t left = LOG_FIELDS_TEXT;
    int saved = errno;

    assert(n <= LOG_FIELDS);
    if (!log_on(level))
        return;
    if (json) {
        stamp(time);
        put_json_head(&s, time, level, room);
    } else {
        put_text_head(&s, level, room);
    }
    for (size_t i = 0; i < n; i++)
        put_field(&s, &fields[i], json, &left);
    put_text(&s, json ? "}\n" : "\n");
    write_line(line, s.used);
    errno = saved;
}

/* ---- limits ---- */

/* Of all limits; never held while a line is written. */
static pthread_mutex_t limits_lock = PTHREAD_MUTEX_INITIALIZER;

static bool time_is_over(const struct log_limit *limit, uint64_t now_ms)
{
    return limit->begun_ms + LOG_LIMITED_MS <= now_ms;
}

/* How many were left out and are to be told of now. */
static uint64_t take_rest_locked(struct log_limit *limit, uint64_t now_ms)
{
    uint64_t left_out = limit->left_out;

    if (left_out == 0 || !time_is_over(limit, now_ms))
        return 0;
    *limit = (struct log_limit){0};
    return left_out;
}

/* Whether one more line of the kind may be written. */
static bool take_line_locked(struct log_limit *limit, uint64_t now_ms)
{
    if (limit->left_out == 0 && time_is_over(limit, now_ms)) {
        limit->begun_ms = now_ms;
        limit->written = 0;
    }
    if (limit->written < LOG_LIMITED_LINES) {
        limit->written++;
        return true;
    }
    limit->left_out++;
    return false;
}

static void tell_rest(uint64_t left_out, enum log_level level, const char *room, const char *kind)
{
    if (left_out > 0)
        log_write(level, room, "%s: %llu more such lines were left out", kind,
                  (unsigned long long)left_out);
}

bool log_limit_take(struct log_limit *limit, uint64_t now_ms, enum log_level level,
                    const char *room, const char *kind)
{
    uint64_t left_out;
    bool may;

    if (!log_on(level))
        return false;
    pthread_mutex_lock(&limits_lock);
    left_out = take_rest_locked(limit, now_ms);
    may = take_line_locked(limit, now_ms);
    pthread_mutex_unlock(&limits_lock);
    tell_rest(left_out, level, room, kind);
    return may;
}

void log_limited(struct log_limit *limit, uint64_t now_ms, enum log_level level, const char *room,
                 const char *kind, const char *format, ...)
{
    va_list args;

    if (!log_limit_take(limit, now_ms, level, room, kind))
        return;
    va_start(args, format);
    write_args(level, room, format, args);
    va_end(args);
}

void log_limited_rest(struct log_limit *limit, uint64_t now_ms, enum log_level level,
                      const char *room, const char *kind)
{
    uint64_t left_out;

    pthread_mutex_lock(&limits_lock);
    left_out = take_rest_locked(limit, now_ms);
    pthread_mutex_unlock(&limits_lock);
    tell_rest(left_out, level, room, kind);
}

int log_block(int fd, const char *room, const char *text, size_t len)
{
    bool json = atomic_load(&log_format) == LOG_JSON;
    char buf[32768], time[STAMP_LEN + 1];
    struct sink s = {.buf = buf, .size = sizeof(buf), .fd = fd};
    size_t room_len = strlen(room);
    const char *end = text + len, *next;

    if (!json && !atomic_load(&log_timestamps))
        return write_all(fd, text, len);
    stamp(time);
    for (; text < end && s.error == 0; text = next < end ? next + 1 : end) {
        next = memchr(text, '\n', (size_t)(end - text));
        if (!next)
            next = end;
        /* Lines stay whole in one write: ours are far shorter than half of the buffer. */
        if (s.used > sizeof(buf) / 2)
            flush(&s);
        if (json) {
            put_json_head(&s, time, LOG_INFO, room);
            put_text(&s, ",\"message\":\"");
            /* The room has a field of its own. */
            if ((size_t)(next - text) >= room_len + 3 && text[0] == '[' &&
                memcmp(text + 1, room, room_len) == 0 && memcmp(text + 1 + room_len, "] ", 2) == 0)
                text += room_len + 3;
            put_escaped(&s, text, (size_t)(next - text), JSON);
            put_text(&s, "\"}\n");
        } else {
            put_text(&s, time);
            put_text(&s, " ");
            for (; (size_t)(next - text) > sizeof(buf) / 2; text += sizeof(buf) / 2)
                put(&s, text, sizeof(buf) / 2);
            put(&s, text, (size_t)(next - text));
            put_text(&s, "\n");
        }
    }
    flush(&s);
    return s.error;
}
