/* What prefopt_strengths_fit refuses: options and data, before anything is computed. */
#include <math.h>

#include "train/pf_strengths_check.h"

int32_t pf_strengths_check_options(const prefopt_strengths_options *o,
                                   const prefopt_strengths_options *defaults, int64_t n_items,
                                   bool rankings)
{
    if (o->tie_model < PREFOPT_TIE_NONE || o->tie_model > PREFOPT_TIE_RAO_KUPPER)
        return pf_fail(PREFOPT_ERR_ARGUMENT, "tie_model is %d, expected a prefopt_tie_model (0-2)",
                       o->tie_model);
    if (rankings && o->tie_model != PREFOPT_TIE_NONE)
        return pf_fail(PREFOPT_ERR_ARGUMENT,
                       "tie_model is %d, but rankings have no ties: expected PREFOPT_TIE_NONE",
                       o->tie_model);
    if (!(o->ridge >= 0) || isinf(o->ridge))
        return pf_fail(isnan(o->ridge) ? PREFOPT_ERR_NUMERIC : PREFOPT_ERR_ARGUMENT,
                       "ridge is %g, expected a finite number >= 0", o->ridge);
    if (o->reference < -1 || o->reference >= n_items)
        return pf_fail(PREFOPT_ERR_ARGUMENT,
                       "reference is %lld, expected an item (0 to %lld) or -1 for none",
                       (long long)o->reference, (long long)n_items - 1);
    if (o->covariance < PREFOPT_COVARIANCE_INFORMATION ||
        o->covariance > PREFOPT_COVARIANCE_BOOTSTRAP)
        return pf_fail(PREFOPT_ERR_ARGUMENT,
                       "covariance is %d, expected a prefopt_covariance (0-2)", o->covariance);
    if (o->covariance == PREFOPT_COVARIANCE_BOOTSTRAP && o->replicates < 2)
        return pf_fail(PREFOPT_ERR_ARGUMENT, "replicates is %d, expected at least 2",
                       o->replicates);
    if (o->covariance != PREFOPT_COVARIANCE_BOOTSTRAP && o->replicates != defaults->replicates)
        return pf_fail(PREFOPT_ERR_ARGUMENT,
                       "replicates is set (%d) but not used: covariance is not "
                       "PREFOPT_COVARIANCE_BOOTSTRAP",
                       o->replicates);
    if (o->covariance != PREFOPT_COVARIANCE_BOOTSTRAP && o->seed != defaults->seed)
        return pf_fail(PREFOPT_ERR_ARGUMENT,
                       "seed is set (%llu) but not used: covariance is not "
                       "PREFOPT_COVARIANCE_BOOTSTRAP",
                       (unsigned long long)o->seed);
    if (!(o->tolerance > 0) || isinf(o->tolerance))
        return pf_fail(isnan(o->tolerance) ? PREFOPT_ERR_NUMERIC : PREFOPT_ERR_ARGUMENT,
                       "tolerance is %g, expected a finite number > 0", o->tolerance);
    for (int64_t i = 0; i < n_items && o->item_names != NULL; i++)
        if (o->item_names[i] == NULL)
            return pf_fail(PREFOPT_ERR_ARGUMENT, "item_names[%lld] is NULL", (long long)i);
    return PREFOPT_OK;
}

static int32_t check_sizes(const char *name, int64_t n_items, int64_t n)
{
    if (n_items < 1 || n_items > INT32_MAX)
        return pf_fail(PREFOPT_ERR_ARGUMENT, "%s.n_items is %lld, expected 1 to %d", name,
                       (long long)n_items, INT32_MAX);
    if (n < 0)
        return pf_fail(PREFOPT_ERR_ARGUMENT, "%s.n is %lld, expected >= 0", name, (long long)n);
    return PREFOPT_OK;
}

static int32_t check_weights(const char *name, int64_t n, const double *weight)
{
    double total = 0;
    for (int64_t i = 0; i < n && weight != NULL; i++) {
        if (isnan(weight[i]))
            return pf_fail(PREFOPT_ERR_NUMERIC, "%s.weight[%lld] is NaN", name, (long long)i);
        if (!(weight[i] >= 0) || isinf(weight[i]))
            return pf_fail(PREFOPT_ERR_ARGUMENT,
                           "%s.weight[%lld] is %g, expected a finite number >= 0", name,
                           (long long)i, weight[i]);
        total += weight[i];
    }
    if (isinf(total))
        return pf_fail(PREFOPT_ERR_ARGUMENT, "the sum of %s.weight overflows", name);
    return PREFOPT_OK;
}

