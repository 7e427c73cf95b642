#include "data/pf_dataset_test.h"

START_TEST(rows_come_back)
{
    prefopt_context *context = test_context(1);
    prefopt_dataset *data = four_rows(context);
    prefopt_context_destroy(context); /* the dataset keeps it */
    ck_assert_int_eq(prefopt_dataset_size(data), 4);
    prefopt_row row = row_of(data, 0), expected = pair_row();
    ck_assert_int_eq(row.kind, PREFOPT_ROW_PAIR);
    ck_assert_int_eq(row.n_completions, 2);
    ck_assert_int_eq(row.prompt_len, 2);
    ck_assert_mem_eq(row.prompt, expected.prompt, 8);
    ck_assert_mem_eq(row.completions, expected.completions, 12);
    ck_assert_mem_eq(row.completion_offsets, expected.completion_offsets, 24);
    ck_assert_mem_eq(row.logp, expected.logp, 16);
    ck_assert(isnan(row.score[0]) && row.score[1] == 0.25);
    ck_assert_ptr_null(row.ref_logp);
    ck_assert_ptr_null(row.sampler_logp);
    ck_assert_ptr_null(row.extra);
    ck_assert(row.weight == 2 && row.label == 0.75 && row.margin == -0.5);
    row = row_of(data, 1);
    ck_assert_int_eq(row.kind, PREFOPT_ROW_PROMPT);
    ck_assert_int_eq(row.n_completions, 0);
    ck_assert_int_eq(row.prompt[0], 5);
    ck_assert_ptr_null(row.completions);
    row = row_of(data, 2);
    ck_assert_int_eq(row.n_completions, 3);
    const int64_t offsets[] = {0, 2, 2, 5};
    ck_assert_mem_eq(row.completion_offsets, offsets, sizeof offsets);
    for (int32_t t = 0; t < 5; t++)
        ck_assert_int_eq(row.completions[t], 5 + t);
    row = row_of(data, 3);
    ck_assert_int_eq(row.prompt_len, 0);
    ck_assert_int_eq(row.completion_offsets[1], 2);

    FAILS(PREFOPT_ERR_ARGUMENT, "row 4", prefopt_dataset_row(data, 4, &row));
    FAILS(PREFOPT_ERR_ARGUMENT, "row -1", prefopt_dataset_row(data, -1, &row));
    FAILS(PREFOPT_ERR_ARGUMENT, "dataset is NULL", prefopt_dataset_row(NULL, 0, &row));
    FAILS(PREFOPT_ERR_ARGUMENT, "out is NULL", prefopt_dataset_row(data, 0, NULL));
    row.struct_size = 4;
    FAILS(PREFOPT_ERR_VERSION, "struct_size is 4", prefopt_dataset_row(data, 0, &row));
    prefopt_dataset_destroy(data);
}
END_TEST

