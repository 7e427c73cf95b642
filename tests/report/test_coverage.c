/* Coverage: the lecture's three completions, sums by hand, infinities, failures. */
#include "report_test.h"

/* Lecture 22.3: pi_ref = (1/2, 1/2, 0), the first preferred to the second. */
typedef struct {
    prefopt_context *context;
    prefopt_dataset *pairs;
    prefopt_reference *reference;
    prefopt_policy *policy;
} lecture;

static const int32_t three_tokens[] = {0, 1, 2};
static const int64_t three_offsets[] = {0, 1, 2, 3}, three_prompts[] = {0, 0, 0};

static prefopt_sequences three(void)
{
    return (prefopt_sequences){.struct_size = sizeof(prefopt_sequences),
                               .n = 3,
                               .tokens = three_tokens,
                               .offsets = three_offsets,
                               .prompt_len = three_prompts};
}

static lecture lecture_create(const double *policy)
{
    lecture l = {.context = test_context(1)};
    const double ref[] = {log(0.5), log(0.5), -INFINITY};
    double logp[3];
    prefopt_sequences all = three();
    prefopt_space space = {.struct_size = sizeof space, .eos = -1, .vocab = 3, .horizon = 1};
    OK(prefopt_dataset_create(&l.pairs, l.context));
    OK(prefopt_dataset_append_pair(l.pairs, NULL, 0, three_tokens, 1, three_tokens + 1, 1, 1, 1,
                                   0));
    OK(prefopt_reference_create_fixed(&l.reference, l.context, &all, ref));
    OK(prefopt_policy_create_tabular(&l.policy, l.context, &space, NULL));
    for (int y = 0; y < 3; y++)
        logp[y] = log(policy[y]);
    OK(prefopt_policy_set_logprobs(l.policy, &all, logp));
    return l;
}

static void lecture_destroy(lecture *l)
{
    prefopt_dataset_destroy(l->pairs);
    prefopt_reference_destroy(l->reference);
    prefopt_policy_destroy(l->policy);
    prefopt_context_destroy(l->context);
}

START_TEST(names_the_third_completion)
{
    const double policy[] = {0.5, 0.25, 0.25};
    lecture l = lecture_create(policy);
    prefopt_coverage c = {.struct_size = sizeof c};
    prefopt_dataset *uncovered = NULL;
    OK(prefopt_report_coverage(&c, &uncovered, l.pairs, l.policy, l.reference, NULL, 0));
    ck_assert_int_eq(c.n_prompts, 1);
    ck_assert_int_eq(c.n_completions, 3);
    ck_assert_int_eq(c.n_uncovered, 1);
    ck_assert_int_eq(c.at_risk, 1);
    ck_assert_double_eq(c.uncovered_ref_mass, 0);
    CLOSE(c.uncovered_policy_mass, 0.25, 1e-15);
    CLOSE(c.worst_policy_mass, 0.25, 1e-15);
    ck_assert(isnan(c.uncovered_soft_optimal_mass));
    ck_assert_double_eq(c.max_ratio, INFINITY);
    ck_assert_double_eq(c.chi_square, INFINITY);
    ck_assert_int_eq(prefopt_dataset_size(uncovered), 1);
    prefopt_row row = {.struct_size = sizeof row};
    OK(prefopt_dataset_row(uncovered, 0, &row));
    ck_assert_int_eq(row.kind, PREFOPT_ROW_COMPLETIONS);
    ck_assert_int_eq(row.n_completions, 1);
    ck_assert_int_eq(row.prompt_len, 0);
    ck_assert_int_eq(row.completion_offsets[1], 1);
    ck_assert_int_eq(row.completions[0], 2);
    CLOSE(row.logp[0], log(0.25), 1e-15);
    ck_assert_double_eq(row.ref_logp[0], -INFINITY);
    ck_assert_ptr_null(row.score);
    prefopt_dataset_destroy(uncovered);
    lecture_destroy(&l);
}
END_TEST

START_TEST(no_risk_without_mass)
{
    const double policy[] = {0.75, 0.25, 0};
    lecture l = lecture_create(policy);
    prefopt_coverage c = {.struct_size = sizeof c};
    OK(prefopt_report_coverage(&c, NULL, l.pairs, l.policy, l.reference, NULL, 0));
    ck_assert_int_eq(c.at_risk, 0);
    ck_assert_int_eq(c.n_uncovered, 1);
    ck_assert_double_eq(c.uncovered_policy_mass, 0);
    ck_assert_double_eq(c.worst_policy_mass, 0);
    CLOSE(c.max_ratio, 1.5, 1e-15);
    CLOSE(c.chi_square, 0.75 * 0.75 / 0.5 + 0.25 * 0.25 / 0.5 - 1, 1e-15);
    lecture_destroy(&l);
}
END_TEST

