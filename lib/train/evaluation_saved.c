/* An evaluation in a checkpoint: what was measured, how long patience has waited, the best
 * parameters. */
#include "train/pf_evaluation.h"
#include "train/pf_saved.h"

void pf_evaluation_describe(const prefopt_trainer *trainer, pf_describe *to)
{
    static const pf_field fields[] = {PF_FIELD(prefopt_evaluation_options, keep_best),
                                      PF_FIELD(prefopt_evaluation_options, every),
                                      PF_FIELD(prefopt_evaluation_options, patience),
                                      PF_FIELD(prefopt_evaluation_options, min_delta)};
    _Static_assert(sizeof(prefopt_evaluation_options) == 32,
                   "prefopt_evaluation_options has changed: does a saved run depend on it?");
    const pf_evaluation *e = trainer->evaluation;
    if (e == NULL)
        return;
    uint64_t hash = e->held_out->data_hash;
    to->prefix = "evaluation";
    pf_describe_fields(to, fields, sizeof fields / sizeof *fields, &e->options);
    pf_describe_i64(to, "rows", e->held_out->rows->n);
    pf_describe_bytes(to, "data", &hash, (int64_t)sizeof hash);
    /* Its loss, and the reference's numbers, which need not be those of training. */
    if (e->held_out->objective->describe != NULL)
        e->held_out->objective->describe(e->held_out, to);
}

/* All numbers: for each, its name and place. */
static const struct {
    const char *name;
    size_t offset;
} counts[] = {{"step", offsetof(pf_evaluation, step)},
              {"best_step", offsetof(pf_evaluation, best_step)},
              {"waited", offsetof(pf_evaluation, waited)},
              {"stale", offsetof(pf_evaluation, stale)}},
  numbers[] = {{"loss", offsetof(pf_evaluation, now.loss)},
               {"accuracy", offsetof(pf_evaluation, now.accuracy)},
               {"margin", offsetof(pf_evaluation, now.margin)},
               {"best_loss", offsetof(pf_evaluation, best.loss)},
               {"best_accuracy", offsetof(pf_evaluation, best.accuracy)},
               {"best_margin", offsetof(pf_evaluation, best.margin)},
               {"best_extra", offsetof(pf_evaluation, best_extra)},
               {"awaited", offsetof(pf_evaluation, awaited)}};
enum { N_COUNTS = sizeof counts / sizeof *counts, N_NUMBERS = sizeof numbers / sizeof *numbers };

int32_t pf_evaluation_save(const prefopt_trainer *trainer, pf_save *to)
{
    const pf_evaluation *e = trainer->evaluation;
    if (e == NULL)
        return PREFOPT_OK;
    to->prefix = "evaluation";
    for (int32_t i = 0; i < N_COUNTS; i++)
        PF_TRY(pf_save_i64(to, counts[i].name,
                           *(const int64_t *)((const char *)e + counts[i].offset)));
    for (int32_t i = 0; i < N_NUMBERS; i++)
        PF_TRY(pf_save_f64(to, numbers[i].name,
                           *(const double *)((const char *)e + numbers[i].offset)));
    const pf_slot *slot = &trainer->optimiser.slots[0];
    if (e->best_value == NULL || e->best_step < 0)
        return PREFOPT_OK;
    return pf_save_array(to, "best", slot->dtype, slot->n, e->best_value);
}

int32_t pf_evaluation_read(const prefopt_trainer *trainer, pf_saved *from, pf_evaluation *read,
                           const void **best)
{
    *best = NULL;
    if (trainer->evaluation == NULL)
        return PREFOPT_OK;
    from->prefix = "evaluation";
    *read = *trainer->evaluation;
    for (int32_t i = 0; i < N_COUNTS; i++)
        PF_TRY(pf_saved_i64(from, counts[i].name, (int64_t *)((char *)read + counts[i].offset)));
    for (int32_t i = 0; i < N_NUMBERS; i++)
        PF_TRY(pf_saved_f64(from, numbers[i].name, (double *)((char *)read + numbers[i].offset)));
    if (read->step < -1 || read->best_step < -1 || (read->step < 0) != (read->best_step < 0) ||
        read->waited < 0)
        return pf_fail(PREFOPT_ERR_FORMAT,
                       "%s: evaluation.step, best_step and waited are %lld, %lld and %lld, which "
                       "do not go together",
                       pf_show_path(from->trainer_path), (long long)read->step,
                       (long long)read->best_step, (long long)read->waited);
    const pf_slot *slot = &trainer->optimiser.slots[0];
    if (read->best_value == NULL || read->best_step < 0)
        return PREFOPT_OK;
    return pf_saved_bytes(from, "best", slot->dtype, slot->n, best);
}

void pf_evaluation_adopt(prefopt_trainer *trainer, const pf_evaluation *read, const void *best)
{
    const pf_slot *slot = &trainer->optimiser.slots[0];
    if (trainer->evaluation == NULL)
        return;
    *trainer->evaluation = *read;
    if (best != NULL && slot->n > 0)
        memcpy(read->best_value, best, (size_t)(slot->n * pf_dtype_size(slot->dtype)));
}