START_TEST(columns_and_sequences)
{
    prefopt_context *context = test_context(1);
    prefopt_dataset *data = NULL;
    OK(prefopt_dataset_create(&data, context));
    prefopt_columns columns = columns_of(data);
    ck_assert_int_eq(columns.n_rows + columns.n_sequences, 0);
    ck_assert_int_eq(columns.first[0], 0);
    ck_assert_int_eq(sequences_of(data).n, 0);
    prefopt_dataset_destroy(data);

    data = four_rows(context);
    columns = columns_of(data);
    const int64_t first[] = {0, 2, 3, 6, 7};
    const int32_t kind[] = {PREFOPT_ROW_PAIR, PREFOPT_ROW_PROMPT, PREFOPT_ROW_RANKING,
                            PREFOPT_ROW_COMPLETIONS};
    ck_assert_int_eq(columns.n_rows, 4);
    ck_assert_int_eq(columns.n_sequences, 7);
    ck_assert_mem_eq(columns.first, first, sizeof first);
    ck_assert_mem_eq(columns.kind, kind, sizeof kind);
    ck_assert(columns.weight[0] == 2 && columns.weight[3] == 1 && columns.label[2] == 1);
    ck_assert(columns.margin[0] == -0.5 && columns.margin[3] == 0);
    ck_assert(columns.logp[0] == -1.5 && columns.logp[1] == -INFINITY && isnan(columns.logp[2]));
    ck_assert(isnan(columns.ref_logp[6]) && isnan(columns.sampler_logp[0]));
    prefopt_sequences view = sequences_of(data);
    const int32_t tokens[] = {7, 8, 1, 2, 7, 8, 3, 5, 5, 5, 6, 5, 5, 7, 8, 9, 5, 6};
    const int64_t offsets[] = {0, 4, 7, 8, 11, 12, 16, 18}, prompt_len[] = {2, 2, 1, 1, 1, 1, 0};
    ck_assert_int_eq(view.n, 7);
    ck_assert_mem_eq(view.tokens, tokens, sizeof tokens);
    ck_assert_mem_eq(view.offsets, offsets, sizeof offsets);
    ck_assert_mem_eq(view.prompt_len, prompt_len, sizeof prompt_len);

    double values[7] = {-1, -2, 0, -4, NAN, -INFINITY, -7};
    OK(prefopt_dataset_set_column(data, PREFOPT_COLUMN_REF_LOGP, values));
    ck_assert_mem_eq(columns_of(data).ref_logp, values, sizeof values);
    ck_assert_ptr_null(row_of(data, 1).ref_logp);
    ck_assert(row_of(data, 3).ref_logp[0] == -7);
    FAILS(PREFOPT_ERR_NUMERIC, "score[5] is -inf",
          prefopt_dataset_set_column(data, PREFOPT_COLUMN_SCORE, values));
    values[2] = INFINITY;
    FAILS(PREFOPT_ERR_NUMERIC, "logp[2] is inf",
          prefopt_dataset_set_column(data, PREFOPT_COLUMN_LOGP, values));
    ck_assert(columns_of(data).logp[0] == -1.5); /* as before */
    FAILS(PREFOPT_ERR_ARGUMENT, "column is 4", prefopt_dataset_set_column(data, 4, values));
    FAILS(PREFOPT_ERR_ARGUMENT, "column is -1", prefopt_dataset_set_column(data, -1, values));
    FAILS(PREFOPT_ERR_ARGUMENT, "values is NULL", prefopt_dataset_set_column(data, 0, NULL));
    FAILS(PREFOPT_ERR_ARGUMENT, "dataset is NULL", prefopt_dataset_set_column(NULL, 0, values));
    FAILS(PREFOPT_ERR_ARGUMENT, "out is NULL", prefopt_dataset_columns(data, NULL));
    FAILS(PREFOPT_ERR_ARGUMENT, "dataset is NULL", prefopt_dataset_columns(NULL, &columns));
    FAILS(PREFOPT_ERR_ARGUMENT, "out is NULL", prefopt_dataset_sequences(data, NULL));
    FAILS(PREFOPT_ERR_ARGUMENT, "dataset is NULL", prefopt_dataset_sequences(NULL, &view));
    columns.struct_size = view.struct_size = 8;
    FAILS(PREFOPT_ERR_VERSION, "prefopt_columns", prefopt_dataset_columns(data, &columns));
    FAILS(PREFOPT_ERR_VERSION, "prefopt_sequences", prefopt_dataset_sequences(data, &view));
    prefopt_dataset_destroy(data);
    prefopt_context_destroy(context);
}
END_TEST

/* One field of a good row made bad. */
#define BAD(code, text, change)                                                                    \
    do {                                                                                           \
        row = pair_row();                                                                          \
        change;                                                                                    \
        FAILS(code, text, prefopt_dataset_append(data, &row));                                     \
        ck_assert_int_eq(prefopt_dataset_size(data), 4);                                           \
        ck_assert_uint_eq(prefopt_dataset_hash(data), hash);                                       \
    } while (0)

