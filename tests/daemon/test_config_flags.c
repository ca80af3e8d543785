/* config: flags and variables, and what is told of wrong ones. */
#include <criterion/criterion.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "daemon/config_parts.h"
#include "daemon/config_support.h"

static void expect_action(const struct load *in, enum config_action action, bool config)
{
    struct loaded l = load(in);

    cr_assert_eq(l.result, 0, "%s", l.err);
    cr_expect_eq(l.action, action);
    cr_expect_eq(l.config != NULL, config);
    loaded_free(&l);
}

Test(config_flags, each_action_has_its_flag)
{
    expect_action(LOAD(0), CONFIG_RUN, true);
    expect_action(LOAD(.yaml = "", .flags = {"--check"}), CONFIG_CHECK, true);
    expect_action(LOAD(.flags = {"--check", "/dev/null"}), CONFIG_CHECK, true);
    expect_action(LOAD(.flags = {"/dev/null", "--check"}), CONFIG_CHECK, true);
    expect_action(LOAD(.flags = {"--check=/dev/null"}), CONFIG_CHECK, true);
    expect_action(LOAD(.flags = {"--config", "/dev/null", "--print-config"}), CONFIG_PRINT, true);
    expect_action(LOAD(.flags = {"--version"}), CONFIG_VERSION, false);
    expect_action(LOAD(.flags = {"-V"}), CONFIG_VERSION, false);
    expect_action(LOAD(.flags = {"--help"}), CONFIG_HELP, false);
    expect_action(LOAD(.flags = {"-h"}), CONFIG_HELP, false);
}

Test(config_flags, help_and_version_need_no_valid_settings)
{
    expect_action(LOAD(.yaml = "oops", .env = {"LOG_LEVEL=loud"}, .flags = {"--help", "--oops"}),
                  CONFIG_HELP, false);
    expect_action(LOAD(.env = {"PEER_NAME=/"}, .flags = {"--version"}), CONFIG_VERSION, false);
}

Test(config_flags, check_tells_what_is_wrong_in_its_file)
{
    load_bad(LOAD(.flags = {"--check", "/nowhere/meshd.yaml"}),
             "/nowhere/meshd.yaml: cannot be opened: No such file or directory\n");
    load_bad(LOAD(.flags = {"--check", "/"}), "/: cannot be read: Is a directory\n");
    load_bad(LOAD(.flags = {"--check", "/dev/zero"}), "/dev/zero: is larger than 1 MiB\n");
}

Test(config_flags, a_wrong_command_line_is_told_whole)
{
    static const struct {
        const char *flags[5], *err;
    } cases[] = {
        {{"--prot", "7"},
         "unknown flag '--prot'; see meshd --help\n"
         "unexpected argument '7'; see meshd --help\n"},
        {{"--print-config", "-xy"},
         "unknown flag '-x'; see meshd --help\n"
         "unknown flag '-y'; see meshd --help\n"},
        {{"--log", "info"},
         "unknown flag '--log'; see meshd --help\n"
         "unexpected argument 'info'; see meshd --help\n"},
        {{"--bind"}, "'--bind' needs a value; see meshd --help\n"},
        {{"-c"}, "'-c' needs a value; see meshd --help\n"},
        {{"--version=2"}, "'--version=2' takes no value; see meshd --help\n"},
        {{"--print-config=x"}, "'--print-config=x' takes no value; see meshd --help\n"},
        {{"meshd.yaml"}, "unexpected argument 'meshd.yaml'; see meshd --help\n"},
        {{"--help\x1b[2J"}, "unknown flag '--help\\x1b[2J'; see meshd --help\n"},
        {{"--check", "--print-config"},
         "--check and --print-config: one of them is meant; see meshd --help\n"},
        {{"--heartbeat", "2s", "--heartbeat=2s"}, "--heartbeat: is there twice; allowed: once\n"},
        {{"--insecure", "--insecure=false"}, "--insecure: is there twice; allowed: once\n"},
        {{"--limit", "peers=1", "--limit", "peers=2"},
         "--limit peers: is there twice; allowed: once\n"},
        {{"--limit", "peers"},
         "--limit: 'peers' has no '='; allowed: NAME=VALUE, see meshd "
         "--help\n"},
        {{"--limit", "pears=1"},
         "--limit: 'pears=1' names no limit; allowed: those in meshd --help\n"},
        {{"--limit", "=1"}, "--limit: '=1' names no limit; allowed: those in meshd --help\n"},
    };

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
        load_bad(LOAD(.flags = {cases[i].flags[0], cases[i].flags[1], cases[i].flags[2],
                                cases[i].flags[3]}),
                 cases[i].err);
}

