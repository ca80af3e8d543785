/* config - one reading of all settings: defaults, file, environment, flags, then what they must be
 * to each other. */
#include "daemon/config.h"
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "daemon/config_parts.h"

#define QUOTED_BYTES 100u /* of a text that an error shows */

const char *config_quote(const char *text, char out[CONFIG_TEXT_MAX])
{
    size_t used = 1, n = 0;

    out[0] = '\'';
    for (; text[n] && n < QUOTED_BYTES; n++) {
        uint8_t c = (uint8_t)text[n];

        if (c < 0x20 || c > 0x7e || c == '\\')
            used += (size_t)snprintf(out + used, CONFIG_TEXT_MAX - used, "\\x%02x", c);
        else
            out[used++] = (char)c;
    }
    snprintf(out + used, CONFIG_TEXT_MAX - used, text[n] ? "...'" : "'");
    return out;
}

void config_where(const struct where *where, char out[CONFIG_TEXT_MAX])
{
    if (where->kind == WHERE_FILE && where->line)
        snprintf(out, CONFIG_TEXT_MAX, "%s:%u:%u", where->name, where->line, where->col);
    else if (where->kind == WHERE_FILE)
        snprintf(out, CONFIG_TEXT_MAX, "%s", where->name);
    else if (where->kind == WHERE_ENV && where->entry)
        snprintf(out, CONFIG_TEXT_MAX, "environment %s, entry %u", where->name, where->entry);
    else if (where->kind == WHERE_ENV)
        snprintf(out, CONFIG_TEXT_MAX, "environment %s", where->name);
    else if (where->kind == WHERE_FLAG)
        snprintf(out, CONFIG_TEXT_MAX, "--%s", where->name);
    else
        snprintf(out, CONFIG_TEXT_MAX, "default");
}

bool config_error_room(const struct config_reading *r) { return r->n_errors < CONFIG_ERRORS_MAX; }

void config_error(struct config_reading *r, const struct where *where, const struct setting *s,
                  const char *format, ...)
{
    char text[CONFIG_TEXT_MAX];
    bool key =
        s && (!where || where->kind == WHERE_FILE || where->kind == WHERE_DEFAULT || !s->flag);
    va_list args;

    if (s)
        r->bad[s - settings] = true;
    if (r->n_errors++ >= CONFIG_ERRORS_MAX)
        return;
    if (where) {
        config_where(where, text);
        fprintf(r->err, "%s: ", text);
    }
    if (key)
        fprintf(r->err, "%s: ", s->key);
    va_start(args, format);
    vfprintf(r->err, format, args);
    va_end(args);
    fputc('\n', r->err);
    if (!config_error_room(r))
        fprintf(r->err, "these are %u errors; the others are not told\n", r->n_errors);
}

void config_set(struct config_reading *r, const struct setting *s, const char *text,
                const struct where *where)
{
    char quoted[CONFIG_TEXT_MAX], allowed[CONFIG_TEXT_MAX];
    const char *why = s->type->parse(s, text, r->config);

    if (!why) {
        r->where[s - settings] = *where;
        return;
    }
    config_allowed(s, allowed);
    config_error(r, where, s, "%s %s; allowed: %s", config_quote(text, quoted), why, allowed);
}

int config_reading_init(struct config_reading *r, FILE *err)
{
    static const struct where none = {.kind = WHERE_DEFAULT};

    *r = (struct config_reading){.err = err};
    r->config = calloc(1, sizeof(*r->config));
    if (!r->config)
        return -ENOMEM;
    for (const struct setting *s = settings; s < settings + N_SETTINGS; s++) {
        if (s->def)
            config_set(r, s, s->def, &none);
    }
    return 0;
}

void config_reading_fini(struct config_reading *r)
{
    config_lists_fini(r);
    config_free(r->config);
}

