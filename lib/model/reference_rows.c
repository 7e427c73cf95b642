/* A reference and a dataset: which of its numbers the dataset already has, by their keys, and
 * scoring what is missing. */
#include <math.h>

#include "data/pf_dataset.h"
#include "model/pf_reference.h"

/* ---------------------------------------------------------------- what the rows know */

static bool same_key(uint64_t hash, const prefopt_dataset *data, const prefopt_sequences *all,
                     int64_t row)
{
    uint64_t of_row = pf_row_hash(all, data->first[row], data->first[row + 1]);
    uint64_t expected = pf_ref_key(hash, of_row);
    if (expected == data->ref_key[row])
        return true;
    pf_fail(PREFOPT_ERR_STATE,
            "row %lld: ref_logp has key %016llx, but with this reference (hash %016llx) its tokens "
            "have %016llx: another reference computed it, or the row was changed since",
            (long long)row, (unsigned long long)data->ref_key[row], (unsigned long long)hash,
            (unsigned long long)expected);
    return false;
}

/* Of one row whose key fits. A sequence that has a value already keeps it. */
static int32_t take_row(const prefopt_dataset *data, const prefopt_sequences *all, int64_t row,
                        const int64_t *index, double *value)
{
    const double *ref_logp = data->column[PREFOPT_COLUMN_REF_LOGP];
    for (int64_t s = data->first[row]; s < data->first[row + 1]; s++) {
        bool empty = pf_sequence_len(all, s) == all->prompt_len[s];
        if (!empty && ref_logp[s] > 0)
            return pf_fail(PREFOPT_ERR_NUMERIC,
                           "ref_logp of completion %lld of row %lld is %g, expected at most 0",
                           (long long)(s - data->first[row]), (long long)row, ref_logp[s]);
        if (isnan(value[index[s]]))
            value[index[s]] = empty ? 0 : ref_logp[s];
    }
    return PREFOPT_OK;
}

int32_t pf_reference_known(const prefopt_reference *reference, const prefopt_dataset *data,
                           const prefopt_sequences *distinct, const int64_t *index, double *value,
                           uint64_t *hash)
{
    prefopt_sequences all = {.struct_size = sizeof all};
    PF_TRY(prefopt_dataset_sequences(data, &all));
    for (int64_t i = 0; i < distinct->n; i++)
        value[i] = pf_sequence_len(distinct, i) == distinct->prompt_len[i] ? 0 : NAN;
    *hash = 0;
    for (int64_t row = 0; row < data->n_rows; row++) {
        if (data->ref_key[row] == 0)
            continue;
        if (*hash == 0) {
            int32_t status = prefopt_reference_hash(reference, hash);
            if (status == PREFOPT_ERR_UNSUPPORTED)
                return pf_fail(PREFOPT_ERR_STATE,
                               "row %lld: ref_logp has key %016llx, but this reference has no "
                               "content hash to hold against it",
                               (long long)row, (unsigned long long)data->ref_key[row]);
            PF_TRY(status);
        }
        if (!same_key(*hash, data, &all, row))
            return PREFOPT_ERR_STATE;
        PF_TRY(take_row(data, &all, row, index, value));
    }
    return PREFOPT_OK;
}

int32_t pf_reference_hash(const prefopt_reference *reference, uint64_t *hash)
{
    int32_t status = prefopt_reference_hash(reference, hash);
    if (status != PREFOPT_ERR_UNSUPPORTED)
        return status;
    *hash = 0;
    return PREFOPT_OK;
}

/* ---------------------------------------------------------------- scoring */

int32_t pf_reference_score(const prefopt_reference *reference, const prefopt_sequences *distinct,
                           double *value, int64_t most_tokens, int64_t *at)
{
    int64_t first = *at, end;
    while (first < distinct->n && !isnan(value[first]))
        first++;
    int64_t tokens = 0;
    for (end = first; end < distinct->n && isnan(value[end]); end++) {
        int64_t len = pf_sequence_len(distinct, end);
        if (end > first && len > most_tokens - tokens)
            break;
        tokens = tokens > INT64_MAX - len ? INT64_MAX : tokens + len;
    }
    prefopt_sequences part = pf_sequences_part(distinct, first, end - first);
    int32_t status = pf_reference_logprobs(reference, &part, value + first);
    for (int64_t i = first; status != PREFOPT_OK && i < end; i++)
        value[i] = NAN; /* it may have been half-written */
    *at = status == PREFOPT_OK ? end : first;
    return status;
}

