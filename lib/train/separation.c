/* Whether logistic data are separable: is there a theta with X theta >= 0 and X theta not 0?
 *
 * By Stiemke's lemma there is none if and only if X' w = 0 for some w > 0, and w may be scaled to w
 * = 1 + v with v >= 0. So minimise |X' (1 + v)| over v >= 0. At the minimum r = X' (1 + v) has
 * x_j . r >= 0 for every row, with 0 where v_j > 0, and sum_j w_j x_j . r = |r|^2. Hence either r =
 * 0, and no direction separates, or r itself is one: the answer carries its own proof.
 *
 * The minimum is found by the active-set method of Lawson and Hanson (1974, chapter 23): the
 * passive rows are at most k, and their Gram matrix is held as a Cholesky factor to which rows are
 * appended. Everything runs in one order, so that the answer is the same every time. Rows have
 * length 1; r counts as 0 below 1e-9 of the length of X' 1 or 1, and x_j . r as not negative above
 * -1e-9 |r|. */
#include <math.h>

#include "train/pf_train.h"

static const double zero = 1e-9;

typedef struct {
    int64_t m, k, n;  /* n: passive rows */
    const double *x;  /* [m, k] */
    double *v;        /* m */
    double *r;        /* k */
    double *c;        /* k: X' 1 */
    int64_t *passive; /* k */
    double *factor;   /* [k, k] lower triangle L, L L' = Gram matrix of the passive rows */
    double *goal;     /* k: the passive v that solve the least-squares problem */
    bool *is_passive; /* m */
} nnls;

static double dot(int64_t n, const double *a, const double *b)
{
    double sum = 0;
    for (int64_t i = 0; i < n; i++)
        sum += a[i] * b[i];
    return sum;
}

/* Row n of the factor, from the row just put at passive[n]. False when it depends on the others. */
static bool append(nnls *s)
{
    const double *row = s->x + s->passive[s->n] * s->k;
    double *out = s->factor + s->n * s->k, rest = dot(s->k, row, row);
    for (int64_t i = 0; i < s->n; i++) {
        const double *line = s->factor + i * s->k;
        out[i] = (dot(s->k, row, s->x + s->passive[i] * s->k) - dot(i, line, out)) / line[i];
        rest -= out[i] * out[i];
    }
    if (!(rest > 1e-14))
        return false;
    out[s->n++] = sqrt(rest);
    return true;
}

/* goal: G goal = -X_passive c. */
static void solve(nnls *s)
{
    for (int64_t i = 0; i < s->n; i++) {
        const double *line = s->factor + i * s->k;
        double right = -dot(s->k, s->x + s->passive[i] * s->k, s->c);
        s->goal[i] = (right - dot(i, line, s->goal)) / line[i];
    }
    for (int64_t i = s->n - 1; i >= 0; i--) {
        for (int64_t j = i + 1; j < s->n; j++)
            s->goal[i] -= s->factor[j * s->k + i] * s->goal[j];
        s->goal[i] /= s->factor[i * s->k + i];
    }
}

static void residual(nnls *s)
{
    memcpy(s->r, s->c, (size_t)s->k * sizeof *s->r);
    for (int64_t i = 0; i < s->n; i++) {
        const double *row = s->x + s->passive[i] * s->k;
        for (int64_t j = 0; j < s->k; j++)
            s->r[j] += s->v[s->passive[i]] * row[j];
    }
}

/* Goes towards goal until the first passive v is 0, drops it, and so on until goal is reached. */
static void reach_goal(nnls *s)
{
    for (;;) {
        double step = 1;
        solve(s);
        for (int64_t i = 0; i < s->n; i++) {
            double v = s->v[s->passive[i]];
            if (s->goal[i] <= 0)
                step = fmin(step, v > s->goal[i] ? v / (v - s->goal[i]) : 0);
        }
        int64_t kept = 0, n = s->n;
        for (int64_t i = 0; i < n; i++) {
            double *v = &s->v[s->passive[i]];
            bool drop = s->goal[i] <= 0 && (*v <= s->goal[i] || *v / (*v - s->goal[i]) <= step);
            *v = drop ? 0 : *v + step * (s->goal[i] - *v);
            if (drop)
                s->is_passive[s->passive[i]] = false;
            else
                s->passive[kept++] = s->passive[i];
        }
        if (kept == n)
            return;
        s->n = 0;
        while (s->n < kept && append(s))
            continue;
        for (int64_t i = s->n; i < kept; i++) { /* cannot be, but for rounding */
            s->is_passive[s->passive[i]] = false;
            s->v[s->passive[i]] = 0;
        }
    }
}

/* The row that r points away from most, among those not passive; -1: none. */
static int64_t most_negative(const nnls *s, double low)
{
    int64_t worst = -1;
    for (int64_t j = 0; j < s->m; j++) {
        double along = s->is_passive[j] ? 0 : dot(s->k, s->x + j * s->k, s->r);
        if (along < low) {
            low = along;
            worst = j;
        }
    }
    return worst;
}

static int32_t decide(nnls *s, bool *found)
{
    for (int64_t j = 0; j < s->m; j++)
        for (int64_t i = 0; i < s->k; i++)
            s->c[i] += s->x[j * s->k + i];
    memcpy(s->r, s->c, (size_t)s->k * sizeof *s->r);
    double scale = fmax(1, sqrt(dot(s->k, s->c, s->c)));
    int64_t limit = 30 * (s->m + s->k) + 1000;
    for (int64_t round = 0; round < limit; round++) {
        double length = sqrt(dot(s->k, s->r, s->r));
        int64_t worst = length > zero * scale ? most_negative(s, -zero * length) : -1;
        *found = length > zero * scale;
        if (worst < 0)
            return PREFOPT_OK;
        s->passive[s->n] = worst;
        if (s->n == s->k || !append(s)) {
            *found = false; /* the residual is rounding: orthogonal to all it could be made of */
            return PREFOPT_OK;
        }
        s->is_passive[worst] = true;
        reach_goal(s);
        residual(s);
    }
    return pf_fail(PREFOPT_ERR_NUMERIC,
                   "whether the data are separable was not decided in %lld rounds (%lld "
                   "comparisons, %lld features)",
                   (long long)limit, (long long)s->m, (long long)s->k);
}

int32_t pf_separation(prefopt_context *context, int64_t m, int64_t k, const double *x, bool *found,
                      double *direction)
{
    nnls s = {.m = m, .k = k, .x = x};
    int64_t square;
    if (!pf_mul(k + 1, k, &square))
        return pf_fail(PREFOPT_ERR_MEMORY, "a size overflows: %lld features", (long long)k);
    s.v = pf_calloc(context, m, sizeof *s.v);
    s.is_passive = pf_calloc(context, m, sizeof *s.is_passive);
    s.r = direction;
    s.c = pf_calloc(context, k, sizeof *s.c);
    s.goal = pf_alloc(context, k + 1, sizeof *s.goal);
    s.passive = pf_alloc(context, k + 1, sizeof *s.passive);
    s.factor = pf_alloc(context, square, sizeof *s.factor);
    int32_t status = PREFOPT_ERR_MEMORY;
    if (s.v != NULL && s.is_passive != NULL && s.c != NULL && s.goal != NULL && s.passive != NULL &&
        s.factor != NULL)
        status = decide(&s, found);
    pf_free(context, s.v);
    pf_free(context, s.is_passive);
    pf_free(context, s.c);
    pf_free(context, s.goal);
    pf_free(context, s.passive);
    pf_free(context, s.factor);
    return status;
}
