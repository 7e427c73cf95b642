/* Strengths against the definitions: derivatives of each likelihood, its maximum, the sandwich. */
#include "base/pf_base.h"
#include "strengths_data.h"
#include "train/pf_strengths.h"

/* ---- derivatives of each likelihood, by central differences */

static void check_derivatives(pf_likelihood *l, const double *x)
{
    enum { MOST = 16 };
    int64_t dim = l->dim;
    double gradient[MOST], up[MOST], down[MOST], at[MOST], k[MOST * MOST] = {0}, v[MOST], kv[MOST],
                                                                    diagonal[MOST], h = 1e-5;
    ck_assert_int_le(dim, MOST);
    memcpy(at, x, (size_t)dim * sizeof *at);
    for (int64_t i = 0; i < dim; i++) {
        at[i] = x[i] + h;
        double high = l->ops->log_likelihood(l, at);
        l->ops->evaluate(l, at, up);
        at[i] = x[i] - h;
        double low = l->ops->log_likelihood(l, at);
        l->ops->evaluate(l, at, down);
        at[i] = x[i];
        l->ops->evaluate(l, x, gradient);
        memset(k, 0, sizeof k);
        l->ops->dense(l, k);
        CLOSE(gradient[i], (high - low) / (2 * h), 1e-7);
        for (int64_t j = 0; j < dim; j++) {
            CLOSE(k[i * dim + j], (down[j] - up[j]) / (2 * h), 1e-7);
            CLOSE(k[i * dim + j], k[j * dim + i], 1e-14);
        }
    }
    l->ops->diagonal(l, diagonal);
    for (int64_t i = 0; i < dim; i++)
        v[i] = pf_normal(3, 4, (uint64_t)i);
    l->ops->product(l, v, kv);
    for (int64_t i = 0; i < dim; i++) {
        double sum = 0;
        for (int64_t j = 0; j < dim; j++)
            sum += k[i * dim + j] * v[j];
        CLOSE(kv[i], sum, 1e-12);
        CLOSE(diagonal[i], k[i * dim + i], 1e-12);
    }
}

START_TEST(derivatives_by_central_differences)
{
    prefopt_context *context = test_context(1);
    table t = schools();
    prefopt_comparisons data = table_view(&t, 6);
    for (int32_t model = 0; model <= 2; model++)
        for (int wide = 0; wide < 2; wide++) {
            double x[7];
            for (int i = 0; i < 6; i++)
                x[i] = (wide ? 5 : 0.5) * pf_normal(1, (uint64_t)model, (uint64_t)i);
            x[6] = 0.7;
            pf_likelihood *l;
            OK(pf_pair_likelihood_create(&l, context, &data, model, false));
            check_derivatives(l, x);
            l->ops->destroy(l);
        }
    prefopt_context_destroy(context);
}
END_TEST

static const int64_t list_offsets[] = {0, 5, 8, 8, 10, 14, 15, 20, 22};
static const int32_t list_items[] = {4, 1, 2, 0, 3, 0, 1, 2, 3, 4, 2,
                                     3, 1, 0, 1, 3, 2, 4, 1, 0, 0, 4};
static const double list_weight[] = {1, 2.5, 1, 1, 3, 1, 1, 2};
static const prefopt_rankings lists = {.struct_size = sizeof lists,
                                       .n_items = 5,
                                       .n = 8,
                                       .offsets = list_offsets,
                                       .items = list_items,
                                       .weight = list_weight};

START_TEST(ranking_derivatives_by_central_differences)
{
    prefopt_context *context = test_context(1);
    pf_likelihood *l;
    OK(pf_ranking_likelihood_create(&l, context, &lists));
    for (int wide = 0; wide < 2; wide++) {
        double x[5];
        for (int i = 0; i < 5; i++)
            x[i] = (wide ? 4 : 0.5) * pf_normal(2, 9, (uint64_t)i);
        check_derivatives(l, x);
    }
    l->ops->destroy(l);
    prefopt_context_destroy(context);
}
END_TEST

/* The log-likelihood of rankings by its definition. */
static double plackett_luce(const double *theta)
{
    double sum = 0;
    for (int r = 0; r < 8; r++)
        for (int64_t s = list_offsets[r]; s < list_offsets[r + 1]; s++) {
            double rest = 0;
            for (int64_t u = s; u < list_offsets[r + 1]; u++)
                rest += exp(theta[list_items[u]]);
            sum += list_weight[r] * (theta[list_items[s]] - log(rest));
        }
    return sum;
}

