/* Optimisers and schedules against their equations, written out again here. */
#include "train/pf_train.h"
#include "train_test.h"

enum { N = 40000 }; /* several chunks */

static prefopt_train_options options_of(int32_t optimiser)
{
    prefopt_train_options o = train_defaults();
    o.optimiser = optimiser;
    return o;
}

typedef struct {
    double value[N], grad[N], first[N], second[N];
} arena;

static arena *arena_new(void)
{
    arena *a = calloc(1, sizeof *a);
    OK(prefopt_random_normal(1, 0, 0, N, a->value));
    OK(prefopt_random_normal(2, 0, 0, N, a->grad));
    return a;
}

static prefopt_parameters parameters_in(double *value, double *grad)
{
    return (prefopt_parameters){.struct_size = sizeof(prefopt_parameters),
                                .dtype = PREFOPT_F64,
                                .n = N,
                                .value = value,
                                .grad = grad};
}

START_TEST(adamw_follows_its_equations)
{
    prefopt_context *context = test_context(2);
    prefopt_train_options o = options_of(PREFOPT_ADAMW);
    o.weight_decay = 0.1;
    arena *a = arena_new(), *b = arena_new();
    prefopt_parameters p = parameters_in(a->value, a->grad);
    pf_optimiser optimiser;
    OK(pf_optimiser_init(&optimiser, context, &o));
    OK(pf_optimiser_add(&optimiser, &p));
    for (int32_t t = 1; t <= 3; t++) {
        ck_assert(pf_optimiser_step(&optimiser, 0.01, 0.5));
        for (int64_t i = 0; i < N; i++) {
            double g = 0.5 * b->grad[i];
            b->first[i] = 0.9 * b->first[i] + 0.1 * g;
            b->second[i] = 0.999 * b->second[i] + 0.001 * g * g;
            double m = b->first[i] / (1 - pow(0.9, t)), v = b->second[i] / (1 - pow(0.999, t));
            b->value[i] -= 0.01 * 0.1 * b->value[i] + 0.01 * m / (sqrt(v) + 1e-8);
            CLOSE(a->value[i], b->value[i], 1e-14);
        }
        for (int64_t i = 0; i < N; i++)
            a->grad[i] = b->grad[i] = -0.7 * b->grad[i];
    }
    pf_optimiser_clear(&optimiser);
    free(a);
    free(b);
    prefopt_context_destroy(context);
}
END_TEST

START_TEST(sgd_follows_its_equations)
{
    prefopt_context *context = test_context(2);
    for (int32_t heavy = 0; heavy < 2; heavy++) {
        prefopt_train_options o = options_of(PREFOPT_SGD);
        o.momentum = heavy ? 0.8 : 0;
        o.weight_decay = 0.2;
        arena *a = arena_new(), *b = arena_new();
        prefopt_parameters p = parameters_in(a->value, a->grad);
        pf_optimiser optimiser;
        OK(pf_optimiser_init(&optimiser, context, &o));
        OK(pf_optimiser_add(&optimiser, &p));
        for (int32_t t = 0; t < 3; t++) {
            ck_assert(pf_optimiser_step(&optimiser, 0.05, 1));
            for (int64_t i = 0; i < N; i++) {
                b->first[i] = o.momentum * b->first[i] + b->grad[i];
                b->value[i] -= 0.05 * (0.2 * b->value[i] + b->first[i]);
                CLOSE(a->value[i], b->value[i], 1e-14);
            }
        }
        pf_optimiser_clear(&optimiser);
        free(a);
        free(b);
    }
    prefopt_context_destroy(context);
}
END_TEST

