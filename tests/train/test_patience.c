/* Patience and the best, on held-out losses that the test writes itself. */
#include <stdbool.h>

#include "train_test.h"

/* A reward of one parameter whose two scores (tokens 1 and 2 after the prompt) give the pair the
 * loss that stands next. */
typedef struct {
    const double *loss;
    int64_t n_seen;
    double value, grad;
} script;

static int32_t script_scores(void *payload, const prefopt_sequences *in, double *score)
{
    script *s = payload;
    bool held_out = in->tokens[in->offsets[0]] == 8;
    double loss = held_out ? s->loss[s->n_seen++] : 1;
    for (int64_t i = 0; i < in->n; i++) /* -log sigma(d) = loss */
        score[i] = in->tokens[in->offsets[i] + 1] == 1 ? -log(expm1(loss)) : 0;
    return PREFOPT_OK;
}

static int32_t script_backward(void *payload, const prefopt_sequences *in, const double *grad)
{
    (void)in, (void)grad;
    ((script *)payload)->grad += 1;
    return PREFOPT_OK;
}

static int32_t script_parameters(void *payload, prefopt_parameters *out)
{
    script *s = payload;
    *out = (prefopt_parameters){.struct_size = sizeof *out,
                                .dtype = PREFOPT_F64,
                                .n = 1,
                                .value = &s->value,
                                .grad = &s->grad};
    return PREFOPT_OK;
}

static const prefopt_reward_callbacks script_callbacks = {.struct_size = sizeof script_callbacks,
                                                          .scores = script_scores,
                                                          .backward = script_backward,
                                                          .parameters = script_parameters};

static prefopt_dataset *one_pair(prefopt_context *context, int32_t prompt)
{
    int32_t chosen = 1, rejected = 2;
    prefopt_dataset *pairs;
    OK(prefopt_dataset_create(&pairs, context));
    OK(prefopt_dataset_append_pair(pairs, &prompt, 1, &chosen, 1, &rejected, 1, 1, 1, 0));
    return pairs;
}

typedef struct {
    int64_t patience;
    double min_delta;
    int64_t stops_at, best; /* evaluations; stops_at -1: never */
} patience_case;

static const double losses[] = {1, 0.9, 0.95, 0.85, 0.86, 0.84, 0.83, 0.825, 0.9, 0.7, 0.71, 0.72};
enum { N_LOSSES = sizeof losses / sizeof *losses };

static void play(prefopt_context *context, const patience_case *c, int cut)
{
    script s = {.loss = losses};
    prefopt_reward *reward;
    prefopt_trainer *trainer;
    prefopt_dataset *pairs = one_pair(context, 7), *held_out = one_pair(context, 8);
    OK(prefopt_reward_create_custom(&reward, context, &script_callbacks, &s));
    OK(prefopt_trainer_create_reward(&trainer, reward, pairs, NULL, NULL));
    prefopt_evaluation_options e;
    OK(prefopt_evaluation_options_init(&e, sizeof e));
    e.every = 3;
    e.patience = c->patience;
    e.min_delta = c->min_delta;
    OK(prefopt_trainer_set_evaluation(trainer, held_out, NULL, &e));
    int64_t left = 3 * (N_LOSSES - 1), step;
    int32_t status = PREFOPT_OK;
    prefopt_progress last = {.struct_size = sizeof last};
    while (status == PREFOPT_OK && left > 0) {
        int64_t n = cut > 0 && cut < left ? cut : left;
        status = prefopt_trainer_run(trainer, n, &last);
        left -= n;
    }
    int64_t seen = c->stops_at < 0 ? N_LOSSES - 1 : c->stops_at;
    OK(prefopt_trainer_step(trainer, &step));
    ck_assert_int_eq(status, c->stops_at < 0 ? PREFOPT_OK : PREFOPT_STOPPED);
    ck_assert_int_eq(last.stopped_early, c->stops_at >= 0);
    ck_assert_int_eq(step, 3 * seen);
    ck_assert_int_eq(last.eval_step, 3 * seen);
    ck_assert_int_eq(s.n_seen, seen + 1);
    ck_assert_int_eq(last.best_step, 3 * c->best);
    CLOSE(last.eval_loss, losses[seen], 1e-12);
    CLOSE(last.best_eval_loss, losses[c->best], 1e-12);
    double value = s.value;
    if (c->stops_at >= 0) { /* it stays stopped, and takes no step */
        ck_assert_int_eq(prefopt_trainer_run(trainer, 5, &last), PREFOPT_STOPPED);
        ck_assert_int_eq(last.stopped_early, 1);
        ck_assert_int_eq(last.step, 0);
        ck_assert_double_eq(s.value, value);
        ck_assert_int_eq(s.n_seen, seen + 1);
        s.n_seen = 0;
        OK(prefopt_trainer_set_evaluation(trainer, held_out, NULL, &e));
        OK(prefopt_trainer_run(trainer, 1, &last));
        ck_assert_int_eq(last.stopped_early, 0);
        ck_assert_int_eq(last.best_step, step);
        ck_assert_double_ne(s.value, value);
    }
    prefopt_trainer_destroy(trainer);
    prefopt_reward_destroy(reward);
    prefopt_dataset_destroy(pairs);
    prefopt_dataset_destroy(held_out);
}

