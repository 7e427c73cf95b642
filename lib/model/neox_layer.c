/* One layer of GPT-NeoX, forward beside backward. Rows are tokens, d the width; matrices are
 * [out, in].
 *
 *     h = norm1(x)                    [rows, d]
 *     q, k, v = h Wqkv^T + b          [rows, 3 d], q and k turned by their positions
 *     a = attention(q, k, v) Wo^T + b [rows, d]
 *     f = norm2(x or x + a) Wup^T     [rows, ff]
 *     m = gelu(f + b) Wdown^T + b     [rows, d]
 *     out = x + a + m
 *
 * Kept for the backward pass: x, the norms' statistics, q k v, the attended values, f. The norms'
 * outputs and the gelu are cheap and are computed again. */
#include "math/pf_gemm.h"
#include "math/pf_ops.h"
#include "model/pf_network.h"

/* What the tasks over rows work on. */
typedef struct {
    const pf_pass *pass;
    pf_layer_state *state;
    const pf_layer_offsets *offsets;
    const float *x; /* [rows, d] */
    const float *gain, *bias, *bias2;
    float *mean, *rstd;
    const float *dy;
    float *y; /* [rows, d] or [rows, ff] */
} row_work;

static int64_t width(const row_work *w) { return w->pass->shape->config.width; }

/* ---------------------------------------------------------------- rows */

static void norm_rows(void *payload, int64_t first, int64_t n)
{
    const row_work *w = payload;
    int64_t d = width(w);
    pf_layer_norm(n, d, w->x + first * d, w->gain, w->bias, w->pass->shape->config.norm_epsilon,
                  w->y + first * d, w->mean + first, w->rstd + first);
}

static void norm_again_rows(void *payload, int64_t first, int64_t n)
{
    const row_work *w = payload;
    int64_t d = width(w);
    pf_layer_norm_apply(n, d, w->x + first * d, w->mean + first, w->rstd + first, w->gain, w->bias,
                        w->y + first * d);
}

/* Bias and rotary positions onto the fresh products q, k, v. */
static void turn_rows(void *payload, int64_t first, int64_t n)
{
    const row_work *w = payload;
    const pf_shape *shape = w->pass->shape;
    const pf_activations *a = w->pass->a;
    int64_t ld = 3 * width(w), m = shape->head_width, half = shape->rotary / 2;
    for (int64_t i = first; i < first + n; i++) {
        float *qkv = w->state->qkv + i * ld;
        int64_t turn = w->pass->rows->position[i] * half;
        pf_add_bias(1, ld, w->bias, qkv, ld);
        if (half == 0)
            continue;
        pf_rotary(shape->config.n_heads, 3 * m, half, a->turns.cosine + turn, a->turns.sine + turn,
                  false, qkv);
        pf_rotary(shape->config.n_heads, 3 * m, half, a->turns.cosine + turn, a->turns.sine + turn,
                  false, qkv + m);
    }
}

static void turn_back_rows(void *payload, int64_t first, int64_t n)
{
    const row_work *w = payload;
    const pf_shape *shape = w->pass->shape;
    const pf_activations *a = w->pass->a;
    int64_t ld = 3 * width(w), m = shape->head_width, half = shape->rotary / 2;
    for (int64_t i = first; i < first + n && half > 0; i++) {
        float *dqkv = a->dqkv + i * ld;
        int64_t turn = w->pass->rows->position[i] * half;
        pf_rotary(shape->config.n_heads, 3 * m, half, a->turns.cosine + turn, a->turns.sine + turn,
                  true, dqkv);
        pf_rotary(shape->config.n_heads, 3 * m, half, a->turns.cosine + turn, a->turns.sine + turn,
                  true, dqkv + m);
    }
}

static int32_t form(const row_work *w)
{
    return w->pass->shape->config.activation == PREFOPT_GELU ? PF_GELU : PF_GELU_TANH;
}

static void gelu_rows(void *payload, int64_t first, int64_t n)
{
    const row_work *w = payload;
    int64_t ff = w->pass->shape->config.ff_width;
    pf_gelu(n, ff, form(w), w->x + first * ff, w->bias, w->y + first * ff);
}

static void gelu_backward_rows(void *payload, int64_t first, int64_t n)
{
    const row_work *w = payload;
    int64_t ff = w->pass->shape->config.ff_width;
    pf_gelu_backward(n, ff, form(w), w->x + first * ff, w->bias, w->y + first * ff);
}

