/* The tokenizer from inside: its tables, which loading fills and nothing changes afterwards, and
 * the steps from a text to tokens. */
#ifndef PF_TOKENIZER_H
#define PF_TOKENIZER_H

#include "base/pf_base.h"
#include "prefopt/tokenizer.h"

/* ---- bytes and UTF-8 (byte_level.c) */

/* GPT-2's alphabet, in which vocabularies are written: each byte is one printable character. */
int32_t pf_byte_level_byte(int32_t character); /* code point -> 0 .. 255; -1: not of the alphabet */

/* A string in that alphabet -> bytes (out has room for n); -1 when another character is in it. The
 * string is valid UTF-8. */
int64_t pf_byte_level_decode(const char *text, int64_t n, char *out);

/* Offset of the first byte that is not part of valid UTF-8 (RFC 3629); n when all are. */
int64_t pf_utf8_valid(const char *text, int64_t n);

/* The character at text[at], of valid UTF-8; *next is where the one after starts. */
int32_t pf_utf8_at(const char *text, int64_t at, int64_t *next);

bool pf_is_white_space(int32_t character); /* Unicode's White_Space */

/* ---- pattern matching and normalisation, which need other libraries (pretokenize.c) */

typedef struct pf_pattern pf_pattern;
typedef struct pf_match pf_match; /* what one thread needs to match any pattern */

extern const char pf_gpt2_pattern[];

/* Errors: FORMAT (what the regular expression lacks, with its offset), MEMORY, UNSUPPORTED. */
int32_t pf_pattern_compile(pf_pattern **out, prefopt_context *context, const char *regex,
                           int64_t n);
void pf_pattern_destroy(prefopt_context *context, pf_pattern *pattern);
int32_t pf_match_create(pf_match **out, prefopt_context *context);
void pf_match_destroy(prefopt_context *context, pf_match *match);
/* The next match at or after `from`: [*start, *end), or *start = *end = n where there is none.
 * Errors: UNSUPPORTED (a limit was reached), MEMORY. */
int32_t pf_pattern_find(const pf_pattern *pattern, pf_match *match, const char *text, int64_t n,
                        int64_t from, int64_t *start, int64_t *end);

bool pf_is_word(int32_t character); /* letters, marks, decimal digits, connectors */

/* A growing array of bytes. */
typedef struct {
    void *data;
    int64_t n, capacity;
} pf_bytes;

/* out->data[0 .. n) = NFC of valid UTF-8; `points` is scratch. *same: the text is in that form
 * already and out was not written. */
int32_t pf_nfc(prefopt_context *context, const char *text, int64_t n, pf_bytes *out,
               pf_bytes *points, bool *same);

/* ---- byte pair merges (bpe.c) */

typedef struct {
    uint64_t key;        /* left << 32 | right; PF_NO_KEY: the slot is empty */
    int32_t rank, token; /* place in the list; what the two become */
} pf_merge;
#define PF_NO_KEY UINT64_MAX

typedef struct {
    pf_merge *slots;
    uint64_t mask; /* slots - 1; a power of two above twice the entries */
} pf_merges;

int32_t pf_merges_create(pf_merges *merges, prefopt_context *context, int64_t n);
/* A pair that is there already gets the new rank. */
void pf_merges_put(pf_merges *merges, int32_t left, int32_t right, int32_t rank, int32_t token);
const pf_merge *pf_merges_get(const pf_merges *merges, int32_t left, int32_t right); /* or NULL */

/* Scratch of one call. */
typedef struct {
    void *data;
    int64_t capacity; /* bytes */
} pf_bpe_scratch;

/* symbols[0 .. n) -> *n_out merged ones, in place. n < 2^31. Errors: MEMORY. */
int32_t pf_bpe_merge(const pf_merges *merges, prefopt_context *context, pf_bpe_scratch *scratch,
                     int32_t *symbols, int64_t n, int64_t *n_out);

/* ---- texts of tokens and added tokens (added_tokens.c) */

/* Finds a token by its bytes. */
typedef struct {
    struct {
        uint32_t tag;  /* upper half of the hash */
        int32_t token; /* -1: empty */
    } * slots;
    uint64_t mask;
} pf_text_table;

