/* Which row is to blame for a number that is not finite, or for a sequence that the model refuses:
 * asked for one at a time, once something has gone wrong. */
#include <math.h>

#include "train/pf_train.h"

/* The first row of the batch that has sequence i. */
static int64_t row_of(const prefopt_trainer *trainer, int64_t i)
{
    int64_t slot = 0;
    for (int64_t k = 0; k < trainer->batch.n; k++) {
        int64_t row = pf_batch_row(&trainer->batch, k);
        int64_t n = trainer->rows->first[row + 1] - trainer->rows->first[row];
        for (int64_t j = 0; j < n; j++)
            if (trainer->batch.slot[slot++] == i)
                return row;
    }
    return -1;
}

int32_t pf_trainer_name_scores(prefopt_trainer *trainer, int32_t status)
{
    const pf_batch *batch = &trainer->batch;
    char text[PF_SEQUENCE_TEXT];
    for (int64_t i = 0; i < batch->sequences.n; i++) {
        prefopt_sequences one = pf_sequences_part(&batch->sequences, i, 1);
        int32_t again = pf_trained_scores(&trainer->model, &one, trainer->score + i);
        if (again < 0)
            return pf_fail_in(again, "row %lld (%s)", (long long)row_of(trainer, i),
                              pf_rows_text(trainer->rows, pf_batch_distinct(batch, i), text));
    }
    return pf_fail(status, "the model failed on %lld sequences together but on none alone",
                   (long long)batch->sequences.n);
}

/* The gradient of one row, weighted as in its batch; its norm. */
static int32_t gradient_norm(prefopt_trainer *trainer, double *norm)
{
    prefopt_progress stats;
    pf_progress_clear(&stats);
    trainer->extra_grad = 0;
    PF_TRY(pf_trained_zero_grad(&trainer->model));
    PF_TRY(trainer->objective->evaluate(trainer, true, &stats));
    trainer->extra_grad *= trainer->share;
    *norm = pf_optimiser_grad_norm(&trainer->optimiser);
    return PREFOPT_OK;
}

static int32_t try_rows(prefopt_trainer *trainer, const pf_batch *whole, pf_gather *gather)
{
    const double *weight = trainer->rows->weight;
    double total = 0;
    for (int64_t k = 0; k < whole->n; k++)
        total += weight[pf_batch_row(whole, k)];
    for (int64_t k = 0; k < whole->n; k++) {
        int64_t row = pf_batch_row(whole, k);
        if (!(weight[row] > 0))
            continue;
        double norm = 0;
        pf_gather_rows(gather, &row, 1, &trainer->batch);
        trainer->share = weight[row] / total;
        int32_t status = gradient_norm(trainer, &norm);
        if (status < 0)
            return pf_fail_in(status, "row %lld", (long long)row);
        if (!isfinite(norm))
            return pf_fail(PREFOPT_ERR_NUMERIC, "row %lld: the norm of its gradient is %g",
                           (long long)row, norm);
    }
    return PREFOPT_OK;
}

int32_t pf_trainer_name_gradient(prefopt_trainer *trainer, double norm)
{
    pf_batch whole = trainer->batch;
    pf_gather gather;
    int32_t status = PREFOPT_OK;
    if (trainer->rows != NULL && !trainer->coupled &&
        pf_gather_init(&gather, trainer->context, trainer->rows, 1) == PREFOPT_OK) {
        status = try_rows(trainer, &whole, &gather);
        pf_gather_clear(&gather);
        trainer->batch = whole;
        trainer->share = 1;
    }
    if (status < 0)
        return status;
    return pf_fail(PREFOPT_ERR_NUMERIC, "the norm of the gradient is %g", norm);
}
