/* prefopt/tokenizer.h: text to tokens and back, by a byte-level BPE tokenizer.json.
 *
 *     prefopt_tokenizer *tokenizer;
 *     int64_t n, needed;
 *     prefopt_tokenizer_load(&tokenizer, context, "tokenizer.json");
 *     prefopt_tokenizer_encode(tokenizer, text, n_bytes, NULL, 0, &needed);
 *     int32_t *tokens = malloc(needed * sizeof *tokens);
 *     prefopt_tokenizer_encode(tokenizer, text, n_bytes, tokens, needed, &n);
 *
 * What is read is the file that Hugging Face's tokenizers write, for models of the GPT-2 and
 * GPT-NeoX kind. Of it:
 *   - normalizer: none, or NFC (Unicode Annex 15).
 *   - added_tokens, special or not, with single_word, lstrip, rstrip and normalized: found before
 *     anything else, leftmost first and the longest of those, in the text as it is where
 *     normalized is false, else in the normalised text.
 *   - pre_tokenizer: ByteLevel, or a Sequence of Split (a Regex whose matches are
 *     Isolated) and Digits that ends in ByteLevel; GPT-2's pattern with the full
 *     Unicode classes (white space is Unicode's White_Space).
 *   - model: BPE (Sennrich, Haddow and Birch, arXiv 1508.07909) over bytes, merges in both
 *     spellings, ignore_merges. Each byte of a text is a symbol; the adjacent pair whose merge
 *     stands first in the list is merged, the leftmost first, until no pair is left.
 *   - post_processor and decoder: ByteLevel, which changes no token; a template that adds nothing.
 *   - truncation and padding are not taken over: what is cut or filled is the caller's to say.
 * Anything else that would change tokens (dropout, unk_token, byte_fallback, a template with
 * special tokens ...) is PREFOPT_ERR_UNSUPPORTED and named.
 *
 * A tokenizer does not change once it is loaded: every call but load and destroy may run at once
 * on one handle from any number of threads, and none waits for another.
 */
#ifndef PREFOPT_TOKENIZER_H
#define PREFOPT_TOKENIZER_H

#include "base.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct prefopt_tokenizer prefopt_tokenizer;

/* Loads a tokenizer.json. The ids of the vocabulary and the added tokens together must be 0 to
 * size - 1, in any order. The handle holds a reference to the context; the caller owns *out.
 * Errors: ARGUMENT (NULL), MEMORY, IO (the file), FORMAT (its content; names the field),
 * UNSUPPORTED (a kind of tokenizer that is not read, names the field; or a build without text or
 * JSON). Thread-safe. Since 0.1. */
PREFOPT_API int32_t prefopt_tokenizer_load(prefopt_tokenizer **out, prefopt_context *context,
                                           const char *tokenizer_json_path);

/* Gives up the caller's reference; NULL is fine. Since 0.1. */
PREFOPT_API void prefopt_tokenizer_destroy(prefopt_tokenizer *tokenizer);

/* Number of tokens, added ones included: ids are 0 to size - 1 (a model's vocabulary may be padded
 * to more). 0 for NULL. Thread-safe. Since 0.1. */
PREFOPT_API int64_t prefopt_tokenizer_size(const prefopt_tokenizer *tokenizer);

/* Tokens of a text. utf8: n_bytes (at most 2^29) of valid UTF-8, NUL is a character like any other;
 * may be NULL when n_bytes is 0. tokens: room for `capacity`, may be NULL when that is 0.
 * *n_tokens: how many the text has, whatever the capacity; the first min(capacity, *n_tokens) are
 * written and nothing beyond, and a short capacity is no error. No token is added that the text
 * does not have. Errors: ARGUMENT (NULL, a negative size, invalid UTF-8 with its byte offset, a
 * byte for which the vocabulary has no token), MEMORY, UNSUPPORTED (a Split pattern gave up on this
 * text). Thread-safe. Since 0.1. */
PREFOPT_API int32_t prefopt_tokenizer_encode(const prefopt_tokenizer *tokenizer, const char *utf8,
                                             int64_t n_bytes, int32_t *tokens, int64_t capacity,
                                             int64_t *n_tokens);

/* Bytes of n tokens end to end: those of the (normalised) text they came from, special tokens by
 * their text, except what an added token's lstrip or rstrip or the pre-tokenizer's add_prefix_space
 * changed. A token may be part of a character, so a slice of tokens need not be valid UTF-8; no NUL
 * is put after. tokens: n, may be NULL when n is 0. utf8: room for `capacity` bytes, may be NULL
 * when that is 0. *n_bytes: how many there are, whatever the capacity; the first min(capacity,
 * *n_bytes) are written.
 * Errors: ARGUMENT (NULL, a negative size, an id outside 0 to size - 1: named with its index).
 * Thread-safe. Since 0.1. */
PREFOPT_API int32_t prefopt_tokenizer_decode(const prefopt_tokenizer *tokenizer,
                                             const int32_t *tokens, int64_t n, char *utf8,
                                             int64_t capacity, int64_t *n_bytes);

/* The token whose text is exactly this, as in ("<|endoftext|>", 13) or (" the", 4): an added token
 * first, else one of the vocabulary (by its bytes, not in the file's spelling); *token is -1 where
 * there is none. utf8 may be NULL when n_bytes is 0.
 * Errors: ARGUMENT (NULL, n_bytes < 0). Thread-safe. Since 0.1. */
PREFOPT_API int32_t prefopt_tokenizer_token(const prefopt_tokenizer *tokenizer, const char *utf8,
                                            int64_t n_bytes, int32_t *token);

/* The bytes of one token, *n_bytes of them and a NUL after, valid as long as the handle. NULL with
 * the error text set (ARGUMENT) for an id outside 0 to size - 1 or a NULL pointer.
 * Thread-safe. Since 0.1. */
PREFOPT_API const char *prefopt_tokenizer_text(const prefopt_tokenizer *tokenizer, int32_t token,
                                               int64_t *n_bytes);

/* 1 for an added token that the file calls special (end of text, padding ...), else 0, also for an
 * id that is none. Thread-safe. Since 0.1. */
PREFOPT_API int32_t prefopt_tokenizer_is_special(const prefopt_tokenizer *tokenizer, int32_t token);

#ifdef __cplusplus
}
#endif
#endif