START_TEST(append_refuses)
{
    prefopt_context *context = test_context(1);
    prefopt_dataset *data = four_rows(context);
    uint64_t hash = prefopt_dataset_hash(data);
    prefopt_row row;
    const int32_t bad_tokens[] = {1, -2, 3};
    const int64_t from_1[] = {1, 2, 3}, falling[] = {0, 2, 1};
    const double infinite[] = {0, INFINITY}, minus[] = {0, -INFINITY};
    BAD(PREFOPT_ERR_VERSION, "struct_size", row.struct_size = 16);
    BAD(PREFOPT_ERR_ARGUMENT, "kind is 4", row.kind = 4);
    BAD(PREFOPT_ERR_ARGUMENT, "kind is -1", row.kind = -1);
    BAD(PREFOPT_ERR_ARGUMENT, "expected 2 in a row of kind PAIR", row.n_completions = 1);
    BAD(PREFOPT_ERR_ARGUMENT, "n_completions is -1", row.n_completions = -1);
    BAD(PREFOPT_ERR_ARGUMENT, "expected 0 in a row of kind PROMPT", row.kind = PREFOPT_ROW_PROMPT);
    BAD(PREFOPT_ERR_ARGUMENT, "at least 2 in a row of kind RANKING",
        (row.kind = PREFOPT_ROW_RANKING, row.n_completions = 1));
    BAD(PREFOPT_ERR_ARGUMENT, "at least 1 in a row of kind COMPLETIONS",
        (row.kind = PREFOPT_ROW_COMPLETIONS, row.n_completions = 0));
    BAD(PREFOPT_ERR_ARGUMENT, "label is 0.75 in a row of kind RANKING",
        row.kind = PREFOPT_ROW_RANKING);
    BAD(PREFOPT_ERR_ARGUMENT, "margin is -0.5 in a row of kind COMPLETIONS",
        (row.kind = PREFOPT_ROW_COMPLETIONS, row.label = 1));
    BAD(PREFOPT_ERR_ARGUMENT, "prompt is NULL", row.prompt = NULL);
    BAD(PREFOPT_ERR_ARGUMENT, "prompt has -1 tokens", row.prompt_len = -1);
    BAD(PREFOPT_ERR_ARGUMENT, "prompt[1] is -2", row.prompt = bad_tokens);
    BAD(PREFOPT_ERR_ARGUMENT, "completions is NULL", row.completions = NULL);
    BAD(PREFOPT_ERR_ARGUMENT, "completions[1] is -2", row.completions = bad_tokens);
    BAD(PREFOPT_ERR_ARGUMENT, "completion_offsets is NULL", row.completion_offsets = NULL);
    BAD(PREFOPT_ERR_ARGUMENT, "completion_offsets[0] is 1", row.completion_offsets = from_1);
    BAD(PREFOPT_ERR_ARGUMENT, "completion_offsets[2] is 1", row.completion_offsets = falling);
    BAD(PREFOPT_ERR_ARGUMENT, "weight is -1", row.weight = -1);
    BAD(PREFOPT_ERR_NUMERIC, "weight is nan", row.weight = NAN);
    BAD(PREFOPT_ERR_NUMERIC, "weight is inf", row.weight = INFINITY);
    BAD(PREFOPT_ERR_ARGUMENT, "label is 1.5", row.label = 1.5);
    BAD(PREFOPT_ERR_NUMERIC, "label is NaN", row.label = NAN);
    BAD(PREFOPT_ERR_NUMERIC, "margin is -inf", row.margin = -INFINITY);
    BAD(PREFOPT_ERR_NUMERIC, "sampler_logp[1] is inf", row.sampler_logp = infinite);
    BAD(PREFOPT_ERR_NUMERIC, "ref_logp[1] is inf", row.ref_logp = infinite);
    BAD(PREFOPT_ERR_NUMERIC, "score[1] is -inf", row.score = minus);
    const double half[] = {-1, NAN};
    BAD(PREFOPT_ERR_ARGUMENT, "ref_logp of completion 0 is not known", row.ref_key = 5);
    BAD(PREFOPT_ERR_ARGUMENT, "ref_key is 0000000000000005, but ref_logp of completion 1 is not",
        (row.ref_key = 5, row.ref_logp = half));
    prefopt_row prompt_row;
    OK(prefopt_row_init(&prompt_row, sizeof prompt_row));
    prompt_row.ref_key = 5;
    FAILS(PREFOPT_ERR_ARGUMENT, "ref_key is 0000000000000005 in a row without completions",
          prefopt_dataset_append(data, &prompt_row));
    FAILS(PREFOPT_ERR_ARGUMENT, "row is NULL", prefopt_dataset_append(data, NULL));
    FAILS(PREFOPT_ERR_ARGUMENT, "dataset is NULL", prefopt_dataset_append(NULL, &row));
    FAILS(PREFOPT_ERR_ARGUMENT, "out is NULL", prefopt_dataset_create(NULL, context));
    FAILS(PREFOPT_ERR_ARGUMENT, "context is NULL", prefopt_dataset_create(&data, NULL));
    FAILS(PREFOPT_ERR_ARGUMENT, "NULL", prefopt_row_init(NULL, sizeof row));
    FAILS(PREFOPT_ERR_VERSION, "struct_size is 8", prefopt_row_init(&row, 8));

    const int32_t *t = bad_tokens;
    FAILS(PREFOPT_ERR_ARGUMENT, "dataset is NULL",
          prefopt_dataset_append_pair(NULL, t, 1, t, 1, t, 1, 1, 1, 0));
    FAILS(PREFOPT_ERR_ARGUMENT, "prompt is NULL",
          prefopt_dataset_append_pair(data, NULL, 1, t, 1, t, 1, 1, 1, 0));
    FAILS(PREFOPT_ERR_ARGUMENT, "chosen[1] is -2",
          prefopt_dataset_append_pair(data, t, 1, t, 2, t, 1, 1, 1, 0));
    FAILS(PREFOPT_ERR_ARGUMENT, "rejected has -3 tokens",
          prefopt_dataset_append_pair(data, t, 1, t, 1, t, -3, 1, 1, 0));
    FAILS(PREFOPT_ERR_NUMERIC, "weight",
          prefopt_dataset_append_pair(data, t, 1, t, 1, t, 1, NAN, 1, 0));
    FAILS(PREFOPT_ERR_ARGUMENT, "label",
          prefopt_dataset_append_pair(data, t, 1, t, 1, t, 1, 1, -1, 0));
    FAILS(PREFOPT_ERR_NUMERIC, "margin",
          prefopt_dataset_append_pair(data, t, 1, t, 1, t, 1, 1, 1, NAN));
    OK(prefopt_dataset_append_pair(data, NULL, 0, NULL, 0, NULL, 0, 0, 0, 0));
    ck_assert_int_eq(prefopt_dataset_size(data), 5);
    ck_assert_int_eq(row_of(data, 4).completion_offsets[2], 0);
    prefopt_dataset_destroy(data);
    prefopt_dataset_destroy(NULL);
    ck_assert_int_eq(prefopt_dataset_size(NULL), 0);
    prefopt_context_destroy(context);
}
END_TEST

