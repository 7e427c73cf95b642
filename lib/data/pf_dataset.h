/* The dataset from inside: its arrays, and what the files of this room share. */
#ifndef PF_DATASET_H
#define PF_DATASET_H

#include "data/pf_data.h"

enum { PF_COLUMNS = 4 }; /* as prefopt_column */

/* Three groups of arrays and two arenas; each grows by doubling. Models take whole sequences,
 * prompt and completion together, but a row view gives the completions of a row end to end: where
 * prompts stand between them, they lie a second time in `completions`. */
struct prefopt_dataset {
    prefopt_context *context;

    int64_t n_rows, row_capacity;
    int64_t *first; /* n_rows + 1: the row's first sequence */
    int32_t *kind;
    double *weight, *label, *margin;
    uint64_t *ref_key;
    int64_t *extra;          /* where the row's text begins in `text`; -1: none */
    int64_t *completions_at; /* n_rows + 1: the row's tokens in `completions` */

    int64_t n_sequences, sequence_capacity;
    int64_t *offsets; /* n_sequences + 1 */
    int64_t *prompt_len;
    double *column[PF_COLUMNS];

    /* Row i's completion_offsets begin at first[i] + i: a row has one more than sequences. */
    int64_t row_offsets_capacity;
    int64_t *row_offsets; /* n_sequences + n_rows */

    int64_t token_capacity, completion_capacity, text_capacity, n_text;
    int32_t *tokens;      /* offsets[n_sequences] */
    int32_t *completions; /* completions_at[n_rows] */
    char *text;           /* JSON objects, each ended by a zero */
};

/* Sizes to be added. */
typedef struct {
    int64_t rows, sequences, tokens, completions, text;
} pf_dataset_sizes;

/* Arrays that growing has replaced. They live until what was to be appended is written, because
 * that may borrow from them (a view of one of the dataset's own rows). */
enum { PF_DATASET_ARRAYS = 18 };
typedef struct {
    int32_t n;
    void *array[PF_DATASET_ARRAYS];
} pf_dataset_replaced;

/* Whether a row's completions lie end to end in `tokens` as they are. */
static inline bool pf_row_in_place(int64_t n_sequences, int64_t prompt_len)
{
    return n_sequences == 1 || prompt_len == 0;
}

/* Makes room for `more`. Either all arrays are large enough afterwards or nothing changed (MEMORY).
 */
int32_t pf_dataset_reserve(prefopt_dataset *dataset, pf_dataset_sizes more,
                           pf_dataset_replaced *replaced);
void pf_dataset_free_replaced(prefopt_dataset *dataset, const pf_dataset_replaced *replaced);

/* The two steps of writing a row into room that was reserved: its sequences one by one, then the
 * row's own fields. values: PF_COLUMNS numbers or NULL (unknown). A row of kind PROMPT has one
 * sequence with an empty completion. */
void pf_dataset_put_sequence(prefopt_dataset *dataset, const int32_t *prompt, int64_t prompt_len,
                             const int32_t *completion, int64_t len, const double *values);
void pf_dataset_put_row(prefopt_dataset *dataset, int32_t kind, double weight, double label,
                        double margin, uint64_t ref_key, const char *extra, int64_t extra_len);

/* Appends a row without looking at row->extra: extra (NULL or compact JSON text) is taken instead.
 */
int32_t pf_dataset_append(prefopt_dataset *dataset, const prefopt_row *row, const char *extra,
                          int64_t extra_len);

/* ---- fields that are not ours (extra.c) */

/* Whether a line's field of this name belongs to the format. */
bool pf_is_row_field(const char *name);

/* Text of a JSON object -> the same object as compact text (zero-ended, without the zero n bytes;
 * pf_free it); NULL for {}. FORMAT when it is no object or has a field of the format,
 * UNSUPPORTED without JSON. */
int32_t pf_extra_compact(prefopt_context *context, const char *text, char **out, int64_t *n);

#endif
