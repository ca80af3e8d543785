/* config_ingress - the list of ports where clients connect. */
#include <arpa/inet.h>
#include <stdlib.h>
#include <string.h>
#include "daemon/config_parts.h"
#include "wire/name.h"

#define V4_BITS_AT 96u /* of a v4 address within its mapped form */

static const uint8_t v4_mapped[V4_BITS_AT / 8] = {[10] = 0xff, [11] = 0xff};

enum { FIELD_LISTEN, FIELD_NAME, FIELD_DEFAULT, FIELD_PROXY_FROM, FIELD_BARE_LF };

/* "*" and no host at all are every address. */
static const char *listen_parse(const char *text, struct config_ingress *port)
{
    char whole[CONFIG_TEXT_MAX + 1];

    if (text[0] == '*' && text[1] == ':')
        text++;
    snprintf(whole, sizeof(whole), text[0] && !text[strspn(text, "0123456789")] ? ":%s" : "%s",
             text);
    return config_listen(whole, port->host, &port->port);
}

static const char *ingress_from_text(const char *text, void *item)
{
    struct config_ingress *port = item;
    const char *equals = strchr(text, '=');
    char address[CONFIG_TEXT_MAX];

    if (strlen(text) >= sizeof(address))
        return "is too long";
    snprintf(address, sizeof(address), "%.*s", equals ? (int)(equals - text) : -1, text);
    if (equals &&
        (strchr(equals, ':') || name_canon(equals + 1, strlen(equals + 1), port->name) != NAME_OK))
        return "has no service's name behind its '='";
    return listen_parse(address, port);
}

/* A literal as v4-mapped bytes, and how many of their bits a prefix of it leaves out in front. */
static bool network_ip(const char *text, uint8_t ip[16], unsigned *out_before)
{
    *out_before = 0;
    if (inet_pton(AF_INET6, text, ip) == 1)
        return true;
    memcpy(ip, v4_mapped, sizeof(v4_mapped));
    *out_before = V4_BITS_AT;
    return inet_pton(AF_INET, text, ip + sizeof(v4_mapped)) == 1;
}

/* "ip" or "ip/bits". */
static const char *network_parse(char *text, struct forward_network *out)
{
    char *slash = strchr(text, '/');
    const char *digits = slash ? slash + 1 : "";
    unsigned before, bits;

    if (slash)
        *slash = '\0';
    if (!network_ip(text, out->ip, &before))
        return "has what is no IP address";
    bits = 128 - before;
    if (slash) {
        size_t n = strspn(digits, "0123456789");

        if (n == 0 || n > 3 || digits[n] || (unsigned)atoi(digits) > bits)
            return "has a '/' without a number of bits";
        bits = (unsigned)atoi(digits);
    }
    out->bits = (uint8_t)(before + bits);
    for (unsigned i = out->bits; i < 128; i++) {
        if (out->ip[i / 8] & (0x80u >> i % 8))
            return "has an address with bits set behind those that count";
    }
    return NULL;
}

static const char *networks_parse(const char *text, struct config_ingress *port)
{
    char copy[CONFIG_TEXT_MAX], *next = copy, *one;
    const char *why = NULL;

    snprintf(copy, sizeof(copy), "%s", text);
    while (!why && (one = config_next_word(&next)) != NULL) {
        if (port->n_proxy_from == CONFIG_NETWORKS_MAX)
            return "has too many networks";
        why = network_parse(one, &port->proxy_from[port->n_proxy_from++]);
    }
    return why;
}

static const char *service_name(const char *text, char out_name[LIMIT_NAME + 1])
{
    enum name_error error;

    if (strchr(text, ':'))
        return "has a colon: a port belongs to listen";
    error = name_canon(text, strlen(text), out_name);
    return error == NAME_OK ? NULL : name_error_text(error);
}

static const char *ingress_from_field(unsigned field, const char *text, void *item)
{
    struct config_ingress *port = item;

    switch (field) {
    case FIELD_LISTEN:
        return listen_parse(text, port);
    case FIELD_NAME:
        return service_name(text, port->name);
    case FIELD_DEFAULT:
        return service_name(text, port->fallback);
    case FIELD_PROXY_FROM:
        return networks_parse(text, port);
    default:
        port->bare_lf = strcmp(text, "true") == 0;
        return port->bare_lf || strcmp(text, "false") == 0 ? NULL : "is neither true nor false";
    }
}

static const char *ingress_check(const void *item)
{
    const struct config_ingress *port = item;

    return port->name[0] && port->fallback[0]
               ? "has a name and a default; allowed: a name, which gets every client, or a "
                 "default, which gets those that name no service"
               : NULL;
}

static int ingress_compare(const void *a, const void *b)
{
    const struct config_ingress *left = a, *right = b;
    int r = strcmp(left->host, right->host);

    return r ? r : (left->port > right->port) - (left->port < right->port);
}

/* Any free port is another one each time. */
static bool ingress_may_repeat(const void *item)
{
    return ((const struct config_ingress *)item)->port == 0;
}

static void ingress_label(const void *item, char out[CONFIG_TEXT_MAX])
{
    const struct config_ingress *port = item;

    snprintf(out, CONFIG_TEXT_MAX, strchr(port->host, ':') ? "[%s]:%u" : "%s:%u",
             port->host[0] ? port->host : "*", port->port);
}

static void networks_text(const struct config_ingress *port, char out[CONFIG_TEXT_MAX])
{
    char ip[INET6_ADDRSTRLEN];
    size_t used = 0;

    out[0] = '\0';
    for (const struct forward_network *n = port->proxy_from;
         n < port->proxy_from + port->n_proxy_from; n++) {
        bool v4 = n->bits >= V4_BITS_AT && memcmp(n->ip, v4_mapped, sizeof(v4_mapped)) == 0;

        inet_ntop(v4 ? AF_INET : AF_INET6, v4 ? n->ip + 12 : n->ip, ip, sizeof(ip));
        used += (size_t)snprintf(out + used, CONFIG_TEXT_MAX - used, "%s%s/%u", used ? "," : "", ip,
                                 v4 ? n->bits - V4_BITS_AT : n->bits);
    }
}

static void ingress_field_text(unsigned field, const void *item, char out[CONFIG_TEXT_MAX])
{
    const struct config_ingress *port = item;

    if (field == FIELD_LISTEN)
        ingress_label(item, out);
    else if (field == FIELD_PROXY_FROM)
        networks_text(port, out);
    else
        snprintf(out, CONFIG_TEXT_MAX, "%s",
                 field == FIELD_NAME      ? port->name
                 : field == FIELD_DEFAULT ? port->fallback
                 : port->bare_lf          ? "true"
                                          : "");
}

const struct list_type list_ingress = {
    .id = LIST_INGRESS,
    .item_size = sizeof(struct config_ingress),
    .items_at = offsetof(struct config, ingress),
    .n_at = offsetof(struct config, n_ingress),
    .n_required = 1,
    .fields = {{"listen", "port, ip:port, [v6]:port or *:port, the port from 0 (any free one) to "
                          "65535"},
               {"name", LIST_NAME_ALLOWED},
               {"default", LIST_NAME_ALLOWED},
               {"proxy_from", "1 to 22 of ip or ip/bits with commas between"},
               {"bare_lf", "true or false"}},
    .from_text = ingress_from_text,
    .from_field = ingress_from_field,
    .check = ingress_check,
    .compare = ingress_compare,
    .may_repeat = ingress_may_repeat,
    .label = ingress_label,
    .field_text = ingress_field_text,
};
