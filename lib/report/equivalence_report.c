/* Equivalence: how far apart the two roads are, on one reward and one policy (lecture 22.4). */
#include "report/pf_report.h"
#include "model/pf_reference.h"
#include "model/pf_reward.h"
#include "prefopt/kl.h"
#include "prefopt/loss.h"

/* ---- the policies */

static int32_t compare_policies(const pf_exact_space *space, double beta, double *optimal,
                                double *log_z, prefopt_equivalence *own)
{
    pf_sum distance = {0, 0}, kl = {0, 0};
    for (int64_t x = 0; x < space->n_prompts; x++) {
        const double *logp = space->logp + x * space->n;
        double share = pf_exact_share(space, x), divergence;
        PF_TRY(pf_exact_soft_optimal(space, x, beta, optimal, &log_z[x]));
        if (!(share > 0))
            continue;
        pf_sum sum = {0, 0};
        for (int64_t y = 0; y < space->n; y++)
            pf_sum_add(&sum, fabs(exp(logp[y]) - exp(optimal[y])));
        double variation = fmin(0.5 * pf_sum_value(&sum), 1);
        PF_TRY(prefopt_kl_exact(PREFOPT_KL_REVERSE, space->n, logp, optimal, &divergence, NULL));
        pf_sum_add(&distance, share * variation);
        pf_sum_add(&kl, share * divergence);
        own->max_total_variation = fmax(own->max_total_variation, variation);
    }
    own->total_variation = pf_sum_value(&distance);
    own->kl = pf_sum_value(&kl);
    return PREFOPT_OK;
}

/* ---- the losses */

/* each: 2 n numbers, chosen and rejected alternating; side: 4 n. */
static int32_t reward_loss(const prefopt_dataset *pairs, prefopt_reward *reward, double *each,
                           double *side, double *mean)
{
    prefopt_sequences all = {.struct_size = sizeof all};
    PF_TRY(prefopt_dataset_sequences(pairs, &all));
    int32_t status = pf_reward_scores(reward, &all, each);
    if (status != PREFOPT_OK)
        return status < 0 ? pf_fail_in(status, "reward") : status;
    int64_t n = pairs->n_rows;
    pf_report_split_sides(n, each, side, side + n);
    prefopt_pair_scores in = {.struct_size = sizeof in,
                              .n = n,
                              .chosen = side,
                              .rejected = side + n,
                              .weight = pairs->weight,
                              .label = pairs->label,
                              .margin = pairs->margin};
    prefopt_pair_loss loss = {.struct_size = sizeof loss};
    status = prefopt_loss_bradley_terry(NULL, &in, &loss);
    *mean = loss.mean;
    return status < 0 ? pf_fail_in(status, "reward loss") : status;
}

/* The margin stands beside rewards, and log-ratios are rewards over beta: so is the margin. */
static int32_t policy_loss(const prefopt_dataset *pairs, const prefopt_policy *policy,
                           const prefopt_reference *reference, double beta, double *each,
                           double *side, double *margin, double *mean)
{
    prefopt_sequences all = {.struct_size = sizeof all};
    PF_TRY(prefopt_dataset_sequences(pairs, &all));
    int64_t n = pairs->n_rows;
    PF_TRY(pf_policy_logprobs(policy, &all, each, NULL));
    pf_report_split_sides(n, each, side, side + n);
    PF_TRY(pf_reference_logprobs(reference, &all, each));
    pf_report_split_sides(n, each, side + 2 * n, side + 3 * n);
    for (int64_t i = 0; i < n; i++)
        margin[i] = pairs->margin[i] / beta;
    prefopt_dpo_options options;
    PF_TRY(prefopt_dpo_options_init(&options, sizeof options));
    options.beta = beta;
    prefopt_pair_scores in = {.struct_size = sizeof in,
                              .n = n,
                              .chosen = side,
                              .rejected = side + n,
                              .ref_chosen = side + 2 * n,
                              .ref_rejected = side + 3 * n,
                              .weight = pairs->weight,
                              .label = pairs->label,
                              .margin = margin};
    prefopt_pair_loss loss = {.struct_size = sizeof loss};
    int32_t status = prefopt_loss_dpo(&options, &in, &loss);
    *mean = loss.mean;
    return status < 0 ? pf_fail_in(status, "policy loss") : status;
}

