/* Lecture 22.3: three completions, pi_ref = (1/2, 1/2, 0), and a labeller who always prefers the
 * first to the second. The data say nothing of the third: DPO's loss cannot see it, RLHF's KL
 * forbids it. */
#include <math.h>

#include "support/cli.h"

static const int32_t token[3] = {0, 1, 2};

/* DPO's loss of the one pair under a policy with these two log-probabilities. */
static double dpo_loss(double logp_first, double logp_second)
{
    const double ref = log(0.5);
    prefopt_dpo_options options;
    prefopt_pair_scores in = {.struct_size = sizeof in,
                              .n = 1,
                              .chosen = &logp_first,
                              .rejected = &logp_second,
                              .ref_chosen = &ref,
                              .ref_rejected = &ref};
    prefopt_pair_loss out = {.struct_size = sizeof out};
    CALL(prefopt_dpo_options_init(&options, sizeof options));
    CALL(prefopt_loss_dpo(&options, &in, &out));
    return out.mean;
}

int main(void)
{
    const int64_t offsets[] = {0, 1, 2, 3}, prompt_len[] = {0, 0, 0};
    prefopt_sequences all = {.struct_size = sizeof all,
                             .n = 3,
                             .tokens = token,
                             .offsets = offsets,
                             .prompt_len = prompt_len};
    prefopt_space space = {.struct_size = sizeof space, .eos = -1, .vocab = 3, .horizon = 1};
    double ref_logp[] = {log(0.5), log(0.5), -INFINITY}, logp[3], log_rlhf[3];
    prefopt_context *context;
    prefopt_reference *reference;
    prefopt_dataset *pairs;
    CALL(prefopt_context_create(&context, NULL));
    CALL(prefopt_reference_create_fixed(&reference, context, &all, ref_logp));
    CALL(prefopt_dataset_create(&pairs, context));
    CALL(prefopt_dataset_append_pair(pairs, NULL, 0, &token[0], 1, &token[1], 1, 1, 1, 0));

    /* 1. The DPO loss is bit-equal whatever the third completion gets. */
    double loss[3];
    for (int k = 0; k < 3; k++) {
        const double first[3] = {-0.375, -0.5, -4}; /* log pi(1); log pi(2) is 1 less */
        loss[k] = dpo_loss(first[k], first[k] - 1);
        printf("pi(3) = %.4f: DPO loss %.17g\n", 1 - exp(first[k]) - exp(first[k] - 1), loss[k]);
    }

    /* 2. A log-linear policy whose features tie the third completion to the first minus the second.
     */
    const double features[] = {1, 0, 0, 1, 4, -4};
    prefopt_policy *tied;
    prefopt_trainer *trainer;
    prefopt_train_options train;
    CALL(prefopt_policy_create_loglinear(&tied, context, &space, &all, 2, features, NULL));
    prefopt_coverage coverage = {.struct_size = sizeof coverage};
    prefopt_dataset *uncovered;
    CALL(prefopt_report_coverage(&coverage, &uncovered, pairs, tied, reference, NULL, 0));
    prefopt_row row = {.struct_size = sizeof row};
    CALL(prefopt_dataset_row(uncovered, 0, &row));
    printf("before training: at risk %d, %lld completion(s) uncovered, among them token %d with "
           "mass %.3f\n",
           coverage.at_risk, (long long)coverage.n_uncovered, row.completions[0],
           coverage.worst_policy_mass);
    int named = coverage.at_risk && row.completions[0] == 2;
    CALL(prefopt_train_options_init(&train, sizeof train));
    CALL(prefopt_trainer_create_dpo(&trainer, tied, reference, pairs, NULL, &train));
    CALL(prefopt_trainer_run(trainer, 1000, NULL));
    CALL(prefopt_policy_logprobs(tied, &all, logp, NULL));
    printf("DPO:  pi = (%.4f, %.4f, %.4f)\n", exp(logp[0]), exp(logp[1]), exp(logp[2]));

    /* 3. RLHF with a reward that is wrong where there are no data: r = (1, 0, 10). */
    const double reward[] = {1, 0, 10};
    CALL(prefopt_soft_optimal(3, ref_logp, reward, 1.0, log_rlhf, NULL));
    printf("RLHF: pi = (%.4f, %.4f, %.4f)\n", exp(log_rlhf[0]), exp(log_rlhf[1]), exp(log_rlhf[2]));

    prefopt_trainer_destroy(trainer);
    prefopt_dataset_destroy(uncovered);
    prefopt_policy_destroy(tied);
    prefopt_dataset_destroy(pairs);
    prefopt_reference_destroy(reference);
    prefopt_context_destroy(context);
    return loss[0] == loss[1] && loss[1] == loss[2] && named && exp(logp[2]) > 0.99 &&
                   exp(log_rlhf[2]) == 0
               ? 0
               : 1;
}
