/* Reading safetensors:
 *     8 bytes                    length of the header, little-endian
 *     header                     {"NAME": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0,
 * 24]}, ...} data                       the tensors end to end, without gaps Nothing is believed:
 * sizes are checked against the file's before anything is allocated or read. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/pf_file.h"
#include "model/pf_checkpoint.h"
#include "pf_config.h"

enum { LENGTH_BYTES = 8, HEADER_MOST = 100000000 };

/* ---------------------------------------------------------------- error texts */

void pf_show_name(char out[PF_NAME_ROOM], const char *name)
{
    size_t n = strlen(name);
    bool cut = n > PF_NAME_SHOWN;
    if (cut)
        for (n = PF_NAME_SHOWN; n > 0 && ((unsigned char)name[n] & 0xc0) == 0x80;)
            n--;
    for (size_t i = 0; i < n; i++)
        out[i] = (unsigned char)name[i] < ' ' || name[i] == 0x7f ? '?' : name[i];
    memcpy(out + n, cut ? "..." : "", cut ? 4 : 1);
}

void pf_show_shape(char out[PF_SHAPE_ROOM], int32_t n_dims, const int64_t *dims)
{
    size_t n = 0;
    out[n++] = '[';
    for (int32_t i = 0; i < n_dims; i++)
        n += (size_t)snprintf(out + n, PF_SHAPE_ROOM - n, "%s%lld", i > 0 ? ", " : "",
                              (long long)dims[i]);
    memcpy(out + n, "]", 2);
}

const char *pf_dtype_name(int32_t dtype)
{
    return dtype == PREFOPT_F64   ? "F64"
           : dtype == PREFOPT_F32 ? "F32"
           : dtype == PREFOPT_F16 ? "F16"
                                  : "BF16";
}

const pf_file_tensor *pf_safetensors_find(const pf_safetensors *file, const char *name)
{
    for (int64_t i = 0; i < file->n_tensors; i++)
        if (strcmp(file->tensors[i].name, name) == 0)
            return &file->tensors[i];
    return NULL;
}

#if PF_HAVE_JSON
#include <jansson.h>

/* ---------------------------------------------------------------- one tensor */

/* All dtypes of the format whose elements are whole bytes. */
static const struct {
    const char *name;
    int32_t bytes, dtype;
} dtypes[] = {
    {"F32", 4, PREFOPT_F32}, {"F16", 2, PREFOPT_F16}, {"BF16", 2, PREFOPT_BF16},
    {"F64", 8, -1},          {"BOOL", 1, -1},         {"U8", 1, -1},
    {"I8", 1, -1},           {"U16", 2, -1},          {"I16", 2, -1},
    {"U32", 4, -1},          {"I32", 4, -1},          {"U64", 8, -1},
    {"I64", 8, -1},          {"C64", 8, -1},          {"F8_E4M3", 1, -1},
    {"F8_E5M2", 1, -1},      {"F8_E8M0", 1, -1},      {"F8_E4M3FNUZ", 1, -1},
    {"F8_E5M2FNUZ", 1, -1},
};

static int32_t read_dtype(pf_file_tensor *tensor, const char *shown, const json_t *entry,
                          int64_t *size)
{
    const json_t *value = json_object_get(entry, "dtype");
    char found[PF_NAME_ROOM];
    tensor->dtype_name = json_string_value(value);
    if (tensor->dtype_name == NULL)
        return pf_fail(PREFOPT_ERR_FORMAT, "tensor %s: dtype is missing or not a string", shown);
    for (size_t i = 0; i < sizeof dtypes / sizeof dtypes[0]; i++) {
        if (strcmp(tensor->dtype_name, dtypes[i].name) != 0)
            continue;
        tensor->dtype = dtypes[i].dtype;
        *size = dtypes[i].bytes;
        return PREFOPT_OK;
    }
    pf_show_name(found, tensor->dtype_name);
    return pf_fail(PREFOPT_ERR_FORMAT, "tensor %s: dtype is \"%s\", expected F32, F16 or BF16",
                   shown, found);
}

