/* JSON Lines into a dataset: from memory, and from a file a piece at a time, with lines of any
 * length. */
#include "data/pf_input.h"
#include "data/pf_jsonl.h"

#if PF_HAVE_JSON

int32_t pf_jsonl_begin(pf_jsonl_reader *r, prefopt_context *context, const char *name)
{
    /* Error texts are short; the end of a long path says more than its beginning. */
    enum { NAME_SHOWN = 256 };
    size_t n = strlen(name);
    *r = (pf_jsonl_reader){.context = context, .line = 1};
    r->name = n > NAME_SHOWN ? name + (n - NAME_SHOWN) : name;
    PF_TRY(prefopt_dataset_create(&r->data, context));
    r->offset_capacity = 16;
    r->offsets = pf_calloc(context, r->offset_capacity, sizeof *r->offsets); /* [0] stays 0 */
    if (r->offsets == NULL) {
        prefopt_dataset_destroy(r->data);
        return PREFOPT_ERR_MEMORY;
    }
    return PREFOPT_OK;
}

int32_t pf_jsonl_end(pf_jsonl_reader *r, int32_t status, prefopt_dataset **out)
{
    pf_free(r->context, r->tokens);
    pf_free(r->context, r->offsets);
    pf_free(r->context, r->columns);
    if (status == PREFOPT_OK)
        *out = r->data;
    else
        prefopt_dataset_destroy(r->data);
    return status;
}

static int32_t read_lines(pf_jsonl_reader *r, const char *bytes, int64_t n)
{
    for (int64_t at = 0; at < n; r->line++) {
        int64_t length;
        const char *line = pf_line_take(bytes, n, r->line, &at, &length);
        PF_TRY(pf_jsonl_line(r, line, length));
    }
    return PREFOPT_OK;
}

int32_t pf_jsonl_parse(prefopt_context *context, const char *name, const char *bytes, int64_t n,
                       prefopt_dataset **out)
{
    pf_jsonl_reader reader;
    PF_TRY(pf_jsonl_begin(&reader, context, name));
    return pf_jsonl_end(&reader, read_lines(&reader, bytes, n), out);
}

static int32_t read_file(pf_jsonl_reader *r, pf_input *input)
{
    pf_lines lines = {.context = r->context, .input = input};
    const char *bytes;
    int64_t n;
    int32_t status;
    do {
        status = pf_lines_next(&lines, 1, &bytes, &n);
        if (status == PREFOPT_OK)
            status = read_lines(r, bytes, n);
    } while (status == PREFOPT_OK && n > 0);
    pf_lines_end(&lines);
    return status;
}

int32_t prefopt_dataset_read_jsonl(prefopt_dataset **out, prefopt_context *context,
                                   const char *path)
{
    PF_REQUIRE(out);
    PF_REQUIRE(context);
    PF_REQUIRE(path);
    pf_input *input;
    pf_jsonl_reader reader;
    PF_TRY(pf_input_open(&input, context, path));
    int32_t status = pf_jsonl_begin(&reader, context, path);
    if (status != PREFOPT_OK) {
        pf_input_close(input);
        return status;
    }
    return pf_jsonl_end(&reader, read_file(&reader, input), out);
}

#else

int32_t pf_jsonl_parse(prefopt_context *context, const char *name, const char *bytes, int64_t n,
                       prefopt_dataset **out)
{
    (void)context, (void)bytes, (void)n, (void)out;
    return pf_fail(PREFOPT_ERR_UNSUPPORTED, "%s: this library was built without JSON", name);
}

int32_t prefopt_dataset_read_jsonl(prefopt_dataset **out, prefopt_context *context,
                                   const char *path)
{
    PF_REQUIRE(out);
    PF_REQUIRE(context);
    PF_REQUIRE(path);
    return pf_jsonl_parse(context, path, NULL, 0, out);
}

#endif
