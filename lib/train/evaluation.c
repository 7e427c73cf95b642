/* Held-out data: its loss while training goes on, the best parameters, the end of patience.
 *
 * The held-out trainer is a trainer of the same objective on the held-out rows that has no
 * optimiser: its loss is the training loss, without ridges. Each distinct sequence is scored once;
 * models cut the scoring themselves where they have a byte budget. */
#include <math.h>

#include "train/pf_evaluation.h"

static const prefopt_evaluation_options defaults = {
    .struct_size = sizeof(prefopt_evaluation_options), .keep_best = 1, .every = 100};

int32_t prefopt_evaluation_options_init(prefopt_evaluation_options *options, uint32_t struct_size)
{
    return pf_struct_init(options, struct_size, &defaults, sizeof defaults, sizeof defaults,
                          "prefopt_evaluation_options");
}

static int32_t read_options(prefopt_evaluation_options *own,
                            const prefopt_evaluation_options *options)
{
    *own = defaults;
    if (options == NULL)
        return PREFOPT_OK;
    PF_TRY(pf_struct_read(own, sizeof *own, sizeof *own, options, "prefopt_evaluation_options"));
    if (own->keep_best != 0 && own->keep_best != 1)
        return pf_fail(PREFOPT_ERR_ARGUMENT, "keep_best is %d, expected 0 or 1", own->keep_best);
    if (own->every < 1)
        return pf_fail(PREFOPT_ERR_ARGUMENT, "every is %lld, expected at least 1",
                       (long long)own->every);
    if (own->patience < 0)
        return pf_fail(PREFOPT_ERR_ARGUMENT, "patience is %lld, expected at least 0",
                       (long long)own->patience);
    if (!(own->min_delta >= 0 && isfinite(own->min_delta)))
        return pf_fail(PREFOPT_ERR_ARGUMENT, "min_delta is %g, expected a finite number >= 0",
                       own->min_delta);
    if (own->min_delta > 0 && own->patience == 0)
        return pf_fail(PREFOPT_ERR_ARGUMENT, "min_delta is %g, but patience is 0", own->min_delta);
    return PREFOPT_OK;
}

/* ---------------------------------------------------------------- made and set */

void pf_evaluation_destroy(pf_evaluation *e)
{
    if (e == NULL)
        return;
    prefopt_context *context = e->context;
    prefopt_trainer_destroy(e->held_out);
    pf_free(context, e->best_value);
    pf_free(context, e);
}

static int32_t check_kinds(const prefopt_trainer *trainer, const prefopt_dataset *held_out)
{
    prefopt_columns columns = {.struct_size = sizeof columns};
    PF_TRY(prefopt_dataset_columns(held_out, &columns));
    int32_t kind = trainer->rows != NULL ? trainer->rows->kind[0] : PREFOPT_ROW_PAIR;
    return pf_kinds_require(columns.kind, columns.n_rows, trainer->objective->name, kind);
}

static size_t number_size(const pf_slot *slot)
{
    return slot->dtype == PREFOPT_F32 ? sizeof(float) : sizeof(double);
}

static int32_t fill(pf_evaluation *e, const prefopt_trainer *trainer,
                    const prefopt_dataset *held_out, const prefopt_reference *reference)
{
    const pf_slot *slot = &trainer->optimiser.slots[0];
    PF_TRY(check_kinds(trainer, held_out));
    PF_TRY(trainer->objective->held_out(&e->held_out, trainer, reference, held_out));
    if (e->options.keep_best == 0)
        return PREFOPT_OK;
    e->best_value = pf_alloc(e->context, slot->n, number_size(slot));
    return e->best_value == NULL ? PREFOPT_ERR_MEMORY : PREFOPT_OK;
}

static int32_t make(pf_evaluation **out, prefopt_trainer *trainer, const prefopt_dataset *held_out,
                    const prefopt_reference *reference, const prefopt_evaluation_options *options)
{
    prefopt_evaluation_options own;
    PF_TRY(read_options(&own, options));
    if (trainer->objective->held_out == NULL)
        return pf_fail(PREFOPT_ERR_UNSUPPORTED, "%s has no loss of held-out data",
                       trainer->objective->name);
    pf_evaluation *e = pf_calloc(trainer->context, 1, sizeof *e);
    if (e == NULL)
        return PREFOPT_ERR_MEMORY;
    pf_measured none = {.loss = NAN, .accuracy = NAN, .margin = NAN};
    *e = (pf_evaluation){.context = trainer->context,
                         .options = own,
                         .now = none,
                         .step = -1,
                         .best = none,
                         .best_step = -1};
    *out = e;
    int32_t status = fill(e, trainer, held_out, reference);
    trainer->ranks.agreed = e->held_out != NULL && e->held_out->ranks.agreed;
    return status < 0 ? pf_fail_in(status, "held_out") : status;
}

int32_t prefopt_trainer_set_evaluation(prefopt_trainer *trainer, const prefopt_dataset *held_out,
                                       const prefopt_reference *reference,
                                       const prefopt_evaluation_options *options)
{
    PF_REQUIRE(trainer);
    PF_REQUIRE(held_out);
    pf_evaluation *e = NULL;
    trainer->ranks.agreed = false;
    int32_t status = make(&e, trainer, held_out, reference, options);
    status = pf_ranks_agree(&trainer->ranks, status);
    if (status != PREFOPT_OK) {
        pf_evaluation_destroy(e);
        return status;
    }
    pf_evaluation_destroy(trainer->evaluation);
    trainer->evaluation = e;
    return PREFOPT_OK;
}

