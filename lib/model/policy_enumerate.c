/* All completions of a space with their log-probabilities. The log-probabilities come from the
 * policy's logprobs, in one call for all prompts, so that they are the very bits that
 * prefopt_policy_logprobs gives, and a policy needs no next_logprobs. A transformer's completions
 * end where its positions do, as those of its sampler: a longer prompt has fewer. */
#include "data/pf_dataset.h"
#include "math/pf_math.h"
#include "model/pf_model.h"

enum { DEFAULT_LIMIT = 1000000 };

typedef struct {
    int64_t n, n_tokens, offset_capacity, token_capacity;
    int64_t *offsets; /* n + 1 */
    int32_t *tokens;
} completions;

static void completions_free(prefopt_context *context, completions *c)
{
    pf_free(context, c->offsets);
    pf_free(context, c->tokens);
}

/* Appends prefix[0 .. len). */
static int32_t append(prefopt_context *context, completions *c, const int32_t *prefix, int64_t len)
{
    PF_TRY(pf_grow(context, (void **)&c->tokens, c->n_tokens, &c->token_capacity, c->n_tokens + len,
                   sizeof *c->tokens));
    memcpy(c->tokens + c->n_tokens, prefix, (size_t)len * sizeof *prefix);
    c->n_tokens += len;
    c->offsets[++c->n] = c->n_tokens;
    return PREFOPT_OK;
}

/* Walks the token tree depth first, which is lexicographic order. prefix: horizon tokens. */
static int32_t walk(prefopt_context *context, const prefopt_space *space, int32_t *prefix,
                    completions *c)
{
    int64_t len = 0; /* tokens before the one that is counted up */
    prefix[0] = 0;
    while (len >= 0) {
        if (prefix[len] == space->vocab) { /* this level is done */
            if (--len >= 0)
                prefix[len]++;
        } else if (prefix[len] == space->eos || len + 1 == space->horizon) {
            PF_TRY(append(context, c, prefix, len + 1));
            prefix[len]++;
        } else {
            prefix[++len] = 0;
        }
    }
    return PREFOPT_OK;
}

/* In place of what c has. */
static int32_t list_completions(prefopt_context *context, const prefopt_space *space, int64_t limit,
                                completions *c)
{
    int64_t count;
    PF_TRY(prefopt_space_count(space, &count));
    if (count > limit)
        return pf_fail(PREFOPT_ERR_UNSUPPORTED,
                       "enumerate: %lld completions a prompt, expected at most limit = %lld",
                       (long long)count, (long long)limit);
    completions_free(context, c);
    *c = (completions){0};
    int32_t *prefix = pf_alloc(context, space->horizon, sizeof *prefix);
    c->offsets = pf_alloc(context, count + 1, sizeof *c->offsets);
    int32_t status = PREFOPT_ERR_MEMORY;
    if (prefix != NULL && c->offsets != NULL) {
        c->offsets[0] = 0;
        status = walk(context, space, prefix, c);
    }
    pf_free(context, prefix);
    return status;
}

/* The horizon of completions after prompt row i. */
static int32_t horizon_after(const prefopt_policy *policy, int64_t i, int64_t prompt_len,
                             int64_t *horizon)
{
    pf_values values;
    *horizon = policy->space.horizon;
    if (!pf_extras_values(policy->extras, policy->payload, &values))
        return PREFOPT_OK;
    int64_t most = values.shape->config.max_positions;
    if (prompt_len >= most)
        return pf_fail(PREFOPT_ERR_ARGUMENT,
                       "enumerate: row %lld: the prompt has %lld tokens, expected at most "
                       "max_positions - 1 = %lld",
                       (long long)i, (long long)prompt_len, (long long)most - 1);
    *horizon = *horizon < most - prompt_len ? *horizon : most - prompt_len;
    return PREFOPT_OK;
}

static int32_t append_rows(prefopt_dataset *out, const prefopt_policy *policy,
                           const prefopt_dataset *prompts, int64_t limit, completions *c)
{
    prefopt_row row, from = {.struct_size = sizeof from};
    prefopt_space space = policy->space;
    for (int64_t i = 0, listed = 0; i < prefopt_dataset_size(prompts); i++) {
        PF_TRY(prefopt_dataset_row(prompts, i, &from));
        PF_TRY(horizon_after(policy, i, from.prompt_len, &space.horizon));
        if (space.horizon != listed)
            PF_TRY(list_completions(policy->context, &space, limit, c));
        listed = space.horizon;
        PF_TRY(prefopt_row_init(&row, sizeof row));
        row.kind = PREFOPT_ROW_COMPLETIONS;
        row.n_completions = c->n;
        row.prompt = from.prompt;
        row.prompt_len = from.prompt_len;
        row.completions = c->tokens;
        row.completion_offsets = c->offsets;
        PF_TRY(prefopt_dataset_append(out, &row));
    }
    return PREFOPT_OK;
}

static int32_t fill_logp(prefopt_dataset *out, const prefopt_policy *policy)
{
    prefopt_sequences all = {.struct_size = sizeof all};
    PF_TRY(prefopt_dataset_sequences(out, &all));
    double *logp = pf_alloc(policy->context, all.n, sizeof *logp);
    if (logp == NULL)
        return PREFOPT_ERR_MEMORY;
    int32_t status = pf_policy_logprobs(policy, &all, logp, NULL);
    for (int64_t i = 0; status == PREFOPT_OK && i < out->n_rows; i++) {
        int64_t first = out->first[i];
        double total = exp(pf_log_sum_exp(out->first[i + 1] - first, logp + first));
        if (!(fabs(total - 1) <= 1e-4))
            status = pf_fail(PREFOPT_ERR_NUMERIC,
                             "enumerate: the policy's probabilities of prompt row %lld sum to "
                             "%.9g, expected 1 within 1e-4",
                             (long long)i, total);
    }
    if (status == PREFOPT_OK)
        status = prefopt_dataset_set_column(out, PREFOPT_COLUMN_LOGP, logp);
    pf_free(policy->context, logp);
    return status;
}

int32_t prefopt_policy_enumerate(prefopt_dataset **out, prefopt_policy *policy,
                                 const prefopt_dataset *prompts, int64_t limit)
{
    PF_REQUIRE(out);
    PF_REQUIRE(policy);
    PF_REQUIRE(prompts);
    if (limit < 0)
        return pf_fail(PREFOPT_ERR_ARGUMENT, "limit is %lld, expected at least 0",
                       (long long)limit);
    if (!policy->has_space)
        return pf_fail(PREFOPT_ERR_UNSUPPORTED,
                       "enumerate: this policy was created without a space");
    completions c = {0};
    prefopt_dataset *made = NULL;
    int32_t status = prefopt_dataset_create(&made, policy->context);
    if (status == PREFOPT_OK)
        status = append_rows(made, policy, prompts, limit == 0 ? DEFAULT_LIMIT : limit, &c);
    if (status == PREFOPT_OK)
        status = fill_logp(made, policy);
    completions_free(policy->context, &c);
    if (status != PREFOPT_OK) {
        prefopt_dataset_destroy(made);
        return status;
    }
    *out = made;
    return PREFOPT_OK;
}
