/* config_support - one config_load with a file, an environment and flags of the test's own. */
#ifndef TESTS_DAEMON_CONFIG_SUPPORT_H
#define TESTS_DAEMON_CONFIG_SUPPORT_H

#include "daemon/config.h"

struct load {
    const char *yaml;     /* becomes meshd.yaml, in a folder of its own; NULL: no file is given */
    const char *env[8];   /* "NAME=value"; nothing else is in the environment */
    const char *flags[8]; /* after "-c meshd.yaml", if there is one */
    const struct config_judge *judge;
};

struct loaded {
    int result;
    enum config_action action;
    struct config *config; /* NULL unless result is 0 */
    char *err;             /* what was told */
};

/* peer_name is "n1" where nothing says otherwise, so that no test knows the host's name. */
struct loaded load(const struct load *in);
void loaded_free(struct loaded *l);

/* It must load. Ended with config_free. */
struct config *load_good(const struct load *in);
/* It must not, and tell exactly that. */
void load_bad(const struct load *in, const char *err);

void config_expect_same(const struct config *a, const struct config *b);
/* What config_print writes; free it. */
char *config_printed(const struct config *config);

#define LOAD(...) (&(const struct load){__VA_ARGS__})

#endif
