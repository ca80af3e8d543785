/* find - who offers these names?
 *
 *   cc find.c $(pkg-config --cflags --libs meshd) -o find
 *   ./find billing ledger                       prints an instance per line, best first
 *   ./find --url tcp://10.0.0.7:7400 billing    asks that node; at tls:// with the certificates of
 *                                               PEER_TLS_CA, PEER_TLS_CERT and PEER_TLS_KEY
 *   ./find --offer billing=127.0.0.1:4100       offers it until a line, or the end, of stdin
 *   ./find --follow 'bill*'                     tells what comes, changes and goes, until it is
 * killed
 *
 * Ends with 0: all were found (or offered); 1: some were not; 2: it is used another way; 3: an
 * error.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <meshd/client.h>

#define DEADLINE_MS 5000

static int complain(const char *what, enum mesh_status status)
{
    fprintf(stderr, "find: %s: %s: %s\n", what, mesh_status_text(status), mesh_error_text());
    return 3;
}

static int offer(struct mesh_client *client, const char *pair)
{
    const char *equals = strchr(pair, '=');
    struct mesh_lease *lease;
    enum mesh_status status;
    char name[256];

    if (!equals || (size_t)(equals - pair) >= sizeof(name))
        return 2;
    memcpy(name, pair, (size_t)(equals - pair));
    name[equals - pair] = '\0';
    status = mesh_register(client, name, equals + 1, DEADLINE_MS, &lease);
    if (status != MESH_OK)
        return complain(pair, status);
    printf("offered %s\n", pair);
    fflush(stdout);
    getchar();
    status = mesh_lease_state(lease);
    mesh_lease_close(lease);
    printf("withdrawn, it stood: %s\n", mesh_status_text(status));
    return 0;
}

static int follow(struct mesh_client *client, const char *pattern)
{
    static const char *const texts[] = {"up", "changed", "down", "synced", "away"};
    const struct mesh_instance *it;
    struct mesh_watch *watch;
    enum mesh_change change;
    enum mesh_status status = mesh_watch_open(client, pattern, DEADLINE_MS, &watch);

    if (status != MESH_OK)
        return complain(pattern, status);
    for (;;) {
        status = mesh_watch_next(watch, DEADLINE_MS, &change, &it);
        if (status == MESH_TIMEOUT)
            continue; /* nothing has happened */
        if (status != MESH_OK)
            break;
        if (it)
            printf("%s %s %s %s\n", texts[change], it->name, it->address, it->node);
        else
            printf("%s\n", texts[change]);
        fflush(stdout);
    }
    mesh_watch_close(watch);
    return complain(pattern, status);
}

static int find(struct mesh_client *client, const char *const *names, size_t n)
{
    struct mesh_list *list;
    enum mesh_status status = mesh_lookup_many(client, names, n, DEADLINE_MS, &list);
    size_t i, j, found, missing = 0;

    if (status != MESH_OK)
        return complain("lookup", status);
    for (i = 0; i < n; i++) {
        const struct mesh_instance *at = mesh_list_of(list, i, &found);

        if (!found) {
            fprintf(stderr, "find: nobody offers %s\n", names[i]);
            missing++;
        }
        for (j = 0; j < found; j++)
            printf("%s %s %s%s\n", at[j].name, at[j].address, at[j].node,
                   at[j].state & MESH_STALE ? " stale" : "");
    }
    mesh_list_free(list);
    return missing ? 1 : 0;
}

int main(int argc, char **argv)
{
    struct mesh_client *client;
    enum mesh_status status;
    const char *url = NULL;
    int at = 1, one = 0, code;

    if (argc > 2 && strcmp(argv[1], "--url") == 0) {
        url = argv[2];
        at = 3;
    }
    if (at < argc && (strcmp(argv[at], "--offer") == 0 || strcmp(argv[at], "--follow") == 0))
        one = 1;
    if (at >= argc || (one && at + 2 != argc)) {
        fprintf(stderr, "usage: find [--url URL] NAME...\n"
                        "       find [--url URL] --offer NAME=HOST:PORT\n"
                        "       find [--url URL] --follow PATTERN\n");
        return 2;
    }
    status = mesh_client_open(url, DEADLINE_MS, &client);
    if (status != MESH_OK)
        return complain(url ? url : "the node here", status);
    if (one && strcmp(argv[at], "--offer") == 0)
        code = offer(client, argv[at + 1]);
    else if (one)
        code = follow(client, argv[at + 1]);
    else
        code = find(client, (const char *const *)(argv + at), (size_t)(argc - at));
    mesh_client_close(client);
    return code;
}
