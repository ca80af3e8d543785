/* sandbox: what a node needs goes on, what it does not need fails, what only an intruder does ends
 * it.
 *
 * Each thing is done by a child that has entered the sandbox. With sanitizers there is none. */
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/netlink.h>
#include <linux/sockios.h>
#include <netdb.h>
#include <netinet/in.h>
#include <pthread.h>
#include <sched.h>
#include <seccomp.h>
#include <semaphore.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>
#include "daemon/sandbox.h"

#ifdef MESHD_SANITIZED

Test(sandbox, there_is_none_with_sanitizers) { cr_expect_eq(sandbox_enter(), -EOPNOTSUPP); }

#else

#define FINE 0
#define NO_SANDBOX 200

static int result(long r) { return r < 0 ? errno : FINE; }

/* The exit code of a child that does it, or minus the signal that ended it. A deed returns 0, or
 * the errno of what failed. */
static int inside(int (*deed)(void))
{
    int status;
    pid_t child = fork();

    cr_assert_geq(child, 0);
    if (child == 0) {
        const struct rlimit none = {0, 0};

        signal(SIGABRT, SIG_DFL);
        setrlimit(RLIMIT_CORE, &none);
        alarm(20);
        _exit(sandbox_enter() < 0 ? NO_SANDBOX : deed());
    }
    cr_assert_eq(waitpid(child, &status, 0), child);
    return WIFSIGNALED(status) ? -WTERMSIG(status) : WEXITSTATUS(status);
}

/* ---- what a node needs ---- */

static void *nothing(void *arg) { return arg; }

static int threads(void)
{
    pthread_t thread;
    int r = pthread_create(&thread, NULL, nothing, NULL);

    return r ? r : pthread_join(thread, NULL);
}

static int names(void)
{
    struct addrinfo *found;

    if (getaddrinfo("localhost", "80", NULL, &found) != 0)
        return ENOENT;
    freeaddrinfo(found);
    getaddrinfo("no-such-host.invalid", NULL, NULL, &found); /* asks a server, perhaps; it ends */
    return FINE;
}

static int sockets(void)
{
    static const int families[] = {AF_UNIX, AF_INET, AF_INET6};
    int pair[2];

    for (size_t i = 0; i < sizeof families / sizeof families[0]; i++)
        if (socket(families[i], SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0) < 0)
            return errno;
    if (socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE) < 0)
        return errno;
    return result(socketpair(AF_UNIX, SOCK_STREAM, 0, pair));
}

static int bytes(void)
{
    int from[2], to[2], event = eventfd(1, EFD_CLOEXEC), on = 1;

    if (pipe2(from, O_CLOEXEC | O_NONBLOCK) < 0 || pipe2(to, O_CLOEXEC) < 0 || event < 0 ||
        fcntl(to[0], F_SETPIPE_SZ, 1 << 16) < 0 || ioctl(from[0], FIONBIO, &on) < 0)
        return errno;
    if (write(from[1], "x", 1) != 1 || splice(from[0], NULL, to[1], NULL, 1, 0) != 1)
        return errno;
    return result(open("/etc/hosts", O_RDONLY | O_CLOEXEC));
}

static int unsent(void)
{
    int fd = socket(AF_INET, SOCK_STREAM, 0), n;

    return result(fd < 0 ? fd : ioctl(fd, SIOCOUTQ, &n));
}

static int less_urgent(void) { return result(setpriority(PRIO_PROCESS, 0, 5)); }

static int memory(void)
{
    char *big = malloc(64 << 20);

    if (!big)
        return ENOMEM;
    big[32 << 20] = 1;
    big = realloc(big, 128 << 20);
    free(big);
    return result(big ? 0 : -1);
}

Test(sandbox, what_a_node_needs_goes_on)
{
    cr_expect_eq(inside(threads), FINE);
    cr_expect_eq(inside(names), FINE);
    cr_expect_eq(inside(sockets), FINE);
    cr_expect_eq(inside(bytes), FINE);
    cr_expect_eq(inside(memory), FINE);
    cr_expect_neq(inside(unsent), ENOSYS);
    cr_expect_eq(inside(less_urgent), FINE);
}

static int give_up(void)
{
    abort();
    return FINE;
}

Test(sandbox, abort_ends_the_process) { cr_expect_eq(inside(give_up), -SIGABRT); }

