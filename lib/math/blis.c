/* Matrix products over BLIS: the only file that sees blis.h.
 *
 * Which kernels run. BLIS 0.9 (and later 1.x, 2.x) choose by the CPU's vendor and family, and fall
 * back to portable kernels, five times slower, on a CPU newer than themselves. So before BLIS
 * starts: where its table cannot know the CPU (AMD families after 0x19, other vendors than Intel
 * and AMD) and the CPU has the instructions, it is asked for the best set that fits. Its only door
 * for that is the environment variable BLIS_ARCH_TYPE. If the user has set it, or BLIS was started
 * by the host before us, nothing is done; and the variable is seen by BLIS's start alone: for that
 * moment `environ` points at a copy with one entry more. setenv would not do: it may free the array
 * that a getenv on another thread is reading. The copy is kept for the life of the process, for the
 * same reason.
 *
 * Threads. BLIS is called single-threaded (rntm), from tiles of our own: its own threads would
 * split one product differently for each number of them, and so change the bits. */
#define _GNU_SOURCE
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "math/pf_gemm.h"

#if defined(__has_include)
#if __has_include(<blis.h>)
#include <blis.h>
#else
#include <blis/blis.h>
#endif
#else
#include <blis.h>
#endif

#if defined(__x86_64__)
#include <cpuid.h>
#endif

/* ---------------------------------------------------------------- the choice of kernels */

static pthread_once_t start_once = PTHREAD_ONCE_INIT;
static char **start_environ;       /* the copy, kept */
static char start_setting[32];     /* its extra entry */
static atomic_bool start_told = 0; /* a log line was written */

#if defined(__x86_64__) && defined(BLIS_CONFIG_SKX) && defined(BLIS_CONFIG_ZEN3) &&                \
    defined(BLIS_CONFIG_HASWELL)
/* The id to ask for, or -1 where BLIS's own choice is good. */
static int32_t wanted_kernels(void)
{
    unsigned a, b, c, d;
    if (!__get_cpuid(0, &a, &b, &c, &d))
        return -1;
    bool amd = b == signature_AMD_ebx && c == signature_AMD_ecx && d == signature_AMD_edx;
    bool intel = b == signature_INTEL_ebx && c == signature_INTEL_ecx && d == signature_INTEL_edx;
    if (intel || !__get_cpuid(1, &a, &b, &c, &d))
        return -1;
    unsigned family = (a >> 8 & 0xf) + (a >> 20 & 0xff);
    if (amd && family <= 0x19)
        return -1;
    __builtin_cpu_init();
    /* These ask the operating system too: it must save the wide registers. */
    if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma"))
        return -1;
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
        __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl"))
        return BLIS_ARCH_SKX;
    return amd ? BLIS_ARCH_ZEN3 : BLIS_ARCH_HASWELL;
}

/* The header's number must mean the same set in the library that runs. bli_arch_string is a table
 * look-up that starts nothing. */
static bool number_means(int32_t id)
{
    const char *name = id == BLIS_ARCH_SKX ? "skx" : id == BLIS_ARCH_ZEN3 ? "zen3" : "haswell";
    return strcmp(bli_arch_string((arch_t)id), name) == 0;
}
#else
static int32_t wanted_kernels(void) { return -1; }
static bool number_means(int32_t id) { return id >= 0; }
#endif

static void start_blis(void)
{
    int32_t id = getenv("BLIS_ARCH_TYPE") == NULL ? wanted_kernels() : -1;
    if (id >= 0 && number_means(id)) {
        char **old = environ;
        size_t n = 0;
        while (old != NULL && old[n] != NULL)
            n++;
        start_environ = malloc((n + 2) * sizeof *start_environ);
        if (start_environ != NULL) {
            snprintf(start_setting, sizeof start_setting, "BLIS_ARCH_TYPE=%d", id);
            if (n > 0)
                memcpy(start_environ, old, n * sizeof *old);
            start_environ[n] = start_setting;
            start_environ[n + 1] = NULL;
            environ = start_environ;
            bli_init();
            environ = old;
            return;
        }
    }
    bli_init();
}