int32_t pf_reference_of_rows(const prefopt_reference *reference, const prefopt_dataset *data,
                             const prefopt_sequences *distinct, const int64_t *index, double *value)
{
    uint64_t hash;
    PF_TRY(pf_reference_known(reference, data, distinct, index, value, &hash));
    for (int64_t at = 0; at < distinct->n;)
        PF_TRY(pf_reference_score(reference, distinct, value, INT64_MAX, &at));
    return PREFOPT_OK;
}

/* ---------------------------------------------------------------- annotating */

/* Tokens that are scored between two looks at the callback. */
enum { PIECE_TOKENS = 4096 };

static bool is_done(const pf_annotation *a, int64_t row)
{
    for (int64_t s = a->data->first[row]; s < a->data->first[row + 1]; s++)
        if (isnan(a->value[a->index[s]]))
            return false;
    return true;
}

/* The first row from `row` on that is not done. Sequences are scored in the order in which the rows
 * have them first. */
static int64_t rows_done(const pf_annotation *a, int64_t row)
{
    while (row < a->data->n_rows && is_done(a, row))
        row++;
    return row;
}

static int32_t score_all(pf_annotation *a, prefopt_annotate_fn progress, void *payload)
{
    int64_t at = 0, done = rows_done(a, 0), total = a->data->n_rows;
    while (done < total) {
        int32_t status = pf_reference_score(a->reference, a->distinct, a->value, PIECE_TOKENS, &at);
        if (status < 0)
            return pf_fail_in(status, "rows from %lld on", (long long)done);
        PF_TRY(status);
        done = rows_done(a, done);
        if (progress != NULL && progress(payload, done, total) != 0 && done < total)
            return PREFOPT_STOPPED;
    }
    return PREFOPT_OK;
}

void pf_annotation_write(const pf_annotation *a)
{
    prefopt_dataset *d = a->data;
    prefopt_sequences all = {.struct_size = sizeof all};
    prefopt_dataset_sequences(d, &all); /* cannot fail */
    for (int64_t row = 0; row < d->n_rows; row++) {
        int64_t first = d->first[row], end = d->first[row + 1];
        if (d->ref_key[row] != 0 || !is_done(a, row))
            continue;
        for (int64_t s = first; s < end; s++)
            d->column[PREFOPT_COLUMN_REF_LOGP][s] = a->value[a->index[s]];
        if (a->hash != 0 && d->kind[row] != PREFOPT_ROW_PROMPT)
            d->ref_key[row] = pf_ref_key(a->hash, pf_row_hash(&all, first, end));
    }
}

static int32_t begin(pf_annotation *a)
{
    prefopt_context *context = a->reference->policy->context;
    prefopt_sequences all = {.struct_size = sizeof all};
    PF_TRY(prefopt_dataset_sequences(a->data, &all));
    if ((a->index = pf_alloc(context, all.n, sizeof *a->index)) == NULL)
        return PREFOPT_ERR_MEMORY;
    PF_TRY(pf_sequence_map_create(&a->map, context, &all, PF_MAP_SEQUENCES, a->index));
    a->distinct = pf_sequence_map_view(a->map);
    if ((a->value = pf_alloc(context, a->distinct->n, sizeof *a->value)) == NULL)
        return PREFOPT_ERR_MEMORY;
    PF_TRY(pf_reference_known(a->reference, a->data, a->distinct, a->index, a->value, &a->hash));
    return a->hash != 0 ? PREFOPT_OK : pf_reference_hash(a->reference, &a->hash);
}

int32_t pf_annotation_begin(pf_annotation *a, const prefopt_reference *reference,
                            prefopt_dataset *data)
{
    *a = (pf_annotation){.reference = reference, .data = data};
    int32_t status = begin(a);
    if (status != PREFOPT_OK)
        pf_annotation_end(a);
    return status;
}

void pf_annotation_end(pf_annotation *a)
{
    prefopt_context *context = a->reference->policy->context;
    pf_sequence_map_destroy(a->map);
    pf_free(context, a->index);
    pf_free(context, a->value);
    a->map = NULL;
    a->index = NULL;
    a->value = NULL;
}

int32_t prefopt_reference_annotate(const prefopt_reference *reference, prefopt_dataset *dataset,
                                   prefopt_annotate_fn progress, void *payload)
{
    PF_REQUIRE(reference);
    PF_REQUIRE(dataset);
    if (prefopt_dataset_size(dataset) == 0)
        return PREFOPT_OK;
    pf_annotation a;
    PF_TRY(pf_annotation_begin(&a, reference, dataset));
    int32_t status = score_all(&a, progress, payload);
    if (status >= 0)
        pf_annotation_write(&a);
    pf_annotation_end(&a);
    return status;
}
