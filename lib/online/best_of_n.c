/* Best of n on an enumerated distribution, exactly and in logarithms.
 *
 * Sort the completions into levels of equal score. With F the mass below a level, m its own and
 * G = F + m, the winner of n draws is of the level with probability W = G^n - F^n, and within the
 * level follows p. So log W = n log G + log(1 - (F/G)^n), and KL = sum of W (log W - log m).
 * Whether n is 1e6 or a mass is 1e-300, each logarithm is taken where it keeps its digits: log G
 * from the mass above when G is over 1/2, log(F/G) from m/G when that is at most 1/2.
 */
#include <stdlib.h>

#include "math/pf_math.h"
#include "prefopt/online.h"

typedef struct {
    double score, logp;
    int64_t index;
    double log_f, log_g, log_m, log_w; /* of the level; set at its first completion */
} entry;

static int by_score(const void *a, const void *b)
{
    const entry *x = a, *y = b;
    if (x->score != y->score)
        return x->score < y->score ? -1 : 1;
    return x->index < y->index ? -1 : 1;
}

/* A sum of exp(x), kept as exp(scale) * sum so that it never under- or overflows. What is rescaled
 * is below exp(-16) of the term that made it so, and its rounding does not matter. */
typedef struct {
    double scale;
    pf_sum sum;
} log_mass;

static const log_mass EMPTY = {-INFINITY, {0, 0}};

static void mass_add(log_mass *m, double logp)
{
    if (logp == -INFINITY)
        return;
    if (logp > m->scale + 16) {
        double shrink = exp(m->scale - logp);
        m->sum.sum *= shrink;
        m->sum.lost *= shrink;
        m->scale = logp;
    }
    pf_sum_add(&m->sum, exp(logp - m->scale));
}

static double mass_log(const log_mass *m)
{
    return m->scale == -INFINITY ? -INFINITY : m->scale + log(pf_sum_value(&m->sum));
}

/* log W from log F, log G, log m of a level with m > 0. */
static double log_win(double n, double log_f, double log_g, double log_m)
{
    double log_share = log_m - log_g; /* of m in G */
    double log_ratio;                 /* log(F/G) */
    if (log_f == -INFINITY)
        return n * log_g;
    if (log_share < -37) {
        /* log(1 - r) = -r to the last digit. exp(x) may not be a double. */
        double log_nr = log(n) + log_share;
        if (log_nr < -37)
            return n * log_g + log_nr;
        log_ratio = -exp(log_share);
    } else if (log_share < -PF_LN2) {
        log_ratio = log1p(-exp(log_share));
    } else {
        log_ratio = log_f - log_g; /* F is the smaller part of G: at most 1/2 */
    }
    return n * log_g + pf_log1mexp(n * log_ratio);
}

static int32_t check_and_sort(int64_t n_completions, const double *logp, const double *score,
                              entry *entries)
{
    for (int64_t i = 0; i < n_completions; i++) {
        if (isnan(logp[i]) || logp[i] == INFINITY)
            return pf_fail(PREFOPT_ERR_NUMERIC,
                           "prefopt_best_of_n: logp[%lld] is %g, expected a log-probability",
                           (long long)i, logp[i]);
        if (isnan(score[i]))
            return pf_fail(PREFOPT_ERR_NUMERIC, "prefopt_best_of_n: score[%lld] is NaN",
                           (long long)i);
    }
    double total = pf_log_sum_exp(n_completions, logp);
    if (!(fabs(total) <= 1e-9))
        return pf_fail(PREFOPT_ERR_ARGUMENT,
                       "prefopt_best_of_n: exp(logp) sums to %.12g, expected 1 within 1e-9",
                       exp(total));
    for (int64_t i = 0; i < n_completions; i++)
        entries[i] = (entry){.score = score[i], .logp = logp[i] - total, .index = i};
    qsort(entries, (size_t)n_completions, sizeof *entries, by_score);
    return PREFOPT_OK;
}

/* Where the level that begins at `first` ends. */
static int64_t level_end(const entry *entries, int64_t n, int64_t first)
{
    int64_t end = first + 1;
    while (end < n && entries[end].score == entries[first].score)
        end++;
    return end;
}

