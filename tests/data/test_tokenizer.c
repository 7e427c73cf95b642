/* Encoding and decoding: pieces, merges, added tokens, NFC, UTF-8, capacities, threads. */
#include <pthread.h>

#include "pf_tokenizer_test.h"

/* ---------------------------------------------------------------- pieces */

/* The pieces of a text by GPT-2's pattern, with | between them. */
static void check_pieces(const char *text, const char *expected)
{
    prefopt_context *context = test_context(1);
    pf_pattern *pattern = NULL;
    pf_match *match = NULL;
    char joined[512] = "";
    int64_t n = (int64_t)strlen(text), start, end;
    OK(pf_pattern_compile(&pattern, context, pf_gpt2_pattern, (int64_t)strlen(pf_gpt2_pattern)));
    OK(pf_match_create(&match, context));
    for (int64_t at = 0; at < n; at = end) {
        OK(pf_pattern_find(pattern, match, text, n, at, &start, &end));
        ck_assert_int_eq(start, at); /* the pattern leaves nothing out */
        ck_assert_int_gt(end, start);
        strncat(joined, text + start, (size_t)(end - start));
        if (end < n)
            strcat(joined, "|");
    }
    ck_assert_str_eq(joined, expected);
    pf_match_destroy(context, match);
    pf_pattern_destroy(context, pattern);
    prefopt_context_destroy(context);
}

START_TEST(test_gpt2_pieces)
{
    check_pieces("Hello  world", "Hello| | world");
    check_pieces("don't we'll 'tis I'VE", "don|'t| we|'ll| '|tis| I|'|VE");
    check_pieces("a1b22 333", "a|1|b|22| 333");
    check_pieces("x\n\n y  ", "x|\n\n| y|  ");
    check_pieces("\t\tx", "\t|\t|x");
    check_pieces("(a) --- b!", "(|a|)| ---| b|!");
    check_pieces("4 \u00bd \u0663\u2167", "4| \u00bd| \u0663\u2167");  /* N: Nd, No, Nl */
    check_pieces("\u00dcber \u6f22\u5b57", "\u00dcber| \u6f22\u5b57"); /* L of any script */
    check_pieces("e\u0301a", "e|\u0301|a");                            /* marks are no letters */
    check_pieces("x\u00a0y\xc2\x85"
                 "z\u3000!",
                 "x|\u00a0|y|\xc2\x85"
                 "|z|\u3000|!"); /* white space */
    check_pieces("\u00a0!", "\u00a0|!");
    check_pieces("\xc2\x85"
                 "!",
                 "\xc2\x85"
                 "|!");
    check_pieces("\u180e!", "\u180e!"); /* these two are none */
    check_pieces("\u200b!", "\u200b!");
    check_pieces("\x1c!", "\x1c!");
}
END_TEST

