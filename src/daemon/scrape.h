/* scrape - /metrics: what is counted, as families of Prometheus' text format.
 *
 * The main loop copies what only it may read, and goes on; everything else is read where it is
 * rendered. Names and labels are a contract with dashboards: meshd-metrics(7) has them all, and a
 * test compares. A label's value is one of a set written here, or a peer id of the first
 * SCRAPE_PEERS peers.
 */
#ifndef DAEMON_SCRAPE_H
#define DAEMON_SCRAPE_H

#include "daemon/figures.h"
#include "web/metrics.h"
#include "web/web.h"

#define SCRAPE_PEERS 1000u
#define SCRAPE_BYTES (4u << 20) /* of one answer, at most */

/* What the main loop alone may read, copied there. */
struct scrape {
    struct serve *serve; /* for what any thread may read */
    struct figures figures;
    struct limits limits;
    bool ready;
    size_t never_live; /* configured peers */
    struct node_rtt *rtts;
    size_t n_rtts;
};
struct scrape *scrape_new(struct serve *serve);
/* For a struct web_answer, with a struct scrape as its data. */
bool scrape_render(void *data, struct web_body *out_body);
void scrape_free(void *data);

/* ---- scrape_table.c: what stands in struct figures as it is shown ---- */

struct scrape_row {
    enum metrics_type type;
    const char *family, *help; /* NULL: of the family above */
    const char *label, *value; /* NULL: none */
    size_t offset;             /* in struct figures */
};
extern const struct scrape_row scrape_rows[];
extern const size_t n_scrape_rows;

/* ---- scrape_process.c: what the kernel says of this process ---- */
void scrape_process(struct metrics *out, uint64_t started_s);

#endif
