/* Log lines: their form, their escapes, and that each is one write. */
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <regex.h>
#include <semaphore.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "base/log.h"

static int in, out;      /* of a pipe */
static char got[200000]; /* what came through it */
static size_t got_len;

static void setup(void)
{
    int fds[2];

    cr_assert_eq(pipe2(fds, O_CLOEXEC | O_NONBLOCK), 0);
    in = fds[0];
    out = fds[1];
    cr_assert_geq(fcntl(out, F_SETPIPE_SZ, 1 << 20), 1 << 16);
}

static void settings(enum log_level level, enum log_format format, bool timestamps)
{
    struct log_settings s = {.level = level, .format = format, .timestamps = timestamps};

    log_setup(&s);
}

/* One read gives what one write wrote, or all of several. */
static const char *receive(void)
{
    ssize_t n = read(in, got, sizeof(got) - 1);

    got_len = n > 0 ? (size_t)n : 0;
    got[got_len] = '\0';
    return got;
}

/* While f runs, standard error is the pipe. */
#define CAPTURE(...)                                                                               \
    do {                                                                                           \
        int saved_ = dup(STDERR_FILENO);                                                           \
        dup2(out, STDERR_FILENO);                                                                  \
        __VA_ARGS__;                                                                               \
        dup2(saved_, STDERR_FILENO);                                                               \
        close(saved_);                                                                             \
        receive();                                                                                 \
    } while (0)

static bool matches(const char *text, const char *pattern)
{
    regex_t re;
    bool match;

    cr_assert_eq(regcomp(&re, pattern, REG_EXTENDED | REG_NOSUB), 0);
    match = regexec(&re, text, 0, NULL, 0) == 0;
    regfree(&re);
    return match;
}

#define STAMP "[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\\.[0-9]{3}Z"

Test(log, text_line_is_level_room_message, .init = setup)
{
    CAPTURE(log_warn("gate", "closed %d of %s", 3, "them"));
    cr_expect_str_eq(got, "warn [gate] closed 3 of them\n");
}

Test(log, level_decides_what_is_written, .init = setup)
{
    settings(LOG_WARN, LOG_TEXT, false);
    cr_expect(log_on(LOG_ERROR) && log_on(LOG_WARN) && !log_on(LOG_INFO) && !log_on(LOG_DEBUG));
    CAPTURE(log_info("node", "no"); log_debug("node", "no"); log_error("node", "yes"));
    cr_expect_str_eq(got, "error [node] yes\n");
    settings(LOG_DEBUG, LOG_TEXT, false);
    CAPTURE(log_debug("node", "now"));
    cr_expect_str_eq(got, "debug [node] now\n");
}

Test(log, timestamps_come_first, .init = setup)
{
    settings(LOG_INFO, LOG_TEXT, true);
    CAPTURE(log_info("node", "hello"));
    cr_expect(matches(got, "^" STAMP " info \\[node\\] hello\n$"), "%s", got);
}

Test(log, strangers_bytes_are_escaped, .init = setup)
{
    CAPTURE(log_info("gate", "%s", "a\nerror [x] \x1b[2J\r\x7f\xc3\xa9\\ \"q\""));
    cr_expect_str_eq(got, "info [gate] a\\x0aerror [x] \\x1b[2J\\x0d\\x7f\\xc3\\xa9\\x5c \"q\"\n");
}

Test(log, every_byte_gives_a_printable_line, .init = setup)
{
    char all[256];

    for (int i = 0; i < 255; i++)
        all[i] = (char)(i + 1);
    all[255] = '\0';
    for (int json = 0; json < 2; json++) {
        settings(LOG_INFO, json ? LOG_JSON : LOG_TEXT, false);
        CAPTURE(log_info("gate", "%s", all));
        for (size_t i = 0; i + 1 < got_len; i++)
            cr_assert(got[i] >= 0x20 && got[i] < 0x7f, "byte %zu is %02x", i, got[i] & 255);
        cr_expect_eq(got[got_len - 1], '\n');
    }
}

Test(log, json_line_is_one_object, .init = setup)
{
    settings(LOG_INFO, LOG_JSON, false);
    CAPTURE(log_error("wire", "a \"b\" \\ \n %s", "\xff"));
    cr_expect(matches(got, "^\\{\"time\":\"" STAMP "\",\"level\":\"error\",\"room\":\"wire\","
                           "\"message\":\"[^\n]*\"\\}\n$"),
              "%s", got);
    cr_expect(strstr(got, "\"message\":\"a \\\"b\\\" \\\\x5c \\\\x0a \\\\xff\"}"), "%s", got);
}

