/* Log-probabilities of targets from hidden states H [rows, width] and the output matrix
 * W [vocab, width], and the gradients back, without [rows, vocab] logits.
 *
 * The rows that take part are worked through in blocks of R, and the vocabulary in slices of
 * PF_TILE_SLICE tokens; one tile is the R x L logits of a block and a slice. For each tile:
 *     Z = H_block W_slice^T,   m_i = max_j Z_ij,   E_ij = exp(Z_ij - m_i),   s_i = sum_j E_ij
 * and the row's normaliser comes from the (m, s) of its slices, combined in their order, in double:
 *     log z_i = M_i + log sum_slices s_i exp(m_i - M_i),    M_i = max over slices of m_i.
 *
 * Forward: a tile is scratch of one thread, gone once its (m, s) and the target's logit are taken.
 *
 * Backward: a block keeps the E of all its slices, so that neither the product nor the exponentials
 * are done twice: once log z is known,
 *     G_ij = g_i ([j = t_i] - E_ij exp(m_i - log z_i)),
 * which is a scaling in place. Then grad W_slice += G^T H_block, and grad H_block = sum over slices
 * of G W_slice, which PF_TILE_GROUPS accumulators gather, each from slices of its own in their
 * order, so that the bits do not depend on the threads.
 *
 * Every product is one single-threaded BLIS call from a task. */
#include <float.h>
#include <math.h>

#include "math/pf_gemm.h"
#include "math/pf_logit_tiles.h"
#include "math/pf_rows.h"

static int64_t slice_length(const pf_logit_work *w, int64_t slice)
{
    return pf_least(w->slice, w->vocab - slice * w->slice);
}

/* A tile that no other task uses: there are as many as threads. Which one does not matter. */
static int64_t take_tile(pf_logit_work *w)
{
    for (int64_t i = 0;; i = (i + 1) % w->n_tiles)
        if (!atomic_exchange_explicit(&w->in_use[i], true, memory_order_acquire))
            return i;
}

/* A token that may not follow has probability 0: E_ij = 0, and with it no gradient. */
static void mask_row(const pf_logit_work *w, int64_t r, int64_t from, int64_t length, float *z)
{
    int64_t before = w->mask.before[w->active[w->first + r]];
    pf_row_mask(length, w->mask.allowed + before * w->vocab + from, z);
}

static bool is_allowed(const pf_logit_work *w, int64_t r)
{
    int64_t row = w->active[w->first + r];
    return w->mask.allowed == NULL ||
           w->mask.allowed[w->mask.before[row] * w->vocab + w->target[row]] != 0;
}

/* Z of the block and this slice, its (m, s) and, where the target is in it, the target's logit;
 * backward: E in place of Z. */
static void logits_task(void *payload, int64_t slice)
{
    pf_logit_work *w = payload;
    bool keep = w->keep;
    int64_t at = keep ? slice : take_tile(w);
    int64_t length = slice_length(w, slice), from = slice * w->slice;
    float *tile = w->tiles + at * w->block * w->slice;
    pf_sgemm_serial(false, true, w->count, length, w->width, 1, w->block_hidden, w->width,
                    w->weight + from * w->width, w->width, 0, tile, length);
    for (int64_t r = 0; r < w->count; r++) {
        float *z = tile + r * length, max;
        if (w->mask.allowed != NULL)
            mask_row(w, r, from, length, z);
        int64_t target = w->target[w->active[w->first + r]] - from;
        if (target >= 0 && target < length)
            w->target_logit[r] = (double)z[target];
        double sum = 0;
        if (!pf_row_max(length, z, &max))
            max = NAN; /* pf_logit_block finds it */
        else if (max != -INFINITY)
            sum = pf_row_exp_sum(length, z, max, 1, keep ? z : NULL);
        else if (keep)
            memset(z, 0, (size_t)length * sizeof *z);
        w->slice_max[slice * w->block + r] = max;
        w->slice_sum[slice * w->block + r] = sum;
    }
    if (!keep)
        atomic_store_explicit(&w->in_use[at], false, memory_order_release);
}

