/* The objectives that sample: policy gradients against the enumerated gradient, online DPO against
 * the optimum of J. */
#include "train_test.h"

typedef struct {
    world w;
    prefopt_reference *reference;
    prefopt_reward *reward;
    double *ref, *score; /* w.n */
} setting;

/* Rewards are uniform on (0, 1); the reference is random. */
static setting setting_new(prefopt_context *context, int64_t prompts, int64_t vocab,
                           int64_t horizon)
{
    setting s = {.w = world_new(context, prompts, vocab, horizon, -1)};
    prefopt_policy *policy = tabular_policy(&s.w);
    randomise(policy, 5, 0.7);
    OK(prefopt_reference_freeze(&s.reference, policy));
    prefopt_policy_destroy(policy);
    s.reward = tabular_reward(&s.w, s.w.all);
    prefopt_parameters p = {.struct_size = sizeof p};
    OK(prefopt_reward_parameters(s.reward, &p));
    for (int64_t k = 0; k < p.n; k++)
        ((double *)p.value)[k] = uniform(6, (uint64_t)k);
    OK(prefopt_reward_updated(s.reward));
    s.ref = all_refs(&s.w, s.reference);
    s.score = all_scores(&s.w, s.reward);
    return s;
}

static void setting_free(setting *s)
{
    free(s->ref);
    free(s->score);
    prefopt_reference_destroy(s->reference);
    prefopt_reward_destroy(s->reward);
    world_free(&s->w);
}

/* J = E[r] - beta KL, averaged over the prompts. */
static double objective_of(const setting *s, const double *logp, double beta)
{
    double j = 0;
    for (int64_t i = 0; i < s->w.n; i++)
        j += exp(logp[i]) * (s->score[i] - beta * (logp[i] - s->ref[i]));
    return j / (double)s->w.n_prompts;
}

/* One SGD step at rate 1 from `start`: the gradient, as start - parameters after. */
static void gradient_of_step(prefopt_trainer *trainer, prefopt_policy *policy, const double *start,
                             double *grad)
{
    prefopt_parameters p = parameters_of(policy);
    memcpy(p.value, start, (size_t)p.n * sizeof *start);
    OK(prefopt_policy_updated(policy));
    OK(prefopt_trainer_run(trainer, 1, NULL));
    for (int64_t k = 0; k < p.n; k++)
        grad[k] = start[k] - ((double *)p.value)[k];
}

/* The mean of sampled gradients is within 4 standard errors of the enumerated one, coordinate by
 * coordinate (and their squared z-scores are about 1 on average). */
static void check_unbiased(const setting *s, const prefopt_pg_options *pg,
                           const prefopt_sampler_options *sampler, double factor)
{
    enum { STEPS = 3000 };
    prefopt_train_options o = train_defaults();
    o.optimiser = PREFOPT_SGD;
    o.learning_rate = 1;
    prefopt_policy *policy = tabular_policy(&s->w);
    randomise(policy, 8, 0.5);
    prefopt_parameters p = parameters_of(policy);
    size_t bytes = (size_t)p.n * sizeof(double);
    double *start = malloc(bytes), *exact = malloc(bytes), *one = malloc(bytes);
    double *sum = calloc(1, bytes), *square = calloc(1, bytes), chi = 0;
    memcpy(start, p.value, bytes);
    prefopt_trainer *trainer, *sampled;
    OK(prefopt_trainer_create_soft_rl(&trainer, policy, s->reference, s->reward, s->w.prompts,
                                      pg->beta, &o));
    gradient_of_step(trainer, policy, start, exact);
    prefopt_trainer_destroy(trainer);
    OK(prefopt_trainer_create_policy_gradient(&sampled, policy, s->reference, s->reward,
                                              s->w.prompts, pg, sampler, NULL, &o));
    for (int32_t t = 0; t < STEPS; t++) {
        gradient_of_step(sampled, policy, start, one);
        for (int64_t k = 0; k < p.n; k++) {
            sum[k] += one[k];
            square[k] += one[k] * one[k];
        }
    }
    for (int64_t k = 0; k < p.n; k++) {
        double mean = sum[k] / STEPS, variance = square[k] / STEPS - mean * mean;
        double z = (mean - factor * exact[k]) / sqrt(variance / STEPS);
        ck_assert_msg(fabs(z) < 4, "baseline %d, placement %d, estimator %d: z = %g", pg->baseline,
                      pg->kl_placement, pg->kl_estimator, z);
        chi += z * z / (double)p.n;
    }
    ck_assert_double_lt(chi, 2.5);
    prefopt_trainer_destroy(sampled);
    prefopt_policy_destroy(policy);
    free(start);
    free(exact);
    free(one);
    free(sum);
    free(square);
}

