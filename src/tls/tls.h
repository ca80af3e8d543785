/* tls - TLS 1.3 (RFC 8446) between nodes, and between programs and nodes: both sides show a
 * certificate of one CA, and who somebody is stands there as a DNS name (RFC 5280 4.2.1.6).
 *
 * A keeper holds the files and what was made of them last; sessions are made from it. When the
 * files change it is told to read them again: sessions that run go on, new ones use the new
 * material, and tls_check_again says of an old one whether it would still be let in. Files that are
 * broken change nothing.
 *
 * Always: TLS 1.3 only, no early data, ALPN "meshd/1" (RFC 7301) said and demanded, no
 * renegotiation. Sessions to a peer id that is expected may be resumed (RFC 8446 2.2): tickets are
 * good for an hour, only with the material they were made under, and never past the end of the
 * certificate they stand for.
 *
 * Threads:     a keeper: any, side by side. A session: one at a time; it may move from one to
 *              another.
 * Descriptors: stay the caller's, connected and non-blocking; only this room reads and writes them
 *              between tls_new and tls_free, which says nothing on them.
 * Failure:     a negative errno; what it means for people is in the text beside it. No secret and
 *              no file's content is ever part of one.
 */
#ifndef TLS_TLS_H
#define TLS_TLS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include "base/limits.h"

#define TLS_WHY 256u /* bytes of a text that says why, with its NUL */

struct tls_keeper;
struct tls;

/* ---- the keeper ---- */

struct tls_settings { /* PEM files; paths are copied */
    const char *ca;   /* one or more certificates that are trusted; each ends a chain, self-signed
                         or not. NULL or "" only with no_verify */
    const char *cert; /* own, then intermediate ones */
    const char *key;  /* of the first of them */
    const char *crl;  /* NULL or "": none. Else a list of every CA (RFC 5280 5); one that is past
                         its nextUpdate lets nobody in */
    const char *self; /* a peer id that the own certificate must name, and then it must serve both
                         roles; NULL or "": any */
    bool no_verify;   /* whoever answers is taken: for a person who tries something out */
    bool offload;     /* the kernel encrypts what is sent, if it can (kTLS). Its key is then never
                         changed: who asks for a new one is heard, and the old one is used on */
};
/* 0; -ENOENT, -EACCES ... of a file; -EBADMSG: a file's content; -EINVAL: they do not fit together
 * (another key, no such name, expired), or OpenSSL is set up so that it will not do. out_why says
 * which file and what to do; written only on failure. */
int tls_keeper_new(const struct tls_settings *settings, char out_why[TLS_WHY],
                   struct tls_keeper **out_keeper);
void tls_keeper_free(struct tls_keeper *keeper); /* accepts NULL; no session may be left */
/* Reads the files again. 0: new sessions use what is there now; 1: nothing is different; else as
 * tls_keeper_new, and all stays as it was. The own certificate in force may have expired: what else
 * is new is taken all the same. */
int tls_keeper_reload(struct tls_keeper *keeper, char out_why[TLS_WHY]);

enum tls_file { TLS_FILE_CA, TLS_FILE_CERT, TLS_FILE_KEY, TLS_FILE_CRL, N_TLS_FILES };
struct tls_fault {
    int error; /* 0: none; else as tls_keeper_new */
    char why[TLS_WHY];
};
/* Looks into the files as tls_keeper_new does, and says of each what is wrong with it first. One
 * that settings do not name is passed over. in_force: as tls_keeper_reload of that keeper would
 * take them; or NULL. */
void tls_files_check(const struct tls_settings *settings, struct tls_keeper *in_force,
                     struct tls_fault out_faults[N_TLS_FILES]);

struct tls_material { /* what is in force, for people */
    char subject[128], issuer[128];
    char names[LIMIT_CERT_NAMES][LIMIT_PEER_ID + 1]; /* as struct tls_peer */
    char fingerprint[65];          /* SHA-256 of the certificate, lower case hex */
    int64_t not_before, not_after; /* unix seconds */
    int64_t crl_next_update;       /* 0: no CRL, or none said */
    unsigned n_cas, n_revoked;
    bool key_exposed; /* its group or others may read the key's file: worth a warning */
    uint64_t loads;   /* 1, and one more for each reload that changed something */
};
void tls_keeper_material(struct tls_keeper *keeper, struct tls_material *out_material);

