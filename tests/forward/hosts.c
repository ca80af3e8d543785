/* hosts - see hosts.h. */
#include "forward/hosts.h"
#include <arpa/inet.h>
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define HOSTS_MAX 1024u

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
static struct host {
    char name[64], addresses[256];
    bool held, known;
    unsigned asked;
} hosts[HOSTS_MAX];
static size_t n_hosts;
static unsigned inside;

static struct host *host_locked(const char *name)
{
    for (size_t i = 0; i < n_hosts; i++)
        if (strcmp(hosts[i].name, name) == 0)
            return &hosts[i];
    if (n_hosts == HOSTS_MAX)
        abort();
    snprintf(hosts[n_hosts].name, sizeof(hosts[n_hosts].name), "%s", name);
    return &hosts[n_hosts++];
}

void hosts_set(const char *name, const char *addresses)
{
    struct host *host;

    pthread_mutex_lock(&lock);
    host = host_locked(name);
    host->known = true;
    snprintf(host->addresses, sizeof(host->addresses), "%s", addresses);
    pthread_mutex_unlock(&lock);
}

void hosts_hold(const char *name, bool held)
{
    pthread_mutex_lock(&lock);
    host_locked(name)->held = held;
    pthread_cond_broadcast(&changed);
    pthread_mutex_unlock(&lock);
}

struct in6_addr address_of(const char *text)
{
    struct in6_addr ip = {.s6_addr = {[10] = 0xff, [11] = 0xff}};

    if (inet_pton(AF_INET, text, ip.s6_addr + 12) != 1 && inet_pton(AF_INET6, text, &ip) != 1)
        abort();
    return ip;
}

int hosts_resolve(const char *name, struct in6_addr *out, size_t cap)
{
    char addresses[256], *rest = addresses, *word;
    struct host *host;
    int n = 0;

    pthread_mutex_lock(&lock);
    host = host_locked(name);
    host->asked++;
    inside++;
    pthread_cond_broadcast(&changed);
    while (host->held)
        pthread_cond_wait(&changed, &lock);
    snprintf(addresses, sizeof(addresses), "%s", host->addresses);
    if (!host->known)
        n = -ENOENT;
    inside--;
    pthread_cond_broadcast(&changed);
    pthread_mutex_unlock(&lock);
    while (n >= 0 && (size_t)n < cap && (word = strsep(&rest, " ")) != NULL)
        if (*word)
            out[n++] = address_of(word);
    return n;
}

unsigned hosts_asked(const char *name)
{
    unsigned n;

    pthread_mutex_lock(&lock);
    n = host_locked(name)->asked;
    pthread_mutex_unlock(&lock);
    return n;
}

unsigned hosts_inside(void)
{
    unsigned n;

    pthread_mutex_lock(&lock);
    n = inside;
    pthread_mutex_unlock(&lock);
    return n;
}

static struct timespec deadline(void)
{
    struct timespec until;

    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += HOSTS_WAIT_MS / 1000;
    return until;
}

bool hosts_wait_asked(const char *name, unsigned n)
{
    struct timespec until = deadline();
    bool late = false, asked;

    pthread_mutex_lock(&lock);
    while (host_locked(name)->asked < n && !late)
        late = pthread_cond_timedwait(&changed, &lock, &until) == ETIMEDOUT;
    asked = host_locked(name)->asked >= n;
    pthread_mutex_unlock(&lock);
    return asked;
}

bool hosts_wait_inside(unsigned n)
{
    struct timespec until = deadline();
    bool late = false, is;

    pthread_mutex_lock(&lock);
    while (inside != n && !late)
        late = pthread_cond_timedwait(&changed, &lock, &until) == ETIMEDOUT;
    is = inside == n;
    pthread_mutex_unlock(&lock);
    return is;
}
