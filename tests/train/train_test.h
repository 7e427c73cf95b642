/* What the tests of the trainers share: a small world that can be enumerated, with comparisons. */
#ifndef TRAIN_TEST_H
#define TRAIN_TEST_H

#include "pf_test.h"

/* Prompts [90], [91] ...; every completion of the space for each; a tabular policy. */
typedef struct {
    prefopt_context *context;
    prefopt_space space;
    prefopt_dataset *prompts, *all; /* all: one COMPLETIONS row a prompt */
    prefopt_policy *policy;
    int64_t n_prompts, n; /* n: completions of all prompts */
} world;

static inline prefopt_policy *tabular_policy(const world *w)
{
    prefopt_sequences in = {.struct_size = sizeof in};
    prefopt_policy *policy = NULL;
    OK(prefopt_dataset_sequences(w->prompts, &in));
    OK(prefopt_policy_create_tabular(&policy, w->context, &w->space, &in));
    return policy;
}

static inline world world_new(prefopt_context *context, int64_t n_prompts, int64_t vocab,
                              int64_t horizon, int32_t eos)
{
    world w = {.context = context, .n_prompts = n_prompts};
    w.space = (prefopt_space){
        .struct_size = sizeof w.space, .eos = eos, .vocab = vocab, .horizon = horizon};
    OK(prefopt_dataset_create(&w.prompts, context));
    for (int64_t i = 0; i < n_prompts; i++) {
        prefopt_row row;
        int32_t prompt = 90 + (int32_t)i;
        OK(prefopt_row_init(&row, sizeof row));
        row.prompt = &prompt;
        row.prompt_len = 1;
        OK(prefopt_dataset_append(w.prompts, &row));
    }
    w.policy = tabular_policy(&w);
    OK(prefopt_policy_enumerate(&w.all, w.policy, w.prompts, 0));
    prefopt_columns columns = {.struct_size = sizeof columns};
    OK(prefopt_dataset_columns(w.all, &columns));
    w.n = columns.n_sequences;
    return w;
}

static inline void world_free(world *w)
{
    prefopt_policy_destroy(w->policy);
    prefopt_dataset_destroy(w->prompts);
    prefopt_dataset_destroy(w->all);
}

static inline prefopt_sequences sequences_of(const prefopt_dataset *data)
{
    prefopt_sequences in = {.struct_size = sizeof in};
    OK(prefopt_dataset_sequences(data, &in));
    return in;
}

static inline prefopt_columns columns_of(const prefopt_dataset *data)
{
    prefopt_columns columns = {.struct_size = sizeof columns};
    OK(prefopt_dataset_columns(data, &columns));
    return columns;
}

static inline double uniform(uint64_t seed, uint64_t index)
{
    double u;
    OK(prefopt_random_uniform(seed, 7, index, 1, &u));
    return u;
}

/* Parameters of a policy or reward, and fresh normal values for them. */
static inline prefopt_parameters parameters_of(prefopt_policy *policy)
{
    prefopt_parameters p = {.struct_size = sizeof p};
    OK(prefopt_policy_parameters(policy, &p));
    return p;
}

static inline void randomise(prefopt_policy *policy, uint64_t seed, double scale)
{
    prefopt_parameters p = parameters_of(policy);
    OK(prefopt_random_normal(seed, 0, 0, p.n, p.value));
    for (int64_t k = 0; k < p.n; k++)
        ((double *)p.value)[k] *= scale;
    OK(prefopt_policy_updated(policy));
}

/* Appends the pair of completions a and b (by place among row `prompt`'s completions). */
static inline void add_pair(const world *w, prefopt_dataset *pairs, int64_t prompt, int64_t a,
                            int64_t b, double weight, double label, double margin)
{
    prefopt_row row = {.struct_size = sizeof row};
    OK(prefopt_dataset_row(w->all, prompt, &row));
    const int64_t *at = row.completion_offsets;
    OK(prefopt_dataset_append_pair(pairs, row.prompt, row.prompt_len, row.completions + at[a],
                                   at[a + 1] - at[a], row.completions + at[b], at[b + 1] - at[b],
                                   weight, label, margin));
}

