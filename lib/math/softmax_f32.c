/* Softmax of causal rows of scores: the maximum is taken off before exp, terms below exp(-87) are
 * 0, and they are summed in double. */
#include <math.h>

#include "math/pf_lanes.h"
#include "math/pf_ops.h"
#include "math/pf_rows.h"

static int64_t live_columns(int64_t columns, int64_t first, int64_t row)
{
    return first + row + 1 < columns ? first + row + 1 : columns;
}

static void fill(int64_t n, float value, float *x)
{
    for (int64_t j = 0; j < n; j++)
        x[j] = value;
}

/* s becomes exp((s - shift) scale) over its sum; that sum. */
static double normalise(int64_t n, float shift, float scale, float *s)
{
    double sum = pf_row_exp_sum(n, s, shift, scale, s);
    pf_row_scale(n, s, (float)(1 / sum));
    return sum;
}

void pf_softmax_rows(int64_t rows, int64_t columns, int64_t ld, int64_t first, float scale,
                     float *s, float *lse)
{
    for (int64_t i = 0; i < rows; i++, s += ld) {
        int64_t live = live_columns(columns, first, i);
        float max;
        bool good = pf_row_max(live, s, &max);
        if (!good || max == -INFINITY) {
            fill(live, good ? 0 : NAN, s);
            lse[i] = good ? -INFINITY : NAN;
        } else
            lse[i] = (float)((double)max * (double)scale + log(normalise(live, max, scale, s)));
        fill(columns - live, 0, s + live);
    }
}

void pf_softmax_again(int64_t rows, int64_t columns, int64_t ld, int64_t first, float scale,
                      const float *lse, float *s)
{
    for (int64_t i = 0; i < rows; i++, s += ld) {
        int64_t live = live_columns(columns, first, i);
        if (isfinite(lse[i]))
            normalise(live, lse[i] / scale, scale, s);
        else
            fill(live, lse[i] == -INFINITY ? 0 : NAN, s);
        fill(columns - live, 0, s + live);
    }
}

PF_INLINE double dot(int64_t n, const float *p, const float *dp)
{
    double lane[PF_LANES];
    float rest_p[PF_LANES], rest_dp[PF_LANES];
    for (int64_t l = 0; l < PF_LANES; l++)
        lane[l] = rest_p[l] = rest_dp[l] = 0;
    int64_t whole = n / PF_LANES * PF_LANES;
    for (int64_t i = 0; i < whole; i += PF_LANES)
        for (int64_t l = 0; l < PF_LANES; l++)
            lane[l] += (double)(p[i + l] * dp[i + l]);
    memcpy(rest_p, p + whole, (size_t)(n - whole) * sizeof *p);
    memcpy(rest_dp, dp + whole, (size_t)(n - whole) * sizeof *dp);
    for (int64_t l = 0; l < PF_LANES; l++)
        lane[l] += (double)(rest_p[l] * rest_dp[l]);
    return pf_add_lanes(lane);
}

PF_INLINE void softmax_backward_body(int64_t rows, int64_t columns, int64_t ld, int64_t first,
                                     float scale, const float *restrict p, float *restrict dp)
{
    for (int64_t i = 0; i < rows; i++, p += ld, dp += ld) {
        int64_t live = first + i + 1 < columns ? first + i + 1 : columns;
        float mean = (float)dot(live, p, dp);
        for (int64_t j = 0; j < live; j++)
            dp[j] = scale * p[j] * (dp[j] - mean);
        for (int64_t j = live; j < columns; j++)
            dp[j] = 0;
    }
}

PF_KERNEL(softmax_backward,
          (int64_t rows, int64_t columns, int64_t ld, int64_t first, float scale, const float *p,
           float *dp),
          (rows, columns, ld, first, scale, p, dp))
