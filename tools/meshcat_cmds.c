/* meshcat_cmds - the commands, and asking again and again. */
#include <poll.h>
#include "base/limits.h"
#include "meshcat.h"
#include "meshcat_format.h"

#define INTERVAL_DEFAULT_MS 1000u

static void pause_ms(uint32_t ms)
{
    if (ms > 0)
        poll(NULL, 0, (int)ms);
}

/* Every round is a question of its own, on a connection of its own: a node that was started anew is
 * found. Without an end of their own they go on until whoever reads them has seen enough. */
static int run_rounds(const struct meshcat_opts *opts)
{
    bool for_ever = opts->interval_ms && !opts->count;
    uint32_t count = opts->count ? opts->count : 1, found = 0, n = 0;
    int code = EXIT_FOUND, last = EXIT_FOUND;

    for (; (for_ever || n < count) && !ferror(stdout); n += n < UINT32_MAX) {
        if (n > 0) {
            pause_ms(opts->interval_ms ? opts->interval_ms : INTERVAL_DEFAULT_MS);
            if (!opts->silent && (opts->format == FORMAT_TABLE || opts->format == FORMAT_TEXT))
                putchar('\n');
        }
        code = opts->cmd->run(opts);
        show_flush(); /* each as it comes */
        if (code == EXIT_USAGE)
            return code; /* the next would be no better */
        if (code != EXIT_FOUND)
            last = code;
        else
            found++;
    }
    if (for_ever)
        show_forget();
    if (found == n)
        return EXIT_FOUND;
    return found > 0 ? EXIT_PARTIAL : last;
}

int cmd_run(const struct meshcat_opts *opts)
{
    pause_ms(opts->delay_ms);
    if ((opts->cmd->bit & CMD_ROUNDS) && opts->cmd->bit != CMD_PING)
        return run_rounds(opts);
    return opts->cmd->run(opts);
}