START_TEST(sampled_gradients_are_unbiased)
{
    prefopt_context *context = test_context(1);
    setting s = setting_new(context, 2, 2, 2);
    prefopt_sampler_options sampler;
    OK(prefopt_sampler_options_init(&sampler, sizeof sampler));
    sampler.n = 4;
    prefopt_pg_options pg;
    OK(prefopt_pg_options_init(&pg, sizeof pg));
    pg.beta = 0.5;
    check_unbiased(&s, &pg, &sampler, 1);
    pg.baseline = PREFOPT_BASELINE_NONE;
    check_unbiased(&s, &pg, &sampler, 1);
    pg.baseline = PREFOPT_BASELINE_MEAN;
    check_unbiased(&s, &pg, &sampler, 0.75); /* (n - 1) / n */
    pg.baseline = PREFOPT_BASELINE_LEAVE_ONE_OUT;
    pg.kl_placement = PREFOPT_KL_IN_LOSS;
    for (int32_t estimator = PREFOPT_KL_K1; estimator <= PREFOPT_KL_K3; estimator++) {
        pg.kl_estimator = estimator;
        check_unbiased(&s, &pg, &sampler, 1);
    }
    /* Warmer samples, weighted by their ratio. */
    pg.kl_placement = PREFOPT_KL_IN_REWARD;
    pg.kl_estimator = PREFOPT_KL_K1;
    pg.baseline = PREFOPT_BASELINE_NONE;
    sampler.temperature = 1.5;
    check_unbiased(&s, &pg, &sampler, 1);
    setting_free(&s);
    prefopt_context_destroy(context);
}
END_TEST

START_TEST(policy_gradient_climbs)
{
    prefopt_context *context = test_context(1);
    setting s = setting_new(context, 2, 3, 1);
    prefopt_pg_options pg;
    prefopt_sampler_options sampler;
    prefopt_train_options o = train_defaults();
    OK(prefopt_pg_options_init(&pg, sizeof pg));
    OK(prefopt_sampler_options_init(&sampler, sizeof sampler));
    pg.beta = 0.2;
    sampler.n = 32;
    o.learning_rate = 0.03;
    o.schedule = PREFOPT_LINEAR;
    o.schedule_steps = 400;
    prefopt_trainer *trainer;
    OK(prefopt_trainer_create_policy_gradient(&trainer, s.w.policy, s.reference, s.reward,
                                              s.w.prompts, &pg, &sampler, NULL, &o));
    prefopt_progress last = {.struct_size = sizeof last};
    OK(prefopt_trainer_run(trainer, 400, &last));
    ck_assert(isfinite(last.loss) && isfinite(last.kl) && last.reward > 0 && last.reward < 1);
    double *logp = all_logps(&s.w, s.w.policy), *best = calloc((size_t)s.w.n, sizeof *best);
    soft_optimal(&s.w, s.ref, s.score, pg.beta, best);
    double optimum = objective_of(&s, best, pg.beta), got = objective_of(&s, logp, pg.beta);
    ck_assert_double_gt(got, optimum - 0.01 * fabs(optimum));
    free(logp);
    free(best);
    prefopt_trainer_destroy(trainer);
    setting_free(&s);
    prefopt_context_destroy(context);
}
END_TEST

