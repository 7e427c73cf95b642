#include <pthread.h>

#include "model_test.h"

static const int32_t prompt[] = {7};

static list all_of(const prefopt_space *space)
{
    list l = list_new();
    list_add_all(&l, space, prompt, 1);
    return l;
}

START_TEST(a_snapshot_does_not_follow)
{
    prefopt_context *context = test_context(2);
    prefopt_space space = space_of(3, 3, 0);
    prefopt_policy *policy;
    prefopt_reference *reference;
    list l = all_of(&space);
    double before[20], after[20], now[20], weight[20];
    OK(prefopt_policy_create_tabular(&policy, context, &space, &l.view));
    randomise(policy, 1, 1);
    OK(prefopt_policy_logprobs(policy, &l.view, before, NULL));
    OK(prefopt_reference_freeze(&reference, policy));
    randomise(policy, 2, 1);
    for (int i = 0; i < l.view.n; i++)
        weight[i] = i;
    OK(prefopt_policy_backward(policy, &l.view, weight));
    OK(prefopt_reference_logprobs(reference, &l.view, after));
    ck_assert_mem_eq(before, after, (size_t)l.view.n * sizeof *before);
    OK(prefopt_policy_logprobs(policy, &l.view, now, NULL));
    ck_assert_double_ne(now[0], before[0]);
    prefopt_policy_destroy(policy);
    prefopt_context_destroy(context);
    OK(prefopt_reference_logprobs(reference, &l.view, after));
    ck_assert_mem_eq(before, after, (size_t)l.view.n * sizeof *before);
    prefopt_reference_destroy(reference);
    list_free(&l);
}
END_TEST

START_TEST(uniform_over_completions)
{
    static const prefopt_space spaces[] = {{sizeof(prefopt_space), -1, 3, 2},
                                           {sizeof(prefopt_space), 0, 3, 3},
                                           {sizeof(prefopt_space), 1, 2, 4},
                                           {sizeof(prefopt_space), 0, 1, 4}};
    prefopt_context *context = test_context(1);
    for (size_t s = 0; s < sizeof spaces / sizeof spaces[0]; s++) {
        prefopt_reference *reference;
        list l = all_of(&spaces[s]);
        int64_t n = l.view.n;
        double *logp = calloc((size_t)n + 1, sizeof *logp);
        list_add(&l, prompt, 1, NULL, 0);
        OK(prefopt_reference_create_uniform(&reference, context, &spaces[s]));
        OK(prefopt_reference_logprobs(reference, &l.view, logp));
        for (int64_t i = 0; i < n; i++)
            CLOSE(logp[i], -log((double)n), 1e-15);
        ck_assert_double_eq(logp[n], 0);
        list_add(&l, prompt, 1, (int32_t[]){3}, 1);
        FAILS(PREFOPT_ERR_ARGUMENT, "reference: token 1 of sequence",
              prefopt_reference_logprobs(reference, &l.view, logp));
        free(logp);
        list_free(&l);
        prefopt_reference_destroy(reference);
    }
    /* A space too large to count. */
    prefopt_space large = space_of(50000, 100, -1);
    prefopt_reference *reference;
    list l = list_new();
    int32_t y[100] = {0};
    double logp;
    list_add(&l, NULL, 0, y, 100);
    OK(prefopt_reference_create_uniform(&reference, context, &large));
    OK(prefopt_reference_logprobs(reference, &l.view, &logp));
    CLOSE(logp, -100 * log(50000), 1e-15);
    prefopt_reference_destroy(reference);
    list_free(&l);
    prefopt_context_destroy(context);
}
END_TEST

