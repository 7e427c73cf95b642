/* What every test program shares: Check, a main that runs one suite, and a few measures. */
#ifndef PF_TEST_H
#define PF_TEST_H

#include <check.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "prefopt/prefopt.h"

/* The call succeeds, or the test fails with the library's own text. */
#define OK(call)                                                                                   \
    do {                                                                                           \
        int32_t status_ = (call);                                                                  \
        ck_assert_msg(status_ == PREFOPT_OK, "%s: %s: %s", #call, prefopt_status_name(status_),    \
                      prefopt_last_error());                                                       \
    } while (0)

/* The call fails with that code, and the error text contains `text`. */
#define FAILS(code, text, call)                                                                    \
    do {                                                                                           \
        int32_t status_ = (call);                                                                  \
        ck_assert_msg(status_ == (code), "%s: %s, expected %s (%s)", #call,                        \
                      prefopt_status_name(status_), prefopt_status_name(code),                     \
                      prefopt_last_error());                                                       \
        ck_assert_msg(strstr(prefopt_last_error(), (text)) != NULL,                                \
                      "%s: the error text \"%s\" does not contain \"%s\"", #call,                  \
                      prefopt_last_error(), (text));                                               \
    } while (0)

/* |a - b| <= tolerance * max(1, |a|, |b|); equal infinities are close. */
static inline int close_to(double a, double b, double tolerance)
{
    if (a == b)
        return 1;
    double scale = fmax(1.0, fmax(fabs(a), fabs(b)));
    return isfinite(a) && isfinite(b) && fabs(a - b) <= tolerance * scale;
}

#define CLOSE(a, b, tolerance)                                                                     \
    do {                                                                                           \
        double a_ = (a), b_ = (b);                                                                 \
        ck_assert_msg(close_to(a_, b_, tolerance), "%s = %.17g, expected %s = %.17g (within %g)",  \
                      #a, a_, #b, b_, (double)(tolerance));                                        \
    } while (0)

static inline prefopt_context *test_context(int32_t threads)
{
    prefopt_context_options options;
    OK(prefopt_context_options_init(&options, sizeof options));
    options.threads = threads;
    prefopt_context *context = NULL;
    OK(prefopt_context_create(&context, &options));
    return context;
}

/* An allocator that counts what lives and fails at one chosen call. Put it into a context's options
 * and run a constructor with fail_at = 1, 2, 3 ... until it succeeds: each failure must be
 * PREFOPT_ERR_MEMORY with `live` back where it was. */
typedef struct {
    int64_t calls, fail_at /* 0: never */, live;
} counting_allocator;

static inline void *counting_allocate(void *payload, uint64_t size, uint64_t alignment)
{
    counting_allocator *a = payload;
    if (++a->calls == a->fail_at)
        return NULL;
    a->live++;
    return aligned_alloc(alignment, (size + alignment - 1) / alignment * alignment);
}

static inline void counting_release(void *payload, void *pointer)
{
    ((counting_allocator *)payload)->live--;
    free(pointer);
}

/* One thread, this allocator (create it with fail_at 0 first). */
static inline prefopt_context *counting_context(counting_allocator *allocator)
{
    prefopt_context_options options;
    OK(prefopt_context_options_init(&options, sizeof options));
    options.threads = 1;
    options.allocate = counting_allocate;
    options.release = counting_release;
    options.allocator_payload = allocator;
    prefopt_context *context = NULL;
    OK(prefopt_context_create(&context, &options));
    return context;
}

/* Makes the call fail for want of memory at its first allocation, its second ... until it succeeds:
 * `failures` becomes how often. A failure is PREFOPT_ERR_MEMORY and gives back what it took; then
 * `unchanged` must hold. */
#define FAIL_AT_EACH(allocator, failures, call, unchanged)                                         \
    do {                                                                                           \
        int64_t live_ = (allocator)->live;                                                         \
        for (failures = 0;; failures++) {                                                          \
            (allocator)->calls = 0;                                                                \
            (allocator)->fail_at = failures + 1;                                                   \
            int32_t status_ = (call);                                                              \
            ck_assert_int_eq((allocator)->live, live_);                                            \
            if (status_ == PREFOPT_OK)                                                             \
                break;                                                                             \
            ck_assert_int_eq(status_, PREFOPT_ERR_MEMORY);                                         \
            ck_assert(unchanged);                                                                  \
        }                                                                                          \
        (allocator)->fail_at = 0;                                                                  \
    } while (0)

/* Defines main() for a program whose tests are the given array of const TTest *, each between
 * set_up and tear_down. */
#define TEST_MAIN_IN(set_up, tear_down, suite_name, ...)                                           \
    int main(void)                                                                                 \
    {                                                                                              \
        const TTest *tests_[] = {__VA_ARGS__};                                                     \
        Suite *suite_ = suite_create(suite_name);                                                  \
        TCase *tcase_ = tcase_create(suite_name);                                                  \
        tcase_set_timeout(tcase_, 0);                                                              \
        tcase_add_checked_fixture(tcase_, set_up, tear_down);                                      \
        for (size_t i_ = 0; i_ < sizeof tests_ / sizeof tests_[0]; i_++)                           \
            tcase_add_test(tcase_, tests_[i_]);                                                    \
        suite_add_tcase(suite_, tcase_);                                                           \
        SRunner *runner_ = srunner_create(suite_);                                                 \
        srunner_run_all(runner_, CK_ENV);                                                          \
        int failed_ = srunner_ntests_failed(runner_);                                              \
        srunner_free(runner_);                                                                     \
        return failed_ == 0 ? EXIT_SUCCESS : EXIT_FAILURE;                                         \
    }

/* The same without. */
#define TEST_MAIN(suite_name, ...) TEST_MAIN_IN(NULL, NULL, suite_name, __VA_ARGS__)

#endif
