/* random - unpredictable bytes from the kernel (getrandom(2)); aborts if there are none. */
#ifndef BASE_RANDOM_H
#define BASE_RANDOM_H

#include <stddef.h>
#include <stdint.h>

void random_bytes(void *out, size_t len);
uint64_t random_u64(void);

#endif
