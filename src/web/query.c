/* query - see query.h. */
#include "web/query.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include "wire/check.h"
#include "wire/name.h"

static bool is(const char *text, size_t len, const char *word)
{
    return strlen(word) == len && memcmp(text, word, len) == 0;
}

static bool printable(const char *text, size_t len)
{
    for (size_t i = 0; i < len; i++)
        if ((unsigned char)text[i] <= ' ' || (unsigned char)text[i] == 0x7f)
            return false;
    return utf8_valid((const uint8_t *)text, len);
}

static bool take_name(struct query *query, const char *value, size_t len, char *out_why)
{
    enum name_error error = name_canon(value, len, query->name);

    if (error == NAME_OK)
        return true;
    snprintf(out_why, QUERY_WHY,
             "the name %s; allowed: "
             "labels of a-z 0-9 - _ with dots between, 253 bytes in all",
             name_error_text(error));
    return false;
}

static bool take_text(char *out, size_t size, const char *what, const char *value, size_t len,
                      char *out_why)
{
    if (!len || len >= size || !printable(value, len)) {
        snprintf(out_why, QUERY_WHY, "%s: allowed: 1 to %zu bytes of UTF-8 without spaces", what,
                 size - 1);
        return false;
    }
    memcpy(out, value, len);
    out[len] = '\0';
    return true;
}

static bool take_state(struct query *query, const char *value, size_t len, char *out_why)
{
    static const char *const words[] = {
        [STATE_CONNECTED] = "connected",
        [STATE_STALE] = "stale",
        [STATE_DRAINING] = "draining",
        [STATE_UNHEALTHY] = "unhealthy",
    };

    for (unsigned i = STATE_CONNECTED; i < sizeof words / sizeof *words; i++) {
        if (is(value, len, words[i])) {
            query->state = (enum query_state)i;
            return true;
        }
    }
    snprintf(out_why, QUERY_WHY, "state: allowed: connected, stale, draining or unhealthy");
    return false;
}

static enum query_arg arg_of(const char *key, size_t len, unsigned allowed)
{
    if (is(key, len, "name"))
        return (enum query_arg)(allowed & (QUERY_NAME | QUERY_GLOB));
    if (is(key, len, "peer"))
        return (enum query_arg)(allowed & QUERY_PEER);
    if (is(key, len, "state"))
        return (enum query_arg)(allowed & QUERY_STATE);
    return (enum query_arg)0;
}

bool query_take(struct query *query, unsigned allowed, const char *key, size_t key_len,
                const char *value, size_t value_len, char out_why[QUERY_WHY])
{
    enum query_arg arg = arg_of(key, key_len, allowed);

    if (!arg) {
        snprintf(out_why, QUERY_WHY, "an argument that is not known here; allowed: %s",
                 allowed & QUERY_NAME   ? "name"
                 : allowed & QUERY_GLOB ? "name (a glob), peer, state"
                                        : "none");
        return false;
    }
    if (query->given & arg) {
        snprintf(out_why, QUERY_WHY, "an argument is there twice; allowed: once");
        return false;
    }
    query->given |= arg;
    switch (arg) {
    case QUERY_NAME:
        return take_name(query, value, value_len, out_why);
    case QUERY_GLOB:
        return take_text(query->name, sizeof query->name, "name", value, value_len, out_why);
    case QUERY_PEER:
        return take_text(query->peer, sizeof query->peer, "peer", value, value_len, out_why);
    case QUERY_STATE:
        return take_state(query, value, value_len, out_why);
    }
    return false;
}

/* What follows the name: nothing, or ":" and digits. */
static bool is_port(const char *text)
{
    return !*text || (*text == ':' && !text[1 + strspn(text + 1, "0123456789")]);
}

bool query_host_is_loopback(const char *host)
{
    size_t len = strcspn(host, ":");
    char text[INET6_ADDRSTRLEN];
    struct in6_addr v6;
    struct in_addr v4;

    if (*host == '[') { /* RFC 3986 3.2.2 */
        const char *end = strchr(host, ']');

        if (!end || (size_t)(end - host) > sizeof text || !is_port(end + 1))
            return false;
        snprintf(text, sizeof text, "%.*s", (int)(end - host - 1), host + 1);
        return inet_pton(AF_INET6, text, &v6) == 1 &&
               (IN6_IS_ADDR_LOOPBACK(&v6) || (IN6_IS_ADDR_V4MAPPED(&v6) && v6.s6_addr[12] == 127));
    }
    if (!is_port(host + len))
        return false;
    if (len == strlen("localhost") && strncasecmp(host, "localhost", len) == 0)
        return true;
    if (len >= sizeof text)
        return false;
    snprintf(text, sizeof text, "%.*s", (int)len, host);
    return inet_pton(AF_INET, text, &v4) == 1 && ntohl(v4.s_addr) >> 24 == 127;
}

/* Weakly: the "W/" of both sides does not count. */
bool query_tag_matches(const char *header, const char *tag)
{
    size_t len = strlen(tag);

    while (*header) {
        size_t n;

        header += strspn(header, " \t,");
        if (*header == '*')
            return true;
        if (strncmp(header, "W/", 2) == 0)
            header += 2;
        n = strcspn(header, ",");
        while (n && (header[n - 1] == ' ' || header[n - 1] == '\t'))
            n--;
        if (n == len && memcmp(header, tag, len) == 0)
            return true;
        header += strcspn(header, ",");
    }
    return false;
}
