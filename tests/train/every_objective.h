/* Small data for every objective, and a trainer of each. */
#ifndef PF_EVERY_OBJECTIVE_H
#define PF_EVERY_OBJECTIVE_H

#include <stdbool.h>

#include "train_test.h"

typedef struct {
    world w;
    prefopt_reference *reference;
    prefopt_reward *judge; /* of samples */
    prefopt_dataset *pairs, *margined, *rankings, *completions, *ties;
} setting;

static inline prefopt_dataset *with_margins(const world *w)
{
    prefopt_dataset *pairs;
    OK(prefopt_dataset_create(&pairs, w->context));
    for (int64_t i = 0; i < 8; i++)
        add_pair(w, pairs, i % w->n_prompts, i % 4, 5 + i % 3, i == 2 ? 0 : 1 + 0.1 * (double)i, 1,
                 0.1 * (double)(i % 3));
    return pairs;
}

static inline prefopt_dataset *ties_of(const world *w)
{
    static const double labels[] = {1, 0.5, 0, 1, 0.5, 1, 1};
    prefopt_dataset *pairs;
    OK(prefopt_dataset_create(&pairs, w->context));
    for (int64_t i = 0; i < 7; i++)
        add_pair(w, pairs, i % w->n_prompts, i, 8 - i / 2, 1 + 0.2 * (double)i, labels[i], 0);
    return pairs;
}

/* Rankings (kind RANKING) or demonstrations (COMPLETIONS) of different lengths. */
static inline prefopt_dataset *rows_of(const world *w, int32_t kind)
{
    prefopt_dataset *data;
    OK(prefopt_dataset_create(&data, w->context));
    for (int64_t i = 0; i < 7; i++) {
        prefopt_row row = {.struct_size = sizeof row};
        OK(prefopt_dataset_row(w->all, i % w->n_prompts, &row));
        row.kind = kind;
        row.weight = i == 3 ? 0 : 0.5 + uniform(9, (uint64_t)i);
        const int64_t *at = row.completion_offsets + i;
        int64_t offsets[5];
        row.n_completions = 2 + i % 3;
        for (int64_t j = 0; j <= row.n_completions; j++)
            offsets[j] = at[j] - at[0];
        row.completions += at[0];
        row.completion_offsets = offsets;
        OK(prefopt_dataset_append(data, &row));
    }
    return data;
}

static inline setting setting_new(prefopt_context *context)
{
    setting s = {.w = world_new(context, 3, 3, 2, -1)};
    randomise(s.w.policy, 5, 0.7);
    OK(prefopt_reference_freeze(&s.reference, s.w.policy));
    s.judge = tabular_reward(&s.w, s.w.all);
    prefopt_parameters p = {.struct_size = sizeof p};
    OK(prefopt_reward_parameters(s.judge, &p));
    for (int64_t k = 0; k < p.n; k++)
        ((double *)p.value)[k] = uniform(6, (uint64_t)k);
    OK(prefopt_reward_updated(s.judge));
    s.pairs = random_pairs(&s.w, 3, 4);
    s.margined = with_margins(&s.w);
    s.ties = ties_of(&s.w);
    s.rankings = rows_of(&s.w, PREFOPT_ROW_RANKING);
    s.completions = rows_of(&s.w, PREFOPT_ROW_COMPLETIONS);
    return s;
}

static inline void setting_free(setting *s)
{
    prefopt_dataset *const data[] = {s->pairs, s->margined, s->rankings, s->completions, s->ties};
    for (size_t i = 0; i < sizeof data / sizeof *data; i++)
        prefopt_dataset_destroy(data[i]);
    prefopt_reference_destroy(s->reference);
    prefopt_reward_destroy(s->judge);
    world_free(&s->w);
}

typedef int32_t make_fn(prefopt_trainer **out, const setting *s, prefopt_policy *policy,
                        const prefopt_train_options *o);

static inline prefopt_dpo_options dpo_of(int32_t variant)
{
    prefopt_dpo_options dpo;
    OK(prefopt_dpo_options_init(&dpo, sizeof dpo));
    dpo.variant = variant;
    return dpo;
}

