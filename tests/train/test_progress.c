/* What progress tells of chosen and rejected sequences and of tokens, against sums by hand. */
#include <stdbool.h>

#include "train_test.h"

/* Means by weight over the rows of pairs: chosen, rejected. score: of all sequences of the data. */
static void means(const prefopt_dataset *pairs, const double *score, double out[2])
{
    prefopt_columns columns = columns_of(pairs);
    double total = 0;
    out[0] = out[1] = 0;
    for (int64_t i = 0; i < columns.n_rows; i++) {
        total += columns.weight[i];
        for (int j = 0; j < 2; j++)
            out[j] += columns.weight[i] * score[2 * i + j];
    }
    out[0] /= total;
    out[1] /= total;
}

static int64_t distinct_tokens(const prefopt_sequences *in)
{
    int64_t n = 0;
    for (int64_t i = 0; i < in->n; i++) {
        int64_t len = in->offsets[i + 1] - in->offsets[i];
        bool seen = false;
        for (int64_t j = 0; j < i; j++)
            seen |= in->offsets[j + 1] - in->offsets[j] == len &&
                    in->prompt_len[j] == in->prompt_len[i] &&
                    memcmp(in->tokens + in->offsets[i], in->tokens + in->offsets[j],
                           (size_t)len * sizeof *in->tokens) == 0;
        n += seen ? 0 : len;
    }
    return n;
}

START_TEST(dpo_tells_scores_and_logps)
{
    prefopt_context *context = test_context(1);
    world w = world_new(context, 2, 3, 2, -1);
    prefopt_dataset *pairs = random_pairs(&w, 1, 20);
    prefopt_sequences in = sequences_of(pairs);
    randomise(w.policy, 3, 1);
    prefopt_reference *reference;
    OK(prefopt_reference_freeze(&reference, w.policy));
    randomise(w.policy, 4, 1);
    double *logp = calloc((size_t)in.n, sizeof *logp), *ref = calloc((size_t)in.n, sizeof *ref);
    double *score = calloc((size_t)in.n, sizeof *score), mean_logp[2], mean_score[2];
    OK(prefopt_policy_logprobs(w.policy, &in, logp, NULL));
    OK(prefopt_reference_logprobs(reference, &in, ref));
    prefopt_dpo_options dpo;
    OK(prefopt_dpo_options_init(&dpo, sizeof dpo));
    dpo.beta = 0.3;
    for (int64_t i = 0; i < in.n; i++)
        score[i] = dpo.beta * (logp[i] - ref[i]);
    means(pairs, logp, mean_logp);
    means(pairs, score, mean_score);
    prefopt_trainer *trainer;
    prefopt_progress last = {.struct_size = sizeof last};
    OK(prefopt_trainer_create_dpo(&trainer, w.policy, reference, pairs, &dpo, NULL));
    OK(prefopt_trainer_run(trainer, 1, &last));
    CLOSE(last.chosen_logp, mean_logp[0], 1e-12);
    CLOSE(last.rejected_logp, mean_logp[1], 1e-12);
    CLOSE(last.chosen_score, mean_score[0], 1e-12);
    CLOSE(last.rejected_score, mean_score[1], 1e-12);
    CLOSE(last.margin, last.chosen_score - last.rejected_score, 1e-12);
    ck_assert_int_eq(last.tokens, distinct_tokens(&in));
    prefopt_trainer_destroy(trainer);
    free(logp);
    free(ref);
    free(score);
    prefopt_reference_destroy(reference);
    prefopt_dataset_destroy(pairs);
    world_free(&w);
    prefopt_context_destroy(context);
}
END_TEST

START_TEST(rewards_have_no_logps)
{
    prefopt_context *context = test_context(1);
    world w = world_new(context, 2, 3, 2, -1);
    prefopt_dataset *pairs = random_pairs(&w, 2, 20);
    prefopt_sequences in = sequences_of(pairs);
    prefopt_reward *reward = tabular_reward(&w, w.all);
    prefopt_parameters p = {.struct_size = sizeof p};
    OK(prefopt_reward_parameters(reward, &p));
    OK(prefopt_random_normal(5, 0, 0, p.n, p.value));
    double *score = calloc((size_t)in.n, sizeof *score), mean_score[2];
    OK(prefopt_reward_scores(reward, &in, score));
    means(pairs, score, mean_score);
    prefopt_trainer *trainer;
    prefopt_progress last = {.struct_size = sizeof last};
    OK(prefopt_trainer_create_reward(&trainer, reward, pairs, NULL, NULL));
    OK(prefopt_trainer_run(trainer, 1, &last));
    CLOSE(last.chosen_score, mean_score[0], 1e-12);
    CLOSE(last.rejected_score, mean_score[1], 1e-12);
    ck_assert(isnan(last.chosen_logp) && isnan(last.rejected_logp));
    prefopt_trainer_destroy(trainer);
    free(score);
    prefopt_reward_destroy(reward);
    prefopt_dataset_destroy(pairs);
    world_free(&w);
    prefopt_context_destroy(context);
}
END_TEST

