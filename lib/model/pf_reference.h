/* References: frozen policies behind the policy's own dispatch table. */
#ifndef PF_REFERENCE_H
#define PF_REFERENCE_H

#include "model/pf_model.h"

/* Every reference is a policy that nobody else holds, asked through const calls alone. */
struct prefopt_reference {
    _Atomic int64_t references;
    _Atomic uint64_t hash; /* 0: not asked for yet */
    prefopt_policy *policy;
};

/* Takes the caller's reference to the policy; on failure the policy is still the caller's. */
int32_t pf_reference_wrap(prefopt_reference **out, prefopt_policy *policy);

/* A reference of the library's own kind: of its callbacks logprobs and destroy are used. On failure
 * the payload is still the caller's. */
int32_t pf_reference_create(prefopt_reference **out, prefopt_context *context,
                            const prefopt_space *space, const prefopt_policy_callbacks *callbacks,
                            const pf_policy_extras *extras, void *payload);
prefopt_reference *pf_reference_retain(prefopt_reference *reference);

/* prefopt_reference_logprobs without its copy of the results: `in` was checked, and on failure the
 * array holds anything. */
int32_t pf_reference_logprobs(const prefopt_reference *reference, const prefopt_sequences *in,
                              double *sequence_logp);

/* ---- a reference and the rows of a dataset (reference_rows.c)
 *
 * distinct: the dataset's distinct sequences, index[s]: which of them sequence s is. */

/* value[distinct->n]: what rows with a key say, 0 for empty completions, NaN for what is to be
 * scored. *hash: the reference's if some row has a key, else 0. STATE (names the row) when a key
 * does not fit this reference and the row's tokens. */
int32_t pf_reference_known(const prefopt_reference *reference, const prefopt_dataset *data,
                           const prefopt_sequences *distinct, const int64_t *index, double *value,
                           uint64_t *hash);
/* Scores the next run from *at on of sequences whose value is NaN, as many as have most_tokens
 * tokens together, but at least one; *at is then its end. */
int32_t pf_reference_score(const prefopt_reference *reference, const prefopt_sequences *distinct,
                           double *value, int64_t most_tokens, int64_t *at);
/* Both: all values. On failure they hold anything. */
int32_t pf_reference_of_rows(const prefopt_reference *reference, const prefopt_dataset *data,
                             const prefopt_sequences *distinct, const int64_t *index,
                             double *value);
/* prefopt_reference_hash, 0 where there is none. */
int32_t pf_reference_hash(const prefopt_reference *reference, uint64_t *hash);

/* A dataset (not empty) that is annotated; all of it borrowed or owned until end. */
typedef struct pf_annotation {
    const prefopt_reference *reference;
    prefopt_dataset *data;
    pf_sequence_map *map; /* of the distinct sequences */
    const prefopt_sequences *distinct;
    int64_t *index; /* of all sequences: which of the distinct ones */
    double *value;  /* distinct->n; NaN: to be scored */
    uint64_t hash;  /* 0: none */
} pf_annotation;

/* What the rows know already. On failure nothing is kept. */
int32_t pf_annotation_begin(pf_annotation *annotation, const prefopt_reference *reference,
                            prefopt_dataset *data);
/* The rows of which each sequence has a value; the others stay as they are. */
void pf_annotation_write(const pf_annotation *annotation);
void pf_annotation_end(pf_annotation *annotation);

#endif