static inline int32_t make_dpo(prefopt_trainer **out, const setting *s, prefopt_policy *policy,
                               const prefopt_train_options *o)
{
    return prefopt_trainer_create_dpo(out, policy, s->reference, s->pairs, NULL, o);
}

static inline int32_t make_margined(prefopt_trainer **out, const setting *s, prefopt_policy *policy,
                                    const prefopt_train_options *o)
{
    return prefopt_trainer_create_dpo(out, policy, s->reference, s->margined, NULL, o);
}

static inline int32_t make_simpo(prefopt_trainer **out, const setting *s, prefopt_policy *policy,
                                 const prefopt_train_options *o)
{
    prefopt_dpo_options dpo = dpo_of(PREFOPT_DPO_SIMPO);
    return prefopt_trainer_create_dpo(out, policy, NULL, s->pairs, &dpo, o);
}

static inline int32_t make_ranked_dpo(prefopt_trainer **out, const setting *s,
                                      prefopt_policy *policy, const prefopt_train_options *o)
{
    return prefopt_trainer_create_dpo(out, policy, s->reference, s->rankings, NULL, o);
}

static inline int32_t make_mle(prefopt_trainer **out, const setting *s, prefopt_policy *policy,
                               const prefopt_train_options *o)
{
    return prefopt_trainer_create_mle(out, policy, s->completions, o);
}

static inline int32_t make_soft_rl(prefopt_trainer **out, const setting *s, prefopt_policy *policy,
                                   const prefopt_train_options *o)
{
    return prefopt_trainer_create_soft_rl(out, policy, s->reference, s->judge, s->w.prompts, 0.3,
                                          o);
}

/* Bradley-Terry with ties on the policy's implicit reward. */
static inline int32_t make_reward(prefopt_trainer **out, const setting *s, prefopt_policy *policy,
                                  const prefopt_train_options *o)
{
    prefopt_reward *reward;
    prefopt_bt_options bt;
    OK(prefopt_bt_options_init(&bt, sizeof bt));
    bt.tie_model = PREFOPT_TIE_DAVIDSON;
    bt.centre = 0.1;
    OK(prefopt_reward_create_implicit(&reward, policy, s->reference, 0.5));
    int32_t status = prefopt_trainer_create_reward(out, reward, s->ties, &bt, o);
    prefopt_reward_destroy(reward);
    return status;
}

static inline int32_t make_ranked_reward(prefopt_trainer **out, const setting *s,
                                         prefopt_policy *policy, const prefopt_train_options *o)
{
    prefopt_reward *reward;
    OK(prefopt_reward_create_local(&reward, policy));
    int32_t status = prefopt_trainer_create_reward(out, reward, s->rankings, NULL, o);
    prefopt_reward_destroy(reward);
    return status;
}

static inline int32_t make_aot(prefopt_trainer **out, const setting *s, prefopt_policy *policy,
                               const prefopt_train_options *o)
{
    prefopt_dpo_options dpo = dpo_of(PREFOPT_DPO_AOT);
    prefopt_dataset *plain;
    OK(prefopt_dataset_create(&plain, s->w.context));
    for (int64_t i = 0; i < 8; i++)
        add_pair(&s->w, plain, i % s->w.n_prompts, i % 4, 5 + i % 3, 1, 1, 0);
    int32_t status = prefopt_trainer_create_dpo(out, policy, s->reference, plain, &dpo, o);
    prefopt_dataset_destroy(plain);
    return status;
}

static inline int32_t make_prior(prefopt_trainer **out, const setting *s, prefopt_policy *policy,
                                 const prefopt_train_options *o)
{
    prefopt_train_options own = *o;
    own.batch = 0;
    own.score_ridge = 0.4;
    return make_dpo(out, s, policy, &own);
}

static inline int32_t make_policy_gradient(prefopt_trainer **out, const setting *s,
                                           prefopt_policy *policy, const prefopt_train_options *o)
{
    prefopt_pg_options pg;
    prefopt_sampler_options sampler;
    OK(prefopt_pg_options_init(&pg, sizeof pg));
    OK(prefopt_sampler_options_init(&sampler, sizeof sampler));
    pg.baseline = PREFOPT_BASELINE_GROUP_NORM;
    pg.beta = 0.2;
    sampler.n = 4;
    prefopt_train_options own = *o;
    own.batch = o->batch > 0 ? 2 : 0;
    return prefopt_trainer_create_policy_gradient(out, policy, s->reference, s->judge, s->w.prompts,
                                                  &pg, &sampler, NULL, &own);
}

