/* The trainer's handle: what all objectives share of create, evaluate and destroy. */
#include <math.h>

#include "model/pf_reward.h"
#include "train/pf_evaluation.h"
#include "train/pf_saved.h"

int32_t pf_trainer_new(prefopt_trainer **out, const pf_objective *objective, size_t state_size,
                       pf_trained model, const prefopt_train_options *options)
{
    prefopt_train_options own;
    pf_ranks ranks = {.numbers = NULL};
    PF_TRY(pf_train_options_read(&own, options));
    PF_TRY(pf_ranks_read(&ranks, own.collective));
    own.collective = NULL;
    if (own.score_ridge != 0 && !objective->score_prior)
        return pf_fail(PREFOPT_ERR_ARGUMENT, "score_ridge is %g, but %s has no use for it",
                       own.score_ridge, objective->name);
    if (own.score_ridge != 0 && own.batch != 0)
        return pf_fail(PREFOPT_ERR_ARGUMENT,
                       "batch is %lld, but score_ridge is over the whole data: expected 0",
                       (long long)own.batch);
    if (objective->sampled && own.tolerance != pf_train_defaults.tolerance)
        return pf_fail(PREFOPT_ERR_ARGUMENT, "tolerance is %g, but %s has no fit", own.tolerance,
                       objective->name);
    if (objective->sampled && own.max_iterations != pf_train_defaults.max_iterations)
        return pf_fail(PREFOPT_ERR_ARGUMENT, "max_iterations is %lld, but %s has no fit",
                       (long long)own.max_iterations, objective->name);
    prefopt_context *context = pf_trained_context(&model);
    prefopt_trainer *trainer = pf_calloc(context, 1, sizeof *trainer);
    if (trainer == NULL)
        return PREFOPT_ERR_MEMORY;
    trainer->state = pf_calloc(context, 1, state_size);
    if (trainer->state == NULL || pf_ranks_init(&ranks, context) != PREFOPT_OK) {
        pf_free(context, trainer->state);
        pf_free(context, trainer);
        return PREFOPT_ERR_MEMORY;
    }
    trainer->context = pf_context_retain(context);
    trainer->options = own;
    trainer->ranks = ranks;
    trainer->objective = objective;
    trainer->model = model;
    trainer->share = 1;
    pf_round_facts_clear(&trainer->round);
    if (model.policy != NULL)
        pf_policy_retain(model.policy);
    if (model.reward != NULL)
        pf_reward_retain(model.reward);
    trainer->batches.context = trainer->context;
    pf_optimiser_init(&trainer->optimiser, trainer->context, &trainer->options);
    *out = trainer;
    return PREFOPT_OK;
}

int32_t pf_trainer_new_held_out(prefopt_trainer **out, const prefopt_trainer *trainer,
                                const pf_objective *objective, size_t state_size)
{
    prefopt_trainer *held_out;
    PF_TRY(pf_trainer_new(&held_out, objective, state_size, trainer->model, NULL));
    held_out->only_evaluates = true;
    held_out->options.micro_batch = trainer->options.micro_batch;
    held_out->ranks.calls = trainer->ranks.calls;
    *out = held_out;
    return pf_ranks_init(&held_out->ranks, held_out->context);
}

void prefopt_trainer_destroy(prefopt_trainer *trainer)
{
    if (trainer == NULL)
        return;
    prefopt_context *context = trainer->context;
    if (trainer->objective->destroy != NULL)
        trainer->objective->destroy(trainer);
    pf_free(context, trainer->state);
    pf_evaluation_destroy(trainer->evaluation);
    pf_ranks_clear(&trainer->ranks, context);
    pf_trainer_clear_rows(trainer);
    pf_optimiser_clear(&trainer->optimiser);
    prefopt_policy_destroy(trainer->model.policy);
    prefopt_reward_destroy(trainer->model.reward);
    pf_free(context, trainer);
    pf_context_release(context);
}

