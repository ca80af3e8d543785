/* The race of a name's addresses, while a child of the program holds copies of its descriptors. */
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>
#include "client/connect.h"
#include "client/fake.h"

static struct fake fake;

/* The linker puts these in the place of libc's: each name has two addresses, both of the fake. */
int __wrap_getaddrinfo(const char *host, const char *service, const struct addrinfo *hints,
                       struct addrinfo **out);
void __wrap_freeaddrinfo(struct addrinfo *list);

int __wrap_getaddrinfo(const char *host, const char *service, const struct addrinfo *hints,
                       struct addrinfo **out)
{
    static struct sockaddr_in at;
    static struct addrinfo list[2];

    at = (struct sockaddr_in){.sin_family = AF_INET,
                              .sin_port = htons(fake.port),
                              .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    for (int i = 0; i < 2; i++)
        list[i] = (struct addrinfo){.ai_family = AF_INET,
                                    .ai_socktype = SOCK_STREAM,
                                    .ai_addr = (struct sockaddr *)&at,
                                    .ai_addrlen = sizeof(at),
                                    .ai_next = i == 0 ? &list[1] : NULL};
    *out = list;
    return 0;
}

void __wrap_freeaddrinfo(struct addrinfo *list) {}

static void setup(void)
{
    alarm(60);
    fake_black_hole(&fake, SP_TCP);
}

static void teardown(void) { fake_stop(&fake); }

TestSuite(connect, .init = setup, .fini = teardown);

/* The number that the next descriptor will have. */
static int next_fd(void)
{
    int fd = dup(STDIN_FILENO);

    close(fd);
    return fd;
}

static pid_t child_that_waits(void)
{
    pid_t child = fork();

    if (child != 0)
        return child;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    for (;;)
        pause();
}

static bool has_events(const struct connecting *c)
{
    struct pollfd at = {.fd = connecting_fd(c), .events = POLLIN};

    return poll(&at, 1, 0) > 0;
}

Test(connect, an_address_that_failed_is_told_of_once_though_a_child_has_its_descriptor_too)
{
    struct connecting *c = NULL;
    enum sp_framing framing;
    int first, fd;
    pid_t child;
    char url[64];

    snprintf(url, sizeof(url), "tcp://two.example:%u", fake.port);
    cr_assert_eq(connecting_new(url, &c), 0);
    first = next_fd();
    cr_assert_eq(connecting_step(c, &framing, &fd), -EINPROGRESS);
    cr_assert_geq(fcntl(first, F_GETFD), 0, "the first address is being tried");
    child = child_that_waits();
    cr_assert_gt(child, 0);
    cr_expect_not(has_events(c));
    shutdown(first, SHUT_RDWR); /* it fails */
    cr_expect(has_events(c));
    cr_expect_eq(connecting_step(c, &framing, &fd), -EINPROGRESS, "the second one is tried");
    cr_expect_not(has_events(c));
    connecting_free(c);
    kill(child, SIGKILL);
    cr_expect_eq(waitpid(child, NULL, 0), child);
}
