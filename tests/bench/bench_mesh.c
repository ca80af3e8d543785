/* bench_mesh - what a node does with lists: Register into the maps, Introspect of 10,000 services,
 * a change until it is visible at a linked node with printing on, memory, and an idle node's cost.
 * Prints figures; asserts nothing.
 *
 * usage: bench_mesh [register|introspect|change|memory|idle]...   (none: all)
 */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include "base/clock.h"
#include "base/hash.h"
#include "bench_util.h"
#include "client/call.h"
#include "wire/check.h"
#include "wire/frame.h"
#include "wire/sp.h"

#define CALL_MS 10000u
#define ROOM (1u << 20)

/* ---- a peer that only registers: preamble kind rpc, REQ payloads without SP hello ---- */

struct peer {
    int fd;
    char id[32];
    uint64_t incarnation, version;
    uint8_t *buf;
};

static void send_all(int fd, const uint8_t *data, size_t len)
{
    while (len) {
        ssize_t n = send(fd, data, len, MSG_NOSIGNAL);

        if (n <= 0)
            die("send: %s", strerror(errno));
        data += n;
        len -= (size_t)n;
    }
}

static void recv_all(int fd, uint8_t *data, size_t len)
{
    while (len) {
        ssize_t n = recv(fd, data, len, 0);

        if (n <= 0)
            die("receive: %s", n ? strerror(errno) : "closed");
        data += n;
        len -= (size_t)n;
    }
}

static void peer_open(struct peer *p, const struct meshd *to, unsigned number)
{
    struct sockaddr_in addr = {.sin_family = AF_INET, .sin_port = htons(to->port)};
    struct sockaddr_in from = {.sin_family = AF_INET};
    struct preamble preamble = {.version = PREAMBLE_VERSION, .kind = PREAMBLE_RPC};
    uint8_t bytes[PREAMBLE_MAX], reply[PREAMBLE_HEAD];

    snprintf(p->id, sizeof p->id, "bench-peer-%u", number);
    p->incarnation = clock_wall_us();
    p->version = 0;
    p->buf = malloc(2 * ROOM);
    p->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    from.sin_addr.s_addr = htonl(0x7f010000u + number + 1);
    inet_pton(AF_INET, to->ip, &addr.sin_addr);
    if (bind(p->fd, (struct sockaddr *)&from, sizeof from) < 0 ||
        connect(p->fd, (struct sockaddr *)&addr, sizeof addr) < 0)
        die("connect: %s", strerror(errno));
    snprintf(preamble.peer_id, sizeof preamble.peer_id, "%s", p->id);
    send_all(p->fd, bytes, preamble_pack(&preamble, bytes));
    recv_all(p->fd, reply, sizeof reply);
    if (reply[5])
        die("the preamble was refused with status %u", reply[5]);
}

static void peer_close(struct peer *p)
{
    close(p->fd);
    free(p->buf);
}

/* One call: request out, whole reply in, not unpacked. Returns the reply's parts, in p->buf, and
 * the time from the first byte out to the last byte in. */
static struct frame_parts peer_call(struct peer *p, const char *method,
                                    const ProtobufCMessage *request, double *out_took_s)
{
    Meshd__V1__CallHeader header = MESHD__V1__CALL_HEADER__INIT;
    struct frame_parts parts;
    uint64_t len;
    double begin;

    header.method = (char *)method;
    header.call_id = 1;
    header.deadline_ms = CALL_MS;
    header.wire_version = 1;
    len = 4 + frame_size(&header.base, request);
    if (len > 2 * ROOM - 8)
        die("too much for one message");
    sp_head_pack(SP_TCP, len, p->buf);
    memcpy(p->buf + 8, "\x80\0\0\1", 4);
    frame_pack(&header.base, request, p->buf + 12);
    begin = now_s();
    send_all(p->fd, p->buf, 8 + len);
    recv_all(p->fd, p->buf, 8);
    if (sp_head_parse(SP_TCP, p->buf, 8, 2 * ROOM, &len) < 0)
        die("the reply is not SP");
    recv_all(p->fd, p->buf, len);
    *out_took_s = now_s() - begin;
    if (len < 4 || frame_split(p->buf + 4, len - 4, &parts) < 0)
        die("the reply cannot be read");
    return parts;
}

