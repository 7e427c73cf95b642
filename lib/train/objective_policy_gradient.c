/* KL-regularised policy gradient: samples of the policy as it is, their rewards, one step. */
#include <math.h>

#include "prefopt/policy_gradient.h"
#include "train/pf_sampled.h"
#include "train/pf_saved.h"

typedef struct {
    pf_sampled sampled;
    prefopt_pg_options pg;
    bool off_policy; /* the sampler is not the policy itself */
    /* batch * sampler.n each */
    double *reward, *ref, *advantage, *grad;
} pg_state;

/* Where the samples are the policy's own, old_logp = logp gives a ratio of 1 that carries the
 * samples' motion: the KL's gradient is then right for k1 and k3; for k2 it is without it. */
static const double *old_logp(const pg_state *state, const prefopt_columns *columns)
{
    if (state->off_policy)
        return columns->sampler_logp;
    bool k2 =
        state->pg.kl_placement == PREFOPT_KL_IN_LOSS && state->pg.kl_estimator == PREFOPT_KL_K2;
    return k2 ? NULL : columns->logp;
}

static int32_t name_loss(const prefopt_trainer *trainer, const prefopt_columns *columns,
                         const pg_state *state, double loss)
{
    int64_t n = state->sampled.sampler.n;
    for (int64_t i = 0; i < columns->n_sequences; i++)
        if (state->ref != NULL && isinf(state->ref[i]))
            return pf_fail(PREFOPT_ERR_NUMERIC,
                           "row %lld, sample %lld: the reference gives it probability 0, so that "
                           "KL(policy || reference) is infinite",
                           (long long)pf_batch_row(&trainer->batch, i / n), (long long)(i % n));
    return pf_fail(PREFOPT_ERR_NUMERIC, "the loss is %g", loss);
}

static int32_t evaluate_samples(prefopt_trainer *trainer, const prefopt_dataset *samples,
                                prefopt_progress *stats)
{
    pg_state *state = trainer->state;
    prefopt_sequences in = {.struct_size = sizeof in};
    prefopt_columns columns = {.struct_size = sizeof columns};
    PF_TRY(prefopt_dataset_sequences(samples, &in));
    PF_TRY(prefopt_dataset_columns(samples, &columns));
    PF_TRY(pf_sampled_rewards(&state->sampled, trainer, &in, state->reward));
    if (state->ref != NULL)
        PF_TRY(pf_reference_logprobs(state->sampled.reference, &in, state->ref));
    prefopt_group_scores scores = {.struct_size = sizeof scores,
                                   .n_groups = trainer->batch.n,
                                   .group_size = state->sampled.sampler.n,
                                   .reward = state->reward,
                                   .logp = columns.logp,
                                   .ref_logp = state->ref,
                                   .old_logp = old_logp(state, &columns)};
    prefopt_pg_loss out = {.struct_size = sizeof out, .grad_logp = state->grad};
    PF_TRY(prefopt_advantages(&state->pg, &scores, state->advantage));
    PF_TRY(prefopt_loss_policy_gradient(&state->pg, &scores, state->advantage, &out));
    if (!isfinite(out.mean))
        return name_loss(trainer, &columns, state, out.mean);
    stats->loss = out.mean;
    stats->kl = state->ref != NULL ? out.kl : NAN;
    stats->tokens = pf_sampled_tokens(samples);
    stats->reward = 0;
    for (int64_t i = 0; i < in.n; i++)
        stats->reward += state->reward[i] / (double)in.n;
    return pf_trained_backward(&trainer->model, &in, state->grad);
}

static int32_t evaluate(prefopt_trainer *trainer, bool with_grad, prefopt_progress *stats)
{
    (void)with_grad; /* run alone: always */
    const pg_state *state = trainer->state;
    prefopt_dataset *samples;
    PF_TRY(pf_sampled_draw(&state->sampled, trainer, &samples));
    int32_t status = evaluate_samples(trainer, samples, stats);
    prefopt_dataset_destroy(samples);
    return status;
}

static void destroy(prefopt_trainer *trainer)
{
    pg_state *state = trainer->state;
    pf_sampled_clear(&state->sampled, trainer->context);
    pf_free(trainer->context, state->reward);
    pf_free(trainer->context, state->ref);
    pf_free(trainer->context, state->advantage);
    pf_free(trainer->context, state->grad);
}

static void describe(const prefopt_trainer *trainer, pf_describe *to)
{
    const pg_state *state = trainer->state;
    pf_describe_pg(to, &state->pg);
    pf_sampled_describe(&state->sampled, to);
}

static const pf_objective objective = {.name = "policy_gradient",
                                       .sampled = true,
                                       .evaluate = evaluate,
                                       .destroy = destroy,
                                       .describe = describe};

