/* A byte-level tokenizer without merges, whose token of a byte is that byte, written to a file that
 * is gone as soon as it was read. */
#include "byte_texts.h"

#include "cli.h"

/* The character that stands for a byte in a tokenizer.json: printable ones are themselves, the
 * others are numbered from U+0100 in their order. */
static void write_tokenizer(FILE *file)
{
    int other = 0;
    fprintf(file,
            "{\"version\":\"1.0\",\"normalizer\":null,\"pre_tokenizer\":{\"type\":\"ByteLevel\","
            "\"add_prefix_space\":false,\"trim_offsets\":true},\"added_tokens\":[],"
            "\"model\":{\"type\":\"BPE\",\"merges\":[],\"vocab\":{");
    for (int byte = 0; byte < 256; byte++) {
        int printable =
            (byte >= '!' && byte <= '~') || (byte >= 0xa1 && byte <= 0xac) || byte >= 0xae;
        fprintf(file, "%s\"\\u%04x\":%d", byte > 0 ? "," : "", printable ? byte : 256 + other++,
                byte);
    }
    fprintf(file, "}}}");
}

static prefopt_tokenizer *byte_tokenizer(prefopt_context *context)
{
    const char *folder = getenv("TMPDIR");
    char path[4096];
    snprintf(path, sizeof path, "%s/prefopt-bytes-XXXXXX", folder != NULL ? folder : "/tmp");
    int descriptor = mkstemp(path);
    FILE *file = descriptor < 0 ? NULL : fdopen(descriptor, "w");
    if (file == NULL) {
        fprintf(stderr, "%s: %s\n", path, strerror(errno));
        exit(1);
    }
    write_tokenizer(file);
    fclose(file);
    prefopt_tokenizer *tokenizer = NULL;
    int32_t status = prefopt_tokenizer_load(&tokenizer, context, path);
    unlink(path);
    CALL(status);
    return tokenizer;
}

prefopt_dataset *byte_texts_read(prefopt_context *context, const char *path,
                                 prefopt_text_counts *counts)
{
    prefopt_tokenizer *tokenizer = byte_tokenizer(context);
    prefopt_text_options options;
    prefopt_dataset *data = NULL;
    CALL(prefopt_text_options_init(&options, sizeof options));
    CALL(prefopt_text_read(&data, context, tokenizer, path, &options, counts));
    prefopt_tokenizer_destroy(tokenizer);
    return data;
}

char *byte_text(const int32_t *tokens, int64_t n)
{
    char *text = malloc((size_t)n + 1);
    if (text == NULL) {
        fprintf(stderr, "no memory for a text of %lld bytes\n", (long long)n);
        exit(1);
    }
    for (int64_t i = 0; i < n; i++)
        text[i] = (char)tokens[i];
    text[n] = '\0';
    return text;
}
