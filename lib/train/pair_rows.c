/* Comparisons as given, row by row, into sums by unordered pair of items; and the same rows drawn
 * anew for the bootstrap. */
#include "train/pf_pair_likelihood.h"

void pf_pair_likelihood_destroy(pf_likelihood *l)
{
    pf_pair_likelihood *p = (pf_pair_likelihood *)l;
    prefopt_context *context = l->context;
    if (!p->shares) {
        pf_free(context, p->chunk);
        pf_free(context, p->row_pair);
        pf_free(context, p->row_weight);
        pf_free(context, p->row_label);
    }
    pf_free(context, p->block);
    pf_free(context, p->chunk_tt);
    pf_free(context, l->partial);
    pf_free(context, p);
}

/* The arrays that each likelihood has for itself; the sums by outcome are left unset. */
static int32_t own_arrays(pf_pair_likelihood *p)
{
    prefopt_context *context = p->base.context;
    int64_t n = p->n_pairs, ties = pf_has_ties(p) ? n : 0, soft = p->soft ? n : ties, partial;
    size_t columns = 3 + (size_t)(p->soft || pf_has_ties(p)) + pf_has_ties(p) + !p->shares;
    if (!pf_mul(p->base.n_chunks, p->base.dim, &partial))
        return pf_fail(PREFOPT_ERR_MEMORY, "a size overflows: %lld x %lld",
                       (long long)p->base.n_chunks, (long long)p->base.dim);
    if ((p->block = pf_alloc(context, n, columns * sizeof *p->win)) == NULL ||
        (p->chunk_tt = pf_alloc(context, p->base.n_chunks, sizeof *p->chunk_tt)) == NULL ||
        (p->base.partial = pf_alloc(context, partial, sizeof *p->base.partial)) == NULL)
        return PREFOPT_ERR_MEMORY;
    p->win = p->block;
    p->lose = p->win + n;
    p->dd = p->lose + n;
    p->tie = p->soft || pf_has_ties(p) ? p->dd + n : NULL;
    p->dt = p->dd + n + soft;
    if (!p->shares) {
        p->a = (int32_t *)(p->dt + ties);
        p->b = p->a + n;
    }
    return PREFOPT_OK;
}

