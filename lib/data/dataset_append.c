/* Appending rows, and writing whole columns. All is checked first, then room is made in all arrays,
 * then the row is written, which cannot fail. */
#include <math.h>

#include "data/pf_dataset.h"

static const prefopt_row row_defaults = {
    .struct_size = sizeof(prefopt_row), .kind = PREFOPT_ROW_PROMPT, .weight = 1, .label = 1};

int32_t prefopt_row_init(prefopt_row *row, uint32_t struct_size)
{
    return pf_struct_init(row, struct_size, &row_defaults, sizeof row_defaults, sizeof row_defaults,
                          "prefopt_row");
}

/* ---------------------------------------------------------------- checks */

static int32_t check_tokens(const char *name, const int32_t *tokens, int64_t n)
{
    if (n < 0)
        return pf_fail(PREFOPT_ERR_ARGUMENT, "%s has %lld tokens, expected at least 0", name,
                       (long long)n);
    if (n > 0 && tokens == NULL)
        return pf_fail(PREFOPT_ERR_ARGUMENT, "%s is NULL but has %lld tokens", name, (long long)n);
    for (int64_t i = 0; i < n; i++)
        if (tokens[i] < 0)
            return pf_fail(PREFOPT_ERR_ARGUMENT, "%s[%lld] is %d, expected a token, at least 0",
                           name, (long long)i, tokens[i]);
    return PREFOPT_OK;
}

static int32_t check_numbers(double weight, double label, double margin)
{
    if (!isfinite(weight))
        return pf_fail(PREFOPT_ERR_NUMERIC, "weight is %g, expected a finite number", weight);
    if (weight < 0)
        return pf_fail(PREFOPT_ERR_ARGUMENT, "weight is %g, expected at least 0", weight);
    if (isnan(label))
        return pf_fail(PREFOPT_ERR_NUMERIC, "label is NaN, expected a number in [0, 1]");
    if (label < 0 || label > 1)
        return pf_fail(PREFOPT_ERR_ARGUMENT, "label is %g, expected a number in [0, 1]", label);
    if (!isfinite(margin))
        return pf_fail(PREFOPT_ERR_NUMERIC, "margin is %g, expected a finite number", margin);
    return PREFOPT_OK;
}

static int32_t check_kind(const prefopt_row *row)
{
    static const struct {
        const char *name;
        int64_t low, high;
        const char *expected;
    } kinds[] = {{"PROMPT", 0, 0, "0"},
                 {"COMPLETIONS", 1, INT64_MAX, "at least 1"},
                 {"PAIR", 2, 2, "2"},
                 {"RANKING", 2, INT64_MAX, "at least 2"}};
    if (row->kind < PREFOPT_ROW_PROMPT || row->kind > PREFOPT_ROW_RANKING)
        return pf_fail(PREFOPT_ERR_ARGUMENT, "kind is %d, expected a prefopt_row_kind, 0 to 3",
                       row->kind);
    if (row->n_completions < kinds[row->kind].low || row->n_completions > kinds[row->kind].high)
        return pf_fail(
            PREFOPT_ERR_ARGUMENT, "n_completions is %lld, expected %s in a row of kind %s",
            (long long)row->n_completions, kinds[row->kind].expected, kinds[row->kind].name);
    if (row->kind == PREFOPT_ROW_PAIR)
        return PREFOPT_OK;
    if (row->label != 1)
        return pf_fail(PREFOPT_ERR_ARGUMENT,
                       "label is %g in a row of kind %s, which has no use"
                       " for it (expected 1)",
                       row->label, kinds[row->kind].name);
    if (row->margin != 0)
        return pf_fail(PREFOPT_ERR_ARGUMENT,
                       "margin is %g in a row of kind %s, which has no use"
                       " for it (expected 0)",
                       row->margin, kinds[row->kind].name);
    return PREFOPT_OK;
}

static int32_t check_completions(const prefopt_row *row)
{
    if (row->n_completions == 0)
        return PREFOPT_OK;
    const int64_t *offsets = row->completion_offsets;
    if (offsets == NULL)
        return pf_fail(PREFOPT_ERR_ARGUMENT, "completion_offsets is NULL but n_completions is %lld",
                       (long long)row->n_completions);
    if (offsets[0] != 0)
        return pf_fail(PREFOPT_ERR_ARGUMENT, "completion_offsets[0] is %lld, expected 0",
                       (long long)offsets[0]);
    for (int64_t c = 0; c < row->n_completions; c++)
        if (offsets[c + 1] < offsets[c])
            return pf_fail(PREFOPT_ERR_ARGUMENT,
                           "completion_offsets[%lld] is %lld, expected at least the one before, "
                           "%lld",
                           (long long)c + 1, (long long)offsets[c + 1], (long long)offsets[c]);
    return check_tokens("completions", row->completions, offsets[row->n_completions]);
}

