/* apply - settings put into force in the rooms: for the start, and again while the node runs. Main
 * loop only.
 */
#ifndef DAEMON_APPLY_H
#define DAEMON_APPLY_H

#include "daemon/config.h"
#include "node/node.h"
#include "registry/print.h"

struct feed;
struct forward;
struct gate;
struct ports;
struct printer;
struct serve;

/* As node takes them; free them. Their texts are borrowed from config. */
struct node_dial *apply_dials(const struct config *config);
struct node_service *apply_services(const struct config *config);
enum print_what apply_maps(const struct config *config);

/* Whose settings change while the node runs; all borrowed. */
struct apply_rooms {
    struct registry *registry;
    struct policy_keeper *policy;
    struct node *node;
    struct gate *gate;
    struct forward *forward;
    struct ports *ports;
    struct feed *feed;
    struct serve *serve;
    struct printer *printer;
};
struct apply_parts { /* what is different, and has to be put into force */
    bool limits, services, peers, policy, maps, forwards;
};
/* All of the parts, or none: then a negative errno, and out_key says which setting was in the way.
 * What is forwarded under other rules is the caller's to have looked at. */
int apply(const struct apply_rooms *rooms, const struct apply_parts *parts,
          const struct config *before, const struct config *after, const char **out_key);

#endif