static void add_row(pf_pair_likelihood *p, int64_t pair, double weight, double label)
{
    if (!pf_has_ties(p)) {
        p->win[pair] += weight * label;
        p->lose[pair] += weight * (1 - label);
        if (p->soft)
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
    p->block = p->chunk_tt = p->base.partial = NULL;
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
    if (p->tie != NULL)
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

/* Rows of positive weight sorted by (a, b), a < b, those of one pair as given. A key is twice an
 * item, plus a bit: where all rows have weight 1 and label 0 or 1 it is 1 where a won, and that is
 * all there is to know; else it is 1 where first > second. */
typedef struct {
    int64_t *end_a, *end_b;  /* n_items: ends of the buckets; 0 before */
    bool told, numbered;     /* the bit is the outcome; row numbers are needed */
    uint32_t *key_b, *key_a; /* n, with item a, and item b */
    uint32_t *row_b, *row_a; /* n, behind the keys, if numbered */
} sorted_rows;

/* Two counting sorts, by b and then by a; the second reads its keys in order. */
static void sort_rows(const prefopt_comparisons *data, sorted_rows *s)
{
    int64_t n = data->n_items, before_a = 0, before_b = 0;
    for (int64_t i = 0; i < data->n; i++) {
        if (row_weight(data, i) == 0)
            continue;
        int32_t u = data->first[i], v = data->second[i];
        s->end_a[u < v ? u : v]++;
        s->end_b[u < v ? v : u]++;
    }
    /* Counts into starts, which the scatters below make ends. */
    for (int64_t j = 0; j < n; j++) {
        int64_t count_a = s->end_a[j], count_b = s->end_b[j];
        s->end_a[j] = before_a;
        s->end_b[j] = before_b;
        before_a += count_a;
        before_b += count_b;
    }
    for (int64_t i = 0; i < data->n; i++) {
        if (row_weight(data, i) == 0)
            continue;
        int32_t u = data->first[i], v = data->second[i];
        bool won = data->label == NULL || data->label[i] == 1;
        int64_t to = s->end_b[u < v ? v : u]++;
        s->key_b[to] = (uint32_t)(u < v ? u : v) * 2 + ((s->told && won) != (u > v));
        if (s->numbered)
            s->row_b[to] = (uint32_t)i;
    }
    for (int64_t b = 0, k = 0; b < n; b++)
        for (; k < s->end_b[b]; k++) {
            int64_t to = s->end_a[s->key_b[k] / 2]++;
            s->key_a[to] = (uint32_t)b * 2 + s->key_b[k] % 2;
            if (s->numbered)
                s->row_a[to] = s->row_b[k];
        }
}

static int32_t allocate_pairs(pf_pair_likelihood *p, int64_t n_pairs, int64_t keep_rows)
{
    prefopt_context *context = p->base.context;
    p->n_pairs = n_pairs;
    p->n_rows = keep_rows;
    p->base.n_chunks = pf_likelihood_chunks(n_pairs, p->base.dim);
    if ((p->chunk = pf_alloc(context, p->base.n_chunks + 1, sizeof *p->chunk)) == NULL ||
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

static int64_t count_pairs(const sorted_rows *s, int64_t n_items)
{
    int64_t n_pairs = 0;
    for (int64_t a = 0, k = 0; a < n_items; a++)
        for (uint32_t last = UINT32_MAX; k < s->end_a[a]; k++) {
            n_pairs += s->key_a[k] / 2 != last;
            last = s->key_a[k] / 2;
        }
    return n_pairs;
}

static void fill_pairs(pf_pair_likelihood *p, const prefopt_comparisons *data, const sorted_rows *s)
{
    int64_t pair = -1;
    for (int64_t a = 0, k = 0; a < data->n_items; a++)
        for (uint32_t last = UINT32_MAX; k < s->end_a[a]; k++) {
            double weight = 1, label = s->key_a[k] % 2;
            int64_t row = s->numbered ? s->row_a[k] : 0;
            if (!s->told) {
                double given = data->label == NULL ? 1 : data->label[row];
                weight = row_weight(data, row);
                label = label == 1 ? 1 - given : given;
            }
            if (s->key_a[k] / 2 != last) {
                last = s->key_a[k] / 2;
                pair++;
                p->a[pair] = (int32_t)a;
                p->b[pair] = (int32_t)last;
                p->win[pair] = p->lose[pair] = 0;
                if (p->tie != NULL)
                    p->tie[pair] = 0;
            }
            add_row(p, pair, weight, label);
            p->base.total_weight += weight;
            if (p->n_rows > 0) {
                p->row_pair[row] = pair;
                p->row_weight[row] = weight;
                p->row_label[row] = label;
            }
        }
}

static bool has_soft_labels(const prefopt_comparisons *data)
{
    bool soft = false;
    for (int64_t i = 0; i < data->n && data->label != NULL; i++)
        soft |= data->label[i] != 0 && data->label[i] != 1;
    return soft;
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
    p->soft = has_soft_labels(data);
    sorted_rows s = {.told = !p->soft && data->weight == NULL};
    s.numbered = !s.told || keep_rows;
    size_t size = (1 + (size_t)s.numbered) * sizeof *s.key_a;
    s.end_a = pf_calloc(context, data->n_items, sizeof *s.end_a);
    s.end_b = pf_calloc(context, data->n_items, sizeof *s.end_b);
    s.key_a = pf_alloc(context, data->n, size);
    s.key_b = pf_alloc(context, data->n, size);
    int32_t status = PREFOPT_ERR_MEMORY;
    if (s.end_a != NULL && s.end_b != NULL && s.key_a != NULL && s.key_b != NULL) {
        s.row_a = s.key_a + data->n;
        s.row_b = s.key_b + data->n;
        sort_rows(data, &s);
        pf_free(context, s.key_b);
        s.key_b = NULL;
        status = allocate_pairs(p, count_pairs(&s, data->n_items), keep_rows ? data->n : 0);
        if (status == PREFOPT_OK)
            fill_pairs(p, data, &s);
    }
    pf_free(context, s.end_a);
    pf_free(context, s.end_b);
    pf_free(context, s.key_a);
    pf_free(context, s.key_b);
    if (status == PREFOPT_OK)
        *out = &p->base;
    else
        pf_pair_likelihood_destroy(&p->base);
    return status;
}
