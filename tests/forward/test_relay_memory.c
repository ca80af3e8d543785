/* relay: without memory for what its receiver does not take.
 *
 * The linker sends malloc of this program through the function below.
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/socket.h>
#include "relay_rig.h"

#define MIB 1048576u

void *__real_malloc(size_t size);
void *__wrap_malloc(size_t size);

static struct rig rig;
static struct joined joined;
static struct talk talks[2];
static atomic_bool fails;

/* The backend takes all that has come, and so has room for more. */
static void make_room(struct talk *backend)
{
    struct pollfd p = {.fd = backend->fd, .events = POLLIN};
    uint8_t data[4096];

    while (poll(&p, 1, 100) > 0) {
        ssize_t n = recv(backend->fd, data, sizeof(data), 0);

        for (ssize_t i = 0; i < n; i++)
            backend->wrong |= data[i] != byte_at(backend->peer_seed, backend->received++);
    }
}

void *__wrap_malloc(size_t size)
{
    if (!atomic_exchange(&fails, false))
        return __real_malloc(size);
    make_room(&talks[1]);
    return NULL;
}

Test(forward_relay_memory, bytes_that_cannot_be_held_end_the_stream_and_none_follows,
     .timeout = 100)
{
    rig_start(&rig, 600000, 300000);
    joined_start(&joined, &rig, 8192);
    joined_talks(&joined, 64 * MIB, 0, talks);
    atomic_store(&fails, true);
    send_until_blocked(&talks[0], 300);
    cr_assert(joined_ended(&joined));
    cr_expect_not(atomic_load(&fails));
    cr_expect_eq(joined.end, FORWARD_NO_MEMORY, "%s", forward_ends[joined.end].word);
    drain(&talks[1]);
    cr_expect_not(talks[1].wrong);
    cr_expect_not(talks[1].eof);
    cr_expect_eq(talks[1].error, ECONNRESET);
    cr_expect_eq(talks[1].received, joined.up_bytes);
    joined_fini(&joined);
    rig_stop(&rig);
}