/* With soft labels from the true reward online DPO's optimum is that of J. */
START_TEST(online_dpo_reaches_the_optimum)
{
    prefopt_context *context = test_context(1);
    setting s = setting_new(context, 2, 3, 2);
    prefopt_dpo_options dpo;
    prefopt_sampler_options sampler;
    prefopt_ranker_options ranker;
    prefopt_train_options o = train_defaults();
    OK(prefopt_dpo_options_init(&dpo, sizeof dpo));
    OK(prefopt_sampler_options_init(&sampler, sizeof sampler));
    OK(prefopt_ranker_options_init(&ranker, sizeof ranker));
    dpo.beta = 0.2;
    sampler.n = 16;
    ranker.soft_labels = 1;
    ranker.rule = PREFOPT_PAIR_ALL;
    o.learning_rate = 0.05;
    o.schedule = PREFOPT_COSINE;
    o.schedule_steps = 300;
    prefopt_trainer *trainer;
    OK(prefopt_trainer_create_online_dpo(&trainer, s.w.policy, s.reference, s.reward, s.w.prompts,
                                         &dpo, &sampler, &ranker, NULL, &o));
    double *best = calloc((size_t)s.w.n, sizeof *best), *logp = all_logps(&s.w, s.w.policy);
    soft_optimal(&s.w, s.ref, s.score, dpo.beta, best);
    double optimum = objective_of(&s, best, dpo.beta), start = objective_of(&s, logp, dpo.beta);
    free(logp);
    prefopt_progress last = {.struct_size = sizeof last};
    OK(prefopt_trainer_run(trainer, 300, &last));
    logp = all_logps(&s.w, s.w.policy);
    double got = objective_of(&s, logp, dpo.beta);
    ck_assert_double_gt(optimum, 0);
    ck_assert_double_lt(start, 0.9 * optimum);
    ck_assert_msg(got > 0.99 * optimum, "J = %g, optimum %g", got, optimum);
    ck_assert(last.accuracy > 0 && last.accuracy <= 1 && isfinite(last.margin));
    free(logp);
    free(best);
    prefopt_trainer_destroy(trainer);
    setting_free(&s);
    prefopt_context_destroy(context);
}
END_TEST

/* Batches of prompts, the random rules, each variant's arrays; the same bits in two runs, however
 * they are cut. */
START_TEST(online_runs_repeat)
{
    prefopt_context *context = test_context(1);
    static const int32_t variants[] = {PREFOPT_DPO_SIGMOID, PREFOPT_DPO_SIMPO, PREFOPT_DPO_IPO};
    static const int32_t rules[] = {PREFOPT_PAIR_TOP_BOTTOM, PREFOPT_PAIR_RANDOM,
                                    PREFOPT_PAIR_BEST_AGAINST_EACH};
    for (int32_t v = 0; v < 3; v++) {
        setting s = setting_new(context, 5, 3, 2);
        prefopt_policy *other = tabular_policy(&s.w), *policies[2] = {s.w.policy, other};
        prefopt_dpo_options dpo;
        prefopt_sampler_options sampler;
        prefopt_ranker_options ranker;
        prefopt_train_options o = train_defaults();
        OK(prefopt_dpo_options_init(&dpo, sizeof dpo));
        OK(prefopt_sampler_options_init(&sampler, sizeof sampler));
        OK(prefopt_ranker_options_init(&ranker, sizeof ranker));
        dpo.variant = variants[v];
        ranker.rule = rules[v];
        sampler.n = 4;
        sampler.seed = 3;
        o.batch = 2;
        for (int32_t i = 0; i < 2; i++) {
            prefopt_trainer *trainer;
            prefopt_reference *reference = v == 1 ? NULL : s.reference;
            OK(prefopt_trainer_create_online_dpo(&trainer, policies[i], reference, s.reward,
                                                 s.w.prompts, &dpo, &sampler, &ranker, NULL, &o));
            OK(prefopt_trainer_run(trainer, i == 0 ? 12 : 5, NULL));
            if (i == 1)
                OK(prefopt_trainer_run(trainer, 7, NULL));
            prefopt_trainer_destroy(trainer);
        }
        prefopt_parameters p = parameters_of(s.w.policy), q = parameters_of(other);
        ck_assert_mem_eq(p.value, q.value, (size_t)p.n * sizeof(double));
        double moved = 0;
        for (int64_t k = 0; k < p.n; k++)
            moved = fmax(moved, fabs(((double *)p.value)[k]));
        ck_assert_double_gt(moved, 1e-3);
        prefopt_policy_destroy(other);
        setting_free(&s);
    }
    prefopt_context_destroy(context);
}
END_TEST

