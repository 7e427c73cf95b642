/* Exact KLs against sums by hand, and the estimates beside them within 4 standard errors. */
#include "report_test.h"

START_TEST(exact_and_estimates)
{
    prefopt_context *context = test_context(2);
    world w = world_create(context);
    /* Near the reference, so that every estimator has a moderate variance. */
    double logp[18], reverse = 0, forward = 0, k2 = 0;
    for (int x = 0; x < 2; x++) {
        double z = 0;
        for (int s = 9 * x; s < 9 * x + 9; s++)
            z += exp(w.ref_logp[s] + 0.3 * w.score[s]);
        for (int s = 9 * x; s < 9 * x + 9; s++)
            logp[s] = w.ref_logp[s] + 0.3 * w.score[s] - log(z);
    }
    world_set_policy(&w, logp);
    for (int s = 0; s < 18; s++) {
        double u = w.logp[s] - w.ref_logp[s];
        reverse += 0.5 * exp(w.logp[s]) * u;
        forward -= 0.5 * exp(w.ref_logp[s]) * u;
        k2 += 0.5 * exp(w.logp[s]) * u * u / 2;
    }
    prefopt_kl_summary k = {.struct_size = sizeof k};
    OK(prefopt_report_kl(&k, w.policy, w.reference, w.prompts, 20000, 5));
    CLOSE(k.reverse, reverse, 1e-14);
    CLOSE(k.forward, forward, 1e-14);
    ck_assert_int_eq(k.n_samples, 20000);
    ck_assert(k.k1_std_error > 0 && k.k1_std_error < 0.01);
    ck_assert(k.k2_std_error > 0 && k.k2_std_error < 0.01);
    ck_assert(k.k3_std_error > 0 && k.k3_std_error < k.k1_std_error);
    ck_assert_double_lt(fabs(k.k1 - reverse), 4 * k.k1_std_error);
    ck_assert_double_lt(fabs(k.k2 - k2), 4 * k.k2_std_error);
    ck_assert_double_lt(fabs(k.k3 - reverse), 4 * k.k3_std_error);
    prefopt_kl_summary again = {.struct_size = sizeof again};
    OK(prefopt_report_kl(&again, w.policy, w.reference, w.prompts, 20000, 6));
    ck_assert_double_ne(again.k1, k.k1);
    ck_assert_double_eq(again.reverse, k.reverse);
    world_destroy(&w);
    prefopt_context_destroy(context);
}
END_TEST

/* The standard error over prompts: against the spread of 200 seeds. */
START_TEST(standard_error)
{
    prefopt_context *context = test_context(1);
    world w = world_create(context);
    double mean = 0, square = 0, error = 0;
    for (uint64_t seed = 1; seed <= 200; seed++) {
        prefopt_kl_summary k = {.struct_size = sizeof k};
        OK(prefopt_report_kl(&k, w.policy, w.reference, w.prompts, 50, seed));
        mean += k.k1 / 200;
        square += k.k1 * k.k1 / 200;
        error += k.k1_std_error * k.k1_std_error / 200;
    }
    /* The variance of 200 draws has a relative error of about sqrt(2 / 200) = 0.1. */
    double ratio = (square - mean * mean) / error;
    ck_assert_msg(ratio > 0.6 && ratio < 1.4, "spread^2 / std_error^2 = %g", ratio);
    world_destroy(&w);
    prefopt_context_destroy(context);
}
END_TEST

