/* Safetensors: every way in which a file can be wrong is named, and values come back exactly. */
#define _GNU_SOURCE
#include "checkpoint_test.h"

static prefopt_context *context;

/* Parses header + zeros. */
static int32_t parse(const char *header, size_t n_data)
{
    size_t n;
    char *bytes = make_safetensors(header, NULL, n_data, &n);
    pf_safetensors file;
    int32_t status = pf_safetensors_parse(&file, context, "m.safetensors", bytes, (int64_t)n);
    if (status == PREFOPT_OK)
        pf_safetensors_close(&file);
    free(bytes);
    return status;
}

#define BAD(text, header, n_data) FAILS(PREFOPT_ERR_FORMAT, text, parse(header, n_data))
#define ENTRY(dtype, shape, offsets)                                                               \
    "{\"dtype\":\"" dtype "\",\"shape\":" shape ",\"data_offsets\":" offsets "}"

START_TEST(test_parse)
{
    context = test_context(1);
    /* Out of order, one of no elements, one scalar, a dtype that is not read. */
    const char *header = "{\"b\":" ENTRY(
        "F32", "[2,3]",
        "[2,26]") ",\"__metadata__\":{\"format\":\"pt\","
                  "\"prefopt_save\":\"0123456789abcdef\"},\"a\":" ENTRY(
                      "BF16", "[]",
                      "[0,2]") ",\"none\":" ENTRY("F16", "[3,0]",
                                                  "[2,2]") ",\"c\":" ENTRY("BOOL", "[2]",
                                                                           "[26,28]") "}   ";
    unsigned char data[28] = {0xc0, 0x3f}; /* 1.5 */
    const float b[6] = {1, -2, 3.25F, 0, -0.0F, 1e30F};
    memcpy(data + 2, b, sizeof b);
    size_t n;
    char *bytes = make_safetensors(header, data, sizeof data, &n);
    pf_safetensors file;
    OK(pf_safetensors_parse(&file, context, "m.safetensors", bytes, (int64_t)n));
    ck_assert_int_eq(file.n_tensors, 4);
    ck_assert_str_eq(file.save, "0123456789abcdef");
    const char *names[] = {"a", "none", "b", "c"};
    for (int i = 0; i < 4; i++)
        ck_assert_str_eq(file.tensors[i].name, names[i]);
    ck_assert_int_eq(file.tensors[0].n_dims, 0);
    ck_assert_int_eq(file.tensors[0].n, 1);
    ck_assert_int_eq(file.tensors[1].n, 0);
    ck_assert_int_eq(file.tensors[2].dims[1], 3);
    ck_assert_int_eq(file.tensors[3].dtype, -1);
    float x[6];
    pf_safetensors_values(&file.tensors[0], 0, 1, x);
    ck_assert(x[0] == 1.5F);
    pf_safetensors_values(&file.tensors[2], 1, 5, x);
    ck_assert_mem_eq(x, b + 1, 5 * sizeof *b);
    pf_safetensors_close(&file);
    pf_safetensors_close(&file); /* nothing is left to close */
    /* At an odd address. */
    char *odd = malloc(n + 1);
    memcpy(odd + 1, bytes, n);
    OK(pf_safetensors_parse(&file, context, "m.safetensors", odd + 1, (int64_t)n));
    pf_safetensors_values(&file.tensors[0], 0, 1, x);
    ck_assert(x[0] == 1.5F);
    pf_safetensors_values(&file.tensors[2], 0, 6, x);
    ck_assert_mem_eq(x, b, sizeof b);
    pf_safetensors_close(&file);
    free(odd);
    /* No tensors. */
    OK(parse("{}", 0));
    free(bytes);
    prefopt_context_destroy(context);
}
END_TEST