const struct meshcat_cmd meshcat_cmds[] = {
    {"introspect", CMD_INTROSPECT, "", "both maps of a node, as of one moment",
     "Shows the map services and the map peer_services of the node, from one picture even when it\n"
     "takes several pages. With JSON: one document with peer_id, epoch, revision, services and\n"
     "peer_services.",
     0, 0, run_introspect},
    {"services", CMD_SERVICES, "", "the services a node knows, its own first",
     "Shows the map services: every name, who offers it, and the state of that peer.", 0, 0,
     run_services},
    {"peers", CMD_PEERS, "", "the peers a node knows, and how many services each has",
     "Shows the map peer_services, a line for each peer; with JSON its services too.", 0, 0,
     run_peers},
    {"lookup", CMD_LOOKUP, "NAME...", "who offers these names, best first",
     "Exit code 0 when all names are found, 7 when only some are, 1 when none is.", 1,
     LIMIT_LOOKUP_NAMES, run_lookup},
    {"explain", CMD_EXPLAIN, "NAME", "how a name would be routed now, and why",
     "Shows every candidate in the order of choice, which one is chosen, and why each other is "
     "not;\n"
     "with the age of its owner's last sign of life, the clients that it has through this node "
     "now,\n"
     "and what failed there last.\n"
     "Exit code 1 when there is no candidate.",
     1, 1, run_explain},
    {"watch", CMD_WATCH, "[NAME]", "what comes, changes and goes, as it happens",
     "Shows what the node knows now, a line each, then `synced`, then every change. NAME may be a\n"
     "pattern (* and ?). A line ends with the state, or with why it went. `synced` names the "
     "place\n"
     "reached, EPOCH:REVISION: with --from the next watch goes on there and tells only what "
     "changed\n"
     "since. After `resync` all is told anew. A connection that is lost is made again. --timeout "
     "is\n"
     "for the first answer. Ends with Ctrl-C, with exit code 0. JSON is a line for each.",
     0, 1, run_watch},
    {"diff", CMD_DIFF, "NODE NODE", "what two nodes believe differently",
     "Compares what two nodes (URL or host:port) hold to be offered, and by whom: an owner that "
     "only\n"
     "one of them knows, an owner in another state, a service at another backend or only there. "
     "Only\n"
     "lists whose digests differ are fetched. What is still on its way between them shows as a\n"
     "difference too: ask again. Exit code 0 when they agree, 1 when they differ.",
     2, 2, run_diff},
    {"call", CMD_CALL, "METHOD", "any method of the service, with a request of your own",
     "METHOD is as in mesh.proto: Lookup, or /meshd.v1.Registry/Lookup. The request is text such "
     "as\n"
     "\n"
     "    meshcat call Lookup -D 'names: \"web\" max_routes: 3'\n"
     "\n"
     "and the answer is shown as text too. What --dump-request writes is a whole request for any "
     "nng\n"
     "program:\n"
     "\n"
     "    meshcat call Lookup -D 'names: \"web\"' --dump-request web.req\n"
     "    nngcat --req0 --dial tcp://127.0.0.1:7400 --file web.req --raw",
     1, 1, run_call},
    {"node", CMD_NODE, "", "the node itself: links, limits and their use, counters",
     "Shows who the node is, its links to peers, its limits with what is used of each, and its\n"
     "counters.",
     0, 0, run_node},
    {"ping", CMD_PING, "", "whether a node answers, and how fast",
     "Asks the node for itself and measures each answer; --timeout is for each. Exit code 7 when\n"
     "only some are answered.",
     0, 0, run_ping},
    {"offer", CMD_OFFER, "NAME HOST:PORT", "offer a service through the node on this host",
     "The service stays until it is withdrawn, its --ttl is over, or the node ends. The same "
     "lease\n"
     "again renews or changes it. Works through the node's own socket, or over tls:// where the\n"
     "node's policy allows it.\n"
     "With --check the node asks the backend whether it is well: by a connection, or by GET, "
     "whose\n"
     "answer is 200 to 399. While it is not, all are told, and clients go elsewhere if there is "
     "another.\n"
     "With --draining it is known and takes no new clients, until the same lease offers it "
     "without.",
     2, 2, run_offer},
    {"withdraw", CMD_WITHDRAW, "NAME", "take back what was offered at run time",
     "Ends the lease that holds the name, or only if it is the one of --lease. Works as offer "
     "does.",
     1, 1, run_withdraw},
    {"drain", CMD_DRAIN, "NAME", "let a service of this node take no new clients",
     "Clients that it has go on, new ones go to others that offer the name; if there is none, they "
     "are\n"
     "turned away. It stays so until `meshcat enable NAME`, also when its lease is renewed or the "
     "node's\n"
     "settings are read again, and ends with the service. Works through the node's own socket. "
     "Exit\n"
     "code 1 when the node does not offer it.",
     1, 1, run_drain},
    {"enable", CMD_ENABLE, "NAME", "let it take new clients again", "Undoes drain.", 1, 1,
     run_drain},
    {"reload", CMD_RELOAD, "", "have the node on this host read its settings again",
     "The node reads its file, and its variables and flags as it was started with them, and the "
     "files\n"
     "of TLS. What can change while it runs is in force then, all of it or nothing: services, "
     "peers,\n"
     "policy, limits, log.level, log.maps and log.forwards; each is shown that is another one "
     "now.\n"
     "Links and clients stay. What waits for the node's next start is named on stderr. When\n"
     "anything is wrong, each error is told with its file and line, nothing has changed, and the\n"
     "exit code is 67. Works through the node's own socket.",
     0, 0, run_reload},
    {"ca", CMD_CA, "init|issue|revoke|show [...]",
     "certificates for a mesh: a small CA in a folder",
     "    meshcat ca init              a CA in ./meshd-ca: key, certificate, an empty CRL\n"
     "    meshcat ca issue NODE...     a key and a certificate for each node; again: renewed\n"
     "    meshcat ca revoke NODE       all that NODE was issued; --serial: one certificate\n"
     "    meshcat ca show [FILE...]    the CA and all that it issued, or what is in the files\n"
     "\n"
     "issue prints the settings to start each node with. Its files are DIR/NODE.pem and\n"
     "DIR/NODE-key.pem: copy them to the node, and ca.pem; ca-key.pem stays here. Nodes refuse "
     "what is\n"
     "revoked when they have DIR/crl.pem (PEER_TLS_CRL). The CRL is good for as long as the CA, "
     "so\n"
     "nobody has to renew it in time. Exit code 1 when there is no CA, no such file, or nothing "
     "to\n"
     "revoke.",
     1, LIMIT_LOOKUP_NAMES, run_ca},
    {NULL, 0, NULL, NULL, NULL, 0, 0, NULL},
};
