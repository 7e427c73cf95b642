/* Counter-based draws: Philox 4x32-10 of Random123. Counter = (index, stream), key = seed. */
#include <math.h>

#include <Random123/philox.h>

#include "base/pf_base.h"

static void philox(uint64_t seed, uint64_t stream, uint64_t index, uint64_t word[2])
{
    philox4x32_ctr_t counter = {
        {(uint32_t)index, (uint32_t)(index >> 32), (uint32_t)stream, (uint32_t)(stream >> 32)}};
    philox4x32_key_t key = {{(uint32_t)seed, (uint32_t)(seed >> 32)}};
    philox4x32_ctr_t block = philox4x32(counter, key);
    word[0] = (uint64_t)block.v[1] << 32 | block.v[0];
    word[1] = (uint64_t)block.v[3] << 32 | block.v[2];
}

/* The middle of one of 2^52 equal cells of (0, 1): never 0, never 1, no rounding. */
static double open_unit(uint64_t word) { return ((double)(word >> 12) + 0.5) * 0x1p-52; }

double pf_uniform(uint64_t seed, uint64_t stream, uint64_t index)
{
    uint64_t word[2];
    philox(seed, stream, index, word);
    return open_unit(word[0]);
}

double pf_normal(uint64_t seed, uint64_t stream, uint64_t index)
{
    uint64_t word[2];
    philox(seed, stream, index, word);
    return sqrt(-2.0 * log(open_unit(word[0]))) * cos(6.283185307179586477 * open_unit(word[1]));
}

int64_t pf_uniform_int(uint64_t seed, uint64_t stream, uint64_t index, int64_t n)
{
    uint64_t word[2];
    philox(seed, stream, index, word);
    /* floor(word * n / 2^64), the high half of a 128-bit product, from 32-bit halves. */
    uint64_t m = (uint64_t)n, low = (word[0] & 0xffffffff) * m, high = (word[0] >> 32) * m;
    if (m <= UINT32_MAX)
        return (int64_t)((high + (low >> 32)) >> 32);
    return (int64_t)(word[0] % m);
}

uint64_t pf_stream(uint64_t a, uint64_t b)
{
    uint64_t z = a * UINT64_C(0x9e3779b97f4a7c15) + b + UINT64_C(0x632be59bd9b4e019);
    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return z ^ (z >> 31);
}

void pf_permutation(uint64_t seed, uint64_t stream, int64_t n, int64_t *order)
{
    for (int64_t i = 0; i < n; i++)
        order[i] = i;
    for (int64_t i = n - 1; i > 0; i--) {
        int64_t j = pf_uniform_int(seed, stream, (uint64_t)i, i + 1);
        int64_t swap = order[i];
        order[i] = order[j];
        order[j] = swap;
    }
}

uint64_t pf_hash(uint64_t hash, const void *bytes, size_t n)
{
    const unsigned char *p = bytes;
    for (size_t i = 0; i < n; i++)
        hash = (hash ^ p[i]) * UINT64_C(0x100000001b3);
    return hash;
}

int32_t prefopt_random_uniform(uint64_t seed, uint64_t stream, uint64_t first, int64_t n,
                               double *out)
{
    if (n < 0)
        return pf_fail(PREFOPT_ERR_ARGUMENT, "n is %lld, expected at least 0", (long long)n);
    if (n > 0)
        PF_REQUIRE(out);
    for (int64_t i = 0; i < n; i++)
        out[i] = pf_uniform(seed, stream, first + (uint64_t)i);
    return PREFOPT_OK;
}

int32_t prefopt_random_normal(uint64_t seed, uint64_t stream, uint64_t first, int64_t n,
                              double *out)
{
    if (n < 0)
        return pf_fail(PREFOPT_ERR_ARGUMENT, "n is %lld, expected at least 0", (long long)n);
    if (n > 0)
        PF_REQUIRE(out);
    for (int64_t i = 0; i < n; i++)
        out[i] = pf_normal(seed, stream, first + (uint64_t)i);
    return PREFOPT_OK;
}
