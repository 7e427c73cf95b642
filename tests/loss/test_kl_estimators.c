/* k1, k2, k3: their means by enumeration, their derivatives, and whose gradient they are. */
#include "pf_test.h"

enum { N = 6 };

typedef struct {
    int32_t direction, estimator, from;
} combination;

/* The twelve, in the order of the header's table. */
static combination nth(int i)
{
    static const int32_t sides[4][2] = {{PREFOPT_KL_REVERSE, PREFOPT_FROM_POLICY},
                                        {PREFOPT_KL_REVERSE, PREFOPT_FROM_REFERENCE},
                                        {PREFOPT_KL_FORWARD, PREFOPT_FROM_REFERENCE},
                                        {PREFOPT_KL_FORWARD, PREFOPT_FROM_POLICY}};
    return (combination){sides[i / 3][0], PREFOPT_KL_K1 + i % 3, sides[i / 3][1]};
}

static void softmax_log(const double *logits, double *logp)
{
    double sum = 0;
    for (int i = 0; i < N; i++)
        sum += exp(logits[i]);
    for (int i = 0; i < N; i++)
        logp[i] = logits[i] - log(sum);
}

/* A policy and a reference on the same support; near: they differ by about 1e-3. */
static void pair_of(uint64_t stream, double far, double *logits, double *logp, double *logq)
{
    double other[N];
    OK(prefopt_random_normal(5, stream, 0, N, other));
    OK(prefopt_random_normal(5, stream + 1, 0, N, logits));
    for (int i = 0; i < N; i++)
        logits[i] = other[i] + far * logits[i];
    softmax_log(logits, logp);
    softmax_log(other, logq);
}

static const double *sampler(combination c, const double *logp, const double *logq)
{
    return c.from == PREFOPT_FROM_POLICY ? logp : logq;
}

/* E_sampler[each], by enumeration. */
static double expected(combination c, const double *logp, const double *logq)
{
    double each[N], mean, sum = 0;
    OK(prefopt_kl_estimate(c.direction, c.estimator, c.from, N, logp, logq, each, &mean, NULL));
    for (int i = 0; i < N; i++)
        sum += exp(sampler(c, logp, logq)[i]) * each[i];
    return sum;
}

START_TEST(means_by_enumeration)
{
    for (uint64_t stream = 0; stream < 20; stream += 2) {
        double logits[N], logp[N], logq[N], kl;
        pair_of(stream, 1, logits, logp, logq);
        for (int k = 0; k < 12; k++) {
            combination c = nth(k);
            OK(prefopt_kl_exact(c.direction, N, logp, logq, &kl, NULL));
            double mean = expected(c, logp, logq);
            if (c.estimator != PREFOPT_KL_K2) {
                CLOSE(mean, kl, 1e-13);
                continue;
            }
            /* k2's mean is E_a[log(a / b)^2 / 2], whoever sampled, and that is not the KL. */
            double half = 0;
            for (int i = 0; i < N; i++)
                half += exp((c.direction == PREFOPT_KL_REVERSE ? logp : logq)[i]) *
                        (logp[i] - logq[i]) * (logp[i] - logq[i]) / 2;
            CLOSE(mean, half, 1e-13);
            ck_assert(fabs(mean - kl) > 1e-3);
        }
        /* Close by, k2's bias is of third order. */
        pair_of(stream, 1e-3, logits, logp, logq);
        OK(prefopt_kl_exact(PREFOPT_KL_REVERSE, N, logp, logq, &kl, NULL));
        ck_assert(fabs(expected(nth(1), logp, logq) / kl - 1) < 1e-2);
    }
}
END_TEST

