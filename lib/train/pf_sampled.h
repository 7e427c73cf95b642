/* Internal: what the objectives that sample at each step share. */
#ifndef PF_SAMPLED_H
#define PF_SAMPLED_H

#include "model/pf_reference.h"
#include "model/pf_reward.h"
#include "train/pf_train.h"

typedef struct pf_sampled {
    prefopt_dataset *prompts; /* a copy */
    prefopt_sampler_options sampler;
    int32_t *stop;                /* a copy of the sampler's stop tokens, or NULL */
    prefopt_reward *reward;       /* kept */
    prefopt_reference *reference; /* kept; may be NULL */
    /* Of the parameters of the two as they were handed over; 0 where they show none, and for the
     * reward on the very policy that is trained. */
    uint64_t reward_hash, reference_hash;
} pf_sampled;

/* Takes copies and references; on failure pf_sampled_clear gives back what was taken. */
int32_t pf_sampled_init(pf_sampled *sampled, prefopt_trainer *trainer, prefopt_reference *reference,
                        prefopt_reward *reward, const prefopt_dataset *prompts,
                        const prefopt_sampler_options *sampler);
void pf_sampled_describe(const pf_sampled *sampled, pf_describe *to);
void pf_sampled_clear(pf_sampled *sampled, prefopt_context *context);
/* Samples for the prompts of the trainer's batch; the round is sampler.round + the step. */
int32_t pf_sampled_draw(const pf_sampled *sampled, const prefopt_trainer *trainer,
                        prefopt_dataset **samples);
/* Tokens of all samples, prompts included. */
int64_t pf_sampled_tokens(const prefopt_dataset *samples);
/* Scores of all samples; failures name the row of the prompts. */
int32_t pf_sampled_rewards(const pf_sampled *sampled, const prefopt_trainer *trainer,
                           const prefopt_sequences *in, double *score);
/* Grows *array to n doubles; what it held is lost. */
int32_t pf_sampled_room(prefopt_context *context, double **array, int64_t *capacity, int64_t n);

/* Options of the DPO loss against the data they will meet (objective_dpo.c): ARGUMENT for what the
 * variant has no use for. */
int32_t pf_dpo_check(const prefopt_dpo_options *dpo, const prefopt_reference *reference,
                     bool weighted, bool labelled, bool margined);
/* A held-out trainer with that loss. On failure it may be there: the caller destroys it. */
int32_t pf_dpo_held_out(prefopt_trainer **out, const prefopt_trainer *trainer,
                        const prefopt_dpo_options *dpo, const prefopt_reference *reference,
                        const prefopt_dataset *data);
/* Pair arrays of what the variant takes. */
int32_t pf_dpo_pairs(pf_pair_batch *pairs, prefopt_context *context, int64_t capacity,
                     int32_t variant);

#endif
