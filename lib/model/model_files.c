/* Loading and saving policies and rewards: checkpoints between a folder and a transformer. */
#include "model/pf_model.h"
#include "model/pf_network.h"
#include "model/pf_reward.h"

static const char *const kind_of_head[] = {"a language model", "a reward model"};

/* A model from a folder whose head must be `head`. */
static int32_t load(pf_transformer **out, prefopt_context *context, const char *directory,
                    int32_t head)
{
    prefopt_transformer_config config;
    int32_t found;
    PF_TRY(pf_checkpoint_config(context, directory, &config, &found));
    if (found != head)
        return pf_fail(PREFOPT_ERR_FORMAT, "%s/config.json: this is %s, expected %s", directory,
                       kind_of_head[found], kind_of_head[head]);
    pf_shape *shape;
    PF_TRY(pf_shape_create(&shape, context, &config, head));
    pf_transformer *model = NULL;
    int32_t status = pf_transformer_create(&model, shape, NULL);
    if (status == PREFOPT_OK) {
        status = pf_checkpoint_read(shape, directory, model->weights->value);
        if (status != PREFOPT_OK)
            pf_transformer_destroy(model);
    }
    pf_shape_release(shape);
    if (status == PREFOPT_OK)
        *out = model;
    return status;
}

static int32_t save(const pf_transformer *model, const char *directory, int32_t dtype)
{
    return pf_checkpoint_write(model->shape, directory, model->weights->value, dtype);
}

int32_t prefopt_policy_load(prefopt_policy **out, prefopt_context *context, const char *directory)
{
    PF_REQUIRE(out);
    PF_REQUIRE(context);
    PF_REQUIRE(directory);
    pf_transformer *model = NULL;
    PF_TRY(load(&model, context, directory, PF_HEAD_LOGITS));
    return pf_policy_transformer_wrap(out, model);
}

int32_t prefopt_policy_save_as(const prefopt_policy *policy, const char *directory, int32_t dtype)
{
    const pf_transformer *model = NULL;
    PF_TRY(pf_policy_transformer_of(policy, &model));
    PF_REQUIRE(directory);
    return save(model, directory, dtype);
}

int32_t prefopt_policy_save(const prefopt_policy *policy, const char *directory)
{
    return prefopt_policy_save_as(policy, directory, PREFOPT_F32);
}

int32_t prefopt_reward_load(prefopt_reward **out, prefopt_context *context, const char *directory)
{
    PF_REQUIRE(out);
    PF_REQUIRE(context);
    PF_REQUIRE(directory);
    pf_transformer *model = NULL;
    PF_TRY(load(&model, context, directory, PF_HEAD_SCORE));
    return pf_reward_transformer_wrap(out, model);
}

int32_t prefopt_reward_save_as(const prefopt_reward *reward, const char *directory, int32_t dtype)
{
    const pf_transformer *model = NULL;
    PF_TRY(pf_reward_transformer_of(reward, &model));
    PF_REQUIRE(directory);
    return save(model, directory, dtype);
}

int32_t prefopt_reward_save(const prefopt_reward *reward, const char *directory)
{
    return prefopt_reward_save_as(reward, directory, PREFOPT_F32);
}
