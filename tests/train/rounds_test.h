/* What the tests of the rounds share: a small world with a random reference and rewards in (0, 1).
 */
#ifndef ROUNDS_TEST_H
#define ROUNDS_TEST_H

#include <stdbool.h>

#include "train_test.h"

typedef struct {
    world w;
    prefopt_reference *reference;
    prefopt_reward *reward;
    double *ref, *score; /* w.n */
} rounds_world;

static inline rounds_world rounds_world_new(prefopt_context *context, int64_t prompts,
                                            int64_t vocab, int64_t horizon, int32_t eos)
{
    rounds_world s = {.w = world_new(context, prompts, vocab, horizon, eos)};
    prefopt_policy *policy = tabular_policy(&s.w);
    randomise(policy, 5, 0.7);
    OK(prefopt_reference_freeze(&s.reference, policy));
    prefopt_policy_destroy(policy);
    s.reward = tabular_reward(&s.w, s.w.all);
    prefopt_parameters p = {.struct_size = sizeof p};
    OK(prefopt_reward_parameters(s.reward, &p));
    for (int64_t k = 0; k < p.n; k++)
        ((double *)p.value)[k] = uniform(6, (uint64_t)k);
    OK(prefopt_reward_updated(s.reward));
    s.ref = all_refs(&s.w, s.reference);
    s.score = all_scores(&s.w, s.reward);
    return s;
}

static inline void rounds_world_free(rounds_world *s)
{
    free(s->ref);
    free(s->score);
    prefopt_reference_destroy(s->reference);
    prefopt_reward_destroy(s->reward);
    world_free(&s->w);
}

/* Every option of a trainer that samples, at its default. */
typedef struct {
    prefopt_pg_options pg;
    prefopt_dpo_options dpo;
    prefopt_sampler_options sampler;
    prefopt_ranker_options ranker;
    prefopt_round_options rounds;
    prefopt_train_options train;
} sampled_options;

static inline sampled_options sampled_defaults(void)
{
    sampled_options o;
    OK(prefopt_pg_options_init(&o.pg, sizeof o.pg));
    OK(prefopt_dpo_options_init(&o.dpo, sizeof o.dpo));
    OK(prefopt_sampler_options_init(&o.sampler, sizeof o.sampler));
    OK(prefopt_ranker_options_init(&o.ranker, sizeof o.ranker));
    OK(prefopt_round_options_init(&o.rounds, sizeof o.rounds));
    o.train = train_defaults();
    return o;
}

static inline prefopt_trainer *online_of(const rounds_world *s, prefopt_policy *policy,
                                         const sampled_options *o)
{
    prefopt_trainer *trainer = NULL;
    OK(prefopt_trainer_create_online_dpo(&trainer, policy, s->reference, s->reward, s->w.prompts,
                                         &o->dpo, &o->sampler, &o->ranker, &o->rounds, &o->train));
    return trainer;
}

static inline prefopt_trainer *pg_of(const rounds_world *s, prefopt_policy *policy,
                                     const sampled_options *o)
{
    prefopt_trainer *trainer = NULL;
    OK(prefopt_trainer_create_policy_gradient(&trainer, policy, s->reference, s->reward,
                                              s->w.prompts, &o->pg, &o->sampler, &o->rounds,
                                              &o->train));
    return trainer;
}

/* n_steps steps of either objective from a start of their own; the parameters into value. */
static inline prefopt_progress run_sampled(const rounds_world *s, bool pg, const sampled_options *o,
                                           int64_t n_steps, double *value)
{
    prefopt_progress last = {.struct_size = sizeof last};
    prefopt_policy *policy = tabular_policy(&s->w);
    randomise(policy, 8, 0.5);
    prefopt_trainer *trainer = pg ? pg_of(s, policy, o) : online_of(s, policy, o);
    OK(prefopt_trainer_run(trainer, n_steps, &last));
    prefopt_parameters p = parameters_of(policy);
    memcpy(value, p.value, (size_t)p.n * sizeof *value);
    prefopt_trainer_destroy(trainer);
    prefopt_policy_destroy(policy);
    return last;
}

#endif
