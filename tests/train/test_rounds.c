/* Rounds of online DPO: against the calls they are made of, put together by hand. */
#include "model/pf_model.h"
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

/* After a refresh the reference is the policy itself: the estimate is 0 then, and not before; and
 * the rounds are those of trainers against a reference frozen there. */
START_TEST(references_are_refreshed)
{
    prefopt_context *context = test_context(1);
    rounds_world s = rounds_world_new(context, 4, 3, 2, -1);
    prefopt_policy *policy = tabular_policy(&s.w), *hand = tabular_policy(&s.w);
    randomise(policy, 8, 0.5);
    randomise(hand, 8, 0.5);
    sampled_options o = sampled_defaults();
    o.sampler.n = 5;
    o.train.optimiser = PREFOPT_SGD;
    o.train.learning_rate = 0.5;
    o.rounds.steps = 2;
    o.rounds.refresh = 3;
    prefopt_trainer *trainer = online_of(&s, policy, &o);
    prefopt_reference *reference = NULL;
    for (int64_t r = 0; r < 8; r++) {
        prefopt_rank_counts counts;
        prefopt_progress last = {.struct_size = sizeof last};
        prefopt_trainer *by_hand;
        if (r > 0 && r % 3 == 0) {
            prefopt_reference_destroy(reference);
            OK(prefopt_reference_freeze(&reference, hand));
        }
        o.sampler.round = (uint64_t)r;
        prefopt_dataset *pairs = pairs_by_hand(&s, hand, &o, &counts);
        OK(prefopt_trainer_create_dpo(&by_hand, hand, reference != NULL ? reference : s.reference,
                                      pairs, NULL, &o.train));
        OK(prefopt_trainer_run(by_hand, 2, NULL));
        prefopt_trainer_destroy(by_hand);
        prefopt_dataset_destroy(pairs);
        OK(prefopt_trainer_run(trainer, 2, &last));
        ck_assert_int_eq(last.round, r);
        ck_assert_msg(r > 0 && r % 3 == 0 ? fabs(last.kl) < 1e-12 : fabs(last.kl) > 1e-4,
                      "round %lld: kl %g", (long long)r, last.kl);
        prefopt_parameters p = parameters_of(policy), q = parameters_of(hand);
        ck_assert_mem_eq(p.value, q.value, (size_t)p.n * sizeof(double));
    }
    prefopt_trainer_destroy(trainer);
    prefopt_reference_destroy(reference);
    prefopt_policy_destroy(policy);
    prefopt_policy_destroy(hand);
    rounds_world_free(&s);
    prefopt_context_destroy(context);
}
END_TEST

/* A reward model that fails when it is told to. */
static struct {
    prefopt_reward *behind;
    bool fails;
    int32_t (*backward)(void *payload, const prefopt_sequences *in, const double *grad);
    bool backward_fails;
} moody;

static int32_t moody_scores(void *payload, const prefopt_sequences *in, double *score)
{
    (void)payload;
    int32_t status = prefopt_reward_scores(moody.behind, in, score);
    if (moody.fails)
        score[in->n - 1] = NAN;
    return status;
}

static int32_t moody_backward(void *payload, const prefopt_sequences *in, const double *grad)
{
    return moody.backward_fails ? PREFOPT_ERR_CALLBACK : moody.backward(payload, in, grad);
}

/* A round that could not be drawn, or whose first step failed, is drawn when it is tried again, and
 * its rewards are counted once. */
