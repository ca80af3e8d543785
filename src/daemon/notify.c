/* notify - see notify.h. */
#include "daemon/notify.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>
#include <unistd.h>
#include "base/clock.h"
#include "base/log.h"
#include "registry/registry.h"
#include "rpc/canary.h"

#define BEAT_MS 5000u        /* between two looks at the sentence */
#define STATE_WAIT_US 200000 /* for a manager that is behind with reading */
#define US_PER_MS UINT64_C(1000)

static bool address(const char *path, struct sockaddr_un *out_to, socklen_t *out_len)
{
    size_t len = strlen(path);

    if ((path[0] != '/' && path[0] != '@') || len < 2 || len >= sizeof out_to->sun_path)
        return false;
    *out_to = (struct sockaddr_un){.sun_family = AF_UNIX};
    memcpy(out_to->sun_path, path, len);
    if (path[0] == '@') /* an abstract one: its name has no end but the address's */
        out_to->sun_path[0] = '\0';
    *out_len = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + len + (path[0] == '/'));
    return true;
}

static int open_socket(struct notify *notify)
{
    const struct timeval wait = {.tv_usec = STATE_WAIT_US};
    int r = 0;

    notify->fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (notify->fd < 0)
        return -errno;
    if (setsockopt(notify->fd, SOL_SOCKET, SO_SNDTIMEO, &wait, sizeof wait) < 0 ||
        connect(notify->fd, (const struct sockaddr *)&notify->to, notify->to_len) < 0) {
        r = -errno;
        close(notify->fd);
        notify->fd = -1;
    }
    return r;
}

/* As sd_watchdog_enabled(3): not for a process that got the variables handed down. */
static uint64_t watchdog_ms(void)
{
    const char *usec = getenv("WATCHDOG_USEC"), *pid = getenv("WATCHDOG_PID");
    char *end;
    unsigned long long us;

    if (!usec || (pid && strtoull(pid, NULL, 10) != (unsigned long long)getpid()))
        return 0;
    errno = 0;
    us = strtoull(usec, &end, 10);
    return errno == 0 && *end == '\0' ? us / US_PER_MS : 0;
}

void notify_open(struct notify *notify)
{
    const char *path = getenv("NOTIFY_SOCKET");
    int r = -EINVAL;

    notify->fd = -1;
    notify->watchdog_ms = watchdog_ms();
    if (path && path[0]) {
        if (address(path, &notify->to, &notify->to_len))
            r = open_socket(notify);
        if (r < 0)
            log_warn("daemon", "NOTIFY_SOCKET: the service manager cannot be reached at %s: %s",
                     path, strerror(-r));
    }
    unsetenv("NOTIFY_SOCKET");
    unsetenv("WATCHDOG_USEC");
    unsetenv("WATCHDOG_PID");
}

/* One datagram. A manager that was started anew has another socket of the same name. */
static int post(struct notify *notify, const char *text, int flags)
{
    size_t len = strlen(text);

    if (send(notify->fd, text, len, flags | MSG_NOSIGNAL) >= 0)
        return 0;
    if (errno != ECONNREFUSED && errno != ENOTCONN && errno != ECONNRESET)
        return -errno;
    if (connect(notify->fd, (const struct sockaddr *)&notify->to, notify->to_len) < 0 ||
        send(notify->fd, text, len, flags | MSG_NOSIGNAL) < 0)
        return -errno;
    return 0;
}

/* What the manager acts upon is waited for a moment; a sign of life or a sentence comes again. */
static void __attribute__((format(printf, 2, 3)))
tell(struct notify *notify, const char *format, ...)
{
    char text[512];
    va_list args;
    int r;

    if (notify->fd < 0)
        return;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    r = post(notify, text, 0);
    if (r < 0)
        log_warn("daemon", "cannot tell the service manager: %s", strerror(-r));
}

static void describe(const struct notify *notify, char *out_text, size_t size)
{
    struct registry_counters counters;

    registry_counters(notify->registry, &counters);
    snprintf(out_text, size,
             "peers: %" PRIu64 " connected, %" PRIu64 " stale; services: %" PRIu64 " here, %" PRIu64
             " of peers",
             counters.peers_connected, counters.peers_stale, counters.services_local,
             counters.services - counters.services_local);
}

static void on_beat(uv_timer_t *timer)
{
    struct notify *notify = timer->data;
    char text[sizeof notify->status], line[sizeof text + sizeof "STATUS="];

    if (notify->watchdog_ms && canary_healthy(notify->canary))
        post(notify, "WATCHDOG=1", MSG_DONTWAIT);
    if (notify->stopping)
        return;
    describe(notify, text, sizeof text);
    snprintf(line, sizeof line, "STATUS=%s", text);
    if (strcmp(text, notify->status) != 0 && post(notify, line, MSG_DONTWAIT) == 0)
        memcpy(notify->status, text, sizeof text);
}

void notify_ready(struct notify *notify, uv_loop_t *loop, struct registry *registry,
                  const struct canary *canary)
{
    uint64_t beat = notify->watchdog_ms / 2;

    if (notify->fd < 0)
        return;
    notify->registry = registry;
    notify->canary = canary;
    describe(notify, notify->status, sizeof notify->status);
    tell(notify, "READY=1\nSTATUS=%s", notify->status);
    if (uv_timer_init(loop, &notify->beat) < 0)
        return;
    notify->beat.data = notify;
    notify->beating = true;
    if (!notify->watchdog_ms || beat > BEAT_MS)
        beat = BEAT_MS;
    uv_timer_start(&notify->beat, on_beat, beat, beat ? beat : 1);
}

void notify_reloading(struct notify *notify)
{
    tell(notify, "RELOADING=1\nMONOTONIC_USEC=%" PRIu64, clock_ns() / 1000);
}

void notify_reloaded(struct notify *notify) { tell(notify, "READY=1"); }

void notify_stopping(struct notify *notify, uint64_t within_ms, const char *what)
{
    notify->stopping = true;
    tell(notify, "STOPPING=1\nEXTEND_TIMEOUT_USEC=%" PRIu64 "\nSTATUS=%s", within_ms * US_PER_MS,
         what);
}

void notify_stop(struct notify *notify)
{
    if (notify->beating)
        uv_close((uv_handle_t *)&notify->beat, NULL);
    notify->beating = false;
    if (notify->fd >= 0)
        close(notify->fd);
    notify->fd = -1;
}
