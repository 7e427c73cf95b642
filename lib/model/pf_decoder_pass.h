/* Internal to the decoder: one pass of the model over a few rows, each one token at a position. */
#ifndef PF_DECODER_PASS_H
#define PF_DECODER_PASS_H

#include "model/pf_decoder_rows.h"

enum {
    PF_PASS_ROWS = 64,   /* rows of a block: of a product, of a chunk of a prompt */
    PF_SEGMENT_ROWS = 32 /* rows that attend to their prompt in one product */
};

/* Rows of a pass that attend to the same prompt, or are of it.
 *
 * keys_values: [layers, 2 (keys, values), heads, length, head_width]. first >= 0: the rows are the
 * prompt's positions first, first + 1, ...; their keys and values are put there. first = -1: the
 * rows follow the prompt, each with its own pages. */
typedef struct {
    int64_t row, n;
    float *keys_values;
    int64_t length, first;
} pf_decode_segment;

/* Working arrays of a pass. */
typedef struct {
    float *x, *norm1, *norm2; /* [rows, width]: the residual stream, its norms */
    float *qkv;               /* [rows, heads, 3, head_width] */
    float *attention;         /* [rows, width] */
    float *up;                /* [rows, ff_width] */
    float *scores;
} pf_pass_arrays;

typedef struct {
    prefopt_context *context;
    const pf_shape *shape;
    const float *value;
    const float *packed; /* the matrices as [in, out], at their offsets; NULL: as they lie */
    const pf_pass_arrays *arrays;
    const float *cosine, *sine; /* [positions, rotary / 2] */
    int64_t rows;
    const int32_t *token; /* [rows] */
    int64_t n_segments;
    const pf_decode_segment *segments;
    /* Of rows that follow a prompt: tokens after it, the row's own among them, and pages
     * [rows, n_pages]. */
    int64_t depth, n_pages;
    pf_page *const *pages;
    /* Where each segment's scores start in arrays->scores: [heads, its rows, its columns]. */
    const int64_t *scores;
} pf_decode_pass;

/* Columns of a segment's scores: the positions its rows see. */
static inline int64_t pf_segment_columns(const pf_decode_segment *s, int64_t depth)
{
    return s->first < 0 ? s->length + depth : s->first + s->n;
}

/* Runs all layers: arrays->x becomes the last layer's output. Nothing fails. */
void pf_pass_run(const pf_decode_pass *pass);

/* Where the distributions go, see pf_distributions. hidden: [n, width], after the final norm. */
typedef struct {
    prefopt_context *context;
    const pf_shape *shape;
    const float *value, *packed, *hidden;
    const uint8_t *allowed; /* [vocab, vocab], see pf_transitions; NULL: everything */
    const int32_t *token;   /* [n]: the one before */
    int64_t n, n_tiles;
    float scale;
    float *logits, *tile_max;
    double *tile_sum, *tile_scaled, *max, *log_normaliser;
} pf_logits_pass;
void pf_pass_logits(const pf_logits_pass *pass);

/* norm(x) with the shape's tensors at offsets gamma and beta, rows of x. */
void pf_pass_norm(const pf_decode_pass *pass, int64_t gamma, int64_t beta, int64_t rows,
                  const float *x, float *y);

#endif
