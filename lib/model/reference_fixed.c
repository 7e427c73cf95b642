/* References that know listed sequences: fixed log-probabilities, or a dataset's ref_logp column.
 * Sequences are compared token by token, so numbers of another dataset are never given out. */
#include <math.h>

#include "data/pf_dataset.h"
#include "model/pf_reference.h"

typedef struct {
    prefopt_context *context;
    pf_sequence_map *map;
    double *logp;  /* one for each sequence of the map */
    uint64_t hash; /* of the reference whose numbers these are; 0: not known */
} fixed;

static int32_t fixed_logprobs(void *payload, const prefopt_sequences *in, double *sequence_logp,
                              double *token_logp)
{
    (void)token_logp; /* references are asked for sequences alone */
    const fixed *f = payload;
    for (int64_t i = 0; i < in->n; i++) {
        if (pf_sequence_len(in, i) == in->prompt_len[i]) {
            sequence_logp[i] = 0;
            continue;
        }
        int64_t at = pf_sequence_map_find(f->map, in, i);
        if (at < 0)
            return pf_fail(PREFOPT_ERR_ARGUMENT,
                           "sequence %lld (%lld tokens, %lld of them prompt) is none of the %lld "
                           "whose log-probability is known",
                           (long long)i, (long long)pf_sequence_len(in, i),
                           (long long)in->prompt_len[i], (long long)pf_sequence_map_size(f->map));
        sequence_logp[i] = f->logp[at];
    }
    return PREFOPT_OK;
}

static int32_t fixed_hash(void *payload, uint64_t *out)
{
    const fixed *f = payload;
    int64_t n = pf_sequence_map_size(f->map);
    uint64_t hash = pf_hash_kind("fixed reference");
    hash = pf_stream(hash, pf_row_hash(pf_sequence_map_view(f->map), 0, n));
    *out = f->hash != 0 ? f->hash
                        : pf_content_hash(f->context, hash, f->logp, n * (int64_t)sizeof *f->logp);
    return PREFOPT_OK;
}

static const pf_policy_extras extras = {.hash = fixed_hash};

static void fixed_destroy(void *payload)
{
    fixed *f = payload;
    prefopt_context *context = f->context;
    pf_sequence_map_destroy(f->map);
    pf_free(context, f->logp);
    pf_free(context, f);
    pf_context_release(context);
}

/* Values were checked; index: where each sequence is in the map. The first value of a sequence
 * counts, and another must equal it. */
static int32_t fill(fixed *f, const prefopt_sequences *in, const int64_t *index, const double *logp)
{
    int64_t seen = 0;
    for (int64_t i = 0; i < in->n; i++) {
        bool empty = pf_sequence_len(in, i) == in->prompt_len[i];
        double value = empty ? 0 : logp[i];
        if (index[i] == seen) { /* numbered by first appearance */
            f->logp[seen++] = value;
        } else if (f->logp[index[i]] != value) {
            return pf_fail(PREFOPT_ERR_ARGUMENT,
                           "sequence %lld has log-probability %.17g, but the same sequence had "
                           "%.17g before",
                           (long long)i, value, f->logp[index[i]]);
        }
    }
    return PREFOPT_OK;
}

static int32_t create(prefopt_reference **out, prefopt_context *context,
                      const prefopt_sequences *in, const double *logp, uint64_t hash)
{
    int64_t *index = pf_alloc(context, in->n, sizeof *index);
    fixed *f = pf_calloc(context, 1, sizeof *f);
    if (index == NULL || f == NULL) {
        pf_free(context, index);
        pf_free(context, f);
        return PREFOPT_ERR_MEMORY;
    }
    f->context = pf_context_retain(context);
    f->hash = hash;
    int32_t status = pf_sequence_map_create(&f->map, context, in, PF_MAP_SEQUENCES, index);
    if (status == PREFOPT_OK) {
        f->logp = pf_alloc(context, pf_sequence_map_size(f->map), sizeof *f->logp);
        status = f->logp == NULL ? PREFOPT_ERR_MEMORY : fill(f, in, index, logp);
    }
    pf_free(context, index);
    static const prefopt_policy_callbacks callbacks = {
        .struct_size = sizeof callbacks, .logprobs = fixed_logprobs, .destroy = fixed_destroy};
    if (status == PREFOPT_OK)
        status = pf_reference_create(out, context, NULL, &callbacks, &extras, f);
    if (status != PREFOPT_OK)
        fixed_destroy(f);
    return status;
}

