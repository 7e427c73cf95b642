/* Plackett-Luce: values, agreement with Bradley-Terry and DPO on pairs, gradients against central
 * differences, partial rankings, infinite scores, refusals. */
#include <float.h>

#include "base/pf_base.h"
#include "pf_test.h"

enum { RANKINGS = 60, ITEMS = 400 };
typedef struct {
    double score[ITEMS], ref_logp[ITEMS], weight[RANKINGS], each[RANKINGS], grad[ITEMS];
    int64_t offsets[RANKINGS + 1], n_ranked[RANKINGS];
    prefopt_ranking_scores in;
    prefopt_ranking_loss out;
    prefopt_pl_options o;
} cases;

/* n rankings of 0, 1, ... 7, 0, 1, ... items. */
static cases *cases_new(int64_t n)
{
    cases *c = calloc(1, sizeof *c);
    for (int64_t i = 0; i < n; i++) {
        c->offsets[i + 1] = c->offsets[i] + i % 8;
        c->weight[i] = i % 5 == 3 ? 0 : pf_uniform(3, 1, (uint64_t)i);
        c->n_ranked[i] = pf_uniform_int(3, 2, (uint64_t)i, i % 8 + 1);
    }
    for (int64_t j = 0; j < c->offsets[n]; j++) {
        c->score[j] = -20 * pf_uniform(3, 3, (uint64_t)j);
        c->ref_logp[j] = c->score[j] + 6 * (pf_uniform(3, 4, (uint64_t)j) - 0.5);
    }
    c->in = (prefopt_ranking_scores){sizeof c->in, 0, n, c->offsets, c->score, NULL, NULL, NULL};
    c->out = (prefopt_ranking_loss){sizeof c->out, 0, 0, c->each, c->grad};
    OK(prefopt_pl_options_init(&c->o, sizeof c->o));
    return c;
}

/* One ranking of these scores. */
static cases *ranking_of(int64_t k, const double *score)
{
    cases *c = cases_new(1);
    c->offsets[1] = k;
    memcpy(c->score, score, (size_t)k * sizeof *score);
    return c;
}

START_TEST(values)
{
    /* P(1, 2, 3) with exp(s) = 4, 2, 1: 4/7 * 2/3 */
    cases *c = ranking_of(3, (double[]){log(4), log(2), 0});
    OK(prefopt_loss_plackett_luce(NULL, &c->in, &c->out));
    CLOSE(c->out.mean, log(21.0 / 8), 1e-15);
    CLOSE(c->grad[0], 4.0 / 7 - 1, 1e-15);
    CLOSE(c->grad[1], 2.0 / 7 + 2.0 / 3 - 1, 1e-15);
    CLOSE(c->grad[2], 1.0 / 7 + 1.0 / 3, 1e-15);
    const int64_t first_alone = 1; /* 4/7 */
    c->in.n_ranked = &first_alone;
    OK(prefopt_loss_plackett_luce(NULL, &c->in, &c->out));
    CLOSE(c->out.mean, log(7.0 / 4), 1e-15);
    CLOSE(c->grad[1], 2.0 / 7, 1e-15);
    free(c);
    for (int k = 0; k < 12; k++) { /* all tied: 1/k! */
        double zero[12] = {0};
        c = ranking_of(k, zero);
        OK(prefopt_loss_plackett_luce(NULL, &c->in, &c->out));
        CLOSE(c->out.mean, lgamma(k + 1.0), 1e-14);
        free(c);
    }
}
END_TEST

START_TEST(orders_add_up_to_one)
{
    static const int order[6][3] = {{0, 1, 2}, {0, 2, 1}, {1, 0, 2},
                                    {1, 2, 0}, {2, 0, 1}, {2, 1, 0}};
    const double s[] = {0.3, -400, 1.5};
    double sum = 0;
    for (int i = 0; i < 6; i++) {
        cases *c = ranking_of(3, (double[]){s[order[i][0]], s[order[i][1]], s[order[i][2]]});
        OK(prefopt_loss_plackett_luce(NULL, &c->in, &c->out));
        sum += exp(-c->out.mean);
        free(c);
    }
    CLOSE(sum, 1, 1e-15);
}
END_TEST

