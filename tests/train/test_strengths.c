/* Fits of strengths against R, against each other and against naive formulas. */
#include "base/pf_base.h"
#include "strengths_data.h"
#include "train/pf_strengths.h"

/* R 4.2.2, glm with binomial counts, abilities and standard errors for the sum-to-zero constraint,
 * and relative to Baltimore. */
static const double baseball_theta[7] = {0.531153340652131, 0.386205895803173,  0.244282587902543,
                                         0.197415309132124, 0.0574951693693919, -0.366349766850102,
                                         -1.05020253600926};
static const double baseball_se[7] = {0.207419476291954, 0.204156558573223, 0.202061520614838,
                                      0.201603748009944, 0.200919071453533, 0.205044319249037,
                                      0.232462296013052};
static const double baseball_relative[7] = {1.58135587666139,
                                            1.43640843181244,
                                            1.29448512391181,
                                            1.24761784514139,
                                            1.10769770537865,
                                            0.683852769159161,
                                            0};
static const double baseball_relative_se[7] = {0.343255981594256,
                                               0.339568506378472,
                                               0.33666940142248,
                                               0.335860922525364,
                                               0.333878206989037,
                                               0.331876672710727,
                                               0};

START_TEST(baseball_as_in_r)
{
    prefopt_context *context = test_context(2);
    table t = baseball();
    prefopt_comparisons data = table_view(&t, 7);
    prefopt_strengths *fit = NULL;
    double theta[7], se[7], v[49];
    OK(prefopt_strengths_fit(&fit, context, &data, NULL, NULL));
    OK(prefopt_strengths_values(fit, theta, se));
    OK(prefopt_strengths_covariance(fit, v));
    for (int i = 0; i < 7; i++) {
        CLOSE(theta[i], baseball_theta[i], 1e-11);
        CLOSE(se[i], baseball_se[i], 1e-11);
        CLOSE(v[8 * i], se[i] * se[i], 1e-14);
        double row = 0;
        for (int j = 0; j < 7; j++)
            row += v[7 * i + j];
        CLOSE(row, 0, 1e-14);
    }
    prefopt_strengths_summary s = summary_of(fit);
    CLOSE(s.log_likelihood, -172.248175994716, 1e-12);
    ck_assert_int_eq(s.n_items, 7);
    ck_assert_int_eq(s.tie_model, PREFOPT_TIE_NONE);
    ck_assert(isnan(s.log_tie) && isnan(s.log_tie_std_error));
    ck_assert(s.grad_norm <= 1e-10 && s.iterations > 0);
    prefopt_strengths_destroy(fit);

    prefopt_strengths_options o = strengths_options();
    o.reference = 6;
    OK(prefopt_strengths_fit(&fit, context, &data, NULL, &o));
    OK(prefopt_strengths_values(fit, theta, se));
    OK(prefopt_strengths_covariance(fit, v));
    for (int i = 0; i < 7; i++) {
        CLOSE(theta[i], baseball_relative[i], 1e-11);
        CLOSE(se[i], baseball_relative_se[i], 1e-11);
        ck_assert(v[42 + i] == 0 && v[7 * i + 6] == 0);
    }
    ck_assert(theta[6] == 0 && se[6] == 0);
    CLOSE(v[7 * 4 + 5], 0.0630486545646033, 1e-12); /* Boston, Cleveland */
    prefopt_strengths_destroy(fit);
    prefopt_context_destroy(context);
}
END_TEST

