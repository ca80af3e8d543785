/* The command line, in the manner of nngcat: a table of lines and of what they mean. */
#include <criterion/criterion.h>
#include <string.h>
#include "meshcat.h"

static struct meshcat_opts opts;
static struct meshcat_complaint complaint;
static char *words[16]; /* what opts.args points into */
static char text[512];

/* Splits line at blanks and parses it. */
static int parse(const char *line)
{
    int argc = 0;

    snprintf(text, sizeof(text), "meshcat %s", line);
    for (char *word = strtok(text, " "); word && argc < 15; word = strtok(NULL, " "))
        words[argc++] = word;
    words[argc] = NULL;
    return opts_parse(argc, words, &opts, &complaint);
}

Test(opts, defaults_are_a_table_and_five_seconds)
{
    cr_assert_eq(parse("services"), 0, "%s", complaint.text);
    cr_expect_str_eq(opts.cmd->name, "services");
    cr_expect_eq(opts.format, FORMAT_TABLE);
    cr_expect_eq(opts.timeout_ms, 5000);
    cr_expect_null(opts.dial);
    cr_expect_eq(opts.n_args, 0);
}

Test(opts, a_value_comes_after_equals_colon_or_as_the_next_word)
{
    static const char *const lines[] = {
        "services --dial tcp://h:1", "services --dial=tcp://h:1",    "services --dial:tcp://h:1",
        "--dial tcp://h:1 services", "--connect tcp://h:1 services", "services --connect=tcp://h:1",
        "services --dia:tcp://h:1",  "services --dia tcp://h:1",
    };

    for (size_t i = 0; i < sizeof(lines) / sizeof(*lines); i++) {
        cr_assert_eq(parse(lines[i]), 0, "%s: %s", lines[i], complaint.text);
        cr_expect_str_eq(opts.dial, "tcp://h:1", "%s", lines[i]);
    }
}

Test(opts, a_version_of_the_proxy_protocol_may_be_left_out)
{
    static const struct {
        const char *line;
        int version;
    } lines[] = {
        {"offer a b:1 --proxy-protocol", 1},     {"offer --proxy-protocol a b:1", 1},
        {"offer a b:1 --proxy-protocol -q", 1},  {"offer a --proxy-protocol v2 b:1", 2},
        {"offer a b:1 --proxy-protocol=v2", 2},  {"offer a b:1 --proxy-protocol v1", 1},
        {"offer a b:1 --proxy-protocol off", 0}, {"offer a b:1", 0},
    };

    for (size_t i = 0; i < sizeof(lines) / sizeof(*lines); i++) {
        cr_assert_eq(parse(lines[i].line), 0, "%s: %s", lines[i].line, complaint.text);
        cr_expect_eq(opts.offer.proxy_protocol, lines[i].version, "%s", lines[i].line);
        cr_expect_eq(opts.n_args, 2, "%s", lines[i].line);
    }
    cr_expect_neq(parse("offer a b:1 --proxy-protocol v3"), 0);
}

Test(opts, a_short_value_is_glued_or_the_next_word)
{
    static const char *const lines[] = {"node -x/run/s", "node -x /run/s", "-x/run/s node",
                                        "node --connect-i=/run/s", "-x /run/s node"};

    for (size_t i = 0; i < sizeof(lines) / sizeof(*lines); i++) {
        cr_assert_eq(parse(lines[i]), 0, "%s: %s", lines[i], complaint.text);
        cr_expect_str_eq(opts.ipc_path, "/run/s", "%s", lines[i]);
    }
    cr_assert_eq(parse("node -l7401"), 0);
    cr_expect_eq(opts.local_port, 7401);
}

Test(opts, options_stand_before_or_after_the_command_and_between_its_words)
{
    cr_assert_eq(parse("-v lookup a --format j b -q c"), 0, "%s", complaint.text);
    cr_expect(opts.verbose && opts.silent);
    cr_expect_eq(opts.format, FORMAT_JSON);
    cr_assert_eq(opts.n_args, 3);
    cr_expect_str_eq(opts.args[0], "a");
    cr_expect_str_eq(opts.args[1], "b");
    cr_expect_str_eq(opts.args[2], "c");
}

Test(opts, two_dashes_end_the_options)
{
    cr_assert_eq(parse("lookup -- -v --dial"), 0, "%s", complaint.text);
    cr_expect(!opts.verbose);
    cr_assert_eq(opts.n_args, 2);
    cr_expect_str_eq(opts.args[1], "--dial");
}

Test(opts, seconds_are_finite_positive_and_may_be_fractions)
{
    static const struct {
        const char *value;
        uint32_t ms; /* 0: refused */
    } rows[] = {
        {"1", 1000},
        {"0.25", 250},
        {".5", 500},
        {"2.", 2000},
        {"0.001", 1},
        {"600", 600000},
        {"0", 0},
        {"-1", 0},
        {"inf", 0},
        {"nan", 0},
        {"1e3", 0},
        {"0x1", 0},
        {"601", 0},
        {"", 0},
        {".", 0},
        {"1,5", 0},
        {"5s", 0},
        {"0.0001", 0},
        {"99999999999999999999", 0},
    };

    for (size_t i = 0; i < sizeof(rows) / sizeof(*rows); i++) {
        char line[80];
        int r;

        snprintf(line, sizeof(line), "ping --timeout=%s", rows[i].value);
        r = parse(line);
        cr_expect_eq(r, rows[i].ms ? 0 : EXIT_USAGE, "%s", line);
        if (rows[i].ms)
            cr_expect_eq(opts.timeout_ms, rows[i].ms, "%s: %u", line, opts.timeout_ms);
    }
}