START_TEST(test_split_and_digits)
{
    prefopt_context *context = test_context(1);
    file_parts p = {.merges = {{"1", "1"}, {"11", "1"}, {" ", "a"}, {"a", "a"}, {"\x8e", "!"}}};
    p.pre_tokenizer = "{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":\"Split\",\"pattern\":"
                      "{\"Regex\":\"\\\\p{N}{1,2}|[^\\\\s\\\\p{N}]+\"},\"behavior\":\"Isolated\","
                      "\"invert\":false}"
                      ",{\"type\":\"ByteLevel\",\"add_prefix_space\":false,\"use_regex\":false}]}";
    prefopt_tokenizer *t = make_tokenizer(context, &p);
    IDS(t, "11111", NULL, 256, 256, '1');
    IDS(t, " aaa", NULL, ' ', 259, 'a'); /* the space is a gap of its own */
    IDS(t, "\u180e!", NULL, 0xe1, 0xa0, 260);
    prefopt_tokenizer_destroy(t);
    p.pre_tokenizer = "{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":\"Digits\","
                      "\"individual_digits\":true}," BYTE_LEVEL "]}";
    t = make_tokenizer(context, &p);
    IDS(t, "111 aa", NULL, '1', '1', '1', 258, 'a');
    prefopt_tokenizer_destroy(t);
    p.pre_tokenizer = "{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":\"Digits\"},{\"type\":"
                      "\"ByteLevel\",\"add_prefix_space\":true,\"use_regex\":false}]}";
    t = make_tokenizer(context, &p);
    IDS(t, "aa1111 a", " aa 1111 a", 258, 'a', ' ', 256, 256, 258);
    prefopt_tokenizer_destroy(t);
    p.pre_tokenizer = "{\"type\":\"ByteLevel\",\"add_prefix_space\":true}";
    p.added = "{\"id\":261,\"content\":\"<s>\",\"special\":true}";
    t = make_tokenizer(context, &p);
    IDS(t, "aa<s>a a", " aa<s> a a", 258, 'a', 261, 258, 258);
    IDS(t, " a", NULL, 258);
    IDS(t, "<s>", NULL, 261);
    ck_assert_int_eq(prefopt_tokenizer_is_special(t, 261), 1);
    ck_assert_int_eq(prefopt_tokenizer_is_special(t, 'a'), 0);
    ck_assert_int_eq(prefopt_tokenizer_is_special(t, 262), 0);
    ck_assert_int_eq(prefopt_tokenizer_is_special(t, -1), 0);
    prefopt_tokenizer_destroy(t);
    prefopt_context_destroy(context);
}
END_TEST

/* ---------------------------------------------------------------- merges */

START_TEST(test_merges)
{
    prefopt_context *context = test_context(1);
    file_parts p = {.merges = {{"b", "c"}, {"a", "b"}, {"ab", "c"}, {"a", "a"}}};
    for (p.pairs = 0; p.pairs < 2; p.pairs++) {
        prefopt_tokenizer *t = make_tokenizer(context, &p);
        IDS(t, "abc", NULL, 'a', 256); /* the first of the list, not the longest */
        IDS(t, "ab", NULL, 257);
        IDS(t, "aaa", NULL, 259, 'a'); /* the leftmost */
        IDS(t, "aab", NULL, 'a', 257);
        check_ids(t, NULL, 0, NULL, 0, "");
        check_ids(t, "a\0b", 3, (const int32_t[]){'a', 0, 'b'}, 3, NULL);
        prefopt_tokenizer_destroy(t);
    }
    p.more = "\"ignore_merges\":true,";
    prefopt_tokenizer *t = make_tokenizer(context, &p);
    IDS(t, "abc", NULL, 258); /* a whole piece that is a token */
    IDS(t, "abca", NULL, 'a', 256, 'a');
    prefopt_tokenizer_destroy(t);
    prefopt_context_destroy(context);
}
END_TEST

/* The definition: while there is a pair, merge the leftmost of the lowest rank. */
static int64_t naive(const file_parts *p, char (*parts)[512], int64_t n)
{
    for (;;) {
        for (int rank = 0;; rank++) {
            int64_t at = -1;
            if (p->merges[rank][0] == NULL)
                return n;
            for (int64_t i = 0; i + 1 < n && at < 0; i++)
                if (strcmp(parts[i], p->merges[rank][0]) == 0 &&
                    strcmp(parts[i + 1], p->merges[rank][1]) == 0)
                    at = i;
            if (at < 0)
                continue;
            strcat(parts[at], parts[at + 1]);
            memmove(parts + at + 1, parts + at + 2, (size_t)(n - at - 2) * sizeof *parts);
            n--;
            break;
        }
    }
}

