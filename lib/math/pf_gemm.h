/* Matrix products, row-major, over BLIS. Same bits for any number of threads: the work is cut into
 * tiles that depend on the shapes alone, and each tile is one single-threaded product.
 *
 * op(X) is X, or its transpose where the flag is set. ld*: elements between rows as stored. Every
 * dimension and stride is checked before BLIS sees it, for BLIS aborts on a bad one; matrices must
 * not overlap the output. Thread-safe. Errors: ARGUMENT. */
#ifndef PF_GEMM_H
#define PF_GEMM_H

#include "base/pf_base.h"

/* C [m, n] = alpha op(A) [m, k] op(B) [k, n] + beta C, on the context's threads (NULL: the calling
 * thread alone, same bits). beta = 0 writes C without reading it. */
int32_t pf_dgemm(prefopt_context *context, bool trans_a, bool trans_b, int64_t m, int64_t n,
                 int64_t k, double alpha, const double *a, int64_t lda, const double *b,
                 int64_t ldb, double beta, double *c, int64_t ldc);
int32_t pf_sgemm(prefopt_context *context, bool trans_a, bool trans_b, int64_t m, int64_t n,
                 int64_t k, float alpha, const float *a, int64_t lda, const float *b, int64_t ldb,
                 float beta, float *c, int64_t ldc);

/* The same as one product on the calling thread: for tasks of a parallel loop, which cut the work
 * themselves. (Cut differently, so not the same bits as pf_sgemm.) */
int32_t pf_sgemm_serial(bool trans_a, bool trans_b, int64_t m, int64_t n, int64_t k, float alpha,
                        const float *a, int64_t lda, const float *b, int64_t ldb, float beta,
                        float *c, int64_t ldc);

/* y = alpha op(A) x + beta y, A [m, n] as stored, x and y contiguous: lengths n and m, exchanged
 * when A is transposed. */
int32_t pf_dgemv(prefopt_context *context, bool trans, int64_t m, int64_t n, double alpha,
                 const double *a, int64_t lda, const double *x, double beta, double *y);

/* Name of the BLIS kernels in use ("skx", "zen3", "generic", ...); static. Starts BLIS if nothing
 * has; see blis.c for how the kernels are chosen. */
const char *pf_gemm_kernels(void);

/* BLIS's number (a value of BLIS_ARCH_TYPE) of the portable kernels. */
int32_t pf_gemm_portable_kernels(void);

/* Starts BLIS if nothing has, and says in the context's log (NULL: none) which kernels run, once in
 * a process. Every product does so itself. Errors: MEMORY (too little for BLIS to start). */
int32_t pf_gemm_start(const prefopt_context *context);

#endif
