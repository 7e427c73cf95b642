#include "model_test.h"

static const int32_t prompt[] = {7};

/* Five sequences, the last a repeat of the second. */
static list five(void)
{
    list l = list_new();
    list_add(&l, prompt, 1, (int32_t[]){0, 1}, 2);
    list_add(&l, prompt, 1, (int32_t[]){1, 2}, 2);
    list_add(&l, NULL, 0, (int32_t[]){1, 2}, 2);
    list_add(&l, prompt, 1, (int32_t[]){2, 2}, 2);
    list_add(&l, prompt, 1, (int32_t[]){1, 2}, 2);
    return l;
}

static void check_reward_gradient(prefopt_reward *reward, const prefopt_sequences *in)
{
    prefopt_parameters p = {.struct_size = sizeof p};
    double weight[8], plus[8], minus[8];
    OK(prefopt_random_normal(11, 0, 0, in->n, weight));
    OK(prefopt_reward_parameters(reward, &p));
    double *theta = p.value, *grad = p.grad;
    OK(prefopt_random_normal(12, 0, 0, p.n, theta));
    OK(prefopt_reward_updated(reward));
    OK(prefopt_reward_zero_grad(reward));
    OK(prefopt_reward_backward(reward, in, weight));
    for (int64_t k = 0; k < p.n; k++) {
        double was = theta[k], step = 1e-4, expected = 0;
        theta[k] = was + step;
        OK(prefopt_reward_updated(reward));
        OK(prefopt_reward_scores(reward, in, plus));
        theta[k] = was - step;
        OK(prefopt_reward_updated(reward));
        OK(prefopt_reward_scores(reward, in, minus));
        theta[k] = was;
        OK(prefopt_reward_updated(reward));
        for (int64_t i = 0; i < in->n; i++)
            expected += weight[i] * (plus[i] - minus[i]) / (2 * step);
        CLOSE(grad[k], expected, 1e-7);
    }
    double once = grad[0];
    OK(prefopt_reward_backward(reward, in, weight));
    CLOSE(grad[0], 2 * once, 1e-14); /* they add up */
}

START_TEST(tabular)
{
    prefopt_context *context = test_context(1);
    prefopt_reward *reward;
    prefopt_parameters p = {.struct_size = sizeof p};
    list l = five();
    double score[5];
    OK(prefopt_reward_create_tabular(&reward, context, &l.view));
    OK(prefopt_reward_parameters(reward, &p));
    ck_assert_int_eq(p.n, 4);
    ck_assert_int_eq(p.dtype, PREFOPT_F64);
    OK(prefopt_reward_scores(reward, &l.view, score));
    for (int i = 0; i < 5; i++)
        ck_assert_double_eq(score[i], 0);
    for (int k = 0; k < 4; k++)
        ((double *)p.value)[k] = k + 1;
    OK(prefopt_reward_updated(reward));
    OK(prefopt_reward_scores(reward, &l.view, score));
    ck_assert(score[0] == 1 && score[1] == 2 && score[2] == 3 && score[3] == 4 && score[4] == 2);
    check_reward_gradient(reward, &l.view);
    ((double *)p.value)[2] = NAN;
    FAILS(PREFOPT_ERR_NUMERIC, "parameter 2 is nan", prefopt_reward_updated(reward));
    ((double *)p.value)[2] = 0;
    /* An unknown sequence is named, and neither scores nor gradients change. */
    double first = ((double *)p.grad)[0], weight[6] = {1, 1, 1, 1, 1, 1}, more[6] = {5};
    list_add(&l, NULL, 0, (int32_t[]){0, 1}, 2);
    FAILS(PREFOPT_ERR_ARGUMENT, "sequence 5 (2 tokens, 0 of them prompt) is none of the 4",
          prefopt_reward_scores(reward, &l.view, more));
    FAILS(PREFOPT_ERR_ARGUMENT, "sequence 5", prefopt_reward_backward(reward, &l.view, weight));
    ck_assert_double_eq(more[0], 5);
    ck_assert_double_eq(((double *)p.grad)[0], first);
    prefopt_reward_destroy(reward);
    list_free(&l);
    prefopt_context_destroy(context);
}
END_TEST

