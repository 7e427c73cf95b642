/* Plackett-Luce: the loss of a ranking by one pass from its last item to its first, which keeps
 * L_j = log(sum over i >= j of exp(s_i)); gradients by a pass back. */
#include "loss/pf_loss.h"

static const prefopt_pl_options defaults = {
    .struct_size = sizeof(prefopt_pl_options),
    .beta = 1,
};

int32_t prefopt_pl_options_init(prefopt_pl_options *options, uint32_t struct_size)
{
    return pf_struct_init(options, struct_size, &defaults, sizeof defaults, sizeof defaults,
                          "prefopt_pl_options");
}

static double scaled(const prefopt_ranking_scores *in, double beta, int64_t j)
{
    return beta * (in->score[j] - (in->ref_logp == NULL ? 0 : in->ref_logp[j]));
}

static double weight_of(const prefopt_ranking_scores *in, int64_t i)
{
    return in->weight == NULL ? 1 : in->weight[i];
}

/* One past the last item of ranking i at whose stage something is chosen: the last of all is alone
 * and is no choice. */
static int64_t stages_end(const prefopt_ranking_scores *in, int64_t i)
{
    int64_t from = in->offsets[i], to = in->offsets[i + 1];
    int64_t end = in->n_ranked == NULL ? to : from + in->n_ranked[i];
    return end == to && to > from ? to - 1 : end;
}

/* The loss of ranking i; NaN where it has none. L_j goes to tail[j - offsets[i]] unless NULL. */
static double loss_of(const prefopt_ranking_scores *in, double beta, int64_t i, double *tail)
{
    int64_t from = in->offsets[i], to = in->offsets[i + 1], end = stages_end(in, i);
    double rest = -INFINITY, loss = 0;
    for (int64_t j = to - 1; j >= from; j--) {
        double s = scaled(in, beta, j);
        /* L_j - s_j = log(1 + exp(L_{j+1} - s_j)) */
        if (j < end)
            loss += pf_softplus(rest - s);
        rest = pf_log_add_exp(rest, s);
        if (tail != NULL)
            tail[j - from] = rest;
    }
    return loss;
}

/* Turns grad[0 ..] of ranking i, which holds L_j, into factor * d loss / d s_j: -(1 - p) at an
 * item's own stage, p being its probability there, and its probability exp(s_j - L) at each stage
 * before. L never rises from stage to stage, so the sum over earlier stages is kept relative to the
 * last of them: ratio = sum of exp(L_last - L), which no term overflows. */
static void gradient_of(const prefopt_ranking_scores *in, double beta, int64_t i, double factor,
                        double *grad)
{
    int64_t from = in->offsets[i], to = in->offsets[i + 1], end = stages_end(in, i);
    double ratio = 0, last = INFINITY;
    double certain = 0; /* earlier stages at which something of s = inf is left */
    for (int64_t j = from; j < to; j++) {
        double s = scaled(in, beta, j), here = grad[j - from];
        double slope = s == INFINITY ? certain : ratio * exp(s - last);
        if (j < end) {
            slope -= pf_sigmoid(grad[j + 1 - from] - s);
            certain += here == INFINITY;
            ratio = last == INFINITY ? 1 : 1 + ratio * exp(here - last);
            last = here;
        }
        grad[j - from] = factor * pf_finite_or_zero(beta * slope);
    }
}

static int32_t check_rankings(const prefopt_ranking_scores *in)
{
    if (in->reserved != 0)
        return pf_fail(PREFOPT_ERR_ARGUMENT, "prefopt_ranking_scores: reserved is %u, expected 0",
                       in->reserved);
    if (in->n < 0)
        return pf_fail(PREFOPT_ERR_ARGUMENT, "n is %lld, expected >= 0", (long long)in->n);
    PF_REQUIRE(in->offsets);
    if (in->offsets[0] != 0)
        return pf_fail(PREFOPT_ERR_ARGUMENT, "offsets[0] is %lld, expected 0",
                       (long long)in->offsets[0]);
    for (int64_t i = 0; i < in->n; i++) {
        int64_t from = in->offsets[i], to = in->offsets[i + 1];
        if (to < from)
            return pf_fail(PREFOPT_ERR_ARGUMENT,
                           "offsets[%lld] is %lld, expected at least the one before it, %lld",
                           (long long)(i + 1), (long long)to, (long long)from);
        if (in->n_ranked != NULL && (in->n_ranked[i] < 0 || in->n_ranked[i] > to - from))
            return pf_fail(PREFOPT_ERR_ARGUMENT,
                           "n_ranked[%lld] is %lld, expected 0 to %lld, the ranking's items",
                           (long long)i, (long long)in->n_ranked[i], (long long)(to - from));
    }
    return PREFOPT_OK;
}

static int32_t check_losses(const prefopt_ranking_scores *in, double beta)
{
    for (int64_t i = 0; i < in->n; i++)
        if (weight_of(in, i) > 0 && isnan(loss_of(in, beta, i, NULL)))
            return pf_fail(PREFOPT_ERR_NUMERIC,
                           "ranking %lld has no Plackett-Luce loss: at one of its stages the "
                           "infinite scores leave infinity minus infinity",
                           (long long)i);
    return PREFOPT_OK;
}

int32_t prefopt_loss_plackett_luce(const prefopt_pl_options *options,
                                   const prefopt_ranking_scores *in, prefopt_ranking_loss *out)
{
    PF_REQUIRE(in);
    PF_REQUIRE(out);
    prefopt_pl_options o = defaults;
    prefopt_ranking_scores s;
    double total;
    bool moderate = true;
    if (options != NULL)
        PF_TRY(pf_struct_read(&o, sizeof o, sizeof o, options, "prefopt_pl_options"));
    if (o.reserved != 0)
        return pf_fail(PREFOPT_ERR_ARGUMENT, "prefopt_pl_options: reserved is %u, expected 0",
                       o.reserved);
    if (!(o.beta > 0 && o.beta <= DBL_MAX))
        return pf_fail(PREFOPT_ERR_ARGUMENT, "beta is %g, expected a finite number > 0", o.beta);
    PF_TRY(pf_struct_read(&s, sizeof s, sizeof s, in, "prefopt_ranking_scores"));
    prefopt_ranking_loss own;
    PF_TRY(pf_struct_read(&own, sizeof own, sizeof own, out, "prefopt_ranking_loss"));
    PF_TRY(check_rankings(&s));
    int64_t items = s.offsets[s.n];
    PF_TRY(pf_check_array("score", items, s.score));
    PF_TRY(pf_check_values("score", items, s.score, true, &moderate));
    PF_TRY(pf_check_values("ref_logp", items, s.ref_logp, true, &moderate));
    PF_TRY(pf_check_weights(s.n, s.weight, &total));
    if (!moderate || o.beta > PF_MODERATE)
        PF_TRY(check_losses(&s, o.beta));

    pf_sum sum = {0, 0};
    for (int64_t i = 0; i < s.n; i++) {
        double *grad = out->grad_score == NULL ? NULL : out->grad_score + s.offsets[i];
        double w = weight_of(&s, i), loss = loss_of(&s, o.beta, i, grad);
        if (grad != NULL)
            gradient_of(&s, o.beta, i, total > 0 ? w / total : 0, grad);
        if (out->each != NULL)
            out->each[i] = isnan(loss) ? 0 : loss;
        pf_sum_add(&sum, pf_weighted(w, loss));
    }
    out->mean = total > 0 ? pf_sum_value(&sum) / total : 0;
    return PREFOPT_OK;
}
