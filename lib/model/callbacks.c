/* What the gates of policy and reward share: callback statuses, parameters, gradients, features. */
#include <math.h>

#include "model/pf_model.h"

int32_t pf_callback_status(int32_t status, const char *owner, const char *entry)
{
    if (status == PREFOPT_OK || status == PREFOPT_STOPPED)
        return status;
    if (status >= PREFOPT_ERR_UNBOUNDED && status < 0)
        return pf_fail(status, "the %s's callback %s returned %s", owner, entry,
                       prefopt_status_name(status));
    return pf_fail(PREFOPT_ERR_CALLBACK, "the %s's callback %s returned %d, expected 0 or a status",
                   owner, entry, status);
}

int64_t pf_extras_keeps(const pf_policy_extras *extras, void *payload, const prefopt_sequences *in)
{
    if (extras == NULL || extras->keeps == NULL || in->n == 0)
        return in->n;
    int64_t n = extras->keeps(payload, in);
    return n < in->n ? n : in->n;
}

bool pf_extras_values(const pf_policy_extras *extras, void *payload, pf_values *out)
{
    pf_values values = {0};
    if (extras == NULL || extras->weights == NULL)
        return false;
    extras->weights(payload, &values);
    if (values.shape == NULL)
        return false;
    *out = values;
    return true;
}

int32_t pf_parameters_check(const prefopt_parameters *parameters, const char *owner)
{
    if (parameters->dtype != PREFOPT_F64 && parameters->dtype != PREFOPT_F32)
        return pf_fail(PREFOPT_ERR_CALLBACK,
                       "the %s's callback parameters gave dtype %d, expected 0 (F64) or 1 (F32)",
                       owner, parameters->dtype);
    if (parameters->n < 0)
        return pf_fail(PREFOPT_ERR_CALLBACK,
                       "the %s's callback parameters gave n = %lld, expected at least 0", owner,
                       (long long)parameters->n);
    if (parameters->n > 0 && (parameters->value == NULL || parameters->grad == NULL))
        return pf_fail(PREFOPT_ERR_CALLBACK,
                       "the %s's callback parameters gave NULL for %s of %lld numbers", owner,
                       parameters->value == NULL ? "value" : "grad", (long long)parameters->n);
    return PREFOPT_OK;
}

void pf_parameters_zero_grad(const prefopt_parameters *parameters)
{
    size_t size = parameters->dtype == PREFOPT_F64 ? sizeof(double) : sizeof(float);
    if (parameters->n > 0)
        memset(parameters->grad, 0, (size_t)parameters->n * size);
}

int32_t pf_gradients_check(const double *grad, int64_t n, const char *name)
{
    for (int64_t i = 0; i < n; i++)
        if (!isfinite(grad[i]))
            return pf_fail(PREFOPT_ERR_NUMERIC, "%s[%lld] is %g, expected a finite number", name,
                           (long long)i, grad[i]);
    return PREFOPT_OK;
}

int32_t pf_features_check(const prefopt_sequences *in, int64_t n_features, const double *features)
{
    int64_t total;
    if (n_features < 1)
        return pf_fail(PREFOPT_ERR_ARGUMENT, "n_features is %lld, expected at least 1",
                       (long long)n_features);
    if (!pf_mul(in->n, n_features, &total))
        return pf_fail(PREFOPT_ERR_MEMORY, "features: a size overflows: %lld rows of %lld",
                       (long long)in->n, (long long)n_features);
    if (in->n > 0 && features == NULL)
        return pf_fail(PREFOPT_ERR_ARGUMENT, "features is NULL but in->n is %lld",
                       (long long)in->n);
    for (int64_t k = 0; k < total; k++)
        if (!isfinite(features[k]))
            return pf_fail(PREFOPT_ERR_NUMERIC,
                           "features[%lld, %lld] is %g, expected a finite number",
                           (long long)(k / n_features), (long long)(k % n_features), features[k]);
    return PREFOPT_OK;
}
