/* What a transformer's handle promises: weights that references share, threads, refusals, numbers
 * that overflow, memory that ends. */
#include <pthread.h>

#include "transformer_test.h"

START_TEST(test_reference_shares)
{
    prefopt_context *context = test_context(2);
    prefopt_transformer_config c = tiny();
    prefopt_policy *policy = make(context, &c);
    prefopt_reference *reference = NULL;
    list l = batch(1);
    double before[7], after[7], moved[7];
    OK(prefopt_reference_freeze(&reference, policy));
    OK(prefopt_policy_logprobs(policy, &l.view, before, NULL));
    prefopt_parameters p = {.struct_size = sizeof p};
    OK(prefopt_policy_parameters(policy, &p));
    ((float *)p.value)[p.n - 1] += 1;
    OK(prefopt_policy_updated(policy));
    OK(prefopt_reference_logprobs(reference, &l.view, after));
    OK(prefopt_policy_logprobs(policy, &l.view, moved, NULL));
    for (int64_t i = 0; i < 7; i++)
        ck_assert_double_eq(before[i], after[i]);
    ck_assert(moved[0] != before[0]);
    /* Nobody shares any more: the next asking gives the same memory. */
    void *value = p.value;
    OK(prefopt_policy_parameters(policy, &p));
    ck_assert_ptr_eq(value, p.value);
    list_free(&l);
    prefopt_policy_destroy(policy);
    prefopt_reference_destroy(reference);
    prefopt_context_destroy(context);
}
END_TEST

typedef struct {
    const prefopt_reference *reference;
    const list *l;
    double logp[7];
} asker;

static void *ask(void *payload)
{
    asker *a = payload;
    for (int i = 0; i < 20; i++)
        if (prefopt_reference_logprobs(a->reference, &a->l->view, a->logp) != PREFOPT_OK)
            a->logp[0] = NAN;
    return NULL;
}

START_TEST(test_reference_from_threads)
{
    prefopt_context *context = test_context(2);
    prefopt_transformer_config c = tiny();
    prefopt_policy *policy = make(context, &c);
    prefopt_reference *reference = NULL;
    list l = batch(3);
    OK(prefopt_reference_freeze(&reference, policy));
    asker askers[3];
    pthread_t threads[3];
    for (int i = 0; i < 3; i++) {
        askers[i] = (asker){.reference = reference, .l = &l};
        ck_assert_int_eq(pthread_create(&threads[i], NULL, ask, &askers[i]), 0);
    }
    double logp[7];
    for (int i = 0; i < 3; i++)
        pthread_join(threads[i], NULL);
    OK(prefopt_policy_logprobs(policy, &l.view, logp, NULL));
    for (int i = 0; i < 3; i++)
        for (int k = 0; k < 7; k++)
            ck_assert_double_eq(askers[i].logp[k], logp[k]);
    list_free(&l);
    prefopt_reference_destroy(reference);
    prefopt_policy_destroy(policy);
    prefopt_context_destroy(context);
}
END_TEST

START_TEST(test_next_logprobs)
{
    prefopt_context *context = test_context(2);
    prefopt_transformer_config c = tiny();
    prefopt_policy *policy = make(context, &c);
    int32_t tokens[] = {3, 1, 4, 1, 5};
    double next[2 * 13], logp;
    list l = list_new();
    list_add(&l, tokens, 2, tokens + 2, 2);
    list_add(&l, tokens, 1, NULL, 0);
    OK(prefopt_policy_next_logprobs(policy, &l.view, next));
    list_free(&l);
    for (int32_t v = 0; v < 13; v++) {
        int32_t with[] = {3, 1, 4, 1, v};
        l = list_new();
        list_add(&l, with, 4, with + 4, 1);
        OK(prefopt_policy_logprobs(policy, &l.view, &logp, NULL));
        CLOSE(next[v], logp, 1e-6);
        list_free(&l);
    }
    prefopt_policy_destroy(policy);
    prefopt_context_destroy(context);
}
END_TEST

