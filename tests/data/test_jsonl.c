#define _GNU_SOURCE
#include <locale.h>

#include "data/pf_jsonl_test.h"

#if PF_HAVE_JSON

START_TEST(reads_every_kind)
{
    set_up();
    const char *text =
        "{\"prompt\":[7]}\n"
        "{\"prompt\":[7],\"completion\":[1,2]}\n"
        "\n \t\r\n"
        "{\"completions\":[[1,2],[],[3]],\"scores\":[1,null,2.5],\"weight\":3}\r\n"
        "{\"prompt\":[7],\"chosen\":[1,2],\"rejected\":[3],\"weight\":0.5,\"label\":0.25,"
        "\"margin\":-1,\"logps\":[-1,\"-Infinity\"],\"id\":\"a\\u00e9\",\"meta\":{\"prompt\":1}}\n"
        "{\"rejected\":[2147483647],\"chosen\":[],\"ref_logps\":[null,null]}\n"
        "{\"completion\":[1],\"ref_key\":\"00f23456789abcde\",\"ref_logps\":[-2]}\n"
        "{\"prompt\":[7],\"ranking\":[[1],[2],[3]],\"sampler_logps\":[0,-0.0,-5e-324]}";
    prefopt_dataset *data = parse(text);
    ck_assert_int_eq(prefopt_dataset_size(data), 7);
    prefopt_row row = row_of(data, 0);
    ck_assert(row.kind == PREFOPT_ROW_PROMPT && row.prompt_len == 1 && row.prompt[0] == 7);
    row = row_of(data, 1);
    ck_assert(row.kind == PREFOPT_ROW_COMPLETIONS && row.n_completions == 1);
    ck_assert(row.completions[0] == 1 && row.completions[1] == 2 && row.logp == NULL);
    row = row_of(data, 2);
    ck_assert(row.kind == PREFOPT_ROW_COMPLETIONS && row.n_completions == 3 && row.weight == 3);
    ck_assert(row.prompt_len == 0 && row.completion_offsets[2] == 2 && row.completions[2] == 3);
    ck_assert(row.score[0] == 1 && isnan(row.score[1]) && row.score[2] == 2.5);
    row = row_of(data, 3);
    ck_assert(row.kind == PREFOPT_ROW_PAIR && row.weight == 0.5 && row.label == 0.25);
    ck_assert(row.margin == -1 && row.logp[0] == -1 && row.logp[1] == -INFINITY);
    ck_assert_str_eq(row.extra, "{\"id\":\"a\xc3\xa9\",\"meta\":{\"prompt\":1}}");
    row = row_of(data, 4);
    ck_assert(row.kind == PREFOPT_ROW_PAIR && row.completion_offsets[1] == 0);
    ck_assert(row.completions[0] == INT32_MAX && row.ref_logp == NULL && row.label == 1);
    row = row_of(data, 5);
    ck_assert(row.ref_key == UINT64_C(0x00f23456789abcde) && row.ref_logp[0] == -2);
    row = row_of(data, 6);
    ck_assert(row.ref_key == 0 && row.kind == PREFOPT_ROW_RANKING && row.n_completions == 3);
    ck_assert(signbit(row.sampler_logp[1]) && row.sampler_logp[2] == -5e-324);

    OK(prefopt_dataset_write_jsonl(data, target));
    size_t n;
    char *written = read_text(target, &n);
    ck_assert_str_eq(
        written,
        "{\"prompt\":[7]}\n"
        "{\"prompt\":[7],\"completion\":[1,2]}\n"
        "{\"prompt\":[],\"completions\":[[1,2],[],[3]],\"weight\":3,\"scores\":[1,null,2.5]}\n"
        "{\"prompt\":[7],\"chosen\":[1,2],\"rejected\":[3],\"weight\":0.5,\"label\":0.25,"
        "\"margin\":-1,\"logps\":[-1,\"-Infinity\"],\"id\":\"a\xc3\xa9\",\"meta\":{\"prompt\":1}}\n"
        "{\"prompt\":[],\"chosen\":[],\"rejected\":[2147483647]}\n"
        "{\"prompt\":[],\"completion\":[1],\"ref_logps\":[-2],"
        "\"ref_key\":\"00f23456789abcde\"}\n"
        "{\"prompt\":[7],\"ranking\":[[1],[2],[3]],"
        "\"sampler_logps\":[0,-0.0,-4.9406564584124654e-324]}\n");
    free(written);
    prefopt_dataset *again = NULL;
    OK(prefopt_dataset_read_jsonl(&again, context, target));
    check_same(data, again);
    prefopt_dataset_destroy(again);
    prefopt_dataset_destroy(data);
    tear_down();
}
END_TEST

