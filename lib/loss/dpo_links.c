/* The DPO family, variant by variant: the loss of a pair and its slopes, and the table of what each
 * variant uses. Signs, references, labels, weights are dpo.c's. x below is a difference (or
 * log-ratio) times beta. Infinite arguments give the limits; NaN gives NaN. */
#include "loss/pf_kl.h"
#include "loss/pf_loss.h"

/* S(z) = -(1-eps) log sigma(z) - eps log sigma(-z), slope -(1-eps) sigma(-z) + eps sigma(z), of
 * z = scale * x - shift. */
static void smoothed(int64_t n, const double *restrict x, double scale, double shift, double eps,
                     double *restrict loss, double *restrict slope)
{
    double miss[PF_CHUNK];
    pf_logistic(n, x, scale, shift, loss, miss);
    if (eps == 0) {
        for (int64_t i = 0; i < n; i++)
            slope[i] = -scale * miss[i];
        return;
    }
    double away[PF_CHUNK], hit[PF_CHUNK];
    pf_logistic(n, x, -scale, -shift, away, hit);
    for (int64_t i = 0; i < n; i++) {
        loss[i] = pf_weighted(1 - eps, loss[i]) + eps * away[i];
        slope[i] = scale * (eps * hit[i] - (1 - eps) * miss[i]);
    }
}

static void sigmoid_link(const prefopt_dpo_options *o, int64_t n, const double *restrict x,
                         double *restrict loss, double *restrict slope)
{
    smoothed(n, x, o->beta, 0, o->label_smoothing, loss, slope);
}

static void simpo_link(const prefopt_dpo_options *o, int64_t n, const double *restrict x,
                       double *restrict loss, double *restrict slope)
{
    smoothed(n, x, o->beta, o->gamma, o->label_smoothing, loss, slope);
}

static void orpo_link(const prefopt_dpo_options *o, int64_t n, const double *restrict x,
                      double *restrict loss, double *restrict slope)
{
    smoothed(n, x, 1, 0, 0, loss, slope);
}

static void hinge_link(const prefopt_dpo_options *o, int64_t n, const double *restrict x,
                       double *restrict loss, double *restrict slope)
{
    for (int64_t i = 0; i < n; i++) {
        double short_by = 1 - o->beta * x[i];
        loss[i] = short_by <= 0 ? 0 : short_by;
        slope[i] = short_by > 0 ? -o->beta : 0;
    }
}

static void square_link(const prefopt_dpo_options *o, int64_t n, const double *restrict x,
                        double *restrict loss, double *restrict slope)
{
    double target = 1 / (2 * o->beta);
    for (int64_t i = 0; i < n; i++) {
        loss[i] = (x[i] - target) * (x[i] - target);
        slope[i] = 2 * (x[i] - target);
    }
}

static void robust_link(const prefopt_dpo_options *o, int64_t n, const double *restrict x,
                        double *restrict loss, double *restrict slope)
{
    double eps = o->label_smoothing, norm = 1 / (1 - 2 * eps);
    for (int64_t i = 0; i < n; i++) {
        double z = o->beta * x[i];
        loss[i] = norm * ((1 - eps) * pf_softplus(-z) - pf_weighted(eps, pf_softplus(z)));
        slope[i] = -norm * o->beta * ((1 - eps) * pf_sigmoid(-z) + eps * pf_sigmoid(z));
    }
}

/* a log(a / b) - a + b, never negative: summed over a distribution's outcomes this is its KL, and
 * no terms cancel where a and b nearly agree. */
static double kl_term(double la, double lb)
{
    return pf_kl_value(PREFOPT_KL_K3, false, pf_log_ratio(la, lb), la, lb);
}

/* KL((p, q) || (1-eps, eps)), p = sigma(z). Its slope is p q (z - logit(1-eps)), as
 * log p - log q = z. */
static void exo_link(const prefopt_dpo_options *o, int64_t n, const double *restrict x,
                     double *restrict loss, double *restrict slope)
{
    double eps = o->label_smoothing, log_keep = log1p(-eps), log_flip = log(eps);
    for (int64_t i = 0; i < n; i++) {
        double z = o->beta * x[i], p = pf_sigmoid(z), q = pf_sigmoid(-z);
        loss[i] = kl_term(pf_log_sigmoid(z), log_keep) + kl_term(pf_log_sigmoid(-z), log_flip);
        slope[i] = o->beta * pf_weighted(p * q, z - (log_keep - log_flip));
    }
}

/* With S = -log sigma(z), m = sigma(z / tau), E = m exp(-z) = exp(log m - z):
 * loss (1-m) S + E, slope (in z) (1-m)/tau (E - m S) - (1-m) sigma(-z) - E. */
