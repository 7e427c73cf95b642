/* KTO: single completions, desirable or not, against a KL baseline that the caller gives. */
#include "loss/pf_loss.h"

static const prefopt_kto_options defaults = {
    .struct_size = sizeof(prefopt_kto_options),
    .beta = 0.1,
    .lambda_desirable = 1,
    .lambda_undesirable = 1,
};

int32_t prefopt_kto_options_init(prefopt_kto_options *options, uint32_t struct_size)
{
    return pf_struct_init(options, struct_size, &defaults, sizeof defaults, sizeof defaults,
                          "prefopt_kto_options");
}

static int32_t check_options(const prefopt_kto_options *o)
{
    const struct {
        const char *name;
        double value;
    } fields[] = {{"kl", o->kl},
                  {"lambda_desirable", o->lambda_desirable},
                  {"lambda_undesirable", o->lambda_undesirable}};
    if (o->reserved != 0)
        return pf_fail(PREFOPT_ERR_ARGUMENT, "prefopt_kto_options: reserved is %u, expected 0",
                       o->reserved);
    if (!(o->beta > 0 && o->beta <= DBL_MAX))
        return pf_fail(PREFOPT_ERR_ARGUMENT, "beta is %g, expected a finite number > 0", o->beta);
    for (size_t i = 0; i < sizeof fields / sizeof fields[0]; i++)
        if (!(fields[i].value >= 0 && fields[i].value <= DBL_MAX))
            return pf_fail(PREFOPT_ERR_ARGUMENT, "%s is %g, expected a finite number >= 0",
                           fields[i].name, fields[i].value);
    return PREFOPT_OK;
}

static int32_t check_scores(const prefopt_kto_scores *in, double *total_weight)
{
    bool moderate = true;
    if (in->reserved != 0)
        return pf_fail(PREFOPT_ERR_ARGUMENT, "prefopt_kto_scores: reserved is %u, expected 0",
                       in->reserved);
    PF_TRY(pf_check_array("logp", in->n, in->logp));
    PF_TRY(pf_check_array("desirable", in->n, in->desirable));
    PF_TRY(pf_check_values("logp", in->n, in->logp, true, &moderate));
    PF_TRY(pf_check_values("ref_logp", in->n, in->ref_logp, true, &moderate));
    PF_TRY(pf_check_weights(in->n, in->weight, total_weight));
    for (int64_t i = 0; i < in->n; i++)
        if (in->desirable[i] != 0 && in->desirable[i] != 1)
            return pf_fail(PREFOPT_ERR_ARGUMENT, "desirable[%lld] is %d, expected 0 or 1",
                           (long long)i, in->desirable[i]);
    for (int64_t i = 0; !moderate && in->ref_logp != NULL && i < in->n; i++)
        if (isinf(in->logp[i]) && isinf(in->ref_logp[i]) &&
            (in->weight == NULL || in->weight[i] > 0))
            return pf_fail(PREFOPT_ERR_NUMERIC,
                           "example %lld has no KTO loss: logp and ref_logp are both -INFINITY, "
                           "which leaves infinity minus infinity",
                           (long long)i);
    return PREFOPT_OK;
}

int32_t prefopt_loss_kto(const prefopt_kto_options *options, const prefopt_kto_scores *in,
                         prefopt_kto_loss *out)
{
    PF_REQUIRE(in);
    PF_REQUIRE(out);
    prefopt_kto_options o = defaults;
    prefopt_kto_scores s;
    double total;
    if (options != NULL)
        PF_TRY(pf_struct_read(&o, sizeof o, sizeof o, options, "prefopt_kto_options"));
    PF_TRY(check_options(&o));
    PF_TRY(pf_struct_read(&s, sizeof s, sizeof s, in, "prefopt_kto_scores"));
    prefopt_kto_loss own;
    PF_TRY(pf_struct_read(&own, sizeof own, sizeof own, out, "prefopt_kto_loss"));
    PF_TRY(check_scores(&s, &total));

    pf_sum sum = {0, 0};
    double term[PF_CHUNK];
    for (int64_t first = 0; first < s.n; first += PF_CHUNK) {
        int64_t many = s.n - first < PF_CHUNK ? s.n - first : PF_CHUNK;
        for (int64_t i = 0; i < many; i++) {
            int64_t at = first + i;
            double u = s.logp[at] - (s.ref_logp == NULL ? 0 : s.ref_logp[at]);
            double sign = s.desirable[at] ? 1 : -1, w = s.weight == NULL ? 1 : s.weight[at];
            double lambda = s.desirable[at] ? o.lambda_desirable : o.lambda_undesirable;
            double z = sign * o.beta * (u - o.kl), miss = pf_sigmoid(-z);
            double loss = isnan(u) ? 0 : lambda * miss;
            double slope = isnan(u) ? 0 : -sign * o.beta * lambda * miss * pf_sigmoid(z);
            term[i] = pf_weighted(w, loss);
            if (out->each != NULL)
                out->each[at] = loss;
            if (out->grad_logp != NULL)
                out->grad_logp[at] = total > 0 ? w / total * pf_finite_or_zero(slope) : 0;
        }
        pf_sum_add(&sum, pf_lane_sum(many, term));
    }
    out->mean = total > 0 ? pf_sum_value(&sum) / total : 0;
    return PREFOPT_OK;
}
