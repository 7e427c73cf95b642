/* Displacement against sums by hand, at probability 0, and where nothing can be enumerated. */
#include "report_test.h"

START_TEST(by_hand)
{
    prefopt_context *context = test_context(1);
    world w = world_create(context);
    prefopt_dataset *pairs = world_pairs(&w);
    world_pair(pairs, 0, 4, 5, 0, 1, 0); /* weight 0: as if it were not there */
    const int chosen[] = {9, 13, 1, 17, 2}, rejected[] = {13, 17, 2, 9, 6};
    const double weight[] = {1, 2, 0.5, 1, 1.5}, share[2] = {2.0 / 6, 4.0 / 6};
    double c = 0, r = 0, fell = 0, both = 0, worst = INFINITY;
    int worst_pair = -1;
    for (int i = 0; i < 5; i++) {
        double dc = w.logp[chosen[i]] - w.ref_logp[chosen[i]];
        double dr = w.logp[rejected[i]] - w.ref_logp[rejected[i]];
        c += weight[i] / 6 * dc;
        r += weight[i] / 6 * dr;
        fell += dc < 0 ? weight[i] / 6 : 0;
        both += dc < 0 && dr < 0 ? weight[i] / 6 : 0;
        if (dc < worst) {
            worst = dc;
            worst_pair = i;
        }
    }
    double before = 0, after = 0, ratio = -INFINITY;
    const int seen[2][9] = {{0, 1, 1, 0, 0, 0, 1, 0, 0}, {1, 0, 0, 0, 1, 0, 0, 0, 1}};
    for (int s = 0; s < 18; s++)
        if (!seen[s / 9][s % 9]) {
            before += share[s / 9] * exp(w.ref_logp[s]);
            after += share[s / 9] * exp(w.logp[s]);
            ratio = fmax(ratio, w.logp[s] - w.ref_logp[s]);
        }
    prefopt_displacement d = {.struct_size = sizeof d};
    OK(prefopt_report_displacement(&d, pairs, w.reference, w.policy));
    ck_assert_int_eq(d.n_pairs, 5);
    CLOSE(d.chosen, c, 1e-14);
    CLOSE(d.rejected, r, 1e-14);
    ck_assert(fell > 0 && fell < 1);
    CLOSE(d.chosen_fell, fell, 1e-14);
    CLOSE(d.both_fell, both, 1e-14);
    CLOSE(d.worst_chosen, worst, 1e-14);
    ck_assert_int_eq(d.worst_pair, worst_pair);
    CLOSE(d.unseen_mass_before, before, 1e-14);
    CLOSE(d.unseen_mass_after, after, 1e-14);
    CLOSE(d.max_unseen_log_ratio, ratio, 1e-14);
    /* Nothing has moved. */
    world_set_policy(&w, w.ref_logp);
    OK(prefopt_report_displacement(&d, pairs, w.reference, w.policy));
    CLOSE(d.chosen, 0, 1e-14);
    CLOSE(d.unseen_mass_after, d.unseen_mass_before, 1e-14);
    prefopt_dataset_destroy(pairs);
    world_destroy(&w);
    prefopt_context_destroy(context);
}
END_TEST

/* Completions of probability 0: before and after, after alone, before alone. */
START_TEST(never)
{
    prefopt_context *context = test_context(1);
    world w = world_create(context);
    prefopt_dataset *pairs;
    OK(prefopt_dataset_create(&pairs, context));
    double ref[18], after[18];
    for (int s = 0; s < 18; s++) {
        ref[s] = s % 9 < 4 ? log(0.25) : -INFINITY;
        after[s] = s % 9 >= 2 && s % 9 < 6 ? log(0.25) : -INFINITY;
    }
    prefopt_reference *reference;
    OK(prefopt_reference_create_fixed(&reference, context, &w.view, ref));
    world_set_policy(&w, after);
    world_pair(pairs, 0, 2, 8, 1, 1, 0); /* stays; stays at 0 */
    prefopt_displacement d = {.struct_size = sizeof d};
    OK(prefopt_report_displacement(&d, pairs, reference, w.policy));
    CLOSE(d.chosen, 0, 1e-15);
    ck_assert_double_eq(d.rejected, 0);
    ck_assert_double_eq(d.both_fell, 0);
    CLOSE(d.unseen_mass_before, 0.75, 1e-15);
    CLOSE(d.unseen_mass_after, 0.75, 1e-15);
    ck_assert_double_eq(d.max_unseen_log_ratio, INFINITY);
    world_pair(pairs, 0, 0, 4, 1, 1, 0); /* falls to 0; rises from 0 */
    OK(prefopt_report_displacement(&d, pairs, reference, w.policy));
    ck_assert_double_eq(d.chosen, -INFINITY);
    ck_assert_double_eq(d.rejected, INFINITY);
    ck_assert_double_eq(d.worst_chosen, -INFINITY);
    ck_assert_int_eq(d.worst_pair, 1);
    ck_assert_double_eq(d.chosen_fell, 0.5);
    world_pair(pairs, 0, 5, 3, 1, 1, 0); /* chosen of both signs now */
    d.chosen_fell = 99;
    FAILS(PREFOPT_ERR_NUMERIC, "chosen completion of row 2 rose",
          prefopt_report_displacement(&d, pairs, reference, w.policy));
    ck_assert_double_eq(d.chosen_fell, 99);
    prefopt_reference_destroy(reference);
    prefopt_dataset_destroy(pairs);
    world_destroy(&w);
    prefopt_context_destroy(context);
}
END_TEST