/* The strongest of two settings' places, for an error about both. */
static const struct where *where_of(const struct config_reading *r, enum setting_id a,
                                    enum setting_id b)
{
    return &r->where[r->where[b].kind > r->where[a].kind ? b : a];
}

static void find_peer_id(struct config_reading *r)
{
    char host[256] = "", quoted[CONFIG_TEXT_MAX];

    if (r->config->peer_id[0] || r->bad[SETTING_PEER_NAME])
        return;
    gethostname(host, sizeof(host) - 1);
    if (!config_peer_id_of_host(host, r->config->peer_id))
        config_error(r, NULL, &settings[SETTING_PEER_NAME],
                     "the host name %s makes no peer id; set PEER_NAME, --peer-name or peer_name",
                     config_quote(host, quoted));
}

/* ${RUNTIME_DIRECTORY:-${XDG_RUNTIME_DIR:-/run}/meshd}/<peer id> */
static void find_runtime_dir(struct config_reading *r)
{
    const struct setting *s = &settings[SETTING_RUNTIME_DIR];
    struct where where = {.kind = WHERE_ENV, .name = "RUNTIME_DIRECTORY"};
    const char *base = getenv(where.name), *why;
    char dir[4096], quoted[CONFIG_TEXT_MAX];
    int n;

    if (r->config->runtime_dir[0] || r->bad[SETTING_RUNTIME_DIR] || r->bad[SETTING_PEER_NAME])
        return;
    if (base && *base) {
        /* systemd gives several with colons between: the first is ours. */
        n = snprintf(dir, sizeof(dir), "%.*s/%s", (int)strcspn(base, ":"), base,
                     r->config->peer_id);
    } else {
        where.name = "XDG_RUNTIME_DIR";
        base = getenv(where.name);
        if (!base || !*base) {
            where.kind = WHERE_DEFAULT;
            base = "/run";
        }
        n = snprintf(dir, sizeof(dir), "%s/meshd/%s", base, r->config->peer_id);
    }
    why = n < 0 || (size_t)n >= sizeof(dir) ? "is too long" : s->type->parse(s, dir, r->config);
    if (why)
        config_error(r, &where, NULL,
                     "runtime_dir: %s %s; allowed: %s; a shorter peer_name or --runtime-dir helps",
                     config_quote(dir, quoted), why, s->allowed);
}

static void check_times(struct config_reading *r)
{
    const struct config *c = r->config;

    if (r->bad[SETTING_HEARTBEAT] || r->bad[SETTING_PEER_TIMEOUT] ||
        c->peer_timeout_ms > 3 * (uint64_t)c->heartbeat_ms)
        return;
    config_error(r, where_of(r, SETTING_PEER_TIMEOUT, SETTING_HEARTBEAT), NULL,
                 "timing.peer_timeout is %" PRIu32 "ms and timing.heartbeat %" PRIu32
                 "ms; allowed: a peer_timeout of more than 3 heartbeats",
                 c->peer_timeout_ms, c->heartbeat_ms);
}

/* One message must fit where messages wait. */
static void check_sizes(struct config_reading *r)
{
    const struct limits *limits = &r->config->limits;
    const struct {
        enum setting_id id;
        const _Atomic uint64_t *room;
    } holders[] = {
        {SETTING_LIMIT_link_queue_bytes, &limits->link_queue_bytes},
        {SETTING_LIMIT_gate_buffer_bytes, &limits->gate_buffer_bytes},
    };
    uint64_t message = limits->message_bytes;

    for (size_t i = 0; i < sizeof(holders) / sizeof(holders[0]); i++) {
        uint64_t room = *holders[i].room;

        if (r->bad[SETTING_LIMIT_message_bytes] || r->bad[holders[i].id] || room >= message)
            continue;
        config_error(r, where_of(r, holders[i].id, SETTING_LIMIT_message_bytes), NULL,
                     "%s is %" PRIu64 " and limits.message_bytes %" PRIu64
                     "; allowed: room for one message",
                     settings[holders[i].id].key, room, message);
    }
}

