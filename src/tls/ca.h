/* ca - a small certificate authority in a folder, for a mesh that has no other.
 *
 *   ca.pem, ca-key.pem      the CA and its key (P-256)
 *   crl.pem                 what it has revoked
 *   NODE.pem, NODE-key.pem  what was issued last for a node, to be copied to it
 *   issued/SERIAL.pem       every certificate ever issued: what `revoke` and `show` look through
 *
 * All is PEM as every tool knows it; nothing here is a format of our own. Files are for their owner
 * only (0600), and are written under another name, to the disk, and then renamed. The folder is
 * locked (flock) while it is open. The list of revoked ones is good for as long as the CA: nobody
 * has to renew it in time for the mesh to go on. Keys have no passphrase.
 *
 * Threads: one at a time per struct ca.
 * Failure: a negative errno, and what to do about it in out_why; nothing that was issued before is
 *          lost.
 */
#ifndef TLS_CA_H
#define TLS_CA_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "tls/tls.h"

#define CA_DAYS 3650u     /* how long a CA lasts unless it is said ... */
#define CA_NODE_DAYS 365u /* ... and a node's certificate, which never outlives it */
#define CA_DAYS_MAX 36500u

struct ca;

struct ca_cert { /* a certificate, for people */
    char subject[128], issuer[128];
    char names[LIMIT_CERT_NAMES][LIMIT_PEER_ID + 1]; /* as struct tls_peer */
    char serial[41];                                 /* upper case hex */
    char fingerprint[65];
    int64_t not_before, not_after; /* unix seconds */
    int64_t revoked_at;            /* 0: it is not, as far as is known here */
    bool is_ca;
};

/* Makes the folder, if it is not there, and a CA in it. -EEXIST: there is one already. */
int ca_init(const char *dir, unsigned days, char out_why[TLS_WHY]);
/* -ENOENT: no CA is there. */
int ca_open(const char *dir, char out_why[TLS_WHY], struct ca **out_ca);
void ca_close(struct ca *ca); /* accepts NULL */

/* Whether a node of this name can have files here: a peer id, and not the name of another file. */
bool ca_node_valid(const char *node);
/* A fresh key and certificate for names[0], which may be called by the others too; at most
 * LIMIT_CERT_NAMES. What it had before stays good until it ends or is revoked. -EINVAL: a name that
 * cannot be, -EKEYEXPIRED: the CA has ended. */
int ca_issue(struct ca *ca, const char *const *names, size_t n_names, unsigned days,
             char out_why[TLS_WHY], struct ca_cert *out_cert);
/* Every certificate that has ever been issued for node, or else the one of this serial (hex), goes
 * on the list, but those that have ended. *out_n of them were not on it. -ENOENT: none was issued.
 */
int ca_revoke(struct ca *ca, const char *node, const char *serial, char out_why[TLS_WHY],
              unsigned *out_n);
/* The CA first, then all that it issued, oldest first; free(*out_certs). */
int ca_list(struct ca *ca, char out_why[TLS_WHY], struct ca_cert **out_certs, size_t *out_n);
/* What certificates are in a file, whoever issued them; free(*out_certs). */
int ca_look(const char *path, char out_why[TLS_WHY], struct ca_cert **out_certs, size_t *out_n);

#endif
