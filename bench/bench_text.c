/* A file of texts into a dataset: bench_text TOKENIZER.JSON FILE.jsonl[.gz] [THREADS]. Prints lines
 * `name value unit`; sizes are of the JSON, uncompressed. */
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "data/pf_input.h"
#include "prefopt/prefopt.h"

static double seconds(clockid_t clock)
{
    struct timespec now;
    clock_gettime(clock, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

static void must(int32_t status)
{
    if (status == PREFOPT_OK)
        return;
    fprintf(stderr, "%s\n", prefopt_last_error());
    exit(1);
}

static int64_t size_of(prefopt_context *context, const char *path)
{
    static char bytes[1 << 16];
    pf_input *input;
    int64_t got, n = 0;
    must(pf_input_open(&input, context, path));
    do {
        must(pf_input_read(input, bytes, sizeof bytes, &got));
        n += got;
    } while (got > 0);
    pf_input_close(input);
    return n;
}

int main(int argc, char **argv)
{
    enum { REPEATS = 15 };
    prefopt_context *context;
    prefopt_context_options how;
    prefopt_tokenizer *tokenizer;
    prefopt_text_options options;
    prefopt_text_counts counts = {.struct_size = sizeof counts};
    if (argc < 3 || argc > 4) {
        fprintf(stderr, "bench_text TOKENIZER.JSON FILE.jsonl[.gz] [THREADS]\n");
        return 2;
    }
    must(prefopt_context_options_init(&how, sizeof how));
    how.threads = argc > 3 ? atoi(argv[3]) : 0;
    must(prefopt_context_create(&context, &how));
    must(prefopt_tokenizer_load(&tokenizer, context, argv[1]));
    must(prefopt_text_options_init(&options, sizeof options));
    double n = (double)size_of(context, argv[2]), best = 1e9, least = 1e9;
    int64_t tokens = 0;
    for (int i = 0; i < REPEATS; i++) {
        prefopt_dataset *data;
        prefopt_sequences view = {.struct_size = sizeof view};
        double start = seconds(CLOCK_MONOTONIC), work = seconds(CLOCK_PROCESS_CPUTIME_ID);
        must(prefopt_text_read(&data, context, tokenizer, argv[2], &options, &counts));
        double took = seconds(CLOCK_MONOTONIC) - start;
        work = seconds(CLOCK_PROCESS_CPUTIME_ID) - work;
        best = took < best ? took : best;
        least = work < least ? work : least;
        must(prefopt_dataset_sequences(data, &view));
        tokens = view.offsets[view.n];
        prefopt_dataset_destroy(data);
    }
    printf("text.threads %d threads\n", (int)prefopt_context_threads(context));
    printf("text.rows %lld rows\n", (long long)counts.rows);
    printf("text.tokens %lld tokens\n", (long long)tokens);
    printf("text.boundary_mismatches %lld rows\n", (long long)counts.boundary_mismatches);
    printf("text.read %.4g MB/s\n", n / best / 1e6);
    printf("text.read_a_processor_second %.4g MB\n", n / least / 1e6);
    prefopt_tokenizer_destroy(tokenizer);
    prefopt_context_destroy(context);
    return 0;
}
