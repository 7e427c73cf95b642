/* Rewards that a policy carries in itself: implicit (beta times its log-ratio to the reference) and
 * local (its log-probability). */
#include <math.h>

#include "model/pf_reference.h"
#include "model/pf_reward.h"

typedef struct {
    prefopt_policy *policy;
    prefopt_reference *reference; /* NULL: local */
    double beta;                  /* local: 1 */
} implicit;

static int32_t implicit_scores(void *payload, const prefopt_sequences *in, double *score)
{
    const implicit *m = payload;
    PF_TRY(pf_policy_logprobs(m->policy, in, score, NULL));
    if (m->reference == NULL)
        return PREFOPT_OK;
    prefopt_context *context = m->policy->context;
    double *ref = pf_alloc(context, in->n, sizeof *ref);
    if (ref == NULL)
        return PREFOPT_ERR_MEMORY;
    int32_t status = pf_reference_logprobs(m->reference, in, ref);
    for (int64_t i = 0; status == PREFOPT_OK && i < in->n; i++) {
        if (ref[i] == -INFINITY)
            status = pf_fail(PREFOPT_ERR_NUMERIC,
                             "sequence %lld has no implicit reward: log-probability %g under the "
                             "policy, -inf under the reference",
                             (long long)i, score[i]);
        else
            score[i] = m->beta * (score[i] - ref[i]);
    }
    pf_free(context, ref);
    return status;
}

static int32_t implicit_backward(void *payload, const prefopt_sequences *in,
                                 const double *grad_score)
{
    implicit *m = payload;
    prefopt_context *context = m->policy->context;
    double *grad = pf_alloc(context, in->n, sizeof *grad);
    if (grad == NULL)
        return PREFOPT_ERR_MEMORY;
    for (int64_t i = 0; i < in->n; i++)
        grad[i] = m->beta * grad_score[i];
    int32_t status = prefopt_policy_backward(m->policy, in, grad);
    pf_free(context, grad);
    return status;
}

static int32_t implicit_parameters(void *payload, prefopt_parameters *out)
{
    return prefopt_policy_parameters(((implicit *)payload)->policy, out);
}

static int32_t implicit_updated(void *payload)
{
    return prefopt_policy_updated(((implicit *)payload)->policy);
}

static int64_t implicit_keeps(void *payload, const prefopt_sequences *in)
{
    return pf_policy_keeps(((implicit *)payload)->policy, in);
}

static void implicit_glance(void *payload, bool on)
{
    const prefopt_policy *policy = ((implicit *)payload)->policy;
    if (policy->extras->glance != NULL)
        policy->extras->glance(policy->payload, on);
}

static void implicit_weights(void *payload, pf_values *out)
{
    const prefopt_policy *policy = ((implicit *)payload)->policy;
    (void)pf_extras_values(policy->extras, policy->payload, out);
}

static int32_t implicit_hash(void *payload, uint64_t *out)
{
    const implicit *m = payload;
    uint64_t policy, reference = 0;
    PF_TRY(prefopt_policy_hash(m->policy, &policy));
    if (m->reference != NULL)
        PF_TRY(prefopt_reference_hash(m->reference, &reference));
    uint64_t hash = pf_hash_kind(m->reference != NULL ? "implicit reward" : "local reward");
    *out = pf_hash_f64(pf_stream(pf_stream(hash, policy), reference), m->beta);
    return PREFOPT_OK;
}

/* Of a policy that can say how much it keeps, and of any other. */
static const pf_policy_extras keeping = {.keeps = implicit_keeps,
                                         .glance = implicit_glance,
                                         .weights = implicit_weights,
                                         .hash = implicit_hash},
                              plain = {.hash = implicit_hash};

static void implicit_destroy(void *payload)
{
    implicit *m = payload;
    prefopt_policy *policy = m->policy;
    prefopt_reference_destroy(m->reference);
    pf_free(policy->context, m);
    prefopt_policy_destroy(policy);
}

static int32_t create(prefopt_reward **out, prefopt_policy *policy, prefopt_reference *reference,
                      double beta)
{
    implicit *m = pf_alloc(policy->context, 1, sizeof *m);
    if (m == NULL)
        return PREFOPT_ERR_MEMORY;
    *m = (implicit){.policy = pf_policy_retain(policy),
                    .reference = reference == NULL ? NULL : pf_reference_retain(reference),
                    .beta = beta};
    /* What the policy cannot do, its reward cannot. */
    const prefopt_reward_callbacks callbacks = {
        .struct_size = sizeof callbacks,
        .scores = implicit_scores,
        .backward = policy->callbacks.backward == NULL ? NULL : implicit_backward,
        .parameters = policy->callbacks.parameters == NULL ? NULL : implicit_parameters,
        .destroy = implicit_destroy,
        .updated = implicit_updated,
    };
    int32_t status = pf_reward_create(out, policy->context, &callbacks, m);
    if (status != PREFOPT_OK) {
        implicit_destroy(m);
        return status;
    }
    (*out)->score_class = policy->score_class;
    (*out)->extras = policy->extras != NULL && policy->extras->keeps != NULL ? &keeping : &plain;
    return PREFOPT_OK;
}

int32_t prefopt_reward_create_implicit(prefopt_reward **out, prefopt_policy *policy,
                                       prefopt_reference *reference, double beta)
{
    PF_REQUIRE(out);
    PF_REQUIRE(policy);
    PF_REQUIRE(reference);
    if (!(beta > 0) || !isfinite(beta))
        return pf_fail(isnan(beta) ? PREFOPT_ERR_NUMERIC : PREFOPT_ERR_ARGUMENT,
                       "beta is %g, expected a finite number above 0", beta);
    return create(out, policy, reference, beta);
}

int32_t prefopt_reward_create_local(prefopt_reward **out, prefopt_policy *policy)
{
    PF_REQUIRE(out);
    PF_REQUIRE(policy);
    return create(out, policy, NULL, 1);
}
