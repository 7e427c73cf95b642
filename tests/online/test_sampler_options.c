/* What goes along with samples, what the sampler refuses, and memory that ends. */
#include "pf_config.h"
#include "sampler_test.h"

START_TEST(weight_and_fields_go_along)
{
    world w = make_world(test_context(1));
    const int32_t prompt[] = {7}, completions[] = {0, 2, 2};
    const int64_t offsets[] = {0, 2, 3};
    prefopt_dataset *pairs, *samples;
    OK(prefopt_dataset_create(&pairs, w.context));
    prefopt_row row;
    OK(prefopt_row_init(&row, sizeof row));
    row.kind = PREFOPT_ROW_PAIR;
    row.n_completions = 2;
    row.prompt = prompt;
    row.prompt_len = 1;
    row.completions = completions;
    row.completion_offsets = offsets;
    row.weight = 2.5;
    row.label = 0.7;
    row.margin = 1;
#if PF_HAVE_JSON
    row.extra = "{\"id\":4}";
#endif
    OK(prefopt_dataset_append(pairs, &row));
    for (int32_t k = 0; k < 2; k++) {
        prefopt_sampler_options o = options_of(3);
        o.without_replacement = k;
        OK(prefopt_sample(&samples, w.policy, pairs, &o));
        prefopt_row made = row_of(samples, 0);
        ck_assert(made.kind == PREFOPT_ROW_COMPLETIONS && made.n_completions == 3);
        ck_assert(made.prompt_len == 1 && made.prompt[0] == 7 && made.weight == 2.5);
#if PF_HAVE_JSON
        ck_assert_str_eq(made.extra, "{\"id\":4}");
#endif
        prefopt_dataset_destroy(samples);
    }
    prefopt_dataset_destroy(pairs);
    OK(prefopt_dataset_create(&pairs, w.context));
    OK(prefopt_sample(&samples, w.policy, pairs, NULL));
    ck_assert_int_eq(prefopt_dataset_size(samples), 0);
    prefopt_dataset_destroy(samples);
    prefopt_dataset_destroy(pairs);
    end_world(&w);
}
END_TEST

static int32_t any_token(void *payload, int64_t row, int64_t completion, int32_t token)
{
    (void)payload;
    (void)row;
    (void)completion;
    (void)token;
    return PREFOPT_OK;
}

