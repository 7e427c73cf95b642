/* What a line of JSON Lines has besides tokens or texts: the object itself, its kind, numbers,
 * columns and the fields that are not ours; and what is said of a value that was not expected. */
#include <math.h>
#include <stdio.h>

#include "data/pf_jsonl.h"

#if PF_HAVE_JSON

/* ---------------------------------------------------------------- errors */

/* Printable text of at most `limit` bytes, whole UTF-8 characters, control bytes as '?'. */
static void quote(char *out, const char *text, size_t n, size_t limit)
{
    bool cut = n > limit;
    if (cut)
        for (n = limit; n > 0 && ((unsigned char)text[n] & 0xc0) == 0x80;)
            n--;
    for (size_t i = 0; i < n; i++)
        out[i] = (unsigned char)text[i] < ' ' || text[i] == 0x7f ? '?' : text[i];
    memcpy(out + n, cut ? "..." : "", cut ? 4 : 1);
}

enum { FOUND_SIZE = 128, QUOTED = 40 };

static void describe(const json_t *value, char found[FOUND_SIZE])
{
    char text[QUOTED + 4];
    switch (value == NULL ? JSON_NULL : json_typeof(value)) {
    case JSON_OBJECT:
        snprintf(found, FOUND_SIZE, "an object");
        return;
    case JSON_ARRAY:
        snprintf(found, FOUND_SIZE, "an array of %zu", json_array_size(value));
        return;
    case JSON_STRING:
        quote(text, json_string_value(value), json_string_length(value), QUOTED);
        snprintf(found, FOUND_SIZE, "the string \"%s\"", text);
        return;
    case JSON_INTEGER:
        snprintf(found, FOUND_SIZE, "%lld", (long long)json_integer_value(value));
        return;
    case JSON_REAL:
        /* Through the library, whose decimal point does not depend on the locale. */
        found[json_dumpb(value, found, FOUND_SIZE - 1, JSON_ENCODE_ANY | JSON_REAL_PRECISION(15))] =
            '\0';
        return;
    default:
        snprintf(found, FOUND_SIZE, "%s",
                 value == NULL         ? "nothing"
                 : json_is_true(value) ? "true"
                 : json_is_null(value) ? "null"
                                       : "false");
    }
}

int32_t pf_jsonl_unexpected(const pf_jsonl_reader *r, pf_jsonl_place at, const json_t *value,
                            const char *expected)
{
    char found[FOUND_SIZE], index[64] = "";
    describe(value, found);
    if (at.j >= 0)
        snprintf(index, sizeof index, " at [%lld][%lld]", (long long)at.i, (long long)at.j);
    else if (at.i >= 0)
        snprintf(index, sizeof index, " at [%lld]", (long long)at.i);
    return pf_fail(PREFOPT_ERR_FORMAT, "%s:%lld: field \"%s\": found %s%s, expected %s", r->name,
                   (long long)r->line, at.field, found, index, expected);
}

/* ---------------------------------------------------------------- the line */

int32_t pf_jsonl_object(const pf_jsonl_reader *r, const char *bytes, int64_t n, json_t **out)
{
    int64_t blank = 0;
    *out = NULL;
    while (blank < n && (bytes[blank] == ' ' || bytes[blank] == '\t' || bytes[blank] == '\r'))
        blank++;
    if (blank == n)
        return PREFOPT_OK;
    const char *zero = memchr(bytes, '\0', (size_t)n);
    if (zero != NULL)
        return pf_fail(PREFOPT_ERR_FORMAT,
                       "%s:%lld: found a zero byte at column %lld, expected a JSON object", r->name,
                       (long long)r->line, (long long)(zero - bytes) + 1);
    json_error_t error;
    json_t *line = json_loadb(bytes, (size_t)n, JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL, &error);
    if (line == NULL && json_error_code(&error) == json_error_out_of_memory)
        return pf_fail(PREFOPT_ERR_MEMORY, "%s:%lld: no memory to read the line", r->name,
                       (long long)r->line);
    if (line == NULL) {
        char text[JSON_ERROR_TEXT_LENGTH + 4];
        quote(text, error.text, strlen(error.text), JSON_ERROR_TEXT_LENGTH);
        return pf_fail(PREFOPT_ERR_FORMAT, "%s:%lld: %s (column %d), expected one JSON object",
                       r->name, (long long)r->line, text, error.position);
    }
    if (!json_is_object(line)) {
        char found[FOUND_SIZE];
        describe(line, found);
        json_decref(line);
        return pf_fail(PREFOPT_ERR_FORMAT, "%s:%lld: found %s, expected a JSON object", r->name,
                       (long long)r->line, found);
    }
    *out = line;
    return PREFOPT_OK;
}

