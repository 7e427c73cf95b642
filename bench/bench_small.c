/* Small transformers, where overheads count: walks on a graph of 16 nodes.
 *
 *     bench_small [THREADS [ROUNDS [NAME]]]      1 thread, 5 rounds, everything
 *
 * GPT-NeoX, width 64, 2 layers, 4 heads, feed-forward 256, vocabulary 16: 102,272 parameters,
 * random weights. Sequences are 8 tokens, the first two the prompt (192 different ones); three
 * tokens may follow each token (prefopt_policy_set_transitions). Measured, each the mean over a
 * run, the least over the rounds:
 *
 *     dpo_step    64 pairs: policy forward and backward, clip, AdamW; reference numbers are stored
 *     sft_step    128 sequences: the same by maximum likelihood
 *     sample_N    16 completions for each of N prompts; microseconds a completion
 *     score       4,000 sequences by a reward model; microseconds a sequence
 *     logprobs    4,000 sequences by a frozen policy; microseconds a sequence
 *     adamw       gradient norm and AdamW on the parameters
 *
 * peer_small.py does the same arithmetic in PyTorch. */
#define _GNU_SOURCE
#include <string.h>

#include "bench.h"
#include "train/pf_train.h"

enum { NODES = 16, DEGREE = 3, STEPS = 6, PROMPTS = 192, PAIRS = 4000, MOST_ROUNDS = 99 };

static double least(int n, const double *x)
{
    double best = x[0];
    for (int i = 1; i < n; i++)
        best = x[i] < best ? x[i] : best;
    return best;
}

/* ---- the world */

typedef struct {
    prefopt_context *context;
    uint8_t allowed[NODES * NODES];
    prefopt_policy *policy;
    prefopt_reference *reference;
    prefopt_reward *reward;
    prefopt_dataset *demonstrations, *pairs;
    prefopt_dataset *prompts[3];
} world;

static const int64_t n_prompts[] = {64, 1000, 4000};

static int32_t step_from(int32_t node, int64_t k)
{
    static const int32_t jump[DEGREE] = {1, 5, 11};
    return (int32_t)((node + jump[k]) % NODES);
}

static void make_prompt(int64_t i, int32_t prompt[2])
{
    int64_t which = i * 7 % PROMPTS;
    prompt[0] = (int32_t)(which / 12);
    prompt[1] = (int32_t)(which % 12);
}

static void walk(uint64_t stream, int32_t from, int32_t steps[STEPS])
{
    for (int64_t t = 0; t < STEPS; t++) {
        double u;
        need(prefopt_random_uniform(3, stream, (uint64_t)t, 1, &u));
        steps[t] = from = step_from(from, (int64_t)(u * DEGREE));
    }
}

/* n rows of `walks` completions each: none, one, or a pair. */
static prefopt_dataset *make_rows(prefopt_context *context, int64_t n, int64_t walks)
{
    prefopt_dataset *data;
    need(prefopt_dataset_create(&data, context));
    static const int64_t offsets[] = {0, STEPS, 2 * STEPS};
    for (int64_t i = 0; i < n; i++) {
        int32_t prompt[2], tokens[2 * STEPS];
        make_prompt(i, prompt);
        for (int64_t k = 0; k < walks; k++)
            walk((uint64_t)(2 * i + k), prompt[1], tokens + k * STEPS);
        prefopt_row row;
        need(prefopt_row_init(&row, sizeof row));
        row.kind = walks == 0   ? PREFOPT_ROW_PROMPT
                   : walks == 1 ? PREFOPT_ROW_COMPLETIONS
                                : PREFOPT_ROW_PAIR;
        row.prompt = prompt;
        row.prompt_len = 2;
        row.n_completions = walks;
        row.completions = walks > 0 ? tokens : NULL;
        row.completion_offsets = walks > 0 ? offsets : NULL;
        need(prefopt_dataset_append(data, &row));
    }
    return data;
}

static void make_world(world *w, int32_t threads)
{
    prefopt_context_options options;
    need(prefopt_context_options_init(&options, sizeof options));
    options.threads = threads;
    need(prefopt_context_create(&w->context, &options));
    prefopt_transformer_config c;
    need(prefopt_transformer_config_init(&c, sizeof c));
    c.eos = -1;
    c.vocab = NODES;
    c.n_layers = 2;
    c.width = 64;
    c.n_heads = 4;
    c.ff_width = 256;
    c.max_positions = 2 + STEPS;
    c.rotary_fraction = 0.5;
    c.init_scale = 0.1;
    need(prefopt_policy_create_transformer(&w->policy, w->context, &c, 1));
    for (int32_t u = 0; u < NODES; u++)
        for (int64_t k = 0; k < DEGREE; k++)
            w->allowed[u * NODES + step_from(u, k)] = 1;
    need(prefopt_policy_set_transitions(w->policy, w->allowed));
    need(prefopt_reference_freeze(&w->reference, w->policy));
    need(prefopt_reward_from_policy(&w->reward, w->policy));
    w->demonstrations = make_rows(w->context, PAIRS, 1);
    w->pairs = make_rows(w->context, PAIRS, 2);
    for (int i = 0; i < 3; i++)
        w->prompts[i] = make_rows(w->context, n_prompts[i], 0);
}

