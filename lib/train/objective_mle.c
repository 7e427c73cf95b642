/* Maximum likelihood on completions: the forward KL from the data to the policy, without the data's
 * entropy. */
#include <math.h>

#include "train/pf_train.h"

static int32_t not_finite(const prefopt_trainer *trainer, int64_t row, int64_t slot, double logp)
{
    char text[PF_SEQUENCE_TEXT];
    int64_t distinct = pf_batch_distinct(&trainer->batch, trainer->batch.slot[slot]);
    return pf_fail(PREFOPT_ERR_NUMERIC, "row %lld (%s): the log-probability is %g", (long long)row,
                   pf_rows_text(trainer->rows, distinct, text), logp);
}

static int32_t evaluate(prefopt_trainer *trainer, bool with_grad, prefopt_progress *stats)
{
    const pf_rows *rows = trainer->rows;
    const pf_batch *batch = &trainer->batch;
    PF_TRY(pf_trainer_scores(trainer));
    memset(trainer->grad_score, 0, (size_t)batch->sequences.n * sizeof *trainer->grad_score);
    double total = 0, loss = 0;
    for (int64_t k = 0; k < batch->n; k++)
        total += rows->weight[pf_batch_row(batch, k)];
    int64_t slot = 0;
    for (int64_t k = 0; k < batch->n; k++) {
        int64_t row = pf_batch_row(batch, k), n = rows->first[row + 1] - rows->first[row];
        double weight = total > 0 ? rows->weight[row] / (total * (double)n) : 0;
        for (int64_t j = 0; j < n; j++, slot++) {
            double logp = trainer->score[batch->slot[slot]];
            if (weight == 0)
                continue;
            if (!isfinite(logp))
                return not_finite(trainer, row, slot, logp);
            loss -= weight * logp;
            trainer->grad_score[batch->slot[slot]] -= weight;
        }
    }
    stats->loss = loss;
    return with_grad ? pf_trainer_backward(trainer) : PREFOPT_OK;
}

/* Sums the rows' weights into share (n_distinct) and into the prompts' totals. */
static void count(const pf_rows *rows, double *share, double *total)
{
    for (int64_t i = 0; i < rows->n; i++) {
        int64_t n = rows->first[i + 1] - rows->first[i];
        for (int64_t s = rows->first[i]; s < rows->first[i + 1]; s++) {
            share[rows->sequence[s]] += rows->weight[i] / (double)n;
            total[rows->group[rows->sequence[s]]] += rows->weight[i] / (double)n;
        }
    }
}

/* A tabular policy can be the data's own distribution. Prompts without weight keep what they have:
 * their rows say nothing, so nothing is written unless every prompt has some. */
static int32_t solve(prefopt_trainer *trainer, bool *solved)
{
    const pf_rows *rows = trainer->rows;
    if (trainer->options.ridge > 0 || pf_trained_class(&trainer->model) != PF_SCORES_FREE)
        return PREFOPT_OK;
    double *total = pf_calloc(trainer->context, rows->n_groups, sizeof *total);
    if (total == NULL)
        return PREFOPT_ERR_MEMORY;
    double *logp = trainer->grad_score; /* free until the next evaluation */
    memset(logp, 0, (size_t)rows->n_distinct * sizeof *logp);
    count(rows, logp, total);
    bool all = true;
    for (int64_t i = 0; i < rows->n_distinct; i++) {
        all &= total[rows->group[i]] > 0;
        logp[i] = log(logp[i] / total[rows->group[i]]);
    }
    pf_free(trainer->context, total);
    if (!all)
        return PREFOPT_OK;
    *solved = true;
    return pf_trainer_set_logprobs(trainer, logp);
}

static int32_t fill(prefopt_trainer *trainer, const prefopt_dataset *data)
{
    PF_TRY(pf_trainer_rows(trainer, data));
    PF_TRY(pf_rows_require(trainer->rows, trainer->objective->name, PREFOPT_ROW_COMPLETIONS));
    return pf_trainer_ready(trainer);
}

static int32_t held_out(prefopt_trainer **out, const prefopt_trainer *trainer,
                        const prefopt_reference *reference, const prefopt_dataset *data)
{
    if (reference != NULL)
        return pf_fail(PREFOPT_ERR_ARGUMENT, "reference is given, but mle has no use for one");
    PF_TRY(pf_trainer_new_held_out(out, trainer, trainer->objective, 1));
    return fill(*out, data);
}

static const pf_objective objective = {
    .name = "mle", .evaluate = evaluate, .solve = solve, .held_out = held_out};

int32_t prefopt_trainer_create_mle(prefopt_trainer **out, prefopt_policy *policy,
                                   const prefopt_dataset *data,
                                   const prefopt_train_options *options)
{
    PF_REQUIRE(out);
    PF_REQUIRE(policy);
    PF_REQUIRE(data);
    prefopt_trainer *trainer;
    PF_TRY(pf_trainer_new(&trainer, &objective, 1, (pf_trained){.policy = policy}, options));
    int32_t status = fill(trainer, data);
    if (status != PREFOPT_OK) {
        prefopt_trainer_destroy(trainer);
        return status;
    }
    *out = trainer;
    return PREFOPT_OK;
}
