/* What an objective that samples is made with: prompts, sampler, rounds, models. */
#include "online/pf_online.h"
#include "train/pf_sampled.h"
#include "train/pf_saved.h"

/* Which reward model and reference the run has. */
static int32_t hash_models(pf_sampled *s, const prefopt_trainer *trainer)
{
    pf_values trained, values;
    PF_TRY(pf_trained_values(&trainer->model, &trained));
    if (s->reward->callbacks.parameters != NULL) {
        PF_TRY(pf_reward_values(s->reward, &values));
        if (values.value != trained.value)
            s->reward_hash = pf_content_hash(trainer->context, PF_HASH_START, values.value,
                                             values.n * pf_dtype_size(values.dtype));
    }
    if (s->reference != NULL && s->reference->policy->callbacks.parameters != NULL) {
        PF_TRY(pf_policy_values(s->reference->policy, &values));
        s->reference_hash = pf_content_hash(trainer->context, PF_HASH_START, values.value,
                                            values.n * pf_dtype_size(values.dtype));
    }
    return PREFOPT_OK;
}

void pf_sampled_clear(pf_sampled *s, prefopt_context *context)
{
    pf_free(context, s->stop);
    prefopt_dataset_destroy(s->prompts);
    prefopt_dataset_destroy(s->at.data);
    pf_free(context, s->at.ref);
    pf_free(context, s->at.advantage);
    if (s->draws.context != NULL)
        pf_batches_clear(&s->draws);
    prefopt_reward_destroy(s->reward);
    prefopt_reference_destroy(s->reference);
}

static int32_t copy_sampler(pf_sampled *s, prefopt_context *context,
                            const prefopt_sampler_options *sampler)
{
    PF_TRY(prefopt_sampler_options_init(&s->sampler, sizeof s->sampler));
    if (sampler != NULL)
        PF_TRY(pf_struct_read(&s->sampler, sizeof s->sampler, sizeof s->sampler, sampler,
                              "prefopt_sampler_options"));
    if (s->sampler.n_stop <= 0 || s->sampler.stop == NULL)
        return PREFOPT_OK;
    s->stop = pf_alloc(context, s->sampler.n_stop, sizeof *s->stop);
    if (s->stop == NULL)
        return PREFOPT_ERR_MEMORY;
    memcpy(s->stop, s->sampler.stop, (size_t)s->sampler.n_stop * sizeof *s->stop);
    s->sampler.stop = s->stop;
    return PREFOPT_OK;
}

static int32_t copy_prompts(pf_sampled *s, const prefopt_trainer *trainer,
                            const prefopt_dataset *prompts)
{
    int64_t n = prefopt_dataset_size(prompts);
    if (n == 0)
        return pf_fail(PREFOPT_ERR_ARGUMENT, "%s: prompts has no rows, expected at least 1",
                       trainer->objective->name);
    prefopt_columns columns = {.struct_size = sizeof columns};
    PF_TRY(prefopt_dataset_columns(prompts, &columns));
    for (int64_t i = 0; i < n; i++)
        if (columns.weight[i] != 1)
            return pf_fail(
                PREFOPT_ERR_ARGUMENT,
                "%s: the weight of row %lld is %g, expected 1: prompts are drawn equally "
                "often",
                trainer->objective->name, (long long)i, columns.weight[i]);
    int64_t *all = pf_alloc(trainer->context, n, sizeof *all);
    if (all == NULL)
        return PREFOPT_ERR_MEMORY;
    for (int64_t i = 0; i < n; i++)
        all[i] = i;
    int32_t status = prefopt_dataset_select(&s->prompts, prompts, all, n);
    pf_free(trainer->context, all);
    return status;
}

/* The options of the rounds against all else. */
static int32_t check_rounds(const pf_sampled *s, const prefopt_trainer *trainer, int64_t n)
{
    const char *name = trainer->objective->name;
    const prefopt_round_options *o = &s->rounds;
    int64_t batch = trainer->options.batch;
    int64_t drawn = o->prompts < n ? o->prompts : n, taken = batch < n ? batch : n;
    if (o->steps == 1 && drawn > 0 && taken > 0 && drawn != taken)
        return pf_fail(PREFOPT_ERR_ARGUMENT,
                       "%s: batch is %lld, but with steps 1 a step takes the round of %lld prompts "
                       "whole: expected 0 or %lld",
                       name, (long long)batch, (long long)o->prompts, (long long)o->prompts);
    if (o->missing_end_penalty > 0 && !s->can_end)
        return pf_fail(PREFOPT_ERR_ARGUMENT,
                       "%s: missing_end_penalty is %g, but the policy's space has no eos and the "
                       "sampler no stop token: nothing ends a completion",
                       name, o->missing_end_penalty);
    if (o->refresh > 0 && s->reference == NULL)
        return pf_fail(PREFOPT_ERR_ARGUMENT,
                       "%s: refresh is %lld, but there is no reference to refresh", name,
                       (long long)o->refresh);
    if (o->refresh > 0 && trainer->model.policy->callbacks.clone == NULL)
        return pf_fail(PREFOPT_ERR_UNSUPPORTED,
                       "%s: refresh is %lld, but the policy has no clone and cannot be frozen",
                       name, (long long)o->refresh);
    return PREFOPT_OK;
}

int32_t pf_sampled_init(pf_sampled *s, prefopt_trainer *trainer, prefopt_reference *reference,
                        prefopt_reward *reward, const prefopt_dataset *prompts,
                        const prefopt_sampler_options *sampler, const prefopt_round_options *rounds)
{
    const prefopt_policy *policy = trainer->model.policy;
    const prefopt_train_options *o = &trainer->options;
    s->at.number = -1;
    s->reward = pf_reward_retain(reward);
    s->reference = reference != NULL ? pf_reference_retain(reference) : NULL;
    PF_TRY(copy_sampler(s, trainer->context, sampler));
    int32_t status = pf_sampler_check(&s->sampler);
    if (status == PREFOPT_OK)
        status = pf_round_options_read(&s->rounds, rounds);
    if (status != PREFOPT_OK)
        return pf_fail_in(status, "%s", trainer->objective->name);
    PF_TRY(copy_prompts(s, trainer, prompts));
    int64_t n = prefopt_dataset_size(prompts);
    s->eos = policy->has_space ? policy->space.eos : -1;
    s->can_end = s->eos >= 0 || s->stop != NULL;
    PF_TRY(check_rounds(s, trainer, n));
    trainer->total_weight = (double)n;
    PF_TRY(hash_models(s, trainer));
    PF_TRY(pf_prompts_hash(trainer->context, s->prompts, &trainer->data_hash));
    return pf_batches_init(&s->draws, trainer->context, NULL, n,
                           s->rounds.prompts > 0 ? s->rounds.prompts : o->batch, o->seed);
}