/* y = x + bias (+ bias2): what products are then added to. */
static void residual_rows(void *payload, int64_t first, int64_t n)
{
    const row_work *w = payload;
    int64_t d = width(w);
    float *y = w->y + first * d;
    if (y != w->x + first * d)
        memcpy(y, w->x + first * d, (size_t)(n * d) * sizeof *y);
    pf_add_bias(n, d, w->bias, y, d);
    if (w->bias2 != NULL)
        pf_add_bias(n, d, w->bias2, y, d);
}

static void run(const row_work *w, pf_rows_fn *fn)
{
    pf_for_rows(w->pass->context, w->pass->rows->n_rows, fn, (void *)w);
}

/* ---------------------------------------------------------------- forward */

/* y [rows, out] = x [rows, in] W^T + beta y */
static int32_t linear(const pf_pass *pass, int64_t out, int64_t in, const float *x,
                      const float *weight, float beta, float *y)
{
    return pf_sgemm(pass->context, false, true, pass->rows->n_rows, out, in, 1, x, in, weight, in,
                    beta, y, out);
}

static void norm(row_work w, const float *x, int64_t gain, int64_t bias, float *mean, float *rstd,
                 pf_rows_fn *fn)
{
    w.x = x;
    w.gain = w.pass->value + gain;
    w.bias = w.pass->value + bias;
    w.mean = mean;
    w.rstd = rstd;
    w.y = w.pass->a->h;
    run(&w, fn);
}

/* state's q, k, v and attended values, from state->x. */
static int32_t attend(row_work w)
{
    const pf_pass *pass = w.pass;
    int64_t d = width(&w);
    pf_layer_state *s = w.state;
    norm(w, s->x, w.offsets->norm1, w.offsets->norm1_bias, s->mean1, s->rstd1, norm_rows);
    PF_TRY(linear(pass, 3 * d, d, pass->a->h, pass->value + w.offsets->qkv, 0, s->qkv));
    w.bias = pass->value + w.offsets->qkv_bias;
    run(&w, turn_rows);
    pf_attention(pass, s);
    return PREFOPT_OK;
}

/* state->up from the input of the second half. */
static int32_t widen(row_work w, const float *x)
{
    const pf_pass *pass = w.pass;
    pf_layer_state *s = w.state;
    norm(w, x, w.offsets->norm2, w.offsets->norm2_bias, s->mean2, s->rstd2, norm_rows);
    return linear(pass, pass->shape->config.ff_width, width(&w), pass->a->h,
                  pass->value + w.offsets->up, 0, s->up);
}

static void residual(row_work w, const float *x, int64_t bias, int64_t bias2, float *y)
{
    w.x = x;
    w.bias = w.pass->value + bias;
    w.bias2 = bias2 < 0 ? NULL : w.pass->value + bias2;
    w.y = y;
    run(&w, residual_rows);
}

/* a->inner = gelu(state->up + bias) */
static void activate(row_work w)
{
    w.x = w.state->up;
    w.bias = w.pass->value + w.offsets->up_bias;
    w.y = w.pass->a->inner;
    run(&w, gelu_rows);
}

int32_t pf_neox_layer(const pf_pass *pass, int64_t layer, pf_layer_state *state, float *next)
{
    const pf_layer_offsets *o = &pass->shape->layers[layer];
    int64_t d = pass->shape->config.width, ff = pass->shape->config.ff_width;
    row_work w = {.pass = pass, .state = state, .offsets = o};
    PF_TRY(attend(w));
    if (pass->shape->config.parallel_residual) {
        PF_TRY(widen(w, state->x));
        residual(w, state->x, o->out_bias, o->down_bias, next);
        PF_TRY(linear(pass, d, d, state->attended, pass->value + o->out, 1, next));
    } else {
        residual(w, state->x, o->out_bias, -1, state->mid);
        PF_TRY(linear(pass, d, d, state->attended, pass->value + o->out, 1, state->mid));
        PF_TRY(widen(w, state->mid));
        residual(w, state->mid, o->down_bias, -1, next);
    }
    activate(w);
    return linear(pass, d, ff, pass->a->inner, pass->value + o->down, 1, next);
}

/* ---------------------------------------------------------------- backward */

/* Of y = x W^T + b, from dy [rows, out]: dW [out, in] += dy^T x, db += sum of dy's rows. */
static int32_t linear_weights(const pf_pass *pass, int64_t out, int64_t in, const float *dy,
                              const float *x, int64_t weight, int64_t bias)
{
    pf_sum_rows(pass->context, pass->rows->n_rows, out, dy, pass->grad + bias);
    return pf_sgemm(pass->context, true, false, out, in, pass->rows->n_rows, 1, dy, out, x, in, 1,
                    pass->grad + weight, in);
}

