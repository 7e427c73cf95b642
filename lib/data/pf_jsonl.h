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

/* Appends the row of one line (without its line end) to reader->data. A line of white space is no
 * row. Errors: FORMAT, MEMORY: "NAME:LINE: ...". (jsonl_line.c) */
int32_t pf_jsonl_line(pf_jsonl_reader *reader, const char *bytes, int64_t n);

/* An object without fields of the format -> compact text, as pf_extra_compact. (extra.c) */
int32_t pf_extra_dump(prefopt_context *context, const json_t *object, char **out, int64_t *n);
#endif

#endif
