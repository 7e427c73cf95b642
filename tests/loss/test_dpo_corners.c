/* The DPO family at its corners: infinite log-probabilities, weights of 0, no pairs, huge
 * differences. */
#include "pair_cases.h"

#define EVERY_VARIANT(v, divergence)                                                               \
    for (int v = 0; v < N_VARIANTS; v++)                                                           \
        for (int divergence = 0; divergence < (known[v].takes & DIVERGENCE ? 4 : 1); divergence++)

START_TEST(no_pairs_and_no_weight)
{
    EVERY_VARIANT(v, divergence)
    {
        cases *c = cases_new(0, 0);
        prefopt_dpo_options o = options_of(v, divergence);
        c->in.chosen = c->in.rejected = NULL;
        c->out.mean = 3;
        OK(prefopt_loss_dpo(&o, &c->in, &c->out));
        ck_assert(c->out.mean == 0);
        free(c);
        if (!(known[v].takes & EACH))
            continue;
        c = cases_new(9, known[v].takes);
        memset(c->weight, 0, sizeof c->weight);
        OK(prefopt_loss_dpo(&o, &c->in, &c->out));
        ck_assert(c->out.mean == 0);
        for (int i = 0; i < 9; i++)
            ck_assert(c->grad_chosen[i] == 0 && c->grad_rejected[i] == 0 && isfinite(c->each[i]));
        free(c);
    }
}
END_TEST

/* Pairs of weight 0 whose loss is infinite or has no value change nothing. */
START_TEST(weight_zero_hides_a_pair)
{
    static const double bad[][4] = {{-INFINITY, -1, -2, -3},         {-1, -INFINITY, -2, -3},
                                    {-1, -2, -INFINITY, -3},         {-1, -2, -3, -INFINITY},
                                    {-INFINITY, -1, -INFINITY, -1},  {-1, -INFINITY, -1, -INFINITY},
                                    {-INFINITY, -INFINITY, -1, -1},  {-1, -1, -INFINITY, -INFINITY},
                                    {-1e308, -1e308, -1e-300, -1e10}};
    enum { N_BAD = sizeof bad / sizeof bad[0] };
    EVERY_VARIANT(v, divergence)
    {
        if (!(known[v].takes & EACH))
            continue;
        cases *c = cases_new(20, known[v].takes), *with = cases_new(20 + N_BAD, known[v].takes);
        for (int i = 0; i < N_BAD; i++) {
            with->chosen[20 + i] = bad[i][0], with->rejected[20 + i] = bad[i][1];
            with->ref_chosen[20 + i] = bad[i][2], with->ref_rejected[20 + i] = bad[i][3];
            with->weight[20 + i] = 0;
        }
        prefopt_dpo_options o = options_of(v, divergence);
        OK(prefopt_loss_dpo(&o, &c->in, &c->out));
        OK(prefopt_loss_dpo(&o, &with->in, &with->out));
        CLOSE(c->out.mean, with->out.mean, 1e-15);
        for (int i = 0; i < 20 + N_BAD; i++) {
            double gc = i < 20 ? c->grad_chosen[i] : 0, gr = i < 20 ? c->grad_rejected[i] : 0;
            CLOSE(with->grad_chosen[i], gc, 1e-15);
            CLOSE(with->grad_rejected[i], gr, 1e-15);
            ck_assert(!isnan(with->each[i]));
        }
        free(c);
        free(with);
    }
}
END_TEST

/* Whatever mix of -inf the arrays hold, a call gives a number (or infinity) and finite gradients,
 * or names the pair. */
