/* The decoder's state: prompts, rows, pages, working arrays. */
#include <math.h>

#include "model/pf_decoder_pass.h"

typedef struct {
    int64_t length;
    float *keys_values; /* [layers, 2, heads, length, head_width] */
} prompt;

/* Pages that were allocated together: large blocks are cheap to have (see context.c). */
typedef struct slab {
    struct slab *next;
    pf_page *pages;
    float *data;
} slab;

/* Rows after a step: the prompt of each, and its pages [n, n_pages]. */
typedef struct {
    int64_t n, n_pages, n_capacity, pages_capacity;
    int64_t *prompt;
    pf_page **pages;
} row_table;

struct pf_decoder {
    prefopt_context *context;
    pf_shape *shape;
    const float *value;
    float scale;
    pf_transitions *transitions; /* NULL: every token may follow */
    float *packed;               /* [shape->n] or NULL, see pf_decode_pass */

    int64_t n_prompts;
    prompt *prompts;
    int64_t depth; /* tokens of each row after its prompt */
    row_table rows, next;
    slab *slabs;
    pf_page *free;
    int64_t n_free, n_pages;

    /* Working arrays: of a pass, made for `capacity` rows; the distributions likewise. */
    int64_t capacity, scores_capacity;
    pf_pass_arrays arrays;
    pf_turns turns;
    int32_t *token;              /* [capacity] */
    pf_decode_segment *segments; /* [capacity] */
    int64_t *scores;             /* [capacity] */
    int64_t *children;           /* [capacity] */
    float *hidden;               /* [capacity, width] */
    pf_distributions distributions;
};

static int64_t tiles(const pf_shape *shape)
{
    return (shape->config.vocab + PF_DECODER_TILE - 1) / PF_DECODER_TILE;
}

/* Numbers of keys and values of one position. */
static int64_t position_numbers(const pf_shape *shape)
{
    return shape->config.n_layers * 2 * shape->config.width;
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
    void *arrays[] = {
        d->arrays.x,         d->arrays.norm1,     d->arrays.norm2, d->arrays.qkv,
        d->arrays.attention, d->arrays.up,        d->token,        d->segments,
        d->scores,           d->children,         d->hidden,       (void *)o->logits,
        (void *)o->tile_max, (void *)o->tile_sum, (void *)o->max,  (void *)o->log_normaliser};
    for (size_t i = 0; i < sizeof arrays / sizeof *arrays; i++)
        pf_free(c, arrays[i]);
    float *scores = d->arrays.scores;
    d->arrays = (pf_pass_arrays){.scores = scores};
    d->token = NULL;
    d->segments = NULL;
    d->scores = d->children = NULL;
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
               (d->children = pf_alloc(d->context, rows, sizeof *d->children)) != NULL &&
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

static int32_t reserve_table(pf_decoder *d, row_table *t, int64_t n, int64_t n_pages)
{
    int64_t entries;
    if (!pf_mul(n, n_pages, &entries))
        return pf_fail(PREFOPT_ERR_MEMORY, "decoder: %lld rows overflow", (long long)n);
    PF_TRY(pf_grow(d->context, (void **)&t->prompt, 0, &t->n_capacity, n, sizeof *t->prompt));
    return pf_grow(d->context, (void **)&t->pages, 0, &t->pages_capacity, entries + 1,
                   sizeof *t->pages);
}

/* n more free pages. */
static int32_t add_slab(pf_decoder *d, int64_t n)
{
    int64_t numbers = position_numbers(d->shape) * pf_page_length(d->shape);
    slab *added = pf_calloc(d->context, 1, sizeof *added);
    if (added == NULL)
        return PREFOPT_ERR_MEMORY;
    added->pages = pf_alloc(d->context, n, sizeof *added->pages);
    added->data = added->pages == NULL ? NULL : floats(d, n, numbers);
    if (added->data == NULL) {
        pf_free(d->context, added->pages);
        pf_free(d->context, added);
        return PREFOPT_ERR_MEMORY;
    }
    for (int64_t i = 0; i < n; i++) {
        added->pages[i] = (pf_page){.next = d->free, .data = added->data + i * numbers};
        d->free = &added->pages[i];
    }
    added->next = d->slabs;
    d->slabs = added;
    d->n_free += n;
    d->n_pages += n;
    return PREFOPT_OK;
}

/* At least n free pages; a few more than asked for, where there are many. */
static int32_t reserve_pages(pf_decoder *d, int64_t n)
{
    int64_t missing = n - d->n_free, few = d->n_pages / 8;
    return missing <= 0 ? PREFOPT_OK : add_slab(d, missing > few ? missing : few);
}

static pf_page *take_page(pf_decoder *d)
{
    pf_page *page = d->free;
    d->free = page->next;
    d->n_free--;
    page->references = 1;
    return page;
}

static void release_rows(pf_decoder *d, row_table *t)
{
    for (int64_t k = 0; k < t->n * t->n_pages; k++) {
        pf_page *page = t->pages[k];
        if (--page->references > 0)
            continue;
        page->next = d->free;
        d->free = page;
        d->n_free++;
    }
    t->n = t->n_pages = 0;
}

/* Forgets rows and prompts; pages and arrays are kept. */
static void forget(pf_decoder *d)
{
    release_rows(d, &d->rows);
    for (int64_t i = 0; i < d->n_prompts; i++)
        pf_free(d->context, d->prompts[i].keys_values);
    pf_free(d->context, d->prompts);
    d->prompts = NULL;
    d->n_prompts = d->depth = 0;
    d->distributions.n = 0;
}

static int64_t saturated(int64_t a, int64_t b, int64_t c)
{
    int64_t out;
    return pf_mul(a, b, &out) && pf_add(out, c, &out) ? out : INT64_MAX;
}

int64_t pf_decoder_prompt_bytes(const pf_shape *shape, int64_t tokens)
{
    return saturated(position_numbers(shape), saturated(tokens, sizeof(float), 0), sizeof(prompt));
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
    for (slab *s = decoder->slabs, *next; s != NULL; s = next) {
        next = s->next;
        pf_free(c, s->pages);
        pf_free(c, s->data);
        pf_free(c, s);
    }
    void *arrays[] = {decoder->arrays.scores, decoder->rows.prompt, decoder->rows.pages,
                      decoder->next.prompt, decoder->next.pages};
    for (size_t i = 0; i < sizeof arrays / sizeof *arrays; i++)
        pf_free(c, arrays[i]);
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
    return saturated(decoder->n_pages, page,
                     saturated(decoder->capacity, pf_decoder_row_bytes(shape, 0, 0) - page,
                               saturated(decoder->scores_capacity, sizeof(float), 0)));
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
    PF_TRY(reserve_table(d, &d->rows, in->n, 0));
    for (int64_t i = 0; i < in->n; i++) {
        int64_t length = pf_sequence_len(in, i);
        float *keys_values = floats(d, position_numbers(d->shape), length);
        if (keys_values == NULL)
            return PREFOPT_ERR_MEMORY;
        d->prompts[d->n_prompts++] = (prompt){length, keys_values};
        d->rows.prompt[i] = i;
        longest = longest > length ? longest : length;
    }
    PF_TRY(reserve_rows(d, in->n));
    PF_TRY(pf_turns_fit(&d->turns, d->context, d->shape, longest));
    PF_TRY(run_prompts(d, in));
    d->rows.n = in->n;
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
        int64_t p = d->rows.prompt[parent[i]];
        if (p != last || d->segments[n_segments - 1].n == PF_SEGMENT_ROWS)
            d->segments[n_segments++] =
                (pf_decode_segment){i, 0, d->prompts[p].keys_values, d->prompts[p].length, -1};
        d->segments[n_segments - 1].n++;
        last = p;
    }
    return n_segments;
}

