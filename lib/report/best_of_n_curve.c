/* Best-of-n curves: a judge picks, the truth measures (lecture 22.5). */
#include "report/pf_report.h"
#include "model/pf_reward.h"

typedef struct {
    const pf_exact_space *space; /* its score is the judge's */
    const double *truth;
    double *logp, *winner; /* space->n each */
} work;

/* True reward and KL of best of n, mean over prompts. prefopt_best_of_n takes probabilities that
 * sum to 1 more closely than a policy in single precision has them, so they are renormalised. */
static int32_t point(const work *w, int64_t n, double *true_reward, double *kl)
{
    const pf_exact_space *s = w->space;
    pf_sum reward_sum = {0, 0}, kl_sum = {0, 0};
    for (int64_t x = 0; x < s->n_prompts; x++) {
        const double *logp = s->logp + x * s->n;
        double share = pf_exact_share(s, x), total = pf_log_sum_exp(s->n, logp), divergence;
        if (!(share > 0))
            continue;
        for (int64_t y = 0; y < s->n; y++)
            w->logp[y] = logp[y] - total;
        PF_TRY(prefopt_best_of_n(n, s->n, w->logp, s->score + x * s->n, w->winner, &divergence,
                                 NULL, NULL));
        pf_sum_add(&reward_sum, share * pf_exact_expectation(s->n, w->winner, w->truth + x * s->n));
        pf_sum_add(&kl_sum, share * divergence);
    }
    *true_reward = pf_sum_value(&reward_sum);
    *kl = pf_sum_value(&kl_sum);
    return PREFOPT_OK;
}

static int32_t curve(const pf_exact_space *space, prefopt_reward *truth, int64_t n_values,
                     const int64_t *n, double *true_reward, double *kl)
{
    int64_t size, curve_size;
    if (!pf_mul(n_values, 2, &curve_size) || !pf_add(space->view.n, 2 * space->n, &size) ||
        !pf_add(size, curve_size, &size))
        return pf_fail(PREFOPT_ERR_MEMORY, "a size overflows: n_values is %lld",
                       (long long)n_values);
    double *scratch = pf_alloc(space->context, size, sizeof *scratch);
    if (scratch == NULL)
        return PREFOPT_ERR_MEMORY;
    double *values = scratch + space->view.n + 2 * space->n;
    work w = {space, scratch, scratch + space->view.n, scratch + space->view.n + space->n};
    int32_t status = pf_reward_scores(truth, &space->view, scratch);
    if (status < 0)
        pf_fail_in(status, "truth");
    for (int64_t i = 0; i < n_values && status == PREFOPT_OK; i++)
        status = point(&w, n[i], &values[i], &values[n_values + i]);
    if (status == PREFOPT_OK && true_reward != NULL)
        memcpy(true_reward, values, (size_t)n_values * sizeof *values);
    if (status == PREFOPT_OK && kl != NULL)
        memcpy(kl, values + n_values, (size_t)n_values * sizeof *values);
    pf_free(space->context, scratch);
    return status;
}

int32_t prefopt_report_best_of_n(prefopt_policy *policy, prefopt_reward *judge,
                                 prefopt_reward *truth, const prefopt_dataset *prompts,
                                 int64_t n_values, const int64_t *n, double *true_reward,
                                 double *kl)
{
    PF_REQUIRE(policy);
    PF_REQUIRE(judge);
    PF_REQUIRE(truth);
    PF_REQUIRE(prompts);
    if (n_values < 0)
        return pf_fail(PREFOPT_ERR_ARGUMENT, "n_values is %lld, expected at least 0",
                       (long long)n_values);
    if (n_values == 0)
        return PREFOPT_OK;
    PF_REQUIRE(n);
    for (int64_t i = 0; i < n_values; i++)
        if (n[i] < 1)
            return pf_fail(PREFOPT_ERR_ARGUMENT, "n[%lld] is %lld, expected at least 1",
                           (long long)i, (long long)n[i]);
    pf_exact_space space;
    PF_TRY(pf_exact_space_create(&space, prompts, policy, NULL, judge));
    int32_t status = curve(&space, truth, n_values, n, true_reward, kl);
    pf_exact_space_destroy(&space);
    return status;
}
