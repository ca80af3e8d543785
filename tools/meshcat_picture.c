/* meshcat_picture - pictures of a node, in pages: introspect, services, peers, node. */
#include "meshcat_picture.h"
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/limits.h"
#include "meshcat_format.h"

#define ROWS_MAX 10000000u /* the most that a node's services map may be set to hold */

void picture_fini(struct picture *p)
{
    for (size_t i = 0; i < p->all.n_peer_services; i++) {
        free(p->all.peer_services[i]->services);
        free(p->all.peer_services[i]);
    }
    free(p->all.services);
    free(p->all.peer_services);
    for (size_t i = 0; i < p->n_replies; i++)
        call_reply_free(p->replies[i]);
    free(p->replies);
}

static void add_services(struct picture *p, const Meshd__V1__IntrospectReply *page)
{
    size_t n = p->all.n_services;

    p->all.services =
        must_realloc(p->all.services, (n + page->n_services) * sizeof(*p->all.services));
    for (size_t i = 0; i < page->n_services; i++)
        p->all.services[n++] = page->services[i];
    p->all.n_services = n;
    p->rows += page->n_services;
}

static void add_to_peer(Meshd__V1__PeerServicesRow *to, const Meshd__V1__PeerServicesRow *from)
{
    to->services =
        must_realloc(to->services, (to->n_services + from->n_services) * sizeof(*to->services));
    for (size_t i = 0; i < from->n_services; i++)
        to->services[to->n_services++] = from->services[i];
}

/* A peer that the page before ended with goes on in this one: the same row. */
static void add_peers(struct picture *p, const Meshd__V1__IntrospectReply *page)
{
    Meshd__V1__IntrospectReply *all = &p->all;

    all->peer_services =
        must_realloc(all->peer_services,
                     (all->n_peer_services + page->n_peer_services) * sizeof(*all->peer_services));
    for (size_t i = 0; i < page->n_peer_services; i++) {
        const Meshd__V1__PeerServicesRow *from = page->peer_services[i];
        Meshd__V1__PeerServicesRow *to = NULL;

        if (i == 0 && all->n_peer_services > 0)
            to = all->peer_services[all->n_peer_services - 1];
        if (!to || strcmp(to->peer_ip, from->peer_ip) != 0) {
            to = must_alloc(sizeof(*to));
            *to = *from;
            to->services = NULL;
            to->n_services = 0;
            all->peer_services[all->n_peer_services++] = to;
        }
        add_to_peer(to, from);
        p->rows += 1 + from->n_services;
    }
}

/* Takes reply. False: it does not belong to the pages before, or goes on without a row: so pages
 * without end would be kept. */
static bool add_page(struct picture *p, struct call_reply *reply)
{
    const Meshd__V1__IntrospectReply *page = (const Meshd__V1__IntrospectReply *)reply->message;
    size_t rows = p->rows;

    p->replies = must_realloc(p->replies, (p->n_replies + 1) * sizeof(*p->replies));
    p->replies[p->n_replies++] = reply;
    if (p->n_replies == 1) {
        p->all = *page;
        p->all.services = NULL;
        p->all.n_services = 0;
        p->all.peer_services = NULL;
        p->all.n_peer_services = 0;
    } else if (page->epoch != p->all.epoch || page->revision != p->all.revision) {
        return false;
    }
    add_services(p, page);
    add_peers(p, page);
    p->all.next_page_token = page->next_page_token;
    return p->rows <= ROWS_MAX && (p->rows > rows || page->next_page_token.len == 0);
}

/* Whether rows beyond --limit are there already, so that no further page can matter. */
static bool enough(const struct meshcat_opts *opts, const struct picture *p, unsigned parts)
{
    return opts->limit && (!(parts & SHOW_SERVICES) || p->all.n_services > opts->limit) &&
           (!(parts & SHOW_PEERS) || p->all.n_peer_services > opts->limit);
}

int picture_fetch(struct session *s, Meshd__V1__IntrospectRequest *request, unsigned parts,
                  struct picture *p)
{
    *p = (struct picture){.all = MESHD__V1__INTROSPECT_REPLY__INIT};
    do {
        struct call_reply *reply = NULL;
        int code = ask(s, "Introspect", &request->base, &reply);

        if (code)
            return code;
        if (!add_page(p, reply))
            return show_error(s->opts, EXIT_PROTOCOL, -1,
                              "the pages that %s sent do not belong together; ask again, with "
                              "--name or --limit for less",
                              s->url);
        request->page_token = p->all.next_page_token;
    } while (request->page_token.len > 0 && !enough(s->opts, p, parts));
    p->all.next_page_token = (ProtobufCBinaryData){0, NULL};
    return 0;
}

