/* What the tests of logits share. */
#ifndef LOGITS_TEST_H
#define LOGITS_TEST_H

#include "pf_test.h"

enum { ARGUMENT = PREFOPT_ERR_ARGUMENT, NUMERIC = PREFOPT_ERR_NUMERIC };

static inline float *floats(int64_t n, double scale, uint64_t stream)
{
    double *x = malloc((size_t)n * sizeof *x);
    float *f = malloc((size_t)n * sizeof *f);
    OK(prefopt_random_normal(11, stream, 0, n, x));
    for (int64_t i = 0; i < n; i++)
        f[i] = (float)(scale * x[i]);
    free(x);
    return f;
}

static inline double reference_logp(int64_t vocab, const double *z, int32_t target,
                                    double temperature)
{
    double max = -INFINITY, sum = 0;
    for (int64_t j = 0; j < vocab; j++)
        max = fmax(max, z[j]);
    for (int64_t j = 0; j < vocab; j++)
        sum += exp((z[j] - max) / temperature);
    return (z[target] - max) / temperature - log(sum);
}

#endif
