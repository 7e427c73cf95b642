/* Decoding with one transformer: the distributions of the next token of many rows at once, with the
 * keys and values of what came before kept.
 *
 * A decoder holds prompts and rows. Rows start at a prompt and grow by one token a step, all
 * together; a row may have several children (branching) or none (it leaves). A prompt's keys and
 * values exist once for all its rows; those of the tokens after it lie in pages of PF_DECODER_PAGE
 * positions, full pages shared by the rows that branched after them.
 *
 * Every number of a row depends on its own tokens alone: the same bits whatever other rows there
 * are, in whatever order, on any number of threads. One thread at a time may use a decoder; the
 * weights must not change between its calls. */
#ifndef PF_DECODER_H
#define PF_DECODER_H

#include "model/pf_model.h"
#include "model/pf_transformer.h"

enum {
    PF_DECODER_PAGE = 32, /* positions, or max_positions where that is less */
    PF_DECODER_TILE = 512 /* tokens of the vocabulary whose mass is kept as one sum */
};

/* A decoder of shape (retained; its head is LOGITS) with the weights value [shape->n], which stay
 * the caller's. scale, finite and above 0: an inverse temperature, see pf_distributions.
 * transitions (retained; NULL: every token may follow): logits of other tokens are -INFINITY.
 * MEMORY. */
int32_t pf_decoder_create(pf_decoder **out, const pf_shape *shape, const float *value, float scale,
                          pf_transitions *transitions);
void pf_decoder_destroy(pf_decoder *decoder); /* NULL is fine */

/* As if it had been made anew, with its memory: of the same shape. MEMORY: it is to be destroyed.
 */
int32_t pf_decoder_renew(pf_decoder *decoder, const float *value, float scale,
                         pf_transitions *transitions);

/* Forgets everything; bytes that it holds nevertheless. */
int64_t pf_decoder_rest(pf_decoder *decoder);

/* Forgets everything and computes each sequence of `in` whole, as a prompt; the rows are then the
 * prompts. in->n >= 1; every sequence has a token at least, at most max_positions, each below the
 * vocabulary's size. MEMORY; the decoder is then empty. */
int32_t pf_decoder_prompts(pf_decoder *decoder, const prefopt_sequences *in);

/* Row i continues row parent[i] of the rows before with token[i], i < n, n >= 1. No row may become
 * longer than max_positions. MEMORY; nothing has then changed but the distributions. */
int32_t pf_decoder_step(pf_decoder *decoder, int64_t n, const int64_t *parent,
                        const int32_t *token);

/* The distributions of the token that follows each row, valid until the next call. With m the
 * largest logit of the row, tile b's sums are over its tokens j of exp(l_j - tile_max) and of
 * exp(scale (l_j - tile_max)). */
typedef struct {
    int64_t n, vocab, n_tiles;
    float scale;
    const float *logits;          /* [n, vocab]: l */
    const float *tile_max;        /* [n, n_tiles]: NaN where a logit is NaN or +inf */
    const double *tile_sum;       /* [n, n_tiles] */
    double *tile_scaled;          /* [n, n_tiles]; tile_sum itself where scale is 1; the caller may
                                     write here */
    const double *max;            /* [n]: m, NaN where a logit is NaN or +inf, or all are -inf */
    const double *log_normaliser; /* [n]: log sum_j exp(l_j) */
} pf_distributions;
void pf_decoder_distributions(const pf_decoder *decoder, pf_distributions *out);

const pf_shape *pf_decoder_shape(const pf_decoder *decoder);

/* Bytes held for a prompt of that many tokens, and for a row with that many tokens after prompts
 * of at most `prompt` tokens, its share of the working arrays included (which are a chunk's at the
 * least). INT64_MAX when it overflows. */
int64_t pf_decoder_prompt_bytes(const pf_shape *shape, int64_t tokens);
int64_t pf_decoder_row_bytes(const pf_shape *shape, int64_t prompt, int64_t tokens);

/* Log-probabilities next_logp [in->n, vocab] of the token that follows each sequence: a decoder
 * whose prompts they are, in parts that fit the byte budget of the shape's context. in->n >= 0.
 * ARGUMENT (names the sequence: empty, longer than max_positions, a token out of range), NUMERIC
 * (names the sequence whose logits are not finite), MEMORY. */
int32_t pf_decoder_next_logprobs(const pf_shape *shape, const float *value,
                                 pf_transitions *transitions, const prefopt_sequences *in,
                                 double *next_logp);

#endif
