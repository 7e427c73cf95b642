/* Sampling token by token, in batches.
 *
 * Prompt rows are taken in waves whose next-token distributions fit the byte budget. Within a wave
 * all unfinished completions advance together, one token a step. Completions of one row that are
 * equal so far share a node of a tree of prefixes, so the policy is asked once a distinct prefix: a
 * prompt once at the first step, a greedy row once a step. A step's sequences are the prefixes of
 * the step before, in the same order, each with its continuations: what a policy that keeps state
 * between calls can match.
 */
#include <math.h>

#include "data/pf_dataset.h"
#include "model/pf_model.h"
#include "online/pf_online.h"

/* ---- the tree of prefixes */

typedef struct {
    int64_t parent; /* -1: a prompt */
    int32_t token;  /* the last of the prefix */
    int32_t status; /* of its next-token distribution */
    double logp, sampler_logp;
} node;

/* An unfinished prefix and the completions that have it: members[first .. end). */
typedef struct {
    int64_t node, first, end;
} branch;

typedef struct {
    prefopt_context *context;
    const prefopt_policy *policy;
    const prefopt_dataset *prompts;
    const prefopt_sampler_options *options;
    pf_truncation truncation;
    int64_t vocab, horizon;
    int64_t first_row; /* of the wave */
    int64_t depth;     /* tokens of each unfinished prefix */
    int64_t most;      /* distributions a call may hold */

    int64_t n_nodes, node_capacity;
    node *nodes;
    int64_t n_branches, n_grown;
    branch *branches, *grown; /* this step's and the next one's */
    pf_draw *members;         /* id: row in the wave * n + number in the row */
    int64_t *leaf;            /* of each completion: its last node */

    double *next_logp, *log_q; /* [most, vocab]; log_q may be next_logp */
    int64_t *order;            /* [most, vocab]; NULL when nothing is left out */
    int64_t token_capacity, offset_capacity, prompt_len_capacity;
    int32_t *tokens;
    int64_t *offsets, *prompt_len;

    /* The call under way: branches call_first .. call_first + call_n - 1. */
    int64_t call_first, call_n;
} sampler;

static bool truncates(const sampler *s)
{
    return s->truncation.top_k > 0 || s->truncation.top_p < 1;
}

/* Whether a draw is from other numbers than the policy's own. */
static bool copies(const sampler *s)
{
    return s->truncation.temperature > 0 && !pf_truncation_is_none(&s->truncation);
}

static int64_t row_of(const sampler *s, const branch *b)
{
    return s->first_row + s->members[b->first].id / s->options->n;
}

/* Writes the tokens from the root's child to node i so that the last stands at to[depth - 1]. */
static void write_path(const sampler *s, int64_t i, int64_t depth, int32_t *to)
{
    for (; s->nodes[i].parent >= 0; i = s->nodes[i].parent)
        to[--depth] = s->nodes[i].token;
}

static int64_t path_length(const sampler *s, int64_t i)
{
    int64_t length = 0;
    for (; s->nodes[i].parent >= 0; i = s->nodes[i].parent)
        length++;
    return length;
}

