/* Best of n: against all n-tuples, against long double, and against its bound. */
#include "base/pf_base.h"
#include "pf_test.h"

/* n draws one after the other; the first among those of the highest score wins. */
static void all_tuples(int64_t n, int64_t k, const double *p, const double *score, double *bon)
{
    int64_t tuples = 1;
    for (int64_t i = 0; i < n; i++)
        tuples *= k;
    for (int64_t i = 0; i < k; i++)
        bon[i] = 0;
    for (int64_t t = 0; t < tuples; t++) {
        double mass = 1;
        int64_t best = -1;
        for (int64_t i = 0, rest = t; i < n; i++, rest /= k) {
            mass *= p[rest % k];
            if (best < 0 || score[rest % k] > score[best])
                best = rest % k;
        }
        bon[best] += mass;
    }
}

START_TEST(agrees_with_all_tuples)
{
    double p[] = {0.1, 0.3, 0.05, 0.35, 0.2}, score[] = {2, -1, 5, 2, -1};
    double logp[5], bon[5], expected[5];
    for (int64_t i = 0; i < 5; i++)
        logp[i] = log(p[i]);
    for (int64_t n = 1; n <= 6; n++) {
        double kl, bound, mean, kl_expected = 0, mean_expected = 0;
        OK(prefopt_best_of_n(n, 5, logp, score, bon, &kl, &bound, &mean));
        all_tuples(n, 5, p, score, expected);
        for (int64_t i = 0; i < 5; i++) {
            CLOSE(exp(bon[i]), expected[i], 1e-14);
            kl_expected += expected[i] * log(expected[i] / p[i]);
            mean_expected += expected[i] * score[i];
        }
        CLOSE(kl, kl_expected, 1e-13);
        CLOSE(mean, mean_expected, 1e-13);
        CLOSE(bound, log((double)n) - (double)(n - 1) / (double)n, 1e-15);
        ck_assert(n == 1 ? kl == 0 : kl < bound);
    }
}
END_TEST

START_TEST(agrees_with_long_double)
{
    enum { K = 60 };
    static const int64_t draws[] = {2, 25, 1000, 1000000};
    for (uint64_t trial = 0; trial < 12; trial++) {
        double logp[K], score[K], bon[K], z = 0;
        for (uint64_t i = 0; i < K; i++) {
            /* From even to spread over hundreds of nats. */
            logp[i] = (double)trial * 3 * pf_normal(trial, 0, i);
            score[i] = (double)pf_uniform_int(trial, 1, i, 30);
        }
        z = prefopt_log_sum_exp(K, logp);
        for (int64_t i = 0; i < K; i++)
            logp[i] -= z;
        for (int64_t d = 0; d < 4; d++) {
            double kl, bound, mean;
            long double sum = 0, kl_sum = 0, mean_sum = 0;
            OK(prefopt_best_of_n(draws[d], K, logp, score, bon, &kl, &bound, &mean));
            for (int64_t i = 0; i < K; i++) {
                long double below = 0, own = 0, above = 0;
                for (int64_t j = 0; j < K; j++)
                    *(score[j] < score[i]   ? &below
                      : score[j] > score[i] ? &above
                                            : &own) += expl(logp[j]);
                long double total = below + own + above, n = draws[d];
                /* log G and log(F / G), each from the smaller side. */
                long double log_g =
                    above < 0.5L ? log1pl(-above / total) : logl((below + own) / total);
                long double ratio = below == 0 ? -INFINITY : n * log1pl(-own / (below + own));
                if (own > 0.9L * (below + own) && below > 0)
                    ratio = n * logl(below / (below + own));
                long double expected = n * log_g + logl(-expm1l(ratio)) - logl(own) + logp[i];
                CLOSE(bon[i], (double)expected, 1e-12);
                sum += expl(bon[i]);
                kl_sum += expl(expected) * (expected - logp[i]);
                mean_sum += expl(expected) * score[i];
            }
            CLOSE((double)sum, 1, 1e-12);
            CLOSE(kl, (double)kl_sum, 1e-12);
            CLOSE(mean, (double)mean_sum, 1e-12);
            ck_assert(kl >= 0 && kl <= bound);
        }
    }
}
END_TEST

START_TEST(tiny_masses_keep_their_digits)
{
    double score[] = {1, 0}, bon[2], kl;
    double logp[] = {-2000, 0};
    OK(prefopt_best_of_n(1000, 2, logp, score, bon, &kl, NULL, NULL));
    CLOSE(bon[0], log(1000) - 2000, 1e-15);
    ck_assert(bon[1] == 0 && kl == 0);
    /* 1 - (1 - 1e-6)^1e6 */
    logp[0] = log(1e-6);
    logp[1] = log1p(-1e-6);
    OK(prefopt_best_of_n(1000000, 2, logp, score, bon, NULL, NULL, NULL));
    CLOSE(bon[0], log(-expm1(1e6 * log1p(-1e-6))), 1e-12);
    CLOSE(bon[1], 1e6 * log1p(-1e-6), 1e-9);
    /* The lowest score wins only when nothing else is drawn. */
    double low[] = {-1, 3};
    OK(prefopt_best_of_n(7, 2, logp, low, bon, NULL, NULL, NULL));
    CLOSE(bon[0], 7 * log(1e-6), 1e-13);
    /* 1 - q^7 with q = 1e-6 is 1 to 42 digits. */
    ck_assert(fabs(bon[1]) < 1e-40);
    /* A probability of 0 stays 0, at the top and at the bottom. */
    double zero[] = {-INFINITY, 0};
    OK(prefopt_best_of_n(5, 2, zero, score, bon, &kl, NULL, NULL));
    ck_assert(bon[0] == -INFINITY && bon[1] == 0 && kl == 0);
    OK(prefopt_best_of_n(5, 2, zero, low, bon, &kl, NULL, NULL));
    ck_assert(bon[0] == -INFINITY && bon[1] == 0 && kl == 0);
}
END_TEST

