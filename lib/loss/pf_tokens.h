/* Reading the options and scores of the token-level objectives. */
#ifndef PF_TOKENS_H
#define PF_TOKENS_H

#include "loss/pf_pg.h"
#include "prefopt/ppo.h"

/* NULL: defaults. Every option is in its range then; *rule holds those of one element. */
int32_t pf_ppo_read_options(const char *call, const prefopt_ppo_options *options,
                            prefopt_ppo_options *own, pf_pg_rule *rule);

/* Offsets and prompt lengths are in range then; *counted: the completion tokens of all. The arrays
 * by token are not looked at. */
int32_t pf_tokens_read(const char *call, const prefopt_token_scores *in, prefopt_token_scores *own,
                       int64_t *counted);

/* Completion tokens of sequence s: first .. last - 1; start is where its prompt starts. */
typedef struct {
    int64_t start, first, last;
} pf_span;
static inline pf_span pf_tokens_span(const prefopt_token_scores *in, int64_t s)
{
    int64_t prompt = in->prompt_len == NULL ? 0 : in->prompt_len[s];
    return (pf_span){in->offsets[s], in->offsets[s] + prompt, in->offsets[s + 1]};
}

/* c_t of the tokens of a sequence with len >= 1 completion tokens. */
double pf_tokens_weight(const prefopt_ppo_options *options, int64_t n, int64_t counted,
                        int64_t len);

#endif
