/* KL-regularised policy optimisation with every expectation enumerated.
 *
 * For a prompt with completions y, p_y = pi(y | x), u_y = log p_y - log pi_ref(y | x):
 *     J = sum_y p_y (r_y - beta u_y).
 * Its gradient by log p_y is p_y (r_y - beta u_y - beta); as the p_y sum to 1, any constant may be
 * taken from the bracket, and with J itself in place of beta the weights sum to 0 and vanish one by
 * one at the optimum, where r_y - beta u_y is the same for all y. */
#include <math.h>

#include "model/pf_reference.h"
#include "train/pf_saved.h"

typedef struct {
    double beta;
    double *reward; /* n_distinct */
    double *ref;    /* n_distinct, or NULL */
} soft_state;

static int32_t no_reference_mass(const prefopt_trainer *trainer, int64_t row, int64_t distinct,
                                 double logp)
{
    char text[PF_SEQUENCE_TEXT];
    return pf_fail(PREFOPT_ERR_NUMERIC,
                   "row %lld (%s): the reference gives it probability 0 and the policy exp(%g), so "
                   "that KL(policy || reference) is infinite; start from a policy that has 0 there "
                   "(prefopt_policy_set_logprobs with the reference's log-probabilities)",
                   (long long)row, pf_rows_text(trainer->rows, distinct, text), logp);
}

/* Adds a prompt's weight * J, E[r] and KL to the sums, and -weight * the gradient of J to
 * grad_score. */
static int32_t add_prompt(prefopt_trainer *trainer, int64_t row, const int64_t *slot, int64_t n,
                          double weight, prefopt_progress *sums)
{
    const soft_state *state = trainer->state;
    double j = 0, reward = 0, kl = 0;
    for (int64_t i = 0; i < n; i++) {
        int64_t d = pf_batch_distinct(&trainer->batch, slot[i]);
        double logp = trainer->score[slot[i]], p = exp(logp);
        if (p == 0)
            continue;
        if (state->ref != NULL && state->beta > 0 && state->ref[d] == -INFINITY)
            return no_reference_mass(trainer, row, d, logp);
        double u = state->ref != NULL ? logp - state->ref[d] : 0;
        reward += p * state->reward[d];
        kl += p * u;
        j += p * (state->reward[d] - (state->beta > 0 ? state->beta * u : 0));
    }
    for (int64_t i = 0; i < n; i++) {
        int64_t d = pf_batch_distinct(&trainer->batch, slot[i]);
        double logp = trainer->score[slot[i]], p = exp(logp);
        if (p == 0)
            continue;
        double u = state->beta > 0 ? logp - state->ref[d] : 0;
        trainer->grad_score[slot[i]] -= weight * p * (state->reward[d] - state->beta * u - j);
    }
    sums->loss -= weight * j;
    sums->reward += weight * reward;
    sums->kl += weight * kl;
    return PREFOPT_OK;
}

static int32_t evaluate(prefopt_trainer *trainer, bool with_grad, prefopt_progress *stats)
{
    const soft_state *state = trainer->state;
    const pf_rows *rows = trainer->rows;
    const pf_batch *batch = &trainer->batch;
    PF_TRY(pf_trainer_scores(trainer));
    memset(trainer->grad_score, 0, (size_t)batch->sequences.n * sizeof *trainer->grad_score);
    double total = 0;
    for (int64_t k = 0; k < batch->n; k++)
        total += rows->weight[pf_batch_row(batch, k)];
    stats->loss = stats->reward = stats->kl = 0;
    const int64_t *slot = batch->slot;
    for (int64_t k = 0; k < batch->n; k++) {
        int64_t row = pf_batch_row(batch, k), n = rows->first[row + 1] - rows->first[row];
        if (rows->weight[row] > 0)
            PF_TRY(add_prompt(trainer, row, slot, n, rows->weight[row] / total, stats));
        slot += n;
    }
    if (state->ref == NULL)
        stats->kl = NAN;
    return with_grad ? pf_trainer_backward(trainer) : PREFOPT_OK;
}

/* A tabular policy can be the optimum itself, pi_ref exp(r / beta) / Z, at each prompt with weight;
 * the others stay. Numbers are the prompts' in the rows' map, where each has all its completions in
 * one run, as rows list them. */
