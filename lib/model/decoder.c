/* The decoder's state: prompts, rows, working arrays. */
#include <math.h>

#include "model/pf_decoder_pass.h"

typedef struct {
    int64_t length;
    float *keys_values; /* [layers, 2, heads, length, head_width] */
} prompt;

struct pf_decoder {
    prefopt_context *context;
    pf_shape *shape;
    const float *value;
    float scale;
    pf_transitions *transitions; /* NULL: every token may follow */
    float *packed;               /* [shape->n] or NULL, see pf_decode_pass */

    int64_t n_prompts;
    prompt *prompts;
    pf_decoder_rows rows;

    /* Working arrays: of a pass, made for `capacity` rows; the distributions likewise. */
    int64_t capacity, scores_capacity;
    pf_pass_arrays arrays;
    pf_turns turns;
    int32_t *token;              /* [capacity] */
    pf_decode_segment *segments; /* [capacity] */
    int64_t *scores;             /* [capacity] */
    float *hidden;               /* [capacity, width] */
    pf_distributions distributions;
};

static int64_t tiles(const pf_shape *shape)
{
    return (shape->config.vocab + PF_DECODER_TILE - 1) / PF_DECODER_TILE;
}

/* The matrices of a small model are copied, each at its offset, as [in, out]. */
enum { PACK_MOST = 1 << 20 };

static void pack_matrix(pf_decoder *d, int64_t offset, int64_t out, int64_t in)
{
    for (int64_t i = 0; i < out; i++)
        for (int64_t j = 0; j < in; j++)
            d->packed[offset + j * out + i] = d->value[offset + i * in + j];
}

static int32_t pack(pf_decoder *d)
{
    const prefopt_transformer_config *c = &d->shape->config;
    if (d->shape->n > PACK_MOST)
        return PREFOPT_OK;
    if (d->packed == NULL &&
        (d->packed = pf_alloc(d->context, d->shape->n, sizeof *d->packed)) == NULL)
        return PREFOPT_ERR_MEMORY;
    for (int64_t i = 0; i < c->n_layers; i++) {
        const pf_layer_offsets *l = &d->shape->layers[i];
        pack_matrix(d, l->qkv, 3 * c->width, c->width);
        pack_matrix(d, l->out, c->width, c->width);
        pack_matrix(d, l->up, c->ff_width, c->width);
        pack_matrix(d, l->down, c->width, c->ff_width);
    }
    pack_matrix(d, d->shape->output, c->vocab, c->width);
    return PREFOPT_OK;
}

int32_t pf_decoder_create(pf_decoder **out, const pf_shape *shape, const float *value, float scale,
                          pf_transitions *transitions)
{
    pf_decoder *d = pf_calloc(shape->context, 1, sizeof *d);
    if (d == NULL)
        return PREFOPT_ERR_MEMORY;
    d->context = pf_context_retain(shape->context);
    d->shape = pf_shape_retain((pf_shape *)shape);
    d->rows = (pf_decoder_rows){.context = d->context, .shape = d->shape};
    d->value = value;
    d->scale = scale;
    d->transitions = pf_transitions_retain(transitions);
    if (pack(d) != PREFOPT_OK) {
        pf_decoder_destroy(d);
        return PREFOPT_ERR_MEMORY;
    }
    *out = d;
    return PREFOPT_OK;
}

const pf_shape *pf_decoder_shape(const pf_decoder *decoder) { return decoder->shape; }

void pf_decoder_distributions(const pf_decoder *decoder, pf_distributions *out)
{
    *out = decoder->distributions;
}

/* ---- memory */

static void free_arrays(pf_decoder *d)
{
    prefopt_context *c = d->context;
    pf_distributions *o = &d->distributions;
    if (o->tile_scaled != o->tile_sum)
        pf_free(c, o->tile_scaled);
    void *arrays[] = {d->arrays.x,
                      d->arrays.norm1,
                      d->arrays.norm2,
                      d->arrays.qkv,
                      d->arrays.attention,
                      d->arrays.up,
                      d->token,
                      d->segments,
                      d->scores,
                      d->hidden,
                      (void *)o->logits,
                      (void *)o->tile_max,
                      (void *)o->tile_sum,
                      (void *)o->max,
                      (void *)o->log_normaliser};
    for (size_t i = 0; i < sizeof arrays / sizeof *arrays; i++)
        pf_free(c, arrays[i]);
    float *scores = d->arrays.scores;
    d->arrays = (pf_pass_arrays){.scores = scores};
    d->token = NULL;
    d->segments = NULL;
    d->scores = NULL;
    d->hidden = NULL;
    *o = (pf_distributions){0};
    d->capacity = 0;
}

