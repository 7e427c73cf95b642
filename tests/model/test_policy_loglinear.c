#include <pthread.h>

#include "model_test.h"

static const int32_t prompt_a[] = {7}, prompt_b[] = {9, 9};

enum { WIDTH = 3, N = 9 };

/* Nine completions of two prompts in no order, of the space (vocab 3, horizon 3, eos 0). */
static list nine(void)
{
    static const struct {
        int b;
        int32_t y[3];
        int64_t len;
    } listed[N] = {
        {1, {2, 1, 2}, 3}, {0, {2, 0}, 2},    {0, {1, 2, 2}, 3}, {1, {0}, 1},    {0, {0}, 1},
        {0, {1, 2, 1}, 3}, {1, {2, 2, 0}, 3}, {0, {1, 0}, 2},    {1, {1, 0}, 2},
    };
    list l = list_new();
    for (int i = 0; i < N; i++)
        list_add(&l, listed[i].b ? prompt_b : prompt_a, 1 + listed[i].b, listed[i].y,
                 listed[i].len);
    return l;
}

/* Features and base log-probabilities at random; base -inf for the third completion if `never`. */
static prefopt_policy *create(prefopt_context *context, const list *l, int never, double *features,
                              double *base)
{
    prefopt_space space = space_of(3, 3, 0);
    prefopt_policy *policy;
    OK(prefopt_random_normal(1, 0, 0, N * WIDTH, features));
    OK(prefopt_random_normal(1, 1, 0, N, base));
    if (never)
        base[2] = -INFINITY;
    OK(prefopt_policy_create_loglinear(&policy, context, &space, &l->view, WIDTH, features, base));
    return policy;
}

START_TEST(the_formula)
{
    prefopt_context *context = test_context(2);
    list l = nine();
    for (int never = 0; never < 2; never++) {
        double features[N * WIDTH], base[N], logp[N], theta[] = {0, 0, 0}, score[N];
        prefopt_policy *policy = create(context, &l, never, features, base);
        prefopt_parameters p = {.struct_size = sizeof p};
        OK(prefopt_policy_parameters(policy, &p));
        ck_assert_int_eq(p.n, WIDTH);
        for (int round = 0; round < 2; round++) {
            for (int i = 0; i < N; i++) {
                score[i] = base[i];
                for (int k = 0; k < WIDTH; k++)
                    score[i] += theta[k] * features[i * WIDTH + k];
            }
            OK(prefopt_policy_logprobs(policy, &l.view, logp, NULL));
            for (int i = 0; i < N; i++) {
                double z = -INFINITY;
                for (int j = 0; j < N; j++)
                    if (l.prompt_len[i] == l.prompt_len[j])
                        z = prefopt_log_add_exp(z, score[j]);
                CLOSE(logp[i], score[i] - z, 1e-14);
            }
            theta[0] = 2;
            theta[1] = -1;
            theta[2] = 0.5;
            memcpy(p.value, theta, sizeof theta);
            OK(prefopt_policy_updated(policy));
        }
        prefopt_policy_destroy(policy);
    }
    list_free(&l);
    prefopt_context_destroy(context);
}
END_TEST

