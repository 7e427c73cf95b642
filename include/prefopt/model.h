/* prefopt/model.h: policy, reference policy and reward model.
 *
 *     prefopt_space space = {.struct_size = sizeof space, .vocab = 3, .horizon = 1, .eos = -1};
 *     prefopt_policy *policy;
 *     prefopt_policy_create_tabular(&policy, context, &space, NULL);
 *     prefopt_policy_logprobs(policy, &sequences, sequence_logp, NULL);
 *
 * A policy turns token sequences into log-probabilities of their completions given their prompts,
 * and takes the gradient of a loss with respect to those back to its parameters. A reward model
 * does the same with scores. A reference is a policy that does not change. All kinds stand behind
 * one dispatch table, prefopt_policy_callbacks (prefopt_reward_callbacks), which callers can fill
 * themselves.
 *
 * Gradients add up over backward calls until prefopt_..._zero_grad. Calls that take a handle
 * without const need it alone; calls that take it const may run at once.
 */
#ifndef PREFOPT_MODEL_H
#define PREFOPT_MODEL_H

#include "data.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct prefopt_policy prefopt_policy;
typedef struct prefopt_reference prefopt_reference;
typedef struct prefopt_reward prefopt_reward;

/* What completions there can be: at most `horizon` tokens from 0 .. vocab-1. With eos = -1 every
 * completion has exactly `horizon` tokens; else it ends with the token eos or at the horizon. */
typedef struct prefopt_space {
    uint32_t struct_size;
    int32_t eos;     /* -1: none; else a token below vocab */
    int64_t vocab;   /* 1 .. 2^31 - 1 */
    int64_t horizon; /* >= 1 */
} prefopt_space;

/* Where a model's parameters and gradients lie: n numbers each, of one type. */
enum prefopt_dtype {
    PREFOPT_F64 = 0,
    PREFOPT_F32 = 1,
    PREFOPT_F16 = 2, /* IEEE half, in files alone */
    PREFOPT_BF16 = 3 /* bfloat16, in files alone */
};
typedef struct prefopt_parameters {
    uint32_t struct_size;
    int32_t dtype; /* prefopt_dtype */
    int64_t n;
    void *value; /* n doubles or floats, the model's own: written in place */
    void *grad;  /* n, the same type */
} prefopt_parameters;

/* ---------------------------------------------------------------- policy */

/* The dispatch table; the library's own kinds stand behind the same. Each entry returns 0,
 * PREFOPT_STOPPED or a negative status, which the call that asked returns too (any other value
 * becomes PREFOPT_ERR_CALLBACK). Entries are called on the thread that called the library, with
 * views that were checked and have n >= 1; with a space, completion tokens are below vocab. Answers
 * are checked: a log-probability that is NaN, above 0 or was not written is PREFOPT_ERR_NUMERIC and
 * names the sequence (up to 1e-6 is taken for rounding and becomes 0). An entry that fails half-way
 * may leave its output arrays half-written: the library hands them on only when all is well. */
typedef struct prefopt_policy_callbacks {
    uint32_t struct_size, reserved; /* reserved: 0 */
    /* Required. sequence_logp[i] = sum over the completion's tokens of log pi(token | before), 0
     * for an empty completion; token_logp (may be NULL): one a token of the view, counted from
     * in->offsets[0]; those of prompt tokens need not be written. On a clone it may be called from
     * several threads at once. */
    int32_t (*logprobs)(void *payload, const prefopt_sequences *in, double *sequence_logp,
                        double *token_logp);
    /* May be NULL: the policy cannot be trained. Adds sum_i grad_sequence_logp[i] *
     * d sequence_logp[i] / d parameters to the gradient. The gradients are finite; an entry of 0
     * must add nothing, also where sequence_logp[i] is -INFINITY. On failure nothing should have
     * been added. */
    int32_t (*backward)(void *payload, const prefopt_sequences *in,
                        const double *grad_sequence_logp);
    /* May be NULL: the policy cannot be sampled. For each sequence of `in` (prompt and the
     * completion so far), the log-probabilities of the next token: next_logp is [n, vocab]. A
     * sampler asks for all its unfinished rows in one call. */
    int32_t (*next_logprobs)(void *payload, const prefopt_sequences *in, double *next_logp);
    /* May be NULL when backward is. Gives where parameters and gradients lie, to be read or
     * written: memory shared with a clone must part here at the latest. They stay there until the
     * next clone. */
    int32_t (*parameters)(void *payload, prefopt_parameters *out);
    /* May be NULL: the policy cannot be frozen. Makes a copy in *copy that later changes of this
     * policy do not reach; the other callbacks will be called with it. It may share memory until
     * one of the two is asked for its parameters. */
    int32_t (*clone)(void *payload, void **copy);
    /* May be NULL: nothing to release. Called once for the payload and once for each clone. */
    void (*destroy)(void *payload);
    /* May be NULL. Parameters were written by an optimiser, cached numbers are stale. */
    int32_t (*updated)(void *payload);
} prefopt_policy_callbacks;

