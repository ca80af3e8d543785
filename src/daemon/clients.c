/* clients - see clients.h. */
#include "daemon/clients.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "daemon/mailbox.h"

#define BOUND_TEXT 64u /* "[v6]:port" */

int clients_new(const struct config *config, struct registry *registry, struct tls_keeper *tls,
                struct policy_keeper *policy, const struct forward_ops *ops,
                struct forward **out_forward)
{
    struct forward_ingress *ingress = must_alloc((config->n_ingress + 1) * sizeof *ingress);
    int r;

    for (size_t i = 0; i < config->n_ingress; i++) {
        const struct config_ingress *port = &config->ingress[i];

        ingress[i] = (struct forward_ingress){.host = port->host,
                                              .port = port->port,
                                              .name = port->name,
                                              .fallback = port->fallback,
                                              .accept_bare_lf = port->bare_lf,
                                              .proxy_from = port->proxy_from,
                                              .n_proxy_from = port->n_proxy_from};
    }
    r = forward_new(&(struct forward_settings){.peer_id = config->peer_id,
                                               .limits = &config->limits,
                                               .registry = registry,
                                               .workers = (unsigned)config->workers,
                                               .ingress = ingress,
                                               .n_ingress = config->n_ingress,
                                               .route_ms = config->route_timeout_ms,
                                               .dial_ms = config->dial_timeout_ms,
                                               .open_ms = config->open_timeout_ms,
                                               .idle_ms = config->idle_timeout_ms,
                                               .half_close_ms = config->half_close_timeout_ms,
                                               .tls = tls,
                                               .policy = policy,
                                               .ops = *ops},
                    out_forward);
    free(ingress);
    return r;
}

static char *text_of(const struct config_ingress *port, const char *bound)
{
    size_t size = strlen(bound) + sizeof " default=" + LIMIT_NAME;
    char *text = must_alloc(size);

    if (port->name[0])
        snprintf(text, size, "%s=%s", bound, port->name);
    else
        snprintf(text, size, "%s%s%s", bound, port->fallback[0] ? " default=" : "", port->fallback);
    return text;
}

static void tell(const struct config_ingress *port, int error)
{
    log_error("daemon",
              strchr(port->host, ':') ? "cannot listen for clients on [%s]:%u: %s; %s"
                                      : "cannot listen for clients on %s:%u: %s; %s",
              port->host[0] ? port->host : "*", port->port, strerror(-error),
              error == -EADDRINUSE ? "stop what uses the port, or change INGRESS_ADDR"
              : error == -EACCES   ? "ports below 1024 need a privilege (CAP_NET_BIND_SERVICE)"
                                   : "set INGRESS_ADDR to an address of this host");
}

int clients_listen(const struct config *config, struct forward *forward, char ***out_texts)
{
    char **texts = must_alloc((config->n_ingress + 1) * sizeof *texts), bound[BOUND_TEXT];

    for (size_t i = 0; i < config->n_ingress; i++) {
        int r = forward_listen(forward, i, bound, sizeof bound);

        if (r < 0) {
            tell(&config->ingress[i], r);
            clients_texts_free(texts);
            return r;
        }
        texts[i] = text_of(&config->ingress[i], bound);
        log_info("daemon", "ingress port %s", texts[i]);
    }
    *out_texts = texts;
    return 0;
}

void clients_texts_free(char **texts)
{
    for (size_t i = 0; texts && texts[i]; i++)
        free(texts[i]);
    free(texts);
}
