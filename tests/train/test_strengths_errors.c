/* What fits of strengths refuse, in which words, and what they leave behind. */
#include "strengths_data.h"

static int32_t first[4] = {0, 1, 2, 0}, second[4] = {1, 2, 0, 2};
static double weight[4] = {1, 2, 3, 4}, label[4] = {1, 1, 1, 0.5};

static prefopt_comparisons ring(void)
{
    return (prefopt_comparisons){
        sizeof(prefopt_comparisons), 0, 3, 4, first, second, weight, label};
}

static prefopt_context *context;
static prefopt_strengths *const untouched = (prefopt_strengths *)&context;

#define FIT_FAILS(code, text, data, options)                                                       \
    do {                                                                                           \
        prefopt_strengths *out_ = untouched;                                                       \
        FAILS(code, text, prefopt_strengths_fit(&out_, context, data, NULL, options));             \
        ck_assert_ptr_eq(out_, untouched);                                                         \
    } while (0)

START_TEST(null_pointers)
{
    context = test_context(1);
    prefopt_comparisons data = ring();
    prefopt_rankings lists = {.struct_size = sizeof lists, .n_items = 2, .n = 1};
    prefopt_strengths *fit = NULL;
    prefopt_strengths_options o;
    double theta[3];
    FAILS(PREFOPT_ERR_ARGUMENT, "NULL", prefopt_strengths_options_init(NULL, sizeof o));
    FAILS(PREFOPT_ERR_VERSION, "struct_size", prefopt_strengths_options_init(&o, 8));
    FAILS(PREFOPT_ERR_ARGUMENT, "out is NULL",
          prefopt_strengths_fit(NULL, context, &data, NULL, NULL));
    FAILS(PREFOPT_ERR_ARGUMENT, "context is NULL",
          prefopt_strengths_fit(&fit, NULL, &data, NULL, NULL));
    FAILS(PREFOPT_ERR_ARGUMENT, "both NULL",
          prefopt_strengths_fit(&fit, context, NULL, NULL, NULL));
    FAILS(PREFOPT_ERR_ARGUMENT, "both given",
          prefopt_strengths_fit(&fit, context, &data, &lists, NULL));
    FAILS(PREFOPT_ERR_ARGUMENT, "rankings.offsets is NULL",
          prefopt_strengths_fit(&fit, context, NULL, &lists, NULL));
    data.first = NULL;
    FIT_FAILS(PREFOPT_ERR_ARGUMENT, "comparisons.first is NULL", &data, NULL);
    data = ring();
    data.second = NULL;
    FIT_FAILS(PREFOPT_ERR_ARGUMENT, "comparisons.second is NULL", &data, NULL);
    data = ring();
    data.struct_size = 12;
    FIT_FAILS(PREFOPT_ERR_VERSION, "prefopt_comparisons", &data, NULL);
    data = ring();
    ck_assert_ptr_null(fit);
    OK(prefopt_strengths_fit(&fit, context, &data, NULL, NULL));
    FAILS(PREFOPT_ERR_ARGUMENT, "fit is NULL", prefopt_strengths_values(NULL, theta, NULL));
    FAILS(PREFOPT_ERR_ARGUMENT, "fit is NULL", prefopt_strengths_covariance(NULL, theta));
    FAILS(PREFOPT_ERR_ARGUMENT, "covariance is NULL", prefopt_strengths_covariance(fit, NULL));
    prefopt_strengths_summary s = {.struct_size = sizeof s};
    FAILS(PREFOPT_ERR_ARGUMENT, "fit is NULL", prefopt_strengths_summarise(NULL, &s));
    FAILS(PREFOPT_ERR_ARGUMENT, "out is NULL", prefopt_strengths_summarise(fit, NULL));
    s.struct_size = 8;
    FAILS(PREFOPT_ERR_VERSION, "struct_size", prefopt_strengths_summarise(fit, &s));
    OK(prefopt_strengths_values(fit, NULL, NULL));
    prefopt_strengths_destroy(NULL);
    prefopt_strengths_destroy(fit);
    prefopt_context_destroy(context);
}
END_TEST

