/* fuzz_cli - what a hostile node may say to a client: everything after its greeting, to one call.
 * The first byte chooses framing and method; then the request id is put where a reply would have
 * it, if the input is long enough for one, so that inputs reach the decoding. */
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include "base/clock.h"
#include "client/call.h"

#define INPUT_MAX 65536u /* less than a socket buffer takes at once */

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(int condition)
{
    if (!condition)
        abort();
}

static int ask(struct call_conn *conn, unsigned method, unsigned ms, struct call_reply **out_reply)
{
    Meshd__V1__LookupRequest lookup = MESHD__V1__LOOKUP_REQUEST__INIT;
    Meshd__V1__IntrospectRequest introspect = MESHD__V1__INTROSPECT_REQUEST__INIT;
    Meshd__V1__OfferRequest offer = MESHD__V1__OFFER_REQUEST__INIT;

    switch (method % 3) {
    case 0:
        return call_invoke(conn, "Lookup", &lookup.base, clock_ms() + ms, out_reply);
    case 1:
        return call_invoke(conn, "Introspect", &introspect.base, clock_ms() + ms, out_reply);
    default:
        return call_invoke(conn, "Offer", &offer.base, clock_ms() + ms, out_reply);
    }
}

/* The number of the next request. The client draws its first one, so it is asked for a call that is
 * given up at once (again, should the machine be too busy even to send within that time). */
static uint32_t next_id(struct call_conn *conn, int fd, enum sp_framing framing)
{
    uint8_t bytes[4096];
    const uint8_t *id = bytes + sp_head_len(framing);
    struct call_reply *reply;
    ssize_t n;

    check(recv(fd, bytes, SP_HELLO_LEN, MSG_WAITALL) == SP_HELLO_LEN);
    do {
        check(ask(conn, 0, 1, &reply) < 0);
        n = recv(fd, bytes, sizeof(bytes), MSG_DONTWAIT);
    } while (n < 0);
    check(n > (ssize_t)sp_head_len(framing) + 4);
    return (((uint32_t)id[0] << 24 | (uint32_t)id[1] << 16 | (uint32_t)id[2] << 8 | id[3]) + 1) |
           0x80000000u;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    enum sp_framing framing;
    uint8_t *answer, hello[SP_HELLO_LEN];
    struct call_conn *conn;
    struct call_reply *reply = NULL;
    size_t head, len;
    unsigned method;
    uint32_t id;
    int pair[2], r;

    if (size < 1 || size > INPUT_MAX)
        return 0;
    framing = data[0] & 1 ? SP_IPC : SP_TCP;
    method = data[0] >> 1;
    head = sp_head_len(framing);
    check(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) == 0);
    sp_hello_pack(SP_REP0, hello);
    check(send(pair[1], hello, sizeof(hello), 0) == sizeof(hello));
    check(call_adopt(pair[0], framing, clock_ms() + 10000, &conn) == 0);
    id = next_id(conn, pair[1], framing);

    len = size - 1;
    answer = malloc(len + 1);
    check(answer != NULL);
    memcpy(answer, data + 1, len);
    if (len >= head + 4) {
        answer[head] = (uint8_t)(id >> 24);
        answer[head + 1] = (uint8_t)(id >> 16);
        answer[head + 2] = (uint8_t)(id >> 8);
        answer[head + 3] = (uint8_t)id;
    }
    check(send(pair[1], answer, len, 0) == (ssize_t)len);
    free(answer);
    check(shutdown(pair[1], SHUT_WR) == 0);

    r = ask(conn, method, 10000, &reply);
    check((r == 0) == (reply != NULL));
    if (r == 0) {
        check(reply->text != NULL);
        check(reply->status != STATUS_OK || reply->message != NULL);
    }
    call_reply_free(reply);
    call_close(conn);
    close(pair[1]);
    return 0;
}