START_TEST(probabilities_sum_to_one_over_the_space)
{
    prefopt_context *context = test_context(1);
    list l = nine(), all = list_new();
    prefopt_space space = space_of(3, 3, 0);
    double features[N * WIDTH], base[N];
    list_add_all(&all, &space, prompt_a, 1);
    int64_t of_a = all.view.n, n;
    list_add_all(&all, &space, prompt_b, 2);
    n = all.view.n;
    for (int never = 0; never < 2; never++) {
        prefopt_policy *policy = create(context, &l, never, features, base);
        double *logp = calloc((size_t)n, sizeof *logp);
        double *token = calloc((size_t)all.offsets[n], sizeof *token);
        randomise(policy, 3, 1);
        OK(prefopt_policy_logprobs(policy, &all.view, logp, token));
        CLOSE(prefopt_log_sum_exp(of_a, logp), 0, 1e-15);
        CLOSE(prefopt_log_sum_exp(n - of_a, logp + of_a), 0, 1e-15);
        int64_t positive = 0;
        for (int64_t i = 0; i < n; i++) {
            double sum = 0;
            for (int64_t t = all.offsets[i]; t < all.offsets[i + 1]; t++) {
                sum += token[t];
                ck_assert(t - all.offsets[i] >= all.prompt_len[i] || token[t] == 0);
            }
            CLOSE(sum, logp[i], 1e-14);
            positive += isfinite(logp[i]);
        }
        ck_assert_int_eq(positive, N - never);
        free(logp);
        free(token);
        prefopt_policy_destroy(policy);
    }
    list_free(&l);
    list_free(&all);
    prefopt_context_destroy(context);
}
END_TEST

START_TEST(next_tokens_are_the_conditionals)
{
    prefopt_context *context = test_context(1);
    list l = nine();
    prefopt_space space = space_of(3, 3, 0);
    double features[N * WIDTH], base[N];
    prefopt_policy *policy = create(context, &l, 1, features, base);
    randomise(policy, 3, 1);
    list all = list_new();
    list_add_all(&all, &space, prompt_a, 1);
    for (int64_t i = 0; i < all.view.n; i++) {
        list one = list_new(), prefixes = list_new();
        const int32_t *y = all.tokens + all.offsets[i] + 1;
        int64_t len = all.offsets[i + 1] - all.offsets[i] - 1;
        double logp, token[4], next[9];
        list_add(&one, prompt_a, 1, y, len);
        for (int64_t k = 0; k < len; k++)
            list_add(&prefixes, prompt_a, 1, y, k);
        OK(prefopt_policy_logprobs(policy, &one.view, &logp, token));
        OK(prefopt_policy_next_logprobs(policy, &prefixes.view, next));
        for (int64_t k = 0; k < len; k++) {
            ck_assert_double_eq(next[3 * k + y[k]], token[1 + k]);
            CLOSE(prefopt_log_sum_exp(3, next + 3 * k), 0, 1e-15);
        }
        list_free(&one);
        list_free(&prefixes);
    }
    list_free(&l);
    list_free(&all);
    prefopt_policy_destroy(policy);
    prefopt_context_destroy(context);
}
END_TEST

START_TEST(gradients_are_central_differences)
{
    prefopt_context *context = test_context(2);
    for (int never = 0; never < 2; never++) {
        list l = nine();
        double features[N * WIDTH], base[N], grad[N + 3];
        prefopt_policy *policy = create(context, &l, never, features, base);
        randomise(policy, 8, 1);
        list_add(&l, prompt_a, 1, (int32_t[]){1, 0}, 2);    /* a repeat adds */
        list_add(&l, prompt_a, 1, (int32_t[]){1, 1, 1}, 3); /* not listed: adds nothing */
        list_add(&l, prompt_a, 1, NULL, 0);                 /* nor does this */
        OK(prefopt_random_normal(4, 0, 0, N + 3, grad));
        check_policy_gradient(policy, &l.view, grad, 1e-8);
        prefopt_parameters p = {.struct_size = sizeof p};
        OK(prefopt_policy_parameters(policy, &p));
        double once[WIDTH];
        memcpy(once, p.grad, sizeof once);
        OK(prefopt_policy_backward(policy, &l.view, grad));
        for (int k = 0; k < WIDTH; k++)
            CLOSE(((double *)p.grad)[k], 2 * once[k], 1e-14);
        list_free(&l);
        prefopt_policy_destroy(policy);
    }
    prefopt_context_destroy(context);
}
END_TEST

