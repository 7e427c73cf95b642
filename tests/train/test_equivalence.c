/* The two roads: a reward model and its soft-optimal policy, and DPO, are one logistic regression
 * (lecture 22.4). */
#include "train_test.h"

typedef struct {
    int64_t prompts, vocab, horizon;
    int32_t eos;
    double beta, reference; /* reference: spread of its logits; 0: uniform */
} road;

static const road roads[] = {
    {1, 3, 1, -1, 0.1, 0}, {1, 5, 1, -1, 1, 1},  {3, 4, 1, -1, 0.5, 1},
    {2, 2, 3, -1, 0.2, 1}, {2, 3, 2, 0, 1, 0.7}, {1, 3, 3, 2, 0.05, 0.3},
};

static prefopt_reference *reference_of(const world *w, double spread)
{
    prefopt_reference *reference;
    prefopt_policy *policy = tabular_policy(w);
    randomise(policy, 99, spread);
    OK(prefopt_reference_freeze(&reference, policy));
    prefopt_policy_destroy(policy);
    return reference;
}

static void fit(prefopt_trainer *trainer)
{
    prefopt_progress result = {.struct_size = sizeof result};
    OK(prefopt_trainer_fit(trainer, &result));
    ck_assert_double_le(result.grad_norm, 1e-10);
}

/* Both roads from the same data end at the same policy, and at the same loss. */
static void walk(const road *r, prefopt_context *context)
{
    world w = world_new(context, r->prompts, r->vocab, r->horizon, r->eos);
    prefopt_dataset *pairs = random_pairs(&w, 5, 2 * w.n);
    prefopt_reference *reference = reference_of(&w, r->reference);
    prefopt_dpo_options dpo;
    OK(prefopt_dpo_options_init(&dpo, sizeof dpo));
    dpo.beta = r->beta;

    prefopt_trainer *direct, *reward_trainer;
    prefopt_reward *reward = tabular_reward(&w, pairs);
    OK(prefopt_trainer_create_dpo(&direct, w.policy, reference, pairs, &dpo, NULL));
    OK(prefopt_trainer_create_reward(&reward_trainer, reward, pairs, NULL, NULL));
    fit(direct);
    fit(reward_trainer);

    double *logp = all_logps(&w, w.policy), *ref = all_refs(&w, reference);
    double *score = all_scores(&w, reward), *soft = calloc((size_t)w.n, sizeof *soft);
    soft_optimal(&w, ref, score, r->beta, soft);
    double distance = total_variation(&w, logp, soft);
    ck_assert_msg(distance < 1e-8, "total variation %g (beta %g, horizon %lld)", distance, r->beta,
                  (long long)r->horizon);
    double direct_loss, reward_loss;
    OK(prefopt_trainer_loss(direct, &direct_loss));
    OK(prefopt_trainer_loss(reward_trainer, &reward_loss));
    CLOSE(direct_loss, reward_loss, 1e-12);
    ck_assert_double_gt(total_variation(&w, logp, ref), 0.01); /* something was learnt */

    free(logp);
    free(ref);
    free(score);
    free(soft);
    prefopt_trainer_destroy(direct);
    prefopt_trainer_destroy(reward_trainer);
    prefopt_reward_destroy(reward);
    prefopt_reference_destroy(reference);
    prefopt_dataset_destroy(pairs);
    world_free(&w);
}

START_TEST(two_roads_meet)
{
    prefopt_context *context = test_context(1);
    for (size_t i = 0; i < sizeof roads / sizeof *roads; i++)
        walk(&roads[i], context);
    prefopt_context_destroy(context);
}
END_TEST

/* Bradley-Terry on the implicit reward is DPO: the same loss at any parameters, the same optimum.
 */
START_TEST(implicit_reward_is_dpo)
{
    prefopt_context *context = test_context(1);
    world w = world_new(context, 2, 3, 2, -1);
    prefopt_dataset *pairs = random_pairs(&w, 11, 20);
    prefopt_reference *reference = reference_of(&w, 1);
    prefopt_policy *other = tabular_policy(&w);
    prefopt_reward *implicit;
    prefopt_dpo_options dpo;
    OK(prefopt_dpo_options_init(&dpo, sizeof dpo));
    dpo.beta = 0.3;
    OK(prefopt_reward_create_implicit(&implicit, other, reference, dpo.beta));
    prefopt_trainer *direct, *by_reward;
    OK(prefopt_trainer_create_dpo(&direct, w.policy, reference, pairs, &dpo, NULL));
    OK(prefopt_trainer_create_reward(&by_reward, implicit, pairs, NULL, NULL));
    for (uint64_t seed = 0; seed < 5; seed++) {
        double a, b;
        randomise(w.policy, seed, 2);
        randomise(other, seed, 2);
        OK(prefopt_trainer_loss(direct, &a));
        OK(prefopt_trainer_loss(by_reward, &b));
        CLOSE(a, b, 1e-12);
    }
    fit(direct);
    fit(by_reward);
    double *p = all_logps(&w, w.policy), *q = all_logps(&w, other);
    ck_assert_double_lt(total_variation(&w, p, q), 1e-8);
    free(p);
    free(q);
    prefopt_trainer_destroy(direct);
    prefopt_trainer_destroy(by_reward);
    prefopt_reward_destroy(implicit);
    prefopt_reference_destroy(reference);
    prefopt_policy_destroy(other);
    prefopt_dataset_destroy(pairs);
    world_free(&w);
    prefopt_context_destroy(context);
}
END_TEST