START_TEST(failed_rounds_leave_no_trace)
{
    prefopt_context *context = test_context(1);
    rounds_world s = rounds_world_new(context, 4, 3, 2, -1);
    prefopt_reward_callbacks callbacks = {.struct_size = sizeof callbacks, .scores = moody_scores};
    prefopt_reward *truth = s.reward;
    moody.behind = truth;
    OK(prefopt_reward_create_custom(&s.reward, context, &callbacks, NULL));
    sampled_options o = sampled_defaults();
    o.sampler.n = 4;
    o.rounds.steps = 2;
    o.rounds.reward_scale = PREFOPT_REWARD_RUNNING;
    double whole[128];
    moody.fails = false;
    run_sampled(&s, true, &o, 8, whole);
    prefopt_policy *policy = tabular_policy(&s.w);
    randomise(policy, 8, 0.5);
    prefopt_trainer *trainer = pg_of(&s, policy, &o);
    prefopt_parameters p = parameters_of(policy);
    OK(prefopt_trainer_run(trainer, 4, NULL));
    double before[128];
    memcpy(before, p.value, (size_t)p.n * sizeof *before);
    moody.fails = true;
    for (int32_t i = 0; i < 2; i++)
        FAILS(PREFOPT_ERR_NUMERIC, "step 1 of 2 (5 since", prefopt_trainer_run(trainer, 2, NULL));
    ck_assert_mem_eq(before, p.value, (size_t)p.n * sizeof *before);
    moody.fails = false;
    moody.backward = policy->callbacks.backward;
    policy->callbacks.backward = moody_backward;
    moody.backward_fails = true;
    for (int32_t i = 0; i < 2; i++)
        ck_assert_int_eq(prefopt_trainer_run(trainer, 2, NULL), PREFOPT_ERR_CALLBACK);
    ck_assert_mem_eq(before, p.value, (size_t)p.n * sizeof *before);
    moody.backward_fails = false;
    OK(prefopt_trainer_run(trainer, 4, NULL));
    ck_assert_mem_eq(whole, p.value, (size_t)p.n * sizeof *whole);
    prefopt_trainer_destroy(trainer);
    prefopt_policy_destroy(policy);
    prefopt_reward_destroy(s.reward);
    s.reward = truth;
    rounds_world_free(&s);
    prefopt_context_destroy(context);
}
END_TEST

/* Nothing to choose between: the steps of the round are counted and change nothing. */
START_TEST(rounds_without_pairs)
{
    prefopt_context *context = test_context(1);
    rounds_world s = rounds_world_new(context, 2, 3, 1, -1);
    prefopt_parameters p = {.struct_size = sizeof p};
    OK(prefopt_reward_parameters(s.reward, &p));
    for (int64_t k = 0; k < p.n; k++)
        ((double *)p.value)[k] = 0.25;
    OK(prefopt_reward_updated(s.reward));
    sampled_options o = sampled_defaults();
    double value[128];
    o.rounds.steps = 3;
    o.sampler.n = 3;
    prefopt_progress last = run_sampled(&s, false, &o, 5, value);
    prefopt_policy *start = tabular_policy(&s.w);
    randomise(start, 8, 0.5);
    prefopt_parameters q = parameters_of(start);
    ck_assert_mem_eq(value, q.value, (size_t)q.n * sizeof *value);
    ck_assert_int_eq(last.step, 5);
    ck_assert_int_eq(last.round, 1);
    ck_assert_int_eq(last.pairs, 0);
    ck_assert(isnan(last.loss) && isnan(last.grad_norm) && isnan(last.kl));
    CLOSE(last.score_mean, 0.25, 1e-15);
    CLOSE(last.score_sd, 0, 1e-15);
    prefopt_policy_destroy(start);
    rounds_world_free(&s);
    prefopt_context_destroy(context);
}
END_TEST

/* Where the time went adds up to no more than there was, and starts afresh with each run. */
START_TEST(seconds_are_told)
{
    prefopt_context *context = test_context(1);
    rounds_world s = rounds_world_new(context, 6, 3, 2, -1);
    sampled_options o = sampled_defaults();
    o.rounds.steps = 2;
    o.sampler.n = 50;
    prefopt_trainer *trainer = online_of(&s, s.w.policy, &o);
    for (int32_t i = 0; i < 2; i++) {
        prefopt_progress last = {.struct_size = sizeof last};
        OK(prefopt_trainer_run(trainer, 20, &last));
        double sum = last.seconds_sampling + last.seconds_scoring + last.seconds_training;
        ck_assert(last.seconds_sampling > 0 && last.seconds_scoring > 0 &&
                  last.seconds_training > 0);
        ck_assert_double_le(sum, 20 / last.steps_per_second * (1 + 1e-9));
    }
    prefopt_trainer_destroy(trainer);
    rounds_world_free(&s);
    prefopt_context_destroy(context);
}
END_TEST

