/* The reward handle behind its dispatch table. */
#ifndef PF_REWARD_H
#define PF_REWARD_H

#include "model/pf_model.h"

struct prefopt_reward {
    prefopt_context *context;
    _Atomic int64_t references;
    prefopt_reward_callbacks callbacks;
    void *payload;
    bool builtin;                   /* its callbacks write the error text themselves */
    int32_t score_class;            /* pf_score_class */
    const pf_policy_extras *extras; /* NULL: none */
};

/* A handle around callbacks of the library's own. On failure the payload is still the caller's. */
int32_t pf_reward_create(prefopt_reward **out, prefopt_context *context,
                         const prefopt_reward_callbacks *callbacks, void *payload);
prefopt_reward *pf_reward_retain(prefopt_reward *reward);

/* prefopt_reward_scores without its copy of the results: `in` was checked, and on failure the array
 * holds anything. */
int32_t pf_reward_scores(const prefopt_reward *reward, const prefopt_sequences *in, double *score);

/* As pf_policy_values. */
int32_t pf_reward_values(const prefopt_reward *reward, pf_values *out);

/* As pf_policy_keeps, for scores and backward. */
int64_t pf_reward_keeps(const prefopt_reward *reward, const prefopt_sequences *in);

#endif
