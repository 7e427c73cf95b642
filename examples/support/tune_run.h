/* The run of a trainer in tune: progress, metrics, saving, stopping, and what is left at the end.
 */
#ifndef EXAMPLE_TUNE_RUN_H
#define EXAMPLE_TUNE_RUN_H

#include "language.h"
#include "metrics.h"
#include "tune_options.h"

typedef struct {
    const tune_options *o;
    language_model model;  /* what is trained */
    language_model reward; /* what scores samples; zeros where nothing does */
    prefopt_trainer *trainer;
    prefopt_dataset *data;
    int64_t rows;       /* of the data, before some were chosen */
    double mean_length; /* tokens of a completion: sft */
    double first_loss;  /* what the first step has to show; NaN: no telling */
    int first_margin;   /* 1: a margin (pg: a KL) of 0 too */
    /* its own */
    metrics *metrics;
    int64_t begun, step, steps; /* steps done before this process began, now, and in the end */
    double start, shown, tokens;
} tune_run;

/* The callback for prefopt_train_options.progress; its payload is the tune_run. */
int32_t tune_run_progress(void *payload, const prefopt_progress *progress);

/* Takes the steps that are left and writes the tuned checkpoint, or saves where the run was asked
 * to stop. The exit code of the program. */
int tune_run_steps(tune_run *r);

#endif
