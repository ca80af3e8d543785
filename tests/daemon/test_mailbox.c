/* mailbox: letters from many threads arrive once each, those of one thread in their order. */
#include <criterion/criterion.h>
#include <pthread.h>
#include <stdlib.h>
#include "daemon/mailbox.h"

#define THREADS 4
#define LETTERS 5000

struct numbered {
    struct letter letter;
    int thread, number;
};

static struct mailbox box;
static uv_loop_t loop;
static int next_of[THREADS], seen, batches;

static void read_numbered(struct letter *letter)
{
    struct numbered *n = CONTAINER_OF(letter, struct numbered, letter);

    cr_assert_eq(n->number, next_of[n->thread], "thread %d: %d after %d", n->thread, n->number,
                 next_of[n->thread]);
    next_of[n->thread]++;
    if (++seen == THREADS * LETTERS)
        uv_stop(&loop);
    free(n);
}

static void after(void *ctx) { batches++; }

static void *post_all(void *arg)
{
    for (int i = 0; i < LETTERS; i++) {
        struct numbered *n = must_alloc(sizeof *n);

        n->letter.read = read_numbered;
        n->thread = (int)(intptr_t)arg;
        n->number = i;
        mailbox_post(&box, &n->letter);
    }
    return NULL;
}

Test(mailbox, letters_of_a_thread_keep_their_order_and_none_is_lost)
{
    pthread_t threads[THREADS];

    uv_loop_init(&loop);
    cr_assert_eq(mailbox_init(&box, &loop, after, NULL), 0);
    for (int i = 0; i < THREADS; i++)
        pthread_create(&threads[i], NULL, post_all, (void *)(intptr_t)i);
    uv_run(&loop, UV_RUN_DEFAULT);
    for (int i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    cr_expect_eq(seen, THREADS * LETTERS);
    cr_expect_geq(batches, THREADS * LETTERS / (int)MAILBOX_BATCH);
    mailbox_close(&box);
    uv_run(&loop, UV_RUN_DEFAULT);
    cr_expect_eq(uv_loop_close(&loop), 0);
}

Test(mailbox, closing_reads_what_is_left)
{
    struct numbered *n = must_alloc(sizeof *n);

    uv_loop_init(&loop);
    cr_assert_eq(mailbox_init(&box, &loop, NULL, NULL), 0);
    n->letter.read = read_numbered;
    mailbox_post(&box, &n->letter);
    mailbox_close(&box);
    cr_expect_eq(seen, 1);
    uv_run(&loop, UV_RUN_DEFAULT);
    cr_expect_eq(uv_loop_close(&loop), 0);
}
