/* KL-regularised policy gradient: rounds of samples, their rewards, steps on them. */
#include <math.h>

#include "prefopt/policy_gradient.h"
#include "train/pf_sampled.h"
#include "train/pf_saved.h"

typedef struct {
    pf_sampled sampled;
    prefopt_pg_options pg;
    bool own;     /* the samples are those of the policy as it is: drawn from it, one step */
    double *work; /* five numbers for each sample of a batch */
    int64_t n_work;
    double *logp, *old, *ref, *batch_advantage, *grad; /* in work */
} pg_state;

/* ---- once a round */

static int32_t advantages(prefopt_trainer *trainer, pg_state *state)
{
    pf_sampled *s = &state->sampled;
    prefopt_columns columns = {.struct_size = sizeof columns};
    PF_TRY(prefopt_dataset_columns(s->at.data, &columns));
    s->at.advantage = pf_alloc(trainer->context, columns.n_sequences, sizeof *s->at.advantage);
    if (s->at.advantage == NULL)
        return PREFOPT_ERR_MEMORY;
    prefopt_group_scores scores = {.struct_size = sizeof scores,
                                   .n_groups = columns.n_rows,
                                   .group_size = s->sampler.n,
                                   .reward = columns.score,
                                   .logp = columns.logp,
                                   .ref_logp = s->at.ref != NULL ? columns.ref_logp : NULL};
    return prefopt_advantages(&state->pg, &scores, s->at.advantage);
}

static int32_t prepare(prefopt_trainer *trainer)
{
    pg_state *state = trainer->state;
    int64_t slots, n;
    PF_TRY(pf_rows_max_slots(trainer->rows, trainer->batches.batch, &slots));
    if (!pf_mul(slots, 5, &n))
        return pf_fail(PREFOPT_ERR_MEMORY, "a size overflows: a batch of %lld samples",
                       (long long)slots);
    PF_TRY(pf_sampled_room(trainer->context, &state->work, &state->n_work, n));
    return advantages(trainer, state);
}

/* ---- each step */

/* The arrays of the batch's samples, row by row. */
static void gather(const prefopt_trainer *trainer, pg_state *state, const prefopt_columns *columns)
{
    const pf_batch *batch = &trainer->batch;
    const pf_rows *rows = trainer->rows;
    double **const arrays[] = {&state->logp, &state->old, &state->ref, &state->batch_advantage,
                               &state->grad};
    for (int64_t i = 0; i < 5; i++)
        *arrays[i] = state->work + i * batch->n_slots;
    int64_t slot = 0;
    for (int64_t k = 0; k < batch->n; k++) {
        int64_t row = pf_batch_row(batch, k);
        for (int64_t i = rows->first[row]; i < rows->first[row + 1]; i++, slot++) {
            state->logp[slot] = state->own ? columns->logp[i] : trainer->score[batch->slot[slot]];
            state->old[slot] = columns->sampler_logp[i];
            state->ref[slot] = columns->ref_logp[i];
            state->batch_advantage[slot] = state->sampled.at.advantage[i];
        }
    }
}

/* Where the samples are the policy's own, old_logp = logp gives a ratio of 1 that carries the
 * samples' motion: the KL's gradient is then right for k1 and k3; for k2 it is without it, which
 * old_logp = NULL gives. Where they are not, k2 needs the ratio without its motion: the gradient
 * rho u, which is k3's with it. */
static int32_t evaluate_loss(pg_state *state, int64_t n, prefopt_pg_loss *out)
{
    bool k2 =
        state->pg.kl_placement == PREFOPT_KL_IN_LOSS && state->pg.kl_estimator == PREFOPT_KL_K2;
    const double *own = k2 ? NULL : state->logp;
    prefopt_group_scores scores = {.struct_size = sizeof scores,
                                   .n_groups = n,
                                   .group_size = 1,
                                   .logp = state->logp,
                                   .ref_logp = state->sampled.at.ref != NULL ? state->ref : NULL,
                                   .old_logp = state->own ? own : state->old};
    *out = (prefopt_pg_loss){.struct_size = sizeof *out, .grad_logp = state->grad};
    PF_TRY(prefopt_loss_policy_gradient(&state->pg, &scores, state->batch_advantage, out));
    if (!k2 || state->own)
        return PREFOPT_OK;
    prefopt_pg_options moving = state->pg;
    prefopt_pg_loss other = {.struct_size = sizeof other, .grad_logp = state->grad};
    moving.kl_estimator = PREFOPT_KL_K3;
    return prefopt_loss_policy_gradient(&moving, &scores, state->batch_advantage, &other);
}