static int32_t solve(prefopt_trainer *trainer, bool *solved)
{
    const soft_state *state = trainer->state;
    const pf_rows *rows = trainer->rows;
    if (state->beta == 0 || trainer->options.ridge > 0 ||
        pf_trained_class(&trainer->model) != PF_SCORES_FREE)
        return PREFOPT_OK;
    double *logp = trainer->grad_score; /* free until the next evaluation */
    PF_TRY(pf_trained_scores(&trainer->model, pf_sequence_map_view(rows->map), logp));
    for (int64_t i = 0; i < rows->n; i++) {
        int64_t first = rows->sequence[rows->first[i]], n = rows->first[i + 1] - rows->first[i];
        if (rows->weight[i] > 0)
            PF_TRY(prefopt_soft_optimal(n, state->ref + first, state->reward + first, state->beta,
                                        logp + first, NULL));
    }
    *solved = true;
    return pf_trainer_set_logprobs(trainer, logp);
}

static void destroy(prefopt_trainer *trainer)
{
    soft_state *state = trainer->state;
    pf_free(trainer->context, state->reward);
    pf_free(trainer->context, state->ref);
}

static void describe(const prefopt_trainer *trainer, pf_describe *to)
{
    const soft_state *state = trainer->state;
    pf_describe_f64(to, "beta", state->beta);
    pf_describe_about(to, "reward", state->reward, trainer->rows->n_distinct);
    if (state->ref != NULL)
        pf_describe_about(to, "reference_logp", state->ref, trainer->rows->n_distinct);
}

static const pf_objective objective = {.name = "soft_rl",
                                       .evaluate = evaluate,
                                       .solve = solve,
                                       .destroy = destroy,
                                       .describe = describe};

/* The completions of each prompt row are the trainer's rows, with the prompt rows' weights. */
static int32_t enumerate(prefopt_trainer *trainer, const prefopt_dataset *prompts)
{
    prefopt_columns columns = {.struct_size = sizeof columns};
    PF_TRY(prefopt_dataset_columns(prompts, &columns));
    if (columns.n_rows == 0)
        return pf_fail(PREFOPT_ERR_ARGUMENT, "prompts has no rows, expected at least 1");
    prefopt_dataset *completions;
    PF_TRY(prefopt_policy_enumerate(&completions, trainer->model.policy, prompts, 0));
    int32_t status = pf_trainer_rows(trainer, completions);
    prefopt_dataset_destroy(completions);
    PF_TRY(status);
    return pf_rows_set_weights(trainer->rows, columns.weight, &trainer->total_weight);
}

static int32_t fill(prefopt_trainer *trainer, prefopt_reference *reference, prefopt_reward *reward,
                    const prefopt_dataset *prompts)
{
    soft_state *state = trainer->state;
    prefopt_context *context = trainer->context;
    PF_TRY(enumerate(trainer, prompts));
    const prefopt_sequences *view = pf_sequence_map_view(trainer->rows->map);
    if ((state->reward = pf_alloc(context, view->n, sizeof *state->reward)) == NULL)
        return PREFOPT_ERR_MEMORY;
    PF_TRY(prefopt_reward_scores(reward, view, state->reward));
    if (reference != NULL) {
        if ((state->ref = pf_alloc(context, view->n, sizeof *state->ref)) == NULL)
            return PREFOPT_ERR_MEMORY;
        PF_TRY(prefopt_reference_logprobs(reference, view, state->ref));
    }
    return pf_trainer_ready(trainer);
}

int32_t prefopt_trainer_create_soft_rl(prefopt_trainer **out, prefopt_policy *policy,
                                       prefopt_reference *reference, prefopt_reward *reward,
                                       const prefopt_dataset *prompts, double beta,
                                       const prefopt_train_options *options)
{
    PF_REQUIRE(out);
    PF_REQUIRE(policy);
    PF_REQUIRE(reward);
    PF_REQUIRE(prompts);
    if (!(beta >= 0 && isfinite(beta)))
        return pf_fail(PREFOPT_ERR_ARGUMENT, "beta is %g, expected a finite number >= 0", beta);
    if (reference == NULL && beta > 0)
        return pf_fail(PREFOPT_ERR_ARGUMENT, "reference is NULL, but beta is %g", beta);
    prefopt_trainer *trainer;
    PF_TRY(pf_trainer_new(&trainer, &objective, sizeof(soft_state), (pf_trained){.policy = policy},
                          options));
    ((soft_state *)trainer->state)->beta = beta;
    int32_t status = fill(trainer, reference, reward, prompts);
    if (status != PREFOPT_OK) {
        prefopt_trainer_destroy(trainer);
        return status;
    }
    *out = trainer;
    return PREFOPT_OK;
}
