/* Exact fits: they reach 1e-10, and where they end is the optimum by closed forms or by other
 * code. */
#include "train_test.h"

static void fit(prefopt_trainer *trainer)
{
    prefopt_progress result = {.struct_size = sizeof result};
    OK(prefopt_trainer_fit(trainer, &result));
    ck_assert_double_le(result.grad_norm, 1e-10);
}

/* Central differences of prefopt_trainer_loss against the gradient that a step of SGD takes. */
static void check_gradient(prefopt_trainer *trainer, prefopt_parameters p,
                           int32_t (*updated)(void *), void *model)
{
    double *value = p.value, *grad = calloc((size_t)p.n, sizeof *grad);
    double *start = calloc((size_t)p.n, sizeof *start);
    memcpy(start, value, (size_t)p.n * sizeof *start);
    OK(prefopt_trainer_run(trainer, 1, NULL)); /* SGD at rate 1: value -= gradient */
    for (int64_t k = 0; k < p.n; k++)
        grad[k] = start[k] - value[k];
    memcpy(value, start, (size_t)p.n * sizeof *start);
    for (int64_t k = 0; k < p.n; k++) {
        double h = 1e-5, plus, minus;
        value[k] = start[k] + h;
        OK(updated(model));
        OK(prefopt_trainer_loss(trainer, &plus));
        value[k] = start[k] - h;
        OK(updated(model));
        OK(prefopt_trainer_loss(trainer, &minus));
        value[k] = start[k];
        OK(updated(model));
        CLOSE(grad[k], (plus - minus) / (2 * h), 1e-9);
    }
    free(grad);
    free(start);
}

static int32_t policy_updated(void *policy) { return prefopt_policy_updated(policy); }
static int32_t reward_updated(void *reward) { return prefopt_reward_updated(reward); }

static prefopt_train_options steepest(double ridge, double score_ridge)
{
    prefopt_train_options o = train_defaults();
    o.optimiser = PREFOPT_SGD;
    o.learning_rate = 1;
    o.ridge = ridge;
    o.score_ridge = score_ridge;
    return o;
}

static prefopt_reference *random_reference(const world *w)
{
    prefopt_reference *reference;
    prefopt_policy *policy = tabular_policy(w);
    randomise(policy, 17, 1);
    OK(prefopt_reference_freeze(&reference, policy));
    prefopt_policy_destroy(policy);
    return reference;
}

START_TEST(gradients_are_those_of_the_loss)
{
    prefopt_context *context = test_context(1);
    world w = world_new(context, 2, 3, 2, 1);
    prefopt_dataset *pairs = random_pairs(&w, 1, 10);
    prefopt_reference *reference = random_reference(&w);
    prefopt_reward *reward = tabular_reward(&w, w.all);
    prefopt_train_options o = steepest(0.3, 0.2), no_prior = steepest(0.3, 0);
    prefopt_trainer *trainer;
    prefopt_parameters p = {.struct_size = sizeof p};
    OK(prefopt_reward_parameters(reward, &p));
    OK(prefopt_random_normal(4, 0, 0, p.n, p.value));
    OK(prefopt_reward_updated(reward));
    randomise(w.policy, 2, 1);

    OK(prefopt_trainer_create_reward(&trainer, reward, pairs, NULL, &o));
    check_gradient(trainer, p, reward_updated, reward);
    prefopt_trainer_destroy(trainer);
    OK(prefopt_trainer_create_mle(&trainer, w.policy, w.all, &no_prior));
    check_gradient(trainer, parameters_of(w.policy), policy_updated, w.policy);
    prefopt_trainer_destroy(trainer);
    OK(prefopt_trainer_create_soft_rl(&trainer, w.policy, reference, reward, w.prompts, 0.7,
                                      &no_prior));
    check_gradient(trainer, parameters_of(w.policy), policy_updated, w.policy);
    prefopt_trainer_destroy(trainer);
    static const int32_t variants[] = {PREFOPT_DPO_SIGMOID, PREFOPT_DPO_IPO, PREFOPT_DPO_SPPO,
                                       PREFOPT_DPO_APO_DOWN, PREFOPT_DPO_DPOP};
    for (size_t v = 0; v < sizeof variants / sizeof *variants; v++) {
        prefopt_dpo_options dpo;
        OK(prefopt_dpo_options_init(&dpo, sizeof dpo));
        dpo.variant = variants[v];
        OK(prefopt_trainer_create_dpo(&trainer, w.policy, reference, pairs, &dpo, &o));
        check_gradient(trainer, parameters_of(w.policy), policy_updated, w.policy);
        prefopt_trainer_destroy(trainer);
    }
    prefopt_dpo_options simpo;
    OK(prefopt_dpo_options_init(&simpo, sizeof simpo));
    simpo.variant = PREFOPT_DPO_SIMPO;
    OK(prefopt_trainer_create_dpo(&trainer, w.policy, NULL, pairs, &simpo, &o));
    check_gradient(trainer, parameters_of(w.policy), policy_updated, w.policy);
    prefopt_trainer_destroy(trainer);

    prefopt_reward_destroy(reward);
    prefopt_reference_destroy(reference);
    prefopt_dataset_destroy(pairs);
    world_free(&w);
    prefopt_context_destroy(context);
}
END_TEST

