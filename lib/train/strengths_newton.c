/* Newton's method for the likelihoods of strengths: concave functions with cheap products with the
 * second derivatives. Directions come from a Cholesky factor in few dimensions and from conjugate
 * gradients, diagonally preconditioned and stopped early while far away, in many. */
#include <math.h>

#include "train/pf_strengths.h"

enum { DENSE_DIM = 200, MAX_ITERATIONS = 5000, MAX_BACKTRACKS = 60 };

int64_t pf_likelihood_chunks(int64_t n, int64_t dim)
{
    int64_t by_work = n / 8192, by_sums = n / (16 * dim);
    int64_t chunks = by_work < by_sums ? by_work : by_sums;
    return chunks < 1 ? 1 : chunks > 32 ? 32 : chunks;
}

void pf_likelihood_reduce(const pf_likelihood *l, double *out)
{
    memcpy(out, l->partial, (size_t)l->dim * sizeof *out);
    for (int64_t c = 1; c < l->n_chunks; c++) {
        const double *part = l->partial + c * l->dim;
        for (int64_t i = 0; i < l->dim; i++)
            out[i] += part[i];
    }
}

int32_t pf_newton_create(pf_newton *newton, pf_likelihood *l, double ridge, double tolerance)
{
    memset(newton, 0, sizeof *newton);
    newton->likelihood = l;
    newton->ridge = ridge;
    newton->tolerance = tolerance;
    double **vectors[] = {&newton->gradient,        &newton->step,    &newton->trial,
                          &newton->residual,        &newton->product, &newton->direction,
                          &newton->inverse_diagonal};
    for (size_t i = 0; i < sizeof vectors / sizeof vectors[0]; i++)
        if ((*vectors[i] = pf_alloc(l->context, l->dim, sizeof(double))) == NULL)
            goto fail;
    if (l->dim <= DENSE_DIM &&
        (newton->factor = pf_alloc(l->context, l->dim * l->dim, sizeof(double))) == NULL)
        goto fail;
    return PREFOPT_OK;
fail:
    pf_newton_destroy(newton);
    return PREFOPT_ERR_MEMORY;
}

void pf_newton_destroy(pf_newton *newton)
{
    if (newton->likelihood == NULL)
        return;
    prefopt_context *context = newton->likelihood->context;
    pf_free(context, newton->gradient);
    pf_free(context, newton->step);
    pf_free(context, newton->trial);
    pf_free(context, newton->residual);
    pf_free(context, newton->direction);
    pf_free(context, newton->product);
    pf_free(context, newton->inverse_diagonal);
    pf_free(context, newton->factor);
    memset(newton, 0, sizeof *newton);
}

static double dot(int64_t n, const double *a, const double *b)
{
    double s[4] = {0, 0, 0, 0};
    int64_t i = 0;
    for (; i + 4 <= n; i += 4)
        for (int j = 0; j < 4; j++)
            s[j] += a[i + j] * b[i + j];
    for (; i < n; i++)
        s[0] += a[i] * b[i];
    return (s[0] + s[1]) + (s[2] + s[3]);
}

static void centre(int64_t n, double *x)
{
    double sum = 0;
    for (int64_t i = 0; i < n; i++)
        sum += x[i];
    for (int64_t i = 0; i < n; i++)
        x[i] -= sum / (double)n;
}

/* ---- directions */

/* The factor of K + ridge, or without a ridge of K + c (1, 0)(1, 0)^T: solutions for right sides
 * that sum to 0 are the same, and the matrix is positive definite. False: it is not, numerically.
 */
