/* The Plackett-Luce likelihood of rankings: item after item is chosen, the best first, each with
 * probability e^x over the sum of e^x of those not chosen yet (Plackett 1975; Hunter 2004).
 *
 * With z[s] the log-sum-exp of x over positions s .. end, chosen[s] = e^(x[s] - z[s]) is the
 * probability of stage s's choice and passed[s] = 1 - chosen[s] = e^(z[s+1] - z[s]). Everything is
 * built from these two, which are probabilities: nothing overflows, and a pass over a ranking of k
 * items costs O(k). The last item's stage is certain and adds nothing. */
#include "math/pf_math.h"
#include "train/pf_strengths.h"

typedef struct {
    pf_likelihood base;
    bool shares;        /* a clone: offsets and items belong to the original */
    bool score_sums;    /* product and dense give the sum of score outer products */
    int64_t n_rankings; /* of two items or more and positive weight */
    int64_t *offsets;   /* n_rankings + 1 */
    int32_t *items;
    int64_t *row;                      /* n_rankings: number as given, for resampling */
    double *weight;                    /* n_rankings */
    const double *given;               /* n_rankings: the original's weight */
    double *chosen, *passed, *scratch; /* one a position */
    int64_t *chunk;                    /* n_chunks + 1: first ranking of each */
} ranking_likelihood;

typedef struct {
    ranking_likelihood *p;
    const double *x;
} pass;

static double *clear_partial(const ranking_likelihood *p, int64_t task)
{
    double *sum = p->base.partial + task * p->base.dim;
    memset(sum, 0, (size_t)p->base.dim * sizeof *sum);
    return sum;
}

/* chosen and passed of one ranking. */
static void stages(ranking_likelihood *p, int64_t r, const double *x)
{
    int64_t begin = p->offsets[r], end = p->offsets[r + 1];
    double z = x[p->items[end - 1]];
    p->chosen[end - 1] = 1;
    p->passed[end - 1] = 0;
    for (int64_t s = end - 2; s >= begin; s--) {
        double d = x[p->items[s]] - z;
        p->chosen[s] = pf_sigmoid(d);
        p->passed[s] = pf_sigmoid(-d);
        z += pf_softplus(d);
    }
}

/* score[s] of the item at position s: 1 - sum over stages t <= s of P(it is chosen at t), the
 * last stage left out on both sides. expected is the sum over t <= s of e^(z[s] - z[t]). */
static void scores(const ranking_likelihood *p, int64_t r, double *score)
{
    int64_t begin = p->offsets[r], end = p->offsets[r + 1];
    double expected = 0; /* of earlier stages, carried to this one */
    for (int64_t s = begin; s < end; s++) {
        /* 1 - chosen (expected + 1) = passed - chosen expected */
        score[s] = p->passed[s] - p->chosen[s] * expected;
        expected = (expected + 1) * p->passed[s];
    }
}

static void evaluate_task(void *payload, int64_t task)
{
    ranking_likelihood *p = ((pass *)payload)->p;
    double *sum = clear_partial(p, task);
    for (int64_t r = p->chunk[task]; r < p->chunk[task + 1]; r++) {
        stages(p, r, ((pass *)payload)->x);
        scores(p, r, p->scratch);
        for (int64_t s = p->offsets[r]; s < p->offsets[r + 1]; s++)
            sum[p->items[s]] += p->weight[r] * p->scratch[s];
    }
}

static void evaluate(pf_likelihood *l, const double *x, double *gradient)
{
    pass run = {(ranking_likelihood *)l, x};
    run.p->score_sums = false;
    pf_parallel_for(l->context, l->n_chunks, evaluate_task, &run);
    pf_likelihood_reduce(l, gradient);
}

static void evaluate_scores(pf_likelihood *l, const double *x)
{
    ranking_likelihood *p = (ranking_likelihood *)l;
    p->score_sums = true;
    for (int64_t r = 0; r < p->n_rankings; r++) {
        stages(p, r, x);
        scores(p, r, p->scratch);
    }
}

static double log_likelihood(pf_likelihood *l, const double *x)
{
    const ranking_likelihood *p = (const ranking_likelihood *)l;
    pf_sum sum = {0, 0};
    for (int64_t r = 0; r < p->n_rankings; r++) {
        int64_t begin = p->offsets[r], end = p->offsets[r + 1];
        double z = x[p->items[end - 1]];
        for (int64_t s = end - 2; s >= begin && p->weight[r] > 0; s--) {
            double d = x[p->items[s]] - z;
            pf_sum_add(&sum, p->weight[r] * pf_log_sigmoid(d));
            z += pf_softplus(d);
        }
    }
    return pf_sum_value(&sum);
}

/* Stage t's second derivative is a covariance under its choice probabilities P_t, so
 * out[u] = sum over t <= u of P_t(u) (v[u] - mean_t), mean_t = chosen v[t] + passed mean_(t+1). */