/* A policy of the caller's own: callbacks are copied, payload is passed to each. On failure destroy
 * is not called. space may be NULL when next_logprobs is. The caller owns *out.
 * Errors: ARGUMENT (names the missing entry), MEMORY, VERSION. Thread-safe. Since 0.1. */
PREFOPT_API int32_t prefopt_policy_create_custom(prefopt_policy **out, prefopt_context *context,
                                                 const prefopt_space *space,
                                                 const prefopt_policy_callbacks *callbacks,
                                                 void *payload);

/* A softmax for every state of the token tree up to the horizon, for each prompt, so that every
 * distribution over completions can be represented (the exact world of lecture 22.4):
 *     log pi(y | x) = sum_t [ l(x, y_<t, y_t) - log sum_v exp l(x, y_<t, v) ]
 * prompts: the sequences whose prompts it knows (completions are ignored, repeats are one), copied;
 * NULL: the empty prompt alone. Starts at logits 0, uniform over next tokens. Parameters: logits
 * [prompt][state][vocab], doubles; prompts in order of first appearance, states (completions that
 * can go on) by length, then lexicographically. A logit of -INFINITY is a fixed mask: probability
 * 0; sequences of probability 0 have no gradient. prefopt_policy_updated refuses a logit that is
 * NaN or +INFINITY and a state whose tokens are all masked (NUMERIC, names them);
 * once they are put back the policy answers as before. Sequences with another prompt, or
 * completions that are not of the space, are ARGUMENT in every call. The caller owns *out. Errors:
 * ARGUMENT, MEMORY (also when the tree overflows), VERSION. Thread-safe. Since 0.1. */
PREFOPT_API int32_t prefopt_policy_create_tabular(prefopt_policy **out, prefopt_context *context,
                                                  const prefopt_space *space,
                                                  const prefopt_sequences *prompts);

/* Makes a tabular policy equal to given log-probabilities of completions: for each prompt in `in`,
 * the listed completions get exp(logp), all others of that prompt 0; other prompts stay as they
 * are. The exp(logp) of a prompt must sum to 1 within 1e-9. Next-token probabilities in states that
 * cannot be reached become uniform. sequence_logp: in->n, also -INFINITY.
 * Errors: ARGUMENT (also a completion listed twice, and the sum), NUMERIC (NaN, above 0),
 * UNSUPPORTED (not tabular), MEMORY, VERSION. Since 0.1. */
PREFOPT_API int32_t prefopt_policy_set_logprobs(prefopt_policy *policy, const prefopt_sequences *in,
                                                const double *sequence_logp);

/* A log-linear policy over listed completions,
 *     log pi(y | x) = base_logp(x, y) + theta . phi(x, y) - log Z(x),
 * Z(x) summing over the listed completions of prompt x; others of the space have probability 0.
 * d log pi(y | x) / d theta = phi(x, y) - E_pi[phi(x, .)]. With base_logp = the reference's this is
 * the class in which lecture 22.3 lets DPO put mass outside the data.
 * space: as above; every listed completion must be of it and not empty. n_features >= 1. features:
 * [in->n, n_features], finite; base_logp: in->n, any numbers or -INFINITY, not all of a prompt;
 * NULL for 0. All are copied. Starts at theta = 0. Parameters: theta, doubles. Sequences with
 * another prompt, or completions that are not of the space, are ARGUMENT in every call. After a
 * prefix of probability 0 the next token is uniform. The caller owns *out.
 * Errors: ARGUMENT (also a sequence listed twice), NUMERIC, MEMORY, VERSION. Thread-safe. Since
 * 0.1. */
PREFOPT_API int32_t prefopt_policy_create_loglinear(prefopt_policy **out, prefopt_context *context,
                                                    const prefopt_space *space,
                                                    const prefopt_sequences *in, int64_t n_features,
                                                    const double *features,
                                                    const double *base_logp);

/* Gives up the caller's reference; NULL is fine. Since 0.1. */
PREFOPT_API void prefopt_policy_destroy(prefopt_policy *policy);

