#define _GNU_SOURCE
#include "data/pf_text_test.h"
#if PF_HAVE_GZIP
#include "data/pf_gzip_test.h"
#endif

/* ---------------------------------------------------------------- texts made by chance */

static const char *const bits[] = {
    "a",       "b",   " ",   " ",   "\\n", "ab",      " x",      "\\u0301", "e",
    "'ll",     "'s",  "1",   "l",   ".",   "  ",      "<|end|>", "<|",      "end|>",
    "\\u00e9", "\\t", " ab", "c d", "a b", "\\u00a0", "\\u3000", "\\u0000", "Z "};

/* Puts a JSON string of up to `most` bits; returns where it ends. */
static char *put_any(char *to, uint64_t *draw, int64_t most)
{
    int64_t n = pf_uniform_int(5, 0, (*draw)++, most + 1);
    *to++ = '"';
    for (int64_t i = 0; i < n; i++)
        to = stpcpy(to, bits[pf_uniform_int(5, 1, (*draw)++, sizeof bits / sizeof bits[0])]);
    *to++ = '"';
    return to;
}

/* Lines of every kind. */
static char *any_lines(int64_t n_rows, size_t *n)
{
    char *text = malloc((size_t)n_rows * 1024), *to = text;
    uint64_t draw = 0;
    for (int64_t i = 0; i < n_rows; i++) {
        int64_t kind = pf_uniform_int(5, 2, draw++, 6);
        to = put_any(stpcpy(to, "{\"prompt\":"), &draw, 12);
        if (kind < 4) {
            to = put_any(stpcpy(to, ",\"chosen\":"), &draw, 8);
            to = put_any(stpcpy(to, ",\"rejected\":"), &draw, 8);
        } else if (kind == 4) {
            to = put_any(stpcpy(to, ",\"completions\":["), &draw, 8);
            to = put_any(stpcpy(to, ","), &draw, 8);
            to = stpcpy(to, "]");
        }
        if (i % 3 == 0)
            to += sprintf(to, ",\"id\":%d", (int)i);
        to = stpcpy(to, i % 7 == 0 ? "}\r\n\n" : "}\n");
    }
    *n = (size_t)(to - text);
    return text;
}

static void read_with(int32_t threads, int64_t budget, prefopt_dataset **data,
                      prefopt_text_counts *out)
{
    prefopt_context_options how;
    prefopt_context *other = NULL;
    OK(prefopt_context_options_init(&how, sizeof how));
    how.threads = threads;
    how.byte_budget = budget;
    OK(prefopt_context_create(&other, &how));
    *out = (prefopt_text_counts){.struct_size = sizeof *out};
    OK(prefopt_text_read(data, other, tokenizer, target, &options, out));
    prefopt_context_destroy(other);
}

START_TEST(any_number_of_threads)
{
    set_up_text();
    size_t n;
    char *text = any_lines(2500, &n);
    options.eos = END;
    options.max_completion = 5;
    options.max_tokens = 12;
    ck_assert_uint_gt(n, 1 << 17);
    write_bytes(target, text, n);
    prefopt_dataset *one = NULL, *more = NULL;
    prefopt_text_counts first, other;
    OK(pf_text_parse(&one, context, tokenizer, "memory", text, (int64_t)n, &options, &counts));
    ck_assert_int_gt(counts.rows, 1200);
    ck_assert_int_gt(counts.boundary_mismatches, 50);
    ck_assert_int_gt(counts.same, 3);
    ck_assert(counts.too_long > 3 && counts.no_longer_differ > 3 && counts.lines == 2500);
    for (int32_t threads = 1; threads <= 3; threads++)
        for (int64_t budget = 1 << 20; budget <= 1 << 26; budget <<= 6) {
            read_with(threads, budget, &more, &other);
            ck_assert_mem_eq(&counts, &other, sizeof other);
            check_same(one, more);
            prefopt_dataset_destroy(more);
        }
    options.max_rows = 700;
    read_with(1, 1 << 20, &more, &first);
    ck_assert(first.rows == 700 && prefopt_dataset_size(more) == 700 && first.lines < 2500);
    prefopt_dataset_destroy(more);
    read_with(3, 1 << 26, &more, &other);
    ck_assert_mem_eq(&first, &other, sizeof other);
    prefopt_dataset_destroy(more);

    /* The first bad line is told, whoever finds which first; not after enough rows. */
    text[n - 3] = 'x';
    text[n / 2] = '\0';
    write_bytes(target, text, n);
    read_with(3, 1 << 20, &more, &other);
    ck_assert_mem_eq(&first, &other, sizeof other);
    prefopt_dataset_destroy(more);
    more = NULL;
    options.max_rows = 0;
    int64_t line = 1;
    for (size_t i = 0; i < n / 2; i++)
        line += text[i] == '\n';
    char expected[64];
    snprintf(expected, sizeof expected, "rows.jsonl:%lld: found a zero byte", (long long)line);
    for (int i = 0; i < 5; i++)
        FAILS(PREFOPT_ERR_FORMAT, expected,
              prefopt_text_read(&more, context, tokenizer, target, &options, NULL));
    ck_assert_ptr_null(more);
    prefopt_dataset_destroy(one);
    free(text);
    tear_down_text();
}
END_TEST

