/* Generalised advantage estimates: one pass over each sequence, from its last token back. */
#include <math.h>

#include "loss/pf_arrays.h"
#include "loss/pf_tokens.h"

typedef struct {
    prefopt_token_scores in;
    const double *value; /* old_value, or value */
    double gamma, lambda, beta;
    bool in_reward;
} job;

static double shaped(const job *j, int64_t t)
{
    if (!j->in_reward)
        return j->in.reward[t];
    return pf_pg_shaped_reward(j->in.reward[t], j->beta, j->in.logp[t], j->in.ref_logp[t]);
}

static int32_t check_range(const char *call, const char *name, int64_t i, double x)
{
    if (!(fabs(x) <= PF_LARGEST_REWARD))
        return pf_fail(PREFOPT_ERR_NUMERIC,
                       "%s: %s[%lld] is %g, expected a magnitude of at most %g", call, name,
                       (long long)i, x, PF_LARGEST_REWARD);
    return PREFOPT_OK;
}

static int32_t check_sequence(const char *call, const job *j, pf_span span)
{
    PF_TRY(pf_check_finite(call, "reward", span.first, span.last, j->in.reward));
    if (j->in_reward) {
        PF_TRY(pf_check_logprobs(call, "logp", span.first, span.last, j->in.logp));
        PF_TRY(pf_check_logprobs(call, "ref_logp", span.first, span.last, j->in.ref_logp));
    }
    for (int64_t t = span.first; t < span.last; t++) {
        PF_TRY(check_range(call, j->in.old_value == NULL ? "value" : "old_value", t, j->value[t]));
        double r = shaped(j, t);
        if (!(j->in_reward && j->in.ref_logp[t] == -INFINITY && r == -INFINITY))
            PF_TRY(check_range(call, j->in_reward ? "reward - beta (logp - ref_logp): R" : "reward",
                               t, r));
    }
    return PREFOPT_OK;
}

static void run_sequence(const job *j, int64_t s, double *advantage, double *returns)
{
    pf_span span = pf_tokens_span(&j->in, s);
    double next_value = j->in.bootstrap == NULL ? 0 : j->in.bootstrap[s];
    double next = 0, decay = j->gamma * j->lambda;
    for (int64_t t = span.last - 1; t >= span.first; t--) {
        double here = j->value[t];
        double delta = shaped(j, t) + j->gamma * next_value - here;
        next = decay > 0 ? delta + decay * next : delta; /* 0 times an infinity is nothing here */
        next_value = here;
        advantage[t] = next;
        if (returns != NULL)
            returns[t] = next + here;
    }
    for (int64_t t = span.start; t < span.first; t++) {
        advantage[t] = 0;
        if (returns != NULL)
            returns[t] = 0;
    }
}

int32_t prefopt_gae(const prefopt_ppo_options *options, const prefopt_token_scores *in,
                    double *advantage, double *returns)
{
    prefopt_ppo_options o;
    pf_pg_rule rule;
    job j;
    int64_t counted;
    PF_TRY(pf_ppo_read_options(__func__, options, &o, &rule));
    PF_TRY(pf_tokens_read(__func__, in, &j.in, &counted));
    j.value = j.in.old_value != NULL ? j.in.old_value : j.in.value;
    j.gamma = o.gamma;
    j.lambda = o.lambda;
    j.beta = rule.beta;
    j.in_reward = rule.beta > 0 && rule.kl_placement == PREFOPT_KL_IN_REWARD;
    if (j.in.n > 0 && j.in.offsets[j.in.n] > j.in.offsets[0])
        PF_REQUIRE(advantage);
    if (counted > 0) {
        const char *missing = j.in.reward == NULL                    ? "reward"
                              : j.value == NULL                      ? "value"
                              : j.in_reward && j.in.logp == NULL     ? "logp"
                              : j.in_reward && j.in.ref_logp == NULL ? "ref_logp"
                                                                     : NULL;
        if (missing != NULL)
            return pf_fail(PREFOPT_ERR_ARGUMENT, "%s: %s is NULL%s", __func__, missing,
                           strcmp(missing, "ref_logp") == 0 ? ", but beta is above 0" : "");
    }
    for (int64_t s = 0; s < j.in.n; s++) {
        PF_TRY(check_sequence(__func__, &j, pf_tokens_span(&j.in, s)));
        if (j.in.bootstrap != NULL)
            PF_TRY(check_range(__func__, "bootstrap", s, j.in.bootstrap[s]));
    }
    for (int64_t s = 0; s < j.in.n; s++)
        run_sequence(&j, s, advantage, returns);
    return PREFOPT_OK;
}