static void end_world(world *w)
{
    for (int i = 0; i < 3; i++)
        prefopt_dataset_destroy(w->prompts[i]);
    prefopt_dataset_destroy(w->pairs);
    prefopt_dataset_destroy(w->demonstrations);
    prefopt_reward_destroy(w->reward);
    prefopt_reference_destroy(w->reference);
    prefopt_policy_destroy(w->policy);
    prefopt_context_destroy(w->context);
}

/* ---- what is measured: seconds of one */

static double train(prefopt_trainer *trainer)
{
    enum { WARM = 5, RUN = 50 };
    need(prefopt_trainer_run(trainer, WARM, NULL));
    double start = now();
    need(prefopt_trainer_run(trainer, RUN, NULL));
    double seconds = (now() - start) / RUN;
    prefopt_trainer_destroy(trainer);
    return seconds;
}

static prefopt_train_options train_options(int64_t batch)
{
    prefopt_train_options o;
    need(prefopt_train_options_init(&o, sizeof o));
    o.learning_rate = 5e-4;
    o.clip_norm = 1;
    o.batch = batch;
    return o;
}

static double dpo_step(world *w)
{
    prefopt_train_options o = train_options(64);
    prefopt_trainer *trainer;
    need(prefopt_trainer_create_dpo(&trainer, w->policy, w->reference, w->pairs, NULL, &o));
    return train(trainer);
}

static double sft_step(world *w)
{
    prefopt_train_options o = train_options(128);
    prefopt_trainer *trainer;
    need(prefopt_trainer_create_mle(&trainer, w->policy, w->demonstrations, &o));
    return train(trainer);
}

static double sample(world *w, int i)
{
    enum { N = 16 };
    prefopt_sampler_options o;
    need(prefopt_sampler_options_init(&o, sizeof o));
    o.n = N;
    o.seed = 5;
    int64_t times = 4000 / n_prompts[i];
    double start = now();
    for (int64_t k = 0; k < times; k++) {
        prefopt_dataset *samples;
        o.round = (uint64_t)k;
        need(prefopt_sample(&samples, w->policy, w->prompts[i], &o));
        prefopt_dataset_destroy(samples);
    }
    return (now() - start) / (double)(times * n_prompts[i] * N);
}

static double score(world *w, int logprobs)
{
    prefopt_sequences in = {.struct_size = sizeof in};
    need(prefopt_dataset_sequences(w->demonstrations, &in));
    double *out = malloc((size_t)in.n * sizeof *out);
    if (out == NULL)
        exit(1);
    double start = now();
    if (logprobs)
        need(prefopt_reference_logprobs(w->reference, &in, out));
    else
        need(prefopt_reward_scores(w->reward, &in, out));
    double seconds = (now() - start) / (double)in.n;
    free(out);
    return seconds;
}

static double adamw(world *w)
{
    enum { RUN = 200 };
    prefopt_train_options o = train_options(0);
    prefopt_parameters p = {.struct_size = sizeof p};
    need(prefopt_policy_parameters(w->policy, &p));
    for (int64_t i = 0; i < p.n; i++)
        ((float *)p.grad)[i] = 1e-3f * (float)(i % 7 - 3);
    pf_optimiser optimiser;
    need(pf_optimiser_init(&optimiser, w->context, &o));
    need(pf_optimiser_add(&optimiser, &p));
    double start = now();
    for (int64_t k = 0; k < RUN; k++) {
        (void)pf_optimiser_grad_norm(&optimiser);
        (void)pf_optimiser_step(&optimiser, 1e-6, 1);
    }
    double seconds = (now() - start) / RUN;
    pf_optimiser_clear(&optimiser);
    need(prefopt_policy_updated(w->policy));
    return seconds;
}

enum { KINDS = 8 };

static double measure(world *w, int kind)
{
    return kind == 0   ? dpo_step(w)
           : kind == 1 ? sft_step(w)
           : kind < 5  ? sample(w, kind - 2)
           : kind < 7  ? score(w, kind == 6)
                       : adamw(w);
}

int main(int argc, char **argv)
{
    static const char *const names[KINDS] = {"dpo_step",    "sft_step", "sample_64", "sample_1000",
                                             "sample_4000", "score",    "logprobs",  "adamw"};
    int threads = argc > 1 ? atoi(argv[1]) : 1, rounds = argc > 2 ? atoi(argv[2]) : 5;
    const char *only = argc > 3 ? argv[3] : NULL;
    if (threads < 1 || rounds < 1 || rounds > MOST_ROUNDS) {
        fprintf(stderr, "usage: bench_small [THREADS [ROUNDS [NAME]]]\n");
        return 2;
    }
    static double seconds[KINDS][MOST_ROUNDS];
    world w = {0};
    make_world(&w, threads);
    for (int r = 0; r < rounds; r++)
        for (int k = 0; k < KINDS; k++)
            if (only == NULL || strcmp(only, names[k]) == 0)
                seconds[k][r] = measure(&w, k);
    end_world(&w);
    for (int k = 0; k < KINDS; k++)
        if (only == NULL || strcmp(only, names[k]) == 0)
            printf("%s %.4g us\n", names[k], 1e6 * least(rounds, seconds[k]));
    return 0;
}
