/* The objective of soft RL, exactly, and how far a policy is from its maximum. */
#include "report/pf_report.h"
#include "prefopt/kl.h"

typedef struct {
    double reward, kl, optimum, regret;
} parts;

/* max J = beta log Z, taken at a completion that is best among those the reference allows:
 * beta log Z = r + beta (log pi_ref - log soft-optimal) there, which neither overflows for a small
 * beta nor loses digits when rewards are large. */
static double best_value(int64_t n, const double *ref_logp, const double *score,
                         const double *optimal, double beta)
{
    int64_t best = -1;
    for (int64_t y = 0; y < n; y++)
        if (ref_logp[y] > -INFINITY && (best < 0 || score[y] > score[best]))
            best = y;
    return score[best] + beta * (ref_logp[best] - optimal[best]);
}

static int32_t of_prompt(const pf_exact_space *space, int64_t x, double beta, double *optimal,
                         parts *out)
{
    int64_t n = space->n, at = x * n;
    const double *logp = space->logp + at, *ref = space->ref_logp + at;
    double gap;
    PF_TRY(pf_exact_soft_optimal(space, x, beta, optimal, NULL));
    PF_TRY(prefopt_kl_exact(PREFOPT_KL_REVERSE, n, logp, ref, &out->kl, NULL));
    PF_TRY(prefopt_kl_exact(PREFOPT_KL_REVERSE, n, logp, optimal, &gap, NULL));
    out->reward = pf_exact_expectation(n, logp, space->score + at);
    out->optimum = best_value(n, ref, space->score + at, optimal, beta);
    out->regret = beta * gap;
    return PREFOPT_OK;
}

static int32_t summarise(const pf_exact_space *space, double beta, double *optimal,
                         prefopt_objective *own)
{
    pf_sum reward = {0, 0}, kl = {0, 0}, optimum = {0, 0}, regret = {0, 0};
    for (int64_t x = 0; x < space->n_prompts; x++) {
        double share = pf_exact_share(space, x);
        parts p;
        if (!(share > 0))
            continue;
        PF_TRY(of_prompt(space, x, beta, optimal, &p));
        pf_sum_add(&reward, share * p.reward);
        pf_sum_add(&kl, share * p.kl);
        pf_sum_add(&optimum, share * p.optimum);
        pf_sum_add(&regret, share * p.regret);
    }
    own->reward = pf_sum_value(&reward);
    own->kl = pf_sum_value(&kl);
    own->j = own->reward - beta * own->kl;
    own->optimum = pf_sum_value(&optimum);
    own->regret = pf_sum_value(&regret);
    return PREFOPT_OK;
}

int32_t prefopt_report_objective(prefopt_objective *out, prefopt_policy *policy,
                                 const prefopt_reference *reference, prefopt_reward *reward,
                                 const prefopt_dataset *prompts, double beta)
{
    PF_REQUIRE(out);
    PF_REQUIRE(policy);
    PF_REQUIRE(reference);
    PF_REQUIRE(reward);
    PF_REQUIRE(prompts);
    prefopt_objective own = {.struct_size = sizeof own};
    PF_TRY(pf_struct_check_out(out, sizeof own, "prefopt_objective"));
    PF_TRY(pf_report_check_beta(beta));
    pf_exact_space space;
    PF_TRY(pf_exact_space_create(&space, prompts, policy, reference, reward));
    double *optimal = pf_alloc(space.context, space.n, sizeof *optimal);
    int32_t status = optimal == NULL ? PREFOPT_ERR_MEMORY : summarise(&space, beta, optimal, &own);
    pf_free(space.context, optimal);
    pf_exact_space_destroy(&space);
    if (status == PREFOPT_OK)
        pf_struct_write(out, &own, sizeof own);
    return status;
}
