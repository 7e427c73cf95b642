/* Passes of an optimiser over float32 parameters: see pf_steps.h. The compiler vectorises the plain
 * loops; all of them are bound by memory. */
#include <float.h>
#include <math.h>

#include "math/pf_lanes.h"
#include "math/pf_steps.h"

#define RESTRICT __restrict__

PF_INLINE double grad_square_f32_body(int64_t n, const float *RESTRICT grad,
                                      const float *RESTRICT value, float *RESTRICT largest)
{
    double lane[PF_LANES];
    float top[PF_LANES], rest_grad[PF_LANES], rest_value[PF_LANES];
    for (int64_t l = 0; l < PF_LANES; l++) {
        lane[l] = 0;
        top[l] = rest_grad[l] = rest_value[l] = 0;
    }
    int64_t whole = n / PF_LANES * PF_LANES;
    memcpy(rest_grad, grad + whole, (size_t)(n - whole) * sizeof *grad);
    memcpy(rest_value, value + whole, (size_t)(n - whole) * sizeof *value);
    for (int64_t i = 0; i <= whole; i += PF_LANES) {
        const float *g = i < whole ? grad + i : rest_grad;
        const float *x = i < whole ? value + i : rest_value;
        for (int64_t l = 0; l < PF_LANES; l++)
            lane[l] += (double)g[l] * (double)g[l];
        for (int64_t l = 0; l < PF_LANES; l++) {
            float magnitude = fabsf(x[l]);
            magnitude = magnitude <= FLT_MAX ? magnitude : 0.0f;
            top[l] = magnitude > top[l] ? magnitude : top[l];
        }
    }
    float most = 0;
    for (int64_t l = 0; l < PF_LANES; l++)
        most = top[l] > most ? top[l] : most;
    *largest = most;
    return pf_add_lanes(lane);
}

PF_INLINE double ridge_f32_body(int64_t n, double strength, bool add, const float *RESTRICT value,
                                float *RESTRICT grad)
{
    double lane[PF_LANES];
    float rest[PF_LANES];
    for (int64_t l = 0; l < PF_LANES; l++) {
        lane[l] = 0;
        rest[l] = 0;
    }
    int64_t whole = n / PF_LANES * PF_LANES;
    memcpy(rest, value + whole, (size_t)(n - whole) * sizeof *value);
    for (int64_t i = 0; i <= whole; i += PF_LANES) {
        const float *x = i < whole ? value + i : rest;
        for (int64_t l = 0; l < PF_LANES; l++) {
            float finite = fabsf(x[l]) <= FLT_MAX ? x[l] : 0.0f;
            lane[l] += (double)finite * (double)finite;
        }
    }
    for (int64_t i = 0; i < n && add; i++) {
        float finite = fabsf(value[i]) <= FLT_MAX ? value[i] : 0.0f;
        grad[i] = (float)((double)grad[i] + strength * (double)finite);
    }
    return pf_add_lanes(lane);
}

PF_INLINE void adamw_f32_body(int64_t n, const pf_adamw_constants *constants, float *RESTRICT value,
                              const float *RESTRICT grad, float *RESTRICT first,
                              float *RESTRICT second)
{
    const pf_adamw_constants c = *constants;
    for (int64_t i = 0; i < n; i++) {
        float x = value[i], m = first[i], v = second[i], g = c.scale * grad[i];
        float new_m = c.beta1 * m + (c.beta1_rest * m + c.keep1 * g);
        float new_v = c.beta2 * v + (c.beta2_rest * v + c.keep2 * (g * g));
        new_m = fabsf(new_m) < FLT_MIN ? 0.0f : new_m;
        new_v = new_v < FLT_MIN ? 0.0f : new_v;
        float step = c.rate * new_m / (sqrtf(new_v) * c.root + c.epsilon);
        float new_x = x - (c.shrink * x + step);
        bool finite = fabsf(x) <= FLT_MAX;
        value[i] = finite ? new_x : x;
        first[i] = finite ? new_m : m;
        second[i] = finite ? new_v : v;
    }
}

PF_INLINE void sgd_f32_body(int64_t n, const pf_sgd_constants *constants, float *RESTRICT value,
                            const float *RESTRICT grad, float *RESTRICT first)
{
    const pf_sgd_constants c = *constants;
    for (int64_t i = 0; i < n && first == NULL; i++) {
        float x = value[i], new_x = x - (c.shrink * x + c.rate * (c.scale * grad[i]));
        value[i] = fabsf(x) <= FLT_MAX ? new_x : x;
    }
    for (int64_t i = 0; i < n && first != NULL; i++) {
        float x = value[i], m = first[i], new_m = c.momentum * m + c.scale * grad[i];
        new_m = fabsf(new_m) < FLT_MIN ? 0.0f : new_m;
        float new_x = x - (c.shrink * x + c.rate * new_m);
        bool finite = fabsf(x) <= FLT_MAX;
        value[i] = finite ? new_x : x;
        first[i] = finite ? new_m : m;
    }
}

PF_KERNEL_OF(double, grad_square_f32,
             (int64_t n, const float *grad, const float *value, float *largest),
             (n, grad, value, largest))
PF_KERNEL_OF(double, ridge_f32,
             (int64_t n, double strength, bool add, const float *value, float *grad),
             (n, strength, add, value, grad))
PF_KERNEL(adamw_f32,
          (int64_t n, const pf_adamw_constants *constants, float *value, const float *grad,
           float *first, float *second),
          (n, constants, value, grad, first, second))
PF_KERNEL(sgd_f32,
          (int64_t n, const pf_sgd_constants *constants, float *value, const float *grad,
           float *first),
          (n, constants, value, grad, first))