START_TEST(enumeration)
{
    prefopt_context *context = test_context(1);
    list l = nine();
    double features[N * WIDTH], base[N];
    prefopt_policy *policy = create(context, &l, 0, features, base);
    prefopt_dataset *prompts, *all;
    prefopt_columns columns = {.struct_size = sizeof columns};
    prefopt_row row;
    OK(prefopt_dataset_create(&prompts, context));
    OK(prefopt_row_init(&row, sizeof row));
    row.prompt = prompt_b;
    row.prompt_len = 2;
    OK(prefopt_dataset_append(prompts, &row));
    OK(prefopt_policy_enumerate(&all, policy, prompts, 0));
    OK(prefopt_dataset_columns(all, &columns));
    ck_assert_int_eq(columns.n_sequences, 15);
    int finite = 0;
    for (int i = 0; i < 15; i++)
        finite += isfinite(columns.logp[i]);
    ck_assert_int_eq(finite, 4);
    CLOSE(prefopt_log_sum_exp(15, columns.logp), 0, 1e-15);
    prefopt_dataset_destroy(all);
    prefopt_dataset_destroy(prompts);
    prefopt_policy_destroy(policy);
    list_free(&l);
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
    double got[N];
    for (int round = 0; round < 300; round++) {
        a->wrong += prefopt_reference_logprobs(a->reference, a->in, got) != PREFOPT_OK;
        a->wrong += memcmp(got, a->expected, sizeof got) != 0;
    }
    return NULL;
}

START_TEST(a_snapshot_on_many_threads_does_not_follow)
{
    prefopt_context *context = test_context(2);
    list l = nine();
    double features[N * WIDTH], base[N], before[N], now[N];
    prefopt_policy *policy = create(context, &l, 1, features, base);
    prefopt_reference *reference;
    randomise(policy, 1, 1);
    OK(prefopt_policy_logprobs(policy, &l.view, before, NULL));
    OK(prefopt_reference_freeze(&reference, policy));
    pthread_t thread[4];
    asker a[4];
    for (int k = 0; k < 4; k++) {
        a[k] = (asker){reference, &l.view, before, 0};
        ck_assert_int_eq(pthread_create(&thread[k], NULL, ask, &a[k]), 0);
    }
    for (uint64_t round = 0; round < 50; round++)
        randomise(policy, 2 + round, 1);
    OK(prefopt_policy_logprobs(policy, &l.view, now, NULL));
    ck_assert_double_ne(now[0], before[0]);
    prefopt_policy_destroy(policy); /* what they share lives on */
    for (int k = 0; k < 4; k++) {
        pthread_join(thread[k], NULL);
        ck_assert_int_eq(a[k].wrong, 0);
    }
    prefopt_reference_destroy(reference);
    list_free(&l);
    prefopt_context_destroy(context);
}
END_TEST

START_TEST(bad_parameters_are_named)
{
    prefopt_context *context = test_context(1);
    list l = nine();
    double features[N * WIDTH], base[N], before[N], after[N];
    prefopt_policy *policy = create(context, &l, 0, features, base);
    prefopt_parameters p = {.struct_size = sizeof p};
    randomise(policy, 1, 1);
    OK(prefopt_policy_parameters(policy, &p));
    OK(prefopt_policy_logprobs(policy, &l.view, before, NULL));
    ((double *)p.value)[1] = NAN;
    FAILS(PREFOPT_ERR_NUMERIC, "theta[1] is nan", prefopt_policy_updated(policy));
    for (int k = 0; k < WIDTH; k++)
        ((double *)p.value)[k] = features[k] > 0 ? 1.7e308 : -1.7e308;
    FAILS(PREFOPT_ERR_NUMERIC, "theta . phi overflows", prefopt_policy_updated(policy));
    OK(prefopt_policy_logprobs(policy, &l.view, after, NULL));
    ck_assert_mem_eq(before, after, sizeof after);
    prefopt_policy_destroy(policy);
    list_free(&l);
    prefopt_context_destroy(context);
}
END_TEST

