#define _GNU_SOURCE
#include "data/pf_text_test.h"

START_TEST(every_kind)
{
    set_up_text();
    options.eos = END;
    prefopt_dataset *data = parse_text(
        "\xef\xbb\xbf{\"prompt\":\"xab\",\"chosen\":\" ab\",\"rejected\":\"c<|end|>\",\"weight\":2,"
        "\"label\":0.75,\"margin\":-1,\"scores\":[1,null],\"id\":\"a\\u00e9\",\"n\":[1,{}]}\n"
        "\n \t\r\n"
        "{\"prompt\":\"\",\"completion\":\"\"}\r\n"
        "{\"completions\":[\"a\",\"\\u0000\",\"<|end|><|end|>\"],\"prompt\":\"e\xcc\x81\"}\n"
        "{\"ranking\":[\"a\",\"b\",\"c\"]}\n"
        "{\"prompt\":\"\\ud83d\\ude00 a\",\"weight\":0}");
    ck_assert_int_eq(prefopt_dataset_size(data), 5);
    prefopt_row row = row_of(data, 0);
    ck_assert(row.kind == PREFOPT_ROW_PAIR && row.weight == 2 && row.label == 0.75);
    ck_assert(row.margin == -1 && row.score[0] == 1 && isnan(row.score[1]) && row.logp == NULL);
    ck_assert_str_eq(row.extra, "{\"id\":\"a\xc3\xa9\",\"n\":[1,{}]}");
    PROMPT(row, 'x', 256);
    COMPLETION(row, 0, 260, END);
    COMPLETION(row, 1, 'c', END); /* once */
    row = row_of(data, 1);
    ck_assert(row.kind == PREFOPT_ROW_COMPLETIONS && row.prompt_len == 0 && row.extra == NULL);
    COMPLETION(row, 0, END);
    row = row_of(data, 2);
    PROMPT(row, 0xc3, 0xa9);
    ck_assert_int_eq(row.n_completions, 3);
    COMPLETION(row, 0, 'a', END);
    COMPLETION(row, 1, 0, END);
    COMPLETION(row, 2, END, END);
    row = row_of(data, 3);
    ck_assert(row.kind == PREFOPT_ROW_RANKING && row.n_completions == 3 && row.prompt_len == 0);
    COMPLETION(row, 2, 'c', END);
    row = row_of(data, 4);
    ck_assert(row.kind == PREFOPT_ROW_PROMPT && row.weight == 0);
    PROMPT(row, 0xf0, 0x9f, 0x98, 0x80, 259);
    ck_assert(counts.lines == 5 && counts.rows == 5 && counts.same == 0 && counts.too_long == 0);
    ck_assert(counts.implicit_prompts == 0 && counts.boundary_mismatches == 0);
    prefopt_dataset_destroy(data);

    options.eos = -1;
    data = parse_text("{\"prompt\":\"\",\"chosen\":\"\",\"rejected\":\"<|end|>\"}");
    row = row_of(data, 0);
    ck_assert_int_eq(row.completion_offsets[1], 0);
    COMPLETION(row, 1, END);
    prefopt_dataset_destroy(data);
    tear_down_text();
}
END_TEST

/* Shorter and longer than what is tried first. */
START_TEST(long_extra_fields)
{
    set_up_text();
    for (int n = 1000; n < 1040; n++) {
        char text[2048], expected[2048];
        snprintf(expected, sizeof expected, "{\"id\":\"%0*d\"}", n, 7);
        snprintf(text, sizeof text, "{\"prompt\":\"a\",\"id\":\"%0*d\"}", n, 7);
        prefopt_dataset *data = parse_text(text);
        ck_assert_str_eq(row_of(data, 0).extra, expected);
        prefopt_dataset_destroy(data);
    }
    tear_down_text();
}
END_TEST