START_TEST(infinities)
{
    prefopt_context *context = test_context(1);
    world w = world_create(context);
    double ref[18], narrow[18];
    for (int s = 0; s < 18; s++) {
        ref[s] = s % 9 == 5 ? -INFINITY : log(1.0 / 8);
        narrow[s] = s % 9 < 4 ? log(0.25) : -INFINITY;
    }
    prefopt_reference *reference;
    OK(prefopt_reference_create_fixed(&reference, context, &w.view, ref));
    prefopt_kl_summary k = {.struct_size = sizeof k};
    OK(prefopt_report_kl(&k, w.policy, reference, w.prompts, 200, 1));
    ck_assert_double_eq(k.reverse, INFINITY);
    ck_assert(isfinite(k.forward));
    ck_assert_double_eq(k.k1, INFINITY);
    ck_assert_double_eq(k.k1_std_error, INFINITY);
    world_set_policy(&w, narrow);
    OK(prefopt_report_kl(&k, w.policy, reference, w.prompts, 10, 1));
    CLOSE(k.reverse, log(2), 1e-14);
    ck_assert_double_eq(k.forward, INFINITY);
    CLOSE(k.k1, log(2), 1e-14);
    ck_assert_double_lt(k.k1_std_error, 1e-14);
    /* One draw a prompt says nothing of its spread. */
    OK(prefopt_report_kl(&k, w.policy, reference, w.prompts, 1, 1));
    ck_assert_double_eq(k.k1_std_error, INFINITY);
    OK(prefopt_report_kl(&k, w.policy, reference, w.prompts, 0, 0));
    ck_assert(isnan(k.k1) && isnan(k.k2) && isnan(k.k3));
    ck_assert(isnan(k.k1_std_error) && isnan(k.k2_std_error) && isnan(k.k3_std_error));
    CLOSE(k.reverse, log(2), 1e-14);
    prefopt_reference_destroy(reference);
    world_destroy(&w);
    prefopt_context_destroy(context);
}
END_TEST

START_TEST(refusals)
{
    prefopt_context *context = test_context(1);
    world w = world_create(context);
    prefopt_kl_summary k = {.struct_size = sizeof k, .k1 = 99}, small = {.struct_size = 4};
    FAILS(PREFOPT_ERR_ARGUMENT, "out is NULL",
          prefopt_report_kl(NULL, w.policy, w.reference, w.prompts, 0, 0));
    FAILS(PREFOPT_ERR_ARGUMENT, "policy is NULL",
          prefopt_report_kl(&k, NULL, w.reference, w.prompts, 0, 0));
    FAILS(PREFOPT_ERR_ARGUMENT, "reference is NULL",
          prefopt_report_kl(&k, w.policy, NULL, w.prompts, 0, 0));
    FAILS(PREFOPT_ERR_ARGUMENT, "prompts is NULL",
          prefopt_report_kl(&k, w.policy, w.reference, NULL, 0, 0));
    FAILS(PREFOPT_ERR_VERSION, "prefopt_kl_summary",
          prefopt_report_kl(&small, w.policy, w.reference, w.prompts, 0, 0));
    FAILS(PREFOPT_ERR_ARGUMENT, "n_samples is -1",
          prefopt_report_kl(&k, w.policy, w.reference, w.prompts, -1, 0));
    FAILS(PREFOPT_ERR_ARGUMENT, "seed is 3",
          prefopt_report_kl(&k, w.policy, w.reference, w.prompts, 0, 3));
    /* A policy that can be enumerated but not sampled. */
    double logp[3] = {log(0.5), log(0.25), log(0.25)};
    prefopt_policy *custom;
    prefopt_reference *uniform;
    prefopt_policy_callbacks callbacks = {.struct_size = sizeof callbacks,
                                          .logprobs = three_logprobs};
    prefopt_space space = {.struct_size = sizeof space, .eos = -1, .vocab = 3, .horizon = 1};
    OK(prefopt_policy_create_custom(&custom, context, &space, &callbacks, logp));
    OK(prefopt_reference_create_uniform(&uniform, context, &space));
    FAILS(PREFOPT_ERR_UNSUPPORTED, "next_logprobs",
          prefopt_report_kl(&k, custom, uniform, w.prompts, 5, 0));
    ck_assert_double_eq(k.k1, 99);
    OK(prefopt_report_kl(&k, custom, uniform, w.prompts, 0, 0));
    CLOSE(k.reverse, log(3) - 1.5 * log(2), 1e-14);
    prefopt_policy_destroy(custom);
    prefopt_reference_destroy(uniform);
    world_destroy(&w);
    prefopt_context_destroy(context);
}
END_TEST

START_TEST(allocator_failures)
{
    counting_allocator a = {0};
    prefopt_context *context = counting_context(&a);
    world w = world_create(context);
    prefopt_kl_summary k = {.struct_size = sizeof k, .k1 = 99};
    int64_t failures;
    FAIL_AT_EACH(&a, failures, prefopt_report_kl(&k, w.policy, w.reference, w.prompts, 5, 0),
                 k.k1 == 99);
    ck_assert_int_gt(failures, 10);
    world_destroy(&w);
    prefopt_context_destroy(context);
}
END_TEST

TEST_MAIN("kl_report", exact_and_estimates, standard_error, infinities, refusals,
          allocator_failures)