START_TEST(ridge_as_in_r)
{
    static const double expected[2][7] = {
        {0.528069939583007, 0.383950399174472, 0.242798447195309, 0.19618054738562,
         0.0569978553255258, -0.364537103208364, -1.04346008545557},
        {0.502214996438167, 0.365063667647875, 0.230428876037828, 0.185921001892602,
         0.052980542615294, -0.349076681747756, -0.98753240288401}};
    static const double log_likelihood[2] = {-172.24871671281, -172.295759290461};
    prefopt_context *context = test_context(1);
    table t = baseball();
    prefopt_comparisons data = table_view(&t, 7);
    for (int k = 0; k < 2; k++) {
        prefopt_strengths_options o = strengths_options();
        o.ridge = k == 0 ? 0.1 : 1;
        prefopt_strengths *fit, *relative;
        double theta[7], se[7], shifted[7];
        OK(prefopt_strengths_fit(&fit, context, &data, NULL, &o));
        OK(prefopt_strengths_values(fit, theta, se));
        o.reference = 3; /* only shifts: the prior is on the strengths that sum to 0 */
        OK(prefopt_strengths_fit(&relative, context, &data, NULL, &o));
        OK(prefopt_strengths_values(relative, shifted, NULL));
        for (int i = 0; i < 7; i++) {
            CLOSE(theta[i], expected[k][i], 1e-11);
            CLOSE(shifted[i], theta[i] - theta[3], 1e-13);
            ck_assert(se[i] < baseball_se[i] && se[i] > 0.8 * baseball_se[i]);
        }
        CLOSE(summary_of(fit).log_likelihood, log_likelihood[k], 1e-11);
        prefopt_strengths_destroy(fit);
        prefopt_strengths_destroy(relative);
    }
    prefopt_context_destroy(context);
}
END_TEST

/* R: glm on wins plus half the ties; and the Davidson model, relative to Barcelona. */
START_TEST(schools_as_in_r)
{
    static const double half[6] = {1.05957405671688,    0,
                                   -0.150138454900466,  0.3685396696214,
                                   -0.0128389530299031, -0.537905597313518};
    static const double half_se[6] = {0.0737235787722936, 0,
                                      0.0695096482188978, 0.069785013164619,
                                      0.0683284384384655, 0.0702756543576797};
    static const double davidson[6] = {1.20986951252317,    0,
                                       -0.170960307274682,  0.419601395592177,
                                       -0.0146103760444676, -0.612932464151088};
    static const double davidson_se[6] = {0.0793603693578285, 0,
                                          0.0741677944066294, 0.0745269761550701,
                                          0.0728899886954391, 0.075167635475429};
    prefopt_context *context = test_context(2);
    table t = schools();
    prefopt_comparisons data = table_view(&t, 6);
    prefopt_strengths_options o = strengths_options();
    o.reference = 1;
    prefopt_strengths *fit;
    double theta[6], se[6];
    OK(prefopt_strengths_fit(&fit, context, &data, NULL, &o));
    OK(prefopt_strengths_values(fit, theta, se));
    for (int i = 0; i < 6; i++) {
        CLOSE(theta[i], half[i], 1e-11);
        CLOSE(se[i], half_se[i], 1e-11);
    }
    CLOSE(summary_of(fit).log_likelihood, -2802.19547437313, 1e-12);
    prefopt_strengths_destroy(fit);
    o.tie_model = PREFOPT_TIE_DAVIDSON;
    OK(prefopt_strengths_fit(&fit, context, &data, NULL, &o));
    OK(prefopt_strengths_values(fit, theta, se));
    for (int i = 0; i < 6; i++) {
        CLOSE(theta[i], davidson[i], 1e-8);
        CLOSE(se[i], davidson_se[i], 1e-6);
    }
    prefopt_strengths_summary s = summary_of(fit);
    CLOSE(s.log_tie, -1.31717972698971, 1e-8);
    CLOSE(s.log_tie_std_error, 0.0485083144406269, 1e-6);
    prefopt_strengths_destroy(fit);
    prefopt_context_destroy(context);
}
END_TEST

