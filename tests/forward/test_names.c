/* Names of backends: asked for ahead of need, kept, forgotten; and who waits for them. */
#include <criterion/criterion.h>
#include <errno.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include "forward/hosts.h"
#include "forward/inside.h"
#include "forward/must.h"
#include "forward/names.h"
#include "registry/list.h"

#define HOUR_MS 3600000u

static struct forward forward;
static struct worker worker; /* its loop is run by the test */
static struct names *names;
static struct list *list;

static void begin(uint32_t again_ms)
{
    const struct names_how how = {.resolve = hosts_resolve, .again_ms = again_ms};

    alarm(60);
    cr_assert_eq(names_new_by(&forward, &how, &names), 0);
    cr_assert_eq(names_start(names), 0);
    forward.names = names;
    cr_assert_eq(worker_init(&worker, &forward, 0), 0);
    list = list_empty();
}

static void setup(void) { begin(HOUR_MS); }
static void setup_hasty(void) { begin(5); }

static void teardown(void)
{
    if (names)
        names_stop(names);
    worker_fini(&worker);
    names_free(names);
    list_unref(list);
    MUST(hosts_wait_inside(0));
}

static void show(void)
{
    struct snapshot snap = {.local = list};

    names_show(names, &snap);
}

/* The service `name` has that backend from now on; NULL: it goes. */
static void serve(const char *name, const char *backend)
{
    struct row *row = NULL;
    struct list *next;

    if (backend)
        row = row_new(name, strlen(name), backend, strlen(backend), "local", 0);
    cr_assert_eq(list_apply(list, &row, row ? 1 : 0, &name, row ? 0 : 1, &next), 0);
    row_unref(row);
    list_unref(list);
    list = next;
}

static void wait_resolved(uint64_t n)
{
    while (atomic_load(&forward.count.resolves) < n)
        sched_yield(); /* alarm() is the deadline */
}

struct asked {
    struct names_wait wait;
    bool read;
};

static void read_answer(struct worker *w, struct mail *mail)
{
    CONTAINER_OF(mail, struct asked, wait.mail)->read = true;
}

static int ask(const char *host, struct asked *asked)
{
    *asked = (struct asked){.wait = {.worker = &worker, .mail = {.read = read_answer}}};
    return names_ask(names, host, &asked->wait);
}

static void wait_read(struct asked *asked)
{
    while (!asked->read)
        worker_turn(&worker, true);
}

static void expect_found(const struct asked *asked, const char *const *addresses, unsigned n)
{
    cr_assert_eq(asked->wait.error, 0);
    cr_assert_eq(asked->wait.found.n, n);
    for (unsigned i = 0; i < n; i++) {
        struct in6_addr ip = address_of(addresses[i]);

        cr_expect_eq(memcmp(&asked->wait.found.at[i], &ip, sizeof(ip)), 0, "%u: not %s", i,
                     addresses[i]);
    }
}

static void expect_at_once(const char *host, const char *address)
{
    struct asked asked;

    cr_assert_eq(ask(host, &asked), 0);
    expect_found(&asked, &address, 1);
}

Test(names, a_listed_host_is_known_before_anybody_dials, .init = setup, .fini = teardown)
{
    hosts_set("a.test", "192.0.2.1");
    serve("one", "a.test:80");
    show();
    wait_resolved(1);
    expect_at_once("a.test", "192.0.2.1");
    cr_expect_eq(hosts_asked("a.test"), 1);
}

Test(names, literals_are_never_asked_for, .init = setup, .fini = teardown)
{
    serve("four", "192.0.2.7:80");
    serve("six", "[2001:db8::7]:80");
    hosts_set("z.test", "192.0.2.1");
    serve("zero", "z.test:80"); /* comes last */
    show();
    wait_resolved(1);
    cr_expect_eq(hosts_asked("192.0.2.7"), 0);
    cr_expect_eq(hosts_asked("2001:db8::7"), 0);
}

