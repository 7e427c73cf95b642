/* Exact fits: the whole data, to a small norm of the gradient.
 *
 * Two phases take turns. Limited-memory BFGS (Nocedal 1980; liblbfgs) goes most of the way, but its
 * line search compares losses, and near the optimum their differences vanish in rounding while the
 * gradient is still about sqrt(eps). The finish (newton.c) therefore looks at gradients alone.
 * liblbfgs takes its work memory, about 45 numbers a parameter, from malloc, not from the context.
 *
 * Parameters that are not finite (logits of -infinity) are held where they are. */
#include <limits.h>
#include <math.h>

#include "pf_config.h"
#include "train/pf_evaluation.h"
#include "train/pf_fit.h"

#if PF_HAVE_LBFGS
#include <lbfgs.h>

enum { CORRECTIONS = 20, PADDING = 16 };

static void write_parameters(pf_fit *fit, const double *x)
{
    double *value = fit->trainer->optimiser.slots[0].value;
    for (int64_t i = 0; i < fit->n_model; i++)
        value[fit->active[i]] = x[i];
    if (fit->n > fit->n_model)
        fit->trainer->extra = x[fit->n_model];
}

int32_t pf_fit_evaluate(pf_fit *fit, const double *x, double *loss, double *g)
{
    prefopt_trainer *trainer = fit->trainer;
    if (trainer->has_extra && !(x[fit->n_model] > trainer->extra_low))
        return pf_fail(PREFOPT_ERR_NUMERIC, "the tie parameter is %g", x[fit->n_model]);
    write_parameters(fit, x);
    PF_TRY(pf_trained_updated(&trainer->model));
    PF_TRY(pf_trainer_evaluate(trainer, true, &fit->stats));
    const double *grad = trainer->optimiser.slots[0].grad;
    for (int64_t i = 0; i < fit->n_model; i++)
        g[i] = grad[fit->active[i]];
    if (fit->n > fit->n_model)
        g[fit->n_model] = trainer->extra_grad;
    double norm = pf_fit_norm(fit->n, g);
    if (!isfinite(norm))
        return pf_fail(PREFOPT_ERR_NUMERIC, "the norm of the gradient is %g", norm);
    *loss = fit->stats.loss;
    return PREFOPT_OK;
}

double pf_fit_norm(int64_t n, const double *g)
{
    double sum = 0;
    for (int64_t i = 0; i < n; i++)
        sum += g[i] * g[i];
    return sqrt(sum);
}

bool pf_fit_report(pf_fit *fit, double norm)
{
    const prefopt_train_options *o = &fit->trainer->options;
    fit->iterations++;
    fit->stats.grad_norm = norm;
    if (o->progress == NULL || fit->iterations % o->progress_every != 0)
        return true;
    prefopt_progress stats = fit->stats;
    stats.step = fit->iterations;
    stats.n_steps = o->max_iterations;
    if (o->progress(o->progress_payload, &stats) != 0)
        fit->status = PREFOPT_STOPPED;
    return fit->status == PREFOPT_OK;
}

/* Losses that are not finite are walls to the line search; other failures end the fit. */
static double on_evaluate(void *payload, const double *x, double *g, int n, double step)
{
    (void)n, (void)step;
    pf_fit *fit = payload;
    double loss = INFINITY;
    if (fit->status == PREFOPT_OK) {
        int32_t status = pf_fit_evaluate(fit, x, &loss, g);
        if (status != PREFOPT_OK && status != PREFOPT_ERR_NUMERIC)
            fit->status = status;
        if (status != PREFOPT_OK)
            loss = INFINITY;
    }
    if (!(loss < INFINITY))
        memset(g, 0, (size_t)fit->n * sizeof *g);
    return loss;
}