/* The maximum-likelihood policy of a full class is the weighted distribution of the data. */
START_TEST(mle_is_the_empirical_distribution)
{
    prefopt_context *context = test_context(1);
    world w = world_new(context, 2, 3, 2, -1);
    prefopt_dataset *data;
    OK(prefopt_dataset_create(&data, context));
    double *share = calloc((size_t)w.n, sizeof *share);
    for (int64_t x = 0; x < 2; x++) {
        double total = 0;
        for (int64_t j = 0; j < 9; j++) {
            prefopt_row all = {.struct_size = sizeof all}, row;
            OK(prefopt_dataset_row(w.all, x, &all));
            OK(prefopt_row_init(&row, sizeof row));
            int64_t offsets[2] = {0, 2};
            row.kind = PREFOPT_ROW_COMPLETIONS;
            row.n_completions = 1;
            row.prompt = all.prompt;
            row.prompt_len = 1;
            row.completions = all.completions + 2 * j;
            row.completion_offsets = offsets;
            row.weight = 0.2 + uniform(9, (uint64_t)(x * 9 + j));
            if (x == 1 && j == 4) /* never seen: exactly 0 */
                continue;
            OK(prefopt_dataset_append(data, &row));
            share[x * 9 + j] = row.weight;
            total += row.weight;
        }
        for (int64_t j = 0; j < 9; j++)
            share[x * 9 + j] /= total;
    }
    prefopt_trainer *trainer;
    OK(prefopt_trainer_create_mle(&trainer, w.policy, data, NULL));
    fit(trainer);
    double *logp = all_logps(&w, w.policy);
    for (int64_t i = 0; i < w.n; i++)
        CLOSE(exp(logp[i]), share[i], 1e-15);
    free(logp);
    free(share);
    prefopt_trainer_destroy(trainer);
    prefopt_dataset_destroy(data);
    world_free(&w);
    prefopt_context_destroy(context);
}
END_TEST

/* IPO_SUM on a tabular policy of horizon 1: log-ratio differences h meet the normal equations. */
START_TEST(ipo_meets_its_regression)
{
    prefopt_context *context = test_context(1);
    world w = world_new(context, 1, 3, 1, -1);
    prefopt_dataset *pairs;
    OK(prefopt_dataset_create(&pairs, context));
    add_pair(&w, pairs, 0, 0, 1, 2, 1, 0);
    add_pair(&w, pairs, 0, 1, 2, 1, 1, 0);
    prefopt_reference *reference = random_reference(&w);
    prefopt_dpo_options dpo;
    OK(prefopt_dpo_options_init(&dpo, sizeof dpo));
    dpo.variant = PREFOPT_DPO_IPO_SUM;
    dpo.beta = 0.4;
    prefopt_trainer *trainer;
    OK(prefopt_trainer_create_dpo(&trainer, w.policy, reference, pairs, &dpo, NULL));
    fit(trainer); /* one-sided, yet finite: each difference is 1/(2 beta) */
    double *logp = all_logps(&w, w.policy), *ref = all_refs(&w, reference);
    CLOSE(logp[0] - ref[0] - (logp[1] - ref[1]), 1.25, 1e-9);
    CLOSE(logp[1] - ref[1] - (logp[2] - ref[2]), 1.25, 1e-9);
    free(logp);
    free(ref);
    prefopt_trainer_destroy(trainer);
    prefopt_reference_destroy(reference);
    prefopt_dataset_destroy(pairs);
    world_free(&w);
    prefopt_context_destroy(context);
}
END_TEST