START_TEST(prompts_that_are_found)
{
    set_up_text();
    options.eos = END;
    prefopt_dataset *data =
        parse_text("{\"chosen\":\"xab\",\"rejected\":\"xac\"}\n"   /* "ab" is one token */
                   "{\"chosen\":\"x a\",\"rejected\":\"x abc\"}\n" /* so is " ab" */
                   "{\"chosen\":\"c d\",\"rejected\":\"c d e\"}\n" /* one begins the other */
                   "{\"chosen\":\"a\\n\\nb\",\"rejected\":\"a\\n\\nc\"}\n"   /* see below */
                   "{\"chosen\":\"x\xc3\xa9\",\"rejected\":\"x\xc3\xa8\"}\n" /* half a character */
                   "{\"chosen\":\"b\",\"rejected\":\"c\"}\n"
                   "{\"chosen\":\"xe\xcc\x81y\",\"rejected\":\"xe\xcc\x81z\"}\n"
                   "{\"chosen\":\"\",\"rejected\":\"c\"}\n");
    prefopt_row row = row_of(data, 0);
    PROMPT(row, 'x');
    COMPLETION(row, 0, 256, END);
    COMPLETION(row, 1, 'a', 'c', END);
    row = row_of(data, 1);
    PROMPT(row, 'x');
    COMPLETION(row, 0, 259, END);
    COMPLETION(row, 1, 260, 'c', END);
    row = row_of(data, 2);
    PROMPT(row, 'c', ' ', 'd');
    COMPLETION(row, 0, END);
    COMPLETION(row, 1, ' ', 'e', END);
    /* Both line ends are tokens of the whole, but alone at the end they would be one. */
    row = row_of(data, 3);
    PROMPT(row, 'a', '\n');
    COMPLETION(row, 0, '\n', 'b', END);
    COMPLETION(row, 1, '\n', 'c', END);
    row = row_of(data, 4);
    PROMPT(row, 'x');
    COMPLETION(row, 0, 0xc3, 0xa9, END);
    row = row_of(data, 5);
    ck_assert_int_eq(row.prompt_len, 0);
    COMPLETION(row, 1, 'c', END);
    row = row_of(data, 6); /* of the normalised text */
    PROMPT(row, 'x', 0xc3, 0xa9);
    COMPLETION(row, 0, 'y', END);
    row = row_of(data, 7);
    ck_assert_int_eq(row.prompt_len, 0);
    COMPLETION(row, 0, END);
    ck_assert(counts.rows == 8 && counts.implicit_prompts == 8);
    ck_assert(counts.moved == 2 && counts.first_moved == 4);
    prefopt_dataset_destroy(data);
    tear_down_text();
}
END_TEST

START_TEST(boundaries)
{
    set_up_text();
    prefopt_dataset *data = parse_text(
        "{\"prompt\":\"x\",\"chosen\":\" ab\",\"rejected\":\" c\"}\n"
        "{\"prompt\":\"x \",\"chosen\":\"c\",\"rejected\":\"ab\"}\n" /* the space goes with "ab" */
        "{\"prompt\":\"x <|end|>\",\"completions\":[\" c\",\"d\"]}\n"
        "{\"prompt\":\"<|en\",\"completions\":[\"d\",\"d|>\"]}\n"
        "{\"prompt\":\"e\",\"completion\":\"\xcc\x81\"}\n"
        "{\"prompt\":\"a\\n\",\"completion\":\"\\n\"}\n"
        "{\"prompt\":\"a \",\"completion\":\" \"}\n"
        "{\"prompt\":\"a\",\"completion\":\"\"}\n");
    prefopt_row row = row_of(data, 1);
    PROMPT(row, 'x', ' ');
    COMPLETION(row, 1, 256);
    ck_assert_int_eq(counts.boundary_mismatches, 5);
    ck_assert_int_eq(counts.first_boundary_mismatch, 2);
    ck_assert(counts.implicit_prompts == 0 && counts.moved == 0 && counts.rows == 8);
    prefopt_dataset_destroy(data);
    tear_down_text();
}
END_TEST