START_TEST(never_nan)
{
    int64_t refused = 0, infinite = 0, finite = 0;
    EVERY_VARIANT(v, divergence)
    {
        cases *c = cases_new(3, known[v].takes);
        prefopt_dpo_options o = options_of(v, divergence);
        for (int mask = 0; mask < 81 * 2; mask++) {
            static const double values[] = {-2, -INFINITY, -1e6};
            c->chosen[1] = values[mask % 3], c->rejected[1] = values[mask / 3 % 3];
            c->ref_chosen[1] = values[mask / 9 % 3], c->ref_rejected[1] = values[mask / 27 % 3];
            c->label[1] = mask < 81 ? 1 : 0.25;
            c->out.mean = -77;
            int32_t status = prefopt_loss_dpo(&o, &c->in, &c->out);
            if (status != PREFOPT_OK) {
                ck_assert_int_eq(status, PREFOPT_ERR_NUMERIC);
                ck_assert_msg(strstr(prefopt_last_error(), known[v].name) != NULL, "%s",
                              prefopt_last_error());
                ck_assert(c->out.mean == -77);
                refused++;
                continue;
            }
            ck_assert_msg(c->out.mean > -INFINITY, "%s divergence %d mask %d", known[v].name,
                          divergence, mask);
            for (int i = 0; i < 3; i++)
                ck_assert(c->each[i] > -INFINITY && isfinite(c->grad_chosen[i]) &&
                          isfinite(c->grad_rejected[i]));
            if (isinf(c->out.mean))
                infinite++;
            else
                finite++;
        }
        free(c);
    }
    ck_assert(refused > 100 && infinite > 100 && finite > 100);
}
END_TEST

static cases *one(double chosen, double rejected, double ref_chosen, double ref_rejected)
{
    cases *c = cases_new(1, REF);
    c->chosen[0] = chosen, c->rejected[0] = rejected;
    c->ref_chosen[0] = ref_chosen, c->ref_rejected[0] = ref_rejected;
    return c;
}

static void expect(int32_t variant, cases *c, double loss, double chosen, double rejected)
{
    prefopt_dpo_options o;
    OK(prefopt_dpo_options_init(&o, sizeof o));
    o.variant = variant;
    if (variant == PREFOPT_DPO_EXO)
        o.label_smoothing = 0.1;
    OK(prefopt_loss_dpo(&o, &c->in, &c->out));
    CLOSE(c->out.mean, loss, 1e-14);
    CLOSE(c->grad_chosen[0], chosen, 1e-14);
    CLOSE(c->grad_rejected[0], rejected, 1e-14);
    free(c);
}