/* Arrays are borrowed for the call: what becomes of the stop tokens later does not matter. */
START_TEST(stop_tokens_are_copied)
{
    prefopt_context *context = test_context(1);
    setting s = setting_new(context, 2, 3, 1);
    for (int32_t kind = 0; kind < 2; kind++) {
        int32_t stop[] = {0, 2};
        prefopt_train_options o = train_defaults();
        prefopt_sampler_options sampler;
        prefopt_trainer *t;
        OK(prefopt_sampler_options_init(&sampler, sizeof sampler));
        sampler.stop = stop;
        sampler.n_stop = 2;
        if (kind == 0)
            OK(prefopt_trainer_create_policy_gradient(&t, s.w.policy, s.reference, s.reward,
                                                      s.w.prompts, NULL, &sampler, NULL, &o));
        else
            OK(prefopt_trainer_create_online_dpo(&t, s.w.policy, s.reference, s.reward, s.w.prompts,
                                                 NULL, &sampler, NULL, NULL, &o));
        stop[0] = stop[1] = 1000000; /* no token: a sampler that saw it would refuse */
        OK(prefopt_trainer_run(t, 3, NULL));
        prefopt_trainer_destroy(t);
    }
    setting_free(&s);
    prefopt_context_destroy(context);
}
END_TEST

/* Samples that are all alike give no pair: the step is counted, nothing moves. */
START_TEST(a_step_without_pairs)
{
    prefopt_context *context = test_context(1);
    setting s = setting_new(context, 1, 3, 1);
    prefopt_sequences in = sequences_of(s.w.all);
    const double sure[] = {0, -INFINITY, -INFINITY};
    OK(prefopt_policy_set_logprobs(s.w.policy, &in, sure));
    prefopt_train_options o = train_defaults();
    o.weight_decay = 0.5;
    prefopt_trainer *trainer;
    OK(prefopt_trainer_create_online_dpo(&trainer, s.w.policy, s.reference, s.reward, s.w.prompts,
                                         NULL, NULL, NULL, NULL, &o));
    prefopt_progress last = {.struct_size = sizeof last};
    prefopt_parameters p = parameters_of(s.w.policy);
    double before = ((double *)p.value)[0];
    OK(prefopt_trainer_run(trainer, 2, &last));
    ck_assert_int_eq(last.step, 2);
    ck_assert(isnan(last.loss) && isnan(last.grad_norm));
    CLOSE(last.reward, s.score[0], 1e-15);
    ck_assert_double_eq(((double *)p.value)[0], before);
    prefopt_trainer_destroy(trainer);
    setting_free(&s);
    prefopt_context_destroy(context);
}
END_TEST

static int32_t nan_scores(void *payload, const prefopt_sequences *in, double *score)
{
    (void)payload;
    for (int64_t i = 0; i < in->n; i++)
        score[i] = in->tokens[in->offsets[i]] == 91 ? NAN : 0;
    return PREFOPT_OK;
}