static inline int64_t completions_of(const world *w, int64_t prompt)
{
    prefopt_columns columns = columns_of(w->all);
    return columns.first[prompt + 1] - columns.first[prompt];
}

/* Comparisons of all completions of each prompt: a chain of soft ones, which makes the optimum
 * finite, and `extra` hard ones a prompt, with weights. */
static inline prefopt_dataset *random_pairs(const world *w, uint64_t seed, int64_t extra)
{
    prefopt_dataset *pairs;
    uint64_t draw = 0;
    OK(prefopt_dataset_create(&pairs, w->context));
    for (int64_t prompt = 0; prompt < w->n_prompts; prompt++) {
        int64_t n = completions_of(w, prompt);
        for (int64_t i = 0; i + 1 < n; i++)
            add_pair(w, pairs, prompt, i, i + 1, 0.5 + uniform(seed, draw),
                     0.2 + 0.6 * uniform(seed, draw + 1), 0),
                draw += 2;
        for (int64_t i = 0; i < extra; i++, draw += 3) {
            int64_t a = (int64_t)((double)n * uniform(seed, draw));
            int64_t b = (int64_t)((double)(n - 1) * uniform(seed, draw + 1));
            add_pair(w, pairs, prompt, a, b + (b >= a), 0.5 + uniform(seed, draw + 2), 1, 0);
        }
    }
    return pairs;
}

/* Log-probabilities of all completions of the world (w->n); free() them. */
static inline double *all_logps(const world *w, prefopt_policy *policy)
{
    prefopt_sequences in = sequences_of(w->all);
    double *logp = calloc((size_t)w->n, sizeof *logp);
    OK(prefopt_policy_logprobs(policy, &in, logp, NULL));
    return logp;
}

static inline double *all_refs(const world *w, const prefopt_reference *reference)
{
    prefopt_sequences in = sequences_of(w->all);
    double *logp = calloc((size_t)w->n, sizeof *logp);
    OK(prefopt_reference_logprobs(reference, &in, logp));
    return logp;
}

static inline double *all_scores(const world *w, prefopt_reward *reward)
{
    prefopt_sequences in = sequences_of(w->all);
    double *score = calloc((size_t)w->n, sizeof *score);
    OK(prefopt_reward_scores(reward, &in, score));
    return score;
}

/* log of ref * exp(score / beta), normalised for each prompt, into logp (w->n). */
static inline void soft_optimal(const world *w, const double *ref, const double *score, double beta,
                                double *logp)
{
    prefopt_columns columns = columns_of(w->all);
    for (int64_t i = 0; i < w->n_prompts; i++) {
        int64_t first = columns.first[i], n = columns.first[i + 1] - first;
        for (int64_t j = first; j < first + n; j++)
            logp[j] = ref[j] + score[j] / beta;
        double log_z = prefopt_log_sum_exp(n, logp + first);
        for (int64_t j = first; j < first + n; j++)
            logp[j] -= log_z;
    }
}

/* The largest total variation over the prompts. */
static inline double total_variation(const world *w, const double *logp, const double *logq)
{
    prefopt_columns columns = columns_of(w->all);
    double largest = 0;
    for (int64_t i = 0; i < w->n_prompts; i++) {
        double sum = 0;
        for (int64_t j = columns.first[i]; j < columns.first[i + 1]; j++)
            sum += 0.5 * fabs(exp(logp[j]) - exp(logq[j]));
        largest = fmax(largest, sum);
    }
    return largest;
}

static inline prefopt_reward *tabular_reward(const world *w, const prefopt_dataset *data)
{
    prefopt_reward *reward;
    prefopt_sequences in = sequences_of(data);
    OK(prefopt_reward_create_tabular(&reward, w->context, &in));
    return reward;
}

static inline prefopt_train_options train_defaults(void)
{
    prefopt_train_options options;
    OK(prefopt_train_options_init(&options, sizeof options));
    return options;
}

#endif