static int32_t read_shape(pf_file_tensor *tensor, const char *shown, const json_t *entry)
{
    const json_t *shape = json_object_get(entry, "shape");
    if (!json_is_array(shape) || json_array_size(shape) > PF_FILE_DIMS)
        return pf_fail(PREFOPT_ERR_FORMAT,
                       "tensor %s: shape is not an array of at most %d dimensions", shown,
                       (int)PF_FILE_DIMS);
    tensor->n_dims = (int32_t)json_array_size(shape);
    tensor->n = 1;
    for (int32_t i = 0; i < tensor->n_dims; i++) {
        const json_t *dim = json_array_get(shape, (size_t)i);
        if (!json_is_integer(dim) || json_integer_value(dim) < 0)
            return pf_fail(PREFOPT_ERR_FORMAT,
                           "tensor %s: shape[%d] is not an integer of at least 0", shown, i);
        tensor->dims[i] = json_integer_value(dim);
        if (!pf_mul(tensor->n, tensor->dims[i], &tensor->n))
            return pf_fail(PREFOPT_ERR_FORMAT,
                           "tensor %s: the number of elements of its shape overflows", shown);
    }
    return PREFOPT_OK;
}

static int32_t read_tensor(const pf_safetensors *file, int64_t data, pf_file_tensor *tensor,
                           const char *name, const json_t *entry)
{
    char shown[PF_NAME_ROOM], shape[PF_SHAPE_ROOM];
    int64_t size = 0, expected, ends[2];
    pf_show_name(shown, name);
    if (!json_is_object(entry))
        return pf_fail(PREFOPT_ERR_FORMAT, "tensor %s: the header's entry is not an object", shown);
    tensor->name = name;
    PF_TRY(read_dtype(tensor, shown, entry, &size));
    PF_TRY(read_shape(tensor, shown, entry));
    const json_t *offsets = json_object_get(entry, "data_offsets");
    for (size_t i = 0; i < 2; i++) {
        const json_t *end = json_array_get(offsets, i);
        if (!json_is_integer(end) || json_array_size(offsets) != 2)
            return pf_fail(PREFOPT_ERR_FORMAT, "tensor %s: data_offsets are not two integers",
                           shown);
        ends[i] = json_integer_value(end);
    }
    int64_t room = file->n - data;
    if (ends[0] < 0 || ends[0] > ends[1] || ends[1] > room)
        return pf_fail(PREFOPT_ERR_FORMAT,
                       "tensor %s: data_offsets are [%lld, %lld], but the file has %lld bytes of "
                       "data",
                       shown, (long long)ends[0], (long long)ends[1], (long long)room);
    tensor->n_bytes = ends[1] - ends[0];
    if (!pf_mul(tensor->n, size, &expected) || expected != tensor->n_bytes) {
        pf_show_shape(shape, tensor->n_dims, tensor->dims);
        return pf_fail(PREFOPT_ERR_FORMAT,
                       "tensor %s: data_offsets are [%lld, %lld], %lld bytes, which are not those "
                       "of its shape %s in %s",
                       shown, (long long)ends[0], (long long)ends[1], (long long)tensor->n_bytes,
                       shape, tensor->dtype_name);
    }
    tensor->bytes = file->bytes + data + ends[0];
    return PREFOPT_OK;
}

/* ---------------------------------------------------------------- the header */

static int by_place(const void *a, const void *b)
{
    const pf_file_tensor *x = a, *y = b;
    if (x->bytes != y->bytes)
        return x->bytes < y->bytes ? -1 : 1;
    if (x->n_bytes != y->n_bytes)
        return x->n_bytes < y->n_bytes ? -1 : 1;
    return strcmp(x->name, y->name);
}

