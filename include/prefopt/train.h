/* prefopt/train.h: trainers: one loop, one objective each.
 *
 *     prefopt_trainer *trainer;
 *     prefopt_trainer_create_dpo(&trainer, policy, reference, pairs, &dpo, &train);
 *     prefopt_trainer_fit(trainer, NULL);              the exact optimum, or
 *     prefopt_trainer_run(trainer, 1000, &progress);   1,000 optimiser steps
 *     prefopt_trainer_destroy(trainer);
 *
 * A trainer keeps the handles it was made with and writes the parameters of the policy (or reward
 * model) it trains. It must be used by one thread at a time.
 */
#ifndef PREFOPT_TRAIN_H
#define PREFOPT_TRAIN_H

#include "loss.h"
#include "online.h"
#include "strengths.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct prefopt_trainer prefopt_trainer;

enum prefopt_optimiser { PREFOPT_ADAMW = 0, PREFOPT_SGD = 1 };
enum prefopt_schedule { PREFOPT_CONSTANT = 0, PREFOPT_LINEAR = 1, PREFOPT_COSINE = 2 };

/* Where a run stands, given to the callback and by prefopt_trainer_run. A number that the objective
 * does not have is NaN. */
typedef struct prefopt_progress {
    uint32_t struct_size, reserved;
    int64_t step, n_steps; /* steps done of those that run was asked for */
    double loss;           /* of the last batch, before its step */
    double accuracy;       /* share of weight whose chosen score is above the rejected one */
    double margin;         /* mean difference of scores (rewards; beta times log-ratios for DPO) */
    double kl;             /* estimate of KL(policy || reference), where the objective has one */
    double reward;         /* mean reward of the samples, where the objective has them */
    double grad_norm;      /* before clipping */
    double learning_rate;
    double steps_per_second;
    double seconds_left;
} prefopt_progress;

/* Return 0 to go on, anything else to stop: the call then returns PREFOPT_STOPPED, with everything
 * in the state after `step` steps. */
typedef int32_t (*prefopt_progress_fn)(void *payload, const prefopt_progress *progress);

typedef struct prefopt_train_options {
    uint32_t struct_size;
    int32_t optimiser; /* default ADAMW */
    int32_t schedule;  /* after the warm-up, from learning_rate to final_fraction of it */
    int32_t reserved;
    double learning_rate;         /* default 1e-2 */
    double final_fraction;        /* LINEAR, COSINE: default 0 */
    int64_t warmup_steps;         /* linear from 0; default 0 */
    int64_t schedule_steps;       /* LINEAR, COSINE: length, >= 1; default 0: CONSTANT alone */
    double beta1, beta2, epsilon; /* ADAMW: 0.9, 0.999, 1e-8 */
    double momentum;              /* SGD: default 0 */
    double weight_decay;          /* decoupled; default 0 */
    double clip_norm;             /* global norm of the gradient; default 0: off */
    int64_t batch;                /* rows (prompts) a step; default 0: all */
    uint64_t seed;                /* order of the rows and draws */
    double ridge; /* adds 1/2 ridge * |parameters|^2 / (sum of weights) to the loss; default 0 */
    double score_ridge; /* likewise on the scores of the distinct sequences of each prompt around
                           their mean: a prior that any reward class can carry; default 0 */
    double tolerance;   /* fit: norm of the gradient; default 1e-10 */
    int64_t max_iterations;       /* fit: default 10,000 */
    prefopt_progress_fn progress; /* may be NULL */
    void *progress_payload;
    int64_t progress_every; /* steps; default 1 */
} prefopt_train_options;

/* Errors: ARGUMENT, VERSION. Since 0.1. */
PREFOPT_API int32_t prefopt_train_options_init(prefopt_train_options *options,
                                               uint32_t struct_size);

/* ---- the objectives. Each creates a trainer; options may be NULL.
 * Errors of all: ARGUMENT (a row of the wrong kind is named), UNSUPPORTED (no backward), MEMORY,
 * CALLBACK, VERSION; those of fit and run are at those calls. Since 0.1. */

/* Maximum likelihood: -sum_i w_i mean_j log pi(y_ij | x_i) / sum_i w_i over COMPLETIONS rows
 * (the forward KL, lecture 22.2). */
PREFOPT_API int32_t prefopt_trainer_create_mle(prefopt_trainer **out, prefopt_policy *policy,
                                               const prefopt_dataset *data,
                                               const prefopt_train_options *options);

