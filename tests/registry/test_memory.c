/* Each allocation in turn fails: then nothing has changed and nothing leaks. */
#include <criterion/criterion.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "failing.h"
#include "registry/help.h"

static struct registry *reg;
static struct list *many, *many_local, *half;

static struct snapshot *picture(void)
{
    struct snapshot *snap = NULL;

    cr_assert_eq(registry_snapshot(reg, &snap), 0);
    return snap;
}

static void expect_same(const struct snapshot *a, const struct snapshot *b)
{
    cr_assert_eq(a->revision, b->revision);
    cr_assert_eq(a->services_total, b->services_total);
    cr_assert_eq(a->local, b->local);
    cr_assert_eq(a->local_version, b->local_version);
    cr_assert_eq(a->n_peers, b->n_peers);
    for (size_t i = 0; i < a->n_peers; i++) {
        cr_assert_str_eq(a->peers[i].label, b->peers[i].label);
        cr_assert_eq(a->peers[i].list, b->peers[i].list);
        cr_assert_eq(a->peers[i].version, b->peers[i].version);
        cr_assert_eq(a->peers[i].last_sync_s, b->peers[i].last_sync_s);
    }
}

/* Lets the n-th allocation of call fail, for each n until it succeeds. What was reserved in the
 * indexes may stay; a failure after one may not leave anything else. */
static void each_failure(int (*call)(void))
{
    int n = 0, r;

    for (;; n++) {
        struct snapshot *before = picture(), *after;
        until_failure = n;
        r = call();
        until_failure = -1;
        after = picture();
        if (r == 0) {
            snapshot_unref(before);
            snapshot_unref(after);
            break;
        }
        cr_assert_eq(r, -ENOMEM);
        expect_same(before, after);
        cr_assert_eq(registry_check(reg), 0);
        snapshot_unref(before);
        snapshot_unref(after);
    }
    cr_assert_eq(registry_check(reg), 0);
    cr_log_info("%d allocations failed\n", n);
}

static int open_a(void)
{
    const char *label;

    return registry_peer_open(reg, "a", "10.0.0.1", 1, &label, NULL);
}

static int put_many(void)
{
    struct registry_refusals refused;
    int r = registry_put_list(reg, "a", 1, 1, many, 1, &refused, NULL);

    if (r == 0)
        registry_refusals_fini(&refused);
    return r;
}

static int put_half(void)
{
    struct registry_refusals refused;
    int r = registry_put_list(reg, "a", 1, 2, half, 2, &refused, NULL);

    if (r == 0)
        registry_refusals_fini(&refused);
    return r;
}

static int put_many_local(void) { return registry_put_local(reg, 1, many_local, 1, NULL, NULL); }

static int gone(void) { return registry_peer_gone(reg, "a", "left", 1, NULL); }

static int take_tombstones(void)
{
    struct registry_tombstone *stones = NULL;
    long n = registry_tombstones(reg, 100, &stones);

    if (n < 0)
        return (int)n;
    free(stones);
    return 0;
}

static int take_picture(void)
{
    struct snapshot *snap = NULL;
    int r = registry_snapshot(reg, &snap);

    if (r == 0)
        snapshot_unref(snap);
    return r;
}

static int new_one(void)
{
    struct registry_settings settings = {.peer_id = "x", .epoch = 1};
    struct registry *other = NULL;
    struct limits limits;
    int r;

    limits_default(&limits);
    settings.limits = &limits;
    r = registry_new(&settings, &other);
    if (r == 0)
        registry_free(other);
    return r;
}

static void make_lists(unsigned n)
{
    many = list_of_many("10.0.0.1", 0, n, "h:1");
    half = list_of_many("10.0.0.1", n / 2, n, "h:1");
    many_local = list_of_many("local", 0, n, "h:1");
}

static void all_calls(void)
{
    each_failure(new_one);
    each_failure(open_a);
    each_failure(put_many);
    each_failure(put_half);
    each_failure(put_many_local);
    each_failure(take_picture);
    each_failure(gone);
    each_failure(take_tombstones);
}

static void run(unsigned n, const struct limits *limits)
{
    long before = alive;

    make_lists(n);
    reg = registry_for("n1", limits);
    all_calls();
    registry_free(reg);
    list_unref(many);
    list_unref(half);
    list_unref(many_local);
    cr_expect_eq(alive, before, "%ld allocations leaked", alive - before);
}

Test(registry_memory, a_failed_allocation_changes_nothing) { run(300, NULL); }

Test(registry_memory, nor_does_one_while_rows_are_refused)
{
    struct limits limits;

    limits_default(&limits);
    limits.services_per_peer = 250;
    limits.services_total = 400;
    limits.tombstones = 16;
    run(300, &limits);
}

Test(registry_memory, nor_does_one_in_the_middle_of_a_list)
{
    struct list *base, *puts, *out = NULL;
    struct row *rows[100];
    const char *gone_names[] = {"svc-000150", "svc-000151"};
    struct list_iter it;
    long before = alive;
    int n = 0, r;

    base = list_of_many("x", 0, 400, "h:1");
    puts = list_of_many("x", 250, 100, "h:2");
    list_iter_init(&it, puts);
    for (int i = 0; i < 100; i++)
        rows[i] = list_iter_next(&it);
    do {
        until_failure = n++;
        r = list_apply(base, rows, 100, gone_names, 2, &out);
        until_failure = -1;
        cr_assert(r == 0 || r == -ENOMEM);
    } while (r != 0);
    cr_expect_gt(n, 3);
    cr_expect_eq(list_check(out), 0);
    list_unref(out);
    until_failure = 0;
    cr_expect_null(row_new("a", 1, "b", 1, "local", 0));
    until_failure = -1;
    list_unref(base);
    list_unref(puts);
    cr_expect_eq(alive, before);
}