/* rows * columns floats. */
static float *floats(pf_decoder *d, int64_t rows, int64_t columns)
{
    int64_t n;
    return pf_alloc(d->context, pf_mul(rows, columns, &n) ? n : -1, sizeof(float));
}

static double *doubles(pf_decoder *d, int64_t rows, int64_t columns)
{
    int64_t n;
    return pf_alloc(d->context, pf_mul(rows, columns, &n) ? n : -1, sizeof(double));
}

static bool allocate_arrays(pf_decoder *d, int64_t rows)
{
    const prefopt_transformer_config *c = &d->shape->config;
    pf_distributions *o = &d->distributions;
    pf_pass_arrays *a = &d->arrays;
    int64_t n_tiles = tiles(d->shape);
    bool all = (a->x = floats(d, rows, c->width)) != NULL &&
               (a->norm1 = floats(d, rows, c->width)) != NULL &&
               (a->norm2 = floats(d, rows, c->width)) != NULL &&
               (a->qkv = floats(d, rows, 3 * c->width)) != NULL &&
               (a->attention = floats(d, rows, c->width)) != NULL &&
               (a->up = floats(d, rows, c->ff_width)) != NULL &&
               (d->token = pf_alloc(d->context, rows, sizeof *d->token)) != NULL &&
               (d->segments = pf_alloc(d->context, rows, sizeof *d->segments)) != NULL &&
               (d->scores = pf_alloc(d->context, rows, sizeof *d->scores)) != NULL &&
               (d->hidden = floats(d, rows, c->width)) != NULL &&
               (o->logits = floats(d, rows, c->vocab)) != NULL &&
               (o->tile_max = floats(d, rows, n_tiles)) != NULL &&
               (o->tile_sum = doubles(d, rows, n_tiles)) != NULL &&
               (o->max = doubles(d, rows, 1)) != NULL &&
               (o->log_normaliser = doubles(d, rows, 1)) != NULL;
    o->tile_scaled = (double *)o->tile_sum;
    if (all && d->scale != 1 && (o->tile_scaled = doubles(d, rows, n_tiles)) == NULL) {
        o->tile_scaled = (double *)o->tile_sum;
        return false;
    }
    return all;
}

/* Room for a pass of that many rows. */
static int32_t reserve_rows(pf_decoder *d, int64_t rows)
{
    rows = rows < PF_PASS_ROWS ? PF_PASS_ROWS : rows;
    if (rows <= d->capacity)
        return PREFOPT_OK;
    free_arrays(d);
    if (!allocate_arrays(d, rows)) {
        free_arrays(d);
        return PREFOPT_ERR_MEMORY;
    }
    d->capacity = rows;
    return PREFOPT_OK;
}

static int32_t reserve_scores(pf_decoder *d, int64_t n)
{
    return pf_grow(d->context, (void **)&d->arrays.scores, 0, &d->scores_capacity, n,
                   sizeof(float));
}

/* Forgets rows and prompts; pages and arrays are kept. */
static void forget(pf_decoder *d)
{
    pf_decoder_rows_forget(&d->rows);
    for (int64_t i = 0; i < d->n_prompts; i++)
        pf_free(d->context, d->prompts[i].keys_values);
    pf_free(d->context, d->prompts);
    d->prompts = NULL;
    d->n_prompts = 0;
    d->distributions.n = 0;
}

static int64_t saturated(int64_t a, int64_t b, int64_t c)
{
    int64_t out;
    return pf_mul(a, b, &out) && pf_add(out, c, &out) ? out : INT64_MAX;
}

int64_t pf_decoder_prompt_bytes(const pf_shape *shape, int64_t tokens)
{
    return saturated(pf_position_numbers(shape), saturated(tokens, sizeof(float), 0),
                     sizeof(prompt));
}

int64_t pf_decoder_row_bytes(const pf_shape *shape, int64_t prompt_length, int64_t tokens)
{
    const prefopt_transformer_config *c = &shape->config;
    int64_t n_pages = tokens / pf_page_length(shape) + 1;
    int64_t page = saturated(pf_decoder_prompt_bytes(shape, pf_page_length(shape)), 1,
                             sizeof(pf_page) + 2 * sizeof(pf_page *));
    int64_t width = 9 * c->width + c->ff_width, logits = saturated(c->vocab, sizeof(float), 0);
    int64_t scores = saturated(c->n_heads, saturated(prompt_length, 1, tokens), width);
    int64_t rest = tiles(shape) * 20 + (int64_t)sizeof(pf_decode_segment) + 64;
    return saturated(page, n_pages, saturated(scores, sizeof(float), saturated(logits, 1, rest)));
}

