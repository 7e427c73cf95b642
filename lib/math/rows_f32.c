/* Row passes over float32 logits.
 *
 * exp: x = n ln 2 + r with |r| <= ln 2 / 2; ln 2 is split so that n times its upper part is exact;
 * exp(r) = 1 + r + r^2 q(r) with q of degree 4, the minimax fit of the relative error over that
 * range (3.1e-9, well below a float's half ulp of 6e-8); 2^n is put into the exponent bits. n is
 * rounded by adding and taking away 1.5 * 2^23, whose low bits then hold it as an integer.
 *
 * Each pass goes through blocks of LANES elements, lane by lane, so that the order of every sum and
 * the bits are the same whatever the vector length. */
#include <float.h>
#include <math.h>

#include "math/pf_rows.h"

enum { LANES = 64 };

#define INLINE static inline __attribute__((always_inline))

INLINE float exp_lane(float x)
{
    const float lowest = -87.0f, round = 12582912.0f;
    float clamped = x > lowest ? x : lowest;
    float shifted = clamped * 1.44269504f + round;
    float n = shifted - round;
    float r = clamped - n * 0.693359375f;
    r = r - n * -2.12194440e-4f;
    float q = 1.38145837e-3f;
    q = q * r + 8.36872403e-3f;
    q = q * r + 4.16683890e-2f;
    q = q * r + 0.166665211f;
    q = q * r + 0.499999940f;
    float value = 1.0f + (r + r * r * q);
    uint32_t bits, power;
    memcpy(&power, &shifted, sizeof power);
    memcpy(&bits, &value, sizeof bits);
    bits += power << 23; /* the constant's own bits are shifted out */
    memcpy(&value, &bits, sizeof value);
    return x > lowest ? value : 0.0f;
}

/* Sum of the lanes by halves. */
INLINE double add_lanes(double *lane)
{
    for (int64_t half = LANES / 2; half > 0; half /= 2)
        for (int64_t l = 0; l < half; l++)
            lane[l] += lane[l + half];
    return lane[0];
}

INLINE bool row_max_body(int64_t n, const float *restrict x, float *restrict max)
{
    float lane[LANES], rest[LANES];
    int32_t bad[LANES];
    for (int64_t l = 0; l < LANES; l++) {
        lane[l] = -INFINITY;
        bad[l] = 0;
        rest[l] = -INFINITY;
    }
    int64_t whole = n / LANES * LANES;
    memcpy(rest, x + whole, (size_t)(n - whole) * sizeof *x);
    for (int64_t i = 0; i <= whole; i += LANES) {
        const float *block = i < whole ? x + i : rest;
        for (int64_t l = 0; l < LANES; l++) {
            bad[l] |= !(block[l] <= FLT_MAX);
            lane[l] = block[l] > lane[l] ? block[l] : lane[l];
        }
    }
    float top = -INFINITY;
    int32_t any = 0;
    for (int64_t l = 0; l < LANES; l++) {
        top = lane[l] > top ? lane[l] : top;
        any |= bad[l];
    }
    *max = top;
    return !any;
}

INLINE bool row_finite_body(int64_t n, const float *restrict x, float *restrict largest)
{
    float lane[LANES], rest[LANES];
    int32_t bad[LANES];
    for (int64_t l = 0; l < LANES; l++) {
        lane[l] = rest[l] = 0;
        bad[l] = 0;
    }
    int64_t whole = n / LANES * LANES;
    memcpy(rest, x + whole, (size_t)(n - whole) * sizeof *x);
    for (int64_t i = 0; i <= whole; i += LANES) {
        const float *block = i < whole ? x + i : rest;
        for (int64_t l = 0; l < LANES; l++) {
            float magnitude = fabsf(block[l]);
            bad[l] |= !(magnitude <= FLT_MAX);
            lane[l] = magnitude > lane[l] ? magnitude : lane[l];
        }
    }
    float top = 0;
    int32_t any = 0;
    for (int64_t l = 0; l < LANES; l++) {
        top = lane[l] > top ? lane[l] : top;
        any |= bad[l];
    }
    *largest = top;
    return !any;
}

INLINE double row_exp_sum_body(int64_t n, const float *x, float max, float scale, float *e)
{
    double lane[LANES];
    float rest[LANES], term[LANES];
    for (int64_t l = 0; l < LANES; l++) {
        lane[l] = 0;
        rest[l] = -INFINITY;
    }
    int64_t whole = n / LANES * LANES;
    memcpy(rest, x + whole, (size_t)(n - whole) * sizeof *x);
    for (int64_t i = 0; i <= whole; i += LANES) {
        const float *block = i < whole ? x + i : rest;
        for (int64_t l = 0; l < LANES; l++)
            term[l] = exp_lane((block[l] - max) * scale);
        for (int64_t l = 0; l < LANES; l++)
            lane[l] += (double)term[l];
        if (e != NULL)
            memcpy(e + i, term, (size_t)(i < whole ? LANES : n - whole) * sizeof *e);
    }
    return add_lanes(lane);
}

INLINE void row_scale_body(int64_t n, float *x, float factor)
{
    for (int64_t i = 0; i < n; i++)
        x[i] *= factor;
}

typedef struct {
    bool (*max)(int64_t, const float *, float *);
    bool (*finite)(int64_t, const float *, float *);
    double (*exp_sum)(int64_t, const float *, float, float, float *);
    void (*scale)(int64_t, float *, float);
} row_kernels;

#define VERSION(name, attributes)                                                                  \
    attributes static bool max_##name(int64_t n, const float *x, float *max)                       \
    {                                                                                              \
        return row_max_body(n, x, max);                                                            \
    }                                                                                              \
    attributes static bool finite_##name(int64_t n, const float *x, float *largest)                \
    {                                                                                              \
        return row_finite_body(n, x, largest);                                                     \
    }                                                                                              \
    attributes static double exp_sum_##name(int64_t n, const float *x, float max, float scale,     \
                                            float *e)                                              \
    {                                                                                              \
        return row_exp_sum_body(n, x, max, scale, e);                                              \
    }                                                                                              \
    attributes static void scale_##name(int64_t n, float *x, float factor)                         \
    {                                                                                              \
        row_scale_body(n, x, factor);                                                              \
    }                                                                                              \
    static const row_kernels name = {max_##name, finite_##name, exp_sum_##name, scale_##name};

VERSION(plain, )

#if defined(__x86_64__)
#define AVX512 "avx512f,avx512dq,avx512bw,avx512vl"
VERSION(avx2, __attribute__((target("avx2"))))
#if defined(__clang__)
VERSION(avx512, __attribute__((target(AVX512))))
#else
VERSION(avx512, __attribute__((target(AVX512 ",prefer-vector-width=512"))))
#endif

static const row_kernels *kernels(void)
{
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
        __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl"))
        return &avx512;
    return __builtin_cpu_supports("avx2") ? &avx2 : &plain;
}
#else
static const row_kernels *kernels(void) { return &plain; }
#endif

bool pf_row_max(int64_t n, const float *x, float *max) { return kernels()->max(n, x, max); }

bool pf_row_finite(int64_t n, const float *x, float *largest)
{
    return kernels()->finite(n, x, largest);
}

double pf_row_exp_sum(int64_t n, const float *x, float max, float scale, float *e)
{
    return kernels()->exp_sum(n, x, max, scale, e);
}

void pf_row_scale(int64_t n, float *x, float factor) { kernels()->scale(n, x, factor); }

int64_t pf_row_find_bad(int64_t n, const float *x)
{
    int64_t i = 0;
    while (i < n && x[i] <= FLT_MAX)
        i++;
    return i;
}
