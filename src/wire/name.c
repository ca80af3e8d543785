/* name - canonical names, and the addresses that stand beside them.
 *
 * A canonical name has no colon and no trailing dot, so the canonical form of one is itself. */
#include "wire/name.h"
#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#define PORT_DIGITS 5u

/* A byte as a canonical name spells it; 0 for those that none has. The dot is handled apart. */
static char fold(char c)
{
    if ((c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-' || c == '_')
        return c;
    return c >= 'A' && c <= 'Z' ? (char)(c - 'A' + 'a') : 0;
}

static bool is_digit(char c) { return c >= '0' && c <= '9'; }

/* 1 to 65535 in at most five digits; else 0. */
static uint16_t parse_port(const char *in, size_t len)
{
    unsigned port = 0;

    if (len < 1 || len > PORT_DIGITS)
        return 0;
    for (size_t i = 0; i < len; i++) {
        if (!is_digit(in[i]))
            return 0;
        port = port * 10 + (unsigned)(in[i] - '0');
    }
    return port <= UINT16_MAX ? (uint16_t)port : 0;
}

static bool parse_v6(const char *in, size_t len, struct in6_addr *out)
{
    char text[INET6_ADDRSTRLEN];

    if (len >= sizeof(text) || memchr(in, '\0', len))
        return false;
    memcpy(text, in, len);
    text[len] = '\0';
    return inet_pton(AF_INET6, text, out) == 1;
}

/* The texts stand in two forms: alone, and after "the name", where more than a name was given. */
#define NAME_ERRORS(X)                                                                             \
    X(NAME_OK, "is a name")                                                                        \
    X(NAME_E_EMPTY, "is empty")                                                                    \
    X(NAME_E_LONG, "has more than 253 bytes, or a label of more than 63")                          \
    X(NAME_E_CHAR, "has a character other than a-z, 0-9, '-', '_' and dots")                       \
    X(NAME_E_LABEL, "has an empty label")                                                          \
    X(NAME_E_LITERAL, "is an IP address")

const char *name_error_text(enum name_error error)
{
    static const char *const texts[] = {
#define X(code, text) [code] = text,
        NAME_ERRORS(X)
#undef X
    };
    return texts[error];
}

static const char *why_name(enum name_error error)
{
    static const char *const texts[] = {
#define X(code, text) [code] = "the name " text,
        NAME_ERRORS(X)
#undef X
    };
    return texts[error];
}

/* The rest of a name, after a leading "*.". Writes as it goes: the caller has the room. */
static enum name_error canon_labels(const char *in, size_t len, char *out)
{
    bool digits_only = true;
    size_t label = 0, dots = 0;

    for (size_t i = 0; i < len; i++) {
        char c = in[i];

        if (c == '.') {
            if (label == 0)
                return NAME_E_LABEL;
            label = 0;
            dots++;
        } else {
            c = fold(c);
            if (c == 0)
                return NAME_E_CHAR;
            if (++label > LIMIT_LABEL)
                return NAME_E_LONG;
            if (!is_digit(c))
                digits_only = false;
        }
        out[i] = c;
    }
    if (label == 0)
        return NAME_E_LABEL;
    /* Also 999.1.1.1 and 010.0.0.1, which some resolver somewhere takes for an address. */
    return digits_only && dots == 3 ? NAME_E_LITERAL : NAME_OK;
}

enum name_error name_canon(const char *in, size_t len, char out_name[LIMIT_NAME + 1])
{
    char name[LIMIT_NAME + 1];
    const char *colon = len > 0 ? memrchr(in, ':', len) : NULL;
    size_t start = 0;
    enum name_error error;
    struct in6_addr v6;

    if (colon) {
        if (parse_v6(in, len, &v6)) /* every colon of "::1" belongs to it */
            return NAME_E_LITERAL;
        if (in[len - 1] != ']') {
            if (parse_port(colon + 1, (size_t)(in + len - colon - 1)) == 0)
                return NAME_E_CHAR;
            len = (size_t)(colon - in);
        }
    }
    if (len >= 2 && in[0] == '[' && in[len - 1] == ']')
        return parse_v6(in + 1, len - 2, &v6) ? NAME_E_LITERAL : NAME_E_CHAR;
    if (len > 0 && in[len - 1] == '.')
        len--;
    if (len == 0)
        return NAME_E_EMPTY;
    if (len > LIMIT_NAME)
        return NAME_E_LONG;
    if (len > 2 && in[0] == '*' && in[1] == '.') {
        start = 2;
        memcpy(name, "*.", 2);
    }
    error = canon_labels(in + start, len - start, name + start);
    if (error == NAME_OK) {
        name[len] = '\0';
        memcpy(out_name, name, len + 1);
    }
    return error;
}

bool name_is_canon(const char *in, size_t len)
{
    char canon[LIMIT_NAME + 1];

    return len <= LIMIT_NAME && name_canon(in, len, canon) == NAME_OK && strlen(canon) == len &&
           memcmp(canon, in, len) == 0;
}

bool name_glob(const char *pattern, const char *text)
{
    const char *star = NULL, *mark = text;

    while (*text) {
        if (*pattern == '*') {
            star = pattern++;
            mark = text;
        } else if (*pattern == '?' || *pattern == *text) {
            pattern++;
            text++;
        } else if (star) {
            pattern = star + 1;
            text = ++mark;
        } else {
            return false;
        }
    }
    while (*pattern == '*')
        pattern++;
    return !*pattern;
}

bool peer_id_valid(const char *in, size_t len)
{
    if (len < 1 || len > LIMIT_PEER_ID)
        return false;
    for (size_t i = 0; i < len; i++) {
        if (fold(in[i]) == 0 && in[i] != '.')
            return false;
    }
    return true;
}

/* A host that is not bracketed: a name, or an IPv4 address. A trailing dot stays: it tells the
 * resolver to search no domains. */
static int host_canon(const char *in, size_t len, char out_host[LIMIT_NAME + 1])
{
    char text[LIMIT_NAME + 1];
    struct in_addr v4;
    enum name_error error;

    if (len < 1 || len > LIMIT_NAME || in[0] == '*' || memchr(in, ':', len))
        return -EINVAL;
    error = name_canon(in, len, text);
    if (error == NAME_E_LITERAL) {
        memcpy(text, in, len);
        text[len] = '\0';
        if (inet_pton(AF_INET, text, &v4) != 1)
            return -EINVAL;
    } else if (error != NAME_OK) {
        return -EINVAL;
    } else if (in[len - 1] == '.') {
        memcpy(text + len - 1, ".", 2);
    }
    memcpy(out_host, text, strlen(text) + 1);
    return 0;
}

int addr_split(const char *in, size_t len, char out_host[LIMIT_NAME + 1], uint16_t *out_port)
{
    const char *colon = len > 0 ? memrchr(in, ':', len) : NULL;
    struct in6_addr v6;
    size_t host_len;
    uint16_t port;
    int r;

    if (!colon || colon == in)
        return -EINVAL;
    host_len = (size_t)(colon - in);
    port = parse_port(colon + 1, len - host_len - 1);
    if (port == 0)
        return -EINVAL;
    if (in[0] == '[') {
        if (in[host_len - 1] != ']' || !parse_v6(in + 1, host_len - 2, &v6))
            return -EINVAL;
        inet_ntop(AF_INET6, &v6, out_host, LIMIT_NAME + 1);
    } else {
        r = host_canon(in, host_len, out_host);
        if (r < 0)
            return r;
    }
    *out_port = port;
    return 0;
}

int backend_canon(const char *in, size_t len, char out_backend[LIMIT_BACKEND + 1])
{
    char host[LIMIT_NAME + 1];
    uint16_t port;
    int r = addr_split(in, len, host, &port);

    if (r < 0)
        return r;
    snprintf(out_backend, LIMIT_BACKEND + 1, strchr(host, ':') ? "[%s]:%u" : "%s:%u", host, port);
    return 0;
}

int service_addr_parse(const char *in, size_t len, char out_name[LIMIT_NAME + 1],
                       char out_backend[LIMIT_BACKEND + 1], const char **out_why)
{
    const char *first = len > 0 ? memchr(in, ':', len) : NULL;
    const char *last = len > 0 ? memrchr(in, ':', len) : NULL;
    const char *backend = in, *middle;
    char name[LIMIT_NAME + 1], canon[LIMIT_BACKEND + 1];
    enum name_error error;
    uint16_t port;

    *out_why = NULL;
    if (len == 0)
        *out_why = "is empty";
    else if (in[0] == '[')
        *out_why = "needs a name in front of an IPv6 address";
    else if (!first)
        *out_why = "has no port";
    if (*out_why)
        return -EINVAL;

    error = name_canon(in, (size_t)(first - in), name);
    if (first != last)
        backend = first + 1;
    else if (error == NAME_E_LITERAL)
        *out_why = "needs a name in front of an IP address";
    else if (error == NAME_OK && name[0] == '*')
        *out_why = "needs a host behind a wildcard";
    if (!*out_why && error != NAME_OK)
        *out_why = why_name(error);
    if (*out_why)
        return -EINVAL;

    middle = memchr(backend, ':', (size_t)(last - backend));
    port = parse_port(last + 1, (size_t)(in + len - last - 1));
    if (backend[0] != '[' && middle)
        *out_why = "has too many colons (an IPv6 address stands in brackets)";
    else if (in[len - 1] == ']' || port == 0)
        *out_why = "has no port from 1 to 65535";
    else if (backend_canon(backend, (size_t)(in + len - backend), canon) < 0)
        *out_why = backend[0] == '[' ? "has no IPv6 address in its brackets"
                                     : "has no host or IP address before the port";
    if (*out_why)
        return -EINVAL;
    memcpy(out_name, name, strlen(name) + 1);
    memcpy(out_backend, canon, strlen(canon) + 1);
    return 0;
}

bool check_path_valid(const char *path)
{
    size_t len = 0;

    while (path[len] > 0x20 && path[len] < 0x7f)
        len++;
    return path[0] == '/' && path[len] == '\0' && len <= LIMIT_CHECK_PATH;
}

int check_parse(const char *text, const char **out_path, const char **out_why)
{
    static const char http[] = "http:";
    const char *path = text + sizeof(http) - 1;

    if (strcmp(text, "tcp") == 0) {
        *out_path = NULL;
        return 0;
    }
    if (strncmp(text, http, sizeof(http) - 1) != 0)
        *out_why = "is neither tcp nor http:/path";
    else if (path[0] != '/')
        *out_why = "has no path that begins with / behind http:";
    else if (path[1] == '/') /* which would be asked for as a path, in vain */
        *out_why = "has a URL where a path belongs; the backend's address is known";
    else if (!check_path_valid(path))
        *out_why = "has a path of more than 256 bytes, or with bytes that are not printable ASCII";
    else {
        *out_path = path;
        return 0;
    }
    return -EINVAL;
}