START_TEST(infinite_log_ratios)
{
    const double inf = INFINITY;
    expect(PREFOPT_DPO_SIGMOID, one(-1, -2, -inf, -3), 0, 0, 0);
    expect(PREFOPT_DPO_SIGMOID, one(-inf, -2, -1, -3), inf, -0.1, 0.1);
    expect(PREFOPT_DPO_SIGMOID, one(-1, -2, -3, -inf), inf, -0.1, 0.1);
    expect(PREFOPT_DPO_SIGMOID, one(-1, -inf, -3, -3), 0, 0, 0);
    expect(PREFOPT_DPO_HINGE, one(-1, -2, -inf, -3), 0, 0, 0);
    expect(PREFOPT_DPO_HINGE, one(-inf, -2, -1, -3), inf, -0.1, 0.1);
    expect(PREFOPT_DPO_IPO_SUM, one(-1, -2, -inf, -3), inf, 0, 0);
    expect(PREFOPT_DPO_IPO_SUM, one(-inf, -2, -1, -3), inf, 0, 0);
    expect(PREFOPT_DPO_EXO, one(-inf, -2, -1, -3), -log(0.1), 0, 0);
    expect(PREFOPT_DPO_EXO, one(-1, -2, -inf, -3), -log(0.9), 0, 0);
    expect(PREFOPT_DPO_DISCOPOP, one(-1, -2, -inf, -3), 0, 0, 0);
    expect(PREFOPT_DPO_DISCOPOP, one(-inf, -2, -1, -3), inf, -0.1, 0.1);
    expect(PREFOPT_DPO_APO_ZERO, one(-inf, -2, -1, -inf), 2, 0, 0);
    expect(PREFOPT_DPO_DPOP, one(-inf, -2, -1, -3), inf, -0.6, 0.1);
    expect(PREFOPT_DPO_DPOP, one(-1, -2, -inf, -3), 0, 0, 0);
    /* Each log-ratio has a value though their difference has none, and BCO needs no difference. */
    expect(PREFOPT_DPO_BCO, one(-inf, -inf, -1, -1), inf, -0.1, 0);

    prefopt_dpo_options o;
    OK(prefopt_dpo_options_init(&o, sizeof o));
    cases *c = one(-INFINITY, -2, -INFINITY, -3);
    FAILS(PREFOPT_ERR_NUMERIC, "pair 0 has no DPO_SIGMOID loss: chosen -inf",
          prefopt_loss_dpo(&o, &c->in, &c->out));
    free(c);
    c = one(-INFINITY, -INFINITY, -1, -3);
    FAILS(PREFOPT_ERR_NUMERIC, "infinity minus infinity", prefopt_loss_dpo(&o, &c->in, &c->out));
    o.variant = PREFOPT_DPO_HINGE;
    FAILS(PREFOPT_ERR_NUMERIC, "DPO_HINGE", prefopt_loss_dpo(&o, &c->in, &c->out));
    /* Under the forward KL two log-ratios of +inf both score 0. */
    free(c);
    c = one(-1, -2, -INFINITY, -INFINITY);
    o.variant = PREFOPT_DPO_SIGMOID;
    o.divergence = PREFOPT_DIVERGENCE_FORWARD_KL;
    OK(prefopt_loss_dpo(&o, &c->in, &c->out));
    CLOSE(c->out.mean, log(2), 1e-15);
    free(c);
    c = one(-1, -2, -INFINITY, -3);
    OK(prefopt_dpo_options_init(&o, sizeof o));
    o.variant = PREFOPT_DPO_ROBUST;
    OK(prefopt_loss_dpo(&o, &c->in, &c->out));
    ck_assert(c->out.mean == 0);
    o.label_smoothing = 0.1;
    FAILS(PREFOPT_ERR_NUMERIC, "minus infinity", prefopt_loss_dpo(&o, &c->in, &c->out));
    free(c);
    const double sorted[] = {-1, -INFINITY}, other[] = {-INFINITY, -INFINITY};
    for (int v = PREFOPT_DPO_AOT; v <= PREFOPT_DPO_AOT_UNPAIRED; v++) {
        c = cases_new(2, REF);
        o = options_of(v, 0);
        memcpy(c->chosen, sorted, sizeof sorted);
        OK(prefopt_loss_dpo(&o, &c->in, &c->out));
        ck_assert(c->out.mean == INFINITY && isfinite(c->grad_chosen[1]));
        memcpy(v == PREFOPT_DPO_AOT ? c->rejected : c->ref_chosen, other, sizeof other);
        c->out.mean = -77;
        FAILS(PREFOPT_ERR_NUMERIC, "infinity minus infinity",
              prefopt_loss_dpo(&o, &c->in, &c->out));
        ck_assert(c->out.mean == -77);
        free(c);
    }
}
END_TEST

/* Where the true value is finite nothing overflows. */
START_TEST(huge_differences)
{
    for (double d = 700; d <= 1e6; d *= 10) {
        expect(PREFOPT_DPO_SIGMOID, one(-d, 0, 0, 0), 0.1 * d + log1p(exp(-0.1 * d)),
               -0.1 / (1 + exp(-0.1 * d)), 0.1 / (1 + exp(-0.1 * d)));
        expect(PREFOPT_DPO_SIGMOID, one(0, -d, 0, 0), log1p(exp(-0.1 * d)),
               -0.1 * exp(-0.1 * d) / (1 + exp(-0.1 * d)),
               0.1 * exp(-0.1 * d) / (1 + exp(-0.1 * d)));
        expect(PREFOPT_DPO_HINGE, one(-d, 0, 0, 0), 1 + 0.1 * d, -0.1, 0.1);
        expect(PREFOPT_DPO_IPO_SUM, one(-d, 0, 0, 0), (d + 5) * (d + 5), -2 * (d + 5), 2 * (d + 5));
        expect(PREFOPT_DPO_DISCOPOP, one(-10 * d, 0, 0, 0), d, -0.1, 0.1);
        expect(PREFOPT_DPO_EXO, one(-10 * d, 0, 0, 0), -log(0.1), 0, 0);
    }
    /* Both scores of the forward KL overflow, their difference does not. */
    cases *c = one(-710, -710 - 1e-12, 0, 0);
    prefopt_dpo_options o;
    OK(prefopt_dpo_options_init(&o, sizeof o));
    o.divergence = PREFOPT_DIVERGENCE_FORWARD_KL;
    o.variant = PREFOPT_DPO_HINGE;
    o.beta = 1e-300;
    c->chosen[0] = -710 - 1e-12, c->rejected[0] = -710;
    double gap = c->rejected[0] - c->chosen[0];
    OK(prefopt_loss_dpo(&o, &c->in, &c->out));
    CLOSE(c->out.mean, 1 + exp(710 - 690.77552789821370521 + log(expm1(gap))), 1e-9);
    free(c);
}
END_TEST

