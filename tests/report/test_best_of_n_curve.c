/* Best-of-n curves: against the definition, and what they are for: a judge that is wrong. */
#include "report_test.h"

static void set_reward(prefopt_reward *reward, const double *value)
{
    prefopt_parameters p = {.struct_size = sizeof p};
    OK(prefopt_reward_parameters(reward, &p));
    memcpy(p.value, value, (size_t)p.n * sizeof *value);
    OK(prefopt_reward_updated(reward));
}

/* P(y wins of n) by the definition for distinct scores: P(all n at most y) less P(all n below). */
START_TEST(by_definition)
{
    prefopt_context *context = test_context(1);
    world w = world_create(context);
    prefopt_reward *truth;
    double value[18], reward[4], kl[4];
    const int64_t n[] = {1, 2, 5, 64};
    OK(prefopt_random_normal(99, 0, 0, 18, value));
    OK(prefopt_reward_create_tabular(&truth, context, &w.view));
    set_reward(truth, value);
    prefopt_dataset *pairs = world_pairs(&w); /* its prompts weigh 2 and 4 */
    OK(prefopt_report_best_of_n(w.policy, w.reward, truth, pairs, 4, n, reward, kl));
    for (int k = 0; k < 4; k++) {
        double expected = 0, divergence = 0;
        for (int s = 0; s < 18; s++) {
            double below = 0, p = exp(w.logp[s]), share = s < 9 ? 2.0 / 6 : 4.0 / 6;
            for (int t = s < 9 ? 0 : 9; t < (s < 9 ? 9 : 18); t++)
                below += w.score[t] < w.score[s] ? exp(w.logp[t]) : 0;
            double win = pow(below + p, (double)n[k]) - pow(below, (double)n[k]);
            expected += share * win * value[s];
            divergence += win > 0 ? share * win * log(win / p) : 0;
        }
        CLOSE(reward[k], expected, 1e-11);
        CLOSE(kl[k], divergence, 1e-11);
    }
    /* The truth as its own judge only rises; each output may be left out. */
    double own[4], alone[4];
    OK(prefopt_report_best_of_n(w.policy, truth, truth, pairs, 4, n, own, NULL));
    OK(prefopt_report_best_of_n(w.policy, truth, truth, pairs, 4, n, NULL, alone));
    for (int k = 1; k < 4; k++) {
        ck_assert_double_gt(own[k], own[k - 1]);
        ck_assert_double_gt(alone[k], alone[k - 1]);
    }
    CLOSE(own[0], reward[0], 1e-12);
    CLOSE(kl[0], 0, 1e-14);
    prefopt_dataset_destroy(pairs);
    prefopt_reward_destroy(truth);
    world_destroy(&w);
    prefopt_context_destroy(context);
}
END_TEST

/* A judge that likes best what the truth rules out: as n grows the true reward falls. */
static int32_t ruled_out(void *payload, const prefopt_sequences *in, double *score)
{
    for (int64_t i = 0; i < in->n; i++)
        score[i] = in->tokens[in->offsets[i + 1] - 1] == 2 ? -INFINITY : 1;
    return 0;
}

START_TEST(truth_of_never)
{
    prefopt_context *context = test_context(1);
    world w = world_create(context);
    prefopt_reward *truth;
    prefopt_reward_callbacks callbacks = {.struct_size = sizeof callbacks, .scores = ruled_out};
    OK(prefopt_reward_create_custom(&truth, context, &callbacks, NULL));
    const int64_t n[] = {1, 8};
    double reward[2], logp[18];
    OK(prefopt_report_best_of_n(w.policy, w.reward, truth, w.prompts, 2, n, reward, NULL));
    ck_assert_double_eq(reward[0], -INFINITY);
    ck_assert_double_eq(reward[1], -INFINITY);
    for (int s = 0; s < 18; s++)
        logp[s] = s % 3 == 2 ? -INFINITY : -log(6);
    world_set_policy(&w, logp);
    OK(prefopt_report_best_of_n(w.policy, w.reward, truth, w.prompts, 2, n, reward, NULL));
    CLOSE(reward[0], 1, 1e-12);
    CLOSE(reward[1], 1, 1e-12);
    /* A judge of "never" is the lowest score of all, and no error. */
    OK(prefopt_report_best_of_n(w.policy, truth, w.reward, w.prompts, 2, n, reward, NULL));
    ck_assert(isfinite(reward[0]) && isfinite(reward[1]));
    prefopt_reward_destroy(truth);
    world_destroy(&w);
    prefopt_context_destroy(context);
}
END_TEST