/* ---------------------------------------------------------------- room */

int32_t pf_jsonl_reserve_tokens(pf_jsonl_reader *r, int64_t more)
{
    int64_t needed;
    if (!pf_add(r->n_tokens, more, &needed))
        return pf_fail(PREFOPT_ERR_MEMORY, "a size overflows: tokens of a line");
    void *array = r->tokens;
    PF_TRY(pf_grow(r->context, &array, r->n_tokens, &r->token_capacity, needed, sizeof *r->tokens));
    r->tokens = array;
    return PREFOPT_OK;
}

int32_t pf_jsonl_reserve_completion(pf_jsonl_reader *r)
{
    void *offsets = r->offsets;
    PF_TRY(pf_grow(r->context, &offsets, r->n_completions + 1, &r->offset_capacity,
                   r->n_completions + 2, sizeof *r->offsets));
    r->offsets = offsets;
    return PREFOPT_OK;
}

/* ---------------------------------------------------------------- fields */

int32_t pf_jsonl_kind(const pf_jsonl_reader *r, const json_t *line, prefopt_row *row)
{
    static const struct {
        const char *field;
        int32_t kind;
    } holders[] = {{"completion", PREFOPT_ROW_COMPLETIONS},
                   {"completions", PREFOPT_ROW_COMPLETIONS},
                   {"chosen", PREFOPT_ROW_PAIR},
                   {"rejected", PREFOPT_ROW_PAIR},
                   {"ranking", PREFOPT_ROW_RANKING}};
    const char *before = NULL;
    for (size_t h = 0; h < sizeof holders / sizeof holders[0]; h++) {
        if (json_object_get(line, holders[h].field) == NULL)
            continue;
        if (before != NULL && !(row->kind == PREFOPT_ROW_PAIR && holders[h].kind == row->kind))
            return pf_fail(PREFOPT_ERR_FORMAT,
                           "%s:%lld: field \"%s\": found beside \"%s\", expected one of "
                           "completion, completions, chosen with rejected, or ranking",
                           r->name, (long long)r->line, holders[h].field, before);
        before = holders[h].field;
        row->kind = holders[h].kind;
    }
    if (row->kind == PREFOPT_ROW_PAIR)
        return PREFOPT_OK;
    static const char *const of_pairs[] = {"label", "margin"};
    for (int32_t k = 0; k < 2; k++)
        if (json_object_get(line, of_pairs[k]) != NULL)
            return pf_jsonl_unexpected(r, (pf_jsonl_place){of_pairs[k], -1, -1},
                                       json_object_get(line, of_pairs[k]),
                                       "none: it belongs to a line with chosen and rejected");
    return PREFOPT_OK;
}

/* A number in [low, high] into *out, which keeps its default when there is no such field. */
static int32_t read_number(const pf_jsonl_reader *r, const json_t *line, const char *field,
                           double low, double high, const char *expected, double *out)
{
    const json_t *value = json_object_get(line, field);
    if (value == NULL)
        return PREFOPT_OK;
    double number = json_is_number(value) ? json_number_value(value) : NAN;
    if (!(number >= low && number <= high))
        return pf_jsonl_unexpected(r, (pf_jsonl_place){field, -1, -1}, value, expected);
    *out = number;
    return PREFOPT_OK;
}

int32_t pf_jsonl_numbers(const pf_jsonl_reader *r, const json_t *line, prefopt_row *row)
{
    const double most = 1.7976931348623157e308;
    PF_TRY(read_number(r, line, "weight", 0, most, "a number, at least 0", &row->weight));
    PF_TRY(read_number(r, line, "label", 0, 1, "a number from 0 to 1", &row->label));
    return read_number(r, line, "margin", -most, most, "a number", &row->margin);
}

/* "logps" and its like: one number, null or, where infinite, "-Infinity" a completion. *out stays
 * NULL when there is no such field. */
