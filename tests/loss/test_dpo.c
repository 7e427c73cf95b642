/* The DPO family: every variant against typed-in values, against the table's formula in long
 * double, and its gradients against central differences. */
#include "pair_cases.h"

/* One pair: chosen -12.5, rejected -14, references -13 and -12.75, lengths 5 and 7, defaults (EXO
 * and ROBUST: eps 0.1). Computed with 30 digits. */
START_TEST(typed_in_values)
{
    static const double expected[N_VARIANTS] = {
        [PREFOPT_DPO_SIGMOID] = 0.60947043066304682175,
        [PREFOPT_DPO_HINGE] = 0.825,
        [PREFOPT_DPO_IPO] = 22.291887755102040816,
        [PREFOPT_DPO_IPO_SUM] = 10.5625,
        [PREFOPT_DPO_ROBUST] = 0.58759543066304682175,
        [PREFOPT_DPO_EXO] = 0.41875514780937989307,
        [PREFOPT_DPO_NCA] = 1.3439889896785139743,
        [PREFOPT_DPO_BCO] = 1.3010586833304553604,
        [PREFOPT_DPO_SPPO] = 34.3125,
        [PREFOPT_DPO_AOT] = 0.60947043066304682175,
        [PREFOPT_DPO_AOT_UNPAIRED] = 0.60947043066304682175,
        [PREFOPT_DPO_APO_ZERO] = 0.95629323014203339909,
        [PREFOPT_DPO_APO_DOWN] = 0.96885870924713147925,
        [PREFOPT_DPO_DISCOPOP] = 0.83271560077029797865,
        [PREFOPT_DPO_SIGMOID_NORM] = 0.67931560854605824374,
        [PREFOPT_DPO_SIMPO] = 1.0054924814633376379,
        [PREFOPT_DPO_CPO] = 0.62095704778953207751,
        [PREFOPT_DPO_ORPO] = 1.0116945781249795227,
        [PREFOPT_DPO_DPOP] = 0.60947043066304682175,
    };
    for (int v = 0; v < N_VARIANTS; v++) {
        cases *c = cases_new(1, known[v].takes & (REF | LENGTHS));
        c->chosen[0] = -12.5, c->rejected[0] = -14;
        c->ref_chosen[0] = -13, c->ref_rejected[0] = -12.75;
        c->len_chosen[0] = 5, c->len_rejected[0] = 7;
        prefopt_dpo_options o;
        OK(prefopt_dpo_options_init(&o, sizeof o));
        o.variant = v;
        if (v == PREFOPT_DPO_ROBUST || v == PREFOPT_DPO_EXO)
            o.label_smoothing = 0.1;
        OK(prefopt_loss_dpo(&o, &c->in, &c->out));
        CLOSE(c->out.mean, expected[v], 4e-15);
        CLOSE(c->each[0], expected[v], 4e-15);
        if (v == PREFOPT_DPO_SIGMOID) {
            OK(prefopt_loss_dpo(NULL, &c->in, &c->out));
            CLOSE(c->out.mean, expected[v], 4e-15);
            o.label_smoothing = 0.1;
            OK(prefopt_loss_dpo(&o, &c->in, &c->out));
            CLOSE(c->out.mean, 0.62697043066304682175, 4e-15);
            const double by_divergence[] = {0.60947043066304682175, 0.55931620893628258832,
                                            0.64307459469980675362, 0.59012541483755403977};
            o.label_smoothing = 0;
            for (o.divergence = 0; o.divergence < 4; o.divergence++) {
                OK(prefopt_loss_dpo(&o, &c->in, &c->out));
                CLOSE(c->out.mean, by_divergence[o.divergence], 4e-15);
            }
        }
        if (v == PREFOPT_DPO_DPOP) { /* exchanged, rejected's log-ratio -1.25 is penalised */
            c->in.label = c->label, c->in.margin = c->margin;
            c->label[0] = 0.25, c->margin[0] = 0.5;
            OK(prefopt_loss_dpo(&o, &c->in, &c->out));
            CLOSE(c->out.mean, 1.0625485601609391491, 4e-15);
        }
        free(c);
    }
}
END_TEST

