/* Evaluation of held-out data: its times, that training does not feel it, the best parameters, what
 * is refused. */
#include <stdbool.h>

#include "evaluation_test.h"
#include "train/pf_evaluation.h"

enum { STEPS = 24, EVERY = 5, MOST = 256 };

typedef struct {
    prefopt_policy *policy;
    int64_t calls, stop_at;
    int64_t n; /* evaluations seen */
    int64_t step[MOST];
    double loss[MOST], *value[MOST]; /* and the parameters at each */
    int64_t last;                    /* eval_step of the call before */
    prefopt_progress progress;
} record;

static int32_t on_progress(void *payload, const prefopt_progress *progress)
{
    record *r = payload;
    r->progress = *progress;
    if (progress->eval_step != r->last) {
        prefopt_parameters p = parameters_of(r->policy);
        r->last = r->step[r->n] = progress->eval_step;
        r->loss[r->n] = progress->eval_loss;
        r->value[r->n] = calloc((size_t)p.n, sizeof **r->value);
        memcpy(r->value[r->n++], p.value, (size_t)p.n * sizeof **r->value);
    }
    return ++r->calls == r->stop_at;
}

static void record_free(record *r)
{
    for (int64_t i = 0; i < r->n; i++)
        free(r->value[i]);
}

/* A trainer that overshoots: its held-out loss goes up again. */
static prefopt_trainer *wild(const setting *s, prefopt_policy *policy, record *r, int64_t every)
{
    prefopt_train_options o = train_defaults();
    o.learning_rate = 0.5;
    o.batch = 4;
    o.seed = 3;
    if (r != NULL) {
        *r = (record){.policy = policy, .last = -1};
        o.progress = on_progress;
        o.progress_payload = r;
        o.progress_every = every;
    }
    prefopt_trainer *trainer;
    OK(prefopt_trainer_create_dpo(&trainer, policy, s->reference, s->pairs, NULL, &o));
    return trainer;
}

static void evaluate_with(prefopt_trainer *trainer, const setting *s, int64_t every,
                          int64_t patience, double min_delta)
{
    prefopt_evaluation_options e;
    OK(prefopt_evaluation_options_init(&e, sizeof e));
    e.every = every;
    e.patience = patience;
    e.min_delta = min_delta;
    prefopt_dataset *held_out = some_rows(s->margined);
    OK(prefopt_trainer_set_evaluation(trainer, held_out, s->reference, &e));
    prefopt_dataset_destroy(held_out);
}

START_TEST(training_does_not_feel_it)
{
    prefopt_context *context = test_context(1);
    setting s = setting_new(context);
    prefopt_policy *a = tabular_policy(&s.w), *b = tabular_policy(&s.w);
    record r;
    prefopt_trainer *plain = wild(&s, a, NULL, 1), *watched = wild(&s, b, &r, 1000);
    evaluate_with(watched, &s, EVERY, 0, 0);
    prefopt_progress p = {.struct_size = sizeof p}, q = {.struct_size = sizeof q};
    OK(prefopt_trainer_run(plain, STEPS, &p));
    OK(prefopt_trainer_run(watched, STEPS, &q));
    prefopt_parameters u = parameters_of(a), v = parameters_of(b);
    ck_assert_mem_eq(u.value, v.value, (size_t)u.n * sizeof(double));
    ck_assert_double_eq(p.loss, q.loss);
    ck_assert(isnan(p.eval_loss) && p.eval_step == -1 && p.best_step == -1);
    ck_assert_int_eq(r.n, 1 + STEPS / EVERY);
    for (int64_t i = 0; i < r.n; i++)
        ck_assert_int_eq(r.step[i], i * EVERY);
    ck_assert_int_eq(r.calls, r.n + 1); /* evaluations, and the last step */
    record_free(&r);
    prefopt_trainer_destroy(plain);
    prefopt_trainer_destroy(watched);
    prefopt_policy_destroy(a);
    prefopt_policy_destroy(b);
    setting_free(&s);
    prefopt_context_destroy(context);
}
END_TEST

START_TEST(the_first_call_is_step_0)
{
    prefopt_context *context = test_context(1);
    setting s = setting_new(context);
    prefopt_policy *policy = tabular_policy(&s.w);
    record r;
    prefopt_trainer *trainer = wild(&s, policy, &r, 1);
    evaluate_with(trainer, &s, EVERY, 0, 0);
    r.stop_at = 1;
    prefopt_progress last = {.struct_size = sizeof last};
    ck_assert_int_eq(prefopt_trainer_run(trainer, STEPS, &last), PREFOPT_STOPPED);
    ck_assert_int_eq(last.step, 0);
    ck_assert_int_eq(last.n_steps, STEPS);
    ck_assert_int_eq(last.eval_step, 0);
    ck_assert_int_eq(last.best_step, 0);
    ck_assert_int_eq(last.stopped_early, 0);
    ck_assert_double_eq(last.best_eval_loss, last.eval_loss);
    ck_assert(isnan(last.loss));
    OK(prefopt_trainer_run(trainer, 2, &last)); /* not evaluated twice */
    ck_assert_int_eq(r.calls, 3);
    ck_assert_int_eq(r.n, 1);
    record_free(&r);
    prefopt_trainer_destroy(trainer);
    prefopt_policy_destroy(policy);
    setting_free(&s);
    prefopt_context_destroy(context);
}
END_TEST

