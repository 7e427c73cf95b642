/* prefopt/train.h: trainers: one loop, one objective each.
 *
 *     prefopt_trainer *trainer;
 *     prefopt_trainer_create_dpo(&trainer, policy, reference, pairs, &dpo, &train);
 *     prefopt_trainer_fit(trainer, NULL);              the exact optimum, or
 *     prefopt_trainer_run(trainer, 1000, &progress);   1,000 optimiser steps
 *     prefopt_trainer_destroy(trainer);
 *
 * A trainer keeps the models it was made with and writes the parameters and gradients of the one it
 * trains. Of the data it keeps a copy, each distinct sequence once, so that the dataset may change
 * or go; a model scores each distinct sequence of a batch once, however many rows it is in. The
 * trainer itself allocates nothing from step to step (models, samplers and rankers may).
 *
 * Where a policy (or the reward on it) keeps what its backward pass needs within the context's byte
 * budget, and that is less than a batch, a step goes through the batch in parts of whole rows and
 * takes their weighted mean: the same step but for rounding.
 *
 * A trainer must be used by one thread at a time, and its model by nothing else meanwhile. What it
 * computes depends on data, options and its number of steps alone: run(10) twice is run(20), bit
 * for bit, with any number of threads.
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

/* ADAMW: arXiv 1711.05101. SGD: v = momentum v + gradient, parameter -= rate v. In both the
 * parameters first shrink by 1 - rate * weight_decay. Parameters that are not finite (a tabular
 * policy's logits of -INFINITY) stay as they are. */
enum prefopt_optimiser { PREFOPT_ADAMW = 0, PREFOPT_SGD = 1 };

/* After the warm-up, with u = min(1, steps since it / schedule_steps): learning_rate times 1;
 * final_fraction + (1 - final_fraction) (1 - u); the same with (1 + cos(pi u)) / 2 for 1 - u. */
enum prefopt_schedule { PREFOPT_CONSTANT = 0, PREFOPT_LINEAR = 1, PREFOPT_COSINE = 2 };

/* Where a run stands, given to the callback and by prefopt_trainer_run. A number that the objective
 * does not have is NaN. */
typedef struct prefopt_progress {
    uint32_t struct_size, reserved;
    int64_t step, n_steps; /* steps done of those that run was asked for; of a fit: iterations and
                              max_iterations */
    double loss;           /* of the last batch before its step, ridges included */
    double accuracy; /* share of weight whose chosen score is above the rejected one (rankings:
                        of neighbours); scores are rewards, or log-ratios to the reference */
    double margin;   /* mean difference of those scores, log-ratios (without a reference: log-
                        probabilities) times beta; nats */
    double kl;     /* KL(policy || reference), nats: soft RL exactly, policy gradient as estimated;
                      online DPO: mean of log pi - log pi_ref over the completions of the round's
                      pairs under the policy that drew them: a guide, as pairs are chosen among
                      the draws */
    double reward; /* mean reward: soft RL exactly, policy gradient and online DPO of the round's
                      samples, as learnt from: penalty, scale and clip (prefopt_round_options)
                      included */
    double grad_norm;        /* before clipping; NaN when nothing was learnt from the batch */
    double learning_rate;    /* of that step */
    double steps_per_second; /* since run was called */
    double seconds_left;     /* at that rate */
    double chosen_score, rejected_score; /* the means whose difference margin is */
    double chosen_logp, rejected_logp;   /* policies on pairs and rankings: mean log-probabilities
                                            of those sequences, nats */
    int64_t tokens; /* of the distinct sequences of that batch, prompts included; sampled
                       objectives: of all samples of the round */
    double eval_loss, eval_accuracy, eval_margin; /* of the last evaluation of held-out data */
    double best_eval_loss;                        /* the least so far */
    int64_t eval_step, best_step; /* steps taken before those, since the trainer was made; -1: none
                                     yet */
    int32_t stopped_early;        /* 1: patience is out; that is why run stops */
    uint32_t reserved2;
    /* Of the objectives that sample; of others -1 and NaN, seconds_training apart. */
    int64_t round; /* of this step, from 0 */
    int64_t pairs; /* online DPO: of the round; this and the next two as in prefopt_rank_counts */
    int64_t ties, duplicates;
    double ended; /* share of the round's completions that end with eos or a stop token; NaN where
                     nothing ends one */
    double score_mean, score_sd; /* of the round's scores as the reward model gave them (divisor
                                    n - 1; 0 for one) */
    double clip_fraction; /* policy gradient with a clip: share of the step's samples whose gradient
                             it took away */
    /* Since run was called: drawing; reward, ranking and reference; all else of the steps. */
    double seconds_sampling, seconds_scoring, seconds_training;
} prefopt_progress;