/* ---- the table in long double, the way it reads */

static long double sigma(long double x) { return 1 / (1 + expl(-x)); }
static long double minus_log_sigma(long double x) { return logl(1 + expl(-x)); }

static long double score(const prefopt_dpo_options *o, long double u)
{
    switch (o->divergence) {
    case PREFOPT_DIVERGENCE_FORWARD_KL:
        return -expl(-u);
    case PREFOPT_DIVERGENCE_JENSEN_SHANNON:
        return -minus_log_sigma(u);
    case PREFOPT_DIVERGENCE_ALPHA:
        return expl((o->alpha - 1) * u) / (o->alpha - 1);
    default:
        return u;
    }
}

typedef struct {
    long double chosen, rejected, ref_chosen, ref_rejected, n_plus, n_minus, margin;
} one_pair;

static long double smoothed(const prefopt_dpo_options *o, long double z)
{
    return (1 - o->label_smoothing) * minus_log_sigma(z) + o->label_smoothing * minus_log_sigma(-z);
}

static long double log_odds(long double x) { return x - logl(1 - expl(x)); }

static long double table(const prefopt_dpo_options *o, one_pair p)
{
    long double a = p.chosen - p.ref_chosen, b = p.rejected - p.ref_rejected;
    long double beta = o->beta, eps = o->label_smoothing;
    long double d = score(o, a) - score(o, b) - p.margin;
    long double per_token = a / p.n_plus - b / p.n_minus - p.margin, z = beta * d, m;
    switch (o->variant) {
    case PREFOPT_DPO_HINGE:
        return fmaxl(0, 1 - z);
    case PREFOPT_DPO_IPO:
        return powl(per_token - 1 / (2 * beta), 2);
    case PREFOPT_DPO_IPO_SUM:
        return powl(d - 1 / (2 * beta), 2);
    case PREFOPT_DPO_ROBUST:
        return ((1 - eps) * minus_log_sigma(z) - eps * minus_log_sigma(-z)) / (1 - 2 * eps);
    case PREFOPT_DPO_EXO:
        return sigma(z) * (-minus_log_sigma(z) - logl(1 - eps)) +
               sigma(-z) * (-minus_log_sigma(-z) - logl(eps));
    case PREFOPT_DPO_NCA:
        return minus_log_sigma(beta * a) + minus_log_sigma(-beta * a) / 2 +
               minus_log_sigma(-beta * b) / 2;
    case PREFOPT_DPO_BCO:
        return minus_log_sigma(beta * a - o->delta) + minus_log_sigma(-(beta * b - o->delta));
    case PREFOPT_DPO_SPPO:
        return powl(a - 1 / (2 * beta), 2) + powl(b + 1 / (2 * beta), 2);
    case PREFOPT_DPO_APO_ZERO:
        return 1 - sigma(beta * a) + sigma(beta * b);
    case PREFOPT_DPO_APO_DOWN:
        return sigma(beta * a) + 1 - sigma(z);
    case PREFOPT_DPO_DISCOPOP:
        m = sigma(z / o->tau);
        return (1 - m) * minus_log_sigma(z) + m * expl(-z);
    case PREFOPT_DPO_SIGMOID_NORM:
        return smoothed(o, beta * per_token);
    case PREFOPT_DPO_SIMPO:
        return smoothed(o, beta * per_token - o->gamma);
    case PREFOPT_DPO_ORPO:
        return minus_log_sigma(log_odds(a / p.n_plus) - log_odds(b / p.n_minus) - p.margin);
    case PREFOPT_DPO_DPOP:
        return minus_log_sigma(beta * (d - o->lambda * fmaxl(0, -a)));
    default: /* SIGMOID, CPO */
        return smoothed(o, z);
    }
}

