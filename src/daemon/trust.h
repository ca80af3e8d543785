/* trust - the node's own certificate and whom it lets in: the files of tls.ca, tls.cert, tls.key
 * and tls.crl, loaded at the start and again whenever they change.
 *
 * What happens to them is told here: what is in force, what will not do and why, what ends soon.
 * Main loop only, but for trust_keeper's keeper.
 */
#ifndef DAEMON_TRUST_H
#define DAEMON_TRUST_H

#include <stdbool.h>
#include "daemon/config.h"
#include "tls/tls.h"

struct trust;

/* Loads the files that config names. 0, and what was loaded was told; or a negative errno, and why
 * was told. Without TLS in the settings *out_trust is NULL. */
int trust_new(const struct config *config, struct trust **out_trust);
/* NULL for NULL: plaintext. Borrowed until trust_free. */
struct tls_keeper *trust_keeper(struct trust *trust);
/* Every so often: reads the files again if one of them is another than it was, and once a day tells
 * of what ends soon. always: reads them in any case, as somebody asked for it. True: there is other
 * material in force now, so who is connected has to be looked at again. trust may be NULL. */
bool trust_look(struct trust *trust, bool always);
void trust_free(struct trust *trust); /* accepts NULL; no session may be left */

/* Loads them as trust_new would and tells on out what is in them, or on err what is wrong. False:
 * they will not do. True without TLS. */
bool trust_check(const struct config *config, FILE *out, FILE *err);

#endif
