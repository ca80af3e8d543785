/* answers - what a fake node of the library's tests answers when it does as it should. */
#ifndef TESTS_CLIENT_ANSWERS_H
#define TESTS_CLIENT_ANSWERS_H

#include "client/fake.h"

struct refusal {
    unsigned status;
    Meshd__V1__Reason reason;
};

/* An instance of n7 for each name asked, but none of "nobody" and a reason for "bad..name". */
void answer_lookup(struct fake *fake, int fd, const struct fake_call *call);
/* Greets and answers lookups so, one after the other. */
void serve_answers(struct fake *fake, int fd);

#endif