static void check_count(struct config_reading *r, enum setting_id list, enum setting_id limit,
                        uint64_t most)
{
    const struct entries *e = &r->lists[settings[list].list->id];

    if (e->n <= most || r->bad[list] || r->bad[limit])
        return;
    config_error(r, &e->where[most], &settings[list], "%zu are configured; allowed by %s: %" PRIu64,
                 e->n, settings[limit].key, most);
}

/* A list's entries become the config's. */
static void take_lists(struct config_reading *r)
{
    for (const struct setting *s = settings; s < settings + N_SETTINGS; s++) {
        if (!s->list)
            continue;
        memcpy((char *)r->config + s->list->items_at, &r->lists[s->list->id].items, sizeof(void *));
        memcpy((char *)r->config + s->list->n_at, &r->lists[s->list->id].n, sizeof(size_t));
        r->lists[s->list->id].items = NULL;
    }
}

static void check_rules(struct config_reading *r)
{
    const struct entries *e = &r->lists[LIST_POLICY];

    if (e->n > LIMIT_POLICY_RULES)
        config_error(r, &e->where[LIMIT_POLICY_RULES], &settings[SETTING_POLICY],
                     "%zu rules are configured; allowed: %u", e->n, LIMIT_POLICY_RULES);
}

static void check_own_id(struct config_reading *r)
{
    const struct config *c = r->config;

    for (size_t i = 0; i < c->n_peers && !r->bad[SETTING_PEERS]; i++) {
        if (c->peers[i].peer_id[0] && strcmp(c->peers[i].peer_id, c->peer_id) == 0)
            config_error(r, &r->lists[LIST_PEERS].where[i], &settings[SETTING_PEERS],
                         "id: '%s' is this node's own; allowed: the id of another", c->peer_id);
    }
}

/* Every address of a host is one that has. */
static bool host_covers(const char *host, const char *other)
{
    bool v6 = strchr(other, ':') != NULL;

    return !host[0] || strcmp(host, other) == 0 || (strcmp(host, "0.0.0.0") == 0 && !v6) ||
           (strcmp(host, "::") == 0 && v6);
}

struct listener {
    const char *whose; /* for an error */
    const char *host;
    uint16_t port;
};

/* Told of the second. */
static void check_listener(struct config_reading *r, const struct listener *one,
                           const struct listener *other, enum setting_id id,
                           const struct where *where)
{
    if (one->port != other->port || !one->port ||
        (!host_covers(one->host, other->host) && !host_covers(other->host, one->host)))
        return;
    config_error(r, where, &settings[id],
                 "port %u is %s there; allowed: another port, or another address", one->port,
                 one->whose);
}

/* What could never be bound. */
static void check_listeners(struct config_reading *r)
{
    const struct config *c = r->config;
    const struct listener mesh = {"the mesh port", c->bind_host, c->bind_port};
    const struct listener admin = {"the admin port", c->admin_host, c->admin_port};

    if (r->bad[SETTING_BIND] || r->bad[SETTING_ADMIN])
        return;
    if (c->admin)
        check_listener(r, &mesh, &admin, SETTING_ADMIN, &r->where[SETTING_ADMIN]);
    for (size_t i = 0; i < c->n_ingress && !r->bad[SETTING_INGRESS]; i++) {
        const struct where *where = &r->lists[LIST_INGRESS].where[i];
        const struct listener port = {"", c->ingress[i].host, c->ingress[i].port};

        check_listener(r, &mesh, &port, SETTING_INGRESS, where);
        if (c->admin && !r->bad[SETTING_INGRESS])
            check_listener(r, &admin, &port, SETTING_INGRESS, where);
    }
}

int config_reading_finish(struct config_reading *r, const struct config_judge *judge,
                          struct config **out_config)
{
    const struct limits *limits = &r->config->limits;
    unsigned n_settings;

