/* prefopt/ppo.h: policy gradients by token, for those who have a value function: generalised
 * advantages, PPO's clipped surrogate, the value loss.
 *
 *     prefopt_ppo_options options;
 *     prefopt_ppo_options_init(&options, sizeof options);
 *     options.beta = 0.05;
 *     prefopt_token_scores in = {.struct_size = sizeof in, .n = n, .offsets = offsets,
 *                                .prompt_len = prompt_len, .reward = reward, .logp = logp,
 *                                .ref_logp = ref_logp, .value = value};
 *     prefopt_gae(&options, &in, advantage, returns);
 *     ... keep logp as old_logp and value as old_value; then, for some passes over these tokens:
 *     in.old_logp = old_logp, in.old_value = old_value, in.logp = logp_now, in.value = value_now;
 *     prefopt_pg_loss policy = {.struct_size = sizeof policy, .grad_logp = grad_logp};
 *     prefopt_loss_ppo_tokens(&options, &in, advantage, &policy);
 *     prefopt_value_loss critic = {.struct_size = sizeof critic, .grad_value = grad_value};
 *     prefopt_loss_value(&options, &in, returns, &critic);
 *
 * A token's log-probability is that of the token given all before it, so a completion's is the sum
 * of its tokens', and the KL of completions the expected sum of the tokens' KLs. A completion-level
 * gradient (prefopt/policy_gradient.h) is this one with one advantage for all its tokens and
 * PREFOPT_TOKENS_FIXED_LENGTH. What that header says of infinities and of arrays that are not read
 * holds here.
 */
#ifndef PREFOPT_PPO_H
#define PREFOPT_PPO_H

#include "base.h"
#include "policy_gradient.h"

