/* A policy that keeps the activations of `keeps` sequences and watches what it is asked for. */
#ifndef SPY_POLICY_H
#define SPY_POLICY_H

#include "every_objective.h"
#include "model/pf_model.h"

static struct {
    prefopt_policy_callbacks own; /* of the policy behind */
    int64_t keeps, asked;
    int64_t scored, backward, calls; /* sequences, sequences, backward calls */
    int64_t score_calls;
    int64_t largest; /* most sequences of a backward call */
    int64_t again;   /* backward calls for other sequences than were scored last */
    int64_t cut;     /* parts that begin inside a run of sequences with one prompt */
    uint64_t last;
    int32_t last_prompt;
} spy;

static inline uint64_t hash_of(const prefopt_sequences *in)
{
    uint64_t hash = PF_HASH_START;
    for (int64_t i = 0; i < in->n; i++) {
        uint64_t one =
            pf_sequence_hash(pf_sequence_tokens(in, i), pf_sequence_len(in, i), in->prompt_len[i]);
        hash = pf_hash(hash, &one, sizeof one);
    }
    return hash;
}

static inline int64_t spy_keeps(void *payload, const prefopt_sequences *in)
{
    (void)payload;
    ck_assert_int_ge(in->n, 1);
    spy.asked++;
    return spy.keeps;
}

static inline int32_t spy_logprobs(void *payload, const prefopt_sequences *in,
                                   double *sequence_logp, double *token_logp)
{
    spy.scored += in->n;
    spy.score_calls += in->n > 0;
    spy.last = hash_of(in);
    return spy.own.logprobs(payload, in, sequence_logp, token_logp);
}

static inline int32_t spy_backward(void *payload, const prefopt_sequences *in, const double *grad)
{
    spy.calls++;
    spy.backward += in->n;
    spy.largest = in->n > spy.largest ? in->n : spy.largest;
    spy.again += hash_of(in) != spy.last;
    spy.cut += *pf_sequence_tokens(in, 0) == spy.last_prompt;
    spy.last_prompt = *pf_sequence_tokens(in, in->n - 1);
    return spy.own.backward(payload, in, grad);
}

static const pf_policy_extras spy_extras = {.keeps = spy_keeps};

/* keeps = 0: cannot tell, as other kinds. */
static inline void watch(prefopt_policy *policy, int64_t keeps)
{
    memset(&spy, 0, sizeof spy);
    spy.own = policy->callbacks;
    spy.keeps = keeps;
    policy->callbacks.logprobs = spy_logprobs;
    policy->callbacks.backward = spy_backward;
    policy->extras = keeps > 0 ? &spy_extras : NULL;
}

#endif
