/* Differences of snapshots: who came, changed and went, and why. */
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "registry/difference.h"
#include "registry/help.h"

static struct registry *reg;
static struct snapshot *told;
static char seen[4096]; /* "+a@label ~b@label -c@label(why) " as they were told */
static const struct difference_owner *now;
static struct difference_owner owner_copy;
static unsigned owners, most_rows;

static struct snapshot *picture(void)
{
    struct snapshot *snap;

    cr_assert_eq(registry_snapshot(reg, &snap), 0);
    return snap;
}

static void setup(void)
{
    reg = registry_for("me", NULL);
    told = picture();
    most_rows = 1000;
}

static void teardown(void)
{
    snapshot_unref(told);
    registry_free(reg);
}

static int on_owner(void *ctx, const struct difference_owner *owner)
{
    owner_copy = *owner;
    now = &owner_copy;
    owners++;
    return 0;
}

static int on_row(void *ctx, struct row *before, struct row *after)
{
    size_t len = strlen(seen);

    cr_assert_not_null(now, "an owner is told before its rows");
    if (!most_rows--)
        return 7;
    if (!after)
        snprintf(seen + len, sizeof(seen) - len, "-%s(%s) ", before->key, now->why);
    else
        snprintf(seen + len, sizeof(seen) - len, "%c%s ", before ? '~' : '+', after->key);
    return 0;
}

static int look(void)
{
    const struct difference_visit visit = {.owner = on_owner, .row = on_row};
    struct snapshot *to = picture();
    int r;

    seen[0] = '\0';
    owners = 0;
    now = NULL;
    r = snapshot_diff(told, to, &visit);
    snapshot_unref(told);
    told = to;
    return r;
}

static void expect(const char *text)
{
    cr_expect_eq(look(), 0);
    cr_expect_str_eq(seen, text);
}

static void state(const char *peer, bool connected, bool stale)
{
    struct registry_state s = {.connected = connected, .stale = stale};

    cr_assert_eq(registry_peer_state(reg, peer, &s, NULL), 0);
}

TestSuite(difference, .init = setup, .fini = teardown);

Test(difference, nothing_happened_nothing_is_told)
{
    put_local_text(reg, 1, "a=h:1");
    look();
    expect("");
    cr_expect_eq(owners, 0);
}

Test(difference, rows_come_change_and_go)
{
    put_local_text(reg, 1, "a=h:1 b=h:1");
    put_text(reg, "p", "10.0.0.2", 1, "a=h:1 b=h:1");
    expect("+a@local +b@local +a@10.0.0.2 +b@10.0.0.2 ");
    put_local_text(reg, 2, "b=h:2 c=h:1");
    expect("-a@local(withdrawn) ~b@local +c@local ");
}

Test(difference, another_state_of_a_row_changes_it_and_how_its_clients_are_introduced_does_not)
{
    put_local_text(reg, 1, "a=h:1 b=h:1");
    put_text(reg, "p", "10.0.0.2", 1, "a=h:1 b=h:1");
    look();
    put_local_text(reg, 2, "a=h:1^ b=h:1");
    expect("");
    put_local_text(reg, 3, "a=h:1!^ b=h:1");
    put_text(reg, "p", "10.0.0.2", 2, "a=h:1 b=h:1~");
    expect("~a@local ~b@10.0.0.2 ");
    put_local_text(reg, 4, "a=h:1 b=h:1");
    expect("~a@local ");
}

Test(difference, another_state_of_a_peer_changes_all_its_rows_once)
{
    put_text(reg, "p", "10.0.0.2", 1, "a=h:1 b=h:1 c=h:1");
    state("p", true, false);
    look();
    state("p", false, true);
    put_text(reg, "p", "10.0.0.2", 2, "b=h:2 c=h:1 d=h:1");
    cr_expect_eq(look(), 0);
    cr_expect_str_eq(seen, "-a@10.0.0.2(withdrawn) +d@10.0.0.2 ~b@10.0.0.2 ~c@10.0.0.2 ");
}

Test(difference, a_peer_that_goes_says_why)
{
    put_text(reg, "p", "10.0.0.2", 1, "a=h:1");
    put_text(reg, "q", "10.0.0.3", 1, "a=h:1");
    state("q", false, true);
    look();
    registry_peer_gone(reg, "p", "left", 100, NULL);
    registry_peer_gone(reg, "q", "timed out", 100, NULL);
    expect("-a@10.0.0.2(left) -a@10.0.0.3(timed out) ");
    cr_expect_eq(owners, 2);
}

Test(difference, a_peer_without_services_is_told_too)
{
    const char *label;

    registry_peer_open(reg, "p", "10.0.0.2", 100, &label, NULL);
    expect("");
    cr_expect_eq(owners, 1);
    registry_peer_gone(reg, "p", "left", 100, NULL);
    expect("");
    cr_expect_eq(owners, 1);
}

Test(difference, peers_between_others_come_and_go)
{
    put_text(reg, "p2", "10.0.0.2", 1, "a=h:1");
    put_text(reg, "p4", "10.0.0.4", 1, "a=h:1");
    look();
    put_text(reg, "p1", "10.0.0.1", 1, "a=h:1");
    put_text(reg, "p3", "10.0.0.3", 1, "a=h:1");
    put_text(reg, "p5", "10.0.0.5", 1, "a=h:1");
    registry_peer_gone(reg, "p2", "left", 100, NULL);
    expect("-a@10.0.0.2(left) +a@10.0.0.1 +a@10.0.0.3 +a@10.0.0.5 ");
    registry_peer_gone(reg, "p5", "left", 100, NULL);
    expect("-a@10.0.0.5(left) ");
}

Test(difference, what_went_is_told_before_what_came_under_its_label)
{
    put_text(reg, "q", "10.0.0.3", 1, "x=h:1");
    put_text(reg, "m", "10.0.0.3", 1, "x=h:1"); /* between b and q in the order of peers */
    look();
    registry_peer_gone(reg, "q", "left", 100, NULL);
    put_text(reg, "b", "10.0.0.3", 1, "x=h:2");
    expect("-x@10.0.0.3(left) +x@10.0.0.3 ");
}

Test(difference, a_visitor_stops_the_walk)
{
    put_local_text(reg, 1, "a=h:1 b=h:1 c=h:1");
    put_text(reg, "p", "10.0.0.2", 1, "a=h:1");
    most_rows = 2;
    cr_expect_eq(look(), 7);
    cr_expect_str_eq(seen, "+a@local +b@local ");
}

Test(difference, an_owner_with_one_changed_row_costs_one_row)
{
    struct list *many = list_of_many("local", 0, 50000, "h:1");
    struct list *one = list_of("local", "svc-025000=h:2"), *after;
    struct list_iter it;
    struct row *row;

    cr_assert_eq(registry_put_local(reg, 1, many, 100, NULL, NULL), 0);
    look();
    list_iter_init(&it, one);
    row = list_iter_next(&it);
    cr_assert_eq(list_apply(many, &row, 1, NULL, 0, &after), 0);
    cr_assert_eq(registry_put_local(reg, 2, after, 100, NULL, NULL), 0);
    expect("~svc-025000@local ");
    list_unref(many);
    list_unref(one);
    list_unref(after);
}