START_TEST(sampled_objectives_refuse)
{
    prefopt_context *context = test_context(1);
    setting s = setting_new(context, 2, 3, 1);
    prefopt_policy *policy = s.w.policy;
    prefopt_trainer *t = NULL;
    prefopt_pg_options pg;
    prefopt_sampler_options sampler;
    prefopt_train_options o = train_defaults();
#define PG(code, text)                                                                             \
    FAILS(code, text,                                                                              \
          prefopt_trainer_create_policy_gradient(&t, policy, s.reference, s.reward, s.w.prompts,   \
                                                 &pg, &sampler, NULL, &o))
#define RESET                                                                                      \
    OK(prefopt_pg_options_init(&pg, sizeof pg));                                                   \
    OK(prefopt_sampler_options_init(&sampler, sizeof sampler));                                    \
    o = train_defaults()
    RESET;
    sampler.n = 1;
    PG(PREFOPT_ERR_ARGUMENT, "LEAVE_ONE_OUT");
    RESET;
    sampler.without_replacement = 1;
    PG(PREFOPT_ERR_ARGUMENT, "without_replacement");
    RESET;
    sampler.temperature = 0;
    PG(PREFOPT_ERR_ARGUMENT, "temperature is 0");
    RESET;
    pg.clip_low = pg.clip_high = 0.2;
    PG(PREFOPT_ERR_ARGUMENT, "the ratio is 1");
    RESET;
    o.tolerance = 1e-3;
    PG(PREFOPT_ERR_ARGUMENT, "has no fit");
    RESET;
    o.score_ridge = 1;
    PG(PREFOPT_ERR_ARGUMENT, "score_ridge");
    RESET;
    pg.beta = 0.1;
    FAILS(PREFOPT_ERR_ARGUMENT, "reference is NULL, but beta is 0.1",
          prefopt_trainer_create_policy_gradient(&t, policy, NULL, s.reward, s.w.prompts, &pg,
                                                 &sampler, NULL, &o));
    FAILS(PREFOPT_ERR_ARGUMENT, "out is NULL",
          prefopt_trainer_create_policy_gradient(NULL, policy, s.reference, s.reward, s.w.prompts,
                                                 NULL, NULL, NULL, NULL));
    FAILS(PREFOPT_ERR_ARGUMENT, "policy is NULL",
          prefopt_trainer_create_policy_gradient(&t, NULL, s.reference, s.reward, s.w.prompts, NULL,
                                                 NULL, NULL, NULL));
    FAILS(PREFOPT_ERR_ARGUMENT, "reward is NULL",
          prefopt_trainer_create_policy_gradient(&t, policy, s.reference, NULL, s.w.prompts, NULL,
                                                 NULL, NULL, NULL));
    FAILS(PREFOPT_ERR_ARGUMENT, "prompts is NULL",
          prefopt_trainer_create_policy_gradient(&t, policy, s.reference, s.reward, NULL, NULL,
                                                 NULL, NULL, NULL));
    FAILS(PREFOPT_ERR_ARGUMENT, "out is NULL",
          prefopt_trainer_create_online_dpo(NULL, policy, s.reference, s.reward, s.w.prompts, NULL,
                                            NULL, NULL, NULL, NULL));
    FAILS(PREFOPT_ERR_ARGUMENT, "policy is NULL",
          prefopt_trainer_create_online_dpo(&t, NULL, s.reference, s.reward, s.w.prompts, NULL,
                                            NULL, NULL, NULL, NULL));
    FAILS(PREFOPT_ERR_ARGUMENT, "reference is NULL",
          prefopt_trainer_create_online_dpo(&t, policy, NULL, s.reward, s.w.prompts, NULL, NULL,
                                            NULL, NULL, NULL));
    FAILS(PREFOPT_ERR_ARGUMENT, "reward is NULL",
          prefopt_trainer_create_online_dpo(&t, policy, s.reference, NULL, s.w.prompts, NULL, NULL,
                                            NULL, NULL, NULL));
    FAILS(PREFOPT_ERR_ARGUMENT, "prompts is NULL",
          prefopt_trainer_create_online_dpo(&t, policy, s.reference, s.reward, NULL, NULL, NULL,
                                            NULL, NULL, NULL));
    sampler.n = 1;
    FAILS(PREFOPT_ERR_ARGUMENT, "n is 1, expected at least 2",
          prefopt_trainer_create_online_dpo(&t, policy, s.reference, s.reward, s.w.prompts, NULL,
                                            &sampler, NULL, NULL, NULL));
    sampler.n = 2;
    sampler.temperature = 0;
    FAILS(PREFOPT_ERR_ARGUMENT, "online_dpo: temperature is 0, expected > 0",
          prefopt_trainer_create_online_dpo(&t, policy, s.reference, s.reward, s.w.prompts, NULL,
                                            &sampler, NULL, NULL, NULL));
    ck_assert_ptr_null(t);
    OK(prefopt_trainer_create_online_dpo(&t, policy, s.reference, s.reward, s.w.prompts, NULL, NULL,
                                         NULL, NULL, NULL));
    double loss = 42;
    FAILS(PREFOPT_ERR_UNSUPPORTED, "online_dpo", prefopt_trainer_fit(t, NULL));
    FAILS(PREFOPT_ERR_UNSUPPORTED, "online_dpo", prefopt_trainer_loss(t, &loss));
    ck_assert_double_eq(loss, 42);
    prefopt_trainer_destroy(t);
    prefopt_reward_callbacks callbacks = {.struct_size = sizeof callbacks, .scores = nan_scores};
    prefopt_reward *broken;
    OK(prefopt_reward_create_custom(&broken, context, &callbacks, NULL));
    OK(prefopt_trainer_create_policy_gradient(&t, policy, s.reference, broken, s.w.prompts, NULL,
                                              NULL, NULL, NULL));
    FAILS(PREFOPT_ERR_NUMERIC, "policy_gradient: step 1 of 3 (1 since the trainer was made): row 1",
          prefopt_trainer_run(t, 3, NULL));
    prefopt_trainer_destroy(t);
    OK(prefopt_trainer_create_online_dpo(&t, policy, s.reference, broken, s.w.prompts, NULL, NULL,
                                         NULL, NULL, NULL));
    FAILS(PREFOPT_ERR_NUMERIC, "row 1", prefopt_trainer_run(t, 3, NULL));
    prefopt_trainer_destroy(t);
    prefopt_reward_destroy(broken);
    setting_free(&s);
    prefopt_context_destroy(context);
}
END_TEST