START_TEST(test_long_pieces)
{
    prefopt_context *context = test_context(1);
    const file_parts p = {.merges = {{"b", "a"},
                                     {"a", "a"},
                                     {"aa", "aa"},
                                     {"ba", "c"},
                                     {"c", "c"},
                                     {"aa", "b"},
                                     {"bac", "aa"},
                                     {"cc", "c"},
                                     {"c", "aa"},
                                     {"aaaa", "aaaa"}}};
    prefopt_tokenizer *t = make_tokenizer(context, &p);
    static char parts[400][512];
    for (int round = 0; round < 60; round++) {
        char text[401] = "";
        int32_t tokens[400];
        int64_t n = 1 + round * (round < 50 ? 2 : 6), n_tokens;
        for (int64_t i = 0; i < n; i++) {
            double draw;
            OK(prefopt_random_uniform(5, (uint64_t)round, (uint64_t)i, 1, &draw));
            text[i] = draw < 0.5 ? 'a' : draw < 0.75 ? 'b' : 'c';
            sprintf(parts[i], "%c", text[i]);
        }
        int64_t expected = naive(&p, parts, n);
        OK(prefopt_tokenizer_encode(t, text, n, tokens, 400, &n_tokens));
        ck_assert_int_eq(n_tokens, expected);
        for (int64_t i = 0; i < expected; i++) {
            int64_t length;
            ck_assert_str_eq(prefopt_tokenizer_text(t, tokens[i], &length), parts[i]);
        }
    }
    prefopt_tokenizer_destroy(t);
    prefopt_context_destroy(context);
}
END_TEST

/* ---------------------------------------------------------------- added tokens, NFC */

START_TEST(test_added_tokens)
{
    prefopt_context *context = test_context(1);
    const file_parts p = {
        .normalizer = "{\"type\":\"Sequence\",\"normalizers\":[{\"type\":\"NFC\"}]}",
        .added = "{\"id\":256,\"content\":\"<x>\",\"special\":true},"
                 "{\"id\":257,\"content\":\"<x>y\"},"
                 "{\"id\":258,\"content\":\"<l>\",\"lstrip\":true},"
                 "{\"id\":259,\"content\":\"<r>\",\"rstrip\":true},"
                 "{\"id\":260,\"content\":\"foo\",\"single_word\":true},"
                 "{\"id\":261,\"content\":\"e\\u0301\",\"normalized\":true},"
                 "{\"id\":262,\"content\":\"\\u0061\\u0308\",\"normalized\":false},"
                 "{\"id\":263,\"content\":\"   \"},"
                 "{\"id\":120,\"content\":\"x\",\"single_word\":true}"};
    prefopt_tokenizer *t = make_tokenizer(context, &p);
    int32_t token;
    ck_assert_int_eq(prefopt_tokenizer_size(t), 264);
    IDS(t, "a<x>b", NULL, 'a', 256, 'b');
    IDS(t, "a<x>yb", NULL, 'a', 256, 'y', 'b'); /* the raw text's tokens come first */
    IDS(t, "a \t<l> b", "a<l> b", 'a', 258, ' ', 'b');
    IDS(t, "a <r>\u3000 b", "a <r>b", 'a', ' ', 259, 'b');
    IDS(t, "<r>  <l>", "<r><l>", 259, 258);
    IDS(t, "a foo, foo", NULL, 'a', ' ', 260, ',', ' ', 260);
    IDS(t, "afoo foo_ foo\u00e4", NULL, 'a', 'f', 'o', 'o', ' ', 'f', 'o', 'o', '_', ' ', 'f', 'o',
        'o', 0xc3, 0xa4);
    IDS(t, "e\u0301", "e\u0301", 261); /* found as U+00E9, and reads as in the file */
    IDS(t, "\u00e9", "e\u0301", 261);
    IDS(t, "a\u0308", NULL, 262);
    IDS(t, "\u00e4", NULL, 0xc3, 0xa4); /* not in the text as it is */
    IDS(t, "     ", NULL, 263, ' ', ' ');
    OK(prefopt_tokenizer_token(t, "<x>y", 4, &token));
    ck_assert_int_eq(token, 257);
    OK(prefopt_tokenizer_token(t, "\xff", 1, &token));
    ck_assert_int_eq(token, 0xff);
    OK(prefopt_tokenizer_token(t, "nope", 4, &token));
    ck_assert_int_eq(token, -1);
    OK(prefopt_tokenizer_token(t, NULL, 0, &token));
    ck_assert_int_eq(token, -1);
    prefopt_tokenizer_destroy(t);
    prefopt_context_destroy(context);
}
END_TEST

