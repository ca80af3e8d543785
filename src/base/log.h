/* log - one line per event, to standard error, from any thread.
 *
 * Text:  "level [room] message", nothing before it unless log.timestamps is set: journald and
 *        container runtimes have the time. JSON: one object per line.
 * What strangers sent is escaped: every byte below 0x20, 0x7f and above, and the backslash itself
 * appear as \xNN, so that nobody can forge a line or move the cursor of who reads it.
 * Where standard error is the journal (JOURNAL_STREAM says so), each text line begins with its
 * priority, as in sd-daemon(3).
 * A line that standard error does not take at once (a pipe that nobody reads, a full device) is
 * lost: no loop waits for it; the next one that is taken is preceded by one that says how many
 * were. Rooms below daemon do not log; they return what happened.
 */
#ifndef BASE_LOG_H
#define BASE_LOG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum log_level { LOG_ERROR, LOG_WARN, LOG_INFO, LOG_DEBUG };
enum log_format { LOG_TEXT, LOG_JSON };

struct log_settings {
    enum log_level level;
    enum log_format format;
    bool timestamps; /* text only; JSON always carries "time" */
};

/* Takes effect for the lines after it. Any thread, but format and timestamps before there are
 * others, so that no line has a little of both. */
void log_setup(const struct log_settings *settings);
void log_set_level(enum log_level level); /* any thread */
bool log_on(enum log_level level);
uint64_t log_lost(void); /* lines that standard error has not taken since the start; any thread */
void log_write(enum log_level level, const char *room, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* A line of fields. Text: "level [room] name=value name=value", where a string with a space, a
 * quote or a "=" in it stands in quotes, and an empty one is left out. JSON: each is a member of
 * the object, behind time, level and room; there is no message. At most LOG_FIELDS of them, and
 * LOG_FIELDS_TEXT bytes of strings: what is longer is cut. */
#define LOG_FIELDS 24u
#define LOG_FIELDS_TEXT 2048u
#define LOG_FIELD_NAME 16u

enum log_field_kind { LOG_STRING, LOG_NUMBER, LOG_US_AS_MS /* a number of us, shown as 12.345 */ };
struct log_field {
    const char *name; /* letters and "_", at most LOG_FIELD_NAME */
    enum log_field_kind kind;
    const char *text;
    uint64_t number;
};
void log_fields(enum log_level level, const char *room, const struct log_field *fields, size_t n);

#define log_error(room, ...) log_write(LOG_ERROR, room, __VA_ARGS__)
#define log_warn(room, ...) log_write(LOG_WARN, room, __VA_ARGS__)
#define log_info(room, ...) log_write(LOG_INFO, room, __VA_ARGS__)
#define log_debug(room, ...) log_write(LOG_DEBUG, room, __VA_ARGS__)

/* For lines that others can cause as often as they like: so many of one kind within so long, then
 * none but one that says how many were left out, behind that time and before the next of the kind.
 * A limit is zeroed to begin with. now_ms: of clock_ms. Any thread. */
#define LOG_LIMITED_LINES 200u
#define LOG_LIMITED_MS 10000u

struct log_limit {
    uint64_t begun_ms, left_out;
    unsigned written;
};
/* kind: what the line that tells of those left out says they were, "peer ... is gone". */
void log_limited(struct log_limit *limit, uint64_t now_ms, enum log_level level, const char *room,
                 const char *kind, const char *format, ...) __attribute__((format(printf, 6, 7)));
/* The same for a line that the caller writes, if it may: then true. */
bool log_limit_take(struct log_limit *limit, uint64_t now_ms, enum log_level level,
                    const char *room, const char *kind);
/* Tells of them when their time is over, though no other line of the kind may come. */
void log_limited_rest(struct log_limit *limit, uint64_t now_ms, enum log_level level,
                      const char *room, const char *kind);

/* The block of text (whole lines) goes to fd as the settings say: as it is, with a time before each
 * line, or each line as a JSON object of room and message. 0, or a negative errno of write(2). */
int log_block(int fd, const char *room, const char *text, size_t len);

#endif
