/* prefopt_strengths: fits, and what is asked of a fit. The covariance is made when it is first
 * asked for: it costs n_items^3, far more than the fit. */
#include <math.h>
#include <pthread.h>

#include "math/pf_gemm.h"
#include "train/pf_strengths_check.h"

struct prefopt_strengths {
    prefopt_context *context;
    prefopt_strengths_options options;
    prefopt_strengths_summary summary;
    pf_likelihood *likelihood;
    double *x;     /* dim: strengths summing to 0, then the tie parameter */
    double *draws; /* BOOTSTRAP: [n_draws, dim] */
    int64_t n_draws;
    pthread_mutex_t mutex; /* guards covariance and the likelihood's second derivatives */
    double *covariance;    /* [dim, dim]; NULL until asked for, and with BOOTSTRAP */
};

static const prefopt_strengths_options defaults = {
    .struct_size = sizeof(prefopt_strengths_options),
    .reference = -1,
    .replicates = 200,
    .tolerance = 1e-10,
};

int32_t prefopt_strengths_options_init(prefopt_strengths_options *options, uint32_t struct_size)
{
    return pf_struct_init(options, struct_size, &defaults, sizeof defaults, sizeof defaults,
                          "prefopt_strengths_options");
}

void prefopt_strengths_destroy(prefopt_strengths *fit)
{
    if (fit == NULL)
        return;
    prefopt_context *context = fit->context;
    if (fit->likelihood != NULL)
        fit->likelihood->ops->destroy(fit->likelihood);
    pf_free(context, fit->x);
    pf_free(context, fit->draws);
    pf_free(context, fit->covariance);
    pthread_mutex_destroy(&fit->mutex);
    pf_free(context, fit);
    pf_context_release(context);
}

/* ---- the fit */

static int32_t check_exists(prefopt_strengths *fit)
{
    pf_likelihood *l = fit->likelihood;
    pf_win_graph graph;
    PF_TRY(pf_win_graph_create(&graph, fit->context, l->n_items, l->ops->max_edges(l)));
    graph.names = fit->options.item_names;
    double *scratch = pf_alloc(fit->context, l->n_items, sizeof *scratch);
    int32_t status = scratch == NULL
                         ? PREFOPT_ERR_MEMORY
                         : pf_strengths_exist(l, fit->options.ridge, &graph, scratch, false);
    pf_free(fit->context, scratch);
    pf_win_graph_destroy(&graph, fit->context);
    return status;
}

/* Variance of the tie parameter: one system instead of the whole covariance. */
static double tie_variance(pf_newton *newton)
{
    pf_likelihood *l = newton->likelihood;
    double *unit = newton->gradient;
    memset(unit, 0, (size_t)l->dim * sizeof *unit);
    unit[l->n_items] = 1;
    pf_newton_solve(newton, unit, 1e-10);
    return newton->step[l->n_items];
}

static double tie_sandwich_variance(pf_newton *newton, const double *x)
{
    pf_likelihood *l = newton->likelihood;
    tie_variance(newton);
    l->ops->evaluate_scores(l, x);
    l->ops->product(l, newton->step, newton->product);
    double sum = 0;
    for (int64_t i = 0; i < l->dim; i++)
        sum += newton->step[i] * newton->product[i];
    return sum;
}

static int32_t maximise(prefopt_strengths *fit)
{
    pf_likelihood *l = fit->likelihood;
    prefopt_strengths_summary *s = &fit->summary;
    pf_newton newton;
    PF_TRY(pf_newton_create(&newton, l, fit->options.ridge, fit->options.tolerance));
    pf_newton_start(l, fit->x);
    bool fitted = pf_newton_fit(&newton, fit->x, &s->iterations, &s->grad_norm);
    s->log_tie = s->log_tie_std_error = NAN;
    if (l->tie_model != PREFOPT_TIE_NONE && fitted) {
        s->log_tie = fit->x[l->n_items];
        if (fit->options.covariance == PREFOPT_COVARIANCE_INFORMATION)
            s->log_tie_std_error = sqrt(tie_variance(&newton));
        else if (fit->options.covariance == PREFOPT_COVARIANCE_SANDWICH)
            s->log_tie_std_error = sqrt(tie_sandwich_variance(&newton, fit->x));
    }
    pf_newton_destroy(&newton);
    if (!fitted)
        return pf_fail(PREFOPT_ERR_NUMERIC,
                       "the gradient norm stopped at %.3g after %lld iterations, expected at most "
                       "tolerance = %g",
                       s->grad_norm, (long long)s->iterations, fit->options.tolerance);
    s->log_likelihood = l->ops->log_likelihood(l, fit->x);
    return PREFOPT_OK;
}

