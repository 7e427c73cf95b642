/* Log-probabilities from logits against a plain double reference, their gradients by central
 * differences of that reference, masks, skipped rows, bad input. */
#include <float.h>
#include <stdbool.h>

#include "logits_test.h"
#include "math/pf_rows.h"

/* ---------------------------------------------------------------- passes over rows */

START_TEST(row_passes)
{
    float x[200], e[200], max, largest;
    for (int64_t n = 0; n <= 200; n += n < 130 ? 1 : 35) {
        double sum = 0, top = -INFINITY, magnitude = 0;
        for (int64_t i = 0; i < n; i++) {
            x[i] = (float)(-90.0 * (double)((i * 37 + 5) % 101) / 101);
            top = fmax(top, x[i]);
            magnitude = fmax(magnitude, fabs((double)x[i]));
        }
        ck_assert(pf_row_max(n, x, &max) && (double)max == top);
        ck_assert(pf_row_finite(n, x, &largest) && (double)largest == magnitude);
        e[n < 200 ? n : 199] = 7;
        double got = pf_row_exp_sum(n, x, 0, 1, e);
        for (int64_t i = 0; i < n; i++) {
            double expected = x[i] > -87.0f ? exp((double)x[i]) : 0;
            if (!(fabs((double)e[i] - expected) <= 1.2e-7 * expected))
                ck_abort_msg("exp(%g) is %g", (double)x[i], (double)e[i]);
            sum += (double)e[i];
        }
        CLOSE(got, sum, 1e-14);
        CLOSE(pf_row_exp_sum(n, x, 0, 1, NULL), got, 0);
        if (n < 200)
            ck_assert(e[n] == 7);
        for (int64_t i = 0; i < n; i += 13) {
            float kept = x[i];
            x[i] = NAN;
            ck_assert(!pf_row_max(n, x, &max) && pf_row_find_bad(n, x) == i);
            x[i] = INFINITY;
            ck_assert(!pf_row_max(n, x, &max) && !pf_row_finite(n, x, &largest));
            x[i] = -INFINITY;
            ck_assert(pf_row_max(n, x, &max) && !pf_row_finite(n, x, &largest));
            x[i] = kept;
        }
    }
}
END_TEST

/* ---------------------------------------------------------------- from logits */

/* Rows of logits with a stride, a skipped row, masked tokens, ties, saturated rows. */
enum { ROWS = 6, VOCAB = 71, STRIDE = 75 };
static const int32_t targets[ROWS] = {3, -1, 70, 0, 12, 33};

static float *some_logits(void)
{
    float *x = floats(ROWS * STRIDE, 3, 1);
    for (int64_t j = 0; j < VOCAB; j++) {
        x[1 * STRIDE + j] = NAN; /* skipped */
        x[3 * STRIDE + j] = 2;   /* all tied */
    }
    x[2 * STRIDE + 5] = x[2 * STRIDE + 6] = -INFINITY;
    x[4 * STRIDE + 12] = 700; /* certain */
    x[5 * STRIDE + 2] = 700;  /* the target all but impossible */
    return x;
}

static double reference_row(const float *row, int64_t vocab, int32_t target, double temperature,
                            int64_t moved, double by)
{
    double *z = malloc((size_t)vocab * sizeof *z);
    for (int64_t j = 0; j < vocab; j++)
        z[j] = (double)row[j] + (j == moved ? by : 0);
    double value = reference_logp(vocab, z, target, temperature);
    free(z);
    return value;
}