/* Schulman's forms, written out for one sample, in a moderate range and far out. */
START_TEST(written_out)
{
    const double pairs[][2] = {{-1, -2},      {-2, -1},    {-1, -1},
                               {-3, -3.0001}, {-0.1, -40}, {-40, -0.1}};
    for (size_t s = 0; s < sizeof pairs / sizeof pairs[0]; s++)
        for (int k = 0; k < 12; k++) {
            combination c = nth(k);
            double logp = pairs[s][0], logq = pairs[s][1], each, mean, error;
            OK(prefopt_kl_estimate(c.direction, c.estimator, c.from, 1, &logp, &logq, &each, &mean,
                                   &error));
            double la = c.direction == PREFOPT_KL_REVERSE ? logp : logq;
            double lb = c.direction == PREFOPT_KL_REVERSE ? logq : logp;
            int from_a = (c.direction == PREFOPT_KL_REVERSE) == (c.from == PREFOPT_FROM_POLICY);
            double r = exp(lb - la), w = from_a ? 1 : exp(la - lb);
            double plain = c.estimator == PREFOPT_KL_K1   ? -log(r)
                           : c.estimator == PREFOPT_KL_K2 ? log(r) * log(r) / 2
                                                          : r - 1 - log(r);
            CLOSE(each, w * plain, 1e-13);
            ck_assert(mean == each && error == INFINITY);
            ck_assert(c.estimator == PREFOPT_KL_K1 || each >= 0);
        }
    /* Small differences keep their digits in k3, here of log-densities u and 0. */
    for (double u = 3e-12; u < 2; u *= 1.7)
        for (int sign = -1; sign <= 1; sign += 2) {
            double logp = sign * u, logq = 0, each, mean, series = 0, power = 1;
            for (int k = 2; k < 40; k++) { /* exp(-u) - 1 + u over u^2 */
                power = power / k;
                series += power * pow(-sign * u, k - 2);
            }
            OK(prefopt_kl_estimate(0, PREFOPT_KL_K3, 0, 1, &logp, &logq, &each, &mean, NULL));
            ck_assert_msg(fabs(each / (u * u) / series - 1) < 2e-15, "%g: %g", u, each);
        }
}
END_TEST

/* weight = d each / d log p, samples fixed: central differences. */
START_TEST(weights_are_derivatives)
{
    double logits[N], logp[N], logq[N];
    pair_of(40, 1, logits, logp, logq);
    for (int k = 0; k < 12; k++) {
        combination c = nth(k);
        double weight[N], h = 1e-5;
        OK(prefopt_kl_score_weights(c.direction, c.estimator, c.from, N, logp, logq, weight));
        for (int i = 0; i < N; i++) {
            double up, down, moved = logp[i] + h;
            OK(prefopt_kl_estimate(c.direction, c.estimator, c.from, 1, &moved, &logq[i], NULL, &up,
                                   NULL));
            moved = logp[i] - h;
            OK(prefopt_kl_estimate(c.direction, c.estimator, c.from, 1, &moved, &logq[i], NULL,
                                   &down, NULL));
            double difference = (up - down) / (2 * h);
            CLOSE(weight[i], difference, 1e-8);
        }
    }
}
END_TEST

/* E_sampler[weight grad log p] by the logits, by enumeration: sum_x s(x) weight(x) (1[x = j] -
 * p_j). */
static void expected_gradient(combination c, const double *logp, const double *logq, double *grad)
{
    double weight[N], total = 0;
    OK(prefopt_kl_score_weights(c.direction, c.estimator, c.from, N, logp, logq, weight));
    for (int i = 0; i < N; i++) {
        grad[i] = exp(sampler(c, logp, logq)[i]) * weight[i];
        total += grad[i];
    }
    for (int i = 0; i < N; i++)
        grad[i] -= exp(logp[i]) * total;
}

