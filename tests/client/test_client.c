/* libmeshd's calls, one at a time: statuses, arguments, strangers at the other end. */
#include <criterion/criterion.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include "client/answers.h"
#include "client/calls.h"
#include "wire/status.h"

TestSuite(client, .init = calls_setup);

/* ---- what an answer becomes ---- */

Test(client, an_answer_becomes_a_list)
{
    const char *names[] = {"web", "nobody", "db"};
    const struct mesh_instance *at;
    struct mesh_list *list;
    size_t n;

    calls_start(serve_answers, NULL);
    cr_assert_eq(mesh_lookup_many(client, names, 3, SOON, &list), MESH_OK, "%s", mesh_error_text());
    cr_expect_eq(mesh_list_count(list), 2);
    cr_expect_eq(mesh_list_current(list), 1);
    cr_expect_null(mesh_list_at(list, 2));
    cr_expect_null(mesh_list_of(list, 1, &n));
    cr_expect_eq(n, 0);
    cr_expect_null(mesh_list_of(list, 3, &n));
    at = mesh_list_of(list, 2, &n);
    cr_assert_eq(n, 1);
    cr_expect_eq(at, mesh_list_at(list, 1));
    cr_expect_str_eq(at->name, "db");
    cr_expect_str_eq(at->node, "n7");
    cr_expect_str_eq(at->source, "10.0.0.7");
    cr_expect_str_eq(at->address, "10.0.0.7:4100");
    cr_expect_eq(at->last_seen, 1700000000);
    cr_expect_eq(at->state, MESH_CONNECTED | MESH_HEALTHY);
    mesh_list_free(list);
    calls_stop();
}

Test(client, nobody_offers_it)
{
    calls_start(serve_answers, NULL);
    cr_expect_eq(calls_lookup("nobody", SOON), MESH_NOT_FOUND);
    cr_expect_str_eq(mesh_error_text(), "nobody offers nobody");
    calls_stop();
}

static void refuse(struct fake *f, int fd)
{
    const struct refusal *refusal = f->ctx;
    struct fake_call call;

    if (!fake_greet(fd))
        return;
    while (fake_read(f, fd, &call)) {
        fake_reply(f, fd, &call, refusal->status, refusal->reason, "because\x1b[31m", NULL);
        fake_call_fini(&call);
    }
}

Test(client, every_status_of_a_node_has_one_here)
{
    const struct {
        struct refusal refusal;
        enum mesh_status status;
    } table[] = {
        {{STATUS_INVALID_ARGUMENT, 0}, MESH_INVALID},
        {{STATUS_DEADLINE_EXCEEDED, 0}, MESH_TIMEOUT},
        {{STATUS_CANCELLED, 0}, MESH_TIMEOUT},
        {{STATUS_NOT_FOUND, 0}, MESH_NOT_FOUND},
        {{STATUS_ALREADY_EXISTS, 0}, MESH_REFUSED},
        {{STATUS_PERMISSION_DENIED, 0}, MESH_REFUSED},
        {{STATUS_RESOURCE_EXHAUSTED, 0}, MESH_REFUSED},
        {{STATUS_UNAUTHENTICATED, 0}, MESH_REFUSED},
        {{STATUS_FAILED_PRECONDITION, 0}, MESH_REFUSED},
        {{STATUS_FAILED_PRECONDITION, MESHD__V1__REASON__REASON_WIRE_VERSION}, MESH_PROTOCOL},
        {{STATUS_UNAVAILABLE, 0}, MESH_GONE},
        {{STATUS_UNIMPLEMENTED, 0}, MESH_PROTOCOL},
        {{STATUS_INTERNAL, 0}, MESH_PROTOCOL},
        {{99, 0}, MESH_PROTOCOL},
    };

    for (size_t i = 0; i < sizeof(table) / sizeof(*table); i++) {
        calls_start(refuse, (void *)&table[i].refusal);
        cr_expect_eq(calls_lookup("web", SOON), table[i].status, "status %u",
                     table[i].refusal.status);
        cr_expect(strstr(mesh_error_text(), "because\\x1b[31m"), "%s", mesh_error_text());
        calls_stop();
    }
}

