/* policy - who may do what on this node: rules of the configuration, the first that matches
 * decides.
 *
 *   policy:
 *     - rule: edge                      # its name, told in every refusal
 *       peers: edge-*                   # whom it is about: globs of peer ids
 *       link: true                      # may have a link with this node
 *       register: [web, "*.example"]    # names that it may register here
 *       forward: "*"                    # local services that it may be forwarded to
 *       lookup: true
 *       introspect: true                # Introspect, Explain, Watch
 *       offer: batch-*                  # local services that it may offer over the network
 *
 * What a rule does not name it does not allow. Whom no rule matches may do nothing: that refusal
 * names the rule "default". Without any rule, whoever is in may do all but offer over the network.
 * Besides peer ids, `peers` knows "@local" (programs on the Unix socket; with no rule of their own
 * they may do all: the socket's permissions decide) and "@anonymous" (plaintext without a name).
 * Both are meant only by their whole text: a glob is about peer ids.
 *
 * A glob has * (any bytes, none too) and ? (one byte); it matches the whole.
 *
 * Threads: any. A policy never changes; a keeper holds the one in force and counts refusals.
 */
#ifndef POLICY_POLICY_H
#define POLICY_POLICY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "base/limits.h"

#define POLICY_LOCAL "@local"
#define POLICY_ANONYMOUS "@anonymous"
#define POLICY_DEFAULT "default" /* no rule has that name */
#define POLICY_RULE_TEXT 65u     /* a rule's name with its NUL */

enum policy_action {
    POLICY_LINK,
    POLICY_REGISTER, /* name: the service */
    POLICY_FORWARD,  /* name: the local service */
    POLICY_LOOKUP,
    POLICY_INTROSPECT,
    POLICY_OFFER, /* name: the service */
    N_POLICY_ACTIONS
};
const char *policy_action_text(enum policy_action action); /* "link", "register" ... */

struct policy_rule {          /* all texts are copied */
    const char *name;         /* 1 to 64 bytes of A-Z a-z 0-9 . _ - */
    const char *const *peers; /* globs, n of each; LIMIT_POLICY_GLOBS at most */
    size_t n_peers;
    bool link, lookup, introspect;
    const char *const *register_names, *const *forward_names, *const *offer_names;
    size_t n_register, n_forward, n_offer;
};

struct policy_keeper;
/* 0, -ENOMEM, -E2BIG (LIMIT_POLICY_RULES, LIMIT_POLICY_GLOBS). n 0: no rule at all. */
int policy_keeper_new(const struct policy_rule *rules, size_t n, struct policy_keeper **out_keeper);
void policy_keeper_free(struct policy_keeper *keeper); /* accepts NULL */
/* Other rules from now on; as policy_keeper_new, and on failure all stays as it was. */
int policy_keeper_set(struct policy_keeper *keeper, const struct policy_rule *rules, size_t n);

/* Each refusal that is counted is told, on the thread that asked; tell must not block, and must ask
 * the keeper nothing. Before others use the keeper. */
void policy_keeper_tell(struct policy_keeper *keeper,
                        void (*tell)(void *ctx, enum policy_action action, const char *subject,
                                     const char *name, const char *rule),
                        void *ctx);

/* Whether subject may; name: canonical, "" where the action has none. A refusal is counted, and
 * out_rule is the name of the rule that refuses. keeper NULL: no rule at all; nothing is counted.
 */
bool policy_allows(struct policy_keeper *keeper, enum policy_action action, const char *subject,
                   const char *name, char out_rule[POLICY_RULE_TEXT]);
/* The same, not counted: to look ahead. */
bool policy_would(struct policy_keeper *keeper, enum policy_action action, const char *subject,
                  const char *name, char out_rule[POLICY_RULE_TEXT]);

struct policy_counters {
    uint64_t rules; /* gauge */
    uint64_t denied[N_POLICY_ACTIONS];
};
void policy_counters(struct policy_keeper *keeper, struct policy_counters *out_counters);

/* "policy rule 'edge' does not let n7 register the name web": what a refusal says. Fits 256 bytes
 * but for a long name, which is cut. */
void policy_refusal_text(enum policy_action action, const char *subject, const char *name,
                         const char *rule, char *out, size_t size);

/* Whether the whole of text matches. Takes time in proportion to the product of the lengths. */
bool policy_glob(const char *glob, const char *text);

#endif