START_TEST(extra_fields)
{
    prefopt_context *context = test_context(1);
    prefopt_dataset *data = four_rows(context);
    uint64_t hash = prefopt_dataset_hash(data);
    prefopt_row row = pair_row();
#if PF_HAVE_JSON
    BAD(PREFOPT_ERR_FORMAT, "no JSON object", row.extra = "[1]");
    BAD(PREFOPT_ERR_FORMAT, "no JSON object", row.extra = "{\"a\":");
    BAD(PREFOPT_ERR_FORMAT, "no JSON object", row.extra = "");
    BAD(PREFOPT_ERR_FORMAT, "duplicate", row.extra = "{\"a\":1,\"a\":2}");
    BAD(PREFOPT_ERR_FORMAT, "\"margin\"", row.extra = "{\"a\":1,\"margin\":2}");
    row = pair_row();
    row.extra = " { \"b\" : [ 1.5, null ],\n \"a\" : {\"weight\": 0.1} } ";
    OK(prefopt_dataset_append(data, &row));
    ck_assert_str_eq(row_of(data, 4).extra,
                     "{\"b\":[1.5,null],\"a\":{\"weight\":0.10000000000000001}}");
    row.extra = "{ }";
    OK(prefopt_dataset_append(data, &row));
    ck_assert_ptr_null(row_of(data, 5).extra);
    row.extra = "{\"c\":\"\\u0000\"}";
    OK(prefopt_dataset_append(data, &row));
    ck_assert_str_eq(row_of(data, 6).extra, "{\"c\":\"\\u0000\"}");
#else
    BAD(PREFOPT_ERR_UNSUPPORTED, "without JSON", row.extra = "{\"a\":1}");
#endif
    prefopt_dataset_destroy(data);
    prefopt_context_destroy(context);
}
END_TEST

START_TEST(a_dataset_may_be_appended_to_itself)
{
    prefopt_context *context = test_context(1);
    prefopt_dataset *data = four_rows(context);
    for (int64_t i = 0; i < 400; i++) { /* through several growths of every array */
        prefopt_row row = row_of(data, i);
        OK(prefopt_dataset_append(data, &row));
    }
    prefopt_dataset *once = four_rows(context);
    for (int64_t i = 4; i < 404; i++) {
        prefopt_row a = row_of(data, i), b = row_of(once, i % 4);
        ck_assert_int_eq(a.kind, b.kind);
        ck_assert_int_eq(a.prompt_len, b.prompt_len);
        ck_assert(a.weight == b.weight && (a.logp == NULL) == (b.logp == NULL));
        ck_assert_mem_eq(a.prompt, b.prompt, (size_t)a.prompt_len * 4);
        if (a.n_completions > 0) {
            int64_t n = b.completion_offsets[b.n_completions];
            ck_assert_mem_eq(a.completion_offsets, b.completion_offsets,
                             (size_t)(b.n_completions + 1) * 8);
            ck_assert_mem_eq(a.completions, b.completions, (size_t)n * 4);
        }
    }
    prefopt_dataset_destroy(once);
    prefopt_dataset_destroy(data);
    prefopt_context_destroy(context);
}
END_TEST

