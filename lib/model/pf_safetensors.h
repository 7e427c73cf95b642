/* Safetensors files: a header of JSON that says where each tensor's bytes lie, then the bytes. */
#ifndef PF_SAFETENSORS_H
#define PF_SAFETENSORS_H

#include "model/pf_transformer.h"

/* Longest name that error texts show, and its room. */
enum { PF_NAME_SHOWN = 100, PF_NAME_ROOM = PF_NAME_SHOWN + 4, PF_SHAPE_ROOM = 192 };

enum { PF_FILE_DIMS = 8 };
typedef struct {
    const char *name;
    const char *dtype_name;
    int32_t dtype; /* prefopt_dtype: F32, F16 or BF16; -1: one whose values are not read */
    int32_t n_dims;
    int64_t dims[PF_FILE_DIMS];
    int64_t n; /* elements */
    const unsigned char *bytes;
    int64_t n_bytes;
} pf_file_tensor;

/* The file as it lies in memory; everything the header says was checked against its size. */
typedef struct {
    prefopt_context *context;
    const char *path; /* for error texts; the caller's */
    void *header;     /* owns names */
    const unsigned char *bytes;
    int64_t n;
    bool mapped;
    int64_t n_tensors;
    pf_file_tensor *tensors; /* by their place in the file */
    const char *save;        /* __metadata__'s PF_SAVE_KEY, or NULL */
} pf_safetensors;

/* In a file whose config.json may still lie under another name: see checkpoint_write.c. */
#define PF_SAVE_KEY "prefopt_save"

/* Maps the file `name` of the open folder, and reads its header. path stands for it in error texts
 * and must live as long. The file must not be cut short by others while it is open. IO, FORMAT,
 * MEMORY, UNSUPPORTED (no JSON in this build). On failure nothing is open. */
int32_t pf_safetensors_open(pf_safetensors *file, prefopt_context *context, int folder,
                            const char *name, const char *path);

/* The same from bytes in memory, which must live as long. */
int32_t pf_safetensors_parse(pf_safetensors *file, prefopt_context *context, const char *path,
                             const void *bytes, int64_t n);
void pf_safetensors_close(pf_safetensors *file); /* zeroed is fine */

/* x[first .. first + n - 1] of the tensor as float32; dtype is not -1. */
void pf_safetensors_values(const pf_file_tensor *tensor, int64_t first, int64_t n, float *x);

/* First element that is NaN or infinite; n when all are finite. */
int64_t pf_first_not_finite(int64_t n, const float *x);

/* Writes tensors that lie end to end in value [n], as dtype (F32, F16, BF16). save: see
 * PF_SAVE_KEY, or NULL. pass: as pf_file_pass. */
int32_t pf_safetensors_write(prefopt_context *context, const char *path, const pf_tensor *tensors,
                             int64_t n_tensors, const float *value, int32_t dtype, const char *save,
                             bool pass);
/* NUMERIC names the first value that is not finite or not finite as dtype. */
int32_t pf_safetensors_check(prefopt_context *context, const pf_tensor *tensors, int64_t n_tensors,
                             const float *value, int32_t dtype);

/* Numbers that lie anywhere, [n], to be written as they are, whatever their values. */
typedef struct {
    const char *name; /* shorter than PF_TENSOR_NAME; plain letters, digits, points, underscores */
    int32_t dtype;    /* F64 or F32 */
    int64_t n;
    const void *value;
} pf_array;
/* As pf_file_pass. */
int32_t pf_safetensors_write_arrays(prefopt_context *context, const char *path,
                                    const pf_array *arrays, int64_t n_arrays);

/* The tensor of this name, or NULL. */
const pf_file_tensor *pf_safetensors_find(const pf_safetensors *file, const char *name);

const char *pf_dtype_name(int32_t dtype); /* "F64", "F32", "F16", "BF16" */
static inline int64_t pf_dtype_size(int32_t dtype)
{
    return dtype == PREFOPT_F64 ? 8 : dtype == PREFOPT_F32 ? 4 : 2;
}

/* For error texts: what stands in a file, printable and short; a shape as "[3, 4]". */
void pf_show_name(char out[PF_NAME_ROOM], const char *name);
void pf_show_shape(char out[PF_SHAPE_ROOM], int32_t n_dims, const int64_t *dims);

/* The end of a path says more than its beginning, and error texts are short. */
static inline const char *pf_show_path(const char *path)
{
    enum { SHOWN = 200 };
    size_t n = strlen(path);
    return n > SHOWN ? path + (n - SHOWN) : path;
}

#endif