/* Standard deviation of the draws of column i, less those of column `reference` unless it is -1. */
static double draws_deviation(const prefopt_strengths *fit, int64_t i, int64_t reference)
{
    int64_t dim = fit->likelihood->dim;
    double mean = 0, squares = 0;
    for (int pass = 0; pass < 2; pass++)
        for (int64_t r = 0; r < fit->n_draws; r++) {
            const double *x = fit->draws + r * dim;
            double value = x[i] - (reference < 0 ? 0 : x[reference]);
            if (pass == 0)
                mean += value / (double)fit->n_draws;
            else
                squares += (value - mean) * (value - mean);
        }
    return sqrt(squares / (double)(fit->n_draws - 1));
}

static int32_t resample(prefopt_strengths *fit)
{
    const prefopt_strengths_options *o = &fit->options;
    pf_likelihood *l = fit->likelihood;
    int64_t size;
    if (!pf_mul(o->replicates, l->dim, &size))
        return pf_fail(PREFOPT_ERR_MEMORY, "a size overflows: %d replicates of %lld", o->replicates,
                       (long long)l->dim);
    if ((fit->draws = pf_alloc(fit->context, size, sizeof *fit->draws)) == NULL)
        return PREFOPT_ERR_MEMORY;
    PF_TRY(pf_strengths_bootstrap(l, fit->x, o->ridge, o->tolerance, o->replicates, o->seed,
                                  fit->draws, &fit->n_draws));
    fit->summary.replicates = fit->n_draws;
    fit->summary.replicates_unbounded = o->replicates - fit->n_draws;
    if (fit->n_draws < o->replicates)
        pf_log(fit->context, PREFOPT_LOG_WARNING,
               "bootstrap: %lld of %d replicates have no finite optimum and are left out: the "
               "standard errors are too small",
               (long long)(o->replicates - fit->n_draws), o->replicates);
    if (l->tie_model != PREFOPT_TIE_NONE)
        fit->summary.log_tie_std_error = draws_deviation(fit, l->n_items, -1);
    return PREFOPT_OK;
}

/* The data struct is checked and copied into one of the two; the other is NULL. */
static int32_t fit_checked(prefopt_strengths *fit, const prefopt_comparisons *comparisons,
                           const prefopt_rankings *rankings)
{
    const prefopt_strengths_options *o = &fit->options;
    bool bootstrap = o->covariance == PREFOPT_COVARIANCE_BOOTSTRAP;
    if (comparisons != NULL)
        PF_TRY(pf_pair_likelihood_create(&fit->likelihood, fit->context, comparisons, o->tie_model,
                                         bootstrap));
    else
        PF_TRY(pf_ranking_likelihood_create(&fit->likelihood, fit->context, rankings));
    fit->summary.tie_model = o->tie_model;
    fit->summary.n_items = fit->likelihood->n_items;
    if ((fit->x = pf_alloc(fit->context, fit->likelihood->dim, sizeof *fit->x)) == NULL)
        return PREFOPT_ERR_MEMORY;
    PF_TRY(check_exists(fit));
    PF_TRY(maximise(fit));
    return bootstrap ? resample(fit) : PREFOPT_OK;
}

int32_t prefopt_strengths_fit(prefopt_strengths **out, prefopt_context *context,
                              const prefopt_comparisons *comparisons,
                              const prefopt_rankings *rankings,
                              const prefopt_strengths_options *options)
{
    PF_REQUIRE(out);
    PF_REQUIRE(context);
    prefopt_strengths_options own = defaults;
    prefopt_comparisons pairs = {.struct_size = sizeof pairs};
    prefopt_rankings lists = {.struct_size = sizeof lists};
    if (options != NULL)
        PF_TRY(pf_struct_read(&own, sizeof own, sizeof own, options, "prefopt_strengths_options"));
    if ((comparisons == NULL) == (rankings == NULL))
        return pf_fail(PREFOPT_ERR_ARGUMENT, "comparisons and rankings are both %s: expected one",
                       comparisons == NULL ? "NULL" : "given");
    if (comparisons != NULL) {
        PF_TRY(
            pf_struct_read(&pairs, sizeof pairs, sizeof pairs, comparisons, "prefopt_comparisons"));
        PF_TRY(pf_strengths_check_comparisons(&pairs, own.tie_model));
    } else {
        PF_TRY(pf_struct_read(&lists, sizeof lists, sizeof lists, rankings, "prefopt_rankings"));
        PF_TRY(pf_strengths_check_rankings(context, &lists));
    }
    PF_TRY(pf_strengths_check_options(
        &own, &defaults, comparisons != NULL ? pairs.n_items : lists.n_items, rankings != NULL));
    prefopt_strengths *fit = pf_calloc(context, 1, sizeof *fit);
    if (fit == NULL)
        return PREFOPT_ERR_MEMORY;
    fit->context = pf_context_retain(context);
    fit->options = own;
    fit->summary.struct_size = sizeof fit->summary;
    pthread_mutex_init(&fit->mutex, NULL);
    int32_t status =
        fit_checked(fit, comparisons == NULL ? NULL : &pairs, rankings == NULL ? NULL : &lists);
    fit->options.item_names = NULL; /* borrowed for the call */
    if (status == PREFOPT_OK)
        *out = fit;
    else
        prefopt_strengths_destroy(fit);
    return status;
}

