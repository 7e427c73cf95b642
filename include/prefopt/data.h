/* prefopt/data.h: token sequences and the dataset.
 *
 *     prefopt_dataset *data;
 *     prefopt_dataset_create(&data, context);
 *     int32_t prompt[] = {7}, chosen[] = {1, 2}, rejected[] = {3};
 *     prefopt_row row;
 *     prefopt_row_init(&row, sizeof row);
 *     row.kind = PREFOPT_ROW_PAIR;
 *     ...
 *     prefopt_dataset_append(data, &row);
 *
 * A dataset is a list of rows. A row is a prompt with 0, 1, 2 or more completions and a kind that
 * says what they are to one another. Sampled completions, preference pairs, rankings and
 * demonstrations are all rows, so one sampler, one ranker and one set of trainers serve them all.
 * Underneath lie the sequences of all rows end to end (prompt and completion together), which
 * models take as they are: prefopt_dataset_sequences is a view, not a copy.
 *
 * A dataset may be read by many threads at once; appending needs it alone.
 */
#ifndef PREFOPT_DATA_H
#define PREFOPT_DATA_H

#include "base.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct prefopt_dataset prefopt_dataset;

/* A borrowed view of n sequences laid end to end. Sequence i is tokens[offsets[i] .. offsets[i+1]);
 * its first prompt_len[i] tokens are the prompt, the rest is the completion. offsets[0] may be any
 * number >= 0, so that a part of a larger view is a view too. Either part may be empty. */
typedef struct prefopt_sequences {
    uint32_t struct_size, reserved;
    int64_t n;
    const int32_t *tokens;
    const int64_t *offsets;    /* n + 1, not decreasing */
    const int64_t *prompt_len; /* n, 0 .. length of the sequence */
} prefopt_sequences;

enum prefopt_row_kind {
    PREFOPT_ROW_PROMPT = 0,      /* no completion */
    PREFOPT_ROW_COMPLETIONS = 1, /* one or more, unordered: demonstrations, or samples */
    PREFOPT_ROW_PAIR = 2,        /* two: chosen, rejected */
    PREFOPT_ROW_RANKING = 3      /* two or more, best first */
};

/* One row, going in (append) or coming out (view; every pointer then borrows from the dataset until
 * it is appended to, annotated or destroyed). The per-completion columns may each be NULL; a NaN in
 * them means "unknown". Log-probabilities may be -INFINITY, scores are finite. */
typedef struct prefopt_row {
    uint32_t struct_size;
    int32_t kind;
    int64_t n_completions;
    const int32_t *prompt; /* prompt_len tokens */
    int64_t prompt_len;
    const int32_t *completions;        /* all completions of the row end to end */
    const int64_t *completion_offsets; /* n_completions + 1, from 0 */
    double weight;                     /* >= 0, finite; default 1 */
    double label;                      /* PAIR alone: P(first is preferred), in [0, 1]; default 1 */
    double margin;      /* PAIR alone: nats, subtracted from the score difference; default 0 */
    const double *logp; /* n_completions: under the policy when it was sampled, untempered */
    const double *sampler_logp; /* n_completions: under what was sampled from */
    const double *score;        /* n_completions: by the reward model that ranked */
    const double *ref_logp;     /* n_completions: under the reference */
    const char
        *extra; /* JSON object text with the fields of the line that are not ours; NULL: none */
    uint64_t ref_key; /* whose ref_logp is: made by prefopt_reference_annotate of the reference's
                         hash and the row's tokens; 0 (default): nobody says */
} prefopt_row;

/* Fills row with the defaults (kind PROMPT, weight 1, label 1, margin 0, the rest 0 and NULL).
 * Errors: ARGUMENT, VERSION. Since 0.1. */
PREFOPT_API int32_t prefopt_row_init(prefopt_row *row, uint32_t struct_size);

/* An empty dataset. The caller owns *out. Errors: ARGUMENT, MEMORY. Since 0.1. */
PREFOPT_API int32_t prefopt_dataset_create(prefopt_dataset **out, prefopt_context *context);

