/* Both log formats, byte for byte. */
#include <criterion/criterion.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "registry/help.h"
#include "registry/print.h"

struct out {
    char *text;
    size_t len, blocks, largest;
    bool torn; /* a block did not end with a line */
};

static int keep(void *ctx, const char *text, size_t len)
{
    struct out *out = ctx;

    out->text = realloc(out->text, out->len + len + 1);
    memcpy(out->text + out->len, text, len);
    out->len += len;
    out->text[out->len] = '\0';
    out->blocks++;
    out->torn |= text[len - 1] != '\n';
    if (len > out->largest)
        out->largest = len;
    return 0;
}

static int refuse(void *ctx, const char *text, size_t len)
{
    ++*(int *)ctx;
    return -EPIPE;
}

static struct out print(struct registry *reg, const char *peer_id, enum print_what what)
{
    struct snapshot *snap = NULL;
    struct out out = {.text = NULL};

    cr_assert_eq(registry_snapshot(reg, &snap), 0);
    cr_assert_eq(print_maps(snap, peer_id, what, keep, &out), 0);
    snapshot_unref(snap);
    return out;
}

static void expect_print(struct registry *reg, enum print_what what, const char *golden)
{
    struct out out = print(reg, "n1", what);

    cr_expect_str_eq(out.text, golden);
    free(out.text);
}

Test(print, empty_maps_print_their_first_lines_only)
{
    struct registry *reg = registry_for("n1", NULL);

    expect_print(reg, PRINT_FULL,
                 "[registry] services peer_id=n1 svc_map={total=0}\n"
                 "[registry] peer_services_map peer_id=n1 {total_peers=0}\n");
    expect_print(reg, PRINT_SUMMARY,
                 "[registry] services peer_id=n1 svc_map={total=0}\n"
                 "[registry] peer_services_map peer_id=n1 {total_peers=0}\n");
    registry_free(reg);
}

Test(print, the_example_of_the_readme_comes_out_byte_for_byte)
{
    struct registry *reg = registry_for("n1", NULL);
    struct list *list = list_of("192.0.2.10", "example-service2=192.0.2.10:8080");
    const char *label;

    put_local_text(reg, 1, "service1=127.0.0.1:80");
    cr_assert_eq(registry_peer_open(reg, "n2", "192.0.2.10", 1, &label, NULL), 0);
    cr_assert_eq(registry_put_list(reg, "n2", 1, 1, list, 1234567890, NULL, NULL), 0);
    expect_print(reg, PRINT_FULL,
                 "[registry] services peer_id=n1 svc_map={total=2}\n"
                 "[registry] services peer_id=n1   | peer | name | backend |\n"
                 "[registry] services peer_id=n1   | ---- | ---- | ------- |\n"
                 "[registry] services peer_id=n1   | local | service1 | 127.0.0.1:80 |\n"
                 "[registry] services peer_id=n1   | 192.0.2.10 | example-service2 | "
                 "192.0.2.10:8080 |\n"
                 "[registry] peer_services_map peer_id=n1 {total_peers=1}\n"
                 "[registry] peer_services_map peer_id=n1   peer=192.0.2.10 {services=1 "
                 "last_sync=1234567890}\n"
                 "[registry] peer_services_map peer_id=n1     | name | backend |\n"
                 "[registry] peer_services_map peer_id=n1     | ---- | ------- |\n"
                 "[registry] peer_services_map peer_id=n1     | example-service2 | "
                 "192.0.2.10:8080 |\n");
    expect_print(reg, PRINT_SUMMARY,
                 "[registry] services peer_id=n1 svc_map={total=2}\n"
                 "[registry] peer_services_map peer_id=n1 {total_peers=1}\n");
    list_unref(list);
    registry_free(reg);
}

