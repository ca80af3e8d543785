/* meshcat - what its files share: options, exit codes, the commands, and how answers are shown.
 *
 * Data goes to stdout, all else to stderr. Every error says what to do next. Nothing that came from
 * a node or the command line reaches a terminal with its control bytes (but with --raw).
 */
#ifndef MESHCAT_H
#define MESHCAT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <meshd/client.h>
#include <meshd/v1/mesh.pb-c.h>

enum meshcat_exit {
    EXIT_FOUND = 0,
    EXIT_NOTHING = 1, /* of diff: they differ */
    EXIT_USAGE = 2,
    EXIT_CONNECT = 3,
    EXIT_TIMEOUT = 4,
    EXIT_PROTOCOL = 5,
    EXIT_DENIED = 6,
    EXIT_PARTIAL = 7,
    EXIT_LOCAL = 8,   /* the answer could not be written, or there is no memory */
    EXIT_STATUS = 64, /* plus the status of the node */
};

/* The last five show messages as they are: as protobuf's text, or their bytes as nngcat does. */
enum meshcat_format {
    FORMAT_TABLE,
    FORMAT_JSON,
    FORMAT_JSONL,
    FORMAT_TEXT,
    FORMAT_RAW,
    FORMAT_HEX,
    FORMAT_QUOTED,
    FORMAT_ASCII
};

enum meshcat_color { COLOR_AUTO, COLOR_ALWAYS, COLOR_NEVER };

/* Commands as bits, so that an option can say for which ones it is. */
enum meshcat_command {
    CMD_INTROSPECT = 1 << 0,
    CMD_SERVICES = 1 << 1,
    CMD_PEERS = 1 << 2,
    CMD_LOOKUP = 1 << 3,
    CMD_NODE = 1 << 4,
    CMD_PING = 1 << 5,
    CMD_OFFER = 1 << 6,
    CMD_WITHDRAW = 1 << 7,
    CMD_EXPLAIN = 1 << 8,
    CMD_CALL = 1 << 9,
    CMD_WATCH = 1 << 10,
    CMD_DIFF = 1 << 11,
    CMD_CA = 1 << 12,
    CMD_DRAIN = 1 << 13,
    CMD_ENABLE = 1 << 14,
    CMD_RELOAD = 1 << 15,
    CMD_ALL = (1 << 16) - 1,
    /* Those that can be asked again and again. */
    CMD_ROUNDS =
        CMD_INTROSPECT | CMD_SERVICES | CMD_PEERS | CMD_LOOKUP | CMD_NODE | CMD_EXPLAIN | CMD_PING,
};

/* What the command line says. Strings are borrowed from argv. */
struct meshcat_opts {
    enum meshcat_format format;
    enum meshcat_color color;
    bool silent, verbose, help, version;
    const char *dial, *ipc_path; /* at most one of these two and local_port */
    uint16_t local_port;
    struct mesh_tls tls; /* for tls://; what is not given is NULL */
    bool tls_given;      /* something of it is */
    uint32_t timeout_ms;
    uint32_t count, interval_ms, delay_ms; /* 0: not given */
    uint32_t recv_max;                     /* bytes */
    uint64_t ttl_ms;                       /* 0: not given */
    struct mesh_offer offer;               /* what is not given is NULL or 0 */
    uint32_t limit;                        /* 0: not given */
    const char *lease, *name_glob, *peer;
    Meshd__V1__RowState state;
    const char *data, *file, *dump; /* of call */
    bool binary_input;
    uint64_t from_epoch, from_revision;      /* of watch; 0: not given */
    const char *ca_dir, *ca_san, *ca_serial; /* of ca */
    uint32_t days;                           /* 0: not given */
    const struct meshcat_cmd *cmd;           /* NULL: none was given */
    char **args;                             /* of the command; the caller's argv, reordered */
    size_t n_args;
};

struct meshcat_cmd {
    const char *name;
    enum meshcat_command bit;
    const char *args, *what; /* for the help */
    const char *more;        /* the paragraph of `meshcat COMMAND --help` */
    size_t args_least, args_most;
    int (*run)(const struct meshcat_opts *opts);
};
extern const struct meshcat_cmd meshcat_cmds[]; /* ends with name == NULL */

/* --- meshcat_opts.c --- */

/* Room for one error message of the command line. */
struct meshcat_complaint {
    char text[512];
};
/* 0, or EXIT_USAGE with the first thing that is wrong in *out_complaint. Goes on after an error, so
 * that --format is known when the error is told. Options and their values leave argv. */
int opts_parse(int argc, char **argv, struct meshcat_opts *out_opts,
               struct meshcat_complaint *out_complaint);
/* The options for these commands (a mask), one per line; common: those for all commands. */
void opts_help(FILE *out, unsigned commands, bool common);

/* --- meshcat_help.c --- */
void help_overall(FILE *out);
void help_command(FILE *out, const struct meshcat_cmd *cmd);

/* --- meshcat_target.c --- */

/* The node to ask: what the options say, else MESHD_ADDR, else the local socket, else (unless only
 * a local socket will do) tcp://127.0.0.1:7400. A new string in *out_url; or the exit code of an
 * error that was told. */
int target_url(const struct meshcat_opts *opts, bool local_only, char **out_url);

