/* hashed - uthash as this room uses it: keys that strangers choose get a keyed hash, and running
 * out of memory is an answer (hh.tbl is NULL after an addition that failed) and not an exit. */
#ifndef CLIENT_HASHED_H
#define CLIENT_HASHED_H

#include "base/hash.h"

#define HASH_NONFATAL_OOM 1
#define HASH_FUNCTION(key, len, hashv) ((hashv) = hash_keyed((key), (len)))
#include <uthash.h>

#endif