/* Called on the thread that called run or fit. Return 0 to go on, anything else to stop: the call
 * then returns PREFOPT_STOPPED, with everything in the state after `step` steps. */
typedef int32_t (*prefopt_progress_fn)(void *payload, const prefopt_progress *progress);

/* Ranks: `size` processes (or threads), on one machine or several, that train one model together.
 * Each makes the same models and the same trainer of the same data, with the same options, and
 * calls run with the same n_steps. A step's batch is cut into `size` runs of rows as equal as can
 * be (some may be empty); each rank evaluates its own, in parts where the model keeps less, and
 * gradients and statistics are summed by weight: the step of one process with the whole batch, but
 * for rounding. Objectives that sample draw and score a round's prompts in the same manner, each
 * rank its part, and hand the samples to all: they are those of one process. Held-out rows and what
 * a reference is asked are shared too (a reference without a hash is asked by each rank for all).
 * All ranks take the step, and so have the same parameters, bit for bit (on processors of one
 * kind), from the first run on, which begins with rank 0's; what an evaluation finds, and so
 * patience and the best parameters, is the same bits on all. A rank that fails makes all ranks fail
 * with its code and a text that names it, and none takes the step; a rank whose callback stops
 * stops all.
 *
 * run, prefopt_trainer_create_dpo, prefopt_trainer_set_evaluation and prefopt_collective_annotate
 * are calls of all ranks together, in the same order; nothing else calls the callbacks. NULL where
 * a pointer is expected, or a collective that is refused, fails on its rank alone, before the
 * others are met. The callbacks are called on the calling thread and return when their result is
 * there; anything but PREFOPT_OK becomes CALLBACK. prefopt/mpi.h makes them from an MPI
 * communicator. */
typedef struct prefopt_collective {
    uint32_t struct_size, reserved;
    int64_t rank, size; /* 0 <= rank < size; with size 1 nothing is called */
    void *payload;
    /* values[i] becomes the sum of the ranks' values[i], the same bits on every rank. */
    int32_t (*sum_f32)(void *payload, float *values, int64_t n);
    int32_t (*sum_f64)(void *payload, double *values, int64_t n);
    /* bytes become those of rank `root`. */
    int32_t (*broadcast)(void *payload, void *bytes, int64_t n_bytes, int64_t root);
} prefopt_collective;

/* What has no use where it stands (momentum with ADAMW, tolerance without a fit, score_ridge where
 * there are no scores of pairs or rankings) is ARGUMENT. */
