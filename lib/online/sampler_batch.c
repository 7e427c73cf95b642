/* Sampling token by token, in batches.
 *
 * Prompt rows are taken in waves whose next-token distributions fit the byte budget. Within a wave
 * all unfinished completions advance together, one token a step. Completions of one row that are
 * equal so far share a node of a tree of prefixes, so the model is asked once a distinct prefix: a
 * prompt once at the first step, a greedy row once a step. A step's prefixes are those of the step
 * before, in the same order, each with its continuations: what a decoder goes on from. */
#include <math.h>

#include "online/pf_sampler.h"

/* ---- the tree of prefixes */

void pf_sampler_path(const pf_sampler *s, int64_t i, int64_t depth, int32_t *to)
{
    for (; s->nodes[i].parent >= 0; i = s->nodes[i].parent)
        to[--depth] = s->nodes[i].token;
}

static int64_t path_length(const pf_sampler *s, int64_t i)
{
    int64_t length = 0;
    for (; s->nodes[i].parent >= 0; i = s->nodes[i].parent)
        length++;
    return length;
}

void pf_sampler_uniforms(pf_sampler *s, const pf_branch *b)
{
    const prefopt_sampler_options *o = s->options;
    uint64_t row_stream = pf_stream(o->round, (uint64_t)pf_sampler_row(s, b));
    for (int64_t k = b->first; k < b->end; k++) {
        pf_draw *m = &s->members[k];
        uint64_t stream = pf_stream(row_stream, (uint64_t)(m->id % o->n));
        m->u = pf_uniform(o->seed, stream, (uint64_t)s->depth);
    }
}

static bool ends(const pf_sampler *s, int32_t token, int64_t limit)
{
    if (token == s->policy->space.eos || s->depth + 1 >= limit)
        return true;
    for (int64_t i = 0; i < s->options->n_stop; i++)
        if (s->options->stop[i] == token)
            return true;
    return false;
}

/* Tells the caller's callback of members first .. end - 1. */
static int32_t tell(const pf_sampler *s, int64_t row, int64_t first, int64_t end)
{
    const prefopt_sampler_options *o = s->options;
    for (int64_t k = first; o->token != NULL && k < end; k++) {
        const pf_draw *m = &s->members[k];
        PF_TRY(pf_callback_status(o->token(o->token_payload, row, m->id % o->n, m->token),
                                  "sampler", "token"));
    }
    return PREFOPT_OK;
}

/* Tokens a completion of the row may have. */
static int32_t row_limit(const pf_sampler *s, int64_t row, int64_t *limit)
{
    *limit = s->limit;
    if (s->max_positions == INT64_MAX)
        return PREFOPT_OK;
    prefopt_row prompt = {.struct_size = sizeof prompt};
    PF_TRY(prefopt_dataset_row(s->prompts, row, &prompt));
    int64_t left = s->max_positions - prompt.prompt_len;
    *limit = left < s->limit ? left : s->limit;
    return PREFOPT_OK;
}

/* Puts the children of the call's i-th branch into the tree; those that go on become branches. */
static int32_t grow_branch(pf_sampler *s, int64_t i)
{
    const pf_branch *b = &s->branches[s->call_first + i];
    if (s->nodes[b->node].status != PREFOPT_OK)
        return s->source->fail(s, i);
    int64_t row = pf_sampler_row(s, b), limit;
    PF_TRY(row_limit(s, row, &limit));
    for (int64_t first = b->first, end; first < b->end; first = end) {
        const pf_draw *m = &s->members[first];
        for (end = first + 1; end < b->end && s->members[end].token == m->token;)
            end++;
        PF_TRY(pf_grow(s->context, (void **)&s->nodes, s->n_nodes, &s->node_capacity,
                       s->n_nodes + 1, sizeof *s->nodes));
        const pf_node *parent = &s->nodes[b->node];
        s->nodes[s->n_nodes] = (pf_node){.parent = b->node,
                                         .token = m->token,
                                         .logp = parent->logp + m->logp,
                                         .sampler_logp = parent->sampler_logp + m->log_q};
        if (ends(s, m->token, limit))
            for (int64_t k = first; k < end; k++)
                s->leaf[s->members[k].id] = s->n_nodes;
        else
            s->grown[s->n_grown++] = (pf_branch){s->n_nodes, first, end, s->call_first + i};
        s->n_nodes++;
        PF_TRY(tell(s, row, first, end));
    }
    return PREFOPT_OK;
}

static void draw_task(void *payload, int64_t i)
{
    pf_sampler *s = payload;
    s->source->draw(s, i);
}

/* One token more for every unfinished completion. */
static int32_t step(pf_sampler *s)
{
    s->n_grown = 0;
    for (s->call_first = 0; s->call_first < s->n_branches; s->call_first += s->call_n) {
        int64_t left = s->n_branches - s->call_first;
        s->call_n = left < s->most ? left : s->most;
        PF_TRY(s->source->ask(s));
        pf_parallel_for(s->context, s->call_n, draw_task, s);
        for (int64_t i = 0; i < s->call_n; i++)
            PF_TRY(grow_branch(s, i));
    }
    pf_branch *swap = s->branches;
    s->branches = s->grown;
    s->grown = swap;
    s->n_branches = s->n_grown;
    s->depth++;
    return PREFOPT_OK;
}

/* ---- waves */

