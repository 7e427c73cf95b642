/* J, its maximum and the regret, against sums by hand and at the infinities. */
#include "report_test.h"

START_TEST(sums_by_hand)
{
    prefopt_context *context = test_context(1);
    world w = world_create(context);
    prefopt_dataset *pairs = world_pairs(&w); /* its prompts weigh 2 and 4 */
    for (double beta = 0.05; beta < 20; beta *= 3) {
        double reward = 0, kl = 0, optimum = 0;
        const double share[2] = {2.0 / 6, 4.0 / 6};
        for (int x = 0; x < 2; x++) {
            double z = 0;
            for (int s = 9 * x; s < 9 * x + 9; s++) {
                reward += share[x] * exp(w.logp[s]) * w.score[s];
                kl += share[x] * exp(w.logp[s]) * (w.logp[s] - w.ref_logp[s]);
                z += exp(w.ref_logp[s] + w.score[s] / beta);
            }
            optimum += share[x] * beta * log(z);
        }
        prefopt_objective o = {.struct_size = sizeof o};
        OK(prefopt_report_objective(&o, w.policy, w.reference, w.reward, pairs, beta));
        CLOSE(o.reward, reward, 1e-13);
        CLOSE(o.kl, kl, 1e-13);
        CLOSE(o.j, reward - beta * kl, 1e-13);
        CLOSE(o.optimum, optimum, 1e-13);
        CLOSE(o.regret, optimum - o.j, 1e-12);
        ck_assert_double_gt(o.regret, 0);
    }
    prefopt_dataset_destroy(pairs);
    world_destroy(&w);
    prefopt_context_destroy(context);
}
END_TEST

/* Near the optimum the regret keeps its digits, where optimum - j has none: a step of e along a
 * direction of the logits costs beta e^2 / 2 times its variance. */
START_TEST(regret_near_zero)
{
    prefopt_context *context = test_context(1);
    world w = world_create(context);
    const double beta = 0.5, e = 1e-7;
    double best[18], logp[18], variance = 0;
    for (int x = 0; x < 2; x++) {
        OK(prefopt_soft_optimal(9, w.ref_logp + 9 * x, w.score + 9 * x, beta, best + 9 * x, NULL));
        double z = 0, mean = 0, square = 0;
        for (int s = 9 * x; s < 9 * x + 9; s++) {
            z += exp(best[s] + e * (s % 4));
            mean += exp(best[s]) * (s % 4);
            square += exp(best[s]) * (s % 4) * (s % 4);
        }
        for (int s = 9 * x; s < 9 * x + 9; s++)
            logp[s] = best[s] + e * (s % 4) - log(z);
        variance += 0.5 * (square - mean * mean);
    }
    prefopt_objective o = {.struct_size = sizeof o};
    world_set_policy(&w, best);
    OK(prefopt_report_objective(&o, w.policy, w.reference, w.reward, w.prompts, beta));
    ck_assert_double_ge(o.regret, 0);
    ck_assert_double_lt(o.regret, 1e-25);
    CLOSE(o.j, o.optimum, 1e-13);
    world_set_policy(&w, logp);
    OK(prefopt_report_objective(&o, w.policy, w.reference, w.reward, w.prompts, beta));
    CLOSE(o.regret / (beta * e * e / 2 * variance), 1, 1e-5);
    world_destroy(&w);
    prefopt_context_destroy(context);
}
END_TEST

/* pi_ref = (1/2, 1/2, 0): mass on the third makes J -inf, none leaves it finite. */
START_TEST(reference_of_never)
{
    prefopt_context *context = test_context(1);
    const int32_t tokens[] = {0, 1, 2};
    const int64_t offsets[] = {0, 1, 2, 3}, prompt_len[] = {0, 0, 0};
    prefopt_sequences all = {.struct_size = sizeof all,
                             .n = 3,
                             .tokens = tokens,
                             .offsets = offsets,
                             .prompt_len = prompt_len};
    prefopt_space space = {.struct_size = sizeof space, .eos = -1, .vocab = 3, .horizon = 1};
    const double ref[] = {log(0.5), log(0.5), -INFINITY};
    const double spread[] = {log(0.5), log(0.25), log(0.25)}, kept[] = {0, -INFINITY, -INFINITY};
    prefopt_dataset *prompts;
    prefopt_policy *policy;
    prefopt_reference *reference;
    prefopt_reward *reward;
    prefopt_row row;
    OK(prefopt_dataset_create(&prompts, context));
    OK(prefopt_row_init(&row, sizeof row));
    OK(prefopt_dataset_append(prompts, &row));
    OK(prefopt_policy_create_tabular(&policy, context, &space, NULL));
    OK(prefopt_reference_create_fixed(&reference, context, &all, ref));
    OK(prefopt_reward_create_tabular(&reward, context, &all));
    prefopt_parameters p = {.struct_size = sizeof p};
    OK(prefopt_reward_parameters(reward, &p));
    memcpy(p.value, (const double[]){1, 0, 10}, 3 * sizeof(double));
    OK(prefopt_reward_updated(reward));
    prefopt_objective o = {.struct_size = sizeof o};
    OK(prefopt_policy_set_logprobs(policy, &all, spread));
    OK(prefopt_report_objective(&o, policy, reference, reward, prompts, 1));
    CLOSE(o.reward, 3, 1e-15);
    ck_assert_double_eq(o.kl, INFINITY);
    ck_assert_double_eq(o.j, -INFINITY);
    ck_assert_double_eq(o.regret, INFINITY);
    CLOSE(o.optimum, log(0.5 * exp(1) + 0.5), 1e-15);
    OK(prefopt_policy_set_logprobs(policy, &all, kept));
    OK(prefopt_report_objective(&o, policy, reference, reward, prompts, 1));
    ck_assert_double_eq(o.reward, 1);
    CLOSE(o.kl, log(2), 1e-15);
    CLOSE(o.j, 1 - log(2), 1e-15);
    CLOSE(o.regret, o.optimum - o.j, 1e-15);
    /* A beta so small that r / beta overflows: the optimum is the best reward that is allowed. */
    OK(prefopt_report_objective(&o, policy, reference, reward, prompts, 1e-308));
    ck_assert_double_eq(o.optimum, 1);
    prefopt_reward_destroy(reward);
    prefopt_reference_destroy(reference);
    prefopt_policy_destroy(policy);
    prefopt_dataset_destroy(prompts);
    prefopt_context_destroy(context);
}
END_TEST

