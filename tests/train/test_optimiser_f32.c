/* Float32 parameters: digits against a double reference and against the usual float arithmetic, and
 * steps that must not be taken. */
#include <float.h>

#include "train/pf_train.h"
#include "train_test.h"

enum { N = 40000, FEW = 1000, STEPS = 1000 };

typedef struct {
    float value[N], grad[N];
    prefopt_train_options options;
    pf_optimiser optimiser;
} model;

static model *model_new(prefopt_context *context, const prefopt_train_options *o, int64_t n)
{
    model *m = calloc(1, sizeof *m);
    double *normal = malloc(2 * (size_t)n * sizeof *normal);
    OK(prefopt_random_normal(1, 0, 0, 2 * n, normal));
    for (int64_t i = 0; i < n; i++) {
        m->value[i] = (float)normal[i];
        m->grad[i] = (float)(0.1 * normal[n + i]);
    }
    free(normal);
    m->options = *o;
    prefopt_parameters p = {
        .struct_size = sizeof p, .dtype = PREFOPT_F32, .n = n, .value = m->value, .grad = m->grad};
    OK(pf_optimiser_init(&m->optimiser, context, o));
    OK(pf_optimiser_add(&m->optimiser, &p));
    return m;
}

static void model_free(model *m)
{
    pf_optimiser_clear(&m->optimiser);
    free(m);
}

static prefopt_train_options options_of(int32_t kind)
{
    prefopt_train_options o = train_defaults();
    o.optimiser = kind;
    o.weight_decay = 0.01;
    o.momentum = kind == PREFOPT_SGD ? 0.9 : 0;
    return o;
}

/* The same step with every operation and constant rounded to a float, moments by beta m + (1 -
 * beta) g and decay by a factor, as torch.optim.AdamW takes it on float32 tensors. */
static void usual_adamw(float *x, float *m, float *v, float g, double rate, double decay, int t)
{
    float step = (float)(rate / (1 - pow(0.9, t))), root = (float)sqrt(1 - pow(0.999, t));
    *x *= (float)(1 - rate * decay);
    *m = *m * 0.9f + (float)(1 - 0.9) * g;
    *v = *v * 0.999f + (float)(1 - 0.999) * g * g;
    *x -= step * (*m / (sqrtf(*v) / root + 1e-8f));
}

/* Gradients of many sizes, with noise and a drift. */
static float gradient_of(int64_t i, int t)
{
    double noise = pf_uniform(3, 0, (uint64_t)(i * STEPS + t)) - 0.5;
    return (float)(pow(10, -(double)(i % 7)) * (noise + 0.3 * sin(0.01 * t + (double)i)));
}

START_TEST(adamw_keeps_its_digits)
{
    prefopt_context *context = test_context(1);
    for (int decays = 0; decays < 2; decays++) {
        prefopt_train_options o = options_of(PREFOPT_ADAMW);
        o.weight_decay = decays ? 0.01 : 0;
        model *ours = model_new(context, &o, FEW);
        float usual[FEW], first[FEW] = {0}, second[FEW] = {0};
        double exact[FEW], m[FEW] = {0}, v[FEW] = {0}, error = 0, usual_error = 0, moved = 0;
        for (int64_t i = 0; i < FEW; i++)
            exact[i] = (double)(usual[i] = ours->value[i]);
        for (int t = 1; t <= STEPS; t++) {
            for (int64_t i = 0; i < FEW; i++)
                ours->grad[i] = gradient_of(i, t);
            (void)pf_optimiser_grad_norm(&ours->optimiser);
            ck_assert(pf_optimiser_step(&ours->optimiser, 1e-3, 1));
            for (int64_t i = 0; i < FEW; i++) {
                double g = (double)ours->grad[i];
                m[i] = 0.9 * m[i] + 0.1 * g;
                v[i] = 0.999 * v[i] + 0.001 * g * g;
                exact[i] -=
                    1e-3 * (o.weight_decay * exact[i] +
                            m[i] / (1 - pow(0.9, t)) / (sqrt(v[i] / (1 - pow(0.999, t))) + 1e-8));
                usual_adamw(&usual[i], &first[i], &second[i], ours->grad[i], 1e-3, o.weight_decay,
                            t);
            }
        }
        double second_error = 0, usual_second = 0;
        const float *moment = ours->optimiser.slots[0].second;
        for (int64_t i = 0; i < FEW; i++) {
            error += pow((double)ours->value[i] - exact[i], 2) / FEW;
            usual_error += pow((double)usual[i] - exact[i], 2) / FEW;
            moved += fabs(exact[i]) / FEW;
            second_error += pow((double)moment[i] / v[i] - 1, 2) / FEW;
            usual_second += pow((double)second[i] / v[i] - 1, 2) / FEW;
        }
        error = sqrt(error), usual_error = sqrt(usual_error);
        second_error = sqrt(second_error), usual_second = sqrt(usual_second);
        ck_assert_double_gt(moved, 0.1);
        ck_assert_double_lt(error, (decays ? 0.9 : 1) * usual_error);
        ck_assert_double_lt(error, 3e-6);
        ck_assert_double_lt(second_error, 0.5 * usual_second);
        model_free(ours);
    }
    prefopt_context_destroy(context);
}
END_TEST