START_TEST(from_logits)
{
    static const double temperatures[] = {1, 0.5, 3};
    float *x = some_logits();
    float *own = malloc(ROWS * STRIDE * sizeof *own);
    double grad_logp[ROWS] = {0.7, 0.4, -2, 1, 0.3, 1};
    grad_logp[1] = NAN; /* of a skipped row: not looked at */
    for (int v = 0; v < 3; v++) {
        double t = temperatures[v], logp[ROWS];
        OK(prefopt_logprobs_from_logits(ROWS, VOCAB, x, STRIDE, targets, t, logp));
        for (int64_t i = 0; i < ROWS * STRIDE; i++)
            own[i] = -9;
        OK(prefopt_logprobs_backward(ROWS, VOCAB, x, STRIDE, targets, t, grad_logp, own));
        for (int64_t i = 0; i < ROWS; i++) {
            const float *row = x + i * STRIDE, *grad = own + i * STRIDE;
            for (int64_t j = VOCAB; j < STRIDE; j++)
                ck_assert(grad[j] == -9);
            if (targets[i] < 0)
                ck_assert(logp[i] == 0);
            else
                CLOSE(logp[i], reference_row(row, VOCAB, targets[i], t, -1, 0), 3e-7);
            for (int64_t j = 0; j < VOCAB; j++) {
                double h = 1e-5, expected = 0;
                if (targets[i] >= 0 && isfinite(row[j]))
                    expected = grad_logp[i] *
                               (reference_row(row, VOCAB, targets[i], t, j, h) -
                                reference_row(row, VOCAB, targets[i], t, j, -h)) /
                               (2 * h);
                if (!(fabs((double)grad[j] - expected) <= 3e-7 * (1 + fabs(expected))))
                    ck_abort_msg("grad[%d, %d] is %g, expected %g", (int)i, (int)j, (double)grad[j],
                                 expected);
            }
        }
        /* in place: the same bits */
        float *place = some_logits();
        OK(prefopt_logprobs_backward(ROWS, VOCAB, place, STRIDE, targets, t, grad_logp, place));
        for (int64_t i = 0; i < ROWS; i++)
            ck_assert_mem_eq(place + i * STRIDE, own + i * STRIDE, VOCAB * sizeof *own);
        free(place);
    }
    free(x), free(own);
}
END_TEST

START_TEST(large_vocabulary_and_many_rows)
{
    enum { V = 50304, N = 3000 };
    float *x = floats(V, 4, 2), *z = floats(N * 3, 1, 3);
    int32_t target = 12345, *many = calloc(N, sizeof *many);
    double logp, *each = malloc(N * sizeof *each);
    OK(prefopt_logprobs_from_logits(1, V, x, V, &target, 1, &logp));
    CLOSE(logp / reference_row(x, V, target, 1, -1, 0), 1, 1e-7);
    OK(prefopt_logprobs_from_logits(N, 3, z, 3, many, 1, each));
    for (int64_t i = 0; i < N; i += 100)
        CLOSE(each[i], reference_row(z + i * 3, 3, 0, 1, -1, 0), 3e-7);
    /* more rows than the stack's buffer: still nothing is written on failure */
    z[N * 3 - 1] = NAN;
    each[0] = 5;
    FAILS(NUMERIC, "logits[2999, 2] is nan",
          prefopt_logprobs_from_logits(N, 3, z, 3, many, 1, each));
    ck_assert(each[0] == 5);
    free(x), free(z), free(many), free(each);
}
END_TEST

START_TEST(masked_target_and_extreme_temperature)
{
    float x[4] = {0, -INFINITY, 1, 2}, grad[4];
    int32_t masked = 1, top = 3, low = 0;
    double logp, one = 1;
    OK(prefopt_logprobs_from_logits(1, 4, x, 4, &masked, 1, &logp));
    ck_assert(logp == -INFINITY);
    OK(prefopt_logprobs_backward(1, 4, x, 4, &masked, 1, &one, grad));
    ck_assert(grad[1] == 0 && grad[0] < 0 && isfinite(grad[3]));
    OK(prefopt_logprobs_from_logits(1, 4, x, 4, &top, 1e-300, &logp));
    ck_assert(logp == 0);
    OK(prefopt_logprobs_from_logits(1, 4, x, 4, &low, 1e-300, &logp));
    ck_assert(logp < -1e299);
    OK(prefopt_logprobs_from_logits(1, 4, x, 4, &low, 1e300, &logp));
    CLOSE(logp, -log(3), 1e-7);
    OK(prefopt_logprobs_backward(1, 4, x, 4, &top, 1e300, &one, grad));
    ck_assert(grad[1] == 0 && grad[3] == 0);
    FAILS(NUMERIC, "grad_logp[0] is 1 at temperature 1e-300",
          prefopt_logprobs_backward(1, 4, x, 4, &top, 1e-300, &one, grad));
    /* no gradient: zeros, and the logits are not read */
    double zero = 0;
    x[0] = NAN;
    grad[2] = 4;
    OK(prefopt_logprobs_backward(1, 4, x, 4, &top, 1, &zero, grad));
    ck_assert(grad[0] == 0 && grad[2] == 0);
}
END_TEST

