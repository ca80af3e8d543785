#include "forward/storm.h"

#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>
#include "base/clock.h"
#include "forward/must.h"

#define HEAD_LEN 64
#define BODY_MAX 60000u
#define SERVERS 8
#define NUMBERS 65536u

/* One for each side that owns a service: "d.x" and "l.x". */
struct backend {
    int fd;
    char addr[32];
    pthread_t servers[SERVERS];
};
static struct backend backends[2];
static atomic_uchar heard[NUMBERS]; /* heads of that number */
static atomic_uint next_number;
static atomic_bool calm, over;

static uint8_t byte_of(unsigned number, size_t at)
{
    return (uint8_t)(number * 31 + at * 7 + at / 251);
}

static void make_body(unsigned number, uint8_t *out, size_t len)
{
    for (size_t i = 0; i < len; i++)
        out[i] = byte_of(number, i);
}

/* ---- backends: a head says a number and a length, then comes the body, which goes back ---- */

static bool receive(int fd, void *out, size_t len)
{
    return recv(fd, out, len, MSG_WAITALL) == (ssize_t)len;
}

/* False: the client shall see that it was broken off. */
static bool serve_one(int fd)
{
    static _Thread_local uint8_t body[BODY_MAX], expected[BODY_MAX];
    unsigned number, len;
    char head[HEAD_LEN + 1];

    if (!receive(fd, head, HEAD_LEN))
        return false;
    head[HEAD_LEN] = '\0';
    MUST(sscanf(head, "GET /%u/%u ", &number, &len) == 2);
    MUST(number < NUMBERS && len <= BODY_MAX);
    MUST(atomic_fetch_add(&heard[number], 1) == 0); /* never carried twice */
    if (!receive(fd, body, len))
        return false;
    make_body(number, expected, len);
    MUST(memcmp(body, expected, len) == 0);
    if (number % 7 == 0)
        send(fd, body, len / 2, MSG_NOSIGNAL);
    else if (send(fd, body, len, MSG_NOSIGNAL) == (ssize_t)len)
        return true;
    return false;
}

static void *serve(void *arg)
{
    const struct timeval limit = {.tv_sec = WAIT_MS / 1000};
    struct backend *backend = arg;

    while (!atomic_load(&over)) {
        int fd = accept4(backend->fd, NULL, NULL, SOCK_CLOEXEC);

        if (fd < 0)
            continue;
        setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
        setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
        if (serve_one(fd))
            close(fd);
        else
            net_reset(fd);
    }
    return NULL;
}

/* ---- clients ---- */

enum how { STAYS, LEAVES_AT_ONCE, LEAVES_IN_THE_MIDST };

static void judge(struct storm *storm, unsigned number, const uint8_t *got, size_t n, bool in_order,
                  const uint8_t *body, size_t len)
{
    if (!in_order)
        atomic_fetch_add(&storm->broken, 1);
    else if (n == len && memcmp(got, body, len) == 0)
        atomic_fetch_add(&storm->whole, 1);
    else if (n > 12 && memcmp(got, "HTTP/1.1 50", 11) == 0)
        atomic_fetch_add(&storm->refused, 1);
    else {
        fprintf(stderr, "seed %u: client %u has %zu of %zu bytes and a clean end\n", storm->seed,
                number, n, len);
        abort();
    }
}

static void be_client(struct storm *storm, unsigned *seed)
{
    static _Thread_local uint8_t out[HEAD_LEN + BODY_MAX], in[BODY_MAX + 2048];
    unsigned number = atomic_fetch_add(&next_number, 1);
    size_t len = 1000 + (unsigned)rand_r(seed) % (BODY_MAX - 1000), n = 0, said;
    enum how how = rand_r(seed) % 8 ? STAYS : (enum how)(1 + rand_r(seed) % 2);
    int fd = net_connect(storm->rig->sides[rand_r(seed) % 2].port), fill;
    ssize_t r;

    MUST(number < NUMBERS);
    fill = snprintf((char *)out, sizeof out, "GET /%u/%zu HTTP/1.1\r\nHost: %s\r\nX: ", number, len,
                    rand_r(seed) % 2 ? "d.x" : "l.x");
    memset(out + fill, 'x', HEAD_LEN - (size_t)fill);
    memcpy(out + HEAD_LEN - 4, "\r\n\r\n", 4);
    make_body(number, out + HEAD_LEN, len);
    said = how == LEAVES_AT_ONCE ? HEAD_LEN : HEAD_LEN + len / (how == STAYS ? 1 : 2);
    send(fd, out, said, MSG_NOSIGNAL);
    if (how != STAYS) {
        poll(NULL, 0, rand_r(seed) % 5);
        net_reset(fd);
        return;
    }
    while ((r = recv(fd, in + n, sizeof in - n, 0)) > 0)
        n += (size_t)r;
    MUST(r == 0 || errno == ECONNRESET);
    judge(storm, number, in, n, r == 0, out + HEAD_LEN, len);
    close(fd);
}

struct crowd {
    struct storm *storm;
    unsigned seed;
    pthread_t thread;
};

