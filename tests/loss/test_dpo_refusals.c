/* Everything the DPO family refuses, with the outputs left as they were; older and later layouts of
 * its structs. */
#include "pair_cases.h"

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

TEST_MAIN("dpo_refusals", unused_is_named, options_out_of_range, values_out_of_range,
          later_layouts_of_the_out_structs, the_first_layout_of_the_out_struct)
