/* Rewards of listed sequences: tabular (one number each) and linear (theta . phi).
 *
 * The distinct sequences are numbered by first appearance. score[j] is kept for each; for the
 * tabular kind it is the parameters themselves, for the linear kind scores = Phi theta, computed
 * when theta changes. Phi is [distinct, n_features]. */
#include <math.h>

#include "math/pf_gemm.h"
#include "model/pf_reward.h"

typedef struct {
    prefopt_context *context;
    pf_sequence_map *map;
    int64_t n;            /* distinct sequences */
    int64_t n_features;   /* 0: tabular */
    int64_t n_parameters; /* n_features, or n */
    double *features;     /* [n, n_features]; NULL: tabular */
    double *theta, *grad; /* n_parameters */
    double *score;        /* n; tabular: theta */
    double *spare;        /* n; NULL: tabular */
} table;

static int32_t find_all(const table *t, const prefopt_sequences *in, int64_t *index)
{
    for (int64_t i = 0; i < in->n; i++)
        if ((index[i] = pf_sequence_map_find(t->map, in, i)) < 0)
            return pf_fail(PREFOPT_ERR_ARGUMENT,
                           "sequence %lld (%lld tokens, %lld of them prompt) is none of the %lld "
                           "this reward was created with",
                           (long long)i, (long long)pf_sequence_len(in, i),
                           (long long)in->prompt_len[i], (long long)t->n);
    return PREFOPT_OK;
}

static int32_t table_scores(void *payload, const prefopt_sequences *in, double *score)
{
    const table *t = payload;
    int64_t *index = pf_alloc(t->context, in->n, sizeof *index);
    if (index == NULL)
        return PREFOPT_ERR_MEMORY;
    int32_t status = find_all(t, in, index);
    for (int64_t i = 0; status == PREFOPT_OK && i < in->n; i++)
        score[i] = t->score[index[i]];
    pf_free(t->context, index);
    return status;
}

/* d score / d theta = phi: the gradients are gathered for each distinct sequence, then
 * grad += Phi^T gathered in one product. */
static int32_t table_backward(void *payload, const prefopt_sequences *in, const double *grad_score)
{
    table *t = payload;
    int64_t *index = pf_alloc(t->context, in->n, sizeof *index);
    double *gathered = pf_calloc(t->context, t->n, sizeof *gathered);
    int32_t status =
        index == NULL || gathered == NULL ? PREFOPT_ERR_MEMORY : find_all(t, in, index);
    if (status == PREFOPT_OK) {
        for (int64_t i = 0; i < in->n; i++)
            gathered[index[i]] += grad_score[i];
        if (t->features != NULL)
            status = pf_dgemv(t->context, true, t->n, t->n_features, 1, t->features, t->n_features,
                              gathered, 1, t->grad);
        else
            for (int64_t j = 0; j < t->n; j++)
                t->grad[j] += gathered[j];
    }
    pf_free(t->context, gathered);
    pf_free(t->context, index);
    return status;
}

static int32_t table_parameters(void *payload, prefopt_parameters *out)
{
    table *t = payload;
    out->dtype = PREFOPT_F64;
    out->n = t->n_parameters;
    out->value = t->theta;
    out->grad = t->grad;
    return PREFOPT_OK;
}

/* On failure the linear kind keeps the scores of the last good theta. */
static int32_t table_updated(void *payload)
{
    table *t = payload;
    for (int64_t k = 0; k < t->n_parameters; k++)
        if (!isfinite(t->theta[k]))
            return pf_fail(PREFOPT_ERR_NUMERIC,
                           "the reward's parameter %lld is %g, expected a finite number",
                           (long long)k, t->theta[k]);
    if (t->features == NULL)
        return PREFOPT_OK;
    PF_TRY(pf_dgemv(t->context, false, t->n, t->n_features, 1, t->features, t->n_features, t->theta,
                    0, t->spare));
    for (int64_t j = 0; j < t->n; j++)
        if (!isfinite(t->spare[j]))
            return pf_fail(PREFOPT_ERR_NUMERIC,
                           "the reward of distinct sequence %lld overflows to %g", (long long)j,
                           t->spare[j]);
    double *fresh = t->spare;
    t->spare = t->score;
    t->score = fresh;
    return PREFOPT_OK;
}

static int32_t table_hash(void *payload, uint64_t *out)
{
    const table *t = payload;
    uint64_t hash = pf_hash_kind(t->features == NULL ? "tabular reward" : "linear reward");
    hash = pf_stream(hash, pf_row_hash(pf_sequence_map_view(t->map), 0, t->n));
    if (t->features != NULL)
        hash = pf_content_hash(t->context, hash, t->features,
                               t->n * t->n_features * (int64_t)sizeof *t->features);
    *out = pf_content_hash(t->context, hash, t->theta, t->n_parameters * (int64_t)sizeof *t->theta);
    return PREFOPT_OK;
}

