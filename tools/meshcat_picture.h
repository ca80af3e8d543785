/* meshcat_picture - all pages of an introspection, as one message. */
#ifndef MESHCAT_PICTURE_H
#define MESHCAT_PICTURE_H

#include "meshcat_ask.h"

/* The pages of one picture as one message, whose rows are borrowed from the replies. */
struct picture {
    struct call_reply **replies;
    size_t n_replies;
    Meshd__V1__IntrospectReply all;
    size_t rows;
};

/* Asks for page after page, until the last or until --limit has enough of these parts (enum
 * show_part). 0, or the exit code of an error that was told. *p needs picture_fini in any case. */
int picture_fetch(struct session *s, Meshd__V1__IntrospectRequest *request, unsigned parts,
                  struct picture *p);
void picture_fini(struct picture *p);

#endif
