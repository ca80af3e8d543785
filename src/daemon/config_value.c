/* config_value - how each kind of single value is read and written.
 *
 * What print writes, parse reads back the same. Nothing here is told to anybody: a bad text is
 * answered with half a sentence, and the config is as it was. */
#include <arpa/inet.h>
#include <inttypes.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/un.h>
#include "daemon/config_parts.h"
#include "wire/name.h"

/* Of a runtime_dir, so that the sockets in it have room. */
#define DIR_BYTES (sizeof(((struct sockaddr_un *)NULL)->sun_path) - 1 - CONFIG_PRIVATE_NAME)
_Static_assert(DIR_BYTES < sizeof(((struct config *)NULL)->runtime_dir),
               "runtime_dir is too small");
_Static_assert(DIR_BYTES == 83, "the text of what is allowed says 83");

struct unit {
    const char *name;
    uint64_t factor;
};

static const struct unit time_units[] = {{"ms", 1}, {"s", 1000}, {"m", 60000}, {"h", 3600000}, {0}};
static const struct unit byte_units[] = {
    {"", 1}, {"KiB", 1u << 10}, {"MiB", 1u << 20}, {"GiB", 1u << 30}, {0}};
static const struct unit no_units[] = {{"", 1}, {0}};

static const struct unit *units_of(const struct setting *s)
{
    if (s->type == &type_duration)
        return time_units;
    return strcmp(s->unit, "bytes") == 0 ? byte_units : no_units;
}

static void *field_of(const struct setting *s, struct config *config)
{
    return (char *)config + s->offset;
}

static const void *value_of(const struct setting *s, const struct config *config)
{
    return (const char *)config + s->offset;
}

/* A whole number and its unit, within the setting's range. */
static const char *parse_amount(const struct setting *s, const char *text, uint64_t *out)
{
    const char *unknown = s->type == &type_duration ? "is no duration" : "is no whole number";
    const struct unit *unit = units_of(s);
    size_t digits = strspn(text, "0123456789");
    uint64_t amount = 0;
    bool over = false;

    for (size_t i = 0; i < digits; i++) {
        over |= __builtin_mul_overflow(amount, 10u, &amount);
        over |= __builtin_add_overflow(amount, (uint64_t)(text[i] - '0'), &amount);
    }
    while (unit->name && strcmp(unit->name, text + digits) != 0)
        unit++;
    if (digits == 0 || !unit->name)
        return unknown;
    over |= __builtin_mul_overflow(amount, unit->factor, &amount);
    if (over || amount > s->most)
        return "is too large";
    if (amount < s->least)
        return "is too small";
    *out = amount;
    return NULL;
}

/* In the largest unit that leaves a whole number. */
static int format_ms(uint64_t ms, char *out, size_t size)
{
    const struct unit *unit = time_units;

    while (unit[1].name && ms > 0 && ms % unit[1].factor == 0)
        unit++;
    return snprintf(out, size, "%" PRIu64 "%s", ms / unit->factor, unit->name);
}

static const char *parse_duration(const struct setting *s, const char *text, struct config *config)
{
    uint64_t ms;
    const char *why = parse_amount(s, text, &ms);

    if (!why)
        *(uint32_t *)field_of(s, config) = (uint32_t)ms;
    return why;
}

static void print_duration(const struct setting *s, const struct config *config, FILE *out)
{
    char text[32];

    format_ms(*(const uint32_t *)value_of(s, config), text, sizeof(text));
    fputs(text, out);
}

const char *config_duration(const char *text, uint32_t least_ms, uint32_t most_ms, uint32_t *out_ms)
{
    const struct setting s = {.type = &type_duration, .least = least_ms, .most = most_ms};
    uint64_t ms;
    const char *why = parse_amount(&s, text, &ms);

    if (!why)
        *out_ms = (uint32_t)ms;
    return why;
}

const char *config_number(const char *text, uint32_t least, uint32_t most, uint32_t *out_number)
{
    const struct setting s = {.type = &type_number, .unit = "", .least = least, .most = most};
    uint64_t number;
    const char *why = parse_amount(&s, text, &number);

    if (!why)
        *out_number = (uint32_t)number;
    return why;
}

void config_duration_text(uint32_t ms, char out[CONFIG_TEXT_MAX])
{
    format_ms(ms, out, CONFIG_TEXT_MAX);
}

static const char *parse_number(const struct setting *s, const char *text, struct config *config)
{
    return parse_amount(s, text, field_of(s, config));
}

