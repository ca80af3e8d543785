/* config: defaults, which source wins, what settings must be to each other. */
#include <criterion/criterion.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "daemon/config_parts.h"
#include "daemon/config_support.h"

Test(config, no_source_gives_the_defaults)
{
    struct config *c = load_good(LOAD(0));
    struct limits limits;

    limits_default(&limits);
    cr_expect_str_eq(c->peer_id, "n1");
    cr_expect_str_eq(c->bind_host, "127.0.0.1");
    cr_expect_eq(c->bind_port, 7400);
    cr_expect_not(c->insecure);
    cr_expect_eq(c->n_peers, 0u);
    cr_expect_eq(c->n_services, 0u);
    cr_expect_eq(c->log.level, LOG_INFO);
    cr_expect_eq(c->log.format, LOG_TEXT);
    cr_expect_not(c->log.timestamps);
    cr_expect_eq(c->maps, MAPS_FULL);
    cr_expect_eq(c->forwards, FORWARD_RECORDS_ERRORS);
    cr_expect_eq(c->heartbeat_ms, 3000u);
    cr_expect_eq(c->peer_timeout_ms, 30000u);
    cr_expect_eq(c->dial_timeout_ms, 5000u);
    cr_expect_eq(c->open_timeout_ms, 10000u);
    cr_expect_eq(c->call_timeout_ms, 5000u);
    cr_expect_eq(c->route_timeout_ms, 10000u);
    cr_expect_eq(c->idle_timeout_ms, 600000u);
    cr_expect_eq(c->half_close_timeout_ms, 300000u);
    cr_expect_eq(c->drain_timeout_ms, 30000u);
    cr_expect_eq(c->n_ingress, 0u);
    cr_expect_eq(c->workers, 0u);
    cr_expect_eq(memcmp(&c->limits, &limits, sizeof(limits)), 0);
    cr_expect_str_eq(c->runtime_dir, "/run/meshd/n1");
    config_free(c);
}

Test(config, flags_win_over_the_environment_and_that_over_the_file)
{
    static const char yaml[] = "peer_name: file\nbind: 127.0.0.1:1\nlog: {level: error}\n";
    struct config *c = load_good(LOAD(.yaml = yaml));

    /* load() itself sets PEER_NAME. */
    cr_expect_str_eq(c->peer_id, "n1");
    cr_expect_eq(c->bind_port, 1);
    cr_expect_eq(c->log.level, LOG_ERROR);
    config_free(c);

    c = load_good(
        LOAD(.yaml = yaml, .env = {"PEER_NAME=", "PEER_BIND_ADDR=[::1]:2", "LOG_LEVEL=warn"}));
    cr_expect_str_eq(c->peer_id, "file", "an empty variable is unset");
    cr_expect_str_eq(c->bind_host, "::1");
    cr_expect_eq(c->bind_port, 2);
    cr_expect_eq(c->log.level, LOG_WARN);
    config_free(c);

    c = load_good(
        LOAD(.yaml = yaml, .env = {"PEER_BIND_ADDR=[::1]:2", "LOG_LEVEL=warn"},
             .flags = {"--bind", "127.0.0.3:3", "--log-level=debug", "--peer-name", "flag"}));
    cr_expect_str_eq(c->peer_id, "flag");
    cr_expect_str_eq(c->bind_host, "127.0.0.3");
    cr_expect_eq(c->bind_port, 3);
    cr_expect_eq(c->log.level, LOG_DEBUG);
    config_free(c);
}