/* dx [rows, in] = dy [rows, out] W */
static int32_t linear_input(const pf_pass *pass, int64_t out, int64_t in, const float *dy,
                            int64_t weight, float *dx)
{
    return pf_sgemm(pass->context, false, false, pass->rows->n_rows, in, out, 1, dy, out,
                    pass->value + weight, in, 0, dx, in);
}

static void norm_backward_rows(void *payload, int64_t first, int64_t n)
{
    const row_work *w = payload;
    int64_t d = width(w);
    float *part = w->pass->a->partial + first / PF_NORM_CHUNK * 2 * d;
    memset(part, 0, (size_t)(2 * d) * sizeof *part);
    pf_layer_norm_backward(n, d, w->x + first * d, w->mean + first, w->rstd + first, w->gain,
                           w->dy + first * d, w->y + first * d, part, part + d);
}

void pf_norm_backward(const pf_pass *pass, const float *x, float *mean, float *rstd, int64_t gain,
                      int64_t bias, const float *dy, float *dx)
{
    int64_t d = pass->shape->config.width;
    int64_t chunks = (pass->rows->n_rows + PF_NORM_CHUNK - 1) / PF_NORM_CHUNK;
    row_work w = {.pass = pass,
                  .x = x,
                  .mean = mean,
                  .rstd = rstd,
                  .gain = pass->value + gain,
                  .dy = dy,
                  .y = dx};
    run(&w, norm_backward_rows);
    for (int64_t c = 0; c < chunks; c++) {
        pf_accumulate(d, pass->a->partial + c * 2 * d, pass->grad + gain);
        pf_accumulate(d, pass->a->partial + c * 2 * d + d, pass->grad + bias);
    }
}

/* From a->dx, the gradient of the output, to that of norm2's output in a->dh. */
static int32_t mlp_backward(row_work w, const float *x)
{
    const pf_pass *pass = w.pass;
    pf_activations *a = pass->a;
    const pf_layer_offsets *o = w.offsets;
    int64_t d = width(&w), ff = pass->shape->config.ff_width;
    activate(w);
    PF_TRY(linear_weights(pass, d, ff, a->dx, a->inner, o->down, o->down_bias));
    PF_TRY(linear_input(pass, d, ff, a->dx, o->down, a->inner));
    w.x = w.state->up;
    w.bias = pass->value + o->up_bias;
    w.y = a->inner;
    run(&w, gelu_backward_rows);
    norm(w, x, o->norm2, o->norm2_bias, w.state->mean2, w.state->rstd2, norm_again_rows);
    PF_TRY(linear_weights(pass, ff, d, a->inner, a->h, o->up, o->up_bias));
    return linear_input(pass, ff, d, a->inner, o->up, a->dh);
}

/* From a->dx, the gradient of the attention's output, to a->dqkv of the turned q and k. */
static int32_t attend_backward(row_work w)
{
    const pf_pass *pass = w.pass;
    pf_activations *a = pass->a;
    int64_t d = width(&w);
    PF_TRY(
        linear_weights(pass, d, d, a->dx, w.state->attended, w.offsets->out, w.offsets->out_bias));
    PF_TRY(linear_input(pass, d, d, a->dx, w.offsets->out, a->h));
    pf_attention_backward(pass, w.state, a->h);
    run(&w, turn_back_rows);
    return PREFOPT_OK;
}

int32_t pf_neox_layer_backward(const pf_pass *pass, int64_t layer, pf_layer_state *state)
{
    const pf_layer_offsets *o = &pass->shape->layers[layer];
    pf_activations *a = pass->a;
    int64_t d = pass->shape->config.width;
    bool parallel = pass->shape->config.parallel_residual;
    const float *x2 = parallel ? state->x : state->mid;
    row_work w = {.pass = pass, .state = state, .offsets = o};
    PF_TRY(mlp_backward(w, x2));
    /* The attention of a parallel layer wants the output's gradient as it came. */
    if (!parallel)
        pf_norm_backward(pass, x2, state->mean2, state->rstd2, o->norm2, o->norm2_bias, a->dh,
                         a->dx);
    PF_TRY(attend_backward(w));
    if (parallel)
        pf_norm_backward(pass, x2, state->mean2, state->rstd2, o->norm2, o->norm2_bias, a->dh,
                         a->dx);
    norm(w, state->x, o->norm1, o->norm1_bias, state->mean1, state->rstd1, norm_again_rows);
    PF_TRY(linear_weights(pass, 3 * d, d, a->dqkv, a->h, o->qkv, o->qkv_bias));
    PF_TRY(linear_input(pass, 3 * d, d, a->dqkv, o->qkv, a->dh));
    pf_norm_backward(pass, state->x, state->mean1, state->rstd1, o->norm1, o->norm1_bias, a->dh,
                     a->dx);
    return PREFOPT_OK;
}
