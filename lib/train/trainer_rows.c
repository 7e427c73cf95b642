/* The data of a trainer: each distinct sequence once, rows by index. */
#include <math.h>
#include <stdio.h>

#include "train/pf_train.h"

static int32_t allocate(pf_rows *rows)
{
    prefopt_context *context = rows->context;
    int64_t n = rows->n;
    rows->first = pf_alloc(context, n + 1, sizeof *rows->first);
    rows->sequence = pf_alloc(context, rows->n_slots, sizeof *rows->sequence);
    rows->kind = pf_alloc(context, n, sizeof *rows->kind);
    rows->weight = pf_alloc(context, n, sizeof *rows->weight);
    rows->label = pf_alloc(context, n, sizeof *rows->label);
    rows->margin = pf_alloc(context, n, sizeof *rows->margin);
    bool failed = rows->first == NULL || rows->sequence == NULL || rows->kind == NULL ||
                  rows->weight == NULL || rows->label == NULL || rows->margin == NULL;
    return failed ? PREFOPT_ERR_MEMORY : PREFOPT_OK;
}

/* Lengths of the distinct sequences, and which share a prompt. */
static int32_t describe_distinct(pf_rows *rows)
{
    prefopt_context *context = rows->context;
    const prefopt_sequences *view = pf_sequence_map_view(rows->map);
    rows->n_distinct = view->n;
    rows->length = pf_alloc(context, view->n, sizeof *rows->length);
    rows->group = pf_alloc(context, view->n, sizeof *rows->group);
    if (rows->length == NULL || rows->group == NULL)
        return PREFOPT_ERR_MEMORY;
    for (int64_t i = 0; i < view->n; i++)
        rows->length[i] = pf_sequence_len(view, i) - view->prompt_len[i];
    pf_sequence_map *prompts;
    PF_TRY(pf_sequence_map_create(&prompts, context, view, PF_MAP_PROMPTS, rows->group));
    rows->n_groups = pf_sequence_map_size(prompts);
    pf_sequence_map_destroy(prompts);
    return PREFOPT_OK;
}

static int32_t fill(pf_rows *rows, const prefopt_dataset *data, const prefopt_columns *columns)
{
    prefopt_sequences sequences = {.struct_size = sizeof sequences};
    PF_TRY(prefopt_dataset_sequences(data, &sequences));
    PF_TRY(pf_sequence_map_create(&rows->map, rows->context, &sequences, PF_MAP_SEQUENCES,
                                  rows->sequence));
    PF_TRY(describe_distinct(rows));
    size_t n = (size_t)rows->n;
    memcpy(rows->first, columns->first, (n + 1) * sizeof *rows->first);
    memcpy(rows->kind, columns->kind, n * sizeof *rows->kind);
    memcpy(rows->label, columns->label, n * sizeof *rows->label);
    memcpy(rows->margin, columns->margin, n * sizeof *rows->margin);
    for (int64_t i = 0; i < rows->n; i++) {
        rows->labelled |= rows->kind[i] == PREFOPT_ROW_PAIR && rows->label[i] != 1;
        rows->margined |= rows->kind[i] == PREFOPT_ROW_PAIR && rows->margin[i] != 0;
        int64_t slots = rows->first[i + 1] - rows->first[i];
        if (slots > rows->max_row)
            rows->max_row = slots;
    }
    return pf_rows_set_weights(rows, columns->weight, &rows->total_weight);
}

int32_t pf_rows_set_weights(pf_rows *rows, const double *weight, double *total)
{
    double sum = 0;
    for (int64_t i = 0; i < rows->n; i++)
        sum += weight[i];
    if (!(sum > 0 && isfinite(sum)))
        return pf_fail(PREFOPT_ERR_ARGUMENT,
                       "the weights of the %lld rows sum to %g, expected a finite number > 0",
                       (long long)rows->n, sum);
    rows->weighted = false;
    for (int64_t i = 0; i < rows->n; i++) {
        rows->weight[i] = weight[i];
        rows->weighted |= weight[i] != 1;
    }
    *total = rows->total_weight = sum;
    return PREFOPT_OK;
}

