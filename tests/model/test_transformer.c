/* The transformer policy against a plain one in double, and against itself in other batches, parts
 * and threads. */
#include "transformer_test.h"

static double weighted_sum(const pf_shape *shape, const double *theta, const list *l)
{
    double sum = 0;
    for (int64_t i = 0; i < l->view.n; i++)
        sum += weights[i] * double_logp(shape, theta, l->tokens + l->offsets[i],
                                        l->offsets[i + 1] - l->offsets[i], l->prompt_len[i], NULL);
    return sum;
}

/* Log-probabilities, and every gradient by central differences of the plain transformer. */
static void check_against_double(const prefopt_transformer_config *c)
{
    prefopt_context *context = test_context(2);
    prefopt_policy *policy = make(context, c);
    prefopt_transformer_config read;
    OK(pf_transformer_config_read(&read, c));
    pf_shape *shape;
    OK(pf_shape_create(&shape, context, &read, PF_HEAD_LOGITS));
    prefopt_parameters p = {.struct_size = sizeof p};
    OK(prefopt_policy_parameters(policy, &p));
    ck_assert_int_eq(p.n, shape->n);
    list l = batch(1);
    double *theta = as_double(&p), logp[7], tokens[200], expected[200];
    OK(prefopt_policy_logprobs(policy, &l.view, logp, tokens));
    for (int64_t i = 0; i < l.view.n; i++) {
        int64_t n = l.offsets[i + 1] - l.offsets[i];
        CLOSE(logp[i],
              double_logp(shape, theta, l.tokens + l.offsets[i], n, l.prompt_len[i], expected),
              2e-6);
        for (int64_t t = 0; t < n; t++)
            CLOSE(tokens[l.offsets[i] + t], t < l.prompt_len[i] ? 0 : expected[t - l.prompt_len[i]],
                  2e-6);
    }
    OK(prefopt_policy_backward(policy, &l.view, weights));
    double norm = 0;
    for (int64_t k = 0; k < p.n; k++)
        norm = fmax(norm, fabs((double)((float *)p.grad)[k]));
    for (int64_t k = 0; k < p.n; k++) {
        double was = theta[k], step = 1e-5;
        theta[k] = was + step;
        double plus = weighted_sum(shape, theta, &l);
        theta[k] = was - step;
        double minus = weighted_sum(shape, theta, &l);
        theta[k] = was;
        CLOSE(((float *)p.grad)[k] / norm, (plus - minus) / (2 * step) / norm, 3e-6);
    }
    free(theta);
    list_free(&l);
    pf_shape_release(shape);
    prefopt_policy_destroy(policy);
    prefopt_context_destroy(context);
}

START_TEST(test_parallel)
{
    prefopt_transformer_config c = tiny();
    check_against_double(&c);
    c.rotary_fraction = 0;
    c.tied = 1;
    check_against_double(&c);
}
END_TEST

START_TEST(test_sequential)
{
    prefopt_transformer_config c = tiny();
    c.parallel_residual = 0;
    c.rotary_fraction = 1;
    c.activation = PREFOPT_GELU_TANH;
    check_against_double(&c);
    c.tied = 1;
    c.n_layers = 1;
    c.n_heads = 6;
    check_against_double(&c);
}
END_TEST

static prefopt_context *budget_context(int32_t threads, int64_t bytes)
{
    prefopt_context_options options;
    OK(prefopt_context_options_init(&options, sizeof options));
    options.threads = threads;
    options.byte_budget = bytes;
    prefopt_context *context = NULL;
    OK(prefopt_context_create(&context, &options));
    return context;
}

/* ---- one batch, computed otherwise */

typedef struct {
    double logp[7];
    float *grad;
    int64_t n;
} result;

/* trained: the gradient is asked for before, so that the forward pass is kept. */
static result compute(prefopt_context *context, const prefopt_transformer_config *c, const list *l,
                      bool one_by_one, bool kept)
{
    prefopt_policy *policy = make(context, c);
    result r = {.n = 0};
    prefopt_parameters p = {.struct_size = sizeof p};
    OK(prefopt_policy_parameters(policy, &p));
    for (int64_t i = 0; i < (one_by_one ? l->view.n : 1); i++) {
        prefopt_sequences part = one_by_one ? pf_sequences_part(&l->view, i, 1) : l->view;
        OK(prefopt_policy_logprobs(policy, &part, r.logp + i, NULL));
        if (!kept)
            OK(prefopt_policy_updated(policy));
        OK(prefopt_policy_backward(policy, &part, weights + i));
    }
    r.n = p.n;
    r.grad = malloc((size_t)p.n * sizeof *r.grad);
    memcpy(r.grad, p.grad, (size_t)p.n * sizeof *r.grad);
    prefopt_policy_destroy(policy);
    return r;
}

