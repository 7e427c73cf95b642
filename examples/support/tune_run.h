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
    prefopt_dataset *data, *held_out;                  /* NULL: nothing is held out */
    prefopt_reference *reference, *held_out_reference; /* NULL: none, or no answers are needed */
    int64_t rows;                                      /* of the data, before some were chosen */
    double mean_length, held_out_length;               /* tokens of a completion: sft; else 0 */
    int64_t prompt_length; /* sft: of every prompt, or -1 where they differ */
    double first_loss;     /* what the first step has to show; NaN: no telling */
    int first_margin;      /* 1: a margin (pg: a KL) of 0 too */
    /* its own */
    metrics *metrics;
    const char *checkpoints;    /* the folder of those to go on from */
    int64_t begun, step, steps; /* steps done before this process began, now, and in the end */
    int64_t save_every;
    double start, shown, tokens;
    prefopt_progress last; /* of the last step, whose line waits for a last evaluation */
} tune_run;

/* The callback for prefopt_train_options.progress; its payload is the tune_run. */
int32_t tune_run_progress(void *payload, const prefopt_progress *progress);

/* What --model says of the rows of *data, once and for all: it lies in the run's folder as `name`,
 * with whose numbers they are, and *data is replaced by what lies there. NULL where *data is. Asked
 * to stop meanwhile, the program keeps what it has and ends. */
prefopt_reference *tune_run_reference(tune_run *r, prefopt_dataset **data, const char *name);

/* Goes on from the newest checkpoint in the run's folder, if there is one, takes the steps that are
 * left and writes the tuned checkpoint; where the run is asked to stop it saves. The exit code of
 * the program. */
int tune_run_steps(tune_run *r);

#endif
