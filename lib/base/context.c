/* The context: memory, log, threads. Reference-counted, because handles keep theirs. */
#define _GNU_SOURCE
#include <sched.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "base/pf_base.h"

struct prefopt_context {
    prefopt_context_options options;
    _Atomic int64_t references;
    _Atomic(pf_pool *) pool;
};

enum { ALIGNMENT = 64 };

static const prefopt_context_options defaults = {
    .struct_size = sizeof(prefopt_context_options),
    .byte_budget = INT64_C(256) << 20,
};

int32_t prefopt_context_options_init(prefopt_context_options *options, uint32_t struct_size)
{
    return pf_struct_init(options, struct_size, &defaults, sizeof defaults, sizeof defaults,
                          "prefopt_context_options");
}

/* Large blocks lie on huge pages where the system offers them: the first touch of 200 MB took
 * 0.55 s in pages of 4 KiB and 0.01 s in huge ones, on a virtual machine. */
static void *default_allocate(void *payload, uint64_t size, uint64_t alignment)
{
    (void)payload;
    const uint64_t huge = UINT64_C(2) << 20;
    if (size >= 4 * huge && alignment < huge)
        alignment = huge;
    uint64_t rounded = (size + alignment - 1) / alignment * alignment;
    void *pointer = rounded < size ? NULL : aligned_alloc(alignment, rounded);
#ifdef MADV_HUGEPAGE
    if (pointer != NULL && alignment == huge)
        (void)madvise(pointer, rounded, MADV_HUGEPAGE);
#endif
    return pointer;
}

static void default_release(void *payload, void *pointer)
{
    (void)payload;
    free(pointer);
}

static int32_t cores(void)
{
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof set, &set) != 0)
        return 1;
    int count = CPU_COUNT(&set);
    return count > 0 ? count : 1;
}

int32_t prefopt_context_create(prefopt_context **out, const prefopt_context_options *options)
{
    PF_REQUIRE(out);
    prefopt_context_options own = defaults;
    if (options != NULL)
        PF_TRY(pf_struct_read(&own, sizeof own, sizeof own, options, "prefopt_context_options"));
    if (own.threads < 0 || own.threads > 4096)
        return pf_fail(PREFOPT_ERR_ARGUMENT, "threads is %d, expected 0 (all cores) to 4096",
                       own.threads);
    if (own.byte_budget < 1)
        return pf_fail(PREFOPT_ERR_ARGUMENT, "byte_budget is %lld, expected at least 1",
                       (long long)own.byte_budget);
    if ((own.allocate == NULL) != (own.release == NULL))
        return pf_fail(PREFOPT_ERR_ARGUMENT, "%s is NULL but %s is not: expected both or neither",
                       own.allocate == NULL ? "allocate" : "release",
                       own.allocate == NULL ? "release" : "allocate");
    if (own.allocate == NULL && own.allocator_payload != NULL)
        return pf_fail(PREFOPT_ERR_ARGUMENT, "allocator_payload is set without allocate");
    if (own.log == NULL && own.log_payload != NULL)
        return pf_fail(PREFOPT_ERR_ARGUMENT, "log_payload is set without log");
    if (own.allocate == NULL) {
        own.allocate = default_allocate;
        own.release = default_release;
    }
    if (own.threads == 0)
        own.threads = cores();
    prefopt_context *context = own.allocate(own.allocator_payload, sizeof *context, ALIGNMENT);
    if (context == NULL)
        return pf_fail(PREFOPT_ERR_MEMORY, "no memory for a context (%zu bytes)", sizeof *context);
    context->options = own;
    atomic_init(&context->references, 1);
    atomic_init(&context->pool, NULL);
    *out = context;
    return PREFOPT_OK;
}

prefopt_context *pf_context_retain(prefopt_context *context)
{
    atomic_fetch_add_explicit(&context->references, 1, memory_order_relaxed);
    return context;
}

void pf_context_release(prefopt_context *context)
{
    if (context == NULL)
        return;
    if (atomic_fetch_sub_explicit(&context->references, 1, memory_order_acq_rel) != 1)
        return;
    pf_pool *pool = atomic_load(&context->pool);
    if (pool != NULL)
        pf_pool_destroy(context, pool);
    context->options.release(context->options.allocator_payload, context);
}

void prefopt_context_destroy(prefopt_context *context) { pf_context_release(context); }

int32_t prefopt_context_threads(const prefopt_context *context)
{
    return context == NULL ? 0 : context->options.threads;
}

int64_t pf_context_byte_budget(const prefopt_context *context)
{
    return context->options.byte_budget;
}

_Atomic(pf_pool *) *pf_context_pool(prefopt_context *context) { return &context->pool; }

void *pf_alloc(prefopt_context *context, int64_t n, size_t size)
{
    int64_t bytes;
    if (n < 0 || !pf_mul(n, (int64_t)size, &bytes)) {
        pf_fail(PREFOPT_ERR_MEMORY, "a size overflows: %lld elements of %zu bytes", (long long)n,
                size);
        return NULL;
    }
    const prefopt_context_options *o = &context->options;
    void *pointer = o->allocate(o->allocator_payload, bytes > 0 ? (uint64_t)bytes : 1, ALIGNMENT);
    if (pointer == NULL)
        pf_fail(PREFOPT_ERR_MEMORY, "no memory: %lld bytes asked for", (long long)bytes);
    return pointer;
}

void *pf_calloc(prefopt_context *context, int64_t n, size_t size)
{
    void *pointer = pf_alloc(context, n, size);
    if (pointer != NULL)
        memset(pointer, 0, (size_t)n * size);
    return pointer;
}

void pf_free(prefopt_context *context, void *pointer)
{
    if (pointer != NULL)
        context->options.release(context->options.allocator_payload, pointer);
}

int32_t pf_grow(prefopt_context *context, void **array, int64_t used, int64_t *capacity,
                int64_t needed, size_t size)
{
    if (needed <= *capacity)
        return PREFOPT_OK;
    int64_t grown = *capacity < 16 ? 16 : *capacity;
    while (grown < needed)
        if (!pf_mul(grown, 2, &grown))
            return pf_fail(PREFOPT_ERR_MEMORY, "a size overflows: %lld elements of %zu bytes",
                           (long long)needed, size);
    void *bigger = pf_alloc(context, grown, size);
    if (bigger == NULL)
        return PREFOPT_ERR_MEMORY;
    if (used > 0)
        memcpy(bigger, *array, (size_t)used * size);
    pf_free(context, *array);
    *array = bigger;
    *capacity = grown;
    return PREFOPT_OK;
}

bool pf_context_logs(const prefopt_context *context)
{
    return context != NULL && context->options.log != NULL;
}

void pf_log(const prefopt_context *context, int32_t level, const char *format, ...)
{
    if (!pf_context_logs(context))
        return;
    char text[512];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    context->options.log(context->options.log_payload, level, text);
}
