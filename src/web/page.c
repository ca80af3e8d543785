/* page - the document at /, with a Content-Security-Policy that lets its own style and script run
 * and nothing else: a name that found its way into the page as markup would still do nothing. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "base/random.h"
#include "web/document.h"
#include "web/inside.h"

#define NONCE_BYTES 16u
#define PLACE "@NONCE@"

static void make_nonce(char out[2 * NONCE_BYTES + 1])
{
    uint8_t bytes[NONCE_BYTES];

    random_bytes(bytes, sizeof bytes);
    for (size_t i = 0; i < NONCE_BYTES; i++)
        snprintf(out + 2 * i, 3, "%02x", bytes[i]);
}

/* The document with the nonce in each of its places. NULL: no memory. */
static char *document_with(const char *nonce, size_t *out_len)
{
    const size_t place = strlen(PLACE), grows = strlen(nonce) - place;
    const char *from = (const char *)page_document, *end = from + page_document_len, *at;
    char *text, *to;
    size_t places = 0;

    for (at = from; (at = memmem(at, (size_t)(end - at), PLACE, place)) != NULL; at += place)
        places++;
    to = text = malloc(page_document_len + places * grows);
    if (!text)
        return NULL;
    while ((at = memmem(from, (size_t)(end - from), PLACE, place)) != NULL) {
        to = mempcpy(to, from, (size_t)(at - from));
        to = mempcpy(to, nonce, place + grows);
        from = at + place;
    }
    to = mempcpy(to, from, (size_t)(end - from));
    *out_len = (size_t)(to - text);
    return text;
}

enum MHD_Result page_show(struct exchange *ex)
{
    struct web_body body = {.status = 200, .type = "text/html; charset=utf-8"};
    char nonce[2 * NONCE_BYTES + 1], policy[512];

    make_nonce(nonce);
    body.data = document_with(nonce, &body.len);
    if (!body.data)
        return reply_error(ex, 503, "no memory for the page; try again later");
    snprintf(policy, sizeof policy,
             "default-src 'none'; style-src 'nonce-%s'; script-src 'nonce-%s'; connect-src 'self'; "
             "img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
             nonce, nonce);
    return reply_body(ex, &body, policy);
}