START_TEST(line_ends_and_marks)
{
    set_up();
    static const struct {
        const char *text;
        int64_t rows;
    } texts[] = {{"", 0},
                 {"\n\n", 0},
                 {"\xef\xbb\xbf", 0},
                 {"\xef\xbb\xbf{\"prompt\":[1]}", 1},
                 {"\xef\xbb\xbf\r\n{\"prompt\":[1]}\r\n{}\r\n\r\n", 2},
                 {"{\"prompt\":[1]}\n{\"prompt\":[2]}", 2},
                 {" { \"prompt\" : [ 1 ] } \n", 1}};
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        prefopt_dataset *data = parse(texts[i].text), *file = NULL;
        ck_assert_int_eq(prefopt_dataset_size(data), texts[i].rows);
        write_bytes(target, texts[i].text, strlen(texts[i].text));
        OK(prefopt_dataset_read_jsonl(&file, context, target));
        check_same(data, file);
        prefopt_dataset_destroy(file);
        prefopt_dataset_destroy(data);
    }
    tear_down();
}
END_TEST

/* The second of two lines is bad; expected is the error text after its place. */
static const struct {
    const char *line, *expected;
} bad_lines[] = {
    {"{", "expected one JSON object"},
    {"{}{}", "expected one JSON object"},
    {"null", "expected one JSON object"},
    {"nonsense", "expected one JSON object"},
    {"{\"prompt\":[1],\"prompt\":[1]}", "duplicate"},
    {"{\"prompt\":[1e999]}", "expected one JSON object"},
    {"{\"id\":\"\xff\"}", "expected one JSON object"},
    {"[1]", "found an array of 1, expected a JSON object"},
    {"{\"prompt\":\"Why?\"}",
     "field \"prompt\": found the string \"Why?\", expected an array of tokens; text has to go "
     "through a tokenizer first"},
    {"{\"prompt\":null}", "field \"prompt\": found null, expected an array of tokens"},
    {"{\"prompt\":[1,-2]}", "field \"prompt\": found -2 at [1], expected a token, an integer from "
                            "0 to 2147483647"},
    {"{\"prompt\":[2147483648]}", "field \"prompt\": found 2147483648 at [0], expected a token"},
    {"{\"prompt\":[1.5]}", "field \"prompt\": found 1.5 at [0], expected a token"},
    {"{\"prompt\":[true]}", "field \"prompt\": found true at [0]"},
    {"{\"completion\":7}", "field \"completion\": found 7, expected an array of tokens"},
    {"{\"completions\":[]}", "field \"completions\": found an array of 0, expected an array of one"
                             " or more arrays of tokens"},
    {"{\"completions\":[[1],2]}", "field \"completions\": found 2 at [1], expected an array"},
    {"{\"completions\":[[1],[2,{}]]}", "field \"completions\": found an object at [1][1]"},
    {"{\"ranking\":[[1]]}", "field \"ranking\": found an array of 1, expected an array of two or"},
    {"{\"chosen\":[1]}", "field \"rejected\": found nothing, expected an array of tokens"},
    {"{\"rejected\":[1]}", "field \"chosen\": found nothing, expected an array of tokens"},
    {"{\"chosen\":[1],\"rejected\":\"no\"}", "field \"rejected\": found the string \"no\""},
    {"{\"chosen\":[1],\"rejected\":[2],\"ranking\":[[1],[2]]}",
     "field \"ranking\": found beside \"rejected\", expected one of"},
    {"{\"completion\":[1],\"completions\":[[1]]}", "field \"completions\": found beside"},
    {"{\"weight\":-1}", "field \"weight\": found -1, expected a number, at least 0"},
    {"{\"weight\":\"2\"}", "field \"weight\": found the string \"2\", expected a number"},
    {"{\"weight\":null}", "field \"weight\": found null"},
    {"{\"chosen\":[1],\"rejected\":[2],\"label\":1.25}",
     "field \"label\": found 1.25, expected a number from 0 to 1"},
    {"{\"chosen\":[1],\"rejected\":[2],\"margin\":\"-Infinity\"}",
     "field \"margin\": found the string \"-Infinity\", expected a number"},
    {"{\"prompt\":[1],\"label\":1}", "field \"label\": found 1, expected none"},
    {"{\"completion\":[1],\"margin\":0}", "field \"margin\": found 0, expected none"},
    {"{\"completion\":[1],\"logps\":[-1,-2]}",
     "field \"logps\": found an array of 2, expected an array of 1, one number or null a"},
    {"{\"completion\":[1],\"logps\":-1}", "field \"logps\": found -1, expected an array of 1"},
    {"{\"prompt\":[1],\"ref_logps\":[-1]}", "field \"ref_logps\": found an array of 1"},
    {"{\"completion\":[1],\"ref_logps\":[-1],\"ref_key\":12}",
     "field \"ref_key\": found 12, expected text of 16 hexadecimal"},
    {"{\"completion\":[1],\"ref_logps\":[-1],\"ref_key\":null}",
     "field \"ref_key\": found null, expected text of 16 hexadecimal"},
    {"{\"completion\":[1],\"ref_logps\":[-1],\"ref_key\":\"\"}",
     "field \"ref_key\": found the string \"\", expected text of 16 hexadecimal"},
    {"{\"completion\":[1],\"ref_logps\":[-1],\"ref_key\":\"0123456789ABCDEF\"}",
     "field \"ref_key\": found the string \"0123456789ABCDEF\", expected text of 16 hexadecimal"},
    {"{\"completion\":[1],\"ref_logps\":[-1],\"ref_key\":\"0123456789abcde\"}",
     "field \"ref_key\": found the string"},
    {"{\"completion\":[1],\"ref_logps\":[-1],\"ref_key\":\"0123456789abcdef0\"}",
     "field \"ref_key\": found the string"},
    {"{\"completion\":[1],\"ref_logps\":[-1],\"ref_key\":\"0123456789abcde\\u0000\"}",
     "field \"ref_key\": found the string"},
    {"{\"completion\":[1],\"ref_logps\":[-1],\"ref_key\":\"0000000000000000\"}",
     "field \"ref_key\": found the string"},
    {"{\"completion\":[1],\"ref_key\":\"0123456789abcdef\"}",
     "field \"ref_key\": found the string \"0123456789abcdef\", expected none: it belongs to a"},
    {"{\"completions\":[[1],[2]],\"ref_logps\":[-1,null],\"ref_key\":\"0123456789abcdef\"}",
     "expected none: it belongs to a line with a number in ref_logps for each"},
    {"{\"prompt\":[1],\"ref_key\":\"0123456789abcdef\"}", "expected none: it belongs to a line"},
    {"{\"completion\":[1],\"sampler_logps\":[\"Infinity\"]}",
     "field \"sampler_logps\": found the string \"Infinity\" at [0], expected a number, null or"},
    {"{\"completion\":[1],\"scores\":[\"-Infinity\"]}",
     "field \"scores\": found the string \"-Infinity\" at [0], expected a number or null"},
    {"{\"completion\":[1],\"scores\":[\"\\u0001\\n long text that is cut off after forty bytes\"]}",
     "found the string \"?? long text that is cut off after forty...\" at [0]"},
};

