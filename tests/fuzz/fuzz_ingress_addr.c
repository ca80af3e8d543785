/* fuzz_ingress_addr - one entry of INGRESS_ADDR: canonical parts or a reason, and the parts written
 * as an entry again give the same. */
#include <stdlib.h>
#include <string.h>
#include "daemon/config_parts.h"
#include "wire/name.h"

static void check(int condition)
{
    if (!condition)
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char text[CONFIG_TEXT_MAX + 32], entry[CONFIG_TEXT_MAX], label[CONFIG_TEXT_MAX];
    struct config_ingress port = {0}, again = {0};
    const char *why;

    if (size >= sizeof(text))
        return 0;
    if (size > 0)
        memcpy(text, data, size);
    text[size] = '\0';
    why = list_ingress.from_text(text, &port);
    if (why) {
        check(why[0] != '\0');
        return 0;
    }
    check(!port.name[0] || name_is_canon(port.name, strlen(port.name)));
    check(!port.fallback[0] && !port.n_proxy_from && !port.bare_lf);
    list_ingress.label(&port, label);
    snprintf(entry, sizeof(entry), "%.400s%s%s", label, port.name[0] ? "=" : "", port.name);
    check(!list_ingress.from_text(entry, &again));
    check(list_ingress.compare(&port, &again) == 0 && strcmp(port.name, again.name) == 0);
    return 0;
}
