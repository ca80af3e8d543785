#include "node/own.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

static const struct node_caller program = {.peer_id = "", .ip = "", .local = true};

void own_set(size_t n, const struct node_service *services)
{
    cr_assert_eq(node_set_services(st.node, services, n), 0);
}

void own_begin(void)
{
    stage_begin();
    SET({AT("own", B)});
}

/* The flags of the node's own row; -1: there is none. */
int own_flags(const char *name)
{
    char key[300];
    struct row *row;
    int flags;

    snprintf(key, sizeof(key), "%s@local", name);
    row = registry_find(st.registry, key);
    flags = row ? row->flags : -1;
    row_unref(row);
    return flags;
}

const char *own_backend(const char *name)
{
    static char backend[LIMIT_BACKEND + 1];
    char key[300];
    struct row *row;

    snprintf(key, sizeof(key), "%s@local", name);
    row = registry_find(st.registry, key);
    snprintf(backend, sizeof(backend), "%s", row ? row->backend : "");
    row_unref(row);
    return backend;
}

struct node_check_info own_info(const char *name)
{
    struct node_check_info infos[16];
    size_t n = node_checks(st.node, infos, 16);

    for (size_t i = 0; i < n && i < 16; i++)
        if (strcmp(infos[i].name, name) == 0)
            return infos[i];
    return (struct node_check_info){.name = NULL};
}

struct node_counters own_counters(void)
{
    struct node_counters count;

    node_counters(st.node, &count);
    return count;
}

/* Waits for the next look at it, and answers. */
void own_look(const char *backend, const char *text)
{
    for (int i = 0; i < 100; i++) {
        if (stage_look(backend, text))
            return;
        stage_wait(100);
    }
    cr_assert_fail("nobody looks at %s", backend);
}

bool own_unlooked(const char *backend, uint64_t ms)
{
    stage_wait(ms);
    return !stage_look(backend, NULL);
}

uint32_t own_drain(const char *name, bool enable)
{
    Meshd__V1__DrainRequest request = MESHD__V1__DRAIN_REQUEST__INIT;

    request.name = (char *)name;
    request.enable = enable;
    node_drain_service(st.node, 1, &program, &request);
    return st.reply.status;
}

uint32_t own_offer(const char *lease, const char *name, const char *backend, uint64_t ttl_ms,
                   Meshd__V1__Check *check, int proxy)
{
    Meshd__V1__OfferRequest request = MESHD__V1__OFFER_REQUEST__INIT;

    request.lease_id = (char *)lease;
    request.name = (char *)name;
    request.backend_addr = (char *)backend;
    request.ttl_ms = ttl_ms;
    request.check = check;
    request.proxy_protocol = (Meshd__V1__ProxyProtocol)proxy;
    node_offer(st.node, 1, &program, &request);
    return st.reply.status;
}

uint32_t own_offer_draining(const char *lease, const char *name, const char *backend,
                            uint64_t ttl_ms)
{
    Meshd__V1__OfferRequest request = MESHD__V1__OFFER_REQUEST__INIT;

    request.lease_id = (char *)lease;
    request.name = (char *)name;
    request.backend_addr = (char *)backend;
    request.ttl_ms = ttl_ms;
    request.draining = true;
    node_offer(st.node, 1, &program, &request);
    return st.reply.status;
}

uint32_t own_withdraw(const char *name)
{
    Meshd__V1__WithdrawRequest request = MESHD__V1__WITHDRAW_REQUEST__INIT;

    request.name = (char *)name;
    node_withdraw(st.node, 1, &program, &request);
    return st.reply.status;
}
