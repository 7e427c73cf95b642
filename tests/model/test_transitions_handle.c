/* What a mask of transitions promises: the same bits, who has it, refusals, numbers that overflow,
 * memory that ends. */
#include "transitions_test.h"

typedef struct {
    double logp[SEQUENCES];
    float *grad;
    int64_t n;
} result;

static result compute(int32_t threads, int64_t vocab, const uint8_t *mask, const list *l)
{
    prefopt_context *context = test_context(threads);
    prefopt_policy *policy = make(context, vocab);
    OK(prefopt_policy_set_transitions(policy, mask));
    prefopt_parameters p = {.struct_size = sizeof p};
    OK(prefopt_policy_parameters(policy, &p));
    result r = {.n = p.n, .grad = malloc((size_t)p.n * sizeof *r.grad)};
    OK(prefopt_policy_logprobs(policy, &l->view, r.logp, NULL));
    OK(prefopt_policy_backward(policy, &l->view, weights));
    memcpy(r.grad, p.grad, (size_t)p.n * sizeof *r.grad);
    prefopt_policy_destroy(policy);
    prefopt_context_destroy(context);
    return r;
}

static void check_equal(const result *a, const result *b)
{
    ck_assert_mem_eq(a->logp, b->logp, sizeof a->logp);
    ck_assert_mem_eq(a->grad, b->grad, (size_t)a->n * sizeof *a->grad);
}

START_TEST(the_same_bits)
{
    static const int64_t vocabs[] = {VOCAB, LARGE};
    for (int64_t j = 0; j < 2; j++) {
        int64_t vocab = vocabs[j];
        uint8_t *allowed = allowed_of(vocab), *all = malloc((size_t)(vocab * vocab));
        memset(all, 1, (size_t)(vocab * vocab));
        list l = batch(allowed, vocab);
        result one = compute(1, vocab, allowed, &l);
        for (int32_t threads = 2; threads <= 4; threads++) {
            result more = compute(threads, vocab, allowed, &l);
            check_equal(&one, &more);
            free(more.grad);
        }
        /* A mask that allows everything changes nothing. */
        result plain = compute(2, vocab, NULL, &l), open = compute(2, vocab, all, &l);
        check_equal(&plain, &open);
        ck_assert(plain.logp[0] != one.logp[0]);
        free(one.grad), free(plain.grad), free(open.grad);
        list_free(&l);
        free(all), free(allowed);
    }
}
END_TEST

/* ---- who has it */

START_TEST(clones_have_it)
{
    prefopt_context *context = test_context(1);
    uint8_t *allowed = allowed_of(VOCAB);
    prefopt_policy *policy = make(context, VOCAB);
    list l = batch(allowed, VOCAB);
    double open[SEQUENCES], masked[SEQUENCES], got[SEQUENCES];
    prefopt_reference *before, *after;
    OK(prefopt_policy_logprobs(policy, &l.view, open, NULL));
    OK(prefopt_reference_freeze(&before, policy));
    OK(prefopt_policy_set_transitions(policy, allowed));
    OK(prefopt_policy_logprobs(policy, &l.view, masked, NULL));
    OK(prefopt_reference_freeze(&after, policy));
    memset(allowed, 0, VOCAB); /* it was copied */
    OK(prefopt_policy_set_transitions(policy, NULL));
    OK(prefopt_policy_logprobs(policy, &l.view, got, NULL));
    ck_assert_mem_eq(got, open, sizeof got);
    OK(prefopt_reference_logprobs(before, &l.view, got));
    ck_assert_mem_eq(got, open, sizeof got);
    prefopt_policy_destroy(policy); /* the frozen one lives on */
    OK(prefopt_reference_logprobs(after, &l.view, got));
    ck_assert_mem_eq(got, masked, sizeof got);
    ck_assert(masked[0] > open[0] && masked[BROKEN_FIRST] == -INFINITY);
    list_free(&l);
    prefopt_reference_destroy(before);
    prefopt_reference_destroy(after);
    free(allowed);
    prefopt_context_destroy(context);
}
END_TEST

/* A forward pass from before is not gone on from. */
START_TEST(what_was_kept_is_forgotten)
{
    prefopt_context *context = test_context(1);
    uint8_t *allowed = allowed_of(VOCAB);
    list l = batch(allowed, VOCAB);
    result expected = compute(1, VOCAB, allowed, &l);
    prefopt_policy *policy = make(context, VOCAB);
    prefopt_parameters p = {.struct_size = sizeof p};
    OK(prefopt_policy_parameters(policy, &p));
    double logp[SEQUENCES];
    OK(prefopt_policy_logprobs(policy, &l.view, logp, NULL));
    OK(prefopt_policy_set_transitions(policy, allowed));
    OK(prefopt_policy_backward(policy, &l.view, weights));
    ck_assert_mem_eq(p.grad, expected.grad, (size_t)p.n * sizeof(float));
    free(expected.grad);
    list_free(&l);
    prefopt_policy_destroy(policy);
    free(allowed);
    prefopt_context_destroy(context);
}
END_TEST

