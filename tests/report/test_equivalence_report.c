/* The two roads (lecture 22.4): equal where they must be, apart where they are not. */
#include "report_test.h"

static const double beta = 0.3;

/* Sets the policy to softmax(log pi_ref + (r + shift) / beta). */
static void take_the_other_road(world *w, double shift_of_first)
{
    double logp[18], score[18];
    memcpy(score, w->score, sizeof score);
    score[9] += shift_of_first; /* completion 0 of the second prompt */
    for (int x = 0; x < 2; x++)
        OK(prefopt_soft_optimal(9, w->ref_logp + 9 * x, score + 9 * x, beta, logp + 9 * x, NULL));
    world_set_policy(w, logp);
}

START_TEST(equal_roads)
{
    prefopt_context *context = test_context(1);
    world w = world_create(context);
    prefopt_dataset *pairs = world_pairs(&w);
    double log_z[3] = {0, 0, 99};
    prefopt_equivalence e = {.struct_size = sizeof e};
    take_the_other_road(&w, 0);
    OK(prefopt_report_equivalence(&e, log_z, 3, pairs, w.policy, w.reference, w.reward, beta));
    ck_assert_double_lt(e.total_variation, 1e-12);
    ck_assert_double_lt(e.max_total_variation, 1e-12);
    ck_assert_double_le(0, e.kl);
    ck_assert_double_lt(e.kl, 1e-20);
    ck_assert_double_lt(fabs(e.loss_difference), 1e-12);
    /* log Z, second prompt first, as it appears first. */
    for (int k = 0; k < 2; k++) {
        double z = 0;
        for (int s = 9 * (1 - k); s < 9 * (1 - k) + 9; s++)
            z += exp(w.ref_logp[s] + w.score[s] / beta);
        CLOSE(log_z[k], log(z), 1e-13);
    }
    ck_assert_double_eq(log_z[2], 99);
    /* The loss from its definition, soft labels, weights and margin included. */
    prefopt_columns c = {.struct_size = sizeof c};
    prefopt_sequences all = {.struct_size = sizeof all};
    OK(prefopt_dataset_columns(pairs, &c));
    OK(prefopt_dataset_sequences(pairs, &all));
    double score[10], sum = 0, weight = 0;
    OK(prefopt_reward_scores(w.reward, &all, score));
    for (int i = 0; i < 5; i++) {
        double d = score[2 * i] - score[2 * i + 1];
        sum -= c.weight[i] * (c.label[i] * prefopt_log_sigmoid(d - c.margin[i]) +
                              (1 - c.label[i]) * prefopt_log_sigmoid(-d - c.margin[i]));
        weight += c.weight[i];
    }
    CLOSE(e.loss_reward, sum / weight, 1e-14);
    prefopt_dataset_destroy(pairs);
    world_destroy(&w);
    prefopt_context_destroy(context);
}
END_TEST

START_TEST(perturbed)
{
    prefopt_context *context = test_context(1);
    world w = world_create(context);
    prefopt_dataset *pairs = world_pairs(&w);
    prefopt_equivalence e = {.struct_size = sizeof e};
    take_the_other_road(&w, 0.5);
    OK(prefopt_report_equivalence(&e, NULL, 0, pairs, w.policy, w.reference, w.reward, beta));
    /* The first prompt is untouched; of the second by hand. */
    double optimal[9], variation = 0, kl = 0;
    OK(prefopt_soft_optimal(9, w.ref_logp + 9, w.score + 9, beta, optimal, NULL));
    for (int y = 0; y < 9; y++) {
        variation += 0.5 * fabs(exp(w.logp[9 + y]) - exp(optimal[y]));
        kl += exp(w.logp[9 + y]) * (w.logp[9 + y] - optimal[y]);
    }
    ck_assert_double_gt(variation, 0.01);
    CLOSE(e.max_total_variation, variation, 1e-13);
    CLOSE(e.total_variation, 4.0 / 6 * variation, 1e-13);
    CLOSE(e.kl, 4.0 / 6 * kl, 1e-13);
    ck_assert_double_gt(fabs(e.loss_difference), 1e-3);
    CLOSE(e.loss_difference, e.loss_policy - e.loss_reward, 1e-15);
    prefopt_dataset_destroy(pairs);
    world_destroy(&w);
    prefopt_context_destroy(context);
}
END_TEST