START_TEST(pairs_are_dpo)
{
    cases *c = cases_new(0);
    double chosen[50], rejected[50], ref_chosen[50], ref_rejected[50], each[50], gc[50], gr[50];
    for (int i = 0; i < 50; i++) {
        c->offsets[i + 1] = 2 * (i + 1);
        c->weight[i] = pf_uniform(4, 1, (uint64_t)i);
        for (int j = 2 * i; j < 2 * i + 2; j++) {
            c->score[j] = -50 * pf_uniform(4, 2, (uint64_t)j);
            c->ref_logp[j] = -50 * pf_uniform(4, 3, (uint64_t)j);
        }
        chosen[i] = c->score[2 * i], rejected[i] = c->score[2 * i + 1];
        ref_chosen[i] = c->ref_logp[2 * i], ref_rejected[i] = c->ref_logp[2 * i + 1];
    }
    c->in.n = 50;
    c->in.ref_logp = c->ref_logp;
    c->in.weight = c->weight;
    c->o.beta = 0.1;
    prefopt_pair_scores in = {.struct_size = sizeof in,
                              .n = 50,
                              .chosen = chosen,
                              .rejected = rejected,
                              .ref_chosen = ref_chosen,
                              .ref_rejected = ref_rejected,
                              .weight = c->weight};
    prefopt_pair_loss out = {
        .struct_size = sizeof out, .each = each, .grad_chosen = gc, .grad_rejected = gr};
    for (int infinite = 0; infinite < 2; infinite++) {
        if (infinite) { /* the limits agree as well */
            c->score[6] = chosen[3] = -INFINITY;
            c->ref_logp[9] = ref_rejected[4] = -INFINITY;
            c->score[11] = rejected[5] = -INFINITY;
            c->ref_logp[12] = ref_chosen[6] = -INFINITY;
        }
        OK(prefopt_loss_plackett_luce(&c->o, &c->in, &c->out));
        OK(prefopt_loss_dpo(NULL, &in, &out));
        CLOSE(c->out.mean, out.mean, 1e-14);
        for (int i = 0; i < 50; i++) {
            CLOSE(c->each[i], each[i], 1e-14);
            CLOSE(c->grad[2 * i], gc[i], 1e-15);
            CLOSE(c->grad[2 * i + 1], gr[i], 1e-15);
        }
    }
    ck_assert(out.mean == INFINITY);
    free(c);
}
END_TEST

START_TEST(gradients)
{
    for (int kind = 0; kind < 5; kind++) {
        cases *c = cases_new(RANKINGS);
        int64_t items = c->offsets[RANKINGS];
        ck_assert(items > 200 && items <= ITEMS);
        if (kind > 0)
            c->in.weight = c->weight;
        if (kind == 1)
            c->in.n_ranked = c->n_ranked;
        if (kind == 2) {
            c->in.ref_logp = c->ref_logp;
            c->o.beta = 0.3;
        }
        for (int64_t j = 0; j < items; j++)
            if (kind == 3)
                c->score[j] = -3;
            else if (kind == 4)
                c->score[j] = 700 * (double)(j * 7 % 3 - 1);
        OK(prefopt_loss_plackett_luce(&c->o, &c->in, &c->out));
        for (int64_t j = 0; j < items; j++) {
            prefopt_ranking_loss out = {.struct_size = sizeof out};
            double kept = c->score[j];
            c->score[j] = kept + 1e-5;
            OK(prefopt_loss_plackett_luce(&c->o, &c->in, &out));
            double high = out.mean, up = c->score[j];
            c->score[j] = kept - 1e-5;
            OK(prefopt_loss_plackett_luce(&c->o, &c->in, &out));
            CLOSE(c->grad[j], (high - out.mean) / (up - c->score[j]), kind == 4 ? 1e-7 : 1e-9);
            c->score[j] = kept;
        }
        for (int64_t i = 0; i < RANKINGS; i++) { /* a shift of all scores changes nothing */
            double sum = 0;
            for (int64_t j = c->offsets[i]; j < c->offsets[i + 1]; j++)
                sum += c->grad[j];
            /* to the rounding of L, which is as large as the scores */
            CLOSE(sum, 0, DBL_EPSILON * (kind == 4 ? 701 : 21));
        }
        free(c);
    }
}
END_TEST

