/* Canonical names: a table, and properties over random bytes. */
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "base/random.h"
#include "wire/name.h"

#define A10 "aaaaaaaaaa"
#define A63 A10 A10 A10 A10 A10 A10 "aaa"
#define N250 A63 "." A63 "." A63 "." A10 A10 A10 A10 A10 "aaaaaaaa" /* 3 * 64 + 58 */

static const struct {
    const char *in, *out; /* out NULL: refused */
    enum name_error error;
} cases[] = {
    /* as it is */
    {"web", "web", 0},
    {"a", "a", 0},
    {"0", "0", 0},
    {"example-app", "example-app", 0},
    {"under_score", "under_score", 0},
    {"-", "-", 0},
    {"_dns-sd._udp.example.com", "_dns-sd._udp.example.com", 0},
    {"8080", "8080", 0},
    {"127.1", "127.1", 0},
    {"1.2.3", "1.2.3", 0},
    {"1.2.3.4.5", "1.2.3.4.5", 0},
    {"1.2.3.4a", "1.2.3.4a", 0},
    {"xn--bcher-kva.example", "xn--bcher-kva.example", 0},
    /* upper case, trailing dot, port: equal to the plain name */
    {"WEB", "web", 0},
    {"Example.COM", "example.com", 0},
    {"example.com.", "example.com", 0},
    {"web:80", "web", 0},
    {"EXAMPLE.com.:65535", "example.com", 0},
    {"web:1", "web", 0},
    {"web:00080", "web", 0},
    /* wildcards lead, or are none */
    {"*.example.com", "*.example.com", 0},
    {"*.Example.COM.:443", "*.example.com", 0},
    {"*.a", "*.a", 0},
    {"*", NULL, NAME_E_CHAR},
    {"*.", NULL, NAME_E_CHAR},
    {"*:80", NULL, NAME_E_CHAR},
    {"*a.example", NULL, NAME_E_CHAR},
    {"a*.example", NULL, NAME_E_CHAR},
    {"*.*.example", NULL, NAME_E_CHAR},
    {"a.*.example", NULL, NAME_E_CHAR},
    {"example.*", NULL, NAME_E_CHAR},
    {"**.example", NULL, NAME_E_CHAR},
    {"*..example", NULL, NAME_E_LABEL},
    {"*..", NULL, NAME_E_CHAR},
    {"*.1.2.3.4", NULL, NAME_E_LITERAL},
    /* nothing there */
    {"", NULL, NAME_E_EMPTY},
    {".", NULL, NAME_E_EMPTY},
    {":80", NULL, NAME_E_EMPTY},
    {".:80", NULL, NAME_E_EMPTY},
    /* labels */
    {"..", NULL, NAME_E_LABEL},
    {".a", NULL, NAME_E_LABEL},
    {"a..b", NULL, NAME_E_LABEL},
    {"a..", NULL, NAME_E_LABEL},
    {A63, A63, 0},
    {A63 "a", NULL, NAME_E_LONG},
    {"b." A63 ".c", "b." A63 ".c", 0},
    {"b." A63 "a.c", NULL, NAME_E_LONG},
    /* sizes */
    {N250 ".aa", N250 ".aa", 0},
    {N250 ".aa.", N250 ".aa", 0},
    {N250 ".aa.:65535", N250 ".aa", 0},
    {N250 ".aaa", NULL, NAME_E_LONG},
    {"*." N250 "a", "*." N250 "a", 0},
    {"*." N250 "aa", NULL, NAME_E_LONG},
    /* ports that are none */
    {"web:", NULL, NAME_E_CHAR},
    {"web:0", NULL, NAME_E_CHAR},
    {"web:65536", NULL, NAME_E_CHAR},
    {"web:65537", NULL, NAME_E_CHAR},
    {"web:99999", NULL, NAME_E_CHAR},
    {"web:000080", NULL, NAME_E_CHAR},
    {"web:http", NULL, NAME_E_CHAR},
    {"web:+80", NULL, NAME_E_CHAR},
    {"web:80:81", NULL, NAME_E_CHAR},
    {"web:8 0", NULL, NAME_E_CHAR},
    /* bytes that no name has */
    {"a b", NULL, NAME_E_CHAR},
    {" a", NULL, NAME_E_CHAR},
    {"a\t", NULL, NAME_E_CHAR},
    {"a\n", NULL, NAME_E_CHAR},
    {"a/b", NULL, NAME_E_CHAR},
    {"user@host", NULL, NAME_E_CHAR},
    {"a,b", NULL, NAME_E_CHAR},
    {"a%41", NULL, NAME_E_CHAR},
    {"a#b", NULL, NAME_E_CHAR},
    {"b\xc3\xbc"
     "cher",
     NULL, NAME_E_CHAR},
    {"a\x7f", NULL, NAME_E_CHAR},
    {"[", NULL, NAME_E_CHAR},
    {"]", NULL, NAME_E_CHAR},
    {"[]", NULL, NAME_E_CHAR},
    {"[web]", NULL, NAME_E_CHAR},
    {"[web]:80", NULL, NAME_E_CHAR},
    {"a[::1]", NULL, NAME_E_CHAR},
    /* addresses are no names */
    {"1.2.3.4", NULL, NAME_E_LITERAL},
    {"1.2.3.4:80", NULL, NAME_E_LITERAL},
    {"1.2.3.4.", NULL, NAME_E_LITERAL},
    {"999.1.1.1", NULL, NAME_E_LITERAL},
    {"010.0.0.1", NULL, NAME_E_LITERAL},
    {"[::1]:80", NULL, NAME_E_LITERAL},
    {"[::1]", NULL, NAME_E_LITERAL},
    {"::1", NULL, NAME_E_LITERAL},
    {"::", NULL, NAME_E_LITERAL},
    {"2001:DB8::a:80", NULL, NAME_E_LITERAL},
    {"::ffff:192.0.2.1", NULL, NAME_E_LITERAL},
    {"[::ffff:192.0.2.1]:443", NULL, NAME_E_LITERAL},
    {"[::1]:99999", NULL, NAME_E_CHAR},
    {"[fe80::1%eth0]", NULL, NAME_E_CHAR},
};

