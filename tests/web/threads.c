/* threads - what other threads do to a web while it serves: answer, late and early, show and tell,
 * read counters, set limits, end it. A plain main: ThreadSanitizer cannot run under Criterion. */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <arpa/inet.h>
#include <sys/socket.h>
#include <unistd.h>
#include "registry/help.h"
#include "web/web.h"

#define ROUNDS 300
#define CLIENTS 3
#define FOLLOWS 5

static struct web *web;
static struct registry *reg;
static struct limits limits;
static uint16_t port;

static void must(int condition)
{
    if (!condition)
        abort();
}

struct told {
    pthread_t thread;
    uint64_t number;
};

static bool render(void *data, struct web_body *out_body)
{
    return web_error(out_body, 404, "answered elsewhere");
}

static void *answer(void *arg)
{
    struct told *told = arg;
    struct web_counters counters;

    web_counters(web, &counters);
    limits.admin_connections = 256 + told->number % 2;
    web_set_limits(web, &limits);
    web_answer(web, told->number,
               &(struct web_answer){.data = malloc(1), .render = render, .drop = free});
    free(told);
    return NULL;
}

/* By a thread of its own each, as the main loop is. */
static void on_ask(void *ctx, uint64_t number, enum web_question question, const char *argument)
{
    struct told *told = malloc(sizeof *told);
    pthread_t thread;

    told->number = number;
    must(pthread_create(&thread, NULL, answer, told) == 0);
    must(pthread_detach(thread) == 0);
}

static int on_picture(void *ctx, struct snapshot **out) { return registry_snapshot(reg, out); }

static void *ask(void *arg)
{
    static const char *const paths[] = {"/healthz", "/v1/services", "/v1/node", "/v1/peers"};
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons(port)};
    char text[256], bytes[8192];

    at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    for (int i = 0; i < ROUNDS; i++) {
        int fd = socket(AF_INET, SOCK_STREAM, 0);

        must(connect(fd, (struct sockaddr *)&at, sizeof at) == 0);
        snprintf(text, sizeof text,
                 "GET %s HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n", paths[i % 4]);
        must(send(fd, text, strlen(text), MSG_NOSIGNAL) == (ssize_t)strlen(text));
        if (i % 5)
            while (recv(fd, bytes, sizeof bytes, 0) > 0)
                ;
        close(fd); /* or before it is answered */
    }
    return NULL;
}

/* Comes and goes while the maps change. */
static void *follow(void *arg)
{
    static const char head[] = "GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n";
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons(port)};
    char bytes[8192];

    at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    for (int i = 0; i < FOLLOWS; i++) {
        int fd = socket(AF_INET, SOCK_STREAM, 0);

        must(connect(fd, (struct sockaddr *)&at, sizeof at) == 0);
        must(send(fd, head, strlen(head), MSG_NOSIGNAL) == (ssize_t)strlen(head));
        for (int k = 0; k < i; k++)
            must(recv(fd, bytes, sizeof bytes, 0) > 0);
        close(fd);
    }
    return NULL;
}

static void show(void)
{
    struct snapshot *snap;

    must(registry_snapshot(reg, &snap) == 0);
    web_show(web, snap);
    snapshot_unref(snap);
    web_tell(web, "link_live", "p", "", 1);
}

int main(void)
{
    struct web_settings settings = {.peer_id = "me",
                                    .software = "test",
                                    .limits = &limits,
                                    .ops = {.ask = on_ask, .picture = on_picture}};
    pthread_t clients[CLIENTS], follower;
    char at[64];

    alarm(100);
    limits_default(&limits);
    reg = registry_for("me", NULL);
    must(put_local_text(reg, 1, "db=127.0.0.1:5432 web=127.0.0.1:80") == 0);
    must(web_new(&settings, &web) == 0);
    must(web_listen(web, "127.0.0.1", 0, at, sizeof at) == 0);
    port = (uint16_t)atoi(strrchr(at, ':') + 1);
    must(web_start(web) == 0);
    for (int i = 0; i < CLIENTS; i++)
        must(pthread_create(&clients[i], NULL, ask, NULL) == 0);
    must(pthread_create(&follower, NULL, follow, NULL) == 0);
    for (uint64_t version = 2; version < 200; version++) {
        must(put_local_text(reg, version, version % 2 ? "a=h:1" : "b=h:2 web=h:3") == 0);
        show();
    }
    for (int i = 0; i < CLIENTS; i++)
        must(pthread_join(clients[i], NULL) == 0);
    must(pthread_join(follower, NULL) == 0);
    web_stop(web); /* answers may still come */
    return 0;
}