/* ---- what fails ---- */

static int packet(void) { return result(socket(AF_PACKET, SOCK_RAW, 0)); }
static int crypto(void) { return result(socket(AF_ALG, SOCK_SEQPACKET, 0)); }
static int machines(void) { return result(socket(AF_VSOCK, SOCK_STREAM, 0)); }
static int raw(void) { return result(socket(AF_INET, SOCK_RAW, IPPROTO_TCP)); }
static int sctp(void) { return result(socket(AF_INET, SOCK_STREAM, IPPROTO_SCTP)); }
static int filters(void) { return result(socket(AF_NETLINK, SOCK_RAW, NETLINK_NETFILTER)); }

/* The kernel looks at 32 bits of it only. */
static int packet_in_disguise(void)
{
    return result(syscall(SYS_socket, (1ul << 32) | AF_PACKET, SOCK_RAW, 0));
}

static int another_process(void)
{
    pid_t child = fork();

    if (child == 0)
        _exit(0);
    return result(child < 0 ? child : waitpid(child, NULL, 0));
}

static int clone3_call(void) { return result(syscall(SYS_clone3, NULL, 0)); }
static int signal_parent(void) { return result(kill(getppid(), 0)); }
static int signal_parents_thread(void)
{
    return result(syscall(SYS_tgkill, getppid(), getppid(), 0));
}

static int map_both(void)
{
    void *p = mmap(NULL, 4096, PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    return result(p == MAP_FAILED ? -1 : 0);
}

static int run_what_was_written(void)
{
    void *p = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    return result(mprotect(p, 4096, PROT_READ | PROT_EXEC));
}

static int type_on_terminal(void) { return result(ioctl(0, TIOCSTI, "x")); }
static int dumpable(void) { return result(prctl(PR_SET_DUMPABLE, 1)); }
static int set_limit(void)
{
    const struct rlimit more = {1, 1};

    return result(setrlimit(RLIMIT_CORE, &more));
}
static int own_signals(void) { return result(fcntl(0, F_SETOWN, getppid())); }
static int urings(void) { return result(syscall(SYS_io_uring_setup, 1, NULL)); }
static int memory_file(void) { return result(memfd_create("x", 0)); }

Test(sandbox, what_a_node_does_not_need_fails)
{
    static const struct {
        const char *what;
        int (*deed)(void);
        int error;
    } cases[] = {
        {"AF_PACKET", packet, EAFNOSUPPORT},
        {"AF_ALG", crypto, EAFNOSUPPORT},
        {"AF_VSOCK", machines, EAFNOSUPPORT},
        {"AF_PACKET with more bits", packet_in_disguise, ENOSYS},
        {"SOCK_RAW", raw, ENOSYS},
        {"SCTP", sctp, ENOSYS},
        {"NETLINK_NETFILTER", filters, ENOSYS},
        {"fork", another_process, ENOSYS},
        {"clone3", clone3_call, ENOSYS},
        {"kill", signal_parent, ENOSYS},
        {"tgkill", signal_parents_thread, ENOSYS},
        {"mmap both", map_both, ENOSYS},
        {"mprotect", run_what_was_written, ENOSYS},
        {"TIOCSTI", type_on_terminal, ENOSYS},
        {"PR_SET_DUMPABLE", dumpable, ENOSYS},
        {"setrlimit", set_limit, ENOSYS},
        {"F_SETOWN", own_signals, ENOSYS},
        {"io_uring_setup", urings, ENOSYS},
        {"memfd_create", memory_file, ENOSYS},
    };

    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        int r = inside(cases[i].deed);

        cr_expect_eq(r, cases[i].error, "%s: %d", cases[i].what, r);
    }
}

/* ---- what ends the process ---- */

static int run_program(void) { return result(execl("/bin/true", "true", (char *)NULL)); }

static int run_file(void)
{
    char name[] = "true", *argv[] = {name, NULL}, *env[] = {NULL};

    return result(syscall(SYS_execveat, AT_FDCWD, "/bin/true", argv, env, 0));
}

