/* Lists: order, sharing, differences. */
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "base/hash.h"
#include "registry/help.h"

static const struct row *at(const struct list *list, size_t index)
{
    struct list_iter it;

    list_iter_seek(&it, list, index);
    return list_iter_next(&it);
}

static void expect_text(const struct list *list, const char *text)
{
    char *got = text_of(list);

    cr_expect_str_eq(got, text);
    cr_expect_eq(list_check(list), 0);
    free(got);
}

static struct list *apply(struct list *base, struct list *puts, const char *const *removed,
                          size_t n_removed)
{
    size_t n = list_count(puts);
    struct row **rows = malloc((n + 1) * sizeof(*rows));
    struct list *out = NULL;
    struct list_iter it;

    list_iter_init(&it, puts);
    for (size_t i = 0; i < n; i++)
        rows[n - 1 - i] = list_iter_next(&it); /* backwards: any order is allowed */
    cr_assert_eq(list_apply(base, rows, n, removed, n_removed, &out), 0);
    free(rows);
    return out;
}

Test(list, a_row_carries_its_key_and_texts_with_nul)
{
    struct row *row = row_new("webXX", 3, "10.0.0.1:80YY", 11, "192.0.2.10", 0);

    cr_expect_str_eq(row->key, "web@192.0.2.10");
    cr_expect_str_eq(row->name, "web");
    cr_expect_str_eq(row->backend, "10.0.0.1:80");
    cr_expect_eq(row->key_len, 14);
    cr_expect_eq(row->hash, hash_entry("web", 3, "10.0.0.1:80", 11, 0));
    row_unref(row);
}

Test(list, a_row_longer_than_the_limits_is_not_made)
{
    char text[400];

    memset(text, 'a', sizeof(text));
    text[399] = '\0';
    cr_expect_null(row_new(text, LIMIT_NAME + 1, "b", 1, "local", 0));
    cr_expect_null(row_new("a", 1, text, LIMIT_BACKEND + 1, "local", 0));
    cr_expect_null(row_new("a", 1, "b", 1, text, 0));
}

Test(list, the_empty_list_is_shared_and_comes_back_when_all_rows_go)
{
    struct list *none = list_empty(), *again = list_empty(), *one, *gone;
    const char *removed[] = {"a"};

    cr_expect_eq(none, again);
    cr_expect_eq(list_count(none), 0);
    cr_expect_null(at(none, 0));
    cr_expect_null(list_find(none, "a", 1));
    one = list_of("local", "a=1");
    cr_assert_eq(list_apply(one, NULL, 0, removed, 1, &gone), 0);
    cr_expect_eq(gone, none);
    list_unref(none);
    list_unref(again);
    list_unref(one);
    list_unref(gone);
}

Test(list, rows_are_in_order_of_bytes_and_the_last_of_a_name_counts)
{
    struct list *list = list_of("local", "b=1 a=1 ab=3 b=2 a-=4");

    expect_text(list, "a=1 a-=4 ab=3 b=2");
    list_unref(list);
}

Test(list, a_name_that_is_put_and_removed_is_put)
{
    struct list *base = list_of("local", "a=1 b=1"), *puts = list_of("local", "a=2"), *out;
    const char *removed[] = {"b", "a", "nobody"};

    out = apply(base, puts, removed, 3);
    expect_text(out, "a=2");
    expect_text(base, "a=1 b=1");
    list_unref(base);
    list_unref(puts);
    list_unref(out);
}

Test(list, a_put_of_the_same_backend_keeps_the_row_and_the_list)
{
    struct list *base = list_of("local", "a=1 b=1"), *puts = list_of("local", "b=1"), *out;

    out = apply(base, puts, NULL, 0);
    cr_expect_eq(out, base);
    list_unref(out);
    list_unref(puts);
    puts = list_of("local", "a=9 b=1");
    out = apply(base, puts, NULL, 0);
    cr_expect_eq(at(out, 1), at(base, 1));
    cr_expect_neq(at(out, 0), at(base, 0));
    list_unref(base);
    list_unref(puts);
    list_unref(out);
}

Test(list, the_digest_is_the_sum_of_the_rows_hashes)
{
    struct list *list = list_of("x", "a=1 b=2");

    cr_expect_eq(list_digest(list), hash_entry("a", 1, "1", 1, 0) + hash_entry("b", 1, "2", 1, 0));
    list_unref(list);
}

Test(list, what_is_told_of_a_row_is_in_the_digest_and_how_clients_are_introduced_is_not)
{
    const uint64_t plain = hash_entry("a", 1, "1", 1, 0);
    static const char *const told[] = {"a=1", "a=1!", "a=1~", "a=1!~"};

    for (unsigned flags = 0; flags < 4; flags++) {
        struct list *list = list_of("x", told[flags]);

        expect_text(list, told[flags]);
        cr_expect_eq(list_digest(list), hash_entry("a", 1, "1", 1, flags));
        cr_expect(flags == 0 || list_digest(list) != plain);
        list_unref(list);
    }
    for (unsigned proxy = ROW_PROXY_V1; proxy <= ROW_PROXY_V2; proxy *= 2) {
        struct row *row = row_new("a", 1, "1", 1, "x", proxy);

        cr_expect_eq(row->hash, plain);
        cr_expect_eq(row->flags, proxy);
        row_unref(row);
    }
}

Test(list, a_put_that_differs_in_a_flag_alone_is_another_row)
{
    static const char *const texts[] = {"a=1", "a=1!", "a=1~", "a=1^"};

    for (size_t i = 0; i < 4; i++)
        for (size_t j = 0; j < 4; j++) {
            struct list *base = list_of("x", texts[i]), *puts = list_of("x", texts[j]), *out;

            out = apply(base, puts, NULL, 0);
            cr_expect_eq(out == base, i == j, "%s and then %s", texts[i], texts[j]);
            expect_text(out, texts[j]);
            list_unref(base);
            list_unref(puts);
            list_unref(out);
        }
}