typedef struct prefopt_train_options {
    uint32_t struct_size;
    int32_t optimiser;      /* prefopt_optimiser; default ADAMW */
    int32_t schedule;       /* prefopt_schedule; default CONSTANT */
    int32_t decay_vectors;  /* a transformer's norms and biases, which are one-dimensional tensors:
                               0 (default): weight decay leaves them as they are; 1: they decay
                               too (other models, or weight_decay 0: ARGUMENT) */
    double learning_rate;   /* > 0; default 1e-2 */
    double final_fraction;  /* LINEAR, COSINE: in [0, 1]; default 0 */
    int64_t warmup_steps;   /* the i-th, from 1, takes i / warmup_steps of the rate; default 0 */
    int64_t schedule_steps; /* LINEAR, COSINE: >= 1; CONSTANT: 0 (default) */
    double beta1, beta2;    /* ADAMW: in [0, 1); default 0.9, 0.999 */
    double epsilon;         /* ADAMW: > 0; default 1e-8 */
    double momentum;        /* SGD: in [0, 1); default 0 */
    double weight_decay;    /* >= 0; default 0; see decay_vectors */
    double clip_norm;       /* the gradient is scaled down to this norm; default 0: off */
    int64_t batch; /* rows (prompts) a step; default 0, or as many as there are: all, in order. Else
                      step s takes rows s * batch ... of an endless run of epochs, each in an order
                      of its own: every row once an epoch, every batch of the same size */
    uint64_t seed; /* of those orders; no use, but no error, where there are none */
    double ridge;  /* adds 1/2 ridge * |parameters|^2 / (sum of all rows' weights); a tie parameter
                      is left out; default 0 */
    double score_ridge;     /* reward and DPO trainers with batch 0: adds 1/2 score_ridge * sum of
                               (score - mean of its prompt)^2 / (sum of weights) over the distinct
                               sequences of the data, scores being rewards or beta times
                               log-ratios: a prior that every class of models can carry; default
                               0 */
    double tolerance;       /* fit: norm of the gradient; > 0; default 1e-10 */
    int64_t max_iterations; /* fit: >= 1; default 10,000 */
    prefopt_progress_fn progress; /* may be NULL (default) */
    void *progress_payload;
    int64_t progress_every; /* steps (iterations) between its calls, the last step always; default
                               1 */
    int64_t micro_batch; /* rows that are scored at once at most: a step goes through its batch in
                            parts of so many and takes their weighted mean, the same step but for
                            rounding; default 0: as many as the model keeps. Where the loss is no
                            mean over rows (AOT, score_ridge): ARGUMENT */
    const prefopt_collective *collective; /* copied; NULL (default): this process alone. Not with
                                             losses that are no means over rows (AOT, score_ridge:
                                             UNSUPPORTED); no fit; prefopt_trainer_loss is each
                                             rank's own, of the whole data */
} prefopt_train_options;

/* Fills options with the defaults. Errors: ARGUMENT (NULL), VERSION. Thread-safe. Since 0.1. */
PREFOPT_API int32_t prefopt_train_options_init(prefopt_train_options *options,
                                               uint32_t struct_size);

/* prefopt_reference_annotate by all ranks of a collective together, each on its own copy of the
 * same dataset: each scores its part of the sequences, and all get all numbers and keys, those of
 * one process. What is scored is what rank 0's keys leave out; its numbers are taken for the rest.
 * With collective NULL, or of one rank, it is prefopt_reference_annotate. progress is called by
 * each rank as if its part were all; when one stops, all do, and rows that are done keep their
 * numbers. Errors: as there; ARGUMENT (collective), STATE (the ranks' data or references differ),
 * CALLBACK; on all ranks, and the dataset is as before. Since 0.1. */
PREFOPT_API int32_t prefopt_collective_annotate(const prefopt_collective *collective,
                                                const prefopt_reference *reference,
                                                prefopt_dataset *dataset,
                                                prefopt_annotate_fn progress, void *payload);

/* ---- the objectives. Each creates a trainer that the caller owns; its options may be NULL.
 * Errors of all: ARGUMENT (NULL, an option; a row of the wrong kind is named; no rows, or none with
 * weight), NUMERIC (an option of a sampler or ranker is NaN; a reference's or reward's number),
 * UNSUPPORTED (the model has no backward), MEMORY, CALLBACK, VERSION; those of the models at
 * training are at fit and run. Since 0.1. */

/* Maximum likelihood: -sum_i w_i mean_j log pi(y_ij | x_i) / sum_i w_i over COMPLETIONS rows: the
 * forward KL from the data, but for the data's entropy (lecture 22.2). */
PREFOPT_API int32_t prefopt_trainer_create_mle(prefopt_trainer **out, prefopt_policy *policy,
                                               const prefopt_dataset *data,
                                               const prefopt_train_options *options);

/* Reward model: Bradley-Terry on PAIR rows (prefopt_loss_bradley_terry), or Plackett-Luce on
 * RANKING rows (prefopt_loss_plackett_luce; neither tie_model nor centre); not both in one dataset.
 * bt may be NULL. With a tie model the tie parameter is trained too, starting at bt->log_tie
 * (RAO_KUPPER: at 0.5 when that is 0, where ties would have probability 0). On an implicit reward
 * this is DPO. */
