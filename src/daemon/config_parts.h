/* config_parts - what the files of config share: the table of settings, and one reading of them.
 *
 * A reading (struct config_reading) takes the sources one after the other, the weakest first. Each
 * hands its texts to config_set, config_add and config_entry_...; these parse, put the value into
 * the config and remember where it came from. Errors are told as they are found and counted; what
 * has one keeps its old value, and checks that would need it are passed over.
 */
#ifndef DAEMON_CONFIG_PARTS_H
#define DAEMON_CONFIG_PARTS_H

#include "daemon/config.h"

#define CONFIG_FILE_MAX (1u << 20) /* bytes of a YAML file */
#define CONFIG_ERRORS_MAX 64u      /* told; nobody reads more */
#define CONFIG_TEXT_MAX 1024u      /* bytes of one value in the file, and of what is said of one */

enum setting_id {
    SETTING_PEER_NAME,
    SETTING_BIND,
    SETTING_INSECURE,
    SETTING_TLS_CA,
    SETTING_TLS_CERT,
    SETTING_TLS_KEY,
    SETTING_TLS_CRL,
    SETTING_TLS_OFFLOAD,
    SETTING_PEERS,
    SETTING_SERVICES,
    SETTING_INGRESS,
    SETTING_POLICY,
    SETTING_ADMIN,
    SETTING_WORKERS,
    SETTING_RUNTIME_DIR,
    SETTING_SOCKET_MODE,
    SETTING_SOCKET_GROUP,
    SETTING_USER,
    SETTING_SANDBOX,
    SETTING_CORE_DUMPS,
    SETTING_LOG_LEVEL,
    SETTING_LOG_FORMAT,
    SETTING_LOG_MAPS,
    SETTING_LOG_FORWARDS,
    SETTING_LOG_TIMESTAMPS,
    SETTING_HEARTBEAT,
    SETTING_PEER_TIMEOUT,
    SETTING_DIAL_TIMEOUT,
    SETTING_OPEN_TIMEOUT,
    SETTING_CALL_TIMEOUT,
    SETTING_ROUTE_TIMEOUT,
    SETTING_IDLE_TIMEOUT,
    SETTING_HALF_CLOSE_TIMEOUT,
    SETTING_DRAIN_TIMEOUT,
#define X(field, def, least, most, unit, what) SETTING_LIMIT_##field,
    LIMITS(X)
#undef X
        N_SETTINGS
};

struct setting;

/* How one kind of value is read and written. A text that is not allowed is answered with a
 * constant half sentence that says why ("is too small"), a good one with NULL. */
struct setting_type {
    const char *(*parse)(const struct setting *s, const char *text, struct config *config);
    void (*print)(const struct setting *s, const struct config *config, FILE *out);
};

#define LIST_FIELDS_MAX 8u
#define LIST_NAME_ALLOWED "labels of a-z 0-9 - _ with dots between, 253 bytes in all"

enum list_id { LIST_PEERS, LIST_SERVICES, LIST_INGRESS, LIST_POLICY, N_LISTS };

/* How the entries of a list are read and written: in a variable or flag as one text, in the file
 * as a mapping of keys. */
struct list_type {
    enum list_id id;
    size_t item_size;
    size_t items_at, n_at; /* of the list and its length in struct config */
    unsigned n_required;   /* of the fields, the first so many */
    struct list_field {
        const char *name, *allowed;
    } fields[LIST_FIELDS_MAX + 1]; /* ends with name == NULL */
    unsigned many; /* a bit for each field that may be a list of texts, too: from_field gets them
                      one after the other */
    const char *(*from_text)(const char *text, void *item); /* NULL: only in the file */
    /* config_no_memory is no fault of the text. */
    const char *(*from_field)(unsigned field, const char *text, void *item);
    void (*fini)(void *item); /* also of one that is zero, or half read; NULL: nothing to free */
    /* What is wrong with an entry whose fields are good each; may be NULL. */
    const char *(*check)(const void *item);
    int (*compare)(const void *a, const void *b); /* 0: the same entry twice ... */
    bool (*may_repeat)(const void *item);         /* ... which this one may be; may be NULL */
    void (*label)(const void *item, char out[CONFIG_TEXT_MAX]); /* what an error calls it */
    /* "": at its default. */
    void (*field_text)(unsigned field, const void *item, char out[CONFIG_TEXT_MAX]);
    /* One text after the other of a field that may be a list; NULL behind the last. */
    const char *(*field_at)(unsigned field, const void *item, size_t index);
};

struct setting {
    const char *key;      /* in the file: "bind", "log.level" */
    const char *flag;     /* without "--"; NULL: by --limit NAME=VALUE, or (a list) by no flag */
    const char *env;      /* or NULL */
    const char *arg;      /* of the flag, in the help */
    const char *what;     /* it is, in the help */
    const char *def;      /* parsed like any other text; NULL: found out, or an empty list */
    const char *def_text; /* in the help, where def is NULL */
    const char *allowed;  /* NULL: least to most */
    const struct setting_type *type;
    const struct list_type *list; /* NULL: one value */
    size_t offset;                /* of the value in struct config */
    uint64_t least, most;
    const char *unit;
    const char *const *words;
    bool follows; /* another value takes effect while the node runs; of a limit, limits.h says it */
};