/* ---------------------------------------------------------------- the boundary by its definition
 */

typedef struct {
    int32_t tokens[2048];
    int64_t n;
} encoded;

static void encode(encoded *out, const char *text, int64_t n)
{
    OK(prefopt_tokenizer_encode(tokenizer, text, n, out->tokens, 2048, &out->n));
    ck_assert_int_le(out->n, 2048);
}

static bool apart(const char *text, int64_t n, int64_t at, int64_t *n_first)
{
    static encoded whole, first, second;
    encode(&whole, text, n);
    encode(&first, text, at);
    encode(&second, text + at, n - at);
    *n_first = first.n;
    return whole.n == first.n + second.n &&
           memcmp(whole.tokens, first.tokens, (size_t)first.n * sizeof(int32_t)) == 0 &&
           memcmp(whole.tokens + first.n, second.tokens, (size_t)second.n * sizeof(int32_t)) == 0;
}

/* Bytes of the text before which its first k tokens end; the text is in NFC. */
static int64_t bytes_of(const encoded *e, int64_t k)
{
    int64_t bytes;
    OK(prefopt_tokenizer_decode(tokenizer, e->tokens, k, NULL, 0, &bytes));
    return bytes;
}

static void decode_whole(const encoded *e, char *out, int64_t *n)
{
    OK(prefopt_tokenizer_decode(tokenizer, e->tokens, e->n, out, 4096, n));
}

/* The prompt's length by trying every one. */
static int64_t longest_prompt(const char *a, int64_t n_a, const char *b, int64_t n_b, bool *moved)
{
    static encoded one, two;
    static char text_one[4096], text_two[4096];
    int64_t k = 0, m_a, m_b, unused;
    encode(&one, a, n_a);
    encode(&two, b, n_b);
    decode_whole(&one, text_one, &m_a);
    decode_whole(&two, text_two, &m_b);
    while (k < one.n && k < two.n && one.tokens[k] == two.tokens[k])
        k++;
    for (int64_t most = k;; k--) {
        int64_t at = bytes_of(&one, k);
        *moved = k < most;
        bool good = (at == m_a || ((unsigned char)text_one[at] & 0xc0) != 0x80) &&
                    (at == m_b || ((unsigned char)text_two[at] & 0xc0) != 0x80);
        if (k == 0 || (good && apart(text_one, m_a, at, &unused) && unused == k &&
                       apart(text_two, m_b, at, &unused)))
            return k;
    }
}

static int64_t mismatches, moves;