static const char *const column_names[PF_COLUMNS] = {"logp", "sampler_logp", "score", "ref_logp"};

/* A log-probability may be -inf, a score is finite; NaN is "unknown". */
static int32_t check_column(int32_t column, const double *values, int64_t n)
{
    for (int64_t i = 0; values != NULL && i < n; i++)
        if (isinf(values[i]) && (values[i] > 0 || column == PREFOPT_COLUMN_SCORE))
            return pf_fail(PREFOPT_ERR_NUMERIC, "%s[%lld] is %g, expected a finite number%s",
                           column_names[column], (long long)i, values[i],
                           column == PREFOPT_COLUMN_SCORE ? " or NaN" : ", -inf or NaN");
    return PREFOPT_OK;
}

/* A key vouches for the numbers of the whole row. */
static int32_t check_key(const prefopt_row *row)
{
    if (row->ref_key == 0)
        return PREFOPT_OK;
    if (row->n_completions == 0)
        return pf_fail(PREFOPT_ERR_ARGUMENT,
                       "ref_key is %016llx in a row without completions (expected 0)",
                       (unsigned long long)row->ref_key);
    for (int64_t c = 0; c < row->n_completions; c++)
        if (row->ref_logp == NULL || isnan(row->ref_logp[c]))
            return pf_fail(PREFOPT_ERR_ARGUMENT,
                           "ref_key is %016llx, but ref_logp of completion %lld is not known",
                           (unsigned long long)row->ref_key, (long long)c);
    return PREFOPT_OK;
}

/* ---------------------------------------------------------------- writing */

void pf_dataset_put_sequence(prefopt_dataset *d, const int32_t *prompt, int64_t prompt_len,
                             const int32_t *completion, int64_t len, const double *values)
{
    int64_t s = d->n_sequences, row = d->n_rows;
    int32_t *to = d->tokens + d->offsets[s];
    if (prompt_len > 0)
        memcpy(to, prompt, (size_t)prompt_len * sizeof *to);
    if (len > 0)
        memcpy(to + prompt_len, completion, (size_t)len * sizeof *to);
    d->offsets[s + 1] = d->offsets[s] + prompt_len + len;
    d->prompt_len[s] = prompt_len;
    for (int32_t k = 0; k < PF_COLUMNS; k++)
        d->column[k][s] = values == NULL ? NAN : values[k];

    /* The row's k-th completion ends where its offset k + 1 says. */
    int64_t k = s - d->first[row];
    int64_t *offset = d->row_offsets + s + row;
    if (k == 0)
        offset[0] = 0;
    offset[1] = offset[0] + len;
    d->n_sequences = s + 1;
}

void pf_dataset_put_row(prefopt_dataset *d, int32_t kind, double weight, double label,
                        double margin, uint64_t ref_key, const char *extra, int64_t extra_len)
{
    int64_t row = d->n_rows;
    d->kind[row] = kind;
    d->weight[row] = weight;
    d->label[row] = label;
    d->margin[row] = margin;
    d->ref_key[row] = ref_key;
    d->extra[row] = -1;
    if (extra != NULL) {
        d->extra[row] = d->n_text;
        memcpy(d->text + d->n_text, extra, (size_t)extra_len);
        d->text[d->n_text + extra_len] = '\0';
        d->n_text += extra_len + 1;
    }
    int64_t first = d->first[row], at = d->completions_at[row];
    if (!pf_row_in_place(d->n_sequences - first, d->prompt_len[first]))
        for (int64_t s = first; s < d->n_sequences; s++) {
            int64_t begin = d->offsets[s] + d->prompt_len[s], len = d->offsets[s + 1] - begin;
            memcpy(d->completions + at, d->tokens + begin, (size_t)len * sizeof *d->tokens);
            at += len;
        }
    d->completions_at[row + 1] = at;
    d->first[row + 1] = d->n_sequences;
    d->n_rows = row + 1;
}

