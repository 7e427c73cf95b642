/* Checks that the kernels on logits and on hidden states share. */
#ifndef PF_LOGITS_H
#define PF_LOGITS_H

#include "base/pf_base.h"

/* rows, vocab and [rows, row_stride] floats are sizes that exist. */
int32_t pf_logits_check_sizes(const char *call, int64_t rows, int64_t vocab, int64_t row_stride);

/* Every target is -1 or below vocab. */
int32_t pf_logits_check_targets(const char *call, int64_t rows, int64_t vocab,
                                const int32_t *target);

/* Every grad_logp / temperature of a row with a target is finite and fits a float. */
int32_t pf_logits_check_gradient(const char *call, int64_t rows, const int32_t *target,
                                 double temperature, const double *grad_logp);

/* Whether the row takes part in a backward pass. */
static inline bool pf_logits_has_gradient(int32_t target, double grad_logp)
{
    return target >= 0 && grad_logp != 0;
}

#endif
