/* DPO_AOT and DPO_AOT_UNPAIRED: the sigmoid form on two sorted batches. In one dimension the
 * optimal transport between two samples matches equal ranks, so the loss pushes the whole
 * distribution of the one above the other's. */
#include <stdlib.h>

#include "loss/pf_loss.h"

typedef struct {
    double key;
    int64_t index;
} ranked;

/* Merge sort from the bottom up, in ascending order; stable, so equal keys stay in the order of
 * their index. The result is in `items`; `scratch` has the same size. */
static void sort_ranked(int64_t n, ranked *items, ranked *scratch)
{
    ranked *from = items, *to = scratch;
    for (int64_t width = 1; width < n; width *= 2) {
        for (int64_t left = 0; left < n; left += 2 * width) {
            int64_t middle = left + width < n ? left + width : n;
            int64_t end = middle + width < n ? middle + width : n;
            int64_t i = left, j = middle;
            for (int64_t k = left; k < end; k++)
                to[k] =
                    i < middle && (j == end || from[i].key <= from[j].key) ? from[i++] : from[j++];
        }
        ranked *swap = from;
        from = to;
        to = swap;
    }
    if (from != items)
        memcpy(items, from, (size_t)n * sizeof *items);
}

/* keys[i] = plus[i] - minus[i], sorted; NULL arrays are 0. NUMERIC where a key has no value. */
static int32_t rank_differences(const pf_pairs *pairs, const char *plus_name, const double *plus,
                                const char *minus_name, const double *minus, ranked *items,
                                ranked *scratch)
{
    int64_t n = pairs->in.n;
    for (int64_t i = 0; i < n; i++) {
        items[i].key = (plus == NULL ? 0 : plus[i]) - (minus == NULL ? 0 : minus[i]);
        items[i].index = i;
        if (isnan(items[i].key))
            return pf_fail(PREFOPT_ERR_NUMERIC,
                           "pair %lld has no %s loss: %s and %s are both -INFINITY, which leaves "
                           "infinity minus infinity",
                           (long long)i, pairs->variant, plus_name, minus_name);
    }
    sort_ranked(n, items, scratch);
    return PREFOPT_OK;
}

static void write_results(const prefopt_dpo_options *o, const pf_dpo_variant *variant,
                          const pf_pairs *pairs, const ranked *a, const ranked *b)
{
    int64_t n = pairs->in.n;
    double d[PF_CHUNK], loss[PF_CHUNK], slope[PF_CHUNK];
    const prefopt_pair_loss *out = &pairs->out;
    pf_sum sum = {0, 0};
    for (int64_t first = 0; first < n; first += PF_CHUNK) {
        int64_t many = n - first < PF_CHUNK ? n - first : PF_CHUNK;
        for (int64_t i = 0; i < many; i++)
            d[i] = a[first + i].key - b[first + i].key;
        variant->link(o, many, d, loss, slope);
        pf_sum_add(&sum, pf_lane_sum(many, loss));
        for (int64_t i = 0; i < many; i++) {
            int64_t plus = a[first + i].index;
            int64_t minus = variant->coordinate == PF_SORTED_DIFF ? plus : b[first + i].index;
            double grad = pf_finite_or_zero(slope[i]) / pairs->total_weight;
            if (out->each != NULL)
                out->each[plus] = loss[i];
            if (out->grad_chosen != NULL)
                out->grad_chosen[plus] = grad;
            if (out->grad_rejected != NULL)
                out->grad_rejected[minus] = -grad;
        }
    }
    pf_pairs_write_mean(pairs, &sum, 0);
}

static int32_t rank_and_write(const prefopt_dpo_options *o, const pf_dpo_variant *variant,
                              const pf_pairs *pairs, ranked *a, ranked *b, ranked *scratch)
{
    const prefopt_pair_scores *in = &pairs->in;
    if (variant->coordinate == PF_SORTED_DIFF) {
        PF_TRY(rank_differences(pairs, "chosen", in->chosen, "rejected", in->rejected, a, scratch));
        PF_TRY(rank_differences(pairs, "ref_chosen", in->ref_chosen, "ref_rejected",
                                in->ref_rejected, b, scratch));
    } else {
        PF_TRY(rank_differences(pairs, "chosen", in->chosen, "ref_chosen", in->ref_chosen, a,
                                scratch));
        PF_TRY(rank_differences(pairs, "rejected", in->rejected, "ref_rejected", in->ref_rejected,
                                b, scratch));
    }
    for (int64_t i = 0; i < in->n; i++)
        if (isnan(a[i].key - b[i].key))
            return pf_fail(PREFOPT_ERR_NUMERIC,
                           "pair %lld has no %s loss: at rank %lld both sides are %g, which leaves "
                           "infinity minus infinity",
                           (long long)a[i].index, pairs->variant, (long long)i, a[i].key);
    write_results(o, variant, pairs, a, b);
    return PREFOPT_OK;
}

int32_t pf_dpo_sorted(const prefopt_dpo_options *o, const pf_dpo_variant *variant,
                      const pf_pairs *pairs)
{
    int64_t n = pairs->in.n, bytes;
    if (!pf_mul(n, 3 * (int64_t)sizeof(ranked), &bytes))
        return pf_fail(PREFOPT_ERR_MEMORY, "%s: a size overflows: %lld pairs", pairs->variant,
                       (long long)n);
    ranked *items = malloc(bytes > 0 ? (size_t)bytes : 1);
    if (items == NULL)
        return pf_fail(PREFOPT_ERR_MEMORY, "%s: no memory: %lld bytes asked for", pairs->variant,
                       (long long)bytes);
    int32_t status = rank_and_write(o, variant, pairs, items, items + n, items + 2 * n);
    free(items);
    return status;
}
