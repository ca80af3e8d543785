/* net - sockets of a test on 127.0.0.1: blocking, with WAIT_MS as their time-out. */
#ifndef TESTS_FORWARD_NET_H
#define TESTS_FORWARD_NET_H

#include <netinet/in.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define WAIT_MS 30000

void net_set_timeouts(int fd); /* as those that are made here have */
int net_listen_at(struct sockaddr_in *out_at);
int net_listen(char out_addr[32]); /* "127.0.0.1:port" */
/* Where nobody listens, and nobody else can as long as the descriptor is open. */
int net_refuse(char out_addr[32]);
int net_accept(int listener);
bool net_nobody_comes(int listener); /* nobody is waiting there now */
int net_connect(uint16_t port);
void net_send(int fd, const void *data, size_t len);
void net_expect(int fd, const void *data, size_t len); /* exactly these bytes */
size_t net_read_all(int fd, char *out, size_t size);   /* until the end; with a NUL */
bool net_has_ended(int fd);                            /* waits for it: FIN or RST */
bool net_is_reset(int fd);                             /* waits for the end: it was an RST */
void net_reset(int fd);
size_t net_descriptors(void);                      /* open in this process */
void wait_until(bool (*is)(void *ctx), void *ctx); /* aborts after WAIT_MS */

#endif