#ifdef __cplusplus
extern "C" {
#endif

/* n sequences laid end to end as in prefopt_sequences: tokens offsets[s] .. offsets[s + 1] - 1 are
 * sequence s, the first prompt_len[s] of them its prompt, the rest its completion. Arrays "by
 * token" have offsets[n] entries; those at prompt tokens are not looked at, and outputs are 0
 * there. Borrowed for the call. */
typedef struct prefopt_token_scores {
    uint32_t struct_size, reserved; /* reserved: 0 */
    int64_t n;                      /* >= 0 */
    const int64_t *offsets;         /* n + 1, from 0 or more, never falling */
    const int64_t *prompt_len;      /* n; NULL: no prompts */
    const double *reward;           /* by token, finite: often 0 but at a sequence's last token */
    const double *logp;             /* by token, under the policy now */
    const double *ref_logp;         /* by token, under the reference; may be NULL when beta is 0 */
    const double *old_logp;         /* by token, under the policy that sampled; NULL: logp */
    const double *value;            /* by token, finite: the value function now, before the token is
                                     * chosen */
    const double *old_value; /* by token, finite: the one that advantages are taken from; NULL:
                              * value */
    const double *bootstrap; /* n, finite: the value after a sequence's last token, where it was
                              * cut short; NULL: 0, the sequences are complete */
} prefopt_token_scores;

/* How tokens make one number; c_t is a token's weight, n counts all sequences. */
enum prefopt_token_aggregation {
    PREFOPT_TOKENS_MEAN = 0,          /* c_t = 1 / (completion tokens of all) */
    PREFOPT_TOKENS_SEQUENCE_MEAN = 1, /* c_t = 1 / (n * completion tokens of its sequence): GRPO,
                                       * arXiv 2402.03300; long completions' tokens count less */
    PREFOPT_TOKENS_FIXED_LENGTH = 2   /* c_t = 1 / (n * fixed_length): arXiv 2503.20783, no bias by
                                       * length */
};

typedef struct prefopt_ppo_options {
    uint32_t struct_size;
    int32_t kl_placement; /* prefopt_kl_placement; default IN_REWARD */
    int32_t kl_estimator; /* prefopt_kl_estimator; default K1, as in prefopt_pg_options */
    int32_t aggregation;  /* prefopt_token_aggregation; default MEAN */
    double beta;          /* >= 0, finite; default 0 */
    double clip_low;      /* in [0, 1); default 0.2 */
    double clip_high;     /* >= 0, may be INFINITY; default 0.2. Both 0: no clip */
    double gamma;         /* discount, in [0, 1]; default 1 */
    double lambda;        /* GAE, in [0, 1]; default 0.95 */
    double clip_value;    /* > 0: how far from old_value; 0 (default): no clip */
    int64_t fixed_length; /* >= 1, FIXED_LENGTH alone; default 0 */
} prefopt_ppo_options;

typedef struct prefopt_value_loss {
    uint32_t struct_size, reserved;
    double mean;          /* out: the loss, to be minimised */
    double clip_fraction; /* out: share of the tokens whose gradient the clip took away */
    double *grad_value;   /* out, by token, or NULL: d mean / d value */
} prefopt_value_loss;

/* Fills options with the defaults. struct_size: sizeof *options.
 * Errors: ARGUMENT (NULL), VERSION. Thread-safe. Since 0.1. */
PREFOPT_API int32_t prefopt_ppo_options_init(prefopt_ppo_options *options, uint32_t struct_size);

/* Generalised advantage estimates and returns (arXiv 1506.02438, eq. 16), in each sequence from its
 * last token back:
 *
 *     delta_t = R_t + gamma V_{t+1} - V_t,    A_t = delta_t + gamma lambda A_{t+1},
 *     returns_t = A_t + V_t,                  V after the last token: bootstrap, or 0
 *
 * with R = reward, or with the KL in the reward and beta > 0, R = reward - beta (logp - ref_logp);
 * V is old_value, or value. lambda = 1 weighs the rewards to come less V (unbiased whatever V is);
 * lambda = 0 trusts V.
 *
 * options: NULL: defaults. advantage, returns: out, by token; returns may be NULL. Read: offsets,
 * prompt_len, reward, old_value or value, bootstrap; logp and ref_logp with the KL in the reward
 * and beta > 0. Where ref_logp alone is -INFINITY, R is -INFINITY, and so are A and the returns
 * there and (gamma lambda > 0) before it.
 *
 * Errors: ARGUMENT (NULL, a size, offset or option out of range), NUMERIC (NaN, an infinity without
 * meaning, |R| or |V| above 1e280), VERSION. Thread-safe. Since 0.1. */
PREFOPT_API int32_t prefopt_gae(const prefopt_ppo_options *options, const prefopt_token_scores *in,
                                double *advantage, double *returns);

/* The clipped surrogate by token (arXiv 1707.06347, eq. 7) and its gradient by logp:
 *
 *     mean = -sum_t c_t min(A_t rho_t, A_t clip(rho_t, 1 - clip_low, 1 + clip_high))
 *            + beta kl (IN_LOSS alone),
 *     kl = sum_t c_t rho_t k(logp_t - ref_logp_t),    rho_t = exp(logp_t - old_logp_t)
 *
 * with the aggregation's c_t. Everything else, the gradient by token and what it is without
 * old_logp included, is as prefopt_loss_policy_gradient says of completions. The ratio is the
 * token's own: that the tokens before it came from the older policy is not corrected for, as in
 * PPO. clip_fraction is a share of the completion tokens.
 *
 * options: NULL: defaults. advantage: by token, finite or -INFINITY. out->grad_logp: by token, or
 * NULL. Read: offsets, prompt_len, logp, ref_logp, old_logp. No completion tokens: mean, kl and
 * clip_fraction are 0.
 *
 * Errors: ARGUMENT (NULL, a size, offset or option out of range, beta > 0 without ref_logp),
 * NUMERIC (as prefopt_loss_policy_gradient), VERSION. Thread-safe. Since 0.1. */
PREFOPT_API int32_t prefopt_loss_ppo_tokens(const prefopt_ppo_options *options,
                                            const prefopt_token_scores *in, const double *advantage,
                                            prefopt_pg_loss *out);

/* The value function's squared error and its gradient by value:
 *
 *     mean = sum_t c_t max((V_t - G_t)^2, (V'_t - G_t)^2) / 2,
 *     V'_t = V_t held to [old_value_t - clip_value, old_value_t + clip_value]; V_t without a clip
 *
 * with V = value, G the returns. Where V' gives the larger error the gradient is 0 and the token
 * counts for clip_fraction.
 *
 * options: NULL: defaults. returns: by token, finite. Read: offsets, prompt_len, value; old_value
 * with clip_value > 0.
 *
 * Errors: ARGUMENT (NULL, a size, offset or option out of range, clip_value > 0 without old_value),
 * NUMERIC (NaN or an infinity), VERSION. Thread-safe. Since 0.1. */
PREFOPT_API int32_t prefopt_loss_value(const prefopt_ppo_options *options,
                                       const prefopt_token_scores *in, const double *returns,
                                       prefopt_value_loss *out);

#ifdef __cplusplus
}
#endif
#endif