static int on_progress(void *payload, const double *x, const double *g, const double fx,
                       const double xnorm, const double gnorm, const double step, int n, int k,
                       int ls)
{
    (void)x, (void)g, (void)fx, (void)xnorm, (void)step, (void)n, (void)k, (void)ls;
    pf_fit *fit = payload;
    bool go_on = pf_fit_report(fit, gnorm);
    const prefopt_train_options *o = &fit->trainer->options;
    return !go_on || gnorm <= o->tolerance || fit->iterations >= o->max_iterations;
}

static int32_t quasi_newton(pf_fit *fit)
{
    lbfgs_parameter_t parameters;
    lbfgs_parameter_init(&parameters);
    parameters.m = CORRECTIONS;
    parameters.epsilon = 0; /* relative to |x|, which means nothing here: on_progress decides */
    parameters.linesearch = LBFGS_LINESEARCH_BACKTRACKING_WOLFE;
    int code = lbfgs((int)fit->n, fit->x, NULL, on_evaluate, on_progress, fit, &parameters);
    if (code == LBFGSERR_OUTOFMEMORY)
        return pf_fail(PREFOPT_ERR_MEMORY, "no memory for L-BFGS over %lld parameters",
                       (long long)fit->n);
    return fit->status;
}

/* Turns of both phases until the tolerance is met, or a turn brings the gradient down by less than
 * half. The finish has the last word even when L-BFGS has met the tolerance: where curvature is
 * small (many items, a small beta) a gradient of 1e-10 is still far from the optimum, and the step
 * that Newton takes from there costs little and ends at rounding. */
static int32_t minimise(pf_fit *fit)
{
    const prefopt_train_options *o = &fit->trainer->options;
    double loss, norm, before;
    PF_TRY(pf_fit_evaluate(fit, fit->x, &loss, fit->g));
    norm = pf_fit_norm(fit->n, fit->g);
    do {
        before = norm;
        if (norm > o->tolerance && fit->iterations < o->max_iterations)
            PF_TRY(quasi_newton(fit));
        PF_TRY(pf_fit_evaluate(fit, fit->x, &loss, fit->g));
        norm = pf_fit_norm(fit->n, fit->g);
        if (fit->iterations < o->max_iterations)
            PF_TRY(pf_fit_newton(fit, &norm));
    } while (norm > o->tolerance && fit->iterations < o->max_iterations && norm < 0.5 * before);
    PF_TRY(pf_fit_evaluate(fit, fit->x, &loss, fit->g));
    fit->stats.grad_norm = norm;
    if (norm <= o->tolerance)
        return PREFOPT_OK;
    return pf_fail(PREFOPT_ERR_NUMERIC,
                   "the norm of the gradient is %g after %lld iterations (max_iterations %lld), "
                   "expected at most tolerance %g",
                   norm, (long long)fit->iterations, (long long)o->max_iterations, o->tolerance);
}

static int32_t allocate(pf_fit *fit)
{
    prefopt_trainer *trainer = fit->trainer;
    const pf_slot *slot = &trainer->optimiser.slots[0];
    fit->active = pf_alloc(trainer->context, slot->n, sizeof *fit->active);
    if (fit->active == NULL)
        return PREFOPT_ERR_MEMORY;
    const double *value = slot->value;
    for (int64_t i = 0; i < slot->n; i++)
        if (isfinite(value[i]))
            fit->active[fit->n_model++] = i;
    fit->n = fit->n_model + trainer->has_extra;
    if (fit->n > INT_MAX - PADDING)
        return pf_fail(PREFOPT_ERR_UNSUPPORTED, "a fit of %lld parameters, at most %d can be",
                       (long long)fit->n, INT_MAX - PADDING);
    /* liblbfgs with SSE reads x up to a multiple of its vectors. */
    fit->stride = (fit->n + PADDING - 1) / PADDING * PADDING;
    fit->memory = pf_calloc(trainer->context, PF_FIT_VECTORS * fit->stride, sizeof *fit->memory);
    if (fit->memory == NULL)
        return PREFOPT_ERR_MEMORY;
    fit->x = fit->memory;
    fit->g = fit->memory + fit->stride;
    for (int64_t i = 0; i < fit->n_model; i++)
        fit->x[i] = value[fit->active[i]];
    if (trainer->has_extra)
        fit->x[fit->n_model] = trainer->extra;
    return PREFOPT_OK;
}

