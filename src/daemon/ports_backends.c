/* ports_backends - what workers find out of this node's backends, for the node.
 *
 * Looks are answered one by one: the node has asked for each. What clients meet is not asked for,
 * and a backend that is down fails as many as come: what the main loop has not read yet is one
 * letter for each service's backend, however many clients it is about.
 */
#include "daemon/line.h"

#include <stdio.h>
#include <string.h>
#include "forward/backend.h"

#define FAILURES_MAX 100u /* told of one letter: mesh.proto allows a check no higher `fall` */

/* ---- looks ---- */

struct checked {
    struct letter letter;
    struct ports *ports;
    uint64_t number;
    int error;
    char text[LIMIT_STATUS_TEXT + 1];
};

static void read_checked(struct letter *letter)
{
    struct checked *l = CONTAINER_OF(letter, struct checked, letter);

    node_checked(l->ports->node, l->number, l->error, l->text);
    free(l);
}

void backend_checked(void *ctx, uint64_t number, int error, const char *text)
{
    struct checked *l = must_alloc(sizeof *l);

    l->letter.read = read_checked;
    l->ports = ctx;
    l->number = number;
    l->error = error;
    snprintf(l->text, sizeof l->text, "%s", text);
    mailbox_post(l->ports->settings.box, &l->letter);
}

/* One that cannot be begun is answered like the others, after this has returned. */
void check_begin(void *ctx, uint64_t number, const struct node_service *service)
{
    const struct node_check *check = &service->check;
    struct ports *ports = ctx;
    bool http = check->kind == MESHD__V1__CHECK_KIND__CHECK_KIND_HTTP;
    int r = forward_check(ports->forward, number, service->backend,
                          (enum proxy_version)service->proxy_protocol, http ? check->path : NULL,
                          check->timeout_ms);

    if (r < 0)
        backend_checked(ports, number, r, strerror(-r));
}

/* ---- clients ---- */

struct seen_backend {
    struct letter letter;
    UT_hash_handle hh;
    struct ports *ports;
    bool well;         /* a client was, and then: */
    unsigned failures; /* so many, one after another, */
    int error;         /* the last of them so */
    size_t backend;    /* where that begins in key */
    char key[];        /* name, NUL, backend, NUL */
};

static void read_seen(struct letter *letter)
{
    struct seen_backend *l = CONTAINER_OF(letter, struct seen_backend, letter);
    struct ports *ports = l->ports;

    mutex_lock(&ports->seen_lock);
    HASH_DEL(ports->seen, l);
    mutex_unlock(&ports->seen_lock);
    if (l->well)
        node_backend_seen(ports->node, l->key, l->key + l->backend, true, "");
    for (unsigned i = 0; i < l->failures; i++)
        node_backend_seen(ports->node, l->key, l->key + l->backend, false,
                          backend_error_text(l->error));
    free(l);
}

/* In a letter that waits, whose order with others does not matter: they are about others. */
static struct seen_backend *seen_letter_locked(struct ports *ports, const char *name,
                                               const char *backend) REQUIRES(ports->seen_lock)
{
    size_t name_len = strlen(name), len = name_len + strlen(backend) + 2;
    struct seen_backend *l = must_alloc(sizeof *l + len), *there;

    l->letter.read = read_seen;
    l->ports = ports;
    l->backend = name_len + 1;
    memcpy(l->key, name, name_len + 1);
    memcpy(l->key + l->backend, backend, len - l->backend);
    HASH_FIND(hh, ports->seen, l->key, len, there);
    if (there) {
        free(l);
        return there;
    }
    HASH_ADD_KEYPTR(hh, ports->seen, l->key, len, l);
    mailbox_post(ports->settings.box, &l->letter);
    return l;
}

void backend_seen(void *ctx, const char *name, const char *backend, int error)
{
    struct ports *ports = ctx;
    struct seen_backend *l;

    mutex_lock(&ports->seen_lock);
    l = seen_letter_locked(ports, name, backend);
    if (error == 0) {
        l->well = true;
        l->failures = 0;
    } else {
        l->failures += l->failures < FAILURES_MAX;
        l->error = error;
    }
    mutex_unlock(&ports->seen_lock);
}
