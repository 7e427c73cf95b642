/* Time of the float32 kernels of a transformer on one thread, the fastest of many runs.
 *
 * bench_ops [part of a name]
 *
 * Rows are those of a block that fits the L2 cache (as the tasks of a parallel loop take them) and,
 * where the name says memory, of an array that does not. */
#define _GNU_SOURCE
#include <stdbool.h>
#include <string.h>

#include "bench.h"
#include "math/pf_gemm.h"
#include "math/pf_ops.h"

static const char *only = "";

static float *array(int64_t n)
{
    static uint64_t seed = 1;
    float *x = aligned_alloc(64, (size_t)(n * 4 + 63) / 64 * 64);
    if (x == NULL)
        exit(1);
    for (int64_t i = 0; i < n; i++) {
        seed = seed * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
        x[i] = (float)(seed >> 40) * 0x1p-22f - 2;
    }
    return x;
}

/* Seconds of the statement: the fastest of runs of at least 0.2 ms, for 60 ms. */
#define FASTEST(best, statement)                                                                   \
    do {                                                                                           \
        int64_t times_ = 1;                                                                        \
        best = 1e9;                                                                                \
        for (double end_ = now() + 0.06; now() < end_;) {                                          \
            double start_ = now();                                                                 \
            for (int64_t t_ = 0; t_ < times_; t_++) {                                              \
                statement;                                                                         \
            }                                                                                      \
            double took_ = now() - start_, each_ = took_ / (double)times_;                         \
            if (took_ < 2e-4)                                                                      \
                times_ *= 2;                                                                       \
            best = each_ < best ? each_ : best;                                                    \
        }                                                                                          \
    } while (0)

#define REPORT(name, unit, value, statement)                                                       \
    do {                                                                                           \
        if (strstr(name, only) != NULL) {                                                          \
            double s;                                                                              \
            FASTEST(s, statement);                                                                 \
            printf("ops.%s %.3f %s\n", name, value, unit);                                         \
        }                                                                                          \
    } while (0)

static void rows_of(const char *where, int64_t rows, int64_t width)
{
    int64_t n = rows * width;
    float *x = array(n), *y = array(n), *dy = array(n), *gamma = array(width), *beta = array(width);
    float *dgamma = array(width), *dbeta = array(width), *mean = array(rows), *rstd = array(rows);
    char name[64];
#define ROW_REPORT(what, statement)                                                                \
    snprintf(name, sizeof name, "%s_%s", what, where);                                             \
    REPORT(name, "ns/element", 1e9 * s / (double)n, statement)
    ROW_REPORT("copy", memcpy(y, x, (size_t)n * 4));
    ROW_REPORT("accumulate", pf_accumulate(n, x, y));
    ROW_REPORT("gelu", pf_gelu(rows, width, PF_GELU, x, beta, y));
    ROW_REPORT("gelu_tanh", pf_gelu(rows, width, PF_GELU_TANH, x, beta, y));
    ROW_REPORT("copy_and_gelu_backward", memcpy(dy, y, (size_t)n * 4);
               pf_gelu_backward(rows, width, PF_GELU, x, beta, dy));
    ROW_REPORT("copy_and_gelu_tanh_backward", memcpy(dy, y, (size_t)n * 4);
               pf_gelu_backward(rows, width, PF_GELU_TANH, x, beta, dy));
    ROW_REPORT("layer_norm", pf_layer_norm(rows, width, x, gamma, beta, 1e-5, y, mean, rstd));
    ROW_REPORT("layer_norm_apply", pf_layer_norm_apply(rows, width, x, mean, rstd, gamma, beta, y));
    memset(y, 0, (size_t)n * 4);
    for (int64_t i = 0; i < n; i++)
        dy[i] = 1e-3f;
    ROW_REPORT("layer_norm_backward",
               pf_layer_norm_backward(rows, width, x, mean, rstd, gamma, dy, y, dgamma, dbeta));
    ROW_REPORT("add_bias", pf_add_bias(rows, width, beta, y, width));
    ROW_REPORT("add_columns", pf_add_columns(rows, width, x, width, dgamma));
    free(x), free(y), free(dy), free(gamma), free(beta), free(dgamma), free(dbeta), free(mean);
    free(rstd);
}

