/* The step loop: batch, gradient, optimiser, progress. */
#define _POSIX_C_SOURCE 200809L
#include <math.h>
#include <time.h>

#include "train/pf_train.h"

static double now(void)
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
        return pf_fail(PREFOPT_ERR_NUMERIC, "the norm of the gradient is %g", stats->grad_norm);
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

int32_t prefopt_trainer_run(prefopt_trainer *trainer, int64_t n_steps, prefopt_progress *last)
{
    PF_REQUIRE(trainer);
    if (n_steps < 0)
        return pf_fail(PREFOPT_ERR_ARGUMENT, "n_steps is %lld, expected at least 0",
                       (long long)n_steps);
    if (last != NULL)
        PF_TRY(pf_struct_check_out(last, sizeof *last, "prefopt_progress"));
    const prefopt_train_options *o = &trainer->options;
    double start = now();
    prefopt_progress stats;
    pf_progress_clear(&stats);
    stats.n_steps = n_steps;
    int32_t status = PREFOPT_OK;
    for (int64_t s = 0; s < n_steps && status == PREFOPT_OK; s++) {
        status = take_step(trainer, &stats);
        if (status < 0)
            return pf_fail_in(status, "%s: step %lld of %lld (%lld since the trainer was made)",
                              trainer->objective->name, (long long)(s + 1), (long long)n_steps,
                              (long long)(trainer->step + 1));
        if (status != PREFOPT_OK) {
            stats.step = s;
            stats.n_steps = n_steps;
            break; /* a callback of the model asked to stop: the step was not taken */
        }
        double seconds = now() - start;
        stats.step = s + 1;
        stats.n_steps = n_steps;
        stats.steps_per_second = seconds > 0 ? (double)(s + 1) / seconds : NAN;
        stats.seconds_left = seconds * (double)(n_steps - s - 1) / (double)(s + 1);
        bool due = (s + 1) % o->progress_every == 0 || s + 1 == n_steps;
        if (o->progress != NULL && due && o->progress(o->progress_payload, &stats) != 0)
            status = PREFOPT_STOPPED;
    }
    if (last != NULL)
        pf_struct_write(last, &stats, sizeof stats);
    return status;
}
