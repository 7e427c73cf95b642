/* Which token may follow which. */
#include <stdatomic.h>

#include "model/pf_transformer.h"

static int32_t check(int64_t vocab, const uint8_t *allowed)
{
    for (int64_t before = 0; before < vocab; before++) {
        const uint8_t *row = allowed + before * vocab;
        bool any = false;
        for (int64_t v = 0; v < vocab; v++) {
            if (row[v] > 1)
                return pf_fail(PREFOPT_ERR_ARGUMENT, "allowed[%lld, %lld] is %d, expected 0 or 1",
                               (long long)before, (long long)v, row[v]);
            any |= row[v] == 1;
        }
        if (!any)
            return pf_fail(PREFOPT_ERR_ARGUMENT,
                           "allowed: no token may follow token %lld, expected at least one",
                           (long long)before);
    }
    return PREFOPT_OK;
}

int32_t pf_transitions_create(pf_transitions **out, prefopt_context *context, int64_t vocab,
                              const uint8_t *allowed)
{
    int64_t entries, bytes;
    if (!pf_mul(vocab, vocab, &entries) ||
        !pf_add(entries, (int64_t)sizeof(pf_transitions), &bytes))
        return pf_fail(PREFOPT_ERR_MEMORY, "allowed: %lld tokens squared overflow",
                       (long long)vocab);
    PF_TRY(check(vocab, allowed));
    pf_transitions *made = pf_alloc(context, bytes, 1);
    if (made == NULL)
        return PREFOPT_ERR_MEMORY;
    atomic_init(&made->references, 1);
    made->context = pf_context_retain(context);
    made->vocab = vocab;
    memcpy(made->allowed, allowed, (size_t)entries);
    *out = made;
    return PREFOPT_OK;
}

pf_transitions *pf_transitions_retain(pf_transitions *transitions)
{
    if (transitions != NULL)
        atomic_fetch_add_explicit(&transitions->references, 1, memory_order_relaxed);
    return transitions;
}

void pf_transitions_release(pf_transitions *transitions)
{
    if (transitions == NULL ||
        atomic_fetch_sub_explicit(&transitions->references, 1, memory_order_acq_rel) != 1)
        return;
    prefopt_context *context = transitions->context;
    pf_free(context, transitions);
    pf_context_release(context);
}