Test(opts, the_options_of_a_command_are_read)
{
    cr_assert_eq(parse("services --name web* --peer n2 --state s --limit 7"), 0);
    cr_expect_str_eq(opts.name_glob, "web*");
    cr_expect_str_eq(opts.peer, "n2");
    cr_expect_eq(opts.state, MESHD__V1__ROW_STATE__ROW_STATE_STALE);
    cr_expect_eq(opts.limit, 7);
    cr_assert_eq(parse("peers --state=d"), 0);
    cr_expect_eq(opts.state, MESHD__V1__ROW_STATE__ROW_STATE_DRAINING);
    cr_assert_eq(parse("ping -C3 -i 0.5"), 0);
    cr_expect_eq(opts.count, 3);
    cr_expect_eq(opts.interval_ms, 500);
    cr_assert_eq(parse("offer web 127.0.0.1:80 --ttl 1.5 --lease me"), 0);
    cr_expect_eq(opts.ttl_ms, 1500);
    cr_expect_str_eq(opts.lease, "me");
    cr_expect_eq(opts.offer.draining, 0);
    cr_assert_eq(parse("offer web 127.0.0.1:80 --dra"), 0);
    cr_expect_neq(opts.offer.draining, 0);
}

Test(opts, what_is_wrong_is_told_with_what_to_do)
{
    static const struct {
        const char *line, *part; /* of the complaint */
    } rows[] = {
        {"", "a command is missing"},
        {"frobnicate", "there is no command 'frobnicate'"},
        {"services --frob", "there is no option --frob"},
        {"services --frob=1", "there is no option --frob;"},
        {"services -z", "there is no option -z"},
        {"services --co x", "may mean --connect, --connect-ipc, --connect-local, --color, --count"},
        {"services --l 1", "may mean --limit, --lease"},
        {"services -qv", "not combined"},
        {"services --verbose=1", "takes no value"},
        {"services --dial", "needs a value: URL"},
        {"services -x", "needs a value: PATH"},
        {"services --format xml", "it takes table, json, jsonl, text, raw, hex"},
        {"services --format=", "it takes table, json, jsonl, text, raw, hex"},
        {"services --state x", "connected, stale, draining or unhealthy"},
        {"services --limit 0", "a number from 1"},
        {"services --limit 99999999999", "a number from 1"},
        {"services -l 0", "1 to 65535"},
        {"services -l 65536", "1 to 65535"},
        {"services -l 80x", "1 to 65535"},
        {"services --dial a --connect b", "--dial is given twice"},
        {"services --dial a -x b", "more than one node"},
        {"-l 1 -x b services", "more than one node"},
        {"services --ttl 5", "--ttl is not an option of services"},
        {"lookup a --name b", "--name is not an option of lookup"},
        {"ping a", "ping takes no words, 'a' is too much"},
        {"lookup", "lookup needs NAME..."},
        {"offer web", "offer needs NAME HOST:PORT"},
        {"offer web a:1 b", "'b' is too much"},
        {"withdraw", "withdraw needs NAME"},
        {"offer a b:1 --ttl 0.5", "1 to 86400"},
        {"offer a b:1 --check", "--check"},
        {"offer a b:1 --check icmp", "'icmp' is neither tcp nor http:/path"},
        {"offer a b:1 --check http:up", "has no path that begins with /"},
        {"offer a b:1 --check tcp --check-interval 0.01", "seconds, 0.1 to 3600"},
        {"offer a b:1 --check tcp --check-timeout 61", "seconds, 0.05 to 60"},
        {"offer a b:1 --check tcp --check-rise 0", "a number, 1 to 100"},
        {"offer a b:1 --check tcp --check-fall 101", "a number, 1 to 100"},
        {"offer a b:1 --check-fall 2", "give --check tcp or --check http:/path too"},
        {"offer a b:1 --proxy-protocol=v3", "off, v1 or v2"},
        {"withdraw a --check tcp", "--check is not an option of withdraw"},
        {"drain a --draining", "--draining is not an option of drain"},
        {"ca show -k", "--insecure is not an option of ca"},
        {"drain", "drain needs NAME"},
        {"ping -i 1 --format json", "give --count too"},
        {"ping -C 0", "1 to 1000000"},
        {"lookup a --dial", "needs a value"},
        {"services --d x", "may mean --dial, --delay, --draining, --data, --dump-request"},
        {"services --raw --hex", "--hex comes beside another format; give one"},
        {"services --format json -A", "--ascii comes beside another format; give one"},
        {"services -A --format json", "--format is given twice"},
        {"services --color x", "it takes auto, always or never"},
        {"services -Z 0", "a number of bytes, 1 to 16777216"},
        {"services -Z 16777217", "a number of bytes, 1 to 16777216"},
        {"services -d 0", "seconds, 0.001 to 600"},
        {"watch a b", "'b' is too much"},
        {"watch a --name b", "the name is given twice"},
        {"watch --from 5", "EPOCH:REVISION"},
        {"watch --from 0:5", "EPOCH:REVISION"},
        {"watch --from 5:5x", "EPOCH:REVISION"},
        {"watch --from 18446744073709551616:1", "EPOCH:REVISION"},
        {"watch -Z 5", "--recv-maxsz is not an option of watch"},
        {"diff a", "diff needs NODE NODE"},
        {"diff a b --dial c", "--dial is not an option of diff"},
        {"diff a b --raw", "diff shows no message of a node"},
        {"call", "call needs METHOD"},
        {"call Lookup -D a -F b", "the request is given twice"},
        {"call Lookup --format table", "call knows no table"},
        {"call Lookup --input x", "it takes text or binary"},
    };

    for (size_t i = 0; i < sizeof(rows) / sizeof(*rows); i++) {
        cr_expect_eq(parse(rows[i].line), EXIT_USAGE, "%s", rows[i].line);
        cr_expect(strstr(complaint.text, rows[i].part), "%s: %s", rows[i].line, complaint.text);
    }
}