START_TEST(pudding_as_in_r)
{
    static const double theta_r[6] = {0,
                                      0.220241900241322,
                                      0.152977704854174,
                                      0.175144908589806,
                                      0.133865226991097,
                                      0.377134895801589};
    static const double se_r[6] = {0,
                                   0.187216981621782,
                                   0.193518358124898,
                                   0.1882110872345,
                                   0.192704560790367,
                                   0.192406233635861};
    prefopt_context *context = test_context(1);
    table t = pudding();
    prefopt_comparisons data = table_view(&t, 6);
    prefopt_strengths_options o = strengths_options();
    o.reference = 0;
    o.tie_model = PREFOPT_TIE_DAVIDSON;
    prefopt_strengths *fit;
    double theta[6], se[6];
    OK(prefopt_strengths_fit(&fit, context, &data, NULL, &o));
    OK(prefopt_strengths_values(fit, theta, se));
    for (int i = 0; i < 6; i++) {
        CLOSE(theta[i], theta_r[i], 1e-8);
        CLOSE(se[i], se_r[i], 1e-6);
    }
    prefopt_strengths_summary s = summary_of(fit);
    CLOSE(s.log_tie, -0.29192708624802, 1e-8);
    CLOSE(s.log_tie_std_error, 0.0824986917209838, 1e-6);
    prefopt_strengths_destroy(fit);
    prefopt_context_destroy(context);
}
END_TEST

/* ---- shapes that strain the solver */

/* A ladder of 321 items, each beating the next 9 times in 10: strengths 320 log 9 = 703 apart. */
START_TEST(strengths_seven_hundred_apart)
{
    enum { N = 321 };
    prefopt_context *context = test_context(2);
    int32_t first[2 * N], second[2 * N];
    double weight[2 * N], label[2 * N];
    int64_t n = 0;
    for (int i = 0; i + 1 < N; i++)
        for (int k = 0; k < 2; k++) {
            first[n] = i;
            second[n] = i + 1;
            weight[n] = k ? 1 : 9;
            label[n++] = k ? 0 : 1;
        }
    first[n] = 0; /* certain: changes nothing */
    second[n] = N - 1;
    weight[n] = 5;
    label[n++] = 1;
    prefopt_comparisons data = {sizeof data, 0, N, n, first, second, weight, label};
    prefopt_strengths *fit;
    static double theta[N], se[N];
    prefopt_strengths_options o = strengths_options();
    o.reference = N - 1;
    OK(prefopt_strengths_fit(&fit, context, &data, NULL, &o));
    OK(prefopt_strengths_values(fit, theta, se));
    for (int i = 0; i < N; i++) {
        CLOSE(theta[i], (N - 1 - i) * log(9), 1e-9);
        CLOSE(se[i], sqrt((N - 1 - i) / 0.9), 1e-9); /* each step has variance 1 / (10 p q) */
    }
    prefopt_strengths_destroy(fit);
    prefopt_context_destroy(context);
}
END_TEST

/* One win in 10^12 and even 10^-300: the optimum is the log of the ratio, however flat. */
START_TEST(one_upset_in_very_many)
{
    prefopt_context *context = test_context(1);
    int32_t first[2] = {0, 0}, second[2] = {1, 1};
    double weights[][2] = {{1, 1e12}, {1e-300, 1}, {1e300, 3e300}, {1e-300, 3e-300}};
    double label[2] = {1, 0}, theta[2];
    for (int k = 0; k < 4; k++) {
        prefopt_comparisons data = {sizeof data, 0, 2, 2, first, second, weights[k], label};
        prefopt_strengths *fit;
        OK(prefopt_strengths_fit(&fit, context, &data, NULL, NULL));
        OK(prefopt_strengths_values(fit, theta, NULL));
        CLOSE(theta[1] - theta[0], log(weights[k][1] / weights[k][0]), 1e-9);
        prefopt_strengths_destroy(fit);
    }
    prefopt_context_destroy(context);
}
END_TEST

