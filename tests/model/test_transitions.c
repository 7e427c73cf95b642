/* Which token may follow which: a masked transformer against a plain one in double whose softmax is
 * over the allowed tokens, and what a mask promises. */
#include "model_test.h"
#include "neox_double.h"

enum { VOCAB = 11, LARGE = 1100, MOST = 24 };

static prefopt_transformer_config config_of(int64_t vocab)
{
    prefopt_transformer_config c;
    OK(prefopt_transformer_config_init(&c, sizeof c));
    c.vocab = vocab;
    c.n_layers = 1;
    c.width = 8;
    c.n_heads = 2;
    c.ff_width = 12;
    c.max_positions = 16;
    c.rotary_fraction = 0.5;
    c.init_scale = 0.4;
    c.eos = -1;
    return c;
}

static prefopt_policy *make(prefopt_context *context, int64_t vocab)
{
    prefopt_transformer_config c = config_of(vocab);
    prefopt_policy *policy = NULL;
    OK(prefopt_policy_create_transformer(&policy, context, &c, 5));
    return policy;
}

static pf_shape *shape_of(prefopt_context *context, int64_t vocab)
{
    prefopt_transformer_config c = config_of(vocab);
    pf_shape *shape = NULL;
    OK(pf_shape_create(&shape, context, &c, PF_HEAD_LOGITS));
    return shape;
}

/* Three tokens in ten may follow; nothing but token 900 may follow token 1 of the large alphabet,
 * so that whole slices of it are without any. */
static uint8_t *allowed_of(int64_t vocab)
{
    uint8_t *allowed = calloc((size_t)(vocab * vocab), 1);
    for (int64_t u = 0; u < vocab; u++) {
        for (int64_t v = 0; v < vocab; v++)
            allowed[u * vocab + v] = pf_uniform(9, (uint64_t)u, (uint64_t)v) < 0.3;
        allowed[u * vocab + (u * 3 + 1) % vocab] = 1;
    }
    if (vocab > 1000) {
        memset(allowed + vocab, 0, (size_t)vocab);
        allowed[vocab + 900] = 1;
    }
    return allowed;
}

/* The k-th allowed token after `before`, counted round and round. */
static int32_t follow(const uint8_t *allowed, int64_t vocab, int32_t before, int64_t k)
{
    for (int32_t v = 0;; v = (int32_t)((v + 1) % vocab))
        if (allowed[before * vocab + v] && k-- == 0)
            return v;
}

static int32_t forbidden(const uint8_t *allowed, int64_t vocab, int32_t before)
{
    int32_t v = 0;
    while (allowed[before * vocab + v])
        v++;
    return v;
}

enum { SEQUENCES = 8, BROKEN_FIRST = 3, BROKEN_MIDDLE = 5 };
static const double weights[SEQUENCES] = {0.5, -1.25, 2, 0.75, -0.3, 4, 1, -0.6};

/* Prompts that no grammar has to like, two of them shared; sequences BROKEN_... take a step that is
 * not allowed; one completion is empty. */
static list batch(const uint8_t *allowed, int64_t vocab)
{
    list l = list_new();
    for (int64_t i = 0; i < SEQUENCES; i++) {
        int64_t prompt_len = 1 + i % 3, n = i == 6 ? 0 : 2 + i;
        int32_t tokens[MOST];
        for (int64_t t = 0; t < prompt_len; t++)
            tokens[t] = (int32_t)((7 * t + 1 + (i == 7)) % vocab);
        for (int64_t t = prompt_len; t < prompt_len + n; t++) {
            bool broken = (i == BROKEN_FIRST && t == prompt_len) ||
                          (i == BROKEN_MIDDLE && t == prompt_len + 3);
            tokens[t] = broken ? forbidden(allowed, vocab, tokens[t - 1])
                               : follow(allowed, vocab, tokens[t - 1], i + t);
        }
        list_add(&l, tokens, prompt_len, tokens + prompt_len, n);
    }
    return l;
}

static bool is_broken(int64_t i) { return i == BROKEN_FIRST || i == BROKEN_MIDDLE; }

static double *as_double(const prefopt_parameters *p)
{
    double *theta = malloc((size_t)p->n * sizeof *theta);
    for (int64_t i = 0; i < p->n; i++)
        theta[i] = (double)((const float *)p->value)[i];
    return theta;
}

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

/* ---- bits */

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

TEST_MAIN("transitions", numbers, several_slices, no_gradient_where_forbidden, next,
          walks_sum_to_one, the_same_bits, clones_have_it, what_was_kept_is_forgotten, errors,
          overflow, memory)