static const ProtobufCMessage *unpack(struct arena *arena,
                                      const ProtobufCMessageDescriptor *descriptor,
                                      const uint8_t *data, size_t len)
{
    ProtobufCMessage *message;

    if (wire_unpack(descriptor, data, len, arena, &message) < 0)
        die("the reply cannot be unpacked");
    return message;
}

/* Registers n services whose backends have `port`; returns the status of the reply. */
static unsigned peer_register(struct peer *p, unsigned n, unsigned port)
{
    Meshd__V1__RegisterRequest request = MESHD__V1__REGISTER_REQUEST__INIT;
    Meshd__V1__Service *rows = calloc(n, sizeof *rows), **at = calloc(n, sizeof *at);
    char(*text)[2][32] = calloc(n, sizeof *text);
    const Meshd__V1__ReplyHeader *header;
    struct frame_parts parts;
    struct arena arena;
    unsigned status;
    double took;

    for (unsigned i = 0; i < n; i++) {
        snprintf(text[i][0], sizeof text[i][0], "service-%08u", i);
        snprintf(text[i][1], sizeof text[i][1], "127.0.0.1:%u", port);
        meshd__v1__service__init(&rows[i]);
        rows[i].name = text[i][0];
        rows[i].backend_addr = text[i][1];
        request.digest +=
            hash_entry(text[i][0], strlen(text[i][0]), text[i][1], strlen(text[i][1]), 0);
        at[i] = &rows[i];
    }
    request.peer_id = p->id;
    request.incarnation = p->incarnation;
    request.version = ++p->version;
    request.count = n;
    request.has_list = true;
    request.services = at;
    request.n_services = n;
    request.wire_version_min = request.wire_version_max = 1;
    parts = peer_call(p, "/meshd.v1.Registry/RegisterServices", &request.base, &took);
    arena_init(&arena);
    header = (const Meshd__V1__ReplyHeader *)unpack(&arena, &meshd__v1__reply_header__descriptor,
                                                    parts.header, parts.header_len);
    status = header->status;
    if (status)
        fprintf(stderr, "Register: status %u: %s\n", status, header->text);
    arena_fini(&arena);
    free(rows);
    free(at);
    free(text);
    return status;
}

/* A whole introspection, page by page: the rows of services, and the time spent waiting for bytes
 * and unpacking them. */
static size_t introspect(struct peer *p, double *out_wait_s, double *out_unpack_s)
{
    Meshd__V1__IntrospectRequest request = MESHD__V1__INTROSPECT_REQUEST__INIT;
    uint8_t token[64];
    size_t rows = 0;

    *out_wait_s = *out_unpack_s = 0;
    for (;;) {
        double took, begin;
        struct frame_parts parts =
            peer_call(p, "/meshd.v1.Registry/Introspect", &request.base, &took);
        const Meshd__V1__IntrospectReply *page;
        struct arena arena;
        size_t len;

        *out_wait_s += took;
        begin = now_s();
        arena_init(&arena);
        page = (const Meshd__V1__IntrospectReply *)unpack(
            &arena, &meshd__v1__introspect_reply__descriptor, parts.body, parts.body_len);
        rows += page->n_services;
        len = page->next_page_token.len;
        if (len > sizeof token)
            die("a page token of %zu bytes", len);
        if (len)
            memcpy(token, page->next_page_token.data, len);
        arena_fini(&arena);
        *out_unpack_s += now_s() - begin;
        if (!len)
            return rows;
        request.page_token = (ProtobufCBinaryData){.len = len, .data = token};
    }
}

/* ---- calls of a program ---- */

static struct call_conn *client(const struct meshd *m, bool local)
{
    struct call_conn *conn;
    char url[192], why[TLS_WHY];
    int r;

    if (local)
        snprintf(url, sizeof url, "ipc://%s", m->socket);
    else
        snprintf(url, sizeof url, "tcp://%s:%u", m->ip, m->port);
    r = call_open(url, NULL, clock_ms() + CALL_MS, why, &conn);
    if (r < 0)
        die("%s: %s", url, strerror(-r));
    return conn;
}

