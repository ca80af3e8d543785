/* Beside OpenSSL's own programs: their sessions with ours, and certificates as they make them. */
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>
#include "tls/rig.h"

/* ---- programs ---- */

struct program {
    pid_t pid;
    int in, out; /* its standard input and output */
};

/* In the folder, with what is said of it by `args`. */
static struct program start(const char *args)
{
    int in[2], out[2];
    struct program p;
    char line[512];

    snprintf(line, sizeof(line), "cd %s && exec openssl %s", folder(), args);
    cr_assert_eq(pipe2(in, O_CLOEXEC), 0);
    cr_assert_eq(pipe2(out, O_CLOEXEC), 0);
    p.pid = fork();
    cr_assert_geq(p.pid, 0);
    if (p.pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        dup2(in[0], 0);
        dup2(out[1], 1);
        execl("/bin/sh", "sh", "-c", line, (char *)NULL);
        _exit(127);
    }
    close(in[0]);
    close(out[1]);
    p.in = in[1];
    p.out = out[0];
    return p;
}

/* Reads its output until a word is there: all of it so far. */
static const char *until(struct program *p, const char *word)
{
    static char text[65536];
    static size_t len;

    len = 0;
    text[0] = '\0';
    while (!strstr(text, word)) {
        ssize_t n = read(p->out, text + len, sizeof(text) - 1 - len);

        cr_assert_gt(n, 0, "'%s' never came: %s", word, text);
        len += (size_t)n;
        text[len] = '\0';
    }
    return strstr(text, word);
}

static void stop(struct program *p)
{
    close(p->in);
    close(p->out);
    kill(p->pid, SIGTERM);
    cr_assert_eq(waitpid(p->pid, NULL, 0), p->pid);
}

static void shell(const char *command)
{
    char line[4096];

    snprintf(line, sizeof(line), "cd %s && { %s; } >log 2>&1", folder(), command);
    cr_assert_eq(system(line), 0, "%s", line);
}

static char *in_folder(const char *name)
{
    static char paths[16][128];
    static unsigned n;
    char *path = paths[n++ % 16];

    snprintf(path, sizeof(paths[0]), "%s/%s", folder(), name);
    return path;
}

/* ---- a session over TCP ---- */

static int listening(uint16_t *out_port)
{
    struct sockaddr_in any = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof(any);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    cr_assert_eq(bind(fd, (struct sockaddr *)&any, sizeof(any)), 0);
    cr_assert_eq(listen(fd, 8), 0);
    cr_assert_eq(getsockname(fd, (struct sockaddr *)&any, &len), 0);
    *out_port = ntohs(any.sin_port);
    return fd;
}

