/* Sums over rows and columns, and rotary positions. */
#include "math/pf_lanes.h"
#include "math/pf_ops.h"

PF_INLINE void add_bias_body(int64_t rows, int64_t width, const float *restrict bias,
                             float *restrict x, int64_t ld)
{
    for (int64_t i = 0; i < rows; i++, x += ld)
        for (int64_t j = 0; j < width; j++)
            x[j] += bias[j];
}

/* Four rows at a time, so that the sums are loaded and stored a quarter as often; the order is that
 * of the rows all the same. */
PF_INLINE void add_columns_body(int64_t rows, int64_t width, const float *restrict x, int64_t ld,
                                float *restrict sum)
{
    int64_t i = 0;
    for (; i + 4 <= rows; i += 4, x += 4 * ld) {
        const float *a = x, *b = x + ld, *c = x + 2 * ld, *d = x + 3 * ld;
        for (int64_t j = 0; j < width; j++)
            sum[j] = sum[j] + a[j] + b[j] + c[j] + d[j];
    }
    for (; i < rows; i++, x += ld)
        for (int64_t j = 0; j < width; j++)
            sum[j] += x[j];
}

PF_INLINE void accumulate_body(int64_t n, const float *restrict x, float *restrict y)
{
    for (int64_t i = 0; i < n; i++)
        y[i] += x[i];
}

PF_INLINE void rotate(int64_t half, const float *restrict cosine, const float *restrict sine,
                      float sign, float *restrict low, float *restrict high)
{
    for (int64_t j = 0; j < half; j++) {
        float a = low[j], b = high[j], s = sign * sine[j];
        low[j] = a * cosine[j] - b * s;
        high[j] = b * cosine[j] + a * s;
    }
}

PF_INLINE void rotary_body(int64_t n_heads, int64_t head_stride, int64_t half, const float *cosine,
                           const float *sine, bool inverse, float *x)
{
    for (int64_t h = 0; h < n_heads; h++, x += head_stride)
        rotate(half, cosine, sine, inverse ? -1.0f : 1.0f, x, x + half);
}

PF_KERNEL(add_bias, (int64_t rows, int64_t width, const float *bias, float *x, int64_t ld),
          (rows, width, bias, x, ld))
PF_KERNEL(add_columns, (int64_t rows, int64_t width, const float *x, int64_t ld, float *sum),
          (rows, width, x, ld, sum))
PF_KERNEL(accumulate, (int64_t n, const float *x, float *y), (n, x, y))
PF_KERNEL(rotary,
          (int64_t n_heads, int64_t head_stride, int64_t half, const float *cosine,
           const float *sine, bool inverse, float *x),
          (n_heads, head_stride, half, cosine, sine, inverse, x))
