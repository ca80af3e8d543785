/* list - one piece of memory: the instances, then the groups, then the text. */
#include "client/list.h"
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

_Static_assert(sizeof(struct mesh_instance) % _Alignof(struct list_group) == 0, "groups follow");

size_t list_bytes(const struct list_size *size)
{
    return size->instances * sizeof(struct mesh_instance) +
           size->groups * sizeof(struct list_group) + size->text;
}

static void lay_out(struct mesh_list *list, void *memory, const struct list_size *size)
{
    list->current = 1;
    list->n = list->n_groups = 0;
    list->at = memory;
    list->groups = (struct list_group *)(list->at + size->instances);
    list->text = (char *)(list->groups + size->groups);
    list->room = *size;
}

int list_new(const struct list_size *size, struct mesh_list **out_list)
{
    struct mesh_list *list = malloc(sizeof(*list) + list_bytes(size));

    if (!list)
        return -ENOMEM;
    list->memory = NULL;
    list->memory_len = 0;
    lay_out(list, list + 1, size);
    *out_list = list;
    return 0;
}

int list_reserve(struct mesh_list *list, const struct list_size *size)
{
    size_t need = list_bytes(size);

    if (need > list->memory_len) {
        void *memory = malloc(need * 2); /* twice, so that lists that grow soon stop asking */

        list->n = list->n_groups = 0;
        if (!memory)
            return -ENOMEM;
        free(list->memory);
        list->memory = memory;
        list->memory_len = need * 2;
    }
    lay_out(list, list->memory, size);
    return 0;
}

void list_fini(struct mesh_list *list)
{
    free(list->memory);
    *list = (struct mesh_list){.current = 0};
}

const char *list_text(struct mesh_list *list, const char *text, size_t len)
{
    char *at = list->text;

    assert(list->room.text > len);
    memcpy(at, text, len);
    at[len] = '\0';
    list->text += len + 1;
    list->room.text -= len + 1;
    return at;
}

void list_group(struct mesh_list *list)
{
    assert(list->room.groups);
    list->room.groups--;
    list->groups[list->n_groups++] = (struct list_group){.first = list->n};
}

void list_put(struct mesh_list *list, const struct mesh_instance *instance)
{
    assert(list->room.instances && list->n_groups);
    list->room.instances--;
    list->at[list->n++] = *instance;
    list->groups[list->n_groups - 1].n++;
}

size_t mesh_list_count(const struct mesh_list *list) { return list->n; }

const struct mesh_instance *mesh_list_at(const struct mesh_list *list, size_t index)
{
    return index < list->n ? &list->at[index] : NULL;
}

const struct mesh_instance *mesh_list_of(const struct mesh_list *list, size_t which, size_t *out_n)
{
    if (which >= list->n_groups || !list->groups[which].n) {
        *out_n = 0;
        return NULL;
    }
    *out_n = list->groups[which].n;
    return &list->at[list->groups[which].first];
}

int mesh_list_current(const struct mesh_list *list) { return list->current; }

void mesh_list_free(struct mesh_list *list) { free(list); }
