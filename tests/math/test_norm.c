/* Layer norm against plain double, its gradients against central differences of that, constant and
 * far-off rows, and bits that do not depend on the cut. */
#include "levels.h"

#include "math/pf_ops.h"

static const int64_t widths[] = {1, 2, 63, 64, 65, 127, 512};
enum { N_WIDTHS = 7, ROWS = 4 };
static const double epsilon = 1e-5;

static void reference(int64_t n, const double *x, const float *gamma, const float *beta, double *y,
                      double *mean, double *rstd)
{
    double sum = 0, squares = 0;
    for (int64_t j = 0; j < n; j++)
        sum += x[j];
    *mean = sum / (double)n;
    for (int64_t j = 0; j < n; j++)
        squares += (x[j] - *mean) * (x[j] - *mean);
    *rstd = 1 / sqrt(squares / (double)n + epsilon);
    for (int64_t j = 0; j < n; j++)
        y[j] = (x[j] - *mean) * *rstd * (double)gamma[j] + (double)beta[j];
}

static void check_forward(int64_t width, double scale, double shift)
{
    int64_t n = ROWS * width;
    float *x = floats(n, scale, 1), *gamma = floats(width, 1, 2), *beta = floats(width, 1, 3);
    for (int64_t i = 0; i < n; i++)
        x[i] += (float)shift;
    float *first = NULL;
    EACH_LEVEL
    {
        float *y = floats(n, 1, 4), *again = floats(n, 1, 5), *row = floats(n, 1, 6);
        float *place = copy_of(x, n), mean[ROWS], rstd[ROWS], m, r;
        pf_layer_norm(0, width, x, gamma, beta, epsilon, y, mean, rstd);
        pf_layer_norm(ROWS, width, x, gamma, beta, epsilon, y, mean, rstd);
        pf_layer_norm_apply(ROWS, width, x, mean, rstd, gamma, beta, again);
        check_guard(y, n), check_guard(again, n);
        SAME_BITS(again, y, n);
        for (int64_t i = 0; i < ROWS; i++) {
            pf_layer_norm(1, width, x + i * width, gamma, beta, epsilon, row + i * width, &m, &r);
            ck_assert(m == mean[i] && r == rstd[i]);
            double in[512], want[512], want_mean, want_rstd;
            for (int64_t j = 0; j < width; j++)
                in[j] = (double)x[i * width + j];
            reference(width, in, gamma, beta, want, &want_mean, &want_rstd);
            NEAR((double)mean[i], want_mean, 6e-8, 1e-30);
            NEAR((double)rstd[i], want_rstd, 3e-7, 0);
            /* the mean's rounding moves a row as a whole */
            double off = 1e-7 * fabs(want_mean) * want_rstd;
            for (int64_t j = 0; j < width; j++)
                NEAR((double)y[i * width + j], want[j], 1e-6 + 4 * off, 1 + fabs(want[j]));
        }
        SAME_BITS(row, y, n);
        pf_layer_norm(ROWS, width, place, gamma, beta, epsilon, place, mean, rstd);
        SAME_BITS(place, y, n);
        if (first == NULL)
            first = copy_of(y, n);
        SAME_BITS(first, y, n);
        free(y), free(again), free(row), free(place);
    }
    free(x), free(gamma), free(beta), free(first);
}

START_TEST(forward)
{
    for (int w = 0; w < N_WIDTHS; w++) {
        check_forward(widths[w], 1, 0);
        check_forward(widths[w], 1e-4, 0); /* epsilon matters */
        check_forward(widths[w], 3, 100);
        check_forward(widths[w], 1e8, 1e9);
    }
}
END_TEST

START_TEST(constant_rows_give_beta)
{
    float x[65], gamma[65], beta[65], y[65], mean, rstd;
    for (int64_t j = 0; j < 65; j++) {
        x[j] = 12345.678f;
        gamma[j] = 2;
        beta[j] = (float)j;
    }
    EACH_LEVEL
    {
        pf_layer_norm(1, 65, x, gamma, beta, epsilon, y, &mean, &rstd);
        ck_assert(mean == x[0]);
        NEAR((double)rstd, 1 / sqrt(epsilon), 1e-7, 0);
        SAME_BITS(y, beta, 65);
    }
}
END_TEST

