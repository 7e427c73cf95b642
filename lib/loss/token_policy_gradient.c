/* PPO's clipped surrogate by token, with the aggregations in use. */
#include <math.h>

#include "math/pf_math.h"
#include "loss/pf_tokens.h"

static const double *at(const double *array, int64_t t) { return array == NULL ? NULL : array + t; }

static pf_pg_term token(const pf_pg_rule *rule, const prefopt_token_scores *in,
                        const double *advantage, int64_t t)
{
    return pf_pg_one(rule, advantage[t], in->logp[t], at(in->ref_logp, t), at(in->old_logp, t));
}

/* Fills mean, kl and clip_fraction. counted > 0. */
static int32_t sum_up(const char *call, const prefopt_ppo_options *o, const pf_pg_rule *rule,
                      const prefopt_token_scores *in, const double *advantage, int64_t counted,
                      prefopt_pg_loss *own)
{
    pf_sum surrogate = {0, 0}, kl = {0, 0};
    int64_t clipped = 0;
    for (int64_t s = 0; s < in->n; s++) {
        pf_span span = pf_tokens_span(in, s);
        double weight = pf_tokens_weight(o, in->n, counted, span.last - span.first);
        for (int64_t t = span.first; t < span.last; t++) {
            pf_pg_term term = token(rule, in, advantage, t);
            if (isnan(term.slope))
                return pf_fail(PREFOPT_ERR_NUMERIC,
                               "%s: the gradient of logp[%lld] is an infinity of either sign", call,
                               (long long)t);
            pf_sum_add(&surrogate, weight * term.surrogate);
            pf_sum_add(&kl, weight * term.kl);
            clipped += term.clipped;
        }
    }
    own->kl = pf_sum_value(&kl);
    own->clip_fraction = (double)clipped / (double)counted;
    own->mean = pf_sum_value(&surrogate);
    if (rule->kl_placement == PREFOPT_KL_IN_LOSS && rule->beta > 0)
        own->mean += rule->beta * own->kl;
    if (isnan(own->mean) || isnan(own->kl))
        return pf_fail(PREFOPT_ERR_NUMERIC,
                       "%s: the loss is a sum of infinities of either sign: advantage or log-"
                       "probabilities leave the range of a double",
                       call);
    return PREFOPT_OK;
}

static void write_gradient(const prefopt_ppo_options *o, const pf_pg_rule *rule,
                           const prefopt_token_scores *in, const double *advantage, int64_t counted,
                           double *grad)
{
    for (int64_t s = 0; s < in->n; s++) {
        pf_span span = pf_tokens_span(in, s);
        double weight = pf_tokens_weight(o, in->n, counted, span.last - span.first);
        for (int64_t t = span.start; t < span.first; t++)
            grad[t] = 0;
        for (int64_t t = span.first; t < span.last; t++)
            grad[t] = weight * token(rule, in, advantage, t).slope;
    }
}

int32_t prefopt_loss_ppo_tokens(const prefopt_ppo_options *options, const prefopt_token_scores *in,
                                const double *advantage, prefopt_pg_loss *out)
{
    prefopt_ppo_options o;
    pf_pg_rule rule;
    prefopt_token_scores own_in;
    prefopt_pg_loss own;
    int64_t counted;
    PF_TRY(pf_ppo_read_options(__func__, options, &o, &rule));
    PF_TRY(pf_tokens_read(__func__, in, &own_in, &counted));
    PF_REQUIRE(out);
    PF_TRY(pf_struct_read(&own, sizeof own, sizeof own, out, "prefopt_pg_loss"));
    own.mean = own.kl = own.clip_fraction = 0;
    if (counted > 0) {
        PF_TRY(pf_pg_check_arrays(__func__, &rule, advantage, own_in.logp, own_in.ref_logp));
        for (int64_t s = 0; s < own_in.n; s++) {
            pf_span span = pf_tokens_span(&own_in, s);
            PF_TRY(pf_pg_check_elements(__func__, span.first, span.last, advantage, own_in.logp,
                                        own_in.ref_logp, own_in.old_logp));
        }
        PF_TRY(sum_up(__func__, &o, &rule, &own_in, advantage, counted, &own));
    }
    if (own.grad_logp != NULL)
        write_gradient(&o, &rule, &own_in, advantage, counted, own.grad_logp);
    pf_struct_write(out, &own, sizeof own);
    return PREFOPT_OK;
}