static int32_t check_options(const pg_state *state, const prefopt_reference *reference)
{
    const prefopt_sampler_options *s = &state->sampled.sampler;
    if (s->without_replacement != 0)
        return pf_fail(PREFOPT_ERR_ARGUMENT,
                       "policy_gradient: without_replacement is %d, expected 0: its estimates are "
                       "means over independent draws",
                       s->without_replacement);
    if (s->temperature == 0)
        return pf_fail(PREFOPT_ERR_ARGUMENT,
                       "policy_gradient: temperature is 0, expected > 0: greedy completions are no "
                       "draws");
    if (!state->off_policy && (state->pg.clip_low != 0 || state->pg.clip_high != 0))
        return pf_fail(PREFOPT_ERR_ARGUMENT,
                       "policy_gradient: clip_low is %g and clip_high %g, but the samples are the "
                       "policy's own and serve one step: the ratio is 1, expected 0 and 0",
                       state->pg.clip_low, state->pg.clip_high);
    if (s->n < 1)
        return pf_fail(PREFOPT_ERR_ARGUMENT, "policy_gradient: n is %lld, expected at least 1",
                       (long long)s->n);
    if (s->n == 1 && state->pg.baseline == PREFOPT_BASELINE_LEAVE_ONE_OUT)
        return pf_fail(PREFOPT_ERR_ARGUMENT,
                       "policy_gradient: n is 1, expected at least 2 samples a prompt, as the "
                       "baseline is PREFOPT_BASELINE_LEAVE_ONE_OUT");
    if (state->pg.beta > 0 && reference == NULL)
        return pf_fail(PREFOPT_ERR_ARGUMENT, "policy_gradient: reference is NULL, but beta is %g",
                       state->pg.beta);
    /* The loss calls say the rest: no groups, but of the size that will come. */
    static const double number;
    prefopt_group_scores none = {.struct_size = sizeof none,
                                 .group_size = s->n,
                                 .reward = &number,
                                 .logp = &number,
                                 .ref_logp = reference != NULL ? &number : NULL};
    prefopt_pg_loss out = {.struct_size = sizeof out};
    double advantage;
    PF_TRY(prefopt_advantages(&state->pg, &none, &advantage));
    return prefopt_loss_policy_gradient(&state->pg, &none, &advantage, &out);
}

static int32_t fill(prefopt_trainer *trainer, prefopt_reference *reference, prefopt_reward *reward,
                    const prefopt_dataset *prompts, const prefopt_sampler_options *sampler)
{
    pg_state *state = trainer->state;
    prefopt_context *context = trainer->context;
    PF_TRY(pf_sampled_init(&state->sampled, trainer, reference, reward, prompts, sampler));
    const prefopt_sampler_options *s = &state->sampled.sampler;
    state->off_policy = s->temperature != 1 || s->top_k != 0 || s->top_p != 1;
    PF_TRY(check_options(state, reference));
    int64_t n;
    if (!pf_mul(trainer->batches.batch, s->n, &n))
        return pf_fail(PREFOPT_ERR_MEMORY, "a size overflows: %lld samples of %lld prompts",
                       (long long)s->n, (long long)trainer->batches.batch);
    if ((state->reward = pf_alloc(context, n, sizeof *state->reward)) == NULL ||
        (state->advantage = pf_alloc(context, n, sizeof *state->advantage)) == NULL ||
        (state->grad = pf_alloc(context, n, sizeof *state->grad)) == NULL ||
        (reference != NULL && (state->ref = pf_alloc(context, n, sizeof *state->ref)) == NULL))
        return PREFOPT_ERR_MEMORY;
    return pf_trainer_ready(trainer);
}

int32_t prefopt_trainer_create_policy_gradient(prefopt_trainer **out, prefopt_policy *policy,
                                               prefopt_reference *reference, prefopt_reward *reward,
                                               const prefopt_dataset *prompts,
                                               const prefopt_pg_options *pg,
                                               const prefopt_sampler_options *sampler,
                                               const prefopt_train_options *options)
{
    PF_REQUIRE(out);
    PF_REQUIRE(policy);
    PF_REQUIRE(reward);
    PF_REQUIRE(prompts);
    prefopt_pg_options own;
    PF_TRY(prefopt_pg_options_init(&own, sizeof own));
    if (pg != NULL)
        PF_TRY(pf_struct_read(&own, sizeof own, sizeof own, pg, "prefopt_pg_options"));
    prefopt_trainer *trainer;
    PF_TRY(pf_trainer_new(&trainer, &objective, sizeof(pg_state), (pf_trained){.policy = policy},
                          options));
    ((pg_state *)trainer->state)->pg = own;
    int32_t status = fill(trainer, reference, reward, prompts, sampler);
    if (status != PREFOPT_OK) {
        prefopt_trainer_destroy(trainer);
        return status;
    }
    *out = trainer;
    return PREFOPT_OK;
}
