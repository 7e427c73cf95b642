/* Reference log-probabilities stored with a dataset: their keys fit one reference and one row. */
#include "data/pf_dataset.h"
#include "model/pf_reference.h"
#include "small_transformer.h"

static prefopt_reference *small_reference(prefopt_context *context, uint64_t seed)
{
    prefopt_policy *policy = small_policy(context, seed);
    prefopt_reference *reference = NULL;
    OK(prefopt_reference_freeze(&reference, policy));
    prefopt_policy_destroy(policy);
    return reference;
}

/* n pairs; the chosen completion of row i is the rejected one of row i + 5 with the same prompt. */
static void add_pairs(prefopt_dataset *data, int32_t n)
{
    for (int32_t i = 0; i < n; i++) {
        int32_t at = (int32_t)prefopt_dataset_size(data) + i, prompt[] = {at % 5, 11};
        int32_t chosen[] = {at % 11, 3}, rejected[] = {(at + 6) % 11, 3};
        OK(prefopt_dataset_append_pair(data, prompt, 2, chosen, 2, rejected, 2, 1, 1, 0));
    }
}

static prefopt_dataset *pairs(prefopt_context *context, int32_t n)
{
    prefopt_dataset *data = NULL;
    OK(prefopt_dataset_create(&data, context));
    for (int32_t i = 0; i < n; i++)
        add_pairs(data, 1);
    return data;
}

static prefopt_columns columns_of(const prefopt_dataset *data)
{
    prefopt_columns columns = {.struct_size = sizeof columns};
    OK(prefopt_dataset_columns(data, &columns));
    return columns;
}

static void check_values(const prefopt_reference *reference, const prefopt_dataset *data,
                         double tolerance)
{
    prefopt_sequences all = {.struct_size = sizeof all};
    OK(prefopt_dataset_sequences(data, &all));
    double *logp = calloc((size_t)all.n, sizeof *logp);
    OK(prefopt_reference_logprobs(reference, &all, logp));
    for (int64_t i = 0; i < all.n; i++)
        CLOSE(columns_of(data).ref_logp[i], logp[i], tolerance);
    free(logp);
}

/* How often, and whether to stop. */
typedef struct {
    int64_t calls, stop_at, done, total;
} looks;

static int32_t look(void *payload, int64_t done, int64_t total)
{
    looks *l = payload;
    ck_assert_int_ge(done, l->done);
    l->done = done;
    l->total = total;
    return ++l->calls == l->stop_at ? 5 : 0;
}

START_TEST(keys_fit_their_reference)
{
    prefopt_context *context = test_context(2);
    prefopt_reference *reference = small_reference(context, 1),
                      *other = small_reference(context, 2);
    prefopt_reference *again = small_reference(context, 1), *column = NULL;
    prefopt_dataset *data = pairs(context, 20);
    looks l = {0};
    OK(prefopt_reference_annotate(reference, data, look, &l));
    ck_assert_int_eq(l.done, 20);
    ck_assert_int_eq(l.total, 20);
    check_values(reference, data, 1e-6);
    prefopt_columns c = columns_of(data);
    for (int64_t a = 0; a < 20; a++)
        for (int64_t b = 0; b < a; b++)
            ck_assert((c.ref_key[a] == c.ref_key[b]) == (a % 55 == b % 55));
    /* The same content elsewhere takes the rows as they are; another refuses. */
    double first = c.ref_logp[0];
    l = (looks){0};
    OK(prefopt_reference_annotate(again, data, look, &l));
    ck_assert_int_eq(l.calls, 0); /* nothing was scored */
    FAILS(PREFOPT_ERR_STATE, "row 0: ref_logp has key",
          prefopt_reference_annotate(other, data, NULL, NULL));
    ck_assert(columns_of(data).ref_logp[0] == first);
    /* The column as a reference knows whose it is. */
    uint64_t hash, of_column;
    OK(prefopt_reference_from_dataset(&column, data));
    OK(prefopt_reference_hash(reference, &hash));
    OK(prefopt_reference_hash(column, &of_column));
    ck_assert_uint_eq(hash, of_column);
    OK(prefopt_reference_annotate(column, data, NULL, NULL));
    /* Taken away by hand, numbers may be another's. */
    double nothing[40];
    for (int i = 0; i < 40; i++)
        nothing[i] = NAN;
    OK(prefopt_dataset_set_column(data, PREFOPT_COLUMN_REF_LOGP, nothing));
    ck_assert_uint_eq(columns_of(data).ref_key[19], 0);
    OK(prefopt_reference_annotate(other, data, NULL, NULL));
    check_values(other, data, 1e-6);
    prefopt_reference_destroy(reference);
    prefopt_reference_destroy(other);
    prefopt_reference_destroy(again);
    prefopt_reference_destroy(column);
    prefopt_dataset_destroy(data);
    prefopt_context_destroy(context);
}
END_TEST