static void softmax_of(int64_t rows, int64_t columns, int64_t first)
{
    int64_t n = rows * columns;
    float *s = array(n), *p = array(n), *dp = array(n), *lse = array(rows);
    double live = 0;
    for (int64_t i = 0; i < rows; i++)
        live += (double)(first + i + 1 < columns ? first + i + 1 : columns);
    char name[64];
#define SOFT_REPORT(what, statement)                                                               \
    snprintf(name, sizeof name, "%s_%lldx%lld_from_%lld", what, (long long)rows,                   \
             (long long)columns, (long long)first + 1);                                            \
    if (strstr(name, only) != NULL) {                                                              \
        double seconds;                                                                            \
        FASTEST(seconds, statement);                                                               \
        printf("ops.%s %.3f ns/element\n", name, 1e9 * seconds / live);                            \
    }
    /* softmax of its own result is a softmax all the same */
    SOFT_REPORT("softmax", pf_softmax_rows(rows, columns, columns, first, 0.125f, p, lse));
    memcpy(p, s, (size_t)n * 4);
    pf_softmax_rows(rows, columns, columns, first, 0.125f, p, lse);
    SOFT_REPORT("softmax_again", pf_softmax_again(rows, columns, columns, first, 0.125f, lse, dp));
    memcpy(dp, s, (size_t)n * 4);
    SOFT_REPORT("softmax_backward", pf_softmax_backward(rows, columns, columns, first, 1, p, dp));
    free(s), free(p), free(dp), free(lse);
}

static void product_of(int64_t m, int64_t n, int64_t k)
{
    float *x = array(m * k), *w = array(n * k), *y = array(m * n);
    double flops = 2e-9 * (double)m * (double)n * (double)k, seconds;
    char name[64];
    snprintf(name, sizeof name, "skinny_product_%lldx%lldx%lld", (long long)m, (long long)n,
             (long long)k);
    if (strstr(name, only) != NULL) {
        FASTEST(seconds, pf_skinny_product(m, n, k, x, k, w, k, NULL, false, y, n));
        printf("ops.%s %.1f GFLOP/s\n", name, flops / seconds);
        printf("ops.%s_bytes %.1f GB/s\n", name, 4e-9 * (double)(n * k) / seconds);
        FASTEST(seconds, pf_sgemm_serial(false, true, m, n, k, 1, x, k, w, k, 0, y, n));
        printf("ops.%s_by_blis %.1f GFLOP/s\n", name, flops / seconds);
    }
    free(x), free(w), free(y);
}

static void combine_of(int64_t m, int64_t n, int64_t k)
{
    float *a = array(m * k), *v = array(n * k), *y = array(m * n);
    double flops = 2e-9 * (double)m * (double)n * (double)k, seconds;
    char name[64];
    snprintf(name, sizeof name, "skinny_combine_%lldx%lldx%lld", (long long)m, (long long)n,
             (long long)k);
    if (strstr(name, only) != NULL) {
        FASTEST(seconds, pf_skinny_combine(m, n, k, a, k, v, n, y, n));
        printf("ops.%s %.1f GFLOP/s\n", name, flops / seconds);
    }
    free(a), free(v), free(y);
}

int main(int argc, char **argv)
{
    only = argc > 1 ? argv[1] : "";
    rows_of("cache", 64, 512);
    rows_of("memory", 32768, 512);
    softmax_of(256, 256, 0);
    softmax_of(64, 512, 511);
    int64_t n = 65536;
    uint16_t *half = calloc((size_t)n, sizeof *half);
    float *x = array(n), *cosine = array(8), *sine = array(8);
    REPORT("f32_from_f16", "ns/element", 1e9 * s / (double)n, pf_f32_from_f16(n, half, x));
    REPORT("f16_from_f32", "ns/element", 1e9 * s / (double)n, pf_f16_from_f32(n, x, half));
    REPORT("bf16_from_f32", "ns/element", 1e9 * s / (double)n, pf_bf16_from_f32(n, x, half));
    for (int64_t i = 0; i < n; i++)
        x[i] = 1;
    REPORT("rotary_8_heads_of_64_half_8", "ns/row", 1e9 * s,
           pf_rotary(8, 64, 8, cosine, sine, false, x));
    free(half), free(x), free(cosine), free(sine);
    product_of(1, 2048, 512);
    product_of(1, 512, 2048);
    product_of(1, 50304, 512);
    product_of(4, 2048, 512);
    product_of(25, 2048, 512);
    product_of(25, 512, 2048);
    product_of(25, 50304, 512);
    product_of(64, 2048, 512);
    product_of(25, 512, 128);
    product_of(25, 128, 64);
    combine_of(25, 64, 128);
    combine_of(1, 64, 256);
    return 0;
}
