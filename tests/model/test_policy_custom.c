#include "model_test.h"

/* A policy of the caller's own: one softmax over 3 tokens in float32, prompts are ignored. It can
 * be told to answer wrongly. */
typedef struct {
    float logits[3], grad[3];
    int32_t status;    /* answered by every entry */
    double wrong;      /* not 0: put in place of the last answer */
    int32_t leave_out; /* the last answer is not written */
    int32_t calls, updates;
    int64_t *destroyed; /* counted there */
} mine;

static double mine_logp(const mine *m, int32_t token)
{
    double z = 0;
    for (int v = 0; v < 3; v++)
        z += exp(m->logits[v]);
    return m->logits[token] - log(z);
}

static int32_t mine_logprobs(void *payload, const prefopt_sequences *in, double *sequence_logp,
                             double *token_logp)
{
    mine *m = payload;
    m->calls++;
    for (int64_t i = 0; i < in->n; i++) {
        double sum = 0;
        for (int64_t t = in->offsets[i]; t < in->offsets[i + 1]; t++) {
            int prompt = t - in->offsets[i] < in->prompt_len[i];
            double logp = prompt ? 0 : mine_logp(m, in->tokens[t]);
            if (token_logp != NULL)
                token_logp[t - in->offsets[0]] = logp;
            sum += logp;
        }
        if (!m->leave_out || i + 1 < in->n)
            sequence_logp[i] = m->wrong != 0 && i + 1 == in->n ? m->wrong : sum;
    }
    return m->status;
}

static int32_t mine_backward(void *payload, const prefopt_sequences *in, const double *grad)
{
    mine *m = payload;
    m->calls++;
    for (int64_t i = 0; i < in->n; i++)
        for (int64_t t = in->offsets[i] + in->prompt_len[i]; t < in->offsets[i + 1]; t++)
            for (int v = 0; v < 3; v++)
                m->grad[v] += (float)(grad[i] * ((v == in->tokens[t]) - exp(mine_logp(m, v))));
    return m->status;
}

static int32_t mine_next(void *payload, const prefopt_sequences *in, double *next_logp)
{
    mine *m = payload;
    m->calls++;
    for (int64_t i = 0; i < in->n; i++)
        for (int v = 0; v < 3; v++)
            next_logp[3 * i + v] = mine_logp(m, v);
    if (m->wrong != 0)
        next_logp[3 * in->n - 1] = m->wrong;
    return m->status;
}

static int32_t mine_parameters(void *payload, prefopt_parameters *out)
{
    mine *m = payload;
    out->dtype = PREFOPT_F32;
    out->n = 3;
    out->value = m->logits;
    out->grad = m->grad;
    return m->status;
}

static int32_t mine_clone(void *payload, void **copy)
{
    mine *m = payload;
    if (m->status != 0)
        return m->status;
    mine *c = malloc(sizeof *c);
    *c = *m;
    *copy = c;
    return 0;
}

static void mine_destroy(void *payload)
{
    ++*((mine *)payload)->destroyed;
    free(payload);
}

static int32_t mine_updated(void *payload)
{
    ((mine *)payload)->updates++;
    return ((mine *)payload)->status;
}

static const prefopt_policy_callbacks table = {
    .struct_size = sizeof table,
    .logprobs = mine_logprobs,
    .backward = mine_backward,
    .next_logprobs = mine_next,
    .parameters = mine_parameters,
    .clone = mine_clone,
    .destroy = mine_destroy,
    .updated = mine_updated,
};

static mine *mine_new(int64_t *destroyed)
{
    mine *m = calloc(1, sizeof *m);
    m->logits[0] = 0.5f;
    m->logits[2] = -1.25f;
    m->destroyed = destroyed;
    return m;
}

static list some(void)
{
    list l = list_new();
    int32_t prompt[] = {9};
    list_add(&l, prompt, 1, (int32_t[]){2, 1}, 2);
    list_add(&l, prompt, 1, (int32_t[]){0, 0}, 2);
    return l;
}

