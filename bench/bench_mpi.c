/* DPO training steps of a language model on the ranks of an MPI job, one thread each.
 *
 *     mpirun -n RANKS bench_mpi 14m|70m [STEPS]
 *
 * A whole batch of 8 pairs, 256 tokens each sequence, 64 of them prompt, whatever the ranks: what a
 * step gains. Lines are of rank 0: medians over STEPS (default 5) after one that warms up; and the
 * sum of a gradient of that size alone. */
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "prefopt/mpi.h"
#include "prefopt/prefopt.h"

enum { PAIRS = 8, LENGTH = 256, PROMPT = 64, MOST = 1000 };

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void need(int32_t status)
{
    if (status == PREFOPT_OK)
        return;
    fprintf(stderr, "bench_mpi: %s %s\n", prefopt_last_error(), prefopt_mpi_last_error());
    MPI_Abort(MPI_COMM_WORLD, 1);
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median(int n, double *values)
{
    qsort(values, (size_t)n, sizeof *values, by_value);
    return values[n / 2];
}

static prefopt_dataset *random_pairs(prefopt_context *context, int64_t vocab)
{
    prefopt_dataset *pairs;
    need(prefopt_dataset_create(&pairs, context));
    for (int i = 0; i < PAIRS; i++) {
        int32_t token[2 * LENGTH];
        for (int k = 0; k < 2 * LENGTH; k++) {
            double u;
            need(prefopt_random_uniform(1, (uint64_t)i, (uint64_t)k, 1, &u));
            token[k] = (int32_t)(u * (double)vocab);
        }
        need(prefopt_dataset_append_pair(pairs, token, PROMPT, token + PROMPT, LENGTH - PROMPT,
                                         token + LENGTH, LENGTH - PROMPT, 1, 1, 0));
    }
    return pairs;
}

/* Seconds of one sum of the gradient. */
static double sum_seconds(const prefopt_collective *c, float *values, int64_t n)
{
    double runs[5];
    for (int i = 0; i < 5; i++) {
        MPI_Barrier(MPI_COMM_WORLD);
        double start = now();
        need(c->sum_f32(c->payload, values, n));
        runs[i] = now() - start;
    }
    return median(5, runs);
}

int main(int argc, char **argv)
{
    prefopt_mpi *mpi;
    prefopt_transformer_config config;
    prefopt_context_options options;
    prefopt_train_options train;
    prefopt_context *context;
    prefopt_policy *policy;
    prefopt_reference *reference;
    prefopt_trainer *trainer;
    MPI_Init(&argc, &argv);
    need(prefopt_mpi_create(&mpi, MPI_COMM_WORLD));
    need(prefopt_transformer_config_init(&config, sizeof config));
    if (argc < 2 || (strcmp(argv[1], "14m") != 0 && strcmp(argv[1], "70m") != 0)) {
        fprintf(stderr, "bench_mpi 14m|70m [STEPS]\n");
        return 2;
    }
    if (strcmp(argv[1], "14m") == 0) {
        config.width = 128;
        config.n_heads = 4;
        config.ff_width = 512;
    }
    int steps = argc > 2 ? atoi(argv[2]) : 5;
    if (steps < 1 || steps > MOST)
        steps = 5;
    need(prefopt_context_options_init(&options, sizeof options));
    options.threads = 1;
    need(prefopt_context_create(&context, &options));
    need(prefopt_policy_create_transformer(&policy, context, &config, 1));
    need(prefopt_reference_freeze(&reference, policy));
    prefopt_dataset *pairs = random_pairs(context, config.vocab);
    need(prefopt_train_options_init(&train, sizeof train));
    const prefopt_collective *c = train.collective = prefopt_mpi_collective(mpi);
    train.learning_rate = 1e-5;
    need(prefopt_trainer_create_dpo(&trainer, policy, reference, pairs, NULL, &train));
    static double seconds[MOST];
    need(prefopt_trainer_run(trainer, 1, NULL));
    for (int s = 0; s < steps; s++) {
        double start = now();
        need(prefopt_trainer_run(trainer, 1, NULL));
        seconds[s] = now() - start;
    }
    prefopt_parameters p = {.struct_size = sizeof p};
    need(prefopt_policy_parameters(policy, &p));
    double step = median(steps, seconds), sum = sum_seconds(c, p.grad, p.n);
    if (c->rank == 0) {
        printf("mpi.ranks %lld ranks\n", (long long)c->size);
        printf("mpi.step %.4f s\n", step);
        printf("mpi.tokens_per_s %.0f token/s\n", PAIRS * 2 * LENGTH / step);
        printf("mpi.gradient_mb %.1f MB\n", 4e-6 * (double)p.n);
        printf("mpi.sum %.4f s\n", sum);
    }
    prefopt_trainer_destroy(trainer);
    prefopt_dataset_destroy(pairs);
    prefopt_reference_destroy(reference);
    prefopt_policy_destroy(policy);
    prefopt_context_destroy(context);
    prefopt_mpi_destroy(mpi);
    MPI_Finalize();
    return 0;
}
