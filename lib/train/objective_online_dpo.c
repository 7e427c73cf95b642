/* Online DPO: sample, rank by the reward model, take the DPO step on the new pairs. */
#include <math.h>

#include "train/pf_sampled.h"
#include "train/pf_saved.h"

typedef struct {
    pf_sampled sampled;
    prefopt_dpo_options dpo;
    prefopt_ranker_options ranker;
    pf_pair_batch pairs;
    int64_t capacity; /* of pairs, in pairs */
    double *ref, *grad;
    int64_t ref_capacity, grad_capacity; /* two a pair */
} online_state;

static int32_t make_room(prefopt_trainer *trainer, int64_t n)
{
    online_state *state = trainer->state;
    PF_TRY(pf_sampled_room(trainer->context, &state->grad, &state->grad_capacity, 2 * n));
    if (state->sampled.reference != NULL)
        PF_TRY(pf_sampled_room(trainer->context, &state->ref, &state->ref_capacity, 2 * n));
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

/* The pairs' arrays from the dataset, whose logp column the sampler has filled. */
static void gather(online_state *state, const prefopt_columns *columns, const prefopt_sequences *in,
                   prefopt_pair_scores *scores)
{
    pf_pair_batch *p = &state->pairs;
    bool labelled = false;
    for (int64_t k = 0; k < columns->n_rows; k++) {
        int64_t c = 2 * k, r = 2 * k + 1;
        p->chosen[k] = columns->logp[c];
        p->rejected[k] = columns->logp[r];
        p->weight[k] = 1;
        p->label[k] = columns->label[k];
        labelled |= columns->label[k] != 1;
        if (state->ref != NULL) {
            p->ref_chosen[k] = state->ref[c];
            p->ref_rejected[k] = state->ref[r];
        }
        if (p->len_chosen != NULL) {
            p->len_chosen[k] = pf_sequence_len(in, c) - in->prompt_len[c];
            p->len_rejected[k] = pf_sequence_len(in, r) - in->prompt_len[r];
        }
    }
    *scores = (prefopt_pair_scores){.struct_size = sizeof *scores,
                                    .n = columns->n_rows,
                                    .chosen = p->chosen,
                                    .rejected = p->rejected,
                                    .ref_chosen = state->ref != NULL ? p->ref_chosen : NULL,
                                    .ref_rejected = state->ref != NULL ? p->ref_rejected : NULL,
                                    .label = labelled ? p->label : NULL,
                                    .len_chosen = p->len_chosen,
                                    .len_rejected = p->len_rejected};
}

static int32_t learn(prefopt_trainer *trainer, const prefopt_dataset *pairs,
                     prefopt_progress *stats)
{
    online_state *state = trainer->state;
    prefopt_sequences in = {.struct_size = sizeof in};
    prefopt_columns columns = {.struct_size = sizeof columns};
    PF_TRY(prefopt_dataset_sequences(pairs, &in));
    PF_TRY(prefopt_dataset_columns(pairs, &columns));
    int64_t n = columns.n_rows;
    if (n == 0) {
        trainer->no_step = true;
        return PREFOPT_OK;
    }
    PF_TRY(make_room(trainer, n));
    if (state->sampled.reference != NULL)
        PF_TRY(pf_reference_logprobs(state->sampled.reference, &in, state->ref));
    prefopt_pair_scores scores;
    gather(state, &columns, &in, &scores);
    prefopt_pair_loss out = {.struct_size = sizeof out,
                             .each = state->pairs.each,
                             .grad_chosen = state->pairs.grad_chosen,
                             .grad_rejected = state->pairs.grad_rejected};
    PF_TRY(prefopt_loss_dpo(&state->dpo, &scores, &out));
    for (int64_t k = 0; k < n; k++)
        if (!isfinite(out.each[k]))
            return pf_fail(PREFOPT_ERR_NUMERIC, "pair %lld of the step: the loss is %g",
                           (long long)k, out.each[k]);
    for (int64_t k = 0; k < n; k++) {
        state->grad[2 * k] = out.grad_chosen[k];
        state->grad[2 * k + 1] = out.grad_rejected[k];
    }
    stats->loss = out.mean;
    pf_pair_batch_stats(&state->pairs, &scores, state->dpo.beta, true, stats);
    return pf_trained_backward(&trainer->model, &in, state->grad);
}

static int32_t evaluate(prefopt_trainer *trainer, bool with_grad, prefopt_progress *stats)
{
    (void)with_grad; /* run alone: always */
    online_state *state = trainer->state;
    prefopt_ranker_options ranker = state->ranker;
    if (ranker.rule == PREFOPT_PAIR_RANDOM || ranker.rule == PREFOPT_PAIR_BEST_RANDOM)
        ranker.seed = pf_stream(ranker.seed, (uint64_t)trainer->step);
    prefopt_dataset *samples, *pairs;
    prefopt_rank_counts counts = {.struct_size = sizeof counts};
    PF_TRY(pf_sampled_draw(&state->sampled, trainer, &samples));
    int32_t status = prefopt_rank(&pairs, state->sampled.reward, samples, &ranker, &counts);
    int64_t tokens = pf_sampled_tokens(samples);
    prefopt_dataset_destroy(samples);
    PF_TRY(status);
    stats->reward = counts.mean_score;
    stats->tokens = tokens;
    status = learn(trainer, pairs, stats);
    prefopt_dataset_destroy(pairs);
    return status;
}

static void destroy(prefopt_trainer *trainer)
{
    online_state *state = trainer->state;
    pf_sampled_clear(&state->sampled, trainer->context);
    pf_pair_batch_clear(&state->pairs);
    pf_free(trainer->context, state->ref);
    pf_free(trainer->context, state->grad);
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
                                       .evaluate = evaluate,
                                       .held_out = held_out,
                                       .destroy = destroy,
                                       .describe = describe};

static int32_t fill(prefopt_trainer *trainer, prefopt_reference *reference, prefopt_reward *reward,
                    const prefopt_dataset *prompts, const prefopt_sampler_options *sampler)
{
    online_state *state = trainer->state;
    PF_TRY(pf_sampled_init(&state->sampled, trainer, reference, reward, prompts, sampler));
    if (state->sampled.sampler.n < 2)
        return pf_fail(PREFOPT_ERR_ARGUMENT, "online_dpo: n is %lld, expected at least 2 samples",
                       (long long)state->sampled.sampler.n);
    bool labelled = state->ranker.soft_labels != 0 || state->ranker.tie_rule == PREFOPT_TIES_HALF;
    PF_TRY(pf_dpo_check(&state->dpo, reference, false, labelled, false));
    PF_TRY(make_room(trainer, trainer->batches.batch));
    return pf_trainer_ready(trainer);
}

int32_t prefopt_trainer_create_online_dpo(prefopt_trainer **out, prefopt_policy *policy,
                                          prefopt_reference *reference, prefopt_reward *reward,
                                          const prefopt_dataset *prompts,
                                          const prefopt_dpo_options *dpo,
                                          const prefopt_sampler_options *sampler,
                                          const prefopt_ranker_options *ranker,
                                          const prefopt_train_options *options)
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
    int32_t status = fill(trainer, reference, reward, prompts, sampler);
    if (status != PREFOPT_OK) {
        prefopt_trainer_destroy(trainer);
        return status;
    }
    *out = trainer;
    return PREFOPT_OK;
}
