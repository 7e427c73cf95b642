/* Causal attention over a ragged batch whose sequences share prompts, forward beside backward.
 *
 * For each head, with q, k, v [rows, head_width] and m the head's width: a row attends to its
 * prompt's rows and to its own completion's rows up to itself,
 *     s = q k^T / sqrt(m),   p = softmax(s),   attended = p v.
 * Scores exist for PF_QUERY_BLOCK query rows at a time, and no more of them than the block can see;
 * what stays for the backward pass is the log-normaliser of each row, from which p comes again:
 *     dv += p^T dattended,   dp = dattended v^T,   ds = p (dp - sum p dp) / sqrt(m),
 *     dq = ds k,   dk += ds^T q.
 * One task is one head of one prompt and all its completions, so that sums into the prompt's k and
 * v have one order, whatever the threads. */
#include <math.h>

#include "math/pf_gemm.h"
#include "math/pf_ops.h"
#include "math/pf_short_attention.h"
#include "model/pf_network.h"

typedef struct {
    const pf_pass *pass;
    const pf_layer_state *layer;
    float *attended;        /* forward */
    const float *dattended; /* backward */
} attention;

/* One task's part. q, k and v of row i lie at qkv + i * ld (+ 0, m, 2 m). */
typedef struct {
    const float *qkv;
    float *dqkv;
    int64_t ld, m;   /* 3 width, head_width */
    float *attended; /* of row i: + i * width */
    const float *dattended;
    float *lse; /* of this head: [rows] */
    int64_t width;
    float scale;
    float *p, *dp; /* [PF_QUERY_BLOCK, keys] */
} head_part;

static int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }

/* Products that cannot fail: the sizes were checked when memory was cut for them. Those of short
 * sequences would spend their time in BLIS's preparations; which they are, their sizes say. */
enum { SMALL = 1 << 15 };

static void product(bool trans_a, bool trans_b, int64_t m, int64_t n, int64_t k, const float *a,
                    int64_t lda, const float *b, int64_t ldb, float beta, float *c, int64_t ldc)
{
    if (m * n * k <= SMALL) {
        pf_small_product(trans_a, trans_b, m, n, k, a, lda, b, ldb, beta != 0, c, ldc);
        return;
    }
    (void)pf_sgemm_serial(trans_a, trans_b, m, n, k, 1, a, lda, b, ldb, beta, c, ldc);
}

/* Rows first .. first + n - 1 are a block of queries; before them lie `context` rows of the prompt
 * from row `prompt` on, and rows `own` .. first - 1 of the same part. Fills s [n, keys]. */
static void scores(const head_part *h, int64_t first, int64_t n, int64_t prompt, int64_t context,
                   int64_t own, const float *rows_of, int64_t ld, int64_t column, float *s)
{
    int64_t own_keys = first + n - own, keys = context + own_keys;
    if (context > 0)
        product(false, true, n, context, h->m, rows_of + first * ld, ld,
                h->qkv + prompt * h->ld + column, h->ld, 0, s, keys);
    product(false, true, n, own_keys, h->m, rows_of + first * ld, ld, h->qkv + own * h->ld + column,
            h->ld, 0, s + context, keys);
}

/* ---------------------------------------------------------------- short rows
 *
 * A block whose rows see few keys goes row by row; the softmax is computed again on the way back,
 * without a log-normaliser. */

static bool is_short(const head_part *h, int64_t keys)
{
    return keys <= PF_SHORT_KEYS && h->m <= PF_SHORT_WIDTH;
}

/* Rows of q, k and v, and of their gradients, from row `row` on. */
static pf_short_block short_block(const head_part *h, int64_t row, int64_t n)
{
    const float *qkv = h->qkv + row * h->ld;
    pf_short_block block = {.n = n, .stride = h->ld, .keys = qkv + h->m, .values = qkv + 2 * h->m};
    if (h->dqkv != NULL) {
        block.dkeys = h->dqkv + row * h->ld + h->m;
        block.dvalues = block.dkeys + h->m;
    }
    return block;
}

static void short_rows(const head_part *h, int64_t first, int64_t n, int64_t prompt,
                       int64_t context, int64_t own)
{
    pf_short_row row = {.width = h->m, .scale = h->scale};
    if (context > 0)
        row.block[row.n_blocks++] = short_block(h, prompt, context);
    pf_short_block *last = &row.block[row.n_blocks++];
    *last = short_block(h, own, 0);
    for (int64_t i = first; i < first + n; i++) {
        last->n = i + 1 - own;
        row.q = h->qkv + i * h->ld;
        if (h->dqkv == NULL) {
            row.y = h->attended + i * h->width;
            pf_short_attend(&row);
        } else {
            row.dy = h->dattended + i * h->width;
            row.dq = h->dqkv + i * h->ld;
            pf_short_attend_backward(&row);
        }
    }
}

/* ---------------------------------------------------------------- forward */

