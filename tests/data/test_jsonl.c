#define _GNU_SOURCE
#include <locale.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/pf_base.h"
#include "data/pf_jsonl.h"
#include "pf_test.h"

static prefopt_context *context;
static char folder[64], target[128];

static void set_up(void)
{
    context = test_context(1);
    strcpy(folder, "prefopt-test-XXXXXX");
    ck_assert_ptr_nonnull(mkdtemp(folder));
    snprintf(target, sizeof target, "%s/rows.jsonl", folder);
}

static void tear_down(void)
{
    unlink(target);
    ck_assert_int_eq(rmdir(folder), 0); /* nothing else was left */
    prefopt_context_destroy(context);
}

#if PF_HAVE_JSON

static void write_bytes(const char *path, const char *bytes, size_t n)
{
    FILE *file = fopen(path, "wb");
    ck_assert_ptr_nonnull(file);
    ck_assert_uint_eq(fwrite(bytes, 1, n, file), n);
    ck_assert_int_eq(fclose(file), 0);
}

/* The file's text; free it. */
static char *read_text(const char *path, size_t *n)
{
    FILE *file = fopen(path, "rb");
    ck_assert_ptr_nonnull(file);
    fseek(file, 0, SEEK_END);
    *n = (size_t)ftell(file);
    rewind(file);
    char *text = calloc(*n + 1, 1);
    ck_assert_uint_eq(fread(text, 1, *n, file), *n);
    fclose(file);
    return text;
}

static prefopt_dataset *parse(const char *text)
{
    prefopt_dataset *data = NULL;
    OK(pf_jsonl_parse(context, "memory", text, (int64_t)strlen(text), &data));
    return data;
}

static prefopt_row row_of(const prefopt_dataset *data, int64_t i)
{
    prefopt_row row = {.struct_size = sizeof row};
    OK(prefopt_dataset_row(data, i, &row));
    return row;
}

static void same_bits(const double *a, const double *b, int64_t n)
{
    ck_assert_int_eq(a == NULL, b == NULL);
    for (int64_t i = 0; a != NULL && i < n; i++)
        ck_assert((isnan(a[i]) && isnan(b[i])) || memcmp(a + i, b + i, sizeof *a) == 0);
}

static void check_same(const prefopt_dataset *one, const prefopt_dataset *other)
{
    ck_assert_int_eq(prefopt_dataset_size(one), prefopt_dataset_size(other));
    ck_assert_uint_eq(prefopt_dataset_hash(one), prefopt_dataset_hash(other));
    for (int64_t i = 0; i < prefopt_dataset_size(one); i++) {
        prefopt_row a = row_of(one, i), b = row_of(other, i);
        ck_assert_int_eq(a.kind, b.kind);
        ck_assert_int_eq(a.n_completions, b.n_completions);
        same_bits(&a.weight, &b.weight, 1);
        same_bits(&a.label, &b.label, 1);
        same_bits(&a.margin, &b.margin, 1);
        same_bits(a.logp, b.logp, a.n_completions);
        same_bits(a.sampler_logp, b.sampler_logp, a.n_completions);
        same_bits(a.score, b.score, a.n_completions);
        same_bits(a.ref_logp, b.ref_logp, a.n_completions);
        ck_assert_int_eq(a.extra == NULL, b.extra == NULL);
        if (a.extra != NULL)
            ck_assert_str_eq(a.extra, b.extra);
    }
}

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
        "{\"prompt\":[7],\"ranking\":[[1],[2],[3]],\"sampler_logps\":[0,-0.0,-5e-324]}";
    prefopt_dataset *data = parse(text);
    ck_assert_int_eq(prefopt_dataset_size(data), 6);
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
    ck_assert(row.kind == PREFOPT_ROW_RANKING && row.n_completions == 3);
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

