/* How the cost of a training pass of a transformer (logprobs and backward) grows with the length of
 * sequences, the width, the vocabulary, and the completions that share a prompt.
 *
 *     bench_scaling [THREADS]                                                     all cores
 *
 * Around 4 layers, width 256, heads of 64, vocabulary 16,384, 4 sequences of 256 tokens, half of
 * them prompt; in tokens_of_2048 as many sequences as make 2,048 tokens. Medians of 3 after one
 * that warms up. For each series the slope of log seconds over log size by least squares, and
 * beside it that of the operations of its matrix products. */
#define _GNU_SOURCE
#include <math.h>

#include "bench.h"

enum { MOST = 8, RUNS = 3 };

typedef struct {
    int64_t width, vocab, n, prompt, completion;
    int same_prompt;
} setting;

/* Seconds of one pass. */
static double measure(prefopt_context *context, const setting *s)
{
    prefopt_transformer_config config;
    need(prefopt_transformer_config_init(&config, sizeof config));
    config.n_layers = 4;
    config.width = s->width;
    config.n_heads = s->width / 64;
    config.ff_width = 4 * s->width;
    config.vocab = s->vocab;
    prefopt_policy *policy;
    need(prefopt_policy_create_transformer(&policy, context, &config, 1));
    int64_t length = s->prompt + s->completion;
    int32_t *tokens = malloc((size_t)(s->n * length) * sizeof *tokens);
    int64_t *offsets = malloc((size_t)(s->n + 1) * sizeof *offsets);
    int64_t *prompt_len = malloc((size_t)s->n * sizeof *prompt_len);
    double *logp = malloc((size_t)s->n * sizeof *logp);
    double *grad = malloc((size_t)s->n * sizeof *grad);
    if (tokens == NULL || offsets == NULL || prompt_len == NULL || logp == NULL || grad == NULL)
        exit(1);
    for (int64_t i = 0; i < s->n; i++) {
        offsets[i] = i * length;
        prompt_len[i] = s->prompt;
        grad[i] = 1;
        for (int64_t t = 0; t < length; t++) {
            int64_t row = s->same_prompt && t < s->prompt ? 0 : i;
            tokens[i * length + t] = (int32_t)((row * 7919 + t * 104729 + 13) % s->vocab);
        }
    }
    offsets[s->n] = s->n * length;
    prefopt_sequences view = {.struct_size = sizeof view,
                              .n = s->n,
                              .tokens = tokens,
                              .offsets = offsets,
                              .prompt_len = prompt_len};
    need(prefopt_policy_zero_grad(policy));
    double seconds[RUNS + 1];
    for (int run = 0; run <= RUNS; run++) {
        double start = now();
        need(prefopt_policy_logprobs(policy, &view, logp, NULL));
        need(prefopt_policy_backward(policy, &view, grad));
        seconds[run] = now() - start;
    }
    free(tokens), free(offsets), free(prompt_len), free(logp), free(grad);
    prefopt_policy_destroy(policy);
    qsort(seconds + 1, RUNS, sizeof *seconds, by_value);
    return seconds[1 + RUNS / 2];
}

/* Multiplications of the products, forward: layers, attention, head. */
static double operations(const setting *s)
{
    double prompts = s->same_prompt ? 1 : (double)s->n, p = (double)s->prompt,
           c = (double)s->completion, d = (double)s->width, n = (double)s->n;
    double rows = prompts * p + n * c, pairs = prompts * p * p / 2 + n * (c * p + c * c / 2);
    return 4 * (12 * d * d * rows + 2 * d * pairs) + n * c * d * (double)s->vocab;
}

static double slope(int n, const double *x, const double *y)
{
    double mx = 0, my = 0, xy = 0, xx = 0;
    for (int i = 0; i < n; i++) {
        mx += log(x[i]) / n;
        my += log(y[i]) / n;
    }
    for (int i = 0; i < n; i++) {
        xy += (log(x[i]) - mx) * (log(y[i]) - my);
        xx += (log(x[i]) - mx) * (log(x[i]) - mx);
    }
    return xy / xx;
}

static void series(prefopt_context *context, const char *name, int n, const int64_t *sizes,
                   const setting *settings)
{
    double x[MOST], seconds[MOST], work[MOST];
    for (int i = 0; i < n; i++) {
        x[i] = (double)sizes[i];
        seconds[i] = measure(context, &settings[i]);
        work[i] = operations(&settings[i]);
        printf("scaling.%s.%lld %.4f s\n", name, (long long)sizes[i], seconds[i]);
        fflush(stdout);
    }
    printf("scaling.%s.slope %.3f power\n", name, slope(n, x, seconds));
    printf("scaling.%s.products_slope %.3f power\n", name, slope(n, x, work));
}

int main(int argc, char **argv)
{
    prefopt_context_options options;
    need(prefopt_context_options_init(&options, sizeof options));
    options.threads = argc > 1 ? atoi(argv[1]) : 0;
    options.byte_budget = (int64_t)1 << 30;
    prefopt_context *context;
    need(prefopt_context_create(&context, &options));
    const setting base = {256, 16384, 4, 128, 128, 0};
    setting s[MOST];
    const int64_t lengths[] = {64, 128, 256, 512, 1024}, widths[] = {128, 256, 512, 1024};
    const int64_t vocabularies[] = {4096, 8192, 16384, 32768, 65536}, sharing[] = {1, 4, 8, 16, 32};
    for (int i = 0; i < 5; i++) {
        s[i] = base;
        s[i].prompt = s[i].completion = lengths[i] / 2;
    }
    series(context, "tokens", 5, lengths, s);
    for (int i = 0; i < 5; i++)
        s[i].n = 2048 / lengths[i];
    series(context, "tokens_of_2048", 5, lengths, s);
    for (int i = 0; i < 4; i++) {
        s[i] = base;
        s[i].width = widths[i];
    }
    series(context, "width", 4, widths, s);
    for (int i = 0; i < 5; i++) {
        s[i] = base;
        s[i].vocab = vocabularies[i];
    }
    series(context, "vocabulary", 5, vocabularies, s);
    for (int shared = 0; shared < 2; shared++) {
        for (int i = 0; i < 5; i++)
            s[i] = (setting){256, 16384, sharing[i], 192, 16, shared};
        series(context, shared ? "completions_of_one_prompt" : "completions_of_own_prompts", 5,
               sharing, s);
    }
    prefopt_context_destroy(context);
    return 0;
}
