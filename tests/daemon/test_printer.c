/* printer: a picture per change while the output keeps up; the newest when it does not; never a
 * wait for whoever hands a picture in. */
#include <criterion/criterion.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include "base/clock.h"
#include "base/limits.h"
#include "base/log.h"
#include "daemon/printer.h"

static struct registry *reg;
static struct printer *printer;
static int fds[2];

static void setup(void)
{
    struct limits limits;

    limits_default(&limits);
    log_setup(&(struct log_settings){.level = LOG_ERROR, .format = LOG_TEXT});
    cr_assert_eq(
        registry_new(&(struct registry_settings){.peer_id = "n1", .epoch = 1, .limits = &limits},
                     &reg),
        0);
    cr_assert_eq(pipe2(fds, O_CLOEXEC), 0);
}

static void teardown(void)
{
    registry_free(reg);
    close(fds[0]);
    close(fds[1]);
}

/* The node's own list becomes n services, at the registry's next revision. */
static void put_local(unsigned n)
{
    struct registry_refusals refusals = {0};
    struct registry_change change;
    struct row *rows[4096];
    struct list *empty = list_empty(), *list;
    char name[32];

    for (unsigned i = 0; i < n; i++) {
        snprintf(name, sizeof name, "service-%05u", i);
        rows[i] = row_new(name, strlen(name), "127.0.0.1:80", 12, "local", 0);
    }
    cr_assert_eq(list_apply(empty, rows, n, NULL, 0, &list), 0);
    registry_put_local(reg, registry_revision(reg) + 1, list, 1, &refusals, &change);
    registry_refusals_fini(&refusals);
    for (unsigned i = 0; i < n; i++)
        row_unref(rows[i]);
    list_unref(list);
    list_unref(empty);
}

static void show(void)
{
    struct snapshot *snap;

    cr_assert_eq(registry_snapshot(reg, &snap), 0);
    printer_show(printer, snap);
}

/* Reads until text has come or the deadline passes; returns the last of what came. */
static const char *read_until(const char *text)
{
    static char got[1 << 20];
    size_t len = 0;
    uint64_t until = clock_ms() + 10000;

    got[0] = '\0';
    while (!strstr(got, text) && clock_ms() < until) {
        struct pollfd p = {.fd = fds[0], .events = POLLIN};
        ssize_t n;

        if (len > sizeof got / 2) { /* text may lie across the cut */
            memmove(got, got + len - 1024, 1025);
            len = 1024;
        }
        if (poll(&p, 1, 1000) <= 0)
            continue;
        n = read(fds[0], got + len, sizeof got - 1 - len);
        if (n <= 0)
            break;
        len += (size_t)n;
        got[len] = '\0';
    }
    return got;
}

Test(printer, an_empty_registry_prints_its_two_empty_maps, .init = setup, .fini = teardown)
{
    const char *got;

    cr_assert_eq(printer_start("n1", PRINT_FULL, fds[1], &printer), 0);
    show();
    got = read_until("total_peers=0}\n");
    cr_expect_str_eq(got, "[registry] services peer_id=n1 svc_map={total=0}\n"
                          "[registry] peer_services_map peer_id=n1 {total_peers=0}\n");
    printer_stop(printer, 1000);
}

Test(printer, every_picture_is_printed_while_the_output_keeps_up, .init = setup, .fini = teardown)
{
    cr_assert_eq(printer_start("n1", PRINT_FULL, fds[1], &printer), 0);
    for (unsigned i = 1; i <= 5; i++) {
        char want[96];

        put_local(i);
        show();
        snprintf(want, sizeof want, "svc_map={total=%u}\n", i);
        cr_assert(strstr(read_until(want), want), "picture %u is missing", i);
    }
    printer_stop(printer, 1000);
}

Test(printer, a_stuck_output_holds_up_nobody_and_the_newest_picture_comes_next, .init = setup,
     .fini = teardown)
{
    struct printer_counters counters;
    uint64_t begin;

    cr_assert_eq(printer_start("n1", PRINT_FULL, fds[1], &printer), 0);
    put_local(3000); /* more than a pipe holds */
    begin = clock_ms();
    for (unsigned i = 0; i < 200; i++)
        show();
    put_local(7);
    show();
    cr_expect_lt(clock_ms() - begin, 5000u, "handing in pictures waited for the output");
    cr_assert(strstr(read_until("svc_map={total=7}"), "svc_map={total=7}"));
    printer_counters(printer, &counters);
    cr_expect_gt(counters.skipped, 0u);
    cr_expect_lt(counters.printed, 200u);
    printer_stop(printer, 1000);
}

Test(printer, prints_what_is_set_from_the_next_picture_on, .init = setup, .fini = teardown)
{
    const char *got;

    put_local(2);
    cr_assert_eq(printer_start("n1", PRINT_NOTHING, fds[1], &printer), 0);
    show();
    printer_set(printer, PRINT_SUMMARY);
    show();
    got = read_until("total_peers=0}\n");
    cr_expect_str_eq(got, "[registry] services peer_id=n1 svc_map={total=2}\n"
                          "[registry] peer_services_map peer_id=n1 {total_peers=0}\n");
    printer_set(printer, PRINT_FULL);
    show();
    cr_expect(strstr(read_until("total_peers=0}\n"), "| local | service-00001 | 127.0.0.1:80 |\n"));
    printer_stop(printer, 1000);
}
