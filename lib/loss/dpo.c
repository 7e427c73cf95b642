/* The DPO family: options, the differences that enter the links, labels and weights.
 *
 * A chunk of pairs goes through four stages: coordinates (a, b, d and their slopes with respect to
 * the policy's log-probabilities), the variant's loss as given, the same with chosen and rejected
 * exchanged where labels ask for it, and the outputs. */
#include "loss/pf_loss.h"

static const prefopt_dpo_options defaults = {
    .struct_size = sizeof(prefopt_dpo_options),
    .variant = PREFOPT_DPO_SIGMOID,
    .beta = 0.1,
    .gamma = 0.5,
    .tau = 0.05,
    .lambda = 5,
    .divergence = PREFOPT_DIVERGENCE_REVERSE_KL,
    .alpha = 0.5,
};

int32_t prefopt_dpo_options_init(prefopt_dpo_options *options, uint32_t struct_size)
{
    return pf_struct_init(options, struct_size, &defaults, sizeof defaults, sizeof defaults,
                          "prefopt_dpo_options");
}

static int32_t out_of_range(const char *name, double value, const char *expected)
{
    return pf_fail(PREFOPT_ERR_ARGUMENT, "%s is %g, expected %s", name, value, expected);
}

static int32_t check_unused(const prefopt_dpo_options *o, const pf_dpo_variant *variant)
{
    const struct {
        uint32_t use;
        double value, init;
        const char *name;
    } fields[] = {
        {PF_USES_BETA, o->beta, defaults.beta, "beta"},
        {PF_USES_SMOOTHING, o->label_smoothing, defaults.label_smoothing, "label_smoothing"},
        {PF_USES_GAMMA, o->gamma, defaults.gamma, "gamma"},
        {PF_USES_DELTA, o->delta, defaults.delta, "delta"},
        {PF_USES_TAU, o->tau, defaults.tau, "tau"},
        {PF_USES_LAMBDA, o->lambda, defaults.lambda, "lambda"},
        {PF_USES_DIVERGENCE, o->divergence, defaults.divergence, "divergence"},
        {PF_USES_DIVERGENCE, o->alpha, defaults.alpha, "alpha"},
    };
    for (size_t i = 0; i < sizeof fields / sizeof fields[0]; i++)
        if (!(variant->uses & fields[i].use) && fields[i].value != fields[i].init)
            return pf_fail(PREFOPT_ERR_ARGUMENT,
                           "%s is %g, but %s does not use it: expected its default %g",
                           fields[i].name, fields[i].value, variant->name, fields[i].init);
    if (o->divergence != PREFOPT_DIVERGENCE_ALPHA && o->alpha != defaults.alpha)
        return pf_fail(PREFOPT_ERR_ARGUMENT,
                       "alpha is %g, but divergence %d does not use it: expected its default %g",
                       o->alpha, o->divergence, defaults.alpha);
    return PREFOPT_OK;
}

static int32_t check_options(const prefopt_dpo_options *o, const pf_dpo_variant *variant)
{
    if (o->reserved != 0)
        return pf_fail(PREFOPT_ERR_ARGUMENT, "prefopt_dpo_options: reserved is %u, expected 0",
                       o->reserved);
    PF_TRY(check_unused(o, variant));
    if (!(o->beta > 0 && o->beta <= DBL_MAX))
        return out_of_range("beta", o->beta, "a finite number > 0");
    double eps = o->label_smoothing;
    if (o->variant == PREFOPT_DPO_EXO && !(eps > 0 && eps < 1))
        return out_of_range("label_smoothing", eps, "above 0 and below 1 for DPO_EXO");
    if (o->variant == PREFOPT_DPO_ROBUST && !(eps >= 0 && eps < 0.5))
        return out_of_range("label_smoothing", eps, "0 to below 0.5 for DPO_ROBUST");
    if (!(eps >= 0 && eps <= 1))
        return out_of_range("label_smoothing", eps, "0 to 1");
    if (!isfinite(o->gamma))
        return out_of_range("gamma", o->gamma, "a finite number");
    if (!isfinite(o->delta))
        return out_of_range("delta", o->delta, "a finite number");
    if (!(o->tau > 0 && o->tau <= DBL_MAX))
        return out_of_range("tau", o->tau, "a finite number > 0");
    if (!(o->lambda >= 0 && o->lambda <= DBL_MAX))
        return out_of_range("lambda", o->lambda, "a finite number >= 0");
    if (o->divergence < 0 || o->divergence > PREFOPT_DIVERGENCE_ALPHA)
        return pf_fail(PREFOPT_ERR_ARGUMENT,
                       "divergence is %d, expected 0 (REVERSE_KL) to 3 (ALPHA)", o->divergence);
    if (!isfinite(o->alpha) || o->alpha == 1)
        return out_of_range("alpha", o->alpha, "a finite number other than 1");
    return PREFOPT_OK;
}

/* ---- coordinates */

typedef struct {
    double a[PF_CHUNK], b[PF_CHUNK], d[PF_CHUNK];
    /* d a / d chosen, d b / d rejected; not set where both are 1: plain log-ratios */
    double chain_a[PF_CHUNK], chain_b[PF_CHUNK];
    double loss[PF_CHUNK], slope_a[PF_CHUNK], slope_b[PF_CHUNK];
} chunk;

