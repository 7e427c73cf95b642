/* float32 from and to the two 16-bit formats, by their bits alone, so that no setting of the
 * floating-point unit (flush to zero) can matter. */
#include "math/pf_lanes.h"
#include "math/pf_ops.h"

/* Exponents differ by 112. A subnormal half m 2^-24 is (1 + m 2^-10) 2^-14 - 2^-14. */
PF_INLINE float f32_from_f16_lane(uint32_t half)
{
    uint32_t sign = (half & 0x8000u) << 16, magnitude = (half & 0x7fffu) << 13;
    uint32_t exponent = magnitude & 0x0f800000u;
    uint32_t normal = magnitude + (112u << 23);
    uint32_t special = magnitude + (224u << 23); /* infinities and NaN */
    uint32_t subnormal = pf_bits(pf_from_bits(magnitude + (113u << 23)) - pf_from_bits(113u << 23));
    uint32_t bits = exponent == 0x0f800000u ? special : normal;
    return pf_from_bits(sign | (exponent == 0 ? subnormal : bits));
}

/* Normal results: half of what is cut off, less one unless the last kept bit is odd, is added, and
 * a carry goes on into the exponent. Subnormal ones: adding 0.5 leaves 2^-24 as the last bit of the
 * sum, rounded as all sums are. */
PF_INLINE uint32_t f16_from_f32_lane(float x)
{
    uint32_t bits = pf_bits(x), sign = bits >> 16 & 0x8000u, magnitude = bits & 0x7fffffffu;
    uint32_t odd = magnitude >> 13 & 1;
    uint32_t normal = (magnitude - (112u << 23) + 0xfffu + odd) >> 13;
    uint32_t subnormal = pf_bits(pf_from_bits(magnitude) + 0.5f) - pf_bits(0.5f);
    uint32_t nan = 0x7e00u | (magnitude >> 13 & 0x3ffu);
    uint32_t half = magnitude < 113u << 23 ? subnormal : normal;
    half = magnitude >= 0x477ff000u ? 0x7c00u : half; /* 65520 and above: infinity */
    half = magnitude > 0x7f800000u ? nan : half;
    return sign | half;
}

PF_INLINE uint32_t bf16_from_f32_lane(float x)
{
    uint32_t bits = pf_bits(x);
    uint32_t rounded = (bits + 0x7fffu + (bits >> 16 & 1)) >> 16;
    return (bits & 0x7fffffffu) > 0x7f800000u ? bits >> 16 | 0x40u : rounded;
}

PF_INLINE void f32_from_f16_body(int64_t n, const uint16_t *restrict half, float *restrict x)
{
    for (int64_t i = 0; i < n; i++)
        x[i] = f32_from_f16_lane(half[i]);
}

PF_INLINE void f32_from_bf16_body(int64_t n, const uint16_t *restrict half, float *restrict x)
{
    for (int64_t i = 0; i < n; i++)
        x[i] = pf_from_bits((uint32_t)half[i] << 16);
}

PF_INLINE void f16_from_f32_body(int64_t n, const float *restrict x, uint16_t *restrict half)
{
    for (int64_t i = 0; i < n; i++)
        half[i] = (uint16_t)f16_from_f32_lane(x[i]);
}

PF_INLINE void bf16_from_f32_body(int64_t n, const float *restrict x, uint16_t *restrict half)
{
    for (int64_t i = 0; i < n; i++)
        half[i] = (uint16_t)bf16_from_f32_lane(x[i]);
}

PF_KERNEL(f32_from_f16, (int64_t n, const uint16_t *half, float *x), (n, half, x))
PF_KERNEL(f32_from_bf16, (int64_t n, const uint16_t *half, float *x), (n, half, x))
PF_KERNEL(f16_from_f32, (int64_t n, const float *x, uint16_t *half), (n, x, half))
PF_KERNEL(bf16_from_f32, (int64_t n, const float *x, uint16_t *half), (n, x, half))
