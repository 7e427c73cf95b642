/* Safetensors: every tensor that a header describes can be read. An input is a file as it stands,
 * or (when it starts with 'H') a header up to a line end and then data: the length is made for it.
 */
#include "fuzz.h"
#include "model/pf_safetensors.h"

static void read_all(const pf_safetensors *file)
{
    int64_t elements = 0;
    for (int64_t i = 0; i < file->n_tensors; i++) {
        const pf_file_tensor *tensor = &file->tensors[i];
        MUST(tensor->bytes >= file->bytes && tensor->n_bytes >= 0 &&
             tensor->bytes + tensor->n_bytes <= file->bytes + file->n);
        if (tensor->dtype < 0 || tensor->n == 0)
            continue;
        float *x = malloc((size_t)tensor->n * sizeof *x);
        MUST(x != NULL);
        pf_safetensors_values(tensor, 0, tensor->n, x);
        MUST(pf_first_not_finite(tensor->n, x) <= tensor->n);
        free(x);
        elements += tensor->n;
    }
    MUST(elements <= file->n); /* nothing lies on anything else */
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    pf_safetensors file;
    uint8_t *made = NULL;
    if (size > 0 && data[0] == 'H') {
        const uint8_t *header = data + 1, *end = memchr(header, '\n', size - 1);
        size_t n = end == NULL ? size - 1 : (size_t)(end - header);
        size_t rest = end == NULL ? 0 : size - 2 - n;
        made = malloc(8 + n + rest);
        MUST(made != NULL);
        for (int i = 0; i < 8; i++)
            made[i] = (uint8_t)((uint64_t)n >> 8 * i & 0xff);
        memcpy(made + 8, header, n);
        memcpy(made + 8 + n, header + n + (end != NULL), rest);
        data = made;
        size = 8 + n + rest;
    }
    int32_t status =
        pf_safetensors_parse(&file, fuzz_context(), "m.safetensors", data, (int64_t)size);
    if (status == PREFOPT_OK) {
        read_all(&file);
        pf_safetensors_close(&file);
    } else {
        check_failure(status);
    }
    free(made);
    return 0;
}