START_TEST(options_out_of_range)
{
    context = test_context(1);
    prefopt_comparisons data = ring();
    prefopt_strengths_options o;
#define OPTION_FAILS(code, text, ...)                                                              \
    do {                                                                                           \
        o = strengths_options();                                                                   \
        __VA_ARGS__;                                                                               \
        FIT_FAILS(code, text, &data, &o);                                                          \
    } while (0)
    OPTION_FAILS(PREFOPT_ERR_ARGUMENT, "tie_model is 3", o.tie_model = 3);
    OPTION_FAILS(PREFOPT_ERR_ARGUMENT, "ridge is -1", o.ridge = -1);
    OPTION_FAILS(PREFOPT_ERR_ARGUMENT, "ridge is inf", o.ridge = INFINITY);
    OPTION_FAILS(PREFOPT_ERR_NUMERIC, "ridge is nan", o.ridge = NAN);
    OPTION_FAILS(PREFOPT_ERR_ARGUMENT, "reference is 3", o.reference = 3);
    OPTION_FAILS(PREFOPT_ERR_ARGUMENT, "reference is -2", o.reference = -2);
    OPTION_FAILS(PREFOPT_ERR_ARGUMENT, "covariance is 3", o.covariance = 3);
    OPTION_FAILS(PREFOPT_ERR_ARGUMENT, "replicates is set (100)", o.replicates = 100);
    OPTION_FAILS(PREFOPT_ERR_ARGUMENT, "seed is set (1)", o.seed = 1);
    OPTION_FAILS(PREFOPT_ERR_ARGUMENT, "replicates is 1",
                 o.covariance = PREFOPT_COVARIANCE_BOOTSTRAP, o.replicates = 1);
    OPTION_FAILS(PREFOPT_ERR_ARGUMENT, "tolerance is 0", o.tolerance = 0);
    OPTION_FAILS(PREFOPT_ERR_NUMERIC, "tolerance is nan", o.tolerance = NAN);
    OPTION_FAILS(PREFOPT_ERR_VERSION, "prefopt_strengths_options", o.struct_size = 4);
    OPTION_FAILS(PREFOPT_ERR_NUMERIC, "the gradient norm stopped at", o.tolerance = 1e-300);
    prefopt_context_destroy(context);
}
END_TEST

START_TEST(rows_that_cannot_be)
{
    context = test_context(1);
    prefopt_comparisons data = ring();
    prefopt_strengths_options ties = strengths_options();
    ties.tie_model = PREFOPT_TIE_DAVIDSON;
    first[2] = 3;
    FIT_FAILS(PREFOPT_ERR_ARGUMENT, "first[2] is 3, expected 0 to 2", &data, NULL);
    first[2] = 2;
    second[1] = -1;
    FIT_FAILS(PREFOPT_ERR_ARGUMENT, "second[1] is -1, expected 0 to 2", &data, NULL);
    second[1] = 1;
    FIT_FAILS(PREFOPT_ERR_ARGUMENT, "first[1] and second[1] are both item 1", &data, NULL);
    second[1] = 2;
    weight[3] = -0.5;
    FIT_FAILS(PREFOPT_ERR_ARGUMENT, "weight[3] is -0.5", &data, NULL);
    weight[3] = NAN;
    FIT_FAILS(PREFOPT_ERR_NUMERIC, "weight[3] is NaN", &data, NULL);
    weight[3] = INFINITY;
    FIT_FAILS(PREFOPT_ERR_ARGUMENT, "weight[3] is inf", &data, NULL);
    weight[2] = weight[3] = 1e308;
    FIT_FAILS(PREFOPT_ERR_ARGUMENT, "sum of comparisons.weight overflows", &data, NULL);
    weight[2] = 3;
    weight[3] = 4;
    label[3] = 1.5;
    FIT_FAILS(PREFOPT_ERR_ARGUMENT, "label[3] is 1.5, expected 0 to 1", &data, NULL);
    label[3] = NAN;
    FIT_FAILS(PREFOPT_ERR_NUMERIC, "label[3] is NaN", &data, NULL);
    label[3] = 0.25;
    FIT_FAILS(PREFOPT_ERR_ARGUMENT, "label[3] is 0.25, expected 0, 0.5 (a tie) or 1", &data, &ties);
    label[3] = 0.5;
    data.n_items = 0;
    FIT_FAILS(PREFOPT_ERR_ARGUMENT, "n_items is 0", &data, NULL);
    data.n_items = 3;
    data.n = -1;
    FIT_FAILS(PREFOPT_ERR_ARGUMENT, "n is -1", &data, NULL);
    prefopt_context_destroy(context);
}
END_TEST