static inline int32_t make_online(prefopt_trainer **out, const setting *s, prefopt_policy *policy,
                                  const prefopt_train_options *o)
{
    prefopt_sampler_options sampler;
    OK(prefopt_sampler_options_init(&sampler, sizeof sampler));
    sampler.n = 6;
    prefopt_train_options own = *o;
    own.batch = o->batch > 0 ? 2 : 0;
    return prefopt_trainer_create_online_dpo(out, policy, s->reference, s->judge, s->w.prompts,
                                             NULL, &sampler, NULL, NULL, &own);
}

/* PPO with all that a round can carry from one to the next. */
static inline int32_t make_ppo(prefopt_trainer **out, const setting *s, prefopt_policy *policy,
                               const prefopt_train_options *o)
{
    prefopt_pg_options pg;
    prefopt_sampler_options sampler;
    prefopt_round_options rounds;
    OK(prefopt_pg_options_init(&pg, sizeof pg));
    OK(prefopt_sampler_options_init(&sampler, sizeof sampler));
    OK(prefopt_round_options_init(&rounds, sizeof rounds));
    sampler.n = 4;
    pg.beta = 0.2;
    pg.kl_placement = PREFOPT_KL_IN_LOSS;
    pg.clip_low = pg.clip_high = 0.1;
    rounds.steps = 3;
    rounds.prompts = 3;
    rounds.refresh = 1;
    rounds.reward_scale = PREFOPT_REWARD_RUNNING;
    rounds.reward_clip = 1.5;
    prefopt_train_options own = *o;
    own.batch = o->batch > 0 ? 2 : 0;
    return prefopt_trainer_create_policy_gradient(out, policy, s->reference, s->judge, s->w.prompts,
                                                  &pg, &sampler, &rounds, &own);
}

static inline int32_t make_rounds(prefopt_trainer **out, const setting *s, prefopt_policy *policy,
                                  const prefopt_train_options *o)
{
    prefopt_sampler_options sampler;
    prefopt_ranker_options ranker;
    prefopt_round_options rounds;
    OK(prefopt_sampler_options_init(&sampler, sizeof sampler));
    OK(prefopt_ranker_options_init(&ranker, sizeof ranker));
    OK(prefopt_round_options_init(&rounds, sizeof rounds));
    sampler.n = 6;
    ranker.rule = PREFOPT_PAIR_BEST_RANDOM;
    ranker.seed = 4;
    rounds.steps = 3;
    rounds.prompts = 3;
    rounds.refresh = 2;
    prefopt_train_options own = *o;
    own.batch = o->batch > 0 ? 2 : 0;
    return prefopt_trainer_create_online_dpo(out, policy, s->reference, s->judge, s->w.prompts,
                                             NULL, &sampler, &ranker, &rounds, &own);
}

/* by_rows: evaluated part by part, so that nothing is computed twice. */
static const struct {
    make_fn *make;
    const char *name;
    bool by_rows;
} objectives[] = {{make_dpo, "dpo", true},
                  {make_margined, "dpo with margins", true},
                  {make_simpo, "simpo", true},
                  {make_ranked_dpo, "dpo on rankings", true},
                  {make_mle, "mle", true},
                  {make_soft_rl, "soft rl", true},
                  {make_reward, "reward with ties", true},
                  {make_ranked_reward, "reward on rankings", true},
                  {make_aot, "aot", false},
                  {make_prior, "dpo with score_ridge", false},
                  {make_policy_gradient, "policy gradient", false},
                  {make_online, "online dpo", true},
                  {make_ppo, "ppo", true},
                  {make_rounds, "rounds of online dpo", true}};
enum { N_OBJECTIVES = sizeof objectives / sizeof *objectives };

/* The loss is a mean over rows. */
static inline bool is_shared(size_t objective)
{
    return objectives[objective].make != make_aot && objectives[objective].make != make_prior;
}

#endif
