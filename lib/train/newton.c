/* The finish of an exact fit: truncated Newton on gradients alone.
 *
 * The direction p solves H p = -g by conjugate gradients; H v is a central difference of gradients,
 * (g(x + h v) - g(x - h v)) / 2h, whose error is about eps^(2/3) of the gradient's terms. A step is
 * taken when it brings the norm of the gradient down. Near an optimum that is a Newton method: the
 * norm falls from 1e-8 to rounding in one or two steps. Directions in which the loss is flat
 * (shifts of a softmax's logits) never enter, as the gradient has no part in them. */
#include <float.h>
#include <math.h>

#include "pf_config.h"
#include "train/pf_fit.h"

#if PF_HAVE_LBFGS

enum { MAX_NEWTON = 100, MAX_CG = 250, MAX_HALVINGS = 12 };

static double dot(int64_t n, const double *a, const double *b)
{
    double sum = 0;
    for (int64_t i = 0; i < n; i++)
        sum += a[i] * b[i];
    return sum;
}

static double largest(int64_t n, const double *a)
{
    double high = 0;
    for (int64_t i = 0; i < n; i++)
        high = fmax(high, fabs(a[i]));
    return high;
}

/* out = x + step * direction */
static void move(int64_t n, const double *x, double step, const double *direction, double *out)
{
    for (int64_t i = 0; i < n; i++)
        out[i] = x[i] + step * direction[i];
}

/* hv = H v, with two work vectors. */
static int32_t hessian_times(pf_fit *fit, const double *v, double *hv, double *point, double *grad)
{
    int64_t n = fit->n;
    double loss, h = cbrt(DBL_EPSILON) * (1 + largest(n, fit->x)) / largest(n, v);
    move(n, fit->x, h, v, point);
    PF_TRY(pf_fit_evaluate(fit, point, &loss, hv));
    move(n, fit->x, -h, v, point);
    PF_TRY(pf_fit_evaluate(fit, point, &loss, grad));
    for (int64_t i = 0; i < n; i++)
        hv[i] = (hv[i] - grad[i]) / (2 * h);
    return PREFOPT_OK;
}

/* Conjugate gradients on H p = -g, until the residual is a small part of g or the curvature is not
 * positive. */
static int32_t newton_direction(pf_fit *fit, double norm, double *p, double *const work[5])
{
    int64_t n = fit->n;
    double *r = work[0], *d = work[1], *hd = work[2];
    double rr = norm * norm, target = norm * fmin(0.1, sqrt(norm));
    for (int64_t i = 0; i < n; i++) {
        p[i] = 0;
        d[i] = r[i] = -fit->g[i];
    }
    int64_t rounds = n < MAX_CG ? n + 2 : MAX_CG;
    for (int64_t k = 0; k < rounds && sqrt(rr) > target; k++) {
        PF_TRY(hessian_times(fit, d, hd, work[3], work[4]));
        double curvature = dot(n, d, hd);
        if (!(curvature > 1e-14 * dot(n, d, d))) {
            if (k == 0)
                memcpy(p, d, (size_t)n * sizeof *p);
            break;
        }
        double step = rr / curvature;
        for (int64_t i = 0; i < n; i++) {
            p[i] += step * d[i];
            r[i] -= step * hd[i];
        }
        double next = dot(n, r, r);
        for (int64_t i = 0; i < n; i++)
            d[i] = r[i] + next / rr * d[i];
        rr = next;
    }
    return PREFOPT_OK;
}

/* The longest of p, p/2, p/4 ... that brings the gradient down. moved: whether one did. */
static int32_t take_step(pf_fit *fit, double *norm, const double *p, double *point, double *grad,
                         bool *moved)
{
    double step = 1, loss;
    *moved = false;
    for (int32_t k = 0; k < MAX_HALVINGS && !*moved; k++, step /= 2) {
        move(fit->n, fit->x, step, p, point);
        int32_t status = pf_fit_evaluate(fit, point, &loss, grad);
        if (status == PREFOPT_ERR_NUMERIC)
            continue;
        PF_TRY(status);
        double next = pf_fit_norm(fit->n, grad);
        if (next < (1 - 1e-4 * step) * *norm) {
            memcpy(fit->x, point, (size_t)fit->n * sizeof *fit->x);
            memcpy(fit->g, grad, (size_t)fit->n * sizeof *fit->g);
            *norm = next;
            *moved = true;
        }
    }
    return PREFOPT_OK;
}

int32_t pf_fit_newton(pf_fit *fit, double *norm)
{
    const prefopt_train_options *o = &fit->trainer->options;
    double *p = fit->memory + 2 * fit->stride, *work[5];
    for (int64_t i = 0; i < 5; i++)
        work[i] = fit->memory + (3 + i) * fit->stride;
    bool moved = true, polish = false;
    for (int32_t k = 0; k < MAX_NEWTON && moved && !polish && *norm > 0; k++) {
        polish = *norm <= o->tolerance; /* one step more */
        if (fit->iterations >= o->max_iterations)
            return PREFOPT_OK;
        int32_t status = newton_direction(fit, *norm, p, work);
        if (status == PREFOPT_ERR_NUMERIC)
            return PREFOPT_OK; /* too close to where the loss has no value: not our ground */
        PF_TRY(status);
        PF_TRY(take_step(fit, norm, p, work[3], work[4], &moved));
        if (moved && !pf_fit_report(fit, *norm))
            return fit->status;
    }
    return PREFOPT_OK;
}

#endif
