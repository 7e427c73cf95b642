/* The step loop: progress, stop, failures, the same bits however it is cut or threaded. */
#include "custom_reward.h"

typedef struct {
    int64_t calls, stop_at; /* 0: never */
    prefopt_progress last;
} watch;

static int32_t on_progress(void *payload, const prefopt_progress *progress)
{
    watch *w = payload;
    w->last = *progress;
    return ++w->calls == w->stop_at;
}

static double *copy_parameters(prefopt_parameters p)
{
    double *copy = calloc((size_t)p.n, sizeof *copy);
    memcpy(copy, p.value, (size_t)p.n * sizeof *copy);
    return copy;
}

static prefopt_trainer *dpo_trainer(const world *w, const prefopt_dataset *pairs,
                                    const prefopt_train_options *options)
{
    prefopt_reference *reference;
    prefopt_trainer *trainer;
    OK(prefopt_reference_create_uniform(&reference, w->context, &w->space));
    OK(prefopt_trainer_create_dpo(&trainer, w->policy, reference, pairs, NULL, options));
    prefopt_reference_destroy(reference);
    return trainer;
}

START_TEST(progress_is_told)
{
    prefopt_context *context = test_context(1);
    world w = world_new(context, 2, 3, 1, -1);
    prefopt_dataset *pairs = random_pairs(&w, 1, 20);
    watch seen = {0};
    prefopt_train_options o = train_defaults();
    o.progress = on_progress;
    o.progress_payload = &seen;
    o.progress_every = 4;
    prefopt_trainer *trainer = dpo_trainer(&w, pairs, &o);
    prefopt_progress last = {.struct_size = sizeof last};
    OK(prefopt_trainer_run(trainer, 10, &last));
    ck_assert_int_eq(seen.calls, 3); /* 4, 8, and the last */
    ck_assert_int_eq(seen.last.step, 10);
    ck_assert_int_eq(seen.last.n_steps, 10);
    ck_assert_int_eq(last.step, 10);
    ck_assert_int_eq(last.struct_size, sizeof last);
    ck_assert_double_eq(last.loss, seen.last.loss);
    ck_assert_double_lt(last.loss, log(2));
    ck_assert_double_gt(last.loss, 0.1);
    ck_assert(last.accuracy > 0.5 && last.accuracy <= 1);
    ck_assert_double_gt(last.margin, 0);
    ck_assert_double_gt(last.grad_norm, 0);
    ck_assert_double_eq(last.learning_rate, 1e-2);
    ck_assert_double_gt(last.steps_per_second, 0);
    ck_assert_double_eq(last.seconds_left, 0);
    ck_assert(isnan(last.kl) && isnan(last.reward));
    OK(prefopt_trainer_run(trainer, 0, &last));
    ck_assert_int_eq(last.step, 0);
    ck_assert(isnan(last.loss));
    prefopt_trainer_destroy(trainer);
    prefopt_dataset_destroy(pairs);
    world_free(&w);
    prefopt_context_destroy(context);
}
END_TEST