/* Sets log_f, log_g, log_m at the first completion of each level: masses from below, but log G from
 * the mass above where G is over 1/2. */
static void level_masses(entry *entries, int64_t n)
{
    log_mass below = EMPTY, above = EMPTY;
    for (int64_t first = 0; first < n;) {
        entry *level = &entries[first];
        log_mass own = EMPTY;
        level->log_f = mass_log(&below);
        int64_t end = level_end(entries, n, first);
        for (; first < end; first++) {
            mass_add(&own, entries[first].logp);
            mass_add(&below, entries[first].logp);
        }
        level->log_m = mass_log(&own);
        level->log_g = mass_log(&below);
    }
    for (int64_t last = n - 1; last >= 0;) {
        int64_t first = last;
        while (first > 0 && entries[first - 1].score == entries[last].score)
            first--;
        if (entries[first].log_g > -PF_LN2)
            entries[first].log_g = log1p(-exp(mass_log(&above)));
        for (; last >= first; last--)
            mass_add(&above, entries[last].logp);
    }
}

typedef struct {
    double kl, expected_score;
} summary;

/* Sets log_w of each level and sums up. */
static summary winners(double n_draws, entry *entries, int64_t n)
{
    pf_sum kl = {0, 0}, expected = {0, 0};
    for (int64_t first = 0; first < n; first = level_end(entries, n, first)) {
        entry *level = &entries[first];
        if (level->log_m == -INFINITY) {
            level->log_w = -INFINITY;
            continue;
        }
        level->log_w = n_draws == 1 ? level->log_m
                                    : log_win(n_draws, level->log_f, level->log_g, level->log_m);
        double w = exp(level->log_w);
        pf_sum_add(&kl, w * (level->log_w - level->log_m));
        /* An infinite score counts also where its probability is no double. */
        pf_sum_add(&expected, isinf(level->score) ? level->score : w * level->score);
    }
    /* Rounding may leave a KL of 0 a little below it. */
    return (summary){fmax(pf_sum_value(&kl), 0), pf_sum_value(&expected)};
}

int32_t prefopt_best_of_n(int64_t n, int64_t n_completions, const double *logp, const double *score,
                          double *bon_logp, double *kl, double *bound, double *expected_score)
{
    if (n < 1)
        return pf_fail(PREFOPT_ERR_ARGUMENT, "prefopt_best_of_n: n is %lld, expected at least 1",
                       (long long)n);
    if (n_completions < 1)
        return pf_fail(PREFOPT_ERR_ARGUMENT,
                       "prefopt_best_of_n: n_completions is %lld, expected at least 1",
                       (long long)n_completions);
    PF_REQUIRE(logp);
    PF_REQUIRE(score);
    int64_t bytes;
    entry *entries = NULL;
    if (pf_mul(n_completions, (int64_t)sizeof *entries, &bytes))
        entries = malloc((size_t)bytes);
    if (entries == NULL)
        return pf_fail(PREFOPT_ERR_MEMORY, "prefopt_best_of_n: no memory for %lld completions",
                       (long long)n_completions);
    int32_t status = check_and_sort(n_completions, logp, score, entries);
    if (status != PREFOPT_OK) {
        free(entries);
        return status;
    }
    level_masses(entries, n_completions);
    summary s = winners((double)n, entries, n_completions);
    if (expected_score != NULL && isnan(s.expected_score)) {
        free(entries);
        return pf_fail(PREFOPT_ERR_NUMERIC,
                       "prefopt_best_of_n: score has both infinities at positive probability, so "
                       "expected_score has no meaning");
    }
    if (bon_logp != NULL)
        for (int64_t first = 0, end; first < n_completions; first = end) {
            const entry *level = &entries[first];
            end = level_end(entries, n_completions, first);
            for (int64_t i = first; i < end; i++)
                bon_logp[entries[i].index] = level->log_m == -INFINITY
                                                 ? -INFINITY
                                                 : entries[i].logp - level->log_m + level->log_w;
        }
    free(entries);
    if (kl != NULL)
        *kl = s.kl;
    if (bound != NULL)
        *bound = log((double)n) - ((double)n - 1) / (double)n;
    if (expected_score != NULL)
        *expected_score = s.expected_score;
    return PREFOPT_OK;
}