static void print_number(const struct setting *s, const struct config *config, FILE *out)
{
    fprintf(out, "%" PRIu64, *(const uint64_t *)value_of(s, config));
}

void config_allowed(const struct setting *s, char out[CONFIG_TEXT_MAX])
{
    char least[32], most[32];

    if (s->allowed) {
        snprintf(out, CONFIG_TEXT_MAX, "%s", s->allowed);
    } else if (s->type == &type_duration) {
        format_ms(s->least, least, sizeof(least));
        format_ms(s->most, most, sizeof(most));
        snprintf(out, CONFIG_TEXT_MAX, "%s to %s, as a whole number of ms, s, m or h", least, most);
    } else {
        snprintf(out, CONFIG_TEXT_MAX, "%" PRIu64 " to %" PRIu64 "%s", s->least, s->most,
                 units_of(s) == byte_units ? " bytes, also as KiB, MiB or GiB" : "");
    }
}

static const char *parse_bool(const struct setting *s, const char *text, struct config *config)
{
    bool yes = strcmp(text, "true") == 0;

    if (!yes && strcmp(text, "false") != 0)
        return "is neither true nor false";
    *(bool *)field_of(s, config) = yes;
    return NULL;
}

static void print_bool(const struct setting *s, const struct config *config, FILE *out)
{
    fputs(*(const bool *)value_of(s, config) ? "true" : "false", out);
}

/* The value is an enum that counts the words; all enums here have the size of an unsigned. */
_Static_assert(sizeof(enum config_maps) == sizeof(unsigned), "enums are unsigned");
_Static_assert(sizeof(enum log_level) == sizeof(unsigned), "enums are unsigned");
_Static_assert(sizeof(enum log_format) == sizeof(unsigned), "enums are unsigned");
_Static_assert(sizeof(enum forward_records) == sizeof(unsigned), "enums are unsigned");

static const char *parse_word(const struct setting *s, const char *text, struct config *config)
{
    for (unsigned i = 0; s->words[i]; i++) {
        if (strcmp(s->words[i], text) == 0) {
            memcpy(field_of(s, config), &i, sizeof(i));
            return NULL;
        }
    }
    return "is none of the words meant";
}

static void print_word(const struct setting *s, const struct config *config, FILE *out)
{
    unsigned i;

    memcpy(&i, value_of(s, config), sizeof(i));
    fputs(s->words[i], out);
}

static const char *parse_peer_id(const struct setting *s, const char *text, struct config *config)
{
    size_t len = strlen(text);

    if (len > LIMIT_PEER_ID)
        return "is too long";
    /* The id is the name of a folder too. */
    if (strcmp(text, ".") == 0 || strcmp(text, "..") == 0 || !peer_id_valid(text, len))
        return "is no peer id";
    memcpy(config->peer_id, text, len + 1);
    return NULL;
}

static void print_peer_id(const struct setting *s, const struct config *config, FILE *out)
{
    fprintf(out, "\"%s\"", config->peer_id);
}

bool config_peer_id_of_host(const char *host, char out_peer_id[LIMIT_PEER_ID + 1])
{
    size_t len = strnlen(host, LIMIT_PEER_ID);

    /* "(none)" is what Linux calls a host that was given no name. */
    if (len == 0 || strcmp(host, "(none)") == 0 || strcmp(host, ".") == 0 ||
        strcmp(host, "..") == 0)
        return false;
    for (size_t i = 0; i < len; i++)
        out_peer_id[i] = peer_id_valid(host + i, 1) ? host[i] : '-';
    out_peer_id[len] = '\0';
    return true;
}

/* The canonical text of a literal; v4-mapped addresses as v4. */
static bool canon_ip(const char *in, bool v6, char out[LIMIT_IP_TEXT])
{
    struct in6_addr a6;
    struct in_addr a4;

    if (!v6)
        return inet_pton(AF_INET, in, &a4) == 1 && inet_ntop(AF_INET, &a4, out, LIMIT_IP_TEXT);
    if (inet_pton(AF_INET6, in, &a6) != 1)
        return false;
    if (IN6_IS_ADDR_V4MAPPED(&a6))
        return inet_ntop(AF_INET, &a6.s6_addr[12], out, LIMIT_IP_TEXT);
    return inet_ntop(AF_INET6, &a6, out, LIMIT_IP_TEXT);
}