static void discopop_link(const prefopt_dpo_options *o, int64_t n, const double *restrict x,
                          double *restrict loss, double *restrict slope)
{
    for (int64_t i = 0; i < n; i++) {
        double z = o->beta * x[i], s = pf_softplus(-z);
        double m = pf_sigmoid(z / o->tau), rest = pf_sigmoid(-z / o->tau);
        double e = exp(pf_log_sigmoid(z / o->tau) - z);
        loss[i] = pf_weighted(rest, s) + e;
        slope[i] = o->beta *
                   (pf_weighted(rest / o->tau, e - pf_weighted(m, s)) - rest * pf_sigmoid(-z) - e);
        if (isinf(z)) {
            loss[i] = z < 0 ? INFINITY : 0;
            slope[i] = z > 0 ? 0 : o->tau > 1 ? -INFINITY : -o->beta;
        }
    }
}

static void nca(const prefopt_dpo_options *o, int64_t n, const double *restrict a,
                const double *restrict b, const double *restrict d, double *restrict loss,
                double *restrict slope_a, double *restrict slope_b)
{
    for (int64_t i = 0; i < n; i++) {
        double x = o->beta * a[i], y = o->beta * b[i];
        loss[i] = pf_softplus(-x) + 0.5 * pf_softplus(x) + 0.5 * pf_softplus(y);
        slope_a[i] = o->beta * (0.5 * pf_sigmoid(x) - pf_sigmoid(-x));
        slope_b[i] = o->beta * 0.5 * pf_sigmoid(y);
    }
}

static void bco(const prefopt_dpo_options *o, int64_t n, const double *restrict a,
                const double *restrict b, const double *restrict d, double *restrict loss,
                double *restrict slope_a, double *restrict slope_b)
{
    for (int64_t i = 0; i < n; i++) {
        double x = o->beta * a[i] - o->delta, y = o->beta * b[i] - o->delta;
        loss[i] = pf_softplus(-x) + pf_softplus(y);
        slope_a[i] = -o->beta * pf_sigmoid(-x);
        slope_b[i] = o->beta * pf_sigmoid(y);
    }
}

static void sppo(const prefopt_dpo_options *o, int64_t n, const double *restrict a,
                 const double *restrict b, const double *restrict d, double *restrict loss,
                 double *restrict slope_a, double *restrict slope_b)
{
    double target = 1 / (2 * o->beta);
    for (int64_t i = 0; i < n; i++) {
        double x = a[i] - target, y = b[i] + target;
        loss[i] = x * x + y * y;
        slope_a[i] = 2 * x;
        slope_b[i] = 2 * y;
    }
}

static void apo_zero(const prefopt_dpo_options *o, int64_t n, const double *restrict a,
                     const double *restrict b, const double *restrict d, double *restrict loss,
                     double *restrict slope_a, double *restrict slope_b)
{
    for (int64_t i = 0; i < n; i++) {
        double x = o->beta * a[i], y = o->beta * b[i];
        loss[i] = pf_sigmoid(-x) + pf_sigmoid(y);
        slope_a[i] = -o->beta * pf_sigmoid(x) * pf_sigmoid(-x);
        slope_b[i] = o->beta * pf_sigmoid(y) * pf_sigmoid(-y);
    }
}

/* by_x - by_z with by_x = sigma(x) sigma(-x) = 1 / (4 cosh(x/2)^2) and by_z likewise, sum = z + x,
 * difference = z - x. A product, as the two nearly agree about 0 and where |x| = |z|. */
static double difference_of_slopes(double x, double by_x, double z, double by_z, double sum,
                                   double difference)
{
    if (!(fabs(x) < 30 && fabs(z) < 30))
        return by_x - by_z;
    return 4 * by_x * by_z * sinh(sum / 2) * sinh(difference / 2);
}

static void apo_down(const prefopt_dpo_options *o, int64_t n, const double *restrict a,
                     const double *restrict b, const double *restrict d, double *restrict loss,
                     double *restrict slope_a, double *restrict slope_b)
{
    for (int64_t i = 0; i < n; i++) {
        double x = o->beta * a[i], z = o->beta * d[i];
        double by_x = pf_sigmoid(x) * pf_sigmoid(-x), by_z = pf_sigmoid(z) * pf_sigmoid(-z);
        loss[i] = pf_sigmoid(x) + pf_sigmoid(-z);
        slope_a[i] = o->beta * difference_of_slopes(x, by_x, z, by_z, o->beta * (a[i] + d[i]),
                                                    o->beta * (d[i] - a[i]));
        slope_b[i] = o->beta * by_z;
    }
}

