/* Fragility: against every subset of small tables, on real counts, and where nothing flips. */
#include "report_test.h"

enum { MAX_ROWS = 128 };

typedef struct {
    int64_t n;
    int32_t first[MAX_ROWS], second[MAX_ROWS];
    double weight[MAX_ROWS], label[MAX_ROWS];
} counts;

static void add(counts *t, int a, int b, double weight, double label)
{
    ck_assert_int_lt(t->n, MAX_ROWS);
    t->first[t->n] = a;
    t->second[t->n] = b;
    t->weight[t->n] = weight;
    t->label[t->n++] = label;
}

static prefopt_comparisons view(const counts *t, int64_t n_items)
{
    return (prefopt_comparisons){.struct_size = sizeof(prefopt_comparisons),
                                 .n_items = n_items,
                                 .n = t->n,
                                 .first = t->first,
                                 .second = t->second,
                                 .weight = t->weight,
                                 .label = t->label};
}

static prefopt_strengths_options with(int32_t tie_model, double ridge)
{
    prefopt_strengths_options o;
    OK(prefopt_strengths_options_init(&o, sizeof o));
    o.tie_model = tie_model;
    o.ridge = ridge;
    return o;
}

/* Strengths of the table; false when there is no finite optimum. */
static int strengths(prefopt_context *context, const counts *t, int64_t n_items,
                     const prefopt_strengths_options *o, double *theta)
{
    prefopt_comparisons data = view(t, n_items);
    prefopt_strengths *fit;
    int32_t status = prefopt_strengths_fit(&fit, context, &data, NULL, o);
    if (status == PREFOPT_ERR_UNBOUNDED)
        return 0;
    OK(status);
    OK(prefopt_strengths_values(fit, theta, NULL));
    prefopt_strengths_destroy(fit);
    return 1;
}

/* Whether some removal of at most k comparisons from rows `from` on puts another item first. */
static int some_flip(prefopt_context *context, counts *t, int64_t n_items,
                     const prefopt_strengths_options *o, int leader, int64_t from, int k)
{
    double theta[8];
    if (strengths(context, t, n_items, o, theta))
        for (int i = 0; i < n_items; i++)
            if (theta[i] - theta[leader] > 1e-9)
                return 1;
    if (k == 0)
        return 0;
    for (int64_t row = from; row < t->n; row++) {
        if (!(t->weight[row] > 0))
            continue;
        t->weight[row] -= 1;
        int flip = some_flip(context, t, n_items, o, leader, row, k - 1);
        t->weight[row] += 1;
        if (flip)
            return 1;
    }
    return 0;
}

/* What every answer must be: consistent, and confirmed by a fit of what is left. */
static void check_answer(prefopt_context *context, const counts *t, int64_t n_items,
                         const prefopt_strengths_options *o, const prefopt_fragility *f,
                         const double *removed)
{
    double total = 0, taken = 0, theta[8], left[8];
    counts rest = *t;
    for (int64_t i = 0; i < t->n; i++) {
        ck_assert(removed[i] >= 0 && removed[i] <= t->weight[i]);
        total += t->weight[i];
        taken += removed[i];
        rest.weight[i] -= removed[i];
    }
    ck_assert(strengths(context, t, n_items, o, theta));
    for (int i = 0; i < n_items; i++)
        ck_assert_double_le(theta[i], theta[f->leader] + 1e-9);
    CLOSE(f->n_removed, taken, 1e-12);
    if (!f->found) {
        ck_assert_double_eq(taken, 0);
        return;
    }
    CLOSE(f->share, taken / total, 1e-12);
    CLOSE(f->gap_before, theta[f->leader] - theta[f->rival], 1e-7);
    ck_assert(strengths(context, &rest, n_items, o, left));
    CLOSE(f->gap_after, left[f->leader] - left[f->rival], 1e-7);
    ck_assert_double_lt(f->gap_after, 0);
    for (int i = 0; i < n_items; i++)
        ck_assert_double_le(left[i], left[f->rival] + 1e-9);
}

