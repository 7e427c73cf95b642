/* Generalised advantages against their definition as a sum, at the ends of lambda, and by
 * expectation: token-level gradients with them have grad J as their mean. */
#include "pf_test.h"

enum { S = 4, T = 13 };
static const int64_t offsets[S + 1] = {0, 5, 5, 9, T};
static const int64_t prompts[S] = {2, 0, 4, 1}; /* 3, 0, 0 and 3 completion tokens */

typedef struct {
    double reward[T], logp[T], ref[T], value[T], bootstrap[S];
} data;

static data draw(uint64_t stream)
{
    data d;
    OK(prefopt_random_normal(41, stream, 0, T, d.reward));
    OK(prefopt_random_normal(41, stream, T, T, d.logp));
    OK(prefopt_random_normal(41, stream, 2 * T, T, d.ref));
    OK(prefopt_random_normal(41, stream, 3 * T, T, d.value));
    OK(prefopt_random_normal(41, stream, 4 * T, S, d.bootstrap));
    return d;
}

static prefopt_token_scores scores(const data *d)
{
    return (prefopt_token_scores){.struct_size = sizeof(prefopt_token_scores),
                                  .n = S,
                                  .offsets = offsets,
                                  .prompt_len = prompts,
                                  .reward = d->reward,
                                  .logp = d->logp,
                                  .ref_logp = d->ref,
                                  .value = d->value};
}

static prefopt_ppo_options options_with(double gamma, double lambda, double beta)
{
    prefopt_ppo_options o;
    OK(prefopt_ppo_options_init(&o, sizeof o));
    o.gamma = gamma;
    o.lambda = lambda;
    o.beta = beta;
    return o;
}

START_TEST(defaults)
{
    prefopt_ppo_options o;
    OK(prefopt_ppo_options_init(&o, sizeof o));
    ck_assert(o.struct_size == sizeof o && o.kl_placement == PREFOPT_KL_IN_REWARD);
    ck_assert(o.kl_estimator == PREFOPT_KL_K1 && o.aggregation == PREFOPT_TOKENS_MEAN);
    ck_assert(o.beta == 0 && o.clip_low == 0.2 && o.clip_high == 0.2 && o.gamma == 1);
    ck_assert(o.lambda == 0.95 && o.clip_value == 0 && o.fixed_length == 0);
    FAILS(PREFOPT_ERR_ARGUMENT, "NULL", prefopt_ppo_options_init(NULL, sizeof o));
    FAILS(PREFOPT_ERR_VERSION, "prefopt_ppo_options", prefopt_ppo_options_init(&o, 8));
}
END_TEST

/* A_t = sum_k (gamma lambda)^k delta_{t+k}. */
START_TEST(by_definition)
{
    data d = draw(1);
    for (int variant = 0; variant < 8; variant++) {
        double gamma = variant & 1 ? 0.9 : 1, lambda = variant & 2 ? 0.7 : 1;
        double beta = variant & 4 ? 0.3 : 0;
        prefopt_ppo_options o = options_with(gamma, lambda, beta);
        prefopt_token_scores in = scores(&d);
        in.bootstrap = variant & 1 ? d.bootstrap : NULL;
        double advantage[T], returns[T];
        OK(prefopt_gae(&o, &in, advantage, returns));
        for (int s = 0; s < S; s++)
            for (int64_t t = offsets[s]; t < offsets[s + 1]; t++) {
                if (t < offsets[s] + prompts[s]) {
                    ck_assert(advantage[t] == 0 && returns[t] == 0);
                    continue;
                }
                double sum = 0, factor = 1;
                for (int64_t k = t; k < offsets[s + 1]; k++, factor *= gamma * lambda) {
                    double end = variant & 1 ? d.bootstrap[s] : 0;
                    double next = k + 1 < offsets[s + 1] ? d.value[k + 1] : end;
                    double r = d.reward[k] - beta * (d.logp[k] - d.ref[k]);
                    sum += factor * (r + gamma * next - d.value[k]);
                }
                CLOSE(advantage[t], sum, 1e-14);
                CLOSE(returns[t], sum + d.value[t], 1e-14);
            }
    }
}
END_TEST