PREFOPT_API int32_t prefopt_trainer_create_reward(prefopt_trainer **out, prefopt_reward *reward,
                                                  const prefopt_dataset *data,
                                                  const prefopt_bt_options *bt,
                                                  const prefopt_train_options *options);

/* The DPO family on PAIR rows (prefopt_loss_dpo), or DPO's own loss on RANKING rows
 * (prefopt_loss_plackett_luce with beta; variant SIGMOID alone). dpo may be NULL. reference: NULL
 * for SIMPO, CPO and ORPO, and for them alone. Reference log-probabilities are computed once, here;
 * the reference is not kept. Rows with a ref_key (prefopt_reference_annotate) are not scored again:
 * their ref_logp is taken, and where the key does not fit this reference and these tokens, or the
 * reference has no hash, it is STATE and names the row. With options->collective a call of all
 * ranks, which share that work: all succeed or none; STATE when their data or references differ. */
PREFOPT_API int32_t prefopt_trainer_create_dpo(prefopt_trainer **out, prefopt_policy *policy,
                                               const prefopt_reference *reference,
                                               const prefopt_dataset *data,
                                               const prefopt_dpo_options *dpo,
                                               const prefopt_train_options *options);

/* What becomes of a reward before the policy gradient learns from it. */
enum prefopt_reward_scale {
    PREFOPT_REWARD_AS_IS = 0,
    PREFOPT_REWARD_STANDARDISE = 1, /* (r - mean) / sd over the round's samples */
    PREFOPT_REWARD_RUNNING = 2 /* (r - mean) / sd over the samples of all rounds so far, this one
                                  included (Welford 1962) */
};

/* Rounds of the objectives that sample. A round draws sampler->n completions for `prompts` prompts,
 * scores them, and takes `steps` optimiser steps on what it drew; sampler->round counts on with the
 * rounds. Steps so many that the run ends within the first round are the lecture's one round
 * (22.5); one step a round is on-policy.
 *
 * With steps 1 the step is on all the round's samples. With more, each takes train.batch of the
 * round's rows (online DPO: pairs; policy gradient: prompts with all their samples; 0: all), in
 * shuffled epochs of the round's own; the steps of online DPO's first round are those of
 * prefopt_trainer_create_dpo on its pairs with the same train options, bit for bit.
 *
 * What is done to a score r, in this order: missing_end_penalty is subtracted where the completion
 * does not end with eos or a stop token; reward_scale; reward_clip. (Ouyang et al., arXiv
 * 2203.02155, and Huang et al., arXiv 2403.17031, section 3, for penalty and normalisation.) The KL
 * in the reward comes after: beta is in units of the scaled reward. sd has the divisor n - 1; where
 * it is 0, or of one sample, the scaled reward is 0. */
typedef struct prefopt_round_options {
    uint32_t struct_size;
    int32_t reward_scale; /* prefopt_reward_scale; policy gradient alone; default AS_IS */
    int64_t prompts; /* drawn for a round; default 0: train.batch. With steps 1 it takes the place
                        of train.batch, which must be 0 or the same */
    int64_t steps;   /* optimiser steps a round, >= 1; default 1 */
    int64_t refresh; /* rounds after which the reference becomes the policy as it then is; default
                        0: never. Needs a policy that prefopt_reference_freeze takes */
    double missing_end_penalty; /* >= 0, finite; needs an eos or a stop token; default 0 */
    double reward_clip; /* policy gradient alone: |reward| at most this; >= 0, finite; default 0:
                           off */
} prefopt_round_options;

/* Fills options with the defaults. Errors: ARGUMENT (NULL), VERSION. Thread-safe. Since 0.1. */
PREFOPT_API int32_t prefopt_round_options_init(prefopt_round_options *options,
                                               uint32_t struct_size);