/* ---------------------------------------------------------------- while training goes on */

bool pf_evaluation_due(const prefopt_trainer *trainer, bool asked)
{
    const pf_evaluation *e = trainer->evaluation;
    if (e == NULL)
        return false;
    if (e->step == trainer->step)
        return asked && e->stale != 0;
    return e->step < 0 || asked || trainer->step % e->options.every == 0;
}

void pf_evaluation_outdate(prefopt_trainer *trainer)
{
    if (trainer->evaluation != NULL)
        trainer->evaluation->stale = 1;
}

bool pf_evaluation_ended(const prefopt_trainer *trainer)
{
    const pf_evaluation *e = trainer->evaluation;
    return e != NULL && e->options.patience > 0 && e->waited >= e->options.patience;
}

/* On all ranks, or on none: a status that is not PREFOPT_OK is a failure of all. */
static int32_t measure(pf_evaluation *e, prefopt_trainer *trainer, int32_t status, pf_measured *out)
{
    prefopt_trainer *held_out = e->held_out;
    prefopt_progress stats;
    pf_progress_clear(&stats);
    held_out->extra = trainer->extra;
    pf_batches_all(&held_out->batches, &held_out->batch);
    if (!pf_ranks_alone(&trainer->ranks))
        status = pf_ranks_evaluate(&trainer->ranks, held_out, status, &stats);
    else if (status == PREFOPT_OK)
        status = held_out->objective->evaluate(held_out, false, &stats);
    PF_TRY(status);
    if (!isfinite(stats.loss))
        return pf_fail(PREFOPT_ERR_NUMERIC, "the loss is %g", stats.loss);
    *out = (pf_measured){.loss = stats.loss, .accuracy = stats.accuracy, .margin = stats.margin};
    return PREFOPT_OK;
}

/* The parameters and where they lie now: snapshots may have moved them. */
static int32_t parameters_of(const prefopt_trainer *trainer, prefopt_parameters *out)
{
    const pf_slot *slot = &trainer->optimiser.slots[0];
    *out = (prefopt_parameters){.struct_size = sizeof *out};
    PF_TRY(pf_trained_parameters(&trainer->model, out));
    if (out->n == slot->n && out->dtype == slot->dtype)
        return PREFOPT_OK;
    return pf_fail(PREFOPT_ERR_CALLBACK,
                   "the model has %lld parameters of dtype %d now, but had %lld of dtype %d",
                   (long long)out->n, out->dtype, (long long)slot->n, slot->dtype);
}

/* Patience looks at the first evaluation and at those that are due by the step's number, not at
 * those which were asked for: when it ends does not depend on how runs are cut. */
int32_t pf_evaluation_take(prefopt_trainer *trainer)
{
    pf_evaluation *e = trainer->evaluation;
    pf_measured now;
    prefopt_parameters parameters;
    const pf_slot *slot = &trainer->optimiser.slots[0];
    bool first = e->step < 0;
    int32_t status = e->best_value != NULL ? parameters_of(trainer, &parameters) : PREFOPT_OK;
    status = measure(e, trainer, status, &now);
    if (status != PREFOPT_OK)
        return status < 0 ? pf_fail_in(status, "held_out") : status;
    if (first || now.loss < e->best.loss) {
        if (e->best_value != NULL) {
            memcpy(e->best_value, parameters.value, (size_t)slot->n * number_size(slot));
            e->best_extra = trainer->extra;
        }
        e->best = now;
        e->best_step = trainer->step;
    }
    bool counts = first || (e->step != trainer->step && trainer->step % e->options.every == 0);
    if (first || (counts && now.loss < e->awaited - e->options.min_delta)) {
        e->awaited = now.loss;
        e->waited = 0;
    } else if (counts) {
        e->waited++;
    }
    e->now = now;
    e->step = trainer->step;
    e->stale = 0;
    return PREFOPT_OK;
}

void pf_evaluation_tell(const prefopt_trainer *trainer, prefopt_progress *stats)
{
    const pf_evaluation *e = trainer->evaluation;
    if (e == NULL)
        return;
    stats->eval_loss = e->now.loss;
    stats->eval_accuracy = e->now.accuracy;
    stats->eval_margin = e->now.margin;
    stats->best_eval_loss = e->best.loss;
    stats->eval_step = e->step;
    stats->best_step = e->best_step;
    stats->stopped_early = pf_evaluation_ended(trainer);
}

int32_t prefopt_trainer_restore_best(prefopt_trainer *trainer)
{
    PF_REQUIRE(trainer);
    pf_evaluation *e = trainer->evaluation;
    if (e == NULL)
        return pf_fail(PREFOPT_ERR_STATE, "%s: no evaluation is set", trainer->objective->name);
    if (e->options.keep_best == 0)
        return pf_fail(PREFOPT_ERR_STATE, "%s: keep_best is 0: no parameters were kept",
                       trainer->objective->name);
    if (e->best_step < 0)
        return pf_fail(PREFOPT_ERR_STATE, "%s: nothing has been evaluated yet: run does it",
                       trainer->objective->name);
    const pf_slot *slot = &trainer->optimiser.slots[0];
    prefopt_parameters parameters;
    PF_TRY(parameters_of(trainer, &parameters));
    memcpy(parameters.value, e->best_value, (size_t)slot->n * number_size(slot));
    trainer->extra = e->best_extra;
    e->now = e->best; /* known without a look: it depends on the parameters alone */
    e->step = trainer->step;
    e->stale = 0;
    return pf_trained_updated(&trainer->model);
}
