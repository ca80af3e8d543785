#include "forward/requester.h"

#include <unistd.h>
#include "base/random.h"
#include "forward/must.h"

struct rig rig;
struct peer peer;
int backend_fd;
uint8_t id[FORWARD_ID_LEN];

void requester_setup(void)
{
    rig_init(&rig);
    rig.settings.workers = 1;
    rig.limits.data_warm_per_link = 0;
    random_bytes(id, sizeof id);
}

/* A node with a service "web"; the peer dialled it, or was dialled. */
void requester_start(bool dialled)
{
    char addr[32];

    backend_fd = net_listen(addr);
    rig_start(&rig);
    rig_offer(&rig, DIALLER, "web", addr);
    peer_init(&peer, &rig, "a", 100, dialled);
    peer_up(&peer);
}

void requester_end(void)
{
    RIG_WAIT(&rig, DIALLER, served, 0);
    MUST(forward_session_pending(rig.sides[DIALLER].forward, peer.link) == 0);
    MUST(peer_heard_nothing(&peer));
    peer_down(&peer);
    rig_settle(rig.sides[DIALLER].forward);
    MUST(net_nobody_comes(backend_fd));
    peer_fini(&peer);
    close(backend_fd);
    rig_end(&rig);
}

void forward_with(const char *first, size_t len, bool dial_data)
{
    Meshd__V1__Forward forward = peer_forward_of(id, "web");

    forward.first_bytes = (ProtobufCBinaryData){.len = len, .data = (uint8_t *)first};
    forward.dial_data = dial_data;
    peer_forward(&peer, &forward);
}

int dial_with_header(struct peer *from, uint64_t offset)
{
    struct data_header header = {.offset = offset};
    int status, data;

    memcpy(header.forward_id, id, FORWARD_ID_LEN);
    data = peer_dial_data(from, DATA_FIRST_DIALLER, &header, &status);
    MUST(status == 0);
    return data;
}

void expect_accepted(void)
{
    char text[LIMIT_STATUS_TEXT + 1];

    MUST(peer_next_reply(&peer, id, text) == MESHD__V1__REFUSAL__REFUSAL_NONE);
}