static struct call_reply *call(struct call_conn *conn, const char *method,
                               const ProtobufCMessage *request)
{
    struct call_reply *reply;
    int r = call_invoke(conn, method, request, clock_ms() + CALL_MS, &reply);

    if (r < 0)
        die("%s: %s", method, strerror(-r));
    if (reply->status)
        die("%s: %s: %s", method, status_name(reply->status), reply->text);
    return reply;
}

static size_t routes_of(struct call_conn *conn, const char *name)
{
    Meshd__V1__LookupRequest request = MESHD__V1__LOOKUP_REQUEST__INIT;
    struct call_reply *reply;
    size_t n;

    request.names = (char **)&name;
    request.n_names = 1;
    reply = call(conn, "Lookup", &request.base);
    n = ((const Meshd__V1__LookupReply *)reply->message)->results[0]->n_routes;
    call_reply_free(reply);
    return n;
}

/* ---- the measurements ---- */

static const char *const quiet[] = {"LOG_MAPS=off", NULL};

static void bench_register(void)
{
    struct meshd m;
    struct peer p;
    unsigned messages = 0;
    double begin;

    meshd_start(&m, "bench", "127.0.0.1", quiet);
    peer_open(&p, &m, 0);
    peer_register(&p, 1000, 1);
    begin = now_s();
    while (now_s() < begin + 3.0 && peer_register(&p, 1000, 2 + messages % 2) == 0)
        messages++;
    printf("Register, 1,000 changed services per message: %.0f services/s into the maps (wanted: "
           "500,000), client's packing included\n",
           1000.0 * messages / (now_s() - begin));
    peer_close(&p);
    meshd_stop(&m);
}

static void bench_introspect(void)
{
    enum { TURNS = 200 };
    double wait[TURNS], unpacking[TURNS];
    struct meshd m;
    struct peer p;
    size_t rows = 0;

    meshd_start(&m, "bench", "127.0.0.1", quiet);
    peer_open(&p, &m, 0);
    peer_register(&p, 10000, 80);
    for (int i = 0; i < TURNS; i++) {
        rows = introspect(&p, &wait[i], &unpacking[i]);
        wait[i] *= 1e3;
        unpacking[i] *= 1e3;
    }
    printf("Introspect, both maps of %zu services, all pages: p50 %.2f ms (wanted: 3), p99 %.2f "
           "ms; unpacking them here p50 %.2f ms more\n",
           rows, percentile(wait, TURNS, 0.5), percentile(wait, TURNS, 0.99),
           percentile(unpacking, TURNS, 0.5));
    peer_close(&p);
    meshd_stop(&m);
}

/* A configuration file with n services, in the node's own directory. */
static void write_config(const char *path, unsigned n)
{
    FILE *f = fopen(path, "w");

    if (!f)
        die("%s: %s", path, strerror(errno));
    fprintf(f, "services:\n");
    for (unsigned i = 0; i < n; i++)
        fprintf(f, "  - {name: \"service-%06u\", backend: \"127.0.0.1:80\"}\n", i);
    fclose(f);
}

static void wait_routes(struct call_conn *conn, const char *name)
{
    double until = now_s() + 10.0;

    while (!routes_of(conn, name)) {
        if (now_s() > until)
            die("%s did not become visible within 10 s", name);
        usleep(200); /* asking without a pause would take a core from the nodes */
    }
}

static void change_with(unsigned services)
{
    enum { TURNS = 200 };
    char config[64] = P_tmpdir "/meshd-config-XXXXXX", set[96], remote[64], name[32];
    const char *with_config[] = {set, "LOG_MAPS=full", NULL};
    const char *with_peer[] = {remote, "LOG_MAPS=full", NULL};
    struct call_conn *at_owner, *at_other;
    struct meshd owner, other;
    double took[TURNS];
    int fd = mkstemp(config);

    close(fd);
    write_config(config, services);
    snprintf(set, sizeof set, "MESHD_CONFIG=%s", config);
    meshd_start(&owner, "owner", "127.0.0.1", with_config);
    snprintf(remote, sizeof remote, "REMOTE_PEER_ADDR=127.0.0.1:%u", owner.port);
    meshd_start(&other, "other", "127.0.0.2", with_peer);
    at_owner = client(&owner, true);
    at_other = client(&other, false);
    wait_routes(at_other, "service-000000");
    for (int i = 0; i < TURNS; i++) {
        Meshd__V1__OfferRequest offer = MESHD__V1__OFFER_REQUEST__INIT;
        double begin;

        snprintf(name, sizeof name, "change-%d", i);
        offer.lease_id = offer.name = name;
        offer.backend_addr = (char *)"127.0.0.1:1";
        begin = now_s();
        call_reply_free(call(at_owner, "Offer", &offer.base));
        wait_routes(at_other, name);
        took[i] = (now_s() - begin) * 1e3;
        poll(NULL, 0, 40); /* changes come one at a time, not as a storm */
    }
    printf("change -> visible at a linked node, %u services, printing in full: p50 %.2f ms, p99 "
           "%.2f ms (wanted: 10)\n",
           services, percentile(took, TURNS, 0.5), percentile(took, TURNS, 0.99));
    call_close(at_owner);
    call_close(at_other);
    meshd_stop(&other);
    meshd_stop(&owner);
    unlink(config);
}