/* Reward model: Bradley-Terry on PAIR rows (prefopt_loss_bradley_terry), Plackett-Luce on RANKING
 * rows (prefopt_loss_plackett_luce). With a tie model the tie parameter is fitted too, starting at
 * bt->log_tie. */
PREFOPT_API int32_t prefopt_trainer_create_reward(prefopt_trainer **out, prefopt_reward *reward,
                                                  const prefopt_dataset *data,
                                                  const prefopt_bt_options *bt,
                                                  const prefopt_train_options *options);

/* The DPO family on PAIR rows (prefopt_loss_dpo). reference may be NULL for the reference-free
 * variants alone. Reference log-probabilities are computed once, here. */
PREFOPT_API int32_t prefopt_trainer_create_dpo(prefopt_trainer **out, prefopt_policy *policy,
                                               const prefopt_reference *reference,
                                               const prefopt_dataset *data,
                                               const prefopt_dpo_options *dpo,
                                               const prefopt_train_options *options);

/* KL-regularised policy gradient with samples: each step draws `sampler->n` completions for a batch
 * of prompts (rows of any kind), scores them and takes prefopt_loss_policy_gradient's step. run
 * alone; fit is UNSUPPORTED. */
PREFOPT_API int32_t prefopt_trainer_create_policy_gradient(
    prefopt_trainer **out, prefopt_policy *policy, prefopt_reference *reference,
    prefopt_reward *reward, const prefopt_dataset *prompts, const prefopt_pg_options *pg,
    const prefopt_sampler_options *sampler, const prefopt_train_options *options);

/* The same objective with every expectation enumerated: minimises
 * -J(pi) = -E_pi[r] + beta KL(pi || pi_ref), averaged over the prompts. */
PREFOPT_API int32_t prefopt_trainer_create_soft_rl(prefopt_trainer **out, prefopt_policy *policy,
                                                   prefopt_reference *reference,
                                                   prefopt_reward *reward,
                                                   const prefopt_dataset *prompts, double beta,
                                                   const prefopt_train_options *options);

/* Online DPO (lecture 22.5): each step samples, ranks, and takes a DPO step on the new pairs. run
 * alone; fit is UNSUPPORTED. */
PREFOPT_API int32_t prefopt_trainer_create_online_dpo(
    prefopt_trainer **out, prefopt_policy *policy, prefopt_reference *reference,
    prefopt_reward *reward, const prefopt_dataset *prompts, const prefopt_dpo_options *dpo,
    const prefopt_sampler_options *sampler, const prefopt_ranker_options *ranker,
    const prefopt_train_options *options);

/* NULL is fine. Since 0.1. */
PREFOPT_API void prefopt_trainer_destroy(prefopt_trainer *trainer);

/* Takes n_steps optimiser steps. last may be NULL. PREFOPT_STOPPED when the callback asked to.
 * Errors: ARGUMENT, NUMERIC (loss or gradient is not finite: the step and row are named, the
 * parameters are those before the step), CALLBACK, MEMORY. Since 0.1. */
PREFOPT_API int32_t prefopt_trainer_run(prefopt_trainer *trainer, int64_t n_steps,
                                        prefopt_progress *last);

/* Goes to the optimum: norm of the gradient below options.tolerance. Whether a finite optimum
 * exists is decided before (reward on tabular and linear rewards, DPO on tabular policies) and
 * answered with UNBOUNDED naming the sequences. PREFOPT_ERR_NUMERIC when the tolerance cannot be
 * reached; the parameters are then the best found. result may be NULL. Errors: UNBOUNDED,
 * UNSUPPORTED, NUMERIC, CALLBACK, MEMORY. Since 0.1. */
PREFOPT_API int32_t prefopt_trainer_fit(prefopt_trainer *trainer, prefopt_progress *result);

/* Loss of the whole data at the parameters now. Errors: as run, UNSUPPORTED for the sampled
 * objectives. Since 0.1. */
PREFOPT_API int32_t prefopt_trainer_loss(prefopt_trainer *trainer, double *loss);

/* The tie parameter fitted by a reward trainer. Errors: ARGUMENT, UNSUPPORTED. Since 0.1. */
PREFOPT_API int32_t prefopt_trainer_log_tie(const prefopt_trainer *trainer, double *log_tie);

#ifdef __cplusplus
}
#endif
#endif