START_TEST(ends_of_lambda)
{
    data d = draw(2);
    prefopt_token_scores in = scores(&d);
    double advantage[T], returns[T];
    /* lambda = 1: the returns are the rewards to come, whatever the values. */
    prefopt_ppo_options o = options_with(1, 1, 0);
    OK(prefopt_gae(&o, &in, advantage, returns));
    CLOSE(returns[2], d.reward[2] + d.reward[3] + d.reward[4], 1e-14);
    CLOSE(returns[12], d.reward[12], 1e-14);
    /* lambda = 0: one step. */
    o.lambda = 0;
    OK(prefopt_gae(&o, &in, advantage, NULL));
    CLOSE(advantage[2], d.reward[2] + d.value[3] - d.value[2], 1e-14);
    /* old_value goes before value. */
    data other = draw(3);
    in.old_value = other.value;
    OK(prefopt_gae(&o, &in, advantage, NULL));
    CLOSE(advantage[2], d.reward[2] + other.value[3] - other.value[2], 1e-14);
}
END_TEST

START_TEST(tokens_without_mass)
{
    data d = draw(4);
    prefopt_token_scores in = scores(&d);
    double advantage[T], returns[T];
    d.ref[3] = -INFINITY;
    d.logp[11] = -INFINITY;
    prefopt_ppo_options o = options_with(1, 0.9, 0.5);
    OK(prefopt_gae(&o, &in, advantage, returns));
    ck_assert(advantage[2] == -INFINITY && advantage[3] == -INFINITY && isfinite(advantage[4]));
    ck_assert(returns[3] == -INFINITY && isfinite(returns[11]));
    CLOSE(advantage[12], d.reward[12] - 0.5 * (d.logp[12] - d.ref[12]) - d.value[12], 1e-14);
    CLOSE(advantage[11], d.reward[11] + d.value[12] - d.value[11] + 0.9 * advantage[12], 1e-14);
    o.lambda = 0;
    OK(prefopt_gae(&o, &in, advantage, returns));
    ck_assert(isfinite(advantage[2]) && advantage[3] == -INFINITY);
}
END_TEST