Test(names, a_host_of_many_services_is_asked_for_once, .init = setup, .fini = teardown)
{
    for (int i = 0; i < 500; i++) {
        char host[32];

        snprintf(host, sizeof(host), "h%d.test", i);
        hosts_set(host, "192.0.2.1");
    }
    for (int i = 0; i < 2000; i++) {
        char name[32], backend[64];

        snprintf(name, sizeof(name), "s%d", i);
        snprintf(backend, sizeof(backend), "h%d.test:%d", i % 500, 1000 + i);
        serve(name, backend);
    }
    show();
    wait_resolved(500);
    cr_expect_eq(hosts_asked("h0.test"), 1);
    cr_expect_eq(hosts_asked("h499.test"), 1);
    show(); /* nothing is new */
    serve("s0", "new.test:80");
    show();
    cr_assert(hosts_wait_asked("new.test", 1));
    cr_expect_leq(atomic_load(&forward.count.resolves), 501);
    cr_expect_eq(hosts_asked("h0.test"), 1, "others still name it");
}

Test(names, a_host_that_no_service_names_any_more_is_forgotten, .init = setup, .fini = teardown)
{
    struct asked asked;

    hosts_set("a.test", "192.0.2.1");
    hosts_set("b.test", "192.0.2.2");
    hosts_set("z.test", "192.0.2.3");
    serve("a1", "a.test:80");
    serve("a2", "a.test:81");
    serve("b", "b.test:80");
    show();
    wait_resolved(2);
    serve("a1", NULL);
    serve("a2", "b.test:82");
    serve("z", "z.test:80"); /* after all others, so what is before it was seen */
    show();
    wait_resolved(3);
    expect_at_once("b.test", "192.0.2.2");
    cr_expect_eq(hosts_asked("b.test"), 1);
    cr_assert_eq(ask("a.test", &asked), NAMES_E_LATER);
    wait_read(&asked);
    cr_expect_eq(hosts_asked("a.test"), 2);
}

Test(names, a_listed_host_is_asked_for_again_and_moves, .init = setup_hasty, .fini = teardown)
{
    unsigned n;

    hosts_set("a.test", "192.0.2.1");
    serve("a", "a.test:80");
    show();
    cr_assert(hosts_wait_asked("a.test", 3));
    hosts_set("a.test", "192.0.2.2");
    n = hosts_asked("a.test");
    cr_assert(hosts_wait_asked("a.test", n + 2)); /* one answer since then is in */
    expect_at_once("a.test", "192.0.2.2");
}

Test(names, the_last_good_answer_stays_when_later_ones_fail, .init = setup_hasty, .fini = teardown)
{
    hosts_set("a.test", "192.0.2.1");
    serve("a", "a.test:80");
    show();
    wait_resolved(1);
    hosts_set("a.test", "");
    while (atomic_load(&forward.count.resolves_failed) < 3)
        sched_yield();
    expect_at_once("a.test", "192.0.2.1");
}

Test(names, one_that_is_only_dialled_is_not_kept, .init = setup_hasty, .fini = teardown)
{
    struct asked asked;

    hosts_set("a.test", "192.0.2.1");
    for (unsigned n = 1; n <= 3; n++) {
        while (ask("a.test", &asked) == 0)
            sched_yield(); /* until it is forgotten */
        wait_read(&asked);
        cr_expect_eq(hosts_asked("a.test"), n);
    }
}

Test(names, all_who_ask_meanwhile_join_one_query, .init = setup, .fini = teardown)
{
    struct asked asked[5];

    hosts_set("a.test", "192.0.2.1");
    hosts_hold("a.test", true);
    for (int i = 0; i < 5; i++)
        cr_assert_eq(ask("a.test", &asked[i]), NAMES_E_LATER);
    cr_assert(hosts_wait_asked("a.test", 1));
    cr_expect(names_leave(names, &asked[2].wait));
    hosts_hold("a.test", false);
    for (int i = 0; i < 5; i++)
        if (i != 2)
            wait_read(&asked[i]);
    cr_expect_not(asked[2].read);
    cr_expect_eq(hosts_asked("a.test"), 1);
    expect_at_once("a.test", "192.0.2.1");
}

