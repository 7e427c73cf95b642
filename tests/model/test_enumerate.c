#include "model_test.h"

START_TEST(spaces_are_counted)
{
    static const struct {
        int64_t vocab, horizon;
        int32_t eos;
        int64_t count;
    } known[] = {
        {3, 1, -1, 3},
        {3, 4, -1, 81},
        {1, 9, -1, 1},
        {3, 1, 0, 3},
        {3, 2, 2, 7},
        {2, 5, 0, 6},
        {1, 5, 0, 1},
        {1, INT64_MAX, -1, 1},
        {1, INT64_MAX, 0, 1},
        {11, 3, 4, 1111},
        {2, 62, -1, INT64_C(1) << 62},
    };
    for (size_t k = 0; k < sizeof known / sizeof known[0]; k++) {
        prefopt_space space = space_of(known[k].vocab, known[k].horizon, known[k].eos);
        int64_t count = -1;
        OK(prefopt_space_count(&space, &count));
        ck_assert_int_eq(count, known[k].count);
        CLOSE(pf_space_log_count(&space), log((double)count), 1e-14);
    }
    int64_t count = 5;
    prefopt_space space = space_of(2, 63, -1);
    FAILS(PREFOPT_ERR_UNSUPPORTED, "horizon 63", prefopt_space_count(&space, &count));
    CLOSE(pf_space_log_count(&space), 63 * log(2), 1e-14);
    space = space_of(50304, 200, 0);
    FAILS(PREFOPT_ERR_UNSUPPORTED, "exp(2165.2) completions", prefopt_space_count(&space, &count));
    space = space_of(2, INT64_MAX, 0);
    FAILS(PREFOPT_ERR_UNSUPPORTED, "space: about", prefopt_space_count(&space, &count));
    FAILS(PREFOPT_ERR_ARGUMENT, "space is NULL", prefopt_space_count(NULL, &count));
    FAILS(PREFOPT_ERR_ARGUMENT, "count is NULL", prefopt_space_count(&space, NULL));
    ck_assert_int_eq(count, 5);
}
END_TEST

static prefopt_dataset *three_prompts(prefopt_context *context)
{
    prefopt_dataset *d;
    prefopt_row row;
    int32_t prompt[] = {7, 8};
    OK(prefopt_dataset_create(&d, context));
    OK(prefopt_row_init(&row, sizeof row));
    row.prompt = prompt;
    for (row.prompt_len = 0; row.prompt_len < 2; row.prompt_len++)
        OK(prefopt_dataset_append(d, &row));
    OK(prefopt_dataset_append_pair(d, prompt, 2, (int32_t[]){1}, 1, (int32_t[]){0}, 1, 1, 1, 0));
    return d;
}

START_TEST(all_completions_in_order_and_summing_to_one)
{
    static const prefopt_space spaces[] = {
        {sizeof(prefopt_space), -1, 3, 1}, {sizeof(prefopt_space), -1, 2, 4},
        {sizeof(prefopt_space), 0, 3, 3},  {sizeof(prefopt_space), 1, 3, 3},
        {sizeof(prefopt_space), 2, 3, 2},  {sizeof(prefopt_space), 0, 1, 4},
        {sizeof(prefopt_space), -1, 1, 4},
    };
    prefopt_context *context = test_context(2);
    prefopt_dataset *prompts = three_prompts(context), *all;
    prefopt_sequences known = {.struct_size = sizeof known};
    OK(prefopt_dataset_sequences(prompts, &known));
    for (size_t s = 0; s < sizeof spaces / sizeof spaces[0]; s++) {
        prefopt_policy *policy;
        OK(prefopt_policy_create_tabular(&policy, context, &spaces[s], &known));
        randomise(policy, s, 1.5);
        OK(prefopt_policy_enumerate(&all, policy, prompts, 0));
        ck_assert_int_eq(prefopt_dataset_size(all), 3);
        list expected = list_new();
        int32_t prompt[] = {7, 8};
        for (int p = 0; p < 3; p++)
            list_add_all(&expected, &spaces[s], prompt, p);
        prefopt_sequences got = {.struct_size = sizeof got};
        prefopt_columns columns = {.struct_size = sizeof columns};
        OK(prefopt_dataset_sequences(all, &got));
        OK(prefopt_dataset_columns(all, &columns));
        ck_assert_int_eq(got.n, expected.view.n);
        ck_assert_mem_eq(got.offsets, expected.offsets, (size_t)(got.n + 1) * 8);
        ck_assert_mem_eq(got.prompt_len, expected.prompt_len, (size_t)got.n * 8);
        ck_assert_mem_eq(got.tokens, expected.tokens, (size_t)got.offsets[got.n] * 4);
        double *logp = calloc((size_t)got.n, sizeof *logp);
        OK(prefopt_policy_logprobs(policy, &got, logp, NULL));
        ck_assert_mem_eq(logp, columns.logp, (size_t)got.n * sizeof *logp);
        for (int64_t row = 0; row < 3; row++) {
            ck_assert_int_eq(columns.kind[row], PREFOPT_ROW_COMPLETIONS);
            CLOSE(prefopt_log_sum_exp(got.n / 3, logp + row * got.n / 3), 0, 1e-14);
        }
        free(logp);
        list_free(&expected);
        prefopt_dataset_destroy(all);
        prefopt_policy_destroy(policy);
    }
    prefopt_dataset_destroy(prompts);
    prefopt_context_destroy(context);
}
END_TEST

