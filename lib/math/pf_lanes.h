/* What the float32 kernels of this room share: one body of plain C for each kernel, made into a
 * version for each level of x86-64 (elsewhere the compiler's own vectors do), and the best that the
 * CPU has taken at run time.
 *
 * Bodies go through blocks of PF_LANES elements, lane by lane, so that the order of every sum is
 * the same whatever the vector length; nothing is contracted, so every version gives the same
 * bits. */
#ifndef PF_LANES_H
#define PF_LANES_H

#include "base/pf_base.h"

enum { PF_LANES = 64 };

#define PF_INLINE static inline __attribute__((always_inline))

/* ---- levels */

enum { PF_CPU_PLAIN = 0, PF_CPU_AVX2 = 1 /* and FMA */, PF_CPU_AVX512 = 2 };

/* The best level that CPU and operating system have (cpu_level.c). */
int32_t pf_cpu_level(void);

#if defined(__x86_64__)
#define PF_AVX2 __attribute__((target("avx2,fma")))
#if defined(__clang__)
#define PF_AVX512 __attribute__((target("avx512f,avx512dq,avx512bw,avx512vl,avx2,fma")))
#else
#define PF_AVX512                                                                                  \
    __attribute__((target("avx512f,avx512dq,avx512bw,avx512vl,avx2,fma,prefer-vector-width=512")))
#endif

/* pf_NAME, which calls the version of NAME_body for the CPU. PF_KERNEL_OF: one that returns. */
#define PF_KERNEL(name, parameters, arguments)                                                     \
    static void name##_plain parameters { name##_body arguments; }                                 \
    PF_AVX2 static void name##_avx2 parameters { name##_body arguments; }                          \
    PF_AVX512 static void name##_avx512 parameters { name##_body arguments; }                      \
    void pf_##name parameters                                                                      \
    {                                                                                              \
        int32_t level_ = pf_cpu_level();                                                           \
        if (level_ == PF_CPU_AVX512)                                                               \
            name##_avx512 arguments;                                                               \
        else if (level_ == PF_CPU_AVX2)                                                            \
            name##_avx2 arguments;                                                                 \
        else                                                                                       \
            name##_plain arguments;                                                                \
    }
#define PF_KERNEL_OF(type, name, parameters, arguments)                                            \
    static type name##_plain parameters { return name##_body arguments; }                          \
    PF_AVX2 static type name##_avx2 parameters { return name##_body arguments; }                   \
    PF_AVX512 static type name##_avx512 parameters { return name##_body arguments; }               \
    type pf_##name parameters                                                                      \
    {                                                                                              \
        int32_t level_ = pf_cpu_level();                                                           \
        if (level_ == PF_CPU_AVX512)                                                               \
            return name##_avx512 arguments;                                                        \
        return level_ == PF_CPU_AVX2 ? name##_avx2 arguments : name##_plain arguments;             \
    }
#else
#define PF_KERNEL(name, parameters, arguments)                                                     \
    void pf_##name parameters { name##_body arguments; }
#define PF_KERNEL_OF(type, name, parameters, arguments)                                            \
    type pf_##name parameters { return name##_body arguments; }
#endif

/* ---- one lane */

PF_INLINE uint32_t pf_bits(float x)
{
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    return bits;
}

PF_INLINE float pf_from_bits(uint32_t bits)
{
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

/* exp(x - tail), |tail| <= 0.1, to 2e-7; 0 where x is below -87 or NaN; x up to 88.
 *
 * x = n ln 2 + r with |r| <= ln 2 / 2; ln 2 is split so that n times its upper part is exact;
 * exp(r) = 1 + r + r^2 q(r) with q of degree 4, the minimax fit of the relative error over that
 * range (3.1e-9, well below a float's half ulp of 6e-8); 2^n is put into the exponent bits. n is
 * rounded by adding and taking away 1.5 * 2^23, whose low bits then hold it as an integer. */
PF_INLINE float pf_exp_lane_tail(float x, float tail)
{
    const float lowest = -87.0f, round = 12582912.0f;
    float clamped = x > lowest ? x : lowest;
    float shifted = clamped * 1.44269504f + round;
    float n = shifted - round;
    float r = clamped - n * 0.693359375f;
    r = r - (n * -2.12194440e-4f + tail);
    float q = 1.38145837e-3f;
    q = q * r + 8.36872403e-3f;
    q = q * r + 4.16683890e-2f;
    q = q * r + 0.166665211f;
    q = q * r + 0.499999940f;
    float value = 1.0f + (r + r * r * q);
    /* the constant's own bits are shifted out */
    value = pf_from_bits(pf_bits(value) + (pf_bits(shifted) << 23));
    return x > lowest ? value : 0.0f;
}

PF_INLINE float pf_exp_lane(float x) { return pf_exp_lane_tail(x, 0.0f); }

/* Sum of the lanes by halves; steps of constant length, which compilers keep in registers. */
PF_INLINE double pf_add_lanes(double *lane)
{
    for (int64_t l = 0; l < 32; l++)
        lane[l] += lane[l + 32];
    for (int64_t l = 0; l < 16; l++)
        lane[l] += lane[l + 16];
    for (int64_t l = 0; l < 8; l++)
        lane[l] += lane[l + 8];
    double a = lane[0] + lane[4], b = lane[1] + lane[5];
    double c = lane[2] + lane[6], d = lane[3] + lane[7];
    return (a + c) + (b + d);
}

#endif
