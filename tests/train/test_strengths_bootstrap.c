/* The bootstrap: reproducible, right on average, honest about replicates without an optimum; and
 * the Poisson draws it stands on. */
#include "base/pf_base.h"
#include "strengths_data.h"
#include "train/pf_strengths.h"

START_TEST(poisson_draws_have_their_mean_and_variance)
{
    static const double means[] = {0.3, 1, 9.5, 10, 57.25, 1234.5, 3e6, 5e8};
    enum { DRAWS = 4000 };
    for (size_t k = 0; k < sizeof means / sizeof means[0]; k++) {
        double sum = 0, squares = 0;
        for (uint64_t i = 0; i < DRAWS; i++) {
            double draw = pf_poisson(7, k, i, means[k]), off = draw - means[k];
            ck_assert(draw >= 0 && draw == floor(draw));
            ck_assert(draw == pf_poisson(7, k, i, means[k]));
            sum += off;
            squares += off * off;
        }
        /* Both within 5 standard errors; the fourth central moment is 3 m^2 + m. */
        double mean_error = sqrt(means[k] / DRAWS);
        double variance_error = sqrt((2 * means[k] * means[k] + means[k]) / DRAWS);
        ck_assert_msg(fabs(sum / DRAWS) < 5 * mean_error, "mean %g: off by %g", means[k],
                      sum / DRAWS);
        ck_assert_msg(fabs(squares / DRAWS - means[k]) < 5 * variance_error, "mean %g: variance %g",
                      means[k], squares / DRAWS);
    }
    ck_assert(pf_poisson(7, 1, 1, 0) == 0);
}
END_TEST

/* Frequencies of 0 .. 24 at mean 12 (counted from the mode outwards) and at 3 (from 0). */
START_TEST(poisson_draws_have_their_distribution)
{
    enum { DRAWS = 20000, TOP = 40 };
    for (int k = 0; k < 2; k++) {
        double mean = k == 0 ? 3 : 12, count[TOP] = {0}, chi2 = 0, p = exp(-mean);
        int cells = 0;
        for (uint64_t i = 0; i < DRAWS; i++)
            count[(int)fmin(TOP - 1, pf_poisson(11, (uint64_t)k, i, mean))]++;
        for (int j = 0; j < TOP; p *= mean / ++j)
            if (p * DRAWS >= 10) {
                chi2 += (count[j] - p * DRAWS) * (count[j] - p * DRAWS) / (p * DRAWS);
                cells++;
            }
        /* 5 standard deviations of chi-square above its mean. */
        ck_assert_msg(chi2 < cells + 5 * sqrt(2.0 * cells), "chi2 %g of %d cells", chi2, cells);
    }
}
END_TEST

START_TEST(bootstrap_agrees_with_the_information)
{
    prefopt_context *context = test_context(2);
    table tables[2] = {baseball(), schools()};
    int n_items[2] = {7, 6};
    int32_t model[2] = {PREFOPT_TIE_NONE, PREFOPT_TIE_DAVIDSON};
    for (int k = 0; k < 2; k++) {
        prefopt_comparisons data = table_view(&tables[k], n_items[k]);
        prefopt_strengths_options o = strengths_options();
        prefopt_strengths *exact, *boot;
        double se[2][7], v[49];
        o.tie_model = model[k];
        OK(prefopt_strengths_fit(&exact, context, &data, NULL, &o));
        o.covariance = PREFOPT_COVARIANCE_BOOTSTRAP;
        o.replicates = 1000;
        o.seed = 5;
        OK(prefopt_strengths_fit(&boot, context, &data, NULL, &o));
        OK(prefopt_strengths_values(exact, NULL, se[0]));
        OK(prefopt_strengths_values(boot, NULL, se[1]));
        OK(prefopt_strengths_covariance(boot, v));
        prefopt_strengths_summary s = summary_of(boot);
        ck_assert_int_eq(s.replicates + s.replicates_unbounded, 1000);
        ck_assert_int_eq(s.replicates_unbounded, 0);
        /* A standard deviation of 1000 draws is known to 2.2 %. */
        for (int i = 0; i < n_items[k]; i++) {
            CLOSE(se[1][i] / se[0][i], 1, 0.12);
            CLOSE(v[i * n_items[k] + i], se[1][i] * se[1][i], 1e-13);
        }
        if (k == 1)
            CLOSE(s.log_tie_std_error / summary_of(exact).log_tie_std_error, 1, 0.12);
        prefopt_strengths_destroy(exact);
        prefopt_strengths_destroy(boot);
    }
    prefopt_context_destroy(context);
}
END_TEST

