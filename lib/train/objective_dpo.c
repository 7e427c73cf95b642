/* The DPO family on pairs, and DPO on rankings by Plackett-Luce: the policy's log-probabilities
 * against the reference's, which are computed once. */
#include <math.h>

#include "train/pf_rank_reference.h"
#include "train/pf_sampled.h"
#include "train/pf_saved.h"

typedef struct {
    prefopt_dpo_options dpo;
    double *ref;  /* n_distinct, or NULL: reference-free */
    double *work; /* 2 n_groups; with score_ridge */
    bool ranks;   /* rows are rankings */
    pf_pair_batch pairs;
    pf_ranking_batch rankings;
} dpo_state;

static bool takes_reference(int32_t variant)
{
    return variant != PREFOPT_DPO_SIMPO && variant != PREFOPT_DPO_CPO &&
           variant != PREFOPT_DPO_ORPO;
}

static bool takes_lengths(int32_t variant)
{
    return variant == PREFOPT_DPO_IPO || variant == PREFOPT_DPO_SIGMOID_NORM ||
           variant == PREFOPT_DPO_SIMPO || variant == PREFOPT_DPO_ORPO;
}

int32_t pf_dpo_evaluate_pairs(prefopt_trainer *trainer, const prefopt_dpo_options *dpo,
                              pf_pair_batch *pairs, const double *ref, prefopt_progress *stats)
{
    prefopt_pair_scores in;
    prefopt_pair_loss out;
    pf_pair_batch_gather(pairs, trainer, ref, &in, &out);
    PF_TRY(prefopt_loss_dpo(dpo, &in, &out));
    PF_TRY(pf_pair_batch_scatter(pairs, trainer, out.mean));
    stats->loss = out.mean;
    pf_pair_batch_stats(pairs, &in, dpo->beta, true, stats);
    return PREFOPT_OK;
}

bool pf_dpo_is_coupled(int32_t variant)
{
    return variant == PREFOPT_DPO_AOT || variant == PREFOPT_DPO_AOT_UNPAIRED;
}

static int32_t evaluate(prefopt_trainer *trainer, bool with_grad, prefopt_progress *stats)
{
    dpo_state *state = trainer->state;
    PF_TRY(pf_trainer_scores(trainer));
    if (state->ranks)
        PF_TRY(pf_ranking_batch_evaluate(&state->rankings, trainer, state->ref, state->dpo.beta,
                                         stats));
    else
        PF_TRY(pf_dpo_evaluate_pairs(trainer, &state->dpo, &state->pairs, state->ref, stats));
    if (trainer->options.score_ridge > 0)
        PF_TRY(pf_score_prior(trainer, state->dpo.beta, state->ref, state->work, &stats->loss));
    return with_grad ? pf_trainer_backward(trainer) : PREFOPT_OK;
}

/* The variants that fall for ever as a pair's difference grows. */
static bool is_monotone(const prefopt_dpo_options *dpo)
{
    if (dpo->divergence != PREFOPT_DIVERGENCE_REVERSE_KL)
        return false;
    switch (dpo->variant) {
    case PREFOPT_DPO_SIGMOID:
    case PREFOPT_DPO_DISCOPOP:
    case PREFOPT_DPO_SIGMOID_NORM:
    case PREFOPT_DPO_SIMPO:
    case PREFOPT_DPO_CPO:
    case PREFOPT_DPO_ORPO:
        return true;
    case PREFOPT_DPO_ROBUST:
        return dpo->label_smoothing == 0;
    default:
        return false;
    }
}