/* exp(p) - exp(q): the larger term times 1 - exp(difference), so that close ones do not cancel;
 * through the logarithm where the larger overflows and the difference need not. */
static double difference_of_exp(double p, double q)
{
    if (p == q)
        return 0;
    double high = p > q ? p : q, gap = p > q ? q - p : p - q;
    double size = exp(high) * -expm1(gap);
    if (!isfinite(size))
        size = exp(high + pf_log1mexp(gap));
    return p > q ? size : -size;
}

/* d = score(a) - score(b) and the scores' slopes. score(u) = exp(c u) / c with c = -1 for the
 * forward KL and alpha - 1 for the alpha divergence. */
static void apply_divergence(const prefopt_dpo_options *o, int64_t n, chunk *k)
{
    double c = o->divergence == PREFOPT_DIVERGENCE_FORWARD_KL ? -1 : o->alpha - 1;
    for (int64_t i = 0; i < n; i++) {
        double a = k->a[i], b = k->b[i];
        if (o->divergence == PREFOPT_DIVERGENCE_JENSEN_SHANNON) {
            k->d[i] = a == INFINITY && b == INFINITY ? 0 : pf_log_sigmoid(a) - pf_log_sigmoid(b);
            k->chain_a[i] = pf_sigmoid(-a);
            k->chain_b[i] = pf_sigmoid(-b);
        } else {
            k->d[i] = difference_of_exp(c * a, c * b) / c;
            k->chain_a[i] = exp(c * a);
            k->chain_b[i] = exp(c * b);
            /* Two infinite scores of one sign have no difference. */
            if (a == b && isinf(a) && c * a > 0)
                k->d[i] = NAN;
        }
    }
}

static void find_coordinates(const prefopt_dpo_options *o, const pf_dpo_variant *variant,
                             const prefopt_pair_scores *in, int64_t first, int64_t n, chunk *k)
{
    const double *chosen = in->chosen + first, *rejected = in->rejected + first;
    if (in->ref_chosen != NULL) {
        const double *ref_chosen = in->ref_chosen + first, *ref_rejected = in->ref_rejected + first;
        for (int64_t i = 0; i < n; i++) {
            k->a[i] = chosen[i] - ref_chosen[i];
            k->b[i] = rejected[i] - ref_rejected[i];
        }
    } else {
        memcpy(k->a, chosen, (size_t)n * sizeof(double));
        memcpy(k->b, rejected, (size_t)n * sizeof(double));
    }
    if (variant->coordinate != PF_LOG_RATIO)
        for (int64_t i = 0; i < n; i++) {
            k->chain_a[i] = 1 / (double)in->len_chosen[first + i];
            k->chain_b[i] = 1 / (double)in->len_rejected[first + i];
            k->a[i] /= (double)in->len_chosen[first + i];
            k->b[i] /= (double)in->len_rejected[first + i];
        }
    if (variant->coordinate == PF_LOG_ODDS)
        for (int64_t i = 0; i < n; i++) {
            /* d log-odds / d x = 1 / (1 - exp(x)) */
            k->chain_a[i] /= -expm1(k->a[i]);
            k->chain_b[i] /= -expm1(k->b[i]);
            k->a[i] -= pf_log1mexp(k->a[i]);
            k->b[i] -= pf_log1mexp(k->b[i]);
        }
    if (o->divergence != PREFOPT_DIVERGENCE_REVERSE_KL) {
        apply_divergence(o, n, k);
        return;
    }
    for (int64_t i = 0; i < n; i++)
        k->d[i] = k->a[i] - k->b[i];
}

/* ---- the loss of a chunk */

/* One orientation: d already reduced by the margin. */
static void run_variant(const prefopt_dpo_options *o, const pf_dpo_variant *variant, int64_t n,
                        const double *a, const double *b, const double *d, double *loss,
                        double *slope_a, double *slope_b)
{
    if (variant->two_sided != NULL) {
        variant->two_sided(o, n, a, b, d, loss, slope_a, slope_b);
        return;
    }
    variant->link(o, n, d, loss, slope_a);
    for (int64_t i = 0; i < n; i++)
        slope_b[i] = -slope_a[i];
}

/* Mixes in (1 - label) times the loss with chosen and rejected exchanged. */
static void add_exchanged(const prefopt_dpo_options *o, const pf_dpo_variant *variant,
                          const pf_pairs *pairs, int64_t first, int64_t n, chunk *k)
{
    double d[PF_CHUNK], loss[PF_CHUNK], slope_a[PF_CHUNK], slope_b[PF_CHUNK];
    for (int64_t i = 0; i < n; i++)
        d[i] = -k->d[i] - pf_pair_margin(pairs, first + i);
    run_variant(o, variant, n, k->b, k->a, d, loss, slope_b, slope_a);
    for (int64_t i = 0; i < n; i++) {
        double given = pairs->in.label[first + i], other = 1 - given;
        k->loss[i] = pf_weighted(given, k->loss[i]) + pf_weighted(other, loss[i]);
        k->slope_a[i] = pf_weighted(given, k->slope_a[i]) + pf_weighted(other, slope_a[i]);
        k->slope_b[i] = pf_weighted(given, k->slope_b[i]) + pf_weighted(other, slope_b[i]);
    }
}