START_TEST(test_nfc)
{
    static const struct {
        const char *text, *normal;
    } cases[] = {
        {"plain \u00e9\u024f", "plain \u00e9\u024f"},
        {"e\u0301", "\u00e9"},
        {"xe\u0301y", "x\u00e9y"},
        {"\u0301e", "\u0301e"},                               /* nothing before it */
        {"a\u0307\u0323", "\u1ea1\u0307"},                    /* marks in canonical order */
        {"\u1100\u1161\u11a8 \u1100\u1161", "\uac01 \uac00"}, /* Hangul */
        {"\uac00\u11a8", "\uac01"},
        {"\u212b \u2126", "\u00c5 \u03a9"}, /* singletons */
        {"\u0958", "\u0915\u093c"},         /* a composition exclusion */
        {"\u00c5\u0301", "\u01fa"},         /* starts below U+0300 */
        {"\u6f22\u5b57 \U0001f999", "\u6f22\u5b57 \U0001f999"},
        {"\U0001d15e", "\U0001d157\U0001d165"},
    };
    prefopt_context *context = test_context(1);
    const file_parts with = {.normalizer = "{\"type\":\"NFC\"}"}, without = {.normalizer = NULL};
    prefopt_tokenizer *t = make_tokenizer(context, &with), *u = make_tokenizer(context, &without);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        int32_t ids[64], same[64];
        const char *text = cases[i].text, *normal = cases[i].normal;
        for (size_t j = 0; j < strlen(normal); j++)
            ids[j] = (unsigned char)normal[j];
        for (size_t j = 0; j < strlen(text); j++)
            same[j] = (unsigned char)text[j];
        check_ids(t, text, (int64_t)strlen(text), ids, (int64_t)strlen(normal), normal);
        check_ids(u, text, (int64_t)strlen(text), same, (int64_t)strlen(text), NULL);
    }
    prefopt_tokenizer_destroy(t);
    prefopt_tokenizer_destroy(u);
    prefopt_context_destroy(context);
}
END_TEST

/* ---------------------------------------------------------------- arguments */

START_TEST(test_invalid_utf8)
{
    static const struct {
        const char *bytes;
        int64_t n;
        const char *at; /* NULL: valid */
    } cases[] = {
        {"ab\x80", 3, "byte 2 (0x80)"},
        {"abcdefgh\xc3", 9, "byte 8 (0xc3)"},
        {"\xc0\x80", 2, "byte 0 (0xc0)"},
        {"\xc1\xbf", 2, "byte 0 (0xc1)"},
        {"a\xe0\x9f\xbf", 4, "byte 1 (0xe0)"},
        {"\xed\xa0\x80", 3, "byte 0 (0xed)"},
        {"\xf0\x8f\xbf\xbf", 4, "byte 0 (0xf0)"},
        {"\xf4\x90\x80\x80", 4, "byte 0 (0xf4)"},
        {"\xf5\x80\x80\x80", 4, "byte 0 (0xf5)"},
        {"\xe2\x82", 2, "byte 0 (0xe2)"},
        {"\xe2\x82z", 3, "byte 0 (0xe2)"},
        {"\xed\x9f\xbf\xee\x80\x80\xf4\x8f\xbf\xbf\xe0\xa0\x80\xf0\x90\x80\x80", 17, NULL},
    };
    prefopt_context *context = test_context(1);
    const file_parts p = {.normalizer = "{\"type\":\"NFC\"}"};
    prefopt_tokenizer *t = make_tokenizer(context, &p);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        int32_t tokens[32] = {-7};
        int64_t n = -7;
        if (cases[i].at == NULL) {
            OK(prefopt_tokenizer_encode(t, cases[i].bytes, cases[i].n, tokens, 32, &n));
            ck_assert_int_eq(n, cases[i].n);
            continue;
        }
        FAILS(PREFOPT_ERR_ARGUMENT, cases[i].at,
              prefopt_tokenizer_encode(t, cases[i].bytes, cases[i].n, tokens, 32, &n));
        ck_assert_int_eq(n, -7);
        ck_assert_int_eq(tokens[0], -7);
    }
    prefopt_tokenizer_destroy(t);
    prefopt_context_destroy(context);
}
END_TEST

