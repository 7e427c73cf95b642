/* A batch in parts: models that keep activations from scores to backward keep only so many, and the
 * caller may want fewer rows at once (micro_batch).
 *
 * A part is a run of whole rows whose distinct sequences the model keeps (a row that is too large
 * is a part of its own). Batch losses are means over rows by weight, so that a part's loss and
 * gradient times its share of the batch's weight add up to the batch's. */
#include "train/pf_train.h"

int32_t pf_parts_init(pf_parts *parts, prefopt_context *context, const pf_rows *rows,
                      int64_t capacity)
{
    PF_TRY(pf_gather_init(&parts->gather, context, rows, capacity));
    parts->rows = pf_alloc(context, capacity, sizeof *parts->rows);
    parts->capacity = capacity;
    if (parts->rows != NULL)
        return PREFOPT_OK;
    pf_parts_clear(parts);
    return PREFOPT_ERR_MEMORY;
}

void pf_parts_clear(pf_parts *parts)
{
    if (parts->rows != NULL)
        pf_free(parts->gather.context, parts->rows);
    parts->rows = NULL;
    pf_gather_clear(&parts->gather);
}

/* Cuts the batch down to its first rows whose distinct sequences are among the first `keeps`, at
 * least one row. Sequences are in order of first appearance, so those of the rows are the first. */
static void cut(pf_batch *batch, const pf_rows *rows, int64_t keeps)
{
    int64_t n = 0, n_slots = 0, n_sequences = 0;
    while (n < batch->n) {
        int64_t row = batch->rows[n], end = n_slots + rows->first[row + 1] - rows->first[row];
        int64_t needs = n_sequences;
        for (int64_t s = n_slots; s < end; s++)
            needs = batch->slot[s] >= needs ? batch->slot[s] + 1 : needs;
        if (n > 0 && needs > keeps)
            break;
        n_sequences = needs;
        n_slots = end;
        n++;
    }
    batch->n = n;
    batch->n_slots = n_slots;
    batch->sequences.n = n_sequences;
}

/* Makes trainer->batch the part of `whole` from row `first` on, of at most `most` rows, micro_batch
 * and what there is room for. */
static int32_t take_part(prefopt_trainer *trainer, const pf_batch *whole, int64_t first,
                         int64_t most)
{
    pf_parts *parts = &trainer->parts;
    int64_t n = most < whole->n - first ? most : whole->n - first;
    if (trainer->options.micro_batch > 0 && n > trainer->options.micro_batch)
        n = trainer->options.micro_batch;
    if (n > parts->capacity)
        n = parts->capacity;
    for (int64_t k = 0; k < n; k++)
        parts->rows[k] = pf_batch_row(whole, first + k);
    pf_batch *batch = &trainer->batch;
    pf_gather_rows(&parts->gather, parts->rows, n, batch);
    if (batch->sequences.n == 0)
        return PREFOPT_OK;
    int64_t keeps = pf_trained_keeps(&trainer->model, &batch->sequences);
    if (keeps < 0)
        return (int32_t)keeps;
    cut(batch, trainer->rows, keeps);
    return PREFOPT_OK;
}

double pf_batch_weight(const pf_rows *rows, const pf_batch *batch)
{
    double sum = 0;
    for (int64_t k = 0; k < batch->n; k++)
        sum += rows->weight[pf_batch_row(batch, k)];
    return sum;
}

static int32_t evaluate_parts(prefopt_trainer *trainer, const pf_batch *whole,
                              prefopt_progress *stats)
{
    double total = pf_batch_weight(trainer->rows, whole), share = trainer->share;
    int64_t most = whole->n;
    pf_tally tally = {.counted = 0};
    for (int64_t first = 0; first < whole->n; first += trainer->batch.n) {
        prefopt_progress part;
        pf_progress_clear(&part);
        PF_TRY(take_part(trainer, whole, first, most));
        trainer->extra_grad = 0;
        trainer->counted = pf_batch_weight(trainer->rows, &trainer->batch);
        double of_batch = total > 0 ? trainer->counted / total : 0;
        trainer->share = share * of_batch;
        PF_TRY(trainer->objective->evaluate(trainer, true, &part));
        pf_tally_add(&tally, trainer, of_batch, &part);
        /* The next part is probably as large; a look at all that is left would be quadratic. */
        most = 2 * trainer->batch.n + 2;
    }
    pf_tally_write(&tally, trainer, stats);
    return PREFOPT_OK;
}

int32_t pf_parts_evaluate(prefopt_trainer *trainer, prefopt_progress *stats)
{
    pf_batch whole = trainer->batch;
    int64_t most = trainer->options.micro_batch;
    bool fits = most == 0 || whole.n <= most;
    double share = trainer->share;
    if (trainer->rows != NULL)
        trainer->counted = pf_batch_weight(trainer->rows, &whole);
    if (trainer->parts.rows == NULL || whole.sequences.n == 0)
        return trainer->objective->evaluate(trainer, true, stats);
    int64_t keeps = fits ? pf_trained_keeps(&trainer->model, &whole.sequences) : 0;
    if (keeps < 0)
        return (int32_t)keeps;
    if (keeps >= whole.sequences.n)
        return trainer->objective->evaluate(trainer, true, stats);
    int32_t status = evaluate_parts(trainer, &whole, stats);
    trainer->batch = whole;
    trainer->share = share;
    return status;
}
