/* prefopt/logits.h: log-probabilities of target tokens from float32 logits, or from hidden states
 * and the output matrix without ever holding the logits; and the gradients back.
 *
 *     prefopt_logprobs_from_logits(rows, vocab, logits, vocab, target, 1.0, logp);
 *     ... a loss gives grad_logp = d loss / d logp ...
 *     prefopt_logprobs_backward(rows, vocab, logits, vocab, target, 1.0, grad_logp, logits);
 *
 * With z the logits of a row, t its target and T the temperature,
 *     logp = z_t / T - log sum_j exp(z_j / T),    d logp / d z_j = ([j = t] - softmax(z / T)_j) / T
 * (the softmax policy of the lecture, section 22.1). Sums are taken in double, terms in float:
 * log-probabilities are right to about 1e-6.
 *
 * Target -1 skips the row (a prompt's token, padding): its logits and hidden states are not read.
 * A logit of -INFINITY is a masked token: probability 0, gradient 0; if it is the target, logp is
 * -INFINITY.
 */
#ifndef PREFOPT_LOGITS_H
#define PREFOPT_LOGITS_H

#include "base.h"

#ifdef __cplusplus
extern "C" {
#endif

/* logp [rows] = log softmax(logits / temperature) at each row's target.
 *
 * logits: [rows, vocab], rows row_stride >= vocab elements apart. target: [rows], 0 .. vocab - 1,
 * or -1 to skip the row, for which 0 is written. temperature: > 0 and finite; 1 for the policy's
 * own. rows = 0 is fine. logp must not overlap the inputs.
 * Errors: ARGUMENT (NULL, a size or target out of range, temperature), NUMERIC (a logit is NaN or
 * +INFINITY, or a row holds -INFINITY alone). Thread-safe. Since 0.1. */
PREFOPT_API int32_t prefopt_logprobs_from_logits(int64_t rows, int64_t vocab, const float *logits,
                                                 int64_t row_stride, const int32_t *target,
                                                 double temperature, double *logp);

/* grad_logits [rows, vocab] = grad_logp[row] * d logp[row] / d logits: written, rows row_stride
 * elements apart like the logits; what lies between the rows stays. It may be logits itself; else
 * the two must not overlap.
 *
 * grad_logp: [rows], finite and within float's range. A row that is skipped or whose grad_logp is 0
 * gets zeros, and its logits are not read. All other rows are checked before anything is written.
 * Errors: as prefopt_logprobs_from_logits; NUMERIC (grad_logp). Thread-safe. Since 0.1. */
PREFOPT_API int32_t prefopt_logprobs_backward(int64_t rows, int64_t vocab, const float *logits,
                                              int64_t row_stride, const int32_t *target,
                                              double temperature, const double *grad_logp,
                                              float *grad_logits);

/* logp [rows] at temperature 1 for logits = hidden weight^T, computed tile by tile: never holds
 * [rows, vocab].
 *
 * hidden: [rows, width]. weight: [vocab, width]. target: [rows] as above. width >= 1. Works on the
 * context's threads with at most about its byte budget of temporaries (at least a tile of 16 rows
 * and 64 tokens for each thread); the bits do not depend on the threads, but may on the budget.
 * Errors: ARGUMENT (NULL, a size or target out of range), MEMORY, NUMERIC (a hidden state of a row
 * with a target, or a weight, is not finite, or a logit overflows). Thread-safe. Since 0.1. */
PREFOPT_API int32_t prefopt_linear_logprobs(prefopt_context *context, int64_t rows, int64_t width,
                                            int64_t vocab, const float *hidden, const float *weight,
                                            const int32_t *target, double *logp);

/* The gradients of sum_i grad_logp[i] logp[i]: with G [rows, vocab] that of the logits,
 *     grad_hidden [rows, width] = G weight       (written; zeros where a row is skipped)
 *     grad_weight [vocab, width] += G^T hidden   (added to; NULL: not computed)
 *
 * The logits are computed again, for as many rows at a time as the byte budget holds (at least 16
 * rows). grad_logp: [rows], finite and within float's range; a row whose grad_logp is 0 gets zeros
 * in grad_hidden. The gradients must not overlap the inputs or each other. The bits do not depend
 * on the threads, but may on the budget.
 * Errors: as prefopt_linear_logprobs; NUMERIC (grad_logp). Thread-safe. Since 0.1. */
PREFOPT_API int32_t prefopt_linear_logprobs_backward(prefopt_context *context, int64_t rows,
                                                     int64_t width, int64_t vocab,
                                                     const float *hidden, const float *weight,
                                                     const int32_t *target, const double *grad_logp,
                                                     float *grad_hidden, float *grad_weight);

#ifdef __cplusplus
}
#endif
#endif
