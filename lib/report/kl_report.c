/* The KLs between a policy and a reference: exact, and as samples would estimate them. */
#include "report/pf_report.h"
#include "model/pf_reference.h"
#include "prefopt/kl.h"

static int32_t exact(const pf_exact_space *space, prefopt_kl_summary *own)
{
    pf_sum reverse = {0, 0}, forward = {0, 0};
    for (int64_t x = 0; x < space->n_prompts; x++) {
        const double *logp = space->logp + x * space->n, *ref = space->ref_logp + x * space->n;
        double share = pf_exact_share(space, x), kl;
        if (!(share > 0))
            continue;
        PF_TRY(prefopt_kl_exact(PREFOPT_KL_REVERSE, space->n, logp, ref, &kl, NULL));
        pf_sum_add(&reverse, share * kl);
        PF_TRY(prefopt_kl_exact(PREFOPT_KL_FORWARD, space->n, logp, ref, &kl, NULL));
        pf_sum_add(&forward, share * kl);
    }
    own->reverse = pf_sum_value(&reverse);
    own->forward = pf_sum_value(&forward);
    return PREFOPT_OK;
}

/* Each prompt is a stratum: the estimate is the mean of the prompts' estimates, and the squares of
 * their standard errors add up. */
static int32_t estimate(const pf_exact_space *space, int32_t estimator, int64_t n_samples,
                        const double *logp, const double *ref_logp, double *mean, double *std_error)
{
    pf_sum sum = {0, 0}, squares = {0, 0};
    for (int64_t x = 0; x < space->n_prompts; x++) {
        double share = pf_exact_share(space, x), m, error;
        if (!(share > 0))
            continue;
        PF_TRY(prefopt_kl_estimate(PREFOPT_KL_REVERSE, estimator, PREFOPT_FROM_POLICY, n_samples,
                                   logp + x * n_samples, ref_logp + x * n_samples, NULL, &m,
                                   &error));
        pf_sum_add(&sum, share * m);
        pf_sum_add(&squares, share * error * share * error);
    }
    *mean = pf_sum_value(&sum);
    *std_error = sqrt(pf_sum_value(&squares));
    return PREFOPT_OK;
}

static int32_t estimates(const pf_exact_space *space, const prefopt_reference *reference,
                         const prefopt_dataset *samples, prefopt_kl_summary *own)
{
    prefopt_columns columns = {.struct_size = sizeof columns};
    prefopt_sequences drawn = {.struct_size = sizeof drawn};
    PF_TRY(prefopt_dataset_columns(samples, &columns));
    PF_TRY(prefopt_dataset_sequences(samples, &drawn));
    double *ref_logp = pf_alloc(space->context, drawn.n, sizeof *ref_logp);
    if (ref_logp == NULL)
        return PREFOPT_ERR_MEMORY;
    int32_t status = pf_reference_logprobs(reference, &drawn, ref_logp);
    double *mean[] = {&own->k1, &own->k2, &own->k3};
    double *error[] = {&own->k1_std_error, &own->k2_std_error, &own->k3_std_error};
    for (int32_t k = 0; k < 3 && status == PREFOPT_OK; k++)
        status = estimate(space, PREFOPT_KL_K1 + k, own->n_samples, columns.logp, ref_logp, mean[k],
                          error[k]);
    pf_free(space->context, ref_logp);
    return status;
}

static int32_t draw(const pf_exact_space *space, prefopt_policy *policy,
                    const prefopt_reference *reference, uint64_t seed, prefopt_kl_summary *own)
{
    own->k1 = own->k1_std_error = own->k2 = own->k2_std_error = own->k3 = own->k3_std_error = NAN;
    if (own->n_samples == 0)
        return PREFOPT_OK;
    prefopt_sampler_options options;
    PF_TRY(prefopt_sampler_options_init(&options, sizeof options));
    options.n = own->n_samples;
    options.seed = seed;
    prefopt_dataset *samples;
    PF_TRY(prefopt_sample(&samples, policy, space->prompts, &options));
    int32_t status = estimates(space, reference, samples, own);
    prefopt_dataset_destroy(samples);
    return status;
}

int32_t prefopt_report_kl(prefopt_kl_summary *out, prefopt_policy *policy,
                          const prefopt_reference *reference, const prefopt_dataset *prompts,
                          int64_t n_samples, uint64_t seed)
{
    PF_REQUIRE(out);
    PF_REQUIRE(policy);
    PF_REQUIRE(reference);
    PF_REQUIRE(prompts);
    prefopt_kl_summary own = {.struct_size = sizeof own, .n_samples = n_samples};
    PF_TRY(pf_struct_check_out(out, sizeof own, "prefopt_kl_summary"));
    if (n_samples < 0)
        return pf_fail(PREFOPT_ERR_ARGUMENT, "n_samples is %lld, expected at least 0",
                       (long long)n_samples);
    if (n_samples == 0 && seed != 0)
        return pf_fail(PREFOPT_ERR_ARGUMENT,
                       "seed is %llu, but n_samples is 0 and nothing uses it: expected 0",
                       (unsigned long long)seed);
    pf_exact_space space;
    PF_TRY(pf_exact_space_create(&space, prompts, policy, reference, NULL));
    int32_t status = exact(&space, &own);
    if (status == PREFOPT_OK)
        status = draw(&space, policy, reference, seed, &own);
    pf_exact_space_destroy(&space);
    if (status == PREFOPT_OK)
        pf_struct_write(out, &own, sizeof own);
    return status;
}