/* A ranking counts by its neighbours, as margin does. */
START_TEST(rankings_count_neighbours)
{
    prefopt_context *context = test_context(1);
    world w = world_new(context, 1, 4, 1, -1);
    prefopt_dataset *rankings;
    prefopt_row row = {.struct_size = sizeof row};
    OK(prefopt_dataset_create(&rankings, context));
    OK(prefopt_dataset_row(w.all, 0, &row));
    row.kind = PREFOPT_ROW_RANKING;
    OK(prefopt_dataset_append(rankings, &row));
    randomise(w.policy, 6, 1);
    prefopt_sequences in = sequences_of(rankings);
    double logp[4];
    ck_assert_int_eq(in.n, 4);
    OK(prefopt_policy_logprobs(w.policy, &in, logp, NULL));
    prefopt_reference *uniform;
    prefopt_trainer *trainer;
    prefopt_progress last = {.struct_size = sizeof last};
    OK(prefopt_reference_create_uniform(&uniform, context, &w.space));
    OK(prefopt_trainer_create_dpo(&trainer, w.policy, uniform, rankings, NULL, NULL));
    OK(prefopt_trainer_run(trainer, 1, &last));
    CLOSE(last.chosen_logp, (logp[0] + logp[1] + logp[2]) / 3, 1e-12);
    CLOSE(last.rejected_logp, (logp[1] + logp[2] + logp[3]) / 3, 1e-12);
    CLOSE(last.margin, last.chosen_score - last.rejected_score, 1e-12);
    ck_assert_int_eq(last.tokens, 8);
    prefopt_trainer_destroy(trainer);
    prefopt_reference_destroy(uniform);
    prefopt_dataset_destroy(rankings);
    world_free(&w);
    prefopt_context_destroy(context);
}
END_TEST

/* Completions of exactly two tokens after one of the prompt: 3 tokens each, 2 prompts, 4 samples.
 */
START_TEST(samples_are_counted)
{
    prefopt_context *context = test_context(1);
    world w = world_new(context, 2, 3, 2, -1);
    prefopt_reward *reward = tabular_reward(&w, w.all);
    prefopt_parameters p = {.struct_size = sizeof p};
    OK(prefopt_reward_parameters(reward, &p));
    OK(prefopt_random_normal(5, 0, 0, p.n, p.value));
    prefopt_reference *reference;
    OK(prefopt_reference_freeze(&reference, w.policy));
    prefopt_sampler_options sampler;
    OK(prefopt_sampler_options_init(&sampler, sizeof sampler));
    sampler.n = 4;
    for (int i = 0; i < 2; i++) {
        prefopt_trainer *trainer;
        prefopt_progress last = {.struct_size = sizeof last};
        if (i == 0)
            OK(prefopt_trainer_create_online_dpo(&trainer, w.policy, reference, reward, w.prompts,
                                                 NULL, &sampler, NULL, NULL, NULL));
        else
            OK(prefopt_trainer_create_policy_gradient(&trainer, w.policy, reference, reward,
                                                      w.prompts, NULL, &sampler, NULL, NULL));
        OK(prefopt_trainer_run(trainer, 1, &last));
        ck_assert_int_eq(last.tokens, 2 * 4 * 3);
        ck_assert(isnan(last.chosen_score) == (i == 1));
        ck_assert(isnan(last.chosen_logp) == (i == 1));
        prefopt_trainer_destroy(trainer);
    }
    prefopt_reference_destroy(reference);
    prefopt_reward_destroy(reward);
    world_free(&w);
    prefopt_context_destroy(context);
}
END_TEST

START_TEST(steps_are_told)
{
    prefopt_context *context = test_context(1);
    world w = world_new(context, 2, 3, 1, -1);
    prefopt_trainer *trainer;
    int64_t step = -5;
    OK(prefopt_trainer_create_mle(&trainer, w.policy, w.all, NULL));
    OK(prefopt_trainer_step(trainer, &step));
    ck_assert_int_eq(step, 0);
    OK(prefopt_trainer_run(trainer, 3, NULL));
    OK(prefopt_trainer_run(trainer, 4, NULL));
    OK(prefopt_trainer_step(trainer, &step));
    ck_assert_int_eq(step, 7);
    FAILS(PREFOPT_ERR_ARGUMENT, "trainer", prefopt_trainer_step(NULL, &step));
    FAILS(PREFOPT_ERR_ARGUMENT, "step", prefopt_trainer_step(trainer, NULL));
    ck_assert_int_eq(step, 7);
    prefopt_trainer_destroy(trainer);
    world_free(&w);
    prefopt_context_destroy(context);
}
END_TEST

TEST_MAIN("progress", dpo_tells_scores_and_logps, rewards_have_no_logps, rankings_count_neighbours,
          samples_are_counted, steps_are_told)
