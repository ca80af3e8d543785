/* config_support - the contract is in the header. */
#include "daemon/config_support.h"
#include <criterion/criterion.h>
#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define ARGS_MAX 12

static void write_file(const char *name, const char *text)
{
    FILE *file = fopen(name, "w");

    cr_assert(file && fputs(text, file) >= 0);
    cr_assert_eq(fclose(file), 0);
}

struct loaded load(const struct load *in)
{
    char dir[] = "/tmp/meshd-config-XXXXXX", *argv[ARGS_MAX + 1] = {(char *)"meshd"};
    struct loaded out = {.config = (struct config *)-1};
    char before[PATH_MAX];
    size_t size;
    int argc = 1;
    FILE *err = open_memstream(&out.err, &size);

    cr_assert(err && mkdtemp(dir) && getcwd(before, sizeof(before)) && chdir(dir) == 0);
    clearenv();
    setenv("PEER_NAME", "n1", 1);
    for (int i = 0; in->env[i]; i++)
        putenv((char *)in->env[i]);
    if (in->yaml) {
        write_file("meshd.yaml", in->yaml);
        argv[argc++] = (char *)"-c";
        argv[argc++] = (char *)"meshd.yaml";
    }
    for (int i = 0; in->flags[i]; i++)
        argv[argc++] = (char *)in->flags[i];
    out.result = config_load(argc, argv, err, in->judge, &out.action, &out.config);
    if (out.result != 0) {
        cr_expect_eq(out.config, (struct config *)-1, "an error writes no out_config");
        out.config = NULL;
    }
    fclose(err);
    unlink("meshd.yaml");
    cr_assert(chdir(before) == 0 && rmdir(dir) == 0);
    return out;
}

void loaded_free(struct loaded *l)
{
    config_free(l->config);
    free(l->err);
}

struct config *load_good(const struct load *in)
{
    struct loaded l = load(in);

    cr_assert_eq(l.result, 0, "%d: %s", l.result, l.err);
    cr_expect_str_empty(l.err);
    free(l.err);
    return l.config;
}

void load_bad(const struct load *in, const char *err)
{
    struct loaded l = load(in);

    cr_expect_eq(l.result, -EINVAL);
    cr_expect_str_eq(l.err, err, "told:\n%swanted:\n%s", l.err, err);
    loaded_free(&l);
}

static void expect_same_port(const struct config_ingress *a, const struct config_ingress *b)
{
    cr_expect_str_eq(a->host, b->host);
    cr_expect_eq(a->port, b->port);
    cr_expect_str_eq(a->name, b->name);
    cr_expect_str_eq(a->fallback, b->fallback);
    cr_expect_eq(a->bare_lf, b->bare_lf);
    cr_assert_eq(a->n_proxy_from, b->n_proxy_from);
    for (size_t i = 0; i < a->n_proxy_from; i++)
        cr_expect_eq(memcmp(&a->proxy_from[i], &b->proxy_from[i], sizeof(a->proxy_from[i])), 0);
}

static void expect_same_globs(const struct config_globs *a, const struct config_globs *b)
{
    cr_assert_eq(a->n, b->n);
    for (size_t i = 0; i < a->n; i++)
        cr_expect_str_eq(a->at[i], b->at[i]);
}

static void expect_same_rule(const struct config_rule *a, const struct config_rule *b)
{
    cr_expect_str_eq(a->name, b->name);
    cr_expect_eq(a->link, b->link);
    cr_expect_eq(a->lookup, b->lookup);
    cr_expect_eq(a->introspect, b->introspect);
    expect_same_globs(&a->peers, &b->peers);
    expect_same_globs(&a->registers, &b->registers);
    expect_same_globs(&a->forwards, &b->forwards);
    expect_same_globs(&a->offers, &b->offers);
}