/* A reference from the pairs' own column, and a policy without a space: the pairs are reported, the
 * unseen is not known. All completions seen: no largest ratio. */
START_TEST(not_enumerated)
{
    prefopt_context *context = test_context(1);
    world w = world_create(context);
    prefopt_dataset *pairs = world_pairs(&w);
    prefopt_displacement d = {.struct_size = sizeof d}, full = {.struct_size = sizeof full};
    prefopt_reference *column;
    OK(prefopt_report_displacement(&full, pairs, w.reference, w.policy));
    OK(prefopt_reference_annotate(w.reference, pairs, NULL, NULL));
    OK(prefopt_reference_from_dataset(&column, pairs));
    OK(prefopt_report_displacement(&d, pairs, column, w.policy));
    ck_assert_double_eq(d.chosen, full.chosen);
    ck_assert(isnan(d.unseen_mass_before) && isnan(d.unseen_mass_after));
    ck_assert(isnan(d.max_unseen_log_ratio));
    prefopt_reference_destroy(column);

    prefopt_policy *custom;
    prefopt_reference *uniform;
    double logp[3] = {log(0.5), log(0.25), log(0.25)};
    prefopt_policy_callbacks callbacks = {.struct_size = sizeof callbacks,
                                          .logprobs = three_logprobs};
    prefopt_space space = {.struct_size = sizeof space, .eos = -1, .vocab = 2, .horizon = 1};
    const int32_t zero = 0, one = 1;
    prefopt_dataset *short_pairs;
    OK(prefopt_dataset_create(&short_pairs, context));
    OK(prefopt_dataset_append_pair(short_pairs, NULL, 0, &zero, 1, &one, 1, 1, 1, 0));
    OK(prefopt_policy_create_custom(&custom, context, NULL, &callbacks, logp));
    OK(prefopt_reference_create_uniform(&uniform, context, &space));
    OK(prefopt_report_displacement(&d, short_pairs, uniform, custom));
    ck_assert_double_eq(d.chosen, 0);
    CLOSE(d.rejected, -log(2), 1e-15);
    ck_assert(isnan(d.unseen_mass_after));
    prefopt_policy_destroy(custom);
    logp[1] = log(0.5);
    OK(prefopt_policy_create_custom(&custom, context, &space, &callbacks, logp));
    OK(prefopt_report_displacement(&d, short_pairs, uniform, custom));
    ck_assert_double_eq(d.unseen_mass_before, 0);
    ck_assert_double_eq(d.unseen_mass_after, 0);
    ck_assert_double_eq(d.max_unseen_log_ratio, -INFINITY);
    prefopt_policy_destroy(custom);
    prefopt_reference_destroy(uniform);
    prefopt_dataset_destroy(short_pairs);
    prefopt_dataset_destroy(pairs);
    world_destroy(&w);
    prefopt_context_destroy(context);
}
END_TEST

static prefopt_policy *small_transformer(prefopt_context *context, uint64_t seed)
{
    prefopt_transformer_config c;
    OK(prefopt_transformer_config_init(&c, sizeof c));
    c.eos = -1;
    c.vocab = 3;
    c.n_layers = 1;
    c.width = 8;
    c.n_heads = 2;
    c.ff_width = 8;
    c.max_positions = 4;
    c.rotary_fraction = 0.5;
    c.init_scale = 0.5;
    prefopt_policy *policy;
    OK(prefopt_policy_create_transformer(&policy, context, &c, seed));
    return policy;
}

/* A transformer's completions end where its positions do. Those of prompts of several lengths, or
 * pairs that are cut off before, are no space: the pairs are reported, the unseen is not known. */
