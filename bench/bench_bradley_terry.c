/* A Bradley-Terry fit of many comparisons.
 *
 *     bench_bradley_terry [ROWS ITEMS [THREADS [FILE]]]        1000000 5000, all cores
 *
 * Items meet at random; strengths are standard normal. Medians of 5 runs, and one with standard
 * errors, which cost ITEMS^3. With FILE the comparisons (first, second: int32; label: double) and
 * the fitted strengths (double) are written there one after the other and the standard errors are
 * left out: bench_bradley_terry.py runs another library on the same rows. */
#define _GNU_SOURCE
#include <string.h>

#include "bench.h"
#include "math/pf_math.h"

enum { RUNS = 5 };

static void draw(int64_t rows, int64_t items, int32_t *first, int32_t *second, double *label)
{
    double *u = malloc((size_t)(3 * rows) * sizeof *u);
    double *theta = malloc((size_t)items * sizeof *theta);
    must(u != NULL && theta != NULL, "memory");
    need(prefopt_random_uniform(1, 1, 0, 3 * rows, u));
    need(prefopt_random_normal(1, 2, 0, items, theta));
    for (int64_t i = 0; i < rows; i++) {
        first[i] = (int32_t)(u[3 * i] * (double)items);
        int32_t step = 1 + (int32_t)(u[3 * i + 1] * (double)(items - 1));
        second[i] = (int32_t)(((int64_t)first[i] + step) % items);
        label[i] = u[3 * i + 2] < pf_sigmoid(theta[first[i]] - theta[second[i]]);
    }
    free(u);
    free(theta);
}

static double fit(prefopt_context *context, const prefopt_comparisons *data, double *theta,
                  double *std_error, prefopt_strengths_summary *summary)
{
    prefopt_strengths *strengths;
    double start = now();
    need(prefopt_strengths_fit(&strengths, context, data, NULL, NULL));
    need(prefopt_strengths_values(strengths, theta, std_error));
    double seconds = now() - start;
    need(prefopt_strengths_summarise(strengths, summary));
    prefopt_strengths_destroy(strengths);
    return seconds;
}

static void write_out(const char *path, const prefopt_comparisons *data, const double *theta)
{
    FILE *file = fopen(path, "wb");
    must(file != NULL, path);
    size_t n = (size_t)data->n, items = (size_t)data->n_items;
    int good = fwrite(data->first, sizeof *data->first, n, file) == n &&
               fwrite(data->second, sizeof *data->second, n, file) == n &&
               fwrite(data->label, sizeof *data->label, n, file) == n &&
               fwrite(theta, sizeof *theta, items, file) == items;
    must(fclose(file) == 0 && good, path);
}

int main(int argc, char **argv)
{
    int64_t rows = argc > 2 ? atoll(argv[1]) : 1000000, items = argc > 2 ? atoll(argv[2]) : 5000;
    must(rows > 0 && items > 1 && items <= INT32_MAX, "ROWS or ITEMS");
    prefopt_context_options options;
    prefopt_context *context;
    prefopt_context_options_init(&options, sizeof options);
    options.threads = argc > 3 ? atoi(argv[3]) : 0;
    need(prefopt_context_create(&context, &options));
    int32_t *first = malloc((size_t)rows * sizeof *first),
            *second = malloc((size_t)rows * sizeof *second);
    double *label = malloc((size_t)rows * sizeof *label);
    double *theta = malloc((size_t)items * sizeof *theta), *se = malloc((size_t)items * sizeof *se);
    must(first && second && label && theta && se, "memory");
    draw(rows, items, first, second, label);
    prefopt_comparisons data = {.struct_size = sizeof data,
                                .n_items = items,
                                .n = rows,
                                .first = first,
                                .second = second,
                                .label = label};
    prefopt_strengths_summary summary = {.struct_size = sizeof summary};
    double seconds[RUNS];
    for (int k = 0; k < RUNS; k++)
        seconds[k] = fit(context, &data, theta, NULL, &summary);
    qsort(seconds, RUNS, sizeof *seconds, by_value);
    printf("bradley_terry_threads %d threads\n", prefopt_context_threads(context));
    printf("bradley_terry_fit %.4f s\n", seconds[RUNS / 2]);
    printf("bradley_terry_newton_steps %lld steps\n", (long long)summary.iterations);
    printf("bradley_terry_gradient_norm %.3g per_comparison\n", summary.grad_norm);
    printf("bradley_terry_log_likelihood %.10f nats\n", summary.log_likelihood);
    printf("bradley_terry_fit_peak %.1f MB\n", peak_mb());
    if (argc > 4) {
        write_out(argv[4], &data, theta);
    } else {
        printf("bradley_terry_fit_and_errors %.4f s\n", fit(context, &data, theta, se, &summary));
        printf("bradley_terry_errors_peak %.1f MB\n", peak_mb());
    }
    prefopt_context_destroy(context);
    free(first);
    free(second);
    free(label);
    free(theta);
    free(se);
    return 0;
}
