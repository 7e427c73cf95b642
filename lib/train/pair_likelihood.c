/* The likelihood of comparisons: Bradley-Terry, and with ties Davidson or Rao-Kupper. Rows are
 * summed by unordered pair of items first, sorted; everything after that costs one pass over the
 * pairs.
 *
 * With d = x[a] - x[b] each pair's term depends on d and the tie parameter t alone, so the second
 * derivatives are a weighted graph Laplacian (weights dd) bordered by the tie parameter (dt, tt).
 */
#include "math/pf_math.h"
#include "train/pf_strengths.h"

typedef struct {
    pf_likelihood base;
    bool shares; /* a clone: index arrays belong to the original */
    int64_t n_pairs;
    int32_t *a, *b; /* a < b, sorted by (a, b) */
    /* Sums of weight by outcome. Without a tie model win and lose are sums of weight * label and
     * weight * (1 - label), and tie is the sum of weight * label * (1 - label). */
    double *win, *lose, *tie;
    double *dd, *dt; /* n_pairs; dt with a tie model alone */
    double tt;
    int64_t *chunk;   /* n_chunks + 1: first pair of each */
    double *chunk_tt; /* n_chunks */
    /* Rows as given, for resampling; NULL unless asked for. */
    int64_t n_rows;
    int64_t *row_pair; /* -1: weight 0 */
    double *row_weight, *row_label /* P(a wins) */;
} pair_likelihood;

static bool has_ties(const pair_likelihood *p) { return p->base.tie_model != PREFOPT_TIE_NONE; }

/* ---- one pair */

/* First derivatives (rd, rt) and minus the second ones (dd, dt, tt) of one pair's log-likelihood.
 */
typedef struct {
    double rd, rt, dd, dt, tt;
} pair_terms;

/* P(a wins) = e^(d/2) / S, P(b wins) = e^(-d/2) / S, P(tie) = e^t / S. */
static void davidson_probabilities(double d, double t, double *pa, double *pb, double *pt)
{
    double high = fmax(0.5 * fabs(d), t);
    double ea = exp(0.5 * d - high), eb = exp(-0.5 * d - high), et = exp(t - high);
    double s = ea + eb + et;
    *pa = ea / s;
    *pb = eb / s;
    *pt = et / s;
}

/* Scores of one outcome each (a wins, b wins, tie) with respect to d and t. */
typedef struct {
    double win_d, win_t, lose_d, lose_t, tie_d, tie_t;
} outcome_scores;

static outcome_scores davidson_scores(double pa, double pb, double pt)
{
    outcome_scores s = {.win_d = 0.5 * (2 * pb + pt),
                        .win_t = -pt,
                        .lose_d = -0.5 * (2 * pa + pt),
                        .lose_t = -pt,
                        .tie_d = 0.5 * (pb - pa),
                        .tie_t = pa + pb};
    return s;
}

/* P(a wins) = sigma(d - t), P(b wins) = sigma(-d - t), and
 * log P(tie) = log sigma(d - t) + log sigma(-d - t) + log(e^(2t) - 1). */
static outcome_scores rao_kupper_scores(double d, double t)
{
    double lost_a = pf_sigmoid(t - d), lost_b = pf_sigmoid(t + d); /* 1 - P(wins) */
    double slope = -2 / expm1(-2 * t);                             /* d/dt log(e^(2t) - 1) */
    outcome_scores s = {.win_d = lost_a,
                        .win_t = -lost_a,
                        .lose_d = -lost_b,
                        .lose_t = -lost_b,
                        .tie_d = lost_a - lost_b,
                        .tie_t = slope - lost_a - lost_b};
    return s;
}

static outcome_scores scores_of(int32_t tie_model, double d, double t)
{
    if (tie_model == PREFOPT_TIE_RAO_KUPPER)
        return rao_kupper_scores(d, t);
    double pa, pb, pt;
    davidson_probabilities(d, t, &pa, &pb, &pt);
    return davidson_scores(pa, pb, pt);
}

