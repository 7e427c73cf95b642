/* Online DPO: sample, rank by the reward model, take steps of DPO on the new pairs. */
#include <math.h>

#include "online/pf_online.h"
#include "train/pf_sampled.h"
#include "train/pf_saved.h"

typedef struct {
    pf_sampled sampled;
    prefopt_dpo_options dpo;
    prefopt_ranker_options ranker;
    pf_pair_batch pairs;
    int64_t capacity; /* of pairs, in pairs */
} online_state;

/* log pi - log pi_ref of the policy that sampled, meaned over the round's completions. */
static int32_t estimate_kl(const prefopt_dataset *pairs, double *kl)
{
    prefopt_columns columns = {.struct_size = sizeof columns};
    PF_TRY(prefopt_dataset_columns(pairs, &columns));
    *kl = 0;
    for (int64_t i = 0; i < columns.n_sequences; i++)
        *kl += (columns.logp[i] - columns.ref_logp[i]) / (double)columns.n_sequences;
    return PREFOPT_OK;
}

static int32_t select_pairs(prefopt_trainer *trainer, const prefopt_dataset *samples,
                            int64_t number, prefopt_dataset **data)
{
    const online_state *state = trainer->state;
    prefopt_ranker_options ranker = state->ranker;
    if (ranker.rule == PREFOPT_PAIR_RANDOM || ranker.rule == PREFOPT_PAIR_BEST_RANDOM)
        ranker.seed = pf_stream(ranker.seed, (uint64_t)number);
    prefopt_rank_counts counts = {.struct_size = sizeof counts};
    PF_TRY(pf_rank_scored(data, samples, &ranker, &counts));
    trainer->round.pairs = counts.pairs;
    trainer->round.ties = counts.ties;
    trainer->round.duplicates = counts.duplicates;
    return PREFOPT_OK;
}

static int32_t prepare(prefopt_trainer *trainer)
{
    online_state *state = trainer->state;
    int64_t n = trainer->batches.batch;
    if (state->sampled.reference != NULL)
        PF_TRY(estimate_kl(state->sampled.at.data, &trainer->round.kl));
    if (n <= state->capacity)
        return PREFOPT_OK;
    pf_pair_batch larger;
    int32_t status = pf_dpo_pairs(&larger, trainer->context, n, state->dpo.variant);
    if (status != PREFOPT_OK) {
        pf_pair_batch_clear(&larger);
        return status;
    }
    pf_pair_batch_clear(&state->pairs);
    state->pairs = larger;
    state->capacity = n;
    return PREFOPT_OK;
}

/* As a trainer on the pairs does. */
static int32_t learn(prefopt_trainer *trainer, prefopt_progress *stats)
{
    online_state *state = trainer->state;
    PF_TRY(pf_trainer_scores(trainer));
    PF_TRY(
        pf_dpo_evaluate_pairs(trainer, &state->dpo, &state->pairs, state->sampled.at.ref, stats));
    return pf_trainer_backward(trainer);
}

static int32_t evaluate(prefopt_trainer *trainer, bool with_grad, prefopt_progress *stats)
{
    (void)with_grad; /* run alone: always */
    if (trainer->batch.n == 0) {
        trainer->no_step = true;
        return PREFOPT_OK;
    }
    int32_t status = learn(trainer, stats);
    return status < 0 ? pf_fail_in(status, "pairs of round %lld", (long long)trainer->round.number)
                      : status;
}

static void destroy(prefopt_trainer *trainer)
{
    online_state *state = trainer->state;
    pf_sampled_clear(&state->sampled, trainer->context);
    pf_pair_batch_clear(&state->pairs);
}

/* Held-out pairs by the loss that the new pairs have. */
static int32_t held_out(prefopt_trainer **out, const prefopt_trainer *trainer,
                        const prefopt_reference *reference, const prefopt_dataset *data)
{
    const online_state *state = trainer->state;
    return pf_dpo_held_out(out, trainer, &state->dpo, reference, data);
}

static void describe(const prefopt_trainer *trainer, pf_describe *to)
{
    const online_state *state = trainer->state;
    pf_describe_dpo(to, &state->dpo);
    pf_describe_ranker(to, &state->ranker);
    pf_sampled_describe(&state->sampled, to);
}

