/* Reading a tokenizer.json: faults by name, memory that fails, random damage. */
#define _GNU_SOURCE
#include <unistd.h>

#include "pf_tokenizer_test.h"

static void check_fault(prefopt_context *context, const char *file, int32_t code, const char *text)
{
    prefopt_tokenizer *out = (prefopt_tokenizer *)&code;
    FAILS(code, text, pf_tokenizer_parse(&out, context, "f.json", file, (int64_t)strlen(file)));
    ck_assert_msg(strncmp(prefopt_last_error(), "f.json: ", 8) == 0, "%s", prefopt_last_error());
    ck_assert_ptr_eq(out, &code);
}

/* Replaces the first `from` in a copy of text. */
static char *replaced(const char *text, const char *from, const char *to)
{
    const char *at = strstr(text, from);
    ck_assert_msg(at != NULL, "there is no %s", from);
    char *out = malloc(strlen(text) + strlen(to) + 1);
    ck_assert_ptr_nonnull(out);
    sprintf(out, "%.*s%s%s", (int)(at - text), text, to, at + strlen(from));
    return out;
}

START_TEST(test_faults_are_named)
{
    enum { F = PREFOPT_ERR_FORMAT, U = PREFOPT_ERR_UNSUPPORTED };
    static const struct {
        const char *from, *to;
        int32_t code;
        const char *text;
    } cases[] = {
        {"{\"version\"", "[\"version\"", F, "line 1"},
        {"\"vocab\"", "\"vocap\"", F, "model.vocab"},
        {"\"merges\":[", "\"mergers\":[", F, "model.merges"},
        {"\"model\"", "\"modell\"", F, "model is not an object"},
        {"\"BPE\"", "\"WordPiece\"", U, "model.type is \"WordPiece\""},
        {"\"b\":98", "\"b\":97", F, "which \"a\" has"},
        {"\"b\":98", "\"a\":98", F, "duplicate"},
        {"\"b\":98", "\"b\":-1", F, "\"b\" is -1"},
        {"\"b\":98", "\"b\":258", F, "\"b\" is 258, expected 0 to 257"},
        {"\"b\":98", "\"b\":4611686018427387904", F, "4611686018427387904"},
        {"\"b\":98", "\"b\":99999999999999999999", F, "line 1"},
        {"\"b\":98", "\"b\":98.5", F, "not an integer"},
        {"\"b\":98", "\"b\":\"98\"", F, "not an integer"},
        {"\"b\":98,", "", F, "expected 0 to 256"},
        {"\"a b\"", "\"a \\u0142\"", F, "model.merges[0]: \"a\u0142\" is not in model.vocab"},
        {"\"a b\"", "\"xy b\"", F, "model.merges[0]: \"xy\" is not in model.vocab"},
        {"\"a b\"", "\"a xy\"", F, "model.merges[0]: \"xy\" is not in model.vocab"},
        {"\"a b\"", "\"ab\"", F, "model.merges[0]"},
        {"\"a b\"", "\"a b c\"", F, "model.merges[0]"},
        {"\"a b\"", "\" ab\"", F, "model.merges[0]"},
        {"\"a b\"", "7", F, "model.merges[0]"},
        {"\"a b\"", "[\"a\"]", F, "model.merges[0]"},
        {"\"a b\"", "[\"a\",\"b\",\"c\"]", F, "model.merges[0]"},
        {"\"a b\"", "[\"a\",3]", F, "model.merges[0]"},
        {"\"id\":257", "\"id\":256", F, "added_tokens[0]"},
        {"\"id\":257", "\"id\":300", F, "added_tokens[0]"},
        {"\"id\":257", "\"idd\":257", F, "added_tokens[0]"},
        {"\"<x>\"", "\"\"", F, "added_tokens[0].content"},
        {"\"<x>\"", "5", F, "added_tokens[0].content"},
        {"\"<x>\"", "\"a\"", F, "added_tokens[0].id"},
        {"\"special\":true", "\"special\":1", F, "added_tokens[0].special"},
        {"\"special\":true", "\"lstrip\":\"no\"", F, "added_tokens[0].lstrip"},
        {"\"special\":true", "\"normalized\":0", F, "normalized"},
        {"}],\"post", "},{\"id\":257,\"content\":\"<x>\"}],\"post", F, "added_tokens[1]"},
        {"}],\"post", "},{\"id\":97,\"content\":\"a\"},{\"id\":97,\"content\":\"a\"}],\"post", F,
         "added_tokens[2]: \"a\" stands there twice"},
        {"\"added_tokens\":[", "\"added_tokens\":{},\"x\":[", F, "added_tokens"},
        {"\"type\":\"NFC\"", "\"type\":\"NFKC\"", U, "normalizer.type is \"NFKC\""},
        {"\"type\":\"NFC\"", "\"kind\":\"NFC\"", F, "normalizer.type"},
        {"{\"type\":\"NFC\"}", "3", F, "normalizer is not an object"},
        {BYTE_LEVEL, "null", U, "pre_tokenizer"},
        {BYTE_LEVEL, "{\"type\":\"Whitespace\"}", U, "pre_tokenizer.type is \"Whitespace\""},
        {BYTE_LEVEL, "{\"type\":\"ByteLevel\"}", F, "add_prefix_space"},
        {BYTE_LEVEL, "{\"type\":\"Sequence\",\"pretokenizers\":[]}", F, "pretokenizers"},
        {BYTE_LEVEL, "{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":\"Digits\"}]}", U,
         "pretokenizers[].type is \"Digits\""},
        {BYTE_LEVEL,
         "{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":\"Split\",\"pattern\":{\"Regex\":"
         "\"(\"},\"behavior\":\"Isolated\"}," BYTE_LEVEL "]}",
         F, "\"(\": missing"},
        {BYTE_LEVEL,
         "{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":\"Split\",\"pattern\":{\"Regex\":"
         "\"\\\\h\"},\"behavior\":\"Isolated\"}," BYTE_LEVEL "]}",
         U, "escapes"},
        {BYTE_LEVEL,
         "{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":\"Split\",\"pattern\":{\"Regex\":"
         "\"a\"},\"behavior\":\"Removed\"}," BYTE_LEVEL "]}",
         U, "behavior is \"Removed\""},
        {BYTE_LEVEL,
         "{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":\"Split\",\"pattern\":{\"String\":"
         "\"a\"},\"behavior\":\"Isolated\"}," BYTE_LEVEL "]}",
         U, "pattern is no Regex"},
        {"\"post_processor\":null", "\"post_processor\":{\"type\":\"BertProcessing\"}", U,
         "post_processor.type is \"BertProcessing\""},
        {"\"post_processor\":null",
         "\"post_processor\":{\"type\":\"TemplateProcessing\",\"single\":[{\"SpecialToken\":{\"id\""
         ":\"<x>\"}},{\"Sequence\":{\"id\":\"A\"}}]}",
         U, "post_processor.single"},
        {"\"decoder\":null", "\"decoder\":{\"type\":\"WordPiece\"}", U, "decoder.type"},
        {"\"vocab\"", "\"dropout\":0.1,\"vocab\"", U, "model.dropout"},
        {"\"vocab\"", "\"unk_token\":\"<unk>\",\"vocab\"", U, "model.unk_token is \"<unk>\""},
        {"\"vocab\"", "\"byte_fallback\":true,\"vocab\"", U, "model.byte_fallback"},
        {"\"vocab\"", "\"end_of_word_suffix\":\"</w>\",\"vocab\"", U, "model.end_of_word_suffix"},
        {"\"vocab\"", "\"ignore_merges\":\"x\",\"vocab\"", F, "model.ignore_merges"},
    };
    prefopt_context *context = test_context(1);
    const file_parts p = {.normalizer = "{\"type\":\"NFC\"}",
                          .added = "{\"id\":257,\"content\":\"<x>\",\"special\":true}",
                          .merges = {{"a", "b"}}};
    /* The file with plain letters, so that they can be found. */
    char *file = make_file(&p), *plain = file;
    for (int c = 'a'; c <= 'c'; c++) {
        char code[8], letter[2] = {(char)c, 0};
        snprintf(code, sizeof code, "\\u%04x", (unsigned)c);
        while (strstr(plain, code) != NULL) {
            char *next = replaced(plain, code, letter);
            free(plain);
            plain = next;
        }
    }
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char *damaged = replaced(plain, cases[i].from, cases[i].to);
        check_fault(context, damaged, cases[i].code, cases[i].text);
        free(damaged);
    }
    check_fault(context, "", F, "line 1");
    check_fault(context, "[]", F, "not an object");
    free(plain);
    prefopt_context_destroy(context);
}
END_TEST

