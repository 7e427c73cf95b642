/* The learning rate of a step. */
#define _GNU_SOURCE /* M_PI */
#include <math.h>

#include "train/pf_train.h"

double pf_learning_rate(const prefopt_train_options *o, int64_t step)
{
    /* The first step of a warm-up takes 1/warmup_steps of the rate, its last step all of it. */
    if (step < o->warmup_steps)
        return o->learning_rate * (double)(step + 1) / (double)o->warmup_steps;
    if (o->schedule == PREFOPT_CONSTANT)
        return o->learning_rate;
    double done = (double)(step - o->warmup_steps) / (double)o->schedule_steps;
    if (done > 1)
        done = 1;
    double left = o->schedule == PREFOPT_LINEAR ? 1 - done : 0.5 * (1 + cos(M_PI * done));
    return o->learning_rate * (o->final_fraction + (1 - o->final_fraction) * left);
}
