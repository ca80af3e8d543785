#include "client/calls.h"

#include <criterion/criterion.h>
#include <unistd.h>

struct fake fake;
struct mesh_client *client;
sem_t seen, answered;

void calls_setup(void)
{
    alarm(100);
    sem_init(&seen, 0, 0);
    sem_init(&answered, 0, 0);
}

void calls_start(void (*serve)(struct fake *fake, int fd), void *ctx)
{
    fake_start(&fake, SP_TCP, serve, ctx);
    cr_assert_eq(mesh_client_open(fake.url, SOON, &client), MESH_OK, "%s", mesh_error_text());
}

void calls_stop(void)
{
    mesh_client_close(client);
    fake_stop(&fake);
}

struct mesh_call *calls_join(const char *name, int deadline_ms)
{
    struct mesh_call *call = NULL;

    cr_assert_eq(mesh_lookup_begin(client, &name, 1, deadline_ms, &call), MESH_OK);
    return call;
}

struct mesh_call *calls_begin(const char *name, int deadline_ms)
{
    struct mesh_call *call = calls_join(name, deadline_ms);

    cr_assert_eq(mesh_client_flush(client), MESH_OK);
    return call;
}

void calls_expect(struct mesh_call *call, const char *name)
{
    struct mesh_list *list = NULL;
    enum mesh_status status = mesh_call_wait(call, &list);

    cr_assert_eq(status, MESH_OK, "%s", mesh_error_text());
    cr_assert_eq(mesh_list_count(list), 1);
    cr_expect_str_eq(mesh_list_at(list, 0)->name, name);
    mesh_list_free(list);
}

enum mesh_status calls_lookup(const char *name, int deadline_ms)
{
    struct mesh_list *list = NULL;
    enum mesh_status status = mesh_lookup(client, name, deadline_ms, &list);

    cr_expect_eq(list != NULL, status == MESH_OK);
    mesh_list_free(list);
    return status;
}
