/* /events and / over HTTP, in front of a daemon that is played here. */
#include <criterion/criterion.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include "support.h"

static struct rig rig;

static void setup(void)
{
    rig_init(&rig);
    rig.limits.admin_followers = 3;
    rig_start(&rig);
}

static void teardown(void) { rig_stop(&rig); }

static void show(void)
{
    struct snapshot *snap;

    cr_assert_eq(registry_snapshot(rig.reg, &snap), 0);
    web_show(rig.web, snap);
    snapshot_unref(snap);
}

/* ---- a client ---- */

struct client {
    int fd;
    char *text; /* all that has come */
    size_t len, cap;
};

static struct client ask_for(const char *path)
{
    struct client c = {.fd = rig_connect(&rig, NULL)};
    char head[128];

    snprintf(head, sizeof head, "GET %s HTTP/1.1\r\nHost: localhost\r\n\r\n", path);
    send_text(c.fd, head);
    return c;
}

static void leave(struct client *c)
{
    close(c->fd);
    free(c->text);
}

/* Waits for more bytes; false: there are none within ms, or it is over. */
static bool more(struct client *c, int ms)
{
    struct pollfd wait = {.fd = c->fd, .events = POLLIN};
    ssize_t n;

    if (c->cap < c->len + 65537)
        c->text = realloc(c->text, c->cap = 2 * c->len + 65537);
    if (poll(&wait, 1, ms) != 1)
        return false;
    n = recv(c->fd, c->text + c->len, 65536, 0);
    if (n <= 0)
        return false;
    c->len += (size_t)n;
    c->text[c->len] = '\0';
    return true;
}

static void expect_text(struct client *c, const char *text)
{
    size_t from = 0; /* what is before has been looked at: megabytes come in small pieces */

    while (!c->len || !strstr(c->text + from, text)) {
        from = c->len > strlen(text) ? c->len - strlen(text) : 0;
        cr_assert(more(c, WAIT_MS), "'%s' does not come", text);
    }
}

TestSuite(readers, .init = setup, .fini = teardown, .timeout = 60);

static void setup_limits(void) { rig_init(&rig); }

TestSuite(many_readers, .init = setup_limits, .fini = teardown, .timeout = 60);

Test(readers, a_follower_is_told_the_picture_and_what_happens)
{
    struct client c = ask_for("/events");

    expect_text(&c, "Content-Type: text/event-stream");
    expect_text(&c, "retry: 1000\n\nevent: hello\ndata: {\"peer_id\":\"me\"");
    expect_text(&c, "event: synced");
    expect_text(&c, "event: peers");
    expect_text(&c, "event: node\ndata: {\"live\":\"\"}\n\n");
    put_local_text(rig.reg, 2, "new=h:1");
    show();
    expect_text(&c, "event: changes");
    expect_text(&c, "\"kind\":\"down\"");
    expect_text(&c, "\"kind\":\"up\"");
    web_tell(rig.web, "link_live", "p", "", 100);
    expect_text(&c, "event: log\ndata: "
                    "{\"when\":100,\"kind\":\"link_live\",\"peer_id\":\"p\",\"text\":\"\"}\n\n");
    leave(&c);
}

/* As `nc -N` does. */
Test(readers, who_sends_no_more_after_the_request_goes_on_following)
{
    struct client half = ask_for("/events"), other;

    shutdown(half.fd, SHUT_WR);
    expect_text(&half, "event: node");
    other = ask_for("/events");
    for (unsigned i = 0; i < 3; i++) { /* meanwhile connections have been looked at */
        other.len = 0;
        expect_text(&other, "event: node");
    }
    put_local_text(rig.reg, 2, "new=h:1");
    show();
    expect_text(&half, "new@local");
    leave(&other);
    leave(&half);
    RIG_WAIT(&rig, c.followers == 0);
}

/* The main loop has nothing to say meanwhile. */
Test(readers, who_has_gone_is_missed_while_nothing_happens)
{
    struct client gone;

    atomic_store(&rig.hold, true);
    gone = ask_for("/events");
    expect_text(&gone, "event: peers");
    leave(&gone);
    RIG_WAIT(&rig, c.followers == 0 && c.connections == 0);
}

Test(readers, what_happened_before_anybody_came_is_told)
{
    struct client c;

    put_local_text(rig.reg, 2, "late=h:1");
    show();
    web_tell(rig.web, "link_lost", "p", "closed", 100);
    c = ask_for("/events");
    expect_text(&c, "late@local");
    expect_text(&c, "link_lost");
    leave(&c);
}

