/* What trainers refuse, and that they survive whichever allocation fails. */
#include "custom_reward.h"

START_TEST(arguments_are_checked)
{
    prefopt_context *context = test_context(1);
    world w = world_new(context, 1, 3, 1, -1);
    prefopt_dataset *pairs = random_pairs(&w, 1, 2), *empty, *weightless;
    prefopt_reward *reward = tabular_reward(&w, pairs);
    prefopt_reference *reference;
    prefopt_trainer *t = NULL;
    OK(prefopt_dataset_create(&empty, context));
    OK(prefopt_dataset_create(&weightless, context));
    add_pair(&w, weightless, 0, 0, 1, 0, 1, 0);
    OK(prefopt_reference_create_uniform(&reference, context, &w.space));
    FAILS(PREFOPT_ERR_ARGUMENT, "out is NULL",
          prefopt_trainer_create_mle(NULL, w.policy, w.all, NULL));
    FAILS(PREFOPT_ERR_ARGUMENT, "policy is NULL",
          prefopt_trainer_create_mle(&t, NULL, w.all, NULL));
    FAILS(PREFOPT_ERR_ARGUMENT, "data is NULL",
          prefopt_trainer_create_mle(&t, w.policy, NULL, NULL));
    FAILS(PREFOPT_ERR_ARGUMENT, "mle: row 0 is of kind PAIR, expected COMPLETIONS",
          prefopt_trainer_create_mle(&t, w.policy, pairs, NULL));
    FAILS(PREFOPT_ERR_ARGUMENT, "out is NULL",
          prefopt_trainer_create_reward(NULL, reward, pairs, NULL, NULL));
    FAILS(PREFOPT_ERR_ARGUMENT, "reward is NULL",
          prefopt_trainer_create_reward(&t, NULL, pairs, NULL, NULL));
    FAILS(PREFOPT_ERR_ARGUMENT, "data is NULL",
          prefopt_trainer_create_reward(&t, reward, NULL, NULL, NULL));
    FAILS(PREFOPT_ERR_ARGUMENT, "row 0 is of kind COMPLETIONS",
          prefopt_trainer_create_reward(&t, reward, w.all, NULL, NULL));
    FAILS(PREFOPT_ERR_ARGUMENT, "out is NULL",
          prefopt_trainer_create_dpo(NULL, w.policy, reference, pairs, NULL, NULL));
    FAILS(PREFOPT_ERR_ARGUMENT, "policy is NULL",
          prefopt_trainer_create_dpo(&t, NULL, reference, pairs, NULL, NULL));
    FAILS(PREFOPT_ERR_ARGUMENT, "reference is NULL",
          prefopt_trainer_create_dpo(&t, w.policy, NULL, pairs, NULL, NULL));
    FAILS(PREFOPT_ERR_ARGUMENT, "data is NULL",
          prefopt_trainer_create_dpo(&t, w.policy, reference, NULL, NULL, NULL));
    FAILS(PREFOPT_ERR_ARGUMENT, "row 0 is of kind PROMPT",
          prefopt_trainer_create_dpo(&t, w.policy, reference, w.prompts, NULL, NULL));
    FAILS(PREFOPT_ERR_ARGUMENT, "no rows",
          prefopt_trainer_create_dpo(&t, w.policy, reference, empty, NULL, NULL));
    FAILS(PREFOPT_ERR_ARGUMENT, "sum to 0",
          prefopt_trainer_create_dpo(&t, w.policy, reference, weightless, NULL, NULL));
    prefopt_dpo_options dpo;
    OK(prefopt_dpo_options_init(&dpo, sizeof dpo));
    dpo.variant = PREFOPT_DPO_SIMPO;
    FAILS(PREFOPT_ERR_ARGUMENT, "reference is given",
          prefopt_trainer_create_dpo(&t, w.policy, reference, pairs, &dpo, NULL));
    dpo.variant = PREFOPT_DPO_AOT;
    FAILS(PREFOPT_ERR_ARGUMENT, "weight is set, but DPO_AOT does not use it",
          prefopt_trainer_create_dpo(&t, w.policy, reference, pairs, &dpo, NULL));
    dpo.variant = PREFOPT_DPO_SIGMOID;
    dpo.tau = 3;
    FAILS(PREFOPT_ERR_ARGUMENT, "tau",
          prefopt_trainer_create_dpo(&t, w.policy, reference, pairs, &dpo, NULL));
    prefopt_bt_options bt;
    OK(prefopt_bt_options_init(&bt, sizeof bt));
    bt.log_tie = 1;
    FAILS(PREFOPT_ERR_ARGUMENT, "log_tie",
          prefopt_trainer_create_reward(&t, reward, pairs, &bt, NULL));
    prefopt_train_options o = train_defaults();
    o.score_ridge = 1;
    FAILS(PREFOPT_ERR_ARGUMENT, "score_ridge is 1, but mle has no use",
          prefopt_trainer_create_mle(&t, w.policy, w.all, &o));
    o.batch = 2;
    FAILS(PREFOPT_ERR_ARGUMENT, "batch is 2, but score_ridge",
          prefopt_trainer_create_reward(&t, reward, pairs, NULL, &o));
    FAILS(PREFOPT_ERR_ARGUMENT, "beta is -1",
          prefopt_trainer_create_soft_rl(&t, w.policy, reference, reward, w.prompts, -1, NULL));
    FAILS(PREFOPT_ERR_ARGUMENT, "reference is NULL",
          prefopt_trainer_create_soft_rl(&t, w.policy, NULL, reward, w.prompts, 1, NULL));
    FAILS(PREFOPT_ERR_ARGUMENT, "prompts has no rows",
          prefopt_trainer_create_soft_rl(&t, w.policy, reference, reward, empty, 1, NULL));
    custom c = {.calls = 0};
    prefopt_reward *frozen = custom_reward(context, &c, 0);
    FAILS(PREFOPT_ERR_UNSUPPORTED, "reward",
          prefopt_trainer_create_reward(&t, frozen, pairs, NULL, NULL));
    prefopt_reward_destroy(frozen);
    ck_assert_ptr_null(t);

    FAILS(PREFOPT_ERR_ARGUMENT, "trainer is NULL", prefopt_trainer_run(NULL, 1, NULL));
    FAILS(PREFOPT_ERR_ARGUMENT, "trainer is NULL", prefopt_trainer_fit(NULL, NULL));
    double number = 42;
    FAILS(PREFOPT_ERR_ARGUMENT, "trainer is NULL", prefopt_trainer_loss(NULL, &number));
    FAILS(PREFOPT_ERR_ARGUMENT, "trainer is NULL", prefopt_trainer_log_tie(NULL, &number));
    prefopt_trainer_destroy(NULL);
    OK(prefopt_trainer_create_reward(&t, reward, pairs, NULL, NULL));
    FAILS(PREFOPT_ERR_ARGUMENT, "loss is NULL", prefopt_trainer_loss(t, NULL));
    FAILS(PREFOPT_ERR_ARGUMENT, "log_tie is NULL", prefopt_trainer_log_tie(t, NULL));
    FAILS(PREFOPT_ERR_UNSUPPORTED, "tie", prefopt_trainer_log_tie(t, &number));
    FAILS(PREFOPT_ERR_ARGUMENT, "n_steps is -1", prefopt_trainer_run(t, -1, NULL));
    prefopt_progress small = {.struct_size = 8};
    FAILS(PREFOPT_ERR_VERSION, "struct_size", prefopt_trainer_run(t, 1, &small));
    FAILS(PREFOPT_ERR_VERSION, "struct_size", prefopt_trainer_fit(t, &small));
    ck_assert_double_eq(number, 42);
    prefopt_trainer_destroy(t);
    prefopt_dataset_destroy(empty);
    prefopt_dataset_destroy(weightless);
    prefopt_reference_destroy(reference);
    prefopt_reward_destroy(reward);
    prefopt_dataset_destroy(pairs);
    world_free(&w);
    prefopt_context_destroy(context);
}
END_TEST

