/* array - room in an array that grows by doubling. */
#ifndef BASE_ARRAY_H
#define BASE_ARRAY_H

#include <stddef.h>

/* Room for count elements of size bytes in all; array_at: the address of the pointer to them, which
 * may be NULL while *cap is 0. first: elements of the first allocation, at the least. 0, or
 * -ENOMEM: then nothing has changed. */
int array_room(void *array_at, size_t *cap, size_t count, size_t size, size_t first);

#endif