/* One pass in float32, or (without the norm) two in double: the same but for rounding. */
START_TEST(both_ways_agree)
{
    prefopt_context *context = test_context(2);
    for (int32_t kind = PREFOPT_ADAMW; kind <= PREFOPT_SGD; kind++) {
        prefopt_train_options o = options_of(kind);
        model *fast = model_new(context, &o, N), *slow = model_new(context, &o, N);
        fast->value[9] = slow->value[9] = NAN;
        for (int t = 0; t < 5; t++) {
            (void)pf_optimiser_grad_norm(&fast->optimiser);
            ck_assert(pf_optimiser_step(&fast->optimiser, 1e-2, 0.5));
            ck_assert(pf_optimiser_step(&slow->optimiser, 1e-2, 0.5));
        }
        int64_t differ = 0;
        double most = 0;
        for (int64_t i = 0; i < N; i++) {
            if (i == 9)
                continue;
            double x = (double)fast->value[i], y = (double)slow->value[i];
            most = fmax(most, fabs(x - y) / fmax(1, fabs(y)));
            differ += x != y;
        }
        ck_assert_double_lt(most, 5e-7);
        ck_assert(isnan(fast->value[9]) && isnan(slow->value[9]));
        ck_assert_int_gt(differ, 0); /* they are two ways */
        model_free(fast);
        model_free(slow);
    }
    prefopt_context_destroy(context);
}
END_TEST

/* Spans across chunks and at both ends: there the step is that without decay, elsewhere that with
 * it, bit for bit, in one pass and in two. */
START_TEST(spans_are_spared_from_decay)
{
    static const pf_span spans[] = {
        {0, 5}, {16380, 16390}, {20000, 20001}, {32768, 32800}, {N - 3, N}};
    enum { SPANS = sizeof spans / sizeof *spans };
    prefopt_context *context = test_context(2);
    for (int way = 0; way < 4; way++) {
        prefopt_train_options o = options_of(way % 2), plain = o;
        plain.weight_decay = 0;
        model *all = model_new(context, &o, N), *none = model_new(context, &plain, N);
        model *some = model_new(context, &o, N);
        pf_slot *slot = &some->optimiser.slots[0];
        slot->whole = pf_alloc(context, SPANS, sizeof *spans);
        memcpy(slot->whole, spans, sizeof spans);
        slot->n_whole = SPANS;
        model *const each[] = {all, none, some};
        for (int k = 0; k < 3; k++)
            for (int t = 0; t < 3; t++) {
                if (way < 2)
                    (void)pf_optimiser_grad_norm(&each[k]->optimiser);
                ck_assert(pf_optimiser_step(&each[k]->optimiser, 1e-2, 1));
            }
        int64_t differ = 0;
        for (int64_t i = 0, s = 0; i < N; i++) {
            s += s < SPANS && spans[s].high <= i;
            bool spared = s < SPANS && spans[s].low <= i;
            const model *like = spared ? none : all;
            ck_assert_msg(some->value[i] == like->value[i], "%lld", (long long)i);
            differ += all->value[i] != none->value[i];
        }
        ck_assert_int_gt(differ, N * 9 / 10);
        for (int k = 0; k < 3; k++)
            model_free(each[k]);
    }
    prefopt_context_destroy(context);
}
END_TEST

static void same_state(const model *a, const model *b)
{
    ck_assert_mem_eq(a->value, b->value, sizeof a->value);
    const pf_slot *s = a->optimiser.slots, *t = b->optimiser.slots;
    ck_assert_mem_eq(s->first, t->first, (size_t)s->n * sizeof(float));
    if (s->second != NULL)
        ck_assert_mem_eq(s->second, t->second, (size_t)s->n * sizeof(float));
    ck_assert_int_eq(a->optimiser.steps, b->optimiser.steps);
}

static bool step(model *m, double rate)
{
    ck_assert(isfinite(pf_optimiser_grad_norm(&m->optimiser)));
    return pf_optimiser_step(&m->optimiser, rate, 1);
}

/* Whatever would overflow: a gradient's square, a parameter, a moment. The good steps before and
 * after are as if it had not been tried. */
