/* Trainers on a transformer: losses fall, and a policy that is frozen between two runs trains on
 * while its snapshot stays. */
#include "small_transformer.h"
#include "train_test.h"

static prefopt_dataset *small_pairs(prefopt_context *context)
{
    prefopt_dataset *data = NULL;
    OK(prefopt_dataset_create(&data, context));
    for (int32_t i = 0; i < 6; i++) {
        int32_t prompt[] = {i, 11}, chosen[] = {(i + 1) % 10, 3}, rejected[] = {(i + 2) % 10, 4, 5};
        OK(prefopt_dataset_append_pair(data, prompt, 2, chosen, 2, rejected, 3, 1, 1, 0));
    }
    return data;
}

static void logps(prefopt_policy *policy, const prefopt_reference *reference,
                  const prefopt_dataset *data, double *logp)
{
    prefopt_sequences all = {.struct_size = sizeof all};
    OK(prefopt_dataset_sequences(data, &all));
    if (reference != NULL)
        OK(prefopt_reference_logprobs(reference, &all, logp));
    else
        OK(prefopt_policy_logprobs(policy, &all, logp, NULL));
}

START_TEST(test_frozen_between_runs)
{
    prefopt_context *context = test_context(2);
    prefopt_policy *policy = small_policy(context, 5), *other = small_policy(context, 5);
    prefopt_dataset *data = small_pairs(context);
    prefopt_reference *first = NULL, *second = NULL;
    prefopt_trainer *trainer = NULL, *plain = NULL;
    prefopt_train_options options;
    OK(prefopt_train_options_init(&options, sizeof options));
    options.learning_rate = 3e-3;
    OK(prefopt_reference_freeze(&first, policy));
    double start[12], middle[12], end[12], now[12];
    logps(NULL, first, data, start);
    OK(prefopt_trainer_create_dpo(&trainer, policy, first, data, NULL, &options));
    OK(prefopt_trainer_create_dpo(&plain, other, first, data, NULL, &options));
    prefopt_progress progress = {.struct_size = sizeof progress};
    OK(prefopt_trainer_run(trainer, 1, &progress));
    CLOSE(progress.loss, log(2), 1e-12);
    CLOSE(progress.margin, 0, 1e-12);
    OK(prefopt_trainer_run(trainer, 9, &progress));
    logps(policy, NULL, data, middle);
    OK(prefopt_reference_freeze(&second, policy)); /* the weights are shared again */
    OK(prefopt_trainer_run(trainer, 10, &progress));
    ck_assert_double_lt(progress.loss, log(2) - 0.01);
    logps(NULL, first, data, now);
    ck_assert_int_eq(memcmp(now, start, sizeof now), 0);
    logps(NULL, second, data, now);
    ck_assert_int_eq(memcmp(now, middle, sizeof now), 0);
    /* As if nobody had looked. */
    OK(prefopt_trainer_run(plain, 20, NULL));
    logps(policy, NULL, data, now);
    logps(other, NULL, data, end);
    ck_assert_int_eq(memcmp(now, end, sizeof now), 0);
    ck_assert(now[0] != middle[0]);
    prefopt_trainer_destroy(trainer);
    prefopt_trainer_destroy(plain);
    prefopt_reference_destroy(first);
    prefopt_reference_destroy(second);
    prefopt_dataset_destroy(data);
    prefopt_policy_destroy(policy);
    prefopt_policy_destroy(other);
    prefopt_context_destroy(context);
}
END_TEST

START_TEST(test_reward_model)
{
    prefopt_context *context = test_context(2);
    prefopt_policy *policy = small_policy(context, 5);
    prefopt_dataset *data = small_pairs(context);
    prefopt_reward *reward = NULL;
    prefopt_trainer *trainer = NULL;
    prefopt_train_options options;
    OK(prefopt_train_options_init(&options, sizeof options));
    options.learning_rate = 1e-2;
    OK(prefopt_reward_from_policy(&reward, policy));
    OK(prefopt_trainer_create_reward(&trainer, reward, data, NULL, &options));
    prefopt_progress progress = {.struct_size = sizeof progress};
    OK(prefopt_trainer_run(trainer, 1, &progress));
    CLOSE(progress.loss, log(2), 1e-12);
    OK(prefopt_trainer_run(trainer, 60, &progress));
    ck_assert_double_lt(progress.loss, 0.1);
    ck_assert_double_eq(progress.accuracy, 1);
    FAILS(PREFOPT_ERR_UNSUPPORTED, "float", prefopt_trainer_fit(trainer, NULL));
    prefopt_trainer_destroy(trainer);
    prefopt_reward_destroy(reward);
    prefopt_dataset_destroy(data);
    prefopt_policy_destroy(policy);
    prefopt_context_destroy(context);
}
END_TEST

TEST_MAIN("transformer training", test_frozen_between_runs, test_reward_model)
