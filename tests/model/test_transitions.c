/* Which token may follow which: a masked transformer against a plain one in double whose softmax is
 * over the allowed tokens. */
#include "neox_double.h"
#include "transitions_test.h"

static bool is_broken(int64_t i) { return i == BROKEN_FIRST || i == BROKEN_MIDDLE; }

static double logp_of(const pf_shape *shape, const double *theta, const list *l, int64_t i,
                      const uint8_t *allowed, double *token_logp)
{
    return double_logp_allowed(shape, theta, l->tokens + l->offsets[i],
                               l->offsets[i + 1] - l->offsets[i], l->prompt_len[i], allowed,
                               token_logp);
}

/* CLOSE, but -INFINITY is itself. */
static void same_logp(double got, double expected, double tolerance)
{
    if (expected == -INFINITY)
        ck_assert_double_eq(got, -INFINITY);
    else
        CLOSE(got, expected, tolerance);
}

static void check_logprobs(prefopt_policy *policy, const pf_shape *shape, const double *theta,
                           const list *l, const uint8_t *allowed)
{
    double logp[SEQUENCES], token[SEQUENCES * MOST], expected[MOST];
    OK(prefopt_policy_logprobs(policy, &l->view, logp, token));
    for (int64_t i = 0; i < l->view.n; i++) {
        same_logp(logp[i], logp_of(shape, theta, l, i, allowed, expected), 4e-6);
        ck_assert((logp[i] == -INFINITY) == is_broken(i));
        for (int64_t t = l->prompt_len[i]; t < l->offsets[i + 1] - l->offsets[i]; t++)
            same_logp(token[l->offsets[i] + t], expected[t - l->prompt_len[i]], 4e-6);
    }
}

static double weighted_sum(const pf_shape *shape, const double *theta, const list *l,
                           const uint8_t *allowed)
{
    double sum = 0;
    for (int64_t i = 0; i < l->view.n; i++)
        if (!is_broken(i))
            sum += weights[i] * logp_of(shape, theta, l, i, allowed, NULL);
    return sum;
}

/* Every gradient by central differences, or for a large alphabet every hundredth. */
static void check_gradient(const prefopt_parameters *p, const pf_shape *shape, double *theta,
                           const list *l, const uint8_t *allowed)
{
    double norm = 0, step = 1e-5;
    for (int64_t k = 0; k < p->n; k++)
        norm = fmax(norm, fabs((double)((float *)p->grad)[k]));
    ck_assert(norm > 0.1);
    for (int64_t k = 0; k<p->n; k += p->n> 5000 ? 97 : 1) {
        double was = theta[k];
        theta[k] = was + step;
        double plus = weighted_sum(shape, theta, l, allowed);
        theta[k] = was - step;
        double minus = weighted_sum(shape, theta, l, allowed);
        theta[k] = was;
        CLOSE((double)((float *)p->grad)[k] / norm, (plus - minus) / (2 * step) / norm, 4e-6);
    }
}

/* Tiled and kept logits, one slice and several. */
static void against_double(int64_t vocab)
{
    prefopt_context *context = test_context(2);
    uint8_t *allowed = allowed_of(vocab);
    prefopt_policy *policy = make(context, vocab);
    pf_shape *shape = shape_of(context, vocab);
    list l = batch(allowed, vocab);
    OK(prefopt_policy_set_transitions(policy, allowed));
    prefopt_reference *frozen;
    OK(prefopt_reference_freeze(&frozen, policy));
    prefopt_parameters p = {.struct_size = sizeof p};
    OK(prefopt_policy_parameters(policy, &p));
    double *theta = as_double(&p), tiled[SEQUENCES];
    check_logprobs(policy, shape, theta, &l, allowed);
    OK(prefopt_reference_logprobs(frozen, &l.view, tiled)); /* never trained: nothing is kept */
    for (int64_t i = 0; i < l.view.n; i++)
        same_logp(tiled[i], logp_of(shape, theta, &l, i, allowed, NULL), 4e-6);
    OK(prefopt_policy_backward(policy, &l.view, weights));
    check_gradient(&p, shape, theta, &l, allowed);
    free(theta);
    list_free(&l);
    pf_shape_release(shape);
    prefopt_reference_destroy(frozen);
    prefopt_policy_destroy(policy);
    free(allowed);
    prefopt_context_destroy(context);
}

START_TEST(numbers) { against_double(VOCAB); }
END_TEST

START_TEST(several_slices) { against_double(LARGE); }
END_TEST

