/* The lecture's soft RL: the policy-gradient estimators have grad J as their mean, J(pi) = E_pi[r]
 * - beta KL(pi || ref), on a softmax policy small enough to enumerate. By enumeration of all
 * groups, to rounding; and by sampling, within 4 standard errors. */
#include "pf_test.h"

enum { V = 5 };
static const double beta = 0.4;

typedef struct {
    double logp[V], ref[V], old[V], reward[V], p[V], grad[V] /* of J, by the logits */;
} world;

static void softmax_log(double *x)
{
    double sum = 0;
    for (int i = 0; i < V; i++)
        sum += exp(x[i]);
    for (int i = 0; i < V; i++)
        x[i] -= log(sum);
}

static world make(uint64_t stream)
{
    world w;
    OK(prefopt_random_normal(31, stream, 0, V, w.logp));
    OK(prefopt_random_normal(31, stream, V, V, w.ref));
    OK(prefopt_random_normal(31, stream, 2 * V, V, w.old));
    OK(prefopt_random_normal(31, stream, 3 * V, V, w.reward));
    softmax_log(w.logp);
    softmax_log(w.ref);
    softmax_log(w.old);
    double mean = 0;
    for (int i = 0; i < V; i++) {
        w.p[i] = exp(w.logp[i]);
        mean += w.p[i] * (w.reward[i] - beta * (w.logp[i] - w.ref[i]));
    }
    for (int i = 0; i < V; i++)
        w.grad[i] = w.p[i] * (w.reward[i] - beta * (w.logp[i] - w.ref[i]) - mean);
    return w;
}

/* The library's loss on the given completions x (n_groups * size of them), each group's negative
 * gradient by the logits into sum_groups: [n_groups, V]. */
static void group_gradients(const world *w, const prefopt_pg_options *o, int with_old,
                            int64_t n_groups, int64_t size, const int *x, double *each_group)
{
    int64_t n = n_groups * size;
    double *store = malloc((size_t)(6 * n) * sizeof *store);
    double *reward = store, *logp = store + n, *ref = store + 2 * n, *old = store + 3 * n,
           *advantage = store + 4 * n, *grad = store + 5 * n;
    for (int64_t i = 0; i < n; i++) {
        reward[i] = w->reward[x[i]];
        logp[i] = w->logp[x[i]];
        ref[i] = w->ref[x[i]];
        old[i] = w->old[x[i]];
    }
    prefopt_group_scores in = {.struct_size = sizeof in,
                               .n_groups = n_groups,
                               .group_size = size,
                               .reward = reward,
                               .logp = logp,
                               .ref_logp = ref,
                               .old_logp = with_old ? old : NULL};
    prefopt_pg_loss out = {.struct_size = sizeof out, .grad_logp = grad};
    OK(prefopt_advantages(o, &in, advantage));
    OK(prefopt_loss_policy_gradient(o, &in, advantage, &out));
    memset(each_group, 0, (size_t)(n_groups * V) * sizeof *each_group);
    for (int64_t i = 0; i < n; i++)
        for (int j = 0; j < V; j++)
            each_group[i / size * V + j] -=
                grad[i] * (double)n_groups * ((x[i] == j) - w->p[j]); /* grad is of the mean */
    free(store);
}

static prefopt_pg_options options_with(int32_t baseline, int32_t placement, int32_t estimator)
{
    prefopt_pg_options o;
    OK(prefopt_pg_options_init(&o, sizeof o));
    o.baseline = baseline;
    o.kl_placement = placement;
    o.kl_estimator = estimator;
    o.beta = beta;
    return o;
}

/* The exact mean of the estimator over all V^3 groups of three, drawn from the policy or from old.
 */
static void exact_mean(const world *w, const prefopt_pg_options *o, int with_old, double *mean)
{
    const double *from = with_old ? w->old : w->logp;
    memset(mean, 0, V * sizeof *mean);
    for (int code = 0; code < V * V * V; code++) {
        int x[3] = {code % V, code / V % V, code / V / V};
        double g[V], probability = exp(from[x[0]] + from[x[1]] + from[x[2]]);
        group_gradients(w, o, with_old, 1, 3, x, g);
        for (int j = 0; j < V; j++)
            mean[j] += probability * g[j];
    }
}