static long double table_of(const prefopt_dpo_options *o, const prefopt_pair_scores *in, int64_t i)
{
    one_pair p = {.chosen = in->chosen[i],
                  .rejected = in->rejected[i],
                  .ref_chosen = in->ref_chosen ? in->ref_chosen[i] : 0,
                  .ref_rejected = in->ref_rejected ? in->ref_rejected[i] : 0,
                  .n_plus = in->len_chosen ? in->len_chosen[i] : 1,
                  .n_minus = in->len_rejected ? in->len_rejected[i] : 1,
                  .margin = in->margin ? in->margin[i] : 0};
    one_pair q = {p.rejected, p.chosen, p.ref_rejected, p.ref_chosen,
                  p.n_minus,  p.n_plus, p.margin};
    long double label = in->label ? in->label[i] : 1;
    return label * table(o, p) + (1 - label) * table(o, q);
}

static int is_sorted(int variant)
{
    return variant == PREFOPT_DPO_AOT || variant == PREFOPT_DPO_AOT_UNPAIRED;
}

START_TEST(formula_of_the_table)
{
    for (int v = 0; v < N_VARIANTS; v++)
        for (int divergence = 0; divergence < (known[v].takes & DIVERGENCE ? 4 : 1); divergence++) {
            if (is_sorted(v))
                continue;
            cases *c = cases_new(MOST, known[v].takes);
            prefopt_dpo_options o = options_of(v, divergence);
            OK(prefopt_loss_dpo(&o, &c->in, &c->out));
            long double sum = 0, weights = 0;
            for (int64_t i = 0; i < MOST; i++) {
                long double expected = table_of(&o, &c->in, i);
                CLOSE(c->each[i], (double)expected, 1e-12);
                sum += expected * (c->in.weight ? c->weight[i] : 1);
                weights += c->in.weight ? c->weight[i] : 1;
            }
            CLOSE(c->out.mean, (double)(sum / weights), 1e-13);
            ck_assert(c->out.grad_log_tie == 0);
            /* The mean needs no arrays. */
            prefopt_pair_loss bare = {.struct_size = sizeof bare};
            OK(prefopt_loss_dpo(&o, &c->in, &bare));
            ck_assert(bare.mean == c->out.mean);
            free(c);
        }
}
END_TEST

