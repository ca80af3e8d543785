/* hash - FNV-1a with a finalizer for the wire, SipHash-1-3 for our own tables.
 *
 * SipHash: Aumasson and Bernstein, "SipHash: a fast short-input PRF"; one round per word and three
 * at the end are what other languages' tables settled on against chosen keys. */
#include "base/hash.h"
#include <endian.h>
#include <pthread.h>
#include <string.h>
#include "base/random.h"

static uint64_t fnv1a(uint64_t h, const char *data, size_t len)
{
    for (size_t i = 0; i < len; i++)
        h = (h ^ (uint8_t)data[i]) * 0x100000001b3u;
    return h;
}

uint64_t hash_entry(const char *name, size_t name_len, const char *backend, size_t backend_len,
                    unsigned flags)
{
    const char end[2] = {'\0', (char)flags};
    uint64_t h = fnv1a(0xcbf29ce484222325u, name, name_len);

    h = fnv1a(h, "", 1); /* the zero byte: "ab" + "c" is not "a" + "bc" */
    h = fnv1a(h, backend, backend_len);
    if (flags)
        h = fnv1a(h, end, sizeof(end));
    h ^= h >> 33;
    h *= 0xff51afd7ed558ccdu;
    h ^= h >> 33;
    h *= 0xc4ceb9fe1a85ec53u;
    h ^= h >> 33;
    return h;
}

static inline uint64_t rotl(uint64_t x, int bits) { return x << bits | x >> (64 - bits); }

static inline void sip_round(uint64_t v[4])
{
    v[0] += v[1];
    v[1] = rotl(v[1], 13) ^ v[0];
    v[0] = rotl(v[0], 32);
    v[2] += v[3];
    v[3] = rotl(v[3], 16) ^ v[2];
    v[0] += v[3];
    v[3] = rotl(v[3], 21) ^ v[0];
    v[2] += v[1];
    v[1] = rotl(v[1], 17) ^ v[2];
    v[2] = rotl(v[2], 32);
}

uint64_t hash_sip13(const uint64_t key[2], const void *data, size_t len)
{
    uint64_t v[4] = {key[0] ^ 0x736f6d6570736575u, key[1] ^ 0x646f72616e646f6du,
                     key[0] ^ 0x6c7967656e657261u, key[1] ^ 0x7465646279746573u};
    const uint8_t *at = data;
    uint64_t word;

    for (size_t left = len / 8; left > 0; left--, at += 8) {
        memcpy(&word, at, 8);
        word = le64toh(word);
        v[3] ^= word;
        sip_round(v);
        v[0] ^= word;
    }
    word = (uint64_t)len << 56;
    for (size_t i = 0; i < len % 8; i++)
        word |= (uint64_t)at[i] << (8 * i);
    v[3] ^= word;
    sip_round(v);
    v[0] ^= word;
    v[2] ^= 0xff;
    sip_round(v);
    sip_round(v);
    sip_round(v);
    return v[0] ^ v[1] ^ v[2] ^ v[3];
}

static uint64_t process_key[2];
static pthread_once_t process_key_once = PTHREAD_ONCE_INIT;

static void draw_key(void) { random_bytes(process_key, sizeof(process_key)); }

unsigned hash_keyed(const void *key, size_t len)
{
    pthread_once(&process_key_once, draw_key);
    return (unsigned)hash_sip13(process_key, key, len);
}