    find_peer_id(r);
    find_runtime_dir(r);
    take_lists(r);
    config_check_trust(r);
    check_times(r);
    check_sizes(r);
    check_count(r, SETTING_PEERS, SETTING_LIMIT_peers, limits->peers);
    check_count(r, SETTING_SERVICES, SETTING_LIMIT_services_per_peer, limits->services_per_peer);
    check_count(r, SETTING_SERVICES, SETTING_LIMIT_services_total, limits->services_total);
    check_rules(r);
    check_own_id(r);
    check_listeners(r);
    n_settings = r->n_errors;
    if (judge)
        config_check_files(r, judge);
    if (r->no_memory)
        return -ENOMEM;
    if (r->n_errors)
        return n_settings ? -EINVAL : -EBADMSG;
    *out_config = r->config;
    r->config = NULL;
    return 0;
}

/* At most CONFIG_FILE_MAX bytes of fd. Returns 0, -EFBIG, or what read(2) said. */
static int read_all(int fd, char *data, size_t *out_len)
{
    size_t len = 0;
    ssize_t n;

    do {
        n = read(fd, data + len, CONFIG_FILE_MAX + 1 - len);
        if (n > 0)
            len += (size_t)n;
    } while (len <= CONFIG_FILE_MAX && (n > 0 || (n < 0 && errno == EINTR)));
    if (n < 0)
        return -errno;
    if (len > CONFIG_FILE_MAX)
        return -EFBIG;
    *out_len = len;
    return 0;
}

static void read_file(struct config_reading *r, const char *file)
{
    struct where where = {.kind = WHERE_FILE, .name = file};
    char *data = malloc(CONFIG_FILE_MAX + 1);
    int fd = open(file, O_RDONLY | O_CLOEXEC), error;
    size_t len = 0;
    struct stat is;

    if (!data) {
        r->no_memory = true;
    } else if (fd < 0) {
        config_error(r, &where, NULL, "cannot be opened: %s", strerror(errno));
    } else {
        r->config->once = fstat(fd, &is) == 0 && S_ISFIFO(is.st_mode);
        error = read_all(fd, data, &len);
        if (error == -EFBIG)
            config_error(r, &where, NULL, "is larger than 1 MiB");
        else if (error < 0)
            config_error(r, &where, NULL, "cannot be read: %s", strerror(-error));
        else
            config_yaml(r, file, data, len);
    }
    if (fd >= 0)
        close(fd);
    free(data);
}

int config_load(int argc, char *const *argv, FILE *err, const struct config_judge *judge,
                enum config_action *out_action, struct config **out_config)
{
    struct config_reading reading;
    struct config_flags flags = {0};
    const char *file;
    int r = config_reading_init(&reading, err);

    if (r == 0)
        r = config_flags_init(&flags, &reading, argc, argv);
    if (r < 0)
        goto out;
    if (flags.action == CONFIG_VERSION || flags.action == CONFIG_HELP) {
        r = reading.n_errors ? -EINVAL : 0;
        if (r == 0) {
            *out_action = flags.action;
            *out_config = NULL;
        }
        goto out;
    }
    file = flags.file ? flags.file : getenv("MESHD_CONFIG");
    if (file && (*file || flags.file))
        read_file(&reading, file);
    config_env(&reading);
    config_flags_apply(&flags, &reading);
    r = config_reading_finish(&reading, flags.action == CONFIG_PRINT ? NULL : judge, out_config);
    if (r == 0 || r == -EBADMSG)
        *out_action = flags.action;
out:
    if (r == -ENOMEM)
        fputs("out of memory\n", err);
    config_flags_fini(&flags);
    config_reading_fini(&reading);
    return r;
}

void config_free(struct config *config)
{
    if (!config)
        return;
    free(config->peers);
    free(config->services);
    free(config->ingress);
    for (size_t i = 0; i < config->n_rules; i++)
        list_policy.fini(&config->rules[i]);
    free(config->rules);
    free(config);
}
