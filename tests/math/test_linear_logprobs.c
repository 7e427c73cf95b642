/* Log-probabilities from hidden states against a plain double reference, their gradients by central
 * differences of that reference, skipped rows, threads, bad input, memory. */
#include "logits_test.h"

static prefopt_context *context_with(int32_t threads, int64_t byte_budget)
{
    prefopt_context_options options;
    OK(prefopt_context_options_init(&options, sizeof options));
    options.threads = threads;
    if (byte_budget > 0)
        options.byte_budget = byte_budget;
    prefopt_context *context = NULL;
    OK(prefopt_context_create(&context, &options));
    return context;
}

typedef struct {
    int64_t rows, width, vocab;
    float *hidden, *weight, *grad_hidden, *grad_weight;
    int32_t *target;
    double *logp, *grad_logp;
} problem;

/* Every `skip`-th row has no target and every 5th no gradient (skip 0: none). */
static problem make(int64_t rows, int64_t width, int64_t vocab, int64_t skip)
{
    problem p = {.rows = rows, .width = width, .vocab = vocab};
    p.hidden = floats(rows * width, 1, 5);
    p.weight = floats(vocab * width, 1, 6);
    p.grad_hidden = floats(rows * width, 1, 7);
    p.grad_weight = floats(vocab * width, 1, 8);
    p.target = malloc((size_t)rows * sizeof *p.target);
    p.logp = malloc((size_t)rows * sizeof *p.logp);
    p.grad_logp = malloc((size_t)rows * sizeof *p.grad_logp);
    OK(prefopt_random_normal(11, 9, 0, rows, p.grad_logp));
    for (int64_t i = 0; i < rows; i++) {
        p.target[i] = skip > 0 && i % skip == 0 ? -1 : (int32_t)((i * 7919 + 3) % vocab);
        if (skip > 0 && i % 5 == 4)
            p.grad_logp[i] = 0;
    }
    return p;
}

static void drop(problem *p)
{
    free(p->hidden), free(p->weight), free(p->grad_hidden), free(p->grad_weight);
    free(p->target), free(p->logp), free(p->grad_logp);
}

/* sum_i grad_logp[i] logp[i] in double, with one element of H or W moved; logp: NULL, or written.
 */
static double reference_total(const problem *p, int64_t hidden_moved, int64_t weight_moved,
                              double by, double *logp)
{
    double total = 0, *z = malloc((size_t)p->vocab * sizeof *z);
    for (int64_t i = 0; i < p->rows; i++) {
        double value = 0;
        for (int64_t j = 0; j < p->vocab && p->target[i] >= 0; j++) {
            z[j] = 0;
            for (int64_t k = 0; k < p->width; k++)
                z[j] += ((double)p->hidden[i * p->width + k] +
                         (i * p->width + k == hidden_moved ? by : 0)) *
                        ((double)p->weight[j * p->width + k] +
                         (j * p->width + k == weight_moved ? by : 0));
        }
        if (p->target[i] >= 0)
            value = reference_logp(p->vocab, z, p->target[i], 1);
        total += p->target[i] >= 0 ? p->grad_logp[i] * value : 0;
        if (logp != NULL)
            logp[i] = value;
    }
    free(z);
    return total;
}

static double difference(const problem *p, int64_t hidden_moved, int64_t weight_moved)
{
    double h = 1e-5;
    return (reference_total(p, hidden_moved, weight_moved, h, NULL) -
            reference_total(p, hidden_moved, weight_moved, -h, NULL)) /
           (2 * h);
}

static int32_t run_backward(prefopt_context *context, problem *p)
{
    return prefopt_linear_logprobs_backward(context, p->rows, p->width, p->vocab, p->hidden,
                                            p->weight, p->target, p->grad_logp, p->grad_hidden,
                                            p->grad_weight);
}

static int32_t run_forward(prefopt_context *context, problem *p)
{
    return prefopt_linear_logprobs(context, p->rows, p->width, p->vocab, p->hidden, p->weight,
                                   p->target, p->logp);
}

