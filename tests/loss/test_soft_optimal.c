/* The soft-optimal policy: closed form, that it maximises J, limits, refusals. */
#include "base/pf_base.h"
#include "pf_test.h"

enum { N = 12 };

START_TEST(closed_form)
{
    /* pi_ref = (1/2, 1/4, 1/4), beta = 1/2, exp(r / beta) = (1, 4, 2): Z = 2 */
    const double ref[] = {log(0.5), log(0.25), log(0.25)};
    const double reward[] = {0, 0.5 * log(4), 0.5 * log(2)};
    double logp[3], z;
    OK(prefopt_soft_optimal(3, ref, reward, 0.5, logp, &z));
    CLOSE(z, log(2), 1e-15);
    CLOSE(logp[0], log(0.25), 1e-15);
    CLOSE(logp[1], log(0.5), 1e-15);
    CLOSE(logp[2], log(0.25), 1e-15);
    double in_place[3];
    memcpy(in_place, reward, sizeof reward);
    OK(prefopt_soft_optimal(3, ref, in_place, 0.5, in_place, NULL));
    ck_assert(memcmp(in_place, logp, sizeof logp) == 0);
    memcpy(in_place, ref, sizeof ref);
    OK(prefopt_soft_optimal(3, in_place, reward, 0.5, in_place, NULL));
    ck_assert(memcmp(in_place, logp, sizeof logp) == 0);
}
END_TEST

static double objective(const double *logp, const double *ref, const double *reward, double beta)
{
    double j = 0;
    for (int i = 0; i < N; i++)
        j += exp(logp[i]) * (reward[i] - beta * (logp[i] - ref[i]));
    return j;
}

START_TEST(maximises_j)
{
    double ref[N], reward[N], logp[N], other[N], z;
    for (int i = 0; i < N; i++) {
        ref[i] = pf_normal(5, 1, (uint64_t)i);
        reward[i] = 3 * pf_normal(5, 2, (uint64_t)i);
    }
    double norm = prefopt_log_sum_exp(N, ref);
    for (int i = 0; i < N; i++)
        ref[i] -= norm;
    for (double beta = 0.1; beta < 20; beta *= 3) {
        OK(prefopt_soft_optimal(N, ref, reward, beta, logp, &z));
        CLOSE(prefopt_log_sum_exp(N, logp), 0, 1e-14);
        double best = objective(logp, ref, reward, beta);
        CLOSE(best, beta * z, 1e-13);
        for (int trial = 0; trial < 100; trial++) {
            for (int i = 0; i < N; i++)
                other[i] = logp[i] + 0.3 * pf_normal(6, (uint64_t)trial, (uint64_t)i);
            norm = prefopt_log_sum_exp(N, other);
            for (int i = 0; i < N; i++)
                other[i] -= norm;
            ck_assert(objective(other, ref, reward, beta) < best);
        }
    }
}
END_TEST

START_TEST(limits)
{
    /* What the reference never does stays at zero, however large its reward (lecture 22.3). */
    const double ref[] = {log(0.5), log(0.5), -INFINITY}, reward[] = {1, 0, 10};
    double logp[3], z;
    OK(prefopt_soft_optimal(3, ref, reward, 1, logp, &z));
    ck_assert(logp[2] == -INFINITY);
    CLOSE(logp[0], prefopt_log_sigmoid(1), 1e-15);
    CLOSE(z, log(0.5 * exp(1) + 0.5), 1e-15);
    /* A small beta and large rewards neither overflow nor lose the small difference. */
    OK(prefopt_soft_optimal(2, ref, (double[]){1e6 + 1.0 / 64, 1e6}, 1.0 / 64, logp, &z));
    CLOSE(logp[0], prefopt_log_sigmoid(1), 1e-15);
    CLOSE(logp[1], prefopt_log_sigmoid(-1), 1e-15);
    CLOSE(z, 64e6 + log(0.5 * exp(1) + 0.5), 1e-15);
    OK(prefopt_soft_optimal(2, ref, (double[]){1e300, 0}, 1e-300, logp, &z));
    ck_assert(logp[0] == 0 && logp[1] == -INFINITY && z == INFINITY);
    OK(prefopt_soft_optimal(2, ref, (double[]){-INFINITY, 3}, 1, logp, &z));
    ck_assert(logp[0] == -INFINITY && logp[1] == 0);
    CLOSE(z, 3 + log(0.5), 1e-15);
    OK(prefopt_soft_optimal(0, NULL, NULL, 1, NULL, &z));
    ck_assert(z == -INFINITY);
}
END_TEST

START_TEST(refusals)
{
    const double fine[] = {-1, -2}, never[] = {-INFINITY, -INFINITY}, mixed[] = {-INFINITY, 0};
    const double nan[] = {-1, NAN}, huge[] = {0, INFINITY}, other[] = {0, -INFINITY};
    double logp[] = {7, 7}, z = 7;
    FAILS(PREFOPT_ERR_ARGUMENT, "n is -1", prefopt_soft_optimal(-1, fine, fine, 1, logp, &z));
    FAILS(PREFOPT_ERR_ARGUMENT, "ref_logp is NULL",
          prefopt_soft_optimal(2, NULL, fine, 1, logp, &z));
    FAILS(PREFOPT_ERR_ARGUMENT, "reward is NULL", prefopt_soft_optimal(2, fine, NULL, 1, logp, &z));
    FAILS(PREFOPT_ERR_ARGUMENT, "logp is NULL", prefopt_soft_optimal(2, fine, fine, 1, NULL, &z));
    FAILS(PREFOPT_ERR_ARGUMENT, "beta is 0", prefopt_soft_optimal(2, fine, fine, 0, logp, &z));
    FAILS(PREFOPT_ERR_ARGUMENT, "beta is", prefopt_soft_optimal(2, fine, fine, NAN, logp, &z));
    FAILS(PREFOPT_ERR_NUMERIC, "ref_logp[1]", prefopt_soft_optimal(2, nan, fine, 1, logp, &z));
    FAILS(PREFOPT_ERR_NUMERIC, "reward[1] is inf",
          prefopt_soft_optimal(2, fine, huge, 1, logp, &z));
    FAILS(PREFOPT_ERR_NUMERIC, "no soft-optimal",
          prefopt_soft_optimal(2, never, fine, 1, logp, &z));
    FAILS(PREFOPT_ERR_NUMERIC, "no soft-optimal",
          prefopt_soft_optimal(2, mixed, other, 1, logp, &z));
    ck_assert(logp[0] == 7 && logp[1] == 7 && z == 7);
}
END_TEST

TEST_MAIN("soft_optimal", closed_form, maximises_j, limits, refusals)