const char *pf_gemm_kernels(void)
{
    pthread_once(&start_once, start_blis);
    return bli_arch_string(bli_arch_query_id());
}

int32_t pf_gemm_portable_kernels(void) { return BLIS_ARCH_GENERIC; }

/* BLIS ends the process when it gets no memory for its packing buffers, about 25 MiB at its start;
 * so whether there is as much is tried once before. (More than 32 MiB: freeing less would move
 * glibc's threshold between heap and mmap. volatile: or the compiler leaves the trial out.) */
enum { START_ROOM = 40 << 20 };
static atomic_bool start_had_room = 0;

static int32_t try_room(void)
{
    if (atomic_load_explicit(&start_had_room, memory_order_relaxed))
        return PREFOPT_OK;
    void *volatile room = malloc(START_ROOM);
    if (room == NULL)
        return pf_fail(PREFOPT_ERR_MEMORY,
                       "matrix products: no %d MiB for the packing buffers of BLIS",
                       START_ROOM >> 20);
    free(room);
    atomic_store(&start_had_room, true);
    return PREFOPT_OK;
}

int32_t pf_gemm_start(const prefopt_context *context)
{
    PF_TRY(try_room());
    pthread_once(&start_once, start_blis);
    if (pf_context_logs(context) && !atomic_load_explicit(&start_told, memory_order_relaxed) &&
        !atomic_exchange(&start_told, true))
        pf_log(context, PREFOPT_LOG_INFO, "matrix products: BLIS %s, %s kernels%s",
               bli_info_get_version_str(), pf_gemm_kernels(),
               start_environ != NULL ? " (chosen by the CPU's features)" : "");
    return PREFOPT_OK;
}

/* ---------------------------------------------------------------- checks */

static int32_t check_matrix(const char *call, const char *name, const void *pointer, int64_t rows,
                            int64_t columns, int64_t ld)
{
    if (rows == 0 || columns == 0)
        return PREFOPT_OK;
    if (pointer == NULL)
        return pf_fail(PREFOPT_ERR_ARGUMENT, "%s: %s is NULL", call, name);
    int64_t elements, bytes;
    if (ld < columns)
        return pf_fail(PREFOPT_ERR_ARGUMENT,
                       "%s: the rows of %s are %lld elements apart, expected at least %lld", call,
                       name, (long long)ld, (long long)columns);
    if (!pf_mul(rows, ld, &elements) || !pf_mul(elements, sizeof(double), &bytes))
        return pf_fail(PREFOPT_ERR_ARGUMENT, "%s: the size of %s overflows (%lld x %lld)", call,
                       name, (long long)rows, (long long)ld);
    return PREFOPT_OK;
}

static int32_t check_gemm(const char *call, bool trans_a, bool trans_b, int64_t m, int64_t n,
                          int64_t k, const void *a, int64_t lda, const void *b, int64_t ldb,
                          const void *c, int64_t ldc)
{
    if (m < 0 || n < 0 || k < 0)
        return pf_fail(PREFOPT_ERR_ARGUMENT, "%s: m, n, k are %lld, %lld, %lld, expected >= 0",
                       call, (long long)m, (long long)n, (long long)k);
    if (m == 0 || n == 0)
        return PREFOPT_OK;
    PF_TRY(check_matrix(call, "a", a, trans_a ? k : m, trans_a ? m : k, lda));
    PF_TRY(check_matrix(call, "b", b, trans_b ? n : k, trans_b ? k : n, ldb));
    return check_matrix(call, "c", c, m, n, ldc);
}

/* ---------------------------------------------------------------- tiles */

/* A product's tiles: large, so that what BLIS copies to pack a tile's operands (m k + k n elements)
 * is small beside its 2 m n k operations; and at least 4, for the threads. Tall tiles lose least
 * (what is packed of B serves all of m): against 512 x 1024, one core loses 2 to 5 % at 512 x 512
 * and 512 x 256, 15 % at 512 x 128, 20 % at 256 x 128, 30 % at 128 x 128. So the largest shape that
 * gives 4 tiles is taken, with 1024 columns only where they leave 8; products too small to matter
 * are left whole. */