START_TEST(rankings_that_cannot_be)
{
    context = test_context(1);
    int64_t offsets[3] = {0, 3, 5};
    int32_t items[5] = {0, 1, 2, 2, 0};
    double w[2] = {1, NAN};
    prefopt_rankings data = {
        .struct_size = sizeof data, .n_items = 3, .n = 2, .offsets = offsets, .items = items};
    prefopt_strengths *fit = NULL;
    prefopt_strengths_options ties = strengths_options();
    ties.tie_model = PREFOPT_TIE_DAVIDSON;
    FAILS(PREFOPT_ERR_ARGUMENT, "tie_model is 1, but rankings",
          prefopt_strengths_fit(&fit, context, NULL, &data, &ties));
    items[4] = 2;
    FAILS(PREFOPT_ERR_ARGUMENT, "items[4]: item 2 stands twice in ranking 1",
          prefopt_strengths_fit(&fit, context, NULL, &data, NULL));
    items[4] = 7;
    FAILS(PREFOPT_ERR_ARGUMENT, "items[4] is 7",
          prefopt_strengths_fit(&fit, context, NULL, &data, NULL));
    items[4] = 0;
    data.weight = w;
    FAILS(PREFOPT_ERR_NUMERIC, "rankings.weight[1] is NaN",
          prefopt_strengths_fit(&fit, context, NULL, &data, NULL));
    data.weight = NULL;
    offsets[0] = 1;
    FAILS(PREFOPT_ERR_ARGUMENT, "offsets[0] is 1, expected 0",
          prefopt_strengths_fit(&fit, context, NULL, &data, NULL));
    offsets[0] = 0;
    offsets[1] = 6;
    FAILS(PREFOPT_ERR_ARGUMENT, "offsets[2] is 5, expected at least offsets[1] = 6",
          prefopt_strengths_fit(&fit, context, NULL, &data, NULL));
    offsets[1] = 3;
    data.items = NULL;
    FAILS(PREFOPT_ERR_ARGUMENT, "rankings.items is NULL",
          prefopt_strengths_fit(&fit, context, NULL, &data, NULL));
    data.items = items;
    data.n = 1; /* 0 above 1 above 2, and nothing else */
    FAILS(PREFOPT_ERR_UNBOUNDED,
          "item 0: never lost to any of the other items (the win graph has 3 strongly",
          prefopt_strengths_fit(&fit, context, NULL, &data, NULL));
    ck_assert_ptr_null(fit);
    data.n = 2;
    OK(prefopt_strengths_fit(&fit, context, NULL, &data, NULL));
    prefopt_strengths_destroy(fit);
    prefopt_context_destroy(context);
}
END_TEST

/* ---- no finite optimum */

START_TEST(optima_at_infinity)
{
    context = test_context(1);
    prefopt_strengths_options ridge = strengths_options();
    ridge.ridge = 1e-3;
    table t = baseball();
    table_add(&t, 2, 7, 3, 1); /* an eighth team that lost its only games */
    prefopt_comparisons data = table_view(&t, 8);
    FIT_FAILS(PREFOPT_ERR_UNBOUNDED, "item 7: never beat any of the other items", &data, NULL);
    prefopt_strengths *fit;
    double theta[9], se[9];
    OK(prefopt_strengths_fit(&fit, context, &data, NULL, &ridge));
    OK(prefopt_strengths_values(fit, theta, se));
    for (int i = 0; i < 7; i++)
        ck_assert(theta[i] > theta[7] && se[i] > 0);
    prefopt_strengths_destroy(fit);
    data = table_view(&t, 9); /* and a ninth that never played */
    FIT_FAILS(PREFOPT_ERR_UNBOUNDED, "item 8: never compared with any of the other items", &data,
              NULL);
    OK(prefopt_strengths_fit(&fit, context, &data, NULL, &ridge));
    OK(prefopt_strengths_values(fit, theta, se));
    CLOSE(theta[8], 0, 1e-12);
    prefopt_strengths_destroy(fit);
    t.weight[t.n - 1] = 0; /* rows of weight 0 are not there */
    data = table_view(&t, 8);
    FIT_FAILS(PREFOPT_ERR_UNBOUNDED, "item 7: never compared", &data, NULL);
    prefopt_context_destroy(context);
}
END_TEST

