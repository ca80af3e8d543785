/* apply - see apply.h.
 *
 * What may fail comes in an order in which all before it can be taken back: limits, services,
 * rules, and last the peers. Nothing is told to a peer that would have to be taken back, but
 * services. */
#include "daemon/apply.h"

#include <stdlib.h>
#include "daemon/feed.h"
#include "daemon/forwards.h"
#include "daemon/policy.h"
#include "daemon/serve.h"
#include "web/web.h"

struct node_dial *apply_dials(const struct config *config)
{
    struct node_dial *dials = must_alloc((config->n_peers + 1) * sizeof *dials);

    for (size_t i = 0; i < config->n_peers; i++)
        dials[i] = (struct node_dial){.host = config->peers[i].host,
                                      .port = config->peers[i].port,
                                      .peer_id = config->peers[i].peer_id};
    return dials;
}

struct node_service *apply_services(const struct config *config)
{
    struct node_service *services = must_alloc((config->n_services + 1) * sizeof *services);

    for (size_t i = 0; i < config->n_services; i++)
        services[i] = (struct node_service){.name = config->services[i].name,
                                            .backend = config->services[i].backend,
                                            .proxy_protocol = (int)config->services[i].proxy,
                                            .check = config->services[i].check};
    return services;
}

enum print_what apply_maps(const struct config *config)
{
    switch (config->maps) {
    case MAPS_FULL:
        return PRINT_FULL;
    case MAPS_SUMMARY:
        return PRINT_SUMMARY;
    case MAPS_OFF:
        break;
    }
    return PRINT_NOTHING;
}

static int set_limits(const struct apply_rooms *rooms, const struct config *config)
{
    const struct limits *limits = &config->limits;
    int r = pages_set_most(&rooms->serve->pages, limits->pinned_snapshots);

    if (r < 0)
        return r;
    registry_set_limits(rooms->registry, limits);
    node_set_limits(rooms->node, limits);
    gate_set_limits(rooms->gate, limits);
    forward_set_limits(rooms->forward, limits);
    ports_set_limits(rooms->ports, limits);
    feed_set_limits(rooms->feed, limits);
    if (rooms->serve->web)
        web_set_limits(rooms->serve->web, limits);
    limits_put(&rooms->serve->limits, limits);
    return 0;
}

static int set_services(const struct apply_rooms *rooms, const struct config *config)
{
    struct node_service *services = apply_services(config);
    int r = node_set_services(rooms->node, services, config->n_services);

    free(services);
    return r;
}

static int set_policy(const struct apply_rooms *rooms, const struct config *config)
{
    return policy_from_config(config, rooms->policy);
}

static int set_peers(const struct apply_rooms *rooms, const struct config *config)
{
    struct node_dial *dials = apply_dials(config);
    int r = node_set_dials(rooms->node, dials, config->n_peers);

    free(dials);
    return r;
}

int apply(const struct apply_rooms *rooms, const struct apply_parts *parts,
          const struct config *before, const struct config *after, const char **out_key)
{
    const struct {
        const char *key;
        bool differs;
        int (*set)(const struct apply_rooms *rooms, const struct config *config);
    } steps[] = {{"limits", parts->limits, set_limits},
                 {"services", parts->services, set_services},
                 {"policy", parts->policy, set_policy},
                 {"peers", parts->peers, set_peers}};
    size_t n = 0;
    int r = 0;

    for (; r == 0 && n < sizeof steps / sizeof *steps; n++)
        r = steps[n].differs ? steps[n].set(rooms, after) : 0;
    if (r < 0) {
        *out_key = steps[--n].key;
        /* In the same order: services that went have room again only under their limits. */
        for (size_t i = 0; i < n; i++)
            if (steps[i].differs)
                steps[i].set(rooms, before);
        return r;
    }
    if (parts->policy)
        policy_changed(after, rooms->node);
    if (parts->maps)
        printer_set(rooms->printer, apply_maps(after));
    if (parts->forwards)
        forwards_set(rooms->forward, after->forwards);
    return 0;
}
