/* policy - see policy.h. */
#include "daemon/policy.h"

#include <stdatomic.h>
#include <stdlib.h>
#include "base/clock.h"
#include "base/log.h"
#include "daemon/mailbox.h"
#include "forward/forward.h"
#include "node/node.h"

#define LINES 10u /* in ... */
#define WINDOW_MS 10000u

/* Threads that come at the same time may tell a line more or less. */
static void tell(void *ctx, enum policy_action action, const char *subject, const char *name,
                 const char *rule)
{
    static atomic_uint_fast64_t window_ms, told, untold;
    uint64_t now_ms = clock_ms();
    char text[LIMIT_STATUS_TEXT + 1];

    if (now_ms >= atomic_load(&window_ms) + WINDOW_MS) {
        uint64_t besides = atomic_exchange(&untold, 0);

        atomic_store(&window_ms, now_ms);
        atomic_store(&told, 0);
        if (besides)
            log_warn("policy",
                     "%llu refusals were not told here; the counters policy_denied_... "
                     "have them",
                     (unsigned long long)besides);
    }
    if (atomic_fetch_add(&told, 1) >= LINES) {
        atomic_fetch_add(&untold, 1);
        return;
    }
    policy_refusal_text(action, subject, name, rule, text, sizeof text);
    log_warn("policy", "refused: %s", text);
}

int policy_start(struct policy_keeper **out_keeper)
{
    int r = policy_keeper_new(NULL, 0, out_keeper);

    if (r == 0)
        policy_keeper_tell(*out_keeper, tell, NULL);
    return r;
}

static const char *const *texts(const struct config_globs *globs)
{
    return (const char *const *)globs->at;
}

int policy_from_config(const struct config *config, struct policy_keeper *keeper)
{
    struct policy_rule *rules = must_alloc((config->n_rules + 1) * sizeof *rules);
    int r;

    for (size_t i = 0; i < config->n_rules; i++) {
        const struct config_rule *from = &config->rules[i];

        rules[i] = (struct policy_rule){.name = from->name,
                                        .peers = texts(&from->peers),
                                        .n_peers = from->peers.n,
                                        .link = from->link,
                                        .lookup = from->lookup,
                                        .introspect = from->introspect,
                                        .register_names = texts(&from->registers),
                                        .n_register = from->registers.n,
                                        .forward_names = texts(&from->forwards),
                                        .n_forward = from->forwards.n,
                                        .offer_names = texts(&from->offers),
                                        .n_offer = from->offers.n};
    }
    r = policy_keeper_set(keeper, rules, config->n_rules);
    free(rules);
    return r;
}

int policy_reload(const struct config *config, struct policy_keeper *keeper, struct node *node,
                  struct forward *forward)
{
    int r = policy_from_config(config, keeper);

    if (r < 0)
        return r;
    log_info("policy", "%zu rules are in force", config->n_rules);
    node_policy_changed(node);
    forward_check_again(forward);
    return 0;
}

const char *policy_subject(const struct gate_peer *peer)
{
    if (peer->local)
        return POLICY_LOCAL;
    if (peer->peer_id[0])
        return peer->peer_id;
    return peer->secure && peer->names[0][0] ? peer->names[0] : POLICY_ANONYMOUS;
}