START_TEST(files_that_cannot_be_had)
{
    set_up();
    prefopt_dataset *data = NULL;
    FAILS(PREFOPT_ERR_IO, "No such file", prefopt_dataset_read_jsonl(&data, context, target));
    FAILS(PREFOPT_ERR_IO, "Is a directory", prefopt_dataset_read_jsonl(&data, context, folder));
    FAILS(PREFOPT_ERR_IO, "No such file", prefopt_dataset_read_jsonl(&data, context, ""));
    FAILS(PREFOPT_ERR_ARGUMENT, "out is NULL", prefopt_dataset_read_jsonl(NULL, context, target));
    FAILS(PREFOPT_ERR_ARGUMENT, "context is NULL", prefopt_dataset_read_jsonl(&data, NULL, target));
    FAILS(PREFOPT_ERR_ARGUMENT, "path is NULL", prefopt_dataset_read_jsonl(&data, context, NULL));
    ck_assert_ptr_null(data);
    write_bytes(target, "{}\n", 3);
    if (geteuid() != 0) {
        ck_assert_int_eq(chmod(target, 0), 0);
        FAILS(PREFOPT_ERR_IO, "Permission denied",
              prefopt_dataset_read_jsonl(&data, context, target));
    }
    data = parse("{\"prompt\":[1,2,3]}\n");
    FAILS(PREFOPT_ERR_ARGUMENT, "dataset is NULL", prefopt_dataset_write_jsonl(NULL, target));
    FAILS(PREFOPT_ERR_ARGUMENT, "path is NULL", prefopt_dataset_write_jsonl(data, NULL));
    FAILS(PREFOPT_ERR_IO, "no regular file", prefopt_dataset_write_jsonl(data, "/dev/full"));
    FAILS(PREFOPT_ERR_IO, "no regular file", prefopt_dataset_write_jsonl(data, folder));
    FAILS(PREFOPT_ERR_IO, "No such file", prefopt_dataset_write_jsonl(data, "no-folder/file"));
    prefopt_dataset_destroy(data);
    tear_down();
}
END_TEST

START_TEST(a_file_that_does_not_fit)
{
    set_up();
    prefopt_dataset *data = parse("{\"prompt\":[1,2,3]}\n"), *many = NULL;
    static int64_t rows[10000];
    OK(prefopt_dataset_select(&many, data, rows, 10000));
    OK(prefopt_dataset_write_jsonl(data, target));
    struct rlimit before, limit;
    ck_assert_int_eq(getrlimit(RLIMIT_FSIZE, &before), 0);
    limit = before;
    limit.rlim_cur = 100000;
    void (*handler)(int) = signal(SIGXFSZ, SIG_IGN);
    ck_assert_int_eq(setrlimit(RLIMIT_FSIZE, &limit), 0);
    FAILS(PREFOPT_ERR_IO, "File too large", prefopt_dataset_write_jsonl(many, target));
    ck_assert_int_eq(setrlimit(RLIMIT_FSIZE, &before), 0);
    signal(SIGXFSZ, handler);
    prefopt_dataset *old = NULL;
    OK(prefopt_dataset_read_jsonl(&old, context, target));
    check_same(data, old);
    prefopt_dataset_destroy(old);
    prefopt_dataset_destroy(many);
    prefopt_dataset_destroy(data);
    tear_down(); /* sees that nothing was left beside it */
}
END_TEST

/* A number of any finite bits, NaN and, where allowed, -inf among them. */
static double any_number(uint64_t index, bool infinite)
{
    uint64_t bits = pf_stream(pf_stream(11, index), 3);
    double value;
    memcpy(&value, &bits, sizeof value);
    int64_t choice = pf_uniform_int(12, 0, index, 8);
    if (choice == 0)
        return infinite ? -INFINITY : -0.0;
    if (choice == 1)
        return -log(pf_uniform(12, 1, index));
    if (choice == 2)
        return (double)pf_uniform_int(12, 2, index, 2000) - 1000;
    return isfinite(value) ? value : NAN;
}

