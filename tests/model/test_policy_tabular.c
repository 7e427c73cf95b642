#include "model_test.h"

static const struct {
    int64_t vocab, horizon;
    int32_t eos;
} spaces[] = {{3, 1, -1}, {2, 3, -1}, {3, 2, -1}, {3, 3, 0}, {4, 2, 3}, {3, 3, 1},
              {1, 1, -1}, {1, 4, -1}, {1, 3, 0},  {2, 4, 0}, {2, 4, 1}};
enum { N_SPACES = sizeof spaces / sizeof spaces[0] };

static const int32_t prompt_a[] = {7}, prompt_b[] = {7, 100};

static list two_prompts(void)
{
    list l = list_new();
    list_add(&l, prompt_a, 1, NULL, 0);
    list_add(&l, prompt_b, 2, NULL, 0);
    list_add(&l, prompt_a, 1, NULL, 0); /* a repeat is one */
    return l;
}

START_TEST(probabilities_sum_to_one)
{
    prefopt_context *context = test_context(2);
    list prompts = two_prompts();
    for (int s = 0; s < N_SPACES; s++) {
        prefopt_space space = space_of(spaces[s].vocab, spaces[s].horizon, spaces[s].eos), own;
        prefopt_policy *policy;
        int64_t count;
        OK(prefopt_policy_create_tabular(&policy, context, &space, &prompts.view));
        randomise(policy, (uint64_t)s, 2);
        OK(prefopt_space_count(&space, &count));
        own.struct_size = sizeof own;
        OK(prefopt_policy_space(policy, &own));
        ck_assert_int_eq(own.vocab, space.vocab);
        ck_assert_int_eq(own.eos, space.eos);
        for (int p = 0; p < 2; p++) {
            list all = list_new();
            list_add_all(&all, &space, p ? prompt_b : prompt_a, 1 + p);
            ck_assert_int_eq(all.view.n, count);
            double *logp = calloc((size_t)count, sizeof *logp);
            double *token = calloc((size_t)all.offsets[count], sizeof *token);
            OK(prefopt_policy_logprobs(policy, &all.view, logp, token));
            CLOSE(prefopt_log_sum_exp(count, logp), 0, 1e-14);
            for (int64_t i = 0; i < count; i++) {
                double sum = 0;
                for (int64_t t = all.offsets[i]; t < all.offsets[i + 1]; t++) {
                    sum += token[t];
                    ck_assert(t - all.offsets[i] >= 1 + p || token[t] == 0);
                }
                CLOSE(sum, logp[i], 1e-15);
            }
            free(logp);
            free(token);
            list_free(&all);
        }
        prefopt_policy_destroy(policy);
    }
    list_free(&prompts);
    prefopt_context_destroy(context);
}
END_TEST

START_TEST(next_tokens_are_the_conditionals)
{
    prefopt_context *context = test_context(1);
    prefopt_space space = space_of(3, 3, 1);
    prefopt_policy *policy;
    OK(prefopt_policy_create_tabular(&policy, context, &space, NULL));
    randomise(policy, 5, 1);
    list prefixes = list_new(), whole = list_new();
    int32_t y[] = {2, 0, 1};
    for (int k = 0; k < 3; k++)
        list_add(&prefixes, NULL, 0, y, k);
    list_add(&whole, NULL, 0, y, 3);
    double next[9], logp, token[3];
    OK(prefopt_policy_next_logprobs(policy, &prefixes.view, next));
    OK(prefopt_policy_logprobs(policy, &whole.view, &logp, token));
    for (int k = 0; k < 3; k++) {
        CLOSE(prefopt_log_sum_exp(3, next + 3 * k), 0, 1e-15);
        ck_assert_double_eq(next[3 * k + y[k]], token[k]);
    }
    list_add(&prefixes, NULL, 0, y, 3);
    FAILS(PREFOPT_ERR_ARGUMENT, "token 2 of sequence 3 is beyond the horizon",
          prefopt_policy_next_logprobs(policy, &prefixes.view, next));
    prefixes.view.n = 1;
    list_free(&whole);
    whole = list_new();
    int32_t ended[] = {2, 1};
    list_add(&whole, NULL, 0, ended, 2);
    FAILS(PREFOPT_ERR_ARGUMENT, "token 1 of sequence 0 is the end token 1",
          prefopt_policy_next_logprobs(policy, &whole.view, next));
    list_free(&prefixes);
    list_free(&whole);
    prefopt_policy_destroy(policy);
    prefopt_context_destroy(context);
}
END_TEST

