/* scene - what the simulations share: a net of the test's own, and questions about all of it. */
#ifndef SIM_SCENE_H
#define SIM_SCENE_H

#include "sim/fakenet.h"

extern struct fakenet *net;

/* The seed is MESHD_TEST_SEED's, else the one given, and is printed. */
void scene_make(const struct fakenet_settings *settings);
void scene_end(void);
/* n0, n1, ... at 10.0.0.1, ... with a service each. */
void scene_add(size_t count);
struct fakenet_host *scene_host(size_t index);
void scene_dial(size_t from, size_t to);
/* So many nodes, each of which dials the next. */
void scene_ring(size_t count);
void scene_boot_all(void);

/* Everybody whom the configuration of a running node links with another, and who can reach it,
 * agrees with it both ways. For fakenet_run_until. */
bool scene_agrees(void *ctx);
/* The same of liveness alone. */
bool scene_live(void *ctx);
#define HEAL_MS 12000 /* within which all are linked again, whatever happened */
/* Fails the test unless they are, and agree two heartbeats later. */
void scene_heals(void);
size_t scene_links_live(const struct fakenet_host *host);
/* Fails the test when the maps of any node disagree with each other, or a version went back. */
void scene_check(void);

#endif