/* A stop after three steps leaves what three steps make; going on makes the rest. */
START_TEST(stop_and_go_on)
{
    prefopt_context *context = test_context(1);
    world a = world_new(context, 2, 3, 1, -1), b = world_new(context, 2, 3, 1, -1);
    prefopt_dataset *pairs = random_pairs(&a, 1, 20);
    watch seen = {.stop_at = 3};
    prefopt_train_options plain = train_defaults();
    plain.batch = 7;
    prefopt_train_options watched = plain;
    watched.progress = on_progress;
    watched.progress_payload = &seen;
    prefopt_trainer *stopped = dpo_trainer(&a, pairs, &watched);
    prefopt_trainer *straight = dpo_trainer(&b, pairs, &plain);
    prefopt_progress last = {.struct_size = sizeof last};
    ck_assert_int_eq(prefopt_trainer_run(stopped, 10, &last), PREFOPT_STOPPED);
    ck_assert_int_eq(last.step, 3);
    OK(prefopt_trainer_run(straight, 3, NULL));
    prefopt_parameters p = parameters_of(a.policy), q = parameters_of(b.policy);
    ck_assert_mem_eq(p.value, q.value, (size_t)p.n * sizeof(double));
    OK(prefopt_trainer_run(stopped, 7, NULL));
    OK(prefopt_trainer_run(straight, 7, NULL));
    ck_assert_mem_eq(p.value, q.value, (size_t)p.n * sizeof(double));
    prefopt_trainer_destroy(stopped);
    prefopt_trainer_destroy(straight);
    /* fit stops as well, with a point between start and optimum. */
    seen = (watch){.stop_at = 1};
    watched.batch = 0;
    stopped = dpo_trainer(&a, pairs, &watched);
    ck_assert_int_eq(prefopt_trainer_fit(stopped, &last), PREFOPT_STOPPED);
    ck_assert_int_eq(last.step, 1);
    double loss;
    OK(prefopt_trainer_loss(stopped, &loss));
    CLOSE(loss, last.loss, 1e-15);
    prefopt_trainer_destroy(stopped);
    prefopt_dataset_destroy(pairs);
    world_free(&a);
    world_free(&b);
    prefopt_context_destroy(context);
}
END_TEST

/* run(20), run(10) + run(10), again, and with three threads: the same bits. */
START_TEST(same_bits)
{
    double *first = NULL;
    prefopt_context *base = test_context(1);
    world plan = world_new(base, 1, 130, 2, -1); /* 131 * 130 logits, two chunks */
    prefopt_dataset *pairs = random_pairs(&plan, 1, 20);
    for (int32_t i = 0; i < 4; i++) {
        prefopt_context *context = test_context(i == 3 ? 3 : 1);
        world w = world_new(context, 1, 130, 2, -1);
        prefopt_train_options o = train_defaults();
        o.batch = 500;
        o.seed = 12;
        o.ridge = 0.1;
        o.clip_norm = 1e-4;
        prefopt_trainer *trainer = dpo_trainer(&w, pairs, &o);
        OK(prefopt_trainer_run(trainer, i == 1 ? 10 : 20, NULL));
        if (i == 1)
            OK(prefopt_trainer_run(trainer, 10, NULL));
        prefopt_parameters p = parameters_of(w.policy);
        if (first == NULL)
            first = copy_parameters(p);
        ck_assert_mem_eq(first, p.value, (size_t)p.n * sizeof *first);
        prefopt_trainer_destroy(trainer);
        world_free(&w);
        prefopt_context_destroy(context);
    }
    free(first);
    prefopt_dataset_destroy(pairs);
    world_free(&plan);
    prefopt_context_destroy(base);
}
END_TEST