static void check_problem(int64_t rows, int64_t width, int64_t vocab, int64_t skip, int64_t budget)
{
    problem p = make(rows, width, vocab, skip);
    prefopt_context *context = context_with(2, budget);
    float *before = floats(vocab * width, 1, 8);
    double *expected = malloc((size_t)rows * sizeof *expected);
    OK(run_forward(context, &p));
    reference_total(&p, -1, -1, 0, expected);
    for (int64_t i = 0; i < rows; i++)
        CLOSE(p.logp[i], expected[i], 1e-6);
    OK(run_backward(context, &p));
    int64_t step_h = rows * width / 23 + 1, step_w = vocab * width / 23 + 1;
    for (int64_t i = 0; i < rows * width; i += step_h)
        CLOSE((double)p.grad_hidden[i], difference(&p, i, -1), 2e-6 * sqrt((double)vocab));
    for (int64_t i = 0; i < vocab * width; i += step_w)
        CLOSE((double)p.grad_weight[i] - (double)before[i], difference(&p, -1, i),
              2e-6 * sqrt((double)rows));
    for (int64_t i = 0; i < rows; i++)
        for (int64_t k = 0; k < width && (p.target[i] < 0 || p.grad_logp[i] == 0); k++)
            ck_assert(p.grad_hidden[i * width + k] == 0);
    prefopt_context_destroy(context);
    free(before), free(expected);
    drop(&p);
}

START_TEST(linear_against_reference)
{
    check_problem(1, 1, 1, 0, 0);
    check_problem(3, 5, 2, 0, 0);
    check_problem(7, 4, 130, 3, 0);
    check_problem(40, 9, 67, 4, 1);          /* a budget too small for anything: least tiles */
    check_problem(33, 6, 301, 0, 20 * 1500); /* several blocks and slices */
    check_problem(5, 3, 2500, 2, 0);         /* several slices of full length */
}
END_TEST

START_TEST(linear_agrees_with_logits)
{
    problem p = make(20, 3, 1400, 0);
    prefopt_context *context = context_with(1, 0);
    OK(run_forward(context, &p));
    float *z = malloc(20 * 1400 * sizeof *z);
    double logp[20];
    for (int64_t i = 0; i < 20; i++)
        for (int64_t j = 0; j < 1400; j++) {
            z[i * 1400 + j] = 0;
            for (int64_t k = 0; k < 3; k++)
                z[i * 1400 + j] += p.hidden[i * 3 + k] * p.weight[j * 3 + k];
        }
    OK(prefopt_logprobs_from_logits(20, 1400, z, 1400, p.target, 1, logp));
    for (int64_t i = 0; i < 20; i++)
        CLOSE(logp[i], p.logp[i], 1e-6);
    free(z);
    drop(&p);
    prefopt_context_destroy(context);
}
END_TEST

START_TEST(linear_bits_do_not_depend_on_threads)
{
    problem p[3];
    for (int32_t i = 0; i < 3; i++) {
        p[i] = make(150, 24, 5003, 7);
        prefopt_context *context = context_with(i + 1, INT64_C(1) << 20);
        OK(run_forward(context, &p[i]));
        OK(run_backward(context, &p[i]));
        prefopt_context_destroy(context);
        ck_assert_mem_eq(p[i].logp, p[0].logp, 150 * sizeof(double));
        ck_assert_mem_eq(p[i].grad_hidden, p[0].grad_hidden, 150 * 24 * sizeof(float));
        ck_assert_mem_eq(p[i].grad_weight, p[0].grad_weight, 5003 * 24 * sizeof(float));
    }
    for (int32_t i = 0; i < 3; i++)
        drop(&p[i]);
}
END_TEST

