/* The likelihood of comparisons: Bradley-Terry, and with ties Davidson or Rao-Kupper. Rows were
 * summed by unordered pair of items (pair_rows.c); everything here costs one pass over the pairs.
 *
 * With d = x[a] - x[b] each pair's term depends on d and the tie parameter t alone, so the second
 * derivatives are a weighted graph Laplacian (weights dd) bordered by the tie parameter (dt, tt).
 */
#include "math/pf_math.h"
#include "train/pf_pair_likelihood.h"

/* ---- passes over the pairs */

typedef struct {
    pf_pair_likelihood *p;
    const double *x;
} pass;

static double *clear_partial(const pf_pair_likelihood *p, int64_t task)
{
    double *sum = p->base.partial + task * p->base.dim;
    memset(sum, 0, (size_t)p->base.dim * sizeof *sum);
    return sum;
}

/* A few pairs at a time: d, |d|, log(1 + exp(-|d|)) and sigmoid(-|d|). */
enum { BLOCK = 256 };

typedef struct {
    double d[BLOCK], size[BLOCK], softplus[BLOCK], small[BLOCK];
} block;

static int64_t load_block(const pf_pair_likelihood *p, const double *x, int64_t k, int64_t end,
                          block *at)
{
    int64_t n = end - k < BLOCK ? end - k : BLOCK;
    for (int64_t i = 0; i < n; i++) {
        at->d[i] = x[p->a[k + i]] - x[p->b[k + i]];
        at->size[i] = fabs(at->d[i]);
    }
    pf_logistic(n, at->size, 1, 0, at->softplus, at->small);
    return n;
}

/* sum[a] += flow and sum[b] += sign * flow over n pairs from k; those of one a are neighbours. */
static void add_flows(const pf_pair_likelihood *p, int64_t k, int64_t n, const double *flow,
                      double sign, double *sum)
{
    const int32_t *a = p->a + k, *b = p->b + k;
    for (int64_t i = 0; i < n;) {
        int32_t item = a[i];
        double own = 0;
        for (; i < n && a[i] == item; i++) {
            own += flow[i];
            sum[b[i]] += sign * flow[i];
        }
        sum[item] += own;
    }
}

static void evaluate_plain_task(void *payload, int64_t task)
{
    pf_pair_likelihood *p = ((pass *)payload)->p;
    const double *x = ((pass *)payload)->x;
    double *sum = clear_partial(p, task);
    block at;
    for (int64_t k = p->chunk[task], end = p->chunk[task + 1], n; k < end; k += n) {
        n = load_block(p, x, k, end, &at);
        const double *win = p->win + k, *lose = p->lose + k;
        for (int64_t i = 0; i < n; i++) {
            double small = at.small[i], large = 1 - small; /* small <= 0.5: nothing cancels */
            double wins = at.d[i] >= 0 ? large : small, loses = at.d[i] >= 0 ? small : large;
            p->dd[k + i] = (win[i] + lose[i]) * small * large;
            at.d[i] = win[i] * loses - lose[i] * wins;
        }
        add_flows(p, k, n, at.d, -1, sum);
    }
}

static void evaluate_tied_task(void *payload, int64_t task)
{
    pf_pair_likelihood *p = ((pass *)payload)->p;
    const double *x = ((pass *)payload)->x;
    double *sum = clear_partial(p, task), t = x[p->base.n_items], tt = 0;
    for (int64_t k = p->chunk[task]; k < p->chunk[task + 1]; k++) {
        pf_tie_terms s = pf_tie_terms_of(p->base.tie_model, x[p->a[k]] - x[p->b[k]], t, p->win[k],
                                         p->lose[k], p->tie[k]);
        p->dd[k] = s.dd;
        p->dt[k] = s.dt;
        tt += s.tt;
        sum[p->a[k]] += s.rd;
        sum[p->b[k]] -= s.rd;
        sum[p->base.n_items] += s.rt;
    }
    p->chunk_tt[task] = tt;
}

static void sum_chunk_tt(pf_pair_likelihood *p)
{
    p->tt = 0;
    for (int64_t c = 0; c < p->base.n_chunks; c++)
        p->tt += p->chunk_tt[c];
}

static void evaluate(pf_likelihood *l, const double *x, double *gradient)
{
    pass run = {(pf_pair_likelihood *)l, x};
    pf_parallel_for(l->context, l->n_chunks,
                    pf_has_ties(run.p) ? evaluate_tied_task : evaluate_plain_task, &run);
    if (pf_has_ties(run.p))
        sum_chunk_tt(run.p);
    pf_likelihood_reduce(l, gradient);
}