Test(name, canonical_form_is_as_the_table_says)
{
    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        char out[LIMIT_NAME + 1] = "untouched";
        enum name_error error = name_canon(cases[i].in, strlen(cases[i].in), out);

        cr_expect_eq(error, cases[i].error, "\"%s\": %d", cases[i].in, error);
        cr_expect_str_eq(out, cases[i].out ? cases[i].out : "untouched", "\"%s\"", cases[i].in);
    }
}

Test(name, canonical_is_what_equals_its_own_form)
{
    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        bool expected = cases[i].out && strcmp(cases[i].in, cases[i].out) == 0;

        cr_expect_eq(name_is_canon(cases[i].in, strlen(cases[i].in)), expected, "%s", cases[i].in);
    }
}

Test(name, nul_is_a_byte_like_any_other_bad_one)
{
    char out[LIMIT_NAME + 1];

    cr_expect_eq(name_canon("a\0b", 3, out), NAME_E_CHAR);
    cr_expect_eq(name_canon("a\0", 2, out), NAME_E_CHAR);
    cr_expect_eq(name_canon("::1\0", 4, out), NAME_E_CHAR);
    cr_expect_eq(name_canon("[::1\0]", 6, out), NAME_E_CHAR);
    cr_expect_eq(name_canon(NULL, 0, out), NAME_E_EMPTY);
    cr_expect_not(name_is_canon("a\0b", 3));
    cr_expect_not(name_is_canon(NULL, 0));
}

Test(name, one_byte_is_a_name_or_not)
{
    static const char good[] = "abcdefghijklmnopqrstuvwxyz0123456789-_";

    for (int c = 1; c < 256; c++) {
        char in = (char)c;

        cr_expect_eq(name_is_canon(&in, 1), strchr(good, c) != NULL, "%02x", c);
    }
}

static uint64_t seed(void)
{
    const char *text = getenv("MESHD_TEST_SEED");
    uint64_t value = text ? strtoull(text, NULL, 0) : random_u64();

    fprintf(stderr, "MESHD_TEST_SEED=%llu\n", (unsigned long long)value);
    return value;
}

