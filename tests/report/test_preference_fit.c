/* How well a reward predicts pairs, against sums by hand. */
#include "report_test.h"

START_TEST(by_hand)
{
    prefopt_context *context = test_context(1);
    world w = world_create(context);
    prefopt_dataset *pairs = world_pairs(&w);
    world_pair(pairs, 0, 4, 5, 0, 1, 0); /* weight 0: as if it were not there */
    prefopt_columns c = {.struct_size = sizeof c};
    prefopt_sequences all = {.struct_size = sizeof all};
    OK(prefopt_dataset_columns(pairs, &c));
    OK(prefopt_dataset_sequences(pairs, &all));
    double score[12], each[5], weight = 0, mean = 0, right = 0, likelihood = 0, squares = 0;
    OK(prefopt_reward_scores(w.reward, &all, score));
    for (int i = 0; i < 5; i++) {
        double d = score[2 * i] - score[2 * i + 1], label = c.label[i];
        each[i] = label * log(prefopt_sigmoid(d - c.margin[i])) +
                  (1 - label) * log(prefopt_sigmoid(-d - c.margin[i]));
        weight += c.weight[i];
        mean += c.weight[i] * each[i];
        right += c.weight[i] * (d > 0 ? label : 1 - label);
        likelihood += c.weight[i] * (label * prefopt_sigmoid(d - c.margin[i]) +
                                     (1 - label) * prefopt_sigmoid(-d - c.margin[i]));
    }
    mean /= weight;
    for (int i = 0; i < 5; i++)
        squares += c.weight[i] * c.weight[i] * (each[i] - mean) * (each[i] - mean);
    prefopt_preference_fit f = {.struct_size = sizeof f};
    OK(prefopt_report_preference_fit(&f, w.reward, pairs));
    ck_assert_int_eq(f.n_pairs, 5);
    CLOSE(f.log_likelihood, mean, 1e-14);
    CLOSE(f.std_error, sqrt(squares * 5 / 4) / weight, 1e-14);
    CLOSE(f.accuracy, right / weight, 1e-14);
    CLOSE(f.likelihood, likelihood / weight, 1e-14);
    prefopt_dataset_destroy(pairs);
    world_destroy(&w);
    prefopt_context_destroy(context);
}
END_TEST

/* The standard error of equal weights is s / sqrt(m), and ties count half. */
START_TEST(ties_and_errors)
{
    prefopt_context *context = test_context(1);
    world w = world_create(context);
    prefopt_dataset *pairs;
    OK(prefopt_dataset_create(&pairs, context));
    prefopt_parameters p = {.struct_size = sizeof p};
    OK(prefopt_reward_parameters(w.reward, &p));
    for (int s = 0; s < 18; s++)
        ((double *)p.value)[s] = s < 2 ? 0 : 1;
    OK(prefopt_reward_updated(w.reward));
    world_pair(pairs, 0, 0, 1, 1, 1, 0); /* a tie */
    prefopt_preference_fit f = {.struct_size = sizeof f};
    OK(prefopt_report_preference_fit(&f, w.reward, pairs));
    CLOSE(f.log_likelihood, -log(2), 1e-15);
    ck_assert_double_eq(f.accuracy, 0.5);
    ck_assert_double_eq(f.likelihood, 0.5);
    ck_assert_double_eq(f.std_error, INFINITY);
    world_pair(pairs, 0, 3, 1, 1, 1, 0); /* right */
    world_pair(pairs, 0, 1, 4, 1, 1, 0); /* wrong */
    OK(prefopt_report_preference_fit(&f, w.reward, pairs));
    double l[3] = {-log(2), log(prefopt_sigmoid(1)), log(prefopt_sigmoid(-1))};
    double m = (l[0] + l[1] + l[2]) / 3, v = 0;
    for (int i = 0; i < 3; i++)
        v += (l[i] - m) * (l[i] - m) / 2;
    CLOSE(f.log_likelihood, m, 1e-15);
    CLOSE(f.std_error, sqrt(v / 3), 1e-15);
    ck_assert_double_eq(f.accuracy, 0.5);
    CLOSE(f.likelihood, 0.5, 1e-15);
    prefopt_dataset_destroy(pairs);
    world_destroy(&w);
    prefopt_context_destroy(context);
}
END_TEST

