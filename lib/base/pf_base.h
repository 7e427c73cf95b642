/* Internal face of the base room: errors, memory, struct sizes, random draws, the parallel loop. */
#ifndef PF_BASE_H
#define PF_BASE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "prefopt/base.h"

/* ---- errors (status.c) */

/* Writes the thread's error text and returns code. First word: the call or field at fault. */
int32_t pf_fail(int32_t code, const char *format, ...) __attribute__((format(printf, 2, 3), cold));

/* Puts "context: " before the thread's error text and returns code, for errors passed on. */
int32_t pf_fail_in(int32_t code, const char *format, ...)
    __attribute__((format(printf, 2, 3), cold));

/* NULL check of a required pointer: PF_REQUIRE(in) fails with "in is NULL". */
#define PF_REQUIRE(pointer)                                                                        \
    do {                                                                                           \
        if ((pointer) == NULL)                                                                     \
            return pf_fail(PREFOPT_ERR_ARGUMENT, "%s: %s is NULL", __func__, #pointer);            \
    } while (0)

#define PF_TRY(call)                                                                               \
    do {                                                                                           \
        int32_t pf_status_ = (call);                                                               \
        if (pf_status_ != PREFOPT_OK)                                                              \
            return pf_status_;                                                                     \
    } while (0)

/* ---- size-first structs (options.c) */

/* Checks the caller's struct (first field struct_size) against v1_size, the size of its first
 * release, and a zero tail beyond our size; then copies what it has over *own, which holds defaults
 * for fields the caller's older struct lacks. own->struct_size becomes our size. */
int32_t pf_struct_read(void *own, uint32_t own_size, uint32_t v1_size, const void *callers,
                       const char *name);

/* For prefopt_X_options_init: checks struct_size and copies the defaults, zeroing an unknown tail.
 */
int32_t pf_struct_init(void *callers, uint32_t struct_size, const void *defaults, uint32_t own_size,
                       uint32_t v1_size, const char *name);

/* For structs that are all output (where the caller sets arrays to fill, pf_struct_read checks the
 * tail): the caller's size may be smaller than ours (not below v1) or larger. Writes
 * min(size, own_size) bytes of own but leaves the caller's struct_size. */
int32_t pf_struct_check_out(const void *callers, uint32_t v1_size, const char *name);
void pf_struct_write(void *callers, const void *own, uint32_t own_size);

/* ---- memory (context.c) */

/* n elements of `size` bytes, 64-byte aligned, not cleared; n = 0 gives a valid pointer. NULL with
 * the error text set (MEMORY) when it overflows or there is none. pf_calloc clears. */
void *pf_alloc(prefopt_context *context, int64_t n, size_t size);
void *pf_calloc(prefopt_context *context, int64_t n, size_t size);
void pf_free(prefopt_context *context, void *pointer);

/* Grows *array (used of *capacity elements) so that `needed` fit, at least doubling. On failure
 * nothing changed. */
int32_t pf_grow(prefopt_context *context, void **array, int64_t used, int64_t *capacity,
                int64_t needed, size_t size);

prefopt_context *pf_context_retain(prefopt_context *context);
void pf_context_release(prefopt_context *context);
int64_t pf_context_byte_budget(const prefopt_context *context);
bool pf_context_logs(const prefopt_context *context); /* there is a log callback; NULL: no */
void pf_log(const prefopt_context *context, int32_t level, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* a * b, a + b of non-negative sizes; false on overflow. */
static inline bool pf_mul(int64_t a, int64_t b, int64_t *out)
{
    return !__builtin_mul_overflow(a, b, out);
}
static inline bool pf_add(int64_t a, int64_t b, int64_t *out)
{
    return !__builtin_add_overflow(a, b, out);
}

/* ---- random draws (random.c) */

double pf_uniform(uint64_t seed, uint64_t stream, uint64_t index);
double pf_normal(uint64_t seed, uint64_t stream, uint64_t index);
/* Uniform on 0 .. n - 1 (n >= 1). */
int64_t pf_uniform_int(uint64_t seed, uint64_t stream, uint64_t index, int64_t n);
/* A stream number from two parts, well mixed (splitmix64's finaliser). */
uint64_t pf_stream(uint64_t a, uint64_t b);
/* order[0 .. n-1] = a random permutation of 0 .. n-1 (Fisher-Yates). */
void pf_permutation(uint64_t seed, uint64_t stream, int64_t n, int64_t *order);

/* FNV-1a style 64-bit hash of bytes, chained from `hash` (start with PF_HASH_START). */
#define PF_HASH_START UINT64_C(0xcbf29ce484222325)
uint64_t pf_hash(uint64_t hash, const void *bytes, size_t n);

/* Hash of much memory, chained from `hash`, on the context's threads (NULL: on this one) and the
 * same for any number of them. Not for adversaries. (content_hash.c) */
uint64_t pf_content_hash(prefopt_context *context, uint64_t hash, const void *bytes, int64_t n);

/* ---- the parallel loop (parallel.c) */

typedef void pf_task_fn(void *payload, int64_t task);

/* Runs fn(payload, 0 .. n_tasks - 1) on the context's threads; returns when all are done. What a
 * task computes must depend on its number alone, and tasks must write disjoint memory: then the
 * bits do not depend on the threads. Tasks do not fail and do not call back into the caller's code.
 * When the pool is busy (another thread, or a nested loop) the loop runs on the calling thread.
 * context may be NULL: the calling thread alone. */
void pf_parallel_for(prefopt_context *context, int64_t n_tasks, pf_task_fn *fn, void *payload);

/* Owned by the context; made at its first parallel loop. */
typedef struct pf_pool pf_pool;
void pf_pool_destroy(prefopt_context *context, pf_pool *pool);
/* The slot in the context that holds the pool. */
_Atomic(pf_pool *) *pf_context_pool(prefopt_context *context);

#endif
