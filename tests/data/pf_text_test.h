/* Text datasets for tests: a small tokenizer, and lines read from memory. */
#ifndef PF_TEXT_TEST_H
#define PF_TEXT_TEST_H

/* First: the others have a variable by the name of one of its parameters. */
#include "data/pf_tokenizer_test.h"

#include "data/pf_jsonl_test.h"
#include "data/pf_text.h"

enum { END = 262 };

/* The 256 bytes, then: 256 "ab", 257 two line ends, 258 "ll", 259 " a", 260 " ab", 261 two spaces
 * (added), 262 <|end|>. */
static const file_parts small_parts = {
    .normalizer = "{\"type\":\"NFC\"}",
    .added = "{\"id\":261,\"content\":\"  \",\"special\":false,\"normalized\":true},"
             "{\"id\":262,\"content\":\"<|end|>\",\"special\":true,\"normalized\":false}",
    .merges = {{"a", "b"}, {"\n", "\n"}, {"l", "l"}, {" ", "a"}, {" ", "ab"}}};

static prefopt_tokenizer *tokenizer;
static prefopt_text_options options;
static prefopt_text_counts counts;

static inline void set_up_text(void)
{
    set_up();
    tokenizer = make_tokenizer(context, &small_parts);
    OK(prefopt_text_options_init(&options, sizeof options));
    counts = (prefopt_text_counts){.struct_size = sizeof counts};
}

static inline void tear_down_text(void)
{
    prefopt_tokenizer_destroy(tokenizer);
    tear_down();
}

static inline int32_t try_text(prefopt_dataset **out, const char *text)
{
    return pf_text_parse(out, context, tokenizer, "memory", text, (int64_t)strlen(text), &options,
                         &counts);
}

static inline prefopt_dataset *parse_text(const char *text)
{
    prefopt_dataset *data = NULL;
    OK(try_text(&data, text));
    return data;
}

static inline void check_tokens(const int32_t *tokens, int64_t n, const int32_t *expected,
                                int64_t m, const char *what)
{
    ck_assert_msg(n == m, "%s: %lld tokens, expected %lld", what, (long long)n, (long long)m);
    for (int64_t i = 0; i < n; i++)
        ck_assert_msg(tokens[i] == expected[i], "%s: token %lld is %d, expected %d", what,
                      (long long)i, tokens[i], expected[i]);
}

#define TOKENS(tokens, n, ...)                                                                     \
    do {                                                                                           \
        const int32_t expected_[] = {-1, __VA_ARGS__};                                             \
        check_tokens((tokens), (n), expected_ + 1,                                                 \
                     (int64_t)(sizeof expected_ / sizeof expected_[0]) - 1, #__VA_ARGS__);         \
    } while (0)

#define PROMPT(row, ...) TOKENS((row).prompt, (row).prompt_len, __VA_ARGS__)
#define COMPLETION(row, c, ...)                                                                    \
    TOKENS((row).completions + (row).completion_offsets[c],                                        \
           (row).completion_offsets[(c) + 1] - (row).completion_offsets[c], __VA_ARGS__)

#endif
