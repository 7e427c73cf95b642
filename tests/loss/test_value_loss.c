/* The value loss: values, clip, aggregations, gradients by central differences. */
#include "pf_test.h"

enum { S = 3, T = 9 };
static const int64_t offsets[S + 1] = {0, 4, 4, T};
static const int64_t prompts[S] = {1, 0, 1}; /* 3, 0 and 4 completion tokens */

typedef struct {
    double value[T], old[T], returns[T];
} data;

static data draw(uint64_t stream)
{
    data d;
    OK(prefopt_random_normal(61, stream, 0, T, d.value));
    OK(prefopt_random_normal(61, stream, T, T, d.old));
    OK(prefopt_random_normal(61, stream, 2 * T, T, d.returns));
    return d;
}

static prefopt_token_scores scores(const data *d)
{
    return (prefopt_token_scores){.struct_size = sizeof(prefopt_token_scores),
                                  .n = S,
                                  .offsets = offsets,
                                  .prompt_len = prompts,
                                  .value = d->value,
                                  .old_value = d->old};
}

static prefopt_ppo_options options_with(int32_t aggregation, double clip)
{
    prefopt_ppo_options o;
    OK(prefopt_ppo_options_init(&o, sizeof o));
    o.aggregation = aggregation;
    o.fixed_length = aggregation == PREFOPT_TOKENS_FIXED_LENGTH ? 5 : 0;
    o.clip_value = clip;
    return o;
}

START_TEST(written_out)
{
    data d = draw(1);
    prefopt_token_scores in = scores(&d);
    const double weights[3][2] = {
        {1.0 / 7, 1.0 / 7}, {1.0 / 9, 1.0 / 12}, {1.0 / 15, 1.0 / 15}}; /* first, last sequence */
    for (int variant = 0; variant < 6; variant++) {
        int32_t a = variant % 3;
        double clip = variant < 3 ? 0 : 0.3, mean = 0, grad[T];
        prefopt_ppo_options o = options_with(a, clip);
        int clipped = 0;
        for (int t = 0; t < T; t++) {
            if (t == 0 || t == 4)
                continue;
            double held =
                clip == 0 ? d.value[t] : fmin(fmax(d.value[t], d.old[t] - clip), d.old[t] + clip);
            double e = pow(d.value[t] - d.returns[t], 2), c = pow(held - d.returns[t], 2);
            mean += weights[a][t > 4] * fmax(e, c) / 2;
            clipped += c > e;
        }
        prefopt_value_loss out = {.struct_size = sizeof out, .grad_value = grad};
        OK(prefopt_loss_value(&o, &in, d.returns, &out));
        CLOSE(out.mean, mean, 1e-14);
        CLOSE(out.clip_fraction, clipped / 7.0, 1e-15);
        ck_assert((clipped > 0) == (clip > 0));
        ck_assert(grad[0] == 0 && grad[4] == 0);
    }
}
END_TEST

START_TEST(gradients_by_central_differences)
{
    for (int variant = 0; variant < 6; variant++) {
        data d = draw(2 + (uint64_t)variant);
        prefopt_token_scores in = scores(&d);
        prefopt_ppo_options o = options_with(variant % 3, variant < 3 ? 0 : 0.3);
        double grad[T], h = 1e-6;
        prefopt_value_loss out = {.struct_size = sizeof out, .grad_value = grad};
        OK(prefopt_loss_value(&o, &in, d.returns, &out));
        for (int i = 0; i < T; i++) {
            double start = d.value[i];
            prefopt_value_loss side[2] = {{.struct_size = sizeof out}, {.struct_size = sizeof out}};
            for (int k = 0; k < 2; k++) {
                d.value[i] = start + (k == 0 ? h : -h);
                OK(prefopt_loss_value(&o, &in, d.returns, &side[k]));
            }
            d.value[i] = start;
            CLOSE(grad[i], (side[0].mean - side[1].mean) / (2 * h), 1e-9);
        }
    }
}
END_TEST

START_TEST(arguments)
{
    data d = draw(9);
    prefopt_token_scores in;
    prefopt_ppo_options o = options_with(PREFOPT_TOKENS_MEAN, 0.3);
    double grad[T] = {7}, bad[T] = {0};
    prefopt_value_loss out = {.struct_size = sizeof out, .grad_value = grad, .mean = 5};
    bad[6] = -INFINITY;
#define BAD(code, change, text)                                                                    \
    do {                                                                                           \
        in = scores(&d);                                                                           \
        change;                                                                                    \
        FAILS(code, text, prefopt_loss_value(&o, &in, d.returns, &out));                           \
    } while (0)
    BAD(PREFOPT_ERR_ARGUMENT, in.value = NULL, "value is NULL");
    BAD(PREFOPT_ERR_ARGUMENT, in.old_value = NULL, "old_value is NULL, but clip_value is 0.3");
    BAD(PREFOPT_ERR_ARGUMENT, in.offsets = NULL, "offsets is NULL");
    BAD(PREFOPT_ERR_NUMERIC, in.value = bad, "value[6]");
    BAD(PREFOPT_ERR_NUMERIC, in.old_value = bad, "old_value[6]");
    in = scores(&d);
    FAILS(PREFOPT_ERR_NUMERIC, "returns[6]", prefopt_loss_value(&o, &in, bad, &out));
    FAILS(PREFOPT_ERR_ARGUMENT, "returns is NULL", prefopt_loss_value(&o, &in, NULL, &out));
    FAILS(PREFOPT_ERR_ARGUMENT, "in is NULL", prefopt_loss_value(&o, NULL, d.returns, &out));
    FAILS(PREFOPT_ERR_ARGUMENT, "out is NULL", prefopt_loss_value(&o, &in, d.returns, NULL));
    out.struct_size = 8;
    FAILS(PREFOPT_ERR_VERSION, "prefopt_value_loss", prefopt_loss_value(&o, &in, d.returns, &out));
    out.struct_size = sizeof out;
    ck_assert(out.mean == 5 && grad[0] == 7);
    /* Without a clip old_value is not read. */
    o.clip_value = 0;
    in.old_value = bad;
    OK(prefopt_loss_value(&o, &in, d.returns, &out));
    prefopt_token_scores none = {.struct_size = sizeof none};
    OK(prefopt_loss_value(&o, &none, NULL, &out));
    ck_assert(out.mean == 0 && out.clip_fraction == 0);
}
END_TEST

TEST_MAIN("value_loss", written_out, gradients_by_central_differences, arguments)