Test(client, another_wire_version_is_told)
{
    const struct refusal refusal = {STATUS_FAILED_PRECONDITION,
                                    MESHD__V1__REASON__REASON_WIRE_VERSION};

    calls_start(refuse, (void *)&refusal);
    cr_expect_eq(calls_lookup("web", SOON), MESH_PROTOCOL);
    cr_expect(strstr(mesh_error_text(), "2 to 3"), "%s", mesh_error_text());
    calls_stop();
}

Test(client, statuses_have_texts)
{
    cr_expect_str_eq(mesh_status_text(MESH_REFUSED), "refused");
    cr_expect_str_eq(mesh_status_text((enum mesh_status)99), "unknown status");
    cr_expect_str_eq(mesh_version(), MESHD_VERSION);
}

/* ---- arguments ---- */

Test(client, what_cannot_be_is_refused_without_asking)
{
    static const char *many[1001];
    struct mesh_call *call = NULL;
    struct mesh_client *none = NULL;
    struct mesh_lease *lease = NULL;
    char longest[300];

    calls_start(serve_answers, NULL);
    memset(longest, 'a', sizeof(longest));
    longest[sizeof(longest) - 1] = '\0';
    for (size_t i = 0; i < 1001; i++)
        many[i] = "web";
    cr_expect_eq(mesh_client_open("http://x", SOON, &none), MESH_INVALID);
    cr_expect_eq(mesh_client_open("tls://127.0.0.1:1", SOON, &none), MESH_INVALID);
    cr_expect_eq(mesh_client_open(fake.url, 0, &none), MESH_INVALID);
    cr_expect_eq(mesh_client_open(fake.url, 600001, &none), MESH_INVALID);
    cr_expect_null(none);
    cr_expect_eq(calls_lookup("web", 0), MESH_INVALID);
    cr_expect_eq(calls_lookup("", SOON), MESH_INVALID);
    cr_expect_eq(calls_lookup(NULL, SOON), MESH_INVALID);
    cr_expect_eq(calls_lookup("a b", SOON), MESH_INVALID);
    cr_expect_eq(calls_lookup("a\xff", SOON), MESH_INVALID);
    cr_expect_eq(calls_lookup(longest, SOON), MESH_INVALID);
    cr_expect_eq(mesh_lookup_begin(client, many, 1001, SOON, &call), MESH_INVALID);
    cr_expect_eq(mesh_lookup_begin(client, many, 0, SOON, &call), MESH_INVALID);
    cr_expect_null(call);
    cr_expect_eq(mesh_register(client, "web", "1.2.3.4:5", SOON, &lease), MESH_INVALID);
    cr_expect_eq(mesh_register(client, "we b", "1.2.3.4:5", SOON, &lease), MESH_INVALID);
    cr_expect_eq(mesh_register(client, "web", "1.2.3.4", SOON, &lease), MESH_INVALID);
    cr_expect_null(lease);
    cr_expect_eq(calls_lookup("web", SOON), MESH_OK, "the connection is as good as before");
    mesh_list_free(NULL);
    mesh_client_close(NULL);
    mesh_call_cancel(NULL);
    mesh_maps_free(NULL);
    mesh_lease_close(NULL);
    calls_stop();
}

Test(client, a_name_that_the_node_cannot_make_canonical_is_invalid)
{
    calls_start(serve_answers, NULL);
    cr_expect_eq(calls_lookup("bad..name", SOON), MESH_INVALID);
    calls_stop();
}

