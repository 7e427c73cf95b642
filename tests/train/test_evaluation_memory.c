/* Large held-out data on a transformer: of its activations, only what the byte budget allows. */
#include "train_test.h"

enum { ALIGN = 64 };

typedef struct {
    int64_t live, peak; /* bytes */
} bytes_allocator;

static void *bytes_allocate(void *payload, uint64_t size, uint64_t alignment)
{
    (void)alignment;
    bytes_allocator *a = payload;
    unsigned char *block = aligned_alloc(ALIGN, (size + 2 * ALIGN - 1) / ALIGN * ALIGN);
    memcpy(block, &size, sizeof size);
    a->live += (int64_t)size;
    a->peak = a->live > a->peak ? a->live : a->peak;
    return block + ALIGN;
}

static void bytes_release(void *payload, void *pointer)
{
    uint64_t size;
    memcpy(&size, (unsigned char *)pointer - ALIGN, sizeof size);
    ((bytes_allocator *)payload)->live -= (int64_t)size;
    free((unsigned char *)pointer - ALIGN);
}

/* What an evaluation takes at its height beyond what was there before. */
static int64_t height(int32_t n_held_out, int64_t byte_budget)
{
    bytes_allocator allocator = {0};
    prefopt_context_options o;
    OK(prefopt_context_options_init(&o, sizeof o));
    o.threads = 1;
    o.byte_budget = byte_budget;
    o.allocate = bytes_allocate;
    o.release = bytes_release;
    o.allocator_payload = &allocator;
    prefopt_context *context;
    OK(prefopt_context_create(&context, &o));
    prefopt_transformer_config c;
    OK(prefopt_transformer_config_init(&c, sizeof c));
    c.vocab = 64;
    c.n_layers = 2;
    c.width = 32;
    c.n_heads = 2;
    c.ff_width = 64;
    c.max_positions = 16;
    c.rotary_fraction = 0.5;
    prefopt_policy *policy;
    OK(prefopt_policy_create_transformer(&policy, context, &c, 5));
    prefopt_reference *reference;
    OK(prefopt_reference_freeze(&reference, policy));
    prefopt_dataset *pairs, *held_out;
    OK(prefopt_dataset_create(&pairs, context));
    OK(prefopt_dataset_create(&held_out, context));
    for (int32_t i = 0; i < n_held_out; i++) {
        int32_t prompt[] = {i % 61, i / 61}, chosen[] = {1, 2, 3, 4}, rejected[] = {5, 6, 7, 8};
        OK(prefopt_dataset_append_pair(i < 2 ? pairs : held_out, prompt, 2, chosen, 4, rejected, 4,
                                       1, 1, 0));
    }
    prefopt_trainer *trainer;
    OK(prefopt_trainer_create_dpo(&trainer, policy, reference, pairs, NULL, NULL));
    OK(prefopt_trainer_run(trainer, 1, NULL));
    OK(prefopt_trainer_set_evaluation(trainer, held_out, reference, NULL));
    int64_t before = allocator.live;
    allocator.peak = allocator.live;
    prefopt_progress last = {.struct_size = sizeof last};
    OK(prefopt_trainer_run(trainer, 0, &last));
    ck_assert_double_gt(last.eval_loss, 0.5);
    int64_t out = allocator.peak - before;
    prefopt_trainer_destroy(trainer);
    prefopt_dataset_destroy(pairs);
    prefopt_dataset_destroy(held_out);
    prefopt_reference_destroy(reference);
    prefopt_policy_destroy(policy);
    prefopt_context_destroy(context);
    ck_assert_int_eq(allocator.live, 0);
    return out;
}

START_TEST(large_held_out_data_stay_within_the_budget)
{
    enum { BUDGET = 1 << 18 };
    int64_t all = height(1500, INT64_C(1) << 32), some = height(1500, BUDGET);
    ck_assert_int_gt(all, 8 * BUDGET); /* or there would be nothing to see */
    /* Beside the activations a few integers a token and sequence: 12 tokens a pair. */
    ck_assert_int_le(some, BUDGET + 1500 * 12 * 32);
    ck_assert_int_le(height(3000, BUDGET) - some, 1500 * 12 * 32);
}
END_TEST

/* Nobody asks an evaluation for the way back: with room for all of it nothing is kept either. */
START_TEST(evaluations_keep_no_activations)
{
    int64_t some = height(1500, INT64_C(1) << 32), more = height(3000, INT64_C(1) << 32);
    ck_assert_int_le(more - some, 1500 * 12 * 32);
}
END_TEST

TEST_MAIN("evaluation memory", large_held_out_data_stay_within_the_budget,
          evaluations_keep_no_activations)
