/* Covariance of fitted strengths: the inverse of the observed information, or the sandwich.
 *
 * For strengths that sum to 0 the inverse is the projected one: K + c (1, 0)(1, 0)^T is positive
 * definite, and its inverse less (1, 0)(1, 0)^T / (c n^2) is what K's would be on that subspace.
 * With a ridge, which has its own curvature along (1, 0), the same holds with c = ridge / n. */
#include <math.h>

#include "math/pf_gemm.h"
#include "train/pf_strengths.h"

enum { BLOCK = 96, PANEL_ROWS = 64 };

/* ---- inverse of a symmetric positive definite matrix, in place */

typedef struct {
    double *a;           /* [n, n]; the lower triangle counts */
    int64_t n, k, width; /* the block column at work */
} panel;

static double dot(int64_t n, const double *a, const double *b)
{
    double s = 0;
    for (int64_t i = 0; i < n; i++)
        s += a[i] * b[i];
    return s;
}

/* Rows below the diagonal block: row = row L^-T. */
static void solve_rows(void *payload, int64_t task)
{
    const panel *p = payload;
    int64_t first = p->k + p->width + task * PANEL_ROWS, last = first + PANEL_ROWS;
    const double *l = p->a + p->k * p->n + p->k;
    for (int64_t i = first; i < last && i < p->n; i++) {
        double *row = p->a + i * p->n + p->k;
        for (int64_t c = 0; c < p->width; c++)
            row[c] = (row[c] - dot(c, row, l + c * p->n)) / l[c * p->n + c];
    }
}

static bool factorise_block(const panel *p)
{
    double *l = p->a + p->k * p->n + p->k;
    for (int64_t i = 0; i < p->width; i++)
        for (int64_t j = 0; j <= i; j++) {
            double s = l[i * p->n + j] - dot(j, l + i * p->n, l + j * p->n);
            if (i == j && !(s > 0 && isfinite(s)))
                return false;
            l[i * p->n + j] = i == j ? sqrt(s) : s / l[j * p->n + j];
        }
    return true;
}

/* The diagonal block by its inverse; what the products left above its diagonal is cleared. */
static void invert_block(const panel *p)
{
    double *l = p->a + p->k * p->n + p->k;
    int64_t n = p->n;
    for (int64_t i = 0; i < p->width; i++) {
        for (int64_t j = 0; j < i; j++) {
            double s = 0;
            for (int64_t m = j; m < i; m++)
                s += l[i * n + m] * l[m * n + j];
            /* row i of L is still needed from j + 1 on only */
            l[i * n + j] = -s / l[i * n + i];
        }
        l[i * n + i] = 1 / l[i * n + i];
        memset(l + i * n + i + 1, 0, (size_t)(p->width - i - 1) * sizeof *l);
    }
}

/* a = a^-1. Left-looking Cholesky, then L^-1 by block rows, then L^-T L^-1 by block rows; each step
 * one product with the finished part. */