static void compare(const result *a, const result *b, double tolerance)
{
    double most = 0;
    for (int64_t i = 0; i < 7; i++)
        if (tolerance == 0)
            ck_assert_double_eq(a->logp[i], b->logp[i]);
        else
            CLOSE(a->logp[i], b->logp[i], tolerance);
    for (int64_t k = 0; k < a->n; k++)
        most = fmax(most, fabs((double)a->grad[k]));
    ck_assert(most > 0);
    for (int64_t k = 0; k < a->n; k++)
        ck_assert_msg(fabs((double)a->grad[k] - (double)b->grad[k]) <= tolerance * most,
                      "gradient %lld: %g against %g", (long long)k, (double)a->grad[k],
                      (double)b->grad[k]);
}

START_TEST(test_batches)
{
    prefopt_transformer_config c = tiny();
    list l = batch(25); /* 200 positions, more than one block of queries */
    prefopt_context *one = test_context(1), *three = test_context(3);
    result base = compute(one, &c, &l, false, true);
    for (int variant = 0; variant < 5; variant++) {
        result other;
        prefopt_context *small = budget_context(2, 1 << 18);
        switch (variant) {
        case 0: /* another number of threads, bit for bit */
            other = compute(three, &c, &l, false, true);
            break;
        case 1: /* the forward pass computed again, bit for bit */
            other = compute(one, &c, &l, false, false);
            break;
        case 2: /* nothing shared */
            other = compute(one, &c, &l, true, true);
            break;
        case 3: /* in parts */
            other = compute(small, &c, &l, false, true);
            break;
        default: { /* the layers computed again, bit for bit */
            prefopt_policy *policy = make(three, &c);
            OK(prefopt_policy_set_recompute(policy, 1));
            OK(prefopt_policy_logprobs(policy, &l.view, other.logp, NULL));
            OK(prefopt_policy_backward(policy, &l.view, weights));
            prefopt_parameters p = {.struct_size = sizeof p};
            OK(prefopt_policy_parameters(policy, &p));
            other.grad = malloc((size_t)p.n * sizeof *other.grad);
            memcpy(other.grad, p.grad, (size_t)p.n * sizeof *other.grad);
            prefopt_policy_destroy(policy);
        }
        }
        compare(&base, &other, variant == 2 || variant == 3 ? 2e-6 : 0);
        free(other.grad);
        prefopt_context_destroy(small);
    }
    free(base.grad);
    list_free(&l);
    prefopt_context_destroy(one);
    prefopt_context_destroy(three);
}
END_TEST

/* A batch that the budget does not hold is cut alike by any number of threads. */
START_TEST(test_parts_of_threads)
{
    prefopt_transformer_config c = tiny();
    list l = batch(25);
    prefopt_context *one = budget_context(1, 1 << 18), *seven = budget_context(7, 1 << 18);
    for (int32_t kept = 0; kept < 2; kept++) {
        result of_one = compute(one, &c, &l, false, kept), of_seven;
        of_seven = compute(seven, &c, &l, false, kept);
        compare(&of_one, &of_seven, 0);
        free(of_one.grad);
        free(of_seven.grad);
    }
    prefopt_policy *a = make(one, &c), *b = make(seven, &c);
    ck_assert_int_lt(pf_policy_keeps(a, &l.view), l.view.n);
    ck_assert_int_eq(pf_policy_keeps(a, &l.view), pf_policy_keeps(b, &l.view));
    prefopt_policy_destroy(a);
    prefopt_policy_destroy(b);
    list_free(&l);
    prefopt_context_destroy(one);
    prefopt_context_destroy(seven);
}
END_TEST

/* How much is kept follows the budget, and shared prompts take less of it. */
START_TEST(test_keeps)
{
    prefopt_transformer_config c = tiny();
    prefopt_context *small = budget_context(1, 1 << 18), *large = test_context(1);
    prefopt_policy *policy = make(small, &c), *other = make(large, &c);
    int32_t prompt[150], completion[10];
    for (int32_t i = 0; i < 150; i++)
        prompt[i] = token(i);
    for (int32_t i = 0; i < 10; i++)
        completion[i] = token(i + 5);
    list shared = list_new(), apart = list_new();
    for (int32_t i = 0; i < 40; i++) {
        list_add(&shared, prompt, 140, completion, 10);
        prompt[140] = i % 13;
        list_add(&apart, prompt + 1 + i / 13, 140, completion, 10);
    }
    int64_t of_shared = pf_policy_keeps(policy, &shared.view);
    int64_t of_apart = pf_policy_keeps(policy, &apart.view);
    ck_assert_int_ge(of_apart, 1);
    ck_assert_int_gt(of_shared, of_apart);
    ck_assert_int_lt(of_shared, 40);
    ck_assert_int_eq(pf_policy_keeps(other, &apart.view), 40);
    list_free(&shared);
    list_free(&apart);
    prefopt_policy_destroy(policy);
    prefopt_policy_destroy(other);
    prefopt_context_destroy(small);
    prefopt_context_destroy(large);
}
END_TEST

TEST_MAIN("transformer", test_parallel, test_sequential, test_batches, test_parts_of_threads,
          test_keeps)
