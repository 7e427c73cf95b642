/* Pair losses: reading and checking the caller's structs, writing the results. */
#include <stdio.h>

#include "loss/pf_loss.h"

static bool all_moderate(int64_t n, const double *x)
{
    int64_t beyond = 0;
    for (int64_t i = 0; i < n; i++)
        beyond |= fabs(x[i]) <= PF_MODERATE ? 0 : 1;
    return beyond == 0;
}

int32_t pf_check_values(const char *name, int64_t n, const double *x, bool never_is_legal,
                        bool *moderate)
{
    if (x == NULL || all_moderate(n, x))
        return PREFOPT_OK;
    *moderate = false;
    for (int64_t i = 0; i < n; i++)
        if (isnan(x[i]) || x[i] == INFINITY || (!never_is_legal && x[i] == -INFINITY))
            return pf_fail(PREFOPT_ERR_NUMERIC, "%s[%lld] is %g, expected a finite number%s", name,
                           (long long)i, x[i], never_is_legal ? " or -INFINITY" : "");
    return PREFOPT_OK;
}

double pf_lane_sum(int64_t n, const double *x)
{
    double lane[8] = {0};
    int64_t i = 0;
    for (; i + 8 <= n; i += 8)
        for (int j = 0; j < 8; j++)
            lane[j] += x[i + j];
    for (; i < n; i++)
        lane[i & 7] += x[i];
    return ((lane[0] + lane[4]) + (lane[2] + lane[6])) +
           ((lane[1] + lane[5]) + (lane[3] + lane[7]));
}

int32_t pf_check_weights(int64_t n, const double *weight, double *total)
{
    if (weight == NULL) {
        *total = (double)n;
        return PREFOPT_OK;
    }
    int64_t wrong = 0;
    for (int64_t i = 0; i < n; i++)
        wrong |= weight[i] >= 0 && weight[i] <= DBL_MAX ? 0 : 1;
    for (int64_t i = 0; wrong && i < n; i++) {
        if (isnan(weight[i]) || weight[i] == INFINITY)
            return pf_fail(PREFOPT_ERR_NUMERIC, "weight[%lld] is %g, expected a finite number >= 0",
                           (long long)i, weight[i]);
        if (weight[i] < 0)
            return pf_fail(PREFOPT_ERR_ARGUMENT, "weight[%lld] is %g, expected >= 0", (long long)i,
                           weight[i]);
    }
    pf_sum sum = {0, 0};
    for (int64_t first = 0; first < n; first += PF_CHUNK)
        pf_sum_add(&sum, pf_lane_sum(n - first < PF_CHUNK ? n - first : PF_CHUNK, weight + first));
    *total = pf_sum_value(&sum);
    if (*total > DBL_MAX)
        return pf_fail(PREFOPT_ERR_NUMERIC, "weight: the sum of all %lld overflows", (long long)n);
    return PREFOPT_OK;
}

int32_t pf_check_array(const char *name, int64_t n, const void *array)
{
    if (n < 0)
        return pf_fail(PREFOPT_ERR_ARGUMENT, "n is %lld, expected >= 0", (long long)n);
    if (n > 0 && array == NULL)
        return pf_fail(PREFOPT_ERR_ARGUMENT, "%s is NULL, expected %lld values", name,
                       (long long)n);
    return PREFOPT_OK;
}

static int32_t check_labels(int64_t n, const double *label)
{
    int64_t wrong = 0;
    for (int64_t i = 0; i < n; i++)
        wrong |= label[i] >= 0 && label[i] <= 1 ? 0 : 1;
    for (int64_t i = 0; wrong && i < n; i++) {
        if (isnan(label[i]))
            return pf_fail(PREFOPT_ERR_NUMERIC, "label[%lld] is %g, expected 0 to 1", (long long)i,
                           label[i]);
        if (label[i] < 0 || label[i] > 1)
            return pf_fail(PREFOPT_ERR_ARGUMENT, "label[%lld] is %g, expected 0 to 1", (long long)i,
                           label[i]);
    }
    return PREFOPT_OK;
}

static int32_t check_lengths(const char *name, int64_t n, const int64_t *length)
{
    PF_TRY(pf_check_array(name, n, length));
    for (int64_t i = 0; i < n; i++)
        if (length[i] < 1)
            return pf_fail(PREFOPT_ERR_ARGUMENT, "%s[%lld] is %lld, expected at least 1 token",
                           name, (long long)i, (long long)length[i]);
    return PREFOPT_OK;
}

static int32_t check_unused(const prefopt_pair_scores *in, uint32_t uses, const char *variant)
{
    const struct {
        uint32_t use;
        const void *array;
        const char *name;
    } arrays[] = {
        {PF_USES_REFERENCE, in->ref_chosen, "ref_chosen"},
        {PF_USES_REFERENCE, in->ref_rejected, "ref_rejected"},
        {PF_USES_WEIGHT, in->weight, "weight"},
        {PF_USES_LABEL, in->label, "label"},
        {PF_USES_MARGIN, in->margin, "margin"},
        {PF_USES_LENGTHS, in->len_chosen, "len_chosen"},
        {PF_USES_LENGTHS, in->len_rejected, "len_rejected"},
    };
    for (size_t i = 0; i < sizeof arrays / sizeof arrays[0]; i++)
        if (arrays[i].array != NULL && !(uses & arrays[i].use))
            return pf_fail(PREFOPT_ERR_ARGUMENT, "%s is set, but %s does not use it: expected NULL",
                           arrays[i].name, variant);
    return PREFOPT_OK;
}