/* xorshift64*, so that a seed repeats a run. */
static uint64_t next(uint64_t *state)
{
    *state ^= *state >> 12;
    *state ^= *state << 25;
    *state ^= *state >> 27;
    return *state * 0x2545f4914f6cdd1du;
}

Test(name, canonical_form_of_a_canonical_form_is_itself)
{
    static const char common[] = "aZ09-_..::[]*%/ \n";
    uint64_t state = seed() | 1;
    unsigned good = 0;

    for (int i = 0; i < 300000; i++) {
        char in[40], once[LIMIT_NAME + 1], twice[LIMIT_NAME + 1];
        size_t len = next(&state) % (i % 2 ? 8 : sizeof(in));
        size_t usual = next(&state) % 3 ? 6 : sizeof(common) - 1;

        for (size_t at = 0; at < len; at++)
            in[at] = next(&state) % 64 ? common[next(&state) % usual] : (char)next(&state);
        if (name_canon(in, len, once) != NAME_OK)
            continue;
        good++;
        cr_assert_eq(name_canon(once, strlen(once), twice), NAME_OK, "%s", once);
        cr_assert_str_eq(once, twice);
        cr_assert(name_is_canon(once, strlen(once)));
        cr_assert(strlen(once) >= 1 && strlen(once) <= len);
    }
    cr_expect_gt(good, 10000, "the test tests something");
}

Test(name, case_dot_and_port_never_matter)
{
    static const char letters[] = "abcxyz019-_";
    uint64_t state = seed() | 1;

    for (int i = 0; i < 100000; i++) {
        char name[64], in[80], out[LIMIT_NAME + 1];
        size_t len = 0, labels = 1 + next(&state) % 4;

        name[len++] = 'n'; /* so that it is no address */
        for (size_t l = 0; l < labels; l++) {
            for (size_t n = 1 + next(&state) % 8; n > 0; n--)
                name[len++] = letters[next(&state) % (sizeof(letters) - 1)];
            name[len++] = '.';
        }
        name[--len] = '\0';
        for (size_t at = 0; at <= len; at++)
            in[at] = name[at] >= 'a' && next(&state) % 2 && name[at] <= 'z'
                         ? (char)(name[at] - 'a' + 'A')
                         : name[at];
        if (next(&state) % 2)
            strcat(in, ".");
        if (next(&state) % 2)
            snprintf(in + strlen(in), 8, ":%u", 1 + (unsigned)(next(&state) % 65535));
        cr_assert_eq(name_canon(in, strlen(in), out), NAME_OK, "%s", in);
        cr_assert_str_eq(out, name);
    }
}

Test(name, every_error_has_a_text)
{
    for (int e = NAME_OK; e <= NAME_E_LITERAL; e++)
        cr_expect(name_error_text(e) && name_error_text(e)[0]);
    cr_expect_str_eq(name_error_text(NAME_E_LABEL), "has an empty label");
}

Test(name, peer_id_is_1_to_64_bytes_of_its_alphabet)
{
    static const char good[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-";

    cr_expect(peer_id_valid("n1", 2));
    cr_expect(peer_id_valid(good, 64));
    cr_expect_not(peer_id_valid(good, 65));
    cr_expect_not(peer_id_valid("", 0));
    cr_expect_not(peer_id_valid(NULL, 0));
    for (int c = 0; c < 256; c++) {
        char in[3] = {'a', (char)c, 'b'};

        cr_expect_eq(peer_id_valid(in, 3), c != 0 && strchr(good, c) != NULL, "%02x", c);
    }
}

Test(name, patterns_match_runs_and_single_bytes)
{
    cr_expect(name_glob("*", ""));
    cr_expect(name_glob("*", "web"));
    cr_expect(name_glob("web", "web"));
    cr_expect(name_glob("w?b", "web"));
    cr_expect(name_glob("*-db*", "orders-db.eu"));
    cr_expect(name_glob("*a*b", "xaxbxab"));
    cr_expect(name_glob("?*", "x"));
    cr_expect_not(name_glob("", "web"));
    cr_expect_not(name_glob("?", ""));
    cr_expect_not(name_glob("web", "web2"));
    cr_expect_not(name_glob("web?", "web"));
    cr_expect_not(name_glob("*a*b", "xaxbxa"));
}