static prefopt_dataset *any_dataset(int64_t n_rows)
{
    prefopt_dataset *data = NULL;
    OK(prefopt_dataset_create(&data, context));
    uint64_t draw = 0;
    for (int64_t i = 0; i < n_rows; i++) {
        int32_t tokens[64];
        int64_t offsets[8] = {0};
        double columns[4][8];
        prefopt_row row;
        OK(prefopt_row_init(&row, sizeof row));
        row.kind = (int32_t)pf_uniform_int(1, 0, draw++, 4);
        row.n_completions = row.kind == PREFOPT_ROW_PROMPT ? 0
                            : row.kind == PREFOPT_ROW_PAIR ? 2
                                                           : 2 + pf_uniform_int(1, 0, draw++, 4);
        if (row.kind == PREFOPT_ROW_COMPLETIONS && i % 2 == 0)
            row.n_completions = 1;
        for (int t = 0; t < 64; t++)
            tokens[t] = (int32_t)pf_uniform_int(1, 0, draw++, t % 2 ? INT32_MAX : 10);
        for (int64_t c = 0; c < row.n_completions; c++) {
            offsets[c + 1] = offsets[c] + pf_uniform_int(1, 0, draw++, 4);
            for (int k = 0; k < 4; k++)
                columns[k][c] = any_number(draw++, k != PREFOPT_COLUMN_SCORE);
        }
        row.prompt = tokens + 40;
        row.prompt_len = pf_uniform_int(1, 0, draw++, 5);
        row.completions = tokens;
        row.completion_offsets = offsets;
        row.weight = i % 3 == 0 ? 1 : pf_uniform(1, 0, draw++) * 1e-300;
        if (row.kind == PREFOPT_ROW_PAIR) {
            row.label = i % 3 == 0 ? 1 : pf_uniform(1, 0, draw++);
            row.margin = i % 5 == 0 ? -0.0 : pf_normal(1, 0, draw++);
        }
        row.logp = i % 2 ? columns[0] : NULL;
        row.sampler_logp = i % 3 ? columns[1] : NULL;
        row.score = i % 5 ? columns[2] : NULL;
        row.ref_logp = i % 7 ? columns[3] : NULL;
        row.extra = i % 4 ? NULL
                          : "{\"text\":\"\\u0000\\\"\\n\xe2\x82\xac\",\"x\":[0.1,1e300,-0.0,"
                            "9223372036854775807,null,{}]}";
        OK(prefopt_dataset_append(data, &row));
    }
    return data;
}

START_TEST(round_trip_bit_for_bit)
{
    set_up();
    prefopt_dataset *data = any_dataset(1500), *again = NULL;
    OK(prefopt_dataset_write_jsonl(data, target));
    OK(prefopt_dataset_read_jsonl(&again, context, target));
    check_same(data, again);
    size_t n, m;
    char *first = read_text(target, &n);
    ck_assert_uint_gt(n, 3 << 16); /* several pieces of the reader and the writer */
    ck_assert_ptr_null(strcasestr(first, "nan"));
    OK(prefopt_dataset_write_jsonl(again, target));
    char *second = read_text(target, &m);
    ck_assert_uint_eq(n, m);
    ck_assert_mem_eq(first, second, n);
    free(first);
    free(second);
    prefopt_dataset_destroy(again);
    prefopt_dataset_destroy(data);
    tear_down();
}
END_TEST

