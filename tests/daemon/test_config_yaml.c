/* config: the file, and the line and column of everything that is wrong in it. */
#include <criterion/criterion.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "daemon/config_parts.h"
#include "daemon/config_support.h"

struct wrong {
    const char *yaml, *err;
};

static void expect_wrong(const struct wrong *cases, size_t n)
{
    for (size_t i = 0; i < n; i++)
        load_bad(LOAD(.yaml = cases[i].yaml), cases[i].err);
}
#define SERVICE_MAY "proxy_protocol, check, check_interval, check_timeout, check_rise, check_fall"
#define EXPECT_WRONG(cases) expect_wrong(cases, sizeof(cases) / sizeof((cases)[0]))

#define QUOTE_HINT " (quote a text that begins with [ or {)"
#define ALLOWED_BIND                                                                               \
    "ip:port, [v6]:port or :port (every address), the port from 0 (any free one) to 65535"
#define ALLOWED_NAME "labels of a-z 0-9 - _ with dots between, 253 bytes in all"
#define ALLOWED_ADDR "host:port or [v6]:port, the port from 1 to 65535"
#define ALLOWED_LEVEL "error, warn, info or debug"
#define PLAIN "plain values (quote what begins with & * or !)"

Test(config_yaml, a_file_without_settings_is_fine)
{
    static const char *const empty[] = {
        "",
        "\n\n",
        "# nothing\n",
        "---\n",
        "---\n...\n",
        "{}",
        "\xef\xbb\xbf# a mark of order\n",
        "log:\ntiming: # all commented out\npeers:\nservices: []\nlimits: {}\n"};

    for (size_t i = 0; i < sizeof(empty) / sizeof(empty[0]); i++)
        config_free(load_good(LOAD(.yaml = empty[i])));
}

Test(config_yaml, every_key_is_read)
{
    struct config *c = load_good(
        LOAD(.env = {"PEER_NAME="},
             .yaml = "peer_name: \"n.2\"\n"
                     "bind: '[::]:0'\n"
                     "insecure: true\n"
                     "runtime_dir: /var/tmp/x\n"
                     "peers: [{id: n3, address: h:1}]\n"
                     "services: [{backend: 'b:2', name: s}]\n"
                     "log: {level: debug, format: json, maps: off, forwards: all, timestamps: "
                     "true}\n"
                     "timing:\n"
                     "  heartbeat: 100ms\n"
                     "  peer_timeout: 2m\n"
                     "  dial_timeout: 1s\n"
                     "  open_timeout: 2s\n"
                     "  call_timeout: 3000ms\n"
                     "  route_timeout: 4s\n"
                     "  idle_timeout: 1h\n"
                     "  half_close_timeout: 6s\n"
                     "  drain_timeout: 0s\n"
                     "ingress: [{name: s, listen: '8080'}]\n"
                     "workers: 3\n"
                     "limits: {leases: 7, gate_buffer_bytes: 1GiB}\n"));

    cr_expect_str_eq(c->peer_id, "n.2");
    cr_expect_str_eq(c->bind_host, "::");
    cr_expect_eq(c->bind_port, 0);
    cr_expect(c->insecure);
    cr_expect_str_eq(c->runtime_dir, "/var/tmp/x");
    cr_assert_eq(c->n_peers, 1u);
    cr_expect_str_eq(c->peers[0].peer_id, "n3");
    cr_expect_str_eq(c->peers[0].host, "h");
    cr_assert_eq(c->n_services, 1u);
    cr_expect_str_eq(c->services[0].name, "s");
    cr_expect_str_eq(c->services[0].backend, "b:2");
    cr_expect_eq(c->log.level, LOG_DEBUG);
    cr_expect_eq(c->log.format, LOG_JSON);
    cr_expect(c->log.timestamps);
    cr_expect_eq(c->maps, MAPS_OFF);
    cr_expect_eq(c->forwards, FORWARD_RECORDS_ALL);
    cr_expect_eq(c->heartbeat_ms, 100u);
    cr_expect_eq(c->peer_timeout_ms, 120000u);
    cr_expect_eq(c->dial_timeout_ms, 1000u);
    cr_expect_eq(c->open_timeout_ms, 2000u);
    cr_expect_eq(c->call_timeout_ms, 3000u);
    cr_expect_eq(c->route_timeout_ms, 4000u);
    cr_expect_eq(c->idle_timeout_ms, 3600000u);
    cr_expect_eq(c->half_close_timeout_ms, 6000u);
    cr_expect_eq(c->drain_timeout_ms, 0u);
    cr_assert_eq(c->n_ingress, 1u);
    cr_expect_eq(c->ingress[0].port, 8080);
    cr_expect_str_eq(c->ingress[0].name, "s");
    cr_expect_eq(c->workers, 3u);
    cr_expect_eq(c->limits.leases, 7u);
    cr_expect_eq(c->limits.gate_buffer_bytes, UINT64_C(1) << 30);
    config_free(c);
}