/* KL-regularised policy gradient with samples: each round draws sampler->n completions for some
 * prompts (rows of any kind, of weight 1), scores them, and takes steps of
 * prefopt_loss_policy_gradient; advantages are computed once a round, over each prompt's samples.
 * reference may be NULL when pg->beta is 0; pg, sampler and rounds may be NULL.
 *
 * With one step a round the samples are the policy's own, the ratio is 1, and a clip is ARGUMENT.
 * With more, the policy is scored again at each step and old_logp is what the samples were drawn
 * from (PPO, arXiv 1707.06347); another temperature, top_k, top_p or min_p makes that so from the
 * first step (tokens that truncation leaves out stay unseen). Without a clip the expected gradient
 * is that of -J whatever the KL's place and estimator (baseline MEAN: times (n-1)/n), but that KL
 * and baseline in the advantages are the sampling policy's: k2 in the loss has the KL's gradient
 * with the samples' weights held fixed, which is k3's. run alone. */
PREFOPT_API int32_t prefopt_trainer_create_policy_gradient(
    prefopt_trainer **out, prefopt_policy *policy, prefopt_reference *reference,
    prefopt_reward *reward, const prefopt_dataset *prompts, const prefopt_pg_options *pg,
    const prefopt_sampler_options *sampler, const prefopt_round_options *rounds,
    const prefopt_train_options *options);

/* The same objective with every expectation enumerated: minimises
 * -J(pi) = -E_pi[r] + beta KL(pi || pi_ref), averaged over the prompt rows by weight. Completions
 * are listed, scored and given their reference log-probabilities once, here; reward and reference
 * are not kept. beta >= 0; reference may be NULL when it is 0. A completion to which the policy
 * gives probability and the reference none makes the KL infinite: NUMERIC in run and loss, which
 * names it. */
PREFOPT_API int32_t prefopt_trainer_create_soft_rl(prefopt_trainer **out, prefopt_policy *policy,
                                                   prefopt_reference *reference,
                                                   prefopt_reward *reward,
                                                   const prefopt_dataset *prompts, double beta,
                                                   const prefopt_train_options *options);

/* Online DPO (lecture 22.5): each round samples (as the policy gradient does; sampler->n >= 2 and
 * temperature > 0), makes pairs by prefopt_rank, and takes steps of DPO on them; with one step a
 * round, on all of them. The steps of a round whose samples give no pair are counted and change
 * nothing. reference as in prefopt_trainer_create_dpo; dpo, sampler, ranker and rounds may be NULL.
 * With soft labels and soft_scale 1 the optimum is that of J; hard labels have no finite one. run
 * alone. */
PREFOPT_API int32_t prefopt_trainer_create_online_dpo(
    prefopt_trainer **out, prefopt_policy *policy, prefopt_reference *reference,
    prefopt_reward *reward, const prefopt_dataset *prompts, const prefopt_dpo_options *dpo,
    const prefopt_sampler_options *sampler, const prefopt_ranker_options *ranker,
    const prefopt_round_options *rounds, const prefopt_train_options *options);

/* NULL is fine. Since 0.1. */
PREFOPT_API void prefopt_trainer_destroy(prefopt_trainer *trainer);

/* Takes n_steps optimiser steps (>= 0). last: the progress after the last of them, or NULL.
 * PREFOPT_STOPPED when the callback asked to or patience is out (prefopt_trainer_set_evaluation);
 * last is then written too.
 *
 * Errors: ARGUMENT (also a sequence that the model does not know: its row is named), NUMERIC (loss
 * or gradient is not finite, or a parameter would not be after the step: step and row are named,
 * parameters and the optimiser's state are those before the step; or a held-out row's loss is not:
 * the step before is taken then), STATE (the ranks of a collective differ: says in what), CALLBACK,
 * MEMORY, VERSION. Since 0.1. */
PREFOPT_API int32_t prefopt_trainer_run(prefopt_trainer *trainer, int64_t n_steps,
                                        prefopt_progress *last);

/* Steps taken since the trainer was made, over all runs. Errors: ARGUMENT. Since 0.1. */
PREFOPT_API int32_t prefopt_trainer_step(const prefopt_trainer *trainer, int64_t *step);

/* Evaluation while training goes on. */
typedef struct prefopt_evaluation_options {
    uint32_t struct_size;
    int32_t keep_best; /* 1 (default): a copy of the parameters is kept at the least loss so far */
    int64_t every;     /* steps; >= 1; default 100 */
    int64_t patience;  /* run stops when that many evaluations in turn did not bring the loss more
                          than min_delta below the last that did; default 0: never */
    double min_delta;  /* >= 0, nats; default 0 */
} prefopt_evaluation_options;

