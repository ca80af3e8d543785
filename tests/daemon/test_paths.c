/* paths: a private directory, one node per directory, nothing left behind. */
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "base/log.h"
#include "daemon/paths.h"
#include "forward/must.h"

static char top[64], dir[96];

static int open_as(unsigned socket_mode, struct paths *out_paths)
{
    static const struct config_group none;

    return paths_open(&(struct paths_settings){.dir = dir,
                                               .peer_id = "n1",
                                               .socket_group = &none,
                                               .socket_mode = socket_mode,
                                               .owner = {.uid = geteuid(), .gid = getegid()}},
                      out_paths);
}

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

    cr_assert_eq(open_as(0600, &paths), 0);
    cr_assert_eq(stat(dir, &st), 0);
    cr_expect_eq(st.st_mode & 0777, 0700u);
    cr_assert_eq(stat(paths.nng, &st), 0);
    cr_expect_eq(st.st_mode & 0777, 0700u);
    paths_close(&paths);
    cr_expect_neq(stat(paths.nng, &st), 0);
}

Test(paths, the_directory_is_as_open_as_the_socket_in_it, .init = setup, .fini = teardown)
{
    static const struct {
        unsigned socket, dir;
    } cases[] = {{0600, 0700}, {0660, 0710}, {0620, 0710},
                 {0666, 0711}, {0602, 0701}, {0600, 0700}};
    struct stat st;

    umask(0);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct paths paths;

        cr_assert_eq(open_as(cases[i].socket, &paths), 0);
        cr_assert_eq(stat(dir, &st), 0);
        cr_expect_eq(st.st_mode & 07777, cases[i].dir, "%o", cases[i].socket);
        cr_assert_eq(stat(paths.nng, &st), 0);
        cr_expect_eq(st.st_mode & 07777, 0700u);
        paths_close(&paths);
    }
    *strrchr(dir, '/') = '\0';
    cr_assert_eq(stat(dir, &st), 0);
    cr_expect_eq(st.st_mode & 07777, 0711u, "others' nodes may live beside it");
}

Test(paths, a_link_in_the_place_of_nngs_folder_is_not_followed, .init = setup, .fini = teardown)
{
    char elsewhere[96], kept[128];
    struct paths paths;
    struct stat st;

    cr_assert_eq(open_as(0600, &paths), 0);
    snprintf(elsewhere, sizeof elsewhere, "%s/elsewhere", top);
    snprintf(kept, sizeof kept, "%s/kept", elsewhere);
    cr_assert_eq(mkdir(elsewhere, 0700), 0);
    close(open(kept, O_CREAT | O_WRONLY, 0600));
    cr_assert_eq(rmdir(paths.nng), 0);
    cr_assert_eq(symlink(elsewhere, paths.nng), 0);
    paths_close(&paths);
    cr_expect_eq(stat(kept, &st), 0);
}

Test(paths, a_second_node_in_one_directory_is_refused, .init = setup, .fini = teardown)
{
    struct paths first, second;

    cr_assert_eq(open_as(0600, &first), 0);
    cr_expect_eq(open_as(0600, &second), -EBUSY);
    paths_close(&first);
    cr_expect_eq(open_as(0600, &second), 0);
    paths_close(&second);
}

Test(paths, what_a_killed_node_left_is_removed, .init = setup, .fini = teardown)
{
    struct paths paths;
    char left[160];
    struct stat st;

    cr_assert_eq(open_as(0600, &paths), 0);
    snprintf(left, sizeof left, "%s/pair-7", paths.nng);
    close(open(left, O_CREAT | O_WRONLY, 0600));
    close(paths.lock_fd); /* as if killed: nothing is cleaned up */
    cr_assert_eq(stat(left, &st), 0);
    cr_assert_eq(open_as(0600, &paths), 0);
    cr_expect_neq(stat(left, &st), 0);
    paths_close(&paths);
}

Test(paths, an_unusable_directory_is_an_error, .init = setup, .fini = teardown)
{
    struct paths paths;

    snprintf(dir, sizeof dir, "%s/file", top);
    close(open(dir, O_CREAT | O_WRONLY, 0600));
    cr_expect_lt(open_as(0600, &paths), 0);
}