START_TEST(test_capacities_and_arguments)
{
    prefopt_context *context = test_context(1);
    const file_parts p = {.merges = {{"a", "b"}}};
    prefopt_tokenizer *t = make_tokenizer(context, &p);
    int32_t tokens[8] = {-7, -7, -7, -7};
    char bytes[8] = "zzzzzzz";
    int64_t n = -7;
    OK(prefopt_tokenizer_encode(t, "abcd", 4, NULL, 0, &n));
    ck_assert_int_eq(n, 3);
    OK(prefopt_tokenizer_encode(t, "abcd", 4, tokens, 2, &n));
    ck_assert_int_eq(n, 3);
    ck_assert(tokens[0] == 256 && tokens[1] == 'c' && tokens[2] == -7);
    tokens[2] = 'd';
    OK(prefopt_tokenizer_decode(t, tokens, 3, NULL, 0, &n));
    ck_assert_int_eq(n, 4);
    OK(prefopt_tokenizer_decode(t, tokens, 3, bytes, 1, &n));
    ck_assert_int_eq(n, 4);
    ck_assert_str_eq(bytes, "azzzzzz");
    OK(prefopt_tokenizer_decode(t, NULL, 0, NULL, 0, &n));
    ck_assert_int_eq(n, 0);
    n = -7;
    tokens[1] = 257;
    FAILS(PREFOPT_ERR_ARGUMENT, "tokens[1] is 257",
          prefopt_tokenizer_decode(t, tokens, 3, bytes, 8, &n));
    tokens[1] = -1;
    FAILS(PREFOPT_ERR_ARGUMENT, "tokens[1] is -1",
          prefopt_tokenizer_decode(t, tokens, 3, bytes, 8, &n));
    FAILS(PREFOPT_ERR_ARGUMENT, "n is -1", prefopt_tokenizer_decode(t, tokens, -1, bytes, 8, &n));
    FAILS(PREFOPT_ERR_ARGUMENT, "capacity", prefopt_tokenizer_decode(t, tokens, 1, bytes, -1, &n));
    FAILS(PREFOPT_ERR_ARGUMENT, "tokens is NULL",
          prefopt_tokenizer_decode(t, NULL, 1, bytes, 8, &n));
    FAILS(PREFOPT_ERR_ARGUMENT, "utf8 is NULL",
          prefopt_tokenizer_decode(t, tokens, 1, NULL, 8, &n));
    FAILS(PREFOPT_ERR_ARGUMENT, "n_bytes is NULL",
          prefopt_tokenizer_decode(t, tokens, 1, bytes, 8, NULL));
    FAILS(PREFOPT_ERR_ARGUMENT, "tokenizer is NULL",
          prefopt_tokenizer_decode(NULL, tokens, 1, bytes, 8, &n));
    FAILS(PREFOPT_ERR_ARGUMENT, "tokenizer is NULL",
          prefopt_tokenizer_encode(NULL, "a", 1, tokens, 8, &n));
    FAILS(PREFOPT_ERR_ARGUMENT, "utf8 is NULL",
          prefopt_tokenizer_encode(t, NULL, 1, tokens, 8, &n));
    FAILS(PREFOPT_ERR_ARGUMENT, "tokens is NULL", prefopt_tokenizer_encode(t, "a", 1, NULL, 8, &n));
    FAILS(PREFOPT_ERR_ARGUMENT, "n_tokens is NULL",
          prefopt_tokenizer_encode(t, "a", 1, tokens, 8, NULL));
    FAILS(PREFOPT_ERR_ARGUMENT, "n_bytes is -1",
          prefopt_tokenizer_encode(t, "a", -1, tokens, 8, &n));
    FAILS(PREFOPT_ERR_ARGUMENT, "capacity is -1",
          prefopt_tokenizer_encode(t, "a", 1, tokens, -1, &n));
    ck_assert_int_eq(n, -7);
    ck_assert_ptr_null(prefopt_tokenizer_text(t, 257, &n));
    ck_assert_ptr_null(prefopt_tokenizer_text(NULL, 0, &n));
    ck_assert_ptr_null(prefopt_tokenizer_text(t, 0, NULL));
    FAILS(PREFOPT_ERR_ARGUMENT, "token is NULL", prefopt_tokenizer_token(t, "a", 1, NULL));
    FAILS(PREFOPT_ERR_ARGUMENT, "utf8 is NULL", prefopt_tokenizer_token(t, NULL, 1, tokens));
    FAILS(PREFOPT_ERR_ARGUMENT, "n_bytes", prefopt_tokenizer_token(t, "a", -1, tokens));
    FAILS(PREFOPT_ERR_ARGUMENT, "tokenizer", prefopt_tokenizer_token(NULL, "a", 1, tokens));
    ck_assert_int_eq(prefopt_tokenizer_size(NULL), 0);
    prefopt_tokenizer_destroy(NULL);
    prefopt_tokenizer_destroy(t);
    prefopt_context_destroy(context);
}
END_TEST