Test(config, a_list_replaces_that_of_the_weaker_source)
{
    static const char yaml[] = "peers:\n  - address: a.example:1\n    id: n2\n"
                               "  - {address: '[2001:DB8:0::1]:2'}\n"
                               "insecure: true\n"
                               "services: [{name: WEB., backend: LocalHost:080}]\n";
    struct config *c = load_good(LOAD(.yaml = yaml));

    cr_assert_eq(c->n_peers, 2u);
    cr_expect_str_eq(c->peers[0].host, "a.example");
    cr_expect_eq(c->peers[0].port, 1);
    cr_expect_str_eq(c->peers[0].peer_id, "n2");
    cr_expect_str_eq(c->peers[1].host, "2001:db8::1");
    cr_expect_eq(c->peers[1].port, 2);
    cr_expect_str_empty(c->peers[1].peer_id);
    cr_assert_eq(c->n_services, 1u);
    cr_expect_str_eq(c->services[0].name, "web");
    cr_expect_str_eq(c->services[0].backend, "localhost:80");
    config_free(c);

    c = load_good(LOAD(.yaml = yaml, .env = {"REMOTE_PEER_ADDR= b:3 ,c:4\n",
                                             "SERVICE_ADDR=db:[::1]:5,example.org:443"}));
    cr_assert_eq(c->n_peers, 2u);
    cr_expect_str_eq(c->peers[0].host, "b");
    cr_expect_str_empty(c->peers[0].peer_id);
    cr_expect_str_eq(c->peers[1].host, "c");
    cr_assert_eq(c->n_services, 2u);
    cr_expect_str_eq(c->services[0].name, "db");
    cr_expect_str_eq(c->services[0].backend, "[::1]:5");
    cr_expect_str_eq(c->services[1].name, "example.org");
    cr_expect_str_eq(c->services[1].backend, "example.org:443");
    config_free(c);

    c = load_good(LOAD(.yaml = yaml, .env = {"REMOTE_PEER_ADDR=b:3"},
                       .flags = {"--peer", "d:6", "--service", "x:y:7", "--peer=e:8"}));
    cr_assert_eq(c->n_peers, 2u);
    cr_expect_str_eq(c->peers[0].host, "d");
    cr_expect_str_eq(c->peers[1].host, "e");
    cr_assert_eq(c->n_services, 1u);
    cr_expect_str_eq(c->services[0].name, "x");
    config_free(c);
}

Test(config, what_a_stronger_source_hides_is_checked_too)
{
    load_bad(LOAD(.yaml = "log: {level: loud}", .env = {"LOG_LEVEL=louder"},
                  .flags = {"--log-level", "info"}),
             "meshd.yaml:1:14: log.level: 'loud' is none of the words meant; allowed: error, warn, "
             "info or debug\n"
             "environment LOG_LEVEL: 'louder' is none of the words meant; allowed: error, warn, "
             "info or debug\n");
}

Test(config, the_file_may_be_named_by_a_variable)
{
    load_bad(LOAD(.env = {"MESHD_CONFIG=/nowhere/meshd.yaml"}),
             "/nowhere/meshd.yaml: cannot be opened: No such file or directory\n");
    config_free(load_good(LOAD(.env = {"MESHD_CONFIG="})));
    config_free(load_good(LOAD(.yaml = "", .env = {"MESHD_CONFIG=/nowhere/meshd.yaml"})));
}

Test(config, a_bind_address_is_an_ip_in_canonical_text)
{
    static const struct {
        const char *in, *host;
        uint16_t port;
    } cases[] = {
        {":7400", "", 7400},
        {"0.0.0.0:65535", "0.0.0.0", 65535},
        {"[::]:0", "::", 0},
        {"[2001:DB8:0:0::1]:1", "2001:db8::1", 1},
        {"[::ffff:192.0.2.1]:1", "192.0.2.1", 1},
    };

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct config *c = load_good(LOAD(.flags = {"--insecure", "--bind", cases[i].in}));

        cr_expect_str_eq(c->bind_host, cases[i].host);
        cr_expect_eq(c->bind_port, cases[i].port);
        config_free(c);
    }
}