START_TEST(best_parameters_come_back)
{
    prefopt_context *context = test_context(1);
    setting s = setting_new(context);
    prefopt_policy *policy = tabular_policy(&s.w);
    record r;
    prefopt_trainer *trainer = wild(&s, policy, &r, 1);
    evaluate_with(trainer, &s, 2, 0, 0);
    prefopt_progress last = {.struct_size = sizeof last};
    OK(prefopt_trainer_run(trainer, STEPS, &last));
    int64_t best = 0;
    for (int64_t i = 1; i < r.n; i++)
        best = r.loss[i] < r.loss[best] ? i : best;
    ck_assert(best > 0 && best < r.n - 1); /* or there is nothing to see here */
    ck_assert_int_eq(last.best_step, r.step[best]);
    ck_assert_double_eq(last.best_eval_loss, r.loss[best]);
    /* A snapshot shares the weights until they change. */
    prefopt_reference *end;
    OK(prefopt_reference_freeze(&end, policy));
    OK(prefopt_trainer_restore_best(trainer));
    prefopt_parameters p = parameters_of(policy);
    ck_assert_mem_eq(p.value, r.value[best], (size_t)p.n * sizeof(double));
    int64_t step, seen = r.n;
    OK(prefopt_trainer_step(trainer, &step));
    ck_assert_int_eq(step, STEPS);
    OK(prefopt_trainer_run(trainer, 0, &last));
    ck_assert_double_eq(last.eval_loss, r.loss[best]);
    ck_assert_int_eq(r.n, seen);
    /* Evaluated anew, they have that loss. */
    evaluate_with(trainer, &s, 2, 0, 0);
    OK(prefopt_trainer_run(trainer, 0, &last));
    ck_assert_double_eq(last.eval_loss, r.loss[best]);
    ck_assert_int_eq(last.best_step, STEPS);
    record_free(&r);
    prefopt_reference_destroy(end);
    prefopt_trainer_destroy(trainer);
    prefopt_policy_destroy(policy);
    setting_free(&s);
    prefopt_context_destroy(context);
}
END_TEST

/* The tie parameter is a parameter. */
/* A fit takes no step, but the parameters are others: what was found before it is asked for again,
 * and patience has seen one evaluation. */
START_TEST(a_fit_is_evaluated)
{
    prefopt_context *context = test_context(1);
    setting s = setting_new(context);
    prefopt_policy *policy = tabular_policy(&s.w);
    prefopt_trainer *trainer;
    prefopt_train_options o = train_defaults();
    prefopt_progress before = {.struct_size = sizeof before}, after = before;
    o.ridge = 0.1;
    randomise(policy, 7, 2);
    OK(make_dpo(&trainer, &s, policy, &o));
    evaluate_with(trainer, &s, 2, 1, 0);
    OK(prefopt_trainer_run(trainer, 0, &before));
    int32_t status = prefopt_trainer_fit(trainer, NULL);
    if (status != PREFOPT_ERR_UNSUPPORTED) { /* built without liblbfgs */
        OK(status);
        OK(prefopt_trainer_run(trainer, 0, &after));
        ck_assert(fabs(after.eval_loss - before.eval_loss) > 0.01);
        ck_assert_double_eq(after.best_eval_loss, fmin(after.eval_loss, before.eval_loss));
        ck_assert_int_eq(after.eval_step, 0);
        OK(prefopt_trainer_run(trainer, 0, &before));
        ck_assert_double_eq(before.eval_loss, after.eval_loss);
        ck_assert_int_eq(trainer->evaluation->waited, 0);
        evaluate_with(trainer, &s, 2, 1, 0); /* evaluated anew */
        OK(prefopt_trainer_run(trainer, 0, &before));
        ck_assert_double_eq(before.eval_loss, after.eval_loss);
    }
    prefopt_trainer_destroy(trainer);
    prefopt_policy_destroy(policy);
    setting_free(&s);
    prefopt_context_destroy(context);
}
END_TEST

