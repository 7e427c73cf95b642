/* Rankings of a batch: the Plackett-Luce loss, shared by reward models (scores are rewards) and DPO
 * (scores are beta times log-ratios). */
#include <math.h>

#include "train/pf_train.h"

int32_t pf_ranking_batch_init(pf_ranking_batch *r, prefopt_context *context, const pf_rows *rows,
                              int64_t batch, bool references)
{
    int64_t slots = 0;
    memset(r, 0, sizeof *r);
    r->context = context;
    PF_TRY(pf_rows_max_slots(rows, batch, &slots));
    r->offsets = pf_alloc(context, batch + 1, sizeof *r->offsets);
    r->weight = pf_alloc(context, batch, sizeof *r->weight);
    r->each = pf_alloc(context, batch, sizeof *r->each);
    r->score = pf_alloc(context, slots, sizeof *r->score);
    r->grad = pf_alloc(context, slots, sizeof *r->grad);
    if (references)
        r->ref = pf_alloc(context, slots, sizeof *r->ref);
    bool failed = r->offsets == NULL || r->weight == NULL || r->each == NULL || r->score == NULL ||
                  r->grad == NULL || (references && r->ref == NULL);
    return failed ? PREFOPT_ERR_MEMORY : PREFOPT_OK;
}

void pf_ranking_batch_clear(pf_ranking_batch *r)
{
    void *const owned[] = {r->offsets, r->weight, r->each, r->score, r->grad, r->ref};
    for (size_t i = 0; i < sizeof owned / sizeof *owned; i++)
        if (owned[i] != NULL)
            pf_free(r->context, owned[i]);
    memset(r, 0, sizeof *r);
}

/* As with pairs, over neighbours in each ranking. */
static void statistics(const pf_ranking_batch *r, prefopt_trainer *trainer, double scale,
                       prefopt_progress *stats)
{
    pf_pair_sums sums = {0};
    static const double none[2];
    for (int64_t k = 0; k < trainer->batch.n; k++)
        for (int64_t i = r->offsets[k]; i + 1 < r->offsets[k + 1] && r->weight[k] > 0; i++)
            pf_pair_sums_add(&sums, r->weight[k], scale, r->score + i,
                             r->ref != NULL ? r->ref + i : none);
    pf_pair_sums_write(&sums, trainer->model.policy != NULL, stats);
    trainer->counted = sums.total;
}

int32_t pf_ranking_batch_evaluate(pf_ranking_batch *r, prefopt_trainer *trainer, const double *ref,
                                  double beta, prefopt_progress *stats)
{
    const pf_rows *rows = trainer->rows;
    const pf_batch *batch = &trainer->batch;
    int64_t slot = 0;
    r->offsets[0] = 0;
    for (int64_t k = 0; k < batch->n; k++) {
        int64_t row = pf_batch_row(batch, k), n = rows->first[row + 1] - rows->first[row];
        r->weight[k] = rows->weight[row];
        for (int64_t j = 0; j < n; j++, slot++) {
            r->score[slot] = trainer->score[batch->slot[slot]];
            if (ref != NULL)
                r->ref[slot] = ref[pf_batch_distinct(batch, batch->slot[slot])];
        }
        r->offsets[k + 1] = slot;
    }
    prefopt_pl_options options;
    PF_TRY(prefopt_pl_options_init(&options, sizeof options));
    options.beta = beta;
    prefopt_ranking_scores in = {.struct_size = sizeof in,
                                 .n = batch->n,
                                 .offsets = r->offsets,
                                 .score = r->score,
                                 .ref_logp = r->ref,
                                 .weight = r->weight};
    prefopt_ranking_loss out = {.struct_size = sizeof out, .each = r->each, .grad_score = r->grad};
    PF_TRY(prefopt_loss_plackett_luce(&options, &in, &out));
    for (int64_t k = 0; k < batch->n && !isfinite(out.mean); k++)
        if (r->weight[k] > 0 && !isfinite(r->each[k]))
            return pf_fail(PREFOPT_ERR_NUMERIC, "row %lld: the loss is %g",
                           (long long)pf_batch_row(batch, k), r->each[k]);
    memset(trainer->grad_score, 0, (size_t)batch->sequences.n * sizeof *trainer->grad_score);
    for (int64_t s = 0; s < slot; s++)
        trainer->grad_score[batch->slot[s]] += r->grad[s];
    stats->loss = out.mean;
    statistics(r, trainer, beta, stats);
    return PREFOPT_OK;
}
