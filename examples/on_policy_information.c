/* Lecture 22.5, hypothesis 1: sampling on-policy makes no information. With a reward class as rich
 * as the policies, online DPO, labelled by the reward that was learnt from the pairs, ends where
 * offline DPO on the same pairs ends. */
#include <math.h>

#include "support/cli.h"
#include "support/exact_world.h"
#include "support/intervals.h"

enum { N_SEEDS = 10, HORIZON = 2, N_PAIRS = 20000, STEPS = 1500 };

/* Total variation between two policies, the largest over the prompts. */
static double distance(const world *w, prefopt_policy *a, prefopt_policy *b)
{
    double *p = doubles(w->n_sequences), *q = doubles(w->n_sequences), worst = 0;
    CALL(prefopt_policy_logprobs(a, &w->sequences, p, NULL));
    CALL(prefopt_policy_logprobs(b, &w->sequences, q, NULL));
    for (int64_t x = 0; x < WORLD_PROMPTS; x++) {
        double sum = 0;
        for (int64_t i = x * w->n_each; i < (x + 1) * w->n_each; i++)
            sum += 0.5 * fabs(exp(p[i]) - exp(q[i]));
        worst = fmax(worst, sum);
    }
    free(p);
    free(q);
    return worst;
}

static prefopt_policy *offline(const world *w, const prefopt_dataset *pairs,
                               const prefopt_dpo_options *dpo)
{
    prefopt_policy *policy = world_policy(w);
    prefopt_trainer *trainer;
    CALL(prefopt_trainer_create_dpo(&trainer, policy, w->reference, pairs, dpo, NULL));
    CALL(prefopt_trainer_fit(trainer, NULL));
    prefopt_trainer_destroy(trainer);
    return policy;
}

static prefopt_policy *online(const world *w, const prefopt_dataset *pairs,
                              const prefopt_dpo_options *dpo)
{
    prefopt_policy *policy = world_policy(w);
    prefopt_reward *reward;
    prefopt_trainer *trainer;
    prefopt_sampler_options sampler;
    prefopt_ranker_options ranker;
    prefopt_train_options train;
    CALL(prefopt_reward_create_tabular(&reward, w->context, &w->sequences));
    CALL(prefopt_trainer_create_reward(&trainer, reward, pairs, NULL, NULL));
    CALL(prefopt_trainer_fit(trainer, NULL));
    prefopt_trainer_destroy(trainer);
    CALL(prefopt_sampler_options_init(&sampler, sizeof sampler));
    CALL(prefopt_ranker_options_init(&ranker, sizeof ranker));
    CALL(prefopt_train_options_init(&train, sizeof train));
    sampler.n = 8;
    sampler.seed = w->seed;
    ranker.soft_labels = 1;
    train.learning_rate = 0.05;
    train.schedule = PREFOPT_COSINE;
    train.schedule_steps = STEPS;
    CALL(prefopt_trainer_create_online_dpo(&trainer, policy, w->reference, reward, w->prompts, dpo,
                                           &sampler, &ranker, NULL, &train));
    CALL(prefopt_trainer_run(trainer, STEPS, NULL));
    prefopt_trainer_destroy(trainer);
    prefopt_reward_destroy(reward);
    return policy;
}

int main(void)
{
    double j[2][N_SEEDS], half[2], worst = 0;
    prefopt_dpo_options dpo;
    CALL(prefopt_dpo_options_init(&dpo, sizeof dpo));
    dpo.beta = 0.5;
    for (int seed = 0; seed < N_SEEDS; seed++) {
        world w;
        world_create(&w, 3000 + (uint64_t)seed, HORIZON, REWARD_FEATURES, 0, dpo.beta);
        prefopt_dataset *pairs = world_pairs(&w, 0, N_PAIRS);
        prefopt_policy *off = offline(&w, pairs, &dpo), *on = online(&w, pairs, &dpo);
        double tv = distance(&w, off, on);
        j[0][seed] = world_score(&w, off);
        j[1][seed] = world_score(&w, on);
        printf("seed %2d: total variation %.5f, J offline %.5f, online %.5f\n", seed, tv,
               j[0][seed], j[1][seed]);
        worst = fmax(worst, tv);
        prefopt_policy_destroy(off);
        prefopt_policy_destroy(on);
        prefopt_dataset_destroy(pairs);
        world_destroy(&w);
    }
    double off = mean_of(N_SEEDS, j[0], &half[0]), on = mean_of(N_SEEDS, j[1], &half[1]);
    printf("J (reference 0, best 1): offline %.5f +- %.5f, online %.5f +- %.5f; largest distance "
           "%.5f\n",
           off, half[0], on, half[1], worst);
    return worst < 0.01 && fabs(off - on) < half[0] && fabs(off - on) < half[1] ? 0 : 1;
}