static void scores_task(void *payload, int64_t task)
{
    pf_pair_likelihood *p = ((pass *)payload)->p;
    const double *x = ((pass *)payload)->x;
    double tt = 0;
    for (int64_t k = p->chunk[task]; k < p->chunk[task + 1]; k++) {
        double d = x[p->a[k]] - x[p->b[k]], win = p->win[k], lose = p->lose[k];
        double tie = p->tie != NULL ? p->tie[k] : 0;
        if (!pf_has_ties(p)) {
            /* sum of weight * (label - P)^2 */
            double wins = pf_sigmoid(d), loses = pf_sigmoid(-d);
            p->dd[k] = fmax(0, win * loses * loses + lose * wins * wins - tie);
            continue;
        }
        pf_outcome_scores s = pf_tie_scores_of(p->base.tie_model, d, x[p->base.n_items]);
        p->dd[k] = win * s.win_d * s.win_d + lose * s.lose_d * s.lose_d + tie * s.tie_d * s.tie_d;
        p->dt[k] = win * s.win_d * s.win_t + lose * s.lose_d * s.lose_t + tie * s.tie_d * s.tie_t;
        tt += win * s.win_t * s.win_t + lose * s.lose_t * s.lose_t + tie * s.tie_t * s.tie_t;
    }
    p->chunk_tt[task] = tt;
}

static void evaluate_scores(pf_likelihood *l, const double *x)
{
    pass run = {(pf_pair_likelihood *)l, x};
    pf_parallel_for(l->context, l->n_chunks, scores_task, &run);
    sum_chunk_tt(run.p);
}

/* log of P(a wins), P(b wins) and P(tie), each only where it counts: weight 0 times -inf is 0. */
static double tied_log_likelihood(const pf_pair_likelihood *p, int64_t k, double d, double t)
{
    double win = p->win[k], lose = p->lose[k], tie = p->tie[k];
    if (p->base.tie_model == PREFOPT_TIE_DAVIDSON) {
        double log_s = pf_log_add_exp(pf_log_add_exp(0.5 * d, -0.5 * d), t);
        return win * (0.5 * d - log_s) + lose * (-0.5 * d - log_s) + tie * (t - log_s);
    }
    double log_a = pf_log_sigmoid(d - t), log_b = pf_log_sigmoid(-d - t);
    double sum = win * log_a + lose * log_b;
    return sum + (tie > 0 ? tie * (log_a + log_b + 2 * t + pf_log1mexp(-2 * t)) : 0);
}

static void log_likelihood_task(void *payload, int64_t task)
{
    const pf_pair_likelihood *p = ((pass *)payload)->p;
    const double *x = ((pass *)payload)->x;
    pf_sum sum = {0, 0};
    block at;
    for (int64_t k = p->chunk[task], end = p->chunk[task + 1], n; k < end; k += n) {
        n = load_block(p, x, k, end, &at);
        for (int64_t i = 0; i < n; i++) {
            double d = at.d[i], against = d >= 0 ? p->lose[k + i] : p->win[k + i];
            if (pf_has_ties(p))
                pf_sum_add(&sum, tied_log_likelihood(p, k + i, d, x[p->base.n_items]));
            else /* log sigmoid(-|d|) = -|d| - log(1 + exp(-|d|)) */
                pf_sum_add(&sum, -(p->win[k + i] + p->lose[k + i]) * at.softplus[i] -
                                     (against > 0 ? against * at.size[i] : 0));
        }
    }
    p->base.partial[task * p->base.dim] = pf_sum_value(&sum);
}

static double log_likelihood(pf_likelihood *l, const double *x)
{
    pass run = {(pf_pair_likelihood *)l, x};
    pf_parallel_for(l->context, l->n_chunks, log_likelihood_task, &run);
    pf_sum sum = {0, 0};
    for (int64_t c = 0; c < l->n_chunks; c++)
        pf_sum_add(&sum, l->partial[c * l->dim]);
    return pf_sum_value(&sum);
}

static void product_task(void *payload, int64_t task)
{
    pf_pair_likelihood *p = ((pass *)payload)->p;
    const double *v = ((pass *)payload)->x;
    double *sum = clear_partial(p, task), flow[BLOCK], tie = 0;
    bool ties = pf_has_ties(p);
    for (int64_t k = p->chunk[task], end = p->chunk[task + 1], n; k < end; k += n) {
        n = end - k < BLOCK ? end - k : BLOCK;
        for (int64_t i = 0; i < n; i++) {
            double u = v[p->a[k + i]] - v[p->b[k + i]];
            flow[i] = p->dd[k + i] * u;
            if (!ties)
                continue;
            flow[i] += p->dt[k + i] * v[p->base.n_items];
            tie += p->dt[k + i] * u;
        }
        add_flows(p, k, n, flow, -1, sum);
    }
    if (ties)
        sum[p->base.n_items] = tie;
}

