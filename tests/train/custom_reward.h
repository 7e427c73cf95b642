/* A reward by callbacks for the tests of the loop. */
#ifndef CUSTOM_REWARD_H
#define CUSTOM_REWARD_H

#include "train_test.h"

/* A reward of the caller's: theta[0] * (number of the completion), with a NaN at call nan_at. */
typedef struct {
    double theta[1], grad[1];
    int64_t calls, nan_from, fail_from; /* 0: never */
    int32_t status;
    int64_t seen; /* sequences scored */
} custom;

static inline int32_t custom_scores(void *payload, const prefopt_sequences *in, double *score)
{
    custom *c = payload;
    c->calls++;
    for (int64_t i = 0; i < in->n; i++) {
        int32_t token = in->tokens[in->offsets[i] + in->prompt_len[i]];
        score[i] = c->theta[0] * token;
        c->seen++;
        if (c->nan_from != 0 && c->calls >= c->nan_from && token == 3)
            score[i] = NAN;
    }
    return c->fail_from != 0 && c->calls >= c->fail_from ? -77 : c->status;
}

static inline int32_t custom_backward(void *payload, const prefopt_sequences *in,
                                      const double *grad)
{
    custom *c = payload;
    for (int64_t i = 0; i < in->n; i++)
        c->grad[0] += grad[i] * in->tokens[in->offsets[i] + in->prompt_len[i]];
    return PREFOPT_OK;
}

static inline int32_t custom_parameters(void *payload, prefopt_parameters *out)
{
    custom *c = payload;
    out->dtype = PREFOPT_F64;
    out->n = 1;
    out->value = c->theta;
    out->grad = c->grad;
    return PREFOPT_OK;
}

static inline prefopt_reward *custom_reward(prefopt_context *context, custom *c, int32_t trains)
{
    prefopt_reward_callbacks callbacks = {.struct_size = sizeof callbacks,
                                          .scores = custom_scores,
                                          .backward = trains ? custom_backward : NULL,
                                          .parameters = trains ? custom_parameters : NULL};
    prefopt_reward *reward;
    OK(prefopt_reward_create_custom(&reward, context, &callbacks, c));
    return reward;
}

#endif
