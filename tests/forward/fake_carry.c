#include "forward/fake_carry.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>
#include "forward/doubt.h"
#include "forward/passage.h"

struct carry {
    struct mail mail;
    struct worker *worker;
    struct carry *next_held;
    bool held, cancelled;
    void *ctx;
    const uint8_t *first;
    void (*done)(void *ctx, struct carry_result *result);
};

struct fake_carry fake;
static int a_passage;

void fake_carry_init(void)
{
    memset(&fake, 0, sizeof(fake));
    fake.text = "as told";
    pthread_mutex_init(&fake.lock, NULL);
}

static struct leg *connect_backend(struct worker *worker, const uint8_t *first, size_t delivered)
{
    const int on = 1;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    if (fd < 0 || connect(fd, (struct sockaddr *)&fake.backend, sizeof(fake.backend)) < 0 ||
        (delivered > 0 && write(fd, first, delivered) != (ssize_t)delivered)) {
        perror("the fake's backend");
        abort();
    }
    ioctl(fd, FIONBIO, &on);
    return leg_new(worker, fd);
}

static struct carry_result make_result(struct carry *carry)
{
    struct carry_result result = {.end = fake.end};

    if (fake.end != FORWARD_DONE) {
        snprintf(result.text, sizeof(result.text), "%s", fake.text);
        return result;
    }
    result.leg = connect_backend(carry->worker, carry->first, fake.delivered);
    result.delivered = fake.delivered;
    result.passage = fake.in_passage ? (struct passage *)&a_passage : NULL;
    if (fake.early && !bytes_copy(&result.early, fake.early, strlen(fake.early)))
        abort();
    return result;
}

static void answer(struct worker *worker, struct mail *mail)
{
    struct carry *carry = CONTAINER_OF(mail, struct carry, mail);
    struct carry_result result;

    if (!carry->cancelled && !worker->stopping) {
        pthread_mutex_lock(&fake.lock);
        result = make_result(carry);
        pthread_mutex_unlock(&fake.lock);
        carry->done(carry->ctx, &result);
    }
    free(carry);
}

static void note(struct worker *worker, const struct carry_ask *ask)
{
    struct fake_ask *last = &fake.last;

    if (ask->name_len > LIMIT_NAME || ask->first_len > sizeof(last->first))
        abort();
    memset(last, 0, sizeof(*last));
    memcpy(last->name, ask->name, ask->name_len);
    last->tuple = ask->tuple;
    last->first_len = ask->first_len;
    if (ask->first_len > 0)
        memcpy(last->first, ask->first, ask->first_len);
    last->left_ms = ask->deadline_ms - worker_now(worker);
    fake.begun++;
}

enum forward_end carry_begin(struct worker *worker, const struct carry_ask *ask,
                             struct carry **out_carry, char out_text[LIMIT_STATUS_TEXT + 1])
{
    struct carry *carry;

    pthread_mutex_lock(&fake.lock);
    note(worker, ask);
    if (fake.begins != FORWARD_DONE) {
        snprintf(out_text, LIMIT_STATUS_TEXT + 1, "%s", fake.text);
        pthread_mutex_unlock(&fake.lock);
        return fake.begins;
    }
    carry = calloc(1, sizeof(*carry));
    if (!carry)
        abort();
    carry->mail.read = answer;
    carry->worker = worker;
    carry->ctx = ask->ctx;
    carry->first = ask->first;
    carry->done = ask->done;
    *out_carry = carry;
    carry->held = fake.holds;
    if (fake.holds) {
        carry->next_held = fake.first_held;
        fake.first_held = carry;
        fake.held++;
    } else {
        worker_post(worker, &carry->mail);
    }
    pthread_mutex_unlock(&fake.lock);
    return FORWARD_DONE;
}

static void let_go_locked(struct carry *carry)
{
    struct carry **at = &fake.first_held;

    while (*at != carry)
        at = &(*at)->next_held;
    *at = carry->next_held;
    carry->held = false;
    fake.held--;
}

void carry_cancel(struct carry *carry)
{
    pthread_mutex_lock(&fake.lock);
    fake.cancelled++;
    carry->cancelled = true;
    if (carry->held) {
        let_go_locked(carry);
        free(carry);
    }
    pthread_mutex_unlock(&fake.lock);
}

void fake_carry_answer(void)
{
    pthread_mutex_lock(&fake.lock);
    while (fake.first_held) {
        struct carry *carry = fake.first_held;

        let_go_locked(carry);
        worker_post(carry->worker, &carry->mail);
    }
    pthread_mutex_unlock(&fake.lock);
}

void carry_way(const struct carry *carry, struct way *out_way)
{
    *out_way = (struct way){.name = "on its way"};
}

bool passage_may(const struct passage *passage) { return true; }

bool doubt_begin(struct worker *worker, const struct tuple *tuple, uint64_t begun_us,
                 const struct passage *passage, const struct record_end *end)
{
    return false;
}

void passage_way(const struct passage *passage, struct way *out_way)
{
    *out_way = (struct way){.name = "there"};
}

void passage_end(struct worker *worker, struct passage *passage)
{
    pthread_mutex_lock(&fake.lock);
    fake.left += passage == (struct passage *)&a_passage;
    pthread_mutex_unlock(&fake.lock);
}

struct fake_ask fake_carry_last(void)
{
    struct fake_ask last;

    pthread_mutex_lock(&fake.lock);
    last = fake.last;
    pthread_mutex_unlock(&fake.lock);
    return last;
}

static unsigned look_at(const unsigned *field)
{
    unsigned n;

    pthread_mutex_lock(&fake.lock);
    n = *field;
    pthread_mutex_unlock(&fake.lock);
    return n;
}

unsigned fake_carry_begun(void) { return look_at(&fake.begun); }
unsigned fake_carry_cancelled(void) { return look_at(&fake.cancelled); }
unsigned fake_carry_left(void) { return look_at(&fake.left); }
unsigned fake_carry_held(void) { return look_at(&fake.held); }
