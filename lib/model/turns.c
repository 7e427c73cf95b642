/* Rotary angles: position p turns pair j by p * base^(-2 j / rotary), in double, rounded once. */
#include <math.h>

#include "model/pf_transformer.h"

int32_t pf_turns_fit(pf_turns *turns, prefopt_context *context, const pf_shape *shape, int64_t n)
{
    int64_t half = shape->rotary / 2, most = shape->config.max_positions, size = 2 * turns->n;
    if (n <= turns->n || half == 0)
        return PREFOPT_OK;
    size = size > n ? size : n;
    size = size < most ? size : most;
    int64_t count;
    if (!pf_mul(size, half, &count))
        count = -1;
    float *cosine = pf_alloc(context, count, sizeof *cosine);
    float *sine = cosine == NULL ? NULL : pf_alloc(context, count, sizeof *sine);
    if (sine == NULL) {
        pf_free(context, cosine);
        return PREFOPT_ERR_MEMORY;
    }
    for (int64_t j = 0; j < half; j++) {
        double frequency = pow(shape->config.rotary_base, -(double)j / (double)half);
        for (int64_t p = 0; p < size; p++) {
            cosine[p * half + j] = (float)cos((double)p * frequency);
            sine[p * half + j] = (float)sin((double)p * frequency);
        }
    }
    pf_turns_clear(turns, context);
    *turns = (pf_turns){cosine, sine, size};
    return PREFOPT_OK;
}

void pf_turns_clear(pf_turns *turns, prefopt_context *context)
{
    pf_free(context, turns->cosine);
    pf_free(context, turns->sine);
    *turns = (pf_turns){NULL, NULL, 0};
}
