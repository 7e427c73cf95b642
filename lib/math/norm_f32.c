/* Layer norm of rows.
 *
 * The sum is taken in double and the mean rounded to float, as it is saved; the differences from
 * that mean are floats, their squares are added up in double, and what the mean's rounding adds to
 * the variance, (mean - rounded)^2, is taken off again. */
#include <math.h>

#include "math/pf_lanes.h"
#include "math/pf_ops.h"

/* lane[l] += x[l], and lane[l] += (x[l] - mean)^2, for n <= PF_LANES elements. */
PF_INLINE void add_block(int64_t n, const float *x, double *lane)
{
    for (int64_t l = 0; l < n; l++)
        lane[l] += (double)x[l];
}

PF_INLINE void add_squares(int64_t n, const float *x, float mean, double *lane)
{
    for (int64_t l = 0; l < n; l++) {
        float d = x[l] - mean;
        lane[l] += (double)(d * d);
    }
}

PF_INLINE double row_sum(int64_t n, const float *x)
{
    double lane[PF_LANES] = {0};
    int64_t whole = n / PF_LANES * PF_LANES;
    for (int64_t i = 0; i < whole; i += PF_LANES)
        add_block(PF_LANES, x + i, lane);
    if (whole < n)
        add_block(n - whole, x + whole, lane);
    return pf_add_lanes(lane);
}

PF_INLINE double row_squares(int64_t n, const float *x, float mean)
{
    double lane[PF_LANES] = {0};
    int64_t whole = n / PF_LANES * PF_LANES;
    for (int64_t i = 0; i < whole; i += PF_LANES)
        add_squares(PF_LANES, x + i, mean, lane);
    if (whole < n)
        add_squares(n - whole, x + whole, mean, lane);
    return pf_add_lanes(lane);
}

PF_INLINE void apply_row(int64_t n, const float *x, float mean, float rstd, const float *gamma,
                         const float *beta, float *y)
{
    for (int64_t j = 0; j < n; j++)
        y[j] = (x[j] - mean) * rstd * gamma[j] + beta[j];
}

PF_INLINE void layer_norm_body(int64_t rows, int64_t width, const float *x, const float *gamma,
                               const float *beta, double epsilon, float *y, float *mean,
                               float *rstd)
{
    for (int64_t i = 0; i < rows; i++, x += width, y += width) {
        double exact = row_sum(width, x) / (double)width;
        mean[i] = (float)exact;
        double off = exact - (double)mean[i];
        double variance = row_squares(width, x, mean[i]) / (double)width - off * off;
        rstd[i] = (float)(1 / sqrt((variance > 0 ? variance : variance * 0) + epsilon));
        apply_row(width, x, mean[i], rstd[i], gamma, beta, y);
    }
}

PF_INLINE void layer_norm_apply_body(int64_t rows, int64_t width, const float *x, const float *mean,
                                     const float *rstd, const float *gamma, const float *beta,
                                     float *y)
{
    for (int64_t i = 0; i < rows; i++, x += width, y += width)
        apply_row(width, x, mean[i], rstd[i], gamma, beta, y);
}

PF_INLINE void add_products(int64_t n, const float *x, float mean, float rstd, const float *gamma,
                            const float *dy, double *h_lane, double *hx_lane)
{
    for (int64_t l = 0; l < n; l++) {
        float h = dy[l] * gamma[l], xhat = (x[l] - mean) * rstd;
        h_lane[l] += (double)h;
        hx_lane[l] += (double)(h * xhat);
    }
}

/* Means over a row of h = dy gamma and of h xhat, xhat = (x - mean) rstd. */
PF_INLINE void row_means(int64_t n, const float *x, float mean, float rstd, const float *gamma,
                         const float *dy, float *mean_h, float *mean_hx)
{
    double h_lane[PF_LANES] = {0}, hx_lane[PF_LANES] = {0};
    int64_t i = 0;
    for (; i + PF_LANES <= n; i += PF_LANES)
        add_products(PF_LANES, x + i, mean, rstd, gamma + i, dy + i, h_lane, hx_lane);
    if (i < n)
        add_products(n - i, x + i, mean, rstd, gamma + i, dy + i, h_lane, hx_lane);
    *mean_h = (float)(pf_add_lanes(h_lane) / (double)n);
    *mean_hx = (float)(pf_add_lanes(hx_lane) / (double)n);
}

/* dx += rstd (h - mean(h) - xhat mean(h xhat)). */
PF_INLINE void layer_norm_backward_body(int64_t rows, int64_t width, const float *restrict x,
                                        const float *mean, const float *rstd,
                                        const float *restrict gamma, const float *restrict dy,
                                        float *restrict dx, float *restrict dgamma,
                                        float *restrict dbeta)
{
    for (int64_t i = 0; i < rows; i++, x += width, dy += width, dx += width) {
        float mean_h, mean_hx, m = mean[i], r = rstd[i];
        row_means(width, x, m, r, gamma, dy, &mean_h, &mean_hx);
        for (int64_t j = 0; j < width; j++) {
            float xhat = (x[j] - m) * r;
            dx[j] += r * (dy[j] * gamma[j] - mean_h - xhat * mean_hx);
            dgamma[j] += dy[j] * xhat;
            dbeta[j] += dy[j];
        }
    }
}

PF_KERNEL(layer_norm,
          (int64_t rows, int64_t width, const float *x, const float *gamma, const float *beta,
           double epsilon, float *y, float *mean, float *rstd),
          (rows, width, x, gamma, beta, epsilon, y, mean, rstd))
PF_KERNEL(layer_norm_apply,
          (int64_t rows, int64_t width, const float *x, const float *mean, const float *rstd,
           const float *gamma, const float *beta, float *y),
          (rows, width, x, mean, rstd, gamma, beta, y))
PF_KERNEL(layer_norm_backward,
          (int64_t rows, int64_t width, const float *x, const float *mean, const float *rstd,
           const float *gamma, const float *dy, float *dx, float *dgamma, float *dbeta),
          (rows, width, x, mean, rstd, gamma, dy, dx, dgamma, dbeta))
