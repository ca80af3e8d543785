/* Many DATA connections of one peer at once. */
#include <criterion/criterion.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>
#include "base/random.h"
#include "forward/must.h"
#include "forward/peer.h"
#include "wire/status.h"

#define CROWD 2000u
#define EARLY 8u
#define FILLERS 8u

static struct rig rig;
static struct peer peer;
static int backend_fd, hole_fd, fillers[FILLERS], fds[CROWD];

/* A host that takes no connection and says nothing. */
static void hole_open(char addr[32])
{
    struct sockaddr_in at;

    hole_fd = net_listen_at(&at);
    listen(hole_fd, 0);
    for (size_t i = 0; i < FILLERS; i++) { /* until there is no room for another */
        fillers[i] = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
        connect(fillers[i], (struct sockaddr *)&at, sizeof at);
    }
    snprintf(addr, 32, "127.0.0.1:%u", ntohs(at.sin_port));
}

static void hole_close(void)
{
    for (size_t i = 0; i < FILLERS; i++)
        close(fillers[i]);
    close(hole_fd);
}

static void setup(void)
{
    struct rlimit limit;

    MUST(getrlimit(RLIMIT_NOFILE, &limit) == 0);
    limit.rlim_cur = limit.rlim_max;
    MUST(setrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur >= 4 * CROWD);
    rig_init(&rig);
    rig.settings.workers = 1;
    rig.limits.data_warm_per_link = 0;
    rig.settings.open_ms = rig.settings.dial_ms = 60000; /* until all are there */
}

TestSuite(crowd, .init = setup, .timeout = 60);

/* A peer that dialled the node, which has a service that answers, "web", and one that does not. */
static void start(void)
{
    char addr[32];

    backend_fd = net_listen(addr);
    rig_start(&rig);
    rig_offer(&rig, DIALLER, "web", addr);
    hole_open(addr);
    rig_offer(&rig, DIALLER, "hole", addr);
    peer_init(&peer, &rig, "a", 100, false);
    peer_up(&peer);
}

static void end(void)
{
    for (size_t i = 0; i < CROWD; i++)
        close(fds[i]);
    peer_down(&peer);
    rig_settle(rig.sides[DIALLER].forward);
    RIG_WAIT(&rig, DIALLER, served, 0);
    peer_fini(&peer);
    hole_close();
    close(backend_fd);
    rig_end(&rig);
}

static int dial(const uint8_t id[FORWARD_ID_LEN], int *out_status)
{
    struct data_header header = {.offset = 0};

    memcpy(header.forward_id, id, FORWARD_ID_LEN);
    return peer_dial_data(&peer, DATA_FIRST_DIALLER, &header, out_status);
}

/* A Forward of "web" and its DATA connection. */
static void expect_carried(void)
{
    uint8_t id[FORWARD_ID_LEN];
    Meshd__V1__Forward forward;
    int status, data, backend;

    random_bytes(id, sizeof id);
    forward = peer_forward_of(id, "web");
    peer_forward(&peer, &forward);
    backend = net_accept(backend_fd);
    data = dial(id, &status);
    cr_assert_eq(status, STATUS_OK);
    peer_expect_answer(data);
    peer_expect_header(data, id, 0);
    close(data);
    cr_assert(net_has_ended(backend));
    close(backend);
}

/* Nobody's yet: its Forward has not come. */
static int dial_early(int *out_status)
{
    uint8_t id[FORWARD_ID_LEN];

    random_bytes(id, sizeof id);
    return dial(id, out_status);
}

Test(crowd, forwards_that_wait_for_a_silent_backend_leave_room_for_those_of_another)
{
    int status, early[EARLY];

    rig.limits.forwards_pending = CROWD + 1;
    start();
    for (size_t i = 0; i < CROWD; i++) {
        uint8_t id[FORWARD_ID_LEN];
        Meshd__V1__Forward forward;

        random_bytes(id, sizeof id);
        forward = peer_forward_of(id, "hole");
        peer_forward(&peer, &forward);
        fds[i] = dial(id, &status);
        cr_assert_eq(status, STATUS_OK);
        if (i % 64 == 0)
            rig_settle(rig.sides[DIALLER].forward);
    }
    rig_settle(rig.sides[DIALLER].forward);
    RIG_WAIT(&rig, DIALLER, pending, CROWD);
    for (size_t i = 0; i < EARLY; i++) {
        early[i] = dial_early(&status);
        cr_assert_eq(status, STATUS_OK);
    }
    expect_carried();
    for (size_t i = 0; i < EARLY; i++)
        close(early[i]);
    end();
}

Test(crowd, data_that_comes_before_its_forward_has_the_limit_of_pending_forwards)
{
    int status, over;

    rig.limits.forwards_pending = CROWD;
    start();
    for (size_t i = 0; i < CROWD; i++) {
        fds[i] = dial_early(&status);
        cr_assert_eq(status, STATUS_OK);
    }
    RIG_WAIT(&rig, DIALLER, data_waiting, CROWD);
    over = dial_early(&status);
    cr_assert_eq(status, STATUS_RESOURCE_EXHAUSTED);
    close(over);
    close(fds[0]);
    fds[0] = -1;
    RIG_WAIT(&rig, DIALLER, data_waiting, CROWD - 1);
    expect_carried();
    end();
}
