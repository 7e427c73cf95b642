/* A hash of much memory: which content this is, at the speed of reading it.
 *
 * The bytes are cut into chunks that the context's threads take, and each chunk's number depends on
 * its bytes alone. Four lanes a chunk, since one multiplication waits for the one before. */
#include "base/pf_base.h"

enum { CHUNK = 1 << 20, ROUND = 64, LANES = 4, BLOCK = LANES * 8 };

#define MULTIPLIER UINT64_C(0x9e3779b97f4a7c15)
#define STIRRER UINT64_C(0xbf58476d1ce4e5b9)

static uint64_t take(uint64_t lane, uint64_t word)
{
    lane += word * STIRRER;
    lane = lane << 31 | lane >> 33;
    return lane * MULTIPLIER;
}

static uint64_t hash_chunk(const unsigned char *bytes, int64_t n)
{
    uint64_t lane[LANES] = {1, 2, 3, 4}, word[LANES];
    int64_t at = 0;
    for (; at + BLOCK <= n; at += BLOCK) {
        memcpy(word, bytes + at, sizeof word);
        for (int32_t i = 0; i < LANES; i++)
            lane[i] = take(lane[i], word[i]);
    }
    memset(word, 0, sizeof word);
    if (at < n)
        memcpy(word, bytes + at, (size_t)(n - at));
    uint64_t hash = (uint64_t)n;
    for (int32_t i = 0; i < LANES; i++)
        hash = pf_stream(hash, take(lane[i], word[i]));
    return hash;
}

typedef struct {
    const unsigned char *bytes;
    int64_t n, first; /* chunk of task 0 */
    uint64_t hash[ROUND];
} work;

static void task(void *payload, int64_t i)
{
    work *w = payload;
    int64_t start = (w->first + i) * CHUNK, n = w->n - start < CHUNK ? w->n - start : CHUNK;
    w->hash[i] = hash_chunk(w->bytes + start, n);
}

uint64_t pf_content_hash(prefopt_context *context, uint64_t hash, const void *bytes, int64_t n)
{
    work w = {.bytes = bytes, .n = n};
    int64_t n_chunks = n / CHUNK + (n % CHUNK != 0);
    hash = pf_stream(hash, (uint64_t)n);
    for (; w.first < n_chunks; w.first += ROUND) {
        int64_t part = n_chunks - w.first < ROUND ? n_chunks - w.first : ROUND;
        pf_parallel_for(context, part, task, &w);
        for (int64_t i = 0; i < part; i++)
            hash = pf_stream(hash, w.hash[i]);
    }
    return hash;
}