START_TEST(linear_adds_to_grad_weight_or_skips_it)
{
    prefopt_context *context = context_with(2, 0);
    problem p = make(9, 4, 50, 0), q = make(9, 4, 50, 0);
    float *before = floats(50 * 4, 1, 8);
    OK(run_backward(context, &p));
    float *once = p.grad_weight, *hidden = q.grad_hidden;
    for (int64_t i = 0; i < 50 * 4; i++)
        once[i] -= before[i];
    OK(prefopt_linear_logprobs_backward(context, 9, 4, 50, q.hidden, q.weight, q.target,
                                        q.grad_logp, hidden, NULL));
    ck_assert_mem_eq(hidden, p.grad_hidden, 9 * 4 * sizeof(float));
    OK(run_backward(context, &q));
    OK(run_backward(context, &q));
    for (int64_t i = 0; i < 50 * 4; i++)
        CLOSE((double)q.grad_weight[i], (double)before[i] + 2 * (double)once[i], 2e-6);
    /* nothing takes part: zeros, grad_weight as it was */
    for (int64_t i = 0; i < 9; i++)
        q.target[i] = -1;
    q.hidden[0] = NAN;
    memcpy(before, q.grad_weight, 50 * 4 * sizeof *before);
    OK(run_backward(context, &q));
    OK(run_forward(context, &q));
    ck_assert(q.grad_hidden[5] == 0 && q.logp[3] == 0);
    ck_assert_mem_eq(before, q.grad_weight, 50 * 4 * sizeof *before);
    free(before);
    drop(&p), drop(&q);
    prefopt_context_destroy(context);
}
END_TEST

/* A call that fails leaves logp and both gradients as they were. */
#define BOTH_FAIL(code, text, p)                                                                   \
    do {                                                                                           \
        problem fresh_ = make((p).rows, (p).width, (p).vocab, 0);                                  \
        (p).logp[0] = 77;                                                                          \
        FAILS(code, text, run_forward(context, &(p)));                                             \
        FAILS(code, text, run_backward(context, &(p)));                                            \
        ck_assert((p).logp[0] == 77);                                                              \
        ck_assert_mem_eq((p).grad_hidden, fresh_.grad_hidden,                                      \
                         (size_t)((p).rows * (p).width) * sizeof(float));                          \
        ck_assert_mem_eq((p).grad_weight, fresh_.grad_weight,                                      \
                         (size_t)((p).vocab * (p).width) * sizeof(float));                         \
        drop(&fresh_);                                                                             \
    } while (0)

START_TEST(linear_refuses_bad_numbers)
{
    prefopt_context *context = context_with(2, 1);
    problem p = make(40, 3, 1100, 0);
    static const float values[] = {NAN, INFINITY, -INFINITY};
    for (int i = 0; i < 3; i++) {
        p.hidden[34 * 3 + 1] = values[i];
        BOTH_FAIL(NUMERIC, "hidden[34, 1]", p);
        p.hidden[34 * 3 + 1] = 0;
        p.weight[1090 * 3 + 2] = p.weight[1095 * 3] = values[i];
        BOTH_FAIL(NUMERIC, "weight[1090, 2]", p);
        p.weight[1090 * 3 + 2] = p.weight[1095 * 3] = 0;
    }
    /* finite numbers whose product is not, in the last block */
    p.hidden[39 * 3] = p.weight[700 * 3] = 1e30f;
    BOTH_FAIL(NUMERIC, "a logit of row 39 overflows", p);
    p.hidden[39 * 3] = -1e30f;
    p.target[39] = 700;
    BOTH_FAIL(NUMERIC, "a logit of row 39 overflows", p);
    p.hidden[39 * 3] = 1e-30f; /* large numbers that do not overflow */
    OK(run_forward(context, &p));
    ck_assert(isfinite(p.logp[39]));
    p.hidden[39 * 3] = 1;
    p.weight[700 * 3] = 1;
    p.grad_logp[39] = 1e39;
    FAILS(NUMERIC, "grad_logp[39]", run_backward(context, &p));
    p.grad_logp[39] = NAN;
    FAILS(NUMERIC, "grad_logp[39]", run_backward(context, &p));
    p.grad_logp[39] = 1;
    p.target[2] = 1100;
    BOTH_FAIL(ARGUMENT, "target[2] is 1100", p);
    p.target[2] = -2;
    BOTH_FAIL(ARGUMENT, "target[2] is -2", p);
    drop(&p);
    prefopt_context_destroy(context);
}
END_TEST

