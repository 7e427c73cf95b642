/* Rows and datasets that the tests of this room share. */
#ifndef PF_DATASET_TEST_H
#define PF_DATASET_TEST_H

#include "data/pf_dataset.h"
#include "pf_config.h"
#include "pf_test.h"

static inline prefopt_row pair_row(void)
{
    static const int32_t prompt[] = {7, 8}, completions[] = {1, 2, 3};
    static const int64_t offsets[] = {0, 2, 3};
    static const double logp[] = {-1.5, -INFINITY}, score[] = {NAN, 0.25};
    prefopt_row row;
    OK(prefopt_row_init(&row, sizeof row));
    row.kind = PREFOPT_ROW_PAIR;
    row.n_completions = 2;
    row.prompt = prompt;
    row.prompt_len = 2;
    row.completions = completions;
    row.completion_offsets = offsets;
    row.weight = 2;
    row.label = 0.75;
    row.margin = -0.5;
    row.logp = logp;
    row.score = score;
    return row;
}

/* One row of every kind; the ranking has an empty completion in the middle. */
static inline prefopt_dataset *four_rows(prefopt_context *context)
{
    static const int32_t tokens[] = {5, 6, 7, 8, 9};
    static const int64_t offsets[] = {0, 2, 2, 5};
    prefopt_dataset *data = NULL;
    OK(prefopt_dataset_create(&data, context));
    prefopt_row row = pair_row();
    OK(prefopt_dataset_append(data, &row));
    OK(prefopt_row_init(&row, sizeof row));
    row.prompt = tokens;
    row.prompt_len = 1;
    OK(prefopt_dataset_append(data, &row));
    row.kind = PREFOPT_ROW_RANKING;
    row.n_completions = 3;
    row.completions = tokens;
    row.completion_offsets = offsets;
    OK(prefopt_dataset_append(data, &row));
    row.kind = PREFOPT_ROW_COMPLETIONS;
    row.n_completions = 1;
    row.prompt_len = 0;
    OK(prefopt_dataset_append(data, &row));
    return data;
}

static inline prefopt_columns columns_of(const prefopt_dataset *data)
{
    prefopt_columns columns = {.struct_size = sizeof columns};
    OK(prefopt_dataset_columns(data, &columns));
    return columns;
}

static inline prefopt_sequences sequences_of(const prefopt_dataset *data)
{
    prefopt_sequences view = {.struct_size = sizeof view};
    OK(prefopt_dataset_sequences(data, &view));
    OK(pf_sequences_check(&view, "view"));
    return view;
}

static inline prefopt_row row_of(const prefopt_dataset *data, int64_t i)
{
    prefopt_row row = {.struct_size = sizeof row};
    OK(prefopt_dataset_row(data, i, &row));
    return row;
}

/* n pairs; the prompt of row i is i % n_prompts, its weight is i. */
static inline prefopt_dataset *many_pairs(prefopt_context *context, int64_t n, int32_t n_prompts)
{
    prefopt_dataset *data = NULL;
    OK(prefopt_dataset_create(&data, context));
    for (int64_t i = 0; i < n; i++) {
        int32_t prompt = (int32_t)(i % n_prompts), chosen = 1, rejected = 2;
        if (prefopt_dataset_append_pair(data, &prompt, 1, &chosen, 1, &rejected, 1, (double)i, 1,
                                        0) != PREFOPT_OK)
            ck_abort_msg("%s", prefopt_last_error());
    }
    return data;
}

#endif