/* Longest of a set of texts at a place. A tree: child of node c by byte b is under c << 8 | b. */
typedef struct {
    pf_merges child; /* left: node, right: byte, token: node; no ranks */
    int32_t *entry;  /* one a node: index of the added token that ends here, -1: none */
    int64_t n_nodes;
    uint8_t first[256];   /* a text starts with this byte: 1; is this byte alone: 3 */
    uint8_t second[8192]; /* bit first << 8 | second: a text starts so */
} pf_text_tree;

typedef struct {
    int32_t token;
    uint8_t special, single_word, lstrip, rstrip;
} pf_added_token;

struct prefopt_tokenizer {
    prefopt_context *context;
    int64_t size;
    /* Texts end to end, a NUL after each: that of token t is text[offsets[t] .. offsets[t+1] - 1).
     */
    char *text;
    int64_t *offsets;    /* size + 1 */
    uint8_t *flags;      /* size: PF_TOKEN_... */
    pf_text_table table; /* tokens of the model by their bytes */
    pf_text_table rest;  /* added tokens, and others that merges cannot give, by theirs */
    pf_merges merges;
    int32_t byte_token[256]; /* -1: none */

    pf_added_token *added; /* added tokens, n_added of them */
    int64_t n_added;
    pf_text_tree *raw,
        *normalised; /* those found in the text as it is, in the normalised; or NULL */

    bool nfc, add_prefix_space, ignore_merges;
    bool gpt2_pattern;            /* the last pattern is pf_gpt2_pattern */
    pf_pattern **patterns;        /* one after the other on what the one before left */
    int64_t n_patterns, n_splits; /* the first n_splits are Split's, then comes add_prefix_space */
};

enum {
    PF_TOKEN_SPECIAL = 1,
    PF_TOKEN_ADDED = 2,
    PF_TOKEN_WHOLE = 4 /* merging the token's bytes gives the token itself */
};

static inline const char *pf_token_text(const prefopt_tokenizer *t, int64_t token, int64_t *n)
{
    *n = t->offsets[token + 1] - t->offsets[token] - 1;
    return t->text + t->offsets[token];
}

int32_t pf_text_table_create(pf_text_table *table, prefopt_context *context, int64_t n);
/* False when the same bytes are there already: the table is as before. */
bool pf_text_table_put(const prefopt_tokenizer *t, pf_text_table *table, int32_t token);
int32_t pf_text_table_get(const prefopt_tokenizer *t, const pf_text_table *table, const char *bytes,
                          int64_t n); /* -1: none */

/* n_bytes: of all texts to come. */
int32_t pf_text_tree_create(pf_text_tree **out, prefopt_context *context, int64_t n_bytes);
void pf_text_tree_destroy(prefopt_context *context, pf_text_tree *tree);
/* entry: index of the added token. False when the text is there already (or is empty). */
bool pf_text_tree_put(pf_text_tree *tree, const char *text, int64_t n, int32_t entry);
/* The leftmost, longest text that starts at or after `from`: [*start, *end) and its entry; -1:
 * none. */
int32_t pf_text_tree_find(const pf_text_tree *tree, const char *text, int64_t n, int64_t from,
                          int64_t *start, int64_t *end);

/* ---- from texts to tokens, from the file to the handle */

/* What one call of encode holds. (encode.c) */
typedef struct {
    const prefopt_tokenizer *t;
    pf_match *match;
    int32_t *tokens;
    int64_t n, capacity;
    pf_bytes normal, points, prefixed;
    pf_bpe_scratch bpe;
} pf_encoder;

int32_t pf_encoder_begin(pf_encoder *e, const prefopt_tokenizer *t);
void pf_encoder_end(pf_encoder *e);
/* Appends the tokens of a text: valid UTF-8, at most PF_ENCODE_MOST bytes. Errors: as
 * prefopt_tokenizer_encode. */
enum { PF_ENCODE_MOST = 1 << 29 };
int32_t pf_encode(pf_encoder *e, const char *utf8, int64_t n_bytes);
/* Appends the tokens that merging the bytes gives. */
int32_t pf_encode_merged(pf_encoder *e, const char *bytes, int64_t n);

/* Reads the n bytes of a tokenizer.json; name stands for the file in error texts. Errors: as
 * prefopt_tokenizer_load. (tokenizer_load.c) */
int32_t pf_tokenizer_parse(prefopt_tokenizer **out, prefopt_context *context, const char *name,
                           const char *bytes, int64_t n);

#endif
