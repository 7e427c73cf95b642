/* Internal: what the objectives that sample share: prompts, rounds, rewards. */
#ifndef PF_SAMPLED_H
#define PF_SAMPLED_H

#include "model/pf_reference.h"
#include "model/pf_reward.h"
#include "train/pf_train.h"

/* ---- mean and spread of numbers as they come (round_rewards.c; Welford 1962) */
typedef struct pf_moments {
    int64_t n;
    double mean, square; /* square: the sum of (x - mean)^2 */
} pf_moments;

void pf_moments_add(pf_moments *moments, double x);
double pf_moments_sd(const pf_moments *moments); /* divisor n - 1; 0 where n < 2 */

/* ---- options (round_options.c) */

/* Reads the caller's options (NULL: defaults) and checks each alone. */
int32_t pf_round_options_read(prefopt_round_options *own, const prefopt_round_options *options);

/* What is made anew for each round. The rows are the trainer's own while the round is at hand. */
typedef struct pf_round {
    int64_t number;        /* -1: none */
    prefopt_dataset *data; /* what it learns from, all columns filled in; NULL: nothing */
    double *ref;           /* the rows' distinct sequences, or NULL */
    double *advantage;     /* policy gradient: of the data's sequences */
} pf_round;

/* ---- the rounds (rounds.c)
 *
 * The first member of the state of an objective that samples. While a round is at hand its rows,
 * their batches and parts are the trainer's own, as if the round's data had been given at create.
 */
typedef struct pf_sampled {
    prefopt_dataset *prompts; /* a copy */
    prefopt_sampler_options sampler;
    prefopt_round_options rounds;
    int32_t *stop;                /* a copy of the sampler's stop tokens, or NULL */
    prefopt_reward *reward;       /* kept */
    prefopt_reference *reference; /* kept, or a refreshed one; may be NULL */
    /* Of the parameters of the two as they were handed over; 0 where they show none, and for the
     * reward on the very policy that is trained. */
    uint64_t reward_hash, reference_hash;
    pf_batches draws;         /* which prompts a round samples: by its number */
    int32_t eos;              /* of the policy's space; -1: none */
    bool can_end;             /* something ends completions */
    pf_moments before, after; /* rewards of the rounds before the one at hand; with it */

    bool refreshed; /* the reference is no longer the one that was handed over */
    pf_round at;    /* the round at hand */

    /* The objective's. */
    /* May be NULL: the samples themselves. The dataset that the round learns from, perhaps empty,
     * of samples whose score column has the rewards; says in trainer->round what it counted. */
    int32_t (*select)(prefopt_trainer *trainer, const prefopt_dataset *samples, int64_t number,
                      prefopt_dataset **data);
    /* The round's rows are laid out, data and ref are there: makes room for its steps, and numbers
     * that all of them use. */
    int32_t (*prepare)(prefopt_trainer *trainer);
} pf_sampled;

/* Takes copies and references; on failure pf_sampled_clear gives back what was taken. */
int32_t pf_sampled_init(pf_sampled *sampled, prefopt_trainer *trainer, prefopt_reference *reference,
                        prefopt_reward *reward, const prefopt_dataset *prompts,
                        const prefopt_sampler_options *sampler,
                        const prefopt_round_options *rounds);
void pf_sampled_clear(pf_sampled *sampled, prefopt_context *context);
/* The objectives' begin: draws a round where one is due and takes the step's rows of it. A batch of
 * no rows when the round has none. */
int32_t pf_sampled_begin(prefopt_trainer *trainer);
/* The trainer's rows and what goes with them, of the round's data. */
int32_t pf_sampled_lay_out(prefopt_trainer *trainer);
/* Gives back the round at hand. */
void pf_sampled_forget(prefopt_trainer *trainer);
/* Grows *array to n doubles; what it held is lost. */
int32_t pf_sampled_room(prefopt_context *context, double **array, int64_t *capacity, int64_t n);

/* ---- a round's scores and rewards (round_rewards.c) */

/* Scores of all samples into their score column; equal sequences are scored once. Failures name the
 * row of the prompts, whose numbers are those of `prompts`, from `first` on. */
int32_t pf_sampled_score(const pf_sampled *sampled, const pf_batch *prompts, int64_t first,
                         prefopt_dataset *samples);

/* ---- on several ranks (rank_samples.c): *samples, of this rank's part of the prompts, n a row and
 * with scores, become those of all; they are taken where status is PREFOPT_OK. On failure of one
 * rank all fail, and there are none. */
int32_t pf_ranks_gather(prefopt_trainer *trainer, int32_t status, const prefopt_dataset *prompts,
                        int64_t n, prefopt_dataset **samples);
/* From the score column the round's facts and its rewards, which replace the scores: penalty,
 * scale, clip. *after: the moments of `before` with the round's. */
int32_t pf_sampled_rewards(const pf_sampled *sampled, const pf_moments *before,
                           prefopt_dataset *samples, pf_round_facts *facts, pf_moments *after);

/* ---- saving (rounds_saved.c): hooks of the objectives that sample */
void pf_sampled_describe(const pf_sampled *sampled, pf_describe *to);
int32_t pf_sampled_save(const prefopt_trainer *trainer, pf_save *to);
int32_t pf_sampled_restore(prefopt_trainer *trainer, const pf_saved *from);

/* ---- the DPO loss (objective_dpo.c) */

/* Options of the DPO loss against the data they will meet: ARGUMENT for what the variant has no use
 * for. */
int32_t pf_dpo_check(const prefopt_dpo_options *dpo, const prefopt_reference *reference,
                     bool weighted, bool labelled, bool margined);
/* A held-out trainer with that loss. On failure it may be there: the caller destroys it. */
int32_t pf_dpo_held_out(prefopt_trainer **out, const prefopt_trainer *trainer,
                        const prefopt_dpo_options *dpo, const prefopt_reference *reference,
                        const prefopt_dataset *data);
/* Pair arrays of what the variant takes. */
int32_t pf_dpo_pairs(pf_pair_batch *pairs, prefopt_context *context, int64_t capacity,
                     int32_t variant);
/* The loss of the trainer's batch of pairs from trainer->score, its gradient into
 * trainer->grad_score. ref: n_distinct, or NULL. */
int32_t pf_dpo_evaluate_pairs(prefopt_trainer *trainer, const prefopt_dpo_options *dpo,
                              pf_pair_batch *pairs, const double *ref, prefopt_progress *stats);
/* The loss is no mean over pairs. */
bool pf_dpo_is_coupled(int32_t variant);

#endif
