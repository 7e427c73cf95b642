/* The losses alone, in a training loop of one's own: the caller has the model (here a softmax over
 * four completions), the library turns its log-probabilities into a DPO loss and its gradient. */
#include <math.h>

#include "support/cli.h"

enum { N_COMPLETIONS = 4, N_PAIRS = 6 };

int main(void)
{
    /* Pairs of completions: chosen, rejected, how often. */
    const int chosen_of[N_PAIRS] = {0, 1, 1, 2, 2, 3}, rejected_of[N_PAIRS] = {1, 0, 2, 1, 3, 2};
    const double times[N_PAIRS] = {7, 3, 6, 4, 8, 2};
    const double ref_logp = log(1.0 / N_COMPLETIONS);
    double logit[N_COMPLETIONS] = {0}, logp[N_COMPLETIONS];
    double chosen[N_PAIRS], rejected[N_PAIRS], ref[N_PAIRS];
    double grad_chosen[N_PAIRS], grad_rejected[N_PAIRS];
    for (int i = 0; i < N_PAIRS; i++)
        ref[i] = ref_logp;

    prefopt_dpo_options options;
    CALL(prefopt_dpo_options_init(&options, sizeof options));
    options.beta = 0.5;
    prefopt_pair_scores in = {.struct_size = sizeof in,
                              .n = N_PAIRS,
                              .chosen = chosen,
                              .rejected = rejected,
                              .ref_chosen = ref,
                              .ref_rejected = ref,
                              .weight = times};
    prefopt_pair_loss out = {
        .struct_size = sizeof out, .grad_chosen = grad_chosen, .grad_rejected = grad_rejected};

    for (int step = 0; step <= 2000; step++) {
        double log_z = prefopt_log_sum_exp(N_COMPLETIONS, logit);
        for (int y = 0; y < N_COMPLETIONS; y++)
            logp[y] = logit[y] - log_z;
        for (int i = 0; i < N_PAIRS; i++) { /* log-probabilities in ... */
            chosen[i] = logp[chosen_of[i]];
            rejected[i] = logp[rejected_of[i]];
        }
        CALL(prefopt_loss_dpo(&options, &in, &out));
        double grad_logp[N_COMPLETIONS] = {0}, sum = 0; /* ... gradients of them out */
        for (int i = 0; i < N_PAIRS; i++) {
            grad_logp[chosen_of[i]] += grad_chosen[i];
            grad_logp[rejected_of[i]] += grad_rejected[i];
        }
        for (int y = 0; y < N_COMPLETIONS; y++)
            sum += grad_logp[y];
        for (int y = 0; y < N_COMPLETIONS; y++) /* backward through the softmax, and a step */
            logit[y] -= 20 * (grad_logp[y] - exp(logp[y]) * sum);
        if (step % 500 == 0)
            printf("step %4d  loss %.6f\n", step, out.mean);
    }
    printf("policy:");
    for (int y = 0; y < N_COMPLETIONS; y++)
        printf(" %.4f", exp(logp[y]));
    printf("\n");
    /* At the optimum every pair's predicted odds are the observed ones: beta (l0 - l1) = log(7/3).
     */
    double odds = options.beta * (logp[0] - logp[1]);
    printf("beta log pi(0)/pi(1) = %.6f, log 7/3 = %.6f\n", odds, log(7.0 / 3));
    return fabs(odds - log(7.0 / 3)) < 1e-6 ? 0 : 1;
}