/* A random table of n_items, every pair met `least` to `least` + 2 times. */
static counts random_table(uint64_t seed, int n_items, int least, int32_t tie_model)
{
    counts t = {0};
    double u[64], strength[8];
    int k = 0;
    OK(prefopt_random_uniform(seed, 1, 0, 64, u));
    OK(prefopt_random_normal(seed, 2, 0, 8, strength));
    for (int a = 0; a < n_items; a++)
        for (int b = a + 1; b < n_items; b++) {
            double met = least + floor(3 * u[k++]);
            double wins =
                round(met * prefopt_sigmoid(0.7 * (strength[a] - strength[b])) + u[k++] - 0.5);
            wins = fmin(fmax(wins, 0), met);
            add(&t, a, b, wins, 1);
            add(&t, b, a, met - wins, 1);
            if (tie_model != PREFOPT_TIE_NONE && u[k++] < 0.6)
                add(&t, a, b, 1, 0.5);
        }
    return t;
}

static void against_brute_force(int32_t tie_model, double ridge, int least, int most,
                                uint64_t n_seeds)
{
    prefopt_context *context = test_context(1);
    prefopt_strengths_options o = with(tie_model, ridge);
    const int n_items = 4;
    int tried = 0, found = 0, fewest = 0;
    for (uint64_t seed = 1; seed <= n_seeds; seed++) {
        counts t = random_table(seed, n_items, least, tie_model);
        double theta[8], total = 0, removed[MAX_ROWS];
        if (!strengths(context, &t, n_items, &o, theta))
            continue;
        for (int64_t i = 0; i < t.n; i++)
            total += t.weight[i];
        prefopt_comparisons data = view(&t, n_items);
        prefopt_fragility f = {.struct_size = sizeof f};
        OK(prefopt_report_fragility(&f, removed, context, &data, &o, (most + 0.5) / total));
        check_answer(context, &t, n_items, &o, &f, removed);
        int k = 0;
        while (k <= most && !some_flip(context, &t, n_items, &o, (int)f.leader, 0, k))
            k++;
        tried++;
        found += k <= most;
        fewest += f.found ? f.n_removed == k : k > most;
        if (f.found)
            ck_assert_double_ge(f.n_removed, k);
    }
    ck_assert_int_gt(found, tried / 4);
    ck_assert_int_eq(fewest, tried);
    prefopt_context_destroy(context);
}

START_TEST(every_subset) { against_brute_force(PREFOPT_TIE_NONE, 0, 2, 3, 60); }
END_TEST
/* Tables so sparse that many removals leave no finite optimum. */
START_TEST(every_subset_sparse) { against_brute_force(PREFOPT_TIE_NONE, 0, 1, 3, 100); }
END_TEST
START_TEST(every_subset_with_a_ridge) { against_brute_force(PREFOPT_TIE_NONE, 0.5, 2, 3, 30); }
END_TEST
START_TEST(every_subset_davidson) { against_brute_force(PREFOPT_TIE_DAVIDSON, 0, 2, 2, 40); }
END_TEST
START_TEST(every_subset_rao_kupper) { against_brute_force(PREFOPT_TIE_RAO_KUPPER, 0, 2, 2, 40); }
END_TEST

