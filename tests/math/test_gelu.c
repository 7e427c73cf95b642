/* GELU against erfc and tanh in double: every float on a fine grid, the left tail down to
 * underflow, infinities and NaN; the derivative by central differences of the reference. */
#include "levels.h"

#include <float.h>

#include "math/pf_ops.h"

static double exact(double x) { return 0.5 * x * erfc(-x / sqrt(2)); }

static double tanh_form(double x)
{
    double z = 2 * sqrt(2 / acos(-1)) * (x + 0.044715 * x * x * x);
    return z > 0 ? x / (1 + exp(-z)) : x * exp(z) / (1 + exp(z));
}

static double slope(double (*f)(double), double x)
{
    double h = 1e-4;
    return (8 * (f(x + h) - f(x - h)) - (f(x + 2 * h) - f(x - 2 * h))) / (12 * h);
}

enum { N = 8001 };

START_TEST(exact_form_has_few_ulps_down_to_underflow)
{
    float *x = malloc(N * sizeof *x), *y = malloc(N * sizeof *y);
    EACH_LEVEL
    {
        double worst = 0;
        for (int64_t part = 0; part < 8; part++) {
            /* -14 .. 14, then ever closer around 0 */
            double range = part == 0 ? 14 : pow(10, (double)-part);
            for (int64_t i = 0; i < N; i++)
                x[i] = (float)(range * ((double)i / (N / 2) - 1));
            pf_gelu(1, N, PF_GELU, x, NULL, y);
            for (int64_t i = 0; i < N; i++) {
                double want = exact((double)x[i]);
                double error = fabs((double)y[i] - want) / fmax(fabs(want), FLT_MIN);
                if (fabs(want) < FLT_MIN && y[i] == 0)
                    continue;
                if (!(error <= 4 * (double)FLT_EPSILON))
                    ck_abort_msg("gelu(%.9g) = %.9g, expected %.9g, error %g ulp, level %d",
                                 (double)x[i], (double)y[i], want, error / (double)FLT_EPSILON,
                                 (int)level);
                worst = fmax(worst, error / (double)FLT_EPSILON);
            }
        }
        ck_assert_msg(worst > 0.25, "suspiciously exact");
    }
    free(x), free(y);
}
END_TEST

START_TEST(tanh_form_agrees)
{
    float *x = malloc(N * sizeof *x), *y = malloc(N * sizeof *y);
    EACH_LEVEL
    {
        for (int64_t i = 0; i < N; i++)
            x[i] = (float)(14 * ((double)i / (N / 2) - 1));
        pf_gelu(1, N, PF_GELU_TANH, x, NULL, y);
        for (int64_t i = 0; i < N; i++) {
            double want = tanh_form((double)x[i]);
            /* The relative error is that of exp's argument, down to -87; below 1e-36 it is 0. */
            NEAR((double)y[i], want, 3e-5, 1e-32);
            if (x[i] > -4)
                NEAR((double)y[i], want, 4e-6, 1e-32);
            if (x[i] > -1)
                NEAR((double)y[i], want, 6e-7, 1e-32);
        }
    }
    free(x), free(y);
}
END_TEST

START_TEST(slopes)
{
    float *x = malloc(N * sizeof *x), *dy = malloc(N * sizeof *dy);
    EACH_LEVEL for (int32_t form = 0; form < 2; form++)
    {
        for (int64_t i = 0; i < N; i++) {
            x[i] = (float)(14 * ((double)i / (N / 2) - 1));
            dy[i] = i % 2 == 0 ? 3 : -0.5f;
        }
        pf_gelu_backward(1, N, form, x, NULL, dy);
        for (int64_t i = 0; i < N; i++) {
            double want = slope(form == PF_GELU ? exact : tanh_form, (double)x[i]);
            NEAR((double)dy[i] / (i % 2 == 0 ? 3 : -0.5), want, 1e-6, 0.5);
        }
    }
    free(x), free(dy);
}
END_TEST

START_TEST(infinities_and_nan)
{
    EACH_LEVEL for (int32_t form = 0; form < 2; form++)
    {
        float x[6] = {INFINITY, -INFINITY, NAN, FLT_MAX, -FLT_MAX, 0}, y[6];
        float dy[6] = {1, 1, 1, 1, 1, 1};
        pf_gelu(1, 6, form, x, NULL, y);
        pf_gelu_backward(1, 6, form, x, NULL, dy);
        ck_assert(y[0] == INFINITY && y[1] == 0 && isnan(y[2]));
        ck_assert(y[3] == FLT_MAX && y[4] == 0 && y[5] == 0);
        ck_assert(dy[0] == 1 && dy[1] == 0 && isnan(dy[2]));
        ck_assert(dy[3] == 1 && dy[4] == 0 && fabs((double)dy[5] - 0.5) < 1e-7);
    }
}
END_TEST

START_TEST(shapes_bias_and_bits)
{
    static const int64_t widths[] = {1, 2, 63, 64, 65, 127, 512};
    for (size_t w = 0; w < sizeof widths / sizeof widths[0]; w++)
        for (int32_t form = 0; form < 2; form++) {
            enum { ROWS = 5 };
            int64_t width = widths[w], n = ROWS * width;
            float *x = floats(n, 2, 1), *bias = floats(width, 1, 2), *dy = floats(n, 1, 3);
            float *first = NULL, *first_dy = NULL;
            EACH_LEVEL
            {
                float *y = floats(n, 1, 4), *g = copy_of(dy, n), *place = copy_of(x, n);
                pf_gelu(0, width, form, x, bias, y);
                pf_gelu(ROWS, width, form, x, bias, y);
                pf_gelu_backward(ROWS, width, form, x, bias, g);
                check_guard(y, n), check_guard(g, n);
                for (int64_t i = 0; i < n; i++) {
                    double in = (double)(x[i] + bias[i % width]);
                    double (*f)(double) = form == PF_GELU ? exact : tanh_form;
                    NEAR((double)y[i], f(in), 4e-6, 1e-3);
                    NEAR((double)g[i], (double)dy[i] * slope(f, in), 4e-6, 1);
                }
                /* row by row, and in place */
                float *row = floats(n, 1, 5), *row_g = copy_of(dy, n);
                for (int64_t i = 0; i < ROWS; i++) {
                    pf_gelu(1, width, form, x + i * width, bias, row + i * width);
                    pf_gelu_backward(1, width, form, x + i * width, bias, row_g + i * width);
                }
                pf_gelu(ROWS, width, form, place, bias, place);
                SAME_BITS(row, y, n);
                SAME_BITS(row_g, g, n);
                SAME_BITS(place, y, n);
                if (level == 0) {
                    first = copy_of(y, n);
                    first_dy = copy_of(g, n);
                }
                SAME_BITS(first, y, n);
                SAME_BITS(first_dy, g, n);
                free(y), free(g), free(row), free(row_g), free(place);
            }
            free(x), free(bias), free(dy), free(first), free(first_dy);
        }
}
END_TEST

TEST_MAIN("gelu", exact_form_has_few_ulps_down_to_underflow, tanh_form_agrees, slopes,
          infinities_and_nan, shapes_bias_and_bits)