START_TEST(bad_lines_say_where_and_what)
{
    set_up();
    for (size_t i = 0; i < sizeof bad_lines / sizeof bad_lines[0]; i++) {
        char text[512], expected[512];
        prefopt_dataset *data = (prefopt_dataset *)text;
        int n = snprintf(text, sizeof text, "{\"prompt\":[1]}\n%s\n{}\n", bad_lines[i].line);
        FAILS(PREFOPT_ERR_FORMAT, bad_lines[i].expected,
              pf_jsonl_parse(context, "memory", text, n, &data));
        ck_assert_msg(strncmp(prefopt_last_error(), "memory:2: ", 10) == 0, "%s",
                      prefopt_last_error());
        ck_assert_ptr_eq(data, (prefopt_dataset *)text);
        write_bytes(target, text, (size_t)n);
        snprintf(expected, sizeof expected, "%s:2: ", target);
        FAILS(PREFOPT_ERR_FORMAT, expected, prefopt_dataset_read_jsonl(&data, context, target));
        ck_assert_ptr_eq(data, (prefopt_dataset *)text);
    }
    prefopt_dataset *data = NULL;
    static const char zero[] = "{}\n\n{\"a\":\0 1}";
    FAILS(PREFOPT_ERR_FORMAT, "memory:3: found a zero byte at column 6",
          pf_jsonl_parse(context, "memory", zero, sizeof zero - 1, &data));
    /* Nested deeper than any reader should follow. */
    static char deep[20001];
    memset(deep, '[', sizeof deep - 1);
    memcpy(deep, "{\"a\":", 5);
    FAILS(PREFOPT_ERR_FORMAT,
          "memory:1: ", pf_jsonl_parse(context, "memory", deep, sizeof deep - 1, &data));
    tear_down();
}
END_TEST

START_TEST(another_locale)
{
    set_up();
    /* Where decimals have a comma; the test says nothing on a system without such a locale. */
    if (setlocale(LC_ALL, "de_DE.UTF-8") != NULL || setlocale(LC_ALL, "de_DE") != NULL)
        ck_assert_int_eq(localeconv()->decimal_point[0], ',');
    prefopt_dataset *data = parse("{\"completion\":[1],\"scores\":[0.5],\"a\":1.5}\n");
    ck_assert(row_of(data, 0).score[0] == 0.5);
    OK(prefopt_dataset_write_jsonl(data, target));
    size_t n;
    char *text = read_text(target, &n);
    ck_assert_str_eq(text, "{\"prompt\":[],\"completion\":[1],\"scores\":[0.5],\"a\":1.5}\n");
    free(text);
    prefopt_dataset_destroy(data);
    setlocale(LC_ALL, "C");
    tear_down();
}
END_TEST

TEST_MAIN("jsonl", reads_every_kind, line_ends_and_marks, bad_lines_say_where_and_what,
          another_locale)

#else

START_TEST(built_without_json)
{
    set_up();
    prefopt_dataset *data = NULL;
    FAILS(PREFOPT_ERR_UNSUPPORTED, "without JSON",
          prefopt_dataset_read_jsonl(&data, context, target));
    OK(prefopt_dataset_create(&data, context));
    FAILS(PREFOPT_ERR_UNSUPPORTED, "without JSON", prefopt_dataset_write_jsonl(data, target));
    prefopt_dataset_destroy(data);
    tear_down();
}
END_TEST

TEST_MAIN("jsonl", built_without_json)

#endif