START_TEST(sequences_that_are_not_of_the_policy)
{
    prefopt_context *context = test_context(1);
    list l = nine();
    double features[N * WIDTH], base[N], logp[1] = {5}, next[3] = {5}, one[1] = {1};
    prefopt_policy *policy = create(context, &l, 0, features, base);
    static const struct {
        int32_t prompt, y[4];
        int64_t len;
        const char *text;
    } bad[] = {
        {7, {1, 3}, 2, "token 2 of sequence 0 is 3, expected 0 to 2"},
        {8, {0}, 1, "sequence 0: its prompt (1 tokens) is none of the 2"},
        {7, {1, 1}, 2, "expected the end token 0"},
        {7, {1, 1, 1, 1}, 4, "token 4 of sequence 0 is beyond the horizon"},
        {7, {0, 1}, 2, "token 1 of sequence 0 is the end token 0"},
    };
    for (size_t k = 0; k < sizeof bad / sizeof bad[0]; k++) {
        list x = list_new();
        list_add(&x, &bad[k].prompt, 1, bad[k].y, bad[k].len);
        FAILS(PREFOPT_ERR_ARGUMENT, bad[k].text,
              prefopt_policy_logprobs(policy, &x.view, logp, NULL));
        FAILS(PREFOPT_ERR_ARGUMENT, bad[k].text, prefopt_policy_backward(policy, &x.view, one));
        ck_assert_double_eq(logp[0], 5);
        list_free(&x);
    }
    list x = list_new();
    list_add(&x, prompt_a, 1, (int32_t[]){0}, 1);
    FAILS(PREFOPT_ERR_ARGUMENT, "token 1 of sequence 0 is the end token 0",
          prefopt_policy_next_logprobs(policy, &x.view, next));
    ck_assert_double_eq(next[0], 5);
    FAILS(PREFOPT_ERR_UNSUPPORTED, "not tabular",
          prefopt_policy_set_logprobs(policy, &x.view, one));
    prefopt_parameters p = {.struct_size = sizeof p};
    OK(prefopt_policy_parameters(policy, &p));
    for (int k = 0; k < WIDTH; k++)
        ck_assert_double_eq(((double *)p.grad)[k], 0);
    list_free(&x);
    list_free(&l);
    prefopt_policy_destroy(policy);
    prefopt_context_destroy(context);
}
END_TEST

