/* From a text to tokens: added tokens are cut out, what is between is normalised, split into
 * pieces, and the bytes of each piece are merged. */
#include "data/pf_tokenizer.h"

int32_t pf_encoder_begin(pf_encoder *e, const prefopt_tokenizer *t)
{
    *e = (pf_encoder){.t = t};
    return t->n_patterns > 0 ? pf_match_create(&e->match, t->context) : PREFOPT_OK;
}

void pf_encoder_end(pf_encoder *e)
{
    prefopt_context *context = e->t->context;
    pf_match_destroy(context, e->match);
    pf_free(context, e->tokens);
    pf_free(context, e->normal.data);
    pf_free(context, e->points.data);
    pf_free(context, e->prefixed.data);
    pf_free(context, e->bpe.data);
}

/* Room for n more tokens. */
static int32_t reserve(pf_encoder *e, int64_t n)
{
    if (e->n + n <= e->capacity)
        return PREFOPT_OK;
    void *tokens = e->tokens;
    int32_t status =
        pf_grow(e->t->context, &tokens, e->n, &e->capacity, e->n + n, sizeof *e->tokens);
    e->tokens = tokens;
    return status;
}

int32_t pf_encode_merged(pf_encoder *e, const char *bytes, int64_t n)
{
    PF_TRY(reserve(e, n));
    int32_t *symbols = e->tokens + e->n;
    for (int64_t i = 0; i < n; i++) {
        unsigned char byte = (unsigned char)bytes[i];
        symbols[i] = e->t->byte_token[byte];
        if (symbols[i] < 0)
            return pf_fail(PREFOPT_ERR_ARGUMENT, "the vocabulary has no token for the byte 0x%02x",
                           byte);
    }
    int64_t merged;
    PF_TRY(pf_bpe_merge(&e->t->merges, e->t->context, &e->bpe, symbols, n, &merged));
    e->n += merged;
    return PREFOPT_OK;
}

/* A piece, to which nothing but merges apply. Most pieces are tokens of the vocabulary, and for
 * most of these loading found that merging gives the token. */
static int32_t piece(pf_encoder *e, const char *bytes, int64_t n)
{
    const prefopt_tokenizer *t = e->t;
    int32_t token = pf_text_table_get(t, &t->table, bytes, n);
    if (token >= 0 && (t->ignore_merges || (t->flags[token] & PF_TOKEN_WHOLE) != 0)) {
        PF_TRY(reserve(e, 1));
        e->tokens[e->n++] = token;
        return PREFOPT_OK;
    }
    return pf_encode_merged(e, bytes, n);
}

/* Splits by the patterns from `stage` on: matches, and what lies between them, are each split by
 * the next. */
static int32_t split(pf_encoder *e, int64_t stage, const char *text, int64_t n)
{
    const prefopt_tokenizer *t = e->t;
    if (stage == t->n_splits && t->add_prefix_space && text[0] != ' ') {
        PF_TRY(pf_grow(t->context, &e->prefixed.data, 0, &e->prefixed.capacity, n + 1, 1));
        char *prefixed = e->prefixed.data;
        prefixed[0] = ' ';
        memcpy(prefixed + 1, text, (size_t)n);
        text = prefixed;
        n++;
    }
    if (stage == t->n_patterns)
        return piece(e, text, n);
    bool last = stage + 1 == t->n_patterns && stage + 1 != t->n_splits;
    for (int64_t at = 0, from = 0; at < n;) {
        int64_t start, end;
        PF_TRY(pf_pattern_find(t->patterns[stage], e->match, text, n, from, &start, &end));
        if (start > at)
            PF_TRY(last ? piece(e, text + at, start - at)
                        : split(e, stage + 1, text + at, start - at));
        if (end > start)
            PF_TRY(last ? piece(e, text + start, end - start)
                        : split(e, stage + 1, text + start, end - start));
        at = from = end;
        if (end == start && end < n) /* an empty match cuts, and the search goes on after it */
            pf_utf8_at(text, end, &from);
    }
    return PREFOPT_OK;
}

/* ---------------------------------------------------------------- added tokens */

static bool word_before(const char *text, int64_t at)
{
    int64_t start = at, next;
    if (at == 0)
        return false;
    do
        start--;
    while (start > 0 && ((unsigned char)text[start] & 0xc0) == 0x80);
    return pf_is_word(pf_utf8_at(text, start, &next));
}

