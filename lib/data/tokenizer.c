/* The tokenizer's handle: its end, sizes and texts of tokens, tokens back to bytes. */
#include "data/pf_tokenizer.h"

void prefopt_tokenizer_destroy(prefopt_tokenizer *tokenizer)
{
    if (tokenizer == NULL)
        return;
    prefopt_context *context = tokenizer->context;
    for (int64_t i = 0; i < tokenizer->n_patterns; i++)
        pf_pattern_destroy(context, tokenizer->patterns[i]);
    pf_text_tree_destroy(context, tokenizer->raw);
    pf_text_tree_destroy(context, tokenizer->normalised);
    pf_free(context, tokenizer->patterns);
    pf_free(context, tokenizer->added);
    pf_free(context, tokenizer->merges.slots);
    pf_free(context, tokenizer->table.slots);
    pf_free(context, tokenizer->rest.slots);
    pf_free(context, tokenizer->flags);
    pf_free(context, tokenizer->offsets);
    pf_free(context, tokenizer->text);
    pf_free(context, tokenizer);
    pf_context_release(context);
}

int64_t prefopt_tokenizer_size(const prefopt_tokenizer *tokenizer)
{
    return tokenizer == NULL ? 0 : tokenizer->size;
}

int32_t prefopt_tokenizer_is_special(const prefopt_tokenizer *tokenizer, int32_t token)
{
    return tokenizer != NULL && token >= 0 && token < tokenizer->size &&
           (tokenizer->flags[token] & PF_TOKEN_SPECIAL) != 0;
}

int32_t prefopt_tokenizer_token(const prefopt_tokenizer *tokenizer, const char *utf8,
                                int64_t n_bytes, int32_t *token)
{
    PF_REQUIRE(tokenizer);
    PF_REQUIRE(token);
    if (n_bytes < 0)
        return pf_fail(PREFOPT_ERR_ARGUMENT, "n_bytes is %lld, expected >= 0", (long long)n_bytes);
    if (n_bytes > 0)
        PF_REQUIRE(utf8);
    const char *bytes = n_bytes > 0 ? utf8 : "";
    int32_t found = pf_text_table_get(tokenizer, &tokenizer->rest, bytes, n_bytes);
    if (found < 0)
        found = pf_text_table_get(tokenizer, &tokenizer->table, bytes, n_bytes);
    *token = found;
    return PREFOPT_OK;
}

const char *prefopt_tokenizer_text(const prefopt_tokenizer *tokenizer, int32_t token,
                                   int64_t *n_bytes)
{
    if (tokenizer == NULL || n_bytes == NULL) {
        pf_fail(PREFOPT_ERR_ARGUMENT, "%s: %s is NULL", __func__,
                tokenizer == NULL ? "tokenizer" : "n_bytes");
        return NULL;
    }
    if (token < 0 || token >= tokenizer->size) {
        pf_fail(PREFOPT_ERR_ARGUMENT, "token is %ld, expected 0 to %lld", (long)token,
                (long long)tokenizer->size - 1);
        return NULL;
    }
    return pf_token_text(tokenizer, token, n_bytes);
}

int32_t prefopt_tokenizer_decode(const prefopt_tokenizer *tokenizer, const int32_t *tokens,
                                 int64_t n, char *utf8, int64_t capacity, int64_t *n_bytes)
{
    PF_REQUIRE(tokenizer);
    PF_REQUIRE(n_bytes);
    if (n < 0 || capacity < 0)
        return pf_fail(PREFOPT_ERR_ARGUMENT, "%s is %lld, expected >= 0", n < 0 ? "n" : "capacity",
                       (long long)(n < 0 ? n : capacity));
    if (n > 0)
        PF_REQUIRE(tokens);
    if (capacity > 0)
        PF_REQUIRE(utf8);
    int64_t needed = 0, length;
    for (int64_t i = 0; i < n; i++) {
        if (tokens[i] < 0 || tokens[i] >= tokenizer->size)
            return pf_fail(PREFOPT_ERR_ARGUMENT, "tokens[%lld] is %ld, expected 0 to %lld",
                           (long long)i, (long)tokens[i], (long long)tokenizer->size - 1);
        pf_token_text(tokenizer, tokens[i], &length);
        if (!pf_add(needed, length, &needed))
            return pf_fail(PREFOPT_ERR_MEMORY, "a size overflows: the bytes of %lld tokens",
                           (long long)n);
    }
    for (int64_t i = 0, at = 0; i < n && at < capacity; i++) {
        const char *text = pf_token_text(tokenizer, tokens[i], &length);
        int64_t room = capacity - at;
        memcpy(utf8 + at, text, (size_t)(length < room ? length : room));
        at += length < room ? length : room;
    }
    *n_bytes = needed;
    return PREFOPT_OK;
}
