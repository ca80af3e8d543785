/* Threads ask while the rules change; run under ThreadSanitizer. Plain C: no Criterion. */
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include "policy/policy.h"

#define ASKERS 3
#define CHANGES 3000

static struct policy_keeper *keeper;
static atomic_bool over;
static atomic_ulong asked, wrong;

/* One rule lets it, the other does not; no third one is ever seen. */
static void *ask(void *arg)
{
    char rule[POLICY_RULE_TEXT];

    while (!atomic_load(&over)) {
        if (!policy_allows(keeper, POLICY_REGISTER, "n1", "web", rule) &&
            strcmp(rule, "rule-shut") != 0)
            atomic_fetch_add(&wrong, 1);
        atomic_fetch_add(&asked, 1);
    }
    return NULL;
}

int main(void)
{
    const char *const peers[] = {"n*"}, *const web[] = {"w*b", "x"}, *const other[] = {"other"};
    const struct policy_rule rules[2] = {
        {.name = "rule-open", .peers = peers, .n_peers = 1, .register_names = web, .n_register = 2},
        {.name = "rule-shut",
         .peers = peers,
         .n_peers = 1,
         .register_names = other,
         .n_register = 1}};
    struct policy_counters counters;
    pthread_t threads[ASKERS];

    if (policy_keeper_new(rules, 1, &keeper) < 0)
        return 1;
    for (int i = 0; i < ASKERS; i++)
        if (pthread_create(&threads[i], NULL, ask, NULL) != 0)
            return 1;
    for (int i = 0; i < CHANGES; i++) {
        if (policy_keeper_set(keeper, &rules[i % 2], i % 7 == 6 ? 0 : 1) < 0)
            atomic_fetch_add(&wrong, 1);
        policy_counters(keeper, &counters);
    }
    /* The last change was seen, however the threads were scheduled until here. */
    policy_keeper_set(keeper, &rules[1], 1);
    for (uint64_t before = counters.denied[POLICY_REGISTER];
         counters.denied[POLICY_REGISTER] <= before + ASKERS;)
        policy_counters(keeper, &counters);
    atomic_store(&over, true);
    for (int i = 0; i < ASKERS; i++)
        pthread_join(threads[i], NULL);
    printf("asked %lu, refused %llu, wrong %lu\n", atomic_load(&asked),
           (unsigned long long)counters.denied[POLICY_REGISTER], atomic_load(&wrong));
    policy_keeper_free(keeper);
    return atomic_load(&wrong) ? 1 : 0;
}
