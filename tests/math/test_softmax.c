/* Causal softmax, forward, again and backward, against plain double: live columns, huge, equal,
 * infinite and NaN scores, and bits that do not depend on the cut. */
#include "levels.h"

#include "math/pf_ops.h"

static int64_t live_of(int64_t columns, int64_t first, int64_t row)
{
    int64_t live = first + row + 1;
    return live < columns ? live : columns;
}

static double reference(int64_t n, const double *s, double scale, double *p)
{
    double max = -INFINITY, sum = 0;
    for (int64_t j = 0; j < n; j++)
        max = fmax(max, s[j]);
    for (int64_t j = 0; j < n; j++)
        sum += exp(scale * (s[j] - max));
    for (int64_t j = 0; j < n; j++)
        p[j] = exp(scale * (s[j] - max)) / sum;
    return scale * max + log(sum);
}

static void check(int64_t rows, int64_t columns, int64_t first, double magnitude, float scale)
{
    int64_t ld = columns + 3, n = rows * ld;
    float *s = floats(n, magnitude, 1), *dp = floats(n, 1, 2);
    for (int64_t i = 0; i < rows; i++) /* what is not live must not matter */
        for (int64_t j = live_of(columns, first, i); j < columns; j++)
            s[i * ld + j] = dp[i * ld + j] = j % 2 ? NAN : INFINITY;
    float *one = NULL, *one_ds = NULL;
    EACH_LEVEL
    {
        float *p = copy_of(s, n), *lse = floats(rows, 1, 3), *again = copy_of(s, n);
        float *ds = copy_of(dp, n);
        pf_softmax_rows(0, columns, ld, first, scale, p, lse);
        pf_softmax_rows(rows, columns, ld, first, scale, p, lse);
        pf_softmax_again(rows, columns, ld, first, scale, lse, again);
        pf_softmax_backward(rows, columns, ld, first, scale, p, ds);
        check_guard(p, n), check_guard(again, n), check_guard(ds, n), check_guard(lse, rows);
        for (int64_t i = 0; i < rows; i++) {
            double in[600], want[600], dot = 0;
            int64_t live = live_of(columns, first, i), at = i * ld;
            for (int64_t j = 0; j < live; j++)
                in[j] = (double)s[at + j];
            NEAR((double)lse[i], reference(live, in, (double)scale, want), 1e-7, 1);
            for (int64_t j = 0; j < live; j++) {
                /* exp's argument is a rounded product of a rounded difference */
                double tolerance = 3e-7 * (2 - log(fmax(want[j], 1e-30)));
                NEAR((double)p[at + j], want[j], tolerance, 1e-30);
                NEAR((double)again[at + j], want[j], tolerance, 1e-30);
                dot += (double)p[at + j] * (double)dp[at + j];
            }
            for (int64_t j = 0; j < live; j++)
                NEAR((double)ds[at + j],
                     (double)scale * (double)p[at + j] * ((double)dp[at + j] - dot), 2e-6,
                     (double)scale * (double)p[at + j]);
            for (int64_t j = live; j < columns; j++)
                ck_assert(p[at + j] == 0 && again[at + j] == 0 && ds[at + j] == 0);
            for (int64_t j = columns; j < ld; j++)
                ck_assert(p[at + j] == s[at + j] && ds[at + j] == dp[at + j]);
        }
        float *row = copy_of(s, n), *row_ds = copy_of(dp, n), row_lse;
        for (int64_t i = 0; i < rows; i++) {
            pf_softmax_rows(1, columns, ld, first + i, scale, row + i * ld, &row_lse);
            ck_assert(row_lse == lse[i]);
            pf_softmax_backward(1, columns, ld, first + i, scale, p + i * ld, row_ds + i * ld);
        }
        SAME_BITS(row, p, n);
        SAME_BITS(row_ds, ds, n);
        if (one == NULL) {
            one = copy_of(p, n);
            one_ds = copy_of(ds, n);
        }
        SAME_BITS(one, p, n);
        SAME_BITS(one_ds, ds, n);
        free(p), free(lse), free(again), free(ds), free(row), free(row_ds);
    }
    free(s), free(dp), free(one), free(one_ds);
}

