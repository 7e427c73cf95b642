/* Log-probabilities of targets from hidden states H [rows, width] and the output matrix
 * W [vocab, width], and the gradients back, without [rows, vocab] logits.
 *
 * The rows that take part are worked through in blocks of R, and the vocabulary in slices of
 * SLICE tokens; one tile is the R x L logits of a block and a slice. For each tile:
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
 * of G W_slice, which GROUPS accumulators gather, each from slices of its own in their order, so
 * that the bits do not depend on the threads.
 *
 * Every product is one single-threaded BLIS call from a task. */
#include <float.h>
#include <math.h>
#include <stdatomic.h>

#include "math/pf_logits.h"
#include "math/pf_gemm.h"
#include "math/pf_rows.h"
#include "prefopt/logits.h"

/* Why these sizes. A task's product packs m k + n k elements for its 2 m n k operations, so both
 * sides of a tile must be hundreds long; but a tile should be in the cache still when the
 * exponentials pass over it (512 x 512 floats are 1 MiB), and a backward block's tiles are the
 * call's memory: 512 rows of 50,304 tokens are 98 MiB, and each block reads and writes grad W once.
 * Blocks of 1,024 rows and slices of 384 to 2,048 tokens took 3 to 20 % more processor time.
 * So cut, 84 % of the time is BLIS's, 5 % the passes over rows, the rest the first touch of the
 * tiles' memory (perf, 2,048 rows, width 512). */
enum {
    SLICE = 512,         /* tokens of a slice, where the byte budget allows */
    SLICE_LEAST = 64,    /* and never fewer, but for the vocabulary's end */
    FORWARD_ROWS = 1024, /* rows of a block, at most */
    BACKWARD_ROWS = 512,
    ROWS_LEAST = 16,
    GROUPS = 16,             /* accumulators of grad H */
    MAX_TILES_IN_BUDGET = 64 /* threads whose forward tiles the budget must hold */
};

typedef struct {
    prefopt_context *context;
    const char *call;
    int64_t width, vocab, n_active;
    const float *hidden, *weight;
    const int32_t *target;
    const double *grad_logp; /* NULL: forward */
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
} work;

static int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }
static int64_t most(int64_t a, int64_t b) { return a > b ? a : b; }
static int64_t parts(int64_t n, int64_t each) { return n / each + (n % each != 0); }

/* ---------------------------------------------------------------- checks */

enum { CHECK_ROWS = 512 };

typedef struct {
    int64_t rows, width;
    const float *x;
    const int32_t *target; /* rows with -1 are not looked at; NULL: all are */
    _Atomic int64_t bad;   /* a bad element lies in this row or, without targets, soon after */
    _Atomic float largest;
} finite_check;

static void finite_task(void *payload, int64_t task)
{
    finite_check *check = payload;
    int64_t first = task * CHECK_ROWS, end = least(check->rows, first + CHECK_ROWS), row = first;
    float top = 0;
    bool good = true;
    if (check->target == NULL)
        good = pf_row_finite((end - first) * check->width, check->x + first * check->width, &top);
    for (; check->target != NULL && row < end; row++) {
        float largest = 0;
        good = check->target[row] < 0 ||
               pf_row_finite(check->width, check->x + row * check->width, &largest);
        top = largest > top ? largest : top;
        if (!good)
            break;
    }
    int64_t bad = atomic_load(&check->bad);
    while (!good && row < bad && !atomic_compare_exchange_weak(&check->bad, &bad, row))
        ;
    float known = atomic_load(&check->largest);
    while (top > known && !atomic_compare_exchange_weak(&check->largest, &known, top))
        ;
}

/* Every element of x [rows, width] is finite; *largest is the largest magnitude. */
static int32_t check_finite(prefopt_context *context, const char *call, const char *name,
                            int64_t rows, int64_t width, const float *x, const int32_t *target,
                            float *largest)
{
    finite_check check = {.rows = rows, .width = width, .x = x, .target = target};
    atomic_init(&check.bad, rows);
    atomic_init(&check.largest, 0);
    pf_parallel_for(context, parts(rows, CHECK_ROWS), finite_task, &check);
    int64_t at = atomic_load(&check.bad) * width;
    *largest = atomic_load(&check.largest);
    if (at == rows * width)
        return PREFOPT_OK;
    while (isfinite(x[at]))
        at++;
    return pf_fail(PREFOPT_ERR_NUMERIC, "%s: %s[%lld, %lld] is %g, expected a finite number", call,
                   name, (long long)(at / width), (long long)(at % width), (double)x[at]);
}

