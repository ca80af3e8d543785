#include <criterion/criterion.h>
#include "base/secret.h"

#define LEN 16u

Test(secret, secrets_are_equal_when_every_byte_is)
{
    uint8_t a[LEN + 1], b[LEN + 1];

    for (unsigned i = 0; i <= LEN; i++)
        a[i] = b[i] = (uint8_t)(i * 37);
    cr_expect(secret_equal(a, b, LEN));
    for (unsigned at = 0; at < LEN; at++) {
        for (unsigned bit = 0; bit < 8; bit++) {
            b[at] ^= (uint8_t)(1u << bit);
            cr_expect_not(secret_equal(a, b, LEN), "bit %u of byte %u", bit, at);
            b[at] = a[at];
        }
    }
    b[LEN] ^= 1;
    cr_expect(secret_equal(a, b, LEN), "what is behind them does not count");
    cr_expect(secret_equal(a, b, 0));
}
