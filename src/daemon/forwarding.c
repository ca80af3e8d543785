/* forwarding - settings to ingress ports. */
#include "daemon/forwarding.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "base/log.h"

static void fill_ingress(const struct config_ingress *from, struct forward_ingress *to)
{
    *to = (struct forward_ingress){.host = from->host,
                                   .port = from->port,
                                   .name = from->name,
                                   .fallback = from->fallback,
                                   .accept_bare_lf = from->bare_lf,
                                   .proxy_from = from->proxy_from,
                                   .n_proxy_from = from->n_proxy_from};
}

int forwarding_new(const struct config *config, struct registry *registry, struct ports *ports,
                   struct forward **out_forward)
{
    struct forward_ingress *ingress = must_alloc((config->n_ingress + 1) * sizeof *ingress);
    struct forward_backend *backends = must_alloc((config->n_services + 1) * sizeof *backends);
    struct forward_settings settings = {.peer_id = config->peer_id,
                                        .limits = &config->limits,
                                        .registry = registry,
                                        .workers = (unsigned)config->workers,
                                        .ingress = ingress,
                                        .n_ingress = config->n_ingress,
                                        .backends = backends,
                                        .n_backends = config->n_services,
                                        .route_ms = config->route_timeout_ms,
                                        .dial_ms = config->dial_timeout_ms,
                                        .open_ms = config->open_timeout_ms,
                                        .idle_ms = config->idle_timeout_ms,
                                        .half_close_ms = config->half_close_timeout_ms,
                                        .ops = {.ctx = ports, .send = ports_forward_send}};
    int r;

    for (size_t i = 0; i < config->n_ingress; i++)
        fill_ingress(&config->ingress[i], &ingress[i]);
    for (size_t i = 0; i < config->n_services; i++)
        backends[i] = (struct forward_backend){.name = config->services[i].name,
                                               .proxy = config->services[i].proxy};
    r = forward_new(&settings, out_forward);
    free(ingress);
    free(backends);
    return r;
}

static int listen_one(const struct config_ingress *ingress, struct forward *forward, size_t index,
                      char out_text[SERVE_INGRESS_TEXT])
{
    char bound[64];
    int r = forward_listen(forward, index, bound, sizeof bound);

    if (r < 0) {
        log_error("daemon", "cannot listen for clients on %s:%u: %s; %s",
                  ingress->host[0] ? ingress->host : "*", ingress->port, strerror(-r),
                  r == -EADDRINUSE ? "stop what uses the port, or change INGRESS_ADDR"
                                   : "change INGRESS_ADDR to an address of this host");
        return r;
    }
    snprintf(out_text, SERVE_INGRESS_TEXT, "%s%s%s", bound,
             ingress->name[0]       ? "="
             : ingress->fallback[0] ? " default="
                                    : "",
             ingress->name[0] ? ingress->name : ingress->fallback);
    log_info("daemon", "ingress port %s", out_text);
    return 0;
}

int forwarding_listen(const struct config *config, struct forward *forward, struct serve *serve)
{
    int r = 0;

    serve->ingress = must_alloc((config->n_ingress + 1) * sizeof *serve->ingress);
    for (size_t i = 0; r == 0 && i < config->n_ingress; i++, serve->n_ingress += r == 0)
        r = listen_one(&config->ingress[i], forward, i, serve->ingress[i]);
    return r;
}
