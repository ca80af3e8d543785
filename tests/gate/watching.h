/* watching - a gate with maps to be watched, and watchers of it. */
#ifndef TESTS_GATE_WATCHING_H
#define TESTS_GATE_WATCHING_H

#include <stdint.h>
#include "gate/watcher.h"

extern struct rig rig;
extern struct maps maps;

void watching_setup(void);
void watching_teardown(void);
/* `there` of the names exist, with value 1. */
void watching_start(unsigned there);

Meshd__V1__WatchRequest watching_request(const char *glob, const char *peer);
void watching_open(struct watcher *w, enum sp_framing framing, const char *glob, const char *peer);
/* Goes on from there with what w knew. */
void watching_resume(struct watcher *w, const char *glob, uint64_t epoch, uint64_t revision);

#endif
