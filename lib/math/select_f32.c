/* Passes that find a place in the order of a row without sorting it. */
#include <math.h>

#include "math/pf_lanes.h"
#include "math/pf_rows.h"

enum { WIDTH = 16, TOGETHER = 4 };
typedef float vec __attribute__((vector_size(WIDTH * sizeof(float))));
typedef int32_t mask __attribute__((vector_size(WIDTH * sizeof(int32_t))));

/* Vectors of the compiler's (an extension of both gcc and clang), so that the sums stay in
 * registers. Lane l sums the weights at l, l + WIDTH ... */
PF_INLINE void at_least_some(int64_t n, const float *x, const float *weight, const float *threshold,
                             int64_t *count, double *mass)
{
    vec sum[TOGETHER] = {{0}};
    mask many[TOGETHER] = {{0}};
    for (int64_t i = 0; i < n; i += WIDTH) {
        vec v, w = {0};
        if (n - i < WIDTH) {
            v = w - INFINITY;
            memcpy(&v, x + i, (size_t)(n - i) * sizeof *x);
            memcpy(&w, weight + i, (size_t)(n - i) * sizeof *x);
        } else {
            memcpy(&v, x + i, sizeof v);
            memcpy(&w, weight + i, sizeof w);
        }
        for (int64_t j = 0; j < TOGETHER; j++) {
            mask is = v >= threshold[j];
            many[j] -= is;
            sum[j] += (vec)((mask)w & is);
        }
    }
    for (int64_t j = 0; j < TOGETHER; j++)
        for (int64_t l = 0; l < WIDTH; l++) {
            count[j] += many[j][l];
            mass[j] += (double)sum[j][l];
        }
}

PF_INLINE void row_at_least_body(int64_t n, const float *x, const float *weight,
                                 const float *threshold, int64_t *count, double *mass)
{
    for (int64_t j = 0; j < PF_THRESHOLDS; j += TOGETHER)
        at_least_some(n, x, weight, threshold + j, count + j, mass + j);
}

PF_KERNEL(row_at_least,
          (int64_t n, const float *x, const float *weight, const float *threshold, int64_t *count,
           double *mass),
          (n, x, weight, threshold, count, mass))

PF_INLINE int64_t row_between_body(int64_t n, const float *restrict x, float low, float high,
                                   int64_t most, int32_t *restrict index)
{
    int64_t found = 0;
    for (int64_t i = 0; i < n; i += PF_LANES) {
        int64_t end = n - i < PF_LANES ? n - i : PF_LANES;
        int32_t any = 0;
        if (end == PF_LANES)
            for (int64_t l = 0; l < PF_LANES; l++)
                any |= (x[i + l] >= low) & (x[i + l] < high);
        if (end == PF_LANES && !any)
            continue;
        for (int64_t l = 0; l < end && found < most; l++)
            if (x[i + l] >= low && x[i + l] < high)
                index[found++] = (int32_t)(i + l);
    }
    return found;
}

PF_KERNEL_OF(int64_t, row_between,
             (int64_t n, const float *x, float low, float high, int64_t most, int32_t *index),
             (n, x, low, high, most, index))
