/* Addresses: host and port, backends, and entries of SERVICE_ADDR. */
#include <criterion/criterion.h>
#include <errno.h>
#include <string.h>
#include "wire/name.h"

#define A10 "aaaaaaaaaa"
#define A50 A10 A10 A10 A10 A10
#define HOST253 A50 ".aaaaaaaaa." A50 "." A50 "." A50 "." A10 A10 A10 "aaaaaaaaa"

static const struct {
    const char *in, *host, *backend; /* NULL: refused */
    uint16_t port;
} addresses[] = {
    {"127.0.0.1:80", "127.0.0.1", "127.0.0.1:80", 80},
    {"web:1", "web", "web:1", 1},
    {"WEB.Example:65535", "web.example", "web.example:65535", 65535},
    {"web.example.:80", "web.example.", "web.example.:80", 80},
    {"web:0080", "web", "web:80", 80},
    {"[::1]:80", "::1", "[::1]:80", 80},
    {"[2001:DB8:0:0:1:0:0:1]:443", "2001:db8::1:0:0:1", "[2001:db8::1:0:0:1]:443", 443},
    {"[::FFFF:192.0.2.1]:443", "::ffff:192.0.2.1", "[::ffff:192.0.2.1]:443", 443},
    {HOST253 ":65535", HOST253, HOST253 ":65535", 65535},
    {HOST253 "a:65535", NULL, NULL, 0},
    {HOST253 ".:65535", NULL, NULL, 0},
    {"", NULL, NULL, 0},
    {":", NULL, NULL, 0},
    {":80", NULL, NULL, 0},
    {"web", NULL, NULL, 0},
    {"web:", NULL, NULL, 0},
    {"web:0", NULL, NULL, 0},
    {"web:65536", NULL, NULL, 0},
    {"web:65616", NULL, NULL, 0}, /* 80 in 16 bits */
    {"web:4294967376", NULL, NULL, 0},
    {"web:-1", NULL, NULL, 0},
    {"web: 80", NULL, NULL, 0},
    {"web :80", NULL, NULL, 0},
    {"web:80 ", NULL, NULL, 0},
    {"web:80:81", NULL, NULL, 0},
    {"*.web:80", NULL, NULL, 0},
    {"*:80", NULL, NULL, 0},
    {".:80", NULL, NULL, 0},
    {"a..b:80", NULL, NULL, 0},
    {"::1:80", NULL, NULL, 0},
    {"[::1]", NULL, NULL, 0},
    {"[::1]:", NULL, NULL, 0},
    {"[::1]80", NULL, NULL, 0},
    {"[::1:80", NULL, NULL, 0},
    {"[]:80", NULL, NULL, 0},
    {"[:80", NULL, NULL, 0},
    {"]:80", NULL, NULL, 0},
    {"[1.2.3.4]:80", NULL, NULL, 0},
    {"[web]:80", NULL, NULL, 0},
    {"[fe80::1%eth0]:80", NULL, NULL, 0},
    {"256.0.0.1:80", NULL, NULL, 0},
    {"010.0.0.1:80", NULL, NULL, 0},
    {"127.0.0.1.:80", NULL, NULL, 0},
    {"w\xc3\xbc:80", NULL, NULL, 0},
};

Test(service_addr, address_is_split_as_the_table_says)
{
    for (size_t i = 0; i < sizeof(addresses) / sizeof(*addresses); i++) {
        char host[LIMIT_NAME + 1] = "untouched";
        uint16_t port = 7;
        int r = addr_split(addresses[i].in, strlen(addresses[i].in), host, &port);

        cr_expect_eq(r, addresses[i].host ? 0 : -EINVAL, "\"%s\"", addresses[i].in);
        if (r == 0)
            cr_expect(strcmp(host, addresses[i].host) == 0 && port == addresses[i].port, "%s: %s",
                      addresses[i].in, host);
        else
            cr_expect_eq(port, 7);
    }
}

Test(service_addr, backend_is_spelled_in_one_way)
{
    for (size_t i = 0; i < sizeof(addresses) / sizeof(*addresses); i++) {
        char once[LIMIT_BACKEND + 1] = "untouched", twice[LIMIT_BACKEND + 1];
        int r = backend_canon(addresses[i].in, strlen(addresses[i].in), once);

        cr_expect_eq(r, addresses[i].backend ? 0 : -EINVAL, "\"%s\"", addresses[i].in);
        cr_expect_str_eq(once, addresses[i].backend ? addresses[i].backend : "untouched");
        if (r == 0) {
            cr_expect_eq(backend_canon(once, strlen(once), twice), 0);
            cr_expect_str_eq(twice, once);
        }
    }
}

Test(service_addr, nul_ends_nothing)
{
    char backend[LIMIT_BACKEND + 1];

    cr_expect_eq(backend_canon("web\0:80", 7, backend), -EINVAL);
    cr_expect_eq(backend_canon("web:80\0", 7, backend), -EINVAL);
    cr_expect_eq(backend_canon("1.2.3.4\0:80", 11, backend), -EINVAL);
    cr_expect_eq(backend_canon("[::1\0]:80", 9, backend), -EINVAL);
    cr_expect_eq(backend_canon(NULL, 0, backend), -EINVAL);
}