START_TEST(rankings_are_at_their_maximum)
{
    prefopt_context *context = test_context(1);
    prefopt_strengths *fit;
    double theta[5], se[5];
    OK(prefopt_strengths_fit(&fit, context, NULL, &lists, NULL));
    OK(prefopt_strengths_values(fit, theta, se));
    double best = plackett_luce(theta), sum = 0, h = 1e-4;
    CLOSE(summary_of(fit).log_likelihood, best, 1e-13);
    for (int i = 0; i < 5; i++) {
        sum += theta[i];
        double here = theta[i];
        theta[i] = here + h;
        double up = plackett_luce(theta);
        theta[i] = here - h;
        double down = plackett_luce(theta);
        theta[i] = here;
        CLOSE((up - down) / (2 * h), 0, 1e-7);
        ck_assert(up < best && down < best && se[i] > 0);
    }
    CLOSE(sum, 0, 1e-14);
    prefopt_strengths_destroy(fit);
    prefopt_context_destroy(context);
}
END_TEST

/* Rankings of two are comparisons. */
START_TEST(rankings_of_two_are_bradley_terry)
{
    prefopt_context *context = test_context(1);
    table t = baseball();
    prefopt_comparisons data = table_view(&t, 7);
    int64_t offsets[129] = {0};
    int32_t items[256];
    for (int i = 0; i < t.n; i++) {
        offsets[i + 1] = 2 * (i + 1);
        items[2 * i] = t.label[i] == 1 ? t.first[i] : t.second[i];
        items[2 * i + 1] = t.label[i] == 1 ? t.second[i] : t.first[i];
    }
    prefopt_rankings two = {.struct_size = sizeof two,
                            .n_items = 7,
                            .n = t.n,
                            .offsets = offsets,
                            .items = items,
                            .weight = t.weight};
    for (int32_t kind = 0; kind < 2; kind++) {
        prefopt_strengths_options o = strengths_options();
        o.covariance = kind;
        prefopt_strengths *fit[2];
        double theta[2][7], v[2][49];
        OK(prefopt_strengths_fit(&fit[0], context, &data, NULL, &o));
        OK(prefopt_strengths_fit(&fit[1], context, NULL, &two, &o));
        for (int k = 0; k < 2; k++) {
            OK(prefopt_strengths_values(fit[k], theta[k], NULL));
            OK(prefopt_strengths_covariance(fit[k], v[k]));
        }
        for (int i = 0; i < 7; i++)
            CLOSE(theta[0][i], theta[1][i], 1e-12);
        for (int i = 0; i < 49; i++)
            CLOSE(v[0][i], v[1][i], 1e-13);
        CLOSE(summary_of(fit[0]).log_likelihood, summary_of(fit[1]).log_likelihood, 1e-13);
        prefopt_strengths_destroy(fit[0]);
        prefopt_strengths_destroy(fit[1]);
    }
    prefopt_context_destroy(context);
}
END_TEST

/* ---- the sandwich against its definition */

/* Score of one comparison by central differences of its log-probability, no formula shared. */
static double log_probability(int32_t model, const double *x, int n, int a, int b, double label)
{
    double d = x[a] - x[b], t = x[n], pa, pb;
    if (model == PREFOPT_TIE_NONE)
        return label * log(1 / (1 + exp(-d))) + (1 - label) * log(1 / (1 + exp(d)));
    if (model == PREFOPT_TIE_DAVIDSON) {
        double s = exp(x[a]) + exp(x[b]) + exp(t) * sqrt(exp(x[a]) * exp(x[b]));
        pa = exp(x[a]) / s;
        pb = exp(x[b]) / s;
    } else {
        pa = exp(x[a]) / (exp(x[a]) + exp(t) * exp(x[b]));
        pb = exp(x[b]) / (exp(x[b]) + exp(t) * exp(x[a]));
    }
    return log(label == 1 ? pa : label == 0 ? pb : 1 - pa - pb);
}

static void check_score_sums(int32_t model, const table *t, const double *x, int n)
{
    enum { MOST = 8 };
    prefopt_context *context = test_context(1);
    prefopt_comparisons data = table_view(t, n);
    pf_likelihood *l;
    OK(pf_pair_likelihood_create(&l, context, &data, model, false));
    int dim = (int)l->dim;
    double naive[MOST * MOST] = {0}, ours[MOST * MOST] = {0}, score[MOST], at[MOST] = {0};
    memcpy(at, x, (size_t)(n + 1) * sizeof *at);
    for (int r = 0; r < t->n; r++) {
        for (int i = 0; i < dim; i++) {
            double h = 1e-5;
            at[i] = x[i] + h;
            double up = log_probability(model, at, n, t->first[r], t->second[r], t->label[r]);
            at[i] = x[i] - h;
            double down = log_probability(model, at, n, t->first[r], t->second[r], t->label[r]);
            at[i] = x[i];
            score[i] = (up - down) / (2 * h);
        }
        for (int i = 0; i < dim * dim; i++)
            naive[i] += t->weight[r] * score[i / dim] * score[i % dim];
    }
    l->ops->evaluate_scores(l, x);
    l->ops->dense(l, ours);
    for (int i = 0; i < dim * dim; i++)
        CLOSE(ours[i], naive[i], 1e-8);
    l->ops->destroy(l);
    prefopt_context_destroy(context);
}