static int32_t invert(prefopt_context *context, int64_t n, double *a)
{
    double *row = pf_alloc(context, BLOCK * n, sizeof *row);
    if (row == NULL)
        return PREFOPT_ERR_MEMORY;
    int32_t status = PREFOPT_OK;
    panel p = {a, n, 0, 0};
    for (p.k = 0; p.k < n && status == PREFOPT_OK; p.k += BLOCK) {
        p.width = n - p.k < BLOCK ? n - p.k : BLOCK;
        double *below = a + p.k * n;
        if (p.k > 0)
            status = pf_dgemm(context, false, true, n - p.k, p.width, p.k, -1, below, n, below, n,
                              1, below + p.k, n);
        if (status == PREFOPT_OK && !factorise_block(&p))
            status = pf_fail(PREFOPT_ERR_NUMERIC,
                             "the information matrix is singular to rounding: no standard errors");
        if (status == PREFOPT_OK)
            pf_parallel_for(context, (n - p.k - p.width + PANEL_ROWS - 1) / PANEL_ROWS, solve_rows,
                            &p);
    }
    for (p.k = 0; p.k < n && status == PREFOPT_OK; p.k += BLOCK) {
        p.width = n - p.k < BLOCK ? n - p.k : BLOCK;
        double *mine = a + p.k * n;
        invert_block(&p);
        if (p.k == 0)
            continue;
        status = pf_dgemm(context, false, false, p.width, p.k, p.k, 1, mine, n, a, n, 0, row, p.k);
        if (status == PREFOPT_OK)
            status = pf_dgemm(context, false, false, p.width, p.k, p.width, -1, mine + p.k, n, row,
                              p.k, 0, mine, n);
    }
    for (p.k = 0; p.k < n && status == PREFOPT_OK; p.k += BLOCK) {
        p.width = n - p.k < BLOCK ? n - p.k : BLOCK;
        double *mine = a + p.k * n;
        int64_t columns = p.k + p.width;
        status = pf_dgemm(context, true, false, p.width, columns, n - p.k, 1, mine + p.k, n, mine,
                          n, 0, row, columns);
        for (int64_t i = 0; i < p.width; i++)
            memcpy(mine + i * n, row + i * columns, (size_t)columns * sizeof *row);
    }
    pf_free(context, row);
    for (int64_t i = 0; i < n; i++)
        for (int64_t j = i + 1; j < n; j++)
            a[i * n + j] = a[j * n + i];
    return status;
}

/* ---- the covariance */

static void clear_above(int64_t n, double *a)
{
    for (int64_t i = 0; i < n; i++)
        memset(a + i * n + i + 1, 0, (size_t)(n - i - 1) * sizeof *a);
}

/* out = (K + ridge)^-1 on strengths that sum to 0. */
static int32_t projected_inverse(pf_likelihood *l, double ridge, double *out)
{
    int64_t n = l->n_items, dim = l->dim;
    double largest = 0;
    memset(out, 0, (size_t)(dim * dim) * sizeof *out);
    l->ops->dense(l, out);
    for (int64_t i = 0; i < n; i++)
        largest = fmax(largest, out[i * dim + i]);
    double c = ridge > 0 ? ridge / (double)n : largest > 0 ? largest / (double)n : 1;
    for (int64_t i = 0; i < n; i++) {
        out[i * dim + i] += ridge;
        for (int64_t j = 0; j < n && ridge == 0; j++)
            out[i * dim + j] += c;
    }
    clear_above(dim, out);
    PF_TRY(invert(l->context, dim, out));
    double shared = 1 / (c * (double)n * (double)n);
    for (int64_t i = 0; i < n; i++)
        for (int64_t j = 0; j < n; j++)
            out[i * dim + j] -= shared;
    return PREFOPT_OK;
}

int32_t pf_strengths_dense_covariance(pf_likelihood *l, const double *x, double ridge, int32_t kind,
                                      double *out)
{
    prefopt_context *context = l->context;
    int64_t dim = l->dim;
    double *work = pf_alloc(context, dim, sizeof *work);
    if (work == NULL)
        return PREFOPT_ERR_MEMORY;
    l->ops->evaluate(l, x, work);
    pf_free(context, work);
    PF_TRY(projected_inverse(l, ridge, out));
    if (kind == PREFOPT_COVARIANCE_INFORMATION)
        return PREFOPT_OK;
    double *middle = pf_calloc(context, dim * dim, sizeof *middle);
    double *product = middle == NULL ? NULL : pf_alloc(context, dim * dim, sizeof *product);
    int32_t status = PREFOPT_ERR_MEMORY;
    if (product != NULL) {
        l->ops->evaluate_scores(l, x);
        l->ops->dense(l, middle);
        status = pf_dgemm(context, false, false, dim, dim, dim, 1, out, dim, middle, dim, 0,
                          product, dim);
        if (status == PREFOPT_OK)
            status = pf_dgemm(context, false, false, dim, dim, dim, 1, product, dim, out, dim, 0,
                              middle, dim);
        /* Symmetric to the last bit. */
        for (int64_t i = 0; i < dim; i++)
            for (int64_t j = 0; j < dim; j++)
                out[i * dim + j] = 0.5 * (middle[i * dim + j] + middle[j * dim + i]);
    }
    pf_free(context, middle);
    pf_free(context, product);
    return status;
}