/* Random data large enough for several chunks and for conjugate gradients. */
START_TEST(threads_change_no_bits)
{
    enum { ITEMS = 400, ROWS = 40000 };
    static int32_t first[ROWS], second[ROWS];
    static double label[ROWS], theta[2][ITEMS], se[2][ITEMS];
    for (uint64_t i = 0; i < ROWS; i++) {
        first[i] = (int32_t)pf_uniform_int(1, 1, i, ITEMS);
        second[i] = (int32_t)((first[i] + 1 + pf_uniform_int(1, 2, i, ITEMS - 1)) % ITEMS);
        double p = 1 / (1 + exp((second[i] - first[i]) / 200.0)), u = pf_uniform(1, 3, i);
        label[i] = u < 0.1 ? 0.5 : (u - 0.1) / 0.9 < p;
    }
    prefopt_comparisons data = {sizeof data, 0, ITEMS, ROWS, first, second, NULL, label};
    for (int32_t model = 0; model <= 2; model++)
        for (int32_t kind = 0; kind <= 2; kind++) {
            prefopt_strengths_summary s[2];
            for (int k = 0; k < 2; k++) {
                prefopt_context *context = test_context(k == 0 ? 1 : 3);
                prefopt_strengths_options o = strengths_options();
                o.tie_model = model;
                o.covariance = kind;
                if (kind == PREFOPT_COVARIANCE_BOOTSTRAP) {
                    o.replicates = 5;
                    o.seed = 99;
                }
                prefopt_strengths *fit;
                OK(prefopt_strengths_fit(&fit, context, &data, NULL, &o));
                OK(prefopt_strengths_values(fit, theta[k], se[k]));
                s[k] = summary_of(fit);
                prefopt_strengths_destroy(fit);
                prefopt_context_destroy(context);
            }
            ck_assert(memcmp(theta[0], theta[1], sizeof theta[0]) == 0);
            ck_assert(memcmp(se[0], se[1], sizeof se[0]) == 0);
            ck_assert(s[0].log_likelihood == s[1].log_likelihood);
            ck_assert(s[0].grad_norm == s[1].grad_norm && s[0].grad_norm <= 1e-10);
            ck_assert(model == 0 || s[0].log_tie_std_error == s[1].log_tie_std_error);
        }
}
END_TEST

static void count_warnings(void *payload, int32_t level, const char *message)
{
    if (level == PREFOPT_LOG_WARNING && strstr(message, "no finite optimum") != NULL)
        ++*(int *)payload;
}

/* 5 wins against 1: about e^-1 of the replicates draw no upset and have no optimum. */
START_TEST(replicates_without_an_optimum_are_counted)
{
    int warnings = 0;
    prefopt_context_options co;
    OK(prefopt_context_options_init(&co, sizeof co));
    co.log = count_warnings;
    co.log_payload = &warnings;
    prefopt_context *context;
    OK(prefopt_context_create(&context, &co));
    int32_t first[2] = {0, 1}, second[2] = {1, 0};
    double weight[2] = {5, 1}, se[2];
    prefopt_comparisons data = {sizeof data, 0, 2, 2, first, second, weight, NULL};
    prefopt_strengths_options o = strengths_options();
    o.covariance = PREFOPT_COVARIANCE_BOOTSTRAP;
    o.replicates = 400;
    prefopt_strengths *fit;
    OK(prefopt_strengths_fit(&fit, context, &data, NULL, &o));
    prefopt_strengths_summary s = summary_of(fit);
    ck_assert_int_eq(s.replicates + s.replicates_unbounded, 400);
    /* e^-1 + e^-5 - e^-6 = 0.372; 5 standard deviations of 400 are 0.12. */
    CLOSE((double)s.replicates_unbounded / 400, 0.372, 0.12);
    ck_assert_int_eq(warnings, 1);
    OK(prefopt_strengths_values(fit, NULL, se));
    ck_assert(se[0] > 0 && se[0] == se[1]);
    prefopt_strengths_destroy(fit);
    /* A ridge gives every replicate an optimum. */
    o.ridge = 0.5;
    OK(prefopt_strengths_fit(&fit, context, &data, NULL, &o));
    ck_assert_int_eq(summary_of(fit).replicates, 400);
    ck_assert_int_eq(warnings, 1);
    prefopt_strengths_destroy(fit);
    /* Comparisons so rare that hardly a replicate has both. */
    weight[0] = weight[1] = 1e-4;
    o.ridge = 0;
    fit = NULL;
    FAILS(PREFOPT_ERR_UNBOUNDED, "bootstrap: 0 of 400 replicates",
          prefopt_strengths_fit(&fit, context, &data, NULL, &o));
    ck_assert_ptr_null(fit);
    prefopt_context_destroy(context);
}
END_TEST

TEST_MAIN("strengths_bootstrap", poisson_draws_have_their_mean_and_variance,
          poisson_draws_have_their_distribution, bootstrap_agrees_with_the_information,
          threads_change_no_bits, replicates_without_an_optimum_are_counted)
