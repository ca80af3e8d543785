/* table - uthash as this room uses it: keys that strangers choose get a keyed hash, and running out
 * of memory is an answer (hh.tbl stays NULL), not an exit. */
#ifndef NODE_TABLE_H
#define NODE_TABLE_H

#include "base/hash.h"
#define HASH_NONFATAL_OOM 1
#define HASH_FUNCTION(key, len, hashv) ((hashv) = hash_keyed((key), (len)))
#include <uthash.h>

#endif
