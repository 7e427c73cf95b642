/* What the tests of the sampler share: a small world of three prompts with at most 3 tokens of
 * {0, 1, 2}, where 2 ends; rows of samples. */
#ifndef SAMPLER_TEST_H
#define SAMPLER_TEST_H

#include "base/pf_base.h"
#include "statistics.h"

enum { VOCAB = 3, HORIZON = 3, EOS = 2, COUNT = 15, PROMPTS = 3 };

static inline void add_prompt(prefopt_dataset *data, const int32_t *prompt, int64_t len)
{
    prefopt_row row;
    OK(prefopt_row_init(&row, sizeof row));
    row.prompt = prompt;
    row.prompt_len = len;
    OK(prefopt_dataset_append(data, &row));
}

static inline prefopt_dataset *three_prompts(prefopt_context *context)
{
    prefopt_dataset *data;
    OK(prefopt_dataset_create(&data, context));
    const int32_t prompt[] = {7, 9, 1};
    add_prompt(data, prompt, 1);
    add_prompt(data, prompt + 1, 2);
    add_prompt(data, NULL, 0);
    return data;
}

static inline prefopt_space make_space(int64_t vocab, int64_t horizon, int32_t eos)
{
    return (prefopt_space){
        .struct_size = sizeof(prefopt_space), .eos = eos, .vocab = vocab, .horizon = horizon};
}

/* A tabular policy with random logits of standard deviation `spread`. */
static inline prefopt_policy *tabular(prefopt_context *context, const prefopt_space *space,
                                      const prefopt_dataset *prompts, double spread)
{
    prefopt_sequences in = {.struct_size = sizeof in};
    OK(prefopt_dataset_sequences(prompts, &in));
    prefopt_policy *policy;
    OK(prefopt_policy_create_tabular(&policy, context, space, &in));
    prefopt_parameters parameters = {.struct_size = sizeof parameters};
    OK(prefopt_policy_parameters(policy, &parameters));
    for (int64_t i = 0; i < parameters.n; i++)
        ((double *)parameters.value)[i] = spread * pf_normal(12, 0, (uint64_t)i);
    OK(prefopt_policy_updated(policy));
    return policy;
}

typedef struct {
    prefopt_context *context;
    prefopt_dataset *prompts;
    prefopt_policy *policy;
} world;

static inline world make_world(prefopt_context *context)
{
    world w = {.context = context, .prompts = three_prompts(context)};
    prefopt_space space = make_space(VOCAB, HORIZON, EOS);
    w.policy = tabular(context, &space, w.prompts, 1);
    return w;
}

static inline void end_world(world *w)
{
    prefopt_policy_destroy(w->policy);
    prefopt_dataset_destroy(w->prompts);
    prefopt_context_destroy(w->context);
}

static inline prefopt_sampler_options options_of(int64_t n)
{
    prefopt_sampler_options o;
    OK(prefopt_sampler_options_init(&o, sizeof o));
    o.n = n;
    return o;
}

static inline prefopt_row row_of(const prefopt_dataset *data, int64_t i)
{
    prefopt_row row = {.struct_size = sizeof row};
    OK(prefopt_dataset_row(data, i, &row));
    return row;
}

/* Which of row b's completions is row a's completion i; -1: none. */
static inline int64_t find_completion(const prefopt_row *a, int64_t i, const prefopt_row *b)
{
    int64_t len = a->completion_offsets[i + 1] - a->completion_offsets[i];
    for (int64_t j = 0; j < b->n_completions; j++)
        if (b->completion_offsets[j + 1] - b->completion_offsets[j] == len &&
            memcmp(a->completions + a->completion_offsets[i],
                   b->completions + b->completion_offsets[j], (size_t)len * sizeof(int32_t)) == 0)
            return j;
    return -1;
}

static inline void check_same(const prefopt_dataset *a, const prefopt_dataset *b)
{
    prefopt_columns x = {.struct_size = sizeof x}, y = {.struct_size = sizeof y};
    OK(prefopt_dataset_columns(a, &x));
    OK(prefopt_dataset_columns(b, &y));
    ck_assert_int_eq(x.n_sequences, y.n_sequences);
    ck_assert(prefopt_dataset_hash(a) == prefopt_dataset_hash(b));
    size_t bytes = (size_t)x.n_sequences * sizeof(double);
    ck_assert(memcmp(x.logp, y.logp, bytes) == 0);
    ck_assert(memcmp(x.sampler_logp, y.sampler_logp, bytes) == 0);
}

#endif
