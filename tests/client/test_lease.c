/* libmeshd's leases: made, renewed when the node was away or said no, changed, withdrawn when
 * closed.
 */
#include <criterion/criterion.h>
#include <semaphore.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include <meshd/client.h>
#include "base/clock.h"
#include "client/fake.h"
#include "wire/status.h"

#define SOON 20000

static struct fake fake;
static struct mesh_client *client;
static sem_t offered, withdrawn;
static atomic_int offers; /* so far */
static char lease_id[65], name[254], address[262];
static uint64_t ttl_ms;
static struct { /* the rest of the last offer */
    bool has_check, draining;
    int kind, proxy;
    char path[64];
    uint32_t interval_ms, timeout_ms, rise, fall;
} asked;

static void note_offer(const Meshd__V1__OfferRequest *offer)
{
    if (atomic_fetch_add(&offers, 1) > 0)
        cr_expect_str_eq(offer->lease_id, lease_id, "the same lease is renewed");
    snprintf(lease_id, sizeof(lease_id), "%s", offer->lease_id);
    snprintf(name, sizeof(name), "%s", offer->name);
    snprintf(address, sizeof(address), "%s", offer->backend_addr);
    ttl_ms = offer->ttl_ms;
    memset(&asked, 0, sizeof(asked));
    asked.has_check = offer->check;
    asked.draining = offer->draining;
    asked.proxy = (int)offer->proxy_protocol;
    if (offer->check) {
        asked.kind = (int)offer->check->kind;
        snprintf(asked.path, sizeof(asked.path), "%s", offer->check->path);
        asked.interval_ms = offer->check->interval_ms;
        asked.timeout_ms = offer->check->timeout_ms;
        asked.rise = offer->check->rise;
        asked.fall = offer->check->fall;
    }
}

/* What was asked may be looked at then. */
static void wait_for_offers(int n)
{
    while (n-- > 0)
        sem_wait(&offered);
}

/* A node that does what ctx says with its n-th offer: 'y' yes, 'u' yes, and its backend is ill and
 * it drains, 'n' no, 'i' it cannot be, 'x' yes and breaks off, 'b' as 'u' and breaks off, '-'
 * breaks off without an answer, 'h' is silent from there on. The last one stands for all that
 * follow. */
static void serve(struct fake *f, int fd)
{
    const char *script = f->ctx;
    struct fake_call call;

    if (!fake_greet(fd))
        return;
    while (fake_read(f, fd, &call)) {
        Meshd__V1__OfferReply yes = MESHD__V1__OFFER_REPLY__INIT;
        Meshd__V1__WithdrawReply gone = MESHD__V1__WITHDRAW_REPLY__INIT;
        int n = atomic_load(&offers);
        char what = n < (int)strlen(script) ? script[n] : script[strlen(script) - 1];

        if (strcmp(call.method, "Withdraw") == 0) {
            cr_expect_str_eq(((const Meshd__V1__WithdrawRequest *)call.request)->lease_id,
                             lease_id);
            sem_post(&withdrawn);
            fake_reply(f, fd, &call, 0, 0, "", &gone.base);
            what = 'y';
        } else {
            note_offer((const Meshd__V1__OfferRequest *)call.request);
            sem_post(&offered);
            yes.unhealthy = yes.draining = what == 'u' || what == 'b';
            yes.why = (char *)(yes.unhealthy ? "answered 503" : "");
            if (what == 'n')
                fake_reply(f, fd, &call, STATUS_PERMISSION_DENIED, 0, "not you", NULL);
            else if (what == 'i')
                fake_reply(f, fd, &call, STATUS_INVALID_ARGUMENT, 0, "not so", NULL);
            else if (what == 'h')
                fake_drain(fd);
            else if (what != '-')
                fake_reply(f, fd, &call, 0, 0, "", &yes.base);
        }
        fake_call_fini(&call);
        if (what == 'x' || what == 'b' || what == '-')
            return;
    }
}

static void start(const char *script)
{
    alarm(100);
    sem_init(&offered, 0, 0);
    sem_init(&withdrawn, 0, 0);
    fake_start_many(&fake, SP_IPC, serve, (void *)script);
    cr_assert_eq(mesh_client_open(fake.url, SOON, &client), MESH_OK, "%s", mesh_error_text());
}

static void stop(void)
{
    mesh_client_close(client);
    fake_stop(&fake);
}

TestSuite(lease);

Test(lease, an_offer_stands_until_it_is_closed)
{
    struct mesh_lease *lease = NULL;

    start("y");
    cr_assert_eq(mesh_register(client, "Billing.", "10.0.0.7:04100", SOON, &lease), MESH_OK, "%s",
                 mesh_error_text());
    sem_wait(&offered);
    cr_expect_str_eq(name, "billing");
    cr_expect_str_eq(address, "10.0.0.7:4100");
    cr_expect_eq(ttl_ms, 15000);
    cr_expect_eq(strncmp(lease_id, "lib:", 4), 0);
    cr_expect_eq(mesh_lease_state(lease), MESH_OK);
    mesh_lease_close(lease);
    cr_expect_eq(sem_trywait(&withdrawn), 0, "closed is withdrawn");
    stop();
}

