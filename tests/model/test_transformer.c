/* The transformer policy against a plain one in double, against itself in other batches, parts and
 * threads, and its handle's promises. */
#include <pthread.h>

#include "model_test.h"
#include "neox_double.h"

static prefopt_transformer_config tiny(void)
{
    prefopt_transformer_config c;
    OK(prefopt_transformer_config_init(&c, sizeof c));
    c.vocab = 13;
    c.n_layers = 2;
    c.width = 12;
    c.n_heads = 2;
    c.ff_width = 20;
    c.max_positions = 240;
    c.rotary_fraction = 0.7; /* 4 of 6 */
    c.init_scale = 0.3;
    return c;
}

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

/* Norms and biases too, so that no gradient is a special one. */
static prefopt_policy *make(prefopt_context *context, const prefopt_transformer_config *c)
{
    prefopt_policy *policy = NULL;
    OK(prefopt_policy_create_transformer(&policy, context, c, 7));
    prefopt_parameters p = {.struct_size = sizeof p};
    OK(prefopt_policy_parameters(policy, &p));
    float *value = p.value;
    for (int64_t i = 0; i < p.n; i++) {
        double u;
        OK(prefopt_random_normal(11, 3, (uint64_t)i, 1, &u));
        value[i] += (float)(0.1 * u);
    }
    OK(prefopt_policy_updated(policy));
    return policy;
}

static int32_t token(int64_t i) { return (int32_t)((i * 7 + i * i % 5 + 3) % 13); }

/* Two prompts with three completions between them, one alone, one empty completion; the prompts'
 * sequences are not side by side. Long ones go over the attention's blocks of 64. */
static list batch(int64_t scale)
{
    int32_t a[400], b[400];
    for (int64_t i = 0; i < 400; i++) {
        a[i] = token(i);
        b[i] = token(i * 3 + 1);
    }
    list l = list_new();
    list_add(&l, a, 3 * scale, b, 5 * scale);
    list_add(&l, b, 2, b + 7, 3);
    list_add(&l, a, 3 * scale, b + 9, 1);
    list_add(&l, a + 1, 1, b + 11, 4 * scale);
    list_add(&l, a, 3 * scale, b + 20, 6 * scale);
    list_add(&l, b, 2, b + 30, 0);
    list_add(&l, b, 2, b + 31, 2);
    return l;
}

static const double weights[7] = {0.5, -1.25, 2, 0.75, -0.3, 4, 1};

static double *as_double(const prefopt_parameters *p)
{
    double *theta = malloc((size_t)p->n * sizeof *theta);
    for (int64_t i = 0; i < p->n; i++)
        theta[i] = ((const float *)p->value)[i];
    return theta;
}

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

/* ---- the reward model */

static double weighted_scores(const pf_shape *shape, const double *theta, const list *l)
{
    int64_t d = shape->config.width;
    double sum = 0, hidden[100 * 12];
    for (int64_t i = 0; i < l->view.n; i++) {
        int64_t n = l->offsets[i + 1] - l->offsets[i];
        double_hidden(shape, theta, l->tokens + l->offsets[i], n, hidden);
        for (int64_t j = 0; j < d; j++)
            sum += weights[i] * hidden[(n - 1) * d + j] * theta[shape->output + j];
    }
    return sum;
}

START_TEST(test_reward)
{
    prefopt_context *context = test_context(2);
    prefopt_transformer_config c = tiny();
    prefopt_policy *policy = make(context, &c);
    prefopt_reward *reward = NULL;
    pf_shape *shape;
    OK(pf_shape_create(&shape, context, &c, PF_HEAD_SCORE));
    OK(prefopt_reward_from_policy(&reward, policy));
    list l = batch(1); /* with an empty completion */
    double score[7], kept[7];
    OK(prefopt_reward_scores(reward, &l.view, score));
    for (int64_t i = 0; i < 7; i++)
        ck_assert_double_eq(score[i], 0);
    prefopt_parameters p = {.struct_size = sizeof p}, of_policy = {.struct_size = sizeof p};
    OK(prefopt_reward_parameters(reward, &p));
    OK(prefopt_policy_parameters(policy, &of_policy));
    ck_assert_int_eq(p.n, shape->n);
    ck_assert_ptr_ne(p.value, of_policy.value);
    for (int64_t j = 0; j < c.width; j++)
        ((float *)p.value)[shape->output + j] = (float)(0.3 * sin((double)j + 1));
    OK(prefopt_reward_updated(reward));
    OK(prefopt_reward_scores(reward, &l.view, score));
    OK(prefopt_reward_backward(reward, &l.view, weights));
    double *theta = as_double(&p), sum = 0, norm = 0;
    for (int64_t i = 0; i < 7; i++)
        sum += weights[i] * score[i];
    CLOSE(sum, weighted_scores(shape, theta, &l), 3e-6);
    for (int64_t k = 0; k < p.n; k++)
        norm = fmax(norm, fabs((double)((float *)p.grad)[k]));
    for (int64_t k = 0; k < p.n; k++) {
        double was = theta[k], step = 1e-5;
        theta[k] = was + step;
        double plus = weighted_scores(shape, theta, &l);
        theta[k] = was - step;
        double minus = weighted_scores(shape, theta, &l);
        theta[k] = was;
        CLOSE(((float *)p.grad)[k] / norm, (plus - minus) / (2 * step) / norm, 3e-6);
    }
    /* Computed again instead of kept: the same bits twice over. */
    float *grad = malloc((size_t)p.n * sizeof *grad);
    memcpy(grad, p.grad, (size_t)p.n * sizeof *grad);
    OK(prefopt_reward_zero_grad(reward));
    OK(prefopt_reward_set_recompute(reward, 1));
    OK(prefopt_reward_scores(reward, &l.view, kept));
    OK(prefopt_reward_updated(reward));
    OK(prefopt_reward_backward(reward, &l.view, weights));
    ck_assert_int_eq(memcmp(grad, p.grad, (size_t)p.n * sizeof *grad), 0);
    ck_assert_int_eq(memcmp(score, kept, sizeof score), 0);
    prefopt_tensor tensor = {.struct_size = sizeof tensor};
    OK(prefopt_reward_tensor(reward, 27, &tensor));
    ck_assert_str_eq(tensor.name, "score.weight");
    list none = list_new();
    list_add(&none, NULL, 0, NULL, 0);
    FAILS(PREFOPT_ERR_ARGUMENT, "sequence 0 is empty",
          prefopt_reward_scores(reward, &none.view, score));
    list_free(&none);
    free(grad);
    free(theta);
    list_free(&l);
    pf_shape_release(shape);
    prefopt_reward_destroy(reward);
    prefopt_policy_destroy(policy);
    prefopt_context_destroy(context);
}
END_TEST

/* ---- the handle */

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

TEST_MAIN("transformer", test_parallel, test_sequential, test_batches, test_keeps, test_reward,
          test_reference_shares, test_reference_from_threads, test_next_logprobs, test_errors,
          test_overflow, test_memory)
