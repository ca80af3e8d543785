/* help - see help.h. */
#include "registry/help.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "base/random.h"

static void must(bool ok)
{
    if (!ok)
        abort();
}

static struct list *list_from(struct row **rows, size_t n)
{
    struct list *none = list_empty(), *list = NULL;

    must(list_apply(none, rows, n, NULL, 0, &list) == 0);
    for (size_t i = 0; i < n; i++)
        row_unref(rows[i]);
    free(rows);
    list_unref(none);
    return list;
}

static const char marks[] = "!~?^"; /* by the bits of row_flag */

static unsigned flags_of(const char *marked, size_t len)
{
    unsigned flags = 0;

    for (size_t i = 0; i < len; i++)
        flags |= 1u << (strchr(marks, marked[i]) - marks);
    return flags;
}

struct list *list_of(const char *label, const char *text)
{
    struct row **rows = malloc((strlen(text) + 1) * sizeof(*rows));
    size_t n = 0;

    must(rows != NULL);
    while (*text) {
        size_t name = strcspn(text, "="), backend = strcspn(text + name + 1, " !~?^");
        const char *marked = text + name + 1 + backend;
        size_t n_marks = strspn(marked, marks);
        rows[n] = row_new(text, name, text + name + 1, backend, label, flags_of(marked, n_marks));
        must(rows[n++] != NULL);
        text = marked + n_marks;
        text += strspn(text, " ");
    }
    return list_from(rows, n);
}

char *text_of(const struct list *list)
{
    struct list_iter it;
    const struct row *row;
    size_t len = 0;
    char *text;

    list_iter_init(&it, list);
    while ((row = list_iter_next(&it)) != NULL)
        len += row->name_len + row->backend_len + 2u + strlen(marks);
    text = malloc(len + 1);
    must(text != NULL);
    text[0] = '\0';
    len = 0;
    list_iter_init(&it, list);
    while ((row = list_iter_next(&it)) != NULL) {
        len += (size_t)sprintf(text + len, "%s%s=%s", len ? " " : "", row->name, row->backend);
        for (unsigned i = 0; marks[i]; i++)
            if (row->flags & 1u << i)
                len += (size_t)sprintf(text + len, "%c", marks[i]);
    }
    return text;
}

struct list *list_of_many(const char *label, unsigned first, unsigned n, const char *backend)
{
    struct row **rows = malloc((n + 1) * sizeof(*rows));
    char name[32];

    must(rows != NULL);
    for (unsigned i = 0; i < n; i++) {
        int len = sprintf(name, "svc-%06u", first + i);
        rows[i] = row_new(name, (size_t)len, backend, strlen(backend), label, 0);
        must(rows[i] != NULL);
    }
    return list_from(rows, n);
}

struct registry *registry_for(const char *peer_id, const struct limits *limits)
{
    struct limits usual;
    struct registry_settings settings = {.peer_id = peer_id, .epoch = 77, .limits = limits};
    struct registry *reg = NULL;

    if (!limits) {
        limits_default(&usual);
        settings.limits = &usual;
    }
    must(registry_new(&settings, &reg) == 0);
    return reg;
}

int put_text(struct registry *reg, const char *peer_id, const char *ip, uint64_t version,
             const char *text)
{
    struct list *list;
    const char *label;
    int r = registry_peer_open(reg, peer_id, ip, 100, &label, NULL);

    if (r != 0)
        return r;
    list = list_of(label, text);
    r = registry_put_list(reg, peer_id, 1, version, list, 1000 + version, NULL, NULL);
    list_unref(list);
    return r;
}

int put_local_text(struct registry *reg, uint64_t version, const char *text)
{
    struct list *list = list_of("local", text);
    int r = registry_put_local(reg, version, list, 1000 + version, NULL, NULL);

    list_unref(list);
    return r;
}

uint64_t test_seed(void)
{
    const char *text = getenv("MESHD_TEST_SEED");
    uint64_t seed = text && *text ? strtoull(text, NULL, 0) : random_u64();

    fprintf(stderr, "# MESHD_TEST_SEED=%llu\n", (unsigned long long)seed);
    return seed;
}

/* splitmix64 */
uint64_t test_random(uint64_t *state)
{
    uint64_t z = *state += 0x9e3779b97f4a7c15ULL;

    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ULL;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebULL;
    return z ^ (z >> 31);
}