static int trace(void) { return result(ptrace(PTRACE_TRACEME, 0, NULL, NULL)); }
static int look_into(void)
{
    return result(syscall(SYS_process_vm_readv, getppid(), NULL, 0, NULL, 0, 0));
}
static int mount_it(void) { return result(syscall(SYS_mount, "a", "/", "tmpfs", 0, NULL)); }
static int program_kernel(void) { return result(syscall(SYS_bpf, 0, NULL, 0)); }
static int load_module(void) { return result(syscall(SYS_finit_module, -1, "", 0)); }
static int another_kernel(void) { return result(syscall(SYS_kexec_load, 0, 0, NULL, 0)); }
static int keys(void) { return result(syscall(SYS_keyctl, 0, 0, 0, 0, 0)); }
static int another_user(void) { return result(setuid(getuid())); }
static int capabilities(void) { return result(syscall(SYS_capset, NULL, NULL)); }
static int namespaces(void) { return result(unshare(CLONE_NEWUSER)); }
static int counters(void) { return result(syscall(SYS_perf_event_open, NULL, 0, -1, -1, 0)); }
static int faults(void) { return result(syscall(SYS_userfaultfd, 0)); }

Test(sandbox, what_only_an_intruder_does_ends_the_process)
{
    static const struct {
        const char *what;
        int (*deed)(void);
    } cases[] = {
        {"execve", run_program},
        {"execveat", run_file},
        {"ptrace", trace},
        {"process_vm_readv", look_into},
        {"mount", mount_it},
        {"bpf", program_kernel},
        {"finit_module", load_module},
        {"kexec_load", another_kernel},
        {"keyctl", keys},
        {"setuid", another_user},
        {"capset", capabilities},
        {"unshare", namespaces},
        {"perf_event_open", counters},
        {"userfaultfd", faults},
    };

    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        int r = inside(cases[i].deed);

        cr_expect_eq(r, -SIGSYS, "%s: %d", cases[i].what, r);
    }
}

static sem_t begin;

static void *keys_later(void *arg)
{
    sem_wait(&begin);
    syscall(SYS_keyctl, 0, 0, 0, 0, 0);
    return arg;
}

Test(sandbox, threads_that_run_already_are_in_it_too)
{
    int status;
    pid_t child = fork();

    cr_assert_geq(child, 0);
    if (child == 0) {
        pthread_t thread;

        alarm(20);
        sem_init(&begin, 0, 0);
        if (pthread_create(&thread, NULL, keys_later, NULL) != 0 || sandbox_enter() < 0)
            _exit(NO_SANDBOX);
        sem_post(&begin);
        pthread_join(thread, NULL);
        _exit(0);
    }
    cr_assert_eq(waitpid(child, &status, 0), child);
    cr_expect(WIFSIGNALED(status) && WTERMSIG(status) == SIGSYS, "%x", (unsigned)status);
}

/* A kernel that knows no filters; its answers are made by one. */
static void know_no_filters(void)
{
    scmp_filter_ctx filter = seccomp_init(SCMP_ACT_ALLOW);

    if (!filter || seccomp_rule_add(filter, SCMP_ACT_ERRNO(EINVAL), SCMP_SYS(seccomp), 0) < 0 ||
        seccomp_rule_add(filter, SCMP_ACT_ERRNO(EINVAL), SCMP_SYS(prctl), 1,
                         SCMP_A0(SCMP_CMP_EQ, PR_SET_SECCOMP)) < 0 ||
        seccomp_load(filter) < 0)
        _exit(NO_SANDBOX);
    seccomp_release(filter);
}

Test(sandbox, where_the_kernel_knows_no_filters_nothing_changes)
{
    int status;
    pid_t child = fork();

    cr_assert_geq(child, 0);
    if (child == 0) {
        alarm(20);
        know_no_filters();
        if (sandbox_enter() != -EINVAL)
            _exit(1);
        _exit(another_process() == FINE ? 0 : 2);
    }
    cr_assert_eq(waitpid(child, &status, 0), child);
    cr_expect_eq(status, 0, "%x", (unsigned)status);
}

#ifdef __x86_64__
/* Calls of i386 have numbers of their own; a kernel without them ends the process, too. */
static int old_call(void)
{
    long r;

    __asm__ volatile("int $0x80" : "=a"(r) : "a"(20L) : "memory");
    return FINE;
}

Test(sandbox, calls_of_another_architecture_end_the_process)
{
    int r = inside(old_call);

    cr_expect(r == -SIGSYS || r == -SIGSEGV, "%d", r);
}
#endif
#endif