static int32_t exists(prefopt_trainer *trainer)
{
    const dpo_state *state = trainer->state;
    const prefopt_train_options *o = &trainer->options;
    if (o->ridge > 0 || o->score_ridge > 0 || !is_monotone(&state->dpo))
        return PREFOPT_OK;
    /* Divided by lengths, log-linear log-probabilities do not differ linearly: log Z stays. */
    if (takes_lengths(state->dpo.variant) && pf_trained_class(&trainer->model) == PF_SCORES_LINEAR)
        return PREFOPT_OK;
    bool smooths = !state->ranks && state->dpo.variant != PREFOPT_DPO_DISCOPOP &&
                   state->dpo.variant != PREFOPT_DPO_ORPO &&
                   state->dpo.variant != PREFOPT_DPO_ROBUST;
    return pf_exists(trainer, state->ref, state->dpo.label_smoothing, false,
                     smooths ? "set score_ridge, ridge or label_smoothing > 0"
                             : "set score_ridge or ridge > 0");
}

static void destroy(prefopt_trainer *trainer)
{
    dpo_state *state = trainer->state;
    pf_free(trainer->context, state->ref);
    pf_free(trainer->context, state->work);
    pf_pair_batch_clear(&state->pairs);
    pf_ranking_batch_clear(&state->rankings);
}

static void describe(const prefopt_trainer *trainer, pf_describe *to)
{
    const dpo_state *state = trainer->state;
    pf_describe_dpo(to, &state->dpo);
    if (state->ref != NULL)
        pf_describe_about(to, "reference_logp", state->ref, trainer->rows->n_distinct);
}

int32_t pf_dpo_check(const prefopt_dpo_options *dpo, const prefopt_reference *reference,
                     bool weighted, bool labelled, bool margined)
{
    /* No pairs, but the arrays that the data will bring: the loss itself says what it has no use
     * for. */
    static const double number;
    static const int64_t length;
    bool lengths = takes_lengths(dpo->variant);
    if (takes_reference(dpo->variant) && reference == NULL)
        return pf_fail(PREFOPT_ERR_ARGUMENT,
                       "reference is NULL, but variant %d compares with one (reference-free are "
                       "SIMPO, CPO and ORPO)",
                       dpo->variant);
    if (!takes_reference(dpo->variant) && reference != NULL)
        return pf_fail(PREFOPT_ERR_ARGUMENT,
                       "reference is given, but variant %d has no use for one: expected NULL",
                       dpo->variant);
    prefopt_pair_scores in = {.struct_size = sizeof in,
                              .chosen = &number,
                              .rejected = &number,
                              .ref_chosen = reference != NULL ? &number : NULL,
                              .ref_rejected = reference != NULL ? &number : NULL,
                              .weight = weighted ? &number : NULL,
                              .label = labelled ? &number : NULL,
                              .margin = margined ? &number : NULL,
                              .len_chosen = lengths ? &length : NULL,
                              .len_rejected = lengths ? &length : NULL};
    prefopt_pair_loss out = {.struct_size = sizeof out};
    return prefopt_loss_dpo(dpo, &in, &out);
}

int32_t pf_dpo_pairs(pf_pair_batch *pairs, prefopt_context *context, int64_t capacity,
                     int32_t variant)
{
    int32_t parts = (takes_reference(variant) ? PF_PAIR_REFERENCES : 0) |
                    (takes_lengths(variant) ? PF_PAIR_LENGTHS : 0);
    return pf_pair_batch_init(pairs, context, capacity, parts);
}

static int32_t check_ranking_options(const prefopt_dpo_options *dpo)
{
    if (dpo->variant != PREFOPT_DPO_SIGMOID)
        return pf_fail(PREFOPT_ERR_ARGUMENT,
                       "variant is %d, but RANKING rows go by Plackett-Luce: expected "
                       "PREFOPT_DPO_SIGMOID (0)",
                       dpo->variant);
    if (dpo->label_smoothing != 0)
        return pf_fail(PREFOPT_ERR_ARGUMENT,
                       "label_smoothing is %g, but RANKING rows have no use for it",
                       dpo->label_smoothing);
    if (dpo->divergence != PREFOPT_DIVERGENCE_REVERSE_KL)
        return pf_fail(PREFOPT_ERR_ARGUMENT,
                       "divergence is %d, but RANKING rows go with the reverse KL (0)",
                       dpo->divergence);
    return PREFOPT_OK;
}

