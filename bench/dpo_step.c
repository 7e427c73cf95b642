/* One DPO training step of a language model: reference forward, policy forward and backward, AdamW.
 *
 *     dpo_step 14m|70m [shared|separate] [STEPS [THREADS [recompute]]]
 *
 * Random weights; 4 pairs, 256 tokens each sequence. separate (default): 64 of them prompt, and the
 * two sides of a pair have different prompts, so that nothing can be shared. shared: 192 of them
 * prompt, the same for both sides. Tokens are counted as 4 x 2 x 256 a step either way.
 *
 * `products` is the time of the step's matrix products alone, each shape measured for itself as
 * pf_sgemm does it on the same threads; only those that a step cannot do without are counted, with
 * each shared prompt once. Medians over STEPS (default 5) after one that warms up. */
#define _GNU_SOURCE
#include <string.h>
#include <sys/resource.h>

#include "bench.h"
#include "math/pf_gemm.h"
#include "train/pf_train.h"

enum { PAIRS = 4, LENGTH = 256 };

/* ---- the step */

typedef struct {
    prefopt_policy *policy;
    prefopt_reference *reference;
    pf_optimiser optimiser;
    int32_t tokens[PAIRS * 2 * LENGTH];
    int64_t offsets[PAIRS * 2 + 1], prompt_len[PAIRS * 2];
} training;

static void make_batch(training *t, int64_t vocab, int shared)
{
    for (int64_t i = 0; i < PAIRS * 2 * LENGTH; i++) {
        double u;
        need(prefopt_random_uniform(1, 0, (uint64_t)i, 1, &u));
        t->tokens[i] = (int32_t)(u * (double)vocab);
    }
    for (int64_t s = 0; s < PAIRS * 2; s++) {
        t->offsets[s] = s * LENGTH;
        t->prompt_len[s] = shared ? 192 : 64;
        if (shared && s % 2 == 1)
            memcpy(t->tokens + s * LENGTH, t->tokens + (s - 1) * LENGTH, 192 * sizeof(int32_t));
    }
    t->offsets[PAIRS * 2] = PAIRS * 2 * LENGTH;
}

/* Seconds of the parts: reference, policy forward, policy backward, optimiser. */
static void step(training *t, double seconds[4])
{
    prefopt_sequences all = {.struct_size = sizeof all,
                             .n = PAIRS * 2,
                             .tokens = t->tokens,
                             .offsets = t->offsets,
                             .prompt_len = t->prompt_len};
    double reference[PAIRS * 2], start = now();
    memset(seconds, 0, 4 * sizeof *seconds);
    need(prefopt_reference_logprobs(t->reference, &all, reference));
    seconds[0] = now() - start;
    need(prefopt_policy_zero_grad(t->policy));
    for (int64_t first = 0, n; first < PAIRS * 2; first += n) {
        prefopt_sequences part = pf_sequences_part(&all, first, PAIRS * 2 - first);
        n = pf_policy_keeps(t->policy, &part);
        n = n < 2 ? 2 : n / 2 * 2;
        part = pf_sequences_part(&all, first, n);
        double logp[PAIRS * 2], grad[PAIRS * 2];
        double chosen[PAIRS], rejected[PAIRS], ref_chosen[PAIRS], ref_rejected[PAIRS];
        double grad_chosen[PAIRS], grad_rejected[PAIRS];
        start = now();
        need(prefopt_policy_logprobs(t->policy, &part, logp, NULL));
        seconds[1] += now() - start;
        for (int64_t k = 0; k < n / 2; k++) {
            chosen[k] = logp[2 * k];
            rejected[k] = logp[2 * k + 1];
            ref_chosen[k] = reference[first + 2 * k];
            ref_rejected[k] = reference[first + 2 * k + 1];
        }
        prefopt_pair_scores in = {.struct_size = sizeof in,
                                  .n = n / 2,
                                  .chosen = chosen,
                                  .rejected = rejected,
                                  .ref_chosen = ref_chosen,
                                  .ref_rejected = ref_rejected};
        prefopt_pair_loss out = {
            .struct_size = sizeof out, .grad_chosen = grad_chosen, .grad_rejected = grad_rejected};
        need(prefopt_loss_dpo(NULL, &in, &out));
        for (int64_t k = 0; k < n / 2; k++) { /* the mean is over the whole batch */
            grad[2 * k] = grad_chosen[k] * (double)(n / 2) / PAIRS;
            grad[2 * k + 1] = grad_rejected[k] * (double)(n / 2) / PAIRS;
        }
        start = now();
        need(prefopt_policy_backward(t->policy, &part, grad));
        seconds[2] += now() - start;
    }
    start = now();
    (void)pf_optimiser_grad_norm(&t->optimiser); /* it also proves that the step cannot overflow */
    if (!pf_optimiser_step(&t->optimiser, 1e-5, 1)) {
        fprintf(stderr, "dpo_step: a parameter is not finite\n");
        exit(1);
    }
    need(prefopt_policy_updated(t->policy));
    seconds[3] = now() - start;
}