START_TEST(fixed_numbers)
{
    prefopt_context *context = test_context(1);
    prefopt_reference *reference = NULL;
    list l = list_new();
    list_add(&l, prompt, 1, (int32_t[]){1, 2}, 2);
    list_add(&l, prompt, 1, (int32_t[]){3}, 1);
    list_add(&l, prompt, 1, (int32_t[]){1, 2}, 2);
    list_add(&l, prompt, 1, NULL, 0);
    double given[] = {-1.5, -INFINITY, -1.5, 0}, got[4] = {5, 5, 5, 5};
    OK(prefopt_reference_create_fixed(&reference, context, &l.view, given));
    OK(prefopt_reference_logprobs(reference, &l.view, got));
    ck_assert_mem_eq(given, got, sizeof got);
    /* The same tokens, but the prompt ends elsewhere. */
    list other = list_new();
    list_add(&other, NULL, 0, (int32_t[]){7, 3}, 2);
    got[0] = 5;
    FAILS(PREFOPT_ERR_ARGUMENT, "reference: sequence 0 (2 tokens, 0 of them prompt) is none of",
          prefopt_reference_logprobs(reference, &other.view, got));
    ck_assert_double_eq(got[0], 5);
    prefopt_reference_destroy(reference);
    reference = NULL;
    given[2] = -2;
    FAILS(PREFOPT_ERR_ARGUMENT, "sequence 2 has log-probability -2",
          prefopt_reference_create_fixed(&reference, context, &l.view, given));
    given[2] = NAN;
    FAILS(PREFOPT_ERR_NUMERIC, "sequence_logp[2] is nan",
          prefopt_reference_create_fixed(&reference, context, &l.view, given));
    given[2] = 0.5;
    FAILS(PREFOPT_ERR_NUMERIC, "sequence_logp[2] is 0.5",
          prefopt_reference_create_fixed(&reference, context, &l.view, given));
    given[2] = -1.5;
    given[3] = -1;
    FAILS(PREFOPT_ERR_ARGUMENT, "sequence_logp[3] is -1, expected 0",
          prefopt_reference_create_fixed(&reference, context, &l.view, given));
    ck_assert_ptr_null(reference);
    l.view.n = 0;
    OK(prefopt_reference_create_fixed(&reference, context, &l.view, NULL));
    FAILS(PREFOPT_ERR_ARGUMENT, "none of the 0",
          prefopt_reference_logprobs(reference, &other.view, got));
    prefopt_reference_destroy(reference);
    list_free(&l);
    list_free(&other);
    prefopt_context_destroy(context);
}
END_TEST

START_TEST(the_column_of_a_dataset)
{
    prefopt_context *context = test_context(1);
    prefopt_dataset *d;
    prefopt_reference *uniform, *column = NULL;
    prefopt_space space = space_of(3, 2, -1);
    prefopt_row row;
    OK(prefopt_dataset_create(&d, context));
    OK(prefopt_row_init(&row, sizeof row));
    row.prompt = prompt;
    row.prompt_len = 1;
    OK(prefopt_reference_create_uniform(&uniform, context, &space));
    OK(prefopt_reference_annotate(uniform, d, NULL, NULL)); /* empty */
    OK(prefopt_dataset_append(d, &row));                    /* a prompt alone needs no number */
    OK(prefopt_reference_from_dataset(&column, d));
    prefopt_reference_destroy(column);
    column = NULL;
    OK(prefopt_dataset_append_pair(d, prompt, 1, (int32_t[]){1, 2}, 2, (int32_t[]){0, 0}, 2, 1, 1,
                                   0));
    FAILS(PREFOPT_ERR_STATE, "ref_logp of completion 0 of row 1",
          prefopt_reference_from_dataset(&column, d));
    ck_assert_ptr_null(column);
    OK(prefopt_reference_annotate(uniform, d, NULL, NULL));
    prefopt_columns columns = {.struct_size = sizeof columns};
    OK(prefopt_dataset_columns(d, &columns));
    ck_assert_double_eq(columns.ref_logp[0], 0);
    CLOSE(columns.ref_logp[2], -2 * log(3), 1e-15);
    OK(prefopt_reference_from_dataset(&column, d));
    prefopt_sequences all = {.struct_size = sizeof all};
    double got[3];
    OK(prefopt_dataset_sequences(d, &all));
    OK(prefopt_reference_logprobs(column, &all, got));
    ck_assert_mem_eq(got, columns.ref_logp, sizeof got);
    list other = list_new();
    list_add(&other, prompt, 1, (int32_t[]){1, 1}, 2);
    FAILS(PREFOPT_ERR_ARGUMENT, "sequence 0", prefopt_reference_logprobs(column, &other.view, got));
    /* A completion the reference does not know leaves the column as it was. */
    OK(prefopt_dataset_append_pair(d, prompt, 1, (int32_t[]){1, 1}, 2, (int32_t[]){0, 0}, 2, 1, 1,
                                   0));
    FAILS(PREFOPT_ERR_ARGUMENT, "rows from 2 on: reference: sequence 0 (3 tokens",
          prefopt_reference_annotate(column, d, NULL, NULL));
    OK(prefopt_dataset_columns(d, &columns));
    CLOSE(columns.ref_logp[2], -2 * log(3), 1e-15);
    ck_assert(isnan(columns.ref_logp[3]));
    double bad[] = {0, -1, -1, 0.5, -1};
    OK(prefopt_dataset_set_column(d, PREFOPT_COLUMN_REF_LOGP, bad));
    FAILS(PREFOPT_ERR_NUMERIC, "ref_logp of completion 0 of row 2 is 0.5",
          prefopt_reference_from_dataset(&uniform, d));
    prefopt_reference_destroy(column);
    prefopt_reference_destroy(uniform);
    prefopt_dataset_destroy(d);
    list_free(&other);
    prefopt_context_destroy(context);
}
END_TEST