static int32_t half_of_it(void *payload, const prefopt_sequences *in, double *logp, double *token)
{
    for (int64_t i = 0; i < in->n; i++)
        logp[i] = log(0.125);
    return *(int32_t *)payload;
}

START_TEST(refusals)
{
    prefopt_context *context = test_context(1);
    prefopt_dataset *prompts = three_prompts(context), *none, *all = NULL;
    prefopt_sequences known = {.struct_size = sizeof known};
    OK(prefopt_dataset_sequences(prompts, &known));
    prefopt_space space = space_of(3, 4, 0);
    prefopt_policy *policy;
    OK(prefopt_policy_create_tabular(&policy, context, &space, &known));
    FAILS(PREFOPT_ERR_UNSUPPORTED, "31 completions a prompt, expected at most limit = 30",
          prefopt_policy_enumerate(&all, policy, prompts, 30));
    FAILS(PREFOPT_ERR_ARGUMENT, "limit is -1", prefopt_policy_enumerate(&all, policy, prompts, -1));
    FAILS(PREFOPT_ERR_ARGUMENT, "out is NULL", prefopt_policy_enumerate(NULL, policy, prompts, 0));
    FAILS(PREFOPT_ERR_ARGUMENT, "policy is NULL", prefopt_policy_enumerate(&all, NULL, prompts, 0));
    FAILS(PREFOPT_ERR_ARGUMENT, "prompts is NULL", prefopt_policy_enumerate(&all, policy, NULL, 0));
    ck_assert_ptr_null(all);
    OK(prefopt_policy_enumerate(&all, policy, prompts, 31));
    prefopt_dataset_destroy(all);
    OK(prefopt_dataset_create(&none, context));
    OK(prefopt_policy_enumerate(&all, policy, none, 0));
    ck_assert_int_eq(prefopt_dataset_size(all), 0);
    prefopt_dataset_destroy(all);
    prefopt_dataset_destroy(none);
    prefopt_policy_destroy(policy);

    /* Prompts the policy does not know. */
    OK(prefopt_policy_create_tabular(&policy, context, &space, NULL));
    FAILS(PREFOPT_ERR_ARGUMENT, "sequence 31: its prompt",
          prefopt_policy_enumerate(&all, policy, prompts, 0));
    prefopt_policy_destroy(policy);

    /* A million completions and no more. */
    prefopt_policy_callbacks c = {.struct_size = sizeof c, .logprobs = half_of_it};
    int32_t status = 0;
    space = space_of(1000001, 1, -1);
    OK(prefopt_policy_create_custom(&policy, context, &space, &c, &status));
    FAILS(PREFOPT_ERR_UNSUPPORTED, "1000001 completions a prompt",
          prefopt_policy_enumerate(&all, policy, prompts, 0));
    prefopt_policy_destroy(policy);
    space = space_of(50304, 64, 0);
    OK(prefopt_policy_create_custom(&policy, context, &space, &c, &status));
    FAILS(PREFOPT_ERR_UNSUPPORTED, "space: about exp(",
          prefopt_policy_enumerate(&all, policy, prompts, 0));
    prefopt_policy_destroy(policy);

    /* What does not sum to 1 is no policy. */
    space = space_of(4, 1, -1);
    OK(prefopt_policy_create_custom(&policy, context, &space, &c, &status));
    FAILS(PREFOPT_ERR_NUMERIC, "prompt row 0 sum to 0.5",
          prefopt_policy_enumerate(&all, policy, prompts, 0));
    status = PREFOPT_ERR_IO;
    FAILS(PREFOPT_ERR_IO, "logprobs", prefopt_policy_enumerate(&all, policy, prompts, 0));
    prefopt_policy_destroy(policy);
    OK(prefopt_policy_create_custom(&policy, context, NULL, &c, &status));
    FAILS(PREFOPT_ERR_UNSUPPORTED, "without a space",
          prefopt_policy_enumerate(&all, policy, prompts, 0));
    prefopt_policy_destroy(policy);
    prefopt_dataset_destroy(prompts);
    prefopt_context_destroy(context);
}
END_TEST