int32_t prefopt_reference_create_fixed(prefopt_reference **out, prefopt_context *context,
                                       const prefopt_sequences *in, const double *sequence_logp)
{
    PF_REQUIRE(out);
    PF_REQUIRE(context);
    PF_TRY(pf_sequences_check(in, "in"));
    PF_REQUIRE_FOR(in, sequence_logp);
    for (int64_t i = 0; i < in->n; i++) {
        double x = sequence_logp[i];
        if (isnan(x) || x > 0)
            return pf_fail(PREFOPT_ERR_NUMERIC, "sequence_logp[%lld] is %g, expected at most 0",
                           (long long)i, x);
        if (x != 0 && pf_sequence_len(in, i) == in->prompt_len[i])
            return pf_fail(PREFOPT_ERR_ARGUMENT,
                           "sequence_logp[%lld] is %g, expected 0 for an empty completion",
                           (long long)i, x);
    }
    return create(out, context, in, sequence_logp, 0);
}

/* The reference that the keys of the rows tell of, which must be one; 0: no row has a key. A row
 * with numbers but without a key, beside rows with one, could be anybody's. */
static int32_t keyed_by(const prefopt_dataset *dataset, const prefopt_sequences *all,
                        uint64_t *hash)
{
    int64_t keyed = 0;
    while (keyed < dataset->n_rows && dataset->ref_key[keyed] == 0)
        keyed++;
    for (int64_t row = 0; keyed < dataset->n_rows && row < dataset->n_rows; row++) {
        int64_t first = dataset->first[row], end = dataset->first[row + 1];
        uint64_t key = dataset->ref_key[row];
        if (key == 0 && dataset->kind[row] == PREFOPT_ROW_PROMPT)
            continue;
        if (key == 0)
            return pf_fail(PREFOPT_ERR_STATE,
                           "row %lld: ref_logp has no key, but that of row %lld has one: expected "
                           "all rows of one reference",
                           (long long)row, (long long)keyed);
        uint64_t of_row = pf_ref_key_reference(key, pf_row_hash(all, first, end));
        if (row > keyed && of_row != *hash)
            return pf_fail(PREFOPT_ERR_STATE,
                           "row %lld: by its key %016llx, ref_logp is of a reference with hash "
                           "%016llx, that of row %lld of one with %016llx: two references, or one "
                           "of the rows was changed since",
                           (long long)row, (unsigned long long)key, (unsigned long long)of_row,
                           (long long)keyed, (unsigned long long)*hash);
        *hash = of_row;
    }
    return PREFOPT_OK;
}

int32_t prefopt_reference_from_dataset(prefopt_reference **out, const prefopt_dataset *dataset)
{
    PF_REQUIRE(out);
    PF_REQUIRE(dataset);
    prefopt_sequences all = {.struct_size = sizeof all};
    prefopt_columns columns = {.struct_size = sizeof columns};
    PF_TRY(prefopt_dataset_sequences(dataset, &all));
    PF_TRY(prefopt_dataset_columns(dataset, &columns));
    for (int64_t row = 0; row < columns.n_rows; row++)
        for (int64_t i = columns.first[row]; i < columns.first[row + 1]; i++) {
            if (pf_sequence_len(&all, i) == all.prompt_len[i])
                continue;
            double x = columns.ref_logp[i];
            if (isnan(x))
                return pf_fail(PREFOPT_ERR_STATE,
                               "ref_logp of completion %lld of row %lld is not known",
                               (long long)(i - columns.first[row]), (long long)row);
            if (x > 0)
                return pf_fail(PREFOPT_ERR_NUMERIC,
                               "ref_logp of completion %lld of row %lld is %g, expected at most 0",
                               (long long)(i - columns.first[row]), (long long)row, x);
        }
    uint64_t hash = 0;
    PF_TRY(keyed_by(dataset, &all, &hash));
    return create(out, dataset->context, &all, columns.ref_logp, hash);
}
