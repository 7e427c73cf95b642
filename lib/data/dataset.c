/* The dataset: its arrays, their growth, and views of them. */
#include "data/pf_dataset.h"

enum group { ROWS, SEQUENCES, ROW_OFFSETS, TOKENS, COMPLETIONS, TEXT, N_GROUPS };

/* Where each array's pointer lies in the struct, the size of an element, its group, and how many
 * elements more than the group's number it has. */
static const struct {
    size_t at, size;
    int32_t group, more;
} arrays[] = {
#define ARRAY(field, group, more)                                                                  \
    {offsetof(prefopt_dataset, field), sizeof *((prefopt_dataset *)0)->field, group, more},
    /* clang-format off */
    ARRAY(first, ROWS, 1)
    ARRAY(kind, ROWS, 0)
    ARRAY(weight, ROWS, 0)
    ARRAY(label, ROWS, 0)
    ARRAY(margin, ROWS, 0)
    ARRAY(ref_key, ROWS, 0)
    ARRAY(extra, ROWS, 0)
    ARRAY(completions_at, ROWS, 1)
    ARRAY(offsets, SEQUENCES, 1)
    ARRAY(prompt_len, SEQUENCES, 0)
    ARRAY(column[0], SEQUENCES, 0)
    ARRAY(column[1], SEQUENCES, 0)
    ARRAY(column[2], SEQUENCES, 0)
    ARRAY(column[3], SEQUENCES, 0)
    ARRAY(row_offsets, ROW_OFFSETS, 0)
    ARRAY(tokens, TOKENS, 0)
    ARRAY(completions, COMPLETIONS, 0)
    ARRAY(text, TEXT, 0)
/* clang-format on */
#undef ARRAY
};
_Static_assert(sizeof arrays / sizeof arrays[0] == PF_DATASET_ARRAYS, "one entry an array");

static void *get_array(const prefopt_dataset *d, int32_t a)
{
    void *pointer;
    memcpy(&pointer, (const char *)d + arrays[a].at, sizeof pointer);
    return pointer;
}

static void set_array(prefopt_dataset *d, int32_t a, void *pointer)
{
    memcpy((char *)d + arrays[a].at, &pointer, sizeof pointer);
}

/* used[g] elements of each group are in use, more[g] are to be added. capacity[g] becomes the new
 * capacity. */
static int32_t new_capacities(const int64_t *used, const int64_t *more, int64_t *capacity)
{
    for (int32_t g = 0; g < N_GROUPS; g++) {
        int64_t needed;
        bool fits = pf_add(used[g], more[g], &needed);
        if (fits && needed <= capacity[g] && capacity[g] > 0)
            continue;
        /* Twice as much, unless the first filling says how much there will be. */
        int64_t grown = capacity[g];
        if (grown == 0)
            grown = needed;
        while (fits && grown < needed)
            fits = pf_mul(grown, 2, &grown);
        if (!fits || grown > INT64_MAX / 16)
            return pf_fail(PREFOPT_ERR_MEMORY, "a size overflows: %lld elements and %lld more",
                           (long long)used[g], (long long)more[g]);
        capacity[g] = grown < 4 ? 4 : grown;
    }
    return PREFOPT_OK;
}

int32_t pf_dataset_reserve(prefopt_dataset *d, pf_dataset_sizes more, pf_dataset_replaced *replaced)
{
    replaced->n = 0;
    const int64_t used[N_GROUPS] = {d->n_rows,
                                    d->n_sequences,
                                    d->n_sequences + d->n_rows,
                                    d->offsets == NULL ? 0 : d->offsets[d->n_sequences],
                                    d->offsets == NULL ? 0 : d->completions_at[d->n_rows],
                                    d->n_text};
    int64_t *const slot[N_GROUPS] = {&d->row_capacity,         &d->sequence_capacity,
                                     &d->row_offsets_capacity, &d->token_capacity,
                                     &d->completion_capacity,  &d->text_capacity};
    const int64_t added[N_GROUPS] = {more.rows,   more.sequences,   more.rows + more.sequences,
                                     more.tokens, more.completions, more.text};
    int64_t capacity[N_GROUPS];
    for (int32_t g = 0; g < N_GROUPS; g++)
        capacity[g] = *slot[g];
    PF_TRY(new_capacities(used, added, capacity));

    void *grown[PF_DATASET_ARRAYS] = {NULL};
    for (int32_t a = 0; a < PF_DATASET_ARRAYS; a++) {
        int32_t g = arrays[a].group;
        if (capacity[g] == *slot[g])
            continue;
        grown[a] = pf_alloc(d->context, capacity[g] + arrays[a].more, arrays[a].size);
        if (grown[a] == NULL) {
            while (a-- > 0)
                pf_free(d->context, grown[a]);
            return PREFOPT_ERR_MEMORY;
        }
    }
    for (int32_t a = 0; a < PF_DATASET_ARRAYS; a++) {
        if (grown[a] == NULL)
            continue;
        void *old = get_array(d, a);
        if (old == NULL) { /* arrays of n + 1 start at 0 */
            memset(grown[a], 0, (size_t)arrays[a].more * arrays[a].size);
        } else {
            memcpy(grown[a], old,
                   (size_t)(used[arrays[a].group] + arrays[a].more) * arrays[a].size);
            replaced->array[replaced->n++] = old;
        }
        set_array(d, a, grown[a]);
    }
    for (int32_t g = 0; g < N_GROUPS; g++)
        *slot[g] = capacity[g];
    return PREFOPT_OK;
}

