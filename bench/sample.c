/* Sampling from a language model: N completions of NEW tokens each of one prompt of PROMPT tokens.
 *
 *     sample 14m|70m N PROMPT NEW [THREADS [RUNS]]      sample 70m 25 64 64
 *
 * Random weights, temperature 1, nothing truncated, no end token: every completion has NEW tokens.
 * tokens_per_s counts the new tokens of all N over the whole call, the prompt's computation
 * included; the rate of the median of RUNS (default 7) after one that warms up. The other lines are
 * the same with truncated draws, which must not cost much. */
#define _GNU_SOURCE
#include <string.h>
#include <sys/resource.h>

#include "bench.h"

static prefopt_policy *make_policy(prefopt_context *context, const char *size)
{
    prefopt_transformer_config config;
    need(prefopt_transformer_config_init(&config, sizeof config));
    if (strcmp(size, "14m") == 0) {
        config.width = 128;
        config.n_heads = 4;
        config.ff_width = 512;
    } else if (strcmp(size, "70m") != 0) {
        fprintf(stderr, "sample: the model is %s, expected 14m or 70m\n", size);
        exit(2);
    }
    config.eos = -1;
    prefopt_policy *policy;
    need(prefopt_policy_create_transformer(&policy, context, &config, 1));
    return policy;
}

static prefopt_dataset *make_prompt(prefopt_context *context, int64_t length)
{
    int32_t *tokens = malloc((size_t)length * sizeof *tokens);
    for (int64_t t = 0; t < length; t++)
        tokens[t] = (int32_t)(t * 7919 % 50304);
    prefopt_row row;
    need(prefopt_row_init(&row, sizeof row));
    row.prompt = tokens;
    row.prompt_len = length;
    prefopt_dataset *prompts;
    need(prefopt_dataset_create(&prompts, context));
    need(prefopt_dataset_append(prompts, &row));
    free(tokens);
    return prompts;
}

/* New tokens a second: the median run. */
static double rate(prefopt_policy *policy, const prefopt_dataset *prompts,
                   prefopt_sampler_options *options, int runs)
{
    double seconds[100];
    for (int r = -1; r < runs; r++) {
        prefopt_dataset *samples;
        double start = now();
        options->round = (uint64_t)(r + 1);
        need(prefopt_sample(&samples, policy, prompts, options));
        if (r >= 0)
            seconds[r] = now() - start;
        prefopt_dataset_destroy(samples);
    }
    qsort(seconds, (size_t)runs, sizeof *seconds, by_value);
    return (double)(options->n * options->max_tokens) / seconds[runs / 2];
}

int main(int argc, char **argv)
{
    if (argc < 5) {
        fprintf(stderr, "usage: sample 14m|70m N PROMPT NEW [THREADS [RUNS]]\n");
        return 2;
    }
    prefopt_sampler_options options;
    need(prefopt_sampler_options_init(&options, sizeof options));
    options.n = atoll(argv[2]);
    options.max_tokens = atoll(argv[4]);
    prefopt_context_options own;
    need(prefopt_context_options_init(&own, sizeof own));
    own.threads = argc > 5 ? atoi(argv[5]) : 2;
    int runs = argc > 6 ? atoi(argv[6]) : 7;
    runs = runs < 1 ? 1 : runs > 100 ? 100 : runs;
    prefopt_context *context;
    need(prefopt_context_create(&context, &own));
    prefopt_policy *policy = make_policy(context, argv[1]);
    prefopt_dataset *prompts = make_prompt(context, atoll(argv[3]));
    double plain = rate(policy, prompts, &options, runs);
    printf("sample.tokens_per_s %.1f token/s\n", plain);
    options.temperature = 0.8;
    options.top_k = 40;
    printf("sample.top_k_tokens_per_s %.1f token/s\n", rate(policy, prompts, &options, runs));
    options.top_k = 0;
    options.top_p = 0.9;
    printf("sample.top_p_tokens_per_s %.1f token/s\n", rate(policy, prompts, &options, runs));
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    printf("sample.peak_mb %.1f MB\n", (double)usage.ru_maxrss / 1024);
    printf("sample.threads %d threads\n", prefopt_context_threads(context));
    prefopt_dataset_destroy(prompts);
    prefopt_policy_destroy(policy);
    prefopt_context_destroy(context);
    return 0;
}