static const char ten[] =
    "{\"prompt\":\"pqrstu\",\"chosen\":\"xyz\",\"rejected\":\"xyw\"}\n"    /* 6; 3, 3 */
    "{\"prompt\":\"pq\",\"chosen\":\"x\",\"rejected\":\"x\"}\n"            /* the same */
    "{\"prompt\":\"pq\",\"chosen\":\"v<|end|>\",\"rejected\":\"v\"}\n"     /* but for the end */
    "{\"prompt\":\"pqr\",\"completions\":[\"xyzxyz\",\"x\",\"xyzxyz\"]}\n" /* 3; 6, 1, 6 */
    "{\"prompt\":\"p\",\"ranking\":[\"xy\",\"xzw\",\"xzv\"]}\n"            /* 1; 2, 3, 3 */
    "{\"prompt\":\"pqrstuvw\"}\n"                                          /* 8 */
    "{\"prompt\":\"p\",\"ranking\":[\"x\",\"y\",\"x\"]}\n";                /* the same */

START_TEST(cut)
{
    set_up_text();
    options.eos = END;
    options.max_prompt = 4;
    options.max_completion = 3;
    prefopt_dataset *data = parse_text(ten);
    prefopt_row row = row_of(data, 0);
    ck_assert_int_eq(prefopt_dataset_size(data), 4);
    PROMPT(row, 'r', 's', 't', 'u');
    COMPLETION(row, 0, 'x', 'y', 'z');
    COMPLETION(row, 1, 'x', 'y', 'w');
    row = row_of(data, 1);
    PROMPT(row, 'p', 'q', 'r');
    COMPLETION(row, 0, 'x', 'y', 'z');
    COMPLETION(row, 1, 'x', END);
    row = row_of(data, 2);
    COMPLETION(row, 0, 'x', 'y', END);
    COMPLETION(row, 2, 'x', 'z', 'v');
    row = row_of(data, 3);
    PROMPT(row, 't', 'u', 'v', 'w');
    ck_assert(counts.lines == 7 && counts.rows == 4 && counts.same == 3 && counts.first_same == 2);
    ck_assert(counts.prompts_cut == 2 && counts.prompt_tokens_cut == 6);
    ck_assert(counts.completions_cut == 6 && counts.completion_tokens_cut == 2 + 4 + 4 + 2);
    ck_assert(counts.no_longer_differ == 0 && counts.too_long == 0);
    prefopt_dataset_destroy(data);

    options.prompt_keep = PREFOPT_KEEP_START;
    options.max_completion = 2;
    data = parse_text(ten);
    row = row_of(data, 0);
    PROMPT(row, 'p', 'q', 'r');
    row = row_of(data, 1);
    PROMPT(row, 'p', 'q', 'r', 's');
    ck_assert(counts.rows == 2 && counts.same == 3);
    ck_assert(counts.no_longer_differ == 2 && counts.first_no_longer_differ == 1);
    prefopt_dataset_destroy(data);

    /* Both together: what the prompt leaves. */
    options.max_completion = 0;
    options.max_prompt = 0;
    options.prompt_keep = PREFOPT_KEEP_END;
    options.max_tokens = 8;
    data = parse_text(ten);
    row = row_of(data, 0);
    PROMPT(row, 'p', 'q', 'r');
    COMPLETION(row, 0, 'x', 'y', 'z', 'x', 'y');
    ck_assert(counts.rows == 2 && counts.no_longer_differ == 1 && counts.too_long == 1);
    ck_assert(counts.first_too_long == 6 && counts.completions_cut == 2);
    ck_assert(counts.completion_tokens_cut == 4 && counts.prompts_cut == 0);
    prefopt_dataset_destroy(data);
    options.max_tokens = 9;
    data = parse_text(ten);
    ck_assert(counts.rows == 4 && counts.too_long == 0 && counts.no_longer_differ == 0);
    prefopt_dataset_destroy(data);
    tear_down_text();
}
END_TEST

