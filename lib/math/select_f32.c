/* Passes that find a place in the order of a row without sorting it. */
#include "math/pf_lanes.h"
#include "math/pf_rows.h"

PF_INLINE void row_at_least_body(int64_t n, const float *restrict x, const float *restrict weight,
                                 const float *restrict threshold, int64_t *restrict count,
                                 double *restrict mass)
{
    int64_t whole = n / PF_LANES * PF_LANES;
    for (int64_t j = 0; j < PF_THRESHOLDS; j++) {
        float t = threshold[j], sum[PF_LANES] = {0};
        int32_t many[PF_LANES] = {0};
        for (int64_t i = 0; i < whole; i += PF_LANES)
            for (int64_t l = 0; l < PF_LANES; l++) {
                many[l] += x[i + l] >= t;
                sum[l] += x[i + l] >= t ? weight[i + l] : 0.0f;
            }
        for (int64_t l = 0; l < n - whole; l++) {
            many[l] += x[whole + l] >= t;
            sum[l] += x[whole + l] >= t ? weight[whole + l] : 0.0f;
        }
        double total = 0;
        for (int64_t l = 0; l < PF_LANES; l++) {
            count[j] += many[l];
            total += (double)sum[l];
        }
        mass[j] += total;
    }
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