/* A completion of probability 1 has infinite odds. */
START_TEST(odds_of_certainty)
{
    double chosen[] = {0, -2, -1}, rejected[] = {-1, 0, -3};
    double each[3], grad_chosen[3], grad_rejected[3];
    int64_t len_chosen[] = {2, 1, 3}, len_rejected[] = {1, 2, 2};
    prefopt_pair_scores in = {.struct_size = sizeof in,
                              .n = 3,
                              .chosen = chosen,
                              .rejected = rejected,
                              .len_chosen = len_chosen,
                              .len_rejected = len_rejected};
    prefopt_pair_loss out = {.struct_size = sizeof out,
                             .each = each,
                             .grad_chosen = grad_chosen,
                             .grad_rejected = grad_rejected};
    prefopt_dpo_options o = options_of(PREFOPT_DPO_ORPO, 0);
    OK(prefopt_loss_dpo(&o, &in, &out));
    ck_assert(each[0] == 0 && each[1] == INFINITY && each[2] > 0 && isfinite(each[2]));
    ck_assert(out.mean == INFINITY);
    ck_assert(grad_chosen[0] == 0 && grad_rejected[0] == 0 && grad_rejected[1] == 0);
    ck_assert(isfinite(grad_chosen[1]) && grad_chosen[1] < 0 && grad_chosen[2] < 0);

    chosen[1] = 0;
    FAILS(PREFOPT_ERR_NUMERIC, "pair 1 has no DPO_ORPO loss", prefopt_loss_dpo(&o, &in, &out));
}
END_TEST

/* Where two terms nearly cancel the digits stay. Expected values from 50-digit arithmetic. */
START_TEST(digits_near_cancellation)
{
    double chosen[] = {-1, 0.25}, rejected[] = {-2.0625, 0.375}, each[2], grad[2];
    prefopt_pair_scores in = {
        .struct_size = sizeof in, .n = 2, .chosen = chosen, .rejected = rejected};
    prefopt_pair_loss out = {.struct_size = sizeof out, .each = each, .grad_chosen = grad};
    prefopt_dpo_options o = options_of(PREFOPT_DPO_APO_DOWN, 0);
    o.beta = 0.1;
    OK(prefopt_loss_dpo(&o, &in, &out));
    CLOSE(2 * grad[0] / 8.0281188579625427994e-6, 1, 4e-15);
    CLOSE(2 * grad[1] / -2.9293060657352803857e-6, 1, 4e-15);

    /* About EXO's minimum, where sigma(beta d) is 1 - eps. */
    chosen[0] = 4.375, chosen[1] = 4.390625, rejected[0] = rejected[1] = 0;
    o = options_of(PREFOPT_DPO_EXO, 0);
    o.beta = 0.5;
    o.label_smoothing = 0.1;
    OK(prefopt_loss_dpo(&o, &in, &out));
    CLOSE(each[0] / 4.2776505323695976812e-6, 1, 1e-12);
    CLOSE(each[1] / 1.6468963259056161352e-7, 1, 1e-12);
}
END_TEST

TEST_MAIN("dpo_corners", odds_of_certainty, digits_near_cancellation, no_pairs_and_no_weight,
          weight_zero_hides_a_pair, never_nan, infinite_log_ratios, huge_differences)