/* Mass where the reference has none: the KL is infinite, the total variation is not. */
START_TEST(infinities)
{
    prefopt_context *context = test_context(1);
    world w = world_create(context);
    prefopt_dataset *pairs = world_pairs(&w);
    double ref[18];
    for (int x = 0; x < 2; x++)
        for (int y = 0; y < 9; y++)
            ref[9 * x + y] = y == 5 ? -INFINITY : log(1.0 / 8);
    prefopt_reference *reference;
    OK(prefopt_reference_create_fixed(&reference, context, &w.view, ref));
    prefopt_equivalence e = {.struct_size = sizeof e};
    OK(prefopt_report_equivalence(&e, NULL, 0, pairs, w.policy, reference, w.reward, beta));
    ck_assert_double_eq(e.kl, INFINITY);
    ck_assert(e.total_variation > 0 && e.total_variation < 1);
    ck_assert(isfinite(e.loss_difference));
    prefopt_reference_destroy(reference);
    prefopt_dataset_destroy(pairs);
    world_destroy(&w);
    prefopt_context_destroy(context);
}
END_TEST

START_TEST(refusals)
{
    prefopt_context *context = test_context(1);
    world w = world_create(context);
    prefopt_dataset *pairs = world_pairs(&w);
    double log_z[2] = {99, 99};
    prefopt_equivalence e = {.struct_size = sizeof e, .kl = 99}, small = {.struct_size = 4};
#define REPORT(out, log_z, n, pairs, policy, reference, reward)                                    \
    prefopt_report_equivalence(out, log_z, n, pairs, policy, reference, reward, beta)
    FAILS(PREFOPT_ERR_ARGUMENT, "out is NULL",
          REPORT(NULL, NULL, 0, pairs, w.policy, w.reference, w.reward));
    FAILS(PREFOPT_ERR_ARGUMENT, "pairs is NULL",
          REPORT(&e, NULL, 0, NULL, w.policy, w.reference, w.reward));
    FAILS(PREFOPT_ERR_ARGUMENT, "policy is NULL",
          REPORT(&e, NULL, 0, pairs, NULL, w.reference, w.reward));
    FAILS(PREFOPT_ERR_ARGUMENT, "reference is NULL",
          REPORT(&e, NULL, 0, pairs, w.policy, NULL, w.reward));
    FAILS(PREFOPT_ERR_ARGUMENT, "reward is NULL",
          REPORT(&e, NULL, 0, pairs, w.policy, w.reference, NULL));
    FAILS(PREFOPT_ERR_VERSION, "prefopt_equivalence",
          REPORT(&small, NULL, 0, pairs, w.policy, w.reference, w.reward));
    FAILS(PREFOPT_ERR_ARGUMENT, "n_log_z is 1, expected at least 2",
          REPORT(&e, log_z, 1, pairs, w.policy, w.reference, w.reward));
    FAILS(PREFOPT_ERR_ARGUMENT, "n_log_z is 2",
          REPORT(&e, NULL, 2, pairs, w.policy, w.reference, w.reward));
    FAILS(PREFOPT_ERR_ARGUMENT, "n_log_z is -1",
          REPORT(&e, log_z, -1, pairs, w.policy, w.reference, w.reward));
    FAILS(PREFOPT_ERR_ARGUMENT, "row 0 is of kind 0",
          REPORT(&e, NULL, 0, w.prompts, w.policy, w.reference, w.reward));
    FAILS(PREFOPT_ERR_ARGUMENT, "beta is -1",
          prefopt_report_equivalence(&e, NULL, 0, pairs, w.policy, w.reference, w.reward, -1));
    /* A policy that never says either side of a pair: its loss has no value. */
    double logp[18];
    for (int s = 0; s < 18; s++)
        logp[s] = s % 9 == 5 ? 0 : -INFINITY;
    double ref[18];
    memcpy(ref, logp, sizeof ref);
    prefopt_reference *reference;
    OK(prefopt_reference_create_fixed(&reference, context, &w.view, ref));
    world_set_policy(&w, logp);
    FAILS(PREFOPT_ERR_NUMERIC, "policy loss",
          REPORT(&e, log_z, 2, pairs, w.policy, reference, w.reward));
    ck_assert_double_eq(e.kl, 99);
    ck_assert_double_eq(log_z[0], 99);
    prefopt_reference_destroy(reference);
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
    prefopt_equivalence e = {.struct_size = sizeof e, .kl = 99};
    double log_z[2] = {99, 99};
    int64_t failures;
    FAIL_AT_EACH(
        &a, failures,
        prefopt_report_equivalence(&e, log_z, 2, pairs, w.policy, w.reference, w.reward, beta),
        e.kl == 99 && log_z[1] == 99);
    ck_assert_int_gt(failures, 10);
    prefopt_dataset_destroy(pairs);
    world_destroy(&w);
    prefopt_context_destroy(context);
}
END_TEST

TEST_MAIN("equivalence_report", equal_roads, perturbed, infinities, refusals, allocator_failures)