START_TEST(test_length)
{
    context = test_context(1);
    pf_safetensors file;
    const unsigned char huge[16] = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, '{', '}'};
    const unsigned char hundred[16] = {0, 0xe1, 0xf5, 5, 0, 0, 0, 0, '{', '}'};
    const unsigned char over[16] = {9, 0, 0, 0, 0, 0, 0, 0, '{', '}', ' ', ' ', ' ', ' ', ' ', ' '};
    const char *path = "dir/m.safetensors";
    FAILS(PREFOPT_ERR_FORMAT, "m.safetensors: the file has 0 bytes",
          pf_safetensors_parse(&file, context, path, NULL, 0));
    FAILS(PREFOPT_ERR_FORMAT, "the file has 7 bytes",
          pf_safetensors_parse(&file, context, path, huge, 7));
    FAILS(PREFOPT_ERR_FORMAT, "18446744073709551615",
          pf_safetensors_parse(&file, context, path, huge, 16));
    FAILS(PREFOPT_ERR_FORMAT, "the header has 100000000 bytes, but the file has 8 after",
          pf_safetensors_parse(&file, context, path, hundred, 16));
    FAILS(PREFOPT_ERR_FORMAT, "the header has 9 bytes, but the file has 8 after",
          pf_safetensors_parse(&file, context, path, over, 16));
    prefopt_context_destroy(context);
}
END_TEST

START_TEST(test_headers)
{
    context = test_context(1);
    BAD("does not start with {", "", 0);
    BAD("does not start with {", " {}", 0);
    BAD("does not start with {", "[]", 0);
    BAD("not valid JSON", "{", 0);
    BAD("not valid JSON", "{} x", 0);
    BAD("not valid JSON", "{\"a\":", 0);
    BAD("duplicate",
        "{\"a\":" ENTRY("F32", "[1]", "[0,4]") ",\"a\":" ENTRY("F32", "[1]", "[0,4]") "}", 4);
    BAD("not valid JSON", "{\"\xff\":" ENTRY("F32", "[1]", "[0,4]") "}", 4);
    BAD("__metadata__", "{\"__metadata__\":[]}", 0);
    BAD("tensor w: the header's entry is not an object", "{\"w\":3}", 4);
    BAD("tensor w: dtype is missing", "{\"w\":{\"shape\":[1],\"data_offsets\":[0,4]}}", 4);
    BAD("dtype is \"F33\"", "{\"w\":" ENTRY("F33", "[1]", "[0,4]") "}", 4);
    BAD("tensor w: shape is not", "{\"w\":{\"dtype\":\"F32\",\"data_offsets\":[0,4]}}", 4);
    BAD("tensor w: shape is not", "{\"w\":" ENTRY("F32", "[1,1,1,1,1,1,1,1,1]", "[0,4]") "}", 4);
    BAD("shape[1] is not an integer of at least 0", "{\"w\":" ENTRY("F32", "[1,-1]", "[0,4]") "}",
        4);
    BAD("shape[0] is not an integer of at least 0", "{\"w\":" ENTRY("F32", "[1.0]", "[0,4]") "}",
        4);
    BAD("overflows", "{\"w\":" ENTRY("F32", "[4294967296,4294967296]", "[0,4]") "}", 4);
    BAD("which are not those of its shape [4611686018427387904] in F32",
        "{\"w\":" ENTRY("F32", "[4611686018427387904]", "[0,4]") "}", 4);
    BAD("not valid JSON", "{\"w\":" ENTRY("F32", "[99999999999999999999]", "[0,4]") "}", 4);
    BAD("data_offsets are not two integers", "{\"w\":" ENTRY("F32", "[1]", "[0]") "}", 4);
    BAD("data_offsets are not two integers", "{\"w\":" ENTRY("F32", "[1]", "[0,4,4]") "}", 4);
    BAD("data_offsets are not two integers", "{\"w\":" ENTRY("F32", "[1]", "[0,4.0]") "}", 4);
    BAD("data_offsets are not two integers", "{\"w\":" ENTRY("F32", "[1]", "\"04\"") "}", 4);
    BAD("[-4, 0], but the file has 4 bytes", "{\"w\":" ENTRY("F32", "[1]", "[-4,0]") "}", 4);
    BAD("[4, 0], but the file has 4 bytes", "{\"w\":" ENTRY("F32", "[1]", "[4,0]") "}", 4);
    BAD("[0, 8], but the file has 4 bytes", "{\"w\":" ENTRY("F32", "[2]", "[0,8]") "}", 4);
    BAD("[0, 9223372036854775807], but",
        "{\"w\":" ENTRY("F32", "[2]", "[0,9223372036854775807]") "}", 4);
    BAD("[0, 4], 4 bytes, which are not those of its shape [2] in F32",
        "{\"w\":" ENTRY("F32", "[2]", "[0,4]") "}", 4);
    BAD("[0, 8], 8 bytes, which are not those of its shape [2, 3] in F16",
        "{\"w\":" ENTRY("F16", "[2,3]", "[0,8]") "}", 8);
    BAD("m.safetensors: tensor b starts at byte 4 of the data, overlapping a, which ends at 8",
        "{\"a\":" ENTRY("F32", "[2]", "[0,8]") ",\"b\":" ENTRY("F32", "[2]", "[4,12]") "}", 12);
    BAD("overlapping a",
        "{\"a\":" ENTRY("F32", "[2]", "[0,8]") ",\"b\":" ENTRY("F32", "[2]", "[0,8]") "}", 8);
    BAD("tensor b starts at byte 8 of the data, after a gap that follows a, which ends at 4",
        "{\"a\":" ENTRY("F32", "[1]", "[0,4]") ",\"b\":" ENTRY("F32", "[1]", "[8,12]") "}", 12);
    BAD("after a gap that follows the header", "{\"a\":" ENTRY("F32", "[1]", "[4,8]") "}", 8);
    BAD("the data has 8 bytes, but the header's tensors end at 4",
        "{\"a\":" ENTRY("F32", "[1]", "[0,4]") "}", 8);
    BAD("the data has 3 bytes", "{}", 3);
    prefopt_context_destroy(context);
}
END_TEST