START_TEST(skip_or_fail)
{
    set_up_text();
    prefopt_dataset *data;
    options.max_prompt = 6;
    options.too_long = PREFOPT_LONG_SKIP;
    data = parse_text(ten);
    ck_assert(counts.rows == 4 && counts.too_long == 1 && counts.first_too_long == 6);
    ck_assert(counts.same == 2 && counts.prompts_cut == 0);
    prefopt_dataset_destroy(data);
    options.max_completion = 3;
    data = parse_text(ten);
    ck_assert(counts.too_long == 2 && counts.first_too_long == 4);
    prefopt_dataset_destroy(data);
    options.eos = END;
    data = parse_text(ten);
    ck_assert(counts.too_long == 4 && counts.first_too_long == 1 && counts.rows == 0);
    ck_assert_int_eq(prefopt_dataset_size(data), 0);
    prefopt_dataset_destroy(data);
    options.eos = -1;
    options.max_completion = 0;
    options.max_tokens = 8;
    data = parse_text(ten);
    ck_assert(counts.too_long == 3 && counts.first_too_long == 1);
    prefopt_dataset_destroy(data);
    data = NULL;
    options.too_long = PREFOPT_LONG_FAIL;
    FAILS(PREFOPT_ERR_FORMAT,
          "memory:1: prompt and completion has 9 tokens, expected at most max_tokens, 8",
          try_text(&data, ten));
    options.max_tokens = 0;
    FAILS(PREFOPT_ERR_FORMAT, "memory:6: the prompt has 8 tokens, expected at most max_prompt, 6",
          try_text(&data, ten));
    options.max_completion = 3;
    FAILS(PREFOPT_ERR_FORMAT, "memory:4: a completion has 6 tokens", try_text(&data, ten));
    options.max_prompt = options.max_completion = 0;
    options.max_tokens = 10;
    options.max_rows = 2;
    data = parse_text(ten);
    options.max_rows = 0;
    prefopt_dataset_destroy(data);
    data = NULL;
    options.max_tokens = 8;
    FAILS(PREFOPT_ERR_FORMAT, "memory:2: the prompt alone has 8 tokens",
          try_text(&data, "\n{\"prompt\":\"pqrstuvw\"}\n"));
    ck_assert_ptr_null(data);
    tear_down_text();
}
END_TEST

START_TEST(some_rows)
{
    set_up_text();
    const char *text = "{\"prompt\":\"a\",\"chosen\":\"x\",\"rejected\":\"x\"}\n"
                       "{\"prompt\":\"a\"}\n{\"prompt\":\"b\"}\n{\"prompt\":7}\n";
    prefopt_dataset *data = NULL;
    options.max_rows = 2;
    data = parse_text(text);
    ck_assert_int_eq(prefopt_dataset_size(data), 2);
    ck_assert(counts.lines == 3 && counts.rows == 2 && counts.same == 1);
    prefopt_dataset_destroy(data);
    data = NULL;
    prefopt_text_counts before = counts;
    options.max_rows = 3;
    FAILS(PREFOPT_ERR_FORMAT, "memory:4: field \"prompt\": found 7, expected text",
          try_text(&data, text));
    ck_assert_mem_eq(&before, &counts, sizeof counts);
    ck_assert_ptr_null(data);
    data = parse_text("");
    ck_assert(prefopt_dataset_size(data) == 0 && counts.lines == 0);
    prefopt_dataset_destroy(data);
    tear_down_text();
}
END_TEST