static void product(pf_likelihood *l, const double *v, double *out)
{
    pass run = {(pf_pair_likelihood *)l, v};
    pf_parallel_for(l->context, l->n_chunks, product_task, &run);
    pf_likelihood_reduce(l, out);
    if (pf_has_ties(run.p))
        out[l->n_items] += run.p->tt * v[l->n_items];
}

static void diagonal_task(void *payload, int64_t task)
{
    const pf_pair_likelihood *p = ((pass *)payload)->p;
    int64_t k = p->chunk[task];
    add_flows(p, k, p->chunk[task + 1] - k, p->dd + k, 1, clear_partial(p, task));
}

static void diagonal(pf_likelihood *l, double *out)
{
    pass run = {(pf_pair_likelihood *)l, NULL};
    pf_parallel_for(l->context, l->n_chunks, diagonal_task, &run);
    pf_likelihood_reduce(l, out);
    if (pf_has_ties(run.p))
        out[l->n_items] = run.p->tt;
}

static void dense(pf_likelihood *l, double *out)
{
    const pf_pair_likelihood *p = (const pf_pair_likelihood *)l;
    int64_t dim = l->dim, last = l->n_items;
    for (int64_t k = 0; k < p->n_pairs; k++) {
        int64_t a = p->a[k], b = p->b[k];
        out[a * dim + a] += p->dd[k];
        out[b * dim + b] += p->dd[k];
        out[a * dim + b] -= p->dd[k];
        out[b * dim + a] -= p->dd[k];
        if (!pf_has_ties(p))
            continue;
        out[a * dim + last] += p->dt[k];
        out[last * dim + a] += p->dt[k];
        out[b * dim + last] -= p->dt[k];
        out[last * dim + b] -= p->dt[k];
    }
    if (pf_has_ties(p))
        out[last * dim + last] += p->tt;
}

/* ---- existence */

static int64_t max_edges(const pf_likelihood *l)
{
    return 2 * ((const pf_pair_likelihood *)l)->n_pairs;
}

static void edges(const pf_likelihood *l, pf_win_graph *graph)
{
    const pf_pair_likelihood *p = (const pf_pair_likelihood *)l;
    for (int64_t k = 0; k < p->n_pairs; k++) {
        bool tied = pf_has_ties(p) && p->tie[k] > 0;
        /* Added and taken back, for a branch on who won would be a guess. */
        pf_win_graph_add(graph, p->a[k], p->b[k]);
        graph->n_edges -= !(p->win[k] > 0 || tied);
        pf_win_graph_add(graph, p->b[k], p->a[k]);
        graph->n_edges -= !(p->lose[k] > 0 || tied);
    }
}

void pf_pair_likelihood_outcomes(const pf_likelihood *l, double *decided, double *tied)
{
    const pf_pair_likelihood *p = (const pf_pair_likelihood *)l;
    *decided = *tied = 0;
    for (int64_t k = 0; k < p->n_pairs; k++) {
        *decided += p->win[k] + p->lose[k];
        *tied += p->tie[k];
    }
}

/* Raises level[a] to level[b] + gap. */
static bool raise_level(double *level, int32_t a, int32_t b, double gap)
{
    if (level[a] >= level[b] + gap)
        return false;
    level[a] = level[b] + gap;
    return true;
}

/* Levels with winner >= loser + 1 and |difference| <= 1 between tied items exist exactly when the
 * likelihood can be driven up for ever: d along the levels and t at half their unit. They are
 * longest paths (Bellman-Ford), which exist unless some cycle has more wins than ties. */
bool pf_pair_likelihood_ties_diverge(const pf_likelihood *l, double *level)
{
    const pf_pair_likelihood *p = (const pf_pair_likelihood *)l;
    memset(level, 0, (size_t)l->n_items * sizeof *level);
    for (int64_t round = 0; round <= l->n_items; round++) {
        bool changed = false;
        for (int64_t k = 0; k < p->n_pairs; k++) {
            int32_t a = p->a[k], b = p->b[k];
            if (p->win[k] > 0 && p->lose[k] > 0)
                return false;
            if (p->win[k] > 0)
                changed |= raise_level(level, a, b, 1);
            if (p->lose[k] > 0)
                changed |= raise_level(level, b, a, 1);
            if (p->tie[k] > 0) {
                changed |= raise_level(level, a, b, -1);
                changed |= raise_level(level, b, a, -1);
            }
        }
        if (!changed)
            return true;
    }
    return false;
}

const pf_likelihood_ops pf_pair_likelihood_ops = {"comparisons",
                                                  evaluate,
                                                  evaluate_scores,
                                                  log_likelihood,
                                                  product,
                                                  diagonal,
                                                  dense,
                                                  max_edges,
                                                  edges,
                                                  pf_pair_likelihood_clone,
                                                  pf_pair_likelihood_resample,
                                                  pf_pair_likelihood_destroy};
