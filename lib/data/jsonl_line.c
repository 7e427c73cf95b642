/* One line of JSON Lines, with tokens, to one row. */
#include "data/pf_jsonl.h"

#if PF_HAVE_JSON

/* Adds an array of tokens to the reader's. at.j is free for the index of a token: at.i when the
 * array is the field itself. */
static int32_t read_tokens(pf_jsonl_reader *r, pf_jsonl_place at, const json_t *array)
{
    if (json_is_string(array))
        return pf_jsonl_unexpected(r, at, array,
                                   "an array of tokens; text has to go through a tokenizer first");
    if (!json_is_array(array))
        return pf_jsonl_unexpected(r, at, array, "an array of tokens");
    int64_t n = (int64_t)json_array_size(array);
    PF_TRY(pf_jsonl_reserve_tokens(r, n));
    for (int64_t t = 0; t < n; t++) {
        const json_t *value = json_array_get(array, (size_t)t);
        int64_t token = json_is_integer(value) ? json_integer_value(value) : -1;
        if (token < 0 || token > INT32_MAX) {
            if (at.i < 0)
                at.i = t;
            else
                at.j = t;
            return pf_jsonl_unexpected(r, at, value, "a token, an integer from 0 to 2147483647");
        }
        r->tokens[r->n_tokens++] = (int32_t)token;
    }
    return PREFOPT_OK;
}

static int32_t read_completion(pf_jsonl_reader *r, pf_jsonl_place at, const json_t *array,
                               int64_t prompt_len)
{
    PF_TRY(pf_jsonl_reserve_completion(r));
    PF_TRY(read_tokens(r, at, array));
    r->offsets[++r->n_completions] = r->n_tokens - prompt_len;
    return PREFOPT_OK;
}

/* An array of `least` or more completions. */
static int32_t read_completions(pf_jsonl_reader *r, const char *field, const json_t *list,
                                int64_t least, int64_t prompt_len)
{
    const char *expected = least == 1 ? "an array of one or more arrays of tokens"
                                      : "an array of two or more arrays of tokens, best first";
    if (!json_is_array(list) || (int64_t)json_array_size(list) < least)
        return pf_jsonl_unexpected(r, (pf_jsonl_place){field, -1, -1}, list, expected);
    for (size_t c = 0; c < json_array_size(list); c++)
        PF_TRY(read_completion(r, (pf_jsonl_place){field, (int64_t)c, -1}, json_array_get(list, c),
                               prompt_len));
    return PREFOPT_OK;
}

/* All fields of the format into *row, whose arrays are then the reader's. */
static int32_t read_fields(pf_jsonl_reader *r, const json_t *line, prefopt_row *row)
{
    r->n_tokens = r->n_completions = 0;
    PF_TRY(prefopt_row_init(row, sizeof *row));
    PF_TRY(pf_jsonl_kind(r, line, row));
    const json_t *prompt = json_object_get(line, "prompt");
    if (prompt != NULL)
        PF_TRY(read_tokens(r, (pf_jsonl_place){"prompt", -1, -1}, prompt));
    int64_t prompt_len = r->n_tokens;
    PF_TRY(pf_jsonl_reserve_tokens(r, 1)); /* so that there is an array, even for no tokens */
    if (row->kind == PREFOPT_ROW_COMPLETIONS && json_object_get(line, "completion") != NULL)
        PF_TRY(read_completion(r, (pf_jsonl_place){"completion", -1, -1},
                               json_object_get(line, "completion"), prompt_len));
    else if (row->kind == PREFOPT_ROW_COMPLETIONS)
        PF_TRY(read_completions(r, "completions", json_object_get(line, "completions"), 1,
                                prompt_len));
    else if (row->kind == PREFOPT_ROW_RANKING)
        PF_TRY(read_completions(r, "ranking", json_object_get(line, "ranking"), 2, prompt_len));
    else if (row->kind == PREFOPT_ROW_PAIR) {
        PF_TRY(read_completion(r, (pf_jsonl_place){"chosen", -1, -1},
                               json_object_get(line, "chosen"), prompt_len));
        PF_TRY(read_completion(r, (pf_jsonl_place){"rejected", -1, -1},
                               json_object_get(line, "rejected"), prompt_len));
    }
    PF_TRY(pf_jsonl_numbers(r, line, row));
    PF_TRY(pf_jsonl_columns(r, line, row));
    row->prompt = r->tokens;
    row->prompt_len = prompt_len;
    row->completions = r->tokens + prompt_len;
    row->completion_offsets = r->offsets;
    row->n_completions = r->n_completions;
    return PREFOPT_OK;
}

int32_t pf_jsonl_line(pf_jsonl_reader *r, const char *bytes, int64_t n)
{
    json_t *line;
    prefopt_row row;
    int32_t status = pf_jsonl_object(r, bytes, n, &line);
    if (line == NULL)
        return status;
    status = read_fields(r, line, &row);
    if (status == PREFOPT_OK)
        status = pf_jsonl_append(r, line, &row);
    json_decref(line);
    return pf_jsonl_in_line(r, status);
}

#endif