/* Everything from the definitions, on two prompts with weights. */
START_TEST(sums_by_hand)
{
    prefopt_context *context = test_context(2);
    world w = world_create(context);
    prefopt_dataset *pairs = world_pairs(&w), *uncovered = NULL;
    world_pair(pairs, 0, 0, 8, 0, 1, 0); /* weight 0: as if it were not there */
    prefopt_coverage c = {.struct_size = sizeof c};
    const double beta = 0.5;
    OK(prefopt_report_coverage(&c, &uncovered, pairs, w.policy, w.reference, w.reward, beta));
    /* mu of each prompt: weights of the sides over their sum. */
    const double mu[2][9] = {{0, 0.5 / 4, 2.0 / 4, 0, 0, 0, 1.5 / 4, 0, 0},
                             {2.0 / 8, 0, 0, 0, 3.0 / 8, 0, 0, 0, 3.0 / 8}};
    const double share[2] = {2.0 / 6, 4.0 / 6};
    double ref = 0, pi = 0, best = 0, worst = 0;
    int risk = 0;
    for (int x = 0; x < 2; x++) {
        double z = 0;
        for (int y = 0; y < 9; y++)
            z += exp(w.ref_logp[9 * x + y] + w.score[9 * x + y] / beta);
        for (int y = 0; y < 9; y++) {
            int s = 9 * x + y;
            if (mu[x][y] > 0)
                continue;
            ref += share[x] * exp(w.ref_logp[s]);
            pi += share[x] * exp(w.logp[s]);
            best += share[x] * exp(w.ref_logp[s] + w.score[s] / beta) / z;
            worst = fmax(worst, exp(w.logp[s]));
            risk |= w.logp[s] > w.ref_logp[s];
        }
    }
    ck_assert_int_eq(c.n_prompts, 2);
    ck_assert_int_eq(c.n_completions, 18);
    ck_assert_int_eq(c.n_uncovered, 12);
    CLOSE(c.uncovered_ref_mass, ref, 1e-14);
    CLOSE(c.uncovered_policy_mass, pi, 1e-14);
    CLOSE(c.uncovered_soft_optimal_mass, best, 1e-14);
    CLOSE(c.worst_policy_mass, worst, 1e-14);
    ck_assert_int_eq(c.at_risk, risk);
    ck_assert_int_eq(prefopt_dataset_size(uncovered), 2);
    for (int x = 0; x < 2; x++) {
        prefopt_row row = {.struct_size = sizeof row};
        OK(prefopt_dataset_row(uncovered, 1 - x, &row)); /* the second prompt came first */
        ck_assert_int_eq(row.prompt_len, x + 1);
        ck_assert_int_eq(row.prompt[0], world_prompt[x][0]);
        ck_assert_int_eq(row.n_completions, 6);
        for (int k = 0; k < 6; k++) {
            const int32_t *y = row.completions + row.completion_offsets[k];
            int s = 9 * x + 3 * y[0] + y[1];
            ck_assert_double_eq(mu[x][3 * y[0] + y[1]], 0);
            ck_assert_double_eq(row.logp[k], w.logp[s]);
            ck_assert_double_eq(row.ref_logp[k], w.ref_logp[s]);
            ck_assert_double_eq(row.score[k], w.score[s]);
            ck_assert(k == 0 || row.logp[k] <= row.logp[k - 1]);
        }
    }
    prefopt_dataset_destroy(uncovered);
    prefopt_dataset_destroy(pairs);
    world_destroy(&w);
    prefopt_context_destroy(context);
}
END_TEST

/* A policy on the support: chi-square and the largest ratio from their formulas; a policy that is
 * the reference is at no risk, whatever it leaves uncovered. */
START_TEST(ratios)
{
    prefopt_context *context = test_context(1);
    world w = world_create(context);
    prefopt_dataset *pairs = world_pairs(&w);
    double logp[18], chi = 0, largest = 0;
    const double pi[2][9] = {{0, 0.25, 0.25, 0, 0, 0, 0.5, 0, 0}, {0.5, 0, 0, 0, 0.5, 0, 0, 0, 0}};
    const double mu[2][9] = {{0, 0.5 / 4, 2.0 / 4, 0, 0, 0, 1.5 / 4, 0, 0},
                             {2.0 / 8, 0, 0, 0, 3.0 / 8, 0, 0, 0, 3.0 / 8}};
    for (int s = 0; s < 18; s++) {
        double p = pi[s / 9][s % 9], m = mu[s / 9][s % 9];
        logp[s] = log(p);
        if (m > 0) {
            chi += (s < 9 ? 2.0 / 6 : 4.0 / 6) * p * p / m;
            largest = fmax(largest, p / m);
        }
    }
    world_set_policy(&w, logp);
    prefopt_coverage c = {.struct_size = sizeof c};
    OK(prefopt_report_coverage(&c, NULL, pairs, w.policy, w.reference, NULL, 0));
    CLOSE(c.chi_square, chi - 1, 1e-14);
    CLOSE(c.max_ratio, largest, 1e-14);
    ck_assert_int_eq(c.at_risk, 0);
    world_set_policy(&w, w.ref_logp);
    OK(prefopt_report_coverage(&c, NULL, pairs, w.policy, w.reference, NULL, 0));
    ck_assert_int_eq(c.at_risk, 0);
    CLOSE(c.uncovered_policy_mass, c.uncovered_ref_mass, 1e-14);
    prefopt_dataset_destroy(pairs);
    world_destroy(&w);
    prefopt_context_destroy(context);
}
END_TEST