START_TEST(linear)
{
    prefopt_context *context = test_context(2);
    prefopt_reward *reward = NULL;
    prefopt_parameters p = {.struct_size = sizeof p};
    list l = five();
    double features[15], score[5];
    OK(prefopt_random_normal(1, 0, 0, 15, features));
    FAILS(PREFOPT_ERR_ARGUMENT, "features[4, 0] is",
          prefopt_reward_create_linear(&reward, context, &l.view, 3, features));
    memcpy(features + 12, features + 3, 3 * sizeof *features);
    features[7] = INFINITY;
    FAILS(PREFOPT_ERR_NUMERIC, "features[2, 1] is inf",
          prefopt_reward_create_linear(&reward, context, &l.view, 3, features));
    features[7] = 1;
    features[0] = features[1] = features[2] = 1;
    FAILS(PREFOPT_ERR_ARGUMENT, "n_features is 0",
          prefopt_reward_create_linear(&reward, context, &l.view, 0, features));
    ck_assert_ptr_null(reward);
    OK(prefopt_reward_create_linear(&reward, context, &l.view, 3, features));
    OK(prefopt_reward_parameters(reward, &p));
    ck_assert_int_eq(p.n, 3);
    double *theta = p.value;
    OK(prefopt_reward_scores(reward, &l.view, score));
    for (int i = 0; i < 5; i++)
        ck_assert_double_eq(score[i], 0);
    theta[0] = 0.5;
    theta[1] = -2;
    theta[2] = 3;
    OK(prefopt_reward_updated(reward));
    OK(prefopt_reward_scores(reward, &l.view, score));
    for (int i = 0; i < 5; i++)
        CLOSE(score[i], 0.5 * features[3 * i] - 2 * features[3 * i + 1] + 3 * features[3 * i + 2],
              1e-14);
    check_reward_gradient(reward, &l.view);
    double before[5];
    OK(prefopt_reward_scores(reward, &l.view, before));
    theta[1] = INFINITY;
    FAILS(PREFOPT_ERR_NUMERIC, "parameter 1 is inf", prefopt_reward_updated(reward));
    theta[0] = theta[1] = theta[2] = 1e308;
    FAILS(PREFOPT_ERR_NUMERIC, "distinct sequence 0 overflows", prefopt_reward_updated(reward));
    OK(prefopt_reward_scores(reward, &l.view, score)); /* those of the last good theta */
    ck_assert_mem_eq(before, score, sizeof score);
    prefopt_reward_destroy(reward);
    l.view.n = 0;
    OK(prefopt_reward_create_linear(&reward, context, &l.view, 3, NULL));
    OK(prefopt_reward_updated(reward));
    prefopt_reward_destroy(reward);
    list_free(&l);
    prefopt_context_destroy(context);
}
END_TEST

START_TEST(implicit_and_local)
{
    prefopt_context *context = test_context(1);
    prefopt_space space = space_of(3, 2, -1);
    prefopt_policy *policy;
    prefopt_reference *reference;
    prefopt_reward *implicit, *local;
    list l = list_new();
    double logp[9], ref[9], score[9];
    list_add_all(&l, &space, prompt, 1);
    OK(prefopt_policy_create_tabular(&policy, context, &space, &l.view));
    randomise(policy, 1, 1);
    OK(prefopt_reference_freeze(&reference, policy));
    randomise(policy, 2, 1);
    OK(prefopt_reward_create_implicit(&implicit, policy, reference, 0.3));
    OK(prefopt_reward_create_local(&local, policy));
    OK(prefopt_policy_logprobs(policy, &l.view, logp, NULL));
    OK(prefopt_reference_logprobs(reference, &l.view, ref));
    OK(prefopt_reward_scores(implicit, &l.view, score));
    for (int i = 0; i < 9; i++)
        CLOSE(score[i], 0.3 * (logp[i] - ref[i]), 1e-15);
    OK(prefopt_reward_scores(local, &l.view, score));
    ck_assert_mem_eq(score, logp, sizeof score);
    prefopt_sequences part = l.view;
    part.n = 5;
    check_reward_gradient(implicit, &part);
    check_reward_gradient(local, &part);
    /* Training the reward has trained the policy. */
    prefopt_parameters p = {.struct_size = sizeof p}, q = {.struct_size = sizeof q};
    OK(prefopt_policy_parameters(policy, &p));
    OK(prefopt_reward_parameters(implicit, &q));
    ck_assert_ptr_eq(p.value, q.value);
    ck_assert_ptr_eq(p.grad, q.grad);
    /* A masked completion has the score -inf. */
    ((double *)p.value)[0] = -INFINITY;
    OK(prefopt_policy_updated(policy));
    OK(prefopt_reward_scores(implicit, &l.view, score));
    ck_assert_double_eq(score[0], -INFINITY);
    ck_assert(isfinite(score[3]));
    prefopt_reward_destroy(implicit);
    /* One that the reference never gives has none. */
    double fixed[9] = {-1, -1, -1, -1, -INFINITY, -1, -1, -1, -1};
    prefopt_reference_destroy(reference);
    OK(prefopt_reference_create_fixed(&reference, context, &l.view, fixed));
    OK(prefopt_reward_create_implicit(&implicit, policy, reference, 0.3));
    score[0] = 5;
    FAILS(PREFOPT_ERR_NUMERIC, "sequence 4 has no implicit reward",
          prefopt_reward_scores(implicit, &l.view, score));
    ck_assert_double_eq(score[0], 5);
    prefopt_reward_destroy(implicit);
    implicit = NULL;
    FAILS(PREFOPT_ERR_ARGUMENT, "beta is 0",
          prefopt_reward_create_implicit(&implicit, policy, reference, 0));
    FAILS(PREFOPT_ERR_ARGUMENT, "beta is inf",
          prefopt_reward_create_implicit(&implicit, policy, reference, INFINITY));
    FAILS(PREFOPT_ERR_NUMERIC, "beta is nan",
          prefopt_reward_create_implicit(&implicit, policy, reference, NAN));
    ck_assert_ptr_null(implicit);
    prefopt_reference_destroy(reference);
    prefopt_policy_destroy(policy);
    prefopt_context_destroy(context);
    OK(prefopt_reward_scores(local, &l.view, score)); /* it keeps the policy */
    prefopt_reward_destroy(local);
    list_free(&l);
}
END_TEST

