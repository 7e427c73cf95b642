/* What the programs here share: clocks, the end of a program that cannot go on, medians. Define
 * _GNU_SOURCE before the first include. */
#ifndef BENCH_H
#define BENCH_H

#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <time.h>

#include "prefopt/prefopt.h"

static inline double clock_seconds(clockid_t clock)
{
    struct timespec t;
    clock_gettime(clock, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static inline double now(void) { return clock_seconds(CLOCK_MONOTONIC); }

/* Processor seconds of this process. */
static inline double processor(void) { return clock_seconds(CLOCK_PROCESS_CPUTIME_ID); }

static inline double peak_mb(void)
{
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    return (double)usage.ru_maxrss / 1024;
}

/* The library has to do it. */
static inline void need(int32_t status)
{
    if (status == PREFOPT_OK)
        return;
    fprintf(stderr, "%s: %s: %s\n", program_invocation_short_name, prefopt_status_name(status),
            prefopt_last_error());
    exit(1);
}

/* So has anything else. */
static inline void must(int good, const char *what)
{
    if (good)
        return;
    fprintf(stderr, "%s: %s%s%s\n", program_invocation_short_name, what, errno == 0 ? "" : ": ",
            errno == 0 ? "" : strerror(errno));
    exit(1);
}

static inline int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Sorts them. */
static inline double median(int n, double *values)
{
    qsort(values, (size_t)n, sizeof *values, by_value);
    return values[n / 2];
}

/* Uniform on (-scale, scale), in huge pages. */
static inline float *random_floats(int64_t n, float scale, uint64_t seed)
{
    void *x = NULL;
    must((errno = posix_memalign(&x, (size_t)2 << 20, (size_t)n * sizeof(float))) == 0, "memory");
    (void)madvise(x, (size_t)n * sizeof(float), MADV_HUGEPAGE);
    for (int64_t i = 0; i < n; i++) {
        seed = seed * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
        ((float *)x)[i] = scale * ((float)(seed >> 40) * 0x1p-23f - 1);
    }
    return x;
}

#endif
