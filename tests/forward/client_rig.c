#include "forward/client_rig.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static const struct forward_ingress ports[] = {[PLAIN] = {.name = ""},
                                               [WITH_DEFAULT] = {.fallback = "the-default"},
                                               [MAPPED] = {.name = "db"}};

struct rig rig;

void client_begin(void) { rig_init(&rig); }

void client_end(void) { rig_stop(&rig); }

void client_start(void) { rig_start(&rig, 1, ports, 3); }

void client_expect_asked(unsigned nth, const char *name, const void *first, size_t len)
{
    struct fake_ask ask;

    WAIT_FOR(fake_carry_begun() == nth);
    ask = fake_carry_last();
    cr_assert_str_eq(ask.name, name);
    cr_assert_eq(ask.first_len, len);
    if (len > 0)
        cr_assert_arr_eq(ask.first, first, len);
}

void client_expect_joined(int fd, int backend)
{
    cr_assert_geq(backend, 0);
    say_text(backend, "down");
    cr_assert(hears_text(fd, "down"));
    say_text(fd, "up");
    cr_assert(hears_text(backend, "up"));
    shutdown(fd, SHUT_WR);
    cr_assert(hears_end(backend));
    close(backend);
    cr_assert(hears_end(fd));
    close(fd);
}

void client_expect_status(int fd, int status)
{
    char text[4096], line[64], *body, *length;
    ssize_t n = hear_all(fd, text, sizeof(text));

    snprintf(line, sizeof(line), "HTTP/1.1 %d ", status);
    cr_assert_gt(n, 0, "instead of %d", status);
    cr_assert_eq(strncmp(text, line, strlen(line)), 0, "%d is not: %s", status, text);
    cr_assert(strstr(text, "\r\nConnection: close\r\n"), "%s", text);
    length = strstr(text, "\r\nContent-Length: ");
    body = strstr(text, "\r\n\r\n");
    cr_assert(length && body, "%s", text);
    cr_assert_eq(strtoul(length + 18, NULL, 10), strlen(body + 4), "%s", text);
    cr_assert(strstr(body, "n1"), "%s", text); /* which node says so */
}

void client_expect_alert(int fd, uint8_t alert)
{
    const uint8_t record[] = {0x15, 3, 3, 0, 2, 2, alert};

    cr_assert(hears(fd, record, sizeof(record)));
    cr_assert(hears_end(fd));
    close(fd);
}

int client_ask_port(unsigned port, const void *data, size_t len)
{
    int fd = dial_port(rig.ports[port]);

    cr_assert_geq(fd, 0);
    say(fd, data, len);
    return fd;
}

int client_ask_text(unsigned port, const char *text)
{
    return client_ask_port(port, text, strlen(text));
}