Test(log, long_message_is_cut_and_says_so, .init = setup)
{
    static char text[20000];

    memset(text, '\x01', sizeof(text) - 1);
    for (int json = 0; json < 2; json++) {
        settings(LOG_INFO, json ? LOG_JSON : LOG_TEXT, false);
        CAPTURE(log_info("gate", "%s", text));
        cr_expect_gt(got_len, 4000);
        cr_expect_str_eq(got + got_len - (json ? 6 : 4), json ? "...\"}\n" : "...\n");
    }
}

Test(log, leaves_errno_alone, .init = setup)
{
    int saved;

    CAPTURE(errno = ENOTCONN; log_info("gate", "%m"); cr_expect_eq(errno, ENOTCONN));
    cr_expect_str_eq(got, "info [gate] Transport endpoint is not connected\n");
    /* Also when the line cannot be written. */
    saved = dup(STDERR_FILENO);
    close(STDERR_FILENO);
    errno = ENOTCONN;
    log_info("gate", "lost");
    cr_expect_eq(errno, ENOTCONN);
    dup2(saved, STDERR_FILENO);
    close(saved);
}

static void *write_lines(void *unused)
{
    for (int i = 0; i < 200; i++)
        log_info("node", "0123456789 0123456789 0123456789 0123456789");
    return NULL;
}

Test(log, lines_of_several_threads_do_not_mix, .init = setup)
{
    static const char line[] = "info [node] 0123456789 0123456789 0123456789 0123456789\n";
    pthread_t threads[4];

    CAPTURE({
        for (int i = 0; i < 4; i++)
            pthread_create(&threads[i], NULL, write_lines, NULL);
        for (int i = 0; i < 4; i++)
            pthread_join(threads[i], NULL);
    });
    cr_assert_eq(got_len, 800 * (sizeof(line) - 1));
    for (size_t i = 0; i < 800; i++)
        cr_assert_eq(memcmp(got + i * (sizeof(line) - 1), line, sizeof(line) - 1), 0);
}

Test(log, block_is_written_as_it_is, .init = setup)
{
    static const char text[] = "[registry] one\n[registry]   | two |\n";

    cr_expect_eq(log_block(out, "registry", text, sizeof(text) - 1), 0);
    cr_expect_str_eq(receive(), text);
}

Test(log, block_has_a_time_before_each_line_when_asked, .init = setup)
{
    static const char text[] = "[registry] one\n\n[registry] two\n";

    settings(LOG_INFO, LOG_TEXT, true);
    cr_expect_eq(log_block(out, "registry", text, sizeof(text) - 1), 0);
    cr_expect(matches(receive(),
                      "^" STAMP " \\[registry\\] one\n" STAMP " \n" STAMP " \\[registry\\] two\n$"),
              "%s", got);
}

Test(log, block_becomes_an_object_per_line, .init = setup)
{
    static const char text[] = "[registry] a \"b\"\nplain \\\n[registry] ";

    settings(LOG_INFO, LOG_JSON, false);
    cr_expect_eq(log_block(out, "registry", text, sizeof(text) - 1), 0);
#define HEAD "\\{\"time\":\"" STAMP "\",\"level\":\"info\",\"room\":\"registry\",\"message\":"
    cr_expect(matches(receive(), "^" HEAD "\"a \\\\\"b\\\\\"\"\\}\n" HEAD
                                 "\"plain \\\\\\\\x5c\"\\}\n" HEAD "\"\"\\}\n$"),
              "%s", got);
}

static char block[3000000], came[16000000];
static size_t block_len;

static void *write_block(void *unused)
{
    cr_assert_eq(log_block(out, "registry", block, block_len), 0);
    close(out);
    return NULL;
}

/* Larger than the pipe, which does not block, so that writes are partial and refused. */
static void through_a_small_pipe(size_t line_len)
{
    size_t came_len = 0, lines = 0;
    pthread_t writer;
    ssize_t n = 1;

    for (block_len = 0; block_len + line_len + 1 <= sizeof(block); block_len += line_len + 1) {
        memset(block + block_len, 'x', line_len);
        block[block_len + line_len] = '\n';
        lines++;
    }
    fcntl(out, F_SETPIPE_SZ, 4096);
    fcntl(in, F_SETFL, 0);
    cr_assert_eq(pthread_create(&writer, NULL, write_block, NULL), 0);
    while ((n = read(in, came + came_len, sizeof(came) - came_len)) > 0)
        came_len += (size_t)n;
    cr_expect_eq(n, 0);
    pthread_join(writer, NULL);
    for (size_t at = 0, i = 0; i < lines; i++) {
        char *end = memchr(came + at, '\n', came_len - at);

        cr_assert(end, "line %zu is missing", i);
        cr_assert_geq((size_t)(end - came) - at, line_len);
        at = (size_t)(end - came) + 1;
        if (i == lines - 1)
            cr_expect_eq(at, came_len);
    }
}

