/* A dataset to JSON Lines. What has its default value is left out. */
#include <math.h>

#include "base/pf_file.h"
#include "data/pf_jsonl.h"

#if PF_HAVE_JSON

/* pf_file remembers a failure, so the small writes are not each looked at. */
static void put(pf_file *file, const char *text) { pf_file_put(file, text, (int64_t)strlen(text)); }

static void put_integer(pf_file *file, int64_t value)
{
    char digits[24];
    int64_t at = sizeof digits;
    bool negative = value < 0;
    do {
        digits[--at] = (char)('0' + (negative ? -(value % 10) : value % 10));
        value /= 10;
    } while (value != 0);
    if (negative)
        digits[--at] = '-';
    pf_file_put(file, digits + at, (int64_t)sizeof digits - at);
}

/* 17 digits give back the same bits. Whole numbers go without their ".0", save -0. */
static int32_t put_number(pf_file *file, double value)
{
    if (isnan(value)) {
        put(file, "null");
    } else if (isinf(value)) {
        put(file, "\"-Infinity\"");
    } else if (fabs(value) < 9e15 && value == floor(value) && !(value == 0 && signbit(value))) {
        put_integer(file, (int64_t)value);
    } else {
        char text[64];
        json_t *number = json_real(value);
        size_t n = number == NULL ? 0
                                  : json_dumpb(number, text, sizeof text,
                                               JSON_ENCODE_ANY | JSON_REAL_PRECISION(17));
        json_decref(number);
        if (n == 0 || n > sizeof text)
            return pf_fail(PREFOPT_ERR_MEMORY, "no memory to write a number as text");
        pf_file_put(file, text, (int64_t)n);
    }
    return PREFOPT_OK;
}

static void put_tokens(pf_file *file, const int32_t *tokens, int64_t n)
{
    put(file, "[");
    for (int64_t t = 0; t < n; t++) {
        if (t > 0)
            put(file, ",");
        put_integer(file, tokens[t]);
    }
    put(file, "]");
}

static void put_completion(pf_file *file, const prefopt_row *row, int64_t c)
{
    int64_t begin = row->completion_offsets[c];
    put_tokens(file, row->completions + begin, row->completion_offsets[c + 1] - begin);
}

static void put_completions(pf_file *file, const prefopt_row *row)
{
    if (row->kind == PREFOPT_ROW_PROMPT)
        return;
    if (row->kind == PREFOPT_ROW_PAIR) {
        put(file, ",\"chosen\":");
        put_completion(file, row, 0);
        put(file, ",\"rejected\":");
        put_completion(file, row, 1);
    } else if (row->kind == PREFOPT_ROW_COMPLETIONS && row->n_completions == 1) {
        put(file, ",\"completion\":");
        put_completion(file, row, 0);
    } else {
        put(file, row->kind == PREFOPT_ROW_RANKING ? ",\"ranking\":[" : ",\"completions\":[");
        for (int64_t c = 0; c < row->n_completions; c++) {
            if (c > 0)
                put(file, ",");
            put_completion(file, row, c);
        }
        put(file, "]");
    }
}

static int32_t put_field(pf_file *file, const char *name, double value, double standard)
{
    if (value == standard && signbit(value) == signbit(standard))
        return PREFOPT_OK;
    put(file, name);
    return put_number(file, value);
}

static int32_t put_column(pf_file *file, const char *name, const double *values, int64_t n)
{
    if (values == NULL)
        return PREFOPT_OK;
    put(file, name);
    for (int64_t i = 0; i < n; i++) {
        put(file, i > 0 ? "," : "[");
        PF_TRY(put_number(file, values[i]));
    }
    put(file, "]");
    return PREFOPT_OK;
}

/* As text: 64 bits are more than a JSON number holds everywhere. */
static void put_key(pf_file *file, uint64_t key)
{
    char text[] = ",\"ref_key\":\"0123456789abcdef\"";
    for (int32_t k = 0; k < 16; k++)
        text[12 + k] = "0123456789abcdef"[key >> (60 - 4 * k) & 15];
    put(file, text);
}

static int32_t put_row(pf_file *file, const prefopt_row *row)
{
    put(file, "{\"prompt\":");
    put_tokens(file, row->prompt, row->prompt_len);
    put_completions(file, row);
    PF_TRY(put_field(file, ",\"weight\":", row->weight, 1));
    PF_TRY(put_field(file, ",\"label\":", row->label, 1));
    PF_TRY(put_field(file, ",\"margin\":", row->margin, 0));
    PF_TRY(put_column(file, ",\"logps\":", row->logp, row->n_completions));
    PF_TRY(put_column(file, ",\"sampler_logps\":", row->sampler_logp, row->n_completions));
    PF_TRY(put_column(file, ",\"scores\":", row->score, row->n_completions));
    PF_TRY(put_column(file, ",\"ref_logps\":", row->ref_logp, row->n_completions));
    if (row->ref_key != 0)
        put_key(file, row->ref_key);
    if (row->extra != NULL) { /* "{...}" without its first brace */
        put(file, ",");
        put(file, row->extra + 1);
        put(file, "\n");
    } else {
        put(file, "}\n");
    }
    return PREFOPT_OK;
}

int32_t prefopt_dataset_write_jsonl(const prefopt_dataset *dataset, const char *path)
{
    PF_REQUIRE(dataset);
    PF_REQUIRE(path);
    pf_file *file = NULL;
    PF_TRY(pf_file_create(&file, dataset->context, path));
    for (int64_t i = 0; i < dataset->n_rows; i++) {
        prefopt_row row = {.struct_size = sizeof row};
        int32_t status = prefopt_dataset_row(dataset, i, &row);
        if (status == PREFOPT_OK)
            status = put_row(file, &row);
        if (status != PREFOPT_OK) {
            pf_file_abandon(file);
            return status;
        }
    }
    return pf_file_commit(file);
}

#else

int32_t prefopt_dataset_write_jsonl(const prefopt_dataset *dataset, const char *path)
{
    PF_REQUIRE(dataset);
    PF_REQUIRE(path);
    return pf_fail(PREFOPT_ERR_UNSUPPORTED, "%s: this library was built without JSON", path);
}

#endif