/* Rankings and demonstrations cover what they hold; where all is covered no row is named. */
START_TEST(other_rows)
{
    const double policy[] = {0.25, 0.25, 0.5};
    lecture l = lecture_create(policy);
    prefopt_row row;
    OK(prefopt_row_init(&row, sizeof row));
    row.kind = PREFOPT_ROW_RANKING;
    row.n_completions = 3;
    row.completions = three_tokens;
    row.completion_offsets = three_offsets;
    row.weight = 2;
    OK(prefopt_dataset_append(l.pairs, &row));
    prefopt_coverage c = {.struct_size = sizeof c};
    prefopt_dataset *uncovered = NULL;
    OK(prefopt_report_coverage(&c, &uncovered, l.pairs, l.policy, l.reference, NULL, 0));
    ck_assert_int_eq(c.n_uncovered, 0);
    ck_assert_int_eq(c.at_risk, 0);
    ck_assert_int_eq(prefopt_dataset_size(uncovered), 0);
    CLOSE(c.max_ratio, 0.5 / (2.0 / 8), 1e-14);
    prefopt_dataset_destroy(uncovered);
    lecture_destroy(&l);
}
END_TEST

/* "Never" in the reward: out of the soft-optimal policy, and an unknown score in the dataset. */
static int32_t never_scores(void *payload, const prefopt_sequences *in, double *score)
{
    for (int64_t i = 0; i < in->n; i++)
        score[i] = in->tokens[in->offsets[i]] == 1 ? -INFINITY : 1;
    return 0;
}

START_TEST(reward_of_never)
{
    const double policy[] = {0.5, 0.25, 0.25};
    lecture l = lecture_create(policy);
    prefopt_reward *reward;
    prefopt_reward_callbacks callbacks = {.struct_size = sizeof callbacks, .scores = never_scores};
    OK(prefopt_reward_create_custom(&reward, l.context, &callbacks, NULL));
    prefopt_dataset *data, *uncovered = NULL;
    OK(prefopt_dataset_create(&data, l.context));
    prefopt_row row;
    OK(prefopt_row_init(&row, sizeof row));
    row.kind = PREFOPT_ROW_COMPLETIONS;
    row.n_completions = 1;
    row.completions = three_tokens + 2;
    row.completion_offsets = three_offsets;
    OK(prefopt_dataset_append(data, &row));
    prefopt_coverage c = {.struct_size = sizeof c};
    OK(prefopt_report_coverage(&c, &uncovered, data, l.policy, l.reference, reward, 1));
    CLOSE(c.uncovered_soft_optimal_mass, 1, 1e-15);
    CLOSE(c.uncovered_policy_mass, 0.75, 1e-15);
    OK(prefopt_dataset_row(uncovered, 0, &row));
    ck_assert_int_eq(row.completions[0], 0);
    ck_assert_int_eq(row.completions[1], 1);
    ck_assert_double_eq(row.score[0], 1);
    ck_assert(isnan(row.score[1]));
    prefopt_dataset_destroy(uncovered);
    prefopt_dataset_destroy(data);
    prefopt_reward_destroy(reward);
    lecture_destroy(&l);
}
END_TEST

