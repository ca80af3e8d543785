/* pages: a token keeps its picture, renews it, expires, and there is an end to their number. */
#include <criterion/criterion.h>
#include "base/limits.h"
#include "daemon/pages.h"

static struct registry *reg;
static struct pages pages;
static struct snapshot *snap;

static void setup(void)
{
    struct limits limits;

    limits_default(&limits);
    cr_assert_eq(
        registry_new(&(struct registry_settings){.peer_id = "n1", .epoch = 1, .limits = &limits},
                     &reg),
        0);
    cr_assert_eq(registry_snapshot(reg, &snap), 0);
    cr_assert_eq(pages_init(&pages, 2), 0);
}

static void teardown(void)
{
    snapshot_unref(snap);
    pages_fini(&pages);
    registry_free(reg);
}

static bool pin(uint64_t now, const struct page_place *place, uint8_t *token)
{
    return pages_pin(&pages, &(struct pin){.snap = snap, .services_total = 7}, place, now, token);
}

static bool pin_local(uint64_t now, const struct page_place *place, uint8_t *token)
{
    return pages_pin(&pages, &(struct pin){.snap = snap, .local = true}, place, now, token);
}

Test(pages, a_token_brings_back_its_snapshot_and_place, .init = setup, .fini = teardown)
{
    const struct page_place at = {.part = PAGE_PEERS, .list = 3, .row = 1000000};
    uint8_t token[PAGE_TOKEN_LEN];
    struct page_place place;
    struct pin found;

    cr_assert(pin(100, &at, token));
    cr_assert(pages_find(&pages, token, sizeof token, 100 + PAGE_PIN_MS - 1, &found, &place));
    cr_expect_eq(found.snap, snap);
    cr_expect_eq(found.services_total, 7u);
    cr_expect_eq(place.part, PAGE_PEERS);
    cr_expect_eq(place.list, 3u);
    cr_expect_eq(place.row, 1000000u);
    snapshot_unref(found.snap);
}

Test(pages, use_renews_and_disuse_ends_a_pin, .init = setup, .fini = teardown)
{
    uint8_t token[PAGE_TOKEN_LEN];
    struct page_place place = {.part = PAGE_SERVICES};
    struct pin found;

    cr_assert(pin(0, &place, token));
    cr_assert(pages_find(&pages, token, sizeof token, 9000, &found, &place));
    snapshot_unref(found.snap);
    cr_assert(pages_find(&pages, token, sizeof token, 18000, &found, &place));
    snapshot_unref(found.snap);
    cr_expect_not(pages_find(&pages, token, sizeof token, 28000, &found, &place));
    cr_expect_eq(pages_used(&pages, 28000), 0u);
}

Test(pages, the_pins_have_an_end_and_come_back, .init = setup, .fini = teardown)
{
    const struct page_place place = {.part = PAGE_SERVICES};
    uint8_t first[PAGE_TOKEN_LEN], second[PAGE_TOKEN_LEN], third[PAGE_TOKEN_LEN];
    struct page_place at;
    struct pin found;

    cr_assert(pin(0, &place, first));
    cr_assert(pin(0, &place, second));
    cr_expect_not(pin(0, &place, third));
    cr_assert(pages_find(&pages, first, sizeof first, 1, &found, &at));
    pages_unpin(&pages, found.number);
    snapshot_unref(found.snap);
    cr_expect(pin(1, &place, third));
    cr_expect_not(pages_find(&pages, first, sizeof first, 1, &found, &at));
}

Test(pages, a_local_reader_gets_the_pin_of_the_stranger_who_came_last_longest_ago, .init = setup,
     .fini = teardown)
{
    const struct page_place place = {.part = PAGE_SERVICES};
    uint8_t first[PAGE_TOKEN_LEN], second[PAGE_TOKEN_LEN], own[PAGE_TOKEN_LEN];
    struct page_place at;
    struct pin found;

    cr_assert(pin(0, &place, first));
    cr_assert(pin(1, &place, second));
    cr_assert(pages_find(&pages, first, sizeof first, 2, &found, &at));
    snapshot_unref(found.snap);
    cr_assert(pin_local(3, &place, own));
    cr_expect_not(pages_find(&pages, second, sizeof second, 3, &found, &at));
    cr_assert(pages_find(&pages, own, sizeof own, 3, &found, &at));
    snapshot_unref(found.snap);
    cr_assert(pages_find(&pages, first, sizeof first, 3, &found, &at));
    snapshot_unref(found.snap);
    cr_expect_not(pin(3, &place, second));
    /* Nobody takes from a local reader. */
    cr_assert(pin_local(3, &place, second));
    cr_expect_not(pin_local(3, &place, first));
    cr_expect_eq(pages_used(&pages, 3), 2u);
}

Test(pages, a_foreign_token_finds_nothing, .init = setup, .fini = teardown)
{
    uint8_t token[PAGE_TOKEN_LEN] = {0};
    struct page_place place = {.part = PAGE_SERVICES};
    struct pin found;

    cr_assert(pin(0, &place, token));
    token[0] ^= 1;
    cr_expect_not(pages_find(&pages, token, sizeof token, 1, &found, &place));
    cr_expect_not(pages_find(&pages, token, 3, 1, &found, &place));
}

Test(pages, fewer_than_are_in_use_take_none_away_and_more_are_there_at_once, .init = setup,
     .fini = teardown)
{
    const struct page_place place = {.part = PAGE_SERVICES};
    uint8_t tokens[3][PAGE_TOKEN_LEN], token[PAGE_TOKEN_LEN];
    struct page_place at;
    struct pin found;

    cr_assert(pin(0, &place, tokens[0]));
    cr_assert(pin(0, &place, tokens[1]));
    cr_assert_eq(pages_set_most(&pages, 1), 0);
    for (int i = 0; i < 2; i++) {
        cr_assert(pages_find(&pages, tokens[i], PAGE_TOKEN_LEN, 1 + i, &found, &at));
        snapshot_unref(found.snap);
    }
    pages_unpin(&pages, found.number);
    cr_expect_not(pin(3, &place, token));
    cr_expect(pin(PAGE_PIN_MS + 1, &place, tokens[0]));
    cr_assert_eq(pages_set_most(&pages, 3), 0);
    cr_expect(pin(PAGE_PIN_MS + 1, &place, tokens[1]));
    cr_expect(pin(PAGE_PIN_MS + 1, &place, tokens[2]));
    cr_expect_not(pin(PAGE_PIN_MS + 1, &place, token));
    cr_expect(pages_find(&pages, tokens[0], PAGE_TOKEN_LEN, PAGE_PIN_MS + 2, &found, &at));
    snapshot_unref(found.snap);
}