START_TEST(refusals)
{
    prefopt_context *context = test_context(1);
    prefopt_space space = space_of(3, 3, 0), bad = space_of(3, 3, 5);
    prefopt_policy *policy = NULL;
    list l = nine();
    double f[N * WIDTH] = {0}, b[N] = {0};
    FAILS(PREFOPT_ERR_ARGUMENT, "out is NULL",
          prefopt_policy_create_loglinear(NULL, context, &space, &l.view, WIDTH, f, b));
    FAILS(PREFOPT_ERR_ARGUMENT, "context is NULL",
          prefopt_policy_create_loglinear(&policy, NULL, &space, &l.view, WIDTH, f, b));
    FAILS(PREFOPT_ERR_ARGUMENT, "space is NULL",
          prefopt_policy_create_loglinear(&policy, context, NULL, &l.view, WIDTH, f, b));
    FAILS(PREFOPT_ERR_ARGUMENT, "in is NULL",
          prefopt_policy_create_loglinear(&policy, context, &space, NULL, WIDTH, f, b));
    FAILS(PREFOPT_ERR_ARGUMENT, "features is NULL",
          prefopt_policy_create_loglinear(&policy, context, &space, &l.view, WIDTH, NULL, b));
    FAILS(PREFOPT_ERR_ARGUMENT, "eos is 5",
          prefopt_policy_create_loglinear(&policy, context, &bad, &l.view, WIDTH, f, b));
    FAILS(PREFOPT_ERR_ARGUMENT, "n_features is -1",
          prefopt_policy_create_loglinear(&policy, context, &space, &l.view, -1, f, b));
    f[4] = NAN;
    FAILS(PREFOPT_ERR_NUMERIC, "features[1, 1] is nan",
          prefopt_policy_create_loglinear(&policy, context, &space, &l.view, WIDTH, f, b));
    f[4] = 0;
    b[3] = INFINITY;
    FAILS(PREFOPT_ERR_NUMERIC, "base_logp[3] is inf",
          prefopt_policy_create_loglinear(&policy, context, &space, &l.view, WIDTH, f, b));
    b[0] = b[3] = b[6] = b[8] = -INFINITY;
    FAILS(PREFOPT_ERR_NUMERIC, "base_logp is -inf for every completion of prompt 0",
          prefopt_policy_create_loglinear(&policy, context, &space, &l.view, WIDTH, f, b));
    list x = list_new();
    list_add(&x, prompt_a, 1, (int32_t[]){0}, 1);
    list_add(&x, prompt_a, 1, (int32_t[]){1, 0}, 2);
    list_add(&x, prompt_a, 1, (int32_t[]){0}, 1);
    FAILS(PREFOPT_ERR_ARGUMENT, " are the same",
          prefopt_policy_create_loglinear(&policy, context, &space, &x.view, WIDTH, f, NULL));
    x.view.n = 2;
    list_add(&x, prompt_a, 1, NULL, 0);
    FAILS(PREFOPT_ERR_ARGUMENT, "sequence 2 has an empty completion",
          prefopt_policy_create_loglinear(&policy, context, &space, &x.view, WIDTH, f, NULL));
    x.tokens[1] = 3;
    FAILS(PREFOPT_ERR_ARGUMENT, "token 1 of sequence 0 is 3",
          prefopt_policy_create_loglinear(&policy, context, &space, &x.view, WIDTH, f, NULL));
    ck_assert_ptr_null(policy);
    x.view.n = 0;
    OK(prefopt_policy_create_loglinear(&policy, context, &space, &x.view, WIDTH, NULL, NULL));
    FAILS(PREFOPT_ERR_ARGUMENT, "none of the 0", prefopt_policy_logprobs(policy, &l.view, b, NULL));
    prefopt_policy_destroy(policy);
    list_free(&x);
    list_free(&l);
    prefopt_context_destroy(context);
}
END_TEST

START_TEST(every_allocation_may_fail)
{
    counting_allocator a = {0};
    prefopt_context *context = counting_context(&a);
    prefopt_space space = space_of(3, 3, 0);
    list l = nine();
    double f[N * WIDTH] = {0}, logp[N];
    for (int64_t n = 1;; n++) {
        prefopt_policy *policy = NULL;
        prefopt_reference *reference = NULL;
        a.fail_at = a.calls + n;
        int32_t status =
            prefopt_policy_create_loglinear(&policy, context, &space, &l.view, WIDTH, f, NULL);
        ck_assert((status == PREFOPT_OK) == (policy != NULL));
        if (status == PREFOPT_OK)
            status = prefopt_policy_logprobs(policy, &l.view, logp, NULL);
        if (status == PREFOPT_OK)
            status = prefopt_policy_backward(policy, &l.view, f);
        if (status == PREFOPT_OK)
            status = prefopt_reference_freeze(&reference, policy);
        prefopt_policy_destroy(policy);
        prefopt_reference_destroy(reference);
        ck_assert_int_eq(a.live, 1);
        if (status == PREFOPT_OK)
            break;
        ck_assert_int_eq(status, PREFOPT_ERR_MEMORY);
        ck_assert_int_lt(n, 200);
    }
    list_free(&l);
    prefopt_context_destroy(context);
}
END_TEST

TEST_MAIN("policy_loglinear", the_formula, probabilities_sum_to_one_over_the_space,
          next_tokens_are_the_conditionals, gradients_are_central_differences, enumeration,
          a_snapshot_on_many_threads_does_not_follow, bad_parameters_are_named,
          sequences_that_are_not_of_the_policy, refusals, every_allocation_may_fail)