START_TEST(corners)
{
    const double inf = INFINITY;
    cases *c = cases_new(0);
    c->in.score = NULL;
    c->out.mean = 7;
    OK(prefopt_loss_plackett_luce(&c->o, &c->in, &c->out));
    ck_assert(c->out.mean == 0);
    free(c);

    c = ranking_of(3, (double[]){1, 0, -inf}); /* the impossible one is last */
    OK(prefopt_loss_plackett_luce(NULL, &c->in, &c->out));
    CLOSE(c->out.mean, log1p(exp(-1)), 1e-15);
    ck_assert(c->grad[2] == 0);
    free(c);
    c = ranking_of(3, (double[]){1, -inf, 0}); /* it is not */
    OK(prefopt_loss_plackett_luce(NULL, &c->in, &c->out));
    ck_assert(c->out.mean == inf && c->grad[1] == -1);
    CLOSE(c->grad[2], 1 + 1 / (1 + exp(1)), 1e-15);
    free(c);
    c = ranking_of(3, (double[]){1, -inf, -inf});
    c->out.mean = c->grad[0] = 7;
    FAILS(PREFOPT_ERR_NUMERIC, "ranking 0 has no",
          prefopt_loss_plackett_luce(NULL, &c->in, &c->out));
    ck_assert(c->out.mean == 7 && c->grad[0] == 7);
    const int64_t first_alone = 1;
    c->in.n_ranked = &first_alone; /* no order is asked of the two */
    OK(prefopt_loss_plackett_luce(NULL, &c->in, &c->out));
    ck_assert(c->out.mean == 0);
    c->in.n_ranked = NULL;
    c->in.weight = c->weight;
    c->weight[0] = 0;
    OK(prefopt_loss_plackett_luce(NULL, &c->in, &c->out));
    ck_assert(c->out.mean == 0 && c->each[0] == 0 && c->grad[0] == 0 && c->grad[1] == 0);
    free(c);
    /* A huge ranking span: nothing overflows. */
    c = ranking_of(4, (double[]){-1e6, 0, 1e6, -700});
    OK(prefopt_loss_plackett_luce(NULL, &c->in, &c->out));
    CLOSE(c->out.mean, 2e6 + 1e6, 1e-15);
    CLOSE(c->grad[2], 2, 1e-15);
    free(c);
}
END_TEST

#define REFUSES_VALUE(place, value, code, text)                                                    \
    do {                                                                                           \
        __typeof__(place) kept_ = (place);                                                         \
        (place) = (value);                                                                         \
        c->out.mean = c->each[0] = c->grad[0] = 7;                                                 \
        FAILS(code, text, prefopt_loss_plackett_luce(&c->o, &c->in, &c->out));                     \
        ck_assert(c->out.mean == 7 && c->each[0] == 7 && c->grad[0] == 7);                         \
        (place) = kept_;                                                                           \
    } while (0)

START_TEST(refusals)
{
    cases *c = cases_new(10);
    c->in.weight = c->weight, c->in.n_ranked = c->n_ranked, c->in.ref_logp = c->ref_logp;
    REFUSES_VALUE(c->o.beta, 0, PREFOPT_ERR_ARGUMENT, "beta is 0");
    REFUSES_VALUE(c->o.reserved, 1, PREFOPT_ERR_ARGUMENT, "reserved is 1");
    REFUSES_VALUE(c->in.reserved, 1, PREFOPT_ERR_ARGUMENT, "reserved is 1");
    REFUSES_VALUE(c->o.struct_size, 8, PREFOPT_ERR_VERSION, "prefopt_pl_options");
    REFUSES_VALUE(c->in.struct_size, 8, PREFOPT_ERR_VERSION, "prefopt_ranking_scores");
    REFUSES_VALUE(c->out.struct_size, 8, PREFOPT_ERR_VERSION, "prefopt_ranking_loss");
    REFUSES_VALUE(c->in.n, -1, PREFOPT_ERR_ARGUMENT, "n is -1");
    REFUSES_VALUE(c->in.offsets, NULL, PREFOPT_ERR_ARGUMENT, "offsets is NULL");
    REFUSES_VALUE(c->in.score, NULL, PREFOPT_ERR_ARGUMENT, "score is NULL");
    REFUSES_VALUE(c->offsets[0], 1, PREFOPT_ERR_ARGUMENT, "offsets[0] is 1");
    REFUSES_VALUE(c->offsets[5], 2, PREFOPT_ERR_ARGUMENT, "offsets[5] is 2");
    REFUSES_VALUE(c->n_ranked[2], 3, PREFOPT_ERR_ARGUMENT, "n_ranked[2] is 3");
    REFUSES_VALUE(c->n_ranked[2], -1, PREFOPT_ERR_ARGUMENT, "n_ranked[2] is -1");
    REFUSES_VALUE(c->score[9], NAN, PREFOPT_ERR_NUMERIC, "score[9]");
    REFUSES_VALUE(c->ref_logp[9], INFINITY, PREFOPT_ERR_NUMERIC, "ref_logp[9] is inf");
    REFUSES_VALUE(c->weight[9], -2, PREFOPT_ERR_ARGUMENT, "weight[9] is -2");
    FAILS(PREFOPT_ERR_ARGUMENT, "in is NULL", prefopt_loss_plackett_luce(NULL, NULL, &c->out));
    FAILS(PREFOPT_ERR_ARGUMENT, "out is NULL", prefopt_loss_plackett_luce(NULL, &c->in, NULL));
    FAILS(PREFOPT_ERR_ARGUMENT, "NULL", prefopt_pl_options_init(NULL, sizeof c->o));
    OK(prefopt_loss_plackett_luce(&c->o, &c->in, &c->out));
    free(c);
}
END_TEST

TEST_MAIN("plackett_luce", values, orders_add_up_to_one, pairs_are_dpo, gradients, corners,
          refusals)