static const struct {
    const char *in, *name, *backend;
} good[] = {
    {"web:127.0.0.1:80", "web", "127.0.0.1:80"},
    {"web:localhost:80", "web", "localhost:80"},
    {"Web.Example.COM.:DB:0080", "web.example.com", "db:80"},
    {"web:[::1]:80", "web", "[::1]:80"},
    {"web:[2001:DB8::0:1]:80", "web", "[2001:db8::1]:80"},
    {"*.example.com:10.0.0.1:443", "*.example.com", "10.0.0.1:443"},
    {"*.example.com:[::1]:443", "*.example.com", "[::1]:443"},
    {"shop.example.com:8080", "shop.example.com", "shop.example.com:8080"},
    {"Shop.Example.com.:8080", "shop.example.com", "shop.example.com.:8080"},
    {"db:5432", "db", "db:5432"},
};

Test(service_addr, good_entries_are_read)
{
    for (size_t i = 0; i < sizeof(good) / sizeof(*good); i++) {
        char name[LIMIT_NAME + 1], backend[LIMIT_BACKEND + 1];
        const char *why = "";

        cr_assert_eq(service_addr_parse(good[i].in, strlen(good[i].in), name, backend, &why), 0,
                     "%s %s", good[i].in, why);
        cr_expect_str_eq(name, good[i].name);
        cr_expect_str_eq(backend, good[i].backend);
    }
}

static const struct {
    const char *in, *why;
} bad[] = {
    {"", "is empty"},
    {"web", "has no port"},
    {"web:", "has no port from 1 to 65535"},
    {"web:http", "has no port from 1 to 65535"},
    {"web:localhost:", "has no port from 1 to 65535"},
    {"web:localhost:0", "has no port from 1 to 65535"},
    {"web:localhost:65536", "has no port from 1 to 65535"},
    {"web:localhost:http", "has no port from 1 to 65535"},
    {"web:localhost", "has no port from 1 to 65535"},
    {"web:[::1]", "has no port from 1 to 65535"},
    {":80", "the name is empty"},
    {":localhost:80", "the name is empty"},
    {"we b:localhost:80", "the name has a character other than a-z, 0-9, '-', '_' and dots"},
    {"a..b:localhost:80", "the name has an empty label"},
    {"1.2.3.4:localhost:80", "the name is an IP address"},
    {"1.2.3.4:80", "needs a name in front of an IP address"},
    {"[::1]:80", "needs a name in front of an IPv6 address"},
    {"*.example.com:80", "needs a host behind a wildcard"},
    {"web::80", "has no host or IP address before the port"},
    {"web:lo cal:80", "has no host or IP address before the port"},
    {"web:*.local:80", "has no host or IP address before the port"},
    {"web:1.2.3.400:80", "has no host or IP address before the port"},
    {"web:[]:80", "has no IPv6 address in its brackets"},
    {"web:[1.2.3.4]:80", "has no IPv6 address in its brackets"},
    {"web:[::1:80", "has no IPv6 address in its brackets"},
    {"web:::1:80", "has too many colons (an IPv6 address stands in brackets)"},
    {"web:a:b:80", "has too many colons (an IPv6 address stands in brackets)"},
};

Test(service_addr, bad_entries_are_refused_with_the_reason)
{
    for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
        char name[LIMIT_NAME + 1] = "untouched", backend[LIMIT_BACKEND + 1] = "untouched";
        const char *why = NULL;

        cr_expect_eq(service_addr_parse(bad[i].in, strlen(bad[i].in), name, backend, &why), -EINVAL,
                     "%s", bad[i].in);
        cr_expect_str_eq(why ? why : "(none)", bad[i].why, "%s: %s", bad[i].in, why);
        cr_expect_str_eq(name, "untouched");
        cr_expect_str_eq(backend, "untouched");
    }
}

Test(service_addr, a_check_is_tcp_or_a_path_of_http)
{
    static const struct {
        const char *text, *path, *why;
    } checks[] = {
        {"tcp", NULL, NULL},
        {"http:/", "/", NULL},
        {"http:/a?b=c#d%20", "/a?b=c#d%20", NULL},
        {"", NULL, "is neither tcp nor http:/path"},
        {"TCP", NULL, "is neither tcp nor http:/path"},
        {"tcp:80", NULL, "is neither tcp nor http:/path"},
        {"https:/a", NULL, "is neither tcp nor http:/path"},
        {"http:", NULL, "has no path that begins with / behind http:"},
        {"http:a", NULL, "has no path that begins with / behind http:"},
        {"http://host:80/up", NULL,
         "has a URL where a path belongs; the backend's address is known"},
        {"http:/a b", NULL,
         "has a path of more than 256 bytes, or with bytes that are not printable ASCII"},
        {"http:/\r\n", NULL,
         "has a path of more than 256 bytes, or with bytes that are not printable ASCII"},
        {"http:/\xc3\xa4", NULL,
         "has a path of more than 256 bytes, or with bytes that are not printable ASCII"},
    };
    char longest[LIMIT_CHECK_PATH + 2] = "/";
    const char *path, *why;

    for (size_t i = 0; i < sizeof(checks) / sizeof(*checks); i++) {
        path = why = NULL;
        cr_expect_eq(check_parse(checks[i].text, &path, &why), checks[i].why ? -EINVAL : 0);
        cr_expect(checks[i].path ? path && strcmp(path, checks[i].path) == 0 : !path);
        cr_expect(checks[i].why ? why && strcmp(why, checks[i].why) == 0 : !why, "%s: %s",
                  checks[i].text, why);
    }
    memset(longest + 1, 'x', LIMIT_CHECK_PATH - 1);
    cr_expect(check_path_valid(longest));
    longest[LIMIT_CHECK_PATH] = 'x';
    cr_expect_not(check_path_valid(longest));
}
