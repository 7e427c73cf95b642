/* softplus(-z) and sigmoid(-z) of an array, z = scale * x - shift, in one pass that compilers turn
 * into vector code: no branch and no call in the loop. Only IEEE additions, multiplications and
 * divisions are used, one rounding each, so every instruction set gives the same bits. Within 3
 * units in the last place.
 *
 * With e = exp(-|x|): softplus(-x) = max(-x, 0) + log1p(e), sigmoid(-x) = (x > 0 ? e : 1) / (1 +
 * e).
 */
#include "math/pf_math.h"

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__) && defined(__gnu_linux__) &&   \
    !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
#define PF_CLONES __attribute__((target_clones("default", "avx2", "avx512f")))
#else
#define PF_CLONES
#endif

static inline double from_bits(uint64_t bits)
{
    double x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

static inline uint64_t to_bits(double x)
{
    uint64_t bits;
    memcpy(&bits, &x, sizeof bits);
    return bits;
}

/* exp(t) for t in [-1500, 0]: t = k log 2 + r with |r| <= log(2)/2, Taylor's polynomial of exp(r)
 * (its rest is below 5e-18), times 2^k. */
static inline double exp_of_negative(double t)
{
    const double magic = 0x1.8p52; /* adding it rounds to an integer, kept in the low bits */
    double shifted = t * 1.44269504088896340735992468100 + magic;
    double k = shifted - magic;
    double r = (t - k * 0x1.62e42fefa3800p-1) - k * 0x1.ef35793c76730p-45; /* log 2 in two parts */
    double p = 1.0 / 6227020800;
    p = p * r + 1.0 / 479001600;
    p = p * r + 1.0 / 39916800;
    p = p * r + 1.0 / 3628800;
    p = p * r + 1.0 / 362880;
    p = p * r + 1.0 / 40320;
    p = p * r + 1.0 / 5040;
    p = p * r + 1.0 / 720;
    p = p * r + 1.0 / 120;
    p = p * r + 1.0 / 24;
    p = p * r + 1.0 / 6;
    p = p * r + 0.5;
    p = 1 + (r + r * r * p);
    /* 2^k as 2^h 2^(k-h), so that subnormal results come out of one final rounding.
     * Halving rounds like the sum above. */
    double half = k * 0.5 + magic;
    double rest = (k - (half - magic)) + magic;
    double scale_a = from_bits((to_bits(half) + 1023) << 52);
    double scale_b = from_bits((to_bits(rest) + 1023) << 52);
    return p * scale_a * scale_b;
}

/* log(1 + e) for e in [0, 1] by 2 atanh(s), s = e / (2 + e); above sqrt(2) - 1 half of 1 + e is
 * taken and log 2 added, so that |s| <= 0.1716 and the series ends at s^23. */
static inline double log1p_of_unit(double e)
{
    int high = e > 0.41421356237309515;
    double s = (high ? e - 1 : e) / (high ? e + 3 : e + 2);
    double q = s * s;
    double p = 1.0 / 23;
    p = p * q + 1.0 / 21;
    p = p * q + 1.0 / 19;
    p = p * q + 1.0 / 17;
    p = p * q + 1.0 / 15;
    p = p * q + 1.0 / 13;
    p = p * q + 1.0 / 11;
    p = p * q + 1.0 / 9;
    p = p * q + 1.0 / 7;
    p = p * q + 1.0 / 5;
    p = p * q + 1.0 / 3;
    double twice = s + s;
    return (high ? PF_LN2 : 0) + (twice + twice * (q * p));
}

PF_CLONES
void pf_logistic(int64_t n, const double *restrict x, double scale, double shift,
                 double *restrict softplus, double *restrict sigmoid)
{
    for (int64_t i = 0; i < n; i++) {
        double z = scale * x[i] - shift, size = fabs(z);
        /* exp underflows to 0 well before; keeps k within the exponent's range. NaN comes back by
         * the last addition. */
        double e = exp_of_negative(size < 1400 ? -size : -1400);
        softplus[i] = (z > 0 ? 0 : -z) + log1p_of_unit(e);
        sigmoid[i] = (z > 0 ? e : 1) / (1 + e) + (z == z ? 0 : z);
    }
}