/* A reward of the caller's own: scale times the number of completion tokens. */
typedef struct {
    double scale, grad;
    int32_t status, leave_out;
    int64_t destroyed, updates;
} mine;

static int32_t mine_scores(void *payload, const prefopt_sequences *in, double *score)
{
    mine *m = payload;
    for (int64_t i = 0; i < in->n - m->leave_out; i++)
        score[i] = m->scale * (double)(in->offsets[i + 1] - in->offsets[i] - in->prompt_len[i]);
    return m->status;
}

static int32_t mine_backward(void *payload, const prefopt_sequences *in, const double *grad)
{
    mine *m = payload;
    for (int64_t i = 0; i < in->n; i++)
        m->grad += grad[i] * (double)(in->offsets[i + 1] - in->offsets[i] - in->prompt_len[i]);
    return m->status;
}

static int32_t mine_parameters(void *payload, prefopt_parameters *out)
{
    mine *m = payload;
    out->n = 1;
    out->value = &m->scale;
    out->grad = &m->grad;
    return m->status;
}

static void mine_destroy(void *payload) { ((mine *)payload)->destroyed++; }

static int32_t mine_updated(void *payload)
{
    ((mine *)payload)->updates++;
    return ((mine *)payload)->status;
}

static const prefopt_reward_callbacks callbacks = {
    .struct_size = sizeof callbacks,
    .scores = mine_scores,
    .backward = mine_backward,
    .parameters = mine_parameters,
    .destroy = mine_destroy,
    .updated = mine_updated,
};