static void dpop(const prefopt_dpo_options *o, int64_t n, const double *restrict a,
                 const double *restrict b, const double *restrict d, double *restrict loss,
                 double *restrict slope_a, double *restrict slope_b)
{
    for (int64_t i = 0; i < n; i++) {
        double penalty = a[i] < 0 ? pf_weighted(o->lambda, -a[i]) : 0;
        double z = o->beta * (d[i] - penalty), by_z = -o->beta * pf_sigmoid(-z);
        loss[i] = pf_softplus(-z);
        slope_a[i] = by_z * (a[i] < 0 ? 1 + o->lambda : 1);
        slope_b[i] = -by_z;
    }
}

#define REF PF_USES_REFERENCE
#define EACH (PF_USES_WEIGHT | PF_USES_LABEL)
#define MARGIN PF_USES_MARGIN
#define LENGTHS PF_USES_LENGTHS
#define BETA PF_USES_BETA
#define EPS PF_USES_SMOOTHING
#define DIVERGENCE PF_USES_DIVERGENCE

static const pf_dpo_variant variants[] = {
    [PREFOPT_DPO_SIGMOID] = {"DPO_SIGMOID", REF | EACH | MARGIN | BETA | EPS | DIVERGENCE,
                             PF_LOG_RATIO, sigmoid_link, NULL},
    [PREFOPT_DPO_HINGE] = {"DPO_HINGE", REF | EACH | MARGIN | BETA | DIVERGENCE, PF_LOG_RATIO,
                           hinge_link, NULL},
    [PREFOPT_DPO_IPO] = {"DPO_IPO", REF | EACH | MARGIN | BETA | LENGTHS, PF_PER_TOKEN, square_link,
                         NULL},
    [PREFOPT_DPO_IPO_SUM] = {"DPO_IPO_SUM", REF | EACH | MARGIN | BETA | DIVERGENCE, PF_LOG_RATIO,
                             square_link, NULL},
    [PREFOPT_DPO_ROBUST] = {"DPO_ROBUST", REF | EACH | MARGIN | BETA | EPS | DIVERGENCE,
                            PF_LOG_RATIO, robust_link, NULL},
    [PREFOPT_DPO_EXO] = {"DPO_EXO", REF | EACH | MARGIN | BETA | EPS | DIVERGENCE, PF_LOG_RATIO,
                         exo_link, NULL},
    [PREFOPT_DPO_NCA] = {"DPO_NCA", REF | EACH | BETA, PF_LOG_RATIO, NULL, nca},
    [PREFOPT_DPO_BCO] = {"DPO_BCO", REF | EACH | BETA | PF_USES_DELTA, PF_LOG_RATIO, NULL, bco},
    [PREFOPT_DPO_SPPO] = {"DPO_SPPO", REF | EACH | BETA, PF_LOG_RATIO, NULL, sppo},
    [PREFOPT_DPO_AOT] = {"DPO_AOT", REF | BETA | EPS, PF_SORTED_DIFF, sigmoid_link, NULL},
    [PREFOPT_DPO_AOT_UNPAIRED] = {"DPO_AOT_UNPAIRED", REF | BETA | EPS, PF_SORTED_BOTH,
                                  sigmoid_link, NULL},
    [PREFOPT_DPO_APO_ZERO] = {"DPO_APO_ZERO", REF | EACH | BETA, PF_LOG_RATIO, NULL, apo_zero},
    [PREFOPT_DPO_APO_DOWN] = {"DPO_APO_DOWN", REF | EACH | MARGIN | BETA, PF_LOG_RATIO, NULL,
                              apo_down},
    [PREFOPT_DPO_DISCOPOP] = {"DPO_DISCOPOP", REF | EACH | MARGIN | BETA | PF_USES_TAU,
                              PF_LOG_RATIO, discopop_link, NULL},
    [PREFOPT_DPO_SIGMOID_NORM] = {"DPO_SIGMOID_NORM", REF | EACH | MARGIN | LENGTHS | BETA | EPS,
                                  PF_PER_TOKEN, sigmoid_link, NULL},
    [PREFOPT_DPO_SIMPO] = {"DPO_SIMPO", EACH | MARGIN | LENGTHS | BETA | EPS | PF_USES_GAMMA,
                           PF_PER_TOKEN, simpo_link, NULL},
    [PREFOPT_DPO_CPO] = {"DPO_CPO", EACH | MARGIN | BETA | EPS, PF_LOG_RATIO, sigmoid_link, NULL},
    [PREFOPT_DPO_ORPO] = {"DPO_ORPO", EACH | MARGIN | LENGTHS, PF_LOG_ODDS, orpo_link, NULL},
    [PREFOPT_DPO_DPOP] = {"DPO_DPOP", REF | EACH | MARGIN | BETA | PF_USES_LAMBDA, PF_LOG_RATIO,
                          NULL, dpop},
};

const pf_dpo_variant *pf_dpo_find(int32_t variant)
{
    if (variant < 0 || variant >= (int32_t)(sizeof variants / sizeof variants[0]))
        return NULL;
    return &variants[variant];
}
