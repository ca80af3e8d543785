/* offered - the grammar of an offer's parts is that of wire/name.h, as in the node's own settings.
 */
#include "client/offered.h"
#include <stdio.h>
#include <string.h>
#include "client/error.h"
#include "wire/name.h"

#define SIZE_MOST 4096u /* of a struct mesh_offer, of any version: more is no size that was set */

/* A program that was compiled against a later version may have set what this one has no idea of:
 * what it relies on is not left out in silence. */
static bool size_is_sound(const struct mesh_offer *offer)
{
    const unsigned char *bytes = (const unsigned char *)offer;

    if (offer->size < sizeof(*offer) || offer->size > SIZE_MOST)
        return false;
    for (size_t i = sizeof(*offer); i < offer->size; i++)
        if (bytes[i] != 0)
            return false;
    return true;
}

static enum mesh_status read_check(struct offered *out, const struct mesh_offer *offer)
{
    const char *path, *why;

    meshd__v1__check__init(&out->check);
    if (!offer->check || !offer->check[0]) {
        if (offer->check_interval_ms || offer->check_timeout_ms || offer->check_rise ||
            offer->check_fall)
            return error_set(MESH_INVALID, "nothing says how to check: tcp or http:/path");
        return MESH_OK;
    }
    if (check_parse(offer->check, &path, &why) < 0)
        return error_set(MESH_INVALID, "the check '%s' %s", offer->check, why);
    out->check.kind =
        path ? MESHD__V1__CHECK_KIND__CHECK_KIND_HTTP : MESHD__V1__CHECK_KIND__CHECK_KIND_TCP;
    snprintf(out->path, sizeof(out->path), "%s", path ? path : "");
    out->check.interval_ms = offer->check_interval_ms;
    out->check.timeout_ms = offer->check_timeout_ms;
    out->check.rise = offer->check_rise;
    out->check.fall = offer->check_fall;
    return MESH_OK;
}

enum mesh_status offered_change(struct offered *offered, const char *address,
                                const struct mesh_offer *offer)
{
    struct offered next = *offered;
    enum mesh_status status;

    if (address && backend_canon(address, strlen(address), next.backend) < 0)
        return error_set(MESH_INVALID, "an address is host:port or [v6]:port");
    if (offer) {
        if (!size_is_sound(offer))
            return error_set(MESH_INVALID, "mesh_offer.size is to be sizeof(struct mesh_offer), "
                                           "and what this version does not know, 0");
        if (offer->proxy_protocol < 0 || offer->proxy_protocol > 2)
            return error_set(MESH_INVALID, "proxy_protocol is 0 (none), 1 or 2");
        status = read_check(&next, offer);
        if (status != MESH_OK)
            return status;
        next.proxy = (Meshd__V1__ProxyProtocol)offer->proxy_protocol;
        next.draining = offer->draining;
    }
    *offered = next;
    return MESH_OK;
}

enum mesh_status offered_read(const char *name, const char *address, const struct mesh_offer *offer,
                              struct offered *out)
{
    struct offered offered = {.check = MESHD__V1__CHECK__INIT};
    enum mesh_status status;

    if (!name || name_canon(name, strlen(name), offered.name) != NAME_OK)
        return error_set(MESH_INVALID, "that is no name of a service");
    status = offered_change(&offered, address ? address : "", offer);
    if (status == MESH_OK)
        *out = offered;
    return status;
}

void offered_request(struct offered *offered, Meshd__V1__OfferRequest *out_request)
{
    meshd__v1__offer_request__init(out_request);
    out_request->name = offered->name;
    out_request->backend_addr = offered->backend;
    if (offered->check.kind != MESHD__V1__CHECK_KIND__CHECK_KIND_NONE) {
        offered->check.path = offered->path;
        out_request->check = &offered->check;
    }
    out_request->proxy_protocol = offered->proxy;
    out_request->draining = offered->draining;
}