START_TEST(a_hundred_thousand_pairs)
{
    prefopt_context *context = test_context(1);
    prefopt_dataset *data = many_pairs(context, 100000, 1000);
    prefopt_sequences view = sequences_of(data);
    ck_assert_int_eq(view.n, 200000);
    ck_assert_int_eq(view.tokens[2 * 199999], 999);
    ck_assert_int_eq(view.tokens[2 * 199999 + 1], 2);
    ck_assert(columns_of(data).weight[77777] == 77777);
    prefopt_dataset_destroy(data);
    prefopt_context_destroy(context);
}
END_TEST

START_TEST(hash_sees_tokens_and_prompts)
{
    prefopt_context *context = test_context(1);
    prefopt_dataset *data = NULL;
    const int32_t t[] = {1, 2, 3};
    uint64_t hash[4];
    for (int i = 0; i < 4; i++) {
        OK(prefopt_dataset_create(&data, context));
        if (i > 0)
            OK(prefopt_dataset_append_pair(data, t, i == 2, t + (i == 2), 3 - (i == 2), t,
                                           2 + (i == 3), 1, 1, 0));
        hash[i] = prefopt_dataset_hash(data);
        for (int j = 0; j < i; j++)
            ck_assert(hash[j] != hash[i]);
        if (i == 1) { /* weights and columns do not matter */
            double values[2] = {-1, -2};
            OK(prefopt_dataset_set_column(data, PREFOPT_COLUMN_LOGP, values));
            ck_assert_uint_eq(prefopt_dataset_hash(data), hash[1]);
        }
        prefopt_dataset_destroy(data);
    }
    ck_assert_uint_eq(prefopt_dataset_hash(NULL), 0);
    prefopt_context_destroy(context);
}
END_TEST

/* What allocates: 0 creates, 1 appends, 2 selects, 3 splits. */
static int32_t grow_something(prefopt_context *context, prefopt_dataset *data, int what)
{
    const int64_t rows[] = {1, 0, 1};
    prefopt_dataset *a = NULL, *b = NULL;
    prefopt_row row = pair_row();
    row.extra = PF_HAVE_JSON ? "{\"a\":1}" : NULL;
    int32_t status = what == 0   ? prefopt_dataset_create(&a, context)
                     : what == 1 ? prefopt_dataset_append(data, &row)
                     : what == 2 ? prefopt_dataset_select(&a, data, rows, 3)
                                 : prefopt_dataset_split(&a, &b, data, 0.5, 1, 1);
    if (status != PREFOPT_OK)
        ck_assert(a == NULL && b == NULL);
    prefopt_dataset_destroy(a);
    prefopt_dataset_destroy(b);
    return status;
}

START_TEST(without_memory)
{
    counting_allocator a = {0};
    prefopt_context *context = counting_context(&a);
    /* How often at least: struct, arrays, text, row numbers. */
    const int least[] = {1, PF_HAVE_JSON ? 16 : 14, 18, 37};
    for (int what = 0; what < 4; what++) {
        for (int64_t fail_at = 1;; fail_at++) {
            a.fail_at = 0;
            int64_t before = a.live;
            prefopt_dataset *data = NULL;
            OK(prefopt_dataset_create(&data, context));
            /* The fourth pair fills the first capacity; the next row grows everything. */
            for (int i = 0; i < 4; i++)
                OK(prefopt_dataset_append_pair(data, NULL, 0, NULL, 0, NULL, 0, 1, 1, 0));
            uint64_t hash = prefopt_dataset_hash(data);
            int64_t live = a.live;
            a.calls = 0;
            a.fail_at = fail_at;
            int32_t status = grow_something(context, data, what);
            a.fail_at = 0;
            if (status != PREFOPT_OK) {
                ck_assert_int_eq(status, PREFOPT_ERR_MEMORY);
                ck_assert_int_eq(prefopt_dataset_size(data), 4);
                ck_assert_uint_eq(prefopt_dataset_hash(data), hash);
                ck_assert_int_eq(a.live, live);
                OK(grow_something(context, data, what)); /* it still works */
            }
            prefopt_dataset_destroy(data);
            ck_assert_int_eq(a.live, before);
            if (status == PREFOPT_OK) {
                ck_assert_msg(fail_at > least[what], "%lld allocations in %d",
                              (long long)fail_at - 1, what);
                break;
            }
        }
    }
    prefopt_context_destroy(context);
    ck_assert_int_eq(a.live, 0);
}
END_TEST

TEST_MAIN("dataset", rows_come_back, columns_and_sequences, append_refuses, extra_fields,
          a_dataset_may_be_appended_to_itself, a_hundred_thousand_pairs,
          hash_sees_tokens_and_prompts, without_memory)