START_TEST(transformers)
{
    prefopt_context *context = test_context(1);
    prefopt_policy *policy = small_transformer(context, 1), *after = small_transformer(context, 2);
    prefopt_reference *before;
    prefopt_dataset *pairs, *all;
    static const int32_t prompt[] = {1, 2}, chosen[] = {0, 2}, rejected[] = {2, 1};
    OK(prefopt_reference_freeze(&before, policy));
    OK(prefopt_dataset_create(&pairs, context));
    OK(prefopt_dataset_append_pair(pairs, prompt, 2, chosen, 2, rejected, 2, 1, 1, 0));
    OK(prefopt_policy_enumerate(&all, after, pairs, 0));
    prefopt_sequences in = {.struct_size = sizeof in};
    OK(prefopt_dataset_sequences(all, &in));
    ck_assert_int_eq(in.n, 9);
    double was[9], is[9], mass_before = 0, mass_after = 0, ratio = -INFINITY;
    OK(prefopt_reference_logprobs(before, &in, was));
    OK(prefopt_policy_logprobs(after, &in, is, NULL));
    for (int i = 0; i < 9; i++)
        if (i != 2 && i != 7) {
            mass_before += exp(was[i]);
            mass_after += exp(is[i]);
            ratio = fmax(ratio, is[i] - was[i]);
        }
    prefopt_displacement d = {.struct_size = sizeof d};
    OK(prefopt_report_displacement(&d, pairs, before, after));
    CLOSE(d.chosen, is[2] - was[2], 1e-6);
    CLOSE(d.rejected, is[7] - was[7], 1e-6);
    CLOSE(d.unseen_mass_before, mass_before, 1e-12);
    CLOSE(d.unseen_mass_after, mass_after, 1e-12);
    CLOSE(d.max_unseen_log_ratio, ratio, 1e-12);
    prefopt_kl_summary kl = {.struct_size = sizeof kl};
    OK(prefopt_report_kl(&kl, after, before, pairs, 0, 0));
    ck_assert(kl.reverse > 0);
    for (int cut = 0; cut < 2; cut++) {
        prefopt_dataset *other;
        OK(prefopt_dataset_create(&other, context));
        OK(prefopt_dataset_append_pair(other, prompt, 2, chosen, 2, rejected, 2, 1, 1, 0));
        OK(prefopt_dataset_append_pair(other, prompt, cut ? 2 : 1, chosen, 1, rejected, 1, 1, 1,
                                       0));
        OK(prefopt_report_displacement(&d, other, before, after));
        ck_assert(isfinite(d.chosen) && d.n_pairs == 2);
        ck_assert(isnan(d.unseen_mass_before) && isnan(d.unseen_mass_after));
        ck_assert(isnan(d.max_unseen_log_ratio));
        if (!cut)
            FAILS(PREFOPT_ERR_UNSUPPORTED, "prompt 1 has 27 completions, prompt 0 has 9",
                  prefopt_report_kl(&kl, after, before, other, 0, 0));
        prefopt_dataset_destroy(other);
    }
    prefopt_dataset_destroy(all);
    prefopt_dataset_destroy(pairs);
    prefopt_reference_destroy(before);
    prefopt_policy_destroy(policy);
    prefopt_policy_destroy(after);
    prefopt_context_destroy(context);
}
END_TEST

START_TEST(refusals)
{
    prefopt_context *context = test_context(1);
    world w = world_create(context);
    prefopt_dataset *pairs = world_pairs(&w);
    prefopt_displacement d = {.struct_size = sizeof d, .n_pairs = 99}, small = {.struct_size = 4};
    FAILS(PREFOPT_ERR_ARGUMENT, "out is NULL",
          prefopt_report_displacement(NULL, pairs, w.reference, w.policy));
    FAILS(PREFOPT_ERR_ARGUMENT, "pairs is NULL",
          prefopt_report_displacement(&d, NULL, w.reference, w.policy));
    FAILS(PREFOPT_ERR_ARGUMENT, "before is NULL",
          prefopt_report_displacement(&d, pairs, NULL, w.policy));
    FAILS(PREFOPT_ERR_ARGUMENT, "after is NULL",
          prefopt_report_displacement(&d, pairs, w.reference, NULL));
    FAILS(PREFOPT_ERR_VERSION, "prefopt_displacement",
          prefopt_report_displacement(&small, pairs, w.reference, w.policy));
    FAILS(PREFOPT_ERR_ARGUMENT, "row 0 is of kind 1",
          prefopt_report_displacement(&d, w.all, w.reference, w.policy));
    ck_assert_int_eq(d.n_pairs, 99);
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
    prefopt_displacement d = {.struct_size = sizeof d, .n_pairs = 99};
    int64_t failures;
    FAIL_AT_EACH(&a, failures, prefopt_report_displacement(&d, pairs, w.reference, w.policy),
                 d.n_pairs == 99);
    ck_assert_int_gt(failures, 10);
    prefopt_dataset_destroy(pairs);
    world_destroy(&w);
    prefopt_context_destroy(context);
}
END_TEST

TEST_MAIN("displacement", by_hand, never, not_enumerated, transformers, refusals,
          allocator_failures)
