/* The policy-gradient loss: values, clip, KL in the loss, gradients by central differences. */
#include "pf_test.h"

enum { N = 12 };

typedef struct {
    double logp[N], ref[N], old[N], advantage[N];
} data;

static data draw(uint64_t stream)
{
    data d;
    OK(prefopt_random_normal(21, stream, 0, N, d.old));
    OK(prefopt_random_normal(21, stream, N, N, d.logp));
    OK(prefopt_random_normal(21, stream, 2 * N, N, d.ref));
    OK(prefopt_random_normal(21, stream, 3 * N, N, d.advantage));
    for (int i = 0; i < N; i++) {
        d.old[i] = -3 + d.old[i];
        d.logp[i] = d.old[i] + 0.5 * d.logp[i];
        d.ref[i] = d.old[i] + 0.7 * d.ref[i];
    }
    return d;
}

static prefopt_group_scores scores(const data *d, int with_old)
{
    return (prefopt_group_scores){.struct_size = sizeof(prefopt_group_scores),
                                  .n_groups = 3,
                                  .group_size = N / 3,
                                  .logp = d->logp,
                                  .ref_logp = d->ref,
                                  .old_logp = with_old ? d->old : NULL};
}

static prefopt_pg_options in_loss(int32_t estimator, double beta, double clip)
{
    prefopt_pg_options o;
    OK(prefopt_pg_options_init(&o, sizeof o));
    o.kl_placement = PREFOPT_KL_IN_LOSS;
    o.kl_estimator = estimator;
    o.beta = beta;
    o.clip_low = o.clip_high = clip;
    return o;
}

static prefopt_pg_loss loss(const prefopt_pg_options *o, const prefopt_group_scores *in,
                            const double *advantage, double *grad)
{
    prefopt_pg_loss out = {.struct_size = sizeof out, .grad_logp = grad};
    OK(prefopt_loss_policy_gradient(o, in, advantage, &out));
    return out;
}

START_TEST(defaults)
{
    prefopt_pg_options o;
    OK(prefopt_pg_options_init(&o, sizeof o));
    ck_assert(o.struct_size == sizeof o && o.baseline == PREFOPT_BASELINE_LEAVE_ONE_OUT);
    ck_assert(o.kl_placement == PREFOPT_KL_IN_REWARD && o.kl_estimator == PREFOPT_KL_K1);
    ck_assert(o.beta == 0 && o.clip_low == 0 && o.clip_high == 0);
    FAILS(PREFOPT_ERR_ARGUMENT, "NULL", prefopt_pg_options_init(NULL, sizeof o));
    FAILS(PREFOPT_ERR_VERSION, "prefopt_pg_options", prefopt_pg_options_init(&o, 8));
}
END_TEST

START_TEST(written_out)
{
    data d = draw(1);
    prefopt_group_scores in = scores(&d, 1);
    double grad[N], surrogate = 0, kl = 0;
    for (int i = 0; i < N; i++) {
        double rho = exp(d.logp[i] - d.old[i]);
        surrogate -= d.advantage[i] * rho / N;
        kl += rho * (d.logp[i] - d.ref[i]) / N;
    }
    prefopt_pg_loss out = loss(NULL, &in, d.advantage, grad);
    CLOSE(out.mean, surrogate, 1e-14);
    CLOSE(out.kl, kl, 1e-14);
    ck_assert(out.clip_fraction == 0);
    for (int i = 0; i < N; i++)
        CLOSE(grad[i], -d.advantage[i] * exp(d.logp[i] - d.old[i]) / N, 1e-14);
    /* REINFORCE. */
    in = scores(&d, 0);
    in.ref_logp = NULL;
    out = loss(NULL, &in, d.advantage, grad);
    double mean = 0;
    for (int i = 0; i < N; i++) {
        mean -= d.advantage[i] / N;
        CLOSE(grad[i], -d.advantage[i] / N, 1e-15);
    }
    CLOSE(out.mean, mean, 1e-14);
    ck_assert(out.kl == 0);
    /* The KL in the reward is no part of the loss. */
    in = scores(&d, 1);
    prefopt_pg_options o;
    OK(prefopt_pg_options_init(&o, sizeof o));
    o.beta = 3;
    out = loss(&o, &in, d.advantage, NULL);
    CLOSE(out.mean, surrogate, 1e-14);
    /* In the loss it adds beta times what is reported. */
    for (int32_t k = PREFOPT_KL_K1; k <= PREFOPT_KL_K3; k++) {
        o = in_loss(k, 0.3, 0);
        out = loss(&o, &in, d.advantage, NULL);
        CLOSE(out.mean, surrogate + 0.3 * out.kl, 1e-14);
        kl = 0;
        for (int i = 0; i < N; i++) {
            double u = d.logp[i] - d.ref[i];
            kl += exp(d.logp[i] - d.old[i]) *
                  (k == PREFOPT_KL_K1   ? u
                   : k == PREFOPT_KL_K2 ? u * u / 2
                                        : exp(-u) - 1 + u) /
                  N;
        }
        CLOSE(out.kl, kl, 1e-13);
    }
}
END_TEST