/* The implicit reward of a policy and its local one. */
START_TEST(rewards_of_a_policy)
{
    prefopt_context *context = test_context(1);
    world w = world_create(context);
    prefopt_dataset *pairs = world_pairs(&w);
    prefopt_reward *implicit, *local;
    OK(prefopt_reward_create_implicit(&implicit, w.policy, w.reference, 0.3));
    OK(prefopt_reward_create_local(&local, w.policy));
    const int chosen[] = {9, 13, 1, 17, 2}, rejected[] = {13, 17, 2, 9, 6};
    prefopt_columns c = {.struct_size = sizeof c};
    OK(prefopt_dataset_columns(pairs, &c));
    double of_implicit = 0, of_local = 0;
    for (int i = 0; i < 5; i++) {
        int a = chosen[i], b = rejected[i];
        double di = 0.3 * (w.logp[a] - w.ref_logp[a] - w.logp[b] + w.ref_logp[b]);
        double dl = w.logp[a] - w.logp[b];
        for (int flip = 0; flip < 2; flip++) {
            double share = c.weight[i] / 6 * (flip ? 1 - c.label[i] : c.label[i]);
            int sign = flip ? -1 : 1;
            of_implicit += share * prefopt_sigmoid(sign * di - c.margin[i]);
            of_local += share * prefopt_sigmoid(sign * dl - c.margin[i]);
        }
    }
    prefopt_preference_fit f = {.struct_size = sizeof f};
    OK(prefopt_report_preference_fit(&f, implicit, pairs));
    CLOSE(f.likelihood, of_implicit, 1e-14);
    OK(prefopt_report_preference_fit(&f, local, pairs));
    CLOSE(f.likelihood, of_local, 1e-14);
    prefopt_reward_destroy(implicit);
    prefopt_reward_destroy(local);
    prefopt_dataset_destroy(pairs);
    world_destroy(&w);
    prefopt_context_destroy(context);
}
END_TEST

static int32_t never(void *payload, const prefopt_sequences *in, double *score)
{
    for (int64_t i = 0; i < in->n; i++)
        score[i] = i == *(int *)payload || *(int *)payload < 0 ? -INFINITY : 0;
    return 0;
}

START_TEST(infinities_and_refusals)
{
    prefopt_context *context = test_context(1);
    world w = world_create(context);
    prefopt_dataset *pairs, *empty;
    OK(prefopt_dataset_create(&pairs, context));
    OK(prefopt_dataset_create(&empty, context));
    world_pair(pairs, 0, 0, 1, 1, 1, 0);
    world_pair(pairs, 0, 0, 2, 1, 1, 0);
    int which = 0;
    prefopt_reward *reward;
    prefopt_reward_callbacks callbacks = {.struct_size = sizeof callbacks, .scores = never};
    OK(prefopt_reward_create_custom(&reward, context, &callbacks, &which));
    prefopt_preference_fit f = {.struct_size = sizeof f}, small = {.struct_size = 4};
    OK(prefopt_report_preference_fit(&f, reward, pairs));
    ck_assert_double_eq(f.log_likelihood, -INFINITY);
    ck_assert_double_eq(f.std_error, INFINITY);
    ck_assert_double_eq(f.likelihood, 0.25);
    ck_assert_double_eq(f.accuracy, 0.25);
    which = 1;
    OK(prefopt_report_preference_fit(&f, reward, pairs));
    CLOSE(f.log_likelihood, -0.5 * log(2), 1e-15);
    ck_assert_double_eq(f.likelihood, 0.75);
    which = -1;
    f.accuracy = 99;
    FAILS(PREFOPT_ERR_NUMERIC, "", prefopt_report_preference_fit(&f, reward, pairs));
    FAILS(PREFOPT_ERR_ARGUMENT, "out is NULL", prefopt_report_preference_fit(NULL, reward, pairs));
    FAILS(PREFOPT_ERR_ARGUMENT, "reward is NULL", prefopt_report_preference_fit(&f, NULL, pairs));
    FAILS(PREFOPT_ERR_ARGUMENT, "pairs is NULL", prefopt_report_preference_fit(&f, reward, NULL));
    FAILS(PREFOPT_ERR_VERSION, "prefopt_preference_fit",
          prefopt_report_preference_fit(&small, reward, pairs));
    FAILS(PREFOPT_ERR_ARGUMENT, "0 rows", prefopt_report_preference_fit(&f, reward, empty));
    FAILS(PREFOPT_ERR_ARGUMENT, "row 0 is of kind 0",
          prefopt_report_preference_fit(&f, reward, w.prompts));
    ck_assert_double_eq(f.accuracy, 99);
    prefopt_reward_destroy(reward);
    prefopt_dataset_destroy(empty);
    prefopt_dataset_destroy(pairs);
    world_destroy(&w);
    prefopt_context_destroy(context);
}
END_TEST

START_TEST(allocator_failures)
{
    counting_allocator a = {0};
    prefopt_context *context = counting_context(&a);
    world w = world_create(context);
    prefopt_dataset *pairs = world_pairs(&w);
    prefopt_preference_fit f = {.struct_size = sizeof f, .accuracy = 99};
    int64_t failures;
    FAIL_AT_EACH(&a, failures, prefopt_report_preference_fit(&f, w.reward, pairs),
                 f.accuracy == 99);
    ck_assert_int_ge(failures, 1);
    prefopt_dataset_destroy(pairs);
    world_destroy(&w);
    prefopt_context_destroy(context);
}
END_TEST

TEST_MAIN("preference_fit", by_hand, ties_and_errors, rewards_of_a_policy, infinities_and_refusals,
          allocator_failures)