START_TEST(nothing_to_fit)
{
    context = test_context(1);
    prefopt_comparisons none = {.struct_size = sizeof none, .n_items = 3};
    prefopt_rankings no_lists = {.struct_size = sizeof no_lists, .n_items = 3};
    prefopt_strengths_options o = strengths_options();
    prefopt_strengths *fit = NULL;
    double theta[3] = {7, 7, 7}, se[3];
    FIT_FAILS(PREFOPT_ERR_UNBOUNDED, "never compared", &none, NULL);
    FAILS(PREFOPT_ERR_UNBOUNDED, "never compared",
          prefopt_strengths_fit(&fit, context, NULL, &no_lists, NULL));
    o.ridge = 4;
    for (int k = 0; k < 2; k++) {
        OK(prefopt_strengths_fit(&fit, context, k ? NULL : &none, k ? &no_lists : NULL, &o));
        OK(prefopt_strengths_values(fit, theta, se));
        for (int i = 0; i < 3; i++) {
            ck_assert(theta[i] == 0);
            CLOSE(se[i], sqrt((1 - 1.0 / 3) / 4), 1e-14); /* the prior, on sums of 0 */
        }
        ck_assert(summary_of(fit).log_likelihood == 0);
        prefopt_strengths_destroy(fit);
    }
    none.n_items = 1; /* one item needs no comparisons */
    OK(prefopt_strengths_fit(&fit, context, &none, NULL, NULL));
    OK(prefopt_strengths_values(fit, theta, se));
    ck_assert(theta[0] == 0);
    CLOSE(se[0], 0, 1e-15);
    prefopt_strengths_destroy(fit);
    prefopt_context_destroy(context);
}
END_TEST

/* What a tie parameter adds to the question. */
START_TEST(tie_parameters_at_infinity)
{
    context = test_context(1);
    for (int32_t model = PREFOPT_TIE_DAVIDSON; model <= PREFOPT_TIE_RAO_KUPPER; model++)
        for (int with_ridge = 0; with_ridge < 2; with_ridge++) {
            prefopt_strengths_options o = strengths_options();
            o.tie_model = model;
            o.ridge = with_ridge ? 1 : 0;
            table no_ties = {0}, all_ties = {0}, ladder = {0}, upset = {0};
            for (int i = 0; i < 3; i++) {
                table_add(&no_ties, i, (i + 1) % 3, 2, 1);
                table_add(&all_ties, i, (i + 1) % 3, 2, 0.5);
                if (i < 2) {
                    table_add(&ladder, i, i + 1, 2, 1);
                    table_add(&ladder, i, i + 1, 1, 0.5);
                }
            }
            upset = ladder;
            table_add(&upset, 2, 1, 1, 1);
            prefopt_comparisons data = table_view(&no_ties, 3);
            FIT_FAILS(PREFOPT_ERR_UNBOUNDED,
                      model == PREFOPT_TIE_DAVIDSON ? "log_tie goes to -inf"
                                                    : "log_tie goes to its",
                      &data, &o);
            data = table_view(&all_ties, 3);
            FIT_FAILS(PREFOPT_ERR_UNBOUNDED, "log_tie goes to +inf", &data, &o);
            /* Strongly connected through its ties, and yet: every win one step up. */
            data = table_view(&ladder, 3);
            prefopt_strengths *fit;
            if (with_ridge) {
                OK(prefopt_strengths_fit(&fit, context, &data, NULL, &o));
                ck_assert(summary_of(fit).grad_norm <= 1e-10);
                prefopt_strengths_destroy(fit);
            } else {
                FIT_FAILS(PREFOPT_ERR_UNBOUNDED, "log_tie and the strengths grow together", &data,
                          &o);
            }
            data = table_view(&upset, 3);
            OK(prefopt_strengths_fit(&fit, context, &data, NULL, &o));
            ck_assert(summary_of(fit).grad_norm <= 1e-10);
            prefopt_strengths_destroy(fit);
        }
    prefopt_context_destroy(context);
}
END_TEST

