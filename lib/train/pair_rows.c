/* Comparisons as given, row by row, into sums by unordered pair of items; and the same rows drawn
 * anew for the bootstrap. */
#include "train/pf_pair_likelihood.h"

void pf_pair_likelihood_destroy(pf_likelihood *l)
{
    pf_pair_likelihood *p = (pf_pair_likelihood *)l;
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
static int32_t own_arrays(pf_pair_likelihood *p)
{
    prefopt_context *context = p->base.context;
    int64_t n = p->n_pairs, ties = pf_has_ties(p) ? n : 0, partial;
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

static void add_row(pf_pair_likelihood *p, int64_t pair, double weight, double label)
{
    if (!pf_has_ties(p)) {
        p->win[pair] += weight * label;
        p->lose[pair] += weight * (1 - label);
        p->tie[pair] += weight * label * (1 - label);
    } else {
        double *outcome = label == 1 ? p->win : label == 0 ? p->lose : p->tie;
        outcome[pair] += weight;
    }
}

pf_likelihood *pf_pair_likelihood_clone(pf_likelihood *l)
{
    const pf_pair_likelihood *from = (const pf_pair_likelihood *)l;
    pf_pair_likelihood *p = pf_alloc(l->context, 1, sizeof *p);
    if (p == NULL)
        return NULL;
    *p = *from;
    p->shares = true;
    p->win = p->lose = p->tie = p->dd = p->dt = p->chunk_tt = p->base.partial = NULL;
    if (own_arrays(p) != PREFOPT_OK) {
        pf_pair_likelihood_destroy(&p->base);
        return NULL;
    }
    return &p->base;
}

void pf_pair_likelihood_resample(pf_likelihood *l, uint64_t seed, uint64_t replicate)
{
    pf_pair_likelihood *p = (pf_pair_likelihood *)l;
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

static int32_t allocate_pairs(pf_pair_likelihood *p, int64_t n_pairs, int64_t keep_rows)
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

static void fill_pairs(pf_pair_likelihood *p, const prefopt_comparisons *data, const int64_t *order,
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
    pf_pair_likelihood *p = pf_calloc(context, 1, sizeof *p);
    if (p == NULL)
        return PREFOPT_ERR_MEMORY;
    p->base.ops = &pf_pair_likelihood_ops;
    p->base.context = context;
    p->base.n_items = data->n_items;
    p->base.tie_model = tie_model;
    p->base.dim = data->n_items + pf_has_ties(p);
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
        pf_pair_likelihood_destroy(&p->base);
    return status;
}
