/* What happens to links and peers, as lines; and that peers cannot fill a log with them. */
#include <criterion/criterion.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>
#include "base/clock.h"
#include "base/log.h"
#include "daemon/events.h"

static char got[1 << 18];

/* n times the event; what was written of it to standard error is in got. */
static void listen_to(const struct node_event *event, unsigned n)
{
    int fds[2], saved = dup(STDERR_FILENO);
    ssize_t len;

    cr_assert_eq(pipe2(fds, O_NONBLOCK), 0);
    cr_assert_geq(fcntl(fds[1], F_SETPIPE_SZ, sizeof(got)), 1 << 16);
    dup2(fds[1], STDERR_FILENO);
    for (unsigned i = 0; i < n; i++)
        events_log(event);
    events_left_out(clock_ms());
    dup2(saved, STDERR_FILENO);
    len = read(fds[0], got, sizeof(got) - 1);
    got[len > 0 ? len : 0] = '\0';
    close(saved);
    close(fds[0]);
    close(fds[1]);
}

static void hear(enum node_event_kind kind, unsigned n)
{
    const struct node_event event = {
        .kind = kind, .peer_id = "n2", .address = "10.0.0.2:7400", .text = "a\n\x1b[2J"};

    listen_to(&event, n);
}

Test(events, backends_and_services_have_a_word_of_their_own)
{
    const struct node_event down = {.kind = NODE_BACKEND_DOWN,
                                    .text = "web at 10.0.0.1:80: refused"},
                            drained = {.kind = NODE_SERVICE_DRAINED, .text = "web"};

    listen_to(&down, 1);
    cr_expect_str_eq(got, "warn [health] backend is unhealthy: web at 10.0.0.1:80: refused\n");
    listen_to(&drained, 1);
    cr_expect_str_eq(got, "info [offer] service drains: web\n");
}

static unsigned lines(void)
{
    unsigned n = 0;

    for (const char *at = got; (at = strchr(at, '\n')); at++)
        n++;
    return n;
}

Test(events, a_line_says_who_and_why_in_printable_bytes)
{
    hear(NODE_PEER_GONE, 1);
    cr_expect_str_eq(got, "info [link] peer n2 (10.0.0.2:7400) is gone: a\\x0a\\x1b[2J\n");
}

Test(events, of_one_kind_there_are_so_many_at_once_and_others_are_still_told)
{
    hear(NODE_LINK_LOST, LOG_LIMITED_LINES + 100);
    cr_expect_eq(lines(), LOG_LIMITED_LINES);
    hear(NODE_LINK_LOST, 1);
    cr_expect_eq(lines(), 0);
    hear(NODE_PEER_GONE, 1);
    cr_expect_eq(lines(), 1);
}