void pf_dataset_free_replaced(prefopt_dataset *d, const pf_dataset_replaced *replaced)
{
    for (int32_t i = 0; i < replaced->n; i++)
        pf_free(d->context, replaced->array[i]);
}

int32_t prefopt_dataset_create(prefopt_dataset **out, prefopt_context *context)
{
    PF_REQUIRE(out);
    PF_REQUIRE(context);
    prefopt_dataset *d = pf_calloc(context, 1, sizeof *d);
    if (d == NULL)
        return PREFOPT_ERR_MEMORY;
    d->context = pf_context_retain(context);
    *out = d;
    return PREFOPT_OK;
}

void prefopt_dataset_destroy(prefopt_dataset *dataset)
{
    if (dataset == NULL)
        return;
    prefopt_context *context = dataset->context;
    for (int32_t a = 0; a < PF_DATASET_ARRAYS; a++)
        pf_free(context, get_array(dataset, a));
    pf_free(context, dataset);
    pf_context_release(context);
}

/* ---------------------------------------------------------------- views */

/* What an empty dataset's arrays of n + 1 show. */
static const int64_t zero[1] = {0};

int64_t prefopt_dataset_size(const prefopt_dataset *dataset)
{
    return dataset == NULL ? 0 : dataset->n_rows;
}

/* A row's part of a column; NULL when nothing in it is known. */
static const double *known(const double *column, int64_t first, int64_t n)
{
    for (int64_t i = first; i < first + n; i++)
        if (column[i] == column[i])
            return column + first;
    return NULL;
}

int32_t prefopt_dataset_row(const prefopt_dataset *dataset, int64_t i, prefopt_row *out)
{
    PF_REQUIRE(dataset);
    PF_REQUIRE(out);
    PF_TRY(pf_struct_check_out(out, sizeof *out, "prefopt_row"));
    if (i < 0 || i >= dataset->n_rows)
        return pf_fail(PREFOPT_ERR_ARGUMENT, "row %lld is not in the dataset, which has %lld rows",
                       (long long)i, (long long)dataset->n_rows);
    int64_t first = dataset->first[i];
    prefopt_row row = {.struct_size = sizeof row,
                       .kind = dataset->kind[i],
                       .prompt = dataset->tokens + dataset->offsets[first],
                       .prompt_len = dataset->prompt_len[first],
                       .weight = dataset->weight[i],
                       .label = dataset->label[i],
                       .margin = dataset->margin[i]};
    if (row.kind != PREFOPT_ROW_PROMPT) {
        int64_t n = dataset->first[i + 1] - first;
        row.n_completions = n;
        row.completions = pf_row_in_place(n, row.prompt_len)
                              ? row.prompt + row.prompt_len
                              : dataset->completions + dataset->completions_at[i];
        row.completion_offsets = dataset->row_offsets + first + i;
        row.logp = known(dataset->column[PREFOPT_COLUMN_LOGP], first, n);
        row.sampler_logp = known(dataset->column[PREFOPT_COLUMN_SAMPLER_LOGP], first, n);
        row.score = known(dataset->column[PREFOPT_COLUMN_SCORE], first, n);
        row.ref_logp = known(dataset->column[PREFOPT_COLUMN_REF_LOGP], first, n);
        row.ref_key = dataset->ref_key[i];
    }
    if (dataset->extra[i] >= 0)
        row.extra = dataset->text + dataset->extra[i];
    pf_struct_write(out, &row, sizeof row);
    return PREFOPT_OK;
}

int32_t prefopt_dataset_columns(const prefopt_dataset *dataset, prefopt_columns *out)
{
    PF_REQUIRE(dataset);
    PF_REQUIRE(out);
    PF_TRY(pf_struct_check_out(out, sizeof *out, "prefopt_columns"));
    prefopt_columns columns = {.struct_size = sizeof columns,
                               .n_rows = dataset->n_rows,
                               .n_sequences = dataset->n_sequences,
                               .first = dataset->first == NULL ? zero : dataset->first,
                               .kind = dataset->kind,
                               .weight = dataset->weight,
                               .label = dataset->label,
                               .margin = dataset->margin,
                               .logp = dataset->column[PREFOPT_COLUMN_LOGP],
                               .sampler_logp = dataset->column[PREFOPT_COLUMN_SAMPLER_LOGP],
                               .score = dataset->column[PREFOPT_COLUMN_SCORE],
                               .ref_logp = dataset->column[PREFOPT_COLUMN_REF_LOGP],
                               .ref_key = dataset->ref_key};
    pf_struct_write(out, &columns, sizeof columns);
    return PREFOPT_OK;
}

int32_t prefopt_dataset_sequences(const prefopt_dataset *dataset, prefopt_sequences *out)
{
    PF_REQUIRE(dataset);
    PF_REQUIRE(out);
    PF_TRY(pf_struct_check_out(out, sizeof *out, "prefopt_sequences"));
    prefopt_sequences view = {.struct_size = sizeof view,
                              .n = dataset->n_sequences,
                              .tokens = dataset->tokens,
                              .offsets = dataset->offsets == NULL ? zero : dataset->offsets,
                              .prompt_len = dataset->prompt_len};
    pf_struct_write(out, &view, sizeof view);
    return PREFOPT_OK;
}

uint64_t prefopt_dataset_hash(const prefopt_dataset *dataset)
{
    prefopt_sequences all = {.struct_size = sizeof all};
    if (dataset == NULL || prefopt_dataset_sequences(dataset, &all) != PREFOPT_OK)
        return 0;
    uint64_t hash = pf_row_hash(&all, 0, all.n);
    return hash != 0 ? hash : 1;
}