/* ---------------------------------------------------------------- threads */

typedef struct {
    const prefopt_tokenizer *t;
    const char *text;
    const int32_t *expected;
    int64_t n_bytes, n;
    int wrong;
} job;

static void *work(void *payload)
{
    job *j = payload;
    int32_t *tokens = malloc(sizeof *tokens * (size_t)j->n_bytes);
    for (int i = 0; i < 20 && tokens != NULL; i++) {
        int64_t n = 0;
        j->wrong += prefopt_tokenizer_encode(j->t, j->text, j->n_bytes, tokens, j->n_bytes, &n) !=
                        PREFOPT_OK ||
                    n != j->n || memcmp(tokens, j->expected, sizeof *tokens * (size_t)n) != 0;
    }
    j->wrong += tokens == NULL;
    free(tokens);
    return NULL;
}

START_TEST(test_many_threads_on_one_handle)
{
    enum { THREADS = 8, BYTES = 6000 };
    static char text[BYTES];
    static int32_t expected[BYTES];
    prefopt_context *context = test_context(1);
    const file_parts p = {.normalizer = "{\"type\":\"NFC\"}",
                          .added = "{\"id\":258,\"content\":\"<x>\",\"special\":true}",
                          .merges = {{"a", "b"}, {"ab", "ab"}}};
    prefopt_tokenizer *t = make_tokenizer(context, &p);
    int64_t n_bytes = 0, n;
    for (int i = 0; n_bytes < BYTES - 200; i++) {
        n_bytes += sprintf(text + n_bytes, "%s ",
                           i % 7 == 0   ? "<x>"
                           : i % 5 == 0 ? "e\u0301"
                                        : "ab");
        for (int j = 0; j < i % 70; j++)
            text[n_bytes++] = "ab"[j % 2];
    }
    OK(prefopt_tokenizer_encode(t, text, n_bytes, expected, BYTES, &n));
    pthread_t threads[THREADS];
    job jobs[THREADS];
    for (int i = 0; i < THREADS; i++) {
        jobs[i] = (job){t, text, expected, n_bytes, n, 0};
        ck_assert_int_eq(pthread_create(&threads[i], NULL, work, &jobs[i]), 0);
    }
    for (int i = 0; i < THREADS; i++) {
        pthread_join(threads[i], NULL);
        ck_assert_int_eq(jobs[i].wrong, 0);
    }
    prefopt_tokenizer_destroy(t);
    prefopt_context_destroy(context);
}
END_TEST

TEST_MAIN("tokenizer", test_gpt2_pieces, test_split_and_digits, test_merges, test_long_pieces,
          test_added_tokens, test_nfc, test_invalid_utf8, test_capacities_and_arguments,
          test_many_threads_on_one_handle)
