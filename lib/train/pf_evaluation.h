/* Held-out data of a trainer: when it is looked at, and what is kept of it. */
#ifndef PF_EVALUATION_H
#define PF_EVALUATION_H

#include "train/pf_train.h"

typedef struct pf_measured {
    double loss, accuracy, margin; /* NaN: the objective has none, or nothing was measured */
} pf_measured;

typedef struct pf_evaluation {
    prefopt_context *context; /* borrowed */
    prefopt_evaluation_options options;
    prefopt_trainer *held_out; /* owned; it cannot step */
    pf_measured now;           /* the last evaluation */
    int64_t step;              /* its step; -1: none yet */
    pf_measured best;          /* the least loss */
    int64_t best_step;         /* -1: none yet */
    void *best_value;          /* its parameters, as slot 0 of the optimiser; NULL: not kept */
    double best_extra;
    double awaited; /* the loss that patience wants to see beaten by min_delta */
    int64_t waited; /* evaluations since it was set */
    int64_t stale;  /* 1: a fit has changed the parameters at that step */
} pf_evaluation;

void pf_evaluation_destroy(pf_evaluation *evaluation);

/* Of a trainer with or without evaluation: whether one is due where it stands (asked: whatever the
 * step's number), and whether patience is out. */
bool pf_evaluation_due(const prefopt_trainer *trainer, bool asked);
bool pf_evaluation_ended(const prefopt_trainer *trainer);
/* Of a trainer with or without evaluation: the parameters are others at the same step. */
void pf_evaluation_outdate(prefopt_trainer *trainer);
/* Evaluates; on failure nothing has changed. */
int32_t pf_evaluation_take(prefopt_trainer *trainer);
/* Writes the fields of the evaluation, where there is one. */
void pf_evaluation_tell(const prefopt_trainer *trainer, prefopt_progress *stats);

/* In checkpoints (evaluation_saved.c), with or without an evaluation. */
void pf_evaluation_describe(const prefopt_trainer *trainer, pf_describe *to);
int32_t pf_evaluation_save(const prefopt_trainer *trainer, pf_save *to);
/* read: what the trainer's evaluation is to become; best: its parameters in the file, or NULL. */
int32_t pf_evaluation_read(const prefopt_trainer *trainer, pf_saved *from, pf_evaluation *read,
                           const void **best);
void pf_evaluation_adopt(prefopt_trainer *trainer, const pf_evaluation *read, const void *best);

#endif
