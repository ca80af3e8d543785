/* record - made at the end, of what the client's struct, its passage or its half at the owner's
 * have anyway. */
#include "forward/record.h"

#include <stdio.h>
#include <string.h>
#include "base/random.h"

/* Ends that are nobody's fault, or the client's own wish. */
static bool in_order(enum forward_end end)
{
    switch (end) {
    case FORWARD_DONE:
    case FORWARD_CLIENT_RESET:
    case FORWARD_CLIENT_SILENT:
    case FORWARD_CLIENT_GONE:
        return true;
    default:
        return false;
    }
}

bool forward_end_is_error(enum forward_end end) { return !in_order(end); }

void forward_set_records(struct forward *forward, enum forward_records records)
{
    atomic_store(&forward->records, (int)records);
}

static int records(const struct forward *forward)
{
    return atomic_load_explicit(&forward->records, memory_order_relaxed);
}

bool record_wanted(const struct forward *forward, enum forward_end end)
{
    return records(forward) == FORWARD_RECORDS_ALL ||
           (records(forward) == FORWARD_RECORDS_ERRORS && !in_order(end));
}

uint64_t record_clock(const struct forward *forward)
{
    return records(forward) == FORWARD_RECORDS_OFF ? 0 : uv_hrtime() / 1000;
}

static const char *text_or_none(const char *text) { return text ? text : ""; }

static void say_more(const struct way *way, const struct record_end *end,
                     char out[FORWARD_RECORD_TEXT])
{
    const char *text = text_or_none(end->text);

    if (strcmp(text, forward_ends[end->end].text) == 0)
        text = "";
    if (way->tries > 1)
        snprintf(out, FORWARD_RECORD_TEXT, "%s%s%u tries", text, *text ? "; " : "", way->tries);
    else
        snprintf(out, FORWARD_RECORD_TEXT, "%s", text);
}

/* The clock may not have been asked for where it begins: records may be wanted since. */
static uint64_t between(uint64_t from_us, uint64_t to_us)
{
    return from_us && to_us > from_us ? to_us - from_us : 0;
}

void record_tell(struct forward *forward, const struct tuple *tuple, uint64_t begun_us, bool owner,
                 const struct way *way, const struct record_end *end)
{
    char text[FORWARD_RECORD_TEXT];
    struct forward_record record = {
        .owner = owner,
        .name = text_or_none(way->name),
        .peer_id = text_or_none(way->peer_id),
        .backend = text_or_none(way->backend),
        .text = text,
        .end = end->end,
        .bytes_up = end->bytes_up,
        .bytes_down = end->bytes_down,
        .name_us = between(begun_us, way->named_us),
        .open_us = between(owner ? begun_us : way->named_us, way->joined_us),
        .total_us = between(begun_us, end->ended_us ? end->ended_us : uv_hrtime() / 1000),
    };

    if (!forward->ops.ended || !record_wanted(forward, end->end))
        return;
    if (way->id)
        memcpy(record.id, way->id, sizeof(record.id));
    else
        random_bytes(record.id, sizeof(record.id));
    endpoint_to(&tuple->client, &record.client);
    endpoint_to(&tuple->server, &record.port);
    say_more(way, end, text);
    forward->ops.ended(forward->ops.ctx, &record);
}