/* The functionals of the header's table, beside the KLs. */
typedef double functional(const double *logp, const double *logq);
static double constant(const double *logp, const double *logq)
{
    (void)logp, (void)logq;
    return 0;
}
static double reverse_kl(const double *logp, const double *logq)
{
    double kl;
    OK(prefopt_kl_exact(PREFOPT_KL_REVERSE, N, logp, logq, &kl, NULL));
    return kl;
}
static double forward_kl(const double *logp, const double *logq)
{
    double kl;
    OK(prefopt_kl_exact(PREFOPT_KL_FORWARD, N, logp, logq, &kl, NULL));
    return kl;
}
static double moment(const double *density, const double *logp, const double *logq, double square,
                     double cube)
{
    double sum = 0;
    for (int i = 0; i < N; i++) {
        double u = logp[i] - logq[i];
        sum += exp(density[i]) * (square * u * u + cube * u * u * u);
    }
    return sum;
}
static double p_half_square(const double *logp, const double *logq)
{
    return moment(logp, logp, logq, 0.5, 0);
}
static double q_half_square(const double *logp, const double *logq)
{
    return moment(logq, logp, logq, 0.5, 0);
}
static double forward_and_half_square(const double *logp, const double *logq)
{
    return forward_kl(logp, logq) + q_half_square(logp, logq);
}
static double q_square_and_cube(const double *logp, const double *logq)
{
    return moment(logq, logp, logq, 0.5, -1.0 / 6);
}

static functional *const table[12] = {
    constant,          reverse_kl,   forward_kl,    reverse_kl, p_half_square,
    reverse_kl,        forward_kl,   q_half_square, forward_kl, forward_and_half_square,
    q_square_and_cube, q_half_square};

static void gradient_of(functional *f, const double *logits, const double *logq, double *grad)
{
    for (int i = 0; i < N; i++) {
        double moved[N], logp[N], h = 1e-5;
        memcpy(moved, logits, sizeof moved);
        moved[i] = logits[i] + h;
        softmax_log(moved, logp);
        double up = f(logp, logq);
        moved[i] = logits[i] - h;
        softmax_log(moved, logp);
        grad[i] = (up - f(logp, logq)) / (2 * h);
    }
}

static double distance(const double *a, const double *b)
{
    double largest = 0;
    for (int i = 0; i < N; i++)
        largest = fmax(largest, fabs(a[i] - b[i]));
    return largest;
}

START_TEST(whose_gradient_each_is)
{
    for (uint64_t stream = 60; stream < 70; stream += 2) {
        double logits[N], logp[N], logq[N], got[N], reverse[N], forward[N];
        pair_of(stream, 1, logits, logp, logq);
        double kl;
        OK(prefopt_kl_exact(PREFOPT_KL_REVERSE, N, logp, logq, &kl, reverse));
        OK(prefopt_kl_exact(PREFOPT_KL_FORWARD, N, logp, logq, &kl, forward));
        ck_assert(distance(reverse, forward) > 1e-2);
        for (int k = 0; k < 12; k++) {
            double want[N];
            expected_gradient(nth(k), logp, logq, got);
            gradient_of(table[k], logits, logq, want);
            ck_assert_msg(distance(got, want) < 1e-9, "row %d: off by %g", k, distance(got, want));
            /* The exact gradients settle the KLs to rounding, and tell them from what is no KL. */
            int is_reverse = table[k] == reverse_kl, is_forward = table[k] == forward_kl;
            ck_assert((distance(got, reverse) < 1e-14) == is_reverse);
            ck_assert((distance(got, forward) < 1e-14) == is_forward);
        }
    }
}
END_TEST

START_TEST(standard_error)
{
    double logp[4] = {-1, -2, -0.5, -3}, logq[4] = {-1.5, -1, -2, -2.5}, each[4], mean, error;
    OK(prefopt_kl_estimate(0, PREFOPT_KL_K1, 0, 4, logp, logq, each, &mean, &error));
    double sum = 0, squares = 0;
    for (int i = 0; i < 4; i++)
        sum += logp[i] - logq[i];
    for (int i = 0; i < 4; i++)
        squares += pow(logp[i] - logq[i] - sum / 4, 2);
    CLOSE(mean, sum / 4, 1e-15);
    CLOSE(error, sqrt(squares / 3) / 2, 1e-15);
}
END_TEST

