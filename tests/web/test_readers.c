/* /events and / over HTTP, in front of a daemon that is played here. */
#include <criterion/criterion.h>
#include <arpa/inet.h>
#include <poll.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include "registry/help.h"
#include "web/web.h"

#define WAIT_MS 20000

static struct registry *reg;
static struct limits limits;
static struct web *web;
static uint16_t port;
static atomic_uint asked; /* about the node */

/* ---- the daemon ---- */

static bool render_node(void *data, struct web_body *out_body)
{
    out_body->status = 200;
    out_body->type = "application/json";
    out_body->data = strdup("{\"node\":{\"peer_id\":\"me\"}}\n");
    out_body->len = strlen(out_body->data);
    return true;
}

static void drop_node(void *data) {}

static void on_ask(void *ctx, uint64_t number, enum web_question question, const char *argument)
{
    struct web_answer answer = {.render = render_node, .drop = drop_node};

    cr_assert_eq(question, WEB_LIVE);
    atomic_fetch_add(&asked, 1);
    web_answer(web, number, &answer);
}

static int on_picture(void *ctx, struct snapshot **out_snapshot)
{
    return registry_snapshot(reg, out_snapshot);
}

static void start(void)
{
    struct web_settings settings = {.peer_id = "me",
                                    .software = "meshd 0",
                                    .limits = &limits,
                                    .ops = {.ask = on_ask, .picture = on_picture}};
    char text[64];

    cr_assert_eq(web_new(&settings, &web), 0);
    cr_assert_eq(web_listen(web, "127.0.0.1", 0, text, sizeof text), 0);
    port = (uint16_t)atoi(strrchr(text, ':') + 1);
    cr_assert_eq(web_start(web), 0);
}

static void setup(void)
{
    signal(SIGPIPE, SIG_IGN);
    limits_default(&limits);
    limits.admin_followers = 3;
    atomic_store(&asked, 0);
    reg = registry_for("me", NULL);
    put_local_text(reg, 1, "web=h:1");
    start();
}

static void teardown(void)
{
    web_stop(web);
    web_free(web);
    registry_free(reg);
}

static void show(void)
{
    struct snapshot *snap;

    cr_assert_eq(registry_snapshot(reg, &snap), 0);
    web_show(web, snap);
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
    struct sockaddr_in to = {
        .sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    struct client c = {.fd = socket(AF_INET, SOCK_STREAM, 0)};
    char head[128];
    int len = snprintf(head, sizeof head, "GET %s HTTP/1.1\r\nHost: localhost\r\n\r\n", path);

    cr_assert_eq(connect(c.fd, (struct sockaddr *)&to, sizeof to), 0);
    cr_assert_eq(send(c.fd, head, (size_t)len, 0), len);
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

static void expect(struct client *c, const char *text)
{
    while (!c->len || !strstr(c->text, text))
        cr_assert(more(c, WAIT_MS), "'%s' does not come: %s", text, c->text);
}

TestSuite(readers, .init = setup, .fini = teardown, .timeout = 60);

Test(readers, a_follower_is_told_the_picture_and_what_happens)
{
    struct client c = ask_for("/events");

    expect(&c, "Content-Type: text/event-stream");
    expect(&c, "retry: 1000\n\nevent: hello\ndata: {\"peer_id\":\"me\"");
    expect(&c, "event: synced");
    expect(&c, "event: peers");
    expect(&c, "event: node\ndata: {\"node\":{\"peer_id\":\"me\"}}\n\n");
    put_local_text(reg, 2, "db=h:1");
    show();
    expect(&c, "event: changes");
    expect(&c, "\"kind\":\"down\"");
    expect(&c, "\"kind\":\"up\"");
    web_tell(web, "link_live", "p", "", 100);
    expect(&c, "event: log\ndata: "
               "{\"when\":100,\"kind\":\"link_live\",\"peer_id\":\"p\",\"text\":\"\"}\n\n");
    leave(&c);
}

Test(readers, what_happened_before_anybody_came_is_told)
{
    struct client c;

    put_local_text(reg, 2, "late=h:1");
    show();
    web_tell(web, "link_lost", "p", "closed", 100);
    c = ask_for("/events");
    expect(&c, "late@local");
    expect(&c, "link_lost");
    leave(&c);
}

Test(readers, there_are_not_more_followers_than_may_be)
{
    struct client c[3], fourth;
    struct web_counters counters;

    for (int i = 0; i < 3; i++) {
        c[i] = ask_for("/events");
        expect(&c[i], "event: synced");
    }
    fourth = ask_for("/events");
    expect(&fourth, "HTTP/1.1 503");
    expect(&fourth, "admin_followers");
    leave(&fourth);
    web_counters(web, &counters);
    cr_expect_eq(counters.followers, 3);
    leave(&c[0]);
    for (bool in = false; !in; leave(&fourth)) { /* its end is noticed when it is told something */
        fourth = ask_for("/events");
        while (more(&fourth, WAIT_MS) && !strstr(fourth.text, "503") && !in)
            in = strstr(fourth.text, "event: synced") != NULL;
        poll(NULL, 0, in ? 0 : 50);
    }
    leave(&c[1]);
    leave(&c[2]);
}

Test(readers, the_node_is_asked_once_for_all)
{
    struct client c[3];
    unsigned before, after, nodes = 0;

    for (int i = 0; i < 3; i++) {
        c[i] = ask_for("/events");
        expect(&c[i], "event: node");
    }
    before = atomic_load(&asked);
    for (char *at = c[0].text; (at = strstr(at, "event: node")) != NULL; at++)
        nodes++;
    for (unsigned now = 0; now < nodes + 2;) {
        now = 0;
        cr_assert(more(&c[0], WAIT_MS));
        for (char *at = c[0].text; (at = strstr(at, "event: node")) != NULL; at++)
            now++;
    }
    after = atomic_load(&asked);
    cr_expect_leq(after - before, 3u);
    for (int i = 0; i < 3; i++)
        leave(&c[i]);
}

Test(readers, nobody_follows_nobody_is_asked)
{
    struct client c;

    show();
    web_tell(web, "link_live", "p", "", 100);
    c = ask_for("/"); /* behind which whatever they began is over */
    expect(&c, "</html>");
    leave(&c);
    cr_expect_eq(atomic_load(&asked), 0);
}

/* 12 MB of picture: more than lies in the kernel. */
Test(readers, one_who_reads_nothing_keeps_nobody_waiting)
{
    struct list *many = list_of_many("local", 0, 60000, "h:1");
    struct client deaf, c;

    cr_assert_eq(registry_put_local(reg, 2, many, 100, NULL, NULL), 0);
    list_unref(many);
    deaf = ask_for("/events");
    c = ask_for("/events");
    expect(&c, "event: synced");
    put_local_text(reg, 3, "only=h:1");
    show();
    expect(&c, "only@local");
    leave(&c);
    expect(&deaf, "only@local"); /* it begins to read, and ends up with the same */
    leave(&deaf);
}

Test(readers, it_ends_while_somebody_follows)
{
    struct client c = ask_for("/events");

    expect(&c, "event: synced");
    web_stop(web);
    while (more(&c, WAIT_MS))
        ;
    leave(&c);
}

/* ---- the page ---- */

static void take_nonce(char out[33])
{
    struct client c = ask_for("/");
    char in_page[64];
    char *at;

    expect(&c, "</html>");
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
