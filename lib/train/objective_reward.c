/* Reward models: Bradley-Terry on pairs, Plackett-Luce on rankings. */
#include <math.h>

#include "train/pf_saved.h"

typedef struct {
    prefopt_bt_options bt;
    double *work; /* 2 n_groups; with score_ridge */
    bool ranks;   /* rows are rankings */
    pf_pair_batch pairs;
    pf_ranking_batch rankings;
} reward_state;

static int32_t evaluate_pairs(prefopt_trainer *trainer, prefopt_progress *stats)
{
    reward_state *state = trainer->state;
    prefopt_pair_scores in;
    prefopt_pair_loss out;
    pf_pair_batch_gather(&state->pairs, trainer, NULL, &in, &out);
    if (trainer->has_extra)
        state->bt.log_tie = trainer->extra;
    PF_TRY(prefopt_loss_bradley_terry(&state->bt, &in, &out));
    PF_TRY(pf_pair_batch_scatter(&state->pairs, trainer, out.mean));
    stats->loss = out.mean;
    if (trainer->has_extra)
        trainer->extra_grad = out.grad_log_tie;
    pf_pair_batch_stats(&state->pairs, &in, 1, false, stats);
    return PREFOPT_OK;
}

static int32_t evaluate(prefopt_trainer *trainer, bool with_grad, prefopt_progress *stats)
{
    reward_state *state = trainer->state;
    PF_TRY(pf_trainer_scores(trainer));
    if (state->ranks)
        PF_TRY(pf_ranking_batch_evaluate(&state->rankings, trainer, NULL, 1, stats));
    else
        PF_TRY(evaluate_pairs(trainer, stats));
    if (trainer->options.score_ridge > 0)
        PF_TRY(pf_score_prior(trainer, 1, NULL, state->work, &stats->loss));
    return with_grad ? pf_trainer_backward(trainer) : PREFOPT_OK;
}

static int32_t exists(prefopt_trainer *trainer)
{
    const prefopt_train_options *o = &trainer->options;
    return pf_exists(trainer, NULL, 0, o->ridge > 0 || o->score_ridge > 0,
                     "set score_ridge or ridge > 0");
}

static void destroy(prefopt_trainer *trainer)
{
    reward_state *state = trainer->state;
    pf_free(trainer->context, state->work);
    pf_pair_batch_clear(&state->pairs);
    pf_ranking_batch_clear(&state->rankings);
}

/* The tie parameter is no option once it is trained. */
static void describe(const prefopt_trainer *trainer, pf_describe *to)
{
    const reward_state *state = trainer->state;
    pf_describe_i64(to, "tie_model", state->bt.tie_model);
    pf_describe_f64(to, "centre", state->bt.centre);
}

/* Without a start of the caller's, Rao-Kupper's parameter starts away from 0, where ties have
 * probability 0 and an infinite loss. */
static void start_tie(prefopt_trainer *trainer, const prefopt_bt_options *bt)
{
    trainer->has_extra = bt->tie_model != PREFOPT_TIE_NONE;
    trainer->extra = bt->log_tie;
    trainer->extra_low = -INFINITY;
    if (bt->tie_model == PREFOPT_TIE_RAO_KUPPER) {
        trainer->extra_low = 1e-12;
        if (bt->log_tie <= trainer->extra_low)
            trainer->extra = 0.5;
    }
}

static int32_t check_ranking_options(const prefopt_bt_options *bt)
{
    if (bt->tie_model != PREFOPT_TIE_NONE)
        return pf_fail(PREFOPT_ERR_ARGUMENT,
                       "tie_model is %d, but RANKING rows have no ties: expected PREFOPT_TIE_NONE",
                       bt->tie_model);
    if (bt->centre != 0)
        return pf_fail(PREFOPT_ERR_ARGUMENT, "centre is %g, but RANKING rows have no use for it",
                       bt->centre);
    return PREFOPT_OK;
}

static int32_t fill(prefopt_trainer *trainer, const prefopt_dataset *data)
{
    reward_state *state = trainer->state;
    PF_TRY(pf_trainer_rows(trainer, data));
    const pf_rows *rows = trainer->rows;
    PF_TRY(pf_rows_are_rankings(rows, trainer->objective->name, &state->ranks));
    static const double number;
    prefopt_pair_scores none = {.struct_size = sizeof none,
                                .chosen = &number,
                                .rejected = &number,
                                .weight = rows->weighted ? &number : NULL,
                                .label = rows->labelled ? &number : NULL,
                                .margin = rows->margined ? &number : NULL};
    prefopt_pair_loss out = {.struct_size = sizeof out};
    PF_TRY(prefopt_loss_bradley_terry(&state->bt, &none, &out));
    start_tie(trainer, &state->bt);
    /* Room for all rows, not for a batch alone: loss and fit take them at once. */
    if (state->ranks) {
        PF_TRY(check_ranking_options(&state->bt));
        PF_TRY(pf_ranking_batch_init(&state->rankings, trainer->context, rows, rows->n, false));
    } else {
        PF_TRY(pf_pair_batch_init(&state->pairs, trainer->context, rows->n, 0));
    }
    if (trainer->options.score_ridge > 0) {
        state->work = pf_alloc(trainer->context, 2 * rows->n_groups, sizeof *state->work);
        if (state->work == NULL)
            return PREFOPT_ERR_MEMORY;
    }
    return pf_trainer_ready(trainer);
}

static int32_t held_out(prefopt_trainer **out, const prefopt_trainer *trainer,
                        const prefopt_reference *reference, const prefopt_dataset *data)
{
    const reward_state *state = trainer->state;
    if (reference != NULL)
        return pf_fail(PREFOPT_ERR_ARGUMENT, "reference is given, but reward has no use for one");
    PF_TRY(pf_trainer_new_held_out(out, trainer, trainer->objective, sizeof *state));
    ((reward_state *)(*out)->state)->bt = state->bt;
    return fill(*out, data);
}

static const pf_objective objective = {.name = "reward",
                                       .score_prior = true,
                                       .evaluate = evaluate,
                                       .exists = exists,
                                       .held_out = held_out,
                                       .destroy = destroy,
                                       .describe = describe};

int32_t prefopt_trainer_create_reward(prefopt_trainer **out, prefopt_reward *reward,
                                      const prefopt_dataset *data, const prefopt_bt_options *bt,
                                      const prefopt_train_options *options)
{
    PF_REQUIRE(out);
    PF_REQUIRE(reward);
    PF_REQUIRE(data);
    prefopt_bt_options own;
    PF_TRY(prefopt_bt_options_init(&own, sizeof own));
    if (bt != NULL)
        PF_TRY(pf_struct_read(&own, sizeof own, sizeof own, bt, "prefopt_bt_options"));
    prefopt_trainer *trainer;
    PF_TRY(pf_trainer_new(&trainer, &objective, sizeof(reward_state),
                          (pf_trained){.reward = reward}, options));
    ((reward_state *)trainer->state)->bt = own;
    int32_t status = fill(trainer, data);
    if (status != PREFOPT_OK) {
        prefopt_trainer_destroy(trainer);
        return status;
    }
    *out = trainer;
    return PREFOPT_OK;
}

int32_t prefopt_trainer_log_tie(const prefopt_trainer *trainer, double *log_tie)
{
    PF_REQUIRE(trainer);
    PF_REQUIRE(log_tie);
    if (!trainer->has_extra)
        return pf_fail(PREFOPT_ERR_UNSUPPORTED, "%s: the trainer has no tie parameter (tie_model)",
                       trainer->objective->name);
    *log_tie = trainer->extra;
    return PREFOPT_OK;
}