static void forward_block(const head_part *h, int64_t first, int64_t n, int64_t prompt,
                          int64_t context, int64_t own)
{
    int64_t own_keys = first + n - own, keys = context + own_keys;
    if (is_short(h, keys)) {
        short_rows(h, first, n, prompt, context, own);
        return;
    }
    scores(h, first, n, prompt, context, own, h->qkv, h->ld, h->m, h->p);
    pf_softmax_rows(n, keys, keys, context + first - own, h->scale, h->p, h->lse + first);
    float *out = h->attended + first * h->width;
    if (context > 0)
        product(false, false, n, h->m, context, h->p, keys, h->qkv + prompt * h->ld + 2 * h->m,
                h->ld, 0, out, h->width);
    product(false, false, n, h->m, own_keys, h->p + context, keys, h->qkv + own * h->ld + 2 * h->m,
            h->ld, context > 0, out, h->width);
}

/* ---------------------------------------------------------------- backward */

static void backward_block(const head_part *h, int64_t first, int64_t n, int64_t prompt,
                           int64_t context, int64_t own)
{
    int64_t own_keys = first + n - own, keys = context + own_keys, m = h->m;
    int64_t seen = context + first - own;
    if (is_short(h, keys)) {
        short_rows(h, first, n, prompt, context, own);
        return;
    }
    scores(h, first, n, prompt, context, own, h->qkv, h->ld, m, h->p);
    pf_softmax_again(n, keys, keys, seen, h->scale, h->lse + first, h->p);
    scores(h, first, n, prompt, context, own, h->dattended, h->width, 2 * m, h->dp);
    const float *dout = h->dattended + first * h->width, *q = h->qkv + first * h->ld;
    const struct {
        int64_t row, n, column; /* keys, and where they lie in p */
    } parts[2] = {{prompt, context, 0}, {own, own_keys, context}};
    for (int64_t i = 0; i < 2; i++)
        if (parts[i].n > 0)
            product(true, false, parts[i].n, m, n, h->p + parts[i].column, keys, dout, h->width, 1,
                    h->dqkv + parts[i].row * h->ld + 2 * m, h->ld);
    pf_softmax_backward(n, keys, keys, seen, h->scale, h->p, h->dp);
    for (int64_t i = 0; i < 2; i++)
        if (parts[i].n > 0) {
            product(false, false, n, m, parts[i].n, h->dp + parts[i].column, keys,
                    h->qkv + parts[i].row * h->ld + m, h->ld, 1, h->dqkv + first * h->ld, h->ld);
            product(true, false, parts[i].n, m, n, h->dp + parts[i].column, keys, q, h->ld, 1,
                    h->dqkv + parts[i].row * h->ld + m, h->ld);
        }
}

/* ---------------------------------------------------------------- tasks */

typedef void block_fn(const head_part *, int64_t, int64_t, int64_t, int64_t, int64_t);

static void all_blocks(const head_part *h, const pf_token_rows *rows, int64_t g, block_fn *fn)
{
    const pf_prompt_group *group = &rows->groups[g];
    for (int64_t i = 0; i < group->n; i += PF_QUERY_BLOCK)
        fn(h, group->first + i, least(PF_QUERY_BLOCK, group->n - i), 0, 0, group->first);
    for (int64_t s = group->first_segment; s < group->end_segment; s++) {
        const pf_segment *segment = &rows->segments[s];
        for (int64_t i = 0; i < segment->n; i += PF_QUERY_BLOCK)
            fn(h, segment->first + i, least(PF_QUERY_BLOCK, segment->n - i), group->first, group->n,
               segment->first);
    }
}

static void head_task(void *payload, int64_t task)
{
    const attention *w = payload;
    const pf_shape *shape = w->pass->shape;
    pf_activations *a = w->pass->a;
    int64_t head = task % shape->config.n_heads, m = shape->head_width, d = shape->config.width;
    float *slot = pf_scores_take(a);
    head_part h = {.qkv = w->layer->qkv + head * 3 * m,
                   .ld = 3 * d,
                   .m = m,
                   .lse = w->layer->lse + head * a->n_rows,
                   .width = d,
                   .scale = (float)(1 / sqrt((double)m)),
                   .p = slot,
                   .dp = slot + a->slot_size / 2};
    if (w->dattended == NULL) {
        h.attended = w->attended + head * m;
        all_blocks(&h, w->pass->rows, task / shape->config.n_heads, forward_block);
    } else {
        h.dattended = w->dattended + head * m;
        h.dqkv = a->dqkv + head * 3 * m;
        all_blocks(&h, w->pass->rows, task / shape->config.n_heads, backward_block);
    }
    pf_scores_give(a, slot);
}

void pf_attention(const pf_pass *pass, pf_layer_state *layer)
{
    attention w = {.pass = pass, .layer = layer, .attended = layer->attended};
    pf_parallel_for(pass->context, pass->rows->n_groups * pass->shape->config.n_heads, head_task,
                    &w);
}

static void clear_rows(void *payload, int64_t first, int64_t n)
{
    const pf_pass *pass = payload;
    int64_t columns = 3 * pass->shape->config.width;
    memset(pass->a->dqkv + first * columns, 0, (size_t)(n * columns) * sizeof(float));
}

void pf_attention_backward(const pf_pass *pass, const pf_layer_state *layer, const float *dattended)
{
    attention w = {.pass = pass, .layer = layer, .dattended = dattended};
    pf_for_rows(pass->context, pass->rows->n_rows, clear_rows, (void *)pass);
    pf_parallel_for(pass->context, pass->rows->n_groups * pass->shape->config.n_heads, head_task,
                    &w);
}