static int dialled(uint16_t port)
{
    struct sockaddr_in to = {
        .sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    cr_assert_eq(connect(fd, (struct sockaddr *)&to, sizeof(to)), 0);
    cr_assert_eq(fcntl(fd, F_SETFL, O_NONBLOCK), 0);
    return fd;
}

static void shake(struct end *end)
{
    while ((end->result = tls_handshake(end->tls)) == -EAGAIN)
        end_wait(end);
    cr_assert_eq(end->result, 0, "%s", tls_why(end->tls));
}

static size_t hear(struct end *end, char *got, size_t size)
{
    ssize_t n;

    while ((n = tls_read(end->tls, got, size)) == -EAGAIN)
        end_wait(end);
    cr_assert_geq(n, 0, "%s", tls_why(end->tls));
    return (size_t)n;
}

static void setup(void)
{
    alarm(60); /* a program that says nothing must not hold up the rest */
    signal(SIGPIPE, SIG_IGN);
}

TestSuite(tls_interop, .init = setup);

Test(tls_interop, openssl_s_client_dials)
{
    struct issued *ca = issue_ca(NULL, "ca");
    struct tls_settings settings = node_settings("n1", ca, issue_node(ca, "n1"));
    struct tls_keeper *keeper;
    struct end end = {0};
    char args[256], got[32];
    struct program client;
    uint16_t port;
    int fd = listening(&port);

    keeper = keep(&settings);
    node_settings("n2", ca, issue_node(ca, "n2"));
    snprintf(args, sizeof(args),
             "s_client -connect 127.0.0.1:%u -tls1_3 -alpn meshd/1 -cert n2.pem -key n2-key.pem "
             "-CAfile n2-ca.pem -verify_return_error -quiet",
             port);
    client = start(args);
    end.fd = accept4(fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    cr_assert_geq(end.fd, 0);
    cr_assert_eq(tls_new(keeper, TLS_ACCEPT, end.fd, "", true, &end.tls), 0);
    shake(&end);
    cr_expect(tls_names(tls_peer(end.tls), "n2"));
    cr_assert_eq(write(client.in, "hello\n", 6), 6);
    cr_expect_eq(hear(&end, got, sizeof(got)), 6);
    end_write(&end, "answer\n", 7);
    until(&client, "answer");
    cr_expect_eq(tls_end(end.tls), 0);
    stop(&client);
    tls_free(end.tls);
    tls_keeper_free(keeper);
    close(end.fd);
    close(fd);
}

Test(tls_interop, openssl_s_server_answers)
{
    struct issued *ca = issue_ca(NULL, "ca");
    struct tls_settings settings = node_settings("n1", ca, issue_node(ca, "n1"));
    struct tls_keeper *keeper;
    struct end end = {0};
    struct program server;
    char got[32];
    unsigned port;

    keeper = keep(&settings);
    node_settings("n2", ca, issue_node(ca, "n2"));
    server = start("s_server -accept 127.0.0.1:0 -tls1_3 -alpn meshd/1 -cert n2.pem "
                   "-key n2-key.pem -CAfile n2-ca.pem -Verify 3 -verify_return_error");
    cr_assert_eq(sscanf(until(&server, "ACCEPT 127.0.0.1:"), "ACCEPT 127.0.0.1:%u", &port), 1);
    for (int i = 0; i < 2; i++) { /* the second time by a ticket of theirs */
        end.fd = dialled((uint16_t)port);
        cr_assert_eq(tls_new(keeper, TLS_CONNECT, end.fd, "n2", true, &end.tls), 0);
        shake(&end);
        cr_expect_eq(tls_peer(end.tls)->resumed, i == 1);
        end_write(&end, "hello\n", 6);
        until(&server, "hello");
        cr_assert_eq(write(server.in, "answer\n", 7), 7);
        cr_expect_eq(hear(&end, got, sizeof(got)), 7);
        cr_expect_eq(tls_end(end.tls), 0);
        shutdown(end.fd, SHUT_WR);
        tls_free(end.tls);
        close(end.fd);
    }
    stop(&server);
    tls_keeper_free(keeper);
}

/* As step or cert-manager would: no common name, several names, both usages; and an intermediate
 * CA of another kind of key. */
static const char make_script[] =
    "cat >cnf <<'X'\n"
    "[req]\ndistinguished_name=dn\n[dn]\n"
    "[ca]\nbasicConstraints=critical,CA:TRUE\nkeyUsage=critical,keyCertSign,cRLSign\n"
    "subjectKeyIdentifier=hash\n"
    "[node]\nkeyUsage=critical,digitalSignature,keyEncipherment\n"
    "extendedKeyUsage=serverAuth,clientAuth\nsubjectKeyIdentifier=hash\n"
    "authorityKeyIdentifier=keyid\n"
    "subjectAltName=critical,DNS:n1.example,DNS:n1,IP:10.0.0.1,URI:spiffe://mesh/n1\n"
    "X\n"
    "req() { openssl req -x509 -config cnf -nodes -days 5 \"$@\"; }\n"
    "req -newkey rsa:2048 -subj /O=root -extensions ca -keyout r.key -out r.pem && "
    "req -newkey ed25519 -subj /O=between -extensions ca -CA r.pem -CAkey r.key -keyout i.key "
    "-out i.pem && ";

static void made_elsewhere(const char *kind, bool between)
{
    struct tls_settings settings = {0};
    struct tls_keeper *keeper;
    char command[2048];
    struct pair pair;

    snprintf(command, sizeof(command),
             "%s req -newkey %s -subj / -extensions node -CA %s.pem -CAkey %s.key -keyout n.key "
             "-out n.pem && cat n.pem %s >chain.pem && chmod 600 n.key",
             make_script, kind, between ? "i" : "r", between ? "i" : "r",
             between ? "i.pem" : "/dev/null");
    shell(command);
    settings.ca = in_folder("r.pem");
    settings.cert = in_folder("chain.pem");
    settings.key = in_folder("n.key");
    settings.self = "n1";
    keeper = keep(&settings);
    pair_up(&pair, keeper, keeper, "n1.example", true);
    cr_expect_str_eq(tls_peer(pair.accept.tls)->names[1], "n1");
    pair_talk(&pair);
    pair_close(&pair);
    tls_keeper_free(keeper);
}

Test(tls_interop, rsa_from_elsewhere) { made_elsewhere("rsa:2048", false); }
Test(tls_interop, p_384_from_elsewhere)
{
    made_elsewhere("ec -pkeyopt ec_paramgen_curve:P-384", true);
}
Test(tls_interop, ed25519_below_an_intermediate_ca_from_elsewhere)
{
    made_elsewhere("ed25519", true);
}