START_TEST(gradients_are_central_differences)
{
    prefopt_context *context = test_context(2);
    list prompts = two_prompts();
    for (int s = 0; s < N_SPACES; s++) {
        prefopt_space space = space_of(spaces[s].vocab, spaces[s].horizon, spaces[s].eos);
        prefopt_policy *policy;
        double grad[200];
        list all = list_new();
        OK(prefopt_policy_create_tabular(&policy, context, &space, &prompts.view));
        randomise(policy, 17 + (uint64_t)s, 1);
        list_add_all(&all, &space, prompt_a, 1);
        list_add_all(&all, &space, prompt_b, 2);
        list_add(&all, prompt_b, 2, NULL, 0); /* an empty completion adds nothing */
        OK(prefopt_random_normal(3, (uint64_t)s, 0, all.view.n, grad));
        grad[0] = 0;
        check_policy_gradient(policy, &all.view, grad, 1e-7);
        list_free(&all);
        prefopt_policy_destroy(policy);
    }
    list_free(&prompts);
    prefopt_context_destroy(context);
}
END_TEST

START_TEST(gradients_add_up)
{
    prefopt_context *context = test_context(1);
    prefopt_space space = space_of(3, 1, -1);
    prefopt_policy *policy;
    prefopt_parameters p = {.struct_size = sizeof p};
    OK(prefopt_policy_create_tabular(&policy, context, &space, NULL));
    OK(prefopt_policy_parameters(policy, &p));
    ck_assert_int_eq(p.n, 3);
    ck_assert_int_eq(p.dtype, PREFOPT_F64);
    list l = list_new();
    list_add(&l, NULL, 0, (int32_t[]){1}, 1);
    double one = 1, *grad = p.grad;
    OK(prefopt_policy_backward(policy, &l.view, &one));
    OK(prefopt_policy_backward(policy, &l.view, &one));
    CLOSE(grad[1], 2 * (1 - 1.0 / 3), 1e-15);
    CLOSE(grad[0], -2.0 / 3, 1e-15);
    double nan_grad = NAN, infinite = INFINITY;
    FAILS(PREFOPT_ERR_NUMERIC, "grad_sequence_logp[0] is nan",
          prefopt_policy_backward(policy, &l.view, &nan_grad));
    FAILS(PREFOPT_ERR_NUMERIC, "grad_sequence_logp[0] is inf",
          prefopt_policy_backward(policy, &l.view, &infinite));
    list_add(&l, NULL, 0, (int32_t[]){3}, 1);
    FAILS(PREFOPT_ERR_ARGUMENT, "token 0 of sequence 1 is 3",
          prefopt_policy_backward(policy, &l.view, (double[]){1, 0}));
    CLOSE(grad[1], 2 * (1 - 1.0 / 3), 1e-15); /* as before */
    OK(prefopt_policy_zero_grad(policy));
    ck_assert(grad[0] == 0 && grad[1] == 0 && grad[2] == 0);
    list_free(&l);
    prefopt_policy_destroy(policy);
    prefopt_context_destroy(context);
}
END_TEST