START_TEST(works_like_any_other)
{
    prefopt_context *context = test_context(1);
    prefopt_space space = space_of(3, 2, -1), own = {.struct_size = sizeof own};
    int64_t destroyed = 0;
    mine *m = mine_new(&destroyed);
    prefopt_policy *policy;
    list l = some();
    double logp[2], token[6], next[6], before[2];
    prefopt_parameters p = {.struct_size = sizeof p};
    OK(prefopt_policy_create_custom(&policy, context, &space, &table, m));
    OK(prefopt_policy_space(policy, &own));
    ck_assert_int_eq(own.horizon, 2);
    OK(prefopt_policy_logprobs(policy, &l.view, logp, token));
    CLOSE(logp[0], mine_logp(m, 2) + mine_logp(m, 1), 1e-15);
    ck_assert_double_eq(token[0], 0);
    ck_assert_double_eq(token[3], 0);
    CLOSE(token[5], mine_logp(m, 0), 1e-15);
    OK(prefopt_policy_next_logprobs(policy, &l.view, next));
    CLOSE(next[5], mine_logp(m, 2), 1e-15);
    OK(prefopt_policy_parameters(policy, &p));
    ck_assert_int_eq(p.dtype, PREFOPT_F32);
    ck_assert_ptr_eq(p.value, m->logits);
    OK(prefopt_policy_backward(policy, &l.view, (double[]){1, 0}));
    CLOSE(m->grad[2], 1 - 2 * exp(mine_logp(m, 2)), 1e-6);
    OK(prefopt_policy_zero_grad(policy));
    ck_assert(m->grad[0] == 0 && m->grad[1] == 0 && m->grad[2] == 0);
    OK(prefopt_policy_updated(policy));
    ck_assert_int_eq(m->updates, 1);
    /* A frozen copy is independent, and each payload is destroyed once. */
    prefopt_policy *copy;
    OK(pf_policy_clone(&copy, policy));
    memcpy(before, logp, sizeof before);
    m->logits[1] = 3;
    OK(prefopt_policy_logprobs(copy, &l.view, logp, NULL));
    ck_assert_mem_eq(before, logp, sizeof before);
    OK(prefopt_policy_logprobs(policy, &l.view, logp, NULL));
    ck_assert_double_ne(before[0], logp[0]);
    prefopt_policy_destroy(policy);
    ck_assert_int_eq(destroyed, 1);
    prefopt_policy_destroy(copy);
    ck_assert_int_eq(destroyed, 2);
    list_free(&l);
    prefopt_context_destroy(context);
}
END_TEST

