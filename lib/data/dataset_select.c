/* Taking rows out of a dataset: by number, shuffled, split in two. */
#include <math.h>

#include "data/pf_dataset.h"

/* Streams of random draws, one for each use. */
static const uint64_t SHUFFLE_STREAM = UINT64_C(0x73687566666c65), SPLIT_ROWS = 1,
                      SPLIT_PROMPTS = 2;

/* Adds the sizes of row i; false on overflow. */
static bool add_row_sizes(const prefopt_dataset *d, int64_t i, pf_dataset_sizes *sizes)
{
    int64_t first = d->first[i], end = d->first[i + 1];
    int64_t text = d->extra[i] < 0 ? 0 : (int64_t)strlen(d->text + d->extra[i]) + 1;
    return pf_add(sizes->rows, 1, &sizes->rows) &&
           pf_add(sizes->sequences, end - first, &sizes->sequences) &&
           pf_add(sizes->tokens, d->offsets[end] - d->offsets[first], &sizes->tokens) &&
           pf_add(sizes->completions, d->completions_at[i + 1] - d->completions_at[i],
                  &sizes->completions) &&
           pf_add(sizes->text, text, &sizes->text);
}

/* Copies row i into room that was reserved. */
static void copy_row(prefopt_dataset *to, const prefopt_dataset *d, int64_t i)
{
    for (int64_t s = d->first[i]; s < d->first[i + 1]; s++) {
        const int32_t *tokens = d->tokens + d->offsets[s];
        int64_t prompt_len = d->prompt_len[s];
        double values[PF_COLUMNS];
        for (int32_t k = 0; k < PF_COLUMNS; k++)
            values[k] = d->column[k][s];
        pf_dataset_put_sequence(to, tokens, prompt_len, tokens + prompt_len,
                                d->offsets[s + 1] - d->offsets[s] - prompt_len, values);
    }
    const char *extra = d->extra[i] < 0 ? NULL : d->text + d->extra[i];
    pf_dataset_put_row(to, d->kind[i], d->weight[i], d->label[i], d->margin[i], d->ref_key[i],
                       extra, extra == NULL ? 0 : (int64_t)strlen(extra));
}

int32_t prefopt_dataset_select(prefopt_dataset **out, const prefopt_dataset *dataset,
                               const int64_t *rows, int64_t n)
{
    PF_REQUIRE(out);
    PF_REQUIRE(dataset);
    if (n < 0)
        return pf_fail(PREFOPT_ERR_ARGUMENT, "n is %lld, expected at least 0", (long long)n);
    if (n > 0)
        PF_REQUIRE(rows);
    pf_dataset_sizes sizes = {0};
    for (int64_t k = 0; k < n; k++) {
        if (rows[k] < 0 || rows[k] >= dataset->n_rows)
            return pf_fail(PREFOPT_ERR_ARGUMENT,
                           "rows[%lld] is %lld, expected 0 to %lld: the dataset has %lld rows",
                           (long long)k, (long long)rows[k], (long long)dataset->n_rows - 1,
                           (long long)dataset->n_rows);
        if (!add_row_sizes(dataset, rows[k], &sizes))
            return pf_fail(PREFOPT_ERR_MEMORY, "a size overflows: a selection of %lld rows",
                           (long long)n);
    }
    prefopt_dataset *selected = NULL;
    PF_TRY(prefopt_dataset_create(&selected, dataset->context));
    pf_dataset_replaced replaced;
    int32_t status = pf_dataset_reserve(selected, sizes, &replaced);
    if (status != PREFOPT_OK) {
        prefopt_dataset_destroy(selected);
        return status;
    }
    for (int64_t k = 0; k < n; k++)
        copy_row(selected, dataset, rows[k]);
    *out = selected;
    return PREFOPT_OK;
}

int32_t prefopt_shuffle_order(uint64_t seed, uint64_t epoch, int64_t n, int64_t *order)
{
    if (n < 0)
        return pf_fail(PREFOPT_ERR_ARGUMENT, "n is %lld, expected at least 0", (long long)n);
    if (n == 0)
        return PREFOPT_OK;
    PF_REQUIRE(order);
    pf_permutation(seed, pf_stream(SHUFFLE_STREAM, epoch), n, order);
    return PREFOPT_OK;
}

/* Whether row i goes to the second side: one draw, numbered by the row or by its prompt's hash. */
static bool goes_second(const prefopt_dataset *d, int64_t i, double fraction, uint64_t seed,
                        bool by_row)
{
    if (by_row)
        return pf_uniform(seed, SPLIT_ROWS, (uint64_t)i) < fraction;
    int64_t s = d->first[i], len = d->prompt_len[s];
    uint64_t hash = pf_sequence_hash(d->tokens + d->offsets[s], len, len);
    return pf_uniform(seed, SPLIT_PROMPTS, hash) < fraction;
}

int32_t prefopt_dataset_split(prefopt_dataset **first, prefopt_dataset **second,
                              const prefopt_dataset *dataset, double fraction, uint64_t seed,
                              int32_t by_row)
{
    PF_REQUIRE(first);
    PF_REQUIRE(second);
    PF_REQUIRE(dataset);
    if (first == second)
        return pf_fail(PREFOPT_ERR_ARGUMENT, "first and second are the same pointer");
    if (isnan(fraction))
        return pf_fail(PREFOPT_ERR_NUMERIC, "fraction is NaN, expected a number in [0, 1]");
    if (fraction < 0 || fraction > 1)
        return pf_fail(PREFOPT_ERR_ARGUMENT, "fraction is %g, expected a number in [0, 1]",
                       fraction);
    prefopt_context *context = dataset->context;
    int64_t n = dataset->n_rows, n_first = 0, n_second = 0;
    /* The first side's rows from the front, the second's from the back. */
    int64_t *rows = pf_alloc(context, n, sizeof *rows);
    if (rows == NULL)
        return PREFOPT_ERR_MEMORY;
    for (int64_t i = 0; i < n; i++) {
        if (goes_second(dataset, i, fraction, seed, by_row != 0))
            rows[n - 1 - n_second++] = i;
        else
            rows[n_first++] = i;
    }
    for (int64_t i = n_first, j = n - 1; i < j; i++, j--) {
        int64_t swap = rows[i];
        rows[i] = rows[j];
        rows[j] = swap;
    }
    prefopt_dataset *a = NULL, *b = NULL;
    int32_t status = prefopt_dataset_select(&a, dataset, rows, n_first);
    if (status == PREFOPT_OK)
        status = prefopt_dataset_select(&b, dataset, rows + n_first, n_second);
    pf_free(context, rows);
    if (status != PREFOPT_OK) {
        prefopt_dataset_destroy(a);
        return status;
    }
    *first = a;
    *second = b;
    return PREFOPT_OK;
}