/* Each tensor starts where the one before it ends, and the last ends with the file. */
static int32_t check_places(const pf_safetensors *file, const unsigned char *data)
{
    const unsigned char *end = data;
    char shown[PF_NAME_ROOM], before[PF_NAME_ROOM] = "the header";
    for (int64_t i = 0; i < file->n_tensors; i++) {
        const pf_file_tensor *tensor = &file->tensors[i];
        pf_show_name(shown, tensor->name);
        if (tensor->bytes != end)
            return pf_fail(PREFOPT_ERR_FORMAT,
                           "tensor %s starts at byte %lld of the data, %s %s, which ends at %lld",
                           shown, (long long)(tensor->bytes - data),
                           tensor->bytes < end ? "overlapping" : "after a gap that follows", before,
                           (long long)(end - data));
        end += tensor->n_bytes;
        memcpy(before, shown, sizeof before);
    }
    if (end == file->bytes + file->n)
        return PREFOPT_OK;
    return pf_fail(PREFOPT_ERR_FORMAT,
                   "the data has %lld bytes, but the header's tensors end at %lld",
                   (long long)(file->bytes + file->n - data), (long long)(end - data));
}

/* What the least entry takes: {"":{"dtype":"U8","shape":[],"data_offsets":[0,0]}} has three braces
 * and brackets. A header with far more of them is none, and each costs its parser much memory. */
bool pf_too_nested(const char *text, int64_t n)
{
    int64_t opened = 0;
    bool in_string = false;
    for (int64_t i = 0; i < n; i++) {
        if (in_string && text[i] == '\\')
            i++;
        else if (text[i] == '"')
            in_string = !in_string;
        else if (!in_string && (text[i] == '{' || text[i] == '['))
            opened++;
    }
    return opened > n / 12 + 2;
}

static int32_t read_header(pf_safetensors *file, const json_t *root, int64_t data)
{
    const char *name;
    json_t *entry;
    if (!json_is_object(root))
        return pf_fail(PREFOPT_ERR_FORMAT, "the header is not a JSON object");
    const json_t *metadata = json_object_get(root, "__metadata__");
    if (metadata != NULL && !json_is_object(metadata))
        return pf_fail(PREFOPT_ERR_FORMAT, "__metadata__ is not an object");
    file->save = json_string_value(json_object_get(metadata, PF_SAVE_KEY));
    file->tensors =
        pf_calloc(file->context, (int64_t)json_object_size(root), sizeof *file->tensors);
    if (file->tensors == NULL)
        return PREFOPT_ERR_MEMORY;
    json_object_foreach((json_t *)root, name, entry)
    {
        if (strcmp(name, "__metadata__") == 0)
            continue;
        PF_TRY(read_tensor(file, data, &file->tensors[file->n_tensors], name, entry));
        file->n_tensors++;
    }
    qsort(file->tensors, (size_t)file->n_tensors, sizeof *file->tensors, by_place);
    return check_places(file, file->bytes + data);
}

