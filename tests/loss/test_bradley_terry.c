/* Bradley-Terry: values, ties under Davidson and Rao-Kupper, gradients (also of the tie parameter)
 * against central differences, corners and refusals. */
#include "pair_cases.h"

static prefopt_bt_options bt(int32_t tie_model, double log_tie, double centre)
{
    prefopt_bt_options o;
    OK(prefopt_bt_options_init(&o, sizeof o));
    ck_assert(o.tie_model == PREFOPT_TIE_NONE && o.log_tie == 0 && o.centre == 0);
    o.tie_model = tie_model;
    o.log_tie = log_tie;
    o.centre = centre;
    return o;
}

/* One pair of rewards 2 and 0.75 with that label. */
static double loss_of(const prefopt_bt_options *o, double label)
{
    cases *c = cases_new(1, 0);
    c->chosen[0] = 2, c->rejected[0] = 0.75, c->label[0] = label;
    c->in.label = c->label;
    OK(prefopt_loss_bradley_terry(o, &c->in, &c->out));
    ck_assert(c->each[0] == c->out.mean);
    double mean = c->out.mean;
    free(c);
    return mean;
}

START_TEST(typed_in_values)
{
    CLOSE(loss_of(NULL, 1), 0.25192908134537288895, 2e-15);
    CLOSE(loss_of(NULL, 0), 1.50192908134537288895, 2e-15);
    CLOSE(loss_of(NULL, 0.5), 0.87692908134537288895, 2e-15);
    prefopt_bt_options o = bt(PREFOPT_TIE_DAVIDSON, -0.5, 0);
    CLOSE(loss_of(&o, 1), 0.47695271843633391371, 2e-15);
    CLOSE(loss_of(&o, 0), 1.7269527184363339137, 2e-15);
    CLOSE(loss_of(&o, 0.5), 1.6019527184363339137, 2e-15);
    o = bt(PREFOPT_TIE_RAO_KUPPER, 0.5, 0);
    CLOSE(loss_of(&o, 1), 0.38687100611489994367, 2e-15);
    CLOSE(loss_of(&o, 0), 1.9102241504380872269, 2e-15);
    CLOSE(loss_of(&o, 0.5), 1.7557703019400690616, 2e-15);
    /* centre 0.1: 0.1 * 2.75^2 more */
    o = bt(PREFOPT_TIE_NONE, 0, 0.1);
    CLOSE(loss_of(&o, 1), 0.25192908134537288895 + 0.75625, 2e-15);
    /* Rao-Kupper without ties is Bradley-Terry, and so is Davidson with a tiny nu. */
    o = bt(PREFOPT_TIE_RAO_KUPPER, 0, 0);
    CLOSE(loss_of(&o, 1), 0.25192908134537288895, 2e-15);
    ck_assert(loss_of(&o, 0.5) == INFINITY);
    o = bt(PREFOPT_TIE_DAVIDSON, -800, 0);
    CLOSE(loss_of(&o, 0), 1.50192908134537288895, 2e-15);
    CLOSE(loss_of(&o, 0.5), 800 + 0.87692908134537288895, 2e-15);
}
END_TEST

START_TEST(outcomes_add_up_to_one)
{
    for (double d = -750; d <= 750; d += 12.5)
        for (double log_tie = 0; log_tie <= 30; log_tie += 5)
            for (int model = PREFOPT_TIE_DAVIDSON; model <= PREFOPT_TIE_RAO_KUPPER; model++) {
                prefopt_bt_options o = bt(model, log_tie, 0);
                cases *c = cases_new(3, 0);
                for (int i = 0; i < 3; i++)
                    c->chosen[i] = d, c->rejected[i] = 0, c->label[i] = 0.5 * i;
                c->in.label = c->label;
                OK(prefopt_loss_bradley_terry(&o, &c->in, &c->out));
                CLOSE(exp(-c->each[0]) + exp(-c->each[1]) + exp(-c->each[2]), 1, 1e-13);
                free(c);
            }
}
END_TEST

