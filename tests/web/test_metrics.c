/* Prometheus' text format, as it is written. */
#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>
#include "web/metrics.h"

static struct metrics m;
static char *written;

static void setup(void) { metrics_init(&m, 65536); }

static void teardown(void)
{
    metrics_fini(&m);
    free(written);
    written = NULL;
}

TestSuite(web_metrics, .init = setup, .fini = teardown);

static const char *taken(void)
{
    size_t len;
    char *text;

    cr_assert(metrics_take(&m, &text, &len));
    written = calloc(1, len + 1);
    cr_assert_not_null(written);
    memcpy(written, text, len);
    free(text);
    return written;
}

Test(web_metrics, a_family_is_said_once_before_its_samples)
{
    const struct metrics_label up = {"direction", "up"}, down = {"direction", "down"};

    metrics_family(&m, METRICS_COUNTER, "x_bytes_total", "Bytes that passed.");
    metrics_value(&m, &up, 1, 5);
    metrics_value(&m, &down, 1, UINT64_MAX);
    metrics_family(&m, METRICS_GAUGE, "x_clients", "Clients now.");
    metrics_value(&m, NULL, 0, 0);
    cr_expect_str_eq(taken(), "# HELP x_bytes_total Bytes that passed.\n"
                              "# TYPE x_bytes_total counter\n"
                              "x_bytes_total{direction=\"up\"} 5\n"
                              "x_bytes_total{direction=\"down\"} 18446744073709551615\n"
                              "# HELP x_clients Clients now.\n"
                              "# TYPE x_clients gauge\n"
                              "x_clients 0\n");
}

Test(web_metrics, a_labels_value_is_escaped_whatever_it_holds)
{
    const struct metrics_label labels[] = {
        {"a", "back\\slash \"quoted\"\nnext"}, {"b", "sch\xc3\xb6n"}, {"c", "cut\xc3"}, {"d", ""}};

    metrics_family(&m, METRICS_GAUGE, "x", "A \\ and \"one\"\nmore.");
    metrics_value(&m, labels, 4, 1);
    cr_expect_str_eq(taken(), "# HELP x A \\\\ and \"one\"\\nmore.\n"
                              "# TYPE x gauge\n"
                              "x{a=\"back\\\\slash \\\"quoted\\\"\\nnext\",b=\"sch\xc3\xb6n\","
                              "c=\"cut\xef\xbf\xbd\",d=\"\"} 1\n");
}

Test(web_metrics, times_are_seconds_without_rounding)
{
    static const struct {
        uint64_t us;
        const char *text;
    } cases[] = {{0, "x 0\n"},
                 {1, "x 0.000001\n"},
                 {1500000, "x 1.5\n"},
                 {10000000, "x 10\n"},
                 {UINT64_MAX, "x 18446744073709.551615\n"}};

    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        teardown();
        setup();
        metrics_family(&m, METRICS_GAUGE, "x", "X.");
        metrics_us(&m, NULL, 0, cases[i].us);
        cr_expect_str_eq(strstr(taken(), "\nx ") + 1, cases[i].text);
    }
}

Test(web_metrics, a_histograms_buckets_are_cumulative_and_end_with_all)
{
    const struct metrics_label open = {"phase", "open"};
    struct histogram h = {0};
    const char *text;

    histogram_add(&h, 2);
    histogram_add(&h, 16);
    histogram_add(&h, 17);
    histogram_add(&h, UINT64_C(200000000));
    metrics_family(&m, METRICS_HISTOGRAM, "x_seconds", "X.");
    metrics_histogram(&m, &open, 1, &h);
    text = taken();
    cr_expect_not_null(strstr(text, "\nx_seconds_bucket{phase=\"open\",le=\"0.000016\"} 2\n"
                                    "x_seconds_bucket{phase=\"open\",le=\"0.000032\"} 3\n"
                                    "x_seconds_bucket{phase=\"open\",le=\"0.000064\"} 3\n"));
    cr_expect_not_null(strstr(text, "\nx_seconds_bucket{phase=\"open\",le=\"67.108864\"} 3\n"
                                    "x_seconds_bucket{phase=\"open\",le=\"+Inf\"} 4\n"
                                    "x_seconds_sum{phase=\"open\"} 200.000035\n"
                                    "x_seconds_count{phase=\"open\"} 4\n"));
    cr_expect_null(strstr(text, "le=\"0.000008\""));
}

Test(web_metrics, a_histogram_without_labels_has_the_bound_alone)
{
    struct histogram h = {0};

    metrics_family(&m, METRICS_HISTOGRAM, "x_seconds", "X.");
    metrics_histogram(&m, NULL, 0, &h);
    cr_expect_not_null(strstr(taken(), "x_seconds_bucket{le=\"+Inf\"} 0\n"
                                       "x_seconds_sum 0\n"
                                       "x_seconds_count 0\n"));
}

Test(web_metrics, more_than_it_may_have_makes_nothing)
{
    size_t len;
    char *text = NULL;

    metrics_fini(&m);
    metrics_init(&m, 100);
    metrics_family(&m, METRICS_GAUGE, "x", "X.");
    for (int i = 0; i < 50; i++)
        metrics_value(&m, NULL, 0, 1);
    cr_expect_not(metrics_take(&m, &text, &len));
    cr_expect_null(text);
}