static int32_t read_column(pf_jsonl_reader *r, const json_t *line, int32_t column,
                           const double **out)
{
    static const char *const fields[PF_COLUMNS] = {"logps", "sampler_logps", "scores", "ref_logps"};
    const char *field = fields[column];
    const json_t *list = json_object_get(line, field);
    if (list == NULL)
        return PREFOPT_OK;
    if (!json_is_array(list) || (int64_t)json_array_size(list) != r->n_completions) {
        char expected[96];
        snprintf(expected, sizeof expected, "an array of %lld, one number or null a completion",
                 (long long)r->n_completions);
        return pf_jsonl_unexpected(r, (pf_jsonl_place){field, -1, -1}, list, expected);
    }
    if (r->n_completions == 0)
        return PREFOPT_OK;
    double *to = r->columns + column * r->n_completions;
    bool infinite = column != PREFOPT_COLUMN_SCORE;
    for (int64_t i = 0; i < r->n_completions; i++) {
        const json_t *value = json_array_get(list, (size_t)i);
        if (json_is_number(value))
            to[i] = json_number_value(value);
        else if (json_is_null(value))
            to[i] = NAN;
        else if (infinite && json_is_string(value) &&
                 strcmp(json_string_value(value), "-Infinity") == 0)
            to[i] = -INFINITY;
        else
            return pf_jsonl_unexpected(r, (pf_jsonl_place){field, i, -1}, value,
                                       infinite ? "a number, null or \"-Infinity\""
                                                : "a number or null");
    }
    *out = to;
    return PREFOPT_OK;
}

/* "ref_key": 16 hexadecimal digits, not all 0. */
static int32_t read_key(const pf_jsonl_reader *r, const json_t *line, uint64_t *out)
{
    const json_t *value = json_object_get(line, "ref_key");
    if (value == NULL)
        return PREFOPT_OK;
    const char *text = json_is_string(value) ? json_string_value(value) : "";
    bool good = json_string_length(value) == 16;
    uint64_t key = 0;
    for (int32_t k = 0; good && k < 16; k++) {
        const char *digits = "0123456789abcdef", *at = memchr(digits, text[k], 16);
        good = at != NULL;
        key = key << 4 | (good ? (uint64_t)(at - digits) : 0);
    }
    if (!good || key == 0)
        return pf_jsonl_unexpected(r, (pf_jsonl_place){"ref_key", -1, -1}, value,
                                   "text of 16 hexadecimal digits, 0 to 9 and a to f, not all 0");
    *out = key;
    return PREFOPT_OK;
}

/* What its append would refuse without naming the line. */
static int32_t check_key(const pf_jsonl_reader *r, const json_t *line, const prefopt_row *row)
{
    bool known = r->n_completions > 0 && row->ref_logp != NULL;
    for (int64_t c = 0; known && c < r->n_completions; c++)
        known = !isnan(row->ref_logp[c]);
    if (row->ref_key == 0 || known)
        return PREFOPT_OK;
    return pf_jsonl_unexpected(r, (pf_jsonl_place){"ref_key", -1, -1},
                               json_object_get(line, "ref_key"),
                               "none: it belongs to a line with a number in ref_logps for each "
                               "completion");
}

int32_t pf_jsonl_columns(pf_jsonl_reader *r, const json_t *line, prefopt_row *row)
{
    void *columns = r->columns;
    PF_TRY(pf_grow(r->context, &columns, 0, &r->column_capacity, PF_COLUMNS * r->n_completions,
                   sizeof *r->columns));
    r->columns = columns;
    PF_TRY(read_column(r, line, PREFOPT_COLUMN_LOGP, &row->logp));
    PF_TRY(read_column(r, line, PREFOPT_COLUMN_SAMPLER_LOGP, &row->sampler_logp));
    PF_TRY(read_column(r, line, PREFOPT_COLUMN_SCORE, &row->score));
    PF_TRY(read_column(r, line, PREFOPT_COLUMN_REF_LOGP, &row->ref_logp));
    PF_TRY(read_key(r, line, &row->ref_key));
    return check_key(r, line, row);
}

/* ---------------------------------------------------------------- the row */

/* Takes the fields of the format out of the line, and what is left as text. */
static int32_t read_extra(pf_jsonl_reader *r, json_t *line, char **extra, int64_t *n)
{
    const char *key;
    json_t *value;
    void *next;
    json_object_foreach_safe(line, next, key, value)
    {
        if (pf_is_row_field(key))
            json_object_del(line, key);
    }
    return pf_extra_dump(r->context, line, extra, n);
}

int32_t pf_jsonl_append(pf_jsonl_reader *r, json_t *line, const prefopt_row *row)
{
    char *extra;
    int64_t n;
    PF_TRY(read_extra(r, line, &extra, &n));
    int32_t status = pf_dataset_append(r->data, row, extra, n);
    pf_free(r->context, extra);
    return status;
}

int32_t pf_jsonl_in_line(const pf_jsonl_reader *r, int32_t status)
{
    if (status == PREFOPT_ERR_MEMORY)
        return pf_fail_in(status, "%s:%lld", r->name, (long long)r->line);
    return status;
}

#endif
