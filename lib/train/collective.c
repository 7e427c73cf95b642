/* Training on several ranks: each evaluates its part of a batch, or of the held-out rows; gradients
 * and statistics are summed.
 *
 * A step has two exchanges of a few numbers and one of the gradient: the ranks' statuses with their
 * tallies; the gradient, if all went well; and the statuses again at the step's end, so that a stop
 * or a failure there reaches all. Losses are means over rows by weight: a part's, times its share
 * of the batch's weight, add up to the batch's. */
#include <math.h>
#include <stdio.h>

#include "train/pf_train.h"

enum { TALLY = sizeof(pf_tally) / sizeof(double), TEXT = 1024 };

bool pf_ranks_alone(const pf_ranks *ranks) { return ranks->calls.size == 1; }

int32_t pf_ranks_read(pf_ranks *ranks, const prefopt_collective *callers)
{
    prefopt_collective *c = &ranks->calls;
    *c = (prefopt_collective){.struct_size = sizeof *c, .size = 1};
    if (callers == NULL)
        return PREFOPT_OK;
    PF_TRY(pf_struct_read(c, sizeof *c, sizeof *c, callers, "prefopt_collective"));
    if (c->reserved != 0)
        return pf_fail(PREFOPT_ERR_ARGUMENT, "collective: reserved is %u, expected 0", c->reserved);
    if (c->size < 1)
        return pf_fail(PREFOPT_ERR_ARGUMENT, "collective: size is %lld, expected at least 1",
                       (long long)c->size);
    if (c->rank < 0 || c->rank >= c->size)
        return pf_fail(PREFOPT_ERR_ARGUMENT, "collective: rank is %lld, expected 0 to %lld",
                       (long long)c->rank, (long long)(c->size - 1));
    if (c->sum_f32 == NULL || c->sum_f64 == NULL || c->broadcast == NULL)
        return pf_fail(PREFOPT_ERR_ARGUMENT, "collective: %s is NULL",
                       c->sum_f32 == NULL   ? "sum_f32"
                       : c->sum_f64 == NULL ? "sum_f64"
                                            : "broadcast");
    return PREFOPT_OK;
}

int32_t pf_ranks_init(pf_ranks *ranks, prefopt_context *context)
{
    int64_t size = ranks->calls.size, n;
    if (pf_ranks_alone(ranks))
        return PREFOPT_OK;
    if (!pf_add(size, TALLY, &n))
        return pf_fail(PREFOPT_ERR_MEMORY, "a size overflows: %lld ranks", (long long)size);
    ranks->numbers = pf_alloc(context, n, sizeof *ranks->numbers);
    return ranks->numbers != NULL ? PREFOPT_OK : PREFOPT_ERR_MEMORY;
}

void pf_ranks_clear(pf_ranks *ranks, prefopt_context *context)
{
    pf_free(context, ranks->numbers);
    ranks->numbers = NULL;
}

int32_t pf_ranks_check(const prefopt_trainer *trainer)
{
    if (pf_ranks_alone(&trainer->ranks) || (!trainer->coupled && trainer->options.score_ridge == 0))
        return PREFOPT_OK;
    return pf_fail(PREFOPT_ERR_UNSUPPORTED,
                   "%s: collective has %lld ranks, but the loss is no mean over rows",
                   trainer->objective->name, (long long)trainer->ranks.calls.size);
}

int32_t pf_ranks_lay_out(prefopt_trainer *trainer)
{
    pf_ranks *ranks = &trainer->ranks;
    if (pf_ranks_alone(&trainer->ranks) || trainer->rows == NULL)
        return PREFOPT_OK;
    int64_t capacity = (trainer->batches.batch - 1) / ranks->calls.size + 1;
    return pf_parts_init(&ranks->part, trainer->context, trainer->rows, capacity);
}

/* ---- the callbacks */

/* Nothing can be agreed on any more. */
static int32_t failed(pf_ranks *ranks, const char *call, int64_t n, const char *unit,
                      int32_t status)
{
    ranks->agreed = true;
    return pf_fail(PREFOPT_ERR_CALLBACK,
                   "collective: %s of %lld %s on rank %lld of %lld returned %d", call, (long long)n,
                   unit, (long long)ranks->calls.rank, (long long)ranks->calls.size, status);
}

