/* Where the time of a round of online DPO goes: sampling, scoring, training.
 *
 *     bench_online small|14m [THREADS [ROUNDS]]      1 thread, 5 rounds
 *
 * Random weights, a reward model of the policy's shape, the samples of a prompt ranked and its best
 * against its worst a pair; a round's one step is on all its pairs. Completions of one prompt share
 * what is computed of it, in all three parts.
 *
 *     14m      6 layers, width 128, vocabulary 50,304: 8 prompts of 64 tokens, 8 completions of 64
 *     small    2 layers, width 64, vocabulary 16: 64 prompts of 2 tokens, 16 completions of 6
 *
 * Of one round, the mean after one that warms up: seconds of each part (prefopt_progress; scoring
 * is reward model, ranking and reference), their shares, and samples a second of all of it. */
#define _GNU_SOURCE
#include "bench.h"

typedef struct {
    const char *name;
    int64_t vocab, layers, width, heads;
    int64_t prompts, prompt, samples, completion;
} shape;

static const shape shapes[] = {{"14m", 50304, 6, 128, 4, 8, 64, 8, 64},
                               {"small", 16, 2, 64, 4, 64, 2, 16, 6}};

static double uniform(int64_t stream, int64_t i)
{
    double u;
    need(prefopt_random_uniform(1, (uint64_t)stream, (uint64_t)i, 1, &u));
    return u;
}

static prefopt_policy *make_policy(prefopt_context *context, const shape *s)
{
    prefopt_policy *policy;
    prefopt_transformer_config c;
    need(prefopt_transformer_config_init(&c, sizeof c));
    c.eos = -1;
    c.vocab = s->vocab;
    c.n_layers = s->layers;
    c.width = s->width;
    c.n_heads = s->heads;
    c.ff_width = 4 * s->width;
    if (s->prompt + s->completion < c.max_positions)
        c.max_positions = s->prompt + s->completion;
    need(prefopt_policy_create_transformer(&policy, context, &c, 1));
    return policy;
}

/* Its head is 0 at first, and scores that are all equal make no pairs. */
static prefopt_reward *make_reward(const prefopt_policy *policy)
{
    prefopt_reward *reward;
    prefopt_parameters p = {.struct_size = sizeof p};
    need(prefopt_reward_from_policy(&reward, policy));
    need(prefopt_reward_parameters(reward, &p));
    for (int64_t i = 0; i < p.n; i++)
        ((float *)p.value)[i] += (float)(0.02 * (uniform(2, i) - 0.5));
    need(prefopt_reward_updated(reward));
    return reward;
}

static prefopt_dataset *make_prompts(prefopt_context *context, const shape *s)
{
    prefopt_dataset *prompts;
    need(prefopt_dataset_create(&prompts, context));
    int32_t token[64];
    for (int64_t i = 0; i < s->prompts; i++) {
        prefopt_row row;
        need(prefopt_row_init(&row, sizeof row));
        for (int64_t t = 0; t < s->prompt; t++)
            token[t] = (int32_t)(uniform(3 + i, t) * (double)s->vocab);
        row.prompt = token;
        row.prompt_len = s->prompt;
        need(prefopt_dataset_append(prompts, &row));
    }
    return prompts;
}

static void tell(const shape *s, const prefopt_progress *last, int64_t rounds)
{
    const struct {
        const char *name;
        double seconds;
    } parts[] = {{"sampling", last->seconds_sampling},
                 {"scoring", last->seconds_scoring},
                 {"training", last->seconds_training}};
    double all = 0;
    for (int i = 0; i < 3; i++)
        all += parts[i].seconds;
    for (int i = 0; i < 3; i++)
        printf("online.%s.%s %.5f s\n", s->name, parts[i].name, parts[i].seconds / (double)rounds);
    for (int i = 0; i < 3; i++)
        printf("online.%s.%s_share %.3f ratio\n", s->name, parts[i].name, parts[i].seconds / all);
    printf("online.%s.round %.5f s\n", s->name, all / (double)rounds);
    printf("online.%s.pairs %lld pairs\n", s->name, (long long)last->pairs);
    printf("online.%s.samples_per_s %.1f samples/s\n", s->name,
           (double)(s->prompts * s->samples * rounds) / all);
}

static void measure(const shape *s, int32_t threads, int64_t rounds)
{
    prefopt_context_options options;
    prefopt_context *context;
    need(prefopt_context_options_init(&options, sizeof options));
    options.threads = threads;
    need(prefopt_context_create(&context, &options));
    prefopt_policy *policy = make_policy(context, s);
    prefopt_reward *reward = make_reward(policy);
    prefopt_dataset *prompts = make_prompts(context, s);
    prefopt_reference *reference;
    need(prefopt_reference_freeze(&reference, policy));
    prefopt_sampler_options sampler;
    prefopt_train_options train;
    need(prefopt_sampler_options_init(&sampler, sizeof sampler));
    need(prefopt_train_options_init(&train, sizeof train));
    sampler.n = s->samples;
    sampler.max_tokens = s->completion;
    train.learning_rate = 1e-5;
    prefopt_trainer *trainer;
    need(prefopt_trainer_create_online_dpo(&trainer, policy, reference, reward, prompts, NULL,
                                           &sampler, NULL, NULL, &train));
    prefopt_progress last = {.struct_size = sizeof last};
    need(prefopt_trainer_run(trainer, 1, NULL));
    need(prefopt_trainer_run(trainer, rounds, &last));
    tell(s, &last, rounds);
    prefopt_trainer_destroy(trainer);
    prefopt_reference_destroy(reference);
    prefopt_dataset_destroy(prompts);
    prefopt_reward_destroy(reward);
    prefopt_policy_destroy(policy);
    prefopt_context_destroy(context);
}

int main(int argc, char **argv)
{
    int threads = argc > 2 ? atoi(argv[2]) : 1, rounds = argc > 3 ? atoi(argv[3]) : 5;
    for (size_t i = 0; argc > 1 && threads > 0 && rounds > 0 && i < 2; i++)
        if (strcmp(argv[1], shapes[i].name) == 0) {
            measure(&shapes[i], threads, rounds);
            return 0;
        }
    fprintf(stderr, "usage: bench_online small|14m [THREADS [ROUNDS]]\n");
    return 2;
}