Test(log, large_block_arrives_whole, .init = setup) { through_a_small_pipe(70); }

Test(log, large_block_arrives_whole_with_times, .init = setup)
{
    settings(LOG_INFO, LOG_TEXT, true);
    through_a_small_pipe(70);
}

Test(log, very_long_lines_arrive_whole_with_times, .init = setup)
{
    settings(LOG_INFO, LOG_TEXT, true);
    through_a_small_pipe(100000);
}

Test(log, very_long_lines_arrive_whole_as_json, .init = setup)
{
    settings(LOG_INFO, LOG_JSON, false);
    through_a_small_pipe(100000);
}

Test(log, block_that_cannot_be_written_gives_the_error, .init = setup)
{
    static const char text[] = "one\n";

    for (int json = 0; json < 2; json++) {
        settings(LOG_INFO, json ? LOG_JSON : LOG_TEXT, false);
        cr_expect_eq(log_block(-1, "registry", text, sizeof(text) - 1), -EBADF);
    }
}

static size_t lines_in(const char *text)
{
    size_t n = 0;

    for (; (text = strchr(text, '\n')); text++)
        n++;
    return n;
}

static void flood(struct log_limit *limit, uint64_t now_ms, unsigned n)
{
    for (unsigned i = 0; i < n; i++)
        log_limited(limit, now_ms, LOG_INFO, "link", "peer ... is gone", "peer n%u is gone", i);
}

Test(log, lines_that_others_cause_are_limited_and_the_rest_is_counted, .init = setup)
{
    struct log_limit limit = {0}, other = {0};

    settings(LOG_INFO, LOG_TEXT, false);
    CAPTURE(flood(&limit, 50000, LOG_LIMITED_LINES + 1234));
    cr_expect_eq(lines_in(got), LOG_LIMITED_LINES);
    cr_expect_eq(strncmp(got, "info [link] peer n0 is gone\n", 28), 0);
    CAPTURE(flood(&other, 50000, 1));
    cr_expect_eq(lines_in(got), 1);
    CAPTURE(log_limited_rest(&limit, 59999, LOG_INFO, "link", "peer ... is gone"));
    cr_expect_str_eq(got, "");
    CAPTURE(flood(&limit, 60000, 1));
    cr_expect_str_eq(got, "info [link] peer ... is gone: 1234 more such lines were left out\n"
                          "info [link] peer n0 is gone\n");
    CAPTURE(flood(&limit, 60001, LOG_LIMITED_LINES));
    cr_expect_eq(lines_in(got), LOG_LIMITED_LINES - 1);
    CAPTURE(log_limited_rest(&limit, 70000, LOG_INFO, "link", "peer ... is gone"));
    cr_expect_str_eq(got, "info [link] peer ... is gone: 1 more such lines were left out\n");
    CAPTURE(log_limited_rest(&limit, 90000, LOG_INFO, "link", "peer ... is gone"));
    cr_expect_str_eq(got, "");
}

Test(log, what_comes_now_and_then_is_never_left_out, .init = setup)
{
    struct log_limit limit = {0};

    settings(LOG_INFO, LOG_TEXT, false);
    for (uint64_t at = 0; at < 10; at++) {
        CAPTURE(flood(&limit, 1000 + at * LOG_LIMITED_MS, LOG_LIMITED_LINES));
        cr_expect_eq(lines_in(got), LOG_LIMITED_LINES);
    }
}

Test(log, another_level_is_for_the_lines_after_it, .init = setup)
{
    settings(LOG_WARN, LOG_TEXT, true);
    CAPTURE(log_info("daemon", "before"));
    cr_expect_str_eq(got, "");
    log_set_level(LOG_INFO);
    CAPTURE(log_info("daemon", "after"));
    cr_expect(matches(got, "^[-0-9T:.]+Z info \\[daemon\\] after\n$"), "%s", got);
    log_set_level(LOG_ERROR);
    CAPTURE(log_warn("daemon", "late"));
    cr_expect_str_eq(got, "");
}

/* ---- fields ---- */