void pf_trainer_clear_rows(prefopt_trainer *trainer)
{
    pf_parts_clear(&trainer->ranks.part);
    pf_parts_clear(&trainer->parts);
    pf_batches_clear(&trainer->batches);
    trainer->batches.context = trainer->context;
    pf_rows_destroy(trainer->rows);
    trainer->rows = NULL;
    pf_free(trainer->context, trainer->score);
    pf_free(trainer->context, trainer->grad_score);
    trainer->score = trainer->grad_score = NULL;
}

int32_t pf_trainer_lay_out(prefopt_trainer *trainer, const prefopt_dataset *data, int64_t batch,
                           uint64_t seed)
{
    prefopt_context *context = trainer->context;
    PF_TRY(pf_rows_create(&trainer->rows, context, data));
    PF_TRY(
        pf_batches_init(&trainer->batches, context, trainer->rows, trainer->rows->n, batch, seed));
    trainer->score = pf_alloc(context, trainer->rows->n_distinct, sizeof *trainer->score);
    trainer->grad_score = pf_alloc(context, trainer->rows->n_distinct, sizeof *trainer->grad_score);
    return trainer->score == NULL || trainer->grad_score == NULL ? PREFOPT_ERR_MEMORY : PREFOPT_OK;
}

int32_t pf_trainer_rows(prefopt_trainer *trainer, const prefopt_dataset *data)
{
    PF_TRY(pf_trainer_lay_out(trainer, data, trainer->options.batch, trainer->options.seed));
    trainer->total_weight = trainer->rows->total_weight;
    return PREFOPT_OK;
}

int32_t pf_trainer_parts(prefopt_trainer *trainer)
{
    PF_TRY(pf_ranks_lay_out(trainer));
    if (trainer->rows == NULL || trainer->coupled ||
        (!pf_trained_splits(&trainer->model) && trainer->options.micro_batch == 0))
        return PREFOPT_OK;
    return pf_parts_init(&trainer->parts, trainer->context, trainer->rows, trainer->batches.batch);
}

/* Weight decay and the model's one-dimensional tensors. */
static int32_t spare_vectors(prefopt_trainer *trainer)
{
    const prefopt_train_options *o = &trainer->options;
    int64_t offset, n;
    bool has = pf_trained_vector(&trainer->model, 0, &offset, &n);
    if (o->decay_vectors == 1 && !has)
        return pf_fail(PREFOPT_ERR_ARGUMENT,
                       "%s: decay_vectors is 1, but the model is no transformer: all of it decays",
                       trainer->objective->name);
    if (!has || o->weight_decay == 0 || o->decay_vectors == 1)
        return PREFOPT_OK;
    return pf_optimiser_spare_vectors(&trainer->optimiser, &trainer->model);
}

int32_t pf_trainer_ready(prefopt_trainer *trainer)
{
    if (trainer->rows != NULL)
        trainer->data_hash = pf_rows_hash(trainer->rows);
    if (trainer->only_evaluates)
        return pf_ranks_lay_out(trainer);
    prefopt_parameters parameters = {.struct_size = sizeof parameters};
    int32_t status = pf_trained_parameters(&trainer->model, &parameters);
    if (status == PREFOPT_OK && !pf_trained_has_backward(&trainer->model))
        status = pf_fail(PREFOPT_ERR_UNSUPPORTED, "the model has no backward");
    if (status != PREFOPT_OK)
        return pf_fail_in(status, "%s", trainer->objective->name);
    trainer->coupled |= trainer->options.score_ridge > 0;
    PF_TRY(pf_ranks_check(trainer));
    if (trainer->options.micro_batch > 0 && trainer->coupled)
        return pf_fail(PREFOPT_ERR_ARGUMENT,
                       "%s: micro_batch is %lld, but the loss is no mean over rows",
                       trainer->objective->name, (long long)trainer->options.micro_batch);
    PF_TRY(pf_trainer_parts(trainer));
    PF_TRY(pf_optimiser_add(&trainer->optimiser, &parameters));
    PF_TRY(spare_vectors(trainer));
    if (!trainer->has_extra)
        return PREFOPT_OK;
    return pf_optimiser_add(&trainer->optimiser,
                            &(prefopt_parameters){.struct_size = sizeof parameters,
                                                  .dtype = PREFOPT_F64,
                                                  .n = 1,
                                                  .value = &trainer->extra,
                                                  .grad = &trainer->extra_grad});
}