START_TEST(a_bad_step_changes_nothing)
{
    prefopt_context *context = test_context(2);
    for (int32_t kind = PREFOPT_ADAMW; kind <= PREFOPT_SGD; kind++)
        for (int bad = 0; bad < 3; bad++) {
            prefopt_train_options o = options_of(kind);
            model *tried = model_new(context, &o, N), *good = model_new(context, &o, N);
            tried->value[7] = good->value[7] = -INFINITY;
            if (bad == 2)
                tried->value[N - 1] = good->value[N - 1] = 3.4e38f;
            ck_assert(step(tried, 1e-2) && step(good, 1e-2));
            float kept = tried->grad[N - 1];
            tried->grad[N - 1] = bad == 0 ? 3e38f : bad == 1 ? 2e30f : kept;
            ck_assert(!step(tried, bad == 0 ? 1e2 : bad == 1 ? 1e9 : 3e39));
            tried->grad[N - 1] = kept;
            same_state(tried, good);
            ck_assert(step(tried, 1e-2) && step(good, 1e-2));
            same_state(tried, good);
            ck_assert(tried->value[7] == -INFINITY);
            model_free(tried);
            model_free(good);
        }
    prefopt_context_destroy(context);
}
END_TEST

/* Where the bound proves nothing but the step is fine, it is taken. */
START_TEST(large_numbers_that_fit_are_stepped)
{
    prefopt_context *context = test_context(1);
    for (int32_t kind = PREFOPT_ADAMW; kind <= PREFOPT_SGD; kind++) {
        prefopt_train_options o = options_of(kind);
        model *m = model_new(context, &o, N);
        m->value[3] = 3e38f;
        ck_assert(step(m, 1e-2));
        CLOSE((double)m->value[3] / 3e38, 1 - 1e-4, 1e-6);
        m->value[3] = 1;
        m->grad[4] = 1e20f; /* its square is no float, but 0.001 of it is */
        ck_assert(step(m, 1e-2));
        m->grad[4] = 1e22f;
        ck_assert(step(m, 1e-2) == (kind == PREFOPT_SGD));
        model_free(m);
        o.weight_decay = 1e200; /* a rate that no float holds */
        m = model_new(context, &o, N);
        memset(m->value, 0, sizeof m->value);
        ck_assert(step(m, 1e-2));
        int64_t finite = 0;
        for (int64_t i = 0; i < N; i++)
            finite += isfinite(m->value[i]) != 0;
        ck_assert_int_eq(finite, N);
        model_free(m);
    }
    prefopt_context_destroy(context);
}
END_TEST

START_TEST(bits_do_not_depend_on_threads)
{
    for (int32_t kind = PREFOPT_ADAMW; kind <= PREFOPT_SGD; kind++) {
        prefopt_train_options o = options_of(kind);
        prefopt_context *one = test_context(1), *three = test_context(3);
        model *a = model_new(one, &o, N), *b = model_new(three, &o, N);
        for (int t = 0; t < 4; t++) {
            ck_assert(pf_optimiser_ridge(&a->optimiser, 0.1, true) ==
                      pf_optimiser_ridge(&b->optimiser, 0.1, true));
            ck_assert(pf_optimiser_grad_norm(&a->optimiser) ==
                      pf_optimiser_grad_norm(&b->optimiser));
            ck_assert(step(a, 1e-2) && step(b, 1e-2));
        }
        same_state(a, b);
        model_free(a);
        model_free(b);
        prefopt_context_destroy(one);
        prefopt_context_destroy(three);
    }
}
END_TEST

/* Without gradients moments go to 0 and do not stay as denormals. */
START_TEST(moments_end)
{
    prefopt_context *context = test_context(1);
    prefopt_train_options o = options_of(PREFOPT_ADAMW);
    o.beta2 = 0.9;
    model *m = model_new(context, &o, FEW);
    const float *first = m->optimiser.slots[0].first, *second = m->optimiser.slots[0].second;
    int64_t denormal = 0, left = 0;
    for (int t = 0; t < 900; t++) {
        ck_assert(step(m, 1e-3));
        memset(m->grad, 0, sizeof m->grad);
        for (int64_t i = 0; i < FEW; i++)
            denormal += (first[i] != 0 && fabsf(first[i]) < FLT_MIN) ||
                        (second[i] != 0 && second[i] < FLT_MIN);
    }
    for (int64_t i = 0; i < FEW; i++)
        left += first[i] != 0 || second[i] != 0;
    ck_assert_int_eq(denormal, 0);
    ck_assert_int_eq(left, 0);
    model_free(m);
    prefopt_context_destroy(context);
}
END_TEST

TEST_MAIN("optimiser_f32", adamw_keeps_its_digits, both_ways_agree, spans_are_spared_from_decay,
          a_bad_step_changes_nothing, large_numbers_that_fit_are_stepped,
          bits_do_not_depend_on_threads, moments_end)