extern const struct setting settings[N_SETTINGS];

/* Where a value stands. */
struct where {
    enum { WHERE_DEFAULT, WHERE_FILE, WHERE_ENV, WHERE_FLAG } kind;
    const char *name;   /* of the file, variable or flag; borrowed for the reading's life */
    unsigned line, col; /* of a file, from 1; line 0: the file as such */
    unsigned entry;     /* of a variable's list, from 1; 0: all of it */
};

struct entries { /* of a list, as the strongest source that has one gave them */
    void *items;
    struct where *where;
    size_t n, cap;
};

struct config_reading {
    struct config *config;
    FILE *err;
    unsigned n_errors;
    bool no_memory;
    struct where where[N_SETTINGS];
    bool bad[N_SETTINGS]; /* an error was told of it */
    struct entries lists[N_LISTS];
};

/* A reading with the defaults in it. 0 or -ENOMEM; config_reading_fini either way. */
int config_reading_init(struct config_reading *r, FILE *err);
void config_reading_fini(struct config_reading *r);
/* What is found out (host name, runtime_dir) and what settings must be to each other. 0 and the
 * config, or as config_load. */
int config_reading_finish(struct config_reading *r, const struct config_judge *judge,
                          struct config **out_config);

/* Tells "<where>: <key>: <text>" and counts. where and s may be NULL. */
void config_error(struct config_reading *r, const struct where *where, const struct setting *s,
                  const char *format, ...) __attribute__((format(printf, 4, 5)));
bool config_error_room(const struct config_reading *r); /* false: no more would be told */

void config_set(struct config_reading *r, const struct setting *s, const char *text,
                const struct where *where);
/* One source's entries: begin (forgets those of the source below), add them, end (duplicates). */
void config_list_begin(struct config_reading *r, const struct setting *s);
void config_add(struct config_reading *r, const struct setting *s, const char *text,
                const struct where *where);
/* An entry of the file: begun (NULL: no memory), its fields as they come (false: told what is
 * wrong), ended; at is the entry's own place. One at a time; not good: it is dropped. */
void *config_entry_begin(struct config_reading *r, const struct setting *s);
bool config_entry_field(struct config_reading *r, const struct setting *s, void *item,
                        unsigned field, const char *text, const struct where *where);
void config_entry_end(struct config_reading *r, const struct setting *s, void *item, bool good,
                      const struct where *at);
void config_list_end(struct config_reading *r, const struct setting *s);
void config_lists_fini(struct config_reading *r); /* those that did not become the config's */

/* The sources. */
struct config_flags {
    enum config_action action;
    const char *file; /* -c, or that of --check; borrowed from argv; NULL: none */
    size_t n;
    struct config_flag {
        const struct setting *setting;
        const char *text; /* borrowed from argv */
    } * given;
};
/* Tells unknown flags and those said twice; values are parsed by config_flags_apply. 0 or -ENOMEM;
 * config_flags_fini either way. */
int config_flags_init(struct config_flags *flags, struct config_reading *r, int argc,
                      char *const *argv);
void config_flags_apply(const struct config_flags *flags, struct config_reading *r);
void config_flags_fini(struct config_flags *flags);
void config_env(struct config_reading *r);
void config_yaml(struct config_reading *r, const char *file, const void *data, size_t len);

/* Whom plaintext may reach, and whether the files of TLS are all there (config_trust.c). */
void config_check_trust(struct config_reading *r);
/* What is in these files, also when not all are there, or something else will not do. */
void config_check_files(struct config_reading *r, const struct config_judge *judge);

/* What stands up to the next comma of *rest, without white space around it; NULL: there is no more.
 * Both are cut out of the text itself. */
char *config_next_word(char **rest);

/* Parts that the tests look at alone. */
const struct setting *setting_find(const char *key, size_t len); /* or NULL */
/* The peer id that a host of that name gets; false if it gives none. */
bool config_peer_id_of_host(const char *host, char out_peer_id[LIMIT_PEER_ID + 1]);
void config_allowed(const struct setting *s, char out[CONFIG_TEXT_MAX]);
/* text between quotes, its odd bytes as \xNN, cut when long. Returns out. */
const char *config_quote(const char *text, char out[CONFIG_TEXT_MAX]);
void config_where(const struct where *where, char out[CONFIG_TEXT_MAX]);
/* Where to listen: "ip:port", "[v6]:port" or ":port". As setting_type's parse. */
const char *config_listen(const char *text, char out_host[LIMIT_IP_TEXT], uint16_t *out_port);

/* A duration, a number, as a field of a list's entry: as setting_type's parse. */
const char *config_duration(const char *text, uint32_t least_ms, uint32_t most_ms,
                            uint32_t *out_ms);
const char *config_number(const char *text, uint32_t least, uint32_t most, uint32_t *out_number);
/* As YAML, in double quotes. */
void config_print_quoted(const char *text, FILE *out);
void config_duration_text(uint32_t ms, char out[CONFIG_TEXT_MAX]);

extern const struct setting_type type_peer_id, type_bind, type_admin, type_bool, type_word,
    type_duration, type_number, type_dir, type_file, type_list;
extern const struct setting_type type_user, type_group, type_mode;
extern const struct list_type list_peers, list_services, list_ingress, list_policy;
extern const char config_no_memory[];

#endif
