/* Log-linear policy over listed completions: log pi(y | x) = base + theta . phi(x, y) - log Z(x).
 *
 * logp[j] is kept for every listed completion (sorted as in the listing), computed when theta
 * changes by one product Phi theta. Next-token probabilities are ratios of the masses of prefixes:
 * the completions that begin with a prefix lie together, so its mass is a sum over a range. */
#include <math.h>

#include "math/pf_gemm.h"
#include "math/pf_math.h"
#include "model/pf_listing.h"

typedef struct {
    pf_listing *listing;
    double *theta, *grad; /* n_features */
    double *logp, *spare; /* n */
} loglinear;

/* ---------------------------------------------------------------- normalising */

/* On failure logp stays that of the last good theta. */
static int32_t loglinear_updated(void *payload)
{
    loglinear *m = payload;
    const pf_listing *l = m->listing;
    for (int64_t k = 0; k < l->n_features; k++)
        if (!isfinite(m->theta[k]))
            return pf_fail(PREFOPT_ERR_NUMERIC, "theta[%lld] is %g, expected a finite number",
                           (long long)k, m->theta[k]);
    PF_TRY(pf_dgemv(l->context, false, l->n, l->n_features, 1, l->features, l->n_features, m->theta,
                    0, m->spare));
    for (int64_t j = 0; j < l->n; j++) {
        double score = m->spare[j];
        m->spare[j] += l->base[j];
        if (!isfinite(score) || m->spare[j] == INFINITY)
            return pf_fail(PREFOPT_ERR_NUMERIC,
                           "theta . phi overflows to %g: theta is too large for the features",
                           isfinite(score) ? m->spare[j] : score);
    }
    for (int64_t g = 0; g < l->n_groups; g++) {
        int64_t begin = l->first[g], count = l->first[g + 1] - begin;
        double log_z = pf_log_sum_exp(count, m->spare + begin);
        for (int64_t j = begin; j < begin + count; j++)
            m->spare[j] = fmin(m->spare[j] - log_z, 0);
    }
    double *fresh = m->spare;
    m->spare = m->logp;
    m->logp = fresh;
    return PREFOPT_OK;
}

/* ---------------------------------------------------------------- log-probabilities */

static double mass(const loglinear *m, pf_range range)
{
    return pf_log_sum_exp(range.end - range.begin, m->logp + range.begin);
}

/* log of the conditional of a token, from the masses before and after it. Nothing follows a prefix
 * of probability 0, so there any answer is right; the uniform one keeps samplers out of trouble. */
static double conditional(const loglinear *m, double before, double after)
{
    return before == -INFINITY ? -log((double)m->listing->space.vocab) : fmin(after - before, 0);
}

static int32_t check(const pf_listing *l, const prefopt_sequences *in, int64_t i, bool complete,
                     pf_range *group)
{
    int64_t g = pf_find_prompt(l->prompts, in, i);
    if (g < 0)
        return PREFOPT_ERR_ARGUMENT;
    *group = pf_listing_group(l, g);
    return complete ? pf_space_check_completion(&l->space, in, i)
                    : pf_space_check_prefix(&l->space, in, i);
}

/* The listed completion that sequence i has; -1: none. The range is its prompt's. */
static int64_t find_listed(const pf_listing *l, const prefopt_sequences *in, int64_t i,
                           pf_range range)
{
    int64_t len;
    const int32_t *y = pf_completion(in, i, &len);
    for (int64_t k = 0; k < len; k++)
        range = pf_listing_narrow(l, range, y[k]);
    return range.begin < range.end && len > 0 ? range.begin : -1;
}

static int32_t loglinear_logprobs(void *payload, const prefopt_sequences *in, double *sequence_logp,
                                  double *token_logp)
{
    const loglinear *m = payload;
    const pf_listing *l = m->listing;
    for (int64_t i = 0; i < in->n; i++) {
        int64_t len;
        pf_range range = {0};
        PF_TRY(check(l, in, i, true, &range));
        const int32_t *y = pf_completion(in, i, &len);
        int64_t at = find_listed(l, in, i, range);
        sequence_logp[i] = len == 0 ? 0 : at < 0 ? -INFINITY : m->logp[at];
        if (token_logp == NULL)
            continue;
        double *out = token_logp + (in->offsets[i] - in->offsets[0]) + in->prompt_len[i];
        double before = mass(m, range);
        for (int64_t k = 0; k < len; k++) {
            range = pf_listing_narrow(l, range, y[k]);
            double after = mass(m, range);
            out[k] = conditional(m, before, after);
            before = after;
        }
    }
    return PREFOPT_OK;
}

