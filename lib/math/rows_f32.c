/* Row passes over float32 logits. */
#include <float.h>
#include <math.h>

#include "math/pf_lanes.h"
#include "math/pf_rows.h"

/* By halves, in steps of constant length. */
PF_INLINE float max_lanes(float *lane)
{
    for (int64_t l = 0; l < 32; l++)
        lane[l] = lane[l + 32] > lane[l] ? lane[l + 32] : lane[l];
    for (int64_t l = 0; l < 16; l++)
        lane[l] = lane[l + 16] > lane[l] ? lane[l + 16] : lane[l];
    for (int64_t l = 0; l < 8; l++)
        lane[l] = lane[l + 8] > lane[l] ? lane[l + 8] : lane[l];
    float top = lane[0];
    for (int64_t l = 1; l < 8; l++)
        top = lane[l] > top ? lane[l] : top;
    return top;
}

PF_INLINE int32_t any_lanes(int32_t *lane)
{
    for (int64_t l = 0; l < 32; l++)
        lane[l] |= lane[l + 32];
    for (int64_t l = 0; l < 16; l++)
        lane[l] |= lane[l + 16];
    for (int64_t l = 0; l < 8; l++)
        lane[l] |= lane[l + 8];
    int32_t any = 0;
    for (int64_t l = 0; l < 8; l++)
        any |= lane[l];
    return any;
}

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
    for (int64_t i = 0; i < n; i += PF_LANES) {
        const float *block = i < whole ? x + i : rest;
        for (int64_t l = 0; l < PF_LANES; l++) {
            bad[l] |= !(block[l] <= FLT_MAX);
            lane[l] = block[l] > lane[l] ? block[l] : lane[l];
        }
    }
    *max = max_lanes(lane);
    return !any_lanes(bad);
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
    for (int64_t i = 0; i < n; i += PF_LANES) {
        const float *block = i < whole ? x + i : rest;
        for (int64_t l = 0; l < PF_LANES; l++) {
            float magnitude = fabsf(block[l]);
            bad[l] |= !(magnitude <= FLT_MAX);
            lane[l] = magnitude > lane[l] ? magnitude : lane[l];
        }
    }
    *largest = max_lanes(lane);
    return !any_lanes(bad);
}

/* Lanes of a quarter of a block: term = exp((x - max) scale), added to lane. */
PF_INLINE void exp_quarter(const float *x, float max, float scale, float *term, double *lane)
{
    for (int64_t l = 0; l < PF_LANES / 4; l++)
        term[l] = pf_exp_lane((x[l] - max) * scale);
    for (int64_t l = 0; l < PF_LANES / 4; l++)
        lane[l] += (double)term[l];
}

/* Short rows are common (a causal softmax has them), so the last block's empty quarters are left
 * out. */
PF_INLINE double row_exp_sum_body(int64_t n, const float *x, float max, float scale, float *e)
{
    double lane[PF_LANES];
    float rest[PF_LANES], term[PF_LANES];
    for (int64_t l = 0; l < PF_LANES; l++)
        lane[l] = 0;
    int64_t whole = n / PF_LANES * PF_LANES, left = n - whole;
    for (int64_t i = 0; i < whole; i += PF_LANES) {
        for (int64_t l = 0; l < PF_LANES; l++)
            term[l] = pf_exp_lane((x[i + l] - max) * scale);
        for (int64_t l = 0; l < PF_LANES; l++)
            lane[l] += (double)term[l];
        if (e != NULL)
            memcpy(e + i, term, sizeof term);
    }
    if (left > 0) {
        for (int64_t l = 0; l < PF_LANES; l++)
            rest[l] = -INFINITY;
        memcpy(rest, x + whole, (size_t)left * sizeof *x);
        exp_quarter(rest, max, scale, term, lane);
        if (left > PF_LANES / 4)
            exp_quarter(rest + 16, max, scale, term + 16, lane + 16);
        if (left > PF_LANES / 2)
            exp_quarter(rest + 32, max, scale, term + 32, lane + 32);
        if (left > PF_LANES / 4 * 3)
            exp_quarter(rest + 48, max, scale, term + 48, lane + 48);
        if (e != NULL)
            memcpy(e + whole, term, (size_t)left * sizeof *e);
    }
    return pf_add_lanes(lane);
}

PF_INLINE void row_scale_body(int64_t n, float *x, float factor)
{
    for (int64_t i = 0; i < n; i++)
        x[i] *= factor;
}

PF_INLINE void row_mask_body(int64_t n, const uint8_t *restrict allowed, float *restrict x)
{
    for (int64_t i = 0; i < n; i++)
        x[i] = allowed[i] != 0 ? x[i] : -INFINITY;
}

PF_KERNEL_OF(bool, row_max, (int64_t n, const float *x, float *max), (n, x, max))
PF_KERNEL_OF(bool, row_finite, (int64_t n, const float *x, float *largest), (n, x, largest))
PF_KERNEL_OF(double, row_exp_sum, (int64_t n, const float *x, float max, float scale, float *e),
             (n, x, max, scale, e))
PF_KERNEL(row_mask, (int64_t n, const uint8_t *allowed, float *x), (n, allowed, x))
PF_KERNEL(row_scale, (int64_t n, float *x, float factor), (n, x, factor))

int64_t pf_row_find_bad(int64_t n, const float *x)
{
    int64_t i = 0;
    while (i < n && x[i] <= FLT_MAX)
        i++;
    return i;
}
