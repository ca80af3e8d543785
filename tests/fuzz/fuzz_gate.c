/* fuzz_gate - what a stranger may send to the port or to the local socket: a real gate behind a
 * socket, with a REP that echoes and maps to watch. Whatever comes, the connection ends when its
 * other end is gone, and leaves nothing behind. The first byte chooses the socket. */
#include <arpa/inet.h>
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "gate/maps.h"
#include "gate/support.h"

#define INPUT_MAX 16384u /* less than a socket buffer takes at once */

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct rig rig;
static struct maps maps;

/* Carries nobody, but half of the connections first hear that it would. */
static int take_data(void *ctx, int fd, struct tls *tls, const struct gate_peer *from,
                     const struct preamble *preamble, const uint8_t *rest, size_t rest_len,
                     const char **out_text)
{
    struct preamble_reply reply = {.version = PREAMBLE_VERSION};
    uint8_t bytes[PREAMBLE_REPLY_MAX];

    *out_text = "not here";
    if (preamble->token[0] & 1)
        return 16;
    for (size_t i = 0; i < rest_len; i++) /* all of it may be read */
        reply.reason ^= rest[i];
    send_all(fd, bytes, preamble_reply_pack(&reply, bytes));
    close(fd);
    return 0;
}

static void start(void)
{
    rig_init(&rig);
    rig.data = take_data;
    rig.epoch = 42;
    rig.watch_ops = maps_ops();
    rig.limits.watch_log_bytes = 65536;
    rig_start(&rig);
    maps.gate = rig.gate;
    for (unsigned i = 0; i < 20; i++)
        maps.value[i] = 1;
    maps_tell(&maps, false);
}

/* The fuzzer's own alarm may interrupt it; it goes on all the same. */
static bool connects(int fd, const struct sockaddr *to, socklen_t len)
{
    struct pollfd done = {.fd = fd, .events = POLLOUT};
    int error = 0;
    socklen_t size = sizeof(error);

    if (connect(fd, to, len) == 0)
        return true;
    if (errno != EINTR)
        return false;
    while (poll(&done, 1, WAIT_MS) < 0 && errno == EINTR)
        ;
    return getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &size) == 0 && error == 0;
}

/* From one address after the other: with one alone, so many short connections use up its ports. */
static int dial(uint64_t number)
{
    struct sockaddr_in from = {.sin_family = AF_INET};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), on = 1;

    from.sin_addr.s_addr = htonl(0x7f010001 + (uint32_t)(number % 0xfffe));
    setsockopt(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &on, sizeof(on));
    if (fd < 0 || bind(fd, (struct sockaddr *)&from, sizeof(from)) < 0 ||
        !connects(fd, (struct sockaddr *)&rig.at, sizeof(struct sockaddr_in))) {
        perror("cannot connect with the gate");
        abort();
    }
    return fd;
}

/* Nobody has a link here. */
static void refuse_links(void)
{
    static size_t refused;
    struct told_event asked;

    for (; refused < rig_told_count(&rig, TOLD_ASKED); refused++)
        if (rig_told(&rig, TOLD_ASKED, 0, &asked))
            gate_refuse(rig.gate, asked.conn, 7, 0, "not here");
}

static void wait_until_gone(uint64_t accepted)
{
    uint64_t until = now_ms() + WAIT_MS;

    for (;;) {
        struct gate_counters count = rig_count(&rig);

        if (count.accepted >= accepted && count.connections == 0 && count.watchers == 0)
            return;
        if (now_ms() > until)
            abort();
        refuse_links();
        nap();
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static uint32_t changes;
    static uint64_t dialled;
    uint8_t answer[4096];
    int fd;

    if (size < 1 || size > INPUT_MAX)
        return 0;
    if (!rig.gate)
        start();
    fd = data[0] & 1 ? dial_unix(rig.unix_path) : dial(dialled);
    if (fd < 0)
        abort();
    dialled++;
    send_all(fd, data + 1, size - 1);
    changes++;
    maps_set(&maps, changes % 20, changes);
    if (data[0] & 2) /* hears it out, as far as something comes at once */
        while (recv(fd, answer, sizeof(answer), MSG_DONTWAIT) > 0)
            ;
    if (data[0] & 4 && !(data[0] & 1))
        reset_and_close(fd);
    else
        close(fd);
    wait_until_gone(dialled);
    return 0;
}
