/* What the tests of the model room share: lists of sequences, all completions of a space, gradients
 * by central differences. */
#ifndef MODEL_TEST_H
#define MODEL_TEST_H

#include "model/pf_model.h"
#include "pf_test.h"

/* Sequences that grow one by one; `view` always shows them all. */
typedef struct {
    prefopt_sequences view;
    int32_t *tokens;
    int64_t *offsets, *prompt_len;
} list;

static inline list list_new(void)
{
    list l = {.view = {.struct_size = sizeof l.view}};
    l.offsets = calloc(1, sizeof *l.offsets);
    l.view.offsets = l.offsets;
    return l;
}

static inline void list_add(list *l, const int32_t *prompt, int64_t prompt_len,
                            const int32_t *completion, int64_t len)
{
    int64_t n = l->view.n, end = l->offsets[n], total = end + prompt_len + len;
    l->tokens = realloc(l->tokens, (size_t)(total + 1) * sizeof *l->tokens);
    l->offsets = realloc(l->offsets, (size_t)(n + 2) * sizeof *l->offsets);
    l->prompt_len = realloc(l->prompt_len, (size_t)(n + 1) * sizeof *l->prompt_len);
    for (int64_t t = 0; t < prompt_len; t++)
        l->tokens[end + t] = prompt[t];
    for (int64_t t = 0; t < len; t++)
        l->tokens[end + prompt_len + t] = completion[t];
    l->offsets[n + 1] = total;
    l->prompt_len[n] = prompt_len;
    l->view.n = n + 1;
    l->view.tokens = l->tokens;
    l->view.offsets = l->offsets;
    l->view.prompt_len = l->prompt_len;
}

static inline void list_free(list *l)
{
    free(l->tokens);
    free(l->offsets);
    free(l->prompt_len);
}

static inline prefopt_space space_of(int64_t vocab, int64_t horizon, int32_t eos)
{
    return (prefopt_space){
        .struct_size = sizeof(prefopt_space), .eos = eos, .vocab = vocab, .horizon = horizon};
}

/* Not inlined: unrolled, the recursion looks endless to gcc's bounds check. */
__attribute__((noinline, unused)) static void list_add_below(list *l, const prefopt_space *space,
                                                             const int32_t *prompt,
                                                             int64_t prompt_len, int32_t *so_far,
                                                             int64_t len)
{
    for (int32_t token = 0; token < space->vocab; token++) {
        so_far[len] = token;
        if (token == space->eos || len + 1 == space->horizon)
            list_add(l, prompt, prompt_len, so_far, len + 1);
        else
            list_add_below(l, space, prompt, prompt_len, so_far, len + 1);
    }
}

/* Adds every completion of the space after this prompt, in lexicographic order. */
static inline void list_add_all(list *l, const prefopt_space *space, const int32_t *prompt,
                                int64_t prompt_len)
{
    int32_t *so_far = calloc((size_t)space->horizon, sizeof *so_far);
    list_add_below(l, space, prompt, prompt_len, so_far, 0);
    free(so_far);
}

/* Central differences of sum of grad[i] * logp[i] over sequences of positive probability, for every
 * parameter that is finite, against prefopt_policy_backward. */
static inline void check_policy_gradient(prefopt_policy *policy, const prefopt_sequences *in,
                                         const double *grad, double tolerance)
{
    prefopt_parameters p = {.struct_size = sizeof p};
    double *plus = calloc((size_t)in->n, sizeof *plus), *minus = calloc((size_t)in->n, 8);
    OK(prefopt_policy_parameters(policy, &p));
    OK(prefopt_policy_zero_grad(policy));
    OK(prefopt_policy_backward(policy, in, grad));
    double *theta = p.value;
    for (int64_t k = 0; k < p.n; k++) {
        double was = theta[k], step = 1e-4, got = ((double *)p.grad)[k], expected = 0;
        if (!isfinite(was)) {
            ck_assert_double_eq(got, 0);
            continue;
        }
        theta[k] = was + step;
        OK(prefopt_policy_updated(policy));
        OK(prefopt_policy_logprobs(policy, in, plus, NULL));
        theta[k] = was - step;
        OK(prefopt_policy_updated(policy));
        OK(prefopt_policy_logprobs(policy, in, minus, NULL));
        theta[k] = was;
        OK(prefopt_policy_updated(policy));
        for (int64_t i = 0; i < in->n; i++)
            if (isfinite(plus[i]))
                expected += grad[i] * (plus[i] - minus[i]) / (2 * step);
        CLOSE(got, expected, tolerance);
    }
    free(plus);
    free(minus);
}

/* A transformer's parameters in double. */
static inline double *as_double(const prefopt_parameters *p)
{
    double *theta = malloc((size_t)p->n * sizeof *theta);
    for (int64_t i = 0; i < p->n; i++)
        theta[i] = ((const float *)p->value)[i];
    return theta;
}

static inline void randomise(prefopt_policy *policy, uint64_t seed, double scale)
{
    prefopt_parameters p = {.struct_size = sizeof p};
    OK(prefopt_policy_parameters(policy, &p));
    OK(prefopt_random_normal(seed, 0, 0, p.n, p.value));
    for (int64_t k = 0; k < p.n; k++)
        ((double *)p.value)[k] *= scale;
    OK(prefopt_policy_updated(policy));
}

#endif
