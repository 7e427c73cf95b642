/* A plain GPT-NeoX in double: one sequence at a time, no batches, no sharing, nothing clever. */
#ifndef NEOX_DOUBLE_H
#define NEOX_DOUBLE_H

#include "model/pf_transformer.h"
#include "pf_test.h"

static inline void double_norm(int64_t d, const double *x, const double *gain, const double *bias,
                               double epsilon, double *y)
{
    double mean = 0, square = 0;
    for (int64_t j = 0; j < d; j++)
        mean += x[j] / (double)d;
    for (int64_t j = 0; j < d; j++)
        square += (x[j] - mean) * (x[j] - mean) / (double)d;
    for (int64_t j = 0; j < d; j++)
        y[j] = (x[j] - mean) / sqrt(square + epsilon) * gain[j] + bias[j];
}

static inline void double_linear(int64_t out, int64_t in, const double *w, const double *b,
                                 const double *x, double *y)
{
    for (int64_t o = 0; o < out; o++) {
        y[o] = b == NULL ? 0 : b[o];
        for (int64_t i = 0; i < in; i++)
            y[o] += w[o * in + i] * x[i];
    }
}

static inline double double_gelu(int32_t activation, double x)
{
    if (activation == PREFOPT_GELU)
        return x * 0.5 * erfc(-x / sqrt(2));
    return 0.5 * x * (1 + tanh(sqrt(2 / acos(-1)) * (x + 0.044715 * x * x * x)));
}

/* hidden [n, width]: what the head sees after each of n tokens. theta: all parameters. */
static inline void double_hidden(const pf_shape *s, const double *theta, const int32_t *tokens,
                                 int64_t n, double *hidden)
{
    const prefopt_transformer_config *c = &s->config;
    int64_t d = c->width, ff = c->ff_width, m = s->head_width, half = s->rotary / 2;
    double *x = hidden, *h = malloc((size_t)(n * d) * 8), *qkv = malloc((size_t)(n * 3 * d) * 8);
    double *a = malloc((size_t)d * 8), *b = malloc((size_t)d * 8), *f = malloc((size_t)ff * 8);
    double *p = malloc((size_t)n * 8);
    for (int64_t i = 0; i < n; i++)
        memcpy(x + i * d, theta + s->embedding + tokens[i] * d, (size_t)d * 8);
    for (int64_t l = 0; l < c->n_layers; l++) {
        const pf_layer_offsets *o = &s->layers[l];
        for (int64_t i = 0; i < n; i++) {
            double_norm(d, x + i * d, theta + o->norm1, theta + o->norm1_bias, c->norm_epsilon,
                        h + i * d);
            double_linear(3 * d, d, theta + o->qkv, theta + o->qkv_bias, h + i * d,
                          qkv + i * 3 * d);
            for (int64_t k = 0; k < 2 * c->n_heads; k++) { /* q and k of each head */
                double *v = qkv + i * 3 * d + k / 2 * 3 * m + k % 2 * m;
                for (int64_t j = 0; j < half; j++) {
                    double t = (double)i * pow(c->rotary_base, -2 * (double)j / (double)s->rotary);
                    double first = v[j], second = v[j + half];
                    v[j] = first * cos(t) - second * sin(t);
                    v[j + half] = second * cos(t) + first * sin(t);
                }
            }
        }
        for (int64_t i = 0; i < n; i++) {
            for (int64_t k = 0; k < c->n_heads; k++) {
                const double *q = qkv + i * 3 * d + k * 3 * m;
                double most = -INFINITY, total = 0;
                for (int64_t t = 0; t <= i; t++) {
                    const double *key = qkv + t * 3 * d + k * 3 * m + m;
                    p[t] = 0;
                    for (int64_t j = 0; j < m; j++)
                        p[t] += q[j] * key[j] / sqrt((double)m);
                    most = fmax(most, p[t]);
                }
                for (int64_t t = 0; t <= i; t++)
                    total += p[t] = exp(p[t] - most);
                for (int64_t j = 0; j < m; j++) {
                    a[k * m + j] = 0;
                    for (int64_t t = 0; t <= i; t++)
                        a[k * m + j] += p[t] / total * qkv[t * 3 * d + k * 3 * m + 2 * m + j];
                }
            }
            double *row = x + i * d;
            memcpy(h + i * d, row, (size_t)d * 8);
            double_linear(d, d, theta + o->out, theta + o->out_bias, a, b);
            for (int64_t j = 0; j < d; j++)
                row[j] += b[j];
            const double *second = c->parallel_residual ? h + i * d : row;
            double_norm(d, second, theta + o->norm2, theta + o->norm2_bias, c->norm_epsilon, a);
            double_linear(ff, d, theta + o->up, theta + o->up_bias, a, f);
            for (int64_t j = 0; j < ff; j++)
                f[j] = double_gelu(c->activation, f[j]);
            double_linear(d, ff, theta + o->down, theta + o->down_bias, f, b);
            for (int64_t j = 0; j < d; j++)
                row[j] += b[j];
        }
    }
    for (int64_t i = 0; i < n; i++)
        double_norm(d, x + i * d, theta + s->norm, theta + s->norm_bias, c->norm_epsilon,
                    x + i * d);
    free(p), free(f), free(b), free(a), free(qkv), free(h);
}

/* log pi of each token of the completion (token_logp: n - prompt_len, or NULL), and their sum.
 * allowed [vocab, vocab]: which token may follow the row's; NULL: every one. */
static inline double double_logp_allowed(const pf_shape *s, const double *theta,
                                         const int32_t *tokens, int64_t n, int64_t prompt_len,
                                         const uint8_t *allowed, double *token_logp)
{
    int64_t d = s->config.width, vocab = s->config.vocab;
    double *hidden = malloc((size_t)(n * d + 1) * 8), *z = malloc((size_t)vocab * 8), sum = 0;
    double_hidden(s, theta, tokens, n, hidden);
    for (int64_t t = prompt_len; t < n; t++) {
        double most = -INFINITY, total = 0;
        double_linear(vocab, d, theta + s->output, NULL, hidden + (t - 1) * d, z);
        for (int64_t v = 0; allowed != NULL && v < vocab; v++)
            if (!allowed[tokens[t - 1] * vocab + v])
                z[v] = -INFINITY;
        for (int64_t v = 0; v < vocab; v++)
            most = fmax(most, z[v]);
        for (int64_t v = 0; v < vocab; v++)
            total += exp(z[v] - most);
        double logp = z[tokens[t]] - most - log(total);
        if (token_logp != NULL)
            token_logp[t - prompt_len] = logp;
        sum += logp;
    }
    free(z), free(hidden);
    return sum;
}

static inline double double_logp(const pf_shape *s, const double *theta, const int32_t *tokens,
                                 int64_t n, int64_t prompt_len, double *token_logp)
{
    return double_logp_allowed(s, theta, tokens, n, prompt_len, NULL, token_logp);
}

#endif