/* A policy in single precision sums to 1 within 1e-6 alone. */
START_TEST(sums_nearly_to_one)
{
    prefopt_context *context = test_context(1);
    world w = world_create(context);
    double logp[3] = {log(0.5) - 1e-6, log(0.25), log(0.25)}, reward, kl;
    prefopt_policy *custom;
    prefopt_reward *score;
    prefopt_policy_callbacks callbacks = {.struct_size = sizeof callbacks,
                                          .logprobs = three_logprobs};
    prefopt_reward_callbacks scores = {.struct_size = sizeof scores, .scores = ruled_out};
    prefopt_space space = {.struct_size = sizeof space, .eos = -1, .vocab = 3, .horizon = 1};
    const int64_t n = 4;
    OK(prefopt_policy_create_custom(&custom, context, &space, &callbacks, logp));
    OK(prefopt_reward_create_custom(&score, context, &scores, NULL));
    OK(prefopt_report_best_of_n(custom, score, score, w.prompts, 1, &n, NULL, &kl));
    CLOSE(kl,
          (1 - pow(0.25, 4)) * log((1 - pow(0.25, 4)) / 0.75) + pow(0.25, 4) * log(pow(0.25, 3)),
          1e-5);
    OK(prefopt_report_best_of_n(custom, score, score, w.prompts, 1, &n, &reward, NULL));
    ck_assert_double_eq(reward, -INFINITY);
    prefopt_policy_destroy(custom);
    prefopt_reward_destroy(score);
    world_destroy(&w);
    prefopt_context_destroy(context);
}
END_TEST

START_TEST(refusals)
{
    prefopt_context *context = test_context(1);
    world w = world_create(context);
    const int64_t n[] = {4, 0};
    double reward[2] = {99, 99}, kl[2] = {99, 99};
    FAILS(PREFOPT_ERR_ARGUMENT, "policy is NULL",
          prefopt_report_best_of_n(NULL, w.reward, w.reward, w.prompts, 1, n, reward, kl));
    FAILS(PREFOPT_ERR_ARGUMENT, "judge is NULL",
          prefopt_report_best_of_n(w.policy, NULL, w.reward, w.prompts, 1, n, reward, kl));
    FAILS(PREFOPT_ERR_ARGUMENT, "truth is NULL",
          prefopt_report_best_of_n(w.policy, w.reward, NULL, w.prompts, 1, n, reward, kl));
    FAILS(PREFOPT_ERR_ARGUMENT, "prompts is NULL",
          prefopt_report_best_of_n(w.policy, w.reward, w.reward, NULL, 1, n, reward, kl));
    FAILS(PREFOPT_ERR_ARGUMENT, "n is NULL",
          prefopt_report_best_of_n(w.policy, w.reward, w.reward, w.prompts, 1, NULL, reward, kl));
    FAILS(PREFOPT_ERR_ARGUMENT, "n_values is -1",
          prefopt_report_best_of_n(w.policy, w.reward, w.reward, w.prompts, -1, n, reward, kl));
    FAILS(PREFOPT_ERR_ARGUMENT, "n[1] is 0",
          prefopt_report_best_of_n(w.policy, w.reward, w.reward, w.prompts, 2, n, reward, kl));
    OK(prefopt_report_best_of_n(w.policy, w.reward, w.reward, w.prompts, 0, NULL, NULL, NULL));
    /* The truth does not know these completions. */
    prefopt_reward *narrow;
    prefopt_sequences few = w.view;
    few.n = 3;
    OK(prefopt_reward_create_tabular(&narrow, context, &few));
    FAILS(PREFOPT_ERR_ARGUMENT, "truth: ",
          prefopt_report_best_of_n(w.policy, w.reward, narrow, w.prompts, 1, n, reward, kl));
    FAILS(PREFOPT_ERR_ARGUMENT, "reward: ",
          prefopt_report_best_of_n(w.policy, narrow, w.reward, w.prompts, 1, n, reward, kl));
    ck_assert_double_eq(reward[0], 99);
    ck_assert_double_eq(kl[0], 99);
    prefopt_reward_destroy(narrow);
    world_destroy(&w);
    prefopt_context_destroy(context);
}
END_TEST

START_TEST(allocator_failures)
{
    counting_allocator a = {0};
    prefopt_context *context = counting_context(&a);
    world w = world_create(context);
    const int64_t n = 4;
    double reward = 99, kl = 99;
    int64_t failures;
    FAIL_AT_EACH(
        &a, failures,
        prefopt_report_best_of_n(w.policy, w.reward, w.reward, w.prompts, 1, &n, &reward, &kl),
        reward == 99 && kl == 99);
    ck_assert_int_gt(failures, 10);
    world_destroy(&w);
    prefopt_context_destroy(context);
}
END_TEST

TEST_MAIN("best_of_n_curve", by_definition, truth_of_never, sums_nearly_to_one, refusals,
          allocator_failures)