static bool factorise(pf_newton *newton)
{
    pf_likelihood *l = newton->likelihood;
    int64_t n = l->n_items, dim = l->dim;
    double *f = newton->factor, largest = 0;
    memset(f, 0, (size_t)(dim * dim) * sizeof *f);
    l->ops->dense(l, f);
    for (int64_t i = 0; i < n; i++)
        largest = fmax(largest, f[i * dim + i]);
    for (int64_t i = 0; i < n; i++) {
        f[i * dim + i] += newton->ridge;
        for (int64_t j = 0; j < n && newton->ridge == 0; j++)
            f[i * dim + j] += largest / (double)n;
    }
    for (int64_t i = 0; i < dim; i++) {
        for (int64_t j = 0; j <= i; j++) {
            double s = f[i * dim + j] - dot(j, f + i * dim, f + j * dim);
            if (j < i) {
                f[i * dim + j] = s / f[j * dim + j];
                continue;
            }
            if (!(s > 0))
                return false;
            f[i * dim + i] = sqrt(s);
        }
    }
    return true;
}

static void substitute(const pf_newton *newton, double *x)
{
    const double *f = newton->factor;
    int64_t dim = newton->likelihood->dim;
    for (int64_t i = 0; i < dim; i++)
        x[i] = (x[i] - dot(i, f + i * dim, x)) / f[i * dim + i];
    for (int64_t i = dim - 1; i >= 0; i--) {
        x[i] /= f[i * dim + i];
        for (int64_t j = 0; j < i; j++)
            x[j] -= f[i * dim + j] * x[i];
    }
}

static void precondition(const pf_newton *newton, double *out)
{
    for (int64_t i = 0; i < newton->likelihood->dim; i++)
        out[i] = newton->inverse_diagonal[i] * newton->residual[i];
}

static void conjugate_gradients(pf_newton *newton, const double *right, double accuracy)
{
    pf_likelihood *l = newton->likelihood;
    int64_t dim = l->dim;
    double *x = newton->step, *r = newton->residual, *p = newton->direction, *z = newton->trial;
    l->ops->diagonal(l, newton->inverse_diagonal);
    for (int64_t i = 0; i < dim; i++) {
        double d = newton->inverse_diagonal[i] + (i < l->n_items ? newton->ridge : 0);
        newton->inverse_diagonal[i] = d > 0 ? 1 / d : 0;
        x[i] = 0;
        r[i] = right[i];
    }
    /* What rounding put outside the range of K would never get smaller. */
    if (newton->ridge == 0)
        centre(l->n_items, r);
    precondition(newton, p);
    double rz = dot(dim, r, p), goal = accuracy * accuracy * dot(dim, r, r);
    for (int64_t k = 0; k < 4 * dim + 100 && dot(dim, r, r) > goal; k++) {
        l->ops->product(l, p, newton->product);
        for (int64_t i = 0; i < l->n_items && newton->ridge > 0; i++)
            newton->product[i] += newton->ridge * p[i];
        double curvature = dot(dim, p, newton->product);
        if (!(curvature > 0))
            break;
        double alpha = rz / curvature;
        for (int64_t i = 0; i < dim; i++) {
            x[i] += alpha * p[i];
            r[i] -= alpha * newton->product[i];
        }
        precondition(newton, z);
        double next = dot(dim, r, z);
        for (int64_t i = 0; i < dim; i++)
            p[i] = z[i] + next / rz * p[i];
        rz = next;
    }
}

void pf_newton_solve(pf_newton *newton, const double *right, double accuracy)
{
    pf_likelihood *l = newton->likelihood;
    if (newton->factor != NULL && factorise(newton)) {
        memcpy(newton->step, right, (size_t)l->dim * sizeof *right);
        substitute(newton, newton->step);
    } else {
        conjugate_gradients(newton, right, accuracy);
    }
    centre(l->n_items, newton->step);
}

/* ---- the fit */

/* Norm of the gradient over the total weight, safe from under- and overflow. */
static double mean_norm(const pf_newton *newton)
{
    const double *g = newton->gradient;
    double largest = 0, sum = 0;
    for (int64_t i = 0; i < newton->likelihood->dim; i++)
        largest = fabs(g[i]) > largest || isnan(g[i]) ? fabs(g[i]) : largest;
    if (largest == 0 || !isfinite(largest))
        return largest;
    for (int64_t i = 0; i < newton->likelihood->dim; i++)
        sum += (g[i] / largest) * (g[i] / largest);
    return sqrt(sum) * (largest / newton->likelihood->total_weight);
}