typedef struct {
    const prefopt_reference *reference;
    const prefopt_sequences *in;
    const double *expected;
    int wrong;
} asker;

static void *ask(void *payload)
{
    asker *a = payload;
    double got[64];
    for (int round = 0; round < 300; round++) {
        a->wrong += prefopt_reference_logprobs(a->reference, a->in, got) != PREFOPT_OK;
        a->wrong += memcmp(got, a->expected, (size_t)a->in->n * sizeof *got) != 0;
    }
    return NULL;
}

START_TEST(many_threads_ask_one_reference)
{
    prefopt_context *context = test_context(2);
    prefopt_space space = space_of(3, 3, 0);
    prefopt_policy *policy;
    prefopt_reference *reference[3];
    list l = all_of(&space);
    double expected[64], fixed[64];
    OK(prefopt_policy_create_tabular(&policy, context, &space, &l.view));
    randomise(policy, 1, 1);
    OK(prefopt_policy_logprobs(policy, &l.view, fixed, NULL));
    OK(prefopt_reference_freeze(&reference[0], policy));
    OK(prefopt_reference_create_fixed(&reference[1], context, &l.view, fixed));
    OK(prefopt_reference_create_uniform(&reference[2], context, &space));
    for (int r = 0; r < 3; r++) {
        pthread_t thread[4];
        asker a[4];
        OK(prefopt_reference_logprobs(reference[r], &l.view, expected));
        for (int k = 0; k < 4; k++) {
            a[k] = (asker){reference[r], &l.view, expected, 0};
            ck_assert_int_eq(pthread_create(&thread[k], NULL, ask, &a[k]), 0);
        }
        randomise(policy, 9, 1); /* the policy changes meanwhile */
        for (int k = 0; k < 4; k++) {
            pthread_join(thread[k], NULL);
            ck_assert_int_eq(a[k].wrong, 0);
        }
        prefopt_reference_destroy(reference[r]);
    }
    list_free(&l);
    prefopt_policy_destroy(policy);
    prefopt_context_destroy(context);
}
END_TEST

START_TEST(refusals)
{
    prefopt_context *context = test_context(1);
    prefopt_space space = space_of(3, 1, -1);
    prefopt_reference *r = NULL, *uniform;
    prefopt_dataset *d;
    list l = all_of(&space);
    double x[3];
    OK(prefopt_dataset_create(&d, context));
    OK(prefopt_reference_create_uniform(&uniform, context, &space));
    FAILS(PREFOPT_ERR_ARGUMENT, "NULL", prefopt_reference_freeze(&r, NULL));
    FAILS(PREFOPT_ERR_ARGUMENT, "NULL",
          prefopt_reference_freeze(NULL, (const prefopt_policy *)&space));
    FAILS(PREFOPT_ERR_ARGUMENT, "NULL", prefopt_reference_create_uniform(NULL, context, &space));
    FAILS(PREFOPT_ERR_ARGUMENT, "NULL", prefopt_reference_create_uniform(&r, NULL, &space));
    FAILS(PREFOPT_ERR_ARGUMENT, "NULL", prefopt_reference_create_uniform(&r, context, NULL));
    FAILS(PREFOPT_ERR_ARGUMENT, "NULL", prefopt_reference_create_fixed(NULL, context, &l.view, x));
    FAILS(PREFOPT_ERR_ARGUMENT, "NULL", prefopt_reference_create_fixed(&r, NULL, &l.view, x));
    FAILS(PREFOPT_ERR_ARGUMENT, "NULL", prefopt_reference_create_fixed(&r, context, NULL, x));
    FAILS(PREFOPT_ERR_ARGUMENT, "NULL", prefopt_reference_create_fixed(&r, context, &l.view, NULL));
    FAILS(PREFOPT_ERR_ARGUMENT, "NULL", prefopt_reference_from_dataset(NULL, d));
    FAILS(PREFOPT_ERR_ARGUMENT, "NULL", prefopt_reference_from_dataset(&r, NULL));
    FAILS(PREFOPT_ERR_ARGUMENT, "NULL", prefopt_reference_logprobs(NULL, &l.view, x));
    FAILS(PREFOPT_ERR_ARGUMENT, "NULL", prefopt_reference_logprobs(uniform, NULL, x));
    FAILS(PREFOPT_ERR_ARGUMENT, "NULL", prefopt_reference_logprobs(uniform, &l.view, NULL));
    FAILS(PREFOPT_ERR_ARGUMENT, "NULL", prefopt_reference_annotate(NULL, d, NULL, NULL));
    FAILS(PREFOPT_ERR_ARGUMENT, "NULL", prefopt_reference_annotate(uniform, NULL, NULL, NULL));
    ck_assert_ptr_null(r);
    l.view.n = 0;
    OK(prefopt_reference_logprobs(uniform, &l.view, NULL));
    prefopt_reference_destroy(NULL);
    prefopt_reference_destroy(uniform);
    prefopt_dataset_destroy(d);
    list_free(&l);
    prefopt_context_destroy(context);
}
END_TEST

