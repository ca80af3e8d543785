/* clients: what the settings say reaches the forward room, and ports are told as they were bound.
 *
 * The room itself is replaced by the functions below. */
#include <criterion/criterion.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "daemon/clients.h"
#include "daemon/config_support.h"

static char stands_for_it;
static size_t listened;
static int refuse_at = -1; /* the index of a port that cannot be bound */
static struct forward_settings got;
static struct forward_ingress ports[3];

int forward_new(const struct forward_settings *settings, struct forward **out_forward)
{
    got = *settings;
    cr_assert(settings->n_ingress <= 3);
    memcpy(ports, settings->ingress, settings->n_ingress * sizeof(*ports));
    *out_forward = (struct forward *)&stands_for_it;
    return 0;
}

int forward_listen(struct forward *forward, size_t index, char *out_text, size_t size)
{
    cr_expect_eq((void *)forward, &stands_for_it);
    cr_expect_eq(index, listened);
    listened++;
    if ((int)index == refuse_at)
        return -EADDRINUSE;
    snprintf(out_text, size, "[::]:%zu", 9000 + index);
    return 0;
}

static struct config *settings(void)
{
    return load_good(LOAD(.yaml =
                              "ingress:\n"
                              "  - {listen: '127.0.0.1:0', default: web, bare_lf: true,\n"
                              "     proxy_from: '10.0.0.0/8,::1'}\n"
                              "  - {listen: '5432', name: db}\n"
                              "  - {listen: '80'}\n"
                              "workers: 3\n"
                              "timing: {dial_timeout: 1s, open_timeout: 2s, route_timeout: 3s,\n"
                              "  idle_timeout: 4s, half_close_timeout: 5s}\n"));
}

Test(clients, the_settings_reach_the_room)
{
    struct config *config = settings();
    struct registry *registry = (struct registry *)&listened;
    struct tls_keeper *tls = (struct tls_keeper *)&refuse_at;
    const struct forward_ops ops = {.ctx = &ports};
    struct forward *forward;

    cr_assert_eq(clients_new(config, registry, tls, NULL, &ops, &forward), 0);
    cr_expect_eq((void *)forward, &stands_for_it);
    cr_expect_str_eq(got.peer_id, "n1");
    cr_expect_eq(got.limits, &config->limits);
    cr_expect_eq(got.registry, registry);
    cr_expect_eq(got.tls, tls);
    cr_expect_eq(got.ops.ctx, &ports);
    cr_expect_eq(got.workers, 3u);
    cr_expect_eq(got.dial_ms, 1000u);
    cr_expect_eq(got.open_ms, 2000u);
    cr_expect_eq(got.route_ms, 3000u);
    cr_expect_eq(got.idle_ms, 4000u);
    cr_expect_eq(got.half_close_ms, 5000u);
    cr_assert_eq(got.n_ingress, 3u);
    cr_expect_str_eq(ports[0].host, "127.0.0.1");
    cr_expect_eq(ports[0].port, 0);
    cr_expect_str_empty(ports[0].name);
    cr_expect_str_eq(ports[0].fallback, "web");
    cr_expect(ports[0].accept_bare_lf);
    cr_expect_eq(ports[0].n_proxy_from, 2u);
    cr_expect_eq(ports[0].proxy_from, config->ingress[0].proxy_from);
    cr_expect_str_empty(ports[1].host);
    cr_expect_eq(ports[1].port, 5432);
    cr_expect_str_eq(ports[1].name, "db");
    cr_expect_not(ports[1].accept_bare_lf);
    config_free(config);
}

Test(clients, a_port_is_told_as_bound_with_its_service)
{
    struct config *config = settings();
    char **texts;

    cr_assert_eq(clients_listen(config, (struct forward *)&stands_for_it, &texts), 0);
    cr_expect_str_eq(texts[0], "[::]:9000 default=web");
    cr_expect_str_eq(texts[1], "[::]:9001=db");
    cr_expect_str_eq(texts[2], "[::]:9002");
    cr_expect_null(texts[3]);
    clients_texts_free(texts);
    config_free(config);
}

Test(clients, a_port_that_cannot_be_bound_ends_the_start)
{
    struct config *config = settings();
    char **texts = NULL;

    refuse_at = 1;
    cr_expect_eq(clients_listen(config, (struct forward *)&stands_for_it, &texts), -EADDRINUSE);
    cr_expect_eq(listened, 2u);
    cr_expect_null(texts);
    config_free(config);
}
