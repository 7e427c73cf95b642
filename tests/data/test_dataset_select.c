#include <pthread.h>

#include "data/pf_dataset_test.h"

START_TEST(selection)
{
    prefopt_context *context = test_context(1);
    prefopt_dataset *data = four_rows(context), *part = NULL;
    const int64_t rows[] = {3, 0, 0, 1, 2};
    OK(prefopt_dataset_select(&part, data, rows, 5));
    prefopt_dataset_destroy(data);
    ck_assert_int_eq(prefopt_dataset_size(part), 5);
    ck_assert_int_eq(columns_of(part).n_sequences, 9);
    ck_assert_int_eq(row_of(part, 0).kind, PREFOPT_ROW_COMPLETIONS);
    ck_assert(row_of(part, 1).label == 0.75 && row_of(part, 2).logp[1] == -INFINITY);
    ck_assert_int_eq(row_of(part, 4).completions[4], 9);
    prefopt_row row = pair_row();
    OK(prefopt_dataset_append(part, &row)); /* a selection grows like any other */
    ck_assert_int_eq(row_of(part, 5).completions[2], 3);
    prefopt_dataset *none = NULL;
    OK(prefopt_dataset_select(&none, part, NULL, 0));
    ck_assert_int_eq(prefopt_dataset_size(none), 0);
    ck_assert_int_eq(columns_of(none).first[0], 0);
    OK(prefopt_dataset_append(none, &row));
    ck_assert_int_eq(sequences_of(none).n, 2);

    prefopt_dataset *out = none;
    const int64_t bad[] = {0, 6};
    FAILS(PREFOPT_ERR_ARGUMENT, "rows[1] is 6", prefopt_dataset_select(&out, part, bad, 2));
    FAILS(PREFOPT_ERR_ARGUMENT, "n is -1", prefopt_dataset_select(&out, part, bad, -1));
    FAILS(PREFOPT_ERR_ARGUMENT, "rows is NULL", prefopt_dataset_select(&out, part, NULL, 1));
    FAILS(PREFOPT_ERR_ARGUMENT, "out is NULL", prefopt_dataset_select(NULL, part, rows, 1));
    FAILS(PREFOPT_ERR_ARGUMENT, "dataset is NULL", prefopt_dataset_select(&out, NULL, rows, 1));
    ck_assert_ptr_eq(out, none);
    prefopt_dataset_destroy(none);
    prefopt_dataset_destroy(part);
    prefopt_context_destroy(context);
}
END_TEST

START_TEST(splits)
{
    prefopt_context *context = test_context(1);
    prefopt_dataset *data = many_pairs(context, 4000, 1000), *a = NULL, *b = NULL;
    OK(prefopt_dataset_split(&a, &b, data, 0.25, 7, 0));
    int64_t n = prefopt_dataset_size(b);
    ck_assert_int_eq(prefopt_dataset_size(a) + n, 4000);
    ck_assert_msg(llabs(n - 1000) < 4 * 55, "%lld of 4000 rows", (long long)n);
    /* Prompts do not cross, and order is kept. */
    char side[1000] = {0};
    for (int64_t i = 0; i < prefopt_dataset_size(a); i++) {
        side[row_of(a, i).prompt[0]] = 1;
        ck_assert(i == 0 || row_of(a, i).weight > row_of(a, i - 1).weight);
    }
    for (int64_t i = 0; i < n; i++) {
        ck_assert_int_eq(side[row_of(b, i).prompt[0]], 0);
        ck_assert(i == 0 || row_of(b, i).weight > row_of(b, i - 1).weight);
    }
    /* The same again, another seed, and a shorter file: the same prompts on the same sides. */
    prefopt_dataset *a2 = NULL, *b2 = NULL, *head = many_pairs(context, 900, 1000);
    OK(prefopt_dataset_split(&a2, &b2, data, 0.25, 7, 0));
    ck_assert_uint_eq(prefopt_dataset_hash(a2), prefopt_dataset_hash(a));
    prefopt_dataset_destroy(a2);
    prefopt_dataset_destroy(b2);
    OK(prefopt_dataset_split(&a2, &b2, head, 0.25, 7, 0));
    for (int64_t i = 0; i < prefopt_dataset_size(a2); i++)
        ck_assert_int_eq(side[row_of(a2, i).prompt[0]], 1);
    for (int64_t i = 0; i < prefopt_dataset_size(b2); i++)
        ck_assert_int_eq(side[row_of(b2, i).prompt[0]], 0);
    prefopt_dataset_destroy(a2);
    prefopt_dataset_destroy(b2);
    OK(prefopt_dataset_split(&a2, &b2, data, 0.25, 8, 0));
    ck_assert(prefopt_dataset_hash(a2) != prefopt_dataset_hash(a));
    prefopt_dataset_destroy(a2);
    prefopt_dataset_destroy(b2);
    /* By row: one prompt is on both sides. */
    prefopt_dataset *one = many_pairs(context, 400, 1);
    OK(prefopt_dataset_split(&a2, &b2, one, 0.5, 7, 1));
    ck_assert(llabs(prefopt_dataset_size(a2) - 200) < 40);
    ck_assert_int_eq(prefopt_dataset_size(a2) + prefopt_dataset_size(b2), 400);
    prefopt_dataset_destroy(a2);
    prefopt_dataset_destroy(b2);
    /* All on one side. */
    OK(prefopt_dataset_split(&a2, &b2, one, 0, 7, 0));
    ck_assert_int_eq(prefopt_dataset_size(b2), 0);
    prefopt_dataset_destroy(a2);
    prefopt_dataset_destroy(b2);
    OK(prefopt_dataset_split(&a2, &b2, one, 1, 7, 1));
    ck_assert_int_eq(prefopt_dataset_size(a2), 0);
    prefopt_dataset_destroy(a2);
    prefopt_dataset_destroy(b2);
    a2 = b2 = one;
    FAILS(PREFOPT_ERR_ARGUMENT, "1.5", prefopt_dataset_split(&a2, &b2, one, 1.5, 7, 0));
    FAILS(PREFOPT_ERR_ARGUMENT, "-0.1", prefopt_dataset_split(&a2, &b2, one, -0.1, 7, 0));
    FAILS(PREFOPT_ERR_NUMERIC, "NaN", prefopt_dataset_split(&a2, &b2, one, NAN, 7, 0));
    FAILS(PREFOPT_ERR_ARGUMENT, "same pointer", prefopt_dataset_split(&a2, &a2, one, 0.5, 7, 0));
    FAILS(PREFOPT_ERR_ARGUMENT, "first is NULL", prefopt_dataset_split(NULL, &b2, one, 0.5, 7, 0));
    FAILS(PREFOPT_ERR_ARGUMENT, "second is NULL", prefopt_dataset_split(&a2, NULL, one, 0.5, 7, 0));
    FAILS(PREFOPT_ERR_ARGUMENT, "dataset is NULL",
          prefopt_dataset_split(&a2, &b2, NULL, 0.5, 7, 0));
    ck_assert(a2 == one && b2 == one);
    prefopt_dataset_destroy(one);
    prefopt_dataset_destroy(head);
    prefopt_dataset_destroy(a);
    prefopt_dataset_destroy(b);
    prefopt_dataset_destroy(data);
    prefopt_context_destroy(context);
}
END_TEST