START_TEST(refuses)
{
    world w = make_world(test_context(1));
    prefopt_dataset *out = w.prompts;
    FAILS(PREFOPT_ERR_ARGUMENT, "out is NULL", prefopt_sample(NULL, w.policy, w.prompts, NULL));
    FAILS(PREFOPT_ERR_ARGUMENT, "policy is NULL", prefopt_sample(&out, NULL, w.prompts, NULL));
    FAILS(PREFOPT_ERR_ARGUMENT, "prompts is NULL", prefopt_sample(&out, w.policy, NULL, NULL));
    FAILS(PREFOPT_ERR_ARGUMENT, "NULL", prefopt_sampler_options_init(NULL, sizeof(int)));
#define REFUSES(code, text, ...)                                                                   \
    do {                                                                                           \
        prefopt_sampler_options o_ = options_of(2);                                                \
        prefopt_sampler_options *o = &o_;                                                          \
        __VA_ARGS__;                                                                               \
        FAILS(code, text, prefopt_sample(&out, w.policy, w.prompts, o));                           \
    } while (0)
    REFUSES(PREFOPT_ERR_VERSION, "struct_size", o->struct_size = 8);
    REFUSES(PREFOPT_ERR_ARGUMENT, "without_replacement is 2", o->without_replacement = 2);
    REFUSES(PREFOPT_ERR_ARGUMENT, "n is 0", o->n = 0);
    REFUSES(PREFOPT_ERR_ARGUMENT, "temperature is -1", o->temperature = -1);
    REFUSES(PREFOPT_ERR_ARGUMENT, "temperature is inf", o->temperature = INFINITY);
    REFUSES(PREFOPT_ERR_NUMERIC, "temperature is NaN", o->temperature = NAN);
    REFUSES(PREFOPT_ERR_NUMERIC, "top_p is NaN", o->top_p = NAN);
    REFUSES(PREFOPT_ERR_ARGUMENT, "top_k is -1", o->top_k = -1);
    REFUSES(PREFOPT_ERR_ARGUMENT, "top_p is 0", o->top_p = 0);
    REFUSES(PREFOPT_ERR_ARGUMENT, "top_p is 1.5", o->top_p = 1.5);
    REFUSES(PREFOPT_ERR_ARGUMENT, "top_k is set", o->temperature = 0, o->top_k = 2);
    REFUSES(PREFOPT_ERR_ARGUMENT, "top_p is set", o->temperature = 0, o->top_p = 0.5);
    REFUSES(PREFOPT_ERR_ARGUMENT, "seed is set", o->temperature = 0, o->seed = 2);
    REFUSES(PREFOPT_ERR_ARGUMENT, "round is set", o->temperature = 0, o->round = 2);
    REFUSES(PREFOPT_ERR_ARGUMENT, "temperature is set", o->without_replacement = 1,
            o->temperature = 0);
    REFUSES(PREFOPT_ERR_ARGUMENT, "top_k is set", o->without_replacement = 1, o->top_k = 2);
    REFUSES(PREFOPT_ERR_ARGUMENT, "top_p is set", o->without_replacement = 1, o->top_p = 0.5);
    REFUSES(PREFOPT_ERR_NUMERIC, "min_p is NaN", o->min_p = NAN);
    REFUSES(PREFOPT_ERR_ARGUMENT, "min_p is -0.5", o->min_p = -0.5);
    REFUSES(PREFOPT_ERR_ARGUMENT, "min_p is 2", o->min_p = 2);
    REFUSES(PREFOPT_ERR_ARGUMENT, "max_tokens is -1", o->max_tokens = -1);
    REFUSES(PREFOPT_ERR_ARGUMENT, "n_stop is -1", o->n_stop = -1);
    REFUSES(PREFOPT_ERR_ARGUMENT, "stop is NULL but n_stop is 1", o->n_stop = 1);
    REFUSES(PREFOPT_ERR_ARGUMENT, "stop is set but n_stop is 0", o->stop = (int32_t[]){1});
    REFUSES(PREFOPT_ERR_ARGUMENT, "stop[1] is 3", o->n_stop = 2, o->stop = ((int32_t[]){1, 3}));
    REFUSES(PREFOPT_ERR_ARGUMENT, "stop[0] is -1", o->n_stop = 1, o->stop = (int32_t[]){-1});
    REFUSES(PREFOPT_ERR_ARGUMENT, "token_payload is set without token", o->token_payload = o);
    REFUSES(PREFOPT_ERR_ARGUMENT, "min_p is set", o->temperature = 0, o->min_p = 0.5);
    REFUSES(PREFOPT_ERR_ARGUMENT, "min_p is set", o->without_replacement = 1, o->min_p = 0.5);
    REFUSES(PREFOPT_ERR_ARGUMENT, "max_tokens is set", o->without_replacement = 1,
            o->max_tokens = 2);
    REFUSES(PREFOPT_ERR_ARGUMENT, "stop is set", o->without_replacement = 1, o->n_stop = 1,
            o->stop = (int32_t[]){1});
    REFUSES(PREFOPT_ERR_ARGUMENT, "token is set", o->without_replacement = 1, o->token = any_token);
    REFUSES(PREFOPT_ERR_MEMORY, "", o->n = INT64_MAX);
    /* A prompt the policy does not know. */
    const int32_t unknown[] = {55};
    add_prompt(w.prompts, unknown, 1);
    REFUSES(PREFOPT_ERR_ARGUMENT, "", o->n = 2);
    REFUSES(PREFOPT_ERR_ARGUMENT, "", o->without_replacement = 1);
    ck_assert(out == w.prompts);
    end_world(&w);
}
END_TEST

/* Memory that ends at the n-th call: each failure says so and leaves nothing behind. */
static void fail_at_each(const prefopt_sampler_options *o)
{
    counting_allocator allocator = {0};
    world w = make_world(counting_context(&allocator));
    int64_t live = allocator.live, failures = 0;
    for (;; failures++) {
        prefopt_dataset *samples = w.prompts;
        allocator.calls = 0;
        allocator.fail_at = failures + 1;
        int32_t status = prefopt_sample(&samples, w.policy, w.prompts, o);
        allocator.fail_at = 0;
        if (status == PREFOPT_OK) {
            prefopt_dataset_destroy(samples);
            ck_assert_int_eq(allocator.live, live);
            break;
        }
        ck_assert_int_eq(status, PREFOPT_ERR_MEMORY);
        ck_assert(samples == w.prompts);
        ck_assert_int_eq(allocator.live, live);
    }
    ck_assert_int_ge(failures, 8);
    end_world(&w);
    ck_assert_int_eq(allocator.live, 0);
}

START_TEST(memory_may_end)
{
    prefopt_sampler_options o = options_of(40);
    o.temperature = 2;
    o.top_k = 2;
    fail_at_each(&o);
    o = options_of(4);
    o.without_replacement = 1;
    fail_at_each(&o);
}
END_TEST

TEST_MAIN("sampler_options", weight_and_fields_go_along, refuses, memory_may_end)