static const pf_objective objective = {.name = "online_dpo",
                                       .sampled = true,
                                       .begin = pf_sampled_begin,
                                       .evaluate = evaluate,
                                       .held_out = held_out,
                                       .destroy = destroy,
                                       .describe = describe,
                                       .save = pf_sampled_save,
                                       .restore = pf_sampled_restore};

/* Ranks stay when all scores are scaled alike. */
static int32_t check_rounds(const prefopt_round_options *o)
{
    if (o->reward_scale != PREFOPT_REWARD_AS_IS)
        return pf_fail(
            PREFOPT_ERR_ARGUMENT,
            "online_dpo: reward_scale is %d, but it ranks scores (soft_scale is for soft "
            "labels): expected 0",
            o->reward_scale);
    if (o->reward_clip != 0)
        return pf_fail(PREFOPT_ERR_ARGUMENT,
                       "online_dpo: reward_clip is %g, but it ranks scores: expected 0",
                       o->reward_clip);
    return PREFOPT_OK;
}

static int32_t fill(prefopt_trainer *trainer, prefopt_reference *reference, prefopt_reward *reward,
                    const prefopt_dataset *prompts, const prefopt_sampler_options *sampler,
                    const prefopt_round_options *rounds)
{
    online_state *state = trainer->state;
    PF_TRY(pf_sampled_init(&state->sampled, trainer, reference, reward, prompts, sampler, rounds));
    PF_TRY(check_rounds(&state->sampled.rounds));
    if (state->sampled.sampler.n < 2)
        return pf_fail(PREFOPT_ERR_ARGUMENT, "online_dpo: n is %lld, expected at least 2 samples",
                       (long long)state->sampled.sampler.n);
    if (state->sampled.sampler.temperature == 0)
        return pf_fail(PREFOPT_ERR_ARGUMENT,
                       "online_dpo: temperature is 0, expected > 0: greedy completions of a prompt "
                       "are all the same");
    int32_t status = pf_ranker_check(&state->ranker);
    if (status != PREFOPT_OK)
        return pf_fail_in(status, "online_dpo");
    bool labelled = state->ranker.soft_labels != 0 || state->ranker.tie_rule == PREFOPT_TIES_HALF;
    PF_TRY(pf_dpo_check(&state->dpo, reference, false, labelled, false));
    trainer->coupled = pf_dpo_is_coupled(state->dpo.variant);
    state->sampled.select = select_pairs;
    state->sampled.prepare = prepare;
    return pf_trainer_ready(trainer);
}

int32_t prefopt_trainer_create_online_dpo(
    prefopt_trainer **out, prefopt_policy *policy, prefopt_reference *reference,
    prefopt_reward *reward, const prefopt_dataset *prompts, const prefopt_dpo_options *dpo,
    const prefopt_sampler_options *sampler, const prefopt_ranker_options *ranker,
    const prefopt_round_options *rounds, const prefopt_train_options *options)
{
    PF_REQUIRE(out);
    PF_REQUIRE(policy);
    PF_REQUIRE(reward);
    PF_REQUIRE(prompts);
    prefopt_dpo_options own;
    PF_TRY(prefopt_dpo_options_init(&own, sizeof own));
    if (dpo != NULL)
        PF_TRY(pf_struct_read(&own, sizeof own, sizeof own, dpo, "prefopt_dpo_options"));
    prefopt_ranker_options own_ranker;
    PF_TRY(prefopt_ranker_options_init(&own_ranker, sizeof own_ranker));
    if (ranker != NULL)
        PF_TRY(pf_struct_read(&own_ranker, sizeof own_ranker, sizeof own_ranker, ranker,
                              "prefopt_ranker_options"));
    prefopt_trainer *trainer;
    PF_TRY(pf_trainer_new(&trainer, &objective, sizeof(online_state),
                          (pf_trained){.policy = policy}, options));
    ((online_state *)trainer->state)->dpo = own;
    ((online_state *)trainer->state)->ranker = own_ranker;
    int32_t status = fill(trainer, reference, reward, prompts, sampler, rounds);
    if (status != PREFOPT_OK) {
        prefopt_trainer_destroy(trainer);
        return status;
    }
    *out = trainer;
    return PREFOPT_OK;
}
