/* Who is chosen, and what is said of that: routes of names, as forward_explain tells them. */
#include <criterion/criterion.h>
#include <unistd.h>
#include "forward/must.h"
#include "forward/peer.h"
#include "forward/route.h"

#define PEERS 20

static struct rig rig;
static struct peer peers[PEERS];
static unsigned n_peers;
static struct registry_route routes[PEERS];
static struct forward_candidate candidates[PEERS];
static struct forward_explained explained;

static void setup(void)
{
    rig_init(&rig);
    rig.settings.workers = 1;
    rig.limits.data_warm_per_link = 0;
    rig_start(&rig);
}

TestSuite(route, .init = setup, .timeout = 60);

static struct peer *add_peer(const char *name)
{
    struct peer *peer = &peers[n_peers];
    char id[16];

    snprintf(id, sizeof id, "p%u", n_peers);
    peer_init(peer, &rig, id, 100 + n_peers, false);
    peer_offer(peer, name);
    peer_up(peer);
    n_peers++;
    return peer;
}

static void end(void)
{
    RIG_WAIT(&rig, DIALLER, clients, 0);
    registry_routes_fini(&explained.routes);
    for (unsigned i = 0; i < n_peers; i++)
        peer_down(&peers[i]);
    rig_settle(rig.sides[DIALLER].forward);
    for (unsigned i = 0; i < n_peers; i++)
        peer_fini(&peers[i]);
    rig_end(&rig);
}

static void explain_with(const char *name, size_t cap)
{
    registry_routes_fini(&explained.routes);
    explained = (struct forward_explained){.routes = {.at = routes, .cap = cap}, .at = candidates};
    forward_explain(rig.sides[DIALLER].forward, name, strlen(name), &explained);
}

static void explain(const char *name) { explain_with(name, PEERS); }

static struct forward_candidate *of(const char *peer_id)
{
    for (size_t i = 0; i < explained.routes.n; i++)
        if (strcmp(candidates[i].route->peer_id, peer_id) == 0)
            return &candidates[i];
    MUST(!"among them");
    return NULL;
}

Test(route, a_name_that_nobody_offers_has_no_route)
{
    explain("web");
    cr_assert_eq(explained.routes.n, 0);
    cr_assert_str_eq(explained.matched, "");
    cr_assert_str_eq(explained.verdict, "nobody offers this name here");
    end();
}

Test(route, a_local_backend_comes_first)
{
    add_peer("web");
    rig_offer(&rig, DIALLER, "web", "127.0.0.1:9");
    explain("web");
    cr_assert_eq(explained.routes.n, 2);
    cr_assert(candidates[0].route->local && candidates[0].chosen);
    cr_assert_str_eq(candidates[0].why, "it is local");
    cr_assert_not(candidates[1].chosen);
    cr_assert_str_eq(candidates[1].why, "a local backend comes first");
    cr_assert_str_eq(explained.verdict, "goes to local: it is local");
    end();
}

Test(route, a_peer_that_is_not_connected_is_not_chosen)
{
    peer_down(add_peer("web"));
    explain("web");
    cr_assert_eq(explained.routes.n, 1);
    cr_assert_not(candidates[0].chosen);
    cr_assert_str_eq(candidates[0].why, "its link is lost");
    cr_assert_str_eq(explained.verdict, "no owner is connected: 503");
    add_peer("web");
    explain("web");
    cr_assert(of("p1")->chosen);
    cr_assert_str_eq(of("p0")->why, "its link is lost");
    end();
}

Test(route, one_that_is_about_to_leave_comes_after_others)
{
    struct peer *leaving = add_peer("web");

    peer_draining(leaving);
    explain("web");
    cr_assert(of("p0")->chosen);
    cr_assert_str_eq(of("p0")->why, "it is about to leave, and there is nobody better");
    add_peer("web");
    explain("web");
    cr_assert(of("p1")->chosen);
    cr_assert_str_eq(of("p1")->why, "connected, with 0 forwards of this node");
    cr_assert_str_eq(of("p0")->why, "it is about to leave; others come first");
    end();
}

Test(route, an_unhealthy_backend_comes_after_others)
{
    struct peer *sick = add_peer("web");

    peer_offer_as(sick, "web", ROW_UNHEALTHY);
    explain("web");
    cr_assert(of("p0")->chosen);
    cr_assert_not(of("p0")->route->healthy);
    cr_assert_str_eq(of("p0")->why,
                     "unhealthy: its backend does not answer, and there is nobody better");
    add_peer("web");
    explain("web");
    cr_assert(of("p1")->chosen);
    cr_assert_str_eq(of("p0")->why, "unhealthy: its backend does not answer; others come first");
    peer_offer_as(sick, "web", ROW_DRAINING);
    explain("web");
    cr_assert(of("p1")->chosen);
    cr_assert(of("p0")->route->healthy && of("p0")->route->draining);
    cr_assert_str_eq(of("p0")->why, "draining; others come first");
    peer_offer_as(sick, "web", ROW_DRAINING | ROW_UNHEALTHY);
    explain("web");
    cr_assert_str_eq(of("p0")->why, "draining, and unhealthy: its backend does not answer; others "
                                    "come first");
    end();
}

Test(route, an_unhealthy_local_backend_comes_after_others_but_before_their_unhealthy_ones)
{
    struct peer *peer = add_peer("web");

    rig_offer_as(&rig, DIALLER, "web", "127.0.0.1:9", ROW_UNHEALTHY);
    explain("web");
    cr_assert(of("p0")->chosen);
    cr_assert_str_eq(candidates[1].why,
                     "unhealthy: its backend does not answer; others come first");
    peer_offer_as(peer, "web", ROW_UNHEALTHY);
    explain("web");
    cr_assert(candidates[0].route->local && candidates[0].chosen);
    cr_assert_str_eq(of("p0")->why, "a local backend comes first");
    peer_offer_as(peer, "web", ROW_DRAINING);
    explain("web");
    cr_assert(of("p0")->chosen, "it may have ended that, and refuses at once if it has not");
    end();
}