START_TEST(gradients_by_central_differences)
{
    for (uint64_t stream = 2; stream < 5; stream++)
        for (int32_t k = PREFOPT_KL_K1; k <= PREFOPT_KL_K3; k++)
            for (int variant = 0; variant < 4; variant++) {
                data d = draw(stream);
                prefopt_group_scores in = scores(&d, 1);
                prefopt_pg_options o = in_loss(k, variant & 1 ? 0.4 : 0, variant & 2 ? 0.2 : 0);
                double grad[N], h = 1e-6;
                prefopt_pg_loss out = loss(&o, &in, d.advantage, grad);
                ck_assert((out.clip_fraction > 0) == ((variant & 2) != 0));
                for (int i = 0; i < N; i++) {
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

/* old_logp NULL: the surrogate moves as with old_logp = logp held fixed; the KL as its estimate. */
START_TEST(gradients_without_old)
{
    data d = draw(7);
    memcpy(d.old, d.logp, sizeof d.old);
    prefopt_group_scores bare = scores(&d, 0), fixed = scores(&d, 1);
    for (int32_t k = PREFOPT_KL_K1; k <= PREFOPT_KL_K3; k++) {
        prefopt_pg_options o = in_loss(k, 0.4, 0), plain = in_loss(k, 0, 0);
        double grad[N], h = 1e-5;
        loss(&o, &bare, d.advantage, grad);
        for (int i = 0; i < N; i++) {
            double start = d.logp[i], side[2];
            for (int s = 0; s < 2; s++) {
                d.logp[i] = start + (s == 0 ? h : -h);
                side[s] = loss(&plain, &fixed, d.advantage, NULL).mean +
                          0.4 * loss(&o, &bare, d.advantage, NULL).kl;
            }
            d.logp[i] = start;
            CLOSE(grad[i], (side[0] - side[1]) / (2 * h), 1e-8);
            double u = d.logp[i] - d.ref[i];
            double slope = k == PREFOPT_KL_K1 ? 1 : k == PREFOPT_KL_K2 ? u : 1 - exp(-u);
            CLOSE(grad[i], (-d.advantage[i] + 0.4 * slope) / N, 1e-14);
        }
    }
}
END_TEST

START_TEST(clip)
{
    /* Ratios 1/2, 1, 2 with advantages of both signs; the clip is [0.7, 1.5]. */
    double logp[6] = {-log(2), 0, log(2), -log(2), 0, log(2)}, old[6] = {0, 0, 0, 0, 0, 0}, grad[6];
    double advantage[6] = {1, 1, 1, -1, -1, -1};
    prefopt_group_scores in = {
        .struct_size = sizeof in, .n_groups = 1, .group_size = 6, .logp = logp, .old_logp = old};
    prefopt_pg_options o;
    OK(prefopt_pg_options_init(&o, sizeof o));
    o.clip_low = 0.3;
    o.clip_high = 0.5;
    prefopt_pg_loss out = loss(&o, &in, advantage, grad);
    CLOSE(out.mean, -(0.5 + 1 + 1.5 - 0.7 - 1 - 2) / 6, 1e-15);
    CLOSE(out.clip_fraction, 2.0 / 6, 1e-15);
    const double want[6] = {-0.5, -1, 0, 0, 1, 2};
    for (int i = 0; i < 6; i++)
        CLOSE(grad[i], want[i] / 6, 1e-15);
    /* At the edge the gradient is the unclipped one. One side at 0 is a clip too. */
    o.clip_low = 0;
    o.clip_high = 1;
    logp[2] = logp[5] = log(2);
    out = loss(&o, &in, advantage, grad);
    ck_assert(out.clip_fraction == 1.0 / 6 && grad[3] == 0);
    CLOSE(grad[2], -2.0 / 6, 1e-15);
    o.clip_high = INFINITY;
    o.clip_low = 0.3;
    out = loss(&o, &in, advantage, grad);
    ck_assert(out.clip_fraction == 1.0 / 6 && grad[3] == 0 && grad[2] < 0);
    /* Without old_logp every ratio is 1. */
    in.old_logp = NULL;
    ck_assert(loss(&o, &in, advantage, NULL).clip_fraction == 0);
}
END_TEST

START_TEST(outcomes_without_mass)
{
    double logp[4] = {-1, -INFINITY, -2, -2}, ref[4] = {-1, -2, -INFINITY, -2}, grad[4];
    double old[4] = {-1, -1, -2, -2}, advantage[4] = {1, -1, -INFINITY, 2};
    prefopt_group_scores in = {.struct_size = sizeof in, .n_groups = 2, .group_size = 2};
    in.logp = logp;
    in.ref_logp = ref;
    for (int with_old = 0; with_old < 2; with_old++) {
        in.old_logp = with_old ? old : NULL;
        prefopt_pg_loss out = loss(NULL, &in, advantage, grad);
        ck_assert(out.mean == INFINITY && out.kl == INFINITY && grad[2] == INFINITY);
        CLOSE(grad[0], -0.25, 1e-15);
        CLOSE(grad[3], -0.5, 1e-15);
        CLOSE(grad[1], with_old ? 0 : 0.25, 1e-15);
        for (int32_t k = PREFOPT_KL_K1; k <= PREFOPT_KL_K3; k++) {
            double finite[4] = {1, -1, 3, 2};
            prefopt_pg_options o = in_loss(k, 0.5, 0.2);
            out = loss(&o, &in, finite, grad);
            ck_assert(out.mean == INFINITY && out.kl == INFINITY);
            for (int i = 0; i < 4; i++)
                ck_assert(!isnan(grad[i]) && (i == 2 || isfinite(grad[i])));
            ck_assert(grad[2] == INFINITY || !with_old);
        }
    }
    /* k3 from another sampler counts the reference's mass where the policy has none. */
    ref[2] = -2;
    advantage[2] = 0;
    in.old_logp = old;
    prefopt_pg_options o = in_loss(PREFOPT_KL_K3, 0.5, 0);
    CLOSE(loss(&o, &in, advantage, NULL).kl, exp(-1) / 4, 1e-15);
    /* Neither has mass; far apart, where exp(-u) leaves the range but rho exp(-u) does not. */
    ref[1] = -INFINITY;
    CLOSE(loss(&o, &in, advantage, NULL).kl, 0, 1e-15);
    logp[1] = -1000;
    ref[1] = -100;
    CLOSE(loss(&o, &in, advantage, grad).kl, exp(-99) / 4, 1e-15);
    ck_assert(grad[1] == 0);
}
END_TEST

START_TEST(nothing_is_ever_nan)
{
    const double values[] = {-INFINITY, -1e300, -800, -1, 0};
    const double advantages[] = {-INFINITY, -1e300, 0, 1e300};
    enum { CASES = 5 * 5 * 6 * 4 * 3 * 2 };
    int refused = 0;
    for (int code = 0; code < CASES; code++) {
        int which_old = code / 25 % 6, c = code / 150; /* which_old 5: old_logp is NULL */
        double logp[2] = {values[code % 5], -1}, ref[2] = {values[code / 5 % 5], -1};
        double old[2] = {which_old < 5 ? values[which_old] : logp[0], -1}, grad[2];
        double advantage[2] = {advantages[c % 4], 0.5};
        prefopt_pg_options o = in_loss(1 + c / 4 % 3, 0.5, c / 12 ? 0.2 : 0);
        prefopt_group_scores in = {.struct_size = sizeof in, .n_groups = 1, .group_size = 2};
        in.logp = logp;
        in.ref_logp = ref;
        in.old_logp = which_old < 5 ? old : NULL;
        prefopt_pg_loss out = {.struct_size = sizeof out, .grad_logp = grad};
        int32_t status = prefopt_loss_policy_gradient(&o, &in, advantage, &out);
        ck_assert(status == PREFOPT_OK || status == PREFOPT_ERR_NUMERIC);
        if (status == PREFOPT_OK)
            ck_assert(!isnan(out.mean) && !isnan(out.kl) && !isnan(grad[0]) && !isnan(grad[1]));
        else
            refused++;
        /* Refused are a sampler without mass, a ratio beyond range, and infinities of both signs,
         * which moderate numbers and -INFINITY alone do not make. */
        int moderate = advantage[0] == 0 && logp[0] != -1e300 && ref[0] != -1e300 &&
                       (which_old == 5 || (old[0] >= -800 && logp[0] - old[0] < 700));
        ck_assert(status == PREFOPT_OK || !moderate);
    }
    ck_assert(refused > 0 && refused < CASES / 2);
}
END_TEST

START_TEST(infinities_of_both_signs)
{
    double logp[2] = {-1, -1}, old[2] = {-1, -701}, advantage[2] = {-INFINITY, 1e300};
    double grad[2] = {7, 7}, ref[2] = {-1, -1};
    prefopt_group_scores in = {.struct_size = sizeof in, .n_groups = 1, .group_size = 2};
    in.logp = logp;
    in.old_logp = old;
    in.ref_logp = ref;
    prefopt_pg_loss out = {.struct_size = sizeof out, .grad_logp = grad, .mean = 5};
    FAILS(PREFOPT_ERR_NUMERIC, "the loss is a sum of infinities of either sign",
          prefopt_loss_policy_gradient(NULL, &in, advantage, &out));
    /* k3's slope 1 - exp(-u) at u = -800 against an advantage of -INFINITY. */
    in.old_logp = NULL;
    advantage[1] = 0;
    logp[0] = -801;
    prefopt_pg_options o = in_loss(PREFOPT_KL_K3, 0.5, 0);
    FAILS(PREFOPT_ERR_NUMERIC, "the gradient of logp[0]",
          prefopt_loss_policy_gradient(&o, &in, advantage, &out));
    ck_assert(out.mean == 5 && grad[0] == 7 && grad[1] == 7);
    /* What never happens counts nothing, whatever its advantage. */
    in.old_logp = old;
    old[1] = -1;
    logp[0] = -INFINITY;
    OK(prefopt_loss_policy_gradient(NULL, &in, advantage, &out));
    ck_assert(out.mean == 0 && grad[0] == 0 && grad[1] == 0);
}
END_TEST

/* With the KL in the reward the estimator is that of the reported kl, and of nothing else. */
START_TEST(kl_reported_beside_the_reward)
{
    data d = draw(12);
    double grad[2][N];
    for (int with_old = 0; with_old < 2; with_old++)
        for (int k = PREFOPT_KL_K1; k <= PREFOPT_KL_K3; k++) {
            prefopt_group_scores in = scores(&d, with_old);
            prefopt_pg_options o;
            OK(prefopt_pg_options_init(&o, sizeof o));
            o.beta = 0.3;
            prefopt_pg_loss first = {.struct_size = sizeof first, .grad_logp = grad[0]};
            OK(prefopt_loss_policy_gradient(&o, &in, d.advantage, &first));
            o.kl_estimator = k;
            prefopt_pg_loss out = {.struct_size = sizeof out, .grad_logp = grad[1]};
            OK(prefopt_loss_policy_gradient(&o, &in, d.advantage, &out));
            ck_assert(out.mean == first.mean && memcmp(grad[0], grad[1], sizeof grad[0]) == 0);
            double kl = 0;
            for (int i = 0; i < N; i++) {
                double u = d.logp[i] - d.ref[i];
                double rho = with_old ? exp(d.logp[i] - d.old[i]) : 1;
                kl += rho * (k == PREFOPT_KL_K1   ? u
                             : k == PREFOPT_KL_K2 ? 0.5 * u * u
                                                  : exp(-u) - 1 + u);
            }
            CLOSE(out.kl, kl / N, 1e-13);
        }
}
END_TEST

START_TEST(options_out_of_range)
{
    data d = draw(9);
    prefopt_group_scores in = scores(&d, 1);
    double grad[N] = {7};
    prefopt_pg_loss out = {.struct_size = sizeof out, .grad_logp = grad, .mean = 5, .kl = 6};
    prefopt_pg_options good, o;
    OK(prefopt_pg_options_init(&good, sizeof good));
#define BAD(field, value, text)                                                                    \
    do {                                                                                           \
        o = good;                                                                                  \
        o.field = value;                                                                           \
        FAILS(PREFOPT_ERR_ARGUMENT, text,                                                          \
              prefopt_loss_policy_gradient(&o, &in, d.advantage, &out));                           \
    } while (0)
    BAD(baseline, -1, "baseline is -1");
    BAD(kl_placement, 2, "kl_placement is 2");
    BAD(kl_estimator, 0, "KL estimator is 0");
    BAD(kl_estimator, 4, "KL estimator is 4");
    BAD(beta, -1, "beta is -1");
    BAD(beta, NAN, "beta is nan");
    BAD(beta, INFINITY, "beta is inf");
    BAD(clip_low, 1, "clip_low is 1");
    BAD(clip_low, -0.1, "clip_low is -0.1");
    BAD(clip_low, NAN, "clip_low is nan");
    BAD(clip_high, -0.1, "clip_high is -0.1");
    BAD(clip_high, NAN, "clip_high is nan");
    o = good;
    o.struct_size = 4;
    FAILS(PREFOPT_ERR_VERSION, "prefopt_pg_options",
          prefopt_loss_policy_gradient(&o, &in, d.advantage, &out));
    ck_assert(out.mean == 5 && out.kl == 6 && grad[0] == 7);
}
END_TEST

START_TEST(arguments)
{
    data d = draw(10);
    prefopt_group_scores in = scores(&d, 1);
    double grad[N] = {7}, bad[N];
    prefopt_pg_loss out = {.struct_size = sizeof out, .grad_logp = grad, .mean = 5, .kl = 6};
    prefopt_pg_options o = in_loss(PREFOPT_KL_K2, 0.1, 0);
#define CALL prefopt_loss_policy_gradient(&o, &in, d.advantage, &out)
    FAILS(PREFOPT_ERR_ARGUMENT, "in is NULL",
          prefopt_loss_policy_gradient(&o, NULL, d.advantage, &out));
    FAILS(PREFOPT_ERR_ARGUMENT, "advantage is NULL",
          prefopt_loss_policy_gradient(&o, &in, NULL, &out));
    FAILS(PREFOPT_ERR_ARGUMENT, "out is NULL",
          prefopt_loss_policy_gradient(&o, &in, d.advantage, NULL));
    in.ref_logp = NULL;
    FAILS(PREFOPT_ERR_ARGUMENT, "ref_logp is NULL", CALL);
    in = scores(&d, 1);
    in.logp = NULL;
    FAILS(PREFOPT_ERR_ARGUMENT, "logp is NULL", CALL);
    memcpy(bad, d.logp, sizeof bad);
    bad[4] = NAN;
    in = scores(&d, 1), in.logp = bad;
    FAILS(PREFOPT_ERR_NUMERIC, "logp[4]", CALL);
    in = scores(&d, 1), in.ref_logp = bad;
    FAILS(PREFOPT_ERR_NUMERIC, "ref_logp[4]", CALL);
    in = scores(&d, 1), in.old_logp = bad;
    FAILS(PREFOPT_ERR_NUMERIC, "old_logp[4]", CALL);
    bad[4] = -INFINITY;
    FAILS(PREFOPT_ERR_NUMERIC, "old_logp[4]", CALL);
    bad[4] = -800;
    FAILS(PREFOPT_ERR_NUMERIC, "old_logp[4]", CALL);
    in = scores(&d, 1);
    d.advantage[3] = NAN;
    FAILS(PREFOPT_ERR_NUMERIC, "advantage[3]", CALL);
    d.advantage[3] = INFINITY;
    FAILS(PREFOPT_ERR_NUMERIC, "advantage[3]", CALL);
    d.advantage[3] = 0;
    out.struct_size = 12;
    FAILS(PREFOPT_ERR_VERSION, "prefopt_pg_loss", CALL);
    out.struct_size = sizeof out;
    ck_assert(out.mean == 5 && out.kl == 6 && grad[0] == 7);
    prefopt_group_scores none = {.struct_size = sizeof none};
    OK(prefopt_loss_policy_gradient(&o, &none, NULL, &out));
    ck_assert(out.mean == 0 && out.kl == 0 && out.clip_fraction == 0 && grad[0] == 7);
}
END_TEST

TEST_MAIN("policy_gradient", defaults, written_out, gradients_by_central_differences,
          gradients_without_old, clip, outcomes_without_mass, nothing_is_ever_nan,
          infinities_of_both_signs, kl_reported_beside_the_reward, options_out_of_range, arguments)
