/* record_rig - what is told of forwards is kept, and asked for. */
#include "forward/record_rig.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include "forward/inside.h"
#include "forward/must.h"

struct rig rig;
char addr[32];
int listener;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
struct kept kept[RECORDS_KEPT]; /* with the lock */
size_t n_kept;
const char record_request[] = "GET / HTTP/1.1\r\nHost: web\r\n\r\n";

static void keep(void *ctx, const struct forward_record *record)
{
    struct kept *one;

    pthread_mutex_lock(&lock);
    MUST(n_kept < RECORDS_KEPT);
    one = &kept[n_kept++];
    one->record = *record;
    snprintf(one->name, sizeof one->name, "%s", record->name);
    snprintf(one->peer_id, sizeof one->peer_id, "%s", record->peer_id);
    snprintf(one->backend, sizeof one->backend, "%s", record->backend);
    snprintf(one->text, sizeof one->text, "%s", record->text);
    pthread_mutex_unlock(&lock);
}

void record_setup(void)
{
    rig_init(&rig);
    rig.settings.ops.ended = keep;
    listener = net_listen(addr);
}

void record_want(enum forward_records records)
{
    for (int i = 0; i < 2; i++)
        forward_set_records(rig.sides[i].forward, records);
}

void record_start(enum side owner)
{
    rig_start(&rig);
    rig_link_up(&rig);
    rig_offer(&rig, owner, "web", addr);
    record_want(FORWARD_RECORDS_ALL);
}

void record_finish(void)
{
    close(listener);
    rig_end(&rig);
}

bool records_are(void *arg)
{
    bool are;

    pthread_mutex_lock(&lock);
    are = n_kept >= *(size_t *)arg;
    pthread_mutex_unlock(&lock);
    return are;
}

struct kept *record_of(size_t n, bool owner)
{
    wait_until(records_are, &n);
    cr_assert_eq(n_kept, n);
    for (size_t i = 0; i < n; i++)
        if (kept[i].record.owner == owner)
            return &kept[i];
    cr_assert_fail("no record of %s", owner ? "the owner" : "the client");
    return NULL;
}

int record_ask_with(enum side from, const char *words)
{
    int fd = net_connect(rig.sides[from].port);

    net_send(fd, words, strlen(words));
    return fd;
}

int record_ask(enum side from) { return record_ask_with(from, record_request); }

void record_ended(size_t n, enum forward_end how, const char *name, const char *text)
{
    struct kept *one = record_of(n, false);

    cr_expect_eq(one->record.end, how, "%s", forward_ends[one->record.end].word);
    cr_expect_str_eq(one->name, name);
    cr_expect_str_eq(one->text, text);
}

void record_times_fit(const struct forward_record *record)
{
    cr_expect_gt(record->total_us, 0);
    cr_expect_gt(record->open_us, 0);
    cr_expect_leq(record->name_us + record->open_us, record->total_us);
    cr_expect_lt(record->total_us, 60000000);
}

void record_join(int *out_client, int *out_backend)
{
    record_start(LISTENER);
    *out_client = record_ask(DIALLER);
    *out_backend = net_accept(listener);
    net_expect(*out_backend, record_request, strlen(record_request));
    net_send(*out_backend, "hi", 2);
    net_expect(*out_client, "hi", 2);
}

void record_both_ended(enum forward_end how, const char *text)
{
    record_ended(2, how, "web", text);
    cr_expect_eq(record_of(2, true)->record.end, how);
    cr_expect_eq(record_of(2, true)->record.bytes_down, 2);
    cr_expect_gt(record_of(2, true)->record.open_us, 0);
}
