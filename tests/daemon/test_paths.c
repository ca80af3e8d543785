/* paths: a private directory, one node per directory, nothing left behind. */
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>
#include "base/log.h"
#include "daemon/paths.h"
#include "forward/must.h"

static char top[64], dir[96];

static void setup(void)
{
    snprintf(top, sizeof top, P_tmpdir "/meshd-paths-XXXXXX");
    cr_assert(mkdtemp(top));
    snprintf(dir, sizeof dir, "%s/run/n1", top);
    log_setup(&(struct log_settings){.level = LOG_ERROR, .format = LOG_TEXT});
}

static void teardown(void)
{
    char command[160];

    snprintf(command, sizeof command, "rm -rf '%s'", top);
    MUST(system(command) == 0);
}

Test(paths, the_directory_is_made_private_with_its_parents, .init = setup, .fini = teardown)
{
    struct paths paths;
    struct stat st;

    cr_assert_eq(paths_open(dir, "n1", &paths), 0);
    cr_assert_eq(stat(dir, &st), 0);
    cr_expect_eq(st.st_mode & 0777, 0700u);
    cr_assert_eq(stat(paths.nng, &st), 0);
    cr_expect_eq(st.st_mode & 0777, 0700u);
    paths_close(&paths);
    cr_expect_neq(stat(paths.nng, &st), 0);
}

Test(paths, a_second_node_in_one_directory_is_refused, .init = setup, .fini = teardown)
{
    struct paths first, second;

    cr_assert_eq(paths_open(dir, "n1", &first), 0);
    cr_expect_eq(paths_open(dir, "n1", &second), -EBUSY);
    paths_close(&first);
    cr_expect_eq(paths_open(dir, "n1", &second), 0);
    paths_close(&second);
}

Test(paths, what_a_killed_node_left_is_removed, .init = setup, .fini = teardown)
{
    struct paths paths;
    char left[160];
    struct stat st;

    cr_assert_eq(paths_open(dir, "n1", &paths), 0);
    snprintf(left, sizeof left, "%s/pair-7", paths.nng);
    close(open(left, O_CREAT | O_WRONLY, 0600));
    close(paths.lock_fd); /* as if killed: nothing is cleaned up */
    cr_assert_eq(stat(left, &st), 0);
    cr_assert_eq(paths_open(dir, "n1", &paths), 0);
    cr_expect_neq(stat(left, &st), 0);
    paths_close(&paths);
}

Test(paths, an_unusable_directory_is_an_error, .init = setup, .fini = teardown)
{
    struct paths paths;

    snprintf(dir, sizeof dir, "%s/file", top);
    close(open(dir, O_CREAT | O_WRONLY, 0600));
    cr_expect_lt(paths_open(dir, "n1", &paths), 0);
}
