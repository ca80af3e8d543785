/* What workers find out of backends reaches the node on its own thread, and a flood of it as
 * little. The forward room and the node are played here.
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include "daemon/line.h"
#include "daemon/ports.h"
#include "forward/must.h"

static uv_loop_t loop;
static struct mailbox box;
static struct ports *ports;
static struct limits limits;
static struct node_port port;
static char heard[4096]; /* by the node, parted by commas */
static size_t heard_len;
static pthread_t main_thread;

static void hear(const char *text)
{
    MUST(pthread_equal(main_thread, pthread_self()));
    heard_len += (size_t)snprintf(heard + heard_len, sizeof heard - heard_len, "%s%s",
                                  heard_len ? ", " : "", text);
    MUST(heard_len < sizeof heard);
}

void __wrap_node_checked(struct node *node, uint64_t check, int error, const char *text);
void __wrap_node_backend_seen(struct node *node, const char *name, const char *backend, bool ok,
                              const char *text);

void __wrap_node_checked(struct node *node, uint64_t check, int error, const char *text)
{
    char line[512];

    snprintf(line, sizeof line, "%u %d %s", (unsigned)check, error, text);
    hear(line);
}

void __wrap_node_backend_seen(struct node *node, const char *name, const char *backend, bool ok,
                              const char *text)
{
    char line[512];

    snprintf(line, sizeof line, "%s %s %s", name, backend, ok ? "ok" : text);
    hear(line);
}

/* The forward room: what was asked last, and what it says. */
static struct {
    uint64_t number;
    char backend[LIMIT_BACKEND + 1], path[LIMIT_CHECK_PATH + 1];
    bool http;
    enum proxy_version proxy;
    uint32_t timeout_ms;
    int result;
} asked;

int __wrap_forward_check(struct forward *forward, uint64_t number, const char *backend,
                         enum proxy_version proxy, const char *http_path, uint32_t timeout_ms);

int __wrap_forward_check(struct forward *forward, uint64_t number, const char *backend,
                         enum proxy_version proxy, const char *http_path, uint32_t timeout_ms)
{
    asked.number = number;
    asked.proxy = proxy;
    asked.timeout_ms = timeout_ms;
    asked.http = http_path != NULL;
    snprintf(asked.backend, sizeof asked.backend, "%s", backend);
    snprintf(asked.path, sizeof asked.path, "%s", http_path ? http_path : "");
    return asked.result;
}

static void setup(void)
{
    main_thread = pthread_self();
    limits_default(&limits);
    MUST(uv_loop_init(&loop) == 0);
    MUST(mailbox_init(&box, &loop, NULL, NULL) == 0);
    MUST(ports_new(
             &(struct ports_settings){
                 .loop = &loop, .box = &box, .dir = "/nowhere", .peer_id = "n1", .limits = &limits},
             &ports) == 0);
    port = ports_node_port(ports);
}

static void teardown(void)
{
    mailbox_close(&box);
    uv_run(&loop, UV_RUN_DEFAULT);
    MUST(uv_loop_close(&loop) == 0);
    ports_free(ports);
}

TestSuite(ports_backends, .init = setup, .fini = teardown, .timeout = 60);

static const char *heard_by_the_node(void)
{
    static char all[sizeof heard];

    mailbox_read(&box);
    memcpy(all, heard, sizeof all);
    heard[0] = '\0';
    heard_len = 0;
    return all;
}

Test(ports_backends, a_look_is_asked_for_as_the_service_says)
{
    struct node_service service = {
        .name = "web", .backend = "10.0.0.1:80", .proxy_protocol = PROXY_V2};

    service.check = (struct node_check){.kind = MESHD__V1__CHECK_KIND__CHECK_KIND_TCP,
                                        .path = "/not-asked-for",
                                        .timeout_ms = 1234};
    port.check(port.ctx, 7, &service);
    cr_expect_eq(asked.number, 7);
    cr_expect_str_eq(asked.backend, "10.0.0.1:80");
    cr_expect_eq(asked.proxy, PROXY_V2);
    cr_expect_eq(asked.timeout_ms, 1234);
    cr_expect_not(asked.http);
    service.check.kind = MESHD__V1__CHECK_KIND__CHECK_KIND_HTTP;
    snprintf(service.check.path, sizeof service.check.path, "/healthz");
    port.check(port.ctx, 8, &service);
    cr_expect(asked.http);
    cr_expect_str_eq(asked.path, "/healthz");
    cr_expect_str_eq(heard_by_the_node(), "");
}

Test(ports_backends, each_look_is_answered_and_one_that_cannot_begin_too)
{
    const struct forward_ops ops = ports_forward_ops(ports);
    const struct node_service service = {.name = "web", .backend = "10.0.0.1:80"};

    ops.checked(ops.ctx, 1, 0, "connected");
    ops.checked(ops.ctx, 2, -EPROTO, "answered 503");
    asked.result = -ENOMEM;
    port.check(port.ctx, 3, &service);
    cr_expect_eq(heard_len, 0, "not before the call has returned");
    cr_expect_str_eq(heard_by_the_node(),
                     "1 0 connected, 2 -71 answered 503, 3 -12 Cannot allocate memory");
}

Test(ports_backends, what_clients_meet_is_told_in_its_order)
{
    const struct forward_ops ops = ports_forward_ops(ports);

    ops.backend_seen(ops.ctx, "web", "a:1", -ECONNREFUSED);
    ops.backend_seen(ops.ctx, "db", "a:1", -ENOENT);
    ops.backend_seen(ops.ctx, "web", "a:1", -ETIMEDOUT);
    cr_expect_str_eq(heard_by_the_node(),
                     "web a:1 Connection timed out, web a:1 Connection timed out, "
                     "db a:1 its name does not resolve");
    ops.backend_seen(ops.ctx, "web", "a:1", 0);
    cr_expect_str_eq(heard_by_the_node(), "web a:1 ok");
    ops.backend_seen(ops.ctx, "web", "a:1", -ECONNREFUSED);
    ops.backend_seen(ops.ctx, "web", "a:1", -ECONNREFUSED);
    ops.backend_seen(ops.ctx, "web", "a:1", 0);
    ops.backend_seen(ops.ctx, "web", "a:1", -ECONNREFUSED);
    ops.backend_seen(ops.ctx, "web", "b:1", -ECONNREFUSED);
    cr_expect_str_eq(heard_by_the_node(),
                     "web a:1 ok, web a:1 Connection refused, "
                     "web b:1 Connection refused",
                     "the streak ends with who is well, and begins anew");
}

static void *flood(void *unused)
{
    const struct forward_ops ops = ports_forward_ops(ports);

    for (int i = 0; i < 10000; i++)
        ops.backend_seen(ops.ctx, "web", "a:1", -ECONNREFUSED);
    return NULL;
}

static unsigned letters(void)
{
    unsigned n = 0;

    for (struct letter *at = box.first; at; at = at->next)
        n++;
    return n;
}

Test(ports_backends, a_flood_of_failures_is_one_letter)
{
    pthread_t threads[4];
    unsigned n = 1;

    for (int i = 0; i < 4; i++)
        MUST(pthread_create(&threads[i], NULL, flood, NULL) == 0);
    for (int i = 0; i < 4; i++)
        pthread_join(threads[i], NULL);
    cr_expect_eq(letters(), 1);
    for (const char *at = heard_by_the_node(); (at = strchr(at, ',')); at++)
        n++;
    cr_expect_eq(n, 100, "as many as make any backend unhealthy");
    cr_expect_str_eq(heard_by_the_node(), "");
}
