/* Next-token distributions against a plain implementation, and draws from them. */
#include "online/pf_online.h"
#include "statistics.h"

enum { MOST = 64 };

/* ---- a plain implementation: sort by selection, walk, keep */

static void renormalise(int64_t n, const int *keep, const double *weight, double *q)
{
    double total = 0;
    for (int64_t i = 0; i < n; i++)
        total += keep[i] ? weight[i] : 0;
    for (int64_t i = 0; i < n; i++)
        q[i] = keep[i] ? weight[i] / total : 0;
}

static void plain_truncate(int64_t n, const double *p, const pf_truncation *t, double *q)
{
    int keep[MOST];
    int64_t rank[MOST];
    for (int64_t i = 0; i < n; i++) {
        q[i] = p[i] > 0 ? pow(p[i], 1 / t->temperature) : 0;
        keep[i] = 1;
    }
    renormalise(n, keep, q, q);
    for (int64_t i = 0; i < n; i++) {
        rank[i] = 0;
        for (int64_t j = 0; j < n; j++)
            rank[i] += p[j] > p[i] || (p[j] == p[i] && j < i);
        keep[i] = t->top_k == 0 || rank[i] < t->top_k;
    }
    /* In rank order, so that the cumulated mass is that of the tokens before. */
    renormalise(n, keep, q, q);
    double before = 0;
    for (int64_t r = 0; r < n; r++)
        for (int64_t i = 0; i < n; i++)
            if (rank[i] == r) {
                keep[i] = keep[i] && q[i] > 0 && before < t->top_p * (1 - 1e-12);
                before += q[i];
            }
    renormalise(n, keep, q, q);
    double most = 0;
    for (int64_t i = 0; i < n; i++)
        most = fmax(most, q[i]);
    for (int64_t i = 0; i < n; i++)
        keep[i] = keep[i] && q[i] >= t->min_p * most * (1 - 1e-12);
    renormalise(n, keep, q, q);
}

static void check_against_plain(int64_t n, const double *p, pf_truncation t)
{
    double logp[MOST], log_q[MOST], q[MOST];
    int64_t order[MOST];
    for (int64_t i = 0; i < n; i++)
        logp[i] = log(p[i]);
    pf_truncate(n, logp, &t, order, log_q);
    plain_truncate(n, p, &t, q);
    for (int64_t i = 0; i < n; i++) {
        CLOSE(exp(log_q[i]), q[i], 1e-12);
        ck_assert_msg((q[i] == 0) == (log_q[i] == -INFINITY),
                      "token %d: %g, expected %g (T %g, k %d, p %g, min %g)", (int)i, log_q[i],
                      log(q[i]), t.temperature, (int)t.top_k, t.top_p, t.min_p);
    }
    CLOSE(pf_total_mass(n, log_q), 1, 1e-12);
}

START_TEST(truncation_is_the_plain_one)
{
    static const double temperatures[] = {1, 0.5, 2.5};
    static const double top_ps[] = {1, 0.9, 0.5, 1e-9};
    static const double min_ps[] = {0, 0.1, 0.5, 1};
    for (uint64_t trial = 0; trial < 40; trial++) {
        int64_t n = 1 + (int64_t)trial;
        double p[MOST], total = 0;
        for (int64_t i = 0; i < n; i++) {
            /* Few distinct values, some of them 0: ties and gaps. */
            p[i] = trial % 2 == 0 ? pf_uniform(trial, 0, (uint64_t)i)
                                  : (double)pf_uniform_int(trial, 0, (uint64_t)i, 4);
            total += p[i];
        }
        if (total == 0)
            continue;
        for (int64_t i = 0; i < n; i++)
            p[i] /= total;
        for (int64_t a = 0; a < 3; a++)
            for (int64_t b = 0; b < 4; b++)
                for (int64_t k = 0; k <= n + 1; k += 1 + n / 5)
                    check_against_plain(
                        n, p,
                        (pf_truncation){temperatures[a], k, top_ps[b], min_ps[(a + b + k) % 4]});
    }
}
END_TEST

static void check_exactly(pf_truncation t, double p0, double p1, double p2, double p3)
{
    double logp[] = {log(0.15), log(0.5), log(0.05), log(0.3)};
    double expected[] = {p0, p1, p2, p3};
    int64_t order[4];
    pf_truncate(4, logp, &t, order, logp); /* in place */
    for (int64_t i = 0; i < 4; i++)
        CLOSE(exp(logp[i]), expected[i], 1e-14);
}

START_TEST(truncation_by_hand)
{
    check_exactly((pf_truncation){1, 0, 1, 0}, 0.15, 0.5, 0.05, 0.3);
    check_exactly((pf_truncation){1, 2, 1, 0}, 0, 0.625, 0, 0.375);
    /* 0.5 + 0.3 reaches 0.8, though not in floating point. */
    check_exactly((pf_truncation){1, 0, 0.8, 0}, 0, 0.625, 0, 0.375);
    check_exactly((pf_truncation){1, 0, 0.81, 0}, 0.15 / 0.95, 0.5 / 0.95, 0, 0.3 / 0.95);
    /* top_p is of what top_k left: 0.8 / 0.95 reaches 0.83. */
    check_exactly((pf_truncation){1, 3, 0.83, 0}, 0, 0.625, 0, 0.375);
    double z = 0.15 * 0.15 + 0.25 + 0.05 * 0.05 + 0.09;
    check_exactly((pf_truncation){0.5, 0, 1, 0}, 0.0225 / z, 0.25 / z, 0.0025 / z, 0.09 / z);
    check_exactly((pf_truncation){1, 0, 1e-300, 0}, 0, 1, 0, 0);
    /* 0.3 and 0.15 are 0.6 and 0.3 times 0.5; at temperature 1/2, 0.36 and 0.09 times. */
    check_exactly((pf_truncation){1, 0, 1, 0.3}, 0.15 / 0.95, 0.5 / 0.95, 0, 0.3 / 0.95);
    check_exactly((pf_truncation){1, 0, 1, 0.31}, 0, 0.625, 0, 0.375);
    check_exactly((pf_truncation){0.5, 0, 1, 0.3}, 0, 0.25 / 0.34, 0, 0.09 / 0.34);
    check_exactly((pf_truncation){1, 1, 1, 0.1}, 0, 1, 0, 0);
    check_exactly((pf_truncation){1, 0, 1, 1}, 0, 1, 0, 0);
}
END_TEST

