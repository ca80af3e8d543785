/* hash - the entry hash of the wire contract, and a keyed hash for tables whose keys strangers
 * choose.
 */
#ifndef BASE_HASH_H
#define BASE_HASH_H

#include <stddef.h>
#include <stdint.h>

/* What is told of an entry beside its name and backend. */
enum entry_flag { ENTRY_UNHEALTHY = 1, ENTRY_DRAINING = 2 };

/* The hash of one offered entry; a list's digest is the sum of these modulo 2^64, so it does not
 * depend on their order. FNV-1a (64 bit) over name, one zero byte, backend, and only if an entry
 * has a flag, one zero byte more and one byte with the flags; then the finalizer of MurmurHash3:
 * h ^= h >> 33, h *= 0xff51afd7ed558ccd, h ^= h >> 33, h *= 0xc4ceb9fe1a85ec53, h ^= h >> 33.
 * Every implementation of the protocol computes exactly this. flags: of enum entry_flag. */
uint64_t hash_entry(const char *name, size_t name_len, const char *backend, size_t backend_len,
                    unsigned flags);

/* SipHash-1-3 under a key drawn once per process: a stranger cannot aim at one bucket. The same
 * bytes give the same value for the life of the process. */
unsigned hash_keyed(const void *key, size_t len);

/* SipHash-1-3 itself; the key is its two words. */
uint64_t hash_sip13(const uint64_t key[2], const void *data, size_t len);

#endif