Test(lease, a_refusal_is_told_and_leaves_nothing)
{
    struct mesh_lease *lease = NULL;

    start("n");
    cr_expect_eq(mesh_register(client, "billing", "10.0.0.7:4100", SOON, &lease), MESH_REFUSED);
    cr_expect_str_eq(mesh_error_text(), "PERMISSION_DENIED: not you");
    cr_expect_null(lease);
    stop();
}

Test(lease, a_node_that_went_away_is_offered_to_again)
{
    struct mesh_lease *lease = NULL;

    start("x--y");
    cr_assert_eq(mesh_register(client, "billing", "10.0.0.7:4100", SOON, &lease), MESH_OK);
    for (int i = 0; i < 4; i++)
        sem_wait(&offered);
    mesh_lease_close(lease);
    cr_expect_eq(offers, 4);
    cr_expect_eq(sem_trywait(&withdrawn), 0);
    stop();
}

Test(lease, a_renewal_that_is_refused_is_tried_on)
{
    struct mesh_lease *lease = NULL;

    start("xnny");
    cr_assert_eq(mesh_register(client, "billing", "10.0.0.7:4100", SOON, &lease), MESH_OK);
    for (int i = 0; i < 3; i++)
        sem_wait(&offered);
    /* When the third offer was read the second had been turned down. */
    cr_expect_eq(mesh_lease_state(lease), MESH_REFUSED);
    sem_wait(&offered);
    mesh_lease_close(lease);
    stop();
}

Test(lease, is_renewed_before_its_time_is_up)
{
    struct mesh_lease *lease = NULL;
    uint64_t began;

    start("y");
    cr_assert_eq(mesh_register(client, "billing", "10.0.0.7:4100", SOON, &lease), MESH_OK);
    began = clock_ms();
    sem_wait(&offered);
    sem_wait(&offered);
    cr_expect_lt(clock_ms() - began, 15000);
    mesh_lease_close(lease);
    stop();
}

Test(lease, a_node_that_hangs_holds_nobody_up_for_long)
{
    struct mesh_lease *lease = NULL;
    uint64_t began;

    start("xh");
    cr_assert_eq(mesh_register(client, "billing", "10.0.0.7:4100", SOON, &lease), MESH_OK);
    sem_wait(&offered);
    sem_wait(&offered);
    began = clock_ms();
    mesh_lease_close(lease);
    cr_expect_lt(clock_ms() - began, 10000);
    stop();
}

Test(lease, a_connection_that_breaks_under_the_first_offer_is_made_again)
{
    struct mesh_lease *lease = NULL;

    start("--y");
    cr_assert_eq(mesh_register(client, "web", "127.0.0.1:80", SOON, &lease), MESH_OK, "%s",
                 mesh_error_text());
    cr_expect_eq(atomic_load(&offers), 3);
    mesh_lease_close(lease);
    mesh_client_close(client);
    fake_stop(&fake);
}

/* ---- as what it is offered ---- */

static const struct mesh_offer whole = {
    .size = sizeof(whole),
    .check = "http:/up?full",
    .check_interval_ms = 500,
    .check_timeout_ms = 250,
    .check_rise = 4,
    .check_fall = 5,
    .proxy_protocol = 2,
    .draining = 1,
};

static bool asked_for_the_whole(void)
{
    return asked.has_check && asked.kind == MESHD__V1__CHECK_KIND__CHECK_KIND_HTTP &&
           strcmp(asked.path, "/up?full") == 0 && asked.interval_ms == 500 &&
           asked.timeout_ms == 250 && asked.rise == 4 && asked.fall == 5 && asked.proxy == 2 &&
           asked.draining;
}

static struct mesh_lease *registered(const struct mesh_offer *offer)
{
    struct mesh_lease *lease = NULL;

    cr_assert_eq(mesh_register_with(client, "web", "h:1", offer, SOON, &lease), MESH_OK, "%s",
                 mesh_error_text());
    return lease;
}

Test(lease, an_offer_is_what_its_fields_say_and_renewed_as_that)
{
    struct mesh_lease *lease;

    start("xy");
    lease = registered(&whole);
    cr_expect(asked_for_the_whole());
    wait_for_offers(2);
    mesh_lease_close(lease);
    stop();
    cr_expect(asked_for_the_whole());
}

Test(lease, an_offer_of_no_fields_has_no_check)
{
    const struct mesh_offer none = {.size = sizeof(none)};
    struct mesh_lease *lease;

    start("y");
    lease = registered(&none);
    cr_expect_not(asked.has_check || asked.draining);
    cr_expect_eq(asked.proxy, 0);
    mesh_lease_close(lease);
    stop();
}

static void expect_invalid(const struct mesh_offer *offer, const char *why)
{
    struct mesh_lease *lease = NULL;

    cr_expect_eq(mesh_register_with(client, "web", "h:1", offer, SOON, &lease), MESH_INVALID,
                 "not: %s", why);
    cr_expect(strstr(mesh_error_text(), why), "%s", mesh_error_text());
    cr_expect_null(lease);
}

