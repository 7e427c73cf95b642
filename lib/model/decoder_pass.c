/* One pass of a GPT-NeoX model over the rows of a decoder.
 *
 * A layer is three parallel loops: the products of the norms (query, key and value; the MLP's upper
 * one with its GELU), attention by segment and head, and the products that add to the residual
 * stream (dense and the MLP's lower one; with a sequential residual each waits for the one before).
 * A loop's tasks are blocks of output columns and of rows; an element comes out of its own row and
 * column alone, so the cut does not show in the bits. */
#include <math.h>

#include "math/pf_ops.h"
#include "math/pf_rows.h"
#include "math/pf_short_attention.h"
#include "model/pf_decoder_pass.h"

static int64_t blocks(int64_t n, int64_t size) { return (n + size - 1) / size; }

/* ---- norms */

typedef struct {
    const pf_decode_pass *pass;
    const float *gamma, *beta, *x;
    float *y;
    int64_t rows;
} norm_work;

enum { NORM_ROWS = 32 };

static void norm_task(void *payload, int64_t task)
{
    const norm_work *w = payload;
    const prefopt_transformer_config *c = &w->pass->shape->config;
    int64_t first = task * NORM_ROWS, n = w->rows - first;
    n = n < NORM_ROWS ? n : NORM_ROWS;
    float statistic[2 * NORM_ROWS];
    pf_layer_norm(n, c->width, w->x + first * c->width, w->gamma, w->beta, c->norm_epsilon,
                  w->y + first * c->width, statistic, statistic + NORM_ROWS);
}

void pf_pass_norm(const pf_decode_pass *pass, int64_t gamma, int64_t beta, int64_t rows,
                  const float *x, float *y)
{
    norm_work work = {pass, pass->value + gamma, pass->value + beta, x, y, rows};
    pf_parallel_for(pass->context, blocks(rows, NORM_ROWS), norm_task, &work);
}

/* ---- products */

/* y [rows, out] (+)= x [rows, in] w [out, in]^T + bias, then GELU. */
typedef struct {
    int64_t out, in;
    const float *w, *bias, *x;
    const float *packed; /* w as [in, out], or NULL */
    float *y;
    bool add, gelu;
} product;

enum { BLOCK = 64, JOINED_BLOCK = 32 };

/* joined: the products add to the same y; a task does a block of the first, then of the second. */
typedef struct {
    int64_t rows, n;
    int32_t activation;
    bool joined;
    product product[2];
} product_work;

static void product_block(const product_work *work, const product *p, int64_t row, int64_t n_rows,
                          int64_t column, int64_t n_columns)
{
    const float *bias = p->bias + column;
    float *y = p->y + row * p->out + column;
    const float *x = p->x + row * p->in;
    if (p->packed != NULL) {
        pf_small_product(false, false, n_rows, n_columns, p->in, x, p->in, p->packed + column,
                         p->out, p->add, y, p->out);
        if (!p->gelu)
            pf_add_bias(n_rows, n_columns, bias, y, p->out);
    } else {
        pf_skinny_product(n_rows, n_columns, p->in, x, p->in, p->w + column * p->in, p->in,
                          p->gelu ? NULL : bias, p->add, y, p->out);
    }
    for (int64_t i = 0; p->gelu && i < n_rows; i++)
        pf_gelu(1, n_columns, work->activation, y + i * p->out, bias, y + i * p->out);
}

static int64_t block_size(const product_work *work)
{
    return work->joined && work->product->packed == NULL ? JOINED_BLOCK : BLOCK;
}

/* Row blocks of one block of columns follow each other: its weights are read from memory once. */
static void product_task(void *payload, int64_t task)
{
    const product_work *work = payload;
    int64_t row_blocks = blocks(work->rows, PF_PASS_ROWS);
    int64_t row = task % row_blocks * PF_PASS_ROWS, block = task / row_blocks;
    int64_t n_rows = work->rows - row < PF_PASS_ROWS ? work->rows - row : PF_PASS_ROWS;
    int64_t size = block_size(work);
    const product *p = work->product;
    if (!work->joined && block >= blocks(p->out, size)) {
        block -= blocks(p->out, size);
        p++;
    }
    const product *end = work->joined ? work->product + work->n : p + 1;
    int64_t column = block * size, n_columns = p->out - column < size ? p->out - column : size;
    for (; p < end; p++)
        product_block(work, p, row, n_rows, column, n_columns);
}

