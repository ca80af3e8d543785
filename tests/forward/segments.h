/* segments - how many of them have arrived on a TCP connection. */
#ifndef TESTS_FORWARD_SEGMENTS_H
#define TESTS_FORWARD_SEGMENTS_H

#include <stdint.h>

uint32_t segments_in(int fd);
uint32_t data_segments_in(int fd); /* that carried bytes */

#endif
