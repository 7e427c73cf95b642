/* prefopt_linear_logprobs forward and backward against the matrix products that cannot be avoided.
 *
 *     bench_linear_logprobs [ROWS WIDTH VOCAB [THREADS]]      2048 512 50304, all cores
 *
 * The products are one for the forward pass and three for the backward (the logits again, and the
 * two gradients), as pf_sgemm does them on the same threads; so that each runs at full speed they
 * are whole, with [ROWS, VOCAB] held. Medians of interleaved runs, in seconds and in processor
 * seconds of all threads (the latter say more on a machine that has other work). For the peak
 * memory of the kernels alone, the products run in a process of their own. */
#define _GNU_SOURCE
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "bench.h"
#include "math/pf_gemm.h"

enum { RUNS = 7 };

typedef struct {
    int64_t rows, width, vocab;
    prefopt_context *context;
    float *hidden, *weight, *grad_hidden, *grad_weight, *logits;
    int32_t *target;
    double *logp, *grad_logp;
} setting;

static void kernels(setting *s, double *forward, double *backward)
{
    double start = now();
    need(prefopt_linear_logprobs(s->context, s->rows, s->width, s->vocab, s->hidden, s->weight,
                                 s->target, s->logp));
    double middle = now();
    need(prefopt_linear_logprobs_backward(s->context, s->rows, s->width, s->vocab, s->hidden,
                                          s->weight, s->target, s->grad_logp, s->grad_hidden,
                                          s->grad_weight));
    *forward = middle - start;
    *backward = now() - middle;
}

/* Seconds of each of the products. */
static void products(setting *s, double *logits, double *grad_hidden, double *grad_weight)
{
    int64_t m = s->rows, n = s->vocab, k = s->width;
    double a = now();
    need(
        pf_sgemm(s->context, false, true, m, n, k, 1, s->hidden, k, s->weight, k, 0, s->logits, n));
    double b = now();
    need(pf_sgemm(s->context, false, false, m, k, n, 1, s->logits, n, s->weight, k, 0,
                  s->grad_hidden, k));
    double c = now();
    need(pf_sgemm(s->context, true, false, n, k, m, 1, s->logits, n, s->hidden, k, 0,
                  s->grad_weight, k));
    *logits = b - a;
    *grad_hidden = c - b;
    *grad_weight = now() - c;
}

/* Processor seconds of the four products as one single-threaded BLIS call each: what BLIS needs
 * when nothing is cut. */
static double whole_products(setting *s)
{
    int64_t m = s->rows, n = s->vocab, k = s->width;
    double a = processor();
    need(pf_sgemm_serial(false, true, m, n, k, 1, s->hidden, k, s->weight, k, 0, s->logits, n));
    double b = processor();
    need(pf_sgemm_serial(false, false, m, k, n, 1, s->logits, n, s->weight, k, 0, s->grad_hidden,
                         k));
    need(
        pf_sgemm_serial(true, false, n, k, m, 1, s->logits, n, s->hidden, k, 0, s->grad_weight, k));
    return b - a + processor() - a;
}

static setting prepare(int64_t rows, int64_t width, int64_t vocab, int32_t threads)
{
    setting s = {.rows = rows, .width = width, .vocab = vocab};
    prefopt_context_options options;
    need(prefopt_context_options_init(&options, sizeof options));
    options.threads = threads;
    need(prefopt_context_create(&s.context, &options));
    s.hidden = random_floats(rows * width, 1, 1);
    s.weight = random_floats(vocab * width, 0.1f, 2);
    s.grad_hidden = random_floats(rows * width, 0, 3);
    s.grad_weight = random_floats(vocab * width, 0, 4);
    s.target = malloc((size_t)rows * sizeof *s.target);
    s.logp = malloc((size_t)rows * sizeof *s.logp);
    s.grad_logp = malloc((size_t)rows * sizeof *s.grad_logp);
    must(s.target != NULL && s.logp != NULL && s.grad_logp != NULL, "memory");
    for (int64_t i = 0; i < rows; i++) {
        s.target[i] = (int32_t)(i * 7919 % vocab);
        s.grad_logp[i] = -1.0 / (double)rows;
    }
    return s;
}