/* Gradient of the penalised log-likelihood at x; returns its mean norm. */
static double evaluate(pf_newton *newton, const double *x)
{
    pf_likelihood *l = newton->likelihood;
    l->ops->evaluate(l, x, newton->gradient);
    for (int64_t i = 0; i < l->n_items && newton->ridge > 0; i++)
        newton->gradient[i] -= newton->ridge * x[i];
    return mean_norm(newton);
}

/* Moves x along newton->step. The slope along the step falls from its start; where it is still
 * uphill the function has only risen on the way, and where it is slightly downhill after a short
 * step too. Otherwise the step is shortened towards where the slope vanishes. Returns the new
 * gradient norm, *moved = largest change, 0 if there was no way up. */
static double move(pf_newton *newton, double *x, double norm, double *moved)
{
    pf_likelihood *l = newton->likelihood;
    int64_t dim = l->dim, tie = l->n_items;
    double slope = dot(dim, newton->gradient, newton->step), alpha = 1, largest = 0;
    for (int64_t i = 0; i < dim; i++)
        largest = fmax(largest, fabs(newton->step[i]));
    *moved = 0;
    if (!(slope > 0) || !isfinite(largest))
        return norm;
    /* Rao-Kupper's tie parameter stays positive. */
    if (l->tie_model == PREFOPT_TIE_RAO_KUPPER && x[tie] + newton->step[tie] <= 0)
        alpha = -0.9 * x[tie] / newton->step[tie];
    /* Below the tolerance the slope may be rounding: not worth many tries. */
    int tries = norm <= newton->tolerance ? 3 : MAX_BACKTRACKS;
    for (int k = 0; k < tries; k++) {
        for (int64_t i = 0; i < dim; i++)
            newton->trial[i] = x[i] + alpha * newton->step[i];
        double next = evaluate(newton, newton->trial);
        double there = dot(dim, newton->gradient, newton->step);
        if (there >= 0 || (alpha * largest <= 1 && -there <= 0.1 * slope)) {
            memcpy(x, newton->trial, (size_t)dim * sizeof *x);
            *moved = alpha * largest;
            return next;
        }
        double shorter = isfinite(there) ? slope / (slope - there) : 0.5;
        alpha *= fmin(fmax(shorter, 0.1), 0.9);
    }
    return evaluate(newton, x);
}

bool pf_newton_fit(pf_newton *newton, double *x, int64_t *iterations, double *grad_norm)
{
    pf_likelihood *l = newton->likelihood;
    *iterations = 0;
    *grad_norm = 0;
    if (l->total_weight == 0) { /* the prior alone */
        memset(x, 0, (size_t)l->n_items * sizeof *x);
        return true;
    }
    double norm = evaluate(newton, x), start = norm, before = INFINITY, moved = INFINITY;
    int64_t k = 0;
    for (; k < MAX_ITERATIONS && norm > 0; k++) {
        /* Past the tolerance go on while the last step was long: where the likelihood is flat a
         * small gradient is not yet a small error. */
        if (norm <= newton->tolerance && (moved <= 1e-6 || norm > 0.5 * before))
            break;
        before = norm;
        pf_newton_solve(newton, newton->gradient, fmin(0.1, fmax(1e-4, norm / start)));
        norm = move(newton, x, norm, &moved);
        if (moved == 0)
            break;
    }
    centre(l->n_items, x);
    *grad_norm = norm;
    *iterations = k;
    return norm <= newton->tolerance;
}

void pf_newton_start(const pf_likelihood *l, double *x)
{
    memset(x, 0, (size_t)l->dim * sizeof *x);
    if (l->tie_model == PREFOPT_TIE_NONE)
        return;
    double decided, tied;
    pf_pair_likelihood_outcomes(l, &decided, &tied);
    if (l->tie_model == PREFOPT_TIE_DAVIDSON)
        x[l->n_items] = log(2 * tied / decided);
    else
        x[l->n_items] = log1p(2 * tied / decided); /* (e^t - 1) / (e^t + 1) = tied / all */
}