static int32_t scores(prefopt_trainer *trainer, const prefopt_sequences *in, double *score)
{
    return trainer->only_evaluates ? pf_trained_glance(&trainer->model, in, score)
                                   : pf_trained_scores(&trainer->model, in, score);
}

/* At most micro_batch rows at once: of their sequences, which are in order of first appearance,
 * those that are new. */
static int32_t scores_in_pieces(prefopt_trainer *trainer)
{
    const pf_batch *batch = &trainer->batch;
    const int64_t *first = trainer->rows->first;
    int64_t slot = 0, done = 0;
    for (int64_t k = 0; k < batch->n;) {
        int64_t needs = done;
        for (int64_t i = 0; i < trainer->options.micro_batch && k < batch->n; i++, k++) {
            int64_t row = pf_batch_row(batch, k), end = slot + first[row + 1] - first[row];
            for (; slot < end; slot++)
                needs = batch->slot[slot] >= needs ? batch->slot[slot] + 1 : needs;
        }
        prefopt_sequences piece = pf_sequences_part(&batch->sequences, done, needs - done);
        PF_TRY(scores(trainer, &piece, trainer->score + done));
        done = needs;
    }
    return PREFOPT_OK;
}

int32_t pf_trainer_scores(prefopt_trainer *trainer)
{
    const pf_batch *batch = &trainer->batch;
    int64_t most = trainer->options.micro_batch;
    int32_t status = most > 0 && most < batch->n
                         ? scores_in_pieces(trainer)
                         : scores(trainer, &batch->sequences, trainer->score);
    if (status == PREFOPT_ERR_NUMERIC || status == PREFOPT_ERR_ARGUMENT)
        return pf_trainer_name_scores(trainer, status);
    return status;
}

int32_t pf_trainer_backward(prefopt_trainer *trainer)
{
    for (int64_t i = 0; i < trainer->batch.sequences.n && trainer->share != 1; i++)
        trainer->grad_score[i] *= trainer->share;
    return pf_trained_backward(&trainer->model, &trainer->batch.sequences, trainer->grad_score);
}

int32_t pf_trainer_set_logprobs(prefopt_trainer *trainer, const double *logp)
{
    return prefopt_policy_set_logprobs(trainer->model.policy,
                                       pf_sequence_map_view(trainer->rows->map), logp);
}

/* Sets the gradient to 0, where the parameters lie now: a policy that was frozen since the last
 * step may have moved them away from the memory it shared with the snapshot. */
int32_t pf_trainer_begin_gradient(prefopt_trainer *trainer)
{
    prefopt_parameters parameters = {.struct_size = sizeof parameters};
    pf_slot *slot = &trainer->optimiser.slots[0];
    PF_TRY(pf_trained_parameters(&trainer->model, &parameters));
    if (parameters.n != slot->n || parameters.dtype != slot->dtype)
        return pf_fail(PREFOPT_ERR_CALLBACK,
                       "the model has %lld parameters of dtype %d now, but had %lld of dtype %d",
                       (long long)parameters.n, parameters.dtype, (long long)slot->n, slot->dtype);
    slot->value = parameters.value;
    slot->grad = parameters.grad;
    pf_parameters_zero_grad(&parameters);
    return PREFOPT_OK;
}

