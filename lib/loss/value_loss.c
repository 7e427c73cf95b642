/* The value function's squared error, with PPO's clip about the old values. */
#include <math.h>

#include "math/pf_math.h"
#include "loss/pf_arrays.h"
#include "loss/pf_tokens.h"

typedef struct {
    double loss, slope;
    bool clipped;
} term;

static term one(double clip, double value, const double *old, double target)
{
    double error = value - target;
    term t = {0.5 * error * error, error, false};
    if (clip == 0)
        return t;
    double held = fmin(fmax(value, *old - clip), *old + clip) - target;
    t.clipped = fabs(held) > fabs(error);
    if (t.clipped) {
        t.loss = 0.5 * held * held;
        t.slope = 0;
    }
    return t;
}

int32_t prefopt_loss_value(const prefopt_ppo_options *options, const prefopt_token_scores *in,
                           const double *returns, prefopt_value_loss *out)
{
    prefopt_ppo_options o;
    pf_pg_rule rule;
    prefopt_token_scores x;
    prefopt_value_loss own;
    int64_t counted;
    PF_TRY(pf_ppo_read_options(__func__, options, &o, &rule));
    PF_TRY(pf_tokens_read(__func__, in, &x, &counted));
    PF_REQUIRE(out);
    PF_TRY(pf_struct_read(&own, sizeof own, sizeof own, out, "prefopt_value_loss"));
    bool clip = o.clip_value > 0;
    if (counted > 0) {
        if (x.value == NULL || returns == NULL)
            return pf_fail(PREFOPT_ERR_ARGUMENT, "%s: %s is NULL", __func__,
                           x.value == NULL ? "value" : "returns");
        if (clip && x.old_value == NULL)
            return pf_fail(PREFOPT_ERR_ARGUMENT,
                           "%s: old_value is NULL, but clip_value is %g, above 0", __func__,
                           o.clip_value);
    }
    for (int64_t s = 0; counted > 0 && s < x.n; s++) {
        pf_span span = pf_tokens_span(&x, s);
        PF_TRY(pf_check_finite(__func__, "value", span.first, span.last, x.value));
        PF_TRY(pf_check_finite(__func__, "returns", span.first, span.last, returns));
        if (clip)
            PF_TRY(pf_check_finite(__func__, "old_value", span.first, span.last, x.old_value));
    }

    pf_sum sum = {0, 0};
    int64_t clipped = 0;
    for (int64_t s = 0; s < x.n; s++) {
        pf_span span = pf_tokens_span(&x, s);
        double weight = pf_tokens_weight(&o, x.n, counted, span.last - span.first);
        for (int64_t t = span.start; own.grad_value != NULL && t < span.first; t++)
            own.grad_value[t] = 0;
        for (int64_t t = span.first; t < span.last; t++) {
            term e = one(o.clip_value, x.value[t], clip ? x.old_value + t : NULL, returns[t]);
            pf_sum_add(&sum, weight * e.loss);
            clipped += e.clipped;
            if (own.grad_value != NULL)
                own.grad_value[t] = weight * e.slope;
        }
    }
    own.mean = pf_sum_value(&sum);
    own.clip_fraction = counted > 0 ? (double)clipped / (double)counted : 0;
    pf_struct_write(out, &own, sizeof own);
    return PREFOPT_OK;
}
