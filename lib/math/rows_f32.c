/* Row passes over float32 logits. */
#include <float.h>
#include <math.h>

#include "math/pf_lanes.h"
#include "math/pf_rows.h"

PF_INLINE bool row_max_body(int64_t n, const float *restrict x, float *restrict max)
{
    float lane[PF_LANES], rest[PF_LANES];
    int32_t bad[PF_LANES];
    for (int64_t l = 0; l < PF_LANES; l++) {
        lane[l] = -INFINITY;
        bad[l] = 0;
        rest[l] = -INFINITY;
    }
    int64_t whole = n / PF_LANES * PF_LANES;
    memcpy(rest, x + whole, (size_t)(n - whole) * sizeof *x);
    for (int64_t i = 0; i <= whole; i += PF_LANES) {
        const float *block = i < whole ? x + i : rest;
        for (int64_t l = 0; l < PF_LANES; l++) {
            bad[l] |= !(block[l] <= FLT_MAX);
            lane[l] = block[l] > lane[l] ? block[l] : lane[l];
        }
    }
    float top = -INFINITY;
    int32_t any = 0;
    for (int64_t l = 0; l < PF_LANES; l++) {
        top = lane[l] > top ? lane[l] : top;
        any |= bad[l];
    }
    *max = top;
    return !any;
}

PF_INLINE bool row_finite_body(int64_t n, const float *restrict x, float *restrict largest)
{
    float lane[PF_LANES], rest[PF_LANES];
    int32_t bad[PF_LANES];
    for (int64_t l = 0; l < PF_LANES; l++) {
        lane[l] = rest[l] = 0;
        bad[l] = 0;
    }
    int64_t whole = n / PF_LANES * PF_LANES;
    memcpy(rest, x + whole, (size_t)(n - whole) * sizeof *x);
    for (int64_t i = 0; i <= whole; i += PF_LANES) {
        const float *block = i < whole ? x + i : rest;
        for (int64_t l = 0; l < PF_LANES; l++) {
            float magnitude = fabsf(block[l]);
            bad[l] |= !(magnitude <= FLT_MAX);
            lane[l] = magnitude > lane[l] ? magnitude : lane[l];
        }
    }
    float top = 0;
    int32_t any = 0;
    for (int64_t l = 0; l < PF_LANES; l++) {
        top = lane[l] > top ? lane[l] : top;
        any |= bad[l];
    }
    *largest = top;
    return !any;
}

PF_INLINE double row_exp_sum_body(int64_t n, const float *x, float max, float scale, float *e)
{
    double lane[PF_LANES];
    float rest[PF_LANES], term[PF_LANES];
    for (int64_t l = 0; l < PF_LANES; l++) {
        lane[l] = 0;
        rest[l] = -INFINITY;
    }
    int64_t whole = n / PF_LANES * PF_LANES;
    memcpy(rest, x + whole, (size_t)(n - whole) * sizeof *x);
    for (int64_t i = 0; i <= whole; i += PF_LANES) {
        const float *block = i < whole ? x + i : rest;
        for (int64_t l = 0; l < PF_LANES; l++)
            term[l] = pf_exp_lane((block[l] - max) * scale);
        for (int64_t l = 0; l < PF_LANES; l++)
            lane[l] += (double)term[l];
        if (e != NULL)
            memcpy(e + i, term, (size_t)(i < whole ? PF_LANES : n - whole) * sizeof *e);
    }
    return pf_add_lanes(lane);
}

PF_INLINE void row_scale_body(int64_t n, float *x, float factor)
{
    for (int64_t i = 0; i < n; i++)
        x[i] *= factor;
}

PF_KERNEL_OF(bool, row_max, (int64_t n, const float *x, float *max), (n, x, max))
PF_KERNEL_OF(bool, row_finite, (int64_t n, const float *x, float *largest), (n, x, largest))
PF_KERNEL_OF(double, row_exp_sum, (int64_t n, const float *x, float max, float scale, float *e),
             (n, x, max, scale, e))
PF_KERNEL(row_scale, (int64_t n, float *x, float factor), (n, x, factor))

int64_t pf_row_find_bad(int64_t n, const float *x)
{
    int64_t i = 0;
    while (i < n && x[i] <= FLT_MAX)
        i++;
    return i;
}