Test(config_flags, two_files_are_one_too_many)
{
    load_bad(LOAD(.yaml = "", .flags = {"--check", "/dev/null"}),
             "'/dev/null': a second configuration file; allowed: one\n");
    load_bad(LOAD(.flags = {"--check", "/dev/null", "x"}),
             "'x': a second configuration file; allowed: one\n");
}

Test(config_flags, a_bad_value_is_told_with_what_is_allowed)
{
    static const struct {
        const char *flags[3], *err;
    } cases[] = {
        {{"--peer-name", "a b"},
         "--peer-name: 'a b' is no peer id; allowed: 1 to 64 characters of "
         "A-Z a-z 0-9 . _ - (not . or ..)\n"},
        {{"--bind", "localhost:1"},
         "--bind: 'localhost:1' has no IP address before its port; allowed: ip:port, [v6]:port or "
         ":port (every address), the port from 0 (any free one) to 65535\n"},
        {{"--bind", "127.0.0.1"},
         "--bind: '127.0.0.1' has no port; allowed: ip:port, [v6]:port or :port (every address), "
         "the port from 0 (any free one) to 65535\n"},
        {{"--bind", "[::1]"},
         "--bind: '[::1]' has no port; allowed: ip:port, [v6]:port or :port (every address), the "
         "port from 0 (any free one) to 65535\n"},
        {{"--bind", "127.0.0.1:65536"},
         "--bind: '127.0.0.1:65536' has no port from 0 to 65535; allowed: ip:port, [v6]:port or "
         ":port (every address), the port from 0 (any free one) to 65535\n"},
        {{"--bind", "::1:7400"},
         "--bind: '::1:7400' has too many colons (an IPv6 address stands in brackets); allowed: "
         "ip:port, [v6]:port or :port (every address), the port from 0 (any free one) to 65535\n"},
        {{"--peer", "b"},
         "--peer: 'b' is no host and port; allowed: host:port or [v6]:port, the "
         "port from 1 to 65535\n"},
        {{"--service", "web"},
         "--service: 'web' has no port; allowed: name:host:port, "
         "name:[v6]:port or domain:port\n"},
        {{"--heartbeat", "3"},
         "--heartbeat: '3' is no duration; allowed: 50ms to 1m, as a whole "
         "number of ms, s, m or h\n"},
        {{"--heartbeat", "1.5s"},
         "--heartbeat: '1.5s' is no duration; allowed: 50ms to 1m, as a "
         "whole number of ms, s, m or h\n"},
        {{"--heartbeat", "-3s"},
         "--heartbeat: '-3s' is no duration; allowed: 50ms to 1m, as a "
         "whole number of ms, s, m or h\n"},
        {{"--heartbeat", "61s"},
         "--heartbeat: '61s' is too large; allowed: 50ms to 1m, as a whole "
         "number of ms, s, m or h\n"},
        {{"--heartbeat", "5124095576030432h"},
         "--heartbeat: '5124095576030432h' is too large; allowed: 50ms to 1m, as a whole number of "
         "ms, s, m or h\n"},
        {{"--limit", "peers=0"}, "--limit: limits.peers: '0' is too small; allowed: 1 to 65536\n"},
        {{"--limit", "peers=1KiB"},
         "--limit: limits.peers: '1KiB' is no whole number; allowed: 1 to 65536\n"},
        {{"--limit", "peers="},
         "--limit: limits.peers: '' is no whole number; allowed: 1 to 65536\n"},
        {{"--limit", "peers=18446744073709551617"},
         "--limit: limits.peers: '18446744073709551617' is too large; allowed: 1 to 65536\n"},
        {{"--limit", "message_bytes=17MiB"},
         "--limit: limits.message_bytes: '17MiB' is too large; allowed: 65536 to 16777216 bytes, "
         "also as KiB, MiB or GiB\n"},
        {{"--log-maps", "some"},
         "--log-maps: 'some' is none of the words meant; allowed: full, "
         "summary or off\n"},
        {{"--log-timestamps=1"},
         "--log-timestamps: '1' is neither true nor false; allowed: true "
         "or false\n"},
        {{"--runtime-dir", "run"},
         "--runtime-dir: 'run' is no absolute path of a folder; allowed: "
         "an absolute path of at most 83 printable ASCII bytes\n"},
        {{"--runtime-dir", "/"},
         "--runtime-dir: '/' is no absolute path of a folder; allowed: an "
         "absolute path of at most 83 printable ASCII bytes\n"},
        {{"--runtime-dir", "/a\nb"},
         "--runtime-dir: '/a\\x0ab' has bytes that are not printable ASCII; allowed: an absolute "
         "path of at most 83 printable ASCII bytes\n"},
    };

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
        load_bad(LOAD(.flags = {cases[i].flags[0], cases[i].flags[1]}), cases[i].err);
}