/* ---- memory */

START_TEST(every_allocation_may_fail)
{
    table t = schools();
    prefopt_comparisons data = table_view(&t, 6);
    int64_t offsets[3] = {0, 3, 5};
    int32_t items[5] = {0, 1, 2, 2, 0};
    prefopt_rankings lists = {
        .struct_size = sizeof lists, .n_items = 3, .n = 2, .offsets = offsets, .items = items};
    for (int32_t kind = 0; kind <= 2; kind++)
        for (int rank = 0; rank < 2; rank++) {
            counting_allocator a = {0};
            context = counting_context(&a);
            prefopt_strengths_options o = strengths_options();
            o.covariance = kind;
            o.tie_model = rank ? PREFOPT_TIE_NONE : PREFOPT_TIE_DAVIDSON;
            o.ridge = 0.1;
            if (kind == PREFOPT_COVARIANCE_BOOTSTRAP)
                o.replicates = 3;
            prefopt_strengths *fit = NULL;
            int64_t live = a.live;
            int32_t status = PREFOPT_ERR_MEMORY;
            for (int64_t n = 1; status != PREFOPT_OK && n < 200; n++) {
                a.fail_at = a.calls + n;
                status = prefopt_strengths_fit(&fit, context, rank ? NULL : &data,
                                               rank ? &lists : NULL, &o);
                ck_assert(status == PREFOPT_OK || status == PREFOPT_ERR_MEMORY);
                ck_assert_int_eq(fit == NULL, status != PREFOPT_OK);
                ck_assert(status == PREFOPT_OK || a.live == live);
            }
            ck_assert_int_eq(status, PREFOPT_OK);
            double theta[6] = {7}, v[36] = {7};
            int64_t with_fit = a.live;
            status = PREFOPT_ERR_MEMORY;
            for (int64_t n = 1; status != PREFOPT_OK && n < 50; n++) {
                a.fail_at = a.calls + n;
                status = prefopt_strengths_covariance(fit, v);
                ck_assert(status == PREFOPT_OK || status == PREFOPT_ERR_MEMORY);
                ck_assert(status == PREFOPT_OK || (a.live == with_fit && v[0] == 7));
            }
            ck_assert_int_eq(status, PREFOPT_OK);
            a.fail_at = 0;
            OK(prefopt_strengths_values(fit, theta, NULL));
            prefopt_context_destroy(context); /* the fit keeps its own reference */
            prefopt_strengths_destroy(fit);
            ck_assert_int_eq(a.live, 0);
        }
}
END_TEST

START_TEST(items_are_named)
{
    const char *name[3] = {"Ann", "Bob", "Cem"};
    char longest[2000];
    prefopt_strengths_options o;
    context = test_context(1);
    OK(prefopt_strengths_options_init(&o, sizeof o));
    o.item_names = name;
    prefopt_comparisons data = ring();
    data.n = 1;
    data.label = data.weight = NULL;
    FIT_FAILS(PREFOPT_ERR_UNBOUNDED, "item \"Cem\": never compared", &data, &o);
    data.n = 2;
    FIT_FAILS(PREFOPT_ERR_UNBOUNDED, "item \"Ann\": never lost", &data, &o);
    memset(longest, 'x', sizeof longest);
    longest[sizeof longest - 1] = '\0';
    name[0] = longest; /* the text is cut, not the stack */
    FIT_FAILS(PREFOPT_ERR_UNBOUNDED, "item \"xxx", &data, &o);
    name[1] = NULL;
    FIT_FAILS(PREFOPT_ERR_ARGUMENT, "item_names[1] is NULL", &data, &o);
    prefopt_context_destroy(context);
}
END_TEST

TEST_MAIN("strengths_errors", items_are_named, null_pointers, options_out_of_range,
          rows_that_cannot_be, rankings_that_cannot_be, optima_at_infinity, nothing_to_fit,
          tie_parameters_at_infinity, every_allocation_may_fail)
