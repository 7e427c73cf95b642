/* The DPO family at its corners: infinite log-probabilities, weights of 0, no pairs, huge
 * differences; and everything it refuses, with the outputs left as they were. */
#include "tests/loss/pair_cases.h"

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

/* ---- refusals */

static void refuses(const prefopt_dpo_options *o, const prefopt_pair_scores *in, int32_t code,
                    const char *text)
{
    double each[MOST], gc[MOST], gr[MOST];
    for (int i = 0; i < MOST; i++)
        each[i] = gc[i] = gr[i] = 42 + i;
    prefopt_pair_loss out = {sizeof out, 0, 42, each, gc, gr, 42};
    FAILS(code, text, prefopt_loss_dpo(o, in, &out));
    ck_assert(out.mean == 42 && out.grad_log_tie == 42 && out.struct_size == sizeof out);
    for (int i = 0; i < MOST; i++)
        ck_assert(each[i] == 42 + i && gc[i] == 42 + i && gr[i] == 42 + i);
}

START_TEST(unused_is_named)
{
    for (int v = 0; v < N_VARIANTS; v++) {
        cases *c = cases_new(5, known[v].takes);
        prefopt_dpo_options o = options_of(v, 0);
        const struct {
            const char *name;
            const void **array, *value;
            int takes;
        } arrays[] = {
            {"ref_chosen is set", (const void **)&c->in.ref_chosen, c->ref_chosen, REF},
            {"ref_rejected is set", (const void **)&c->in.ref_rejected, c->ref_rejected, REF},
            {"weight is set", (const void **)&c->in.weight, c->weight, EACH},
            {"label is set", (const void **)&c->in.label, c->label, EACH},
            {"margin is set", (const void **)&c->in.margin, c->margin, MARGIN},
            {"len_chosen is set", (const void **)&c->in.len_chosen, c->len_chosen, LENGTHS},
            {"len_rejected is set", (const void **)&c->in.len_rejected, c->len_rejected, LENGTHS},
        };
        for (size_t i = 0; i < sizeof arrays / sizeof arrays[0]; i++)
            if (!(known[v].takes & arrays[i].takes)) {
                *arrays[i].array = arrays[i].value;
                refuses(&o, &c->in, PREFOPT_ERR_ARGUMENT, arrays[i].name);
                ck_assert(strstr(prefopt_last_error(), known[v].name) != NULL);
                *arrays[i].array = NULL;
            }
        const struct {
            const char *name;
            double *value;
            int used;
        } fields[] = {
            {"beta is 0.7", &o.beta, v != PREFOPT_DPO_ORPO},
            {"label_smoothing is 0.7", &o.label_smoothing, known[v].takes & EPS},
            {"gamma is 0.7", &o.gamma, v == PREFOPT_DPO_SIMPO},
            {"delta is 0.7", &o.delta, v == PREFOPT_DPO_BCO},
            {"tau is 0.7", &o.tau, v == PREFOPT_DPO_DISCOPOP},
            {"lambda is 0.7", &o.lambda, v == PREFOPT_DPO_DPOP},
            {"alpha is 0.7", &o.alpha, 0}, /* the divergence is the reverse KL */
        };
        for (size_t i = 0; i < sizeof fields / sizeof fields[0]; i++)
            if (!fields[i].used) {
                double kept = *fields[i].value;
                *fields[i].value = 0.7;
                refuses(&o, &c->in, PREFOPT_ERR_ARGUMENT, fields[i].name);
                *fields[i].value = kept;
            }
        if (!(known[v].takes & DIVERGENCE)) {
            o.divergence = PREFOPT_DIVERGENCE_JENSEN_SHANNON;
            refuses(&o, &c->in, PREFOPT_ERR_ARGUMENT, "divergence is 2");
            o.divergence = 0;
        }
        OK(prefopt_loss_dpo(&o, &c->in, &c->out));
        if (known[v].takes & LENGTHS) {
            c->in.len_chosen = NULL;
            refuses(&o, &c->in, PREFOPT_ERR_ARGUMENT, "len_chosen is NULL");
            c->in.len_chosen = c->len_chosen;
            c->len_rejected[3] = 0;
            refuses(&o, &c->in, PREFOPT_ERR_ARGUMENT, "len_rejected[3] is 0");
        }
        free(c);
    }
}
END_TEST