START_TEST(nan_stays)
{
    float x[70] = {0}, gamma[70] = {0}, y[70], mean, rstd;
    x[66] = NAN;
    EACH_LEVEL
    {
        pf_layer_norm(1, 70, x, gamma, gamma, epsilon, y, &mean, &rstd);
        ck_assert(isnan(mean) && isnan(rstd) && isnan(y[0]) && isnan(y[69]));
    }
}
END_TEST

/* L = sum of dy y, of one row. */
static double loss(int64_t n, const double *x, const float *gamma, const float *beta,
                   const float *dy)
{
    double y[512], mean, rstd, sum = 0;
    reference(n, x, gamma, beta, y, &mean, &rstd);
    for (int64_t j = 0; j < n; j++)
        sum += (double)dy[j] * y[j];
    return sum;
}

START_TEST(backward)
{
    for (int w = 0; w < N_WIDTHS; w++) {
        int64_t width = widths[w], n = ROWS * width;
        float *x = floats(n, 2, 1), *gamma = floats(width, 1, 2), *beta = floats(width, 1, 3);
        float *dy = floats(n, 1, 4), *y = floats(n, 1, 5), *before = floats(n, 1, 6);
        float *first = NULL, *first_gamma = NULL;
        EACH_LEVEL
        {
            float mean[ROWS], rstd[ROWS];
            pf_layer_norm(ROWS, width, x, gamma, beta, epsilon, y, mean, rstd);
            float *dx = copy_of(before, n), *dgamma = copy_of(gamma, width);
            float *dbeta = copy_of(beta, width);
            pf_layer_norm_backward(ROWS, width, x, mean, rstd, gamma, dy, dx, dgamma, dbeta);
            check_guard(dx, n), check_guard(dgamma, width), check_guard(dbeta, width);
            for (int64_t i = 0; i < ROWS; i++) {
                double in[512], h = 1e-4;
                for (int64_t j = 0; j < width; j++)
                    in[j] = (double)x[i * width + j];
                for (int64_t j = 0; j < width; j += 1 + width / 70) {
                    double at = in[j], up, down;
                    in[j] = at + h;
                    up = loss(width, in, gamma, beta, dy + i * width);
                    in[j] = at - h;
                    down = loss(width, in, gamma, beta, dy + i * width);
                    in[j] = at;
                    double want = (double)before[i * width + j] + (up - down) / (2 * h);
                    NEAR((double)dx[i * width + j], want, 3e-6, 1);
                }
            }
            for (int64_t j = 0; j < width; j++) {
                double want_gamma = (double)gamma[j], want_beta = (double)beta[j];
                for (int64_t i = 0; i < ROWS; i++) {
                    double xhat = ((double)x[i * width + j] - (double)mean[i]) * (double)rstd[i];
                    want_gamma += (double)dy[i * width + j] * xhat;
                    want_beta += (double)dy[i * width + j];
                }
                NEAR((double)dgamma[j], want_gamma, 1e-6, 4);
                NEAR((double)dbeta[j], want_beta, 1e-6, 4);
            }
            float *row = copy_of(before, n), *row_gamma = copy_of(gamma, width);
            float *row_beta = copy_of(beta, width);
            for (int64_t i = 0; i < ROWS; i++)
                pf_layer_norm_backward(1, width, x + i * width, mean + i, rstd + i, gamma,
                                       dy + i * width, row + i * width, row_gamma, row_beta);
            SAME_BITS(row, dx, n);
            SAME_BITS(row_gamma, dgamma, width);
            SAME_BITS(row_beta, dbeta, width);
            if (first == NULL) {
                first = copy_of(dx, n);
                first_gamma = copy_of(dgamma, width);
            }
            SAME_BITS(first, dx, n);
            SAME_BITS(first_gamma, dgamma, width);
            free(dx), free(dgamma), free(dbeta), free(row), free(row_gamma), free(row_beta);
        }
        free(x), free(gamma), free(beta), free(dy), free(y), free(before);
        free(first), free(first_gamma);
    }
}
END_TEST

TEST_MAIN("norm", forward, constant_rows_give_beta, nan_stays, backward)