static int tell(void *ctx, struct row *before, struct row *after)
{
    char *text = ctx;

    sprintf(text + strlen(text), "%s:%s>%s ", before ? before->name : after->name,
            before ? before->backend : "", after ? after->backend : "");
    return strlen(text) > 900 ? 5 : 0;
}

Test(list, a_difference_names_what_came_went_and_changed_in_order)
{
    struct list *from = list_of("x", "a=1 b=1 c=1 e=1"), *to = list_of("x", "b=2 c=1 d=1 f=1");
    char text[1024] = "";

    cr_expect_eq(list_diff(from, to, tell, text), 0);
    cr_expect_str_eq(text, "a:1> b:1>2 d:>1 e:1> f:>1 ");
    text[0] = '\0';
    cr_expect_eq(list_diff_objects(from, to, tell, text), 0);
    cr_expect_str_eq(text, "a:1> b:1>2 c:1>1 d:>1 e:1> f:>1 ");
    list_unref(from);
    list_unref(to);
}

Test(list, a_visit_that_is_not_zero_stops_the_difference)
{
    struct list *from = list_empty(), *to = list_of_many("x", 0, 500, "1");
    char text[1100] = "";

    cr_expect_eq(list_diff(from, to, tell, text), 5);
    cr_expect_lt(strlen(text), 1000);
    list_unref(from);
    list_unref(to);
}

/* ---- Random changes against an array ---- */

#define NAMES 2000

struct model {
    int backend[NAMES]; /* 0: not there */
};

struct compare {
    const struct model *from, *to;
    int next, wrong;
};

static int compare_visit(void *ctx, struct row *before, struct row *after)
{
    struct compare *c = ctx;
    int i = atoi((before ? before : after)->name);

    for (; c->next < i; c->next++)
        c->wrong += c->from->backend[c->next] != c->to->backend[c->next];
    c->wrong += (before ? atoi(before->backend) : 0) != c->from->backend[i];
    c->wrong += (after ? atoi(after->backend) : 0) != c->to->backend[i];
    c->wrong += c->from->backend[i] == c->to->backend[i];
    c->next = i + 1;
    return 0;
}

static void expect_diff(const struct list *from, const struct list *to, const struct model *f,
                        const struct model *t)
{
    struct compare c = {.from = f, .to = t};

    list_diff(from, to, compare_visit, &c);
    for (; c.next < NAMES; c.next++)
        c.wrong += f->backend[c.next] != t->backend[c.next];
    cr_expect_eq(c.wrong, 0);
}

static void expect_model(const struct list *list, const struct model *m)
{
    size_t n = 0, wrong = 0;

    for (int i = 0; i < NAMES; i++) {
        char name[16];
        int len = sprintf(name, "%06d", i);
        const struct row *row = list_find(list, name, (size_t)len);
        wrong += (row ? atoi(row->backend) : 0) != m->backend[i];
        if (row)
            wrong += at(list, n++) != row;
    }
    cr_expect_eq(wrong, 0);
    cr_expect_eq(n, list_count(list));
    cr_expect_eq(list_check(list), 0);
}

/* Changes k names near each other or anywhere, and the model with them. */
static struct list *random_change(uint64_t *seed, struct list *base, struct model *m)
{
    size_t k = test_random(seed) % (test_random(seed) % 8 == 0 ? 1500 : 12), n_puts = 0, n_gone = 0;
    struct row *puts[1500];
    const char *gone[1500];
    static char names[1500][16];
    int start = (int)(test_random(seed) % NAMES), near = test_random(seed) % 2;
    bool more_gone = test_random(seed) % 2;
    struct list *out = NULL;
    static bool seen[NAMES];

    memset(seen, 0, sizeof(seen));
    for (size_t i = 0; i < k; i++) {
        int at = near ? (start + (int)i) % NAMES : (int)(test_random(seed) % NAMES);
        int len = sprintf(names[i], "%06d", at), backend = (int)(test_random(seed) % 3) + 1;
        char text[16];
        if (seen[at])
            continue; /* puts and removals of one name have an order of their own */
        seen[at] = true;
        if (test_random(seed) % 4 < (more_gone ? 3 : 1)) {
            gone[n_gone++] = names[i];
            m->backend[at] = 0;
        } else {
            puts[n_puts++] =
                row_new(names[i], (size_t)len, text, (size_t)sprintf(text, "%d", backend), "x", 0);
            m->backend[at] = backend;
        }
    }
    cr_assert_eq(list_apply(base, puts, n_puts, gone, n_gone, &out), 0);
    for (size_t i = 0; i < n_puts; i++)
        row_unref(puts[i]);
    return out;
}

Test(list, random_changes_agree_with_an_array)
{
    uint64_t seed = test_seed();
    struct list *list = list_empty();
    static struct model now, before, spliced;

    for (int round = 0; round < 400; round++) {
        struct list *next, *mixed = NULL;
        int at = (int)(test_random(&seed) % (NAMES + 1));
        char name[16];
        before = now;
        next = random_change(&seed, list, &now);
        expect_model(next, &now);
        expect_diff(list, next, &before, &now);
        expect_diff(next, list, &now, &before);

        spliced = now;
        for (int i = at; i < NAMES; i++)
            spliced.backend[i] = before.backend[i];
        cr_assert_eq(list_splice(next, list, name, (size_t)sprintf(name, "%06d", at), &mixed), 0);
        expect_model(mixed, &spliced);
        list_unref(mixed);
        list_unref(list);
        list = next;
    }
    list_unref(list);
}