/* Float parameters go where double ones go, to a float's rounding. */
START_TEST(float_parameters_follow)
{
    prefopt_context *context = test_context(1);
    for (int32_t kind = PREFOPT_ADAMW; kind <= PREFOPT_SGD; kind++) {
        prefopt_train_options o = options_of(kind);
        o.momentum = kind == PREFOPT_SGD ? 0.9 : 0;
        arena *a = arena_new();
        float *value = calloc(N, sizeof *value), *grad = calloc(N, sizeof *grad);
        for (int64_t i = 0; i < N; i++) {
            value[i] = (float)(a->value[i] = (float)a->value[i]);
            grad[i] = (float)(a->grad[i] = (float)a->grad[i]);
        }
        prefopt_parameters p = parameters_in(a->value, a->grad), q = p;
        q.dtype = PREFOPT_F32;
        q.value = value;
        q.grad = grad;
        pf_optimiser wide, narrow;
        OK(pf_optimiser_init(&wide, context, &o));
        OK(pf_optimiser_init(&narrow, context, &o));
        OK(pf_optimiser_add(&wide, &p));
        OK(pf_optimiser_add(&narrow, &q));
        CLOSE(pf_optimiser_grad_norm(&wide), pf_optimiser_grad_norm(&narrow), 1e-13);
        CLOSE(pf_optimiser_ridge(&wide, 0.1, true), pf_optimiser_ridge(&narrow, 0.1, true), 1e-13);
        for (int32_t t = 0; t < 3; t++) {
            ck_assert(pf_optimiser_step(&wide, 0.01, 1));
            ck_assert(pf_optimiser_step(&narrow, 0.01, 1));
        }
        for (int64_t i = 0; i < N; i++)
            CLOSE(a->value[i], (double)value[i], 2e-6);
        pf_optimiser_clear(&wide);
        pf_optimiser_clear(&narrow);
        free(a);
        free(value);
        free(grad);
    }
    prefopt_context_destroy(context);
}
END_TEST

START_TEST(norm_and_ridge_do_not_depend_on_threads)
{
    double norm[2], ridge[2], last[2];
    for (int32_t i = 0; i < 2; i++) {
        prefopt_context *context = test_context(i == 0 ? 1 : 3);
        prefopt_train_options o = options_of(PREFOPT_ADAMW);
        arena *a = arena_new();
        prefopt_parameters p = parameters_in(a->value, a->grad);
        pf_optimiser optimiser;
        OK(pf_optimiser_init(&optimiser, context, &o));
        OK(pf_optimiser_add(&optimiser, &p));
        ridge[i] = pf_optimiser_ridge(&optimiser, 0.3, true);
        norm[i] = pf_optimiser_grad_norm(&optimiser);
        double square = 0, sum = 0;
        for (int64_t k = 0; k < N; k++) {
            square += a->value[k] * a->value[k];
            sum += a->grad[k] * a->grad[k];
        }
        CLOSE(ridge[i], 0.15 * square, 1e-12);
        CLOSE(norm[i], sqrt(sum), 1e-12);
        ck_assert(pf_optimiser_step(&optimiser, 0.01, 1));
        last[i] = a->value[N - 1];
        pf_optimiser_clear(&optimiser);
        free(a);
        prefopt_context_destroy(context);
    }
    ck_assert(norm[0] == norm[1] && ridge[0] == ridge[1] && last[0] == last[1]);
}
END_TEST

/* A step that would make one parameter infinite changes none, and no moment. Parameters that are
 * not finite stay and do not get in the way. */
START_TEST(a_bad_step_changes_nothing)
{
    prefopt_context *context = test_context(1);
    for (int32_t kind = PREFOPT_ADAMW; kind <= PREFOPT_SGD; kind++) {
        prefopt_train_options o = options_of(kind);
        o.momentum = kind == PREFOPT_SGD ? 0.9 : 0;
        o.weight_decay = 0.1;
        arena *a = arena_new(), *b = arena_new();
        a->value[3] = b->value[3] = -INFINITY;
        prefopt_parameters p = parameters_in(a->value, a->grad),
                           q = parameters_in(b->value, b->grad);
        pf_optimiser bad, good;
        OK(pf_optimiser_init(&bad, context, &o));
        OK(pf_optimiser_init(&good, context, &o));
        OK(pf_optimiser_add(&bad, &p));
        OK(pf_optimiser_add(&good, &q));
        double kept = a->grad[N - 1];
        a->grad[N - 1] = 1e300;
        ck_assert(!pf_optimiser_step(&bad, kind == PREFOPT_SGD ? 1e10 : 1, 1));
        a->grad[N - 1] = kept;
        ck_assert(pf_optimiser_step(&bad, 0.01, 1));
        ck_assert(pf_optimiser_step(&good, 0.01, 1));
        ck_assert_mem_eq(a->value, b->value, sizeof a->value);
        ck_assert(a->value[3] == -INFINITY);
        pf_optimiser_clear(&bad);
        pf_optimiser_clear(&good);
        free(a);
        free(b);
    }
    prefopt_context_destroy(context);
}
END_TEST