START_TEST(masked_tokens)
{
    prefopt_context *context = test_context(1);
    prefopt_space space = space_of(3, 2, -1);
    prefopt_policy *policy;
    prefopt_parameters p = {.struct_size = sizeof p};
    double logp[9], grad[9];
    list all = list_new();
    list_add_all(&all, &space, NULL, 0);
    OK(prefopt_policy_create_tabular(&policy, context, &space, NULL));
    randomise(policy, 4, 1);
    OK(prefopt_policy_parameters(policy, &p));
    double *logits = p.value;
    logits[1] = -INFINITY; /* first token 1 */
    OK(prefopt_policy_updated(policy));
    OK(prefopt_policy_logprobs(policy, &all.view, logp, NULL));
    CLOSE(prefopt_log_sum_exp(9, logp), 0, 1e-15);
    for (int i = 3; i < 6; i++)
        ck_assert_double_eq(logp[i], -INFINITY);
    for (int i = 0; i < 9; i++)
        grad[i] = 0.3 * i - 1;
    check_policy_gradient(policy, &all.view, grad, 1e-7);
    /* Bad logits are named; once put back the policy answers as before. */
    double before[9];
    OK(prefopt_policy_logprobs(policy, &all.view, before, NULL));
    double was = logits[2 * 3 + 1];
    logits[2 * 3 + 1] = NAN;
    FAILS(PREFOPT_ERR_NUMERIC, "token 1 of state 2 of prompt 0 is nan",
          prefopt_policy_updated(policy));
    logits[2 * 3 + 1] = was;
    OK(prefopt_policy_logprobs(policy, &all.view, logp, NULL));
    ck_assert_mem_eq(logp, before, sizeof logp);
    logits[0] = logits[2] = -INFINITY;
    FAILS(PREFOPT_ERR_NUMERIC, "every token of state 0", prefopt_policy_updated(policy));
    list_free(&all);
    prefopt_policy_destroy(policy);
    prefopt_context_destroy(context);
}
END_TEST

START_TEST(given_logprobs_come_back)
{
    prefopt_context *context = test_context(1);
    list prompts = two_prompts();
    for (int s = 0; s < N_SPACES; s++)
        for (int zeros = 0; zeros < 3; zeros++) {
            prefopt_space space = space_of(spaces[s].vocab, spaces[s].horizon, spaces[s].eos);
            prefopt_policy *policy;
            double given[200], logp[200];
            list all = list_new(), other = list_new();
            list_add_all(&all, &space, prompt_b, 2);
            list_add_all(&other, &space, prompt_a, 1);
            OK(prefopt_policy_create_tabular(&policy, context, &space, &prompts.view));
            randomise(policy, 40, 1);
            int64_t n = all.view.n;
            double before[200], after[200];
            OK(prefopt_policy_logprobs(policy, &other.view, before, NULL));
            OK(prefopt_random_normal(5, (uint64_t)s, 0, n, given));
            for (int64_t i = 0; i < n; i++) {
                given[i] *= 30; /* down to e^-100 */
                if (i > 0 && (zeros == 2 || (zeros == 1 && i % 3)))
                    given[i] = -INFINITY;
            }
            double z = prefopt_log_sum_exp(n, given);
            for (int64_t i = 0; i < n; i++)
                given[i] = fmin(given[i] - z, 0);
            OK(prefopt_policy_set_logprobs(policy, &all.view, given));
            OK(prefopt_policy_logprobs(policy, &all.view, logp, NULL));
            for (int64_t i = 0; i < n; i++)
                CLOSE(logp[i], given[i], 1e-13);
            OK(prefopt_policy_logprobs(policy, &other.view, after, NULL));
            ck_assert_mem_eq(before, after, (size_t)other.view.n * sizeof *after);
            list_free(&all);
            list_free(&other);
            prefopt_policy_destroy(policy);
        }
    list_free(&prompts);
    prefopt_context_destroy(context);
}
END_TEST