START_TEST(rounds_refuse)
{
    prefopt_context *context = test_context(1);
    rounds_world s = rounds_world_new(context, 5, 3, 2, -1);
    prefopt_trainer *t = NULL;
    sampled_options o;
    prefopt_reference *reference = s.reference;
#define ONLINE(code, text)                                                                         \
    FAILS(code, text,                                                                              \
          prefopt_trainer_create_online_dpo(&t, s.w.policy, reference, s.reward, s.w.prompts,      \
                                            &o.dpo, &o.sampler, &o.ranker, &o.rounds, &o.train))
#define PG(code, text)                                                                             \
    FAILS(code, text,                                                                              \
          prefopt_trainer_create_policy_gradient(&t, s.w.policy, reference, s.reward, s.w.prompts, \
                                                 &o.pg, &o.sampler, &o.rounds, &o.train))
#define BOTH(field, value, text)                                                                   \
    o = sampled_defaults();                                                                        \
    o.rounds.field = value;                                                                        \
    ONLINE(PREFOPT_ERR_ARGUMENT, text);                                                            \
    PG(PREFOPT_ERR_ARGUMENT, text)
#define SAMPLER(field, value, code, text)                                                          \
    o = sampled_defaults();                                                                        \
    o.sampler.field = value;                                                                       \
    ONLINE(code, text);                                                                            \
    PG(code, text)
    SAMPLER(n, 0, PREFOPT_ERR_ARGUMENT, "n is 0");
    SAMPLER(n_stop, 2, PREFOPT_ERR_ARGUMENT, "stop is NULL but n_stop is 2");
    SAMPLER(n_stop, -1, PREFOPT_ERR_ARGUMENT, "n_stop is -1");
    SAMPLER(top_p, 0, PREFOPT_ERR_ARGUMENT, "top_p is 0");
    SAMPLER(temperature, NAN, PREFOPT_ERR_NUMERIC, "temperature is NaN");
    BOTH(prompts, -1, "prompts is -1, expected at least 0");
    BOTH(steps, 0, "steps is 0, expected at least 1");
    BOTH(refresh, -3, "refresh is -3");
    BOTH(missing_end_penalty, -0.5, "missing_end_penalty is -0.5");
    BOTH(missing_end_penalty, NAN, "missing_end_penalty is nan");
    BOTH(missing_end_penalty, 1, "nothing ends a completion");
    BOTH(reward_clip, INFINITY, "reward_clip is inf");
    BOTH(reward_scale, 3, "reward_scale is 3");
    o = sampled_defaults();
    o.rounds.reward_scale = PREFOPT_REWARD_STANDARDISE;
    ONLINE(PREFOPT_ERR_ARGUMENT, "reward_scale is 1, but it ranks");
    o = sampled_defaults();
    o.rounds.reward_clip = 1;
    ONLINE(PREFOPT_ERR_ARGUMENT, "reward_clip is 1, but it ranks");
    o = sampled_defaults();
    o.rounds.prompts = 4;
    o.train.batch = 3;
    ONLINE(PREFOPT_ERR_ARGUMENT, "batch is 3, but with steps 1");
    PG(PREFOPT_ERR_ARGUMENT, "expected 0 or 4");
    o = sampled_defaults();
    o.ranker.rule = 17;
    ONLINE(PREFOPT_ERR_ARGUMENT, "rule is 17");
    reference = NULL;
    o = sampled_defaults();
    o.rounds.refresh = 1;
    o.dpo.variant = PREFOPT_DPO_SIMPO;
    ONLINE(PREFOPT_ERR_ARGUMENT, "no reference to refresh");
    PG(PREFOPT_ERR_ARGUMENT, "no reference to refresh");
    ck_assert_ptr_null(t);
    FAILS(PREFOPT_ERR_ARGUMENT, "options", prefopt_round_options_init(NULL, sizeof o.rounds));
    FAILS(PREFOPT_ERR_VERSION, "prefopt_round_options", prefopt_round_options_init(&o.rounds, 3));
    rounds_world_free(&s);
    prefopt_context_destroy(context);
}
END_TEST

TEST_MAIN("rounds", defaults_are_one_step_a_round, one_round_is_dpo_on_its_pairs,
          rounds_go_on_from_the_policy, references_are_refreshed, failed_rounds_leave_no_trace,
          rounds_without_pairs, seconds_are_told, rounds_refuse)
