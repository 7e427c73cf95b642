/* Bradley-Terry with its two tie models: loss, slopes in the difference, slope in the tie
 * parameter. */
#include "loss/pf_loss.h"

static const prefopt_bt_options defaults = {
    .struct_size = sizeof(prefopt_bt_options),
    .tie_model = PREFOPT_TIE_NONE,
};

int32_t prefopt_bt_options_init(prefopt_bt_options *options, uint32_t struct_size)
{
    return pf_struct_init(options, struct_size, &defaults, sizeof defaults, sizeof defaults,
                          "prefopt_bt_options");
}

static int32_t check_options(const prefopt_bt_options *o)
{
    if (o->tie_model < 0 || o->tie_model > PREFOPT_TIE_RAO_KUPPER)
        return pf_fail(PREFOPT_ERR_ARGUMENT,
                       "tie_model is %d, expected 0 (NONE), 1 (DAVIDSON) or 2 (RAO_KUPPER)",
                       o->tie_model);
    if (o->tie_model == PREFOPT_TIE_NONE && o->log_tie != defaults.log_tie)
        return pf_fail(PREFOPT_ERR_ARGUMENT,
                       "log_tie is %g, but TIE_NONE does not use it: expected its default %g",
                       o->log_tie, defaults.log_tie);
    if (!isfinite(o->log_tie))
        return pf_fail(PREFOPT_ERR_ARGUMENT, "log_tie is %g, expected a finite number", o->log_tie);
    if (o->tie_model == PREFOPT_TIE_RAO_KUPPER && o->log_tie < 0)
        return pf_fail(PREFOPT_ERR_ARGUMENT,
                       "log_tie is %g, expected >= 0 for RAO_KUPPER (theta >= 1)", o->log_tie);
    if (!(o->centre >= 0 && o->centre <= DBL_MAX))
        return pf_fail(PREFOPT_ERR_ARGUMENT, "centre is %g, expected a finite number >= 0",
                       o->centre);
    return PREFOPT_OK;
}

/* What the options and the arrays say together. */
static int32_t check_values(const prefopt_bt_options *o, const pf_pairs *pairs)
{
    const prefopt_pair_scores *in = &pairs->in;
    if (o->tie_model != PREFOPT_TIE_NONE && in->label != NULL)
        for (int64_t i = 0; i < in->n; i++)
            if (in->label[i] != 0 && in->label[i] != 0.5 && in->label[i] != 1)
                return pf_fail(PREFOPT_ERR_ARGUMENT,
                               "label[%lld] is %g, expected 0, 0.5 (a tie) or 1 with a tie model",
                               (long long)i, in->label[i]);
    if (o->centre > 0 && !pairs->moderate)
        for (int64_t i = 0; i < in->n; i++)
            if (!isfinite(in->chosen[i]) || !isfinite(in->rejected[i]))
                return pf_fail(PREFOPT_ERR_NUMERIC,
                               "%s[%lld] is -inf, expected a finite reward as centre is %g",
                               isfinite(in->chosen[i]) ? "rejected" : "chosen", (long long)i,
                               o->centre);
    return PREFOPT_OK;
}

/* ---- the outcome's negative log-likelihood, with its slopes in d and in the tie parameter */

typedef struct {
    double loss, slope, slope_tie;
} outcome;

/* Divided by sqrt(a b), win, loss and tie weigh exp(d/2), exp(-d/2), nu. The largest counts as 1
 * exactly: the loss of an outcome is how far it lies below the largest, plus log1p of the others.
 */
static outcome davidson(double label, double d, double log_nu)
{
    enum { WIN, LOSE, TIE };
    const double x[] = {d / 2, -d / 2, log_nu};
    int own = label == 1 ? WIN : label == 0 ? LOSE : TIE, top = x[WIN] >= x[LOSE] ? WIN : LOSE;
    if (x[TIE] > x[top])
        top = TIE;
    double p[3], rest = 0;
    for (int k = WIN; k <= TIE; k++) {
        p[k] = k == top ? 1 : exp(x[k] - x[top]);
        rest += k == top ? 0 : p[k];
    }
    for (int k = WIN; k <= TIE; k++)
        p[k] /= 1 + rest;
    double loss = (own == top ? 0 : x[top] - x[own]) + log1p(rest);
    if (own == TIE) /* P(win) - P(loss), without cancellation at small d */
        return (outcome){loss, 0.5 * (d > 0 ? p[WIN] : -p[LOSE]) * -expm1(-fabs(d)),
                         -(p[WIN] + p[LOSE])};
    return (outcome){loss, own == WIN ? -(p[LOSE] + 0.5 * p[TIE]) : p[WIN] + 0.5 * p[TIE], p[TIE]};
}

/* With h = log theta: P(win) = sigma(d - h), P(loss) = sigma(-d - h),
 * P(tie) = (theta^2 - 1) P(win) P(loss) = (1 - exp(-2 h)) sigma(h - d) sigma(h + d). */
static outcome rao_kupper(double label, double d, double h)
{
    double p_win = pf_sigmoid(d - h), p_lose = pf_sigmoid(-d - h);
    if (label == 1)
        return (outcome){pf_softplus(h - d), -pf_sigmoid(h - d), pf_sigmoid(h - d)};
    if (label == 0)
        return (outcome){pf_softplus(h + d), pf_sigmoid(h + d), pf_sigmoid(h + d)};
    /* P(win) - P(loss) = sigma(|d| - h) sigma(|d| + h) (1 - exp(-2 |d|)), with the sign of d. */
    double margin = pf_sigmoid(fabs(d) - h) * pf_sigmoid(fabs(d) + h) * -expm1(-2 * fabs(d));
    return (outcome){pf_softplus(d - h) + pf_softplus(-d - h) - pf_log1mexp(-2 * h),
                     d < 0 ? -margin : margin, -p_win - p_lose - 2 / expm1(2 * h)};
}