static int32_t fill(prefopt_trainer *trainer, const prefopt_reference *reference,
                    const prefopt_dataset *data)
{
    dpo_state *state = trainer->state;
    prefopt_context *context = trainer->context;
    PF_TRY(pf_trainer_rows(trainer, data));
    const pf_rows *rows = trainer->rows;
    PF_TRY(pf_rows_are_rankings(rows, trainer->objective->name, &state->ranks));
    PF_TRY(pf_dpo_check(&state->dpo, reference, rows->weighted, rows->labelled, rows->margined));
    /* Room for all rows, not for a batch alone: loss and fit take them at once. */
    if (state->ranks) {
        PF_TRY(check_ranking_options(&state->dpo));
        PF_TRY(pf_ranking_batch_init(&state->rankings, context, rows, rows->n, true));
    } else {
        PF_TRY(pf_dpo_pairs(&state->pairs, context, rows->n, state->dpo.variant));
    }
    trainer->coupled = pf_dpo_is_coupled(state->dpo.variant);
    if (trainer->options.score_ridge > 0) {
        state->work = pf_alloc(context, 2 * rows->n_groups, sizeof *state->work);
        if (state->work == NULL)
            return PREFOPT_ERR_MEMORY;
    }
    if (reference != NULL) {
        state->ref = pf_alloc(context, rows->n_distinct, sizeof *state->ref);
        if (state->ref == NULL)
            return PREFOPT_ERR_MEMORY;
    }
    PF_TRY(pf_trainer_reference(trainer, reference, data, state->ref));
    return pf_trainer_ready(trainer);
}

static int32_t held_out(prefopt_trainer **out, const prefopt_trainer *trainer,
                        const prefopt_reference *reference, const prefopt_dataset *data)
{
    const dpo_state *state = trainer->state;
    return pf_dpo_held_out(out, trainer, &state->dpo, reference, data);
}

static const pf_objective objective = {.name = "dpo",
                                       .score_prior = true,
                                       .evaluate = evaluate,
                                       .exists = exists,
                                       .held_out = held_out,
                                       .destroy = destroy,
                                       .describe = describe};

int32_t pf_dpo_held_out(prefopt_trainer **out, const prefopt_trainer *trainer,
                        const prefopt_dpo_options *dpo, const prefopt_reference *reference,
                        const prefopt_dataset *data)
{
    PF_TRY(pf_trainer_new_held_out(out, trainer, &objective, sizeof(dpo_state)));
    ((dpo_state *)(*out)->state)->dpo = *dpo;
    return fill(*out, reference, data);
}

static int32_t begin(prefopt_trainer **out, prefopt_policy *policy, const prefopt_dpo_options *dpo,
                     const prefopt_train_options *options)
{
    prefopt_dpo_options own;
    PF_TRY(prefopt_dpo_options_init(&own, sizeof own));
    if (dpo != NULL)
        PF_TRY(pf_struct_read(&own, sizeof own, sizeof own, dpo, "prefopt_dpo_options"));
    PF_TRY(pf_trainer_new(out, &objective, sizeof(dpo_state), (pf_trained){.policy = policy},
                          options));
    ((dpo_state *)(*out)->state)->dpo = own;
    return PREFOPT_OK;
}

int32_t prefopt_trainer_create_dpo(prefopt_trainer **out, prefopt_policy *policy,
                                   const prefopt_reference *reference, const prefopt_dataset *data,
                                   const prefopt_dpo_options *dpo,
                                   const prefopt_train_options *options)
{
    PF_REQUIRE(out);
    PF_REQUIRE(policy);
    PF_REQUIRE(data);
    prefopt_trainer *trainer;
    int32_t status = begin(&trainer, policy, dpo, options);
    if (status != PREFOPT_OK)
        return pf_ranks_refuse(options, policy->context, status);
    status = pf_ranks_agree(&trainer->ranks, fill(trainer, reference, data));
    if (status != PREFOPT_OK) {
        prefopt_trainer_destroy(trainer);
        return status;
    }
    *out = trainer;
    return PREFOPT_OK;
}
