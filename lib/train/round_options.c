/* Options of the rounds: defaults and the check of every field alone. */
#include <math.h>

#include "train/pf_sampled.h"

static const prefopt_round_options defaults = {.struct_size = sizeof(prefopt_round_options),
                                               .steps = 1};

int32_t prefopt_round_options_init(prefopt_round_options *options, uint32_t struct_size)
{
    return pf_struct_init(options, struct_size, &defaults, sizeof defaults, sizeof defaults,
                          "prefopt_round_options");
}

static int32_t at_least(const char *field, int64_t value, int64_t low)
{
    if (value >= low)
        return PREFOPT_OK;
    return pf_fail(PREFOPT_ERR_ARGUMENT, "%s is %lld, expected at least %lld", field,
                   (long long)value, (long long)low);
}

static int32_t not_negative(const char *field, double value)
{
    if (value >= 0 && isfinite(value))
        return PREFOPT_OK;
    return pf_fail(PREFOPT_ERR_ARGUMENT, "%s is %g, expected a finite number >= 0", field, value);
}

int32_t pf_round_options_read(prefopt_round_options *own, const prefopt_round_options *options)
{
    *own = defaults;
    if (options != NULL)
        PF_TRY(pf_struct_read(own, sizeof *own, sizeof *own, options, "prefopt_round_options"));
    if (own->reward_scale < PREFOPT_REWARD_AS_IS || own->reward_scale > PREFOPT_REWARD_RUNNING)
        return pf_fail(PREFOPT_ERR_ARGUMENT,
                       "reward_scale is %d, expected a prefopt_reward_scale, 0 to 2",
                       own->reward_scale);
    PF_TRY(at_least("prompts", own->prompts, 0));
    PF_TRY(at_least("steps", own->steps, 1));
    PF_TRY(at_least("refresh", own->refresh, 0));
    PF_TRY(not_negative("missing_end_penalty", own->missing_end_penalty));
    return not_negative("reward_clip", own->reward_clip);
}
