/* offer - keeps a service offered, has the node look at it, and tells how it is found.
 *
 *   cc offer.c $(pkg-config --cflags --libs meshd) -o offer
 *   ./offer billing 127.0.0.1:4100 http:/healthz
 *
 * The check (tcp or http:/path) may be left out. The service takes no clients until a line "ready"
 * is read, and none after "drain"; the end of stdin withdraws it. Ends with 0, or 2: it is used
 * another way, or 3: an error.
 */
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include <meshd/client.h>

#define DEADLINE_MS 5000

static int complain(const char *what, enum mesh_status status)
{
    fprintf(stderr, "offer: %s: %s: %s\n", what, mesh_status_text(status), mesh_error_text());
    return 3;
}

/* Renewed now, so that the reason is the newest. */
static void say(struct mesh_lease *lease)
{
    unsigned service;

    mesh_lease_change(lease, NULL, NULL, DEADLINE_MS);
    service = mesh_lease_service(lease);
    if (service & MESH_HEALTHY)
        printf("healthy%s\n", service & MESH_DRAINING ? ", draining" : "");
    else
        printf("unhealthy%s: %s\n", service & MESH_DRAINING ? ", draining" : "", mesh_error_text());
    fflush(stdout);
}

/* All that the watch has to tell: of this offer and, under the same name, of those elsewhere. */
static enum mesh_status look(struct mesh_watch *watch, struct mesh_lease *lease)
{
    const struct mesh_instance *it;
    enum mesh_change change;
    enum mesh_status status;

    while ((status = mesh_watch_next(watch, 1, &change, &it)) == MESH_OK)
        if (it && (it->state & MESH_LOCAL) && change != MESH_DOWN)
            say(lease);
    return status == MESH_TIMEOUT ? MESH_OK : status;
}

/* 0: the end of stdin. */
static int obey(struct mesh_lease *lease, struct mesh_offer *offer)
{
    char line[64];
    ssize_t n = read(STDIN_FILENO, line, sizeof(line));
    enum mesh_status status;

    if (n <= 0)
        return 0;
    if (strncmp(line, "ready\n", (size_t)n) == 0)
        offer->draining = 0;
    else if (strncmp(line, "drain\n", (size_t)n) == 0)
        offer->draining = 1;
    status = mesh_lease_change(lease, NULL, offer, DEADLINE_MS);
    if (status != MESH_OK)
        complain("change", status); /* if the node is away: it will hear of it */
    return 1;
}

static int run(struct mesh_watch *watch, struct mesh_lease *lease, struct mesh_offer *offer)
{
    struct pollfd fds[2] = {{.fd = STDIN_FILENO, .events = POLLIN},
                            {.fd = mesh_watch_fd(watch), .events = POLLIN}};
    enum mesh_status status = MESH_OK;

    while (status == MESH_OK) {
        if (poll(fds, 2, -1) < 0)
            return 3;
        if (fds[1].revents)
            status = look(watch, lease);
        if (fds[0].revents && !obey(lease, offer))
            return 0;
    }
    return complain("watch", status);
}

int main(int argc, char **argv)
{
    struct mesh_offer offer = {.size = sizeof(offer), .draining = 1};
    struct mesh_client *client;
    struct mesh_watch *watch = NULL;
    struct mesh_lease *lease = NULL;
    enum mesh_status status;
    int code = 3;

    if (argc != 3 && argc != 4) {
        fprintf(stderr, "usage: offer NAME HOST:PORT [tcp|http:/PATH]\n");
        return 2;
    }
    offer.check = argv[3]; /* or NULL */
    if (offer.check)
        offer.check_interval_ms = 500;
    status = mesh_client_open(NULL, DEADLINE_MS, &client);
    if (status != MESH_OK)
        return complain("the node here", status);
    status = mesh_register_with(client, argv[1], argv[2], &offer, DEADLINE_MS, &lease);
    if (status == MESH_OK)
        status = mesh_watch_open(client, argv[1], DEADLINE_MS, &watch);
    if (status == MESH_OK)
        code = run(watch, lease, &offer);
    else
        complain(argv[1], status);
    mesh_watch_close(watch);
    mesh_lease_close(lease);
    mesh_client_close(client);
    return code;
}