/* ---- a session ---- */

enum tls_role { TLS_ACCEPT, TLS_CONNECT };
/* expect: a peer id that the other side's certificate must name; "": any. For TLS_CONNECT with one
 * and resume, the session may be a resumed one. 0, -ENOMEM. */
int tls_new(struct tls_keeper *keeper, enum tls_role role, int fd, const char *expect, bool resume,
            struct tls **out_tls);
void tls_free(struct tls *tls); /* accepts NULL */

/* What the last call waits for, if it said -EAGAIN, of the descriptor. */
enum { TLS_READABLE = 1, TLS_WRITABLE = 2 };
int tls_wants(const struct tls *tls);

/* 0: done, both sides are known. -EAGAIN. -EACCES: who is there may not in (tls_failure says how);
 * -EPROTO: what is there is no TLS 1.3 of ours, or it refused us; -ECONNRESET and others of the
 * descriptor. A dialler may learn of its being refused only from its first tls_read.
 * Whoever is refused is told by an alert, which a close with bytes unread would take back (TCP's
 * reset): shutdown(2) and read what comes, for a moment, if it shall arrive. */
int tls_handshake(struct tls *tls);

enum tls_failure {
    TLS_OK,
    TLS_NO_CERTIFICATE, /* it showed none */
    TLS_UNTRUSTED,      /* of no CA that is trusted here, or not for this use */
    TLS_EXPIRED,        /* or not valid yet; or the CRL is too old */
    TLS_REVOKED,
    TLS_IDENTITY, /* does not name the peer id expected */
    TLS_REFUSED,  /* the other side says so of us, by an alert */
    TLS_BROKEN,   /* anything else: not TLS, another version, no common ALPN */
    N_TLS_FAILURES
};
enum tls_failure tls_failure(const struct tls *tls);
const char *tls_why(const struct tls *tls); /* one clause for people; "" while nothing failed */

/* Who is there, after the handshake: the DNS names of its certificate that could be peer ids, in
 * their order and their very spelling, wildcards left out, at most LIMIT_CERT_NAMES. */
struct tls_peer {
    char names[LIMIT_CERT_NAMES][LIMIT_PEER_ID + 1]; /* "" ends */
    char fingerprint[65];
    int64_t not_after;
    bool resumed;
};
const struct tls_peer *tls_peer(const struct tls *tls); /* borrowed from it */
bool tls_names(const struct tls_peer *peer, const char *peer_id);

/* Bytes. > 0; 0: the other side has ended in order (close_notify), which with what comes behind is
 * a half-close as TCP's FIN; -EAGAIN: see tls_wants; -ECONNRESET: cut off, also by a FIN without
 * close_notify; -EPROTO, and tls_why. */
ssize_t tls_read(struct tls *tls, void *data, size_t len);
/* tls_read may give bytes although the descriptor has none: ask before waiting for it. What is not
 * whole yet counts until a tls_read has said so. */
bool tls_pending(const struct tls *tls);
/* > 0: so many were taken, maybe fewer than len. -EAGAIN: offer the same bytes again (at the same
 * place or another, and more behind them if there are more). */
ssize_t tls_write(struct tls *tls, const void *data, size_t len);
/* Says close_notify: nothing is written afterwards; reading goes on. 0, -EAGAIN (again), or the
 * error. Not after a tls_write that said -EAGAIN and was not repeated, nor
 * before the handshake is over: -EBUSY. The descriptor is
 * not shut down: shutdown(2) after it if that is meant. */
int tls_end(struct tls *tls);

/* Whether the kernel encrypts what is sent (kTLS): then plain bytes may be written and spliced to
 * the descriptor itself, once the handshake is over and until tls_end. */
bool tls_offloaded(const struct tls *tls);
/* Would it be let in with what the keeper has now? Time is not looked at: a link does not end
 * because a certificate does. 0; -EACCES, with *out_failure; -ENOMEM: nobody knows. Any time after
 * the handshake. */
int tls_check_again(struct tls *tls, enum tls_failure *out_failure);

#endif