int32_t pf_rows_max_slots(const pf_rows *rows, int64_t batch, int64_t *slots)
{
    if (!pf_mul(batch, rows->max_row, slots))
        return pf_fail(PREFOPT_ERR_MEMORY, "a size overflows: a batch of %lld rows",
                       (long long)batch);
    /* A batch may go from one epoch into the next and so have a row twice. */
    if (*slots / 2 > rows->n_slots)
        *slots = 2 * rows->n_slots;
    return PREFOPT_OK;
}

int32_t pf_rows_create(pf_rows **out, prefopt_context *context, const prefopt_dataset *data)
{
    prefopt_columns columns = {.struct_size = sizeof columns};
    PF_TRY(prefopt_dataset_columns(data, &columns));
    if (columns.n_rows == 0)
        return pf_fail(PREFOPT_ERR_ARGUMENT, "the dataset has no rows, expected at least 1");
    pf_rows *rows = pf_calloc(context, 1, sizeof *rows);
    if (rows == NULL)
        return PREFOPT_ERR_MEMORY;
    rows->context = context;
    rows->n = columns.n_rows;
    rows->n_slots = columns.n_sequences;
    int32_t status = allocate(rows);
    if (status == PREFOPT_OK)
        status = fill(rows, data, &columns);
    if (status != PREFOPT_OK) {
        pf_rows_destroy(rows);
        return status;
    }
    *out = rows;
    return PREFOPT_OK;
}

void pf_rows_destroy(pf_rows *rows)
{
    if (rows == NULL)
        return;
    prefopt_context *context = rows->context;
    pf_sequence_map_destroy(rows->map);
    pf_free(context, rows->first);
    pf_free(context, rows->sequence);
    pf_free(context, rows->length);
    pf_free(context, rows->group);
    pf_free(context, rows->kind);
    pf_free(context, rows->weight);
    pf_free(context, rows->label);
    pf_free(context, rows->margin);
    pf_free(context, rows);
}

/* Appends "[1 2 3]" at `at`, at most six tokens; the text stays ended by a zero. */
static size_t put_tokens(char *text, size_t size, size_t at, const int32_t *tokens, int64_t n)
{
    enum { SHOWN = 6 };
    int64_t shown = n < SHOWN ? n : SHOWN;
    for (int64_t i = 0; i < shown && at < size; i++)
        at += (size_t)snprintf(text + at, size - at, "%s%d", i == 0 ? "[" : " ", tokens[i]);
    if (at < size)
        at += (size_t)snprintf(text + at, size - at, "%s%s", shown == 0 ? "[" : "",
                               n > shown ? " ...]" : "]");
    return at < size ? at : size - 1;
}

const char *pf_rows_text(const pf_rows *rows, int64_t distinct, char text[PF_SEQUENCE_TEXT])
{
    const prefopt_sequences *view = pf_sequence_map_view(rows->map);
    const int32_t *tokens = pf_sequence_tokens(view, distinct);
    int64_t len = pf_sequence_len(view, distinct), prompt = view->prompt_len[distinct];
    size_t at = (size_t)snprintf(text, PF_SEQUENCE_TEXT, "prompt ");
    at = put_tokens(text, PF_SEQUENCE_TEXT, at, tokens, prompt);
    at += (size_t)snprintf(text + at, PF_SEQUENCE_TEXT - at, ", completion ");
    if (at < PF_SEQUENCE_TEXT)
        put_tokens(text, PF_SEQUENCE_TEXT, at, prompt < len ? tokens + prompt : NULL, len - prompt);
    return text;
}

int32_t pf_kinds_require(const int32_t *kinds, int64_t n, const char *objective, int32_t kind)
{
    static const char *const names[] = {"PROMPT", "COMPLETIONS", "PAIR", "RANKING"};
    for (int64_t i = 0; i < n; i++)
        if (kinds[i] != kind)
            return pf_fail(PREFOPT_ERR_ARGUMENT, "%s: row %lld is of kind %s, expected %s",
                           objective, (long long)i, names[kinds[i]], names[kind]);
    return PREFOPT_OK;
}

int32_t pf_rows_require(const pf_rows *rows, const char *objective, int32_t kind)
{
    return pf_kinds_require(rows->kind, rows->n, objective, kind);
}

int32_t pf_rows_are_rankings(const pf_rows *rows, const char *objective, bool *rankings)
{
    *rankings = rows->kind[0] == PREFOPT_ROW_RANKING;
    return pf_rows_require(rows, objective, *rankings ? PREFOPT_ROW_RANKING : PREFOPT_ROW_PAIR);
}
