/* Matrix products against plain loops: transposes, strides, alpha and beta, empty and bad shapes,
 * and the same bits for any number of threads. */
#define _GNU_SOURCE
#include <sys/resource.h>
#include <unistd.h>

#include "pf_test.h"

#include "math/pf_gemm.h"

static prefopt_context *context_with(int32_t threads)
{
    prefopt_context_options options;
    OK(prefopt_context_options_init(&options, sizeof options));
    options.threads = threads;
    prefopt_context *context = NULL;
    OK(prefopt_context_create(&context, &options));
    return context;
}

static double *doubles(int64_t n, uint64_t stream)
{
    double *x = malloc((size_t)(n > 0 ? n : 1) * sizeof *x);
    OK(prefopt_random_normal(7, stream, 0, n, x));
    return x;
}

static float *floats(int64_t n, uint64_t stream)
{
    double *x = doubles(n, stream);
    float *f = malloc((size_t)(n > 0 ? n : 1) * sizeof *f);
    for (int64_t i = 0; i < n; i++)
        f[i] = (float)x[i];
    free(x);
    return f;
}

/* Rows as stored are three elements longer than needed; those must stay as they were. */
static void check_shape(prefopt_context *context, int64_t m, int64_t n, int64_t k, bool ta, bool tb,
                        double alpha, double beta)
{
    int64_t rows_a = ta ? k : m, lda = (ta ? m : k) + 3;
    int64_t rows_b = tb ? n : k, ldb = (tb ? k : n) + 3, ldc = n + 3;
    double *a = doubles(rows_a * lda, 1), *b = doubles(rows_b * ldb, 2), *c = doubles(m * ldc, 3);
    float *fa = floats(rows_a * lda, 1), *fb = floats(rows_b * ldb, 2), *fc = floats(m * ldc, 3);
    float *fs = floats(m * ldc, 3);
    double *before = doubles(m * ldc, 3);
    if (beta == 0)
        for (int64_t i = 0; i < m; i++)
            for (int64_t j = 0; j < n; j++) {
                c[i * ldc + j] = NAN;
                fc[i * ldc + j] = fs[i * ldc + j] = NAN;
            }
    OK(pf_dgemm(context, ta, tb, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc));
    OK(pf_sgemm(context, ta, tb, m, n, k, (float)alpha, fa, lda, fb, ldb, (float)beta, fc, ldc));
    OK(pf_sgemm_serial(ta, tb, m, n, k, (float)alpha, fa, lda, fb, ldb, (float)beta, fs, ldc));
    for (int64_t i = 0; i < m; i++)
        for (int64_t j = 0; j < ldc; j++) {
            double expected = before[i * ldc + j];
            if (j < n) {
                double sum = 0;
                for (int64_t l = 0; l < k; l++)
                    sum += (ta ? a[l * lda + i] : a[i * lda + l]) *
                           (tb ? b[j * ldb + l] : b[l * ldb + j]);
                expected = alpha * sum + (beta == 0 ? 0 : beta * expected);
            }
            double f_tolerance = 2e-6 * sqrt((double)(k + 2)) + 1e-6;
            bool good = close_to(c[i * ldc + j], expected, 1e-13 * (double)(k + 2)) &&
                        close_to(fc[i * ldc + j], expected, f_tolerance) &&
                        close_to(fs[i * ldc + j], expected, f_tolerance);
            if (!good)
                ck_abort_msg("[%d, %d] is %.17g, %.9g, %.9g, expected %.17g", (int)i, (int)j,
                             c[i * ldc + j], fc[i * ldc + j], fs[i * ldc + j], expected);
        }
    free(a), free(b), free(c), free(fa), free(fb), free(fc), free(fs), free(before);
}

START_TEST(products_equal_plain_loops)
{
    static const int64_t shapes[][3] = {{1, 1, 1},   {1, 7, 3},    {5, 1, 9},   {3, 4, 0},
                                        {33, 17, 5}, {64, 48, 32}, {50, 1, 70}, {130, 70, 61}};
    prefopt_context *context = context_with(2);
    for (size_t s = 0; s < sizeof shapes / sizeof shapes[0]; s++)
        for (int transposes = 0; transposes < 4; transposes++)
            for (int scales = 0; scales < 4; scales++)
                check_shape(scales % 2 ? context : NULL, shapes[s][0], shapes[s][1], shapes[s][2],
                            transposes & 1, transposes & 2, scales == 3 ? 0 : 1.5 - scales,
                            scales == 0 ? 0 : 0.5 * scales);
    check_shape(context, 1040, 20, 6, false, true, 1, 1);
    check_shape(context, 9, 2070, 6, true, false, 1, 0);
    /* enough work to be cut into tiles of every shape */
    check_shape(context, 520, 530, 33, true, false, 1, 0);
    check_shape(context, 300, 270, 110, false, true, 1, 1);
    check_shape(context, 530, 90, 200, true, true, 1, 0);
    prefopt_context_destroy(context);
}
END_TEST

