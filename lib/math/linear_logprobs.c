/* The public calls on hidden states: checks, sizes and memory around the tiles of logit_tiles.c. */
#include <float.h>
#include <math.h>

#include "math/pf_gemm.h"
#include "math/pf_logit_tiles.h"
#include "math/pf_logits.h"
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
    SLICE_LEAST = 64, /* tokens of a slice, but for the vocabulary's end */
    ROWS_LEAST = 16,
    MAX_TILES_IN_BUDGET = 64 /* threads whose forward tiles the budget must hold */
};

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
    int64_t first = task * CHECK_ROWS, end = pf_least(check->rows, first + CHECK_ROWS), row = first;
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
    pf_parallel_for(context, pf_parts(rows, CHECK_ROWS), finite_task, &check);
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
    if (!pf_mul(pf_most(rows, vocab), width, &elements) || !pf_mul(elements, sizeof(float), &bytes))
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

static void give_back(pf_logit_work *w)
{
    void *blocks[] = {w->active,    w->logp,      w->gathered, w->tiles,       w->in_use,
                      w->slice_max, w->slice_sum, w->log_z,    w->accumulator, w->target_logit};
    for (size_t i = 0; i < sizeof blocks / sizeof blocks[0]; i++)
        pf_free(w->context, blocks[i]);
}

/* Sizes of blocks and slices: from the shapes and the byte budget alone, never from the threads. */
static void choose_sizes(pf_logit_work *w)
{
    int64_t budget = pf_context_byte_budget(w->context) / (int64_t)sizeof(float);
    int64_t limit, rows;
    w->slice = pf_least(w->vocab, PF_TILE_SLICE);
    if (w->grad_logp != NULL) {
        /* Elements a row: its logits, H gathered, its accumulators, max and sum by slice. */
        int64_t n_slices = pf_parts(w->vocab, w->slice);
        int64_t a_row =
            w->vocab + w->width * (1 + pf_least(n_slices, PF_TILE_GROUPS)) + 3 * n_slices + 4;
        limit = PF_TILE_BACKWARD_ROWS;
        rows = budget / a_row;
    } else {
        budget /= MAX_TILES_IN_BUDGET;
        while (w->slice > SLICE_LEAST && budget / w->slice < 4 * ROWS_LEAST)
            w->slice = pf_most(w->slice / 2, SLICE_LEAST);
        limit = PF_TILE_FORWARD_ROWS;
        rows = budget / w->slice;
    }
    rows = pf_least(limit, pf_most(rows, ROWS_LEAST));
    /* Blocks of even size, so that no small one is left for the end. */
    int64_t blocks = pf_parts(w->n_active, rows);
    w->block = pf_parts(w->n_active, blocks);
    w->n_slices = pf_parts(w->vocab, w->slice);
    w->n_groups = pf_least(w->n_slices, PF_TILE_GROUPS);
    w->n_tiles = w->grad_logp != NULL ? w->n_slices
                                      : pf_least(w->n_slices, prefopt_context_threads(w->context));
}

/* Lists the rows that take part, chooses sizes and takes all memory. On failure give_back frees
 * what there is. */
static int32_t prepare(pf_logit_work *w, int64_t rows)
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

/* ---------------------------------------------------------------- forward */

/* w->logp for every row that takes part. */
static int32_t forward(pf_logit_work *w)
{
    for (int64_t first = 0; first < w->n_active; first += w->block) {
        PF_TRY(pf_logit_block(w, first));
        for (int64_t r = 0; r < w->count; r++)
            w->logp[first + r] = w->target_logit[r] - w->log_z[r];
    }
    return PREFOPT_OK;
}

int32_t pf_linear_logprobs(prefopt_context *context, int64_t rows, int64_t width, int64_t vocab,
                           const float *hidden, const float *weight, const int32_t *target,
                           const pf_logit_mask *mask, double *logp)
{
    static const char call[] = "prefopt_linear_logprobs";
    PF_TRY(check(call, context, rows, width, vocab, hidden, weight, target));
    if (rows == 0)
        return PREFOPT_OK;
    if (logp == NULL)
        return pf_fail(PREFOPT_ERR_ARGUMENT, "%s: logp is NULL", call);
    float largest;
    PF_TRY(check_finite(context, call, "hidden", rows, width, hidden, target, &largest));
    PF_TRY(check_finite(context, call, "weight", vocab, width, weight, NULL, &largest));
    pf_logit_work w = {.context = context,
                       .call = call,
                       .width = width,
                       .vocab = vocab,
                       .hidden = hidden,
                       .weight = weight,
                       .target = target};
    if (mask != NULL)
        w.mask = *mask;
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

int32_t prefopt_linear_logprobs(prefopt_context *context, int64_t rows, int64_t width,
                                int64_t vocab, const float *hidden, const float *weight,
                                const int32_t *target, double *logp)
{
    return pf_linear_logprobs(context, rows, width, vocab, hidden, weight, target, NULL, logp);
}

/* ---------------------------------------------------------------- backward */

static int32_t backward(pf_logit_work *w, int64_t rows)
{
    int64_t next = 0;
    for (int64_t first = 0; first < w->n_active; first += w->block) {
        PF_TRY(pf_logit_block(w, first));
        pf_logit_block_gradient(w);
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
    pf_logit_work w = {.context = context,
                       .call = __func__,
                       .width = width,
                       .vocab = vocab,
                       .hidden = hidden,
                       .weight = weight,
                       .target = target,
                       .grad_logp = grad_logp,
                       .keep = true,
                       .grad_hidden = grad_hidden,
                       .grad_weight = grad_weight};
    PF_TRY(pf_gemm_start(context));
    int32_t status = prepare(&w, rows);
    /* Gradients are written block by block, so no logit may overflow half-way: where the sizes do
     * not rule it out, every logit is computed once before. */
    if (status == PREFOPT_OK && (double)of_hidden * of_weight * (double)width > FLT_MAX * 0.5)
        for (int64_t first = 0; first < w.n_active && status == PREFOPT_OK; first += w.block)
            status = pf_logit_block(&w, first);
    if (status == PREFOPT_OK)
        status = backward(&w, rows);
    give_back(&w);
    return status;
}