/* One row of samples: the paths to its leaves. Room: logp 2 n, offsets n + 1. */
static int32_t append_row(pf_sampler *s, int64_t row_in_wave, double *logp, int64_t *offsets,
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
        pf_sampler_path(s, leaf[j], length, s->tokens + offsets[j]);
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

/* Draws completions first .. first + count - 1 of each row of the wave. */
static int32_t sample_part(pf_sampler *s, int64_t first, int64_t count)
{
    int64_t n = s->options->n;
    for (int64_t i = 0; i < s->n_rows; i++) {
        s->branches[i] = (pf_branch){i, i * count, (i + 1) * count, i};
        for (int64_t k = 0; k < count; k++)
            s->members[i * count + k] = (pf_draw){.id = i * n + first + k};
    }
    s->n_branches = s->n_rows;
    for (s->depth = 0; s->n_branches > 0;)
        PF_TRY(step(s));
    return PREFOPT_OK;
}

/* The wave's arrays. */
static int32_t reserve(pf_sampler *s)
{
    int64_t completions, together;
    if (!pf_mul(s->n_rows, s->options->n, &completions) ||
        !pf_mul(s->n_rows, s->n_completions, &together))
        return pf_fail(PREFOPT_ERR_MEMORY, "prefopt_sample: %lld completions a prompt overflow",
                       (long long)s->options->n);
    prefopt_context *c = s->context;
    PF_TRY(
        pf_grow(c, (void **)&s->branches, 0, &s->branch_capacity, together, sizeof *s->branches));
    PF_TRY(pf_grow(c, (void **)&s->grown, 0, &s->grown_capacity, together, sizeof *s->grown));
    PF_TRY(pf_grow(c, (void **)&s->members, 0, &s->member_capacity, together, sizeof *s->members));
    PF_TRY(pf_grow(c, (void **)&s->leaf, 0, &s->leaf_capacity, completions, sizeof *s->leaf));
    return pf_grow(c, (void **)&s->nodes, 0, &s->node_capacity, s->n_rows, sizeof *s->nodes);
}

static int32_t sample_wave(pf_sampler *s, prefopt_dataset *samples)
{
    int64_t n = s->options->n;
    PF_TRY(reserve(s));
    for (int64_t i = 0; i < s->n_rows; i++)
        s->nodes[i] = (pf_node){.parent = -1};
    s->n_nodes = s->n_rows;
    for (int64_t first = 0; first < n; first += s->n_completions) {
        int64_t left = n - first;
        PF_TRY(sample_part(s, first, left < s->n_completions ? left : s->n_completions));
    }
    double *logp = pf_alloc(s->context, n, 2 * sizeof *logp);
    int64_t *offsets = logp == NULL ? NULL : pf_alloc(s->context, n + 1, sizeof *offsets);
    int32_t status = offsets == NULL ? PREFOPT_ERR_MEMORY : PREFOPT_OK;
    for (int64_t i = 0; i < s->n_rows && status == PREFOPT_OK; i++)
        status = append_row(s, i, logp, offsets, samples);
    pf_free(s->context, offsets);
    pf_free(s->context, logp);
    return status;
}

static void release(pf_sampler *s)
{
    prefopt_context *c = s->context;
    if (s->decoder != NULL)
        s->policy->extras->decoder_done(s->policy->payload, s->decoder);
    if (s->log_q != s->next_logp)
        pf_free(c, s->log_q);
    void *arrays[] = {s->nodes,     s->branches, s->grown,   s->members,    s->leaf,   s->tokens,
                      s->next_logp, s->order,    s->offsets, s->prompt_len, s->parents};
    for (size_t i = 0; i < sizeof arrays / sizeof *arrays; i++)
        pf_free(c, arrays[i]);
}

/* The policy's decoder, where it has one. */
static int32_t choose_source(pf_sampler *s)
{
    const pf_policy_extras *extras = s->policy->extras;
    s->source = &pf_sampler_table;
    s->max_positions = INT64_MAX;
    if (extras == NULL || extras->decoder == NULL)
        return PREFOPT_OK;
    double scale = s->truncation.temperature > 0 ? 1 / s->truncation.temperature : 1;
    /* A scale this large is the limit; one this small, too. */
    scale = fmin(fmax(scale, 1e-30), 1e30);
    PF_TRY(extras->decoder(s->policy->payload, (float)scale, &s->decoder));
    s->source = &pf_sampler_decoder;
    s->max_positions = pf_decoder_shape(s->decoder)->config.max_positions;
    return pf_sampler_check_prompts(s);
}

int32_t pf_sample_batch(prefopt_dataset *samples, prefopt_context *context,
                        const prefopt_policy *policy, const prefopt_dataset *prompts,
                        const prefopt_sampler_options *options, int64_t first, int64_t n)
{
    pf_sampler s = {
        .first_row = first,
        .context = context,
        .policy = policy,
        .prompts = prompts,
        .options = options,
        .truncation = {options->temperature, options->top_k, options->top_p, options->min_p},
        .vocab = policy->space.vocab,
        .limit = policy->space.horizon};
    if (options->max_tokens > 0 && options->max_tokens < s.limit)
        s.limit = options->max_tokens;
    int32_t status = choose_source(&s);
    for (; s.first_row < first + n && status == PREFOPT_OK; s.first_row += s.n_rows) {
        s.source->plan(&s, first + n - s.first_row);
        status = sample_wave(&s, samples);
    }
    release(&s);
    return status;
}