START_TEST(options_out_of_range)
{
    static const struct {
        int32_t variant;
        size_t offset;
        double value;
        const char *text;
    } bad[] = {
        {PREFOPT_DPO_SIGMOID, offsetof(prefopt_dpo_options, beta), 0, "beta is 0"},
        {PREFOPT_DPO_SIGMOID, offsetof(prefopt_dpo_options, beta), -1, "beta is -1"},
        {PREFOPT_DPO_SIGMOID, offsetof(prefopt_dpo_options, beta), INFINITY, "beta is inf"},
        {PREFOPT_DPO_SIGMOID, offsetof(prefopt_dpo_options, beta), NAN, "beta is"},
        {PREFOPT_DPO_ORPO, offsetof(prefopt_dpo_options, beta), NAN, "beta is"},
        {PREFOPT_DPO_SIGMOID, offsetof(prefopt_dpo_options, label_smoothing), 1.01, "smoothing"},
        {PREFOPT_DPO_CPO, offsetof(prefopt_dpo_options, label_smoothing), -0.01, "smoothing"},
        {PREFOPT_DPO_AOT, offsetof(prefopt_dpo_options, label_smoothing), NAN, "smoothing"},
        {PREFOPT_DPO_ROBUST, offsetof(prefopt_dpo_options, label_smoothing), 0.5, "below 0.5"},
        {PREFOPT_DPO_EXO, offsetof(prefopt_dpo_options, label_smoothing), 0, "above 0"},
        {PREFOPT_DPO_EXO, offsetof(prefopt_dpo_options, label_smoothing), 1, "below 1"},
        {PREFOPT_DPO_SIMPO, offsetof(prefopt_dpo_options, gamma), INFINITY, "gamma is inf"},
        {PREFOPT_DPO_BCO, offsetof(prefopt_dpo_options, delta), NAN, "delta is"},
        {PREFOPT_DPO_DISCOPOP, offsetof(prefopt_dpo_options, tau), 0, "tau is 0"},
        {PREFOPT_DPO_DPOP, offsetof(prefopt_dpo_options, lambda), -1, "lambda is -1"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        cases *c = cases_new(2, known[bad[i].variant].takes);
        prefopt_dpo_options o = options_of(bad[i].variant, 0);
        memcpy((char *)&o + bad[i].offset, &bad[i].value, sizeof(double));
        refuses(&o, &c->in, PREFOPT_ERR_ARGUMENT, bad[i].text);
        free(c);
    }
    cases *c = cases_new(2, REF);
    prefopt_dpo_options o = options_of(0, 0);
    for (int v = -1; v <= 19; v += 20) {
        o.variant = v;
        refuses(&o, &c->in, PREFOPT_ERR_ARGUMENT, v < 0 ? "variant is -1" : "variant is 19");
    }
    o.variant = 0;
    o.divergence = 4;
    refuses(&o, &c->in, PREFOPT_ERR_ARGUMENT, "divergence is 4");
    o.divergence = PREFOPT_DIVERGENCE_ALPHA;
    o.alpha = 1;
    refuses(&o, &c->in, PREFOPT_ERR_ARGUMENT, "alpha is 1");
    o = options_of(0, 0);
    o.reserved = 1;
    refuses(&o, &c->in, PREFOPT_ERR_ARGUMENT, "reserved is 1");
    o.reserved = 0;
    o.struct_size = 12;
    refuses(&o, &c->in, PREFOPT_ERR_VERSION, "struct_size is 12");
    FAILS(PREFOPT_ERR_ARGUMENT, "NULL", prefopt_dpo_options_init(NULL, sizeof o));
    FAILS(PREFOPT_ERR_VERSION, "struct_size is 8", prefopt_dpo_options_init(&o, 8));
    free(c);
}
END_TEST

START_TEST(values_out_of_range)
{
    cases *c = cases_new(300, known[0].takes);
    prefopt_dpo_options o = options_of(0, 0);
    struct {
        double *array;
        double value;
        int32_t code;
        const char *text;
    } bad[] = {
        {c->chosen, NAN, PREFOPT_ERR_NUMERIC, "chosen[290] is"},
        {c->chosen, INFINITY, PREFOPT_ERR_NUMERIC, "chosen[290] is inf"},
        {c->rejected, NAN, PREFOPT_ERR_NUMERIC, "rejected[290] is"},
        {c->ref_chosen, NAN, PREFOPT_ERR_NUMERIC, "ref_chosen[290] is"},
        {c->ref_rejected, INFINITY, PREFOPT_ERR_NUMERIC, "ref_rejected[290] is inf"},
        {c->margin, -INFINITY, PREFOPT_ERR_NUMERIC, "margin[290] is -inf"},
        {c->margin, NAN, PREFOPT_ERR_NUMERIC, "margin[290] is"},
        {c->weight, -0.5, PREFOPT_ERR_ARGUMENT, "weight[290] is -0.5"},
        {c->weight, NAN, PREFOPT_ERR_NUMERIC, "weight[290] is"},
        {c->weight, INFINITY, PREFOPT_ERR_NUMERIC, "weight[290] is inf"},
        {c->label, 1.5, PREFOPT_ERR_ARGUMENT, "label[290] is 1.5"},
        {c->label, -1e-9, PREFOPT_ERR_ARGUMENT, "label[290] is -1e-09"},
        {c->label, NAN, PREFOPT_ERR_NUMERIC, "label[290] is"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        double kept = bad[i].array[290];
        bad[i].array[290] = bad[i].value;
        refuses(&o, &c->in, bad[i].code, bad[i].text);
        bad[i].array[290] = kept;
    }
    c->weight[3] = c->weight[4] = 1.7e308;
    refuses(&o, &c->in, PREFOPT_ERR_NUMERIC, "weight: the sum");
    c->in.ref_rejected = NULL;
    refuses(&o, &c->in, PREFOPT_ERR_ARGUMENT, "ref_rejected is NULL but ref_chosen is not");
    c->in.ref_rejected = c->ref_rejected;
    c->in.chosen = NULL;
    refuses(&o, &c->in, PREFOPT_ERR_ARGUMENT, "chosen is NULL");
    c->in.chosen = c->chosen;
    c->in.rejected = NULL;
    refuses(&o, &c->in, PREFOPT_ERR_ARGUMENT, "rejected is NULL");
    c->in.rejected = c->rejected;
    c->in.n = -1;
    refuses(&o, &c->in, PREFOPT_ERR_ARGUMENT, "n is -1");
    c->in.n = 300;
    c->in.struct_size = 16;
    refuses(&o, &c->in, PREFOPT_ERR_VERSION, "prefopt_pair_scores");
    FAILS(PREFOPT_ERR_ARGUMENT, "in is NULL", prefopt_loss_dpo(&o, NULL, &c->out));
    FAILS(PREFOPT_ERR_ARGUMENT, "out is NULL", prefopt_loss_dpo(&o, &c->in, NULL));
    free(c);

    c = cases_new(4, known[PREFOPT_DPO_ORPO].takes);
    o = options_of(PREFOPT_DPO_ORPO, 0);
    c->rejected[2] = 1e-9;
    refuses(&o, &c->in, PREFOPT_ERR_ARGUMENT, "rejected[2] is 1e-09");
    c->chosen[1] = 0.5;
    refuses(&o, &c->in, PREFOPT_ERR_ARGUMENT, "chosen[1] is 0.5");
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

/* A program built against a later, larger out struct: what is asked for beyond our size is not
 * silently left out. */
START_TEST(later_layouts_of_the_out_structs)
{
    double one = -1, two = -2, reserve;
    int32_t yes = 1;
    int64_t offsets[] = {0, 1};
    struct {
        prefopt_pair_loss out;
        double *later;
    } pair = {.out = {.struct_size = sizeof pair, .mean = 7}};
    struct {
        prefopt_kto_loss out;
        double *later;
    } kto = {.out = {.struct_size = sizeof kto, .mean = 7}};
    struct {
        prefopt_ranking_loss out;
        double *later;
    } ranking = {.out = {.struct_size = sizeof ranking, .mean = 7}};
    prefopt_pair_scores pairs = {
        .struct_size = sizeof pairs, .n = 1, .chosen = &one, .rejected = &two};
    prefopt_kto_scores singles = {
        .struct_size = sizeof singles, .n = 1, .logp = &one, .desirable = &yes};
    prefopt_ranking_scores rankings = {
        .struct_size = sizeof rankings, .n = 1, .offsets = offsets, .score = &one};

    pair.later = kto.later = ranking.later = &reserve;
    FAILS(PREFOPT_ERR_VERSION, "prefopt_pair_loss", prefopt_loss_dpo(NULL, &pairs, &pair.out));
    FAILS(PREFOPT_ERR_VERSION, "prefopt_pair_loss",
          prefopt_loss_bradley_terry(NULL, &pairs, &pair.out));
    FAILS(PREFOPT_ERR_VERSION, "prefopt_kto_loss", prefopt_loss_kto(NULL, &singles, &kto.out));
    FAILS(PREFOPT_ERR_VERSION, "prefopt_ranking_loss",
          prefopt_loss_plackett_luce(NULL, &rankings, &ranking.out));
    ck_assert(pair.out.mean == 7 && kto.out.mean == 7 && ranking.out.mean == 7);

    pair.later = kto.later = ranking.later = NULL;
    OK(prefopt_loss_dpo(NULL, &pairs, &pair.out));
    OK(prefopt_loss_kto(NULL, &singles, &kto.out));
    OK(prefopt_loss_plackett_luce(NULL, &rankings, &ranking.out));
    ck_assert(pair.out.mean != 7 && kto.out.mean != 7 && ranking.out.mean == 0);
    ck_assert_int_eq(pair.out.struct_size, sizeof pair);
}
END_TEST

/* A program built against the struct without grad_log_tie. */
START_TEST(the_first_layout_of_the_out_struct)
{
    cases *c = cases_new(3, REF);
    c->out.struct_size = offsetof(prefopt_pair_loss, grad_log_tie);
    c->out.grad_log_tie = 5;
    OK(prefopt_loss_dpo(NULL, &c->in, &c->out));
    ck_assert(c->out.grad_log_tie == 5 && c->out.mean > 0);
    ck_assert_int_eq(c->out.struct_size, offsetof(prefopt_pair_loss, grad_log_tie));
    c->out.struct_size -= 8;
    FAILS(PREFOPT_ERR_VERSION, "prefopt_pair_loss", prefopt_loss_dpo(NULL, &c->in, &c->out));
    ck_assert_int_eq(prefopt_sizeof("prefopt_pair_loss"), sizeof(prefopt_pair_loss));
    ck_assert_int_eq(prefopt_sizeof("prefopt_dpo_options"), 72);
    ck_assert_int_eq(prefopt_offsetof("prefopt_dpo_options", "alpha"), 64);
    ck_assert_int_eq(prefopt_offsetof("prefopt_pair_scores", "len_rejected"), 80);
    free(c);
}
END_TEST

TEST_MAIN("dpo_corners", later_layouts_of_the_out_structs, odds_of_certainty,
          digits_near_cancellation, no_pairs_and_no_weight, weight_zero_hides_a_pair, never_nan,
          infinite_log_ratios, huge_differences, unused_is_named, options_out_of_range,
          values_out_of_range, the_first_layout_of_the_out_struct)