static int32_t check(const char *call, const prefopt_context *context, int64_t rows, int64_t width,
                     int64_t vocab, const float *hidden, const float *weight, const int32_t *target)
{
    if (context == NULL)
        return pf_fail(PREFOPT_ERR_ARGUMENT, "%s: context is NULL", call);
    PF_TRY(pf_logits_check_sizes(call, rows, vocab, vocab));
    int64_t elements, bytes;
    if (width < 1)
        return pf_fail(PREFOPT_ERR_ARGUMENT, "%s: width is %lld, expected >= 1", call,
                       (long long)width);
    if (!pf_mul(most(rows, vocab), width, &elements) || !pf_mul(elements, sizeof(float), &bytes))
        return pf_fail(PREFOPT_ERR_ARGUMENT,
                       "%s: rows * width or vocab * width overflows (%lld, %lld, %lld)", call,
                       (long long)rows, (long long)width, (long long)vocab);
    if (rows == 0)
        return PREFOPT_OK;
    if (hidden == NULL || weight == NULL || target == NULL)
        return pf_fail(PREFOPT_ERR_ARGUMENT, "%s: %s is NULL", call,
                       hidden == NULL   ? "hidden"
                       : weight == NULL ? "weight"
                                        : "target");
    return pf_logits_check_targets(call, rows, vocab, target);
}

/* ---------------------------------------------------------------- memory */

static void give_back(work *w)
{
    void *blocks[] = {w->active,    w->logp,      w->gathered, w->tiles,       w->in_use,
                      w->slice_max, w->slice_sum, w->log_z,    w->accumulator, w->target_logit};
    for (size_t i = 0; i < sizeof blocks / sizeof blocks[0]; i++)
        pf_free(w->context, blocks[i]);
}

/* Sizes of blocks and slices: from the shapes and the byte budget alone, never from the threads. */
static void choose_sizes(work *w)
{
    int64_t budget = pf_context_byte_budget(w->context) / (int64_t)sizeof(float);
    int64_t limit, rows;
    w->slice = least(w->vocab, SLICE);
    if (w->grad_logp != NULL) {
        /* Elements a row: its logits, H gathered, its accumulators, max and sum by slice. */
        int64_t n_slices = parts(w->vocab, w->slice);
        int64_t a_row = w->vocab + w->width * (1 + least(n_slices, GROUPS)) + 3 * n_slices + 4;
        limit = BACKWARD_ROWS;
        rows = budget / a_row;
    } else {
        budget /= MAX_TILES_IN_BUDGET;
        while (w->slice > SLICE_LEAST && budget / w->slice < 4 * ROWS_LEAST)
            w->slice = most(w->slice / 2, SLICE_LEAST);
        limit = FORWARD_ROWS;
        rows = budget / w->slice;
    }
    rows = least(limit, most(rows, ROWS_LEAST));
    /* Blocks of even size, so that no small one is left for the end. */
    int64_t blocks = parts(w->n_active, rows);
    w->block = parts(w->n_active, blocks);
    w->n_slices = parts(w->vocab, w->slice);
    w->n_groups = least(w->n_slices, GROUPS);
    w->n_tiles = w->grad_logp != NULL ? w->n_slices
                                      : least(w->n_slices, prefopt_context_threads(w->context));
}

/* Lists the rows that take part, chooses sizes and takes all memory. On failure give_back frees
 * what there is. */
