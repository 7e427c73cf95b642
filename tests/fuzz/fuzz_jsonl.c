/* JSON Lines: rows that were read can be asked for. */
#include "data/pf_jsonl.h"
#include "fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    prefopt_dataset *dataset = NULL;
    int32_t status =
        pf_jsonl_parse(fuzz_context(), "rows.jsonl", (const char *)data, (int64_t)size, &dataset);
    if (status != PREFOPT_OK) {
        check_failure(status);
        return 0;
    }
    for (int64_t i = 0; i < prefopt_dataset_size(dataset); i++) {
        prefopt_row row;
        MUST(prefopt_row_init(&row, sizeof row) == PREFOPT_OK);
        MUST(prefopt_dataset_row(dataset, i, &row) == PREFOPT_OK);
        MUST(row.n_completions >= 0);
        if (row.n_completions == 0)
            continue; /* a prompt alone */
        int64_t sum = 0;
        for (int64_t t = 0; t < row.completion_offsets[row.n_completions]; t++)
            sum += row.completions[t] >= 0;
        MUST(sum == row.completion_offsets[row.n_completions]);
    }
    prefopt_dataset_destroy(dataset);
    return 0;
}