enum { GEMV_TILE = 512 };
static const double least_operations = 16e6;
static const struct {
    int64_t m, n, least_tiles;
} tile_shapes[] = {
    {512, 1024, 8}, {512, 512, 4}, {512, 256, 4}, {512, 128, 4}, {256, 128, 4}, {128, 128, 0},
};

static int64_t tiles(int64_t n, int64_t tile) { return n / tile + (n % tile != 0); }

/* Tile `task` of n items cut into `count` parts as even as multiples of 16 allow. */
static void tile_range(int64_t n, int64_t tile, int64_t task, int64_t *first, int64_t *length)
{
    int64_t count = tiles(n, tile);
    int64_t each = tiles(tiles(n, count), 16) * 16;
    *first = task * each < n ? task * each : n;
    *length = n - *first < each ? n - *first : each;
}

/* One product, of float or double as `is_double` says; tiles are cut out of C. */
typedef struct {
    bool is_double, trans_a, trans_b;
    int64_t m, n, k, lda, ldb, ldc;
    double alpha, beta;
    const void *a, *b;
    void *c;
    int64_t tile_m, tile_n;
} product;

/* The first shape that gives enough tiles. */
static void choose_tiles(product *p)
{
    size_t shape = 0;
    if (2.0 * (double)p->m * (double)p->n * (double)p->k >= least_operations)
        while (tiles(p->m, tile_shapes[shape].m) * tiles(p->n, tile_shapes[shape].n) <
               tile_shapes[shape].least_tiles)
            shape++;
    p->tile_m = tile_shapes[shape].m;
    p->tile_n = tile_shapes[shape].n;
}

static rntm_t one_thread(void)
{
    rntm_t rntm = BLIS_RNTM_INITIALIZER;
    bli_rntm_set_num_threads(1, &rntm);
    return rntm;
}

static trans_t trans_of(bool trans) { return trans ? BLIS_TRANSPOSE : BLIS_NO_TRANSPOSE; }

/* Rows i .. i + m - 1 and columns j .. j + n - 1 of C. */
static void multiply(const product *p, int64_t i, int64_t m, int64_t j, int64_t n)
{
    if (m <= 0 || n <= 0)
        return;
    rntm_t rntm = one_thread();
    int64_t at_a = p->trans_a ? i : i * p->lda, at_b = p->trans_b ? j * p->ldb : j;
    int64_t at_c = i * p->ldc + j;
    trans_t ta = trans_of(p->trans_a), tb = trans_of(p->trans_b);
    if (p->is_double) {
        double alpha = p->alpha, beta = p->beta;
        bli_dgemm_ex(ta, tb, m, n, p->k, &alpha, (double *)p->a + at_a, p->lda, 1,
                     (double *)p->b + at_b, p->ldb, 1, &beta, (double *)p->c + at_c, p->ldc, 1,
                     NULL, &rntm);
    } else {
        float alpha = (float)p->alpha, beta = (float)p->beta;
        bli_sgemm_ex(ta, tb, m, n, p->k, &alpha, (float *)p->a + at_a, p->lda, 1,
                     (float *)p->b + at_b, p->ldb, 1, &beta, (float *)p->c + at_c, p->ldc, 1, NULL,
                     &rntm);
    }
}

static void gemm_task(void *payload, int64_t task)
{
    const product *p = payload;
    int64_t tiles_m = tiles(p->m, p->tile_m), i, j, m, n;
    tile_range(p->m, p->tile_m, task % tiles_m, &i, &m);
    tile_range(p->n, p->tile_n, task / tiles_m, &j, &n);
    multiply(p, i, m, j, n);
}

/* C = beta C, where the product is empty. */
static void scale_only(const product *p)
{
    for (int64_t i = 0; i < p->m; i++)
        for (int64_t j = 0; j < p->n; j++) {
            int64_t at = i * p->ldc + j;
            if (p->is_double)
                ((double *)p->c)[at] = p->beta == 0 ? 0 : p->beta * ((double *)p->c)[at];
            else
                ((float *)p->c)[at] = p->beta == 0 ? 0 : (float)p->beta * ((float *)p->c)[at];
        }
}