/* label l is l of a win and 1 - l of a loss; a margin is subtracted on either side. */
START_TEST(labels_and_margins)
{
    cases *c = cases_new(MOST, MARGIN | EACH);
    OK(prefopt_loss_bradley_terry(NULL, &c->in, &c->out));
    long double sum = 0, weights = 0;
    for (int i = 0; i < MOST; i++) {
        long double d = (long double)c->chosen[i] - c->rejected[i], m = c->margin[i];
        long double loss = c->label[i] * log1pl(expl(m - d)) +
                           (1 - (long double)c->label[i]) * log1pl(expl(m + d));
        CLOSE(c->each[i], (double)loss, 1e-14);
        sum += c->weight[i] * loss;
        weights += c->weight[i];
        if (c->weight[i] == 0)
            ck_assert(c->grad_chosen[i] == 0 && c->grad_rejected[i] == 0);
        ck_assert(c->grad_rejected[i] == -c->grad_chosen[i]);
    }
    CLOSE(c->out.mean, (double)(sum / weights), 1e-14);
    ck_assert(c->out.grad_log_tie == 0);
    free(c);
}
END_TEST

static double mean_of(const prefopt_bt_options *o, const cases *c)
{
    prefopt_pair_loss out = {.struct_size = sizeof out};
    OK(prefopt_loss_bradley_terry(o, &c->in, &out));
    return out.mean;
}

static void check_gradients(prefopt_bt_options o, cases *c)
{
    const double h = 1e-5;
    OK(prefopt_loss_bradley_terry(&o, &c->in, &c->out));
    for (int64_t i = 0; i < 2 * c->in.n; i++) {
        double *x = i % 2 ? &c->rejected[i / 2] : &c->chosen[i / 2], kept = *x;
        *x = kept + h;
        double high = mean_of(&o, c), up = *x;
        *x = kept - h;
        double low = mean_of(&o, c), down = *x;
        *x = kept;
        CLOSE((i % 2 ? c->grad_rejected : c->grad_chosen)[i / 2], (high - low) / (up - down), 1e-7);
    }
    if (o.tie_model != PREFOPT_TIE_NONE) {
        double kept = o.log_tie;
        o.log_tie = kept + h;
        double high = mean_of(&o, c);
        o.log_tie = kept - h;
        CLOSE(c->out.grad_log_tie, (high - mean_of(&o, c)) / (2 * h), 1e-7);
    }
}

START_TEST(gradients)
{
    static const struct {
        int32_t model;
        double log_tie;
    } models[] = {{PREFOPT_TIE_NONE, 0},         {PREFOPT_TIE_DAVIDSON, 0},
                  {PREFOPT_TIE_DAVIDSON, -3},    {PREFOPT_TIE_DAVIDSON, 2.5},
                  {PREFOPT_TIE_RAO_KUPPER, 0.1}, {PREFOPT_TIE_RAO_KUPPER, 1.5},
                  {PREFOPT_TIE_RAO_KUPPER, 20}};
    for (size_t k = 0; k < sizeof models / sizeof models[0]; k++)
        for (int kind = 0; kind < 3; kind++) {
            int ties = models[k].model != PREFOPT_TIE_NONE;
            cases *c = cases_new(21, ties ? EACH : EACH | MARGIN);
            for (int i = 0; i < 21; i++) {
                if (ties)
                    c->label[i] = 0.5 * (i % 3);
                if (kind == 1)
                    c->rejected[i] = c->chosen[i];
                if (kind == 2)
                    c->chosen[i] = c->rejected[i] + (i % 2 ? 700 : -700);
            }
            check_gradients(bt(models[k].model, models[k].log_tie, 0), c);
            if (kind < 2)
                check_gradients(bt(models[k].model, models[k].log_tie, 0.05), c);
            c->in.weight = NULL;
            c->in.label = NULL;
            check_gradients(bt(models[k].model, models[k].log_tie, 0), c);
            free(c);
        }
}
END_TEST

/* A tie's gradient at nearly equal rewards keeps its digits. Expected values from 50-digit
 * arithmetic. */
