/* libmeshd's leases: made, renewed when the node was away or said no, withdrawn when closed. */
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

static void note_offer(const Meshd__V1__OfferRequest *offer)
{
    if (atomic_fetch_add(&offers, 1) > 0)
        cr_expect_str_eq(offer->lease_id, lease_id, "the same lease is renewed");
    snprintf(lease_id, sizeof(lease_id), "%s", offer->lease_id);
    snprintf(name, sizeof(name), "%s", offer->name);
    snprintf(address, sizeof(address), "%s", offer->backend_addr);
    ttl_ms = offer->ttl_ms;
    sem_post(&offered);
}

/* A node that does what ctx says with its n-th offer: 'y' yes, 'n' no, 'x' yes and breaks off, '-'
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
            if (what == 'n')
                fake_reply(f, fd, &call, STATUS_PERMISSION_DENIED, 0, "not you", NULL);
            else if (what == 'h')
                fake_drain(fd);
            else if (what != '-')
                fake_reply(f, fd, &call, 0, 0, "", &yes.base);
        }
        fake_call_fini(&call);
        if (what == 'x' || what == '-')
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
