/* What the tests of several ranks share: models that count and fail, and one rank of a job. */
#ifndef PF_RANKS_TEST_H
#define PF_RANKS_TEST_H

#include "every_objective.h"
#include "model/pf_reference.h"
#include "ranks_in_threads.h"

enum { MOST = 64 };

/* ---- models that count what they are asked, fail and stop, by thread */

typedef struct {
    prefopt_policy_callbacks own;
    int64_t calls, sequences;
    int64_t fail_at; /* the call that fails, from 1; 0: none */
    int32_t status;
} watch;

static _Thread_local watch of_policy, of_reference;

static inline int32_t ask(watch *w, void *payload, const prefopt_sequences *in,
                          double *sequence_logp, double *token_logp)
{
    w->sequences += in->n;
    if (++w->calls != w->fail_at)
        return w->own.logprobs(payload, in, sequence_logp, token_logp);
    return w->status < 0 ? pf_fail(w->status, "made to fail") : w->status;
}

static inline int32_t ask_policy(void *payload, const prefopt_sequences *in, double *logp,
                                 double *token)
{
    return ask(&of_policy, payload, in, logp, token);
}

static inline int32_t ask_reference(void *payload, const prefopt_sequences *in, double *logp,
                                    double *token)
{
    return ask(&of_reference, payload, in, logp, token);
}

static inline void watch_policy(prefopt_policy *policy)
{
    of_policy = (watch){.own = policy->callbacks};
    policy->callbacks.logprobs = ask_policy;
}

static inline void watch_reference(prefopt_reference *reference)
{
    of_reference = (watch){.own = reference->policy->callbacks};
    reference->policy->callbacks.logprobs = ask_reference;
}

/* ---- one rank of a job */

typedef struct {
    /* what to do */
    void (*work)(void *job, const prefopt_collective *c, setting *s, prefopt_policy *policy);
    size_t objective;
    int64_t rank;                  /* that does another thing, as the test says; -1: none */
    int64_t at;                    /* a number of the test's */
    int32_t kind;                  /* the same */
    counting_allocator *allocator; /* of that rank */
    /* what came out, by rank */
    int32_t status[MAX_RANKS];
    char text[MAX_RANKS][1024];
    int64_t n_values, asked[MAX_RANKS], step[MAX_RANKS];
    double value[MAX_RANKS][MOST];
} job;

static inline void note(job *j, int64_t rank, int32_t status)
{
    j->status[rank] = status;
    snprintf(j->text[rank], sizeof j->text[rank], "%s", prefopt_last_error());
}

static inline int64_t rank_of(const prefopt_collective *c) { return c != NULL ? c->rank : 0; }

static inline bool odd(const job *j, const prefopt_collective *c)
{
    return c != NULL && c->rank == j->rank;
}

static inline void rank_job(void *payload, const prefopt_collective *c)
{
    job *j = payload;
    bool counts = odd(j, c) && j->allocator != NULL;
    prefopt_context *context = counts ? counting_context(j->allocator) : test_context(1);
    setting s = setting_new(context);
    prefopt_policy *policy = tabular_policy(&s.w);
    randomise(policy, 8, 0.5);
    watch_policy(policy);
    watch_reference(s.reference);
    j->work(j, c, &s, policy);
    j->asked[rank_of(c)] = of_reference.sequences;
    prefopt_policy_destroy(policy);
    setting_free(&s);
    prefopt_context_destroy(context);
}

static inline void all_have(const job *j, int64_t size, int32_t status, const char *text)
{
    for (int64_t r = 0; r < size; r++) {
        ck_assert_msg(j->status[r] == status, "rank %d: %s, expected %s: %s", (int)r,
                      prefopt_status_name(j->status[r]), prefopt_status_name(status), j->text[r]);
        if (status < 0)
            ck_assert_msg(strstr(j->text[r], text) != NULL, "rank %d: \"%s\" without \"%s\"",
                          (int)r, j->text[r], text);
    }
}

/* The same bits on all ranks. */
static inline void same_bits(const job *j, int64_t size)
{
    for (int64_t r = 1; r < size; r++)
        ck_assert_mem_eq(j->value[r], j->value[0], sizeof j->value[0]);
}

static inline prefopt_train_options options_of(const prefopt_collective *c)
{
    prefopt_train_options o = train_defaults();
    o.optimiser = PREFOPT_SGD;
    o.learning_rate = 0.5;
    o.batch = 4;
    o.collective = c;
    return o;
}

#endif