Test(config_yaml, an_unknown_key_is_told_with_its_place_and_the_known_ones)
{
    static const struct wrong cases[] = {
        {"log:\n  level: info\npeer_nam: x\n",
         "meshd.yaml:3:1: unknown key 'peer_nam'; allowed: peer_name, bind, insecure, tls, peers, "
         "services, ingress, policy, admin, workers, runtime_dir, socket_mode, socket_group, user, "
         "sandbox, "
         "core_dumps, log, timing, limits\n"},
        {"log:\n  level: info\n  color: {a: [b, {c: d}]}\n  maps: off\n",
         "meshd.yaml:3:3: unknown key 'color' in log; allowed: level, format, maps, forwards, "
         "timestamps\n"},
        {"timing: {beat: 1s}",
         "meshd.yaml:1:10: unknown key 'beat' in timing; allowed: heartbeat, "
         "peer_timeout, dial_timeout, open_timeout, call_timeout, route_timeout, "
         "idle_timeout, half_close_timeout, drain_timeout\n"},
        {"log.level: info",
         "meshd.yaml:1:1: unknown key 'log.level'; allowed: peer_name, bind, "
         "insecure, tls, peers, services, ingress, policy, admin, workers, runtime_dir, "
         "socket_mode, socket_group, "
         "user, sandbox, core_dumps, log, timing, limits\n"},
        {"peers:\n  - address: a:1\n    name: x\n",
         "meshd.yaml:3:5: peers: unknown key 'name'; allowed: address, id\n"},
        {"services: [{name: a, backend: 'b:1', \"\\u001b\": x}]",
         "meshd.yaml:1:38: services: unknown key '\\x1b'; allowed: name, backend, " SERVICE_MAY
         "\n"},
        {"[a]: b\n? {c: d}\n: e\n",
         "meshd.yaml:1:1: a list is there, where a key is meant" QUOTE_HINT "\n"
         "meshd.yaml:2:3: a mapping is there, where a key is meant" QUOTE_HINT "\n"},
        {"{? : x}", "meshd.yaml:1:4: nothing is there, where a key is meant\n"},
    };

    EXPECT_WRONG(cases);
}