static void check_boundary(const char *line, int64_t n)
{
    json_t *object = json_loadb(line, (size_t)n, JSON_ALLOW_NUL, NULL);
    const json_t *p = json_object_get(object, "prompt"), *c = json_object_get(object, "chosen");
    const json_t *d = json_object_get(object, "rejected");
    int64_t n_p = (int64_t)json_string_length(p), unused;
    bool differs = false;
    char both[2][4096];
    int64_t length[2];
    for (int i = 0; i < 2; i++) {
        const json_t *side = i ? d : c;
        length[i] = n_p + (int64_t)json_string_length(side);
        ck_assert_int_le(length[i], 4096);
        memcpy(both[i], json_string_value(p), (size_t)n_p);
        memcpy(both[i] + n_p, json_string_value(side), json_string_length(side));
        differs = differs || !apart(both[i], length[i], n_p, &unused);
    }
    prefopt_dataset *data = NULL;
    OK(pf_text_parse(&data, context, tokenizer, "memory", line, n, &options, &counts));
    mismatches += counts.boundary_mismatches;
    if (counts.rows == 1)
        ck_assert_msg((counts.boundary_mismatches == 1) == differs, "%.*s", (int)n, line);
    prefopt_dataset_destroy(data);

    /* The same two texts without saying where the prompt ends. */
    bool moved;
    int64_t k = longest_prompt(both[0], length[0], both[1], length[1], &moved);
    json_object_del(object, "prompt");
    json_object_set_new(object, "chosen", json_stringn(both[0], (size_t)length[0]));
    json_object_set_new(object, "rejected", json_stringn(both[1], (size_t)length[1]));
    char *text = json_dumps(object, 0);
    OK(pf_text_parse(&data, context, tokenizer, "memory", text, (int64_t)strlen(text), &options,
                     &counts));
    if (counts.rows == 1) {
        prefopt_row row = row_of(data, 0);
        encoded whole;
        encode(&whole, both[0], length[0]);
        ck_assert_msg(row.prompt_len == k, "%s: the prompt has %lld tokens, expected %lld", text,
                      (long long)row.prompt_len, (long long)k);
        ck_assert_msg((counts.moved == 1) == moved, "%s", text);
        moves += moved;
        check_tokens(row.prompt, k, whole.tokens, k, "prompt");
        check_tokens(row.completions, row.completion_offsets[1], whole.tokens + k, whole.n - k,
                     "chosen");
    }
    prefopt_dataset_destroy(data);
    free(text);
    json_decref(object);
}

START_TEST(boundaries_by_definition)
{
    set_up_text();
    uint64_t draw = 1 << 20;
    for (int i = 0; i < 4000; i++) {
        char line[2048], *to = put_any(stpcpy(line, "{\"prompt\":"), &draw, 14);
        if (i % 4 == 0) /* two line ends: before a word each is a token */
            to = stpcpy(to - 1, "\\n\\n\"");
        to = put_any(stpcpy(to, ",\"chosen\":"), &draw, 8);
        to = put_any(stpcpy(to, ",\"rejected\":"), &draw, 8);
        *to++ = '}';
        check_boundary(line, to - line);
    }
    ck_assert_int_gt(moves, 100); /* out of 4000 */
    ck_assert_int_gt(mismatches, 100);
    tear_down_text();
}
END_TEST

/* ---------------------------------------------------------------- texts taken out of a line */

/* The line's object with the texts where they were; NULL where there is none. */
static json_t *taken_object(pf_text_reader *r, const char *line, int64_t n, int64_t *taken)
{
    static const char *const fields[] = {"prompt", "completion", "chosen", "rejected"};
    json_t *object;
    int32_t status = pf_text_object(r, line, n, &object);
    ck_assert(status == PREFOPT_OK || (status == PREFOPT_ERR_FORMAT && object == NULL));
    for (int i = 0; i < 4 && object != NULL; i++) {
        const char *text;
        int64_t length;
        if (!pf_text_take(r, fields[i], &text, &length))
            continue;
        ++*taken;
        ck_assert_str_eq(json_string_value(json_object_get(object, fields[i])), "");
        ck_assert_int_eq(json_object_set_new(object, fields[i], json_stringn(text, (size_t)length)),
                         0);
    }
    return object;
}

