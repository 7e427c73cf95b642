/* Kept logits: the blocks of logit_tiles.c, each with tiles of its own. */
#include <math.h>

#include "math/pf_gemm.h"
#include "math/pf_kept_logits.h"

/* Where the parts of the memory begin, in bytes; end: all of it. -1: overflow. */
typedef struct {
    int64_t block, n_blocks, slice, n_slices, n_groups;
    int64_t tiles, slice_max, accumulator, slice_sum, target_logit, log_z, active, end;
} plan;

static int64_t add(int64_t at, int64_t a, int64_t b, size_t size)
{
    int64_t n;
    if (at < 0 || !pf_mul(a, b, &n) || !pf_mul(n, (int64_t)size, &n) || !pf_add(at, n, &n) ||
        n > INT64_MAX / 2)
        return -1;
    return (n + 63) / 64 * 64;
}

static plan make_plan(int64_t rows, int64_t width, int64_t vocab)
{
    plan p;
    p.n_blocks = pf_parts(rows, PF_TILE_BACKWARD_ROWS);
    p.block = pf_parts(rows, p.n_blocks);
    p.slice = pf_least(vocab, PF_TILE_SLICE);
    p.n_slices = pf_parts(vocab, p.slice);
    p.n_groups = pf_least(p.n_slices, PF_TILE_GROUPS);
    int64_t padded = p.n_blocks * p.block;
    p.tiles = 0;
    p.slice_max = add(p.tiles, padded, p.n_slices * p.slice, sizeof(float));
    p.accumulator = add(p.slice_max, padded, p.n_slices, sizeof(float));
    p.slice_sum = add(p.accumulator, p.n_groups * p.block, width, sizeof(float));
    p.target_logit = add(p.slice_sum, p.block, p.n_slices, sizeof(double));
    p.log_z = add(p.target_logit, p.block, 1, sizeof(double));
    p.active = add(p.log_z, padded, 1, sizeof(double));
    p.end = add(p.active, rows, 1, sizeof(int64_t));
    return p;
}

int64_t pf_kept_logits_bytes(int64_t rows, int64_t width, int64_t vocab)
{
    if (rows == 0)
        return 0;
    int64_t end = make_plan(rows, width, vocab).end;
    return end < 0 ? INT64_MAX / 2 : end;
}

/* Block b's memory is what pf_logit_block writes and reads. */
static void use_block(pf_kept_logits *kept, int64_t b)
{
    pf_logit_work *w = &kept->work;
    w->tiles = kept->tiles + b * kept->block_floats;
    w->slice_max = kept->slice_max + b * w->block * w->n_slices;
    w->log_z = kept->log_z + b * w->block;
}

int32_t pf_kept_logits_forward(pf_kept_logits *kept, int64_t rows, int64_t width, int64_t vocab,
                               const float *hidden, const float *weight, const int32_t *target,
                               const pf_logit_mask *mask, double *logp)
{
    plan p = make_plan(rows, width, vocab);
    if (p.end < 0)
        return pf_fail(PREFOPT_ERR_MEMORY, "logits of %lld rows overflow", (long long)rows);
    PF_TRY(pf_gemm_start(kept->context));
    if (p.end > kept->capacity) {
        pf_free(kept->context, kept->memory);
        kept->capacity = 0;
        kept->memory = pf_alloc(kept->context, p.end, 1);
        if (kept->memory == NULL)
            return PREFOPT_ERR_MEMORY;
        kept->capacity = p.end;
    }
    char *m = kept->memory;
    kept->tiles = (float *)(m + p.tiles);
    kept->slice_max = (float *)(m + p.slice_max);
    kept->log_z = (double *)(m + p.log_z);
    kept->block_floats = p.block * p.n_slices * p.slice;
    kept->work = (pf_logit_work){.context = kept->context,
                                 .call = "logits",
                                 .width = width,
                                 .vocab = vocab,
                                 .n_active = rows,
                                 .hidden = hidden,
                                 .weight = weight,
                                 .target = target,
                                 .keep = true,
                                 .active = (int64_t *)(m + p.active),
                                 .block = p.block,
                                 .slice = p.slice,
                                 .n_slices = p.n_slices,
                                 .n_groups = p.n_groups,
                                 .n_tiles = p.n_slices,
                                 .slice_sum = (double *)(m + p.slice_sum),
                                 .target_logit = (double *)(m + p.target_logit),
                                 .accumulator = (float *)(m + p.accumulator)};
    pf_logit_work *w = &kept->work;
    if (mask != NULL)
        w->mask = *mask;
    for (int64_t i = 0; i < rows; i++)
        w->active[i] = i;
    for (int64_t b = 0; b * w->block < rows; b++) {
        use_block(kept, b);
        PF_TRY(pf_logit_block(w, b * w->block));
        for (int64_t r = 0; r < w->count; r++)
            logp[w->first + r] = w->target_logit[r] - w->log_z[r];
    }
    return PREFOPT_OK;
}

void pf_kept_logits_backward(pf_kept_logits *kept, const double *grad_logp, float *grad_hidden,
                             float *grad_weight)
{
    pf_logit_work *w = &kept->work;
    w->grad_logp = grad_logp;
    w->grad_hidden = grad_hidden;
    w->grad_weight = grad_weight;
    for (int64_t b = 0; b * w->block < w->n_active; b++) {
        use_block(kept, b);
        w->first = b * w->block;
        w->count = pf_least(w->block, w->n_active - w->first);
        w->block_hidden = w->hidden + w->first * w->width;
        pf_logit_block_gradient(w);
    }
}

void pf_kept_logits_clear(pf_kept_logits *kept)
{
    pf_free(kept->context, kept->memory);
    *kept = (pf_kept_logits){.context = kept->context};
}