START_TEST(ties_of_near_equals)
{
    const struct {
        int32_t model;
        double log_tie, d, grad;
    } at[] = {
        {PREFOPT_TIE_DAVIDSON, 0.5, 0x1p-20, 1.3068610146579279195e-7},
        {PREFOPT_TIE_DAVIDSON, -3, -0x1p-10, -0.00023821070009846845666},
        {PREFOPT_TIE_DAVIDSON, 3, -0x1p-30, -2.1084444943642739968e-11},
        {PREFOPT_TIE_RAO_KUPPER, 0.5, 0x1p-20, 4.4823400917354561439e-7},
        {PREFOPT_TIE_RAO_KUPPER, 3, -0x1p-30, -8.4148086106240996447e-11},
    };
    for (size_t i = 0; i < sizeof at / sizeof at[0]; i++) {
        double zero = 0, tie = 0.5, grad_chosen, grad_rejected;
        prefopt_bt_options o = bt(at[i].model, at[i].log_tie, 0);
        prefopt_pair_scores in = {
            .struct_size = sizeof in, .n = 1, .chosen = &at[i].d, .rejected = &zero, .label = &tie};
        prefopt_pair_loss out = {.struct_size = sizeof out,
                                 .grad_chosen = &grad_chosen,
                                 .grad_rejected = &grad_rejected};
        OK(prefopt_loss_bradley_terry(&o, &in, &out));
        CLOSE(grad_chosen / at[i].grad, 1, 4e-15);
        CLOSE(grad_rejected / at[i].grad, -1, 4e-15);
    }
}
END_TEST

START_TEST(corners)
{
    for (int model = 0; model <= PREFOPT_TIE_RAO_KUPPER; model++) {
        prefopt_bt_options o = bt(model, model == PREFOPT_TIE_NONE ? 0 : 0.5, 0);
        cases *c = cases_new(0, 0);
        c->in.chosen = c->in.rejected = NULL;
        c->out.mean = c->out.grad_log_tie = 7;
        OK(prefopt_loss_bradley_terry(&o, &c->in, &c->out));
        ck_assert(c->out.mean == 0 && c->out.grad_log_tie == 0);
        free(c);

        /* A reward of -inf always loses; two of them have no comparison. */
        c = cases_new(4, EACH);
        for (int i = 0; i < 4; i++)
            c->weight[i] = 1, c->label[i] = 1;
        c->rejected[1] = -INFINITY;
        c->weight[2] = 0;
        c->chosen[2] = c->rejected[2] = -INFINITY;
        OK(prefopt_loss_bradley_terry(&o, &c->in, &c->out));
        ck_assert(isfinite(c->out.mean) && isfinite(c->out.grad_log_tie));
        ck_assert(c->each[1] == 0 && c->grad_chosen[1] == 0 && c->each[2] == 0);
        c->label[1] = 0;
        OK(prefopt_loss_bradley_terry(&o, &c->in, &c->out));
        ck_assert(c->out.mean == INFINITY && isfinite(c->out.grad_log_tie));
        CLOSE(c->grad_chosen[1], 1.0 / 3, 1e-15);
        c->label[1] = 0.5;
        OK(prefopt_loss_bradley_terry(&o, &c->in, &c->out));
        ck_assert(c->out.mean == INFINITY && isfinite(c->out.grad_log_tie));
        CLOSE(c->grad_chosen[1], 0.5 * (model == PREFOPT_TIE_RAO_KUPPER ? 2 : 1) / 3, 1e-15);
        c->weight[2] = 1;
        c->out.mean = c->each[0] = 7;
        FAILS(PREFOPT_ERR_NUMERIC, "pair 2 has no",
              prefopt_loss_bradley_terry(&o, &c->in, &c->out));
        ck_assert(c->out.mean == 7 && c->each[0] == 7);
        memset(c->weight, 0, sizeof c->weight);
        OK(prefopt_loss_bradley_terry(&o, &c->in, &c->out));
        ck_assert(c->out.mean == 0 && c->grad_chosen[1] == 0 && c->out.grad_log_tie == 0);
        free(c);
    }
}
END_TEST

#define REFUSES(code, text)                                                                        \
    do {                                                                                           \
        c->out.mean = c->each[0] = c->grad_chosen[0] = c->grad_rejected[0] = 7;                    \
        c->out.grad_log_tie = 7;                                                                   \
        FAILS(code, text, prefopt_loss_bradley_terry(&o, &c->in, &c->out));                        \
        ck_assert(c->out.mean == 7 && c->each[0] == 7 && c->grad_chosen[0] == 7);                  \
        ck_assert(c->grad_rejected[0] == 7 && c->out.grad_log_tie == 7);                           \
    } while (0)