/* ---- what is asked of it */

/* The covariance matrix of x, made at the first call; INFORMATION and SANDWICH. */
static int32_t need_covariance(const prefopt_strengths *fit)
{
    prefopt_strengths *f = (prefopt_strengths *)(uintptr_t)fit; /* the cache, under its mutex */
    int32_t status = PREFOPT_OK;
    pthread_mutex_lock(&f->mutex);
    if (f->covariance == NULL) {
        int64_t dim = f->likelihood->dim, size;
        double *made = NULL;
        if (!pf_mul(dim, dim, &size))
            pf_fail(PREFOPT_ERR_MEMORY, "a size overflows: %lld x %lld", (long long)dim,
                    (long long)dim);
        else
            made = pf_alloc(f->context, size, sizeof *made);
        status = made == NULL ? PREFOPT_ERR_MEMORY
                              : pf_strengths_dense_covariance(f->likelihood, f->x, f->options.ridge,
                                                              f->options.covariance, made);
        if (status == PREFOPT_OK)
            f->covariance = made;
        else
            pf_free(f->context, made);
    }
    pthread_mutex_unlock(&f->mutex);
    return status;
}

/* Entry (i, j) for strengths less the reference item's, if there is one. */
static double covariance_entry(const prefopt_strengths *fit, int64_t i, int64_t j)
{
    const double *v = fit->covariance;
    int64_t dim = fit->likelihood->dim, r = fit->options.reference;
    if (r < 0)
        return v[i * dim + j];
    if (i == r || j == r)
        return 0;
    return v[i * dim + j] - v[r * dim + j] - v[i * dim + r] + v[r * dim + r];
}

int32_t prefopt_strengths_values(const prefopt_strengths *fit, double *theta, double *std_error)
{
    PF_REQUIRE(fit);
    int64_t n = fit->summary.n_items, reference = fit->options.reference;
    bool bootstrap = fit->options.covariance == PREFOPT_COVARIANCE_BOOTSTRAP;
    if (std_error != NULL && !bootstrap)
        PF_TRY(need_covariance(fit));
    for (int64_t i = 0; i < n && theta != NULL; i++)
        theta[i] = fit->x[i] - (reference < 0 ? 0 : fit->x[reference]);
    for (int64_t i = 0; i < n && std_error != NULL; i++)
        std_error[i] = bootstrap ? draws_deviation(fit, i, reference)
                                 : sqrt(fmax(0, covariance_entry(fit, i, i)));
    return PREFOPT_OK;
}

static int32_t bootstrap_covariance(const prefopt_strengths *fit, double *covariance)
{
    int64_t n = fit->summary.n_items, m = fit->n_draws, dim = fit->likelihood->dim;
    int64_t reference = fit->options.reference;
    double *centred = pf_alloc(fit->context, m * n, sizeof *centred);
    if (centred == NULL)
        return PREFOPT_ERR_MEMORY;
    for (int64_t i = 0; i < n; i++) {
        double mean = 0;
        for (int64_t r = 0; r < m; r++) {
            const double *x = fit->draws + r * dim;
            centred[r * n + i] = x[i] - (reference < 0 ? 0 : x[reference]);
            mean += centred[r * n + i] / (double)m;
        }
        for (int64_t r = 0; r < m; r++)
            centred[r * n + i] -= mean;
    }
    int32_t status = pf_dgemm(fit->context, true, false, n, n, m, 1 / (double)(m - 1), centred, n,
                              centred, n, 0, covariance, n);
    pf_free(fit->context, centred);
    return status;
}

int32_t prefopt_strengths_covariance(const prefopt_strengths *fit, double *covariance)
{
    PF_REQUIRE(fit);
    PF_REQUIRE(covariance);
    if (fit->options.covariance == PREFOPT_COVARIANCE_BOOTSTRAP)
        return bootstrap_covariance(fit, covariance);
    PF_TRY(need_covariance(fit));
    int64_t n = fit->summary.n_items;
    for (int64_t i = 0; i < n; i++)
        for (int64_t j = 0; j < n; j++)
            covariance[i * n + j] = covariance_entry(fit, i, j);
    return PREFOPT_OK;
}

int32_t prefopt_strengths_summarise(const prefopt_strengths *fit, prefopt_strengths_summary *out)
{
    PF_REQUIRE(fit);
    PF_REQUIRE(out);
    PF_TRY(pf_struct_check_out(out, sizeof fit->summary, "prefopt_strengths_summary"));
    pf_struct_write(out, &fit->summary, sizeof fit->summary);
    return PREFOPT_OK;
}
