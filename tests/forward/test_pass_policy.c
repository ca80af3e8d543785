/* Rules: whose clients may be brought to which backend; and other rules while they run. */
#include <criterion/criterion.h>
#include <sys/socket.h>
#include <unistd.h>
#include "forward/must.h"
#include "forward/requester.h"
#include "policy/policy.h"
#include "wire/status.h"

static struct policy_keeper *keeper;

static void setup(void)
{
    requester_setup();
    cr_assert_eq(policy_keeper_new(NULL, 0, &keeper), 0);
    rig.settings.policy = keeper;
}

static void teardown(void) { policy_keeper_free(keeper); }

TestSuite(pass_policy, .init = setup, .fini = teardown, .timeout = 60);

/* One rule about everybody. */
static void rule(bool link, const char *names)
{
    static const char *const all[] = {"*"};
    const struct policy_rule one = {.name = "edge",
                                    .peers = all,
                                    .n_peers = 1,
                                    .link = link,
                                    .forward_names = &names,
                                    .n_forward = names != NULL};

    cr_assert_eq(policy_keeper_set(keeper, &one, 1), 0);
}

static uint64_t denied(enum policy_action action)
{
    struct policy_counters counters;

    policy_counters(keeper, &counters);
    return counters.denied[action];
}

static void is_refused(const char *why)
{
    char text[LIMIT_STATUS_TEXT + 1];

    cr_assert_eq(peer_next_reply(&peer, id, text), MESHD__V1__REFUSAL__REFUSAL_NOT_ALLOWED);
    cr_assert_str_eq(text, why);
}

/* ---- owner ---- */

Test(pass_policy, a_forward_that_a_rule_does_not_allow_is_refused_by_its_name)
{
    rule(true, "db");
    requester_start(false);
    forward_with("", 0, false);
    is_refused("policy rule 'edge' does not let a be forwarded to this name");
    cr_expect_eq(denied(POLICY_FORWARD), 1);
    cr_expect_eq(rig_counters(&rig, DIALLER).forwards_refused, 1);
    id[0]++;
    rule(true, "w*");
    forward_with("", 0, false);
    expect_accepted();
    close(net_accept(backend_fd));
    peer_cancel(&peer, id);
    requester_end();
}

Test(pass_policy, who_may_have_no_link_may_be_forwarded_to_nothing)
{
    rule(false, "*");
    requester_start(false);
    forward_with("", 0, false);
    is_refused("policy rule 'edge' does not let a have a link with this node");
    requester_end();
}

Test(pass_policy, no_data_connection_is_dialled_for_what_is_refused)
{
    rule(true, NULL);
    requester_start(true);
    forward_with("", 0, true);
    is_refused("policy rule 'edge' does not let a be forwarded to this name");
    cr_expect_eq(rig_counters(&rig, DIALLER).data_dialled, 0);
    requester_end();
}

Test(pass_policy, data_of_who_may_have_no_link_is_refused)
{
    struct data_header header = {.offset = 0};
    int status = 0;

    requester_start(false);
    rule(false, NULL);
    memcpy(header.forward_id, id, FORWARD_ID_LEN);
    close(peer_dial_data(&peer, DATA_FIRST_DIALLER, &header, &status));
    cr_expect_eq(status, STATUS_PERMISSION_DENIED);
    cr_expect_eq(rig_counters(&rig, DIALLER).data_unexpected, 1);
    requester_end();
}

/* ---- other rules ---- */

Test(pass_policy, a_pending_forward_that_is_not_allowed_any_more_is_refused)
{
    int backend;

    requester_start(false);
    forward_with("", 0, false);
    expect_accepted();
    backend = net_accept(backend_fd);
    rule(true, "w*");
    forward_check_again(rig.sides[DIALLER].forward);
    rig_settle(rig.sides[DIALLER].forward);
    MUST(peer_heard_nothing(&peer));
    rule(true, "db");
    forward_check_again(rig.sides[DIALLER].forward);
    is_refused("policy rule 'edge' does not let a be forwarded to this name");
    MUST(net_is_reset(backend));
    close(backend);
    requester_end();
}