START_TEST(test_what_changes_no_token_is_read)
{
    static const char *const same[][2] = {
        {"\"post_processor\":null", "\"post_processor\":" BYTE_LEVEL},
        {"\"post_processor\":null",
         "\"post_processor\":{\"type\":\"TemplateProcessing\",\"single\":[{\"Sequence\":{\"id\":"
         "\"A\",\"type_id\":0}}]}"},
        {"\"decoder\":null", "\"decoder\":" BYTE_LEVEL},
        {"\"merges\":[", "\"merges\":[\"#version: 0.2\","},
        {"\"vocab\"", "\"dropout\":null,\"unk_token\":\"\",\"fuse_unk\":true,\"vocab\""},
        {"\"version\"", "\"truncation\":{\"max_length\":1},\"version\""},
    };
    prefopt_context *context = test_context(1);
    const file_parts p = {.merges = {{"a", "b"}}};
    char *file = make_file(&p);
    for (size_t i = 0; i < sizeof same / sizeof same[0]; i++) {
        prefopt_tokenizer *t = NULL;
        char *other = replaced(file, same[i][0], same[i][1]);
        OK(pf_tokenizer_parse(&t, context, "f.json", other, (int64_t)strlen(other)));
        IDS(t, "ab b", NULL, 256, ' ', 'b');
        prefopt_tokenizer_destroy(t);
        free(other);
    }
    free(file);
    /* A vocabulary need not have all bytes; a text that needs another is refused. */
    prefopt_tokenizer *t = NULL;
    static const char few[] = "{\"pre_tokenizer\":" BYTE_LEVEL
                              ",\"model\":{\"vocab\":{\"b\":1,\"\\u0120\":0},\"merges\":[]}}";
    OK(pf_tokenizer_parse(&t, context, "few.json", few, sizeof few - 1));
    IDS(t, "b b", NULL, 1, 0, 1);
    int64_t n = -7;
    FAILS(PREFOPT_ERR_ARGUMENT, "0x63", prefopt_tokenizer_encode(t, "bc", 2, NULL, 0, &n));
    ck_assert_int_eq(n, -7);
    prefopt_tokenizer_destroy(t);
    prefopt_context_destroy(context);
}
END_TEST

