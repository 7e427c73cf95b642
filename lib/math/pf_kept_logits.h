/* Logits that stay between a forward and its backward pass, so that neither their product nor their
 * exponentials are computed twice: [rows, vocab] floats, for batches that fit (kept_logits.c). */
#ifndef PF_KEPT_LOGITS_H
#define PF_KEPT_LOGITS_H

#include "math/pf_logit_tiles.h"

/* All zero at first; context set. Memory is used again from call to call. */
typedef struct {
    prefopt_context *context;
    pf_logit_work work;
    int64_t block_floats; /* of one block's tiles */
    float *tiles, *slice_max;
    double *log_z;
    char *memory;
    int64_t capacity; /* bytes */
} pf_kept_logits;

/* Bytes that so many rows take; saturates. */
int64_t pf_kept_logits_bytes(int64_t rows, int64_t width, int64_t vocab);

/* logp [rows] of the targets (all >= 0, checked) under softmax(hidden weight^T), hidden [rows,
 * width] and weight [vocab, width], which are borrowed until the backward pass. rows >= 1. mask may
 * be NULL; a target that it does not allow has -INFINITY, and is to have a gradient of 0. MEMORY;
 * NUMERIC (a logit overflows: names the row). */
int32_t pf_kept_logits_forward(pf_kept_logits *kept, int64_t rows, int64_t width, int64_t vocab,
                               const float *hidden, const float *weight, const int32_t *target,
                               const pf_logit_mask *mask, double *logp);

/* Once for each forward pass: grad_hidden [rows, width] is written, grad_weight added to. */
void pf_kept_logits_backward(pf_kept_logits *kept, const double *grad_logp, float *grad_hidden,
                             float *grad_weight);
void pf_kept_logits_clear(pf_kept_logits *kept);

#endif