Test(print, local_comes_first_then_v4_before_v6_as_numbers_then_names)
{
    struct registry *reg = registry_for("n1", NULL);

    put_text(reg, "e", "2001:db8::a", 1, "z=[::1]:1");
    put_text(reg, "d", "2001:db8::9", 1, "z=[::1]:2");
    put_text(reg, "c", "10.0.0.10", 1, "b=h:1 a=h:2");
    put_text(reg, "b", "10.0.0.9", 1, "a=h:3");
    put_text(reg, "a", "10.0.0.9", 1, "a=h:4");
    put_text(reg, "f", "9.255.0.1", 1, "");
    put_local_text(reg, 1, "zz=l:1 a=l:2");
    expect_print(reg, PRINT_FULL,
                 "[registry] services peer_id=n1 svc_map={total=8}\n"
                 "[registry] services peer_id=n1   | peer | name | backend |\n"
                 "[registry] services peer_id=n1   | ---- | ---- | ------- |\n"
                 "[registry] services peer_id=n1   | local | a | l:2 |\n"
                 "[registry] services peer_id=n1   | local | zz | l:1 |\n"
                 "[registry] services peer_id=n1   | 10.0.0.9#a | a | h:4 |\n"
                 "[registry] services peer_id=n1   | 10.0.0.9 | a | h:3 |\n"
                 "[registry] services peer_id=n1   | 10.0.0.10 | a | h:2 |\n"
                 "[registry] services peer_id=n1   | 10.0.0.10 | b | h:1 |\n"
                 "[registry] services peer_id=n1   | 2001:db8::9 | z | [::1]:2 |\n"
                 "[registry] services peer_id=n1   | 2001:db8::a | z | [::1]:1 |\n"
                 "[registry] peer_services_map peer_id=n1 {total_peers=6}\n"
                 "[registry] peer_services_map peer_id=n1   peer=9.255.0.1 {services=0 "
                 "last_sync=1001}\n"
                 "[registry] peer_services_map peer_id=n1   peer=10.0.0.9#a {services=1 "
                 "last_sync=1001}\n"
                 "[registry] peer_services_map peer_id=n1     | name | backend |\n"
                 "[registry] peer_services_map peer_id=n1     | ---- | ------- |\n"
                 "[registry] peer_services_map peer_id=n1     | a | h:4 |\n"
                 "[registry] peer_services_map peer_id=n1   peer=10.0.0.9 {services=1 "
                 "last_sync=1001}\n"
                 "[registry] peer_services_map peer_id=n1     | name | backend |\n"
                 "[registry] peer_services_map peer_id=n1     | ---- | ------- |\n"
                 "[registry] peer_services_map peer_id=n1     | a | h:3 |\n"
                 "[registry] peer_services_map peer_id=n1   peer=10.0.0.10 {services=2 "
                 "last_sync=1001}\n"
                 "[registry] peer_services_map peer_id=n1     | name | backend |\n"
                 "[registry] peer_services_map peer_id=n1     | ---- | ------- |\n"
                 "[registry] peer_services_map peer_id=n1     | a | h:2 |\n"
                 "[registry] peer_services_map peer_id=n1     | b | h:1 |\n"
                 "[registry] peer_services_map peer_id=n1   peer=2001:db8::9 {services=1 "
                 "last_sync=1001}\n"
                 "[registry] peer_services_map peer_id=n1     | name | backend |\n"
                 "[registry] peer_services_map peer_id=n1     | ---- | ------- |\n"
                 "[registry] peer_services_map peer_id=n1     | z | [::1]:2 |\n"
                 "[registry] peer_services_map peer_id=n1   peer=2001:db8::a {services=1 "
                 "last_sync=1001}\n"
                 "[registry] peer_services_map peer_id=n1     | name | backend |\n"
                 "[registry] peer_services_map peer_id=n1     | ---- | ------- |\n"
                 "[registry] peer_services_map peer_id=n1     | z | [::1]:1 |\n");
    registry_free(reg);
}

Test(print, a_long_map_comes_in_blocks_of_whole_lines)
{
    struct registry *reg = registry_for("n1", NULL);
    struct list *list = list_of_many("local", 0, 3000, "10.0.0.1:80");
    struct out out;

    cr_assert_eq(registry_put_local(reg, 1, list, 1, NULL, NULL), 0);
    out = print(reg, "n1", PRINT_FULL);
    cr_expect_gt(out.blocks, 2);
    cr_expect_leq(out.largest, 65536);
    cr_expect_not(out.torn);
    free(out.text);
    list_unref(list);
    registry_free(reg);
}

Test(print, the_longest_texts_fit_a_line)
{
    struct registry *reg = registry_for("n1", NULL);
    char name[LIMIT_NAME + 1] = "", backend[LIMIT_BACKEND + 1] = "", id[LIMIT_PEER_ID + 1] = "";
    char ip[LIMIT_IP_TEXT] = "", text[600];
    struct out out;

    memset(name, 'n', LIMIT_NAME);
    memset(backend, 'b', LIMIT_BACKEND);
    memset(id, 'i', LIMIT_PEER_ID);
    memset(ip, 'a', LIMIT_IP_TEXT - 1);
    snprintf(text, sizeof(text), "%s=%s", name, backend);
    cr_assert_eq(put_text(reg, "first", ip, 1, text), 0);
    cr_assert_eq(put_text(reg, id, ip, 1, text), 0);
    cr_expect_eq(registry_check(reg), 0);
    out = print(reg, id, PRINT_FULL);
    cr_expect_not_null(strstr(out.text, backend));
    free(out.text);
    registry_free(reg);
}

Test(print, a_write_that_fails_ends_the_printing)
{
    struct registry *reg = registry_for("n1", NULL);
    struct list *list = list_of_many("local", 0, 3000, "10.0.0.1:80");
    struct snapshot *snap = NULL;
    int calls = 0;

    cr_assert_eq(registry_put_local(reg, 1, list, 1, NULL, NULL), 0);
    cr_assert_eq(registry_snapshot(reg, &snap), 0);
    cr_expect_eq(print_maps(snap, "n1", PRINT_FULL, refuse, &calls), -EPIPE);
    cr_expect_eq(calls, 1);
    snapshot_unref(snap);
    list_unref(list);
    registry_free(reg);
}