START_TEST(long_lines)
{
    set_up();
    enum { N = 300000 };
    prefopt_dataset *data = parse("{}\n"), *again = NULL;
    int32_t *tokens = calloc(N, sizeof *tokens);
    for (int32_t i = 0; i < N; i++)
        tokens[i] = i;
    OK(prefopt_dataset_append_pair(data, tokens, N, tokens, 1, tokens, 2, 1, 1, 0));
    OK(prefopt_dataset_append_pair(data, tokens, 1, tokens, N / 2, tokens, 2, 1, 1, 0));
    OK(prefopt_dataset_write_jsonl(data, target));
    OK(prefopt_dataset_read_jsonl(&again, context, target));
    check_same(data, again);
    prefopt_dataset_destroy(again);
    prefopt_dataset_destroy(data);
    free(tokens);
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

START_TEST(without_memory)
{
    set_up();
    counting_allocator a = {0};
    prefopt_context *counting = counting_context(&a);
    prefopt_dataset *data = any_dataset(40), *again = NULL;
    OK(prefopt_dataset_write_jsonl(data, target));
    int64_t live = a.live, failures = 0;
    for (a.calls = 0, a.fail_at = 1;; a.calls = 0, a.fail_at++) {
        int32_t status = prefopt_dataset_read_jsonl(&again, counting, target);
        if (status == PREFOPT_OK)
            break;
        failures++;
        ck_assert_msg(status == PREFOPT_ERR_MEMORY, "%s", prefopt_last_error());
        ck_assert_int_eq(a.live, live);
        ck_assert_ptr_null(again);
    }
    ck_assert_int_gt(failures, 30);
    check_same(data, again);
    live = a.live;
    failures = 0;
    for (a.calls = 0, a.fail_at = 1;; a.calls = 0, a.fail_at++) {
        int32_t status = prefopt_dataset_write_jsonl(again, target);
        if (status == PREFOPT_OK)
            break;
        failures++;
        ck_assert_int_eq(status, PREFOPT_ERR_MEMORY);
        ck_assert_int_eq(a.live, live);
    }
    ck_assert_int_eq(failures, 3);
    prefopt_dataset_destroy(again);
    prefopt_context_destroy(counting);
    ck_assert_int_eq(a.live, 0);
    prefopt_dataset_destroy(data);
    tear_down();
}
END_TEST

/* Texts that are almost right: bytes changed, cut out, doubled and put elsewhere. Each is read, or
 * refused as FORMAT with its place; what is read can be written and read again. */
START_TEST(mutations)
{
    set_up();
    prefopt_dataset *data = any_dataset(6), *again;
    OK(prefopt_dataset_write_jsonl(data, target));
    prefopt_dataset_destroy(data);
    size_t n;
    char *text = read_text(target, &n), *changed = malloc(4 * n);
    static const char alphabet[] = "{}[]\",:0123456789-+.eE\\ \n\r\tuntflsa\x01\x80\xff";
    int64_t good = 0, bad = 0;
    for (uint64_t seed = 0; seed < 2000; seed++) {
        size_t length = n;
        memcpy(changed, text, n);
        int64_t changes = 1 + pf_uniform_int(seed, 0, 0, 3);
        for (uint64_t c = 1; c <= (uint64_t)changes; c++) {
            size_t at = (size_t)pf_uniform_int(seed, 1, c, (int64_t)length);
            size_t span = (size_t)pf_uniform_int(seed, 2, c, 20);
            span = span < length - at ? span : length - at;
            switch (pf_uniform_int(seed, 3, c, 4)) {
            case 0:
                changed[at] = alphabet[pf_uniform_int(seed, 4, c, sizeof alphabet)];
                break;
            case 1: /* cut out */
                memmove(changed + at, changed + at + span, length - at - span);
                length -= span;
                break;
            case 2: /* doubled */
                memmove(changed + at + span, changed + at, length - at);
                length += span;
                break;
            default: /* from elsewhere */
                memmove(changed + at,
                        changed + pf_uniform_int(seed, 5, c, (int64_t)(length - span + 1)), span);
            }
        }
        again = NULL;
        int32_t status = pf_jsonl_parse(context, "memory", changed, (int64_t)length, &again);
        if (status != PREFOPT_OK) {
            bad++;
            ck_assert_msg(status == PREFOPT_ERR_FORMAT, "seed %d: %s", (int)seed,
                          prefopt_last_error());
            ck_assert(strncmp(prefopt_last_error(), "memory:", 7) == 0);
            ck_assert_ptr_null(again);
            continue;
        }
        if (good++ % 16 == 0) {
            prefopt_dataset *third = NULL;
            OK(prefopt_dataset_write_jsonl(again, target));
            OK(prefopt_dataset_read_jsonl(&third, context, target));
            check_same(again, third);
            prefopt_dataset_destroy(third);
        }
        prefopt_dataset_destroy(again);
    }
    ck_assert(good > 100 && bad > 100); /* both ways are taken */
    free(changed);
    free(text);
    tear_down();
}
END_TEST

TEST_MAIN("jsonl", reads_every_kind, line_ends_and_marks, bad_lines_say_where_and_what,
          files_that_cannot_be_had, a_file_that_does_not_fit, round_trip_bit_for_bit, long_lines,
          another_locale, without_memory, mutations)

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
