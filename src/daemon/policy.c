/* policy - see policy.h. */
#include "daemon/policy.h"

#include <stdio.h>
#include <stdlib.h>
#include "base/clock.h"
#include "base/log.h"
#include "daemon/mailbox.h"
#include "node/node.h"

static struct log_limit limits[N_POLICY_ACTIONS];

static void kind_text(enum policy_action action, char *out, size_t size)
{
    snprintf(out, size, "refused: ... %s", policy_action_text(action));
}

/* On any thread. */
static void tell(void *ctx, enum policy_action action, const char *subject, const char *name,
                 const char *rule)
{
    char text[LIMIT_STATUS_TEXT + 1], kind[64];

    policy_refusal_text(action, subject, name, rule, text, sizeof text);
    kind_text(action, kind, sizeof kind);
    log_limited(&limits[action], clock_ms(), LOG_WARN, "policy", kind, "refused: %s", text);
}

void policy_left_out(uint64_t now_ms)
{
    char kind[64];

    for (int i = 0; i < N_POLICY_ACTIONS; i++) {
        kind_text((enum policy_action)i, kind, sizeof kind);
        log_limited_rest(&limits[i], now_ms, LOG_WARN, "policy", kind);
    }
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

void policy_changed(const struct config *config, struct node *node)
{
    log_info("policy", "%zu rules are in force", config->n_rules);
    node_policy_changed(node);
}

const char *policy_subject(const struct gate_peer *peer)
{
    if (peer->local)
        return POLICY_LOCAL;
    if (peer->peer_id[0])
        return peer->peer_id;
    return peer->secure && peer->names[0][0] ? peer->names[0] : POLICY_ANONYMOUS;
}
