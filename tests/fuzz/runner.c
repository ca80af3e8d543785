/* runner - feeds a fuzz target its saved inputs and seeded mutations of each, as an ordinary test.
 *
 *   corpus_<what> DIR [MUTATIONS]       every file of DIR, and that many mutations of each
 *   corpus_<what> FILE                  that file alone
 *
 * The inputs are fed in a child, which keeps the one at hand in memory shared with its parent: when
 * the child dies or stands still, the parent says which file and mutation it was and prints the
 * bytes. Each input lies in a block of exactly its size, so that ASan sees the first byte past it.
 * MESHD_TEST_SEED repeats a run.
 */
#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define INPUT_MAX (1u << 20)
#define INPUT_SECONDS 20 /* one input may take this long, under a sanitizer on a busy machine */

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct at_hand {
    char file[256];
    unsigned mutation; /* 0: the file as it is */
    size_t size;
    uint64_t fed;
    uint8_t data[INPUT_MAX];
};

static struct at_hand *now; /* shared with the parent */
static uint64_t rng;

static uint64_t draw(void) /* splitmix64 */
{
    uint64_t z = rng += 0x9e3779b97f4a7c15u;

    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

static size_t below(size_t n) { return n ? (size_t)(draw() % n) : 0; }

static void feed(void)
{
    uint8_t *exact = malloc(now->size ? now->size : 1);

    if (!exact)
        abort();
    memcpy(exact, now->data, now->size);
    alarm(INPUT_SECONDS);
    LLVMFuzzerTestOneInput(exact, now->size);
    alarm(0);
    free(exact);
    now->fed++;
}

/* One small damage: what cut connections, broken programs and strangers do to a message. */
static void mutate(void)
{
    static const uint8_t edges[] = {0x00, 0x01, 0x7f, 0x80, 0xff};
    uint8_t *data = now->data;
    size_t at = below(now->size), n = 1 + below(8);

    switch (below(7)) {
    case 0: /* a bit */
        if (now->size)
            data[at] ^= (uint8_t)(1u << below(8));
        break;
    case 1: /* a byte at the edge of something */
        if (now->size)
            data[at] = edges[below(sizeof(edges))];
        break;
    case 2: /* cut off */
        now->size = at;
        break;
    case 3: /* a piece taken out */
        n = n < now->size - at ? n : now->size - at;
        memmove(data + at, data + at + n, now->size - at - n);
        now->size -= n;
        break;
    case 4: /* a piece put in */
        if (now->size + n > INPUT_MAX)
            break;
        memmove(data + at + n, data + at, now->size - at);
        for (size_t i = 0; i < n; i++)
            data[at + i] = (uint8_t)draw();
        now->size += n;
        break;
    case 5: /* said twice */
        n = now->size - at < 64 ? now->size - at : 64;
        if (now->size + n > INPUT_MAX)
            break;
        memmove(data + at + n, data + at, now->size - at);
        now->size += n;
        break;
    default: /* noise over a stretch */
        for (size_t i = at; i < now->size && i < at + n; i++)
            data[i] = (uint8_t)draw();
    }
}

static int load(const char *path)
{
    FILE *file = fopen(path, "rb");

    if (!file) {
        fprintf(stderr, "%s: %s\n", path, strerror(errno));
        return -1;
    }
    now->size = fread(now->data, 1, INPUT_MAX, file);
    now->mutation = 0;
    snprintf(now->file, sizeof(now->file), "%s", path);
    fclose(file);
    return 0;
}

static int feed_file(const char *path, unsigned mutations)
{
    if (load(path) < 0)
        return -1;
    feed();
    for (unsigned i = 1; i <= mutations; i++) {
        if (load(path) < 0)
            return -1;
        now->mutation = i;
        for (size_t left = 1 + below(4); left; left--)
            mutate();
        feed();
    }
    return 0;
}

static int not_hidden(const struct dirent *entry) { return entry->d_name[0] != '.'; }

static int feed_dir(const char *dir, unsigned mutations)
{
    struct dirent **entries;
    int n = scandir(dir, &entries, not_hidden, alphasort), r = 0;
    char path[sizeof(now->file)];

    if (n <= 0) {
        fprintf(stderr, "%s: no inputs\n", dir);
        return -1;
    }
    for (int i = 0; i < n; i++) {
        if (snprintf(path, sizeof(path), "%s/%s", dir, entries[i]->d_name) >= (int)sizeof(path))
            r = -1;
        if (r == 0)
            r = feed_file(path, mutations);
        free(entries[i]);
    }
    free(entries);
    return r;
}

static void report(int status, uint64_t seed)
{
    printf("not ok: input %" PRIu64 ", %s, mutation %u, seed %" PRIu64 ": ", now->fed + 1,
           now->file, now->mutation, seed);
    if (WIFSIGNALED(status))
        printf("%s\n", WTERMSIG(status) == SIGALRM ? "took too long" : strsignal(WTERMSIG(status)));
    else
        printf("exit %d\n", WEXITSTATUS(status));
    printf("its %zu bytes:", now->size);
    for (size_t i = 0; i < now->size && i < 4096; i++)
        printf("%s%02x", i % 32 ? "" : "\n  ", now->data[i]);
    printf("\n");
}

int main(int argc, char **argv)
{
    const char *given = getenv("MESHD_TEST_SEED");
    unsigned mutations = argc > 2 ? (unsigned)strtoul(argv[2], NULL, 10) : 0;
    uint64_t seed = 0;
    struct stat st;
    int status;
    pid_t child;

    if (argc < 2 || stat(argv[1], &st) < 0) {
        fprintf(stderr, "usage: %s DIR [MUTATIONS] | FILE\n", argv[0]);
        return 2;
    }
    if (given && *given)
        seed = strtoull(given, NULL, 10);
    else if (getrandom(&seed, sizeof(seed), 0) != (ssize_t)sizeof(seed))
        return 2;
    now = mmap(NULL, sizeof(*now), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (now == MAP_FAILED)
        return 2;
    printf("MESHD_TEST_SEED=%" PRIu64 "\n", seed);
    fflush(stdout);

    child = fork();
    if (child < 0)
        return 2;
    if (child == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        rng = seed;
        exit((S_ISDIR(st.st_mode) ? feed_dir : feed_file)(argv[1], mutations) < 0 ? 2 : 0);
    }
    if (waitpid(child, &status, 0) != child)
        return 2;
    if (status != 0) {
        report(status, seed);
        return 1;
    }
    printf("ok: %" PRIu64 " inputs\n", now->fed);
    return 0;
}