START_TEST(samples_from_both)
{
    /* 20,000 draws: every unbiased estimate lies within 4 of its own standard errors. */
    enum { DRAWS = 20000 };
    double logits[N], logp[N], logq[N];
    pair_of(80, 0.7, logits, logp, logq);
    double *u = malloc(DRAWS * sizeof *u), *dp = malloc(DRAWS * sizeof *dp),
           *dq = malloc(DRAWS * sizeof *dq);
    for (int k = 0; k < 12; k++) {
        combination c = nth(k);
        double mean, error;
        OK(prefopt_random_uniform(3, (uint64_t)k, 0, DRAWS, u));
        for (int i = 0; i < DRAWS; i++) {
            int x = 0;
            for (double rest = u[i] - exp(sampler(c, logp, logq)[0]); rest > 0 && x < N - 1;)
                rest -= exp(sampler(c, logp, logq)[++x]);
            dp[i] = logp[x];
            dq[i] = logq[x];
        }
        OK(prefopt_kl_estimate(c.direction, c.estimator, c.from, DRAWS, dp, dq, NULL, &mean,
                               &error));
        double truth = expected(c, logp, logq);
        ck_assert(error > 0);
        ck_assert_msg(fabs(mean - truth) < 4 * error, "row %d: %g, expected %g +- %g", k, mean,
                      truth, error);
    }
    free(u);
    free(dp);
    free(dq);
}
END_TEST

START_TEST(nothing_is_ever_nan)
{
    const double values[] = {-INFINITY, -1e308, -800, -1, 0, 3, 1e308};
    enum { V = sizeof values / sizeof values[0] };
    for (int k = 0; k < 12; k++)
        for (int a = 0; a < V; a++)
            for (int b = 0; b < V; b++) {
                combination c = nth(k);
                double each[2], mean, error, weight[2];
                double logp[2] = {values[a], -1}, logq[2] = {values[b], -2};
                OK(prefopt_kl_estimate(c.direction, c.estimator, c.from, 2, logp, logq, each, &mean,
                                       &error));
                OK(prefopt_kl_score_weights(c.direction, c.estimator, c.from, 2, logp, logq,
                                            weight));
                ck_assert(!isnan(each[0]) && !isnan(mean) && !isnan(error) && !isnan(weight[0]));
            }
}
END_TEST

START_TEST(outcomes_without_mass)
{
    double never = -INFINITY, some = -1, each, mean, weight;
    for (int k = 0; k < 12; k++) {
        combination c = nth(k);
        int reverse = c.direction == PREFOPT_KL_REVERSE;
        int from_a = reverse == (c.from == PREFOPT_FROM_POLICY);
        const double *a_only_p = reverse ? &some : &never, *a_only_q = reverse ? &never : &some;
        OK(prefopt_kl_estimate(c.direction, c.estimator, c.from, 1, a_only_p, a_only_q, &each,
                               &mean, NULL));
        ck_assert(each == INFINITY && mean == INFINITY);
        OK(prefopt_kl_estimate(c.direction, c.estimator, c.from, 1, a_only_q, a_only_p, &each,
                               &mean, NULL));
        ck_assert(each == (c.estimator == PREFOPT_KL_K3 && !from_a ? 1 : 0));
        OK(prefopt_kl_score_weights(c.direction, c.estimator, c.from, 1, a_only_q, a_only_p,
                                    &weight));
        ck_assert(weight == 0);
        OK(prefopt_kl_estimate(c.direction, c.estimator, c.from, 1, &never, &never, &each, &mean,
                               NULL));
        OK(prefopt_kl_score_weights(c.direction, c.estimator, c.from, 1, &never, &never, &weight));
        ck_assert(each == 0 && weight == 0);
    }
    /* The forward KL's k1 and k3 from the reference keep a finite gradient at p = 0, as p - q does.
     */
    for (int k = 0; k < 2; k++) {
        OK(prefopt_kl_score_weights(PREFOPT_KL_FORWARD, k == 0 ? PREFOPT_KL_K1 : PREFOPT_KL_K3,
                                    PREFOPT_FROM_REFERENCE, 1, &never, &some, &weight));
        ck_assert(weight == -1);
    }
}
END_TEST

