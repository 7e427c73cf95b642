/* Trainers gone on with: the same bits as a run that was never saved. */
#define _GNU_SOURCE
#include "saved_run.h"

static void go_on(make_fn *make, const char *name, const prefopt_train_options *o, int threads)
{
    prefopt_context *context = test_context(1), *other = test_context(threads);
    setting s = setting_new(context), t = setting_new(other);
    prefopt_trainer *whole = NULL, *first = NULL, *second = NULL;
    prefopt_policy *a = tabular_policy(&s.w), *b = tabular_policy(&s.w), *c = tabular_policy(&t.w);
    randomise(a, 3, 0.5);
    randomise(b, 3, 0.5);
    randomise(c, 4, 0.9);
    OK(make(&whole, &s, a, o));
    OK(make(&first, &s, b, o));
    OK(make(&second, &t, c, o));
    OK(prefopt_trainer_run(whole, 11, NULL));
    OK(prefopt_trainer_save(whole, at(base, "whole"), NULL));
    OK(prefopt_trainer_run(first, 4, NULL));
    OK(prefopt_trainer_save(first, at(base, "parts"), NULL));
    int64_t step = -1;
    OK(prefopt_trainer_restore(second, at(base, "parts")));
    OK(prefopt_trainer_step(second, &step));
    ck_assert_int_eq(step, 4);
    OK(prefopt_trainer_run(second, 7, NULL));
    OK(prefopt_trainer_save(second, at(base, "parts"), NULL));
    /* As far as the hashes in trainer.json tell, which are of all that there is. */
    same_checkpoint(step_folder(at(base, "whole"), 11), step_folder(at(base, "parts"), 11));
    prefopt_parameters p = parameters_of(a), q = parameters_of(c);
    ck_assert_msg(memcmp(p.value, q.value, (size_t)p.n * sizeof(double)) == 0, "%s", name);
    prefopt_trainer_destroy(whole);
    prefopt_trainer_destroy(first);
    prefopt_trainer_destroy(second);
    prefopt_policy_destroy(a);
    prefopt_policy_destroy(b);
    prefopt_policy_destroy(c);
    setting_free(&s);
    setting_free(&t);
    prefopt_context_destroy(context);
    prefopt_context_destroy(other);
    remove_all(at(base, "whole"));
    remove_all(at(base, "parts"));
}

START_TEST(test_every_objective)
{
    prefopt_train_options o = train_defaults();
    o.learning_rate = 0.05;
    o.batch = 3;
    o.seed = UINT64_C(0xf000000000000001);
    o.schedule = PREFOPT_COSINE;
    o.schedule_steps = 20;
    o.warmup_steps = 6;
    o.clip_norm = 0.5;
    for (size_t i = 0; i < N_OBJECTIVES; i++)
        go_on(objectives[i].make, objectives[i].name, &o, 2);
    o.optimiser = PREFOPT_SGD;
    o.momentum = 0.9;
    go_on(make_dpo, "momentum", &o, 2);
    o.momentum = 0;
    go_on(make_reward, "sgd", &o, 2);
}
END_TEST