int32_t pf_dataset_append(prefopt_dataset *d, const prefopt_row *row, const char *extra,
                          int64_t extra_len)
{
    PF_TRY(check_numbers(row->weight, row->label, row->margin));
    PF_TRY(check_kind(row));
    PF_TRY(check_tokens("prompt", row->prompt, row->prompt_len));
    PF_TRY(check_completions(row));
    const double *const columns[PF_COLUMNS] = {row->logp, row->sampler_logp, row->score,
                                               row->ref_logp};
    for (int32_t k = 0; k < PF_COLUMNS; k++)
        PF_TRY(check_column(k, columns[k], row->n_completions));
    PF_TRY(check_key(row));

    int64_t n = row->n_completions;
    pf_dataset_sizes more = {.rows = 1,
                             .sequences = n > 0 ? n : 1,
                             .completions = n > 0 ? row->completion_offsets[n] : 0,
                             .text = extra != NULL ? extra_len + 1 : 0};
    if (!pf_mul(more.sequences, row->prompt_len, &more.tokens) ||
        !pf_add(more.tokens, more.completions, &more.tokens) || more.sequences == INT64_MAX)
        return pf_fail(PREFOPT_ERR_MEMORY,
                       "a size overflows: %lld completions of a prompt of %lld"
                       " tokens",
                       (long long)n, (long long)row->prompt_len);
    if (pf_row_in_place(more.sequences, row->prompt_len))
        more.completions = 0;
    pf_dataset_replaced replaced;
    PF_TRY(pf_dataset_reserve(d, more, &replaced));
    if (n == 0)
        pf_dataset_put_sequence(d, row->prompt, row->prompt_len, NULL, 0, NULL);
    for (int64_t c = 0; c < n; c++) {
        double values[PF_COLUMNS];
        for (int32_t k = 0; k < PF_COLUMNS; k++)
            values[k] = columns[k] == NULL ? NAN : columns[k][c];
        int64_t begin = row->completion_offsets[c], len = row->completion_offsets[c + 1] - begin;
        pf_dataset_put_sequence(d, row->prompt, row->prompt_len,
                                len > 0 ? row->completions + begin : NULL, len, values);
    }
    pf_dataset_put_row(d, row->kind, row->weight, row->label, row->margin, row->ref_key, extra,
                       extra_len);
    pf_dataset_free_replaced(d, &replaced);
    return PREFOPT_OK;
}

int32_t prefopt_dataset_append(prefopt_dataset *dataset, const prefopt_row *row)
{
    PF_REQUIRE(dataset);
    PF_REQUIRE(row);
    prefopt_row own = row_defaults;
    PF_TRY(pf_struct_read(&own, sizeof own, sizeof own, row, "prefopt_row"));
    if (own.extra == NULL)
        return pf_dataset_append(dataset, &own, NULL, 0);
    char *extra = NULL;
    int64_t extra_len = 0;
    PF_TRY(pf_extra_compact(dataset->context, own.extra, &extra, &extra_len));
    int32_t status = pf_dataset_append(dataset, &own, extra, extra_len);
    pf_free(dataset->context, extra);
    return status;
}

int32_t prefopt_dataset_append_pair(prefopt_dataset *dataset, const int32_t *prompt,
                                    int64_t prompt_len, const int32_t *chosen, int64_t chosen_len,
                                    const int32_t *rejected, int64_t rejected_len, double weight,
                                    double label, double margin)
{
    PF_REQUIRE(dataset);
    PF_TRY(check_tokens("prompt", prompt, prompt_len));
    PF_TRY(check_tokens("chosen", chosen, chosen_len));
    PF_TRY(check_tokens("rejected", rejected, rejected_len));
    PF_TRY(check_numbers(weight, label, margin));
    pf_dataset_sizes more = {.rows = 1, .sequences = 2};
    if (!pf_add(chosen_len, rejected_len, &more.completions) ||
        !pf_mul(2, prompt_len, &more.tokens) ||
        !pf_add(more.tokens, more.completions, &more.tokens))
        return pf_fail(PREFOPT_ERR_MEMORY, "a size overflows: a pair of %lld and %lld tokens",
                       (long long)chosen_len, (long long)rejected_len);
    if (pf_row_in_place(2, prompt_len))
        more.completions = 0;
    pf_dataset_replaced replaced;
    PF_TRY(pf_dataset_reserve(dataset, more, &replaced));
    pf_dataset_put_sequence(dataset, prompt, prompt_len, chosen, chosen_len, NULL);
    pf_dataset_put_sequence(dataset, prompt, prompt_len, rejected, rejected_len, NULL);
    pf_dataset_put_row(dataset, PREFOPT_ROW_PAIR, weight, label, margin, 0, NULL, 0);
    pf_dataset_free_replaced(dataset, &replaced);
    return PREFOPT_OK;
}

int32_t prefopt_dataset_set_column(prefopt_dataset *dataset, int32_t column, const double *values)
{
    PF_REQUIRE(dataset);
    if (column < 0 || column >= PF_COLUMNS)
        return pf_fail(PREFOPT_ERR_ARGUMENT, "column is %d, expected a prefopt_column, 0 to 3",
                       column);
    if (dataset->n_sequences == 0)
        return PREFOPT_OK;
    PF_REQUIRE(values);
    PF_TRY(check_column(column, values, dataset->n_sequences));
    memmove(dataset->column[column], values, (size_t)dataset->n_sequences * sizeof *values);
    if (column == PREFOPT_COLUMN_REF_LOGP) /* whose these are the keys do not say */
        memset(dataset->ref_key, 0, (size_t)dataset->n_rows * sizeof *dataset->ref_key);
    return PREFOPT_OK;
}