/* The optimum in closed form, where the objective knows it: its gradient is told, not asked for. */
static int32_t solve(pf_fit *fit, bool *solved)
{
    prefopt_trainer *trainer = fit->trainer;
    if (trainer->objective->solve == NULL)
        return PREFOPT_OK;
    PF_TRY(trainer->objective->solve(trainer, solved));
    if (!*solved)
        return PREFOPT_OK;
    PF_TRY(pf_trainer_evaluate(trainer, true, &fit->stats));
    fit->stats.grad_norm = pf_optimiser_grad_norm(&trainer->optimiser);
    return PREFOPT_OK;
}

static int32_t run_fit(pf_fit *fit)
{
    bool solved = false;
    PF_TRY(solve(fit, &solved));
    if (solved)
        return PREFOPT_OK;
    PF_TRY(allocate(fit));
    int32_t status = minimise(fit);
    /* Whatever happened: the last point that was accepted. */
    write_parameters(fit, fit->x);
    if (status == PREFOPT_OK || status == PREFOPT_STOPPED) {
        int32_t updated = pf_trained_updated(&fit->trainer->model);
        return updated == PREFOPT_OK ? status : updated;
    }
    char text[PF_FIT_TEXT];
    pf_fit_keep_text(text);
    pf_trained_updated(&fit->trainer->model);
    return pf_fail(status, "%s", text);
}
#endif

int32_t prefopt_trainer_fit(prefopt_trainer *trainer, prefopt_progress *result)
{
    PF_REQUIRE(trainer);
    if (result != NULL)
        PF_TRY(pf_struct_check_out(result, sizeof *result, "prefopt_progress"));
    const char *name = trainer->objective->name;
    if (trainer->objective->sampled)
        return pf_fail(PREFOPT_ERR_UNSUPPORTED,
                       "%s: its data are sampled at each step, so that no "
                       "exact fit exists; expected prefopt_trainer_run",
                       name);
    if (trainer->ranks.calls.size > 1)
        return pf_fail(PREFOPT_ERR_UNSUPPORTED,
                       "%s: collective has %lld ranks, but a fit is one process's; expected "
                       "prefopt_trainer_run",
                       name, (long long)trainer->ranks.calls.size);
    if (trainer->optimiser.slots[0].dtype != PREFOPT_F64)
        return pf_fail(PREFOPT_ERR_UNSUPPORTED,
                       "%s: a fit needs parameters in double precision, these are float; expected "
                       "prefopt_trainer_run",
                       name);
#if PF_HAVE_LBFGS
    pf_fit fit = {.trainer = trainer};
    pf_progress_clear(&fit.stats);
    pf_batches_all(&trainer->batches, &trainer->batch);
    int32_t status = PREFOPT_OK;
    if (trainer->objective->exists != NULL)
        status = trainer->objective->exists(trainer);
    if (status == PREFOPT_OK) {
        pf_evaluation_outdate(trainer);
        status = run_fit(&fit);
    }
    pf_free(trainer->context, fit.active);
    pf_free(trainer->context, fit.memory);
    if (status < 0)
        return pf_fail_in(status, "%s", name);
    fit.stats.step = fit.iterations;
    fit.stats.n_steps = trainer->options.max_iterations;
    if (result != NULL)
        pf_struct_write(result, &fit.stats, sizeof fit.stats);
    return status;
#else
    return pf_fail(PREFOPT_ERR_UNSUPPORTED,
                   "%s: this library was built without liblbfgs, which fits need", name);
#endif
}
