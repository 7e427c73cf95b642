/* Small tokenizer.json files for tests: the 256 bytes, a few merges, whatever else a test says. */
#ifndef PF_TOKENIZER_TEST_H
#define PF_TOKENIZER_TEST_H

#include "data/pf_tokenizer.h"
#include "pf_test.h"

/* The character that stands for a byte, by the definition: printable bytes are themselves, the
 * others are numbered from U+0100 in their order. As a JSON escape. */
static inline void put_byte(char *out, int byte)
{
    int other = 0, code = -1;
    for (int b = 0; b < 256; b++) {
        int printable = (b >= '!' && b <= '~') || (b >= 0xa1 && b <= 0xac) || b >= 0xae;
        if (b == byte)
            code = printable ? b : 256 + other;
        other += !printable;
    }
    sprintf(out, "\\u%04x", (unsigned)code);
}

static inline void put_text(char *out, const char *text)
{
    for (*out = 0; *text != 0; text++)
        put_byte(out + strlen(out), (unsigned char)*text);
}

typedef struct {
    const char *normalizer, *pre_tokenizer, *added, *more /* fields of model */;
    const char *merges[16][2]; /* in plain text; what each gives gets the next id from 256 */
    int pairs;                 /* as ["a", "b"] */
} file_parts;

#define BYTE_LEVEL "{\"type\":\"ByteLevel\",\"add_prefix_space\":false,\"trim_offsets\":true}"

/* The text of a file; free it. */
static inline char *make_file(const file_parts *p)
{
    char *out = malloc(1 << 16), a[256], b[256];
    ck_assert_ptr_nonnull(out);
    int n = sprintf(out, "{\"version\":\"1.0\",\"normalizer\":%s,\"pre_tokenizer\":%s,",
                    p->normalizer != NULL ? p->normalizer : "null",
                    p->pre_tokenizer != NULL ? p->pre_tokenizer : BYTE_LEVEL);
    n += sprintf(out + n, "\"added_tokens\":[%s],\"post_processor\":null,\"decoder\":null,",
                 p->added != NULL ? p->added : "");
    n += sprintf(out + n, "\"model\":{\"type\":\"BPE\",%s\"vocab\":{",
                 p->more != NULL ? p->more : "");
    for (int byte = 0; byte < 256; byte++) {
        put_byte(a, byte);
        n += sprintf(out + n, "%s\"%s\":%d", byte > 0 ? "," : "", a, byte);
    }
    for (int i = 0; i < 16 && p->merges[i][0] != NULL; i++) {
        put_text(a, p->merges[i][0]);
        put_text(b, p->merges[i][1]);
        n += sprintf(out + n, ",\"%s%s\":%d", a, b, 256 + i);
    }
    n += sprintf(out + n, "},\"merges\":[");
    for (int i = 0; i < 16 && p->merges[i][0] != NULL; i++) {
        put_text(a, p->merges[i][0]);
        put_text(b, p->merges[i][1]);
        n += sprintf(out + n, p->pairs ? "%s[\"%s\",\"%s\"]" : "%s\"%s %s\"", i > 0 ? "," : "", a,
                     b);
    }
    sprintf(out + n, "]}}");
    return out;
}

static inline prefopt_tokenizer *make_tokenizer(prefopt_context *context, const file_parts *p)
{
    char *file = make_file(p);
    prefopt_tokenizer *tokenizer = NULL;
    OK(pf_tokenizer_parse(&tokenizer, context, "small.json", file, (int64_t)strlen(file)));
    free(file);
    return tokenizer;
}

/* The text gives these ids, and the ids the text. */
static inline void check_ids(const prefopt_tokenizer *t, const char *text, int64_t n_bytes,
                             const int32_t *ids, int64_t n, const char *back)
{
    int32_t tokens[256];
    char bytes[1024];
    int64_t n_tokens = -1, n_back = -1;
    const char *shown = text != NULL ? text : "";
    OK(prefopt_tokenizer_encode(t, text, n_bytes, tokens, 256, &n_tokens));
    ck_assert_msg(n_tokens == n, "\"%s\": %lld tokens, expected %lld", shown, (long long)n_tokens,
                  (long long)n);
    for (int64_t i = 0; i < n; i++)
        ck_assert_msg(tokens[i] == ids[i], "\"%s\": token %lld is %d, expected %d", shown,
                      (long long)i, tokens[i], ids[i]);
    OK(prefopt_tokenizer_decode(t, tokens, n, bytes, sizeof bytes, &n_back));
    ck_assert_int_eq(n_back, back != NULL ? (int64_t)strlen(back) : n_bytes);
    ck_assert_mem_eq(bytes, back != NULL ? back : text, (size_t)n_back);
}

#define IDS(t, text, back, ...)                                                                    \
    do {                                                                                           \
        const int32_t ids_[] = {__VA_ARGS__};                                                      \
        check_ids((t), (text), (int64_t)strlen(text), ids_, sizeof ids_ / sizeof ids_[0], (back)); \
    } while (0)

#endif