static const pf_policy_extras extras = {.hash = table_hash};

static void table_destroy(void *payload)
{
    table *t = payload;
    prefopt_context *context = t->context;
    if (t->features != NULL) {
        pf_free(context, t->score);
        pf_free(context, t->spare);
        pf_free(context, t->features);
    }
    pf_free(context, t->theta);
    pf_free(context, t->grad);
    pf_sequence_map_destroy(t->map);
    pf_free(context, t);
    pf_context_release(context);
}

/* Copies the feature row of each distinct sequence; a repeat must have the same. */
static int32_t copy_features(table *t, const prefopt_sequences *in, const int64_t *index,
                             const double *features)
{
    int64_t seen = 0, width = t->n_features;
    for (int64_t i = 0; i < in->n; i++) {
        const double *row = features + i * width;
        double *own = t->features + index[i] * width;
        if (index[i] == seen) { /* numbered by first appearance */
            memcpy(own, row, (size_t)width * sizeof *row);
            seen++;
            continue;
        }
        for (int64_t k = 0; k < width; k++)
            if (own[k] != row[k])
                return pf_fail(PREFOPT_ERR_ARGUMENT,
                               "features[%lld, %lld] is %.17g, but the same sequence had %.17g "
                               "before",
                               (long long)i, (long long)k, row[k], own[k]);
    }
    return PREFOPT_OK;
}

/* Arrays of a table whose map stands; theta and the scores are 0. */
static int32_t allocate(table *t, bool linear)
{
    if (linear) {
        int64_t total;
        if (!pf_mul(t->n, t->n_features, &total))
            total = -1;
        if ((t->features = pf_alloc(t->context, total, sizeof(double))) == NULL ||
            (t->score = pf_calloc(t->context, t->n, sizeof(double))) == NULL ||
            (t->spare = pf_alloc(t->context, t->n, sizeof(double))) == NULL)
            return PREFOPT_ERR_MEMORY;
    }
    t->n_parameters = linear ? t->n_features : t->n;
    if ((t->theta = pf_calloc(t->context, t->n_parameters, sizeof(double))) == NULL ||
        (t->grad = pf_calloc(t->context, t->n_parameters, sizeof(double))) == NULL)
        return PREFOPT_ERR_MEMORY;
    if (!linear)
        t->score = t->theta;
    return PREFOPT_OK;
}

/* features NULL: tabular. */
static int32_t create(prefopt_reward **out, prefopt_context *context, const prefopt_sequences *in,
                      int64_t n_features, const double *features)
{
    int64_t *index = pf_alloc(context, in->n, sizeof *index);
    table *t = pf_calloc(context, 1, sizeof *t);
    if (index == NULL || t == NULL) {
        pf_free(context, index);
        pf_free(context, t);
        return PREFOPT_ERR_MEMORY;
    }
    t->context = pf_context_retain(context);
    int32_t status = pf_sequence_map_create(&t->map, context, in, PF_MAP_SEQUENCES, index);
    if (status == PREFOPT_OK) {
        t->n = pf_sequence_map_size(t->map);
        t->n_features = n_features;
        status = allocate(t, features != NULL);
    }
    if (status == PREFOPT_OK && features != NULL)
        status = copy_features(t, in, index, features);
    pf_free(context, index);
    static const prefopt_reward_callbacks callbacks = {
        .struct_size = sizeof callbacks,
        .scores = table_scores,
        .backward = table_backward,
        .parameters = table_parameters,
        .destroy = table_destroy,
        .updated = table_updated,
    };
    if (status == PREFOPT_OK)
        status = pf_reward_create(out, context, &callbacks, t);
    if (status != PREFOPT_OK) {
        table_destroy(t);
        return status;
    }
    (*out)->score_class = features == NULL ? PF_SCORES_FREE : PF_SCORES_LINEAR;
    (*out)->extras = &extras;
    return PREFOPT_OK;
}

int32_t prefopt_reward_create_tabular(prefopt_reward **out, prefopt_context *context,
                                      const prefopt_sequences *in)
{
    PF_REQUIRE(out);
    PF_REQUIRE(context);
    PF_TRY(pf_sequences_check(in, "in"));
    return create(out, context, in, 0, NULL);
}

int32_t prefopt_reward_create_linear(prefopt_reward **out, prefopt_context *context,
                                     const prefopt_sequences *in, int64_t n_features,
                                     const double *features)
{
    PF_REQUIRE(out);
    PF_REQUIRE(context);
    PF_TRY(pf_sequences_check(in, "in"));
    PF_TRY(pf_features_check(in, n_features, features));
    static const double none[1] = {0}; /* n = 0: linear all the same */
    return create(out, context, in, n_features, in->n == 0 ? none : features);
}
