/* Log-probabilities of targets from hidden states, by tiles of logits: what the calls of
 * linear_logprobs.c and the kept logits of kept_logits.c share (logit_tiles.c). */
#ifndef PF_LOGIT_TILES_H
#define PF_LOGIT_TILES_H

#include <stdatomic.h>

#include "base/pf_base.h"

enum {
    PF_TILE_SLICE = 512,         /* tokens of a slice, where the byte budget allows */
    PF_TILE_FORWARD_ROWS = 1024, /* rows of a block, at most */
    PF_TILE_BACKWARD_ROWS = 512,
    PF_TILE_GROUPS = 16 /* accumulators of grad H */
};

/* Which tokens a row's distribution is over: the logits of the others are -INFINITY. */
typedef struct {
    const uint8_t *allowed; /* [vocab, vocab]: whether the column's token may follow the row's */
    const int32_t *before;  /* [rows]: the token before each row's target */
} pf_logit_mask;

typedef struct pf_logit_work {
    prefopt_context *context;
    const char *call;
    int64_t width, vocab, n_active;
    const float *hidden, *weight;
    const int32_t *target;
    pf_logit_mask mask;      /* allowed NULL: every token; else targets may have logit -INFINITY */
    const double *grad_logp; /* NULL: forward */
    bool keep;               /* each tile stays: E in place of Z */
    float *grad_hidden, *grad_weight;

    int64_t *active; /* n_active: the rows that take part */
    double *logp;    /* n_active: forward's result */

    int64_t block, slice, n_slices, n_groups, n_tiles;
    const float *block_hidden; /* [block, width]: in place, or gathered */
    float *gathered;
    float *tiles;         /* n_tiles of [block, slice] */
    atomic_bool *in_use;  /* forward: n_tiles */
    float *slice_max;     /* [n_slices, block] */
    double *slice_sum;    /* [n_slices, block] */
    double *target_logit; /* [block] */
    double *log_z;        /* [block] */
    float *accumulator;   /* backward: [n_groups, block, width] */

    int64_t first, count; /* the block at hand: active[first .. first + count - 1] */
} pf_logit_work;

static inline int64_t pf_least(int64_t a, int64_t b) { return a < b ? a : b; }
static inline int64_t pf_most(int64_t a, int64_t b) { return a > b ? a : b; }
static inline int64_t pf_parts(int64_t n, int64_t each) { return n / each + (n % each != 0); }

/* Behind prefopt_linear_logprobs; mask may be NULL. A target that is not allowed has -INFINITY. */
int32_t pf_linear_logprobs(prefopt_context *context, int64_t rows, int64_t width, int64_t vocab,
                           const float *hidden, const float *weight, const int32_t *target,
                           const pf_logit_mask *mask, double *logp);

/* Takes up the block that starts at active row `first`: gathers H, computes the logits' (m, s) and
 * log z. NUMERIC names the row whose logit overflows. */
int32_t pf_logit_block(pf_logit_work *w, int64_t first);

/* From the E of the block taken up last to its gradients: grad W added to, grad H written. */
void pf_logit_block_gradient(pf_logit_work *w);

#endif