START_TEST(schedules)
{
    prefopt_train_options o = train_defaults();
    o.learning_rate = 2;
    ck_assert_double_eq(pf_learning_rate(&o, 0), 2);
    ck_assert_double_eq(pf_learning_rate(&o, 1000000), 2);
    o.warmup_steps = 4;
    ck_assert_double_eq(pf_learning_rate(&o, 0), 0.5);
    ck_assert_double_eq(pf_learning_rate(&o, 3), 2);
    o.schedule = PREFOPT_LINEAR;
    o.schedule_steps = 10;
    o.final_fraction = 0.1;
    ck_assert_double_eq(pf_learning_rate(&o, 4), 2);
    CLOSE(pf_learning_rate(&o, 9), 2 * 0.55, 1e-15);
    CLOSE(pf_learning_rate(&o, 14), 0.2, 1e-15);
    CLOSE(pf_learning_rate(&o, 1000), 0.2, 1e-15);
    o.schedule = PREFOPT_COSINE;
    ck_assert_double_eq(pf_learning_rate(&o, 4), 2);
    CLOSE(pf_learning_rate(&o, 9), 2 * 0.55, 1e-15);
    CLOSE(pf_learning_rate(&o, 6), 2 * (0.1 + 0.45 * (1 + cos(0.2 * acos(-1)))), 1e-15);
    CLOSE(pf_learning_rate(&o, 14), 0.2, 1e-15);
}
END_TEST

START_TEST(options_are_checked)
{
    prefopt_train_options o, own;
#define BAD(field, number, text)                                                                   \
    do {                                                                                           \
        o = train_defaults();                                                                      \
        o.field = (number);                                                                        \
        FAILS(PREFOPT_ERR_ARGUMENT, text, pf_train_options_read(&own, &o));                        \
    } while (0)
    BAD(optimiser, 2, "optimiser is 2");
    BAD(schedule, 3, "schedule is 3");
    BAD(schedule, -1, "schedule is -1");
    BAD(schedule, PREFOPT_LINEAR, "schedule_steps is 0");
    BAD(schedule_steps, 5, "CONSTANT");
    BAD(final_fraction, 0.5, "CONSTANT");
    BAD(decay_vectors, 2, "decay_vectors is 2, expected 0 or 1");
    BAD(decay_vectors, -1, "decay_vectors is -1");
    BAD(decay_vectors, 1, "decay_vectors is 1, but weight_decay is 0");
    BAD(learning_rate, 0, "learning_rate is 0");
    BAD(learning_rate, NAN, "learning_rate is nan");
    BAD(learning_rate, INFINITY, "learning_rate is inf");
    BAD(warmup_steps, -1, "warmup_steps is -1");
    BAD(beta1, 1, "beta1 is 1");
    BAD(beta2, -0.1, "beta2");
    BAD(epsilon, 0, "epsilon is 0");
    BAD(momentum, 0.5, "the optimiser is ADAMW");
    BAD(weight_decay, -1, "weight_decay is -1");
    BAD(clip_norm, NAN, "clip_norm is nan");
    BAD(batch, -1, "batch is -1");
    BAD(micro_batch, -1, "micro_batch is -1");
    BAD(ridge, -1, "ridge is -1");
    BAD(score_ridge, INFINITY, "score_ridge is inf");
    BAD(tolerance, 0, "tolerance is 0");
    BAD(max_iterations, 0, "max_iterations is 0");
    BAD(progress_every, 0, "progress_every is 0");
    BAD(progress_every, 2, "progress is NULL");
    BAD(progress_payload, &o, "progress_payload");
#undef BAD
    o = train_defaults();
    o.optimiser = PREFOPT_SGD;
    OK(pf_train_options_read(&own, &o));
    o.beta1 = 0.5;
    FAILS(PREFOPT_ERR_ARGUMENT, "beta1 is 0.5, but the optimiser is SGD",
          pf_train_options_read(&own, &o));
    o = train_defaults();
    o.struct_size = 8;
    FAILS(PREFOPT_ERR_VERSION, "struct_size", pf_train_options_read(&own, &o));
    FAILS(PREFOPT_ERR_ARGUMENT, "NULL", prefopt_train_options_init(NULL, sizeof o));
    FAILS(PREFOPT_ERR_VERSION, "struct_size", prefopt_train_options_init(&o, 8));
    OK(pf_train_options_read(&own, NULL));
    ck_assert_double_eq(own.learning_rate, 1e-2);
}
END_TEST

TEST_MAIN("optimiser", adamw_follows_its_equations, sgd_follows_its_equations,
          float_parameters_follow, norm_and_ridge_do_not_depend_on_threads,
          a_bad_step_changes_nothing, schedules, options_are_checked)
