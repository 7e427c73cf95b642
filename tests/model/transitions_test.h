/* What the tests of transitions share: a masked transformer, and sequences that its mask allows,
 * but for two. */
#ifndef TRANSITIONS_TEST_H
#define TRANSITIONS_TEST_H

#include "model_test.h"

enum { VOCAB = 11, LARGE = 1100, MOST = 24 };

static inline prefopt_transformer_config config_of(int64_t vocab)
{
    prefopt_transformer_config c;
    OK(prefopt_transformer_config_init(&c, sizeof c));
    c.vocab = vocab;
    c.n_layers = 1;
    c.width = 8;
    c.n_heads = 2;
    c.ff_width = 12;
    c.max_positions = 16;
    c.rotary_fraction = 0.5;
    c.init_scale = 0.4;
    c.eos = -1;
    return c;
}

static inline prefopt_policy *make(prefopt_context *context, int64_t vocab)
{
    prefopt_transformer_config c = config_of(vocab);
    prefopt_policy *policy = NULL;
    OK(prefopt_policy_create_transformer(&policy, context, &c, 5));
    return policy;
}

static inline pf_shape *shape_of(prefopt_context *context, int64_t vocab)
{
    prefopt_transformer_config c = config_of(vocab);
    pf_shape *shape = NULL;
    OK(pf_shape_create(&shape, context, &c, PF_HEAD_LOGITS));
    return shape;
}

/* Three tokens in ten may follow; nothing but token 900 may follow token 1 of the large alphabet,
 * so that whole slices of it are without any. */
static inline uint8_t *allowed_of(int64_t vocab)
{
    uint8_t *allowed = calloc((size_t)(vocab * vocab), 1);
    for (int64_t u = 0; u < vocab; u++) {
        for (int64_t v = 0; v < vocab; v++)
            allowed[u * vocab + v] = pf_uniform(9, (uint64_t)u, (uint64_t)v) < 0.3;
        allowed[u * vocab + (u * 3 + 1) % vocab] = 1;
    }
    if (vocab > 1000) {
        memset(allowed + vocab, 0, (size_t)vocab);
        allowed[vocab + 900] = 1;
    }
    return allowed;
}

/* The k-th allowed token after `before`, counted round and round. */
static inline int32_t follow(const uint8_t *allowed, int64_t vocab, int32_t before, int64_t k)
{
    for (int32_t v = 0;; v = (int32_t)((v + 1) % vocab))
        if (allowed[before * vocab + v] && k-- == 0)
            return v;
}

static inline int32_t forbidden(const uint8_t *allowed, int64_t vocab, int32_t before)
{
    int32_t v = 0;
    while (allowed[before * vocab + v])
        v++;
    return v;
}

enum { SEQUENCES = 8, BROKEN_FIRST = 3, BROKEN_MIDDLE = 5 };
static const double weights[SEQUENCES] = {0.5, -1.25, 2, 0.75, -0.3, 4, 1, -0.6};

/* Prompts that no grammar has to like, two of them shared; sequences BROKEN_... take a step that is
 * not allowed; one completion is empty. */
static inline list batch(const uint8_t *allowed, int64_t vocab)
{
    list l = list_new();
    for (int64_t i = 0; i < SEQUENCES; i++) {
        int64_t prompt_len = 1 + i % 3, n = i == 6 ? 0 : 2 + i;
        int32_t tokens[MOST];
        for (int64_t t = 0; t < prompt_len; t++)
            tokens[t] = (int32_t)((7 * t + 1 + (i == 7)) % vocab);
        for (int64_t t = prompt_len; t < prompt_len + n; t++) {
            bool broken = (i == BROKEN_FIRST && t == prompt_len) ||
                          (i == BROKEN_MIDDLE && t == prompt_len + 3);
            tokens[t] = broken ? forbidden(allowed, vocab, tokens[t - 1])
                               : follow(allowed, vocab, tokens[t - 1], i + t);
        }
        list_add(&l, tokens, prompt_len, tokens + prompt_len, n);
    }
    return l;
}

#endif