/* Agresti 2002, table 10.10: the American League, 1987; Milwaukee is first, Detroit second. */
static counts baseball(void)
{
    static const int games[42][4] = {
        {0, 1, 4, 3}, {0, 2, 4, 2}, {0, 3, 4, 3}, {0, 4, 6, 1}, {0, 5, 4, 2}, {0, 6, 6, 0},
        {1, 0, 3, 3}, {1, 2, 4, 2}, {1, 3, 4, 3}, {1, 4, 6, 0}, {1, 5, 6, 1}, {1, 6, 4, 3},
        {2, 0, 2, 5}, {2, 1, 4, 3}, {2, 3, 2, 4}, {2, 4, 4, 3}, {2, 5, 4, 2}, {2, 6, 6, 0},
        {3, 0, 3, 3}, {3, 1, 5, 1}, {3, 2, 2, 5}, {3, 4, 4, 3}, {3, 5, 4, 2}, {3, 6, 6, 1},
        {4, 0, 5, 1}, {4, 1, 2, 5}, {4, 2, 3, 3}, {4, 3, 4, 2}, {4, 5, 5, 2}, {4, 6, 6, 0},
        {5, 0, 2, 5}, {5, 1, 3, 3}, {5, 2, 3, 4}, {5, 3, 4, 3}, {5, 4, 4, 2}, {5, 6, 2, 4},
        {6, 0, 2, 5}, {6, 1, 1, 5}, {6, 2, 1, 6}, {6, 3, 2, 4}, {6, 4, 1, 6}, {6, 5, 3, 4}};
    counts t = {0};
    for (int i = 0; i < 42; i++) {
        add(&t, games[i][0], games[i][1], games[i][2], 1);
        add(&t, games[i][0], games[i][1], games[i][3], 0);
    }
    return t;
}

START_TEST(american_league)
{
    prefopt_context *context = test_context(1);
    prefopt_strengths_options o = with(PREFOPT_TIE_NONE, 0);
    counts t = baseball();
    prefopt_comparisons data = view(&t, 7);
    double removed[MAX_ROWS];
    prefopt_fragility f = {.struct_size = sizeof f};
    OK(prefopt_report_fragility(&f, removed, context, &data, NULL, 0.1));
    check_answer(context, &t, 7, &o, &f, removed);
    ck_assert_int_eq(f.found, 1);
    ck_assert_int_eq(f.leader, 0);
    ck_assert_int_eq(f.rival, 1);
    CLOSE(f.gap_before, 1.5814 - 1.4364, 1e-4); /* R, BradleyTerry2 */
    int k = 0;
    while (!some_flip(context, &t, 7, &o, 0, 0, k))
        k++;
    ck_assert_double_eq(f.n_removed, k);
    CLOSE(f.share, k / 273.0, 1e-12);
    /* One comparison fewer is not enough, and is not found. */
    OK(prefopt_report_fragility(&f, removed, context, &data, NULL, (k - 0.5) / 273));
    check_answer(context, &t, 7, &o, &f, removed);
    ck_assert_int_eq(f.found, 0);
    ck_assert_int_eq(f.rival, 1);
    ck_assert_double_eq(f.gap_after, f.gap_before);
    prefopt_context_destroy(context);
}
END_TEST

START_TEST(robust_leader)
{
    prefopt_context *context = test_context(1);
    counts t = {0};
    add(&t, 0, 1, 90, 1);
    add(&t, 0, 1, 10, 0);
    add(&t, 0, 2, 90, 1);
    add(&t, 0, 2, 10, 0);
    add(&t, 1, 2, 50, 1);
    add(&t, 1, 2, 50, 0);
    prefopt_comparisons data = view(&t, 3);
    double removed[6] = {9, 9, 9, 9, 9, 9};
    prefopt_fragility f = {.struct_size = sizeof f};
    OK(prefopt_report_fragility(&f, removed, context, &data, NULL, 0.05));
    ck_assert_int_eq(f.found, 0);
    ck_assert_int_eq(f.leader, 0);
    ck_assert_double_eq(f.n_removed, 0);
    ck_assert_double_eq(f.share, 0);
    for (int i = 0; i < 6; i++)
        ck_assert_double_eq(removed[i], 0);
    OK(prefopt_report_fragility(&f, NULL, context, &data, NULL, 0));
    ck_assert_int_eq(f.found, 0);
    /* With everything allowed it is found, far away. */
    prefopt_strengths_options o = with(PREFOPT_TIE_NONE, 0);
    OK(prefopt_report_fragility(&f, removed, context, &data, NULL, 1));
    check_answer(context, &t, 3, &o, &f, removed);
    ck_assert_int_eq(f.found, 1);
    ck_assert_double_gt(f.n_removed, 50);
    prefopt_context_destroy(context);
}
END_TEST

