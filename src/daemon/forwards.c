/* forwards - records as fields. Written where they come from, by workers: a line costs one write.
 */
#include "daemon/forwards.h"

#include <arpa/inet.h>
#include <inttypes.h>
#include <netinet/in.h>
#include <stdatomic.h>
#include <stdio.h>
#include <sys/resource.h>
#include "base/clock.h"
#include "base/log.h"

#define ROOM "forward"
#define ID_SHOWN 8u /* bytes of a forward id: enough to tell apart what a log holds */
#define ADDR_TEXT (INET6_ADDRSTRLEN + sizeof "[]:65535")

static struct log_limit limits[N_FORWARD_ENDS];
static atomic_bool limited;

void forwards_set(struct forward *forward, enum forward_records records)
{
    atomic_store(&limited, records == FORWARD_RECORDS_ERRORS);
    forward_set_records(forward, records);
}

static void kind_text(enum forward_end end, char out[64])
{
    snprintf(out, 64, "forwards that ended with %s", forward_ends[end].word);
}

static bool may_write(enum forward_end end, enum log_level level)
{
    char kind[64];

    if (!atomic_load(&limited))
        return true;
    kind_text(end, kind);
    return log_limit_take(&limits[end], clock_ms(), level, ROOM, kind);
}

void forwards_left_out(uint64_t now_ms)
{
    char kind[64];

    for (unsigned end = 0; end < N_FORWARD_ENDS; end++) {
        kind_text(end, kind);
        log_limited_rest(&limits[end], now_ms, LOG_WARN, ROOM, kind);
    }
}

/* What has been told of them. */
static struct forward_counters told;

void forwards_turned_away(struct forward *forward, const struct limits *limit)
{
    struct forward_counters now;
    struct rlimit most = {0};

    forward_counters(forward, &now);
    if (now.closed_no_descriptor > told.closed_no_descriptor) {
        getrlimit(RLIMIT_NOFILE, &most);
        log_warn(ROOM,
                 "%" PRIu64 " clients were reset before a word: of %llu descriptors none was "
                 "left (the limit of open files)",
                 now.closed_no_descriptor - told.closed_no_descriptor,
                 (unsigned long long)most.rlim_cur);
    }
    if (now.closed_over_limit > told.closed_over_limit)
        log_warn(ROOM,
                 "%" PRIu64 " clients were reset before a word: over a limit; now "
                 "ingress_connections is %" PRIu64 " of %" PRIu64
                 ", of one address ingress_per_source %" PRIu64 " of %" PRIu64
                 " and ingress_unrouted_per_source %" PRIu64 " of %" PRIu64,
                 now.closed_over_limit - told.closed_over_limit, now.clients,
                 (uint64_t)limit->ingress_connections, now.largest_source,
                 (uint64_t)limit->ingress_per_source, now.largest_source_unrouted,
                 (uint64_t)limit->ingress_unrouted_per_source);
    if (now.closed_no_memory > told.closed_no_memory)
        log_warn(ROOM, "%" PRIu64 " clients were reset before a word: out of memory",
                 now.closed_no_memory - told.closed_no_memory);
    told = now;
}

/* "" if it is not known. */
static const char *addr_text(const struct sockaddr_storage *addr, char out[ADDR_TEXT])
{
    const struct sockaddr_in6 *v6 = (const struct sockaddr_in6 *)addr;
    const struct sockaddr_in *v4 = (const struct sockaddr_in *)addr;
    char ip[INET6_ADDRSTRLEN];

    out[0] = '\0';
    if (addr->ss_family == AF_INET && inet_ntop(AF_INET, &v4->sin_addr, ip, sizeof ip))
        snprintf(out, ADDR_TEXT, "%s:%u", ip, ntohs(v4->sin_port));
    if (addr->ss_family == AF_INET6 && inet_ntop(AF_INET6, &v6->sin6_addr, ip, sizeof ip))
        snprintf(out, ADDR_TEXT, "[%s]:%u", ip, ntohs(v6->sin6_port));
    return out;
}

static const char *id_text(const struct forward_record *record, char out[2 * ID_SHOWN + 1])
{
    for (size_t i = 0; i < ID_SHOWN; i++)
        snprintf(out + 2 * i, 3, "%02x", record->id[i]);
    return out;
}

void forwards_log(void *ctx, const struct forward_record *record)
{
    enum log_level level = forward_end_is_error(record->end) ? LOG_WARN : LOG_INFO;
    char id[2 * ID_SHOWN + 1], client[ADDR_TEXT], port[ADDR_TEXT];
    const struct log_field fields[] = {
        {.name = "id", .text = id_text(record, id)},
        {.name = "name", .text = record->name},
        {.name = "role", .text = record->owner ? "owner" : "ingress"},
        {.name = "client", .text = addr_text(&record->client, client)},
        {.name = "port", .text = addr_text(&record->port, port)},
        {.name = "peer", .text = record->peer_id},
        {.name = "backend", .text = record->backend},
        {.name = "end", .text = forward_ends[record->end].word},
        {.name = "why", .text = record->text},
        {.name = "up", .kind = LOG_NUMBER, .number = record->bytes_up},
        {.name = "down", .kind = LOG_NUMBER, .number = record->bytes_down},
        {.name = "name_ms", .kind = LOG_US_AS_MS, .number = record->name_us},
        {.name = "open_ms", .kind = LOG_US_AS_MS, .number = record->open_us},
        {.name = "total_ms", .kind = LOG_US_AS_MS, .number = record->total_us},
    };

    if (log_on(level) && may_write(record->end, level))
        log_fields(level, ROOM, fields, sizeof fields / sizeof *fields);
}