int32_t pf_ranks_sum(pf_ranks *ranks, double *values, int64_t n)
{
    const prefopt_collective *c = &ranks->calls;
    int32_t status = c->sum_f64(c->payload, values, n);
    return status == PREFOPT_OK ? PREFOPT_OK : failed(ranks, "sum_f64", n, "numbers", status);
}

static int32_t sum_f32(pf_ranks *ranks, float *values, int64_t n)
{
    const prefopt_collective *c = &ranks->calls;
    int32_t status = c->sum_f32(c->payload, values, n);
    return status == PREFOPT_OK ? PREFOPT_OK : failed(ranks, "sum_f32", n, "numbers", status);
}

int32_t pf_ranks_broadcast(pf_ranks *ranks, void *bytes, int64_t n, int64_t root)
{
    const prefopt_collective *c = &ranks->calls;
    int32_t status = c->broadcast(c->payload, bytes, n, root);
    return status == PREFOPT_OK ? PREFOPT_OK : failed(ranks, "broadcast", n, "bytes", status);
}

/* ---- statuses */

/* What the ranks' statuses in ranks->numbers make together; the text of a failure is that of the
 * first rank that failed. */
static int32_t verdict(pf_ranks *ranks)
{
    const prefopt_collective *c = &ranks->calls;
    const double *status = ranks->numbers;
    int64_t first = 0;
    bool stopped = false;
    for (int64_t r = 0; r < c->size; r++)
        stopped |= status[r] > 0;
    while (first < c->size && !(status[first] < 0))
        first++;
    ranks->agreed = stopped || first < c->size;
    if (first == c->size)
        return stopped ? PREFOPT_STOPPED : PREFOPT_OK;
    char text[TEXT] = {0};
    if (first == c->rank)
        snprintf(text, sizeof text, "%s", prefopt_last_error());
    PF_TRY(pf_ranks_broadcast(ranks, text, TEXT, first));
    text[TEXT - 1] = '\0';
    return pf_fail((int32_t)status[first], "rank %lld of %lld: %s", (long long)first,
                   (long long)c->size, text);
}

/* Statuses, and tallies (NULL: none), which become their sum. */
int32_t pf_ranks_exchange(pf_ranks *ranks, int32_t status, pf_tally *tally)
{
    int64_t size = ranks->calls.size, n = size + (tally != NULL ? TALLY : 0);
    memset(ranks->numbers, 0, (size_t)n * sizeof *ranks->numbers);
    ranks->numbers[ranks->calls.rank] = status;
    if (tally != NULL && status == PREFOPT_OK)
        memcpy(ranks->numbers + size, tally, sizeof *tally);
    PF_TRY(pf_ranks_sum(ranks, ranks->numbers, n));
    if (tally != NULL)
        memcpy(tally, ranks->numbers + size, sizeof *tally);
    return verdict(ranks);
}

int32_t pf_ranks_agree(pf_ranks *ranks, int32_t status)
{
    if (pf_ranks_alone(ranks) || ranks->agreed)
        return status;
    return pf_ranks_exchange(ranks, status, NULL);
}

/* The others are on their way to an exchange of statuses. */
int32_t pf_ranks_refuse(const prefopt_train_options *options, prefopt_context *context,
                        int32_t status)
{
    prefopt_train_options own;
    pf_ranks ranks = {.numbers = NULL};
    char text[TEXT];
    snprintf(text, sizeof text, "%s", prefopt_last_error());
    bool others = options != NULL &&
                  pf_struct_read(&own, sizeof own, sizeof own, options, "prefopt_train_options") ==
                      PREFOPT_OK &&
                  pf_ranks_read(&ranks, own.collective) == PREFOPT_OK && !pf_ranks_alone(&ranks) &&
                  pf_ranks_init(&ranks, context) == PREFOPT_OK;
    status = pf_fail(status, "%s", text);
    if (others)
        status = pf_ranks_exchange(&ranks, status, NULL);
    pf_ranks_clear(&ranks, context);
    return status;
}

/* ---- the gradient */

void pf_ranks_part(const pf_ranks *ranks, int64_t rank, int64_t n, int64_t *first, int64_t *count)
{
    int64_t size = ranks->calls.size, each = n / size, rest = n % size;
    *first = each * rank + (rank < rest ? rank : rest);
    *count = each + (rank < rest);
}