START_TEST(refusals)
{
    const double policy[] = {0.5, 0.25, 0.25};
    lecture l = lecture_create(policy);
    prefopt_dataset *empty, *untouched = (prefopt_dataset *)1, *uncovered = untouched;
    OK(prefopt_dataset_create(&empty, l.context));
    prefopt_coverage c = {.struct_size = sizeof c, .n_prompts = 99}, small = {.struct_size = 8};
    FAILS(PREFOPT_ERR_ARGUMENT, "out is NULL",
          prefopt_report_coverage(NULL, NULL, l.pairs, l.policy, l.reference, NULL, 0));
    FAILS(PREFOPT_ERR_ARGUMENT, "data is NULL",
          prefopt_report_coverage(&c, NULL, NULL, l.policy, l.reference, NULL, 0));
    FAILS(PREFOPT_ERR_ARGUMENT, "policy is NULL",
          prefopt_report_coverage(&c, NULL, l.pairs, NULL, l.reference, NULL, 0));
    FAILS(PREFOPT_ERR_ARGUMENT, "reference is NULL",
          prefopt_report_coverage(&c, NULL, l.pairs, l.policy, NULL, NULL, 0));
    FAILS(PREFOPT_ERR_VERSION, "prefopt_coverage",
          prefopt_report_coverage(&small, NULL, l.pairs, l.policy, l.reference, NULL, 0));
    FAILS(PREFOPT_ERR_ARGUMENT, "beta is 1 but reward is NULL",
          prefopt_report_coverage(&c, NULL, l.pairs, l.policy, l.reference, NULL, 1));
    FAILS(PREFOPT_ERR_ARGUMENT, "sum to 0",
          prefopt_report_coverage(&c, &uncovered, empty, l.policy, l.reference, NULL, 0));
    prefopt_row row;
    OK(prefopt_row_init(&row, sizeof row));
    OK(prefopt_dataset_append(empty, &row));
    FAILS(PREFOPT_ERR_ARGUMENT, "row 0 is a PROMPT",
          prefopt_report_coverage(&c, &uncovered, empty, l.policy, l.reference, NULL, 0));
    /* A completion that the space does not have. */
    OK(prefopt_dataset_append_pair(l.pairs, NULL, 0, three_tokens, 2, three_tokens, 1, 1, 1, 0));
    FAILS(PREFOPT_ERR_ARGUMENT, "row 1: completion 0",
          prefopt_report_coverage(&c, &uncovered, l.pairs, l.policy, l.reference, NULL, 0));
    ck_assert_int_eq(c.n_prompts, 99);
    ck_assert_ptr_eq(uncovered, untouched);
    prefopt_dataset_destroy(empty);
    lecture_destroy(&l);
}
END_TEST

/* A space that is too large, and none at all. */
START_TEST(unsupported)
{
    const double policy[] = {0.5, 0.25, 0.25};
    lecture l = lecture_create(policy);
    prefopt_policy *custom;
    double logp[3] = {log(0.5), log(0.25), log(0.25)};
    prefopt_policy_callbacks callbacks = {.struct_size = sizeof callbacks,
                                          .logprobs = three_logprobs};
    prefopt_space large = {.struct_size = sizeof large, .eos = -1, .vocab = 1001, .horizon = 2};
    prefopt_coverage c = {.struct_size = sizeof c};
    OK(prefopt_policy_create_custom(&custom, l.context, NULL, &callbacks, logp));
    FAILS(PREFOPT_ERR_UNSUPPORTED, "space",
          prefopt_report_coverage(&c, NULL, l.pairs, custom, l.reference, NULL, 0));
    prefopt_policy_destroy(custom);
    OK(prefopt_policy_create_custom(&custom, l.context, &large, &callbacks, logp));
    FAILS(PREFOPT_ERR_UNSUPPORTED, "1002001",
          prefopt_report_coverage(&c, NULL, l.pairs, custom, l.reference, NULL, 0));
    prefopt_policy_destroy(custom);
    lecture_destroy(&l);
}
END_TEST

START_TEST(allocator_failures)
{
    counting_allocator a = {0};
    prefopt_context *context = counting_context(&a);
    world w = world_create(context);
    prefopt_dataset *pairs = world_pairs(&w), *uncovered;
    prefopt_coverage c = {.struct_size = sizeof c, .n_prompts = 99};
    int64_t live = a.live, failures = 0;
    for (;; failures++) {
        uncovered = NULL;
        a.calls = 0;
        a.fail_at = failures + 1;
        int32_t status =
            prefopt_report_coverage(&c, &uncovered, pairs, w.policy, w.reference, w.reward, 1);
        if (status == PREFOPT_OK)
            break;
        ck_assert_int_eq(status, PREFOPT_ERR_MEMORY);
        ck_assert_int_eq(a.live, live);
        ck_assert_int_eq(c.n_prompts, 99);
        ck_assert_ptr_null(uncovered);
    }
    ck_assert_int_gt(failures, 20);
    a.fail_at = 0;
    prefopt_dataset_destroy(uncovered);
    ck_assert_int_eq(a.live, live);
    prefopt_dataset_destroy(pairs);
    world_destroy(&w);
    prefopt_context_destroy(context);
}
END_TEST

TEST_MAIN("coverage", names_the_third_completion, no_risk_without_mass, sums_by_hand, ratios,
          other_rows, reward_of_never, refusals, unsupported, allocator_failures)