START_TEST(from_logits_refuses)
{
    float x[8] = {1, 2, 3, 4, 5, 6, 7, 8}, grad[8] = {9};
    int32_t t[2] = {0, 3};
    double logp[2] = {8, 8}, g[2] = {1, 1};
    const struct {
        int64_t rows, vocab, stride;
        double temperature;
        const char *text;
    } bad[] = {{-1, 4, 4, 1, "rows is -1"},
               {2, 0, 4, 1, "vocab is 0"},
               {2, INT64_C(1) << 31, INT64_C(1) << 31, 1, "vocab is 2147483648"},
               {2, 4, 3, 1, "row_stride is 3"},
               {INT64_MAX / 4, 4, 4, 1, "overflows"},
               {2, 4, 4, 0, "temperature is 0"},
               {2, 4, 4, -1, "temperature is -1"},
               {2, 4, 4, INFINITY, "temperature is inf"},
               {2, 4, 4, NAN, "temperature is nan"}};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        FAILS(ARGUMENT, bad[i].text,
              prefopt_logprobs_from_logits(bad[i].rows, bad[i].vocab, x, bad[i].stride, t,
                                           bad[i].temperature, logp));
        FAILS(ARGUMENT, bad[i].text,
              prefopt_logprobs_backward(bad[i].rows, bad[i].vocab, x, bad[i].stride, t,
                                        bad[i].temperature, g, grad));
    }
    FAILS(ARGUMENT, "logits is NULL", prefopt_logprobs_from_logits(2, 4, NULL, 4, t, 1, logp));
    FAILS(ARGUMENT, "target is NULL", prefopt_logprobs_from_logits(2, 4, x, 4, NULL, 1, logp));
    FAILS(ARGUMENT, "logp is NULL", prefopt_logprobs_from_logits(2, 4, x, 4, t, 1, NULL));
    FAILS(ARGUMENT, "logits is NULL", prefopt_logprobs_backward(2, 4, NULL, 4, t, 1, g, grad));
    FAILS(ARGUMENT, "target is NULL", prefopt_logprobs_backward(2, 4, x, 4, NULL, 1, g, grad));
    FAILS(ARGUMENT, "grad_logp is NULL", prefopt_logprobs_backward(2, 4, x, 4, t, 1, NULL, grad));
    FAILS(ARGUMENT, "grad_logits is NULL", prefopt_logprobs_backward(2, 4, x, 4, t, 1, g, NULL));
    t[1] = 4;
    FAILS(ARGUMENT, "target[1] is 4", prefopt_logprobs_from_logits(2, 4, x, 4, t, 1, logp));
    t[1] = -2;
    FAILS(ARGUMENT, "target[1] is -2", prefopt_logprobs_backward(2, 4, x, 4, t, 1, g, grad));
    t[1] = 2;
    static const float values[] = {NAN, INFINITY};
    for (int i = 0; i < 2; i++) {
        x[5] = values[i];
        FAILS(NUMERIC, "logits[1, 1]", prefopt_logprobs_from_logits(2, 4, x, 4, t, 1, logp));
        FAILS(NUMERIC, "logits[1, 1]", prefopt_logprobs_backward(2, 4, x, 4, t, 1, g, grad));
        FAILS(NUMERIC, "logits[1, 1]", prefopt_logprobs_backward(2, 4, x, 4, t, 1, g, x));
        ck_assert(x[0] == 1);
    }
    x[4] = x[5] = x[6] = x[7] = -INFINITY;
    FAILS(NUMERIC, "every logit of row 1", prefopt_logprobs_from_logits(2, 4, x, 4, t, 1, logp));
    FAILS(NUMERIC, "every logit of row 1", prefopt_logprobs_backward(2, 4, x, 4, t, 1, g, grad));
    x[4] = x[5] = x[6] = x[7] = 0;
    g[1] = NAN;
    FAILS(NUMERIC, "grad_logp[1]", prefopt_logprobs_backward(2, 4, x, 4, t, 1, g, grad));
    ck_assert(logp[0] == 8 && logp[1] == 8 && grad[0] == 9);
    OK(prefopt_logprobs_from_logits(0, 4, NULL, 4, NULL, 1, NULL));
    OK(prefopt_logprobs_backward(0, 4, NULL, 4, NULL, 1, NULL, NULL));
}
END_TEST

TEST_MAIN("logits", row_passes, from_logits, large_vocabulary_and_many_rows,
          masked_target_and_extreme_temperature, from_logits_refuses)