static int32_t name_loss(const prefopt_trainer *trainer, const pg_state *state, double loss)
{
    int64_t n = state->sampled.sampler.n;
    pf_batch prompts = {.n = state->sampled.draws.batch, .rows = state->sampled.draws.chosen};
    for (int64_t i = 0; i < trainer->batch.n_slots; i++)
        if (state->sampled.at.ref != NULL && isinf(state->ref[i]))
            return pf_fail(PREFOPT_ERR_NUMERIC,
                           "row %lld, sample %lld: the reference gives it probability 0, so that "
                           "KL(policy || reference) is infinite",
                           (long long)pf_batch_row(&prompts, pf_batch_row(&trainer->batch, i / n)),
                           (long long)(i % n));
    return pf_fail(PREFOPT_ERR_NUMERIC, "the loss is %g", loss);
}

static int32_t evaluate(prefopt_trainer *trainer, bool with_grad, prefopt_progress *stats)
{
    (void)with_grad; /* run alone: always */
    pg_state *state = trainer->state;
    const pf_batch *batch = &trainer->batch;
    prefopt_columns columns = {.struct_size = sizeof columns};
    prefopt_pg_loss out;
    PF_TRY(prefopt_dataset_columns(state->sampled.at.data, &columns));
    if (!state->own) {
        int32_t status = pf_trainer_scores(trainer);
        if (status != PREFOPT_OK)
            return status < 0 ? pf_fail_in(status, "samples of round %lld",
                                           (long long)trainer->round.number)
                              : status;
    }
    gather(trainer, state, &columns);
    PF_TRY(evaluate_loss(state, batch->n_slots, &out));
    if (!isfinite(out.mean))
        return name_loss(trainer, state, out.mean);
    stats->loss = out.mean;
    if (state->sampled.at.ref != NULL)
        stats->kl = out.kl;
    if (state->pg.clip_low != 0 || state->pg.clip_high != 0)
        stats->clip_fraction = out.clip_fraction;
    memset(trainer->grad_score, 0, (size_t)batch->sequences.n * sizeof *trainer->grad_score);
    for (int64_t i = 0; i < batch->n_slots; i++)
        trainer->grad_score[batch->slot[i]] += state->grad[i];
    return pf_trainer_backward(trainer);
}

static void destroy(prefopt_trainer *trainer)
{
    pg_state *state = trainer->state;
    pf_sampled_clear(&state->sampled, trainer->context);
    pf_free(trainer->context, state->work);
}

static void describe(const prefopt_trainer *trainer, pf_describe *to)
{
    const pg_state *state = trainer->state;
    pf_describe_pg(to, &state->pg);
    pf_sampled_describe(&state->sampled, to);
}

static const pf_objective objective = {.name = "policy_gradient",
                                       .sampled = true,
                                       .begin = pf_sampled_begin,
                                       .evaluate = evaluate,
                                       .destroy = destroy,
                                       .describe = describe,
                                       .save = pf_sampled_save,
                                       .restore = pf_sampled_restore};

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
    if (state->own && (state->pg.clip_low != 0 || state->pg.clip_high != 0))
        return pf_fail(PREFOPT_ERR_ARGUMENT,
                       "policy_gradient: clip_low is %g and clip_high %g, but the samples are the "
                       "policy's own and serve one step: the ratio is 1, expected 0 and 0",
                       state->pg.clip_low, state->pg.clip_high);
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
                    const prefopt_dataset *prompts, const prefopt_sampler_options *sampler,
                    const prefopt_round_options *rounds)
{
    pg_state *state = trainer->state;
    PF_TRY(pf_sampled_init(&state->sampled, trainer, reference, reward, prompts, sampler, rounds));
    const prefopt_sampler_options *s = &state->sampled.sampler;
    state->own = state->sampled.rounds.steps == 1 && s->temperature == 1 && s->top_k == 0 &&
                 s->top_p == 1 && s->min_p == 0;
    PF_TRY(check_options(state, reference));
    state->sampled.prepare = prepare;
    return pf_trainer_ready(trainer);
}

int32_t prefopt_trainer_create_policy_gradient(prefopt_trainer **out, prefopt_policy *policy,
                                               prefopt_reference *reference, prefopt_reward *reward,
                                               const prefopt_dataset *prompts,
                                               const prefopt_pg_options *pg,
                                               const prefopt_sampler_options *sampler,
                                               const prefopt_round_options *rounds,
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
    int32_t status = fill(trainer, reference, reward, prompts, sampler, rounds);
    if (status != PREFOPT_OK) {
        prefopt_trainer_destroy(trainer);
        return status;
    }
    *out = trainer;
    return PREFOPT_OK;
}
