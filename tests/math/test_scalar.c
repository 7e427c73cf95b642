/* The stable scalar functions against long double, and against known values at the ends. */
#include <float.h>

#include "math/pf_math.h"
#include "pf_test.h"

/* Distance in units in the last place of the expected double (subnormals: in the smallest one). */
static double ulps(double got, long double expected)
{
    double rounded = (double)expected;
    if (got == rounded)
        return 0;
    if (!isfinite(got) || !isfinite(rounded))
        return INFINITY;
    double unit = nextafter(fabs(rounded), INFINITY) - fabs(rounded);
    return (double)(fabsl((long double)got - expected) / unit);
}

#define WITHIN(got, expected, bound)                                                               \
    do {                                                                                           \
        double got_ = (got), ulps_ = ulps(got_, (expected));                                       \
        ck_assert_msg(ulps_ <= (bound), "%s at %.17g: %.17g, expected %.17Lg: %g ulp", #got, x,    \
                      got_, (long double)(expected), ulps_);                                       \
    } while (0)

/* Every magnitude from 1e-300 to 800, both signs, 40 a decade. */
static int64_t grid(double *x)
{
    int64_t n = 0;
    for (double t = -300; t <= 2.9031; t += 1.0 / 40) {
        x[n++] = pow(10, t);
        x[n++] = -pow(10, t);
    }
    x[n++] = 800;
    x[n++] = -800;
    x[n++] = 0;
    return n;
}
static double points[40000];

START_TEST(against_long_double)
{
    int64_t n = grid(points);
    ck_assert_int_gt(n, 20000);
    for (int64_t i = 0; i < n; i++) {
        double x = points[i];
        long double e = expl(-fabsl(x));
        WITHIN(prefopt_sigmoid(x), (x >= 0 ? 1 : e) / (1 + e), 2);
        WITHIN(prefopt_softplus(x), (x > 0 ? x : 0) + log1pl(e), 2);
        WITHIN(prefopt_log_sigmoid(x), -((x < 0 ? -(long double)x : 0) + log1pl(e)), 2);
        if (x < 0)
            WITHIN(prefopt_log1mexp(x), x > -0.5 ? logl(-expm1l(x)) : log1pl(-e), 2);
    }
}
END_TEST

START_TEST(known_values)
{
    double x = 0;
    WITHIN(prefopt_sigmoid(0), 0.5L, 0);
    WITHIN(prefopt_softplus(0), 0.693147180559945309417232121458L, 1);
    WITHIN(prefopt_log_sigmoid(0), -0.693147180559945309417232121458L, 1);
    WITHIN(prefopt_log_sigmoid(-800), -800.0L, 0);
    WITHIN(prefopt_log_sigmoid(800), 0.0L, 0);
    WITHIN(prefopt_log_sigmoid(40), -4.248354255291588995329e-18L, 2);   /* -exp(-40) */
    WITHIN(prefopt_log_sigmoid(700), -9.859676543759770856705e-305L, 2); /* -exp(-700) */
    WITHIN(prefopt_sigmoid(-700), 9.859676543759770856705e-305L, 2);
    WITHIN(prefopt_sigmoid(-800), 0.0L, 0);
    WITHIN(prefopt_softplus(800), 800.0L, 0);
    WITHIN(prefopt_softplus(-700), 9.859676543759770856705e-305L, 2);
    WITHIN(prefopt_softplus(1e300), 1e300, 0);
    WITHIN(prefopt_softplus(1e-300), 0.693147180559945309417232121458L, 1);
    WITHIN(prefopt_log1mexp(-1e-300), -690.775527898213705180338L, 1); /* log 1e-300 */
    WITHIN(prefopt_log1mexp(-800), 0.0L, 0);
    WITHIN(prefopt_log1mexp(-PF_LN2), -0.693147180559945309417232121458L, 2);
    WITHIN(prefopt_log1mexp(-700), -9.859676543759770856705e-305L, 2);
}
END_TEST

START_TEST(infinities_and_nan)
{
    ck_assert(prefopt_sigmoid(-INFINITY) == 0 && prefopt_sigmoid(INFINITY) == 1);
    ck_assert(prefopt_log_sigmoid(-INFINITY) == -INFINITY && prefopt_log_sigmoid(INFINITY) == 0);
    ck_assert(!signbit(prefopt_log_sigmoid(INFINITY)));
    ck_assert(prefopt_softplus(-INFINITY) == 0 && prefopt_softplus(INFINITY) == INFINITY);
    ck_assert(prefopt_log1mexp(0) == -INFINITY && prefopt_log1mexp(-INFINITY) == 0);
    ck_assert(isnan(prefopt_log1mexp(1e-300)));
    ck_assert(prefopt_log_add_exp(-INFINITY, -INFINITY) == -INFINITY);
    ck_assert(prefopt_log_add_exp(INFINITY, INFINITY) == INFINITY);
    ck_assert(prefopt_log_add_exp(-INFINITY, INFINITY) == INFINITY);
    ck_assert(prefopt_log_add_exp(-INFINITY, -3) == -3 && prefopt_log_add_exp(7, -INFINITY) == 7);
    ck_assert(isnan(prefopt_sigmoid(NAN)) && isnan(prefopt_log_sigmoid(NAN)));
    ck_assert(isnan(prefopt_softplus(NAN)) && isnan(prefopt_log1mexp(NAN)));
    ck_assert(isnan(prefopt_log_add_exp(NAN, 0)) && isnan(prefopt_log_add_exp(0, NAN)));
}
END_TEST

