/* What every arm of the gap study starts from: one SFT policy, pairs labelled by Bradley-Terry on
 * the true reward, and a reward model fitted to them. */
#ifndef EXAMPLE_GAP_MODELS_H
#define EXAMPLE_GAP_MODELS_H

#include "gap_measure.h"

typedef struct {
    double learning_rate, beta;
    int64_t steps;
} gap_setting;

typedef struct {
    int mask;                      /* the policy knows the legal tokens; else it has learnt them */
    int64_t n_pairs, n_held_pairs; /* offline pairs for training; half as many held-out ones
                                      for validation */
    int64_t n_prompts;             /* online: prompts of a round */
    int64_t sft_steps, reward_steps; /* reward_steps: at most */
    int64_t samples, fresh_samples;  /* completions a prompt, online: in one round, in each step */
    int64_t batch;                   /* pairs a step */
    int64_t held_prompts;            /* of the trees, at most */
    int64_t held_samples;            /* of each held-out prompt, where measures sample */
} gap_sizes;
void gap_sizes_init(gap_sizes *sizes, gap_kind kind);

typedef struct {
    gap_world world;
    gap_sizes sizes;
    gap_tree held, train; /* held-out prompts, half as many training ones; walks alone */
    prefopt_policy *sft;
    prefopt_reference *reference; /* sft */
    prefopt_reward *reward;
    prefopt_dataset *pairs;                   /* offline */
    prefopt_dataset *prompts;                 /* to sample for: as many, however few the pairs */
    prefopt_dataset *validation, *held_pairs; /* pairs of training prompts, of held-out ones */
    prefopt_policy *offline;                  /* what offline DPO ended with; NULL before */
} gap_models;

/* Makes the world and trains SFT and reward model; puts what can be said of them. */
void gap_models_create(gap_models *m, gap_kind kind, uint64_t seed, const gap_sizes *sizes,
                       gap_record *out);
void gap_models_destroy(gap_models *m);

prefopt_policy *gap_policy_create(const gap_models *m, uint64_t seed);
prefopt_policy *gap_policy_copy(const gap_models *m, prefopt_policy *from);
/* Pairs first .. first + n of a stream, both completions from the SFT policy. */
prefopt_dataset *gap_pairs(const gap_models *m, const prefopt_dataset *prompts, int64_t first,
                           int64_t n, uint64_t stream);
/* n_samples completions for each of m->prompts. */
prefopt_dataset *gap_samples(const gap_models *m, prefopt_policy *policy, int64_t n_samples,
                             uint64_t round);
/* AdamW as every trainer of the study has it. */
prefopt_train_options gap_train_options(const gap_models *m, double learning_rate);
/* Puts log-likelihood and accuracy on the held-out pairs and on those of validation. */
void gap_put_fit(const gap_models *m, prefopt_reward *reward, const char *name, gap_record *out);
/* Trains n_steps, every `every` of them asking how well the reward fits the validation pairs;
 * leaves parameters (the trained model's own) at the best of those steps. The trainer is given up.
 */
int64_t gap_train_to_best(const gap_models *m, prefopt_trainer *trainer, prefopt_reward *reward,
                          prefopt_parameters parameters, int64_t n_steps, int64_t every);

#endif
