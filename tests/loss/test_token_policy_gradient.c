/* PPO's surrogate by token: aggregations, gradients, and its agreement with the completion level.
 */
#include "pf_test.h"

enum { S = 4, T = 14 };
static const int64_t offsets[S + 1] = {0, 5, 5, 9, T};
static const int64_t prompts[S] = {2, 0, 1, 1}; /* 3, 0, 3 and 4 completion tokens */
enum { COUNTED = 10 };

typedef struct {
    double logp[T], ref[T], old[T], advantage[T];
} data;

static data draw(uint64_t stream)
{
    data d;
    OK(prefopt_random_normal(51, stream, 0, T, d.old));
    OK(prefopt_random_normal(51, stream, T, T, d.logp));
    OK(prefopt_random_normal(51, stream, 2 * T, T, d.ref));
    OK(prefopt_random_normal(51, stream, 3 * T, T, d.advantage));
    for (int i = 0; i < T; i++) {
        d.old[i] -= 3;
        d.logp[i] = d.old[i] + 0.5 * d.logp[i];
        d.ref[i] = d.old[i] + 0.7 * d.ref[i];
    }
    return d;
}

static prefopt_token_scores scores(const data *d)
{
    return (prefopt_token_scores){.struct_size = sizeof(prefopt_token_scores),
                                  .n = S,
                                  .offsets = offsets,
                                  .prompt_len = prompts,
                                  .logp = d->logp,
                                  .ref_logp = d->ref,
                                  .old_logp = d->old};
}

static prefopt_ppo_options options_with(int32_t aggregation, int32_t estimator, double beta)
{
    prefopt_ppo_options o;
    OK(prefopt_ppo_options_init(&o, sizeof o));
    o.aggregation = aggregation;
    o.fixed_length = aggregation == PREFOPT_TOKENS_FIXED_LENGTH ? 6 : 0;
    o.kl_placement = PREFOPT_KL_IN_LOSS;
    o.kl_estimator = estimator;
    o.beta = beta;
    return o;
}

static prefopt_pg_loss loss(const prefopt_ppo_options *o, const prefopt_token_scores *in,
                            const double *advantage, double *grad)
{
    prefopt_pg_loss out = {.struct_size = sizeof out, .grad_logp = grad};
    OK(prefopt_loss_ppo_tokens(o, in, advantage, &out));
    return out;
}

static double weight(int32_t aggregation, int64_t len)
{
    return aggregation == PREFOPT_TOKENS_MEAN            ? 1.0 / COUNTED
           : aggregation == PREFOPT_TOKENS_SEQUENCE_MEAN ? 1.0 / (S * (double)len)
                                                         : 1.0 / (S * 6.0);
}

START_TEST(written_out)
{
    data d = draw(1);
    prefopt_token_scores in = scores(&d);
    for (int32_t a = PREFOPT_TOKENS_MEAN; a <= PREFOPT_TOKENS_FIXED_LENGTH; a++) {
        prefopt_ppo_options o = options_with(a, PREFOPT_KL_K2, 0.3);
        double grad[T], mean = 0, kl = 0;
        int clipped = 0;
        prefopt_pg_loss out = loss(&o, &in, d.advantage, grad);
        for (int s = 0; s < S; s++)
            for (int64_t t = offsets[s]; t < offsets[s + 1]; t++) {
                int64_t len = offsets[s + 1] - offsets[s] - prompts[s];
                if (t < offsets[s] + prompts[s]) {
                    ck_assert(grad[t] == 0);
                    continue;
                }
                double rho = exp(d.logp[t] - d.old[t]), u = d.logp[t] - d.ref[t];
                double held = fmin(fmax(rho, 0.8), 1.2);
                mean -= weight(a, len) * fmin(d.advantage[t] * rho, d.advantage[t] * held);
                kl += weight(a, len) * rho * u * u / 2;
                clipped += d.advantage[t] * held < d.advantage[t] * rho;
            }
        CLOSE(out.kl, kl, 1e-14);
        CLOSE(out.mean, mean + 0.3 * kl, 1e-14);
        ck_assert(clipped > 0);
        CLOSE(out.clip_fraction, (double)clipped / COUNTED, 1e-15);
    }
}
END_TEST

START_TEST(gradients_by_central_differences)
{
    for (int32_t a = PREFOPT_TOKENS_MEAN; a <= PREFOPT_TOKENS_FIXED_LENGTH; a++)
        for (int32_t k = PREFOPT_KL_K1; k <= PREFOPT_KL_K3; k++) {
            data d = draw(2 + (uint64_t)k);
            prefopt_token_scores in = scores(&d);
            prefopt_ppo_options o = options_with(a, k, 0.4);
            double grad[T], h = 1e-6;
            loss(&o, &in, d.advantage, grad);
            for (int i = 0; i < T; i++) {
                double start = d.logp[i];
                d.logp[i] = start + h;
                double up = loss(&o, &in, d.advantage, NULL).mean;
                d.logp[i] = start - h;
                double down = loss(&o, &in, d.advantage, NULL).mean;
                d.logp[i] = start;
                CLOSE(grad[i], (up - down) / (2 * h), 1e-8);
            }
        }
}
END_TEST