/* Two items: the leader's lead is a count. Fractions of a comparison go last, and a draw is no
 * change of who is first. */
START_TEST(two_items)
{
    prefopt_context *context = test_context(1);
    prefopt_strengths_options o = with(PREFOPT_TIE_NONE, 0);
    counts t = {0};
    double removed[2];
    prefopt_fragility f = {.struct_size = sizeof f};
    add(&t, 1, 0, 13, 1);
    add(&t, 0, 1, 10, 1);
    prefopt_comparisons data = view(&t, 2);
    OK(prefopt_report_fragility(&f, removed, context, &data, NULL, 0.5));
    check_answer(context, &t, 2, &o, &f, removed);
    ck_assert_int_eq(f.leader, 1);
    ck_assert_double_eq(f.n_removed, 4);
    ck_assert_double_eq(removed[0], 4);
    CLOSE(f.gap_before, log(1.3), 1e-9);
    CLOSE(f.gap_after, log(0.9), 1e-9);
    t.weight[0] = 12.5;
    OK(prefopt_report_fragility(&f, removed, context, &data, NULL, 0.5));
    ck_assert_double_eq(removed[0], 3);
    t.weight[0] = t.weight[1] = 10; /* a draw: the first of them leads */
    OK(prefopt_report_fragility(&f, removed, context, &data, NULL, 0.5));
    check_answer(context, &t, 2, &o, &f, removed);
    ck_assert_int_eq(f.leader, 0);
    ck_assert_double_eq(f.n_removed, 1);
    prefopt_context_destroy(context);
}
END_TEST

/* The leader beats the second once more than it loses; but its one win over the third cannot go, as
 * the third would then have lost to nobody in its reach: such refits confirm nothing. */
START_TEST(disconnecting)
{
    prefopt_context *context = test_context(1);
    prefopt_strengths_options o = with(PREFOPT_TIE_NONE, 0);
    counts t = {0};
    add(&t, 0, 1, 1, 1);
    add(&t, 1, 2, 1, 1);
    add(&t, 2, 0, 1, 1);
    add(&t, 0, 2, 1, 1);
    prefopt_comparisons data = view(&t, 3);
    double removed[4];
    prefopt_fragility f = {.struct_size = sizeof f};
    OK(prefopt_report_fragility(&f, removed, context, &data, NULL, 1));
    check_answer(context, &t, 3, &o, &f, removed);
    ck_assert_int_eq(f.found, 0);
    ck_assert_int_eq(some_flip(context, &t, 3, &o, (int)f.leader, 0, 4), 0);
    ck_assert_int_gt(f.n_refits, 0);
    /* A ridge makes every refit finite. */
    o = with(PREFOPT_TIE_NONE, 0.1);
    OK(prefopt_report_fragility(&f, removed, context, &data, &o, 1));
    check_answer(context, &t, 3, &o, &f, removed);
    ck_assert_int_eq(f.found, 1);
    prefopt_context_destroy(context);
}
END_TEST

/* An arena: 57,477 votes one a row, 20 items, the first two as good as equal. The same bits on any
 * number of threads. */