START_TEST(test_files)
{
    char path[] = "tokenizer_XXXXXX";
    prefopt_context *context = test_context(1);
    const file_parts p = {.merges = {{"a", "b"}}};
    prefopt_tokenizer *t = NULL;
    char *file = make_file(&p);
    int descriptor = mkstemp(path);
    ck_assert_int_ge(descriptor, 0);
    ck_assert_int_eq(write(descriptor, file, strlen(file)), (ssize_t)strlen(file));
    close(descriptor);
    OK(prefopt_tokenizer_load(&t, context, path));
    unlink(path);
    prefopt_context_destroy(context); /* the handle keeps it */
    IDS(t, "abb", NULL, 256, 'b');
    prefopt_tokenizer_destroy(t);
    context = test_context(1);
    t = NULL;
    FAILS(PREFOPT_ERR_IO, path, prefopt_tokenizer_load(&t, context, path));
    FAILS(PREFOPT_ERR_IO, "reading", prefopt_tokenizer_load(&t, context, "."));
    FAILS(PREFOPT_ERR_ARGUMENT, "out", prefopt_tokenizer_load(NULL, context, path));
    FAILS(PREFOPT_ERR_ARGUMENT, "context", prefopt_tokenizer_load(&t, NULL, path));
    FAILS(PREFOPT_ERR_ARGUMENT, "path", prefopt_tokenizer_load(&t, context, NULL));
    ck_assert_ptr_null(t);
    free(file);
    prefopt_context_destroy(context);
}
END_TEST

START_TEST(test_memory_that_fails)
{
    counting_allocator a = {0};
    prefopt_context *context = counting_context(&a);
    const file_parts p = {.normalizer = "{\"type\":\"NFC\"}",
                          .pre_tokenizer = "{\"type\":\"ByteLevel\",\"add_prefix_space\":true}",
                          .added = "{\"id\":257,\"content\":\"<x>\"},{\"id\":258,\"content\":"
                                   "\"e\\u0301\",\"normalized\":true},{\"id\":259,\"content\":"
                                   "\"<y>\",\"special\":true}",
                          .merges = {{"a", "b"}}};
    char *file = make_file(&p);
    int64_t before = a.live, n_bytes = (int64_t)strlen(file), failures = 0;
    prefopt_tokenizer *t = NULL;
    for (int64_t i = 1; t == NULL; i++) {
        a.calls = 0;
        a.fail_at = i;
        int32_t status = pf_tokenizer_parse(&t, context, "f.json", file, n_bytes);
        if (a.calls < i) {
            ck_assert_int_eq(status, PREFOPT_OK);
        } else if (status == PREFOPT_OK) { /* machine code for the pattern is not needed */
            prefopt_tokenizer_destroy(t);
            t = NULL;
        } else {
            ck_assert_int_eq(status, PREFOPT_ERR_MEMORY);
            ck_assert_ptr_null(t);
            ck_assert_int_eq(a.live, before);
            failures++;
        }
    }
    ck_assert_int_gt(failures, 15);
    static char text[400];
    int32_t tokens[400];
    memset(text, 'a', 300); /* long enough for the heap */
    strcat(text, " e\u0301 o\u0301<x>b");
    before = a.live;
    failures = 0;
    for (int64_t i = 1;; i++) {
        int64_t n = -7;
        tokens[0] = -7;
        a.calls = 0;
        a.fail_at = i;
        int32_t status = prefopt_tokenizer_encode(t, text, (int64_t)strlen(text), tokens, 400, &n);
        ck_assert_int_eq(a.live, before);
        if (status == PREFOPT_OK)
            break;
        ck_assert_int_eq(status, PREFOPT_ERR_MEMORY);
        ck_assert(n == -7 && tokens[0] == -7);
        failures++;
    }
    ck_assert_int_gt(failures, 5);
    a.fail_at = 0;
    prefopt_tokenizer_destroy(t);
    prefopt_context_destroy(context);
    ck_assert_int_eq(a.live, 0);
    free(file);
}
END_TEST