void config_expect_same(const struct config *a, const struct config *b)
{
    cr_expect_str_eq(a->peer_id, b->peer_id);
    cr_expect_str_eq(a->bind_host, b->bind_host);
    cr_expect_eq(a->bind_port, b->bind_port);
    cr_expect_eq(a->admin, b->admin);
    cr_expect_str_eq(a->admin_host, b->admin_host);
    cr_expect_eq(a->admin_port, b->admin_port);
    cr_expect_eq(a->insecure, b->insecure);
    cr_expect_str_eq(a->tls_ca, b->tls_ca);
    cr_expect_str_eq(a->tls_cert, b->tls_cert);
    cr_expect_str_eq(a->tls_key, b->tls_key);
    cr_expect_str_eq(a->tls_crl, b->tls_crl);
    cr_expect_eq(a->tls_offload, b->tls_offload);
    cr_assert_eq(a->n_peers, b->n_peers);
    for (size_t i = 0; i < a->n_peers; i++) {
        cr_expect_str_eq(a->peers[i].host, b->peers[i].host);
        cr_expect_eq(a->peers[i].port, b->peers[i].port);
        cr_expect_str_eq(a->peers[i].peer_id, b->peers[i].peer_id);
    }
    cr_assert_eq(a->n_services, b->n_services);
    for (size_t i = 0; i < a->n_services; i++) {
        cr_expect_str_eq(a->services[i].name, b->services[i].name);
        cr_expect_str_eq(a->services[i].backend, b->services[i].backend);
        cr_expect_eq(a->services[i].proxy, b->services[i].proxy);
        cr_expect_eq(a->services[i].check.kind, b->services[i].check.kind);
        cr_expect_str_eq(a->services[i].check.path, b->services[i].check.path);
        cr_expect_eq(a->services[i].check.interval_ms, b->services[i].check.interval_ms);
        cr_expect_eq(a->services[i].check.timeout_ms, b->services[i].check.timeout_ms);
        cr_expect_eq(a->services[i].check.rise, b->services[i].check.rise);
        cr_expect_eq(a->services[i].check.fall, b->services[i].check.fall);
    }
    cr_assert_eq(a->n_ingress, b->n_ingress);
    for (size_t i = 0; i < a->n_ingress; i++)
        expect_same_port(&a->ingress[i], &b->ingress[i]);
    cr_assert_eq(a->n_rules, b->n_rules);
    for (size_t i = 0; i < a->n_rules; i++)
        expect_same_rule(&a->rules[i], &b->rules[i]);
    cr_expect_eq(a->workers, b->workers);
    cr_expect_eq(a->log.level, b->log.level);
    cr_expect_eq(a->log.format, b->log.format);
    cr_expect_eq(a->log.timestamps, b->log.timestamps);
    cr_expect_eq(a->maps, b->maps);
    cr_expect_eq(a->forwards, b->forwards);
    cr_expect_eq(a->heartbeat_ms, b->heartbeat_ms);
    cr_expect_eq(a->peer_timeout_ms, b->peer_timeout_ms);
    cr_expect_eq(a->dial_timeout_ms, b->dial_timeout_ms);
    cr_expect_eq(a->open_timeout_ms, b->open_timeout_ms);
    cr_expect_eq(a->call_timeout_ms, b->call_timeout_ms);
    cr_expect_eq(a->route_timeout_ms, b->route_timeout_ms);
    cr_expect_eq(a->idle_timeout_ms, b->idle_timeout_ms);
    cr_expect_eq(a->half_close_timeout_ms, b->half_close_timeout_ms);
    cr_expect_eq(a->drain_timeout_ms, b->drain_timeout_ms);
    cr_expect_eq(memcmp(&a->limits, &b->limits, sizeof(a->limits)), 0);
    cr_expect_str_eq(a->runtime_dir, b->runtime_dir);
    cr_expect_str_eq(a->user.name, b->user.name);
    cr_expect_str_eq(a->user.group, b->user.group);
    cr_expect_eq(a->user.uid, b->user.uid);
    cr_expect_eq(a->user.gid, b->user.gid);
    cr_expect_str_eq(a->socket_group.name, b->socket_group.name);
    cr_expect_eq(a->socket_group.gid, b->socket_group.gid);
    cr_expect_eq(a->socket_mode, b->socket_mode);
    cr_expect_eq(a->sandbox, b->sandbox);
    cr_expect_eq(a->core_dumps, b->core_dumps);
}

char *config_printed(const struct config *config)
{
    char *text = NULL;
    size_t size;
    FILE *out = open_memstream(&text, &size);

    cr_assert(out);
    config_print(config, out);
    fclose(out);
    return text;
}