Test(lease, fields_that_cannot_be_are_not_offered)
{
    struct {
        struct mesh_offer known;
        uint64_t later; /* what this version does not know */
    } longer = {.known = {.size = sizeof(longer)}};

    start("y");
    expect_invalid(&(struct mesh_offer){.check = "tcp"}, "mesh_offer.size");
    expect_invalid(&(struct mesh_offer){.size = SIZE_MAX}, "mesh_offer.size");
    expect_invalid(&(struct mesh_offer){.size = sizeof(struct mesh_offer), .check = "icmp"},
                   "the check 'icmp' is neither tcp nor http:/path");
    expect_invalid(&(struct mesh_offer){.size = sizeof(struct mesh_offer), .check = "http:up"},
                   "begins with /");
    expect_invalid(&(struct mesh_offer){.size = sizeof(struct mesh_offer), .check_fall = 2},
                   "nothing says how to check");
    expect_invalid(&(struct mesh_offer){.size = sizeof(struct mesh_offer), .proxy_protocol = 3},
                   "proxy_protocol");
    longer.later = 1;
    expect_invalid(&longer.known, "mesh_offer.size");
    cr_expect_eq(atomic_load(&offers), 0);
    longer.later = 0;
    mesh_lease_close(registered(&longer.known));
    stop();
}

Test(lease, what_the_node_finds_of_the_backend_is_told_with_each_renewal)
{
    struct mesh_lease *lease;

    start("xbu");
    lease = registered(&whole);
    wait_for_offers(3); /* when the third was read, the second's answer was taken */
    cr_expect_eq(mesh_lease_service(lease), MESH_DRAINING);
    cr_expect_str_eq(mesh_error_text(), "answered 503");
    mesh_lease_close(lease);
    stop();
}

/* ---- another offer ---- */

Test(lease, a_change_is_offered_at_once_and_stays)
{
    struct mesh_lease *lease;

    start("yuxy");
    lease = registered(NULL);
    cr_expect_eq(mesh_lease_change(lease, "H:02", &whole, SOON), MESH_OK, "%s", mesh_error_text());
    cr_expect_str_eq(address, "h:2");
    cr_expect(asked_for_the_whole());
    cr_expect_eq(mesh_lease_service(lease), MESH_DRAINING);
    cr_expect_str_eq(mesh_error_text(), "answered 503");
    cr_expect_eq(mesh_lease_change(lease, NULL, NULL, SOON), MESH_OK, "%s", mesh_error_text());
    cr_expect_eq(mesh_lease_service(lease), MESH_HEALTHY);
    wait_for_offers(4); /* the node was away */
    mesh_lease_close(lease);
    stop();
    cr_expect_str_eq(address, "h:2");
    cr_expect(asked_for_the_whole());
}

Test(lease, a_change_that_is_turned_down_leaves_what_stood)
{
    struct mesh_lease *lease;

    start("yiy");
    lease = registered(NULL);
    cr_expect_eq(mesh_lease_change(lease, "h:1", &(struct mesh_offer){.size = 1}, SOON),
                 MESH_INVALID);
    cr_expect_eq(mesh_lease_change(lease, "h", NULL, SOON), MESH_INVALID);
    cr_expect_eq(mesh_lease_change(lease, NULL, NULL, 0), MESH_INVALID);
    cr_expect_eq(atomic_load(&offers), 1, "the node is not asked");
    cr_expect_eq(mesh_lease_change(lease, "h:2", &whole, SOON), MESH_INVALID);
    cr_expect_str_eq(mesh_error_text(), "INVALID_ARGUMENT: not so");
    wait_for_offers(3); /* at once, and as it was */
    cr_expect_eq(mesh_lease_state(lease), MESH_OK);
    cr_expect_eq(mesh_lease_change(lease, NULL, NULL, SOON), MESH_OK);
    mesh_lease_close(lease);
    stop();
    cr_expect_str_eq(address, "h:1");
    cr_expect_not(asked.has_check);
}

Test(lease, a_change_that_is_not_answered_is_tried_on)
{
    struct mesh_lease *lease;

    start("y--y");
    lease = registered(NULL);
    cr_expect_eq(mesh_lease_change(lease, NULL, &whole, SOON), MESH_OK, "%s", mesh_error_text());
    cr_expect_eq(atomic_load(&offers), 4);
    cr_expect(asked_for_the_whole());
    mesh_lease_close(lease);
    stop();
}

Test(lease, a_change_is_not_waited_for_longer_than_the_deadline)
{
    struct mesh_lease *lease;
    enum mesh_status status;

    start("y-");
    lease = registered(NULL);
    status = mesh_lease_change(lease, NULL, &whole, 300);
    cr_expect(status == MESH_GONE || status == MESH_TIMEOUT, "%d", (int)status);
    mesh_lease_close(lease);
    stop();
    cr_expect(asked_for_the_whole());
}