static pair_terms tied_terms(int32_t tie_model, double d, double t, double win, double lose,
                             double tie)
{
    pair_terms out;
    outcome_scores s;
    if (tie_model == PREFOPT_TIE_DAVIDSON) {
        double pa, pb, pt, n = win + lose + tie;
        davidson_probabilities(d, t, &pa, &pb, &pt);
        s = davidson_scores(pa, pb, pt);
        out.dd = n * (0.25 * pt * (pa + pb) + pa * pb);
        out.dt = n * 0.5 * (pb - pa) * pt;
        out.tt = n * pt * (pa + pb);
    } else {
        s = rao_kupper_scores(d, t);
        double ca = (win + tie) * pf_sigmoid(d - t) * pf_sigmoid(t - d);
        double cb = (lose + tie) * pf_sigmoid(-d - t) * pf_sigmoid(d + t);
        double sinh_t = sinh(t);
        out.dd = ca + cb;
        out.dt = cb - ca;
        out.tt = ca + cb + tie / (sinh_t * sinh_t);
    }
    out.rd = win * s.win_d + lose * s.lose_d + tie * s.tie_d;
    out.rt = win * s.win_t + lose * s.lose_t + tie * s.tie_t;
    return out;
}

/* ---- passes over the pairs */

typedef struct {
    pair_likelihood *p;
    const double *x;
    double *chunk_log; /* log_likelihood alone */
} pass;

static double *clear_partial(const pair_likelihood *p, int64_t task)
{
    double *sum = p->base.partial + task * p->base.dim;
    memset(sum, 0, (size_t)p->base.dim * sizeof *sum);
    return sum;
}

static void evaluate_plain_task(void *payload, int64_t task)
{
    pair_likelihood *p = ((pass *)payload)->p;
    const double *x = ((pass *)payload)->x;
    double *sum = clear_partial(p, task);
    for (int64_t k = p->chunk[task]; k < p->chunk[task + 1]; k++) {
        double d = x[p->a[k]] - x[p->b[k]];
        double e = exp(-fabs(d)), small = e / (1 + e), large = 1 / (1 + e);
        double wins = d >= 0 ? large : small, loses = d >= 0 ? small : large;
        double rd = p->win[k] * loses - p->lose[k] * wins;
        p->dd[k] = (p->win[k] + p->lose[k]) * small * large;
        sum[p->a[k]] += rd;
        sum[p->b[k]] -= rd;
    }
}