/* sequence_logp: n, the sum over the completion's tokens, in nats; token_logp: NULL, or one a token
 * of the view (counted from in->offsets[0]), 0 at prompt tokens. An empty completion has
 * log-probability 0. Errors: ARGUMENT (names sequence and token), NUMERIC (the policy's answer is
 * none), CALLBACK, MEMORY, VERSION. Since 0.1. */
PREFOPT_API int32_t prefopt_policy_logprobs(prefopt_policy *policy, const prefopt_sequences *in,
                                            double *sequence_logp, double *token_logp);

/* Adds sum_i grad_sequence_logp[i] * d sequence_logp[i] / d parameters to the gradient; entries of
 * 0 are skipped. grad_sequence_logp: n, finite. When one of the library's own kinds fails, nothing
 * was added (but for a transformer's batch in parts: see transformer.h). Errors: ARGUMENT, NUMERIC
 * (names the entry), UNSUPPORTED (it cannot be trained), CALLBACK, MEMORY, VERSION. Since 0.1. */
PREFOPT_API int32_t prefopt_policy_backward(prefopt_policy *policy, const prefopt_sequences *in,
                                            const double *grad_sequence_logp);

/* next_logp: [n, vocab], log-probabilities of the token after each sequence of `in` (prompt and the
 * completion so far, which must be able to go on). Errors: as prefopt_policy_logprobs, and
 * UNSUPPORTED. Since 0.1. */
PREFOPT_API int32_t prefopt_policy_next_logprobs(prefopt_policy *policy,
                                                 const prefopt_sequences *in, double *next_logp);

/* Where the parameters lie, to be read or written; call prefopt_policy_updated after writing. The
 * pointers are valid until the policy is frozen (then ask again before writing: it may have shared
 * its memory with the reference) or destroyed.
 * Errors: ARGUMENT, UNSUPPORTED, CALLBACK, MEMORY, VERSION. Since 0.1. */
PREFOPT_API int32_t prefopt_policy_parameters(prefopt_policy *policy, prefopt_parameters *out);

/* Tells the policy that its parameters were written. Until then it may answer with either.
 * Errors: ARGUMENT, NUMERIC (a parameter is none; names it), CALLBACK, MEMORY. Since 0.1. */
PREFOPT_API int32_t prefopt_policy_updated(prefopt_policy *policy);

/* Sets the gradient to 0. Errors: ARGUMENT, UNSUPPORTED, CALLBACK, MEMORY. Since 0.1. */
PREFOPT_API int32_t prefopt_policy_zero_grad(prefopt_policy *policy);

/* The space of completions. Errors: ARGUMENT, UNSUPPORTED (none is known), VERSION. May be called
 * at once from many threads. Since 0.1. */
PREFOPT_API int32_t prefopt_policy_space(const prefopt_policy *policy, prefopt_space *out);

/* 64-bit hash of the content: kind, shape, transitions, every parameter as it lies in memory (so -0
 * differs from 0), never 0. Equal contents have equal hashes in every process and for any number of
 * threads, on machines of one byte order; it is made at the speed of memory and tells apart what
 * differs by accident, but is not cryptographic. Of a custom policy the parameters alone count, not
 * what its code does with them. Errors: ARGUMENT, UNSUPPORTED (a custom policy without a parameters
 * callback), CALLBACK. Since 0.1. */
PREFOPT_API int32_t prefopt_policy_hash(prefopt_policy *policy, uint64_t *out);

/* All completions of the space for each row of `prompts` (any kind; its completions are ignored)
 * with their log-probabilities: a new dataset with one row of kind COMPLETIONS a prompt row, in
 * lexicographic order, column logp filled (completions of probability 0 are listed too). After a
 * prompt of p tokens a transformer's horizon is max_positions - p. Refused with UNSUPPORTED and the
 * count when there are more than `limit` completions a prompt (0: 1,000,000). The caller owns *out.
 * Errors: ARGUMENT, UNSUPPORTED, NUMERIC (also when the probabilities of a prompt do not sum to 1
 * within 1e-4), MEMORY, CALLBACK. Since 0.1. */
PREFOPT_API int32_t prefopt_policy_enumerate(prefopt_dataset **out, prefopt_policy *policy,
                                             const prefopt_dataset *prompts, int64_t limit);

/* Number of completions of a space. Without eos vocab^horizon; with it, (vocab-1)^horizon that
 * reach the horizon without it, and sum over l < horizon of (vocab-1)^l that end with it.
 * Errors: ARGUMENT, VERSION, UNSUPPORTED (it does not fit). Thread-safe. Since 0.1. */
PREFOPT_API int32_t prefopt_space_count(const prefopt_space *space, int64_t *count);