Test(config_yaml, a_bad_value_is_told_with_its_place)
{
    static const struct wrong cases[] = {
        {"\nbind:    nowhere",
         "meshd.yaml:2:10: bind: 'nowhere' has no port; allowed: " ALLOWED_BIND "\n"},
        {"limits:\n  leases: 5\n  peers: 0\n",
         "meshd.yaml:3:10: limits.peers: '0' is too small; allowed: 1 to 65536\n"},
        {"insecure: True", "meshd.yaml:1:11: insecure: 'True' is neither true nor false; allowed: "
                           "true or false\n"},
        {"log: {level: }",
         "meshd.yaml:1:14: log.level: nothing is there, where one value is meant; "
         "allowed: " ALLOWED_LEVEL "\n"},
        {"log: {level: ''}",
         "meshd.yaml:1:14: log.level: '' is none of the words meant; allowed: " ALLOWED_LEVEL "\n"},
        {"log: {level: [info]}", "meshd.yaml:1:14: log.level: a list is there, where one value is "
                                 "meant" QUOTE_HINT "; allowed: " ALLOWED_LEVEL "\n"},
        {"log:\n  level:\n    info: true\n",
         "meshd.yaml:3:5: log.level: a mapping is there, where one value is meant" QUOTE_HINT
         "; allowed: " ALLOWED_LEVEL "\n"},
        {"log: {level: \"in\\0fo\"}",
         "meshd.yaml:1:14: log.level: a text with a zero byte in it is "
         "there, where one value is meant; allowed: " ALLOWED_LEVEL "\n"},
        {"log: info", "meshd.yaml:1:6: a section of keys is meant here\n"},
        {"log: [level, info]", "meshd.yaml:1:6: a section of keys is meant here\n"},
        {"just words", "meshd.yaml:1:1: a mapping of settings is meant here\n"},
        {"- bind", "meshd.yaml:1:1: a mapping of settings is meant here\n"},
    };

    EXPECT_WRONG(cases);
}

Test(config_yaml, a_bad_entry_is_told_with_its_place)
{
    static const struct wrong cases[] = {
        {"peers: a:1", "meshd.yaml:1:8: peers: a list is meant here\n"},
        {"peers: {address: a}", "meshd.yaml:1:8: peers: a list is meant here\n"},
        {"peers:\n  - a:1\n", "meshd.yaml:2:5: peers: an entry of address and perhaps id is meant "
                              "here\n"},
        {"peers:\n  -\n", "meshd.yaml:2:4: peers: nothing is there, where an entry of address and "
                          "perhaps id is meant\n"},
        {"peers:\n  - id: n2\n", "meshd.yaml:2:5: peers: has no address; meant is an entry of "
                                 "address and perhaps id\n"},
        {"peers:\n  - address: a\n    id: /\n",
         "meshd.yaml:2:14: peers: address: 'a' is no host and port; allowed: " ALLOWED_ADDR "\n"
         "meshd.yaml:3:9: peers: id: '/' is no peer id; allowed: 1 to 64 characters of A-Z a-z 0-9 "
         ". _ -\n"},
        {"services: [{name: a}, {backend: 'b:1'}, {}]",
         "meshd.yaml:1:12: services: has no backend; meant is an entry of name and backend "
         "and perhaps " SERVICE_MAY "\n"
         "meshd.yaml:1:23: services: has no name; meant is an entry of name and backend "
         "and perhaps " SERVICE_MAY "\n"
         "meshd.yaml:1:41: services: has no name; meant is an entry of name and backend "
         "and perhaps " SERVICE_MAY "\n"
         "meshd.yaml:1:41: services: has no backend; meant is an entry of name and backend "
         "and perhaps " SERVICE_MAY "\n"},
        {"services:\n  - name: a..b\n    backend: c:1\n",
         "meshd.yaml:2:11: services: name: 'a..b' has an empty label; allowed: " ALLOWED_NAME "\n"},
        {"services: [{name: 'web:80', backend: 'c:1'}]",
         "meshd.yaml:1:19: services: name: 'web:80' has a colon: the port belongs to the backend; "
         "allowed: " ALLOWED_NAME "\n"},
        {"services: [{name: web, backend: 'c:0'}]",
         "meshd.yaml:1:33: services: backend: 'c:0' is no host and port; allowed: " ALLOWED_ADDR
         "\n"},
    };

    EXPECT_WRONG(cases);
}