/* The prefixes of the call's branches as sequences. */
static int32_t build_view(sampler *s, prefopt_sequences *view)
{
    int64_t n = s->call_n, used = 0;
    PF_TRY(pf_grow(s->context, (void **)&s->offsets, 0, &s->offset_capacity, n + 1,
                   sizeof *s->offsets));
    PF_TRY(pf_grow(s->context, (void **)&s->prompt_len, 0, &s->prompt_len_capacity, n,
                   sizeof *s->prompt_len));
    s->offsets[0] = 0;
    for (int64_t i = 0; i < n; i++) {
        const branch *b = &s->branches[s->call_first + i];
        prefopt_row row = {.struct_size = sizeof row};
        PF_TRY(prefopt_dataset_row(s->prompts, row_of(s, b), &row));
        int64_t needed;
        if (!pf_add(used, row.prompt_len, &needed) || !pf_add(needed, s->depth, &needed))
            return pf_fail(PREFOPT_ERR_MEMORY, "prefopt_sample: the number of tokens overflows");
        PF_TRY(pf_grow(s->context, (void **)&s->tokens, used, &s->token_capacity, needed,
                       sizeof *s->tokens));
        if (row.prompt_len > 0)
            memcpy(s->tokens + used, row.prompt, (size_t)row.prompt_len * sizeof *s->tokens);
        write_path(s, b->node, s->depth, s->tokens + used + row.prompt_len);
        s->prompt_len[i] = row.prompt_len;
        s->offsets[i + 1] = used = needed;
    }
    *view = (prefopt_sequences){.struct_size = sizeof *view,
                                .n = n,
                                .tokens = s->tokens,
                                .offsets = s->offsets,
                                .prompt_len = s->prompt_len};
    return PREFOPT_OK;
}

/* Draws the next token of every member of one branch and orders the members by it. */
static void draw_branch(void *payload, int64_t i)
{
    sampler *s = payload;
    const prefopt_sampler_options *o = s->options;
    const branch *b = &s->branches[s->call_first + i];
    double *next_logp = s->next_logp + i * s->vocab, *log_q = s->log_q + i * s->vocab;
    double total = pf_total_mass(s->vocab, next_logp);
    if (!(fabs(total - 1) <= 1e-3)) {
        s->nodes[b->node].status = PREFOPT_ERR_NUMERIC;
        return;
    }
    if (copies(s)) {
        pf_truncate(s->vocab, next_logp, &s->truncation,
                    s->order == NULL ? NULL : s->order + i * s->vocab, log_q);
        total = 1;
    }
    if (o->temperature == 0) {
        int64_t token = pf_greedy_token(s->vocab, next_logp);
        for (int64_t k = b->first; k < b->end; k++)
            s->members[k].token = (int32_t)token;
        return;
    }
    uint64_t row_stream = pf_stream(o->round, (uint64_t)row_of(s, b));
    for (int64_t k = b->first; k < b->end; k++) {
        pf_draw *m = &s->members[k];
        uint64_t stream = pf_stream(row_stream, (uint64_t)(m->id % o->n));
        m->u = pf_uniform(o->seed, stream, (uint64_t)s->depth);
    }
    pf_draw_tokens(s->vocab, log_q, total, b->end - b->first, s->members + b->first);
}

/* Puts the children of the call's i-th branch into the tree; those that go on become branches. */
static int32_t grow_branch(sampler *s, int64_t i)
{
    const branch *b = &s->branches[s->call_first + i];
    if (s->nodes[b->node].status != PREFOPT_OK)
        return pf_fail(PREFOPT_ERR_NUMERIC,
                       "prefopt_sample: row %lld, after %lld tokens: the policy's next-token "
                       "probabilities sum to %.9g, expected 1",
                       (long long)row_of(s, b), (long long)s->depth,
                       pf_total_mass(s->vocab, s->next_logp + i * s->vocab));
    for (int64_t first = b->first, end; first < b->end; first = end) {
        int32_t token = s->members[first].token;
        for (end = first + 1; end < b->end && s->members[end].token == token;)
            end++;
        PF_TRY(pf_grow(s->context, (void **)&s->nodes, s->n_nodes, &s->node_capacity,
                       s->n_nodes + 1, sizeof *s->nodes));
        const node *parent = &s->nodes[b->node];
        int64_t at = i * s->vocab + token;
        double log_q = s->options->temperature == 0 ? 0 : s->log_q[at];
        s->nodes[s->n_nodes] = (node){.parent = b->node,
                                      .token = token,
                                      .logp = parent->logp + s->next_logp[at],
                                      .sampler_logp = parent->sampler_logp + log_q};
        if (token == s->policy->space.eos || s->depth + 1 == s->horizon)
            for (int64_t k = first; k < end; k++)
                s->leaf[s->members[k].id] = s->n_nodes;
        else
            s->grown[s->n_grown++] = (branch){s->n_nodes, first, end};
        s->n_nodes++;
    }
    return PREFOPT_OK;
}

