/* What the tests of transformers share: a tiny one, and a batch that shares prompts. */
#ifndef TRANSFORMER_TEST_H
#define TRANSFORMER_TEST_H

#include "model_test.h"
#include "neox_double.h"

static inline prefopt_transformer_config tiny(void)
{
    prefopt_transformer_config c;
    OK(prefopt_transformer_config_init(&c, sizeof c));
    c.vocab = 13;
    c.n_layers = 2;
    c.width = 12;
    c.n_heads = 2;
    c.ff_width = 20;
    c.max_positions = 240;
    c.rotary_fraction = 0.7; /* 4 of 6 */
    c.init_scale = 0.3;
    return c;
}

/* Norms and biases too, so that no gradient is a special one. */
static inline prefopt_policy *make(prefopt_context *context, const prefopt_transformer_config *c)
{
    prefopt_policy *policy = NULL;
    OK(prefopt_policy_create_transformer(&policy, context, c, 7));
    prefopt_parameters p = {.struct_size = sizeof p};
    OK(prefopt_policy_parameters(policy, &p));
    float *value = p.value;
    for (int64_t i = 0; i < p.n; i++) {
        double u;
        OK(prefopt_random_normal(11, 3, (uint64_t)i, 1, &u));
        value[i] += (float)(0.1 * u);
    }
    OK(prefopt_policy_updated(policy));
    return policy;
}

static inline int32_t token(int64_t i) { return (int32_t)((i * 7 + i * i % 5 + 3) % 13); }

/* Two prompts with three completions between them, one alone, one empty completion; the prompts'
 * sequences are not side by side. Long ones go over the attention's blocks of 64. */
static inline list batch(int64_t scale)
{
    int32_t a[400], b[400];
    for (int64_t i = 0; i < 400; i++) {
        a[i] = token(i);
        b[i] = token(i * 3 + 1);
    }
    list l = list_new();
    list_add(&l, a, 3 * scale, b, 5 * scale);
    list_add(&l, b, 2, b + 7, 3);
    list_add(&l, a, 3 * scale, b + 9, 1);
    list_add(&l, a + 1, 1, b + 11, 4 * scale);
    list_add(&l, a, 3 * scale, b + 20, 6 * scale);
    list_add(&l, b, 2, b + 30, 0);
    list_add(&l, b, 2, b + 31, 2);
    return l;
}

static const double weights[7] = {0.5, -1.25, 2, 0.75, -0.3, 4, 1};

#endif