START_TEST(gemv_equals_plain_loops)
{
    static const int64_t shapes[][2] = {{1, 1}, {3, 0}, {0, 4}, {7, 1200}, {1500, 9}, {64, 33}};
    prefopt_context *context = context_with(3);
    for (size_t s = 0; s < sizeof shapes / sizeof shapes[0]; s++)
        for (int variant = 0; variant < 8; variant++) {
            int64_t m = shapes[s][0], n = shapes[s][1], lda = n + 2;
            bool trans = variant & 1;
            double alpha = variant & 2 ? 2 : 0, beta = variant & 4 ? -0.5 : 0;
            int64_t n_x = trans ? m : n, n_y = trans ? n : m;
            double *a = doubles(m * lda, 1), *x = doubles(n_x, 2), *y = doubles(n_y, 3);
            double *before = doubles(n_y, 3);
            for (int64_t i = 0; i < n_y && beta == 0; i++)
                y[i] = NAN;
            OK(pf_dgemv(context, trans, m, n, alpha, a, lda, x, beta, y));
            for (int64_t i = 0; i < n_y; i++) {
                double sum = 0;
                for (int64_t l = 0; l < n_x; l++)
                    sum += (trans ? a[l * lda + i] : a[i * lda + l]) * x[l];
                double expected = alpha * sum + (beta == 0 ? 0 : beta * before[i]);
                if (!close_to(y[i], expected, 1e-11))
                    ck_abort_msg("y[%d] is %.17g, expected %.17g", (int)i, y[i], expected);
            }
            free(a), free(x), free(y), free(before);
        }
    prefopt_context_destroy(context);
}
END_TEST

START_TEST(bits_do_not_depend_on_threads)
{
    enum { M = 600, N = 1100, K = 40 };
    double *a = doubles(M * K, 1), *b = doubles(K * N, 2);
    float *fa = floats(M * K, 1), *fb = floats(K * N, 2);
    double *c[4], *y[4];
    float *fc[4];
    for (int32_t threads = 0; threads < 4; threads++) {
        prefopt_context *context = threads == 0 ? NULL : context_with(threads);
        c[threads] = malloc(M * N * sizeof(double));
        fc[threads] = malloc(M * N * sizeof(float));
        y[threads] = malloc((M + N) * sizeof(double));
        OK(pf_dgemm(context, false, false, M, N, K, 1, a, K, b, N, 0, c[threads], N));
        OK(pf_sgemm(context, false, false, M, N, K, 1, fa, K, fb, N, 0, fc[threads], N));
        OK(pf_dgemv(context, true, K, N, 1, b, N, a, 0, y[threads]));
        OK(pf_dgemv(context, false, M, K, 1, a, K, b, 0, y[threads] + N));
        ck_assert_mem_eq(c[threads], c[0], M * N * sizeof(double));
        ck_assert_mem_eq(fc[threads], fc[0], M * N * sizeof(float));
        ck_assert_mem_eq(y[threads], y[0], (M + N) * sizeof(double));
        prefopt_context_destroy(context);
    }
    for (int i = 0; i < 4; i++)
        free(c[i]), free(fc[i]), free(y[i]);
    free(a), free(b), free(fa), free(fb);
}
END_TEST

START_TEST(bad_shapes_are_refused)
{
    double x[16] = {0}, y[16] = {1, 2};
    float f[16] = {0};
    int32_t bad = PREFOPT_ERR_ARGUMENT;
    FAILS(bad, "m, n, k are -1", pf_dgemm(NULL, 0, 0, -1, 2, 2, 1, x, 2, x, 2, 0, y, 2));
    FAILS(bad, "a is NULL", pf_dgemm(NULL, 0, 0, 2, 2, 2, 1, NULL, 2, x, 2, 0, y, 2));
    FAILS(bad, "b is NULL", pf_dgemm(NULL, 0, 0, 2, 2, 2, 1, x, 2, NULL, 2, 0, y, 2));
    FAILS(bad, "c is NULL", pf_dgemm(NULL, 0, 0, 2, 2, 2, 1, x, 2, x, 2, 0, NULL, 2));
    FAILS(bad, "rows of a", pf_dgemm(NULL, 0, 0, 2, 2, 3, 1, x, 2, x, 2, 0, y, 2));
    FAILS(bad, "rows of b", pf_dgemm(NULL, 0, 1, 2, 2, 3, 1, x, 3, x, 2, 0, y, 2));
    FAILS(bad, "rows of c", pf_sgemm(NULL, 0, 0, 2, 3, 2, 1, f, 2, f, 3, 0, f, 2));
    FAILS(bad, "overflows", pf_sgemm(NULL, 0, 0, 2, 2, 2, 1, f, INT64_MAX / 2 + 1, f, 2, 0, f, 2));
    FAILS(bad, "expected >= 0", pf_sgemm_serial(0, 0, 2, 2, -3, 1, f, 2, f, 2, 0, f, 2));
    FAILS(bad, "m, n are", pf_dgemv(NULL, 0, -1, 2, 1, x, 2, x, 0, y));
    FAILS(bad, "a is NULL", pf_dgemv(NULL, 0, 2, 2, 1, NULL, 2, x, 0, y));
    FAILS(bad, "x is NULL", pf_dgemv(NULL, 0, 2, 2, 1, x, 2, NULL, 0, y));
    FAILS(bad, "y is NULL", pf_dgemv(NULL, 0, 2, 2, 1, x, 2, x, 0, NULL));
    FAILS(bad, "rows of a", pf_dgemv(NULL, 0, 2, 2, 1, x, 1, x, 0, y));
    ck_assert(y[0] == 1 && y[1] == 2);
    OK(pf_dgemm(NULL, 0, 0, 0, 2, 2, 1, NULL, 2, NULL, 2, 0, NULL, 2));
    OK(pf_dgemv(NULL, 0, 0, 2, 1, NULL, 2, NULL, 0, NULL));
}
END_TEST