/* Lines that are almost right give what the parser alone gives, and are refused with its text. */
START_TEST(taken_or_not)
{
    set_up_text();
    static const char alphabet[] = "{}[]\",:0123\\u dD8cfF\n\rtnpromt\x01\x80\xff\xc3\xa9";
    static const char *const lines[] = {
        "{\"prompt\":\"a\\ud83d\\ude00b\\u00e9\\n\xc3\xa9\",\"x\":[\"\\\"\",{}],\"chosen\":"
        "\"\\\"\\\\\","
        "\"rejected\":\"\\/\\b\\f\\r\\t\"}",
        " { \"id\" : -1.5e3 , \"completion\" : \"\xf0\x9f\x98\x80\" , \"prompt\" : \"\\u0000\" } ",
        "{\"a\":{\"prompt\":\"b\",\"c\":[1,[2]]},\"prompt\":\"d\",\"e\":true,\"completion\":\"\"}"};
    pf_text_reader r;
    int64_t good = 0, bad = 0, taken = 0;
    OK(pf_text_begin(&r, context, tokenizer, "memory", &options));
    for (uint64_t seed = 0; seed < 12000; seed++) {
        char line[256];
        int64_t n = (int64_t)strlen(lines[seed % 3]), changes = pf_uniform_int(seed, 0, 0, 3);
        memcpy(line, lines[seed % 3], (size_t)n);
        for (int64_t c = 1; c <= changes; c++) {
            int64_t at = pf_uniform_int(seed, 1, (uint64_t)c, n);
            if (pf_uniform_int(seed, 2, (uint64_t)c, 4) == 0)
                memmove(line + at, line + at + 1, (size_t)(--n - at));
            else
                line[at] = alphabet[pf_uniform_int(seed, 3, (uint64_t)c, sizeof alphabet)];
        }
        char expected[1024] = "";
        json_t *alone, *object = taken_object(&r, line, n, &taken);
        if (object == NULL)
            strcpy(expected, prefopt_last_error());
        pf_jsonl_object(&r.lines, line, n, &alone);
        ck_assert_msg((alone == NULL) == (object == NULL), "%.*s", (int)n, line);
        if (alone == NULL)
            ck_assert_str_eq(expected, prefopt_last_error());
        else
            ck_assert_msg(json_equal(alone, object), "%.*s", (int)n, line);
        good += alone != NULL;
        bad += alone == NULL;
        json_decref(alone);
        json_decref(object);
    }
    ck_assert(good > 2000 && bad > 2000 && taken > 2 * good);
    pf_text_end(&r);
    tear_down_text();
}
END_TEST

/* ---------------------------------------------------------------- files */

START_TEST(without_memory)
{
    set_up_text();
    size_t n;
    char *text = any_lines(30, &n);
    text = realloc(text, n + 256);
    n += (size_t)sprintf(text + n,
                         "{\"chosen\":\"a b e\xcc\x81 c\",\"rejected\":\"a b e\xcc\x81 d\"}\n"
                         "{\"ranking\":[\"a\",\"b\",\"c\"]}\n");
    write_bytes(target, text, n);
    counting_allocator a = {0};
    prefopt_context *counting = counting_context(&a);
    prefopt_tokenizer *own = make_tokenizer(counting, &small_parts);
    prefopt_dataset *data = NULL;
    int64_t live = a.live, failures = 0;
    for (a.calls = 0, a.fail_at = 1;; a.calls = 0, a.fail_at++) {
        int32_t status = prefopt_text_read(&data, counting, own, target, &options, &counts);
        if (status == PREFOPT_OK)
            break;
        failures++;
        ck_assert_msg(status == PREFOPT_ERR_MEMORY, "%s", prefopt_last_error());
        ck_assert_int_eq(a.live, live);
        ck_assert_ptr_null(data);
        ck_assert_int_eq(counts.rows, 0);
    }
    ck_assert_int_gt(failures, 50);
    ck_assert_int_gt(counts.rows, 20);
    prefopt_dataset_destroy(data);
    prefopt_tokenizer_destroy(own);
    prefopt_context_destroy(counting);
    ck_assert_int_eq(a.live, 0);
    free(text);
    tear_down_text();
}
END_TEST

static void remember(void *payload, int32_t level, const char *message)
{
    char *told = payload;
    ck_assert_int_eq(level, PREFOPT_LOG_WARNING);
    ck_assert_uint_lt(strlen(told) + strlen(message), 2000);
    strcat(strcat(told, message), "\n");
}

