/* A transformer that is small enough for a test to train. */
#ifndef SMALL_TRANSFORMER_H
#define SMALL_TRANSFORMER_H

#include "pf_test.h"

static inline prefopt_transformer_config small_config(void)
{
    prefopt_transformer_config c;
    OK(prefopt_transformer_config_init(&c, sizeof c));
    c.vocab = 12;
    c.n_layers = 1;
    c.width = 16;
    c.n_heads = 2;
    c.ff_width = 24;
    c.max_positions = 12;
    c.rotary_fraction = 0.5;
    c.init_scale = 0.1;
    return c;
}

static inline prefopt_policy *small_policy(prefopt_context *context, uint64_t seed)
{
    prefopt_transformer_config c = small_config();
    prefopt_policy *policy = NULL;
    OK(prefopt_policy_create_transformer(&policy, context, &c, seed));
    return policy;
}

#endif