#define NEEDS_TLS                                                                                  \
    ", and there is no TLS; allowed: TLS (meshcat ca init; meshcat ca issue n1; then "             \
    "PEER_TLS_CA=meshd-ca/ca.pem PEER_TLS_CERT=meshd-ca/n1.pem PEER_TLS_KEY=meshd-ca/n1-key.pem)"  \
    ", an address of 127.0.0.0/8 or [::1], or plaintext by insecure: true, PEER_INSECURE=true or " \
    "--insecure\n"

Test(config, plaintext_on_an_open_address_wants_insecure)
{
    static const char *const open[] = {"0.0.0.0:1", "[::]:1", "192.0.2.1:1", "128.0.0.1:1"};
    static const char *const loopback[] = {"127.0.0.1:1", "127.9.9.9:1", "[::1]:1",
                                           "[::ffff:127.0.0.1]:1"};

    load_bad(LOAD(.yaml = "bind: :7400"),
             "meshd.yaml:1:7: bind: every address is not loopback" NEEDS_TLS);
    for (size_t i = 0; i < 4; i++) {
        struct loaded l = load(LOAD(.flags = {"--bind", open[i]}));

        cr_expect_eq(l.result, -EINVAL, "%s", open[i]);
        cr_expect(strstr(l.err, "is not loopback"), "%s", l.err);
        loaded_free(&l);
        config_free(load_good(LOAD(.env = {"PEER_INSECURE=true"}, .flags = {"--bind", open[i]})));
        config_free(load_good(LOAD(.yaml = "insecure: true", .flags = {"--bind", open[i]})));
        config_free(load_good(LOAD(.flags = {"--bind", open[i], "--insecure"})));
        config_free(load_good(LOAD(.flags = {"--bind", loopback[i]})));
    }
    load_bad(LOAD(.yaml = "insecure: true", .flags = {"--bind", "0.0.0.0:1", "--insecure=false"}),
             "--bind: 0.0.0.0 is not loopback" NEEDS_TLS);
}

Test(config, plaintext_is_not_dialled_to_an_open_address_either)
{
    static const char *const near[] = {"localhost:1", "name.example:1", "127.3.4.5:1", "[::1]:1",
                                       "[::ffff:127.0.0.1]:1"};

    load_bad(LOAD(.yaml = "peers: [{address: 'a:1'}, {address: '192.0.2.1:1'}]"),
             "meshd.yaml:1:27: peers: 192.0.2.1 is not loopback" NEEDS_TLS);
    load_bad(LOAD(.flags = {"--peer", "[2001:db8::1]:1", "--peer", "192.0.2.1:2"}),
             "--peer: 2001:db8::1 is not loopback" NEEDS_TLS);
    for (size_t i = 0; i < sizeof(near) / sizeof(near[0]); i++)
        config_free(load_good(LOAD(.flags = {"--peer", near[i]})));
    config_free(load_good(LOAD(.flags = {"--peer", "192.0.2.1:1", "--insecure"})));
}

#define TLS_FLAGS "--tls-ca=a", "--tls-cert=b", "--tls-key=c"

Test(config, with_tls_every_address_will_do)
{
    struct config *c =
        load_good(LOAD(.flags = {TLS_FLAGS, "--tls-crl=d", "--bind=:1", "--peer=192.0.2.1:1"}));

    cr_expect(config_has_tls(c));
    cr_expect_str_eq(c->tls_ca, "a");
    cr_expect_str_eq(c->tls_cert, "b");
    cr_expect_str_eq(c->tls_key, "c");
    cr_expect_str_eq(c->tls_crl, "d");
    cr_expect_not(c->tls_offload);
    config_free(c);
    c = load_good(LOAD(.env = {"PEER_TLS_CA=a", "PEER_TLS_CERT=b", "PEER_TLS_KEY=c"},
                       .flags = {"--bind", "[::]:1", "--insecure", "--tls-offload"}));
    cr_expect(config_has_tls(c));
    cr_expect_str_empty(c->tls_crl);
    cr_expect(c->tls_offload);
    config_free(c);
}

