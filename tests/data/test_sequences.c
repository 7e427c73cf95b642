#include "data/pf_data.h"
#include "pf_test.h"

/* Five sequences; 0 and 3 are the same, 4 differs from them only in where its prompt ends. */
static const int32_t tokens[] = {7, 1, 2, 7, 3, 7, 1, 2, 7, 1, 2};
static const int64_t offsets[] = {0, 3, 5, 5, 8, 11}, prompt_len[] = {1, 1, 0, 1, 2};

static prefopt_sequences view(void)
{
    return (prefopt_sequences){.struct_size = sizeof(prefopt_sequences),
                               .n = 5,
                               .tokens = tokens,
                               .offsets = offsets,
                               .prompt_len = prompt_len};
}

START_TEST(checks_a_view)
{
    prefopt_sequences in = view();
    OK(pf_sequences_check(&in, "in"));
    FAILS(PREFOPT_ERR_ARGUMENT, "in is NULL", pf_sequences_check(NULL, "in"));
    in.struct_size = 8;
    FAILS(PREFOPT_ERR_VERSION, "struct_size is 8", pf_sequences_check(&in, "in"));
    in = view();
    in.n = -2;
    FAILS(PREFOPT_ERR_ARGUMENT, "in: n is -2", pf_sequences_check(&in, "in"));
    in = view();
    in.offsets = NULL;
    FAILS(PREFOPT_ERR_ARGUMENT, "offsets is NULL", pf_sequences_check(&in, "in"));
    in = view();
    in.prompt_len = NULL;
    FAILS(PREFOPT_ERR_ARGUMENT, "prompt_len is NULL", pf_sequences_check(&in, "in"));
    in = view();
    in.tokens = NULL;
    FAILS(PREFOPT_ERR_ARGUMENT, "tokens is NULL", pf_sequences_check(&in, "in"));

    int64_t o[6];
    in = view();
    in.offsets = o;
    memcpy(o, offsets, sizeof o);
    o[0] = -1;
    FAILS(PREFOPT_ERR_ARGUMENT, "offsets[0] is -1", pf_sequences_check(&in, "in"));
    memcpy(o, offsets, sizeof o);
    o[3] = 4;
    FAILS(PREFOPT_ERR_ARGUMENT, "offsets[3] is 4", pf_sequences_check(&in, "in"));
    int64_t p[5] = {1, 3, 0, 1, 2};
    in = view();
    in.prompt_len = p;
    FAILS(PREFOPT_ERR_ARGUMENT, "prompt_len[1] is 3", pf_sequences_check(&in, "in"));
    p[1] = -1;
    FAILS(PREFOPT_ERR_ARGUMENT, "prompt_len[1] is -1", pf_sequences_check(&in, "in"));
    int32_t t[11];
    memcpy(t, tokens, sizeof t);
    t[6] = -9;
    in = view();
    in.tokens = t;
    FAILS(PREFOPT_ERR_ARGUMENT, "token 1 of sequence 3 is -9", pf_sequences_check(&in, "in"));

    /* Nothing is needed for nothing, and no tokens for empty sequences. */
    prefopt_sequences none = {.struct_size = sizeof none};
    OK(pf_sequences_check(&none, "none"));
    int64_t zero[3] = {0};
    prefopt_sequences empty = {
        .struct_size = sizeof empty, .n = 2, .offsets = zero, .prompt_len = zero};
    OK(pf_sequences_check(&empty, "empty"));
}
END_TEST

/* Same tokens, prompt ending at the same place. */
static bool same(const prefopt_sequences *a, int64_t i, const prefopt_sequences *b, int64_t j)
{
    int64_t len = pf_sequence_len(a, i);
    if (len != pf_sequence_len(b, j) || a->prompt_len[i] != b->prompt_len[j])
        return false;
    return len == 0 ||
           memcmp(pf_sequence_tokens(a, i), pf_sequence_tokens(b, j), (size_t)len * 4) == 0;
}

START_TEST(parts)
{
    prefopt_sequences in = view(), part = pf_sequences_part(&in, 2, 3);
    OK(pf_sequences_check(&part, "part"));
    ck_assert_int_eq(part.n, 3);
    ck_assert(same(&part, 1, &in, 0));
    ck_assert(!same(&part, 2, &in, 0)); /* another prompt */
    ck_assert(!same(&in, 1, &in, 0));
    ck_assert(same(&part, 0, &in, 2)); /* both empty */
    ck_assert_ptr_null(pf_sequence_tokens(&in, 2));
    prefopt_sequences none = pf_sequences_part(&in, 5, 0);
    OK(pf_sequences_check(&none, "none"));
}
END_TEST