int32_t pf_pairs_read(pf_pairs *pairs, const prefopt_pair_scores *in, prefopt_pair_loss *out,
                      uint32_t uses, const char *variant)
{
    const uint32_t v1_out = offsetof(prefopt_pair_loss, grad_log_tie);
    memset(pairs, 0, sizeof *pairs);
    PF_TRY(
        pf_struct_read(&pairs->in, sizeof pairs->in, sizeof pairs->in, in, "prefopt_pair_scores"));
    PF_TRY(pf_struct_read(&pairs->out, sizeof pairs->out, v1_out, out, "prefopt_pair_loss"));
    pairs->callers = out;
    pairs->variant = variant;
    pairs->moderate = true;

    in = &pairs->in;
    if (in->reserved != 0)
        return pf_fail(PREFOPT_ERR_ARGUMENT, "prefopt_pair_scores: reserved is %u, expected 0",
                       in->reserved);
    PF_TRY(pf_check_array("chosen", in->n, in->chosen));
    PF_TRY(pf_check_array("rejected", in->n, in->rejected));
    PF_TRY(check_unused(in, uses, variant));
    if ((in->ref_chosen == NULL) != (in->ref_rejected == NULL))
        return pf_fail(PREFOPT_ERR_ARGUMENT, "%s is NULL but %s is not: expected both or neither",
                       in->ref_chosen == NULL ? "ref_chosen" : "ref_rejected",
                       in->ref_chosen == NULL ? "ref_rejected" : "ref_chosen");
    PF_TRY(pf_check_values("chosen", in->n, in->chosen, true, &pairs->moderate));
    PF_TRY(pf_check_values("rejected", in->n, in->rejected, true, &pairs->moderate));
    PF_TRY(pf_check_values("ref_chosen", in->n, in->ref_chosen, true, &pairs->moderate));
    PF_TRY(pf_check_values("ref_rejected", in->n, in->ref_rejected, true, &pairs->moderate));
    PF_TRY(pf_check_values("margin", in->n, in->margin, false, &pairs->moderate));
    if (in->label != NULL)
        PF_TRY(check_labels(in->n, in->label));
    if (uses & PF_USES_LENGTHS) {
        PF_TRY(check_lengths("len_chosen", in->n, in->len_chosen));
        PF_TRY(check_lengths("len_rejected", in->n, in->len_rejected));
    }
    return pf_check_weights(in->n, in->weight, &pairs->total_weight);
}

int32_t pf_pairs_check_losses(const pf_pairs *pairs, int64_t first, int64_t n, const double *loss)
{
    for (int64_t i = 0; i < n; i++) {
        if (loss[i] > -INFINITY || pf_pair_weight(pairs, first + i) == 0)
            continue;
        const prefopt_pair_scores *in = &pairs->in;
        int64_t at = first + i;
        char reference[80] = "";
        if (in->ref_chosen != NULL)
            snprintf(reference, sizeof reference, ", ref_chosen %g, ref_rejected %g",
                     in->ref_chosen[at], in->ref_rejected[at]);
        return pf_fail(PREFOPT_ERR_NUMERIC,
                       "pair %lld has no %s loss: chosen %g, rejected %g%s give %s", (long long)at,
                       pairs->variant, in->chosen[at], in->rejected[at], reference,
                       isnan(loss[i]) ? "infinity minus infinity" : "minus infinity");
    }
    return PREFOPT_OK;
}

void pf_pairs_write_chunk(const pf_pairs *pairs, int64_t first, int64_t n, const double *loss,
                          const double *slope_chosen, const double *slope_rejected, pf_sum *sum)
{
    double total = pairs->total_weight, scale[PF_CHUNK], term[PF_CHUNK];
    if (pairs->in.weight == NULL) {
        for (int64_t i = 0; i < n; i++)
            scale[i] = 1 / total;
        pf_sum_add(sum, pf_lane_sum(n, loss));
    } else {
        const double *weight = pairs->in.weight + first;
        for (int64_t i = 0; i < n; i++) {
            scale[i] = total > 0 ? weight[i] / total : 0;
            term[i] = weight[i] == 0 ? 0 : weight[i] * loss[i];
        }
        pf_sum_add(sum, pf_lane_sum(n, term));
    }
    if (pairs->out.each != NULL)
        for (int64_t i = 0; i < n; i++)
            pairs->out.each[first + i] = loss[i] > -INFINITY ? loss[i] : 0;
    if (pairs->out.grad_chosen != NULL)
        for (int64_t i = 0; i < n; i++)
            pairs->out.grad_chosen[first + i] = scale[i] * pf_finite_or_zero(slope_chosen[i]);
    if (pairs->out.grad_rejected != NULL)
        for (int64_t i = 0; i < n; i++)
            pairs->out.grad_rejected[first + i] = scale[i] * pf_finite_or_zero(slope_rejected[i]);
}

void pf_pairs_write_mean(const pf_pairs *pairs, const pf_sum *sum, double grad_log_tie)
{
    prefopt_pair_loss *out = pairs->callers;
    out->mean = pairs->total_weight > 0 ? pf_sum_value(sum) / pairs->total_weight : 0;
    if (out->struct_size >= offsetof(prefopt_pair_loss, grad_log_tie) + sizeof(double))
        out->grad_log_tie = grad_log_tie;
}