/* One token more for every unfinished completion. */
static int32_t step(sampler *s)
{
    s->n_grown = 0;
    for (s->call_first = 0; s->call_first < s->n_branches; s->call_first += s->call_n) {
        int64_t left = s->n_branches - s->call_first;
        s->call_n = left < s->most ? left : s->most;
        prefopt_sequences view;
        PF_TRY(build_view(s, &view));
        PF_TRY(pf_policy_next_logprobs(s->policy, &view, s->next_logp));
        pf_parallel_for(s->context, s->call_n, draw_branch, s);
        for (int64_t i = 0; i < s->call_n; i++)
            PF_TRY(grow_branch(s, i));
    }
    branch *swap = s->branches;
    s->branches = s->grown;
    s->grown = swap;
    s->n_branches = s->n_grown;
    s->depth++;
    return PREFOPT_OK;
}

/* ---- waves and memory */

/* One row of samples: the paths to its leaves. Room: logp 2 n, offsets n + 1. */
static int32_t append_row(sampler *s, int64_t row_in_wave, double *logp, int64_t *offsets,
                          prefopt_dataset *samples)
{
    int64_t n = s->options->n;
    const int64_t *leaf = s->leaf + row_in_wave * n;
    prefopt_row prompt = {.struct_size = sizeof prompt};
    PF_TRY(prefopt_dataset_row(s->prompts, s->first_row + row_in_wave, &prompt));
    offsets[0] = 0;
    for (int64_t j = 0; j < n; j++) {
        int64_t length = path_length(s, leaf[j]);
        PF_TRY(pf_grow(s->context, (void **)&s->tokens, offsets[j], &s->token_capacity,
                       offsets[j] + length, sizeof *s->tokens));
        write_path(s, leaf[j], length, s->tokens + offsets[j]);
        offsets[j + 1] = offsets[j] + length;
        logp[j] = s->nodes[leaf[j]].logp;
        logp[n + j] = s->nodes[leaf[j]].sampler_logp;
    }
    prefopt_row row = {.struct_size = sizeof row,
                       .kind = PREFOPT_ROW_COMPLETIONS,
                       .n_completions = n,
                       .prompt = prompt.prompt,
                       .prompt_len = prompt.prompt_len,
                       .completions = s->tokens,
                       .completion_offsets = offsets,
                       .weight = prompt.weight,
                       .label = 1,
                       .logp = logp,
                       .sampler_logp = logp + n,
                       .extra = prompt.extra};
    return prefopt_dataset_append(samples, &row);
}

static int32_t sample_wave(sampler *s, int64_t n_rows, prefopt_dataset *samples)
{
    int64_t n = s->options->n;
    PF_TRY(pf_grow(s->context, (void **)&s->nodes, 0, &s->node_capacity, n_rows, sizeof *s->nodes));
    for (int64_t i = 0; i < n_rows; i++) {
        s->nodes[i] = (node){.parent = -1};
        s->branches[i] = (branch){i, i * n, (i + 1) * n};
    }
    for (int64_t c = 0; c < n_rows * n; c++)
        s->members[c] = (pf_draw){.id = c};
    s->n_nodes = s->n_branches = n_rows;
    for (s->depth = 0; s->n_branches > 0;)
        PF_TRY(step(s));
    double *logp = pf_alloc(s->context, n, 2 * sizeof *logp);
    int64_t *offsets = logp == NULL ? NULL : pf_alloc(s->context, n + 1, sizeof *offsets);
    int32_t status = offsets == NULL ? PREFOPT_ERR_MEMORY : PREFOPT_OK;
    for (int64_t i = 0; i < n_rows && status == PREFOPT_OK; i++)
        status = append_row(s, i, logp, offsets, samples);
    pf_free(s->context, offsets);
    pf_free(s->context, logp);
    return status;
}