const char *config_listen(const char *text, char out_host[LIMIT_IP_TEXT], uint16_t *out_port)
{
    const char *colon = strrchr(text, ':'), *host = text;
    char ip[LIMIT_IP_TEXT] = "", canon[LIMIT_IP_TEXT] = "";
    size_t digits, len;
    unsigned long port;
    bool v6;

    if (!colon || strchr(colon, ']'))
        return "has no port";
    digits = strspn(colon + 1, "0123456789");
    port = digits >= 1 && digits <= 5 ? strtoul(colon + 1, NULL, 10) : ULONG_MAX;
    if (colon[1 + digits] != '\0' || port > UINT16_MAX)
        return "has no port from 0 to 65535";
    len = (size_t)(colon - text);
    v6 = len >= 2 && host[0] == '[' && host[len - 1] == ']';
    if (v6) {
        host++;
        len -= 2;
    }
    if (!v6 && memchr(host, ':', len))
        return "has too many colons (an IPv6 address stands in brackets)";
    if (len >= sizeof(ip))
        return "has no IP address before its port";
    memcpy(ip, host, len);
    if ((v6 || len > 0) && !canon_ip(ip, v6, canon))
        return "has no IP address before its port";
    memcpy(out_host, canon, sizeof(canon));
    *out_port = (uint16_t)port;
    return NULL;
}

static const char *parse_bind(const struct setting *s, const char *text, struct config *config)
{
    return config_listen(text, config->bind_host, &config->bind_port);
}

static void print_bind(const struct setting *s, const struct config *config, FILE *out)
{
    bool v6 = strchr(config->bind_host, ':');

    fprintf(out, v6 ? "\"[%s]:%u\"" : "\"%s:%u\"", config->bind_host, config->bind_port);
}

static const char *parse_admin(const struct setting *s, const char *text, struct config *config)
{
    config->admin = strcmp(text, "off") != 0;
    return config->admin ? config_listen(text, config->admin_host, &config->admin_port) : NULL;
}

static void print_admin(const struct setting *s, const struct config *config, FILE *out)
{
    bool v6 = strchr(config->admin_host, ':');

    if (!config->admin)
        fputs("off", out);
    else
        fprintf(out, v6 ? "\"[%s]:%u\"" : "\"%s:%u\"", config->admin_host, config->admin_port);
}

static const char *parse_dir(const struct setting *s, const char *text, struct config *config)
{
    size_t len = strlen(text);

    while (len > 1 && text[len - 1] == '/')
        len--;
    if (text[0] != '/' || len == 1)
        return "is no absolute path of a folder";
    if (len > DIR_BYTES)
        return "is too long: a socket's path has 108 bytes, of which 24 are for the names in it";
    for (size_t i = 0; i < len; i++) {
        if (text[i] < 0x20 || text[i] > 0x7e)
            return "has bytes that are not printable ASCII";
    }
    memcpy(config->runtime_dir, text, len);
    config->runtime_dir[len] = '\0';
    return NULL;
}

void config_print_quoted(const char *text, FILE *out)
{
    fputc('"', out);
    for (const char *c = text; *c; c++)
        fprintf(out, *c == '"' || *c == '\\' ? "\\%c" : "%c", *c);
    fputc('"', out);
}

static void print_dir(const struct setting *s, const struct config *config, FILE *out)
{
    config_print_quoted(config->runtime_dir, out);
}

static const char *parse_file(const struct setting *s, const char *text, struct config *config)
{
    size_t len = strlen(text);

    if (len >= CONFIG_PATH)
        return "is too long";
    for (size_t i = 0; i < len; i++) {
        if (text[i] < 0x20 || text[i] > 0x7e)
            return "has bytes that are not printable ASCII";
    }
    memcpy(field_of(s, config), text, len + 1);
    return NULL;
}

static void print_file(const struct setting *s, const struct config *config, FILE *out)
{
    config_print_quoted(value_of(s, config), out);
}

const struct setting_type type_peer_id = {parse_peer_id, print_peer_id};
const struct setting_type type_bind = {parse_bind, print_bind};
const struct setting_type type_admin = {parse_admin, print_admin};
const struct setting_type type_bool = {parse_bool, print_bool};
const struct setting_type type_word = {parse_word, print_word};
const struct setting_type type_duration = {parse_duration, print_duration};
const struct setting_type type_number = {parse_number, print_number};
const struct setting_type type_dir = {parse_dir, print_dir};
const struct setting_type type_file = {parse_file, print_file};