START_TEST(given_logprobs_are_checked)
{
    prefopt_context *context = test_context(1);
    prefopt_space space = space_of(3, 2, 0);
    prefopt_policy *policy;
    OK(prefopt_policy_create_tabular(&policy, context, &space, NULL));
    list l = list_new();
    list_add(&l, NULL, 0, (int32_t[]){1, 2}, 2);
    list_add(&l, NULL, 0, (int32_t[]){0}, 1);
    double half = log(0.5), before[2], after[2], next[3];
    OK(prefopt_policy_logprobs(policy, &l.view, before, NULL));
    FAILS(PREFOPT_ERR_ARGUMENT, "sum to 0.75",
          prefopt_policy_set_logprobs(policy, &l.view, (double[]){half, 2 * half}));
    FAILS(PREFOPT_ERR_NUMERIC, "sequence_logp[1] is nan",
          prefopt_policy_set_logprobs(policy, &l.view, (double[]){half, NAN}));
    FAILS(PREFOPT_ERR_NUMERIC, "sequence_logp[0] is 0.5",
          prefopt_policy_set_logprobs(policy, &l.view, (double[]){0.5, half}));
    FAILS(PREFOPT_ERR_ARGUMENT, "in is NULL",
          prefopt_policy_set_logprobs(policy, NULL, (double[]){half, half}));
    FAILS(PREFOPT_ERR_ARGUMENT, "sequence_logp is NULL",
          prefopt_policy_set_logprobs(policy, &l.view, NULL));
    FAILS(PREFOPT_ERR_ARGUMENT, "policy is NULL",
          prefopt_policy_set_logprobs(NULL, &l.view, (double[]){half, half}));
    list_add(&l, NULL, 0, (int32_t[]){1, 2}, 2);
    FAILS(PREFOPT_ERR_ARGUMENT, "sequence 2 is listed twice, first as sequence 0",
          prefopt_policy_set_logprobs(policy, &l.view, (double[]){2 * half, half, 2 * half}));
    l.view.n = 2;
    OK(prefopt_policy_logprobs(policy, &l.view, after, NULL));
    ck_assert_mem_eq(before, after, sizeof after);
    /* A state that cannot be reached is uniform. */
    OK(prefopt_policy_set_logprobs(policy, &l.view, (double[]){half, half}));
    list_free(&l);
    l = list_new();
    list_add(&l, NULL, 0, (int32_t[]){2}, 1);
    OK(prefopt_policy_next_logprobs(policy, &l.view, next));
    for (int v = 0; v < 3; v++)
        CLOSE(next[v], -log(3), 1e-15);
    list_free(&l);
    prefopt_policy_destroy(policy);
    prefopt_context_destroy(context);
}
END_TEST

START_TEST(sequences_that_are_not_of_the_policy)
{
    prefopt_context *context = test_context(1);
    prefopt_space plain = space_of(3, 2, -1), ending = space_of(3, 2, 0);
    list prompts = two_prompts();
    prefopt_policy *policy[2];
    OK(prefopt_policy_create_tabular(&policy[0], context, &plain, &prompts.view));
    OK(prefopt_policy_create_tabular(&policy[1], context, &ending, &prompts.view));
    static const struct {
        int which;
        int32_t prompt, y[3];
        int64_t len;
        const char *text;
    } bad[] = {
        {0, 7, {1, 3}, 2, "token 2 of sequence 1 is 3, expected 0 to 2"},
        {0, 7, {1}, 1, "sequence 1: its completion has 1 tokens, expected 2"},
        {0, 7, {1, 1, 1}, 3, "token 3 of sequence 1 is beyond the horizon"},
        {0, 8, {1, 1}, 2, "sequence 1: its prompt"},
        {1, 7, {1}, 1, "expected the end token 0"},
        {1, 7, {0, 1}, 2, "token 1 of sequence 1 is the end token 0"},
        {1, 7, {0, 0}, 2, "token 1 of sequence 1 is the end token 0"},
        {1, 7, {1, 1, 0}, 3, "token 3 of sequence 1 is beyond the horizon"},
        {1, 7, {-1, 1}, 2, "token 1 of sequence 1 is -1"},
    };
    for (size_t k = 0; k < sizeof bad / sizeof bad[0]; k++) {
        list l = list_new();
        double logp[2] = {5, 5}, token[8] = {5};
        list_add(&l, prompt_a, 1, (int32_t[]){1, 1}, 2);
        list_add(&l, &bad[k].prompt, 1, bad[k].y, bad[k].len);
        FAILS(PREFOPT_ERR_ARGUMENT, bad[k].text,
              prefopt_policy_logprobs(policy[bad[k].which], &l.view, logp, token));
        ck_assert(logp[0] == 5 && logp[1] == 5 && token[0] == 5);
        list_free(&l);
    }
    /* A part of a view is a view: token_logp is counted from its own first token. */
    list l = list_new();
    list_add(&l, prompt_a, 1, (int32_t[]){1, 1}, 2);
    list_add(&l, prompt_b, 2, (int32_t[]){1, 2}, 2);
    prefopt_sequences part = l.view;
    part.n = 1;
    part.offsets++;
    part.prompt_len++;
    double logp, token[4];
    OK(prefopt_policy_logprobs(policy[0], &part, &logp, token));
    CLOSE(logp, -2 * log(3), 1e-15);
    ck_assert(token[0] == 0 && token[1] == 0);
    CLOSE(token[3], -log(3), 1e-15);
    list_free(&l);
    list_free(&prompts);
    prefopt_policy_destroy(policy[0]);
    prefopt_policy_destroy(policy[1]);
    prefopt_context_destroy(context);
}
END_TEST