/* Sequences of one token are completions. */
START_TEST(one_token_each)
{
    data d = draw(6);
    int64_t ends[T + 1];
    for (int i = 0; i <= T; i++)
        ends[i] = i;
    for (int old = 0; old < 2; old++)
        for (int32_t a = PREFOPT_TOKENS_MEAN; a <= PREFOPT_TOKENS_FIXED_LENGTH; a++) {
            prefopt_token_scores in = scores(&d);
            in.n = T;
            in.offsets = ends;
            in.prompt_len = NULL;
            in.old_logp = old ? d.old : NULL;
            prefopt_ppo_options o = options_with(a, PREFOPT_KL_K3, 0.4);
            o.fixed_length = a == PREFOPT_TOKENS_FIXED_LENGTH;
            prefopt_pg_options same;
            OK(prefopt_pg_options_init(&same, sizeof same));
            same.kl_placement = o.kl_placement;
            same.kl_estimator = o.kl_estimator;
            same.beta = o.beta;
            same.clip_low = same.clip_high = 0.2;
            prefopt_group_scores whole = {.struct_size = sizeof whole,
                                          .n_groups = 2,
                                          .group_size = T / 2,
                                          .logp = d.logp,
                                          .ref_logp = d.ref,
                                          .old_logp = in.old_logp};
            double grad[T], other[T];
            prefopt_pg_loss one = loss(&o, &in, d.advantage, grad);
            prefopt_pg_loss two = {.struct_size = sizeof two, .grad_logp = other};
            OK(prefopt_loss_policy_gradient(&same, &whole, d.advantage, &two));
            CLOSE(one.mean, two.mean, 1e-14);
            CLOSE(one.kl, two.kl, 1e-14);
            CLOSE(one.clip_fraction, two.clip_fraction, 1e-15);
            for (int i = 0; i < T; i++)
                CLOSE(grad[i], other[i], 1e-15);
        }
}
END_TEST

START_TEST(tokens_without_mass)
{
    data d = draw(7);
    prefopt_token_scores in = scores(&d);
    prefopt_ppo_options o = options_with(PREFOPT_TOKENS_MEAN, PREFOPT_KL_K3, 0.4);
    double grad[T];
    d.ref[3] = -INFINITY;
    d.logp[4] = -INFINITY;
    prefopt_pg_loss out = loss(&o, &in, d.advantage, grad);
    ck_assert(out.mean == INFINITY && out.kl == INFINITY && grad[3] == INFINITY);
    for (int i = 0; i < T; i++)
        ck_assert(i == 3 || isfinite(grad[i]));
    ck_assert(grad[4] == 0);
}
END_TEST

START_TEST(arguments)
{
    data d = draw(8);
    prefopt_token_scores in;
    prefopt_ppo_options o = options_with(PREFOPT_TOKENS_MEAN, PREFOPT_KL_K3, 0.4);
    double grad[T] = {7}, bad[T];
    prefopt_pg_loss out = {.struct_size = sizeof out, .grad_logp = grad, .mean = 5, .kl = 6};
    memcpy(bad, d.logp, sizeof bad);
    bad[3] = NAN;
#define BAD(code, change, text)                                                                    \
    do {                                                                                           \
        in = scores(&d);                                                                           \
        change;                                                                                    \
        FAILS(code, text, prefopt_loss_ppo_tokens(&o, &in, d.advantage, &out));                    \
    } while (0)
    BAD(PREFOPT_ERR_ARGUMENT, in.offsets = NULL, "offsets is NULL");
    BAD(PREFOPT_ERR_ARGUMENT, in.logp = NULL, "logp is NULL");
    BAD(PREFOPT_ERR_ARGUMENT, in.ref_logp = NULL, "ref_logp is NULL");
    BAD(PREFOPT_ERR_NUMERIC, in.logp = bad, "logp[3]");
    BAD(PREFOPT_ERR_NUMERIC, in.ref_logp = bad, "ref_logp[3]");
    BAD(PREFOPT_ERR_NUMERIC, in.old_logp = bad, "old_logp[3]");
    bad[3] = -900;
    BAD(PREFOPT_ERR_NUMERIC, in.old_logp = bad, "the ratio leaves the range");
    in = scores(&d);
    double not_a_number[T] = {0, 0, NAN};
    FAILS(PREFOPT_ERR_NUMERIC, "advantage[2]",
          prefopt_loss_ppo_tokens(&o, &in, not_a_number, &out));
    FAILS(PREFOPT_ERR_ARGUMENT, "in is NULL", prefopt_loss_ppo_tokens(&o, NULL, d.advantage, &out));
    FAILS(PREFOPT_ERR_ARGUMENT, "out is NULL", prefopt_loss_ppo_tokens(&o, &in, d.advantage, NULL));
    FAILS(PREFOPT_ERR_ARGUMENT, "advantage is NULL", prefopt_loss_ppo_tokens(&o, &in, NULL, &out));
    out.struct_size = 8;
    FAILS(PREFOPT_ERR_VERSION, "prefopt_pg_loss",
          prefopt_loss_ppo_tokens(&o, &in, d.advantage, &out));
    out.struct_size = sizeof out;
    ck_assert(out.mean == 5 && out.kl == 6 && grad[0] == 7);
    prefopt_token_scores none = {.struct_size = sizeof none};
    OK(prefopt_loss_ppo_tokens(&o, &none, NULL, &out));
    ck_assert(out.mean == 0 && out.kl == 0 && out.clip_fraction == 0 && grad[0] == 7);
}
END_TEST

TEST_MAIN("token_policy_gradient", written_out, gradients_by_central_differences, one_token_each,
          tokens_without_mass, arguments)
