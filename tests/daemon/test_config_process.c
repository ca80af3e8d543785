/* config: whom a node becomes, and who may use its socket. */
#include <criterion/criterion.h>
#include <grp.h>
#include <pwd.h>
#include "daemon/config_parts.h"
#include "daemon/config_support.h"

Test(config_process, a_user_brings_its_own_group_or_the_one_named)
{
    const struct passwd *nobody = getpwnam("nobody");
    uid_t uid;
    gid_t own, other = getgrnam("daemon")->gr_gid;
    struct config *c;

    cr_assert(nobody);
    uid = nobody->pw_uid;
    own = nobody->pw_gid;
    c = load_good(LOAD(.yaml = "user: nobody"));
    cr_expect_str_eq(c->user.name, "nobody");
    cr_expect_eq(c->user.uid, uid);
    cr_expect_eq(c->user.gid, own);
    config_free(c);
    c = load_good(LOAD(.yaml = "user: root", .flags = {"--user", "nobody:daemon"}));
    cr_expect_str_eq(c->user.group, "daemon");
    cr_expect_eq(c->user.uid, uid);
    cr_expect_eq(c->user.gid, other);
    config_free(c);
    c = load_good(LOAD(.yaml = "user: nobody", .flags = {"--user="}));
    cr_expect_str_eq(c->user.name, "", "nobody at all");
    config_free(c);
}

Test(config_process, what_is_no_user_is_told_with_its_place)
{
    load_bad(LOAD(.yaml = "bind: :1\ninsecure: true\nuser: no-such-user\n"),
             "meshd.yaml:3:7: user: 'no-such-user' names no user of this host; allowed: a user of "
             "this host, or user:group\n");
    load_bad(LOAD(.flags = {"--user", "nobody:no-such-group"}),
             "--user: 'nobody:no-such-group' names no group of this host; allowed: a user of this "
             "host, or user:group\n");
    load_bad(LOAD(.flags = {"--user", "nobody:"}),
             "--user: 'nobody:' is neither a user's name nor user:group; allowed: a user of this "
             "host, or user:group\n");
    load_bad(LOAD(.flags = {"--user", ":daemon"}),
             "--user: ':daemon' is neither a user's name nor user:group; allowed: a user of this "
             "host, or user:group\n");
    load_bad(LOAD(.flags = {"--user", "a-name-of-more-than-thirty-two-bytes"}),
             "--user: 'a-name-of-more-than-thirty-two-bytes' is neither a user's name nor "
             "user:group; allowed: a user of this host, or user:group\n");
    load_bad(LOAD(.flags = {"--socket-group", "no-such-group"}),
             "--socket-group: 'no-such-group' names no group of this host; allowed: a group of "
             "this host\n");
    load_bad(LOAD(.flags = {"--socket-group", "a b"}),
             "--socket-group: 'a b' is no group's name; allowed: a group of this host\n");
}

Test(config_process, a_socket_has_a_mode_that_lets_the_node_in)
{
    static const struct {
        const char *text, *why; /* NULL: fine */
        unsigned mode;
    } cases[] = {
        {"0600", NULL, 0600},
        {"660", NULL, 0660},
        {"0777", NULL, 0777},
        {"0060", "keeps the node's own user out", 0},
        {"0466", "keeps the node's own user out", 0},
        {"1777", "is too large", 0},
        {"608", "is no octal mode", 0},
        {"00600", "is no octal mode", 0},
        {"6", "is no octal mode", 0},
        {"", "is no octal mode", 0},
        {"u=rw", "is no octal mode", 0},
    };

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        char err[256];

        if (!cases[i].why) {
            struct config *c = load_good(LOAD(.flags = {"--socket-mode", cases[i].text}));

            cr_expect_eq(c->socket_mode, cases[i].mode, "%s", cases[i].text);
            config_free(c);
            continue;
        }
        snprintf(err, sizeof(err),
                 "--socket-mode: '%s' %s; allowed: octal, from 0600 to 0777, the owner's 6 in it\n",
                 cases[i].text, cases[i].why);
        load_bad(LOAD(.flags = {"--socket-mode", cases[i].text}), err);
    }
}