/* A reward that says "never" everywhere a reference goes: no soft-optimal policy. */
static int32_t never(void *payload, const prefopt_sequences *in, double *score)
{
    for (int64_t i = 0; i < in->n; i++)
        score[i] = payload != NULL && in->tokens[in->offsets[i]] == 7 ? 0 : -INFINITY;
    return 0;
}

START_TEST(reward_of_never)
{
    prefopt_context *context = test_context(1);
    world w = world_create(context);
    prefopt_reward *reward;
    prefopt_reward_callbacks callbacks = {.struct_size = sizeof callbacks, .scores = never};
    OK(prefopt_reward_create_custom(&reward, context, &callbacks, &w));
    prefopt_objective o = {.struct_size = sizeof o, .j = 99};
    FAILS(PREFOPT_ERR_NUMERIC, "prompt 1",
          prefopt_report_objective(&o, w.policy, w.reference, reward, w.prompts, 1));
    ck_assert_double_eq(o.j, 99);
    prefopt_reward_destroy(reward);
    world_destroy(&w);
    prefopt_context_destroy(context);
}
END_TEST

START_TEST(refusals)
{
    prefopt_context *context = test_context(1);
    world w = world_create(context);
    prefopt_objective o = {.struct_size = sizeof o, .j = 99}, small = {.struct_size = 4};
    prefopt_dataset *empty;
    OK(prefopt_dataset_create(&empty, context));
#define REPORT(out, policy, reference, reward, prompts, beta)                                      \
    prefopt_report_objective(out, policy, reference, reward, prompts, beta)
    FAILS(PREFOPT_ERR_ARGUMENT, "out is NULL",
          REPORT(NULL, w.policy, w.reference, w.reward, w.prompts, 1));
    FAILS(PREFOPT_ERR_ARGUMENT, "policy is NULL",
          REPORT(&o, NULL, w.reference, w.reward, w.prompts, 1));
    FAILS(PREFOPT_ERR_ARGUMENT, "reference is NULL",
          REPORT(&o, w.policy, NULL, w.reward, w.prompts, 1));
    FAILS(PREFOPT_ERR_ARGUMENT, "reward is NULL",
          REPORT(&o, w.policy, w.reference, NULL, w.prompts, 1));
    FAILS(PREFOPT_ERR_ARGUMENT, "prompts is NULL",
          REPORT(&o, w.policy, w.reference, w.reward, NULL, 1));
    FAILS(PREFOPT_ERR_VERSION, "prefopt_objective",
          REPORT(&small, w.policy, w.reference, w.reward, w.prompts, 1));
    FAILS(PREFOPT_ERR_ARGUMENT, "beta is 0",
          REPORT(&o, w.policy, w.reference, w.reward, w.prompts, 0));
    FAILS(PREFOPT_ERR_ARGUMENT, "beta is inf",
          REPORT(&o, w.policy, w.reference, w.reward, w.prompts, INFINITY));
    FAILS(PREFOPT_ERR_NUMERIC, "beta is NaN",
          REPORT(&o, w.policy, w.reference, w.reward, w.prompts, NAN));
    FAILS(PREFOPT_ERR_ARGUMENT, "0 rows", REPORT(&o, w.policy, w.reference, w.reward, empty, 1));
    /* A reference over another space does not sum to 1 over this one. */
    prefopt_reference *other;
    double wrong[18];
    for (int s = 0; s < 18; s++)
        wrong[s] = s < 9 ? w.ref_logp[s] : w.ref_logp[s] - 1;
    OK(prefopt_reference_create_fixed(&other, context, &w.view, wrong));
    FAILS(PREFOPT_ERR_NUMERIC, "prompt 1 sum to 0.36",
          REPORT(&o, w.policy, other, w.reward, w.prompts, 1));
    ck_assert_double_eq(o.j, 99);
    prefopt_reference_destroy(other);
    prefopt_dataset_destroy(empty);
    world_destroy(&w);
    prefopt_context_destroy(context);
}
END_TEST

START_TEST(allocator_failures)
{
    counting_allocator a = {0};
    prefopt_context *context = counting_context(&a);
    world w = world_create(context);
    prefopt_objective o = {.struct_size = sizeof o, .j = 99};
    int64_t failures;
    FAIL_AT_EACH(&a, failures,
                 prefopt_report_objective(&o, w.policy, w.reference, w.reward, w.prompts, 1),
                 o.j == 99);
    ck_assert_int_gt(failures, 10);
    world_destroy(&w);
    prefopt_context_destroy(context);
}
END_TEST

TEST_MAIN("objective", sums_by_hand, regret_near_zero, reference_of_never, reward_of_never,
          refusals, allocator_failures)