Test(route, a_local_service_that_is_draining_is_chosen_by_nobody)
{
    struct peer *peer = add_peer("web");

    rig_offer_as(&rig, DIALLER, "web", "127.0.0.1:9", ROW_DRAINING);
    peer_offer_as(peer, "web", ROW_UNHEALTHY);
    explain("web");
    cr_assert(of("p0")->chosen);
    cr_assert_str_eq(candidates[1].why, "draining: it takes no new clients");
    peer_down(peer);
    explain("web");
    cr_assert_not(candidates[0].chosen || candidates[1].chosen);
    cr_assert_str_eq(explained.verdict,
                     "it is draining here, and no other owner is connected: 503");
    end();
}

static bool anybody_asked(void *arg)
{
    return !peer_heard_nothing(&peers[0]) || !peer_heard_nothing(&peers[1]);
}

Test(route, the_one_with_the_fewest_forwards_is_chosen)
{
    static const char request[] = "GET / HTTP/1.1\r\nHost: web\r\n\r\n";
    struct peer *busy, *idle;
    int client;

    add_peer("web");
    add_peer("web");
    client = net_connect(rig.sides[DIALLER].port);
    net_send(client, request, strlen(request));
    wait_until(anybody_asked, NULL);
    busy = peer_heard_nothing(&peers[0]) ? &peers[1] : &peers[0];
    idle = busy == &peers[0] ? &peers[1] : &peers[0];
    explain("web");
    cr_assert(of(idle->id)->chosen);
    cr_assert_eq(of(busy->id)->active, 1);
    cr_assert_str_eq(of(busy->id)->why, "1 forwards of this node, more than 0");
    net_reset(client);
    RIG_WAIT(&rig, DIALLER, clients, 0);
    explain("web");
    cr_assert(of(busy->id)->chosen);
    cr_assert_eq(strncmp(of(idle->id)->why, "as good, but after 127.0.0.1", 28), 0, "%s",
                 of(idle->id)->why);
    end();
}

Test(route, the_last_failure_is_remembered)
{
    static const char request[] = "GET / HTTP/1.1\r\nHost: web\r\n\r\n";
    struct peer_forward forward;
    char got[1024];
    int client;

    add_peer("web");
    explain("web");
    cr_assert_not(of("p0")->has_failed);
    client = net_connect(rig.sides[DIALLER].port);
    net_send(client, request, strlen(request));
    peer_next_forward(&peers[0], &forward);
    peer_reply(&peers[0], forward.id, MESHD__V1__REFUSAL__REFUSAL_BACKEND_REFUSED, "nobody home");
    net_read_all(client, got, sizeof got);
    close(client);
    explain("web");
    cr_assert(of("p0")->has_failed);
    cr_assert_eq(of("p0")->failed, FORWARD_BACKEND_REFUSED);
    cr_assert_str_eq(of("p0")->failed_text, "nobody home");
    cr_assert_lt(of("p0")->failed_ms_ago, WAIT_MS);
    end();
}

Test(route, failures_are_remembered_up_to_a_number)
{
    struct forward *forward = rig.sides[DIALLER].forward;
    char name[32];

    add_peer("n0.x");
    peer_offer(&peers[0], "n2000.x");
    for (int i = 0; i <= 2000; i++) {
        snprintf(name, sizeof name, "n%d.x", i);
        failure_note(forward, name, "p0", FORWARD_OWNER_SILENT, name);
    }
    explain("n0.x");
    cr_assert_not(of("p0")->has_failed);
    explain("n2000.x");
    cr_assert(of("p0")->has_failed);
    failure_note(forward, "n2000.x", "p0", FORWARD_OWNER_LOST, "anew");
    explain("n2000.x");
    cr_assert_str_eq(of("p0")->failed_text, "anew");
    end();
}

static void matches(const char *name, const char *matched)
{
    explain(name);
    cr_assert_str_eq(explained.matched, matched, "%s: %s", name, explained.matched);
}

Test(route, the_name_itself_beats_a_wildcard_and_the_longest_beats_the_others)
{
    add_peer("*.x.y");
    add_peer("*.b.x.y");
    add_peer("a.b.x.y");
    matches("a.b.x.y", "a.b.x.y");
    matches("c.b.x.y", "*.b.x.y");
    matches("d.c.b.x.y", "*.b.x.y");
    matches("b.x.y", "*.x.y");
    matches("z.x.y", "*.x.y");
    matches("x.y", "");
    matches("y", "");
    matches("ax.y", "");
    end();
}

Test(route, more_owners_than_are_looked_at_do_no_harm)
{
    size_t n_chosen = 0;

    for (int i = 0; i < PEERS; i++)
        add_peer("web");
    explain("web");
    cr_assert_eq(explained.routes.n, ROUTES_MAX);
    for (size_t i = 0; i < explained.routes.n; i++)
        n_chosen += candidates[i].chosen;
    cr_assert_eq(n_chosen, 1);
    explain_with("web", 3);
    cr_assert_eq(explained.routes.n, 3);
    cr_assert(candidates[0].chosen);
    end();
}

Test(route, longest_names_are_explained)
{
    char name[LIMIT_NAME + 1];

    memset(name, 'a', LIMIT_NAME);
    for (int i = 63; i < (int)LIMIT_NAME; i += 64)
        name[i] = '.';
    name[LIMIT_NAME] = '\0';
    add_peer(name);
    matches(name, name);
    name[0] = 'b';
    matches(name, "");
    end();
}
