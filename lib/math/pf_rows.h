/* Vectorised passes over rows of float32 logits. The compiler makes a version for each level of
 * x86-64 from one body of plain C, and the best that the CPU has is taken at run time; the lanes
 * are fixed in the body and nothing is contracted, so every version gives the same bits. */
#ifndef PF_ROWS_H
#define PF_ROWS_H

#include "base/pf_base.h"

/* The maximum of x [n] (-INFINITY for n = 0); false when an x is NaN or +INFINITY. */
bool pf_row_max(int64_t n, const float *x, float *max);

/* First index whose x is NaN or +INFINITY; n when there is none. */
int64_t pf_row_find_bad(int64_t n, const float *x);

/* sum over x [n] of exp((x - max) * scale), each term to 2e-7 relative, added up in double; max is
 * at least every x, and finite; scale > 0. -INFINITY gives 0. Terms below exp(-87) are 0.
 * e: the terms as float [n], or NULL; may be x itself. */
double pf_row_exp_sum(int64_t n, const float *x, float max, float scale, float *e);

/* For each of PF_THRESHOLDS thresholds: count += how many of x [n] are at it or above, mass += what
 * their weights [n] sum to (in float within a call: n up to some hundreds). */
enum { PF_THRESHOLDS = 8 };
void pf_row_at_least(int64_t n, const float *x, const float *weight, const float *threshold,
                     int64_t *count, double *mass);

/* The first `most` indices with low <= x < high, in order; how many there are. */
int64_t pf_row_between(int64_t n, const float *x, float low, float high, int64_t most,
                       int32_t *index);

/* x = -INFINITY where allowed is 0, n elements. */
void pf_row_mask(int64_t n, const uint8_t *allowed, float *x);

/* x *= factor, n elements. */
void pf_row_scale(int64_t n, float *x, float factor);

/* Whether every element is finite, and the largest magnitude (0 for n = 0). */
bool pf_row_finite(int64_t n, const float *x, float *largest);

#endif
