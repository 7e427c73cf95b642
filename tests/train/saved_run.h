/* A run to be saved, and a new folder for each test. Define _GNU_SOURCE before it. */
#ifndef SAVED_RUN_H
#define SAVED_RUN_H

#include "every_objective.h"
#include "saved_test.h"

static char base[PATH_ROOM];

static inline void new_base(void) { new_folder(base); }

static inline void remove_base(void) { remove_all(base); }

/* A trainer that has taken some steps, and all its bytes, by a save. */
typedef struct {
    prefopt_context *context;
    setting s;
    prefopt_policy *policy;
    prefopt_train_options o;
    prefopt_trainer *trainer;
} one;

static inline one one_new(prefopt_context *context)
{
    one x = {.context = context, .s = setting_new(context), .o = train_defaults()};
    x.o.batch = 3;
    x.policy = tabular_policy(&x.s.w);
    randomise(x.policy, 3, 0.5);
    OK(make_dpo(&x.trainer, &x.s, x.policy, &x.o));
    return x;
}

static inline void one_free(one *x)
{
    prefopt_trainer_destroy(x->trainer);
    prefopt_policy_destroy(x->policy);
    setting_free(&x->s);
}

#endif