static void evaluate(const prefopt_dpo_options *o, const pf_dpo_variant *variant,
                     const pf_pairs *pairs, int64_t first, int64_t n, chunk *k)
{
    double reduced[PF_CHUNK];
    const double *d = k->d;
    find_coordinates(o, variant, &pairs->in, first, n, k);
    if (pairs->in.margin != NULL) {
        for (int64_t i = 0; i < n; i++)
            reduced[i] = k->d[i] - pairs->in.margin[first + i];
        d = reduced;
    }
    run_variant(o, variant, n, k->a, k->b, d, k->loss, k->slope_a, k->slope_b);
    if (pairs->in.label != NULL)
        add_exchanged(o, variant, pairs, first, n, k);
    /* A slope of 0 stays 0 where the coordinate's own slope is infinite. */
    if (variant->coordinate != PF_LOG_RATIO || o->divergence != PREFOPT_DIVERGENCE_REVERSE_KL)
        for (int64_t i = 0; i < n; i++) {
            k->slope_a[i] = pf_weighted(k->slope_a[i], k->chain_a[i]);
            k->slope_b[i] = pf_weighted(k->slope_b[i], k->chain_b[i]);
        }
}

/* A link that clips (the hinge) would hide a difference that has no value. */
static void mark_missing(const pf_dpo_variant *variant, int64_t n, chunk *k)
{
    for (int64_t i = 0; i < n; i++)
        if (variant->link != NULL && isnan(k->d[i]))
            k->loss[i] = NAN;
}

/* Log-odds exist up to a probability of 1, where they are infinite: no longer moderate. */
static int32_t check_log_odds(pf_pairs *pairs)
{
    const prefopt_pair_scores *in = &pairs->in;
    for (int64_t i = 0; i < in->n; i++) {
        double chosen = in->chosen[i] / (double)in->len_chosen[i];
        double rejected = in->rejected[i] / (double)in->len_rejected[i];
        if (chosen > 0 || rejected > 0)
            return pf_fail(PREFOPT_ERR_ARGUMENT,
                           "%s[%lld] is %g, expected a log-probability <= 0: DPO_ORPO takes its "
                           "log-odds",
                           chosen > 0 ? "chosen" : "rejected", (long long)i,
                           chosen > 0 ? in->chosen[i] : in->rejected[i]);
        if (chosen == 0 || rejected == 0)
            pairs->moderate = false;
    }
    return PREFOPT_OK;
}

int32_t prefopt_loss_dpo(const prefopt_dpo_options *options, const prefopt_pair_scores *in,
                         prefopt_pair_loss *out)
{
    PF_REQUIRE(in);
    PF_REQUIRE(out);
    prefopt_dpo_options o = defaults;
    if (options != NULL)
        PF_TRY(pf_struct_read(&o, sizeof o, sizeof o, options, "prefopt_dpo_options"));
    const pf_dpo_variant *variant = pf_dpo_find(o.variant);
    if (variant == NULL)
        return pf_fail(PREFOPT_ERR_ARGUMENT,
                       "variant is %d, expected 0 (DPO_SIGMOID) to 18 (DPO_DPOP)", o.variant);
    PF_TRY(check_options(&o, variant));
    pf_pairs pairs;
    PF_TRY(pf_pairs_read(&pairs, in, out, variant->uses, variant->name));
    if (variant->coordinate == PF_SORTED_DIFF || variant->coordinate == PF_SORTED_BOTH)
        return pf_dpo_sorted(&o, variant, &pairs);
    if (variant->coordinate == PF_LOG_ODDS)
        PF_TRY(check_log_odds(&pairs));

    int64_t n = pairs.in.n;
    chunk k;
    /* Losses without a value come from infinite scores, and from products and divergences that
     * overflow: those alone are worth a pass ahead of the one that writes. */
    bool sure =
        pairs.moderate && o.beta <= PF_MODERATE && o.divergence == PREFOPT_DIVERGENCE_REVERSE_KL;
    for (int64_t first = 0; !sure && first < n; first += PF_CHUNK) {
        int64_t many = n - first < PF_CHUNK ? n - first : PF_CHUNK;
        evaluate(&o, variant, &pairs, first, many, &k);
        mark_missing(variant, many, &k);
        PF_TRY(pf_pairs_check_losses(&pairs, first, many, k.loss));
    }
    pf_sum sum = {0, 0};
    for (int64_t first = 0; first < n; first += PF_CHUNK) {
        int64_t many = n - first < PF_CHUNK ? n - first : PF_CHUNK;
        evaluate(&o, variant, &pairs, first, many, &k);
        pf_pairs_write_chunk(&pairs, first, many, k.loss, k.slope_a, k.slope_b, &sum);
    }
    pf_pairs_write_mean(&pairs, &sum, 0);
    return PREFOPT_OK;
}
