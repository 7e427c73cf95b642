/* The values of safetensors: conversion to float32, and writing.
 *
 * Files are little-endian, as are the machines this is built for. */
#include <stdatomic.h>
#include <stdio.h>

#include "base/pf_file.h"
#include "math/pf_ops.h"
#include "model/pf_safetensors.h"

#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "checkpoints are read and written on little-endian machines alone"
#endif

/* ---------------------------------------------------------------- reading */

/* Halves at an address that need not be even go through a buffer. */
static void from_halves(int32_t dtype, const unsigned char *bytes, int64_t n, float *x)
{
    enum { PART = 2048 };
    uint16_t part[PART];
    void (*convert)(int64_t, const uint16_t *, float *) =
        dtype == PREFOPT_F16 ? pf_f32_from_f16 : pf_f32_from_bf16;
    if ((uintptr_t)bytes % sizeof *part == 0) {
        convert(n, (const void *)bytes, x);
        return;
    }
    for (int64_t i = 0; i < n; i += PART) {
        int64_t m = n - i < PART ? n - i : PART;
        memcpy(part, bytes + i * (int64_t)sizeof *part, (size_t)m * sizeof *part);
        convert(m, part, x + i);
    }
}

void pf_safetensors_values(const pf_file_tensor *tensor, int64_t first, int64_t n, float *x)
{
    if (n == 0)
        return;
    if (tensor->dtype == PREFOPT_F32)
        memcpy(x, tensor->bytes + first * (int64_t)sizeof *x, (size_t)n * sizeof *x);
    else
        from_halves(tensor->dtype, tensor->bytes + first * (int64_t)sizeof(uint16_t), n, x);
}

/* ---------------------------------------------------------------- checks */

/* First element with |x|, as an integer, above `most`. Whole blocks are tested first: their loop
 * has no way out and becomes vector code. */
static int64_t first_above(int64_t n, const float *x, int32_t most)
{
    enum { BLOCK = 512 };
    for (int64_t start = 0; start < n; start += BLOCK) {
        int64_t end = n - start < BLOCK ? n : start + BLOCK;
        int32_t above = 0, bits;
        for (int64_t i = start; i < end; i++) {
            memcpy(&bits, &x[i], sizeof bits);
            above |= (bits & 0x7fffffff) > most;
        }
        for (int64_t i = start; above != 0 && i < end; i++) {
            memcpy(&bits, &x[i], sizeof bits);
            if ((bits & 0x7fffffff) > most)
                return i;
        }
    }
    return n;
}

enum {
    MOST_F32 = 0x7f7fffff,
    MOST_F16 = 0x477fefff, /* below 65,520, which rounds to infinity */
    MOST_BF16 = 0x7f7f7fff
};

int64_t pf_first_not_finite(int64_t n, const float *x) { return first_above(n, x, MOST_F32); }

enum { TASK = 1 << 18 };

typedef struct {
    int64_t n;
    const float *value;
    int32_t most;
    _Atomic int64_t first; /* the least index found so far */
} check_work;

static void check_task(void *payload, int64_t task)
{
    check_work *w = payload;
    int64_t start = task * TASK, n = w->n - start < TASK ? w->n - start : TASK;
    int64_t found = first_above(n, w->value + start, w->most);
    if (found == n)
        return;
    int64_t least = atomic_load(&w->first);
    while (start + found < least && !atomic_compare_exchange_weak(&w->first, &least, start + found))
        ;
}

static int64_t count(const pf_tensor *tensors, int64_t n_tensors)
{
    if (n_tensors == 0)
        return 0;
    const pf_tensor *last = &tensors[n_tensors - 1];
    return last->offset + last->rows * last->columns;
}

int32_t pf_safetensors_check(prefopt_context *context, const pf_tensor *tensors, int64_t n_tensors,
                             const float *value, int32_t dtype)
{
    int64_t n = count(tensors, n_tensors), k = 0;
    check_work w = {.n = n,
                    .value = value,
                    .most = dtype == PREFOPT_F32   ? MOST_F32
                            : dtype == PREFOPT_F16 ? MOST_F16
                                                   : MOST_BF16,
                    .first = n};
    pf_parallel_for(context, (n + TASK - 1) / TASK, check_task, &w);
    int64_t first = atomic_load(&w.first);
    if (first == n)
        return PREFOPT_OK;
    while (k + 1 < n_tensors && tensors[k + 1].offset <= first)
        k++;
    return pf_fail(PREFOPT_ERR_NUMERIC, "tensor %s: [%lld] is %g, expected a value finite in %s",
                   tensors[k].name, (long long)(first - tensors[k].offset), (double)value[first],
                   pf_dtype_name(dtype));
}

/* ---------------------------------------------------------------- writing */

/* A header as it grows: its length, then the text. */
typedef struct {
    prefopt_context *context;
    char *text;
    int64_t room, n;
    int64_t n_bytes; /* of the data so far */
} header;

static int32_t header_begin(header *h, prefopt_context *context, int64_t n_tensors,
                            const char *save)
{
    enum { ENTRY = PF_TENSOR_NAME + 160, OTHER = 200 };
    *h = (header){.context = context, .room = n_tensors * ENTRY + OTHER, .n = 8};
    h->text = pf_alloc(context, h->room, 1);
    if (h->text == NULL)
        return PREFOPT_ERR_MEMORY;
    h->n +=
        snprintf(h->text + h->n, (size_t)(h->room - h->n), "{\"__metadata__\":{\"format\":\"pt\"");
    if (save != NULL)
        h->n += snprintf(h->text + h->n, (size_t)(h->room - h->n), ",\"%s\":\"%.40s\"", PF_SAVE_KEY,
                         save);
    h->n += snprintf(h->text + h->n, (size_t)(h->room - h->n), "}");
    return PREFOPT_OK;
}

