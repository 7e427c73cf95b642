/* The step loop: batch, gradient, optimiser, progress. */
#define _POSIX_C_SOURCE 200809L
#include <math.h>
#include <time.h>

#include "train/pf_evaluation.h"

double pf_now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* The step's gradient is finite and so are the parameters after it, or nothing has changed. */
static int32_t optimise(prefopt_trainer *trainer, prefopt_progress *stats)
{
    const prefopt_train_options *o = &trainer->options;
    stats->grad_norm = pf_optimiser_grad_norm(&trainer->optimiser);
    stats->learning_rate = pf_learning_rate(o, trainer->step);
    if (!isfinite(stats->grad_norm))
        return pf_ranks_blame(trainer, stats->grad_norm);
    double scale = 1;
    if (o->clip_norm > 0 && stats->grad_norm > o->clip_norm)
        scale = o->clip_norm / stats->grad_norm;
    if (!pf_optimiser_step(&trainer->optimiser, stats->learning_rate, scale))
        return pf_fail(PREFOPT_ERR_NUMERIC, "a parameter would not be finite after the step");
    if (trainer->has_extra && trainer->extra < trainer->extra_low)
        trainer->extra = trainer->extra_low;
    return pf_trained_updated(&trainer->model);
}

static int32_t take_step(prefopt_trainer *trainer, prefopt_progress *stats)
{
    if (trainer->objective->begin != NULL)
        PF_TRY(trainer->objective->begin(trainer));
    else
        pf_batches_take(&trainer->batches, trainer->step, &trainer->batch);
    PF_TRY(pf_trainer_evaluate(trainer, true, stats));
    if (!trainer->no_step)
        PF_TRY(optimise(trainer, stats));
    trainer->step++;
    return PREFOPT_OK;
}

int32_t prefopt_trainer_step(const prefopt_trainer *trainer, int64_t *step)
{
    PF_REQUIRE(trainer);
    PF_REQUIRE(step);
    *step = trainer->step;
    return PREFOPT_OK;
}

/* One call of run. */
typedef struct {
    prefopt_trainer *trainer;
    int64_t n_steps, done;
    double start, in_steps;
    prefopt_progress stats; /* of the last step that was taken */
} run_state;

/* Puts objective and step before an error's text. */
static int32_t failed(const run_state *run, int32_t status, bool after_step)
{
    const prefopt_trainer *trainer = run->trainer;
    if (status >= 0)
        return status;
    int64_t ahead = after_step ? 0 : 1;
    return pf_fail_in(status, "%s: %sstep %lld of %lld (%lld since the trainer was made)",
                      trainer->objective->name, after_step ? "after " : "",
                      (long long)(run->done + ahead), (long long)run->n_steps,
                      (long long)(trainer->step + ahead));
}

static void tell_seconds(const run_state *run, prefopt_progress *stats)
{
    const prefopt_trainer *trainer = run->trainer;
    if (trainer->objective->sampled) {
        stats->seconds_sampling = trainer->seconds_sampling;
        stats->seconds_scoring = trainer->seconds_scoring;
    }
    stats->seconds_training = run->in_steps - trainer->seconds_sampling - trainer->seconds_scoring;
}

static void describe(run_state *run)
{
    prefopt_progress *stats = &run->stats;
    double seconds = pf_now() - run->start, done = (double)run->done;
    stats->step = run->done;
    stats->n_steps = run->n_steps;
    if (run->done > 0) {
        stats->steps_per_second = seconds > 0 ? done / seconds : NAN;
        stats->seconds_left = seconds * (double)(run->n_steps - run->done) / done;
    }
    tell_seconds(run, stats);
    pf_evaluation_tell(run->trainer, stats);
}

/* A rank that has failed at the end of the step is not here to evaluate: it waits for the statuses.
 */
static int32_t evaluate(prefopt_trainer *trainer)
{
    PF_TRY(pf_ranks_agree(&trainer->ranks, PREFOPT_OK));
    return pf_evaluation_take(trainer);
}

/* Evaluates where that is due and calls the callback: STOPPED when that or patience says so, on any
 * rank. */
static int32_t look(run_state *run)
{
    const prefopt_train_options *o = &run->trainer->options;
    bool last = run->done == run->n_steps;
    bool evaluates = pf_evaluation_due(run->trainer, run->n_steps == 0);
    int32_t status = evaluates ? evaluate(run->trainer) : PREFOPT_OK;
    describe(run);
    bool due = evaluates || (run->done > 0 && (run->done % o->progress_every == 0 || last));
    if (status == PREFOPT_OK && o->progress != NULL && due &&
        o->progress(o->progress_payload, &run->stats) != 0)
        status = PREFOPT_STOPPED;
    if (status == PREFOPT_OK && pf_evaluation_ended(run->trainer))
        status = PREFOPT_STOPPED;
    return failed(run, pf_ranks_agree(&run->trainer->ranks, status), true);
}

static int32_t steps(run_state *run)
{
    int32_t status = look(run);
    while (status == PREFOPT_OK && run->done < run->n_steps) {
        double begun = pf_now();
        status = take_step(run->trainer, &run->stats);
        run->in_steps += pf_now() - begun;
        if (status != PREFOPT_OK) {
            describe(run);
            /* STOPPED: a callback of the model's. */
            return failed(run, pf_ranks_agree(&run->trainer->ranks, status), false);
        }
        run->done++;
        status = look(run);
    }
    return status;
}

static int32_t check_arguments(int64_t n_steps, const prefopt_progress *last)
{
    if (n_steps < 0)
        return pf_fail(PREFOPT_ERR_ARGUMENT, "n_steps is %lld, expected at least 0",
                       (long long)n_steps);
    return last == NULL ? PREFOPT_OK : pf_struct_check_out(last, sizeof *last, "prefopt_progress");
}

int32_t prefopt_trainer_run(prefopt_trainer *trainer, int64_t n_steps, prefopt_progress *last)
{
    PF_REQUIRE(trainer);
    trainer->seconds_sampling = trainer->seconds_scoring = 0;
    run_state run = {.trainer = trainer, .n_steps = n_steps, .start = pf_now()};
    pf_progress_clear(&run.stats);
    int32_t status = pf_ranks_begin(trainer, n_steps, check_arguments(n_steps, last));
    if (status < 0)
        return pf_fail_in(status, "%s", trainer->objective->name);
    if (status == PREFOPT_OK)
        status = steps(&run);
    if (status >= 0 && last != NULL)
        pf_struct_write(last, &run.stats, sizeof run.stats);
    return status;
}