static void run_products(const pf_decode_pass *pass, product_work *work)
{
    work->rows = pass->rows;
    work->activation = pass->shape->config.activation;
    int64_t size = block_size(work), n = blocks(work->product[0].out, size);
    if (!work->joined && work->n == 2)
        n += blocks(work->product[1].out, size);
    pf_parallel_for(pass->context, n * blocks(pass->rows, PF_PASS_ROWS), product_task, work);
}

/* ---- attention */

typedef struct {
    const pf_decode_pass *pass;
    int64_t layer;
} attention_work;

/* Keys (which = 0) or values (1) of one head in a block [layers, 2, heads, length, head_width]. */
static float *head_of(const pf_shape *shape, float *block, int64_t length, int64_t layer,
                      int64_t which, int64_t head)
{
    int64_t plane = (layer * 2 + which) * shape->config.n_heads + head;
    return block + plane * length * shape->head_width;
}

/* Turns the row's query and key to its position and puts key and value where they stay. */
static void place(const pf_decode_pass *pass, float *q, int64_t position, float *keys,
                  float *values)
{
    int64_t width = pass->shape->head_width, half = pass->shape->rotary / 2;
    if (half > 0)
        pf_rotary(2, width, half, pass->cosine + position * half, pass->sine + position * half,
                  false, q);
    memcpy(keys, q + width, (size_t)width * sizeof *q);
    memcpy(values, q + 2 * width, (size_t)width * sizeof *q);
}

/* One row's pages: scores [depth] of its query, or what the values add to y. */
static void page_scores(const attention_work *w, int64_t row, int64_t head, const float *q,
                        float *scores)
{
    const pf_decode_pass *pass = w->pass;
    int64_t width = pass->shape->head_width, page = pf_page_length(pass->shape);
    for (int64_t p = 0, left = pass->depth; left > 0; p++, left -= page) {
        int64_t n = left < page ? left : page;
        const float *keys = head_of(pass->shape, pass->pages[row * pass->n_pages + p]->data, page,
                                    w->layer, 0, head);
        pf_skinny_product(1, n, width, q, width, keys, width, NULL, false, scores + p * page, n);
    }
}

static void page_values(const attention_work *w, int64_t row, int64_t head, const float *weights,
                        float *sum, float *y)
{
    const pf_decode_pass *pass = w->pass;
    int64_t width = pass->shape->head_width, page = pf_page_length(pass->shape);
    for (int64_t p = 0, left = pass->depth; left > 0; p++, left -= page) {
        int64_t n = left < page ? left : page;
        const float *values = head_of(pass->shape, pass->pages[row * pass->n_pages + p]->data, page,
                                      w->layer, 1, head);
        pf_skinny_combine(1, width, n, weights + p * page, n, values, width, sum, width);
        pf_accumulate(width, sum, y);
    }
}

/* Rows that see few keys: a row's own number decides, so that others do not show in its bits. */
static bool is_short(const pf_decode_pass *pass, const pf_decode_segment *s)
{
    int64_t keys = s->first < 0 ? s->length + pass->depth : s->length;
    return keys <= PF_SHORT_KEYS && pass->shape->head_width <= PF_SHORT_WIDTH;
}

/* Row i of a segment, whose keys and values are in their places; keys, values: the prompt's. */
static void short_row(const attention_work *w, const pf_decode_segment *s, int64_t i, int64_t head,
                      const float *q, const float *keys, const float *values, float *y)
{
    const pf_decode_pass *pass = w->pass;
    int64_t width = pass->shape->head_width, length = pf_page_length(pass->shape);
    pf_short_row row = {.width = width, .scale = 1 / sqrtf((float)width), .q = q, .y = y};
    row.n_blocks = 1;
    row.block[0] = (pf_short_block){.n = s->first < 0 ? s->length : s->first + i + 1,
                                    .stride = width,
                                    .keys = keys,
                                    .values = values};
    for (int64_t p = 0, left = s->first < 0 ? pass->depth : 0; left > 0; p++, left -= length) {
        float *page = pass->pages[(s->row + i) * pass->n_pages + p]->data;
        row.block[row.n_blocks++] =
            (pf_short_block){.n = left < length ? left : length,
                             .stride = width,
                             .keys = head_of(pass->shape, page, length, w->layer, 0, head),
                             .values = head_of(pass->shape, page, length, w->layer, 1, head)};
    }
    pf_short_attend(&row);
}