START_TEST(errors)
{
    prefopt_context *context = test_context(1);
    uint8_t *allowed = allowed_of(VOCAB);
    prefopt_policy *policy = make(context, VOCAB), *tabular;
    list l = batch(allowed, VOCAB);
    double expected[SEQUENCES], got[SEQUENCES];
    OK(prefopt_policy_set_transitions(policy, allowed));
    OK(prefopt_policy_logprobs(policy, &l.view, expected, NULL));
    FAILS(PREFOPT_ERR_ARGUMENT, "policy", prefopt_policy_set_transitions(NULL, allowed));
    uint8_t was = allowed[3 * VOCAB + 4];
    allowed[3 * VOCAB + 4] = 2;
    FAILS(PREFOPT_ERR_ARGUMENT, "allowed[3, 4] is 2",
          prefopt_policy_set_transitions(policy, allowed));
    allowed[3 * VOCAB + 4] = was;
    memset(allowed + 6 * VOCAB, 0, VOCAB);
    FAILS(PREFOPT_ERR_ARGUMENT, "no token may follow token 6",
          prefopt_policy_set_transitions(policy, allowed));
    OK(prefopt_policy_logprobs(policy, &l.view, got, NULL));
    ck_assert_mem_eq(got, expected, sizeof got);
    prefopt_space space = space_of(3, 2, -1);
    OK(prefopt_policy_create_tabular(&tabular, context, &space, NULL));
    FAILS(PREFOPT_ERR_UNSUPPORTED, "not a transformer",
          prefopt_policy_set_transitions(tabular, NULL));
    prefopt_policy_destroy(tabular);
    list_free(&l);
    prefopt_policy_destroy(policy);
    free(allowed);
    prefopt_context_destroy(context);
}
END_TEST

/* A logit that overflows is an error where its token may follow, and nothing where it may not. */
START_TEST(overflow)
{
    prefopt_context *context = test_context(1);
    uint8_t allowed[VOCAB * VOCAB];
    memset(allowed, 1, sizeof allowed);
    for (int64_t u = 0; u < VOCAB; u++)
        allowed[u * VOCAB + 2] = u == 7;
    prefopt_policy *policy = make(context, VOCAB);
    prefopt_parameters p = {.struct_size = sizeof p};
    OK(prefopt_policy_parameters(policy, &p));
    pf_shape *shape = shape_of(context, VOCAB);
    for (int64_t j = 0; j < 8; j++) /* token 2 gets the largest logit there is, of either sign */
        ((float *)p.value)[shape->output + 2 * 8 + j] = j % 2 ? 3.4e38f : -3.4e38f;
    for (int64_t j = 0; j < 8; j++)
        ((float *)p.value)[shape->norm + j] = 100;
    OK(prefopt_policy_updated(policy));
    static const int32_t prompt[] = {4, 1}, completion[] = {3, 7, 5};
    double logp[1], grad[1] = {1};
    for (int64_t n = 1; n <= 3; n++) {
        list l = list_new();
        list_add(&l, prompt, 2, completion, n);
        FAILS(PREFOPT_ERR_NUMERIC, "overflow",
              prefopt_policy_logprobs(policy, &l.view, logp, NULL));
        OK(prefopt_policy_set_transitions(policy, allowed));
        if (n < 3) {
            OK(prefopt_policy_logprobs(policy, &l.view, logp, NULL));
            ck_assert(isfinite(logp[0]));
            OK(prefopt_policy_backward(policy, &l.view, grad));
            for (int64_t k = 0; k < p.n; k++)
                ck_assert(isfinite(((float *)p.grad)[k]));
        } else { /* after token 7 it may come */
            FAILS(PREFOPT_ERR_NUMERIC, "overflow",
                  prefopt_policy_logprobs(policy, &l.view, logp, NULL));
        }
        OK(prefopt_policy_set_transitions(policy, NULL));
        list_free(&l);
    }
    pf_shape_release(shape);
    prefopt_policy_destroy(policy);
    prefopt_context_destroy(context);
}
END_TEST

START_TEST(memory)
{
    counting_allocator allocator = {0};
    prefopt_context *context = counting_context(&allocator);
    uint8_t *allowed = allowed_of(VOCAB);
    prefopt_policy *policy = make(context, VOCAB);
    list l = batch(allowed, VOCAB);
    double expected[SEQUENCES], got[SEQUENCES];
    OK(prefopt_policy_logprobs(policy, &l.view, expected, NULL));
    int64_t live = allocator.live;
    allocator.calls = 0;
    allocator.fail_at = 1;
    ck_assert_int_eq(prefopt_policy_set_transitions(policy, allowed), PREFOPT_ERR_MEMORY);
    allocator.fail_at = 0;
    ck_assert_int_eq(allocator.live, live);
    OK(prefopt_policy_logprobs(policy, &l.view, got, NULL));
    ck_assert_mem_eq(got, expected, sizeof got);
    OK(prefopt_policy_set_transitions(policy, allowed));
    OK(prefopt_policy_set_transitions(policy, allowed));
    prefopt_policy_destroy(policy);
    list_free(&l);
    free(allowed);
    prefopt_context_destroy(context);
    ck_assert_int_eq(allocator.live, 0);
}
END_TEST

TEST_MAIN("transitions_handle", the_same_bits, clones_have_it, what_was_kept_is_forgotten, errors,
          overflow, memory)
