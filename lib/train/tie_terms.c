/* One pair's outcomes under the two tie models: scores and second derivatives. */
#include "math/pf_math.h"
#include "train/pf_pair_likelihood.h"

/* P(a wins) = e^(d/2) / S, P(b wins) = e^(-d/2) / S, P(tie) = e^t / S. */
static void davidson_probabilities(double d, double t, double *pa, double *pb, double *pt)
{
    double high = fmax(0.5 * fabs(d), t);
    double ea = exp(0.5 * d - high), eb = exp(-0.5 * d - high), et = exp(t - high);
    double s = ea + eb + et;
    *pa = ea / s;
    *pb = eb / s;
    *pt = et / s;
}

static pf_outcome_scores davidson_scores(double pa, double pb, double pt)
{
    pf_outcome_scores s = {.win_d = 0.5 * (2 * pb + pt),
                           .win_t = -pt,
                           .lose_d = -0.5 * (2 * pa + pt),
                           .lose_t = -pt,
                           .tie_d = 0.5 * (pb - pa),
                           .tie_t = pa + pb};
    return s;
}

/* P(a wins) = sigma(d - t), P(b wins) = sigma(-d - t), and
 * log P(tie) = log sigma(d - t) + log sigma(-d - t) + log(e^(2t) - 1). */
static pf_outcome_scores rao_kupper_scores(double d, double t)
{
    double lost_a = pf_sigmoid(t - d), lost_b = pf_sigmoid(t + d); /* 1 - P(wins) */
    double slope = -2 / expm1(-2 * t);                             /* d/dt log(e^(2t) - 1) */
    pf_outcome_scores s = {.win_d = lost_a,
                           .win_t = -lost_a,
                           .lose_d = -lost_b,
                           .lose_t = -lost_b,
                           .tie_d = lost_a - lost_b,
                           .tie_t = slope - lost_a - lost_b};
    return s;
}

pf_outcome_scores pf_tie_scores_of(int32_t tie_model, double d, double t)
{
    if (tie_model == PREFOPT_TIE_RAO_KUPPER)
        return rao_kupper_scores(d, t);
    double pa, pb, pt;
    davidson_probabilities(d, t, &pa, &pb, &pt);
    return davidson_scores(pa, pb, pt);
}

pf_tie_terms pf_tie_terms_of(int32_t tie_model, double d, double t, double win, double lose,
                             double tie)
{
    pf_tie_terms out;
    pf_outcome_scores s;
    if (tie_model == PREFOPT_TIE_DAVIDSON) {
        double pa, pb, pt, n = win + lose + tie;
        davidson_probabilities(d, t, &pa, &pb, &pt);
        s = davidson_scores(pa, pb, pt);
        out.dd = n * (0.25 * pt * (pa + pb) + pa * pb);
        out.dt = n * 0.5 * (pb - pa) * pt;
        out.tt = n * pt * (pa + pb);
    } else {
        s = rao_kupper_scores(d, t);
        double ca = (win + tie) * pf_sigmoid(d - t) * pf_sigmoid(t - d);
        double cb = (lose + tie) * pf_sigmoid(-d - t) * pf_sigmoid(d + t);
        double sinh_t = sinh(t);
        out.dd = ca + cb;
        out.dt = cb - ca;
        out.tt = ca + cb + tie / (sinh_t * sinh_t);
    }
    out.rd = win * s.win_d + lose * s.lose_d + tie * s.tie_d;
    out.rt = win * s.win_t + lose * s.lose_t + tie * s.tie_t;
    return out;
}
