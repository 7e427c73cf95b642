/* Held-out data and options that the tests of evaluation share. */
#ifndef EVALUATION_TEST_H
#define EVALUATION_TEST_H

#include "every_objective.h"

static inline prefopt_dataset *some_rows(const prefopt_dataset *data)
{
    static const int64_t rows[] = {6, 1, 3, 4, 1};
    prefopt_dataset *out;
    OK(prefopt_dataset_select(&out, data, rows, 5));
    return out;
}

static inline prefopt_dataset *plain_pairs(const world *w)
{
    prefopt_dataset *pairs;
    OK(prefopt_dataset_create(&pairs, w->context));
    for (int64_t i = 0; i < 5; i++)
        add_pair(w, pairs, (i + 1) % w->n_prompts, i, 8 - i % 3, 1, 1, 0);
    return pairs;
}

static inline prefopt_train_options quick(void)
{
    prefopt_train_options o = train_defaults();
    o.optimiser = PREFOPT_SGD;
    o.learning_rate = 0.5;
    o.ridge = 0.1;
    o.batch = 4;
    return o;
}

#endif
