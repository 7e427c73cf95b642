/* Pairs of a batch as the arrays the pair losses take, and the way back. */
#include <math.h>

#include "train/pf_train.h"

int32_t pf_pair_batch_init(pf_pair_batch *p, prefopt_context *context, int64_t capacity,
                           int32_t parts)
{
    memset(p, 0, sizeof *p);
    p->context = context;
    double **const doubles[] = {&p->chosen,     &p->rejected,    &p->weight,      &p->label,
                                &p->margin,     &p->each,        &p->grad_chosen, &p->grad_rejected,
                                &p->ref_chosen, &p->ref_rejected};
    size_t n_doubles = parts & PF_PAIR_REFERENCES ? 10 : 8;
    bool failed = false;
    for (size_t i = 0; i < n_doubles; i++) {
        *doubles[i] = pf_alloc(context, capacity, sizeof **doubles[i]);
        failed |= *doubles[i] == NULL;
    }
    if (parts & PF_PAIR_LENGTHS) {
        p->len_chosen = pf_alloc(context, capacity, sizeof *p->len_chosen);
        p->len_rejected = pf_alloc(context, capacity, sizeof *p->len_rejected);
        failed |= p->len_chosen == NULL || p->len_rejected == NULL;
    }
    return failed ? PREFOPT_ERR_MEMORY : PREFOPT_OK;
}

void pf_pair_batch_clear(pf_pair_batch *p)
{
    void *const owned[] = {p->chosen,       p->rejected, p->ref_chosen,  p->ref_rejected,
                           p->weight,       p->label,    p->margin,      p->len_chosen,
                           p->len_rejected, p->each,     p->grad_chosen, p->grad_rejected};
    for (size_t i = 0; i < sizeof owned / sizeof *owned; i++)
        if (owned[i] != NULL)
            pf_free(p->context, owned[i]);
    memset(p, 0, sizeof *p);
}

void pf_pair_batch_gather(pf_pair_batch *p, const prefopt_trainer *trainer, const double *ref,
                          prefopt_pair_scores *in, prefopt_pair_loss *out)
{
    const pf_rows *rows = trainer->rows;
    const pf_batch *batch = &trainer->batch;
    for (int64_t k = 0; k < batch->n; k++) {
        int64_t row = pf_batch_row(batch, k);
        int64_t c = batch->slot[2 * k], r = batch->slot[2 * k + 1];
        int64_t dc = pf_batch_distinct(batch, c), dr = pf_batch_distinct(batch, r);
        p->chosen[k] = trainer->score[c];
        p->rejected[k] = trainer->score[r];
        p->weight[k] = rows->weight[row];
        p->label[k] = rows->label[row];
        p->margin[k] = rows->margin[row];
        if (ref != NULL) {
            p->ref_chosen[k] = ref[dc];
            p->ref_rejected[k] = ref[dr];
        }
        if (p->len_chosen != NULL) {
            p->len_chosen[k] = rows->length[dc];
            p->len_rejected[k] = rows->length[dr];
        }
    }
    *in = (prefopt_pair_scores){.struct_size = sizeof *in,
                                .n = batch->n,
                                .chosen = p->chosen,
                                .rejected = p->rejected,
                                .ref_chosen = ref != NULL ? p->ref_chosen : NULL,
                                .ref_rejected = ref != NULL ? p->ref_rejected : NULL,
                                .weight = rows->weighted ? p->weight : NULL,
                                .label = rows->labelled ? p->label : NULL,
                                .margin = rows->margined ? p->margin : NULL,
                                .len_chosen = p->len_chosen,
                                .len_rejected = p->len_rejected};
    *out = (prefopt_pair_loss){.struct_size = sizeof *out,
                               .each = p->each,
                               .grad_chosen = p->grad_chosen,
                               .grad_rejected = p->grad_rejected};
}

int32_t pf_pair_batch_scatter(pf_pair_batch *p, prefopt_trainer *trainer, double loss)
{
    const pf_batch *batch = &trainer->batch;
    if (!isfinite(loss)) {
        for (int64_t k = 0; k < batch->n; k++)
            if (p->weight[k] > 0 && !isfinite(p->each[k]))
                return pf_fail(
                    PREFOPT_ERR_NUMERIC, "row %lld: the loss is %g (chosen %g, rejected %g)",
                    (long long)pf_batch_row(batch, k), p->each[k], p->chosen[k], p->rejected[k]);
        return pf_fail(PREFOPT_ERR_NUMERIC, "the mean loss is %g", loss);
    }
    memset(trainer->grad_score, 0, (size_t)batch->sequences.n * sizeof *trainer->grad_score);
    for (int64_t k = 0; k < batch->n; k++) {
        trainer->grad_score[batch->slot[2 * k]] += p->grad_chosen[k];
        trainer->grad_score[batch->slot[2 * k + 1]] += p->grad_rejected[k];
    }
    return PREFOPT_OK;
}

void pf_pair_sums_add(pf_pair_sums *s, double weight, double scale, const double score[2],
                      const double ref[2])
{
    double chosen = score[0] - ref[0], rejected = score[1] - ref[1], d = chosen - rejected;
    s->total += weight;
    s->right += d > 0 ? weight : 0;
    s->margin += weight * scale * d;
    s->chosen += weight * scale * chosen;
    s->rejected += weight * scale * rejected;
    s->chosen_logp += weight * score[0];
    s->rejected_logp += weight * score[1];
}

void pf_pair_sums_write(const pf_pair_sums *s, bool policy, prefopt_progress *stats)
{
    if (s->total == 0)
        return;
    stats->accuracy = s->right / s->total;
    stats->margin = s->margin / s->total;
    stats->chosen_score = s->chosen / s->total;
    stats->rejected_score = s->rejected / s->total;
    if (policy) {
        stats->chosen_logp = s->chosen_logp / s->total;
        stats->rejected_logp = s->rejected_logp / s->total;
    }
}

void pf_pair_batch_stats(const pf_pair_batch *p, const prefopt_pair_scores *in, double scale,
                         bool policy, prefopt_progress *stats)
{
    pf_pair_sums sums = {0};
    for (int64_t k = 0; k < in->n; k++) {
        double score[2] = {p->chosen[k], p->rejected[k]}, ref[2] = {0};
        if (in->ref_chosen != NULL) {
            ref[0] = p->ref_chosen[k];
            ref[1] = p->ref_rejected[k];
        }
        if (p->weight[k] > 0)
            pf_pair_sums_add(&sums, p->weight[k], scale, score, ref);
    }
    pf_pair_sums_write(&sums, policy, stats);
}
