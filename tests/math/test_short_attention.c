/* The attention of short rows against plain double, forward and backward. */
#include "levels.h"

#include "math/pf_short_attention.h"

enum { PAD = 3 };

/* n keys in three blocks, each with strides of its own; the first may be empty. */
static void check(int64_t width, int64_t n0, int64_t n1, int64_t n2)
{
    int64_t n = n0 + n1 + n2, counts[3] = {n0, n1, n2};
    float *q = floats(width, 1, 1), *dy = floats(width, 1, 2);
    float *data[3], *before = floats(n * (2 * width + PAD), 1, 6);
    double *p = calloc((size_t)n, 8), *dp = calloc((size_t)n, 8), scale = 1 / sqrt((double)width);
    for (int64_t b = 0; b < 3; b++)
        data[b] = floats(counts[b] * (2 * width + PAD), 1, 3 + b);
    const float **key = calloc((size_t)n, sizeof *key);
    double total = 0, mean = 0;
    for (int64_t b = 0, t = 0; b < 3; b++)
        for (int64_t j = 0; j < counts[b]; j++, t++) {
            key[t] = data[b] + j * (2 * width + PAD);
            for (int64_t l = 0; l < width; l++) {
                p[t] += (double)q[l] * (double)key[t][l];
                dp[t] += (double)dy[l] * (double)key[t][width + l];
            }
            total += p[t] = exp(scale * p[t]);
        }
    for (int64_t t = 0; t < n; t++)
        mean += (p[t] /= total) * dp[t];
    EACH_LEVEL
    {
        float *y = floats(width, 1, 7), *dq = floats(width, 1, 8), *was = floats(width, 1, 8);
        float *grad = copy_of(before, n * (2 * width + PAD));
        pf_short_row row = {.width = width,
                            .scale = (float)scale,
                            .q = q,
                            .n_blocks = 3,
                            .y = y,
                            .dy = dy,
                            .dq = dq};
        for (int64_t b = 0, t = 0; b < 3; t += counts[b++])
            row.block[b] = (pf_short_block){.n = counts[b],
                                            .stride = 2 * width + PAD,
                                            .keys = data[b],
                                            .values = data[b] + width,
                                            .dkeys = grad + t * (2 * width + PAD),
                                            .dvalues = grad + t * (2 * width + PAD) + width};
        pf_short_attend(&row);
        pf_short_attend_backward(&row);
        check_guard(y, width);
        check_guard(grad, n * (2 * width + PAD));
        for (int64_t l = 0; l < width; l++) {
            double want = 0, want_dq = (double)was[l];
            for (int64_t t = 0; t < n; t++) {
                double ds = scale * p[t] * (dp[t] - mean);
                const float *g = grad + t * (2 * width + PAD), *b = before + t * (2 * width + PAD);
                want += p[t] * (double)key[t][width + l];
                want_dq += ds * (double)key[t][l];
                NEAR((double)g[l], (double)b[l] + ds * (double)q[l], 2e-6, 1);
                NEAR((double)g[width + l], (double)b[width + l] + p[t] * (double)dy[l], 2e-6, 1);
            }
            NEAR((double)y[l], want, 2e-6, 1);
            NEAR((double)dq[l], want_dq, 4e-6, 1);
        }
        for (int64_t t = 0; t < n; t++) /* between the rows nothing is written */
            SAME_BITS(grad + t * (2 * width + PAD) + 2 * width,
                      before + t * (2 * width + PAD) + 2 * width, PAD);
        free(y), free(dq), free(was), free(grad);
    }
    for (int64_t b = 0; b < 3; b++)
        free(data[b]);
    free(q), free(dy), free(before), free(p), free(dp), free(key);
}

START_TEST(numbers)
{
    static const int64_t widths[] = {1, 6, 16, 24, 64, 256};
    for (int i = 0; i < 6; i++) {
        check(widths[i], 1, 0, 0);
        check(widths[i], 2, 3, 0);
        check(widths[i], 0, 16, 1);
        check(widths[i], 9, 8, 47);
    }
}
END_TEST

/* As pf_softmax_rows has it. */
START_TEST(what_is_not_finite)
{
    EACH_LEVEL
    {
        float q[2] = {1, 0}, keys[3][4] = {{1, 0, 5, 6}, {-INFINITY, 0, 7, 8}, {0.5f, 0, 9, 10}};
        float y[2];
        pf_short_row row = {.width = 2, .scale = 1, .q = q, .n_blocks = 1, .y = y};
        row.block[0] =
            (pf_short_block){.n = 3, .stride = 4, .keys = keys[0], .values = keys[0] + 2};
        pf_short_attend(&row);
        double p = 1 / (1 + exp(-0.5));
        NEAR((double)y[0], 5 * p + 9 * (1 - p), 1e-6, 1);
        keys[0][0] = keys[2][0] = -INFINITY;
        pf_short_attend(&row);
        ck_assert(y[0] == 0 && y[1] == 0);
        keys[2][0] = INFINITY;
        pf_short_attend(&row);
        ck_assert(isnan(y[0]) && isnan(y[1]));
        keys[2][0] = NAN;
        pf_short_attend(&row);
        ck_assert(isnan(y[0]) && isnan(y[1]));
    }
}
END_TEST

TEST_MAIN("short_attention", numbers, what_is_not_finite)