/* Fills options with the defaults. Errors: ARGUMENT (NULL), VERSION. Thread-safe. Since 0.1. */
PREFOPT_API int32_t prefopt_evaluation_options_init(prefopt_evaluation_options *options,
                                                    uint32_t struct_size);

/* From now on run evaluates held_out: the loss of the objective over all its rows by weight,
 * without ridges (with a tie parameter as it stands), and accuracy and margin as in training. It is
 * done before the first step, after each whose number since the trainer was made is a multiple of
 * options->every, and by a run of 0 steps wherever the trainer stands; the progress callback is
 * called then too (before the first step: with step 0). What is found depends on the parameters
 * alone. Patience counts all but those that a run of 0 steps asked for, so that training stops at
 * the same step however runs are cut. When it is out, run returns PREFOPT_STOPPED with
 * stopped_early = 1, and does so at once in further runs; set the evaluation anew to go on.
 *
 * held_out: rows of the kind that the trainer learns from, online DPO: PAIR rows; copied.
 * reference: as at create (it need not be the same); its log-probabilities are computed once, here;
 * it is not kept; NULL where there was none. options may be NULL. A second call takes the place of
 * the first, best parameters included. Each distinct sequence is scored once an evaluation, by
 * models with a byte budget within it. With a collective a call of all ranks, whose evaluations
 * take their parts of the rows: loss, accuracy and margin are those of one process but for
 * rounding.
 *
 * Errors: ARGUMENT (NULL, options, a row of another kind, which is named), UNSUPPORTED (policy
 * gradient, soft RL), STATE (a row's ref_key does not fit; ranks differ), NUMERIC (the reference),
 * MEMORY, CALLBACK, VERSION. Then the evaluation is as before. Since 0.1. */
PREFOPT_API int32_t prefopt_trainer_set_evaluation(prefopt_trainer *trainer,
                                                   const prefopt_dataset *held_out,
                                                   const prefopt_reference *reference,
                                                   const prefopt_evaluation_options *options);

/* Writes the parameters of the least held-out loss back to the model, and the tie parameter. Steps
 * taken and the optimiser's moments stay. Errors: ARGUMENT, STATE (no evaluation is set or none was
 * made yet, keep_best is 0), CALLBACK. Since 0.1. */
PREFOPT_API int32_t prefopt_trainer_restore_best(prefopt_trainer *trainer);

/* Goes to the optimum of the whole data from the parameters as they are: norm of the gradient at
 * most options.tolerance, then one Newton step more, which ends at rounding where there is
 * curvature. L-BFGS (liblbfgs, which takes about 45 numbers a parameter from malloc) and, since
 * line searches on losses stall near the root of rounding, truncated Newton on gradients.
 * Optimiser, rate and batch have no part. result: as in run, or NULL.
 *
 * Closed forms are used where they exist, for a tabular policy without ridge: maximum likelihood
 * gives the data's own distribution (exactly 0 where there are none), soft RL with beta > 0 gives
 * pi_ref exp(r / beta) / Z (exactly 0 where the reference is). Other soft RL is not convex: the fit
 * ends at a stationary point.
 *
 * Whether a finite optimum exists is decided before, unless a ridge makes it so, for tabular and
 * linear rewards, for tabular and log-linear policies and the rewards they carry, and for tie
 * parameters, with the losses that fall for ever as a pair's difference grows (Bradley-Terry,
 * Plackett-Luce; SIGMOID, DISCOPOP, CPO, ROBUST without smoothing; for tabular policies also
 * SIGMOID_NORM, SIMPO and ORPO). Tabular: the win graph of each prompt's sequences must be strongly
 * connected. Linear: differences of features must not be separable (Albert and Anderson 1984), up
 * to 1e-9 of their length. Otherwise UNBOUNDED names the sequences and the ways out.
 *
 * Errors: UNBOUNDED; UNSUPPORTED (sampled objectives, float parameters, several ranks, built
 * without liblbfgs); NUMERIC (also when the tolerance cannot be reached: the parameters are then
 * the best found); ARGUMENT, CALLBACK, MEMORY, VERSION. Since 0.1. */