/* The first `used` positions of a page. */
static void copy_page(const pf_shape *shape, pf_page *to, const pf_page *from, int64_t used)
{
    int64_t planes = shape->config.n_layers * 2 * shape->config.n_heads;
    int64_t stride = pf_page_length(shape) * shape->head_width;
    for (int64_t i = 0; i < planes; i++)
        memcpy(to->data + i * stride, from->data + i * stride,
               (size_t)(used * shape->head_width) * sizeof(float));
}

/* How many pages the step needs: where no page is begun, one for each child of a row but its
 * first, which goes on in its parent's. */
static int64_t pages_needed(pf_decoder *d, int64_t n, const int64_t *parent)
{
    if (d->depth % pf_page_length(d->shape) == 0)
        return n;
    int64_t needed = 0;
    memset(d->children, 0, (size_t)d->rows.n * sizeof *d->children);
    for (int64_t i = 0; i < n; i++)
        needed += d->children[parent[i]]++ > 0;
    return needed;
}

/* The rows become their children. Everything is reserved. */
static void advance(pf_decoder *d, int64_t n, const int64_t *parent)
{
    row_table *old = &d->rows, *t = &d->next;
    int64_t used = d->depth % pf_page_length(d->shape);
    t->n = n;
    t->n_pages = d->depth / pf_page_length(d->shape) + 1;
    memset(d->children, 0, (size_t)old->n * sizeof *d->children);
    for (int64_t i = 0; i < n; i++) {
        pf_page **from = old->pages + parent[i] * old->n_pages, **to = t->pages + i * t->n_pages;
        t->prompt[i] = old->prompt[parent[i]];
        bool again = d->children[parent[i]]++ > 0;
        for (int64_t p = 0; p < t->n_pages; p++) {
            bool fills = p == t->n_pages - 1; /* the page that takes the new token */
            if (!fills || (used > 0 && !again)) {
                to[p] = from[p];
                to[p]->references++;
                continue;
            }
            to[p] = take_page(d);
            if (used > 0)
                copy_page(d->shape, to[p], from[p], used);
        }
    }
    release_rows(d, old);
    row_table swap = *old;
    *old = *t;
    *t = swap;
    d->depth++;
}

int32_t pf_decoder_step(pf_decoder *decoder, int64_t n, const int64_t *parent, const int32_t *token)
{
    pf_decoder *d = decoder;
    int64_t most = n > d->rows.n ? n : d->rows.n, longest = 0;
    PF_TRY(reserve_rows(d, most));
    PF_TRY(reserve_table(d, &d->next, n, d->depth / pf_page_length(d->shape) + 1));
    PF_TRY(reserve_pages(d, pages_needed(d, n, parent)));
    int64_t n_segments = cut_segments(d, n, parent);
    PF_TRY(place_scores(d, n_segments, d->depth + 1));
    for (int64_t i = 0; i < n_segments; i++)
        longest = longest > d->segments[i].length ? longest : d->segments[i].length;
    PF_TRY(pf_turns_fit(&d->turns, d->context, d->shape, longest + d->depth + 1));
    advance(d, n, parent);
    memcpy(d->token, token, (size_t)n * sizeof *token);
    pf_decode_pass pass = make_pass(d);
    pass.rows = n;
    pass.n_segments = n_segments;
    pass.depth = d->depth;
    pass.n_pages = d->rows.n_pages;
    pass.pages = d->rows.pages;
    pf_pass_run(&pass);
    pf_pass_norm(&pass, d->shape->norm, d->shape->norm_bias, n, d->arrays.x, d->hidden);
    compute_logits(d, n);
    return PREFOPT_OK;
}