/* A client of LISTENER, through DIALLER, to its backend; nobody has ended. */
struct way {
    int listener, client, backend;
};

static struct way joined(void)
{
    static const char request[] = "GET / HTTP/1.1\r\nHost: web\r\n\r\n";
    struct way way;
    char addr[32];

    way.listener = net_listen(addr);
    rig_start(&rig);
    rig_link_up(&rig);
    rig_offer(&rig, DIALLER, "web", addr);
    way.client = net_connect(rig.sides[LISTENER].port);
    net_send(way.client, request, strlen(request));
    way.backend = net_accept(way.listener);
    net_expect(way.backend, request, strlen(request));
    net_send(way.backend, "hello", 5);
    net_expect(way.client, "hello", 5);
    return way;
}

static void end(struct way *way)
{
    close(way->client);
    close(way->backend);
    close(way->listener);
    RIG_WAIT(&rig, DIALLER, served, 0);
    rig_end(&rig);
}

Test(pass_policy, what_is_still_allowed_goes_on)
{
    struct way way = joined();

    rule(true, "web");
    for (int i = 0; i < 2; i++)
        forward_check_again(rig.sides[i].forward);
    for (int i = 0; i < 2; i++)
        rig_settle(rig.sides[i].forward);
    net_send(way.client, "more", 4);
    net_expect(way.backend, "more", 4);
    end(&way);
}

Test(pass_policy, the_owner_cuts_off_what_is_not_allowed_any_more)
{
    struct way way = joined();

    rule(true, "db");
    forward_check_again(rig.sides[DIALLER].forward);
    MUST(net_is_reset(way.backend));
    MUST(net_is_reset(way.client));
    RIG_WAIT(&rig, DIALLER, data_revoked, 1);
    end(&way);
}

Test(pass_policy, the_other_side_cuts_off_its_clients_of_a_peer_that_may_have_no_link)
{
    struct way way = joined();

    rule(false, "web");
    forward_check_again(rig.sides[LISTENER].forward);
    MUST(net_is_reset(way.client));
    MUST(net_is_reset(way.backend));
    RIG_WAIT(&rig, LISTENER, ends[FORWARD_REVOKED], 1);
    RIG_WAIT(&rig, LISTENER, data_revoked, 1);
    end(&way);
}

/* ---- clients ---- */

Test(pass_policy, a_client_is_told_403_and_by_which_rule)
{
    static const char request[] = "GET / HTTP/1.1\r\nHost: web\r\n\r\n";
    char got[1024], addr[32];
    int listener = net_listen(addr), client;

    rule(true, "db");
    rig_start(&rig);
    rig_link_up(&rig);
    rig_offer(&rig, DIALLER, "web", addr);
    client = net_connect(rig.sides[LISTENER].port);
    net_send(client, request, strlen(request));
    net_read_all(client, got, sizeof got);
    cr_expect(strstr(got, "HTTP/1.1 403 Forbidden\r\n") == got, "%s", got);
    cr_expect(strstr(got, "\n403 Forbidden: the owner does not allow it\n"), "%s", got);
    cr_expect(strstr(got, "policy rule 'edge' does not let l be forwarded to this name"), "%s",
              got);
    close(client);
    RIG_WAIT(&rig, LISTENER, ends[FORWARD_NOT_ALLOWED], 1);
    MUST(net_nobody_comes(listener));
    close(listener);
    rig_end(&rig);
}

Test(pass_policy, the_own_clients_of_a_node_are_not_asked_about)
{
    static const char request[] = "GET / HTTP/1.1\r\nHost: web\r\n\r\n";
    char addr[32];
    int listener = net_listen(addr), client, backend;

    rule(false, NULL);
    rig_start(&rig);
    rig_offer(&rig, DIALLER, "web", addr);
    client = net_connect(rig.sides[DIALLER].port);
    net_send(client, request, strlen(request));
    backend = net_accept(listener);
    net_expect(backend, request, strlen(request));
    close(client);
    close(backend);
    close(listener);
    rig_end(&rig);
}