/* NULL is fine. Since 0.1. */
PREFOPT_API void prefopt_dataset_destroy(prefopt_dataset *dataset);

/* Appends one row; its content is copied, so the row may borrow from this very dataset. On failure
 * the dataset is as before. Tokens must be >= 0; a PAIR has 2 completions, a RANKING >= 2,
 * COMPLETIONS >= 1, a PROMPT 0. label and margin of any row but a PAIR stay at their defaults;
 * a ref_key other than 0 needs every ref_logp of the row. (Whether it fits the row is seen where it
 * is used.)
 * Errors: ARGUMENT, NUMERIC (weight, label, margin or a column), MEMORY, VERSION, FORMAT (extra is
 * no JSON object, or has a field of the row itself), UNSUPPORTED (extra, built without JSON). Since
 * 0.1. */
PREFOPT_API int32_t prefopt_dataset_append(prefopt_dataset *dataset, const prefopt_row *row);

/* Appends a pair, the commonest row: the prompt, the chosen and the rejected completion, each an
 * array with its length in tokens. Errors: as prefopt_dataset_append. Since 0.1. */
PREFOPT_API int32_t prefopt_dataset_append_pair(prefopt_dataset *dataset, const int32_t *prompt,
                                                int64_t prompt_len, const int32_t *chosen,
                                                int64_t chosen_len, const int32_t *rejected,
                                                int64_t rejected_len, double weight, double label,
                                                double margin);

/* Number of rows; 0 for NULL. Thread-safe while nobody appends. Since 0.1. */
PREFOPT_API int64_t prefopt_dataset_size(const prefopt_dataset *dataset);

/* A view of row i, with the prompt and the completions apart. A column of which nothing is known in
 * this row is NULL, and so are all columns of a PROMPT. Errors: ARGUMENT (i out of range), VERSION.
 * Thread-safe while nobody appends. Since 0.1. */
PREFOPT_API int32_t prefopt_dataset_row(const prefopt_dataset *dataset, int64_t i,
                                        prefopt_row *out);

/* The columns of the whole dataset, borrowed. Row i's sequences are first[i] .. first[i+1]-1. A row
 * of kind PROMPT has one sequence, the prompt with an empty completion. first is never NULL; the
 * other arrays are when the dataset is empty. */
typedef struct prefopt_columns {
    uint32_t struct_size, reserved;
    int64_t n_rows, n_sequences;
    const int64_t *first;                                 /* n_rows + 1 */
    const int32_t *kind;                                  /* n_rows */
    const double *weight, *label, *margin;                /* n_rows */
    const double *logp, *sampler_logp, *score, *ref_logp; /* n_sequences; NaN: unknown */
    const uint64_t *ref_key;                              /* n_rows: as in prefopt_row; 0: none */
} prefopt_columns;

/* Errors: ARGUMENT, VERSION. Valid until the dataset is appended to, annotated or destroyed. Since
 * 0.1. */
PREFOPT_API int32_t prefopt_dataset_columns(const prefopt_dataset *dataset, prefopt_columns *out);

/* All sequences of the dataset (n_sequences of them), borrowed; no copy.
 * Errors: ARGUMENT, VERSION. Valid until the dataset is appended to or destroyed. Since 0.1. */
PREFOPT_API int32_t prefopt_dataset_sequences(const prefopt_dataset *dataset,
                                              prefopt_sequences *out);

enum prefopt_column {
    PREFOPT_COLUMN_LOGP = 0,
    PREFOPT_COLUMN_SAMPLER_LOGP = 1,
    PREFOPT_COLUMN_SCORE = 2,
    PREFOPT_COLUMN_REF_LOGP = 3
};

/* Writes one column (n_sequences doubles, copied; NaN: unknown). What it says of the empty
 * completion of a PROMPT stays in memory alone: files and row views do not have it. REF_LOGP sets
 * every ref_key to 0.
 * Errors: ARGUMENT, NUMERIC (+infinity; in a score any infinity). Since 0.1. */
PREFOPT_API int32_t prefopt_dataset_set_column(prefopt_dataset *dataset, int32_t column,
                                               const double *values);