START_TEST(an_edited_row_no_longer_fits)
{
    prefopt_context *context = test_context(1);
    prefopt_reference *reference = small_reference(context, 1), *column = NULL;
    prefopt_dataset *data = pairs(context, 3), *edited[3];
    OK(prefopt_reference_annotate(reference, data, NULL, NULL));
    for (int32_t kind = 0; kind < 3; kind++) {
        OK(prefopt_dataset_create(&edited[kind], context));
        for (int64_t i = 0; i < 3; i++) {
            prefopt_row row = {.struct_size = sizeof row};
            OK(prefopt_dataset_row(data, i, &row));
            int32_t tokens[4], prompt[2];
            int64_t offsets[] = {0, 2, 4};
            memcpy(tokens, row.completions, sizeof tokens);
            memcpy(prompt, row.prompt, sizeof prompt);
            row.completions = tokens;
            row.prompt = prompt;
            row.completion_offsets = offsets;
            row.weight = 2; /* no part of the key */
            if (i == 1 && kind == 0)
                tokens[3] ^= 1;
            if (i == 1 && kind == 1)
                prompt[0] ^= 1;
            if (i == 1 && kind == 2)
                row.prompt_len = 1; /* not the tokens, but where the prompt ends */
            OK(prefopt_dataset_append(edited[kind], &row));
        }
        FAILS(PREFOPT_ERR_STATE, "row 1: ref_logp has key",
              prefopt_reference_annotate(reference, edited[kind], NULL, NULL));
        FAILS(PREFOPT_ERR_STATE, "row 1: by its key",
              prefopt_reference_from_dataset(&column, edited[kind]));
        ck_assert_ptr_null(column);
        prefopt_dataset_destroy(edited[kind]);
    }
    prefopt_reference_destroy(reference);
    prefopt_dataset_destroy(data);
    prefopt_context_destroy(context);
}
END_TEST

START_TEST(a_dataset_that_grew)
{
    prefopt_context *context = test_context(1);
    prefopt_reference *reference = small_reference(context, 1), *column = NULL;
    prefopt_dataset *data = pairs(context, 4), *picked;
    OK(prefopt_reference_annotate(reference, data, NULL, NULL));
    double first = columns_of(data).ref_logp[1];
    add_pairs(data, 1);
    /* A row with numbers that nobody vouches for, and a prompt. */
    prefopt_row row = {.struct_size = sizeof row};
    OK(prefopt_dataset_row(data, 4, &row));
    double wrong[] = {-1, -2};
    row.ref_logp = wrong;
    OK(prefopt_dataset_append(data, &row));
    row = (prefopt_row){.struct_size = sizeof row, .prompt = (int32_t[]){1}, .prompt_len = 1};
    row.weight = row.label = 1;
    OK(prefopt_dataset_append(data, &row));
    FAILS(PREFOPT_ERR_STATE, "row 4", prefopt_reference_from_dataset(&column, data));
    int64_t without[] = {0, 1, 5, 6};
    OK(prefopt_dataset_select(&picked, data, without, 4));
    ck_assert_uint_eq(columns_of(picked).ref_key[1], columns_of(data).ref_key[1]);
    FAILS(PREFOPT_ERR_STATE, "row 2: ref_logp has no key, but that of row 0",
          prefopt_reference_from_dataset(&column, picked));
    looks l = {0};
    OK(prefopt_reference_annotate(reference, data, look, &l));
    ck_assert_int_eq(l.calls, 1);
    ck_assert_int_eq(l.done, 7);
    check_values(reference, data, 1e-6);
    prefopt_columns c = columns_of(data);
    ck_assert(c.ref_logp[1] == first);
    ck_assert_uint_eq(c.ref_key[4], c.ref_key[5]); /* the same tokens */
    ck_assert_uint_ne(c.ref_key[4], 0);
    ck_assert_uint_eq(c.ref_key[6], 0); /* a prompt has no numbers */
    OK(prefopt_reference_from_dataset(&column, data));
    prefopt_reference_destroy(column);
    prefopt_reference_destroy(reference);
    prefopt_dataset_destroy(data);
    prefopt_dataset_destroy(picked);
    prefopt_context_destroy(context);
}
END_TEST

START_TEST(stopped_and_taken_up_again)
{
    prefopt_context *context = test_context(1);
    prefopt_reference *reference = small_reference(context, 1);
    prefopt_dataset *data; /* more than one piece: sequences that all differ, of 6 tokens */
    OK(prefopt_dataset_create(&data, context));
    for (int32_t i = 0; i < 1500; i++) {
        int32_t prompt[] = {i % 11, i / 11 % 11, i / 121 % 11, 11};
        OK(prefopt_dataset_append_pair(data, prompt, 4, (int32_t[]){i % 7, 1}, 2,
                                       (int32_t[]){i % 7, 2}, 2, 1, 1, 0));
    }
    looks l = {.stop_at = 2};
    ck_assert_int_eq(prefopt_reference_annotate(reference, data, look, &l), PREFOPT_STOPPED);
    ck_assert_int_eq(l.calls, 2);
    prefopt_columns c = columns_of(data);
    int64_t keyed = 0;
    while (keyed < 1500 && c.ref_key[keyed] != 0)
        keyed++;
    ck_assert_int_eq(keyed, l.done);
    ck_assert_int_gt(keyed, 0);
    ck_assert_int_lt(keyed, 1500);
    for (int64_t i = 0; i < 3000; i++)
        ck_assert_int_eq(isnan(c.ref_logp[i]), i >= 2 * keyed);
    for (int64_t i = keyed; i < 1500; i++)
        ck_assert_uint_eq(c.ref_key[i], 0);
    l = (looks){0};
    OK(prefopt_reference_annotate(reference, data, look, &l));
    ck_assert_int_eq(l.done, 1500);
    check_values(reference, data, 1e-6);
    /* Asked to stop when all is done, there is nothing to stop. */
    prefopt_dataset *small = pairs(context, 2);
    l = (looks){.stop_at = 1};
    OK(prefopt_reference_annotate(reference, small, look, &l));
    prefopt_dataset_destroy(small);
    prefopt_reference_destroy(reference);
    prefopt_dataset_destroy(data);
    prefopt_context_destroy(context);
}
END_TEST