/* a * b + c, or the largest number there is. */
static int64_t saturated(int64_t a, int64_t b, int64_t c)
{
    int64_t out;
    return pf_mul(a, b, &out) && pf_add(out, c, &out) ? out : INT64_MAX;
}

/* How many rows a wave takes and how many distributions a call, at least 1 of each. */
static int64_t plan(sampler *s, int64_t n_rows)
{
    int64_t n = s->options->n, budget = pf_context_byte_budget(s->context);
    int64_t distribution = saturated(s->vocab, 8 * (1 + copies(s) + truncates(s)), 0);
    int64_t path = sizeof(node) + sizeof *s->tokens;
    int64_t completion = saturated(s->horizon, path, 2 * sizeof(branch) + sizeof(pf_draw) + 8);
    int64_t rows = budget / saturated(saturated(1, distribution, completion), n, 0);
    rows = rows < 1 ? 1 : rows;
    rows = rows < n_rows ? rows : n_rows;
    s->most = budget / distribution;
    s->most = s->most < 1 ? 1 : s->most;
    int64_t completions = saturated(rows, n, 0);
    s->most = s->most < completions ? s->most : completions;
    return rows;
}

static int32_t allocate(sampler *s, int64_t rows)
{
    int64_t completions, entries;
    if (!pf_mul(rows, s->options->n, &completions) || !pf_mul(s->most, s->vocab, &entries))
        return pf_fail(PREFOPT_ERR_MEMORY, "prefopt_sample: %lld completions a prompt overflow",
                       (long long)s->options->n);
    prefopt_context *c = s->context;
    if ((s->branches = pf_alloc(c, completions, sizeof *s->branches)) == NULL ||
        (s->grown = pf_alloc(c, completions, sizeof *s->grown)) == NULL ||
        (s->members = pf_alloc(c, completions, sizeof *s->members)) == NULL ||
        (s->leaf = pf_alloc(c, completions, sizeof *s->leaf)) == NULL ||
        (s->next_logp = pf_alloc(c, entries, sizeof *s->next_logp)) == NULL)
        return PREFOPT_ERR_MEMORY;
    s->log_q = s->next_logp;
    if (copies(s)) {
        double *log_q = pf_alloc(c, entries, sizeof *log_q);
        if (log_q == NULL)
            return PREFOPT_ERR_MEMORY;
        s->log_q = log_q;
    }
    if (truncates(s) && (s->order = pf_alloc(c, entries, sizeof *s->order)) == NULL)
        return PREFOPT_ERR_MEMORY;
    return PREFOPT_OK;
}

static void release(sampler *s)
{
    prefopt_context *c = s->context;
    if (s->log_q != s->next_logp)
        pf_free(c, s->log_q);
    void *arrays[] = {s->nodes,     s->branches, s->grown,  s->members, s->leaf,
                      s->next_logp, s->order,    s->tokens, s->offsets, s->prompt_len};
    for (size_t i = 0; i < sizeof arrays / sizeof *arrays; i++)
        pf_free(c, arrays[i]);
}

int32_t pf_sample_batch(prefopt_dataset *samples, prefopt_context *context,
                        const prefopt_policy *policy, const prefopt_dataset *prompts,
                        const prefopt_sampler_options *options)
{
    sampler s = {.context = context,
                 .policy = policy,
                 .prompts = prompts,
                 .options = options,
                 .truncation = {options->temperature, options->top_k, options->top_p},
                 .vocab = policy->space.vocab,
                 .horizon = policy->space.horizon};
    int64_t n_rows = prefopt_dataset_size(prompts);
    int64_t rows = plan(&s, n_rows);
    int32_t status = allocate(&s, rows);
    for (; s.first_row < n_rows && status == PREFOPT_OK; s.first_row += rows) {
        int64_t left = n_rows - s.first_row;
        status = sample_wave(&s, left < rows ? left : rows, samples);
    }
    release(&s);
    return status;
}