/* ---- the products alone */

/* Seconds of C [m, n] (+)= op(A) op(B) with inner dimension k; the median of three runs. */
static double product(prefopt_context *context, int trans_a, int trans_b, int64_t m, int64_t n,
                      int64_t k)
{
    float *a = pf_calloc(context, m * k, sizeof *a), *b = pf_calloc(context, n * k, sizeof *b);
    float *c = pf_calloc(context, m * n, sizeof *c);
    if (a == NULL || b == NULL || c == NULL)
        need(PREFOPT_ERR_MEMORY);
    memset(c, 0, (size_t)(m * n) * sizeof *c);
    double runs[4];
    for (int r = 0; r < 4; r++) {
        double start = now();
        need(pf_sgemm(context, trans_a, trans_b, m, n, k, 1, a, trans_a ? m : k, b, trans_b ? k : n,
                      0, c, n));
        runs[r] = now() - start;
    }
    pf_free(context, a);
    pf_free(context, b);
    pf_free(context, c);
    return median(3, runs + 1);
}

/* y = x W^T once for the reference and once for the policy; dx = dy W; dW = dy^T x. */
static double linear_layer(prefopt_context *context, int64_t rows, int64_t out, int64_t in)
{
    return 2 * product(context, 0, 1, rows, out, in) + product(context, 0, 0, rows, in, out) +
           product(context, 1, 0, out, in, rows);
}

static double products(prefopt_context *context, const prefopt_transformer_config *c, int shared)
{
    /* The last token of a sequence is predicted and never read. */
    int64_t rows = shared ? PAIRS * (192 + 2 * 63) : PAIRS * 2 * 255;
    int64_t targets = PAIRS * 2 * (shared ? 64 : 192);
    double layer = linear_layer(context, rows, 3 * c->width, c->width) +
                   linear_layer(context, rows, c->width, c->width) +
                   linear_layer(context, rows, c->ff_width, c->width) +
                   linear_layer(context, rows, c->width, c->ff_width);
    return (double)c->n_layers * layer + linear_layer(context, targets, c->vocab, c->width);
}

int main(int argc, char **argv)
{
    prefopt_transformer_config config;
    need(prefopt_transformer_config_init(&config, sizeof config));
    if (argc < 2 || (strcmp(argv[1], "14m") != 0 && strcmp(argv[1], "70m") != 0)) {
        fprintf(stderr, "dpo_step 14m|70m [shared|separate] [STEPS [THREADS [recompute]]]\n");
        return 2;
    }
    if (strcmp(argv[1], "14m") == 0) {
        config.width = 128;
        config.n_heads = 4;
        config.ff_width = 512;
    }
    int shared = argc > 2 && strcmp(argv[2], "shared") == 0;
    int steps = argc > 3 ? atoi(argv[3]) : 5;
    if (steps < 1 || steps > 1000)
        steps = 5;
    prefopt_context_options options;
    need(prefopt_context_options_init(&options, sizeof options));
    options.threads = argc > 4 ? atoi(argv[4]) : 2;
    prefopt_context *context;
    need(prefopt_context_create(&context, &options));
    static training t;
    need(prefopt_policy_create_transformer(&t.policy, context, &config, 1));
    need(prefopt_reference_freeze(&t.reference, t.policy));
    make_batch(&t, config.vocab, shared);
    prefopt_parameters parameters = {.struct_size = sizeof parameters};
    need(prefopt_policy_parameters(t.policy, &parameters));
    need(pf_optimiser_init(&t.optimiser, context, &pf_train_defaults));
    need(pf_optimiser_add(&t.optimiser, &parameters));

    static double whole[1000], parts[4][1000];
    double seconds[4];
    step(&t, seconds);
    for (int s = 0; s < steps; s++) {
        double start = now();
        step(&t, seconds);
        whole[s] = now() - start;
        for (int k = 0; k < 4; k++)
            parts[k][s] = seconds[k];
    }
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    double all = median(steps, whole), alone = products(context, &config, shared);
    printf("dpo_step.tokens_per_s %.0f token/s\n", PAIRS * 2 * LENGTH / all);
    printf("dpo_step.peak_mb %.0f MB\n", (double)usage.ru_maxrss / 1024);
    printf("dpo_step.seconds %.4f s\n", all);
    static const char *names[] = {"reference", "forward", "backward", "optimiser"};
    for (int k = 0; k < 4; k++)
        printf("dpo_step.%s %.4f s\n", names[k], median(steps, parts[k]));
    printf("dpo_step.products %.4f s\n", alone);
    printf("dpo_step.over_products %.3f ratio\n", all / alone);
    pf_optimiser_clear(&t.optimiser);
    prefopt_reference_destroy(t.reference);
    prefopt_policy_destroy(t.policy);
    prefopt_context_destroy(context);
    return 0;
}