static const struct log_field fields[] = {
    {.name = "id", .text = "0f1e"},
    {.name = "none", .text = ""},
    {.name = "why", .text = "it said \"no\"\n"},
    {.name = "eq", .text = "a=b"},
    {.name = "up", .kind = LOG_NUMBER, .number = UINT64_MAX},
    {.name = "open_ms", .kind = LOG_US_AS_MS, .number = 12045},
};
#define N_FIELDS (sizeof(fields) / sizeof(*fields))

Test(log, fields_are_named_values_and_quoted_where_they_need_it, .init = setup)
{
    settings(LOG_INFO, LOG_TEXT, false);
    CAPTURE(log_fields(LOG_INFO, "forward", fields, N_FIELDS));
    cr_expect_str_eq(got, "info [forward] id=0f1e why=\"it said \\x22no\\x22\\x0a\" eq=\"a=b\" "
                          "up=18446744073709551615 open_ms=12.045\n");
    CAPTURE(log_fields(LOG_DEBUG, "forward", fields, N_FIELDS));
    cr_expect_str_eq(got, "");
}

Test(log, fields_are_members_of_the_object_and_numbers_stay_numbers, .init = setup)
{
    settings(LOG_INFO, LOG_JSON, false);
    CAPTURE(log_fields(LOG_WARN, "forward", fields, N_FIELDS));
    cr_expect(
        matches(got, "^\\{\"time\":\"" STAMP "\",\"level\":\"warn\",\"room\":\"forward\",\"id\":"),
        "%s", got);
    cr_expect(strstr(got, ",\"id\":\"0f1e\",\"none\":\"\",\"why\":\"it said \\\"no\\\"\\\\x0a\","
                          "\"eq\":\"a=b\",\"up\":18446744073709551615,\"open_ms\":12.045}\n"),
              "%s", got);
}

Test(log, fields_without_end_are_cut, .init = setup)
{
    static char text[20000];
    struct log_field many[LOG_FIELDS];

    memset(text, '\x01', sizeof(text) - 1);
    for (size_t i = 0; i < LOG_FIELDS; i++)
        many[i] = (struct log_field){.name = "a_name_as_long_as_it_may_be", .text = text};
    many[1] = (struct log_field){.name = "n", .kind = LOG_NUMBER, .number = 7};
    for (int json = 0; json < 2; json++) {
        settings(LOG_INFO, json ? LOG_JSON : LOG_TEXT, false);
        CAPTURE(log_fields(LOG_INFO, "forward", many, LOG_FIELDS));
        cr_expect_eq(lines_in(got), 1);
        cr_expect_gt(got_len, LOG_FIELDS_TEXT * 4);
        cr_expect(strstr(got, json ? "\"n\":7" : " n=7"), "what needs no room is there");
    }
}

/* ---- where it goes ---- */

Test(log, lines_have_their_priority_where_standard_error_is_the_journal, .init = setup)
{
    char stream[64];
    struct stat at;

    cr_assert_eq(fstat(out, &at), 0);
    snprintf(stream, sizeof(stream), "%llu:%llu", (unsigned long long)at.st_dev,
             (unsigned long long)at.st_ino);
    setenv("JOURNAL_STREAM", stream, 1);
    CAPTURE(settings(LOG_DEBUG, LOG_TEXT, false); log_error("a", "1"); log_warn("a", "2");
            log_info("a", "3"); log_debug("a", "4"); log_fields(LOG_INFO, "a", fields, 1));
    cr_expect_str_eq(got, "<3>error [a] 1\n<4>warn [a] 2\n<6>info [a] 3\n<7>debug [a] 4\n"
                          "<6>info [a] id=0f1e\n");
    CAPTURE(settings(LOG_INFO, LOG_TEXT, true); log_info("a", "1"));
    cr_expect(matches(got, "^<6>" STAMP " info \\[a\\] 1\n$"), "%s", got);
    CAPTURE(settings(LOG_INFO, LOG_JSON, false); log_info("a", "1"));
    cr_expect_eq(got[0], '{');
    CAPTURE(settings(LOG_INFO, LOG_TEXT, false); log_block(out, "a", "[a] map\n", 8));
    cr_expect_str_eq(got, "[a] map\n");
    settings(LOG_INFO, LOG_TEXT, false); /* standard error is another file now */
    CAPTURE(log_info("a", "1"));
    cr_expect_str_eq(got, "info [a] 1\n");
    setenv("JOURNAL_STREAM", "nonsense", 1);
    CAPTURE(settings(LOG_INFO, LOG_TEXT, false); log_info("a", "1"));
    cr_expect_str_eq(got, "info [a] 1\n");
}

