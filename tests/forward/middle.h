/* middle - what stands between two ends of DATA connections: it passes bytes on, until it forgets
 * connections without a word, as a NAT does, ends them or breaks them off. One thread's.
 */
#ifndef TESTS_FORWARD_MIDDLE_H
#define TESTS_FORWARD_MIDDLE_H

#include <poll.h>
#include <stdbool.h>
#include <stddef.h>

struct middle_pair {
    int fds[2];
    bool ended[2]; /* what comes from there */
    bool forgotten;
};
struct middle {
    struct middle_pair *pairs;
    size_t n, cap;
    size_t
        cut; /* at most so many bytes leave at once, each time in a segment of their own; 0: any */
};
/* Takes fd; returns the other end of what it is passed on to. */
int middle_add(struct middle *middle, int fd);
/* Two entries of polls for each pair; then with what poll(2) found. */
void middle_poll(const struct middle *middle, struct pollfd *polls);
void middle_pass(struct middle *middle, const struct pollfd *polls, size_t n_pairs);
void middle_forget(struct middle *middle); /* those that there are */
void middle_break(struct middle *middle);  /* likewise: RST to both sides */
void middle_end(struct middle *middle);    /* likewise: FIN to both sides, and nothing more */
void middle_fini(struct middle *middle);

#endif
