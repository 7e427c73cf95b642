/* Counts against probabilities, for the statistical tests of this room. */
#ifndef PF_TEST_STATISTICS_H
#define PF_TEST_STATISTICS_H

#include "pf_test.h"

/* The value that a chi-square number with df degrees of freedom exceeds once in a million (Wilson
 * and Hilferty's approximation). */
static inline double chi_square_bound(int64_t df)
{
    double k = (double)df, s = 2 / (9 * k);
    return k * pow(1 - s + 4.7534 * sqrt(s), 3);
}

/* Pearson's test of counts in n cells against probabilities that sum to 1; a cell of probability 0
 * stays empty. */
static inline void check_counts(int64_t n, const int64_t *count, const double *p)
{
    double total = 0, chi_square = 0;
    int64_t df = -1;
    for (int64_t i = 0; i < n; i++)
        total += (double)count[i];
    for (int64_t i = 0; i < n; i++) {
        if (p[i] == 0) {
            ck_assert_int_eq(count[i], 0);
            continue;
        }
        double expected = total * p[i], d = (double)count[i] - expected;
        ck_assert_msg(expected >= 5, "cell %d expects %g, too few for the test", (int)i, expected);
        chi_square += d * d / expected;
        df++;
    }
    if (df > 0)
        ck_assert_msg(chi_square < chi_square_bound(df), "chi-square is %g with %d degrees",
                      chi_square, (int)df);
}

#endif