static void evaluate_tied_task(void *payload, int64_t task)
{
    pair_likelihood *p = ((pass *)payload)->p;
    const double *x = ((pass *)payload)->x;
    double *sum = clear_partial(p, task), t = x[p->base.n_items], tt = 0;
    for (int64_t k = p->chunk[task]; k < p->chunk[task + 1]; k++) {
        pair_terms s = tied_terms(p->base.tie_model, x[p->a[k]] - x[p->b[k]], t, p->win[k],
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

static void sum_chunk_tt(pair_likelihood *p)
{
    p->tt = 0;
    for (int64_t c = 0; c < p->base.n_chunks; c++)
        p->tt += p->chunk_tt[c];
}

static void evaluate(pf_likelihood *l, const double *x, double *gradient)
{
    pass run = {(pair_likelihood *)l, x, NULL};
    pf_parallel_for(l->context, l->n_chunks,
                    has_ties(run.p) ? evaluate_tied_task : evaluate_plain_task, &run);
    if (has_ties(run.p))
        sum_chunk_tt(run.p);
    pf_likelihood_reduce(l, gradient);
}

static void scores_task(void *payload, int64_t task)
{
    pair_likelihood *p = ((pass *)payload)->p;
    const double *x = ((pass *)payload)->x;
    double tt = 0;
    for (int64_t k = p->chunk[task]; k < p->chunk[task + 1]; k++) {
        double d = x[p->a[k]] - x[p->b[k]], win = p->win[k], lose = p->lose[k], tie = p->tie[k];
        if (!has_ties(p)) {
            /* sum of weight * (label - P)^2 */
            double wins = pf_sigmoid(d), loses = pf_sigmoid(-d);
            p->dd[k] = fmax(0, win * loses * loses + lose * wins * wins - tie);
            continue;
        }
        outcome_scores s = scores_of(p->base.tie_model, d, x[p->base.n_items]);
        p->dd[k] = win * s.win_d * s.win_d + lose * s.lose_d * s.lose_d + tie * s.tie_d * s.tie_d;
        p->dt[k] = win * s.win_d * s.win_t + lose * s.lose_d * s.lose_t + tie * s.tie_d * s.tie_t;
        tt += win * s.win_t * s.win_t + lose * s.lose_t * s.lose_t + tie * s.tie_t * s.tie_t;
    }
    p->chunk_tt[task] = tt;
}

static void evaluate_scores(pf_likelihood *l, const double *x)
{
    pass run = {(pair_likelihood *)l, x, NULL};
    pf_parallel_for(l->context, l->n_chunks, scores_task, &run);
    sum_chunk_tt(run.p);
}

/* weight * log P, where weight 0 counts nothing even if P is 0. */
static double weighted(double weight, double log_p) { return weight > 0 ? weight * log_p : 0; }

static double log_likelihood(const pf_likelihood *l, const double *x)
{
    const pair_likelihood *p = (const pair_likelihood *)l;
    pf_sum sum = {0, 0};
    for (int64_t k = 0; k < p->n_pairs; k++) {
        double d = x[p->a[k]] - x[p->b[k]], win = p->win[k], lose = p->lose[k], tie = p->tie[k];
        if (!has_ties(p)) {
            pf_sum_add(&sum, weighted(win, pf_log_sigmoid(d)) + weighted(lose, pf_log_sigmoid(-d)));
            continue;
        }
        double t = x[l->n_items];
        if (l->tie_model == PREFOPT_TIE_DAVIDSON) {
            double log_s = pf_log_add_exp(pf_log_add_exp(0.5 * d, -0.5 * d), t);
            pf_sum_add(&sum, weighted(win, 0.5 * d - log_s) + weighted(lose, -0.5 * d - log_s) +
                                 weighted(tie, t - log_s));
        } else {
            double log_a = pf_log_sigmoid(d - t), log_b = pf_log_sigmoid(-d - t);
            pf_sum_add(&sum, weighted(win, log_a) + weighted(lose, log_b) +
                                 weighted(tie, log_a + log_b + 2 * t + pf_log1mexp(-2 * t)));
        }
    }
    return pf_sum_value(&sum);
}

static void product_task(void *payload, int64_t task)
{
    pair_likelihood *p = ((pass *)payload)->p;
    const double *v = ((pass *)payload)->x;
    double *sum = clear_partial(p, task);
    if (!has_ties(p)) {
        for (int64_t k = p->chunk[task]; k < p->chunk[task + 1]; k++) {
            double flow = p->dd[k] * (v[p->a[k]] - v[p->b[k]]);
            sum[p->a[k]] += flow;
            sum[p->b[k]] -= flow;
        }
        return;
    }
    double t = v[p->base.n_items], tie = 0;
    for (int64_t k = p->chunk[task]; k < p->chunk[task + 1]; k++) {
        double u = v[p->a[k]] - v[p->b[k]], flow = p->dd[k] * u + p->dt[k] * t;
        sum[p->a[k]] += flow;
        sum[p->b[k]] -= flow;
        tie += p->dt[k] * u;
    }
    sum[p->base.n_items] = tie;
}

static void product(pf_likelihood *l, const double *v, double *out)
{
    pass run = {(pair_likelihood *)l, v, NULL};
    pf_parallel_for(l->context, l->n_chunks, product_task, &run);
    pf_likelihood_reduce(l, out);
    if (has_ties(run.p))
        out[l->n_items] += run.p->tt * v[l->n_items];
}

static void diagonal(pf_likelihood *l, double *out)
{
    const pair_likelihood *p = (const pair_likelihood *)l;
    memset(out, 0, (size_t)l->dim * sizeof *out);
    for (int64_t k = 0; k < p->n_pairs; k++) {
        out[p->a[k]] += p->dd[k];
        out[p->b[k]] += p->dd[k];
    }
    if (has_ties(p))
        out[l->n_items] = p->tt;
}

static void dense(pf_likelihood *l, double *out)
{
    const pair_likelihood *p = (const pair_likelihood *)l;
    int64_t dim = l->dim, last = l->n_items;
    for (int64_t k = 0; k < p->n_pairs; k++) {
        int64_t a = p->a[k], b = p->b[k];
        out[a * dim + a] += p->dd[k];
        out[b * dim + b] += p->dd[k];
        out[a * dim + b] -= p->dd[k];
        out[b * dim + a] -= p->dd[k];
        if (!has_ties(p))
            continue;
        out[a * dim + last] += p->dt[k];
        out[last * dim + a] += p->dt[k];
        out[b * dim + last] -= p->dt[k];
        out[last * dim + b] -= p->dt[k];
    }
    if (has_ties(p))
        out[last * dim + last] += p->tt;
}

/* ---- existence */

static int64_t max_edges(const pf_likelihood *l)
{
    return 2 * ((const pair_likelihood *)l)->n_pairs;
}

static void edges(const pf_likelihood *l, pf_win_graph *graph)
{
    const pair_likelihood *p = (const pair_likelihood *)l;
    for (int64_t k = 0; k < p->n_pairs; k++) {
        bool tied = has_ties(p) && p->tie[k] > 0;
        if (p->win[k] > 0 || tied)
            pf_win_graph_add(graph, p->a[k], p->b[k]);
        if (p->lose[k] > 0 || tied)
            pf_win_graph_add(graph, p->b[k], p->a[k]);
    }
}

void pf_pair_likelihood_outcomes(const pf_likelihood *l, double *decided, double *tied)
{
    const pair_likelihood *p = (const pair_likelihood *)l;
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
    const pair_likelihood *p = (const pair_likelihood *)l;
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

/* ---- building */

static void destroy(pf_likelihood *l)
{
    pair_likelihood *p = (pair_likelihood *)l;
    prefopt_context *context = l->context;
    if (!p->shares) {
        pf_free(context, p->a);
        pf_free(context, p->b);
        pf_free(context, p->chunk);
        pf_free(context, p->row_pair);
        pf_free(context, p->row_weight);
        pf_free(context, p->row_label);
    }
    pf_free(context, p->win);
    pf_free(context, p->lose);
    pf_free(context, p->tie);
    pf_free(context, p->dd);
    pf_free(context, p->dt);
    pf_free(context, p->chunk_tt);
    pf_free(context, l->partial);
    pf_free(context, p);
}

/* The arrays that each likelihood has for itself. */
static int32_t own_arrays(pair_likelihood *p)
{
    prefopt_context *context = p->base.context;
    int64_t n = p->n_pairs, ties = has_ties(p) ? n : 0, partial;
    if (!pf_mul(p->base.n_chunks, p->base.dim, &partial))
        return pf_fail(PREFOPT_ERR_MEMORY, "a size overflows: %lld x %lld",
                       (long long)p->base.n_chunks, (long long)p->base.dim);
    if ((p->win = pf_calloc(context, n, sizeof *p->win)) == NULL ||
        (p->lose = pf_calloc(context, n, sizeof *p->lose)) == NULL ||
        (p->tie = pf_calloc(context, n, sizeof *p->tie)) == NULL ||
        (p->dd = pf_alloc(context, n, sizeof *p->dd)) == NULL ||
        (p->dt = pf_alloc(context, ties, sizeof *p->dt)) == NULL ||
        (p->chunk_tt = pf_alloc(context, p->base.n_chunks, sizeof *p->chunk_tt)) == NULL ||
        (p->base.partial = pf_alloc(context, partial, sizeof *p->base.partial)) == NULL)
        return PREFOPT_ERR_MEMORY;
    return PREFOPT_OK;
}

static void add_row(pair_likelihood *p, int64_t pair, double weight, double label)
{
    if (!has_ties(p)) {
        p->win[pair] += weight * label;
        p->lose[pair] += weight * (1 - label);
        p->tie[pair] += weight * label * (1 - label);
    } else {
        double *outcome = label == 1 ? p->win : label == 0 ? p->lose : p->tie;
        outcome[pair] += weight;
    }
}

static pf_likelihood *clone(pf_likelihood *l)
{
    const pair_likelihood *from = (const pair_likelihood *)l;
    pair_likelihood *p = pf_alloc(l->context, 1, sizeof *p);
    if (p == NULL)
        return NULL;
    *p = *from;
    p->shares = true;
    p->win = p->lose = p->tie = p->dd = p->dt = p->chunk_tt = p->base.partial = NULL;
    if (own_arrays(p) != PREFOPT_OK) {
        destroy(&p->base);
        return NULL;
    }
    return &p->base;
}

static void resample(pf_likelihood *l, uint64_t seed, uint64_t replicate)
{
    pair_likelihood *p = (pair_likelihood *)l;
    size_t bytes = (size_t)p->n_pairs * sizeof *p->win;
    memset(p->win, 0, bytes);
    memset(p->lose, 0, bytes);
    memset(p->tie, 0, bytes);
    l->total_weight = 0;
    for (int64_t i = 0; i < p->n_rows; i++) {
        if (p->row_pair[i] < 0)
            continue;
        double weight = pf_poisson(seed, replicate, (uint64_t)i, p->row_weight[i]);
        add_row(p, p->row_pair[i], weight, p->row_label[i]);
        l->total_weight += weight;
    }
}

static const pf_likelihood_ops ops = {"comparisons", evaluate, evaluate_scores, log_likelihood,
                                      product,       diagonal, dense,           max_edges,
                                      edges,         clone,    resample,        destroy};

static double row_weight(const prefopt_comparisons *data, int64_t i)
{
    return data->weight == NULL ? 1 : data->weight[i];
}

/* Row i seen from the smaller item. */
static void row_of(const prefopt_comparisons *data, int64_t i, int32_t *a, int32_t *b,
                   double *label)
{
    double y = data->label == NULL ? 1 : data->label[i];
    bool swapped = data->first[i] > data->second[i];
    *a = swapped ? data->second[i] : data->first[i];
    *b = swapped ? data->first[i] : data->second[i];
    *label = swapped ? 1 - y : y;
}

/* order = the rows of positive weight sorted by (a, b), rows of one pair as given: a counting sort
 * by b, then one by a. count: n_items + 1, other: n. Returns how many. */
static int64_t sort_rows(const prefopt_comparisons *data, int64_t *count, int64_t *other,
                         int64_t *order)
{
    int64_t n = data->n_items, used = 0;
    for (int by_a = 0; by_a < 2; by_a++) {
        memset(count, 0, (size_t)(n + 1) * sizeof *count);
        int64_t rows = by_a ? used : data->n;
        for (int pass_two = 0; pass_two < 2; pass_two++) {
            for (int64_t k = 0; k < rows; k++) {
                int64_t i = by_a ? other[k] : k;
                int32_t u = data->first[i], v = data->second[i];
                if (!by_a && row_weight(data, i) == 0)
                    continue;
                int32_t key = (u < v) == (by_a != 0) ? u : v;
                if (pass_two)
                    (by_a ? order : other)[count[key]++] = i;
                else
                    count[key + 1]++;
            }
            for (int64_t j = 0; j < n && !pass_two; j++)
                count[j + 1] += count[j];
        }
        used = by_a ? used : count[n - 1];
    }
    return used;
}

static int32_t allocate_pairs(pair_likelihood *p, int64_t n_pairs, int64_t keep_rows)
{
    prefopt_context *context = p->base.context;
    p->n_pairs = n_pairs;
    p->n_rows = keep_rows;
    p->base.n_chunks = pf_likelihood_chunks(n_pairs, p->base.dim);
    if ((p->a = pf_alloc(context, n_pairs, sizeof *p->a)) == NULL ||
        (p->b = pf_alloc(context, n_pairs, sizeof *p->b)) == NULL ||
        (p->chunk = pf_alloc(context, p->base.n_chunks + 1, sizeof *p->chunk)) == NULL ||
        (p->row_pair = pf_alloc(context, keep_rows, sizeof *p->row_pair)) == NULL ||
        (p->row_weight = pf_alloc(context, keep_rows, sizeof *p->row_weight)) == NULL ||
        (p->row_label = pf_alloc(context, keep_rows, sizeof *p->row_label)) == NULL)
        return PREFOPT_ERR_MEMORY;
    for (int64_t c = 0; c <= p->base.n_chunks; c++)
        p->chunk[c] = (int64_t)((double)n_pairs / (double)p->base.n_chunks * (double)c);
    p->chunk[p->base.n_chunks] = n_pairs;
    for (int64_t i = 0; i < keep_rows; i++)
        p->row_pair[i] = -1;
    return own_arrays(p);
}

static int64_t count_pairs(const prefopt_comparisons *data, const int64_t *order, int64_t used)
{
    int64_t n_pairs = 0;
    int32_t a, b, last_a = -1, last_b = -1;
    double label;
    for (int64_t k = 0; k < used; k++) {
        row_of(data, order[k], &a, &b, &label);
        n_pairs += a != last_a || b != last_b;
        last_a = a;
        last_b = b;
    }
    return n_pairs;
}

static void fill_pairs(pair_likelihood *p, const prefopt_comparisons *data, const int64_t *order,
                       int64_t used)
{
    int64_t pair = -1;
    for (int64_t k = 0; k < used; k++) {
        int32_t a, b;
        double label, weight = row_weight(data, order[k]);
        row_of(data, order[k], &a, &b, &label);
        if (pair < 0 || p->a[pair] != a || p->b[pair] != b) {
            pair++;
            p->a[pair] = a;
            p->b[pair] = b;
        }
        add_row(p, pair, weight, label);
        p->base.total_weight += weight;
        if (p->n_rows > 0) {
            p->row_pair[order[k]] = pair;
            p->row_weight[order[k]] = weight;
            p->row_label[order[k]] = label;
        }
    }
}

int32_t pf_pair_likelihood_create(pf_likelihood **out, prefopt_context *context,
                                  const prefopt_comparisons *data, int32_t tie_model,
                                  bool keep_rows)
{
    pair_likelihood *p = pf_calloc(context, 1, sizeof *p);
    if (p == NULL)
        return PREFOPT_ERR_MEMORY;
    p->base.ops = &ops;
    p->base.context = context;
    p->base.n_items = data->n_items;
    p->base.tie_model = tie_model;
    p->base.dim = data->n_items + has_ties(p);
    int64_t *count = pf_alloc(context, data->n_items + 1, sizeof *count);
    int64_t *other = pf_alloc(context, data->n, sizeof *other);
    int64_t *order = pf_alloc(context, data->n, sizeof *order);
    int32_t status = PREFOPT_ERR_MEMORY;
    if (count != NULL && other != NULL && order != NULL) {
        int64_t used = sort_rows(data, count, other, order);
        status = allocate_pairs(p, count_pairs(data, order, used), keep_rows ? data->n : 0);
        if (status == PREFOPT_OK)
            fill_pairs(p, data, order, used);
    }
    pf_free(context, count);
    pf_free(context, other);
    pf_free(context, order);
    if (status == PREFOPT_OK)
        *out = &p->base;
    else
        destroy(&p->base);
    return status;
}
