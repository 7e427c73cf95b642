/* Next-token distributions: temperature, top-k, top-p, and draws from them. */
#include <stdlib.h>

#include "math/pf_math.h"
#include "online/pf_online.h"

/* ---- the heap */

static inline bool goes_before(const double *key, int64_t a, int64_t b)
{
    return key[a] > key[b] || (key[a] == key[b] && a < b);
}

static void sift_down(int64_t n, const double *key, int64_t *order, int64_t at)
{
    int64_t moving = order[at];
    for (;;) {
        int64_t child = 2 * at + 1;
        if (child >= n)
            break;
        if (child + 1 < n && goes_before(key, order[child + 1], order[child]))
            child++;
        if (!goes_before(key, order[child], moving))
            break;
        order[at] = order[child];
        at = child;
    }
    order[at] = moving;
}

void pf_heap_build(int64_t n, const double *key, int64_t *order)
{
    for (int64_t i = 0; i < n; i++)
        order[i] = i;
    for (int64_t i = n / 2 - 1; i >= 0; i--)
        sift_down(n, key, order, i);
}

int64_t pf_heap_pop(int64_t n, const double *key, int64_t *order)
{
    int64_t first = order[0];
    order[0] = order[n - 1];
    sift_down(n - 1, key, order, 0);
    return first;
}

/* ---- truncation */

/* log_q -= log of its total mass. */
static void renormalise(int64_t vocab, double *log_q)
{
    double total = pf_log_sum_exp(vocab, log_q);
    for (int64_t i = 0; i < vocab; i++)
        log_q[i] -= total;
}

/* The last of the kept tokens in the order of the heap (likeliest first, lower number first). Taken
 * tokens go to the end of `order`: the heap shrinks by one with each, so the place is free. */
static int64_t last_kept(int64_t vocab, const double *log_q, const pf_truncation *t, int64_t *order)
{
    /* A mass that is top_p but for rounding counts as reached. */
    const double slack = 1 - 1e-12;
    int64_t k = t->top_k > 0 && t->top_k < vocab ? t->top_k : vocab;
    /* When top_k leaves nothing out, the mass that top_p cuts is 1 and need not be summed first. */
    double enough = k == vocab ? t->top_p * slack : INFINITY;
    if (t->top_p == 1)
        enough = INFINITY;
    pf_heap_build(vocab, log_q, order);
    pf_sum mass = {0, 0};
    int64_t taken = 0;
    while (taken < k && pf_sum_value(&mass) < enough) {
        int64_t token = pf_heap_pop(vocab - taken, log_q, order);
        if (log_q[token] == -INFINITY)
            break;
        pf_sum_add(&mass, exp(log_q[token]));
        taken++;
        order[vocab - taken] = token;
    }
    if (k < vocab && t->top_p < 1) {
        enough = t->top_p * pf_sum_value(&mass) * slack;
        mass = (pf_sum){0, 0};
        int64_t most = taken;
        for (taken = 0; taken < most && pf_sum_value(&mass) < enough; taken++)
            pf_sum_add(&mass, exp(log_q[order[vocab - 1 - taken]]));
    }
    return order[vocab - taken];
}

void pf_truncate(int64_t vocab, const double *logp, const pf_truncation *t, int64_t *order,
                 double *log_q)
{
    if (pf_truncation_is_none(t)) {
        memmove(log_q, logp, (size_t)vocab * sizeof *log_q);
        return;
    }
    /* From the likeliest on, so that the coldest temperature cannot send all to -inf. */
    double most = logp[pf_greedy_token(vocab, logp)];
    for (int64_t i = 0; i < vocab; i++)
        log_q[i] = (logp[i] - most) / t->temperature;
    renormalise(vocab, log_q);
    bool cuts = t->top_k > 0 || t->top_p < 1;
    if (!cuts && t->min_p == 0)
        return;
    int64_t last = cuts ? last_kept(vocab, log_q, t, order) : vocab;
    double floor = cuts ? log_q[last] : -INFINITY;
    /* A ratio that is min_p but for rounding counts as reached. */
    double lowest =
        t->min_p > 0 ? log_q[pf_greedy_token(vocab, log_q)] + log(t->min_p) - 1e-12 : -INFINITY;
    for (int64_t i = 0; i < vocab; i++)
        if (log_q[i] < floor || (log_q[i] == floor && i > last) || log_q[i] < lowest)
            log_q[i] = -INFINITY;
    renormalise(vocab, log_q);
}

/* ---- draws */

double pf_total_mass(int64_t vocab, const double *logp)
{
    double total = 0;
    for (int64_t i = 0; i < vocab; i++)
        total += logp[i] == INFINITY ? NAN : exp(logp[i]);
    return total;
}

static int by_u(const void *a, const void *b)
{
    const pf_draw *x = a, *y = b;
    if (x->u != y->u)
        return x->u < y->u ? -1 : 1;
    return x->id < y->id ? -1 : x->id > y->id;
}

/* Sorted draws take their tokens in one walk over the vocabulary. */
void pf_draw_tokens(int64_t vocab, const double *log_q, double total, int64_t n, pf_draw *draws)
{
    if (n == 0)
        return;
    qsort(draws, (size_t)n, sizeof *draws, by_u);
    double below = 0;
    int64_t drawn = 0, last = 0;
    for (int64_t i = 0; i < vocab && drawn < n; i++) {
        double q = exp(log_q[i]);
        if (!(q > 0))
            continue;
        below += q;
        last = i;
        while (drawn < n && draws[drawn].u * total < below)
            draws[drawn++].token = (int32_t)i;
    }
    /* `below` may end a little under u * total. */
    while (drawn < n)
        draws[drawn++].token = (int32_t)last;
}

int64_t pf_greedy_token(int64_t vocab, const double *logp)
{
    int64_t best = 0;
    for (int64_t i = 1; i < vocab; i++)
        if (logp[i] > logp[best])
            best = i;
    return best;
}