START_TEST(arguments)
{
    data d = draw(5);
    prefopt_token_scores in = scores(&d);
    prefopt_ppo_options good = options_with(1, 0.9, 0.5), o;
    double advantage[T] = {7}, returns[T] = {7};
#define BAD_OPTION(field, bad, text)                                                               \
    do {                                                                                           \
        o = good;                                                                                  \
        o.field = bad;                                                                             \
        FAILS(PREFOPT_ERR_ARGUMENT, text, prefopt_gae(&o, &in, advantage, returns));               \
    } while (0)
    BAD_OPTION(gamma, 1.1, "gamma is 1.1");
    BAD_OPTION(gamma, NAN, "gamma is nan");
    BAD_OPTION(lambda, -0.1, "lambda is -0.1");
    BAD_OPTION(clip_value, -1, "clip_value is -1");
    BAD_OPTION(clip_value, INFINITY, "clip_value is inf");
    BAD_OPTION(aggregation, 3, "aggregation is 3");
    BAD_OPTION(fixed_length, 4, "only PREFOPT_TOKENS_FIXED_LENGTH has a use");
    BAD_OPTION(aggregation, PREFOPT_TOKENS_FIXED_LENGTH, "fixed_length is 0");
    BAD_OPTION(kl_estimator, 0, "KL estimator is 0");
    BAD_OPTION(beta, NAN, "beta is nan");
    BAD_OPTION(clip_low, 1, "clip_low is 1");
#define BAD_INPUT(code, change, text)                                                              \
    do {                                                                                           \
        in = scores(&d);                                                                           \
        change;                                                                                    \
        FAILS(code, text, prefopt_gae(&good, &in, advantage, returns));                            \
    } while (0)
    int64_t falling[S + 1] = {0, 5, 4, 9, T}, before[S + 1] = {-1, 5, 5, 9, T};
    int64_t long_prompt[S] = {2, 1, 4, 1}, negative[S] = {2, 0, -1, 1};
    double bad[T];
    memcpy(bad, d.value, sizeof bad);
    bad[12] = NAN;
    BAD_INPUT(PREFOPT_ERR_ARGUMENT, in.offsets = NULL, "offsets is NULL");
    BAD_INPUT(PREFOPT_ERR_ARGUMENT, in.offsets = falling, "offsets[2] is 4");
    BAD_INPUT(PREFOPT_ERR_ARGUMENT, in.offsets = before, "offsets[0] is -1");
    BAD_INPUT(PREFOPT_ERR_ARGUMENT, in.prompt_len = long_prompt, "prompt_len[1] is 1");
    BAD_INPUT(PREFOPT_ERR_ARGUMENT, in.prompt_len = negative, "prompt_len[2] is -1");
    BAD_INPUT(PREFOPT_ERR_ARGUMENT, in.n = -1, "n is -1");
    BAD_INPUT(PREFOPT_ERR_ARGUMENT, in.reserved = 1, "reserved");
    BAD_INPUT(PREFOPT_ERR_VERSION, in.struct_size = 8, "prefopt_token_scores");
    BAD_INPUT(PREFOPT_ERR_ARGUMENT, in.reward = NULL, "reward is NULL");
    BAD_INPUT(PREFOPT_ERR_ARGUMENT, in.value = NULL, "value is NULL");
    BAD_INPUT(PREFOPT_ERR_ARGUMENT, in.logp = NULL, "logp is NULL");
    BAD_INPUT(PREFOPT_ERR_ARGUMENT, in.ref_logp = NULL, "ref_logp is NULL");
    BAD_INPUT(PREFOPT_ERR_NUMERIC, in.reward = bad, "reward[12]");
    BAD_INPUT(PREFOPT_ERR_NUMERIC, in.value = bad, "value[12]");
    BAD_INPUT(PREFOPT_ERR_NUMERIC, in.old_value = bad, "old_value[12]");
    BAD_INPUT(PREFOPT_ERR_NUMERIC, in.logp = bad, "logp[12]");
    BAD_INPUT(PREFOPT_ERR_NUMERIC, in.ref_logp = bad, "ref_logp[12]");
    bad[1] = NAN;
    BAD_INPUT(PREFOPT_ERR_NUMERIC, in.bootstrap = bad, "bootstrap[1]");
    in = scores(&d);
    FAILS(PREFOPT_ERR_ARGUMENT, "in is NULL", prefopt_gae(&good, NULL, advantage, returns));
    FAILS(PREFOPT_ERR_ARGUMENT, "advantage is NULL", prefopt_gae(&good, &in, NULL, returns));
    ck_assert(advantage[0] == 7 && returns[0] == 7);
    /* NaN at a prompt token is not looked at. */
    bad[12] = 0;
    in.value = in.reward = bad;
    OK(prefopt_gae(&good, &in, advantage, returns));
    prefopt_token_scores none = {.struct_size = sizeof none};
    OK(prefopt_gae(NULL, &none, NULL, NULL));
}
END_TEST

/* ---- a policy of two steps over three tokens, its four states each with logits of its own */

enum { V = 3, STATES = 1 + V, PARAMETERS = STATES * V };

typedef struct {
    double logp[STATES][V], ref[STATES][V], reward[V * V], value[STATES];
} tree;

static void tree_policy(const double *logits, double (*logp)[V])
{
    for (int s = 0; s < STATES; s++) {
        double sum = 0;
        for (int a = 0; a < V; a++)
            sum += exp(logits[s * V + a]);
        for (int a = 0; a < V; a++)
            logp[s][a] = logits[s * V + a] - log(sum);
    }
}

