/* Which addresses are one source. */
#include <criterion/criterion.h>
#include <arpa/inet.h>
#include <string.h>
#include "base/origin.h"

static bool one(const char *a, const char *b)
{
    struct in6_addr left, right;

    cr_assert_eq(inet_pton(AF_INET6, a, &left), 1);
    cr_assert_eq(inet_pton(AF_INET6, b, &right), 1);
    left = origin_of(&left);
    right = origin_of(&right);
    return memcmp(&left, &right, sizeof(left)) == 0;
}

Test(origin, all_of_a_64_is_one_source)
{
    cr_expect(one("2001:db8:1:2::1", "2001:db8:1:2:ffff:ffff:ffff:ffff"));
    cr_expect(one("fe80::1", "fe80::abcd:1"));
    cr_expect_not(one("2001:db8:1:2::1", "2001:db8:1:3::1"));
    cr_expect_not(one("2001:db8:1:2::1", "2001:db9:1:2::1"));
}

Test(origin, each_v4_address_is_one_also_behind_a_nat64)
{
    cr_expect(one("::ffff:10.0.0.1", "::ffff:10.0.0.1"));
    cr_expect_not(one("::ffff:10.0.0.1", "::ffff:10.0.0.2"));
    cr_expect_not(one("64:ff9b::10.0.0.1", "64:ff9b::10.0.0.2"));
    cr_expect_not(one("::ffff:10.0.0.1", "64:ff9b::10.0.0.1"));
    cr_expect_not(one("::ffff:0.0.0.1", "::1"));
}
