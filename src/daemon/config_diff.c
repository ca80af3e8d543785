/* config_diff - what is different between two configs, setting by setting, as the table has them.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "base/cleanup.h"
#include "daemon/config_parts.h"

#define NAMED_MAX 3u /* entries of one kind that are told by their names */

static void text_free(char **text) { free(*text); }
static void items_free(const char ***items) { free(*items); }

/* NULL: no memory. */
static char *printed(const struct setting *s, const struct config *config)
{
    char *text = NULL;
    size_t size;
    FILE *out = open_memstream(&text, &size);

    if (!out)
        return NULL;
    s->type->print(s, config, out);
    if (fclose(out) == 0)
        return text;
    free(text);
    return NULL;
}

static bool follows(const struct setting *s)
{
    for (const struct limit_row *row = limit_rows; row->name; row++)
        if (strncmp(s->key, "limits.", 7) == 0 && strcmp(s->key + 7, row->name) == 0)
            return !limits_of_the_start(row);
    return s->follows;
}

/* ---- lists ---- */

static int by_compare(const void *a, const void *b, void *list)
{
    return ((const struct list_type *)list)
        ->compare(*(const char *const *)a, *(const char *const *)b);
}

/* In the order of compare; NULL: no memory. */
static const char **sorted(const struct list_type *list, const struct config *config, size_t *out_n)
{
    const char **items, *first;

    memcpy(&first, (const char *)config + list->items_at, sizeof(first));
    memcpy(out_n, (const char *)config + list->n_at, sizeof(*out_n));
    items = calloc(*out_n + 1, sizeof(*items));
    if (!items)
        return NULL;
    for (size_t i = 0; i < *out_n; i++)
        items[i] = first + i * list->item_size;
    qsort_r(items, *out_n, sizeof(*items), by_compare, (void *)(uintptr_t)list);
    return items;
}

static bool same_texts(const struct list_type *list, unsigned field, const char *a, const char *b)
{
    for (size_t i = 0;; i++) {
        const char *left = list->field_at(field, a, i), *right = list->field_at(field, b, i);

        if (!left || !right || strcmp(left, right) != 0)
            return left == right;
    }
}

static bool same_item(const struct list_type *list, const char *a, const char *b)
{
    char left[CONFIG_TEXT_MAX], right[CONFIG_TEXT_MAX];

    for (unsigned i = 0; list->fields[i].name; i++) {
        if (list->many & 1u << i) {
            if (!same_texts(list, i, a, b))
                return false;
            continue;
        }
        list->field_text(i, a, left);
        list->field_text(i, b, right);
        if (strcmp(left, right) != 0)
            return false;
    }
    return true;
}

struct told { /* "2 more (a, b)" */
    const char *what;
    size_t n, len;
    char names[256];
};

static void note(struct told *told, const struct list_type *list, const char *item)
{
    char label[CONFIG_TEXT_MAX];

    list->label(item, label);
    if (told->n++ < NAMED_MAX && told->len < sizeof(told->names))
        told->len += (size_t)snprintf(told->names + told->len, sizeof(told->names) - told->len,
                                      "%s%.70s", told->n > 1 ? ", " : "", label);
}

/* What is different in the entries; 0 or -ENOMEM. */
static int compare_lists(const struct setting *s, const struct config *before,
                         const struct config *after, char *out, size_t size)
{
    size_t n_old, n_new, i = 0, k = 0, len;
    CLEANUP(items_free) const char **old = sorted(s->list, before, &n_old);
    CLEANUP(items_free) const char **now = sorted(s->list, after, &n_new);
    struct told told[] = {{.what = "more"}, {.what = "less"}, {.what = "other"}};
    bool any = false;

    if (!old || !now)
        return -ENOMEM;
    while (i < n_old || k < n_new) {
        int cmp = i == n_old ? 1 : k == n_new ? -1 : s->list->compare(old[i], now[k]);

        if (cmp > 0)
            note(&told[0], s->list, now[k]);
        else if (cmp < 0)
            note(&told[1], s->list, old[i]);
        else if (!same_item(s->list, old[i], now[k]))
            note(&told[2], s->list, now[k]);
        i += cmp <= 0;
        k += cmp >= 0;
    }
    len = (size_t)snprintf(out, size, "%s:", s->key);
    for (size_t t = 0; t < sizeof(told) / sizeof(*told); t++) {
        if (told[t].n == 0)
            continue;
        len +=
            (size_t)snprintf(out + len, size - len, "%s %zu %s (%s%s)", any ? "," : "", told[t].n,
                             told[t].what, told[t].names, told[t].n > NAMED_MAX ? ", ..." : "");
        any = true;
    }
    if (!any)
        snprintf(out + len, size - len, " in another order");
    return 0;
}

int config_diff(const struct config *before, const struct config *after,
                void (*tell)(void *ctx, const struct config_difference *difference), void *ctx)
{
    for (const struct setting *s = settings; s < settings + N_SETTINGS; s++) {
        CLEANUP(text_free) char *old = printed(s, before);
        CLEANUP(text_free) char *now = printed(s, after);
        char text[2 * CONFIG_TEXT_MAX];
        int r = 0;

        if (!old || !now)
            return -ENOMEM;
        if (strcmp(old, now) == 0)
            continue;
        if (s->list)
            r = compare_lists(s, before, after, text, sizeof(text));
        else
            snprintf(text, sizeof(text), "%s is %.700s (was %.700s)", s->key, now, old);
        if (r < 0)
            return r;
        tell(ctx, &(struct config_difference){.key = s->key, .text = text, .follows = follows(s)});
    }
    return 0;
}
