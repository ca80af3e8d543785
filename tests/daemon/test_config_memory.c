/* config: each allocation in turn fails; that is told, and nothing leaks.
 *
 * The linker sends the allocations of this program and of the room through the functions below;
 * those of the libraries go their own way. */
#include <criterion/criterion.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "daemon/config_parts.h"

void *__real_malloc(size_t size);
void *__real_calloc(size_t n, size_t size);
void *__real_reallocarray(void *p, size_t n, size_t size);
char *__real_strdup(const char *text);
void __real_free(void *p);
void *__wrap_malloc(size_t size);
void *__wrap_calloc(size_t n, size_t size);
void *__wrap_reallocarray(void *p, size_t n, size_t size);
char *__wrap_strdup(const char *text);
void __wrap_free(void *p);

static long until_failure = -1; /* negative: none fails */
static long alive;

static bool fails(void) { return until_failure >= 0 && until_failure-- == 0; }

static void *counted(void *p)
{
    alive += p != NULL;
    return p;
}

void *__wrap_malloc(size_t size) { return fails() ? NULL : counted(__real_malloc(size)); }

void *__wrap_calloc(size_t n, size_t size)
{
    return fails() ? NULL : counted(__real_calloc(n, size));
}

void *__wrap_reallocarray(void *p, size_t n, size_t size)
{
    void *moved = fails() ? NULL : __real_reallocarray(p, n, size);

    alive += !p && moved;
    return moved;
}

char *__wrap_strdup(const char *text) { return fails() ? NULL : counted(__real_strdup(text)); }

void __wrap_free(void *p)
{
    alive -= p != NULL;
    __real_free(p);
}

/* What the example has only behind its marks. */
Test(config_memory, each_allocation_of_a_policy_may_fail)
{
    static const char yaml[] = "policy: [{rule: a, peers: [x, y, z], register: 'a,b', offer: q,"
                               " forward: [p, q, r, s, t]}, {rule: b, peers: '@local'}]";
    int n = 0, r = -ENOMEM;

    for (; r != 0; n++) {
        struct config_reading reading;
        struct config *config = NULL;
        FILE *err = fopen("/dev/null", "w");

        cr_assert_lt(n, 100);
        alive = 0;
        until_failure = n;
        r = config_reading_init(&reading, err);
        if (r == 0) {
            config_set(&reading, &settings[SETTING_PEER_NAME], "n1",
                       &(struct where){.kind = WHERE_DEFAULT});
            config_yaml(&reading, "p.yaml", yaml, strlen(yaml));
            r = config_reading_finish(&reading, NULL, &config);
        }
        until_failure = -1;
        fclose(err);
        config_reading_fini(&reading);
        config_free(config);
        cr_assert(r == 0 || r == -ENOMEM, "%d", r);
        cr_assert_eq(alive, 0, "allocation %d", n);
    }
    cr_expect_gt(n, 15);
}

Test(config_memory, each_allocation_may_fail)
{
    const char *argv[] = {"meshd",  "-c",  MESHD_EXAMPLE, "--service", "a:b:1",
                          "--peer", "c:2", "--ingress",   "80",        NULL};
    char told[4096];
    enum config_action action;
    struct config *config;
    FILE *err;
    int n = 0, r = -ENOMEM;

    clearenv();
    setenv("PEER_NAME", "n1", 1);
    setenv("REMOTE_PEER_ADDR", "a:1,b:1,c:1,d:1,e:1,f:1,g:1,h:1,i:1", 1);
    for (; r != 0; n++) {
        cr_assert_lt(n, 100);
        memset(told, 0, sizeof(told));
        err = fmemopen(told, sizeof(told), "w");
        alive = 0;
        until_failure = n;
        r = config_load(9, (char *const *)argv, err, NULL, &action, &config);
        until_failure = -1;
        fclose(err);
        if (r == 0)
            config_free(config);
        else
            cr_expect_str_eq(told, "out of memory\n");
        cr_assert(r == 0 || r == -ENOMEM, "%d", r);
        cr_assert_eq(alive, 0, "allocation %d", n);
    }
    cr_expect_gt(n, 8);
}
