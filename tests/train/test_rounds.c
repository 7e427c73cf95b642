/* Rounds of online DPO: against the calls they are made of, put together by hand. */
#include "rounds_test.h"

/* One step a round on all that was drawn is what comes without options. */
START_TEST(defaults_are_one_step_a_round)
{
    prefopt_context *context = test_context(1);
    rounds_world s = rounds_world_new(context, 5, 3, 2, -1);
    for (int32_t pg = 0; pg < 2; pg++) {
        sampled_options o = sampled_defaults();
        double a[128], b[128], c[128];
        int64_t n = parameters_of(s.w.policy).n;
        ck_assert_int_le(n, 128);
        o.train.batch = 2;
        o.sampler.n = 4;
        run_sampled(&s, pg != 0, &o, 12, a);
        o.rounds.prompts = 2;
        o.rounds.steps = 1;
        prefopt_progress last = run_sampled(&s, pg != 0, &o, 12, b);
        ck_assert_mem_eq(a, b, (size_t)n * sizeof *a);
        ck_assert_int_eq(last.round, 11);
        o.train.batch = 0;
        run_sampled(&s, pg != 0, &o, 12, c);
        ck_assert_mem_eq(a, c, (size_t)n * sizeof *a);
        ck_assert_int_eq(last.pairs >= 0, pg == 0);
        ck_assert(isnan(last.clip_fraction) && isnan(last.ended));
    }
    rounds_world_free(&s);
    prefopt_context_destroy(context);
}
END_TEST

/* The pairs of a round, by hand. */
static prefopt_dataset *pairs_by_hand(const rounds_world *s, prefopt_policy *policy,
                                      const sampled_options *o, prefopt_rank_counts *counts)
{
    prefopt_dataset *samples, *pairs;
    *counts = (prefopt_rank_counts){.struct_size = sizeof *counts};
    OK(prefopt_sample(&samples, policy, s->w.prompts, &o->sampler));
    OK(prefopt_rank(&pairs, s->reward, samples, &o->ranker, counts));
    prefopt_dataset_destroy(samples);
    return pairs;
}

/* One round for the whole run is DPO on its pairs, to the bit, in batches that cross epochs. */
START_TEST(one_round_is_dpo_on_its_pairs)
{
    prefopt_context *context = test_context(1);
    rounds_world s = rounds_world_new(context, 7, 3, 2, -1);
    static const int64_t batches[] = {0, 3, 5, 7, 100};
    for (int32_t variant = 0; variant < 2; variant++)
        for (size_t b = 0; b < sizeof batches / sizeof *batches; b++) {
            sampled_options o = sampled_defaults();
            enum { STEPS = 9 };
            o.dpo.variant = variant == 0 ? PREFOPT_DPO_SIGMOID : PREFOPT_DPO_IPO;
            o.ranker.rule = variant == 0 ? PREFOPT_PAIR_TOP_BOTTOM : PREFOPT_PAIR_BEST_AGAINST_EACH;
            o.sampler.n = 4;
            o.sampler.seed = 11;
            o.train.seed = 77;
            o.train.batch = batches[b];
            o.rounds.prompts = 7;
            o.rounds.steps = 1000;
            double online[128];
            prefopt_progress got = run_sampled(&s, false, &o, STEPS, online);
            prefopt_policy *policy = tabular_policy(&s.w);
            randomise(policy, 8, 0.5);
            prefopt_rank_counts counts;
            prefopt_dataset *pairs = pairs_by_hand(&s, policy, &o, &counts);
            ck_assert_int_gt(counts.pairs, 5);
            ck_assert_int_eq(got.pairs, counts.pairs);
            ck_assert_int_eq(got.duplicates, counts.duplicates);
            ck_assert_int_eq(got.ties, counts.ties);
            prefopt_trainer *trainer;
            prefopt_progress last = {.struct_size = sizeof last};
            OK(prefopt_trainer_create_dpo(&trainer, policy, s.reference, pairs, &o.dpo, &o.train));
            OK(prefopt_trainer_run(trainer, STEPS, &last));
            prefopt_parameters p = parameters_of(policy);
            ck_assert_mem_eq(online, p.value, (size_t)p.n * sizeof *online);
            ck_assert_double_eq(got.loss, last.loss);
            ck_assert_double_eq(got.margin, last.margin);
            ck_assert_double_eq(got.accuracy, last.accuracy);
            ck_assert_double_eq(got.chosen_logp, last.chosen_logp);
            ck_assert_int_eq(got.round, 0);
            CLOSE(got.reward, counts.mean_score, 1e-15);
            prefopt_trainer_destroy(trainer);
            prefopt_dataset_destroy(pairs);
            prefopt_policy_destroy(policy);
        }
    rounds_world_free(&s);
    prefopt_context_destroy(context);
}
END_TEST

/* Round after round by hand: the sampler's round counts on, each round is DPO on new pairs of the
 * policy as it is. Plain SGD has no state, so that a trainer a round will do. */
START_TEST(rounds_go_on_from_the_policy)
{
    prefopt_context *context = test_context(1);
    rounds_world s = rounds_world_new(context, 4, 3, 2, -1);
    for (int64_t steps = 1; steps <= 3; steps++) {
        enum { ROUNDS = 4 };
        sampled_options o = sampled_defaults();
        o.sampler.n = 5;
        o.train.optimiser = PREFOPT_SGD;
        o.train.learning_rate = 0.3;
        o.rounds.steps = steps;
        double online[128];
        run_sampled(&s, false, &o, ROUNDS * steps, online);
        prefopt_policy *policy = tabular_policy(&s.w);
        randomise(policy, 8, 0.5);
        for (uint64_t r = 0; r < ROUNDS; r++) {
            prefopt_rank_counts counts;
            prefopt_trainer *trainer;
            o.sampler.round = r;
            prefopt_dataset *pairs = pairs_by_hand(&s, policy, &o, &counts);
            OK(prefopt_trainer_create_dpo(&trainer, policy, s.reference, pairs, NULL, &o.train));
            OK(prefopt_trainer_run(trainer, steps, NULL));
            prefopt_trainer_destroy(trainer);
            prefopt_dataset_destroy(pairs);
        }
        prefopt_parameters p = parameters_of(policy);
        ck_assert_mem_eq(online, p.value, (size_t)p.n * sizeof *online);
        prefopt_policy_destroy(policy);
    }
    rounds_world_free(&s);
    prefopt_context_destroy(context);
}
END_TEST

TEST_MAIN("rounds", defaults_are_one_step_a_round, one_round_is_dpo_on_its_pairs,
          rounds_go_on_from_the_policy)