START_TEST(wrong_answers_are_named)
{
    prefopt_context *context = test_context(1);
    prefopt_space space = space_of(3, 2, -1);
    int64_t destroyed = 0;
    mine *m = mine_new(&destroyed);
    prefopt_policy *policy, *copy = NULL;
    list l = some();
    double logp[2] = {5, 5}, token[6] = {5}, next[6] = {5}, one[2] = {1, 1};
    prefopt_parameters p = {.struct_size = sizeof p, .n = 77};
    OK(prefopt_policy_create_custom(&policy, context, &space, &table, m));
    m->wrong = NAN;
    FAILS(PREFOPT_ERR_NUMERIC, "sequence 1: the policy's log-probability is nan",
          prefopt_policy_logprobs(policy, &l.view, logp, NULL));
    FAILS(PREFOPT_ERR_NUMERIC, "sequence 1: the policy's log-probability of next token 2 is nan",
          prefopt_policy_next_logprobs(policy, &l.view, next));
    m->wrong = INFINITY;
    FAILS(PREFOPT_ERR_NUMERIC, "is inf", prefopt_policy_logprobs(policy, &l.view, logp, NULL));
    m->wrong = 0.01;
    FAILS(PREFOPT_ERR_NUMERIC, "is 0.01, expected at most 0",
          prefopt_policy_logprobs(policy, &l.view, logp, NULL));
    m->wrong = 0;
    m->leave_out = 1;
    FAILS(PREFOPT_ERR_NUMERIC, "sequence 1: the policy's log-probability is nan",
          prefopt_policy_logprobs(policy, &l.view, logp, token));
    m->leave_out = 0;
    m->status = PREFOPT_ERR_IO;
    FAILS(PREFOPT_ERR_IO, "the policy's callback logprobs returned PREFOPT_ERR_IO",
          prefopt_policy_logprobs(policy, &l.view, logp, token));
    m->status = -77;
    FAILS(PREFOPT_ERR_CALLBACK, "callback logprobs returned -77",
          prefopt_policy_logprobs(policy, &l.view, logp, token));
    FAILS(PREFOPT_ERR_CALLBACK, "callback backward returned -77",
          prefopt_policy_backward(policy, &l.view, one));
    FAILS(PREFOPT_ERR_CALLBACK, "callback next_logprobs returned -77",
          prefopt_policy_next_logprobs(policy, &l.view, next));
    FAILS(PREFOPT_ERR_CALLBACK, "callback parameters returned -77",
          prefopt_policy_parameters(policy, &p));
    FAILS(PREFOPT_ERR_CALLBACK, "callback parameters returned -77",
          prefopt_policy_zero_grad(policy));
    FAILS(PREFOPT_ERR_CALLBACK, "callback updated returned -77", prefopt_policy_updated(policy));
    FAILS(PREFOPT_ERR_CALLBACK, "callback clone returned -77", pf_policy_clone(&copy, policy));
    m->status = 2;
    FAILS(PREFOPT_ERR_CALLBACK, "callback logprobs returned 2",
          prefopt_policy_logprobs(policy, &l.view, logp, token));
    m->status = PREFOPT_STOPPED;
    ck_assert_int_eq(prefopt_policy_logprobs(policy, &l.view, logp, token), PREFOPT_STOPPED);
    m->status = 0;
    ck_assert(logp[0] == 5 && logp[1] == 5 && token[0] == 5 && next[0] == 5 && p.n == 77);
    ck_assert_ptr_null(copy);
    /* Rounding above 0 is taken for 0. */
    m->wrong = 1e-8;
    OK(prefopt_policy_logprobs(policy, &l.view, logp, NULL));
    ck_assert_double_eq(logp[1], 0);
    /* Never is a legal answer. */
    m->wrong = -INFINITY;
    OK(prefopt_policy_logprobs(policy, &l.view, logp, NULL));
    ck_assert_double_eq(logp[1], -INFINITY);
    /* A token beyond the vocabulary does not reach the callback. */
    int32_t calls = m->calls;
    list_add(&l, NULL, 0, (int32_t[]){1, 3}, 2);
    FAILS(PREFOPT_ERR_ARGUMENT, "token 1 of sequence 2 is 3",
          prefopt_policy_logprobs(policy, &l.view, next, NULL));
    FAILS(PREFOPT_ERR_ARGUMENT, "token 1 of sequence 2 is 3",
          prefopt_policy_backward(policy, &l.view, next));
    FAILS(PREFOPT_ERR_ARGUMENT, "token 1 of sequence 2 is 3",
          prefopt_policy_next_logprobs(policy, &l.view, next));
    ck_assert_int_eq(calls, m->calls);
    list_free(&l);
    prefopt_policy_destroy(policy);
    ck_assert_int_eq(destroyed, 1);
    prefopt_context_destroy(context);
}
END_TEST

START_TEST(missing_entries)
{
    prefopt_context *context = test_context(1);
    prefopt_space space = space_of(3, 2, -1);
    int64_t destroyed = 0;
    mine *m = mine_new(&destroyed);
    prefopt_policy *policy = NULL, *copy = NULL;
    list l = some();
    double x[6];
    prefopt_policy_callbacks c = table;
    FAILS(PREFOPT_ERR_ARGUMENT, "out is NULL",
          prefopt_policy_create_custom(NULL, context, &space, &c, m));
    FAILS(PREFOPT_ERR_ARGUMENT, "context is NULL",
          prefopt_policy_create_custom(&policy, NULL, &space, &c, m));
    FAILS(PREFOPT_ERR_ARGUMENT, "callbacks is NULL",
          prefopt_policy_create_custom(&policy, context, &space, NULL, m));
    FAILS(PREFOPT_ERR_ARGUMENT, "space is NULL",
          prefopt_policy_create_custom(&policy, context, NULL, &c, m));
    c.logprobs = NULL;
    FAILS(PREFOPT_ERR_ARGUMENT, "logprobs is NULL",
          prefopt_policy_create_custom(&policy, context, &space, &c, m));
    c = table;
    c.parameters = NULL;
    FAILS(PREFOPT_ERR_ARGUMENT, "parameters is NULL",
          prefopt_policy_create_custom(&policy, context, &space, &c, m));
    c = table;
    c.reserved = 1;
    FAILS(PREFOPT_ERR_ARGUMENT, "reserved is 1",
          prefopt_policy_create_custom(&policy, context, &space, &c, m));
    c = table;
    c.struct_size = 16;
    FAILS(PREFOPT_ERR_VERSION, "prefopt_policy_callbacks",
          prefopt_policy_create_custom(&policy, context, &space, &c, m));
    ck_assert_ptr_null(policy);
    ck_assert_int_eq(destroyed, 0);
    c = (prefopt_policy_callbacks){.struct_size = sizeof c, .logprobs = mine_logprobs};
    OK(prefopt_policy_create_custom(&policy, context, NULL, &c, m));
    prefopt_parameters p = {.struct_size = sizeof p};
    OK(prefopt_policy_logprobs(policy, &l.view, x, NULL));
    OK(prefopt_policy_updated(policy));
    FAILS(PREFOPT_ERR_UNSUPPORTED, "backward", prefopt_policy_backward(policy, &l.view, x));
    FAILS(PREFOPT_ERR_UNSUPPORTED, "next_logprobs",
          prefopt_policy_next_logprobs(policy, &l.view, x));
    FAILS(PREFOPT_ERR_UNSUPPORTED, "parameters", prefopt_policy_parameters(policy, &p));
    FAILS(PREFOPT_ERR_UNSUPPORTED, "parameters", prefopt_policy_zero_grad(policy));
    FAILS(PREFOPT_ERR_UNSUPPORTED, "clone", pf_policy_clone(&copy, policy));
    FAILS(PREFOPT_ERR_UNSUPPORTED, "without a space", prefopt_policy_space(policy, &space));
    FAILS(PREFOPT_ERR_UNSUPPORTED, "not tabular", prefopt_policy_set_logprobs(policy, &l.view, x));
    prefopt_policy_destroy(policy);
    ck_assert_int_eq(destroyed, 0);
    free(m);
    list_free(&l);
    prefopt_context_destroy(context);
}
END_TEST

