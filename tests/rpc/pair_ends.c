#include "rpc/pair_ends.h"

#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <meshd/v1/mesh.pb-c.h>
#include "forward/must.h"
#include "rpc/canary.h"
#include "wire/frame.h"

struct end near_end, far_end;

static void on_up(void *ctx)
{
    struct end *end = ctx;

    if (tally_value(&end->gones) != tally_value(&end->ups))
        end->disorder = true;
    tally_add(&end->ups, 1);
}

/* A test message's number is in its header's session id. */
static void on_message(void *ctx, struct rpc_msg *msg)
{
    struct end *end = ctx;
    struct frame_parts parts;
    Meshd__V1__LinkHeader *header;
    uint64_t id[2];

    pthread_mutex_lock(&end->hold);
    pthread_mutex_unlock(&end->hold);
    if (frame_split(rpc_msg_data(msg), rpc_msg_len(msg), &parts) < 0) {
        end->disorder = true;
    } else {
        header = meshd__v1__link_header__unpack(NULL, parts.header_len, parts.header);
        memcpy(id, header->session_id.data, sizeof(id));
        /* Urgent ones are numbered from 2^32 on, and are in no order with the others. */
        if (id[0] != end->session || (id[1] < UINT32_MAX && id[1] < end->next) ||
            tally_value(&end->ups) == tally_value(&end->gones))
            end->disorder = true;
        if (id[1] < UINT32_MAX)
            end->next = id[1] + 1;
        meshd__v1__link_header__free_unpacked(header, NULL);
    }
    rpc_msg_free(msg);
    tally_add(&end->messages, 1);
}

static void on_quiet(void *ctx, uint64_t sent)
{
    struct end *end = ctx;

    end->sent = sent;
    tally_add(&end->quiets, 1);
}

static void on_gone(void *ctx)
{
    struct end *end = ctx;

    tally_add(&end->gones, 1);
}

void ends_open(struct end *end, unsigned slot)
{
    const struct rpc_pair_settings settings = {.path = fake_path(slot),
                                               .message_bytes = MESSAGE_BYTES,
                                               .queue_bytes = QUEUE_BYTES,
                                               .ctx = end,
                                               .up = on_up,
                                               .message = on_message,
                                               .quiet = on_quiet,
                                               .gone = on_gone};

    *end = (struct end){.ups = TALLY_INIT, .messages = TALLY_INIT, .quiets = TALLY_INIT};
    end->gones = (struct tally)TALLY_INIT;
    pthread_mutex_init(&end->hold, NULL);
    cr_assert_eq(rpc_pair_open(&settings, &end->pair), 0);
}

int ends_send(struct end *end, enum rpc_urgency urgency, uint64_t session, uint64_t number,
              size_t size)
{
    Meshd__V1__LinkHeader header = MESHD__V1__LINK_HEADER__INIT;
    Meshd__V1__Goodbye body = MESHD__V1__GOODBYE__INIT;
    uint64_t id[2] = {session, number};
    int r;

    header.kind = MESHD__V1__LINK_KIND__LINK_KIND_GOODBYE;
    header.session_id.len = sizeof(id);
    header.session_id.data = (uint8_t *)id;
    body.text = malloc(size + 1);
    memset(body.text, 'x', size);
    body.text[size] = '\0';
    r = rpc_pair_send(end->pair, urgency, &header.base, &body.base);
    free(body.text);
    return r;
}

uint64_t ends_read(int fd)
{
    size_t len;
    uint8_t *payload = fake_read(fd, &len);
    struct frame_parts parts;
    Meshd__V1__LinkHeader *header;
    uint64_t id[2];

    cr_assert(payload, "a message comes");
    cr_assert_eq(frame_split(payload + 4, len - 4, &parts), 0); /* after the hop word */
    header = meshd__v1__link_header__unpack(NULL, parts.header_len, parts.header);
    memcpy(id, header->session_id.data, sizeof(id));
    meshd__v1__link_header__free_unpacked(header, NULL);
    free(payload);
    return id[1];
}

void ends_setup(void)
{
    alarm(100);
    ends_open(&near_end, 0);
}

void ends_teardown(void)
{
    rpc_pair_close(near_end.pair);
    MUST(!near_end.disorder);
    MUST(canary_sing() == 0);
}

int ends_join(void)
{
    uint64_t ups = tally_value(&near_end.ups);
    int fd = fake_join(fake_path(0), SP_PAIR1);

    cr_assert(fd >= 0);
    cr_assert(tally_wait(&near_end.ups, ups + 1));
    return fd;
}

void ends_quiet(int fd, uint64_t already_read)
{
    uint64_t quiets = tally_value(&near_end.quiets), gones = tally_value(&near_end.gones);

    rpc_pair_quiet(near_end.pair, false);
    cr_assert(tally_wait(&near_end.quiets, quiets + 1));
    cr_assert(near_end.sent >= already_read);
    cr_assert(fake_end(fd, near_end.sent - already_read));
    cr_assert(tally_wait(&near_end.gones, gones + 1));
}