START_TEST(arguments)
{
    double x[2] = {-1, -2}, bad[2] = {-1, NAN}, each[2] = {7, 7}, mean = 5, error = 6;
    FAILS(PREFOPT_ERR_ARGUMENT, "direction is 2",
          prefopt_kl_estimate(2, 1, 0, 2, x, x, each, &mean, &error));
    FAILS(PREFOPT_ERR_ARGUMENT, "estimator is 0",
          prefopt_kl_estimate(0, 0, 0, 2, x, x, each, &mean, &error));
    FAILS(PREFOPT_ERR_ARGUMENT, "estimator is 4",
          prefopt_kl_estimate(0, 4, 0, 2, x, x, each, &mean, &error));
    FAILS(PREFOPT_ERR_ARGUMENT, "sampled_from is 2",
          prefopt_kl_estimate(0, 1, 2, 2, x, x, each, &mean, &error));
    FAILS(PREFOPT_ERR_ARGUMENT, "n is -1",
          prefopt_kl_estimate(0, 1, 0, -1, x, x, each, &mean, &error));
    FAILS(PREFOPT_ERR_ARGUMENT, "logp is NULL",
          prefopt_kl_estimate(0, 1, 0, 2, NULL, x, each, &mean, &error));
    FAILS(PREFOPT_ERR_ARGUMENT, "logq is NULL",
          prefopt_kl_estimate(0, 1, 0, 2, x, NULL, each, &mean, &error));
    FAILS(PREFOPT_ERR_ARGUMENT, "mean is NULL",
          prefopt_kl_estimate(0, 1, 0, 2, x, x, each, NULL, &error));
    FAILS(PREFOPT_ERR_NUMERIC, "logp[1]",
          prefopt_kl_estimate(0, 1, 0, 2, bad, x, each, &mean, &error));
    FAILS(PREFOPT_ERR_NUMERIC, "logq[1]",
          prefopt_kl_estimate(0, 1, 0, 2, x, bad, each, &mean, &error));
    double far_p[3] = {-1.7e308, -1.7e308, 0}, far_q[3] = {0, 0, -INFINITY};
    FAILS(PREFOPT_ERR_NUMERIC, "both +INFINITY and -INFINITY",
          prefopt_kl_estimate(0, 1, 0, 3, far_p, far_q, each, &mean, &error));
    FAILS(PREFOPT_ERR_ARGUMENT, "weight is NULL", prefopt_kl_score_weights(0, 1, 0, 2, x, x, NULL));
    FAILS(PREFOPT_ERR_NUMERIC, "logp[1]", prefopt_kl_score_weights(0, 1, 0, 2, bad, x, each));
    FAILS(PREFOPT_ERR_ARGUMENT, "estimator", prefopt_kl_score_weights(0, 9, 0, 2, x, x, each));
    ck_assert(mean == 5 && error == 6 && each[0] == 7 && each[1] == 7);
    OK(prefopt_kl_estimate(0, 1, 0, 0, NULL, NULL, NULL, &mean, &error));
    ck_assert(mean == 0 && error == 0);
    OK(prefopt_kl_score_weights(0, 1, 0, 0, NULL, NULL, NULL));
}
END_TEST

TEST_MAIN("kl_estimators", means_by_enumeration, written_out, weights_are_derivatives,
          whose_gradient_each_is, standard_error, samples_from_both, nothing_is_ever_nan,
          outcomes_without_mass, arguments)
