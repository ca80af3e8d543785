/* metrics - a writer of Prometheus' text format, 0.0.4: families of samples, one after another.
 *
 * Whatever a label's value holds, what comes out can be read: it is escaped, and bytes that are not
 * UTF-8 are replaced. What does not fit max_bytes, or memory, makes the whole void; the writer says
 * so at the end, and takes calls until then.
 *
 * https://prometheus.io/docs/instrumenting/exposition_formats/#text-based-format
 */
#ifndef WEB_METRICS_H
#define WEB_METRICS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "base/histogram.h"

#define METRICS_TYPE "text/plain; version=0.0.4; charset=utf-8"

enum metrics_type { METRICS_COUNTER, METRICS_GAUGE, METRICS_HISTOGRAM };

struct metrics_label {
    const char *name, *value;
};

struct metrics { /* the writer's own */
    char *data;
    size_t len, cap, max_bytes;
    bool failed;
    const char *family; /* a constant */
    enum metrics_type type;
};

void metrics_init(struct metrics *metrics, size_t max_bytes);
void metrics_fini(struct metrics *metrics);

/* Begins a family: all samples of one name, in one go. name and help are constants. */
void metrics_family(struct metrics *metrics, enum metrics_type type, const char *name,
                    const char *help);

/* Samples of the family. labels: n of them, borrowed; each set of values once. */
void metrics_value(struct metrics *metrics, const struct metrics_label *labels, size_t n,
                   uint64_t value);
/* In seconds. */
void metrics_us(struct metrics *metrics, const struct metrics_label *labels, size_t n, uint64_t us);
/* In seconds too: buckets up to each bound, their sum and count. */
void metrics_histogram(struct metrics *metrics, const struct metrics_label *labels, size_t n,
                       const struct histogram *histogram);

/* The whole text, the caller's to free. False: it does not fit, or no memory. */
bool metrics_take(struct metrics *metrics, char **out_data, size_t *out_len);

#endif
