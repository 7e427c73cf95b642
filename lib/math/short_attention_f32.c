/* Attention of one row to few keys, compiled once for each level of the CPU, with PF_LEVEL its
 * name: scores, softmax and the sum of values while all of them are in registers and the L1 cache.
 *
 * Terms are exp(scale (s - max)), summed in double, as in the softmax of longer rows. */
#include <float.h>
#include <math.h>

#include "math/pf_lanes.h"
#include "math/pf_short_attention.h"
#include "math/pf_vec.h"

INLINE float dot(int64_t n, const float *a, const float *b)
{
    vec sum = {0};
    float lane[WIDTH], rest = 0;
    int64_t l = 0;
    for (; l + WIDTH <= n; l += WIDTH)
        sum += LOAD(a + l) * LOAD(b + l);
    for (; l < n; l++)
        rest += a[l] * b[l];
    memcpy(lane, &sum, sizeof lane);
    for (int64_t half = WIDTH / 2; half > 0; half /= 2)
        for (int64_t i = 0; i < half; i++)
            lane[i] += lane[i + half];
    return lane[0] + rest;
}

/* y += a x, n of each. */
INLINE void add(int64_t n, float a, const float *x, float *y)
{
    int64_t l = 0;
    for (; l + WIDTH <= n; l += WIDTH)
        STORE(y + l, LOAD(y + l) + a * LOAD(x + l));
    for (; l < n; l++)
        y[l] += a * x[l];
}

/* exp(scale (s - max)) in place, 0 beyond the n scores; 1 / their sum, NaN or 0 where there is no
 * softmax. */
INLINE float terms(int64_t n, float scale, float *s)
{
    float top[WIDTH];
    double sum[WIDTH];
    int32_t bad[WIDTH];
    int64_t padded = (n + WIDTH - 1) / WIDTH * WIDTH;
    for (int64_t j = n; j < padded; j++)
        s[j] = -INFINITY;
    for (int64_t l = 0; l < WIDTH; l++) {
        top[l] = -INFINITY;
        sum[l] = 0;
        bad[l] = 0;
    }
    for (int64_t j = 0; j < padded; j += WIDTH)
        for (int64_t l = 0; l < WIDTH; l++) {
            bad[l] |= !(s[j + l] <= FLT_MAX);
            top[l] = s[j + l] > top[l] ? s[j + l] : top[l];
        }
    for (int64_t half = WIDTH / 2; half > 0; half /= 2)
        for (int64_t l = 0; l < half; l++) {
            bad[l] |= bad[l + half];
            top[l] = top[l + half] > top[l] ? top[l + half] : top[l];
        }
    float max = top[0];
    if (bad[0] || max == -INFINITY) {
        for (int64_t j = 0; j < n; j++)
            s[j] = 0;
        return bad[0] ? NAN : 0;
    }
    for (int64_t j = 0; j < padded; j += WIDTH) {
        for (int64_t l = 0; l < WIDTH; l++)
            s[j + l] = pf_exp_lane((s[j + l] - max) * scale);
        for (int64_t l = 0; l < WIDTH; l++)
            sum[l] += (double)s[j + l];
    }
    for (int64_t half = WIDTH / 2; half > 0; half /= 2)
        for (int64_t l = 0; l < half; l++)
            sum[l] += sum[l + half];
    return (float)(1 / sum[0]);
}

/* The terms of a row, and 1 / their sum. */
INLINE float weigh(const pf_short_row *row, float *e)
{
    int64_t n = 0;
    for (int64_t b = 0; b < row->n_blocks; b++) {
        const float *key = row->block[b].keys;
        for (int64_t j = 0; j < row->block[b].n; j++, key += row->block[b].stride)
            e[n++] = dot(row->width, row->q, key);
    }
    return terms(n, row->scale, e);
}

void JOIN(pf_short_attend, PF_LEVEL)(const pf_short_row *row)
{
    float e[PF_SHORT_KEYS];
    float factor = weigh(row, e);
    int64_t l = 0, width = row->width;
    for (; l + WIDTH <= width; l += WIDTH) {
        vec sum = {0};
        const float *p = e;
        for (int64_t b = 0; b < row->n_blocks; b++) {
            const float *value = row->block[b].values + l;
            for (int64_t j = 0; j < row->block[b].n; j++, value += row->block[b].stride)
                sum += *p++ * LOAD(value);
        }
        STORE(row->y + l, factor * sum);
    }
    for (; l < width; l++) {
        float sum = 0;
        const float *p = e;
        for (int64_t b = 0; b < row->n_blocks; b++) {
            const float *value = row->block[b].values + l;
            for (int64_t j = 0; j < row->block[b].n; j++, value += row->block[b].stride)
                sum += *p++ * *value;
        }
        row->y[l] = factor * sum;
    }
}

void JOIN(pf_short_attend_backward, PF_LEVEL)(const pf_short_row *row)
{
    float p[PF_SHORT_KEYS], dp[PF_SHORT_KEYS];
    float factor = weigh(row, p), mean = 0;
    int64_t width = row->width, n = 0;
    for (int64_t b = 0; b < row->n_blocks; b++) {
        const pf_short_block *block = &row->block[b];
        for (int64_t j = 0; j < block->n; j++, n++) {
            p[n] *= factor;
            dp[n] = dot(width, row->dy, block->values + j * block->stride);
            add(width, p[n], row->dy, block->dvalues + j * block->stride);
            mean += p[n] * dp[n];
        }
    }
    n = 0;
    for (int64_t b = 0; b < row->n_blocks; b++) {
        const pf_short_block *block = &row->block[b];
        for (int64_t j = 0; j < block->n; j++, n++) {
            float ds = row->scale * p[n] * (dp[n] - mean);
            add(width, ds, block->keys + j * block->stride, row->dq);
            add(width, ds, row->q, block->dkeys + j * block->stride);
        }
    }
}