void pf_decoder_destroy(pf_decoder *decoder)
{
    if (decoder == NULL)
        return;
    prefopt_context *c = decoder->context;
    forget(decoder);
    free_arrays(decoder);
    pf_decoder_rows_free(&decoder->rows);
    pf_free(c, decoder->arrays.scores);
    pf_turns_clear(&decoder->turns, c);
    pf_transitions_release(decoder->transitions);
    pf_shape_release(decoder->shape);
    pf_free(c, decoder->packed);
    pf_free(c, decoder);
    pf_context_release(c);
}

int32_t pf_decoder_renew(pf_decoder *decoder, const float *value, float scale,
                         pf_transitions *transitions)
{
    forget(decoder);
    if ((decoder->scale == 1) != (scale == 1))
        free_arrays(decoder); /* tile_scaled is one of them, or not */
    decoder->value = value;
    decoder->scale = scale;
    pf_transitions *before = decoder->transitions;
    decoder->transitions = pf_transitions_retain(transitions);
    pf_transitions_release(before);
    return pack(decoder);
}

int64_t pf_decoder_rest(pf_decoder *decoder)
{
    forget(decoder);
    const pf_shape *shape = decoder->shape;
    int64_t page = saturated(pf_decoder_prompt_bytes(shape, pf_page_length(shape)), 1, 64);
    int64_t packed = decoder->packed == NULL ? 0 : shape->n * (int64_t)sizeof(float);
    return saturated(decoder->rows.n_pages, page,
                     saturated(decoder->capacity, pf_decoder_row_bytes(shape, 0, 0) - page,
                               saturated(decoder->scores_capacity, sizeof(float), packed)));
}

/* ---- passes */

static pf_decode_pass make_pass(pf_decoder *d)
{
    return (pf_decode_pass){.context = d->context,
                            .shape = d->shape,
                            .value = d->value,
                            .packed = d->packed,
                            .arrays = &d->arrays,
                            .cosine = d->turns.cosine,
                            .sine = d->turns.sine,
                            .token = d->token,
                            .segments = d->segments,
                            .scores = d->scores};
}

/* The distributions of the first n rows of hidden; token: the last one of each row. */
static void compute_logits(pf_decoder *d, int64_t n)
{
    pf_distributions *o = &d->distributions;
    o->n = n;
    o->vocab = d->shape->config.vocab;
    o->n_tiles = tiles(d->shape);
    o->scale = d->scale;
    pf_logits_pass pass = {.context = d->context,
                           .shape = d->shape,
                           .value = d->value,
                           .packed = d->packed,
                           .hidden = d->hidden,
                           .allowed = d->transitions == NULL ? NULL : d->transitions->allowed,
                           .token = d->token,
                           .n = n,
                           .n_tiles = o->n_tiles,
                           .scale = d->scale,
                           .logits = (float *)o->logits,
                           .tile_max = (float *)o->tile_max,
                           .tile_sum = (double *)o->tile_sum,
                           .tile_scaled = o->tile_scaled,
                           .max = (double *)o->max,
                           .log_normaliser = (double *)o->log_normaliser};
    pf_pass_logits(&pass);
}

/* Where each segment's scores start, and room for them. */
static int32_t place_scores(pf_decoder *d, int64_t n_segments, int64_t depth)
{
    int64_t used = 0, n;
    for (int64_t i = 0; i < n_segments; i++) {
        const pf_decode_segment *s = &d->segments[i];
        d->scores[i] = used;
        if (!pf_mul(s->n * d->shape->config.n_heads, pf_segment_columns(s, depth), &n) ||
            !pf_add(used, n, &used))
            return pf_fail(PREFOPT_ERR_MEMORY, "decoder: the number of scores overflows");
    }
    return reserve_scores(d, used);
}

/* Runs a chunk of prompts; the last positions' rows go, normed, to hidden. */
static int32_t run_chunk(pf_decoder *d, int64_t rows, int64_t n_segments, const int64_t *owner)
{
    PF_TRY(place_scores(d, n_segments, 0));
    pf_decode_pass pass = make_pass(d);
    pass.rows = rows;
    pass.n_segments = n_segments;
    pf_pass_run(&pass);
    int64_t width = d->shape->config.width;
    for (int64_t i = 0; i < n_segments; i++) {
        const pf_decode_segment *s = &d->segments[i];
        if (s->first + s->n == s->length)
            pf_pass_norm(&pass, d->shape->norm, d->shape->norm_bias, 1,
                         d->arrays.x + (s->row + s->n - 1) * width, d->hidden + owner[i] * width);
    }
    return PREFOPT_OK;
}

