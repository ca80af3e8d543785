/* Each allocation in turn fails: then the rules are those that were. */
#include <criterion/criterion.h>
#include <errno.h>
#include <stdlib.h>
#include "policy/policy.h"

void *__real_calloc(size_t n, size_t size);
void *__wrap_calloc(size_t n, size_t size);

static long until_failure = -1; /* negative: none fails */

void *__wrap_calloc(size_t n, size_t size)
{
    if (until_failure >= 0 && until_failure-- == 0)
        return NULL;
    return __real_calloc(n, size);
}

Test(policy_memory, a_failed_change_leaves_the_rules_that_were)
{
    const char *const one[] = {"n1"}, *const two[] = {"n2"};
    const struct policy_rule first = {.name = "first", .peers = one, .n_peers = 1, .link = true};
    const struct policy_rule second = {.name = "second", .peers = two, .n_peers = 1, .link = true};
    struct policy_keeper *keeper = NULL;
    char rule[POLICY_RULE_TEXT];

    for (long n = 0; n < 2; n++) {
        until_failure = n;
        cr_assert_eq(policy_keeper_new(&first, 1, &keeper), -ENOMEM);
        cr_assert_null(keeper);
    }
    until_failure = -1;
    cr_assert_eq(policy_keeper_new(&first, 1, &keeper), 0);
    until_failure = 0;
    cr_assert_eq(policy_keeper_set(keeper, &second, 1), -ENOMEM);
    until_failure = -1;
    cr_expect(policy_allows(keeper, POLICY_LINK, "n1", "", rule));
    cr_expect_not(policy_allows(keeper, POLICY_LINK, "n2", "", rule));
    policy_keeper_free(keeper);
}