START_TEST(enumerated_means)
{
    for (uint64_t stream = 0; stream < 3; stream++) {
        world w = make(stream);
        double mean[V];
        for (int32_t b = PREFOPT_BASELINE_NONE; b <= PREFOPT_BASELINE_LEAVE_ONE_OUT; b++) {
            prefopt_pg_options o = options_with(b, PREFOPT_KL_IN_REWARD, PREFOPT_KL_K1);
            exact_mean(&w, &o, 0, mean);
            /* A mean that holds the reward itself shrinks the gradient by 1 - 1/3. */
            double shrunk = b == PREFOPT_BASELINE_MEAN ? 2.0 / 3 : 1;
            for (int j = 0; j < V; j++)
                CLOSE(mean[j], shrunk * w.grad[j], 1e-13);
        }
        /* From another sampler the ratio makes it right. */
        prefopt_pg_options o =
            options_with(PREFOPT_BASELINE_NONE, PREFOPT_KL_IN_REWARD, PREFOPT_KL_K1);
        exact_mean(&w, &o, 1, mean);
        for (int j = 0; j < V; j++)
            CLOSE(mean[j], w.grad[j], 1e-13);
        o.baseline = PREFOPT_BASELINE_LEAVE_ONE_OUT;
        exact_mean(&w, &o, 1, mean);
        for (int j = 0; j < V; j++)
            CLOSE(mean[j], w.grad[j], 1e-13);
    }
}
END_TEST

/* The KL in the loss: whose gradient it then is, as the header of the loss says. */
START_TEST(kl_in_the_loss)
{
    world w = make(5);
    double reverse[V], forward[V], square[V], kl, of_reward[V], mean[V];
    OK(prefopt_kl_exact(PREFOPT_KL_REVERSE, V, w.logp, w.ref, &kl, reverse));
    OK(prefopt_kl_exact(PREFOPT_KL_FORWARD, V, w.logp, w.ref, &kl, forward));
    double centre = 0;
    for (int j = 0; j < V; j++) {
        double u = w.logp[j] - w.ref[j];
        of_reward[j] = w.grad[j] + beta * reverse[j];
        square[j] = w.p[j] * (u * u / 2 + u); /* d E_p[u^2/2] / d logits, before centring */
        centre += square[j];
    }
    for (int j = 0; j < V; j++)
        square[j] -= w.p[j] * centre;
    const double zero[V] = {0};
    const double *without_old[3] = {zero, reverse, forward};
    const double *with_old[3] = {reverse, square, reverse};
    for (int old = 0; old < 2; old++)
        for (int k = 0; k < 3; k++) {
            prefopt_pg_options o =
                options_with(PREFOPT_BASELINE_LEAVE_ONE_OUT, PREFOPT_KL_IN_LOSS, PREFOPT_KL_K1 + k);
            const double *of_kl = old ? with_old[k] : without_old[k];
            exact_mean(&w, &o, old, mean);
            for (int j = 0; j < V; j++)
                CLOSE(mean[j], of_reward[j] - beta * of_kl[j], 1e-13);
        }
}
END_TEST

START_TEST(sampled_means)
{
    enum { GROUPS = 4000, SIZE = 4 };
    world w = make(8);
    double *u = malloc(GROUPS * SIZE * sizeof *u), *g = malloc(GROUPS * V * sizeof *g);
    int *x = malloc(GROUPS * SIZE * sizeof *x);
    for (int32_t b = PREFOPT_BASELINE_NONE; b <= PREFOPT_BASELINE_LEAVE_ONE_OUT; b++) {
        OK(prefopt_random_uniform(77, (uint64_t)b, 0, GROUPS * SIZE, u));
        for (int i = 0; i < GROUPS * SIZE; i++) {
            x[i] = 0;
            for (double rest = u[i] - w.p[0]; rest > 0 && x[i] < V - 1;)
                rest -= w.p[++x[i]];
        }
        prefopt_pg_options o = options_with(b, PREFOPT_KL_IN_REWARD, PREFOPT_KL_K1);
        group_gradients(&w, &o, 0, GROUPS, SIZE, x, g);
        double shrunk = b == PREFOPT_BASELINE_MEAN ? (SIZE - 1.0) / SIZE : 1;
        for (int j = 0; j < V; j++) {
            double mean = 0, squares = 0;
            for (int i = 0; i < GROUPS; i++)
                mean += g[i * V + j] / GROUPS;
            for (int i = 0; i < GROUPS; i++)
                squares += pow(g[i * V + j] - mean, 2);
            double error = sqrt(squares / (GROUPS - 1) / GROUPS);
            ck_assert_msg(fabs(mean - shrunk * w.grad[j]) < 4 * error,
                          "baseline %d, logit %d: %g, expected %g +- %g", b, j, mean,
                          shrunk * w.grad[j], error);
            /* The bound is sharp enough to see a wrong gradient. */
            double largest = 0;
            for (int i = 0; i < V; i++)
                largest = fmax(largest, fabs(w.grad[i]));
            ck_assert(error < 0.1 * largest);
        }
    }
    free(u);
    free(g);
    free(x);
}
END_TEST

TEST_MAIN("soft_rl_gradient", enumerated_means, kl_in_the_loss, sampled_means)