static void bench_change(void)
{
    change_with(10);
    change_with(10000);
}

static void bench_memory(void)
{
    enum { PEERS = 10 };
    struct peer peers[PEERS];
    struct meshd m;
    long anon, rss, anon0, rss0;

    meshd_start(&m, "bench", "127.0.0.1", quiet);
    meshd_memory(&m, &anon0, &rss0);
    for (unsigned i = 0; i < PEERS; i++) {
        peer_open(&peers[i], &m, i);
        if (peer_register(&peers[i], 10000, 80))
            die("Register failed");
    }
    meshd_memory(&m, &anon, &rss);
    printf("100,000 services of 10 peers: %.1f MB RSS (wanted: 60), %.1f MB of it anonymous; empty "
           "node %.1f MB RSS\n",
           (double)rss / 1e3, (double)anon / 1e3, (double)rss0 / 1e3);
    for (unsigned i = 0; i < PEERS; i++)
        peer_close(&peers[i]);
    meshd_stop(&m);
}

static void bench_idle(void)
{
    enum { LINKS = 10 };
    struct meshd hub, leaf[LINKS];
    char remote[64], service[64], ip[16], id[16], name[16];
    const char *extra[] = {remote, service, "LOG_MAPS=off", NULL};
    struct call_conn *conn;
    double cpu, begin, share;
    long anon, rss;

    meshd_start(&hub, "hub", "127.0.0.1", quiet);
    snprintf(remote, sizeof remote, "REMOTE_PEER_ADDR=127.0.0.1:%u", hub.port);
    conn = client(&hub, false);
    for (unsigned i = 0; i < LINKS; i++) {
        snprintf(ip, sizeof ip, "127.0.0.%u", 11 + i);
        snprintf(id, sizeof id, "leaf%u", i);
        snprintf(service, sizeof service, "SERVICE_ADDR=s%u:127.0.0.1:80", i);
        meshd_start(&leaf[i], id, ip, extra);
    }
    for (unsigned i = 0; i < LINKS; i++) {
        snprintf(name, sizeof name, "s%u", i);
        wait_routes(conn, name);
    }
    cpu = meshd_cpu_s(&hub);
    begin = now_s();
    poll(NULL, 0, 10000);
    share = (meshd_cpu_s(&hub) - cpu) / (now_s() - begin);
    meshd_memory(&hub, &anon, &rss);
    printf("idle node with %d links: %.1f MB RSS (wanted: 12), %.1f MB of it anonymous; %.2f %% of "
           "a core (wanted: 1)\n",
           LINKS, (double)rss / 1e3, (double)anon / 1e3, share * 100);
    call_close(conn);
    for (unsigned i = 0; i < LINKS; i++)
        meshd_stop(&leaf[i]);
    meshd_stop(&hub);
}

int main(int argc, char **argv)
{
    static const struct {
        const char *name;
        void (*run)(void);
    } all[] = {{"register", bench_register},
               {"introspect", bench_introspect},
               {"change", bench_change},
               {"memory", bench_memory},
               {"idle", bench_idle}};

    setvbuf(stdout, NULL, _IOLBF, 0);
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        bool wanted = argc == 1;

        for (int k = 1; k < argc; k++)
            wanted = wanted || strcmp(argv[k], all[i].name) == 0;
        if (wanted)
            all[i].run();
    }
    return 0;
}