static void *be_clients(void *arg)
{
    struct crowd *crowd = arg;

    for (unsigned i = 0; i < crowd->storm->rounds || !atomic_load(&calm); i++)
        be_client(crowd->storm, &crowd->seed);
    return NULL;
}

/* ---- faults ---- */

static void fault(struct rig *rig, unsigned what)
{
    switch (what % 9) {
    case 0:
        rig_link_down(rig);
        rig_link_up(rig);
        break;
    case 1:
        atomic_store(&rig->hold, true);
        break;
    case 2:
        rig_release(rig);
        break;
    case 3:
        rig_break_data(rig);
        break;
    case 4:
        rig_forget_data(rig);
        break;
    case 5:
        atomic_store(&rig->gate_deaf, !atomic_load(&rig->gate_deaf));
        break;
    case 6:
        atomic_store(&rig->refuse, atomic_load(&rig->refuse) ? 0 : -EAGAIN);
        break;
    case 7:
        atomic_store(&rig->lose, !atomic_load(&rig->lose));
        break;
    default:
        forward_data_wish(rig->sides[DIALLER].forward, 7,
                          forward_data_wanted(rig->sides[LISTENER].forward, 7));
        break;
    }
}

/* Each end is told once. */
static atomic_ulong records;

static void on_ended(void *ctx, const struct forward_record *record)
{
    MUST(strcmp(record->name, "d.x") == 0 || strcmp(record->name, "l.x") == 0 ||
         record->name[0] == '\0');
    MUST(record->owner ? record->peer_id[0] != '\0' : record->total_us > 0);
    atomic_fetch_add(&records, !record->owner);
}

static uint64_t all_ends(struct rig *rig)
{
    uint64_t all = 0;

    for (int i = 0; i < 2; i++) {
        struct forward_counters counters = rig_counters(rig, i);

        for (unsigned how = 0; how < N_FORWARD_ENDS; how++)
            all += counters.ends[how];
    }
    return all;
}

static void go_well(struct rig *rig)
{
    atomic_store(&rig->gate_deaf, false);
    atomic_store(&rig->refuse, 0);
    atomic_store(&rig->lose, false);
    rig_release(rig);
}

/* ---- the whole ---- */

static void start(struct storm *storm)
{
    struct rig *rig = storm->rig;

    rig->through_middle = true;
    rig->settings.ops.ended = on_ended;
    rig->settings.route_ms = 2000;
    rig->settings.dial_ms = 1000;
    rig->settings.idle_ms = 1500; /* what was forgotten in the midst of a stream */
    rig->settings.half_close_ms = 1000;
    for (int i = 0; i < 2; i++)
        backends[i].fd = net_listen(backends[i].addr);
    rig_start(rig);
    for (int i = 0; i < 2; i++)
        forward_set_records(rig->sides[i].forward, FORWARD_RECORDS_ALL);
    rig_link_up(rig);
    rig_offer(rig, DIALLER, "d.x", backends[DIALLER].addr);
    rig_offer(rig, LISTENER, "l.x", backends[LISTENER].addr);
    for (int i = 0; i < 2; i++)
        for (int j = 0; j < SERVERS; j++)
            MUST(pthread_create(&backends[i].servers[j], NULL, serve, &backends[i]) == 0);
}

static void stop(struct storm *storm)
{
    for (int i = 0; i < 2; i++) {
        RIG_WAIT(storm->rig, i, clients, 0);
        RIG_WAIT(storm->rig, i, served, 0);
    }
    atomic_store(&over, true);
    for (int i = 0; i < 2; i++) {
        shutdown(backends[i].fd, SHUT_RDWR);
        for (int j = 0; j < SERVERS; j++)
            pthread_join(backends[i].servers[j], NULL);
        close(backends[i].fd);
    }
    /* Of a stream that its owner broke off it is told a second later. */
    for (uint64_t until = clock_ms() + WAIT_MS;
         atomic_load(&records) != all_ends(storm->rig) && clock_ms() < until;)
        poll(NULL, 0, 5);
    MUST(atomic_load(&records) == all_ends(storm->rig));
    rig_end(storm->rig);
}

void storm_run(struct storm *storm)
{
    struct crowd *crowds = calloc(storm->threads, sizeof *crowds);
    unsigned seed = storm->seed;

    MUST(crowds);
    fprintf(stderr, "MESHD_TEST_SEED=%u\n", storm->seed);
    start(storm);
    for (unsigned i = 0; i < storm->threads; i++) {
        crowds[i].storm = storm;
        crowds[i].seed = storm->seed + i + 1;
        MUST(pthread_create(&crowds[i].thread, NULL, be_clients, &crowds[i]) == 0);
    }
    for (unsigned i = 0; i < storm->faults; i++) {
        poll(NULL, 0, rand_r(&seed) % 20);
        fault(storm->rig, (unsigned)rand_r(&seed));
        if (i % 8 == 7)
            go_well(storm->rig);
    }
    go_well(storm->rig);
    atomic_store(&calm, true);
    for (unsigned i = 0; i < storm->threads; i++)
        pthread_join(crowds[i].thread, NULL);
    free(crowds);
    stop(storm);
}