Test(readers, there_are_not_more_followers_than_may_be)
{
    struct client first[3], fourth;

    for (int i = 0; i < 3; i++) {
        first[i] = ask_for("/events");
        expect_text(&first[i], "event: synced");
    }
    expect_error(&rig, "/events", "", 503,
                 "as many follow this node as may (limits.admin_followers: 3); try again later");
    leave(&first[0]);
    RIG_WAIT(&rig, c.followers == 2);
    fourth = ask_for("/events");
    expect_text(&fourth, "event: synced");
    leave(&fourth);
    leave(&first[1]);
    leave(&first[2]);
}

/* Probes of the same machine must get in beside pages that are open there. */
Test(many_readers, those_of_one_address_leave_room_for_who_asks_and_goes)
{
    struct client first[6], other;
    struct reply reply;
    int idle[2];

    rig.limits.admin_per_source = 8;
    rig_start(&rig);
    for (int i = 0; i < 6; i++) {
        first[i] = ask_for("/events");
        expect_text(&first[i], "event: synced");
    }
    expect_error(&rig, "/events", "", 503,
                 "as many of one address follow this node as may (three quarters of "
                 "limits.admin_per_source: 8); try again later");
    for (int i = 0; i < 2; i++)
        idle[i] = rig_connect(&rig, NULL);
    reply = get(&rig, "/healthz", "");
    cr_expect_eq(reply.status, 200);
    reply_fini(&reply);
    other = (struct client){.fd = rig_connect(&rig, "127.0.0.2")};
    send_text(other.fd, "GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n");
    expect_text(&other, "event: synced");
    cr_expect_eq(rig_count(&rig).closed_followers, 1);
    for (int i = 0; i < 2; i++)
        close(idle[i]);
    leave(&first[0]);
    RIG_WAIT(&rig, c.followers == 6);
    first[0] = ask_for("/events");
    expect_text(&first[0], "event: synced");
    for (int i = 0; i < 6; i++)
        leave(&first[i]);
    leave(&other);
}

Test(many_readers, those_of_all_addresses_leave_room_for_who_asks_and_goes)
{
    struct client first[6];
    struct reply reply;

    rig.limits.admin_connections = 8;
    rig_start(&rig);
    for (int i = 0; i < 6; i++) {
        char from[32];

        snprintf(from, sizeof from, "127.0.0.%d", i + 2);
        first[i] = (struct client){.fd = rig_connect(&rig, from)};
        send_text(first[i].fd, "GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n");
        expect_text(&first[i], "event: synced");
    }
    expect_error(&rig, "/events", "", 503,
                 "as many follow this node as may (three quarters of "
                 "limits.admin_connections: 8); try again later");
    cr_expect_eq(rig_count(&rig).closed_followers, 1);
    reply = get(&rig, "/healthz", "");
    cr_expect_eq(reply.status, 200);
    reply_fini(&reply);
    for (int i = 0; i < 6; i++)
        leave(&first[i]);
}

Test(readers, the_node_is_asked_once_for_all)
{
    struct client c[3];
    unsigned before, after, nodes = 0;

    for (int i = 0; i < 3; i++) {
        c[i] = ask_for("/events");
        expect_text(&c[i], "event: node");
    }
    before = (unsigned)atomic_load(&rig.asked);
    for (char *at = c[0].text; (at = strstr(at, "event: node")) != NULL; at++)
        nodes++;
    for (unsigned now = 0; now < nodes + 2;) {
        now = 0;
        cr_assert(more(&c[0], WAIT_MS));
        for (char *at = c[0].text; (at = strstr(at, "event: node")) != NULL; at++)
            now++;
    }
    after = (unsigned)atomic_load(&rig.asked);
    cr_expect_leq(after - before, 3u);
    for (int i = 0; i < 3; i++)
        leave(&c[i]);
}

Test(readers, nobody_follows_nobody_is_asked)
{
    struct client c;

    show();
    web_tell(rig.web, "link_live", "p", "", 100);
    c = ask_for("/"); /* behind which whatever they began is over */
    expect_text(&c, "</html>");
    leave(&c);
    cr_expect_eq((unsigned)atomic_load(&rig.asked), 0);
}

