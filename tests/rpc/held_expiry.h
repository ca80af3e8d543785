/* held_expiry - stops nng where it has chosen an operation to time out and not done so yet: as a
 * busy machine does.
 */
#ifndef TESTS_RPC_HELD_EXPIRY_H
#define TESTS_RPC_HELD_EXPIRY_H

/* The next operation that expires is held at that point. */
void held_expiry_arm(void);
/* Until one is held. */
void held_expiry_wait(void);
/* Lets it go on, and waits until it has had its effect, if it has any. */
void held_expiry_release(void);

#endif