/* After a longer prompt there is less room: each prompt has a space of its own. */
START_TEST(transformers_end_where_their_positions_do)
{
    prefopt_context *context = test_context(2);
    prefopt_transformer_config c;
    OK(prefopt_transformer_config_init(&c, sizeof c));
    c.vocab = 3;
    c.n_layers = 1;
    c.width = 8;
    c.n_heads = 2;
    c.ff_width = 8;
    c.max_positions = 4;
    c.rotary_fraction = 0.5;
    c.init_scale = 0.5;
    prefopt_policy *policy;
    OK(prefopt_policy_create_transformer(&policy, context, &c, 5));
    static const int64_t lengths[] = {1, 3, 2, 2, 1}, counts[] = {15, 3, 7, 7, 15};
    static const int32_t prompt[] = {1, 2, 0, 1};
    prefopt_dataset *prompts, *all = NULL;
    prefopt_row row;
    list expected = list_new();
    OK(prefopt_dataset_create(&prompts, context));
    OK(prefopt_row_init(&row, sizeof row));
    row.prompt = prompt;
    for (int i = 0; i < 5; i++) {
        prefopt_space space = space_of(3, 4 - lengths[i], 0);
        row.prompt_len = lengths[i];
        OK(prefopt_dataset_append(prompts, &row));
        list_add_all(&expected, &space, prompt, (int)lengths[i]);
    }
    OK(prefopt_policy_enumerate(&all, policy, prompts, 15));
    prefopt_sequences got = {.struct_size = sizeof got};
    prefopt_columns columns = {.struct_size = sizeof columns};
    OK(prefopt_dataset_sequences(all, &got));
    OK(prefopt_dataset_columns(all, &columns));
    ck_assert_int_eq(got.n, expected.view.n);
    ck_assert_mem_eq(got.offsets, expected.offsets, (size_t)(got.n + 1) * 8);
    ck_assert_mem_eq(got.prompt_len, expected.prompt_len, (size_t)got.n * 8);
    ck_assert_mem_eq(got.tokens, expected.tokens, (size_t)got.offsets[got.n] * 4);
    double logp[15 + 3 + 7 + 7 + 15];
    OK(prefopt_policy_logprobs(policy, &got, logp, NULL));
    ck_assert_mem_eq(columns.logp, logp, sizeof logp);
    for (int i = 0; i < 5; i++) {
        ck_assert_int_eq(columns.first[i + 1] - columns.first[i], counts[i]);
        CLOSE(prefopt_log_sum_exp(counts[i], logp + columns.first[i]), 0, 1e-6);
    }
    prefopt_dataset_destroy(all);
    all = NULL;
    FAILS(PREFOPT_ERR_UNSUPPORTED, "15 completions a prompt, expected at most limit = 14",
          prefopt_policy_enumerate(&all, policy, prompts, 14));
    row.prompt_len = 4;
    OK(prefopt_dataset_append(prompts, &row));
    FAILS(PREFOPT_ERR_ARGUMENT,
          "row 5: the prompt has 4 tokens, expected at most max_positions - 1",
          prefopt_policy_enumerate(&all, policy, prompts, 0));
    ck_assert_ptr_null(all);
    list_free(&expected);
    prefopt_dataset_destroy(prompts);
    prefopt_policy_destroy(policy);
    prefopt_context_destroy(context);
}
END_TEST

START_TEST(every_allocation_may_fail)
{
    counting_allocator a = {0};
    prefopt_context *context = counting_context(&a), *other = test_context(1);
    prefopt_dataset *prompts = three_prompts(other);
    prefopt_space space = space_of(3, 3, 0);
    prefopt_sequences known = {.struct_size = sizeof known};
    prefopt_policy *policy;
    OK(prefopt_dataset_sequences(prompts, &known));
    OK(prefopt_policy_create_tabular(&policy, context, &space, &known));
    int64_t live = a.live;
    for (int64_t n = 1;; n++) {
        prefopt_dataset *all = NULL;
        a.fail_at = a.calls + n;
        int32_t status = prefopt_policy_enumerate(&all, policy, prompts, 0);
        prefopt_dataset_destroy(all);
        ck_assert_int_eq(a.live, live);
        if (status == PREFOPT_OK)
            break;
        ck_assert_ptr_null(all);
        ck_assert_int_eq(status, PREFOPT_ERR_MEMORY);
        ck_assert_int_lt(n, 200);
    }
    prefopt_policy_destroy(policy);
    prefopt_dataset_destroy(prompts);
    prefopt_context_destroy(context);
    prefopt_context_destroy(other);
}
END_TEST

TEST_MAIN("enumerate", spaces_are_counted, all_completions_in_order_and_summing_to_one, refusals,
          transformers_end_where_their_positions_do, every_allocation_may_fail)