START_TEST(test_errors)
{
    prefopt_context *context = test_context(1);
    prefopt_transformer_config c = tiny();
    prefopt_policy *policy = NULL, *tabular = NULL;
    FAILS(PREFOPT_ERR_ARGUMENT, "out", prefopt_policy_create_transformer(NULL, context, &c, 0));
    FAILS(PREFOPT_ERR_ARGUMENT, "context", prefopt_policy_create_transformer(&policy, NULL, &c, 0));
    c.n_heads = 5;
    FAILS(PREFOPT_ERR_ARGUMENT, "width is 12, expected a multiple of n_heads = 5",
          prefopt_policy_create_transformer(&policy, context, &c, 0));
    c = tiny();
    c.rotary_fraction = NAN;
    FAILS(PREFOPT_ERR_NUMERIC, "rotary_fraction",
          prefopt_policy_create_transformer(&policy, context, &c, 0));
    c.rotary_fraction = 0.5;
    FAILS(PREFOPT_ERR_ARGUMENT, "it turns 3 of a head's 6 dimensions, expected an even number",
          prefopt_policy_create_transformer(&policy, context, &c, 0));
    c = tiny();
    c.eos = 13;
    FAILS(PREFOPT_ERR_ARGUMENT, "eos is 13",
          prefopt_policy_create_transformer(&policy, context, &c, 0));
    c = tiny();
    c.vocab = INT32_MAX;
    c.width = INT32_MAX - 1;
    c.n_heads = 1;
    FAILS(PREFOPT_ERR_MEMORY, "", prefopt_policy_create_transformer(&policy, context, &c, 0));
    ck_assert_ptr_null(policy);

    c = tiny();
    policy = make(context, &c);
    double logp[2];
    int32_t tokens[300] = {1, 2, 13, 4};
    list l = list_new();
    list_add(&l, tokens, 2, tokens, 2);
    list_add(&l, tokens, 1, tokens + 1, 3);
    FAILS(PREFOPT_ERR_ARGUMENT, "sequence 1: token 2 is 13",
          prefopt_policy_logprobs(policy, &l.view, logp, NULL));
    list_free(&l);
    l = list_new();
    list_add(&l, tokens, 2, tokens, 2);
    list_add(&l, tokens, 0, tokens, 2);
    FAILS(PREFOPT_ERR_ARGUMENT, "sequence 1: the prompt is empty",
          prefopt_policy_logprobs(policy, &l.view, logp, NULL));
    list_free(&l);
    l = list_new();
    list_add(&l, tokens + 3, 141, tokens + 4, 100);
    FAILS(PREFOPT_ERR_ARGUMENT, "has 241 tokens, expected at most max_positions = 240",
          prefopt_policy_logprobs(policy, &l.view, logp, NULL));
    list_free(&l);

    prefopt_tensor tensor = {.struct_size = sizeof tensor};
    OK(prefopt_policy_tensor(policy, 5, &tensor));
    ck_assert_str_eq(tensor.name, "gpt_neox.layers.0.attention.query_key_value.weight");
    ck_assert_int_eq(tensor.rows, 36);
    ck_assert_int_eq(tensor.columns, 12);
    FAILS(PREFOPT_ERR_ARGUMENT, "expected 0 to 27", prefopt_policy_tensor(policy, 28, &tensor));
    prefopt_space space = space_of(3, 1, -1);
    OK(prefopt_policy_create_tabular(&tabular, context, &space, NULL));
    FAILS(PREFOPT_ERR_UNSUPPORTED, "not a transformer", prefopt_policy_tensor(tabular, 0, &tensor));
    FAILS(PREFOPT_ERR_UNSUPPORTED, "not a transformer", prefopt_policy_set_recompute(tabular, 1));
    FAILS(PREFOPT_ERR_ARGUMENT, "recompute is 2", prefopt_policy_set_recompute(policy, 2));

    prefopt_parameters p = {.struct_size = sizeof p};
    OK(prefopt_policy_parameters(policy, &p));
    ((float *)p.value)[tensor.offset + 7] = NAN;
    FAILS(PREFOPT_ERR_NUMERIC,
          "gpt_neox.layers.0.attention.query_key_value.weight: element 7 is nan",
          prefopt_policy_updated(policy));
    prefopt_policy_destroy(tabular);
    prefopt_policy_destroy(policy);
    prefopt_context_destroy(context);
}
END_TEST

