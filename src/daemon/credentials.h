/* credentials - the node's own certificate and whom it lets in: the files of tls.ca, tls.cert,
 * tls.key and tls.crl, loaded at the start and again whenever they change.
 *
 * What happens to them is told here: what is in force, what will not do and why, what ends soon.
 * Main loop only, but for credentials_keeper's keeper.
 */
#ifndef DAEMON_CREDENTIALS_H
#define DAEMON_CREDENTIALS_H

#include <stdbool.h>
#include "daemon/config.h"
#include "tls/tls.h"

struct credentials;

/* Loads the files that config names. 0, and what was loaded was told; or a negative errno, and why
 * was told. Without TLS in the settings *out_credentials is NULL. */
int credentials_new(const struct config *config, struct credentials **out_credentials);
/* NULL for NULL: plaintext. Borrowed until credentials_free. */
struct tls_keeper *credentials_keeper(struct credentials *c);
/* Every so often: reads the files again if one of them is another than it was, and once a day tells
 * of what ends soon. always: reads them in any case, as somebody asked for it. True: there is other
 * material in force now, so who is connected has to be looked at again. c may be NULL. */
bool credentials_look(struct credentials *c, bool always);
/* Reads them because somebody asked: 1, there is other material in force now; 0, nothing is
 * different, or c is NULL; -EINVAL, they will not do, all is as it was, and out_why says why. Told,
 * too. */
int credentials_reload(struct credentials *c, char out_why[TLS_WHY]);
/* Warns of files that this process cannot read any more, now that it is another user. NULL:
 * nothing. */
void credentials_confined(const struct credentials *c);
/* Tells how many lines that nothing is different were left out; now and then. */
void credentials_left_out(uint64_t now_ms);
void credentials_free(struct credentials *c); /* accepts NULL; no session may be left */

/* As struct config_judge has it: would a node start with them, or (c) go on with them, under
 * the name that it has now, if they are those that it has? */
void credentials_judge(const struct credentials *c, const struct config *config,
                       struct tls_fault out_faults[N_TLS_FILES]);

/* Loads them as credentials_new would and tells on out what is in them, or on err what is wrong.
 * False: they will not do. True without TLS. */
bool credentials_check(const struct config *config, FILE *out, FILE *err);

#endif