START_TEST(refusals)
{
    prefopt_context *context = test_context(1);
    prefopt_space space = space_of(3, 2, -1);
    prefopt_policy *policy = (prefopt_policy *)&space;
    FAILS(PREFOPT_ERR_ARGUMENT, "out is NULL",
          prefopt_policy_create_tabular(NULL, context, &space, NULL));
    FAILS(PREFOPT_ERR_ARGUMENT, "context is NULL",
          prefopt_policy_create_tabular(&policy, NULL, &space, NULL));
    FAILS(PREFOPT_ERR_ARGUMENT, "space is NULL",
          prefopt_policy_create_tabular(&policy, context, NULL, NULL));
    prefopt_space bad = space_of(0, 2, -1);
    FAILS(PREFOPT_ERR_ARGUMENT, "vocab is 0",
          prefopt_policy_create_tabular(&policy, context, &bad, NULL));
    bad = space_of(3, 0, -1);
    FAILS(PREFOPT_ERR_ARGUMENT, "horizon is 0",
          prefopt_policy_create_tabular(&policy, context, &bad, NULL));
    bad = space_of(3, 2, 3);
    FAILS(PREFOPT_ERR_ARGUMENT, "eos is 3",
          prefopt_policy_create_tabular(&policy, context, &bad, NULL));
    bad = space_of(3, 100, -1);
    FAILS(PREFOPT_ERR_MEMORY, "overflows",
          prefopt_policy_create_tabular(&policy, context, &bad, NULL));
    bad = space_of(3, 2, -1);
    bad.struct_size = 8;
    FAILS(PREFOPT_ERR_VERSION, "prefopt_space",
          prefopt_policy_create_tabular(&policy, context, &bad, NULL));
    ck_assert_ptr_eq(policy, &space);
    OK(prefopt_policy_create_tabular(&policy, context, &space, NULL));
    list none = list_new();
    double x[9];
    OK(prefopt_policy_logprobs(policy, &none.view, NULL, NULL));
    OK(prefopt_policy_backward(policy, &none.view, NULL));
    OK(prefopt_policy_next_logprobs(policy, &none.view, NULL));
    OK(prefopt_policy_set_logprobs(policy, &none.view, NULL));
    list_add(&none, NULL, 0, (int32_t[]){0, 0}, 2);
    FAILS(PREFOPT_ERR_ARGUMENT, "NULL", prefopt_policy_logprobs(NULL, &none.view, x, NULL));
    FAILS(PREFOPT_ERR_ARGUMENT, "NULL", prefopt_policy_logprobs(policy, NULL, x, NULL));
    FAILS(PREFOPT_ERR_ARGUMENT, "NULL", prefopt_policy_logprobs(policy, &none.view, NULL, NULL));
    FAILS(PREFOPT_ERR_ARGUMENT, "NULL", prefopt_policy_backward(NULL, &none.view, x));
    FAILS(PREFOPT_ERR_ARGUMENT, "NULL", prefopt_policy_backward(policy, NULL, x));
    FAILS(PREFOPT_ERR_ARGUMENT, "NULL", prefopt_policy_backward(policy, &none.view, NULL));
    FAILS(PREFOPT_ERR_ARGUMENT, "NULL", prefopt_policy_next_logprobs(NULL, &none.view, x));
    FAILS(PREFOPT_ERR_ARGUMENT, "NULL", prefopt_policy_next_logprobs(policy, NULL, x));
    FAILS(PREFOPT_ERR_ARGUMENT, "NULL", prefopt_policy_next_logprobs(policy, &none.view, NULL));
    FAILS(PREFOPT_ERR_ARGUMENT, "NULL", prefopt_policy_parameters(policy, NULL));
    FAILS(PREFOPT_ERR_ARGUMENT, "NULL", prefopt_policy_space(policy, NULL));
    FAILS(PREFOPT_ERR_ARGUMENT, "NULL", prefopt_policy_updated(NULL));
    FAILS(PREFOPT_ERR_ARGUMENT, "NULL", prefopt_policy_zero_grad(NULL));
    prefopt_parameters p = {.struct_size = 8};
    FAILS(PREFOPT_ERR_VERSION, "prefopt_parameters", prefopt_policy_parameters(policy, &p));
    FAILS(PREFOPT_ERR_ARGUMENT, "NULL", prefopt_policy_parameters(NULL, &p));
    FAILS(PREFOPT_ERR_ARGUMENT, "NULL", prefopt_policy_space(NULL, &bad));
    FAILS(PREFOPT_ERR_VERSION, "prefopt_space", prefopt_policy_space(policy, &bad));
    prefopt_policy_destroy(NULL);
    prefopt_context_destroy(context); /* the policy keeps it */
    OK(prefopt_policy_logprobs(policy, &none.view, x, NULL));
    prefopt_policy_destroy(policy);
    list_free(&none);
}
END_TEST