static int ascending(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

START_TEST(sorted_variants)
{
    for (int v = PREFOPT_DPO_AOT; v <= PREFOPT_DPO_AOT_UNPAIRED; v++)
        for (int64_t n = 1; n <= MOST; n = n * 3 + 1) {
            cases *c = cases_new(n, known[v].takes);
            prefopt_dpo_options o = options_of(v, 0);
            OK(prefopt_loss_dpo(&o, &c->in, &c->out));
            double a[MOST], b[MOST];
            for (int64_t i = 0; i < n; i++) {
                int paired = v == PREFOPT_DPO_AOT;
                a[i] = c->chosen[i] - (paired ? c->rejected : c->ref_chosen)[i];
                b[i] = (paired ? c->ref_chosen : c->rejected)[i] - c->ref_rejected[i];
            }
            double key[MOST];
            memcpy(key, a, sizeof key);
            qsort(a, (size_t)n, sizeof a[0], ascending);
            qsort(b, (size_t)n, sizeof b[0], ascending);
            long double sum = 0;
            for (int64_t rank = 0; rank < n; rank++) {
                long double loss = smoothed(&o, o.beta * (a[rank] - b[rank]));
                sum += loss;
                for (int64_t i = 0; i < n; i++)
                    if (key[i] == a[rank])
                        CLOSE(c->each[i], (double)loss, 1e-13);
            }
            CLOSE(c->out.mean, (double)(sum / n), 1e-13);
            free(c);
        }
}
END_TEST

/* ---- gradients */

static double mean_of(const prefopt_dpo_options *o, const cases *c)
{
    prefopt_pair_loss out = {.struct_size = sizeof out};
    OK(prefopt_loss_dpo(o, &c->in, &out));
    return out.mean;
}

static void check_gradients(const prefopt_dpo_options *o, cases *c)
{
    OK(prefopt_loss_dpo(o, &c->in, &c->out));
    for (int64_t i = 0; i < c->in.n; i++)
        for (int side = 0; side < 2; side++) {
            double *x = side ? &c->rejected[i] : &c->chosen[i], kept = *x, h = 1e-5;
            *x = kept + h;
            double high = mean_of(o, c), up = *x;
            *x = kept - h;
            double low = mean_of(o, c), down = *x;
            *x = kept;
            double grad = (side ? c->grad_rejected : c->grad_chosen)[i];
            double noise = 4e-16 * (fabs(high) + fabs(low)) / h;
            ck_assert_msg(fabs(grad - (high - low) / (up - down)) <=
                              1e-7 * fmax(1, fabs(grad)) + noise,
                          "%s divergence %d pair %d side %d: gradient %.12g, differences %.12g",
                          known[o->variant].name, o->divergence, (int)i, side, grad,
                          (high - low) / (up - down));
        }
}

#define EVERY_VARIANT(v, divergence)                                                               \
    for (int v = 0; v < N_VARIANTS; v++)                                                           \
        for (int divergence = 0; divergence < (known[v].takes & DIVERGENCE ? 4 : 1); divergence++)

START_TEST(gradients_random)
{
    EVERY_VARIANT(v, divergence)
    {
        cases *c = cases_new(20, known[v].takes);
        prefopt_dpo_options o = options_of(v, divergence);
        check_gradients(&o, c);
        if (v != PREFOPT_DPO_EXO)
            o.label_smoothing = 0;
        c->in.label = NULL;
        c->in.weight = NULL;
        c->in.margin = NULL;
        check_gradients(&o, c);
        if (divergence == 0) { /* reference-free: log-ratios of -30 under a score overflow nothing,
                                  but differences would not resolve them */
            c->in.ref_chosen = c->in.ref_rejected = NULL;
            check_gradients(&o, c);
        }
        free(c);
    }
}
END_TEST

START_TEST(gradients_tied)
{
    EVERY_VARIANT(v, divergence)
    {
        if (is_sorted(v))
            continue; /* not smooth where two values are equal */
        cases *c = cases_new(12, known[v].takes);
        for (int64_t i = 0; i < 12; i++) {
            c->rejected[i] = c->chosen[i];
            c->ref_chosen[i] = c->ref_rejected[i] = c->chosen[i] + (i % 2 ? 1 : -1);
            c->len_rejected[i] = c->len_chosen[i];
        }
        c->in.margin = NULL;
        prefopt_dpo_options o = options_of(v, divergence);
        check_gradients(&o, c);
        free(c);
    }
}
END_TEST

/* Score differences of 700, both ways, at beta 1: the sigmoid is at exp(-700), the square at
 * 490,000. */
START_TEST(gradients_saturated)
{
    for (int v = 0; v < N_VARIANTS; v++) {
        cases *c = cases_new(8, known[v].takes & ~(EACH | MARGIN));
        for (int64_t i = 0; i < 8; i++) {
            c->chosen[i] = i % 2 ? -1.0 - (double)i : -701.0 - (double)i;
            c->rejected[i] = i % 2 ? -701.5 - (double)i : -1.25 - (double)i;
            c->ref_chosen[i] = c->ref_rejected[i] = i % 4 < 2 ? -0.5 : -350;
            c->len_chosen[i] = c->len_rejected[i] = 1;
        }
        prefopt_dpo_options o = options_of(v, 0);
        if (v != PREFOPT_DPO_ORPO)
            o.beta = 1;
        check_gradients(&o, c);
        free(c);
    }
}
END_TEST

TEST_MAIN("dpo", typed_in_values, formula_of_the_table, sorted_variants, gradients_random,
          gradients_tied, gradients_saturated)
