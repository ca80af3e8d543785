/* client_rig - what the suites about one client share: ports, asking at them, and its ends. */
#ifndef TESTS_FORWARD_CLIENT_RIG_H
#define TESTS_FORWARD_CLIENT_RIG_H

#include "forward/ingress_rig.h"

#define REQUEST "GET / HTTP/1.1\r\nHost: Web:80\r\n\r\n"

enum { PLAIN, WITH_DEFAULT, MAPPED }; /* its ports */
extern struct rig rig;

void client_begin(void);
void client_start(void); /* the ports above, on one worker */
void client_end(void);

int client_ask_port(unsigned port, const void *data, size_t len);
int client_ask_text(unsigned port, const char *text);
/* Asked for that name, with these first bytes. */
void client_expect_asked(unsigned nth, const char *name, const void *first, size_t len);
/* The client ends well with the backend that it was joined with. */
void client_expect_joined(int fd, int backend);
/* A whole answer with that status, of the length that it says, and then the end. */
void client_expect_status(int fd, int status);
/* A fatal TLS alert, and then the end. */
void client_expect_alert(int fd, uint8_t alert);

#endif
