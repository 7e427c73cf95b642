/* Batches in parts: the room that they take, and whichever allocation fails. */
#include "small_transformer.h"
#include "spy_policy.h"

enum { GUARD = 64 };

/* Blocks end with a guard, which release looks at. */
static void *guarded_allocate(void *payload, uint64_t size, uint64_t alignment)
{
    (void)payload, (void)alignment;
    unsigned char *block = aligned_alloc(GUARD, (size + 3 * GUARD - 1) / GUARD * GUARD);
    memcpy(block, &size, sizeof size);
    memset(block + GUARD + size, 0xa5, GUARD);
    return block + GUARD;
}

static void guarded_release(void *payload, void *pointer)
{
    (void)payload;
    unsigned char *block = (unsigned char *)pointer - GUARD;
    uint64_t size;
    memcpy(&size, block, sizeof size);
    for (int i = 0; i < GUARD; i++)
        ck_assert_int_eq(block[GUARD + size + i], 0xa5);
    free(block);
}

/* A batch that runs from one epoch into the next may have the longest row twice. */
START_TEST(a_row_twice_in_a_batch_has_room)
{
    prefopt_context_options options;
    OK(prefopt_context_options_init(&options, sizeof options));
    options.threads = 1;
    options.allocate = guarded_allocate;
    options.release = guarded_release;
    prefopt_context *context;
    OK(prefopt_context_create(&context, &options));
    world w = world_new(context, 1, 4, 2, -1);
    prefopt_dataset *data;
    OK(prefopt_dataset_create(&data, context));
    for (int64_t i = 0; i < 3; i++) {
        prefopt_row row = {.struct_size = sizeof row};
        OK(prefopt_dataset_row(w.all, 0, &row));
        row.kind = PREFOPT_ROW_RANKING;
        row.n_completions = i == 0 ? 16 : 2;
        OK(prefopt_dataset_append(data, &row));
    }
    for (int64_t keeps = 0; keeps < 20; keeps += 5) {
        prefopt_train_options o = train_defaults();
        o.batch = 2;
        prefopt_policy *policy = tabular_policy(&w);
        watch(policy, keeps);
        prefopt_reward *reward;
        prefopt_trainer *trainer;
        OK(prefopt_reward_create_local(&reward, policy));
        OK(prefopt_trainer_create_reward(&trainer, reward, data, NULL, &o));
        OK(prefopt_trainer_run(trainer, 60, NULL));
        prefopt_trainer_destroy(trainer);
        prefopt_reward_destroy(reward);
        prefopt_policy_destroy(policy);
    }
    prefopt_dataset_destroy(data);
    world_free(&w);
    prefopt_context_destroy(context);
}
END_TEST

START_TEST(trainers_run_out_of_memory)
{
    counting_allocator allocator = {0};
    prefopt_context *context = counting_context(&allocator);
    setting s = setting_new(context);
    for (int64_t fail_at = 1;; fail_at++) {
        prefopt_policy *policy = tabular_policy(&s.w);
        watch(policy, 2);
        prefopt_trainer *trainer = NULL;
        int64_t live = allocator.live;
        allocator.calls = 0;
        allocator.fail_at = fail_at;
        int32_t status = make_dpo(&trainer, &s, policy, NULL);
        allocator.fail_at = 0;
        if (status == PREFOPT_OK) {
            ck_assert_int_gt(fail_at, 20);
            prefopt_trainer_destroy(trainer);
        } else {
            ck_assert_int_eq(status, PREFOPT_ERR_MEMORY);
        }
        ck_assert_int_eq(allocator.live, live);
        prefopt_policy_destroy(policy);
        if (status == PREFOPT_OK)
            break;
    }
    setting_free(&s);
    prefopt_context_destroy(context);
}
END_TEST

enum { STEPS = 3 };

/* STEPS steps of a transformer on pairs, the allocation numbered fail_at of all steps (0: none)
 * failing; then what is left of them. Returns the allocations that the steps asked for. */
static int64_t train(counting_allocator *allocator, prefopt_context *context, int64_t micro_batch,
                     int64_t fail_at, float **value, int64_t *n)
{
    prefopt_policy *policy = small_policy(context, 5);
    prefopt_dataset *data = NULL;
    OK(prefopt_dataset_create(&data, context));
    for (int32_t i = 0; i < 6; i++) {
        int32_t prompt[] = {i / 2, 11}, chosen[] = {(i + 1) % 10, 3}, rejected[] = {4, 5, i};
        OK(prefopt_dataset_append_pair(data, prompt, 2, chosen, 2, rejected, 3, i == 2 ? 0 : 1, 1,
                                       0));
    }
    prefopt_dpo_options dpo = dpo_of(PREFOPT_DPO_CPO);
    prefopt_train_options o = train_defaults();
    o.micro_batch = micro_batch;
    prefopt_trainer *trainer = NULL;
    OK(prefopt_trainer_create_dpo(&trainer, policy, NULL, data, &dpo, &o));
    allocator->calls = 0;
    allocator->fail_at = fail_at;
    int32_t status = prefopt_trainer_run(trainer, STEPS, NULL);
    int64_t calls = allocator->calls, step;
    allocator->fail_at = 0;
    ck_assert_msg(status == PREFOPT_OK || (status == PREFOPT_ERR_MEMORY && fail_at > 0),
                  "micro_batch %lld, allocation %lld of %lld: %d", (long long)micro_batch,
                  (long long)fail_at, (long long)calls, status);
    OK(prefopt_trainer_step(trainer, &step));
    OK(prefopt_trainer_run(trainer, STEPS - step, NULL));
    prefopt_parameters p = parameters_of(policy);
    *n = p.n;
    *value = malloc((size_t)p.n * sizeof **value);
    memcpy(*value, p.value, (size_t)p.n * sizeof **value);
    prefopt_trainer_destroy(trainer);
    prefopt_dataset_destroy(data);
    prefopt_policy_destroy(policy);
    return calls;
}

/* A step never goes another way because memory was short for a moment. */
START_TEST(steps_that_ran_out_of_memory_are_the_same_steps)
{
    counting_allocator allocator = {0};
    prefopt_context *context = counting_context(&allocator);
    for (int64_t micro_batch = 0; micro_batch < 6; micro_batch += 4) {
        float *never, *once;
        int64_t n, live = allocator.live, calls;
        calls = train(&allocator, context, micro_batch, 0, &never, &n);
        ck_assert_int_gt(calls, 20);
        for (int64_t fail_at = 1; fail_at <= calls; fail_at++) {
            train(&allocator, context, micro_batch, fail_at, &once, &n);
            ck_assert_mem_eq(once, never, (size_t)n * sizeof *never);
            free(once);
        }
        ck_assert_int_eq(allocator.live, live);
        free(never);
    }
    prefopt_context_destroy(context);
}
END_TEST

TEST_MAIN("parts_memory", a_row_twice_in_a_batch_has_room, trainers_run_out_of_memory,
          steps_that_ran_out_of_memory_are_the_same_steps)