/* Data lie in the order in which they are added. columns: -1 for a vector. */
static void header_add(header *h, const char *name, int32_t dtype, int64_t rows, int64_t columns)
{
    int64_t n_bytes = rows * (columns < 0 ? 1 : columns) * pf_dtype_size(dtype);
    h->n += snprintf(h->text + h->n, (size_t)(h->room - h->n),
                     ",\"%.*s\":{\"dtype\":\"%s\",\"shape\":[%lld", (int)PF_TENSOR_NAME, name,
                     pf_dtype_name(dtype), (long long)rows);
    if (columns >= 0)
        h->n += snprintf(h->text + h->n, (size_t)(h->room - h->n), ",%lld", (long long)columns);
    h->n += snprintf(h->text + h->n, (size_t)(h->room - h->n), "],\"data_offsets\":[%lld,%lld]}",
                     (long long)h->n_bytes, (long long)(h->n_bytes + n_bytes));
    h->n_bytes += n_bytes;
}

/* The file's length field and end of header; data begin at a multiple of 8. */
static void header_end(header *h)
{
    h->text[h->n++] = '}';
    while (h->n % 8 != 0)
        h->text[h->n++] = ' ';
    for (int32_t i = 0; i < 8; i++)
        h->text[i] = (char)((uint64_t)(h->n - 8) >> 8 * i & 0xff);
}

typedef struct {
    int64_t n;
    const float *value;
    uint16_t *half;
    int32_t dtype;
} half_work;

static void half_task(void *payload, int64_t task)
{
    half_work *w = payload;
    int64_t start = task * TASK, n = w->n - start < TASK ? w->n - start : TASK;
    if (w->dtype == PREFOPT_F16)
        pf_f16_from_f32(n, w->value + start, w->half + start);
    else
        pf_bf16_from_f32(n, w->value + start, w->half + start);
}

/* Halves a few tasks at a time: room for them is small whatever the model. */
static int32_t put_halves(prefopt_context *context, pf_file *file, int64_t n, const float *value,
                          int32_t dtype)
{
    const int64_t part = INT64_C(16) * TASK;
    uint16_t *half = pf_alloc(context, n < part ? n : part, sizeof *half);
    int32_t status = half == NULL ? PREFOPT_ERR_MEMORY : PREFOPT_OK;
    for (int64_t start = 0; start < n && status == PREFOPT_OK; start += part) {
        half_work w = {n - start < part ? n - start : part, value + start, half, dtype};
        pf_parallel_for(context, (w.n + TASK - 1) / TASK, half_task, &w);
        status = pf_file_put(file, half, w.n * (int64_t)sizeof *half);
    }
    pf_free(context, half);
    return status;
}

/* The file with its header; what puts the data may fail. */
static int32_t write_file(prefopt_context *context, const char *path, bool pass, const header *h,
                          int32_t (*put)(prefopt_context *, pf_file *, const void *payload),
                          const void *payload)
{
    pf_file *file;
    PF_TRY(pf_file_create(&file, context, path));
    if (pass)
        pf_file_pass(file);
    int32_t status = pf_file_put(file, h->text, h->n);
    if (status == PREFOPT_OK)
        status = put(context, file, payload);
    if (status == PREFOPT_OK)
        return pf_file_commit(file);
    pf_file_abandon(file);
    return status;
}

typedef struct {
    int64_t n;
    const float *value;
    int32_t dtype;
} value_work;

static int32_t put_values(prefopt_context *context, pf_file *file, const void *payload)
{
    const value_work *w = payload;
    if (w->dtype == PREFOPT_F32)
        return pf_file_put(file, w->value, w->n * (int64_t)sizeof *w->value);
    return put_halves(context, file, w->n, w->value, w->dtype);
}

int32_t pf_safetensors_write(prefopt_context *context, const char *path, const pf_tensor *tensors,
                             int64_t n_tensors, const float *value, int32_t dtype, const char *save,
                             bool pass)
{
    header h;
    value_work w = {count(tensors, n_tensors), value, dtype};
    PF_TRY(header_begin(&h, context, n_tensors, save));
    for (int64_t i = 0; i < n_tensors; i++)
        header_add(&h, tensors[i].name, dtype, tensors[i].rows,
                   tensors[i].n_dims == 2 ? tensors[i].columns : -1);
    header_end(&h);
    int32_t status = write_file(context, path, pass, &h, put_values, &w);
    pf_free(context, h.text);
    return status;
}

typedef struct {
    const pf_array *arrays;
    int64_t n;
} array_work;

static int32_t put_arrays(prefopt_context *context, pf_file *file, const void *payload)
{
    (void)context;
    const array_work *w = payload;
    for (int64_t i = 0; i < w->n; i++)
        PF_TRY(pf_file_put(file, w->arrays[i].value,
                           w->arrays[i].n * pf_dtype_size(w->arrays[i].dtype)));
    return PREFOPT_OK;
}

int32_t pf_safetensors_write_arrays(prefopt_context *context, const char *path,
                                    const pf_array *arrays, int64_t n_arrays)
{
    header h;
    array_work w = {arrays, n_arrays};
    PF_TRY(header_begin(&h, context, n_arrays, NULL));
    for (int64_t i = 0; i < n_arrays; i++)
        header_add(&h, arrays[i].name, arrays[i].dtype, arrays[i].n, -1);
    header_end(&h);
    int32_t status = write_file(context, path, true, &h, put_arrays, &w);
    pf_free(context, h.text);
    return status;
}