static void attention_task(void *payload, int64_t task)
{
    const attention_work *w = payload;
    const pf_decode_pass *pass = w->pass;
    const pf_shape *shape = pass->shape;
    int64_t heads = shape->config.n_heads, width = shape->head_width, head = task % heads;
    const pf_decode_segment *s = &pass->segments[task / heads];
    int64_t columns = pf_segment_columns(s, pass->depth), stride = 3 * heads * width;
    int64_t seen = s->first < 0 ? s->length : columns; /* of the prompt */
    float *scores = pass->arrays->scores + pass->scores[task / heads] + head * s->n * columns;
    float *q = pass->arrays->qkv + s->row * stride + head * 3 * width;
    float *y = pass->arrays->attention + s->row * heads * width + head * width;
    float *keys = head_of(shape, s->keys_values, s->length, w->layer, 0, head);
    float *values = head_of(shape, s->keys_values, s->length, w->layer, 1, head);
    int64_t length = pf_page_length(shape), last = pass->depth - 1, slot = last % length * width;
    for (int64_t i = 0; i < s->n; i++) {
        if (s->first >= 0) {
            int64_t at = s->first + i;
            place(pass, q + i * stride, at, keys + at * width, values + at * width);
            continue;
        }
        float *page = pass->pages[(s->row + i) * pass->n_pages + last / length]->data;
        place(pass, q + i * stride, s->length + last,
              head_of(shape, page, length, w->layer, 0, head) + slot,
              head_of(shape, page, length, w->layer, 1, head) + slot);
    }
    if (is_short(pass, s)) {
        for (int64_t i = 0; i < s->n; i++)
            short_row(w, s, i, head, q + i * stride, keys, values, y + i * heads * width);
        return;
    }
    pf_skinny_product(s->n, seen, width, q, stride, keys, width, NULL, false, scores, columns);
    for (int64_t i = 0; s->first < 0 && i < s->n; i++)
        page_scores(w, s->row + i, head, q + i * stride, scores + i * columns + seen);
    float lse[PF_PASS_ROWS];
    pf_softmax_rows(s->n, columns, columns, s->first < 0 ? columns - 1 : s->first,
                    1 / sqrtf((float)width), scores, lse);
    pf_skinny_combine(s->n, width, seen, scores, columns, values, width, y, heads * width);
    /* The query has done its work: its place holds each page's part of the sum. */
    for (int64_t i = 0; s->first < 0 && i < s->n; i++)
        page_values(w, s->row + i, head, scores + i * columns + seen, q + i * stride,
                    y + i * heads * width);
}

/* ---- a layer */

static product product_of(const pf_decode_pass *pass, int64_t out, int64_t in, int64_t weight,
                          int64_t bias, const float *x, float *y)
{
    return (product){.out = out,
                     .in = in,
                     .w = pass->value + weight,
                     .packed = pass->packed == NULL ? NULL : pass->packed + weight,
                     .bias = pass->value + bias,
                     .x = x,
                     .y = y};
}

static void run_layer(const pf_decode_pass *pass, int64_t layer)
{
    const pf_pass_arrays *a = pass->arrays;
    const prefopt_transformer_config *c = &pass->shape->config;
    const pf_layer_offsets *l = &pass->shape->layers[layer];
    bool parallel = c->parallel_residual;
    product qkv = product_of(pass, 3 * c->width, c->width, l->qkv, l->qkv_bias, a->norm1, a->qkv);
    product up = product_of(pass, c->ff_width, c->width, l->up, l->up_bias, a->norm2, a->up);
    product dense = product_of(pass, c->width, c->width, l->out, l->out_bias, a->attention, a->x);
    product down = product_of(pass, c->width, c->ff_width, l->down, l->down_bias, a->up, a->x);
    up.gelu = dense.add = down.add = true;
    pf_pass_norm(pass, l->norm1, l->norm1_bias, pass->rows, a->x, a->norm1);
    if (parallel)
        pf_pass_norm(pass, l->norm2, l->norm2_bias, pass->rows, a->x, a->norm2);
    run_products(pass, &(product_work){.n = parallel ? 2 : 1, .product = {qkv, up}});
    attention_work work = {pass, layer};
    pf_parallel_for(pass->context, pass->n_segments * c->n_heads, attention_task, &work);
    if (parallel) {
        run_products(pass, &(product_work){.n = 2, .joined = true, .product = {dense, down}});
        return;
    }
    run_products(pass, &(product_work){.n = 1, .joined = true, .product = {dense}});
    pf_pass_norm(pass, l->norm2, l->norm2_bias, pass->rows, a->x, a->norm2);
    run_products(pass, &(product_work){.n = 1, .product = {up}});
    run_products(pass, &(product_work){.n = 1, .joined = true, .product = {down}});
}