static void measure_memory(int64_t rows, int64_t width, int64_t vocab, int32_t threads)
{
    fflush(stdout);
    pid_t child = fork();
    if (child == 0) {
        setting s = prepare(rows, width, vocab, threads);
        double arrays = peak_mb(), forward, backward;
        kernels(&s, &forward, &backward);
        printf("linear_logprobs.arrays_mb %.1f MB\n", arrays);
        printf("linear_logprobs.peak_mb %.1f MB\n", peak_mb());
        printf("linear_logprobs.logits_would_be_mb %.1f MB\n",
               (double)rows * (double)vocab * sizeof(float) / 1048576);
        fflush(stdout);
        _exit(0);
    }
    int status = 1;
    must(child > 0 && waitpid(child, &status, 0) == child && status == 0, "memory process");
}

int main(int argc, char **argv)
{
    int64_t rows = argc > 3 ? atoll(argv[1]) : 2048, width = argc > 3 ? atoll(argv[2]) : 512;
    int64_t vocab = argc > 3 ? atoll(argv[3]) : 50304;
    int32_t threads = argc > 4 ? atoi(argv[4]) : 0;
    measure_memory(rows, width, vocab, threads);
    setting s = prepare(rows, width, vocab, threads);
    s.logits = random_floats(rows * vocab, 0, 5);
    double forward[RUNS], backward[RUNS], logits[RUNS], grad_hidden[RUNS], grad_weight[RUNS];
    double unavoidable[RUNS], both[RUNS], cpu_both[RUNS], cpu_unavoidable[RUNS], cpu_whole[RUNS], f,
        b;
    kernels(&s, &f, &b);
    products(&s, &logits[0], &grad_hidden[0], &grad_weight[0]);
    for (int i = 0; i < RUNS; i++) {
        double start = processor();
        kernels(&s, &forward[i], &backward[i]);
        double middle = processor();
        products(&s, &logits[i], &grad_hidden[i], &grad_weight[i]);
        double end = processor();
        cpu_whole[i] = whole_products(&s);
        cpu_both[i] = middle - start;
        /* the forward product counts twice */
        cpu_unavoidable[i] = (end - middle) * (2 * logits[i] + grad_hidden[i] + grad_weight[i]) /
                             (logits[i] + grad_hidden[i] + grad_weight[i]);
        both[i] = forward[i] + backward[i];
        unavoidable[i] = 2 * logits[i] + grad_hidden[i] + grad_weight[i];
    }
    double flops = 2.0 * (double)rows * (double)width * (double)vocab;
    double ours = median(RUNS, both), theirs = median(RUNS, unavoidable);
    printf("linear_logprobs.threads %d threads\n", prefopt_context_threads(s.context));
    printf("linear_logprobs.forward_s %.4f s\n", median(RUNS, forward));
    printf("linear_logprobs.backward_s %.4f s\n", median(RUNS, backward));
    printf("linear_logprobs.both_s %.4f s\n", ours);
    printf("linear_logprobs.product_logits_s %.4f s\n", median(RUNS, logits));
    printf("linear_logprobs.product_grad_hidden_s %.4f s\n", median(RUNS, grad_hidden));
    printf("linear_logprobs.product_grad_weight_s %.4f s\n", median(RUNS, grad_weight));
    printf("linear_logprobs.products_s %.4f s\n", theirs);
    printf("linear_logprobs.products_gflops %.1f GFLOP/s\n", 4 * flops / theirs * 1e-9);
    printf("linear_logprobs.against_products %.3f times\n", ours / theirs);
    ours = median(RUNS, cpu_both), theirs = median(RUNS, cpu_unavoidable);
    printf("linear_logprobs.both_cpu_s %.4f s\n", ours);
    printf("linear_logprobs.products_cpu_s %.4f s\n", theirs);
    printf("linear_logprobs.against_products_cpu %.3f times\n", ours / theirs);
    printf("linear_logprobs.whole_products_cpu_s %.4f s\n", median(RUNS, cpu_whole));
    printf("linear_logprobs.against_whole_products_cpu %.3f times\n",
           ours / median(RUNS, cpu_whole));
    prefopt_context_destroy(s.context);
    return 0;
}