static int32_t parse(pf_safetensors *file)
{
    uint64_t length = 0;
    json_error_t error;
    if (file->n < LENGTH_BYTES)
        return pf_fail(PREFOPT_ERR_FORMAT,
                       "the file has %lld bytes, expected 8 for the header's length",
                       (long long)file->n);
    for (int32_t i = LENGTH_BYTES; i-- > 0;)
        length = length << 8 | file->bytes[i];
    if (length > HEADER_MOST)
        return pf_fail(PREFOPT_ERR_FORMAT, "the header has %llu bytes, expected at most %d",
                       (unsigned long long)length, (int)HEADER_MOST);
    if ((int64_t)length > file->n - LENGTH_BYTES)
        return pf_fail(PREFOPT_ERR_FORMAT,
                       "the header has %llu bytes, but the file has %lld after its length",
                       (unsigned long long)length, (long long)(file->n - LENGTH_BYTES));
    const char *text = (const char *)file->bytes + LENGTH_BYTES;
    if (length == 0 || text[0] != '{')
        return pf_fail(PREFOPT_ERR_FORMAT, "the header does not start with {");
    if (pf_too_nested(text, (int64_t)length))
        return pf_fail(PREFOPT_ERR_FORMAT, "the header is not one of tensors: too many brackets");
    json_t *root = json_loadb(text, (size_t)length, JSON_REJECT_DUPLICATES, &error);
    if (root == NULL && json_error_code(&error) == json_error_out_of_memory)
        return pf_fail(PREFOPT_ERR_MEMORY, "out of memory for JSON");
    if (root == NULL) {
        char shown[PF_NAME_ROOM];
        pf_show_name(shown, error.text);
        return pf_fail(PREFOPT_ERR_FORMAT, "the header is not valid JSON: byte %d: %s",
                       error.position, shown);
    }
    file->header = root;
    return read_header(file, root, LENGTH_BYTES + (int64_t)length);
}

static int32_t parse_or_close(pf_safetensors *file)
{
    int32_t status = parse(file);
    if (status != PREFOPT_OK) {
        status = pf_fail_in(status, "%s", pf_show_path(file->path));
        pf_safetensors_close(file);
    }
    return status;
}

int32_t pf_safetensors_parse(pf_safetensors *file, prefopt_context *context, const char *path,
                             const void *bytes, int64_t n)
{
    *file = (pf_safetensors){.context = context, .path = path, .bytes = bytes, .n = n};
    return parse_or_close(file);
}

int32_t pf_safetensors_open(pf_safetensors *file, prefopt_context *context, int folder,
                            const char *name, const char *path)
{
    struct stat info;
    *file = (pf_safetensors){.context = context, .path = path};
    /* Not blocking: a pipe under this name would wait for its writer. */
    int descriptor = openat(folder, name, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (descriptor < 0)
        return pf_fail_errno(errno, "opening", pf_show_path(path));
    int32_t status = PREFOPT_OK;
    if (fstat(descriptor, &info) != 0)
        status = pf_fail_errno(errno, "looking at the file", pf_show_path(path));
    else if (!S_ISREG(info.st_mode))
        status = pf_fail(PREFOPT_ERR_IO, "%s: is no regular file", pf_show_path(path));
    if (status == PREFOPT_OK && info.st_size > 0) {
        void *bytes = mmap(NULL, (size_t)info.st_size, PROT_READ, MAP_PRIVATE, descriptor, 0);
        if (bytes == MAP_FAILED)
            status = pf_fail_errno(errno, "mapping", pf_show_path(path));
        else {
            file->bytes = bytes;
            file->n = info.st_size;
            file->mapped = true;
        }
    }
    close(descriptor);
    return status == PREFOPT_OK ? parse_or_close(file) : status;
}

void pf_safetensors_close(pf_safetensors *file)
{
    json_decref(file->header);
    if (file->context != NULL)
        pf_free(file->context, file->tensors);
    if (file->mapped)
        munmap((void *)(uintptr_t)file->bytes, (size_t)file->n);
    *file = (pf_safetensors){0};
}

#else

int32_t pf_safetensors_parse(pf_safetensors *file, prefopt_context *context, const char *path,
                             const void *bytes, int64_t n)
{
    (void)context, (void)bytes, (void)n;
    *file = (pf_safetensors){0};
    return pf_fail(PREFOPT_ERR_UNSUPPORTED, "%s: this library was built without JSON",
                   pf_show_path(path));
}

int32_t pf_safetensors_open(pf_safetensors *file, prefopt_context *context, int folder,
                            const char *name, const char *path)
{
    (void)folder, (void)name;
    return pf_safetensors_parse(file, context, path, NULL, 0);
}

void pf_safetensors_close(pf_safetensors *file) { *file = (pf_safetensors){0}; }

#endif
