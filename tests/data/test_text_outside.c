/* Real pairs through the GPT-NeoX tokenizer, where these files lie beside the sources
 * (../shared/data). */
#define _GNU_SOURCE
#include "pf_config.h"
#include "pf_test.h"

static int exists(const char *path)
{
    FILE *file = fopen(path, "r");
    if (file == NULL) {
        fprintf(stderr, "skipped: there is no %s\n", path);
        return 0;
    }
    fclose(file);
    return 1;
}

static void check_pairs(const char *name, int64_t n_rows, int64_t extras)
{
    char path[1024], pairs[1024];
    snprintf(path, sizeof path, "%s/20B_tokenizer.json", PF_TEXT_FOLDER);
    snprintf(pairs, sizeof pairs, "%s/../pairs/%s", PF_TEXT_FOLDER, name);
    if (!PF_HAVE_GZIP || !exists(path) || !exists(pairs))
        return;
    prefopt_context *context = test_context(2);
    prefopt_tokenizer *tokenizer = NULL;
    prefopt_dataset *data = NULL;
    prefopt_text_options options;
    prefopt_text_counts counts = {.struct_size = sizeof counts};
    prefopt_row row = {.struct_size = sizeof row};
    int64_t with_extra = 0;
    OK(prefopt_tokenizer_load(&tokenizer, context, path));
    OK(prefopt_text_options_init(&options, sizeof options));
    OK(prefopt_tokenizer_token(tokenizer, "<|endoftext|>", 13, &options.eos));
    OK(prefopt_text_read(&data, context, tokenizer, pairs, &options, &counts));
    ck_assert_int_eq(counts.lines, n_rows);
    ck_assert_int_eq(counts.rows, n_rows);
    ck_assert_int_eq(prefopt_dataset_size(data), n_rows);
    ck_assert_int_eq(counts.same + counts.too_long + counts.no_longer_differ, 0);
    /* Prompts end in "Assistant:" and "Argument:", completions start with a space. */
    ck_assert_int_eq(counts.boundary_mismatches, 0);
    for (int64_t i = 0; i < n_rows; i++) {
        OK(prefopt_dataset_row(data, i, &row));
        ck_assert_int_eq(row.kind, PREFOPT_ROW_PAIR);
        ck_assert_int_gt(row.prompt_len, 2);
        for (int c = 0; c < 2; c++) {
            int64_t begin = row.completion_offsets[c], end = row.completion_offsets[c + 1];
            ck_assert_int_ge(end - begin, 2);
            ck_assert_int_eq(row.completions[end - 1], options.eos);
            ck_assert_int_ne(row.completions[end - 2], options.eos);
        }
        with_extra += row.extra != NULL;
    }
    ck_assert_int_eq(with_extra, extras);
    prefopt_dataset_destroy(data);

    /* With little room some pairs no longer differ. */
    options.max_prompt = 16;
    options.max_completion = 4;
    OK(prefopt_text_read(&data, context, tokenizer, pairs, &options, &counts));
    ck_assert_int_eq(counts.rows + counts.no_longer_differ, n_rows);
    ck_assert_int_gt(counts.no_longer_differ, 0);
    for (int64_t i = 0; i < counts.rows; i++) {
        OK(prefopt_dataset_row(data, i, &row));
        ck_assert(row.prompt_len <= 16 && row.completion_offsets[1] <= 4);
        ck_assert_int_le(row.completion_offsets[2] - row.completion_offsets[1], 4);
    }
    prefopt_dataset_destroy(data);
    prefopt_tokenizer_destroy(tokenizer);
    prefopt_context_destroy(context);
}

START_TEST(helpful) { check_pairs("hh_helpful.jsonl.gz", 1348, 0); }
END_TEST

START_TEST(arguments) { check_pairs("ukp_convarg.jsonl.gz", 5125, 5125); }
END_TEST

TEST_MAIN("text_outside", helpful, arguments)