START_TEST(arena)
{
    enum { N = 57477, ITEMS = 20 };
    int32_t *first = calloc(N, 4), *second = calloc(N, 4);
    double *label = calloc(N, 8), *u = calloc(3 * N, 8), *removed[2];
    OK(prefopt_random_uniform(7, 0, 0, 3 * N, u));
    for (int i = 0; i < N; i++) {
        int a = (int)(u[3 * i] * ITEMS), b = (int)(u[3 * i + 1] * (ITEMS - 1));
        b += b >= a;
        double sa = a < 2 ? 2 : 0.1 * (ITEMS - a), sb = b < 2 ? 2 : 0.1 * (ITEMS - b);
        first[i] = a;
        second[i] = b;
        label[i] = u[3 * i + 2] < prefopt_sigmoid(sa - sb);
    }
    prefopt_comparisons data = {.struct_size = sizeof data,
                                .n_items = ITEMS,
                                .n = N,
                                .first = first,
                                .second = second,
                                .label = label};
    prefopt_fragility f[2];
    for (int k = 0; k < 2; k++) {
        prefopt_context *context = test_context(k == 0 ? 1 : 4);
        removed[k] = calloc(N, 8);
        f[k] = (prefopt_fragility){.struct_size = sizeof f[k]};
        OK(prefopt_report_fragility(&f[k], removed[k], context, &data, NULL, 0.01));
        prefopt_context_destroy(context);
    }
    ck_assert_int_eq(memcmp(&f[0], &f[1], sizeof f[0]), 0);
    ck_assert_int_eq(memcmp(removed[0], removed[1], N * sizeof(double)), 0);
    ck_assert_int_eq(f[0].found, 1);
    ck_assert_int_eq(f[0].leader + f[0].rival, 1);
    ck_assert_double_gt(f[0].n_removed, 0);
    ck_assert_double_lt(f[0].share, 0.01);
    ck_assert_double_lt(f[0].gap_after, 0);
    /* One of them put back, the leader is first again (or as good as). */
    double *weight = calloc(N, 8), theta[ITEMS];
    int back = 0;
    for (int i = 0; i < N; i++) {
        weight[i] = 1 - removed[0][i];
        if (removed[0][i] > 0 && back++ == 0)
            weight[i] = 1;
    }
    ck_assert_double_eq(back, f[0].n_removed);
    data.weight = weight;
    prefopt_context *context = test_context(1);
    prefopt_strengths *fit;
    OK(prefopt_strengths_fit(&fit, context, &data, NULL, NULL));
    OK(prefopt_strengths_values(fit, theta, NULL));
    ck_assert_double_ge(theta[f[0].leader], theta[f[0].rival] - 1e-9);
    prefopt_strengths_destroy(fit);
    prefopt_context_destroy(context);
    free(first);
    free(second);
    free(label);
    free(u);
    free(weight);
    free(removed[0]);
    free(removed[1]);
}
END_TEST

/* More items than are all tried as rivals: the nearest are. A ring of wins, each item met by the
 * next, with the lead decided by few. */
START_TEST(many_items)
{
    enum { ITEMS = 300 };
    prefopt_context *context = test_context(1);
    int32_t first[2 * ITEMS], second[2 * ITEMS];
    double weight[2 * ITEMS], removed[2 * ITEMS];
    for (int i = 0; i < ITEMS; i++) {
        first[2 * i] = second[2 * i + 1] = i;
        second[2 * i] = first[2 * i + 1] = (i + 1) % ITEMS;
        weight[2 * i] = i == 40 ? 12 : 10;
        weight[2 * i + 1] = i == 39 ? 11 : 10;
    }
    prefopt_comparisons data = {.struct_size = sizeof data,
                                .n_items = ITEMS,
                                .n = 2 * ITEMS,
                                .first = first,
                                .second = second,
                                .weight = weight};
    prefopt_fragility f = {.struct_size = sizeof f};
    OK(prefopt_report_fragility(&f, removed, context, &data, NULL, 0.1));
    ck_assert_int_eq(f.leader, 40);
    ck_assert_int_eq(f.found, 1);
    ck_assert_double_le(f.n_removed, 3);
    ck_assert_double_lt(f.gap_after, 0);
    prefopt_context_destroy(context);
}
END_TEST

