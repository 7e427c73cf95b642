/* Which rows a step takes.
 *
 * Positions 0, 1, 2 ... of an endless sequence run through epoch after epoch, each a permutation of
 * the rows; step s takes positions s * batch .. (s + 1) * batch - 1. Every batch has the same size,
 * every row comes once an epoch, and what a step sees depends on (seed, step) alone. */
#include "train/pf_train.h"

int32_t pf_batches_init(pf_batches *b, prefopt_context *context, const pf_rows *rows, int64_t n,
                        int64_t batch, uint64_t seed)
{
    memset(b, 0, sizeof *b);
    b->context = context;
    b->rows = rows;
    b->n = n;
    b->batch = batch > 0 && batch < n ? batch : n;
    b->seed = seed;
    b->epoch = -1;
    if (b->batch == n)
        return PREFOPT_OK;
    b->order = pf_alloc(context, n, sizeof *b->order);
    b->chosen = pf_alloc(context, b->batch, sizeof *b->chosen);
    int32_t status = b->order == NULL || b->chosen == NULL ? PREFOPT_ERR_MEMORY : PREFOPT_OK;
    if (status == PREFOPT_OK && rows != NULL)
        status = pf_gather_init(&b->gather, context, rows, b->batch);
    if (status != PREFOPT_OK)
        pf_batches_clear(b);
    return status;
}

void pf_batches_clear(pf_batches *b)
{
    pf_gather_clear(&b->gather);
    pf_free(b->context, b->order);
    pf_free(b->context, b->chosen);
    memset(b, 0, sizeof *b);
}

void pf_batches_all(const pf_batches *b, pf_batch *out)
{
    *out = (pf_batch){.n = b->n};
    if (b->rows == NULL)
        return;
    out->sequences = *pf_sequence_map_view(b->rows->map);
    out->n_slots = b->rows->n_slots;
    out->slot = b->rows->sequence;
}

void pf_batches_take(pf_batches *b, int64_t step, pf_batch *out)
{
    if (b->batch == b->n) {
        pf_batches_all(b, out);
        return;
    }
    for (int64_t k = 0; k < b->batch; k++) {
        /* step * batch + k, as epoch and place, without overflow. */
        int64_t place = (step % b->n) * b->batch + k;
        int64_t epoch = (step / b->n) * b->batch + place / b->n;
        if (epoch != b->epoch) {
            pf_permutation(b->seed, pf_stream(PF_STREAM_BATCHES, (uint64_t)epoch), b->n, b->order);
            b->epoch = epoch;
        }
        b->chosen[k] = b->order[place % b->n];
    }
    if (b->rows != NULL)
        pf_gather_rows(&b->gather, b->chosen, b->batch, out);
    else
        *out = (pf_batch){.n = b->batch, .rows = b->chosen};
}