/* Ties of 1/4, wins of 1/2 and losses of 1/4 between two: the model's probabilities are exactly
 * those (both tie models have two parameters for two free shares). */
START_TEST(tie_parameters_are_fitted)
{
    prefopt_context *context = test_context(1);
    world w = world_new(context, 1, 2, 1, -1);
    prefopt_dataset *pairs;
    OK(prefopt_dataset_create(&pairs, context));
    add_pair(&w, pairs, 0, 0, 1, 4, 1, 0);
    add_pair(&w, pairs, 0, 0, 1, 2, 0.5, 0);
    add_pair(&w, pairs, 0, 0, 1, 2, 0, 0);
    for (int32_t model = PREFOPT_TIE_DAVIDSON; model <= PREFOPT_TIE_RAO_KUPPER; model++) {
        prefopt_reward *reward = tabular_reward(&w, pairs);
        prefopt_bt_options bt;
        OK(prefopt_bt_options_init(&bt, sizeof bt));
        bt.tie_model = model;
        prefopt_trainer *trainer;
        double log_tie;
        OK(prefopt_trainer_create_reward(&trainer, reward, pairs, &bt, NULL));
        fit(trainer);
        OK(prefopt_trainer_log_tie(trainer, &log_tie));
        double *score = all_scores(&w, reward), d = score[0] - score[1];
        if (model == PREFOPT_TIE_DAVIDSON) {
            CLOSE(d, log(2), 1e-9);
            CLOSE(log_tie, log(0.25 / sqrt(0.5 * 0.25)), 1e-9);
        } else {
            CLOSE(1 / (1 + exp(log_tie - d)), 0.5, 1e-9);
            CLOSE(1 / (1 + exp(log_tie + d)), 0.25, 1e-9);
        }
        double loss;
        OK(prefopt_trainer_loss(trainer, &loss));
        CLOSE(loss, -(0.5 * log(0.5) + 0.5 * log(0.25)), 1e-12);
        free(score);
        prefopt_trainer_destroy(trainer);
        prefopt_reward_destroy(reward);
    }
    prefopt_dataset_destroy(pairs);
    world_free(&w);
    prefopt_context_destroy(context);
}
END_TEST

/* Linear scores: at the optimum the features' residuals vanish. */
START_TEST(linear_rewards_reach_the_optimum)
{
    enum { K = 3 };
    prefopt_context *context = test_context(1);
    world w = world_new(context, 3, 3, 2, -1);
    prefopt_dataset *pairs = random_pairs(&w, 21, 30);
    double *features = calloc((size_t)w.n * K, sizeof *features);
    OK(prefopt_random_normal(8, 0, 0, w.n * K, features));
    prefopt_sequences in = sequences_of(w.all), rows = sequences_of(pairs);
    prefopt_reward *reward, *table;
    OK(prefopt_reward_create_linear(&reward, context, &in, K, features));
    prefopt_trainer *trainer;
    OK(prefopt_trainer_create_reward(&trainer, reward, pairs, NULL, NULL));
    fit(trainer);
    prefopt_columns columns = columns_of(pairs);
    double *score = calloc((size_t)rows.n, sizeof *score), residual[K] = {0};
    OK(prefopt_reward_scores(reward, &rows, score));
    OK(prefopt_reward_create_tabular(&table, context, &in));
    for (int64_t i = 0; i < columns.n_rows; i++) {
        double p = prefopt_sigmoid(score[2 * i] - score[2 * i + 1]);
        for (int64_t side = 0; side < 2; side++)
            for (int64_t j = 0; j < w.n; j++) {
                int64_t s = 2 * i + side;
                if (memcmp(rows.tokens + rows.offsets[s], in.tokens + in.offsets[j],
                           3 * sizeof *in.tokens) != 0)
                    continue;
                for (int64_t k = 0; k < K; k++)
                    residual[k] += (side == 0 ? 1 : -1) * columns.weight[i] *
                                   (columns.label[i] - p) * features[j * K + k];
            }
    }
    for (int64_t k = 0; k < K; k++)
        ck_assert_double_lt(fabs(residual[k]), 1e-7);
    free(score);
    free(features);
    prefopt_trainer_destroy(trainer);
    prefopt_reward_destroy(reward);
    prefopt_reward_destroy(table);
    prefopt_dataset_destroy(pairs);
    world_free(&w);
    prefopt_context_destroy(context);
}
END_TEST

