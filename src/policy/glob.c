/* glob - patterns of peer ids and names. */
#include "policy/policy.h"

/* Only the last * is ever tried again: what an earlier one could take instead, the last can. */
bool policy_glob(const char *glob, const char *text)
{
    const char *star = NULL, *from = NULL; /* the last *, and where the text behind it began */

    while (*text) {
        if (*glob == '*') {
            star = glob++;
            from = text;
        } else if (*glob == '?' || *glob == *text) {
            glob++;
            text++;
        } else if (star) {
            glob = star + 1;
            text = ++from;
        } else {
            return false;
        }
    }
    while (*glob == '*')
        glob++;
    return *glob == '\0';
}