/* 12 MB of picture: more than lies in the kernel. */
Test(readers, one_who_reads_nothing_keeps_nobody_waiting)
{
    struct list *many = list_of_many("local", 0, 60000, "h:1");
    struct client deaf, c;

    cr_assert_eq(registry_put_local(rig.reg, 2, many, 100, NULL, NULL), 0);
    list_unref(many);
    deaf = ask_for("/events");
    c = ask_for("/events");
    expect_text(&c, "event: synced");
    put_local_text(rig.reg, 3, "only=h:1");
    show();
    expect_text(&c, "only@local");
    leave(&c);
    expect_text(&deaf, "only@local"); /* it begins to read, and ends up with the same */
    leave(&deaf);
}

/* What was told to those who followed an hour ago would be taken for news. */
Test(readers, who_comes_after_a_while_is_not_told_how_the_node_was)
{
    struct client other = ask_for("/events");

    expect_text(&other, "event: node");
    leave(&other);
    RIG_WAIT(&rig, c.followers == 0);
    atomic_store(&rig.hold, true);
    other = ask_for("/events");
    expect_text(&other, "event: peers");
    web_tell(rig.web, "link_live", "p", "", 100);
    expect_text(&other, "link_live");
    cr_expect_null(strstr(other.text, "event: node"));
    leave(&other);
}

Test(readers, it_ends_while_somebody_follows)
{
    struct client c = ask_for("/events");

    expect_text(&c, "event: synced");
    web_stop(rig.web);
    while (more(&c, WAIT_MS))
        ;
    leave(&c);
}

/* ---- those who take little, or nothing ---- */

static void setup_many(void)
{
    struct list *many = list_of_many("local", 0, 60000, "h:1");

    rig_init(&rig);
    cr_assert_eq(registry_put_local(rig.reg, 2, many, 100, NULL, NULL), 0);
    list_unref(many);
}

TestSuite(slow_readers, .init = setup_many, .fini = teardown, .timeout = 60);

Test(slow_readers, one_who_takes_nothing_for_long_is_cut_off)
{
    struct client deaf, other;

    rig.times.unread = 1500;
    rig_start(&rig);
    deaf = ask_for("/events");
    other = ask_for("/events");
    while (!rig_count(&rig).closed_unread)
        more(&other, 10);
    RIG_WAIT(&rig, c.closed_unread == 1 && c.followers == 1);
    expect_text(&other, "event: synced");
    leave(&deaf);
    leave(&other);
}

/* Each byte is progress; but the picture that it is told is kept until it is whole. */
Test(slow_readers, one_who_takes_a_little_now_and_then_is_cut_off_in_the_end)
{
    struct client drips, other;
    char bytes[1024];

    rig.times.answer = 4000; /* enough for the other, which is alone at first */
    rig.times.unread = 60000;
    rig_start(&rig);
    other = ask_for("/events");
    expect_text(&other, "event: synced");
    drips = ask_for("/events");
    for (uint64_t until = rig_now_ms() + WAIT_MS; rig_now_ms() < until;) {
        more(&other, 5);
        if (rig_count(&rig).closed_unread)
            break;
        recv(drips.fd, bytes, sizeof bytes, MSG_DONTWAIT);
    }
    RIG_WAIT(&rig, c.closed_unread == 1 && c.followers == 1);
    put_local_text(rig.reg, 3, "only=h:1");
    show();
    expect_text(&other, "only@local");
    leave(&drips);
    leave(&other);
}

/* ---- the page ---- */

static void take_nonce(char out[33])
{
    struct client c = ask_for("/");
    char in_page[64];
    char *at;

    expect_text(&c, "</html>");
    cr_expect_not_null(strstr(c.text, "Content-Type: text/html; charset=utf-8"));
    at = strstr(c.text, "script-src 'nonce-");
    cr_assert_not_null(at);
    snprintf(out, 33, "%.32s", at + strlen("script-src 'nonce-"));
    snprintf(in_page, sizeof in_page, "<script nonce=\"%s\">", out);
    cr_expect_not_null(strstr(c.text, in_page));
    snprintf(in_page, sizeof in_page, "<style nonce=\"%s\">", out);
    cr_expect_not_null(strstr(c.text, in_page));
    cr_expect_null(strstr(c.text, "@NONCE@"));
    cr_expect_null(strstr(c.text, "unsafe-inline"));
    leave(&c);
}

Test(readers, the_page_has_a_policy_of_its_own_each_time)
{
    char first[33], second[33];

    take_nonce(first);
    take_nonce(second);
    cr_expect_str_neq(first, second);
}
