/* GELU and its derivative.
 *
 * Exact form. With t = |x|, Phi(-t) = exp(-t^2 / 2) g(t), g(t) = erfcx(t / sqrt 2) / 2, a smooth
 * function between 1/2 and about 1 / (t sqrt(2 pi)). g(t) (t + 3.5) is a polynomial of degree 9 in
 * u = (t - 3.5) / (t + 3.5): the minimax fit of the relative error over 0 <= t <= 13.4, where it is
 * 5.5e-9. Then gelu(x) = -t Phi(-t) on the left, where no 1 - ... loses digits, and x - x Phi(-t)
 * on the right. The square must be exact, for its error is the result's relative error times 100:
 * t = h + (t - h), h of 12 bits, t^2 = h^2 + (t - h)(t + h).
 *
 * t stops at 14: beyond, the left is 0 and the right x. */
#include <math.h>

#include "math/pf_lanes.h"
#include "math/pf_ops.h"

static const float inv_sqrt_2pi = 0.398942280f;

/* t, exp(-t^2 / 2), g(t). A NaN keeps t and g NaN. */
PF_INLINE void normal_lane(float x, float *t, float *e, float *g)
{
    float a = fabsf(x);
    a = a > 14.0f ? 14.0f : a;
    float h = pf_from_bits(pf_bits(a) & 0xfffff000u);
    float tail = 0.5f * (a - h) * (a + h);
    *t = a;
    *e = pf_exp_lane_tail(-0.5f * h * h, tail);
    float r = 1.0f / (a + 3.5f);
    float u = (a - 3.5f) * r;
    float p = 1.15258326e-4f;
    p = p * u + 4.30431730e-4f;
    p = p * u + -4.94015631e-4f;
    p = p * u + -3.18076189e-3f;
    p = p * u + 6.49142949e-3f;
    p = p * u + 1.74075045e-2f;
    p = p * u + -0.116052705f;
    p = p * u + 0.315424968f;
    p = p * u + -0.565561759f;
    p = p * u + 0.744416075f;
    *g = p * r;
}

PF_INLINE float gelu_exact(float x)
{
    float t, e, g;
    normal_lane(x, &t, &e, &g);
    float left = t * g * e;
    return x > 0.0f ? x - left : -left;
}

PF_INLINE float gelu_exact_slope(float x)
{
    float t, e, g;
    normal_lane(x, &t, &e, &g);
    float left = e * (g - t * inv_sqrt_2pi);
    return x > 0.0f ? 1.0f - left : left;
}

/* x stopped at -12 and 12 (there sigma is 0 or 1), 2 sqrt(2 / pi) (x + 0.044715 x^3)'s sigma and
 * its slope, sigma (1 - sigma). */
PF_INLINE float sigmoid_lane(float x, float *stopped, float *slope)
{
    x = x > 12.0f ? 12.0f : x;
    x = x < -12.0f ? -12.0f : x;
    *stopped = x;
    float z = x * (1.59576912f + 0.0713548163f * x * x);
    float e = pf_exp_lane(-fabsf(z));
    float r = 1.0f / (1.0f + e);
    *slope = e * r * r;
    return z > 0.0f ? r : e * r;
}

PF_INLINE float gelu_tanh(float x)
{
    float stopped, slope;
    float sigma = sigmoid_lane(x, &stopped, &slope);
    return (x > 0.0f ? x : stopped) * sigma;
}

PF_INLINE float gelu_tanh_slope(float x)
{
    float stopped, slope;
    float sigma = sigmoid_lane(x, &stopped, &slope);
    return sigma + stopped * slope * (1.59576912f + 0.214064449f * stopped * stopped);
}

PF_INLINE void biased(const float *x, const float *bias, float *in)
{
    for (int64_t l = 0; l < PF_LANES; l++)
        in[l] = x[l];
    if (bias != NULL)
        for (int64_t l = 0; l < PF_LANES; l++)
            in[l] += bias[l];
}

PF_INLINE void gelu_block(bool tanh_form, const float *x, const float *bias, float *y)
{
    float in[PF_LANES];
    biased(x, bias, in);
    if (tanh_form)
        for (int64_t l = 0; l < PF_LANES; l++)
            y[l] = gelu_tanh(in[l]);
    else
        for (int64_t l = 0; l < PF_LANES; l++)
            y[l] = gelu_exact(in[l]);
}

PF_INLINE void slope_block(bool tanh_form, const float *x, const float *bias, float *dy)
{
    float in[PF_LANES];
    biased(x, bias, in);
    if (tanh_form)
        for (int64_t l = 0; l < PF_LANES; l++)
            dy[l] *= gelu_tanh_slope(in[l]);
    else
        for (int64_t l = 0; l < PF_LANES; l++)
            dy[l] *= gelu_exact_slope(in[l]);
}

/* A row's last elements go through full blocks of their own. */
PF_INLINE void gelu_body(int64_t rows, int64_t width, int32_t form, const float *x,
                         const float *bias, float *y)
{
    bool tanh_form = form == PF_GELU_TANH;
    int64_t whole = width / PF_LANES * PF_LANES, left = width - whole;
    for (int64_t i = 0; i < rows; i++, x += width, y += width) {
        for (int64_t j = 0; j < whole; j += PF_LANES)
            gelu_block(tanh_form, x + j, bias != NULL ? bias + j : NULL, y + j);
        if (left == 0)
            continue;
        float in[PF_LANES] = {0}, with[PF_LANES] = {0}, out[PF_LANES];
        memcpy(in, x + whole, (size_t)left * sizeof *x);
        if (bias != NULL)
            memcpy(with, bias + whole, (size_t)left * sizeof *x);
        gelu_block(tanh_form, in, bias != NULL ? with : NULL, out);
        memcpy(y + whole, out, (size_t)left * sizeof *y);
    }
}

PF_INLINE void gelu_backward_body(int64_t rows, int64_t width, int32_t form, const float *x,
                                  const float *bias, float *dy)
{
    bool tanh_form = form == PF_GELU_TANH;
    int64_t whole = width / PF_LANES * PF_LANES, left = width - whole;
    for (int64_t i = 0; i < rows; i++, x += width, dy += width) {
        for (int64_t j = 0; j < whole; j += PF_LANES)
            slope_block(tanh_form, x + j, bias != NULL ? bias + j : NULL, dy + j);
        if (left == 0)
            continue;
        float in[PF_LANES] = {0}, with[PF_LANES] = {0}, out[PF_LANES] = {0};
        memcpy(in, x + whole, (size_t)left * sizeof *x);
        if (bias != NULL)
            memcpy(with, bias + whole, (size_t)left * sizeof *x);
        memcpy(out, dy + whole, (size_t)left * sizeof *dy);
        slope_block(tanh_form, in, bias != NULL ? with : NULL, out);
        memcpy(dy + whole, out, (size_t)left * sizeof *dy);
    }
}

PF_KERNEL(gelu,
          (int64_t rows, int64_t width, int32_t form, const float *x, const float *bias, float *y),
          (rows, width, form, x, bias, y))
PF_KERNEL(gelu_backward,
          (int64_t rows, int64_t width, int32_t form, const float *x, const float *bias, float *dy),
          (rows, width, form, x, bias, dy))