/* One after the other, each with its numbers asked for once. */
static int32_t make_all(prefopt_context *context, const prefopt_space *space, const list *l,
                        const prefopt_policy *policy, prefopt_dataset *d)
{
    for (int kind = 0; kind < 4; kind++) {
        prefopt_reference *r = NULL;
        double logp[16] = {-1, -2, -3};
        int32_t status = kind == 0   ? prefopt_reference_freeze(&r, policy)
                         : kind == 1 ? prefopt_reference_create_uniform(&r, context, space)
                         : kind == 2 ? prefopt_reference_create_fixed(&r, context, &l->view, logp)
                                     : prefopt_reference_from_dataset(&r, d);
        if (status == PREFOPT_OK)
            status = prefopt_reference_logprobs(r, &l->view, logp);
        const double nobodys[16] = {NAN, NAN, NAN, NAN, NAN, NAN, NAN, NAN};
        if (status == PREFOPT_OK) /* each is another reference */
            status = prefopt_dataset_set_column(d, PREFOPT_COLUMN_REF_LOGP, nobodys);
        if (status == PREFOPT_OK)
            status = prefopt_reference_annotate(r, d, NULL, NULL);
        prefopt_reference_destroy(r);
        if (status != PREFOPT_OK)
            return status;
    }
    return PREFOPT_OK;
}

START_TEST(every_allocation_may_fail)
{
    counting_allocator a = {0};
    prefopt_context *context = counting_context(&a);
    prefopt_space space = space_of(3, 1, -1);
    prefopt_policy *policy;
    prefopt_dataset *d;
    prefopt_row row;
    list l = all_of(&space);
    OK(prefopt_policy_create_tabular(&policy, context, &space, &l.view));
    OK(prefopt_dataset_create(&d, context));
    OK(prefopt_row_init(&row, sizeof row));
    row.kind = PREFOPT_ROW_COMPLETIONS;
    row.prompt = prompt;
    row.prompt_len = 1;
    row.completions = (int32_t[]){0, 1, 2};
    row.completion_offsets = (int64_t[]){0, 1, 2, 3};
    row.n_completions = 3;
    row.ref_logp = (double[]){-1, -1, -1};
    OK(prefopt_dataset_append(d, &row));
    int64_t live = a.live;
    for (int64_t n = 1;; n++) {
        a.fail_at = a.calls + n;
        int32_t status = make_all(context, &space, &l, policy, d);
        ck_assert_int_eq(a.live, live);
        if (status == PREFOPT_OK)
            break;
        ck_assert_int_eq(status, PREFOPT_ERR_MEMORY);
        ck_assert_int_lt(n, 200);
    }
    prefopt_policy_destroy(policy);
    prefopt_dataset_destroy(d);
    list_free(&l);
    prefopt_context_destroy(context);
}
END_TEST

TEST_MAIN("reference", a_snapshot_does_not_follow, uniform_over_completions, fixed_numbers,
          the_column_of_a_dataset, many_threads_ask_one_reference, refusals,
          every_allocation_may_fail)
