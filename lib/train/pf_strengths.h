/* Internal: the likelihoods of strengths, and the Newton solver that fits them.
 *
 * A likelihood is a concave function of x [dim]: n_items strengths, then the tie parameter if there
 * is one. It does not change when a constant is added to all strengths. */
#ifndef PF_STRENGTHS_H
#define PF_STRENGTHS_H

#include "base/pf_base.h"
#include "prefopt/strengths.h"
#include "train/pf_win_graph.h"

typedef struct pf_likelihood pf_likelihood;

typedef struct {
    const char *unit; /* "comparisons", "rankings" */
    /* gradient [dim] of the log-likelihood at x; keeps what `product`, `diagonal` and `dense` need
     * of the second derivatives there. */
    void (*evaluate)(pf_likelihood *l, const double *x, double *gradient);
    /* Keeps the sum over observations of outer products of their scores at x in place of the second
     * derivatives. */
    void (*evaluate_scores)(pf_likelihood *l, const double *x);
    double (*log_likelihood)(pf_likelihood *l, const double *x);
    /* With K [dim, dim] = minus the second derivatives (or the scores' sum): out = K v; out = diag
     * K; out += K. */
    void (*product)(pf_likelihood *l, const double *v, double *out);
    void (*diagonal)(pf_likelihood *l, double *out);
    void (*dense)(pf_likelihood *l, double *out);
    int64_t (*max_edges)(const pf_likelihood *l);
    void (*edges)(const pf_likelihood *l, pf_win_graph *graph); /* graph->n_edges = 0 before */
    /* Another likelihood of the same observations with weights of its own, sharing the rest; the
     * first must outlive it. NULL: MEMORY. */
    pf_likelihood *(*clone)(pf_likelihood *l);
    /* Weights of the clone: Poisson(weight) for each row of the original, drawn from (seed,
     * replicate, row). */
    void (*resample)(pf_likelihood *clone, uint64_t seed, uint64_t replicate);
    void (*destroy)(pf_likelihood *l);
} pf_likelihood_ops;

struct pf_likelihood {
    const pf_likelihood_ops *ops;
    prefopt_context *context; /* borrowed */
    int64_t n_items, dim;
    int32_t tie_model;
    double total_weight;
    int64_t n_chunks; /* of the parallel loops; from the sizes alone */
    double *partial;  /* [n_chunks, dim]: one sum a chunk, added in chunk order */
};

/* From checked input; rows of weight 0 are left out. keep_rows: for resample. */
int32_t pf_pair_likelihood_create(pf_likelihood **out, prefopt_context *context,
                                  const prefopt_comparisons *data, int32_t tie_model,
                                  bool keep_rows);
int32_t pf_ranking_likelihood_create(pf_likelihood **out, prefopt_context *context,
                                     const prefopt_rankings *data);

/* Chunks for n pieces of work that each write dim sums: enough to share out, not so many that their
 * sums outweigh the work. */
int64_t pf_likelihood_chunks(int64_t n, int64_t dim);
/* out [dim] = the chunks' partial sums, added in order. */
void pf_likelihood_reduce(const pf_likelihood *l, double *out);

/* Comparisons with a tie model: is there a direction in which strengths and the tie parameter can
 * grow together without any outcome getting less likely? (scratch: n_items doubles.) */
bool pf_pair_likelihood_ties_diverge(const pf_likelihood *l, double *scratch);
void pf_pair_likelihood_outcomes(const pf_likelihood *l, double *decided, double *tied);

/* A Poisson draw of that mean from draw (seed, stream, index) (poisson.c). */
double pf_poisson(uint64_t seed, uint64_t stream, uint64_t index, double mean);

/* ---- whether a finite optimum exists (strengths_exist.c) */

/* OK, or UNBOUNDED with the text. quiet: no text. graph has room for the likelihood's edges;
 * scratch: n_items. */
int32_t pf_strengths_exist(const pf_likelihood *l, double ridge, pf_win_graph *graph,
                           double *scratch, bool quiet);

/* ---- the solver (strengths_newton.c) */

typedef struct {
    pf_likelihood *likelihood;
    double ridge, tolerance;
    double *gradient, *step, *trial, *residual, *direction, *product, *inverse_diagonal; /* dim */
    double *factor; /* [dim, dim] where the dimension is small; NULL: conjugate gradients */
} pf_newton;

int32_t pf_newton_create(pf_newton *newton, pf_likelihood *likelihood, double ridge,
                         double tolerance);
void pf_newton_destroy(pf_newton *newton);

/* Maximises from x (in: a start, out: the optimum, strengths summing to 0). Neither allocates nor
 * sets the error text. False: the gradient did not get below the tolerance. The likelihood is left
 * evaluated at x. grad_norm: of the mean log-likelihood. */
bool pf_newton_fit(pf_newton *newton, double *x, int64_t *iterations, double *grad_norm);

/* Solves (K + ridge) step = right for the likelihood as last evaluated, to relative accuracy
 * `accuracy` where by conjugate gradients; right's strengths sum to 0. */
void pf_newton_solve(pf_newton *newton, const double *right, double accuracy);

/* The start: all strengths 0, the tie parameter that gives the observed share of ties. */
void pf_newton_start(const pf_likelihood *likelihood, double *x);

/* ---- covariance (strengths_covariance.c) */

/* out [dim, dim]: covariance of (strengths summing to 0, tie parameter) at x: INFORMATION or
 * SANDWICH. Evaluates the likelihood. */
int32_t pf_strengths_dense_covariance(pf_likelihood *l, const double *x, double ridge, int32_t kind,
                                      double *out);

/* ---- bootstrap (strengths_bootstrap.c) */

/* draws [replicates, dim]: the refits that have a finite optimum, in replicate order, *n_kept of
 * them. */
int32_t pf_strengths_bootstrap(pf_likelihood *l, const double *x, double ridge, double tolerance,
                               int32_t replicates, uint64_t seed, double *draws, int64_t *n_kept);

#endif
