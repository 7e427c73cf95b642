/* References: frozen policies behind the policy's own dispatch table. */
#ifndef PF_REFERENCE_H
#define PF_REFERENCE_H

#include "model/pf_model.h"

/* Every reference is a policy that nobody else holds, asked through const calls alone. */
struct prefopt_reference {
    _Atomic int64_t references;
    prefopt_policy *policy;
};

/* Takes the caller's reference to the policy; on failure the policy is still the caller's. */
int32_t pf_reference_wrap(prefopt_reference **out, prefopt_policy *policy);

/* A reference of the library's own kind: of its callbacks logprobs and destroy are used. On failure
 * the payload is still the caller's. */
int32_t pf_reference_create(prefopt_reference **out, prefopt_context *context,
                            const prefopt_space *space, const prefopt_policy_callbacks *callbacks,
                            void *payload);
prefopt_reference *pf_reference_retain(prefopt_reference *reference);

/* prefopt_reference_logprobs without its copy of the results: `in` was checked, and on failure the
 * array holds anything. */
int32_t pf_reference_logprobs(const prefopt_reference *reference, const prefopt_sequences *in,
                              double *sequence_logp);

#endif