/* --- the commands; each returns its exit code --- */

int cmd_run(const struct meshcat_opts *opts); /* meshcat_cmds.c: the one given, in its rounds */
/* meshcat_picture.c */
int run_introspect(const struct meshcat_opts *opts);
int run_services(const struct meshcat_opts *opts);
int run_peers(const struct meshcat_opts *opts);
int run_node(const struct meshcat_opts *opts);
/* meshcat_find.c */
int run_lookup(const struct meshcat_opts *opts);
int run_explain(const struct meshcat_opts *opts);
int run_ping(const struct meshcat_opts *opts);
/* meshcat_offer.c */
int run_offer(const struct meshcat_opts *opts);
int run_withdraw(const struct meshcat_opts *opts);
int run_drain(const struct meshcat_opts *opts);  /* and enable */
int run_reload(const struct meshcat_opts *opts); /* meshcat_reload.c */
int run_call(const struct meshcat_opts *opts);   /* meshcat_call.c */
int run_watch(const struct meshcat_opts *opts);  /* meshcat_watch.c */
int run_diff(const struct meshcat_opts *opts);   /* meshcat_diff.c */
int run_ca(const struct meshcat_opts *opts);     /* meshcat_ca.c */

/* --- meshcat_show.c --- */

/* Tells an error, as text or, if JSON was asked for, as a document, on stderr; returns exit_code.
 * status: of the node, or -1. */
int show_error(const struct meshcat_opts *opts, int exit_code, int status, const char *format, ...)
    __attribute__((format(printf, 4, 5)));
/* A remark on stderr; nothing when JSON or silence was asked for. */
void show_note(const struct meshcat_opts *opts, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
/* Flushes stdout, for what is shown as it comes; a failure stays in ferror(stdout), for show_end.
 */
void show_flush(void);
/* What cannot be written to a reader that has left is no loss: for what has no end of its own. */
void show_forget(void);
/* Flushes stdout: code, or EXIT_LOCAL with an error told when not all of it could be written. */
int show_end(const struct meshcat_opts *opts, int code);

/* "connected", "stale", "draining", "down" or "unhealthy"; an owner is always healthy. */
const char *show_state(bool connected, bool stale, bool healthy, bool draining);
void show_lookup(const struct meshcat_opts *opts, const Meshd__V1__LookupReply *reply);
void show_explain(const struct meshcat_opts *opts, const Meshd__V1__ExplainReply *reply);
void show_offer(const struct meshcat_opts *opts, const Meshd__V1__OfferReply *reply,
                const char *lease_id, const char *backend);
void show_withdraw(const struct meshcat_opts *opts, const char *name, uint32_t removed);
void show_reload(const struct meshcat_opts *opts, const Meshd__V1__ReloadReply *reply);
void show_drain(const struct meshcat_opts *opts, const char *name,
                const Meshd__V1__DrainReply *reply);

struct show_pings {
    const char *peer_id; /* of the last answer; "" before the first */
    const double *ms;    /* of each ping; negative: no answer */
    size_t n;
};
/* ms: negative: no answer. */
void show_ping(const struct meshcat_opts *opts, const char *peer_id, uint64_t seq, double ms);
void show_pings(const struct meshcat_opts *opts, const struct show_pings *pings); /* JSON only */

/* --- meshcat_maps.c --- */

/* Which parts of a picture a command shows. */
enum show_part { SHOW_SERVICES = 1, SHOW_PEERS = 2, SHOW_NODE = 4 };
void show_picture(const struct meshcat_opts *opts, const Meshd__V1__IntrospectReply *picture,
                  unsigned parts);

/* --- meshcat_table.c --- */

/* Whether this process colours its tables; called once, before the first. */
void table_colors(const struct meshcat_opts *opts);
/* The escape sequence that begins what is shown of a state, or a header (state NULL), and the one
 * that ends it; "" without colours. */
const char *table_style(const char *state);
const char *table_style_end(const char *state);

/* Rows of text, aligned. All functions end the program with EXIT_LOCAL when there is no memory. */
struct table;
struct table *table_new(size_t columns, const char *const *headers);
#define TABLE(...)                                                                                 \
    table_new(sizeof((const char *const[]){__VA_ARGS__}) / sizeof(char *),                         \
              (const char *const[]){__VA_ARGS__})
/* Cells are copied and made safe; an empty one is shown as "-". */
void table_cell(struct table *table, const char *text);
void table_state(struct table *table, const char *state); /* in its colour */
void table_number(struct table *table, uint64_t number);
void table_time(struct table *table, uint64_t unix_s); /* 0: "-" */
void table_print(const struct table *table, FILE *out);
void table_free(struct table *table); /* accepts NULL */
void table_freep(struct table **table);

/* "2009-02-13T23:31:30Z", or the number for a year that no calendar has. */
void time_text(uint64_t unix_s, char out[40]);
/* A copy of text in which every byte that is not printable ASCII, and the backslash, is \xNN. The
 * caller's. */
char *safe_text(const char *text);
void free_textp(char **text);
/* Memory, or the end with EXIT_LOCAL. */
void *must_alloc(size_t size);
void *must_realloc(void *old, size_t size);
char *must_dup(const char *text);
void out_of_memory(void) __attribute__((noreturn));

#endif