Test(config_yaml, a_duplicate_is_told_with_both_places)
{
    static const struct wrong cases[] = {
        {"bind: :1\ninsecure: true\nbind: :2\n",
         "meshd.yaml:3:1: bind: is there already, at line 1; allowed: once\n"},
        {"log:\n  maps: off\n  level: info\n  maps: off\n",
         "meshd.yaml:4:3: log.maps: is there already, at line 2; allowed: once\n"},
        {"log: {maps: off}\ntiming: {}\nlog: {maps: off}\n",
         "meshd.yaml:3:1: log: is there already, at line 1; allowed: once\n"},
        {"peers: []\npeers: []\n", "meshd.yaml:2:1: peers: is there already, at line 1; allowed: "
                                   "once\n"},
        {"peers:\n  - {address: 'a:1'}\n  - {address: 'b:1', id: x}\n  - {address: 'A:1', id: y}\n",
         "meshd.yaml:4:5: peers: 'a:1' is there already (meshd.yaml:2:5); allowed: each address "
         "once\n"},
        {"services:\n  - {name: w, backend: 'a:1'}\n  - {name: W., backend: 'b:1'}\n",
         "meshd.yaml:3:5: services: 'w' is there already (meshd.yaml:2:5); allowed: each name "
         "once\n"},
        {"services: [{name: a, name: b, backend: 'c:1'}]",
         "meshd.yaml:1:22: services: 'name' is there already; allowed: once\n"},
    };

    EXPECT_WRONG(cases);
}

Test(config_yaml, aliases_anchors_and_tags_are_refused)
{
    static const struct wrong cases[] = {
        {"peer_name: &a n1\nruntime_dir: *a\n",
         "meshd.yaml:1:12: peer_name: an anchor (&); allowed: " PLAIN "\n"
         "meshd.yaml:2:14: runtime_dir: an alias (*); allowed: " PLAIN "\n"},
        {"bind: !!str 127.0.0.1:1", "meshd.yaml:1:7: bind: a tag (!); allowed: " PLAIN "\n"},
        {"peers: &p [*p, *p]", "meshd.yaml:1:8: peers: an anchor (&); allowed: " PLAIN "\n"},
        {"log: !x {level: info}", "meshd.yaml:1:6: a tag (!); allowed: " PLAIN "\n"},
        {"*a : b", "meshd.yaml:1:1: an alias (*); allowed: " PLAIN "\n"},
        {"services: [*a]", "meshd.yaml:1:12: services: an alias (*); allowed: " PLAIN "\n"},
    };

    EXPECT_WRONG(cases);
}

Test(config_yaml, what_is_no_yaml_is_told_with_its_place)
{
    static const struct wrong cases[] = {
        {"log: {level: info\n", "meshd.yaml:2:1: this is no YAML: did not find expected ',' or "
                                "'}', while parsing a flow mapping\n"},
        {"bind: \"x\n", "meshd.yaml:2:1: this is no YAML: found unexpected end of stream, while "
                        "scanning a quoted scalar\n"},
        {"log:\n\tlevel: info\n", "meshd.yaml:2:1: this is no YAML: found character that cannot "
                                  "start any token, while scanning for the next token\n"},
        {"log:\n  level: \xff\n",
         "meshd.yaml:2:10: this is no YAML: invalid leading UTF-8 octet\n"},
        {"bind: :1\ninsecure: true\n--- \nbind: :2\n",
         "meshd.yaml:3:1: a second document begins here; allowed: one\n"},
        {"bind: [::1]:7400\n",
         "meshd.yaml:1:7: bind: a list is there, where one value is meant" QUOTE_HINT
         "; allowed: " ALLOWED_BIND "\n"
         "meshd.yaml:1:8: this is no YAML: did not find expected node content, while parsing a "
         "flow node\n"},
    };

    EXPECT_WRONG(cases);
}

Test(config_yaml, errors_of_every_source_are_told_together)
{
    load_bad(
        LOAD(.yaml = "bind: x\nfoo: 1\nlog: {level: loud, maps: none}\n", .env = {"LOG_FORMAT=xml"},
             .flags = {"--heartbeat", "0s", "--bogus"}),
        "unknown flag '--bogus'; see meshd --help\n"
        "meshd.yaml:1:7: bind: 'x' has no port; allowed: " ALLOWED_BIND "\n"
        "meshd.yaml:2:1: unknown key 'foo'; allowed: peer_name, bind, insecure, tls, peers, "
        "services, ingress, policy, admin, workers, runtime_dir, socket_mode, socket_group, user, "
        "sandbox, "
        "core_dumps, log, timing, limits\n"
        "meshd.yaml:3:14: log.level: 'loud' is none of the words meant; allowed: " ALLOWED_LEVEL
        "\n"
        "meshd.yaml:3:26: log.maps: 'none' is none of the words meant; allowed: full, summary "
        "or off\n"
        "environment LOG_FORMAT: 'xml' is none of the words meant; allowed: text or json\n"
        "--heartbeat: '0s' is too small; allowed: 50ms to 1m, as a whole number of ms, s, m or "
        "h\n");
}