START_TEST(best_tie_parameter_comes_back)
{
    prefopt_context *context = test_context(1);
    setting s = setting_new(context);
    prefopt_policy *policy = tabular_policy(&s.w);
    prefopt_train_options o = quick();
    o.learning_rate = 20;
    o.ridge = 0;
    prefopt_trainer *trainer;
    OK(make_reward(&trainer, &s, policy, &o));
    prefopt_dataset *held_out = some_rows(s.ties);
    prefopt_evaluation_options e;
    OK(prefopt_evaluation_options_init(&e, sizeof e));
    e.every = 1;
    OK(prefopt_trainer_set_evaluation(trainer, held_out, NULL, &e));
    double best = INFINITY, tie = NAN, now;
    prefopt_progress last = {.struct_size = sizeof last};
    for (int i = 0; i < STEPS; i++) {
        OK(prefopt_trainer_run(trainer, i > 0, &last));
        OK(prefopt_trainer_log_tie(trainer, &now));
        if (last.eval_loss < best) {
            best = last.eval_loss;
            tie = now;
        }
    }
    ck_assert_double_ne(now, tie);
    OK(prefopt_trainer_restore_best(trainer));
    OK(prefopt_trainer_log_tie(trainer, &now));
    ck_assert_double_eq(now, tie);
    prefopt_dataset_destroy(held_out);
    prefopt_trainer_destroy(trainer);
    prefopt_policy_destroy(policy);
    setting_free(&s);
    prefopt_context_destroy(context);
}
END_TEST

/* Another run's callback stops it: that is told apart. */
START_TEST(a_callback_is_not_patience)
{
    prefopt_context *context = test_context(1);
    setting s = setting_new(context);
    prefopt_policy *policy = tabular_policy(&s.w);
    record r;
    prefopt_trainer *trainer = wild(&s, policy, &r, 1);
    evaluate_with(trainer, &s, 2, 3, 0);
    r.stop_at = 4;
    prefopt_progress last = {.struct_size = sizeof last};
    ck_assert_int_eq(prefopt_trainer_run(trainer, STEPS, &last), PREFOPT_STOPPED);
    ck_assert_int_eq(last.stopped_early, 0);
    ck_assert_int_eq(last.step, 3);
    ck_assert_int_eq(prefopt_trainer_run(trainer, 1000, &last), PREFOPT_STOPPED);
    ck_assert_int_eq(last.stopped_early, 1);
    ck_assert_int_eq(r.progress.stopped_early, 1); /* the callback was told */
    ck_assert_int_lt(last.step, 1000);
    ck_assert_int_eq(last.best_step, last.eval_step - 6);
    record_free(&r);
    prefopt_trainer_destroy(trainer);
    prefopt_policy_destroy(policy);
    setting_free(&s);
    prefopt_context_destroy(context);
}
END_TEST

/* ---- what is refused */