/* Takes the white space before *start (down to floor) and after *end, as the token asks. */
static void strip(const pf_added_token *token, const char *text, int64_t n, int64_t floor,
                  int64_t *start, int64_t *end)
{
    int64_t next;
    while (token->lstrip && *start > floor) {
        int64_t at = *start;
        do
            at--;
        while (at > floor && ((unsigned char)text[at] & 0xc0) == 0x80);
        if (!pf_is_white_space(pf_utf8_at(text, at, &next)))
            break;
        *start = at;
    }
    while (token->rstrip && *end < n && pf_is_white_space(pf_utf8_at(text, *end, &next)))
        *end = next;
}

typedef int32_t between_fn(pf_encoder *e, const char *text, int64_t n);

/* Cuts the added tokens of a tree out; what is between goes to `between`. */
static int32_t cut(pf_encoder *e, const pf_text_tree *tree, const char *text, int64_t n,
                   between_fn *between)
{
    int64_t done = 0, from = 0, start, end;
    while (tree != NULL && from < n) {
        int32_t entry = pf_text_tree_find(tree, text, n, from, &start, &end);
        if (entry < 0)
            break;
        const pf_added_token *token = &e->t->added[entry];
        int64_t next;
        from = end;
        if (token->single_word &&
            (word_before(text, start) || (end < n && pf_is_word(pf_utf8_at(text, end, &next)))))
            continue;
        strip(token, text, n, done, &start, &end);
        if (start > done)
            PF_TRY(between(e, text + done, start - done));
        PF_TRY(reserve(e, 1));
        e->tokens[e->n++] = token->token;
        done = from = end;
    }
    return done < n ? between(e, text + done, n - done) : PREFOPT_OK;
}

static int32_t pieces(pf_encoder *e, const char *text, int64_t n) { return split(e, 0, text, n); }

static int32_t normalise(pf_encoder *e, const char *text, int64_t n)
{
    bool same = true;
    if (e->t->nfc)
        PF_TRY(pf_nfc(e->t->context, text, n, &e->normal, &e->points, &same));
    return same ? cut(e, e->t->normalised, text, n, pieces)
                : cut(e, e->t->normalised, e->normal.data, e->normal.n, pieces);
}

int32_t pf_encode(pf_encoder *e, const char *utf8, int64_t n_bytes)
{
    PF_TRY(reserve(e, n_bytes / 4 + 16));
    return cut(e, e->t->raw, utf8, n_bytes, normalise);
}

int32_t prefopt_tokenizer_encode(const prefopt_tokenizer *tokenizer, const char *utf8,
                                 int64_t n_bytes, int32_t *tokens, int64_t capacity,
                                 int64_t *n_tokens)
{
    PF_REQUIRE(tokenizer);
    PF_REQUIRE(n_tokens);
    if (n_bytes < 0 || n_bytes > PF_ENCODE_MOST)
        return pf_fail(PREFOPT_ERR_ARGUMENT, "n_bytes is %lld, expected 0 to %d",
                       (long long)n_bytes, (int)PF_ENCODE_MOST);
    if (capacity < 0)
        return pf_fail(PREFOPT_ERR_ARGUMENT, "capacity is %lld, expected >= 0",
                       (long long)capacity);
    if (n_bytes > 0)
        PF_REQUIRE(utf8);
    if (capacity > 0)
        PF_REQUIRE(tokens);
    int64_t valid = n_bytes == 0 ? 0 : pf_utf8_valid(utf8, n_bytes);
    if (valid < n_bytes)
        return pf_fail(PREFOPT_ERR_ARGUMENT, "utf8: byte %lld (0x%02x) is not valid UTF-8",
                       (long long)valid, (unsigned char)utf8[valid]);
    int64_t n = 0;
    if (n_bytes > 0) {
        pf_encoder e;
        PF_TRY(pf_encoder_begin(&e, tokenizer));
        int32_t status = pf_encode(&e, utf8, n_bytes);
        n = e.n;
        if (status == PREFOPT_OK && capacity > 0)
            memcpy(tokens, e.tokens, (size_t)(n < capacity ? n : capacity) * sizeof *tokens);
        pf_encoder_end(&e);
        PF_TRY(status);
    }
    *n_tokens = n;
    return PREFOPT_OK;
}