/* Takes up the block that starts at active row `first`: gathers H, computes the logits' (m, s) and
 * log z. */
int32_t pf_logit_block(pf_logit_work *w, int64_t first)
{
    w->first = first;
    w->count = pf_least(w->block, w->n_active - first);
    w->block_hidden = w->hidden + w->active[first] * w->width;
    if (w->gathered != NULL) {
        for (int64_t r = 0; r < w->count; r++)
            memcpy(w->gathered + r * w->width, w->hidden + w->active[first + r] * w->width,
                   (size_t)w->width * sizeof *w->gathered);
        w->block_hidden = w->gathered;
    }
    pf_parallel_for(w->context, w->n_slices, logits_task, w);
    for (int64_t r = 0; r < w->count; r++) {
        double max = -INFINITY, sum = 0;
        for (int64_t s = 0; s < w->n_slices; s++)
            max = fmax(max, (double)w->slice_max[s * w->block + r]);
        for (int64_t s = 0; s < w->n_slices; s++)
            sum +=
                w->slice_sum[s * w->block + r] * exp((double)w->slice_max[s * w->block + r] - max);
        w->log_z[r] = max + log(sum);
        if (!isfinite(w->log_z[r]) || (!isfinite(w->target_logit[r]) && is_allowed(w, r)))
            return pf_fail(PREFOPT_ERR_NUMERIC, "%s: a logit of row %lld overflows a float",
                           w->call, (long long)w->active[first + r]);
    }
    return PREFOPT_OK;
}

/* ---------------------------------------------------------------- backward */

/* G from E, in place. */
static void to_gradient(const pf_logit_work *w, int64_t slice, float *tile)
{
    int64_t length = slice_length(w, slice), from = slice * w->slice;
    for (int64_t r = 0; r < w->count; r++) {
        int64_t row = w->active[w->first + r], target = w->target[row] - from;
        double g = w->grad_logp[row];
        double share = exp((double)w->slice_max[slice * w->block + r] - w->log_z[r]);
        float *e = tile + r * length;
        double at_target = target >= 0 && target < length ? g * (1 - (double)e[target] * share) : 0;
        pf_row_scale(length, e, (float)(-g * share));
        if (target >= 0 && target < length)
            e[target] = (float)at_target;
    }
}

/* The slices of one group: their part of grad W, and the group's sum for grad H. */
static void gradient_task(void *payload, int64_t group)
{
    pf_logit_work *w = payload;
    float *sum = w->accumulator + group * w->block * w->width;
    float beta = 0;
    for (int64_t s = group; s < w->n_slices; s += w->n_groups) {
        int64_t length = slice_length(w, s), from = s * w->slice;
        float *tile = w->tiles + s * w->block * w->slice;
        to_gradient(w, s, tile);
        if (w->grad_weight != NULL)
            pf_sgemm_serial(true, false, length, w->width, w->count, 1, tile, length,
                            w->block_hidden, w->width, 1, w->grad_weight + from * w->width,
                            w->width);
        pf_sgemm_serial(false, false, w->count, w->width, length, 1, tile, length,
                        w->weight + from * w->width, w->width, beta, sum, w->width);
        beta = 1;
    }
}

/* grad H of one row of the block: its groups in their order. */
static void add_groups_task(void *payload, int64_t r)
{
    pf_logit_work *w = payload;
    float *out = w->grad_hidden + w->active[w->first + r] * w->width;
    memcpy(out, w->accumulator + r * w->width, (size_t)w->width * sizeof *out);
    for (int64_t group = 1; group < w->n_groups; group++) {
        const float *part = w->accumulator + (group * w->block + r) * w->width;
        for (int64_t j = 0; j < w->width; j++)
            out[j] += part[j];
    }
}

void pf_logit_block_gradient(pf_logit_work *w)
{
    pf_parallel_for(w->context, w->n_groups, gradient_task, w);
    pf_parallel_for(w->context, w->count, add_groups_task, w);
}
