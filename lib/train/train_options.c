/* Options of the trainers: defaults and the check of every field. */
#include <math.h>

#include "train/pf_train.h"

const prefopt_train_options pf_train_defaults = {
    .struct_size = sizeof(prefopt_train_options),
    .optimiser = PREFOPT_ADAMW,
    .schedule = PREFOPT_CONSTANT,
    .learning_rate = 1e-2,
    .beta1 = 0.9,
    .beta2 = 0.999,
    .epsilon = 1e-8,
    .tolerance = 1e-10,
    .max_iterations = 10000,
    .progress_every = 1,
};

int32_t prefopt_train_options_init(prefopt_train_options *options, uint32_t struct_size)
{
    return pf_struct_init(options, struct_size, &pf_train_defaults, sizeof pf_train_defaults,
                          sizeof pf_train_defaults, "prefopt_train_options");
}

static int32_t unused(const char *field, double value, const char *why)
{
    return pf_fail(PREFOPT_ERR_ARGUMENT, "%s is %g, but %s", field, value, why);
}

/* value in [low, high], or in [low, high) or (low, high] where a bound is open; never NaN. */
static int32_t in_range(const char *field, double value, bool inside, const char *expected)
{
    if (inside)
        return PREFOPT_OK;
    return pf_fail(PREFOPT_ERR_ARGUMENT, "%s is %g, expected %s", field, value, expected);
}

static int32_t not_negative(const char *field, double value)
{
    return in_range(field, value, value >= 0 && isfinite(value), "a finite number >= 0");
}

static int32_t at_least(const char *field, int64_t value, int64_t low)
{
    if (value >= low)
        return PREFOPT_OK;
    return pf_fail(PREFOPT_ERR_ARGUMENT, "%s is %lld, expected at least %lld", field,
                   (long long)value, (long long)low);
}

static int32_t check_rate(const prefopt_train_options *o)
{
    PF_TRY(in_range("learning_rate", o->learning_rate,
                    o->learning_rate > 0 && isfinite(o->learning_rate), "a finite number > 0"));
    PF_TRY(at_least("warmup_steps", o->warmup_steps, 0));
    if (o->schedule < PREFOPT_CONSTANT || o->schedule > PREFOPT_COSINE)
        return pf_fail(PREFOPT_ERR_ARGUMENT, "schedule is %d, expected a prefopt_schedule, 0 to 2",
                       o->schedule);
    if (o->schedule == PREFOPT_CONSTANT) {
        if (o->final_fraction != 0)
            return unused("final_fraction", o->final_fraction, "the schedule is CONSTANT");
        if (o->schedule_steps != 0)
            return unused("schedule_steps", (double)o->schedule_steps, "the schedule is CONSTANT");
        return PREFOPT_OK;
    }
    PF_TRY(in_range("final_fraction", o->final_fraction,
                    o->final_fraction >= 0 && o->final_fraction <= 1, "0 to 1"));
    return at_least("schedule_steps", o->schedule_steps, 1);
}

static int32_t check_optimiser(const prefopt_train_options *o)
{
    const prefopt_train_options *d = &pf_train_defaults;
    if (o->optimiser == PREFOPT_ADAMW) {
        PF_TRY(in_range("beta1", o->beta1, o->beta1 >= 0 && o->beta1 < 1, "0 <= beta1 < 1"));
        PF_TRY(in_range("beta2", o->beta2, o->beta2 >= 0 && o->beta2 < 1, "0 <= beta2 < 1"));
        PF_TRY(in_range("epsilon", o->epsilon, o->epsilon > 0 && isfinite(o->epsilon),
                        "a finite number > 0"));
        return o->momentum == 0 ? PREFOPT_OK
                                : unused("momentum", o->momentum, "the optimiser is ADAMW");
    }
    if (o->optimiser != PREFOPT_SGD)
        return pf_fail(PREFOPT_ERR_ARGUMENT,
                       "optimiser is %d, expected PREFOPT_ADAMW (0) or PREFOPT_SGD (1)",
                       o->optimiser);
    if (o->beta1 != d->beta1)
        return unused("beta1", o->beta1, "the optimiser is SGD");
    if (o->beta2 != d->beta2)
        return unused("beta2", o->beta2, "the optimiser is SGD");
    if (o->epsilon != d->epsilon)
        return unused("epsilon", o->epsilon, "the optimiser is SGD");
    return in_range("momentum", o->momentum, o->momentum >= 0 && o->momentum < 1,
                    "0 <= momentum < 1");
}

int32_t pf_train_options_read(prefopt_train_options *own, const prefopt_train_options *options)
{
    *own = pf_train_defaults;
    if (options == NULL)
        return PREFOPT_OK;
    PF_TRY(pf_struct_read(own, sizeof *own, sizeof *own, options, "prefopt_train_options"));
    if (own->decay_vectors != 0 && own->decay_vectors != 1)
        return pf_fail(PREFOPT_ERR_ARGUMENT, "decay_vectors is %d, expected 0 or 1",
                       own->decay_vectors);
    if (own->decay_vectors == 1 && own->weight_decay == 0)
        return unused("decay_vectors", 1, "weight_decay is 0");
    PF_TRY(check_rate(own));
    PF_TRY(check_optimiser(own));
    PF_TRY(not_negative("weight_decay", own->weight_decay));
    PF_TRY(not_negative("clip_norm", own->clip_norm));
    PF_TRY(at_least("batch", own->batch, 0));
    PF_TRY(at_least("micro_batch", own->micro_batch, 0));
    PF_TRY(not_negative("ridge", own->ridge));
    PF_TRY(not_negative("score_ridge", own->score_ridge));
    PF_TRY(in_range("tolerance", own->tolerance, own->tolerance > 0 && isfinite(own->tolerance),
                    "a finite number > 0"));
    PF_TRY(at_least("max_iterations", own->max_iterations, 1));
    PF_TRY(at_least("progress_every", own->progress_every, 1));
    if (own->progress == NULL && own->progress_payload != NULL)
        return pf_fail(PREFOPT_ERR_ARGUMENT, "progress_payload is set without progress");
    if (own->progress == NULL && own->progress_every != pf_train_defaults.progress_every)
        return unused("progress_every", (double)own->progress_every, "progress is NULL");
    return PREFOPT_OK;
}