/* Bytes of the file changed, cut out, or copied elsewhere: an error that names the file, or a
 * tokenizer that works. */
START_TEST(test_random_damage)
{
    prefopt_context *context = test_context(1);
    const file_parts p = {
        .normalizer = "{\"type\":\"NFC\"}",
        .pre_tokenizer =
            "{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":\"Split\",\"pattern\":"
            "{\"Regex\":\"[^\\\\s\\\\p{N}]+|\\\\s+(?!\\\\S)\"},\"behavior\":\"Isolated\"}"
            "," BYTE_LEVEL "]}",
        .added = "{\"id\":259,\"content\":\"<x>\",\"special\":true,\"lstrip\":true}",
        .merges = {{"a", "b"}, {"ab", "ab"}, {" ", "a"}}};
    static const char pieces[] = "\"{}[]:,\\ 0123456789aub-.e\x80\xc3";
    char *file = make_file(&p);
    int64_t n = (int64_t)strlen(file), read = 0, refused = 0;
    char *damaged = malloc((size_t)n * 2);
    ck_assert_ptr_nonnull(damaged);
    for (uint64_t round = 0; round < 3000; round++) {
        int64_t length = n, changes = 1 + pf_uniform_int(3, round, 0, 3);
        memcpy(damaged, file, (size_t)n);
        for (int64_t i = 0; i < changes; i++) {
            uint64_t at = (uint64_t)i * 8;
            int64_t from = pf_uniform_int(3, round, at + 1, length);
            int64_t span = 1 + pf_uniform_int(3, round, at + 2, 24);
            if (from + span > length)
                span = length - from;
            switch (pf_uniform_int(3, round, at + 3, 3)) {
            case 0:
                damaged[from] =
                    pieces[pf_uniform_int(3, round, at + 4, (int64_t)sizeof pieces - 1)];
                break;
            case 1: /* cut out */
                memmove(damaged + from, damaged + from + span, (size_t)(length - from - span));
                length -= span;
                break;
            default: /* written over another place */
                memmove(damaged + pf_uniform_int(3, round, at + 4, length - span + 1),
                        damaged + from, (size_t)span);
            }
        }
        prefopt_tokenizer *t = NULL;
        int32_t status = pf_tokenizer_parse(&t, context, "damaged.json", damaged, length);
        if (status != PREFOPT_OK) {
            ck_assert(status == PREFOPT_ERR_FORMAT || status == PREFOPT_ERR_UNSUPPORTED);
            ck_assert_ptr_nonnull(strstr(prefopt_last_error(), "damaged.json: "));
            ck_assert_ptr_null(t);
            refused++;
            continue;
        }
        int32_t tokens[64];
        char back[256];
        int64_t n_tokens, n_back;
        read++;
        if (prefopt_tokenizer_encode(t, "abab 12<x> e\u0301\n\n", 15, tokens, 64, &n_tokens) ==
            PREFOPT_OK) {
            ck_assert_int_le(n_tokens, 64);
            OK(prefopt_tokenizer_decode(t, tokens, n_tokens, back, sizeof back, &n_back));
        }
        prefopt_tokenizer_destroy(t);
    }
    ck_assert_int_gt(read, 50);
    ck_assert_int_gt(refused, 1000);
    free(damaged);
    free(file);
    prefopt_context_destroy(context);
}
END_TEST

TEST_MAIN("tokenizer_file", test_faults_are_named, test_what_changes_no_token_is_read, test_files,
          test_memory_that_fails, test_random_damage)
