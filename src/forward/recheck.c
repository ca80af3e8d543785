/* recheck - see recheck.h. */
#include "forward/recheck.h"

#include <string.h>
#include "base/clock.h"
#include "forward/inside.h"
#include "tls/tls.h"

#define LATE_MS 60000u /* no handshake and no gate takes longer to hand a connection over */

static bool is_in(struct leg *leg)
{
    enum tls_failure failure;

    return tls_check_again(leg->tls, &failure) == 0;
}

bool recheck_leg(struct recheck *recheck, struct leg *leg)
{
    const char *fingerprint;
    bool in;

    if (!leg->tls)
        return true;
    fingerprint = tls_peer(leg->tls)->fingerprint;
    for (size_t i = 0; i < recheck->n; i++)
        if (strcmp(recheck->known[i].fingerprint, fingerprint) == 0)
            return recheck->known[i].in;
    in = is_in(leg);
    if (recheck->n < RECHECK_CERTIFICATES) {
        memcpy(recheck->known[recheck->n].fingerprint, fingerprint, strlen(fingerprint) + 1);
        recheck->known[recheck->n++].in = in;
    }
    return in;
}

bool recheck_late(struct worker *worker, struct leg *leg)
{
    uint64_t changed_ms = atomic_load(&worker->forward->changed_ms);

    if (!leg->tls || changed_ms == 0 || clock_ms() >= changed_ms + LATE_MS || is_in(leg))
        return true;
    COUNT(worker, data_revoked, 1);
    return false;
}
