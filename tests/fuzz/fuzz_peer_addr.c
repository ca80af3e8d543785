/* fuzz_peer_addr - one entry of REMOTE_PEER_ADDR: a host and a port or a reason, and the parts
 * written as an entry again give the same. */
#include <stdlib.h>
#include <string.h>
#include "daemon/config_parts.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(int condition)
{
    if (!condition)
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char text[CONFIG_TEXT_MAX + 32], label[CONFIG_TEXT_MAX];
    struct config_peer peer = {0}, again = {0};
    const char *why;

    if (size >= sizeof(text))
        return 0;
    if (size > 0)
        memcpy(text, data, size);
    text[size] = '\0';
    why = list_peers.from_text(text, &peer);
    if (why) {
        check(why[0] != '\0');
        return 0;
    }
    check(peer.host[0] != '\0' && peer.port > 0 && !peer.peer_id[0]);
    for (const char *c = peer.host; *c; c++)
        check(*c > ' ' && *c < 0x7f && !(*c >= 'A' && *c <= 'Z'));
    list_peers.label(&peer, label);
    check(!list_peers.from_text(label, &again));
    check(list_peers.compare(&peer, &again) == 0);
    return 0;
}