static void add_product(const ranking_likelihood *p, int64_t r, const double *v, double *mean,
                        double *sum)
{
    int64_t begin = p->offsets[r], end = p->offsets[r + 1];
    mean[end - 1] = v[p->items[end - 1]];
    for (int64_t s = end - 2; s >= begin; s--)
        mean[s] = p->chosen[s] * v[p->items[s]] + p->passed[s] * mean[s + 1];
    /* Sums over t <= s of e^(z[s] - z[t]), and of the same times mean_t. */
    double expected = 0, expected_mean = 0;
    for (int64_t s = begin; s < end; s++) {
        double value = v[p->items[s]];
        if (s < end - 1) {
            expected += 1;
            expected_mean += mean[s];
        }
        sum[p->items[s]] += p->weight[r] * p->chosen[s] * (value * expected - expected_mean);
        expected *= p->passed[s];
        expected_mean *= p->passed[s];
    }
}

static void product_task(void *payload, int64_t task)
{
    ranking_likelihood *p = ((pass *)payload)->p;
    const double *v = ((pass *)payload)->x;
    double *sum = clear_partial(p, task);
    for (int64_t r = p->chunk[task]; r < p->chunk[task + 1]; r++) {
        if (!p->score_sums) {
            add_product(p, r, v, p->scratch, sum);
            continue;
        }
        double along = 0;
        for (int64_t s = p->offsets[r]; s < p->offsets[r + 1]; s++)
            along += p->scratch[s] * v[p->items[s]];
        for (int64_t s = p->offsets[r]; s < p->offsets[r + 1]; s++)
            sum[p->items[s]] += p->weight[r] * along * p->scratch[s];
    }
}

static void product(pf_likelihood *l, const double *v, double *out)
{
    pass run = {(ranking_likelihood *)l, v};
    pf_parallel_for(l->context, l->n_chunks, product_task, &run);
    pf_likelihood_reduce(l, out);
}

/* Minus the second derivative between positions u < w is sum over t <= u of P_t(u) P_t(w); the
 * diagonal is the sum of its row, as rows add up to zero. out == NULL: the diagonal alone. */
static void add_dense(const ranking_likelihood *p, int64_t r, double *out, double *diag)
{
    int64_t begin = p->offsets[r], end = p->offsets[r + 1], dim = p->base.dim;
    double squares = 0, expected = 0; /* sums over t <= u of e^(2 (z[u] - z[t])), of e^(...) */
    for (int64_t u = begin; u < end - 1; u++) {
        squares += 1;
        expected += 1;
        double share = p->weight[r] * p->chosen[u] * squares, reach = p->passed[u];
        for (int64_t w = u + 1; w < end && out != NULL; w++) {
            double term = share * reach * p->chosen[w];
            reach *= p->passed[w];
            int64_t i = p->items[u], j = p->items[w];
            out[i * dim + j] -= term;
            out[j * dim + i] -= term;
            out[i * dim + i] += term;
            out[j * dim + j] += term;
        }
        if (diag != NULL)
            diag[p->items[u]] +=
                p->weight[r] * fmax(0, p->chosen[u] * (expected - p->chosen[u] * squares));
        squares *= p->passed[u] * p->passed[u];
        expected *= p->passed[u];
    }
    if (diag != NULL)
        diag[p->items[end - 1]] += p->weight[r] * fmax(0, expected - squares);
}

static void diagonal(pf_likelihood *l, double *out)
{
    const ranking_likelihood *p = (const ranking_likelihood *)l;
    memset(out, 0, (size_t)l->dim * sizeof *out);
    for (int64_t r = 0; r < p->n_rankings; r++)
        add_dense(p, r, NULL, out);
}

static void dense(pf_likelihood *l, double *out)
{
    const ranking_likelihood *p = (const ranking_likelihood *)l;
    for (int64_t r = 0; r < p->n_rankings; r++) {
        if (!p->score_sums) {
            add_dense(p, r, out, NULL);
            continue;
        }
        for (int64_t s = p->offsets[r]; s < p->offsets[r + 1]; s++)
            for (int64_t t = p->offsets[r]; t < p->offsets[r + 1]; t++)
                out[p->items[s] * l->dim + p->items[t]] +=
                    p->weight[r] * p->scratch[s] * p->scratch[t];
    }
}

static int64_t max_edges(const pf_likelihood *l)
{
    const ranking_likelihood *p = (const ranking_likelihood *)l;
    return p->offsets[p->n_rankings] - p->n_rankings;
}

/* Neighbours are enough: each item reaches those further down through them. */
static void edges(const pf_likelihood *l, pf_win_graph *graph)
{
    const ranking_likelihood *p = (const ranking_likelihood *)l;
    for (int64_t r = 0; r < p->n_rankings; r++)
        for (int64_t s = p->offsets[r]; s + 1 < p->offsets[r + 1] && p->weight[r] > 0; s++)
            pf_win_graph_add(graph, p->items[s], p->items[s + 1]);
}