Test(names, a_failure_is_told_and_is_the_answer_for_a_moment, .init = setup, .fini = teardown)
{
    struct asked asked;
    int tries = 0;

    cr_assert_eq(ask("none.test", &asked), NAMES_E_LATER);
    wait_read(&asked);
    cr_expect_eq(asked.wait.error, -ENOENT);
    cr_expect_eq(atomic_load(&forward.count.resolves), 1);
    cr_expect_eq(atomic_load(&forward.count.resolves_failed), 1);
    while (ask("none.test", &asked) != -ENOENT) { /* on a machine that stood still meanwhile */
        cr_assert_lt(tries++, 10);
        wait_read(&asked);
    }
    hosts_set("none.test", "192.0.2.1");
    while (ask("none.test", &asked) == -ENOENT)
        sched_yield();
    wait_read(&asked);
    expect_at_once("none.test", "192.0.2.1");
}

Test(names, families_take_turns_and_each_address_comes_once, .init = setup, .fini = teardown)
{
    static const char *const turns[] = {"2001:db8::1", "192.0.2.1", "2001:db8::2", "192.0.2.2",
                                        "2001:db8::3"};
    static const char *const four[] = {"192.0.2.1", "2001:db8::1", "192.0.2.2"};
    static const char *const eight[] = {"2001:db8::1", "192.0.2.1",   "2001:db8::2", "2001:db8::3",
                                        "2001:db8::4", "2001:db8::5", "2001:db8::6", "2001:db8::7"};
    struct asked asked;

    hosts_set("a.test", "2001:db8::1 2001:db8::2 2001:db8::1 2001:db8::3 192.0.2.1 192.0.2.2 "
                        "192.0.2.1");
    hosts_set("b.test", "192.0.2.1 192.0.2.2 2001:db8::1");
    hosts_set("c.test", "2001:db8::1 2001:db8::2 2001:db8::3 2001:db8::4 2001:db8::5 2001:db8::6 "
                        "2001:db8::7 2001:db8::8 2001:db8::9 192.0.2.1");
    cr_assert_eq(ask("a.test", &asked), NAMES_E_LATER);
    wait_read(&asked);
    expect_found(&asked, turns, 5);
    cr_assert_eq(ask("b.test", &asked), NAMES_E_LATER);
    wait_read(&asked);
    expect_found(&asked, four, 3);
    cr_assert_eq(ask("c.test", &asked), NAMES_E_LATER);
    wait_read(&asked);
    expect_found(&asked, eight, 8);
}

Test(names, listed_hosts_that_hang_do_not_hold_up_a_dial, .init = setup, .fini = teardown)
{
    struct asked asked;

    for (int i = 0; i < 20; i++) {
        char name[32], host[32], backend[64];

        snprintf(name, sizeof(name), "s%d", i);
        snprintf(host, sizeof(host), "slow%d.test", i);
        snprintf(backend, sizeof(backend), "%s:80", host);
        hosts_hold(host, true);
        serve(name, backend);
    }
    show();
    cr_assert(hosts_wait_inside(8));
    hosts_set("a.test", "192.0.2.1");
    cr_assert_eq(ask("a.test", &asked), NAMES_E_LATER);
    wait_read(&asked);
    cr_expect_eq(asked.wait.error, 0);
    cr_expect_eq(hosts_inside(), 8);
    for (int i = 0; i < 20; i++) {
        char host[32];

        snprintf(host, sizeof(host), "slow%d.test", i);
        hosts_hold(host, false);
    }
    wait_resolved(21);
}

Test(names, a_resolver_that_hangs_is_left_behind_at_the_end, .init = setup, .fini = teardown)
{
    struct asked asked;

    hosts_hold("a.test", true);
    serve("a", "a.test:80");
    show();
    cr_assert(hosts_wait_asked("a.test", 1));
    cr_assert_eq(ask("a.test", &asked), NAMES_E_LATER);
    names_stop(names); /* alarm() is the deadline */
    cr_expect_eq(hosts_inside(), 1);
    cr_expect_eq(ask("b.test", &(struct asked){0}), -ECANCELED);
    cr_expect(names_leave(names, &asked.wait));
    names_free(TAKE(&names));
    hosts_hold("a.test", false);
    cr_assert(hosts_wait_inside(0));
    cr_expect_eq(atomic_load(&forward.count.resolves), 0);
}