/* ---------------------------------------------------------------- the caller's own kind */

static int32_t answer; /* what its callback returns */

static int32_t own_logprobs(void *payload, const prefopt_sequences *in, double *sequence_logp,
                            double *token_logp)
{
    (void)payload, (void)token_logp;
    for (int64_t i = 0; i < in->n; i++)
        sequence_logp[i] = -1;
    return answer;
}

static int32_t own_clone(void *payload, void **copy)
{
    *copy = payload;
    return PREFOPT_OK;
}

START_TEST(a_reference_without_a_hash)
{
    prefopt_context *context = test_context(1);
    prefopt_policy_callbacks p = {
        .struct_size = sizeof p, .logprobs = own_logprobs, .clone = own_clone};
    prefopt_policy *policy;
    prefopt_reference *own, *reference = small_reference(context, 1);
    prefopt_dataset *data = pairs(context, 2);
    OK(prefopt_policy_create_custom(&policy, context, NULL, &p, NULL));
    OK(prefopt_reference_freeze(&own, policy));
    OK(prefopt_reference_annotate(own, data, NULL, NULL));
    ck_assert_double_eq(columns_of(data).ref_logp[3], -1);
    ck_assert_uint_eq(columns_of(data).ref_key[1], 0);
    answer = PREFOPT_STOPPED; /* half-written numbers are not kept */
    ck_assert_int_eq(prefopt_reference_annotate(own, data, NULL, NULL), PREFOPT_STOPPED);
    answer = PREFOPT_ERR_NUMERIC;
    FAILS(PREFOPT_ERR_NUMERIC, "rows from 0 on", prefopt_reference_annotate(own, data, NULL, NULL));
    answer = PREFOPT_OK;
    OK(prefopt_reference_annotate(reference, data, NULL, NULL));
    FAILS(PREFOPT_ERR_STATE, "no content hash", prefopt_reference_annotate(own, data, NULL, NULL));
    check_values(reference, data, 1e-6);
    prefopt_reference_destroy(own);
    prefopt_reference_destroy(reference);
    prefopt_policy_destroy(policy);
    prefopt_dataset_destroy(data);
    prefopt_context_destroy(context);
}
END_TEST

START_TEST(the_key_goes_back_to_the_hash)
{
    for (uint64_t k = 0; k < 200; k++) {
        uint64_t hash = pf_stream(1, k), row = pf_stream(2, k), key = pf_ref_key(hash, row);
        ck_assert_uint_eq(pf_ref_key_reference(key, row), hash);
        ck_assert_uint_ne(pf_ref_key(hash + 1, row), key);
        ck_assert_uint_ne(pf_ref_key(hash, row + 1), key);
    }
}
END_TEST

START_TEST(every_allocation_may_fail)
{
    counting_allocator allocator = {0};
    prefopt_context *context = counting_context(&allocator);
    prefopt_reference *reference = small_reference(context, 1);
    prefopt_dataset *data = pairs(context, 6);
    int64_t live = allocator.live;
    int32_t status = PREFOPT_ERR_MEMORY;
    for (int64_t k = 1; status != PREFOPT_OK; k++) {
        ck_assert_int_lt(k, 200);
        allocator.calls = 0;
        allocator.fail_at = k;
        status = prefopt_reference_annotate(reference, data, NULL, NULL);
        allocator.fail_at = 0;
        if (status != PREFOPT_OK) {
            ck_assert_int_eq(status, PREFOPT_ERR_MEMORY);
            ck_assert(isnan(columns_of(data).ref_logp[0]));
            ck_assert_uint_eq(columns_of(data).ref_key[0], 0);
        }
    }
    ck_assert_int_ge(allocator.live, live); /* the reference may keep a workspace */
    prefopt_reference_destroy(reference);
    prefopt_dataset_destroy(data);
    prefopt_context_destroy(context);
    ck_assert_int_eq(allocator.live, 0);
}
END_TEST

TEST_MAIN("reference_rows", keys_fit_their_reference, an_edited_row_no_longer_fits,
          a_dataset_that_grew, stopped_and_taken_up_again, a_reference_without_a_hash,
          the_key_goes_back_to_the_hash, every_allocation_may_fail)