START_TEST(against_double)
{
    static const int64_t columns[] = {1, 2, 63, 64, 65, 127, 512};
    for (int c = 0; c < 7; c++) {
        check(3, columns[c], columns[c], 1, 1); /* all live */
        check(70, columns[c], 0, 2, 0.125f);    /* the triangle, and beyond it */
        check(5, columns[c], 60, 1e4, 0.125f);  /* exp overflows but for the maximum */
        check(5, columns[c], 3, 1e-3, 1e4f);
    }
}
END_TEST

/* The gradient that backward gives is that of L = sum of dp p(s). */
START_TEST(backward_is_the_gradient)
{
    enum { N = 65 };
    float *s = floats(N, 1, 1), *dp = floats(N, 1, 2);
    float scale = 0.25f;
    EACH_LEVEL
    {
        float *p = copy_of(s, N), *ds = copy_of(dp, N), lse;
        pf_softmax_rows(1, N, N, N, scale, p, &lse);
        pf_softmax_backward(1, N, N, N, scale, p, ds);
        double in[N], q[N], h = 1e-5;
        for (int64_t j = 0; j < N; j++)
            in[j] = (double)s[j];
        for (int64_t j = 0; j < N; j++) {
            double loss[2];
            for (int side = 0; side < 2; side++) {
                in[j] = (double)s[j] + (side ? h : -h);
                reference(N, in, (double)scale, q);
                loss[side] = 0;
                for (int64_t l = 0; l < N; l++)
                    loss[side] += (double)dp[l] * q[l];
            }
            in[j] = (double)s[j];
            NEAR((double)ds[j], (loss[1] - loss[0]) / (2 * h), 1e-6, 0.01);
        }
        free(p), free(ds);
    }
    free(s), free(dp);
}
END_TEST

START_TEST(corners)
{
    EACH_LEVEL
    {
        float s[200], lse;
        for (int64_t j = 0; j < 200; j++)
            s[j] = -1e4f;
        pf_softmax_rows(1, 200, 200, 199, 2, s, &lse);
        for (int64_t j = 0; j < 200; j++)
            NEAR((double)s[j], 1.0 / 200, 1e-7, 0);
        NEAR((double)lse, -2e4 + log(200), 1e-7, 0);

        float masked[3] = {1, -INFINITY, 1};
        pf_softmax_rows(1, 3, 3, 2, 1, masked, &lse);
        ck_assert(masked[0] == 0.5f && masked[1] == 0 && masked[2] == 0.5f);

        for (int again = 0; again < 2; again++) {
            float none[2] = {-INFINITY, -INFINITY}, bad[3] = {1, NAN, 2}, high[2] = {1, INFINITY};
            float lse_none = -INFINITY, lse_bad = NAN, lse_high = NAN;
            if (again) {
                pf_softmax_again(1, 2, 2, 1, 1, &lse_none, none);
                pf_softmax_again(1, 3, 3, 2, 1, &lse_bad, bad);
                pf_softmax_again(1, 2, 2, 1, 1, &lse_high, high);
            } else {
                pf_softmax_rows(1, 2, 2, 1, 1, none, &lse_none);
                pf_softmax_rows(1, 3, 3, 2, 1, bad, &lse_bad);
                pf_softmax_rows(1, 2, 2, 1, 1, high, &lse_high);
            }
            ck_assert(none[0] == 0 && none[1] == 0 && lse_none == -INFINITY);
            ck_assert(isnan(bad[0]) && isnan(bad[1]) && isnan(bad[2]) && isnan(lse_bad));
            ck_assert(isnan(high[0]) && isnan(high[1]) && isnan(lse_high));
        }
        /* no columns */
        pf_softmax_rows(1, 0, 0, 0, 1, s, &lse);
        ck_assert(lse == -INFINITY);
    }
}
END_TEST

TEST_MAIN("softmax", against_double, backward_is_the_gradient, corners)
