/* prefopt/base.h: status codes, the error text, the context, option structs, random numbers.
 *
 *     prefopt_context *context;
 *     if (prefopt_context_create(&context, NULL) != PREFOPT_OK)
 *         fprintf(stderr, "%s\n", prefopt_last_error());
 *     ...
 *     prefopt_context_destroy(context);
 *
 * Rules that hold for every call of the library:
 *   - Fallible calls return an int32_t: 0 fine, above 0 a clean stop, below 0 a code from
 *     prefopt_status. When a call fails its outputs are as before, and prefopt_last_error()
 *     names the value and what was expected.
 *   - Arrays are C-contiguous and borrowed for the call. No function takes ownership. A handle
 *     that keeps another holds a reference to it, so handles may be destroyed in any order.
 *   - Structs start with `struct_size`, to be set to sizeof the struct. Option structs are filled
 *     by their prefopt_..._options_init; where an options pointer may be NULL, NULL means the
 *     defaults. A struct smaller than its first release is PREFOPT_ERR_VERSION, and so is a larger
 *     one whose unknown tail is not zero.
 *   - An option or array that the chosen variant does not use is PREFOPT_ERR_ARGUMENT.
 *   - Logarithms are natural. A log-probability of -INFINITY is legal and means "never".
 *   - Distinct handles may be used on distinct threads; calls that take a handle as `const` may run
 *     at once on one handle.
 *   - Same inputs, seed and build give the same bits, whatever the number of threads.
 */
#ifndef PREFOPT_BASE_H
#define PREFOPT_BASE_H

#include <stdint.h>

#if defined(__GNUC__)
#define PREFOPT_API __attribute__((visibility("default")))
#else
#define PREFOPT_API
#endif

#define PREFOPT_VERSION_MAJOR 0
#define PREFOPT_VERSION_MINOR 1
#define PREFOPT_VERSION_PATCH 0

#ifdef __cplusplus
extern "C" {
#endif

/* Status codes. The numbers are pinned for ever. */
enum prefopt_status {
    PREFOPT_OK = 0,
    PREFOPT_STOPPED = 1,       /* a callback asked to stop; the state is consistent */
    PREFOPT_ERR_ARGUMENT = -1, /* an argument out of its range, or one the variant does not use */
    PREFOPT_ERR_MEMORY = -2,   /* an allocation failed, or a size overflows */
    PREFOPT_ERR_IO = -3,       /* a file could not be opened, read or written */
    PREFOPT_ERR_FORMAT = -4,   /* a file's content */
    PREFOPT_ERR_NUMERIC = -5,  /* NaN, or an infinity where it has no meaning */
    PREFOPT_ERR_UNSUPPORTED = -6, /* this handle or build cannot do that */
    PREFOPT_ERR_STATE = -7,       /* the handle is not in a state for this call */
    PREFOPT_ERR_VERSION = -8,     /* struct_size */
    PREFOPT_ERR_CALLBACK = -9,    /* a callback of the caller failed */
    PREFOPT_ERR_UNBOUNDED = -10   /* the optimum is not finite: separable or disconnected data */
};

/* Version of the library at run time: major << 16 | minor << 8 | patch. Thread-safe. Since 0.1. */
PREFOPT_API uint32_t prefopt_version(void);

/* Version of the library as text, e.g. "0.1.0"; static. Thread-safe. Since 0.1. */
PREFOPT_API const char *prefopt_version_string(void);

/* Name of a status code, e.g. "PREFOPT_ERR_ARGUMENT"; "PREFOPT_UNKNOWN" for any other number;
 * static. Thread-safe. Since 0.1. */
PREFOPT_API const char *prefopt_status_name(int32_t status);

/* Text of the last failure on this thread; "" when there was none. The text stays until the next
 * failure on the same thread, and needs no memory. Since 0.1. */
PREFOPT_API const char *prefopt_last_error(void);

/* Size in bytes of a public struct, by name ("prefopt_pair_scores"); -1 if unknown. For bindings.
 * Thread-safe. Since 0.1. */
PREFOPT_API int64_t prefopt_sizeof(const char *struct_name);

/* Offset in bytes of a field of a public struct; -1 if unknown. For bindings. Thread-safe. Since
 * 0.1. */
PREFOPT_API int64_t prefopt_offsetof(const char *struct_name, const char *field);

/* ---------------------------------------------------------------- context */

/* The context: where memory comes from, where log lines go, how many threads work. Handles hold a
 * reference to theirs. One context may serve handles on many threads at once. */
typedef struct prefopt_context prefopt_context;

enum prefopt_log_level { PREFOPT_LOG_DEBUG = 0, PREFOPT_LOG_INFO = 1, PREFOPT_LOG_WARNING = 2 };

typedef struct prefopt_context_options {
    uint32_t struct_size;
    int32_t threads; /* >= 1; 0 (default): the cores this process may run on */
    int64_t
        byte_budget; /* bytes that one call may use for temporaries it can size; default 256 MiB */
    /* Both or neither. allocate returns NULL when it has nothing; alignment is a power of two.
     * Called from any thread that works for the context. Default: aligned_alloc and free. */
    void *(*allocate)(void *payload, uint64_t size, uint64_t alignment);
    void (*release)(void *payload, void *pointer);
    void *allocator_payload;
    /* May be NULL (default): nothing is logged. The message is valid during the call alone. */
    void (*log)(void *payload, int32_t level, const char *message);
    void *log_payload;
} prefopt_context_options;

/* Fills options with the defaults. struct_size: sizeof *options.
 * Errors: ARGUMENT (NULL), VERSION. Thread-safe. Since 0.1. */
PREFOPT_API int32_t prefopt_context_options_init(prefopt_context_options *options,
                                                 uint32_t struct_size);

/* Creates a context. options NULL: defaults. The caller owns *out.
 * Errors: ARGUMENT, MEMORY, VERSION. Thread-safe. Since 0.1. */
PREFOPT_API int32_t prefopt_context_create(prefopt_context **out,
                                           const prefopt_context_options *options);

/* Gives up the caller's reference; NULL is fine. Handles made with it stay usable. Since 0.1. */
PREFOPT_API void prefopt_context_destroy(prefopt_context *context);

/* Number of threads the context works with; 0 for NULL. Thread-safe. Since 0.1. */
PREFOPT_API int32_t prefopt_context_threads(const prefopt_context *context);

/* ---------------------------------------------------------------- random numbers */

/* Draws first .. first + n - 1 of stream `stream` under `seed`, uniform on the open interval (0, 1)
 * with 52 random bits. Counter-based (Philox 4x32-10, Salmon et al. 2011): a draw depends on
 * (seed, stream, index) alone. out: n doubles. n = 0 is fine.
 * Errors: ARGUMENT (NULL, n < 0). Thread-safe. Since 0.1. */
PREFOPT_API int32_t prefopt_random_uniform(uint64_t seed, uint64_t stream, uint64_t first,
                                           int64_t n, double *out);

/* The same for standard normal draws (Box-Muller, each from its own counter). Since 0.1. */
PREFOPT_API int32_t prefopt_random_normal(uint64_t seed, uint64_t stream, uint64_t first, int64_t n,
                                          double *out);

#ifdef __cplusplus
}
#endif
#endif