START_TEST(refusals)
{
    prefopt_context *context = test_context(1);
    counts t = baseball();
    prefopt_comparisons data = view(&t, 7), none = {.struct_size = sizeof none, .n_items = 1};
    prefopt_strengths_options o = with(PREFOPT_TIE_NONE, 0);
    double removed[MAX_ROWS] = {99};
    prefopt_fragility f = {.struct_size = sizeof f, .n_removed = 99}, small = {.struct_size = 4};
    FAILS(PREFOPT_ERR_ARGUMENT, "out is NULL",
          prefopt_report_fragility(NULL, removed, context, &data, &o, 0.1));
    FAILS(PREFOPT_ERR_ARGUMENT, "context is NULL",
          prefopt_report_fragility(&f, removed, NULL, &data, &o, 0.1));
    FAILS(PREFOPT_ERR_ARGUMENT, "data is NULL",
          prefopt_report_fragility(&f, removed, context, NULL, &o, 0.1));
    FAILS(PREFOPT_ERR_VERSION, "prefopt_fragility",
          prefopt_report_fragility(&small, removed, context, &data, &o, 0.1));
    FAILS(PREFOPT_ERR_ARGUMENT, "max_share is 1.5",
          prefopt_report_fragility(&f, removed, context, &data, &o, 1.5));
    FAILS(PREFOPT_ERR_NUMERIC, "max_share is NaN",
          prefopt_report_fragility(&f, removed, context, &data, &o, NAN));
    o.covariance = PREFOPT_COVARIANCE_SANDWICH;
    FAILS(PREFOPT_ERR_ARGUMENT, "covariance is 1",
          prefopt_report_fragility(&f, removed, context, &data, &o, 0.1));
    o = with(PREFOPT_TIE_DAVIDSON, 0);
    FAILS(PREFOPT_ERR_UNBOUNDED, "log_tie",
          prefopt_report_fragility(&f, removed, context, &data, &o, 0.1));
    t.second[3] = 9;
    FAILS(PREFOPT_ERR_ARGUMENT, "second[3] is 9",
          prefopt_report_fragility(&f, removed, context, &data, NULL, 0.1));
    t.second[3] = 2;
    data.n = 2; /* most items in no comparison */
    FAILS(PREFOPT_ERR_UNBOUNDED, "",
          prefopt_report_fragility(&f, removed, context, &data, NULL, 0.1));
    ck_assert_double_eq(f.n_removed, 99);
    ck_assert_double_eq(removed[0], 99);
    /* One item, and no comparison under a ridge: there is nothing to remove. */
    OK(prefopt_report_fragility(&f, NULL, context, &none, NULL, 0.1));
    ck_assert_int_eq(f.found, 0);
    ck_assert_int_eq(f.rival, -1);
    none.n_items = 3;
    o = with(PREFOPT_TIE_NONE, 1);
    OK(prefopt_report_fragility(&f, NULL, context, &none, &o, 1));
    ck_assert_int_eq(f.found, 0);
    prefopt_context_destroy(context);
}
END_TEST

START_TEST(allocator_failures)
{
    counting_allocator a = {0};
    prefopt_context *context = counting_context(&a);
    counts t = baseball();
    prefopt_comparisons data = view(&t, 7);
    double removed[MAX_ROWS] = {99};
    prefopt_fragility f = {.struct_size = sizeof f, .n_removed = 99};
    int64_t failures;
    FAIL_AT_EACH(&a, failures, prefopt_report_fragility(&f, removed, context, &data, NULL, 0.02),
                 f.n_removed == 99 && removed[0] == 99);
    ck_assert_int_gt(failures, 30);
    prefopt_context_destroy(context);
}
END_TEST

TEST_MAIN("fragility", every_subset, every_subset_sparse, every_subset_with_a_ridge,
          every_subset_davidson, every_subset_rao_kupper, american_league, robust_leader, two_items,
          disconnecting, arena, many_items, refusals, allocator_failures)