/* What a command asks for. The table of peers counts services only, and without a filter the node
 * need not list them for that. */
static size_t sections_of(const struct meshcat_opts *opts, unsigned parts,
                          Meshd__V1__Section out[2])
{
    size_t n = 0;

    if (parts == SHOW_NODE) {
        out[n++] = MESHD__V1__SECTION__SECTION_NODE;
        out[n++] = MESHD__V1__SECTION__SECTION_LIMITS;
    }
    if (parts & SHOW_SERVICES)
        out[n++] = MESHD__V1__SECTION__SECTION_SERVICES;
    if (parts == SHOW_PEERS && opts->format == FORMAT_TABLE && !opts->name_glob)
        out[n++] = MESHD__V1__SECTION__SECTION_PEERS;
    else if (parts & SHOW_PEERS)
        out[n++] = MESHD__V1__SECTION__SECTION_PEER_SERVICES;
    return n;
}

static int fetch(struct session *s, unsigned parts, struct picture *p)
{
    const struct meshcat_opts *o = s->opts;
    Meshd__V1__Section sections[2];
    Meshd__V1__IntrospectRequest request = MESHD__V1__INTROSPECT_REQUEST__INIT;

    request.sections = sections;
    request.n_sections = sections_of(o, parts, sections);
    if (o->name_glob)
        request.name_glob = (char *)o->name_glob;
    if (o->peer)
        request.peer = (char *)o->peer;
    request.state = o->state;
    if (parts == SHOW_SERVICES && o->limit && o->limit < LIMIT_PAGE_ROWS)
        request.page_rows = o->limit + 1; /* one more shows that there are more */
    return picture_fetch(s, &request, parts, p);
}

/* The pages as they came; as text, which no two of them may be in one, all in one. */
static void show_messages(const struct meshcat_opts *opts, const struct picture *p)
{
    if (opts->format == FORMAT_TEXT) {
        format_message(opts, &p->all.base, NULL, 0);
        return;
    }
    for (size_t i = 0; i < p->n_replies; i++)
        format_message(opts, p->replies[i]->message, p->replies[i]->packed,
                       p->replies[i]->packed_len);
}

/* Drops what is beyond --limit. */
static void cut(const struct meshcat_opts *opts, struct picture *p)
{
    Meshd__V1__IntrospectReply *all = &p->all;
    bool more = false;

    if (!opts->limit)
        return;
    if (all->n_services > opts->limit) {
        all->n_services = opts->limit;
        more = true;
    }
    while (all->n_peer_services > opts->limit) {
        free(all->peer_services[--all->n_peer_services]->services);
        free(all->peer_services[all->n_peer_services]);
        more = true;
    }
    if (more)
        show_note(opts, "there are more rows than --limit %" PRIu32 "; raise it to see them",
                  opts->limit);
}

static int run_picture(const struct meshcat_opts *opts, unsigned parts)
{
    CLEANUP(session_fini) struct session s = {.conn = NULL};
    CLEANUP(picture_fini)
    struct picture p = {.all = MESHD__V1__INTROSPECT_REPLY__INIT};
    uint64_t began = clock_ms();
    int code = session_begin(&s, opts, false);

    if (code == 0)
        code = fetch(&s, parts, &p);
    if (code)
        return code;
    cut(opts, &p);
    if (opts->verbose)
        show_note(opts,
                  "%s: %s, epoch %" PRIu64 ", revision %" PRIu64 ": %zu services, %zu peers, "
                  "%zu pages, %" PRIu64 " ms",
                  s.url, p.all.peer_id, p.all.epoch, p.all.revision, p.all.n_services,
                  p.all.n_peer_services, p.n_replies, clock_ms() - began);
    if (format_is_message(opts))
        show_messages(opts, &p);
    else
        show_picture(opts, &p.all, parts);
    if (parts == SHOW_NODE || p.all.n_services + p.all.n_peer_services > 0)
        return EXIT_FOUND;
    show_note(opts, "nothing matched; %s",
              opts->name_glob || opts->peer || opts->state ? "fewer filters match more"
                                                           : "the node knows of nothing here yet");
    return EXIT_NOTHING;
}

int run_introspect(const struct meshcat_opts *opts)
{
    return run_picture(opts, SHOW_SERVICES | SHOW_PEERS);
}

int run_services(const struct meshcat_opts *opts) { return run_picture(opts, SHOW_SERVICES); }

int run_peers(const struct meshcat_opts *opts) { return run_picture(opts, SHOW_PEERS); }

int run_node(const struct meshcat_opts *opts) { return run_picture(opts, SHOW_NODE); }