/* Float parameters; the folder is a checkpoint of the model. */
START_TEST(test_language_model)
{
    prefopt_context *context = test_context(1);
    prefopt_policy *a = small_policy(context, 5), *b = small_policy(context, 6), *loaded = NULL;
    prefopt_dataset *data = small_pairs(context);
    prefopt_reference *reference = NULL, *between = NULL;
    prefopt_trainer *whole = NULL, *part = NULL;
    prefopt_train_options o = train_defaults();
    o.batch = 2;
    o.learning_rate = 3e-3;
    OK(prefopt_reference_freeze(&reference, a));
    OK(prefopt_trainer_create_dpo(&whole, a, reference, data, NULL, &o));
    OK(prefopt_trainer_create_dpo(&part, b, reference, data, NULL, &o));
    OK(prefopt_trainer_run(whole, 3, NULL));
    OK(prefopt_trainer_save(whole, base, NULL));
    OK(prefopt_policy_load(&loaded, context, step_folder(base, 3)));
    prefopt_sequences in = {.struct_size = sizeof in};
    OK(prefopt_dataset_sequences(data, &in));
    double x[12], y[12];
    OK(prefopt_policy_logprobs(a, &in, x, NULL));
    OK(prefopt_policy_logprobs(loaded, &in, y, NULL));
    ck_assert_int_eq(memcmp(x, y, sizeof x), 0);
    /* A snapshot that shares the weights stays what it was when they are restored into. */
    OK(prefopt_reference_freeze(&between, b));
    OK(prefopt_policy_logprobs(b, &in, x, NULL));
    OK(prefopt_trainer_restore(part, base));
    OK(prefopt_reference_logprobs(between, &in, y));
    ck_assert_int_eq(memcmp(x, y, sizeof x), 0);
    OK(prefopt_policy_logprobs(a, &in, x, NULL));
    OK(prefopt_policy_logprobs(b, &in, y, NULL));
    ck_assert_int_eq(memcmp(x, y, sizeof x), 0);
    /* Saving leaves weights shared, and so do snapshots. */
    prefopt_reference_destroy(between);
    OK(prefopt_reference_freeze(&between, b));
    OK(prefopt_trainer_save(part, at(base, "again"), NULL));
    same_checkpoint(step_folder(base, 3), step_folder(at(base, "again"), 3));
    OK(prefopt_trainer_run(whole, 5, NULL));
    OK(prefopt_trainer_run(part, 5, NULL));
    OK(prefopt_trainer_save(whole, base, NULL));
    OK(prefopt_trainer_save(part, at(base, "again"), NULL));
    same_checkpoint(step_folder(base, 8), step_folder(at(base, "again"), 8));
    /* A mask is a part of what the run is. */
    uint8_t allowed[11 * 11];
    memset(allowed, 1, sizeof allowed);
    allowed[5] = 0;
    OK(prefopt_policy_set_transitions(b, allowed));
    FAILS(PREFOPT_ERR_STATE, "model.transitions is \"none\", but this trainer's is \"",
          prefopt_trainer_restore(part, base));
    OK(prefopt_policy_set_transitions(b, NULL));
    /* The folder of one step. */
    int64_t step = -1;
    OK(prefopt_trainer_restore(part, step_folder(base, 3)));
    OK(prefopt_trainer_step(part, &step));
    ck_assert_int_eq(step, 3);
    prefopt_trainer_destroy(whole);
    prefopt_trainer_destroy(part);
    prefopt_reference_destroy(reference);
    prefopt_reference_destroy(between);
    prefopt_dataset_destroy(data);
    prefopt_policy_destroy(a);
    prefopt_policy_destroy(b);
    prefopt_policy_destroy(loaded);
    prefopt_context_destroy(context);
}
END_TEST

START_TEST(test_reward_model)
{
    prefopt_context *context = test_context(2);
    prefopt_policy *policy = small_policy(context, 5);
    prefopt_dataset *data = small_pairs(context);
    prefopt_reward *a = NULL, *b = NULL, *loaded = NULL;
    prefopt_trainer *whole = NULL, *part = NULL;
    prefopt_train_options o = train_defaults();
    prefopt_bt_options bt;
    OK(prefopt_bt_options_init(&bt, sizeof bt));
    bt.tie_model = PREFOPT_TIE_RAO_KUPPER;
    o.learning_rate = 3e-3;
    OK(prefopt_reward_from_policy(&a, policy));
    OK(prefopt_reward_from_policy(&b, policy));
    OK(prefopt_trainer_create_reward(&whole, a, data, &bt, &o));
    OK(prefopt_trainer_create_reward(&part, b, data, &bt, &o));
    OK(prefopt_trainer_run(whole, 4, NULL));
    OK(prefopt_trainer_save(whole, base, NULL));
    OK(prefopt_reward_load(&loaded, context, step_folder(base, 4)));
    OK(prefopt_trainer_restore(part, base));
    OK(prefopt_trainer_run(whole, 4, NULL));
    OK(prefopt_trainer_run(part, 4, NULL));
    double x = 0, y = 1;
    OK(prefopt_trainer_log_tie(whole, &x));
    OK(prefopt_trainer_log_tie(part, &y));
    ck_assert(x == y && x != 0.5);
    OK(prefopt_trainer_save(whole, base, NULL));
    OK(prefopt_trainer_save(part, at(base, "again"), NULL));
    same_checkpoint(step_folder(base, 8), step_folder(at(base, "again"), 8));
    prefopt_trainer_destroy(whole);
    prefopt_trainer_destroy(part);
    prefopt_reward_destroy(a);
    prefopt_reward_destroy(b);
    prefopt_reward_destroy(loaded);
    prefopt_dataset_destroy(data);
    prefopt_policy_destroy(policy);
    prefopt_context_destroy(context);
}
END_TEST