/* With separable data and a prior on the scores every road ends at the same policy: the tabular
 * reward with `ridge` or `score_ridge`, the implicit reward and DPO with `score_ridge`. */
START_TEST(a_prior_on_scores_serves_every_class)
{
    prefopt_context *context = test_context(1);
    world w = world_new(context, 2, 2, 2, -1);
    prefopt_dataset *pairs;
    OK(prefopt_dataset_create(&pairs, context));
    for (int64_t prompt = 0; prompt < 2; prompt++)
        for (int64_t i = 0; i + 1 < 4; i++)
            add_pair(&w, pairs, prompt, i, i + 1, 1 + (double)i, 1, 0);
    prefopt_reference *reference = reference_of(&w, 1);
    prefopt_policy *policies[2] = {w.policy, tabular_policy(&w)};
    prefopt_reward *rewards[3] = {tabular_reward(&w, pairs), tabular_reward(&w, pairs)};
    prefopt_trainer *trainers[4];
    prefopt_dpo_options dpo;
    OK(prefopt_dpo_options_init(&dpo, sizeof dpo));
    dpo.beta = 0.2;
    OK(prefopt_reward_create_implicit(&rewards[2], policies[1], reference, dpo.beta));
    prefopt_train_options ridge = train_defaults(), score_ridge = train_defaults();
    ridge.ridge = score_ridge.score_ridge = 0.5;
    OK(prefopt_trainer_create_reward(&trainers[0], rewards[0], pairs, NULL, &ridge));
    OK(prefopt_trainer_create_reward(&trainers[1], rewards[1], pairs, NULL, &score_ridge));
    OK(prefopt_trainer_create_reward(&trainers[2], rewards[2], pairs, NULL, &score_ridge));
    OK(prefopt_trainer_create_dpo(&trainers[3], policies[0], reference, pairs, &dpo, &score_ridge));
    for (int32_t i = 0; i < 4; i++)
        fit(trainers[i]);
    double *ref = all_refs(&w, reference), *got[4];
    for (int32_t i = 0; i < 2; i++) {
        double *score = all_scores(&w, rewards[i]);
        got[i] = calloc((size_t)w.n, sizeof *got[i]);
        soft_optimal(&w, ref, score, dpo.beta, got[i]);
        free(score);
    }
    got[2] = all_logps(&w, policies[1]);
    got[3] = all_logps(&w, policies[0]);
    double loss[4];
    for (int32_t i = 0; i < 4; i++) {
        ck_assert_double_lt(total_variation(&w, got[0], got[i]), 1e-8);
        OK(prefopt_trainer_loss(trainers[i], &loss[i]));
        CLOSE(loss[i], loss[0], 1e-12);
    }
    for (int32_t i = 0; i < 4; i++) {
        prefopt_trainer_destroy(trainers[i]);
        free(got[i]);
    }
    for (int32_t i = 0; i < 3; i++)
        prefopt_reward_destroy(rewards[i]);
    free(ref);
    prefopt_reference_destroy(reference);
    prefopt_policy_destroy(policies[1]);
    prefopt_dataset_destroy(pairs);
    world_free(&w);
    prefopt_context_destroy(context);
}
END_TEST

/* The enumerated objective ends where the closed form says: softmax(log ref + r / beta). */
START_TEST(soft_rl_reaches_the_closed_form)
{
    prefopt_context *context = test_context(1);
    for (size_t i = 0; i < sizeof roads / sizeof *roads; i++) {
        const road *r = &roads[i];
        world w = world_new(context, r->prompts, r->vocab, r->horizon, r->eos);
        prefopt_reference *reference = reference_of(&w, r->reference);
        prefopt_reward *reward = tabular_reward(&w, w.all);
        prefopt_parameters p = {.struct_size = sizeof p};
        OK(prefopt_reward_parameters(reward, &p));
        for (int64_t k = 0; k < p.n; k++)
            ((double *)p.value)[k] = uniform(3, (uint64_t)k);
        OK(prefopt_reward_updated(reward));
        prefopt_trainer *trainer;
        double beta = fmax(r->beta, 0.1);
        OK(prefopt_trainer_create_soft_rl(&trainer, w.policy, reference, reward, w.prompts, beta,
                                          NULL));
        fit(trainer);
        double *logp = all_logps(&w, w.policy), *ref = all_refs(&w, reference);
        double *score = all_scores(&w, reward), *soft = calloc((size_t)w.n, sizeof *soft);
        soft_optimal(&w, ref, score, beta, soft);
        ck_assert_double_lt(total_variation(&w, logp, soft), 1e-8);
        /* J at the optimum is beta log Z, averaged over the prompts. */
        prefopt_columns columns = columns_of(w.all);
        double loss, expected = 0;
        for (int64_t x = 0; x < w.n_prompts; x++) {
            int64_t first = columns.first[x], n = columns.first[x + 1] - first;
            for (int64_t j = first; j < first + n; j++)
                soft[j] = ref[j] + score[j] / beta;
            expected -= beta * prefopt_log_sum_exp(n, soft + first) / (double)w.n_prompts;
        }
        OK(prefopt_trainer_loss(trainer, &loss));
        CLOSE(loss, expected, 1e-12);
        free(logp);
        free(ref);
        free(score);
        free(soft);
        prefopt_trainer_destroy(trainer);
        prefopt_reward_destroy(reward);
        prefopt_reference_destroy(reference);
        world_free(&w);
    }
    prefopt_context_destroy(context);
}
END_TEST

TEST_MAIN("equivalence", two_roads_meet, implicit_reward_is_dpo,
          a_prior_on_scores_serves_every_class, soft_rl_reaches_the_closed_form)