/* Each file is told with its path; a certificate for the id that it must name. */
static void judge_all(void *ctx, const struct config *c, struct tls_fault out[N_TLS_FILES])
{
    const char *const paths[N_TLS_FILES] = {c->tls_ca, c->tls_cert, c->tls_key, c->tls_crl};

    for (size_t i = 0; i < N_TLS_FILES; i++) {
        out[i].error = paths[i][0] ? -ENOENT : 0;
        snprintf(out[i].why, sizeof(out[i].why), "%s: judged%s%s", paths[i],
                 i == TLS_FILE_CERT ? " for " : "", i == TLS_FILE_CERT ? c->peer_id : "");
    }
    ++*(unsigned *)ctx;
}

Test(config, what_is_wrong_in_a_file_of_tls_is_told_with_the_place_of_its_setting_beside_all_else)
{
    unsigned n = 0;
    const struct config_judge judge = {judge_all, &n};
    struct loaded l;

    load_bad(LOAD(.judge = &judge, .yaml = "tls: {ca: a, cert: b, key: c}\nlog: {level: x}",
                  .env = {"PEER_TLS_CERT=bb"}, .flags = {"--tls-crl", "d"}),
             "meshd.yaml:2:14: log.level: 'x' is none of the words meant; allowed: error, warn, "
             "info or debug\n"
             "meshd.yaml:1:11: tls.ca: a: judged\nenvironment PEER_TLS_CERT: bb: judged for n1\n"
             "meshd.yaml:1:28: tls.key: c: judged\n--tls-crl: d: judged\n");
    l = load(LOAD(.judge = &judge, .yaml = "tls: {cert: b}\npeer_name: '?'"));
    cr_expect(strstr(l.err, "\nmeshd.yaml:1:13: tls.cert is set, and tls.ca is not;"), "%s", l.err);
    cr_expect(strstr(l.err, "\nmeshd.yaml:1:13: tls.cert: b: judged for \n"), "%s", l.err);
    loaded_free(&l);
    l = load(LOAD(.judge = &judge, .flags = {TLS_FLAGS}));
    cr_expect_eq(l.result, -EBADMSG, "the settings themselves are good");
    cr_expect_eq(l.action, CONFIG_RUN);
    loaded_free(&l);
    cr_expect_eq(n, 3u);
    config_free(load_good(LOAD(.judge = &judge, .flags = {TLS_FLAGS, "--print-config"})));
    cr_expect_eq(n, 3u, "what is in force is shown without them");
}

Test(config, tls_is_set_up_whole_or_not_at_all)
{
#define ALL                                                                                        \
    "; allowed: all of tls.ca, tls.cert and tls.key (PEER_TLS_CA, PEER_TLS_CERT, PEER_TLS_KEY), "  \
    "or none\n"
    load_bad(LOAD(.yaml = "tls: {ca: a, cert: b}\nbind: :1"),
             "meshd.yaml:1:11: tls.ca is set, and tls.key is not" ALL);
    load_bad(LOAD(.env = {"PEER_TLS_KEY=k"}),
             "environment PEER_TLS_KEY: tls.key is set, and tls.ca is not" ALL);
    load_bad(LOAD(.flags = {"--tls-crl", "c"}), "--tls-crl: tls.crl is set, and tls.ca is not" ALL);
    load_bad(LOAD(.yaml = "tls: {ca: a, cert: b, key: \"\\x01\"}"),
             "meshd.yaml:1:28: tls.key: '\\x01' has bytes that are not printable ASCII; allowed: a "
             "path of at most 511 printable ASCII bytes, a relative one from the working "
             "directory\n");
    /* What a weaker source says is taken back by an empty text. */
    config_free(load_good(LOAD(.yaml = "tls: {ca: a, cert: b, key: c}",
                               .flags = {"--tls-ca=", "--tls-cert=", "--tls-key="})));
#undef ALL
}