START_TEST(custom)
{
    prefopt_context *context = test_context(1);
    prefopt_reward *reward = NULL;
    list l = five();
    mine m = {.scale = 2};
    double score[5] = {5};
    prefopt_parameters p = {.struct_size = sizeof p};
    prefopt_reward_callbacks c = callbacks;
    c.scores = NULL;
    FAILS(PREFOPT_ERR_ARGUMENT, "scores is NULL",
          prefopt_reward_create_custom(&reward, context, &c, &m));
    c = callbacks;
    c.parameters = NULL;
    FAILS(PREFOPT_ERR_ARGUMENT, "parameters is NULL",
          prefopt_reward_create_custom(&reward, context, &c, &m));
    c = callbacks;
    c.reserved = 3;
    FAILS(PREFOPT_ERR_ARGUMENT, "reserved is 3",
          prefopt_reward_create_custom(&reward, context, &c, &m));
    c = callbacks;
    c.struct_size = 8;
    FAILS(PREFOPT_ERR_VERSION, "prefopt_reward_callbacks",
          prefopt_reward_create_custom(&reward, context, &c, &m));
    ck_assert_ptr_null(reward);
    ck_assert_int_eq(m.destroyed, 0);
    OK(prefopt_reward_create_custom(&reward, context, &callbacks, &m));
    check_reward_gradient(reward, &l.view);
    ck_assert_int_gt(m.updates, 0);
    m.scale = NAN;
    FAILS(PREFOPT_ERR_NUMERIC, "sequence 0: the reward's score is nan",
          prefopt_reward_scores(reward, &l.view, score));
    m.scale = INFINITY;
    FAILS(PREFOPT_ERR_NUMERIC, "sequence 0: the reward's score is inf",
          prefopt_reward_scores(reward, &l.view, score));
    m.scale = 1;
    m.leave_out = 1;
    FAILS(PREFOPT_ERR_NUMERIC, "sequence 4: the reward's score is nan",
          prefopt_reward_scores(reward, &l.view, score));
    m.leave_out = 0;
    m.status = -50;
    FAILS(PREFOPT_ERR_CALLBACK, "the reward's callback scores returned -50",
          prefopt_reward_scores(reward, &l.view, score));
    FAILS(PREFOPT_ERR_CALLBACK, "backward", prefopt_reward_backward(reward, &l.view, score));
    FAILS(PREFOPT_ERR_CALLBACK, "parameters", prefopt_reward_parameters(reward, &p));
    FAILS(PREFOPT_ERR_CALLBACK, "parameters", prefopt_reward_zero_grad(reward));
    FAILS(PREFOPT_ERR_CALLBACK, "updated", prefopt_reward_updated(reward));
    ck_assert_double_eq(score[0], 5);
    prefopt_reward_destroy(reward);
    ck_assert_int_eq(m.destroyed, 1);
    m.status = 0;
    c = (prefopt_reward_callbacks){.struct_size = sizeof c, .scores = mine_scores};
    OK(prefopt_reward_create_custom(&reward, context, &c, &m));
    OK(prefopt_reward_scores(reward, &l.view, score));
    OK(prefopt_reward_updated(reward));
    FAILS(PREFOPT_ERR_UNSUPPORTED, "backward", prefopt_reward_backward(reward, &l.view, score));
    FAILS(PREFOPT_ERR_UNSUPPORTED, "parameters", prefopt_reward_parameters(reward, &p));
    FAILS(PREFOPT_ERR_UNSUPPORTED, "parameters", prefopt_reward_zero_grad(reward));
    prefopt_reward_destroy(reward);
    ck_assert_int_eq(m.destroyed, 1);
    list_free(&l);
    prefopt_context_destroy(context);
}
END_TEST

START_TEST(refusals)
{
    prefopt_context *context = test_context(1);
    prefopt_space space = space_of(3, 2, -1);
    prefopt_policy *policy;
    prefopt_reference *reference;
    prefopt_reward *r = NULL, *reward;
    list l = five();
    double x[15] = {0};
    mine m = {0};
    prefopt_parameters p = {.struct_size = sizeof p};
    OK(prefopt_policy_create_tabular(&policy, context, &space, NULL));
    OK(prefopt_reference_freeze(&reference, policy));
    OK(prefopt_reward_create_tabular(&reward, context, &l.view));
    FAILS(PREFOPT_ERR_ARGUMENT, "NULL", prefopt_reward_create_tabular(NULL, context, &l.view));
    FAILS(PREFOPT_ERR_ARGUMENT, "NULL", prefopt_reward_create_tabular(&r, NULL, &l.view));
    FAILS(PREFOPT_ERR_ARGUMENT, "NULL", prefopt_reward_create_tabular(&r, context, NULL));
    FAILS(PREFOPT_ERR_ARGUMENT, "NULL", prefopt_reward_create_linear(NULL, context, &l.view, 3, x));
    FAILS(PREFOPT_ERR_ARGUMENT, "NULL", prefopt_reward_create_linear(&r, NULL, &l.view, 3, x));
    FAILS(PREFOPT_ERR_ARGUMENT, "NULL", prefopt_reward_create_linear(&r, context, NULL, 3, x));
    FAILS(PREFOPT_ERR_ARGUMENT, "NULL",
          prefopt_reward_create_linear(&r, context, &l.view, 3, NULL));
    FAILS(PREFOPT_ERR_ARGUMENT, "NULL", prefopt_reward_create_implicit(NULL, policy, reference, 1));
    FAILS(PREFOPT_ERR_ARGUMENT, "NULL", prefopt_reward_create_implicit(&r, NULL, reference, 1));
    FAILS(PREFOPT_ERR_ARGUMENT, "NULL", prefopt_reward_create_implicit(&r, policy, NULL, 1));
    FAILS(PREFOPT_ERR_ARGUMENT, "NULL", prefopt_reward_create_local(NULL, policy));
    FAILS(PREFOPT_ERR_ARGUMENT, "NULL", prefopt_reward_create_local(&r, NULL));
    FAILS(PREFOPT_ERR_ARGUMENT, "NULL",
          prefopt_reward_create_custom(NULL, context, &callbacks, &m));
    FAILS(PREFOPT_ERR_ARGUMENT, "NULL", prefopt_reward_create_custom(&r, NULL, &callbacks, &m));
    FAILS(PREFOPT_ERR_ARGUMENT, "NULL", prefopt_reward_create_custom(&r, context, NULL, &m));
    FAILS(PREFOPT_ERR_ARGUMENT, "NULL", prefopt_reward_scores(NULL, &l.view, x));
    FAILS(PREFOPT_ERR_ARGUMENT, "NULL", prefopt_reward_scores(reward, NULL, x));
    FAILS(PREFOPT_ERR_ARGUMENT, "NULL", prefopt_reward_scores(reward, &l.view, NULL));
    FAILS(PREFOPT_ERR_ARGUMENT, "NULL", prefopt_reward_backward(NULL, &l.view, x));
    FAILS(PREFOPT_ERR_ARGUMENT, "NULL", prefopt_reward_backward(reward, NULL, x));
    FAILS(PREFOPT_ERR_ARGUMENT, "NULL", prefopt_reward_backward(reward, &l.view, NULL));
    FAILS(PREFOPT_ERR_ARGUMENT, "NULL", prefopt_reward_parameters(NULL, &p));
    FAILS(PREFOPT_ERR_ARGUMENT, "NULL", prefopt_reward_parameters(reward, NULL));
    FAILS(PREFOPT_ERR_ARGUMENT, "NULL", prefopt_reward_updated(NULL));
    FAILS(PREFOPT_ERR_ARGUMENT, "NULL", prefopt_reward_zero_grad(NULL));
    x[2] = NAN;
    FAILS(PREFOPT_ERR_NUMERIC, "grad_score[2] is nan", prefopt_reward_backward(reward, &l.view, x));
    p.struct_size = 8;
    FAILS(PREFOPT_ERR_VERSION, "prefopt_parameters", prefopt_reward_parameters(reward, &p));
    ck_assert_ptr_null(r);
    l.view.n = 0;
    OK(prefopt_reward_scores(reward, &l.view, NULL));
    OK(prefopt_reward_backward(reward, &l.view, NULL));
    prefopt_reward_destroy(NULL);
    prefopt_reward_destroy(reward);
    prefopt_reference_destroy(reference);
    prefopt_policy_destroy(policy);
    list_free(&l);
    prefopt_context_destroy(context);
}
END_TEST