/* A header of brackets would cost its parser many times its size. */
START_TEST(test_nested)
{
    context = test_context(1);
    enum { N = 1 << 20 };
    char *header = calloc(N + 16, 1);
    memcpy(header, "{\"a\":[", 6);
    for (size_t i = 6; i + 3 < N; i += 3)
        memcpy(header + i, "{},", 3);
    BAD("too many brackets", header, 0);
    memset(header + 6, '[', N - 6);
    BAD("too many brackets", header, 0);
    free(header);
    prefopt_context_destroy(context);
}
END_TEST

START_TEST(test_names_are_shown)
{
    context = test_context(1);
    /* A long name with control characters and a cut in the middle of a character. */
    char header[600] = "{\"\\n\\t", *at = header + strlen(header);
    for (int i = 0; i < 80; i++)
        at += sprintf(at, "\xc3\xa9");
    sprintf(at, "\":3}");
    BAD("tensor ??\xc3\xa9\xc3\xa9", header, 0);
    ck_assert_ptr_nonnull(strstr(prefopt_last_error(), "\xc3\xa9...: the header's entry"));
    prefopt_context_destroy(context);
}
END_TEST

START_TEST(test_not_finite)
{
    enum { N = 5000 };
    float *x = calloc(N, sizeof *x);
    x[3] = -3.4028234e38F;
    x[7] = 1e-45F;
    ck_assert_int_eq(pf_first_not_finite(N, x), N);
    ck_assert_int_eq(pf_first_not_finite(0, x), 0);
    x[N - 1] = -INFINITY;
    ck_assert_int_eq(pf_first_not_finite(N, x), N - 1);
    x[4000] = NAN;
    ck_assert_int_eq(pf_first_not_finite(N, x), 4000);
    x[512] = INFINITY;
    ck_assert_int_eq(pf_first_not_finite(N, x), 512);
    free(x);
}
END_TEST

START_TEST(test_memory)
{
    counting_allocator allocator = {0};
    context = counting_context(&allocator);
    const int64_t before = allocator.live;
    allocator.calls = 0;
    allocator.fail_at = 1;
    while (parse("{\"a\":" ENTRY("F32", "[1]", "[0,4]") "}", 4) != PREFOPT_OK) {
        ck_assert_int_eq(allocator.live, before);
        ck_assert_int_lt(allocator.fail_at, 10);
        allocator.calls = 0;
        allocator.fail_at++;
    }
    ck_assert_int_gt(allocator.fail_at, 1);
    ck_assert_int_eq(allocator.live, before);
    prefopt_context_destroy(context);
}
END_TEST

TEST_MAIN("safetensors", test_parse, test_length, test_headers, test_nested, test_names_are_shown,
          test_not_finite, test_memory)