START_TEST(map_of_sequences)
{
    prefopt_context *context = test_context(1);
    prefopt_sequences in = view();
    pf_sequence_map *map = NULL;
    int64_t index[5];
    OK(pf_sequence_map_create(&map, context, &in, PF_MAP_SEQUENCES, index));
    const int64_t expected[] = {0, 1, 2, 0, 3};
    for (int64_t i = 0; i < 5; i++) {
        ck_assert_int_eq(index[i], expected[i]);
        ck_assert_int_eq(pf_sequence_map_find(map, &in, i), expected[i]);
    }
    ck_assert_int_eq(pf_sequence_map_size(map), 4);
    const prefopt_sequences *stored = pf_sequence_map_view(map);
    OK(pf_sequences_check(stored, "stored"));
    ck_assert(same(stored, 3, &in, 4));
    ck_assert_int_eq(pf_sequence_map_find_tokens(map, tokens, 3, 0), -1);
    ck_assert_int_eq(pf_sequence_map_find_tokens(map, tokens, 2, 1), -1);
    ck_assert_int_eq(pf_sequence_map_find_tokens(map, NULL, 0, 0), 2);
    /* A part of a view whose offsets do not begin at 0. */
    prefopt_sequences part = pf_sequences_part(&in, 3, 2);
    ck_assert_int_eq(pf_sequence_map_find(map, &part, 0), 0);
    ck_assert_int_eq(pf_sequence_map_find(map, &part, 1), 3);
    pf_sequence_map *shared = pf_sequence_map_retain(map);
    pf_sequence_map_destroy(map);
    prefopt_context_destroy(context); /* the map keeps it */
    ck_assert_int_eq(pf_sequence_map_find(shared, &in, 1), 1);
    pf_sequence_map_destroy(shared);
    pf_sequence_map_destroy(NULL);
}
END_TEST

START_TEST(map_of_prompts)
{
    prefopt_context *context = test_context(1);
    prefopt_sequences in = view();
    pf_sequence_map *map = NULL;
    int64_t index[5];
    OK(pf_sequence_map_create(&map, context, &in, PF_MAP_PROMPTS, index));
    const int64_t expected[] = {0, 0, 1, 0, 2};
    for (int64_t i = 0; i < 5; i++) {
        ck_assert_int_eq(index[i], expected[i]);
        ck_assert_int_eq(pf_sequence_map_find(map, &in, i), expected[i]);
    }
    const prefopt_sequences *stored = pf_sequence_map_view(map);
    ck_assert_int_eq(stored->n, 3);
    ck_assert_int_eq(pf_sequence_len(stored, 2), 2);
    ck_assert_int_eq(stored->prompt_len[2], 2);
    pf_sequence_map_destroy(map);
    /* An empty map finds nothing. */
    in.n = 0;
    OK(pf_sequence_map_create(&map, context, &in, PF_MAP_PROMPTS, NULL));
    ck_assert_int_eq(pf_sequence_map_size(map), 0);
    ck_assert_int_eq(pf_sequence_map_find_tokens(map, NULL, 0, 0), -1);
    pf_sequence_map_destroy(map);
    prefopt_context_destroy(context);
}
END_TEST

START_TEST(map_of_many)
{
    enum { N = 20000 };
    static int32_t many[2 * N];
    static int64_t at[N + 1], one[N], index[N];
    for (int64_t i = 0; i < N; i++) {
        many[2 * i] = (int32_t)(i % 5);
        many[2 * i + 1] = (int32_t)(i % 10000) << 16; /* the same low bits */
        at[i + 1] = 2 * i + 2;
        one[i] = 1;
    }
    prefopt_sequences in = {
        .struct_size = sizeof in, .n = N, .tokens = many, .offsets = at, .prompt_len = one};
    prefopt_context *context = test_context(1);
    pf_sequence_map *map = NULL;
    OK(pf_sequence_map_create(&map, context, &in, PF_MAP_SEQUENCES, index));
    ck_assert_int_eq(pf_sequence_map_size(map), 10000);
    for (int64_t i = 0; i < N; i++)
        ck_assert_int_eq(index[i], i % 10000);
    pf_sequence_map_destroy(map);
    prefopt_context_destroy(context);
}
END_TEST

START_TEST(map_without_memory)
{
    counting_allocator a = {0};
    prefopt_context *context = counting_context(&a);
    prefopt_sequences in = view();
    pf_sequence_map *map = NULL;
    int64_t index[5] = {-7, -7, -7, -7, -7}, live = a.live, failures = 0;
    for (a.calls = 0, a.fail_at = 1;; a.calls = 0, a.fail_at++) {
        int32_t status = pf_sequence_map_create(&map, context, &in, PF_MAP_SEQUENCES, index);
        if (status == PREFOPT_OK)
            break;
        failures++;
        ck_assert_int_eq(status, PREFOPT_ERR_MEMORY);
        ck_assert_int_eq(a.live, live);
        ck_assert_ptr_null(map);
        ck_assert_int_eq(index[0], -7);
    }
    ck_assert_int_eq(failures, 6);
    FAILS(PREFOPT_ERR_ARGUMENT, "out is NULL",
          pf_sequence_map_create(NULL, context, &in, PF_MAP_SEQUENCES, NULL));
    FAILS(PREFOPT_ERR_ARGUMENT, "context is NULL",
          pf_sequence_map_create(&map, NULL, &in, PF_MAP_SEQUENCES, NULL));
    FAILS(PREFOPT_ERR_ARGUMENT, "in is NULL",
          pf_sequence_map_create(&map, context, NULL, PF_MAP_SEQUENCES, NULL));
    pf_sequence_map_destroy(map);
    prefopt_context_destroy(context);
    ck_assert_int_eq(a.live, 0);
}
END_TEST

TEST_MAIN("sequences", checks_a_view, parts, map_of_sequences, map_of_prompts, map_of_many,
          map_without_memory)