START_TEST(shuffles)
{
    int64_t a[300], b[300], seen[300] = {0};
    OK(prefopt_shuffle_order(3, 0, 300, a));
    OK(prefopt_shuffle_order(3, 0, 300, b));
    ck_assert_mem_eq(a, b, sizeof a);
    OK(prefopt_shuffle_order(3, 1, 300, b));
    ck_assert_mem_ne(a, b, sizeof a);
    OK(prefopt_shuffle_order(4, 0, 300, b));
    ck_assert_mem_ne(a, b, sizeof a);
    for (int i = 0; i < 300; i++)
        seen[b[i]]++;
    for (int i = 0; i < 300; i++)
        ck_assert_int_eq(seen[i], 1);
    OK(prefopt_shuffle_order(3, 0, 0, NULL));
    FAILS(PREFOPT_ERR_ARGUMENT, "n is -1", prefopt_shuffle_order(3, 0, -1, a));
    FAILS(PREFOPT_ERR_ARGUMENT, "order is NULL", prefopt_shuffle_order(3, 0, 1, NULL));
}
END_TEST

static void *read_on_thread(void *argument)
{
    const prefopt_dataset *data = argument;
    uint64_t sum = 0;
    for (uint64_t round = 0; round < 20; round++) {
        prefopt_dataset *a = NULL, *b = NULL;
        if (prefopt_dataset_split(&a, &b, data, 0.5, round, 0) != PREFOPT_OK)
            return NULL;
        sum = pf_stream(sum, prefopt_dataset_hash(a) ^ prefopt_dataset_hash(b));
        prefopt_dataset_destroy(a);
        prefopt_dataset_destroy(b);
    }
    uint64_t *out = malloc(sizeof *out);
    if (out != NULL)
        *out = sum;
    return out;
}

START_TEST(many_threads_read_one_dataset)
{
    prefopt_context *context = test_context(1);
    prefopt_dataset *data = many_pairs(context, 500, 50);
    pthread_t thread[4];
    void *sum[4];
    for (int i = 0; i < 4; i++)
        ck_assert_int_eq(pthread_create(&thread[i], NULL, read_on_thread, data), 0);
    for (int i = 0; i < 4; i++) {
        ck_assert_int_eq(pthread_join(thread[i], &sum[i]), 0);
        ck_assert_ptr_nonnull(sum[i]);
        ck_assert_uint_eq(*(uint64_t *)sum[i], *(uint64_t *)sum[0]);
    }
    for (int i = 0; i < 4; i++)
        free(sum[i]);
    prefopt_dataset_destroy(data);
    prefopt_context_destroy(context);
}
END_TEST

TEST_MAIN("dataset_select", selection, splits, shuffles, many_threads_read_one_dataset)
