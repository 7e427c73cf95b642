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

/* The header's text, with its length before it; *out is to be freed. */
static int32_t make_header(prefopt_context *context, const pf_tensor *tensors, int64_t n_tensors,
                           int32_t dtype, const char *save, char **out, int64_t *n_out)
{
    enum { ENTRY = PF_TENSOR_NAME + 160, OTHER = 200 };
    int64_t room = n_tensors * ENTRY + OTHER, n = 8, size = dtype == PREFOPT_F32 ? 4 : 2;
    char *text = pf_alloc(context, room, 1);
    if (text == NULL)
        return PREFOPT_ERR_MEMORY;
    n += snprintf(text + n, (size_t)(room - n), "{\"__metadata__\":{\"format\":\"pt\"");
    if (save != NULL)
        n += snprintf(text + n, (size_t)(room - n), ",\"%s\":\"%.40s\"", PF_SAVE_KEY, save);
    n += snprintf(text + n, (size_t)(room - n), "}");
    for (int64_t i = 0; i < n_tensors; i++) {
        const pf_tensor *t = &tensors[i];
        n += snprintf(text + n, (size_t)(room - n), ",\"%s\":{\"dtype\":\"%s\",\"shape\":[%lld",
                      t->name, pf_dtype_name(dtype), (long long)t->rows);
        if (t->n_dims == 2)
            n += snprintf(text + n, (size_t)(room - n), ",%lld", (long long)t->columns);
        n += snprintf(text + n, (size_t)(room - n), "],\"data_offsets\":[%lld,%lld]}",
                      (long long)(t->offset * size),
                      (long long)((t->offset + t->rows * t->columns) * size));
    }
    text[n++] = '}';
    while (n % 8 != 0)
        text[n++] = ' ';
    for (int32_t i = 0; i < 8; i++)
        text[i] = (char)((uint64_t)(n - 8) >> 8 * i & 0xff);
    *out = text;
    *n_out = n;
    return PREFOPT_OK;
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

int32_t pf_safetensors_write(prefopt_context *context, const char *path, const pf_tensor *tensors,
                             int64_t n_tensors, const float *value, int32_t dtype, const char *save)
{
    char *header;
    int64_t n_header, n = count(tensors, n_tensors);
    pf_file *file;
    PF_TRY(make_header(context, tensors, n_tensors, dtype, save, &header, &n_header));
    int32_t status = pf_file_create(&file, context, path);
    if (status == PREFOPT_OK) {
        status = pf_file_put(file, header, n_header);
        if (status == PREFOPT_OK && dtype == PREFOPT_F32)
            status = pf_file_put(file, value, n * (int64_t)sizeof *value);
        else if (status == PREFOPT_OK)
            status = put_halves(context, file, n, value, dtype);
        if (status == PREFOPT_OK)
            status = pf_file_commit(file);
        else
            pf_file_abandon(file);
    }
    pf_free(context, header);
    return status;
}