static prefopt_parameters odd_parameters;
static int32_t give_odd_parameters(void *payload, prefopt_parameters *out)
{
    *out = odd_parameters;
    return 0;
}

START_TEST(odd_parameters_are_refused)
{
    prefopt_context *context = test_context(1);
    prefopt_policy *policy;
    prefopt_policy_callbacks c = {
        .struct_size = sizeof c, .logprobs = mine_logprobs, .parameters = give_odd_parameters};
    prefopt_parameters p = {.struct_size = sizeof p};
    double x[1];
    OK(prefopt_policy_create_custom(&policy, context, NULL, &c, NULL));
    odd_parameters = (prefopt_parameters){.struct_size = sizeof p, .dtype = 7};
    FAILS(PREFOPT_ERR_CALLBACK, "dtype 7", prefopt_policy_parameters(policy, &p));
    odd_parameters = (prefopt_parameters){.struct_size = sizeof p, .n = -1};
    FAILS(PREFOPT_ERR_CALLBACK, "n = -1", prefopt_policy_parameters(policy, &p));
    odd_parameters = (prefopt_parameters){.struct_size = sizeof p, .n = 1, .value = x};
    FAILS(PREFOPT_ERR_CALLBACK, "NULL for grad", prefopt_policy_parameters(policy, &p));
    prefopt_policy_destroy(policy);
    prefopt_context_destroy(context);
}
END_TEST

START_TEST(every_allocation_may_fail)
{
    counting_allocator a = {0};
    prefopt_context *context = counting_context(&a);
    prefopt_space space = space_of(3, 2, -1);
    int64_t destroyed = 0, made = 0;
    list l = some();
    for (int64_t n = 1;; n++) {
        prefopt_policy *policy = NULL, *copy = NULL;
        double logp[2], next[6];
        mine *m = mine_new(&destroyed);
        a.fail_at = a.calls + n;
        int32_t status = prefopt_policy_create_custom(&policy, context, &space, &table, m);
        if (status != PREFOPT_OK)
            free(m); /* still ours */
        else
            made++;
        if (status == PREFOPT_OK)
            status = prefopt_policy_logprobs(policy, &l.view, logp, NULL);
        if (status == PREFOPT_OK)
            status = prefopt_policy_next_logprobs(policy, &l.view, next);
        if (status == PREFOPT_OK && (status = pf_policy_clone(&copy, policy)) == PREFOPT_OK)
            made++;
        prefopt_policy_destroy(policy);
        prefopt_policy_destroy(copy);
        ck_assert_int_eq(a.live, 1);
        ck_assert_int_eq(destroyed, made);
        if (status == PREFOPT_OK)
            break;
        ck_assert_int_eq(status, PREFOPT_ERR_MEMORY);
        ck_assert_int_lt(n, 20);
    }
    list_free(&l);
    prefopt_context_destroy(context);
}
END_TEST

TEST_MAIN("policy_custom", works_like_any_other, wrong_answers_are_named, missing_entries,
          odd_parameters_are_refused, every_allocation_may_fail)