/* Splitting, swapping and reordering rows, and rows of weight 0, change nothing. */
START_TEST(rows_add_up)
{
    prefopt_context *context = test_context(1);
    table t = baseball(), u = {0};
    for (int i = (int)t.n - 1; i >= 0; i--) {
        if (i % 3 == 0 && t.weight[i] > 1) {
            table_add(&u, t.second[i], t.first[i], t.weight[i] - 1, 1 - t.label[i]);
            table_add(&u, t.first[i], t.second[i], 1, t.label[i]);
        } else {
            table_add(&u, t.second[i], t.first[i], t.weight[i], 1 - t.label[i]);
        }
    }
    table_add(&u, 2, 3, 0, 1);
    table_add(&u, 2, 3, 0, 0.5);
    prefopt_comparisons data[2] = {table_view(&t, 7), table_view(&u, 7)};
    double theta[2][7], se[2][7];
    for (int k = 0; k < 2; k++) {
        prefopt_strengths *fit;
        OK(prefopt_strengths_fit(&fit, context, &data[k], NULL, NULL));
        OK(prefopt_strengths_values(fit, theta[k], se[k]));
        prefopt_strengths_destroy(fit);
    }
    for (int i = 0; i < 7; i++) {
        CLOSE(theta[1][i], theta[0][i], 1e-13);
        CLOSE(se[1][i], se[0][i], 1e-13);
    }
    prefopt_context_destroy(context);
}
END_TEST

/* ---- 4,926 rankings of sushi, where the data is at hand */

static FILE *open_shared(const char *name)
{
    char path[512];
    const char *up[] = {"..", "../..", "../../.."};
    for (size_t i = 0; i < 3; i++) {
        snprintf(path, sizeof path, "%s/shared/data/comparisons/%s", up[i], name);
        FILE *file = fopen(path, "r");
        if (file != NULL)
            return file;
    }
    return NULL;
}

START_TEST(sushi_as_in_r)
{
    static const double theta_r[10] = {0,
                                       0.441269451706142,
                                       -0.170572950678022,
                                       -0.289730123164351,
                                       0.0267938379163108,
                                       -0.585432116453935,
                                       0.98526733457788,
                                       -0.0628100538735022,
                                       -0.983911742103403,
                                       0.193088820581947};
    static const double se_r[10] = {0,
                                    0.0227291989005134,
                                    0.0227509148651506,
                                    0.0235130517377841,
                                    0.0229942597270175,
                                    0.0231145995245343,
                                    0.0234232574438861,
                                    0.0224354534311258,
                                    0.0239572373245163,
                                    0.0226557860866907};
    enum { MOST = 5000 };
    FILE *file = open_shared("sushi_orderings.csv");
    if (file == NULL) {
        printf("skipped: no shared/data/comparisons/sushi_orderings.csv beside the source\n");
        return;
    }
    static int64_t offsets[MOST + 1];
    static int32_t items[10 * MOST];
    static double weight[MOST];
    char line[256];
    int64_t n = 0;
    ck_assert(fgets(line, sizeof line, file) != NULL);
    while (fgets(line, sizeof line, file) != NULL && n < MOST) {
        char *at = line;
        weight[n] = strtod(at, &at);
        for (int k = 0; k < 10; k++)
            items[10 * n + k] = (int32_t)strtol(at + 1, &at, 10) - 1;
        n++;
        offsets[n] = 10 * n;
    }
    fclose(file);
    prefopt_context *context = test_context(2);
    prefopt_rankings data = {.struct_size = sizeof data,
                             .n_items = 10,
                             .n = n,
                             .offsets = offsets,
                             .items = items,
                             .weight = weight};
    prefopt_strengths_options o = strengths_options();
    o.reference = 0;
    prefopt_strengths *fit;
    double theta[10], se[10];
    OK(prefopt_strengths_fit(&fit, context, NULL, &data, &o));
    OK(prefopt_strengths_values(fit, theta, se));
    for (int i = 0; i < 10; i++) {
        CLOSE(theta[i], theta_r[i], 1e-8); /* R stopped at a gradient of 3e-7 */
        CLOSE(se[i], se_r[i], 1e-6);
    }
    CLOSE(summary_of(fit).log_likelihood, -71211.5992246079, 1e-12);
    prefopt_strengths_destroy(fit);
    prefopt_context_destroy(context);
}
END_TEST

TEST_MAIN("strengths", baseball_as_in_r, ridge_as_in_r, schools_as_in_r, pudding_as_in_r,
          strengths_seven_hundred_apart, one_upset_in_very_many, rows_add_up, sushi_as_in_r)
