/* JSON Lines from inside: one line to a row, a text in memory to a dataset. */
#ifndef PF_JSONL_H
#define PF_JSONL_H

#include "data/pf_dataset.h"
#include "pf_config.h"

/* Reads n bytes of JSON Lines into a new dataset; name stands for the file in error texts.
 * Errors: FORMAT, MEMORY, UNSUPPORTED. On failure *out is as before. */
int32_t pf_jsonl_parse(prefopt_context *context, const char *name, const char *bytes, int64_t n,
                       prefopt_dataset **out);

#if PF_HAVE_JSON
#include <jansson.h>

/* What reading holds: the dataset so far, and room for the parts of the row at hand. */
typedef struct {
    prefopt_context *context;
    prefopt_dataset *data;
    const char *name;
    int64_t line; /* from 1 */
    /* The prompt's tokens, then those of all completions; where completions end. */
    int32_t *tokens;
    int64_t n_tokens, token_capacity;
    int64_t *offsets;
    int64_t n_completions, offset_capacity;
    double *columns; /* [PF_COLUMNS][n_completions] */
    int64_t column_capacity;
} pf_jsonl_reader;

/* A reader with an empty dataset; name stands for the file in error texts. The end hands the
 * dataset over when the status is OK, and returns the status. (jsonl_read.c) */
int32_t pf_jsonl_begin(pf_jsonl_reader *reader, prefopt_context *context, const char *name);
int32_t pf_jsonl_end(pf_jsonl_reader *reader, int32_t status, prefopt_dataset **out);

/* Appends the row of one line (without its line end) to reader->data. A line of white space is no
 * row. Errors: FORMAT, MEMORY: "NAME:LINE: ...". (jsonl_line.c) */
int32_t pf_jsonl_line(pf_jsonl_reader *reader, const char *bytes, int64_t n);

/* ---- parts of a line, with tokens or with texts (jsonl_fields.c) */

/* A value in the line: its field, and the index or two indices within that (-1: none). */
typedef struct {
    const char *field;
    int64_t i, j;
} pf_jsonl_place;

/* FORMAT, NAME:LINE: field "x": found A at [i][j], expected B. value NULL: found nothing. */
int32_t pf_jsonl_unexpected(const pf_jsonl_reader *r, pf_jsonl_place at, const json_t *value,
                            const char *expected);

/* The line's object, a new reference; NULL where there is none, for white space or an error. */
int32_t pf_jsonl_object(const pf_jsonl_reader *r, const char *bytes, int64_t n, json_t **out);

/* Room for that many more tokens; for one more completion's offset. */
int32_t pf_jsonl_reserve_tokens(pf_jsonl_reader *r, int64_t more);
int32_t pf_jsonl_reserve_completion(pf_jsonl_reader *r);

/* row->kind by which of the fields that hold completions the line has; at most one kind of them. */
int32_t pf_jsonl_kind(const pf_jsonl_reader *r, const json_t *line, prefopt_row *row);
/* weight, label and margin. */
int32_t pf_jsonl_numbers(const pf_jsonl_reader *r, const json_t *line, prefopt_row *row);
/* The columns, for r->n_completions; row's pointers to them are the reader's. */
int32_t pf_jsonl_columns(pf_jsonl_reader *r, const json_t *line, prefopt_row *row);

/* Appends the row with what is left of the line as its extra fields. Takes the others out of it. */
int32_t pf_jsonl_append(pf_jsonl_reader *r, json_t *line, const prefopt_row *row);

/* Puts the line's place before a failure that lacks it (MEMORY); returns the status. */
int32_t pf_jsonl_in_line(const pf_jsonl_reader *r, int32_t status);

/* An object without fields of the format -> compact text, as pf_extra_compact. (extra.c) */
int32_t pf_extra_dump(prefopt_context *context, const json_t *object, char **out, int64_t *n);
#endif

#endif