static int32_t loglinear_next_logprobs(void *payload, const prefopt_sequences *in,
                                       double *next_logp)
{
    const loglinear *m = payload;
    const pf_listing *l = m->listing;
    int64_t vocab = l->space.vocab;
    for (int64_t i = 0; i < in->n; i++) {
        int64_t len;
        pf_range range = {0};
        PF_TRY(check(l, in, i, false, &range));
        const int32_t *y = pf_completion(in, i, &len);
        for (int64_t k = 0; k < len; k++)
            range = pf_listing_narrow(l, range, y[k]);
        double before = mass(m, range), *row = next_logp + i * vocab;
        for (int64_t v = 0; v < vocab; v++)
            row[v] = conditional(m, before, -INFINITY);
        /* The tokens that follow, each a run of the range. */
        for (int64_t j = range.begin; j < range.end;) {
            int32_t token = l->tokens[l->offsets[j] + len];
            pf_range run = pf_listing_narrow(l, range, token);
            row[token] = conditional(m, before, mass(m, run));
            j = run.end;
        }
    }
    return PREFOPT_OK;
}

/* ---------------------------------------------------------------- gradient */

/* sum_i g_i (phi_i - E[phi]) = Phi^T w, w_j = (g of the sequences that are j) - pi_j (g of all of
 * j's prompt). A sequence of probability 0 stays there whatever theta: it adds nothing. */
static int32_t loglinear_backward(void *payload, const prefopt_sequences *in, const double *grad)
{
    loglinear *m = payload;
    const pf_listing *l = m->listing;
    double *w = pf_calloc(l->context, l->n, sizeof *w);
    double *group_sum = pf_calloc(l->context, l->n_groups, sizeof *group_sum);
    int32_t status = w == NULL || group_sum == NULL ? PREFOPT_ERR_MEMORY : PREFOPT_OK;
    for (int64_t i = 0; status == PREFOPT_OK && i < in->n; i++) {
        pf_range range = {0};
        status = check(l, in, i, true, &range);
        if (status != PREFOPT_OK || grad[i] == 0)
            continue;
        int64_t at = find_listed(l, in, i, range);
        if (at < 0 || m->logp[at] == -INFINITY)
            continue;
        w[at] += grad[i];
        group_sum[pf_sequence_map_find(l->prompts, in, i)] += grad[i];
    }
    if (status == PREFOPT_OK) {
        for (int64_t g = 0; g < l->n_groups; g++)
            if (group_sum[g] != 0)
                for (int64_t j = l->first[g]; j < l->first[g + 1]; j++)
                    w[j] -= group_sum[g] * exp(m->logp[j]);
        status = pf_dgemv(l->context, true, l->n, l->n_features, 1, l->features, l->n_features, w,
                          1, m->grad);
    }
    pf_free(l->context, group_sum);
    pf_free(l->context, w);
    return status;
}

static int32_t loglinear_parameters(void *payload, prefopt_parameters *out)
{
    loglinear *m = payload;
    out->dtype = PREFOPT_F64;
    out->n = m->listing->n_features;
    out->value = m->theta;
    out->grad = m->grad;
    return PREFOPT_OK;
}

/* ---------------------------------------------------------------- life */

static void loglinear_destroy(void *payload)
{
    loglinear *m = payload;
    prefopt_context *context = m->listing->context;
    pf_free(context, m->theta);
    pf_free(context, m->grad);
    pf_free(context, m->logp);
    pf_free(context, m->spare);
    pf_listing *listing = m->listing;
    pf_free(context, m);
    pf_listing_release(listing);
}

/* Takes a reference to the listing; theta is 0, logp is not written yet. */
static loglinear *loglinear_new(pf_listing *listing)
{
    prefopt_context *context = listing->context;
    loglinear *m = pf_calloc(context, 1, sizeof *m);
    if (m == NULL)
        return NULL;
    m->listing = pf_listing_retain(listing);
    if ((m->theta = pf_calloc(context, listing->n_features, sizeof(double))) == NULL ||
        (m->grad = pf_calloc(context, listing->n_features, sizeof(double))) == NULL ||
        (m->logp = pf_alloc(context, listing->n, sizeof(double))) == NULL ||
        (m->spare = pf_alloc(context, listing->n, sizeof(double))) == NULL) {
        loglinear_destroy(m);
        return NULL;
    }
    return m;
}