START_TEST(log_of_sums)
{
    double x = 0;
    WITHIN(prefopt_log_add_exp(0, -700), 9.859676543759770856705e-305L, 2);
    WITHIN(prefopt_log_add_exp(-700, 0), 9.859676543759770856705e-305L, 2);
    WITHIN(prefopt_log_add_exp(800, 800), 800.693147180559945309L, 1);
    WITHIN(prefopt_log_add_exp(-800, -801), -799.686738312481777165951L, 1); /* -800 + log(1+1/e) */
    WITHIN(prefopt_log_sum_exp(2, (double[]){0, -700}), 9.859676543759770856705e-305L, 2);
    WITHIN(prefopt_log_sum_exp(3, (double[]){800, 800, -INFINITY}), 800.693147180559945309L, 1);
    WITHIN(prefopt_log_sum_exp(1, (double[]){-800}), -800.0L, 0);
    WITHIN(prefopt_log_sum_exp(3, (double[]){-700, 0, -700}), 1.971935308751954171341e-304L, 2);
    CLOSE(prefopt_log_sum_exp(2, (double[]){log(0.25), log(0.75)}), 0, 2e-16);
    double *many = malloc(1000000 * sizeof *many);
    for (int i = 0; i < 1000000; i++)
        many[i] = -1000;
    WITHIN(prefopt_log_sum_exp(1000000, many), -986.184489442035725867L, 1); /* + log 1e6 */
    many[999999] = NAN;
    ck_assert(isnan(prefopt_log_sum_exp(1000000, many)));
    free(many);
    ck_assert(prefopt_log_sum_exp(0, NULL) == -INFINITY);
    ck_assert(prefopt_log_sum_exp(2, (double[]){-INFINITY, -INFINITY}) == -INFINITY);
    ck_assert(prefopt_log_sum_exp(3, (double[]){1, INFINITY, -INFINITY}) == INFINITY);
    ck_assert(isnan(prefopt_log_sum_exp(2, (double[]){NAN, INFINITY})));
    ck_assert(isnan(prefopt_log_sum_exp(-1, points)) && isnan(prefopt_log_sum_exp(1, NULL)));
}
END_TEST

/* The array form: the grid, 1e5 points of (-50, 50), and the places where it switches. */
START_TEST(arrays_of_logistic_terms)
{
    double softplus[8], sigmoid[8], sevens[7], out[2][7];
    int64_t n = grid(points);
    for (int64_t i = 0; i < 100000 + n; i++) {
        double x = i < n ? points[i] : 100 * (pf_uniform(1, 1, (uint64_t)i) - 0.5);
        long double e = expl(-fabsl(x));
        pf_logistic(1, &x, 1, 0, softplus, sigmoid);
        WITHIN(softplus[0], (x < 0 ? -(long double)x : 0) + log1pl(e), 3);
        WITHIN(sigmoid[0], (x > 0 ? e : 1) / (1 + e), 3);
    }
    const double ends[8] = {0, INFINITY, -INFINITY, NAN, 1e308, -1e308, 745, 1400.5};
    pf_logistic(8, ends, 1, 0, softplus, sigmoid);
    for (int i = 0; i < 8; i++) {
        double x = ends[i];
        if (isnan(x)) {
            ck_assert(isnan(softplus[i]) && isnan(sigmoid[i]));
            continue;
        }
        WITHIN(softplus[i], (long double)pf_softplus(-x), 1);
        WITHIN(sigmoid[i], (long double)pf_sigmoid(-x), 1);
    }
    /* Scale and shift; a value does not depend on its place in the array. */
    for (int i = 0; i < 7; i++)
        sevens[i] = 1.75;
    pf_logistic(7, sevens, -2, 0.25, out[0], out[1]);
    for (int i = 0; i < 7; i++) {
        double x = -2 * 1.75 - 0.25;
        WITHIN(out[0][i], (long double)pf_softplus(-x), 3);
        WITHIN(out[1][i], (long double)pf_sigmoid(-x), 3);
        ck_assert(out[0][i] == out[0][0] && out[1][i] == out[1][0]);
    }
}
END_TEST

START_TEST(compensated_sum)
{
    pf_sum s = {0, 0};
    const double terms[] = {1, 1e100, 1, -1e100};
    for (int i = 0; i < 4; i++)
        pf_sum_add(&s, terms[i]);
    ck_assert(pf_sum_value(&s) == 2);
    pf_sum_add(&s, INFINITY);
    ck_assert(pf_sum_value(&s) == INFINITY);
    pf_sum_add(&s, 1);
    ck_assert(pf_sum_value(&s) == INFINITY);
    pf_sum_add(&s, NAN);
    ck_assert(isnan(pf_sum_value(&s)));
}
END_TEST

TEST_MAIN("scalar", against_long_double, known_values, infinities_and_nan, log_of_sums,
          arrays_of_logistic_terms, compensated_sum)