Test(client, nobody_listens_is_told_at_once)
{
    struct mesh_client *none = NULL;
    char url[64];

    snprintf(url, sizeof(url), "tcp://127.0.0.1:%u", (unsigned)fake_free_port());
    cr_expect_eq(mesh_client_open(url, 600000, &none), MESH_GONE);
    cr_expect(strstr(mesh_error_text(), url), "%s", mesh_error_text());
    cr_expect_eq(mesh_client_open("ipc:///nowhere/at/all.sock", 600000, &none), MESH_GONE);
    cr_expect_null(none);
}

/* ---- strangers ---- */

static atomic_int connections;

/* What a stranger answers to the first request of its first connection. */
static void answer_garbage(struct fake *f, int fd)
{
    const char *bytes = f->ctx;
    struct fake_call call;

    if (atomic_fetch_add(&connections, 1) > 0) {
        serve_answers(f, fd);
        return;
    }
    if (!fake_greet(fd) || !fake_read(f, fd, &call))
        return;
    fake_send(fd, bytes, 24);
    fake_call_fini(&call);
    fake_drain(fd);
}

static void garbage(const char bytes[24])
{
    atomic_store(&connections, 0);
    calls_start(answer_garbage, (void *)bytes);
    cr_expect_eq(calls_lookup("web", SOON), MESH_PROTOCOL);
    cr_expect_eq(calls_lookup("web", SOON), MESH_OK, "%s", mesh_error_text());
    calls_stop();
}

Test(client, garbage_is_a_protocol_error_and_the_next_call_begins_anew)
{
    garbage("HTTP/1.1 400 Bad Request"); /* a huge length */
    garbage("\0\0\0\0\0\0\0\x10"
            "aaaaaaaaaaaaaaaa"); /* no backtrace */
    garbage("\0\0\0\0\0\0\0\x02"
            "\x80\0aaaaaaaaaaaaaa"); /* nor room for one */
    garbage("\0\0\0\0\0\0\0\x10"
            "\0\0\0\1\x80\0\0\1"
            "aaaaaaaa"); /* one word too many */
}

/* A whole reply, with what is wrong in it. */
static void answer_wrong(struct fake *f, int fd)
{
    Meshd__V1__LookupReply reply = MESHD__V1__LOOKUP_REPLY__INIT;
    Meshd__V1__CallHeader header = MESHD__V1__CALL_HEADER__INIT;
    const char *how = f->ctx;
    struct fake_call call;

    if (!fake_greet(fd))
        return;
    while (fake_read(f, fd, &call)) {
        if (strcmp(how, "call id") == 0) {
            header.call_id = call.header->call_id + 1;
            call.header = &header;
            fake_reply(f, fd, &call, 0, 0, "", &reply.base);
        } else if (strcmp(how, "no results") == 0) {
            fake_reply(f, fd, &call, 0, 0, "", &reply.base);
        } else {
            fake_reply(f, fd, &call, 0, 0, "", &call.header->base); /* another message */
        }
        fake_call_fini(&call);
    }
}

Test(client, an_answer_that_is_none_to_this_call_is_a_protocol_error)
{
    const char *const how[] = {"call id", "no results", "another message"};

    for (size_t i = 0; i < sizeof(how) / sizeof(*how); i++) {
        calls_start(answer_wrong, (void *)how[i]);
        cr_expect_eq(calls_lookup("web", SOON), MESH_PROTOCOL, "%s", how[i]);
        calls_stop();
    }
}

static void greet_as_pair(struct fake *f, int fd)
{
    const uint8_t hello[SP_HELLO_LEN] = {0, 'S', 'P', 0, 0, SP_PAIR1, 0, 0};

    fake_send(fd, hello, sizeof(hello));
    fake_drain(fd);
}

Test(client, what_is_no_meshd_is_told)
{
    fake_start(&fake, SP_TCP, greet_as_pair, NULL);
    cr_expect_eq(mesh_client_open(fake.url, SOON, &client), MESH_PROTOCOL);
    cr_expect(strstr(mesh_error_text(), "not a meshd"), "%s", mesh_error_text());
    fake_stop(&fake);
}