/* J = E[r - beta log(pi / ref)]; fills each state's value, too. */
static double objective(tree *w, double beta)
{
    double total = 0;
    for (int a = 0; a < V; a++) {
        double v = 0;
        for (int b = 0; b < V; b++)
            v += exp(w->logp[1 + a][b]) *
                 (w->reward[a * V + b] - beta * (w->logp[1 + a][b] - w->ref[1 + a][b]));
        w->value[1 + a] = v;
        total += exp(w->logp[0][a]) * (v - beta * (w->logp[0][a] - w->ref[0][a]));
    }
    return w->value[0] = total;
}

/* The expected token-level gradient of J by the logits, over all nine completions. */
static void expected_gradient(const tree *w, const prefopt_ppo_options *o, double *grad)
{
    const int64_t ends[2] = {0, 2};
    memset(grad, 0, PARAMETERS * sizeof *grad);
    for (int code = 0; code < V * V; code++) {
        int state[2] = {0, 1 + code / V}, action[2] = {code / V, code % V};
        double reward[2] = {0, w->reward[code]}, logp[2], ref[2], value[2], advantage[2], g[2];
        for (int t = 0; t < 2; t++) {
            logp[t] = w->logp[state[t]][action[t]];
            ref[t] = w->ref[state[t]][action[t]];
            value[t] = w->value[state[t]];
        }
        prefopt_token_scores in = {.struct_size = sizeof in,
                                   .n = 1,
                                   .offsets = ends,
                                   .reward = reward,
                                   .logp = logp,
                                   .ref_logp = ref,
                                   .value = value};
        prefopt_pg_loss out = {.struct_size = sizeof out, .grad_logp = g};
        OK(prefopt_gae(o, &in, advantage, NULL));
        OK(prefopt_loss_ppo_tokens(o, &in, advantage, &out));
        for (int t = 0; t < 2; t++)
            for (int a = 0; a < V; a++)
                grad[state[t] * V + a] -=
                    exp(logp[0] + logp[1]) * g[t] * ((a == action[t]) - exp(w->logp[state[t]][a]));
    }
}

START_TEST(expected_gradient_is_that_of_j)
{
    const double beta = 0.3, h = 1e-5;
    double logits[PARAMETERS], other[PARAMETERS], want[PARAMETERS], got[PARAMETERS];
    tree w;
    OK(prefopt_random_normal(42, 0, 0, PARAMETERS, logits));
    OK(prefopt_random_normal(42, 1, 0, PARAMETERS, other));
    OK(prefopt_random_normal(42, 2, 0, V * V, w.reward));
    tree_policy(other, w.ref);
    for (int i = 0; i < PARAMETERS; i++) {
        double side[2], start = logits[i];
        for (int k = 0; k < 2; k++) {
            logits[i] = start + (k == 0 ? h : -h);
            tree_policy(logits, w.logp);
            side[k] = objective(&w, beta);
        }
        logits[i] = start;
        want[i] = (side[0] - side[1]) / (2 * h);
    }
    tree_policy(logits, w.logp);
    objective(&w, beta);
    prefopt_ppo_options o = options_with(1, 0.5, beta);
    o.aggregation = PREFOPT_TOKENS_FIXED_LENGTH;
    o.fixed_length = 1;
    /* The exact values: right for every lambda. */
    for (int k = 0; k < 3; k++) {
        o.lambda = 0.5 * k;
        expected_gradient(&w, &o, got);
        for (int i = 0; i < PARAMETERS; i++)
            CLOSE(got[i], want[i], 1e-9);
    }
    /* Any values: right for lambda = 1 alone. */
    for (int s = 0; s < STATES; s++)
        w.value[s] += 1 + s;
    expected_gradient(&w, &o, got);
    double off = 0;
    for (int i = 0; i < PARAMETERS; i++)
        CLOSE(got[i], want[i], 1e-9);
    o.lambda = 0.5;
    expected_gradient(&w, &o, got);
    for (int i = 0; i < PARAMETERS; i++)
        off = fmax(off, fabs(got[i] - want[i]));
    ck_assert(off > 1e-2);
}
END_TEST

TEST_MAIN("gae", defaults, by_definition, ends_of_lambda, tokens_without_mass, arguments,
          expected_gradient_is_that_of_j)