static int32_t prepare(work *w, int64_t rows)
{
    w->active = pf_alloc(w->context, rows, sizeof *w->active);
    if (w->active == NULL)
        return PREFOPT_ERR_MEMORY;
    for (int64_t i = 0; i < rows; i++)
        if (w->grad_logp == NULL ? w->target[i] >= 0
                                 : pf_logits_has_gradient(w->target[i], w->grad_logp[i]))
            w->active[w->n_active++] = i;
    if (w->n_active == 0)
        return PREFOPT_OK;
    choose_sizes(w);
    prefopt_context *c = w->context;
    int64_t tile = w->block * w->slice;
    bool gather = w->active[w->n_active - 1] - w->active[0] != w->n_active - 1;
    bool memory =
        (w->logp = pf_alloc(c, w->n_active, sizeof *w->logp)) != NULL &&
        (!gather ||
         (w->gathered = pf_alloc(c, w->block, (size_t)w->width * sizeof *w->gathered)) != NULL) &&
        (w->tiles = pf_alloc(c, w->n_tiles, (size_t)tile * sizeof *w->tiles)) != NULL &&
        (w->in_use = pf_calloc(c, w->n_tiles, sizeof *w->in_use)) != NULL &&
        (w->slice_max = pf_alloc(c, w->n_slices * w->block, sizeof *w->slice_max)) != NULL &&
        (w->slice_sum = pf_alloc(c, w->n_slices * w->block, sizeof *w->slice_sum)) != NULL &&
        (w->target_logit = pf_alloc(c, w->block, sizeof *w->target_logit)) != NULL &&
        (w->log_z = pf_alloc(c, w->block, sizeof *w->log_z)) != NULL &&
        (w->grad_logp == NULL ||
         (w->accumulator = pf_alloc(c, w->n_groups * w->block,
                                    (size_t)w->width * sizeof *w->accumulator)) != NULL);
    return memory ? PREFOPT_OK : PREFOPT_ERR_MEMORY;
}

/* ---------------------------------------------------------------- a tile's logits */

static int64_t slice_length(const work *w, int64_t slice)
{
    return least(w->slice, w->vocab - slice * w->slice);
}

/* A tile that no other task uses: there are as many as threads. Which one does not matter. */
static int64_t take_tile(work *w)
{
    for (int64_t i = 0;; i = (i + 1) % w->n_tiles)
        if (!atomic_exchange_explicit(&w->in_use[i], true, memory_order_acquire))
            return i;
}

/* Z of the block and this slice, its (m, s) and, where the target is in it, the target's logit;
 * backward: E in place of Z. */
static void logits_task(void *payload, int64_t slice)
{
    work *w = payload;
    bool keep = w->grad_logp != NULL;
    int64_t at = keep ? slice : take_tile(w);
    int64_t length = slice_length(w, slice), from = slice * w->slice;
    float *tile = w->tiles + at * w->block * w->slice;
    pf_sgemm_serial(false, true, w->count, length, w->width, 1, w->block_hidden, w->width,
                    w->weight + from * w->width, w->width, 0, tile, length);
    for (int64_t r = 0; r < w->count; r++) {
        float *z = tile + r * length, max;
        int64_t target = w->target[w->active[w->first + r]] - from;
        if (target >= 0 && target < length)
            w->target_logit[r] = (double)z[target];
        double sum = 0;
        if (!pf_row_max(length, z, &max))
            max = NAN; /* do_block finds it */
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
static int32_t do_block(work *w, int64_t first)
{
    w->first = first;
    w->count = least(w->block, w->n_active - first);
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
        if (!isfinite(w->log_z[r]) || !isfinite(w->target_logit[r]))
            return pf_fail(PREFOPT_ERR_NUMERIC, "%s: a logit of row %lld overflows a float",
                           w->call, (long long)w->active[first + r]);
    }
    return PREFOPT_OK;
}

/* ---------------------------------------------------------------- forward */

/* w->logp for every row that takes part. */
static int32_t forward(work *w)
{
    for (int64_t first = 0; first < w->n_active; first += w->block) {
        PF_TRY(do_block(w, first));
        for (int64_t r = 0; r < w->count; r++)
            w->logp[first + r] = w->target_logit[r] - w->log_z[r];
    }
    return PREFOPT_OK;
}

int32_t prefopt_linear_logprobs(prefopt_context *context, int64_t rows, int64_t width,
                                int64_t vocab, const float *hidden, const float *weight,
                                const int32_t *target, double *logp)
{
    PF_TRY(check(__func__, context, rows, width, vocab, hidden, weight, target));
    if (rows == 0)
        return PREFOPT_OK;
    PF_REQUIRE(logp);
    float largest;
    PF_TRY(check_finite(context, __func__, "hidden", rows, width, hidden, target, &largest));
    PF_TRY(check_finite(context, __func__, "weight", vocab, width, weight, NULL, &largest));
    work w = {.context = context,
              .call = __func__,
              .width = width,
              .vocab = vocab,
              .hidden = hidden,
              .weight = weight,
              .target = target};
    PF_TRY(pf_gemm_start(context));
    int32_t status = prepare(&w, rows);
    if (status == PREFOPT_OK)
        status = forward(&w);
    if (status == PREFOPT_OK) {
        memset(logp, 0, (size_t)rows * sizeof *logp);
        for (int64_t i = 0; i < w.n_active; i++)
            logp[w.active[i]] = w.logp[i];
    }
    give_back(&w);
    return status;
}

/* ---------------------------------------------------------------- backward */

/* G from E, in place. */
static void to_gradient(const work *w, int64_t slice, float *tile)
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
    work *w = payload;
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
    work *w = payload;
    float *out = w->grad_hidden + w->active[w->first + r] * w->width;
    memcpy(out, w->accumulator + r * w->width, (size_t)w->width * sizeof *out);
    for (int64_t group = 1; group < w->n_groups; group++) {
        const float *part = w->accumulator + (group * w->block + r) * w->width;
        for (int64_t j = 0; j < w->width; j++)
            out[j] += part[j];
    }
}