static int32_t gemm(prefopt_context *context, const char *call, bool serial, product *p)
{
    PF_TRY(check_gemm(call, p->trans_a, p->trans_b, p->m, p->n, p->k, p->a, p->lda, p->b, p->ldb,
                      p->c, p->ldc));
    if (p->m == 0 || p->n == 0)
        return PREFOPT_OK;
    PF_TRY(pf_gemm_start(context));
    if (p->k == 0 || p->alpha == 0)
        scale_only(p);
    else if (serial)
        multiply(p, 0, p->m, 0, p->n);
    else {
        choose_tiles(p);
        pf_parallel_for(context, tiles(p->m, p->tile_m) * tiles(p->n, p->tile_n), gemm_task, p);
    }
    return PREFOPT_OK;
}

int32_t pf_dgemm(prefopt_context *context, bool trans_a, bool trans_b, int64_t m, int64_t n,
                 int64_t k, double alpha, const double *a, int64_t lda, const double *b,
                 int64_t ldb, double beta, double *c, int64_t ldc)
{
    product p = {true, trans_a, trans_b, m, n, k, lda, ldb, ldc, alpha, beta, a, b, c, 0, 0};
    return gemm(context, __func__, false, &p);
}

int32_t pf_sgemm(prefopt_context *context, bool trans_a, bool trans_b, int64_t m, int64_t n,
                 int64_t k, float alpha, const float *a, int64_t lda, const float *b, int64_t ldb,
                 float beta, float *c, int64_t ldc)
{
    product p = {false, trans_a, trans_b, m, n, k, lda, ldb, ldc, alpha, beta, a, b, c, 0, 0};
    return gemm(context, __func__, false, &p);
}

int32_t pf_sgemm_serial(bool trans_a, bool trans_b, int64_t m, int64_t n, int64_t k, float alpha,
                        const float *a, int64_t lda, const float *b, int64_t ldb, float beta,
                        float *c, int64_t ldc)
{
    product p = {false, trans_a, trans_b, m, n, k, lda, ldb, ldc, alpha, beta, a, b, c, 0, 0};
    return gemm(NULL, __func__, true, &p);
}

/* ---------------------------------------------------------------- matrix times vector */

typedef struct {
    bool trans;
    int64_t m, n, lda;
    double alpha, beta;
    const double *a, *x;
    double *y;
} vector_product;

/* Elements of y in tiles: rows of A, or its columns where it is transposed. */
static void gemv_task(void *payload, int64_t task)
{
    const vector_product *p = payload;
    int64_t first, length;
    tile_range(p->trans ? p->n : p->m, GEMV_TILE, task, &first, &length);
    if (length <= 0)
        return;
    rntm_t rntm = one_thread();
    double alpha = p->alpha, beta = p->beta;
    bli_dgemv_ex(trans_of(p->trans), BLIS_NO_CONJUGATE, p->trans ? p->m : length,
                 p->trans ? length : p->n, &alpha,
                 (double *)p->a + (p->trans ? first : first * p->lda), p->lda, 1, (double *)p->x, 1,
                 &beta, p->y + first, 1, NULL, &rntm);
}

int32_t pf_dgemv(prefopt_context *context, bool trans, int64_t m, int64_t n, double alpha,
                 const double *a, int64_t lda, const double *x, double beta, double *y)
{
    if (m < 0 || n < 0)
        return pf_fail(PREFOPT_ERR_ARGUMENT, "%s: m, n are %lld, %lld, expected >= 0", __func__,
                       (long long)m, (long long)n);
    int64_t n_x = trans ? m : n, n_y = trans ? n : m;
    if (n_y == 0)
        return PREFOPT_OK;
    PF_REQUIRE(y);
    PF_TRY(check_matrix(__func__, "a", a, m, n, lda));
    if (n_x == 0 || alpha == 0) {
        product p = {.is_double = true, .m = 1, .n = n_y, .ldc = n_y, .beta = beta, .c = y};
        scale_only(&p);
        return PREFOPT_OK;
    }
    PF_REQUIRE(x);
    PF_TRY(pf_gemm_start(context));
    vector_product p = {trans, m, n, lda, alpha, beta, a, x, y};
    pf_parallel_for(context, tiles(n_y, GEMV_TILE), gemv_task, &p);
    return PREFOPT_OK;
}
