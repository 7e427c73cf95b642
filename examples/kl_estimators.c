/* k1, k2 and k3 (soft RL, lecture 22.2): as estimates of the reverse KL they differ in bias and
 * spread; as losses they have different gradients altogether. Everything here is enumerated: exact.
 */
#include <math.h>

#include "support/cli.h"

enum { N = 8 };

int main(void)
{
    double logp[N], logq[N], reverse, forward, grad_reverse[N], grad_forward[N];
    CALL(prefopt_random_normal(5, 0, 0, N, logp));
    CALL(prefopt_random_normal(5, 1, 0, N, logq));
    double zp = prefopt_log_sum_exp(N, logp), zq = prefopt_log_sum_exp(N, logq);
    for (int i = 0; i < N; i++) {
        logp[i] -= zp;
        logq[i] -= zq;
    }
    CALL(prefopt_kl_exact(PREFOPT_KL_REVERSE, N, logp, logq, &reverse, grad_reverse));
    CALL(prefopt_kl_exact(PREFOPT_KL_FORWARD, N, logp, logq, &forward, grad_forward));
    printf("KL(p || q) = %.6f (reverse), KL(q || p) = %.6f (forward)\n\n", reverse, forward);

    printf("as estimates of the reverse KL, one sample from p:\n%4s %10s %10s %10s\n", "", "mean",
           "bias", "std dev");
    int faults = 0;
    for (int32_t k = PREFOPT_KL_K1; k <= PREFOPT_KL_K3; k++) {
        double each[N], mean = 0, square = 0, ignored;
        CALL(prefopt_kl_estimate(PREFOPT_KL_REVERSE, k, PREFOPT_FROM_POLICY, N, logp, logq, each,
                                 &ignored, &ignored));
        for (int i = 0; i < N; i++) {
            mean += exp(logp[i]) * each[i];
            square += exp(logp[i]) * each[i] * each[i];
        }
        printf("  k%d %10.6f %+10.6f %10.6f\n", k, mean, mean - reverse,
               sqrt(square - mean * mean));
        faults += k != PREFOPT_KL_K2 && fabs(mean - reverse) > 1e-12;
    }

    printf(
        "\nas losses: expected gradient over the logits of p, against the two exact gradients:\n");
    printf("%4s %10s %22s %22s\n", "", "|gradient|", "distance to reverse", "distance to forward");
    for (int32_t k = PREFOPT_KL_K1; k <= PREFOPT_KL_K3; k++) {
        double weight[N], mean = 0, size = 0, to_reverse = 0, to_forward = 0;
        CALL(prefopt_kl_score_weights(PREFOPT_KL_REVERSE, k, PREFOPT_FROM_POLICY, N, logp, logq,
                                      weight));
        for (int i = 0; i < N; i++)
            mean += exp(logp[i]) * weight[i];
        for (int i = 0; i < N; i++) { /* E[w grad log p] over logit i = p_i (w_i - E[w]) */
            double g = exp(logp[i]) * (weight[i] - mean);
            size = hypot(size, g);
            to_reverse = hypot(to_reverse, g - grad_reverse[i]);
            to_forward = hypot(to_forward, g - grad_forward[i]);
        }
        printf("  k%d %10.6f %22.2e %22.2e\n", k, size, to_reverse, to_forward);
        faults += (k == PREFOPT_KL_K1 && size > 1e-12) ||
                  (k == PREFOPT_KL_K2 && to_reverse > 1e-12) ||
                  (k == PREFOPT_KL_K3 && to_forward > 1e-12);
    }
    printf("\nk1 as a loss has no gradient; k2's is that of the reverse KL; k3's of the forward "
           "KL.\n");
    return faults == 0 ? 0 : 1;
}
