/* Tokenizing on one core: bench_tokenizer TOKENIZER.JSON [TEXT FILE]. Without a file the text is
 * English words with Zipf's frequencies, spaces and punctuation. */
#define _GNU_SOURCE
#include <string.h>

#include "bench.h"

static const char *const words[] = {
    "the",
    "of",
    "and",
    "to",
    "a",
    "in",
    "that",
    "is",
    "was",
    "it",
    "for",
    "he",
    "with",
    "as",
    "his",
    "on",
    "be",
    "at",
    "by",
    "I",
    "this",
    "had",
    "not",
    "are",
    "but",
    "from",
    "or",
    "have",
    "an",
    "they",
    "which",
    "one",
    "you",
    "were",
    "all",
    "her",
    "she",
    "there",
    "would",
    "their",
    "we",
    "him",
    "been",
    "has",
    "when",
    "who",
    "will",
    "no",
    "more",
    "if",
    "out",
    "so",
    "up",
    "said",
    "what",
    "its",
    "about",
    "than",
    "into",
    "them",
    "only",
    "other",
    "time",
    "new",
    "some",
    "could",
    "these",
    "two",
    "may",
    "first",
    "then",
    "do",
    "preference",
    "argument",
    "school",
    "government",
    "convincing",
    "children",
    "therefore",
    "reasonable",
    "comparison",
    "unpersuasive",
    "nonetheless",
    "philosopher",
    "2019",
    "don't",
    "London",
    "counterpoint",
    "well-being",
    "they're",
    "Shakespeare",
    "photosynthesis",
    "microbiologist",
    "Wittgenstein",
    "rebuttals",
    "1,024",
};

/* About n bytes; the k-th word has weight 1 / (k + 2). */
static char *make_text(int64_t n, int64_t *n_bytes)
{
    enum { WORDS = sizeof words / sizeof words[0] };
    double sum[WORDS], total = 0;
    for (int k = 0; k < WORDS; k++)
        sum[k] = total += 1.0 / (k + 2);
    char *text = malloc((size_t)n + 64);
    int64_t used = 0, in_sentence = 0;
    if (text == NULL)
        exit(1);
    for (uint64_t i = 0; used < n; i++) {
        double draw[2];
        need(prefopt_random_uniform(1, 0, 2 * i, 2, draw));
        int k = 0;
        while (k + 1 < WORDS && sum[k] < draw[0] * total)
            k++;
        used += sprintf(text + used, "%s", words[k]);
        in_sentence++;
        used += sprintf(text + used, "%s",
                        in_sentence > 8 && draw[1] < 0.15   ? (in_sentence = 0, ".\n\n")
                        : in_sentence > 4 && draw[1] < 0.25 ? ". "
                        : draw[1] < 0.33                    ? ", "
                                                            : " ");
    }
    *n_bytes = used;
    return text;
}

static char *read_text(const char *path, int64_t *n_bytes)
{
    FILE *file = fopen(path, "rb");
    if (file == NULL || fseek(file, 0, SEEK_END) != 0)
        exit(1);
    long size = ftell(file);
    rewind(file);
    char *text = malloc((size_t)size + 1);
    if (text == NULL || fread(text, 1, (size_t)size, file) != (size_t)size)
        exit(1);
    fclose(file);
    *n_bytes = size;
    return text;
}

int main(int argc, char **argv)
{
    enum { REPEATS = 5 };
    prefopt_context *context;
    prefopt_tokenizer *tokenizer;
    int64_t n_bytes, n, n_back;
    if (argc < 2 || argc > 3) {
        fprintf(stderr, "bench_tokenizer TOKENIZER.JSON [TEXT FILE]\n");
        return 2;
    }
    need(prefopt_context_create(&context, NULL));
    double start = now();
    need(prefopt_tokenizer_load(&tokenizer, context, argv[1]));
    printf("tokenizer.load %.4g s\n", now() - start);
    char *text = argc > 2 ? read_text(argv[2], &n_bytes) : make_text(10000000, &n_bytes);
    int32_t *tokens = malloc(sizeof *tokens * (size_t)n_bytes);
    char *back = malloc((size_t)n_bytes * 3);
    if (tokens == NULL || back == NULL)
        return 1;
    double best = 1e9, best_decode = 1e9;
    for (int i = 0; i < REPEATS; i++) {
        start = now();
        need(prefopt_tokenizer_encode(tokenizer, text, n_bytes, tokens, n_bytes, &n));
        double end = now();
        best = end - start < best ? end - start : best;
        start = end;
        need(prefopt_tokenizer_decode(tokenizer, tokens, n, back, n_bytes * 3, &n_back));
        end = now();
        best_decode = end - start < best_decode ? end - start : best_decode;
    }
    printf("tokenizer.bytes_per_token %.4g B\n", (double)n_bytes / (double)n);
    printf("tokenizer.encode %.4g MB/s\n", (double)n_bytes / best / 1e6);
    printf("tokenizer.decode %.4g MB/s\n", (double)n_back / best_decode / 1e6);
    free(text);
    free(tokens);
    free(back);
    prefopt_tokenizer_destroy(tokenizer);
    prefopt_context_destroy(context);
    return 0;
}