START_TEST(bad_numbers_name_step_and_row)
{
    prefopt_context *context = test_context(1);
    world w = world_new(context, 1, 5, 1, -1);
    prefopt_dataset *pairs;
    OK(prefopt_dataset_create(&pairs, context));
    add_pair(&w, pairs, 0, 0, 1, 1, 1, 0);
    add_pair(&w, pairs, 0, 1, 2, 1, 0, 0);
    add_pair(&w, pairs, 0, 4, 3, 1, 1, 0);
    add_pair(&w, pairs, 0, 4, 0, 9, 1, 0);
    custom c = {.nan_from = 3};
    prefopt_reward *reward = custom_reward(context, &c, 1);
    prefopt_trainer *trainer;
    OK(prefopt_trainer_create_reward(&trainer, reward, pairs, NULL, NULL));
    prefopt_progress last = {.struct_size = sizeof last, .loss = 42};
    OK(prefopt_trainer_run(trainer, 1, NULL));
    FAILS(PREFOPT_ERR_NUMERIC, "reward: step 2 of 5 (3 since the trainer was made): row 2",
          prefopt_trainer_run(trainer, 5, &last));
    ck_assert_double_eq(last.loss, 42);
    double theta = c.theta[0];
    FAILS(PREFOPT_ERR_NUMERIC, "completion [3]", prefopt_trainer_run(trainer, 5, NULL));
    ck_assert_double_eq(theta, c.theta[0]);
    double loss = 42;
    FAILS(PREFOPT_ERR_NUMERIC, "row 2", prefopt_trainer_loss(trainer, &loss));
    ck_assert_double_eq(loss, 42);
    c.nan_from = 0;
    OK(prefopt_trainer_run(trainer, 1, NULL)); /* healed, it goes on where it was */
    /* A callback's own failure and its stop are passed on. */
    c.status = -77;
    FAILS(PREFOPT_ERR_CALLBACK, "step 1 of 2", prefopt_trainer_run(trainer, 2, NULL));
    c.status = PREFOPT_STOPPED;
    ck_assert_int_eq(prefopt_trainer_run(trainer, 2, &last), PREFOPT_STOPPED);
    ck_assert_int_eq(last.step, 0);
    c.status = 0;
    /* A step too large: nothing is written. */
    prefopt_trainer_destroy(trainer);
    prefopt_train_options o = train_defaults();
    o.optimiser = PREFOPT_SGD;
    o.learning_rate = 1e308;
    c.theta[0] = -1e2;
    OK(prefopt_trainer_create_reward(&trainer, reward, pairs, NULL, &o));
    FAILS(PREFOPT_ERR_NUMERIC, "would not be finite", prefopt_trainer_run(trainer, 1, NULL));
    ck_assert_double_eq(c.theta[0], -1e2);
    prefopt_trainer_destroy(trainer);
    prefopt_reward_destroy(reward);
    prefopt_dataset_destroy(pairs);
    world_free(&w);
    prefopt_context_destroy(context);
}
END_TEST

/* A fit whose model fails on the way: the failure is passed on, and the parameters are the last
 * that were accepted. */
START_TEST(fits_fail_cleanly)
{
    prefopt_context *context = test_context(1);
    world w = world_new(context, 1, 5, 1, -1);
    prefopt_dataset *pairs;
    OK(prefopt_dataset_create(&pairs, context));
    add_pair(&w, pairs, 0, 3, 1, 1, 0.9, 0);
    add_pair(&w, pairs, 0, 2, 4, 1, 0.3, 0);
    for (int64_t call = 1; call <= 4; call++)
        for (int32_t nan = 0; nan < 2; nan++) {
            custom c = {.fail_from = nan ? 0 : call, .nan_from = nan ? call : 0};
            prefopt_reward *reward = custom_reward(context, &c, 1);
            prefopt_trainer *trainer;
            OK(prefopt_trainer_create_reward(&trainer, reward, pairs, NULL, NULL));
            if (nan)
                FAILS(PREFOPT_ERR_NUMERIC, "reward: row 0", prefopt_trainer_fit(trainer, NULL));
            else
                FAILS(PREFOPT_ERR_CALLBACK, "reward: ", prefopt_trainer_fit(trainer, NULL));
            ck_assert(isfinite(c.theta[0]));
            ck_assert(call > 1 || c.theta[0] == 0);
            c.fail_from = c.nan_from = 0;
            double loss;
            OK(prefopt_trainer_loss(trainer, &loss));
            ck_assert_double_le(loss, log(2));
            OK(prefopt_trainer_fit(trainer, NULL));
            prefopt_trainer_destroy(trainer);
            prefopt_reward_destroy(reward);
        }
    prefopt_dataset_destroy(pairs);
    world_free(&w);
    prefopt_context_destroy(context);
}
END_TEST