/* Where the reference has no mass the KL is infinite: said by steps and by the loss, while a fit
 * gives a tabular policy exactly 0 there. Then steps and fits leave it there. */
START_TEST(no_mass_where_the_reference_has_none)
{
    prefopt_context *context = test_context(1);
    world w = world_new(context, 1, 3, 1, -1);
    prefopt_sequences in = sequences_of(w.all);
    const double ref[] = {log(0.5), log(0.5), -INFINITY};
    prefopt_reference *reference;
    prefopt_reward *reward = tabular_reward(&w, w.all);
    prefopt_parameters p = {.struct_size = sizeof p};
    OK(prefopt_reference_create_fixed(&reference, context, &in, ref));
    OK(prefopt_reward_parameters(reward, &p));
    memcpy(p.value, (double[]){1, 0, 10}, 3 * sizeof(double));
    OK(prefopt_reward_updated(reward));
    prefopt_trainer *trainer;
    prefopt_train_options o = steepest(0, 0);
    double loss = 42;
    OK(prefopt_trainer_create_soft_rl(&trainer, w.policy, reference, reward, w.prompts, 1, &o));
    FAILS(PREFOPT_ERR_NUMERIC, "completion [2]", prefopt_trainer_run(trainer, 1, NULL));
    FAILS(PREFOPT_ERR_NUMERIC, "completion [2]", prefopt_trainer_loss(trainer, &loss));
    fit(trainer);
    double *logp = all_logps(&w, w.policy);
    CLOSE(exp(logp[0]), exp(1) / (1 + exp(1)), 1e-15);
    ck_assert(logp[2] == -INFINITY);
    free(logp);
    OK(prefopt_trainer_run(trainer, 5, NULL));
    prefopt_trainer_destroy(trainer);
    prefopt_dataset *pairs;
    OK(prefopt_dataset_create(&pairs, context));
    add_pair(&w, pairs, 0, 0, 1, 1, 0.6, 0);
    OK(prefopt_trainer_create_dpo(&trainer, w.policy, reference, pairs, NULL, NULL));
    fit(trainer); /* numerically, among the parameters that are finite */
    logp = all_logps(&w, w.policy);
    CLOSE(0.1 * (logp[0] - logp[1]), log(0.6 / 0.4), 1e-10);
    ck_assert(logp[2] == -INFINITY);
    free(logp);
    prefopt_trainer_destroy(trainer);
    prefopt_dataset_destroy(pairs);
    prefopt_reward_destroy(reward);
    prefopt_reference_destroy(reference);
    world_free(&w);
    prefopt_context_destroy(context);
}
END_TEST

/* Log-linear: at the likelihood's optimum the features' means are the data's; for soft RL with the
 * reward as the one feature on top of the reference, theta is 1 / beta. */