static int32_t backward(work *w, int64_t rows)
{
    int64_t next = 0;
    for (int64_t first = 0; first < w->n_active; first += w->block) {
        PF_TRY(do_block(w, first));
        pf_parallel_for(w->context, w->n_groups, gradient_task, w);
        pf_parallel_for(w->context, w->count, add_groups_task, w);
    }
    for (int64_t i = 0; i < rows; i++) {
        if (next < w->n_active && w->active[next] == i)
            next++;
        else
            memset(w->grad_hidden + i * w->width, 0, (size_t)w->width * sizeof *w->grad_hidden);
    }
    return PREFOPT_OK;
}

int32_t prefopt_linear_logprobs_backward(prefopt_context *context, int64_t rows, int64_t width,
                                         int64_t vocab, const float *hidden, const float *weight,
                                         const int32_t *target, const double *grad_logp,
                                         float *grad_hidden, float *grad_weight)
{
    PF_TRY(check(__func__, context, rows, width, vocab, hidden, weight, target));
    if (rows == 0)
        return PREFOPT_OK;
    PF_REQUIRE(grad_logp);
    PF_REQUIRE(grad_hidden);
    PF_TRY(pf_logits_check_gradient(__func__, rows, target, 1, grad_logp));
    float of_hidden, of_weight;
    PF_TRY(check_finite(context, __func__, "hidden", rows, width, hidden, target, &of_hidden));
    PF_TRY(check_finite(context, __func__, "weight", vocab, width, weight, NULL, &of_weight));
    work w = {.context = context,
              .call = __func__,
              .width = width,
              .vocab = vocab,
              .hidden = hidden,
              .weight = weight,
              .target = target,
              .grad_logp = grad_logp,
              .grad_hidden = grad_hidden,
              .grad_weight = grad_weight};
    PF_TRY(pf_gemm_start(context));
    int32_t status = prepare(&w, rows);
    /* Gradients are written block by block, so no logit may overflow half-way: where the sizes do
     * not rule it out, every logit is computed once before. */
    if (status == PREFOPT_OK && (double)of_hidden * of_weight * (double)width > FLT_MAX * 0.5)
        for (int64_t first = 0; first < w.n_active && status == PREFOPT_OK; first += w.block)
            status = do_block(&w, first);
    if (status == PREFOPT_OK)
        status = backward(&w, rows);
    give_back(&w);
    return status;
}
