/* Internal face of the model room: the handles behind their dispatch tables, and the space of
 * completions. */
#ifndef PF_MODEL_H
#define PF_MODEL_H

#include "base/pf_base.h"
#include "data/pf_data.h"
#include "model/pf_transformer.h"
#include "prefopt/model.h"

/* ---- the space of completions (space.c) */

/* Checks the caller's space and copies it. ARGUMENT or VERSION. */
int32_t pf_space_read(prefopt_space *own, const prefopt_space *space);

/* Tokens a completion can go on after: all but eos. */
static inline int64_t pf_space_alphabet(const prefopt_space *space)
{
    return space->eos < 0 ? space->vocab : space->vocab - 1;
}

/* log of the number of completions, also where the number itself overflows. */
double pf_space_log_count(const prefopt_space *space);

/* Each names the sequence and the token. Of sequence i of a checked view:
 * its completion's tokens are below vocab; */
int32_t pf_space_check_tokens(const prefopt_space *space, const prefopt_sequences *in, int64_t i);
/* its completion is of the space, or empty; */
int32_t pf_space_check_completion(const prefopt_space *space, const prefopt_sequences *in,
                                  int64_t i);
/* its completion can go on: shorter than the horizon and without eos. */
int32_t pf_space_check_prefix(const prefopt_space *space, const prefopt_sequences *in, int64_t i);

/* Index of sequence i's prompt in a map of prompts; -1 with the error text (ARGUMENT) if it is not
 * there. */
int64_t pf_find_prompt(const pf_sequence_map *prompts, const prefopt_sequences *in, int64_t i);

/* The completion of sequence i of a checked view. */
static inline const int32_t *pf_completion(const prefopt_sequences *in, int64_t i, int64_t *len)
{
    *len = pf_sequence_len(in, i) - in->prompt_len[i];
    return *len > 0 ? in->tokens + in->offsets[i] + in->prompt_len[i] : NULL;
}

/* ---- policy (policy.c) */

/* What is known of how scores (log-probabilities up to a number for each prompt, rewards) hang on
 * the parameters: what decides whether a fit's optimum is finite. */
enum pf_score_class {
    PF_SCORES_OTHER = 0,
    PF_SCORES_FREE = 1,  /* any numbers can be had, sequence by sequence */
    PF_SCORES_LINEAR = 2 /* differences are linear in the parameters */
};

/* See pf_decoder.h. */
typedef struct pf_decoder pf_decoder;

/* Parameters to be read alone: nothing is copied, and weights that are shared stay shared. */
typedef struct {
    const pf_shape *shape; /* of a transformer; else NULL */
    int32_t dtype;
    int64_t n;
    const void *value;
    const pf_transitions *transitions; /* of a transformer; NULL: every token may follow */
} pf_values;

/* What the library's own kinds can tell beyond their public callbacks. Each entry may be NULL. */
typedef struct pf_policy_extras {
    /* See pf_policy_keeps; in->n >= 1. */
    int64_t (*keeps)(void *payload, const prefopt_sequences *in);
    /* A decoder of the policy's present weights, to be given back (decoder_done) before they
     * change; scale: see pf_decoder_create. Its shape's vocabulary and eos are the space's. MEMORY.
     */
    int32_t (*decoder)(void *payload, float scale, pf_decoder **out);
    /* Of the transformer behind; nothing is written where there is none. */
    void (*weights)(void *payload, pf_values *out);
    /* Of all that decides what it answers: kind, shape, parameters. */
    int32_t (*hash)(void *payload, uint64_t *out);
    /* There where decoder is: it may be kept for the next who asks. */
    void (*decoder_done)(void *payload, pf_decoder *decoder);
    /* on: until it is off again, nothing is kept for a backward pass. Not at once with other calls.
     */
    void (*glance)(void *payload, bool on);
} pf_policy_extras;

struct prefopt_policy {
    prefopt_context *context;
    _Atomic int64_t references;
    prefopt_policy_callbacks callbacks;
    void *payload;
    bool builtin;                   /* its callbacks write the error text themselves */
    bool has_space;                 /* space is known */
    int32_t score_class;            /* pf_score_class */
    const pf_policy_extras *extras; /* NULL: none; clones have the same */
    prefopt_space space;
};

/* A handle around callbacks of the library's own. space may be NULL. On failure the payload is
 * still the caller's. */
int32_t pf_policy_create(prefopt_policy **out, prefopt_context *context, const prefopt_space *space,
                         const prefopt_policy_callbacks *callbacks, void *payload);
prefopt_policy *pf_policy_retain(prefopt_policy *policy);

/* An independent policy with a cloned payload. UNSUPPORTED without a clone callback. */
int32_t pf_policy_clone(prefopt_policy **out, const prefopt_policy *policy);

/* The calls behind the public ones, without their copy of the results: `in` was checked, and on
 * failure the output arrays hold anything. Answers are checked. They leave the handle as it is, so
 * that a frozen policy can be asked from many threads. n = 0 is fine. */
int32_t pf_policy_logprobs(const prefopt_policy *policy, const prefopt_sequences *in,
                           double *sequence_logp, double *token_logp);
int32_t pf_policy_next_logprobs(const prefopt_policy *policy, const prefopt_sequences *in,
                                double *next_logp);

/* How many sequences of a checked view, from the first on, one logprobs call followed by one
 * backward call can take within the context's byte budget without computing anything twice: in->n,
 * or less but at least 1. A negative status when it cannot be found out: MEMORY. */
int64_t pf_policy_keeps(const prefopt_policy *policy, const prefopt_sequences *in);

/* ---- parts of content hashes (model_hash.c) */
uint64_t pf_hash_kind(const char *kind); /* what a kind's hash starts with */
uint64_t pf_hash_f64(uint64_t hash, double x);
uint64_t pf_hash_space(uint64_t hash, const prefopt_space *space);

/* ---- shared by policy and reward (callbacks.c) */

/* Errors: UNSUPPORTED (no parameters callback), CALLBACK and those of the callback. A reward's are
 * in pf_reward.h. */
int32_t pf_policy_values(const prefopt_policy *policy, pf_values *out);
/* False: not known to be a transformer's. */
bool pf_extras_values(const pf_policy_extras *extras, void *payload, pf_values *out);

/* The answer of extras (may be NULL), at most in->n. */
int64_t pf_extras_keeps(const pf_policy_extras *extras, void *payload, const prefopt_sequences *in);

/* Status of a callback of the caller's own, as the library passes it on. owner: "policy". */
int32_t pf_callback_status(int32_t status, const char *owner, const char *entry);

/* Checks what a parameters callback answered. CALLBACK. */
int32_t pf_parameters_check(const prefopt_parameters *parameters, const char *owner);
void pf_parameters_zero_grad(const prefopt_parameters *parameters);

/* NaN or an infinity among n gradients is NUMERIC and names array and index. */
int32_t pf_gradients_check(const double *grad, int64_t n, const char *name);

/* Checks features [in->n, n_features] of a checked view. ARGUMENT, NUMERIC, MEMORY (overflow). */
int32_t pf_features_check(const prefopt_sequences *in, int64_t n_features, const double *features);

/* Gate helper: checks `in` and that out is there when n > 0. */
#define PF_REQUIRE_FOR(in, array)                                                                  \
    do {                                                                                           \
        if ((in)->n > 0 && (array) == NULL)                                                        \
            return pf_fail(PREFOPT_ERR_ARGUMENT, "%s: %s is NULL but in->n is %lld", __func__,     \
                           #array, (long long)(in)->n);                                            \
    } while (0)

#endif
