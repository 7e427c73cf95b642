/* Exact KLs and their gradients by the logits. */
#include "pf_test.h"

enum { N = 7 };
static const int32_t directions[] = {PREFOPT_KL_REVERSE, PREFOPT_KL_FORWARD};

static void softmax_log(int n, const double *logits, double *logp)
{
    double top = logits[0], sum = 0;
    for (int i = 1; i < n; i++)
        top = fmax(top, logits[i]);
    for (int i = 0; i < n; i++)
        sum += exp(logits[i] - top);
    for (int i = 0; i < n; i++)
        logp[i] = logits[i] - top - log(sum);
}

static void draw(uint64_t stream, double scale, double *logits)
{
    OK(prefopt_random_normal(11, stream, 0, N, logits));
    for (int i = 0; i < N; i++)
        logits[i] *= scale;
}

START_TEST(closed_forms)
{
    double logp[2] = {log(0.25), log(0.75)}, logq[2] = {log(0.5), log(0.5)}, kl = -1;
    OK(prefopt_kl_exact(PREFOPT_KL_REVERSE, 2, logp, logq, &kl, NULL));
    CLOSE(kl, 0.25 * log(0.5) + 0.75 * log(1.5), 1e-15);
    OK(prefopt_kl_exact(PREFOPT_KL_FORWARD, 2, logp, logq, &kl, NULL));
    CLOSE(kl, 0.5 * log(2) + 0.5 * log(2.0 / 3), 1e-15);
    OK(prefopt_kl_exact(PREFOPT_KL_REVERSE, 2, logp, logp, &kl, NULL));
    ck_assert(kl == 0);
}
END_TEST

/* p = (1 + e, 1 - e) / 2 against uniform: KL(p || q) = e^2/2 + e^4/12 + ..., far below an ulp of 1.
 */
START_TEST(keeps_its_digits_near_zero)
{
    double e = 1e-9, kl;
    double logp[2] = {log1p(e) - log(2), log1p(-e) - log(2)}, logq[2] = {-log(2), -log(2)};
    for (int d = 0; d < 2; d++) {
        OK(prefopt_kl_exact(directions[d], 2, logp, logq, &kl, NULL));
        /* logp itself is rounded to 1e-16, so log p - log q has 7 digits. */
        ck_assert_msg(fabs(kl - e * e / 2) < 1e-6 * e * e, "%g", kl);
    }
}
END_TEST

START_TEST(gradients_by_central_differences)
{
    const double scales[] = {0.1, 1, 3};
    for (int s = 0; s < 3; s++)
        for (int d = 0; d < 2; d++) {
            double logits[N], other[N], logp[N], logq[N], grad[N], kl, total = 0;
            draw(1 + (uint64_t)s, scales[s], logits);
            draw(9 + (uint64_t)s, scales[s], other);
            softmax_log(N, logits, logp);
            softmax_log(N, other, logq);
            OK(prefopt_kl_exact(directions[d], N, logp, logq, &kl, grad));
            ck_assert(kl > 0);
            for (int i = 0; i < N; i++) {
                double h = 1e-5, up, down, moved[N];
                memcpy(moved, logits, sizeof moved);
                moved[i] = logits[i] + h;
                softmax_log(N, moved, logp);
                OK(prefopt_kl_exact(directions[d], N, logp, logq, &up, NULL));
                moved[i] = logits[i] - h;
                softmax_log(N, moved, logp);
                OK(prefopt_kl_exact(directions[d], N, logp, logq, &down, NULL));
                CLOSE(grad[i], (up - down) / (2 * h), 1e-9);
                total += grad[i];
            }
            CLOSE(total, 0, 1e-14);
        }
}
END_TEST