/* The bound is the limit of many completions that are equally likely and all of another score. */
START_TEST(the_bound_is_the_limit)
{
    enum { K = 100000 };
    double *logp = malloc(K * sizeof *logp), *score = malloc(K * sizeof *score);
    for (int64_t i = 0; i < K; i++) {
        logp[i] = -log(K);
        score[i] = (double)i;
    }
    static const int64_t draws[] = {1, 2, 4, 64};
    for (int64_t d = 0; d < 4; d++) {
        double kl, bound, mean, n = (double)draws[d];
        OK(prefopt_best_of_n(draws[d], K, logp, score, NULL, &kl, &bound, &mean));
        ck_assert_msg(kl <= bound && bound - kl < n / K, "n %g: kl %.15g, bound %.15g", n, kl,
                      bound);
        /* The mean of the largest of n uniform numbers. */
        CLOSE(mean / K, n / (n + 1), 1e-4);
    }
    /* Ties: one level, and best of n is p itself. */
    double kl, bound;
    for (int64_t i = 0; i < K; i++)
        score[i] = 7;
    OK(prefopt_best_of_n(1000, K, logp, score, score, &kl, &bound, NULL));
    CLOSE(kl, 0, 1e-12);
    for (int64_t i = 0; i < K; i += 997)
        CLOSE(score[i], logp[i], 1e-13);
    free(logp);
    free(score);
}
END_TEST

START_TEST(infinite_scores)
{
    double logp[] = {log(0.5), log(0.5)}, score[] = {-INFINITY, 1}, bon[2], mean = 9;
    OK(prefopt_best_of_n(2, 2, logp, score, bon, NULL, NULL, &mean));
    CLOSE(exp(bon[1]), 0.75, 1e-15);
    ck_assert(mean == -INFINITY);
    score[1] = INFINITY;
    mean = 9;
    FAILS(PREFOPT_ERR_NUMERIC, "both infinities",
          prefopt_best_of_n(2, 2, logp, score, bon, NULL, NULL, &mean));
    ck_assert(mean == 9);
    OK(prefopt_best_of_n(2, 2, logp, score, bon, NULL, NULL, NULL));
}
END_TEST

START_TEST(refuses)
{
    double logp[] = {log(0.5), log(0.5)}, score[] = {0, 1}, bon[2] = {7, 7}, kl = 7, b = 7, e = 7;
    FAILS(PREFOPT_ERR_ARGUMENT, "n is 0", prefopt_best_of_n(0, 2, logp, score, bon, &kl, &b, &e));
    FAILS(PREFOPT_ERR_ARGUMENT, "n_completions is 0",
          prefopt_best_of_n(2, 0, logp, score, bon, &kl, &b, &e));
    FAILS(PREFOPT_ERR_ARGUMENT, "logp is NULL",
          prefopt_best_of_n(2, 2, NULL, score, bon, &kl, &b, &e));
    FAILS(PREFOPT_ERR_ARGUMENT, "score is NULL",
          prefopt_best_of_n(2, 2, logp, NULL, bon, &kl, &b, &e));
    FAILS(PREFOPT_ERR_MEMORY, "no memory",
          prefopt_best_of_n(2, INT64_MAX, logp, score, bon, &kl, &b, &e));
    double bad[] = {0, NAN}, high[] = {0, INFINITY}, half[] = {log(0.5), log(0.4)};
    FAILS(PREFOPT_ERR_NUMERIC, "score[1] is NaN",
          prefopt_best_of_n(2, 2, logp, bad, bon, &kl, &b, &e));
    FAILS(PREFOPT_ERR_NUMERIC, "logp[1] is", prefopt_best_of_n(2, 2, bad, score, bon, &kl, &b, &e));
    FAILS(PREFOPT_ERR_NUMERIC, "logp[1] is inf",
          prefopt_best_of_n(2, 2, high, score, bon, &kl, &b, &e));
    FAILS(PREFOPT_ERR_ARGUMENT, "sums to 0.9",
          prefopt_best_of_n(2, 2, half, score, bon, &kl, &b, &e));
    ck_assert(bon[0] == 7 && bon[1] == 7 && kl == 7 && b == 7 && e == 7);
    OK(prefopt_best_of_n(2, 2, logp, score, NULL, NULL, NULL, NULL));
}
END_TEST

TEST_MAIN("best_of_n", agrees_with_all_tuples, agrees_with_long_double,
          tiny_masses_keep_their_digits, the_bound_is_the_limit, infinite_scores, refuses)