static void tell_round(const pf_round_facts *facts, prefopt_progress *stats)
{
    stats->round = facts->number;
    stats->tokens = facts->tokens;
    stats->pairs = facts->pairs;
    stats->ties = facts->ties;
    stats->duplicates = facts->duplicates;
    if (!isnan(facts->kl))
        stats->kl = facts->kl;
    stats->reward = facts->reward;
    stats->ended = facts->ended;
    stats->score_mean = facts->score_mean;
    stats->score_sd = facts->score_sd;
}

int32_t pf_trainer_gradient(prefopt_trainer *trainer, prefopt_progress *stats)
{
    trainer->extra_grad = 0;
    PF_TRY(pf_trainer_begin_gradient(trainer));
    return pf_parts_evaluate(trainer, stats);
}

int32_t pf_trainer_evaluate(prefopt_trainer *trainer, bool with_grad, prefopt_progress *stats)
{
    pf_progress_clear(stats);
    trainer->no_step = false;
    if (trainer->rows != NULL)
        stats->tokens = pf_sequences_tokens(&trainer->batch.sequences);
    if (!with_grad)
        PF_TRY(trainer->objective->evaluate(trainer, false, stats));
    else if (trainer->ranks.calls.size > 1 && trainer->batch.n > 0)
        PF_TRY(pf_ranks_gradient(trainer, stats));
    else
        PF_TRY(pf_ranks_agree(&trainer->ranks, pf_trainer_gradient(trainer, stats)));
    if (trainer->round.number >= 0)
        tell_round(&trainer->round, stats);
    if (trainer->options.ridge > 0 && !trainer->no_step)
        stats->loss += pf_optimiser_ridge(
            &trainer->optimiser, trainer->options.ridge / trainer->total_weight, with_grad);
    if (!trainer->no_step && !isfinite(stats->loss))
        return pf_fail(PREFOPT_ERR_NUMERIC, "the loss is %g", stats->loss);
    return PREFOPT_OK;
}

void pf_round_facts_clear(pf_round_facts *facts)
{
    *facts = (pf_round_facts){.number = -1,
                              .pairs = -1,
                              .ties = -1,
                              .duplicates = -1,
                              .kl = NAN,
                              .reward = NAN,
                              .ended = NAN,
                              .score_mean = NAN,
                              .score_sd = NAN};
}

void pf_progress_clear(prefopt_progress *progress)
{
    double none = NAN;
    *progress = (prefopt_progress){.struct_size = sizeof *progress,
                                   .loss = none,
                                   .accuracy = none,
                                   .margin = none,
                                   .kl = none,
                                   .reward = none,
                                   .grad_norm = none,
                                   .learning_rate = none,
                                   .steps_per_second = none,
                                   .seconds_left = none,
                                   .chosen_score = none,
                                   .rejected_score = none,
                                   .chosen_logp = none,
                                   .rejected_logp = none,
                                   .eval_loss = none,
                                   .eval_accuracy = none,
                                   .eval_margin = none,
                                   .best_eval_loss = none,
                                   .eval_step = -1,
                                   .best_step = -1,
                                   .round = -1,
                                   .pairs = -1,
                                   .ties = -1,
                                   .duplicates = -1,
                                   .ended = none,
                                   .score_mean = none,
                                   .score_sd = none,
                                   .clip_fraction = none,
                                   .seconds_sampling = none,
                                   .seconds_scoring = none,
                                   .seconds_training = none};
}

int32_t prefopt_trainer_loss(prefopt_trainer *trainer, double *loss)
{
    PF_REQUIRE(trainer);
    PF_REQUIRE(loss);
    if (trainer->objective->sampled)
        return pf_fail(PREFOPT_ERR_UNSUPPORTED,
                       "%s has no loss of the whole data: its data are sampled at each step",
                       trainer->objective->name);
    prefopt_progress stats;
    pf_batches_all(&trainer->batches, &trainer->batch);
    int32_t status = pf_trainer_evaluate(trainer, false, &stats);
    if (status != PREFOPT_OK)
        return status < 0 ? pf_fail_in(status, "%s", trainer->objective->name) : status;
    *loss = stats.loss;
    return PREFOPT_OK;
}
