/* Internal to the token by token sampler: the tree of prefixes (sampler_batch.c), and its two
 * sources of distributions, a policy's next_logprobs (sampler_table.c) and a transformer's decoder
 * (sampler_decoder.c). */
#ifndef PF_SAMPLER_H
#define PF_SAMPLER_H

#include "data/pf_dataset.h"
#include "model/pf_decoder.h"
#include "model/pf_model.h"
#include "online/pf_online.h"

typedef struct {
    int64_t parent; /* -1: a prompt */
    int32_t token;  /* the last of the prefix */
    int32_t status; /* of its next-token distribution */
    double logp, sampler_logp;
} pf_node;

/* An unfinished prefix and the completions that have it: members[first .. end). */
typedef struct {
    int64_t node, first, end;
    int64_t from; /* which of the step before's branches it continues; a first step's: the row */
} pf_branch;

typedef struct pf_sampler pf_sampler;

/* Where the next token's distributions come from. A wave is n_rows rows from first_row on; of the
 * completions of each, some go together. */
typedef struct {
    /* Chooses the wave's rows (at least 1, at most `left`) and how many completions of each go
     * together, and the most branches that a call may have. */
    void (*plan)(pf_sampler *s, int64_t left);
    /* The distributions of branches call_first .. call_first + call_n - 1. */
    int32_t (*ask)(pf_sampler *s);
    /* Draws for every member of branch i of the call (their token, logp and log_q) and orders the
     * members by token; runs on any thread. Where the distribution is not one: the node's status.
     */
    void (*draw)(pf_sampler *s, int64_t i);
    /* The error of branch i of the call, whose node's status is not OK. */
    int32_t (*fail)(const pf_sampler *s, int64_t i);
} pf_sampler_source;

struct pf_sampler {
    prefopt_context *context;
    const prefopt_policy *policy;
    const prefopt_dataset *prompts;
    const prefopt_sampler_options *options;
    const pf_sampler_source *source;
    pf_truncation truncation;
    int64_t vocab;
    int64_t limit;         /* tokens of a completion, max_positions aside */
    int64_t max_positions; /* of prompt and completion together; INT64_MAX: none */

    int64_t first_row, n_rows;
    int64_t n_completions, most; /* see plan */
    int64_t depth;               /* tokens of each unfinished prefix */
    int64_t call_first, call_n;  /* the call under way */

    int64_t n_nodes, node_capacity;
    pf_node *nodes;
    int64_t n_branches, n_grown, branch_capacity, grown_capacity;
    pf_branch *branches, *grown; /* this step's and the next one's */
    int64_t member_capacity, leaf_capacity;
    pf_draw *members; /* id: row in the wave * n + number in the row */
    int64_t *leaf;    /* of each completion: its last node */
    int64_t token_capacity;
    int32_t *tokens;

    /* Of the table: [entries] each. log_q may be next_logp; order NULL when nothing is left out. */
    int64_t entries, offset_capacity, prompt_len_capacity;
    double *next_logp, *log_q;
    int64_t *order, *offsets, *prompt_len;

    /* Of the decoder. */
    pf_decoder *decoder;
    int64_t parent_capacity;
    int64_t *parents;
    pf_distributions distributions;
};

extern const pf_sampler_source pf_sampler_table, pf_sampler_decoder;

/* Checks the prompts of all rows against the decoder's model. ARGUMENT, names the row. */
int32_t pf_sampler_check_prompts(const pf_sampler *s);

/* Row of the dataset whose completions a branch has. */
static inline int64_t pf_sampler_row(const pf_sampler *s, const pf_branch *b)
{
    return s->first_row + s->members[b->first].id / s->options->n;
}

/* Draws from row i of a decoder's distributions, whose scale is 1 / t->temperature: like
 * pf_truncate and pf_draw_tokens, with logp and log_q of each draw; or greedily. The row's max is
 * not NaN; its tile_scaled is used up. (draw_logits.c) */
void pf_draw_logits(const pf_distributions *d, int64_t i, const pf_truncation *t, int64_t n,
                    pf_draw *draws);
void pf_greedy_logits(const pf_distributions *d, int64_t i, int64_t n, pf_draw *draws);

/* The uniform numbers of a branch's members. */
void pf_sampler_uniforms(pf_sampler *s, const pf_branch *b);

/* Writes the tokens from the root's child to node i so that the last stands at to[depth - 1]. */
void pf_sampler_path(const pf_sampler *s, int64_t i, int64_t depth, int32_t *to);

/* a * b + c, or the largest number there is. */
static inline int64_t pf_saturated(int64_t a, int64_t b, int64_t c)
{
    int64_t out;
    return pf_mul(a, b, &out) && pf_add(out, c, &out) ? out : INT64_MAX;
}

/* Bytes of the tree that a completion may take. */
static inline int64_t pf_sampler_completion_bytes(const pf_sampler *s)
{
    return pf_saturated(s->limit, sizeof(pf_node) + sizeof *s->tokens,
                        2 * sizeof(pf_branch) + sizeof(pf_draw) + 8);
}

#endif
