/* tls_stage - see tls_stage.h. */
#include "client/tls_stage.h"
#include <criterion/criterion.h>
#include <stdlib.h>
#include <unistd.h>

struct fake fake;
struct front front;
struct mesh_client *client;
struct issued *ca, *other_ca;
struct mesh_tls mine = {.size = sizeof(mine)};
sem_t told;

void stage_files(const char *name, const struct issued *trusted, const struct issued *own)
{
    struct tls_settings settings = node_settings(name, trusted, own);

    mine.ca = settings.ca;
    mine.cert = settings.cert;
    mine.key = settings.key;
}

void stage_setup(void)
{
    alarm(100);
    sem_init(&told, 0, 0);
    unsetenv("PEER_TLS_CA");
    unsetenv("PEER_TLS_CERT");
    unsetenv("PEER_TLS_KEY");
    ca = issue_ca(NULL, "the mesh");
    other_ca = issue_ca(NULL, "another");
    stage_files("program", ca, issue_node(ca, "program"));
}

void stage_start(void (*serve)(struct fake *fake, int fd), const struct issued *own)
{
    struct tls_settings node = node_settings("n1", ca, own ? own : issue_node(ca, "n1"));

    fake_start_many(&fake, SP_TCP, serve, NULL);
    front_start(&front, &node, fake.port);
}

void stage_open(void)
{
    cr_assert_eq(mesh_client_open_tls(front.url, &mine, SOON, &client), MESH_OK, "%s",
                 mesh_error_text());
}

void stage_finds(const char *name)
{
    struct mesh_list *list;

    cr_assert_eq(mesh_lookup(client, name, SOON, &list), MESH_OK, "%s", mesh_error_text());
    cr_expect_str_eq(mesh_list_at(list, 0)->name, name);
    mesh_list_free(list);
}

void stage_stop(void)
{
    mesh_client_close(client);
    client = NULL;
    front_stop(&front);
    fake_stop(&fake);
}
