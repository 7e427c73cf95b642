/* A file of texts into a dataset: bench_text TOKENIZER.JSON FILE.jsonl[.gz] [THREADS]. Prints lines
 * `name value unit`; sizes are of the JSON, uncompressed. */
#define _GNU_SOURCE
#include "bench.h"
#include "data/pf_input.h"

static int64_t size_of(prefopt_context *context, const char *path)
{
    static char bytes[1 << 16];
    pf_input *input;
    int64_t got, n = 0;
    need(pf_input_open(&input, context, path));
    do {
        need(pf_input_read(input, bytes, sizeof bytes, &got));
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
    need(prefopt_context_options_init(&how, sizeof how));
    how.threads = argc > 3 ? atoi(argv[3]) : 0;
    need(prefopt_context_create(&context, &how));
    need(prefopt_tokenizer_load(&tokenizer, context, argv[1]));
    need(prefopt_text_options_init(&options, sizeof options));
    double n = (double)size_of(context, argv[2]), best = 1e9, least = 1e9;
    int64_t tokens = 0;
    for (int i = 0; i < REPEATS; i++) {
        prefopt_dataset *data;
        prefopt_sequences view = {.struct_size = sizeof view};
        double start = now(), work = processor();
        need(prefopt_text_read(&data, context, tokenizer, argv[2], &options, &counts));
        double took = now() - start;
        work = processor() - work;
        best = took < best ? took : best;
        least = work < least ? work : least;
        need(prefopt_dataset_sequences(data, &view));
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