static int32_t loglinear_clone(void *payload, void **copy)
{
    const loglinear *m = payload;
    loglinear *c = loglinear_new(m->listing);
    if (c == NULL)
        return PREFOPT_ERR_MEMORY;
    memcpy(c->theta, m->theta, (size_t)m->listing->n_features * sizeof *c->theta);
    memcpy(c->logp, m->logp, (size_t)m->listing->n * sizeof *c->logp);
    *copy = c;
    return PREFOPT_OK;
}

static const prefopt_policy_callbacks callbacks = {
    .struct_size = sizeof(prefopt_policy_callbacks),
    .logprobs = loglinear_logprobs,
    .backward = loglinear_backward,
    .next_logprobs = loglinear_next_logprobs,
    .parameters = loglinear_parameters,
    .clone = loglinear_clone,
    .destroy = loglinear_destroy,
    .updated = loglinear_updated,
};

static int32_t loglinear_hash(void *payload, uint64_t *out)
{
    const loglinear *m = payload;
    const pf_listing *l = m->listing;
    uint64_t hash = pf_hash_space(pf_hash_kind("log-linear policy"), &l->space);
    hash = pf_stream(hash, pf_row_hash(pf_sequence_map_view(l->prompts), 0, l->n_groups));
    hash =
        pf_content_hash(l->context, hash, l->first, (l->n_groups + 1) * (int64_t)sizeof *l->first);
    hash = pf_content_hash(l->context, hash, l->offsets, (l->n + 1) * (int64_t)sizeof *l->offsets);
    hash =
        pf_content_hash(l->context, hash, l->tokens, l->offsets[l->n] * (int64_t)sizeof *l->tokens);
    hash = pf_content_hash(l->context, hash, l->features,
                           l->n * l->n_features * (int64_t)sizeof *l->features);
    hash = pf_content_hash(l->context, hash, l->base, l->n * (int64_t)sizeof *l->base);
    *out = pf_content_hash(l->context, hash, m->theta, l->n_features * (int64_t)sizeof *m->theta);
    return PREFOPT_OK;
}

static const pf_policy_extras extras = {.hash = loglinear_hash};

static int32_t check_base(const prefopt_sequences *in, const double *base_logp)
{
    for (int64_t i = 0; base_logp != NULL && i < in->n; i++)
        if (isnan(base_logp[i]) || base_logp[i] == INFINITY)
            return pf_fail(PREFOPT_ERR_NUMERIC,
                           "base_logp[%lld] is %g, expected a finite number or -inf", (long long)i,
                           base_logp[i]);
    return PREFOPT_OK;
}

static int32_t check_mass(const pf_listing *l)
{
    for (int64_t g = 0; g < l->n_groups; g++) {
        int64_t j = l->first[g];
        while (j < l->first[g + 1] && l->base[j] == -INFINITY)
            j++;
        if (j == l->first[g + 1])
            return pf_fail(PREFOPT_ERR_NUMERIC,
                           "base_logp is -inf for every completion of prompt %lld", (long long)g);
    }
    return PREFOPT_OK;
}

int32_t prefopt_policy_create_loglinear(prefopt_policy **out, prefopt_context *context,
                                        const prefopt_space *space, const prefopt_sequences *in,
                                        int64_t n_features, const double *features,
                                        const double *base_logp)
{
    PF_REQUIRE(out);
    PF_REQUIRE(context);
    prefopt_space own;
    PF_TRY(pf_space_read(&own, space));
    PF_TRY(pf_sequences_check(in, "in"));
    PF_TRY(pf_features_check(in, n_features, features));
    PF_TRY(check_base(in, base_logp));
    pf_listing *listing;
    PF_TRY(pf_listing_create(&listing, context, &own, in, n_features, features, base_logp));
    loglinear *m = NULL;
    int32_t status = check_mass(listing);
    if (status == PREFOPT_OK && (m = loglinear_new(listing)) == NULL)
        status = PREFOPT_ERR_MEMORY;
    pf_listing_release(listing);
    if (status == PREFOPT_OK)
        status = loglinear_updated(m);
    if (status == PREFOPT_OK)
        status = pf_policy_create(out, context, &own, &callbacks, m);
    if (status != PREFOPT_OK) {
        if (m != NULL)
            loglinear_destroy(m);
        return status;
    }
    (*out)->score_class = PF_SCORES_LINEAR;
    (*out)->extras = &extras;
    return PREFOPT_OK;
}
