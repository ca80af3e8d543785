/* metrics - one growing buffer; after the first thing that has no room nothing more is written. */
#include "web/metrics.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "base/array.h"
#include "wire/check.h"

#define NUMBER 32u      /* bytes of one, its NUL too */
#define FIRST_BUCKET 4u /* 16 us: what is quicker is counted with it */
#define ROOM_FIRST 16384u

void metrics_init(struct metrics *m, size_t max_bytes)
{
    *m = (struct metrics){.max_bytes = max_bytes};
}

void metrics_fini(struct metrics *m)
{
    free(m->data);
    *m = (struct metrics){.failed = true};
}

static bool reserve(struct metrics *m, size_t len)
{
    m->failed = m->failed || len > m->max_bytes - m->len ||
                array_room(&m->data, &m->cap, m->len + len, 1, ROOM_FIRST) < 0;
    return !m->failed;
}

static void put(struct metrics *m, const char *data, size_t len)
{
    if (!reserve(m, len))
        return;
    memcpy(m->data + m->len, data, len);
    m->len += len;
}

static void text(struct metrics *m, const char *data) { put(m, data, strlen(data)); }

/* In a help text '"' stands for itself. */
static void escaped(struct metrics *m, const char *data, bool quoted)
{
    size_t len = strlen(data), plain;
    bool readable = utf8_valid((const uint8_t *)data, len);

    for (size_t at = 0; at < len; at += plain) {
        for (plain = 0; at + plain < len; plain++) {
            char c = data[at + plain];

            if (c == '\\' || c == '\n' || (quoted && c == '"') || (!readable && (c & 0x80)))
                break;
        }
        put(m, data + at, plain);
        if (plain > 0)
            continue;
        plain = 1;
        if (data[at] & 0x80) {
            text(m, "\xef\xbf\xbd"); /* U+FFFD */
        } else {
            text(m, "\\");
            put(m, data[at] == '\n' ? "n" : &data[at], 1);
        }
    }
}

void metrics_family(struct metrics *m, enum metrics_type type, const char *name, const char *help)
{
    static const char *const words[] = {[METRICS_COUNTER] = "counter",
                                        [METRICS_GAUGE] = "gauge",
                                        [METRICS_HISTOGRAM] = "histogram"};

    m->family = name;
    m->type = type;
    text(m, "# HELP ");
    text(m, name);
    text(m, " ");
    escaped(m, help, false);
    text(m, "\n# TYPE ");
    text(m, name);
    text(m, " ");
    text(m, words[type]);
    text(m, "\n");
}

static void one_label(struct metrics *m, const char *name, const char *value, bool first)
{
    text(m, first ? "{" : ",");
    text(m, name);
    text(m, "=\"");
    escaped(m, value, true);
    text(m, "\"");
}

/* le: a bound, the last label; NULL: none. */
static void sample(struct metrics *m, const char *suffix, const struct metrics_label *labels,
                   size_t n, const char *le, const char *value)
{
    text(m, m->family);
    text(m, suffix);
    for (size_t i = 0; i < n; i++)
        one_label(m, labels[i].name, labels[i].value, i == 0);
    if (le)
        one_label(m, "le", le, n == 0);
    text(m, n > 0 || le ? "} " : " ");
    text(m, value);
    text(m, "\n");
}

static void seconds(char out[NUMBER], uint64_t us)
{
    int len = snprintf(out, NUMBER, "%" PRIu64 ".%06" PRIu64, us / 1000000, us % 1000000);

    while (out[len - 1] == '0')
        out[--len] = '\0';
    if (out[len - 1] == '.')
        out[--len] = '\0';
}

static void whole(struct metrics *m, const char *suffix, const struct metrics_label *labels,
                  size_t n, const char *le, uint64_t value)
{
    char number[NUMBER];

    snprintf(number, sizeof(number), "%" PRIu64, value);
    sample(m, suffix, labels, n, le, number);
}

void metrics_value(struct metrics *m, const struct metrics_label *labels, size_t n, uint64_t value)
{
    whole(m, "", labels, n, NULL, value);
}

void metrics_us(struct metrics *m, const struct metrics_label *labels, size_t n, uint64_t us)
{
    char number[NUMBER];

    seconds(number, us);
    sample(m, "", labels, n, NULL, number);
}

void metrics_histogram(struct metrics *m, const struct metrics_label *labels, size_t n,
                       const struct histogram *histogram)
{
    char number[NUMBER];
    uint64_t seen = 0;

    for (size_t i = 0; i < HISTOGRAM_BUCKETS; i++) {
        seen += histogram->buckets[i];
        if (i < FIRST_BUCKET)
            continue;
        if (i + 1 < HISTOGRAM_BUCKETS)
            seconds(number, histogram_bound_us(i));
        else
            snprintf(number, sizeof(number), "+Inf");
        whole(m, "_bucket", labels, n, number, seen);
    }
    seconds(number, histogram->sum_us);
    sample(m, "_sum", labels, n, NULL, number);
    whole(m, "_count", labels, n, NULL, seen);
}

bool metrics_take(struct metrics *m, char **out_data, size_t *out_len)
{
    if (m->failed || !m->data) {
        metrics_fini(m);
        return false;
    }
    *out_data = m->data;
    *out_len = m->len;
    m->data = NULL;
    metrics_fini(m);
    return true;
}