static void destroy(pf_likelihood *l)
{
    ranking_likelihood *p = (ranking_likelihood *)l;
    prefopt_context *context = l->context;
    if (!p->shares) {
        pf_free(context, p->offsets);
        pf_free(context, p->items);
        pf_free(context, p->row);
        pf_free(context, p->chunk);
    }
    pf_free(context, p->weight);
    pf_free(context, p->chosen);
    pf_free(context, p->passed);
    pf_free(context, p->scratch);
    pf_free(context, l->partial);
    pf_free(context, p);
}

/* The arrays that each likelihood has for itself. */
static int32_t own_arrays(ranking_likelihood *p, int64_t positions)
{
    prefopt_context *context = p->base.context;
    int64_t partial;
    if (!pf_mul(p->base.n_chunks, p->base.dim, &partial))
        return pf_fail(PREFOPT_ERR_MEMORY, "a size overflows: %lld x %lld",
                       (long long)p->base.n_chunks, (long long)p->base.dim);
    if ((p->weight = pf_alloc(context, p->n_rankings, sizeof *p->weight)) == NULL ||
        (p->chosen = pf_alloc(context, positions, sizeof *p->chosen)) == NULL ||
        (p->passed = pf_alloc(context, positions, sizeof *p->passed)) == NULL ||
        (p->scratch = pf_alloc(context, positions, sizeof *p->scratch)) == NULL ||
        (p->base.partial = pf_alloc(context, partial, sizeof *p->base.partial)) == NULL)
        return PREFOPT_ERR_MEMORY;
    return PREFOPT_OK;
}

static pf_likelihood *clone(pf_likelihood *l)
{
    const ranking_likelihood *from = (const ranking_likelihood *)l;
    ranking_likelihood *p = pf_alloc(l->context, 1, sizeof *p);
    if (p == NULL)
        return NULL;
    *p = *from;
    p->shares = true;
    p->given = from->weight;
    p->weight = p->chosen = p->passed = p->scratch = p->base.partial = NULL;
    if (own_arrays(p, from->offsets[from->n_rankings]) != PREFOPT_OK) {
        destroy(&p->base);
        return NULL;
    }
    return &p->base;
}

static void resample(pf_likelihood *l, uint64_t seed, uint64_t replicate)
{
    ranking_likelihood *p = (ranking_likelihood *)l;
    l->total_weight = 0;
    for (int64_t r = 0; r < p->n_rankings; r++) {
        p->weight[r] = pf_poisson(seed, replicate, (uint64_t)p->row[r], p->given[r]);
        l->total_weight += p->weight[r];
    }
}

static const pf_likelihood_ops ops = {"rankings", evaluate, evaluate_scores, log_likelihood,
                                      product,    diagonal, dense,           max_edges,
                                      edges,      clone,    resample,        destroy};

static bool counts(const prefopt_rankings *data, int64_t i)
{
    return data->offsets[i + 1] - data->offsets[i] >= 2 &&
           (data->weight == NULL || data->weight[i] > 0);
}

int32_t pf_ranking_likelihood_create(pf_likelihood **out, prefopt_context *context,
                                     const prefopt_rankings *data)
{
    ranking_likelihood *p = pf_calloc(context, 1, sizeof *p);
    if (p == NULL)
        return PREFOPT_ERR_MEMORY;
    pf_likelihood *l = &p->base;
    l->ops = &ops;
    l->context = context;
    l->n_items = l->dim = data->n_items;
    int64_t positions = 0, n = 0;
    for (int64_t i = 0; i < data->n; i++)
        if (counts(data, i)) {
            n++;
            positions += data->offsets[i + 1] - data->offsets[i];
        }
    p->n_rankings = n;
    l->n_chunks = pf_likelihood_chunks(positions, l->dim);
    if ((p->offsets = pf_alloc(context, n + 1, sizeof *p->offsets)) == NULL ||
        (p->items = pf_alloc(context, positions, sizeof *p->items)) == NULL ||
        (p->row = pf_alloc(context, n, sizeof *p->row)) == NULL ||
        (p->chunk = pf_alloc(context, l->n_chunks + 1, sizeof *p->chunk)) == NULL ||
        own_arrays(p, positions) != PREFOPT_OK) {
        destroy(l);
        return PREFOPT_ERR_MEMORY;
    }
    p->offsets[0] = 0;
    for (int64_t i = 0, r = 0; i < data->n; i++) {
        if (!counts(data, i))
            continue;
        int64_t k = data->offsets[i + 1] - data->offsets[i];
        memcpy(p->items + p->offsets[r], data->items + data->offsets[i],
               (size_t)k * sizeof *p->items);
        p->row[r] = i;
        p->weight[r] = data->weight == NULL ? 1 : data->weight[i];
        l->total_weight += p->weight[r];
        p->offsets[r + 1] = p->offsets[r] + k;
        r++;
    }
    for (int64_t c = 0, r = 0; c <= l->n_chunks; c++) {
        double share = (double)positions / (double)l->n_chunks * (double)c;
        while (r < n && ((double)p->offsets[r] < share || c == l->n_chunks))
            r++;
        p->chunk[c] = r;
    }
    *out = l;
    return PREFOPT_OK;
}