/* Each constructor, with memory running out at each of its allocations. The handles it was given
 * may be destroyed first. */
START_TEST(memory_runs_out)
{
    for (int32_t kind = 0; kind < 4; kind++) {
        for (int64_t fail = 1;; fail++) {
            counting_allocator allocator = {0};
            prefopt_context *context = counting_context(&allocator);
            world w = world_new(context, 2, 3, 1, -1);
            prefopt_dataset *pairs = random_pairs(&w, 1, 4);
            prefopt_reward *reward = tabular_reward(&w, w.all);
            prefopt_reference *reference;
            OK(prefopt_reference_create_uniform(&reference, context, &w.space));
            prefopt_train_options o = train_defaults();
            if (kind == 2)
                o.score_ridge = 1;
            else
                o.batch = 1;
            prefopt_trainer *t = NULL;
            int64_t before = allocator.live;
            allocator.fail_at = allocator.calls + fail;
            int32_t status = 0;
            if (kind == 0)
                status = prefopt_trainer_create_mle(&t, w.policy, w.all, &o);
            if (kind == 1)
                status = prefopt_trainer_create_reward(&t, reward, pairs, NULL, &o);
            if (kind == 2)
                status = prefopt_trainer_create_dpo(&t, w.policy, reference, pairs, NULL, &o);
            if (kind == 3)
                status = prefopt_trainer_create_soft_rl(&t, w.policy, reference, reward, w.prompts,
                                                        1, &o);
            allocator.fail_at = 0;
            if (status != PREFOPT_OK) {
                ck_assert_int_eq(status, PREFOPT_ERR_MEMORY);
                ck_assert_ptr_null(t);
                ck_assert_int_eq(allocator.live, before);
            }
            prefopt_reward_destroy(reward);
            prefopt_reference_destroy(reference);
            prefopt_dataset_destroy(pairs);
            world_free(&w);
            prefopt_context_destroy(context);
            if (status == PREFOPT_OK)
                OK(prefopt_trainer_run(t, 3, NULL));
            prefopt_trainer_destroy(t);
            ck_assert_int_eq(allocator.live, 0);
            if (status == PREFOPT_OK)
                break;
        }
    }
}
END_TEST

TEST_MAIN("trainer_arguments", arguments_are_checked, memory_runs_out)