static int32_t compare_losses(const prefopt_dataset *pairs, const prefopt_policy *policy,
                              const prefopt_reference *reference, prefopt_reward *reward,
                              double beta, prefopt_equivalence *own)
{
    prefopt_context *context = policy->context;
    int64_t n = pairs->n_rows, size;
    if (!pf_mul(n, 7, &size))
        return pf_fail(PREFOPT_ERR_MEMORY, "a size overflows: %lld pairs", (long long)n);
    double *scratch = pf_alloc(context, size, sizeof *scratch);
    if (scratch == NULL)
        return PREFOPT_ERR_MEMORY;
    double *each = scratch, *side = scratch + 2 * n, *margin = scratch + 6 * n;
    int32_t status = reward_loss(pairs, reward, each, side, &own->loss_reward);
    if (status == PREFOPT_OK)
        status = policy_loss(pairs, policy, reference, beta, each, side, margin, &own->loss_policy);
    pf_free(context, scratch);
    /* Two infinite losses are equal. */
    own->loss_difference =
        own->loss_policy == own->loss_reward ? 0 : own->loss_policy - own->loss_reward;
    return status;
}

int32_t prefopt_report_equivalence(prefopt_equivalence *out, double *log_z, int64_t n_log_z,
                                   const prefopt_dataset *pairs, prefopt_policy *policy,
                                   const prefopt_reference *reference, prefopt_reward *reward,
                                   double beta)
{
    PF_REQUIRE(out);
    PF_REQUIRE(pairs);
    PF_REQUIRE(policy);
    PF_REQUIRE(reference);
    PF_REQUIRE(reward);
    prefopt_equivalence own = {.struct_size = sizeof own};
    PF_TRY(pf_struct_check_out(out, sizeof own, "prefopt_equivalence"));
    PF_TRY(pf_report_check_beta(beta));
    if (n_log_z < 0 || (log_z == NULL && n_log_z > 0))
        return pf_fail(PREFOPT_ERR_ARGUMENT, "n_log_z is %lld and log_z %s NULL",
                       (long long)n_log_z, log_z == NULL ? "is" : "is not");
    PF_TRY(pf_report_check_pairs(pairs));
    pf_exact_space space;
    PF_TRY(pf_exact_space_create(&space, pairs, policy, reference, reward));
    double *scratch = pf_alloc(space.context, space.n + space.n_prompts, sizeof *scratch);
    double *own_log_z = scratch == NULL ? NULL : scratch + space.n;
    int32_t status = PREFOPT_OK;
    if (log_z != NULL && n_log_z < space.n_prompts)
        status = pf_fail(PREFOPT_ERR_ARGUMENT,
                         "n_log_z is %lld, expected at least %lld: pairs has that many distinct "
                         "prompts",
                         (long long)n_log_z, (long long)space.n_prompts);
    else if (scratch == NULL)
        status = PREFOPT_ERR_MEMORY;
    if (status == PREFOPT_OK)
        status = compare_policies(&space, beta, scratch, own_log_z, &own);
    if (status == PREFOPT_OK)
        status = compare_losses(pairs, policy, reference, reward, beta, &own);
    if (status == PREFOPT_OK) {
        if (log_z != NULL)
            memcpy(log_z, own_log_z, (size_t)space.n_prompts * sizeof *log_z);
        pf_struct_write(out, &own, sizeof own);
    }
    pf_free(space.context, scratch);
    pf_exact_space_destroy(&space);
    return status;
}
