/* Vectorised passes of an optimiser over float32 parameters, element by element, in versions as
 * those of pf_rows.h. Parameters that are not finite, and their moments, stay as they are. Arrays
 * do not overlap. */
#ifndef PF_STEPS_H
#define PF_STEPS_H

#include "base/pf_base.h"

/* The sum of grad's squares [n], added up in double. *largest: the largest magnitude of those
 * values [n] that are finite (0 when there are none). */
double pf_grad_square_f32(int64_t n, const float *grad, const float *value, float *largest);

/* The sum of the finite values' squares [n], in double; add: grad += strength * value there. */
double pf_ridge_f32(int64_t n, double strength, bool add, const float *value, float *grad);

/* AdamW with g = scale grad:
 *     m = beta1 m + (1 - beta1) g,   v = beta2 v + (1 - beta2) g^2,
 *     value -= shrink value + rate m / (sqrt(v) root + epsilon).
 *
 * The betas come in two parts: as floats alone, 0.999 would be wrong by 1.3e-5 of 1 - 0.999, and v
 * with it. shrink is not folded into 1 - shrink for the same reason. Moments below FLT_MIN become
 * 0: as denormals they would stay for ever, and cost many cycles each on some CPUs. */
typedef struct pf_adamw_constants {
    float scale;
    float beta1, beta1_rest, keep1; /* beta = beta + rest; keep: 1 - beta */
    float beta2, beta2_rest, keep2;
    float rate; /* over 1 - beta1^t */
    float root; /* 1 / sqrt(1 - beta2^t) */
    float epsilon, shrink;
} pf_adamw_constants;
void pf_adamw_f32(int64_t n, const pf_adamw_constants *constants, float *value, const float *grad,
                  float *first, float *second);

/* SGD: m = momentum m + scale grad, value -= shrink value + rate m. first: m, or NULL: m = scale
 * grad alone. */
typedef struct pf_sgd_constants {
    float scale, momentum, rate, shrink;
} pf_sgd_constants;
void pf_sgd_f32(int64_t n, const pf_sgd_constants *constants, float *value, const float *grad,
                float *first);

#endif
