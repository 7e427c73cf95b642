/* An optimiser step on float32 parameters against a copy of the same bytes.
 *
 *     bench_optimiser [PARAMETERS [THREADS]]      70000000, all cores
 *
 * A step is two passes: the gradient's norm (reads gradients and values, 8 bytes a parameter) and
 * the step itself (AdamW reads 16 and writes 12). The copy reads half of the same 36 bytes and
 * writes the other half, on the same threads, in pieces of the same length. Medians of interleaved
 * runs, in seconds. */
#define _GNU_SOURCE
#include <string.h>

#include "bench.h"
#include "train/pf_train.h"

enum { RUNS = 9, PIECE = 16384, ARRAYS = 4 };

typedef struct {
    char *to;
    const char *from;
    size_t bytes;
} copy;

static void copy_piece(void *payload, int64_t piece)
{
    copy *c = payload;
    size_t length = PIECE * sizeof(float), at = (size_t)piece * length;
    memcpy(c->to + at, c->from + at, at + length <= c->bytes ? length : c->bytes - at);
}

static double copy_time(prefopt_context *context, copy *c)
{
    double start = now();
    pf_parallel_for(context, (int64_t)((c->bytes + PIECE * sizeof(float) - 1) / PIECE / 4),
                    copy_piece, c);
    return now() - start;
}

static void measure(prefopt_context *context, const char *name, int32_t kind, float *value,
                    float *grad, int64_t n, copy *c, double bytes)
{
    prefopt_train_options o;
    pf_optimiser optimiser;
    need(prefopt_train_options_init(&o, sizeof o));
    o.optimiser = kind;
    o.weight_decay = 0.01;
    o.momentum = kind == PREFOPT_SGD ? 0.9 : 0;
    prefopt_parameters p = {
        .struct_size = sizeof p, .dtype = PREFOPT_F32, .n = n, .value = value, .grad = grad};
    need(pf_optimiser_init(&optimiser, context, &o));
    need(pf_optimiser_add(&optimiser, &p));
    double norm[RUNS], step[RUNS], both[RUNS], copied[RUNS];
    c->bytes = (size_t)(bytes / 2 * (double)n);
    (void)copy_time(context, c);
    for (int i = -2; i < RUNS; i++) {
        double a = now();
        (void)pf_optimiser_grad_norm(&optimiser);
        double b = now();
        must(pf_optimiser_step(&optimiser, 1e-4, 1), "step");
        double end = now();
        if (i >= 0) {
            norm[i] = b - a;
            step[i] = end - b;
            both[i] = end - a;
            copied[i] = copy_time(context, c);
        }
    }
    double ours = median(RUNS, both), theirs = median(RUNS, copied);
    printf("optimiser.%s_norm_s %.4f s\n", name, median(RUNS, norm));
    printf("optimiser.%s_step_s %.4f s\n", name, median(RUNS, step));
    printf("optimiser.%s_s %.4f s\n", name, ours);
    printf("optimiser.%s_gb_per_s %.1f GB/s\n", name, bytes * (double)n / ours * 1e-9);
    printf("optimiser.%s_copy_s %.4f s\n", name, theirs);
    printf("optimiser.%s_against_copy %.3f times\n", name, ours / theirs);
    pf_optimiser_clear(&optimiser);
}

int main(int argc, char **argv)
{
    int64_t n = argc > 1 ? atoll(argv[1]) : 70000000;
    prefopt_context_options options;
    prefopt_context *context;
    must(n >= 1, "PARAMETERS");
    need(prefopt_context_options_init(&options, sizeof options));
    options.threads = argc > 2 ? atoi(argv[2]) : 0;
    need(prefopt_context_create(&context, &options));
    float *value = random_floats(n, 1, 1), *grad = random_floats(n, 1e-3f, 2);
    copy c = {.to = (char *)random_floats(18 * n / ARRAYS + 1, 0, 3),
              .from = (const char *)random_floats(18 * n / ARRAYS + 1, 1, 4)};
    printf("optimiser.parameters %lld parameters\n", (long long)n);
    printf("optimiser.threads %d threads\n", prefopt_context_threads(context));
    measure(context, "adamw", PREFOPT_ADAMW, value, grad, n, &c, 36);
    measure(context, "sgd", PREFOPT_SGD, value, grad, n, &c, 28);
    double zero[RUNS];
    for (int i = 0; i < RUNS; i++) {
        double start = now();
        memset(grad, 0, (size_t)n * sizeof *grad);
        zero[i] = now() - start;
    }
    printf("optimiser.zero_grad_s %.4f s\n", median(RUNS, zero));
    prefopt_context_destroy(context);
    return 0;
}
