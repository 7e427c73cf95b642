/* What the tests of the report room share: a small world with known numbers. */
#ifndef REPORT_TEST_H
#define REPORT_TEST_H

#include "pf_test.h"

/* Vocabulary 3, horizon 2, prompts {7} and {8, 9}: 9 completions each, token a, token b at place
 * 3 a + b. */
enum { WORLD_N = 9, WORLD_PROMPTS = 2 };

typedef struct {
    prefopt_context *context;
    prefopt_space space;
    prefopt_dataset *prompts; /* one PROMPT row each */
    prefopt_dataset *all;     /* enumerated */
    prefopt_sequences view;   /* of all */
    prefopt_policy *policy;   /* tabular, random logits */
    prefopt_reference *reference;
    prefopt_reward *reward;               /* tabular, random */
    double logp[WORLD_PROMPTS * WORLD_N]; /* of the three, in order */
    double ref_logp[WORLD_PROMPTS * WORLD_N];
    double score[WORLD_PROMPTS * WORLD_N];
} world;

static const int32_t world_prompt[WORLD_PROMPTS][2] = {{7, 0}, {8, 9}};

static inline prefopt_row world_row(int x)
{
    prefopt_row row;
    OK(prefopt_row_init(&row, sizeof row));
    row.prompt = world_prompt[x];
    row.prompt_len = x + 1;
    return row;
}

static inline void world_randomise(prefopt_policy *policy, uint64_t seed)
{
    prefopt_parameters p = {.struct_size = sizeof p};
    OK(prefopt_policy_parameters(policy, &p));
    OK(prefopt_random_normal(seed, 0, 0, p.n, p.value));
    OK(prefopt_policy_updated(policy));
}

static inline world world_create(prefopt_context *context)
{
    world w = {.context = context};
    w.space = (prefopt_space){.struct_size = sizeof w.space, .eos = -1, .vocab = 3, .horizon = 2};
    OK(prefopt_dataset_create(&w.prompts, context));
    for (int x = 0; x < WORLD_PROMPTS; x++) {
        prefopt_row row = world_row(x);
        OK(prefopt_dataset_append(w.prompts, &row));
    }
    prefopt_sequences prompts = {.struct_size = sizeof prompts};
    OK(prefopt_dataset_sequences(w.prompts, &prompts));
    OK(prefopt_policy_create_tabular(&w.policy, context, &w.space, &prompts));
    world_randomise(w.policy, 11);
    OK(prefopt_reference_freeze(&w.reference, w.policy));
    world_randomise(w.policy, 12);
    OK(prefopt_policy_enumerate(&w.all, w.policy, w.prompts, 0));
    w.view.struct_size = sizeof w.view;
    OK(prefopt_dataset_sequences(w.all, &w.view));
    OK(prefopt_reward_create_tabular(&w.reward, context, &w.view));
    prefopt_parameters p = {.struct_size = sizeof p};
    OK(prefopt_reward_parameters(w.reward, &p));
    OK(prefopt_random_normal(13, 0, 0, p.n, p.value));
    OK(prefopt_reward_updated(w.reward));
    OK(prefopt_policy_logprobs(w.policy, &w.view, w.logp, NULL));
    OK(prefopt_reference_logprobs(w.reference, &w.view, w.ref_logp));
    OK(prefopt_reward_scores(w.reward, &w.view, w.score));
    return w;
}

/* Writes the policy's log-probabilities and reads them back. */
static inline void world_set_policy(world *w, const double *logp)
{
    OK(prefopt_policy_set_logprobs(w->policy, &w->view, logp));
    OK(prefopt_policy_logprobs(w->policy, &w->view, w->logp, NULL));
}

static inline void world_destroy(world *w)
{
    prefopt_policy_destroy(w->policy);
    prefopt_reference_destroy(w->reference);
    prefopt_reward_destroy(w->reward);
    prefopt_dataset_destroy(w->all);
    prefopt_dataset_destroy(w->prompts);
}

/* Appends the pair of completions a and b (places among the 9) of prompt x. */
static inline void world_pair(prefopt_dataset *pairs, int x, int a, int b, double weight,
                              double label, double margin)
{
    const int32_t chosen[] = {a / 3, a % 3}, rejected[] = {b / 3, b % 3};
    OK(prefopt_dataset_append_pair(pairs, world_prompt[x], x + 1, chosen, 2, rejected, 2, weight,
                                   label, margin));
}

/* A few pairs: 3 of the second prompt first, then 2 of the first. */
static inline prefopt_dataset *world_pairs(const world *w)
{
    prefopt_dataset *pairs;
    OK(prefopt_dataset_create(&pairs, w->context));
    world_pair(pairs, 1, 0, 4, 1, 1, 0);
    world_pair(pairs, 1, 4, 8, 2, 0.75, 0);
    world_pair(pairs, 0, 1, 2, 0.5, 1, 0.25);
    world_pair(pairs, 1, 8, 0, 1, 0.25, 0);
    world_pair(pairs, 0, 2, 6, 1.5, 1, 0);
    return pairs;
}

/* A policy that answers with fixed next-token log-probabilities for a vocabulary of 3 at horizon 1;
 * payload: 3 log-probabilities. */
static inline int32_t three_logprobs(void *payload, const prefopt_sequences *in,
                                     double *sequence_logp, double *token_logp)
{
    for (int64_t i = 0; i < in->n; i++) {
        sequence_logp[i] = ((double *)payload)[in->tokens[in->offsets[i] + in->prompt_len[i]]];
        if (token_logp != NULL)
            token_logp[in->offsets[i] - in->offsets[0] + in->prompt_len[i]] = sequence_logp[i];
    }
    return 0;
}

#endif