Test(config, an_error_is_not_told_again_by_a_check_that_needs_the_value)
{
    load_bad(
        LOAD(.yaml = "bind: 0.0.0.0:1\ninsecure: yes"),
        "meshd.yaml:2:11: insecure: 'yes' is neither true nor false; allowed: true or false\n");
}

Test(config, a_peer_timeout_is_longer_than_three_heartbeats)
{
    load_bad(LOAD(.flags = {"--heartbeat", "10s"}),
             "--heartbeat: timing.peer_timeout is 30000ms and timing.heartbeat 10000ms; allowed: a "
             "peer_timeout of more than 3 heartbeats\n");
    load_bad(LOAD(.yaml = "timing: {peer_timeout: 9s}"),
             "meshd.yaml:1:24: timing.peer_timeout is 9000ms and timing.heartbeat 3000ms; allowed: "
             "a peer_timeout of more than 3 heartbeats\n");
    config_free(load_good(LOAD(.flags = {"--peer-timeout", "9001ms"})));
}

Test(config, one_message_fits_where_messages_wait)
{
    load_bad(LOAD(.yaml = "limits: {message_bytes: 16MiB}",
                  .flags = {"--limit", "gate_buffer_bytes=1MiB"}),
             "meshd.yaml:1:25: limits.link_queue_bytes is 8388608 and limits.message_bytes "
             "16777216; allowed: room for one message\n"
             "--limit: limits.gate_buffer_bytes is 1048576 and limits.message_bytes 16777216; "
             "allowed: room for one message\n");
}

Test(config, lists_obey_the_limits)
{
    load_bad(LOAD(.env = {"REMOTE_PEER_ADDR=a:1,b:1", "SERVICE_ADDR=a:1,b:1,c:1"},
                  .flags = {"--limit", "peers=1", "--limit", "services_per_peer=2"}),
             "environment REMOTE_PEER_ADDR, entry 2: 2 are configured; allowed by limits.peers: 1\n"
             "environment SERVICE_ADDR, entry 3: 3 are configured; allowed by "
             "limits.services_per_peer: 2\n");
}

Test(config, nobody_is_its_own_peer)
{
    load_bad(LOAD(.yaml = "peers: [{address: 'a:1', id: n1}]"),
             "meshd.yaml:1:9: peers: id: 'n1' is this node's own; allowed: the id of another\n");
}

Test(config, a_host_name_becomes_a_peer_id)
{
    char id[LIMIT_PEER_ID + 1], longest[300];

    cr_expect(config_peer_id_of_host("Node-1.example_x", id));
    cr_expect_str_eq(id, "Node-1.example_x");
    cr_expect(config_peer_id_of_host("m\xc3\xbcller's/pc", id));
    cr_expect_str_eq(id, "m--ller-s-pc");
    memset(longest, 'a', sizeof(longest) - 1);
    longest[sizeof(longest) - 1] = '\0';
    cr_expect(config_peer_id_of_host(longest, id));
    cr_expect_eq(strlen(id), LIMIT_PEER_ID);
    cr_expect_not(config_peer_id_of_host("", id));
    cr_expect_not(config_peer_id_of_host("(none)", id));
    cr_expect_not(config_peer_id_of_host("..", id));
}

Test(config, the_runtime_dir_follows_the_environment)
{
    static const struct {
        const char *env[3];
        const char *dir;
    } cases[] = {
        {{NULL}, "/run/meshd/n1"},
        {{"XDG_RUNTIME_DIR=/run/user/1000"}, "/run/user/1000/meshd/n1"},
        {{"XDG_RUNTIME_DIR="}, "/run/meshd/n1"},
        {{"RUNTIME_DIRECTORY=/run/meshd", "XDG_RUNTIME_DIR=/x"}, "/run/meshd/n1"},
        {{"RUNTIME_DIRECTORY=/run/a:/run/b"}, "/run/a/n1"},
    };
    struct config *c;

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        c = load_good(LOAD(.env = {cases[i].env[0], cases[i].env[1]}));
        cr_expect_str_eq(c->runtime_dir, cases[i].dir);
        config_free(c);
    }
    c = load_good(LOAD(.env = {"RUNTIME_DIRECTORY=/run/a"}, .flags = {"--runtime-dir", "/b c//"}));
    cr_expect_str_eq(c->runtime_dir, "/b c", "said is said: no peer id is added");
    config_free(c);
}