/* A new dataset with rows rows[0 .. n) of this one, in that order, repeats allowed, columns and
 * extra fields included. This is how splits, shuffles and batches are taken. The caller owns *out.
 * Errors: ARGUMENT (names the index), MEMORY. Since 0.1. */
PREFOPT_API int32_t prefopt_dataset_select(prefopt_dataset **out, const prefopt_dataset *dataset,
                                           const int64_t *rows, int64_t n);

/* order[0 .. n) := a permutation of 0 .. n-1 that depends on (seed, epoch, n) alone.
 * Errors: ARGUMENT. Thread-safe. Since 0.1. */
PREFOPT_API int32_t prefopt_shuffle_order(uint64_t seed, uint64_t epoch, int64_t n, int64_t *order);

/* Splits into two new datasets: each row goes to *second with probability `fraction` (in [0, 1]),
 * decided by the seed and the row's prompt, so that all rows of one prompt stay on one side and a
 * grown file keeps its split. by_row != 0 decides by seed and row number instead, which is what
 * data with one prompt needs. Order is kept. The caller owns both. Errors: ARGUMENT, NUMERIC
 * (fraction is NaN), MEMORY. Since 0.1. */
PREFOPT_API int32_t prefopt_dataset_split(prefopt_dataset **first, prefopt_dataset **second,
                                          const prefopt_dataset *dataset, double fraction,
                                          uint64_t seed, int32_t by_row);

/* 64-bit hash of the sequences (tokens and where prompts end), in order: what precomputed numbers
 * are checked against. 0 for NULL. Since 0.1. */
PREFOPT_API uint64_t prefopt_dataset_hash(const prefopt_dataset *dataset);

/* ---------------------------------------------------------------- JSON Lines
 *
 * One JSON object a line, UTF-8; blank lines are skipped. Tokens are arrays of integers, 0 to
 * 2^31 - 1.
 *
 *     {"prompt":[7]}
 *     {"prompt":[7],"completion":[1,2]}                 or "completions":[[1,2],[3]]
 *     {"prompt":[7],"chosen":[1,2],"rejected":[3],"weight":1,"label":1,"margin":0}
 *     {"prompt":[7],"ranking":[[1,2],[3],[4]]}          best first
 *
 * Optional everywhere: "weight"; on pairs "label", "margin"; and the columns "logps",
 * "sampler_logps", "scores", "ref_logps", each an array with one number or null (unknown) a
 * completion, or "-Infinity" as a string, but not in scores; beside ref_logps "ref_key", 16
 * hexadecimal digits as a string (prefopt_row.ref_key). "prompt" may be left out when it is
 * empty. Other fields are kept (prefopt_row.extra) and written back after ours.
 *
 * Refused, rather than guessed at: fields twice in one object, text where tokens belong, fields of
 * more than one kind of row in a line, "label" and "margin" outside pairs, and integers beyond 64
 * bits. A byte order mark, CR LF and a missing last line end are fine. */

/* Reads a file, compressed with gzip or not (its first bytes say), into a new dataset. On any bad
 * line nothing is made, and the text says file, line, field, what was found and what was expected.
 * The caller owns *out. Errors: ARGUMENT, IO, FORMAT (also gzip data that is damaged or cut off),
 * MEMORY, UNSUPPORTED (built without JSON; gzip, built without that). Thread-safe. Since 0.1. */
PREFOPT_API int32_t prefopt_dataset_read_jsonl(prefopt_dataset **out, prefopt_context *context,
                                               const char *path);

/* Writes all rows; reading them back gives the same dataset, bit for bit (of columns where nothing
 * is known, nothing). Defaults are left out. The file appears whole or not at all: it is written
 * beside the old one, flushed to disk and renamed; so the path may be a link to a file, but no
 * device or pipe. Errors: ARGUMENT, IO, MEMORY, UNSUPPORTED (built without JSON). Thread-safe while
 * nobody appends. Since 0.1. */
PREFOPT_API int32_t prefopt_dataset_write_jsonl(const prefopt_dataset *dataset, const char *path);

#ifdef __cplusplus
}
#endif
#endif
