/* Means over seeds and their 95 % intervals, against tables of Student's t. */
#include "examples/support/intervals.h"
#include "pf_test.h"

START_TEST(half_widths_are_students)
{
    static const struct {
        int n;
        double t;
    } known[] = {{2, 12.7062}, {3, 4.3027},  {4, 3.1824}, {5, 2.7764},
                 {6, 2.5706},  {10, 2.2622}, {20, 2.0930}};
    double x[20];
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++) {
        int n = known[i].n;
        double half, square = 0;
        for (int k = 0; k < n; k++) {
            x[k] = k;
            square += (k - (n - 1) / 2.0) * (k - (n - 1) / 2.0);
        }
        ck_assert_double_eq_tol(mean_of(n, x, &half), (n - 1) / 2.0, 1e-12);
        ck_assert_double_eq_tol(half / sqrt(square / (n - 1) / n), known[i].t, 0.004);
    }
}
END_TEST

TEST_MAIN("intervals over seeds", half_widths_are_students)
