/* service - a table of the names that have forwards now. */
#define HASH_FUNCTION(key, len, hash) ((hash) = hash_keyed((key), (len)))
#define HASH_NONFATAL_OOM 1
#include "forward/service.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <uthash.h>
#include "base/hash.h"
#include "base/lock.h"

struct service {
    UT_hash_handle hh;
    uint64_t forwards;
    char name[];
};

struct services {
    const struct limits *limits;
    struct mutex lock;
    struct service *by_name; /* with lock held */
};

int services_new(const struct limits *limits, struct services **out_services)
{
    struct services *services = calloc(1, sizeof(*services));

    if (!services)
        return -ENOMEM;
    services->limits = limits;
    mutex_init(&services->lock);
    *out_services = services;
    return 0;
}

void services_free(struct services *services)
{
    struct service *service, *next;

    if (!services)
        return;
    HASH_ITER(hh, services->by_name, service, next)
    {
        HASH_DEL(services->by_name, service);
        free(service);
    }
    mutex_fini(&services->lock);
    free(services);
}

static struct service *add_locked(struct services *services, const char *name, size_t len)
{
    struct service *service = calloc(1, sizeof(*service) + len + 1);

    if (!service)
        return NULL;
    memcpy(service->name, name, len);
    HASH_ADD_KEYPTR(hh, services->by_name, service->name, len, service);
    if (service->hh.tbl)
        return service;
    free(service);
    return NULL;
}

struct service *service_enter(struct services *services, const char *name)
{
    size_t len = strlen(name);
    struct service *service;

    mutex_lock(&services->lock);
    HASH_FIND(hh, services->by_name, name, len, service);
    if (!service)
        service = add_locked(services, name, len);
    else if (service->forwards >= services->limits->forwards_per_service)
        service = NULL;
    if (service)
        service->forwards++;
    mutex_unlock(&services->lock);
    return service;
}

void service_leave(struct services *services, struct service *service)
{
    if (!service)
        return;
    mutex_lock(&services->lock);
    if (--service->forwards == 0) {
        HASH_DEL(services->by_name, service);
        free(service);
    }
    mutex_unlock(&services->lock);
}

uint64_t services_count(struct services *services, const char *name)
{
    struct service *service;
    uint64_t forwards;

    mutex_lock(&services->lock);
    HASH_FIND(hh, services->by_name, name, strlen(name), service);
    forwards = service ? service->forwards : 0;
    mutex_unlock(&services->lock);
    return forwards;
}

uint64_t services_largest(struct services *services)
{
    struct service *service;
    uint64_t most = 0;

    mutex_lock(&services->lock);
    for (service = services->by_name; service; service = service->hh.next)
        if (service->forwards > most)
            most = service->forwards;
    mutex_unlock(&services->lock);
    return most;
}