Test(config_flags, entries_of_a_variable_are_told_by_their_number)
{
    load_bad(LOAD(.env = {"SERVICE_ADDR=a:b:1, c ,,A:d:2", "REMOTE_PEER_ADDR=h:1,H:01,[::1]:1,"
                                                           "[0::1]:1,h:2,"}),
             "environment REMOTE_PEER_ADDR, entry 6: '' is no host and port; allowed: host:port or "
             "[v6]:port, the port from 1 to 65535\n"
             "environment REMOTE_PEER_ADDR, entry 4: '[::1]:1' is there already (environment "
             "REMOTE_PEER_ADDR, entry 3); allowed: each address once\n"
             "environment REMOTE_PEER_ADDR, entry 2: 'h:1' is there already (environment "
             "REMOTE_PEER_ADDR, entry 1); allowed: each address once\n"
             "environment SERVICE_ADDR, entry 2: 'c' has no port; allowed: name:host:port, "
             "name:[v6]:port or domain:port\n"
             "environment SERVICE_ADDR, entry 3: '' is empty; allowed: name:host:port, "
             "name:[v6]:port or domain:port\n"
             "environment SERVICE_ADDR, entry 4: 'a' is there already (environment SERVICE_ADDR, "
             "entry 1); allowed: each name once\n");
    load_bad(LOAD(.flags = {"--peer", "a:1", "--peer", "A:1"}),
             "--peer: 'a:1' is there already (--peer); allowed: each address once\n");
}

Test(config_flags, help_names_every_setting)
{
    char *text = NULL, flag[64];
    size_t size;
    FILE *out = open_memstream(&text, &size);

    config_help(out);
    fclose(out);
    for (const struct setting *s = settings; s < settings + N_SETTINGS; s++) {
        if (s->flag)
            snprintf(flag, sizeof(flag), "  --%s", s->flag);
        else if (s->list)
            snprintf(flag, sizeof(flag), "  %s:", s->key);
        else
            snprintf(flag, sizeof(flag), "  --limit %s=", strchr(s->key, '.') + 1);
        cr_expect(strstr(text, flag), "%s", flag);
        cr_expect(strstr(text, s->key), "%s", s->key);
        cr_expect(!s->env || strstr(text, s->env), "%s", s->key);
        cr_expect(strstr(text, s->what), "%s", s->key);
    }
    free(text);
}

Test(config_flags, every_row_of_the_table_is_whole)
{
    for (const struct setting *s = settings; s < settings + N_SETTINGS; s++) {
        cr_expect(s->key && s->what && s->type && (s->def || s->def_text), "%td", s - settings);
        cr_expect(s->flag ? s->arg != NULL : s->list || strncmp(s->key, "limits.", 7) == 0, "%s",
                  s->key);
        cr_expect_eq(setting_find(s->key, strlen(s->key)), s, "%s is there twice", s->key);
    }
    for (const struct limit_row *row = limit_rows; row->name; row++) {
        char key[64];

        snprintf(key, sizeof(key), "limits.%s", row->name);
        cr_expect(setting_find(key, strlen(key)), "%s", key);
    }
}