START_TEST(mass_that_the_other_lacks)
{
    double kl, grad[3];
    double half[3] = {log(0.5), log(0.5), -INFINITY};
    double full[3] = {log(0.25), log(0.25), log(0.5)};
    /* p inside q's support. */
    OK(prefopt_kl_exact(PREFOPT_KL_REVERSE, 3, half, full, &kl, grad));
    CLOSE(kl, log(2), 1e-15);
    for (int i = 0; i < 3; i++)
        CLOSE(grad[i], 0, 1e-15); /* p is proportional to q on its support */
    OK(prefopt_kl_exact(PREFOPT_KL_FORWARD, 3, half, full, &kl, grad));
    ck_assert(kl == INFINITY);
    CLOSE(grad[0], 0.25, 1e-15);
    CLOSE(grad[2], -0.5, 1e-15);
    /* p outside q's support. */
    OK(prefopt_kl_exact(PREFOPT_KL_REVERSE, 3, full, half, &kl, grad));
    ck_assert(kl == INFINITY);
    ck_assert(grad[0] == -INFINITY && grad[1] == -INFINITY && grad[2] == INFINITY);
    OK(prefopt_kl_exact(PREFOPT_KL_FORWARD, 3, full, half, &kl, grad));
    CLOSE(kl, log(2), 1e-15);
    CLOSE(grad[2], 0.5, 1e-15);
    /* Disjoint supports. */
    double one[3] = {-INFINITY, -INFINITY, 0};
    OK(prefopt_kl_exact(PREFOPT_KL_REVERSE, 3, one, half, &kl, grad));
    ck_assert(kl == INFINITY && grad[0] == 0 && grad[1] == 0 && grad[2] == 0);
    /* A probability that underflows still has mass. */
    double faint[2] = {0, -800}, sure[2] = {0, -INFINITY};
    OK(prefopt_kl_exact(PREFOPT_KL_REVERSE, 2, faint, sure, &kl, NULL));
    ck_assert(kl == INFINITY);
    double deep[2] = {-800, 0};
    OK(prefopt_kl_exact(PREFOPT_KL_FORWARD, 2, deep, faint, &kl, grad));
    CLOSE(kl, 800, 1e-15);
    OK(prefopt_kl_exact(PREFOPT_KL_REVERSE, 2, deep, faint, &kl, grad));
    CLOSE(kl, 800, 1e-15);
}
END_TEST

START_TEST(arguments)
{
    double kl = 5, grad[2] = {7, 7}, logp[2] = {-1, -2}, bad[2] = {-1, NAN}, inf[2] = {INFINITY, 0};
    FAILS(PREFOPT_ERR_ARGUMENT, "direction is 2", prefopt_kl_exact(2, 2, logp, logp, &kl, grad));
    FAILS(PREFOPT_ERR_ARGUMENT, "direction is -1", prefopt_kl_exact(-1, 2, logp, logp, &kl, grad));
    FAILS(PREFOPT_ERR_ARGUMENT, "n is -1", prefopt_kl_exact(0, -1, logp, logp, &kl, grad));
    FAILS(PREFOPT_ERR_ARGUMENT, "logp is NULL", prefopt_kl_exact(0, 2, NULL, logp, &kl, grad));
    FAILS(PREFOPT_ERR_ARGUMENT, "logq is NULL", prefopt_kl_exact(0, 2, logp, NULL, &kl, grad));
    FAILS(PREFOPT_ERR_ARGUMENT, "kl is NULL", prefopt_kl_exact(0, 2, logp, logp, NULL, grad));
    FAILS(PREFOPT_ERR_NUMERIC, "logp[1]", prefopt_kl_exact(0, 2, bad, logp, &kl, grad));
    FAILS(PREFOPT_ERR_NUMERIC, "logq[1]", prefopt_kl_exact(0, 2, logp, bad, &kl, grad));
    FAILS(PREFOPT_ERR_NUMERIC, "logq[0]", prefopt_kl_exact(1, 2, logp, inf, &kl, grad));
    ck_assert(kl == 5 && grad[0] == 7 && grad[1] == 7);
    OK(prefopt_kl_exact(0, 0, NULL, NULL, &kl, NULL));
    ck_assert(kl == 0);
}
END_TEST

TEST_MAIN("kl_exact", closed_forms, keeps_its_digits_near_zero, gradients_by_central_differences,
          mass_that_the_other_lacks, arguments)
