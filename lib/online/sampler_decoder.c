/* The sampler's distributions from a transformer's decoder: float logits, keys and values kept. */
#include <math.h>

#include "online/pf_sampler.h"

int32_t pf_sampler_check_prompts(const pf_sampler *s)
{
    for (int64_t i = 0; i < prefopt_dataset_size(s->prompts); i++) {
        prefopt_row row = {.struct_size = sizeof row};
        PF_TRY(prefopt_dataset_row(s->prompts, i, &row));
        if (row.prompt_len < 1 || row.prompt_len >= s->max_positions)
            return pf_fail(PREFOPT_ERR_ARGUMENT,
                           "prefopt_sample: row %lld: the prompt has %lld tokens, expected 1 to "
                           "max_positions - 1 = %lld",
                           (long long)i, (long long)row.prompt_len,
                           (long long)s->max_positions - 1);
        for (int64_t t = 0; t < row.prompt_len; t++)
            if (row.prompt[t] < 0 || row.prompt[t] >= s->vocab)
                return pf_fail(PREFOPT_ERR_ARGUMENT,
                               "prefopt_sample: row %lld: token %lld of the prompt is %d, "
                               "expected 0 to %lld",
                               (long long)i, (long long)t, row.prompt[t], (long long)s->vocab - 1);
    }
    return PREFOPT_OK;
}

/* Completions of a wave, with which it ends: more rows make no product faster, and a small model's
 * working arrays would leave the caches. */
enum { MOST_TOGETHER = 512 };

/* As many whole rows as fit the budget; of a row that does not fit, as many completions as do. */
static void plan(pf_sampler *s, int64_t left)
{
    int64_t n = s->options->n, budget = pf_context_byte_budget(s->context), used = 0;
    const pf_shape *shape = pf_decoder_shape(s->decoder);
    s->n_completions = n;
    for (s->n_rows = 0; s->n_rows < left; s->n_rows++) {
        prefopt_row row = {.struct_size = sizeof row};
        (void)prefopt_dataset_row(s->prompts, s->first_row + s->n_rows, &row);
        int64_t most = s->max_positions - row.prompt_len;
        most = most < s->limit ? most : s->limit;
        int64_t prompt = pf_decoder_prompt_bytes(shape, row.prompt_len);
        int64_t each = pf_saturated(pf_decoder_row_bytes(shape, row.prompt_len, most), 1,
                                    pf_sampler_completion_bytes(s));
        int64_t needed = pf_saturated(n, each, prompt);
        if (s->n_rows > 0 && (needed > budget - used || s->n_rows >= MOST_TOGETHER / n))
            break;
        if (s->n_rows == 0 && needed > budget) {
            int64_t fit = prompt < budget ? (budget - prompt) / each : 0;
            s->n_completions = fit < 1 ? 1 : fit < n ? fit : n;
            s->n_rows = 1;
            break;
        }
        used += needed;
    }
    s->most = INT64_MAX;
}

static int32_t ask_prompts(pf_sampler *s)
{
    int64_t n = s->n_rows, used = 0;
    PF_TRY(pf_grow(s->context, (void **)&s->offsets, 0, &s->offset_capacity, n + 1,
                   sizeof *s->offsets));
    s->offsets[0] = 0;
    for (int64_t i = 0; i < n; i++) {
        prefopt_row row = {.struct_size = sizeof row};
        PF_TRY(prefopt_dataset_row(s->prompts, s->first_row + i, &row));
        PF_TRY(pf_grow(s->context, (void **)&s->tokens, used, &s->token_capacity,
                       used + row.prompt_len, sizeof *s->tokens));
        memcpy(s->tokens + used, row.prompt, (size_t)row.prompt_len * sizeof *s->tokens);
        s->offsets[i + 1] = used += row.prompt_len;
    }
    prefopt_sequences view = {
        .struct_size = sizeof view, .n = n, .tokens = s->tokens, .offsets = s->offsets};
    return pf_decoder_prompts(s->decoder, &view);
}

static int32_t ask_step(pf_sampler *s)
{
    int64_t n = s->n_branches;
    PF_TRY(
        pf_grow(s->context, (void **)&s->parents, 0, &s->parent_capacity, n, sizeof *s->parents));
    PF_TRY(pf_grow(s->context, (void **)&s->tokens, 0, &s->token_capacity, n, sizeof *s->tokens));
    for (int64_t i = 0; i < n; i++) {
        s->parents[i] = s->branches[i].from;
        s->tokens[i] = s->nodes[s->branches[i].node].token;
    }
    return pf_decoder_step(s->decoder, n, s->parents, s->tokens);
}

static int32_t ask(pf_sampler *s)
{
    PF_TRY(s->depth == 0 ? ask_prompts(s) : ask_step(s));
    pf_decoder_distributions(s->decoder, &s->distributions);
    return PREFOPT_OK;
}

static void draw(pf_sampler *s, int64_t i)
{
    const pf_branch *b = &s->branches[s->call_first + i];
    if (isnan(s->distributions.max[i])) {
        s->nodes[b->node].status = PREFOPT_ERR_NUMERIC;
        return;
    }
    pf_draw *draws = s->members + b->first;
    if (s->options->temperature == 0) {
        pf_greedy_logits(&s->distributions, i, b->end - b->first, draws);
        return;
    }
    pf_sampler_uniforms(s, b);
    pf_draw_logits(&s->distributions, i, &s->truncation, b->end - b->first, draws);
}

static int32_t fail(const pf_sampler *s, int64_t i)
{
    return pf_fail(PREFOPT_ERR_NUMERIC,
                   "prefopt_sample: row %lld, after %lld tokens: the policy's logits are not "
                   "finite",
                   (long long)pf_sampler_row(s, &s->branches[s->call_first + i]),
                   (long long)s->depth);
}

const pf_sampler_source pf_sampler_decoder = {plan, ask, draw, fail};