/* ---------------------------------------------------------------- reference */

/* A frozen snapshot: later changes of the policy do not reach it. (A large policy may share its
 * weights with it until it is asked for its parameters.) The caller owns *out.
 * Errors: ARGUMENT, UNSUPPORTED (no clone), MEMORY, CALLBACK. Since 0.1. */
PREFOPT_API int32_t prefopt_reference_freeze(prefopt_reference **out, const prefopt_policy *policy);

/* Equal probability for every completion of the space, after any prompt: -log(number of
 * completions), also where the number does not fit an integer. Sequences whose completion is not of
 * the space are ARGUMENT. The caller owns *out. Errors: ARGUMENT, MEMORY, VERSION. Thread-safe.
 * Since 0.1. */
PREFOPT_API int32_t prefopt_reference_create_uniform(prefopt_reference **out,
                                                     prefopt_context *context,
                                                     const prefopt_space *space);

/* Fixed log-probabilities (n, also -INFINITY; 0 for an empty completion) of listed sequences,
 * copied; any other sequence is ARGUMENT. Repeats are fine when they agree. The caller owns *out.
 * Errors: ARGUMENT (also one sequence with two values), NUMERIC (NaN, above 0), MEMORY, VERSION.
 * Thread-safe. Since 0.1. */
PREFOPT_API int32_t prefopt_reference_create_fixed(prefopt_reference **out,
                                                   prefopt_context *context,
                                                   const prefopt_sequences *in,
                                                   const double *sequence_logp);

/* The ref_logp column of a dataset (copied): answers for the sequences of that dataset alone,
 * checked token by token. The caller owns *out. Errors: ARGUMENT (also one sequence with two
 * values), STATE (the column is not complete; names the row; empty completions need none; or the
 * rows' ref_key do not all tell of one reference: some were changed since, or have none), NUMERIC
 * (above 0), MEMORY. Since 0.1. */
PREFOPT_API int32_t prefopt_reference_from_dataset(prefopt_reference **out,
                                                   const prefopt_dataset *dataset);

/* Gives up the caller's reference to the handle; NULL is fine. Since 0.1. */
PREFOPT_API void prefopt_reference_destroy(prefopt_reference *reference);

/* sequence_logp: n, as prefopt_policy_logprobs. May be called at once from many threads (the
 * snapshot of a custom policy: if its logprobs callback may). Errors: ARGUMENT (names the
 * sequence), CALLBACK, NUMERIC, MEMORY, VERSION. Since 0.1. */
PREFOPT_API int32_t prefopt_reference_logprobs(const prefopt_reference *reference,
                                               const prefopt_sequences *in, double *sequence_logp);

/* Called between pieces of work with the rows that are done (in their order) and all of them.
 * Return 0 to go on, anything else to stop. */
typedef int32_t (*prefopt_annotate_fn)(void *payload, int64_t done, int64_t total);

/* Fills the dataset's ref_logp column, each distinct sequence scored once, and sets the ref_key of
 * each row, which fits this reference (prefopt_reference_hash) and these tokens alone. A row whose
 * key fits is left as it is, so that a dataset that grew is annotated at the price of what is new;
 * a row whose key does not (another reference's numbers, or a row that was changed since) is an
 * error, never replaced: prefopt_dataset_set_column takes such numbers away. Numbers without a key
 * are replaced: nobody says whose they are. A reference without a hash leaves keys at 0. progress
 * may be NULL; when it asks to stop (on the thread that called), the rows done keep their numbers
 * and keys and the others are as before. On failure the dataset is as before. Errors: as above
 * (names the row it had come to), STATE (names the row, its key and the expected one);
 * PREFOPT_STOPPED. Since 0.1. */
PREFOPT_API int32_t prefopt_reference_annotate(const prefopt_reference *reference,
                                               prefopt_dataset *dataset,
                                               prefopt_annotate_fn progress, void *payload);

/* As prefopt_policy_hash, of the policy when it was frozen: but the kind is part of it, so that a
 * uniform reference is another than a policy that is uniform. That of
 * prefopt_reference_from_dataset is the hash of the reference that the rows' keys tell of, if they
 * have keys. Computed when it is first asked for. Errors: ARGUMENT, UNSUPPORTED (the snapshot of a
 * custom policy). May be called at once from many threads. Since 0.1. */
PREFOPT_API int32_t prefopt_reference_hash(const prefopt_reference *reference, uint64_t *out);

/* ---------------------------------------------------------------- reward model */

/* As prefopt_policy_callbacks. score: n numbers, finite, or -INFINITY for what should never be
 * chosen. */