START_TEST(wrong_arguments)
{
    prefopt_context *context = test_context(1);
    setting s = setting_new(context);
    prefopt_train_options o = quick();
    prefopt_trainer *dpo, *mle, *reward, *ranked, *simpo;
    OK(make_dpo(&dpo, &s, s.w.policy, &o));
    OK(make_mle(&mle, &s, s.w.policy, &o));
    OK(make_reward(&reward, &s, s.w.policy, &o));
    OK(make_ranked_dpo(&ranked, &s, s.w.policy, &o));
    OK(make_simpo(&simpo, &s, s.w.policy, &o));
    prefopt_dataset *mixed, *none;
    static const int64_t first[] = {0, 1};
    OK(prefopt_dataset_select(&mixed, s.pairs, first, 2));
    prefopt_row row = {.struct_size = sizeof row};
    OK(prefopt_dataset_row(s.completions, 0, &row));
    OK(prefopt_dataset_append(mixed, &row));
    OK(prefopt_dataset_create(&none, context));
    const struct {
        int32_t code;
        const char *text;
        prefopt_trainer *trainer;
        const prefopt_dataset *data;
        const prefopt_reference *reference;
    } cases[] = {
        {PREFOPT_ERR_ARGUMENT, "held_out: dpo: row 2 is of kind COMPLETIONS, expected PAIR", dpo,
         mixed, s.reference},
        {PREFOPT_ERR_ARGUMENT, "row 0 is of kind RANKING, expected PAIR", dpo, s.rankings,
         s.reference},
        {PREFOPT_ERR_ARGUMENT, "row 0 is of kind PAIR, expected RANKING", ranked, s.pairs,
         s.reference},
        {PREFOPT_ERR_ARGUMENT, "row 0 is of kind PAIR, expected COMPLETIONS", mle, s.pairs, NULL},
        {PREFOPT_ERR_ARGUMENT, "row 0 is of kind COMPLETIONS, expected PAIR", reward, s.completions,
         NULL},
        {PREFOPT_ERR_ARGUMENT, "no rows", dpo, none, s.reference},
        {PREFOPT_ERR_ARGUMENT, "reference is NULL", dpo, s.pairs, NULL},
        {PREFOPT_ERR_ARGUMENT, "reference is given", simpo, s.pairs, s.reference},
        {PREFOPT_ERR_ARGUMENT, "reference is given", mle, s.completions, s.reference},
        {PREFOPT_ERR_ARGUMENT, "reference is given", reward, s.ties, s.reference},
        {PREFOPT_ERR_ARGUMENT, "held_out is NULL", dpo, NULL, s.reference},
        {PREFOPT_ERR_ARGUMENT, "trainer is NULL", NULL, s.pairs, s.reference}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        FAILS(cases[i].code, cases[i].text,
              prefopt_trainer_set_evaluation(cases[i].trainer, cases[i].data, cases[i].reference,
                                             NULL));
    const struct {
        const char *text;
        int32_t keep_best;
        int64_t every, patience;
        double min_delta;
    } options[] = {{"keep_best is 2", 2, 1, 1, 0},       {"every is 0", 1, 0, 1, 0},
                   {"patience is -1", 1, 1, -1, 0},      {"min_delta is -1", 1, 1, 1, -1},
                   {"min_delta is nan", 1, 1, 1, NAN},   {"min_delta is inf", 1, 1, 1, INFINITY},
                   {"but patience is 0", 1, 1, 0, 0.001}};
    for (size_t i = 0; i < sizeof options / sizeof *options; i++) {
        prefopt_evaluation_options e = {.struct_size = sizeof e,
                                        .keep_best = options[i].keep_best,
                                        .every = options[i].every,
                                        .patience = options[i].patience,
                                        .min_delta = options[i].min_delta};
        FAILS(PREFOPT_ERR_ARGUMENT, options[i].text,
              prefopt_trainer_set_evaluation(dpo, s.pairs, s.reference, &e));
    }
    FAILS(PREFOPT_ERR_ARGUMENT, "trainer", prefopt_trainer_restore_best(NULL));
    FAILS(PREFOPT_ERR_STATE, "no evaluation is set", prefopt_trainer_restore_best(dpo));
    OK(prefopt_trainer_set_evaluation(dpo, s.pairs, s.reference, NULL));
    FAILS(PREFOPT_ERR_STATE, "nothing has been evaluated", prefopt_trainer_restore_best(dpo));
    prefopt_evaluation_options e;
    OK(prefopt_evaluation_options_init(&e, sizeof e));
    e.keep_best = 0;
    OK(prefopt_trainer_set_evaluation(dpo, s.pairs, s.reference, &e));
    OK(prefopt_trainer_run(dpo, 1, NULL));
    FAILS(PREFOPT_ERR_STATE, "keep_best is 0", prefopt_trainer_restore_best(dpo));
    prefopt_trainer_destroy(dpo);
    prefopt_trainer_destroy(mle);
    prefopt_trainer_destroy(reward);
    prefopt_trainer_destroy(ranked);
    prefopt_trainer_destroy(simpo);
    prefopt_dataset_destroy(mixed);
    prefopt_dataset_destroy(none);
    setting_free(&s);
    prefopt_context_destroy(context);
}
END_TEST

START_TEST(out_of_memory)
{
    counting_allocator allocator = {0};
    prefopt_context *context = counting_context(&allocator);
    setting s = setting_new(context);
    prefopt_trainer *trainer = wild(&s, s.w.policy, NULL, 1);
    evaluate_with(trainer, &s, 1, 0, 0);
    prefopt_progress last = {.struct_size = sizeof last};
    OK(prefopt_trainer_run(trainer, 3, &last));
    prefopt_dataset *held_out = plain_pairs(&s.w);
    int64_t live = allocator.live;
    for (int64_t fail_at = 1;; fail_at++) {
        allocator.calls = 0;
        allocator.fail_at = fail_at;
        int32_t status = prefopt_trainer_set_evaluation(trainer, held_out, s.reference, NULL);
        allocator.fail_at = 0;
        prefopt_progress now = {.struct_size = sizeof now};
        OK(prefopt_trainer_run(trainer, 0, &now));
        if (status == PREFOPT_OK) {
            ck_assert_int_gt(fail_at, 20);
            ck_assert_double_ne(now.eval_loss, last.eval_loss);
            break;
        }
        ck_assert_int_eq(status, PREFOPT_ERR_MEMORY);
        ck_assert_int_eq(allocator.live, live);
        ck_assert_double_eq(now.eval_loss, last.eval_loss); /* the one that was */
    }
    prefopt_trainer_destroy(trainer);
    prefopt_dataset_destroy(held_out);
    setting_free(&s);
    prefopt_context_destroy(context);
}
END_TEST

TEST_MAIN("evaluation", training_does_not_feel_it, the_first_call_is_step_0,
          best_parameters_come_back, a_fit_is_evaluated, best_tie_parameter_comes_back,
          a_callback_is_not_patience, wrong_arguments, out_of_memory)