/* Makes trainer->batch this rank's part of `whole`. */
static void take_part(prefopt_trainer *trainer, const pf_batch *whole)
{
    pf_ranks *ranks = &trainer->ranks;
    int64_t first, n;
    pf_ranks_part(ranks, ranks->calls.rank, whole->n, &first, &n);
    for (int64_t k = 0; k < n; k++)
        ranks->part.rows[k] = pf_batch_row(whole, first + k);
    pf_gather_rows(&ranks->part.gather, ranks->part.rows, n, &trainer->batch);
}

/* Makes trainer->batch and share this rank's part of the whole batch, for a while. */
static void begin_part(prefopt_trainer *trainer, pf_batch *whole)
{
    *whole = trainer->batch;
    double total = pf_batch_weight(trainer->rows, whole);
    take_part(trainer, whole);
    double own = pf_batch_weight(trainer->rows, &trainer->batch);
    trainer->share = total > 0 ? own / total : 0;
}

static void end_part(prefopt_trainer *trainer, const pf_batch *whole)
{
    trainer->batch = *whole;
    trainer->share = 1;
}

/* The gradient of this rank's part in its share of the whole, and its tally. */
static int32_t part_gradient(prefopt_trainer *trainer, prefopt_progress *stats, pf_tally *tally)
{
    pf_batch whole;
    int32_t status;
    begin_part(trainer, &whole);
    if (trainer->batch.n == 0) {
        status = pf_trainer_begin_gradient(trainer);
    } else {
        status = pf_trainer_gradient(trainer, stats);
        if (status == PREFOPT_OK)
            pf_tally_add(tally, trainer, trainer->share, stats);
    }
    end_part(trainer, &whole);
    return status;
}

int32_t pf_ranks_gradient(prefopt_trainer *trainer, prefopt_progress *stats)
{
    pf_tally tally = {.counted = 0};
    int32_t status = part_gradient(trainer, stats, &tally);
    PF_TRY(pf_ranks_exchange(&trainer->ranks, status, &tally));
    pf_tally_write(&tally, trainer, stats);
    const pf_slot *slot = &trainer->optimiser.slots[0];
    return slot->dtype == PREFOPT_F32 ? sum_f32(&trainer->ranks, slot->grad, slot->n)
                                      : pf_ranks_sum(&trainer->ranks, slot->grad, slot->n);
}

int32_t pf_ranks_evaluate(pf_ranks *ranks, prefopt_trainer *held_out, int32_t status,
                          prefopt_progress *stats)
{
    pf_tally tally = {.counted = 0};
    pf_batch whole;
    begin_part(held_out, &whole);
    if (status == PREFOPT_OK && held_out->batch.n > 0) {
        prefopt_progress part;
        pf_progress_clear(&part);
        held_out->counted = pf_batch_weight(held_out->rows, &held_out->batch);
        status = held_out->objective->evaluate(held_out, false, &part);
        if (status == PREFOPT_OK)
            pf_tally_add(&tally, held_out, held_out->share, &part);
    }
    end_part(held_out, &whole);
    PF_TRY(pf_ranks_exchange(ranks, status, &tally));
    pf_tally_write(&tally, held_out, stats);
    return PREFOPT_OK;
}

int32_t pf_ranks_blame(prefopt_trainer *trainer, double norm)
{
    if (pf_ranks_alone(&trainer->ranks))
        return pf_trainer_name_gradient(trainer, norm);
    prefopt_progress stats;
    pf_tally tally = {.counted = 0};
    pf_batch whole;
    pf_progress_clear(&stats);
    int32_t own = part_gradient(trainer, &stats, &tally);
    double part = own == PREFOPT_OK ? pf_optimiser_grad_norm(&trainer->optimiser) : 0;
    if (own == PREFOPT_OK && !isfinite(part)) {
        begin_part(trainer, &whole);
        own = pf_trainer_name_gradient(trainer, part);
        end_part(trainer, &whole);
    }
    PF_TRY(pf_ranks_exchange(&trainer->ranks, own, NULL));
    return pf_fail(PREFOPT_ERR_NUMERIC, "the norm of the gradient is %g", norm);
}