START_TEST(linear_refuses_bad_arguments)
{
    prefopt_context *c = context_with(1, 0);
    float h[8] = {0}, w[8] = {0}, gh[8] = {0}, gw[8] = {0};
    int32_t t[2] = {0, 1};
    double l[2] = {0}, g[2] = {1, 1};
    FAILS(ARGUMENT, "context is NULL", prefopt_linear_logprobs(NULL, 2, 2, 3, h, w, t, l));
    FAILS(ARGUMENT, "hidden is NULL", prefopt_linear_logprobs(c, 2, 2, 3, NULL, w, t, l));
    FAILS(ARGUMENT, "weight is NULL", prefopt_linear_logprobs(c, 2, 2, 3, h, NULL, t, l));
    FAILS(ARGUMENT, "target is NULL", prefopt_linear_logprobs(c, 2, 2, 3, h, w, NULL, l));
    FAILS(ARGUMENT, "logp is NULL", prefopt_linear_logprobs(c, 2, 2, 3, h, w, t, NULL));
    FAILS(ARGUMENT, "rows is -1", prefopt_linear_logprobs(c, -1, 2, 3, h, w, t, l));
    FAILS(ARGUMENT, "width is 0", prefopt_linear_logprobs(c, 2, 0, 3, h, w, t, l));
    FAILS(ARGUMENT, "vocab is 0", prefopt_linear_logprobs(c, 2, 2, 0, h, w, t, l));
    FAILS(ARGUMENT, "overflows", prefopt_linear_logprobs(c, 2, INT64_MAX / 2, 3, h, w, t, l));
    FAILS(ARGUMENT, "overflows", prefopt_linear_logprobs(c, INT64_MAX / 2, 2, 3, h, w, t, l));
    OK(prefopt_linear_logprobs(c, 0, 2, 3, NULL, NULL, NULL, NULL));
#define BACKWARD(c, rows, h, w, t, g, gh)                                                          \
    prefopt_linear_logprobs_backward(c, rows, 2, 3, h, w, t, g, gh, gw)
    FAILS(ARGUMENT, "context is NULL", BACKWARD(NULL, 2, h, w, t, g, gh));
    FAILS(ARGUMENT, "hidden is NULL", BACKWARD(c, 2, NULL, w, t, g, gh));
    FAILS(ARGUMENT, "weight is NULL", BACKWARD(c, 2, h, NULL, t, g, gh));
    FAILS(ARGUMENT, "target is NULL", BACKWARD(c, 2, h, w, NULL, g, gh));
    FAILS(ARGUMENT, "grad_logp is NULL", BACKWARD(c, 2, h, w, t, NULL, gh));
    FAILS(ARGUMENT, "grad_hidden is NULL", BACKWARD(c, 2, h, w, t, g, NULL));
    FAILS(ARGUMENT, "rows is -1", BACKWARD(c, -1, h, w, t, g, gh));
    OK(BACKWARD(c, 0, NULL, NULL, NULL, NULL, NULL));
    prefopt_context_destroy(c);
}
END_TEST

START_TEST(linear_without_memory)
{
    counting_allocator allocator = {0};
    prefopt_context *context = counting_context(&allocator);
    int64_t live = allocator.live;
    problem p = make(12, 3, 70, 3);
    int32_t failures = 0;
    for (int backward = 0; backward < 2; backward++)
        for (int64_t n = 1;; n++) {
            allocator.calls = 0;
            allocator.fail_at = n;
            p.logp[0] = 77;
            memset(p.grad_hidden, 0x55, 12 * 3 * sizeof(float));
            float kept = p.grad_hidden[0];
            int32_t status = backward ? run_backward(context, &p) : run_forward(context, &p);
            ck_assert_int_eq(allocator.live, live);
            if (status == PREFOPT_OK)
                break;
            failures++;
            ck_assert_int_eq(status, PREFOPT_ERR_MEMORY);
            ck_assert(p.logp[0] == 77 && p.grad_hidden[0] == kept && p.grad_hidden[35] == kept);
        }
    ck_assert_int_ge(failures, 14);
    allocator.fail_at = 0;
    prefopt_context_destroy(context);
    ck_assert_int_eq(allocator.live, 0);
    drop(&p);
}
END_TEST

TEST_MAIN("linear_logprobs", linear_against_reference, linear_agrees_with_logits,
          linear_bits_do_not_depend_on_threads, linear_adds_to_grad_weight_or_skips_it,
          linear_refuses_bad_numbers, linear_refuses_bad_arguments, linear_without_memory)
