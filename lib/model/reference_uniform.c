/* Uniform reference: -log(number of completions) for each completion of the space. */
#include "model/pf_reference.h"

typedef struct {
    prefopt_context *context;
    prefopt_space space;
    double logp;
} uniform;

static int32_t uniform_logprobs(void *payload, const prefopt_sequences *in, double *sequence_logp,
                                double *token_logp)
{
    (void)token_logp; /* references are asked for sequences alone */
    const uniform *u = payload;
    for (int64_t i = 0; i < in->n; i++) {
        PF_TRY(pf_space_check_completion(&u->space, in, i));
        sequence_logp[i] = pf_sequence_len(in, i) == in->prompt_len[i] ? 0 : u->logp;
    }
    return PREFOPT_OK;
}

static int32_t uniform_hash(void *payload, uint64_t *out)
{
    const uniform *u = payload;
    *out = pf_hash_space(pf_hash_kind("uniform reference"), &u->space);
    return PREFOPT_OK;
}

static const pf_policy_extras extras = {.hash = uniform_hash};

static void uniform_destroy(void *payload)
{
    uniform *u = payload;
    prefopt_context *context = u->context;
    pf_free(context, u);
    pf_context_release(context);
}

int32_t prefopt_reference_create_uniform(prefopt_reference **out, prefopt_context *context,
                                         const prefopt_space *space)
{
    PF_REQUIRE(out);
    PF_REQUIRE(context);
    prefopt_space own;
    PF_TRY(pf_space_read(&own, space));
    uniform *u = pf_alloc(context, 1, sizeof *u);
    if (u == NULL)
        return PREFOPT_ERR_MEMORY;
    *u = (uniform){
        .context = pf_context_retain(context), .space = own, .logp = 0 - pf_space_log_count(&own)};
    static const prefopt_policy_callbacks callbacks = {
        .struct_size = sizeof callbacks, .logprobs = uniform_logprobs, .destroy = uniform_destroy};
    int32_t status = pf_reference_create(out, context, &own, &callbacks, &extras, u);
    if (status != PREFOPT_OK)
        uniform_destroy(u);
    return status;
}
