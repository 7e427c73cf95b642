/* A GPT-NeoX forward pass in plain double precision, one sequence at a time: what the tests hold
 * the library's own against. */
#ifndef NEOX_REFERENCE_H
#define NEOX_REFERENCE_H

#include "model/pf_transformer.h"
#include "pf_test.h"

static inline prefopt_transformer_config small_config(void)
{
    prefopt_transformer_config c;
    OK(prefopt_transformer_config_init(&c, sizeof c));
    c.vocab = 37;
    c.n_layers = 2;
    c.width = 24;
    c.n_heads = 3;
    c.ff_width = 40;
    c.max_positions = 90;
    c.rotary_fraction = 0.5;
    return c;
}

/* Weights far enough from 0 that every part shows: norms about 1, the rest random. */
static inline float *random_weights(const pf_shape *shape, uint64_t seed)
{
    float *value = malloc((size_t)shape->n * sizeof *value);
    for (int64_t t = 0; t < shape->n_tensors; t++) {
        const pf_tensor *tensor = &shape->tensors[t];
        double spread = tensor->n_dims == 2 ? 1 / sqrt((double)tensor->columns) : 0.3;
        for (int64_t i = 0; i < tensor->rows * tensor->columns; i++)
            value[tensor->offset + i] = (float)(spread * pf_normal(seed, (uint64_t)t, (uint64_t)i) +
                                                (strstr(tensor->name, "norm.weight") != NULL));
    }
    return value;
}

/* y [out] = w [out, in] x + b. */
static inline void ref_product(int64_t out, int64_t in, const float *w, const float *b,
                               const double *x, double *y)
{
    for (int64_t o = 0; o < out; o++) {
        y[o] = b == NULL ? 0 : (double)b[o];
        for (int64_t i = 0; i < in; i++)
            y[o] += (double)w[o * in + i] * x[i];
    }
}

static inline void ref_norm(const pf_shape *s, const float *gamma, const float *beta,
                            const double *x, double *y)
{
    int64_t d = s->config.width;
    double mean = 0, variance = 0;
    for (int64_t i = 0; i < d; i++)
        mean += x[i] / (double)d;
    for (int64_t i = 0; i < d; i++)
        variance += (x[i] - mean) * (x[i] - mean) / (double)d;
    for (int64_t i = 0; i < d; i++)
        y[i] = (x[i] - mean) / sqrt(variance + s->config.norm_epsilon) * (double)gamma[i] +
               (double)beta[i];
}

static inline double ref_gelu(int32_t form, double x)
{
    if (form == PREFOPT_GELU)
        return x * 0.5 * erfc(-x / sqrt(2));
    return 0.5 * x * (1 + tanh(sqrt(2 / acos(-1)) * (x + 0.044715 * x * x * x)));
}

static inline void ref_rotate(const pf_shape *s, int64_t position, double *x)
{
    int64_t half = s->rotary / 2;
    for (int64_t j = 0; j < half; j++) {
        double angle =
            (double)position * pow(s->config.rotary_base, -2.0 * (double)j / (double)s->rotary);
        double a = x[j], b = x[j + half];
        x[j] = a * cos(angle) - b * sin(angle);
        x[j + half] = b * cos(angle) + a * sin(angle);
    }
}

/* out [width] = attention of position t, qkv [n, heads, 3, head_width]. */
static inline void ref_attend(const pf_shape *s, const double *qkv, int64_t t, double *out)
{
    int64_t heads = s->config.n_heads, w = s->head_width, stride = 3 * heads * w;
    double *weight = malloc((size_t)(t + 1) * sizeof *weight);
    for (int64_t h = 0; h < heads; h++) {
        const double *q = qkv + t * stride + h * 3 * w;
        double total = 0;
        for (int64_t u = 0; u <= t; u++) {
            const double *k = qkv + u * stride + h * 3 * w + w;
            double dot = 0;
            for (int64_t i = 0; i < w; i++)
                dot += q[i] * k[i];
            total += weight[u] = exp(dot / sqrt((double)w));
        }
        for (int64_t i = 0; i < w; i++) {
            out[h * w + i] = 0;
            for (int64_t u = 0; u <= t; u++)
                out[h * w + i] += weight[u] / total * qkv[u * stride + h * 3 * w + 2 * w + i];
        }
    }
    free(weight);
}

static inline void ref_layer(const pf_shape *s, const float *value, int64_t layer, int64_t n,
                             double *x)
{
    const pf_layer_offsets *l = &s->layers[layer];
    const float *v = value;
    int64_t d = s->config.width, ff = s->config.ff_width, stride = 3 * d;
    double *qkv = malloc((size_t)(n * stride) * sizeof *qkv);
    double *norm = malloc((size_t)d * sizeof *norm), *attended = malloc((size_t)d * sizeof *norm);
    double *up = malloc((size_t)ff * sizeof *up), *add = malloc((size_t)d * sizeof *add);
    for (int64_t t = 0; t < n; t++) {
        ref_norm(s, v + l->norm1, v + l->norm1_bias, x + t * d, norm);
        ref_product(stride, d, v + l->qkv, v + l->qkv_bias, norm, qkv + t * stride);
        for (int64_t h = 0; h < 2 * s->config.n_heads; h++)
            ref_rotate(s, t, qkv + t * stride + (h / 2 * 3 + h % 2) * s->head_width);
    }
    for (int64_t t = 0; t < n; t++) {
        double *row = x + t * d;
        ref_attend(s, qkv, t, attended);
        ref_product(d, d, v + l->out, v + l->out_bias, attended, add);
        if (s->config.parallel_residual)
            ref_norm(s, v + l->norm2, v + l->norm2_bias, row, norm);
        for (int64_t i = 0; i < d; i++)
            row[i] += add[i];
        if (!s->config.parallel_residual)
            ref_norm(s, v + l->norm2, v + l->norm2_bias, row, norm);
        ref_product(ff, d, v + l->up, v + l->up_bias, norm, up);
        for (int64_t i = 0; i < ff; i++)
            up[i] = ref_gelu(s->config.activation, up[i]);
        ref_product(d, ff, v + l->down, v + l->down_bias, up, add);
        for (int64_t i = 0; i < d; i++)
            row[i] += add[i];
    }
    free(qkv);
    free(norm);
    free(attended);
    free(up);
    free(add);
}

/* logits [vocab] of the token after n tokens. */
static inline void ref_logits(const pf_shape *s, const float *value, const int32_t *tokens,
                              int64_t n, double *logits)
{
    int64_t d = s->config.width;
    double *x = malloc((size_t)(n * d) * sizeof *x), *norm = malloc((size_t)d * sizeof *norm);
    for (int64_t t = 0; t < n; t++)
        for (int64_t i = 0; i < d; i++)
            x[t * d + i] = (double)value[s->embedding + tokens[t] * d + i];
    for (int64_t l = 0; l < s->config.n_layers; l++)
        ref_layer(s, value, l, n, x);
    ref_norm(s, value + s->norm, value + s->norm_bias, x + (n - 1) * d, norm);
    ref_product(s->config.vocab, d, value + s->output, NULL, norm, logits);
    free(x);
    free(norm);
}

#endif