PREFOPT_API int32_t prefopt_trainer_fit(prefopt_trainer *trainer, prefopt_progress *result);

/* Loss of the whole data at the parameters now, ridges included. Errors: as run, UNSUPPORTED for
 * the sampled objectives. Since 0.1. */
PREFOPT_API int32_t prefopt_trainer_loss(prefopt_trainer *trainer, double *loss);

/* ---- saving and going on (docs/checkpoints.md) */

typedef struct prefopt_save_options {
    uint32_t struct_size;
    int32_t keep_best; /* 1: the checkpoint of the step with the least held-out loss so far stays
                          too, if it was saved; needs an evaluation and keep > 0; default 0 */
    int64_t keep;      /* of this run's checkpoints in the directory the newest so many stay, the
                          others are removed; default 0: all stay */
} prefopt_save_options;

/* Fills options with the defaults. Errors: ARGUMENT (NULL), VERSION. Thread-safe. Since 0.1. */
PREFOPT_API int32_t prefopt_save_options_init(prefopt_save_options *options, uint32_t struct_size);

/* Saves all that the run depends on as the folder directory/step-000000123, named after the steps
 * taken: parameters, optimiser, step (which with the seed says which rows come next), a tie
 * parameter, the evaluation with the best parameters, and what the objective keeps from step to
 * step. Where the model is a transformer the folder is one that prefopt_policy_load or
 * prefopt_reward_load takes. The directory is made where it is not there (its parent must be).
 *
 * The folder appears whole or not at all, whenever the process ends: a run that was killed and goes
 * on by prefopt_trainer_restore has the same bits after each step as one that never was, given the
 * same build, machine, options and byte budget. When it fails, earlier checkpoints are as they were
 * and the trainer can go on. May be called between runs and from the progress callback. options:
 * NULL for the defaults. One save to a directory at a time. Folders of other runs, and what else is
 * in the directory, stay as they are.
 *
 * Errors: ARGUMENT, IO (names the file: disk full, no right to write), STATE (the step's folder is
 * there and is another run's, or none of a trainer's), MEMORY, UNSUPPORTED (built without JSON),
 * CALLBACK, VERSION. Since 0.1. */
PREFOPT_API int32_t prefopt_trainer_save(const prefopt_trainer *trainer, const char *directory,
                                         const prefopt_save_options *options);

/* Goes on from the newest checkpoint in the directory, or from the directory itself where it is
 * one: afterwards trainer and model are as they were when it was saved. The trainer must have been
 * made as the saved one was: with the same objective, options, data, evaluation and shape of model
 * (the parameters may be any; a reward model and a reference must be those of the start). progress,
 * tolerance and max_iterations may differ, and so may the number of threads; with another
 * micro_batch or collective it is the same run but for rounding.
 *
 * Errors: IO (there is none; a file cannot be read), FORMAT (a file is damaged, or of another
 * checkpoint: names file and field), STATE (the run is another: names the field and both values),
 * ARGUMENT, MEMORY, UNSUPPORTED (built without JSON), CALLBACK. On failure trainer and model are as
 * before. Since 0.1. */
PREFOPT_API int32_t prefopt_trainer_restore(prefopt_trainer *trainer, const char *directory);

/* The newest checkpoint of a trainer in the directory: *step is its step, or -1 when there is none
 * (or no such directory); path (capacity bytes) its folder, ended by a zero, "" when there is none.
 * path may be NULL when capacity is 0; *n_bytes: the room that the path needs, may be NULL. The
 * files of the checkpoint are not looked into.
 *
 * Errors: ARGUMENT (NULL, a capacity too small), IO (the directory cannot be listed). Thread-safe.
 * Since 0.1. */
PREFOPT_API int32_t prefopt_checkpoint_latest(const char *directory, int64_t *step, char *path,
                                              int64_t capacity, int64_t *n_bytes);

/* The tie parameter of a reward trainer as it stands. Errors: ARGUMENT, UNSUPPORTED (no tie model).
 * Since 0.1. */
PREFOPT_API int32_t prefopt_trainer_log_tie(const prefopt_trainer *trainer, double *log_tie);

#ifdef __cplusplus
}
#endif
#endif
