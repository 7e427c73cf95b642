/* How well a reward predicts held-out preferences: the verification side of the gap between
 * generation and verification (lecture 22.5.2). */
#include "report/pf_report.h"
#include "model/pf_reward.h"
#include "prefopt/loss.h"

/* Weighted mean of -each and its standard error as a ratio of sums over pairs,
 * sqrt(m / (m - 1) sum w^2 (l - mean)^2) / sum w, m pairs of positive weight: s / sqrt(m) where all
 * weigh the same. */
static double std_error(int64_t n, const double *weight, const double *each, double mean)
{
    int64_t m = 0;
    pf_sum total = {0, 0}, squares = {0, 0};
    for (int64_t i = 0; i < n; i++)
        if (weight[i] > 0) {
            double off = weight[i] * (each[i] - mean);
            m++;
            pf_sum_add(&total, weight[i]);
            pf_sum_add(&squares, off * off);
        }
    if (m < 2 || !isfinite(mean))
        return INFINITY;
    return sqrt(pf_sum_value(&squares) * ((double)m / (double)(m - 1))) / pf_sum_value(&total);
}

/* Accuracy and likelihood of the given labels. */
static void score_pairs(const prefopt_dataset *pairs, const double *chosen, const double *rejected,
                        prefopt_preference_fit *own)
{
    pf_sum total = {0, 0}, right = {0, 0}, likelihood = {0, 0};
    for (int64_t i = 0; i < pairs->n_rows; i++) {
        double weight = pairs->weight[i], label = pairs->label[i], margin = pairs->margin[i];
        if (!(weight > 0))
            continue;
        double d = chosen[i] - rejected[i];
        double ranked = d > 0 ? label : d < 0 ? 1 - label : 0.5;
        double p = label * pf_sigmoid(d - margin) + (1 - label) * pf_sigmoid(-d - margin);
        own->n_pairs++;
        pf_sum_add(&total, weight);
        pf_sum_add(&right, weight * ranked);
        pf_sum_add(&likelihood, weight * p);
    }
    own->accuracy = pf_sum_value(&right) / pf_sum_value(&total);
    own->likelihood = pf_sum_value(&likelihood) / pf_sum_value(&total);
}

static int32_t fit(prefopt_reward *reward, const prefopt_dataset *pairs, double *scratch,
                   prefopt_preference_fit *own)
{
    int64_t n = pairs->n_rows;
    double *score = scratch, *chosen = scratch + 2 * n, *rejected = scratch + 3 * n;
    prefopt_sequences all = {.struct_size = sizeof all};
    PF_TRY(prefopt_dataset_sequences(pairs, &all));
    PF_TRY(pf_reward_scores(reward, &all, score));
    pf_report_split_sides(n, score, chosen, rejected);
    prefopt_pair_scores in = {.struct_size = sizeof in,
                              .n = n,
                              .chosen = chosen,
                              .rejected = rejected,
                              .weight = pairs->weight,
                              .label = pairs->label,
                              .margin = pairs->margin};
    prefopt_pair_loss loss = {.struct_size = sizeof loss, .each = score};
    PF_TRY(prefopt_loss_bradley_terry(NULL, &in, &loss));
    own->log_likelihood = -loss.mean;
    own->std_error = std_error(n, pairs->weight, score, loss.mean);
    score_pairs(pairs, chosen, rejected, own);
    return PREFOPT_OK;
}

int32_t prefopt_report_preference_fit(prefopt_preference_fit *out, prefopt_reward *reward,
                                      const prefopt_dataset *pairs)
{
    PF_REQUIRE(out);
    PF_REQUIRE(reward);
    PF_REQUIRE(pairs);
    prefopt_preference_fit own = {.struct_size = sizeof own};
    PF_TRY(pf_struct_check_out(out, sizeof own, "prefopt_preference_fit"));
    PF_TRY(pf_report_check_pairs(pairs));
    int64_t size;
    if (!pf_mul(pairs->n_rows, 4, &size))
        return pf_fail(PREFOPT_ERR_MEMORY, "a size overflows: %lld pairs",
                       (long long)pairs->n_rows);
    double *scratch = pf_alloc(reward->context, size, sizeof *scratch);
    if (scratch == NULL)
        return PREFOPT_ERR_MEMORY;
    int32_t status = fit(reward, pairs, scratch, &own);
    pf_free(reward->context, scratch);
    if (status == PREFOPT_OK)
        pf_struct_write(out, &own, sizeof own);
    return status;
}