START_TEST(loglinear_policies_are_fitted)
{
    enum { N = 9, K = 3 };
    prefopt_context *context = test_context(1);
    world w = world_new(context, 1, 3, 2, -1);
    prefopt_sequences in = sequences_of(w.all);
    double features[N * K], ref[N], mean[K] = {0};
    OK(prefopt_random_normal(3, 0, 0, N * K, features));
    prefopt_policy *policy, *tilted;
    prefopt_trainer *trainer;
    OK(prefopt_policy_create_loglinear(&policy, context, &w.space, &in, K, features, NULL));
    OK(prefopt_trainer_create_mle(&trainer, policy, w.all, NULL));
    fit(trainer);
    double *logp = all_logps(&w, policy);
    for (int64_t i = 0; i < N; i++)
        for (int64_t k = 0; k < K; k++)
            mean[k] += (exp(logp[i]) - 1.0 / N) * features[i * K + k];
    for (int64_t k = 0; k < K; k++)
        ck_assert_double_lt(fabs(mean[k]), 1e-10);
    free(logp);
    prefopt_trainer_destroy(trainer);

    prefopt_reference *reference = random_reference(&w);
    prefopt_reward *reward = tabular_reward(&w, w.all);
    prefopt_parameters p = {.struct_size = sizeof p};
    OK(prefopt_reward_parameters(reward, &p));
    memcpy(p.value, features, N * sizeof(double));
    OK(prefopt_reward_updated(reward));
    OK(prefopt_reference_logprobs(reference, &in, ref));
    OK(prefopt_policy_create_loglinear(&tilted, context, &w.space, &in, 1, features, ref));
    OK(prefopt_trainer_create_soft_rl(&trainer, tilted, reference, reward, w.prompts, 0.4, NULL));
    fit(trainer);
    CLOSE(*(double *)parameters_of(tilted).value, 2.5, 1e-8);
    prefopt_trainer_destroy(trainer);
    prefopt_policy_destroy(policy);
    prefopt_policy_destroy(tilted);
    prefopt_reward_destroy(reward);
    prefopt_reference_destroy(reference);
    world_free(&w);
    prefopt_context_destroy(context);
}
END_TEST

START_TEST(a_tolerance_out_of_reach_is_said)
{
    prefopt_context *context = test_context(1);
    world w = world_new(context, 1, 3, 1, -1);
    prefopt_dataset *pairs = random_pairs(&w, 2, 5);
    prefopt_reward *reward = tabular_reward(&w, pairs);
    prefopt_train_options o = train_defaults();
    prefopt_trainer *trainer;
    prefopt_progress result = {.struct_size = sizeof result, .loss = 42};
    o.tolerance = 1e-300;
    OK(prefopt_trainer_create_reward(&trainer, reward, pairs, NULL, &o));
    FAILS(PREFOPT_ERR_NUMERIC, "expected at most tolerance 1e-300",
          prefopt_trainer_fit(trainer, &result));
    ck_assert_double_eq(result.loss, 42);
    prefopt_trainer_destroy(trainer);
    o.tolerance = 1e-10;
    OK(prefopt_trainer_create_reward(&trainer, reward, pairs, NULL, &o));
    fit(trainer); /* from the best that the other found */
    prefopt_trainer_destroy(trainer);
    o.max_iterations = 1;
    prefopt_reward *fresh = tabular_reward(&w, pairs);
    OK(prefopt_trainer_create_reward(&trainer, fresh, pairs, NULL, &o));
    FAILS(PREFOPT_ERR_NUMERIC, "max_iterations 1", prefopt_trainer_fit(trainer, NULL));
    prefopt_trainer_destroy(trainer);
    prefopt_reward_destroy(fresh);
    prefopt_reward_destroy(reward);
    prefopt_dataset_destroy(pairs);
    world_free(&w);
    prefopt_context_destroy(context);
}
END_TEST

TEST_MAIN("fit", gradients_are_those_of_the_loss, mle_is_the_empirical_distribution,
          ipo_meets_its_regression, tie_parameters_are_fitted, linear_rewards_reach_the_optimum,
          no_mass_where_the_reference_has_none, loglinear_policies_are_fitted,
          a_tolerance_out_of_reach_is_said)
