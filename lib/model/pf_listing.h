/* Listed completions of prompts, sorted, so that those that begin with a prefix lie together. */
#ifndef PF_LISTING_H
#define PF_LISTING_H

#include "model/pf_model.h"

/* Immutable once made; shared by a log-linear policy and its clones. Group g (a prompt) has the
 * completions first[g] .. first[g+1]-1, in lexicographic order. */
typedef struct {
    prefopt_context *context;
    _Atomic int64_t references;
    prefopt_space space;
    pf_sequence_map *prompts; /* gives the group */
    int64_t n, n_groups, n_features;
    int64_t *first;   /* n_groups + 1 */
    int32_t *tokens;  /* of the completions */
    int64_t *offsets; /* n + 1 */
    double *features; /* [n, n_features] */
    double *base;     /* n */
} pf_listing;

/* Arguments were checked but for their completions: each must be of the space, not empty, and
 * listed once. base_logp NULL: 0. */
int32_t pf_listing_create(pf_listing **out, prefopt_context *context, const prefopt_space *space,
                          const prefopt_sequences *in, int64_t n_features, const double *features,
                          const double *base_logp);
pf_listing *pf_listing_retain(pf_listing *listing);
void pf_listing_release(pf_listing *listing);

/* Completions begin .. end-1; all have the same first `depth` tokens. */
typedef struct {
    int64_t begin, end, depth;
} pf_range;

pf_range pf_listing_group(const pf_listing *listing, int64_t group);
/* Those of the range that go on with this token; may be empty. */
pf_range pf_listing_narrow(const pf_listing *listing, pf_range range, int32_t token);

#endif