/* Runs of one text, as a file. */
static char *repeat(const char *text, size_t n)
{
    size_t len = strlen(text);
    char *out = malloc(len * n + 1);

    cr_assert(out);
    for (size_t i = 0; i < n; i++)
        memcpy(out + i * len, text, len);
    out[len * n] = '\0';
    return out;
}

static size_t count_lines(const char *text)
{
    size_t n = 0;

    for (; *text; text++)
        n += *text == '\n';
    return n;
}

Test(config_yaml, a_flood_of_errors_is_cut)
{
    char *yaml = repeat("x: y\n", CONFIG_FILE_MAX / 5);
    struct loaded l = load(LOAD(.yaml = yaml));

    cr_expect_eq(l.result, -EINVAL);
    cr_expect_eq(count_lines(l.err), CONFIG_ERRORS_MAX + 1u);
    cr_expect(strstr(l.err, "\nthese are 64 errors; the others are not told\n"), "%s", l.err);
    loaded_free(&l);
    free(yaml);
}

Test(config_yaml, deep_nesting_ends_the_reading)
{
    char *deep = repeat("[", CONFIG_FILE_MAX - 8), *yaml;

    cr_assert(asprintf(&yaml, "a: %s", deep) > 0);
    load_bad(
        LOAD(.yaml = yaml),
        "meshd.yaml:1:1: unknown key 'a'; allowed: peer_name, bind, insecure, tls, peers, "
        "services, "
        "ingress, policy, admin, workers, runtime_dir, socket_mode, socket_group, user, sandbox, "
        "core_dumps, log, "
        "timing, limits\n"
        "meshd.yaml:1:20: is nested deeper than 16; the rest is not read\n");
    free(yaml);
    free(deep);
}

Test(config_yaml, a_long_value_is_cut_in_the_error)
{
    char *value = repeat("v", 400), *yaml;
    struct loaded l;

    cr_assert(asprintf(&yaml, "peer_name: %s", value) > 0);
    l = load(LOAD(.yaml = yaml));
    cr_expect(strstr(l.err, "vvv...' is too long; allowed: 1 to 64"), "%s", l.err);
    loaded_free(&l);
    free(yaml);
    cr_assert(asprintf(&yaml, "peer_name: %s%s%s", value, value, value) > 0);
    l = load(LOAD(.yaml = yaml));
    cr_expect(strstr(l.err, "meshd.yaml:1:12: peer_name: a text of more than 1023 bytes is there"),
              "%s", l.err);
    loaded_free(&l);
    free(yaml);
    free(value);
}

Test(config_yaml, a_file_has_a_largest_size)
{
    char *yaml = repeat("#", CONFIG_FILE_MAX + 1);

    load_bad(LOAD(.yaml = yaml), "meshd.yaml: is larger than 1 MiB\n");
    yaml[CONFIG_FILE_MAX] = '\0';
    config_free(load_good(LOAD(.yaml = yaml)));
    free(yaml);
}

Test(config_yaml, a_long_list_takes_no_quadratic_time)
{
    size_t size, n = 0;
    char *yaml;
    FILE *out = open_memstream(&yaml, &size);
    struct config *c;

    fputs("services:\n", out);
    for (; ftell(out) < (long)CONFIG_FILE_MAX - 64; n++)
        fprintf(out, " - {name: s%zu, backend: b:1}\n", n);
    fclose(out);
    c = load_good(LOAD(.yaml = yaml));
    cr_expect_eq(c->n_services, n);
    config_free(c);
    free(yaml);
}