typedef struct prefopt_reward_callbacks {
    uint32_t struct_size, reserved; /* reserved: 0 */
    /* Required. */
    int32_t (*scores)(void *payload, const prefopt_sequences *in, double *score);
    /* May be NULL: the reward cannot be trained. Adds sum_i grad_score[i] * d score[i] /
     * d parameters to the gradient. */
    int32_t (*backward)(void *payload, const prefopt_sequences *in, const double *grad_score);
    /* May be NULL when backward is. */
    int32_t (*parameters)(void *payload, prefopt_parameters *out);
    /* May be NULL: nothing to release. */
    void (*destroy)(void *payload);
    /* May be NULL. */
    int32_t (*updated)(void *payload);
} prefopt_reward_callbacks;

/* A reward of the caller's own: callbacks are copied, payload is passed to each. On failure destroy
 * is not called. The caller owns *out. Errors: ARGUMENT (names the missing entry), MEMORY, VERSION.
 * Thread-safe. Since 0.1. */
PREFOPT_API int32_t prefopt_reward_create_custom(prefopt_reward **out, prefopt_context *context,
                                                 const prefopt_reward_callbacks *callbacks,
                                                 void *payload);

/* One number for each distinct sequence of `in` (repeats are one), starting at 0; parameters are in
 * the order of first appearance, doubles. Any other sequence is ARGUMENT. The caller owns *out.
 * Errors: ARGUMENT, MEMORY, VERSION. Thread-safe. Since 0.1. */
PREFOPT_API int32_t prefopt_reward_create_tabular(prefopt_reward **out, prefopt_context *context,
                                                  const prefopt_sequences *in);

/* r(x, y) = theta . phi(x, y) for listed sequences; any other is ARGUMENT. n_features >= 1.
 * features: [in->n, n_features], finite, copied. Starts at theta = 0. Parameters: theta, doubles.
 * The caller owns *out. Errors: ARGUMENT (also one sequence with two feature rows), NUMERIC,
 * MEMORY, VERSION. Thread-safe. Since 0.1. */
PREFOPT_API int32_t prefopt_reward_create_linear(prefopt_reward **out, prefopt_context *context,
                                                 const prefopt_sequences *in, int64_t n_features,
                                                 const double *features);

/* DPO's own reward, r(x, y) = beta * log pi(y | x) / pi_ref(y | x), beta > 0. Keeps both handles;
 * training it trains the policy. The score is -INFINITY where the policy has probability 0, and
 * NUMERIC where the reference has. The caller owns *out. Errors: ARGUMENT, NUMERIC (beta is NaN),
 * MEMORY. Since 0.1. */
PREFOPT_API int32_t prefopt_reward_create_implicit(prefopt_reward **out, prefopt_policy *policy,
                                                   prefopt_reference *reference, double beta);

/* The local reward of lecture equation 22.6, r(x, y) = sum_h log pi(a_h | s_h): the policy's own
 * log-probability, without a reference. Keeps the policy; training it trains the policy. The caller
 * owns *out. Errors: ARGUMENT, MEMORY. Since 0.1. */
PREFOPT_API int32_t prefopt_reward_create_local(prefopt_reward **out, prefopt_policy *policy);

/* Gives up the caller's reference; NULL is fine. Since 0.1. */
PREFOPT_API void prefopt_reward_destroy(prefopt_reward *reward);

/* score: n, each finite or -INFINITY (custom rewards and those of a policy that says "never").
 * Errors: ARGUMENT (names the sequence), NUMERIC, CALLBACK, MEMORY, VERSION. Since 0.1. */
PREFOPT_API int32_t prefopt_reward_scores(prefopt_reward *reward, const prefopt_sequences *in,
                                          double *score);

/* Adds sum_i grad_score[i] * d score[i] / d parameters to the gradient. grad_score: n, finite.
 * Errors: as above, and UNSUPPORTED (it cannot be trained). Since 0.1. */
PREFOPT_API int32_t prefopt_reward_backward(prefopt_reward *reward, const prefopt_sequences *in,
                                            const double *grad_score);

/* As the calls of the same name on a policy. Since 0.1. */
PREFOPT_API int32_t prefopt_reward_parameters(prefopt_reward *reward, prefopt_parameters *out);
PREFOPT_API int32_t prefopt_reward_updated(prefopt_reward *reward);
PREFOPT_API int32_t prefopt_reward_zero_grad(prefopt_reward *reward);
PREFOPT_API int32_t prefopt_reward_hash(prefopt_reward *reward, uint64_t *out);

#ifdef __cplusplus
}
#endif
#endif