Test(config, a_runtime_dir_leaves_room_for_the_sockets_in_it)
{
    char fits[108 - CONFIG_PRIVATE_NAME] = "/", over[sizeof(fits) + 1]; /* 108: of sun_path */
    struct loaded l;

    memset(fits + 1, 'r', sizeof(fits) - 2);
    fits[sizeof(fits) - 1] = '\0';
    config_free(load_good(LOAD(.flags = {"--runtime-dir", fits})));
    snprintf(over, sizeof(over), "%sx", fits);
    l = load(LOAD(.flags = {"--runtime-dir", over}));
    cr_expect_eq(l.result, -EINVAL);
    cr_expect(strstr(l.err, "is too long: a socket's path has 108 bytes, of which 24 are for the "
                            "names in it; allowed: an absolute path of at most 83"),
              "%s", l.err);
    loaded_free(&l);

    l = load(LOAD(.env = {"XDG_RUNTIME_DIR=/home/somebody/with/a/long/path/to/run",
                          "PEER_NAME=a-long-name-for-a-peer-that-nobody-wants-to-type"}));
    cr_expect_eq(l.result, -EINVAL);
    cr_expect(strstr(l.err, "environment XDG_RUNTIME_DIR: runtime_dir: '/home/") == l.err, "%s",
              l.err);
    cr_expect(strstr(l.err, "a shorter peer_name or --runtime-dir helps"), "%s", l.err);
    loaded_free(&l);
    load_bad(LOAD(.env = {"XDG_RUNTIME_DIR=run"}),
             "environment XDG_RUNTIME_DIR: runtime_dir: 'run/meshd/n1' is no absolute path of a "
             "folder; allowed: an absolute path of at most 83 printable ASCII bytes; a shorter "
             "peer_name or --runtime-dir helps\n");
}

Test(config, a_peer_id_is_the_name_of_a_folder_too)
{
    static const char *const bad[] = {"peer_name: .", "peer_name: ..", "peer_name: a/b",
                                      "peer_name: 'a b'", "peer_name: ''"};

    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        struct loaded l = load(LOAD(.yaml = bad[i]));

        cr_expect_eq(l.result, -EINVAL);
        cr_expect(strstr(l.err, "is no peer id; allowed: 1 to 64 characters"), "%s", l.err);
        loaded_free(&l);
    }
}

Test(config, the_admin_port_is_off_or_where_it_is_told_to_be)
{
    struct config *c = load_good(LOAD(.env = {"ADMIN_ADDR=off"}));

    cr_expect_not(c->admin);
    config_free(c);
    c = load_good(LOAD(.yaml = "admin:\n  bind: \"[::1]:7480\"\n"));
    cr_expect(c->admin);
    cr_expect_str_eq(c->admin_host, "::1");
    cr_expect_eq(c->admin_port, 7480);
    config_free(c);
    c = load_good(LOAD(.yaml = "admin:\n  bind: \"[::1]:7480\"\n", .flags = {"--admin=:1"}));
    cr_expect_str_eq(c->admin_host, "");
    cr_expect_eq(c->admin_port, 1);
    config_free(c);
    load_bad(LOAD(.env = {"ADMIN_ADDR=on"}),
             "environment ADMIN_ADDR: 'on' has no port; allowed: off, ip:port, [v6]:port or :port "
             "(every address), the port from 0 (any free one) to 65535\n");
}
