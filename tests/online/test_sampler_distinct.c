/* Draws without replacement. */
#include "sampler_test.h"

/* Ordered pairs of distinct completions: p_i p_j / (1 - p_i). */
START_TEST(distinct_draws_follow_the_policy)
{
    enum { ROWS = 20000, K = 4 };
    prefopt_context *context = test_context(1);
    prefopt_dataset *prompts, *samples, *all;
    OK(prefopt_dataset_create(&prompts, context));
    for (int64_t i = 0; i < ROWS; i++)
        add_prompt(prompts, NULL, 0);
    prefopt_space space = make_space(K, 1, -1);
    prefopt_policy *policy = tabular(context, &space, prompts, 1);
    prefopt_sampler_options o = options_of(2);
    o.without_replacement = 1;
    OK(prefopt_sample(&samples, policy, prompts, &o));
    OK(prefopt_policy_enumerate(&all, policy, prompts, 0));
    prefopt_row every = row_of(all, 0);
    int64_t count[K * K] = {0}, first[K] = {0}, differ = 0;
    double p[K], joint[K * K];
    for (int64_t i = 0; i < ROWS; i++) {
        prefopt_row row = row_of(samples, i);
        first[row.completions[0]]++;
        count[row.completions[0] * K + row.completions[1]]++;
        for (int64_t j = 0; j < 2; j++)
            differ +=
                row.logp[j] != every.logp[row.completions[j]] || row.sampler_logp[j] != row.logp[j];
    }
    ck_assert_int_eq(differ, 0);
    for (int64_t i = 0; i < K; i++)
        p[i] = exp(every.logp[i]);
    for (int64_t i = 0; i < K; i++)
        for (int64_t j = 0; j < K; j++)
            joint[i * K + j] = i == j ? 0 : p[i] * p[j] / (1 - p[i]);
    check_counts(K, first, p);
    check_counts(K * K, count, joint);
    prefopt_dataset_destroy(samples);
    prefopt_dataset_destroy(all);
    prefopt_dataset_destroy(prompts);
    prefopt_policy_destroy(policy);
    prefopt_context_destroy(context);
}
END_TEST

START_TEST(distinct_draws_can_be_all)
{
    world w = make_world(test_context(1));
    prefopt_sampler_options o = options_of(COUNT);
    o.without_replacement = 1;
    prefopt_dataset *samples, *all, *again;
    OK(prefopt_sample(&samples, w.policy, w.prompts, &o));
    OK(prefopt_policy_enumerate(&all, w.policy, w.prompts, 0));
    for (int64_t i = 0; i < PROMPTS; i++) {
        prefopt_row row = row_of(samples, i), every = row_of(all, i);
        int64_t seen[COUNT] = {0};
        for (int64_t j = 0; j < COUNT; j++)
            seen[find_completion(&row, j, &every)]++;
        for (int64_t j = 0; j < COUNT; j++)
            ck_assert_int_eq(seen[j], 1);
    }
    /* Rows are enumerated a few at a time: the same bits. */
    prefopt_context_options c;
    OK(prefopt_context_options_init(&c, sizeof c));
    c.byte_budget = 1;
    prefopt_context *context;
    OK(prefopt_context_create(&context, &c));
    world small = make_world(context);
    OK(prefopt_sample(&again, small.policy, small.prompts, &o));
    check_same(samples, again);
    prefopt_dataset_destroy(again);
    end_world(&small);
    o.round = 1;
    OK(prefopt_sample(&again, w.policy, w.prompts, &o));
    ck_assert(prefopt_dataset_hash(samples) != prefopt_dataset_hash(again));
    prefopt_dataset_destroy(again);
    prefopt_dataset_destroy(samples);
    prefopt_dataset_destroy(all);

    prefopt_dataset *untouched = w.prompts;
    o = options_of(16);
    o.without_replacement = 1;
    FAILS(PREFOPT_ERR_ARGUMENT, "n is 16, expected at most 15",
          prefopt_sample(&untouched, w.policy, w.prompts, &o));
    ck_assert(untouched == w.prompts);
    end_world(&w);
}
END_TEST

START_TEST(distinct_draws_need_positive_probability)
{
    prefopt_context *context = test_context(1);
    prefopt_space space = make_space(3, 1, -1);
    prefopt_policy *policy;
    OK(prefopt_policy_create_tabular(&policy, context, &space, NULL));
    int32_t tokens[] = {0, 2};
    int64_t offsets[] = {0, 1, 2}, prompt_len[] = {0, 0};
    prefopt_sequences in = {sizeof in, 0, 2, tokens, offsets, prompt_len};
    double logp[] = {log(0.5), log(0.5)};
    OK(prefopt_policy_set_logprobs(policy, &in, logp));
    prefopt_dataset *prompts, *samples;
    OK(prefopt_dataset_create(&prompts, context));
    add_prompt(prompts, NULL, 0);
    prefopt_sampler_options o = options_of(3);
    o.without_replacement = 1;
    FAILS(PREFOPT_ERR_ARGUMENT, "row 0: n is 3, expected at most 2",
          prefopt_sample(&samples, policy, prompts, &o));
    o.n = 2;
    OK(prefopt_sample(&samples, policy, prompts, &o));
    ck_assert(row_of(samples, 0).completions[0] + row_of(samples, 0).completions[1] == 2);
    prefopt_dataset_destroy(samples);
    prefopt_dataset_destroy(prompts);
    prefopt_policy_destroy(policy);
    prefopt_context_destroy(context);
}
END_TEST

TEST_MAIN("sampler_distinct", distinct_draws_follow_the_policy, distinct_draws_can_be_all,
          distinct_draws_need_positive_probability)
