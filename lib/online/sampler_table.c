/* The sampler's distributions from a policy's next_logprobs, in double precision. */
#include <math.h>

#include "online/pf_sampler.h"

static bool truncates(const pf_sampler *s)
{
    return s->truncation.top_k > 0 || s->truncation.top_p < 1;
}

/* Whether a draw is from other numbers than the policy's own. */
static bool copies(const pf_sampler *s)
{
    return s->truncation.temperature > 0 && !pf_truncation_is_none(&s->truncation);
}

static void plan(pf_sampler *s, int64_t left)
{
    int64_t n = s->options->n, budget = pf_context_byte_budget(s->context);
    int64_t distribution = pf_saturated(s->vocab, 8 * (1 + copies(s) + truncates(s)), 0);
    int64_t completion = pf_sampler_completion_bytes(s);
    int64_t rows = budget / pf_saturated(pf_saturated(1, distribution, completion), n, 0);
    rows = rows < 1 ? 1 : rows;
    s->n_rows = rows < left ? rows : left;
    s->n_completions = n;
    s->most = budget / distribution;
    s->most = s->most < 1 ? 1 : s->most;
    int64_t completions = pf_saturated(s->n_rows, n, 0);
    s->most = s->most < completions ? s->most : completions;
}

/* Room for s->most distributions. */
static int32_t reserve(pf_sampler *s)
{
    int64_t entries;
    prefopt_context *c = s->context;
    if (s->next_logp != NULL)
        return PREFOPT_OK; /* no later wave is larger than the first */
    if (!pf_mul(s->most, s->vocab, &entries))
        return pf_fail(PREFOPT_ERR_MEMORY, "prefopt_sample: %lld distributions overflow",
                       (long long)s->most);
    double *log_q = NULL;
    int64_t *order = NULL;
    double *next_logp = pf_alloc(c, entries, sizeof *next_logp);
    bool good = next_logp != NULL;
    if (good && copies(s))
        good = (log_q = pf_alloc(c, entries, sizeof *log_q)) != NULL;
    if (good && truncates(s))
        good = (order = pf_alloc(c, entries, sizeof *order)) != NULL;
    if (!good) {
        pf_free(c, log_q);
        pf_free(c, next_logp);
        return PREFOPT_ERR_MEMORY;
    }
    s->next_logp = next_logp;
    s->log_q = log_q != NULL ? log_q : next_logp;
    s->order = order;
    return PREFOPT_OK;
}

/* The prefixes of the call's branches as sequences. */
static int32_t build_view(pf_sampler *s, prefopt_sequences *view)
{
    int64_t n = s->call_n, used = 0;
    PF_TRY(pf_grow(s->context, (void **)&s->offsets, 0, &s->offset_capacity, n + 1,
                   sizeof *s->offsets));
    PF_TRY(pf_grow(s->context, (void **)&s->prompt_len, 0, &s->prompt_len_capacity, n,
                   sizeof *s->prompt_len));
    s->offsets[0] = 0;
    for (int64_t i = 0; i < n; i++) {
        const pf_branch *b = &s->branches[s->call_first + i];
        prefopt_row row = {.struct_size = sizeof row};
        PF_TRY(prefopt_dataset_row(s->prompts, pf_sampler_row(s, b), &row));
        int64_t needed;
        if (!pf_add(used, row.prompt_len, &needed) || !pf_add(needed, s->depth, &needed))
            return pf_fail(PREFOPT_ERR_MEMORY, "prefopt_sample: the number of tokens overflows");
        PF_TRY(pf_grow(s->context, (void **)&s->tokens, used, &s->token_capacity, needed,
                       sizeof *s->tokens));
        if (row.prompt_len > 0)
            memcpy(s->tokens + used, row.prompt, (size_t)row.prompt_len * sizeof *s->tokens);
        pf_sampler_path(s, b->node, s->depth, s->tokens + used + row.prompt_len);
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

static int32_t ask(pf_sampler *s)
{
    prefopt_sequences view;
    PF_TRY(reserve(s));
    PF_TRY(build_view(s, &view));
    return pf_policy_next_logprobs(s->policy, &view, s->next_logp);
}

static void draw(pf_sampler *s, int64_t i)
{
    const pf_branch *b = &s->branches[s->call_first + i];
    double *next_logp = s->next_logp + i * s->vocab, *log_q = s->log_q + i * s->vocab;
    bool greedy = s->options->temperature == 0;
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
    if (greedy) {
        int64_t token = pf_greedy_token(s->vocab, next_logp);
        for (int64_t k = b->first; k < b->end; k++)
            s->members[k].token = (int32_t)token;
    } else {
        pf_sampler_uniforms(s, b);
        pf_draw_tokens(s->vocab, log_q, total, b->end - b->first, s->members + b->first);
    }
    for (int64_t k = b->first; k < b->end; k++) {
        pf_draw *m = &s->members[k];
        m->logp = next_logp[m->token];
        m->log_q = greedy ? 0 : log_q[m->token];
    }
}

static int32_t fail(const pf_sampler *s, int64_t i)
{
    const pf_branch *b = &s->branches[s->call_first + i];
    return pf_fail(PREFOPT_ERR_NUMERIC,
                   "prefopt_sample: row %lld, after %lld tokens: the policy's next-token "
                   "probabilities sum to %.9g, expected 1",
                   (long long)pf_sampler_row(s, b), (long long)s->depth,
                   pf_total_mass(s->vocab, s->next_logp + i * s->vocab));
}

const pf_sampler_source pf_sampler_table = {plan, ask, draw, fail};