START_TEST(every_allocation_may_fail)
{
    counting_allocator a = {0};
    prefopt_context *context = counting_context(&a);
    prefopt_space space = space_of(3, 2, 0);
    list prompts = two_prompts(), l = list_new();
    list_add(&l, prompt_a, 1, (int32_t[]){1, 2}, 2);
    list_add(&l, prompt_a, 1, (int32_t[]){0}, 1);
    for (int64_t n = 1;; n++) {
        prefopt_policy *policy = NULL;
        double logp[2] = {7, 7}, token[5], next[9];
        double given[2] = {log(0.5), log(0.5)};
        a.fail_at = a.calls + n;
        int32_t status = prefopt_policy_create_tabular(&policy, context, &space, &prompts.view);
        if (status == PREFOPT_OK) {
            prefopt_parameters p = {.struct_size = sizeof p};
            OK(prefopt_policy_parameters(policy, &p));
            if ((status = prefopt_policy_logprobs(policy, &l.view, logp, token)) != PREFOPT_OK)
                ck_assert_double_eq(logp[0], 7);
            if (status == PREFOPT_OK)
                status = prefopt_policy_set_logprobs(policy, &l.view, given);
            if (status == PREFOPT_OK &&
                (status = prefopt_policy_backward(policy, &l.view, logp)) != PREFOPT_OK)
                for (int64_t k = 0; k < p.n; k++)
                    ck_assert_double_eq(((double *)p.grad)[k], 0);
            if (status == PREFOPT_OK)
                status = prefopt_policy_next_logprobs(policy, &prompts.view, next);
        }
        prefopt_policy_destroy(policy);
        ck_assert_int_eq(a.live, 1);
        if (status == PREFOPT_OK)
            break;
        ck_assert_int_eq(status, PREFOPT_ERR_MEMORY);
        ck_assert_int_lt(n, 100);
    }
    list_free(&l);
    list_free(&prompts);
    prefopt_context_destroy(context);
}
END_TEST

TEST_MAIN("policy_tabular", probabilities_sum_to_one, next_tokens_are_the_conditionals,
          gradients_are_central_differences, gradients_add_up, masked_tokens,
          given_logprobs_come_back, given_logprobs_are_checked,
          sequences_that_are_not_of_the_policy, refusals, every_allocation_may_fail)