/* Sequences of probability 0 give no gradient, alone or beside others. */
START_TEST(no_gradient_where_forbidden)
{
    prefopt_context *context = test_context(1);
    uint8_t *allowed = allowed_of(VOCAB);
    prefopt_policy *policy = make(context, VOCAB);
    list l = batch(allowed, VOCAB);
    OK(prefopt_policy_set_transitions(policy, allowed));
    prefopt_parameters p = {.struct_size = sizeof p};
    OK(prefopt_policy_parameters(policy, &p));
    double alone[SEQUENCES] = {0}, others[SEQUENCES], logp[SEQUENCES];
    for (int64_t i = 0; i < SEQUENCES; i++) {
        alone[i] = is_broken(i) ? 3 : 0;
        others[i] = is_broken(i) ? 0 : weights[i];
    }
    OK(prefopt_policy_backward(policy, &l.view, alone));
    for (int64_t k = 0; k < p.n; k++)
        ck_assert(((float *)p.grad)[k] == 0);
    OK(prefopt_policy_backward(policy, &l.view, weights));
    float *first = malloc((size_t)p.n * sizeof *first);
    memcpy(first, p.grad, (size_t)p.n * sizeof *first);
    OK(prefopt_policy_zero_grad(policy));
    OK(prefopt_policy_backward(policy, &l.view, others));
    for (int64_t k = 0; k < p.n; k++)
        CLOSE((double)((float *)p.grad)[k], (double)first[k], 1e-5);
    /* The forward pass kept, too. */
    OK(prefopt_policy_zero_grad(policy));
    OK(prefopt_policy_logprobs(policy, &l.view, logp, NULL));
    OK(prefopt_policy_backward(policy, &l.view, weights));
    ck_assert_mem_eq(p.grad, first, (size_t)p.n * sizeof *first);
    free(first);
    list_free(&l);
    prefopt_policy_destroy(policy);
    free(allowed);
    prefopt_context_destroy(context);
}
END_TEST

/* What next_logprobs gives is the distribution itself. */
static void check_next(int64_t vocab)
{
    prefopt_context *context = test_context(2);
    uint8_t *allowed = allowed_of(vocab);
    prefopt_policy *policy = make(context, vocab);
    pf_shape *shape = shape_of(context, vocab);
    prefopt_parameters p = {.struct_size = sizeof p};
    OK(prefopt_policy_parameters(policy, &p));
    double *theta = as_double(&p);
    list l = batch(allowed, vocab);
    OK(prefopt_policy_set_transitions(policy, allowed));
    double *next = malloc((size_t)(SEQUENCES * vocab) * sizeof *next);
    OK(prefopt_policy_next_logprobs(policy, &l.view, next));
    for (int64_t i = 0; i < SEQUENCES; i++) {
        int64_t n = l.offsets[i + 1] - l.offsets[i];
        int32_t tokens[MOST + 1];
        memcpy(tokens, l.tokens + l.offsets[i], (size_t)n * sizeof *tokens);
        double total = 0;
        for (int32_t v = 0; v < vocab; v++) {
            double got = next[i * vocab + v];
            ck_assert((got == -INFINITY) == !allowed[tokens[n - 1] * vocab + v]);
            total += exp(got);
            tokens[n] = v;
            if (v % 37 == 5)
                same_logp(got, double_logp_allowed(shape, theta, tokens, n + 1, n, allowed, NULL),
                          4e-6);
        }
        CLOSE(total, 1, 1e-6);
    }
    free(next);
    free(theta);
    list_free(&l);
    pf_shape_release(shape);
    prefopt_policy_destroy(policy);
    free(allowed);
    prefopt_context_destroy(context);
}

START_TEST(next)
{
    check_next(VOCAB);
    check_next(LARGE);
}
END_TEST

/* Of all completions of three tokens those that the mask allows have probability 1 together. */
START_TEST(walks_sum_to_one)
{
    prefopt_context *context = test_context(2);
    uint8_t *allowed = allowed_of(VOCAB);
    prefopt_policy *policy = make(context, VOCAB);
    OK(prefopt_policy_set_transitions(policy, allowed));
    prefopt_space space = space_of(VOCAB, 3, -1);
    list l = list_new();
    static const int32_t prompt[] = {4, 2};
    list_add_all(&l, &space, prompt, 2);
    double *logp = malloc((size_t)l.view.n * sizeof *logp), total = 0;
    OK(prefopt_policy_logprobs(policy, &l.view, logp, NULL));
    int64_t walks = 0;
    for (int64_t i = 0; i < l.view.n; i++) {
        const int32_t *t = l.tokens + l.offsets[i];
        bool walk = allowed[t[1] * VOCAB + t[2]] && allowed[t[2] * VOCAB + t[3]] &&
                    allowed[t[3] * VOCAB + t[4]];
        ck_assert(walk == (logp[i] > -INFINITY));
        total += exp(logp[i]);
        walks += walk;
    }
    ck_assert(walks > 10 && walks < l.view.n / 4);
    CLOSE(total, 1, 2e-6);
    free(logp);
    list_free(&l);
    prefopt_policy_destroy(policy);
    free(allowed);
    prefopt_context_destroy(context);
}
END_TEST

TEST_MAIN("transitions", numbers, several_slices, no_gradient_where_forbidden, next,
          walks_sum_to_one)