static int32_t check_item(const char *array, int64_t i, int32_t item, int64_t n_items)
{
    if (item < 0 || item >= n_items)
        return pf_fail(PREFOPT_ERR_ARGUMENT, "%s[%lld] is %d, expected 0 to %lld", array,
                       (long long)i, item, (long long)n_items - 1);
    return PREFOPT_OK;
}

int32_t pf_strengths_check_comparisons(const prefopt_comparisons *data, int32_t tie_model)
{
    PF_TRY(check_sizes("comparisons", data->n_items, data->n));
    if (data->n > INT32_MAX)
        return pf_fail(PREFOPT_ERR_ARGUMENT,
                       "comparisons.n is %lld, expected at most %d (equal rows may be one with "
                       "their weights added)",
                       (long long)data->n, INT32_MAX);
    if (data->n > 0 && (data->first == NULL || data->second == NULL))
        return pf_fail(PREFOPT_ERR_ARGUMENT, "comparisons.%s is NULL, expected %lld items",
                       data->first == NULL ? "first" : "second", (long long)data->n);
    PF_TRY(check_weights("comparisons", data->n, data->weight));
    for (int64_t i = 0; i < data->n; i++) {
        PF_TRY(check_item("comparisons.first", i, data->first[i], data->n_items));
        PF_TRY(check_item("comparisons.second", i, data->second[i], data->n_items));
        if (data->first[i] == data->second[i])
            return pf_fail(PREFOPT_ERR_ARGUMENT,
                           "comparisons.first[%lld] and second[%lld] are both item %d, expected "
                           "different items",
                           (long long)i, (long long)i, data->first[i]);
        double y = data->label == NULL ? 1 : data->label[i];
        if (isnan(y))
            return pf_fail(PREFOPT_ERR_NUMERIC, "comparisons.label[%lld] is NaN", (long long)i);
        if (tie_model == PREFOPT_TIE_NONE && !(y >= 0 && y <= 1))
            return pf_fail(PREFOPT_ERR_ARGUMENT, "comparisons.label[%lld] is %g, expected 0 to 1",
                           (long long)i, y);
        if (tie_model != PREFOPT_TIE_NONE && y != 0 && y != 0.5 && y != 1)
            return pf_fail(PREFOPT_ERR_ARGUMENT,
                           "comparisons.label[%lld] is %g, expected 0, 0.5 (a tie) or 1 with a "
                           "tie model",
                           (long long)i, y);
    }
    return PREFOPT_OK;
}

static int32_t check_offsets(const prefopt_rankings *data)
{
    if (data->n > 0 && data->offsets == NULL)
        return pf_fail(PREFOPT_ERR_ARGUMENT, "rankings.offsets is NULL, expected %lld offsets",
                       (long long)data->n + 1);
    if (data->n > 0 && data->offsets[0] != 0)
        return pf_fail(PREFOPT_ERR_ARGUMENT, "rankings.offsets[0] is %lld, expected 0",
                       (long long)data->offsets[0]);
    for (int64_t i = 0; i < data->n; i++)
        if (data->offsets[i + 1] < data->offsets[i])
            return pf_fail(PREFOPT_ERR_ARGUMENT,
                           "rankings.offsets[%lld] is %lld, expected at least offsets[%lld] = %lld",
                           (long long)i + 1, (long long)data->offsets[i + 1], (long long)i,
                           (long long)data->offsets[i]);
    if (data->n > 0 && data->offsets[data->n] > 0 && data->items == NULL)
        return pf_fail(PREFOPT_ERR_ARGUMENT, "rankings.items is NULL, expected %lld items",
                       (long long)data->offsets[data->n]);
    return PREFOPT_OK;
}

int32_t pf_strengths_check_rankings(prefopt_context *context, const prefopt_rankings *data)
{
    PF_TRY(check_sizes("rankings", data->n_items, data->n));
    PF_TRY(check_offsets(data));
    PF_TRY(check_weights("rankings", data->n, data->weight));
    int64_t *seen = pf_calloc(context, data->n_items, sizeof *seen); /* ranking + 1 */
    if (seen == NULL)
        return PREFOPT_ERR_MEMORY;
    int32_t status = PREFOPT_OK;
    for (int64_t i = 0; i < data->n && status == PREFOPT_OK; i++)
        for (int64_t k = data->offsets[i]; k < data->offsets[i + 1] && status == PREFOPT_OK; k++) {
            status = check_item("rankings.items", k, data->items[k], data->n_items);
            if (status != PREFOPT_OK)
                break;
            if (seen[data->items[k]] == i + 1)
                status = pf_fail(PREFOPT_ERR_ARGUMENT,
                                 "rankings.items[%lld]: item %d stands twice in ranking %lld",
                                 (long long)k, data->items[k], (long long)i);
            seen[data->items[k]] = i + 1;
        }
    pf_free(context, seen);
    return status;
}
