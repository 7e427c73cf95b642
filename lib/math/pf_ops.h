/* The row kernels of a transformer, float32: norms, GELU, rotary positions, causal softmax, and the
 * products that are too thin for BLIS. All are serial, made to be called from the tasks of a
 * parallel loop on blocks of rows. Rows are `ld` floats apart where an ld is given, else
 * contiguous. A row's result depends neither on how many rows the call has nor on where they start.
 * Pointers of one call do not overlap but where it is said. The CPU's best version is taken at run
 * time (pf_lanes.h); all but the two skinny products give the same bits in every version.
 *
 * No checks and no errors: NaN and infinities pass through to the outputs that they touch. */
#ifndef PF_OPS_H
#define PF_OPS_H

#include "base/pf_base.h"

/* ---- layer norm (norm_f32.c) */

/* y = (x - mean) rstd gamma + beta by row, rstd = 1 / sqrt(variance + epsilon) with the biased
 * variance. x, y: [rows, width]; gamma, beta: [width]; mean, rstd: [rows], written. y may be x. The
 * statistics are summed in double; a constant row's variance is exactly 0. */
void pf_layer_norm(int64_t rows, int64_t width, const float *x, const float *gamma,
                   const float *beta, double epsilon, float *y, float *mean, float *rstd);

/* The same bits again from saved statistics. */
void pf_layer_norm_apply(int64_t rows, int64_t width, const float *x, const float *mean,
                         const float *rstd, const float *gamma, const float *beta, float *y);

/* From dy [rows, width]: the gradients are added to dx [rows, width] and to dgamma, dbeta [width],
 * rows in order. */
void pf_layer_norm_backward(int64_t rows, int64_t width, const float *x, const float *mean,
                            const float *rstd, const float *gamma, const float *dy, float *dx,
                            float *dgamma, float *dbeta);

/* ---- GELU (gelu_f32.c) */

/* The exact form x Phi(x), Phi the standard normal distribution function, and the form
 * x sigma(2 sqrt(2 / pi) (x + 0.044715 x^3)) = x / 2 (1 + tanh(...)). */
enum { PF_GELU = 0, PF_GELU_TANH = 1 };

/* y = gelu(x + bias); x, y: [rows, width]; bias: [width] or NULL; y may be x. The exact form has an
 * error of a few ulp of y, also where y underflows on the left (below 1e-38 it may be 0). */
void pf_gelu(int64_t rows, int64_t width, int32_t form, const float *x, const float *bias,
             float *y);

/* dy *= gelu'(x + bias); dy: [rows, width]. */
void pf_gelu_backward(int64_t rows, int64_t width, int32_t form, const float *x, const float *bias,
                      float *dy);

/* ---- sums and rotary positions (elementwise_f32.c) */

/* x += bias by row. */
void pf_add_bias(int64_t rows, int64_t width, const float *bias, float *x, int64_t ld);

/* sum[j] += the sum over rows of x[i, j], rows in order, so that a caller may cut columns. */
void pf_add_columns(int64_t rows, int64_t width, const float *x, int64_t ld, float *sum);

/* y += x, n elements. */
void pf_accumulate(int64_t n, const float *x, float *y);

/* Rotates the first 2 half elements of each of n_heads heads of one row; head h lies at
 * x + h head_stride, and j < half goes with j + half:
 * (a, b) becomes (a cos - b sin, b cos + a sin); cosine, sine: [half], of the row's position.
 * inverse: the transposed rotation, for gradients. */
void pf_rotary(int64_t n_heads, int64_t head_stride, int64_t half, const float *cosine,
               const float *sine, bool inverse, float *x);

/* ---- causal softmax (softmax_f32.c) */

/* Row i of s [rows, columns] has min(first + i + 1, columns) live columns. In place:
 * p = exp(scale s) / sum of exp(scale s) over live columns, exactly 0 in the others;
 * lse[i] = log of that sum. first >= 0, scale > 0. A live score that is NaN or +infinity makes its
 * whole row and lse NaN; one of -infinity has p = 0; where all are, p = 0 and lse = -infinity. */
void pf_softmax_rows(int64_t rows, int64_t columns, int64_t ld, int64_t first, float scale,
                     float *s, float *lse);

/* The probabilities again from the saved lse: the same but for rounding (they are normalised anew,
 * so lse's own rounding does not matter). */
void pf_softmax_again(int64_t rows, int64_t columns, int64_t ld, int64_t first, float scale,
                      const float *lse, float *s);

/* dp becomes ds = scale p (dp - sum over live columns of p dp), 0 in the columns that are not live.
 * p and dp at the same ld. */
void pf_softmax_backward(int64_t rows, int64_t columns, int64_t ld, int64_t first, float scale,
                         const float *p, float *dp);

/* ---- thin products (skinny.c) */

/* y [m, n] (+)= x [m, k] w [n, k]^T (+ bias [n], or NULL); add: to what y holds. Made for small m:
 * w is read from memory once. An element's bits depend on its row of x and its row of w alone. */
void pf_skinny_product(int64_t m, int64_t n, int64_t k, const float *x, int64_t ldx, const float *w,
                       int64_t ldw, const float *bias, bool add, float *y, int64_t ldy);

/* y [m, n] = a [m, k] v [k, n], summed in the order of k (attention's weights times values). An
 * element's bits depend on its row of a and its column of v alone. */
void pf_skinny_combine(int64_t m, int64_t n, int64_t k, const float *a, int64_t lda, const float *v,
                       int64_t ldv, float *y, int64_t ldy);

/* y [m, n] (+)= op(a) [m, k] op(b) [k, n], op the transpose where the flag is set: for products so
 * small that a call of BLIS costs more than they do. Not both flags. */
void pf_small_product(bool trans_a, bool trans_b, int64_t m, int64_t n, int64_t k, const float *a,
                      int64_t lda, const float *b, int64_t ldb, bool add, float *y, int64_t ldy);

/* ---- half precision (half_f32.c): rounded to nearest, ties to even; NaN stays NaN. */

void pf_f32_from_f16(int64_t n, const uint16_t *half, float *x);
void pf_f32_from_bf16(int64_t n, const uint16_t *half, float *x);
void pf_f16_from_f32(int64_t n, const float *x, uint16_t *half);
void pf_bf16_from_f32(int64_t n, const float *x, uint16_t *half);

#endif