START_TEST(refusals)
{
    cases *c = cases_new(3, 0);
    prefopt_bt_options o = bt(0, 0, 0);
    c->in.ref_chosen = c->in.ref_rejected = c->ref_chosen;
    REFUSES(PREFOPT_ERR_ARGUMENT, "ref_chosen is set, but Bradley-Terry does not use it");
    c->in.ref_chosen = c->in.ref_rejected = NULL;
    c->in.len_chosen = c->len_chosen;
    REFUSES(PREFOPT_ERR_ARGUMENT, "len_chosen is set");
    c->in.len_chosen = NULL;
    c->in.len_rejected = c->len_chosen;
    REFUSES(PREFOPT_ERR_ARGUMENT, "len_rejected is set");
    c->in.len_rejected = NULL;
    o = bt(PREFOPT_TIE_NONE, 0.5, 0);
    REFUSES(PREFOPT_ERR_ARGUMENT, "log_tie is 0.5, but TIE_NONE does not use it");
    o = bt(PREFOPT_TIE_DAVIDSON, INFINITY, 0);
    REFUSES(PREFOPT_ERR_ARGUMENT, "log_tie is inf");
    o = bt(PREFOPT_TIE_RAO_KUPPER, -0.5, 0);
    REFUSES(PREFOPT_ERR_ARGUMENT, "log_tie is -0.5");
    o = bt(3, 0, 0);
    REFUSES(PREFOPT_ERR_ARGUMENT, "tie_model is 3");
    o = bt(-1, 0, 0);
    REFUSES(PREFOPT_ERR_ARGUMENT, "tie_model is -1");
    o = bt(0, 0, -0.1);
    REFUSES(PREFOPT_ERR_ARGUMENT, "centre is -0.1");
    o = bt(0, 0, NAN);
    REFUSES(PREFOPT_ERR_ARGUMENT, "centre is");
    o = bt(0, 0, 0.1);
    c->rejected[1] = -INFINITY;
    REFUSES(PREFOPT_ERR_NUMERIC, "rejected[1] is -inf, expected a finite reward");
    c->rejected[1] = NAN;
    REFUSES(PREFOPT_ERR_NUMERIC, "rejected[1] is");
    c->rejected[1] = 0;
    o = bt(PREFOPT_TIE_DAVIDSON, 0, 0);
    c->in.margin = c->margin;
    REFUSES(PREFOPT_ERR_ARGUMENT, "margin is set, but TIE_DAVIDSON does not use it");
    c->in.margin = NULL;
    c->in.label = c->label;
    c->label[0] = 0.5, c->label[1] = 0.4, c->label[2] = 0;
    REFUSES(PREFOPT_ERR_ARGUMENT, "label[1] is 0.4");
    c->label[1] = -1;
    REFUSES(PREFOPT_ERR_ARGUMENT, "label[1] is -1");
    c->label[1] = 1;
    c->in.weight = c->weight;
    c->weight[2] = -1;
    REFUSES(PREFOPT_ERR_ARGUMENT, "weight[2] is -1");
    c->in.weight = NULL;
    o.struct_size = 8;
    REFUSES(PREFOPT_ERR_VERSION, "prefopt_bt_options");
    o = bt(0, 0, 0);
    FAILS(PREFOPT_ERR_ARGUMENT, "in is NULL", prefopt_loss_bradley_terry(&o, NULL, &c->out));
    FAILS(PREFOPT_ERR_ARGUMENT, "out is NULL", prefopt_loss_bradley_terry(&o, &c->in, NULL));
    FAILS(PREFOPT_ERR_ARGUMENT, "NULL", prefopt_bt_options_init(NULL, sizeof o));
    free(c);
}
END_TEST

TEST_MAIN("bradley_terry", ties_of_near_equals, typed_in_values, outcomes_add_up_to_one,
          labels_and_margins, gradients, corners, refusals)
