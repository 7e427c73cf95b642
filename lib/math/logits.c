/* Log-probabilities of targets from float32 logits, and the gradient back.
 *
 * A row is passed over twice: its maximum (which finds NaN and +INFINITY too), then the sum of
 * exponentials. "As before on failure" costs the backward pass one more maximum of every row, read
 * from memory before anything is written; the forward pass only where its results do not fit a
 * small buffer on the stack. */
#include <float.h>
#include <limits.h>
#include <math.h>

#include "math/pf_logits.h"
#include "math/pf_rows.h"
#include "prefopt/logits.h"

/* ---------------------------------------------------------------- checks */

int32_t pf_logits_check_sizes(const char *call, int64_t rows, int64_t vocab, int64_t row_stride)
{
    int64_t elements, bytes;
    if (rows < 0)
        return pf_fail(PREFOPT_ERR_ARGUMENT, "%s: rows is %lld, expected >= 0", call,
                       (long long)rows);
    if (vocab < 1 || vocab > INT32_MAX)
        return pf_fail(PREFOPT_ERR_ARGUMENT, "%s: vocab is %lld, expected 1 to %d", call,
                       (long long)vocab, INT32_MAX);
    if (row_stride < vocab)
        return pf_fail(PREFOPT_ERR_ARGUMENT,
                       "%s: row_stride is %lld, expected at least vocab, %lld", call,
                       (long long)row_stride, (long long)vocab);
    if (!pf_mul(rows, row_stride, &elements) || !pf_mul(elements, sizeof(float), &bytes))
        return pf_fail(PREFOPT_ERR_ARGUMENT, "%s: rows * row_stride overflows (%lld * %lld)", call,
                       (long long)rows, (long long)row_stride);
    return PREFOPT_OK;
}

int32_t pf_logits_check_targets(const char *call, int64_t rows, int64_t vocab,
                                const int32_t *target)
{
    for (int64_t i = 0; i < rows; i++)
        if (target[i] < -1 || target[i] >= vocab)
            return pf_fail(PREFOPT_ERR_ARGUMENT,
                           "%s: target[%lld] is %d, expected -1 or 0 to vocab - 1, %lld", call,
                           (long long)i, target[i], (long long)(vocab - 1));
    return PREFOPT_OK;
}

int32_t pf_logits_check_gradient(const char *call, int64_t rows, const int32_t *target,
                                 double temperature, const double *grad_logp)
{
    for (int64_t i = 0; i < rows; i++)
        if (target[i] >= 0 && !(fabs(grad_logp[i] / temperature) <= FLT_MAX))
            return pf_fail(PREFOPT_ERR_NUMERIC,
                           "%s: grad_logp[%lld] is %g at temperature %g, expected a finite "
                           "quotient in float's range",
                           call, (long long)i, grad_logp[i], temperature);
    return PREFOPT_OK;
}

static int32_t check(const char *call, int64_t rows, int64_t vocab, const float *logits,
                     int64_t row_stride, const int32_t *target, double temperature)
{
    PF_TRY(pf_logits_check_sizes(call, rows, vocab, row_stride));
    if (!(temperature > 0) || !isfinite(temperature))
        return pf_fail(PREFOPT_ERR_ARGUMENT, "%s: temperature is %g, expected > 0 and finite", call,
                       temperature);
    if (rows == 0)
        return PREFOPT_OK;
    if (logits == NULL || target == NULL)
        return pf_fail(PREFOPT_ERR_ARGUMENT, "%s: %s is NULL", call,
                       logits == NULL ? "logits" : "target");
    return pf_logits_check_targets(call, rows, vocab, target);
}

/* ---------------------------------------------------------------- rows */

static int32_t row_max(const char *call, int64_t row, int64_t vocab, const float *x, float *max)
{
    if (!pf_row_max(vocab, x, max)) {
        int64_t column = pf_row_find_bad(vocab, x);
        return pf_fail(PREFOPT_ERR_NUMERIC,
                       "%s: logits[%lld, %lld] is %g, expected a finite number or -inf", call,
                       (long long)row, (long long)column, (double)x[column]);
    }
    if (*max == -INFINITY)
        return pf_fail(PREFOPT_ERR_NUMERIC, "%s: every logit of row %lld is -inf", call,
                       (long long)row);
    return PREFOPT_OK;
}

/* 1 / temperature as a float that keeps 0 * scale at 0 and -inf * scale at -inf. */
static float scale_of(double temperature)
{
    double scale = 1 / temperature;
    return scale > FLT_MAX ? FLT_MAX : scale < FLT_MIN ? FLT_MIN : (float)scale;
}

int32_t prefopt_logprobs_from_logits(int64_t rows, int64_t vocab, const float *logits,
                                     int64_t row_stride, const int32_t *target, double temperature,
                                     double *logp)
{
    PF_TRY(check(__func__, rows, vocab, logits, row_stride, target, temperature));
    if (rows == 0)
        return PREFOPT_OK;
    PF_REQUIRE(logp);
    enum { BUFFERED = 2048 };
    double buffer[BUFFERED], *result = rows <= BUFFERED ? buffer : logp;
    float max;
    for (int64_t i = 0; i < rows && result == logp; i++)
        if (target[i] >= 0)
            PF_TRY(row_max(__func__, i, vocab, logits + i * row_stride, &max));
    float scale = scale_of(temperature);
    for (int64_t i = 0; i < rows; i++) {
        const float *x = logits + i * row_stride;
        result[i] = 0;
        if (target[i] < 0)
            continue;
        PF_TRY(row_max(__func__, i, vocab, x, &max));
        double sum = pf_row_exp_sum(vocab, x, max, scale, NULL);
        result[i] = ((double)x[target[i]] - max) / temperature - log(sum);
    }
    if (result == buffer)
        memcpy(logp, buffer, (size_t)rows * sizeof *logp);
    return PREFOPT_OK;
}

int32_t prefopt_logprobs_backward(int64_t rows, int64_t vocab, const float *logits,
                                  int64_t row_stride, const int32_t *target, double temperature,
                                  const double *grad_logp, float *grad_logits)
{
    PF_TRY(check(__func__, rows, vocab, logits, row_stride, target, temperature));
    if (rows == 0)
        return PREFOPT_OK;
    PF_REQUIRE(grad_logp);
    PF_REQUIRE(grad_logits);
    PF_TRY(pf_logits_check_gradient(__func__, rows, target, temperature, grad_logp));
    float max;
    for (int64_t i = 0; i < rows; i++)
        if (pf_logits_has_gradient(target[i], grad_logp[i]))
            PF_TRY(row_max(__func__, i, vocab, logits + i * row_stride, &max));
    float scale = scale_of(temperature);
    for (int64_t i = 0; i < rows; i++) {
        const float *x = logits + i * row_stride;
        float *grad = grad_logits + i * row_stride;
        if (!pf_logits_has_gradient(target[i], grad_logp[i])) {
            memset(grad, 0, (size_t)vocab * sizeof *grad);
            continue;
        }
        bool masked = x[target[i]] == -INFINITY;
        pf_row_max(vocab, x, &max);
        double sum = pf_row_exp_sum(vocab, x, max, scale, grad);
        double g = grad_logp[i] / temperature;
        double at_target = g * (1 - grad[target[i]] / sum);
        pf_row_scale(vocab, grad, (float)(-g / sum));
        grad[target[i]] = masked ? 0 : (float)at_target;
    }
    return PREFOPT_OK;
}
