/* JSON Lines into a dataset: from memory, and from a file a piece at a time, with lines of any
 * length. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

#include "base/pf_file.h"
#include "data/pf_jsonl.h"

#if PF_HAVE_JSON

static int32_t begin(pf_jsonl_reader *r, prefopt_context *context, const char *name)
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

/* Hands the dataset over when all went well. */
static int32_t end(pf_jsonl_reader *r, int32_t status, prefopt_dataset **out)
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

/* Reads the whole lines among n bytes, and with `last` what follows the last line end too. *used:
 * how many bytes were lines. */
static int32_t read_lines(pf_jsonl_reader *r, const char *bytes, int64_t n, bool last,
                          int64_t *used)
{
    int64_t at = 0;
    while (at < n) {
        const char *newline = memchr(bytes + at, '\n', (size_t)(n - at));
        if (newline == NULL && !last)
            break;
        int64_t length = newline == NULL ? n - at : newline - (bytes + at);
        int64_t mark = r->line == 1 && length >= 3 && memcmp(bytes + at, "\xef\xbb\xbf", 3) == 0
                           ? 3 /* a byte order mark */
                           : 0;
        PF_TRY(pf_jsonl_line(r, bytes + at + mark, length - mark));
        r->line++;
        at += length + (newline != NULL);
    }
    *used = at;
    return PREFOPT_OK;
}

int32_t pf_jsonl_parse(prefopt_context *context, const char *name, const char *bytes, int64_t n,
                       prefopt_dataset **out)
{
    pf_jsonl_reader reader;
    int64_t used;
    PF_TRY(begin(&reader, context, name));
    return end(&reader, read_lines(&reader, bytes, n, true, &used), out);
}

/* Reads up to `room` bytes: *got of them, 0 at the file's end. */
static int32_t read_some(int descriptor, const char *path, char *bytes, int64_t room, int64_t *got)
{
    ssize_t n;
    do
        n = read(descriptor, bytes, (size_t)(room < (1 << 30) ? room : 1 << 30));
    while (n < 0 && errno == EINTR);
    if (n < 0)
        return pf_fail_errno(errno, "reading", path);
    *got = n;
    return PREFOPT_OK;
}

static int32_t read_file(pf_jsonl_reader *r, int descriptor, const char *path)
{
    enum { PIECE = 1 << 16 };
    int64_t capacity = 0, n = 0, used, got = 1;
    void *bytes = NULL;
    int32_t status = PREFOPT_OK;
    while (status == PREFOPT_OK && got > 0) {
        status = pf_grow(r->context, &bytes, n, &capacity, n + PIECE, 1);
        if (status == PREFOPT_OK)
            status = read_some(descriptor, path, (char *)bytes + n, capacity - n, &got);
        if (status != PREFOPT_OK)
            break;
        n += got;
        /* Within a long line only what is new is searched. */
        if (got > 0 && memchr((char *)bytes + (n - got), '\n', (size_t)got) == NULL)
            continue;
        status = read_lines(r, bytes, n, got == 0, &used);
        if (status == PREFOPT_OK) {
            n -= used;
            memmove(bytes, (char *)bytes + used, (size_t)n);
        }
    }
    pf_free(r->context, bytes);
    return status;
}

int32_t prefopt_dataset_read_jsonl(prefopt_dataset **out, prefopt_context *context,
                                   const char *path)
{
    PF_REQUIRE(out);
    PF_REQUIRE(context);
    PF_REQUIRE(path);
    int descriptor = open(path, O_RDONLY | O_CLOEXEC);
    if (descriptor < 0)
        return pf_fail_errno(errno, "opening", path);
    pf_jsonl_reader reader;
    int32_t status = begin(&reader, context, path);
    if (status == PREFOPT_OK)
        status = end(&reader, read_file(&reader, descriptor, path), out);
    close(descriptor);
    return status;
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
