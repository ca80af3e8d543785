/* fake - see fake.h. What the tests cannot do without is asserted with abort: a fake that fails is
 * no finding about meshcat. */
#include "client/fake.h"
#include <arpa/inet.h>
#include <endian.h>
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>
#include "wire/frame.h"

#define NEED(what)                                                                                 \
    do {                                                                                           \
        if (!(what)) {                                                                             \
            perror(#what);                                                                         \
            abort();                                                                               \
        }                                                                                          \
    } while (0)
#define REQUEST_MAX 1048576u

/* A port that is wanted by its number stays this socket's when it listens no more, too; one that
 * the kernel has chosen would be somebody else's soon. */
static int bind_tcp(struct sockaddr_in *out_at)
{
    const struct sockaddr_in any = {.sin_family = AF_INET,
                                    .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fd, r;

    do {
        socklen_t len = sizeof(any);

        NEED((fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) >= 0);
        NEED(bind(fd, (const struct sockaddr *)&any, len) == 0);
        NEED(getsockname(fd, (struct sockaddr *)out_at, &len) == 0);
        close(fd);
        NEED((fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) >= 0);
        r = bind(fd, (struct sockaddr *)out_at, len);
        NEED(r == 0 || errno == EADDRINUSE);
        if (r < 0)
            close(fd);
    } while (r < 0);
    return fd;
}

static void listen_tcp(struct fake *fake, int backlog)
{
    struct sockaddr_in at;

    fake->fd = bind_tcp(&at);
    NEED(listen(fake->fd, backlog) == 0);
    fake->port = ntohs(at.sin_port);
    snprintf(fake->url, sizeof(fake->url), "tcp://127.0.0.1:%u", (unsigned)fake->port);
}

static void listen_unix(struct fake *fake, int backlog)
{
    struct sockaddr_un at = {.sun_family = AF_UNIX};

    snprintf(fake->dir, sizeof(fake->dir), P_tmpdir "/meshcat-test-XXXXXX");
    NEED(mkdtemp(fake->dir));
    snprintf(at.sun_path, sizeof(at.sun_path), "%s/meshd.sock", fake->dir);
    snprintf(fake->url, sizeof(fake->url), "ipc://%s", at.sun_path);
    NEED((fake->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0)) >= 0);
    NEED(bind(fake->fd, (struct sockaddr *)&at, sizeof(at)) == 0);
    NEED(listen(fake->fd, backlog) == 0);
}

struct one {
    struct fake *fake;
    int fd;
};

static void *run_one(void *arg)
{
    struct one *one = arg;

    one->fake->serve(one->fake, one->fd);
    shutdown(one->fd, SHUT_RDWR); /* fake_stop closes it, so that its number is not used again */
    free(one);
    return NULL;
}

static void *run(void *arg)
{
    struct fake *fake = arg;

    for (;;) {
        int fd = accept4(fake->fd, NULL, NULL, SOCK_CLOEXEC);
        struct one *one;

        if (fd < 0)
            return NULL; /* fake_stop shut it */
        if (!fake->many) {
            fake->serve(fake, fd);
            close(fd);
            continue;
        }
        NEED(fake->n < FAKE_MANY && (one = malloc(sizeof(*one))));
        *one = (struct one){.fake = fake, .fd = fd};
        fake->fds[fake->n] = fd;
        NEED(pthread_create(&fake->threads[fake->n++], NULL, run_one, one) == 0);
    }
}

static void begin(struct fake *fake, enum sp_framing framing, int backlog)
{
    memset(fake, 0, sizeof(*fake));
    fake->framing = framing;
    signal(SIGPIPE, SIG_IGN);
    if (framing == SP_TCP)
        listen_tcp(fake, backlog);
    else
        listen_unix(fake, backlog);
}

void fake_start(struct fake *fake, enum sp_framing framing,
                void (*serve)(struct fake *fake, int fd), void *ctx)
{
    begin(fake, framing, 16);
    fake->serve = serve;
    fake->ctx = ctx;
    NEED(pthread_create(&fake->thread, NULL, run, fake) == 0);
}

void fake_start_many(struct fake *fake, enum sp_framing framing,
                     void (*serve)(struct fake *fake, int fd), void *ctx)
{
    begin(fake, framing, 64);
    fake->serve = serve;
    fake->ctx = ctx;
    fake->many = true;
    NEED(pthread_create(&fake->thread, NULL, run, fake) == 0);
}

void fake_black_hole(struct fake *fake, enum sp_framing framing)
{
    struct sockaddr_storage at;
    socklen_t len = sizeof(at);

    begin(fake, framing, 0);
    NEED(getsockname(fake->fd, (struct sockaddr *)&at, &len) == 0);
    /* Until one does not get through at once; they are left open on purpose. */
    for (int i = 0; i < 64; i++) {
        int fd = socket(at.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
        struct pollfd p = {.fd = fd, .events = POLLOUT};

        NEED(fd >= 0);
        if (connect(fd, (struct sockaddr *)&at, len) < 0 && poll(&p, 1, 100) == 0)
            return;
        if (framing == SP_IPC && !(p.revents & POLLOUT) && i > 2)
            return;
    }
}

void fake_stop(struct fake *fake)
{
    char path[128];

    shutdown(fake->fd, SHUT_RDWR);
    if (fake->serve)
        pthread_join(fake->thread, NULL);
    for (size_t i = 0; i < fake->n; i++) {
        shutdown(fake->fds[i], SHUT_RDWR);
        pthread_join(fake->threads[i], NULL);
        close(fake->fds[i]);
    }
    close(fake->fd);
    if (fake->dir[0]) {
        snprintf(path, sizeof(path), "%s/meshd.sock", fake->dir);
        unlink(path);
        rmdir(fake->dir);
    }
}

uint16_t fake_free_port(void)
{
    struct sockaddr_in at;

    bind_tcp(&at); /* left open on purpose */
    return ntohs(at.sin_port);
}

void fake_send(int fd, const void *data, size_t len)
{
    for (size_t sent = 0; sent < len;) {
        ssize_t n = send(fd, (const char *)data + sent, len - sent, MSG_NOSIGNAL);

        if (n <= 0)
            return; /* the other is gone: what it makes of that is the test's to see */
        sent += (size_t)n;
    }
}

static bool receive(int fd, void *data, size_t len)
{
    return recv(fd, data, len, MSG_WAITALL) == (ssize_t)len;
}

void fake_drain(int fd)
{
    char bytes[4096];

    while (recv(fd, bytes, sizeof(bytes), 0) > 0)
        ;
}

bool fake_greet(int fd)
{
    uint8_t hello[SP_HELLO_LEN];
    uint16_t protocol;

    sp_hello_pack(SP_REP0, hello);
    fake_send(fd, hello, sizeof(hello));
    return receive(fd, hello, sizeof(hello)) && sp_hello_parse(hello, &protocol) == 0 &&
           protocol == SP_REQ0;
}

bool fake_read(struct fake *fake, int fd, struct fake_call *out_call)
{
    const char prefix[] = "/meshd.v1.Registry/";
    uint8_t head[SP_HEAD_MAX], *data;
    size_t head_len = sp_head_len(fake->framing), backtrace;
    const ProtobufCMethodDescriptor *method;
    ProtobufCMessage *message;
    struct frame_parts parts;
    uint64_t len;

    if (!receive(fd, head, head_len))
        return false;
    NEED(sp_head_parse(fake->framing, head, head_len, REQUEST_MAX, &len) == 0);
    NEED((data = malloc(len)));
    if (!receive(fd, data, len)) {
        free(data);
        return false;
    }
    NEED(sp_backtrace(data, len, &backtrace) == 0 && backtrace == 4);
    memcpy(&out_call->id, data, 4);
    arena_init(&out_call->arena);
    NEED(frame_split(data + 4, len - 4, &parts) == 0);
    NEED(wire_unpack(&meshd__v1__call_header__descriptor, parts.header, parts.header_len,
                     &out_call->arena, &message) == 0);
    out_call->header = (const Meshd__V1__CallHeader *)message;
    NEED(strncmp(out_call->header->method, prefix, strlen(prefix)) == 0);
    out_call->method = out_call->header->method + strlen(prefix);
    method = protobuf_c_service_descriptor_get_method_by_name(&meshd__v1__registry__descriptor,
                                                              out_call->method);
    NEED(method);
    NEED(wire_unpack(method->input, parts.body, parts.body_len, &out_call->arena, &message) == 0);
    out_call->request = message;
    free(data);
    return true;
}

void fake_call_fini(struct fake_call *call) { arena_fini(&call->arena); }

void fake_reply(struct fake *fake, int fd, const struct fake_call *call, unsigned status,
                Meshd__V1__Reason reason, const char *text, const ProtobufCMessage *message)
{
    Meshd__V1__ReplyHeader header = MESHD__V1__REPLY_HEADER__INIT;
    size_t head_len = sp_head_len(fake->framing), len;
    uint8_t *data;

    header.status = status;
    header.reason = reason;
    header.text = (char *)text;
    header.call_id = call->header->call_id;
    header.wire_version_min = 2;
    header.wire_version_max = 3;
    len = 4 + frame_size(&header.base, message);
    NEED((data = malloc(head_len + len)));
    sp_head_pack(fake->framing, len, data);
    memcpy(data + head_len, &call->id, 4);
    frame_pack(&header.base, message, data + head_len + 4);
    fake_send(fd, data, head_len + len);
    free(data);
}