START_TEST(memory_runs_out)
{
    for (int32_t kind = 0; kind < 2; kind++) {
        for (int64_t fail = 1;; fail++) {
            counting_allocator allocator = {0};
            prefopt_context *context = counting_context(&allocator);
            setting s = setting_new(context, 3, 3, 1);
            prefopt_train_options o = train_defaults();
            prefopt_sampler_options sampler;
            const int32_t stop[] = {1};
            OK(prefopt_sampler_options_init(&sampler, sizeof sampler));
            sampler.stop = stop;
            sampler.n_stop = 1;
            o.batch = 2;
            prefopt_trainer *t = NULL;
            int64_t before = allocator.live;
            allocator.fail_at = allocator.calls + fail;
            int32_t status =
                kind == 0
                    ? prefopt_trainer_create_policy_gradient(&t, s.w.policy, s.reference, s.reward,
                                                             s.w.prompts, NULL, &sampler, NULL, &o)
                    : prefopt_trainer_create_online_dpo(&t, s.w.policy, s.reference, s.reward,
                                                        s.w.prompts, NULL, &sampler, NULL, NULL,
                                                        &o);
            allocator.fail_at = 0;
            if (status != PREFOPT_OK) {
                ck_assert_int_eq(status, PREFOPT_ERR_MEMORY);
                ck_assert_ptr_null(t);
                ck_assert_int_eq(allocator.live, before);
            }
            setting_free(&s);
            prefopt_context_destroy(context);
            if (status == PREFOPT_OK)
                OK(prefopt_trainer_run(t, 3, NULL));
            prefopt_trainer_destroy(t);
            ck_assert_int_eq(allocator.live, 0);
            if (status == PREFOPT_OK)
                break;
        }
    }
}
END_TEST

TEST_MAIN("online_dpo", sampled_gradients_are_unbiased, policy_gradient_climbs,
          online_dpo_reaches_the_optimum, online_runs_repeat, stop_tokens_are_copied,
          a_step_without_pairs, sampled_objectives_refuse, memory_runs_out)
