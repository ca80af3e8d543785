/* What is told of each entry beside its backend: whether it is unhealthy or draining. */
#include <criterion/criterion.h>
#include <string.h>
#include "node/stage.h"

TestSuite(node_states, .init = stage_begin, .fini = stage_end);

static const char *const two[] = {"db", "127.0.0.1:5432", "web", "127.0.0.1:80"};
static struct stage_peer n2 = {.id = "n2", .ip = "10.0.0.2", .incarnation = 500, .version = 1};

static const Meshd__V1__SyncWanted *wanted(void) { return stage_heard(n2.link, KIND(SYNC_WANTED)); }

/* ---- telling ---- */

static void drain_own(bool enable)
{
    const struct node_caller caller = {.peer_id = "", .ip = "", .local = true};
    Meshd__V1__DrainRequest request = MESHD__V1__DRAIN_REQUEST__INIT;

    request.name = (char *)"own";
    request.enable = enable;
    node_drain_service(st.node, 1, &caller, &request);
    cr_assert_eq(st.reply.status, STATUS_OK, "%s", st.reply.text);
}

static void own_fails(void)
{
    for (int i = 0; i < 3; i++)
        node_backend_seen(st.node, "own", "127.0.0.1:80", false, "Connection refused");
}

/* The newest Sync has that entry alone. */
static void expect_told(uint64_t base, const char *marked)
{
    const Meshd__V1__Sync *sync = stage_heard(n2.link, KIND(SYNC));
    const char *const entry[] = {"own", marked};

    cr_assert_not_null(sync);
    cr_expect_eq(sync->base_version, base);
    cr_assert_eq(sync->n_entries, 1);
    cr_expect_str_eq(sync->entries[0]->backend_addr, "127.0.0.1:80");
    cr_expect_eq(sync->entries[0]->unhealthy, strchr(marked, '!') != NULL, "%s", marked);
    cr_expect_eq(sync->entries[0]->draining, strchr(marked, '~') != NULL, "%s", marked);
    cr_expect_eq(sync->digest, stage_digest(1, entry));
    cr_expect_not(sync->draining, "the node's own is another matter");
}

Test(node_states, the_state_of_an_own_entry_is_told_as_a_difference_and_in_a_whole_list)
{
    Meshd__V1__SyncWanted wish = MESHD__V1__SYNC_WANTED__INIT;

    stage_live(&n2);
    drain_own(false);
    expect_told(1, "127.0.0.1:80~");
    stage_ack(&n2, true);
    own_fails();
    expect_told(2, "127.0.0.1:80!~");
    stage_ack(&n2, true);
    stage_say(&n2, KIND(SYNC_WANTED), &wish.base);
    expect_told(0, "127.0.0.1:80!~");
    stage_ack(&n2, true);
    drain_own(true);
    expect_told(3, "127.0.0.1:80!");
}

/* ---- believing ---- */

static unsigned flags_of(const char *key)
{
    struct row *row = registry_find(st.registry, key);
    unsigned flags;

    cr_assert_not_null(row);
    flags = row->flags;
    row_unref(row);
    return flags;
}

Test(node_states, a_state_that_changes_alone_is_a_difference_and_one_change_of_the_maps)
{
    static const char *const states[][4] = {
        {"web", "127.0.0.1:80!", "db", "127.0.0.1:5432"},
        {"web", "127.0.0.1:80!~", "db", "127.0.0.1:5432"},
        {"web", "127.0.0.1:80~", "db", "127.0.0.1:5432"},
        {"web", "127.0.0.1:80", "db", "127.0.0.1:5432"},
    };
    static const unsigned flags[] = {ROW_UNHEALTHY, ROW_UNHEALTHY | ROW_DRAINING, ROW_DRAINING, 0};

    stage_live(&n2);
    n2.version = 2;
    stage_sync(&n2, 0, 2, two, 0, NULL);
    for (size_t i = 0; i < 4; i++) {
        uint64_t revision = registry_revision(st.registry);
        uint32_t told = st.events[NODE_MAPS_CHANGED];

        stage_change(&n2, 1, states[i], NULL, stage_digest(2, states[i]), 2);
        cr_expect_null(wanted());
        cr_expect_eq(flags_of("web@10.0.0.2"), flags[i]);
        cr_expect_eq(flags_of("db@10.0.0.2"), 0);
        cr_expect_eq(registry_revision(st.registry), revision + 1);
        cr_expect_eq(st.events[NODE_MAPS_CHANGED], told + 1);
        stage_beat(&n2, stage_digest(2, states[i]), 2);
        stage_beat(&n2, stage_digest(2, states[i]), 2);
        cr_expect_null(wanted(), "the digest is what it says");
    }
}

Test(node_states, a_state_that_was_lost_on_the_way_is_noticed)
{
    static const char *const states[] = {"web", "127.0.0.1:80!", "db", "127.0.0.1:5432"};

    stage_live(&n2);
    n2.version = 2;
    stage_sync(&n2, 0, 2, two, 0, NULL);
    stage_change(&n2, 1, two + 2, NULL, stage_digest(2, states), 2);
    cr_assert_not_null(wanted());
    cr_expect_str_eq(wanted()->why, "the digest differs");
    cr_expect_eq(flags_of("web@10.0.0.2"), 0);
    stage_sync(&n2, 0, 2, states, 0, NULL);
    cr_expect_eq(flags_of("web@10.0.0.2"), ROW_UNHEALTHY);
}
