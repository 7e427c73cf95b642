/* What the objectives that sample at each step share: prompts, draws, scores. */
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

void pf_sampled_describe(const pf_sampled *s, pf_describe *to)
{
    pf_describe_sampler(to, &s->sampler);
    pf_describe_bytes(to, "reward_model", &s->reward_hash, (int64_t)sizeof s->reward_hash);
    pf_describe_bytes(to, "reference", &s->reference_hash, (int64_t)sizeof s->reference_hash);
}

int32_t pf_sampled_init(pf_sampled *s, prefopt_trainer *trainer, prefopt_reference *reference,
                        prefopt_reward *reward, const prefopt_dataset *prompts,
                        const prefopt_sampler_options *sampler)
{
    prefopt_context *context = trainer->context;
    PF_TRY(prefopt_sampler_options_init(&s->sampler, sizeof s->sampler));
    if (sampler != NULL)
        PF_TRY(pf_struct_read(&s->sampler, sizeof s->sampler, sizeof s->sampler, sampler,
                              "prefopt_sampler_options"));
    s->reward = pf_reward_retain(reward);
    s->reference = reference != NULL ? pf_reference_retain(reference) : NULL;
    if (s->sampler.n_stop > 0 && s->sampler.stop != NULL) {
        s->stop = pf_alloc(context, s->sampler.n_stop, sizeof *s->stop);
        if (s->stop == NULL)
            return PREFOPT_ERR_MEMORY;
        memcpy(s->stop, s->sampler.stop, (size_t)s->sampler.n_stop * sizeof *s->stop);
        s->sampler.stop = s->stop;
    }
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
    int64_t *all = pf_alloc(context, n, sizeof *all);
    if (all == NULL)
        return PREFOPT_ERR_MEMORY;
    for (int64_t i = 0; i < n; i++)
        all[i] = i;
    int32_t status = prefopt_dataset_select(&s->prompts, prompts, all, n);
    pf_free(context, all);
    PF_TRY(status);
    PF_TRY(hash_models(s, trainer));
    PF_TRY(pf_prompts_hash(context, s->prompts, &trainer->data_hash));
    return pf_trainer_prompts(trainer, n, (double)n);
}

void pf_sampled_clear(pf_sampled *s, prefopt_context *context)
{
    pf_free(context, s->stop);
    prefopt_dataset_destroy(s->prompts);
    prefopt_reward_destroy(s->reward);
    prefopt_reference_destroy(s->reference);
}

int32_t pf_sampled_draw(const pf_sampled *s, const prefopt_trainer *trainer,
                        prefopt_dataset **samples)
{
    const pf_batch *batch = &trainer->batch;
    prefopt_sampler_options options = s->sampler;
    options.round += (uint64_t)trainer->step;
    if (batch->rows == NULL)
        return prefopt_sample(samples, trainer->model.policy, s->prompts, &options);
    prefopt_dataset *prompts;
    PF_TRY(prefopt_dataset_select(&prompts, s->prompts, batch->rows, batch->n));
    int32_t status = prefopt_sample(samples, trainer->model.policy, prompts, &options);
    prefopt_dataset_destroy(prompts);
    return status;
}

int64_t pf_sampled_tokens(const prefopt_dataset *samples)
{
    prefopt_sequences in = {.struct_size = sizeof in};
    int32_t status = prefopt_dataset_sequences(samples, &in);
    return status == PREFOPT_OK ? pf_sequences_tokens(&in) : 0;
}

int32_t pf_sampled_rewards(const pf_sampled *s, const prefopt_trainer *trainer,
                           const prefopt_sequences *in, double *score)
{
    int32_t status = pf_reward_scores(s->reward, in, score);
    if (status != PREFOPT_ERR_NUMERIC && status != PREFOPT_ERR_ARGUMENT)
        return status;
    /* One by one, to name the row. */
    for (int64_t i = 0; i < in->n; i++) {
        prefopt_sequences one = pf_sequences_part(in, i, 1);
        int32_t again = pf_reward_scores(s->reward, &one, score + i);
        if (again < 0)
            return pf_fail_in(again, "row %lld, sample %lld: reward",
                              (long long)pf_batch_row(&trainer->batch, i / s->sampler.n),
                              (long long)(i % s->sampler.n));
    }
    return pf_fail(status, "the reward model failed on %lld samples together but on none alone",
                   (long long)in->n);
}

int32_t pf_sampled_room(prefopt_context *context, double **array, int64_t *capacity, int64_t n)
{
    if (n <= *capacity)
        return PREFOPT_OK;
    double *larger = pf_alloc(context, n, sizeof *larger);
    if (larger == NULL)
        return PREFOPT_ERR_MEMORY;
    pf_free(context, *array);
    *array = larger;
    *capacity = n;
    return PREFOPT_OK;
}