START_TEST(warnings)
{
    set_up_text();
    char told[2048] = "";
    prefopt_context_options how;
    prefopt_context *loud = NULL;
    OK(prefopt_context_options_init(&how, sizeof how));
    how.log = remember;
    how.log_payload = told;
    how.threads = 2;
    OK(prefopt_context_create(&loud, &how));
    prefopt_dataset *data = NULL;
    const char *fine = "{\"prompt\":\"x\",\"chosen\":\" ab\",\"rejected\":\" c\"}\n";
    OK(pf_text_parse(&data, loud, tokenizer, "memory", fine, (int64_t)strlen(fine), NULL, NULL));
    ck_assert_str_eq(told, "");
    prefopt_dataset_destroy(data);
    const char *text = "{\"prompt\":\"x\",\"chosen\":\" ab\",\"rejected\":\" c\"}\n"
                       "{\"prompt\":\"x \",\"completion\":\"ab\"}\n"
                       "{\"prompt\":\"x\",\"chosen\":\"xxy\",\"rejected\":\"xxz\"}\n"
                       "{\"chosen\":\"x\",\"rejected\":\"x\"}\n"
                       "{\"prompt\":\"x \",\"completion\":\"ab\"}\n"
                       "{\"prompt\":\"xxxxxxxxx\"}\n";
    options.max_completion = 2;
    options.max_tokens = 9;
    OK(pf_text_parse(&data, loud, tokenizer, "memory", text, (int64_t)strlen(text), &options,
                     NULL));
    ck_assert_str_eq(
        told,
        "memory: 2 rows have other tokens when prompt and completion are tokenised together; the "
        "first in line 2\n"
        "memory: 1 rows were left out as too long; the first in line 6\n"
        "memory: 1 rows were left out as two of their completions are the same; the first in line "
        "4\n"
        "memory: 1 rows were left out as two of their completions no longer differ once they are "
        "cut; the first in line 3\n");
    prefopt_dataset_destroy(data);
    prefopt_context_destroy(loud);
    tear_down_text();
}
END_TEST

#if PF_HAVE_GZIP

START_TEST(gzip_files)
{
    set_up_text();
    size_t n, n_zipped;
    char *text = any_lines(500, &n), *zipped = gzip(text, n, &n_zipped);
    prefopt_dataset *plain = NULL, *data = NULL;
    OK(pf_text_parse(&plain, context, tokenizer, "memory", text, (int64_t)n, &options, NULL));
    write_bytes(target, zipped, n_zipped);
    OK(prefopt_text_read(&data, context, tokenizer, target, &options, NULL));
    check_same(plain, data);
    prefopt_dataset_destroy(data);
    data = NULL;
    write_bytes(target, zipped, n_zipped / 2);
    FAILS(PREFOPT_ERR_FORMAT, "rows.jsonl: the gzip data ends too early, at byte",
          prefopt_text_read(&data, context, tokenizer, target, &options, NULL));
    zipped[n_zipped / 2] ^= 0x55;
    zipped[n_zipped / 2 + 1] ^= 0x55;
    write_bytes(target, zipped, n_zipped);
    FAILS(PREFOPT_ERR_FORMAT, "rows.jsonl",
          prefopt_text_read(&data, context, tokenizer, target, &options, NULL));
    ck_assert_ptr_null(data);
    prefopt_dataset_destroy(plain);
    free(zipped);
    free(text);
    tear_down_text();
}
END_TEST

/* A line of 16 MB between two others, most of it a text of which two tokens are kept. */
START_TEST(a_very_long_line)
{
    set_up_text();
    enum { LONG = 16000000, ZERO_TEXT = 1 << 20 };
    static const char head[] = "{\"prompt\":\"a\"}\n{\"prompt\":\"",
                      tail[] = "\"}\n{\"prompt\":\"b\"}";
    size_t n = sizeof head - 1 + LONG + sizeof tail - 1, n_zipped;
    char *text = malloc(n);
    memcpy(text, head, sizeof head - 1);
    for (size_t i = 0; i < LONG; i++)
        text[sizeof head - 1 + i] = i % 8 == 7 ? ' ' : 'x';
    memcpy(text + n - (sizeof tail - 1), tail, sizeof tail - 1);
    char *zipped = gzip(text, n, &n_zipped);
    ck_assert_uint_lt(n_zipped, ZERO_TEXT);
    free(text);
    write_bytes(target, zipped, n_zipped);
    free(zipped);
    prefopt_dataset *data = NULL;
    options.max_prompt = 2;
    OK(prefopt_text_read(&data, context, tokenizer, target, &options, &counts));
    ck_assert(counts.rows == 3 && counts.prompts_cut == 1);
    ck_assert_int_eq(counts.prompt_tokens_cut, LONG - 2);
    prefopt_row row = row_of(data, 1);
    PROMPT(row, 'x', ' ');
    prefopt_dataset_destroy(data);
    tear_down_text();
}
END_TEST

TEST_MAIN("text_files", any_number_of_threads, boundaries_by_definition, taken_or_not,
          without_memory, warnings, gzip_files, a_very_long_line)

#else

TEST_MAIN("text_files", any_number_of_threads, boundaries_by_definition, taken_or_not,
          without_memory, warnings)

#endif