static int32_t make_all(prefopt_context *context, const list *l, prefopt_policy *policy,
                        prefopt_reference *reference)
{
    for (int kind = 0; kind < 5; kind++) {
        prefopt_reward *r = NULL;
        mine m = {.scale = 1};
        double x[15] = {0};
        int32_t status = kind == 0   ? prefopt_reward_create_tabular(&r, context, &l->view)
                         : kind == 1 ? prefopt_reward_create_linear(&r, context, &l->view, 3, x)
                         : kind == 2 ? prefopt_reward_create_implicit(&r, policy, reference, 1)
                         : kind == 3 ? prefopt_reward_create_local(&r, policy)
                                     : prefopt_reward_create_custom(&r, context, &callbacks, &m);
        ck_assert((status == PREFOPT_OK) == (r != NULL));
        if (status == PREFOPT_OK)
            status = prefopt_reward_scores(r, &l->view, x);
        if (status == PREFOPT_OK)
            status = prefopt_reward_backward(r, &l->view, x);
        if (status == PREFOPT_OK)
            status = prefopt_reward_updated(r);
        prefopt_reward_destroy(r);
        if (status != PREFOPT_OK)
            return status;
    }
    return PREFOPT_OK;
}

START_TEST(every_allocation_may_fail)
{
    counting_allocator a = {0};
    prefopt_context *context = counting_context(&a);
    prefopt_space space = space_of(3, 2, -1);
    prefopt_policy *policy;
    prefopt_reference *reference;
    list l = five();
    OK(prefopt_policy_create_tabular(&policy, context, &space, &l.view));
    OK(prefopt_reference_freeze(&reference, policy));
    int64_t live = a.live;
    for (int64_t n = 1;; n++) {
        a.fail_at = a.calls + n;
        int32_t status = make_all(context, &l, policy, reference);
        ck_assert_int_eq(a.live, live);
        if (status == PREFOPT_OK)
            break;
        ck_assert_int_eq(status, PREFOPT_ERR_MEMORY);
        ck_assert_int_lt(n, 200);
    }
    prefopt_policy_destroy(policy);
    prefopt_reference_destroy(reference);
    list_free(&l);
    prefopt_context_destroy(context);
}
END_TEST

TEST_MAIN("reward", tabular, linear, implicit_and_local, custom, refusals,
          every_allocation_may_fail)
