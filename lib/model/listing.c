/* Listed completions of prompts: sorting them, and finding those that begin with a prefix. */
#include <stdatomic.h>
#include <stdlib.h>

#include "model/pf_listing.h"

typedef struct {
    const int32_t *tokens;
    int64_t len, group, index; /* index: in the caller's view */
} entry;

/* By group, then lexicographically. */
static int compare(const void *left, const void *right)
{
    const entry *a = left, *b = right;
    if (a->group != b->group)
        return a->group < b->group ? -1 : 1;
    for (int64_t k = 0; k < a->len && k < b->len; k++)
        if (a->tokens[k] != b->tokens[k])
            return a->tokens[k] < b->tokens[k] ? -1 : 1;
    return (a->len > b->len) - (a->len < b->len);
}

pf_listing *pf_listing_retain(pf_listing *listing)
{
    atomic_fetch_add_explicit(&listing->references, 1, memory_order_relaxed);
    return listing;
}

void pf_listing_release(pf_listing *listing)
{
    if (atomic_fetch_sub_explicit(&listing->references, 1, memory_order_acq_rel) != 1)
        return;
    prefopt_context *context = listing->context;
    pf_sequence_map_destroy(listing->prompts);
    pf_free(context, listing->first);
    pf_free(context, listing->tokens);
    pf_free(context, listing->offsets);
    pf_free(context, listing->features);
    pf_free(context, listing->base);
    pf_free(context, listing);
    pf_context_release(context);
}

/* The caller's sequences in sorted order; group[i]: of sequence i. */
static int32_t sort_entries(const prefopt_space *space, const prefopt_sequences *in,
                            const int64_t *group, entry *entries)
{
    for (int64_t i = 0; i < in->n; i++) {
        PF_TRY(pf_space_check_completion(space, in, i));
        entries[i] = (entry){.group = group[i], .index = i};
        entries[i].tokens = pf_completion(in, i, &entries[i].len);
        if (entries[i].len == 0)
            return pf_fail(PREFOPT_ERR_ARGUMENT,
                           "sequence %lld has an empty completion, which is not of the space",
                           (long long)i);
    }
    if (in->n > 0)
        qsort(entries, (size_t)in->n, sizeof *entries, compare);
    for (int64_t j = 1; j < in->n; j++)
        if (compare(&entries[j - 1], &entries[j]) == 0)
            return pf_fail(PREFOPT_ERR_ARGUMENT, "sequences %lld and %lld are the same",
                           (long long)entries[j - 1].index, (long long)entries[j].index);
    return PREFOPT_OK;
}

static int32_t copy_sorted(pf_listing *listing, const entry *entries, const double *features,
                           const double *base_logp)
{
    int64_t n = listing->n, width = listing->n_features, n_tokens = 0, total;
    for (int64_t j = 0; j < n; j++)
        n_tokens += entries[j].len;
    if (!pf_mul(n, width, &total))
        total = -1;
    prefopt_context *context = listing->context;
    if ((listing->first = pf_calloc(context, listing->n_groups + 1, sizeof(int64_t))) == NULL ||
        (listing->tokens = pf_alloc(context, n_tokens, sizeof(int32_t))) == NULL ||
        (listing->offsets = pf_alloc(context, n + 1, sizeof(int64_t))) == NULL ||
        (listing->features = pf_alloc(context, total, sizeof(double))) == NULL ||
        (listing->base = pf_alloc(context, n, sizeof(double))) == NULL)
        return PREFOPT_ERR_MEMORY;
    listing->offsets[0] = 0;
    for (int64_t j = 0; j < n; j++) {
        const entry *e = &entries[j];
        memcpy(listing->tokens + listing->offsets[j], e->tokens,
               (size_t)e->len * sizeof *e->tokens);
        listing->offsets[j + 1] = listing->offsets[j] + e->len;
        memcpy(listing->features + j * width, features + e->index * width,
               (size_t)width * sizeof *features);
        listing->base[j] = base_logp == NULL ? 0 : base_logp[e->index];
        listing->first[e->group + 1] = j + 1; /* the last one stays; no group is empty */
    }
    return PREFOPT_OK;
}

int32_t pf_listing_create(pf_listing **out, prefopt_context *context, const prefopt_space *space,
                          const prefopt_sequences *in, int64_t n_features, const double *features,
                          const double *base_logp)
{
    int64_t *group = pf_alloc(context, in->n, sizeof *group);
    entry *entries = pf_alloc(context, in->n, sizeof *entries);
    pf_listing *listing = pf_calloc(context, 1, sizeof *listing);
    int32_t status = PREFOPT_ERR_MEMORY;
    if (group != NULL && entries != NULL && listing != NULL) {
        atomic_init(&listing->references, 1);
        listing->context = pf_context_retain(context);
        listing->space = *space;
        listing->n = in->n;
        listing->n_features = n_features;
        status = pf_sequence_map_create(&listing->prompts, context, in, PF_MAP_PROMPTS, group);
        if (status == PREFOPT_OK) {
            listing->n_groups = pf_sequence_map_size(listing->prompts);
            status = sort_entries(space, in, group, entries);
        }
        if (status == PREFOPT_OK)
            status = copy_sorted(listing, entries, features, base_logp);
        if (status == PREFOPT_OK)
            *out = listing;
        else
            pf_listing_release(listing);
    } else {
        pf_free(context, listing);
    }
    pf_free(context, entries);
    pf_free(context, group);
    return status;
}

pf_range pf_listing_group(const pf_listing *listing, int64_t group)
{
    return (pf_range){.begin = listing->first[group], .end = listing->first[group + 1], .depth = 0};
}

/* First completion of begin .. end-1 whose token at `depth` is at least `token`. */
static int64_t lower_bound(const pf_listing *l, pf_range range, int64_t token)
{
    int64_t low = range.begin, high = range.end;
    while (low < high) {
        int64_t middle = low + (high - low) / 2, at = l->offsets[middle] + range.depth;
        /* One that ends here comes before all that go on. */
        if (at >= l->offsets[middle + 1] || l->tokens[at] < token)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

pf_range pf_listing_narrow(const pf_listing *listing, pf_range range, int32_t token)
{
    return (pf_range){.begin = lower_bound(listing, range, token),
                      .end = lower_bound(listing, range, (int64_t)token + 1),
                      .depth = range.depth + 1};
}
