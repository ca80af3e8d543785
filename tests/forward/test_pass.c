/* Two forward rooms and the way between them: Forwards, DATA, refusals, losses. */
#include <criterion/criterion.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include <meshd/v1/mesh.pb-c.h>
#include "forward/rig.h"

static struct rig rig;

static void setup(void)
{
    rig_init(&rig);
    rig_start(&rig);
    rig_link_up(&rig);
}

static void teardown(void) { rig_stop(&rig); }

TestSuite(pass, .init = setup, .fini = teardown, .timeout = 60);

static const char request[] = "GET / HTTP/1.1\r\nHost: web\r\n\r\n";

static int ask(enum side from)
{
    int fd = net_connect(rig.sides[from].port);

    net_send(fd, request, strlen(request));
    return fd;
}

static void answer_and_close(int client, int backend)
{
    char got[64];

    net_expect(backend, request, strlen(request));
    net_send(backend, "hello", 5);
    shutdown(backend, SHUT_WR);
    cr_assert_eq(net_read_all(client, got, sizeof got), 5);
    cr_assert_str_eq(got, "hello");
    shutdown(client, SHUT_WR);
    cr_assert_eq(net_read_all(backend, got, sizeof got), 0);
    close(client);
    close(backend);
}

/* One client of `from` to a backend of the other side, or of its own. */
static void carried(enum side from, enum side owner)
{
    char addr[32];
    int listener = net_listen(addr), client, backend;

    rig_offer(&rig, owner, "web", addr);
    client = ask(from);
    backend = net_accept(listener);
    answer_and_close(client, backend);
    close(listener);
}

Test(pass, a_local_backend_is_reached) { carried(DIALLER, DIALLER); }

Test(pass, the_side_that_dialled_reaches_the_other) { carried(DIALLER, LISTENER); }

Test(pass, the_side_that_was_dialled_reaches_the_other) { carried(LISTENER, DIALLER); }