START_TEST(bad_lines)
{
    static const char *const cases[][2] = {
        {"x", "memory:2: '[' or '{' expected near 'x'"},
        {"[]", "found an array of 0, expected a JSON object"},
        {"\"text\"", "expected one JSON object"},
        {"{\"prompt\":\"a\"", "memory:2:"},
        {"{\"prompt\":\"a\"} {}", "end of file expected"},
        {"{}", "found no text, expected one of the fields prompt"},
        {"{\"text\":\"a\"}", "found no text"},
        {"{\"prompt\":\"a\",\"prompt\":\"a\"}", "duplicate object key"},
        {"{\"prompt\":\"a\",\"pr\\u006fmpt\":\"a\"}", "duplicate object key"},
        {"{\"id\":1,\"id\":1,\"prompt\":\"a\"}", "duplicate object key"},
        {"{\"prompt\":null}", "field \"prompt\": found null, expected text"},
        {"{\"prompt\":7}", "field \"prompt\": found 7, expected text"},
        {"{\"prompt\":[7]}", "a file of tokens is for prefopt_dataset_read_jsonl"},
        {"{\"prompt\":[{\"role\":\"user\",\"content\":\"a\"}],\"completion\":\"a\"}",
         "field \"prompt\": found an array of 1, expected text; chat messages"},
        {"{\"prompt\":\"a\",\"chosen\":\"a\"}", "field \"rejected\": found nothing"},
        {"{\"prompt\":\"a\",\"rejected\":\"a\"}", "field \"chosen\": found nothing"},
        {"{\"chosen\":[{\"role\":\"user\",\"content\":\"a\"}],\"rejected\":[]}",
         "field \"chosen\": found an array of 1, expected text; chat messages"},
        {"{\"prompt\":\"a\",\"chosen\":\"a\",\"rejected\":\"b\",\"completion\":\"c\"}",
         "field \"chosen\": found beside \"completion\""},
        {"{\"completions\":[]}", "expected an array of one or more texts"},
        {"{\"completions\":\"a\"}", "found the string \"a\", expected an array of one or more"},
        {"{\"completions\":[\"a\",2]}", "field \"completions\": found 2 at [1], expected text"},
        {"{\"ranking\":[\"a\"]}", "two or more texts, best first"},
        {"{\"prompt\":\"a\",\"label\":1}", "it belongs to a line with chosen and rejected"},
        {"{\"prompt\":\"a\",\"weight\":-1}", "field \"weight\": found -1"},
        {"{\"chosen\":\"a\",\"rejected\":\"a\",\"label\":2}", "field \"label\": found 2"},
        {"{\"chosen\":\"a\",\"rejected\":\"b\",\"scores\":[1]}", "field \"scores\""},
        {"{\"chosen\":\"a\",\"rejected\":\"b\",\"logps\":[-1,-2]}",
         "log-probabilities are of tokens"},
        {"{\"prompt\":\"a\xff\"}", "memory:2: unable to decode byte 0xff"},
        {"{\"prompt\":\"\xed\xa0\x80\"}", "unable to decode"},
        {"{\"prompt\":\"\xc0\xaf\"}", "unable to decode"},
        {"{\"prompt\":\"\xe2\x82\"}", "unable to decode"},
        {"{\"prompt\":\"\\ud800\"}", "memory:2: invalid Unicode"},
        {"{\"prompt\":\"\\ude00\\ud83d\"}", "memory:2: invalid Unicode"},
        {"{\"prompt\":\"\\ud83dx\"}", "memory:2: invalid Unicode"},
        {"{\"prompt\":\"\\u12g4\"}", "memory:2: invalid escape"},
        {"{\"prompt\":\"\\x\"}", "memory:2: invalid escape"},
        {"{\"prompt\":\"a\tb\"}", "memory:2: control character 0x9"},
        {"{\"prompt\":\"a", "memory:2: premature end of input"},
        {"{\"prompt\":\"a\\", "memory:2:"},
        {"{\"prompt\"\"a\"}", "memory:2:"},
        {"{\"prompt\":\"a\",}", "memory:2:"},
        {"{\"prompt\":\"a\" \"chosen\":\"b\"}", "memory:2:"},
        {"{\"x\":[\"a\"},\"prompt\":\"a\"}", "memory:2:"},
        {"{\"x\":tru,\"prompt\":\"a\"}", "memory:2: invalid token"},
        {"{\"x\":12345678901234567890,\"prompt\":\"a\"}", "memory:2: too big integer"},
        {"{\"x\":\"\xff\",\"prompt\":\"a\"}", "memory:2: unable to decode byte 0xff"}};
    set_up_text();
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char text[512];
        prefopt_dataset *data = NULL;
        snprintf(text, sizeof text, "{\"prompt\":\"a\"}\n%s\n{\"prompt\":\"a\"}", cases[i][0]);
        FAILS(PREFOPT_ERR_FORMAT, cases[i][1], try_text(&data, text));
        ck_assert_msg(strncmp(prefopt_last_error(), "memory:2: ", 10) == 0, "%s: %s", cases[i][0],
                      prefopt_last_error());
        ck_assert_ptr_null(data);
    }
    prefopt_dataset *data = NULL;
    static const char zero[] = "{\"prompt\":\"a\0\"}";
    FAILS(PREFOPT_ERR_FORMAT, "memory:1: found a zero byte at column 13",
          pf_text_parse(&data, context, tokenizer, "memory", zero, sizeof zero - 1, NULL, NULL));
    /* A vocabulary without a token for a byte. */
    file_parts poor = {.pre_tokenizer = NULL};
    char *file = make_file(&poor);
    memcpy(strstr(file, "\"\\u0078\":120"), "\"\\u0178\":120", 12);
    prefopt_tokenizer *without_x = NULL;
    OK(pf_tokenizer_parse(&without_x, context, "poor", file, (int64_t)strlen(file)));
    FAILS(
        PREFOPT_ERR_FORMAT,
        "memory:1: field \"prompt\": the vocabulary has no token for the byte 0x78",
        pf_text_parse(&data, context, without_x, "memory", "{\"prompt\":\"ax\"}", 15, NULL, NULL));
    free(file);
    prefopt_tokenizer_destroy(without_x);
    ck_assert_ptr_null(data);
    tear_down_text();
}
END_TEST