/* The evaluation goes on too: what was best, and for how long patience has waited. */
START_TEST(test_evaluation)
{
    prefopt_context *context = test_context(1);
    prefopt_policy *a = small_policy(context, 5), *b = small_policy(context, 6);
    prefopt_dataset *data = small_pairs(context), *held_out = NULL;
    prefopt_reward *x = NULL, *y = NULL;
    prefopt_trainer *whole = NULL, *part = NULL;
    prefopt_train_options o = train_defaults();
    prefopt_bt_options bt;
    prefopt_evaluation_options e;
    prefopt_save_options save;
    OK(prefopt_bt_options_init(&bt, sizeof bt));
    OK(prefopt_evaluation_options_init(&e, sizeof e));
    OK(prefopt_save_options_init(&save, sizeof save));
    bt.tie_model = PREFOPT_TIE_DAVIDSON;
    o.batch = 2;
    o.learning_rate = 0.05;
    e.every = 2;
    e.patience = 3;
    e.min_delta = 1e-4;
    OK(prefopt_dataset_create(&held_out, context));
    /* Three pairs as in training and one against them: what is learnt helps until it is sure. */
    for (int32_t i = 0; i < 4; i++) {
        int32_t prompt[] = {i, 10}, good[] = {(i + 1) % 9, 3}, bad[] = {(i + 2) % 9, 4};
        OK(prefopt_dataset_append_pair(held_out, prompt, 2, i < 3 ? good : bad, 2,
                                       i < 3 ? bad : good, 2, 1, 1, 0));
    }
    OK(prefopt_reward_from_policy(&x, a));
    OK(prefopt_reward_from_policy(&y, b));
    OK(prefopt_trainer_create_reward(&whole, x, data, &bt, &o));
    OK(prefopt_trainer_create_reward(&part, y, data, &bt, &o));
    OK(prefopt_trainer_set_evaluation(whole, held_out, NULL, &e));
    /* Without the same evaluation it is another run. */
    OK(prefopt_trainer_save(whole, base, NULL));
    FAILS(PREFOPT_ERR_STATE, "evaluation.keep_best is 1, but this trainer's is missing",
          prefopt_trainer_restore(part, base));
    e.every = 3;
    OK(prefopt_trainer_set_evaluation(part, held_out, NULL, &e));
    FAILS(PREFOPT_ERR_STATE, "evaluation.every is 2, but this trainer's is 3",
          prefopt_trainer_restore(part, base));
    e.every = 2;
    OK(prefopt_trainer_set_evaluation(part, data, NULL, &e));
    FAILS(PREFOPT_ERR_STATE, "evaluation.rows is 4, but this trainer's is 6",
          prefopt_trainer_restore(part, base));
    OK(prefopt_trainer_set_evaluation(part, held_out, NULL, &e));
    OK(prefopt_trainer_restore(part, base)); /* before the first look */
    prefopt_progress p = {.struct_size = sizeof p}, q = {.struct_size = sizeof q};
    int32_t status = PREFOPT_OK;
    int64_t step = 0;
    save.keep = 1;
    save.keep_best = 1;
    /* Saved and given to the other after each step. */
    for (int i = 0; i < 40 && status == PREFOPT_OK; i++) {
        status = prefopt_trainer_run(whole, 1, &p);
        OK(prefopt_trainer_save(whole, base, &save));
        OK(prefopt_trainer_restore(part, base));
        OK(prefopt_trainer_step(part, &step));
        ck_assert(is_there(base, step) && (p.best_step == 0 || is_there(base, p.best_step)));
        ck_assert_int_le(count_names(base), 3);
        OK(prefopt_trainer_save(part, at(base, "again"), NULL));
        same_checkpoint(step_folder(base, step), step_folder(at(base, "again"), step));
        remove_all(at(base, "again"));
    }
    ck_assert_int_eq(status, PREFOPT_STOPPED);
    ck_assert(p.stopped_early == 1 && p.best_step > 0 && p.best_step < step);
    ck_assert_int_eq(prefopt_trainer_run(part, 5, &q), PREFOPT_STOPPED);
    ck_assert(q.stopped_early == 1 && q.best_step == p.best_step &&
              q.best_eval_loss == p.best_eval_loss);
    OK(prefopt_trainer_restore_best(whole));
    OK(prefopt_trainer_restore_best(part));
    OK(prefopt_trainer_save(whole, at(base, "one"), NULL));
    OK(prefopt_trainer_save(part, at(base, "two"), NULL));
    same_checkpoint(step_folder(at(base, "one"), step), step_folder(at(base, "two"), step));
    prefopt_trainer_destroy(whole);
    prefopt_trainer_destroy(part);
    prefopt_reward_destroy(x);
    prefopt_reward_destroy(y);
    prefopt_dataset_destroy(data);
    prefopt_dataset_destroy(held_out);
    prefopt_policy_destroy(a);
    prefopt_policy_destroy(b);
    prefopt_context_destroy(context);
}
END_TEST

TEST_MAIN_IN(new_base, remove_base, "trainer_resumed", test_every_objective, test_language_model,
             test_reward_model, test_evaluation)
