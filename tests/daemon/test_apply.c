/* Settings put into force in rooms of the test's own: all of them, or none. */
#include <criterion/criterion.h>
#include <errno.h>
#include "daemon/apply.h"
#include "daemon/feed.h"
#include "daemon/pages.h"
#include "daemon/policy.h"
#include "daemon/ports.h"
#include "daemon/serve.h"
#include "forward/forward.h"
#include "gate/gate.h"

static struct {
    uint64_t services_per_peer;
    size_t n_services, n_dials, n_rules;
    const char *fails; /* the part that cannot be put into force; NULL: none */
} rooms;

static int set(const char *part, size_t n, size_t *out)
{
    if (rooms.fails && strcmp(rooms.fails, part) == 0)
        return -ENOMEM;
    *out = n;
    return 0;
}

int __wrap_pages_set_most(struct pages *pages, size_t most);
void __wrap_registry_set_limits(struct registry *registry, const struct limits *limits);
void __wrap_node_set_limits(struct node *node, const struct limits *limits);
void __wrap_gate_set_limits(struct gate *gate, const struct limits *limits);
void __wrap_forward_set_limits(struct forward *forward, const struct limits *limits);
void __wrap_ports_set_limits(struct ports *ports, const struct limits *limits);
void __wrap_feed_set_limits(struct feed *feed, const struct limits *limits);
int __wrap_node_set_services(struct node *node, const struct node_service *services, size_t n);
int __wrap_node_set_dials(struct node *node, const struct node_dial *dials, size_t n);
int __wrap_policy_from_config(const struct config *config, struct policy_keeper *keeper);

int __wrap_pages_set_most(struct pages *pages, size_t most) { return 0; }

void __wrap_registry_set_limits(struct registry *registry, const struct limits *limits) {}

void __wrap_node_set_limits(struct node *node, const struct limits *limits)
{
    rooms.services_per_peer = limits->services_per_peer;
}

void __wrap_gate_set_limits(struct gate *gate, const struct limits *limits) {}

void __wrap_forward_set_limits(struct forward *forward, const struct limits *limits) {}

void __wrap_ports_set_limits(struct ports *ports, const struct limits *limits) {}

void __wrap_feed_set_limits(struct feed *feed, const struct limits *limits) {}

int __wrap_node_set_services(struct node *node, const struct node_service *services, size_t n)
{
    if (n > rooms.services_per_peer)
        return -ENOSPC;
    return set("services", n, &rooms.n_services);
}

int __wrap_node_set_dials(struct node *node, const struct node_dial *dials, size_t n)
{
    return set("peers", n, &rooms.n_dials);
}

int __wrap_policy_from_config(const struct config *config, struct policy_keeper *keeper)
{
    return set("policy", config->n_rules, &rooms.n_rules);
}

static struct config_service some[8];
static struct config_peer someone[8];
static const struct apply_parts all = {
    .limits = true, .services = true, .policy = true, .peers = true};

static struct config config_of(uint64_t limit, size_t n)
{
    struct config config = {
        .services = some, .n_services = n, .peers = someone, .n_peers = n, .n_rules = n};

    limits_default(&config.limits);
    config.limits.services_per_peer = limit;
    return config;
}

static int apply_all(const struct config *before, const struct config *after, const char **out_key)
{
    static struct serve serve;

    return apply(&(struct apply_rooms){.serve = &serve}, &all, before, after, out_key);
}

Test(apply, what_cannot_be_put_into_force_leaves_all_as_it_was)
{
    static const char *const parts[] = {"services", "policy", "peers"};
    const struct config more = config_of(6, 6), less = config_of(2, 2);

    for (size_t i = 0; i < 2 * sizeof(parts) / sizeof(*parts); i++) {
        const struct config *before = i % 2 ? &more : &less, *after = i % 2 ? &less : &more;
        const char *key = "";
        size_t n = before->n_services;

        rooms.services_per_peer = before->limits.services_per_peer;
        rooms.n_services = rooms.n_dials = rooms.n_rules = n;
        rooms.fails = parts[i / 2];
        cr_assert_eq(apply_all(before, after, &key), -ENOMEM);
        cr_expect_str_eq(key, parts[i / 2]);
        cr_expect_eq(rooms.services_per_peer, before->limits.services_per_peer);
        cr_expect(rooms.n_services == n && rooms.n_dials == n && rooms.n_rules == n,
                  "%s fails: %zu services, %zu peers, %zu rules; there were %zu", key,
                  rooms.n_services, rooms.n_dials, rooms.n_rules, n);
    }
}