START_TEST(equal_tokens_go_by_number)
{
    double logp[] = {-INFINITY, log(0.25), log(0.25), log(0.25), log(0.25)}, log_q[5];
    int64_t order[5];
    pf_truncate(5, logp, &(pf_truncation){1, 2, 1, 0}, order, log_q);
    double expected[] = {-INFINITY, log(0.5), log(0.5), -INFINITY, -INFINITY};
    for (int64_t i = 0; i < 5; i++)
        CLOSE(log_q[i], expected[i], 1e-15);
    pf_truncate(5, logp, &(pf_truncation){1, 0, 0.5, 0}, order, log_q);
    for (int64_t i = 0; i < 5; i++)
        CLOSE(log_q[i], expected[i], 1e-15);
    ck_assert_int_eq(pf_greedy_token(5, logp), 1);
}
END_TEST

START_TEST(a_low_temperature_does_not_overflow)
{
    double logp[] = {-700, log1p(-exp(-1.0)), -1, -INFINITY}, log_q[4];
    int64_t order[4];
    pf_truncate(4, logp, &(pf_truncation){1e-300, 0, 1, 0}, order, log_q);
    ck_assert(log_q[0] < -1e300 && log_q[2] < -1e290 && log_q[3] == -INFINITY);
    CLOSE(log_q[1], 0, 1e-15);
    pf_truncate(4, logp, &(pf_truncation){5e-324, 0, 1, 0}, order, log_q);
    ck_assert(log_q[0] == -INFINITY && log_q[1] == 0 && log_q[2] == -INFINITY);
}
END_TEST

START_TEST(heap_gives_the_order)
{
    double key[200];
    int64_t order[200];
    for (uint64_t i = 0; i < 200; i++)
        key[i] = (double)pf_uniform_int(3, 0, i, 20);
    pf_heap_build(200, key, order);
    int64_t before = -1;
    for (int64_t n = 200; n > 0; n--) {
        int64_t next = pf_heap_pop(n, key, order);
        if (before >= 0)
            ck_assert(key[before] > key[next] || (key[before] == key[next] && before < next));
        before = next;
    }
}
END_TEST

START_TEST(a_draw_is_the_inverse_of_the_distribution)
{
    enum { N = 300 };
    double log_q[] = {-INFINITY, log(0.2), log(0.5), -INFINITY, log(0.3), -800};
    pf_draw draws[N], one;
    for (int64_t i = 0; i < N; i++)
        draws[i] = (pf_draw){.u = pf_uniform(5, 0, (uint64_t)i), .id = i};
    draws[0].u = 0x1p-53;
    draws[1].u = 1 - 0x1p-53;
    pf_draw_tokens(6, log_q, pf_total_mass(6, log_q), N, draws);
    for (int64_t i = 0; i < N; i++) {
        double u = draws[i].u;
        ck_assert_int_eq(draws[i].token, u < 0.2 ? 1 : u < 0.7 ? 2 : 4);
        one = (pf_draw){.u = u};
        pf_draw_tokens(6, log_q, pf_total_mass(6, log_q), 1, &one);
        ck_assert_int_eq(one.token, draws[i].token);
        if (i > 0)
            ck_assert(draws[i - 1].u <= u);
    }
    pf_draw_tokens(6, log_q, 1, 0, NULL);
    /* A total that is too large leaves what is over to the last token that can be drawn. */
    one = (pf_draw){.u = 0.99};
    pf_draw_tokens(6, log_q, 2, 1, &one);
    ck_assert_int_eq(one.token, 4);
}
END_TEST

START_TEST(draws_follow_the_distribution)
{
    enum { N = 200000 };
    double p[] = {0.02, 0.4, 0, 0.28, 0.3}, log_q[5];
    int64_t count[5] = {0};
    for (int64_t i = 0; i < 5; i++)
        log_q[i] = log(p[i]);
    pf_draw *draws = malloc(N * sizeof *draws);
    for (int64_t i = 0; i < N; i++)
        draws[i] = (pf_draw){.u = pf_uniform(8, 1, (uint64_t)i), .id = i};
    pf_draw_tokens(5, log_q, 1, N, draws);
    for (int64_t i = 0; i < N; i++)
        count[draws[i].token]++;
    free(draws);
    check_counts(5, count, p);
}
END_TEST

TEST_MAIN("truncate", truncation_is_the_plain_one, truncation_by_hand, equal_tokens_go_by_number,
          a_low_temperature_does_not_overflow, heap_gives_the_order,
          a_draw_is_the_inverse_of_the_distribution, draws_follow_the_distribution)