/* All prompts end to end, in chunks of PF_PASS_ROWS. */
static int32_t run_prompts(pf_decoder *d, const prefopt_sequences *in)
{
    int64_t rows = 0, n_segments = 0, owner[PF_PASS_ROWS];
    for (int64_t i = 0; i < in->n; i++) {
        const int32_t *tokens = pf_sequence_tokens(in, i);
        for (int64_t at = 0, n; at < d->prompts[i].length; at += n) {
            n = d->prompts[i].length - at;
            n = n < PF_PASS_ROWS - rows ? n : PF_PASS_ROWS - rows;
            memcpy(d->token + rows, tokens + at, (size_t)n * sizeof *tokens);
            owner[n_segments] = i;
            d->segments[n_segments++] =
                (pf_decode_segment){rows, n, d->prompts[i].keys_values, d->prompts[i].length, at};
            rows += n;
            if (rows == PF_PASS_ROWS) {
                PF_TRY(run_chunk(d, rows, n_segments, owner));
                rows = n_segments = 0;
            }
        }
    }
    return rows == 0 ? PREFOPT_OK : run_chunk(d, rows, n_segments, owner);
}

static int32_t add_prompts(pf_decoder *d, const prefopt_sequences *in)
{
    int64_t longest = 0;
    d->prompts = pf_alloc(d->context, in->n, sizeof *d->prompts);
    if (d->prompts == NULL)
        return PREFOPT_ERR_MEMORY;
    PF_TRY(pf_decoder_rows_begin(&d->rows, in->n));
    for (int64_t i = 0; i < in->n; i++) {
        int64_t length = pf_sequence_len(in, i);
        float *keys_values = floats(d, pf_position_numbers(d->shape), length);
        if (keys_values == NULL)
            return PREFOPT_ERR_MEMORY;
        d->prompts[d->n_prompts++] = (prompt){length, keys_values};
        longest = longest > length ? longest : length;
    }
    PF_TRY(reserve_rows(d, in->n));
    PF_TRY(pf_turns_fit(&d->turns, d->context, d->shape, longest));
    PF_TRY(run_prompts(d, in));
    for (int64_t i = 0; i < in->n; i++)
        d->token[i] = pf_sequence_tokens(in, i)[d->prompts[i].length - 1];
    compute_logits(d, in->n);
    return PREFOPT_OK;
}

int32_t pf_decoder_prompts(pf_decoder *decoder, const prefopt_sequences *in)
{
    forget(decoder);
    int32_t status = add_prompts(decoder, in);
    if (status != PREFOPT_OK)
        forget(decoder);
    return status;
}

/* ---- steps */

/* Consecutive rows of the same prompt, at most PF_SEGMENT_ROWS, are a segment. */
static int64_t cut_segments(pf_decoder *d, int64_t n, const int64_t *parent)
{
    int64_t n_segments = 0, last = -1;
    for (int64_t i = 0; i < n; i++) {
        int64_t p = d->rows.now.prompt[parent[i]];
        if (p != last || d->segments[n_segments - 1].n == PF_SEGMENT_ROWS)
            d->segments[n_segments++] =
                (pf_decode_segment){i, 0, d->prompts[p].keys_values, d->prompts[p].length, -1};
        d->segments[n_segments - 1].n++;
        last = p;
    }
    return n_segments;
}

int32_t pf_decoder_step(pf_decoder *decoder, int64_t n, const int64_t *parent, const int32_t *token)
{
    pf_decoder *d = decoder;
    int64_t depth = d->rows.depth + 1, longest = 0;
    PF_TRY(reserve_rows(d, n));
    PF_TRY(pf_decoder_rows_reserve(&d->rows, n, parent));
    int64_t n_segments = cut_segments(d, n, parent);
    PF_TRY(place_scores(d, n_segments, depth));
    for (int64_t i = 0; i < n_segments; i++)
        longest = longest > d->segments[i].length ? longest : d->segments[i].length;
    PF_TRY(pf_turns_fit(&d->turns, d->context, d->shape, longest + depth));
    pf_decoder_rows_advance(&d->rows, n, parent);
    memcpy(d->token, token, (size_t)n * sizeof *token);
    pf_decode_pass pass = make_pass(d);
    pass.rows = n;
    pass.n_segments = n_segments;
    pass.depth = depth;
    pass.n_pages = d->rows.now.n_pages;
    pass.pages = d->rows.now.pages;
    pf_pass_run(&pass);
    pf_pass_norm(&pass, d->shape->norm, d->shape->norm_bias, n, d->arrays.x, d->hidden);
    compute_logits(d, n);
    return PREFOPT_OK;
}