Test(opts, formats_have_short_forms_and_the_shorter_word_counts)
{
    static const struct {
        const char *line;
        enum meshcat_format format;
    } rows[] = {
        {"services -A", FORMAT_ASCII},         {"services --asc", FORMAT_ASCII},
        {"services -Q", FORMAT_QUOTED},        {"services --quoted", FORMAT_QUOTED},
        {"services --hex", FORMAT_HEX},        {"services --raw", FORMAT_RAW},
        {"services --format=j", FORMAT_JSON},  {"services --format:jsonl", FORMAT_JSONL},
        {"services --format te", FORMAT_TEXT}, {"services --raw --raw", FORMAT_RAW},
        {"call Lookup", FORMAT_TEXT},          {"call Lookup --format json", FORMAT_JSON},
    };

    for (size_t i = 0; i < sizeof(rows) / sizeof(*rows); i++) {
        cr_assert_eq(parse(rows[i].line), 0, "%s: %s", rows[i].line, complaint.text);
        cr_expect_eq(opts.format, rows[i].format, "%s", rows[i].line);
    }
    cr_expect_eq(parse("services --format t"), EXIT_USAGE);
}

Test(opts, the_options_of_the_newer_commands_are_read)
{
    cr_assert_eq(parse("watch web --peer n2 -C5 --from 18446744073709551615:7"), 0);
    cr_expect_eq(opts.from_epoch, UINT64_MAX);
    cr_expect_eq(opts.from_revision, 7);
    cr_expect_eq(opts.count, 5);
    cr_assert_eq(parse("call Lookup -Fx --input b --dump=-"), 0, "%s", complaint.text);
    cr_expect_str_eq(opts.file, "x");
    cr_expect_str_eq(opts.dump, "-");
    cr_expect(opts.binary_input);
    cr_assert_eq(parse("services -d.5 -Z4096 --color never -i 2"), 0, "%s", complaint.text);
    cr_expect_eq(opts.delay_ms, 500);
    cr_expect_eq(opts.recv_max, 4096);
    cr_expect_eq(opts.color, COLOR_NEVER);
    cr_expect_eq(opts.interval_ms, 2000);
    cr_expect_eq(opts.count, 0);
}

Test(opts, the_format_is_known_even_after_an_error)
{
    cr_expect_eq(parse("--frob services --format json"), EXIT_USAGE);
    cr_expect_eq(opts.format, FORMAT_JSON);
}

Test(opts, help_and_version_need_no_command)
{
    cr_expect_eq(parse("-h"), 0);
    cr_expect(opts.help);
    cr_expect_eq(parse("--vers"), 0);
    cr_expect(opts.version);
    cr_expect_eq(parse("offer --help"), 0);
    cr_expect_str_eq(opts.cmd->name, "offer");
}

Test(opts, ca_asks_no_node_and_has_options_of_its_own)
{
    cr_assert_eq(parse("ca issue n1 --dir x --days 30 --san a,b"), 0, "%s", complaint.text);
    cr_expect_str_eq(opts.ca_dir, "x");
    cr_expect_eq(opts.days, 30);
    cr_expect_str_eq(opts.ca_san, "a,b");
    cr_assert_eq(opts.n_args, 2);
    cr_expect_eq(parse("ca show --dial tcp://h:1"), EXIT_USAGE);
    cr_expect_eq(parse("ca show --timeout 1"), EXIT_USAGE);
    cr_expect_eq(parse("services --dir x"), EXIT_USAGE);
    cr_expect_eq(parse("ca init --days 36501"), EXIT_USAGE);
    cr_expect_eq(parse("ca"), EXIT_USAGE);
}