/* Weights so large that logits overflow are an error that names no wrong number as an answer. */
START_TEST(test_overflow)
{
    prefopt_context *context = test_context(1);
    prefopt_transformer_config c = tiny();
    prefopt_policy *policy = make(context, &c);
    prefopt_parameters p = {.struct_size = sizeof p};
    OK(prefopt_policy_parameters(policy, &p));
    prefopt_tensor tensor = {.struct_size = sizeof tensor};
    OK(prefopt_policy_tensor(policy, 27, &tensor));
    for (int64_t i = 0; i < tensor.rows * tensor.columns; i++)
        ((float *)p.value)[tensor.offset + i] = 3e38f * (i % 2 ? 1 : -1);
    OK(prefopt_policy_updated(policy));
    list l = batch(1);
    double logp[7], next[7 * 13];
    FAILS(PREFOPT_ERR_NUMERIC, "logit", prefopt_policy_logprobs(policy, &l.view, logp, NULL));
    FAILS(PREFOPT_ERR_NUMERIC, "logit", prefopt_policy_backward(policy, &l.view, weights));
    FAILS(PREFOPT_ERR_NUMERIC, "logit", prefopt_policy_next_logprobs(policy, &l.view, next));
    for (int64_t k = 0; k < p.n; k++)
        ck_assert(((float *)p.grad)[k] == 0);
    list_free(&l);
    prefopt_policy_destroy(policy);
    prefopt_context_destroy(context);
}
END_TEST

START_TEST(test_memory)
{
    counting_allocator allocator = {0};
    prefopt_context *context = counting_context(&allocator);
    prefopt_transformer_config c = tiny();
    int64_t live = allocator.live;
    list l = batch(1);
    int32_t status = PREFOPT_ERR_MEMORY;
    for (int64_t fail_at = 1; status != PREFOPT_OK; fail_at++) {
        prefopt_policy *policy = NULL;
        prefopt_reference *reference = NULL;
        double logp[7], next[7 * 13];
        allocator.calls = 0;
        allocator.fail_at = fail_at;
        status = prefopt_policy_create_transformer(&policy, context, &c, 1);
        if (status == PREFOPT_OK)
            status = prefopt_reference_freeze(&reference, policy);
        if (status == PREFOPT_OK)
            status = prefopt_policy_zero_grad(policy);
        if (status == PREFOPT_OK)
            status = prefopt_policy_logprobs(policy, &l.view, logp, NULL);
        if (status == PREFOPT_OK)
            status = prefopt_policy_backward(policy, &l.view, weights);
        if (status == PREFOPT_OK)
            status = prefopt_policy_backward(policy, &l.view, weights);
        if (status == PREFOPT_OK)
            status = prefopt_policy_next_logprobs(policy, &l.view, next);
        if (status == PREFOPT_OK)
            status = prefopt_reference_logprobs(reference, &l.view, logp);
        ck_assert(status == PREFOPT_OK || status == PREFOPT_ERR_MEMORY);
        /* What failed for want of memory works once there is some. */
        allocator.fail_at = 0;
        if (policy != NULL) {
            OK(prefopt_policy_logprobs(policy, &l.view, logp, NULL));
            OK(prefopt_policy_backward(policy, &l.view, weights));
        }
        if (reference != NULL)
            OK(prefopt_reference_logprobs(reference, &l.view, logp));
        prefopt_reference_destroy(reference);
        prefopt_policy_destroy(policy);
        ck_assert_int_eq(allocator.live, live);
        ck_assert_int_lt(fail_at, 500);
    }
    list_free(&l);
    prefopt_context_destroy(context);
}
END_TEST

TEST_MAIN("transformer_handle", test_reference_shares, test_reference_from_threads,
          test_next_logprobs, test_errors, test_overflow, test_memory)
