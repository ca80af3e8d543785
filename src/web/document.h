/* document - the live page: page/ as one text, made at build time by embed.cmake.
 *
 * "@NONCE@" stands where its style and its script say that they are ours.
 */
#ifndef WEB_DOCUMENT_H
#define WEB_DOCUMENT_H

#include <stddef.h>

extern const unsigned char page_document[]; /* no NUL at its end */
extern const size_t page_document_len;

#endif
