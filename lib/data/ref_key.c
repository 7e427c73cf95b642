/* The key of a row's reference log-probabilities: a one-to-one mix of the reference's hash xor that
 * of the row, and the way back. */
#include "data/pf_data.h"

uint64_t pf_row_hash(const prefopt_sequences *in, int64_t first, int64_t end)
{
    uint64_t hash = pf_stream(PF_HASH_START, (uint64_t)(end - first));
    for (int64_t i = first; i < end; i++)
        hash = pf_stream(hash, pf_sequence_hash(pf_sequence_tokens(in, i), pf_sequence_len(in, i),
                                                in->prompt_len[i]));
    return hash;
}

static const uint64_t odd1 = UINT64_C(0xbf58476d1ce4e5b9), odd2 = UINT64_C(0x94d049bb133111eb);

uint64_t pf_ref_key(uint64_t reference, uint64_t row_hash)
{
    uint64_t z = reference ^ row_hash;
    z = (z ^ (z >> 30)) * odd1;
    z = (z ^ (z >> 27)) * odd2;
    return z ^ (z >> 31);
}

/* Of an odd number modulo 2^64: each step of Newton's doubles the bits that are right, from 3. */
static uint64_t inverse(uint64_t odd)
{
    uint64_t x = odd;
    for (int32_t k = 0; k < 5; k++)
        x *= 2 - odd * x;
    return x;
}

/* Undoes z ^ (z >> s). */
static uint64_t unshift(uint64_t z, int32_t s)
{
    uint64_t x = z;
    for (int32_t done = s; done < 64; done += s)
        x = z ^ (x >> s);
    return x;
}

uint64_t pf_ref_key_reference(uint64_t key, uint64_t row_hash)
{
    uint64_t z = unshift(key, 31) * inverse(odd2);
    z = unshift(z, 27) * inverse(odd1);
    return unshift(z, 30) ^ row_hash;
}