/* ---- chunks */

typedef struct {
    double d[PF_CHUNK], loss[PF_CHUNK], slope_chosen[PF_CHUNK], slope_rejected[PF_CHUNK];
    double slope_tie[PF_CHUNK];
} chunk;

static void without_ties(const pf_pairs *pairs, int64_t first, int64_t n, chunk *k)
{
    double loss[PF_CHUNK], miss[PF_CHUNK], d[PF_CHUNK];
    for (int64_t i = 0; i < n; i++)
        d[i] = k->d[i] - pf_pair_margin(pairs, first + i);
    pf_logistic(n, d, 1, 0, k->loss, miss);
    for (int64_t i = 0; i < n; i++)
        k->slope_chosen[i] = -miss[i];
    if (pairs->in.label == NULL)
        return;
    for (int64_t i = 0; i < n; i++)
        d[i] = -k->d[i] - pf_pair_margin(pairs, first + i);
    pf_logistic(n, d, 1, 0, loss, miss);
    for (int64_t i = 0; i < n; i++) {
        double given = pairs->in.label[first + i], other = 1 - given;
        k->loss[i] = pf_weighted(given, k->loss[i]) + pf_weighted(other, loss[i]);
        k->slope_chosen[i] = given * k->slope_chosen[i] + other * miss[i];
    }
}

static void evaluate(const prefopt_bt_options *o, const pf_pairs *pairs, int64_t first, int64_t n,
                     chunk *k)
{
    const double *chosen = pairs->in.chosen + first, *rejected = pairs->in.rejected + first;
    for (int64_t i = 0; i < n; i++)
        k->d[i] = chosen[i] - rejected[i];
    if (o->tie_model == PREFOPT_TIE_NONE)
        without_ties(pairs, first, n, k);
    else
        for (int64_t i = 0; i < n; i++) {
            double label = pf_pair_label(pairs, first + i);
            outcome r = o->tie_model == PREFOPT_TIE_DAVIDSON
                            ? davidson(label, k->d[i], o->log_tie)
                            : rao_kupper(label, k->d[i], o->log_tie);
            k->loss[i] = r.loss;
            k->slope_chosen[i] = r.slope;
            k->slope_tie[i] = r.slope_tie;
        }
    for (int64_t i = 0; i < n; i++)
        k->slope_rejected[i] = -k->slope_chosen[i];
    if (o->centre > 0)
        for (int64_t i = 0; i < n; i++) {
            double both = chosen[i] + rejected[i];
            k->loss[i] += o->centre * both * both;
            k->slope_chosen[i] += 2 * o->centre * both;
            k->slope_rejected[i] += 2 * o->centre * both;
        }
}

static double weighted_tie_slopes(const pf_pairs *pairs, int64_t first, int64_t n, const chunk *k)
{
    double term[PF_CHUNK];
    for (int64_t i = 0; i < n; i++)
        term[i] = pf_pair_weight(pairs, first + i) * pf_finite_or_zero(k->slope_tie[i]);
    return pf_lane_sum(n, term);
}

int32_t prefopt_loss_bradley_terry(const prefopt_bt_options *options, const prefopt_pair_scores *in,
                                   prefopt_pair_loss *out)
{
    PF_REQUIRE(in);
    PF_REQUIRE(out);
    prefopt_bt_options o = defaults;
    if (options != NULL)
        PF_TRY(pf_struct_read(&o, sizeof o, sizeof o, options, "prefopt_bt_options"));
    PF_TRY(check_options(&o));
    bool ties = o.tie_model != PREFOPT_TIE_NONE;
    pf_pairs pairs;
    PF_TRY(pf_pairs_read(&pairs, in, out,
                         PF_USES_WEIGHT | PF_USES_LABEL | (ties ? 0 : PF_USES_MARGIN),
                         !ties                                 ? "Bradley-Terry"
                         : o.tie_model == PREFOPT_TIE_DAVIDSON ? "TIE_DAVIDSON"
                                                               : "TIE_RAO_KUPPER"));
    PF_TRY(check_values(&o, &pairs));

    int64_t n = pairs.in.n;
    chunk k;
    for (int64_t first = 0; !pairs.moderate && first < n; first += PF_CHUNK) {
        int64_t many = n - first < PF_CHUNK ? n - first : PF_CHUNK;
        evaluate(&o, &pairs, first, many, &k);
        PF_TRY(pf_pairs_check_losses(&pairs, first, many, k.loss));
    }
    pf_sum sum = {0, 0}, tie = {0, 0};
    for (int64_t first = 0; first < n; first += PF_CHUNK) {
        int64_t many = n - first < PF_CHUNK ? n - first : PF_CHUNK;
        evaluate(&o, &pairs, first, many, &k);
        pf_pairs_write_chunk(&pairs, first, many, k.loss, k.slope_chosen, k.slope_rejected, &sum);
        if (ties)
            pf_sum_add(&tie, weighted_tie_slopes(&pairs, first, many, &k));
    }
    pf_pairs_write_mean(&pairs, &sum,
                        pairs.total_weight > 0 ? pf_sum_value(&tie) / pairs.total_weight : 0);
    return PREFOPT_OK;
}