static void keep_line(void *payload, int32_t level, const char *message)
{
    ck_assert_int_eq(level, PREFOPT_LOG_INFO);
    snprintf(payload, 256, "%s", message);
}

/* Each Check test is a process of its own, so BLIS has not started here. */
START_TEST(log_names_the_kernels)
{
    const char *fork = getenv("CK_FORK");
    if (fork != NULL && strcmp(fork, "no") == 0)
        return; /* the line may have gone to another context */
    char line[256] = "";
    prefopt_context_options options;
    OK(prefopt_context_options_init(&options, sizeof options));
    options.log = keep_line;
    options.log_payload = line;
    prefopt_context *context = NULL;
    OK(prefopt_context_create(&context, &options));
    double x = 3, y = 0;
    OK(pf_dgemm(context, 0, 0, 1, 1, 1, 1, &x, 1, &x, 1, 0, &y, 1));
    ck_assert(y == 9);
    ck_assert_msg(strstr(line, pf_gemm_kernels()) != NULL, "the log says \"%s\"", line);
    ck_assert_ptr_null(getenv("BLIS_ARCH_TYPE"));
    prefopt_context_destroy(context);
}
END_TEST

START_TEST(users_choice_of_kernels_stands)
{
    const char *fork = getenv("CK_FORK");
    if (fork != NULL && strcmp(fork, "no") == 0)
        return; /* BLIS has started by now */
    char number[16];
    snprintf(number, sizeof number, "%d", pf_gemm_portable_kernels());
    ck_assert_int_eq(setenv("BLIS_ARCH_TYPE", number, 1), 0);
    ck_assert_str_eq(pf_gemm_kernels(), "generic");
    ck_assert_str_eq(getenv("BLIS_ARCH_TYPE"), number);
}
END_TEST

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define LIMITED 0 /* their shadow memory is beyond any limit */
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer) ||                         \
    __has_feature(memory_sanitizer)
#define LIMITED 0
#endif
#endif
#ifndef LIMITED
#define LIMITED 1
#endif

/* BLIS would end the process. */
START_TEST(too_little_memory_is_an_error)
{
    const char *fork = getenv("CK_FORK");
    if (!LIMITED || (fork != NULL && strcmp(fork, "no") == 0))
        return; /* BLIS has started by now */
    struct rlimit all, little;
    long long pages = 0;
    FILE *file = fopen("/proc/self/statm", "r");
    ck_assert_ptr_nonnull(file);
    ck_assert_int_eq(fscanf(file, "%lld", &pages), 1);
    fclose(file);
    ck_assert_int_eq(getrlimit(RLIMIT_AS, &all), 0);
    little = all;
    little.rlim_cur = (rlim_t)pages * (rlim_t)sysconf(_SC_PAGESIZE) + (8 << 20);
    double x = 3, y = 7;
    prefopt_context *context = context_with(1);
    ck_assert_int_eq(setrlimit(RLIMIT_AS, &little), 0);
    int32_t product = pf_dgemm(context, 0, 0, 1, 1, 1, 1, &x, 1, &x, 1, 0, &y, 1);
    int32_t vector = pf_dgemv(context, 0, 1, 1, 1, &x, 1, &x, 0, &y);
    ck_assert_int_eq(setrlimit(RLIMIT_AS, &all), 0);
    ck_assert_int_eq(product, PREFOPT_ERR_MEMORY);
    ck_assert_int_eq(vector, PREFOPT_ERR_MEMORY);
    ck_assert(y == 7);
    ck_assert_msg(strstr(prefopt_last_error(), "BLIS") != NULL, "%s", prefopt_last_error());
    OK(pf_dgemm(context, 0, 0, 1, 1, 1, 1, &x, 1, &x, 1, 0, &y, 1));
    ck_assert(y == 9);
    prefopt_context_destroy(context);
}
END_TEST

TEST_MAIN("gemm", too_little_memory_is_an_error, products_equal_plain_loops,
          gemv_equals_plain_loops, bits_do_not_depend_on_threads, bad_shapes_are_refused,
          log_names_the_kernels, users_choice_of_kernels_stands)