START_TEST(patience_counts)
{
    /* 1 .9 .95 .85 .86 .84 .83 .825 .9 .7 .71 .72 */
    static const patience_case cases[] = {
        {.patience = 0, .stops_at = -1, .best = 9},
        {.patience = 1, .stops_at = 2, .best = 1},
        {.patience = 2, .stops_at = 11, .best = 9},
        {.patience = 3, .stops_at = -1, .best = 9},
        /* .85 is .05 below .9, which was .1 below 1; the three after it are not .03 below .85. */
        {.patience = 3, .min_delta = 0.03, .stops_at = 6, .best = 6},
        {.patience = 4, .min_delta = 0.024, .stops_at = -1, .best = 9},
        {.patience = 1, .min_delta = 0.2, .stops_at = 1, .best = 1},
        {.patience = 9, .min_delta = 0.31, .stops_at = 9, .best = 9},
        {.patience = 9, .min_delta = 0.29, .stops_at = -1, .best = 9}};
    prefopt_context *context = test_context(1);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        for (int cut = 0; cut <= 4; cut++)
            play(context, &cases[i], cut);
    prefopt_context_destroy(context);
}
END_TEST

/* A run of 0 steps evaluates where the trainer stands; patience does not count it, the best does.
 */
START_TEST(evaluations_on_demand)
{
    prefopt_context *context = test_context(1);
    static const double told[] = {1, 0.5, 0.9, 0.8};
    script s = {.loss = told};
    prefopt_reward *reward;
    prefopt_trainer *trainer;
    prefopt_dataset *pairs = one_pair(context, 7), *held_out = one_pair(context, 8);
    OK(prefopt_reward_create_custom(&reward, context, &script_callbacks, &s));
    OK(prefopt_trainer_create_reward(&trainer, reward, pairs, NULL, NULL));
    prefopt_evaluation_options e;
    OK(prefopt_evaluation_options_init(&e, sizeof e));
    e.every = 2;
    e.patience = 1;
    OK(prefopt_trainer_set_evaluation(trainer, held_out, NULL, &e));
    prefopt_progress last = {.struct_size = sizeof last};
    OK(prefopt_trainer_run(trainer, 1, &last));
    ck_assert_int_eq(last.eval_step, 0);
    OK(prefopt_trainer_run(trainer, 0, &last));
    ck_assert_int_eq(last.eval_step, 1);
    ck_assert_int_eq(last.best_step, 1);
    OK(prefopt_trainer_run(trainer, 0, &last)); /* known already */
    ck_assert_int_eq(s.n_seen, 2);
    OK(prefopt_trainer_run(trainer, 3, &last)); /* .9 and .8 are below 1: patience goes on */
    ck_assert_int_eq(last.eval_step, 4);
    ck_assert_int_eq(last.best_step, 1);
    CLOSE(last.best_eval_loss, 0.5, 1e-12);
    prefopt_trainer_destroy(trainer);
    prefopt_reward_destroy(reward);
    prefopt_dataset_destroy(pairs);
    prefopt_dataset_destroy(held_out);
    prefopt_context_destroy(context);
}
END_TEST

/* A held-out row whose loss is infinite is named; the step before it stands, the best too. */
START_TEST(held_out_rows_are_named)
{
    prefopt_context *context = test_context(1);
    static const double told[] = {1, 0.5, 710, 0.8};
    script s = {.loss = told};
    prefopt_reward *reward;
    prefopt_trainer *trainer;
    prefopt_dataset *pairs = one_pair(context, 7), *held_out = one_pair(context, 8);
    OK(prefopt_reward_create_custom(&reward, context, &script_callbacks, &s));
    OK(prefopt_trainer_create_reward(&trainer, reward, pairs, NULL, NULL));
    prefopt_evaluation_options e;
    OK(prefopt_evaluation_options_init(&e, sizeof e));
    e.every = 2;
    OK(prefopt_trainer_set_evaluation(trainer, held_out, NULL, &e));
    prefopt_progress last = {.struct_size = sizeof last}, before;
    OK(prefopt_trainer_run(trainer, 2, &last));
    before = last;
    double best = s.value;
    FAILS(PREFOPT_ERR_NUMERIC,
          "reward: after step 2 of 5 (4 since the trainer was made): held_out: row 0",
          prefopt_trainer_run(trainer, 5, &last));
    ck_assert_mem_eq(&before, &last, sizeof last);
    int64_t step;
    OK(prefopt_trainer_step(trainer, &step));
    ck_assert_int_eq(step, 4);
    OK(prefopt_trainer_run(trainer, 0, &last)); /* 0.8 */
    ck_assert_int_eq(last.best_step, 2);
    OK(prefopt_trainer_restore_best(trainer));
    ck_assert_double_eq(s.value, best);
    prefopt_trainer_destroy(trainer);
    prefopt_reward_destroy(reward);
    prefopt_dataset_destroy(pairs);
    prefopt_dataset_destroy(held_out);
    prefopt_context_destroy(context);
}
END_TEST

TEST_MAIN("patience", patience_counts, evaluations_on_demand, held_out_rows_are_named)
