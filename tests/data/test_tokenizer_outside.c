/* The GPT-NeoX and GPT-2 tokenizers against the ids that Hugging Face's gives for 46 texts each,
 * where those files lie beside the sources (../shared/data/tokenizer). */
#include <jansson.h>

#include "pf_tokenizer_test.h"

#ifndef PF_TEXT_FOLDER
#error "PF_TEXT_FOLDER is where the files lie"
#endif

static void check_line(const prefopt_tokenizer *t, const json_t *line, int at)
{
    const json_t *text = json_object_get(line, "text"), *ids = json_object_get(line, "ids");
    const char *utf8 = json_string_value(text);
    int64_t n_bytes = (int64_t)json_string_length(text), n = (int64_t)json_array_size(ids);
    int32_t *tokens = malloc(sizeof *tokens * (size_t)(n_bytes + 1));
    char *back = malloc((size_t)n_bytes * 3 + 1);
    int64_t n_tokens, n_back;
    OK(prefopt_tokenizer_encode(t, utf8, n_bytes, tokens, n_bytes + 1, &n_tokens));
    ck_assert_msg(n_tokens == n, "line %d: %lld tokens, expected %lld", at, (long long)n_tokens,
                  (long long)n);
    for (int64_t i = 0; i < n; i++)
        ck_assert_int_eq(tokens[i], json_integer_value(json_array_get(ids, (size_t)i)));
    OK(prefopt_tokenizer_decode(t, tokens, n, back, n_bytes * 3, &n_back));
    pf_bytes normal = {0}, points = {0};
    bool same = true;
    if (t->nfc)
        OK(pf_nfc(t->context, utf8, n_bytes, &normal, &points, &same));
    ck_assert_int_eq(n_back, same ? n_bytes : normal.n);
    ck_assert_mem_eq(back, same ? utf8 : normal.data, (size_t)n_back);
    pf_free(t->context, normal.data);
    pf_free(t->context, points.data);
    free(tokens);
    free(back);
}

static void check_files(const char *tokenizer_file, const char *texts, int64_t size, int32_t eos)
{
    char path[1024], line[1 << 14];
    prefopt_context *context = test_context(1);
    prefopt_tokenizer *t = NULL;
    int n = 0;
    int32_t token;
    snprintf(path, sizeof path, "%s/%s", PF_TEXT_FOLDER, texts);
    FILE *file = fopen(path, "r");
    if (file == NULL) {
        fprintf(stderr, "skipped: there is no %s\n", path);
        prefopt_context_destroy(context);
        return;
    }
    snprintf(path, sizeof path, "%s/%s", PF_TEXT_FOLDER, tokenizer_file);
    OK(prefopt_tokenizer_load(&t, context, path));
    ck_assert_int_eq(prefopt_tokenizer_size(t), size);
    OK(prefopt_tokenizer_token(t, "<|endoftext|>", 13, &token));
    ck_assert_int_eq(token, eos);
    ck_assert_int_eq(prefopt_tokenizer_is_special(t, eos), 1);
    while (fgets(line, sizeof line, file) != NULL) {
        json_t *root = json_loads(line, JSON_ALLOW_NUL, NULL);
        ck_assert_ptr_nonnull(root);
        check_line(t, root, ++n);
        json_decref(root);
    }
    fclose(file);
    ck_assert_int_eq(n, 46);
    /* Each token gives its own bytes, and all of them end to end theirs. */
    int64_t total = 0, length;
    for (int32_t i = 0; i < size; i++) {
        char bytes[512];
        const char *text = prefopt_tokenizer_text(t, i, &length);
        ck_assert_ptr_nonnull(text);
        OK(prefopt_tokenizer_decode(t, &i, 1, bytes, sizeof bytes, &total));
        ck_assert_int_eq(total, length);
        ck_assert_mem_eq(bytes, text, (size_t)length);
    }
    prefopt_tokenizer_destroy(t);
    prefopt_context_destroy(context);
}

START_TEST(test_gpt_neox) { check_files("20B_tokenizer.json", "llamacpp_mpt.jsonl", 50277, 0); }
END_TEST

START_TEST(test_gpt2) { check_files("gpt2_tokenizer.json", "llamacpp_gpt2.jsonl", 50257, 50256); }
END_TEST

TEST_MAIN("tokenizer_outside", test_gpt_neox, test_gpt2)