Test(log, lines_that_nobody_reads_are_lost_and_counted, .init = setup, .timeout = 60)
{
    static char junk[1 << 21];
    uint64_t before = log_lost();
    ssize_t n;

    settings(LOG_INFO, LOG_TEXT, false);
    memset(junk, '.', sizeof(junk));
    while ((n = write(out, junk, sizeof(junk))) > 0) {
    }
    fcntl(out, F_SETFL, 0); /* who wrote now would wait */
    CAPTURE(for (int i = 0; i < 3; i++) log_info("node", "lost"));
    cr_expect(strspn(got, ".") == got_len);
    while (strspn(receive(), ".") > 0) {
    }
    CAPTURE(log_info("node", "read"));
    cr_expect_str_eq(got, "warn [log] 3 lines were lost: standard error did not take them\n"
                          "info [node] read\n");
    CAPTURE(log_info("node", "and on"));
    cr_expect_str_eq(got, "info [node] and on\n");
    cr_expect_eq(log_lost() - before, 3);
}

Test(log, lines_that_a_full_device_refuses_are_lost_and_counted, .init = setup)
{
    uint64_t before = log_lost();
    int saved = dup(STDERR_FILENO), full = open("/dev/full", O_WRONLY | O_CLOEXEC);

    cr_assert(saved >= 0 && full >= 0);
    settings(LOG_INFO, LOG_TEXT, false);
    dup2(full, STDERR_FILENO);
    log_info("node", "lost");
    log_info("node", "lost, and so is what tells of it");
    dup2(saved, STDERR_FILENO);
    close(full);
    close(saved);
    cr_expect_eq(log_lost() - before, 2);
    CAPTURE(log_info("node", "read"));
    cr_expect_str_eq(got, "warn [log] 2 lines were lost: standard error did not take them\n"
                          "info [node] read\n");
}

/* ---- one line is written while another waits for its turn ---- */

static atomic_bool holds;  /* the next write waits, as one whose thread is kept off the processor */
static sem_t writes, goes; /* it has come so far; it goes on */
static atomic_uint patience; /* so often the other waits before it does */

ssize_t __real_write(int fd, const void *data, size_t len);
ssize_t __wrap_write(int fd, const void *data, size_t len);
int __real_pthread_mutex_timedlock(pthread_mutex_t *mutex, const struct timespec *until);
int __wrap_pthread_mutex_timedlock(pthread_mutex_t *mutex, const struct timespec *until);

ssize_t __wrap_write(int fd, const void *data, size_t len)
{
    if (atomic_exchange(&holds, false)) {
        sem_post(&writes);
        sem_wait(&goes);
    }
    return __real_write(fd, data, len);
}

int __wrap_pthread_mutex_timedlock(pthread_mutex_t *mutex, const struct timespec *until)
{
    int r = __real_pthread_mutex_timedlock(mutex, until);

    if (r == ETIMEDOUT && atomic_fetch_sub(&patience, 1) == 1)
        sem_post(&goes);
    return r;
}

static void *write_first(void *unused)
{
    log_info("node", "first");
    return NULL;
}

static pthread_t hold_first(unsigned n)
{
    pthread_t thread;

    sem_init(&writes, 0, 0);
    sem_init(&goes, 0, 0);
    atomic_store(&patience, n);
    atomic_store(&holds, true);
    pthread_create(&thread, NULL, write_first, NULL);
    sem_wait(&writes);
    return thread;
}

Test(log, a_line_waits_for_one_whose_thread_is_kept_off_the_processor, .init = setup, .timeout = 60)
{
    settings(LOG_INFO, LOG_TEXT, false);
    CAPTURE({
        pthread_t first = hold_first(3);

        log_info("node", "second");
        sem_post(&goes);
        pthread_join(first, NULL);
    });
    cr_expect_str_eq(got, "info [node] first\ninfo [node] second\n");
}

Test(log, a_line_does_not_wait_for_one_that_waits_for_a_pipe_that_nobody_reads, .init = setup,
     .timeout = 60)
{
    static char junk[1 << 21];

    settings(LOG_INFO, LOG_TEXT, false);
    memset(junk, '.', sizeof(junk));
    CAPTURE({
        pthread_t first = hold_first(1000);

        while (__real_write(out, junk, sizeof(junk)) > 0) {
        }
        log_info("node", "second");
        log_info("node", "third");
        cr_expect_eq(atomic_load(&patience), 999, "only one of them is waited for");
        while (strspn(receive(), ".") > 0) {
        }
        sem_post(&goes);
        pthread_join(first, NULL);
        log_info("node", "fourth");
    });
    cr_expect_str_eq(got, "info [node] first\n"
                          "warn [log] 2 lines were lost: standard error did not take them\n"
                          "info [node] fourth\n");
}