START_TEST(score_sums_are_sums_of_outer_products)
{
    table t = schools();
    double x[7] = {0.9, -0.1, -0.3, 0.3, -0.1, -0.7, 0.4};
    for (int32_t model = 0; model <= 2; model++)
        check_score_sums(model, &t, x, 6);
    table soft = baseball();
    for (int i = 0; i < soft.n; i++)
        soft.label[i] = 0.1 * (i % 11);
    double y[8] = {0.9, -0.1, -0.3, 0.3, -0.1, -0.7, 0.4, 0};
    check_score_sums(PREFOPT_TIE_NONE, &soft, y, 7);
}
END_TEST

/* V = K^-1 M K^-1 on strengths that sum to 0: K V K = M there, and V's rows sum to 0. */
START_TEST(sandwich_by_its_definition)
{
    prefopt_context *context = test_context(2);
    table t = schools();
    prefopt_comparisons data = table_view(&t, 6);
    for (int32_t model = 0; model <= 2; model++) {
        prefopt_strengths_options o = strengths_options();
        o.tie_model = model;
        o.covariance = PREFOPT_COVARIANCE_SANDWICH;
        prefopt_strengths *fit;
        double theta[7], v[36], full[49] = {0}, k[49] = {0}, m[49] = {0}, scratch[7];
        OK(prefopt_strengths_fit(&fit, context, &data, NULL, &o));
        OK(prefopt_strengths_values(fit, theta, NULL));
        OK(prefopt_strengths_covariance(fit, v));
        prefopt_strengths_summary s = summary_of(fit);
        theta[6] = s.log_tie;
        pf_likelihood *l;
        OK(pf_pair_likelihood_create(&l, context, &data, model, false));
        int dim = (int)l->dim;
        OK(pf_strengths_dense_covariance(l, theta, 0, PREFOPT_COVARIANCE_SANDWICH, full));
        for (int i = 0; i < 36; i++)
            CLOSE(v[i], full[i / 6 * dim + i % 6], 1e-12);
        if (model != PREFOPT_TIE_NONE)
            CLOSE(s.log_tie_std_error, sqrt(full[dim * dim - 1]), 1e-10);
        l->ops->evaluate(l, theta, scratch);
        l->ops->dense(l, k);
        l->ops->evaluate_scores(l, theta);
        l->ops->dense(l, m);
        for (int i = 0; i < dim; i++)
            for (int j = 0; j < dim; j++) {
                double sum = 0;
                for (int a = 0; a < dim; a++)
                    for (int b = 0; b < dim; b++)
                        sum += k[i * dim + a] * full[a * dim + b] * k[b * dim + j];
                CLOSE(sum, m[i * dim + j], 1e-9);
            }
        l->ops->destroy(l);
        prefopt_strengths_destroy(fit);
    }
    prefopt_context_destroy(context);
}
END_TEST

/* ---- Rao-Kupper has no R fit here: the maximum by its definition */

START_TEST(rao_kupper_is_at_its_maximum)
{
    prefopt_context *context = test_context(1);
    table t = schools();
    prefopt_comparisons data = table_view(&t, 6);
    prefopt_strengths_options o = strengths_options();
    o.tie_model = PREFOPT_TIE_RAO_KUPPER;
    prefopt_strengths *fit;
    double x[7], se[6];
    OK(prefopt_strengths_fit(&fit, context, &data, NULL, &o));
    OK(prefopt_strengths_values(fit, x, se));
    prefopt_strengths_summary s = summary_of(fit);
    x[6] = s.log_tie;
    double best = 0;
    for (int r = 0; r < t.n; r++)
        best +=
            t.weight[r] * log_probability(o.tie_model, x, 6, t.first[r], t.second[r], t.label[r]);
    CLOSE(s.log_likelihood, best, 1e-12);
    for (int i = 0; i < 7; i++) {
        double value[2], h = 1e-5, here = x[i];
        for (int k = 0; k < 2; k++) {
            x[i] = here + (k ? h : -h);
            value[k] = 0;
            for (int r = 0; r < t.n; r++)
                value[k] += t.weight[r] *
                            log_probability(o.tie_model, x, 6, t.first[r], t.second[r], t.label[r]);
        }
        x[i] = here;
        ck_assert(value[0] < best && value[1] < best);
        CLOSE((value[1] - value[0]) / (2 * h), 0, 1e-5);
    }
    ck_assert(s.log_tie > 0 && s.log_tie_std_error > 0 && s.grad_norm <= 1e-10);
    prefopt_strengths_destroy(fit);
    prefopt_context_destroy(context);
}
END_TEST

TEST_MAIN("strengths_definitions", derivatives_by_central_differences,
          ranking_derivatives_by_central_differences, rankings_are_at_their_maximum,
          rankings_of_two_are_bradley_terry, score_sums_are_sums_of_outer_products,
          sandwich_by_its_definition, rao_kupper_is_at_its_maximum)
