/* For tests of the float32 kernels: this program's pf_cpu_level takes the place of the library's
 * (cpu_level.c is a file of its own, so the linker leaves it in the archive), and every level that
 * the CPU has can be tried. */
#ifndef PF_TEST_LEVELS_H
#define PF_TEST_LEVELS_H

#include "pf_test.h"

#include "math/pf_lanes.h"

static int32_t level;

int32_t pf_cpu_level(void) { return level; }

static inline int32_t best_level(void)
{
#if defined(__x86_64__)
    if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma"))
        return PF_CPU_PLAIN;
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
        __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl"))
        return PF_CPU_AVX512;
    return PF_CPU_AVX2;
#else
    return PF_CPU_PLAIN;
#endif
}

#define EACH_LEVEL for (level = 0; level <= best_level(); level++)

/* n normal numbers times scale; the next 16 floats are NaN, so that nothing may read them into a
 * result, and can be checked to stay. */
enum { GUARD = 16 };

static inline float *floats(int64_t n, double scale, uint64_t stream)
{
    double *x = malloc((size_t)(n > 0 ? n : 1) * sizeof *x);
    float *f = malloc((size_t)(n + GUARD) * sizeof *f);
    OK(prefopt_random_normal(13, stream, 0, n, x));
    for (int64_t i = 0; i < n; i++)
        f[i] = (float)(scale * x[i]);
    for (int64_t i = n; i < n + GUARD; i++)
        f[i] = NAN;
    free(x);
    return f;
}

static inline void check_guard(const float *f, int64_t n)
{
    for (int64_t i = n; i < n + GUARD; i++)
        ck_assert_msg(isnan(f[i]), "element %d past the end was written", (int)(i - n));
}

static inline float *copy_of(const float *f, int64_t n)
{
    float *c = malloc((size_t)(n + GUARD) * sizeof *c);
    memcpy(c, f, (size_t)(n + GUARD) * sizeof *c);
    return c;
}

#define SAME_BITS(a, b, n)                                                                         \
    ck_assert_msg((n) == 0 || memcmp(a, b, (size_t)(n) * sizeof *(a)) == 0,                        \
                  "%s and %s differ in their bits at level %d", #a, #b, (int)level)

/* |a - b| <= tolerance max(|b|, scale) */
#define NEAR(a, b, tolerance, scale)                                                               \
    do {                                                                                           \
        double a_ = (a), b_ = (b), s_ = (scale);                                                   \
        if (!(fabs(a_ - b_) <= (tolerance)*fmax(fabs(b_), s_)))                                    \
            ck_abort_msg("%s = %.9g, expected %.9g (within %g, scale %g) at level %d", #a, a_, b_, \
                         (double)(tolerance), s_, (int)level);                                     \
    } while (0)

#endif