START_TEST(fits_run_out_of_memory)
{
    counting_allocator allocator = {0};
    prefopt_context *context = counting_context(&allocator);
    world w = world_new(context, 1, 4, 1, -1);
    prefopt_dataset *pairs = random_pairs(&w, 1, 4);
    const double features[] = {1, 0, 0, 1, 2, 1, 0, 0};
    prefopt_sequences in = sequences_of(w.all);
    for (int32_t linear = 0; linear < 2; linear++) {
        prefopt_reward *reward = tabular_reward(&w, w.all);
        if (linear) {
            prefopt_reward_destroy(reward);
            OK(prefopt_reward_create_linear(&reward, context, &in, 2, features));
        }
        prefopt_trainer *trainer;
        OK(prefopt_trainer_create_reward(&trainer, reward, pairs, NULL, NULL));
        int64_t before = allocator.live;
        for (int64_t fail = 1;; fail++) {
            allocator.fail_at = allocator.calls + fail;
            int32_t status = prefopt_trainer_fit(trainer, NULL);
            int32_t reached = allocator.calls >= allocator.fail_at;
            allocator.fail_at = 0;
            ck_assert_int_eq(allocator.live, before);
            if (!reached) {
                ck_assert_int_eq(status, PREFOPT_OK);
                break;
            }
            ck_assert_int_eq(status, PREFOPT_ERR_MEMORY);
        }
        prefopt_trainer_destroy(trainer);
        prefopt_reward_destroy(reward);
    }
    prefopt_dataset_destroy(pairs);
    world_free(&w);
    prefopt_context_destroy(context);
    ck_assert_int_eq(allocator.live, 0);
}
END_TEST

/* Every epoch has each row once, in another order, and a batch is scored by its distinct sequences
 * alone. */
START_TEST(batches_cover_the_rows)
{
    prefopt_context *context = test_context(1);
    world w = world_new(context, 1, 6, 1, -1);
    prefopt_dataset *pairs;
    OK(prefopt_dataset_create(&pairs, context));
    for (int64_t i = 0; i < 5; i++)
        add_pair(&w, pairs, 0, 5, i, 1, 0.5, 0);
    custom c = {.theta = {0}};
    prefopt_reward *reward = custom_reward(context, &c, 1);
    prefopt_train_options o = train_defaults();
    o.optimiser = PREFOPT_SGD;
    o.learning_rate = 1e-9;
    o.batch = 1;
    prefopt_trainer *trainer;
    OK(prefopt_trainer_create_reward(&trainer, reward, pairs, NULL, &o));
    /* At theta = 0 and label 1/2 a step's gradient is 0; a margin-free way to see the row is its
     * norm with theta away from 0: (sigma(d) - 1/2) * (5 - i), d = theta (5 - i). */
    c.theta[0] = 1;
    char orders[2][6] = {"", ""};
    for (int32_t epoch = 0; epoch < 2; epoch++) {
        int32_t seen[5] = {0};
        for (int32_t s = 0; s < 5; s++) {
            prefopt_progress last = {.struct_size = sizeof last};
            OK(prefopt_trainer_run(trainer, 1, &last));
            for (int32_t i = 0; i < 5; i++)
                if (fabs(last.grad_norm - (prefopt_sigmoid(5 - i) - 0.5) * (5 - i)) < 1e-6) {
                    seen[i]++;
                    orders[epoch][s] = (char)('0' + i);
                }
        }
        for (int32_t i = 0; i < 5; i++)
            ck_assert_int_eq(seen[i], 1);
    }
    ck_assert_str_ne(orders[0], orders[1]);
    prefopt_trainer_destroy(trainer);
    c.seen = 0;
    OK(prefopt_trainer_create_reward(&trainer, reward, pairs, NULL, NULL));
    ck_assert_int_eq(c.seen, 0);
    OK(prefopt_trainer_run(trainer, 2, NULL));
    ck_assert_int_eq(c.seen, 12); /* 6 distinct sequences, not 10 */
    prefopt_trainer_destroy(trainer);
    prefopt_reward_destroy(reward);
    prefopt_dataset_destroy(pairs);
    world_free(&w);
    prefopt_context_destroy(context);
}
END_TEST

TEST_MAIN("loop", progress_is_told, stop_and_go_on, same_bits, bad_numbers_name_step_and_row,
          fits_fail_cleanly, fits_run_out_of_memory, batches_cover_the_rows)