void pf_pass_run(const pf_decode_pass *pass)
{
    int64_t width = pass->shape->config.width;
    for (int64_t i = 0; i < pass->rows; i++)
        memcpy(pass->arrays->x + i * width,
               pass->value + pass->shape->embedding + pass->token[i] * width,
               (size_t)width * sizeof(float));
    for (int64_t layer = 0; layer < pass->shape->config.n_layers; layer++)
        run_layer(pass, layer);
}

/* ---- logits */

/* A tile of the vocabulary for a block of rows; its sums while it is in cache. */
static void logits_task(void *payload, int64_t task)
{
    const pf_logits_pass *p = payload;
    int64_t vocab = p->shape->config.vocab, width = p->shape->config.width;
    int64_t row_blocks = blocks(p->n, PF_PASS_ROWS), tile = task / row_blocks;
    int64_t row = task % row_blocks * PF_PASS_ROWS;
    int64_t n_rows = p->n - row < PF_PASS_ROWS ? p->n - row : PF_PASS_ROWS;
    int64_t first = tile * PF_DECODER_TILE, n = vocab - first;
    n = n < PF_DECODER_TILE ? n : PF_DECODER_TILE;
    const float *hidden = p->hidden + row * width;
    float *logits = p->logits + row * vocab + first;
    if (p->packed != NULL)
        pf_small_product(false, false, n_rows, n, width, hidden, width,
                         p->packed + p->shape->output + first, vocab, false, logits, vocab);
    else
        pf_skinny_product(n_rows, n, width, hidden, width,
                          p->value + p->shape->output + first * width, width, NULL, false, logits,
                          vocab);
    for (int64_t i = row; i < row + n_rows; i++) {
        float *l = p->logits + i * vocab + first;
        if (p->allowed != NULL)
            pf_row_mask(n, p->allowed + p->token[i] * vocab + first, l);
        int64_t at = i * p->n_tiles + tile;
        float max;
        bool good = pf_row_max(n, l, &max);
        bool none = !good || max == -INFINITY;
        p->tile_max[at] = good ? max : NAN;
        p->tile_sum[at] = none ? 0 : pf_row_exp_sum(n, l, max, 1, NULL);
        if (p->tile_scaled != p->tile_sum)
            p->tile_scaled[at] = none ? 0 : pf_row_exp_sum(n, l, max, p->scale, NULL);
    }
}

static void normalise(const pf_logits_pass *p, int64_t i)
{
    const float *tile_max = p->tile_max + i * p->n_tiles;
    const double *sum = p->tile_sum + i * p->n_tiles;
    double max = -INFINITY, total = 0;
    for (int64_t t = 0; t < p->n_tiles; t++)
        if (!(tile_max[t] <= max)) /* keeps NaN once it is there */
            max = isnan(max) ? max : (double)tile_max[t];
    if (!(max > -INFINITY)) {
        p->max[i] = p->log_normaliser[i] = NAN;
        return;
    }
    for (int64_t t = 0; t < p->n_tiles; t++)
        total += sum[t] * exp((double)tile_max[t] - max);
    p->max[i] = max;
    p->log_normaliser[i] = max + log(total);
}

void pf_pass_logits(const pf_logits_pass *pass)
{
    pf_parallel_for(pass->context, pass->n_tiles * blocks(pass->n, PF_PASS_ROWS), logits_task,
                    (void *)pass);
    for (int64_t i = 0; i < pass->n; i++)
        normalise(pass, i);
}
