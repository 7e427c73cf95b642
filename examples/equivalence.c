/* Lecture 22.4: with isomorphic classes and exact optima both roads end at the same policy; with a
 * reward class that is too small they do not. */
#include <math.h>

#include "support/cli.h"

enum { VOCAB = 3, HORIZON = 2, N_PROMPTS = 2 };

/* Every pair of completions of each prompt, labelled by a Bradley-Terry labeller whose rewards are
 * random: soft labels, so that a finite optimum exists. */
static prefopt_dataset *labelled_pairs(prefopt_context *context, const prefopt_dataset *all)
{
    prefopt_dataset *pairs;
    CALL(prefopt_dataset_create(&pairs, context));
    for (int64_t x = 0; x < N_PROMPTS; x++) {
        prefopt_row row = {.struct_size = sizeof row};
        CALL(prefopt_dataset_row(all, x, &row));
        double r[64];
        CALL(prefopt_random_normal(1, (uint64_t)x, 0, row.n_completions, r));
        for (int64_t i = 0; i < row.n_completions; i++)
            for (int64_t j = i + 1; j < row.n_completions; j++)
                CALL(prefopt_dataset_append_pair(
                    pairs, row.prompt, row.prompt_len, row.completions + row.completion_offsets[i],
                    row.completion_offsets[i + 1] - row.completion_offsets[i],
                    row.completions + row.completion_offsets[j],
                    row.completion_offsets[j + 1] - row.completion_offsets[j], 1,
                    prefopt_sigmoid(r[i] - r[j]), 0));
    }
    return pairs;
}

static prefopt_equivalence compare(const prefopt_dataset *pairs, prefopt_policy *policy,
                                   prefopt_reference *reference, prefopt_reward *reward,
                                   double beta)
{
    prefopt_equivalence report = {.struct_size = sizeof report};
    prefopt_trainer *trainer;
    CALL(prefopt_trainer_create_reward(&trainer, reward, pairs, NULL, NULL));
    CALL(prefopt_trainer_fit(trainer, NULL));
    prefopt_trainer_destroy(trainer);
    CALL(prefopt_report_equivalence(&report, NULL, 0, pairs, policy, reference, reward, beta));
    return report;
}

int main(void)
{
    prefopt_context *context;
    prefopt_dataset *prompts, *all;
    prefopt_policy *base, *policy;
    prefopt_reference *reference;
    prefopt_space space = {
        .struct_size = sizeof space, .eos = -1, .vocab = VOCAB, .horizon = HORIZON};
    const int32_t prompt_tokens[N_PROMPTS] = {7, 8};
    const int64_t offsets[] = {0, 1, 2}, prompt_len[] = {1, 1};
    prefopt_sequences prompt_view = {.struct_size = sizeof prompt_view,
                                     .n = N_PROMPTS,
                                     .tokens = prompt_tokens,
                                     .offsets = offsets,
                                     .prompt_len = prompt_len};
    CALL(prefopt_context_create(&context, NULL));
    CALL(prefopt_dataset_create(&prompts, context));
    for (int x = 0; x < N_PROMPTS; x++) {
        prefopt_row row;
        CALL(prefopt_row_init(&row, sizeof row));
        row.prompt = &prompt_tokens[x];
        row.prompt_len = 1;
        CALL(prefopt_dataset_append(prompts, &row));
    }
    /* A reference policy that is not uniform. */
    prefopt_parameters logits = {.struct_size = sizeof logits};
    CALL(prefopt_policy_create_tabular(&base, context, &space, &prompt_view));
    CALL(prefopt_policy_parameters(base, &logits));
    CALL(prefopt_random_normal(2, 0, 0, logits.n, logits.value));
    CALL(prefopt_policy_updated(base));
    CALL(prefopt_reference_freeze(&reference, base));
    CALL(prefopt_policy_enumerate(&all, base, prompts, 0));
    prefopt_dataset *pairs = labelled_pairs(context, all);
    prefopt_sequences sequences = {.struct_size = sizeof sequences};
    CALL(prefopt_dataset_sequences(all, &sequences));

    double worst = 0, least = 1;
    printf("%6s  %-12s %16s %16s\n", "beta", "reward class", "total variation", "loss difference");
    for (double beta = 0.1; beta < 3; beta *= 3) {
        prefopt_trainer *trainer;
        prefopt_dpo_options dpo;
        CALL(prefopt_dpo_options_init(&dpo, sizeof dpo));
        dpo.beta = beta;
        CALL(prefopt_policy_create_tabular(&policy, context, &space, &prompt_view));
        CALL(prefopt_trainer_create_dpo(&trainer, policy, reference, pairs, &dpo, NULL));
        CALL(prefopt_trainer_fit(trainer, NULL));
        prefopt_trainer_destroy(trainer);
        for (int restricted = 0; restricted < 2; restricted++) {
            prefopt_reward *reward;
            double first_token[64]; /* the restricted class sees one feature: the first token */
            for (int64_t i = 0; i < sequences.n; i++)
                first_token[i] = sequences.tokens[sequences.offsets[i] + 1];
            if (restricted)
                CALL(prefopt_reward_create_linear(&reward, context, &sequences, 1, first_token));
            else
                CALL(prefopt_reward_create_tabular(&reward, context, &sequences));
            prefopt_equivalence e = compare(pairs, policy, reference, reward, beta);
            printf("%6.2f  %-12s %16.2e %16.2e\n", beta, restricted ? "one feature" : "tabular",
                   e.max_total_variation, e.loss_difference);
            worst = restricted ? worst : fmax(worst, e.max_total_variation);
            least = restricted ? fmin(least, e.total_variation) : least;
            prefopt_reward_destroy(reward);
        }
        prefopt_policy_destroy(policy);
    }
    prefopt_dataset_destroy(pairs);
    prefopt_dataset_destroy(all);
    prefopt_reference_destroy(reference);
    prefopt_policy_destroy(base);
    prefopt_dataset_destroy(prompts);
    prefopt_context_destroy(context);
    return worst < 1e-8 && least > 0.01 ? 0 : 1;
}