START_TEST(bad_options)
{
    set_up_text();
    prefopt_dataset *data = NULL;
    const char *line = "{\"prompt\":\"a\"}";
#define BAD(text, field, value)                                                                    \
    do {                                                                                           \
        prefopt_text_options before_ = options;                                                    \
        options.field = (value);                                                                   \
        FAILS(PREFOPT_ERR_ARGUMENT, text, try_text(&data, line));                                  \
        options = before_;                                                                         \
    } while (0)
    BAD("eos is -2", eos, -2);
    BAD("eos is 263, expected -1 (none) or a token of the tokenizer, 0 to 262", eos, 263);
    BAD("max_prompt is -1", max_prompt, -1);
    BAD("max_completion is -1", max_completion, -1);
    BAD("max_tokens is -1", max_tokens, -1);
    BAD("max_rows is -1", max_rows, -1);
    BAD("too_long is 3", too_long, 3);
    BAD("too_long is -1", too_long, -1);
    BAD("prompt_keep is 2", prompt_keep, 2);
    BAD("too_long is 1 but there is no limit", too_long, PREFOPT_LONG_SKIP);
    BAD("prompt_keep is 1, which is for max_prompt", prompt_keep, PREFOPT_KEEP_START);
    options.max_prompt = 1;
    options.too_long = PREFOPT_LONG_SKIP;
    BAD("prompt_keep is 1, which is for max_prompt", prompt_keep, PREFOPT_KEEP_START);
    options.struct_size = 8;
    FAILS(PREFOPT_ERR_VERSION, "prefopt_text_options", try_text(&data, line));
    options.struct_size = sizeof options;
    counts.struct_size = 8;
    FAILS(PREFOPT_ERR_VERSION, "prefopt_text_counts", try_text(&data, line));
    FAILS(PREFOPT_ERR_ARGUMENT, "NULL", prefopt_text_options_init(NULL, sizeof options));
    FAILS(PREFOPT_ERR_VERSION, "struct_size", prefopt_text_options_init(&options, 4));
    FAILS(PREFOPT_ERR_ARGUMENT, "out is NULL",
          prefopt_text_read(NULL, context, tokenizer, target, NULL, NULL));
    FAILS(PREFOPT_ERR_ARGUMENT, "context is NULL",
          prefopt_text_read(&data, NULL, tokenizer, target, NULL, NULL));
    FAILS(PREFOPT_ERR_ARGUMENT, "tokenizer is NULL",
          prefopt_text_read(&data, context, NULL, target, NULL, NULL));
    FAILS(PREFOPT_ERR_ARGUMENT, "path is NULL",
          prefopt_text_read(&data, context, tokenizer, NULL, NULL, NULL));
    FAILS(PREFOPT_ERR_IO, "No such file",
          prefopt_text_read(&data, context, tokenizer, target, NULL, NULL));
    FAILS(PREFOPT_ERR_IO, "Is a directory",
          prefopt_text_read(&data, context, tokenizer, folder, NULL, NULL));
    ck_assert_ptr_null(data);
    tear_down_text();
}
END_TEST

TEST_MAIN("text", every_kind, long_extra_fields, prompts_that_are_found, boundaries, cut,
          skip_or_fail, some_rows, bad_lines, bad_options)
