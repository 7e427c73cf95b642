/* What the fuzz targets share. A target never fails an input: it looks for crashes, reads beyond an
 * end, leaks, and time or memory out of proportion. */
#ifndef FUZZ_H
#define FUZZ_H

#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/pf_base.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* One context for all inputs, with one thread. */
static inline prefopt_context *fuzz_context(void)
{
    static prefopt_context *context;
    prefopt_context_options options;
    if (context == NULL && prefopt_context_options_init(&options, sizeof options) == PREFOPT_OK) {
        options.threads = 1;
        if (prefopt_context_create(&context, &options) != PREFOPT_OK)
            abort();
    }
    return context;
}

/* What must hold, or the input is a finding. */
#define MUST(condition)                                                                            \
    do {                                                                                           \
        if (!(condition))                                                                          \
            abort();                                                                               \
    } while (0)

/* A failure is one that the call documents, and says why. */
static inline void check_failure(int32_t status)
{
    MUST(status == PREFOPT_ERR_FORMAT || status == PREFOPT_ERR_UNSUPPORTED ||
         status == PREFOPT_ERR_MEMORY);
    MUST(prefopt_last_error()[0] != 0);
}

#endif
