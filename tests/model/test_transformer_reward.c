/* The transformer as a reward model against a plain one in double. */
#include "transformer_test.h"

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

TEST_MAIN("transformer_reward", test_reward)
